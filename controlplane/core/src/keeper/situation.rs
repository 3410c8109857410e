//! What a keeper knows, as the situation that the table decides.

use mirror_core::types::{Instant, VolumeId};

use crate::failure_detector::Presence;
use crate::limits::DOUBT_GRACE;
use crate::partition::{ClaimState, Decision, Standing, Targets};
use crate::self_fencing::FIRST_LOOK;

use super::why::{Inputs, Moment, Record, Stood};
use super::{HANDICAP, Keeper, LINK_GRACE, TURN_WAIT, Volume, VolumeFacts, WORD_LIFE};

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

    /// A ping target that answers again, before the peer is heard, shows that this node was cut off, and not that the peer is
    /// dead: where a target answered it, it went on alone.
    pub(super) fn notice_a_cut(&mut self) {
        self.cut_off = match self.peer {
            Presence::Alive => false,
            Presence::Dead if self.arbiter_targets == Targets::Silent => true,
            Presence::Dead | Presence::Deaf | Presence::Unknown => self.cut_off,
        };
    }

    /// All that the situation is made of, at this moment.
    pub(super) fn inputs(&self, now: Instant) -> Inputs {
        let standing = self.standing();
        Inputs {
            at: now,
            kind: self.kind,
            standing,
            unknown: self.unknown,
            peer: self.peer,
            peer_since: self.peer_since,
            not_before: self.not_before,
            lately: self.lately,
            unlinked_since: self.unlinked_since,
            claim: self.change.state(),
            asked: self.change.asked(),
            arbiter_targets: (self.arbiter_targets, self.arbiter_targets_since),
            cut_off: self.cut_off,
            clients: (self.clients, self.clients_since),
            automatic: self.automatic,
            service: self.service(now),
            lease_until: self.lease.until(),
            begins_first: self.begins_first(),
            idle_since: self.idle_since,
            wished: self.following.wished,
            wanted: self.wanted(standing),
            other_ready: self.is_other_ready(),
        }
    }

    /// What was just decided, and how each volume stood.
    pub(super) fn remember(&mut self, inputs: Inputs, row: usize, decision: Decision) {
        let begins = self.record.keep(inputs, row, decision);
        let [now, before] = [Moment::Now, Moment::Before].map(place);
        for volume in self.volumes.values_mut() {
            let stands = Some(volume.stood());
            if begins {
                volume.remembered[before] = volume.began;
                volume.began = stands;
            }
            volume.remembered[now] = stands;
        }
    }

    /// A word was said for what rules.
    pub(super) fn remember_the_deed(&mut self) {
        if self.record.done() {
            for volume in self.volumes.values_mut() {
                volume.remembered[place(Moment::Acted)] = volume.began;
            }
        }
    }

    /// What was decided last, and from what.
    pub fn why(&self) -> &Record {
        &self.record
    }

    /// How a volume stood when that was decided; `None` if it was not known yet.
    pub fn stood(&self, volume: VolumeId, moment: Moment) -> Option<Stood> {
        self.volumes.get(&volume)?.remembered[place(moment)]
    }

    pub(super) fn targets(&mut self, now: Instant, arbiter: Targets, clients: Targets) {
        if arbiter != self.arbiter_targets {
            (self.arbiter_targets, self.arbiter_targets_since) = (arbiter, Some(now));
        }
        if clients != self.clients {
            (self.clients, self.clients_since) = (clients, Some(now));
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let later = |at: Instant| (at > now).then_some(at);
        let rests = self.volumes.values().map(|volume| volume.rests_until);
        rests
            .chain(self.change.deadline())
            .chain(
                [self.unlinked_since, self.lately]
                    .into_iter()
                    .flatten()
                    .map(|since| since + LINK_GRACE),
            )
            .chain(self.idle_since.map(|since| since + TURN_WAIT))
            .chain([self.peer_since, self.not_before].map(|at| at + HANDICAP))
            .chain([self.lease.until()])
            .chain([self.began + WORD_LIFE, self.looking_since + FIRST_LOOK])
            .chain([self.looking_since + DOUBT_GRACE])
            .chain(self.patience_deadlines())
            .chain(self.move_deadline())
            .filter_map(later)
            .min()
    }

    pub(super) fn busy(&self) -> bool {
        let changing =
            |volume: &Volume| volume.told || volume.facts.is_some_and(|facts| facts.changing);
        self.volumes.values().any(changing)
    }
}

fn place(moment: Moment) -> usize {
    match moment {
        Moment::Now => 0,
        Moment::Before => 1,
        Moment::Acted => 2,
    }
}

impl Volume {
    fn stood(&self) -> Stood {
        let facts = self.facts;
        Stood {
            asked: self.asked,
            standing: facts.map(|facts| facts.standing),
            view: facts.map(|facts| facts.view),
            linked: facts.is_some_and(|facts| facts.linked),
            alone: facts.is_some_and(|facts| facts.alone),
            changing: self.told || facts.is_some_and(|facts| facts.changing),
        }
    }
}
