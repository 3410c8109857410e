//! Records of the ledger: what a writer asked for and what it was promised.
//!
//! A record leaves the machine through its own virtio-serial port before the writer goes on, so the
//! host knows what had been acknowledged when the machine dies.

use crate::pattern::{mix, u32_at, u64_at};

/// Bytes of one record.
pub const RECORD_BYTES: usize = 32;
const MAGIC: u16 = 0x4c4c;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The writer begins; `sequence` is its block size, `block` its number of blocks.
    Start,
    /// A write of `block` with `sequence` is about to be submitted.
    Issue,
    /// That write was acknowledged.
    Ack,
    /// That write failed; the block may hold the old or the new content.
    WriteFailed,
    /// A flush with number `sequence` is about to be submitted.
    FlushIssue,
    /// That flush was acknowledged.
    FlushAck,
    /// That flush failed.
    FlushFailed,
    /// The writer ends in good order.
    End,
    /// The host's own mark: the machine lost its power. No writer sends it.
    PowerCut,
}

const KINDS: [Kind; 9] = [
    Kind::Start,
    Kind::Issue,
    Kind::Ack,
    Kind::WriteFailed,
    Kind::FlushIssue,
    Kind::FlushAck,
    Kind::FlushFailed,
    Kind::End,
    Kind::PowerCut,
];

/// One record: run, kind, block, sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The writer's run.
    pub run: u32,
    /// What happened.
    pub kind: Kind,
    /// Block number.
    pub block: u64,
    /// Sequence number of the write or the flush.
    pub sequence: u64,
}

impl Record {
    /// The bytes of the record.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let kind = KINDS
            .iter()
            .position(|kind| *kind == self.kind)
            .unwrap_or(0);
        bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = u8::try_from(kind).unwrap_or(u8::MAX);
        bytes[4..8].copy_from_slice(&self.run.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.block.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        let sum = Self::checksum(&bytes);
        bytes[24..32].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a record; `None` if the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let sum = Self::checksum(bytes);
        if bytes[0..2] != MAGIC.to_le_bytes() || u64_at(bytes, 24) != sum {
            return None;
        }
        Some(Self {
            run: u32_at(bytes, 4),
            kind: *KINDS.get(usize::from(bytes[2]))?,
            block: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
        })
    }

    fn checksum(bytes: &[u8; RECORD_BYTES]) -> u64 {
        mix(mix(mix(u64_at(bytes, 0)) ^ u64_at(bytes, 8)) ^ u64_at(bytes, 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip() {
        for kind in KINDS {
            let record = Record {
                run: 7,
                kind,
                block: 1 << 40,
                sequence: 12,
            };
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let mut bytes = Record {
            run: 7,
            kind: Kind::Ack,
            block: 1,
            sequence: 12,
        }
        .encode();
        bytes[9] ^= 4;
        assert_eq!(Record::decode(&bytes), None);
    }
}
