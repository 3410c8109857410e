//! An address that moves with its group.
//!
//! Before it is added, the network is asked whether another machine has it; afterwards the network is told, several
//! times, since such words are lost.

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use controlplane_core::group::Outcome;
use nix::net::if_::if_nametoindex;

use super::neighbours::Interface;
use super::netlink::{self, Assigned};
use super::{Context, ResourceError};

/// The network is told so long after the address was added.
const ANNOUNCE_AFTER_MS: [u64; 6] = [0, 200, 500, 1000, 3000, 10_000];
const STACK_BYTES: usize = 256 * 1024;

/// An address that moves with its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it name the network.
    pub prefix: u8,
    /// On this interface; without it on the one with an address of the same network.
    pub interface: Option<String>,
}

impl FloatingIp {
    pub(super) fn probe(&self) -> Result<Outcome, ResourceError> {
        let found = self.found()?;
        let Some(assigned) = found.first() else {
            return Ok(Outcome::Absent);
        };
        let wanted = match &self.interface {
            None => true,
            Some(name) => if_nametoindex(name.as_str()) == Ok(assigned.interface),
        };
        let settled = !assigned.is_tentative() && !assigned.is_duplicate();
        let whole = found.len() == 1 && wanted && settled && assigned.prefix == self.prefix;
        Ok(if whole {
            Outcome::Done
        } else {
            Outcome::Failed
        })
    }

    pub(super) fn start(&self, context: &Context) -> Result<(), ResourceError> {
        let number = self.interface_number()?;
        let interface =
            Interface::with_neighbours(number).map_err(ResourceError::io("list the interfaces"))?;
        if let (Some(interface), IpAddr::V4(address)) = (&interface, self.address) {
            interface.ask(address, &context.limit)?;
        }
        context.limit.check()?;
        let assigned = Assigned::new(number, self.address, self.prefix);
        netlink::add(assigned).map_err(ResourceError::io(format!("add {}", self.address)))?;
        if self.address.is_ipv6() {
            self.wait_for_the_kernels_search(context)?;
        }
        if let Some(interface) = interface {
            self.announce(interface)?;
        }
        Ok(())
    }

    pub(super) fn stop(&self, _context: &Context) -> Result<(), ResourceError> {
        let what = || format!("remove {}", self.address);
        for assigned in self.found()? {
            netlink::remove(assigned).map_err(ResourceError::io(what()))?;
        }
        if self.found()?.is_empty() {
            return Ok(());
        }
        let source = std::io::Error::other("somebody adds it again");
        Err(ResourceError::io(what())(source))
    }

    /// Where the address is.
    fn found(&self) -> Result<Vec<Assigned>, ResourceError> {
        let mut all = netlink::list().map_err(ResourceError::io("list addresses"))?;
        all.retain(|assigned| assigned.address == self.address);
        Ok(all)
    }

    fn interface_number(&self) -> Result<u32, ResourceError> {
        let missing = |reason: String| ResourceError::NoInterface {
            address: self.address,
            reason,
        };
        if let Some(name) = &self.interface {
            return if_nametoindex(name.as_str())
                .map_err(|errno| missing(format!("{name}: {errno}")));
        }
        let all = netlink::list().map_err(ResourceError::io("list addresses"))?;
        let near = |assigned: &&Assigned| {
            let (own, prefix) = (assigned.address, assigned.prefix);
            own != self.address && same_network(own, self.address, prefix)
        };
        let found = all
            .iter()
            .filter(near)
            .max_by_key(|assigned| assigned.prefix);
        let reason = "none has an address of its network; name one with \"interface\"";
        let found = found.ok_or_else(|| missing(reason.to_string()))?;
        Ok(found.interface)
    }

    /// IPv6: the kernel asks the network itself, once the address is there.
    fn wait_for_the_kernels_search(&self, context: &Context) -> Result<(), ResourceError> {
        let waited = context.limit.wait_until(|| {
            let found = self.found()?;
            if found.iter().any(Assigned::is_duplicate) {
                return Err(ResourceError::Duplicate {
                    address: self.address,
                    holder: "another machine, by the kernel's search".to_string(),
                });
            }
            Ok(!found.is_empty() && !found.iter().any(Assigned::is_tentative))
        });
        if waited.is_err() {
            self.stop(context)?;
        }
        waited
    }

    /// Beside the start: what comes next need not wait for it.
    fn announce(&self, interface: Interface) -> Result<(), ResourceError> {
        let own = self.clone();
        let tell = move || {
            let mut before = 0;
            for after in ANNOUNCE_AFTER_MS {
                thread::sleep(Duration::from_millis(after - before));
                before = after;
                if own.found().is_ok_and(|found| found.is_empty()) {
                    return;
                }
                if let Err(error) = interface.announce(own.address) {
                    tracing::debug!(address = %own.address, %error, "cannot tell the network");
                }
            }
        };
        thread::Builder::new()
            .name("announce".to_string())
            .stack_size(STACK_BYTES)
            .spawn(tell)
            .map_err(ResourceError::io("start a thread"))?;
        Ok(())
    }
}

/// Whether the first so many bits are the same. Link-local addresses are near everywhere, and so nowhere.
pub(crate) fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let (bits, one, other) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (32, u128::from(u32::from(one)), u128::from(u32::from(other)))
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (128, u128::from(routed(one)), u128::from(routed(other)))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let host = bits - u32::from(prefix).min(bits);
    prefix > 0 && one != 0 && (one ^ other).checked_shr(host).unwrap_or(0) == 0
}

fn routed(address: Ipv6Addr) -> Ipv6Addr {
    if address.is_unicast_link_local() {
        Ipv6Addr::UNSPECIFIED
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_found_by_the_network() {
        let near = |one: &str, other: &str, prefix| {
            let ip = |text: &str| text.parse().expect("an address");
            same_network(ip(one), ip(other), prefix)
        };
        assert!(near("10.0.0.1", "10.0.0.20", 24));
        assert!(!near("10.0.1.1", "10.0.0.20", 24));
        assert!(!near("10.0.0.1", "fd00::1", 24));
        assert!(near("fd00::1", "fd00::20", 64));
        assert!(!near("fe80::1", "fe80::20", 64));
        assert!(!near("0.0.0.0", "10.0.0.20", 0));
        assert!(near("10.0.0.20", "10.0.0.20", 32));
    }
}
