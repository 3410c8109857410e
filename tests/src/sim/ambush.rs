//! Trouble that waits for a moment: it comes right after something that is hard to meet by chance.

use mirror_core::admin::Notice;
use mirror_core::disk::Superblock;
use mirror_core::effect::{DeviceCommand, Effect};
use mirror_core::event::IoOwner;
use mirror_core::wire::{Frame, FrameKind, Propose, Purpose};

use super::faults::{Kind, Trouble};
use super::rng::Rng;
use super::world::{Happening, World};

/// Troubles that may wait at the same time.
const ARMED_MAX: usize = 8;
/// The id of the flush that the peer is asked for when a service ends.
const LAST_FLUSH: u64 = u64::MAX - 2;

/// Something that a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Asks to be dropped.
    Leaves,
    /// Tells what its copy is.
    Tells,
    /// Has a view on disk that the other proposed.
    Agrees,
    /// Proposes a view.
    Proposes,
    /// Proposes the view in which the target counts, and serves.
    Widens,
    /// Writes another view down.
    Decides,
    /// Flushes for a change of view.
    Flushes,
    /// Starts a live device.
    Starts,
    /// Serves.
    Serves,
    /// Asks the peer for the last flush of a service.
    Ends,
    /// Does not serve any more.
    Ended,
    /// Writes down that writes are being thrown away.
    Aborts,
    /// That is durable.
    Aborted,
    /// Writes a page of the bitmap.
    Pages,
    /// An extent leaves its activity log.
    Evicts,
    /// Agreed with the peer on a view.
    Links,
    /// Is the source of a resync that begins.
    Copies,
    /// Both copies count after a resync.
    Joins,
    /// Freezes writes.
    Freezes,
    /// Serves, and everything is as it should be.
    Calm,
    /// Asks for a comparison of both copies.
    Compares,
    /// Asks for what its own disk cannot read.
    Heals,
    /// Its disk counts as failed.
    Fails,
}

impl Moment {
    const ALL: [Self; 20] = [
        Self::Leaves,
        Self::Tells,
        Self::Agrees,
        Self::Proposes,
        Self::Widens,
        Self::Decides,
        Self::Flushes,
        Self::Starts,
        Self::Serves,
        Self::Ends,
        Self::Ended,
        Self::Aborts,
        Self::Aborted,
        Self::Pages,
        Self::Evicts,
        Self::Links,
        Self::Copies,
        Self::Joins,
        Self::Freezes,
        Self::Calm,
    ];
}

/// Whom the trouble concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The node that did it.
    Own,
    /// The other one.
    Other,
}

/// A trouble that waits for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// What springs it.
    pub moment: Moment,
    /// What happens then.
    pub kind: Kind,
    /// To whom.
    pub whom: Whom,
    /// So long after the moment.
    pub micros: (u64, u64),
    /// What waits from then on.
    pub next: Option<&'static Trap>,
}

impl Trap {
    /// Nothing follows.
    pub const fn new(moment: Moment, kind: Kind, whom: Whom, micros: (u64, u64)) -> Self {
        Self {
            moment,
            kind,
            whom,
            micros,
            next: None,
        }
    }

    /// This waits as soon as the first one has sprung.
    pub const fn then(self, next: &'static Self) -> Self {
        Self {
            next: Some(next),
            ..self
        }
    }

    /// Any trouble at any moment.
    pub fn any(dice: &mut Rng) -> Self {
        const KINDS: [Kind; 7] = [
            Kind::Break,
            Kind::Break,
            Kind::Kill,
            Kind::PowerCut,
            Kind::OneWay,
            Kind::ForceDeactivate,
            Kind::BothPowerCut,
        ];
        let longest = [200, 3000, 20_000, 150_000][dice.index(4)];
        Self {
            moment: Moment::ALL[dice.index(Moment::ALL.len())],
            kind: KINDS[dice.index(KINDS.len())],
            whom: [Whom::Own, Whom::Other][dice.index(2)],
            micros: (0, longest),
            next: None,
        }
    }
}

/// What a frame with its body is a moment of.
fn sends(frame: &Frame, body: &[u8]) -> Option<Moment> {
    if frame.kind == FrameKind::Leave {
        Some(Moment::Leaves)
    } else if frame.kind == FrameKind::VerifyHash {
        Some(Moment::Compares)
    } else if frame.kind == FrameKind::Read {
        Some(Moment::Heals)
    } else if frame.kind == FrameKind::State {
        Some(Moment::Tells)
    } else if frame.kind == FrameKind::Accept {
        Some(Moment::Agrees)
    } else if frame.kind == FrameKind::Flush && frame.id == LAST_FLUSH {
        Some(Moment::Ends)
    } else if frame.kind == FrameKind::Propose {
        let widens = Propose::decode(body)
            .is_ok_and(|it| it.purpose == Purpose::Widen && it.view.active.is_some());
        Some(if widens {
            Moment::Widens
        } else {
            Moment::Proposes
        })
    } else {
        None
    }
}

/// What a notice is a moment of.
fn tells(notice: &Notice) -> Option<Moment> {
    if matches!(notice, Notice::Activated { .. }) {
        Some(Moment::Serves)
    } else if matches!(notice, Notice::Deactivated) {
        Some(Moment::Ended)
    } else if matches!(notice, Notice::LinkUp { .. }) {
        Some(Moment::Links)
    } else if matches!(notice, Notice::CopyStarted { .. }) {
        Some(Moment::Copies)
    } else if matches!(notice, Notice::CopyFinished { .. }) {
        Some(Moment::Joins)
    } else if matches!(notice, Notice::Frozen) {
        Some(Moment::Freezes)
    } else if matches!(notice, Notice::DiskFailed { .. }) {
        Some(Moment::Fails)
    } else {
        None
    }
}

/// Whether a superblock says that writes were thrown away.
pub(super) fn aborts(superblock: &Superblock) -> bool {
    superblock.drained && superblock.serving
}

impl World {
    /// A trouble waits from now on.
    pub(super) fn arm(&mut self, trap: Trap, dice: Rng) {
        if self.armed.len() < ARMED_MAX {
            self.armed.push((trap, dice));
        }
    }

    /// A node's core wants something done: perhaps a trouble waited for it.
    pub(super) fn spot(&mut self, node: usize, effect: &Effect) {
        if self.armed.is_empty() {
            return;
        }
        let moment = if let Effect::Send { frame, body, .. } = effect {
            sends(frame, body)
        } else if let Effect::Notice(notice) = effect {
            tells(notice)
        } else if let Effect::Persist(superblock) = effect {
            if aborts(superblock) {
                Some(Moment::Aborts)
            } else {
                (superblock.view != self.nodes[node].view()).then_some(Moment::Decides)
            }
        } else if let Effect::Disk { owner, .. } = effect {
            (*owner == IoOwner::ViewFlush).then_some(Moment::Flushes)
        } else if let Effect::Device(DeviceCommand::StartLive) = effect {
            Some(Moment::Starts)
        } else {
            None
        };
        if let Some(moment) = moment {
            self.spring(node, moment);
        }
    }

    /// The operators look: is all well?
    pub(super) fn spot_calm(&mut self) {
        let mut armed = self.armed.iter();
        let wanted = armed.any(|(trap, _)| trap.moment == Moment::Calm);
        if wanted
            && self.desk.case.is_none()
            && self.healthy()
            && let Some(node) = self.active()
        {
            self.spring(node, Moment::Calm);
        }
    }

    /// This moment has come on a node.
    pub(super) fn spring(&mut self, node: usize, moment: Moment) {
        let mut armed = self.armed.iter();
        let Some(place) = armed.position(|(trap, _)| trap.moment == moment) else {
            return;
        };
        let (trap, mut dice) = self.armed.swap_remove(place);
        let after = dice.between(trap.micros.0 * 1000, trap.micros.1 * 1000);
        let node = match trap.whom {
            Whom::Own => node,
            Whom::Other => 1 - node,
        };
        self.note(|| format!("{moment:?}: {:?} on {node} follows", trap.kind));
        self.count(&format!("ambush {moment:?}"));
        if let Some(next) = trap.next {
            self.arm(*next, dice.clone());
        }
        let trouble = Box::new(Trouble::new(trap.kind, node, dice));
        self.at(after, Happening::Trouble { trouble });
    }
}
