//! What the groups' rules are told of their time ([`controlplane_core::self_fencing`]), and what of them is left.

use std::time::Duration;

use controlplane_core::group::Event;
use controlplane_core::self_fencing::{Ground, Left, Verdict};
use mirror_core::types::Instant;

use super::Services;
use crate::why::Reasons;

impl Services {
    /// On what the verdict rests that is told next.
    pub fn ground(&mut self, now: Instant, group: usize, ground: Ground) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.ground.is_none_or(|(before, _)| before != ground)
        {
            service.ground = Some((ground, now));
        }
    }

    /// Why a group's resources are as they are; `None` if it has none.
    pub fn reasons(&self, now: Instant, group: usize) -> Option<Reasons<'_>> {
        let service = self.groups.get(&group)?;
        Some(Reasons {
            record: service.group.why(),
            state: service.group.state(now),
            names: &service.names,
            monitors: service.monitors.names(),
            wanted: service.wanted,
            steps_down: service.steps_down,
            ground: service.ground,
        })
    }

    /// Whether the group's services may run at all, whoever serves its volumes.
    pub fn leased(&mut self, now: Instant, group: usize, verdict: Verdict) {
        let lapsed = verdict == Verdict::StopHard;
        let Some(service) = self.groups.get_mut(&group) else {
            return;
        };
        // A first run has nothing to stop while nobody has confirmed it yet.
        let here = service.group.is_probed() && !service.group.is_gone();
        let group = &service.name;
        if lapsed && here && !service.told_over {
            service.told_over = true;
            tracing::error!(
                code = "LS6130",
                group,
                "the time of the services is over: they stop at once"
            );
        } else if !lapsed && std::mem::take(&mut service.told_over) {
            tracing::info!(code = "LS6130", group, "services may run again");
        }
        if service.lapsed != lapsed {
            service.lapsed = lapsed;
            service.look_at_volumes(now);
        }
    }

    /// The other node said, when it had what this one sent at `asked`, that nothing of the group is left there.
    pub fn other_clear(&mut self, now: Instant, group: usize, asked: Instant) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.other_clear != Some(asked)
        {
            service.other_clear = Some(asked);
            service.handle(now, Event::OtherClear { asked });
        }
    }

    /// An earlier run of the daemon was stopping a group hard since then.
    pub fn hard_since(&mut self, now: Instant, group: usize, since: Instant) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.handle(now, Event::HardSince(since));
        }
    }

    /// Since when the other node is dead, and none of the group's volumes is linked with it; `None` if that is not so, or may
    /// not be.
    pub fn other_dead(&mut self, now: Instant, group: usize, since: Option<Instant>) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.other_dead != since
        {
            service.other_dead = since;
            service.handle(now, Event::OtherDead { since });
        }
    }

    /// Whether all volumes of the group are linked with the other node.
    pub fn linked(&mut self, now: Instant, group: usize, linked: bool) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.linked != linked
        {
            service.linked = linked;
            service.handle(now, Event::Linked(linked));
        }
    }

    /// After a takeover services wait so much longer than configured: the other node was promised that.
    pub fn wait_longer(&mut self, now: Instant, stretch: Duration) {
        if std::mem::replace(&mut self.stretch, stretch) == stretch {
            return;
        }
        for service in self.groups.values_mut() {
            service.handle(now, Event::WaitsLonger(stretch));
        }
    }

    /// Whether something of the group is here, or about to start.
    pub fn left(&self, now: Instant, group: usize) -> Left {
        let service = self.groups.get(&group);
        service.map_or(Left::Nothing, |service| service.group.left(now))
    }
}
