//! An operator keeps the resync from going on. What the target has is mirrored as before; what it lacks stays
//! marked. Runs that were read and not sent come to nothing, and are sent later.

use super::{Engine, Peer};
use crate::effect::Effects;
use crate::mutant::{self, Mutant};
use crate::types::Instant;

impl Engine {
    /// Nothing more is sent of the resync, in this session or the next ones, until [`Self::copy_resume`].
    pub fn copy_pause(&mut self, now: Instant, effects: &mut Effects) {
        self.copy_paused = self.copy_paused.or(Some(now));
        if let Some(copy) = self.copy.as_mut() {
            // Writes must not wait for a run that has no turn any more.
            copy.unreserve();
        }
        self.pump(now, effects);
    }

    /// It goes on.
    pub fn copy_resume(&mut self, now: Instant, effects: &mut Effects) {
        self.copy_paused = None;
        self.pace_anew(now);
        if matches!(self.peer, Peer::Target(_)) {
            self.copy_more(now, effects);
        }
    }

    /// This copy is the one that is filled now: there is nothing to pause here.
    pub fn forget_pause(&mut self) {
        self.copy_paused = None;
    }

    /// Since when it is paused.
    pub fn copy_paused_since(&self) -> Option<Instant> {
        self.copy_paused
    }

    pub(super) fn copy_is_paused(&self) -> bool {
        self.copy_paused.is_some() && !mutant::is(Mutant::PauseIgnored)
    }
}
