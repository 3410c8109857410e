//! How a verify's runs come to an end that is not their own.

use super::Stage;
use crate::admin::VerifyState;
use crate::engine::Engine;
use crate::mutant::{self, Mutant};

impl Engine {
    /// It ends so, as soon as nothing is under way.
    pub fn verify_ends(&mut self, state: VerifyState) {
        if let Some(job) = self.verifying.job.as_mut().filter(|job| job.is_open()) {
            job.ending = job.ending.or(Some(state));
        }
    }

    /// A verify that is to end does not wait for writes: they may wait for what waits for its end.
    pub(super) fn verify_gives_way(&mut self) {
        let Some(job) = self.verifying.job.as_mut() else {
            return;
        };
        if job.ending.is_none() || mutant::is(Mutant::VerifyEndWaits) {
            return;
        }
        for slot in &mut self.verifying.runs {
            if let Some(run) = slot.take_if(|run| run.stage == Stage::Writes) {
                job.put_back(run.whole);
            }
        }
    }

    /// The other side cannot be asked any more: runs under way come to nothing. What is in the disk's hands
    /// keeps its slot, and its lock, until it is back.
    pub(in crate::engine) fn verify_lost_peer(&mut self) {
        let Some(job) = self.verifying.job.as_mut() else {
            return;
        };
        for slot in &mut self.verifying.runs {
            let Some(run) = slot.as_mut().filter(|run| run.stage != Stage::GivenUp) else {
                continue;
            };
            job.put_back(run.whole.clone());
            if matches!(run.stage, Stage::Read | Stage::Written) {
                run.stage = Stage::GivenUp;
            } else {
                *slot = None;
            }
        }
    }

    /// The session is being closed: nothing begins on it any more. What is under way keeps its lock until the
    /// session is gone, for the other side may still be looking at it.
    pub(in crate::engine) fn verify_halts(&mut self) {
        self.verifying.closing = self.peer.session();
    }
}
