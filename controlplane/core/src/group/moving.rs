//! What a group may spend on failing over, and what a failure here leaves.

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::Instant;

use super::{Effect, Group, Spent};

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

    /// What failed is tried again, unless something of it is left; what was spent stays spent.
    pub(super) fn try_again(&mut self, now: Instant) {
        if !self.stop_failed && self.barred.take().is_some() {
            for resource in &mut self.resources {
                (resource.failures, resource.rests_until) = (0, now);
            }
        }
    }
}
