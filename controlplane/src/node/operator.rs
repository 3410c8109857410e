//! What operators wish: judged, made durable, told to the other node, and then followed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use controlplane_api::verbs::{self, GroupVerb, NodeVerb, Said};
use controlplane_core::failure_detector::{PathState, Presence};
use controlplane_core::keeper::{Event, Wished};
use controlplane_core::wish::{Effect, GroupKey, Origin, Subject, Want, Wish};
use mirror_core::admin::{LinkState, Problem, Role, Status};
use mirror_core::types::{Instant, NodeId};
use tokio::sync::oneshot;

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
}

/// Where the answer to an operator goes.
pub type Answer = oneshot::Sender<Result<Said, Problem>>;

/// An operator who waits until a wish is durable.
pub(super) struct Waiting {
    wish: Wish,
    said: Said,
    answer: Answer,
}

/// What comes of a verb.
enum Judged {
    /// It is so already.
    Already(String),
    /// This is wished.
    Wish(Subject, Want, String),
}

/// All that something may be wished about.
pub fn subjects(config: &Config) -> Vec<Subject> {
    let nodes = [config.me, config.peer].map(Subject::Node);
    let keys = config.groups.iter().map(|group| GroupKey::of(&group.name));
    let groups = keys.flat_map(|key| [Subject::Group(key), Subject::Failures(key)]);
    nodes.into_iter().chain(groups).collect()
}

fn refused(code: &str, message: impl Into<String>, advice: impl Into<String>) -> Problem {
    Problem {
        code: code.to_string(),
        message: message.into(),
        advice: advice.into(),
    }
}

impl Node {
    /// Whether the other node knows the same wishes, all durable on both.
    pub(super) fn agreed(&self) -> bool {
        let peers = self.shared.peer_wishes.load(Ordering::Relaxed);
        self.is_peer_heard() && self.wishes.digest() == Some(peers)
    }

    /// Whether the other node's control plane lives: the mirror link alone does not tell.
    fn is_peer_heard(&self) -> bool {
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
        };
        let said = |number, node, message| Said {
            schema: verbs::SCHEMA.to_string(),
            ok: true,
            number,
            node,
            message,
        };
        // Who asked may be gone.
        match judged {
            Err(problem) => {
                let _ = answer.send(Err(problem));
            }
            Ok(Judged::Already(message)) => {
                let _ = answer.send(Ok(said(None, None, message)));
            }
            Ok(Judged::Wish(subject, want, message)) => {
                let node = match want {
                    Want::Moves { to } => Some(to),
                    Want::Runs { home } => home,
                    Want::Stopped { .. } | Want::Forgotten | Want::Suspended | Want::Resumed => {
                        None
                    }
                };
                let node = node.map(|node| self.name_of(node));
                let Some(wish) = self.wishes.say(subject, want, Origin::Operator) else {
                    return;
                };
                let said = said(Some(wish.number), node, message);
                self.waiting.push(Waiting { wish, said, answer });
                self.store_wishes();
            }
        }
    }

    fn node_named(&self, name: &str) -> Result<NodeId, Problem> {
        match name {
            own if own == self.config.name => Ok(self.config.me),
            peer if peer == self.config.peer_name => Ok(self.config.peer),
            _ => Err(refused(
                "LS6080",
                format!("there is no node {name} in this cluster"),
                format!("say {} or {}", self.config.name, self.config.peer_name),
            )),
        }
    }

    fn node_verb(&self, name: &str, verb: NodeVerb) -> Result<Judged, Problem> {
        let node = self.node_named(name)?;
        let want = match verb {
            NodeVerb::Suspend => Want::Suspended,
            NodeVerb::Resume => Want::Resumed,
        };
        let newest = self.wishes.newest(Subject::Node(node));
        let now = newest.map_or(Want::Resumed, |wish| wish.want);
        let text = match (verb, now == want) {
            (NodeVerb::Suspend, true) => format!("{name} was suspended already"),
            (NodeVerb::Suspend, false) => format!(
                "{name} is suspended: it takes nothing over, and goes on with what it serves; `lockstep node resume \
                 {name}` ends that"
            ),
            (NodeVerb::Resume, true) => format!("{name} was not suspended"),
            (NodeVerb::Resume, false) => format!("{name} takes over again"),
        };
        Ok(if now == want {
            Judged::Already(text)
        } else {
            Judged::Wish(Subject::Node(node), want, text)
        })
    }

    fn group_verb(
        &self,
        name: &str,
        verb: GroupVerb,
        node: Option<&str>,
    ) -> Result<Judged, Problem> {
        let named = |group: &super::Group| group.name == name;
        let Some(group) = self.groups.iter().position(named) else {
            let names: Vec<&str> = self.groups.iter().map(|group| &*group.name).collect();
            return Err(refused(
                "LS6080",
                format!("there is no group {name} in this cluster"),
                format!("the groups are: {}", names.join(", ")),
            ));
        };
        let node = node.map(|node| self.node_named(node)).transpose()?;
        match verb {
            GroupVerb::Move => self.judge_move(group, node),
            GroupVerb::Stop => Ok(self.judge_stop(group)),
            GroupVerb::Start => self.judge_start(group, node),
            GroupVerb::Clear => Ok(Judged::Wish(
                Subject::Failures(GroupKey::of(name)),
                Want::Forgotten,
                format!("what failed in {name} is forgotten on both nodes"),
            )),
        }
    }

    /// What is wished of a group, durable or not.
    fn newest(&self, group: usize) -> Want {
        let newest = self.wishes.newest(self.groups[group].subject);
        newest.map_or(Want::Runs { home: None }, |wish| wish.want)
    }

    /// The node that serves the group, as far as this one sees.
    fn serving(&self, group: usize) -> Option<NodeId> {
        let told = || self.groups[group].told.values();
        let peer = |status: &Status| status.view.active.as_ref() == Some(&status.peer);
        if told().any(|status| status.role == Role::Active) {
            Some(self.config.me)
        } else if told().any(|status| status.link.state == LinkState::Up && peer(status)) {
            Some(self.config.peer)
        } else {
            None
        }
    }

    fn judge_move(&self, group: usize, to: Option<NodeId>) -> Result<Judged, Problem> {
        let name = self.groups[group].name.clone();
        let wanted = self.newest(group);
        if matches!(wanted, Want::Stopped { .. }) {
            return Err(refused(
                "LS6085",
                format!("{name} is stopped"),
                format!("`lockstep group start {name} --on NODE` starts it where it shall run"),
            ));
        }
        let Some(serving) = self.serving(group) else {
            if let Want::Moves { to } = wanted {
                return Err(refused(
                    "LS6083",
                    format!("{name} is on its way to {}", self.name_of(to)),
                    "wait until it has arrived, or has gone back; `lockstep status` tells",
                ));
            }
            return Err(refused(
                "LS6085",
                format!("nobody serves {name}, as far as {} sees", self.config.name),
                "`lockstep status` says what it waits for",
            ));
        };
        let other = if serving == self.config.me {
            self.config.peer
        } else {
            self.config.me
        };
        let to = to.unwrap_or(other);
        let place = self.name_of(to);
        let subject = self.groups[group].subject;
        if to == serving {
            if !matches!(wanted, Want::Moves { .. }) {
                return Ok(Judged::Already(format!("{name} runs on {place} already")));
            }
            // It has not left.
            let home = Some(to);
            let text = format!("{name} stays on {place}");
            return Ok(Judged::Wish(subject, Want::Runs { home }, text));
        }
        self.must_take_over(to)?;
        self.must_hear_peer(group)?;
        self.must_count(group, to)?;
        let text = format!("{name} moves to {place}");
        Ok(Judged::Wish(subject, Want::Moves { to }, text))
    }

    fn judge_stop(&self, group: usize) -> Judged {
        let name = &self.groups[group].name;
        let home = match self.newest(group) {
            Want::Stopped { .. } => {
                return Judged::Already(format!("{name} was stopped already"));
            }
            Want::Runs { home } => home,
            Want::Moves { to } => Some(to),
            Want::Forgotten | Want::Suspended | Want::Resumed => None,
        };
        let home = self.serving(group).or(home);
        let text = format!(
            "{name} is stopped on both nodes, also after a reboot, until `lockstep group start {name}`"
        );
        Judged::Wish(self.groups[group].subject, Want::Stopped { home }, text)
    }

    fn judge_start(&self, group: usize, on: Option<NodeId>) -> Result<Judged, Problem> {
        let name = self.groups[group].name.clone();
        let before = if let Want::Stopped { home } = self.newest(group) {
            home
        } else {
            match (self.serving(group), on) {
                (Some(serving), Some(on)) if serving != on => {
                    return Err(refused(
                        "LS6086",
                        format!("{name} runs on {}", self.name_of(serving)),
                        format!("`lockstep group move {name} --to {}`", self.name_of(on)),
                    ));
                }
                (None, Some(_)) => None,
                (Some(_), _) | (None, None) => {
                    return Ok(Judged::Already(format!("{name} is not stopped")));
                }
            }
        };
        let both = [self.config.me, self.config.peer];
        if let Some(on) = on {
            self.must_take_over(on)?;
            if on == self.config.peer {
                self.must_hear_peer(group)?;
            }
            self.must_count(group, on)?;
        } else if both.iter().all(|node| self.wishes.is_suspended(*node)) {
            return Err(suspended("both nodes are"));
        }
        let home = on.or(before);
        let text = match home {
            Some(home) => format!("{name} starts on {}", self.name_of(home)),
            None => format!("{name} starts"),
        };
        Ok(Judged::Wish(
            self.groups[group].subject,
            Want::Runs { home },
            text,
        ))
    }

    fn must_take_over(&self, node: NodeId) -> Result<(), Problem> {
        if self.wishes.is_suspended(node) {
            return Err(suspended(&format!("{} is", self.name_of(node))));
        }
        Ok(())
    }

    /// Whether the other node's control plane and its volumes' daemons are there.
    fn must_hear_peer(&self, group: usize) -> Result<(), Problem> {
        let (me, peer) = (&self.config.name, &self.config.peer_name);
        if !self.is_peer_heard() {
            return Err(refused(
                "LS6081",
                format!("the control plane of {peer} is not heard on {me}"),
                format!(
                    "see that {peer} and its lockstepd run, and the interconnects in `lockstep status`"
                ),
            ));
        }
        for (volume, status) in self.statuses(group)? {
            if status.link.state != LinkState::Up {
                return Err(refused(
                    "LS6081",
                    format!("the mirror link of volume {volume} is down"),
                    format!(
                        "see that the daemon of {volume} runs on {peer}, and the network between the nodes"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Whether the copies of a node can be served, and nothing changes just now.
    fn must_count(&self, group: usize, node: NodeId) -> Result<(), Problem> {
        let place = self.name_of(node);
        for (volume, status) in self.statuses(group)? {
            let own = node == self.config.me;
            let name = if own { &status.node } else { &status.peer };
            if !status.view.insync.contains(name) {
                return Err(refused(
                    "LS6082",
                    format!("the copy of volume {volume} on {place} is not up to date"),
                    format!(
                        "`lockstep volume status {volume}` says how far the copying is; repeat the command then"
                    ),
                ));
            }
            if status.frozen.is_some() || status.view.changing {
                return Err(refused(
                    "LS6083",
                    format!("a change of volume {volume} is under way"),
                    format!(
                        "repeat the command in a moment; `lockstep volume status {volume}` tells what it waits for"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What the daemons of the group's volumes said last on this node.
    fn statuses(&self, group: usize) -> Result<Vec<(&str, &Status)>, Problem> {
        let told = |volume: &String| self.groups[group].told.get_key_value(volume);
        let volumes = self.config.groups[group].volumes.iter();
        let statuses = volumes.map(|volume| {
            let (volume, status) = told(volume).ok_or_else(|| {
                refused(
                    "LS6095",
                    format!(
                        "the daemon of volume {volume} does not answer on {}",
                        self.config.name
                    ),
                    format!("`lockstep volume start {volume}`, then repeat the command"),
                )
            })?;
            Ok((volume.as_str(), &**status))
        });
        statuses.collect()
    }

    // --- wishes as they come -------------------------------------------------------------------

    /// The other node says that this is wished.
    pub(super) fn hear_wish(&mut self, wish: Wish) {
        self.wishes.hear(wish);
        self.store_wishes();
    }

    /// A move arrived, or came to nothing.
    pub(super) fn settle(&mut self, group: usize, mark: (u64, NodeId), origin: Origin) {
        let home = Some(self.config.me);
        let subject = self.groups[group].subject;
        let wish = (subject, Want::Runs { home }, origin);
        self.wishes.say_after(mark, wish);
        self.store_wishes();
    }

    fn store_wishes(&mut self) {
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
                    let problem = refused(
                        "LS6087",
                        format!("it is not durable on {}: {error}", self.config.name),
                        "see that there is room; it is tried again every second as long as lockstepd runs",
                    );
                    let _ = waiting.answer.send(Err(problem));
                }
            }
        }
        self.follow(effects);
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
            (Origin::Operator, group) => {
                let group = group.map(|group| &*self.groups[group].name);
                tracing::info!(code = "LS6091", group, subject = ?wish.subject, ?want, number, by, "an operator's wish");
            }
            (Origin::Arrived | Origin::InVain(_), None) => {}
        }
        self.untold.push(wish);
        self.tick_wishes(now());
        if let Some(group) = self.group_of(wish.subject) {
            // Whoever moves a group here wants it tried.
            let here = want == Want::Moves { to: self.config.me };
            if want == Want::Forgotten || here {
                self.services.clear(now(), group);
            }
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
            let _ = waiting.answer.send(Ok(waiting.said));
        }
    }

    fn group_of(&self, subject: Subject) -> Option<usize> {
        let of = |group: &super::Group| match subject {
            Subject::Group(_) => group.subject == subject,
            Subject::Failures(key) => group.subject == Subject::Group(key),
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

fn suspended(who: &str) -> Problem {
    refused(
        "LS6084",
        format!("{who} suspended: nothing is taken over or moved there"),
        "`lockstep node resume NODE` ends that",
    )
}
