//! The bytes of `cluster.key`.
//!
//! A cluster whose secret was never rotated has any 32 bytes or more there: the secret and the cluster's id are derived from
//! them. Since its first rotation the file is a record that says so: docs/on-disk-format.md has the table.

use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::keys::{Keys, Other, Secret};
use crate::types::ClusterId;

/// The least that is taken for a secret.
pub const KEY_BYTES_MIN: usize = 32;
/// Bytes of a record.
pub const KEYS_BYTES: usize = 136;
/// Of the record. A later one refuses what it does not know, and so does this one.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"LSCLKEYS";
const SUMMED_BYTES: usize = 104;
const KEY_CONTEXT: &str = "lockstep 2026-11 cluster key";
const OTHER_NONE: u32 = 0;
const OTHER_NEXT: u32 = 1;
const OTHER_LAST: u32 = 2;

/// Why a file holds no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeysFault {
    /// It is too short to be a secret.
    #[error("it has {bytes} bytes, at least {KEY_BYTES_MIN} are needed")]
    Short {
        /// Its length.
        bytes: usize,
    },
    /// A record, of another length.
    #[error("it is a record of {bytes} bytes, not {KEYS_BYTES}: it is damaged")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// A record of a later release.
    #[error("it is a record of version {0}, this release reads {VERSION}")]
    Version(u32),
    /// Not what was written.
    #[error("its checksum is wrong: it is damaged")]
    Checksum,
    /// Its checksum is right, and there can be no such keys.
    #[error("what it says cannot be")]
    Content,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U32,
    kind: U32,
    cluster: [u8; 16],
    generation: U64,
    sent: [u8; 32],
    other: [u8; 32],
    checksum: [u8; 32],
}

const _: () = assert!(size_of::<Raw>() == KEYS_BYTES);

impl Raw {
    fn sum(&self) -> [u8; 32] {
        *blake3::hash(&self.as_bytes()[..SUMMED_BYTES]).as_bytes()
    }
}

/// What the file holds, if these are its bytes.
///
/// # Errors
/// [`KeysFault`]. A damaged record is never taken for a secret.
pub fn read_keys(bytes: &[u8]) -> Result<Keys, KeysFault> {
    if !bytes.starts_with(&MAGIC) {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(KeysFault::Short { bytes: bytes.len() });
        }
        return Ok(Keys::first(&blake3::derive_key(KEY_CONTEXT, bytes)));
    }
    let length = KeysFault::Length { bytes: bytes.len() };
    let raw = Raw::read_from_bytes(bytes).map_err(|_| length)?;
    if raw.version.get() != VERSION {
        return Err(KeysFault::Version(raw.version.get()));
    }
    if raw.sum() != raw.checksum {
        return Err(KeysFault::Checksum);
    }
    let other = match raw.kind.get() {
        OTHER_NONE if raw.other == [0; 32] => Other::None,
        OTHER_NEXT => Other::Next(Secret::new(raw.other)),
        OTHER_LAST => Other::Last(Secret::new(raw.other)),
        _ => return Err(KeysFault::Content),
    };
    let (cluster, sent) = (ClusterId(raw.cluster), Secret::new(raw.sent));
    Keys::of_parts(cluster, raw.generation.get(), sent, other).ok_or(KeysFault::Content)
}

/// The record of these keys.
pub fn keys_bytes(keys: &Keys) -> [u8; KEYS_BYTES] {
    let (kind, other) = match keys.other() {
        Other::None => (OTHER_NONE, [0; 32]),
        Other::Next(secret) => (OTHER_NEXT, *secret.bytes()),
        Other::Last(secret) => (OTHER_LAST, *secret.bytes()),
    };
    let mut raw = Raw {
        magic: MAGIC,
        version: VERSION.into(),
        kind: kind.into(),
        cluster: keys.cluster().0,
        generation: keys.generation().into(),
        sent: *keys.sent().bytes(),
        other,
        checksum: [0; 32],
    };
    raw.checksum = raw.sum();
    let mut bytes = [0; KEYS_BYTES];
    bytes.copy_from_slice(raw.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn way() -> [Keys; 4] {
        let first = read_keys(&[7; 64]).expect("a secret");
        let next = first.step(Some(Secret::new([8; 32]))).expect("a step");
        let last = next.step(None).expect("a step");
        [first, next, last, last.step(None).expect("a step")]
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for keys in way() {
            assert_eq!(read_keys(&keys_bytes(&keys)), Ok(keys));
        }
    }

    #[test]
    fn a_damaged_record_is_no_secret() {
        let bytes = keys_bytes(&way()[1]);
        let cut = read_keys(&bytes[..100]);
        assert_eq!(cut, Err(KeysFault::Length { bytes: 100 }));
        let mut later = bytes;
        later[8] = 2;
        assert_eq!(read_keys(&later), Err(KeysFault::Version(2)));
        assert_eq!(read_keys(&[1; 31]), Err(KeysFault::Short { bytes: 31 }));
    }

    proptest! {
        #[test]
        fn a_changed_bit_behind_the_magic_is_noticed(at in 8..KEYS_BYTES, bit in 0..8_u8) {
            let mut bytes = keys_bytes(&way()[2]);
            bytes[at] ^= 1 << bit;
            prop_assert!(read_keys(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut marked = MAGIC.to_vec();
            marked.extend(&bytes);
            prop_assert!(read_keys(&marked).is_err());
            prop_assert_eq!(read_keys(&bytes).is_ok(), bytes.len() >= KEY_BYTES_MIN);
        }
    }
}
