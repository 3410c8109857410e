//! The queue of a ublk device: what the driver's ring must submit to receive
//! block requests and to answer them. The ring belongs to the driver.
//!
//! Life of a tag: `fetch` once, completion, `request`, work, `commit_and_fetch`,
//! completion, `request`, ... until a completion says the device is stopping.
//! The thread that submits the first fetch owns the queue for good.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};
use libublk::sys;
use memmap2::{Mmap, MmapOptions};
use thiserror::Error;

use crate::buffers::{BufferId, Pool};

/// How long the node of a new device may take to appear.
const NODE_WAIT_MAX: Duration = Duration::from_secs(10);
const NODE_RETRY: Duration = Duration::from_millis(5);
const IO_DESCRIPTOR_BYTES: usize = size_of::<sys::ublksrv_io_desc>();
const QUEUE_ID: u16 = 0;
const SECTOR_BYTES: u32 = 512;
/// The kernel's limits for a device.
pub const DEPTH_MAX: u16 = 4096;
pub const IO_BYTES_MAX: u32 = 32 << 20;

#[derive(Debug, Error)]
pub enum QueueError {
    #[error("queue depth {depth} is not within 1..={DEPTH_MAX}")]
    Depth { depth: u16 },
    #[error(
        "{count} buffers of {size_bytes} bytes do not serve {depth} tags of {max_io_bytes} bytes"
    )]
    Buffers {
        count: u32,
        size_bytes: usize,
        depth: u16,
        max_io_bytes: u32,
    },
    #[error("cannot open {path}")]
    Open {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot map the request descriptors of {path}")]
    Map {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("tag {tag}: unknown operation {operation}")]
    Operation { tag: u16, operation: u32 },
    #[error("tag {tag}: request of {sectors} sectors exceeds its buffer of {max_io_bytes} bytes")]
    TooLong {
        tag: u16,
        sectors: u32,
        max_io_bytes: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

/// One block request. Its payload lies in the tag's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoRequest {
    pub operation: Operation,
    /// Must be durable before it is answered.
    pub fua: bool,
    /// Write-zeroes that must keep the space allocated.
    pub no_unmap: bool,
    /// 0 for a flush, like `sectors`.
    pub start_sector: u64,
    pub sectors: u32,
}

impl IoRequest {
    pub fn bytes(&self) -> u64 {
        u64::from(self.sectors) * u64::from(SECTOR_BYTES)
    }
}

/// How a request ended. There is no way to say "nothing was written": the kernel
/// would send a write completed with 0 bytes again and again, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed(nix::errno::Errno),
}

/// What the completion of a fetch or commit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// The tag holds a request.
    Request,
    /// The device is being stopped; the tag will not come back.
    Stopping,
    /// The driver refused the command: a bug of ours, or not our queue.
    Refused { errno: i32 },
}

/// Meaning of a completion's result.
pub fn wakeup(result: i32) -> Wakeup {
    match result {
        0 => Wakeup::Request,
        // ENODEV: stopped. ECANCELED: our ring is being torn down.
        error if error == -libc::ENODEV || error == -libc::ECANCELED => Wakeup::Stopping,
        error => Wakeup::Refused { errno: -error },
    }
}

/// The single queue of one device.
#[derive(Debug)]
pub struct Queue {
    device: File,
    descriptors: Mmap,
    buffers: Vec<*mut u8>,
    fixed_slot: u32,
    max_io_bytes: u32,
}

// SAFETY: the buffer addresses are only handed out, never followed here, and stay
// valid in every thread of the process.
unsafe impl Send for Queue {}

impl Queue {
    /// Opens the queue of a device that was added (or whose recovery has begun).
    ///
    /// Buffers `0..depth` of the pool belong to tags `0..depth` until the ring has
    /// been torn down or every tag is `Stopping`. The driver must register `fd()`
    /// at `fixed_slot` of its ring, and its disks too: the kernel then lets nobody
    /// recover the device while a disk write of ours is in flight.
    pub fn open(
        dev_id: u32,
        depth: u16,
        max_io_bytes: u32,
        pool: &Pool,
        fixed_slot: u32,
    ) -> Result<Queue, QueueError> {
        if depth == 0 || depth > DEPTH_MAX {
            return Err(QueueError::Depth { depth });
        }
        if pool.count() < u32::from(depth)
            || pool.size_bytes() < max_io_bytes as usize
            || max_io_bytes > IO_BYTES_MAX
        {
            return Err(QueueError::Buffers {
                count: pool.count(),
                size_bytes: pool.size_bytes(),
                depth,
                max_io_bytes,
            });
        }
        let path = format!("/dev/ublkc{dev_id}");
        let device = open_when_there(&path).map_err(|source| QueueError::Open {
            path: path.clone(),
            source,
        })?;
        // SAFETY: the kernel owns these pages and changes a descriptor only while
        // its tag is fetched; `descriptor` reads them volatile for that reason.
        let descriptors = unsafe {
            MmapOptions::new()
                .len(usize::from(depth) * IO_DESCRIPTOR_BYTES)
                .offset(u64::from(sys::UBLKSRV_CMD_BUF_OFFSET))
                .populate()
                .map(&device)
        }
        .map_err(|source| QueueError::Map { path, source })?;
        let buffers = pool.ids().take(depth.into()).map(|id| pool.ptr(id));
        Ok(Queue {
            device,
            descriptors,
            buffers: buffers.collect(),
            fixed_slot,
            max_io_bytes,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }

    pub fn fixed_slot(&self) -> u32 {
        self.fixed_slot
    }

    pub fn depth(&self) -> u16 {
        u16::try_from(self.buffers.len()).expect("checked when the queue was opened")
    }

    pub fn tags(&self) -> impl Iterator<Item = u16> + use<> {
        0..self.depth()
    }

    /// Buffer of the pool that belongs to the tag.
    pub fn buffer(&self, tag: u16) -> BufferId {
        BufferId(tag.into())
    }

    /// The tag's next commit and its next request use this buffer of the pool.
    pub fn use_buffer(&mut self, tag: u16, pool: &Pool, buffer: BufferId) {
        self.buffers[usize::from(tag)] = pool.ptr(buffer);
    }

    /// Asks for a tag's first request. The caller sets the entry's user data.
    pub fn fetch(&self, tag: u16) -> squeue::Entry {
        self.command(sys::UBLK_U_IO_FETCH_REQ, tag, 0)
    }

    /// Answers the tag's request and asks for its next one. For a read, the tag's
    /// buffer holds the data when the entry is submitted.
    pub fn commit_and_fetch(&self, tag: u16, outcome: Outcome) -> squeue::Entry {
        let result = match outcome {
            Outcome::Done => self.full_result(tag),
            Outcome::Failed(errno) => {
                let errno = errno as i32;
                assert!(errno > 0, "a failure needs an error number");
                -errno
            }
        };
        self.command(sys::UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, result)
    }

    /// The request a tag holds after `Wakeup::Request`, until it is committed.
    pub fn request(&self, tag: u16) -> Result<IoRequest, QueueError> {
        let descriptor = self.descriptor(tag);
        let operation = match descriptor.op_flags & 0xff {
            sys::UBLK_IO_OP_READ => Operation::Read,
            sys::UBLK_IO_OP_WRITE => Operation::Write,
            sys::UBLK_IO_OP_FLUSH => Operation::Flush,
            sys::UBLK_IO_OP_DISCARD => Operation::Discard,
            sys::UBLK_IO_OP_WRITE_ZEROES => Operation::WriteZeroes,
            operation => return Err(QueueError::Operation { tag, operation }),
        };
        // A flush concerns no sector; the block layer leaves -1 there.
        let (start_sector, sectors) = match operation {
            Operation::Flush => (0, 0),
            Operation::Read | Operation::Write | Operation::Discard | Operation::WriteZeroes => {
                (descriptor.start_sector, descriptor.nr_sectors)
            }
        };
        let request = IoRequest {
            operation,
            fua: descriptor.op_flags & sys::UBLK_IO_F_FUA != 0,
            no_unmap: descriptor.op_flags & sys::UBLK_IO_F_NOUNMAP != 0,
            start_sector,
            sectors,
        };
        let has_payload = matches!(operation, Operation::Read | Operation::Write);
        if has_payload && request.bytes() > u64::from(self.max_io_bytes) {
            return Err(QueueError::TooLong {
                tag,
                sectors: descriptor.nr_sectors,
                max_io_bytes: self.max_io_bytes,
            });
        }
        Ok(request)
    }

    /// What "all of it" is for the tag's request: the byte count of a read or
    /// write; the others transfer nothing and end with 0.
    fn full_result(&self, tag: u16) -> i32 {
        let descriptor = self.descriptor(tag);
        match descriptor.op_flags & 0xff {
            sys::UBLK_IO_OP_READ | sys::UBLK_IO_OP_WRITE => {
                i32::try_from(u64::from(descriptor.nr_sectors) * u64::from(SECTOR_BYTES))
                    .expect("`request` refused what exceeds a buffer")
            }
            _ => 0,
        }
    }

    fn descriptor(&self, tag: u16) -> sys::ublksrv_io_desc {
        assert!(tag < self.depth(), "tag {tag} is not of this queue");
        let descriptors = self.descriptors.as_ptr().cast::<sys::ublksrv_io_desc>();
        // SAFETY: the mapping is page-aligned, holds `depth` descriptors, and tag is
        // below that; any bit pattern is a valid descriptor.
        unsafe { descriptors.add(tag.into()).read_volatile() }
    }

    fn command(&self, opcode: u32, tag: u16, result: i32) -> squeue::Entry {
        let mut payload = [0; 16];
        payload[0..2].copy_from_slice(&QUEUE_ID.to_ne_bytes());
        payload[2..4].copy_from_slice(&tag.to_ne_bytes());
        payload[4..8].copy_from_slice(&result.to_ne_bytes());
        let address = self.buffers[usize::from(tag)] as u64;
        payload[8..16].copy_from_slice(&address.to_ne_bytes());
        opcode::UringCmd16::new(types::Fixed(self.fixed_slot), opcode)
            .cmd(payload)
            .build()
    }
}

/// The node appears in devtmpfs a moment after ADD. A recovered device's node may
/// be busy until the kernel has put the dead daemon's descriptor away.
fn open_when_there(path: &str) -> io::Result<File> {
    let deadline = Instant::now() + NODE_WAIT_MAX;
    loop {
        let opened = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path);
        match opened {
            Err(error)
                if Instant::now() < deadline
                    && matches!(
                        error.raw_os_error(),
                        Some(libc::ENOENT | libc::EBUSY | libc::ENXIO | libc::EACCES)
                    ) =>
            {
                thread::sleep(NODE_RETRY);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_device_is_no_error() {
        assert_eq!(wakeup(-libc::ENODEV), Wakeup::Stopping);
        assert_eq!(wakeup(0), Wakeup::Request);
        assert_eq!(wakeup(-libc::EIO), Wakeup::Refused { errno: libc::EIO });
    }

    #[test]
    fn descriptors_have_the_layout_of_the_driver() {
        assert_eq!(IO_DESCRIPTOR_BYTES, 24);
        assert_eq!(size_of::<sys::ublksrv_io_cmd>(), 16);
    }
}
