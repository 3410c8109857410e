//! What a group may spend on failing over, what a failure here leaves, and when monitors may say that it failed.

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::Instant;

use super::resource::Resource;
use super::why::Goal;
use super::{Effect, Group, GroupState, Reason, Spent};
use crate::limits::STABLE;

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

    /// Whether a resource that fails now is started again here.
    pub fn restarts(&self, now: Instant, resource: usize) -> bool {
        let own = self.resources.get(resource);
        let failures = |own: &Resource| if self.is_stable(now) { 0 } else { own.failures };
        own.is_some_and(|own| failures(own) < own.policy.retries)
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
            for resource in &mut self.resources {
                (resource.failures, resource.rests_until) = (0, now);
            }
        }
    }
}
