//! Reads that the own disk cannot do: the peer, whose copy counts, does them, and what it read is written to the
//! own disk, which finds another place for it.
//!
//! From the question to the end of that write such a read counts as a change of data: it waits for writes that
//! are running there, later ones wait for it, and the activity log names its extent (S7). So what the peer reads
//! is what both copies hold, and nothing newer can be overwritten with it. The application gets its answer when
//! the block is good again.

use alloc::vec::Vec;

use super::inflight::{Heal, Leg, Stage};
use super::{Engine, Gate, Peer};
use crate::effect::{DiskOperation, Effect, Effects};
use crate::event::IoOwner;
use crate::limits::{READ_NOTICE_EVERY, SERVED_READS_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::{DiskNotice, Notice};
use crate::types::{Errno, Instant, SectorRange, SessionId, Tag};
use crate::wire::{Frame, FrameKind};

/// A place in which an answer of the peer is waited for; the peer has a buffer for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Free,
    Taken(Tag),
    /// Nobody waits for it any more, but the peer still owes it: its buffer is in use there.
    GivenUp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Healing {
    places: [Place; SERVED_READS_MAX as usize],
    /// The peer's copy counts, and the peer does not know that yet: it would not answer.
    unknown: bool,
    /// When the operator was told last.
    told_healed: Option<Instant>,
    told_failed: Option<Instant>,
}

/// What the peer answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAnswer {
    /// Its data are in this receive buffer.
    Data(u16),
    /// It could not read there either.
    Failed(Errno),
}

impl Healing {
    pub(super) fn has_room(&self) -> bool {
        self.places.contains(&Place::Free) && !self.unknown
    }

    fn take(&mut self, tag: Tag) -> Option<u16> {
        let free = self.places.iter().position(|place| *place == Place::Free)?;
        self.places[free] = Place::Taken(tag);
        u16::try_from(free).ok()
    }
}

/// Whether the operator is to be told again.
fn is_due(told: &mut Option<Instant>, now: Instant) -> bool {
    let due = told.is_none_or(|told| now.since(told) >= READ_NOTICE_EVERY);
    if due {
        *told = Some(now);
    }
    due
}

impl Engine {
    /// Whether this request is a read whose block is being made good.
    pub(super) fn heals(&self, tag: Tag) -> bool {
        self.request(tag).is_some_and(|entry| entry.heal.is_some())
    }

    /// The own disk could not do a request of the application. Returns whether that was a read, which concerns
    /// nothing else: the peer is asked for it if its copy counts; otherwise it fails alone.
    pub fn read_failed(
        &mut self,
        now: Instant,
        tag: Tag,
        errno: Errno,
        effects: &mut Effects,
    ) -> bool {
        let counts = match self.peer {
            Peer::Member(_) | Peer::Lost => true,
            Peer::Target(_) | Peer::Joining(_) => mutant::is(Mutant::ServeReadOutdated),
            Peer::Absent => false,
        };
        let open = self.gate == Gate::Open;
        let Some(entry) = self.slots.get_mut(usize::from(tag.0)) else {
            return false;
        };
        if entry.writes() || !matches!(entry.local, Leg::Sent) || entry.heal.is_some() {
            return false;
        }
        if entry.request.range.count == 0 || mutant::is(Mutant::ReadErrorFailsDisk) {
            return false;
        }
        entry.local = Leg::Done;
        if entry.failure.is_none() && open && counts {
            entry.heal = Some((Heal::Wanted, errno));
            entry.stage = Stage::Waiting;
            self.wait_in_turn(tag);
            self.pump(now, effects);
            return true;
        }
        let range = entry.request.range;
        entry.failure = entry.failure.or(Some(errno));
        if open {
            self.tell_read_failed(now, range, errno, None, effects);
        }
        self.finish_if_done(now, usize::from(tag.0), effects);
        true
    }

    /// A read that was running comes before whatever waits there for data to change, but not before another such read
    /// that came earlier: a run of a verify lets past what came before it, which must not wait for what comes after it.
    fn wait_in_turn(&mut self, tag: Tag) {
        let arrived = self.request(tag).map(|entry| entry.arrived);
        let later = |waits: &Tag| self.request(*waits).map(|entry| entry.arrived) >= arrived;
        let at = self.waiting.iter().position(later);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), tag);
    }

    fn tell_read_failed(
        &mut self,
        now: Instant,
        range: SectorRange,
        errno: Errno,
        peer: Option<Errno>,
        effects: &mut Effects,
    ) {
        if is_due(&mut self.healing.told_failed, now) {
            effects.push(Effect::Notice(Notice::Disk(DiskNotice::ReadFailed {
                range,
                errno,
                peer,
            })));
        }
    }

    /// Nobody writes there now, and the log names it.
    pub(super) fn begin_heal(&mut self, now: Instant, tag: Tag, effects: &mut Effects) {
        let Some(place) = self.healing.take(tag) else {
            return;
        };
        let diskless = self.is_diskless();
        let Some(entry) = self.slots.get_mut(usize::from(tag.0)) else {
            return;
        };
        entry.stage = Stage::Running;
        entry.local = Leg::Done;
        entry.peer = Leg::Unsent;
        let errno = entry.heal.map_or(Errno::EIO, |(_, errno)| errno);
        let range = entry.request.range;
        if diskless {
            entry.heal = Some((Heal::Through(place), errno));
        } else {
            entry.heal = Some((Heal::Asked(place), errno));
            self.intent.begin(range, true);
            self.unflushed_since = self.unflushed_since.or(Some(now));
        }
        self.send_to_peer(tag, effects);
    }

    pub(super) fn ask_for_block(&mut self, session: SessionId, tag: Tag, effects: &mut Effects) {
        let epoch = self.epoch;
        let Some(entry) = self.slots.get_mut(usize::from(tag.0)) else {
            return;
        };
        let Some(place) = entry.heal.and_then(|(heal, _)| heal.place()) else {
            return;
        };
        entry.peer = Leg::Sent;
        let mut frame = Frame::new(FrameKind::Read, epoch, u64::from(place));
        frame.range = entry.request.range;
        effects.push(Effect::Send {
            session,
            frame,
            body: Vec::new(),
            payload: None,
        });
    }

    /// The peer's answer. Returns whether one was owed.
    pub fn read_answered(
        &mut self,
        now: Instant,
        place: u16,
        range: SectorRange,
        answer: ReadAnswer,
        effects: &mut Effects,
    ) -> bool {
        let leaves = self.without_disk();
        let tag = match self.healing.places.get(usize::from(place)) {
            None | Some(Place::Free) => return false,
            Some(Place::GivenUp) => {
                self.healing.places[usize::from(place)] = Place::Free;
                self.pump(now, effects);
                return true;
            }
            Some(Place::Taken(tag)) => *tag,
        };
        let index = usize::from(tag.0);
        let Some(entry) = self.slots.get_mut(index) else {
            return false;
        };
        let Some((heal, errno)) = entry.heal.as_mut() else {
            return false;
        };
        let asked = heal.place() == Some(place) && entry.peer == Leg::Sent;
        if !asked || entry.request.range != range {
            return false;
        }
        self.healing.places[usize::from(place)] = Place::Free;
        entry.peer = Leg::Done;
        let errno = *errno;
        match answer {
            ReadAnswer::Failed(theirs) if !mutant::is(Mutant::HealErrorIgnored) => {
                entry.failure = Some(errno);
                self.tell_read_failed(now, range, errno, Some(theirs), effects);
                self.finish_if_done(now, index, effects);
            }
            ReadAnswer::Failed(_) => self.finish_if_done(now, index, effects),
            ReadAnswer::Data(slot) => {
                effects.push(Effect::FillRequest { tag, slot, range });
                if leaves || mutant::is(Mutant::HealWithoutRewrite) {
                    self.finish_if_done(now, index, effects);
                } else {
                    *heal = Heal::Writing;
                    entry.local = Leg::Sent;
                    effects.push(Effect::Disk {
                        owner: IoOwner::Application(tag),
                        operation: DiskOperation::Write { fua: false },
                        range,
                    });
                }
            }
        }
        // A place is free again.
        self.pump(now, effects);
        true
    }

    /// What was written here is counted.
    pub(super) fn note_healed(&mut self, now: Instant, index: usize, effects: &mut Effects) {
        let Some(entry) = self.slots.get(index) else {
            return;
        };
        let (Some((Heal::Writing, errno)), None) = (entry.heal, entry.failure) else {
            return;
        };
        let range = entry.request.range;
        self.counters.healed_reads += 1;
        let count = self.counters.healed_reads;
        if is_due(&mut self.healing.told_healed, now) {
            effects.push(Effect::Notice(Notice::Disk(DiskNotice::ReadHealed {
                range,
                errno,
                count,
            })));
        }
    }

    /// The peer's copy does not count any more: what only it could read fails.
    pub(super) fn heals_lost_copy(&mut self, now: Instant, effects: &mut Effects) {
        self.heals_given_up();
        for index in self.slots.indices() {
            let Some(entry) = self.slots.get_mut(index) else {
                continue;
            };
            let Some((Heal::Wanted | Heal::Asked(_) | Heal::Through(_), errno)) = entry.heal else {
                continue;
            };
            let (tag, range) = (entry.request.tag, entry.request.range);
            entry.peer = Leg::NotNeeded;
            entry.failure = Some(errno);
            self.waiting.retain(|waits| *waits != tag);
            self.tell_read_failed(now, range, errno, None, effects);
            self.finish_if_done(now, index, effects);
        }
    }

    /// The peer's copy counts from now on, and the peer has to be told.
    pub(super) fn heals_wait_for_peer(&mut self) {
        self.healing.unknown = true;
    }

    /// The peer knows that its copy counts.
    pub fn peer_knows(&mut self, now: Instant, effects: &mut Effects) {
        self.healing.unknown = false;
        self.pump(now, effects);
    }

    /// Nobody waits for the peer's answers any more.
    pub(super) fn heals_given_up(&mut self) {
        for place in &mut self.healing.places {
            if let Place::Taken(tag) = *place {
                let entry = self.slots.get(usize::from(tag.0));
                let owed = entry.is_some_and(|entry| entry.peer == Leg::Sent);
                *place = if owed { Place::GivenUp } else { Place::Free };
            }
        }
    }

    /// The session ended: nothing is owed any more. What is still wanted is asked for on the next one.
    pub(super) fn heals_lost_session(&mut self) {
        self.healing.unknown = false;
        for place in &mut self.healing.places {
            if *place == Place::GivenUp {
                *place = Place::Free;
            }
        }
    }
}
