//! What the coming, going and answering of the peer means for requests.

use alloc::vec::Vec;

use super::inflight::{Leg, Stage};
use super::{Engine, Gate, Peer};
use crate::effect::{Effect, Effects, PayloadSource};
use crate::event::{Request, RequestKind};
use crate::mutant::{self, Mutant};
use crate::types::{Epoch, Instant, SessionId, Tag};
use crate::wire::{FLAG_FUA, Frame, FrameKind};

impl Engine {
    /// The peer answered a Write, Discard, WriteZeroes or Flush with success. Returns whether the
    /// answer belongs to a request.
    pub fn peer_done(&mut self, now: Instant, id: u64, effects: &mut Effects) -> bool {
        let asked = |index: &usize| {
            let entry = self.slots.get(*index);
            entry.is_some_and(|entry| entry.peer == Leg::Sent && entry.wire_id == id)
        };
        let Some(index) = self.slots.indices().find(asked) else {
            return false;
        };
        if let Some(entry) = self.slots.get_mut(index) {
            entry.peer = Leg::Done;
        }
        self.finish_if_done(now, index, effects);
        self.copy_more(now, effects);
        true
    }

    pub(super) fn send_to_peer(&mut self, tag: Tag, effects: &mut Effects) {
        let Some(session) = self.peer.session() else {
            return;
        };
        if self.heals(tag) {
            return self.ask_for_block(session, tag, effects);
        }
        let id = self.next_id;
        let epoch = self.epoch;
        let Some(entry) = self.slots.get_mut(usize::from(tag.0)) else {
            return;
        };
        self.next_id += 1;
        entry.peer = Leg::Sent;
        entry.wire_id = id;
        let (request, durable) = (entry.request, entry.durable);
        let (kind, payload) = match request.kind {
            RequestKind::Write | RequestKind::Read => {
                (FrameKind::Write, Some(PayloadSource::Application(tag)))
            }
            RequestKind::Flush => (FrameKind::Flush, None),
            RequestKind::Discard => (FrameKind::Discard, None),
            RequestKind::WriteZeroes => (FrameKind::WriteZeroes, None),
        };
        let mut frame = Frame::new(kind, epoch, id);
        frame.range = request.range;
        let durable = if mutant::is(Mutant::DurableHereAlone) {
            request.fua
        } else {
            durable
        };
        frame.flags = if durable { FLAG_FUA } else { 0 };
        frame.length_bytes =
            payload.map_or(0, |_| u32::try_from(request.range.bytes()).unwrap_or(0));
        effects.push(Effect::Send {
            session,
            frame,
            body: Vec::new(),
            payload,
        });
    }

    /// The peer's disk reported an error: what it had made durable before need not be there.
    pub fn peer_is_failing(&mut self) {
        self.durable.unsure();
    }

    /// The peer's disk cannot do this request. It waits until the peer's copy does not count any more.
    pub fn peer_refused(&mut self, id: u64) {
        self.peer_is_failing();
        let entries = self.slots.iter_mut();
        for entry in entries.filter(|entry| entry.peer == Leg::Sent && entry.wire_id == id) {
            entry.peer = Leg::Refused;
        }
    }

    /// The peer's copy counts and the session stands: what it has not answered is sent (again).
    pub fn peer_is_member(&mut self, now: Instant, session: SessionId, effects: &mut Effects) {
        self.peer = Peer::Member(session);
        self.counts_otherwise();
        self.held &= mutant::is(Mutant::HeldForEver);
        self.copy_paused = None;
        for index in self.slots.indices() {
            let Some(entry) = self.slots.get(index) else {
                continue;
            };
            if entry.stage == Stage::Running && entry.peer == Leg::Unsent {
                let tag = entry.request.tag;
                self.send_to_peer(tag, effects);
            } else {
                // Both may have had it when the session ended.
                self.finish_if_done(now, index, effects);
            }
        }
        self.send_background(effects);
        if self.intent.has_unflushed() {
            self.unflushed_since = self.unflushed_since.or(Some(now));
        }
        self.pump(now, effects);
    }

    /// The resync is committed: the peer's copy counts from now on (the session goes on).
    pub fn peer_widened(&mut self, session: SessionId) {
        // A checkpoint that is still under way has nothing to take away any more.
        self.abandon_background();
        self.copy = None;
        self.copy_total = None;
        self.copy_paused = None;
        self.peer = Peer::Member(session);
        self.counts_otherwise();
        self.heals_wait_for_peer();
    }

    /// The session is being closed: nothing more of the resync or of a verify is sent on it. What failed here
    /// may still be running over there, and would meet what came after it.
    pub fn halt_copy(&mut self) {
        self.copy_halted = true;
        if mutant::is(Mutant::VerifyAfterEnd) {
            self.verify_lost_peer();
        } else {
            self.verify_halts();
        }
    }

    /// The peer's copy does not count (any more): go on alone.
    pub fn peer_is_out(&mut self, now: Instant, effects: &mut Effects) {
        self.without_peer(now, effects);
    }

    /// The peer's copy counts, and it was not heard of in this run.
    pub fn peer_is_missing(&mut self) {
        self.peer = Peer::Lost;
    }

    /// From now on the target must have every write and every flush. What is running now is not covered
    /// by the local flush that follows.
    pub fn peer_is_joining(&mut self, now: Instant, session: SessionId) {
        self.peer = Peer::Joining(session);
        self.counts_otherwise();
        for range in self.slots.running_changes() {
            if mutant::is(Mutant::JoinCoversRunning) {
                break;
            }
            self.intent.unflushed(range);
            self.unflushed_since = Some(now);
        }
    }

    /// Requests in flight stop waiting for the peer. A narrower view is durable when this is called.
    fn without_peer(&mut self, now: Instant, effects: &mut Effects) {
        self.peer = Peer::Absent;
        self.counts_otherwise();
        self.held = false;
        self.copy = None;
        self.verify_lost_peer();
        self.log_freeing = None;
        self.abandon_background();
        self.intent.diverge();
        self.unflushed_since = None;
        self.heals_lost_copy(now, effects);
        for index in self.slots.indices() {
            let Some(entry) = self.slots.get_mut(index) else {
                continue;
            };
            if entry.stage == Stage::Running {
                let (range, changes) = (entry.request.range, entry.writes());
                let waits = mutant::is(Mutant::AloneStillWaits);
                if matches!(entry.peer, Leg::Unsent | Leg::Sent | Leg::Refused) && !waits {
                    entry.peer = Leg::NotNeeded;
                }
                // It is not flushed there, even if it is answered.
                if changes {
                    self.missed(range);
                }
                self.finish_if_done(now, index, effects);
            }
        }
        self.pump(now, effects);
    }

    /// The session ended. A member: freeze; in-flight requests will be sent again. A target: its copy
    /// does not count, go on without it.
    pub fn session_lost(&mut self, now: Instant, effects: &mut Effects) {
        self.counts_otherwise();
        match self.peer {
            Peer::Member(_) => {
                self.peer = Peer::Lost;
                self.verify_lost_peer();
                for entry in self.slots.iter_mut() {
                    let again = matches!(entry.peer, Leg::Sent | Leg::Refused);
                    let kept = entry.heal.is_some() && mutant::is(Mutant::HealNotAskedAgain);
                    if again && !kept && !mutant::is(Mutant::NoResend) {
                        entry.peer = Leg::Unsent;
                    }
                }
            }
            Peer::Target(_) | Peer::Joining(_) => self.without_peer(now, effects),
            Peer::Absent | Peer::Lost => {}
        }
        self.background_lost_session();
        if mutant::is(Mutant::HealGivesUp) {
            self.heals_lost_copy(now, effects);
        }
        self.heals_lost_session();
    }

    /// What was durable on every copy that counted need not be on those that count now.
    fn counts_otherwise(&mut self) {
        self.durable.unsure();
    }

    /// Whether nothing is in flight or waiting.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether requests that change data or flush are in flight or waiting (they would be lost).
    pub fn has_unfinished_writes(&self) -> bool {
        self.slots
            .iter()
            .any(|entry| entry.request.kind != RequestKind::Read)
    }

    /// Whether a change of data has begun that may still be acknowledged under the present view.
    pub fn is_changing(&self) -> bool {
        let mut entries = self.slots.iter();
        entries.any(|entry| {
            let waits = entry.local.is_settled() && entry.peer == Leg::Refused;
            entry.is_changing() && !waits
        })
    }

    /// The copy here is isolated: reads are let in, and nothing else.
    pub fn open_isolated(&mut self) {
        self.gate = Gate::Isolated;
    }

    /// Both copies are equal and flushed at this moment, in which the peer's or this one is isolated.
    pub fn equal_at_isolation(&mut self) {
        if self.slots.running_changes().next().is_none() {
            self.intent.all_flushed();
            self.unflushed_since = None;
        }
    }

    /// Whether the gate lets a request in at all.
    pub(super) fn is_refused(&self, request: &Request) -> bool {
        match self.gate {
            Gate::Shut => true,
            Gate::Isolated => {
                request.kind != RequestKind::Read && !mutant::is(Mutant::IsolatedWritable)
            }
            Gate::Starting | Gate::Open => false,
        }
    }

    /// An isolated copy is one point in time: whoever reads it cannot read too late.
    pub(super) fn needs_no_lease(&self) -> bool {
        self.gate == Gate::Isolated && !mutant::is(Mutant::IsolatedWantsLease)
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        self.gate == Gate::Open
    }

    /// The epoch under which frames are sent.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}
