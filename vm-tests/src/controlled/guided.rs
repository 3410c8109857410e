//! The same machines, set up by the lines of the README, literally: nothing is typed that is not there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::{
    Arbiter, CONFIG_FILE, Clock, Controlled, NODE_COMMAND, NODE_LOG, WITNESS, WITNESS_LOG, joining,
};
use crate::agent::lock;
use crate::disk::DiskMode;
use crate::guide::{Guide, Step};
use crate::machine::Machine;
use crate::network::Net;
use crate::scenario::Context;
use crate::volume::{NAME, Pair};

/// Addresses that the README's machines have. The mirror link takes those of the interconnects.
const ADDRESSES: [(&str, Net, &str); 5] = [
    ("node1", Net::Lan, "10.0.0.1"),
    ("node1", Net::Inter, "10.1.0.1"),
    ("node2", Net::Lan, "10.0.0.2"),
    ("node2", Net::Inter, "10.1.0.2"),
    (WITNESS, Net::Lan, "10.0.0.5"),
];
/// Where the database answers, as the README has it.
pub const FLOATING: &str = "10.0.0.100";
/// What is typed where `initdb` asks.
pub const PASSWORD: &str = "correct horse";
/// Its mount point, as the README has it.
pub const MOUNT_POINT: &str = "/srv/pg";
/// Its group.
pub const GROUP: &str = "pg";
/// What a node's log says when every resource of it runs.
pub const ONLINE: &str = "online code=.LS6040";
/// Longer than a connection takes where the host is busy with other things.
const CONNECT_S: u32 = 30;
/// Room for a database of 40 MiB and a gigabyte's third of its log: software emulation copies slowly.
const VOLUME_DISK_BYTES: u64 = 512 << 20;
/// The longest of them makes a database, on an emulated processor.
const LINE_LIMIT: Duration = Duration::from_secs(300);
/// What outlives a boot on a real machine's disk.
const DURABLE: &str = "etc/lockstep var/lib/lockstep";
const DURABLE_FILE: &str = "/root/durable.tar";
const DURABLE_BYTES_MAX: usize = 8 << 20;
/// As the units have it: they start `lockstepd` when its files are there, and again when it ends.
const NODE_UNIT: &str = "until [ -e /etc/lockstep/trust/node.pem ]; do sleep 0.2; done";
const WITNESS_UNIT: &str =
    "until ls /var/lib/lockstep/witness/*.cluster 2>/dev/null; do sleep 0.2; done";

/// A pair that somebody set up by the README.
pub struct Guided {
    /// Nodes, volume and witness.
    pub controlled: Controlled,
    /// What each node's disk would keep.
    durable: Mutex<HashMap<String, Vec<u8>>>,
}

impl Guided {
    /// Boots three machines with the programs, a disk in each node, and the README's addresses; nothing is set up.
    ///
    /// # Errors
    /// If a machine does not boot or the README's addresses are others.
    pub fn boot(context: &Context, guide: &Guide) -> anyhow::Result<Self> {
        Self::boot_with(context, guide, false)
    }

    /// The same; `shells`: somebody may talk to the machines.
    ///
    /// # Errors
    /// If a machine does not boot or the README's addresses are others.
    pub fn boot_with(context: &Context, guide: &Guide, shells: bool) -> anyhow::Result<Self> {
        let mut builder = context
            .cluster()
            .disk("data", VOLUME_DISK_BYTES, DiskMode::Volatile)
            .module("dm_mod")
            .extra_machine(WITNESS)
            .binaries(&context.product()?);
        if shells {
            builder = builder.shells();
        }
        let cluster = builder.boot()?;
        for address in ADDRESSES
            .map(|(_, _, address)| address)
            .iter()
            .chain([&FLOATING])
        {
            ensure!(guide.configuration.contains(address), "no {address}");
        }
        let guided = Self {
            controlled: Controlled {
                pair: Pair::by_hand(cluster),
                arbiter: Arbiter::Witness,
            },
            durable: Mutex::default(),
        };
        for machine in guided.machines() {
            furnish(machine)?;
            enable(machine)?;
        }
        let one = guided.controlled.pair.one();
        one.put(CONFIG_FILE, 0o600, guide.configuration.as_bytes())?;
        Ok(guided)
    }

    fn machines(&self) -> [&Machine; 3] {
        let controlled = &self.controlled;
        let pair = &controlled.pair;
        [pair.one(), pair.two(), controlled.witness()]
    }

    /// Types these lines, each on its machine.
    ///
    /// # Errors
    /// If one fails.
    pub fn follow(&self, steps: &[Step]) -> anyhow::Result<()> {
        let one = self.controlled.pair.one();
        let mut joining: Vec<&Machine> = Vec::new();
        for step in steps {
            let machine = self.controlled.pair.cluster.machine(&step.on);
            if step.command.starts_with("lockstep cluster init") {
                joining::begin(machine, &step.command)?;
            } else if step.command.starts_with("lockstep cluster join") {
                let title = if machine.name() == WITNESS {
                    joining::ON_THE_WITNESS
                } else {
                    joining::ON_THE_SECOND
                };
                let invitation = joining::invitation_for(one, title)?;
                joining::type_in(machine, &step.command, &invitation.token)?;
                joining.push(machine);
            } else {
                // Whoever types waits for what was begun.
                if !joining.is_empty() {
                    joining::finish(one)?;
                }
                for machine in joining.drain(..) {
                    joining::joined(machine)?;
                }
                self.type_line(machine, &step.command)?;
            }
        }
        Ok(())
    }

    fn type_line(&self, machine: &Machine, line: &str) -> anyhow::Result<()> {
        let typed = format!("{PASSWORD}\n{PASSWORD}\n");
        let output = machine.exec_with(&["bash", "-c", line], typed.as_bytes(), LINE_LIMIT)?;
        ensure!(
            output.ok(),
            "{}: `{line}`: {output:?}\n{}",
            machine.name(),
            self.controlled.logs()
        );
        Ok(())
    }

    /// Asks the database through its floating address, from the third machine; what it answers, without the last line's end.
    ///
    /// # Errors
    /// If it does not answer, or with an error.
    pub fn ask(&self, sql: &str) -> anyhow::Result<String> {
        let password = format!("PGPASSWORD={PASSWORD}");
        let limit = format!("PGCONNECT_TIMEOUT={CONNECT_S}");
        let words = ["env", &password, &limit, "psql", "-h", FLOATING];
        let rest = ["-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAtXc", sql];
        let argv: Vec<&str> = words.into_iter().chain(rest).collect();
        let witness = self.controlled.witness();
        let output = witness.exec_with(&argv, &[], LINE_LIMIT)?;
        if !output.ok() {
            bail!("`{sql}`: {output:?}");
        }
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Remembers what a node has on its system disk: here that is fresh at every boot.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn remember(&self, node: &Machine) -> anyhow::Result<()> {
        node.exec_ok(&format!("tar -C / -cf {DURABLE_FILE} {DURABLE}"))?;
        let bytes = node.get(DURABLE_FILE, 0, DURABLE_BYTES_MAX)?;
        ensure!(
            bytes.len() < DURABLE_BYTES_MAX,
            "{} has too much",
            node.name()
        );
        lock(&self.durable).insert(node.name().to_owned(), bytes);
        Ok(())
    }

    /// Powers a node on; nobody types anything there.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn boot_again(&self, node: &Machine) -> anyhow::Result<()> {
        node.power_on()?;
        let durable = lock(&self.durable).get(node.name()).cloned();
        let durable = durable.with_context(|| format!("{} was not remembered", node.name()))?;
        node.put(DURABLE_FILE, 0o600, &durable)?;
        node.exec_ok(&format!("tar -C / -xf {DURABLE_FILE}"))?;
        furnish(node)?;
        enable(node)
    }

    /// When the node that took over had done its steps, in seconds from `cut`, by its own logs.
    ///
    /// # Errors
    /// If the logs do not tell.
    pub fn steps(&self, node: &Machine, clock: &Clock, cut: Instant) -> anyhow::Result<Steps> {
        let volume_log = format!("/var/log/lockstep/{NAME}.log");
        let said = |words: &str, log: &str| {
            let since = self.controlled.last_said(node, words, log, clock, cut)?;
            ensure!(since > 0.0, "{words}: {since} s after the cut");
            Ok(since)
        };
        Ok(Steps {
            served: said("LS2005", &volume_log)?,
            mounted: said("LS6041.*resource=.fs", NODE_LOG)?,
            online: said(ONLINE, NODE_LOG)?,
        })
    }

    /// The end of what the database said on a node.
    #[must_use]
    pub fn database_log(&self, node: &Machine) -> String {
        let command = format!("tail -n 40 /var/log/lockstep/groups/{GROUP}/postgres.log");
        let said = node.exec(&command, Duration::from_secs(10));
        let text = said.map_or_else(|error| error.to_string(), |output| output.stdout);
        format!("--- PostgreSQL on {} ---\n{text}", node.name())
    }
}

/// Seconds after a power cut.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    /// The volume takes writes on the other node.
    pub served: f64,
    /// Its file system is mounted.
    pub mounted: f64,
    /// Every resource of the group runs.
    pub online: f64,
}

/// What a distribution's own start does on a machine with these addresses.
fn furnish(machine: &Machine) -> anyhow::Result<()> {
    let mut script = String::from(
        "set -e\nmount -t cgroup2 none /sys/fs/cgroup\n\
         install -d -o postgres -g postgres -m 2775 /run/postgresql\n",
    );
    for (name, net, address) in ADDRESSES {
        if name == machine.name() {
            script += &format!("ip address add {address}/24 dev {}\n", net.card());
        }
    }
    machine.exec_ok(&script).map(drop)
}

/// The units of the installation.
fn enable(machine: &Machine) -> anyhow::Result<()> {
    let (condition, daemon, log) = if machine.name() == WITNESS {
        (WITNESS_UNIT, "lockstepd witness", WITNESS_LOG)
    } else {
        (NODE_UNIT, NODE_COMMAND, NODE_LOG)
    };
    // RestartSec of the units.
    let unit = format!("{condition}; while :; do {daemon}; sleep 0.5; done");
    machine
        .exec_ok(&format!(
            "mkdir -p /var/log/lockstep; setsid bash -c '{unit}' </dev/null >>{log} 2>&1 &"
        ))
        .map(drop)
}
