//! The file of the blocks that a discarded side of a split brain had alone. It is written from its beginning
//! to its end, and read like that: a head of 32 bytes says what follows, the end tells how much there was.
//!
//! [`KeptWriter`] and [`KeptReader`] know the bytes; who reads and writes the file is another matter.

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::FORMAT_VERSION;
use crate::checksum::crc32c;
use crate::limits::VOLUME_NAME_BYTES_MAX;
use crate::types::{Epoch, NodeId, SECTOR_BYTES, ViewId, VolumeId};
use crate::view::ViewMark;

/// What such a file begins with.
pub const KEPT_MAGIC: [u8; 8] = *b"LSKEPTBL";
/// Bytes of the header.
pub const KEPT_HEADER_BYTES: usize = 512;
/// Bytes of a head: of a run, or of the end.
pub const KEPT_HEAD_BYTES: usize = 32;
/// Bytes of the digest that follows on the head of the end.
pub const KEPT_DIGEST_BYTES: usize = 32;
/// Longest run of data, and the largest block.
pub const KEPT_DATA_BYTES_MAX: u32 = 1 << 20;

const RUN_MAGIC: [u8; 4] = *b"KRUN";
const END_MAGIC: [u8; 4] = *b"KEND";
/// The run is all zeroes, and no data follow.
const FLAG_ZEROES: u32 = 1;

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeptFault {
    /// Another magic.
    #[error("is no file of kept blocks")]
    Foreign,
    /// A format that this program does not know.
    #[error("has format version {0}, this program knows {FORMAT_VERSION}")]
    Version(u16),
    /// A checksum is wrong.
    #[error("is damaged: the checksum of {0} is wrong")]
    Checksum(&'static str),
    /// A field is impossible although the checksum is right.
    #[error("is damaged: {0} is impossible")]
    Value(&'static str),
}

/// What the file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptHeader {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its name, padded with zero bytes.
    pub volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    /// Whose copy it was.
    pub node: NodeId,
    /// The other node.
    pub peer: NodeId,
    /// The name of `node`, padded with zero bytes.
    pub node_name: [u8; VOLUME_NAME_BYTES_MAX],
    /// The view that was given up.
    pub view: ViewMark,
    /// The last view that both sides had in common; epoch 0: not known, and everything was kept.
    pub common: ViewMark,
    /// Size of the volume, a multiple of 512.
    pub size_bytes: u64,
    /// Every run begins at a multiple of this: a power of two, 512 to [`KEPT_DATA_BYTES_MAX`].
    pub block_bytes: u32,
    /// Bytes of all runs.
    pub marked_bytes: u64,
    /// When the file was begun: seconds since 1970 by the machine's clock.
    pub at_s: u64,
}

/// A name without its padding.
pub fn unpadded(name: &[u8; VOLUME_NAME_BYTES_MAX]) -> &str {
    let end = name.iter().position(|byte| *byte == 0);
    core::str::from_utf8(&name[..end.unwrap_or(name.len())]).unwrap_or_default()
}

fn is_name(name: &[u8; VOLUME_NAME_BYTES_MAX]) -> bool {
    let text = unpadded(name).as_bytes();
    let legal =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(byte);
    !text.is_empty() && text.iter().all(legal) && name[text.len()..].iter().all(|byte| *byte == 0)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderBytes {
    magic: [u8; 8],
    version: U16,
    node: u8,
    peer: u8,
    crc: U32,
    volume_id: [u8; 16],
    volume_name: [u8; VOLUME_NAME_BYTES_MAX],
    node_name: [u8; VOLUME_NAME_BYTES_MAX],
    view_epoch: U64,
    view_id: [u8; 16],
    common_epoch: U64,
    common_id: [u8; 16],
    size_bytes: U64,
    block_bytes: U32,
    reserved0: U32,
    marked_bytes: U64,
    at_s: U64,
    reserved1: [u8; 272],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RunBytes {
    magic: [u8; 4],
    flags: U32,
    offset_bytes: U64,
    length_bytes: U64,
    data_crc: U32,
    crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EndBytes {
    magic: [u8; 4],
    reserved: U32,
    runs: U64,
    data_bytes: U64,
    reserved1: U32,
    crc: U32,
}

const _: () = assert!(
    size_of::<HeaderBytes>() == KEPT_HEADER_BYTES
        && size_of::<RunBytes>() == KEPT_HEAD_BYTES
        && size_of::<EndBytes>() == KEPT_HEAD_BYTES
        && VOLUME_NAME_BYTES_MAX == 64
);

impl KeptHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; KEPT_HEADER_BYTES] {
        let mut raw = HeaderBytes {
            magic: KEPT_MAGIC,
            version: U16::new(FORMAT_VERSION),
            node: self.node.number(),
            peer: self.peer.number(),
            crc: U32::new(0),
            volume_id: self.volume_id.0,
            volume_name: self.volume_name,
            node_name: self.node_name,
            view_epoch: U64::new(self.view.epoch.0),
            view_id: self.view.id.0,
            common_epoch: U64::new(self.common.epoch.0),
            common_id: self.common.id.0,
            size_bytes: U64::new(self.size_bytes),
            block_bytes: U32::new(self.block_bytes),
            reserved0: U32::new(0),
            marked_bytes: U64::new(self.marked_bytes),
            at_s: U64::new(self.at_s),
            reserved1: [0; 272],
        };
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        let mut out = [0; KEPT_HEADER_BYTES];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// Reads the header.
    ///
    /// # Errors
    /// [`KeptFault`] says what is wrong.
    pub fn decode(bytes: &[u8; KEPT_HEADER_BYTES]) -> Result<Self, KeptFault> {
        let mut raw = HeaderBytes::read_from_bytes(bytes).map_err(|_| KeptFault::Foreign)?;
        if raw.magic != KEPT_MAGIC {
            return Err(KeptFault::Foreign);
        }
        let expected = raw.crc.get();
        raw.crc = U32::new(0);
        if crc32c(raw.as_bytes()) != expected {
            return Err(KeptFault::Checksum("the header"));
        }
        if raw.version.get() != FORMAT_VERSION {
            return Err(KeptFault::Version(raw.version.get()));
        }
        let node = |number| NodeId::new(number).ok_or(KeptFault::Value("a node's number"));
        let mark = |epoch: U64, id| ViewMark {
            epoch: Epoch(epoch.get()),
            id: ViewId(id),
        };
        let header = Self {
            volume_id: VolumeId(raw.volume_id),
            volume_name: raw.volume_name,
            node: node(raw.node)?,
            peer: node(raw.peer)?,
            node_name: raw.node_name,
            view: mark(raw.view_epoch, raw.view_id),
            common: mark(raw.common_epoch, raw.common_id),
            size_bytes: raw.size_bytes.get(),
            block_bytes: raw.block_bytes.get(),
            marked_bytes: raw.marked_bytes.get(),
            at_s: raw.at_s.get(),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), KeptFault> {
        let block = u64::from(self.block_bytes);
        let largest = u64::from(KEPT_DATA_BYTES_MAX);
        if !is_name(&self.volume_name) || !is_name(&self.node_name) {
            return Err(KeptFault::Value("a name"));
        }
        if self.size_bytes == 0 || !self.size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(KeptFault::Value("the volume's size"));
        }
        if !block.is_power_of_two() || !(SECTOR_BYTES..=largest).contains(&block) {
            return Err(KeptFault::Value("the block size"));
        }
        if self.marked_bytes > self.size_bytes {
            return Err(KeptFault::Value("the size of all runs"));
        }
        Ok(())
    }

    /// No file of these runs is longer, if each is cut at multiples of [`KEPT_DATA_BYTES_MAX`] of the volume, or where
    /// it is full, and where zeroes begin and end.
    pub fn file_bytes_max(marked_bytes: u64, runs: u64) -> u64 {
        let full = marked_bytes / u64::from(KEPT_DATA_BYTES_MAX);
        // Before the first multiple and behind the last one a run has a part that is not full. The end and its digest
        // are as long as two heads.
        let parts = runs.saturating_mul(2).saturating_add(full);
        let heads = parts.saturating_add(2);
        let around = heads.saturating_mul(KEPT_HEAD_BYTES as u64);
        marked_bytes
            .saturating_add(around)
            .saturating_add(KEPT_HEADER_BYTES as u64)
    }
}

/// What was written or read so far.
#[derive(Clone, Debug)]
struct Tally {
    hasher: blake3::Hasher,
    runs: u64,
    data_bytes: u64,
}

impl Tally {
    fn new(header: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(header);
        Self {
            hasher,
            runs: 0,
            data_bytes: 0,
        }
    }
}

/// Makes the bytes of such a file, in their order.
#[derive(Clone, Debug)]
pub struct KeptWriter(Tally);

impl KeptWriter {
    /// The header goes first.
    pub fn new(header: &KeptHeader) -> (Self, [u8; KEPT_HEADER_BYTES]) {
        let bytes = header.encode();
        (Self(Tally::new(&bytes)), bytes)
    }

    /// The head of a run of data, at most [`KEPT_DATA_BYTES_MAX`]; the data follow on it. Runs are in their order
    /// on the volume.
    pub fn data(&mut self, offset_bytes: u64, data: &[u8]) -> [u8; KEPT_HEAD_BYTES] {
        let head = self.run(0, offset_bytes, data.len() as u64, crc32c(data));
        self.0.hasher.update(data);
        self.0.data_bytes += data.len() as u64;
        head
    }

    /// The head of a run of zeroes of any length; nothing follows on it.
    pub fn zeroes(&mut self, offset_bytes: u64, length_bytes: u64) -> [u8; KEPT_HEAD_BYTES] {
        self.run(FLAG_ZEROES, offset_bytes, length_bytes, 0)
    }

    fn run(&mut self, flags: u32, offset: u64, length: u64, crc: u32) -> [u8; KEPT_HEAD_BYTES] {
        let mut raw = RunBytes {
            magic: RUN_MAGIC,
            flags: U32::new(flags),
            offset_bytes: U64::new(offset),
            length_bytes: U64::new(length),
            data_crc: U32::new(crc),
            crc: U32::new(0),
        };
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        self.0.runs += 1;
        self.0.hasher.update(raw.as_bytes());
        let mut out = [0; KEPT_HEAD_BYTES];
        out.copy_from_slice(raw.as_bytes());
        out
    }

    /// The end, which goes last.
    pub fn end(mut self) -> [u8; KEPT_HEAD_BYTES + KEPT_DIGEST_BYTES] {
        let mut raw = EndBytes {
            magic: END_MAGIC,
            reserved: U32::new(0),
            runs: U64::new(self.0.runs),
            data_bytes: U64::new(self.0.data_bytes),
            reserved1: U32::new(0),
            crc: U32::new(0),
        };
        raw.crc = U32::new(crc32c(raw.as_bytes()));
        self.0.hasher.update(raw.as_bytes());
        let mut out = [0; KEPT_HEAD_BYTES + KEPT_DIGEST_BYTES];
        out[..KEPT_HEAD_BYTES].copy_from_slice(raw.as_bytes());
        out[KEPT_HEAD_BYTES..].copy_from_slice(self.0.hasher.finalize().as_bytes());
        out
    }
}

/// What a head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptHead {
    /// So many bytes of data follow (1..=[`KEPT_DATA_BYTES_MAX`]), for this place on the volume.
    Data {
        /// Where, on the volume.
        offset_bytes: u64,
        /// How long.
        length_bytes: u32,
    },
    /// A run of zeroes; the next head follows.
    Zeroes {
        /// Where, on the volume.
        offset_bytes: u64,
        /// How long.
        length_bytes: u64,
    },
    /// The digest follows, and nothing else.
    End,
}

/// Checks such a file from its beginning to its end. After a fault nothing more may be asked of it.
#[derive(Clone, Debug)]
pub struct KeptReader {
    header: KeptHeader,
    tally: Tally,
    /// The next run begins here or later.
    next_bytes: u64,
    marked_bytes: u64,
    /// Checksum of the data that follow.
    data_crc: u32,
}

impl KeptReader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`KeptFault`] says what is wrong.
    pub fn new(bytes: &[u8; KEPT_HEADER_BYTES]) -> Result<Self, KeptFault> {
        Ok(Self {
            header: KeptHeader::decode(bytes)?,
            tally: Tally::new(bytes),
            next_bytes: 0,
            marked_bytes: 0,
            data_crc: 0,
        })
    }

    /// What the file is about.
    pub fn header(&self) -> &KeptHeader {
        &self.header
    }

    /// Bytes of data that were announced so far.
    pub fn data_bytes(&self) -> u64 {
        self.tally.data_bytes
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`KeptFault`] says what is wrong.
    pub fn head(&mut self, bytes: &[u8; KEPT_HEAD_BYTES]) -> Result<KeptHead, KeptFault> {
        if bytes.starts_with(&END_MAGIC) {
            return self.end_head(bytes);
        }
        let mut raw = RunBytes::read_from_bytes(bytes).map_err(|_| KeptFault::Foreign)?;
        let expected = raw.crc.get();
        raw.crc = U32::new(0);
        if raw.magic != RUN_MAGIC || crc32c(raw.as_bytes()) != expected {
            return Err(KeptFault::Checksum("a run's head"));
        }
        let (offset_bytes, length_bytes) = (raw.offset_bytes.get(), raw.length_bytes.get());
        let block = u64::from(self.header.block_bytes);
        let end = offset_bytes.saturating_add(length_bytes);
        let whole = end.is_multiple_of(block) || end == self.header.size_bytes;
        if offset_bytes < self.next_bytes || !offset_bytes.is_multiple_of(block) {
            return Err(KeptFault::Value("a run's place"));
        }
        if length_bytes == 0 || end > self.header.size_bytes || !whole {
            return Err(KeptFault::Value("a run's length"));
        }
        let head = match (raw.flags.get(), u32::try_from(length_bytes)) {
            (FLAG_ZEROES, _) => KeptHead::Zeroes {
                offset_bytes,
                length_bytes,
            },
            (0, Ok(length_bytes)) if length_bytes <= KEPT_DATA_BYTES_MAX => KeptHead::Data {
                offset_bytes,
                length_bytes,
            },
            (0, _) => return Err(KeptFault::Value("a run's length")),
            _ => return Err(KeptFault::Value("a run's flag")),
        };
        self.next_bytes = end;
        self.marked_bytes += length_bytes;
        self.tally.runs += 1;
        self.tally.hasher.update(bytes);
        self.data_crc = raw.data_crc.get();
        if matches!(head, KeptHead::Data { .. }) {
            self.tally.data_bytes += length_bytes;
        }
        Ok(head)
    }

    /// Checks the data that a head announced.
    ///
    /// # Errors
    /// [`KeptFault`] says what is wrong.
    pub fn data(&mut self, data: &[u8]) -> Result<(), KeptFault> {
        if crc32c(data) != self.data_crc {
            return Err(KeptFault::Checksum("a run's data"));
        }
        self.tally.hasher.update(data);
        Ok(())
    }

    fn end_head(&mut self, bytes: &[u8; KEPT_HEAD_BYTES]) -> Result<KeptHead, KeptFault> {
        let mut raw = EndBytes::read_from_bytes(bytes).map_err(|_| KeptFault::Foreign)?;
        let expected = raw.crc.get();
        raw.crc = U32::new(0);
        if crc32c(raw.as_bytes()) != expected {
            return Err(KeptFault::Checksum("the end"));
        }
        let counted = (self.tally.runs, self.tally.data_bytes);
        let whole = self.marked_bytes == self.header.marked_bytes;
        if (raw.runs.get(), raw.data_bytes.get()) != counted || !whole {
            return Err(KeptFault::Value("the number of runs or bytes"));
        }
        self.tally.hasher.update(bytes);
        Ok(KeptHead::End)
    }

    /// Checks the digest, which is the last of the file.
    ///
    /// # Errors
    /// [`KeptFault::Checksum`].
    pub fn digest(&self, digest: &[u8; KEPT_DIGEST_BYTES]) -> Result<(), KeptFault> {
        if self.tally.hasher.finalize().as_bytes() != digest {
            return Err(KeptFault::Checksum("the whole file"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = KEPT_DATA_BYTES_MAX as u64;

    /// Bytes of the file if every block is data, and runs are cut at multiples of 1 MiB of the volume.
    fn file_bytes(runs: &[(u64, u64)]) -> u64 {
        let parts = runs
            .iter()
            .map(|(start, length)| (start + length).div_ceil(MIB) - start / MIB);
        let data: u64 = runs.iter().map(|(_, length)| length).sum();
        let around = KEPT_HEADER_BYTES + KEPT_HEAD_BYTES + KEPT_DIGEST_BYTES;
        around as u64 + parts.sum::<u64>() * KEPT_HEAD_BYTES as u64 + data
    }

    #[test]
    fn no_file_is_longer_than_its_bound() {
        let crossing = [(MIB - 4096, 8192), (3 * MIB - 4096, 8192)];
        let long = [(4096, MIB), (3 * MIB - 4096, 2 * MIB + 8192)];
        let aligned = [(0, MIB), (2 * MIB, 3 * MIB)];
        for runs in [&crossing[..], &long, &aligned, &[]] {
            let marked = runs.iter().map(|(_, length)| length).sum();
            let bound = KeptHeader::file_bytes_max(marked, runs.len() as u64);
            let longest = file_bytes(runs);
            assert!(longest <= bound, "{runs:?}: {longest} > {bound}");
        }
    }
}
