//! What a decision was made of: written down when it is made, by the values that it is made from, and never worked out
//! afterwards. It has a fixed size: the row that rules, the one that ruled before, and the last one that did something.

use mirror_core::types::Instant;
use mirror_core::view::ViewMark;

use super::{ArbiterKind, Automatic, HANDICAP, LINK_GRACE, TURN_WAIT, Wished};
use crate::failure_detector::Presence;
use crate::mutant::{self, Mutant};
use crate::partition::{
    Arbiter, ClaimState, Contact, Decision, Missing, Service, Situation, Standing, Targets, Turn,
    Wanted,
};
use crate::view_change::Asked;

/// What a keeper knew at a moment; [`Inputs::situation`] is what the table decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// The moment.
    pub at: Instant,
    /// Who decides, as configured.
    pub kind: ArbiterKind,
    /// The volumes' standings as one.
    pub standing: Standing,
    /// Volumes of the group whose daemons have not told their ids.
    pub unknown: usize,
    /// How the peer is heard on the interconnects.
    pub peer: Presence,
    /// Since when.
    pub peer_since: Instant,
    /// Nothing is taken over before, and [`HANDICAP`] after it: the other node was promised that ([`crate::timeouts`]).
    pub not_before: Instant,
    /// Since when the peer is heard within the timeout as configured, of one that does not count as dead; `None`: only within a
    /// raised one ([`crate::timeouts`]).
    pub lately: Option<Instant>,
    /// Since when a volume is not linked that needs the peer, or may not be; `None`: all are linked.
    pub unlinked_since: Option<Instant>,
    /// How the claim stands.
    pub claim: ClaimState,
    /// When the arbiter was asked last, and what it answered.
    pub asked: Asked,
    /// Whether ping targets of the arbiter answer, and since when that is so; `None`: since this run began.
    pub arbiter_targets: (Targets, Option<Instant>),
    /// None of them answered while the peer was silent, and the peer was not heard since.
    pub cut_off: bool,
    /// The same of the clients' networks.
    pub clients: (Targets, Option<Instant>),
    /// Whether the group runs without an operator's word.
    pub automatic: Automatic,
    /// Whether the time of services lasts.
    pub service: Service,
    /// When it is over, unless somebody is heard.
    pub lease_until: Instant,
    /// Whether this node is the first to begin with what nobody serves; `None`: it waits for the other one.
    pub begins_first: Option<bool>,
    /// Since when nobody serves while both are linked.
    pub idle_since: Option<Instant>,
    /// What operators wish.
    pub wished: Wished,
    /// The same for this node, as its copies stand.
    pub wanted: Wanted,
    /// Whether the other node could serve the group: it lives, knows what is wished, and its copies count.
    pub other_ready: bool,
}

impl Inputs {
    /// What the table decides.
    pub fn situation(&self) -> Situation {
        Situation {
            standing: self.standing,
            contact: self.contact(),
            arbiter: match self.kind {
                ArbiterKind::Register => Arbiter::Register(self.claim),
                ArbiterKind::Ping if self.cut_off => Arbiter::Ping(Targets::Silent),
                ArbiterKind::Ping => Arbiter::Ping(self.arbiter_targets.0),
                ArbiterKind::Manual => Arbiter::Manual,
                ArbiterKind::Nobody => Arbiter::Nobody,
            },
            clients: self.clients.0,
            automatic: self.automatic == Automatic::Yes,
            service: self.service,
            turn: match (self.begins_first, self.idle_since) {
                (Some(true), _) => Turn::Ours,
                (Some(false), Some(since)) if self.at >= since + TURN_WAIT => Turn::Ours,
                (Some(false) | None, _) => Turn::Theirs,
            },
            wanted: self.wanted,
        }
    }

    /// When a dead peer is decided without. Who serves goes on as soon as it is dead: that takes nothing from the other node.
    fn dead_at(&self) -> Instant {
        match self.standing {
            _ if mutant::is(Mutant::HandicapIgnored) => self.peer_since,
            Standing::Standby | Standing::Unserved => {
                let promised = self.not_before;
                let promised = Some(promised).filter(|_| !mutant::is(Mutant::NotBeforeIgnored));
                self.peer_since.max(promised.unwrap_or_default()) + HANDICAP
            }
            Standing::Serving
            | Standing::Frozen
            | Standing::Booted
            | Standing::Alone
            | Standing::NotCurrent
            | Standing::Silent
            | Standing::Broken => self.peer_since,
        }
    }

    /// When the link has had its time to come back while heartbeats come. They have to: a peer that stands still brings back
    /// none, however long a raised timeout bears that.
    fn link_grace_ends(&self) -> Option<Instant> {
        let since = self.unlinked_since?;
        if mutant::is(Mutant::QuietIsHeard) {
            return Some(since + LINK_GRACE);
        }
        Some(since.max(self.lately?) + LINK_GRACE)
    }

    fn contact(&self) -> Contact {
        if self.unlinked_since.is_none() {
            return Contact::Linked;
        }
        let grace_ends = self.link_grace_ends();
        let standing = self.standing;
        match self.peer {
            Presence::Dead if mutant::is(Mutant::DeadNotNoticed) => Contact::Unsure,
            Presence::Dead if self.at >= self.dead_at() => Contact::Dead,
            Presence::Alive | Presence::Deaf if mutant::is(Mutant::HeartbeatsHoldFreeze) => {
                Contact::Unsure
            }
            Presence::Alive | Presence::Deaf
                if standing == Standing::Standby && mutant::is(Mutant::StandbyAsksBesideLiving) =>
            {
                Contact::Dead
            }
            Presence::Alive | Presence::Deaf if grace_ends.is_some_and(|end| self.at >= end) => {
                Contact::HeartbeatsOnly
            }
            Presence::Dead | Presence::Alive | Presence::Deaf | Presence::Unknown => {
                Contact::Unsure
            }
        }
    }

    /// When time alone ends this decision, if nothing else happens before.
    pub fn ends_at(&self, decision: Decision) -> Option<Instant> {
        let Decision::Wait(missing) = decision else {
            return None;
        };
        match missing {
            Missing::Time => match self.peer {
                Presence::Dead => Some(self.dead_at()),
                Presence::Alive | Presence::Deaf => self.link_grace_ends(),
                Presence::Unknown => None,
            },
            Missing::Turn if self.begins_first.is_some() => Some(self.idle_since? + TURN_WAIT),
            // Who serves does not wait for ever.
            Missing::Arbiter if self.standing == Standing::Frozen => Some(self.lease_until),
            Missing::Turn
            | Missing::Arbiter
            | Missing::DataPlane
            | Missing::CurrentCopy
            | Missing::Link
            | Missing::Peer
            | Missing::PeerOrOperator
            | Missing::Clients
            | Missing::Reach
            | Missing::Operator
            | Missing::GroupStart
            | Missing::NodeResume => None,
        }
    }
}

/// How a volume stood when something was decided, by its data plane's last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stood {
    /// When it was asked.
    pub asked: Instant,
    /// Its standing; `None`: it does not answer, or was just told something.
    pub standing: Option<Standing>,
    /// The view that it holds.
    pub view: Option<ViewMark>,
    /// Whether the mirror link is up.
    pub linked: bool,
    /// Whether this copy alone counts.
    pub alone: bool,
    /// Whether its view changes, or a word to it is being carried out.
    pub changing: bool,
}

/// A row of the table that rules or ruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The row, from 0.
    pub row: usize,
    /// What follows from it.
    pub decision: Decision,
    /// What was known when it began to rule.
    pub first: Inputs,
    /// What was known when it was last found to rule.
    pub last: Inputs,
    /// What kept what follows from being done then.
    pub held: Option<Hold>,
}

/// Why something that is decided is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Words of an earlier run of the daemon may still be carried out, until then.
    EarlierWords(Instant),
    /// A word to a volume is being carried out, or its view changes.
    Busy,
    /// A volume's daemon refused, and is told again then.
    Refused(Instant),
    /// The group's resources are not all stopped.
    Resources,
    /// The other node does not know durably what is wished, and would begin with the volumes.
    Untold,
}

/// Which of the rulings that are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The present one, as it is found now.
    Now,
    /// The one before it, when it began.
    Before,
    /// The last one that did something, when it began.
    Acted,
}

/// What a keeper remembers of its decisions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// What rules.
    pub present: Option<Ruling>,
    /// What ruled before.
    pub before: Option<Ruling>,
    /// What ruled when a word was said last: anything but resting, waiting and asking. It may be the present one.
    pub acted: Option<Ruling>,
}

impl Record {
    /// What was decided now, from these. Whether another row rules than before.
    pub(super) fn keep(&mut self, inputs: Inputs, row: usize, decision: Decision) -> bool {
        if let Some(present) = self.present.as_mut().filter(|present| present.row == row) {
            (present.last, present.held) = (inputs, None);
            return false;
        }
        self.before = self.present.replace(Ruling {
            row,
            decision,
            first: inputs,
            last: inputs,
            held: None,
        });
        true
    }

    /// What rules was carried out: a word was said for it. Whether it is one that does something.
    pub(super) fn done(&mut self) -> bool {
        let did = self.present.filter(|present| acts(present.decision));
        self.acted = did.or(self.acted);
        did.is_some()
    }

    pub(super) fn hold(&mut self, hold: Hold) {
        if let Some(present) = &mut self.present {
            present.held = Some(hold);
        }
    }
}

/// Whether something follows from it.
pub fn acts(decision: Decision) -> bool {
    match decision {
        Decision::Rest | Decision::Wait(_) | Decision::Claim => false,
        Decision::GoAlone
        | Decision::TakeOver
        | Decision::Start
        | Decision::StepDown(_)
        | Decision::HandOver
        | Decision::Stop => true,
    }
}
