//! The judge: is everything that was acknowledged still there, and whole?
//!
//! For each block the ledger knows the order of its writes, because a block never has two in flight. The
//! last write whose durability was promised is *required*: every sector must hold it or a later one. Sectors
//! of a write that was never acknowledged may be there or not, each for itself.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Context, bail};
use vm_guest::pattern::{SECTOR_BYTES, SectorContent, read_sector};
use vm_guest::record::Kind;

use crate::disk::Disk;
use crate::ledger::Ledger;

const EXAMPLES_MAX: usize = 5;
const READ_BYTES: usize = 256 << 10;

/// Something whose content can be read.
pub trait ReadAt {
    /// Fills `data` from `offset`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()>;
}

impl ReadAt for Disk {
    fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()> {
        Self::read_at(self, offset, data)
    }
}

/// Which writes must have survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every acknowledged one (a mirror whose survivor kept running; a writer with FUA).
    Acked,
    /// Those acknowledged before a flush was issued that was acknowledged as well (a power cut).
    Flushed,
}

/// Blocks with one kind of damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// How many blocks.
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

impl Finding {
    fn add(&mut self, example: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example);
        }
    }
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks of which a certain write was required.
    pub required: u64,
    /// Empty, although a write was promised.
    pub lost: Finding,
    /// Whole, but older than what was promised.
    pub stale: Finding,
    /// Part of it is what was promised or newer, part of it is older.
    pub torn: Finding,
    /// Content that belongs elsewhere.
    pub misplaced: Finding,
    /// Content that nobody wrote.
    pub corrupt: Finding,
    /// A write that was never acknowledged is there in part. That is legal.
    pub torn_in_flight: u64,
}

impl Verdict {
    /// Nothing that was promised is missing, and nothing is there that should not be.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.findings()
            .iter()
            .all(|(_, finding)| finding.count == 0)
    }

    /// Fails unless everything is well and something was required at all: an empty proof proves nothing.
    ///
    /// # Errors
    /// With the verdict.
    pub fn require_ok(&self) -> anyhow::Result<()> {
        if !self.ok() {
            bail!("{self}");
        }
        if self.required == 0 {
            bail!("the ledger requires nothing, so this proves nothing: {self}");
        }
        Ok(())
    }

    fn findings(&self) -> [(&'static str, &Finding); 5] {
        [
            ("lost", &self.lost),
            ("stale", &self.stale),
            ("torn", &self.torn),
            ("misplaced", &self.misplaced),
            ("corrupt", &self.corrupt),
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} blocks, {} with a promise",
            self.blocks, self.required
        )?;
        for (name, finding) in self.findings() {
            write!(f, ", {} {name}", finding.count)?;
        }
        for (name, finding) in self.findings() {
            for example in &finding.examples {
                write!(f, "\n  {name}: {example}")?;
            }
        }
        Ok(())
    }
}

struct Write {
    run: u32,
    sequence: u64,
    acked_at: Option<usize>,
    machine: usize,
    /// A power cut came before a flush: the promise is void, and no later flush renews it.
    void: bool,
}

/// Writes of each block in their order, and which one is required.
struct History {
    blocks: HashMap<u64, Vec<Write>>,
    /// Acks before this position in the ledger were covered by an acknowledged flush.
    flushed_before: usize,
    block_count: u64,
}

impl History {
    fn of(ledger: &Ledger) -> Self {
        let mut history = Self {
            blocks: HashMap::new(),
            flushed_before: 0,
            block_count: 0,
        };
        let mut flushes = HashMap::new();
        for (position, entry) in ledger.entries.iter().enumerate() {
            let record = entry.record;
            let flush = (record.run, record.sequence);
            match record.kind {
                Kind::Start => history.block_count = history.block_count.max(record.block),
                Kind::Issue => history.blocks.entry(record.block).or_default().push(Write {
                    run: record.run,
                    sequence: record.sequence,
                    acked_at: None,
                    machine: entry.machine,
                    void: false,
                }),
                Kind::Ack => {
                    let writes = history.blocks.entry(record.block).or_default();
                    let is_it = |write: &&mut Write| {
                        write.run == record.run && write.sequence == record.sequence
                    };
                    if let Some(write) = writes.iter_mut().rev().find(is_it) {
                        write.acked_at = Some(position);
                    }
                }
                Kind::FlushIssue => {
                    flushes.insert(flush, position);
                }
                Kind::FlushAck => {
                    let issued = flushes.remove(&flush).unwrap_or(0);
                    history.flushed_before = history.flushed_before.max(issued);
                }
                Kind::FlushFailed => {
                    flushes.remove(&flush);
                }
                Kind::PowerCut => history.power_cut(entry.machine),
                Kind::WriteFailed | Kind::End => {}
            }
        }
        history
    }

    fn power_cut(&mut self, machine: usize) {
        for write in self
            .blocks
            .values_mut()
            .flatten()
            .filter(|write| write.machine == machine)
        {
            write.void |= write
                .acked_at
                .is_none_or(|position| position >= self.flushed_before);
        }
    }

    fn required(&self, writes: &[Write], durability: Durability) -> Option<usize> {
        writes.iter().rposition(|write| {
            write.acked_at.is_some_and(|position| match durability {
                Durability::Acked => true,
                Durability::Flushed => position < self.flushed_before && !write.void,
            })
        })
    }
}

enum Sector {
    /// What was promised or newer; which write (`None`: never written).
    Good(Option<usize>),
    Old,
    Lost,
    Misplaced(String),
    Corrupt(String),
}

fn judge_sector(
    data: &[u8],
    block: u64,
    index: u32,
    writes: &[Write],
    required: Option<usize>,
) -> Sector {
    match read_sector(data) {
        SectorContent::Zero if required.is_none() => Sector::Good(None),
        SectorContent::Zero => Sector::Lost,
        SectorContent::Corrupt => Sector::Corrupt(format!("{:02x?}...", &data[..16])),
        SectorContent::Valid(id) if id.block != block || id.sector != index => {
            Sector::Misplaced(format!("{id:?}"))
        }
        SectorContent::Valid(id) => {
            let found = writes
                .iter()
                .rposition(|write| write.run == id.run && write.sequence == id.sequence);
            match found {
                None => Sector::Corrupt(format!("never issued: {id:?}")),
                Some(at) if required.is_some_and(|required| at < required) => Sector::Old,
                Some(at) => Sector::Good(Some(at)),
            }
        }
    }
}

fn judge_block(
    verdict: &mut Verdict,
    data: &[u8],
    block: u64,
    writes: &[Write],
    required: Option<usize>,
) {
    verdict.blocks += 1;
    verdict.required += u64::from(required.is_some());
    let (mut good, mut old, mut lost) = (Vec::new(), 0, 0);
    for (index, sector) in (0_u32..).zip(data.chunks_exact(SECTOR_BYTES)) {
        match judge_sector(sector, block, index, writes, required) {
            Sector::Good(write) => good.push(write),
            Sector::Old => old += 1,
            Sector::Lost => lost += 1,
            Sector::Misplaced(what) => {
                return verdict
                    .misplaced
                    .add(format!("block {block} sector {index}: {what}"));
            }
            // What was on the disk before the first write is not ours to judge.
            Sector::Corrupt(_) if writes.is_empty() => {}
            Sector::Corrupt(what) => {
                return verdict
                    .corrupt
                    .add(format!("block {block} sector {index}: {what}"));
            }
        }
    }
    let promised = required.map_or(0, |at| writes[at].sequence);
    let example = format!(
        "block {block}: sequence {promised} promised, {} sectors have it or a later one, {old} an older one, {lost} none",
        good.len()
    );
    match (good.is_empty(), old, lost) {
        (_, 0, 0) => {
            verdict.torn_in_flight += u64::from(good.windows(2).any(|pair| pair[0] != pair[1]))
        }
        (true, 0, _) => verdict.lost.add(example),
        (true, _, 0) => verdict.stale.add(example),
        (_, _, _) => verdict.torn.add(example),
    }
}

/// Compares what a device holds with what was promised.
///
/// # Errors
/// If the device cannot be read or the ledger is empty. Damage is not an error but in the verdict.
pub fn check(
    ledger: &Ledger,
    reader: &dyn ReadAt,
    durability: Durability,
) -> anyhow::Result<Verdict> {
    let block_size = ledger.block_size().context("no writer has started")?;
    let history = History::of(ledger);
    let mut verdict = Verdict::default();
    let blocks_per_read = (READ_BYTES / block_size).max(1);
    let mut buffer = vec![0; blocks_per_read * block_size];
    let mut block = 0;
    while block < history.block_count {
        let count = (history.block_count - block).min(blocks_per_read as u64);
        let data = &mut buffer[..usize::try_from(count)? * block_size];
        reader.read_at(block * block_size as u64, data)?;
        for (number, content) in (block..).zip(data.chunks_exact(block_size)) {
            let writes = history.blocks.get(&number).map_or(&[][..], Vec::as_slice);
            judge_block(
                &mut verdict,
                content,
                number,
                writes,
                history.required(writes, durability),
            );
        }
        block += count;
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Instant;

    use vm_guest::pattern::fill_block;
    use vm_guest::record::Record;

    use super::*;
    use crate::ledger::Entry;

    const BLOCK: usize = 4096;
    const RUN: u32 = 1;

    /// A ledger over four blocks, and a disk in memory.
    struct Bench {
        ledger: Ledger,
        disk: RefCell<Vec<u8>>,
    }

    impl ReadAt for Bench {
        fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()> {
            let from = usize::try_from(offset)?;
            data.copy_from_slice(&self.disk.borrow()[from..from + data.len()]);
            Ok(())
        }
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                ledger: Ledger::default(),
                disk: RefCell::new(vec![0; 4 * BLOCK]),
            };
            bench.record(Kind::Start, 4, BLOCK as u64);
            bench
        }

        fn record(&mut self, kind: Kind, block: u64, sequence: u64) {
            let record = Record {
                run: RUN,
                kind,
                block,
                sequence,
            };
            self.ledger.entries.push(Entry {
                at: Instant::now(),
                order: self.ledger.entries.len() as u64,
                machine: 1,
                record,
            });
        }

        fn acked(&mut self, block: u64, sequence: u64) {
            self.record(Kind::Issue, block, sequence);
            self.record(Kind::Ack, block, sequence);
        }

        /// Puts `sectors` of what (content_block, sequence) looks like at `block`.
        fn put(
            &self,
            block: usize,
            content_block: u64,
            sequence: u64,
            sectors: std::ops::Range<usize>,
        ) {
            let mut data = vec![0; BLOCK];
            fill_block(RUN, content_block, sequence, &mut data);
            let bytes = sectors.start * SECTOR_BYTES..sectors.end * SECTOR_BYTES;
            let target = block * BLOCK;
            self.disk.borrow_mut()[target + bytes.start..target + bytes.end]
                .copy_from_slice(&data[bytes]);
        }

        fn check(&self, durability: Durability) -> Verdict {
            check(&self.ledger, self, durability).unwrap()
        }
    }

    #[test]
    fn the_last_acknowledged_write_or_a_later_one_is_well() {
        let mut bench = Bench::new();
        bench.acked(1, 1);
        bench.acked(1, 2);
        bench.put(1, 1, 2, 0..8);
        assert!(bench.check(Durability::Acked).require_ok().is_ok());
        bench.record(Kind::Issue, 1, 3);
        bench.put(1, 1, 3, 0..8);
        assert!(bench.check(Durability::Acked).ok());
        bench.put(1, 1, 2, 4..8);
        let verdict = bench.check(Durability::Acked);
        assert!(
            verdict.ok() && verdict.torn_in_flight == 1,
            "an unacknowledged write may be torn: {verdict}"
        );
    }

    #[test]
    fn lost_stale_torn_misplaced_and_corrupt_are_told_apart() {
        type Damage = fn(&Bench);
        let damages: [(&str, Damage); 5] = [
            ("lost", |_| {}),
            ("stale", |bench| bench.put(1, 1, 1, 0..8)),
            ("torn", |bench| {
                bench.put(1, 1, 1, 0..8);
                bench.put(1, 1, 2, 0..3);
            }),
            ("misplaced", |bench| bench.put(1, 2, 2, 0..8)),
            ("corrupt", |bench| bench.disk.borrow_mut()[BLOCK + 100] = 7),
        ];
        for (expected, damage) in damages {
            let mut bench = Bench::new();
            bench.acked(1, 1);
            bench.acked(1, 2);
            damage(&bench);
            let verdict = bench.check(Durability::Acked);
            for (name, finding) in verdict.findings() {
                assert_eq!(
                    finding.count,
                    u64::from(name == expected),
                    "{expected}: {verdict}"
                );
            }
            assert!(verdict.require_ok().is_err());
        }
    }

    #[test]
    fn a_flush_promises_what_was_acknowledged_before_it_was_issued() {
        let mut bench = Bench::new();
        bench.acked(0, 1);
        bench.record(Kind::Issue, 1, 2);
        bench.record(Kind::FlushIssue, 0, 1);
        bench.record(Kind::Ack, 1, 2);
        bench.record(Kind::FlushAck, 0, 1);
        bench.put(0, 0, 1, 0..8);
        let verdict = bench.check(Durability::Flushed);
        assert!(verdict.ok() && verdict.required == 1, "{verdict}");
        assert_eq!(bench.check(Durability::Acked).lost.count, 1);
    }

    #[test]
    fn a_flush_after_a_power_cut_does_not_promise_what_the_cut_may_have_lost() {
        let mut bench = Bench::new();
        bench.acked(0, 1);
        bench.record(Kind::PowerCut, 0, 0);
        bench.acked(1, 2);
        bench.record(Kind::FlushIssue, 0, 1);
        bench.record(Kind::FlushAck, 0, 1);
        bench.put(1, 1, 2, 0..8);
        let verdict = bench.check(Durability::Flushed);
        assert!(verdict.ok() && verdict.required == 1, "{verdict}");
        assert_eq!(bench.check(Durability::Acked).lost.count, 1);
    }

    #[test]
    fn a_failed_flush_promises_nothing() {
        let mut bench = Bench::new();
        bench.acked(0, 1);
        bench.record(Kind::FlushIssue, 0, 1);
        bench.record(Kind::FlushFailed, 0, 1);
        assert!(bench.check(Durability::Flushed).require_ok().is_err());
    }
}
