//! Whether the peer lives: silence per path and in total.
//!
//! A path is up while heartbeats come *and* the peer says that ours arrive there: a path that works in one
//! direction only is no path for a decision that both have to take. A node is dead when every path is silent for the
//! timeout; that is suspicion, not proof, and no rule about data rests on it (S6): it starts a claim
//! ([`crate::view_change`]), which the arbiter decides.
//!
//! Silence while this node itself stood still proves nothing: the heartbeats lie unread in the sockets. After a
//! standstill every path gets its time again.

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::Instant;

use crate::limits::{HEARTBEATS_PER_TIMEOUT_MIN, PATHS_MAX};
use crate::mutant::{self, Mutant};
use crate::timeouts::Factor;

/// Times of the detector. The timeout is at least [`HEARTBEATS_PER_TIMEOUT_MIN`] intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats.
    pub interval: Duration,
    /// Silence that makes a path down.
    pub timeout: Duration,
}

impl Timing {
    /// `None` if the timeout is too short for the interval.
    pub fn new(interval: Duration, timeout: Duration) -> Option<Self> {
        let enough = interval * HEARTBEATS_PER_TIMEOUT_MIN;
        (!interval.is_zero() && timeout >= enough).then_some(Self { interval, timeout })
    }

    /// With a timeout that is so many times as long, for backup windows ([`crate::timeouts`]).
    #[must_use]
    pub fn raised(self, factor: Factor) -> Self {
        Self {
            interval: self.interval,
            timeout: factor.times(self.timeout),
        }
    }
}

/// How a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Nothing was heard on it since this node's start.
    New,
    /// Heartbeats go both ways.
    Up,
    /// Silent for half the timeout.
    Late,
    /// The peer is heard, but does not hear this node.
    OneWay,
    /// Silent for the timeout.
    Down,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was not heard since this node's start, and the timeout has not passed yet.
    Unknown,
    /// Some path works in both directions.
    Alive,
    /// It is heard, and hears nothing: to it this node looks dead.
    Deaf,
    /// Every path is silent for the timeout.
    Dead,
}

/// Something to tell the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A path's state is another one.
    Path {
        /// Which path.
        path: usize,
        /// What it is now.
        state: PathState,
    },
    /// The peer's presence is another one.
    Peer(Presence),
}

/// On what a presence rests: every path at the moment when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The moment.
    pub at: Instant,
    /// What was found.
    pub presence: Presence,
    /// Each path, in its order.
    paths: [Seen; PATHS_MAX],
    count: usize,
}

impl Evidence {
    /// Each path, in its order.
    pub fn paths(&self) -> &[Seen] {
        self.paths.get(..self.count).unwrap_or_default()
    }
}

/// How a path was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its state.
    pub state: PathState,
    /// When the peer was heard on it.
    pub heard: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Path {
    heard: Option<Instant>,
    /// When the last of our heartbeats that the peer confirmed was sent.
    confirmed: Option<Instant>,
    /// Round trips, smoothed over about eight.
    round_trip: Option<Duration>,
    received: u64,
    lost: u64,
    last_sequence: u64,
    told: PathState,
    /// It was down when the timeout changed: it is until it is heard.
    was_down: bool,
}

const UNHEARD: Path = Path {
    heard: None,
    confirmed: None,
    round_trip: None,
    received: 0,
    lost: 0,
    last_sequence: 0,
    told: PathState::New,
    was_down: false,
};

/// What a heartbeat on a path said.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Counts the peer's heartbeats on this path since its start, from 1.
    pub sequence: u64,
    /// When this node sent the last heartbeat of its own that the peer had received there, by this node's clock;
    /// `None` if it received none.
    pub confirms: Option<Instant>,
    /// How long the peer had that one before it sent this one.
    pub held: Duration,
}

/// Of one peer.
#[derive(Debug)]
pub struct FailureDetector {
    timing: Timing,
    paths: Vec<Path>,
    /// Silence counts from here: the start, or the end of the last standstill.
    counts_from: Instant,
    looked: Instant,
    stood_still: Duration,
    /// A standstill of which nobody has been told.
    untold: Duration,
    told: Presence,
}

impl FailureDetector {
    /// Of a peer with so many paths, at most [`PATHS_MAX`].
    ///
    /// # Panics
    ///
    /// With more paths, or none.
    pub fn new(now: Instant, timing: Timing, paths: usize) -> Self {
        assert!((1..=PATHS_MAX).contains(&paths), "{paths} paths");
        Self {
            timing,
            paths: core::iter::repeat_n(UNHEARD, paths).collect(),
            counts_from: now,
            looked: now,
            stood_still: Duration::ZERO,
            untold: Duration::ZERO,
            told: Presence::Unknown,
        }
    }

    /// Other times hold from now on. With a longer timeout the silence goes on; a shorter one counts from now, so that a change
    /// never looks like a death. Nor does it look like life: what is down is so until it is heard.
    pub fn set_timing(&mut self, now: Instant, timing: Timing) {
        self.look(now);
        for index in 0..self.paths.len() {
            self.paths[index].was_down = self.path(index) == PathState::Down;
        }
        if timing.timeout < self.timing.timeout {
            self.counts_from = now;
        }
        self.timing = timing;
    }

    /// A heartbeat that was proved to come from the peer's present incarnation; `now` may be earlier than the last
    /// look: what another process heard is told late.
    pub fn heard(&mut self, now: Instant, path: usize, heard: Heard) {
        self.look(now);
        let Some(path) = self.paths.get_mut(path) else {
            return;
        };
        path.heard = path.heard.max(Some(now));
        path.was_down = false;
        path.received += 1;
        if heard.sequence > path.last_sequence {
            let gap = heard.sequence - path.last_sequence - 1;
            let first = path.last_sequence == 0;
            path.lost += if first { 0 } else { gap };
            path.last_sequence = heard.sequence;
        }
        if let Some(sent) = heard.confirms {
            path.confirmed = path.confirmed.max(Some(sent));
            let trip = now.since(sent).saturating_sub(heard.held);
            path.round_trip = Some(path.round_trip.map_or(trip, |old| (old * 7 + trip) / 8));
        }
    }

    /// Somebody else heard the peer on this path at that moment, and told so only now: the data plane on its mirror link.
    /// It counts from then, not from when this was told. `answered`: when was sent what the peer answered last there, which
    /// may be long before: whoever is heard need not hear.
    pub fn heard_before(&mut self, now: Instant, path: usize, at: Instant, answered: Instant) {
        self.look(now);
        let Some(path) = self.paths.get_mut(path) else {
            return;
        };
        let at = if mutant::is(Mutant::LinkHeardNow) {
            now
        } else {
            at.min(now)
        };
        if path.heard.is_none_or(|heard| at > heard) {
            path.heard = Some(at);
            path.was_down = false;
            path.received += 1;
        }
        let confirmed = if mutant::is(Mutant::LinkHeardConfirms) {
            at
        } else {
            answered.min(at)
        };
        path.confirmed = path.confirmed.max(Some(confirmed));
    }

    /// The peer runs anew: what was counted of the earlier run is over.
    pub fn restarted(&mut self) {
        for path in &mut self.paths {
            path.last_sequence = 0;
            path.confirmed = None;
        }
    }

    /// Time passed. The shell calls this once an interval at least; what it was later than that was a standstill.
    pub fn look(&mut self, now: Instant) {
        if now < self.looked {
            return;
        }
        let gap = now.since(self.looked);
        self.looked = now;
        let late = gap.saturating_sub(self.timing.interval);
        if late >= self.timing.timeout / 4 {
            self.stood_still = late;
            self.untold = self.untold.max(late);
            self.counts_from = now;
            for path in &mut self.paths {
                path.was_down = false;
            }
        }
    }

    /// When the first path that works will have been silent for the timeout, unless it is heard before: [`Self::look`] then.
    pub fn deadline(&self) -> Option<Instant> {
        let silent_at = |path: &Path| {
            let heard = path.heard?.max(self.counts_from);
            Some(heard + self.timing.timeout)
        };
        let later = |at: &Instant| *at > self.looked;
        self.paths.iter().filter_map(silent_at).filter(later).min()
    }

    /// A standstill that this was not asked for yet: two of them may be of the same length.
    pub fn take_standstill(&mut self) -> Option<Duration> {
        let untold = core::mem::take(&mut self.untold);
        (!untold.is_zero()).then_some(untold)
    }

    /// How long the last standstill of this node was that could have hidden heartbeats; zero if there was none.
    pub fn stood_still(&self) -> Duration {
        self.stood_still
    }

    /// How a path stands.
    pub fn path(&self, path: usize) -> PathState {
        let Some(path) = self.paths.get(path) else {
            return PathState::Down;
        };
        let silent = self.looked.since(
            path.heard
                .map_or(self.counts_from, |heard| heard.max(self.counts_from)),
        );
        if silent >= self.timing.timeout || path.was_down {
            return PathState::Down;
        }
        if path.heard.is_none() {
            return PathState::New;
        }
        let confirmed = path
            .confirmed
            .map_or(self.counts_from, |sent| sent.max(self.counts_from));
        if self.looked.since(confirmed) >= self.timing.timeout {
            PathState::OneWay
        } else if silent >= self.timing.timeout / 2 {
            PathState::Late
        } else {
            PathState::Up
        }
    }

    /// What is known of the peer.
    pub fn presence(&self) -> Presence {
        let mut found = Presence::Dead;
        let silent = |path: usize| self.path(path) == PathState::Down;
        if mutant::is(Mutant::OnePathSilentIsDead) && (0..self.paths.len()).any(silent) {
            return Presence::Dead;
        }
        for path in 0..self.paths.len() {
            match self.path(path) {
                PathState::Up | PathState::Late => return Presence::Alive,
                PathState::OneWay if mutant::is(Mutant::DeafIsDead) => {}
                PathState::OneWay => found = Presence::Deaf,
                PathState::New if found == Presence::Dead => found = Presence::Unknown,
                PathState::New | PathState::Down => {}
            }
        }
        found
    }

    /// When this node sent the last heartbeat that the peer confirmed on any path: until then the peer was there, and
    /// knew of this node. The service lease counts from it.
    pub fn last_confirmed(&self) -> Option<Instant> {
        self.paths.iter().filter_map(|path| path.confirmed).max()
    }

    /// The smoothed round trip of a path, once it is known.
    pub fn round_trip(&self, path: usize) -> Option<Duration> {
        self.paths.get(path)?.round_trip
    }

    /// Heartbeats of a path that came, and that were missed between them.
    pub fn counts(&self, path: usize) -> (u64, u64) {
        self.paths
            .get(path)
            .map_or((0, 0), |path| (path.received, path.lost))
    }

    /// When the peer was heard on a path.
    pub fn heard_at(&self, path: usize) -> Option<Instant> {
        self.paths.get(path)?.heard
    }

    /// What [`Self::presence`] rests on now.
    pub fn evidence(&self) -> Evidence {
        let seen = |path: usize| Seen {
            state: self.path(path),
            heard: self.heard_at(path),
        };
        Evidence {
            at: self.looked,
            presence: self.presence(),
            paths: core::array::from_fn(seen),
            count: self.paths.len(),
        }
    }

    /// What changed since this was last asked.
    pub fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for index in 0..self.paths.len() {
            let state = self.path(index);
            if self.paths[index].told != state {
                self.paths[index].told = state;
                changes.push(Change::Path { path: index, state });
            }
        }
        let presence = self.presence();
        if presence != self.told {
            self.told = presence;
            changes.push(Change::Peer(presence));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        interval: Duration::from_millis(250),
        timeout: Duration::from_secs(2),
    };

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000 * millis)
    }

    fn good(sequence: u64, now: u64) -> Heard {
        Heard {
            sequence,
            confirms: Some(at(now.saturating_sub(10))),
            held: Duration::ZERO,
        }
    }

    /// Looks every interval; heartbeats on the paths that are named, until `end`.
    fn run(detector: &mut FailureDetector, from: u64, end: u64, paths: &[usize]) {
        for (sequence, now) in (from..=end).step_by(250).enumerate() {
            detector.look(at(now));
            for path in paths {
                detector.heard(at(now), *path, good(sequence as u64 + 1, now));
            }
        }
    }

    #[test]
    fn one_path_of_two_keeps_the_peer_alive() {
        let mut detector = FailureDetector::new(at(0), TIMING, 2);
        run(&mut detector, 0, 5000, &[0, 1]);
        run(&mut detector, 5250, 10_000, &[1]);
        assert_eq!(detector.path(0), PathState::Down);
        assert_eq!(detector.path(1), PathState::Up);
        assert_eq!(detector.presence(), Presence::Alive);
    }

    #[test]
    fn silence_on_every_path_is_death_after_the_timeout_and_not_before() {
        let mut detector = FailureDetector::new(at(0), TIMING, 2);
        run(&mut detector, 0, 5000, &[0, 1]);
        run(&mut detector, 5250, 6750, &[]);
        assert_eq!(detector.presence(), Presence::Alive);
        assert_eq!(detector.path(0), PathState::Late);
        detector.look(at(7000));
        assert_eq!(detector.presence(), Presence::Dead);
    }

    #[test]
    fn silence_while_this_node_stood_still_proves_nothing() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        run(&mut detector, 0, 5000, &[0]);
        detector.look(at(35_000));
        assert_eq!(detector.stood_still(), Duration::from_millis(29_750));
        assert_ne!(detector.presence(), Presence::Dead);
        run(&mut detector, 35_250, 36_750, &[]);
        assert_ne!(detector.presence(), Presence::Dead);
        detector.look(at(37_000));
        assert_eq!(detector.presence(), Presence::Dead);
    }

    #[test]
    fn a_peer_that_hears_nothing_is_deaf_not_alive() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        for (sequence, now) in (0..=5000).step_by(250).enumerate() {
            let heard = Heard {
                sequence: sequence as u64 + 1,
                confirms: None,
                held: Duration::ZERO,
            };
            detector.heard(at(now), 0, heard);
        }
        assert_eq!(detector.presence(), Presence::Deaf);
    }

    #[test]
    fn a_peer_that_never_spoke_is_unknown_and_then_dead() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        run(&mut detector, 0, 1750, &[]);
        assert_eq!(detector.presence(), Presence::Unknown);
        detector.look(at(2000));
        assert_eq!(detector.presence(), Presence::Dead);
    }

    #[test]
    fn what_is_told_late_makes_no_peer_live_longer_and_no_standstill() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        run(&mut detector, 0, 1500, &[]);
        let late = Heard {
            confirms: Some(at(100)),
            ..good(1, 1)
        };
        detector.heard(at(100), 0, late);
        detector.look(at(1600));
        assert_eq!(detector.presence(), Presence::Alive);
        for now in (1700..=2100).step_by(100) {
            detector.look(at(now));
        }
        assert_eq!(detector.presence(), Presence::Dead);
        assert_eq!(detector.stood_still(), Duration::ZERO);
    }

    #[test]
    fn a_silence_has_its_moment_and_no_other_one() {
        let mut detector = FailureDetector::new(at(0), TIMING, 2);
        assert_eq!(detector.deadline(), None);
        detector.heard(at(100), 0, good(1, 0));
        detector.heard(at(230), 1, good(1, 0));
        assert_eq!(detector.deadline(), Some(at(2100)));
        for now in (300..=2050).step_by(250) {
            detector.look(at(now));
        }
        detector.look(at(2100));
        assert_eq!(detector.path(0), PathState::Down);
        assert_eq!(detector.deadline(), Some(at(2230)));
        detector.look(at(2230));
        assert_eq!(
            (detector.presence(), detector.deadline()),
            (Presence::Dead, None)
        );
    }

    #[test]
    fn loss_is_counted_from_the_gaps_and_a_restart_is_none() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        for sequence in [1, 2, 5, 4, 6] {
            detector.heard(at(sequence), 0, good(sequence, sequence));
        }
        assert_eq!(detector.counts(0), (5, 2));
        detector.restarted();
        detector.heard(at(7), 0, good(40, 7));
        assert_eq!(detector.counts(0), (6, 2));
    }

    /// The data plane is asked ten times a second, and says each time when it heard the peer last.
    #[test]
    fn what_the_link_heard_long_ago_is_no_sign_of_life_now() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        for now in (100..=1900).step_by(100) {
            // A moment is never known to better than the time that the answer took.
            let heard = at(100 + now / 1000);
            detector.heard_before(at(now), 0, heard, heard);
        }
        assert_eq!(detector.presence(), Presence::Alive);
        detector.look(at(2102));
        assert_eq!(detector.presence(), Presence::Dead);
    }

    /// A mirror link that carries one direction only: the peer hears nothing, and may take over.
    #[test]
    fn who_is_heard_on_the_mirror_link_and_answers_nothing_confirms_nothing() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        for now in (100..=5000).step_by(100) {
            detector.heard_before(at(now), 0, at(now - 10), at(500));
        }
        assert_eq!(detector.presence(), Presence::Deaf);
        assert_eq!(detector.last_confirmed(), Some(at(500)));
    }

    #[test]
    fn a_longer_timeout_forgives_and_a_shorter_one_counts_from_now() {
        let mut detector = FailureDetector::new(at(0), TIMING, 1);
        run(&mut detector, 0, 1000, &[0]);
        let triple = Factor::of_tenths(30).expect("a factor");
        detector.set_timing(at(1000), TIMING.raised(triple));
        run(&mut detector, 1250, 6000, &[]);
        assert_ne!(detector.presence(), Presence::Dead);
        detector.set_timing(at(6000), TIMING);
        assert_ne!(detector.presence(), Presence::Dead);
        run(&mut detector, 6250, 8000, &[]);
        assert_eq!(detector.presence(), Presence::Dead);
    }

    #[test]
    fn a_change_of_the_timeout_is_no_sign_of_life() {
        let triple = Factor::of_tenths(30).expect("a factor");
        for (first, second) in [
            (TIMING, TIMING.raised(triple)),
            (TIMING.raised(triple), TIMING),
        ] {
            let mut detector = FailureDetector::new(at(0), first, 2);
            run(&mut detector, 0, 1000, &[0, 1]);
            run(&mut detector, 1250, 9000, &[]);
            assert_eq!(detector.presence(), Presence::Dead);
            detector.set_timing(at(9000), second);
            assert_eq!(detector.presence(), Presence::Dead);
            run(&mut detector, 9250, 9500, &[0]);
            assert_eq!(detector.presence(), Presence::Alive);
            assert_eq!(detector.path(1), PathState::Down);
        }
    }

    #[test]
    fn a_timeout_of_few_intervals_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Timing::new(second, second * 3), None);
        assert!(Timing::new(second, second * 4).is_some());
    }
}
