//! What is wrong with metadata, and what to do.

use std::io;
use std::path::PathBuf;

use mirror_core::disk::SuperblockError;
use thiserror::Error;

use crate::explain::Explain;

/// Why the metadata does not serve.
#[derive(Debug, Error)]
pub enum MetadataError {
    #[error("cannot {action} the metadata on {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no metadata of Lockstep", .path.display())]
    Missing { path: PathBuf },
    #[error("both superblocks on {} are unusable", .path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: SuperblockError,
    },
    #[error("the metadata on {} was written by a newer program", .path.display())]
    Newer {
        path: PathBuf,
        #[source]
        source: SuperblockError,
    },
    #[error("the metadata on {} belongs to a cluster with another key (id {found}, the key file gives {ours})", .path.display())]
    Key {
        path: PathBuf,
        found: String,
        ours: String,
    },
    #[error("the metadata on {} belongs to volume {found:?}, the configuration says {ours:?}", .path.display())]
    Volume {
        path: PathBuf,
        found: String,
        ours: String,
    },
    #[error("the metadata on {} belongs to node {found}, the configuration makes this node {ours}", .path.display())]
    Node { path: PathBuf, found: u8, ours: u8 },
    #[error("the metadata on {} is for a pair with node {found}, the configuration makes the other node {ours}", .path.display())]
    Peer { path: PathBuf, found: u8, ours: u8 },
    #[error(
        "the metadata on {} belongs to node {peer_number}, and {peer} is that one by the order of the names: {node} is node {number}",
        .path.display()
    )]
    Order {
        path: PathBuf,
        node: String,
        number: u8,
        peer: String,
        peer_number: u8,
    },
    #[error(
        "{} is another disk than the one that the metadata on {} were made for; it says of itself: {says}",
        .backing.display(), .metadata.display()
    )]
    Backing {
        backing: PathBuf,
        metadata: PathBuf,
        config: PathBuf,
        volume: String,
        says: String,
    },
    #[error("{} has {has_bytes} bytes, the volume needs {needs_bytes}", .path.display())]
    TooSmall {
        path: PathBuf,
        has_bytes: u64,
        needs_bytes: u64,
    },
    #[error("{} has logical blocks of {has_bytes} bytes, the volume was made with {volume_bytes}", .path.display())]
    BlockSize {
        path: PathBuf,
        has_bytes: u32,
        volume_bytes: u32,
    },
    #[error("the metadata on {} was made with {found} metadata, the configuration says {ours}", .path.display())]
    Place {
        path: PathBuf,
        found: &'static str,
        ours: &'static str,
    },
}

impl Explain for MetadataError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "LS3014",
            Self::Missing { .. } => "LS3015",
            Self::Damaged { .. } => "LS3011",
            Self::Newer { .. } => "LS3016",
            Self::Key { .. } => "LS3012",
            Self::Volume { .. }
            | Self::Node { .. }
            | Self::Peer { .. }
            | Self::Order { .. }
            | Self::Place { .. } => "LS3017",
            Self::Backing { .. } => "LS3049",
            Self::TooSmall { .. } => "LS3013",
            Self::BlockSize { .. } => "LS3018",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Io { .. } => "look at the kernel's log; replace the device, then `ublk-mirror format --join`".into(),
            Self::Missing { .. } => {
                "see that `backing` and `metadata` name the right devices; a new copy is made with `ublk-mirror format`".into()
            }
            Self::Damaged { .. } => {
                "the data are untouched but nothing says what they are worth: serve the volume on the other node and \
                 make this copy anew with `ublk-mirror format --join --force`"
                    .into()
            }
            Self::Newer { .. } => "install the newer version of Lockstep again".into(),
            Self::Key { .. } => "put the cluster's key file in place, the same on both nodes".into(),
            Self::Volume { .. } | Self::Node { .. } | Self::Peer { .. } => {
                "a disk was swapped or the configuration names a wrong device: compare `volume`, `node`, `peer`, \
                 `backing` and `metadata`"
                    .into()
            }
            Self::Order { node, peer, .. } => order_advice(node, peer),
            Self::Backing {
                backing,
                config,
                volume,
                ..
            } => format!(
                "look which disk it is (`lsblk -o NAME,SIZE,WWN,SERIAL`, `ls -l /dev/disk/by-id`). If disks have changed \
                 places, give `backing` in {} the right one's name in /dev/disk/by-id. Only if ALL data of the volume were \
                 copied to {} on purpose, while no daemon ran, or the same disk is only named otherwise since a change of \
                 the machine: `lockstep volume adopt-disk {volume} --confirm {volume}`. A new disk without the data is no \
                 copy: make this one anew with `ublk-mirror format --join --force --confirm {volume}`",
                config.display(),
                backing.display(),
            ),
            Self::Place { .. } => "set `metadata` in the configuration as it was when the copy was made".into(),
            Self::TooSmall { .. } => "give the device its size back (after an interrupted grow: the enlarged one), or name the right device".into(),
            Self::BlockSize { .. } => {
                "use a device with the same block size, or make this copy anew with `ublk-mirror format --join`".into()
            }
        }
    }
}

/// The lower name is node 0: a new name of either node may change both numbers.
fn order_advice(node: &str, peer: &str) -> String {
    let place = if node < peer { "before" } else { "after" };
    format!(
        "nodes are numbered by the order of their names, the lower one is node 0. If a server got another name, or another \
         server came in its place: with these names the numbers are exchanged, and this copy is not lost. Give {peer} its \
         predecessor's name, or one that sorts {place} {node}, in the files of both nodes. If no name was changed, this disk is \
         {peer}'s: put each one back where it was"
    )
}
