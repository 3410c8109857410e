//! The core's disk operations on the backing device: O_DIRECT, on the ring that has the ublk
//! device registered, so that nobody can recover the device while a write of ours is in flight.

use mirror_core::effect::DiskOperation;
use mirror_core::event::{DiskResult, IoOwner};
use mirror_core::limits::{COPY_INFLIGHT_MAX, PEER_BUFFERS, QUEUE_DEPTH, SERVED_READS_MAX};
use mirror_core::types::{Errno, SECTOR_BYTES, SectorRange};

use crate::ring::{DATA_FILE, Durability, Kind, Memory, Ring, Span, Token};

/// Payload buffers of a volume: one for each tag, each frame of the peer, each range of a copy, each read for
/// the peer.
pub const DATA_BUFFERS: u32 =
    QUEUE_DEPTH as u32 + PEER_BUFFERS as u32 + COPY_INFLIGHT_MAX as u32 + SERVED_READS_MAX as u32;

/// The payload buffer of an owner.
pub fn data_buffer(owner: IoOwner) -> Option<u32> {
    match owner {
        IoOwner::Application(tag) => Some(u32::from(tag.0)),
        IoOwner::Peer(slot) if slot < PEER_BUFFERS => {
            Some(u32::from(QUEUE_DEPTH) + u32::from(slot))
        }
        IoOwner::Peer(_) | IoOwner::ViewFlush | IoOwner::LogFlush | IoOwner::Grow => None,
        IoOwner::Copy(slot) => {
            Some(u32::from(QUEUE_DEPTH) + u32::from(PEER_BUFFERS) + u32::from(slot))
        }
        IoOwner::Serve(slot) => Some(
            u32::from(QUEUE_DEPTH)
                + u32::from(PEER_BUFFERS)
                + u32::from(COPY_INFLIGHT_MAX)
                + u32::from(slot),
        ),
    }
}

/// The part of an operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Transfer,
    Punch,
    ZeroRange,
    /// The flush after a write-zeroes that must be durable.
    Sync,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    owner: IoOwner,
    operation: DiskOperation,
    range: SectorRange,
    done_bytes: u64,
    step: Step,
}

/// Operations in flight.
#[derive(Debug)]
pub struct LocalDisk {
    running: Vec<Option<Running>>,
    free: Vec<u16>,
    data_start_sectors: u64,
    /// The device has said that it cannot punch holes.
    no_punch: bool,
}

impl LocalDisk {
    pub fn new(data_start_sectors: u64) -> LocalDisk {
        LocalDisk {
            running: Vec::with_capacity(512),
            free: Vec::with_capacity(512),
            data_start_sectors,
            no_punch: false,
        }
    }

    /// Starts an operation of the core.
    pub fn start(
        &mut self,
        ring: &mut Ring,
        owner: IoOwner,
        operation: DiskOperation,
        range: SectorRange,
    ) {
        let step = match operation {
            DiskOperation::Read | DiskOperation::Write { .. } => Step::Transfer,
            DiskOperation::Flush => Step::Sync,
            DiskOperation::Discard if self.no_punch => Step::ZeroRange,
            DiskOperation::Discard => Step::Punch,
            DiskOperation::WriteZeroes { .. } => Step::ZeroRange,
        };
        let running = Running {
            owner,
            operation,
            range,
            done_bytes: 0,
            step,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            u16::try_from(self.running.len() - 1)
                .expect("every owner has at most one operation in flight")
        });
        self.running[usize::from(index)] = Some(running);
        self.submit(ring, index, &running);
    }

    /// Takes a completion; the end of an operation comes back.
    pub fn complete(
        &mut self,
        ring: &mut Ring,
        index: u16,
        outcome: Result<usize, i32>,
    ) -> Option<(IoOwner, DiskResult)> {
        let mut running =
            self.running[usize::from(index)].expect("completions are of operations in flight");
        match self.next(&mut running, outcome) {
            Some(result) => {
                self.running[usize::from(index)] = None;
                self.free.push(index);
                Some((running.owner, result))
            }
            None => {
                self.running[usize::from(index)] = Some(running);
                self.submit(ring, index, &running);
                None
            }
        }
    }

    /// How many operations are in flight.
    pub fn in_flight(&self) -> usize {
        self.running.len() - self.free.len()
    }

    /// The end, or a next step.
    fn next(&mut self, running: &mut Running, outcome: Result<usize, i32>) -> Option<DiskResult> {
        match (running.step, outcome) {
            (_, Err(libc::EINTR | libc::EAGAIN)) => None,
            (Step::Transfer, Ok(0)) => Some(Err(Errno::EIO)),
            (Step::Transfer, Ok(count)) => {
                running.done_bytes += count as u64;
                (running.done_bytes >= running.range.bytes()).then_some(Ok(()))
            }
            (Step::Punch, Err(libc::EOPNOTSUPP)) => {
                self.no_punch = true;
                running.step = Step::ZeroRange;
                None
            }
            // A file on a file system in memory: a hole reads as zeroes.
            (Step::ZeroRange, Err(libc::EOPNOTSUPP)) if !self.no_punch => {
                running.step = Step::Punch;
                None
            }
            (Step::Punch | Step::ZeroRange, Ok(_)) => match running.operation {
                DiskOperation::WriteZeroes { fua: true } => {
                    running.step = Step::Sync;
                    None
                }
                DiskOperation::Read
                | DiskOperation::Write { .. }
                | DiskOperation::Flush
                | DiskOperation::Discard
                | DiskOperation::WriteZeroes { fua: false } => Some(Ok(())),
            },
            (Step::Sync, Ok(_)) => Some(Ok(())),
            (_, Err(errno)) => Some(Err(Errno(errno))),
        }
    }

    fn submit(&self, ring: &mut Ring, index: u16, running: &Running) {
        let token = Token {
            index,
            ..Token::new(Kind::Disk)
        };
        let position =
            (self.data_start_sectors + running.range.start) * SECTOR_BYTES + running.done_bytes;
        let bytes = running.range.bytes();
        match running.step {
            Step::Transfer => {
                let buffer = data_buffer(running.owner).expect("a transfer has a buffer");
                let whole = usize::try_from(bytes).expect("a payload fits into memory");
                let done = usize::try_from(running.done_bytes).expect("no more than the whole");
                let span = Span {
                    memory: Memory::Data,
                    buffer,
                    offset: 0,
                    bytes: whole,
                }
                .after(done);
                if let DiskOperation::Write { fua } = running.operation {
                    let durability = if fua {
                        Durability::Durable
                    } else {
                        Durability::Cached
                    };
                    ring.write(DATA_FILE, span, position, durability, token);
                } else {
                    ring.read(DATA_FILE, span, position, token);
                }
            }
            Step::Punch => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                ring.fallocate(DATA_FILE, mode, position, bytes, token);
            }
            Step::ZeroRange => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                ring.fallocate(DATA_FILE, mode, position, bytes, token);
            }
            Step::Sync => ring.sync_data(DATA_FILE, token),
        }
    }
}
