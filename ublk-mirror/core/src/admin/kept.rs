//! The parts of the admin messages that are about blocks of a discarded side.

use alloc::string::String;

use serde::{Deserialize, Serialize};

/// What becomes of the blocks that only the discarded side has. The shell sees to it, before the core hears of
/// the command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// They are kept in the usual directory.
    #[default]
    Usual,
    /// They are kept in this file, which does not exist yet; an absolute path.
    File(String),
    /// They are lost.
    No,
}

impl Keep {
    /// Whether nothing special was said.
    pub fn is_usual(&self) -> bool {
        *self == Self::Usual
    }
}

/// Blocks are being kept before a history is discarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepStatus {
    /// The file, under the name that it will have; empty until that is known.
    pub file: String,
    /// Bytes of `total_bytes` that were read.
    pub done_bytes: u64,
    /// Bytes of the blocks that are kept.
    pub total_bytes: u64,
}

/// Blocks were kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The file.
    pub file: String,
    /// Bytes of the blocks that are in it.
    pub kept_bytes: u64,
    /// Bytes of those that are not zeroes.
    pub data_bytes: u64,
}
