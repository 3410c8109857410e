//! Blind changes of an input. The same chance gives the same input.

use crate::input::{EDGES, Rng};

/// A new input from two old ones.
pub fn mutate(rng: &mut Rng, one: &[u8], other: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut bytes = one.to_vec();
    for _ in 0..=rng.below(5) {
        change(rng, &mut bytes, other);
    }
    bytes.truncate(bytes_max);
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let place = rng.below(bytes.len() + 1);
    let rest = bytes.len() - place;
    match rng.below(9) {
        0 if rest > 0 => bytes[place] ^= 1 << rng.below(8),
        1 if rest > 0 => bytes[place] = rng.byte(),
        2 if rest > 0 => {
            bytes.drain(place..place + 1 + rng.below(rest.min(16)));
        }
        3 => bytes.truncate(place),
        4 if rest > 0 => {
            let run: Vec<u8> = bytes[place..].iter().take(16).copied().collect();
            bytes.splice(place..place, run);
        }
        5 => {
            let edge = EDGES[rng.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.below(4)];
            let end = place + rest.min(width);
            bytes.splice(place..end, edge[..width].iter().copied());
        }
        6 if !other.is_empty() => {
            let from = rng.below(other.len());
            let count = 1 + rng.below(other.len() - from);
            bytes.splice(place..place, other[from..from + count].iter().copied());
        }
        7 if rest > 0 => bytes[place] = bytes[place].wrapping_add(1),
        _ => {
            let new: Vec<u8> = (0..=rng.below(8)).map(|_| rng.byte()).collect();
            bytes.splice(place..place, new);
        }
    }
}
