//! The life of the volume's ublk devices: the live one that serves, the fenced one that stands for
//! it. Control commands go to the helper and come back as jobs; the queues are on the driver's ring.
//!
//! An activation makes a fresh device and lets the name lead to it; only then is the fenced one
//! taken away. The other way round the live one is gone for ever before the fenced one appears.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mirror_core::effect::DeviceCommand;
use mirror_core::event::{IsolatedEvent, Request};
use mirror_core::limits::{DISCARD_SECTORS_MAX, QUEUE_DEPTH, REQUEST_BYTES_MAX};
use mirror_core::types::{Errno, Tag};
use nix::errno::Errno as KernelErrno;

use crate::buffers::{BufferError, Pool};
use crate::device::{
    self, Answer, DeviceError, DeviceHelper, DeviceKind, DeviceParams, DiscardParams, Outcome,
};
use crate::inbox::Inbox;
use crate::queue::{self, Queue, Wakeup};
use crate::ring::{Ring, Token, UBLK_FILES};
use crate::sys;

mod convert;
mod ended;
mod fenced;
mod in_use;
pub mod isolated;
mod resize;
pub mod state_file;
mod stop;

use convert::{core_request, errno_of, kernel_errno, token_of};
use state_file::{DeviceRecord, StateFile};

/// A fenced device answers at once; a few small requests are plenty.
const FENCED_DEPTH: u16 = 4;
const FENCED_BYTES: u32 = 64 * 1024;

/// What the core wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    Started,
    Stopped,
    Failed(Errno),
    Busy,
    Request(Request),
    Isolated(IsolatedEvent),
    /// The helper or the queue of the live device is lost: the daemon cannot go on.
    Broken,
}

/// Geometry and names; a node that joins learns the size (`note_size`), the rest does not change.
#[derive(Clone, Debug)]
pub struct DeviceSettings {
    pub name: String,
    pub size_sectors: u64,
    pub logical_block_bytes: u32,
    pub physical_block_bytes: u32,
    pub chunk_sectors: u32,
    pub owner_tag: u64,
    pub record: DeviceRecord,
}

/// After the end of a recovery the kernel hands over what a dead daemon had not answered: that takes milliseconds. A
/// device that ends before it would lose writes that are on one copy already (S10).
const HAND_OVER: Duration = Duration::from_secs(3);

/// What an answer of the helper belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Add {
        kind: DeviceKind,
        size_sectors: u64,
    },
    Start {
        place: usize,
    },
    Recover {
        place: usize,
    },
    Stop {
        place: usize,
    },
    Resize {
        place: usize,
        size_sectors: u64,
    },
    /// Only logged if it fails.
    Other,
}

#[derive(Debug)]
struct Attached {
    queue: Queue,
    dev_id: u32,
    kind: DeviceKind,
    size_sectors: u64,
    generation: u32,
    /// Tags that the kernel has not taken back.
    tags_out: u16,
    /// The kernel has said that the disk is gone.
    stopped: bool,
    /// Its name leads to it.
    shown: bool,
    /// It never came up: this is why.
    failed: Option<Errno>,
}

/// What must be told when the present change is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Starting,
    /// The use of the live device is being looked at.
    Asking,
    Stopping,
}

/// See the module.
#[derive(Debug)]
pub struct DeviceControl {
    helper: DeviceHelper,
    settings: DeviceSettings,
    state_file: StateFile,
    inbox: Arc<Inbox>,
    fenced_pool: ManuallyDrop<Pool>,
    places: [Option<Attached>; 2],
    jobs: Vec<(device::Token, Job)>,
    change: Change,
    generation: u32,
    events: Vec<DeviceEvent>,
    /// The kernel has handed over by then what a dead daemon had in its hands.
    handed_over_at: Option<Instant>,
    /// The daemon ends: no device may come any more.
    ending: bool,
    /// The use of the read-only device of this generation is being looked at.
    isolated_asked: Option<u32>,
}

impl DeviceControl {
    pub fn new(
        helper: DeviceHelper,
        settings: DeviceSettings,
        state_file: StateFile,
        inbox: Arc<Inbox>,
    ) -> Result<DeviceControl, BufferError> {
        Ok(DeviceControl {
            helper,
            settings,
            state_file,
            inbox,
            fenced_pool: ManuallyDrop::new(Pool::new(FENCED_DEPTH.into(), FENCED_BYTES)?),
            places: [None, None],
            jobs: Vec::with_capacity(16),
            change: Change::None,
            generation: 0,
            events: Vec::with_capacity(256),
            handed_over_at: None,
            ending: false,
            isolated_asked: None,
        })
    }

    /// Readable when the helper has answered.
    pub fn helper_fd(&self) -> RawFd {
        self.helper.fd()
    }

    /// Moves what there is to tell to `into`.
    pub fn take_events(&mut self, into: &mut Vec<DeviceEvent>) {
        into.append(&mut self.events);
    }

    /// Serves a device of a dead daemon whose recovery has begun.
    pub fn start_recovered(&mut self, ring: &mut Ring, dev_id: u32) -> Result<(), DeviceEvent> {
        let place = self
            .attach(ring, dev_id, DeviceKind::Active, self.settings.size_sectors)
            .map_err(DeviceEvent::Failed)?;
        self.ask(
            device::Request::EndRecovery {
                dev_id,
                daemon_pid: sys::pid(),
            },
            Job::Recover { place },
        );
        Ok(())
    }

    /// The id of the view in force, for the record of a live device.
    pub fn note_view(&mut self, view: String) {
        self.settings.record.view = view;
    }

    /// Carries out what the core wants.
    pub fn command(&mut self, command: DeviceCommand) {
        match command {
            DeviceCommand::StartLive if self.live().is_some() => {
                self.events.push(DeviceEvent::Started)
            }
            DeviceCommand::StartLive => {
                self.change = Change::Starting;
                self.add(DeviceKind::Active);
            }
            DeviceCommand::ResizeLive { size_sectors } => self.resize_live(size_sectors),
            DeviceCommand::StartIsolated => self.start_isolated(),
            DeviceCommand::StopIsolated { force } => self.stop_isolated(force),
            DeviceCommand::StopLive { force } => {
                match self.live().map(|(_, live)| (live.dev_id, live.generation)) {
                    None => self.events.push(DeviceEvent::Stopped),
                    Some(_) if force => self.stop_live(),
                    Some((dev_id, generation)) => {
                        self.change = Change::Asking;
                        let not_before = self.handed_over_at.unwrap_or_else(Instant::now);
                        let recovers = |(_, job): &(_, Job)| matches!(job, Job::Recover { .. });
                        if self.jobs.iter().any(recovers)
                            || !in_use::ask(dev_id, generation, not_before, self.inbox.clone())
                        {
                            self.on_use(generation, true);
                        }
                    }
                }
            }
        }
    }

    /// Whether somebody uses the live device of that generation.
    pub fn on_use(&mut self, generation: u32, in_use: bool) {
        if self.on_isolated_use(generation, in_use) {
            return;
        }
        let current = self
            .live()
            .is_some_and(|(_, live)| live.generation == generation);
        if self.change != Change::Asking || !current {
            return;
        }
        if in_use {
            self.change = Change::None;
            self.events.push(DeviceEvent::Busy);
        } else {
            self.stop_live();
        }
    }

    /// Answers a request of the live or the read-only device.
    pub fn complete(&mut self, ring: &mut Ring, tag: Tag, result: Result<(), Errno>) {
        let Some((place, live)) = self.live().or_else(|| self.isolated()) else {
            tracing::error!(?tag, "completion without a live device");
            return;
        };
        let outcome = match result {
            Ok(()) => queue::Outcome::Done,
            Err(errno) => queue::Outcome::Failed(kernel_errno(errno)),
        };
        let entry = live.queue.commit_and_fetch(tag.0, outcome);
        let token = token_of(place, live.generation, tag.0);
        ring.ublk(entry, token);
    }

    /// The tag has another buffer from now on ([`Ring::put_aside`]).
    pub fn use_buffer_of(&mut self, ring: &Ring, tag: Tag) {
        let places = self.places.iter_mut().flatten();
        for place in places.filter(|place| place.kind != DeviceKind::Fenced) {
            place
                .queue
                .use_buffer(tag.0, ring.data_pool(), ring.tag_buffer(tag));
        }
    }

    /// A fetch or commit has completed.
    pub fn on_queue(&mut self, ring: &mut Ring, token: Token, result: i32) {
        let place = usize::from(token.place);
        let Some(found) = self.places[place]
            .as_mut()
            .filter(|found| found.generation == token.generation)
        else {
            return;
        };
        match queue::wakeup(result) {
            Wakeup::Request => match (found.kind, found.queue.request(token.index)) {
                (DeviceKind::Active | DeviceKind::Isolated, Ok(request)) => {
                    self.events
                        .push(DeviceEvent::Request(core_request(token.index, request)));
                }
                (DeviceKind::Fenced, _) => refuse(ring, found, token, KernelErrno::EIO),
                (DeviceKind::Active | DeviceKind::Isolated, Err(error)) => {
                    tracing::error!(%error, "request refused");
                    refuse(ring, found, token, KernelErrno::EINVAL);
                }
            },
            Wakeup::Stopping => self.tag_back(ring, place),
            Wakeup::Refused { errno } => {
                tracing::error!(
                    tag = token.index,
                    errno,
                    "the ublk driver refused a command"
                );
                if found.kind == DeviceKind::Active && found.failed.is_none() {
                    self.events.push(DeviceEvent::Broken);
                }
                self.tag_back(ring, place);
            }
        }
    }

    /// Takes the helper's answers.
    pub fn on_helper(&mut self, ring: &mut Ring) -> Result<(), DeviceError> {
        for (token, outcome) in self.helper.on_readable()? {
            let at = self.jobs.iter().position(|(known, _)| *known == token);
            if let Some(at) = at {
                let (_, job) = self.jobs.swap_remove(at);
                self.answered(ring, job, outcome);
            }
        }
        Ok(())
    }

    fn answered(&mut self, ring: &mut Ring, job: Job, outcome: Outcome) {
        match (job, outcome) {
            (Job::Add { kind, size_sectors }, Ok(Answer::Added { dev_id })) => {
                self.added(ring, kind, size_sectors, dev_id);
            }
            (Job::Add { kind, .. }, Ok(Answer::Done | Answer::Info(_))) => {
                self.not_up(kind, Errno::EIO);
            }
            (Job::Add { kind, .. }, Err(failure)) => {
                tracing::error!(code = "LS3026", ?kind, %failure, "cannot add a ublk device");
                self.not_up(kind, errno_of(&failure));
            }
            (Job::Start { place }, Ok(_)) => self.started(place),
            (Job::Recover { place }, Ok(_)) => self.recovered(place),
            (Job::Start { place }, Err(failure)) => {
                tracing::error!(code = "LS3026", %failure, "cannot start a ublk device");
                self.abandon(place, errno_of(&failure));
            }
            (Job::Recover { .. }, Err(failure)) => {
                tracing::error!(code = "LS3027", %failure, "cannot recover the ublk device");
                self.events.push(DeviceEvent::Broken);
            }
            (Job::Stop { place }, outcome) => self.stop_answered(ring, place, outcome),
            (
                Job::Resize {
                    place,
                    size_sectors,
                },
                outcome,
            ) => self.resize_answered(place, size_sectors, outcome),
            (Job::Other, Err(failure)) => tracing::warn!(%failure, "ublk device"),
            (Job::Other, Ok(_)) => {}
        }
    }

    fn added(&mut self, ring: &mut Ring, kind: DeviceKind, size_sectors: u64, dev_id: u32) {
        if self.ending {
            self.delete(dev_id);
            return;
        }
        if kind == DeviceKind::Active {
            // Before START: from then on a crash leaves a device that must be found again.
            let record = DeviceRecord {
                dev_id,
                ..self.settings.record.clone()
            };
            if let Err(error) = self.state_file.write(&record) {
                tracing::warn!(code = "LS3028", %error, "a crash of this daemon could not be recovered from");
            }
        }
        match self.attach(ring, dev_id, kind, size_sectors) {
            Ok(place) => self.ask(
                device::Request::Start {
                    dev_id,
                    daemon_pid: sys::pid(),
                },
                Job::Start { place },
            ),
            Err(errno) => {
                self.delete(dev_id);
                self.not_up(kind, errno);
            }
        }
    }

    fn attach(
        &mut self,
        ring: &mut Ring,
        dev_id: u32,
        kind: DeviceKind,
        size_sectors: u64,
    ) -> Result<usize, Errno> {
        let place = self
            .places
            .iter()
            .position(Option::is_none)
            .ok_or(Errno(libc::EBUSY))?;
        let slot = UBLK_FILES[place];
        let opened = match kind {
            DeviceKind::Active | DeviceKind::Isolated => Queue::open(
                dev_id,
                QUEUE_DEPTH,
                REQUEST_BYTES_MAX,
                ring.data_pool(),
                slot.0,
            ),
            DeviceKind::Fenced => Queue::open(
                dev_id,
                FENCED_DEPTH,
                FENCED_BYTES,
                &self.fenced_pool,
                slot.0,
            ),
        };
        let mut queue = opened.map_err(|error| {
            tracing::error!(code = "LS3026", %error, dev_id, "cannot open the queue of a ublk device");
            Errno::EIO
        })?;
        ring.register(slot, queue.fd())
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))?;
        self.generation += 1;
        let generation = self.generation;
        for tag in queue.tags() {
            if kind != DeviceKind::Fenced {
                queue.use_buffer(tag, ring.data_pool(), ring.tag_buffer(Tag(tag)));
            }
            ring.ublk(queue.fetch(tag), token_of(place, generation, tag));
        }
        let tags_out = queue.depth();
        self.places[place] = Some(Attached {
            queue,
            dev_id,
            kind,
            size_sectors,
            generation,
            tags_out,
            stopped: false,
            shown: false,
            failed: None,
        });
        Ok(place)
    }

    fn started(&mut self, place: usize) {
        let Some((dev_id, kind)) = self.places[place]
            .as_ref()
            .map(|found| (found.dev_id, found.kind))
        else {
            return;
        };
        if kind == DeviceKind::Fenced && (self.ending || self.live().is_some()) {
            // The end or an activation overtook it: the name must not lead to it any more.
            self.stop_fenced();
            return;
        }
        if kind == DeviceKind::Isolated {
            return self.isolated_started(place, dev_id);
        }
        let published = device::publish_name(&self.settings.name, dev_id);
        if let Err(error) = &published {
            tracing::error!(code = "LS3029", %error, "cannot let the volume's name lead to its device");
        }
        match kind {
            DeviceKind::Active if published.is_err() => self.abandon(place, Errno(libc::EEXIST)),
            DeviceKind::Active => {
                self.change = Change::None;
                self.events.push(DeviceEvent::Started);
                tracing::info!(dev_id, "live device");
                self.stop_fenced();
            }
            DeviceKind::Isolated => {}
            DeviceKind::Fenced => {
                let name = self.settings.name.clone();
                self.ask(device::Request::DeleteOnExit { dev_id, name }, Job::Other);
                tracing::info!(dev_id, "fenced device");
                self.fenced_is_settled();
                self.refit_fenced();
            }
        }
    }

    fn recovered(&mut self, place: usize) {
        self.handed_over_at = Some(Instant::now() + HAND_OVER);
        let Some(dev_id) = self.places[place].as_ref().map(|found| found.dev_id) else {
            return;
        };
        if let Err(error) = device::publish_name(&self.settings.name, dev_id) {
            tracing::error!(code = "LS3029", %error, "cannot let the volume's name lead to its device");
        }
        tracing::info!(
            code = "LS2020",
            dev_id,
            "the live device of the previous run goes on"
        );
    }

    fn tag_back(&mut self, ring: &mut Ring, place: usize) {
        if let Some(found) = &mut self.places[place] {
            found.tags_out = found.tags_out.saturating_sub(1);
        }
        self.detach_if_done(ring, place);
    }

    fn live(&self) -> Option<(usize, &Attached)> {
        self.of_kind(DeviceKind::Active)
    }

    fn of_kind(&self, kind: DeviceKind) -> Option<(usize, &Attached)> {
        let places = self.places.iter().enumerate();
        let mut found = places
            .filter_map(|(place, attached)| attached.as_ref().map(|attached| (place, attached)));
        found.find(|(_, attached)| attached.kind == kind)
    }

    fn add(&mut self, kind: DeviceKind) {
        let (queue_depth, max_io_bytes) = match kind {
            DeviceKind::Active | DeviceKind::Isolated => (QUEUE_DEPTH, REQUEST_BYTES_MAX),
            DeviceKind::Fenced => (FENCED_DEPTH, FENCED_BYTES),
        };
        let settings = &self.settings;
        let size_sectors = settings.size_sectors;
        let params = DeviceParams {
            kind,
            size_sectors,
            logical_block_bytes: settings.logical_block_bytes,
            physical_block_bytes: settings.physical_block_bytes,
            chunk_sectors: settings.chunk_sectors,
            max_io_bytes,
            queue_depth,
            discard: (kind == DeviceKind::Active).then_some(DiscardParams {
                granularity_bytes: settings
                    .physical_block_bytes
                    .max(settings.logical_block_bytes),
                max_sectors: DISCARD_SECTORS_MAX,
            }),
            owner_tag: settings.owner_tag,
        };
        self.ask(
            device::Request::Add(params),
            Job::Add { kind, size_sectors },
        );
    }

    fn ask(&mut self, request: device::Request, job: Job) {
        match self.helper.request(request) {
            Ok(token) => self.jobs.push((token, job)),
            Err(error) => {
                tracing::error!(code = "LS3030", %error, "the device helper does not answer");
                self.events.push(DeviceEvent::Broken);
            }
        }
    }
}

impl AsRawFd for DeviceControl {
    fn as_raw_fd(&self) -> RawFd {
        self.helper_fd()
    }
}

fn refuse(ring: &mut Ring, device: &Attached, token: Token, errno: KernelErrno) {
    ring.ublk(
        device
            .queue
            .commit_and_fetch(token.index, queue::Outcome::Failed(errno)),
        token,
    );
}
