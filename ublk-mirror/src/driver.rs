//! The owner thread: tells the core what happened and does what it says, on one ring.
//!
//! A round takes all completions, gives their events to the core, executes the effects and submits
//! everything that came of it with one system call.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mirror_core::admin::Kept;
use mirror_core::effect::{Effect, Effects};
use mirror_core::event::{Digest, Event};
use mirror_core::limits::{COMMANDS_MAX, COPY_INFLIGHT_MAX};
use mirror_core::types::{Errno, Instant};
use mirror_core::volume::Volume;
use thiserror::Error;

use crate::admin_server::Unanswered;
use crate::claim::Claim;
use crate::device::DeviceError;
use crate::device_control::isolated::without_device;
use crate::device_control::{DeviceControl, DeviceEvent};
use crate::disown::{self, DisownMark};
use crate::explain::{Explain, with_causes};
use crate::front::Front;
use crate::inbox::{Answer, Inbox};
use crate::keep::Progress;
use crate::local_disk::{Ended, LocalDisk};
use crate::metadata::{Job, Persister, Written};
use crate::peer_link::PeerLink;
use crate::ring::{Completion, DATA_FILE, Kind, METADATA_FILE, Ring, Token};
use crate::sys;
use crate::tell::tell;

mod asked;
mod asker;
mod fill;
mod keep;
mod links;
mod sizes;
mod stuck;

use fill::{fill, holder};
use keep::Keeping;
use sizes::measure;

/// Longest time without a look at the clock.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// A deadline that has passed does not make the thread spin.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// What was sent and answered before the end may take so long to go out.
const EXIT_MAX: Duration = Duration::from_secs(1);
/// After that the last I/O and the fenced device may take so long to end.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Why the daemon cannot go on.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error("the ring failed")]
    Ring(#[source] io::Error),
    #[error("the device helper failed")]
    Helper(#[source] DeviceError),
    #[error("the live ublk device is lost")]
    DeviceLost,
}

impl Explain for DriverError {
    fn code(&self) -> &'static str {
        match self {
            Self::Ring(_) => "LS3033",
            Self::Helper(_) => "LS3030",
            Self::DeviceLost => "LS3034",
        }
    }

    fn advice(&self) -> String {
        "start the daemon again: it takes the device over where it was; look at the kernel's log"
            .into()
    }
}

/// Who waits for the answer to a command.
#[derive(Debug)]
enum Asker {
    Client(Answer),
    /// Blocks were kept in that file before.
    Resolver(Answer, Kept),
    Signal(&'static str),
}

/// What the start-up hands over.
pub struct Parts<F = DeviceControl> {
    pub volume: Volume,
    pub ring: Ring,
    pub disk: LocalDisk,
    pub persister: Persister,
    pub disown: DisownMark,
    pub link: PeerLink,
    pub device: Option<F>,
    pub inbox: Arc<Inbox>,
    pub unanswered: Unanswered,
    /// Where blocks of discarded sides are kept.
    pub discarded_dir: PathBuf,
    /// Released at an orderly end only: after any other the protection must stay.
    pub claims: Vec<Claim>,
}

/// See the module.
pub struct Driver<F = DeviceControl> {
    parts: Parts<F>,
    effects: Effects,
    completions: Vec<Completion>,
    device_events: Vec<DeviceEvent>,
    askers: HashMap<u64, Asker>,
    next_command: u64,
    exit_until: Option<Instant>,
    keeping: Option<Keeping>,
    /// A file that is being removed: nothing was discarded.
    going: Option<Arc<Progress>>,
    /// What copy buffers were found to hold, not yet told.
    examined: VecDeque<(u16, bool, Option<Digest>)>,
    /// Without a ublk device the core is told that there is none.
    no_device: Vec<DeviceEvent>,
    /// Whether the mark could be kept; not yet told.
    disowned: Option<bool>,
}

/// Nanoseconds since boot, suspend included.
pub fn now() -> Instant {
    Instant::from_nanos(u64::try_from(sys::boottime().as_nanos()).unwrap_or(u64::MAX))
}

impl<F: Front> Driver<F> {
    pub fn new(parts: Parts<F>) -> Driver<F> {
        Driver {
            parts,
            effects: Vec::with_capacity(256),
            completions: Vec::with_capacity(1024),
            device_events: Vec::with_capacity(256),
            askers: HashMap::with_capacity(COMMANDS_MAX),
            next_command: 1,
            exit_until: None,
            keeping: None,
            going: None,
            examined: VecDeque::with_capacity(usize::from(COPY_INFLIGHT_MAX)),
            no_device: Vec::new(),
            disowned: None,
        }
    }

    /// Runs until the core says that the process may end.
    pub fn run(mut self) -> Result<(), DriverError> {
        self.watch_inbox();
        self.watch_helper();
        self.feed(sys::wall_clock());
        loop {
            self.settle()?;
            if self.may_exit() {
                self.close_down();
                return Ok(());
            }
            let wait = self.wait();
            self.parts
                .ring
                .submit_and_wait(wait)
                .map_err(DriverError::Ring)?;
            let mut completions = std::mem::take(&mut self.completions);
            self.parts.ring.completions(&mut completions);
            for completion in completions.drain(..) {
                self.completed(&completion)?;
            }
            self.completions = completions;
        }
    }

    /// Goes on until nothing is left to do but wait.
    fn settle(&mut self) -> Result<(), DriverError> {
        if self.parts.volume.deadline().is_some_and(|due| due <= now()) {
            self.feed(Event::Tick);
        }
        self.discard_what_was_kept();
        loop {
            let mut busy = self.device_events()?;
            while let Some((slot, zero, digest)) = self.examined.pop_front() {
                self.feed(Event::Examined { slot, zero, digest });
                busy = true;
            }
            if let Some(kept) = self.disowned.take() {
                self.feed(Event::Disowned { kept });
                busy = true;
            }
            while let Some(place) = self.parts.link.fed() {
                self.frames(place);
                busy = true;
            }
            self.parts.link.drive(&mut self.parts.ring, now());
            busy |= self.link_events();
            if !busy {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Duration {
        let now = now();
        let due = [
            self.parts.volume.deadline(),
            self.parts.link.deadline(),
            self.exit_until,
            self.keeping_due(),
        ];
        let wait = due
            .into_iter()
            .flatten()
            .map(|due| due.since(now))
            .min()
            .unwrap_or(WAIT_MAX);
        wait.clamp(WAIT_MIN, WAIT_MAX)
    }

    fn may_exit(&self) -> bool {
        let Some(until) = self.exit_until else {
            return false;
        };
        let parts = &self.parts;
        let quiet = parts.link.flushed() && parts.unanswered.none() && !parts.persister.busy();
        quiet && self.keeps_nothing() || until <= now()
    }

    /// The orderly end: frees the backing device. The core is told nothing any more, as if the
    /// process were gone, so no new I/O comes.
    fn close_down(mut self) {
        self.end_keeping();
        if let Err(error) = self.end_all_io() {
            not_released(&error);
            return;
        }
        let parts = self.parts;
        // After the devices: their parked fetches would keep these files open in the ring.
        for file in [DATA_FILE, METADATA_FILE] {
            if let Err(error) = parts.ring.unregister(file) {
                not_released(&error);
                return;
            }
        }
        for claim in parts.claims {
            if let Err(error) = claim.release() {
                not_released(&error);
            }
        }
    }

    /// A device of which something is still in flight must stay protected.
    fn end_all_io(&mut self) -> io::Result<()> {
        if let Some(device) = &mut self.parts.device {
            if device.serves() {
                return Err(io::Error::other("the live device is still there"));
            }
            device.end();
        }
        let until = now() + CLOSE_MAX;
        loop {
            let parts = &self.parts;
            let no_device = parts.device.as_ref().is_none_or(F::has_ended);
            if no_device && parts.disk.in_flight() == 0 && !parts.persister.busy() {
                return Ok(());
            }
            let wait = until.since(now());
            if wait.is_zero() {
                return Err(io::Error::other(
                    "the last I/O or the fenced device does not end",
                ));
            }
            self.parts.ring.submit_and_wait(wait)?;
            let mut completions = std::mem::take(&mut self.completions);
            self.parts.ring.completions(&mut completions);
            for completion in completions.drain(..) {
                self.completed_at_end(&completion)?;
            }
            self.completions = completions;
        }
    }

    fn completed_at_end(&mut self, completion: &Completion) -> io::Result<()> {
        let (token, outcome) = (completion.token, completion.outcome());
        let parts = &mut self.parts;
        match token.kind {
            Kind::Ublk => {
                if let Some(device) = &mut parts.device {
                    device.on_queue(&mut parts.ring, token, completion.result);
                }
            }
            Kind::Helper => {
                if let Some(device) = &mut parts.device {
                    device
                        .on_helper(&mut parts.ring)
                        .map_err(io::Error::other)?;
                }
                self.watch_helper();
            }
            Kind::Disk => drop(parts.disk.complete(&mut parts.ring, token.index, outcome)),
            Kind::Persist => drop(parts.persister.complete(&mut parts.ring, outcome)),
            // The end of the process closes the connections.
            Kind::Accept | Kind::Connect | Kind::Receive | Kind::Send | Kind::Inbox => {}
        }
        Ok(())
    }

    fn completed(&mut self, completion: &Completion) -> Result<(), DriverError> {
        let token = completion.token;
        let parts = &mut self.parts;
        match token.kind {
            Kind::Ublk => {
                if let Some(device) = &mut parts.device {
                    device.on_queue(&mut parts.ring, token, completion.result);
                }
            }
            Kind::Disk => {
                match parts
                    .disk
                    .complete(&mut parts.ring, token.index, completion.outcome())
                {
                    Some(Ended::Done { owner, result }) => {
                        self.feed(Event::DiskDone { owner, result })
                    }
                    Some(Ended::Late { owner }) => self.ended_late(owner),
                    None => {}
                }
            }
            Kind::Persist => match parts
                .persister
                .complete(&mut parts.ring, completion.outcome())
            {
                Some(Written::Durable {
                    sequence,
                    size_sectors,
                }) => {
                    // Before the core hears of it, and perhaps wants a live device.
                    if let Some(device) = &mut parts.device {
                        device.note_size(size_sectors);
                    }
                    self.feed(Event::Persisted { sequence });
                }
                Some(Written::BlockDurable { id }) => self.feed(Event::BlockWritten { id }),
                Some(Written::Failed { errno }) => self.feed(Event::PersistFailed {
                    errno: Errno(errno),
                }),
                None => {}
            },
            Kind::Accept => parts.link.on_accept(completion, now()),
            Kind::Connect => parts.link.on_connect(token, now()),
            Kind::Receive => {
                parts.link.on_receive(token, completion.outcome(), now());
                // A connection that stood ready is told to the core before its first frame.
                self.link_events();
                self.frames(token.place);
            }
            Kind::Send => parts.link.on_send(token, completion.outcome()),
            Kind::Helper => {
                if let Some(device) = &mut parts.device {
                    device
                        .on_helper(&mut parts.ring)
                        .map_err(DriverError::Helper)?;
                }
                self.watch_helper();
            }
            Kind::Inbox => {
                parts.inbox.quiet();
                self.messages();
                self.watch_inbox();
            }
        }
        Ok(())
    }

    /// Gives the core every whole frame of a connection. What the core says to one frame is done
    /// before the next is looked at: a connection that it closes is not read any more.
    fn frames(&mut self, place: u8) {
        while let Some(arrived) = self
            .parts
            .link
            .next_frame(&mut self.parts.ring, place, now())
        {
            let body = self.parts.ring.bytes(arrived.body);
            let (session, frame, buffer) = (arrived.session, arrived.frame, arrived.buffer);
            let event = Event::Received {
                session,
                frame,
                body,
                buffer,
            };
            tracing::trace!(?event);
            self.parts.volume.handle(now(), event, &mut self.effects);
            self.execute();
        }
    }

    fn device_events(&mut self) -> Result<bool, DriverError> {
        let mut events = std::mem::take(&mut self.device_events);
        if let Some(device) = &mut self.parts.device {
            device.take_events(&mut events);
        }
        events.append(&mut self.no_device);
        let any = !events.is_empty();
        for event in events.drain(..) {
            match event {
                DeviceEvent::Started => self.feed(Event::DeviceStarted),
                DeviceEvent::Stopped => self.feed(Event::DeviceStopped),
                DeviceEvent::Failed(errno) => self.feed(Event::DeviceFailed { errno }),
                DeviceEvent::Busy => self.feed(Event::DeviceBusy),
                DeviceEvent::Request(request) => self.feed(Event::Request(request)),
                DeviceEvent::Isolated(event) => self.feed(Event::Isolated(event)),
                DeviceEvent::Broken => return Err(DriverError::DeviceLost),
            }
        }
        self.device_events = events;
        Ok(any)
    }

    fn feed(&mut self, event: Event<'_>) {
        tracing::trace!(?event);
        self.parts.volume.handle(now(), event, &mut self.effects);
        self.execute();
    }

    fn execute(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        tracing::trace!(?effects);
        for effect in effects.drain(..) {
            self.effect(effect);
        }
        self.effects = effects;
    }

    fn effect(&mut self, effect: Effect) {
        let parts = &mut self.parts;
        match effect {
            Effect::Complete { tag, result } => {
                stuck::leave_to_the_disk(parts, tag);
                if let Some(device) = &mut parts.device {
                    device.complete(&mut parts.ring, tag, result);
                }
            }
            Effect::Disk {
                owner,
                operation,
                range,
            } => parts.disk.start(&mut parts.ring, owner, operation, range),
            Effect::Abandon { owner } => self.give_up(owner),
            Effect::AbandonMetadata => parts.persister.give_up(),
            Effect::Disown => self.disowned = Some(parts.disown.keep()),
            Effect::DisownWrites => parts.disown.keep_of(disown::WRITES_FAILED),
            Effect::DisownMembership => parts.disown.keep_of(disown::PEER_ASKED),
            Effect::Examine {
                slot,
                range,
                digest,
            } => self.examine(slot, range, digest),
            Effect::Persist(superblock) => {
                if let Some(device) = &mut parts.device {
                    device.note_view(superblock.view.id.to_string());
                }
                parts
                    .persister
                    .start(&mut parts.ring, Job::Superblock(superblock));
            }
            Effect::WriteBlock {
                id,
                offset_bytes,
                block,
            } => {
                let job = Job::Block {
                    id,
                    offset_bytes,
                    block,
                };
                parts.persister.start(&mut parts.ring, job);
            }
            Effect::Send {
                session,
                frame,
                body,
                payload,
            } => {
                let payload = payload.map(holder);
                parts
                    .link
                    .send(&mut parts.ring, session, frame, &body, payload);
            }
            Effect::Close { session } => parts.link.close(session, now()),
            Effect::ReleaseBuffer { slot } => self.release(slot),
            Effect::FillRequest { tag, slot, range } => fill(&mut parts.ring, tag, slot, range),
            Effect::MeasureBacking { id } => measure(parts, id),
            Effect::Device(command) => match &mut parts.device {
                Some(device) => device.command(command),
                None => self.no_device.extend(without_device(command)),
            },
            Effect::Reply {
                command_id,
                outcome,
            } => self.reply(command_id, &outcome),
            Effect::Notice(notice) => tell(&notice),
            Effect::Exit => self.exit(),
        }
    }

    fn watch_inbox(&mut self) {
        let fd = self.parts.inbox.fd();
        self.parts
            .ring
            .poll(fd, libc::POLLIN, Token::new(Kind::Inbox));
    }

    fn watch_helper(&mut self) {
        if let Some(device) = &self.parts.device {
            self.parts
                .ring
                .poll(device.helper_fd(), libc::POLLIN, Token::new(Kind::Helper));
        }
    }
}

fn not_released(error: &dyn std::error::Error) {
    let error = with_causes(error.to_string(), error.source());
    tracing::warn!(
        code = "LS3042",
        advice = "start and stop the daemon again, or see `dmsetup ls` and `blockdev --setrw`",
        "a device stays protected after the daemon's end: {error}"
    );
}
