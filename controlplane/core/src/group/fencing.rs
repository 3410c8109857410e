//! What of a group is left on this node, and whether its services may start: for [`crate::self_fencing`].

use mirror_core::types::Instant;

use super::resource::Resource;
use super::{Goal, Group, ResourceState};
use crate::self_fencing::{Before, Left};

impl Group {
    /// Whether something of the group is here, or is about to start; [`Left::Something`] as long as nobody has looked.
    pub fn left(&self, now: Instant) -> Left {
        let gone = |resource: &Resource| {
            resource.state == ResourceState::Offline && resource.running.is_none()
        };
        let all = self.count(gone) == self.resources.len();
        if all && self.goal(now) != Goal::Run {
            Left::Nothing
        } else {
            Left::Something
        }
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
        } else if now >= self.volumes_since + self.policy.takeover_wait {
            Before::Waited
        } else {
            Before::Unknown
        }
    }

    /// What an earlier run was stopping is gone, or may run after all.
    pub(super) fn forget_an_earlier_stop(&mut self, now: Instant, goal: Goal) {
        let may_run = goal == Goal::Run || (goal == Goal::Stop && self.is_probed());
        if may_run || self.left(now) == Left::Nothing {
            self.hard_before = None;
        }
    }
}
