//! What of a node's turns the log tells, in words that an administrator reads.

use controlplane_core::failure_detector::{PathState, Presence};
use controlplane_core::keeper::Word;
use controlplane_core::partition::{Decision, Situation};
use controlplane_core::register::Answer;
use mirror_core::admin::{Done, Problem};

/// The other node is heard otherwise than before.
pub(super) fn peer(peer: &str, presence: Presence) {
    let code = "LS6011";
    match presence {
        Presence::Unknown => tracing::info!(code, %peer, ?presence, "{peer} was not heard yet"),
        Presence::Alive => tracing::info!(code, %peer, ?presence, "{peer} is heard"),
        Presence::Deaf => {
            tracing::warn!(code, %peer, ?presence, "{peer} is heard, and hears nothing");
        }
        Presence::Dead => {
            tracing::warn!(code, %peer, ?presence, "{peer} is silent on every path");
        }
    }
}

/// A path is otherwise than before.
pub(super) fn path(name: &str, path: usize, state: PathState) {
    let code = "LS6012";
    match state {
        PathState::New => tracing::info!(code, path, ?state, "{name}: not heard yet"),
        PathState::Up => tracing::info!(code, path, ?state, "{name}: up"),
        PathState::Late => tracing::info!(code, path, ?state, "{name}: late"),
        PathState::OneWay => {
            tracing::warn!(code, path, ?state, "{name}: the other node does not hear");
        }
        PathState::Down => tracing::warn!(code, path, ?state, "{name}: down"),
    }
}

/// Another decision than before. `row`: from 1.
pub(super) fn decided(group: &str, row: usize, situation: &Situation, decision: Decision) {
    let code = "LS6017";
    if matches!(decision, Decision::StepDown(_)) {
        tracing::warn!(code, %group, row, ?situation, ?decision, "{decision}");
    } else {
        tracing::info!(code, %group, row, ?situation, ?decision, "{decision}");
    }
}

/// A word goes to a volume's daemon.
pub(super) fn word(volume: &str, word: Word) {
    let what = match word {
        Word::GoAlone { .. } => "go on without the other node",
        Word::TakeOver { .. } => "take over",
        Word::Start => "serve the volume",
        Word::StepDown => "stop serving at once, and let what waits fail",
        Word::Release => "stop serving in good order",
    };
    tracing::info!(code = "LS6018", %volume, ?word, "its daemon is told to {what}");
}

/// What came of it.
pub(super) fn outcome(volume: Option<&str>, word: Word, outcome: Result<Done, Problem>) {
    let volume = volume.map(tracing::field::display);
    match outcome {
        Ok(done) => tracing::info!(code = "LS6010", volume, ?word, ?done, "carried out"),
        Err(problem) => {
            tracing::warn!(volume, ?word, code = %problem.code, "{}", problem.message);
        }
    }
}

/// The arbiter answered a claim.
pub(super) fn answer(group: &str, answer: &Answer) {
    let code = "LS6015";
    match answer {
        Answer::Granted(_) => {
            tracing::info!(code, %group, ?answer, "the arbiter grants that it goes on here");
        }
        Answer::Refused { refusal, .. } => {
            tracing::info!(code, %group, ?answer, "the arbiter refuses: {refusal}");
        }
    }
}
