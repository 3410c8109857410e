//! What a group may spend on failing over, what a failure here leaves, and when monitors may say that it failed.

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::Instant;

use super::resource::Resource;
use super::why::Goal;
use super::{Effect, Group, GroupState, Reason, ResourceState, Spent};
use crate::limits::{RETRY_PAUSE, STABLE};

impl Group {
    /// Whether one more start after a takeover is within the budget.
    pub fn failovers_left(&self, now: Instant) -> bool {
        self.is_left(&self.failovers, now)
    }

    /// Whether one more move away from here is within the budget. Takeovers have one of their own: nobody else can run what is
    /// taken over.
    pub fn moves_left(&self, now: Instant) -> bool {
        self.is_left(&self.moves, now)
    }

    fn is_left(&self, spent: &[Instant], now: Instant) -> bool {
        let spent = spent.iter().filter(|until| **until > now).count();
        u32::try_from(spent).unwrap_or(u32::MAX) < self.policy.failovers_max
    }

    /// Whether one more was within the budget.
    pub(super) fn spend_failover(&mut self, now: Instant) -> bool {
        self.failovers.retain(|until| *until > now);
        let left = self.failovers_left(now);
        if left {
            self.failovers.push(now + self.policy.failovers_within);
        }
        left
    }

    /// [`Self::moves_left`] was asked before.
    pub(super) fn moves_away(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.moves.retain(|until| *until > now);
        self.moves.push(now + self.policy.failovers_within);
        effects.push(Effect::MovedAway);
    }

    /// An earlier run spent that.
    pub(super) fn remember(&mut self, now: Instant, spent: Spent, ago: Duration) {
        let until = now + self.policy.failovers_within.saturating_sub(ago);
        match spent {
            Spent::Takeover => self.failovers.push(until),
            Spent::Move => self.moves.push(until),
        }
    }

    /// Whether monitors look: everything runs, and nothing is about to be stopped. While volumes are in doubt nobody can tell an
    /// application that hangs from one that waits for its disk.
    pub fn is_watched(&self, now: Instant) -> bool {
        self.goal(now) == Goal::Run && self.state(now) == GroupState::Online
    }

    /// Whether a monitor may have a resource started again now: as often as it is after failures, and counted beside them.
    pub fn restarts(&self, now: Instant, resource: usize) -> bool {
        let own = self.resources.get(resource);
        let restarts = |own: &Resource| if self.is_stable(now) { 0 } else { own.restarts };
        own.is_some_and(|own| restarts(own) < own.policy.retries)
    }

    /// A monitor says that a resource that runs is to be stopped and started again. It has not failed by that: it has all its
    /// tries to start.
    pub(super) fn restart(&mut self, now: Instant, number: usize, monitor: usize) {
        if !self.is_watched(now) || !self.restarts(now, number) {
            return;
        }
        self.forget_if_stable(now);
        let resource = &mut self.resources[number];
        resource.state = ResourceState::Unknown;
        resource.restarts += 1;
        resource.rests_until = now + RETRY_PAUSE;
        self.restarting = Some(monitor);
    }

    /// Something of it does not run any more, or not for long: what was counted is forgotten if all of it ran for so long.
    pub(super) fn forget_if_stable(&mut self, now: Instant) {
        if self.is_stable(now) {
            for resource in &mut self.resources {
                (resource.failures, resource.restarts) = (0, 0);
            }
        }
        self.online_since = None;
    }

    /// All of it runs for so long that what failed before is forgotten.
    pub(super) fn is_stable(&self, now: Instant) -> bool {
        self.online_since.is_some_and(|since| now >= since + STABLE)
    }

    /// A monitor failed. One that was about a group that has gone on since says nothing.
    pub(super) fn condemned(&mut self, now: Instant, monitor: usize, effects: &mut Vec<Effect>) {
        if self.is_watched(now) {
            self.online_since = None;
            self.give_up(Reason::Monitor(monitor), effects);
        }
    }

    /// What failed is tried again, unless something of it is left; what was spent stays spent.
    pub(super) fn try_again(&mut self, now: Instant) {
        if !self.stop_failed && self.barred.take().is_some() {
            // A try that was begun by that fails by itself.
            self.restarting = None;
            for resource in &mut self.resources {
                (resource.failures, resource.rests_until) = (0, now);
            }
        }
    }
}
