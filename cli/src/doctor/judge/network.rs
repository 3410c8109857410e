//! Addresses, links, routes, ports.

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Cluster, Facts, Holder, Nic, Path, Port};
use crate::doctor::{Area, Check, Fault, Outcome};

/// `operstate` of an interface over which packets go; `unknown` is what those without a carrier say, such as loopback.
const STATES_GOOD: [&str; 2] = ["up", "unknown"];

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let gap = gap(facts);
    if facts.paths.is_empty() {
        let why = "no networks are configured on this machine yet".to_string();
        let outcome = gap.unwrap_or(Outcome::Nothing(why));
        return ["address", "link", "route", "port"]
            .map(|name| Check::new(Area::Network, name, outcome.clone()))
            .to_vec();
    }
    let gap = gap.map(|outcome| Check::new(Area::Network, "address", outcome));
    let mut checks: Vec<Check> = gap.into_iter().collect();
    for (index, path) in facts.paths.iter().enumerate() {
        let at = |name, place: String, outcome| {
            Check::new(Area::Network, name, outcome).at(format!("{}, {place}", path.what))
        };
        let nic = match &path.nic {
            Err(why) => {
                checks.push(at("address", path.local.ip().to_string(), unseen(why)));
                continue;
            }
            Ok(None) => {
                checks.push(at("address", path.local.ip().to_string(), absent(path)));
                continue;
            }
            Ok(Some(nic)) => nic,
        };
        checks.push(at("address", path.local.ip().to_string(), address(nic)));
        checks.push(at("link", nic.name.clone(), link(path, nic, &facts.paths)));
        let earlier = &facts.paths[..index];
        checks.push(at(
            "route",
            path.peer.ip().to_string(),
            route(path, earlier),
        ));
    }
    let is_root = facts
        .system
        .rights
        .as_ref()
        .is_ok_and(|rights| rights.user == 0);
    for (index, port) in facts.ports.iter().enumerate() {
        let place = format!("{}, {} {}", port.what, port.protocol.name(), port.address);
        let others = facts.ports.iter().enumerate();
        let mut twins = others.filter(|(other, found)| *other != index && is_one(port, found));
        let outcome = match twins.next() {
            Some((_, twin)) => wanted_twice(twin),
            None => port_of(port, is_root),
        };
        checks.push(Check::new(Area::Network, "port", outcome).at(place));
    }
    checks
}

/// Networks that are not seen because what names them is not.
fn gap(facts: &Facts) -> Option<Outcome> {
    let why = match &facts.cluster {
        Cluster::Unseen { .. } => {
            Some("the configuration, which has the interconnects, was not read")
        }
        Cluster::Wrong { .. } => {
            Some("the configuration, which has the interconnects, cannot be used")
        }
        Cluster::Absent { .. } | Cluster::Node { .. } => None,
    };
    why.or(facts.unlisted.as_deref()).map(unseen)
}

/// Whether no two can listen on both.
fn is_one(port: &Port, other: &Port) -> bool {
    let (own, found) = (port.address, other.address);
    let any = own.ip().is_unspecified() || found.ip().is_unspecified();
    let same_ip = own.ip() == found.ip() || (any && own.is_ipv4() == found.is_ipv4());
    port.protocol == other.protocol && own.port() == found.port() && same_ip
}

fn wanted_twice(twin: &Port) -> Outcome {
    error(
        "LS6150",
        format!("the {} is to have it as well", twin.what),
        "only one of both daemons can listen there; the other one does not start",
        "give one of them another port, in its files on both nodes",
    )
}

fn absent(path: &Path) -> Outcome {
    error(
        "LS6147",
        format!("no interface of this machine has {}", path.local.ip()),
        "the daemon cannot listen there, and does not start",
        "give the address to an interface, for every boot; or correct it in the configuration",
    )
}

fn address(nic: &Nic) -> Outcome {
    if nic.is_duplicate {
        return error(
            "LS6147",
            format!("another machine has the address of {} as well", nic.name),
            "the kernel does not use it",
            "give one of them another address",
        );
    }
    good(format!("on {}", nic.name))
}

fn is_up(path: &Path) -> bool {
    let nic = path.nic.as_ref().ok().and_then(Option::as_ref);
    let state = nic.and_then(|nic| nic.state.as_deref().ok());
    state.is_some_and(|state| STATES_GOOD.contains(&state))
}

fn link(path: &Path, nic: &Nic, all: &[Path]) -> Outcome {
    let state = match &nic.state {
        Ok(state) => state,
        Err(why) => return unseen(why),
    };
    if is_up(path) {
        return good(match state.as_str() {
            "unknown" => format!("{} has no link to tell of", nic.name),
            state => format!("{} is {state}", nic.name),
        });
    }
    let other = all
        .iter()
        .any(|other| other.set == path.set && is_up(other));
    let fault = Fault::new(
        "LS6148",
        format!("{} has no link (it is {state})", nic.name),
        if other {
            "another path stands in for it; the next failure would not be survived"
        } else {
            "it is the last path: the other node cannot be reached"
        },
        "see cable, switch and `ip link`; the interface has to be up",
    );
    if other {
        Outcome::Warning(fault)
    } else {
        Outcome::Error(fault)
    }
}

fn route(path: &Path, earlier: &[Path]) -> Outcome {
    let peer = path.peer.ip();
    let by = match &path.route {
        Err(why) => {
            return error(
                "LS6149",
                format!("{peer} cannot be reached from {}: {why}", path.local.ip()),
                "there is no route to the other node from here",
                "correct the address and its prefix length, or add a route",
            );
        }
        Ok(by) => by,
    };
    let twin = earlier
        .iter()
        .find(|other| other.set == path.set && other.route.as_ref() == Ok(by));
    match twin {
        Some(twin) => warning(
            "LS6149",
            format!(
                "the kernel sends to {peer} by {by}, as to {}",
                twin.peer.ip()
            ),
            "two paths then go over one wire, and fail together",
            "put the addresses of each path into a network and an interface of their own, the same on both nodes; `ip route \
             get PEER from LOCAL` shows the way of each",
        ),
        None => good(format!(
            "by {by}; whether the other node answers is not asked"
        )),
    }
}

fn port_of(port: &Port, is_root: bool) -> Outcome {
    const WHY: &str = "the daemon cannot listen there";
    const END: &str = "end that program, or let one of both use another port";
    match &port.holder {
        Err(why) => unseen(why),
        Ok(Holder::Nobody) => good("free"),
        Ok(Holder::Process { pid, name } | Holder::Perhaps { pid, name }) if name == port.owner => {
            match port.pid {
                Some(own) if own != *pid => error(
                    "LS6150",
                    format!(
                        "another {name} (process {pid}) has it, not the volume's own (process {own})"
                    ),
                    WHY,
                    "see whose it is (`ps`), and give one of both another port, in its files on both nodes",
                ),
                Some(_) | None => good(format!("{name} has it")),
            }
        }
        Ok(Holder::Process { pid, name }) => {
            error("LS6150", format!("{name} (process {pid}) has it"), WHY, END)
        }
        Ok(Holder::Perhaps { pid, name }) => unseen(&format!(
            "{name} (process {pid}) has it for IPv6; whether for IPv4 as well, the kernel does not tell"
        )),
        Ok(Holder::Hidden | Holder::Nowhere) if !is_root => {
            unseen("somebody has it; run it as root to see who")
        }
        Ok(Holder::Hidden) => {
            unseen("somebody has it whose processes even root may not look into here")
        }
        Ok(Holder::Nowhere) => error(
            "LS6150",
            "the kernel itself or a process of another namespace has it",
            WHY,
            "look on the machine itself, outside of containers (`ss -lnp`); of the kernel: NFS, iSCSI, WireGuard, a tunnel",
        ),
    }
}
