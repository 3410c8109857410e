//! `[watchdog]`, and the inequalities between the times by which services are fenced.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use controlplane_core::bounds::Fenced;
use mirror_core::types::NodeId;

use super::advice::{Told, key_of, told};
use super::findings::{CONFLICT, Finding};
use super::format::NO_DEVICE;
use super::reader::Reader;
use super::spot::Spot;
use super::{Cluster, Group};

const DEVICE: &str = "/dev/watchdog";
const TIMEOUT: Duration = Duration::from_secs(10);
/// A group that starts later than that after a takeover is rarely meant.
const WAIT_RECOMMENDED_MAX: Duration = Duration::from_secs(60);

/// A watchdog device of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// Its path.
    pub device: PathBuf,
    /// It resets the machine if it is not petted for so long; whole seconds.
    pub timeout: Duration,
}

/// What is so on both nodes.
pub(super) fn table(root: &Spot<'_>) -> Option<Watchdog> {
    let table = root.get("watchdog")?;
    let text = |name: &str| table.get(name).and_then(|spot| spot.text());
    let timeout = table.get("timeout_s").and_then(|spot| spot.number());
    Some(Watchdog {
        device: PathBuf::from(text("device").unwrap_or(DEVICE)),
        timeout: timeout.map_or(TIMEOUT, Duration::from_secs),
    })
}

/// Of one node, by its own key.
pub(super) fn of_node(
    reader: &mut Reader,
    table: Option<&Watchdog>,
    node: &Spot<'_>,
) -> Option<Watchdog> {
    let own = node.get("watchdog");
    let text = own.as_ref().and_then(Spot::text);
    match (table, own, text) {
        // One that is no device is told already.
        (None, Some(_), Some(text)) if !text.starts_with('/') && text != NO_DEVICE => None,
        (None, Some(own), Some(_)) => {
            let what = format!(
                "{} names a watchdog, and there is no table [watchdog]",
                node.name
            );
            let finding = Finding::error(CONFLICT, own.key, own.at, what)
                .why("the table says that watchdogs are used, and after which time they reset a node")
                .advice("add [watchdog], with timeout_s if it is not 10, or remove the key");
            reader.add(finding);
            None
        }
        (Some(_), _, Some(NO_DEVICE)) => None,
        (Some(table), _, Some(device)) => Some(Watchdog {
            device: PathBuf::from(device),
            timeout: table.timeout,
        }),
        (table, _, None) => table.cloned(),
        (None, None, Some(_)) => None,
    }
}

/// The times of a group on the node with this number, 0 or 1.
fn fenced(cluster: &Cluster, group: &Group, node: usize) -> Fenced {
    let node = cluster.nodes.get(node);
    let watchdog = node.and_then(|node| node.watchdog.as_ref());
    Fenced {
        leases: cluster.arbiter.leases(),
        timeout: cluster.timing.timeout,
        hard_stop: group.policy.hard_stop,
        watchdog: watchdog.map(|watchdog| watchdog.timeout),
    }
}

/// How long a group's services wait after a takeover from the node with this number, 0 or 1.
pub(super) fn wait_for(cluster: &Cluster, group: &Group, other: usize) -> Duration {
    fenced(cluster, group, other).wait()
}

impl Cluster {
    /// Each group that is in both files, with its times on each node here and there.
    fn fenced_beside<'a>(
        &'a self,
        new: &'a Self,
    ) -> impl Iterator<Item = (&'a str, [[Fenced; 2]; 2])> {
        self.groups.iter().filter_map(|group| {
            let then = new.groups.iter().find(|then| then.name == group.name)?;
            let times = [0, 1].map(|node| [fenced(self, group, node), fenced(new, then, node)]);
            Some((group.name.as_str(), times))
        })
    }

    /// Whether services wait for each other by the same times in both files.
    pub fn waits_alike(&self, new: &Self) -> bool {
        let mut groups = self.fenced_beside(new);
        groups.all(|(_, times)| times.iter().all(|[old, new]| old == new))
    }

    /// How long the services of each group wait after a takeover from the node `other`, while it goes by this file or by
    /// the new one; of groups that are in both.
    pub fn waits_between(&self, new: &Self, other: NodeId) -> BTreeMap<String, Duration> {
        let groups = self.fenced_beside(new);
        groups
            .filter_map(|(name, times)| {
                let [old, new] = times.get(other.index())?;
                Some((name.to_string(), old.wait_between(*new)))
            })
            .collect()
    }
}

/// The longer one of both directions.
pub(super) fn longest_wait(cluster: &Cluster, group: &Group) -> Duration {
    wait_for(cluster, group, 0).max(wait_for(cluster, group, 1))
}

pub(super) fn warn(cluster: &Cluster) -> Vec<Told> {
    let mut found = Vec::new();
    let any = cluster.nodes.iter().any(|node| node.watchdog.is_some());
    if any && cluster.nodes.iter().any(|node| node.watchdog.is_none()) {
        let without = cluster.nodes.iter().filter(|node| node.watchdog.is_none());
        found.extend(without.map(|node| {
            told(
                format!("nodes.{}.watchdog", key_of(&node.name)),
                format!("{} has no watchdog, the other node has one", node.name),
                "services that hang there are told, and nothing ends them before the other node starts them",
                "name its device, or remove [watchdog] if that is meant for both",
            )
        }));
    }
    for group in &cluster.groups {
        let wait = longest_wait(cluster, group);
        if wait > WAIT_RECOMMENDED_MAX && !group.resources.is_empty() {
            found.push(told(
                format!("groups.{}", key_of(&group.name)),
                format!(
                    "after a takeover {} starts nothing for {} s",
                    group.name,
                    wait.as_secs()
                ),
                "half of heartbeat_timeout_ms, hard_stop_ms and the watchdog's timeout_s twice have to pass: so long services of the other node may live",
                "shorten the longest of them",
            ));
        }
    }
    found
}
