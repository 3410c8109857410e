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
    DecodeError, FLAG_DRAIN, FLAG_EQUAL, FLAG_FUA, FLAG_INVALIDATED, FLAG_XXH64,
    FRAME_HEADER_BYTES, Frame, FrameKind, decode_header, encode_header, payload_crc,
};

/// The version of the protocol that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// The oldest version that it still understands. Rule for the next one: speak N and N-1.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// Feature: payloads may come with XXH64 instead of CRC-32C ([`FLAG_XXH64`]; ADR 0012).
pub const FEATURE_XXH64: u64 = 1;
/// Feature bits that this code offers; unknown bits of a peer are ignored.
pub const FEATURES: u64 = FEATURE_XXH64;
