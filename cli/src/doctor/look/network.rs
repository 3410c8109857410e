//! Interfaces, routes and sockets. Nothing is sent: a route is what the kernel answers a socket that is connected and never
//! used.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use controlplane::config::Config;
use controlplane::resources::netlink::{self, Assigned};

use super::Root;
use crate::config::VolumeConfig;
use crate::doctor::facts::{Holder, Nic, Path, Port, Protocol, Seen};

/// `st` of a TCP socket that listens.
const LISTENS: &str = "0A";

/// The ways to the other node, and the ports of this one.
pub(super) fn of(
    root: &Root,
    config: Option<&Config>,
    volumes: &[&VolumeConfig],
) -> (Vec<Path>, Vec<Port>) {
    let assigned = netlink::list().map_err(|error| format!("interfaces cannot be listed: {error}"));
    let path = |what: String, set: &str, local: SocketAddr, peer: SocketAddr| Path {
        what,
        set: set.to_string(),
        local,
        peer,
        nic: nic(root, &assigned, local.ip()),
        route: route(peer),
    };
    let mut paths = Vec::new();
    let interconnects = config.map(|config| config.interconnects.as_slice());
    for (index, pair) in interconnects.unwrap_or_default().iter().enumerate() {
        let what = format!("interconnect {}", index + 1);
        paths.push(path(what, "interconnects", pair.local, pair.peer));
    }
    for volume in volumes {
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
    volumes: &[&VolumeConfig],
) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut add = |what: String, protocol, address, owner| {
        ports.push(Port {
            what,
            protocol,
            address,
            owner,
            holder: holder(root, protocol, address),
        });
    };
    let mirrors = || {
        let each = |volume: &&VolumeConfig| volume.node.addresses.clone();
        volumes.iter().flat_map(each)
    };
    for pair in interconnects {
        add(
            "heartbeats".to_string(),
            Protocol::Udp,
            pair.local,
            "lockstepd",
        );
        // The door for pushes gives way to a mirror link.
        if !mirrors().any(|own| own == pair.local) {
            add(
                "config push".to_string(),
                Protocol::Tcp,
                pair.local,
                "lockstepd",
            );
        }
    }
    for volume in volumes {
        for address in &volume.node.addresses {
            let what = format!("mirror link of {}", volume.volume);
            add(what, Protocol::Tcp, *address, "ublk-mirror");
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
    const CLASS: &str = "sys/class/net";
    let index = found.interface.to_string();
    let names = root.names(CLASS).into_iter();
    let mut own = names.filter(|name| {
        let number = root.text(format!("{CLASS}/{name}/ifindex"));
        number.is_ok_and(|number| number == index)
    });
    let name = own
        .next()
        .ok_or_else(|| format!("/{CLASS} has no interface number {index}"))?;
    Ok(Some(Nic {
        state: root.seen(format!("{CLASS}/{name}/operstate")),
        is_duplicate: found.is_duplicate(),
        name,
    }))
}

fn route(peer: SocketAddr) -> Result<IpAddr, String> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let found = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(peer)?;
        socket.local_addr()
    });
    found
        .map(|address| address.ip())
        .map_err(|error| error.to_string())
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
        let inode = sockets
            .filter_map(|line| socket(line, protocol))
            .find_map(|(own, inode)| {
                let is_any = own.ip().is_unspecified();
                (own.port() == wanted.port() && (is_any || own.ip() == wanted.ip()))
                    .then_some(inode)
            });
        if let Some(inode) = inode {
            return Ok(owner(root, &inode));
        }
    }
    Ok(Holder::Nobody)
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
    for (pid, name) in root.processes() {
        let directory = format!("proc/{pid}/fd");
        let open = root.names(&directory).into_iter().any(|descriptor| {
            let link = fs::read_link(root.path(format!("{directory}/{descriptor}")));
            link.is_ok_and(|link| link.as_os_str() == wanted.as_str())
        });
        if open {
            return Holder::Process { pid, name };
        }
    }
    Holder::Hidden
}
