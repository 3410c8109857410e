//! What an operator does to a volume by hand, beside a `lockstepd` that keeps it otherwise: it would be undone at once. So it is
//! refused, with the verb of the group that does it, unless the operator insists.

use controlplane_api::cluster::{ClusterStatus, Group, Volume, Want};
use mirror_core::admin::Role;

use crate::failure::Failure;
use crate::http::{HttpError, cluster_status};

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
                "`lockstep group start {name} --on {node}` serves it here, with all that belongs to it"
            ),
        ),
        (Hand::Activate | Hand::Takeover, Want::Runs) if status.suspended.contains(node) => (
            "LS6230",
            format!("{node} is suspended: it begins and takes over nothing"),
            format!(
                "`lockstep node resume {node}`, and lockstepd begins with {name} here if it may"
            ),
        ),
        (Hand::Activate | Hand::Deactivate | Hand::Takeover, Want::Moves) => (
            "LS6230",
            format!("{name}, which has this volume, is on its way to another node"),
            "wait until it has arrived, or has gone back; `lockstep status` tells".to_string(),
        ),
        (Hand::Deactivate, Want::Runs) if served => (
            "LS6231",
            format!(
                "lockstepd keeps this volume served for {name}: it would stop what runs on it, hard, and begin again"
            ),
            format!("`lockstep group stop {name}`, or `lockstep group move {name}`"),
        ),
        (Hand::Activate | Hand::Takeover | Hand::Deactivate, Want::Runs)
        | (Hand::Deactivate, Want::Stopped) => return None,
    };
    let advice = format!("{advice}\nin an emergency stop lockstepd, then say --by-hand");
    Some(Failure::new(code, message, advice))
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
}
