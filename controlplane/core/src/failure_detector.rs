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
    /// Whether every path is silent for the timeout as configured, while a raised one lasts ([`FailureDetector::bear`]).
    Quiet(bool),
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
    /// It was down when the timeout was raised: it is until it is heard.
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
    /// A longer timeout, and until when it holds.
    borne: (Duration, Instant),
    paths: Vec<Path>,
    /// Silence counts from here: the start, or the end of the last standstill.
    counts_from: Instant,
    looked: Instant,
    stood_still: Duration,
    /// A standstill of which nobody has been told.
    untold: Duration,
    told: Presence,
    told_quiet: bool,
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
            borne: (Duration::ZERO, Instant::default()),
            paths: core::iter::repeat_n(UNHEARD, paths).collect(),
            counts_from: now,
            looked: now,
            stood_still: Duration::ZERO,
            untold: Duration::ZERO,
            told: Presence::Unknown,
            told_quiet: false,
        }
    }

    /// Silence is borne until then for the sake of a lease that lasts so long ([`crate::timeouts`]), on each path for `timeout`;
    /// then the timeout as configured counts again, from what was heard last. A change is no sign of life: what is down is so
    /// until it is heard.
    pub fn bear(&mut self, now: Instant, timeout: Duration, until: Instant) {
        self.look(now);
        for index in 0..self.paths.len() {
            self.paths[index].was_down = self.path(index) == PathState::Down;
        }
        self.borne = (timeout, until);
    }

    /// Silence that makes a path down at present.
    fn timeout(&self) -> Duration {
        let (raised, until) = self.borne;
        if self.looked < until || mutant::is(Mutant::RaisedForEver) {
            raised.max(self.timing.timeout)
        } else {
            self.timing.timeout
        }
    }

    fn silent(&self, path: &Path) -> Duration {
        let heard = path.heard.unwrap_or_default();
        self.looked.since(heard.max(self.counts_from))
    }

    /// Whether the peer counts as living by a raised timeout alone: who serves has no reason to go on without it so far, nor is its
    /// link missing while heartbeats come.
    pub fn is_quiet(&self) -> bool {
        let silent = |path: &Path| self.silent(path) >= self.timing.timeout;
        self.timeout() > self.timing.timeout && self.paths.iter().all(silent)
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

    /// When the first path that works will have been silent for the timeout, unless it is heard before, or a raised one is over:
    /// [`Self::look`] then.
    pub fn deadline(&self) -> Option<Instant> {
        let silent_at = |path: &Path| {
            let heard = path.heard?.max(self.counts_from);
            Some([heard + self.timing.timeout, heard + self.timeout()])
        };
        let later = |at: &Instant| *at > self.looked;
        let silent = self.paths.iter().filter_map(silent_at).flatten();
        silent.chain([self.borne.1]).filter(later).min()
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
        let (silent, timeout) = (self.silent(path), self.timeout());
        if silent >= timeout || path.was_down {
            return PathState::Down;
        }
        if path.heard.is_none() {
            return PathState::New;
        }
        let confirmed = path
            .confirmed
            .map_or(self.counts_from, |sent| sent.max(self.counts_from));
        if self.looked.since(confirmed) >= timeout {
            PathState::OneWay
        } else if silent >= timeout / 2 {
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
        let quiet = self.is_quiet();
        if quiet != self.told_quiet {
            self.told_quiet = quiet;
            changes.push(Change::Quiet(quiet));
        }
        changes
    }
}

#[cfg(test)]
mod tests;
