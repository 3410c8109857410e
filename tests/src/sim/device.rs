//! The simulated kernel: the live device, and the application on it.

use mirror_core::effect::{DeviceCommand, PayloadSource};
use mirror_core::event::{Event, IoOwner, RequestKind};
use mirror_core::types::{Errno, Tag};

use super::kernel::{DEPTH, Device, Outstanding};
use super::model::value_of;
use super::world::{Happening, World};

impl World {
    pub(super) fn device_command(&mut self, node: usize, process: u64, command: DeviceCommand) {
        self.note(|| format!("{node} device {command:?}"));
        match command {
            DeviceCommand::StartLive => {
                self.check_activation(node);
                let after = self.micros(2000, 40_000);
                self.at(after, Happening::DeviceUp { node, process });
            }
            DeviceCommand::ResizeLive { size_sectors } => self.resize_live(node, size_sectors),
            DeviceCommand::StartIsolated | DeviceCommand::StopIsolated { .. } => {
                self.isolated_command(node, process, command);
            }
            DeviceCommand::StopLive { force } => {
                let after = self.micros(500, 10_000);
                self.at(
                    after,
                    Happening::DeviceStop {
                        node,
                        process,
                        force,
                    },
                );
            }
        }
    }

    pub(super) fn device_up(&mut self, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        if self.nodes[node].device.is_some() {
            self.fail(format!("{node}: a live device was started beside another"));
            return;
        }
        if self.rng.percent(2) && self.chaos {
            self.count("device failed");
            self.feed(node, Event::DeviceFailed { errno: Errno::EIO });
            return;
        }
        self.activations += 1;
        let activation = self.activations;
        self.count("activations");
        if !self.is_void(node) && !self.is_overtaken(node) {
            self.newest = activation;
            self.newest_since = self.model.tick();
            self.model.end_others(activation);
        }
        let sectors = self.nodes[node].meta.peek().size_sectors;
        self.check_device_size(node, sectors);
        self.nodes[node].device = Some(Device::new(activation, sectors));
        self.note(|| format!("{node} activation {activation}"));
        self.start_application(node);
        // The kernel lets requests in before the helper has reported.
        let after = self.micros(10, 15_000);
        self.at(after, Happening::DeviceStarted { node, process });
    }

    pub(super) fn start_application(&mut self, node: usize) {
        let Some(device) = self.nodes[node].device.as_mut() else {
            return;
        };
        device.used = self.plan.application && !self.resting;
        let activation = device.activation;
        if device.used {
            for slot in 0..DEPTH {
                let after = self.micros(10, 20_000);
                self.at(
                    after,
                    Happening::App {
                        node,
                        activation,
                        slot,
                    },
                );
            }
        }
    }

    pub(super) fn device_stop(&mut self, node: usize, process: u64, force: bool) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        let Some(device) = self.nodes[node].device.as_mut() else {
            self.at(0, Happening::DeviceGone { node, process });
            return;
        };
        if device.used && !force {
            self.count("device busy");
            self.feed(node, Event::DeviceBusy);
            return;
        }
        device.used = false;
        device.stopping = true;
        if device.is_idle() {
            let after = self.micros(100, 3000);
            self.at(after, Happening::DeviceGone { node, process });
        }
    }

    pub(super) fn device_gone(&mut self, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        self.nodes[node].device = None;
        self.note(|| format!("{node} device gone"));
        self.feed(node, Event::DeviceStopped);
    }

    pub(super) fn complete(
        &mut self,
        node: usize,
        process: u64,
        tag: Tag,
        result: Result<(), Errno>,
    ) {
        if self.has_isolated_device(node) {
            return self.isolated_complete(node, process, tag, result);
        }
        let now = self.now;
        if self
            .network
            .reuse(node, process, PayloadSource::Application(tag), now)
        {
            self.count("request buffer reused before it was sent");
        }
        let owner = IoOwner::Application(tag);
        if self.nodes[node]
            .data
            .running
            .iter()
            .any(|running| running.owner == owner)
        {
            self.fail(format!(
                "{node}: tag {} was completed while its disk operation runs (I15)",
                tag.0
            ));
            return;
        }
        self.leave_to_the_disk(node, tag);
        let Some(device) = self.nodes[node].device.as_mut() else {
            self.fail(format!(
                "{node}: tag {} was completed without a device",
                tag.0
            ));
            return;
        };
        let Some(outstanding) = device.slots[usize::from(tag.0)].take() else {
            self.fail(format!(
                "{node}: tag {} was completed, but it was free",
                tag.0
            ));
            return;
        };
        let (activation, stopping, idle) = (device.activation, device.stopping, device.is_idle());
        self.model.reading.remove(&outstanding.submitted);
        self.check_made_good(node, &outstanding, result.is_ok());
        match result {
            Ok(()) => self.acknowledged(node, activation, &outstanding),
            Err(_) => self.failed(node, &outstanding),
        }
        if stopping && idle {
            let after = self.micros(100, 3000);
            self.at(after, Happening::DeviceGone { node, process });
        } else if self.plan.application {
            let pause = self.workload.pause_us(tag);
            let after = self.micros(10, pause * 2);
            self.at(
                after,
                Happening::App {
                    node,
                    activation,
                    slot: usize::from(tag.0),
                },
            );
        }
    }

    fn failed(&mut self, node: usize, outstanding: &Outstanding) {
        self.note(|| format!("{node} EIO {:?}", outstanding.request));
        self.count("requests failed");
        self.check_failed_request(node);
        if let Some(write) = outstanding.write {
            self.model.fail(write);
        }
        let stops = self.rng.percent(70);
        if stops && let Some(device) = self.nodes[node].device.as_mut() {
            device.used = false;
        }
    }

    // --- the application ----------------------------------------------------------------------

    pub(super) fn app(&mut self, node: usize, activation: u64, slot: usize) {
        let tag = Tag(u16::try_from(slot).unwrap_or(0));
        let Some(device) = self.nodes[node].device.as_ref() else {
            return;
        };
        if device.activation != activation || !device.used || device.slots[slot].is_some() {
            return;
        }
        let sectors = device.sectors;
        let request = self.workload.next(&mut self.rng, tag, sectors);
        if request.range.end() > self.plan.sectors {
            self.count("requests to a new area");
        }
        self.ask(node, request);
    }

    /// The application asks for something.
    pub fn ask(&mut self, node: usize, request: mirror_core::event::Request) -> Option<usize> {
        let activation = self.nodes[node].device.as_ref()?.activation;
        let zero = matches!(
            request.kind,
            RequestKind::Discard | RequestKind::WriteZeroes
        );
        let changes = zero || request.kind == RequestKind::Write;
        let write = changes.then(|| self.model.submit(request.range, zero, activation));
        if let (Some(number), true) = (write, self.is_void(node)) {
            self.model.void(number);
        }
        let data = match (write, zero) {
            (Some(number), false) => (0..request.range.count as usize)
                .map(|offset| value_of(number, offset))
                .collect(),
            _ => Vec::new(),
        };
        let submitted = self.model.tick();
        if request.kind == RequestKind::Read {
            self.model.reading.insert(submitted);
        }
        let outstanding = Outstanding {
            request,
            write,
            data,
            submitted,
            process: 0,
            unread: None,
            rewritten: false,
            visited: false,
        };
        self.nodes[node].device.as_mut()?.slots[usize::from(request.tag.0)] = Some(outstanding);
        if let Some(process) = self.nodes[node].process.as_ref() {
            let process = process.number;
            self.at(
                5000,
                Happening::Hand {
                    node,
                    process,
                    tag: request.tag,
                },
            );
        }
        write
    }

    pub(super) fn hand(&mut self, node: usize, process: u64, tag: Tag) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        let device = self.nodes[node].device.as_mut();
        let Some(outstanding) = device.and_then(|device| device.slots[usize::from(tag.0)].as_mut())
        else {
            return;
        };
        if outstanding.process == process {
            return;
        }
        outstanding.process = process;
        (outstanding.unread, outstanding.rewritten) = (None, false);
        let request = outstanding.request;
        self.note(|| format!("{node} request {request:?}"));
        self.feed(node, Event::Request(request));
    }
}
