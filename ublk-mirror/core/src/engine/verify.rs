//! A verify's way through the engine, on both sides.
//!
//! A run under comparison is locked against application writes, and begins only when none overlaps it: then
//! both disks hold all that was ever written there, and a difference is none of the application's doing. The
//! lock stays while a run that differs is narrowed down, and while a block is repaired: nothing newer can be
//! there (I8). A repair is durable when it is answered (FUA), and counts when both sides were compared again.
//!
//! Its buffers are the resync's: the two never run at the same time, because a resync needs a peer whose copy
//! does not count, and a new session begins only when no buffer is in use.

mod ends;

use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

use super::verified::{Asked, VerifyAnswer};
use super::{Engine, Peer};
use crate::admin::{VerifyFinding, VerifyState};
use crate::blocks::BlockRange;
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::{Digest, DiskResult, IoOwner};
use crate::limits::COPY_INFLIGHT_MAX;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, UpkeepNotice};
use crate::types::{Errno, Instant, SectorRange, SessionId};
use crate::verify::{Repair, Verify};
use crate::wire::{Frame, FrameKind};

const SLOTS: usize = COPY_INFLIGHT_MAX as usize;
/// After a run it rests for so many times the time that the run took, while the application works.
const REST_TIMES: u32 = 2;
/// It never rests longer: a disk that was slow once must not stop it.
const REST_MAX: Duration = Duration::from_millis(200);
/// Runs under way while the application works.
const INFLIGHT_BUSY: usize = 1;
/// "Not now": the other side is busy with something else, and is asked again.
pub const NOT_NOW: Errno = Errno(16);
/// A run that the other side did not want now is asked for again after this.
const AGAIN_AFTER: core::time::Duration = core::time::Duration::from_millis(100);

/// What a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The end of application writes.
    Writes,
    /// Its part to be read and looked at here.
    Read,
    /// The other side's word.
    Answer,
    /// The other side to have written the block.
    Repaired,
    /// The other side's block.
    Block,
    /// This side to have written the block.
    Written,
    /// It came to nothing, but its buffer or its block is still in the disk's hands.
    GivenUp,
}

#[derive(Clone, Debug)]
struct Run {
    /// What is locked.
    whole: BlockRange,
    /// What is left of it, the next part last.
    parts: Vec<BlockRange>,
    part: BlockRange,
    stage: Stage,
    /// This block was written, and is compared again.
    written: Option<u64>,
    /// That something of it cannot be read was told.
    told: bool,
    began: Instant,
}

impl Run {
    /// Of a part of several blocks the first half is next. Returns whether it was one.
    fn halve(&mut self) -> bool {
        let Range { start, end } = self.part.clone();
        if end - start < 2 {
            return false;
        }
        let middle = start + (end - start) / 2;
        self.parts.push(middle..end);
        self.part = start..middle;
        true
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    job: Option<Verify>,
    runs: [Option<Run>; SLOTS],
    pub(super) asked: [Option<Asked>; SLOTS],
    pause_until: Instant,
    /// Nothing is compared before.
    not_before: Instant,
    rests: bool,
    told: bool,
    /// Nothing is asked on this session any more.
    closing: Option<SessionId>,
}

/// What a run of zeroes has for a digest.
fn digest_of(zero: bool, digest: Option<Digest>) -> Digest {
    match digest {
        Some(digest) if !zero => digest,
        Some(_) | None => [0; 32],
    }
}

impl Engine {
    /// Begins a verify; nothing is compared before `not_before`.
    pub fn verify_begin(&mut self, now: Instant, repair: Repair, not_before: Instant) {
        self.verifying.job = Some(Verify::new(now, self.intent.geometry(), repair));
        self.verifying.pause_until = not_before;
        self.verifying.not_before = not_before;
        self.verifying.told = false;
    }

    /// The verify that runs, or the last one.
    pub fn verify(&self) -> Option<&Verify> {
        self.verifying.job.as_ref()
    }

    /// Whether one is to be gone on with.
    pub fn verifies(&self) -> bool {
        self.verify().is_some_and(Verify::is_open)
    }

    /// Whether runs are under way.
    pub fn verify_has_runs(&self) -> bool {
        self.verifying.runs.iter().any(Option::is_some)
    }

    /// Whether buffers are in use for a verify of either side.
    pub fn verify_is_reading(&self) -> bool {
        let mut runs = self.verifying.runs.iter().flatten();
        let asked = self.verifying.asked.iter().any(Option::is_some);
        asked || runs.any(|run| matches!(run.stage, Stage::Read | Stage::GivenUp))
    }

    /// Whether an application write to `range` that arrived at `arrived` has to wait. What was there before a run
    /// goes first: a write that a killed daemon left half done is one of these, and a difference until then.
    pub(super) fn verify_locks(&self, range: SectorRange, arrived: Instant) -> bool {
        if mutant::is(Mutant::VerifyUnlocked) {
            return false;
        }
        let asked = self.verifying.asked.iter().flatten();
        if asked.into_iter().any(|asked| asked.range.overlaps(range)) {
            return true;
        }
        let Some(job) = self.verify() else {
            return false;
        };
        let unlocked = mutant::is(Mutant::RepairUnlocked);
        let mut runs = self.verifying.runs.iter().flatten();
        runs.any(|run| {
            let written = matches!(run.stage, Stage::Repaired | Stage::Written);
            let earlier = run.stage == Stage::Writes
                && arrived <= run.began
                && !mutant::is(Mutant::VerifyJumpsQueue);
            job.geometry().sectors(&run.whole).overlaps(range) && !earlier && !(unlocked && written)
        })
    }

    /// Whether the slot's buffer is a verify's.
    pub fn verify_has(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        let run = self.verifying.runs.get(slot).is_some_and(Option::is_some);
        run || self.verifying.asked.get(slot).is_some_and(Option::is_some)
    }

    // --- the side that compares ---------------------------------------------------------------

    /// Begins what may begin, and ends the verify when it is done.
    pub fn verify_steps(&mut self, now: Instant, effects: &mut Effects) {
        self.verifying.rests = false;
        if !self.verifies() {
            return;
        }
        self.verify_gives_way();
        let closing = self.verifying.closing == self.peer.session();
        let member = matches!(self.peer, Peer::Member(_)) && !closing;
        if let Some(job) = self.verifying.job.as_mut() {
            job.set_waiting(!member);
        }
        if member {
            self.verify_begin_runs(now, effects);
        }
        let idle = !self.verify_has_runs();
        let Some(job) = self.verifying.job.as_mut().filter(|_| idle) else {
            return;
        };
        let state = job
            .ending
            .or(job.is_complete().then_some(VerifyState::Done));
        if let Some(state) = state {
            job.end(now, state);
            self.verifying.rests = false;
            let (differing, repaired, unreadable) = job.counts();
            effects.push(Effect::Notice(Notice::Upkeep(UpkeepNotice::VerifyEnded {
                state,
                differing,
                repaired,
                unreadable,
            })));
            self.pump(now, effects);
        }
    }

    fn verify_begin_runs(&mut self, now: Instant, effects: &mut Effects) {
        for slot in 0..SLOTS {
            let waits = self.verifying.runs[slot]
                .as_ref()
                .is_some_and(|run| run.stage == Stage::Writes);
            if waits {
                self.verify_try(slot, effects);
            }
        }
        let busy = self.is_busy(now);
        let early = now < self.verifying.not_before;
        self.verifying.rests = early || (busy && now < self.verifying.pause_until);
        let slots_max = if busy { INFLIGHT_BUSY } else { SLOTS };
        if self.verifying.rests {
            return;
        }
        while self.verifying.runs.iter().flatten().count() < slots_max {
            let free = (0..SLOTS).find(|slot| {
                let slot_of = u16::try_from(*slot).unwrap_or(u16::MAX);
                self.copy_reading[*slot].is_none() && !self.verify_has(slot_of)
            });
            let Some(job) = self
                .verifying
                .job
                .as_mut()
                .filter(|job| job.ending.is_none())
            else {
                return;
            };
            let Some(slot) = free else { return };
            let Some(whole) = job.next_run() else { return };
            self.verifying.runs[slot] = Some(Run {
                part: whole.clone(),
                parts: Vec::new(),
                whole,
                stage: Stage::Writes,
                written: None,
                told: false,
                began: now,
            });
            self.verify_try(slot, effects);
        }
    }

    fn verify_sectors(&self, blocks: &BlockRange) -> SectorRange {
        let job = self.verify();
        job.map_or(SectorRange::new(0, 0), |job| job.geometry().sectors(blocks))
    }

    /// New writes wait for the run from now on; those that are running go first.
    fn verify_try(&mut self, slot: usize, effects: &mut Effects) {
        let Some(run) = self.verifying.runs[slot].as_ref() else {
            return;
        };
        let (began, whole) = (run.began, self.verify_sectors(&run.whole));
        let overlapped = self.slots.iter().any(|entry| {
            let earlier = entry.changes_data()
                && entry.arrived <= began
                && !mutant::is(Mutant::VerifyJumpsQueue);
            (earlier || entry.is_changing()) && entry.request.range.overlaps(whole)
        });
        if !overlapped || mutant::is(Mutant::VerifyIntoWrite) {
            self.verify_read(slot, effects);
        }
    }

    /// A repair counts when both sides hold the same.
    fn verify_read_again(&mut self, slot: usize, effects: &mut Effects) {
        if let Some(run) = self.verifying.runs[slot].as_mut() {
            run.written = Some(run.part.start);
        }
        self.verify_read(slot, effects);
    }

    fn verify_read(&mut self, slot: usize, effects: &mut Effects) {
        let Some(run) = self.verifying.runs[slot].as_mut() else {
            return;
        };
        run.stage = Stage::Read;
        let part = run.part.clone();
        let range = self.verify_sectors(&part);
        effects.push(Effect::Disk {
            owner: IoOwner::Copy(u16::try_from(slot).unwrap_or(u16::MAX)),
            operation: DiskOperation::Read,
            range,
        });
    }

    /// A buffer was filled. Returns what is to be said to the other side, if it had asked.
    pub fn verify_read_done(
        &mut self,
        now: Instant,
        slot: u16,
        result: DiskResult,
        effects: &mut Effects,
    ) -> Option<(SessionId, VerifyAnswer)> {
        let index = usize::from(slot);
        if let Some(asked) = self.verifying.asked[index] {
            let answer = match (result, asked.digest) {
                (Err(errno), _) => VerifyAnswer::Failed(errno),
                (Ok(()), None) => VerifyAnswer::Block(asked.range),
                (Ok(()), Some(_)) => {
                    self.verify_examine(slot, asked.range, effects);
                    return None;
                }
            };
            self.verifying.asked[index] = None;
            self.pump(now, effects);
            return Some((asked.session, answer));
        }
        let run = self.verifying.runs[index].as_ref()?;
        let (stage, part) = (run.stage, run.part.clone());
        if stage == Stage::GivenUp {
            self.verify_forget(now, index, effects);
        } else if self.verify_distrusts() {
            self.verify_put_back(now, index, effects);
        } else if let Err(errno) = result {
            self.verify_unreadable(now, index, VerifyFinding::UnreadableHere, errno, effects);
        } else {
            let range = self.verify_sectors(&part);
            self.verify_examine(slot, range, effects);
        }
        None
    }

    fn verify_examine(&self, slot: u16, range: SectorRange, effects: &mut Effects) {
        effects.push(Effect::Examine {
            slot,
            range,
            digest: true,
        });
    }

    /// What is in a buffer.
    pub fn verify_examined(
        &mut self,
        now: Instant,
        slot: u16,
        zero: bool,
        digest: Option<Digest>,
        effects: &mut Effects,
    ) -> Option<(SessionId, VerifyAnswer)> {
        let index = usize::from(slot);
        let digest = digest_of(zero, digest);
        if let Some(asked) = self.verifying.asked[index].take() {
            self.pump(now, effects);
            let equal = asked.digest == Some(digest);
            return Some((asked.session, VerifyAnswer::Compared(equal)));
        }
        let session = self.peer.session();
        let run = self.verifying.runs[index].as_mut()?;
        let (Some(session), Stage::Read) = (session, run.stage) else {
            self.verify_forget(now, index, effects);
            return None;
        };
        run.stage = Stage::Answer;
        let part = run.part.clone();
        let range = self.verify_sectors(&part);
        self.verify_send(
            session,
            FrameKind::VerifyHash,
            slot,
            range,
            digest.to_vec(),
            effects,
        );
        None
    }

    fn verify_send(
        &self,
        session: SessionId,
        kind: FrameKind,
        slot: u16,
        range: SectorRange,
        body: Vec<u8>,
        effects: &mut Effects,
    ) {
        if kind == FrameKind::VerifyWrite {
            return self.verify_send_block(session, self.epoch, slot, range, effects);
        }
        let mut frame = Frame::new(kind, self.epoch, u64::from(slot));
        frame.range = range;
        frame.length_bytes = u32::try_from(body.len()).unwrap_or(0);
        effects.push(Effect::Send {
            session,
            frame,
            body,
            payload: None,
        });
    }

    /// The other side's word. An answer to what was given up is no news.
    pub fn verify_answered(
        &mut self,
        now: Instant,
        slot: u16,
        result: Result<bool, Errno>,
        effects: &mut Effects,
    ) {
        let index = usize::from(slot);
        let Some(run) = self.verifying.runs.get(index).and_then(Option::as_ref) else {
            return;
        };
        let distrusted = self.verify_distrusts() && run.stage == Stage::Answer;
        match (run.stage, result) {
            (Stage::Answer, _) if distrusted => self.verify_put_back(now, index, effects),
            (Stage::Answer | Stage::Block, Err(NOT_NOW)) | (Stage::Repaired, Err(_)) => {
                self.verify_put_back(now, index, effects);
            }
            (Stage::Answer | Stage::Block, Err(errno)) => {
                self.verify_unreadable(now, index, VerifyFinding::UnreadableThere, errno, effects);
            }
            (Stage::Answer, Ok(true)) => {
                let part = run.part.clone();
                if let Some(job) = self.verifying.job.as_mut() {
                    job.equal(&part);
                }
                self.verify_next(now, index, effects);
            }
            (Stage::Answer, Ok(false)) => self.verify_differs(now, index, effects),
            (Stage::Repaired, Ok(_)) => self.verify_read_again(index, effects),
            (Stage::Writes | Stage::Read | Stage::Written | Stage::GivenUp, _)
            | (Stage::Block, Ok(_)) => {}
        }
    }

    /// A part differs: halves of it are asked for, down to one block; that one is repaired if it may be.
    fn verify_differs(&mut self, now: Instant, slot: usize, effects: &mut Effects) {
        let session = self.peer.session();
        let (Some(job), Some(run)) = (
            self.verifying.job.as_mut(),
            self.verifying.runs[slot].as_mut(),
        ) else {
            return;
        };
        if run.halve() {
            return self.verify_read(slot, effects);
        }
        let part = run.part.clone();
        if !core::mem::replace(&mut self.verifying.told, true) {
            let range = job.geometry().sectors(&part);
            effects.push(Effect::Notice(Notice::Upkeep(
                UpkeepNotice::VerifyDiffers { range },
            )));
        }
        let again = run.written == Some(part.start);
        let (Some(session), false, true) = (session, again, job.repair() != Repair::Nothing) else {
            job.differs(part.start);
            return self.verify_next(now, slot, effects);
        };
        job.repairs(part.start);
        let kind = if job.repair() == Repair::Peer {
            run.stage = Stage::Repaired;
            FrameKind::VerifyWrite
        } else {
            run.stage = Stage::Block;
            FrameKind::VerifyWant
        };
        let range = self.verify_sectors(&part);
        let slot = u16::try_from(slot).unwrap_or(u16::MAX);
        self.verify_send(session, kind, slot, range, Vec::new(), effects);
        if mutant::is(Mutant::RepairUnlocked) {
            self.pump(now, effects);
        }
    }

    /// The other side's block came. Returns whether it may be written here.
    pub fn verify_block_came(&mut self, slot: u16, range: SectorRange) -> bool {
        let expected = self.verifying.runs.get(usize::from(slot));
        let Some(run) = expected.and_then(Option::as_ref) else {
            return false;
        };
        let fits = run.stage == Stage::Block && self.verify_sectors(&run.part) == range;
        if let Some(run) = self.verifying.runs[usize::from(slot)]
            .as_mut()
            .filter(|_| fits)
        {
            run.stage = Stage::Written;
        }
        fits
    }

    /// The block is durable here, or its write failed (then the disk has failed, and the caller knows).
    pub fn verify_written(
        &mut self,
        now: Instant,
        slot: u16,
        result: DiskResult,
        effects: &mut Effects,
    ) {
        let index = usize::from(slot);
        let stage = self
            .verifying
            .runs
            .get(index)
            .and_then(Option::as_ref)
            .map(|run| run.stage);
        match (stage, result) {
            (Some(Stage::Written), Ok(())) => self.verify_read_again(index, effects),
            (Some(Stage::Written | Stage::GivenUp), _) => self.verify_forget(now, index, effects),
            _ => {}
        }
    }

    /// A part cannot be read on one side: halves of it are tried, so that the rest is compared. The first block of
    /// a run is told.
    fn verify_unreadable(
        &mut self,
        now: Instant,
        slot: usize,
        finding: VerifyFinding,
        errno: Errno,
        effects: &mut Effects,
    ) {
        let Some(run) = self.verifying.runs[slot].as_mut() else {
            return;
        };
        if run.halve() {
            return self.verify_read(slot, effects);
        }
        let part = run.part.clone();
        let told = core::mem::replace(&mut run.told, true);
        if let Some(job) = self.verifying.job.as_mut() {
            let range = job.geometry().sectors(&part);
            let here = finding == VerifyFinding::UnreadableHere;
            job.unreadable(&part, finding);
            let notice = UpkeepNotice::VerifyUnreadable { range, errno, here };
            effects.extend((!told).then_some(Effect::Notice(Notice::Upkeep(notice))));
        }
        self.verify_next(now, slot, effects);
    }

    /// The next part of a run, or its end.
    fn verify_next(&mut self, now: Instant, slot: usize, effects: &mut Effects) {
        let Some(run) = self.verifying.runs[slot].as_mut() else {
            return;
        };
        if let Some(part) = run.parts.pop() {
            run.part = part;
            return self.verify_read(slot, effects);
        }
        let (whole, began) = (run.whole.clone(), run.began);
        self.verifying.runs[slot] = None;
        if let Some(job) = self.verifying.job.as_mut() {
            job.checked(now, &whole);
        }
        self.verifying.pause_until = now + (now.since(began) * REST_TIMES).min(REST_MAX);
        self.pump(now, effects);
    }

    /// A run comes to nothing, and is compared again later.
    fn verify_put_back(&mut self, now: Instant, slot: usize, effects: &mut Effects) {
        if let Some(run) = self.verifying.runs[slot].take()
            && let Some(job) = self.verifying.job.as_mut()
        {
            job.put_back(run.whole);
        }
        self.verifying.pause_until = now + AGAIN_AFTER;
        self.verifying.not_before = self.verifying.not_before.max(now + AGAIN_AFTER);
        self.pump(now, effects);
    }

    fn verify_forget(&mut self, now: Instant, slot: usize, effects: &mut Effects) {
        self.verifying.runs[slot] = None;
        self.pump(now, effects);
    }

    /// When the verify goes on after a rest.
    pub fn verify_deadline(&self) -> Option<Instant> {
        if !self.verifying.rests {
            return None;
        }
        let due = self.idle_at().map_or(self.verifying.pause_until, |idle| {
            idle.min(self.verifying.pause_until)
        });
        Some(due.max(self.verifying.not_before))
    }
}
