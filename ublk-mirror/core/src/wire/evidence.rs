//! What a node tells of its own history when it refuses the other one for a split brain.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DecodeError;
use super::body::{MarkBytes, ViewBytes, read};
use crate::view::{View, ViewMark};

/// One side of a split brain, for the eyes of an operator; nothing is decided on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The durable view.
    pub view: View,
    /// The last view in which both copies counted for the sender; epoch 0: not known.
    pub common: ViewMark,
    /// When an application last wrote there, as far as the sender knows: seconds since 1970 by its clock;
    /// 0: not known.
    pub last_write_s: u64,
    /// Bytes that may be on the sender's copy alone: an upper bound.
    pub unique_bytes: u64,
    /// It serves the volume right now: both figures still grow.
    pub serving: bool,
    /// Its last service had no clean end: it may have written after `last_write_s`.
    pub unclean: bool,
    /// Its copy was recovered by force and is not complete.
    pub forced: bool,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EvidenceBytes {
    view: ViewBytes,
    common: MarkBytes,
    last_write_s: U64,
    unique_bytes: U64,
    flags: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<EvidenceBytes>() == 80);

impl Evidence {
    /// As bytes of an Evidence body.
    pub fn encode(&self) -> [u8; 80] {
        let flags =
            u32::from(self.serving) | u32::from(self.unclean) << 1 | u32::from(self.forced) << 2;
        zerocopy::transmute!(EvidenceBytes {
            view: ViewBytes::of(&self.view),
            common: MarkBytes::of(self.common),
            last_write_s: U64::new(self.last_write_s),
            unique_bytes: U64::new(self.unique_bytes),
            flags: U32::new(flags),
            reserved: U32::new(0),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length or an impossible view.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw: EvidenceBytes = read(bytes)?;
        let flags = raw.flags.get();
        Ok(Self {
            view: raw.view.view()?,
            common: raw.common.mark(),
            last_write_s: raw.last_write_s.get(),
            unique_bytes: raw.unique_bytes.get(),
            serving: flags & 1 != 0,
            unclean: flags & 2 != 0,
            forced: flags & 4 != 0,
        })
    }
}
