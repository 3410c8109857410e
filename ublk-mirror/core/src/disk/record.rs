//! What a superblock remembers beside the present: operators' words that cost data or could have, and
//! when an application last wrote here.
//!
//! To add a verb: a variant of [`Operation`] with its number, its words in [`crate::notice`], and
//! [`Operations::record`] where the superblock that the verb changes is staged: the two are durable together.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::{Epoch, ViewId};
use crate::view::ViewMark;

/// Operations that a superblock remembers.
pub const OPERATIONS_MAX: usize = 15;
/// Bytes of the record: the operations, the time of the last write, and room to spare.
pub const RECORD_BYTES: usize = 768;
/// The consequence of the operation is not mended yet.
const FLAG_STANDING: u8 = 1;

/// What an operator said. The number on disk is [`Self::to_byte`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A standby took over: the view that was committed by it.
    Takeover,
    /// A frozen active node went on alone: the view that was committed by it.
    GoAlone,
    /// This copy's history was discarded: the view that was given up.
    Discard,
    /// This copy was made the only one that counts although it is not complete: the view that was
    /// committed by it.
    Force,
    /// One that this program does not know.
    Other(u8),
}

impl Operation {
    const ALL: [(u8, Self); 4] = [
        (1, Self::Takeover),
        (2, Self::GoAlone),
        (3, Self::Discard),
        (4, Self::Force),
    ];

    /// Its number on disk, 1..=255.
    pub fn to_byte(self) -> u8 {
        if let Self::Other(byte) = self {
            return byte;
        }
        let row = Self::ALL.iter().find(|(_, operation)| *operation == self);
        row.map_or(0, |(byte, _)| *byte)
    }

    /// From its number on disk; 0 is none.
    pub fn from_byte(byte: u8) -> Option<Self> {
        if byte == 0 {
            return None;
        }
        let row = Self::ALL.iter().find(|(number, _)| *number == byte);
        Some(row.map_or(Self::Other(byte), |(_, operation)| *operation))
    }
}

/// One operation that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationEntry {
    /// What.
    pub operation: Operation,
    /// The view that it committed or gave up.
    pub view: ViewMark,
    /// When the command came: seconds since 1970 by the machine's clock, 0: not known.
    pub at_s: u64,
    /// Its consequence is not mended yet: the entry stays, and the status goes on telling of it.
    pub standing: bool,
}

/// The last operations, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations([Option<OperationEntry>; OPERATIONS_MAX]);

impl Operations {
    /// Puts `entry` in front. The oldest that is not standing falls out.
    pub fn record(&mut self, entry: OperationEntry) {
        let last = OPERATIONS_MAX - 1;
        let goes = self
            .0
            .iter()
            .rposition(|place| place.is_none_or(|old| !old.standing))
            .unwrap_or(last);
        let free = self.0.iter().position(Option::is_none).unwrap_or(goes);
        self.0[..=free].rotate_right(1);
        self.0[0] = Some(entry);
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &OperationEntry> {
        self.0.iter().flatten()
    }

    /// The newest one whose consequence is not mended.
    pub fn standing(&self, operation: Operation) -> Option<&OperationEntry> {
        self.iter()
            .find(|entry| entry.standing && entry.operation == operation)
    }

    /// The consequences of this kind are mended.
    pub fn mended(&mut self, operation: Operation) {
        for entry in self.0.iter_mut().flatten() {
            entry.standing &= entry.operation != operation;
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What operators said.
    pub operations: Operations,
    /// When an application last wrote here, as far as it was known when the superblock was written: seconds
    /// since 1970 by the machine's clock, 0: not known. While `serving` it may have written later.
    pub last_write_s: u64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryBytes {
    operation: u8,
    flags: u8,
    reserved: [u8; 6],
    at_s: U64,
    epoch: U64,
    id: [u8; 16],
    reserved1: U64,
}

/// The record's bytes, a part of the superblock.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RecordBytes {
    operations: [EntryBytes; OPERATIONS_MAX],
    last_write_s: U64,
    reserved: [u8; 40],
}

const _: () = assert!(size_of::<EntryBytes>() == 48 && size_of::<RecordBytes>() == RECORD_BYTES);

impl RecordBytes {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            operations: record.operations.0.map(|entry| EntryBytes {
                operation: entry.map_or(0, |entry| entry.operation.to_byte()),
                flags: entry.map_or(0, |entry| u8::from(entry.standing) * FLAG_STANDING),
                reserved: [0; 6],
                at_s: U64::new(entry.map_or(0, |entry| entry.at_s)),
                epoch: U64::new(entry.map_or(0, |entry| entry.view.epoch.0)),
                id: entry.map_or([0; 16], |entry| entry.view.id.0),
                reserved1: U64::new(0),
            }),
            last_write_s: U64::new(record.last_write_s),
            reserved: [0; 40],
        }
    }

    pub(super) fn record(&self) -> Record {
        let entry = |raw: EntryBytes| {
            Some(OperationEntry {
                operation: Operation::from_byte(raw.operation)?,
                view: ViewMark {
                    epoch: Epoch(raw.epoch.get()),
                    id: ViewId(raw.id),
                },
                at_s: raw.at_s.get(),
                standing: raw.flags & FLAG_STANDING != 0,
            })
        };
        Record {
            operations: Operations(self.operations.map(entry)),
            last_write_s: self.last_write_s.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(operation: Operation, at_s: u64, standing: bool) -> OperationEntry {
        OperationEntry {
            operation,
            view: ViewMark::default(),
            at_s,
            standing,
        }
    }

    #[test]
    fn what_is_not_mended_never_falls_out() {
        let mut operations = Operations::default();
        operations.record(entry(Operation::Force, 1, true));
        for at_s in 2..100 {
            operations.record(entry(Operation::Takeover, at_s, false));
        }
        let times: alloc::vec::Vec<u64> = operations.iter().map(|entry| entry.at_s).collect();
        let newest = (86..100).rev().chain([1]);
        assert_eq!(times, newest.collect::<alloc::vec::Vec<u64>>());
        assert!(operations.standing(Operation::Force).is_some());
        operations.mended(Operation::Force);
        assert!(operations.standing(Operation::Force).is_none());
        operations.record(entry(Operation::Discard, 100, false));
        assert!(operations.iter().all(|entry| entry.at_s != 1));
    }

    #[test]
    fn an_operation_of_another_program_is_kept() {
        let mut record = Record::default();
        record
            .operations
            .record(entry(Operation::Other(200), 7, true));
        assert_eq!(RecordBytes::of(&record).record(), record);
    }
}
