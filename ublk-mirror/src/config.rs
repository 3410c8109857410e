//! The configuration of one volume: `/etc/lockstep/volumes/NAME.toml`.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirror_core::disk::{self, KEY_BYTES_MIN, KeysFault};
use mirror_core::keys::Keys;
use mirror_core::limits::{DISK_TIMEOUT_DEFAULT_MS, VOLUME_NAME_BYTES_MAX};
use mirror_core::paths::PATHS_MAX;
use mirror_core::types::NodeId;
use serde::Deserialize;
use thiserror::Error;

use crate::device::ISOLATED_SUFFIX;
use toml::Spanned;

use crate::explain::Explain;

const CONFIG_VERSION: u32 = 1;
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// Bits of a key file's mode that would let others read it.
const FOREIGN_READ_MODE: u32 = 0o077;

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}, line {line}: {message}", .path.display())]
    UnknownKey {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}, line {line}: {message}", .path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}, line {line}: {key} = {value:?} is not allowed: {allowed}", .path.display())]
    Value {
        path: PathBuf,
        line: usize,
        key: &'static str,
        value: String,
        allowed: String,
    },
    #[error("{}, line {line}: node and peer do not make pairs of addresses: {why}", .path.display())]
    Pairs {
        path: PathBuf,
        line: usize,
        why: String,
    },
    #[error("cannot read key_file {}", .path.display())]
    KeyRead {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("key_file {} can be read by others (mode {mode:o})", .path.display())]
    KeyMode { path: PathBuf, mode: u32 },
    #[error("key_file {} has {bytes} bytes, at least {KEY_BYTES_MIN} are needed", .path.display())]
    KeyShort { path: PathBuf, bytes: usize },
    #[error("key_file {} cannot be used: {fault}", .path.display())]
    KeyDamaged { path: PathBuf, fault: KeysFault },
}

impl Explain for ConfigError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownKey { .. } => "LS5001",
            Self::Syntax { .. } | Self::Value { .. } => "LS5002",
            Self::Pairs { .. } => "LS5070",
            Self::Read { .. } => "LS5003",
            Self::KeyRead { .. } | Self::KeyMode { .. } | Self::KeyShort { .. } => "LS5004",
            Self::KeyDamaged { .. } => "LS6258",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::UnknownKey { .. } => "correct the key's name or remove the line".into(),
            Self::Syntax { .. } | Self::Value { .. } => {
                "correct the line, then `ublk-mirror check --config FILE`".into()
            }
            Self::Pairs { .. } => {
                "give node and peer one address each, or two each: the first of one is connected with the first of the other, \
                 the second with the second"
                    .into()
            }
            Self::Read { .. } => {
                "write the file /etc/lockstep/volumes/NAME.toml, or name another with --config"
                    .into()
            }
            Self::KeyRead { .. } => {
                "copy the cluster's key file here; it must be the same on both nodes".into()
            }
            Self::KeyMode { path, .. } => {
                format!("chown root:root {0} && chmod 600 {0}", path.display())
            }
            Self::KeyDamaged { .. } => {
                "copy the file from the other node (scp -p), if both are of one release; it was rotated there as well".into()
            }
            Self::KeyShort { path, .. } => {
                format!(
                    "make a new one with `head -c 64 /dev/urandom > {}` and copy it to both nodes",
                    path.display()
                )
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File1 {
    version: Spanned<u32>,
    volume: Spanned<String>,
    backing: Spanned<PathBuf>,
    metadata: Spanned<String>,
    key_file: Spanned<PathBuf>,
    node: NodeTable,
    peer: NodeTable,
    #[serde(default)]
    tuning: TuningTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: Spanned<String>,
    address: Spanned<Addresses>,
}

/// One address, or one for each path of the link.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected an address such as \"10.0.0.1:7420\", or a list of two"
)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningTable {
    keepalive_interval_ms: Option<Spanned<u64>>,
    link_timeout_ms: Option<Spanned<u64>>,
    read_lease_ms: Option<Spanned<u64>>,
    disk_timeout_ms: Option<Spanned<u64>>,
}

/// One side of the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// One for each path of the link, in the same order on both sides.
    pub addresses: Vec<SocketAddr>,
}

/// How quick the link and the disks are to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    pub keepalive_interval: Duration,
    pub link_timeout: Duration,
    pub read_lease: Duration,
    /// A disk operation that takes longer is given up, and the disk counts as failed.
    pub disk_timeout: Duration,
}

/// A volume's configuration, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub path: PathBuf,
    pub volume: String,
    pub backing: PathBuf,
    /// None: in front of the data.
    pub metadata: Option<PathBuf>,
    pub key_file: PathBuf,
    pub node: Node,
    pub peer: Node,
    pub tuning: Tuning,
    keys: Option<Keys>,
}

/// The key does not belong into a log.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

impl Config {
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = File::open(path).map_err(read)?;
        file.take(CONFIG_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(read)?;
        let mut config = Self::parse(path, &text)?;
        config.keys = Some(read_keys(&config.key_file)?);
        Ok(config)
    }

    /// What the text of the file `path` says. The key is not read: [`Self::keys`] may not be asked for.
    pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let raw: File1 = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
        Lines { path, text }.config(raw)
    }

    /// Which device holds the metadata.
    pub fn metadata_path(&self) -> &Path {
        self.metadata.as_deref().unwrap_or(&self.backing)
    }

    pub fn metadata_is_internal(&self) -> bool {
        self.metadata.is_none()
    }

    /// With what this node and its peer prove that they belong to the cluster.
    ///
    /// # Panics
    /// If the configuration was not loaded from a file.
    pub fn keys(&self) -> Keys {
        self.keys.expect("a loaded configuration has its keys")
    }

    /// This node's number: the lower name is node 0.
    pub fn node_id(&self) -> NodeId {
        number(self.node.name > self.peer.name)
    }

    pub fn peer_id(&self) -> NodeId {
        number(self.peer.name > self.node.name)
    }

    /// The volume's name as the formats hold it.
    pub fn padded_name(&self) -> [u8; VOLUME_NAME_BYTES_MAX] {
        let mut padded = [0; VOLUME_NAME_BYTES_MAX];
        padded[..self.volume.len()].copy_from_slice(self.volume.as_bytes());
        padded
    }
}

fn number(second: bool) -> NodeId {
    NodeId::new(u8::from(second)).expect("0 and 1 are node numbers")
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let path = path.to_owned();
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let message = error.message().replace('\n', "; ");
    if message.starts_with("unknown field") {
        ConfigError::UnknownKey {
            path,
            line,
            message: message.replace("unknown field", "unknown key"),
        }
    } else {
        ConfigError::Syntax {
            path,
            line,
            message: message.replace("missing field", "missing key"),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn config(&self, raw: File1) -> Result<Config, ConfigError> {
        if *raw.version.get_ref() != CONFIG_VERSION {
            let value = raw.version.get_ref().to_string();
            return Err(self.value(
                "version",
                &raw.version,
                value,
                format!("this program knows {CONFIG_VERSION}"),
            ));
        }
        self.name("volume", &raw.volume)?;
        let backing = self.absolute("backing", &raw.backing)?;
        let metadata = match raw.metadata.get_ref().as_str() {
            "internal" => None,
            path if Path::new(path).is_absolute() && Path::new(path) != backing => {
                Some(PathBuf::from(path))
            }
            other => {
                let allowed =
                    "\"internal\", or the absolute path of a device other than `backing`".into();
                return Err(self.value("metadata", &raw.metadata, other.into(), allowed));
            }
        };
        let node = self.node(&raw.node)?;
        let peer = self.node(&raw.peer)?;
        if node.name == peer.name {
            return Err(self.value(
                "name",
                &raw.peer.name,
                peer.name,
                "the peer needs another name".into(),
            ));
        }
        self.pairs(&raw, &node, &peer)?;
        Ok(Config {
            path: self.path.to_owned(),
            volume: raw.volume.into_inner(),
            backing,
            metadata,
            key_file: self.absolute("key_file", &raw.key_file)?,
            node,
            peer,
            tuning: self.tuning(&raw.tuning)?,
            keys: None,
        })
    }

    fn tuning(&self, raw: &TuningTable) -> Result<Tuning, ConfigError> {
        let keepalive = self.millis(
            "keepalive_interval_ms",
            raw.keepalive_interval_ms.as_ref(),
            500,
            50,
            10_000,
        )?;
        let floor = keepalive.saturating_mul(2);
        let timeout = self.millis(
            "link_timeout_ms",
            raw.link_timeout_ms.as_ref(),
            3000.max(floor),
            floor,
            60_000,
        )?;
        let lease = self.millis(
            "read_lease_ms",
            raw.read_lease_ms.as_ref(),
            2000.clamp(floor, timeout),
            floor,
            timeout,
        )?;
        let disk = self.millis(
            "disk_timeout_ms",
            raw.disk_timeout_ms.as_ref(),
            DISK_TIMEOUT_DEFAULT_MS,
            1000,
            600_000,
        )?;
        Ok(Tuning {
            keepalive_interval: Duration::from_millis(keepalive),
            link_timeout: Duration::from_millis(timeout),
            read_lease: Duration::from_millis(lease),
            disk_timeout: Duration::from_millis(disk),
        })
    }

    fn millis(
        &self,
        key: &'static str,
        raw: Option<&Spanned<u64>>,
        default: u64,
        least: u64,
        most: u64,
    ) -> Result<u64, ConfigError> {
        let Some(raw) = raw else { return Ok(default) };
        let value = *raw.get_ref();
        if !(least..=most).contains(&value) {
            return Err(self.value(key, raw, value.to_string(), format!("{least} to {most}")));
        }
        Ok(value)
    }

    fn node(&self, raw: &NodeTable) -> Result<Node, ConfigError> {
        self.name("name", &raw.name)?;
        let texts = match raw.address.get_ref() {
            Addresses::One(text) => std::slice::from_ref(text),
            Addresses::Several(texts) => texts.as_slice(),
        };
        if !(1..=PATHS_MAX).contains(&texts.len()) {
            let allowed = format!("1 to {PATHS_MAX} addresses");
            return Err(self.value("address", &raw.address, texts.join(", "), allowed));
        }
        let mut addresses = Vec::new();
        for text in texts {
            let address = text
                .parse::<SocketAddr>()
                .ok()
                .filter(|address| address.port() != 0);
            let Some(address) = address else {
                let allowed =
                    "an IP address and a port, such as \"10.0.0.1:7420\" or \"[fd00::1]:7420\""
                        .into();
                return Err(self.value("address", &raw.address, text.clone(), allowed));
            };
            addresses.push(address);
        }
        Ok(Node {
            name: raw.name.get_ref().clone(),
            addresses,
        })
    }

    /// The addresses make one or two pairs, and none is there twice.
    fn pairs(&self, raw: &File1, node: &Node, peer: &Node) -> Result<(), ConfigError> {
        let wrong = |raw: &NodeTable, why| ConfigError::Pairs {
            path: self.path.to_owned(),
            line: line_of(self.text, raw.address.span().start),
            why,
        };
        let (ours, theirs) = (node.addresses.len(), peer.addresses.len());
        if ours != theirs {
            let (node, peer) = (&node.name, &peer.name);
            let why = format!("{node} has {ours} and {peer} has {theirs}");
            return Err(wrong(&raw.peer, why));
        }
        for (place, address) in node.addresses.iter().enumerate() {
            if node.addresses[..place].contains(address) {
                let why = format!("{} has {address} twice", node.name);
                return Err(wrong(&raw.node, why));
            }
        }
        for (place, address) in peer.addresses.iter().enumerate() {
            if peer.addresses[..place].contains(address) {
                let why = format!("{} has {address} twice", peer.name);
                return Err(wrong(&raw.peer, why));
            }
            if node.addresses.contains(address) {
                let why = format!("both nodes have {address}");
                return Err(wrong(&raw.peer, why));
            }
        }
        Ok(())
    }

    fn name(&self, key: &'static str, raw: &Spanned<String>) -> Result<(), ConfigError> {
        let name = raw.get_ref();
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let short = (1..VOLUME_NAME_BYTES_MAX).contains(&name.len());
        // That is the name of the device of another volume's isolated copy.
        let reserved = name.ends_with(ISOLATED_SUFFIX);
        if short && name.bytes().all(allowed) && !name.starts_with('.') && !reserved {
            return Ok(());
        }
        let allowed = "1 to 63 of a-z, 0-9, `-`, `_` and `.`, not starting with `.`, not ending with `.isolated`".into();
        Err(self.value(key, raw, name.clone(), allowed))
    }

    fn absolute(&self, key: &'static str, raw: &Spanned<PathBuf>) -> Result<PathBuf, ConfigError> {
        let path = raw.get_ref();
        if path.is_absolute() {
            return Ok(path.clone());
        }
        Err(self.value(
            key,
            raw,
            path.display().to_string(),
            "an absolute path".into(),
        ))
    }

    fn value<T>(
        &self,
        key: &'static str,
        raw: &Spanned<T>,
        value: String,
        allowed: String,
    ) -> ConfigError {
        let line = line_of(self.text, raw.span().start);
        ConfigError::Value {
            path: self.path.to_owned(),
            line,
            key,
            value,
            allowed,
        }
    }
}

/// What a key file holds.
///
/// # Errors
/// Those of [`ConfigError`] that are about a key.
pub fn read_keys(path: &Path) -> Result<Keys, ConfigError> {
    let failed = |source| ConfigError::KeyRead {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & FOREIGN_READ_MODE != 0 {
        return Err(ConfigError::KeyMode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    disk::read_keys(&bytes).map_err(|fault| match fault {
        KeysFault::Short { bytes } => ConfigError::KeyShort {
            path: path.to_owned(),
            bytes,
        },
        KeysFault::Length { .. }
        | KeysFault::Version(_)
        | KeysFault::Checksum
        | KeysFault::Content => ConfigError::KeyDamaged {
            path: path.to_owned(),
            fault,
        },
    })
}

#[cfg(test)]
mod tests;
