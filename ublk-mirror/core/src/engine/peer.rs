//! What the coming, going and answering of the peer means for requests and for the full copy.

use alloc::vec::Vec;

use super::inflight::{Leg, Stage};
use super::{Engine, Gate, Peer};
use crate::effect::{DiskOperation, Effect, Effects, PayloadSource};
use crate::event::{DiskResult, IoOwner, RequestKind};
use crate::limits::COPY_INFLIGHT_MAX;
use crate::resync::Arrived;
use crate::types::{Epoch, Instant, SessionId};
use crate::wire::{Frame, FrameKind};

/// Chunks of the copy under way while the application writes: it goes first, the copy goes on.
const COPY_INFLIGHT_BUSY: usize = 2;

impl Engine {
    /// The peer answered a Write, Discard, WriteZeroes or Flush with success. Returns whether the
    /// answer belongs to a request.
    pub fn peer_done(&mut self, now: Instant, id: u64, effects: &mut Effects) -> bool {
        let Some(index) = self.slots.iter().position(|slot| {
            slot.as_ref()
                .is_some_and(|entry| entry.peer == Leg::Sent && entry.wire_id == id)
        }) else {
            return false;
        };
        if let Some(entry) = self.slots[index].as_mut() {
            entry.peer = Leg::Done;
        }
        self.finish_if_done(now, index, effects);
        self.copy_more(effects);
        true
    }

    /// The peer's copy counts and the session stands: what it has not answered is sent (again).
    pub fn peer_is_member(&mut self, now: Instant, session: SessionId, effects: &mut Effects) {
        self.peer = Peer::Member(session);
        self.held = false;
        for index in 0..self.slots.len() {
            let Some(entry) = self.slots[index].as_ref() else {
                continue;
            };
            if entry.stage == Stage::Running && entry.peer == Leg::Unsent {
                let tag = entry.request.tag;
                self.send_to_peer(tag, effects);
            }
        }
        self.pump(now, effects);
    }

    /// The copy is committed: the peer's copy counts from now on (the session goes on).
    pub fn peer_widened(&mut self, session: SessionId) {
        self.copy = None;
        self.peer = Peer::Member(session);
    }

    /// The peer's copy is being filled; requests in flight do not wait for it.
    pub fn peer_is_target(&mut self, now: Instant, session: SessionId, effects: &mut Effects) {
        self.copy_halted = false;
        self.without_peer(now, Peer::Target(session), effects);
        self.copy_more(effects);
    }

    /// The session is being closed: nothing more of the copy is sent on it.
    pub fn halt_copy(&mut self) {
        self.copy_halted = true;
    }

    /// The peer's copy does not count (any more) and it is not connected: go on alone.
    pub fn peer_is_out(&mut self, now: Instant, effects: &mut Effects) {
        self.without_peer(now, Peer::Absent, effects);
    }

    /// The peer's copy counts, and it was not heard of in this run.
    pub fn peer_is_missing(&mut self) {
        self.peer = Peer::Lost;
    }

    /// From now on the target must have every write and every flush.
    pub fn peer_is_joining(&mut self, session: SessionId) {
        self.peer = Peer::Joining(session);
    }

    /// Requests in flight stop waiting for the peer. A narrower view is durable when this is called.
    fn without_peer(&mut self, now: Instant, peer: Peer, effects: &mut Effects) {
        self.peer = peer;
        self.held = false;
        for index in 0..self.slots.len() {
            let Some(entry) = self.slots[index].as_ref() else {
                continue;
            };
            if entry.stage == Stage::Running && matches!(entry.peer, Leg::Unsent | Leg::Sent) {
                let (range, changes) = (entry.request.range, entry.changes_data());
                let leg = if changes {
                    self.missed(range)
                } else {
                    Leg::NotNeeded
                };
                if let Some(entry) = self.slots[index].as_mut() {
                    entry.peer = leg;
                }
                self.finish_if_done(now, index, effects);
            }
        }
        self.pump(now, effects);
    }

    /// The session ended. A member: freeze; in-flight requests will be sent again. A target: its copy
    /// does not count, go on without it.
    pub fn session_lost(&mut self, now: Instant, effects: &mut Effects) {
        let reading = self.copy_reading;
        if let Some(copy) = self.copy.as_mut() {
            copy.session_lost(|slot| reading & (1 << slot) != 0);
        }
        match self.peer {
            Peer::Member(_) => {
                self.peer = Peer::Lost;
                for entry in self.slots.iter_mut().flatten() {
                    if entry.peer == Leg::Sent {
                        entry.peer = Leg::Unsent;
                    }
                }
            }
            Peer::Target(_) | Peer::Joining(_) => self.without_peer(now, Peer::Absent, effects),
            Peer::Absent | Peer::Lost => {}
        }
    }

    /// The cursor that must become durable before some writes are acknowledged, and its generation.
    pub fn take_wanted_mark(&mut self) -> Option<(u64, u64)> {
        self.wanted_mark.take()
    }

    /// The marks up to this generation are durable.
    pub fn mark_durable(&mut self, now: Instant, generation: u64, effects: &mut Effects) {
        self.durable_generation = self.durable_generation.max(generation);
        for index in 0..self.slots.len() {
            let Some(entry) = self.slots[index].as_mut() else {
                continue;
            };
            if matches!(entry.peer, Leg::Mark(wanted) if wanted <= generation) {
                entry.peer = Leg::Done;
                self.finish_if_done(now, index, effects);
            }
        }
    }

    /// Whether nothing is in flight or waiting.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// Whether requests that change data or flush are in flight or waiting (they would be lost).
    pub fn has_unfinished_writes(&self) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|entry| entry.request.kind != RequestKind::Read)
    }

    /// Whether a change of data has begun and is not acknowledged.
    pub fn is_changing(&self) -> bool {
        let mut entries = self.slots.iter().flatten();
        entries.any(|entry| entry.stage == Stage::Running && entry.changes_data())
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        self.gate == Gate::Open
    }

    /// Begins chunks of the full copy as far as the bounds allow.
    pub fn copy_more(&mut self, effects: &mut Effects) {
        let Peer::Target(_) = self.peer else { return };
        if self.copy_halted {
            return;
        }
        let busy = self
            .slots
            .iter()
            .flatten()
            .any(|entry| entry.changes_data());
        let slots_max = if busy {
            COPY_INFLIGHT_BUSY
        } else {
            usize::from(COPY_INFLIGHT_MAX)
        };
        loop {
            let slots = &self.slots;
            let Some(copy) = self.copy.as_mut() else {
                return;
            };
            let next = copy.begin(slots_max, self.copy_reading, |range| {
                !slots.iter().flatten().any(|entry| {
                    entry.stage == Stage::Running
                        && entry.changes_data()
                        && entry.request.range.overlaps(range)
                })
            });
            let Some((slot, range)) = next else { return };
            self.copy_reading |= 1 << slot;
            effects.push(Effect::Disk {
                owner: IoOwner::Copy(slot),
                operation: DiskOperation::Read,
                range,
            });
        }
    }

    /// A chunk was read: send it. After a read error the copy waits for the next session (the caller
    /// reports it); the application goes on.
    pub fn copy_read_done(
        &mut self,
        now: Instant,
        slot: u16,
        result: DiskResult,
        effects: &mut Effects,
    ) {
        self.copy_reading &= !(1 << slot);
        self.copy_halted |= result.is_err();
        let session = self.peer.session();
        let epoch = self.epoch;
        let Some(copy) = self.copy.as_mut() else {
            return;
        };
        match (copy.in_slot(slot), session, result) {
            (Some(range), Some(session), Ok(())) if !self.copy_halted => {
                let mut frame = Frame::new(FrameKind::CopyWrite, epoch, u64::from(slot));
                frame.range = range;
                frame.length_bytes = u32::try_from(range.bytes()).unwrap_or(0);
                effects.push(Effect::Send {
                    session,
                    frame,
                    body: Vec::new(),
                    payload: Some(PayloadSource::Copy(slot)),
                });
            }
            _ => {
                copy.finish(slot, Arrived::No);
                // Writes may have waited for this chunk.
                self.pump(now, effects);
            }
        }
    }

    /// The target has a chunk.
    pub fn copy_chunk_done(&mut self, now: Instant, slot: u16, effects: &mut Effects) {
        if self.copy_reading & (1 << slot.min(63)) != 0 {
            return;
        }
        if let Some(copy) = self.copy.as_mut() {
            copy.finish(slot, Arrived::Yes);
            copy.sample_rate(now);
        }
        self.pump(now, effects);
        self.copy_more(effects);
    }

    /// The epoch under which frames are sent.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}
