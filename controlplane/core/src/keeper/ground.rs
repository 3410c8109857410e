//! On what the group's services rest here, and until when ([`crate::self_fencing`]).

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::{Instant, VolumeId};

use super::{ArbiterKind, Keeper, Volume, VolumeFacts};
use crate::failure_detector::Presence;
use crate::limits::DOUBT_GRACE;
use crate::mutant::{self, Mutant};
use crate::partition::{ClaimState, Service, Standing};
use crate::self_fencing::{FIRST_LOOK, Ground, LOOK_MARGIN, Leases, Served, grace};

impl ArbiterKind {
    /// Whether services need a lease under this arbiter.
    pub fn leases(self) -> Leases {
        match self {
            Self::Register | Self::Ping => Leases::Kept,
            Self::Manual | Self::Nobody => Leases::None,
        }
    }
}

impl Volume {
    /// Whether it is served here, with the peer or by a copy that alone counts.
    fn is_served(&self) -> bool {
        self.facts.is_some_and(|facts| {
            facts.standing == Standing::Serving && (facts.linked || facts.alone)
        })
    }

    /// What was not seen for a while may have been linked, and have answered the other node: it counts anew, unless the copy
    /// here alone counted before. `self` is how it was seen last.
    pub(super) fn notice_whether_apart(&mut self, now: Instant, facts: Option<VolumeFacts>) {
        let alone = self.known.is_some_and(|(alone, ..)| alone);
        let still_alone = alone && facts.is_some_and(|facts| facts.alone);
        let seen = still_alone || now <= self.asked + LOOK_MARGIN;
        self.apart = match facts {
            None => self.apart.filter(|_| alone),
            Some(facts) if facts.linked => None,
            Some(_) => self.apart.filter(|_| seen).or(Some(now)),
        };
    }
}

impl Keeper {
    /// The other node's data plane was heard on the mirror link then, be the link up or only coming up: what it heard of this
    /// node may have been answered to it. To be told before [`super::Event::Volume`]: whoever speaks to a copy that alone counts has no
    /// lease by it, and may speak, and be refused, for ever.
    pub fn heard_on_the_link(&mut self, volume: VolumeId, at: Instant) {
        let counts = |volume: &&mut Volume| !volume.known.is_some_and(|(alone, ..)| alone);
        if let Some(volume) = self.volumes.get_mut(&volume).filter(counts) {
            volume.apart = volume.apart.map(|since| since.max(at));
        }
    }

    /// On what the group's services rest at `now`. It says nothing of whether the volumes are served.
    pub fn ground(&self, now: Instant) -> Ground {
        if self.kind.leases() == Leases::None {
            Ground::NoTakeover
        } else if self.is_known_alone(now) {
            Ground::Alone
        } else if self.change.state() == ClaimState::Granted || self.goes_alone(now) {
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

    /// How long the peer's word counts here now, as configured or longer by a promise of the peer.
    pub fn lease_length(&self, now: Instant) -> Duration {
        self.lease.length(now)
    }

    /// Until when a promise of the peer makes it longer here, or did ([`Event::Raised`](super::Event::Raised)).
    pub fn raised_until(&self) -> Instant {
        self.lease.raised_until()
    }

    /// Whether this run looked at every volume; one that does not answer counts as looked at once [`FIRST_LOOK`] is over, or
    /// once an earlier run's look at it counts no more.
    pub fn has_looked(&self, now: Instant) -> bool {
        let over = now >= self.looking_since + FIRST_LOOK;
        let looked = (self.has_met_all() && !self.is_unlooked(now)) || (self.reported && over);
        let volumes = || self.volumes.values();
        let met = self.unknown == 0 && volumes().all(|volume| volume.known.is_some());
        looked && (met || !self.counts_as_before(now))
    }

    /// Since when no volume of the group is linked, as far as that is known: the other node may have been answered on the
    /// mirror link before, whatever was heard of it. `None` if one may be linked.
    pub fn apart_since(&self) -> Option<Instant> {
        if self.unknown > 0 {
            return None;
        }
        let apart: Option<Vec<Instant>> = self.volumes.values().map(|it| it.apart).collect();
        apart?.into_iter().max()
    }

    /// Whether every volume's daemon says that it is linked with the other node.
    pub fn is_linked(&self) -> bool {
        let linked = |volume: &Volume| volume.facts.is_some_and(|facts| facts.linked);
        self.unknown == 0 && self.volumes.values().all(linked)
    }

    /// Whether no copy of the other node can count before a volume here is linked again: what the next run may rest on until
    /// it has looked ([`Keeper::left_alone`]).
    pub fn is_left_alone(&self, now: Instant) -> bool {
        let linked = |volume: &Volume| volume.known.is_some_and(|(_, linked, _)| linked);
        self.is_known_alone(now) && !self.volumes.values().any(linked)
    }

    pub(super) fn service(&self, now: Instant) -> Service {
        let leases = self.kind.leases() == Leases::Kept;
        let over = leases && self.lease.is_over(now);
        let rests = self.is_unlooked(now) || self.goes_alone(now);
        if over && !rests && !mutant::is(Mutant::LeaseIgnored) {
            Service::Expired
        } else {
            Service::Leased
        }
    }

    fn has_met_all(&self) -> bool {
        self.unknown == 0 && self.volumes.values().all(|volume| volume.looked)
    }

    /// A run that follows a gap may find every volume served here, with the peer or by a copy that alone counts: then nobody took
    /// them over so far, and it waits for the peer's first word as it waits for a look. One that was silent when it was asked
    /// first is asked again.
    fn is_unlooked(&self, now: Instant) -> bool {
        let well = |volume: &Volume| volume.known.is_none() || volume.is_served();
        let fresh = !self.lease.was_kept() && self.volumes.values().all(well);
        (fresh || !self.has_met_all()) && now < self.looking_since + FIRST_LOOK
    }

    /// Of a data plane that does not answer its last answer counts, for as long as a claim may be on its way. Beyond that only if
    /// it was not linked and the peer was not heard since: data planes link, and agree that both copies count, without a word
    /// from this daemon. Of one that was not heard in this run the last answer to an earlier run counts in the same way, for
    /// as long as a volume may be in doubt.
    fn is_known_alone(&self, now: Instant) -> bool {
        let before = self.counts_as_before(now);
        let any = self.unknown > 0 || !self.volumes.is_empty();
        let alone = |volume: &Volume| match volume.known {
            None => before,
            Some(_) => self.is_alone(now, volume),
        };
        any && (self.unknown == 0 || before) && self.volumes.values().all(alone)
    }

    /// Whether an earlier run's look counts for a volume that was not heard in this one.
    fn counts_as_before(&self, now: Instant) -> bool {
        let soon = now < self.looking_since + FIRST_LOOK;
        let unheard = !self.peer_is_heard() && self.heard_until.is_none();
        let most = self.looking_since + DOUBT_GRACE;
        self.alone_before && now < most && (soon || unheard)
    }

    fn is_alone(&self, now: Instant, volume: &Volume) -> bool {
        let patience = grace(self.lease.timeout());
        volume.known.is_some_and(|(alone, linked, asked)| {
            let unheard = self.was_not_heard_since(asked);
            alone && (now < asked + patience || (!linked && unheard))
        })
    }

    pub(super) fn peer_is(&mut self, now: Instant, presence: Presence) {
        if presence == self.peer {
            return;
        }
        if self.peer_is_heard() {
            self.heard_until = Some(now);
        }
        (self.peer, self.peer_since) = (presence, now);
    }

    fn peer_is_heard(&self) -> bool {
        match self.peer {
            Presence::Alive | Presence::Deaf => true,
            Presence::Unknown | Presence::Dead => false,
        }
    }

    /// Whether no heartbeat of the peer can have come since `at`: it counts as dead a timeout after the last one.
    fn was_not_heard_since(&self, at: Instant) -> bool {
        let known = |until: Instant| until <= at + self.lease.timeout();
        !self.peer_is_heard() && self.heard_until.is_none_or(known)
    }

    /// When what a silent data plane said last counts no more because of its age alone.
    pub(super) fn patience_deadlines(&self) -> impl Iterator<Item = Instant> {
        let patience = grace(self.lease.timeout());
        let known = self.volumes.values().filter_map(|volume| volume.known);
        known
            .filter(|(alone, ..)| *alone)
            .map(move |(.., asked)| asked + patience)
    }

    /// Under `ping` nothing is granted: what counts is that a target answered in time, when this node decided. Its data planes
    /// may need longer to write it down.
    fn goes_alone(&self, now: Instant) -> bool {
        let goes = |volume: &Volume| volume.narrows || self.is_alone(now, volume);
        let any = self.volumes.values().any(|volume| volume.narrows);
        any && self.unknown == 0 && self.volumes.values().all(goes)
    }

    /// After a gap the peer's word counts again once every volume is served here, with the peer (which was heard since) or by a
    /// copy that alone counts, by what was asked since. The volumes of a group stand each for itself: one comes back to the peer before
    /// another, or never.
    pub(super) fn restore_the_lease(&mut self) {
        let oldest = self.volumes.values().map(|volume| volume.asked).min();
        if self.unknown == 0
            && self.volumes.values().all(Volume::is_served)
            && let Some(oldest) = oldest
        {
            let alone = |volume: &Volume| volume.facts.is_some_and(|facts| facts.alone);
            let by = if self.volumes.values().all(alone) {
                Served::Alone
            } else {
                Served::Linked
            };
            self.lease.restored(oldest, by);
        }
    }
}
