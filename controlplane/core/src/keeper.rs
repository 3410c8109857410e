//! Keeps the volumes of one group served by one node: turns what is seen into the situation of
//! [`crate::partition`], and the decision into questions to the arbiter and words to the data planes.
//!
//! A group moves as a whole, so its volumes are claimed together; the serving node may drop the peer from one volume
//! alone. A word to a data plane names the view that was granted and the view on which it rests: the data plane refuses it
//! if it holds another one by then (S3), so that a late word does no harm.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::auth::Entropy;
use mirror_core::types::{Instant, VolumeId};
use mirror_core::view::ViewMark;

use crate::failure_detector::Presence;
use crate::limits::HEARTBEAT_TIMEOUT;
use crate::mutant::{self, Mutant};
use crate::partition::{
    Cause, ClaimState, Contact, Decision, Situation, Standing, Targets, decide,
};
use crate::register::Claim;
use crate::self_fencing::ServiceLease;
use crate::view_change::{Held, ViewChange};

mod around;
mod ground;
mod situation;
mod types;
pub mod why;
mod wished;
mod words;

pub use types::{ArbiterKind, Effect, Event, VolumeFacts, Word};
use why::{Hold, Record, Stood, acts};
pub use wished::{Automatic, Desire, Services, Side, Wished};
use words::claimed;

/// The link has so long to come back while the peer's heartbeats come.
pub const LINK_GRACE: Duration = Duration::from_secs(2);
/// A standby asks the arbiter so much later than the serving node would: on equal terms who serves goes on. What the two
/// heard last may be an interval apart, each looks once an interval, and the serving node's data plane is asked ten
/// times a second.
pub const HANDICAP: Duration = Duration::from_millis(600);
/// What nobody serves is begun by the preferred node; the other one begins it so much later.
pub const TURN_WAIT: Duration = Duration::from_secs(3);
/// A word that was refused is said again after this time, if it is still right; then after twice as long, and so on.
pub const WORD_RETRY: Duration = Duration::from_millis(25);
/// No longer than that.
pub const WORD_RETRY_MAX: Duration = Duration::from_millis(1600);

/// A word to decide alone may be begun within this time. Whoever said it may be gone by then: the next run of this
/// keeper gives nothing back, and lets nothing be reported, before every word of an earlier one is over.
pub const WORD_LIFE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct Volume {
    facts: Option<VolumeFacts>,
    /// A word is being carried out.
    told: bool,
    /// When the last word was known to be over.
    word_over: Instant,
    /// When the present facts were asked for.
    asked: Instant,
    /// No other word before this time.
    rests_until: Instant,
    /// Words since the copy last stood otherwise.
    words: u32,
    /// How it stood when it was last asked.
    stood: Option<(Standing, ViewMark, bool)>,
    /// It was asked in this run, and answered or did not.
    looked: bool,
    /// Under the arbiter `ping`: the word to go on alone was said while the lease lasted, and is not known to be over.
    narrows: bool,
    /// Whether this copy alone counted, whether it was linked, and when that was asked; by its last answer.
    known: Option<(bool, bool, Instant)>,
    /// Since when it is known that it is not linked.
    apart: Option<Instant>,
    /// How it stood at each [`why::Moment`] that is remembered.
    remembered: [Option<Stood>; 3],
    /// The same when the present ruling began.
    began: Option<Stood>,
}

/// The keeper of one group on one node.
#[derive(Debug)]
pub struct Keeper {
    kind: ArbiterKind,
    began: Instant,
    volumes: BTreeMap<VolumeId, Volume>,
    /// Volumes of the group whose ids are not known.
    unknown: usize,
    change: ViewChange,
    entropy: Entropy,
    peer: Presence,
    peer_since: Instant,
    /// See [`Event::NotBefore`].
    not_before: Instant,
    /// See [`Event::Quiet`]: since when that is not so.
    lately: Option<Instant>,
    /// When the peer, heard in this run, came to be heard no more.
    heard_until: Option<Instant>,
    unlinked_since: Option<Instant>,
    /// Whether this node begins with what nobody serves.
    preferred: bool,
    /// Since when nobody serves while both are linked.
    idle_since: Option<Instant>,
    arbiter_targets: Targets,
    /// No ping target answered while the peer was silent; it may have gone on alone, until it is heard again.
    cut_off: bool,
    clients: Targets,
    /// Since when both are so.
    arbiter_targets_since: Option<Instant>,
    clients_since: Option<Instant>,
    automatic: Automatic,
    lease: ServiceLease,
    /// Since when runs of the daemon have not come to look at the volumes.
    looking_since: Instant,
    /// Every volume's daemon was asked in this run, also those that have not told their ids.
    reported: bool,
    /// An earlier run saw every copy here alone and not linked.
    alone_before: bool,
    decided: Option<(usize, Situation)>,
    record: Record,
    following: wished::Following,
}

impl Keeper {
    /// Of a group with these volumes. `seed`: 32 random bytes, for the ids of views.
    pub fn new(
        now: Instant,
        kind: ArbiterKind,
        volumes: impl IntoIterator<Item = VolumeId>,
        seed: &[u8; 32],
    ) -> Self {
        let volumes = volumes.into_iter().map(|id| (id, Volume::default()));
        Self {
            kind,
            began: now,
            volumes: volumes.collect(),
            unknown: 0,
            change: ViewChange::default(),
            entropy: Entropy::new(seed),
            peer: Presence::Unknown,
            peer_since: now,
            not_before: Instant::default(),
            lately: Some(Instant::default()),
            heard_until: None,
            unlinked_since: Some(now),
            preferred: false,
            idle_since: None,
            arbiter_targets: Targets::Silent,
            cut_off: false,
            clients: Targets::Answer,
            arbiter_targets_since: None,
            clients_since: None,
            automatic: Automatic::Yes,
            lease: ServiceLease::new(now, HEARTBEAT_TIMEOUT, None),
            looking_since: now,
            reported: false,
            alone_before: false,
            decided: None,
            record: Record::default(),
            following: wished::Following::default(),
        }
    }

    /// Whether this node begins with what nobody serves; exactly one of both should.
    #[must_use]
    pub fn preferring(mut self, preferred: bool) -> Self {
        self.preferred = preferred;
        self
    }

    /// With another timeout than the default, and with what earlier runs of this boot left behind: when this node sent what
    /// the peer confirmed last, and since when they did not come to look at the volumes.
    #[must_use]
    pub fn leasing(
        mut self,
        timeout: Duration,
        confirmed: Option<Instant>,
        looking_since: Option<Instant>,
    ) -> Self {
        let confirmed = if mutant::is(Mutant::RestartRenews) {
            Some(self.began)
        } else {
            confirmed
        };
        self.lease = ServiceLease::new(self.began, timeout, confirmed);
        self.looking_since = looking_since.unwrap_or(self.began);
        self
    }

    /// An earlier run of this boot saw last that the copies here alone count, and that none was linked
    /// ([`Keeper::is_left_alone`]).
    #[must_use]
    pub fn left_alone(mut self) -> Self {
        self.alone_before = true;
        self
    }

    /// Of a group that has so many more volumes whose data planes have not told their ids yet: they count as silent.
    #[must_use]
    pub fn expecting(mut self, unknown: usize) -> Self {
        self.unknown = unknown;
        self
    }

    /// One of the volumes that were not known told its id.
    pub fn meet(&mut self, volume: VolumeId) {
        if self.volumes.insert(volume, Volume::default()).is_none() {
            self.unknown = self.unknown.saturating_sub(1);
        }
    }

    /// The daemon of every volume was asked in this run, and answered or did not.
    pub fn reported(&mut self) {
        self.reported = true;
    }

    /// How the claim at the arbiter stands.
    pub fn claim(&self) -> ClaimState {
        self.change.state()
    }

    /// Whether the arbiter may be told which view a copy holds: no word is under way that would change it, of this run
    /// or an earlier one, and nothing is granted, or may be, that would be acted on after the report. An arbiter
    /// that lost its data believes that everything granted before is over once every member has reported.
    pub fn may_report(&self, now: Instant, volume: VolumeId) -> bool {
        if mutant::is(Mutant::ReportsWithGrant) {
            return true;
        }
        let place = self.volumes.get(&volume);
        let settled = |place: &Volume| {
            !place.told
                && place.word_over <= place.asked
                && place.facts.is_some_and(|facts| !facts.changing)
        };
        self.words_are_over(now) && place.is_some_and(settled) && !self.change.may_hold()
    }

    /// Whether every word of an earlier run is over, and the facts are younger than that.
    fn words_are_over(&self, now: Instant) -> bool {
        let over = self.began + WORD_LIFE;
        let known = |volume: &Volume| volume.asked >= over;
        mutant::is(Mutant::NewRunTrusts) || (now >= over && self.volumes.values().all(known))
    }

    /// What may be committed now, and on which claims.
    pub fn granted(&self) -> impl Iterator<Item = (&Claim, ViewMark)> {
        self.change.granted()
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Volume {
                volume,
                facts,
                asked,
            } => self.volume(now, volume, facts.map(|facts| *facts), asked),
            Event::Peer(presence) => {
                self.peer_is(now, presence);
            }
            Event::Answered { number, answer } => self.change.answered(now, number, answer),
            Event::GivenBack { number } => self.change.given_back(number),
            Event::Targets { arbiter, clients } => self.targets(now, arbiter, clients),
            Event::Confirmed { sent, gaps } => self.lease.confirmed(now, sent, gaps),
            Event::Raised { sent, lease } => self.lease.raise(now, sent.min(now), lease),
            Event::NotBefore(at) => self.not_before = at,
            Event::Quiet(quiet) => self.lately = (!quiet).then_some(now),
            Event::LinkHeard { at } => self.lease.answered(now, at.min(now)),
            Event::Contact { asked } => self.lease.contact(asked.min(now)),
            Event::Automatic(automatic) => self.automatic = automatic,
            Event::WordDone { volume } => {
                if let Some(place) = self.volumes.get_mut(&volume) {
                    place.told = false;
                    place.word_over = now;
                    place.facts = None;
                    let rest = WORD_RETRY * (1 << place.words.min(8));
                    place.rests_until = now + rest.min(WORD_RETRY_MAX);
                    place.words += 1;
                }
            }
            Event::Wished(wished) => self.wished(wished),
            Event::Services(services) => self.following.services = services,
            Event::Tick => {}
        }
        self.notice_a_cut();
        self.restore_the_lease();
        self.look(now, effects);
    }

    fn volume(
        &mut self,
        now: Instant,
        volume: VolumeId,
        facts: Option<VolumeFacts>,
        asked: Instant,
    ) {
        let Some(place) = self.volumes.get_mut(&volume) else {
            return;
        };
        place.looked = true;
        if asked < place.word_over {
            return;
        }
        let changing = facts.is_some_and(|facts| facts.changing);
        place.narrows &= place.told || changing;
        let stands = facts.map(|facts| (facts.standing, facts.view, facts.linked));
        let view = |stood: Option<(_, ViewMark, _)>| stood.map(|(_, view, _)| view);
        if view(stands) != view(place.stood) {
            self.change.inherit();
        }
        if stands != place.stood {
            place.words = 0;
            place.stood = stands;
        }
        place.notice_whether_apart(now, facts);
        if let Some(facts) = facts {
            place.known = Some((facts.alone, facts.linked, asked));
        }
        place.facts = facts;
        place.asked = asked;
    }

    fn facts(&self) -> impl Iterator<Item = (&VolumeId, Option<VolumeFacts>)> {
        self.volumes.iter().map(|(id, volume)| (id, volume.facts))
    }

    fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.unlinked_since = if self.linked() {
            None
        } else {
            self.unlinked_since.or(Some(now))
        };
        let idle = self.standing() == Standing::Unserved && self.unlinked_since.is_none();
        self.idle_since = if idle {
            self.idle_since.or(Some(now))
        } else {
            None
        };
        let volumes = &self.volumes;
        let settled = |id: VolumeId| {
            let volume = volumes.get(&id)?;
            let facts = volume
                .facts
                .filter(|facts| !facts.changing && !volume.told)?;
            Some(Held {
                view: facts.view,
                alone: facts.alone,
            })
        };
        let question = self.change.look_at(now, settled);
        effects.extend(question.map(Effect::Ask));
        effects.extend(self.change.tick(now).map(Effect::Ask));
        let inputs = self.inputs(now);
        let situation = inputs.situation();
        let (row, decision) = decide(&situation);
        self.remember(inputs, row, decision);
        if self.decided != Some((row, situation)) {
            self.decided = Some((row, situation));
            effects.push(Effect::Decided {
                row,
                situation,
                decision,
            });
        }
        self.follow_the_move(now, &situation, decision, effects);
        if situation.contact == Contact::Linked {
            self.while_linked(now, &situation, decision, effects);
        } else {
            self.act(now, &situation, decision, effects);
        }
    }

    /// The peer is there: nothing is decided alone, and what was granted and not used is given back.
    fn while_linked(
        &mut self,
        now: Instant,
        situation: &Situation,
        decision: Decision,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(decision, Decision::StepDown(_)) {
            return self.step_down(now, effects);
        }
        if self.busy() || !self.words_are_over(now) {
            let earlier = (now < self.began + WORD_LIFE).then_some(self.began + WORD_LIFE);
            if acts(decision) {
                let hold = earlier.map_or(Hold::Busy, Hold::EarlierWords);
                self.record.hold(hold);
            }
            return;
        }
        // A node whose copy alone counts keeps what it was granted, also beside a peer that is copied to: the other one
        // may hold a later view to which it agreed in vain.
        let facts = || self.volumes.values().map(|volume| volume.facts);
        let both = facts().all(|facts| facts.is_some_and(|facts| facts.linked && !facts.alone));
        if both && !mutant::is(Mutant::NeverReleased) {
            let view = |(id, volume): (&VolumeId, &Volume)| Some((*id, volume.facts?.view));
            let views: Vec<_> = self.volumes.iter().filter_map(view).collect();
            effects.extend(self.change.withdraw(now, views).map(Effect::Ask));
        }
        if matches!(decision, Decision::HandOver | Decision::Stop) {
            return self.release(now, effects);
        }
        // A group is served as a whole.
        let in_part = situation.standing == Standing::Serving && situation.automatic;
        if decision == Decision::Start || in_part {
            self.begin(now, effects);
        }
    }

    fn act(
        &mut self,
        now: Instant,
        situation: &Situation,
        decision: Decision,
        effects: &mut Vec<Effect>,
    ) {
        match decision {
            Decision::Rest | Decision::Wait(_) | Decision::HandOver | Decision::Stop => {}
            Decision::Claim
                if situation.standing == Standing::Standby
                    && mutant::is(Mutant::TakeoverWithoutClaim) =>
            {
                self.act_alone(now, Decision::TakeOver, effects);
            }
            Decision::Claim
                if situation.standing == Standing::Frozen
                    && mutant::is(Mutant::GoAloneWithoutClaim) =>
            {
                self.act_alone(now, Decision::GoAlone, effects);
            }
            Decision::Claim if self.busy() => self.record.hold(Hold::Busy),
            Decision::Claim => {
                let claims = self.claims(claimed(situation.standing == Standing::Frozen));
                effects.extend(self.change.ask(now, claims).map(Effect::Ask));
            }
            Decision::GoAlone | Decision::TakeOver => self.act_alone(now, decision, effects),
            Decision::Start => self.begin(now, effects),
            Decision::StepDown(Cause::Superseded) if mutant::is(Mutant::RefusedStays) => {}
            Decision::StepDown(_) => self.step_down(now, effects),
        }
    }
}
