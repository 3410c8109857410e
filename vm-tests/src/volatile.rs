//! The content of a disk with a volatile write cache, and what a power cut leaves of it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vm_guest::pattern::mix;

use crate::write_log::{Change, Entry, Order, WriteLog};

/// Unit that a disk writes as a whole.
pub const SECTOR_BYTES: usize = 512;
/// A real cache is finite too: beyond this the oldest writes reach the medium by themselves.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Whether an acknowledged write survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMode {
    /// Only after a flush, like a disk with a write cache.
    Volatile,
    /// At once, like a disk with a battery.
    Durable,
}

struct CachedWrite {
    offset: u64,
    data: Arc<Vec<u8>>,
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerCut {
    /// Unflushed writes that are there in full.
    pub kept: u64,
    /// Unflushed writes that are gone.
    pub lost: u64,
    /// Unflushed writes of which some sectors are there.
    pub torn: u64,
}

impl PowerCut {
    pub(crate) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.lost += other.lost;
        self.torn += other.torn;
    }

    pub(crate) fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Kept => self.kept += 1,
            Fate::Lost => self.lost += 1,
            Fate::Torn => self.torn += 1,
        }
    }
}

/// What became of an unflushed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Lost,
    Torn,
}

/// Of 100 unflushed writes, how many are lost and how many torn; the others are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds {
    lost: u64,
    torn: u64,
}

impl Odds {
    /// Some of everything.
    pub const MIXED: Self = Self { lost: 40, torn: 20 };
    /// The cache was never written back.
    pub const ALL_LOST: Self = Self { lost: 100, torn: 0 };
    /// The cache was nearly written back.
    pub const FEW_LOST: Self = Self { lost: 4, torn: 2 };
}

/// Lets `write` have what is left of an unflushed write.
pub(crate) fn leave(
    random: &mut u64,
    odds: Odds,
    data: &[u8],
    write: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<Fate> {
    *random = mix(*random);
    match *random % 100 {
        dice if dice < odds.lost => Ok(Fate::Lost),
        dice if dice < odds.lost + odds.torn => {
            for (number, part) in (0_u64..).zip(data.chunks(SECTOR_BYTES)) {
                *random = mix(*random);
                if random.is_multiple_of(2) {
                    write(number * SECTOR_BYTES as u64, part)?;
                }
            }
            Ok(Fate::Torn)
        }
        _ => {
            write(0, data)?;
            Ok(Fate::Kept)
        }
    }
}

struct Recording {
    order: Order,
    log: WriteLog,
}

/// Medium and cache.
pub(crate) struct Store {
    medium: File,
    mode: DiskMode,
    cache: VecDeque<CachedWrite>,
    cache_bytes: usize,
    /// Number of the first write in `cache`.
    first: u64,
    /// Sector to the number of the newest cached write that covers it.
    newest: HashMap<u64, u64>,
    recording: Option<Recording>,
}

impl Store {
    pub(crate) fn new(medium: File, mode: DiskMode) -> Self {
        Self {
            medium,
            mode,
            cache: VecDeque::new(),
            cache_bytes: 0,
            first: 0,
            newest: HashMap::new(),
            recording: None,
        }
    }

    /// From now on everything is written down; what is there now counts as flushed.
    pub(crate) fn record(&mut self, order: Order, size: usize) -> io::Result<()> {
        self.flush()?;
        let mut base = vec![0; size];
        self.medium.read_exact_at(&mut base, 0)?;
        let entries = Vec::new();
        self.recording = Some(Recording {
            order,
            log: WriteLog { base, entries },
        });
        Ok(())
    }

    /// Ends the recording.
    pub(crate) fn recorded(&mut self) -> Option<WriteLog> {
        self.recording.take().map(|recording| recording.log)
    }

    fn note(&mut self, change: Change) {
        if let Some(recording) = &mut self.recording {
            let order = recording.order.next();
            recording.log.entries.push(Entry { order, change });
        }
    }

    /// Reads what the machine would read: the cache covers the medium. Offsets are whole sectors.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.medium.read_exact_at(data, offset)?;
        if self.newest.is_empty() {
            return Ok(());
        }
        for (sector, part) in (offset / SECTOR_BYTES as u64..).zip(data.chunks_mut(SECTOR_BYTES)) {
            if let Some(write) = self
                .newest
                .get(&sector)
                .and_then(|number| self.cached(*number))
            {
                let from = index(sector * SECTOR_BYTES as u64 - write.offset);
                part.copy_from_slice(&write.data[from..from + part.len()]);
            }
        }
        Ok(())
    }

    fn cached(&self, number: u64) -> Option<&CachedWrite> {
        self.cache.get(index(number.checked_sub(self.first)?))
    }

    pub(crate) fn write(&mut self, offset: u64, data: Vec<u8>) -> io::Result<()> {
        if self.mode == DiskMode::Durable {
            self.medium.write_all_at(&data, offset)?;
            self.note(Change::Write {
                offset,
                data: Arc::new(data),
            });
            self.note(Change::Flush);
            return Ok(());
        }
        let data = Arc::new(data);
        self.note(Change::Write {
            offset,
            data: Arc::clone(&data),
        });
        let number = self.first + self.cache.len() as u64;
        for sector in sectors(offset, data.len()) {
            self.newest.insert(sector, number);
        }
        self.cache_bytes += data.len();
        self.cache.push_back(CachedWrite { offset, data });
        while self.cache_bytes > CACHE_BYTES_MAX {
            self.write_back_oldest()?;
        }
        Ok(())
    }

    fn write_back_oldest(&mut self) -> io::Result<()> {
        let Some(write) = self.cache.pop_front() else {
            return Ok(());
        };
        self.medium.write_all_at(&write.data, write.offset)?;
        self.cache_bytes -= write.data.len();
        for sector in sectors(write.offset, write.data.len()) {
            if self.newest.get(&sector) == Some(&self.first) {
                self.newest.remove(&sector);
            }
        }
        self.first += 1;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.cache.is_empty() {
            self.write_back_oldest()?;
        }
        self.note(Change::Flush);
        Ok(())
    }

    /// Drops a random subset of what is in the cache, whole writes and single sectors.
    pub(crate) fn power_cut(&mut self, seed: u64) -> io::Result<PowerCut> {
        let mut result = PowerCut::default();
        let mut random = mix(seed);
        for write in self.cache.drain(..) {
            let mut keep = |at: u64, part: &[u8]| self.medium.write_all_at(part, write.offset + at);
            result.count(leave(&mut random, Odds::MIXED, &write.data, &mut keep)?);
        }
        self.newest.clear();
        self.cache_bytes = 0;
        Ok(result)
    }

    /// Changes the medium itself, behind the back of cache and machine.
    pub(crate) fn damage(&self, offset: u64, length: usize) -> io::Result<()> {
        let mut data = vec![0; length];
        self.medium.read_exact_at(&mut data, offset)?;
        for byte in &mut data {
            *byte ^= 0xa5;
        }
        self.medium.write_all_at(&data, offset)
    }
}

fn sectors(offset: u64, length: usize) -> std::ops::Range<u64> {
    let sector = SECTOR_BYTES as u64;
    offset / sector..(offset + length as u64).div_ceil(sector)
}

/// Offsets inside a cached write or a cache fit in memory, so they fit in a `usize`.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(mode: DiskMode) -> Store {
        let path =
            std::env::temp_dir().join(format!("lockstep-store-{}-{mode:?}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(1 << 20).unwrap();
        Store::new(file, mode)
    }

    #[test]
    fn a_power_cut_loses_unflushed_writes_and_no_flushed_one() {
        let mut disk = store(DiskMode::Volatile);
        for block in 0..64 {
            disk.write(block * 4096, vec![1; 4096]).unwrap();
        }
        disk.flush().unwrap();
        for block in 0..64 {
            disk.write(block * 4096, vec![2; 4096]).unwrap();
        }
        let mut data = vec![0; 64 * 4096];
        disk.read(0, &mut data).unwrap();
        assert!(
            data.iter().all(|byte| *byte == 2),
            "the cache is read before the cut"
        );
        let cut = disk.power_cut(7).unwrap();
        assert!(cut.lost > 5 && cut.kept > 5 && cut.torn > 5, "{cut:?}");
        disk.read(0, &mut data).unwrap();
        assert!(data.contains(&1) && data.contains(&2));
        assert!(
            data.iter().all(|byte| *byte != 0),
            "what was flushed is never lost"
        );
        for sector in data.chunks(SECTOR_BYTES) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is never torn"
            );
        }
    }

    #[test]
    fn a_durable_disk_loses_nothing() {
        let mut disk = store(DiskMode::Durable);
        disk.write(4096, vec![3; 4096]).unwrap();
        assert_eq!(disk.power_cut(1).unwrap(), PowerCut::default());
        let mut data = vec![0; 4096];
        disk.read(4096, &mut data).unwrap();
        assert_eq!(data, vec![3; 4096]);
    }
}
