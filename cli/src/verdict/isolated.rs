//! What is said of isolated copies.

use mirror_core::admin::{LinkState, Status};
use mirror_core::isolation::utc;

use super::{Health, Verdict, heard};

fn since(status: &Status) -> String {
    let since = status.isolated.as_ref();
    utc(since.map_or(0, |isolated| isolated.since_unix_s))
}

/// The copy of this node.
pub(super) fn here(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    let copy = format!("the copy here is isolated since {}", since(status));
    if status.link.state != LinkState::Up {
        let sentence = format!("{copy}; {peer} does not answer ({})", heard(status));
        return Verdict::new(Health::Unknown, "UNKNOWN", sentence).advise(format!(
            "look at {peer}: the good copy is there; this one cannot be served"
        ));
    }
    if status.view.active.as_ref() != Some(peer) {
        let sentence = format!("ready, but activated on neither node; {copy}");
        return Verdict::new(Health::Down, "NOT SERVED", sentence)
            .advise(format!("on {peer}: lockstep volume activate {volume}"));
    }
    let sentence = format!("served by {peer}; {copy}");
    Verdict::new(Health::Degraded, "DEGRADED", sentence).advise(format!(
        "when it is not needed any more: lockstep volume attach {volume}"
    ))
}

/// The copy of the other node, while this one serves.
pub(super) fn there(status: &Status) -> Verdict {
    let (peer, volume) = (&status.peer, &status.volume);
    let sentence = format!(
        "served here with one good copy; {peer}'s copy is isolated since {}",
        since(status)
    );
    let away = match status.link.state {
        LinkState::Up => String::new(),
        LinkState::Down | LinkState::Handshake | LinkState::Refused => {
            format!(", which is not connected ({})", heard(status))
        }
    };
    Verdict::new(Health::Degraded, "DEGRADED", sentence).advise(format!(
        "on {peer}{away}, when it is not needed any more: lockstep volume attach {volume}"
    ))
}
