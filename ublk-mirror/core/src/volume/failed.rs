//! The disk or the metadata failed: what ends here, and what goes on.

use crate::admin::Role;
use crate::effect::{Effect, Effects};
use crate::notice::{Notice, Refusal};
use crate::types::{Errno, Instant};

use super::Volume;
use super::change::{Kind, Step, Then};

impl Volume {
    /// A failed disk is a failed member (S1): nothing is retried, nothing is served, the peer is told.
    pub(super) fn disk_failed(&mut self, now: Instant, errno: Errno, effects: &mut Effects) {
        let both = core::mem::take(&mut self.metadata_only);
        if self.failed.is_some() {
            if both {
                self.disown(effects);
            }
            return;
        }
        self.failed = Some(errno);
        effects.push(Effect::Notice(Notice::DiskFailed { errno }));
        self.isolation_failed(effects);
        if !self.may_withdraw() && !self.leave_own_disk() {
            self.stop_everything(now, effects);
        }
        // A restart must not make a good copy of it again.
        self.staged.failed = true;
        self.persist(Then::Withdraw, effects);
    }

    pub(super) fn metadata_failed(&mut self, now: Instant, errno: Errno, effects: &mut Effects) {
        if !self.keeps_records() || self.carry_on(now, errno, effects) {
            return;
        }
        self.persists.clear();
        // That the own disk is left has to be written down: else the service ends after all.
        let ends_service = self.engine.without_disk() && self.engine.is_open();
        if self.failed.is_none() || ends_service {
            effects.push(Effect::Notice(Notice::MetadataFailed { errno }));
        }
        if self.failed.is_none() {
            self.failed = Some(errno);
            self.metadata_only = true;
        }
        self.disown(effects);
        // A standby that was about to withdraw cannot write that down: it closes the connection, so that
        // the operator of the active node can speak.
        self.stop_everything(now, effects);
    }

    pub(super) fn stop_everything(&mut self, now: Instant, effects: &mut Effects) {
        self.disown_writes(effects);
        self.stop_waiting();
        self.engine.shut(now, effects);
        self.refuse_all_sessions(effects);
        self.isolation_failed(effects);
        let stopping = self.stopping.take();
        if stopping.is_some_and(|stopping| stopping.gone) {
            self.role = Role::Fenced;
        }
        let stopping = stopping.and_then(|stopping| stopping.command);
        self.answer(stopping, Err(Refusal::DiskFailed), effects);
        if let Some(change) = self.change.take() {
            let gone = !matches!(change.step, Step::Device);
            if matches!(change.kind, Kind::Deactivate { .. }) && gone {
                self.role = Role::Fenced;
            }
            self.answer(change.command(), Err(Refusal::DiskFailed), effects);
        }
    }
}
