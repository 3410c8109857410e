//! Timeouts that an operator raises for a while: by how much, for how long, and in which order two nodes follow.
//!
//! A node's services go on for its *lease* without the other one, and the other one *waits* before it takes over. The first
//! must never be longer than the second. So there is one rule, and nothing that both would have to agree on:
//!
//! * A heartbeat that says "I wait F times as long" is a promise ([`Pledge`]): whoever sends it waits so long from then on, and
//!   after the last one for as long as a takeover by it takes ([`Span::kept`]), over restarts and reboots. It is durable before it is said.
//! * A heartbeat of the other node that says so, and confirms something that this node sent, lengthens this node's lease, from when
//!   that was sent ([`Raised`]). Nothing else does, so a lease gets shorter by itself.
//!
//! What operators want, and until when, is beside that ([`Window`]): when nodes disagree about it, or one knows nothing, each is
//! as careful as what it said, and as short-lived as what it heard.

use core::fmt;
use core::time::Duration;

use mirror_core::types::NodeId;

use crate::keeper::HANDICAP;
use crate::mutant::{self, Mutant};
use crate::self_fencing::{DRIFT_DIVISOR, Leases, grace};

mod pledge;
mod window;

pub use pledge::{Pledge, Raised};
pub use window::{Allowance, Effect, Ends, Kept, Window};

/// A timeout that was raised is no longer than this: a server that dies is not noticed before.
pub const RAISED_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Timeouts are raised for no shorter time.
pub const LASTS_MIN: Duration = Duration::from_secs(60);
/// Nor for a longer one.
pub const LASTS_MAX: Duration = Duration::from_secs(24 * 3600);

/// How many times as long, in tenths: 1.0 to 20.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u8);

impl Factor {
    /// As configured.
    pub const ONE: Self = Self(10);
    /// The largest one.
    pub const MAX: Self = Self(200);

    /// Of so many tenths, 10 to 200.
    pub fn of_tenths(tenths: u8) -> Option<Self> {
        let range = Self::ONE.0..=Self::MAX.0;
        range.contains(&tenths).then_some(Self(tenths))
    }

    /// 10 to 200.
    pub fn tenths(self) -> u8 {
        self.0
    }

    /// Whether it makes anything longer.
    pub fn raises(self) -> bool {
        self > Self::ONE
    }

    /// So many times as long, and no longer than [`RAISED_TIMEOUT_MAX`], unless it is so as configured: what an operator said goes
    /// on beside another configuration, and what nobody knows counts as the largest factor.
    #[must_use]
    pub fn times(self, time: Duration) -> Duration {
        self.of(time).min(RAISED_TIMEOUT_MAX.max(time))
    }

    /// So many times as long.
    fn of(self, time: Duration) -> Duration {
        time * u32::from(self.0) / 10
    }

    /// Whether a timeout may be raised so many times.
    pub fn fits(self, timeout: Duration) -> bool {
        self.of(timeout) <= RAISED_TIMEOUT_MAX
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenths) => write!(f, "{whole}.{tenths}"),
        }
    }
}

/// What was said last about timeouts: of two the one with the higher number rules, then the one of the second node, then the
/// one that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Above every number that its node knew; from 1.
    pub number: u64,
    /// The node on which it was said.
    pub by: NodeId,
    /// How many times as long; 1 takes back what was said before.
    pub factor: Factor,
    /// For how long, in whole seconds: [`LASTS_MIN`] to [`LASTS_MAX`].
    pub lasts: Duration,
    /// Why it counts no more, although it is the last one.
    pub over: Option<Over>,
}

impl Word {
    /// Whether it rules over another one.
    pub fn beats(&self, other: &Self) -> bool {
        let rank = |word: &Self| {
            let over = match word.over {
                None => 0,
                Some(Over::Time) => 1,
                Some(Over::Reboot) => 2,
            };
            (word.number, word.by, over)
        };
        rank(self) > rank(other)
    }

    /// Whether it raises timeouts, unless its time is over.
    pub fn raises(&self) -> bool {
        self.factor.raises() && self.over.is_none()
    }
}

/// Why a word counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It was said for so long.
    Time,
    /// A node that followed it booted anew, and cannot tell how much is left.
    Reboot,
}

/// What a heartbeat says about timeouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The promise: how many times as long the sender waits. `None`: a release that knows nothing of this, and waits as configured.
    pub waits: Option<Factor>,
    /// How many times as long the sender's lease is; for people.
    pub lease: Option<Factor>,
    /// What was said last, durable at the sender; not in each heartbeat.
    pub word: Option<Word>,
}

/// The times of a node, as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// It counts the other node as dead after this silence.
    pub timeout: Duration,
    /// Its lease lasts so long: not above the timeout.
    pub lease: Duration,
    /// Whether its arbiter lets another node take over by itself.
    pub leases: Leases,
    /// The longest takeover wait of any of its groups ([`crate::self_fencing::takeover_wait`]).
    pub takeover_wait: Duration,
}

fn with_drift(time: Duration) -> Duration {
    time + time / DRIFT_DIVISOR
}

impl Span {
    /// By how much longer than configured services wait after a takeover.
    pub fn stretch(&self, factor: Factor) -> Duration {
        if mutant::is(Mutant::StretchForgotten) {
            return Duration::ZERO;
        }
        let raised = grace(factor.times(self.timeout));
        let more = raised.saturating_sub(grace(self.timeout));
        match self.leases {
            Leases::Kept => with_drift(more),
            Leases::None => Duration::ZERO,
        }
    }

    /// After this silence the other node may be taken over from. Nothing beyond the failure detector's word as configured.
    pub fn silence(&self, factor: Factor) -> Duration {
        if factor.raises() && !mutant::is(Mutant::TakeoverByOwnLease) {
            with_drift(factor.times(self.timeout))
        } else {
            Duration::ZERO
        }
    }

    /// So long a promise is kept after it was said last: as long as a takeover takes from then on.
    pub fn kept(&self, factor: Factor) -> Duration {
        if !factor.raises() || mutant::is(Mutant::PromiseNotKept) {
            return Duration::ZERO;
        }
        let wait = self.takeover_wait + self.stretch(factor);
        with_drift(factor.times(self.timeout) + HANDICAP + wait)
    }
}

/// Where a node stands between the timeouts as configured and raised ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was raised, or all of that is over.
    AsConfigured,
    /// Raised here, and the other node does not say that it waits so long.
    Raising,
    /// Raised here, and the other node says the same.
    Raised,
    /// Raised here no more, and the other node may still go by what this one said last.
    Lowering,
}

/// A time, as configured or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As configured.
    Plain,
    /// So many times as long.
    Long,
}

/// What a node does in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// What its heartbeats promise.
    pub says: Length,
    /// How long it waits before it takes over.
    pub waits: Length,
    /// The lease that the next confirmation of the other node gives it.
    pub lease: Length,
}

const fn conduct(says: Length, waits: Length, lease: Length) -> Conduct {
    Conduct { says, waits, lease }
}

/// What a node does, stage by stage.
pub const STAGES: [(Stage, Conduct); 4] = [
    (
        Stage::AsConfigured,
        conduct(Length::Plain, Length::Plain, Length::Plain),
    ),
    (
        Stage::Raising,
        conduct(Length::Long, Length::Long, Length::Plain),
    ),
    (
        Stage::Raised,
        conduct(Length::Long, Length::Long, Length::Long),
    ),
    (
        Stage::Lowering,
        conduct(Length::Plain, Length::Long, Length::Plain),
    ),
];

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsConfigured => {
                "nothing is raised, and nothing that this node said is left to be kept"
            }
            Self::Raising => "raised here; the other node does not say that it waits so long",
            Self::Raised => "raised here, and the other node says that it waits so long",
            Self::Lowering => {
                "raised here no more; the other node may go by what this one said last"
            }
        })
    }
}

/// The stage of a node that raises by `wanted`, waits by `waits`, and whose last confirmation gave it a lease by `lease`.
pub fn stage(wanted: Factor, waits: Factor, lease: Factor) -> Stage {
    if wanted.raises() {
        if lease >= wanted {
            Stage::Raised
        } else {
            Stage::Raising
        }
    } else if waits.raises() {
        Stage::Lowering
    } else {
        Stage::AsConfigured
    }
}

/// The conduct of [`STAGES`].
pub fn conduct_of(stage: Stage) -> Conduct {
    let found = STAGES.iter().find(|(row, _)| *row == stage);
    found.map_or(
        conduct(Length::Plain, Length::Long, Length::Plain),
        |(_, conduct)| *conduct,
    )
}

#[cfg(test)]
mod tests;
