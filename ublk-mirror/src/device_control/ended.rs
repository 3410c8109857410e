//! What follows when a device is gone, or never came up.

use mirror_core::event::IsolatedEvent;
use mirror_core::types::Errno;

use super::isolated::isolated_name;
use super::{Attached, Change, DeviceControl, DeviceEvent, Job};
use crate::device::{self, DeviceKind};
use crate::ring::{FileSlot, Ring};

impl DeviceControl {
    pub(super) fn detach_if_done(&mut self, ring: &mut Ring, place: usize) {
        let Some(found) = self.places[place].take_if(|found| found.stopped && found.tags_out == 0)
        else {
            return;
        };
        let Attached {
            queue,
            dev_id,
            kind,
            failed,
            ..
        } = found;
        if let Err(error) = ring.unregister(FileSlot(queue.fixed_slot())) {
            tracing::error!(%error, "cannot unregister a queue");
        }
        drop(queue);
        self.delete(dev_id);
        match (kind, failed) {
            (DeviceKind::Active, None) => {
                self.state_file.remove();
                self.add(DeviceKind::Fenced);
            }
            (kind, Some(errno)) => self.not_up(kind, errno),
            (DeviceKind::Isolated, None) => self.tell_isolated(IsolatedEvent::Stopped),
            (DeviceKind::Fenced, None) => {
                // Stopped for its size, unless another device has taken or takes its place.
                let alone = self.live().is_none() && !self.has_fenced();
                if alone && self.change == Change::None && !self.ending {
                    self.add(DeviceKind::Fenced);
                }
            }
        }
    }

    pub(super) fn delete(&mut self, dev_id: u32) {
        device::retract_name_or_warn(&self.settings.name, dev_id);
        device::retract_name_or_warn(&isolated_name(&self.settings.name), dev_id);
        self.ask(device::Request::Delete { dev_id }, Job::Other);
    }

    pub(super) fn not_up(&mut self, kind: DeviceKind, errno: Errno) {
        match kind {
            DeviceKind::Active => {
                self.state_file.remove();
                self.change = Change::None;
                self.events.push(DeviceEvent::Failed(errno));
                if !self.has_fenced() {
                    self.add(DeviceKind::Fenced);
                }
            }
            DeviceKind::Isolated => self.tell_isolated(IsolatedEvent::Failed { errno }),
            // Without it there is no name: every device takes it along when it is deleted. That
            // protects as well.
            DeviceKind::Fenced => self.fenced_is_settled(),
        }
    }
}
