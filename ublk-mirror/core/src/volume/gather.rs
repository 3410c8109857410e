//! Before a resync begins, the source asks the target for its marks: what the target wrote and never told
//! anybody is undone too (S8).

use alloc::vec::Vec;

use crate::admin::CopyCause;
use crate::effect::{Effect, Effects};
use crate::limits::VOLUME_SECTORS_MAX;
use crate::mutant::{self, Mutant};
use crate::notice::Notice;
use crate::resync::Likeness;
use crate::types::{CopyId, Instant, SessionId};
use crate::view::View;
use crate::wire::{Frame, FrameKind, MARKS_WORDS, Marks, Purpose};

use super::Volume;
use super::change::{Kind, Step};

/// A resync that is about to begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    session: SessionId,
    id: CopyId,
    cause: CopyCause,
    /// The word that was asked for.
    word: u64,
    /// The target has marks of its own, of whole extents probably.
    any: bool,
}

impl Volume {
    /// The view is agreed on: learn what the target has, then begin. If every block is marked here
    /// already, there is nothing to learn.
    pub(super) fn begin_gathering(
        &mut self,
        now: Instant,
        session: SessionId,
        id: CopyId,
        cause: CopyCause,
        effects: &mut Effects,
    ) {
        let gathering = Gathering {
            session,
            id,
            cause,
            word: 0,
            any: false,
        };
        if self.staged.copy.is_some_and(|copy| copy.full) {
            self.gathered(now, gathering, effects);
        } else {
            self.gathering = Some(gathering);
            self.ask_for_marks(session, 0, effects);
        }
    }

    /// The target whose marks are being asked for.
    pub(super) fn gathers_from(&self) -> Option<SessionId> {
        self.gathering.map(|gathering| gathering.session)
    }

    /// The other side's disk failed, and it is filled anew: that is durable here now.
    pub(super) fn peer_failure_noted(&mut self, effects: &mut Effects) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        if let (Kind::Lead { session, .. }, Step::PeerFailure, Some(view)) =
            (&change.kind, &change.step, change.view)
        {
            let session = *session;
            self.lead_goes_on(session, view, effects);
        }
    }

    pub(super) fn lead_goes_on(&mut self, id: SessionId, view: View, effects: &mut Effects) {
        if self.needs_flush(view) {
            self.flush_for_view(effects);
        } else {
            self.propose_change(id, Purpose::Settle, effects);
        }
    }

    fn ask_for_marks(&mut self, session: SessionId, word: u64, effects: &mut Effects) {
        let frame = Frame::new(FrameKind::MarksWanted, self.engine.epoch(), word);
        self.send(session, frame, Vec::new(), effects);
    }

    /// Some of them came. Returns whether they were asked for.
    pub(super) fn marks_came(
        &mut self,
        now: Instant,
        session: SessionId,
        marks: &Marks,
        effects: &mut Effects,
    ) -> bool {
        let Some(mut gathering) = self.gathering else {
            return false;
        };
        if gathering.session != session || marks.first_word < gathering.word {
            return false;
        }
        let own_only =
            gathering.cause == CopyCause::Discarded && mutant::is(Mutant::ResolveByOwnMarks);
        if !mutant::is(Mutant::TargetMarksIgnored) && !own_only {
            self.engine.intent.unite(marks);
        }
        gathering.any |= marks.words.iter().any(|word| *word != 0);
        match marks.next_word {
            // Words past the end of the volume say nothing.
            Some(word)
                if word < self.staged.size_sectors && !mutant::is(Mutant::TargetMarksCutOff) =>
            {
                gathering.word = word;
                self.gathering = Some(gathering);
                self.ask_for_marks(session, word, effects);
            }
            Some(_) | None => {
                self.gathering = None;
                self.gathered(now, gathering, effects);
            }
        }
        true
    }

    fn gathered(&mut self, now: Instant, gathering: Gathering, effects: &mut Effects) {
        let Gathering {
            session, id, cause, ..
        } = gathering;
        effects.push(Effect::Notice(Notice::CopyStarted { cause }));
        // What the bitmap says was written while the peer was out really was.
        let written = matches!(cause, CopyCause::Outdated | CopyCause::Resumed);
        let likeness = if self.staged.peer_failed && !mutant::is(Mutant::FailedDiskCompared) {
            Likeness::Distrusted
        } else if !written || gathering.any {
            Likeness::Equal
        } else {
            Likeness::Different
        };
        self.engine
            .begin_resync(now, session, id, cause, likeness, effects);
        self.engine.copy_retries_after(self.settings.copy_retry);
    }

    /// The source asks a target.
    pub(super) fn marks_wanted(&mut self, session: SessionId, word: u64, effects: &mut Effects) {
        let intent = &self.engine.intent;
        // The peer may name any word; past this there are none.
        let word = word.min(VOLUME_SECTORS_MAX);
        let first_word = intent.marks().first_word_from(word).unwrap_or(word);
        let words: [u64; MARKS_WORDS] =
            core::array::from_fn(|index| intent.marks().word(first_word + index as u64));
        let marks = Marks {
            first_word,
            next_word: intent
                .marks()
                .first_word_from(first_word + MARKS_WORDS as u64),
            block_sectors: u32::try_from(intent.geometry().block_sectors).unwrap_or(u32::MAX),
            words,
        };
        let frame = Frame::new(FrameKind::Marks, self.staged.view.epoch, 0);
        self.send(session, frame, marks.encode().to_vec(), effects);
    }
}
