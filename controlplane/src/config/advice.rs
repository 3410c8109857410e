//! What is allowed and worth a second look, as far as the file alone shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use controlplane_core::failing::OnFailure;
use controlplane_core::keeper::ArbiterKind;
use controlplane_core::monitor::OnError;

use super::findings::{Finding, Findings};
use super::monitors::Monitor;
use super::resources::{Group, Kind};
use super::{Cluster, RegisterKeeper};

/// Shorter silences happen on machines and switches that are only busy.
const TIMEOUT_RECOMMENDED_MIN: Duration = Duration::from_secs(1);
/// Starts and stops of less are rarely meant.
const ACTION_RECOMMENDED_MIN: Duration = Duration::from_secs(1);

pub(super) fn warn(
    cluster: &Cluster,
    places: &BTreeMap<String, Range<usize>>,
    findings: &mut Findings,
) {
    let mut found = Vec::new();
    found.extend(interconnects(cluster));
    found.extend(arbiter(cluster, places));
    found.extend(timing(cluster));
    found.extend(super::watchdog::warn(cluster));
    for group in &cluster.groups {
        found.extend(resources(group));
        found.extend(monitors(group));
    }
    for (key, what, why, advice) in found {
        let place = places.get(&key).cloned();
        findings.add(Finding::warning(key, place, what).why(why).advice(advice));
    }
}

/// Key, what, why, what to do.
pub(super) type Told = (String, String, String, String);

pub(super) fn told(
    key: impl Into<String>,
    what: impl Into<String>,
    why: impl Into<String>,
    advice: impl Into<String>,
) -> Told {
    (key.into(), what.into(), why.into(), advice.into())
}

fn interconnects(cluster: &Cluster) -> Vec<Told> {
    let mut found = Vec::new();
    let first = &cluster.nodes[0];
    if first.interconnects.len() == 1 {
        found.push(told(
            format!("nodes.{}.interconnects", key_of(&first.name)),
            "one interconnect only",
            "if its network fails, the mirror link is the only path on which the nodes hear each other",
            "add an address in a second network for both nodes",
        ));
    }
    for node in &cluster.nodes {
        let addresses: BTreeSet<IpAddr> = node.interconnects.iter().map(SocketAddr::ip).collect();
        if addresses.len() < node.interconnects.len() {
            found.push(told(
                format!("nodes.{}.interconnects", key_of(&node.name)),
                format!(
                    "two interconnects of {} have the same IP address",
                    node.name
                ),
                "they fail together",
                "use an address in another network for each",
            ));
        }
    }
    found
}

/// As in [`super::reader`]: names with a dot are quoted.
pub(super) fn key_of(name: &str) -> String {
    if name.contains('.') {
        format!("{name:?}")
    } else {
        name.to_string()
    }
}

fn arbiter(cluster: &Cluster, places: &BTreeMap<String, Range<usize>>) -> Vec<Told> {
    let mut found = Vec::new();
    let named = places.contains_key("arbiter");
    match cluster.arbiter {
        ArbiterKind::Nobody => found.push(told(
            "arbiter",
            "nobody decides where the nodes cannot",
            "when everything between the nodes is cut, both serve, and what one of them wrote is lost",
            "set up a witness on a third machine, or write \"manual\": an operator decides",
        )),
        ArbiterKind::Manual if !named => found.push(told(
            "arbiter",
            "no arbiter is named, so an operator decides every takeover",
            "there is neither [witness] nor [etcd] nor [ping]",
            "write arbiter = \"manual\" if that is meant, or set up a witness",
        )),
        ArbiterKind::Ping => found.push(told(
            "ping",
            "a ping target cannot see that it answers both nodes",
            "where the nodes are cut off from each other and both reach a target, both serve, and what one of them wrote is lost",
            "set up a witness if there is a third machine for it",
        )),
        ArbiterKind::Manual | ArbiterKind::Register => {}
    }
    let used = match &cluster.keeper {
        Some(RegisterKeeper::Witness(_)) => "witness",
        Some(RegisterKeeper::Etcd { .. }) => "etcd",
        None if cluster.arbiter == ArbiterKind::Ping => "ping",
        None => "",
    };
    for table in ["witness", "etcd", "ping"] {
        if table != used && places.contains_key(table) {
            found.push(told(
                table,
                format!("the table [{table}] is not used"),
                "`arbiter` names another one",
                "remove it, unless it is kept for later",
            ));
        }
    }
    if let Some(RegisterKeeper::Witness(address)) = &cluster.keeper {
        found.extend(on_a_node(cluster, address));
    }
    found
}

/// A witness that dies with a node decides nothing when it matters.
fn on_a_node(cluster: &Cluster, address: &str) -> Option<Told> {
    let witness: IpAddr = address.parse::<SocketAddr>().ok()?.ip();
    let has = |node: &&super::Node| node.interconnects.iter().any(|own| own.ip() == witness);
    let place = match cluster.nodes.iter().find(has) {
        Some(node) => format!("the witness is on {}", node.name),
        None if witness.is_loopback() => "the witness is on the node itself".to_string(),
        None => return None,
    };
    Some(told(
        "witness.address",
        place,
        "it dies with that node, and then nobody can decide",
        "let it run on a third machine",
    ))
}

fn timing(cluster: &Cluster) -> Option<Told> {
    let timeout = cluster.timing.timeout;
    (timeout < TIMEOUT_RECOMMENDED_MIN).then(|| {
        told(
            "timing.heartbeat_timeout_ms",
            format!("a node counts as dead after {} ms", timeout.as_millis()),
            "busy machines and switches are silent for so long without being dead",
            format!(
                "{} ms or more are recommended",
                TIMEOUT_RECOMMENDED_MIN.as_millis()
            ),
        )
    })
}

fn resources(group: &Group) -> Vec<Told> {
    let mut found = Vec::new();
    let own = format!("groups.{}", key_of(&group.name));
    if group.resources.is_empty() {
        found.push(told(
            own.clone(),
            format!("the group {} has no resources", group.name),
            "it moves its volumes, and nothing is mounted or started on them",
            "add [[groups.NAME.resources]], unless something else uses the volumes",
        ));
    }
    for (index, resource) in group.resources.iter().enumerate() {
        let key = format!("{own}.resources.{}", key_of(&resource.name));
        let policy = &group.policy.resources[index];
        let times = [
            ("start", policy.start_timeout),
            ("stop", policy.stop_timeout),
        ];
        for (action, time) in times {
            if time < ACTION_RECOMMENDED_MIN {
                found.push(told(
                    format!("{key}.{action}_timeout_ms"),
                    format!("{} has {} ms to {action}", resource.name, time.as_millis()),
                    "on a busy machine it takes longer, and counts as failed then",
                    format!(
                        "{} ms or more are recommended",
                        ACTION_RECOMMENDED_MIN.as_millis()
                    ),
                ));
            }
        }
        let Kind::FileSystem(mount) = &resource.kind else {
            continue;
        };
        let hidden = group.resources[..index]
            .iter()
            .find(|earlier| match &earlier.kind {
                Kind::FileSystem(other) => other.mount_point.starts_with(&mount.mount_point),
                Kind::FloatingIp(_) | Kind::Exec(_) | Kind::Program(_) | Kind::Systemd(_) => false,
            });
        if let Some(hidden) = hidden {
            found.push(told(
                format!("{key}.mount_point"),
                format!("{} is mounted over {}", resource.name, hidden.name),
                "the mount that comes later hides what is below it",
                "put the outer mount before the inner one",
            ));
        }
    }
    found
}

/// Those whose group never moves by itself.
fn monitors(group: &Group) -> Vec<Told> {
    let why = match group.policy.on_failure {
        OnFailure::Wait => "on_failure = \"wait\"",
        OnFailure::Failover if group.policy.failovers_max == 0 => "failovers_max = 0",
        OnFailure::Failover => return Vec::new(),
    };
    let fails = group.monitors.iter();
    let fails = fails.filter(|monitor| monitor.policy.on_error == OnError::Failover);
    let own = format!("groups.{}.monitors", key_of(&group.name));
    let tell = |monitor: &Monitor| {
        told(
            format!("{own}.{}.on_error", key_of(&monitor.name)),
            format!("nothing follows when the monitor {} fails", monitor.name),
            format!(
                "with {why} the group does not move by itself, and no monitor stops it otherwise"
            ),
            "write on_error = \"warn\", or let the group move",
        )
    };
    fails.map(tell).collect()
}
