//! Groups and their resources in the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use controlplane_api::paths::volume_name_is_legal;
use controlplane_core::group::{Policy, ResourcePolicy, StopFailure};
use controlplane_core::limits::RESOURCES_MAX;
use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Place};
use crate::resources::filesystem::{Fsck, Users};
use crate::resources::program::Settings;
use crate::resources::{Exec, FileSystem, FloatingIp};

const KINDS: &str = "\"filesystem\", \"floating_ip\", \"exec\" or \"program\"";
const COMMON: &str = "kind, name, start_timeout_ms, stop_timeout_ms, retries";
const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const TIME_MS_MIN: u64 = 100;
const TIME_MS_MAX: u64 = 24 * 3600 * 1000;
const COUNT_MAX: u64 = 1000;
/// A program counts as started when it has run for so long, by default.
const READY: Duration = Duration::from_secs(1);
/// A program is started again so often within [`RESTART_INTERVAL`], by default.
const RESTARTS: usize = 3;
const RESTART_INTERVAL: Duration = Duration::from_secs(600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupTable {
    volumes: Spanned<Vec<String>>,
    nodes: Option<Spanned<Vec<String>>>,
    failovers_max: Option<Spanned<u64>>,
    failovers_within_ms: Option<Spanned<u64>>,
    hard_stop_ms: Option<Spanned<u64>>,
    doubt_grace_ms: Option<Spanned<u64>>,
    stop_failure: Option<Spanned<String>>,
    #[serde(default)]
    resources: Vec<Spanned<ResourceTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceTable {
    kind: Spanned<String>,
    name: Spanned<String>,
    start_timeout_ms: Option<Spanned<u64>>,
    stop_timeout_ms: Option<Spanned<u64>>,
    retries: Option<Spanned<u64>>,
    volume: Option<Spanned<String>>,
    #[serde(rename = "type")]
    file_system: Option<Spanned<String>>,
    mount_point: Option<Spanned<String>>,
    options: Option<Spanned<String>>,
    fsck: Option<Spanned<String>>,
    kill_users: Option<Spanned<bool>>,
    address: Option<Spanned<String>>,
    interface: Option<Spanned<String>>,
    start: Option<Spanned<Vec<String>>>,
    stop: Option<Spanned<Vec<String>>>,
    check: Option<Spanned<Vec<String>>>,
    command: Option<Spanned<Vec<String>>>,
    ready_ms: Option<Spanned<u64>>,
    restarts: Option<Spanned<u64>>,
    restart_interval_ms: Option<Spanned<u64>>,
}

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
}

/// What may be there once only, in all groups.
#[derive(Default)]
struct Taken {
    volumes: BTreeMap<String, String>,
    mount_points: BTreeSet<PathBuf>,
    addresses: BTreeSet<IpAddr>,
}

pub(super) fn groups(
    place: &Place<'_>,
    table: &Spanned<BTreeMap<String, GroupTable>>,
    nodes: &[&String],
) -> Result<Vec<Group>, ConfigError> {
    let mut taken = Taken::default();
    let mut groups = Vec::new();
    for (name, group) in table.get_ref() {
        if !volume_name_is_legal(name) {
            let at = &group.volumes;
            return Err(place.value_of(at, "groups.NAME", name.clone(), legal_name()));
        }
        let volumes = volumes(place, name, group, &mut taken)?;
        let resources = resources(place, group, &mut taken)?;
        let mut policy = Policy::new(Vec::new());
        for table in &group.resources {
            policy
                .resources
                .push(resource_policy(place, table.get_ref())?);
        }
        group_policy(place, group, &mut policy)?;
        groups.push(Group {
            name: name.clone(),
            volumes,
            nodes: preferred(place, group, nodes)?,
            resources,
            policy,
        });
    }
    if groups.is_empty() {
        let allowed = "at least one [groups.NAME]".to_string();
        return Err(place.value_of(table, "groups", "{}".to_string(), allowed));
    }
    Ok(groups)
}

fn legal_name() -> String {
    "up to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or a digit".to_string()
}

fn volumes(
    place: &Place<'_>,
    name: &str,
    group: &GroupTable,
    taken: &mut Taken,
) -> Result<Vec<String>, ConfigError> {
    let volumes = group.volumes.get_ref();
    if volumes.is_empty() {
        let allowed = "the name of at least one volume".to_string();
        return Err(place.value_of(&group.volumes, "volumes", "[]".to_string(), allowed));
    }
    for volume in volumes {
        if let Some(owner) = taken.volumes.insert(volume.clone(), name.to_string()) {
            let allowed = format!("a volume belongs to one group; this one is in {owner:?}");
            return Err(place.value_of(&group.volumes, "volumes", volume.clone(), allowed));
        }
    }
    Ok(volumes.clone())
}

fn preferred(
    place: &Place<'_>,
    group: &GroupTable,
    nodes: &[&String],
) -> Result<Vec<String>, ConfigError> {
    let all: BTreeSet<&String> = nodes.iter().copied().collect();
    let Some(given) = &group.nodes else {
        return Ok(nodes.iter().map(|name| (*name).clone()).collect());
    };
    let named: BTreeSet<&String> = given.get_ref().iter().collect();
    if named != all || given.get_ref().len() != all.len() {
        let allowed = format!("both nodes, the preferred one first: {all:?} in any order");
        let value = format!("{:?}", given.get_ref());
        return Err(place.value_of(given, "nodes", value, allowed));
    }
    Ok(given.get_ref().clone())
}

fn group_policy(
    place: &Place<'_>,
    group: &GroupTable,
    policy: &mut Policy,
) -> Result<(), ConfigError> {
    let times = [
        (&group.failovers_within_ms, "failovers_within_ms"),
        (&group.hard_stop_ms, "hard_stop_ms"),
        (&group.doubt_grace_ms, "doubt_grace_ms"),
    ];
    for (place_of, (value, key)) in [
        &mut policy.failovers_within,
        &mut policy.hard_stop,
        &mut policy.doubt_grace,
    ]
    .into_iter()
    .zip(times)
    {
        *place_of = time(place, value.as_ref(), key)?.unwrap_or(*place_of);
    }
    let failovers = count(place, group.failovers_max.as_ref(), "failovers_max")?;
    policy.failovers_max = failovers.unwrap_or(policy.failovers_max);
    if let Some(given) = &group.stop_failure {
        policy.stop_failure = match given.get_ref().as_str() {
            "fence" => StopFailure::Fence,
            "hold" => StopFailure::Hold,
            _ => {
                let allowed = "\"fence\" or \"hold\"".to_string();
                return Err(place.value(given, "stop_failure", allowed));
            }
        };
    }
    Ok(())
}

fn resource_policy(
    place: &Place<'_>,
    table: &ResourceTable,
) -> Result<ResourcePolicy, ConfigError> {
    let default = ResourcePolicy::default();
    let start = time(place, table.start_timeout_ms.as_ref(), "start_timeout_ms")?;
    let stop = time(place, table.stop_timeout_ms.as_ref(), "stop_timeout_ms")?;
    let retries = count(place, table.retries.as_ref(), "retries")?;
    Ok(ResourcePolicy {
        start_timeout: start.unwrap_or(default.start_timeout),
        stop_timeout: stop.unwrap_or(default.stop_timeout),
        retries: retries.unwrap_or(default.retries),
    })
}

fn time(
    place: &Place<'_>,
    value: Option<&Spanned<u64>>,
    key: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(value) = value else {
        return Ok(None);
    };
    if !(TIME_MS_MIN..=TIME_MS_MAX).contains(value.get_ref()) {
        let allowed = format!("{TIME_MS_MIN} to {TIME_MS_MAX} milliseconds");
        return Err(place.value(value, key, allowed));
    }
    Ok(Some(Duration::from_millis(*value.get_ref())))
}

fn count(
    place: &Place<'_>,
    value: Option<&Spanned<u64>>,
    key: &'static str,
) -> Result<Option<u32>, ConfigError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match u32::try_from(*value.get_ref()) {
        Ok(count) if u64::from(count) <= COUNT_MAX => Ok(Some(count)),
        Ok(_) | Err(_) => Err(place.value(value, key, format!("0 to {COUNT_MAX}"))),
    }
}

fn resources(
    place: &Place<'_>,
    group: &GroupTable,
    taken: &mut Taken,
) -> Result<Vec<Resource>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut resources = Vec::new();
    for (index, table) in group.resources.iter().enumerate() {
        let name = &table.get_ref().name;
        if index == RESOURCES_MAX {
            let allowed = format!("at most {RESOURCES_MAX} resources in a group");
            return Err(place.value(name, "resources", allowed));
        }
        if !volume_name_is_legal(name.get_ref()) {
            return Err(place.value(name, "name", legal_name()));
        }
        if !names.insert(name.get_ref().clone()) {
            let allowed = "another name: the group has a resource of this one".to_string();
            return Err(place.value(name, "name", allowed));
        }
        let reader = Reader {
            place,
            at: table,
            table: table.get_ref(),
        };
        resources.push(Resource {
            name: name.get_ref().clone(),
            kind: reader.kind(group, taken)?,
        });
    }
    Ok(resources)
}

/// Reads one resource.
struct Reader<'a> {
    place: &'a Place<'a>,
    at: &'a Spanned<ResourceTable>,
    table: &'a ResourceTable,
}

impl Reader<'_> {
    fn kind(&self, group: &GroupTable, taken: &mut Taken) -> Result<Kind, ConfigError> {
        let kind = &self.table.kind;
        let keys: &[&str] = match kind.get_ref().as_str() {
            "filesystem" => &[
                "volume",
                "type",
                "mount_point",
                "options",
                "fsck",
                "kill_users",
            ],
            "floating_ip" => &["address", "interface"],
            "exec" => &["start", "stop", "check"],
            "program" => &["command", "ready_ms", "restarts", "restart_interval_ms"],
            _ => return Err(self.place.value(kind, "kind", KINDS.to_string())),
        };
        for (key, at) in self.given() {
            if !keys.contains(&key) {
                let name = kind.get_ref();
                let keys = keys.join(", ");
                let allowed = format!("a resource of kind {name:?} has {COMMON}, {keys}");
                return Err(self
                    .place
                    .refuse_at(at.start, key, self.place.at(at), allowed));
            }
        }
        match kind.get_ref().as_str() {
            "filesystem" => self.file_system(group, taken).map(Kind::FileSystem),
            "floating_ip" => self.floating_ip(taken).map(Kind::FloatingIp),
            "exec" => self.exec().map(Kind::Exec),
            _ => self.program().map(Kind::Program),
        }
    }

    /// The keys of single kinds that are there, and where.
    fn given(&self) -> Vec<(&'static str, Range<usize>)> {
        type Given = Option<(&'static str, Range<usize>)>;
        fn at<T>(key: &'static str, value: Option<&Spanned<T>>) -> Given {
            value.map(|value| (key, value.span()))
        }
        let table = self.table;
        let given = [
            at("volume", table.volume.as_ref()),
            at("type", table.file_system.as_ref()),
            at("mount_point", table.mount_point.as_ref()),
            at("options", table.options.as_ref()),
            at("fsck", table.fsck.as_ref()),
            at("kill_users", table.kill_users.as_ref()),
            at("address", table.address.as_ref()),
            at("interface", table.interface.as_ref()),
            at("start", table.start.as_ref()),
            at("stop", table.stop.as_ref()),
            at("check", table.check.as_ref()),
            at("command", table.command.as_ref()),
            at("ready_ms", table.ready_ms.as_ref()),
            at("restarts", table.restarts.as_ref()),
            at("restart_interval_ms", table.restart_interval_ms.as_ref()),
        ];
        given.into_iter().flatten().collect()
    }

    fn needed<'a, T>(
        &self,
        value: Option<&'a Spanned<T>>,
        key: &'static str,
        allowed: &str,
    ) -> Result<&'a Spanned<T>, ConfigError> {
        let start = self.at.span().start;
        value.ok_or_else(|| {
            self.place
                .refuse_at(start, key, "(missing)", allowed.to_string())
        })
    }

    fn one_of<'a>(
        &self,
        value: &'a Spanned<String>,
        key: &'static str,
        allowed: &[&str],
    ) -> Result<&'a str, ConfigError> {
        if allowed.contains(&value.get_ref().as_str()) {
            return Ok(value.get_ref());
        }
        Err(self.place.value(value, key, format!("one of {allowed:?}")))
    }

    fn file_system(
        &self,
        group: &GroupTable,
        taken: &mut Taken,
    ) -> Result<FileSystem, ConfigError> {
        let owned = group.volumes.get_ref();
        let allowed = format!("a volume of this group, {owned:?}");
        let volume = self.needed(self.table.volume.as_ref(), "volume", &allowed)?;
        if !owned.contains(volume.get_ref()) {
            return Err(self.place.value(volume, "volume", allowed));
        }
        let allowed = format!("one of {FILE_SYSTEMS:?}");
        let kind = self.needed(self.table.file_system.as_ref(), "type", &allowed)?;
        let kind = self.one_of(kind, "type", &FILE_SYSTEMS)?;
        let fsck = match &self.table.fsck {
            None => Fsck::Never,
            Some(given) => match self.one_of(given, "fsck", &["never", "auto"])? {
                "auto" if kind != "ext4" => {
                    let allowed = format!("\"never\": {kind} replays its journal when mounted");
                    return Err(self.place.value(given, "fsck", allowed));
                }
                "auto" => Fsck::Auto,
                _ => Fsck::Never,
            },
        };
        let kills = self.table.kill_users.as_ref();
        let options = self.table.options.as_ref();
        Ok(FileSystem {
            volume: volume.get_ref().clone(),
            kind: kind.to_string(),
            mount_point: self.mount_point(taken)?,
            options: options.map_or_else(String::new, |options| options.get_ref().clone()),
            fsck,
            users: match kills.is_some_and(|kills| *kills.get_ref()) {
                true => Users::Kill,
                false => Users::Name,
            },
        })
    }

    fn mount_point(&self, taken: &mut Taken) -> Result<PathBuf, ConfigError> {
        let allowed = "an absolute path other than /, without \"..\"";
        let given = self.needed(self.table.mount_point.as_ref(), "mount_point", allowed)?;
        // Without double or trailing slashes: it is compared with what the kernel says.
        let path: PathBuf = Path::new(given.get_ref()).components().collect();
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || path.parent().is_none() || !path.components().all(plain) {
            return Err(self.place.value(given, "mount_point", allowed.to_string()));
        }
        if !taken.mount_points.insert(path.clone()) {
            let allowed = "a path where no other resource mounts".to_string();
            return Err(self.place.value(given, "mount_point", allowed));
        }
        Ok(path)
    }

    fn floating_ip(&self, taken: &mut Taken) -> Result<FloatingIp, ConfigError> {
        let allowed = "an address and its network's length, like \"10.0.0.20/24\"";
        let given = self.needed(self.table.address.as_ref(), "address", allowed)?;
        let refuse = |allowed: &str| Err(self.place.value(given, "address", allowed.to_string()));
        let parts = given.get_ref().split_once('/');
        let address = parts.and_then(|(address, _)| address.parse::<IpAddr>().ok());
        let prefix = parts.and_then(|(_, prefix)| prefix.parse::<u8>().ok());
        let (Some(address), Some(prefix)) = (address, prefix) else {
            return refuse(allowed);
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > bits {
            return refuse(allowed);
        }
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return refuse("an address that machines can reach");
        }
        if !taken.addresses.insert(address) {
            return refuse("an address that no other resource has");
        }
        let interface = self.table.interface.as_ref();
        Ok(FloatingIp {
            address,
            prefix,
            interface: interface.map(|name| name.get_ref().clone()),
        })
    }

    fn exec(&self) -> Result<Exec, ConfigError> {
        let allowed = "a list of a program, with its absolute path, and its arguments";
        let start = self.needed(self.table.start.as_ref(), "start", allowed)?;
        let optional = |value: Option<&Spanned<Vec<String>>>, key| {
            value.map(|value| self.command(value, key)).transpose()
        };
        Ok(Exec {
            start: self.command(start, "start")?,
            stop: optional(self.table.stop.as_ref(), "stop")?,
            check: optional(self.table.check.as_ref(), "check")?,
        })
    }

    fn program(&self) -> Result<Settings, ConfigError> {
        let allowed = "a list of a program, with its absolute path, and its arguments";
        let command = self.needed(self.table.command.as_ref(), "command", allowed)?;
        let ready = time(self.place, self.table.ready_ms.as_ref(), "ready_ms")?;
        let interval = self.table.restart_interval_ms.as_ref();
        let interval = time(self.place, interval, "restart_interval_ms")?;
        let restarts = count(self.place, self.table.restarts.as_ref(), "restarts")?;
        let restarts = restarts.and_then(|restarts| usize::try_from(restarts).ok());
        Ok(Settings {
            command: self.command(command, "command")?,
            ready: ready.unwrap_or(READY),
            restarts: restarts.unwrap_or(RESTARTS),
            restart_interval: interval.unwrap_or(RESTART_INTERVAL),
        })
    }

    fn command(
        &self,
        command: &Spanned<Vec<String>>,
        key: &'static str,
    ) -> Result<Vec<String>, ConfigError> {
        let words = command.get_ref();
        let absolute = words.first().is_some_and(|word| word.starts_with('/'));
        if absolute && !words.iter().any(|word| word.contains('\0')) {
            return Ok(words.clone());
        }
        let allowed = "a list of a program, with its absolute path, and its arguments";
        let value = format!("{words:?}");
        Err(self
            .place
            .value_of(command, key, value, allowed.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const GOOD: &str = r#"version = 1
[nodes.node1]
interconnects = ["10.0.0.1:7421"]
[nodes.node2]
interconnects = ["10.0.0.2:7421"]

[groups.pg]
volumes = ["data"]
nodes = ["node2", "node1"]
hard_stop_ms = 3000
stop_failure = "hold"

[[groups.pg.resources]]
kind = "filesystem"
name = "fs"
volume = "data"
type = "ext4"
mount_point = "/srv//data/"
options = "noatime"
fsck = "auto"
kill_users = true

[[groups.pg.resources]]
kind = "floating_ip"
name = "ip"
address = "10.0.0.20/24"
interface = "eth0"

[[groups.pg.resources]]
kind = "exec"
name = "prepare"
start = ["/usr/bin/prepare", "--now"]
start_timeout_ms = 5000
retries = 0

[[groups.pg.resources]]
kind = "program"
name = "app"
command = ["/usr/bin/app"]
restarts = 2

[groups.web]
volumes = ["www"]
resources = [{ kind = "exec", name = "x", start = ["/bin/true"] }]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("c.toml"), text, "node2").map_err(|error| error.to_string())
    }

    #[test]
    fn resources_are_read_in_their_order() {
        let config = parse(GOOD).expect("good");
        let group = &config.groups[0];
        assert_eq!(group.nodes, ["node2", "node1"]);
        assert_eq!(group.policy.hard_stop, Duration::from_secs(3));
        assert_eq!(group.policy.stop_failure, StopFailure::Hold);
        let names: Vec<&str> = group
            .resources
            .iter()
            .map(|own| own.name.as_str())
            .collect();
        assert_eq!(names, ["fs", "ip", "prepare", "app"]);
        let Kind::FileSystem(fs) = &group.resources[0].kind else {
            panic!("{:?}", group.resources[0]);
        };
        assert_eq!(fs.mount_point.to_str(), Some("/srv/data"));
        assert_eq!((fs.fsck, fs.users), (Fsck::Auto, Users::Kill));
        let policy = &group.policy.resources[2];
        assert_eq!(
            (policy.start_timeout, policy.retries),
            (Duration::from_secs(5), 0)
        );
        assert_eq!(policy.stop_timeout, Duration::from_secs(60));
        assert_eq!(config.groups[1].nodes, ["node1", "node2"]);
        assert_eq!(config.groups[1].resources.len(), 1);
    }

    #[test]
    fn every_error_of_a_resource_names_the_line_and_what_would_be_right() {
        let command = "a list of a program, with its absolute path, and its arguments";
        let legal = legal_name();
        #[rustfmt::skip]
        let cases = [
            ("[groups.web]", "[groups.\"W B\"]", 43, format!("groups.NAME = \"W B\" is not allowed: {legal}")),
            ("nodes = [\"node2\", \"node1\"]", "nodes = [\"node2\"]", 9, "nodes = \"[\\\"node2\\\"]\" is not allowed: both nodes, the preferred one first: {\"node1\", \"node2\"} in any order".to_string()),
            ("hard_stop_ms = 3000", "hard_stop_ms = 50", 10, "hard_stop_ms = \"50\" is not allowed: 100 to 86400000 milliseconds".to_string()),
            ("\"hold\"", "\"pray\"", 11, "stop_failure = \"pray\" is not allowed: \"fence\" or \"hold\"".to_string()),
            ("kind = \"filesystem\"", "kind = \"nfs\"", 14, format!("kind = \"nfs\" is not allowed: {KINDS}")),
            ("name = \"fs\"", "name = \"../fs\"", 15, format!("name = \"../fs\" is not allowed: {legal}")),
            ("name = \"ip\"", "name = \"fs\"", 25, "name = \"fs\" is not allowed: another name: the group has a resource of this one".to_string()),
            ("volume = \"data\"", "volume = \"www\"", 16, "volume = \"www\" is not allowed: a volume of this group, [\"data\"]".to_string()),
            ("volume = \"data\"\n", "", 13, "volume = \"(missing)\" is not allowed: a volume of this group, [\"data\"]".to_string()),
            ("\"ext4\"", "\"ntfs\"", 17, "type = \"ntfs\" is not allowed: one of [\"ext4\", \"xfs\", \"btrfs\"]".to_string()),
            ("\"ext4\"", "\"xfs\"", 20, "fsck = \"auto\" is not allowed: \"never\": xfs replays its journal when mounted".to_string()),
            ("fsck = \"auto\"", "fsck = \"always\"", 20, "fsck = \"always\" is not allowed: one of [\"never\", \"auto\"]".to_string()),
            ("\"/srv//data/\"", "\"/\"", 18, "mount_point = \"/\" is not allowed: an absolute path other than /, without \"..\"".to_string()),
            ("\"/srv//data/\"", "\"/a/../b\"", 18, "mount_point = \"/a/../b\" is not allowed: an absolute path other than /, without \"..\"".to_string()),
            ("interface = \"eth0\"", "fsck = \"auto\"", 27, format!("fsck = \"\\\"auto\\\"\" is not allowed: a resource of kind \"floating_ip\" has {COMMON}, address, interface")),
            ("\"10.0.0.20/24\"", "\"10.0.0.20\"", 26, "address = \"10.0.0.20\" is not allowed: an address and its network's length, like \"10.0.0.20/24\"".to_string()),
            ("\"10.0.0.20/24\"", "\"10.0.0.20/33\"", 26, "address = \"10.0.0.20/33\" is not allowed: an address and its network's length, like \"10.0.0.20/24\"".to_string()),
            ("\"10.0.0.20/24\"", "\"127.0.0.1/8\"", 26, "address = \"127.0.0.1/8\" is not allowed: an address that machines can reach".to_string()),
            ("[\"/usr/bin/prepare\", \"--now\"]", "[\"prepare\"]", 32, format!("start = \"[\\\"prepare\\\"]\" is not allowed: {command}")),
            ("[\"/usr/bin/app\"]", "[]", 39, format!("command = \"[]\" is not allowed: {command}")),
            ("command = [\"/usr/bin/app\"]", "", 36, format!("command = \"(missing)\" is not allowed: {command}")),
            ("start_timeout_ms = 5000", "start_timeout_ms = 0", 33, "start_timeout_ms = \"0\" is not allowed: 100 to 86400000 milliseconds".to_string()),
            ("retries = 0", "retries = 5000", 34, "retries = \"5000\" is not allowed: 0 to 1000".to_string()),
            ("[\"www\"]", "[\"data\"]", 43, "volumes = \"data\" is not allowed: a volume belongs to one group; this one is in \"pg\"".to_string()),
        ];
        for (from, to, line, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            let text = GOOD.replacen(from, to, 1);
            let expected = format!("c.toml, line {line}: {expected}");
            assert_eq!(parse(&text).expect_err(to), expected);
        }
        let unknown = GOOD.replace("restarts = 2", "restart = 2");
        let error = parse(&unknown).expect_err("unknown");
        assert!(
            error.starts_with("c.toml, line 40: unknown field `restart`"),
            "{error}"
        );
    }

    #[test]
    fn two_resources_share_neither_an_address_nor_a_mount_point() {
        let more = |table: &str| parse(&format!("{GOOD}\n[[groups.pg.resources]]\n{table}"));
        let address = "kind = \"floating_ip\"\nname = \"two\"\naddress = \"10.0.0.20/32\"\n";
        let error = more(address).expect_err("twice");
        assert!(
            error.ends_with("an address that no other resource has"),
            "{error}"
        );
        let mount = "kind = \"filesystem\"\nname = \"two\"\nvolume = \"data\"\ntype = \"xfs\"\nmount_point = \"/srv/data\"\n";
        let error = more(mount).expect_err("twice");
        assert!(
            error.ends_with("a path where no other resource mounts"),
            "{error}"
        );
    }
}
