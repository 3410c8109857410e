//! The cluster's configuration: `/etc/lockstep/cluster.toml`, the same on every node.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane_core::failure_detector::Timing;
use controlplane_core::keeper::ArbiterKind;
use controlplane_core::limits::{
    HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, HEARTBEATS_PER_TIMEOUT_MIN, INTERCONNECTS_MAX,
};
use mirror_core::types::NodeId;
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::heartbeat::Interconnect;

mod arbiter;
mod resources;

pub use arbiter::{EtcdFiles, RegisterKeeper};
use arbiter::{EtcdTable, WitnessTable};
use resources::GroupTable;
pub use resources::{Group, Kind, Resource};

const VERSION: u32 = 1;
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// TOML, or a key that does not exist.
    #[error("{}, line {line}: {message}", .path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A value.
    #[error("{}, line {line}: {key} = {value:?} is not allowed: {allowed}", .path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        allowed: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    version: Spanned<u32>,
    nodes: Spanned<BTreeMap<String, NodeTable>>,
    witness: Option<WitnessTable>,
    etcd: Option<EtcdTable>,
    #[serde(default)]
    arbiter: Option<Spanned<String>>,
    #[serde(default)]
    timing: TimingTable,
    groups: Spanned<BTreeMap<String, GroupTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    interconnects: Spanned<Vec<SocketAddr>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimingTable {
    heartbeat_interval_ms: Option<Spanned<u64>>,
    heartbeat_timeout_ms: Option<Spanned<u64>>,
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
    /// Times of the heartbeat.
    pub timing: Timing,
    /// Who decides.
    pub arbiter: ArbiterKind,
    /// Where the registers are, for an arbiter that keeps some.
    pub keeper: Option<RegisterKeeper>,
    /// All groups.
    pub groups: Vec<Group>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the line and what would be right.
    pub fn read(path: &Path, node: &str) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > FILE_BYTES_MAX {
            return Err(failed(io::Error::other(format!("{length} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(path, &text, node)
    }

    /// From the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str, node: &str) -> Result<Self, ConfigError> {
        let place = Place { path, text };
        let file: FileTable = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_path_buf(),
            line: place.line(error.span().map_or(0, |span| span.start)),
            message: error.message().to_string(),
        })?;
        if *file.version.get_ref() != VERSION {
            return Err(place.value(&file.version, "version", "1".to_string()));
        }
        let names: Vec<&String> = file.nodes.get_ref().keys().collect();
        let [first, second] = names.as_slice() else {
            let two = "two nodes, [nodes.NAME] each".to_string();
            return Err(place.value_of(&file.nodes, "nodes", format!("{names:?}"), two));
        };
        let Some(index) = names.iter().position(|name| *name == node) else {
            let allowed = format!("this node is {node:?}; name it, or start with --node");
            return Err(place.value_of(&file.nodes, "nodes", format!("{names:?}"), allowed));
        };
        let peer_name = if index == 0 { second } else { first };
        let nodes = file.nodes.get_ref();
        let interconnects = interconnects(&place, &nodes[node], &nodes[peer_name.as_str()])?;
        let number = |index: usize| NodeId::new(u8::from(index != 0));
        let (Some(me), Some(peer)) = (number(index), number(1 - index)) else {
            return Err(place.value_of(&file.nodes, "nodes", String::new(), String::new()));
        };
        let (arbiter, keeper) =
            arbiter::arbiter(&place, file.arbiter.as_ref(), file.witness, file.etcd)?;
        Ok(Self {
            me,
            peer,
            name: node.to_string(),
            peer_name: (*peer_name).clone(),
            interconnects,
            timing: timing(&place, &file.timing)?,
            arbiter,
            keeper,
            groups: resources::groups(&place, &file.groups, &names)?,
        })
    }
}

struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        before.matches('\n').count() + 1
    }

    fn value<T: ToString>(
        &self,
        value: &Spanned<T>,
        key: &'static str,
        allowed: String,
    ) -> ConfigError {
        self.value_of(value, key, value.get_ref().to_string(), allowed)
    }

    fn value_of<T>(
        &self,
        place: &Spanned<T>,
        key: &'static str,
        value: String,
        allowed: String,
    ) -> ConfigError {
        self.refuse_at(place.span().start, key, &value, allowed)
    }

    /// What the file says there.
    fn at(&self, range: std::ops::Range<usize>) -> &str {
        self.text.get(range).unwrap_or_default()
    }

    fn refuse_at(&self, at: usize, key: &'static str, value: &str, allowed: String) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_path_buf(),
            line: self.line(at),
            key,
            value: value.to_string(),
            allowed,
        }
    }
}

fn interconnects(
    place: &Place<'_>,
    own: &NodeTable,
    peer: &NodeTable,
) -> Result<Vec<Interconnect>, ConfigError> {
    let (ours, theirs) = (own.interconnects.get_ref(), peer.interconnects.get_ref());
    let refuse = |allowed: String| {
        let value = format!("{ours:?}");
        Err(place.value_of(&own.interconnects, "interconnects", value, allowed))
    };
    if ours.is_empty() || ours.len() > INTERCONNECTS_MAX {
        return refuse(format!("1 to {INTERCONNECTS_MAX} addresses with ports"));
    }
    if ours.len() != theirs.len() {
        return refuse(format!("as many as the other node has, {}", theirs.len()));
    }
    let pairs = ours.iter().zip(theirs);
    Ok(pairs
        .map(|(local, peer)| Interconnect {
            local: *local,
            peer: *peer,
        })
        .collect())
}

fn timing(place: &Place<'_>, table: &TimingTable) -> Result<Timing, ConfigError> {
    let millis = |value: &Option<Spanned<u64>>, default: Duration| {
        let value = value.as_ref().map(|value| *value.get_ref());
        value.map_or(default, Duration::from_millis)
    };
    let interval = millis(&table.heartbeat_interval_ms, HEARTBEAT_INTERVAL);
    let timeout = millis(&table.heartbeat_timeout_ms, HEARTBEAT_TIMEOUT);
    let allowed = format!("at least {HEARTBEATS_PER_TIMEOUT_MIN} times heartbeat_interval_ms");
    let given = table
        .heartbeat_timeout_ms
        .as_ref()
        .or(table.heartbeat_interval_ms.as_ref());
    match (Timing::new(interval, timeout), given) {
        (Some(timing), _) => Ok(timing),
        (None, Some(given)) => Err(place.value(given, "heartbeat_timeout_ms", allowed)),
        (None, None) => Err(ConfigError::Syntax {
            path: place.path.to_path_buf(),
            line: 1,
            message: allowed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1

[nodes.node1]
interconnects = ["10.0.0.1:7421", "10.1.0.1:7421"]
[nodes.node2]
interconnects = ["10.0.0.2:7421", "10.1.0.2:7421"]

[witness]
address = "10.0.0.5:7422"

[groups.pg]
volumes = ["data"]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("c.toml"), text, "node2").map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_finds_itself_and_its_peer() {
        let config = parse(GOOD).expect("good");
        assert_eq!(
            (config.me.number(), config.peer_name.as_str()),
            (1, "node1")
        );
        assert_eq!(config.interconnects[1].peer.to_string(), "10.1.0.1:7421");
        assert_eq!(config.arbiter, ArbiterKind::Register);
    }

    #[test]
    fn a_wrong_arbiter_is_refused_with_the_line_and_what_would_be_right() {
        let cases = [
            (
                "address = \"10.0.0.5:7422\"",
                "address = \"10.0.0.5:7422\"\n[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"a\"",
                "c.toml, line 11: etcd = \"\" is not allowed: with [witness] as well, arbiter = \"witness\" or \"etcd\" says which one",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = [\"10.0.0.5:2379\", \"a b:1\"]\nauthority = \"a\"",
                "c.toml, line 9: endpoints = \"a b:1\" is not allowed: HOST:PORT, a name or an address, without https",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = [\"10.0.0.5\"]",
                "c.toml, line 9: endpoints = \"10.0.0.5\" is not allowed: HOST:PORT, a name or an address, without https",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = [\"127.0.0.1:2379\", \"10.0.0.5:2379\"]",
                "c.toml, line 9: endpoints = \"10.0.0.5:2379\" is not allowed: with authority = \"FILE\", who signed etcd's certificates; only a loopback address may do without",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = []",
                "c.toml, line 9: endpoints = \"0 of them\" is not allowed: 1 to 9 addresses, HOST:PORT",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"a\"\nkey = \"k\"",
                "c.toml, line 11: key = \"k\" is not allowed: with certificate = \"FILE\"",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"a\"\nserver_name = \"a b\"",
                "c.toml, line 11: server_name = \"a b\" is not allowed: the name in a certificate",
            ),
            (
                "version = 1",
                "version = 1\narbiter = \"etcd\"",
                "c.toml, line 2: arbiter = \"etcd\" is not allowed: with a table [etcd]",
            ),
            (
                "version = 1",
                "version = 1\narbiter = \"ping\"",
                "c.toml, line 2: arbiter = \"ping\" is not allowed: \"witness\", \"etcd\", \"manual\" or \"none\"",
            ),
        ];
        for (from, to, expected) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_eq!(parse(&text).expect_err("bad"), expected);
        }
    }

    #[test]
    fn every_error_names_the_line_and_what_would_be_right() {
        let cases = [
            (
                "version = 1",
                "version = 2",
                "c.toml, line 1: version = \"2\" is not allowed: 1",
            ),
            (
                ", \"10.1.0.2:7421\"]",
                "]",
                "c.toml, line 6: interconnects = \"[10.0.0.2:7421]\" is not allowed: as many as the other node has, 2",
            ),
            (
                "volumes = [\"data\"]",
                "volumes = []",
                "c.toml, line 12: volumes = \"[]\" is not allowed: the name of at least one volume",
            ),
            (
                "[witness]\naddress = \"10.0.0.5:7422\"",
                "[timing]\nheartbeat_timeout_ms = 500",
                "c.toml, line 9: heartbeat_timeout_ms = \"500\" is not allowed: at least 4 times heartbeat_interval_ms",
            ),
        ];
        for (from, to, expected) in cases {
            let text = GOOD.replace(from, to);
            assert_eq!(parse(&text).expect_err("bad"), expected);
        }
        let unknown = parse(&GOOD.replace("address =", "adress =")).expect_err("bad");
        assert!(
            unknown.starts_with("c.toml, line 9: unknown field `adress`"),
            "{unknown}"
        );
    }
}
