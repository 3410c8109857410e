//! What other threads tell the owner thread: a bounded queue and an eventfd that wakes it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Message>,
    /// Threads that wait for room.
    waiting: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    queue: Mutex<Queue>,
    /// There is room for one who waits.
    room: Condvar,
    wake: EventFd,
}

impl Inbox {
    pub fn new() -> io::Result<Inbox> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Inbox {
            queue: Mutex::new(Queue {
                messages: VecDeque::with_capacity(MESSAGES_MAX),
                waiting: 0,
            }),
            room: Condvar::new(),
            wake,
        })
    }

    /// Gives the message back if the queue is full.
    pub fn put(&self, message: Message) -> Result<(), Message> {
        let queue = self.queue();
        if queue.messages.len() >= MESSAGES_MAX {
            return Err(message);
        }
        self.add(queue, message);
        Ok(())
    }

    /// For a thread that has nothing else to do, and whose answer the owner thread waits for: waits until there is room.
    pub fn put_when_there_is_room(&self, message: Message) {
        let mut queue = self.queue();
        queue.waiting += 1;
        while queue.messages.len() >= MESSAGES_MAX {
            let woken = self.room.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting -= 1;
        self.add(queue, message);
    }

    /// For the owner thread, which cannot wait for itself: beyond [`MESSAGES_MAX`]. These are measurements that failed at once, one
    /// for each grow that begins: by a command, of which [`mirror_core::limits::COMMANDS_MAX`] wait at most, or by a frame of the peer, of which one
    /// round reads as many as its buffers hold. The owner takes them all in its next round.
    pub fn put_own(&self, message: Message) {
        self.add(self.queue(), message);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, mut queue: MutexGuard<'_, Queue>, message: Message) {
        queue.messages.push_back(message);
        drop(queue);
        match self.wake.write(1) {
            // EAGAIN: the counter is at its end, so the owner is woken anyway.
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => tracing::error!(%errno, "cannot wake the owner thread"),
        }
    }

    /// The next message, for the owner thread.
    pub fn take(&self) -> Option<Message> {
        let mut queue = self.queue();
        let message = queue.messages.pop_front();
        if queue.waiting > 0 {
            self.room.notify_one();
        }
        message
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

#[cfg(test)]
impl Inbox {
    /// Full, so that whoever has an answer for the owner thread has to wait.
    pub(crate) fn full() -> Inbox {
        let inbox = Inbox::new().expect("an eventfd");
        while inbox.put(Message::Signal("SIGTERM")).is_ok() {}
        inbox
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue().waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_owner_tells_itself_needs_no_room() {
        let inbox = Inbox::full();
        let (id, sectors) = (3, Err(libc::EMFILE));
        inbox.put_own(Message::Backing { id, sectors });
        let mut last = None;
        while let Some(message) = inbox.take() {
            last = Some(message);
        }
        assert!(
            matches!(last, Some(Message::Backing { id: 3, .. })),
            "{last:?}"
        );
    }
}
