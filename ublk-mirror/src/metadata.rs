//! The metadata on their device: read, checked and repaired at start; afterwards written durably
//! through the ring, one write after the other, before anything that depends on them happens.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memmap2::MmapMut;
use mirror_core::disk::{
    ActivityFound, BLOCK_BYTES, Found, Metadata, SUPERBLOCK_BYTES, SUPERBLOCK_SLOTS, SlotFault,
    Superblock, SuperblockError, choose,
};
use mirror_core::types::SECTOR_BYTES;

use crate::config::Config;
use crate::identity::Identity;
use crate::ring::{Durability, Kind, METADATA_FILE, Memory, Ring, Span, Token};

mod error;

pub use error::MetadataError;

/// Largest piece of the metadata area that is read or written at once.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// A superblock's bytes where O_DIRECT wants them.
#[repr(C, align(4096))]
struct Block([u8; SUPERBLOCK_BYTES]);

/// The devices as they are.
#[derive(Clone, Debug)]
pub struct Devices {
    /// Of the backing device.
    pub size_bytes: u64,
    /// Of the backing device.
    pub logical_block_bytes: u32,
    /// Of the device that holds the metadata, perhaps the same.
    pub metadata_size_bytes: u64,
    /// Which disk the backing device is.
    pub identity: Identity,
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

/// Reads, repairs what one place has lost, and checks that it belongs here. Metadata on a device of
/// their own that do not know the backing device yet know it then; that becomes durable with the next superblock.
pub fn load(file: &File, config: &Config, devices: &Devices) -> Result<Metadata, MetadataError> {
    let mut found = read(file, config)?;
    check(&found.superblock, config, devices)?;
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
    if !config.metadata_is_internal() && found.superblock.backing.is_none() {
        found.superblock.backing = devices.identity.kept();
    }
    let metadata = read_marks(file, found.superblock).map_err(|source| MetadataError::Io {
        action: "read",
        path: config.metadata_path().to_owned(),
        source,
    })?;
    warn_of_lost_marks(&metadata, config);
    Ok(metadata)
}

/// Reads the activity log and the peer's bitmap. What is damaged in them is no error: there it counts
/// as marked.
fn read_marks(file: &File, superblock: Superblock) -> io::Result<Metadata> {
    let layout = superblock.layout;
    let (node, peer) = (superblock.node, superblock.peer);
    let log = Metadata::activity_area(&layout);
    let bitmap = Metadata::bitmap_area(&layout, node, peer, superblock.size_sectors);
    let mut buffer = aligned_memory(log.end - log.start)?;
    file.read_exact_at(&mut buffer, log.start)?;
    let mut metadata = Metadata::read(superblock, &buffer, &[]);
    for piece in pieces(bitmap) {
        let mut buffer = aligned_memory(piece.end - piece.start)?;
        file.read_exact_at(&mut buffer, piece.start)?;
        metadata.read_pages(&buffer);
    }
    Ok(metadata)
}

fn warn_of_lost_marks(metadata: &Metadata, config: &Config) {
    let device = config.metadata_path().display();
    if let ActivityFound::Lost { fault, .. } = &metadata.activity {
        tracing::warn!(
            code = "LS3019",
            "the activity log on {device} is lost (a block {fault}): every block counts as written to last and is \
             compared again. Nothing is lost of the data; look at the disk's health"
        );
    }
    let mut faults = (0u64..)
        .zip(&metadata.bitmap)
        .filter_map(|(page, read)| read.as_ref().err().map(|fault| (page, fault)));
    if let Some((page, fault)) = faults.next() {
        let pages = 1 + faults.count();
        tracing::warn!(
            code = "LS3019",
            pages,
            "{pages} of {} pages of the bitmap on {device} are damaged (the first, page {page}, {fault}): their blocks \
             are copied again. Nothing is lost of the data; look at the disk's health",
            metadata.bitmap.len()
        );
    }
}

/// Cuts a part of the metadata area into pieces of bounded size.
pub fn pieces(area: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let step = usize::try_from(PIECE_BYTES).expect("a small constant");
    let end = area.end;
    area.step_by(step)
        .map(move |start| start..end.min(start + PIECE_BYTES))
}

/// Memory that O_DIRECT takes.
pub fn aligned_memory(bytes: u64) -> io::Result<MmapMut> {
    MmapMut::map_anon(usize::try_from(bytes).map_err(io::Error::other)?)
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

/// The volume's name, as a superblock has it.
pub fn name_of(superblock: &Superblock) -> String {
    String::from_utf8_lossy(&superblock.volume_name)
        .trim_end_matches('\0')
        .to_owned()
}

/// Whether a superblock belongs to this configuration and its devices.
pub fn check(
    superblock: &Superblock,
    config: &Config,
    devices: &Devices,
) -> Result<(), MetadataError> {
    let path = || config.metadata_path().to_owned();
    let ours = config.keys().cluster();
    if superblock.cluster_id != ours {
        let found = superblock.cluster_id.to_string();
        return Err(MetadataError::Key {
            path: path(),
            found,
            ours: ours.to_string(),
        });
    }
    if superblock.volume_name != config.padded_name() {
        return Err(MetadataError::Volume {
            path: path(),
            found: name_of(superblock),
            ours: config.volume.clone(),
        });
    }
    if superblock.node != config.node_id() {
        return Err(another_node(superblock, config));
    }
    if superblock.peer != config.peer_id() {
        return Err(MetadataError::Peer {
            path: path(),
            found: superblock.peer.number(),
            ours: config.peer_id().number(),
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
    // Metadata on the backing device itself go where it goes.
    if !made_internal && !devices.identity.may_be(superblock.backing) {
        return Err(MetadataError::Backing {
            backing: config.backing.clone(),
            metadata: path(),
            config: config.path.clone(),
            volume: config.volume.clone(),
            says: devices.identity.words().to_owned(),
        });
    }
    fits(superblock, config, devices)
}

/// Names make the numbers: another name of either node may exchange them.
fn another_node(superblock: &Superblock, config: &Config) -> MetadataError {
    let path = config.metadata_path().to_owned();
    let (found, number) = (superblock.node.number(), config.node_id().number());
    if superblock.node != config.peer_id() {
        return MetadataError::Node {
            path,
            found,
            ours: number,
        };
    }
    MetadataError::Order {
        path,
        node: config.node.name.clone(),
        number,
        peer: config.peer.name.clone(),
        peer_number: found,
    }
}

/// Whether the devices have room for what was made on them.
fn fits(superblock: &Superblock, config: &Config, devices: &Devices) -> Result<(), MetadataError> {
    // An interrupted grow may come true when both nodes meet.
    let data_sectors = superblock.size_sectors.max(superblock.prepared_sectors);
    let data_bytes = (superblock.data_start_sectors + data_sectors) * SECTOR_BYTES;
    let metadata_bytes = superblock.layout.total_bytes;
    for (path, has_bytes, needs_bytes) in [
        (&*config.backing, devices.size_bytes, data_bytes),
        (
            config.metadata_path(),
            devices.metadata_size_bytes,
            metadata_bytes,
        ),
    ] {
        if has_bytes < needs_bytes {
            return Err(MetadataError::TooSmall {
                path: path.to_owned(),
                has_bytes,
                needs_bytes,
            });
        }
    }
    if devices.logical_block_bytes > superblock.logical_block_bytes {
        return Err(MetadataError::BlockSize {
            path: config.backing.clone(),
            has_bytes: devices.logical_block_bytes,
            volume_bytes: superblock.logical_block_bytes,
        });
    }
    Ok(())
}

/// How an update of the metadata ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// A superblock, in both places.
    Durable { sequence: u64, size_sectors: u64 },
    /// A block of the activity log or of a bitmap.
    BlockDurable { id: u64 },
    /// Nothing of what waited is written any more either: it was to come after this.
    Failed { errno: i32 },
}

/// What is to be made durable.
#[derive(Debug)]
pub enum Job {
    /// In both places, one after the other.
    Superblock(Box<Superblock>),
    /// A block of the activity log or of a bitmap, by one write.
    Block {
        id: u64,
        /// In the metadata area, which begins where its device begins.
        offset_bytes: u64,
        block: Box<[u8; BLOCK_BYTES]>,
    },
}

// One buffer serves both.
const _: () = assert!(SUPERBLOCK_BYTES == BLOCK_BYTES);

/// Updates of the metadata, strictly one after the other: each may count on those before it.
#[derive(Debug)]
pub struct Persister {
    /// The first one is being written.
    waiting: VecDeque<Job>,
    /// How many places the first one has been written to; none: nothing is under way.
    step: Option<u8>,
    /// The write under way was given up; what waits begins when it has ended.
    given_up: bool,
    /// Where the ring's memory has room for one write.
    span: Span,
}

impl Persister {
    pub fn new(buffer: u32) -> Persister {
        let span = Span {
            memory: Memory::Link,
            buffer,
            offset: 0,
            bytes: BLOCK_BYTES,
        };
        Persister {
            waiting: VecDeque::with_capacity(64),
            step: None,
            given_up: false,
            span,
        }
    }

    pub fn start(&mut self, ring: &mut Ring, job: Job) {
        self.waiting.push_back(job);
        if self.step.is_none() {
            self.write(ring, 0);
        }
    }

    /// Takes the completion of one write.
    pub fn complete(&mut self, ring: &mut Ring, outcome: Result<usize, i32>) -> Option<Written> {
        let step = self
            .step
            .take()
            .expect("completions are of a write in flight");
        if std::mem::take(&mut self.given_up) {
            // It may have landed or not; nobody waits for it.
            if !self.waiting.is_empty() {
                self.write(ring, 0);
            }
            return None;
        }
        let job = self.waiting.front().expect("a write has its job");
        match (outcome, job) {
            (Err(libc::EINTR | libc::EAGAIN), _) => {
                self.write(ring, step);
                None
            }
            (Err(errno), _) => Some(self.fail(errno)),
            (Ok(BLOCK_BYTES), Job::Superblock(_)) if step == 0 => {
                self.write(ring, 1);
                None
            }
            (Ok(BLOCK_BYTES), Job::Superblock(superblock)) => {
                let written = Written::Durable {
                    sequence: superblock.sequence,
                    size_sectors: superblock.size_sectors,
                };
                self.next(ring);
                Some(written)
            }
            (Ok(BLOCK_BYTES), Job::Block { id, .. }) => {
                let written = Written::BlockDurable { id: *id };
                self.next(ring);
                Some(written)
            }
            // Half a block: nothing says why, and nothing of it counts.
            (Ok(_), _) => Some(self.fail(libc::EIO)),
        }
    }

    /// The core does not wait for anything here any more. The kernel may still carry out the write under
    /// way: its memory stays untouched, and nothing newer is written, before it has ended.
    pub fn give_up(&mut self) {
        self.waiting.clear();
        self.given_up = self.step.is_some();
    }

    /// Whether an update is under way.
    pub fn busy(&self) -> bool {
        self.step.is_some()
    }

    fn next(&mut self, ring: &mut Ring) {
        self.waiting.pop_front();
        if !self.waiting.is_empty() {
            self.write(ring, 0);
        }
    }

    fn fail(&mut self, errno: i32) -> Written {
        self.waiting.clear();
        Written::Failed { errno }
    }

    fn write(&mut self, ring: &mut Ring, step: u8) {
        let memory = ring.bytes_mut(self.span);
        let position = match self.waiting.front().expect("a write has its job") {
            Job::Superblock(superblock) => {
                memory.copy_from_slice(&superblock.encode(step));
                SUPERBLOCK_SLOTS[usize::from(step)]
            }
            Job::Block {
                offset_bytes,
                block,
                ..
            } => {
                memory.copy_from_slice(&**block);
                *offset_bytes
            }
        };
        self.step = Some(step);
        ring.write(
            METADATA_FILE,
            self.span,
            position,
            Durability::Durable,
            Token::new(Kind::Persist),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;
    use crate::ring::{Completion, pools};

    fn job(id: u64, fill: u8) -> Job {
        Job::Block {
            id,
            offset_bytes: 0,
            block: Box::new([fill; BLOCK_BYTES]),
        }
    }

    fn written(persister: &mut Persister, ring: &mut Ring) -> Vec<Written> {
        let mut completions: Vec<Completion> = Vec::new();
        ring.submit_and_wait(Duration::from_millis(200)).unwrap();
        ring.completions(&mut completions);
        completions
            .iter()
            .filter_map(|completion| persister.complete(ring, completion.outcome()))
            .collect()
    }

    /// A full pipe is a disk that does not answer.
    #[test]
    fn nothing_is_written_before_a_write_that_was_given_up_has_ended() {
        let (data, link) = pools(crate::local_disk::DATA_BUFFERS, 4096, 1, 4096).unwrap();
        let mut ring = Ring::new(data, link, 1).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        ring.register(METADATA_FILE, writer.as_raw_fd()).unwrap();
        // As much as a pipe holds, all but the last of it.
        let mut persister = Persister::new(0);
        let mut held = 0;
        loop {
            persister.start(&mut ring, job(held, 1));
            if written(&mut persister, &mut ring).is_empty() {
                break;
            }
            held += 1;
        }
        persister.start(&mut ring, job(100, 2));
        persister.give_up();
        assert!(persister.busy(), "the kernel still has it");
        persister.start(&mut ring, job(101, 3));
        assert_eq!(written(&mut persister, &mut ring), []);

        let mut block = [0; BLOCK_BYTES];
        for _ in 0..held {
            reader.read_exact(&mut block).unwrap();
            assert_eq!(block[0], 1);
        }
        let mut after = written(&mut persister, &mut ring);
        after.extend(written(&mut persister, &mut ring));
        assert_eq!(after, [Written::BlockDurable { id: 101 }]);
        reader.read_exact(&mut block).unwrap();
        assert_eq!(block, [1; BLOCK_BYTES], "its memory was not touched");
        reader.read_exact(&mut block).unwrap();
        assert_eq!(block, [3; BLOCK_BYTES], "what waited was forgotten");
    }
}
