//! Raised timeouts: a row of the status, and the answer of `lockstep timeouts`.

use std::fmt::Write;

use controlplane_api::cluster::{ClusterStatus, PeerTimeouts, Timeouts, TimeoutsStage};

use crate::size;
use crate::style::{Style, Tone};

const PLAIN: u8 = 10;

fn factor(tenths: u8) -> String {
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}"),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}

/// The heartbeat's timeout, so many times as long.
fn seconds(timeouts: &Timeouts, tenths: u8) -> String {
    let millis = timeouts.heartbeat_timeout_ms.saturating_mul(tenths.into()) / 10;
    match (millis / 1000, millis % 1000) {
        (whole, 0) => format!("{whole} s"),
        (whole, rest) => {
            let text = format!("{whole}.{rest:03}");
            format!("{} s", text.trim_end_matches('0'))
        }
    }
}

/// The row's value; `None` if there is nothing to tell.
pub(super) fn row(status: &ClusterStatus, style: Style) -> Option<String> {
    let timeouts = status.timeouts.as_ref()?;
    let peer = timeouts.peer;
    let peer_raised = peer.is_some_and(|peer| peer.waits_tenths > PLAIN);
    let text = match (&timeouts.wanted, timeouts.stage) {
        (None, TimeoutsStage::AsConfigured) if !peer_raised => return None,
        (None, _) => format!("being lowered: {}", what_is_left(status, timeouts)),
        (Some(wanted), stage) => {
            let left = size::seconds(wanted.left_ms / 1000);
            let many = factor(wanted.factor_tenths);
            let lacks = match stage {
                TimeoutsStage::Raised => String::new(),
                // It is over, and the disk does not say so yet.
                TimeoutsStage::AsConfigured | TimeoutsStage::Lowering => {
                    ", BEING LOWERED".to_string()
                }
                TimeoutsStage::Raising => {
                    format!(
                        ", NOT YET ON {}",
                        if timeouts.waits_tenths < wanted.factor_tenths {
                            &status.node
                        } else {
                            &status.peer.name
                        }
                    )
                }
            };
            format!(
                "raised {many} times{lacks}, by {} for {left} more",
                wanted.by
            )
        }
    };
    Some(style.paint(Tone::Careful, &text))
}

fn what_is_left(status: &ClusterStatus, timeouts: &Timeouts) -> String {
    let waits = |name: &str, tenths: u8| {
        let many = factor(tenths);
        (tenths > PLAIN).then(|| format!("{name} still waits {many} times as long"))
    };
    let peer = timeouts.peer.map_or(PLAIN, |peer| peer.waits_tenths);
    let both = [
        waits(&status.node, timeouts.waits_tenths),
        waits(&status.peer.name, peer),
    ];
    let both: Vec<String> = both.into_iter().flatten().collect();
    both.join(", ")
}

/// All of it.
pub(crate) fn screen(status: &ClusterStatus) -> String {
    let mut out = String::new();
    let Some(timeouts) = &status.timeouts else {
        return "this lockstepd is of a release that cannot raise timeouts\n".to_string();
    };
    // Writing to a string cannot fail.
    let _ = match &timeouts.wanted {
        Some(wanted) => writeln!(
            out,
            "raised {} times by {} (number {}), since {}, for {} more",
            factor(wanted.factor_tenths),
            wanted.by,
            wanted.number,
            size::seconds(wanted.since_ms / 1000),
            size::seconds(wanted.left_ms / 1000)
        ),
        None => writeln!(
            out,
            "as configured: {}{}",
            seconds(timeouts, PLAIN),
            match timeouts.stage {
                TimeoutsStage::AsConfigured => "",
                TimeoutsStage::Raising | TimeoutsStage::Raised | TimeoutsStage::Lowering =>
                    ", as soon as what was promised has run out",
            }
        ),
    };
    let own = PeerTimeouts {
        waits_tenths: timeouts.waits_tenths,
        lease_tenths: timeouts.lease_tenths,
    };
    for (name, told) in [
        (&status.node, Some(own)),
        (&status.peer.name, timeouts.peer),
    ] {
        let _ = match told {
            Some(told) => writeln!(
                out,
                "  {name:<12}takes over after {} of silence; its lease is {}",
                seconds(timeouts, told.waits_tenths),
                seconds(timeouts, told.lease_tenths)
            ),
            None => writeln!(
                out,
                "  {name:<12}was not heard, or is of a release that cannot"
            ),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::good;
    use super::*;
    use controlplane_api::cluster::TimeoutsWanted;

    fn raised(stage: TimeoutsStage, waits: u8, peer: u8) -> ClusterStatus {
        let wanted = TimeoutsWanted {
            factor_tenths: 30,
            number: 4,
            by: "node2".to_string(),
            since_ms: 65_000,
            left_ms: 3_535_000,
        };
        let timeouts = Timeouts {
            stage,
            heartbeat_timeout_ms: 2500,
            waits_tenths: waits,
            lease_tenths: waits.min(peer),
            peer: Some(PeerTimeouts {
                waits_tenths: peer,
                lease_tenths: waits.min(peer),
            }),
            wanted: Some(wanted),
        };
        ClusterStatus {
            timeouts: Some(timeouts),
            ..good()
        }
    }

    #[test]
    fn what_is_raised_is_shown_with_the_side_that_lacks_it() {
        assert_eq!(row(&good(), Style::Plain), None);
        let both = raised(TimeoutsStage::Raised, 30, 30);
        let text = row(&both, Style::Plain).expect("a row");
        assert_eq!(text, "raised 3 times, by node2 for 58 min 55 s more");
        let text = screen(&both);
        assert!(
            text.contains("node1       takes over after 7.5 s of silence"),
            "{text}"
        );
        let half = raised(TimeoutsStage::Raising, 30, 10);
        let text = row(&half, Style::Plain).expect("a row");
        assert!(text.contains("NOT YET ON node2"), "{text}");
        let ended = raised(TimeoutsStage::Lowering, 30, 30);
        let text = row(&ended, Style::Plain).expect("a row");
        assert!(text.starts_with("raised 3 times, BEING LOWERED"), "{text}");
        let mut lowering = raised(TimeoutsStage::Lowering, 30, 10);
        if let Some(timeouts) = &mut lowering.timeouts {
            timeouts.wanted = None;
        }
        let text = row(&lowering, Style::Plain).expect("a row");
        assert_eq!(text, "being lowered: node1 still waits 3 times as long");
    }
}
