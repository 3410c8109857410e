//! Talking to the machines of a network about an address: does somebody have it (ARP, RFC 5227), and it is here now
//! (gratuitous ARP; unsolicited neighbour advertisement, RFC 4861).
//!
//! Frames are written and read as they are: an interface's own address cannot be used before it is added.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Limit, ResourceError};
use std::time::Duration;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Where IPv6's "all nodes" are on Ethernet.
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ETHER_ARP: [u8; 2] = [0x08, 0x06];
const ETHER_IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const FRAME_BYTES_MAX: usize = 2048;
/// A duplicate is asked for so often.
const PROBES: u32 = 3;
/// Who has the address answers within this time.
const PROBE_TIME: Duration = Duration::from_millis(200);

/// An interface that frames can be sent on.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    link: LinkAddr,
    hardware: [u8; 6],
}

impl Interface {
    /// The interface with this number, if it is one with neighbours.
    ///
    /// # Errors
    /// If the interfaces cannot be listed.
    pub fn with_neighbours(number: u32) -> io::Result<Option<Self>> {
        for interface in getifaddrs()? {
            let silent = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP;
            let address = interface.address;
            let link = address.and_then(|address| address.as_link_addr().copied());
            let Some(link) = link.filter(|link| link.ifindex() == number as usize) else {
                continue;
            };
            if interface.flags.intersects(silent) || link.halen() != 6 {
                return Ok(None);
            }
            let hardware = link.addr();
            return Ok(hardware.map(|hardware| Self { link, hardware }));
        }
        Ok(None)
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        bind(socket.as_raw_fd(), &self.link)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(socket)
    }

    /// Asks whether another machine has this address.
    ///
    /// # Errors
    /// [`ResourceError::Duplicate`] if so; if nothing can be sent; if the time is over.
    pub fn ask(&self, address: Ipv4Addr, limit: &Limit) -> Result<(), ResourceError> {
        let failed = || ResourceError::io(format!("ask for {address}"));
        let socket = self.open().map_err(failed())?;
        let question = self.arp(ARP_REQUEST, Ipv4Addr::UNSPECIFIED, address);
        for _ in 0..PROBES {
            send(socket.as_raw_fd(), &question, MsgFlags::empty())
                .map_err(|errno| failed()(errno.into()))?;
            let round = limit.within(PROBE_TIME);
            while round.check().is_ok() {
                if let Some(holder) = self.hear(&socket, address).map_err(failed())? {
                    return Err(ResourceError::Duplicate {
                        address: address.into(),
                        holder,
                    });
                }
            }
            limit.check()?;
        }
        Ok(())
    }

    /// Another machine that says it has the address.
    fn hear(&self, socket: &OwnedFd, address: Ipv4Addr) -> io::Result<Option<String>> {
        let mut frame = [0; FRAME_BYTES_MAX];
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => Ok(self.holder(&frame[..length], address)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn holder(&self, frame: &[u8], address: Ipv4Addr) -> Option<String> {
        let arp = frame.get(14..42).filter(|_| frame[12..14] == ETHER_ARP)?;
        let sender: [u8; 6] = *arp[8..].first_chunk()?;
        let claims = arp[14..18] == address.octets();
        let (of_ipv4, own) = (arp[..6] == ARP_ETHERNET_IPV4, sender == self.hardware);
        (of_ipv4 && claims && !own).then(|| {
            let bytes = sender.map(|byte| format!("{byte:02x}"));
            bytes.join(":")
        })
    }

    /// Tells the network once that the address is here.
    ///
    /// # Errors
    /// If nothing can be sent.
    pub fn announce(&self, address: IpAddr) -> io::Result<()> {
        let socket = self.open()?;
        let frames = match address {
            IpAddr::V4(address) => {
                // Some listen to the one, some to the other.
                let kinds = [ARP_REQUEST, ARP_REPLY];
                kinds.map(|kind| self.arp(kind, address, address)).to_vec()
            }
            IpAddr::V6(address) => vec![self.advertisement(address)],
        };
        for frame in frames {
            send(socket.as_raw_fd(), &frame, MsgFlags::empty())?;
        }
        Ok(())
    }

    fn arp(&self, kind: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = Vec::with_capacity(42);
        frame.extend(BROADCAST);
        frame.extend(self.hardware);
        frame.extend(ETHER_ARP);
        frame.extend(ARP_ETHERNET_IPV4);
        frame.extend([0, kind]);
        frame.extend(self.hardware);
        frame.extend(sender.octets());
        let target_hardware = if kind == ARP_REPLY {
            self.hardware
        } else {
            [0; 6]
        };
        frame.extend(target_hardware);
        frame.extend(target.octets());
        frame
    }

    fn advertisement(&self, address: Ipv6Addr) -> Vec<u8> {
        const ICMPV6: u8 = 58;
        const ADVERTISEMENT: u8 = 136;
        const OVERRIDE: u8 = 0x20;
        const OPTION_TARGET_HARDWARE: [u8; 2] = [2, 1];
        let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut icmp = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
        icmp.extend(address.octets());
        icmp.extend(OPTION_TARGET_HARDWARE);
        icmp.extend(self.hardware);
        let length = u16::try_from(icmp.len()).unwrap_or_default();
        let mut summed = Vec::new();
        summed.extend(address.octets());
        summed.extend(everybody.octets());
        summed.extend(u32::from(length).to_be_bytes());
        summed.extend([0, 0, 0, ICMPV6]);
        summed.extend(&icmp);
        let sum = checksum(&summed);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = Vec::new();
        frame.extend(ALL_NODES);
        frame.extend(self.hardware);
        frame.extend(ETHER_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        // Who is a router away is not meant: 255 hops, as the receiver demands.
        frame.extend([ICMPV6, 255]);
        frame.extend(address.octets());
        frame.extend(everybody.octets());
        frame.extend(&icmp);
        frame
    }
}

/// The internet's checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_internets() {
        // The example of RFC 1071: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }
}
