//! The application of a daemon, within its owner thread: [`Front`] without a block device.
//!
//! A request costs the ring what it costs with ublk: the answer to one is an entry (a no-op in place of COMMIT_AND_FETCH),
//! whose completion is the next one, and its payload is copied to the tag's buffer then, as the kernel does in this thread. What is
//! missing: the kernel's own work in its block layer, and the application's.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use io_uring::opcode;
use mirror_core::admin::Status;
use mirror_core::effect::DeviceCommand;
use mirror_core::event::{IsolatedEvent, Request, RequestKind};
use mirror_core::limits::REQUEST_BYTES_MAX;
use mirror_core::types::{Errno, SectorRange, Tag};
use ublk_mirror::device::DeviceError;
use ublk_mirror::device_control::DeviceEvent;
use ublk_mirror::driver::DriverError;
use ublk_mirror::front::Front;
use ublk_mirror::ring::{Kind, Memory, Ring, Span, Token};

use crate::job::{Job, Running, Step};
use crate::line::{Ask, Counts, done};

/// See the module.
#[derive(Debug)]
pub struct Load {
    control: UnixStream,
    heard: Vec<u8>,
    size_sectors: u64,
    live: bool,
    events: Vec<DeviceEvent>,
    running: Option<Running>,
    /// The application's memory.
    payload: Vec<u8>,
}

impl Load {
    /// An application that is told over `control` what to do ([`Ask`]), on a volume of so many sectors.
    ///
    /// # Errors
    /// The socket cannot be made one that does not block.
    pub fn new(control: UnixStream, size_sectors: u64) -> std::io::Result<Load> {
        control.set_nonblocking(true)?;
        Ok(Load {
            control,
            heard: Vec::new(),
            size_sectors,
            live: false,
            events: Vec::with_capacity(256),
            running: None,
            payload: vec![0xa5; REQUEST_BYTES_MAX as usize],
        })
    }

    fn asked(&mut self, ring: &mut Ring, line: &str) {
        match line.parse() {
            Ok(Ask::Count) => self.say(&format!("{}\n", Counts::now(ring.work()))),
            Ok(Ask::Run(job)) if self.live && self.running.is_none() => self.begin_job(ring, job),
            Ok(Ask::Run(_)) => self.say("refused: not live, or busy\n"),
            Err(error) => self.say(&format!("refused: {error}\n")),
        }
    }

    fn begin_job(&mut self, ring: &mut Ring, job: Job) {
        let running = Running::new(job, self.size_sectors);
        for tag in running.tags() {
            fetch(ring, Tag(tag));
        }
        self.running = Some(running);
    }

    /// A few bytes into an empty socket: it takes them.
    fn say(&mut self, line: &str) {
        if let Err(error) = self.control.write_all(line.as_bytes()) {
            eprintln!("the benchmark does not listen: {error}");
        }
    }

    /// The application's memory, with the number of the write and where it goes in front.
    fn stamp(&mut self, number: u64, range: SectorRange) -> &[u8] {
        self.payload[..8].copy_from_slice(&range.start.to_le_bytes());
        self.payload[8..16].copy_from_slice(&number.to_le_bytes());
        let bytes = usize::try_from(range.bytes()).expect("a request fits into memory");
        &self.payload[..bytes]
    }
}

/// The tag's answer goes to the kernel, and its next request is asked for.
fn fetch(ring: &mut Ring, tag: Tag) {
    let token = Token {
        index: tag.0,
        ..Token::new(Kind::Ublk)
    };
    ring.ublk(opcode::Nop::new().build(), token);
}

impl Front for Load {
    fn begin(&mut self, _: &mut Ring, _: Option<u32>) -> Result<(), DriverError> {
        Ok(())
    }

    fn take_events(&mut self, into: &mut Vec<DeviceEvent>) {
        into.append(&mut self.events);
    }

    fn command(&mut self, command: DeviceCommand) {
        let errno = Errno(nix::libc::EOPNOTSUPP);
        let event = match command {
            DeviceCommand::StartLive => DeviceEvent::Started,
            DeviceCommand::StopLive { .. } if self.running.is_some() => DeviceEvent::Busy,
            DeviceCommand::StopLive { .. } => DeviceEvent::Stopped,
            DeviceCommand::ResizeLive { .. } => return,
            DeviceCommand::StartIsolated => DeviceEvent::Isolated(IsolatedEvent::Failed { errno }),
            DeviceCommand::StopIsolated { .. } => DeviceEvent::Isolated(IsolatedEvent::Stopped),
        };
        match event {
            DeviceEvent::Started => self.live = true,
            DeviceEvent::Stopped => self.live = false,
            DeviceEvent::Failed(_)
            | DeviceEvent::Busy
            | DeviceEvent::Request(_)
            | DeviceEvent::Isolated(_)
            | DeviceEvent::Broken => {}
        }
        self.events.push(event);
    }

    fn complete(&mut self, ring: &mut Ring, tag: Tag, result: Result<(), Errno>) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.ended(tag.0, result.is_ok());
        match running.result() {
            None => fetch(ring, tag),
            Some((took, failed)) => {
                self.running = None;
                self.say(&done(took, failed));
            }
        }
    }

    fn on_queue(&mut self, ring: &mut Ring, token: Token, _: i32) {
        let Some(running) = &mut self.running else {
            return;
        };
        let tag = Tag(token.index);
        let (kind, range) = match running.next(tag.0) {
            None => return,
            Some(Step::Flush) => (RequestKind::Flush, SectorRange::new(0, 0)),
            Some(Step::Write(range)) => (RequestKind::Write, range),
        };
        if kind == RequestKind::Write {
            let number = running.issued();
            let span = Span {
                memory: Memory::Data,
                buffer: ring.tag_buffer(tag).0,
                offset: 0,
                bytes: usize::try_from(range.bytes()).expect("a request fits into memory"),
            };
            ring.bytes_mut(span)
                .copy_from_slice(self.stamp(number, range));
        }
        self.events.push(DeviceEvent::Request(Request {
            tag,
            kind,
            range,
            fua: false,
        }));
    }

    fn helper_fd(&self) -> RawFd {
        self.control.as_raw_fd()
    }

    fn on_helper(&mut self, ring: &mut Ring) -> Result<(), DeviceError> {
        let mut chunk = [0; 256];
        loop {
            match self.control.read(&mut chunk) {
                // The benchmark is gone.
                Ok(0) => return Err(DeviceError::HelperGone),
                Ok(count) => self.heard.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(DeviceError::Pipe(error)),
            }
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            self.asked(ring, String::from_utf8_lossy(&line).trim());
        }
        Ok(())
    }

    fn on_use(&mut self, _: u32, _: bool) {}

    fn use_buffer_of(&mut self, _: &Ring, _: Tag) {}

    fn note_view(&mut self, _: String) {}

    fn note_size(&mut self, size_sectors: u64) {
        self.size_sectors = size_sectors;
    }

    fn name_in(&self, _: &mut Status) {}

    fn live_size_bytes(&self) -> Option<u64> {
        None
    }

    fn serves(&self) -> bool {
        self.live
    }

    fn end(&mut self) {}

    fn has_ended(&self) -> bool {
        self.running.is_none()
    }
}
