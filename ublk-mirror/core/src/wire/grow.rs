//! Bodies of the frames of an online grow.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::DecodeError;
use crate::limits::VOLUME_SECTORS_MAX;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GrowBytes {
    step: u8,
    reserved: [u8; 7],
    from_sectors: U64,
    to_sectors: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct GrowDoneBytes {
    step: u8,
    refused: u8,
    reserved: [u8; 6],
    room_sectors: U64,
}

const _: () = assert!(size_of::<GrowBytes>() == 24 && size_of::<GrowDoneBytes>() == 16);

/// A step of a grow. The frame's id says which grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowStep {
    /// How large may the volume be on the receiver's devices?
    Measure,
    /// Write zeroes to the new area, flush, and note durably that this was done.
    Prepare,
    /// Make the new size durable.
    Commit,
    /// It comes to nothing. Not answered.
    Cancel,
}

impl GrowStep {
    const ALL: [(u8, Self); 4] = [
        (1, Self::Measure),
        (2, Self::Prepare),
        (3, Self::Commit),
        (4, Self::Cancel),
    ];

    fn from_byte(byte: u8, what: &'static str) -> Result<Self, DecodeError> {
        let found = Self::ALL.iter().find(|(number, _)| *number == byte);
        found.map(|(_, step)| *step).ok_or(DecodeError::Value(what))
    }

    fn to_byte(self) -> u8 {
        let found = Self::ALL.iter().find(|(_, step)| *step == self);
        found.map_or(0, |(number, _)| *number)
    }
}

/// What the sender asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grow {
    /// Which step.
    pub step: GrowStep,
    /// The volume's size now, in sectors: the new area begins there.
    pub from_sectors: u64,
    /// The new size, in sectors; not known yet while measuring: as `from_sectors`.
    pub to_sectors: u64,
}

impl Grow {
    /// As bytes of a [`crate::wire::FrameKind::Grow`] body.
    pub fn encode(&self) -> [u8; 24] {
        zerocopy::transmute!(GrowBytes {
            step: self.step.to_byte(),
            reserved: [0; 7],
            from_sectors: U64::new(self.from_sectors),
            to_sectors: U64::new(self.to_sectors),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length, a step that does not exist, or sizes that no volume has or that shrink.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw = GrowBytes::read_from_bytes(bytes).map_err(|_| DecodeError::Body {
            got: bytes.len(),
            expected: size_of::<GrowBytes>(),
        })?;
        let (from_sectors, to_sectors) = (raw.from_sectors.get(), raw.to_sectors.get());
        if from_sectors == 0 || to_sectors < from_sectors || to_sectors > VOLUME_SECTORS_MAX {
            return Err(DecodeError::Value("grow.sectors"));
        }
        Ok(Self {
            step: GrowStep::from_byte(raw.step, "grow.step")?,
            from_sectors,
            to_sectors,
        })
    }
}

/// Why a step of a grow was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrowRefused {
    /// Something else is being changed there, or sizes are not what the sender takes them for.
    Busy,
    /// The backing device or the metadata has no room for that size.
    NoRoom,
}

impl GrowRefused {
    const ALL: [(u8, Option<Self>); 3] =
        [(0, None), (1, Some(Self::Busy)), (2, Some(Self::NoRoom))];
}

/// The answer to a step of a grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowDone {
    /// Which step.
    pub step: GrowStep,
    /// Why it was not done; then nothing that anybody can see has changed there.
    pub refused: Option<GrowRefused>,
    /// The largest volume, in sectors, that the sender's backing device and metadata have room for; 0
    /// where that was not asked.
    pub room_sectors: u64,
}

impl GrowDone {
    /// As bytes of a [`crate::wire::FrameKind::GrowDone`] body.
    pub fn encode(&self) -> [u8; 16] {
        let refused = GrowRefused::ALL
            .iter()
            .find(|(_, refused)| *refused == self.refused)
            .map_or(0, |(number, _)| *number);
        zerocopy::transmute!(GrowDoneBytes {
            step: self.step.to_byte(),
            refused,
            reserved: [0; 6],
            room_sectors: U64::new(self.room_sectors),
        })
    }

    /// From a body.
    ///
    /// # Errors
    /// A wrong length, or a step or reason that does not exist.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let raw = GrowDoneBytes::read_from_bytes(bytes).map_err(|_| DecodeError::Body {
            got: bytes.len(),
            expected: size_of::<GrowDoneBytes>(),
        })?;
        let refused = GrowRefused::ALL
            .iter()
            .find(|(number, _)| *number == raw.refused)
            .ok_or(DecodeError::Value("grow_done.refused"))?;
        Ok(Self {
            step: GrowStep::from_byte(raw.step, "grow_done.step")?,
            refused: refused.1,
            room_sectors: raw.room_sectors.get().min(VOLUME_SECTORS_MAX),
        })
    }
}
