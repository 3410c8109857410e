//! The resync's way through the engine: which runs are read and sent, and when it gives way.

use alloc::vec::Vec;
use core::time::Duration;

use super::pace::Pace;
use super::{Engine, Gate, Peer};
use crate::admin::{CopyCause, CopyProgress};
use crate::effect::{DiskOperation, Effect, Effects, PayloadSource};
use crate::event::{Digest, DiskResult, IoOwner};
use crate::limits::{COPY_CHUNK_BYTES, COPY_INFLIGHT_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::Notice;
use crate::resync::{Arrived, Likeness, Resync};
use crate::types::{CopyId, Instant, SectorRange, SessionId};
use crate::wire::{Frame, FrameKind};

/// An application that waits for nothing, and asked for nothing for so long, is idle.
const BUSY_FOR: Duration = Duration::from_millis(50);

/// What a copy buffer is in use for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) range: SectorRange,
    /// On a target: what the source asked.
    compare: Option<Compare>,
}

#[derive(Clone, Copy, Debug)]
struct Compare {
    session: SessionId,
    id: u64,
    digest: Digest,
}

/// The answer to a source's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// On which session it was asked.
    pub session: SessionId,
    /// The question's id.
    pub id: u64,
    /// Whether this node has the same.
    pub equal: bool,
}

impl Engine {
    /// The peer's copy is brought up to date over this session: both sides' marks are united here.
    /// Requests in flight do not wait for it.
    pub fn begin_resync(
        &mut self,
        now: Instant,
        session: SessionId,
        id: CopyId,
        cause: CopyCause,
        likeness: Likeness,
        effects: &mut Effects,
    ) {
        let earlier = self.copy_total.filter(|(known, _)| *known == id);
        let copy = Resync::new(
            cause,
            self.intent.geometry(),
            self.intent.marks(),
            earlier.map_or(0, |(_, total)| total),
            likeness,
        );
        self.copy_total = Some((id, copy.total_blocks()));
        self.copy = Some(copy);
        self.pace_anew(now);
        self.copy_halted = false;
        self.peer = Peer::Target(session);
        self.pump(now, effects);
        self.copy_more(now, effects);
    }

    /// Its progress.
    pub fn progress(&self) -> Option<CopyProgress> {
        let mut progress = self.copy.as_ref().map(Resync::progress)?;
        let goes_on = !self.copy_halted && !self.copy_is_paused();
        progress.beside = self.copy_pace.beside().filter(|_| goes_on);
        Some(progress)
    }

    /// Whether the target has everything and nothing is under way.
    pub fn resync_is_complete(&self) -> bool {
        self.copy.as_ref().is_some_and(Resync::is_complete)
    }

    /// Begins runs of the resync as far as the bounds allow.
    pub fn copy_more(&mut self, now: Instant, effects: &mut Effects) {
        let Peer::Target(_) = self.peer else { return };
        if self.copy_halted || self.copy_is_paused() {
            return;
        }
        self.pace_passed(now);
        let busy = self.is_busy(now);
        let runs = self.runs_under_way();
        let turn = self.copy_pace.turn(now, busy, runs);
        let reserves = self.copy.as_ref().is_some_and(Resync::reserves);
        if turn.is_none() && !reserves {
            return;
        }
        if let (Some(turn), Some(copy)) = (turn, self.copy.as_mut()) {
            copy.set_small_runs(turn.small);
            copy.retry(now);
        }
        // In a rest writes must not wait for a run that has no turn: it is the only one that may begin then.
        let slots_max = turn.map_or(usize::from(COPY_INFLIGHT_MAX), |turn| turn.count);
        loop {
            let slots = &self.slots;
            let Some(copy) = self.copy.as_mut() else {
                return;
            };
            let reading = &self.copy_reading;
            let unused = |slot: usize| reading[slot].is_none();
            let next = copy.begin(slots_max, turn.is_none(), unused, |range| {
                mutant::is(Mutant::RunIntoWrite)
                    || !slots
                        .running_changes()
                        .any(|running| running.overlaps(range))
            });
            let Some((slot, range)) = next else { return };
            self.copy_reading[usize::from(slot)] = Some(Reading {
                range,
                compare: None,
            });
            effects.push(Effect::Disk {
                owner: IoOwner::Copy(slot),
                operation: DiskOperation::Read,
                range,
            });
        }
    }

    /// A copy buffer was filled: look at it. What a source cannot read is put aside, and the rest is copied.
    pub fn copy_read_done(
        &mut self,
        now: Instant,
        slot: u16,
        result: DiskResult,
        effects: &mut Effects,
    ) -> Option<Compared> {
        let reading = (*self.copy_reading.get(usize::from(slot))?)?;
        if let Err(errno) = result {
            if reading.compare.is_none()
                && let Some(copy) = self.copy.as_mut()
                && copy.in_slot(slot) == Some(reading.range)
                && copy.put_aside(now, slot, errno)
            {
                effects.extend(copy.unreadable().map(Effect::Notice));
            }
            return self.copy_looked(now, slot, effects, |_, _| false);
        }
        let hashes = self.copy.as_ref().is_some_and(Resync::hashes);
        effects.push(Effect::Examine {
            slot,
            range: reading.range,
            digest: reading.compare.is_some() || hashes,
        });
        None
    }

    /// What is in a copy buffer. A source sends it, or asks whether the target has it already; a target
    /// answers that question.
    pub fn copy_examined(
        &mut self,
        now: Instant,
        slot: u16,
        zero: bool,
        digest: Option<Digest>,
        effects: &mut Effects,
    ) -> Option<Compared> {
        let reading = (*self.copy_reading.get(usize::from(slot))?)?;
        if let Some(compare) = reading.compare {
            self.copy_reading[usize::from(slot)] = None;
            return Some(Compared {
                session: compare.session,
                id: compare.id,
                equal: digest == Some(compare.digest),
            });
        }
        self.copy_looked(now, slot, effects, |engine, effects| {
            engine.send_run(slot, zero, digest, effects)
        })
    }

    /// A source is done with looking at a buffer: `send` sends the run if its session still stands.
    fn copy_looked(
        &mut self,
        now: Instant,
        slot: u16,
        effects: &mut Effects,
        send: impl FnOnce(&mut Self, &mut Effects) -> bool,
    ) -> Option<Compared> {
        self.pace_passed(now);
        let reading = self.copy_reading[usize::from(slot)].take()?;
        if let Some(compare) = reading.compare {
            // It could not be read: the run is asked for.
            return Some(Compared {
                session: compare.session,
                id: compare.id,
                equal: mutant::is(Mutant::UnreadableEqual),
            });
        }
        let sent = !self.copy_halted && !self.copy_is_paused() && send(self, effects);
        if !sent {
            if let Some(copy) = self.copy.as_mut() {
                copy.finish(slot, Arrived::No);
            }
            // Writes may have waited for this run.
            self.pump(now, effects);
        }
        None
    }

    /// Sends a run in the cheapest way. Returns whether there was one to send.
    fn send_run(
        &mut self,
        slot: u16,
        zero: bool,
        digest: Option<Digest>,
        effects: &mut Effects,
    ) -> bool {
        let session = self.peer.session();
        let run = self.copy.as_ref().and_then(|copy| copy.in_slot(slot));
        let (Some(range), Some(session)) = (run, session) else {
            return false;
        };
        let (kind, body, payload) = match (zero, digest) {
            (true, _) => (FrameKind::CopyZeroes, Vec::new(), None),
            (false, Some(digest)) => (FrameKind::CopyHash, digest.to_vec(), None),
            (false, None) => (
                FrameKind::CopyWrite,
                Vec::new(),
                Some(PayloadSource::Copy(slot)),
            ),
        };
        let mut frame = Frame::new(kind, self.epoch, u64::from(slot));
        frame.range = range;
        let length_bytes = payload.map_or(body.len() as u64, |_| range.bytes());
        frame.length_bytes = u32::try_from(length_bytes).unwrap_or(0);
        self.counters.resync_sent_bytes += length_bytes;
        effects.push(Effect::Send {
            session,
            frame,
            body,
            payload,
        });
        true
    }

    /// The target has something else than the digest said: send the run.
    pub fn copy_wanted(&mut self, now: Instant, slot: u16, effects: &mut Effects) {
        if self.is_being_read(slot) {
            return;
        }
        if let Some(copy) = self.copy.as_mut() {
            copy.compared(false);
        }
        if self.copy_is_paused() {
            if let Some(copy) = self.copy.as_mut() {
                copy.finish(slot, Arrived::No);
            }
            return self.pump(now, effects);
        }
        self.send_run(slot, false, None, effects);
    }

    /// Whether copy buffers are being filled, for whatever session.
    pub fn is_reading_runs(&self) -> bool {
        self.copy_reading.iter().any(Option::is_some) || self.verify_is_reading()
    }

    fn is_being_read(&self, slot: u16) -> bool {
        let reading = self.copy_reading.get(usize::from(slot));
        reading.is_none_or(Option::is_some)
    }

    /// The target has a run; `equal`: it had it before.
    pub fn copy_chunk_done(&mut self, now: Instant, slot: u16, equal: bool, effects: &mut Effects) {
        if self.is_being_read(slot) {
            return;
        }
        self.pace_passed(now);
        if let Some(copy) = self.copy.as_mut() {
            if mutant::is(Mutant::ClearAtCopyAck)
                && let Some(range) = copy.in_slot(slot)
            {
                self.intent.equal(self.intent.geometry().touched(range));
            }
            if equal {
                copy.compared(true);
            }
            copy.finish(slot, Arrived::Yes);
            copy.sample_rate(now);
        }
        self.pump(now, effects);
        self.copy_more(now, effects);
    }

    /// Whether the application works: the resync gives way.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let lately = self
            .last_request
            .is_some_and(|last| now.since(last) < BUSY_FOR);
        // Where disks are slow, a request takes longer than that, and no other one comes before its end.
        (lately || self.inflight() > 0) && self.gate == Gate::Open
    }

    /// When the application is idle, if it asks for nothing more; `None` while it waits for something.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let waits = self.inflight() > 0;
        self.last_request
            .filter(|_| !waits)
            .map(|last| last + BUSY_FOR)
    }

    /// When the resync goes on after a rest.
    pub fn copy_deadline(&self) -> Option<Instant> {
        if !matches!(self.peer, Peer::Target(_)) {
            return None;
        }
        let goes_on = !self.copy_halted && !self.copy_is_paused();
        let until = self.copy_pace.rests_until();
        if goes_on && (until.is_some() || self.copy_pace.drains()) {
            let again = self.retry_of_copy(false);
            return until.into_iter().chain(self.idle_at()).chain(again).min();
        }
        self.retry_of_copy(goes_on)
    }

    fn runs_under_way(&self) -> usize {
        self.copy.as_ref().map_or(0, Resync::under_way)
    }

    /// What was measured before says nothing of what comes.
    pub(super) fn pace_anew(&mut self, now: Instant) {
        self.copy_pace = Pace::new();
        self.copy_pace.passed(now, 0, 0);
    }

    /// To be called before requests or runs begin or end.
    pub(super) fn pace_passed(&mut self, now: Instant) {
        if self.copy.is_some() {
            let runs = self.runs_under_way();
            self.copy_pace.passed(now, self.slots.len(), runs);
        }
    }

    /// A request of the application ended.
    pub(super) fn pace_ended(&mut self) {
        if self.copy.is_some() {
            let runs = self.runs_under_way();
            self.copy_pace.ended(runs);
        }
    }

    fn retry_of_copy(&self, goes_on: bool) -> Option<Instant> {
        let again = self.copy.as_ref().and_then(Resync::retry_at);
        again.filter(|_| goes_on || mutant::is(Mutant::PausedCopySpins))
    }

    /// What cannot be read is tried again after this.
    pub fn copy_retries_after(&mut self, retry_after: Duration) {
        if let Some(copy) = self.copy.as_mut() {
            copy.set_retry_after(retry_after);
        }
    }

    /// What the peer lacks and could not be read here.
    pub fn copy_unreadable(&self) -> Option<Notice> {
        self.copy.as_ref().and_then(Resync::unreadable)
    }

    /// The source of a resync asks whether this node has what the digest says. Returns `false` if that
    /// cannot be looked at now.
    pub fn compare(
        &mut self,
        session: SessionId,
        slot: u16,
        range: SectorRange,
        digest: Digest,
        effects: &mut Effects,
    ) -> bool {
        if self.is_being_read(slot) || range.bytes() > u64::from(COPY_CHUNK_BYTES) {
            return false;
        }
        let id = u64::from(slot);
        let compare = Some(Compare {
            session,
            id,
            digest,
        });
        self.copy_reading[usize::from(slot)] = Some(Reading { range, compare });
        effects.push(Effect::Disk {
            owner: IoOwner::Copy(slot),
            operation: DiskOperation::Read,
            range,
        });
        true
    }
}
