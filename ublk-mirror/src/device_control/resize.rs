//! A live device that follows the volume's size, where the kernel can do that (Linux 6.16 and later).

use std::fs;

use mirror_core::types::SECTOR_BYTES;

use super::{Change, DeviceControl, Job};
use crate::device::{self, HelperFailure, Outcome};

impl DeviceControl {
    /// The live device shall show this size.
    pub(super) fn resize_live(&mut self, size_sectors: u64) {
        let live = self.live().map(|(place, live)| (place, live.dev_id));
        // A device that is being stopped has no disk any more for a kernel that does not look.
        if let Some((place, dev_id)) = live.filter(|_| self.change == Change::None)
            && self.live_size_bytes() != Some(size_sectors * SECTOR_BYTES)
        {
            self.ask(
                device::Request::Resize {
                    dev_id,
                    size_sectors,
                },
                Job::Resize {
                    place,
                    size_sectors,
                },
            );
        }
    }

    pub(super) fn resize_answered(&mut self, place: usize, size_sectors: u64, outcome: Outcome) {
        match outcome {
            Ok(_) => {
                if let Some(live) = self.places[place].as_mut() {
                    live.size_sectors = size_sectors;
                    tracing::info!(dev_id = live.dev_id, size_sectors, "live device resized");
                }
            }
            Err(HelperFailure::NoResize) => tracing::info!(
                code = "LS2051",
                "this kernel cannot resize a live device: the new size is shown from the next activation on"
            ),
            Err(failure) => {
                tracing::warn!(code = "LS2051", %failure, "the live device keeps its size until the next activation");
            }
        }
    }

    /// What users of the live device see, as the kernel says.
    pub fn live_size_bytes(&self) -> Option<u64> {
        let (_, live) = self.live()?;
        let path = format!("/sys/block/ublkb{}/size", live.dev_id);
        let sectors: u64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        Some(sectors * SECTOR_BYTES)
    }
}
