//! An operator pauses the resync that this node is the source of. The pause is kept in memory alone: a daemon
//! that starts again goes on.

use crate::admin::{Done, Outcome};
use crate::effect::{Effect, Effects};
use crate::notice::{Notice, Refusal, UpkeepNotice};
use crate::types::Instant;

use super::Volume;

impl Volume {
    /// What speaks against it: this node is no source, of a resync that runs or of the next one.
    fn no_source(&self) -> Option<Refusal> {
        let peer = self.peer_name();
        if self.is_blank() || !self.is_member() {
            Some(Refusal::ResyncElsewhere { peer })
        } else if self.peer_counts() || self.staged.view.insync == self.both() {
            // Also when that is on its way to the disk: nothing is left to send.
            Some(Refusal::NoResync)
        } else {
            None
        }
    }

    pub(super) fn resync_pause(&mut self, now: Instant, effects: &mut Effects) -> Outcome {
        if let Some(refusal) = self.no_source() {
            return Err(refusal);
        }
        if self.engine.copy_paused_since().is_none() {
            effects.push(Effect::Notice(Notice::Upkeep(UpkeepNotice::ResyncPaused)));
        }
        self.engine.copy_pause(now, effects);
        Ok(Done::ResyncPaused)
    }

    pub(super) fn resync_resume(&mut self, now: Instant, effects: &mut Effects) -> Outcome {
        if let Some(refusal) = self.no_source() {
            return Err(refusal);
        }
        if self.engine.copy_paused_since().is_some() {
            effects.push(Effect::Notice(Notice::Upkeep(UpkeepNotice::ResyncGoesOn)));
        }
        self.engine.copy_resume(now, effects);
        Ok(Done::ResyncGoesOn)
    }

    pub(super) fn resync_paused_ms(&self, now: Instant) -> Option<u64> {
        let since = self.engine.copy_paused_since()?;
        Some(u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
    }
}
