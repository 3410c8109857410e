//! A request ends: on the own disk, on the peer, and for the application.

use core::time::Duration;

use super::inflight::{InFlight, Leg, Stage};
use super::{Engine, Peer};
use crate::effect::{Effect, Effects};
use crate::event::{DiskResult, RequestKind};
use crate::mutant::{self, Mutant};
use crate::types::{Instant, Tag};

impl Engine {
    /// The local disk is done with a request. A failure is a failed member (S1): the caller shuts the
    /// gate; the request itself fails in any case.
    pub fn local_done(
        &mut self,
        now: Instant,
        tag: Tag,
        result: DiskResult,
        effects: &mut Effects,
    ) {
        let index = usize::from(tag.0);
        if result.is_ok() && self.read_proves_nothing(now, tag, effects) {
            return;
        }
        let Some(entry) = self.slots.get_mut(index) else {
            return;
        };
        entry.local = Leg::Done;
        let refused = match result {
            Ok(()) => self.durable_proves_nothing(tag),
            Err(_) => self.refused_here(tag),
        };
        if refused {
            return self.finish_if_done(now, index, effects);
        }
        let Some(entry) = self.slots.get_mut(index) else {
            return;
        };
        if let Err(errno) = result {
            entry.failure = Some(errno);
            entry.peer = Leg::NotNeeded;
            if entry.writes() {
                let range = entry.request.range;
                self.missed(range);
            }
        }
        self.note_healed(now, index, effects);
        self.finish_if_done(now, index, effects);
    }

    pub(super) fn finish_if_done(&mut self, now: Instant, index: usize, effects: &mut Effects) {
        let Some(entry) = self.slots.get(index) else {
            return;
        };
        let shut = entry.failure.is_some() && entry.local.is_settled();
        // Frozen: even what both have waits, so that the flush before the narrower view covers everything
        // that was acknowledged (S2).
        let frozen = self.peer == Peer::Lost && entry.request.kind != RequestKind::Read;
        let frozen = frozen && !mutant::is(Mutant::AckWhileFrozen);
        if !shut
            && (frozen
                || entry.stage == Stage::Waiting
                || !entry.local.is_settled()
                || !(entry.peer.is_settled() || mutant::is(Mutant::AckBeforePeer)))
        {
            return;
        }
        self.pace_passed(now);
        let Some(entry) = self.slots.take(index) else {
            return;
        };
        self.pace_ended();
        self.count(now, &entry);
        self.note_end(&entry);
        self.last_request = Some(now);
        effects.push(Effect::Complete {
            tag: entry.request.tag,
            result: entry.failure.map_or(Ok(()), Err),
        });
        self.pump(now, effects);
    }

    /// What the activity log and the resync have to know of a request that ended.
    fn note_end(&mut self, entry: &InFlight) {
        let heals = entry.is_healing() && entry.stage == Stage::Running;
        self.note_durable(entry, heals);
        if (entry.stage == Stage::Running && entry.writes()) || heals {
            self.intent.end(entry.request.range);
            let arrived = entry.mirrored && entry.peer == Leg::Done && entry.failure.is_none();
            if let Some(copy) = self.copy.as_mut().filter(|_| arrived) {
                copy.mirrored(entry.request.range);
            }
        }
        if self.log_freeing == Some(entry.request.tag) {
            self.log_freeing = None;
            let both = entry.failure.is_none() && entry.peer == Leg::Done;
            self.intent.flush_ended(both);
        }
    }

    /// What a flush need not cover any more, or has to.
    fn note_durable(&mut self, entry: &InFlight, heals: bool) {
        let well = entry.failure.is_none();
        if entry.request.kind == RequestKind::Flush && well {
            self.durable.flush_ended(entry.covers);
        } else if heals || (entry.writes() && !(well && entry.durable)) {
            self.durable.ended_loose();
        }
    }

    fn count(&mut self, now: Instant, entry: &InFlight) {
        let counters = &mut self.counters;
        if entry.failure.is_some() {
            counters.failed += 1;
            return;
        }
        match entry.request.kind {
            RequestKind::Read => counters.reads += 1,
            RequestKind::Flush => counters.flushes += 1,
            RequestKind::Write => {
                counters.writes += 1;
                counters.written_bytes += entry.request.range.bytes();
            }
            RequestKind::Discard | RequestKind::WriteZeroes => counters.writes += 1,
        }
        let waited: Duration = now.since(entry.arrived);
        counters.longest_wait_ms = counters
            .longest_wait_ms
            .max(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    }
}
