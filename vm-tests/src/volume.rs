//! A mirrored volume on two machines, driven by the same commands that an administrator types.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use vm_guest::record::Kind;

use crate::agent::lock;
use crate::cluster::{Cluster, ClusterBuilder};
use crate::disk::{DiskMode, assert_identical};
use crate::machine::{Machine, Output};
use crate::network::Net;
use crate::scenario::Context;
use crate::wait::wait_until;

const MIB: u64 = 1 << 20;
/// Sizes are small: software emulation copies a few tens of MiB a second.
pub const VOLUME_BYTES: u64 = 96 * MIB;
const METADATA_BYTES: u64 = 8 * MIB;
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const COPY_LIMIT: Duration = Duration::from_secs(180);
const ACKS_LIMIT: Duration = Duration::from_secs(120);
const MIRROR_PORT: u16 = 7420;
/// Name of the volume in every scenario.
pub const NAME: &str = "data";
/// The device that applications use.
pub const DEVICE: &str = "/dev/lockstep/data";

/// The disks of a pair: data and metadata, both with a volatile cache.
#[must_use]
pub fn with_disks(builder: ClusterBuilder, volume_bytes: u64) -> ClusterBuilder {
    builder
        .disk("data", volume_bytes, DiskMode::Volatile)
        .disk("meta", METADATA_BYTES, DiskMode::Volatile)
        .module("dm_mod")
}

/// Two machines with the product and disks for a volume.
///
/// # Errors
/// If they do not boot.
pub fn machines(context: &Context, volume_bytes: u64) -> anyhow::Result<Cluster> {
    with_disks(context.cluster(), volume_bytes)
        .binaries(&context.product()?)
        .boot()
}

/// Where the nodes keep the key that they share.
pub const KEY_FILE: &str = "/etc/lockstep/cluster.key";
const CONFIG_FILES: [&str; 2] = [KEY_FILE, "/etc/lockstep/volumes/data.toml"];

/// Two machines with a volume.
pub struct Pair {
    /// The machines.
    pub cluster: Cluster,
    /// The networks of the mirror link, one for each path.
    nets: Vec<Net>,
    /// What must be put back after a reboot: the machines' root is fresh at every boot.
    kept: Mutex<Vec<KeptFile>>,
    /// The backing device, if it is not the data disk.
    backing: Option<String>,
}

struct KeptFile {
    node: String,
    path: String,
    bytes: Vec<u8>,
}

impl Pair {
    /// Makes the volume on both nodes and starts both daemons. It is not active anywhere yet.
    ///
    /// # Errors
    /// If a command fails.
    pub fn create(cluster: Cluster) -> anyhow::Result<Self> {
        Self::create_over(cluster, &[Net::Mirror], None)
    }

    /// The same over another backing device than the data disk itself.
    ///
    /// # Errors
    /// If a command fails.
    pub fn create_on(cluster: Cluster, backing: &str) -> anyhow::Result<Self> {
        Self::create_over(cluster, &[Net::Mirror], Some(backing.to_owned()))
    }

    /// With a path of the mirror link on each of these networks.
    fn create_over(
        cluster: Cluster,
        nets: &[Net],
        backing: Option<String>,
    ) -> anyhow::Result<Self> {
        let pair = Self {
            cluster,
            nets: nets.to_vec(),
            kept: Mutex::default(),
            backing,
        };
        let (one, two) = (pair.one(), pair.two());
        one.exec_ok(&pair.create_command(one, two, ""))?;
        pair.copy_key(one, two)?;
        two.exec_ok(&pair.create_command(two, one, "--join"))?;
        pair.keep_files()?;
        pair.start(one)?;
        pair.start(two)?;
        Ok(pair)
    }

    /// Boots two machines with a volume that is served by the first.
    ///
    /// # Errors
    /// If a machine does not boot or a command fails.
    pub fn boot(context: &Context) -> anyhow::Result<Self> {
        Self::boot_sized(context, VOLUME_BYTES)
    }

    /// The same with a volume of another size.
    ///
    /// # Errors
    /// If a machine does not boot or a command fails.
    pub fn boot_sized(context: &Context, volume_bytes: u64) -> anyhow::Result<Self> {
        Self::active(machines(context, volume_bytes)?)
    }

    /// Makes the volume, waits for the first copy, and activates it on the first node.
    ///
    /// # Errors
    /// If a command fails.
    pub fn active(cluster: Cluster) -> anyhow::Result<Self> {
        Self::active_on(cluster, &[Net::Mirror])
    }

    /// The same with a path of the mirror link on each of these networks.
    ///
    /// # Errors
    /// If a command fails.
    pub fn active_on(cluster: Cluster, nets: &[Net]) -> anyhow::Result<Self> {
        let pair = Self::create_over(cluster, nets, None)?;
        pair.wait_in_sync()?;
        pair.lockstep(pair.one(), "activate")?;
        Ok(pair)
    }

    /// Makes the volume on both nodes, where `lockstepd` runs and the key was handed over: nothing else is typed, and the
    /// volume comes to be served by the first node.
    ///
    /// # Errors
    /// If a command fails, or it does not come to that.
    pub fn made(cluster: Cluster) -> anyhow::Result<Self> {
        let pair = Self::by_hand(cluster);
        let (one, two) = (pair.one(), pair.two());
        one.exec_ok(&pair.create_command(one, two, ""))?;
        two.exec_ok(&pair.create_command(two, one, "--join"))?;
        pair.keep_files()?;
        for node in [one, two] {
            pair.wait_answer(node)?;
        }
        pair.wait_status(one, "/role", "active")?;
        pair.wait_in_sync()?;
        Ok(pair)
    }

    /// Machines on which somebody makes the volume by hand, with whatever is typed.
    #[must_use]
    pub fn by_hand(cluster: Cluster) -> Self {
        Self {
            cluster,
            nets: vec![Net::Mirror],
            kept: Mutex::default(),
            backing: None,
        }
    }

    /// The command that makes a node's copy.
    #[must_use]
    pub fn create_command(&self, node: &Machine, peer: &Machine, more: &str) -> String {
        let end = |machine: &Machine| {
            let address = |net: &Net| format!("{}:{MIRROR_PORT}", machine.address(*net));
            let addresses: Vec<String> = self.nets.iter().map(address).collect();
            format!("{}={}", machine.name(), addresses.join(","))
        };
        format!(
            "lockstep volume create {NAME} --backing {} --metadata {} --node {} --peer {} {more}",
            self.backing
                .clone()
                .unwrap_or_else(|| node.disk_path("data")),
            node.disk_path("meta"),
            end(node),
            end(peer)
        )
    }

    fn keep_files(&self) -> anyhow::Result<()> {
        for node in [self.one(), self.two()] {
            for path in CONFIG_FILES {
                self.keep(node, path, node.get(path, 0, 64 * 1024)?);
            }
        }
        Ok(())
    }

    /// Remembers a file that is put back when the node boots again.
    pub fn keep(&self, node: &Machine, path: &str, bytes: Vec<u8>) {
        lock(&self.kept).push(KeptFile {
            node: node.name().to_owned(),
            path: path.to_owned(),
            bytes,
        });
    }

    /// Powers a node on again and puts its configuration back.
    ///
    /// # Errors
    /// If it does not boot.
    pub fn boot_again(&self, node: &Machine) -> anyhow::Result<()> {
        node.power_on()?;
        for file in lock(&self.kept).iter() {
            if file.node == node.name() {
                node.put(&file.path, 0o600, &file.bytes)?;
            }
        }
        Ok(())
    }

    /// Powers a node on again and starts its daemon.
    ///
    /// # Errors
    /// If it does not boot or the daemon does not start.
    pub fn bring_back(&self, node: &Machine) -> anyhow::Result<()> {
        self.boot_again(node)?;
        self.start(node)
    }

    /// The operator's word on `node` that the other one is off.
    ///
    /// # Errors
    /// If it is refused.
    pub fn takeover(&self, node: &Machine) -> anyhow::Result<()> {
        let dead = self.other(node).name();
        self.lockstep(node, &format!("takeover --confirm '{dead} is off'"))
            .map(drop)
    }

    /// Waits until a writer has so many writes acknowledged.
    ///
    /// # Errors
    /// If it does not come to that, with both logs.
    pub fn wait_acks(&self, run: u32, acks: usize) -> anyhow::Result<()> {
        let enough = || Ok(self.cluster.ledger(&[run]).count(Kind::Ack) >= acks);
        wait_until(ACKS_LIMIT, "acknowledged writes", enough)
            .with_context(|| self.logs())
            .map(drop)
    }

    fn copy_key(&self, from: &Machine, to: &Machine) -> anyhow::Result<()> {
        let key = from.get(KEY_FILE, 0, 4096)?;
        to.put(KEY_FILE, 0o600, &key)
    }

    /// The first node.
    #[must_use]
    pub fn one(&self) -> &Machine {
        self.cluster.machine("node1")
    }

    /// The second node.
    #[must_use]
    pub fn two(&self) -> &Machine {
        self.cluster.machine("node2")
    }

    /// The other one.
    #[must_use]
    pub fn other(&self, machine: &Machine) -> &Machine {
        if machine.name() == "node1" {
            self.two()
        } else {
            self.one()
        }
    }

    /// Starts a node's daemon.
    ///
    /// # Errors
    /// If it does not start; its log is part of the error.
    pub fn start(&self, node: &Machine) -> anyhow::Result<()> {
        self.lockstep(node, "start").map(drop)
    }

    /// `lockstep volume VERB data ...`, which must succeed.
    ///
    /// # Errors
    /// If it fails, with both logs.
    pub fn lockstep(&self, node: &Machine, words: &str) -> anyhow::Result<String> {
        let output = self.try_lockstep(node, words)?;
        if !output.ok() {
            bail!(
                "{}: lockstep volume {words}: {output:?}\n{}",
                node.name(),
                self.logs()
            );
        }
        Ok(output.stdout)
    }

    /// The same, whatever comes of it. `words` is the verb and what follows the volume's name.
    ///
    /// # Errors
    /// If the machine is gone.
    pub fn try_lockstep(&self, node: &Machine, words: &str) -> anyhow::Result<Output> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        node.exec(
            &format!("lockstep volume {verb} {NAME} {rest}"),
            COMMAND_LIMIT,
        )
    }

    /// A command that must be refused with this code and must say what to do.
    ///
    /// # Errors
    /// If it is not refused, or not so.
    pub fn refused(&self, node: &Machine, words: &str, code: &str) -> anyhow::Result<()> {
        let output = self.try_lockstep(node, words)?;
        ensure!(
            output.code == 1 && output.stderr.contains(code) && output.stderr.lines().count() >= 2,
            "`{words}` on {} should be refused with {code}: {output:?}",
            node.name()
        );
        Ok(())
    }

    /// The status document of a node.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn status(&self, node: &Machine) -> anyhow::Result<Value> {
        let output = self.try_lockstep(node, "status --json")?;
        let parsed = serde_json::from_str(&output.stdout);
        parsed.with_context(|| format!("status of {}: {output:?}", node.name()))
    }

    /// Waits until a node's status has `value` at `pointer` (RFC 6901).
    ///
    /// # Errors
    /// If it does not come to that, with the last status.
    pub fn wait_status(
        &self,
        node: &Machine,
        pointer: &str,
        value: &str,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut last = Value::Null;
        let what = format!("{pointer} = {value} on {}", node.name());
        let waited = wait_until(COPY_LIMIT, &what, || {
            last = self.status(node)?;
            let found = last.pointer(pointer);
            Ok(found.and_then(Value::as_str) == Some(value))
        });
        waited.with_context(|| format!("{last:#}\n{}", self.logs()))?;
        Ok(start.elapsed())
    }

    /// Waits until a node's daemon answers, which somebody else starts.
    ///
    /// # Errors
    /// If it does not.
    pub fn wait_answer(&self, node: &Machine) -> anyhow::Result<()> {
        let what = format!("the daemon on {} answers", node.name());
        let answers = || Ok(self.status(node).is_ok());
        wait_until(COMMAND_LIMIT, &what, answers)
            .with_context(|| self.logs())
            .map(drop)
    }

    /// Waits until both copies count, as both nodes see it.
    ///
    /// # Errors
    /// If they do not.
    pub fn wait_in_sync(&self) -> anyhow::Result<()> {
        for node in [self.one(), self.two()] {
            self.wait_status(node, "/link/state", "up")?;
            self.wait_status(node, "/copy", "in-sync")?;
            self.wait_status(node, "/peer_copy", "in-sync")?;
        }
        Ok(())
    }

    /// Both data disks hold the same bytes, unflushed ones included. Nothing may be written meanwhile.
    ///
    /// # Errors
    /// If they differ, with the first difference.
    pub fn assert_equal_copies(&self) -> anyhow::Result<()> {
        let size = self.volume_bytes()?;
        assert_identical(self.one().disk("data")?, self.two().disk("data")?, 0..size)
            .context("the copies differ")
    }

    /// Size of the volume.
    ///
    /// # Errors
    /// If no daemon answers.
    pub fn volume_bytes(&self) -> anyhow::Result<u64> {
        let asked = self
            .status(self.one())
            .or_else(|_| self.status(self.two()))?;
        asked["size_bytes"]
            .as_u64()
            .context("no size in the status")
    }

    /// What both daemons logged last.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for node in [self.one(), self.two()] {
            let command = format!("tail -n 25 /var/log/lockstep/{NAME}.log");
            let said = node.exec(&command, Duration::from_secs(10));
            let text = said.map_or_else(|error| error.to_string(), |output| output.stdout);
            all.push_str(&format!("--- log of {} ---\n{text}", node.name()));
        }
        all
    }
}
