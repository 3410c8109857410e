//! Flushes of both copies that no application asked for: they make room in the activity log, bound what
//! would have to be copied again after a reboot of the peer, and let marks of a resync be taken away.

use super::inflight::Leg;
use super::{Engine, Gate, Peer};
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::IoOwner;
use crate::limits::{COPY_CHECKPOINT_BYTES, EXTENT_COLD_AFTER, UNFLUSHED_MAX};
use crate::mutant::{self, Mutant};
use crate::types::{Instant, SECTOR_BYTES, SectorRange};
use crate::wire::{FLAG_DRAIN, Frame, FrameKind};

/// A copy of the whole volume has so many checkpoints at least.
const COPY_CHECKPOINTS_MIN: u64 = 8;

/// Ids of flushes that do not belong to a request.
pub const FLUSH_BACKGROUND: u64 = u64::MAX - 1;

/// What a background flush is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Extents may leave the activity log.
    Log,
    /// Marks of a resync may be taken away.
    Checkpoint,
}

/// A background flush under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Background {
    purpose: Purpose,
    local: Leg,
    peer: Leg,
}

impl Engine {
    /// Whether a background flush is under way.
    pub fn flushes_in_background(&self) -> bool {
        self.background.is_some()
    }

    /// Begins a background flush if one is due, and the next write of metadata.
    pub fn background_steps(&mut self, now: Instant, effects: &mut Effects) {
        match self.peer {
            Peer::Member(_) if self.gate == Gate::Open => {
                let late = self
                    .unflushed_since
                    .is_some_and(|since| now.since(since) >= UNFLUSHED_MAX);
                if late || self.intent.wants_flush() {
                    self.begin_log_flush(now, effects);
                }
            }
            Peer::Target(_) => self.begin_checkpoint(effects),
            Peer::Member(_) | Peer::Joining(_) | Peer::Absent | Peer::Lost => {}
        }
        let idle = self.gate == Gate::Shut && self.is_idle();
        if now.since(self.aged) >= EXTENT_COLD_AFTER {
            self.aged = now;
            self.intent.age();
        }
        self.intent.steps(idle, effects);
    }

    /// When something here is due by time.
    pub fn background_deadline(&self) -> Option<Instant> {
        let aging = self.gate == Gate::Open && !self.intent.is_quiet();
        let aging = aging.then_some(self.aged + EXTENT_COLD_AFTER);
        self.flush_deadline().into_iter().chain(aging).min()
    }

    fn flush_deadline(&self) -> Option<Instant> {
        let due = self.unflushed_since.map(|since| since + UNFLUSHED_MAX);
        let free = self.background.is_none() && !self.background_disk && self.log_freeing.is_none();
        due.filter(|_| free && self.gate == Gate::Open && matches!(self.peer, Peer::Member(_)))
    }

    fn begin_log_flush(&mut self, now: Instant, effects: &mut Effects) {
        if self.background.is_some() || self.background_disk {
            return;
        }
        let running = self.slots.running_changes();
        if self.intent.flush_begins(running) {
            self.unflushed_since = self.intent.has_unflushed().then_some(now);
            self.begin_background(Purpose::Log, effects);
        }
    }

    /// Not when everything is copied: both sides flush then before the copy counts, and that flush waits for this one.
    /// An application that writes all the time would begin one after the other.
    fn begin_checkpoint(&mut self, effects: &mut Effects) {
        let due = self.copy.as_ref().is_some_and(|copy| {
            !copy.is_complete() && copy.wants_checkpoint(self.checkpoint_bytes())
        });
        if !due || self.background.is_some() || self.background_disk || self.copy_halted {
            return;
        }
        if let Some(copy) = self.copy.as_mut() {
            copy.checkpoint_sent();
        }
        self.begin_background(Purpose::Checkpoint, effects);
    }

    /// A copy of a small volume can go on where it was interrupted too.
    fn checkpoint_bytes(&self) -> u64 {
        COPY_CHECKPOINT_BYTES.min(self.size_sectors * SECTOR_BYTES / COPY_CHECKPOINTS_MIN)
    }

    fn begin_background(&mut self, purpose: Purpose, effects: &mut Effects) {
        self.background = Some(Background {
            purpose,
            local: if self.is_diskless() {
                Leg::Done
            } else {
                Leg::Sent
            },
            peer: Leg::Unsent,
        });
        self.wrong_background();
        if self.is_diskless() {
            return self.send_background(effects);
        }
        self.background_disk = true;
        effects.push(Effect::Disk {
            owner: IoOwner::LogFlush,
            operation: DiskOperation::Flush,
            range: SectorRange::new(0, 0),
        });
        self.send_background(effects);
    }

    /// One side's part counts as done.
    fn wrong_background(&mut self) {
        let Some(background) = self.background.as_mut() else {
            return;
        };
        let (own, theirs) = match background.purpose {
            Purpose::Log => (Mutant::LogFreedByPeer, Mutant::LogFreedByOwn),
            Purpose::Checkpoint => (
                Mutant::CheckpointWithoutOwnFlush,
                Mutant::CheckpointWithoutPeerFlush,
            ),
        };
        if mutant::is(own) {
            background.local = Leg::Done;
        }
        if mutant::is(theirs) {
            background.peer = Leg::Done;
        }
    }

    /// Sends the peer its part (again).
    pub(super) fn send_background(&mut self, effects: &mut Effects) {
        let (Some(session), Some(background)) = (self.peer.session(), self.background.as_mut())
        else {
            return;
        };
        if background.peer == Leg::Unsent {
            background.peer = Leg::Sent;
            let mut frame = Frame::new(FrameKind::Flush, self.epoch, FLUSH_BACKGROUND);
            if background.purpose == Purpose::Checkpoint {
                frame.flags = FLAG_DRAIN;
            }
            effects.push(Effect::Send {
                session,
                frame,
                body: alloc::vec::Vec::new(),
                payload: None,
            });
        }
    }

    /// The own disk has flushed.
    pub fn background_disk_done(&mut self, now: Instant, effects: &mut Effects) {
        self.background_disk = false;
        if let Some(background) = self.background.as_mut() {
            background.local = Leg::Done;
        }
        self.background_done(now, effects);
    }

    /// The peer has flushed. An answer to an earlier flush says nothing of a later one: as many answers as
    /// are owed for those that came to nothing are let pass (in any order: the last one tells).
    pub fn background_peer_done(&mut self, now: Instant, effects: &mut Effects) {
        if self.background_owed > 0 && !mutant::is(Mutant::AbandonedAnswerCounts) {
            self.background_owed -= 1;
            return;
        }
        if let Some(background) = self.background.as_mut()
            && background.peer == Leg::Sent
        {
            background.peer = Leg::Done;
        }
        self.background_done(now, effects);
    }

    fn background_done(&mut self, now: Instant, effects: &mut Effects) {
        let done = self.background.is_some_and(|background| {
            background.local == Leg::Done && background.peer == Leg::Done
        });
        let Some(background) = self.background.take_if(|_| done) else {
            return;
        };
        match background.purpose {
            Purpose::Log => self.intent.flush_ended(true),
            Purpose::Checkpoint => {
                let running = self.slots.running_changes();
                let equal = self.copy.as_mut().map(|copy| copy.checkpoint_done(running));
                for blocks in equal.into_iter().flatten() {
                    self.intent.equal(blocks);
                }
            }
        }
        self.pump(now, effects);
    }

    /// The session ended: nothing is answered any more. While both copies count the peer's part has to be
    /// sent again.
    pub(super) fn background_lost_session(&mut self) {
        self.background_owed = 0;
        if let Some(background) = self.background.as_mut()
            && background.peer == Leg::Sent
        {
            background.peer = Leg::Unsent;
        }
    }

    /// It comes to nothing.
    pub(super) fn abandon_background(&mut self) {
        let Some(background) = self.background.take() else {
            return;
        };
        self.background_owed += u32::from(background.peer == Leg::Sent);
        if background.purpose == Purpose::Log {
            self.intent.flush_ended(false);
        }
    }

    /// Both copies have flushed everything, and nobody writes.
    pub fn all_flushed(&mut self) {
        if self.gate == Gate::Shut && self.is_idle() {
            self.intent.all_flushed();
            self.unflushed_since = None;
        }
    }
}
