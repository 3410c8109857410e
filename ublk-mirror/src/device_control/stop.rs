//! How a device is taken away.

use mirror_core::event::IsolatedEvent;
use mirror_core::types::Errno;

use super::{Change, DeviceControl, DeviceEvent, Job};
use crate::device::{self, DeviceKind, Outcome};
use crate::ring::Ring;

impl DeviceControl {
    pub(super) fn stop_answered(&mut self, ring: &mut Ring, place: usize, outcome: Outcome) {
        let Some(found) = &mut self.places[place] else {
            return;
        };
        if let Err(failure) = outcome {
            tracing::error!(code = "LS3026", %failure, "cannot stop a ublk device");
            let serves = found.failed.is_none() && found.tags_out > 0;
            if found.kind == DeviceKind::Isolated && serves {
                return self.tell_isolated(IsolatedEvent::Busy);
            }
            if found.kind == DeviceKind::Active && serves {
                // It still serves.
                self.change = Change::None;
                self.events.push(DeviceEvent::Busy);
                return;
            }
        }
        found.stopped = true;
        self.detach_if_done(ring, place);
    }

    pub(super) fn stop_live(&mut self) {
        let Some((place, dev_id)) = self.live().map(|(place, live)| (place, live.dev_id)) else {
            return;
        };
        self.change = Change::Stopping;
        self.ask(device::Request::Stop { dev_id }, Job::Stop { place });
    }

    /// A device that did not come up is taken away like one that did.
    pub(super) fn abandon(&mut self, place: usize, errno: Errno) {
        let Some(found) = &mut self.places[place] else {
            return;
        };
        found.failed = Some(errno);
        let dev_id = found.dev_id;
        self.ask(device::Request::Stop { dev_id }, Job::Stop { place });
    }
}
