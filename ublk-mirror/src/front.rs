//! Where an application's requests come from: what the driver asks of the volume's block device.
//!
//! The program has one front, the ublk devices of [`DeviceControl`], and no way to ask for another: which one it is is
//! decided when the driver is compiled. Benchmarks put their own in its place ([`crate::startup::run_with`]). A front decides
//! nothing: when a live device may be there, and what its requests come to, the core says (S12).

use std::os::fd::RawFd;

use mirror_core::admin::Status;
use mirror_core::effect::DeviceCommand;
use mirror_core::types::{Errno, Tag};

use crate::device::DeviceError;
use crate::device_control::{DeviceControl, DeviceEvent};
use crate::driver::DriverError;
use crate::ring::{Ring, Token};
use crate::sys;

/// See the module. Everything is called by the owner thread.
pub trait Front {
    /// Begins, before the first round of the driver, with the device of a dead daemon whose recovery has begun, if there is one.
    ///
    /// # Errors
    /// That device cannot be served.
    fn begin(&mut self, ring: &mut Ring, recovered: Option<u32>) -> Result<(), DriverError>;
    /// Moves what there is to tell the core to `into`.
    fn take_events(&mut self, into: &mut Vec<DeviceEvent>);
    /// Carries out what the core wants.
    fn command(&mut self, command: DeviceCommand);
    /// Answers a request.
    fn complete(&mut self, ring: &mut Ring, tag: Tag, result: Result<(), Errno>);
    /// An entry that this front gave to [`Ring::ublk`] has completed.
    fn on_queue(&mut self, ring: &mut Ring, token: Token, result: i32);
    /// Readable when there is something for [`Self::on_helper`].
    fn helper_fd(&self) -> RawFd;
    /// Takes what came there.
    ///
    /// # Errors
    /// The other end is gone: the daemon cannot go on.
    fn on_helper(&mut self, ring: &mut Ring) -> Result<(), DeviceError>;
    /// Whether somebody uses the device of that generation, as was asked.
    fn on_use(&mut self, generation: u32, in_use: bool);
    /// The tag has another buffer from now on ([`Ring::put_aside`]).
    fn use_buffer_of(&mut self, ring: &Ring, tag: Tag);
    /// The id of the view in force.
    fn note_view(&mut self, view: String);
    /// The volume's size, durable.
    fn note_size(&mut self, size_sectors: u64);
    /// Fills in the names that lead to the devices.
    fn name_in(&self, status: &mut Status);
    /// What users of the live device see.
    fn live_size_bytes(&self) -> Option<u64>;
    /// Whether a device serves the volume, or is about to.
    fn serves(&self) -> bool;
    /// Takes everything away for good; done when [`Self::has_ended`].
    fn end(&mut self);
    /// Whether nothing is left.
    fn has_ended(&self) -> bool;
}

impl Front for DeviceControl {
    fn begin(&mut self, ring: &mut Ring, recovered: Option<u32>) -> Result<(), DriverError> {
        // Before the first fetch: the kernel looks at the queue's thread then. The helper has its own.
        if let Err(error) = sys::drop_sys_admin_of_this_thread() {
            tracing::warn!(code = "LS3041", %error, "cannot give up CAP_SYS_ADMIN");
        }
        match recovered {
            Some(dev_id) => self
                .start_recovered(ring, dev_id)
                .map_err(|_| DriverError::DeviceLost)?,
            None => self.start_fenced(),
        }
        Ok(())
    }

    fn take_events(&mut self, into: &mut Vec<DeviceEvent>) {
        DeviceControl::take_events(self, into);
    }

    fn command(&mut self, command: DeviceCommand) {
        DeviceControl::command(self, command);
    }

    fn complete(&mut self, ring: &mut Ring, tag: Tag, result: Result<(), Errno>) {
        DeviceControl::complete(self, ring, tag, result);
    }

    fn on_queue(&mut self, ring: &mut Ring, token: Token, result: i32) {
        DeviceControl::on_queue(self, ring, token, result);
    }

    fn helper_fd(&self) -> RawFd {
        DeviceControl::helper_fd(self)
    }

    fn on_helper(&mut self, ring: &mut Ring) -> Result<(), DeviceError> {
        DeviceControl::on_helper(self, ring)
    }

    fn on_use(&mut self, generation: u32, in_use: bool) {
        DeviceControl::on_use(self, generation, in_use);
    }

    fn use_buffer_of(&mut self, ring: &Ring, tag: Tag) {
        DeviceControl::use_buffer_of(self, ring, tag);
    }

    fn note_view(&mut self, view: String) {
        DeviceControl::note_view(self, view);
    }

    fn note_size(&mut self, size_sectors: u64) {
        DeviceControl::note_size(self, size_sectors);
    }

    fn name_in(&self, status: &mut Status) {
        DeviceControl::name_in(self, status);
    }

    fn live_size_bytes(&self) -> Option<u64> {
        DeviceControl::live_size_bytes(self)
    }

    fn serves(&self) -> bool {
        DeviceControl::serves(self)
    }

    fn end(&mut self) {
        DeviceControl::end(self);
    }

    fn has_ended(&self) -> bool {
        DeviceControl::has_ended(self)
    }
}
