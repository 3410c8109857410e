//! What a keeper knows, as the situation that the table decides.

use core::time::Duration;

use mirror_core::types::Instant;

use crate::failure_detector::Presence;
use crate::mutant::{self, Mutant};
use crate::partition::{Arbiter, ClaimState, Contact, Situation, Standing, Targets, Turn};

use super::{ArbiterKind, Automatic, HANDICAP, Keeper, LINK_GRACE, TURN_WAIT, Volume, VolumeFacts};

impl Keeper {
    /// The volumes' standings as one: the worst that keeps the group from being served, or what it needs.
    pub(super) fn standing(&self) -> Standing {
        let has = |standing: Standing| {
            let unknown = standing == Standing::Silent && self.unknown > 0;
            let mut known = self.facts();
            unknown
                || known.any(|(_, facts)| {
                    facts.map_or(Standing::Silent, |facts| facts.standing) == standing
                })
        };
        let worst = [
            Standing::Silent,
            Standing::NotCurrent,
            Standing::Booted,
            Standing::Standby,
            Standing::Alone,
            Standing::Unserved,
        ];
        if has(Standing::Broken) || self.is_torn() {
            // A group is served as a whole: what needs that volume has failed.
            return Standing::Broken;
        }
        let serves = has(Standing::Frozen) || has(Standing::Serving);
        let rest = [Standing::Standby, Standing::Unserved];
        let rest = rest.into_iter().find(|standing| has(*standing));
        if let (true, ClaimState::Granted, Some(rest)) =
            (has(Standing::Serving), self.change.state(), rest)
        {
            // Taken over in part: the words to the others are still to come.
            return rest;
        }
        if serves {
            // Served here already: a volume without answer is no reason to leave the others frozen.
            return if has(Standing::Frozen) {
                Standing::Frozen
            } else {
                Standing::Serving
            };
        }
        let found = worst.into_iter().find(|standing| has(*standing));
        found.unwrap_or(Standing::Silent)
    }

    /// Whether some volumes are served here, and others can be on the other node alone, which can have all: one of them was
    /// broken here, and ended before the others.
    fn is_torn(&self) -> bool {
        let served = |standing: Standing| matches!(standing, Standing::Serving | Standing::Frozen);
        let known = || self.facts().filter_map(|(_, facts)| facts);
        let lost = known().any(|facts| facts.standing == Standing::NotCurrent && facts.linked);
        let theirs = |facts: VolumeFacts| {
            facts.standing == Standing::NotCurrent || (facts.linked && !facts.alone)
        };
        lost && known().any(|facts| served(facts.standing)) && known().all(theirs)
    }

    /// Whether every volume that needs the peer is linked to it. Of a silent data plane nobody knows.
    pub(super) fn linked(&self) -> bool {
        self.facts().all(|(_, facts)| {
            facts.is_some_and(|facts| match facts.standing {
                Standing::Frozen
                | Standing::Standby
                | Standing::Unserved
                | Standing::Booted
                | Standing::Broken => facts.linked,
                Standing::Silent => false,
                Standing::Serving | Standing::Alone | Standing::NotCurrent => true,
            })
        })
    }

    pub(super) fn contact(&self, now: Instant, standing: Standing) -> Contact {
        let Some(since) = self.unlinked_since else {
            return Contact::Linked;
        };
        let handicap = match standing {
            _ if mutant::is(Mutant::HandicapIgnored) => Duration::ZERO,
            Standing::Standby | Standing::Unserved => HANDICAP,
            Standing::Serving
            | Standing::Frozen
            | Standing::Booted
            | Standing::Alone
            | Standing::NotCurrent
            | Standing::Silent
            | Standing::Broken => Duration::ZERO,
        };
        match self.peer {
            Presence::Dead if mutant::is(Mutant::DeadNotNoticed) => Contact::Unsure,
            Presence::Dead if now >= self.peer_since + handicap => Contact::Dead,
            Presence::Alive | Presence::Deaf if mutant::is(Mutant::HeartbeatsHoldFreeze) => {
                Contact::Unsure
            }
            Presence::Alive | Presence::Deaf
                if standing == Standing::Standby && mutant::is(Mutant::StandbyAsksBesideLiving) =>
            {
                Contact::Dead
            }
            Presence::Alive | Presence::Deaf if now >= since + LINK_GRACE => {
                Contact::HeartbeatsOnly
            }
            Presence::Dead | Presence::Alive | Presence::Deaf | Presence::Unknown => {
                Contact::Unsure
            }
        }
    }

    /// A ping target that answers again, before the peer is heard, shows that this node was cut off, and not that the peer is
    /// dead: where a target answered it, it went on alone.
    pub(super) fn notice_a_cut(&mut self) {
        self.cut_off = match self.peer {
            Presence::Alive => false,
            Presence::Dead if self.arbiter_targets == Targets::Silent => true,
            Presence::Dead | Presence::Deaf | Presence::Unknown => self.cut_off,
        };
    }

    pub(super) fn situation(&self, now: Instant) -> Situation {
        let standing = self.standing();
        Situation {
            standing,
            contact: self.contact(now, standing),
            arbiter: match self.kind {
                ArbiterKind::Register => Arbiter::Register(self.change.state()),
                ArbiterKind::Ping if self.cut_off => Arbiter::Ping(Targets::Silent),
                ArbiterKind::Ping => Arbiter::Ping(self.arbiter_targets),
                ArbiterKind::Manual => Arbiter::Manual,
                ArbiterKind::Nobody => Arbiter::Nobody,
            },
            clients: self.clients,
            automatic: self.automatic == Automatic::Yes,
            service: self.service(now),
            turn: match (self.begins_first(), self.idle_since) {
                (Some(true), _) => Turn::Ours,
                (Some(false), Some(since)) if now >= since + TURN_WAIT => Turn::Ours,
                (Some(false) | None, _) => Turn::Theirs,
            },
            wanted: self.wanted(standing),
        }
    }

    pub(super) fn busy(&self) -> bool {
        let changing =
            |volume: &Volume| volume.told || volume.facts.is_some_and(|facts| facts.changing);
        self.volumes.values().any(changing)
    }
}
