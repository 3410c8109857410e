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
/// Routine operations of which a superblock remembers, at most.
const ROUTINE_MAX: usize = 5;
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
    /// An operator marked this copy: it is not believed, and filled anew. The view under which that was said.
    Invalidate,
    /// A verify that writes one copy's blocks over the other's began: the view under which it did.
    Repair,
    /// A standby took over by an arbiter's word: the view that was committed by it.
    GrantedTakeover,
    /// A frozen active node went on alone by an arbiter's word: the view that was committed by it.
    GrantedAlone,
    /// One that this program does not know.
    Other(u8),
}

impl Operation {
    const ALL: [(u8, Self); 8] = [
        (1, Self::Takeover),
        (2, Self::GoAlone),
        (3, Self::Discard),
        (4, Self::Force),
        (5, Self::Invalidate),
        (6, Self::Repair),
        (7, Self::GrantedTakeover),
        (8, Self::GrantedAlone),
    ];

    /// Whether it happens without a person at hand, or by the week: such entries push out each other, not what an
    /// operator said once.
    fn is_routine(self) -> bool {
        match self {
            Self::Repair | Self::GrantedTakeover | Self::GrantedAlone => true,
            Self::Takeover
            | Self::GoAlone
            | Self::Discard
            | Self::Force
            | Self::Invalidate
            | Self::Other(_) => false,
        }
    }

    /// The same by an arbiter's word, if it was not an operator's.
    #[must_use]
    pub fn by_arbiter(self, granted: bool) -> Self {
        match self {
            Self::Takeover if granted => Self::GrantedTakeover,
            Self::GoAlone if granted => Self::GrantedAlone,
            Self::Takeover
            | Self::GoAlone
            | Self::Discard
            | Self::Force
            | Self::Invalidate
            | Self::Repair
            | Self::GrantedTakeover
            | Self::GrantedAlone
            | Self::Other(_) => self,
        }
    }

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
    /// Puts `entry` in front. If there is no room, the oldest that is not standing falls out; of routine ones at most
    /// [`ROUTINE_MAX`] are kept, so that no number of failovers pushes out an operator's word.
    pub fn record(&mut self, entry: OperationEntry) {
        let last = OPERATIONS_MAX - 1;
        let routine = |old: &OperationEntry| !old.standing && old.operation.is_routine();
        let oldest_routine = self
            .0
            .iter()
            .rposition(|old| old.as_ref().is_some_and(routine));
        let crowded = self.iter().filter(|old| routine(old)).count() >= ROUTINE_MAX;
        let free = self.0.iter().position(Option::is_none);
        let oldest = || {
            let gone = |old: &Option<OperationEntry>| old.is_none_or(|old| !old.standing);
            self.0.iter().rposition(gone)
        };
        let goes = if entry.operation.is_routine() && crowded {
            oldest_routine
        } else {
            free.or(oldest_routine).or_else(oldest)
        };
        self.0[..=goes.unwrap_or(last)].rotate_right(1);
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
    fn what_happens_by_itself_pushes_out_no_operators_word() {
        let mut operations = Operations::default();
        for at_s in 1..=10 {
            operations.record(entry(Operation::Discard, at_s, false));
        }
        for at_s in 11..200 {
            let routine = [
                Operation::GrantedAlone,
                Operation::GrantedTakeover,
                Operation::Repair,
            ];
            operations.record(entry(
                routine[usize::try_from(at_s).unwrap() % 3],
                at_s,
                false,
            ));
        }
        let times: alloc::vec::Vec<u64> = operations.iter().map(|entry| entry.at_s).collect();
        let newest = (195..200).rev().chain((1..=10).rev());
        assert_eq!(times, newest.collect::<alloc::vec::Vec<u64>>());
        // Words push the routine ones out first, then the oldest words.
        for at_s in 200..206 {
            operations.record(entry(Operation::Invalidate, at_s, false));
        }
        let times: alloc::vec::Vec<u64> = operations.iter().map(|entry| entry.at_s).collect();
        let newest = (200..206).rev().chain((2..=10).rev());
        assert_eq!(times, newest.collect::<alloc::vec::Vec<u64>>());
        // Where words fill it, something routine still finds a place.
        operations.record(entry(Operation::GrantedAlone, 300, false));
        assert_eq!(operations.iter().next().unwrap().at_s, 300);
    }

    #[test]
    fn every_operation_has_its_number() {
        for (byte, operation) in Operation::ALL {
            assert_eq!(operation.to_byte(), byte);
            assert_eq!(Operation::from_byte(byte), Some(operation));
        }
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
