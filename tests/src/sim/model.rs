//! What an application may see: the history of every sector, by the rules of one disk with a
//! volatile cache, and which nodes hold what is not flushed.

use std::collections::BTreeSet;

use mirror_core::types::SectorRange;

use super::cover::Touched;
use super::disk::Value;

/// A change of data that the application asked for, or a value that a read settled.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub range: SectorRange,
    /// Whether it writes zeroes.
    pub zero: bool,
    /// Which activation's application asked for it.
    pub activation: u64,
    /// When it was asked for.
    pub submitted: u64,
    /// When nothing of it could land any more.
    pub ended: Option<u64>,
    /// When it was acknowledged.
    pub acked: Option<u64>,
    /// Nodes that hold it in this boot (bits).
    pub holders: u8,
    /// It survives any power cut.
    pub secured: bool,
    /// Nodes where it has completed at some time (bits).
    pub landed: u8,
    /// Nodes that lost their power before it was acknowledged (bits).
    pub lost: u8,
    /// Not a write: a read settled it.
    pub settled: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    write: usize,
    value: Value,
}

/// Everything the application did.
#[derive(Debug)]
pub struct Model {
    writes: Vec<Write>,
    sectors: Vec<Vec<Entry>>,
    /// Acknowledged and not secured.
    exposed: Vec<usize>,
    open: Vec<usize>,
    clock: u64,
    /// Nodes whose copy gave itself up and on whose disk no other daemon began yet, a bit each.
    failed: u8,
    /// When the reads were asked for that are not answered.
    pub reading: BTreeSet<u64>,
    /// Where anything was ever written.
    pub(super) touched: Touched,
}

/// The value that write `number` puts at the `offset`th sector of its range.
pub(super) fn value_of(number: usize, offset: usize) -> Value {
    (number as u64) << 8 | offset as u64
}

impl Write {
    /// Whether it was acknowledged before then and still has to be somewhere: what two disks that failed have both
    /// forgotten nobody can flush.
    pub(super) fn is_acked_before(&self, before: u64) -> bool {
        self.acked.is_some_and(|acked| acked < before) && (self.secured || self.holders != 0)
    }
}

/// Which write a value belongs to.
pub(super) fn write_of(value: Value) -> Option<usize> {
    if value == 0 {
        None
    } else {
        usize::try_from(value >> 8).ok()
    }
}

impl Model {
    /// Nothing was written yet.
    pub fn new(sectors: u64) -> Self {
        let sectors = usize::try_from(sectors).unwrap_or(0);
        let zero = Write {
            range: SectorRange::new(0, 0),
            zero: true,
            activation: 0,
            submitted: 0,
            ended: Some(0),
            acked: None,
            holders: 0,
            secured: true,
            landed: 3,
            lost: 0,
            settled: false,
        };
        Self {
            writes: vec![zero],
            sectors: vec![Vec::new(); sectors],
            exposed: Vec::new(),
            failed: 0,
            open: Vec::new(),
            clock: 1,
            reading: BTreeSet::new(),
            touched: Touched::default(),
        }
    }

    /// A moment after all others.
    pub fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write's record.
    pub fn write(&self, number: usize) -> &Write {
        &self.writes[number]
    }

    /// The application asks for a change.
    pub fn submit(&mut self, range: SectorRange, zero: bool, activation: u64) -> usize {
        let number = self.writes.len();
        let submitted = self.tick();
        self.push(Write {
            range,
            zero,
            activation,
            submitted,
            ended: None,
            acked: None,
            holders: 0,
            secured: false,
            landed: 0,
            lost: 0,
            settled: false,
        });
        self.open.push(number);
        number
    }

    fn push(&mut self, write: Write) {
        let number = self.writes.len();
        let range = write.range;
        let zero = write.zero;
        self.touched.add(range.start, range.count);
        self.writes.push(write);
        for offset in 0..range.count as usize {
            let value = if zero { 0 } else { value_of(number, offset) };
            self.enter(
                range.start + offset as u64,
                Entry {
                    write: number,
                    value,
                },
            );
        }
    }

    fn enter(&mut self, sector: u64, entry: Entry) {
        let sector = usize::try_from(sector).unwrap_or(0);
        self.sectors[sector].push(entry);
        if self.sectors[sector].len() > 12 {
            let before = self.reading.first().copied().unwrap_or(u64::MAX);
            let floor = self.floor(sector, before, true);
            let writes = &self.writes;
            self.sectors[sector]
                .retain(|entry| writes[entry.write].ended.is_none_or(|ended| ended >= floor));
        }
    }

    /// Everything that ended before this moment cannot be there any more.
    fn floor(&self, sector: usize, before: u64, secured: bool) -> u64 {
        let entries = self.sectors[sector]
            .iter()
            .map(|entry| &self.writes[entry.write]);
        entries
            .filter(|write| write.acked.is_some_and(|acked| acked < before))
            .filter(|write| write.secured || (!secured && write.holders != 0))
            .map(|write| write.submitted)
            .max()
            .unwrap_or(0)
    }

    /// It was acknowledged; `holders` are the members that it has to be on.
    pub fn acknowledge(&mut self, number: usize, holders: u8, durable: bool) {
        let now = self.tick();
        self.open.retain(|open| *open != number);
        let write = &mut self.writes[number];
        write.acked = Some(now);
        write.ended = Some(now);
        let sound = holders & !write.lost & !self.failed;
        write.holders = if sound == 0 {
            holders & !write.lost
        } else {
            sound
        };
        write.secured = durable;
        if !durable {
            self.exposed.push(number);
        }
    }

    /// No value of it must ever be seen: it belongs to a history that will be discarded.
    pub(super) fn void(&mut self, number: usize) {
        self.open.retain(|open| *open != number);
        let range = self.writes[number].range;
        for sector in range.start..range.end() {
            let sector = usize::try_from(sector).unwrap_or(0);
            self.sectors[sector].retain(|entry| entry.write != number);
        }
    }

    /// Everything is forgotten: every sector holds what it holds now, for good.
    pub(super) fn begin_anew(&mut self, content: &[Value]) {
        self.exposed.clear();
        self.open.clear();
        let now = self.tick();
        let write = self.writes.len();
        self.writes.push(Write {
            range: SectorRange::new(0, 0),
            zero: false,
            activation: 0,
            submitted: now,
            ended: Some(now),
            acked: Some(now),
            holders: 3,
            secured: true,
            landed: 3,
            lost: 0,
            settled: true,
        });
        for (entries, value) in self.sectors.iter_mut().zip(content) {
            entries.clear();
            let value = *value;
            entries.push(Entry { write, value });
        }
    }

    /// It failed.
    pub fn fail(&mut self, number: usize) {
        let now = self.tick();
        self.open.retain(|open| *open != number);
        self.writes[number].ended = Some(now);
    }

    /// Everything that is not acknowledged and not of this activation can come to nothing more.
    pub fn end_others(&mut self, activation: u64) {
        let now = self.tick();
        let writes = &mut self.writes;
        for number in &self.open {
            if writes[*number].activation != activation && writes[*number].ended.is_none() {
                writes[*number].ended = Some(now);
            }
        }
    }

    /// A flush that was asked for at `submitted` is acknowledged.
    pub fn flushed(&mut self, submitted: u64) {
        let writes = &mut self.writes;
        self.exposed.retain(|number| {
            let write = &mut writes[*number];
            write.secured |=
                write.holders != 0 && write.acked.is_some_and(|acked| acked < submitted);
            !write.secured && write.holders != 0
        });
    }

    /// A node's power is gone, with everything that it had not flushed.
    pub fn power_cut(&mut self, node: usize) {
        for number in &self.exposed {
            self.writes[*number].holders &= !(1 << node);
        }
        for number in &self.open {
            self.writes[*number].lost |= 1 << node;
        }
    }

    /// A node's copy gave itself up: it will be filled from the other one, and carries nothing that only a flush would
    /// have made sure. Who alone has a write keeps it: a disk that failed last is recovered with everything on it.
    pub fn disk_failed(&mut self, node: usize) {
        self.failed |= 1 << node;
        for number in &self.exposed {
            let write = &mut self.writes[*number];
            if write.holders & !(1 << node) != 0 {
                write.holders &= !(1 << node);
            }
        }
    }

    /// Another daemon begins on that disk.
    pub fn daemon_started(&mut self, node: usize) {
        self.failed &= !(1 << node);
    }

    /// A node got a complete copy; or its last superblock landed after that copy had given itself up.
    pub fn joined(&mut self, node: usize) {
        if self.failed & (1 << node) != 0 {
            return;
        }
        for number in &self.exposed {
            let write = &mut self.writes[*number];
            if write.holders != 0 {
                write.holders |= 1 << node;
            }
        }
    }

    /// A disk write has ended on a node.
    pub fn landed(&mut self, node: usize, value: Value) {
        if let Some(number) = write_of(value)
            && let Some(write) = self.writes.get_mut(number)
        {
            write.landed |= 1 << node;
        }
    }

    /// Whether `value` may be read by a read that began at `began`; and whether another might have been.
    pub fn judge(&self, sector: u64, value: Value, began: u64) -> Judgement {
        let sector = usize::try_from(sector).unwrap_or(0);
        let floor = self.floor(sector, began, false);
        let alive = |write: &Write| write.ended.is_none_or(|ended| ended >= floor);
        // Several writes may have put the same value there (zeroes): it is as sure as the least of them.
        let (mut fits, mut settled, mut others, mut secured) = (
            floor == 0 && value == 0,
            true,
            floor == 0 && value != 0,
            true,
        );
        let mut holders = 0;
        for entry in &self.sectors[sector] {
            let write = &self.writes[entry.write];
            if !alive(write) {
                continue;
            }
            if entry.value == value {
                fits = true;
                secured &= write.secured;
                holders |= write.acked.map_or(!write.lost, |_| write.holders);
                settled &= write.ended.is_some_and(|ended| ended < began);
            } else if write.ended.is_some_and(|ended| ended < began) {
                others = true;
            }
        }
        if !fits {
            return Judgement::Wrong(self.why(sector, floor, began));
        }
        if settled && others {
            Judgement::Settles { secured, holders }
        } else {
            Judgement::Right
        }
    }

    fn why(&self, sector: usize, floor: u64, began: u64) -> &'static str {
        let mut entries = self.sectors[sector].iter();
        let last = entries.find(|entry| self.writes[entry.write].submitted == floor);
        let last = last.map(|entry| &self.writes[entry.write]);
        if last.is_some_and(|write| write.settled) {
            "another value than was read before (S10, I3)"
        } else if self.floor(sector, began, true) == floor {
            "and a write that was flushed is lost (S1, S11, I2, I3)"
        } else {
            "and an acknowledged write is lost (S1, I3)"
        }
    }

    /// A read that began at `began` returned `value` where others were possible: it stays (S10).
    pub fn settle(&mut self, sector: u64, value: Value, began: u64, holders: u8, secured: bool) {
        let number = self.writes.len();
        let now = self.tick();
        self.writes.push(Write {
            range: SectorRange::new(sector, 1),
            zero: false,
            activation: 0,
            submitted: began,
            ended: Some(now),
            acked: Some(now),
            holders,
            secured,
            landed: 3,
            lost: 0,
            settled: true,
        });
        if !secured {
            self.exposed.push(number);
        }
        self.enter(
            sector,
            Entry {
                write: number,
                value,
            },
        );
    }

    /// The history of a sector, for a report.
    pub fn explain(&self, sector: u64) -> String {
        let mut text = String::new();
        for entry in &self.sectors[usize::try_from(sector).unwrap_or(0)] {
            let write = &self.writes[entry.write];
            text.push_str(&format!(
                "\n    {:#x}: write {} of activation {} asked {} ended {:?} acked {:?} holders {:02b} secured {} landed {:02b}",
                entry.value, entry.write, write.activation, write.submitted, write.ended, write.acked, write.holders, write.secured, write.landed
            ));
        }
        text
    }
}

/// What a read's value is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It must not be there, and why.
    Wrong(&'static str),
    /// It is what must be there.
    Right,
    /// It is one of several; from now on the others must not be there.
    Settles {
        /// Whether it survives a power cut.
        secured: bool,
        /// Nodes that may hold it in this boot (bits).
        holders: u8,
    },
}

#[cfg(test)]
mod tests {
    use super::{Judgement, Model, value_of};
    use mirror_core::types::SectorRange;

    /// One acknowledged write to sector 0 that no flush covers and both nodes hold; and what a read of the sector's
    /// first content is taken for.
    fn written() -> (Model, impl Fn(&Model) -> bool) {
        let mut model = Model::new(8);
        let number = model.submit(SectorRange::new(0, 1), false, 1);
        assert_eq!(value_of(number, 0) >> 8, number as u64);
        model.acknowledge(number, 3, false);
        let may_be_lost = |model: &Model| {
            let judged = model.judge(0, 0, u64::MAX);
            !matches!(judged, Judgement::Wrong(_))
        };
        (model, may_be_lost)
    }

    /// Seed 7912: one copy failed, the other node lost its power. Two faults may take what no flush covers; one may not.
    #[test]
    fn a_failed_copy_carries_nothing_unflushed_any_more() {
        let (mut model, may_be_lost) = written();
        model.disk_failed(1);
        assert!(!may_be_lost(&model), "node 0 has it");
        // A superblock that was on its way when the copy failed.
        model.joined(1);
        model.power_cut(0);
        assert!(may_be_lost(&model));

        // Where metadata fail alone the copy is not given up (ADR 0009).
        let (mut model, may_be_lost) = written();
        model.power_cut(0);
        assert!(!may_be_lost(&model), "node 1 has it");

        let (mut model, may_be_lost) = written();
        model.power_cut(0);
        model.disk_failed(1);
        assert!(!may_be_lost(&model), "who failed last is recovered with it");

        let (mut model, may_be_lost) = written();
        model.disk_failed(1);
        model.daemon_started(1);
        model.joined(1);
        model.power_cut(0);
        assert!(!may_be_lost(&model), "node 1 was filled since");
    }
}
