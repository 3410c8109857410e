//! A group failed here: whether it moves to the other node by itself, row by row, and what both nodes remember of it.
//!
//! The move is one like an operator's ([`crate::wish`]): in good order, and only to a node that can have it. What bounds
//! it is remembered durably on both nodes: a node on which the group failed is not moved to by the other one before it was
//! cleared, or ran there; one on which only a monitor failed is not because of monitors. Each node speaks for itself alone, and never in the place of what an operator said. So a fault that follows the group from node to node costs one move, and no more. Beside that
//! each node has its budget ([`crate::group::Group::moves_left`]).

use core::fmt;
use core::time::Duration;

use mirror_core::types::Instant;

use crate::keeper::Desire;
use crate::limits::MOVE_WAIT;
use crate::wish::{Failure, Want};

/// The other node is ready for so long before a group that runs is stopped to go there.
pub const READY_FOR: Duration = Duration::from_secs(2);

/// What was configured to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It moves to the other node.
    Failover,
    /// It waits for an operator.
    Wait,
}

/// How a group is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// All of it runs.
    Runs,
    /// A resource did not start or did not stay, and nothing of the group is left.
    Failed,
    /// The same, because of what is on a volume: the other node would find it as it is here.
    Alike,
    /// It waits to be cleared for another reason, or something of it is left.
    Waits,
    /// None of these.
    Else,
}

/// The other node, as one to which a group may move by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It can have the group.
    Ready,
    /// Its control plane or a mirror link is not heard.
    Silent,
    /// It does not know all that is wished, or this node does not.
    Untold,
    /// An operator suspended it.
    Suspended,
    /// A copy there does not count.
    NotCurrent,
}

/// Where the volumes are served, and how the other node is, as a keeper sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// All volumes of the group are served here, with the other node if it counts.
    pub served: bool,
    /// What is wished of the group.
    pub desire: Desire,
    /// The other node.
    pub other: Other,
}

/// What is known of a group that may have failed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How it is here.
    pub here: Here,
    /// That it failed here is a monitor's word alone: it may run here.
    pub monitor: bool,
    /// Since when.
    pub since: Instant,
    /// What was configured to follow.
    pub on_failure: OnFailure,
    /// A move is begun so long after the failure at most.
    pub within: Duration,
    /// One more move is within the budget.
    pub moves_left: bool,
    /// Nothing that is wished of the group or known of its failures is on its way to the disk.
    pub durable: bool,
    /// This node's wish that it moves is on its way to the disk.
    pub moving: bool,
    /// It failed here: durable on this node.
    pub recorded: bool,
    /// On the other node: durable on this node.
    pub there: Failure,
    /// The other node knows at this moment all that this one does.
    pub agreed: bool,
    /// What the keeper sees.
    pub around: Around,
}

/// How a group that may have failed here stands. The first one that fits rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// It has not failed here, or something of it is left.
    NotFailed,
    /// Its volumes are not all served here.
    Unserved,
    /// It failed because of what is on a volume.
    Alike,
    /// `on_failure = "wait"`.
    Configured,
    /// An operator stopped it or moves it, or it moves already.
    Wished,
    /// It failed on the other node as well: a monitor alone bars only what a monitor fails.
    FailedThere,
    /// As many moves as are allowed were made.
    Spent,
    /// It failed too long ago.
    Late,
    /// That it failed is not durable yet.
    Unrecorded,
    /// The other node is not heard.
    Silent,
    /// The other node is suspended.
    Suspended,
    /// A copy of the other node does not count.
    NotCurrent,
    /// Both nodes do not know the same yet.
    Untold,
    /// The other node is ready.
    Ready,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// It stays, and waits to be cleared.
    Stays,
    /// It waits, and moves when that is over.
    Later,
    /// It moves to the other node.
    Moves,
}

/// Does a group move by itself? Row by row.
pub const FAILED: [(Case, Then); 14] = [
    (Case::NotFailed, Then::Nothing),
    (Case::Unserved, Then::Nothing),
    (Case::Alike, Then::Stays),
    (Case::Configured, Then::Stays),
    (Case::Wished, Then::Nothing),
    (Case::FailedThere, Then::Stays),
    (Case::Spent, Then::Stays),
    (Case::Late, Then::Stays),
    (Case::Unrecorded, Then::Later),
    (Case::Silent, Then::Later),
    (Case::Suspended, Then::Later),
    (Case::NotCurrent, Then::Later),
    (Case::Untold, Then::Later),
    (Case::Ready, Then::Moves),
];

impl Case {
    fn fits(self, now: Instant, seen: &Seen) -> bool {
        let Around {
            served,
            desire,
            other,
        } = seen.around;
        match self {
            Self::NotFailed => !matches!(seen.here, Here::Failed | Here::Alike),
            Self::Alike => seen.here == Here::Alike,
            Self::Configured => seen.on_failure == OnFailure::Wait,
            Self::Wished => !matches!(desire, Desire::Runs(_)) || seen.moving,
            Self::FailedThere => match seen.there {
                Failure::Stands => true,
                Failure::Monitor => seen.monitor,
                Failure::None | Failure::Forgotten => false,
            },
            Self::Spent => !seen.moves_left,
            Self::Late => now >= seen.since + seen.within,
            Self::Unserved => !served,
            Self::Unrecorded => !seen.durable || !seen.recorded,
            Self::Silent => other == Other::Silent,
            Self::Suspended => other == Other::Suspended,
            Self::NotCurrent => other == Other::NotCurrent,
            Self::Untold => {
                other == Other::Untold || !seen.agreed || seen.there == Failure::Forgotten
            }
            Self::Ready => other == Other::Ready,
        }
    }
}

/// The row of [`FAILED`] that rules.
pub fn after_failure(now: Instant, seen: &Seen) -> (Case, Then) {
    let found = FAILED.iter().find(|(case, _)| case.fits(now, seen));
    found
        .copied()
        .expect("the other node is ready or is not, for a reason that has a row")
}

/// A monitor failed while all of the group runs here: what would follow now if the group had failed. It is stopped only if that
/// is a move, and has been for [`READY_FOR`]: a group that runs here is better than one that runs nowhere, whatever a monitor
/// says.
pub fn after_monitor(now: Instant, seen: &Seen) -> (Case, Then) {
    let seen = Seen {
        here: Here::Failed,
        monitor: true,
        since: now,
        recorded: true,
        ..*seen
    };
    after_failure(now, &seen)
}

/// How long the other node has not been ready for a group that was stopped because of a monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// That follows now, as each turn says. Whether the group runs here again: it stays anyway, or the other node has not been
    /// ready for so long, without a break. One that moves, or is about to, waits for what comes of that.
    pub fn runs_on(&mut self, now: Instant, then: Then) -> bool {
        match then {
            Then::Stays => true,
            Then::Later => now >= *self.since.get_or_insert(now) + MOVE_WAIT,
            Then::Nothing | Then::Moves => {
                self.since = None;
                false
            }
        }
    }
}

/// What this node shall say now of a group's failure on it, if that is otherwise than what it said last (`said`). `clears`: an
/// operator wished that it is forgotten, and that is not carried out here yet; it is said before it is carried out.
pub fn to_record(said: Option<Want>, here: Here, clears: bool) -> Option<Want> {
    let failed = said == Some(Want::Failed);
    match here {
        _ if clears => failed.then_some(Want::Mended),
        Here::Runs => failed.then_some(Want::Mended),
        Here::Failed | Here::Alike | Here::Waits => (!failed).then_some(Want::Failed),
        Here::Else => None,
    }
}

/// What this node shall say now of why a group failed on it (`said`: what it said), if that is otherwise: whether only a monitor
/// failed. What does not wait here any more, or waits for another reason, is no monitor's.
pub fn reason_to_record(said: Failure, here: Here, monitor: bool) -> Option<bool> {
    let monitor = monitor && here == Here::Failed;
    let other = match said {
        Failure::Stands => monitor,
        Failure::Monitor => !monitor && matches!(here, Here::Failed | Here::Alike | Here::Waits),
        Failure::None | Failure::Forgotten => false,
    };
    other.then_some(monitor)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFailed => "it has not failed here, or something of it is left",
            Self::Alike => "what is on a volume keeps it from starting, on both nodes alike",
            Self::Configured => "`on_failure = \"wait\"`",
            Self::Wished => "an operator stopped it, or it is on its way",
            Self::FailedThere => "it failed on the other node as well",
            Self::Spent => "it failed over as often as `failovers_max` allows",
            Self::Late => "it failed `failovers_within_ms` ago",
            Self::Unserved => "its volumes are not all served here",
            Self::Unrecorded => "that it failed here is not durable yet",
            Self::Silent => "the other node or a mirror link is not heard",
            Self::Suspended => "the other node is suspended",
            Self::NotCurrent => "a copy of the other node does not count",
            Self::Untold => "the other node does not know that yet",
            Self::Ready => "the other node is ready",
        })
    }
}

impl fmt::Display for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Stays => "it stays, and waits to be cleared",
            Self::Later => "it moves when that is over",
            Self::Moves => "it moves to the other node",
        })
    }
}

#[cfg(test)]
mod tests;
