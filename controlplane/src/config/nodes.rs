//! `[nodes]` and `[timing]`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use controlplane_core::failure_detector::Timing;
use controlplane_core::limits::{
    HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, HEARTBEATS_PER_TIMEOUT_MIN,
};
use mirror_core::types::NodeId;

use super::findings::{CONFLICT, Finding};
use super::reader::Reader;
use super::spot::Spot;
use super::watchdog::{self, Watchdog};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// 0 for the first one by name.
    pub number: NodeId,
    /// Where it hears heartbeats, in their order.
    pub interconnects: Vec<SocketAddr>,
    /// What resets it if its services do not stop in time.
    pub watchdog: Option<Watchdog>,
}

pub(super) fn nodes(reader: &mut Reader, root: &Spot<'_>) -> Option<[Node; 2]> {
    let spot = root.get("nodes")?;
    let entries = spot.entries();
    let lists: Vec<(&Spot<'_>, Spot<'_>)> = entries
        .iter()
        .filter_map(|entry| Some((entry, entry.get("interconnects")?)))
        .collect();
    addresses_once(reader, &lists);
    as_many(reader, &lists);
    let watchdog = watchdog::table(root);
    let mut sorted: Vec<(&str, Vec<SocketAddr>, Option<Watchdog>)> = Vec::new();
    for (entry, list) in &lists {
        let own = watchdog::of_node(reader, watchdog.as_ref(), entry);
        let texts = list.texts()?;
        let addresses = texts.iter().map(|text| text.parse().ok());
        sorted.push((entry.name, addresses.collect::<Option<_>>()?, own));
    }
    sorted.sort_by_key(|(name, ..)| *name);
    let node = |number: u8, (name, interconnects, watchdog): &(&str, Vec<SocketAddr>, _)| {
        Some(Node {
            name: (*name).to_string(),
            number: NodeId::new(number)?,
            interconnects: interconnects.clone(),
            watchdog: Option::clone(watchdog),
        })
    };
    let [first, second] = sorted.as_slice() else {
        return None;
    };
    Some([node(0, first)?, node(1, second)?])
}

/// Both names, whatever else is wrong with the nodes.
pub(super) fn names(root: &Spot<'_>) -> Option<[String; 2]> {
    let entries = root.get("nodes")?.entries();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.name.to_string()).collect();
    names.sort();
    names.try_into().ok()
}

/// The same number of interconnects everywhere.
fn as_many(reader: &mut Reader, lists: &[(&Spot<'_>, Spot<'_>)]) {
    let Some((first, list)) = lists.first() else {
        return;
    };
    let wanted = list.items().len();
    for (entry, list) in &lists[1..] {
        let count = list.items().len();
        // A list without anything was told already.
        if count == wanted || count == 0 || wanted == 0 {
            continue;
        }
        let (name, other) = (entry.name.escape_debug(), first.name.escape_debug());
        let what = format!("`{name}` has {count} interconnects, and `{other}` has {wanted}");
        let finding = Finding::error(CONFLICT, list.key.clone(), list.at.clone(), what)
            .why("the first address of one node talks with the first one of the other, and so on")
            .advice("list as many addresses for both, in the same order");
        reader.add(finding);
    }
}

fn addresses_once(reader: &mut Reader, lists: &[(&Spot<'_>, Spot<'_>)]) {
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (entry, list) in lists {
        for item in list.items() {
            let Some(address) = item.text().and_then(|text| text.parse().ok()) else {
                continue;
            };
            let owner = taken.insert(address, entry.name.to_string());
            let Some(owner) = owner else {
                continue;
            };
            let what = format!(
                "{address} is there twice; `{}` has it",
                owner.escape_debug()
            );
            let finding = Finding::error(CONFLICT, item.key, item.at, what)
                .why("each interconnect of each node is a socket of its own")
                .advice("write the address that this node has in this interconnect's network");
            reader.add(finding);
        }
    }
}

pub(super) fn timing(reader: &mut Reader, root: &Spot<'_>) -> Option<Timing> {
    let table = root.get("timing");
    let given = |name: &str| table.as_ref().and_then(|table| table.get(name));
    let (interval_at, timeout_at) = (
        given("heartbeat_interval_ms"),
        given("heartbeat_timeout_ms"),
    );
    let time = |spot: &Option<Spot<'_>>, default: Duration| match spot {
        None => Some(default),
        Some(spot) => spot.number().map(Duration::from_millis),
    };
    let interval = time(&interval_at, HEARTBEAT_INTERVAL)?;
    let timeout = time(&timeout_at, HEARTBEAT_TIMEOUT)?;
    if let Some(timing) = Timing::new(interval, timeout) {
        return Some(timing);
    }
    let at = timeout_at.or(interval_at)?;
    let (interval, timeout) = (interval.as_millis(), timeout.as_millis());
    if interval > 0 && timeout > 0 {
        let least = interval.saturating_mul(u128::from(HEARTBEATS_PER_TIMEOUT_MIN));
        let what =
            format!("a timeout of {timeout} ms is too short for an interval of {interval} ms");
        let finding = Finding::error(CONFLICT, at.key, at.at, what)
            .why(format!(
                "it has to be at least {HEARTBEATS_PER_TIMEOUT_MIN} intervals, so that single lost packets never add up to a failover"
            ))
            .advice(format!(
                "write heartbeat_timeout_ms = {least} or more, or a shorter heartbeat_interval_ms"
            ));
        reader.add(finding);
    }
    None
}
