//! What a keeper is told, and what it says.

use alloc::boxed::Box;
use core::time::Duration;

use mirror_core::types::{Epoch, Instant, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

use crate::failure_detector::Presence;
use crate::partition::{Decision, Situation, Standing, Targets};
use crate::register::Answer;
use crate::view_change::Question;
use crate::wish::{Origin, WishMark};

use super::{Automatic, Services, Wished};

/// Who decides, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArbiterKind {
    /// A witness or etcd.
    Register,
    /// Ping targets.
    Ping,
    /// An operator.
    Manual,
    /// Nobody.
    Nobody,
}

/// What a volume's data plane says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// How the copy here stands.
    pub standing: Standing,
    /// The view that it holds durably.
    pub view: ViewMark,
    /// The views before that one.
    pub history: ViewHistory,
    /// Above every epoch that it ever saw, proposals that came to nothing included.
    pub next_epoch: Epoch,
    /// Whether the mirror link is up.
    pub linked: bool,
    /// Whether this copy alone counts.
    pub alone: bool,
    /// Whether a change of its view is under way.
    pub changing: bool,
}

/// A word to a data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// On a serving node: drop the peer and go on (S2). With a register: the view that was granted.
    GoAlone {
        /// The view that it must hold.
        basis: ViewMark,
        /// The view to commit.
        next: ViewMark,
        /// The data plane refuses it from then on.
        until: Instant,
    },
    /// On a standby: seal, commit and serve (S3, S4).
    TakeOver {
        /// The view that it must hold.
        basis: ViewMark,
        /// The view to commit.
        next: ViewMark,
        /// The data plane refuses it from then on.
        until: Instant,
    },
    /// Serve: this copy alone counts, or the peer agrees.
    Start,
    /// Stop serving, and let what waits fail.
    StepDown,
    /// Stop serving in good order: both copies are equal then, and nothing fails.
    Release,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A data plane's present state; `None`: it does not answer.
    Volume {
        /// Which volume.
        volume: VolumeId,
        /// Its state.
        facts: Option<Box<VolumeFacts>>,
        /// When it was asked. What it said before the last word was over is not what it is now.
        asked: Instant,
    },
    /// What is known of the peer.
    Peer(Presence),
    /// The arbiter answered a claim.
    Answered {
        /// The question's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// The arbiter confirmed a release.
    GivenBack {
        /// The question's number.
        number: u64,
    },
    /// Whether ping targets answer: those of the arbiter `ping`, and those that a takeover needs.
    Targets {
        /// Of the arbiter.
        arbiter: Targets,
        /// Of the clients' networks.
        clients: Targets,
    },
    /// The peer confirmed on an interconnect what this node sent then ([`crate::self_fencing::ServiceLease::confirmed`]).
    Confirmed {
        /// When it was sent.
        sent: Instant,
        /// How often the confirmations had a gap.
        gaps: u64,
    },
    /// The peer answered on the mirror link what this node sent then.
    LinkHeard {
        /// When it was sent.
        at: Instant,
    },
    /// The peer promised to wait longer when it had what this node sent then ([`crate::self_fencing::ServiceLease::raise`]); after [`Self::Confirmed`].
    Raised {
        /// When it was sent.
        sent: Instant,
        /// How long the lease is by that.
        lease: Duration,
    },
    /// Nothing is taken over before: the other node was promised that. [`HANDICAP`](super::HANDICAP) comes after it.
    NotBefore(Instant),
    /// Whether the peer, which does not count as dead, is silent for the timeout as configured: it may stand still, and its link with
    /// it ([`crate::timeouts`]).
    Quiet(bool),
    /// The arbiter answered something, or a ping target of the arbiter `ping` did.
    Contact {
        /// When it was asked.
        asked: Instant,
    },
    /// Whether the group shall run without an operator's word.
    Automatic(Automatic),
    /// A data plane carried a word out, or refused it.
    WordDone {
        /// Which volume.
        volume: VolumeId,
    },
    /// What operators wish, or what the other node knows of it.
    Wished(Wished),
    /// How the group's resources stand here ([`Services::of`]); before what is wished, if both changed.
    Services(Services),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the arbiter.
    Ask(Question),
    /// Say this to a data plane; [`Event::WordDone`] comes back.
    Say {
        /// Which volume.
        volume: VolumeId,
        /// What.
        word: Word,
    },
    /// The move that this wish asked for arrived, or came to nothing: from now on the group runs, and this node begins.
    Settle {
        /// The wish, unless there is a newer one.
        mark: WishMark,
        /// What came of it.
        origin: Origin,
    },
    /// Another decision than before, with its situation: for the status and for `why`.
    Decided {
        /// The row of the table.
        row: usize,
        /// What it saw.
        situation: Situation,
        /// What follows.
        decision: Decision,
    },
}
