//! Proof of the cluster key, and the core's source of random numbers.
//!
//! Challenge and response with keyed BLAKE3: both sides prove the key over both hellos, whose nonces
//! are fresh, and over their part (dialler or listener), so that a proof can be neither replayed nor
//! reflected.

use crate::types::ClusterId;

const CLUSTER_ID_CONTEXT: &str = "lockstep 2026-11 cluster id";
const LINK_CONTEXT: &str = "lockstep 2026-11 mirror link authentication";
const ENTROPY_CONTEXT: &str = "lockstep 2026-11 entropy";

/// The cluster's id: a one-way image of its key.
pub fn cluster_id(key: &[u8; 32]) -> ClusterId {
    let image = blake3::derive_key(CLUSTER_ID_CONTEXT, key);
    let mut id = [0; 16];
    id.copy_from_slice(&image[..16]);
    ClusterId(id)
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It dialled.
    Dialler,
    /// It listened.
    Listener,
}

/// What the given end sends to prove that it knows the key.
pub fn proof(
    key: &[u8; 32],
    end: End,
    dialler_hello: &[u8; 128],
    listener_hello: &[u8; 128],
) -> [u8; 32] {
    let link_key = blake3::derive_key(LINK_CONTEXT, key);
    let mut hasher = blake3::Hasher::new_keyed(&link_key);
    hasher.update(match end {
        End::Dialler => b"dialler ",
        End::Listener => b"listener",
    });
    hasher.update(dialler_hello);
    hasher.update(listener_hello);
    *hasher.finalize().as_bytes()
}

/// Whether two proofs are equal, in constant time.
pub fn proofs_equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*left) == blake3::Hash::from_bytes(*right)
}

/// Random numbers from a seed that the shell took from the kernel. The same seed gives the same
/// numbers, so that a simulation can be repeated.
#[derive(Clone, Debug)]
pub struct Entropy {
    key: [u8; 32],
    drawn: u64,
}

impl Entropy {
    /// From 32 random bytes.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self {
            key: blake3::derive_key(ENTROPY_CONTEXT, seed),
            drawn: 0,
        }
    }

    /// 32 fresh random bytes.
    pub fn bytes32(&mut self) -> [u8; 32] {
        self.drawn += 1;
        *blake3::keyed_hash(&self.key, &self.drawn.to_le_bytes()).as_bytes()
    }

    /// 16 fresh random bytes, never all zero.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes32()[..16]);
        id[0] |= 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_depends_on_key_end_and_both_hellos() {
        let (key, hello_a, hello_b) = ([7; 32], [1; 128], [2; 128]);
        let base = proof(&key, End::Dialler, &hello_a, &hello_b);
        assert!(proofs_equal(
            &base,
            &proof(&key, End::Dialler, &hello_a, &hello_b)
        ));
        assert!(!proofs_equal(
            &base,
            &proof(&[8; 32], End::Dialler, &hello_a, &hello_b)
        ));
        assert!(!proofs_equal(
            &base,
            &proof(&key, End::Listener, &hello_a, &hello_b)
        ));
        assert!(!proofs_equal(
            &base,
            &proof(&key, End::Dialler, &hello_b, &hello_a)
        ));
    }
}
