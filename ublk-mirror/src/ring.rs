//! The one io_uring of the daemon, and all memory that the kernel reads or writes through it.
//!
//! Submissions name memory by [`Span`], never by pointer: the pools live here, are never moved and
//! never freed, so that an operation in flight cannot outlive its memory.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use mirror_core::limits::QUEUE_DEPTH;
use mirror_core::types::Tag;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::buffers::{BufferError, BufferId, Pool};
use crate::local_disk::SPARES_FIRST;

mod work;

pub use work::Work;

const SUBMISSIONS: u32 = 512;
const COMPLETIONS: u32 = 4096;
/// Between two tries to submit what the kernel has no memory for, unless something completes before.
const REFUSED_WAIT: Duration = Duration::from_millis(10);
/// Pieces of memory that one send gathers.
pub const GATHER_MAX: usize = 64;
/// Registered files.
pub const DATA_FILE: FileSlot = FileSlot(0);
/// The metadata device, or the data device once more.
pub const METADATA_FILE: FileSlot = FileSlot(1);
/// Where the ublk devices are registered.
pub const UBLK_FILES: [FileSlot; 2] = [FileSlot(2), FileSlot(3)];
const FILES: usize = 4;

/// A registered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSlot(pub u32);

/// What an operation is, for its completion. Travels through the kernel as 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    /// Which ublk device, session place, ...
    pub place: u8,
    /// Which tag or operation.
    pub index: u16,
    /// Tells apart who used the same place one after the other.
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Ublk = 1,
    Disk = 2,
    Persist = 3,
    Accept = 4,
    Connect = 5,
    Receive = 6,
    Send = 7,
    Helper = 8,
    Inbox = 9,
}

impl Token {
    pub fn new(kind: Kind) -> Token {
        Token {
            kind,
            place: 0,
            index: 0,
            generation: 0,
        }
    }

    fn encode(self) -> u64 {
        (self.kind as u64) << 56
            | u64::from(self.place) << 48
            | u64::from(self.index) << 32
            | u64::from(self.generation)
    }

    fn decode(bits: u64) -> Token {
        let bytes = bits.to_be_bytes();
        let kind = match bytes[0] {
            1 => Kind::Ublk,
            2 => Kind::Disk,
            3 => Kind::Persist,
            4 => Kind::Accept,
            5 => Kind::Connect,
            6 => Kind::Receive,
            7 => Kind::Send,
            8 => Kind::Helper,
            9 => Kind::Inbox,
            other => unreachable!("completion of kind {other}: we never submitted one"),
        };
        Token {
            kind,
            place: bytes[1],
            index: u16::from_be_bytes([bytes[2], bytes[3]]),
            generation: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }
}

/// A pool of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Payloads: of requests, of the peer's writes, of the resync.
    Data,
    /// What goes through the sockets besides payloads, and what is written to the metadata.
    Link,
}

/// A piece of one buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub memory: Memory,
    pub buffer: u32,
    pub offset: usize,
    pub bytes: usize,
}

impl Span {
    /// What is left after the first `count` bytes.
    #[must_use]
    pub fn after(self, count: usize) -> Span {
        assert!(
            count <= self.bytes,
            "a span of {} bytes has no {count}",
            self.bytes
        );
        Span {
            offset: self.offset + count,
            bytes: self.bytes - count,
            ..self
        }
    }
}

/// Whether a write must be durable when it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Cached,
    Durable,
}

#[derive(Debug)]
pub struct Completion {
    pub token: Token,
    /// As the kernel gives it: bytes, or a negative error number.
    pub result: i32,
}

impl Completion {
    /// The byte count, or the positive error number.
    pub fn outcome(&self) -> Result<usize, i32> {
        usize::try_from(self.result).map_err(|_| -self.result)
    }
}

struct Gather {
    message: libc::msghdr,
    vectors: [libc::iovec; GATHER_MAX],
}

/// See the module.
pub struct Ring {
    /// Ended by the end of the process only: operations in flight use the pools.
    io: ManuallyDrop<IoUring>,
    data: ManuallyDrop<Pool>,
    link: ManuallyDrop<Pool>,
    /// One for each place of a session; used by at most one send at a time.
    gathers: ManuallyDrop<Box<[Gather]>>,
    /// Which buffer of the payload pool each tag has.
    tags: Vec<u32>,
    /// What did not fit into the submission queue.
    backlog: VecDeque<squeue::Entry>,
    work: Work,
}

impl Ring {
    /// Must be called by the thread that uses it.
    pub fn new(data: Pool, link: Pool, sessions: usize) -> io::Result<Ring> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        io.submitter().register_files(&[-1; FILES])?;
        let empty = || {
            let none = libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            };
            // SAFETY: a msghdr of zeroes is a valid one: null pointers with zero lengths.
            let message: libc::msghdr = unsafe { std::mem::zeroed() };
            Gather {
                message,
                vectors: [none; GATHER_MAX],
            }
        };
        Ok(Ring {
            io: ManuallyDrop::new(io),
            data: ManuallyDrop::new(data),
            link: ManuallyDrop::new(link),
            gathers: ManuallyDrop::new((0..sessions).map(|_| empty()).collect()),
            tags: (0..u32::from(QUEUE_DEPTH)).collect(),
            backlog: VecDeque::with_capacity(SUBMISSIONS as usize),
            work: Work::default(),
        })
    }

    pub fn register(&self, slot: FileSlot, fd: RawFd) -> io::Result<()> {
        self.io
            .submitter()
            .register_files_update(slot.0, &[fd])
            .map(drop)
    }

    pub fn unregister(&self, slot: FileSlot) -> io::Result<()> {
        self.register(slot, -1)
    }

    /// What this ring has done so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The payload pool, for the queue of a ublk device.
    pub fn data_pool(&self) -> &Pool {
        &self.data
    }

    /// The payload buffer of a tag.
    pub fn tag_buffer(&self, tag: Tag) -> BufferId {
        BufferId(self.tags[usize::from(tag.0)])
    }

    /// From now on the tag has its spare buffer: the other one is in the hands of a disk operation that
    /// nobody waits for any more. A tag has one spare: its disk is asked for nothing more in this run.
    pub fn put_aside(&mut self, tag: Tag) -> BufferId {
        let spare = SPARES_FIRST + u32::from(tag.0);
        self.tags[usize::from(tag.0)] = spare;
        BufferId(spare)
    }

    /// Bytes that no operation in flight writes.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.pool(span.memory).slice(BufferId(span.buffer))[span.offset..span.offset + span.bytes]
    }

    /// Bytes that no operation in flight touches.
    pub fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        let pool = match span.memory {
            Memory::Data => &mut self.data,
            Memory::Link => &mut self.link,
        };
        &mut pool.slice_mut(BufferId(span.buffer))[span.offset..span.offset + span.bytes]
    }

    /// Copies bytes that have arrived with a header to where the rest of them will go.
    pub fn copy(&mut self, from: Span, to: Span) {
        assert!(from.memory == Memory::Link && to.memory == Memory::Data && from.bytes == to.bytes);
        let source = &self.link.slice(BufferId(from.buffer))[from.offset..from.offset + from.bytes];
        self.data.slice_mut(BufferId(to.buffer))[to.offset..to.offset + to.bytes]
            .copy_from_slice(source);
    }

    /// Copies a payload from one buffer's beginning to another's.
    pub fn copy_data(&mut self, from: Span, to: Span) {
        let whole = |span: Span| span.memory == Memory::Data && span.offset == 0;
        assert!(whole(from) && whole(to) && from.bytes == to.bytes);
        self.data
            .copy(BufferId(from.buffer), BufferId(to.buffer), from.bytes);
    }

    /// Moves bytes to the start of their buffer.
    pub fn move_to_front(&mut self, span: Span) {
        assert!(span.memory == Memory::Link);
        let end = span.offset + span.bytes;
        self.link
            .slice_mut(BufferId(span.buffer))
            .copy_within(span.offset..end, 0);
    }

    pub fn read(&mut self, file: FileSlot, span: Span, position: u64, token: Token) {
        let (pointer, length) = self.raw(span);
        self.push(
            opcode::Read::new(Fixed(file.0), pointer, length)
                .offset(position)
                .build(),
            token,
        );
    }

    pub fn write(
        &mut self,
        file: FileSlot,
        span: Span,
        position: u64,
        durability: Durability,
        token: Token,
    ) {
        let (pointer, length) = self.raw(span);
        let flags = match durability {
            Durability::Cached => 0,
            Durability::Durable => libc::RWF_DSYNC,
        };
        let entry = opcode::Write::new(Fixed(file.0), pointer, length)
            .offset(position)
            .rw_flags(flags);
        self.push(entry.build(), token);
    }

    pub fn sync_data(&mut self, file: FileSlot, token: Token) {
        self.push(
            opcode::Fsync::new(Fixed(file.0))
                .flags(FsyncFlags::DATASYNC)
                .build(),
            token,
        );
    }

    pub fn fallocate(
        &mut self,
        file: FileSlot,
        mode: i32,
        position: u64,
        bytes: u64,
        token: Token,
    ) {
        let entry = opcode::Fallocate::new(Fixed(file.0), bytes)
            .offset(position)
            .mode(mode);
        self.push(entry.build(), token);
    }

    pub fn accept(&mut self, listener: RawFd, token: Token) {
        let none = std::ptr::null_mut();
        let entry =
            opcode::Accept::new(Fd(listener), none, std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC);
        self.push(entry.build(), token);
    }

    pub fn poll(&mut self, fd: RawFd, events: i16, token: Token) {
        let events = u32::from(events.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(fd), events).build(), token);
    }

    pub fn receive(&mut self, socket: RawFd, span: Span, token: Token) {
        let (pointer, length) = self.raw(span);
        self.push(
            opcode::Recv::new(Fd(socket), pointer, length).build(),
            token,
        );
    }

    /// Sends the spans in order, as far as the socket takes them. The caller has no other send
    /// of this place in flight.
    pub fn send(&mut self, socket: RawFd, spans: &[Span], token: Token) {
        assert!(spans.len() <= GATHER_MAX);
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; GATHER_MAX];
        for (vector, span) in vectors.iter_mut().zip(spans) {
            let (pointer, _) = self.raw(*span);
            *vector = libc::iovec {
                iov_base: pointer.cast(),
                iov_len: span.bytes,
            };
        }
        let gather = &mut self.gathers[usize::from(token.place)];
        gather.vectors = vectors;
        gather.message.msg_iov = gather.vectors.as_mut_ptr();
        gather.message.msg_iovlen = spans.len();
        let message = &raw const gather.message;
        let flags = libc::MSG_NOSIGNAL.cast_unsigned();
        self.push(
            opcode::SendMsg::new(Fd(socket), message)
                .flags(flags)
                .build(),
            token,
        );
    }

    /// An entry of a ublk queue, whose buffers belong to [`Ring::data_pool`] or to a pool that is
    /// never freed either.
    pub fn ublk(&mut self, entry: squeue::Entry, token: Token) {
        self.push(entry, token);
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        self.work.entry(token.kind);
        let entry = entry.user_data(token.encode());
        // SAFETY: every entry is built in this file (or by `Queue`) from buffers of pools, or from
        // gathers, that are never freed; a gather is not touched while its send is in flight.
        let pushed =
            self.backlog.is_empty() && unsafe { self.io.submission().push(&entry) }.is_ok();
        if !pushed {
            self.backlog.push_back(entry);
        }
    }

    /// Submits everything, then waits for a completion or the end of `wait`.
    pub fn submit_and_wait(&mut self, wait: Duration) -> io::Result<()> {
        self.round(wait, IoUring::submit)
    }

    /// With `submit` for the kernel's answer to what has to go first.
    fn round(
        &mut self,
        wait: Duration,
        submit: impl Fn(&IoUring) -> io::Result<usize>,
    ) -> io::Result<()> {
        let submitted = self.submit_backlog(submit).and_then(|()| {
            let time = Timespec::new()
                .sec(wait.as_secs())
                .nsec(wait.subsec_nanos());
            self.work.enters += 1;
            let arguments = SubmitArgs::new().timespec(&time);
            self.io.submitter().submit_with_args(1, &arguments)
        });
        match submitted.map_err(|error| (error.raw_os_error(), error)) {
            // Time is over, or a signal.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR), _)) => Ok(()),
            // No memory just now, or completions must be taken first: the next round tries again.
            Err((Some(libc::EBUSY | libc::EAGAIN), _)) => self.take_in(wait),
            Err((_, error)) => Err(error),
        }
    }

    /// Has the kernel report what has completed, though it takes nothing more. It does so when the thread that submits comes to
    /// wait, which a refused submission does not; and what is not reported keeps the memory that is short.
    fn take_in(&mut self, wait: Duration) -> io::Result<()> {
        // SAFETY: the ring is open as long as `self` is there.
        let ring = unsafe { BorrowedFd::borrow_raw(self.io.as_raw_fd()) };
        let mut ready = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait.min(REFUSED_WAIT)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut ready, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let report = EnterFlags::GETEVENTS.bits();
        self.work.enters += 1;
        // SAFETY: it submits nothing, waits for nothing, and has no argument.
        let reported = unsafe {
            let submitter = self.io.submitter();
            submitter.enter::<libc::sigset_t>(0, 0, report, None)
        };
        match reported.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    /// Moves what did not fit into the submission queue there, as it empties. On an error the rest stays.
    fn submit_backlog(&mut self, submit: impl Fn(&IoUring) -> io::Result<usize>) -> io::Result<()> {
        while !self.backlog.is_empty() {
            self.work.enters += 1;
            submit(&self.io)?;
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as in `push`.
                if unsafe { self.io.submission().push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
        }
        Ok(())
    }

    /// Takes what has completed.
    pub fn completions(&mut self, into: &mut Vec<Completion>) {
        for entry in self.io.completion() {
            let completion = Completion {
                token: Token::decode(entry.user_data()),
                result: entry.result(),
            };
            self.work.completion(&completion);
            into.push(completion);
        }
    }

    fn pool(&self, memory: Memory) -> &Pool {
        match memory {
            Memory::Data => &self.data,
            Memory::Link => &self.link,
        }
    }

    fn raw(&self, span: Span) -> (*mut u8, u32) {
        let pool = self.pool(span.memory);
        assert!(
            span.offset + span.bytes <= pool.size_bytes(),
            "{span:?} exceeds its buffer"
        );
        let length = u32::try_from(span.bytes).expect("a buffer is smaller than 4 GiB");
        (
            pool.ptr(BufferId(span.buffer)).wrapping_add(span.offset),
            length,
        )
    }
}

/// Takes the descriptor that an accept has returned; each completion only once.
pub fn accepted(completion: &Completion) -> Result<OwnedFd, i32> {
    assert!(completion.token.kind == Kind::Accept);
    match completion.result {
        // SAFETY: the kernel has just given this descriptor to us and nobody else knows it.
        fd if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        error => Err(-error),
    }
}

/// The two pools of a volume; the layout of the payload pool is [`crate::local_disk::data_buffer`].
pub fn pools(
    data_buffers: u32,
    data_bytes: u32,
    link_buffers: u32,
    link_bytes: u32,
) -> Result<(Pool, Pool), BufferError> {
    Ok((
        Pool::new(data_buffers, data_bytes)?,
        Pool::new(link_buffers, link_bytes)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_token_survives_its_way_through_the_kernel() {
        let token = Token {
            kind: Kind::Send,
            place: 3,
            index: 0xabcd,
            generation: 0xdead_beef,
        };
        assert_eq!(Token::decode(token.encode()), token);
    }

    /// More than fit into the submission queue in one round, and the kernel has no memory for some of them.
    #[test]
    fn a_kernel_that_is_short_of_memory_gets_the_backlog_in_a_later_round() {
        const COUNT: u16 = 1200;
        let (data, link) = pools(u32::from(QUEUE_DEPTH), 4096, 1, 4096).unwrap();
        let mut ring = Ring::new(data, link, 1).unwrap();
        let token = |index| Token {
            index,
            ..Token::new(Kind::Helper)
        };
        let (early, mut early_end) = io::pipe().unwrap();
        ring.poll(early.as_raw_fd(), libc::POLLIN, token(COUNT));
        ring.submit_and_wait(Duration::ZERO).unwrap();

        let (_reader, writable) = io::pipe().unwrap();
        for index in 0..COUNT {
            ring.poll(writable.as_raw_fd(), libc::POLLOUT, token(index));
        }
        let waiting = ring.backlog.len();
        assert!(waiting > SUBMISSIONS as usize, "{waiting}");
        let mut completions = Vec::new();
        let refused = |errno| move |_: &IoUring| Err(io::Error::from_raw_os_error(errno));
        for errno in [libc::EAGAIN, libc::EBUSY, libc::EINTR] {
            ring.round(Duration::from_secs(20), refused(errno)).unwrap();
            ring.completions(&mut completions);
            assert!(completions.is_empty());
            assert_eq!(ring.backlog.len(), waiting, "nothing is lost");
        }
        // What was under way before may be what has the memory.
        early_end.write_all(b"x").unwrap();
        let refusal = refused(libc::EAGAIN);
        ring.round(Duration::from_secs(20), refusal).unwrap();
        ring.completions(&mut completions);
        assert_eq!(completions.pop().unwrap().token, token(COUNT));
        let broken = ring.round(Duration::ZERO, refused(libc::EBADF));
        assert_eq!(broken.unwrap_err().raw_os_error(), Some(libc::EBADF));

        while completions.len() < usize::from(COUNT) {
            let before = completions.len();
            ring.submit_and_wait(Duration::from_secs(20)).unwrap();
            ring.completions(&mut completions);
            assert!(completions.len() > before, "{before} of {COUNT} came");
        }
        let mut indexes: Vec<u16> = completions.iter().map(|each| each.token.index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..COUNT).collect::<Vec<_>>());
    }
}
