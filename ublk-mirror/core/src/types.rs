//! The numbers of the core, each with a type of its own so that they cannot be mixed.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of a sector, the unit of every address in the core (Linux block layer).
pub const SECTOR_BYTES: u64 = 512;
const NANOS_PER_S: u64 = 1_000_000_000;

/// A point in time: nanoseconds of `CLOCK_BOOTTIME`, which goes on during suspend (S5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        // Not `as_nanos`: 128-bit arithmetic costs in what is asked for at every event.
        let seconds = rhs.as_secs().saturating_mul(NANOS_PER_S);
        let nanos = seconds.saturating_add(u64::from(rhs.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }
}

/// 32 digits at once: a status has a handful of ids, and the formatter's own way goes digit by digit through `u128`.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: [u8; 16]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The value that means "not known" or "not given yet".
            pub const NONE: Self = Self([0; 16]);

            /// Whether this is [`Self::NONE`].
            pub fn is_none(&self) -> bool {
                *self == Self::NONE
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

random_id! {
    /// Which cluster: derived from the cluster key, so that two keys never look alike.
    ClusterId
}
random_id! {
    /// Which volume: random, made by the first `create`, taken over by the joining copy.
    VolumeId
}
random_id! {
    /// Which view: random per view, so that two histories never look alike by accident.
    ViewId
}
random_id! {
    /// Which boot of a machine (`/proc/sys/kernel/random/boot_id`): membership belongs to it (S11).
    BootId
}
random_id! {
    /// Which backing device, as far as the kernel tells one from another: a hash of what a disk, a partition or a volume
    /// manager says of itself. Not known: it says nothing.
    BackingId
}
random_id! {
    /// Which resync: made by the source at its start; both sides remember it to resume.
    CopyId
}

/// A run of the daemon: random per process start (S11 tells restarts from reboots by it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// A view's place in history; grows by at least one with every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's number in the cluster, 0..=7 ([`crate::limits::NODES_MAX`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(u8);

impl NodeId {
    /// A node number; `None` above 7.
    pub const fn new(number: u8) -> Option<Self> {
        if number < crate::limits::NODES_MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number, 0..=7.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of nodes, one bit a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSet(u8);

impl NodeSet {
    /// The set that holds nobody.
    pub const EMPTY: Self = Self(0);

    /// From bits, bit n = node n.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// As bits, bit n = node n.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set that holds `node` alone.
    pub const fn only(node: NodeId) -> Self {
        Self(1 << node.0)
    }

    /// This set and `node`.
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Self(self.0 | (1 << node.0))
    }

    /// This set without `node`.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Self(self.0 & !(1 << node.0))
    }

    /// Whether `node` is in it.
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.0) != 0
    }

    /// Whether nobody is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many nodes are in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// A run of sectors on the volume. Never empty where it names data; empty for FLUSH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SectorRange {
    /// First sector.
    pub start: u64,
    /// How many sectors of 512 bytes.
    pub count: u32,
}

impl SectorRange {
    /// A range from its first sector and length in sectors.
    pub const fn new(start: u64, count: u32) -> Self {
        Self { start, count }
    }

    /// The first sector after the range (saturating).
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.count as u64)
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        self.count as u64 * SECTOR_BYTES
    }

    /// Whether the two share a sector.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Whether the range lies within a volume of `size_sectors` and is not empty.
    pub const fn fits(self, size_sectors: u64) -> bool {
        self.count > 0
            && self.start < size_sectors
            && self.count as u64 <= size_sectors - self.start
    }
}

/// A request slot of the ublk queue, `0..queue_depth`; also names its data buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u16);

/// One connection to the peer, numbered by the shell; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A positive Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error: what an application sees from a fenced or failed volume.
    pub const EIO: Self = Self(5);
    /// Connection timed out: the kernel's word for an operation that took longer than its limit.
    pub const ETIMEDOUT: Self = Self(110);
    /// Invalid argument: a request that no correct kernel sends.
    pub const EINVAL: Self = Self(22);
}
