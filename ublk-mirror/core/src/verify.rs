//! A verify, on the side that runs it: what is still to be compared, what was found, how fast it goes.
//!
//! It compares the whole volume once, run after run. A run that differs is narrowed down to blocks. What
//! was found is remembered here alone and leaves no mark: a mark is an order to copy, by the views, at the
//! next coming together, and would decide in the operator's place which side is right (S8).

use alloc::vec::Vec;
use core::time::Duration;

use crate::admin::{VerifyFinding, VerifyRange, VerifyState, VerifyStatus};
use crate::blocks::{BlockRange, Geometry};
use crate::limits::{COPY_COMPARE_BYTES, VERIFY_RANGES_MAX};
use crate::types::{Instant, SECTOR_BYTES};

/// Rates are averaged over about this long.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Which copy is written where the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Neither.
    Nothing,
    /// The peer's, from this node's.
    Peer,
    /// This node's, from the peer's.
    Own,
}

/// One verify, running or ended.
#[derive(Debug)]
pub struct Verify {
    geometry: Geometry,
    repair: Repair,
    state: VerifyState,
    run_blocks: u64,
    /// Everything before it was given out once.
    cursor: u64,
    /// Runs that came to nothing: they go first.
    again: Vec<BlockRange>,
    checked_blocks: u64,
    differing_blocks: u64,
    repaired_blocks: u64,
    unreadable_blocks: u64,
    /// The first of what was found, in their order on the volume.
    findings: Vec<(BlockRange, VerifyFinding)>,
    /// Blocks that are being repaired.
    pending: Vec<u64>,
    rate_from: (Instant, u64),
    rate_blocks_per_s: u64,
    /// It ends so, as soon as nothing is under way.
    pub ending: Option<VerifyState>,
    ended: Option<Instant>,
}

impl Verify {
    /// Of a whole volume. Blocks are those of the bitmap, cut where one is longer than a run.
    pub fn new(now: Instant, volume: Geometry, repair: Repair) -> Self {
        let run_sectors = u64::from(COPY_COMPARE_BYTES) / SECTOR_BYTES;
        let geometry = Geometry {
            block_sectors: volume.block_sectors.min(run_sectors),
            ..volume
        };
        Self {
            geometry,
            repair,
            state: VerifyState::Running,
            run_blocks: (run_sectors / geometry.block_sectors).max(1),
            cursor: 0,
            again: Vec::new(),
            checked_blocks: 0,
            differing_blocks: 0,
            repaired_blocks: 0,
            unreadable_blocks: 0,
            findings: Vec::new(),
            pending: Vec::new(),
            rate_from: (now, 0),
            rate_blocks_per_s: 0,
            ending: None,
            ended: None,
        }
    }

    /// Its blocks.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Which copy is written.
    pub fn repair(&self) -> Repair {
        self.repair
    }

    /// Whether it is still to be gone on with.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// How it stands.
    pub fn state(&self) -> VerifyState {
        self.state
    }

    /// Goes on, or waits for the other copy.
    pub fn set_waiting(&mut self, waiting: bool) {
        if self.is_open() {
            self.state = if waiting {
                VerifyState::Waiting
            } else {
                VerifyState::Running
            };
        }
    }

    /// The next run to compare.
    pub fn next_run(&mut self) -> Option<BlockRange> {
        if let Some(run) = self.again.pop() {
            return Some(run);
        }
        let end = self.geometry.blocks();
        let start = self.cursor;
        if start >= end {
            return None;
        }
        self.cursor = (start + self.run_blocks).min(end);
        Some(start..self.cursor)
    }

    /// A run came to nothing: it is compared again.
    pub fn put_back(&mut self, run: BlockRange) {
        self.again.push(run);
    }

    /// Whether every run was given out.
    pub fn is_complete(&self) -> bool {
        self.again.is_empty() && self.cursor >= self.geometry.blocks()
    }

    /// Everything of a run is said.
    pub fn checked(&mut self, now: Instant, run: &BlockRange) {
        self.checked_blocks += run.end - run.start;
        let passed = now.since(self.rate_from.0);
        if passed >= RATE_WINDOW {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = (self.checked_blocks - self.rate_from.1).saturating_mul(1000) / millis;
            let old = match self.rate_blocks_per_s {
                0 => rate,
                old => old,
            };
            self.rate_blocks_per_s = (old * 3 + rate) / 4;
            self.rate_from = (now, self.checked_blocks);
        }
    }

    /// A part of a run is equal. What was being repaired in it is repaired.
    pub fn equal(&mut self, part: &BlockRange) {
        let repaired: Vec<u64> = self.pending_in(part).collect();
        for block in repaired {
            self.settle(block, VerifyFinding::Repaired);
        }
    }

    fn pending_in(&self, part: &BlockRange) -> impl Iterator<Item = u64> {
        let pending = self.pending.iter().copied();
        pending.filter(|block| part.contains(block))
    }

    /// A block that differs is about to be written.
    pub fn repairs(&mut self, block: u64) {
        if !self.pending.contains(&block) {
            self.pending.push(block);
        }
    }

    /// A block differs, and stays so.
    pub fn differs(&mut self, block: u64) {
        self.settle(block, VerifyFinding::Differs);
    }

    fn settle(&mut self, block: u64, finding: VerifyFinding) {
        self.pending.retain(|pending| *pending != block);
        self.differing_blocks += 1;
        self.repaired_blocks += u64::from(finding == VerifyFinding::Repaired);
        self.found(block..block + 1, finding);
    }

    /// A part of a run cannot be read.
    pub fn unreadable(&mut self, part: &BlockRange, finding: VerifyFinding) {
        self.unreadable_blocks += part.end - part.start;
        self.found(part.clone(), finding);
    }

    /// Whether anything was found that is not as it should be.
    pub fn has_findings(&self) -> bool {
        self.differing_blocks > 0 || self.unreadable_blocks > 0
    }

    fn found(&mut self, part: BlockRange, finding: VerifyFinding) {
        let place = self
            .findings
            .partition_point(|(range, _)| range.start < part.start);
        if let Some((before, of)) = place
            .checked_sub(1)
            .and_then(|at| self.findings.get_mut(at))
            && *of == finding
            && before.end == part.start
        {
            before.end = part.end;
            return;
        }
        if let Some((after, of)) = self.findings.get_mut(place)
            && *of == finding
            && after.start == part.end
        {
            after.start = part.start;
            return;
        }
        if self.findings.len() < VERIFY_RANGES_MAX {
            self.findings.insert(place, (part, finding));
        }
    }

    /// Nothing more is done. What was being repaired is not known to be repaired.
    pub fn end(&mut self, now: Instant, state: VerifyState) {
        for block in core::mem::take(&mut self.pending) {
            self.differs(block);
        }
        self.state = state;
        self.ended = Some(now);
    }

    /// For the status; `repair_from` is the name of the node whose copy is taken for right.
    pub fn status(&self, now: Instant, repair_from: Option<alloc::string::String>) -> VerifyStatus {
        let bytes = |blocks: u64| blocks * self.geometry.block_sectors * SECTOR_BYTES;
        let size = self.geometry.size_sectors * SECTOR_BYTES;
        let checked_bytes = bytes(self.checked_blocks).min(size);
        let rate = bytes(self.rate_blocks_per_s);
        let eta = (size - checked_bytes).checked_div(rate);
        let ranges = self.findings.iter().map(|(range, finding)| {
            let sectors = self.geometry.sectors(range);
            VerifyRange {
                start_bytes: range.start * self.geometry.block_sectors * SECTOR_BYTES,
                length_bytes: sectors.bytes(),
                finding: *finding,
            }
        });
        VerifyStatus {
            state: self.state,
            repair_from,
            checked_bytes,
            total_bytes: size,
            rate_bytes_per_s: if self.is_open() { rate } else { 0 },
            eta_s: eta.filter(|_| self.is_open()),
            differing_bytes: bytes(self.differing_blocks),
            repaired_bytes: bytes(self.repaired_blocks),
            unreadable_bytes: bytes(self.unreadable_blocks),
            ranges: ranges.collect(),
            ended_ms: self
                .ended
                .map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Blocks that differed, were repaired, could not be read.
    pub fn counts(&self) -> (u64, u64, u64) {
        (
            self.differing_blocks,
            self.repaired_blocks,
            self.unreadable_blocks,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify() -> Verify {
        Verify::new(
            Instant::default(),
            Geometry::new(2051, 4096, 64),
            Repair::Peer,
        )
    }

    #[test]
    fn every_block_is_given_out_once_and_what_came_to_nothing_again() {
        let mut verify = verify();
        let mut seen = Vec::new();
        while let Some(run) = verify.next_run() {
            seen.push(run);
        }
        assert_eq!(seen.first(), Some(&(0..32)));
        assert_eq!(seen.last(), Some(&(256..257)));
        assert!(seen.windows(2).all(|pair| pair[0].end == pair[1].start));
        verify.put_back(32..64);
        assert!(!verify.is_complete());
        assert_eq!(verify.next_run(), Some(32..64));
        assert!(verify.is_complete());
    }

    #[test]
    fn findings_are_sorted_joined_and_bounded() {
        let mut verify = verify();
        for block in [7, 5, 6, 9] {
            verify.differs(block);
        }
        let status = verify.status(Instant::default(), None);
        let starts: Vec<(u64, u64)> = status
            .ranges
            .iter()
            .map(|range| (range.start_bytes, range.length_bytes))
            .collect();
        assert_eq!(starts[0].0, 5 * 4096);
        assert_eq!(status.differing_bytes, 4 * 4096);
        let mut verify = Verify::new(
            Instant::default(),
            Geometry::new(1 << 20, 4096, 64),
            Repair::Nothing,
        );
        for block in 0..1000 {
            verify.differs(block * 2);
        }
        assert_eq!(
            verify.status(Instant::default(), None).ranges.len(),
            VERIFY_RANGES_MAX
        );
        assert_eq!(verify.counts().0, 1000);
    }

    #[test]
    fn a_repair_counts_only_when_both_are_equal_again() {
        let mut verify = verify();
        verify.repairs(3);
        verify.repairs(40);
        assert_eq!(verify.counts(), (0, 0, 0));
        verify.equal(&(0..8));
        assert_eq!(verify.counts(), (1, 1, 0));
        verify.end(Instant::default(), VerifyState::Stopped);
        assert_eq!(verify.counts(), (2, 1, 0));
    }
}
