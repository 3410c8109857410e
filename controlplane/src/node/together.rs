//! What operators wish of the whole cluster at once: of every group that it is stopped, of both nodes that they are suspended.
//!
//! It is a wish of each of them, all made durable with one write. They say that they were said together, and what ends that
//! ends it for these alone: what an operator stopped or suspended by itself stays as it is.

use controlplane_api::together::{ClusterVerb, Part, SCHEMA, SaidTogether};
use controlplane_core::wish::{Origin, Subject, Want, Wish, Wishes};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use tokio::sync::oneshot;

use super::Node;
use super::judge::{Judged, refused};
use super::operator::not_durable;

/// Where the answer to an operator goes.
pub type AnswerTogether = oneshot::Sender<Result<SaidTogether, Problem>>;

/// An operator who waits until all of it is durable.
pub(super) struct Waiting {
    /// And whether it was said by this verb: with the name of what it is about.
    wishes: Vec<(Wish, Option<String>)>,
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
    /// The same, as long as nothing is done.
    would: String,
}

impl Judgement {
    fn stays(name: &str, subject: Subject, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            name: name.to_string(),
            subject,
            wish: None,
            would: message.clone(),
            message,
        }
    }

    fn wish(self, want: Want, origin: Origin, would: impl Into<String>) -> Self {
        Self {
            wish: Some((want, origin)),
            would: would.into(),
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
        let judged = match self.judge_together(verb) {
            Ok(judged) => judged,
            // Who asked may be gone.
            Err(problem) => return drop(answer.send(Err(problem))),
        };
        // Of how it was before anything is said, which the other node cannot know yet.
        let message = self.words(verb, dry_run, &judged);
        let mut wishes = Vec::new();
        let mut parts = Vec::new();
        for judgement in judged {
            let (subject, name) = (judgement.subject, judgement.name);
            let changed = judgement.wish.is_some();
            if let Some((want, origin)) = judgement.wish.filter(|_| !dry_run) {
                self.wishes.say(subject, want, origin);
            }
            let newest = self.wishes.newest(subject).copied();
            let told = newest.filter(|_| !(changed && dry_run));
            wishes.extend(newest.map(|wish| (wish, changed.then(|| name.clone()))));
            parts.push(Part {
                name,
                changed,
                number: told.map(|wish| wish.number),
                by: told.map(|wish| self.name_of(wish.by)),
                message: if dry_run {
                    judgement.would
                } else {
                    judgement.message
                },
            });
        }
        let said = SaidTogether {
            schema: SCHEMA.to_string(),
            ok: true,
            dry_run,
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

    /// Who waits is answered when the last one is durable, or another one took its place. What was wished before, and is
    /// settled or wished anew meanwhile, is no contradiction.
    pub(super) fn answer_together(&mut self) {
        let all = std::mem::take(&mut self.waiting_together);
        for waiting in all {
            let Some(beaten) = beaten(&self.wishes, &waiting.wishes) else {
                self.waiting_together.push(waiting);
                continue;
            };
            let answer = match beaten.first() {
                None => Ok(waiting.said),
                Some((_, by)) => {
                    let names: Vec<&str> = beaten.iter().map(|(name, _)| *name).collect();
                    Err(overruled_of(&names.join(" and "), &self.name_of(*by)))
                }
            };
            drop(waiting.answer.send(answer));
        }
    }

    /// The disk refuses.
    pub(super) fn not_together(&mut self, error: &str) {
        for waiting in self.waiting_together.drain(..) {
            let problem = not_durable(&self.config.name, error);
            drop(waiting.answer.send(Err(problem)));
        }
    }

    fn judge_together(&self, verb: ClusterVerb) -> Result<Vec<Judgement>, Problem> {
        let groups = 0..self.groups.len();
        let nodes = [self.config.me, self.config.peer].into_iter();
        Ok(match verb {
            ClusterVerb::Stop => {
                self.must_know_together()?;
                groups.map(|group| self.stop_together(group)).collect()
            }
            ClusterVerb::Start => groups
                .map(|group| self.start_together(group))
                .collect::<Result<_, _>>()?,
            ClusterVerb::Suspend => {
                self.must_know_together()?;
                self.must_not_move()?;
                nodes.map(|node| self.suspend_together(node)).collect()
            }
            ClusterVerb::Resume => nodes.map(|node| self.resume_together(node)).collect(),
        })
    }

    /// For a person: in one sentence.
    fn words(&self, verb: ClusterVerb, dry_run: bool, judged: &[Judgement]) -> String {
        let changed = |judgement: &&Judgement| judgement.wish.is_some();
        let names: Vec<&str> = judged.iter().filter(changed).map(|it| &*it.name).collect();
        if names.is_empty() {
            let text = match verb {
                ClusterVerb::Stop => "every group was stopped already",
                ClusterVerb::Start => "no group is stopped that `lockstep cluster stop` stopped",
                ClusterVerb::Suspend => "both nodes were suspended already",
                ClusterVerb::Resume => {
                    "no node is suspended that `lockstep cluster suspend` suspended"
                }
            };
            return format!("{text}{}", self.differs());
        }
        let names = names.join(" and ");
        let or = |would: &'static str, is: &'static str| if dry_run { would } else { is };
        let text = match verb {
            ClusterVerb::Stop => format!(
                "{names}: {} on both nodes, also after a reboot, until `lockstep cluster start`",
                or("would be stopped", "stopped")
            ),
            ClusterVerb::Start => format!("{names}: {}", or("would be started", "started")),
            ClusterVerb::Suspend => format!(
                "nothing {} moved and nothing {} taken over until `lockstep cluster resume`; what runs {}{}",
                or("would be", "is"),
                or("would be", "is"),
                or("would go on", "goes on"),
                self.idle_words()
            ),
            ClusterVerb::Resume => format!("{names}: {}", or("would be resumed", "resumed")),
        };
        let known = match verb {
            ClusterVerb::Suspend => self.may_take_over(),
            ClusterVerb::Stop | ClusterVerb::Start | ClusterVerb::Resume => self.untold(),
        };
        if dry_run {
            format!("nothing is done: {text}{known}")
        } else {
            format!("{text}{known}")
        }
    }

    /// What to say where nothing is to be changed: the other node may know of more.
    fn differs(&self) -> String {
        let (me, peer) = (&self.config.name, &self.config.peer_name);
        if !self.is_peer_heard() {
            format!("; {peer} is not heard, and may know of something else")
        } else if !self.agreed() {
            format!("; {me} and {peer} do not know the same yet")
        } else {
            String::new()
        }
    }

    /// A release that leaves such wishes out would go on as if nobody had said it, and never know the same as this one:
    /// nothing could be moved or stopped any more. It is one that promises no timeouts either.
    fn must_know_together(&self) -> Result<(), Problem> {
        let peer = &self.config.peer_name;
        if self.is_peer_heard() && self.shared.timeouts.peer().is_none() {
            return Err(refused(
                "LS6223",
                format!("{peer} runs a release that knows nothing of this, and would not follow"),
                format!(
                    "upgrade lockstepd on {peer}; until then stop each group (`lockstep group stop`), or suspend each node"
                ),
            ));
        }
        Ok(())
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
                let would = "would be stopped";
                Judgement::stays(name, subject, "is stopped").wish(want, Origin::Together, would)
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
                let would = match want {
                    Want::Runs { home: Some(home) } => {
                        format!("would start on {}", self.name_of(home))
                    }
                    Want::Runs { home: None }
                    | Want::Stopped { .. }
                    | Want::Moves { .. }
                    | Want::Forgotten
                    | Want::Failed
                    | Want::Mended
                    | Want::Suspended
                    | Want::Resumed => "would start".to_string(),
                };
                Judgement::stays(name, subject, message).wish(want, Origin::Operator, would)
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
        let (want, would) = (Want::Suspended, "would be suspended");
        Judgement::stays(&name, subject, "is suspended").wish(want, Origin::Together, would)
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
        let (want, would) = (Want::Resumed, "would take over again");
        Judgement::stays(&name, subject, "takes over again").wish(want, Origin::Operator, would)
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

/// Of those that this verb said the ones that another one took the place of, and on which node; `None` while not all is durable.
fn beaten<'a>(
    known: &Wishes,
    said: &'a [(Wish, Option<String>)],
) -> Option<Vec<(&'a str, NodeId)>> {
    let mut beaten = Vec::new();
    for (wish, name) in said {
        let ruling = known.of(wish.subject)?;
        if ruling.mark() < wish.mark() {
            return None;
        }
        if let Some(name) = name
            && (ruling.number, ruling.by) != (wish.number, wish.by)
        {
            beaten.push((name.as_str(), ruling.by));
        }
    }
    Some(beaten)
}

fn overruled_of(names: &str, by: &str) -> Problem {
    refused(
        "LS6093",
        format!(
            "somebody wished something else of {names} on {by}, at the same time; the rest is done"
        ),
        "`lockstep status` says what; talk to each other",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::wish::{Effect, GroupKey};

    fn node(number: u8) -> NodeId {
        NodeId::new(number).expect("a node")
    }

    fn durable(wishes: &mut Wishes) {
        let mut effects = Vec::new();
        wishes.store(&mut effects);
        while let Some(effect) = effects.pop() {
            if let Effect::Store { version, .. } = effect {
                wishes.stored(version, &mut effects);
            }
        }
    }

    #[test]
    fn a_move_that_settles_meanwhile_contradicts_nobody_and_who_does_is_named() {
        let (pg, db) = (GroupKey::of("pg"), GroupKey::of("db"));
        let (pg, db) = (Subject::Group(pg), Subject::Group(db));
        let mut own = Wishes::new(node(0), [pg, db], []);
        let (to, home) = (node(1), None);
        let moves = own
            .say(db, Want::Moves { to }, Origin::Operator)
            .expect("said");
        let starts = own
            .say(pg, Want::Runs { home }, Origin::Operator)
            .expect("said");
        let said = [(starts, Some("pg".to_string())), (moves, None)];
        assert_eq!(beaten(&own, &said), None, "nothing is durable");
        let outcome = (db, Want::Runs { home: Some(to) }, Origin::Arrived);
        own.settle(moves.mark(), outcome);
        durable(&mut own);
        assert_eq!(beaten(&own, &said), Some(Vec::new()));
        let mut other = Wishes::new(node(1), [pg, db], []);
        for wish in [starts, moves] {
            other.hear(wish);
        }
        let stops = other.say(pg, Want::Stopped { home }, Origin::Operator);
        own.hear(stops.expect("said"));
        durable(&mut own);
        assert_eq!(beaten(&own, &said), Some(vec![("pg", node(1))]));
    }
}
