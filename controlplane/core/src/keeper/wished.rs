//! What operators wish, and what a keeper makes of it: a group is handed over, stopped, or not taken over.
//!
//! A move has two sides. The node that serves the group stops its resources, then its volumes, once the other node is
//! ready and knows the wish; then it is the other node's turn. Who runs the group where it shall run says that it has
//! arrived. If the giving side does not get on, or the other one does not begin, the giving side says so after
//! [`MOVE_WAIT`], and the group stays, or goes back.

use alloc::vec::Vec;

use mirror_core::types::{Instant, NodeId};

use super::why::Hold;
use super::{Effect, Keeper, Word};
use crate::failure_detector::Presence;
use crate::group::GroupState;
use crate::limits::MOVE_WAIT;
use crate::mutant::{self, Mutant};
use crate::partition::{Decision, Situation, Standing, Wanted};
use crate::wish::{Origin, Subject, Want, Why, WishMark, Wishes};

/// Whether a group starts and moves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Automatic {
    /// It does.
    Yes,
    /// An operator starts and moves it.
    No,
}

/// One of both nodes, from this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Own,
    /// The other one.
    Other,
}

/// What is wished of a group, from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desire {
    /// It runs; where nobody serves it, that node begins.
    Runs(Option<Side>),
    /// It runs nowhere.
    Stopped,
    /// It shall run there.
    Moves(Side),
}

/// What operators wish, as far as it is durable here, and how far the other node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wished {
    /// Which wish about the group.
    pub mark: Option<WishMark>,
    /// What it is.
    pub desire: Desire,
    /// This node takes nothing over.
    pub suspended: bool,
    /// The other one does not.
    pub other_suspended: bool,
    /// The other node knows the same wishes, and all of them are durable on both.
    pub agreed: bool,
}

impl Default for Wished {
    fn default() -> Self {
        Self {
            mark: None,
            desire: Desire::Runs(None),
            suspended: false,
            other_suspended: false,
            agreed: false,
        }
    }
}

impl Wished {
    /// What is wished of a group, as this node sees it. `agreed`: see [`Self::agreed`].
    pub fn of(wishes: &Wishes, group: Subject, me: NodeId, peer: NodeId, agreed: bool) -> Self {
        let side = |node: NodeId| {
            if node == me { Side::Own } else { Side::Other }
        };
        let wish = wishes.of(group);
        let desire = match wish.map(|wish| wish.want) {
            Some(Want::Runs { home }) => Desire::Runs(home.map(side)),
            Some(Want::Stopped { .. }) => Desire::Stopped,
            Some(Want::Moves { to }) => Desire::Moves(side(to)),
            Some(
                Want::Forgotten | Want::Failed | Want::Mended | Want::Suspended | Want::Resumed,
            )
            | None => Desire::Runs(None),
        };
        Self {
            mark: wish.map(|wish| wish.mark()),
            desire,
            suspended: wishes.is_suspended(me),
            other_suspended: wishes.is_suspended(peer),
            agreed,
        }
    }
}

/// How the group's resources stand on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Services {
    /// Something may run, or is about to.
    #[default]
    There,
    /// All run, or there are none.
    Online,
    /// They do not start here.
    StartFailed,
    /// They were told to stop, and nothing is left.
    Gone,
    /// They were told to stop, and one did not.
    StopFailed,
}

impl Services {
    /// Of a group on this node. `stops`: [`Keeper::stops_services`], and the group knows it.
    pub fn of(state: GroupState, released: bool, stops: bool) -> Self {
        match state {
            GroupState::StopFailed => Self::StopFailed,
            _ if stops => {
                if released {
                    Self::Gone
                } else {
                    Self::There
                }
            }
            GroupState::Online => Self::Online,
            GroupState::StartFailed | GroupState::Failed => Self::StartFailed,
            GroupState::Unknown
            | GroupState::Offline
            | GroupState::Starting { .. }
            | GroupState::Stopping => Self::There,
        }
    }

    /// Of a group that has no resources.
    pub fn of_none(stops: bool) -> Self {
        if stops { Self::Gone } else { Self::Online }
    }
}

/// What a keeper remembers of a wish.
#[derive(Debug, Default)]
pub(super) struct Following {
    pub(super) wished: Wished,
    pub(super) services: Services,
    /// The last wish about the group of which the other node's control plane was known to know it durably.
    agreed: Option<WishMark>,
    /// The services stop here for the sake of the other node.
    hands_over: bool,
    /// Since when a move from here does not get on.
    stalled_since: Option<Instant>,
    /// What came of it was said.
    settled: bool,
}

impl Keeper {
    /// Whether the group's resources shall stop here, in good order.
    pub fn stops_services(&self) -> bool {
        self.following.wished.desire == Desire::Stopped || self.following.hands_over
    }

    pub(super) fn wished(&mut self, wished: Wished) {
        let following = &mut self.following;
        if wished.mark != following.wished.mark {
            (following.settled, following.stalled_since) = (false, None);
            // Whose turn it is begins anew.
            self.idle_since = None;
        }
        if wished.agreed {
            following.agreed = wished.mark;
        }
        following.wished = wished;
    }

    /// Whether the other node knows durably what is wished of the group, or something later. What is wished of other
    /// groups meanwhile changes nothing of that.
    fn is_agreed(&self) -> bool {
        let following = &self.following;
        following.wished.mark.is_some() && following.agreed == following.wished.mark
    }

    pub(super) fn move_deadline(&self) -> Option<Instant> {
        Some(self.following.stalled_since? + MOVE_WAIT)
    }

    /// Whether the other node could serve the group: it lives, knows of it, and its copies count.
    pub(super) fn is_other_ready(&self) -> bool {
        let wished = &self.following.wished;
        let counts = |facts: super::VolumeFacts| facts.linked && !facts.alone;
        // Of a volume that was just told something nobody knows for a moment.
        let mut known = self.facts().filter_map(|(_, facts)| facts);
        let ready = self.peer == Presence::Alive
            && self.is_agreed()
            && !wished.other_suspended
            && self.unknown == 0
            && known.all(counts);
        ready || mutant::is(Mutant::MovesToTheAbsent)
    }

    pub(super) fn wanted(&self, standing: Standing) -> Wanted {
        let wished = &self.following.wished;
        let serves = standing == Standing::Serving;
        match wished.desire {
            Desire::Stopped if !serves && mutant::is(Mutant::StoppedFailsOver) => Wanted::Runs,
            Desire::Stopped => Wanted::Nowhere,
            Desire::Moves(Side::Other) if serves && self.is_other_ready() => Wanted::There,
            Desire::Runs(_) | Desire::Moves(_) if wished.suspended => {
                if mutant::is(Mutant::SuspendedTakesOver) {
                    Wanted::Runs
                } else {
                    Wanted::NotHere
                }
            }
            Desire::Runs(_) | Desire::Moves(_) => Wanted::Runs,
        }
    }

    /// Whether this node is the first to begin with what nobody serves; `None`: it waits for the other one in any case.
    pub(super) fn begins_first(&self) -> Option<bool> {
        let wished = &self.following.wished;
        match wished.desire {
            Desire::Moves(Side::Other) if mutant::is(Mutant::GiverBegins) => Some(true),
            Desire::Moves(Side::Other) => None,
            Desire::Moves(Side::Own) | Desire::Runs(Some(Side::Own)) => Some(true),
            Desire::Runs(_) if wished.other_suspended => Some(true),
            Desire::Runs(Some(Side::Other)) => Some(false),
            Desire::Runs(None) | Desire::Stopped => Some(self.preferred),
        }
    }

    /// A move arrives, or does not get on.
    pub(super) fn follow_the_move(
        &mut self,
        now: Instant,
        situation: &Situation,
        decision: Decision,
        effects: &mut Vec<Effect>,
    ) {
        let standing = situation.standing;
        if standing != Standing::Silent {
            self.following.hands_over = decision == Decision::HandOver;
        }
        let settled = match self.following.wished.desire {
            Desire::Moves(Side::Own) => self.arrived(),
            Desire::Moves(Side::Other) => self.in_vain(now, standing, decision).map(Origin::InVain),
            Desire::Runs(_) | Desire::Stopped => {
                self.following.stalled_since = None;
                None
            }
        };
        if let (Some(origin), Some(mark), false) =
            (settled, self.following.wished.mark, self.following.settled)
        {
            self.following.settled = true;
            effects.push(Effect::Settle { mark, origin });
        }
    }

    /// The taking side: whether everything runs here, or never will.
    fn arrived(&self) -> Option<Origin> {
        let serves = |facts: super::VolumeFacts| facts.standing == Standing::Serving;
        let all = self.unknown == 0 && self.facts().all(|(_, facts)| facts.is_some_and(serves));
        match self.following.services {
            Services::Online if all => Some(Origin::Arrived),
            Services::StartFailed | Services::StopFailed if all => {
                Some(Origin::InVain(Why::StartFailed))
            }
            Services::Online
            | Services::StartFailed
            | Services::StopFailed
            | Services::There
            | Services::Gone => None,
        }
    }

    /// The giving side: why the move came to nothing.
    fn in_vain(&mut self, now: Instant, standing: Standing, decision: Decision) -> Option<Why> {
        let gives = decision == Decision::HandOver;
        let following = &mut self.following;
        if gives && following.services == Services::StopFailed {
            return Some(Why::StopFailed);
        }
        // The resources have limits of their own.
        let stops = gives && following.services != Services::Gone;
        if stops || standing == Standing::Standby {
            following.stalled_since = None;
            return None;
        }
        let since = *following.stalled_since.get_or_insert(now);
        if now < since + MOVE_WAIT || mutant::is(Mutant::MoveNeverEnds) {
            return None;
        }
        Some(match standing {
            Standing::Serving if gives => Why::InUse,
            Standing::Unserved | Standing::Alone => Why::NotBegun,
            Standing::Serving
            | Standing::Frozen
            | Standing::Standby
            | Standing::Booted
            | Standing::NotCurrent
            | Standing::Silent
            | Standing::Broken => Why::NotReady,
        })
    }

    /// Nothing of the group runs here any more: its volumes go, in good order. Another node that does not know what is
    /// wished would begin with them.
    pub(super) fn release(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let alone =
            |(_, facts): (_, Option<super::VolumeFacts>)| facts.is_some_and(|facts| facts.alone);
        let nobody_else = self.facts().all(alone);
        let known = self.is_agreed() || nobody_else || mutant::is(Mutant::StopUntold);
        if self.following.services != Services::Gone {
            self.record.hold(Hold::Resources);
        } else if known {
            self.say_to(now, Standing::Serving, Word::Release, effects);
        } else {
            self.record.hold(Hold::Untold);
        }
    }
}
