//! Every write and flush that a disk carried out, in one order with all other disks and the ledger.
//!
//! What a power cut may leave of a disk follows from it: everything before its last flush, and any part
//! of what came after. So one run of the machines gives as many crashes as one wants to look at.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::volatile::{Fate, Odds, PowerCut, leave};

/// Numbers everything that happens in a cluster.
///
/// A disk takes its number before it answers, the ledger when it hears: so whatever was acknowledged has a
/// higher number than the writes that it stands on.
#[derive(Clone, Debug, Default)]
pub struct Order(Arc<AtomicU64>);

impl Order {
    /// The number of what happens now.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What a disk did.
#[derive(Clone, Debug)]
pub enum Change {
    /// A write that its machine may have been told of.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes, shared with the cache of the disk.
        data: Arc<Vec<u8>>,
    },
    /// Everything before is durable.
    Flush,
}

/// A change and its place in the order of the cluster.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Place.
    pub order: u64,
    /// Change.
    pub change: Change,
}

/// What a disk held when the recording began, and everything since.
#[derive(Clone, Debug, Default)]
pub struct WriteLog {
    /// Content at the begin.
    pub base: Vec<u8>,
    /// Changes, the oldest first.
    pub entries: Vec<Entry>,
}

impl WriteLog {
    /// A copy without the writes that touch a range of bytes: as if the disk had lost what it promised.
    #[must_use]
    pub fn without(&self, bytes: &Range<u64>) -> Self {
        let mut copy = self.clone();
        copy.entries.retain(|entry| match &entry.change {
            Change::Write { offset, data } => {
                *offset >= bytes.end || offset + data.len() as u64 <= bytes.start
            }
            Change::Flush => true,
        });
        copy
    }
}

/// How a disk comes through a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It stays: everything it had carried out is there.
    Stays,
    /// It goes: of what was not flushed, this is left.
    Goes {
        /// Which part of it.
        odds: Odds,
        /// Which writes and sectors.
        seed: u64,
    },
}

/// A log that is replayed forward, to make images at ever later cuts.
pub struct Replay<'a> {
    log: &'a WriteLog,
    /// Everything flushed before the last cut.
    medium: Vec<u8>,
    /// Number of the first entry that is not in `medium`.
    next: usize,
}

impl<'a> Replay<'a> {
    /// Begins where the log does.
    #[must_use]
    pub fn new(log: &'a WriteLog) -> Self {
        Self {
            log,
            medium: log.base.clone(),
            next: 0,
        }
    }

    /// Takes in all that was flushed up to `cut`. Cuts only rise.
    pub fn advance(&mut self, cut: u64) {
        let entries = &self.log.entries;
        let end = entries.partition_point(|entry| entry.order <= cut);
        let Some(flush) = entries[self.next..end.max(self.next)]
            .iter()
            .rposition(|entry| matches!(entry.change, Change::Flush))
        else {
            return;
        };
        for entry in &entries[self.next..self.next + flush] {
            if let Change::Write { offset, data } = &entry.change {
                let from = usize::try_from(*offset).unwrap_or(usize::MAX);
                self.medium[from..from + data.len()].copy_from_slice(data);
            }
        }
        self.next += flush + 1;
    }

    /// Writes what the cut leaves into a file; says what became of the writes that were not flushed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn image(&self, cut: u64, power: Power, into: &File) -> io::Result<PowerCut> {
        into.write_all_at(&self.medium, 0)?;
        let mut left = PowerCut::default();
        let mut random = match power {
            Power::Stays => 0,
            Power::Goes { seed, .. } => seed,
        };
        for entry in &self.log.entries[self.next..] {
            let Change::Write { offset, data } = &entry.change else {
                continue;
            };
            if entry.order > cut {
                break;
            }
            let mut write = |at: u64, part: &[u8]| into.write_all_at(part, offset + at);
            let fate = match power {
                Power::Stays => {
                    write(0, data)?;
                    Fate::Kept
                }
                Power::Goes { odds, .. } => leave(&mut random, odds, data, &mut write)?,
            };
            left.count(fate);
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volatile::SECTOR_BYTES;

    const BLOCK: usize = 4096;

    fn log() -> WriteLog {
        let write = |order, block: u64, byte| Entry {
            order,
            change: Change::Write {
                offset: block * BLOCK as u64,
                data: Arc::new(vec![byte; BLOCK]),
            },
        };
        let flush = |order| Entry {
            order,
            change: Change::Flush,
        };
        WriteLog {
            base: vec![9; 4 * BLOCK],
            entries: vec![
                write(10, 0, 1),
                flush(20),
                write(30, 0, 2),
                write(40, 1, 2),
                flush(50),
                write(60, 2, 3),
            ],
        }
    }

    fn image(cut: u64, power: Power) -> Vec<u8> {
        let log = log();
        let mut replay = Replay::new(&log);
        replay.advance(cut);
        let path = std::env::temp_dir().join(format!(
            "lockstep-image-{}-{cut}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        replay.image(cut, power, &file).unwrap();
        let mut bytes = vec![0; log.base.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn gone(seed: u64) -> Power {
        Power::Goes {
            odds: Odds::ALL_LOST,
            seed,
        }
    }

    fn blocks(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(BLOCK).map(|block| block[0]).collect()
    }

    #[test]
    fn what_was_flushed_before_the_cut_is_there_and_nothing_from_after_it() {
        assert_eq!(blocks(&image(5, gone(1))), [9, 9, 9, 9]);
        assert_eq!(blocks(&image(19, gone(1))), [9, 9, 9, 9]);
        assert_eq!(blocks(&image(20, gone(1))), [1, 9, 9, 9]);
        assert_eq!(blocks(&image(49, gone(1))), [1, 9, 9, 9]);
        assert_eq!(blocks(&image(50, gone(1))), [2, 2, 9, 9]);
        assert_eq!(blocks(&image(1000, gone(1))), [2, 2, 9, 9]);
        assert_eq!(blocks(&image(40, Power::Stays)), [2, 2, 9, 9]);
        assert_eq!(blocks(&image(60, Power::Stays)), [2, 2, 3, 9]);
    }

    #[test]
    fn what_was_not_flushed_is_there_in_any_part_and_sectors_are_whole() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let bytes = image(
                60,
                Power::Goes {
                    odds: Odds::MIXED,
                    seed,
                },
            );
            assert_eq!(blocks(&bytes)[..2], [2, 2]);
            let sectors: Vec<u8> = bytes[2 * BLOCK..3 * BLOCK]
                .chunks(SECTOR_BYTES)
                .map(|sector| {
                    assert!(sector.iter().all(|byte| *byte == sector[0]));
                    sector[0]
                })
                .collect();
            seen.insert(sectors);
        }
        assert!(seen.contains(&vec![9; 8]) && seen.contains(&vec![3; 8]) && seen.len() > 10);
    }
}
