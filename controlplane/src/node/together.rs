//! What operators wish of the whole cluster at once: of every group that it is stopped, of both nodes that they are suspended.
//!
//! It is a wish of each of them, all made durable with one write. They say that they were said together, and what ends that
//! ends it for these alone: what an operator stopped or suspended by itself stays as it is.

use controlplane_api::together::{ClusterVerb, Part, SCHEMA, SaidTogether};
use controlplane_core::wish::{Origin, Subject, Want, Wish};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use tokio::sync::oneshot;

use super::Node;
use super::judge::{Judged, refused};
use super::operator::{not_durable, overruled};

/// Where the answer to an operator goes.
pub type AnswerTogether = oneshot::Sender<Result<SaidTogether, Problem>>;

/// An operator who waits until all of it is durable.
pub(super) struct Waiting {
    wishes: Vec<Wish>,
    said: SaidTogether,
    answer: AnswerTogether,
}

/// What comes of a verb for a group or a node.
struct Judgement {
    name: String,
    subject: Subject,
    /// Otherwise it stays as it is.
    wish: Option<(Want, Origin)>,
    message: String,
}

impl Judgement {
    fn stays(name: &str, subject: Subject, message: impl Into<String>) -> Self {
        Self {
            name: name.to_string(),
            subject,
            wish: None,
            message: message.into(),
        }
    }

    fn wish(self, want: Want, origin: Origin) -> Self {
        Self {
            wish: Some((want, origin)),
            ..self
        }
    }
}

impl Node {
    /// Of those nodes that are suspended the ones that were suspended with the whole cluster.
    pub(super) fn suspended_together(&self) -> Vec<String> {
        let is_so = |node: &NodeId| {
            let wish = self.wishes.of(Subject::Node(*node));
            wish.is_some_and(|wish| wish.want == Want::Suspended && wish.origin == Origin::Together)
        };
        let nodes = [self.config.me, self.config.peer].into_iter();
        nodes.filter(is_so).map(|node| self.name_of(node)).collect()
    }

    /// `dry_run`: nothing is wished, only told what would be.
    pub(super) fn together(
        &mut self,
        (verb, dry_run): (ClusterVerb, bool),
        answer: AnswerTogether,
    ) {
        let (judged, message) = match self.judge_together(verb) {
            Ok(judged) => judged,
            // Who asked may be gone.
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        let mut wishes = Vec::new();
        let mut parts = Vec::new();
        for judgement in judged {
            let subject = judgement.subject;
            let changed = judgement.wish.is_some();
            if let Some((want, origin)) = judgement.wish.filter(|_| !dry_run) {
                self.wishes.say(subject, want, origin);
            }
            let newest = self.wishes.newest(subject).copied();
            let told = newest.filter(|_| !(changed && dry_run));
            parts.push(Part {
                name: judgement.name,
                changed,
                number: told.map(|wish| wish.number),
                by: told.map(|wish| self.name_of(wish.by)),
                message: judgement.message,
            });
            wishes.extend(newest);
        }
        let said = SaidTogether {
            schema: SCHEMA.to_string(),
            ok: true,
            message,
            parts,
        };
        if dry_run {
            return drop(answer.send(Ok(said)));
        }
        self.waiting_together.push(Waiting {
            wishes,
            said,
            answer,
        });
        self.store_wishes();
        self.answer_together();
    }

    /// Who waits is answered when the last one is durable, or another one took its place.
    pub(super) fn answer_together(&mut self) {
        let all = std::mem::take(&mut self.waiting_together);
        for waiting in all {
            let rules = |wish: &&Wish| self.wishes.of(wish.subject) == Some(*wish);
            let beaten = waiting.wishes.iter().find_map(|wish| {
                let durable = self.wishes.of(wish.subject)?;
                (durable.mark() > wish.mark()).then_some(durable.by)
            });
            if let Some(by) = beaten {
                let problem = overruled(&self.name_of(by));
                drop(waiting.answer.send(Err(problem)));
            } else if waiting.wishes.iter().all(|wish| rules(&wish)) {
                drop(waiting.answer.send(Ok(waiting.said)));
            } else {
                self.waiting_together.push(waiting);
            }
        }
    }

    /// The disk refuses.
    pub(super) fn not_together(&mut self, error: &str) {
        for waiting in self.waiting_together.drain(..) {
            let problem = not_durable(&self.config.name, error);
            drop(waiting.answer.send(Err(problem)));
        }
    }

    fn judge_together(&self, verb: ClusterVerb) -> Result<(Vec<Judgement>, String), Problem> {
        let groups = 0..self.groups.len();
        let nodes = [self.config.me, self.config.peer].into_iter();
        let judged: Vec<Judgement> = match verb {
            ClusterVerb::Stop => groups.map(|group| self.stop_together(group)).collect(),
            ClusterVerb::Start => groups
                .map(|group| self.start_together(group))
                .collect::<Result<_, _>>()?,
            ClusterVerb::Suspend => {
                self.must_not_move()?;
                nodes.map(|node| self.suspend_together(node)).collect()
            }
            ClusterVerb::Resume => nodes.map(|node| self.resume_together(node)).collect(),
        };
        let changed = |judgement: &&Judgement| judgement.wish.is_some();
        let names: Vec<&str> = judged.iter().filter(changed).map(|it| &*it.name).collect();
        let names = names.join(" and ");
        let message = match (verb, names.is_empty()) {
            (ClusterVerb::Stop, true) => "every group was stopped already".to_string(),
            (ClusterVerb::Stop, false) => format!(
                "{names}: stopped on both nodes, also after a reboot, until `lockstep cluster start`{}",
                self.untold()
            ),
            (ClusterVerb::Start, true) => {
                "no group is stopped that `lockstep cluster stop` stopped".to_string()
            }
            (ClusterVerb::Start, false) => format!("{names}: started"),
            (ClusterVerb::Suspend, true) => "both nodes were suspended already".to_string(),
            (ClusterVerb::Suspend, false) => format!(
                "nothing is moved and nothing is taken over until `lockstep cluster resume`; what runs goes on{}{}",
                self.idle_words(),
                self.may_take_over()
            ),
            (ClusterVerb::Resume, true) => {
                "no node is suspended that `lockstep cluster suspend` suspended".to_string()
            }
            (ClusterVerb::Resume, false) => format!("{names}: resumed{}", self.untold()),
        };
        Ok((judged, message))
    }

    fn stop_together(&self, group: usize) -> Judgement {
        let (name, subject) = (&self.groups[group].name, self.groups[group].subject);
        let together = self.wishes.is_together(subject);
        match (self.newest(group), self.judge_stop(group)) {
            (Want::Stopped { .. }, _) if together => {
                Judgement::stays(name, subject, "was stopped with the cluster already")
            }
            (Want::Stopped { .. }, _) | (_, Judged::Already(..)) => Judgement::stays(
                name,
                subject,
                format!(
                    "was stopped by itself, and `cluster start` leaves it so; `lockstep group start {name}` starts it"
                ),
            ),
            (_, Judged::Wish(_, want, _)) => {
                Judgement::stays(name, subject, "is stopped").wish(want, Origin::Together)
            }
        }
    }

    fn start_together(&self, group: usize) -> Result<Judgement, Problem> {
        let (name, subject) = (&self.groups[group].name, self.groups[group].subject);
        if !matches!(self.newest(group), Want::Stopped { .. }) {
            return Ok(Judgement::stays(name, subject, "is not stopped"));
        }
        if !self.wishes.is_together(subject) {
            let message = format!("was stopped by itself: `lockstep group start {name}` starts it");
            return Ok(Judgement::stays(name, subject, message));
        }
        Ok(match self.judge_start(group, None)? {
            Judged::Already(_, message) => Judgement::stays(name, subject, message),
            Judged::Wish(_, want, message) => {
                Judgement::stays(name, subject, message).wish(want, Origin::Operator)
            }
        })
    }

    fn suspend_together(&self, node: NodeId) -> Judgement {
        let (name, subject) = (self.name_of(node), Subject::Node(node));
        if self.is_newest_suspended(subject) {
            let message = if self.wishes.is_together(subject) {
                "was suspended with the cluster already".to_string()
            } else {
                format!(
                    "was suspended by itself, and `cluster resume` leaves it so; `lockstep node resume {name}` ends it"
                )
            };
            return Judgement::stays(&name, subject, message);
        }
        Judgement::stays(&name, subject, "is suspended").wish(Want::Suspended, Origin::Together)
    }

    fn resume_together(&self, node: NodeId) -> Judgement {
        let (name, subject) = (self.name_of(node), Subject::Node(node));
        if !self.is_newest_suspended(subject) {
            return Judgement::stays(&name, subject, "is not suspended");
        }
        if !self.wishes.is_together(subject) {
            let message =
                format!("was suspended by itself: `lockstep node resume {name}` resumes it");
            return Judgement::stays(&name, subject, message);
        }
        Judgement::stays(&name, subject, "takes over again").wish(Want::Resumed, Origin::Operator)
    }

    fn is_newest_suspended(&self, subject: Subject) -> bool {
        let newest = self.wishes.newest(subject);
        newest.is_some_and(|wish| wish.want == Want::Suspended)
    }

    /// A group that is on its way would be begun by nobody.
    fn must_not_move(&self) -> Result<(), Problem> {
        let moves = |group: &usize| matches!(self.newest(*group), Want::Moves { .. });
        match (0..self.groups.len()).find(moves) {
            None => Ok(()),
            Some(group) => Err(refused(
                "LS6083",
                format!(
                    "{} moves to another node, and would be begun by nobody",
                    self.groups[group].name
                ),
                "repeat the command when it has arrived; `lockstep status` tells",
            )),
        }
    }

    /// What runs nowhere when both nodes are suspended is begun by nobody.
    fn idle_words(&self) -> String {
        let idle = |group: &usize| {
            !matches!(self.newest(*group), Want::Stopped { .. }) && self.serving(*group).is_none()
        };
        let names: Vec<&str> = (0..self.groups.len())
            .filter(idle)
            .map(|group| &*self.groups[group].name)
            .collect();
        if names.is_empty() {
            return String::new();
        }
        let names = names.join(" and ");
        format!("; {names} is served by nobody, as far as this node sees, and stays so")
    }

    fn may_take_over(&self) -> String {
        if self.is_peer_heard() {
            return String::new();
        }
        let peer = &self.config.peer_name;
        format!(
            "; {peer} is not heard and does not know it yet: if it lives it takes over all the same, where the arbiter lets it"
        )
    }
}
