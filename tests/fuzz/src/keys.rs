//! The file of the cluster's key: whatever is in it, a damaged record is never taken for a secret, and what is taken keeps its
//! own rules.

use mirror_core::disk::{KEY_BYTES_MIN, KEYS_BYTES, keys_bytes, read_keys};
use mirror_core::keys::{Keys, Secret};

use crate::input::{Input, patch};

const CHANGES_MAX: usize = 8;
const MAGIC: &[u8] = b"LSCLKEYS";
/// The checksum is over what is before it.
const SUMMED_BYTES: usize = KEYS_BYTES - 32;
/// Of the first byte: the checksum is made right, so that what is behind it is reached.
const SEALED: u8 = 1;
/// Of the first byte: what follows is the file itself.
const PLAIN: u8 = 2;

/// Each state of a rotation, as it is written.
fn samples() -> [Vec<u8>; 4] {
    let first = Keys::first(&[7; 32]);
    let step = |keys: &Keys| keys.step(Some(Secret::new([8; 32]))).expect("a step");
    let next = step(&first);
    let last = step(&next);
    [first, next, last, step(&last)].map(|keys| keys_bytes(&keys).to_vec())
}

fn seal(bytes: &mut [u8]) {
    if bytes.len() == KEYS_BYTES {
        let sum = *blake3::hash(&bytes[..SUMMED_BYTES]).as_bytes();
        bytes[SUMMED_BYTES..].copy_from_slice(&sum);
    }
}

/// A record with changes and another length, or a file of any bytes; then both as they are read.
pub fn file(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    if choice & PLAIN != 0 {
        let bytes = data.get(1..).unwrap_or_default();
        let taken = read(bytes);
        if !bytes.starts_with(MAGIC) {
            assert_eq!(taken, bytes.len() >= KEY_BYTES_MIN, "any secret will do");
        }
        return;
    }
    let good = &samples()[usize::from(choice >> 2) % 4];
    let mut bytes = good.clone();
    let (cut, longer) = (usize::from(input.byte()), usize::from(input.byte()));
    for _ in 0..input.below(CHANGES_MAX) {
        patch(&mut input, &mut bytes);
    }
    if choice & SEALED != 0 {
        seal(&mut bytes);
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes.resize(bytes.len() + longer, 0);
    let taken = read(&bytes);
    if bytes == *good {
        assert!(taken, "a good record is refused");
    } else if choice & SEALED == 0 && bytes.starts_with(MAGIC) {
        assert!(!taken, "a damaged record is taken");
    }
}

/// Whether it is taken; then it is written as it was read, and a rotation goes on from it to its end.
fn read(bytes: &[u8]) -> bool {
    let mut keys = match read_keys(bytes) {
        Ok(keys) => keys,
        Err(fault) => {
            assert!(!fault.to_string().is_empty(), "a refusal says why");
            return false;
        }
    };
    let written = keys_bytes(&keys);
    if bytes.starts_with(MAGIC) {
        assert_eq!(bytes, written, "one state has one record");
    }
    assert!(keys.generation() <= Keys::GENERATION_MAX);
    assert!(keys.accepted().any(|secret| secret == keys.sent()));
    for number in 0..3 {
        let new = Secret::new([0x50 + number; 32]);
        let Some(next) = keys.step(Some(new)) else {
            // No generation is left, or it is the secret that it has.
            break;
        };
        assert!(next.place() > keys.place() && next.cluster() == keys.cluster());
        assert!(
            next.understands(&keys) || keys.other() == &mirror_core::keys::Other::None,
            "the last state is heard"
        );
        assert_eq!(
            read_keys(&keys_bytes(&next)),
            Ok(next),
            "it reads what it writes"
        );
        keys = next;
    }
    true
}
