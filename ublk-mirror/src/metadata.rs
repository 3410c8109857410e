//! The superblocks on their device: read, checked and repaired at start; afterwards written durably
//! through the ring, one place after the other, before anything that depends on them happens.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mirror_core::auth::cluster_id;
use mirror_core::disk::{
    Found, SUPERBLOCK_BYTES, SUPERBLOCK_SLOTS, SlotFault, Superblock, SuperblockError, choose,
};
use mirror_core::types::SECTOR_BYTES;
use thiserror::Error;

use crate::config::Config;
use crate::explain::Explain;
use crate::ring::{Durability, Kind, METADATA_FILE, Memory, Ring, Span, Token};

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
            Self::Volume { .. } | Self::Node { .. } | Self::Place { .. } => "LS3017",
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
            Self::Volume { .. } | Self::Node { .. } => {
                "a disk was swapped or the configuration names a wrong device: compare `volume`, `node`, `peer`, \
                 `backing` and `metadata`"
                    .into()
            }
            Self::Place { .. } => "set `metadata` in the configuration as it was when the copy was made".into(),
            Self::TooSmall { .. } => "give the device its size back, or name the right device".into(),
            Self::BlockSize { .. } => {
                "use a device with the same block size, or make this copy anew with `ublk-mirror format --join`".into()
            }
        }
    }
}

/// A superblock's bytes where O_DIRECT wants them.
#[repr(C, align(4096))]
struct Block([u8; SUPERBLOCK_BYTES]);

/// What the device must have room for.
#[derive(Clone, Copy, Debug)]
pub struct Backing {
    pub size_bytes: u64,
    pub logical_block_bytes: u32,
}

/// Reads both places of a metadata device.
pub fn read(file: &File, config: &Config) -> Result<Found, MetadataError> {
    let path = || config.metadata_path().to_owned();
    let mut blocks = [
        Box::new(Block([0; SUPERBLOCK_BYTES])),
        Box::new(Block([0; SUPERBLOCK_BYTES])),
    ];
    for (block, place) in blocks.iter_mut().zip(SUPERBLOCK_SLOTS) {
        file.read_exact_at(&mut block.0, place).map_err(|source| {
            if source.kind() == io::ErrorKind::UnexpectedEof {
                MetadataError::Missing { path: path() }
            } else {
                MetadataError::Io {
                    action: "read",
                    path: path(),
                    source,
                }
            }
        })?;
    }
    choose(&blocks[0].0, &blocks[1].0).map_err(|source| match source {
        SuperblockError::Both(SlotFault::NotASuperblock, SlotFault::NotASuperblock) => {
            MetadataError::Missing { path: path() }
        }
        SuperblockError::Both(..) => MetadataError::Damaged {
            path: path(),
            source,
        },
        SuperblockError::Newer { .. } => MetadataError::Newer {
            path: path(),
            source,
        },
    })
}

/// Reads, repairs what one place has lost, and checks that it belongs here.
pub fn load(file: &File, config: &Config, backing: Backing) -> Result<Superblock, MetadataError> {
    let found = read(file, config)?;
    check(&found.superblock, config, backing)?;
    let device = config.metadata_path().display();
    if let Some((slot, fault)) = found.damaged_slot {
        write_slot(file, config, &found.superblock, slot)?;
        tracing::warn!(
            code = "LS3010",
            slot,
            "superblock {slot} on {device} {fault}; it was rewritten from the other one. Look at the disk's health"
        );
    }
    if let Some(slot) = found.stale_slot {
        write_slot(file, config, &found.superblock, slot)?;
        tracing::info!(
            code = "LS3010",
            slot,
            "superblock {slot} on {device} was one update behind (a crash); it was rewritten"
        );
    }
    Ok(found.superblock)
}

/// Writes one place, durably.
pub fn write_slot(
    file: &File,
    config: &Config,
    superblock: &Superblock,
    slot: u8,
) -> Result<(), MetadataError> {
    let block = Box::new(Block(superblock.encode(slot)));
    let place = SUPERBLOCK_SLOTS[usize::from(slot)];
    file.write_all_at(&block.0, place)
        .and_then(|()| file.sync_data())
        .map_err(|source| MetadataError::Io {
            action: "write",
            path: config.metadata_path().to_owned(),
            source,
        })
}

/// Whether a superblock belongs to this configuration and its devices.
pub fn check(
    superblock: &Superblock,
    config: &Config,
    backing: Backing,
) -> Result<(), MetadataError> {
    let path = || config.metadata_path().to_owned();
    let ours = cluster_id(config.cluster_key());
    if superblock.cluster_id != ours {
        let found = superblock.cluster_id.to_string();
        return Err(MetadataError::Key {
            path: path(),
            found,
            ours: ours.to_string(),
        });
    }
    if superblock.volume_name != config.padded_name() {
        let found = String::from_utf8_lossy(&superblock.volume_name)
            .trim_end_matches('\0')
            .to_owned();
        return Err(MetadataError::Volume {
            path: path(),
            found,
            ours: config.volume.clone(),
        });
    }
    if superblock.node != config.node_id() {
        let (found, ours) = (superblock.node.number(), config.node_id().number());
        return Err(MetadataError::Node {
            path: path(),
            found,
            ours,
        });
    }
    let word = |internal: bool| if internal { "internal" } else { "separate" };
    let made_internal = superblock.data_start_sectors != 0;
    if made_internal != config.metadata_is_internal() {
        let (found, ours) = (word(made_internal), word(config.metadata_is_internal()));
        return Err(MetadataError::Place {
            path: path(),
            found,
            ours,
        });
    }
    let needs_bytes = (superblock.data_start_sectors + superblock.size_sectors) * SECTOR_BYTES;
    if backing.size_bytes < needs_bytes {
        let has_bytes = backing.size_bytes;
        return Err(MetadataError::TooSmall {
            path: config.backing.clone(),
            has_bytes,
            needs_bytes,
        });
    }
    if backing.logical_block_bytes > superblock.logical_block_bytes {
        return Err(MetadataError::BlockSize {
            path: config.backing.clone(),
            has_bytes: backing.logical_block_bytes,
            volume_bytes: superblock.logical_block_bytes,
        });
    }
    Ok(())
}

/// How an update of the metadata ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Durable { sequence: u64, size_sectors: u64 },
    Failed { errno: i32 },
}

/// Updates of the metadata, one after the other.
#[derive(Debug)]
pub struct Persister {
    waiting: VecDeque<Box<Superblock>>,
    /// The place that is being written for the first in the queue.
    slot: Option<u8>,
    /// Where the ring's memory has room for one superblock.
    span: Span,
}

impl Persister {
    pub fn new(buffer: u32) -> Persister {
        let span = Span {
            memory: Memory::Link,
            buffer,
            offset: 0,
            bytes: SUPERBLOCK_BYTES,
        };
        Persister {
            waiting: VecDeque::with_capacity(8),
            slot: None,
            span,
        }
    }

    pub fn start(&mut self, ring: &mut Ring, superblock: Box<Superblock>) {
        self.waiting.push_back(superblock);
        if self.slot.is_none() {
            self.write(ring, 0);
        }
    }

    /// Takes the completion of one place.
    pub fn complete(&mut self, ring: &mut Ring, outcome: Result<usize, i32>) -> Option<Written> {
        let slot = self
            .slot
            .take()
            .expect("completions are of a write in flight");
        match (outcome, slot) {
            (Err(libc::EINTR | libc::EAGAIN), slot) => {
                self.write(ring, slot);
                None
            }
            (Ok(SUPERBLOCK_BYTES), 0) => {
                self.write(ring, 1);
                None
            }
            (Ok(SUPERBLOCK_BYTES), _) => self.finish(ring, None),
            // Half a superblock: nothing says why, and nothing of it counts.
            (Ok(_), _) => self.finish(ring, Some(libc::EIO)),
            (Err(errno), _) => self.finish(ring, Some(errno)),
        }
    }

    /// Whether an update is under way.
    pub fn busy(&self) -> bool {
        self.slot.is_some()
    }

    fn finish(&mut self, ring: &mut Ring, failure: Option<i32>) -> Option<Written> {
        let superblock = self.waiting.pop_front()?;
        if !self.waiting.is_empty() {
            self.write(ring, 0);
        }
        Some(match failure {
            None => Written::Durable {
                sequence: superblock.sequence,
                size_sectors: superblock.size_sectors,
            },
            Some(errno) => Written::Failed { errno },
        })
    }

    fn write(&mut self, ring: &mut Ring, slot: u8) {
        let superblock = self.waiting.front().expect("a write has its superblock");
        ring.bytes_mut(self.span)
            .copy_from_slice(&superblock.encode(slot));
        self.slot = Some(slot);
        let place = SUPERBLOCK_SLOTS[usize::from(slot)];
        ring.write(
            METADATA_FILE,
            self.span,
            place,
            Durability::Durable,
            Token::new(Kind::Persist),
        );
    }
}
