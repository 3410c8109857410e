//! What of a group is left on this node, and whether its services may start: for [`crate::self_fencing`].

use alloc::vec::Vec;

use mirror_core::types::Instant;

use super::resource::Resource;
use super::{Effect, Goal, Group, ResourceState, StopFailure, Volumes};
use crate::keeper::HANDICAP;
use crate::limits::{FENCE_RETRY, FENCES_MAX};
use crate::mutant::{self, Mutant};
use crate::self_fencing::{Before, Left};

impl Group {
    /// Whether something of the group is here, or is about to start; [`Left::Something`] as long as nobody has looked.
    pub fn left(&self, now: Instant) -> Left {
        if self.is_gone() && self.goal(now) != Goal::Run {
            Left::Nothing
        } else {
            Left::Something
        }
    }

    /// Whether nothing of the group is here; something may be about to start.
    pub fn is_gone(&self) -> bool {
        let gone = |resource: &Resource| {
            resource.state == ResourceState::Offline && resource.running.is_none()
        };
        self.count(gone) == self.resources.len()
    }

    /// Whether every resource was looked at, or stopped, in this run of the daemon.
    pub fn is_probed(&self) -> bool {
        self.count(|resource| !resource.probed) == 0
    }

    /// Since when the group is being stopped hard here, by this run of the daemon or an earlier one, if something is left.
    pub fn hard_since(&self, now: Instant) -> Option<Instant> {
        let known = match (self.hard_since, self.hard_before) {
            (Some(now), Some(before)) => Some(now.min(before)),
            (now, before) => now.or(before),
        };
        known.filter(|_| self.left(now) == Left::Something)
    }

    /// What the start of the services here rests on.
    pub(super) fn before(&self, now: Instant) -> Before {
        if self.counted {
            Before::Begun
        } else if self
            .other_clear
            .is_some_and(|asked| asked >= self.volumes_since)
        {
            Before::OtherClear
        } else if now >= self.waits_until() {
            Before::Waited
        } else {
            Before::Unknown
        }
    }

    pub(super) fn hear_of_death(&mut self, since: Option<Instant>) {
        self.was_dead = since.or(self.other_dead).or(self.was_dead);
        self.other_dead = since;
    }

    /// When the takeover wait is over. Of a node that is dead it counts from its last word, as its own lease does, whenever
    /// the volumes came to be served here; of one that lives from then, and it has its doubts as well: whose disk failed is served
    /// through the copy here, which serves by itself as soon as the daemon there is gone, whoever lives.
    pub(super) fn waits_until(&self) -> Instant {
        let since = match self.other_dead {
            Some(dead) => dead + HANDICAP,
            // Heard again, it had no more time than that before.
            None => {
                let dead = self.was_dead.map(|dead| dead + HANDICAP);
                let since = self.volumes_since.max(dead.unwrap_or_default());
                let doubts = since + self.policy.living_wait;
                // A daemon that is linked tells there that it serves nothing.
                let told = self.linked_since.map(|linked| since.max(linked));
                told.map_or(doubts, |told| told.min(doubts))
            }
        };
        let stretch = Some(self.stretch).filter(|_| !mutant::is(Mutant::StretchUnheard));
        since + self.policy.takeover_wait + stretch.unwrap_or_default()
    }

    /// A stop failed in good order: nothing may write any more, whatever still runs.
    pub(super) fn fence(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let served = matches!(self.volumes, Volumes::Served(_) | Volumes::InDoubt);
        let due = self.stop_failed && self.policy.stop_failure == StopFailure::Fence;
        if due && served && self.fences < FENCES_MAX && now >= self.fence_at {
            self.fences += 1;
            self.fence_at = now + FENCE_RETRY;
            effects.push(Effect::Fence);
        }
    }

    /// What an earlier run was stopping is gone, or may run after all.
    pub(super) fn forget_an_earlier_stop(&mut self, now: Instant, goal: Goal) {
        let served = matches!(self.volumes, Volumes::Served(_));
        let may_run = goal == Goal::Run || (goal == Goal::Stop && served && self.is_probed());
        if may_run || self.left(now) == Left::Nothing {
            self.hard_before = None;
        }
    }
}
