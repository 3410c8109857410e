//! What operators wish: judged, made durable, told to the other node, and then followed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use controlplane_api::verbs::{self, GroupVerb, NodeVerb, Said};
use controlplane_core::failure_detector::{PathState, Presence};
use controlplane_core::keeper::{Event, Wished};
use controlplane_core::wish::{Effect, GroupKey, Origin, Subject, Want, Wish, WishMark};
use mirror_core::admin::Problem;
use mirror_core::types::Instant;
use tokio::sync::oneshot;

use super::judge::{Judged, refused};
use super::{Incoming, Node, now, status};
use crate::config::Config;
use crate::heartbeat::state_number;
use crate::services::Stopping;

/// What could not be made durable is tried again after this time.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Of a group.
    Group {
        /// Which one.
        group: String,
        /// What.
        verb: GroupVerb,
        /// Where, for a move and a start.
        node: Option<String>,
    },
    /// Of a node.
    Node {
        /// Which one.
        node: String,
        /// What.
        verb: NodeVerb,
    },
    /// Timeouts, raised so many tenths for so many seconds; as configured without.
    Timeouts(Option<(u16, u64)>),
}

/// Where the answer to an operator goes.
pub type Answer = oneshot::Sender<Result<Said, Problem>>;

/// An operator who waits until a wish is durable.
pub(super) struct Waiting {
    wish: Wish,
    said: Said,
    answer: Answer,
}

/// All that something may be wished about.
pub fn subjects(config: &Config) -> Vec<Subject> {
    let nodes = [config.me, config.peer].map(Subject::Node);
    let keys = config.groups.iter().map(|group| GroupKey::of(&group.name));
    let groups = keys.flat_map(|key| {
        let keys = [key, key.of_resources()].into_iter();
        let failed =
            keys.flat_map(|key| [config.me, config.peer].map(|node| Subject::Failed(key, node)));
        [Subject::Group(key), Subject::Failures(key)]
            .into_iter()
            .chain(failed)
    });
    nodes.into_iter().chain(groups).collect()
}

impl Node {
    /// Whether the other node knows the same wishes, all durable on both.
    pub(super) fn agreed(&self) -> bool {
        let peers = self.shared.peer_wishes.load(Ordering::Relaxed);
        self.is_peer_heard() && self.wishes.digest() == Some(peers)
    }

    /// Whether the other node's control plane lives: the mirror link alone does not tell.
    pub(super) fn is_peer_heard(&self) -> bool {
        let interconnects = &self.shared.paths[..self.config.interconnects.len()];
        let up = [PathState::Up, PathState::Late].map(state_number);
        let heard = interconnects
            .iter()
            .any(|path| up.contains(&path.state.load(Ordering::Relaxed)));
        self.presence == Presence::Alive && heard
    }

    pub(super) fn verb(&mut self, verb: &Verb, answer: Answer) {
        let judged = match verb {
            Verb::Group { group, verb, node } => self.group_verb(group, *verb, node.as_deref()),
            Verb::Node { node, verb } => self.node_verb(node, *verb),
            Verb::Timeouts(wanted) => return self.timeouts_verb(*wanted, answer),
        };
        let (wish, message) = match judged {
            // Who asked may be gone.
            Err(problem) => return drop(answer.send(Err(problem))),
            Ok(Judged::Already(subject, message)) => {
                (self.wishes.newest(subject).copied(), message)
            }
            Ok(Judged::Wish(subject, want, message)) => {
                let Some(wish) = self.wishes.say(subject, want, Origin::Operator) else {
                    return;
                };
                (Some(wish), message)
            }
        };
        let node = wish.and_then(|wish| match wish.want {
            Want::Moves { to } => Some(to),
            Want::Runs { home } => home,
            Want::Stopped { .. }
            | Want::Forgotten
            | Want::Failed
            | Want::Mended
            | Want::Suspended
            | Want::Resumed => None,
        });
        let said = Said {
            schema: verbs::SCHEMA.to_string(),
            ok: true,
            number: wish.map(|wish| wish.number),
            by: wish.map(|wish| self.name_of(wish.by)),
            node: node.map(|node| self.name_of(node)),
            message,
        };
        match wish {
            // What was said before, too, may not be durable yet.
            Some(wish) if self.wishes.of(wish.subject) != Some(&wish) => {
                self.waiting.push(Waiting { wish, said, answer });
                self.store_wishes();
            }
            Some(_) | None => drop(answer.send(Ok(said))),
        }
    }

    // --- wishes as they come -------------------------------------------------------------------

    /// The other node says that this is wished.
    pub(super) fn hear_wish(&mut self, wish: Wish) {
        self.wishes.hear(wish);
        self.store_wishes();
    }

    /// A move arrived, or came to nothing.
    pub(super) fn settle(&mut self, group: usize, mark: WishMark, origin: Origin) {
        let home = Some(self.config.me);
        let subject = self.groups[group].subject;
        let outcome = (subject, Want::Runs { home }, origin);
        self.wishes.settle(mark, outcome);
        self.store_wishes();
    }

    pub(super) fn store_wishes(&mut self) {
        let mut effects = Vec::new();
        self.wishes.store(&mut effects);
        self.follow(effects);
    }

    pub(super) fn stored(&mut self, version: u64, error: Option<String>) {
        let mut effects = Vec::new();
        match error {
            None => self.wishes.stored(version, &mut effects),
            Some(error) => {
                tracing::error!(code = "LS6087", "{error}");
                self.wishes.not_stored(version);
                self.store_again_at = Some(now() + STORE_RETRY);
                for waiting in self.waiting.drain(..) {
                    let problem = not_durable(&self.config.name, &error);
                    drop(waiting.answer.send(Err(problem)));
                }
                self.not_together(&error);
            }
        }
        self.follow(effects);
        self.answer_together();
    }

    /// What waits for time.
    pub(super) fn tick_wishes(&mut self, now: Instant) {
        if self.store_again_at.take_if(|at| *at <= now).is_some() {
            self.store_wishes();
        }
        while let Some(wish) = self.untold.pop() {
            if self.teller.try_send(wish).is_err() {
                // The thread takes them with its next heartbeat.
                self.untold.push(wish);
                return;
            }
        }
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Store { version, wishes } => {
                    let (store, queue) = (self.store.clone(), self.queue.clone());
                    tokio::task::spawn_blocking(move || {
                        let error = store.save(&wishes).err().map(|error| error.to_string());
                        let _ = queue.blocking_send(Incoming::Stored { version, error });
                    });
                }
                Effect::Rules(wish) => self.rules(wish),
            }
        }
    }

    /// A wish is durable here: it is told, and followed.
    fn rules(&mut self, wish: Wish) {
        let (number, want, origin) = (wish.number, wish.want, wish.origin);
        let by = self.name_of(wish.by);
        match (origin, self.group_of(wish.subject)) {
            (Origin::InVain(why), Some(group)) => {
                let group = &self.groups[group].name;
                let why = status::words(why);
                tracing::error!(
                    code = "LS6089",
                    group,
                    number,
                    by,
                    "a move came to nothing: {why}"
                );
            }
            (Origin::Arrived, Some(group)) => {
                let group = &self.groups[group].name;
                tracing::info!(code = "LS6088", group, number, by, "a move arrived");
            }
            (Origin::Operator | Origin::Together, group) => {
                let group = group.map(|group| &*self.groups[group].name);
                tracing::info!(code = "LS6091", group, subject = ?wish.subject, ?want, number, by, "an operator's wish");
            }
            (Origin::Node, group) => self.tell_of_failure(group, &wish),
            (Origin::Arrived | Origin::InVain(_), None) => {}
        }
        self.untold.push(wish);
        self.tick_wishes(now());
        if let Some(group) = self.group_of(wish.subject) {
            // Whoever moves a group here wants it tried. A group that moves by itself is not moved to where it failed.
            if want == (Want::Moves { to: self.config.me }) && origin == Origin::Operator {
                self.services.clear(now(), group);
            }
            let home = Some(self.config.me);
            if want == (Want::Runs { home }) && matches!(origin, Origin::InVain(_)) {
                self.services.came_to_nothing(group, number);
            }
            self.forget_failures(group);
        }
        for group in 0..self.groups.len() {
            self.wished(group);
        }
        let over = |waiting: &Waiting| {
            waiting.wish.subject == wish.subject && wish.mark() >= waiting.wish.mark()
        };
        let (done, waiting) = self.waiting.drain(..).partition(over);
        self.waiting = waiting;
        for waiting in done {
            let answer = if waiting.wish == wish {
                Ok(waiting.said)
            } else {
                Err(overruled(&by))
            };
            drop(waiting.answer.send(answer));
        }
    }

    fn group_of(&self, subject: Subject) -> Option<usize> {
        let of = |group: &super::Group| match subject {
            Subject::Group(_) => group.subject == subject,
            Subject::Failures(key) => group.subject == Subject::Group(key),
            // Where it failed, and why.
            Subject::Failed(key, _) => {
                let keys = [key, key.of_resources()];
                keys.map(Subject::Group).contains(&group.subject)
            }
            Subject::Node(_) => false,
        };
        self.groups.iter().position(of)
    }

    /// Tells the keeper how its group's resources stand, and what is wished.
    pub(super) fn wished(&mut self, group: usize) {
        let stops = self.groups[group].keeper.stops_services();
        let services = self.services.standing(now(), group, stops);
        self.one(group, Event::Services(services));
        let (me, peer) = (self.config.me, self.config.peer);
        let subject = self.groups[group].subject;
        let wished = Wished::of(&self.wishes, subject, me, peer, self.agreed());
        self.one(group, Event::Wished(wished));
    }

    /// The keeper may want the resources stopped now, or not any more.
    pub(super) fn order_services(&mut self, group: usize) {
        let keeper = &self.groups[group].keeper;
        let stopped = matches!(
            self.wishes.of(self.groups[group].subject),
            Some(Wish {
                want: Want::Stopped { .. },
                ..
            })
        );
        let wanted = match (stopped, keeper.stops_services()) {
            (true, _) => Some(Stopping::Stopped),
            (false, true) => Some(Stopping::Moves),
            (false, false) => None,
        };
        self.services.wanted(now(), group, wanted);
    }
}

pub(super) fn not_durable(node: &str, error: &str) -> Problem {
    refused(
        "LS6087",
        format!("it is not durable on {node}: {error}"),
        "see that there is room; as long as lockstepd runs it is tried again every second, and followed then",
    )
}

pub(super) fn overruled(by: &str) -> Problem {
    refused(
        "LS6093",
        format!("somebody wished something else on {by}, at the same time"),
        "`lockstep status` says what; talk to each other",
    )
}
