//! The core's disk operations on the backing device: O_DIRECT, on the ring that has the ublk
//! device registered, so that nobody can recover the device while a write of ours is in flight.

use mirror_core::effect::DiskOperation;
use mirror_core::event::{DiskResult, IoOwner};
use mirror_core::limits::{COPY_INFLIGHT_MAX, PEER_BUFFERS, QUEUE_DEPTH, SERVED_READS_MAX};
use mirror_core::types::{Errno, SECTOR_BYTES, SectorRange};

use crate::ring::{DATA_FILE, Durability, Kind, Memory, Ring, Span, Token};

/// The first buffer of reads for the peer.
const SERVED_FIRST: u32 = QUEUE_DEPTH as u32 + PEER_BUFFERS as u32 + COPY_INFLIGHT_MAX as u32;
/// The first of the spare buffers, one for each tag; see [`Ring::put_aside`].
pub const SPARES_FIRST: u32 = SERVED_FIRST + SERVED_READS_MAX as u32;
/// Payload buffers of a volume: one for each tag, each frame of the peer, each range of a copy, each read for
/// the peer, and the spares.
pub const DATA_BUFFERS: u32 = SPARES_FIRST + QUEUE_DEPTH as u32;

/// The payload buffer of an owner.
pub fn data_buffer(ring: &Ring, owner: IoOwner) -> Option<u32> {
    match owner {
        IoOwner::Application(tag) => Some(ring.tag_buffer(tag).0),
        IoOwner::Peer(slot) if slot < PEER_BUFFERS => Some(receive_buffer(slot)),
        IoOwner::Peer(_) | IoOwner::ViewFlush | IoOwner::LogFlush | IoOwner::Grow => None,
        IoOwner::Copy(slot) => {
            Some(u32::from(QUEUE_DEPTH) + u32::from(PEER_BUFFERS) + u32::from(slot))
        }
        IoOwner::Serve(slot) => Some(SERVED_FIRST + u32::from(slot)),
    }
}

/// The payload buffer of a frame of the peer.
pub fn receive_buffer(slot: u16) -> u32 {
    u32::from(QUEUE_DEPTH) + u32::from(slot)
}

/// What the completion of an operation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The core is to hear of it.
    Done {
        /// Whose it was.
        owner: IoOwner,
        /// How it ended.
        result: DiskResult,
    },
    /// It was given up before; its memory is free from now on.
    Late {
        /// Whose it was.
        owner: IoOwner,
    },
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
    /// Nobody waits for it any more.
    given_up: bool,
}

/// Operations in flight.
#[derive(Debug)]
pub struct LocalDisk {
    running: Vec<Option<Running>>,
    free: Vec<u16>,
    data_start_sectors: u64,
    /// The device has said that it cannot punch holes.
    no_punch: bool,
    /// How many operations in flight were given up.
    late: usize,
}

impl LocalDisk {
    pub fn new(data_start_sectors: u64) -> LocalDisk {
        LocalDisk {
            running: Vec::with_capacity(512),
            free: Vec::with_capacity(512),
            data_start_sectors,
            no_punch: false,
            late: 0,
        }
    }

    /// Where the volume begins on the device.
    pub fn data_start_sectors(&self) -> u64 {
        self.data_start_sectors
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
            given_up: false,
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
    ) -> Option<Ended> {
        let mut running =
            self.running[usize::from(index)].expect("completions are of operations in flight");
        let owner = running.owner;
        if running.given_up {
            // Whatever came of it: it is not gone on with, and it counts for nothing.
            self.late -= 1;
            self.forget(index);
            return Some(Ended::Late { owner });
        }
        match self.next(&mut running, outcome) {
            Some(result) => {
                self.forget(index);
                Some(Ended::Done { owner, result })
            }
            None => {
                self.running[usize::from(index)] = Some(running);
                self.submit(ring, index, &running);
                None
            }
        }
    }

    fn forget(&mut self, index: u16) {
        self.running[usize::from(index)] = None;
        self.free.push(index);
    }

    /// The core gives up the operation of this owner. The kernel does not: until its completion comes its
    /// memory is nobody's. Returns what it does.
    pub fn give_up(&mut self, owner: IoOwner) -> Option<DiskOperation> {
        let mut running = self.running.iter_mut().flatten();
        let found = running.find(|running| running.owner == owner && !running.given_up)?;
        found.given_up = true;
        self.late += 1;
        Some(found.operation)
    }

    /// Whether the kernel still has the memory of an operation of this owner that was given up.
    pub fn is_late(&self, owner: IoOwner) -> bool {
        let mut running = self.running.iter().flatten();
        self.late > 0 && running.any(|running| running.owner == owner && running.given_up)
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
                let buffer = data_buffer(ring, running.owner).expect("a transfer has a buffer");
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use mirror_core::types::Tag;

    use super::*;
    use crate::ring::{Completion, pools};

    const OWNER: IoOwner = IoOwner::Application(Tag(3));

    fn read(disk: &mut LocalDisk, ring: &mut Ring) {
        disk.start(ring, OWNER, DiskOperation::Read, SectorRange::new(0, 1));
    }

    fn ended(disk: &mut LocalDisk, ring: &mut Ring) -> Vec<Ended> {
        let mut completions: Vec<Completion> = Vec::new();
        ring.submit_and_wait(Duration::from_millis(200)).unwrap();
        ring.completions(&mut completions);
        completions
            .iter()
            .filter_map(|completion| {
                disk.complete(ring, completion.token.index, completion.outcome())
            })
            .collect()
    }

    fn first_byte(ring: &Ring, buffer: u32) -> u8 {
        ring.bytes(Span {
            memory: Memory::Data,
            buffer,
            offset: 0,
            bytes: 512,
        })[0]
    }

    /// An empty pipe is a disk that does not answer.
    #[test]
    fn a_read_that_was_given_up_fills_its_own_memory_and_counts_for_nothing() {
        let (data, link) = pools(DATA_BUFFERS, 4096, 1, 4096).unwrap();
        let mut ring = Ring::new(data, link, 1).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        ring.register(DATA_FILE, reader.as_raw_fd()).unwrap();
        let mut disk = LocalDisk::new(0);
        read(&mut disk, &mut ring);
        assert_eq!(ended(&mut disk, &mut ring), []);

        assert_eq!(disk.give_up(OWNER), Some(DiskOperation::Read));
        assert_eq!(disk.give_up(OWNER), None, "once");
        assert!(disk.is_late(OWNER));
        let old = ring.tag_buffer(Tag(3)).0;
        let new = ring.put_aside(Tag(3)).0;
        assert_ne!(old, new);
        assert_eq!(data_buffer(&ring, OWNER), Some(new));
        // The tag is used again, with the same owner, while the old operation is under way.
        read(&mut disk, &mut ring);
        assert_eq!(ended(&mut disk, &mut ring), []);

        // The kernel answers them in any order.
        let done = Ended::Done {
            owner: OWNER,
            result: Ok(()),
        };
        let late = Ended::Late { owner: OWNER };
        for (fill, left) in [(7, 1), (8, 0)] {
            writer.write_all(&[fill; 512]).unwrap();
            let said = ended(&mut disk, &mut ring);
            let (buffer, expected) = if first_byte(&ring, old) == fill {
                (old, late)
            } else {
                (new, done)
            };
            assert_eq!(said, [expected]);
            assert_eq!(first_byte(&ring, buffer), fill);
            assert_eq!(disk.in_flight(), left);
        }
        assert_eq!(first_byte(&ring, old) + first_byte(&ring, new), 7 + 8);
        assert!(!disk.is_late(OWNER));
    }
}
