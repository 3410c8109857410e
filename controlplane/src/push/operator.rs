//! What operators ask for: a push, how it stands, taking one back.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use controlplane_api::config::{
    Abandoned, ConfigShow, NodeConfig, Outcome, PUSH_SCHEMA, PushAsk, PushStage, Pushed,
    SHOW_SCHEMA,
};
use controlplane_api::events::{Page, Query};
use controlplane_core::failure_detector::Presence;
use controlplane_core::push::{Ask, Digest, Event, Proposal, PushId, Stage, State, Times, Why};
use mirror_core::admin::Problem;

use super::begin::file_digest;
use super::judge::{Judged, problem};
use super::words::{AnswerFrame, AskFrame, digest, hex};
use super::{Handle, Pusher, Text, happened, told};
use crate::join::frames::printable;

/// A digest is named by so many of its first digits at least.
const DIGITS_MIN: usize = 8;

impl Handle {
    /// Pushes a file. It is carried through even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// Why nothing is pushed; nothing was changed then, unless the code is LS6109.
    pub async fn push(&self, ask: PushAsk) -> Result<Pushed, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let pushed = self.runtime.spawn(async move { pusher.push(ask).await });
        pushed.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What both nodes go by.
    pub async fn show(&self) -> ConfigShow {
        let pusher = Arc::clone(&self.pusher);
        let shown = self.runtime.spawn(async move { pusher.show().await });
        match shown.await {
            Ok(shown) => shown,
            Err(_) => self.pusher.shown(Err(ended())),
        }
    }

    /// Takes back what is not decided.
    ///
    /// # Errors
    /// It is decided.
    pub async fn abandon(&self) -> Result<Abandoned, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let abandoned = self.runtime.spawn(async move { pusher.abandon() });
        abandoned.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The file in force.
    ///
    /// # Errors
    /// This run ends.
    pub async fn text(&self) -> Result<String, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let text = self.runtime.spawn(async move {
            let inner = pusher.inner();
            inner.record.in_force.text.clone()
        });
        text.await.map_err(|_| ended())
    }

    /// The other node's name.
    pub fn peer_name(&self) -> String {
        self.pusher.peer_name.clone()
    }

    /// What happened on the other node, by its own record.
    ///
    /// # Errors
    /// It cannot be asked, or does not tell.
    pub async fn peer_events(&self, query: Query) -> Result<Page, Problem> {
        let pusher = Arc::clone(&self.pusher);
        let asked = self
            .runtime
            .spawn(async move { pusher.happened_there(query).await });
        // Its thread may be stuck on a disk, and its clock with it.
        let answer = tokio::time::timeout(happened::LIMIT, asked).await;
        answer.map_or_else(
            |_| {
                Err(happened::untold(
                    "it could not be asked in time".to_string(),
                ))
            },
            |answer| answer.unwrap_or_else(|_| Err(ended())),
        )
    }

    /// The loop that decides about volumes took one turn, and holds the other node for this.
    pub fn turn(&self, peer: Presence) {
        self.pusher.course.turn(peer, Instant::now());
    }

    /// What an operator should know of the configuration.
    pub fn note(&self) -> Option<Problem> {
        self.pusher.note_place().clone()
    }
}

pub(super) fn ended() -> Problem {
    problem(
        "LS6116",
        "this run of lockstepd ends",
        "`lockstep config show` says how it stands, when lockstepd is back",
    )
}

/// What both nodes said before anything was asked for.
struct Looked {
    own: (State, NodeConfig, Option<Digest>),
    judged: Judged,
    peer: (State, AnswerFrame),
}

impl Pusher {
    pub(super) fn note_place(&self) -> MutexGuard<'_, Option<Problem>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn push(&self, ask: PushAsk) -> Result<Pushed, Problem> {
        let turn = self.talk.lock().await;
        let new = digest(ask.text.as_bytes());
        let mut looked = self.look(&ask).await?;
        self.compare(&ask, &new, &looked)?;
        let numbers = [&looked.own.0, &looked.peer.0].map(|state| state.durable.in_force.number);
        let mut pushed = Pushed {
            schema: PUSH_SCHEMA.to_string(),
            ok: true,
            outcome: Outcome::Nothing,
            number: numbers[0],
            digest: hex(&new),
            changes: std::mem::take(&mut looked.judged.changes),
            warnings: std::mem::take(&mut looked.judged.warnings),
        };
        for warning in std::mem::take(&mut looked.peer.1.warnings) {
            // What the file says is the same on both; what the machine says may not be.
            if !pushed.warnings.contains(&warning) {
                pushed
                    .warnings
                    .push(format!("{}: {warning}", self.peer_name));
            }
        }
        if self.is_everywhere(&new, &looked) {
            return Ok(pushed);
        }
        let last = numbers.into_iter().max().unwrap_or_default();
        let number = last.checked_add(1);
        let number = number.ok_or_else(|| told::garbled(&self.peer_name))?;
        pushed.number = number;
        if ask.dry_run {
            pushed.outcome = Outcome::Possible;
            return Ok(pushed);
        }
        self.can_install()?;
        let proposal = self.proposal(&looked, new, number)?;
        let acted = {
            let mut inner = self.inner();
            inner.driven = Some(Text::now(ask.text));
            inner.seen = looked.own.2;
            inner.peer_file = looked.peer.1.node.file.take();
            (inner.ended, inner.told) = (None, None);
            self.act(&mut inner, Event::Begin(proposal))
        };
        self.follow(acted).await;
        drop(turn);
        self.outcome().map(|()| Pushed {
            outcome: Outcome::Decided,
            ..pushed
        })
    }

    fn outcome(&self) -> Result<(), Problem> {
        let mut inner = self.inner();
        match inner.ended.take() {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(match inner.told.take() {
                Some(told) => told,
                None => told::refusal(why, &self.name, &self.peer_name),
            }),
            None => Err(told::refusal(Why::NotKept, &self.name, &self.peer_name)),
        }
    }

    /// Looks at both nodes.
    async fn look(&self, ask: &PushAsk) -> Result<Looked, Problem> {
        let (own, judged) = {
            let inner = self.inner();
            let node = self.node_config(&inner);
            let state = inner.push.state();
            if node.push.is_some() {
                return Err(told::busy(&self.name, node.push.as_ref()));
            }
            if inner.restart_due {
                return Err(told::ends(&self.name));
            }
            let judged = self.judge(&inner.cluster, &ask.text)?;
            ((state, node, file_digest(&self.path)), judged)
        };
        let frame = AskFrame {
            text: Some(ask.text.clone()),
            ..AskFrame::new(&Ask::State)
        };
        let (state, answer) = self.exchange(&frame).await?;
        if answer.node.push.is_some() {
            let busy = told::busy(&self.peer_name, answer.node.push.as_ref());
            return Err(printable(busy));
        }
        if let Some(problem) = answer.problem {
            return Err(printable(problem));
        }
        Ok(Looked {
            own,
            judged,
            peer: (state, answer),
        })
    }

    /// Whether the push replaces what its operator knows.
    fn compare(&self, ask: &PushAsk, new: &Digest, looked: &Looked) -> Result<(), Problem> {
        let nodes = [&looked.own.1, &looked.peer.1.node];
        let [own, peer] = nodes;
        let in_force = || {
            format!(
                "in force is {} on {}, and {} on {}",
                own.digest, self.name, peer.digest, self.peer_name
            )
        };
        if let Some(expected) = &ask.replaces {
            let named = |node: &&NodeConfig| {
                expected.len() >= DIGITS_MIN && node.digest.starts_with(expected.as_str())
            };
            if !nodes.iter().all(named) {
                return Err(problem(
                    "LS6103",
                    format!("the push replaces {expected}, and {}", in_force()),
                    "somebody pushed meanwhile, say: look at `lockstep config show --text`, put your change into that, and push it",
                ));
            }
        }
        if ask.replace_edited {
            return Ok(());
        }
        if own.digest != peer.digest {
            return Err(problem(
                "LS6103",
                format!("the nodes go by different files: {}", in_force()),
                "look at both with `lockstep config show --text`; --replace-edited makes them the same",
            ));
        }
        let is_edited = |node: &&NodeConfig| node.edited && node.file != Some(hex(new));
        match nodes.into_iter().find(is_edited) {
            None => Ok(()),
            Some(node) if node.node == self.name => Err(told::edited(&self.name, &self.path)),
            Some(_) => Err(told::edited(&self.peer_name, &self.path)),
        }
    }

    fn is_everywhere(&self, new: &Digest, looked: &Looked) -> bool {
        let states = [&looked.own.0, &looked.peer.0];
        let in_force = states.iter().all(|it| it.durable.in_force.digest == *new);
        let nodes = [&looked.own.1, &looked.peer.1.node];
        in_force && nodes.iter().all(|node| node.file == Some(hex(new)))
    }

    fn proposal(&self, looked: &Looked, new: Digest, number: u64) -> Result<Proposal, Problem> {
        let mut replaces = [looked.peer.0.durable.in_force.digest; 2];
        if let Some(own) = replaces.get_mut(self.me.index()) {
            *own = looked.own.0.durable.in_force.digest;
        }
        let id = crate::join::random().map_err(|error| {
            problem(
                "LS6109",
                error.to_string(),
                "see that /dev/urandom is there",
            )
        })?;
        Ok(Proposal {
            id: PushId(id),
            by: self.me,
            number,
            digest: new,
            replaces,
            times: if looked.peer.1.times_differ {
                Times::Differ
            } else {
                looked.judged.times
            },
        })
    }

    async fn show(&self) -> ConfigShow {
        let peer = self.exchange(&AskFrame::new(&Ask::State)).await;
        self.shown(peer.map(|(_, answer)| answer.node))
    }

    fn shown(&self, peer: Result<NodeConfig, Problem>) -> ConfigShow {
        let own = {
            let inner = self.inner();
            self.node_config(&inner)
        };
        let (peer, peer_problem) = match peer {
            Ok(node) => (Some(node), None),
            Err(problem) => (None, Some(problem)),
        };
        ConfigShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            own,
            peer_name: self.peer_name.clone(),
            peer,
            peer_problem,
        }
    }

    fn abandon(&self) -> Result<Abandoned, Problem> {
        let mut inner = self.inner();
        let line = self.node_config(&inner).push;
        let message = match &line {
            None => format!("no push is under way on {}", self.name),
            Some(line) if line.stage == PushStage::Decided => {
                let busy = told::busy(&self.name, Some(line));
                let advice = "what is decided is carried out; push the old file afterwards";
                return Err(problem("LS6102", busy.message, advice));
            }
            Some(line) => {
                // Nothing goes out: the other node asks, or is told that nothing is decided.
                self.act(&mut inner, Event::Abandon);
                // It may be decided already, and not be written down yet.
                let is_left = inner.stage() == Some(Stage::Promised);
                if is_left || inner.push.driven().is_some() {
                    return Err(told::refusal(Why::NotKept, &self.name, &self.peer_name));
                }
                let (number, by) = (line.number, &line.by);
                match line.stage {
                    PushStage::Promised => format!(
                        "push {number} is taken back on {}; if {by} decided it already, it is carried out here when the nodes meet",
                        self.name
                    ),
                    PushStage::Asking | PushStage::Decided => {
                        format!("push {number} is taken back; nothing was changed")
                    }
                }
            }
        };
        Ok(Abandoned {
            schema: PUSH_SCHEMA.to_string(),
            ok: true,
            message,
        })
    }
}
