//! How large the backing device and the live device are.

use std::io;

use mirror_core::admin::Status;
use mirror_core::notice::Notice;

use super::Parts;
use crate::front::Front;
use crate::inbox::Message;

/// The backing device's claim is the first.
pub(super) fn measure<F>(parts: &Parts<F>, id: u64) {
    let claim = parts.claims.first();
    let asked = claim.map_or(Err(io::ErrorKind::NotFound.into()), |claim| {
        claim.measure(id, parts.inbox.clone())
    });
    if let Err(error) = asked {
        tracing::warn!(code = "LS1054", %error, "cannot measure the backing device");
        let sectors = Err(error.raw_os_error().unwrap_or(libc::EIO));
        parts.inbox.put_own(Message::Backing { id, sectors });
    }
}

/// A kernel that cannot resize a live device shows the old size until the next activation.
pub(super) fn note_device_size(status: &mut Status, device: Option<&impl Front>) {
    status.device_size_bytes = device.and_then(Front::live_size_bytes);
    let size_bytes = status.size_bytes;
    if let Some(device_bytes) = status.device_size_bytes.filter(|bytes| *bytes < size_bytes) {
        let notice = Notice::DeviceSmaller {
            device_bytes,
            size_bytes,
        };
        status.problems.push(notice.problem());
    }
}
