//! The fenced device that stands for the volume: it comes, is remade for another size, and goes.

use super::{Attached, Change, DeviceControl, DeviceEvent, Job};
use crate::device::{self, DeviceKind};

impl DeviceControl {
    /// Makes the fenced device that stands for the volume.
    pub fn start_fenced(&mut self) {
        self.add(DeviceKind::Fenced);
    }

    /// The volume's size, durable: what is made from now on has it. A fenced device is remade, for
    /// not every kernel lets a device change its size.
    pub fn note_size(&mut self, size_sectors: u64) {
        self.settings.size_sectors = size_sectors;
        self.refit_fenced();
    }

    /// Whether a device serves the volume, or is about to.
    pub fn serves(&self) -> bool {
        self.live().is_some() || self.change != Change::None
    }

    /// Takes the fenced device away for good; done when `has_ended`.
    pub fn end(&mut self) {
        self.ending = true;
        self.end_isolated();
        self.stop_fenced();
    }

    pub fn has_ended(&self) -> bool {
        self.places.iter().all(Option::is_none) && self.jobs.is_empty()
    }

    pub(super) fn stop_fenced(&mut self) {
        self.stop_fenced_if(|_| true);
    }

    /// `detach_if_done` makes the next one.
    pub(super) fn refit_fenced(&mut self) {
        let size_sectors = self.settings.size_sectors;
        self.stop_fenced_if(|fenced| fenced.size_sectors != size_sectors);
    }

    pub(super) fn stop_fenced_if(&mut self, wanted: impl Fn(&Attached) -> bool) {
        for place in 0..self.places.len() {
            // One that is starting comes here again from `started`. A second STOP could be answered
            // when the place belongs to the next device.
            let busy = self
                .jobs
                .iter()
                .any(|(_, job)| *job == Job::Start { place } || *job == Job::Stop { place });
            if let Some(found) = &self.places[place]
                && found.kind == DeviceKind::Fenced
                && !found.stopped
                && !busy
                && wanted(found)
            {
                let dev_id = found.dev_id;
                self.ask(device::Request::Stop { dev_id }, Job::Stop { place });
            }
        }
    }

    /// Whether a fenced device is there or coming.
    pub(super) fn has_fenced(&self) -> bool {
        let mut places = self.places.iter().flatten();
        let mut jobs = self.jobs.iter();
        let coming =
            |job: &Job| matches!(job, Job::Add { kind, .. } if *kind == DeviceKind::Fenced);
        places.any(|found| found.kind == DeviceKind::Fenced) || jobs.any(|(_, job)| coming(job))
    }

    pub(super) fn fenced_is_settled(&mut self) {
        if self.change == Change::Stopping {
            self.change = Change::None;
            self.events.push(DeviceEvent::Stopped);
        }
    }
}
