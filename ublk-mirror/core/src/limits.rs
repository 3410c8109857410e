//! Every bound of the data plane, by name. Nothing in the core grows past one of these.

use core::time::Duration;

/// Nodes that a volume's formats have room for (DESIGN §7: this node and 7 peers).
pub const NODES_MAX: u8 = 8;
/// Highest epoch and highest sequence of a block of metadata that is written and read. No volume lives so
/// long: sums stay far from overflow.
pub const NUMBER_MAX: u64 = 1 << 62;
/// Highest epoch and sequence that a daemon begins with, from its disk or from its peer. What is higher
/// is damage; what is not leaves more room below [`NUMBER_MAX`] than a daemon can use up.
pub const NUMBER_AT_START_MAX: u64 = 1 << 61;
/// Views that the superblock remembers, newest first, to tell an older copy from a diverged one.
pub const VIEW_HISTORY_MAX: usize = 16;
/// Bytes of a volume's name on disk and on the wire.
pub const VOLUME_NAME_BYTES_MAX: usize = 64;
/// Requests of the ublk queue in flight.
pub const QUEUE_DEPTH: u16 = 64;
/// Largest request that the kernel hands over, bytes; larger ones are split by the block layer.
pub const REQUEST_BYTES_MAX: u32 = 512 * 1024;
/// Largest discard or write-zeroes that the kernel hands over, sectors: an extent of the activity log. A disk without fast zeroing writes
/// these zeroes, one request after the other, and the last one of a full queue must end before the disk counts
/// as one that does not answer. What a peer sends is not bound by it.
pub const DISCARD_SECTORS_MAX: u32 = (4 << 20) / 512;
/// Zeroes that a disk is expected to write in a second at least, bytes: 8 MB/s. A full queue of discards then leaves it a quarter of its time
/// limit for other I/O; one that is much slower, or busier, may count as one that does not answer.
pub const ZEROES_PER_S_MIN: u64 = 8_000_000;
/// How long one operation of a disk may take, unless an operator says otherwise (`disk_timeout_ms`). The kernel gives a
/// command of a SCSI or NVMe disk 30 s, then aborts it and tries again: the first such recovery may end by itself.
pub const DISK_TIMEOUT_DEFAULT_MS: u64 = 45_000;
/// Buffers for what the peer sends: its whole queue, its copy and something to spare.
pub const PEER_BUFFERS: u16 = QUEUE_DEPTH + COPY_INFLIGHT_MAX + 8;
/// Runs of a resync in flight.
pub const COPY_INFLIGHT_MAX: u16 = 8;
/// Bytes of one run of a resync at most.
pub const COPY_CHUNK_BYTES: u32 = 512 * 1024;
/// Bytes of one run of a resync at most while runs are compared by their digests first.
pub const COPY_COMPARE_BYTES: u32 = 128 * 1024;
/// Largest payload of a data frame, bytes.
pub const PAYLOAD_BYTES_MAX: u32 = REQUEST_BYTES_MAX;
/// Largest body of a control frame, bytes.
pub const CONTROL_BYTES_MAX: u32 = 1024;
/// Blocks of the bitmap in an extent of the activity log at most: with extents of 4 MiB a bit stands for 4 KiB at least.
pub const EXTENT_BLOCKS_MAX: u64 = 1024;
/// Least that one bit of a bitmap stands for, bytes.
pub const BITMAP_BLOCK_BYTES_MIN: u32 = 512;
/// Most that one bit of a bitmap stands for, bytes: a resync copies whole blocks, so one fits into a run.
pub const BITMAP_BLOCK_BYTES_MAX: u32 = COPY_CHUNK_BYTES;
/// Data copied between two checkpoints of a resync (the target flushes, then marks are taken away).
pub const COPY_CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Zeroes that a grow writes in one piece, sectors: 16 MiB, so that the application gets its turn.
pub const GROW_PIECE_SECTORS: u32 = (16 << 20) / 512;
/// Separate runs copied between two checkpoints at most.
pub const COPY_RUNS_MAX: usize = 4096;
/// What is written but not flushed on both copies is flushed after this: it would have to be copied again
/// if the peer's machine went down, and keeps its extents in the activity log.
pub const UNFLUSHED_MAX: Duration = Duration::from_secs(5);
/// An extent that was not written to for one to two times as long leaves the activity log.
pub const EXTENT_COLD_AFTER: Duration = Duration::from_secs(20);
/// Default number of extents that may be active: 4 GiB at 4 MiB each.
pub const HOT_EXTENTS_DEFAULT: usize = crate::disk::ACTIVE_EXTENTS_MAX;
/// Smallest volume, sectors: 1 MiB.
pub const VOLUME_SECTORS_MIN: u64 = 2048;
/// Largest volume, sectors: 1 PiB; every sum of addresses stays far from overflow.
pub const VOLUME_SECTORS_MAX: u64 = 1 << 41;
/// An unauthenticated connection is dropped after this.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Separate ranges that a verify lists; what it finds beyond them is counted.
pub const VERIFY_RANGES_MAX: usize = 64;
/// Reads that the peer does for the application at the same time, and buffers for them on its side. What
/// exceeds that waits.
pub const SERVED_READS_MAX: u16 = 8;
/// Between two notices of reads that the own disk could not do; every one is counted.
pub const READ_NOTICE_EVERY: Duration = Duration::from_secs(10);
/// What a resync could not read is tried again after this: a disk takes seconds for one bad sector.
pub const COPY_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Runs that are put aside because they cannot be read, one by one; beyond that they are put aside together with
/// what lies between them. Some MiB of memory.
pub const ASIDE_RUNS_MAX: usize = 65_536;
/// Operator commands that wait for an answer at the same time.
pub const COMMANDS_MAX: usize = 16;

const _: () =
    assert!(REQUEST_BYTES_MAX.is_multiple_of(4096) && COPY_CHUNK_BYTES <= PAYLOAD_BYTES_MAX);
const _: () = {
    let queue_bytes = DISCARD_SECTORS_MAX as u64 * 512 * QUEUE_DEPTH as u64;
    assert!(queue_bytes * 1000 * 4 <= DISK_TIMEOUT_DEFAULT_MS * ZEROES_PER_S_MIN * 3);
};
