//! Interfaces, routes and sockets, as the kernel tells of them. Nothing is sent to the other node.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use controlplane::config::Config;
use controlplane::resources::netlink::{self, Assigned};

use super::Root;
use crate::config::VolumeConfig;
use crate::doctor::facts::{Holder, Nic, Path, Port, Protocol, Seen};

/// `st` of a TCP socket that listens.
const LISTENS: &str = "0A";

const CLASS: &str = "sys/class/net";

/// The ways to the other node, and the ports of this one. Each volume comes with its daemon, if one listens at its socket.
pub(super) fn of(
    root: &Root,
    config: Option<&Config>,
    volumes: &[(&VolumeConfig, Option<u32>)],
) -> (Vec<Path>, Vec<Port>) {
    let assigned = netlink::list().map_err(|error| format!("interfaces cannot be listed: {error}"));
    let path = |what: String, set: &str, local: SocketAddr, peer: SocketAddr| Path {
        what,
        set: set.to_string(),
        local,
        peer,
        nic: nic(root, &assigned, local.ip()),
        route: route(root, local.ip(), peer.ip()),
    };
    let mut paths = Vec::new();
    let interconnects = config.map(|config| config.interconnects.as_slice());
    for (index, pair) in interconnects.unwrap_or_default().iter().enumerate() {
        let what = format!("interconnect {}", index + 1);
        paths.push(path(what, "interconnects", pair.local, pair.peer));
    }
    for (volume, _) in volumes {
        let pairs = volume.node.addresses.iter().zip(&volume.peer.addresses);
        for (index, (local, peer)) in pairs.enumerate() {
            let set = format!("mirror link of {}", volume.volume);
            let what = format!("{set}, path {}", index + 1);
            paths.push(path(what, &set, *local, *peer));
        }
    }
    (
        paths,
        ports(root, interconnects.unwrap_or_default(), volumes),
    )
}

fn ports(
    root: &Root,
    interconnects: &[controlplane::heartbeat::Interconnect],
    volumes: &[(&VolumeConfig, Option<u32>)],
) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut add = |what: String, protocol, address, owner, pid| {
        ports.push(Port {
            what,
            protocol,
            address,
            owner,
            pid,
            holder: holder(root, protocol, address),
        });
    };
    let mirrors = || {
        let each = |(volume, _): &(&VolumeConfig, _)| volume.node.addresses.clone();
        volumes.iter().flat_map(each)
    };
    for pair in interconnects {
        add(
            "heartbeats".to_string(),
            Protocol::Udp,
            pair.local,
            "lockstepd",
            None,
        );
        // The door for pushes gives way to a mirror link.
        if !mirrors().any(|own| own == pair.local) {
            add(
                "config push".to_string(),
                Protocol::Tcp,
                pair.local,
                "lockstepd",
                None,
            );
        }
    }
    for (volume, pid) in volumes {
        for address in &volume.node.addresses {
            let what = format!("mirror link of {}", volume.volume);
            add(what, Protocol::Tcp, *address, "ublk-mirror", *pid);
        }
    }
    ports
}

pub(super) fn nic(
    root: &Root,
    assigned: &Seen<Vec<Assigned>>,
    address: IpAddr,
) -> Seen<Option<Nic>> {
    let assigned = assigned.as_ref().map_err(Clone::clone)?;
    let Some(found) = assigned.iter().find(|found| found.address == address) else {
        return Ok(None);
    };
    let name = interface(root, found.interface)
        .ok_or_else(|| format!("/{CLASS} has no interface number {}", found.interface))?;
    Ok(Some(Nic {
        state: root.seen(format!("{CLASS}/{name}/operstate")),
        is_duplicate: found.is_duplicate(),
        name,
    }))
}

fn interface(root: &Root, number: u32) -> Option<String> {
    let number = number.to_string();
    let mut names = root.names(CLASS).into_iter();
    names.find(|name| {
        let own = root.text(format!("{CLASS}/{name}/ifindex"));
        own.is_ok_and(|own| own == number)
    })
}

/// The interface by which the kernel sends from this address of the node to that one of the other node.
fn route(root: &Root, from: IpAddr, to: IpAddr) -> Result<String, String> {
    let number = netlink::route(from, to).map_err(|error| error.to_string())?;
    let name = interface(root, number);
    Ok(name.unwrap_or_else(|| format!("interface {number}")))
}

/// Who listens on an address, by `/proc/net`.
pub(super) fn holder(root: &Root, protocol: Protocol, wanted: SocketAddr) -> Seen<Holder> {
    let files: [&str; 2] = match protocol {
        Protocol::Tcp => ["proc/net/tcp", "proc/net/tcp6"],
        Protocol::Udp => ["proc/net/udp", "proc/net/udp6"],
    };
    for file in files {
        // A machine without IPv6 has no such file.
        if !root.exists(file) {
            continue;
        }
        let text = root.seen(file)?;
        let sockets = text.lines().skip(1);
        let found = sockets
            .filter_map(|line| socket(line, protocol))
            .find(|(own, _)| {
                let is_any = own.ip().is_unspecified();
                own.port() == wanted.port() && (is_any || own.ip() == wanted.ip())
            });
        if let Some((own, inode)) = found {
            // One for IPv6 alone looks alike.
            let is_sure = own.is_ipv4() == wanted.is_ipv4();
            let holder = owner(root, &inode);
            return Ok(if is_sure { holder } else { perhaps(holder) });
        }
    }
    Ok(Holder::Nobody)
}

/// The same of a socket that may be for IPv6 alone.
fn perhaps(holder: Holder) -> Holder {
    match holder {
        Holder::Process { pid, name } | Holder::Perhaps { pid, name } => {
            Holder::Perhaps { pid, name }
        }
        Holder::Nowhere | Holder::Hidden => Holder::Hidden,
        Holder::Nobody => Holder::Nobody,
    }
}

/// A line of `/proc/net/tcp` and the like: where a socket is bound, and its inode.
fn socket(line: &str, protocol: Protocol) -> Option<(SocketAddr, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    match protocol {
        Protocol::Tcp if *state != LISTENS => None,
        Protocol::Tcp | Protocol::Udp => Some((bound(address)?, (*inode).to_string())),
    }
}

/// `0100007F:1CFC`: words in the machine's byte order, the port in the network's.
fn bound(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = if ip.len() == 8 {
        Ipv4Addr::from(word(0)?).into()
    } else {
        let mut bytes = [0; 16];
        for (at, place) in bytes.chunks_exact_mut(4).enumerate() {
            place.copy_from_slice(&word(at)?);
        }
        Ipv6Addr::from(bytes).into()
    };
    Some(SocketAddr::new(ip, port))
}

fn owner(root: &Root, inode: &str) -> Holder {
    let wanted = format!("socket:[{inode}]");
    let mut is_hidden = false;
    for (pid, name) in root.processes() {
        match has_open(&root.path(format!("proc/{pid}/fd")), &wanted) {
            Ok(true) => return Holder::Process { pid, name },
            Ok(false) => {}
            // Others have ended meanwhile.
            Err(error) => is_hidden |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    match is_hidden {
        true => Holder::Hidden,
        false => Holder::Nowhere,
    }
}

fn has_open(descriptors: &std::path::Path, wanted: &str) -> io::Result<bool> {
    for descriptor in fs::read_dir(descriptors)? {
        match fs::read_link(descriptor?.path()) {
            Ok(link) if link.as_os_str() == wanted => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // It was closed meanwhile.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}
