//! The network-block-device server between QEMU and a [`crate::disk::Disk`].
//!
//! Newstyle handshake, simple replies. One thread reads requests, one carries them out: in the order of
//! their due times, leaving out those that are stuck.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::agent::lock;
use crate::disk::{Op, Shared};

const MAGIC_HELLO: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const MAGIC_OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const MAGIC_REQUEST: u32 = 0x2560_9513;
const MAGIC_REPLY: u32 = 0x6744_6698;
/// Fixed newstyle, no zeroes after the old-style export reply.
const HANDSHAKE_FLAGS: u16 = 3;
/// Has flags, flush, FUA, trim, write-zeroes.
const EXPORT_FLAGS: u16 = 1 | 4 | 8 | 32 | 64;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
const REQUEST_FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const OPTION_BYTES_MAX: u32 = 64 << 10;
const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// A stuck or late request is looked at again this often, should a wake-up be missed.
const RECHECK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Read,
    Write,
    Flush,
    Zero,
}

struct Request {
    command: Command,
    flags: u16,
    handle: u64,
    offset: u64,
    length: u32,
    data: Vec<u8>,
    due: Instant,
}

impl Request {
    fn op(&self) -> Op {
        match self.command {
            Command::Read => Op::Read,
            Command::Write | Command::Zero => Op::Write,
            Command::Flush => Op::Flush,
        }
    }
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
}

/// Serves one disk until it is dropped.
pub(crate) struct Server {
    listener: UnixListener,
    disk: Arc<Shared>,
}

impl Server {
    pub(crate) fn start(disk: Arc<Shared>, socket: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("listen at {}", socket.display()))?;
        let (accepting, shared) = (listener.try_clone()?, Arc::clone(&disk));
        thread::spawn(move || {
            for stream in accepting.incoming() {
                let Ok(stream) = stream else { return };
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let disk = Arc::clone(&shared);
                thread::spawn(move || {
                    // The end of a connection is QEMU's end; what was not answered was not promised.
                    let _ = serve(&disk, &stream);
                    disk.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { listener, disk })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.disk.stop.store(true, Ordering::SeqCst);
        // SAFETY: a valid descriptor; this wakes the accepting thread.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

fn serve(disk: &Arc<Shared>, mut stream: &UnixStream) -> io::Result<()> {
    if !handshake(disk, &mut stream)? {
        return Ok(());
    }
    let queue = Arc::new(Mutex::new(Queue::default()));
    let worker = {
        let (disk, queue, replies) = (Arc::clone(disk), Arc::clone(&queue), stream.try_clone()?);
        thread::spawn(move || work(&disk, &queue, &replies))
    };
    while let Ok(Some(request)) = read_request(disk, &mut stream) {
        lock(&queue).requests.push_back(request);
        disk.changed.notify_all();
    }
    lock(&queue).closed = true;
    disk.changed.notify_all();
    let _ = worker.join();
    Ok(())
}

fn handshake(disk: &Shared, stream: &mut &UnixStream) -> io::Result<bool> {
    stream.write_all(&MAGIC_HELLO.to_be_bytes())?;
    stream.write_all(&MAGIC_OPTION.to_be_bytes())?;
    stream.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _client_flags = read_u32(stream)?;
    loop {
        let (magic, option, length) = (read_u64(stream)?, read_u32(stream)?, read_u32(stream)?);
        if magic != MAGIC_OPTION || length > OPTION_BYTES_MAX {
            return Err(io::Error::other("not an NBD option"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, payload: &[u8]| {
            let mut bytes = MAGIC_OPTION_REPLY.to_be_bytes().to_vec();
            let length = u32::try_from(payload.len()).unwrap_or(0);
            for number in [option, kind, length] {
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            bytes.extend_from_slice(payload);
            stream.write_all(&bytes)
        };
        match option {
            OPTION_GO | OPTION_INFO => {
                let mut export = vec![0, 0];
                export.extend_from_slice(&disk.size.to_be_bytes());
                export.extend_from_slice(&EXPORT_FLAGS.to_be_bytes());
                reply(REPLY_INFO, &export)?;
                let mut block_size = vec![0, 3];
                for number in [512_u32, 4096, REQUEST_BYTES_MAX] {
                    block_size.extend_from_slice(&number.to_be_bytes());
                }
                reply(REPLY_INFO, &block_size)?;
                reply(REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_ABORT => {
                reply(REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => reply(REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn read_request(disk: &Shared, stream: &mut &UnixStream) -> io::Result<Option<Request>> {
    const COMMAND_WRITE: u16 = 1;
    let magic = read_u32(stream)?;
    let (flags, kind) = (read_u16(stream)?, read_u16(stream)?);
    let (handle, offset, length) = (read_u64(stream)?, read_u64(stream)?, read_u32(stream)?);
    if magic != MAGIC_REQUEST || (kind == COMMAND_WRITE && length > REQUEST_BYTES_MAX) {
        return Err(io::Error::other("not an NBD request"));
    }
    let command = match kind {
        0 => Command::Read,
        COMMAND_WRITE => Command::Write,
        3 => Command::Flush,
        4 | 6 => Command::Zero,
        _ => return Ok(None),
    };
    let mut data = Vec::new();
    if command == Command::Write {
        data.resize(length as usize, 0);
        stream.read_exact(&mut data)?;
    }
    let due = Instant::now() + lock(&disk.faults).latency;
    Ok(Some(Request {
        command,
        flags,
        handle,
        offset,
        length,
        data,
        due,
    }))
}

fn work(disk: &Shared, queue: &Mutex<Queue>, mut replies: &UnixStream) {
    loop {
        let Some(request) = next(disk, queue) else {
            return;
        };
        let handle = request.handle;
        let (error, data) = match execute(disk, request) {
            Ok(data) => (0, data),
            Err(error) => (error, Vec::new()),
        };
        let mut bytes = Vec::with_capacity(16 + data.len());
        bytes.extend_from_slice(&MAGIC_REPLY.to_be_bytes());
        bytes.extend_from_slice(&error.to_be_bytes());
        bytes.extend_from_slice(&handle.to_be_bytes());
        bytes.extend_from_slice(&data);
        if replies.write_all(&bytes).is_err() {
            // QEMU is gone: the reader must not wait for it either.
            let _ = replies.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// The next request that may be carried out; `None` when the connection has ended.
fn next(disk: &Shared, queue: &Mutex<Queue>) -> Option<Request> {
    let mut faults = lock(&disk.faults);
    loop {
        let mut wait = RECHECK;
        {
            let mut queue = lock(queue);
            let now = Instant::now();
            let ready =
                |request: &Request| request.due <= now && !faults.stuck[request.op() as usize];
            if let Some(at) = queue.requests.iter().position(ready) {
                return queue.requests.remove(at);
            }
            if queue.closed {
                return None;
            }
            for request in &queue.requests {
                if request.due > now {
                    wait = wait.min(request.due - now);
                }
            }
        }
        faults = disk
            .changed
            .wait_timeout(faults, wait)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

fn execute(disk: &Shared, request: Request) -> Result<Vec<u8>, u32> {
    let (offset, length) = (request.offset, u64::from(request.length));
    let op = request.op();
    let counters = &disk.counters;
    match op {
        Op::Read => counters.reads.fetch_add(1, Ordering::SeqCst),
        Op::Write => {
            counters.bytes_written.fetch_add(length, Ordering::SeqCst);
            counters.writes.fetch_add(1, Ordering::SeqCst)
        }
        Op::Flush => counters.flushes.fetch_add(1, Ordering::SeqCst),
    };
    if lock(&disk.faults).fails(op, offset, length) {
        return Err(EIO);
    }
    if op != Op::Flush && offset.checked_add(length).is_none_or(|end| end > disk.size) {
        return Err(EINVAL);
    }
    if request.command == Command::Read && request.length > REQUEST_BYTES_MAX {
        return Err(EINVAL);
    }
    let mut store = lock(&disk.store);
    let result = match request.command {
        Command::Read => {
            let mut data = vec![0; request.length as usize];
            return store
                .read(offset, &mut data)
                .map(|()| data)
                .map_err(|_| EIO);
        }
        Command::Write => store.write(offset, request.data),
        Command::Zero => zero(&mut store, offset, length),
        Command::Flush => store.flush(),
    };
    // QEMU asks for FUA only for writes whose machine has no cache; making all durable is more than asked.
    let result = if request.flags & REQUEST_FUA == 0 {
        result
    } else {
        result.and_then(|()| store.flush())
    };
    result.map(|()| Vec::new()).map_err(|_| EIO)
}

fn zero(store: &mut crate::volatile::Store, offset: u64, length: u64) -> io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut at = offset;
    while at < offset + length {
        let piece = PIECE_BYTES.min(offset + length - at);
        store.write(
            at,
            vec![0; usize::try_from(piece).map_err(io::Error::other)?],
        )?;
        at += piece;
    }
    Ok(())
}

fn read_bytes<const N: usize>(stream: &mut &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_u16(stream: &mut &UnixStream) -> io::Result<u16> {
    Ok(u16::from_be_bytes(read_bytes(stream)?))
}

fn read_u32(stream: &mut &UnixStream) -> io::Result<u32> {
    Ok(u32::from_be_bytes(read_bytes(stream)?))
}

fn read_u64(stream: &mut &UnixStream) -> io::Result<u64> {
    Ok(u64::from_be_bytes(read_bytes(stream)?))
}
