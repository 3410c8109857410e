//! The time that services have on each node, as the control planes count it: no services exist in these runs, and whoever
//! would still run some while the other node may start them has failed (I57).
//!
//! What `lockstepd` leaves behind for its next run in the same boot is kept here as well.

use std::time::Duration;

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{Event, Keeper, VolumeFacts};
use controlplane_core::partition::Standing;
use controlplane_core::self_fencing::{Ground, LOOK_MARGIN, grace};
use mirror_core::admin::Role;
use mirror_core::types::{BootId, Instant};

use super::control::TIMING;
use super::node::id;
use super::world::World;

/// Clocks that go apart, and what is late within a look.
const SLACK: Duration = Duration::from_millis(150);

/// What an earlier run left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Left {
    boot: Option<BootId>,
    confirmed: Option<Instant>,
    looking_since: Option<Instant>,
    alone: bool,
}

impl Left {
    /// The keeper of the run that begins with it.
    pub(super) fn given_to(self, keeper: Keeper) -> Keeper {
        let keeper = keeper.leasing(TIMING.timeout, self.confirmed, self.looking_since);
        if self.alone {
            keeper.left_alone()
        } else {
            keeper
        }
    }

    pub(super) fn confirmed(self) -> Option<Instant> {
        self.confirmed
    }
}

/// Of both nodes.
#[derive(Debug, Default)]
pub(super) struct ServiceTimes {
    left: [Left; 2],
    /// Since when a node serves with a copy that alone counts.
    alone_since: [Option<u64>; 2],
    /// Since when a node counts its peer as dead.
    dead_since: [Option<u64>; 2],
    /// The control plane saw its volume fenced, and not served since: its services stopped, and a silent volume starts none.
    stopped: [bool; 2],
}

impl World {
    /// A run begins: what it knows of those before it.
    pub(super) fn left_behind(&mut self, node: usize) -> Left {
        let now = self.path_clock(node);
        let boot = self.nodes[node].boot;
        let left = &mut self.control.services.left[node];
        if left.boot != Some(boot) {
            *left = Left {
                boot: Some(boot),
                ..Left::default()
            };
        }
        left.looking_since.get_or_insert(now);
        *left
    }

    /// The heartbeat thread, before it hears anything.
    pub(super) fn count_a_gap(&mut self, node: usize) {
        let now = self.path_clock(node);
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            daemon.confirmations.look(now);
        }
    }

    /// The loop that decides, before anything that waited.
    pub(super) fn renew_the_lease(&mut self, node: usize) {
        let Some(daemon) = self.control.daemons[node].as_ref() else {
            return;
        };
        let gaps = daemon.confirmations.gaps();
        if let Some(sent) = daemon.confirmations.last() {
            self.keeper(node, Event::Confirmed { sent, gaps });
        }
        let now = self.path_clock(node);
        let Some(daemon) = self.control.daemons[node].as_ref() else {
            return;
        };
        let keeper = daemon.keeper();
        let confirmed = keeper.lease_confirmed();
        let (looked, alone) = (keeper.has_looked(now), keeper.is_left_alone(now));
        let left = &mut self.control.services.left[node];
        left.confirmed = Some(confirmed);
        left.looking_since = left.looking_since.filter(|_| !looked);
        left.alone = alone;
    }

    fn notice_a_stop(&mut self, node: usize, facts: Option<VolumeFacts>) {
        let stopped = &mut self.control.services.stopped[node];
        *stopped = match facts.map(|facts| facts.standing) {
            Some(Standing::Serving | Standing::Frozen | Standing::Broken) => false,
            Some(
                Standing::Standby
                | Standing::Unserved
                | Standing::Booted
                | Standing::Alone
                | Standing::NotCurrent,
            ) => true,
            Some(Standing::Silent) | None => *stopped,
        };
    }

    /// I57, of a node whose control plane was just told this of its volume.
    pub(super) fn check_service_times(&mut self, node: usize, facts: Option<VolumeFacts>) {
        self.notice_a_stop(node, facts);
        let (now, other) = (self.now, 1 - node);
        for place in 0..2 {
            let alone = self.role(place) == Some(Role::Active)
                && self.nodes[place].view().is_sole(id(place));
            let since = &mut self.control.services.alone_since[place];
            *since = if alone { since.or(Some(now)) } else { None };
            let daemon = self.control.daemons[place].as_ref();
            let dead = daemon.is_some_and(|daemon| daemon.presence == Presence::Dead);
            let since = &mut self.control.services.dead_since[place];
            *since = if dead { since.or(Some(now)) } else { None };
        }
        let Some(since) = self.control.services.alone_since[other] else {
            return;
        };
        // A copy that is fenced by its own daemon ends the services whatever time they have: the shell's tests show that.
        let later = self.nodes[other].view().epoch > self.nodes[node].view().epoch;
        let gone = self.role(node) == Some(Role::Fenced) || self.control.services.stopped[node];
        if !later || gone || now < self.control.blind_until[node] {
            return;
        }
        let clock = self.path_clock(node);
        let daemon = self.control.daemons[node].as_ref();
        let ground = daemon.map(|daemon| daemon.keeper().ground(clock));
        // Beside a node that lives services start once its doubts are over as well, or it says that nothing is left.
        let Some(dead) = self.control.services.dead_since[other] else {
            return;
        };
        let since = since.max(dead);
        let millis = (grace(TIMING.timeout) + LOOK_MARGIN + SLACK).as_millis();
        let limit = self.control_ms(u64::try_from(millis).unwrap_or(u64::MAX));
        self.count("control: services beside a node that serves alone");
        // Of a run that has not looked nothing is known: what it found it runs beside as its machine did without it.
        let runs = match ground {
            Some(Ground::Leased | Ground::Alone | Ground::Granted) => true,
            Some(Ground::Unlooked | Ground::Over | Ground::NoTakeover) | None => false,
        };
        if runs && now > since + limit {
            self.fail(format!(
                "{node} would run services, and {other} may start them: it has served alone for {} ms (I57)",
                (now - since) * self.plan.haste / super::node::MS
            ));
        }
    }
}
