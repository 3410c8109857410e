//! On what the group's services rest here, and until when ([`crate::self_fencing`]).

use mirror_core::types::Instant;

use super::{ArbiterKind, Keeper, Volume};
use crate::mutant::{self, Mutant};
use crate::partition::{ClaimState, Service, Standing};
use crate::self_fencing::{FIRST_LOOK, Ground, Leases, grace};

impl ArbiterKind {
    /// Whether services need a lease under this arbiter.
    pub fn leases(self) -> Leases {
        match self {
            Self::Register | Self::Ping => Leases::Kept,
            Self::Manual | Self::Nobody => Leases::None,
        }
    }
}

impl Keeper {
    /// On what the group's services rest at `now`. It says nothing of whether the volumes are served.
    pub fn ground(&self, now: Instant) -> Ground {
        if self.kind.leases() == Leases::None {
            Ground::NoTakeover
        } else if self.is_known_alone(now) {
            Ground::Alone
        } else if self.change.state() == ClaimState::Granted {
            Ground::Granted
        } else if !self.lease.is_over(now) {
            Ground::Leased
        } else if self.is_unlooked(now) {
            Ground::Unlooked
        } else {
            Ground::Over
        }
    }

    /// When the time of the group's services is over; `None`: they need none.
    pub fn services_until(&self, now: Instant) -> Option<Instant> {
        match self.ground(now) {
            Ground::NoTakeover | Ground::Alone | Ground::Granted => None,
            Ground::Leased | Ground::Unlooked | Ground::Over => Some(self.lease.until()),
        }
    }

    /// When this node sent what the peer confirmed last, as far as it counts for the group's services.
    pub fn lease_confirmed(&self) -> Instant {
        self.lease.counted()
    }

    /// Whether every volume was looked at in this run, or did not answer.
    pub fn has_looked(&self) -> bool {
        self.unknown == 0 && self.volumes.values().all(|volume| volume.looked)
    }

    pub(super) fn service(&self, now: Instant) -> Service {
        let leases = self.kind.leases() == Leases::Kept;
        let over = leases && self.lease.is_over(now) && !self.is_unlooked(now);
        if over && !mutant::is(Mutant::LeaseIgnored) {
            Service::Expired
        } else {
            Service::Leased
        }
    }

    fn is_unlooked(&self, now: Instant) -> bool {
        !self.has_looked() && now < self.looking_since + FIRST_LOOK
    }

    /// Of a data plane that does not answer its last answer counts, if it was not linked: its view cannot become one of
    /// both copies then. One that is linked may have agreed to that since it was asked.
    fn is_known_alone(&self, now: Instant) -> bool {
        let patience = grace(self.lease.timeout());
        let alone = |volume: &Volume| {
            let counts = |(alone, linked, asked): (bool, bool, Instant)| {
                alone && (!linked || now < asked + patience)
            };
            volume.known.is_some_and(counts)
        };
        self.unknown == 0 && !self.volumes.is_empty() && self.volumes.values().all(alone)
    }

    /// After a gap the peer's word counts again once every volume is served here, with the peer, by what was asked since.
    pub(super) fn restore_the_lease(&mut self) {
        let served = |volume: &Volume| {
            let serves =
                |facts: super::VolumeFacts| facts.standing == Standing::Serving && facts.linked;
            volume.facts.is_some_and(serves)
        };
        let oldest = self.volumes.values().map(|volume| volume.asked).min();
        if self.unknown == 0
            && self.volumes.values().all(served)
            && let Some(oldest) = oldest
        {
            self.lease.restored(oldest);
        }
    }
}
