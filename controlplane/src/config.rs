//! The cluster's configuration: `/etc/lockstep/cluster.toml`, the same on every node.
//!
//! `shape` says what may be in it, `reader` compares the file with that, `nodes`, `arbiter` and `resources` look at what
//! belongs together and make a [`Cluster`] of it. All that is wrong is told at once ([`ConfigError`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane_core::failure_detector::Timing;
use controlplane_core::keeper::ArbiterKind;
use controlplane_core::self_fencing::LATE_ANSWER;
use controlplane_core::timeouts::Span;
use mirror_core::types::NodeId;

use crate::heartbeat::Interconnect;

mod advice;
mod arbiter;
mod findings;
mod format;
mod local;
mod monitors;
mod nodes;
mod plan;
mod reader;
mod render;
mod resources;
mod schema;
mod shape;
mod spot;
mod summary;
mod syntax;
mod watchdog;

pub use arbiter::{EtcdFiles, RegisterKeeper};
pub use findings::{ConfigError, Finding, Findings, Severity};
pub use local::Here;
pub use monitors::Monitor;
pub use nodes::Node;
pub use plan::{Change, Level, Plan, plan};
use reader::Reader;
pub use render::plain;
pub use resources::{Group, Kind, Resource};
pub use schema::schema;
use spot::Spot;
pub use watchdog::Watchdog;

const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a file says, whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Both, by name: the first one is number 0.
    pub nodes: [Node; 2],
    /// Times of the heartbeat.
    pub timing: Timing,
    /// Who decides.
    pub arbiter: ArbiterKind,
    /// Where the registers are, for an arbiter that keeps some.
    pub keeper: Option<RegisterKeeper>,
    /// The targets of the arbiter `ping`.
    pub ping: Vec<IpAddr>,
    /// Ping targets in the clients' networks: nothing is taken over while none of them answers.
    pub clients: Vec<IpAddr>,
    /// All groups.
    pub groups: Vec<Group>,
}

/// A file that can be used.
#[derive(Debug)]
pub struct Checked {
    /// What it says.
    pub cluster: Cluster,
    /// Warnings.
    pub findings: Findings,
    places: BTreeMap<String, Range<usize>>,
}

/// The configuration, from the point of view of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// The other one.
    pub peer: NodeId,
    /// This node's name.
    pub name: String,
    /// The other one's name.
    pub peer_name: String,
    /// In their order.
    pub interconnects: Vec<Interconnect>,
    /// Times of the heartbeat: the peer counts as dead by them.
    pub timing: Timing,
    /// This node goes on for so long without the peer or the arbiter: the heartbeat's timeout, or less while another one
    /// is being pushed.
    pub lease: Duration,
    /// Who decides.
    pub arbiter: ArbiterKind,
    /// Where the registers are, for an arbiter that keeps some.
    pub keeper: Option<RegisterKeeper>,
    /// The targets of the arbiter `ping`.
    pub ping: Vec<IpAddr>,
    /// Ping targets in the clients' networks: nothing is taken over while none of them answers.
    pub clients: Vec<IpAddr>,
    /// What resets this node if its services do not stop in time.
    pub watchdog: Option<Watchdog>,
    /// All groups.
    pub groups: Vec<Group>,
    /// Where the file is: what is known of this node's volumes is beside it.
    pub directory: PathBuf,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with all that is wrong.
    pub fn read(path: &Path, node: &str) -> Result<Self, ConfigError> {
        Checked::read(path)?.of(node)
    }

    /// From the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str, node: &str) -> Result<Self, ConfigError> {
        Checked::parse(path, text.as_bytes())?.of(node)
    }
}

impl Config {
    /// The times by which timeouts are raised.
    pub fn span(&self) -> Span {
        let waits = self.groups.iter().map(|group| group.policy.takeover_wait);
        Span {
            timeout: self.timing.timeout,
            lease: self.lease,
            leases: self.arbiter.leases(),
            takeover_wait: waits.max().unwrap_or_default(),
        }
    }
}

impl Checked {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with all that is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = bytes_of(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(path, &bytes)
    }

    /// From the bytes of a file. Any bytes will do.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(too_large(path));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return Err(not_utf8(path, bytes, error.valid_up_to())),
        };
        let mut reader = Reader {
            findings: Findings::new(path, text),
            places: BTreeMap::new(),
        };
        let cluster = cluster(&mut reader, text);
        let Reader {
            mut findings,
            places,
        } = reader;
        match cluster {
            Some(cluster) if findings.errors() == 0 => {
                advice::warn(&cluster, &places, &mut findings);
                findings.sort();
                Ok(Self {
                    cluster,
                    findings,
                    places,
                })
            }
            Some(_) | None => {
                assert!(findings.errors() > 0, "refused without a reason");
                findings.sort();
                Err(ConfigError(findings))
            }
        }
    }

    /// Says that this is none of the nodes.
    pub fn not_a_node(&self, node: &str) -> ConfigError {
        let place = self.places.get("nodes").cloned().unwrap_or(0..0);
        let [one, two] = self.cluster.nodes.each_ref().map(|node| &node.name);
        let what = format!("this node is {node:?}, and the nodes are {one:?} and {two:?}");
        let finding = Finding::error(findings::NOT_A_NODE, "nodes", place, what)
            .why("without --node the name of this machine counts")
            // No guess: a machine that runs as the wrong node would be both.
            .advice("name it in the file, or say which one this is with --node NAME");
        let mut findings = Findings::new(&self.findings.path, &self.findings.text);
        findings.add(finding);
        ConfigError(findings)
    }

    /// From the point of view of one node.
    ///
    /// # Errors
    /// It is none of the nodes.
    pub fn of(self, node: &str) -> Result<Config, ConfigError> {
        let mut names = self.cluster.nodes.iter().map(|node| node.name.as_str());
        let Some(index) = names.position(|name| name == node) else {
            return Err(self.not_a_node(node));
        };
        let mut cluster = self.cluster;
        let waits = cluster.groups.iter();
        let waits: Vec<_> = waits
            .map(|group| watchdog::wait_for(&cluster, group, 1 - index))
            .collect();
        for (group, wait) in cluster.groups.iter_mut().zip(waits) {
            group.policy.takeover_wait = wait;
            group.policy.living_wait = group.policy.doubt_grace + LATE_ANSWER;
        }
        let Cluster {
            nodes,
            timing,
            arbiter,
            keeper,
            ping,
            clients,
            groups,
        } = cluster;
        let directory = self.findings.path.parent().map(Path::to_path_buf);
        let [first, second] = nodes;
        let (own, peer) = if index == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let pairs = own.interconnects.iter().zip(&peer.interconnects);
        let interconnects = pairs.map(|(local, peer)| Interconnect {
            local: *local,
            peer: *peer,
        });
        Ok(Config {
            me: own.number,
            peer: peer.number,
            interconnects: interconnects.collect(),
            name: own.name,
            peer_name: peer.name,
            lease: timing.timeout,
            timing,
            arbiter,
            keeper,
            ping,
            clients,
            watchdog: own.watchdog,
            groups,
            directory: directory.unwrap_or_default(),
        })
    }

    /// Warns also of what does not fit this machine.
    pub fn look(&mut self, here: &Here) {
        local::warn(here, &self.cluster, &self.places, &mut self.findings);
        self.findings.sort();
    }

    /// What the file means, for people.
    pub fn summary(&self) -> String {
        render::harmless(&summary::text(&self.cluster))
    }

    /// What the file means, for programs.
    pub fn summary_json(&self) -> serde_json::Value {
        summary::json(&self.cluster)
    }
}

fn cluster(reader: &mut Reader, text: &str) -> Option<Cluster> {
    let toml = reader.toml(text)?;
    let root = Spot::root(&toml);
    if !reader.file(&root) {
        return None;
    }
    // Each is looked at, whatever the others found.
    let nodes = nodes::nodes(reader, &root);
    let timing = nodes::timing(reader, &root);
    let arbiter = arbiter::arbiter(reader, &root);
    let groups = resources::groups(reader, &root, nodes::names(&root).as_ref());
    let ping = arbiter::targets(reader, &root, "ping", nodes.as_ref());
    let clients = arbiter::targets(reader, &root, "clients", nodes.as_ref());
    let (arbiter, keeper) = arbiter?;
    Some(Cluster {
        nodes: nodes?,
        timing: timing?,
        arbiter,
        keeper,
        // As with a table of another arbiter, what is not used is left out.
        ping: ping
            .into_iter()
            .filter(|_| arbiter == ArbiterKind::Ping)
            .collect(),
        clients,
        groups: groups?,
    })
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed: a file that grows meanwhile, or has no length, is bounded as well.
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refused(path: &Path, text: &str, finding: Finding) -> ConfigError {
    let mut findings = Findings::new(path, text);
    findings.add(finding);
    ConfigError(findings)
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let is = |kind| error.kind() == kind;
    let (what, why, advice) = if is(io::ErrorKind::NotFound) {
        (
            "the file does not exist",
            "without it nobody knows the nodes".to_string(),
            "write it, the same on both nodes: docs/controlplane.md has an example; or name another file",
        )
    } else if is(io::ErrorKind::PermissionDenied) {
        (
            "the file may not be read",
            "it belongs to somebody else".to_string(),
            "run the command as root, or mend the file's owner and mode",
        )
    } else if is(io::ErrorKind::IsADirectory) {
        (
            "this is a directory",
            "the configuration is one file".to_string(),
            "name the file in it",
        )
    } else {
        (
            "the file cannot be read",
            error.to_string(),
            "see that its file system is there and sound",
        )
    };
    let finding = Finding::of_file(findings::UNREADABLE, what);
    refused(path, "", finding.why(why).advice(advice))
}

fn too_large(path: &Path) -> ConfigError {
    let what = format!("the file has more than {FILE_BYTES_MAX} bytes");
    let finding = Finding::of_file(findings::UNREADABLE, what)
        .why("no configuration is so large")
        .advice("see whether it is the right file");
    refused(path, "", finding)
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> ConfigError {
    // What comes before is the same; the byte itself is a replacement character.
    let text = String::from_utf8_lossy(bytes);
    let place = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
    let byte = bytes.get(at).copied().unwrap_or_default();
    let what = format!("the byte 0x{byte:02x} is not UTF-8");
    let finding = Finding::error(findings::UNREADABLE, "", place, what)
        .why("TOML is UTF-8")
        .advice("save the file as UTF-8, or remove the byte");
    refused(path, &text, finding)
}
