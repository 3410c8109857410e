//! Addresses, links, routes, ports.

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Facts, Holder, Nic, Path, Port};
use crate::doctor::{Area, Check, Fault, Outcome};

/// `operstate` of an interface over which packets go; `unknown` is what those without a carrier say, such as loopback.
const STATES_GOOD: [&str; 2] = ["up", "unknown"];

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    if facts.paths.is_empty() {
        let why = "no networks are configured on this machine yet";
        return ["address", "link", "route", "port"]
            .map(|name| super::nothing(Area::Network, name, why))
            .to_vec();
    }
    let mut checks = Vec::new();
    for path in &facts.paths {
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
        checks.push(at("route", path.peer.ip().to_string(), route(path)));
    }
    for port in &facts.ports {
        let place = format!("{}, {} {}", port.what, port.protocol.name(), port.address);
        checks.push(Check::new(Area::Network, "port", port_of(port)).at(place));
    }
    checks
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

fn route(path: &Path) -> Outcome {
    let (local, peer) = (path.local.ip(), path.peer.ip());
    match &path.route {
        Err(why) => error(
            "LS6149",
            format!("{peer} cannot be reached: {why}"),
            "there is no route to the other node from here",
            "correct the address and its prefix length, or add a route",
        ),
        Ok(from) if *from != local => warning(
            "LS6149",
            format!("the kernel sends to {peer} from {from}, not from {local}"),
            "two paths then go over one wire, and fail together",
            "put the addresses of each path into a network of their own, the same on both nodes",
        ),
        Ok(_) => good("there is a route; whether the other node answers is not asked"),
    }
}

fn port_of(port: &Port) -> Outcome {
    match &port.holder {
        Err(why) => unseen(why),
        Ok(Holder::Nobody) => good("free"),
        Ok(Holder::Process { name, .. }) if name == port.owner => good(format!("{name} has it")),
        Ok(Holder::Process { pid, name }) => error(
            "LS6150",
            format!("{name} (process {pid}) has it"),
            "the daemon cannot listen there",
            "end that program, or let one of both use another port",
        ),
        Ok(Holder::Hidden) => unseen("somebody has it; run it as root to see who"),
    }
}
