//! Whatever happens, a crash finds every possible difference marked (S7).

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::Intent;
use crate::disk::{
    ActivityRecord, BLOCK_BYTES, BitmapPage, Isolation, Layout, Metadata, Record, Superblock,
};
use crate::effect::Effect;
use crate::types::{
    BackingId, BootId, ClusterId, CopyId, Epoch, Incarnation, NodeId, NodeSet, SectorRange, ViewId,
    VolumeId,
};
use crate::view::{View, ViewHistory, ViewMark};

const ME: NodeId = NodeId::new(0).unwrap();
const PEER: NodeId = NodeId::new(1).unwrap();
/// A little more than one page of the bitmap tells of.
const SECTORS: u64 = 33_000 * 8;
const CAPACITY: usize = 4;

fn superblock() -> Superblock {
    Superblock {
        sequence: 1,
        cluster_id: ClusterId::NONE,
        volume_id: VolumeId([1; 16]),
        volume_name: [0; 64],
        node: ME,
        peer: PEER,
        size_sectors: SECTORS,
        data_start_sectors: 0,
        chunk_sectors: 512,
        logical_block_bytes: 512,
        layout: Layout {
            activity_log_bytes: 4 * BLOCK_BYTES as u64,
            ..Layout::for_growth_to(SECTORS, 4096).unwrap()
        },
        view: View {
            epoch: Epoch(1),
            id: ViewId::NONE,
            active: None,
            insync: NodeSet::only(ME),
        },
        history: ViewHistory::default(),
        sealed: Epoch(0),
        serving: false,
        drained: false,
        failed: false,
        peer_failed: false,
        invalidated: false,
        isolation: Isolation::default(),
        copy: None,
        lineage: CopyId::NONE,
        base: ViewMark::default(),
        member_boots: [BootId::NONE; 8],
        own_boot: BootId::NONE,
        incarnation: Incarnation(0),
        prepared_sectors: 0,
        backing: BackingId::NONE,
        record: Record::default(),
    }
}

/// What may happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A write of so many sectors wants to begin.
    Want(u64, u32),
    /// The oldest running write ends.
    End,
    /// A flush of both copies begins, or the one that runs ends (well or not).
    Flush(bool),
    /// The peer's copy stops to count, or counts again after a resync.
    Peer,
    /// The write of metadata under way is done.
    Written,
    /// The process ends; the write under way is lost, torn or done.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    // Few extents far apart and near the border of two pages.
    let places = prop_oneof![0u64..2048, 257_000u64..259_500, 263_000u64..263_990];
    prop_oneof![
        6 => (places, 1u32..600).prop_map(|(start, count)| Step::Want(start, count)),
        4 => Just(Step::End),
        3 => any::<bool>().prop_map(Step::Flush),
        1 => Just(Step::Peer),
        8 => Just(Step::Written),
        1 => any::<u8>().prop_map(Step::Crash),
    ]
}

/// The metadata device and everything that may differ between the copies.
struct World {
    intent: Intent,
    blocks: BTreeMap<u64, [u8; BLOCK_BYTES]>,
    writing: Option<(u64, u64, [u8; BLOCK_BYTES])>,
    running: Vec<(SectorRange, bool)>,
    /// Ended and not covered by a flush that is done; and what the flush under way covers.
    fresh: Vec<SectorRange>,
    flushing: Option<Vec<SectorRange>>,
    missed: Vec<SectorRange>,
    counts: bool,
}

impl World {
    fn new() -> Self {
        let layout = superblock().layout;
        let mut blocks = BTreeMap::new();
        for page in 0..BitmapPage::count(&layout, SECTORS) {
            let offset = BitmapPage::offset_bytes(&layout, ME, PEER, page);
            let empty = BitmapPage {
                peer: PEER,
                page,
                words: [0; crate::disk::PAGE_WORDS],
            };
            blocks.insert(offset, empty.encode());
        }
        let mut world = Self {
            intent: Intent::new(&Self::read(&blocks), CAPACITY),
            blocks,
            writing: None,
            running: Vec::new(),
            fresh: Vec::new(),
            flushing: None,
            missed: Vec::new(),
            counts: true,
        };
        world.steps();
        world
    }

    fn read(blocks: &BTreeMap<u64, [u8; BLOCK_BYTES]>) -> Metadata {
        let superblock = superblock();
        let area = |range: core::ops::Range<u64>| -> Vec<u8> {
            range
                .step_by(BLOCK_BYTES)
                .flat_map(|offset| blocks.get(&offset).copied().unwrap_or([0; BLOCK_BYTES]))
                .collect()
        };
        let activity = area(Metadata::activity_area(&superblock.layout));
        let bitmap = area(Metadata::bitmap_area(&superblock.layout, ME, PEER, SECTORS));
        Metadata::read(superblock, &activity, &bitmap)
    }

    fn steps(&mut self) {
        let mut effects = Vec::new();
        self.intent.steps(false, &mut effects);
        for effect in effects {
            let Effect::WriteBlock {
                id,
                offset_bytes,
                block,
            } = effect
            else {
                panic!("only blocks are written here");
            };
            assert!(self.writing.is_none(), "one write at a time");
            self.writing = Some((id, offset_bytes, *block));
        }
    }

    fn land(&mut self) -> Option<u64> {
        let (id, offset, block) = self.writing.take()?;
        self.blocks.insert(offset, block);
        Some(id)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Want(start, count) => self.want(SectorRange::new(start, count)),
            Step::End if !self.running.is_empty() => {
                let (range, shared) = self.running.remove(0);
                self.intent.end(range);
                if shared {
                    self.fresh.push(range);
                }
            }
            Step::Flush(done) if self.counts => self.flush(done),
            Step::Peer => self.peer(),
            Step::Written => {
                if let Some(id) = self.land() {
                    self.intent.written(id);
                }
            }
            Step::Crash(how) => self.crash(how),
            Step::End | Step::Flush(_) => {}
        }
        self.steps();
        self.check();
    }

    fn want(&mut self, range: SectorRange) {
        self.intent.nothing_wanted();
        let clash = self.running.iter().any(|(other, _)| other.overlaps(range));
        if clash || !range.fits(SECTORS) {
            return;
        }
        if !self.intent.covers(range) {
            self.intent.want(range);
            return;
        }
        self.intent.begin(range, self.counts);
        self.running.push((range, self.counts));
        if !self.counts {
            self.intent.missed(range);
            self.missed.push(range);
        }
    }

    fn flush(&mut self, done: bool) {
        if let Some(covered) = self.flushing.take() {
            self.intent.flush_ended(done);
            if !done {
                self.fresh.extend(covered);
            }
        } else {
            let running = self.running.iter().map(|(range, _)| *range);
            assert!(self.intent.flush_begins(running), "no other flush runs");
            self.flushing = Some(core::mem::take(&mut self.fresh));
        }
    }

    fn peer(&mut self) {
        if self.counts {
            self.intent.flush_ended(false);
            self.intent.diverge();
            self.missed.append(&mut self.fresh);
            self.missed
                .extend(self.flushing.take().into_iter().flatten());
            for (range, shared) in &mut self.running {
                self.intent.missed(*range);
                self.missed.push(*range);
                // Its end says nothing more: it is among what the peer misses.
                *shared = false;
            }
            self.counts = false;
        } else if self.running.is_empty() {
            self.intent.marks_equal();
            self.missed.clear();
            self.counts = true;
        }
    }

    fn crash(&mut self, how: u8) {
        match how % 4 {
            0 => self.writing = None,
            3 => {
                self.writing = None;
                self.lose_the_log();
            }
            1 => drop(self.land()),
            _ => {
                // Torn: some sectors of it.
                if let Some((_, offset, block)) = self.writing.take() {
                    let place = self.blocks.entry(offset).or_insert([0; BLOCK_BYTES]);
                    for sector in (0..8).filter(|sector| how & 1 << sector != 0) {
                        let bytes = sector * 512..(sector + 1) * 512;
                        place[bytes.clone()].copy_from_slice(&block[bytes]);
                    }
                }
            }
        }
        self.intent = Intent::new(&Self::read(&self.blocks), CAPACITY);
        self.intent.diverge();
        self.missed.append(&mut self.fresh);
        self.missed
            .extend(self.flushing.take().into_iter().flatten());
        self.missed
            .extend(self.running.drain(..).map(|(range, _)| range));
        self.counts = false;
    }

    /// The two newest states of the log become unreadable, so that it is known to be lost.
    fn lose_the_log(&mut self) {
        let layout = superblock().layout;
        let area = Metadata::activity_area(&layout);
        let mut states: Vec<(u64, u64)> = self
            .blocks
            .range(area.clone())
            .filter_map(|(offset, block)| {
                let place = (offset - area.start) / BLOCK_BYTES as u64;
                let record = ActivityRecord::decode(block, place, &layout).ok()?;
                Some((record.sequence, *offset))
            })
            .collect();
        states.sort_unstable();
        if states.len() > 2 {
            for (_, offset) in states.iter().rev().take(2) {
                self.blocks.insert(*offset, [0xee; BLOCK_BYTES]);
            }
        }
    }

    /// What a crash right now would find.
    fn check(&self) {
        let mut found = Intent::new(&Self::read(&self.blocks), CAPACITY);
        found.diverge();
        let running = self.running.iter().map(|(range, _)| range);
        let unsure = running
            .chain(&self.fresh)
            .chain(self.flushing.iter().flatten())
            .chain(&self.missed);
        for range in unsure {
            for block in found.geometry().touched(*range) {
                assert!(
                    found.marks().contains(block),
                    "block {block} of {range:?} is not marked"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_finds_every_difference_marked(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}

#[test]
fn hot_extents_cost_no_metadata_write() {
    let mut world = World::new();
    let range = SectorRange::new(8, 8);
    for _ in 0..3 {
        world.step(Step::Want(range.start, range.count));
        world.step(Step::Written);
    }
    let before = world.intent.writes();
    assert_eq!(before, (1, 0));
    for _ in 0..1000 {
        world.step(Step::End);
        world.step(Step::Want(range.start, range.count));
        world.step(Step::Flush(true));
    }
    assert_eq!(world.intent.writes(), before);
}

#[test]
fn a_full_log_makes_room_by_a_flush() {
    let mut world = World::new();
    for extent in 0..CAPACITY as u64 + 1 {
        for _ in 0..3 {
            world.step(Step::Want(extent * 512, 8));
            world.step(Step::Written);
            world.step(Step::End);
        }
    }
    assert!(world.intent.wants_flush() || world.intent.active_extents() <= CAPACITY);
    world.step(Step::Want(CAPACITY as u64 * 512, 8));
    assert!(
        world.intent.wants_flush(),
        "every extent holds unflushed writes"
    );
    world.step(Step::Flush(true));
    world.step(Step::Flush(true));
    world.step(Step::Want(CAPACITY as u64 * 512, 8));
    world.step(Step::Written);
    assert!(
        world
            .intent
            .covers(SectorRange::new(CAPACITY as u64 * 512, 8))
    );
}

#[test]
fn requests_for_one_extent_ask_for_one_place() {
    let mut log = super::log::Log::new(3);
    let enter = |log: &mut super::log::Log| {
        let record = log.next_record(false, |_| true).expect("something enters");
        log.written(&record);
        record.extents
    };
    for extent in 0..2 {
        log.nothing_wanted();
        log.want(extent..extent + 1);
        enter(&mut log);
    }
    log.nothing_wanted();
    for _ in 0..5 {
        log.want(9..10);
    }
    assert!(!log.is_short());
    assert_eq!(enter(&mut log), [0, 1, 9], "nothing has to leave");
}
