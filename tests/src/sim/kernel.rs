//! The kernel's side of a volume: the live device, its requests, and the application on it.

use mirror_core::event::{Request, RequestKind};
use mirror_core::types::{SectorRange, Tag};

use super::disk::Value;
use super::rng::Rng;
use super::world::Plan;

/// Requests that the application has in flight.
pub(super) const DEPTH: usize = 8;

/// Between two requests of a slot that only reads, microseconds.
const READERS_PAUSE_US: u64 = 3000;

/// The same, of a busy application.
const BUSY_PAUSE_US: u64 = 4000;

/// A request of the application.
#[derive(Clone, Debug)]
pub struct Outstanding {
    /// As the core sees it.
    pub request: Request,
    /// The model's number of the change, if it is one.
    pub write: Option<usize>,
    /// The buffer.
    pub data: Vec<Value>,
    /// The model's time of asking.
    pub submitted: u64,
    /// The process that has it (0: none yet).
    pub process: u64,
    /// A read that the own disk could not do, and how many reads for it the peer's had failed to do by then.
    pub unread: Option<u64>,
    /// It was written again since.
    pub rewritten: bool,
    /// The own disk was asked for it.
    pub visited: bool,
}

/// A live device.
#[derive(Debug)]
pub struct Device {
    /// Which activation made it.
    pub activation: u64,
    /// What it shows.
    pub sectors: u64,
    /// Requests by tag.
    pub slots: Vec<Option<Outstanding>>,
    /// Somebody uses it.
    pub used: bool,
    /// It is being stopped: gone as soon as nothing is outstanding.
    pub stopping: bool,
}

impl Device {
    /// A fresh device.
    pub fn new(activation: u64, sectors: u64) -> Self {
        Self {
            activation,
            sectors,
            slots: (0..DEPTH).map(|_| None).collect(),
            used: true,
            stopping: false,
        }
    }

    /// Whether nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }
}

/// What the application does.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Sectors at the start of each hot spot.
    pub spots: Vec<u64>,
    /// Size of the volume.
    pub sectors: u64,
    /// No read or write crosses a multiple of this.
    pub chunk_sectors: u64,
    /// Mean pause between two requests of a slot, microseconds.
    pub pause_us: u64,
    /// Whether discards are asked for.
    pub discards: bool,
    /// Slots that only read.
    pub readers: usize,
    /// Of a hundred requests so many are flushes.
    pub flushes: u64,
    /// Nearly every write is followed by a flush.
    pub commits: bool,
}

impl Workload {
    /// A workload for a volume of this size.
    pub(super) fn new(rng: &mut Rng, plan: &Plan) -> Self {
        let sectors = plan.sectors;
        let fewest = if plan.habits.many_spots { 8 } else { 2 };
        let count = rng.between(fewest, 12);
        let spots = (0..count).map(|_| rng.below(sectors - 600)).collect();
        Self {
            spots,
            sectors,
            chunk_sectors: u64::from(plan.chunk_sectors),
            pause_us: if plan.habits.busy {
                BUSY_PAUSE_US
            } else {
                rng.between(3_000, 60_000)
            },
            discards: rng.percent(60),
            readers: plan.habits.readers,
            flushes: if plan.habits.few_flushes { 1 } else { 10 },
            commits: plan.habits.commits && !plan.habits.few_flushes,
        }
    }

    /// The kernel splits reads and writes at the edge of a chunk, but not discards.
    fn split(&self, range: SectorRange) -> SectorRange {
        let room = self.chunk_sectors - range.start % self.chunk_sectors;
        let count = u64::from(range.count).min(room);
        SectorRange::new(range.start, u32::try_from(count).unwrap_or(1))
    }

    /// Somewhere on a device of `sectors`: often where it was grown.
    fn place(&self, rng: &mut Rng, longest: u64, sectors: u64) -> SectorRange {
        let spot = self.spots[rng.index(self.spots.len())];
        let mut start = spot + rng.below(200);
        if sectors > self.sectors && rng.percent(40) {
            start = self.sectors - 40 + rng.below(sectors - self.sectors + 40);
        }
        let count = if rng.percent(50) {
            8
        } else {
            rng.between(1, longest)
        };
        SectorRange::new(
            start,
            u32::try_from(count.min(sectors - start)).unwrap_or(1),
        )
    }

    /// Whether a slot only reads.
    pub(super) fn only_reads(&self, tag: Tag) -> bool {
        usize::from(tag.0) >= DEPTH - self.readers
    }

    /// Until the next request of a slot, microseconds.
    pub(super) fn pause_us(&self, tag: Tag) -> u64 {
        if self.only_reads(tag) {
            READERS_PAUSE_US
        } else {
            self.pause_us
        }
    }

    /// The next request, on a device of `sectors`.
    pub(super) fn next(&self, rng: &mut Rng, tag: Tag, sectors: u64) -> Request {
        let dice = if self.only_reads(tag) {
            0
        } else {
            rng.below(100)
        };
        let fua = rng.percent(10);
        let (kind, range) = match dice {
            10..=54 if self.commits => (RequestKind::Flush, SectorRange::new(0, 0)),
            0..=29 => (RequestKind::Read, self.split(self.place(rng, 64, sectors))),
            30..=39 if dice < 30 + self.flushes => (RequestKind::Flush, SectorRange::new(0, 0)),
            40..=42 if self.discards => (RequestKind::Discard, self.place(rng, 300, sectors)),
            43..=45 if self.discards => (RequestKind::WriteZeroes, self.place(rng, 300, sectors)),
            _ => (RequestKind::Write, self.split(self.place(rng, 64, sectors))),
        };
        let fua = fua && matches!(kind, RequestKind::Write | RequestKind::WriteZeroes);
        Request {
            tag,
            kind,
            range,
            fua,
        }
    }
}
