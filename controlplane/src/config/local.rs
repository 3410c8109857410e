//! What does not fit this machine: warnings, since the file is the same on both nodes and may be looked at anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::net::if_::if_nameindex;

use super::advice::{Told, key_of, told};
use super::findings::{Finding, Findings};
use super::resources::{Group, Kind};
use super::{Cluster, RegisterKeeper};
use crate::monitors;
use crate::resources::address::same_network;
use crate::resources::{FloatingIp, Limit, Systemd, netlink};

/// `systemctl` has so long to answer.
const ASK_TIME: Duration = Duration::from_secs(2);

/// The machine on which the file is looked at, as one of the nodes.
#[derive(Clone, Debug)]
pub struct Here {
    /// Which node.
    pub node: String,
    /// The addresses of its interfaces and the lengths of their networks; `None` if they cannot be seen.
    pub addresses: Option<Vec<(IpAddr, u8)>>,
    /// The names of its interfaces, the same.
    pub interfaces: Option<BTreeSet<String>>,
}

impl Here {
    /// This machine.
    pub fn of(node: &str) -> Self {
        let addresses = netlink::list().ok().map(|list| {
            let both = list
                .iter()
                .map(|assigned| (assigned.address, assigned.prefix));
            both.collect()
        });
        let interfaces = if_nameindex().ok().map(|list| {
            let names = list
                .iter()
                .map(|own| own.name().to_string_lossy().into_owned());
            names.collect()
        });
        Self {
            node: node.to_string(),
            addresses,
            interfaces,
        }
    }
}

pub(super) fn warn(
    here: &Here,
    cluster: &Cluster,
    places: &BTreeMap<String, Range<usize>>,
    findings: &mut Findings,
) {
    let mut found = interconnects(here, cluster);
    found.extend(etcd_files(cluster));
    found.extend(watchdog(here, cluster));
    for group in &cluster.groups {
        found.extend(resources(here, group));
    }
    for (key, what, why, advice) in found {
        let place = places.get(&key).cloned();
        findings.add(Finding::warning(key, place, what).why(why).advice(advice));
    }
}

fn interconnects(here: &Here, cluster: &Cluster) -> Vec<Told> {
    let Some(addresses) = &here.addresses else {
        return Vec::new();
    };
    let Some(node) = cluster.nodes.iter().find(|node| node.name == here.node) else {
        return Vec::new();
    };
    let own = |wanted: &SocketAddr| addresses.iter().any(|(ip, _)| *ip == wanted.ip());
    let listed = node.interconnects.iter().enumerate();
    let missing = listed.filter(|(_, address)| !own(address));
    missing
        .map(|(index, address)| {
            told(
                format!("nodes.{}.interconnects[{index}]", key_of(&node.name)),
                format!(
                    "no interface of this machine, {}, has {}",
                    node.name,
                    address.ip()
                ),
                "lockstepd cannot listen there, and does not start",
                "give the address to an interface, or correct it",
            )
        })
        .collect()
}

fn etcd_files(cluster: &Cluster) -> Vec<Told> {
    let Some(RegisterKeeper::Etcd {
        files: Some(files), ..
    }) = &cluster.keeper
    else {
        return Vec::new();
    };
    let identity = files.identity.as_ref();
    let all = [
        ("authority", Some(&files.authority)),
        ("certificate", identity.map(|(certificate, _)| certificate)),
        ("key", identity.map(|(_, key)| key)),
    ];
    let mut found = Vec::new();
    for (name, path) in all {
        let Some(path) = path else {
            continue;
        };
        if is_missing(path) {
            found.push(told(
                format!("etcd.{name}"),
                format!("there is no file {} on this machine", path.display()),
                "without it lockstepd does not start",
                "put it there on both nodes",
            ));
        } else if path.is_relative() {
            found.push(told(
                format!("etcd.{name}"),
                format!("{} is a relative path", path.display()),
                "it is looked for where lockstepd is started",
                "write it with a slash first",
            ));
        }
    }
    found
}

fn watchdog(here: &Here, cluster: &Cluster) -> Option<Told> {
    let node = cluster.nodes.iter().find(|node| node.name == here.node)?;
    let device = &node.watchdog.as_ref()?.device;
    is_missing(device).then(|| {
        told(
            "watchdog",
            format!("there is no device {} on this machine", device.display()),
            "services that do not stop in time would live on; lockstepd runs without it and says so",
            "load the driver of the machine's watchdog (or softdog), or name its device in `nodes.NAME.watchdog`",
        )
    })
}

/// What may not be seen is not missing.
fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn resources(here: &Here, group: &Group) -> Vec<Told> {
    let mut found = Vec::new();
    let mounts: Vec<&Path> = group
        .resources
        .iter()
        .filter_map(|resource| match &resource.kind {
            Kind::FileSystem(mount) => Some(mount.mount_point.as_path()),
            Kind::FloatingIp(_) | Kind::Exec(_) | Kind::Program(_) | Kind::Systemd(_) => None,
        })
        .collect();
    for resource in &group.resources {
        let (group, name) = (key_of(&group.name), key_of(&resource.name));
        let key = |last: &str| format!("groups.{group}.resources.{name}.{last}");
        match &resource.kind {
            Kind::FileSystem(_) => {}
            Kind::Systemd(systemd) => found.extend(unit(systemd, &key)),
            Kind::FloatingIp(ip) => found.extend(address(here, ip, &key)),
            Kind::Exec(exec) => {
                let commands = [
                    ("start", Some(&exec.start)),
                    ("stop", exec.stop.as_ref()),
                    ("check", exec.check.as_ref()),
                ];
                for (last, command) in commands {
                    let program = command.and_then(|command| command.first());
                    let told = program.and_then(|program| runnable(program, &mounts));
                    found.extend(told.map(|tell| tell(key(&format!("{last}[0]")), STARTS)));
                }
            }
            Kind::Program(program) => {
                let program = program.command.first();
                let told = program.and_then(|program| runnable(program, &mounts));
                found.extend(told.map(|tell| tell(key("command[0]"), STARTS)));
            }
        }
    }
    for monitor in &group.monitors {
        let (group, name) = (key_of(&group.name), key_of(&monitor.name));
        let key = |last: &str| format!("groups.{group}.monitors.{name}.{last}");
        match &monitor.kind {
            monitors::Kind::Script(script) => {
                let told = script.command.first();
                let told = told.and_then(|program| runnable(program, &mounts));
                found.extend(told.map(|tell| tell(key("command[0]"), LOOKS)));
            }
            monitors::Kind::Nic(nic) => found.extend(interface(here, &nic.interface, &key)),
            monitors::Kind::Ip(_) | monitors::Kind::Mirror(_) => {}
        }
    }
    found
}

const STARTS: &str = "the resource would fail as soon as the group starts here";
const LOOKS: &str = "the monitor would fail as soon as the group runs here";

/// Why a program cannot be run here. One below a mount of the group is only there when the group runs.
fn runnable(program: &str, mounts: &[&Path]) -> Option<impl FnOnce(String, &str) -> Told> {
    let path = Path::new(program);
    if mounts.iter().any(|mount| path.starts_with(mount)) {
        return None;
    }
    let what = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no {program:?} on this machine")
        }
        // What may not be seen may be right.
        Err(_) => return None,
        Ok(found) if !found.is_file() => format!("{program:?} is no file"),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            format!("{program:?} is not executable")
        }
        Ok(_) => return None,
    };
    Some(move |key: String, why: &str| {
        told(
            key,
            what,
            why,
            "put the program there, executable, on both nodes",
        )
    })
}

fn address(here: &Here, ip: &FloatingIp, key: &dyn Fn(&str) -> String) -> Option<Told> {
    if let Some(name) = &ip.interface {
        return interface(here, name, key);
    }
    let addresses = here.addresses.as_ref()?;
    let near = |(own, prefix): &(IpAddr, u8)| {
        *own != ip.address && same_network(*own, ip.address, *prefix)
    };
    (!addresses.iter().any(near)).then(|| {
        told(
            key("address"),
            format!(
                "no interface of this machine has an address in the network of {}",
                ip.address
            ),
            "without `interface` the address goes where its network is",
            "add interface = \"NAME\", or correct the address",
        )
    })
}

fn interface(here: &Here, name: &String, key: &dyn Fn(&str) -> String) -> Option<Told> {
    let known = here.interfaces.as_ref()?;
    (!known.contains(name)).then(|| {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        told(
            key("interface"),
            format!("this machine has no interface {name:?}"),
            format!("its interfaces are: {}", names.join(", ")),
            "correct the name; it has to be the same on both nodes",
        )
    })
}

/// Told only if `systemctl` says so at once: where there is none nobody can say.
fn unit(systemd: &Systemd, key: &dyn Fn(&str) -> String) -> Vec<Told> {
    let limit = Limit::new(ASK_TIME, Arc::default());
    let unit = &systemd.unit;
    let enabled = systemd.is_enabled(&limit).map(|said| {
        told(
            key("unit"),
            format!("the unit {unit} is {said} on this machine"),
            "systemd would start it at boot, beside the group",
            format!("`systemctl disable {unit}`, on both nodes"),
        )
    });
    let unloadable = systemd.is_unloadable(&limit).map(|said| {
        told(
            key("unit"),
            format!("systemd cannot load the unit {unit} on this machine: {said}"),
            STARTS,
            format!("`systemctl status {unit}` says why; it has to be there, under this name, on both nodes"),
        )
    });
    enabled.into_iter().chain(unloadable).collect()
}
