//! The own disk failed, and the peer's copy counts: the volume is served through the peer (S2).
//!
//! First nothing begins any more. What is running ends: on the peer, and here, well or not. Then the peer alone is
//! made the one that counts; what only failed here is acknowledged, and from then on the own disk is not
//! asked any more.

use super::inflight::{Heal, InFlight, Leg, Stage};
use super::{Engine, Peer};
use crate::effect::Effects;
use crate::event::RequestKind;
use crate::mutant::{self, Mutant};
use crate::types::{Errno, Instant, Tag};

/// Whether the own disk is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OwnDisk {
    /// As ever.
    #[default]
    Used,
    /// It failed; what was begun ends.
    Leaving,
    /// It failed; the peer does everything.
    Gone,
}

impl Engine {
    /// The own disk failed: nothing begins before [`Self::goes_diskless`].
    pub fn leaves_disk(&mut self) {
        self.own_disk = OwnDisk::Leaving;
        self.durable.unsure();
    }

    /// Whether the own disk is on its way out or gone.
    pub fn without_disk(&self) -> bool {
        self.own_disk != OwnDisk::Used
    }

    /// Whether the own disk is not asked any more.
    pub fn is_diskless(&self) -> bool {
        self.own_disk == OwnDisk::Gone
    }

    /// Whether nothing is under way but what the own disk could not do.
    pub fn is_drained(&self) -> bool {
        let mut running = self.slots.iter();
        !running.any(|entry| {
            entry.stage == Stage::Running
                && !(matches!(entry.local, Leg::Done | Leg::NotNeeded | Leg::Refused)
                    && entry.peer.is_settled())
        })
    }

    /// Whether both disks refuse something: nobody has it.
    pub fn both_refuse(&self) -> bool {
        let mut entries = self.slots.iter();
        self.without_disk() && entries.any(|entry| entry.peer == Leg::Refused)
    }

    /// The own disk could not do a change or a flush, and is on its way out. Returns whether that is so.
    pub(super) fn refused_here(&mut self, tag: Tag) -> bool {
        let leaving = self.own_disk == OwnDisk::Leaving;
        let Some(entry) = self.slots.get_mut(usize::from(tag.0)) else {
            return false;
        };
        if !leaving || entry.failure.is_some() {
            return false;
        }
        entry.local = match entry.heal {
            // What the peer read is right, whatever becomes of it here.
            Some((Heal::Writing, _)) => Leg::Done,
            _ if mutant::is(Mutant::DisklessTooEarly) => Leg::Done,
            _ => Leg::Refused,
        };
        true
    }

    /// A flush, or a durable write, that ends well on a disk that failed meanwhile proves nothing: with its error the disk
    /// may have lost what was to be durable (S1). It counts as one that failed.
    pub(super) fn durable_proves_nothing(&mut self, tag: Tag) -> bool {
        let durable = |entry: &InFlight| match entry.request.kind {
            RequestKind::Flush => true,
            RequestKind::Write | RequestKind::WriteZeroes => {
                entry.durable && !mutant::is(Mutant::FuaProves)
            }
            RequestKind::Read | RequestKind::Discard => false,
        };
        self.request(tag).is_some_and(durable) && self.refused_here(tag)
    }

    /// What a disk reads that failed meanwhile may be older than what was acknowledged: the peer is asked once its
    /// copy alone counts. Returns whether that is so.
    pub(super) fn read_proves_nothing(
        &mut self,
        now: Instant,
        tag: Tag,
        effects: &mut Effects,
    ) -> bool {
        self.own_disk == OwnDisk::Leaving
            && !mutant::is(Mutant::LeavingReadsCount)
            && self.read_failed(now, tag, Errno::EIO, effects)
    }

    /// A view in which the peer's copy alone counts is durable on both sides.
    pub fn goes_diskless(&mut self, now: Instant, effects: &mut Effects) {
        self.own_disk = OwnDisk::Gone;
        self.durable.unsure();
        self.held = false;
        self.abandon_background();
        self.background_disk = false;
        for index in self.slots.indices() {
            if let Some(entry) = self.slots.get_mut(index)
                && entry.local == Leg::Refused
            {
                entry.local = Leg::Done;
                self.finish_if_done(now, index, effects);
            }
        }
        self.pump(now, effects);
    }

    /// A request begins that the peer alone carries out.
    pub(super) fn begin_diskless(&mut self, now: Instant, tag: Tag, effects: &mut Effects) {
        let Some(request) = self.request(tag).map(|entry| entry.request) else {
            return;
        };
        if !matches!(self.peer, Peer::Member(_)) {
            return;
        }
        let (peer, _) = self.peer_leg(&request);
        self.note_begin(now, &request);
        if let Some(entry) = self.slots.get_mut(usize::from(tag.0)) {
            entry.stage = Stage::Running;
            entry.local = Leg::Done;
            entry.peer = peer;
        }
        if peer == Leg::Unsent {
            self.send_to_peer(tag, effects);
        }
    }
}
