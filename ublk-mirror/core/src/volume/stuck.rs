//! Disks that do not answer: an operation that is under way longer than its limit is given up, exactly once,
//! and the disk counts as failed (S1).
//!
//! The kernel may carry out what was given up at any later time. A late write lands on a copy that is to be
//! filled anew and that nobody asks for anything any more in this run of the daemon; a late read lands in
//! memory that the shell keeps apart ([`Effect::Abandon`]); the next run cannot open the device before
//! everything of this one has ended.

use alloc::vec::Vec;
use core::time::Duration;

use crate::effect::{Effect, Effects};
use crate::event::{Event, IoOwner};
use crate::limits::{COPY_INFLIGHT_MAX, QUEUE_DEPTH, SERVED_READS_MAX};
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, StuckNotice};
use crate::types::{Errno, Instant, Tag};

use super::Volume;
use super::standby::PEER_OPS_MAX;

const PEER: usize = QUEUE_DEPTH as usize;
const COPY: usize = PEER + PEER_OPS_MAX;
const SERVE: usize = COPY + COPY_INFLIGHT_MAX as usize;
const OWN: usize = SERVE + SERVED_READS_MAX as usize;
/// Operations of the backing device that can be under way: each owner has one.
const OWNERS: usize = OWN + 3;

/// Between asking a disk that was given up and its answer, so that nothing turns in circles.
const REFUSAL_AFTER: Duration = Duration::from_millis(1);

/// What was found late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Disk,
    Metadata,
}

/// Since when operations are under way.
///
/// An operation that begins and ends costs a store each. They are looked at once per limit at most, and a
/// second time before any is given up: a machine that stood still finds answers waiting for it.
#[derive(Debug)]
pub(super) struct Watch {
    limit: Duration,
    /// When the operation of an owner began.
    began: Vec<Option<Instant>>,
    /// Writes of metadata that are not yet reported; they run one after the other.
    metadata: usize,
    metadata_began: Instant,
    look_at: Option<Instant>,
    /// The last look found something late.
    suspicious: bool,
    /// Nothing is asked of this disk any more.
    given_up: bool,
    /// Who asked it nevertheless, to be answered.
    refused: Vec<IoOwner>,
    refused_at: Instant,
}

fn place(owner: IoOwner) -> usize {
    match owner {
        IoOwner::Application(tag) => usize::from(tag.0),
        IoOwner::Peer(slot) => PEER + usize::from(slot),
        IoOwner::Copy(slot) => COPY + usize::from(slot),
        IoOwner::Serve(slot) => SERVE + usize::from(slot),
        IoOwner::ViewFlush => OWN,
        IoOwner::LogFlush => OWN + 1,
        IoOwner::Grow => OWN + 2,
    }
}

fn owner(place: usize) -> IoOwner {
    let number = |first: usize| u16::try_from(place - first).unwrap_or(u16::MAX);
    match place {
        OWN => IoOwner::ViewFlush,
        place if place == OWN + 1 => IoOwner::LogFlush,
        place if place > OWN => IoOwner::Grow,
        SERVE.. => IoOwner::Serve(number(SERVE)),
        COPY.. => IoOwner::Copy(number(COPY)),
        PEER.. => IoOwner::Peer(number(PEER)),
        _ => IoOwner::Application(Tag(number(0))),
    }
}

impl Watch {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            began: (0..OWNERS).map(|_| None).collect(),
            metadata: 0,
            metadata_began: Instant::default(),
            look_at: None,
            suspicious: false,
            given_up: false,
            refused: Vec::new(),
            refused_at: Instant::default(),
        }
    }

    /// Between two looks at something that is late.
    fn grace(&self) -> Duration {
        self.limit / 8
    }

    fn begins(&mut self, now: Instant, owner: IoOwner) {
        self.began[place(owner)] = Some(now);
        self.look_at.get_or_insert(now + self.limit);
    }

    /// Whether this end is of an operation that is still waited for.
    pub(super) fn ended(&mut self, owner: IoOwner) -> bool {
        let began = self.began.get_mut(place(owner));
        began.is_some_and(|began| began.take().is_some())
    }

    fn metadata_begins(&mut self, now: Instant) {
        if self.metadata == 0 {
            self.metadata_began = now;
        }
        self.metadata += 1;
        self.look_at.get_or_insert(now + self.limit);
    }

    /// The first one is durable; the next one begins.
    fn metadata_ended(&mut self, now: Instant) {
        self.metadata = self.metadata.saturating_sub(1);
        self.metadata_began = now;
    }

    /// When the next look is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let refused = (!self.refused.is_empty()).then_some(self.refused_at + REFUSAL_AFTER);
        self.look_at.into_iter().chain(refused).min()
    }

    fn oldest(&self) -> Option<(Instant, Late)> {
        let disk = self.began.iter().flatten().min().copied();
        let metadata = (self.metadata > 0).then_some(self.metadata_began);
        let metadata = metadata.filter(|_| !mutant::is(Mutant::StuckMetadataForEver));
        let disk = disk.filter(|_| !mutant::is(Mutant::StuckForEver));
        let disk = disk.map(|began| (began, Late::Disk));
        let metadata = metadata.map(|began| (began, Late::Metadata));
        disk.into_iter()
            .chain(metadata)
            .min_by_key(|(began, _)| *began)
    }

    /// Looks, if it is time, for what has to be given up.
    fn look(&mut self, now: Instant) -> Option<Late> {
        let due = self.look_at.filter(|due| now >= *due)?;
        let suspicious = core::mem::replace(&mut self.suspicious, false);
        let Some((began, late)) = self.oldest() else {
            self.look_at = None;
            return None;
        };
        if now < began + self.limit {
            self.look_at = Some(began + self.limit);
            return None;
        }
        // Who looks late has stood still himself: the answers may be there, and not yet taken.
        let in_time = now.since(due) <= self.grace();
        if suspicious && in_time || mutant::is(Mutant::PauseCountsAsStuck) {
            self.look_at = Some(now + self.grace());
            return Some(late);
        }
        self.suspicious = true;
        self.look_at = Some(now + self.grace());
        None
    }

    /// Something was given up. What else is late was seen once by that, and has no more than its own grace left.
    fn look_for_more(&mut self, now: Instant) {
        if let Some((began, _)) = self.oldest() {
            let late = began + self.limit;
            self.suspicious = late <= now;
            let grace = self.grace();
            self.look_at = Some(if self.suspicious {
                (late + grace).max(now)
            } else {
                late
            });
        }
    }

    /// Everything that is under way, which is not waited for any more.
    fn give_up(&mut self) -> Vec<IoOwner> {
        self.given_up = !mutant::is(Mutant::GivenUpAskedAgain);
        let places = self.began.iter_mut().enumerate();
        places
            .filter_map(|(place, began)| began.take().map(|_| owner(place)))
            .collect()
    }
}

impl Volume {
    /// What an event says of the metadata.
    pub(super) fn watch_event(&mut self, now: Instant, event: &Event<'_>) {
        if matches!(event, Event::Persisted { .. } | Event::BlockWritten { .. }) {
            self.watch.metadata_ended(now);
        } else if matches!(event, Event::PersistFailed { .. }) {
            self.watch.metadata = 0;
        }
    }

    /// What begins with these effects. A disk that was given up is not asked.
    pub(super) fn watch_effects(&mut self, now: Instant, first: usize, effects: &mut Effects) {
        let given_up = self.watch.given_up;
        let mut asked = false;
        for effect in effects.iter().skip(first) {
            if let Effect::Disk { owner, .. } = effect {
                if given_up {
                    self.watch.refused.push(*owner);
                    self.watch.refused_at = now;
                    asked = true;
                } else {
                    self.watch.begins(now, *owner);
                }
            } else if matches!(effect, Effect::Persist(_) | Effect::WriteBlock { .. }) {
                self.watch.metadata_begins(now);
            }
        }
        if asked {
            let mut place = 0;
            effects.retain(|effect| {
                place += 1;
                place <= first || !matches!(effect, Effect::Disk { .. })
            });
        }
    }

    /// What is late is given up.
    pub(super) fn stuck_over(&mut self, now: Instant, effects: &mut Effects) {
        if !self.watch.refused.is_empty() && now >= self.watch.refused_at + REFUSAL_AFTER {
            for owner in core::mem::take(&mut self.watch.refused) {
                self.disk_done(now, owner, Err(Errno::ETIMEDOUT), effects);
            }
        }
        match self.watch.look(now) {
            None => return,
            Some(Late::Disk) => self.give_up_disk(now, effects),
            Some(Late::Metadata) => {
                let limit_ms = self.limit_ms();
                effects.push(Effect::Notice(Notice::Stuck(StuckNotice::Metadata {
                    limit_ms,
                })));
                self.watch.metadata = 0;
                effects.push(Effect::AbandonMetadata);
                self.metadata_failed(now, Errno::ETIMEDOUT, effects);
            }
        }
        self.watch.look_for_more(now);
    }

    /// Whether nothing more is asked of the disk in this run.
    pub(super) fn has_given_up_its_disk(&self) -> bool {
        self.watch.given_up
    }

    fn limit_ms(&self) -> u64 {
        u64::try_from(self.watch.limit.as_millis()).unwrap_or(u64::MAX)
    }

    /// One operation is late, so the disk is failed: the others are not waited for either. They fail after the
    /// disk does, so that nothing that waited for one of them begins.
    fn give_up_disk(&mut self, now: Instant, effects: &mut Effects) {
        let owners = self.watch.give_up();
        effects.push(Effect::Notice(Notice::Stuck(StuckNotice::Disk {
            limit_ms: self.limit_ms(),
            operations: owners.len(),
            isolated: self.is_isolated(),
        })));
        for owner in &owners {
            if !mutant::is(Mutant::GivenUpUntold) {
                effects.push(Effect::Abandon { owner: *owner });
            }
        }
        if mutant::is(Mutant::GivenUpCounts) {
            self.watch.given_up = false;
            for owner in owners {
                self.disk_done(now, owner, Ok(()), effects);
            }
            return;
        }
        if !self.is_isolated() {
            // Nothing was promised of an isolated copy, and nothing changes it: its reads alone fail.
            self.disk_failed(now, Errno::ETIMEDOUT, effects);
        }
        for owner in owners {
            self.disk_done(now, owner, Err(Errno::ETIMEDOUT), effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn every_owner_has_a_place_of_its_own() {
        for place_of in 0..OWNERS {
            assert_eq!(place(owner(place_of)), place_of);
        }
    }

    #[test]
    fn an_operation_is_given_up_after_its_limit_and_a_second_look_exactly_once() {
        let mut watch = Watch::new(LIMIT);
        let read = IoOwner::Application(Tag(3));
        watch.begins(at(0), read);
        assert_eq!(watch.deadline(), Some(at(8000)));
        assert_eq!(watch.look(at(7999)), None);
        assert_eq!(watch.look(at(8000)), None);
        assert_eq!(watch.deadline(), Some(at(9000)));
        assert_eq!(watch.look(at(9000)), Some(Late::Disk));
        assert_eq!(watch.give_up(), [read]);
        assert!(!watch.ended(read), "a late end counts for nothing");
        assert_eq!(watch.look(at(99_000)), None);
    }

    #[test]
    fn what_ends_in_time_is_not_given_up() {
        let mut watch = Watch::new(LIMIT);
        watch.begins(at(0), IoOwner::ViewFlush);
        watch.begins(at(5000), IoOwner::LogFlush);
        assert!(watch.ended(IoOwner::ViewFlush));
        assert_eq!(watch.look(at(8000)), None);
        assert_eq!(watch.deadline(), Some(at(13_000)));
        assert!(watch.ended(IoOwner::LogFlush));
        assert_eq!(watch.look(at(13_000)), None);
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn a_machine_that_stood_still_takes_the_answers_that_wait_first() {
        let mut watch = Watch::new(LIMIT);
        watch.begins(at(0), IoOwner::Grow);
        // It slept for a minute.
        assert_eq!(watch.look(at(60_000)), None);
        // And again between the two looks.
        assert_eq!(watch.look(at(90_000)), None);
        assert_eq!(watch.look(at(91_000)), Some(Late::Disk));
    }

    #[test]
    fn each_write_of_metadata_has_the_whole_limit() {
        let mut watch = Watch::new(LIMIT);
        watch.metadata_begins(at(0));
        watch.metadata_begins(at(10));
        watch.metadata_ended(at(7000));
        assert_eq!(watch.look(at(8000)), None);
        assert_eq!(watch.deadline(), Some(at(15_000)));
        assert_eq!(watch.look(at(15_000)), None);
        assert_eq!(watch.look(at(16_000)), Some(Late::Metadata));
    }
}
