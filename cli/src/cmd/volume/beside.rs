//! What an operator does to a volume by hand, beside a `lockstepd` that keeps it otherwise: it would be undone at once. So it is
//! refused, with the verb of the group that does it, unless the operator insists.

use controlplane_api::cluster::{ClusterStatus, Group, Presence, Volume, Want};
use mirror_core::admin::Role;

use crate::cluster::resume;
use crate::failure::Failure;
use crate::http::{HttpError, cluster_status};

const EMERGENCY: &str = "in an emergency stop lockstepd, then say --by-hand";

/// What is done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    Activate,
    Deactivate,
    Takeover,
}

/// Asks the control plane of this node, if one runs.
pub(super) fn look(hand: Hand, volume: &str, by_hand: bool) -> Result<(), Failure> {
    if by_hand {
        return Ok(());
    }
    match cluster_status() {
        Ok(status) => judge(hand, volume, &status),
        // Nobody would undo it; or this is not root, as the volume's daemon says in its turn.
        Err(HttpError::NotRunning { .. }) => Ok(()),
        Err(error @ (HttpError::Broken { .. } | HttpError::BadAnswer { .. })) => {
            eprintln!("{error}; it may undo this");
            Ok(())
        }
    }
}

fn judge(hand: Hand, volume: &str, status: &ClusterStatus) -> Result<(), Failure> {
    let found = status.groups.iter().find_map(|group| {
        let mut volumes = group.volumes.iter();
        let found = volumes.find(|it| it.name == *volume)?;
        Some((group, found))
    });
    match found {
        Some((group, found)) => contradiction(hand, (group, found), status).map_or(Ok(()), Err),
        None => Ok(()),
    }
}

fn contradiction(
    hand: Hand,
    (group, volume): (&Group, &Volume),
    status: &ClusterStatus,
) -> Option<Failure> {
    let (name, node) = (&group.name, &status.node);
    let served = volume.status.as_ref().map(|told| told.role) == Some(Role::Active);
    let suspended = status.suspended.contains(node);
    let want = group.wish.as_ref().map_or(Want::Runs, |wish| wish.want);
    let (code, message, advice) = match (hand, want) {
        // It goes on with what it serves already.
        (Hand::Activate | Hand::Takeover, _) if served => return None,
        (Hand::Activate | Hand::Takeover, Want::Stopped) => (
            "LS6230",
            format!(
                "{name}, which has this volume, is stopped: lockstepd would stop the volume again"
            ),
            format!(
                "`lockstep group start {name} --on {node}` serves it here, with all that belongs to it\n{EMERGENCY}"
            ),
        ),
        (Hand::Activate | Hand::Takeover, Want::Runs) if suspended => (
            "LS6230",
            format!("{node} is suspended: {name} shall not begin here"),
            format!(
                "{}, and lockstepd begins with {name} here if it may; with --by-hand it keeps what you do, and starts {name} here \
                 although the node is suspended",
                resume(status, node)
            ),
        ),
        // The giver died in the middle: this node is the one that takes it, and it waits for the operator's word.
        (Hand::Activate | Hand::Takeover, Want::Moves) if comes_from_the_dead(group, status) => {
            return None;
        }
        (Hand::Activate | Hand::Deactivate | Hand::Takeover, Want::Moves) => (
            "LS6230",
            format!("{name}, which has this volume, is on its way to another node"),
            format!(
                "wait until it has arrived, or has gone back; `lockstep status` tells\n{EMERGENCY}"
            ),
        ),
        (Hand::Deactivate, Want::Runs) if served => kept_served(name, status),
        (Hand::Activate | Hand::Takeover | Hand::Deactivate, Want::Runs)
        | (Hand::Deactivate, Want::Stopped) => return None,
    };
    Some(Failure::new(code, message, advice))
}

fn kept_served(name: &str, status: &ClusterStatus) -> (&'static str, String, String) {
    let node = &status.node;
    let (then, first) = if status.suspended.contains(node) {
        let first = format!(
            "{} before, or it does not come back; ",
            resume(status, node)
        );
        ("begin nothing again, for this node is suspended", first)
    } else {
        ("begin again", String::new())
    };
    let keeps = format!("lockstepd keeps this volume served for {name}");
    (
        "LS6231",
        format!("{keeps}: it would stop what runs on it, hard, and {then}"),
        format!(
            "{first}`lockstep group stop {name}`, or `lockstep group move {name}`\n{EMERGENCY}"
        ),
    )
}

/// It moves to this node, and the other one is not heard.
fn comes_from_the_dead(group: &Group, status: &ClusterStatus) -> bool {
    let to = group.wish.as_ref().and_then(|wish| wish.node.as_ref());
    to == Some(&status.node) && status.peer.presence != Presence::Alive
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{good, group, wish};
    use controlplane_api::cluster::WishOrigin;

    #[test]
    fn what_lockstepd_would_undo_is_refused_and_nothing_else() {
        use Hand::{Activate, Deactivate, Takeover};
        let cases = [
            // Who serves it, what is wished, whether this node is suspended.
            (
                None,
                Some(Want::Stopped),
                false,
                [Some("LS6230"), None, Some("LS6230")],
            ),
            (Some("node1"), Some(Want::Stopped), false, [None; 3]),
            (None, Some(Want::Moves), false, [Some("LS6230"); 3]),
            (
                Some("node1"),
                Some(Want::Moves),
                false,
                [None, Some("LS6230"), None],
            ),
            (None, Some(Want::Runs), false, [None; 3]),
            (None, None, false, [None; 3]),
            (None, None, true, [Some("LS6230"), None, Some("LS6230")]),
            (Some("node1"), None, false, [None, Some("LS6231"), None]),
            (Some("node1"), None, true, [None, Some("LS6231"), None]),
            (Some("node2"), None, false, [None; 3]),
        ];
        for (serves, want, suspended, expected) in cases {
            let mut status = good();
            let mut group = group(serves);
            group.wish = want.map(|want| wish(5, want, WishOrigin::Operator));
            status.groups.push(group);
            if suspended {
                status.suspended.push("node1".to_string());
            }
            for (hand, expected) in [Activate, Deactivate, Takeover].into_iter().zip(expected) {
                let found = judge(hand, "data", &status).err();
                let code = found.as_ref().map(|failure| failure.problem.code.as_str());
                assert_eq!(code, expected, "{hand:?} {serves:?} {want:?} {suspended}");
                assert!(judge(hand, "other", &status).is_ok(), "of no group");
            }
        }
    }

    /// Nobody else ends that wait: the wish of a move to this node is settled here alone.
    #[test]
    fn what_moved_here_when_the_giver_died_can_be_taken_over_by_hand() {
        let mut status = good();
        let mut group = group(None);
        let mut moves = wish(5, Want::Moves, WishOrigin::Operator);
        moves.node = Some("node1".to_string());
        group.wish = Some(moves);
        status.groups.push(group);
        let refused = |hand, status: &ClusterStatus| judge(hand, "data", status).is_err();
        assert!(refused(Hand::Takeover, &status), "the giver lives");
        status.peer.presence = Presence::Dead;
        assert!(!refused(Hand::Takeover, &status) && !refused(Hand::Activate, &status));
        assert!(refused(Hand::Deactivate, &status));
        let wish = status.groups[0].wish.as_mut().expect("a wish");
        wish.node = Some("node2".to_string());
        assert!(refused(Hand::Takeover, &status), "it is not for this node");
    }

    /// It goes on with what it serves, so what is done by hand is kept.
    #[test]
    fn of_a_suspended_node_is_said_what_is_so() {
        let mut status = good();
        status.suspended = vec!["node1".to_string()];
        status.groups.push(group(None));
        let text = |hand, status: &ClusterStatus| {
            let refused = judge(hand, "data", status).expect_err("refused").problem;
            format!("{}; {}", refused.message, refused.advice)
        };
        let said = text(Hand::Takeover, &status);
        assert!(said.contains("`lockstep node resume node1`"), "{said}");
        assert!(said.contains("keeps what you do"), "{said}");
        assert!(!said.contains("stop lockstepd"), "{said}");
        status.suspended_together = status.suspended.clone();
        let said = text(Hand::Takeover, &status);
        assert!(said.contains("`lockstep cluster resume`"), "{said}");
        status.groups[0] = group(Some("node1"));
        let said = text(Hand::Deactivate, &status);
        assert!(said.contains("begin nothing again"), "{said}");
    }
}
