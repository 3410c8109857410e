//! The read-only device of an isolated copy: /dev/lockstep/NAME.isolated. It is made anew for each isolation
//! and each run of the daemon (S12), and is gone with the daemon: nobody must go on reading what an
//! attached copy becomes. It and the live device never exist together, so it uses the same buffers and tags.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mirror_core::admin::{Command, Status};
use mirror_core::effect::DeviceCommand;
use mirror_core::event::IsolatedEvent;
use mirror_core::types::Errno;

use super::{Attached, DeviceControl, DeviceEvent, Job, in_use};
use crate::device::{self, DeviceKind, name_path};

/// The name of a volume's read-only device.
pub fn isolated_name(volume: &str) -> String {
    format!("{volume}{}", device::ISOLATED_SUFFIX)
}

/// The core has no clock that a person reads: when an isolation was asked for is filled in here.
pub fn with_time(command: Command) -> Command {
    match command {
        Command::Isolate { .. } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_unix_s = now.map_or(0, |now| now.as_secs());
            Command::Isolate { now_unix_s }
        }
        Command::Activate
        | Command::Deactivate { .. }
        | Command::Takeover { .. }
        | Command::Granted { .. }
        | Command::Stop
        | Command::Grow { .. }
        | Command::Resolve { .. }
        | Command::Force { .. }
        | Command::Verify { .. }
        | Command::VerifyStop
        | Command::Invalidate { .. }
        | Command::ResyncPause
        | Command::ResyncResume
        | Command::Attach { .. } => command,
    }
}

/// What the core is told where there is no ublk.
pub fn without_device(command: DeviceCommand) -> Option<DeviceEvent> {
    let errno = Errno(libc::ENODEV);
    match command {
        DeviceCommand::StartLive => Some(DeviceEvent::Failed(errno)),
        DeviceCommand::StopLive { .. } => Some(DeviceEvent::Stopped),
        DeviceCommand::ResizeLive { .. } => None,
        DeviceCommand::StartIsolated => {
            Some(DeviceEvent::Isolated(IsolatedEvent::Failed { errno }))
        }
        DeviceCommand::StopIsolated { .. } => Some(DeviceEvent::Isolated(IsolatedEvent::Stopped)),
    }
}

impl DeviceControl {
    /// Fills in the names that lead to the devices.
    pub fn name_in(&self, status: &mut Status) {
        let path = |name: &str| name_path(name).ok().map(|path| path.display().to_string());
        status.device = path(&self.settings.name);
        let up = self.isolated().is_some_and(|(_, found)| found.shown);
        if let Some(isolated) = status.isolated.as_mut().filter(|_| up) {
            isolated.device = path(&isolated_name(&self.settings.name));
        }
    }

    pub(super) fn isolated(&self) -> Option<(usize, &Attached)> {
        self.of_kind(DeviceKind::Isolated)
    }

    pub(super) fn start_isolated(&mut self) {
        if self.isolated().is_some() || self.live().is_some() {
            let errno = Errno(libc::EBUSY);
            return self.tell_isolated(IsolatedEvent::Failed { errno });
        }
        self.add(DeviceKind::Isolated);
    }

    pub(super) fn stop_isolated(&mut self, force: bool) {
        let Some((dev_id, generation)) = self
            .isolated()
            .map(|(_, found)| (found.dev_id, found.generation))
        else {
            return self.tell_isolated(IsolatedEvent::Stopped);
        };
        if force {
            return self.end_isolated();
        }
        self.isolated_asked = Some(generation);
        if !in_use::ask(dev_id, generation, Instant::now(), self.inbox.clone()) {
            self.on_isolated_use(generation, true);
        }
    }

    /// Whether somebody uses the read-only device. Returns whether that was asked for.
    pub(super) fn on_isolated_use(&mut self, generation: u32, in_use: bool) -> bool {
        if self
            .isolated_asked
            .take_if(|asked| *asked == generation)
            .is_none()
        {
            return false;
        }
        if in_use {
            self.tell_isolated(IsolatedEvent::Busy);
        } else {
            self.end_isolated();
        }
        true
    }

    /// Takes it away, whoever uses it.
    pub(super) fn end_isolated(&mut self) {
        let found = self.isolated();
        let found = found.map(|(place, found)| (place, found.dev_id, found.stopped));
        let Some((place, dev_id, false)) = found else {
            return;
        };
        if !self.jobs.iter().any(|(_, job)| *job == Job::Stop { place }) {
            self.ask(device::Request::Stop { dev_id }, Job::Stop { place });
        }
    }

    /// It answers reads: its name leads to it from now on.
    pub(super) fn isolated_started(&mut self, place: usize, dev_id: u32) {
        if self.ending {
            return self.end_isolated();
        }
        let name = isolated_name(&self.settings.name);
        if let Err(error) = device::publish_name(&name, dev_id) {
            tracing::error!(code = "LS3029", %error, "cannot let a name lead to the isolated copy's device");
            return self.abandon(place, Errno(libc::EEXIST));
        }
        if let Some(found) = &mut self.places[place] {
            found.shown = true;
        }
        tracing::info!(dev_id, name, "read-only device of the isolated copy");
        self.ask(device::Request::DeleteOnExit { dev_id, name }, Job::Other);
        self.tell_isolated(IsolatedEvent::Started);
    }

    pub(super) fn tell_isolated(&mut self, event: IsolatedEvent) {
        self.events.push(DeviceEvent::Isolated(event));
    }
}
