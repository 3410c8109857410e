//! How far this run of `lockstepd` is, as the loop that decides about volumes tells it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use controlplane_core::failure_detector::Presence;

use crate::arbiter::boottime_nanos;
use crate::heartbeat::Shared;

/// The loop turns for so long with the other node heard, before this run counts as one that came up with its file.
const SETTLE_TIME: Duration = Duration::from_secs(3);

/// The loop tells, and pushes ask.
pub struct Course {
    shared: Arc<Shared>,
    lease: Duration,
    /// What an earlier run was confirmed.
    before_nanos: u64,
    running: AtomicBool,
    alive: AtomicBool,
    heard_since: OnceLock<Instant>,
    settled: AtomicBool,
}

impl Course {
    /// Of a run that begins, with its service lease.
    pub fn new(shared: Arc<Shared>, lease: Duration) -> Self {
        Self {
            before_nanos: shared.confirmed_nanos.load(Ordering::Relaxed),
            shared,
            lease,
            running: AtomicBool::new(false),
            alive: AtomicBool::new(false),
            heard_since: OnceLock::new(),
            settled: AtomicBool::new(false),
        }
    }

    /// The loop took one turn, and holds the other node for this.
    pub(super) fn turn(&self, peer: Presence, now: Instant) {
        let is_alive = match peer {
            Presence::Alive => true,
            Presence::Deaf | Presence::Dead | Presence::Unknown => false,
        };
        self.running.store(true, Ordering::Relaxed);
        self.alive.store(is_alive, Ordering::Relaxed);
        if is_alive {
            let since = *self.heard_since.get_or_init(|| now);
            if now.duration_since(since) >= SETTLE_TIME {
                self.settled.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The loop runs: daemons of volumes were started before.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// The other node is heard.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// This run came up.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// The next run goes on with what is left of the lease. So this one ends only when nearly a whole one is left, by what
    /// was confirmed to this run.
    pub(super) fn may_end(&self) -> bool {
        self.may_end_at(boottime_nanos())
    }

    fn may_end_at(&self, now_nanos: u64) -> bool {
        let confirmed = self.shared.confirmed_nanos.load(Ordering::Relaxed);
        let age = Duration::from_nanos(now_nanos.saturating_sub(confirmed));
        confirmed > self.before_nanos && age <= self.lease / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course() -> Course {
        Course::new(Arc::new(Shared::default()), Duration::from_secs(2))
    }

    #[test]
    fn a_run_has_come_up_when_it_decides_and_hears_the_other_node_for_a_while() {
        let (course, began) = (course(), Instant::now());
        assert!(!course.is_running());
        course.turn(Presence::Unknown, began);
        course.turn(Presence::Alive, began + SETTLE_TIME);
        assert!(course.is_running() && course.is_alive() && !course.is_settled());
        course.turn(Presence::Alive, began + 2 * SETTLE_TIME);
        course.turn(Presence::Dead, began + 2 * SETTLE_TIME);
        assert!(course.is_settled() && !course.is_alive());
    }

    #[test]
    fn a_run_ends_only_when_the_other_node_confirmed_it_a_moment_ago() {
        let course = course();
        let at = |millis: u64| millis * 1_000_000;
        assert!(!course.may_end_at(at(100)), "never confirmed");
        course
            .shared
            .confirmed_nanos
            .store(at(10_000), Ordering::Relaxed);
        assert!(course.may_end_at(at(10_500)));
        assert!(!course.may_end_at(at(10_501)));
        // What the run before was confirmed says nothing of this one.
        let next = Course::new(Arc::clone(&course.shared), Duration::from_secs(2));
        assert!(!next.may_end_at(at(10_001)));
    }
}
