//! Groups and their resources in the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use controlplane_core::failing::OnFailure;
use controlplane_core::group::{Policy, ResourcePolicy, StopFailure};

use super::findings::{CONFLICT, Finding, NO_SUCH_NAME};
use super::format::{mount_point, prefix};
use super::monitors::{Monitor, monitors};
use super::reader::Reader;
use super::spot::Spot;
use crate::resources::filesystem::{Fsck, Users};
use crate::resources::program::Settings;
use crate::resources::{Exec, FileSystem, FloatingIp, Systemd};

/// A program counts as started when it has run for so long, by default.
const READY: Duration = Duration::from_secs(1);
/// A program is started again so often within [`RESTART_INTERVAL`], by default.
const RESTARTS: usize = 3;
const RESTART_INTERVAL: Duration = Duration::from_secs(600);

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The names of its volumes.
    pub volumes: Vec<String>,
    /// Both nodes, the preferred one first.
    pub nodes: Vec<String>,
    /// Its resources, in the order of their start.
    pub resources: Vec<Resource>,
    /// What looks whether it works.
    pub monitors: Vec<Monitor>,
    /// Its times and bounds.
    pub policy: Policy,
}

/// A resource of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name, within the group.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A mount.
    FileSystem(FileSystem),
    /// An address.
    FloatingIp(FloatingIp),
    /// Scripts.
    Exec(Exec),
    /// A supervised program.
    Program(Settings),
    /// A unit of systemd.
    Systemd(Systemd),
}

/// What may be there once only, in all groups, and whose it is.
#[derive(Default)]
struct Taken {
    volumes: BTreeMap<String, String>,
    mount_points: BTreeMap<PathBuf, String>,
    addresses: BTreeMap<IpAddr, String>,
    units: BTreeMap<String, String>,
}

/// `nodes` are their names, if they can be read.
pub(super) fn groups(
    reader: &mut Reader,
    root: &Spot<'_>,
    nodes: Option<&[String; 2]>,
) -> Option<Vec<Group>> {
    let mut entries = root.get("groups")?.entries();
    entries.sort_by_key(|entry| entry.name);
    let mut taken = Taken::default();
    // Before the resources: of a volume of another group it can be said whose it is.
    for entry in &entries {
        volumes_once(reader, entry, &mut taken);
    }
    let read = entries
        .iter()
        .map(|entry| group(reader, entry, nodes, &mut taken));
    let read: Vec<Option<Group>> = read.collect();
    read.into_iter().collect()
}

fn group(
    reader: &mut Reader,
    spot: &Spot<'_>,
    nodes: Option<&[String; 2]>,
    taken: &mut Taken,
) -> Option<Group> {
    let preferred = preferred(reader, spot, nodes);
    let volumes = spot.get("volumes").and_then(|list| list.texts());
    let items = spot.get("resources").map(|list| list.items());
    let items = items.unwrap_or_default();
    names_once(reader, &items, "resource");
    let monitors = monitors(reader, spot, &items);
    let mut policy = group_policy(spot);
    let mut resources = Vec::new();
    let mut whole = true;
    for item in &items {
        let of = Owner {
            group: spot.name,
            volumes: volumes.as_deref().unwrap_or_default(),
        };
        let kind = kind(reader, item, &of, taken);
        let name = item.get("name").and_then(|name| name.text());
        if let (Some(kind), Some(name)) = (kind, name) {
            resources.push(Resource {
                name: name.to_string(),
                kind,
            });
        } else {
            whole = false;
        }
        policy.resources.push(resource_policy(item));
    }
    whole.then_some(Group {
        name: spot.name.to_string(),
        volumes: volumes?,
        nodes: preferred?,
        resources,
        monitors: monitors?,
        policy,
    })
}

fn volumes_once(reader: &mut Reader, group: &Spot<'_>, taken: &mut Taken) {
    let Some(list) = group.get("volumes") else {
        return;
    };
    for item in list.items() {
        let Some(volume) = item.text() else {
            continue;
        };
        let Some(owner) = taken.volumes.get(volume) else {
            taken
                .volumes
                .insert(volume.to_string(), group.name.to_string());
            continue;
        };
        let what = if owner == group.name {
            format!("the volume {volume:?} is there twice")
        } else {
            format!("the volume {volume:?} is in the group {owner:?} already")
        };
        let finding = Finding::error(CONFLICT, item.key, item.at, what)
            .why("a volume moves with one group; two could want it on two nodes")
            .advice("remove it from one of them, or put what runs on it into one group");
        reader.add(finding);
    }
}

pub(super) fn names_once(reader: &mut Reader, items: &[Spot<'_>], noun: &str) {
    let mut names = BTreeSet::new();
    for item in items {
        let Some(spot) = item.get("name") else {
            continue;
        };
        if let Some(name) = spot.text()
            && !names.insert(name)
        {
            let what = format!("the group has a {noun} {name:?} already");
            let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
                .why(format!(
                    "what runs is known by the names of its group and {noun}"
                ))
                .advice("give it another name");
            reader.add(finding);
        }
    }
}

fn preferred(
    reader: &mut Reader,
    group: &Spot<'_>,
    nodes: Option<&[String; 2]>,
) -> Option<Vec<String>> {
    let Some(given) = group.get("nodes") else {
        return nodes.map(|nodes| nodes.to_vec());
    };
    let named = given.texts()?;
    let nodes = nodes?;
    let both = format!(
        "list both, the preferred one first: {:?} in any order",
        nodes
    );
    let mut known = true;
    for item in given.items() {
        let name = item.text().unwrap_or_default();
        if !nodes.iter().any(|node| node == name) {
            known = false;
            let finding = Finding::error(
                NO_SUCH_NAME,
                given.key.clone(),
                item.at,
                format!("there is no node {name:?}"),
            )
            .why(format!("nodes in this file: {}", nodes.join(", ")))
            .advice(both.clone())
            .meant(name, nodes.iter().map(String::as_str));
            reader.add(finding);
        }
    }
    let all: BTreeSet<&String> = named.iter().collect();
    if known && (all.len() != nodes.len() || named.len() != nodes.len()) {
        let what = "`nodes` does not name each node once";
        let finding = Finding::error(CONFLICT, given.key, given.at, what)
            .why("a group can run on both nodes; the order says which one it prefers")
            .advice(both);
        reader.add(finding);
    }
    Some(named)
}

pub(super) fn time(spot: &Spot<'_>, name: &str) -> Option<Duration> {
    let number = spot.get(name)?.number()?;
    Some(Duration::from_millis(number))
}

pub(super) fn count(spot: &Spot<'_>, name: &str) -> Option<u32> {
    u32::try_from(spot.get(name)?.number()?).ok()
}

fn group_policy(group: &Spot<'_>) -> Policy {
    let mut policy = Policy::new(Vec::new());
    let times = [
        (&mut policy.failovers_within, "failovers_within_ms"),
        (&mut policy.hard_stop, "hard_stop_ms"),
        (&mut policy.doubt_grace, "doubt_grace_ms"),
    ];
    for (place, key) in times {
        *place = time(group, key).unwrap_or(*place);
    }
    policy.failovers_max = count(group, "failovers_max").unwrap_or(policy.failovers_max);
    match group.get("on_failure").and_then(|spot| spot.text()) {
        Some("wait") => policy.on_failure = OnFailure::Wait,
        Some("failover") => policy.on_failure = OnFailure::Failover,
        Some(_) | None => {}
    }
    match group.get("stop_failure").and_then(|spot| spot.text()) {
        Some("hold") => policy.stop_failure = StopFailure::Hold,
        Some("fence") => policy.stop_failure = StopFailure::Fence,
        Some(_) | None => {}
    }
    policy
}

fn resource_policy(item: &Spot<'_>) -> ResourcePolicy {
    let default = ResourcePolicy::default();
    ResourcePolicy {
        start_timeout: time(item, "start_timeout_ms").unwrap_or(default.start_timeout),
        stop_timeout: time(item, "stop_timeout_ms").unwrap_or(default.stop_timeout),
        retries: count(item, "retries").unwrap_or(default.retries),
    }
}

/// Whose resource it is.
struct Owner<'a> {
    group: &'a str,
    volumes: &'a [String],
}

/// `None`: something is wrong with it, and was told.
fn kind(reader: &mut Reader, item: &Spot<'_>, of: &Owner<'_>, taken: &mut Taken) -> Option<Kind> {
    match item.get("kind")?.text()? {
        "filesystem" => file_system(reader, item, of, taken).map(Kind::FileSystem),
        "floating_ip" => floating_ip(reader, item, taken).map(Kind::FloatingIp),
        "exec" => {
            let command = |name: &str| item.get(name).and_then(|list| list.texts());
            Some(Kind::Exec(Exec {
                start: command("start")?,
                stop: command("stop"),
                check: command("check"),
            }))
        }
        "systemd" => Some(Kind::Systemd(unit(reader, item, taken)?)),
        "program" => {
            let restarts = count(item, "restarts").and_then(|count| usize::try_from(count).ok());
            Some(Kind::Program(Settings {
                command: item.get("command")?.texts()?,
                ready: time(item, "ready_ms").unwrap_or(READY),
                restarts: restarts.unwrap_or(RESTARTS),
                restart_interval: time(item, "restart_interval_ms").unwrap_or(RESTART_INTERVAL),
            }))
        }
        _ => None,
    }
}

fn file_system(
    reader: &mut Reader,
    item: &Spot<'_>,
    of: &Owner<'_>,
    taken: &mut Taken,
) -> Option<FileSystem> {
    let text = |name: &str| item.get(name).and_then(|spot| spot.text());
    let volume = volume(reader, item, of, taken);
    let path = mount_once(reader, item, taken);
    let kind = text("type");
    let fsck = match (text("fsck"), kind) {
        (Some("auto"), Some(kind @ ("xfs" | "btrfs"))) => {
            let spot = item.get("fsck")?;
            let what = format!("fsck = \"auto\" for {kind}");
            let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
                .why(format!("{kind} replays its journal when mounted, and has no check that is safe to run by itself"))
                .advice("write \"never\", or remove the key");
            reader.add(finding);
            Fsck::Never
        }
        (Some("auto"), _) => Fsck::Auto,
        _ => Fsck::Never,
    };
    let kills = item.get("kill_users").and_then(|spot| spot.flag());
    Some(FileSystem {
        volume: volume?,
        kind: kind?.to_string(),
        mount_point: path?,
        options: text("options").unwrap_or_default().to_string(),
        fsck,
        users: if kills == Some(true) {
            Users::Kill
        } else {
            Users::Name
        },
    })
}

fn volume(reader: &mut Reader, item: &Spot<'_>, of: &Owner<'_>, taken: &Taken) -> Option<String> {
    let spot = item.get("volume")?;
    let volume = spot.text()?;
    // Without volumes something else is wrong with the group, and was told.
    if !of.volumes.is_empty() && !of.volumes.iter().any(|own| own == volume) {
        let (group, volumes) = (of.group.escape_debug(), of.volumes.join(", "));
        let what = format!("the group {group} has no volume {volume:?}");
        let why = match taken.volumes.get(volume) {
            Some(owner) => format!(
                "it belongs to the group {owner:?}, and may be served on another node than this group"
            ),
            None => "a group mounts what it serves itself".to_string(),
        };
        let finding = Finding::error(NO_SUCH_NAME, spot.key, spot.at, what)
            .why(why)
            .advice(format!(
                "name a volume of this group ({volumes}), or add it to `volumes`"
            ))
            .meant(volume, of.volumes.iter().map(String::as_str));
        reader.add(finding);
    }
    Some(volume.to_string())
}

fn mount_once(reader: &mut Reader, item: &Spot<'_>, taken: &mut Taken) -> Option<PathBuf> {
    let spot = item.get("mount_point")?;
    let path = mount_point(spot.text()?)?;
    if let Some(owner) = taken.mount_points.insert(path.clone(), item.key.clone()) {
        let what = format!("{owner} mounts at {} already", path.display());
        let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
            .why("one mount would hide the other")
            .advice("name a directory of its own");
        reader.add(finding);
    }
    Some(path)
}

fn floating_ip(reader: &mut Reader, item: &Spot<'_>, taken: &mut Taken) -> Option<FloatingIp> {
    let spot = item.get("address")?;
    let (address, prefix) = prefix(spot.text()?).ok()?;
    if let Some(owner) = taken.addresses.insert(address, item.key.clone()) {
        let what = format!("{owner} has the address {address} already");
        let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
            .why("the first one to stop would take it away from the other")
            .advice("give each an address of its own");
        reader.add(finding);
    }
    let interface = item.get("interface").and_then(|spot| spot.text());
    Some(FloatingIp {
        address,
        prefix,
        interface: interface.map(str::to_string),
    })
}

fn unit(reader: &mut Reader, item: &Spot<'_>, taken: &mut Taken) -> Option<Systemd> {
    let spot = item.get("unit")?;
    let unit = spot.text()?.to_string();
    if let Some(owner) = taken.units.insert(unit.clone(), item.key.clone()) {
        let what = format!("{owner} has the unit {unit:?} already");
        let finding = Finding::error(CONFLICT, spot.key, spot.at, what)
            .why("the first one to stop would take it away from the other")
            .advice("name it once; an instance of a template (NAME@INSTANCE.service) is a unit of its own");
        reader.add(finding);
    }
    Some(Systemd { unit })
}
