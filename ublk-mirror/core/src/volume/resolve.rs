//! A split brain: both sides show what they have, and an operator discards one of them (S8).

use crate::admin::{Done, Outcome, Role, SideStatus, SplitStatus, known, known_epoch};
use crate::disk::{Operation, OperationEntry};
use crate::effect::{Effect, Effects};
use crate::event::{Request, RequestKind};
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{Epoch, Instant, NodeSet, SECTOR_BYTES, SessionId};
use crate::view::{View, ViewMark};
use crate::wire::{Evidence, Frame, FrameKind, RefusedCode, State};

use super::Volume;
use super::change::{Kind, Step};
use super::session::Phase;

/// What an operator wants to know and the rules do not ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Words {
    /// The wall clock, and when the shell read it: seconds since 1970.
    wall: Option<(Instant, u64)>,
    /// When an application last wrote here, in this run.
    wrote_at: Option<Instant>,
    /// Wall-clock time of the command that is being carried out; 0: not known.
    command_at_s: u64,
    /// The histories went apart, as the last handshake found.
    pub(super) split: Option<Split>,
}

/// The last handshake found two histories.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    met: Instant,
    pub(super) theirs: Option<Evidence>,
}

impl Volume {
    // --- time ---------------------------------------------------------------------------------

    /// The shell read the wall clock.
    pub(super) fn wall_clock(&mut self, now: Instant, unix_s: u64) {
        self.words.wall = Some((now, unix_s));
    }

    /// An application asks for something.
    pub(super) fn note_write(&mut self, now: Instant, request: &Request) {
        if !matches!(request.kind, RequestKind::Read | RequestKind::Flush) {
            self.words.wrote_at = Some(now);
        }
    }

    /// An operator's command begins.
    pub(super) fn note_command(&mut self, now: Instant) {
        self.words.command_at_s = self.wall_time(now).unwrap_or(0);
    }

    fn wall_time(&self, at: Instant) -> Option<u64> {
        let (read, unix_s) = self.words.wall?;
        let (later, earlier) = (at.since(read).as_secs(), read.since(at).as_secs());
        Some(unix_s.saturating_add(later).saturating_sub(earlier))
    }

    /// When an application last wrote here, as far as is known; 0: not known.
    pub(super) fn last_write_s(&self) -> u64 {
        let in_this_run = self.words.wrote_at.and_then(|at| self.wall_time(at));
        in_this_run.unwrap_or(self.staged.record.last_write_s)
    }

    /// Stages an entry of the record: it is durable with what is staged now.
    pub(super) fn record_operation(
        &mut self,
        operation: Operation,
        view: ViewMark,
        standing: bool,
    ) {
        self.staged.record.operations.record(OperationEntry {
            operation,
            view,
            at_s: self.words.command_at_s,
            standing,
        });
    }

    // --- both sides show what they have -------------------------------------------------------

    /// What this node tells of its own history.
    fn own_evidence(&self) -> Evidence {
        let serving = self.role != Role::Fenced;
        Evidence {
            view: self.durable.view,
            common: if self.peer_counts() {
                self.durable.view.mark()
            } else {
                self.durable.base
            },
            last_write_s: self.last_write_s(),
            unique_bytes: self.unique_bytes(),
            serving,
            unclean: self.durable.serving && !serving,
            forced: self.is_forced(),
        }
    }

    /// Bytes that may be on this copy alone: its marks, if they tell of a view that the peer was in.
    fn unique_bytes(&self) -> u64 {
        let size_bytes = self.staged.size_sectors * SECTOR_BYTES;
        if !self.knows_what_is_unique() {
            return size_bytes;
        }
        let intent = &self.engine.intent;
        let block_bytes = intent.geometry().block_sectors * SECTOR_BYTES;
        (intent.marks().count() * block_bytes).min(size_bytes)
    }

    /// The histories went apart: each side shows what it has, refuses, and waits for the other's.
    pub(super) fn part(
        &mut self,
        now: Instant,
        id: SessionId,
        own: &State,
        theirs: &State,
        effects: &mut Effects,
    ) {
        let before = self.words.split.and_then(|split| split.theirs);
        self.words.split = Some(Split {
            met: now,
            theirs: before,
        });
        if let Some(session) = self.session(id) {
            session.phase = Phase::Parting;
        }
        let evidence = self.own_evidence().encode().to_vec();
        let frame = Frame::new(FrameKind::Evidence, Epoch(0), 0);
        self.send(id, frame, evidence, effects);
        let (ours, yours) = (own.view.epoch.0, theirs.view.epoch.0);
        self.tell_refusal(id, RefusedCode::SplitBrain, ours, yours, effects);
    }

    /// The other side showed what it has.
    pub(super) fn evidence_came(&mut self, evidence: Evidence) {
        if let Some(split) = self.words.split.as_mut() {
            split.theirs = Some(evidence);
        }
    }

    pub(super) fn split_status(&self, now: Instant) -> Option<SplitStatus> {
        let split = self.words.split?;
        let side = |node: &str, evidence: Evidence| SideStatus {
            node: node.into(),
            epoch: evidence.view.epoch.0,
            view_id: alloc::format!("{}", evidence.view.id),
            common_epoch: known_epoch(evidence.common.epoch),
            common_view_id: known_epoch(evidence.common.epoch)
                .map(|_| alloc::format!("{}", evidence.common.id)),
            last_write_s: known(evidence.last_write_s),
            may_have_written_later: evidence.unclean,
            serving: evidence.serving,
            unique_bytes: evidence.unique_bytes,
            forced: evidence.forced,
        };
        Some(SplitStatus {
            this: side(&self.settings.node_name, self.own_evidence()),
            other: split
                .theirs
                .map(|evidence| side(&self.settings.peer_name, evidence)),
            met_ms: u64::try_from(now.since(split.met).as_millis()).unwrap_or(u64::MAX),
        })
    }

    // --- one side is discarded ----------------------------------------------------------------

    /// An operator discards this copy's history.
    pub(super) fn discard(
        &mut self,
        id: u64,
        discard: &str,
        confirm: &str,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        if let Err(refusal) = self.may_discard(discard, confirm) {
            return Some(Err(refusal));
        }
        let floor = self.floor();
        let view = self.next_view(None, NodeSet::EMPTY, floor);
        if !self.begin_change(Kind::Discard { command: id }, Step::Persist, Some(view)) {
            return Some(Err(Refusal::Busy));
        }
        if mutant::is(Mutant::DiscardNotDurable) {
            self.stage_view(view);
            self.stage_discard();
            self.durable = self.staged.clone();
            self.discarded(Instant::default(), id, effects);
            return None;
        }
        self.persist_change(effects);
        None
    }

    /// Whether it is being agreed on how to go on: what was told must stay true. Of what was refused
    /// nothing comes any more.
    pub(super) fn is_meeting(&self) -> bool {
        self.current_session()
            .is_some_and(|session| !matches!(session.phase, Phase::Up | Phase::Parting))
    }

    /// Whether something is being changed or agreed on.
    pub(super) fn is_changing_or_meeting(&self) -> bool {
        self.change.is_some()
            || self.is_meeting()
            || !self.persists.is_empty()
            || self.leaving.is_some()
    }

    /// Nothing of the history is left but where it went apart; the marks stay: they say what is to be
    /// undone.
    pub(super) fn stage_discard(&mut self) {
        self.staged.serving = false;
        self.staged.drained = false;
        self.staged.copy = None;
        let given_up = self.durable.view.mark();
        self.record_operation(Operation::Discard, given_up, false);
    }

    /// This copy is about to follow a history that it may share nothing with: it remembers where it joined
    /// it. If the leader never commits what it proposed, the two still know that they belong together.
    pub(super) fn learn_history(&mut self, proposed: &View) {
        let theirs = self
            .current_session()
            .and_then(|session| session.peer_state);
        let joined = theirs.map(|state| state.view.mark());
        let Some(joined) = joined.filter(|mark| mark.epoch != Epoch(0)) else {
            return;
        };
        let known = joined == self.staged.view.mark() || joined == proposed.mark();
        let follows =
            !proposed.insync.contains(self.me()) && !mutant::is(Mutant::JoinedHistoryForgotten);
        if follows && !known && !self.staged.history.contains(joined) {
            self.staged.history.push(joined);
        }
    }

    pub(super) fn discarded(&mut self, now: Instant, command: u64, effects: &mut Effects) {
        self.change = None;
        self.words.split = None;
        self.last_refusal = None;
        self.aborted_writes = false;
        self.engine.peer_is_out(now, effects);
        let epoch = self.durable.view.epoch;
        effects.push(Effect::Notice(Notice::Discarded { epoch }));
        self.answer(Some(command), Ok(Done::Discarded), effects);
    }
}
