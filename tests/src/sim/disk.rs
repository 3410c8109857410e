//! Disks with a volatile cache. A sector is one number ("which write put it there"), not 512 bytes.

use std::collections::{BTreeSet, VecDeque};

use mirror_core::effect::DiskOperation;
use mirror_core::event::IoOwner;
use mirror_core::types::SectorRange;

use super::model::write_of;
use super::rng::Rng;

/// Completed writes that may wait for a flush; older ones become durable by themselves.
const DIRTY_MAX: usize = 4000;

/// What no write put there.
pub(super) const GARBAGE: Value = 0xff;

/// What a damaged sector holds.
const DAMAGE: Value = 0xfe;

/// Content of one sector: 0, or the write's number times 256 and the sector's place in it.
pub(super) type Value = u64;

/// An operation that was started.
#[derive(Debug)]
pub struct Running {
    /// Its number on this disk.
    pub ticket: u64,
    /// Whose it is.
    pub owner: IoOwner,
    /// What it does.
    pub operation: DiskOperation,
    /// Where.
    pub range: SectorRange,
    /// What is written.
    data: Vec<Value>,
    /// Flush: what had completed before.
    mark: u64,
    /// Read: what it found when it began.
    early: Option<Vec<Value>>,
    /// Global time at which it began.
    pub began: u64,
    /// Which memory of its owner it uses: counted up when that is put aside.
    pub memory: u64,
    /// It was given up, and its buffer waits for its end.
    pub release: bool,
    /// A durable write whose data were in the cache when that was lost.
    hollow: bool,
}

#[derive(Debug)]
struct Dirty {
    order: u64,
    start: usize,
    data: Vec<Value>,
}

/// The backing device of a node.
#[derive(Debug)]
pub struct DataDisk {
    /// What a read finds.
    pub content: Vec<Value>,
    media: Vec<Value>,
    media_order: Vec<u64>,
    dirty: VecDeque<Dirty>,
    /// What it had not flushed when it went back.
    lost: Vec<Dirty>,
    order: u64,
    /// What is under way.
    pub running: Vec<Running>,
    tickets: u64,
    /// Every change and every flush fails.
    pub failing: bool,
    /// Reads fail as well.
    pub dead: bool,
    /// With its first error it loses what it had not flushed.
    pub forgets: bool,
    /// It has lost something so.
    pub went_back: bool,
    /// Until then operations do not end.
    pub stuck_until: u64,
    /// Of a hundred operations so many.
    pub stuck_share: u64,
    /// What was given up and has not ended.
    pub late: Vec<Running>,
    /// The process that gave it up.
    pub given_up_by: u64,
    /// Sectors that cannot be read until they are written.
    pub unreadable: BTreeSet<u64>,
    /// Until then single reads fail.
    pub flaky_until: u64,
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Running {
    /// Whether it changes data.
    pub fn changes(&self) -> bool {
        !matches!(self.operation, DiskOperation::Read | DiskOperation::Flush)
    }
}

impl DataDisk {
    /// A disk full of zeroes.
    pub fn new(sectors: u64) -> Self {
        let sectors = index(sectors);
        Self {
            content: vec![0; sectors],
            media: vec![0; sectors],
            media_order: vec![0; sectors],
            dirty: VecDeque::new(),
            lost: Vec::new(),
            order: 0,
            running: Vec::new(),
            tickets: 0,
            failing: false,
            dead: false,
            forgets: false,
            went_back: false,
            stuck_until: 0,
            stuck_share: 100,
            late: Vec::new(),
            given_up_by: 0,
            unreadable: BTreeSet::new(),
            flaky_until: 0,
        }
    }

    /// The disk of a joining copy holds whatever was there.
    pub fn spoil(&mut self) {
        self.lost.clear();
        self.content.fill(GARBAGE);
        self.media.fill(GARBAGE);
    }

    /// From this sector on there is something that no write put there.
    pub fn spoil_from(&mut self, from: u64, value: Value) {
        let from = index(from);
        self.content[from..].fill(value);
        self.media[from..].fill(value);
    }

    /// Something that nobody wrote is on the media, and nothing that was written before can replace it.
    pub fn damage(&mut self, sector: usize) {
        self.order += 1;
        self.content[sector] = DAMAGE;
        self.media[sector] = DAMAGE;
        self.media_order[sector] = self.order;
    }

    /// Begins an operation; returns its ticket.
    pub fn start(
        &mut self,
        rng: &mut Rng,
        owner: IoOwner,
        operation: DiskOperation,
        range: SectorRange,
        data: Vec<Value>,
    ) -> u64 {
        self.tickets += 1;
        let early = (operation == DiskOperation::Read && rng.percent(50))
            .then(|| self.slice(range).to_vec());
        self.running.push(Running {
            ticket: self.tickets,
            owner,
            operation,
            range,
            data,
            mark: self.order,
            early,
            began: 0,
            memory: 0,
            release: false,
            hollow: false,
        });
        self.tickets
    }

    fn slice(&self, range: SectorRange) -> &[Value] {
        &self.content[index(range.start)..index(range.end())]
    }

    /// Ends an operation. Returns it and what was read.
    pub fn finish(&mut self, ticket: u64) -> Option<(Running, Vec<Value>)> {
        let running = self.forget(ticket)?;
        Some(self.carry_out(running))
    }

    /// Ends an operation that was given up.
    pub fn finish_late(&mut self, ticket: u64) -> Option<(Running, Vec<Value>)> {
        let mut late = self.late.iter();
        let position = late.position(|running| running.ticket == ticket)?;
        let running = self.late.remove(position);
        Some(self.carry_out(running))
    }

    fn carry_out(&mut self, mut running: Running) -> (Running, Vec<Value>) {
        let mut read = Vec::new();
        match running.operation {
            DiskOperation::Read => {
                read = running
                    .early
                    .take()
                    .unwrap_or_else(|| self.slice(running.range).to_vec());
            }
            DiskOperation::Flush => self.flush(running.mark),
            DiskOperation::Write { fua: true } if running.hollow => {
                self.order += 1;
                self.lost.push(Dirty {
                    order: self.order,
                    start: index(running.range.start),
                    data: running.data.clone(),
                });
            }
            DiskOperation::Write { fua } => self.write(running.range, running.data.clone(), fua),
            DiskOperation::Discard => {
                self.write(running.range, vec![0; running.range.count as usize], false)
            }
            DiskOperation::WriteZeroes { fua } => {
                self.write(running.range, vec![0; running.range.count as usize], fua)
            }
        }
        (running, read)
    }

    /// A flush failed: the disk has thrown away what it had not written.
    pub fn lose_unflushed(&mut self) {
        self.dirty.clear();
    }

    /// Whatever was not flushed is gone, also from what is read: the media answer.
    ///
    /// A durable write is one into the cache and a flush, on most disks: where the first had happened, the second ends
    /// well and proves nothing.
    pub fn go_back(&mut self) {
        self.lost.extend(self.dirty.drain(..));
        for running in &mut self.running {
            running.hollow = running.ticket % 2 == 0;
        }
        self.content.copy_from_slice(&self.media);
        self.went_back = true;
    }

    /// Ends an operation without effect.
    pub fn forget(&mut self, ticket: u64) -> Option<Running> {
        let position = self
            .running
            .iter()
            .position(|running| running.ticket == ticket)?;
        Some(self.running.remove(position))
    }

    fn write(&mut self, range: SectorRange, data: Vec<Value>, fua: bool) {
        self.order += 1;
        for sector in range.start..range.end() {
            self.unreadable.remove(&sector);
        }
        let start = index(range.start);
        self.content[start..start + data.len()].copy_from_slice(&data);
        let dirty = Dirty {
            order: self.order,
            start,
            data,
        };
        if fua {
            self.settle(&dirty);
        } else {
            self.dirty.push_back(dirty);
        }
        while self.dirty.len() > DIRTY_MAX {
            if let Some(oldest) = self.dirty.pop_front() {
                self.settle(&oldest);
            }
        }
    }

    fn settle(&mut self, dirty: &Dirty) {
        for (offset, value) in dirty.data.iter().enumerate() {
            let sector = dirty.start + offset;
            if self.media_order[sector] < dirty.order {
                self.media_order[sector] = dirty.order;
                self.media[sector] = *value;
            }
        }
    }

    fn flush(&mut self, mark: u64) {
        while self.dirty.front().is_some_and(|dirty| dirty.order <= mark) {
            if let Some(dirty) = self.dirty.pop_front() {
                self.settle(&dirty);
            }
        }
    }

    /// Power is gone: of what was not flushed any part may have reached the media, of what was under way too.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let mood = rng.below(4);
        self.lost.clear();
        let dirty: Vec<Dirty> = self.dirty.drain(..).collect();
        for entry in dirty {
            self.keep_some(rng, mood, entry);
        }
        let running: Vec<Running> = self.running.drain(..).chain(self.late.drain(..)).collect();
        for entry in running {
            if entry.changes() {
                self.order += 1;
                let data = if entry.data.is_empty() {
                    vec![0; entry.range.count as usize]
                } else {
                    entry.data
                };
                let entry = Dirty {
                    order: self.order,
                    start: index(entry.range.start),
                    data,
                };
                self.keep_some(rng, mood, entry);
            }
        }
        self.content.copy_from_slice(&self.media);
    }

    fn keep_some(&mut self, rng: &mut Rng, mood: u64, entry: Dirty) {
        match (mood, rng.below(3)) {
            (0, _) | (1 | 2, 0) => {}
            (3, _) | (1, _) => self.settle(&entry),
            _ => {
                for (offset, value) in entry.data.iter().enumerate() {
                    if rng.percent(50) {
                        let one = Dirty {
                            order: entry.order,
                            start: entry.start + offset,
                            data: vec![*value],
                        };
                        self.settle(&one);
                    }
                }
            }
        }
    }

    /// The disk is another one, without power until now.
    pub fn replace(&mut self, media: &[Value]) {
        self.lost.clear();
        self.media.copy_from_slice(media);
        self.content.copy_from_slice(media);
    }

    /// Every value that is not yet durable, or was lost before it was. What is written again where it is on the media
    /// already is durable; and what the media have something later for can never get there. That later write may be one
    /// that was not acknowledged: a crash let it reach this disk, and a read that failed had what the other copy holds written
    /// over it. After a power cut it stands, which is allowed.
    pub fn unflushed(&self) -> impl Iterator<Item = Value> {
        self.lost.iter().chain(&self.dirty).flat_map(|dirty| {
            let sectors = dirty.start..dirty.start + dirty.data.len();
            let waits = |(sector, value): &(usize, Value)| {
                let media = self.media[*sector];
                let later = write_of(media) > write_of(*value);
                self.media_order[*sector] < dirty.order && media != *value && !later
            };
            let pairs = sectors.zip(dirty.data.iter().copied());
            pairs.filter(waits).map(|(_, value)| value)
        })
    }

    /// The content that would survive now for sure.
    pub fn media(&self) -> &[Value] {
        &self.media
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::types::Tag;

    fn carry_out(disk: &mut DataDisk, operation: DiskOperation, start: u64, data: &[Value]) {
        let count = u32::try_from(data.len()).expect("a few sectors");
        let (owner, range) = (IoOwner::Application(Tag(0)), SectorRange::new(start, count));
        let ticket = disk.start(&mut Rng::new(1), owner, operation, range, data.to_vec());
        assert!(disk.finish(ticket).is_some());
    }

    fn unflushed(disk: &DataDisk) -> Vec<Value> {
        disk.unflushed().collect()
    }

    #[test]
    fn what_is_rewritten_and_then_zeroed_for_good_is_not_waited_for() {
        let mut disk = DataDisk::new(8);
        carry_out(
            &mut disk,
            DiskOperation::Write { fua: false },
            0,
            &[0x100, 0x101],
        );
        assert_eq!(unflushed(&disk), [0x100, 0x101]);
        carry_out(&mut disk, DiskOperation::Flush, 0, &[]);
        // A read that failed had it written again.
        carry_out(
            &mut disk,
            DiskOperation::Write { fua: false },
            0,
            &[0x100, 0x101],
        );
        assert_eq!(unflushed(&disk), []);
        carry_out(&mut disk, DiskOperation::WriteZeroes { fua: true }, 1, &[0]);
        assert_eq!(unflushed(&disk), []);
        carry_out(&mut disk, DiskOperation::Flush, 0, &[]);
        assert_eq!(disk.media()[..2], [0x100, 0], "the later one stays");
    }

    #[test]
    fn what_is_written_over_a_later_write_that_is_durable_is_not_waited_for() {
        let mut disk = DataDisk::new(8);
        let write = |fua| DiskOperation::Write { fua };
        carry_out(&mut disk, write(true), 0, &[0x200, GARBAGE]);
        carry_out(&mut disk, write(false), 0, &[0x100, 0x101]);
        assert_eq!(unflushed(&disk), [0x101]);
    }

    #[test]
    fn what_is_written_over_durable_zeroes_is_waited_for() {
        let mut disk = DataDisk::new(8);
        carry_out(
            &mut disk,
            DiskOperation::WriteZeroes { fua: true },
            0,
            &[0, 0],
        );
        carry_out(
            &mut disk,
            DiskOperation::Write { fua: false },
            0,
            &[0x100, 0x101],
        );
        carry_out(&mut disk, DiskOperation::Write { fua: true }, 1, &[0x200]);
        assert_eq!(unflushed(&disk), [0x100]);
    }
}
