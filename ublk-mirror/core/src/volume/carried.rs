//! The metadata of a node that serves cannot be written any more, and the peer's copy counts: what this node would
//! write down the peer does (S2, S4).
//!
//! This node takes its copy out of the view as it does when its disk fails (`diskless`). The peer flushes, writes the
//! view down and agrees; from then on this node holds that view in memory alone. It writes no metadata any more and
//! connects to nobody in this run of the daemon, so whatever its own metadata say is believed by nobody here.
//!
//! They still say that both copies count. So before anything is acknowledged that the peer alone has, the shell keeps a
//! mark outside of that device that lasts as long as the boot ([`crate::effect::Effect::Disown`]): the next run of the
//! daemon finds a copy that has failed. If the disk failed too, the mark comes before the peer is asked, as the word on
//! the metadata would. If it did not, the mark comes after the peer's consent: until then everything that was
//! acknowledged is on the disk here, and may be nowhere else. After a boot the peer's later view wins when both meet
//! (S8), and no arbiter's grant is taken before (S11).

use crate::effect::{Effect, Effects};
use crate::mutant::{self, Mutant};
use crate::notice::{DiskNotice, Notice};
use crate::types::{Errno, Instant};

use super::Volume;
use super::change::{Kind, Step, Then};

/// Where what this node writes down goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Records {
    /// To the metadata device.
    #[default]
    Device,
    /// The device failed, the disk did not: the peer is asked first.
    Waiting,
    /// Nothing counts as written down before the mark is kept that no later run believes the device.
    Disowning,
    /// It is remembered in this run alone.
    Memory,
    /// The same, but no mark says so: the service ended first, and everything that was acknowledged is on the disk here.
    Unmarked,
}

impl Volume {
    /// Whether metadata are written to their device.
    pub(super) fn keeps_records(&self) -> bool {
        self.records == Records::Device
    }

    /// The metadata failed just now. Returns whether the service goes on without them.
    pub(super) fn carry_on(&mut self, now: Instant, errno: Errno, effects: &mut Effects) -> bool {
        let kind = self.change.as_ref().map(|change| &change.kind);
        let leaves = matches!(kind, Some(Kind::Diskless { .. }));
        let gone = self.engine.is_diskless() && self.engine.is_open();
        let well = self.failed.is_none();
        if mutant::is(Mutant::MetadataEndService) {
            return false;
        }
        if !(leaves || gone || well && self.leave_own_disk()) {
            return false;
        }
        effects.push(Effect::Notice(Notice::MetadataFailed { errno }));
        self.engine.intent.give_up();
        self.records = if self.durable.failed || mutant::is(Mutant::CarriedUndisowned) {
            // It is on the device already: the next run finds that.
            Records::Memory
        } else {
            Records::Waiting
        };
        if well {
            self.failed = Some(errno);
            self.metadata_only = true;
            self.staged.failed = true;
            self.persist(Then::Nothing, effects);
        }
        if !well || mutant::is(Mutant::DisownedAtOnce) {
            self.begin_disowning(effects);
        }
        if gone {
            effects.push(Effect::Notice(Notice::Disk(DiskNotice::Carried)));
            // What waited for the activity log waits for nothing any more.
            self.engine.go_on(now, effects);
        }
        true
    }

    fn begin_disowning(&mut self, effects: &mut Effects) {
        if self.records == Records::Waiting {
            self.records = Records::Disowning;
            effects.push(Effect::Disown);
        }
    }

    /// The metadata failed, and the disk too, or the other way round: nothing on that disk says so, and a later run
    /// would believe it.
    pub(super) fn disown(&mut self, effects: &mut Effects) {
        let both = self.failed.is_some() && !self.metadata_only;
        let believed = match self.records {
            Records::Device => !self.durable.failed,
            Records::Unmarked => true,
            // The mark is there, or the device's own word; or it is asked for now.
            Records::Memory | Records::Waiting | Records::Disowning => false,
        };
        if believed && both {
            effects.push(Effect::Disown);
        }
        self.begin_disowning(effects);
    }

    /// The service ends, and what was not acknowledged fails. A run that finds the device alive would take it for still in
    /// the kernel's hands, to be handed over again; what else would be written down then (`drained`) a mark says (S7). Where
    /// the peer does not count, its marks name all of it anyway.
    pub(super) fn disown_writes(&mut self, effects: &mut Effects) {
        let lost = self.metadata_only && matches!(self.records, Records::Device | Records::Waiting);
        let in_hand = self.engine.has_unfinished_writes() || self.recovered;
        let believed = self.durable.serving && !self.durable.drained && self.peer_counts();
        if lost && in_hand && believed && !mutant::is(Mutant::FailedWritesInHand) {
            effects.push(Effect::DisownWrites);
        }
    }

    /// The peer is asked now, and may agree without being heard. Then it serves, and tells no arbiter if it is cut off.
    pub(super) fn disown_membership(&self, effects: &mut Effects) {
        if self.records == Records::Waiting && !mutant::is(Mutant::AskedForgotten) {
            effects.push(Effect::DisownMembership);
        }
    }

    /// Whether the peer may be asked to go on alone: it is known that this copy failed, or it is as good as the peer's.
    pub(super) fn may_ask_peer(&self) -> bool {
        self.durable.failed || (self.records == Records::Waiting && self.metadata_only)
    }

    /// The service ends: nothing was acknowledged that is not on this disk.
    pub(super) fn stop_waiting(&mut self) {
        if self.records == Records::Waiting {
            self.records = Records::Unmarked;
        }
    }

    /// The mark is kept, or could not be.
    pub(super) fn disowned(&mut self, now: Instant, kept: bool, effects: &mut Effects) {
        if self.records != Records::Disowning {
            return;
        }
        if kept {
            self.records = Records::Memory;
            return;
        }
        // The next run would believe what the metadata say: the peer must not be the only one that knows better.
        self.records = Records::Device;
        self.persists.clear();
        self.stop_everything(now, effects);
    }

    /// What is remembered in this run alone counts as written down at once.
    pub(super) fn remember(&mut self, now: Instant, effects: &mut Effects) {
        let agreed = self.change.as_ref().is_some_and(|change| {
            matches!(
                (&change.kind, &change.step),
                (Kind::Diskless { .. }, Step::Persist)
            )
        });
        if agreed {
            self.begin_disowning(effects);
        }
        while matches!(self.records, Records::Memory | Records::Unmarked)
            && let Some(sequence) = self.persists.front().map(|(next, _)| next.sequence)
        {
            self.persisted(now, sequence, effects);
        }
    }

    /// The peer alone counts now, and this node has nothing written down.
    pub(super) fn tell_carried(&self, effects: &mut Effects) {
        if self.records == Records::Memory {
            effects.push(Effect::Notice(Notice::Disk(DiskNotice::Carried)));
        }
    }

    /// Whether the service stands on what the peer has written down.
    pub(super) fn is_carried(&self) -> bool {
        self.records == Records::Memory && self.engine.is_diskless() && self.engine.is_open()
    }
}
