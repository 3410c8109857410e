//! What is said of pushes: to operators, in the status, in the log.

use std::path::Path;
use std::time::{Duration, Instant};

use controlplane_api::config::{NodeConfig, PushLine, PushStage};
use controlplane_core::push::{Durable, Stage, State, Why};
use mirror_core::admin::Problem;

use super::begin::file_digest;
use super::install::set_aside;
use super::judge::problem;
use super::words::{hex, short};
use super::{Inner, Pusher};

/// For so long the nodes may differ, while somebody restarts them one after the other.
const DIFFER_TIME: Duration = Duration::from_secs(60);

const LATER: &str = "`lockstep config show` says how it stands; repeat the command when it is over";
const SEE: &str =
    "see what differs with `lockstep config show --text | diff - /etc/lockstep/cluster.toml`";

pub(super) fn no_trust(why: &str) -> Problem {
    problem(
        "LS6110",
        format!("the nodes cannot talk to each other: {why}"),
        "certificates are made by `lockstep cluster init` and `join` (docs/controlplane.md, \"Setting it up\"); then restart lockstepd",
    )
}

pub(super) fn silent(peer: &str, why: &str) -> Problem {
    problem(
        "LS6101",
        format!("{peer} cannot be asked: {why}"),
        format!(
            "see that lockstepd of this release runs on {peer}, and that TCP goes through at the addresses and ports of the \
             interconnects; then repeat the command"
        ),
    )
}

pub(super) fn other_release(node: &str) -> Problem {
    problem(
        "LS6107",
        format!("{node} speaks of pushes in another version"),
        "let both nodes run the same release, then repeat the command",
    )
}

pub(super) fn garbled(peer: &str) -> Problem {
    problem(
        "LS6107",
        format!("the file that came from {peer} is not the one that was announced"),
        "repeat the command",
    )
}

pub(super) fn edited_meanwhile(node: &str, path: &Path) -> Problem {
    problem(
        "LS6104",
        format!(
            "{} on {node} was changed while the push began",
            path.display()
        ),
        "find out who changes it, then repeat the command",
    )
}

pub(super) fn edited(node: &str, path: &Path) -> Problem {
    problem(
        "LS6104",
        format!(
            "{} on {node} was changed by hand: it is neither in force nor what is pushed",
            path.display()
        ),
        format!(
            "on {node}, {SEE}; push that file, or repeat the command with --replace-edited: what is there is kept beside it"
        ),
    )
}

pub(super) fn busy(node: &str, line: Option<&PushLine>) -> Problem {
    let what = line.map_or("a push is under way".to_string(), |line| {
        let stage = match line.stage {
            PushStage::Asking => "being asked for",
            PushStage::Promised => "promised and not decided",
            PushStage::Decided => "decided and not in force on both yet",
        };
        let (number, by) = (line.number, &line.by);
        format!("push {number}, driven by {by}, is {stage}")
    });
    problem(
        "LS6102",
        format!("on {node} {what}"),
        format!("{LATER}; `lockstep config abandon` takes back what is not decided"),
    )
}

/// Why a node refuses, in its own name.
pub(super) fn refusal(why: Why, node: &str, peer: &str) -> Problem {
    match why {
        Why::Busy => problem(
            "LS6102",
            format!("on {node} another push is under way"),
            LATER,
        ),
        Why::Overtaken => problem(
            "LS6102",
            format!(
                "somebody pushes on {peer} at the same time, and that push goes first; this one is not decided"
            ),
            LATER,
        ),
        Why::Moved => problem(
            "LS6103",
            format!("on {node} something else is in force than what the push replaces"),
            "`lockstep config show` says what; look at it, then repeat the command",
        ),
        Why::Unfit => problem(
            "LS6104",
            format!("cluster.toml on {node} was changed while {peer} was asked; nothing is pushed"),
            format!("{SEE}, then repeat the command"),
        ),
        Why::NotKept => problem(
            "LS6109",
            format!(
                "{node} cannot write down what is pushed; whether it is decided is not known yet"
            ),
            "see that /var/lib/lockstep has room; `lockstep config show` says what came of it",
        ),
        Why::NotPinned => problem(
            "LS6109",
            format!("{node} cannot write down what is in force; nothing is pushed"),
            "see that /var/lib/lockstep has room, then repeat the command",
        ),
        Why::Silent => silent(peer, "it did not answer"),
        Why::Abandoned => problem(
            "LS6114",
            "an operator took the push back before it was decided",
            "nothing is to be done",
        ),
    }
}

/// A push came into force, and this run of `lockstepd` still goes by what was before.
pub(super) fn ends(node: &str) -> Problem {
    problem(
        "LS6102",
        format!("lockstepd on {node} is about to begin anew with what was pushed before"),
        LATER,
    )
}

pub(super) fn not_installable(node: &str, why: &str) -> Problem {
    problem(
        "LS6119",
        format!("on {node} a pushed file could not be put in place: {why}"),
        "mend that on the node, then repeat the command",
    )
}

/// Since when both run different files, where nothing is on its way.
pub(super) fn differ_since(
    since: Option<Instant>,
    (own, peer): (&State, &State),
    now: Instant,
) -> Option<Instant> {
    let is_quiet = |state: &State| state.durable.pending.is_none() && state.driving.is_none();
    let differ = own.running.file != peer.running.file && is_quiet(own) && is_quiet(peer);
    differ.then(|| since.unwrap_or(now))
}

fn differs(since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= DIFFER_TIME)
}

/// What became durable, in the log.
pub(super) fn log(before: &Durable, after: &Durable) {
    let number = |durable: &Durable| match durable.pending {
        Some((proposal, _)) => proposal.number,
        None => durable.in_force.number,
    };
    let (was, number) = (number(before), number(after));
    match (before.pending, after.pending) {
        (_, Some((proposal, Stage::Promised))) => {
            tracing::info!(code = "LS6112", number, file = ?proposal.digest, "a push is promised here");
        }
        (_, Some((proposal, Stage::Decided))) => {
            tracing::info!(code = "LS6100", number, file = ?proposal.digest, "a push is decided");
        }
        (Some(_), None) if before.in_force != after.in_force => {
            tracing::info!(code = "LS6100", number, file = ?after.in_force.digest, "a pushed file is in force here");
        }
        (Some(_), None) => {
            tracing::warn!(
                code = "LS6114",
                number = was,
                "a push came to nothing, and nothing is changed"
            );
        }
        (None, None) => {}
    }
}

impl Pusher {
    fn name_of(&self, node: mirror_core::types::NodeId) -> String {
        let name = if node == self.me {
            &self.name
        } else {
            &self.peer_name
        };
        name.clone()
    }

    fn push_line(&self, inner: &Inner) -> Option<PushLine> {
        let pending = inner.record.pending.as_ref();
        let since_unix_s = pending.map(|text| text.since_unix_s);
        match inner.push.state().durable.pending {
            Some((proposal, stage)) => Some(PushLine {
                number: proposal.number,
                digest: hex(&proposal.digest),
                by: self.name_of(proposal.by),
                stage: match stage {
                    Stage::Promised => PushStage::Promised,
                    Stage::Decided => PushStage::Decided,
                },
                since_unix_s,
                problem: self.stuck(inner),
            }),
            None => inner.push.driven().map(|proposal| PushLine {
                number: proposal.number,
                digest: hex(&proposal.digest),
                by: self.name.clone(),
                stage: PushStage::Asking,
                since_unix_s: None,
                problem: None,
            }),
        }
    }

    /// Why what is under way does not get on.
    fn stuck(&self, inner: &Inner) -> Option<Problem> {
        let why = match inner.push.conflict() {
            None => return inner.told.clone(),
            Some(why) => why,
        };
        let told = inner.told.clone();
        let refused = told.unwrap_or_else(|| refusal(why, &self.peer_name, &self.name));
        Some(problem(
            "LS6113",
            format!(
                "{} does not carry out what is decided: {} {}",
                self.peer_name, refused.code, refused.message
            ),
            "put the same cluster.toml in place on both nodes, stop lockstepd on both, say `lockstep config adopt` on both, \
             and start it again",
        ))
    }

    pub(super) fn node_config(&self, inner: &Inner) -> NodeConfig {
        let state = inner.push.state();
        let in_force = state.durable.in_force;
        let file = file_digest(&self.path);
        NodeConfig {
            node: self.name.clone(),
            number: in_force.number,
            digest: hex(&in_force.digest),
            since_unix_s: (in_force.number > 0).then_some(inner.record.in_force.since_unix_s),
            runs: hex(&state.running.file),
            file: file.map(|digest| hex(&digest)),
            edited: inner.is_edited(file),
            set_aside: set_aside(&self.path),
            push: self.push_line(inner),
        }
    }

    /// What the status should say is worked out anew.
    pub(super) fn look_at_the_file(&self) {
        let note = {
            let inner = self.inner();
            self.note_of(&self.node_config(&inner), &inner)
        };
        *self.note_place() = note;
    }

    fn note_of(&self, node: &NodeConfig, inner: &Inner) -> Option<Problem> {
        if let Some(line) = &node.push {
            if let Some(stuck) = &line.problem {
                let mut stuck = stuck.clone();
                let number = line.number;
                stuck.message = format!("push {number} waits: {}", stuck.message);
                return Some(stuck);
            }
            return Some(problem(
                if inner.stage() == Some(Stage::Promised) {
                    "LS6112"
                } else {
                    "LS6100"
                },
                busy(&self.name, Some(line)).message,
                "`lockstep config show` says how it stands",
            ));
        }
        if differs(inner.differs_since, Instant::now()) {
            return Some(problem(
                "LS6103",
                format!(
                    "{} and {} run with different configurations",
                    self.name, self.peer_name
                ),
                "compare `lockstep config show --text` on both; `lockstep config push --replace-edited` on the node with the right one \
                 makes them the same",
            ));
        }
        if node.edited {
            return Some(problem(
                "LS6111",
                format!(
                    "{} is not the file in force ({})",
                    self.path.display(),
                    short(&inner.record.durable.in_force.digest)
                ),
                format!("{SEE}; then `lockstep config push`, or put back what is in force"),
            ));
        }
        let aside = node.set_aside.first()?;
        Some(problem(
            "LS6108",
            format!(
                "a push replaced a cluster.toml that was changed by hand; it is kept as {aside}"
            ),
            format!("look at it, push what is worth it, then remove it: rm {aside}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::words::digest;
    use controlplane_core::push::{InForce, Running};

    fn state(text: &str) -> State {
        let file = digest(text.as_bytes());
        State {
            durable: Durable {
                in_force: InForce {
                    number: 0,
                    digest: file,
                },
                pinned: true,
                pending: None,
            },
            running: Running {
                file,
                between: None,
                settled: true,
            },
            driving: None,
        }
    }

    #[test]
    fn nodes_that_run_different_files_are_told_of_after_a_minute() {
        let (own, other) = (state("one"), state("other"));
        let began = Instant::now();
        let later = began + Duration::from_secs(30);
        let since = differ_since(None, (&own, &other), began);
        let since = differ_since(since, (&own, &other), later);
        assert_eq!(since, Some(began));
        assert!(!differs(since, later) && differs(since, began + DIFFER_TIME));
        assert_eq!(differ_since(since, (&own, &own), later), None);
        let mut pushes = other;
        pushes.driving = Some(controlplane_core::push::PushId([1; 16]));
        assert_eq!(differ_since(since, (&own, &pushes), later), None);
    }
}
