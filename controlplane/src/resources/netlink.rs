//! Addresses of interfaces, asked of and told to the kernel by netlink (rtnetlink(7)).
//!
//! Three messages do not need a library: a request, its acknowledgement, and a list.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const HEADER_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;
/// The kernel's answers come in pieces of at most so many bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The kernel answers at once; this is for the case that it does not.
const ANSWER_SECONDS: i64 = 2;

const NEW_ADDRESS: u16 = libc::RTM_NEWADDR;
const REMOVE_ADDRESS: u16 = libc::RTM_DELADDR;
const LIST_ADDRESSES: u16 = libc::RTM_GETADDR;
const ASK_ROUTE: u16 = libc::RTM_GETROUTE;
const ROUTE: u16 = libc::RTM_NEWROUTE;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_CREATE_NEW: u16 = 0x400 | 0x200;
const ATTRIBUTE_ADDRESS: u16 = 1;
const ATTRIBUTE_LOCAL: u16 = 2;
const ATTRIBUTE_BROADCAST: u16 = 4;
const ATTRIBUTE_FLAGS: u16 = 8;
const ATTRIBUTE_ROUTE_TO: u16 = 1;
const ATTRIBUTE_ROUTE_FROM: u16 = 2;
const ATTRIBUTE_ROUTE_INTERFACE: u16 = 4;
/// The kernel has not finished its search for a duplicate.
const STATE_TENTATIVE: u32 = 0x40;
/// It found one.
const STATE_DUPLICATE: u32 = 0x08;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The interface's number.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// How many bits of it name the network.
    pub prefix: u8,
    /// The kernel's flags.
    flags: u32,
}

impl Assigned {
    /// To be added.
    pub fn new(interface: u32, address: IpAddr, prefix: u8) -> Self {
        Self {
            interface,
            address,
            prefix,
            flags: 0,
        }
    }

    /// IPv6: the search for a duplicate goes on.
    pub fn is_tentative(&self) -> bool {
        self.flags & STATE_TENTATIVE != 0
    }

    /// IPv6: another machine has it.
    pub fn is_duplicate(&self) -> bool {
        self.flags & STATE_DUPLICATE != 0
    }
}

/// Adds an address. One that is there already is an error.
///
/// # Errors
/// What the kernel says.
pub fn add(assigned: Assigned) -> io::Result<()> {
    let flags = FLAG_ACK | FLAG_CREATE_NEW;
    talk(NEW_ADDRESS, flags, &body(assigned), address_of).map(drop)
}

/// Removes an address.
///
/// # Errors
/// What the kernel says.
pub fn remove(assigned: Assigned) -> io::Result<()> {
    talk(REMOVE_ADDRESS, FLAG_ACK, &body(assigned), address_of).map(drop)
}

/// All addresses of all interfaces.
///
/// # Errors
/// What the kernel says.
pub fn list() -> io::Result<Vec<Assigned>> {
    talk(LIST_ADDRESSES, FLAG_DUMP, &[0; ADDRESS_BYTES], address_of)
}

/// The number of the interface by which the kernel would send from one address to another. Nothing is sent.
///
/// # Errors
/// There is no route, or `from` is no address of this machine, in the kernel's words.
pub fn route(from: IpAddr, to: IpAddr) -> io::Result<u32> {
    let found = talk(ASK_ROUTE, FLAG_ACK, &question(from, to), interface_of)?;
    let first = found.first().copied();
    first.ok_or_else(|| io::Error::other("the kernel names no interface"))
}

fn question(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let bytes = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = match to {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let bits = |bytes: &[u8]| u8::try_from(bytes.len() * 8).unwrap_or(u8::MAX);
    let (from, to) = (bytes(from), bytes(to));
    let family = u8::try_from(family).unwrap_or_default();
    let mut body = vec![family, bits(&to), bits(&from)];
    body.resize(ROUTE_BYTES, 0);
    attribute(&mut body, ATTRIBUTE_ROUTE_TO, &to);
    attribute(&mut body, ATTRIBUTE_ROUTE_FROM, &from);
    body
}

fn body(assigned: Assigned) -> Vec<u8> {
    let (family, bytes) = match assigned.address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let family = u8::try_from(family).unwrap_or_default();
    let mut body = vec![family, assigned.prefix, 0, 0];
    body.extend(assigned.interface.to_ne_bytes());
    attribute(&mut body, ATTRIBUTE_LOCAL, &bytes);
    attribute(&mut body, ATTRIBUTE_ADDRESS, &bytes);
    if let IpAddr::V4(address) = assigned.address
        && assigned.prefix < 31
    {
        let host = u32::MAX
            .checked_shr(u32::from(assigned.prefix))
            .unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(address) | host);
        attribute(&mut body, ATTRIBUTE_BROADCAST, &broadcast.octets());
    }
    body
}

/// Attributes and messages are aligned to 4 bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// `read` takes what is wanted from a message of a kind.
fn talk<T>(
    kind: u16,
    flags: u16,
    body: &[u8],
    read: fn(u16, &[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    let socket = open()?;
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((FLAG_REQUEST | flags).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if take(&buffer[..length], read, &mut found)? {
            return Ok(found);
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::new(ANSWER_SECONDS, 0),
    )?;
    Ok(socket)
}

/// Takes one piece of an answer; says whether it was the last one.
fn take<T>(
    mut piece: &[u8],
    read: fn(u16, &[u8]) -> Option<T>,
    found: &mut Vec<T>,
) -> io::Result<bool> {
    while let Some((length, kind)) = header(piece) {
        let Some(message) = piece.get(..length).filter(|_| length >= HEADER_BYTES) else {
            return Err(io::Error::other("a netlink message that is cut"));
        };
        let body = &message[HEADER_BYTES..];
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let number = body
                    .first_chunk()
                    .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                return match number {
                    0 => Ok(true),
                    number => Err(io::Error::from_raw_os_error(-number)),
                };
            }
            kind => found.extend(read(kind, body)),
        }
        piece = piece.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn header(piece: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*piece.first_chunk()?);
    let kind = u16::from_ne_bytes(*piece.get(4..)?.first_chunk()?);
    Some((usize::try_from(length).ok()?, kind))
}

fn address_of(kind: u16, body: &[u8]) -> Option<Assigned> {
    (kind == NEW_ADDRESS).then(|| assigned(body))?
}

/// The interface of a route.
fn interface_of(kind: u16, body: &[u8]) -> Option<u32> {
    let mut rest = body.get(ROUTE_BYTES..).filter(|_| kind == ROUTE)?;
    while let Some(length) = rest.first_chunk() {
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        if kind == ATTRIBUTE_ROUTE_INTERFACE {
            return Some(u32::from_ne_bytes(*value.first_chunk()?));
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    None
}

fn assigned(body: &[u8]) -> Option<Assigned> {
    let (head, mut rest) = body.split_at_checked(ADDRESS_BYTES)?;
    let interface = u32::from_ne_bytes(*head[4..].first_chunk()?);
    let (mut address, mut local) = (None, None);
    let mut flags = u32::from(head[2]);
    while let Some(length) = rest.first_chunk() {
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        match kind {
            ATTRIBUTE_ADDRESS => address = ip(value),
            ATTRIBUTE_LOCAL => local = ip(value),
            ATTRIBUTE_FLAGS => flags = u32::from_ne_bytes(*value.first_chunk()?),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(Assigned {
        interface,
        address: local.or(address)?,
        prefix: head[1],
        flags,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read() {
        for (address, prefix) in [("10.1.2.3", 24), ("fd00::7", 64)] {
            let address: IpAddr = address.parse().expect("an address");
            let told = Assigned::new(7, address, prefix);
            assert_eq!(assigned(&body(told)), Some(told));
        }
    }

    #[test]
    fn the_own_machine_has_its_loopback_address() {
        let found = list().expect("a list");
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert!(
            found.iter().any(|assigned| assigned.address == loopback),
            "{found:?}"
        );
    }

    #[test]
    fn a_route_is_asked_with_its_source() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        // Loopback is the first interface of every machine.
        assert_eq!(route(ip("127.0.0.1"), ip("127.0.0.2")).unwrap(), 1);
        // An address that nobody here has is no source.
        assert!(route(ip("192.0.2.77"), ip("127.0.0.2")).is_err());
        let whole = [&[0; ROUTE_BYTES][..], &[8, 0, 4, 0, 7, 0, 0, 0]].concat();
        assert_eq!(interface_of(ROUTE, &whole), Some(7));
        assert_eq!(interface_of(NEW_ADDRESS, &whole), None);
        for length in 0..whole.len() {
            assert_eq!(interface_of(ROUTE, &whole[..length]), None);
        }
    }

    #[test]
    fn damaged_answers_are_no_addresses() {
        let good = body(Assigned::new(7, IpAddr::from([10, 1, 2, 3]), 24));
        for length in 0..good.len() {
            let _ = assigned(&good[..length]);
        }
        let mut found = Vec::new();
        assert!(take(&[200, 0, 0, 0, 20, 0, 0, 0], address_of, &mut found).is_err());
        assert!(take(&[0; 32], address_of, &mut found).is_err());
    }
}
