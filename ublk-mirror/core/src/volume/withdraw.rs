//! A standby whose disk failed drops out: it writes that down, then asks to be dropped from the view, so
//! that the active node goes on without a freeze (S1, S2). If that cannot be written down within the limit of
//! a disk operation, the connection is closed (`stuck`): the operator of the active node speaks.

use alloc::vec::Vec;

use crate::admin::Role;
use crate::effect::Effects;
use crate::wire::{Frame, FrameKind};

use super::Volume;

impl Volume {
    /// Whether this node can still agree to a view without itself: it is a member that does not serve,
    /// the connection stands, and nothing else is being changed.
    pub(super) fn may_withdraw(&self) -> bool {
        self.role == Role::Fenced
            && self.is_member()
            && self.peer_counts()
            && self.up_session().is_some()
            && self.change.is_none()
            && self.leaving.is_none()
            && !self.isolation_is_busy()
    }

    /// Asks to be dropped; repeated with the keepalives until the view says so.
    pub(super) fn withdraw(&mut self, effects: &mut Effects) {
        let Some(session) = self.up_session() else {
            return;
        };
        if self.failed.is_some() && self.durable.failed && self.may_withdraw() {
            let mut frame = Frame::new(FrameKind::Leave, self.durable.view.epoch, 0);
            frame.status = self.failed.map_or(0, |errno| errno.0);
            self.send(session, frame, Vec::new(), effects);
        }
    }
}
