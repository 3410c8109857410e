//! Four networks between the machines, and how to break them.
//!
//! As root each is a bridge in a network namespace of our own; otherwise a multicast socket of QEMU's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::process;

const COMMAND_LIMIT: Duration = Duration::from_secs(20);
const NAMESPACE_PREFIX: &str = "lockstep-vm-";

/// One of the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Net {
    /// Heartbeats: `inter0`, 10.77.1.0/24.
    Inter,
    /// The clients' side: `lan0`, 10.77.2.0/24.
    Lan,
    /// The mirror link: `mirror0`, 10.77.3.0/24.
    Mirror,
    /// The second mirror connect: `mirror1`, 10.77.4.0/24.
    MirrorTwo,
}

impl Net {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Inter, Self::Lan, Self::Mirror, Self::MirrorTwo];

    /// Name of the network card in every machine.
    #[must_use]
    pub fn card(self) -> &'static str {
        match self {
            Self::Inter => "inter0",
            Self::Lan => "lan0",
            Self::Mirror => "mirror0",
            Self::MirrorTwo => "mirror1",
        }
    }

    /// Address of the machine with this number (from 1).
    #[must_use]
    pub fn address(self, machine: usize) -> String {
        format!("10.77.{}.{machine}", self as usize + 1)
    }

    /// Hardware address of the machine with this number.
    #[must_use]
    pub fn mac(self, machine: usize) -> String {
        format!("52:54:00:77:{:02x}:{machine:02x}", self as usize + 1)
    }
}

/// The host's side of a cluster's networks.
pub(crate) enum Fabric {
    Bridges { namespace: String },
    Multicast { port_base: usize },
}

impl Fabric {
    pub(crate) fn new(number: usize, machines: usize) -> anyhow::Result<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
            let port_base = 20_000 + (std::process::id() as usize * 8 + number * 4) % 30_000;
            return Ok(Self::Multicast { port_base });
        }
        let namespace = format!("{NAMESPACE_PREFIX}{}-{number}", std::process::id());
        ip(&["netns", "add", &namespace])?;
        let fabric = Self::Bridges { namespace };
        let Self::Bridges { namespace } = &fabric else {
            return Ok(fabric);
        };
        let mut batch = String::from("link set lo up\n");
        for net in Net::ALL {
            let bridge = net.card();
            batch += &format!(
                "link add {bridge} type bridge forward_delay 0 mcast_snooping 0\nlink set {bridge} up\n"
            );
            for machine in 1..=machines {
                let tap = tap(net, machine);
                batch +=
                    &format!("tuntap add dev {tap} mode tap\nlink set {tap} master {bridge} up\n");
            }
        }
        let script = std::env::temp_dir().join(format!("{namespace}.ip"));
        fs::write(&script, batch)?;
        let result = ip(&["-n", namespace, "-batch", &script.to_string_lossy()]);
        fs::remove_file(&script)?;
        result?;
        Ok(fabric)
    }

    /// QEMU's arguments for one machine's cards.
    pub(crate) fn arguments(&self, machine: usize) -> Vec<String> {
        let mut arguments = Vec::new();
        for net in Net::ALL {
            let id = net.card();
            let backend = match self {
                Self::Bridges { .. } => {
                    format!(
                        "tap,id={id},ifname={},script=no,downscript=no",
                        tap(net, machine)
                    )
                }
                Self::Multicast { port_base } => {
                    format!(
                        "socket,id={id},mcast=239.77.0.1:{},localaddr=127.0.0.1",
                        port_base + net as usize
                    )
                }
            };
            arguments.extend(["-netdev".to_owned(), backend, "-device".to_owned()]);
            arguments.push(format!(
                "virtio-net-pci,netdev={id},id=card-{id},mac={},romfile=",
                net.mac(machine)
            ));
        }
        arguments
    }

    /// Where QEMU must be started.
    pub(crate) fn namespace(&self) -> anyhow::Result<Option<File>> {
        match self {
            Self::Bridges { namespace } => {
                let path = PathBuf::from("/run/netns").join(namespace);
                Ok(Some(
                    File::open(&path).with_context(|| format!("open {}", path.display()))?,
                ))
            }
            Self::Multicast { .. } => Ok(None),
        }
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if let Self::Bridges { namespace } = self {
            // What is left is removed at the next start.
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn tap(net: Net, machine: usize) -> String {
    format!("{}-{machine}", net.card())
}

fn ip(arguments: &[&str]) -> anyhow::Result<String> {
    process::run(Command::new("ip").args(arguments), COMMAND_LIMIT)
}

/// Removes namespaces and directories of harness processes that are dead.
///
/// # Errors
/// Never: what cannot be removed is left.
pub fn remove_leftovers() -> anyhow::Result<()> {
    let dead = |name: &str| {
        let pid = name
            .strip_prefix(NAMESPACE_PREFIX)?
            .split(['-', '.'])
            .next()?
            .parse::<u32>()
            .ok()?;
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    };
    for (directory, is_namespace) in [
        (Path::new("/run/netns").to_owned(), true),
        (std::env::temp_dir(), false),
    ] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if dead(&name).is_none() {
                continue;
            }
            if is_namespace {
                let _ = ip(&["netns", "delete", &name]);
            } else if entry.path().is_dir() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    Ok(())
}

/// Directory for the sockets of one cluster; the name says whose it is.
pub(crate) fn run_directory(number: usize) -> PathBuf {
    std::env::temp_dir().join(format!("{NAMESPACE_PREFIX}{}-{number}", std::process::id()))
}
