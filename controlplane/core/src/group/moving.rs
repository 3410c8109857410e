//! What a group may spend on failing over, and what a failure here leaves.

use alloc::vec::Vec;

use mirror_core::types::Instant;

use super::{Effect, Group, Reason};

impl Group {
    /// Whether one more start after a takeover, or move away from here, is within the budget.
    pub fn failovers_left(&self, now: Instant) -> bool {
        let spent = self.failovers.iter().filter(|until| **until > now).count();
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

    /// [`Self::failovers_left`] was asked before.
    pub(super) fn moves_away(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.spend_failover(now) {
            effects.push(Effect::FailedOver);
        }
    }

    /// A resource that failed is tried again; what was spent stays spent.
    pub(super) fn try_again(&mut self, now: Instant) {
        if matches!(self.barred, Some(Reason::Resource(_))) {
            self.barred = None;
            for resource in &mut self.resources {
                (resource.failures, resource.rests_until) = (0, now);
            }
        }
    }
}
