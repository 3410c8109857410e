//! One sentence about a volume that a person under stress understands, and what to do.

use std::time::Duration;

use controlplane_api::ClientError;
use mirror_core::admin::{CopyProgress, CopyState, Frozen, LinkState, Problem, Role, Status};
use serde::Serialize;

use crate::failure::with_name;
use crate::size;

mod isolated;

/// How bad it is; the exit code of `volume status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Health {
    /// Served, and both copies are equal.
    Healthy,
    /// Served, with one good copy.
    Degraded,
    /// Not served, or writes wait.
    Down,
    /// This node cannot tell.
    Unknown,
}

impl Health {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Down => 2,
            Self::Unknown => 3,
        }
    }

    /// The worse of two: down, then unknown, then degraded.
    pub(crate) fn worse(self, other: Self) -> Self {
        let rank = |health| match health {
            Self::Healthy => 0,
            Self::Degraded => 1,
            Self::Unknown => 2,
            Self::Down => 3,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

/// The sentence and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) health: Health,
    /// In capitals, first on the screen.
    pub(crate) word: &'static str,
    pub(crate) sentence: String,
    /// What to do, if anything.
    pub(crate) advice: Option<String>,
    pub(crate) exit_code: u8,
}

impl Verdict {
    pub(crate) fn new(health: Health, word: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            health,
            word,
            sentence: sentence.into(),
            advice: None,
            exit_code: health.exit_code(),
        }
    }

    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// Of a daemon that answered.
    pub(crate) fn of(status: &Status) -> Self {
        let mut verdict = Self::of_state(status);
        let mut operations = status.operations.iter();
        if operations.any(|entry| entry.standing && entry.operation == "force") {
            verdict.sentence += "; RECOVERED BY FORCE from an incomplete copy";
        }
        verdict
    }

    fn of_state(status: &Status) -> Self {
        match status.role {
            _ if status.copy == CopyState::Failed => disk_failed(status),
            Role::Active => active(status),
            Role::Activating => Self::new(
                Health::Down,
                "STARTING",
                "is being activated on this node; I/O waits",
            ),
            Role::Deactivating => Self::new(
                Health::Down,
                "STOPPING",
                "is being deactivated on this node",
            ),
            Role::Fenced if status.copy == CopyState::Isolated => isolated::here(status),
            Role::Fenced if status.link.state == LinkState::Up => standby_connected(status),
            Role::Fenced => standby_alone(status),
        }
    }

    /// Of a daemon that did not.
    pub(crate) fn of_error(error: &ClientError, volume: &str) -> Self {
        let advice = with_name(&error.problem().advice, volume);
        match error {
            ClientError::NotRunning { .. } => Self::new(
                Health::Down,
                "STOPPED",
                "no daemon runs for it on this node",
            ),
            ClientError::Permission { .. }
            | ClientError::Timeout { .. }
            | ClientError::Io(_)
            | ClientError::BadAnswer { .. }
            | ClientError::Refused(_) => Self::new(Health::Unknown, "UNKNOWN", error.to_string()),
        }
        .advise(advice)
    }
}

fn disk_failed(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    let through_peer = status.role == Role::Active
        && status.link.state == LinkState::Up
        && status.view.insync == [peer.as_str()];
    if through_peer {
        return Verdict::new(
            Health::Degraded,
            "DISKLESS",
            format!("served here through {peer}, which has the only good copy; the disk here failed"),
        )
        .advise(format!(
            "end it here and go on there soon: lockstep volume deactivate {volume}, on {peer} activate {volume};\n\
             then replace the disk here (docs/operations.md)"
        ));
    }
    Verdict::new(
        Health::Down,
        "DISK FAILED",
        "the disk under the copy on this node failed; the copy here does not count",
    )
    .advise(format!(
        "serve the volume on {peer}, then replace the disk here (docs/operations.md)"
    ))
}

fn active(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    match status.frozen {
        Some(Frozen::PeerLost) => {
            return Verdict::new(Health::Down, "FROZEN", format!("writes wait for {peer} ({})", heard(status))).advise(format!(
                "nothing is lost and nothing fails: bring {peer} or its connection back and writes go on;\n\
                 or, only if {peer} is really off, go on alone: lockstep volume takeover {volume}"
            ));
        }
        Some(Frozen::ViewChange) => {
            return Verdict::new(
                Health::Down,
                "CHANGING",
                "writes wait a moment until a change is recorded on disk",
            );
        }
        None => {}
    }
    let connected = status.link.state == LinkState::Up;
    if let Some(progress) = status.progress.as_ref().filter(|_| connected) {
        let sentence = format!(
            "served here with one good copy; {peer}'s is being filled, {}",
            progress_words(progress)
        );
        return Verdict::new(Health::Degraded, "DEGRADED", sentence);
    }
    if let Some(refusal) = refusal(status) {
        let sentence = format!(
            "served here with one good copy; {peer} is kept out: {}",
            refusal.message
        );
        return Verdict::new(Health::Degraded, "DEGRADED", sentence)
            .advise(with_name(&refusal.advice, volume));
    }
    active_without_trouble(status)
}

/// Active, writes go on, no copy runs, nobody is refused.
fn active_without_trouble(status: &Status) -> Verdict {
    let peer = &status.peer;
    match (status.peer_copy, status.link.state) {
        (CopyState::InSync, LinkState::Up) => Verdict::new(
            Health::Healthy,
            "HEALTHY",
            "served here, both copies are equal",
        ),
        (CopyState::InSync, _) => Verdict::new(
            Health::Degraded,
            "DEGRADED",
            format!(
                "served here, but {peer} is not connected ({})",
                heard(status)
            ),
        )
        .advise(format!(
            "the next write waits for {peer}: look at the network and at {peer}"
        )),
        (CopyState::Isolated, _) => isolated::there(status),
        (CopyState::Failed, _) => Verdict::new(
            Health::Degraded,
            "DEGRADED",
            format!("served here with one good copy; {peer}'s disk failed"),
        )
        .advise(format!("replace the disk of {peer} (docs/operations.md)")),
        (_, LinkState::Up) => Verdict::new(
            Health::Degraded,
            "DEGRADED",
            format!("served here with one good copy; {peer}'s waits to be filled"),
        ),
        (_, _) => Verdict::new(
            Health::Degraded,
            "DEGRADED",
            format!(
                "served here with one good copy; {peer} is not connected ({})",
                heard(status)
            ),
        )
        .advise(format!(
            "bring {peer} back; its copy is brought up to date by itself"
        )),
    }
}

fn standby_connected(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    let served_by_peer = status.view.active.as_ref() == Some(peer);
    let equal = status.copy == CopyState::InSync && status.peer_copy == CopyState::InSync;
    let copies = match (&status.progress, equal) {
        (Some(progress), _) if progress.source => format!(
            "{peer}'s copy is being filled, {}",
            progress_words(progress)
        ),
        (Some(progress), _) => format!(
            "the copy here is being filled, {}",
            progress_words(progress)
        ),
        (None, true) => "both copies are equal".to_string(),
        (None, false) if status.peer_copy == CopyState::Isolated => {
            format!("only the copy here is good; {peer}'s is isolated")
        }
        (None, false) if status.peer_copy == CopyState::Failed => {
            format!("only the copy here is good; {peer}'s disk failed")
        }
        (None, false) if status.copy == CopyState::InSync => {
            format!("only the copy here is good; {peer}'s waits to be filled")
        }
        (None, false) => "the copy here waits to be filled".to_string(),
    };
    match (served_by_peer, equal) {
        (true, true) => Verdict::new(
            Health::Healthy,
            "HEALTHY",
            format!("served by {peer}, {copies}"),
        ),
        (true, false) => Verdict::new(
            Health::Degraded,
            "DEGRADED",
            format!("served by {peer}; {copies}"),
        ),
        (false, _) => {
            let here = status.copy == CopyState::InSync;
            let place = if here {
                String::new()
            } else {
                format!("on {peer}: ")
            };
            Verdict::new(
                Health::Down,
                "NOT SERVED",
                format!("ready, but activated on neither node; {copies}"),
            )
            .advise(format!("{place}lockstep volume activate {volume}"))
        }
    }
}

fn standby_alone(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    if let Some(refusal) = refusal(status) {
        return Verdict::new(
            Health::Unknown,
            "REFUSED",
            format!(
                "not served here; not connected with {peer}: {}",
                refusal.message
            ),
        )
        .advise(with_name(&refusal.advice, volume));
    }
    if status.copy == CopyState::Blank {
        return Verdict::new(
            Health::Unknown,
            "WAITING",
            format!("the copy here holds nothing yet and waits for {peer}"),
        )
        .advise(format!("on {peer}: lockstep volume start {volume}"));
    }
    if status.copy == CopyState::Discarded {
        let sentence = format!(
            "not served here; the history of the copy here was discarded, and it waits to be filled from {peer} ({})",
            heard(status)
        );
        return Verdict::new(Health::Unknown, "DISCARDED", sentence)
            .advise(format!("on {peer}: lockstep volume start {volume}"));
    }
    if status.copy != CopyState::InSync {
        let sentence = format!(
            "not served here; the copy here is not complete and {peer} does not answer ({})",
            heard(status)
        );
        return Verdict::new(Health::Unknown, "UNKNOWN", sentence).advise(format!(
            "look at {peer}: the good copy is there; this one cannot be served"
        ));
    }
    let counts = status.view.insync.contains(peer);
    if !counts {
        return Verdict::new(
            Health::Down,
            "NOT SERVED",
            format!("not served here; only the copy here is good and {peer} is not connected"),
        )
        .advise(format!("lockstep volume activate {volume}"));
    }
    Verdict::new(
        Health::Unknown,
        "UNKNOWN",
        format!(
            "not served here; {peer} does not answer ({}) and may be serving it",
            heard(status)
        ),
    )
    .advise(format!(
        "look at {peer} and at the network;\n\
             only if {peer} is really off, serve it here: lockstep volume takeover {volume}"
    ))
}

fn refusal(status: &Status) -> Option<&Problem> {
    if status.link.state == LinkState::Refused {
        status.link.refusal.as_ref()
    } else {
        None
    }
}

/// `61 %, ETA 40 s`.
fn progress_words(progress: &CopyProgress) -> String {
    let percent = size::percent(progress.copied_bytes, progress.total_bytes);
    match progress.eta_s {
        Some(eta) => format!("{percent} %, ETA {}", size::seconds(eta)),
        None => format!("{percent} %"),
    }
}

/// `last heard 0.2 s ago`.
pub(crate) fn heard(status: &Status) -> String {
    match status.link.last_heard_ms {
        Some(ms) => format!("last heard {}", size::ago(Duration::from_millis(ms))),
        None => "not heard since the daemon started".to_string(),
    }
}
