//! The bytes between two copies. `docs/protocol.md` has the byte tables; a change here changes
//! them, the golden files and [`PROTOCOL_VERSION`] in the same commit.

mod body;
mod diskless;
mod evidence;
mod grow;
mod header;

pub use body::{
    Accept, Auth, Hello, MARKS_WORDS, Marks, Propose, Purpose, Refused, RefusedCode, State,
    StateFlags,
};
pub use evidence::Evidence;
pub use grow::{Grow, GrowDone, GrowRefused, GrowStep};
pub use header::{
    DecodeError, FLAG_DRAIN, FLAG_EQUAL, FLAG_FUA, FLAG_INVALIDATED, FRAME_HEADER_BYTES, Frame,
    FrameKind, decode_header, encode_header, payload_crc,
};

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// The oldest version that it still understands. Rule for the next one: speak N and N-1.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Feature bits that this code offers; unknown bits of a peer are ignored.
pub const FEATURES: u64 = 0;
