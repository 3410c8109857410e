//! A pair under `lockstepd` with a witness on a third machine: nobody types a command when something breaks.

mod etcd;
pub mod guided;
mod joining;
pub mod rows;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::network::Net;
use crate::scenario::Context;
use crate::volume::{KEY_FILE, NAME, Pair, VOLUME_BYTES, with_disks};
use crate::wait::wait_until;

const WITNESS: &str = "witness";
const WITNESS_PORT: u16 = 7422;
/// Where heartbeats are heard.
pub const HEARTBEAT_PORT: u16 = 7421;
const WITNESS_STATE: &str = "/var/lib/lockstep/witness";
/// What the nodes go by.
pub const CONFIG_FILE: &str = "/etc/lockstep/cluster.toml";
const TRUST: &str = "/etc/lockstep/trust";
const NODE_LOG: &str = "/var/log/lockstep/lockstepd.log";
const NODE_COMMAND: &str = "lockstepd run";
const WITNESS_LOG: &str = "/var/log/lockstep/witness.log";
const FILE_BYTES_MAX: usize = 64 * 1024;
const READY_LIMIT: Duration = Duration::from_secs(30);
/// The networks of the heartbeats, in their order.
pub const INTERCONNECTS: [Net; 2] = [Net::Inter, Net::Lan];

/// What decides on the third machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbiter {
    /// `lockstepd witness`.
    Witness,
    /// Debian's etcd, one member, with TLS.
    Etcd,
    /// Nothing runs there: the machine answers pings.
    Ping,
}

/// A pair, its control plane and its witness.
pub struct Controlled {
    /// Both nodes and the volume.
    pub pair: Pair,
    arbiter: Arbiter,
}

impl Controlled {
    /// Boots three machines; the volume is served by the first node, and both nodes are ready for a failover.
    ///
    /// # Errors
    /// If a machine does not boot or a command fails.
    pub fn boot(context: &Context) -> anyhow::Result<Self> {
        Self::boot_with(context, Arbiter::Witness, "", &[])
    }

    /// The same with another arbiter, with resources of the group, as the configuration names them, and with the scripts that
    /// these read.
    ///
    /// # Errors
    /// If a machine does not boot or a command fails.
    pub fn boot_with(
        context: &Context,
        arbiter: Arbiter,
        resources: &str,
        scripts: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let cluster = with_disks(context.cluster(), VOLUME_BYTES)
            .extra_machine(WITNESS)
            .binaries(&context.product()?)
            .boot()?;
        let controlled = Self {
            pair: Pair::active(cluster)?,
            arbiter,
        };
        for node in [controlled.pair.one(), controlled.pair.two()] {
            for (path, text) in scripts {
                controlled.place(node, path, text.as_bytes().to_vec())?;
            }
        }
        controlled.distribute(resources)?;
        controlled.start_witness()?;
        for node in [controlled.pair.one(), controlled.pair.two()] {
            controlled.start_control(node)?;
        }
        controlled.wait_ready()?;
        Ok(controlled)
    }

    /// The third machine.
    #[must_use]
    pub fn witness(&self) -> &Machine {
        self.pair.cluster.machine(WITNESS)
    }

    /// The same, set up as an administrator does it: nothing is copied by hand, and what the screens say is typed.
    ///
    /// # Errors
    /// If a machine does not boot or a command fails.
    pub fn boot_joined(context: &Context) -> anyhow::Result<Self> {
        let cluster = with_disks(context.cluster(), VOLUME_BYTES)
            .extra_machine(WITNESS)
            .binaries(&context.product()?)
            .boot()?;
        joining::join(&cluster, &configuration(&cluster, Arbiter::Witness, ""))?;
        start_witness_on(&cluster)?;
        for node in ["node1", "node2"] {
            start(cluster.machine(node), NODE_COMMAND, NODE_LOG)?;
        }
        // Its daemons are started, and it is activated, by lockstepd.
        let controlled = Self {
            pair: Pair::made(cluster)?,
            arbiter: Arbiter::Witness,
        };
        for node in [controlled.pair.one(), controlled.pair.two()] {
            for path in joining::FILES {
                let bytes = node.get(path, 0, FILE_BYTES_MAX)?;
                controlled.pair.keep(node, path, bytes);
            }
        }
        controlled.wait_ready()?;
        Ok(controlled)
    }

    /// Powers a node on and starts nothing but `lockstepd`.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn boot_again(&self, node: &Machine) -> anyhow::Result<()> {
        self.pair.boot_again(node)?;
        self.start_control(node)
    }

    fn witness_address(&self) -> String {
        self.witness().address(Net::Lan)
    }
}

/// The cluster's configuration.
fn configuration(cluster: &Cluster, arbiter: Arbiter, resources: &str) -> String {
    let mut text = String::from("version = 1\n\n");
    for node in ["node1", "node2"].map(|name| cluster.machine(name)) {
        let address = |net: &Net| format!("\"{}:{HEARTBEAT_PORT}\"", node.address(*net));
        let addresses: Vec<String> = INTERCONNECTS.iter().map(address).collect();
        text += &format!(
            "[nodes.{}]\ninterconnects = [{}]\n\n",
            node.name(),
            addresses.join(", ")
        );
    }
    let address = cluster.machine(WITNESS).address(Net::Lan);
    text += &match arbiter {
        Arbiter::Witness => format!("[witness]\naddress = \"{address}:{WITNESS_PORT}\"\n"),
        Arbiter::Etcd => etcd::configuration(&address),
        Arbiter::Ping => format!("[ping]\ntargets = [\"{address}\"]\n"),
    };
    text + &format!("\n[groups.{NAME}]\nvolumes = [\"{NAME}\"]\n{resources}")
}

impl Controlled {
    /// Makes certificates on the first node and brings every machine its own.
    fn distribute(&self, resources: &str) -> anyhow::Result<()> {
        let (one, two) = (self.pair.one(), self.pair.two());
        one.exec_ok(&format!(
            "lockstepd trust --key {KEY_FILE} --into /root/trust"
        ))?;
        let configuration = configuration(&self.pair.cluster, self.arbiter, resources).into_bytes();
        for (number, node) in [one, two].into_iter().enumerate() {
            for name in ["node.pem", "node.key", "witness.pem"] {
                let bytes = one.get(
                    &format!("/root/trust/node{number}/{name}"),
                    0,
                    FILE_BYTES_MAX,
                )?;
                self.place(node, &format!("{TRUST}/{name}"), bytes)?;
            }
            self.place(node, CONFIG_FILE, configuration.clone())?;
        }
        if self.arbiter == Arbiter::Etcd {
            return self.distribute_etcd();
        }
        let names = one.exec_ok("ls /root/trust/witness")?;
        for name in names.lines() {
            let bytes = one.get(&format!("/root/trust/witness/{name}"), 0, FILE_BYTES_MAX)?;
            self.witness()
                .put(&format!("{WITNESS_STATE}/{name}"), 0o600, &bytes)?;
        }
        Ok(())
    }

    fn distribute_etcd(&self) -> anyhow::Result<()> {
        let trust = etcd::Trust::create(&self.witness_address())?;
        for (path, text) in trust.of_a_node() {
            for node in [self.pair.one(), self.pair.two()] {
                self.place(node, path, text.clone().into_bytes())?;
            }
        }
        for (path, text) in trust.of_etcd() {
            self.witness().put(path, 0o600, text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file, now and after each boot.
    fn place(&self, node: &Machine, path: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        node.put(path, 0o600, &bytes)?;
        self.pair.keep(node, path, bytes);
        Ok(())
    }

    /// Starts the witness.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn start_witness(&self) -> anyhow::Result<()> {
        let daemon = match self.arbiter {
            Arbiter::Witness => return start_witness_on(&self.pair.cluster),
            Arbiter::Etcd => etcd::command(&self.witness_address()),
            Arbiter::Ping => return Ok(()),
        };
        start(self.witness(), &daemon, WITNESS_LOG)
    }

    /// Ends the witness at once.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill_witness(&self) -> anyhow::Result<()> {
        let name = match self.arbiter {
            Arbiter::Witness => "lockstepd",
            Arbiter::Etcd => "etcd",
            Arbiter::Ping => bail!("nothing runs on the ping target"),
        };
        let command = format!("pkill -KILL -x {name}");
        self.witness().exec_ok(&command).map(drop)
    }

    /// Starts a node's control plane.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn start_control(&self, node: &Machine) -> anyhow::Result<()> {
        start(node, NODE_COMMAND, NODE_LOG)
    }

    /// Powers a node on and starts its daemons.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn bring_back(&self, node: &Machine) -> anyhow::Result<()> {
        self.pair.bring_back(node)?;
        self.start_control(node)
    }

    /// Waits until both nodes hear each other and the arbiter, and it has heard of the volume from both.
    ///
    /// # Errors
    /// If they do not.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        for node in [self.pair.one(), self.pair.two()] {
            self.wait_log(node, "LS6011", "Alive")?;
            self.wait_log(node, "LS6023\\|LS6016", "LS6023")?;
            if self.arbiter != Arbiter::Ping {
                self.wait_log(node, "LS6025", "has heard both")?;
            }
        }
        Ok(())
    }

    /// Waits until the last line of a node's control plane that matches `code` has `wanted` in it.
    ///
    /// # Errors
    /// If it does not come to that, with the log.
    pub fn wait_log(&self, node: &Machine, code: &str, wanted: &str) -> anyhow::Result<Duration> {
        self.wait_log_within(node, code, wanted, READY_LIMIT)
    }

    /// The same within another time.
    ///
    /// # Errors
    /// If it does not come to that, with the log.
    pub fn wait_log_within(
        &self,
        node: &Machine,
        code: &str,
        wanted: &str,
        limit: Duration,
    ) -> anyhow::Result<Duration> {
        let what = format!("{} says {wanted} ({code})", node.name());
        let command = format!("grep '{code}' {NODE_LOG} | tail -n 1");
        let waited = wait_until(limit, &what, || {
            Ok(node.exec_ok(&command)?.contains(wanted))
        });
        waited.with_context(|| self.logs())
    }

    /// How many lines of a node's control plane match.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn count_log(&self, node: &Machine, pattern: &str) -> anyhow::Result<usize> {
        let counted = node.exec_ok(&format!("grep -c '{pattern}' {NODE_LOG} || true"))?;
        counted.parse().with_context(|| counted.clone())
    }

    /// When each step of a failover was done, by the log of the node that took over; `cut` by this machine's clock.
    ///
    /// # Errors
    /// If the log does not tell of one.
    pub fn phases(&self, node: &Machine, clock: &Clock, cut: Instant) -> anyhow::Result<String> {
        let volume_log = format!("/var/log/lockstep/{NAME}.log");
        let words = [
            ("peer dead", "LS6011.*Dead", NODE_LOG),
            ("arbiter answered", "LS6015", NODE_LOG),
            ("word", "LS6018", NODE_LOG),
            ("served", "LS2005", volume_log.as_str()),
            ("carried out", "LS6010", NODE_LOG),
        ];
        let mut phases = Vec::new();
        for (name, words, log) in words {
            let since = self.last_said(node, words, log, clock, cut)?;
            phases.push(format!("{name} {since:.2}"));
        }
        Ok(phases.join(", "))
    }

    /// Seconds from `cut` to the last line of a log that matches, once there is one.
    fn last_said(
        &self,
        node: &Machine,
        words: &str,
        log: &str,
        clock: &Clock,
        cut: Instant,
    ) -> anyhow::Result<f64> {
        let script = format!(
            "line=$(grep '{words}' {log} | tail -n 1) && [ -z \"$line\" ] || date -d \"${{line%% *}}\" +%s%3N"
        );
        let mut said = String::new();
        let waited = wait_until(READY_LIMIT, words, || {
            said = node.exec_ok(&script)?;
            Ok(!said.is_empty())
        });
        waited.with_context(|| self.logs())?;
        Ok(clock.since(said.parse()?, cut))
    }

    /// What all daemons logged last.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = self.pair.logs();
        let machines = [self.pair.one(), self.pair.two(), self.witness()];
        for machine in machines {
            let command = "tail -n 30 /var/log/lockstep/lockstepd.log /var/log/lockstep/witness.log 2>/dev/null";
            let said = machine.exec(command, Duration::from_secs(10));
            let text = said.map_or_else(|error| error.to_string(), |output| output.stdout);
            all.push_str(&format!(
                "--- control plane of {} ---\n{text}",
                machine.name()
            ));
        }
        all
    }
}

fn start_witness_on(cluster: &Cluster) -> anyhow::Result<()> {
    let command = format!("lockstepd witness --state {WITNESS_STATE}");
    start(cluster.machine(WITNESS), &command, WITNESS_LOG)
}

fn start(machine: &Machine, daemon: &str, log: &str) -> anyhow::Result<()> {
    machine
        .exec_ok(&format!(
            "mkdir -p /var/log/lockstep; setsid {daemon} </dev/null >>{log} 2>&1 & "
        ))
        .map(drop)
}

/// A machine's clock, held against this one's.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    here: Instant,
    there_millis: i64,
}

impl Clock {
    /// Asks a machine what time it is.
    ///
    /// # Errors
    /// If it is off.
    pub fn of(machine: &Machine) -> anyhow::Result<Self> {
        let before = Instant::now();
        let there_millis = machine.exec_ok("date +%s%3N")?.parse()?;
        Ok(Self {
            // In the middle between the question and the answer.
            here: before + before.elapsed() / 2,
            there_millis,
        })
    }

    /// The machine's time at a moment of this one's, in milliseconds.
    ///
    /// # Errors
    /// If they are centuries apart.
    pub fn there(&self, moment: Instant) -> anyhow::Result<i64> {
        let later = moment.checked_duration_since(self.here);
        let earlier = self.here.saturating_duration_since(moment);
        let millis = |apart: Duration| i64::try_from(apart.as_millis());
        Ok(match later {
            Some(later) => self.there_millis + millis(later)?,
            None => self.there_millis - millis(earlier)?,
        })
    }

    /// Seconds from `from` to a moment of the machine's.
    #[must_use]
    pub fn since(&self, there_millis: i64, from: Instant) -> f64 {
        let apart = (there_millis - self.there_millis) as f64 / 1000.0;
        if from >= self.here {
            apart - (from - self.here).as_secs_f64()
        } else {
            apart + (self.here - from).as_secs_f64()
        }
    }
}
