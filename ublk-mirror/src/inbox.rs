//! What other threads tell the owner thread: a bounded queue and an eventfd that wakes it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use mirror_core::admin::{Command, Kept};
use mirror_core::keys::Keys;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::keep::{KeepError, Verdict};
use crate::waits::Waits;

/// Messages that wait for the owner thread.
const MESSAGES_MAX: usize = 64;

/// One line for a client.
pub type Answer = SyncSender<String>;

#[derive(Debug)]
pub enum Message {
    /// A client wants the status.
    Status(Answer),
    /// A client commands.
    Command {
        /// What.
        command: Command,
        /// Whether it may still begin.
        waits: Waits,
        /// Where the answer goes.
        answer: Answer,
    },
    /// The key file holds these.
    Keys(Keys, Answer),
    /// A signal asks the daemon to end.
    Signal(&'static str),
    /// The answer to whether somebody uses the live device of this generation.
    DeviceUse { generation: u32, in_use: bool },
    /// How large the backing device is, in sectors, or an error number.
    Backing { id: u64, sectors: Result<u64, i32> },
    /// The blocks of a side that is to be discarded were kept, or not.
    Kept(Result<Kept, KeepError>, SyncSender<Verdict>),
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    messages: Mutex<VecDeque<Message>>,
    wake: EventFd,
}

impl Inbox {
    pub fn new() -> io::Result<Inbox> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Inbox {
            messages: Mutex::new(VecDeque::with_capacity(MESSAGES_MAX)),
            wake,
        })
    }

    /// Gives the message back if the queue is full.
    pub fn put(&self, message: Message) -> Result<(), Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() >= MESSAGES_MAX {
            return Err(message);
        }
        messages.push_back(message);
        drop(messages);
        match self.wake.write(1) {
            // EAGAIN: the counter is at its end, so the owner is woken anyway.
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => tracing::error!(%errno, "cannot wake the owner thread"),
        }
        Ok(())
    }

    /// The next message, for the owner thread.
    pub fn take(&self) -> Option<Message> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Takes the wake-up back, before the messages are taken.
    pub fn quiet(&self) {
        let mut count = [0; 8];
        if let Err(errno) = nix::unistd::read(self.wake.as_fd(), &mut count)
            && errno != Errno::EAGAIN
        {
            tracing::error!(%errno, "cannot take the wake-up back");
        }
    }

    /// Readable when there are messages.
    pub fn fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}
