//! In which order changes are made.

use std::path::Path;

use super::super::resources::Group;
use super::super::{Cluster, RegisterKeeper};
use super::{Change, Level, renumbered};

pub(super) fn steps(
    changes: &[Change],
    old: &Cluster,
    new: &Cluster,
    file: &Path,
    place: &Path,
) -> Vec<String> {
    let needs = |level| changes.iter().any(|change| change.level == level);
    if changes.is_empty() {
        return Vec::new();
    }
    if let Some((name, _)) = renumbered(old, new) {
        return vec![format!(
            "do not do this: choose names with which {name} keeps its place in the order by name"
        )];
    }
    if changes.iter().all(Change::may_be_pushed) {
        let push = if file == place {
            "lockstep config push".to_string()
        } else {
            format!("lockstep config push {}", file.display())
        };
        return vec![push];
    }
    let put = if file == place {
        format!("copy {} to the other node", place.display())
    } else {
        format!(
            "put {} in place as {} on both nodes",
            file.display(),
            place.display()
        )
    };
    let cluster = needs(Level::StopCluster);
    let both = cluster || needs(Level::StopLockstepd);
    // An armed device resets a node whose lockstepd is not back in time: it is disarmed when nothing runs.
    let disarm = both && old.nodes.iter().any(|node| node.watchdog.is_some());
    let stopped = |group: &&Group| {
        let own = |change: &Change| {
            change.level == Level::StopGroup && change.group.as_ref() == Some(&group.name)
        };
        cluster || (disarm && !group.resources.is_empty()) || changes.iter().any(own)
    };
    let stopped: Vec<&Group> = old.groups.iter().filter(stopped).collect();
    let mut steps = vec![format!(
        "on both nodes: lockstep config check {}",
        file.display()
    )];
    let stop = |group: &&Group| format!("lockstep group stop {} --wait", group.name);
    steps.extend(stopped.iter().map(stop));
    if both {
        steps.push("stop lockstepd on both nodes; until it runs again nothing fails over, and what runs is not watched".to_string());
    }
    if cluster {
        steps.push("write the new names into the volumes' files of both nodes (/etc/lockstep/volumes), and restart the volumes' daemons".to_string());
    }
    steps.extend(old_times(changes, new));
    steps.push(put);
    steps.push(if both {
        "on both nodes: `lockstep config adopt`, then start lockstepd".to_string()
    } else {
        let in_one_go = shortest(old).map_or(String::new(), |seconds| {
            format!(" in one go (a watchdog that is armed resets the node after {seconds} s)")
        });
        format!(
            "on one node{in_one_go}: stop lockstepd, `lockstep config adopt`, start lockstepd, wait until `lockstep status` there shows the other node; then the same on the other one"
        )
    });
    let again = stopped.into_iter().filter(|group| {
        let mut groups = new.groups.iter();
        groups.any(|new| new.name == group.name)
    });
    steps.extend(again.map(|group| format!("lockstep group start {} --wait", group.name)));
    steps.push("lockstep status".to_string());
    steps
}

/// Seconds of the watchdog that is the first one to reset its node.
fn shortest(cluster: &Cluster) -> Option<u64> {
    let watchdogs = cluster
        .nodes
        .iter()
        .filter_map(|node| node.watchdog.as_ref());
    watchdogs.map(|watchdog| watchdog.timeout.as_secs()).min()
}

/// What the new arbiter may know of an earlier time is the past, and nobody can tell.
fn old_times(changes: &[Change], new: &Cluster) -> Option<String> {
    changes.iter().find(|change| change.key == "arbiter")?;
    Some(match new.keeper.as_ref()? {
        RegisterKeeper::Witness(_) => {
            "see that the witness admits this cluster (docs/controlplane.md, \"Setting it up\"); if it had it at an earlier time, delete CLUSTER.json there while the witness is stopped".to_string()
        }
        RegisterKeeper::Etcd { .. } => {
            "if etcd had this cluster at an earlier time, delete the key /lockstep/CLUSTER/registers there".to_string()
        }
    })
}
