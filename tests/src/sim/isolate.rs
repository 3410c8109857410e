//! Isolated copies: operators isolate and attach, somebody reads the image, and it must not change (I30: an
//! isolated copy is the volume at one moment until it is attached).

use mirror_core::admin::{Command, Outcome, Refusal};
use mirror_core::disk::Superblock;
use mirror_core::effect::{DeviceCommand, DiskOperation};
use mirror_core::event::{Event, IoOwner, IsolatedEvent, Request, RequestKind};
use mirror_core::types::{Errno, SectorRange, Tag};

use super::disk::{Running, Value};
use super::kernel::DEPTH;
use super::model::{Judgement, write_of};
use super::node::{MS, id};
use super::rng::Rng;
use super::shell::first_word;
use super::world::{Happening, World};

/// What happens to a read-only device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// It comes up.
    Up,
    /// The core hears that it is up.
    Told,
    /// It is to be stopped.
    Stop { force: bool },
    /// It is gone.
    Gone,
    /// Somebody asks for something.
    Ask { slot: usize },
}

/// A read-only device and what is asked of it.
#[derive(Debug, Default)]
pub(super) struct IsolatedDevice {
    slots: [Option<Request>; DEPTH],
    /// What was read, by slot.
    data: [Vec<Value>; DEPTH],
    used: bool,
    stopping: bool,
}

impl IsolatedDevice {
    fn is_idle(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }
}

/// A node's isolated copy, as the checks see it.
#[derive(Debug, Default)]
pub struct Isolated {
    /// What the copy held when it was isolated, while it is.
    image: Option<Vec<Value>>,
    /// An operator asked for its end.
    attach_asked: bool,
    /// Its device.
    device: Option<IsolatedDevice>,
}

impl Isolated {
    /// Other disks are in the machine. An image of some time ago is not the volume of this moment, but stands as it is.
    pub(super) fn other_disks(&mut self, superblock: &Superblock, media: &[Value]) {
        let sectors = usize::try_from(superblock.size_sectors).unwrap_or(usize::MAX);
        let marked = superblock.isolation.own.is_some();
        self.image = marked.then(|| media.iter().take(sectors).copied().collect());
        self.attach_asked = false;
    }
}

impl World {
    // --- operators ----------------------------------------------------------------------------

    /// An operator isolates a copy, the standby's most of the time.
    pub(super) fn isolate(&mut self, dice: &mut Rng, node: usize) {
        let standby = self.active().map(|active| 1 - active);
        let node = standby.filter(|_| dice.percent(85)).unwrap_or(node);
        if self.status(node).is_some() {
            let now_unix_s = 1 + self.now / 1_000_000_000;
            self.command(node, Command::Isolate { now_unix_s });
        }
    }

    /// An operator attaches what is isolated.
    pub(super) fn attach_isolated(&mut self, force: bool) {
        for node in 0..2 {
            // Also one whose disk failed meanwhile: it says both.
            let isolated = self
                .status(node)
                .is_some_and(|status| status.isolated.is_some());
            if isolated {
                self.command(node, Command::Attach { force });
            }
            // Its disk was given up: the operator is told to start the daemon again.
            if isolated && self.is_given_up(node) {
                self.count("isolated daemon started again");
                self.kill(node);
                self.at(50 * MS, Happening::Start { node });
            }
        }
    }

    /// A command is given.
    pub(super) fn note_attach(&mut self, node: usize, command: &Command) {
        self.nodes[node].isolated.attach_asked |= matches!(command, Command::Attach { .. });
    }

    /// Refusals by their kind.
    pub(super) fn count_isolation(&mut self, outcome: &Outcome) {
        if let Err(Refusal::Isolation(refusal)) = outcome {
            let kind = first_word(&format!("{refusal:?}"));
            self.count(&format!("isolation refused {kind}"));
        }
    }

    // --- what must hold -----------------------------------------------------------------------

    /// Something durable may have changed on a node.
    pub(super) fn check_isolation(&mut self, node: usize) {
        let marked = self.nodes[node].meta.peek().isolation.own.is_some();
        let known = self.nodes[node].isolated.image.is_some();
        if marked && !known {
            self.isolation_began(node);
        } else if known && !marked {
            self.image_must_stand(node);
            let isolated = &mut self.nodes[node].isolated;
            isolated.image = None;
            let (asked, stands) = (isolated.attach_asked, isolated.device.is_some());
            self.count("isolated copy attached");
            if !asked {
                self.fail(format!(
                    "{node} is not isolated any more, and nobody attached it (I30)"
                ));
            } else if stands {
                self.fail(format!(
                    "{node} was attached while its read-only device stands (I30)"
                ));
            }
        }
    }

    fn isolation_began(&mut self, node: usize) {
        self.count("copy isolated");
        self.note(|| format!("{node} is isolated"));
        let data = &self.nodes[node].data;
        // What is made equal behind the image's end for a grow is no part of it.
        let end = self.nodes[node].meta.peek().size_sectors;
        let sectors = usize::try_from(end).unwrap_or(usize::MAX);
        let image: Vec<Value> = data.content.iter().take(sectors).copied().collect();
        let within = |running: &&Running| running.changes() && running.range.start < end;
        let running = data.running.iter().find(within);
        if let Some(range) = running.map(|running| running.range) {
            self.fail(format!(
                "{node} is isolated while {range:?} is being written (I30)"
            ));
            return;
        }
        let acked = |value: &Value| {
            write_of(*value).is_some_and(|write| self.model.write(write).acked.is_some())
        };
        let unflushed = self.nodes[node].data.unflushed().find(acked);
        if let Some(value) = unflushed {
            self.fail(format!(
                "{node} is isolated, and {value:#x} is acknowledged and not flushed there (I30, S2)"
            ));
            return;
        }
        // Until the other node writes the narrower view down, nothing is written there either.
        let other = &self.nodes[1 - node];
        let size = self.largest_size();
        let mut pairs = other.data.content.iter().zip(&image).take(size).enumerate();
        // What a killed daemon left half done is asked for again by the kernel, and waits until this copy is out.
        let asked = |sector: usize| {
            let slots = other.device.iter().flat_map(|device| &device.slots);
            let mut changes = slots
                .flatten()
                .filter(|outstanding| outstanding.write.is_some());
            changes.any(|outstanding| {
                outstanding
                    .request
                    .range
                    .overlaps(SectorRange::new(sector as u64, 1))
            })
        };
        let differ = pairs
            .any(|(sector, (one, two))| one != two && !self.is_damaged(sector) && !asked(sector));
        if other.view().insync.len() == 2 && differ && !self.split {
            self.fail(format!(
                "{node} is isolated, and its copy is not the volume (I30, S1)"
            ));
            return;
        }
        // Whoever agreed and then went on alone by another word, because nothing came back for long, has written since: the
        // image is of the moment before.
        let theirs = self.nodes[1 - node].view();
        let elsewhere = theirs.is_sole(id(1 - node)) && theirs.id != self.nodes[node].view().id;
        if !elsewhere {
            self.judge_image(node, &image);
        }
        let isolated = &mut self.nodes[node].isolated;
        isolated.image = Some(image);
        isolated.attach_asked = false;
    }

    /// Every acknowledged write is in the image.
    fn judge_image(&mut self, node: usize, image: &[Value]) {
        let now = self.model.tick();
        let size = image.len().min(self.largest_size());
        let sectors: Vec<usize> = self.model.touched.sectors(size).collect();
        for sector in sectors {
            let value = image[sector];
            if self.is_damaged(sector) {
                continue;
            }
            if let Judgement::Wrong(why) = self.model.judge(sector as u64, value, now)
                && !self.split
                && !self.desk.split_expected
            {
                let history = self.model.explain(sector as u64);
                self.fail(format!(
                    "{node} is isolated: sector {sector} is {value:#x}, {why} (I30):{history}"
                ));
                return;
            }
        }
    }

    /// An image is what it was.
    pub(super) fn image_must_stand(&mut self, node: usize) {
        let place = &self.nodes[node];
        let Some(image) = place.isolated.image.as_ref() else {
            return;
        };
        if !place.data.content.starts_with(image) {
            let mut pairs = image.iter().zip(&place.data.content);
            let sector = pairs.position(|(was, is)| was != is);
            self.fail(format!(
                "{node}: the isolated copy changed at sector {sector:?} (I30)"
            ));
        }
    }

    /// A disk operation begins.
    pub(super) fn check_isolated_write(
        &mut self,
        node: usize,
        owner: IoOwner,
        operation: DiskOperation,
    ) {
        let changes = !matches!(operation, DiskOperation::Read | DiskOperation::Flush);
        if changes && self.nodes[node].isolated.image.is_some() {
            self.fail(format!(
                "{node}: {owner:?} writes to the isolated copy (I30)"
            ));
        }
    }

    // --- the device ---------------------------------------------------------------------------

    fn isolated_at(&mut self, after: u64, node: usize, process: u64, step: Step) {
        self.at(
            after,
            Happening::Isolated {
                node,
                process,
                step,
            },
        );
    }

    pub(super) fn isolated_command(&mut self, node: usize, process: u64, command: DeviceCommand) {
        let after = self.micros(500, 20_000);
        if command == DeviceCommand::StartIsolated {
            if self.nodes[node].meta.peek().isolation.own.is_none() {
                self.fail(format!(
                    "{node}: a read-only device of a copy that is not isolated (I30)"
                ));
            }
            self.isolated_at(after, node, process, Step::Up);
        } else {
            let force = command == DeviceCommand::StopIsolated { force: true };
            self.isolated_at(after, node, process, Step::Stop { force });
        }
    }

    pub(super) fn isolated_step(&mut self, node: usize, process: u64, step: Step) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        match step {
            Step::Up => self.isolated_up(node, process),
            Step::Told => self.feed(node, Event::Isolated(IsolatedEvent::Started)),
            Step::Stop { force } => self.isolated_stop(node, process, force),
            Step::Gone => {
                self.nodes[node].isolated.device = None;
                self.note(|| format!("{node} read-only device gone"));
                self.feed(node, Event::Isolated(IsolatedEvent::Stopped));
            }
            Step::Ask { slot } => self.isolated_ask(node, process, slot),
        }
    }

    fn isolated_up(&mut self, node: usize, process: u64) {
        let place = &self.nodes[node];
        if place.device.is_some() || place.isolated.device.is_some() {
            self.fail(format!(
                "{node}: a read-only device was started beside another (I30)"
            ));
            return;
        }
        if self.chaos && self.rng.percent(3) {
            self.count("read-only device failed");
            let errno = Errno::EIO;
            self.feed(node, Event::Isolated(IsolatedEvent::Failed { errno }));
            return;
        }
        self.count("read-only devices");
        let used = self.rng.percent(70);
        self.nodes[node].isolated.device = Some(IsolatedDevice {
            used,
            ..IsolatedDevice::default()
        });
        for slot in 0..DEPTH {
            let after = self.micros(10, 20_000);
            self.isolated_at(after, node, process, Step::Ask { slot });
        }
        let after = self.micros(10, 15_000);
        self.isolated_at(after, node, process, Step::Told);
    }

    fn isolated_stop(&mut self, node: usize, process: u64, force: bool) {
        let Some(device) = self.nodes[node].isolated.device.as_mut() else {
            return self.isolated_at(0, node, process, Step::Gone);
        };
        if device.used && !force {
            // Backups end.
            device.used = false;
            self.count("read-only device busy");
            self.feed(node, Event::Isolated(IsolatedEvent::Busy));
            return;
        }
        device.used = false;
        device.stopping = true;
        if device.is_idle() {
            self.isolated_at(100_000, node, process, Step::Gone);
        }
    }

    fn isolated_ask(&mut self, node: usize, process: u64, slot: usize) {
        let tag = Tag(u16::try_from(slot).unwrap_or(0));
        let sectors = self.nodes[node].meta.peek().size_sectors;
        let mut request = self.workload.next(&mut self.rng, tag, sectors);
        if request.kind != RequestKind::Flush && self.rng.percent(90) {
            (request.kind, request.fua) = (RequestKind::Read, false);
        }
        let Some(device) = self.nodes[node].isolated.device.as_mut() else {
            return;
        };
        if !device.used || device.slots[slot].is_some() {
            return;
        }
        device.slots[slot] = Some(request);
        self.feed(node, Event::Request(request));
        let after = self.micros(100, 100_000);
        self.isolated_at(after, node, process, Step::Ask { slot });
    }

    /// What was read of the image, if it was for its device.
    pub(super) fn isolated_read(&mut self, node: usize, tag: Tag, read: &[Value]) {
        if let Some(device) = self.nodes[node].isolated.device.as_mut() {
            device.data[usize::from(tag.0)] = read.to_vec();
        }
    }

    /// Whether a node has a read-only device now.
    pub(super) fn has_isolated_device(&self, node: usize) -> bool {
        self.nodes[node].isolated.device.is_some()
    }

    pub(super) fn isolated_complete(
        &mut self,
        node: usize,
        process: u64,
        tag: Tag,
        result: Result<(), Errno>,
    ) {
        let slot = usize::from(tag.0);
        let owner = IoOwner::Application(tag);
        let mut running = self.nodes[node].data.running.iter();
        let busy = running.any(|running| running.owner == owner);
        let isolated = &mut self.nodes[node].isolated;
        let Some(device) = isolated.device.as_mut() else {
            return;
        };
        let (request, read) = (
            device.slots[slot].take(),
            std::mem::take(&mut device.data[slot]),
        );
        let (gone, image) = (device.stopping && device.is_idle(), isolated.image.as_ref());
        let Some(request) = request.filter(|_| !busy) else {
            return self.fail(format!(
                "{node}: tag {slot} was completed, but it was free or busy"
            ));
        };
        if result.is_ok() {
            let start = usize::try_from(request.range.start).unwrap_or(0);
            let wanted = image.map(|image| &image[start..start + request.range.count as usize]);
            if request.kind != RequestKind::Read {
                self.fail(format!(
                    "{node}: the read-only device took {request:?} (I30)"
                ));
            } else if wanted.is_some_and(|wanted| wanted != read) {
                self.fail(format!(
                    "{node}: the read-only device shows another image at {request:?} (I30)"
                ));
            }
            self.count("reads of an isolated copy");
        } else if request.kind != RequestKind::Read {
            self.count("writes to an isolated copy refused");
        }
        if gone {
            self.isolated_at(100_000, node, process, Step::Gone);
        }
    }

    /// The daemon is gone, and the read-only device with it.
    pub(super) fn isolated_device_dies(&mut self, node: usize) {
        self.nodes[node].isolated.device = None;
        self.check_isolation(node);
        self.image_must_stand(node);
    }
}
