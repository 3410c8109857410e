//! Runs about one thing: what it takes is frequent there, and everything else is left out. Most runs have
//! no theme.

use super::ambush::{Moment, Trap, Whom};
use super::faults::Kind;
use super::rng::Rng;
use super::unreadable::Unreadable;
use super::upkeep::Upkeep;
use super::world::Plan;
use Kind::{
    Activate, Break, Deactivate, DiskFails, DiskForgets, DiskSticks, EndBroken, EndTwice,
    ForceDeactivate, Forgetful, Kill, Leave, Lie, Move, MuffledWord, Nothing, OneWay, PowerCut,
    Restart, Silence, Stop, Takeover, Throw, WrongWord,
};
use Moment::{
    Aborted, Aborts, Agrees, Calm, Compares, Copies, Ended, Ends, Evicts, Fails, Flushes, Freezes,
    Heals, Leaves, Links, Pages, Starts, Tells, Widens,
};
use Whom::{Other, Own};

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Theme {
    /// Wrong words, while a lease is all that keeps reads right (S5).
    Leases,
    /// Nothing but wrong words (S5).
    Words,
    /// Flushes take long, and power goes while they run (S2, S7).
    Flushes,
    /// A copy joins while writes are under way, and power goes soon afterwards (S7).
    Joins,
    /// An older disk comes back into a machine that was off (S8).
    OldDisks,
    /// Frozen writes are thrown away (S10).
    ThrownAway,
    /// Machines boot while both sides come together or part (S11).
    Boots,
    /// A bitmap of several pages is written for the first time (S7).
    Sweeps,
    /// A disk fails and forgets while it is read and compared, or sticks while a block is made good (S1).
    Disks,
    /// Disks fail as a whole, in the middle of anything (S2).
    Wholes,
    /// A verify runs while the service ends, the peer leaves, or a daemon comes back (I8, I14).
    Verifies,
}

const fn trap(moment: Moment, kind: Kind, whom: Whom, low: u64, high: u64) -> Trap {
    Trap::new(moment, kind, whom, (low, high))
}

/// Nobody has a lease yet.
static MOVES: Trap = trap(Calm, Move, Own, 0, 20_000).then(&WORD_AT_START);
static WORD_AT_START: Trap = trap(Starts, WrongWord, Other, 0, 20_000);
/// The lease begins with the wider view.
static REBOOTS: Trap = trap(Calm, PowerCut, Other, 0, 20_000).then(&WORD_AT_WIDENING);
static WORD_AT_WIDENING: Trap = trap(Widens, MuffledWord, Other, 0, 300);
/// The lease is being renewed all the time.
static LIES: Trap = trap(Calm, Lie, Other, 0, 150_000);
static FORGETS: Trap = trap(Calm, Forgetful, Other, 0, 20_000);

/// The flush for a leave is still under way when a second leave needs its own.
static LEAVES_TWICE: Trap = trap(Calm, Leave, Own, 0, 20_000).then(&RESTARTS);
static RESTARTS: Trap = trap(Flushes, Restart, Other, 0, 10_000).then(&LEAVES_AGAIN);
static LEAVES_AGAIN: Trap = trap(Links, Leave, Own, 10_000, 40_000);
/// A leave comes to nothing.
static LEAVES: Trap = trap(Calm, Leave, Own, 0, 20_000).then(&BREAK_AT_LEAVE);
static BREAK_AT_LEAVE: Trap = trap(Leaves, Break, Own, 0, 40_000);
/// Power goes while a flush is under way that something could have waited for.
static FALLS_BEHIND: Trap = trap(Calm, Takeover, Own, 0, 20_000).then(&COPIES);
static COPIES: Trap = trap(Copies, Nothing, Own, 0, 0).then(&CUT_AT_PAGE);
static CUT_AT_PAGE: Trap = trap(Pages, PowerCut, Own, 1000, 30_000);
static CUT_AT_EVICTION: Trap = trap(Evicts, PowerCut, Own, 1000, 30_000);
/// Power goes soon after a copy has begun to count.
static REBOOTS_AND_JOINS: Trap = trap(Calm, PowerCut, Other, 0, 20_000).then(&JOINS);
static FALLS_BEHIND_AND_JOINS: Trap = trap(Calm, Takeover, Own, 0, 20_000).then(&JOINS);
/// A copy is marked by an operator just when it is to count.
static REBOOTS_AND_IS_MARKED: Trap = trap(Calm, PowerCut, Other, 0, 20_000).then(&MARKED_AT_JOIN);
static MARKED_AT_JOIN: Trap = trap(Widens, Kind::Upkeep(Upkeep::Invalidate), Other, 0, 150);
static JOINS: Trap = trap(Widens, PowerCut, Own, 3000, 150_000);
/// Power goes soon after a service has ended.
static ENDS: Trap = trap(Calm, Move, Own, 0, 20_000).then(&CUT_AFTER_END);
static CUT_AFTER_END: Trap = trap(Ended, PowerCut, Own, 0, 60_000);
static ENDS_FOR_OTHER: Trap = trap(Calm, Move, Own, 0, 20_000).then(&CUT_AFTER_END_OTHER);
static CUT_AFTER_END_OTHER: Trap = trap(Ended, PowerCut, Other, 0, 60_000);

static BREAK_AT_CONSENT: Trap = trap(Agrees, Break, Own, 0, 300);
static KILL_AT_CONSENT: Trap = trap(Agrees, Kill, Other, 0, 2000);
/// A target loses its power, in one resync and in the next.
static TWO_RESYNCS: Trap = trap(Calm, Takeover, Own, 0, 20_000).then(&CUT_IN_FIRST);
static CUT_IN_FIRST: Trap = trap(Copies, PowerCut, Other, 0, 20_000).then(&FALLS_BEHIND_AGAIN);
static FALLS_BEHIND_AGAIN: Trap = trap(Calm, Takeover, Own, 0, 20_000).then(&CUT_IN_SECOND);
static CUT_IN_SECOND: Trap = trap(Copies, PowerCut, Other, 0, 20_000);

/// Writes freeze, are thrown away, and the daemon is killed.
static SILENT: Trap = trap(Calm, Silence, Own, 0, 20_000).then(&THROW_AND_KILL);
static BROKEN: Trap = trap(Calm, Break, Own, 0, 20_000).then(&THROW_AND_KILL);
static THROW_AND_KILL: Trap = trap(Freezes, ForceDeactivate, Own, 0, 30_000).then(&KILL_AT_ABORT);
static KILL_AT_ABORT: Trap = trap(Aborts, Restart, Own, 0, 1500);
static SILENT_LATE: Trap = trap(Calm, Silence, Own, 0, 20_000).then(&THROW_AND_KILL_LATE);
static THROW_AND_KILL_LATE: Trap =
    trap(Freezes, ForceDeactivate, Own, 0, 30_000).then(&KILL_AFTER_ABORT);
static KILL_AFTER_ABORT: Trap = trap(Aborted, Restart, Own, 0, 8000);
/// Writes are thrown away while both sides come together.
static ENDS_BROKEN: Trap = trap(Calm, EndBroken, Own, 0, 20_000).then(&THROW_AT_TELLING);
static THROW_AT_TELLING: Trap = trap(Tells, Throw, Own, 0, 4000);

/// A rebooted machine is heard of, and gone again.
static REBOOTS_TWICE: Trap = trap(Calm, PowerCut, Other, 0, 20_000).then(&BREAK_AT_TELLING);
static BREAK_AT_TELLING: Trap = trap(Tells, Break, Own, 300, 6000);
/// The peer's machine goes down while a service ends.
static ENDS_ALONE: Trap = trap(Calm, Move, Own, 0, 20_000).then(&CUT_AT_END);
static CUT_AT_END: Trap = trap(Ends, PowerCut, Other, 0, 3000);

static CUT_IN_SWEEP: Trap = trap(Pages, PowerCut, Own, 500, 20_000);
static KILL_IN_SWEEP: Trap = trap(Pages, Kill, Own, 500, 20_000);

/// The disk forgets while what it holds is compared, or goes to the other side.
static COMPARES: Trap = trap(Calm, Kind::Upkeep(Upkeep::Repair), Own, 0, 20_000).then(&FORGETS_OWN);
static FORGETS_OWN: Trap = trap(Compares, DiskForgets, Own, 0, 1000);
static COMPARES_BACK: Trap =
    trap(Calm, Kind::Upkeep(Upkeep::RepairBack), Own, 0, 20_000).then(&FORGETS_OTHER);
static FORGETS_OTHER: Trap = trap(Compares, DiskForgets, Other, 0, 1000);
/// It forgets while nothing but the application works.
static FORGETS_CALMLY: Trap = trap(Calm, DiskForgets, Own, 0, 20_000);
/// It fails, or sticks, while the other side reads what is to be written again.
static CANNOT_READ: Trap = trap(Calm, Kind::Unreadable(Unreadable::Sectors), Own, 0, 20_000);
static FORGETS_AT_HEAL: Trap = trap(Heals, DiskForgets, Own, 0, 1000);
static FORGETS_WHAT_HEALS: Trap = trap(Heals, DiskForgets, Other, 0, 1000);
static STICKS_AT_HEAL: Trap = trap(Heals, DiskSticks, Own, 0, 1000);
/// The service ends while the disk is being left, or after that.
static ENDS_AFTER: Trap = trap(Fails, Deactivate, Own, 0, 30_000);

/// The service ends while its runs are locked, and what waits for them is thrown away.
static COMPARES_AT_END: Trap =
    trap(Calm, Kind::Upkeep(Upkeep::Verify), Own, 0, 20_000).then(&ENDS_TWICE);
static ENDS_TWICE: Trap = trap(Compares, EndTwice, Own, 0, 1500);
/// The peer wants to leave while a run waits for writes, and these for the peer.
static COMPARES_AT_LEAVE: Trap =
    trap(Calm, Kind::Upkeep(Upkeep::Repair), Own, 0, 20_000).then(&LEAVES_COMPARED);
static LEAVES_COMPARED: Trap = trap(Compares, Leave, Own, 0, 3000);
/// What a killed daemon left half done has to be done before it is compared.
static RESTARTS_AND_COMPARES: Trap = trap(Calm, Restart, Own, 0, 20_000).then(&COMPARES_AT_LINK);
static COMPARES_AT_LINK: Trap = trap(Links, Kind::Upkeep(Upkeep::Verify), Own, 0, 3000);

const VERIFIES: [(Kind, u64); 5] = [
    (Kind::Trap(&COMPARES_AT_END), 12),
    (Kind::Trap(&COMPARES_AT_LEAVE), 8),
    (Kind::Trap(&RESTARTS_AND_COMPARES), 4),
    (Kind::Upkeep(Upkeep::Verify), 4),
    (Activate, 6),
];

const WHOLES: [(Kind, u64); 8] = [
    (Kind::WholeDisk, 30),
    (Kind::WholeDiskNow, 10),
    (Kind::Trap(&FALLS_BEHIND), 3),
    (Break, 4),
    (Move, 4),
    (Activate, 4),
    (Restart, 2),
    (PowerCut, 2),
];

const DISKS: [(Kind, u64); 11] = [
    (Kind::Trap(&COMPARES), 10),
    (Kind::Trap(&COMPARES_BACK), 6),
    (Kind::Trap(&FORGETS_CALMLY), 8),
    (Kind::Trap(&CANNOT_READ), 6),
    (Kind::Trap(&FORGETS_AT_HEAL), 6),
    (Kind::Trap(&FORGETS_WHAT_HEALS), 4),
    (Kind::Trap(&STICKS_AT_HEAL), 8),
    (Kind::Trap(&ENDS_AFTER), 6),
    (Kind::Unreadable(Unreadable::Flaky), 10),
    (Break, 2),
    (Activate, 4),
];

const WORDS: [(Kind, u64); 4] = [
    (PowerCut, 1),
    (Activate, 1),
    (Kind::Trap(&LIES), 20),
    (Kind::Trap(&FORGETS), 5),
];

const LEASES: [(Kind, u64); 8] = [
    (WrongWord, 5),
    (Break, 2),
    (PowerCut, 4),
    (Move, 3),
    (Activate, 3),
    (Kind::Trap(&MOVES), 10),
    (Kind::Trap(&REBOOTS), 14),
    (Kind::Trap(&FORGETS), 6),
];

const FLUSHES: [(Kind, u64); 13] = [
    (Takeover, 5),
    (PowerCut, 4),
    (Break, 3),
    (Stop, 3),
    (Kill, 2),
    (Kind::Trap(&LEAVES_TWICE), 8),
    (Kind::Trap(&LEAVES), 5),
    (Kind::Trap(&FALLS_BEHIND), 8),
    (Kind::Trap(&CUT_AT_PAGE), 3),
    (Kind::Trap(&CUT_AT_EVICTION), 5),
    (Kind::Trap(&REBOOTS_AND_JOINS), 10),
    (Kind::Trap(&ENDS), 2),
    (Kind::Trap(&ENDS_FOR_OTHER), 2),
];

const JOINS_MIX: [(Kind, u64); 5] = [
    (PowerCut, 2),
    (Break, 2),
    (Kind::Trap(&REBOOTS_AND_JOINS), 20),
    (Kind::Trap(&FALLS_BEHIND_AND_JOINS), 10),
    (Kind::Trap(&REBOOTS_AND_IS_MARKED), 6),
];

const OLD_DISKS: [(Kind, u64); 7] = [
    (Takeover, 5),
    (PowerCut, 4),
    (Break, 2),
    (DiskFails, 2),
    (Kind::Trap(&BREAK_AT_CONSENT), 2),
    (Kind::Trap(&KILL_AT_CONSENT), 2),
    (Kind::Trap(&TWO_RESYNCS), 20),
];

const THROWN_AWAY: [(Kind, u64); 9] = [
    (OneWay, 4),
    (PowerCut, 3),
    (Activate, 4),
    (Deactivate, 4),
    (ForceDeactivate, 2),
    (Kind::Trap(&SILENT), 8),
    (Kind::Trap(&BROKEN), 6),
    (Kind::Trap(&SILENT_LATE), 8),
    (Kind::Trap(&ENDS_BROKEN), 14),
];

const BOOTS: [(Kind, u64); 8] = [
    (PowerCut, 6),
    (Kill, 2),
    (Kind::Trap(&REBOOTS_TWICE), 12),
    (Kind::Trap(&BREAK_AT_CONSENT), 3),
    (Kind::Trap(&KILL_AT_CONSENT), 3),
    (Kind::Trap(&ENDS_ALONE), 12),
    (Kind::Trap(&ENDS), 4),
    (Kind::Trap(&ENDS_FOR_OTHER), 4),
];

const SWEEPS: [(Kind, u64); 5] = [
    (Takeover, 10),
    (PowerCut, 10),
    (DiskFails, 10),
    (Kind::Trap(&CUT_IN_SWEEP), 10),
    (Kind::Trap(&KILL_IN_SWEEP), 10),
];

impl Theme {
    /// Between two troubles, milliseconds, before haste: what waits for its moment has time for it.
    pub(super) const PAUSE_MS: (u64, u64) = (300, 2000);

    /// What the run of a seed is about, if it is about one thing.
    pub(super) fn of(seed: u64) -> Option<Self> {
        Some(match seed % 64 {
            22 | 54 => Self::Leases,
            6 | 38 => Self::Words,
            12 | 28 | 44 | 60 => Self::Flushes,
            29 | 61 => Self::Joins,
            13 | 45 => Self::OldDisks,
            14 | 46 => Self::ThrownAway,
            15 | 47 => Self::Boots,
            30 => Self::Sweeps,
            31 | 62 | 63 => Self::Disks,
            23 | 55 => Self::Verifies,
            8 | 40 => Self::Wholes,
            _ => return None,
        })
    }

    /// What goes wrong, and how often.
    pub(super) fn mixture(self) -> &'static [(Kind, u64)] {
        match self {
            Self::Leases => &LEASES,
            Self::Words => &WORDS,
            Self::Flushes => &FLUSHES,
            Self::Joins => &JOINS_MIX,
            Self::OldDisks => &OLD_DISKS,
            Self::ThrownAway => &THROWN_AWAY,
            Self::Boots => &BOOTS,
            Self::Sweeps => &SWEEPS,
            Self::Disks => &DISKS,
            Self::Verifies => &VERIFIES,
            Self::Wholes => &WHOLES,
        }
    }

    /// What waits from the beginning.
    pub(super) fn opening(self, dice: &mut Rng) -> Option<Kind> {
        match self {
            Self::Sweeps => Some(if dice.percent(50) {
                Kind::Trap(&CUT_IN_SWEEP)
            } else {
                Kind::Trap(&KILL_IN_SWEEP)
            }),
            Self::Leases
            | Self::Words
            | Self::Flushes
            | Self::Joins
            | Self::OldDisks
            | Self::ThrownAway
            | Self::Boots
            | Self::Disks
            | Self::Wholes
            | Self::Verifies => None,
        }
    }

    /// How many times as long as others the trouble lasts.
    pub(super) fn length(self) -> u64 {
        match self {
            Self::Wholes => 6,
            Self::OldDisks | Self::Disks => 3,
            Self::Leases
            | Self::Words
            | Self::Flushes
            | Self::Joins
            | Self::ThrownAway
            | Self::Verifies
            | Self::Boots => 2,
            Self::Sweeps => 1,
        }
    }

    /// Disks, clocks and application as the theme needs them.
    pub(super) fn adapt(self, seed: u64, plan: &mut Plan) {
        let mut dice = Rng::new(seed ^ 0x7468_656d_6500);
        let either = |dice: &mut Rng| [[true, false], [false, true], [true, true]][dice.index(3)];
        let habits = &mut plan.habits;
        match self {
            Self::Words => {
                plan.sectors = 2048;
                habits.readers = 4;
                habits.far_clocks = dice.percent(60);
                habits.slow_pongs = dice.percent(70);
            }
            Self::Leases => {
                plan.slow_network = dice.percent(30);
                plan.sectors = 2048;
                habits.readers = 4;
                habits.far_clocks = dice.percent(70);
                if dice.percent(30) {
                    habits.slow_peer_writes_ms = 800;
                }
            }
            Self::Flushes => {
                plan.sectors = if dice.percent(50) { 2048 } else { plan.sectors };
                plan.hot_extents_max = 3;
                habits.few_flushes = true;
                habits.many_spots = true;
                habits.slow_flushes = either(&mut dice);
                habits.slow_writes_ms = either(&mut dice).map(|slow| 200 * u64::from(slow));
            }
            Self::Joins => {
                let slow = dice.percent(50);
                plan.sectors = if slow { 4096 } else { 2048 };
                plan.hot_extents_max = 3;
                habits.few_flushes = true;
                habits.many_spots = true;
                habits.busy = true;
                habits.slow_flushes = [slow; 2];
                habits.slow_writes_ms = [60; 2];
            }
            Self::OldDisks => {
                plan.sectors = plan.sectors.min(6000);
                plan.slow_copy_ms = 20;
                habits.old_disks = true;
            }
            Self::ThrownAway => {
                habits.slow_writes_ms = either(&mut dice).map(|slow| 200 * u64::from(slow));
                habits.late_hands_ms = 400 * u64::from(dice.percent(50));
            }
            Self::Boots => {
                habits.few_flushes = true;
                habits.slow_flushes = either(&mut dice);
            }
            Self::Verifies => writes_wait(plan, &mut dice),
            Self::Wholes => much_is_written(plan, &mut dice),
            Self::Disks => {
                plan.sectors = 2048;
                // A run that differs is soon narrowed down to a block, and the peer's flush gives it time.
                plan.bitmap_block_bytes = [4096, 16 * 1024, 64 * 1024][dice.index(3)];
                habits.readers = 3;
                habits.few_flushes = true;
                habits.busy = true;
                habits.slow_flushes = either(&mut dice);
            }
            Self::Sweeps => {
                plan.sectors = 40 * 1024;
                plan.bitmap_block_bytes = 512;
                plan.garbage = true;
                habits.slow_metadata = true;
            }
        }
    }
}

/// A small volume, written to all the time: its copies are soon filled.
fn much_is_written(plan: &mut Plan, dice: &mut Rng) {
    plan.sectors = 2048;
    plan.habits.busy = true;
    plan.habits.many_spots = dice.percent(50);
    plan.habits.slow_metadata = dice.percent(30);
}

/// Activity logs are full, and the peer is slow.
fn writes_wait(plan: &mut Plan, dice: &mut Rng) {
    plan.sectors = 2048;
    plan.hot_extents_max = 3;
    plan.habits.many_spots = true;
    plan.habits.busy = true;
    plan.habits.slow_metadata = dice.percent(50);
    plan.habits.slow_peer_writes_ms = 40;
    plan.habits.late_hands_ms = 400 * u64::from(dice.percent(50));
}
