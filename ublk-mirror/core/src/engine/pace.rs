//! How a resync gives way to the application: by what it costs the application, measured.
//!
//! While the application works, the resync works in slices and rests between them. How long a request waits is
//! measured apart for the times with and without runs under way. What a request waits longer while runs are under
//! way is what the resync costs; the share of the time in which it works follows from that, so that over all the
//! application loses [`COST_PERMILLE`], as far as [`SHARE_MIN_PERMILLE`] allows. Where even working nearly all the
//! time costs less, more and longer runs are tried; where little is left of the time, fewer.
//!
//! Neither the speed of a disk nor that of a link is assumed anywhere. Waiting is measured instead of throughput:
//! for an application that always has the same number of requests under way one is the other's inverse (Little's
//! law), and an application that asks for little does not look unharmed because it still gets that little.

use core::time::Duration;

use crate::admin::CopyBeside;
use crate::limits::COPY_INFLIGHT_MAX;
use crate::mutant::{self, Mutant};
use crate::types::Instant;

/// What a resync may cost the application, thousandths of its speed.
const COST_PERMILLE: u64 = 125;
/// The floor: the resync works for this share of the time at least, whatever it costs.
const SHARE_MIN_PERMILLE: u64 = 125;
/// The ceiling beside an application that works: without rests there would be nothing to compare with.
const SHARE_MAX_PERMILLE: u64 = 900;
/// Before anything is known.
const SHARE_DEFAULT_PERMILLE: u64 = 333;
/// Below this share fewer runs do more.
const SHARE_LOW_PERMILLE: u64 = 250;
/// A slice lasts for so many waits of one request, within these bounds.
const SLICE_WAITS: u32 = 8;
const SLICE_MIN: Duration = Duration::from_millis(50);
const SLICE_MAX: Duration = Duration::from_secs(1);
/// It never rests longer, however long its last run took: a disk that was slow once must not stop it.
#[cfg(test)]
const REST_MAX: Duration = Duration::from_secs(7);
/// Requests that a mean has to come from.
const SEEN_MIN: u64 = 16;
/// At each slice a sixteenth of what was seen before is forgotten.
const MEMORY_SLICES: u64 = 16;
/// As long as there are no more than so many, nothing is forgotten.
const MEMORY_MIN: u64 = 4 * SEEN_MIN;
/// A rest lasts for so many waits of one request at least.
const REST_WAITS: u32 = 2;
/// Slices at one level before another one is judged.
const SLICES_MIN: u32 = 8;
/// After a level was too much it is tried again after so many slices; each time twice as many, up to the second.
const HOLD_MIN: u32 = 32;
const HOLD_MAX: u32 = 1024;

/// What may be under way in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    /// Runs at a time.
    pub(super) count: usize,
    /// Short ones: a request that waits behind one waits less.
    pub(super) small: bool,
}

/// From the gentlest on. The last one is that of a resync beside nobody.
const LEVELS: [Runs; 5] = [
    Runs {
        count: 1,
        small: true,
    },
    Runs {
        count: 1,
        small: false,
    },
    Runs {
        count: 2,
        small: false,
    },
    Runs {
        count: 4,
        small: false,
    },
    Runs {
        count: COPY_INFLIGHT_MAX as usize,
        small: false,
    },
];

/// Requests, and how long they waited in sum.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ended: u64,
    waited_ns: u64,
}

impl Seen {
    fn mean_ns(self) -> Option<u64> {
        (self.ended >= SEEN_MIN).then(|| self.waited_ns / self.ended)
    }

    /// The same where so few ended because they wait so long: beside `other_ns` that is known well enough.
    fn mean_beside(self, other_ns: u64) -> Option<u64> {
        let enough = self.waited_ns >= other_ns.saturating_mul(SEEN_MIN);
        self.mean_ns()
            .or_else(|| enough.then(|| self.waited_ns / self.ended.max(1)))
    }

    /// Few are kept until they are more: an application with one request at a time ends few in a slice.
    fn fade(&mut self) {
        if self.ended > MEMORY_MIN {
            self.ended -= self.ended / MEMORY_SLICES;
            self.waited_ns -= self.waited_ns / MEMORY_SLICES;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The application does nothing: so does nobody have to wait.
    Free,
    /// Runs begin.
    Work { since: Instant },
    /// None begins, and those under way come to their end: those of a slice, or of the time before the application began to
    /// work.
    Drain { of_slice: bool },
    /// None is under way.
    Rest { until: Instant },
}

/// The resync's turn beside the application.
#[derive(Debug)]
pub(super) struct Pace {
    phase: Phase,
    level: usize,
    share_permille: u64,
    /// What of its speed the application loses while runs are under way.
    slower_permille: Option<u64>,
    working: Seen,
    resting: Seen,
    seen_until: Instant,
    /// How long runs were under way in this slice.
    worked: Duration,
    /// Slices since the level was changed.
    slices: u32,
    /// Slices until a higher level is tried.
    hold: u32,
    hold_next: u32,
}

impl Pace {
    /// Nothing is known yet: the gentlest level, for a third of the time.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Free,
            level: 0,
            share_permille: SHARE_DEFAULT_PERMILLE,
            slower_permille: None,
            working: Seen::default(),
            resting: Seen::default(),
            seen_until: Instant::default(),
            worked: Duration::ZERO,
            slices: 0,
            hold: 0,
            hold_next: HOLD_MIN,
        }
    }

    /// Counts the time until `now`, in which `requests` of the application waited, with or without runs under way.
    /// To be called before either of them changes.
    pub(super) fn passed(&mut self, now: Instant, requests: usize, runs: usize) {
        let passed = now.since(self.seen_until);
        self.seen_until = self.seen_until.max(now);
        if !self.counts() {
            return;
        }
        if runs > 0 {
            self.worked += passed;
        }
        let passed = u64::from(passed.subsec_nanos()) + passed.as_secs() * 1_000_000_000;
        self.seen(runs).waited_ns += passed * requests as u64;
    }

    /// Beside an idle application all is different.
    fn counts(&self) -> bool {
        match self.phase {
            Phase::Work { .. } | Phase::Rest { .. } => true,
            Phase::Drain { of_slice } => of_slice,
            Phase::Free => false,
        }
    }

    /// A request of the application ended.
    pub(super) fn ended(&mut self, runs: usize) {
        if self.counts() {
            self.seen(runs).ended += 1;
        }
    }

    fn seen(&mut self, runs: usize) -> &mut Seen {
        if runs > 0 {
            &mut self.working
        } else {
            &mut self.resting
        }
    }

    /// What may be under way now, given what the application does and the runs that are under way. `None`: none
    /// may begin.
    pub(super) fn turn(&mut self, now: Instant, busy: bool, runs: usize) -> Option<Runs> {
        if !busy {
            self.phase = Phase::Free;
            return Some(LEVELS[LEVELS.len() - 1]);
        }
        if self.phase == Phase::Free {
            self.phase = Phase::Drain { of_slice: false };
            self.worked = SLICE_MIN;
        }
        if let Phase::Work { since } = self.phase
            && now.since(since) >= self.slice()
        {
            self.phase = Phase::Drain { of_slice: true };
        }
        if matches!(self.phase, Phase::Drain { .. }) && runs == 0 {
            self.phase = Phase::Rest {
                until: now + self.rest(),
            };
        }
        if let Phase::Rest { until } = self.phase
            && now >= until
        {
            self.learn();
            self.worked = Duration::ZERO;
            self.phase = Phase::Work { since: now };
        }
        matches!(self.phase, Phase::Work { .. }).then(|| LEVELS[self.level])
    }

    /// For the status; `None` while the application is idle.
    pub(super) fn beside(&self) -> Option<CopyBeside> {
        (self.phase != Phase::Free).then(|| CopyBeside {
            share_percent: self.share_permille / 10,
            runs_max: LEVELS[self.level].count,
            slower_percent: self.slower_permille.map(|permille| permille / 10),
        })
    }

    /// When it goes on, if it rests.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Rest { until } => Some(until),
            Phase::Free | Phase::Work { .. } | Phase::Drain { .. } => None,
        }
    }

    /// Whether it waits for its runs under way, to rest then.
    pub(super) fn drains(&self) -> bool {
        matches!(self.phase, Phase::Drain { .. })
    }

    fn wait(&self) -> Duration {
        Duration::from_nanos(self.resting.mean_ns().unwrap_or(0))
    }

    fn slice(&self) -> Duration {
        (self.wait() * SLICE_WAITS).clamp(SLICE_MIN, SLICE_MAX)
    }

    /// After a slice in which runs were under way for as long as that.
    fn rest(&self) -> Duration {
        if mutant::is(Mutant::PaceStarves) {
            return Duration::from_secs(1 << 20);
        }
        if self.worked.is_zero() {
            return Duration::ZERO;
        }
        let share = u32::try_from(self.share_permille).unwrap_or(1000).max(1);
        let rest = self.worked.min(SLICE_MAX) * (1000 - share) / share;
        // `SLICE_MAX` at the floor is `REST_MAX`.
        rest.max((self.wait() * REST_WAITS).min(SLICE_MAX))
    }

    /// What a slice and the rest after it showed.
    fn learn(&mut self) {
        self.slices = self.slices.saturating_add(1);
        self.hold = self.hold.saturating_sub(1);
        let resting = self.resting.mean_ns();
        let working = resting.and_then(|resting| self.working.mean_beside(resting));
        let means = working.zip(resting);
        self.slower_permille = means.map(|(working, resting)| {
            let lost = working.saturating_sub(resting);
            (lost * 1000).checked_div(working).unwrap_or(0)
        });
        self.share_permille = self
            .slower_permille
            .map_or(SHARE_DEFAULT_PERMILLE, |slower| {
                let share = (COST_PERMILLE * 1000).checked_div(slower);
                let share = share.unwrap_or(SHARE_MAX_PERMILLE);
                share.clamp(SHARE_MIN_PERMILLE, SHARE_MAX_PERMILLE)
            });
        self.working.fade();
        self.resting.fade();
        if means.is_none() || self.slices < SLICES_MIN {
            return;
        }
        if self.share_permille == SHARE_MAX_PERMILLE && self.hold == 0 {
            self.change_level((self.level + 1).min(LEVELS.len() - 1));
        } else if self.share_permille < SHARE_LOW_PERMILLE && self.level > 0 {
            self.hold = self.hold_next;
            self.hold_next = (self.hold_next * 2).min(HOLD_MAX);
            self.change_level(self.level - 1);
        }
    }

    fn change_level(&mut self, level: usize) {
        if level != self.level {
            self.level = level;
            self.slices = 0;
            // What was seen with other runs says nothing of these.
            self.working = Seen::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const TICK: Duration = Duration::from_millis(1);
    /// Requests that most applications here always have under way.
    const DEPTH: usize = 8;

    /// A volume under an application that always has `depth` requests under way.
    struct Bed {
        depth: usize,
        pace: Pace,
        now: Instant,
        /// How long a request takes while no run is under way, microseconds.
        wait_us: u64,
        /// How long a run takes, ticks.
        run_ticks: u64,
        /// Ends of the runs under way.
        runs: Vec<u64>,
        tick: u64,
        /// Of the request that ends next, microseconds times requests.
        done_us: u64,
    }

    /// What came of it, thousandths.
    #[derive(Debug)]
    struct Outcome {
        /// Of the speed that the application has alone.
        application: u64,
        /// Of the time runs were under way.
        worked: u64,
    }

    impl Bed {
        fn new(wait_us: u64, run_ticks: u64) -> Self {
            let mut pace = Pace::new();
            let now = Instant::from_nanos(1 << 40);
            pace.passed(now, 0, 0);
            Self {
                depth: DEPTH,
                pace,
                now,
                wait_us,
                run_ticks,
                runs: Vec::new(),
                tick: 0,
                done_us: 0,
            }
        }

        /// `slower`: by what factor, thousandths, a request takes longer beside so many runs.
        fn works_for(&mut self, seconds: u64, slower: impl Fn(usize) -> u64) -> Outcome {
            let (mut ended, mut worked) = (0, 0);
            let ticks = seconds * 1000;
            for _ in 0..ticks {
                self.tick += 1;
                self.now = self.now + TICK;
                let runs = self.runs.len();
                worked += u64::from(runs > 0);
                self.pace.passed(self.now, self.depth, runs);
                let factor = if runs == 0 { 1000 } else { slower(runs) };
                self.done_us += self.depth as u64 * 1000 * 1000 / factor;
                while self.done_us >= self.wait_us {
                    self.done_us -= self.wait_us;
                    self.pace.ended(runs);
                    ended += 1;
                }
                let tick = self.tick;
                self.runs.retain(|end| *end > tick);
                if let Some(turn) = self.pace.turn(self.now, true, self.runs.len()) {
                    while self.runs.len() < turn.count {
                        self.runs.push(self.tick + self.run_ticks);
                    }
                }
            }
            let alone = self.depth as u64 * 1000 * ticks / self.wait_us;
            Outcome {
                application: ended * 1000 / alone,
                worked: worked * 1000 / ticks,
            }
        }
    }

    #[test]
    fn a_resync_that_costs_nothing_works_nearly_all_the_time_and_at_full_width() {
        let mut bed = Bed::new(2000, 10);
        bed.works_for(60, |_| 1000);
        assert_eq!(bed.pace.level, LEVELS.len() - 1);
        let outcome = bed.works_for(20, |_| 1000);
        assert!(outcome.worked > 850, "{outcome:?}");
    }

    #[test]
    fn what_it_costs_stays_within_an_eighth() {
        for slower in [1100, 1300, 1600, 2000] {
            let mut bed = Bed::new(2000, 10);
            bed.works_for(20, |_| slower);
            let outcome = bed.works_for(20, |_| slower);
            let lost = 1000 - 1_000_000 / slower;
            let due = (125_000 / lost).min(900);
            assert!(outcome.application > 860, "{slower}: {outcome:?}");
            assert!(outcome.worked * 10 > due * 8, "{slower}: {outcome:?}");
        }
    }

    #[test]
    fn the_floor_holds_whatever_it_costs() {
        let mut bed = Bed::new(2000, 10);
        bed.works_for(20, |_| 50_000);
        let outcome = bed.works_for(60, |_| 50_000);
        assert!((100..200).contains(&outcome.worked), "{outcome:?}");
    }

    #[test]
    fn more_runs_that_cost_too_much_are_tried_more_and_more_rarely() {
        let slower = |runs: usize| if runs > 1 { 6000 } else { 1020 };
        let mut bed = Bed::new(2000, 10);
        bed.works_for(60, slower);
        let outcome = bed.works_for(120, slower);
        assert!(outcome.application > 840, "{outcome:?}");
        assert!(outcome.worked > 700, "{outcome:?}");
    }

    #[test]
    fn it_follows_when_disks_become_fast_or_slow() {
        let mut bed = Bed::new(2000, 10);
        bed.works_for(30, |_| 4000);
        bed.works_for(30, |_| 1000);
        let fast = bed.works_for(20, |_| 1000);
        assert!(fast.worked > 850, "{fast:?}");
        bed.works_for(30, |_| 4000);
        let slow = bed.works_for(30, |_| 4000);
        assert!(slow.application > 850, "{slow:?}");
    }

    #[test]
    fn requests_that_take_longer_than_a_slice_are_judged_in_longer_ones() {
        let mut bed = Bed::new(100_000, 300);
        bed.works_for(60, |_| 2000);
        let outcome = bed.works_for(120, |_| 2000);
        assert!(outcome.application > 840, "{outcome:?}");
        assert!(outcome.worked > 125, "{outcome:?}");
    }

    /// One request at a time, and fewer of them in a slice than a mean comes from.
    #[test]
    fn an_application_with_one_request_at_a_time_is_measured_too() {
        for (wait_us, slower) in [(5000, 10_000), (2000, 50_000), (20_000, 2000)] {
            let mut bed = Bed::new(wait_us, 10);
            bed.depth = 1;
            bed.works_for(30, |_| slower);
            let outcome = bed.works_for(60, |_| slower);
            assert!(outcome.application > 820, "{wait_us} {slower}: {outcome:?}");
        }
        for wait_us in [1000, 10_000, 50_000, 200_000] {
            let mut bed = Bed::new(wait_us, 10);
            bed.depth = 1;
            bed.works_for(120, |_| 1000);
            let outcome = bed.works_for(60, |_| 1000);
            assert!(outcome.worked > 700, "{wait_us}: {outcome:?}");
        }
    }

    /// A level that is much too much for it is left.
    #[test]
    fn one_request_at_a_time_beside_too_many_runs_brings_fewer() {
        let slower = |runs: usize| if runs > 1 { 40_000 } else { 1000 };
        let mut bed = Bed::new(2000, 10);
        bed.depth = 1;
        bed.works_for(60, slower);
        let outcome = bed.works_for(120, slower);
        assert!(outcome.application > 840, "{outcome:?}");
        assert!(bed.pace.level <= 2, "{}", bed.pace.level);
    }

    #[test]
    fn after_a_run_that_took_long_it_rests_for_a_bounded_time() {
        let mut pace = Pace::new();
        let start = Instant::from_nanos(0);
        assert_eq!(pace.turn(start, false, 0), LEVELS.last().copied());
        assert_eq!(
            pace.turn(start, true, 1),
            None,
            "what is under way ends first"
        );
        let late = start + Duration::from_secs(60);
        assert_eq!(pace.turn(late, true, 0), None, "then it rests");
        let until = pace.rests_until().expect("it rests");
        assert!(until.since(late) <= REST_MAX);
        assert!(pace.turn(until, true, 0).is_some());
    }

    #[test]
    fn beside_an_idle_application_nothing_is_held_back() {
        let mut bed = Bed::new(2000, 10);
        bed.works_for(20, |_| 50_000);
        assert_eq!(bed.pace.turn(bed.now, false, 0), LEVELS.last().copied());
    }
}
