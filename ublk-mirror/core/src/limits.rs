//! Every bound of the data plane, by name. Nothing in the core grows past one of these.

use core::time::Duration;

/// Nodes that a volume's formats have room for (DESIGN §7: this node and 7 peers).
pub const NODES_MAX: u8 = 8;
/// Views that the superblock remembers, newest first, to tell an older copy from a diverged one.
pub const VIEW_HISTORY_MAX: usize = 16;
/// Bytes of a volume's name on disk and on the wire.
pub const VOLUME_NAME_BYTES_MAX: usize = 64;
/// Requests of the ublk queue in flight.
pub const QUEUE_DEPTH: u16 = 64;
/// Largest request that the kernel hands over, bytes; larger ones are split by the block layer.
pub const REQUEST_BYTES_MAX: u32 = 512 * 1024;
/// Largest discard or write-zeroes, sectors: one such request may cover this much.
pub const DISCARD_SECTORS_MAX: u32 = (1 << 30) / 512;
/// Buffers for what the peer sends: its whole queue, its copy and something to spare.
pub const PEER_BUFFERS: u16 = QUEUE_DEPTH + COPY_INFLIGHT_MAX + 8;
/// Ranges of a full copy in flight.
pub const COPY_INFLIGHT_MAX: u16 = 8;
/// Bytes of one range of a full copy; also the grain of what is remembered as copied.
pub const COPY_CHUNK_BYTES: u32 = 512 * 1024;
/// Largest payload of a data frame, bytes.
pub const PAYLOAD_BYTES_MAX: u32 = REQUEST_BYTES_MAX;
/// Largest body of a control frame, bytes.
pub const CONTROL_BYTES_MAX: u32 = 1024;
/// Data copied between two checkpoints of a full copy (the target flushes, then the cursor is stored).
pub const COPY_CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;
/// Smallest volume, sectors: 1 MiB.
pub const VOLUME_SECTORS_MIN: u64 = 2048;
/// Largest volume, sectors: 1 PiB; every sum of addresses stays far from overflow.
pub const VOLUME_SECTORS_MAX: u64 = 1 << 41;
/// An unauthenticated connection is dropped after this.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Operator commands that wait for an answer at the same time.
pub const COMMANDS_MAX: usize = 16;

const _: () =
    assert!(REQUEST_BYTES_MAX.is_multiple_of(4096) && COPY_CHUNK_BYTES <= PAYLOAD_BYTES_MAX);
