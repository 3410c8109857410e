//! Checksums of payloads and control bodies, by the quickest way that this processor has.
//!
//! CRC-32C by instructions is many times quicker than by a table, but slower where a processor is emulated; there neither
//! is quick, and XXH64 takes a tenth, for it is made of ordinary multiplications. So all are measured once. What a sender
//! takes is its own choice, frame by frame; a receiver knows each of them (ADR 0012).

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mirror_core::wire::{FLAG_XXH64, payload_crc};
use twox_hash::XxHash64;

type Checksum = fn(&[u8]) -> u32;

/// Measured with as much as a middling write has.
const SAMPLE_BYTES: usize = 16 * 1024;

/// The least of so many counts: an interrupt lengthens one.
const ROUNDS: usize = 5;

/// CRC-32C finds every error of up to 32 bits in a row, XXH64 one in four thousand million not: for less than this factor
/// it is not worth it.
const WORTH: u32 = 2;

static CRC: LazyLock<Checksum> = LazyLock::new(|| quickest(&[by_instructions, payload_crc]));

static XXH64_PAYS: LazyLock<bool> = LazyLock::new(|| pays(xxh64, *CRC));

/// CRC-32C of what follows a header, 0 where nothing does; [`payload_crc`] says what it is. The first call takes about
/// 0.1 ms longer.
pub(super) fn of(bytes: &[u8]) -> u32 {
    CRC(bytes)
}

/// The checksum of a payload and the flag of its frame; `may_xxh64`: the peer knows it.
pub(super) fn of_payload(bytes: &[u8], may_xxh64: bool) -> (u32, u16) {
    if may_xxh64 && *XXH64_PAYS {
        (xxh64(bytes), FLAG_XXH64)
    } else {
        (of(bytes), 0)
    }
}

/// The checksum that a frame with this flag, or without, must have.
pub(super) fn by_flag(bytes: &[u8], flag: u16) -> u32 {
    if flag & FLAG_XXH64 == 0 {
        of(bytes)
    } else {
        xxh64(bytes)
    }
}

/// The lower half of XXH64 with seed 0.
fn xxh64(bytes: &[u8]) -> u32 {
    let [a, b, c, d, ..] = XxHash64::oneshot(0, bytes).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn by_instructions(bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        0
    } else {
        crc_fast::crc32_iscsi(bytes)
    }
}

fn sample() -> Vec<u8> {
    (0..SAMPLE_BYTES)
        .map(|at| (at * 7 + at / 251).to_le_bytes()[0])
        .collect()
}

/// The quickest of these that agree with the table.
fn quickest(ways: &[Checksum]) -> Checksum {
    let sample = sample();
    let expected = payload_crc(&sample);
    let agree = |way: &&Checksum| way(&sample) == expected && way(&[]) == payload_crc(&[]);
    let ways = ways.iter().filter(agree);
    let quickest = ways.min_by_key(|way| least(**way, &sample));
    quickest.copied().unwrap_or(payload_crc)
}

/// Whether `one` is so much quicker than `other` that it is taken.
fn pays(one: Checksum, other: Checksum) -> bool {
    let sample = sample();
    least(one, &sample) * WORTH <= least(other, &sample)
}

fn least(way: Checksum, sample: &[u8]) -> Duration {
    let once = |_| {
        let since = Instant::now();
        black_box(way(black_box(sample)));
        since.elapsed()
    };
    (0..ROUNDS).map(once).min().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use mirror_core::wire::{FLAG_XXH64, payload_crc};

    use super::{Checksum, by_flag, by_instructions, of, of_payload, pays, quickest, xxh64};

    fn slow(bytes: &[u8]) -> u32 {
        (0..50).fold(0, |_, _| payload_crc(black_box(bytes)))
    }

    #[test]
    fn every_way_is_the_castagnoli_polynomial_at_every_length_and_place() {
        let bytes: Vec<u8> = (0..8192_u32)
            .map(|at| (at * 31 + at / 7).to_le_bytes()[0])
            .collect();
        for way in [of, by_instructions, payload_crc] {
            assert_eq!(way(b"123456789"), 0xe306_9283);
            assert_eq!(way(b""), 0);
        }
        for start in 0..16 {
            for length in (0..600).chain([4096, 8192 - start]) {
                let part = &bytes[start..start + length];
                assert_eq!(by_instructions(part), payload_crc(part), "{start}+{length}");
            }
        }
    }

    #[test]
    fn the_quicker_one_is_taken_and_one_that_disagrees_is_not() {
        fn wrong(_: &[u8]) -> u32 {
            0
        }
        fn same(one: Checksum, other: Checksum) -> bool {
            std::ptr::fn_addr_eq(one, other)
        }
        assert!(same(quickest(&[wrong, slow, payload_crc]), payload_crc));
        assert!(same(quickest(&[wrong]), payload_crc));
        assert!(pays(xxh64, slow) && !pays(slow, payload_crc));
    }

    /// By the examples of its specification: XXH64 of nothing is 0xef46db3751d8e999, of "abc" 0x44bc2cf5ad770999.
    #[test]
    fn the_lower_half_of_xxh64_with_seed_0() {
        assert_eq!(xxh64(b""), 0x51d8_e999);
        assert_eq!(xxh64(b"abc"), 0xad77_0999);
    }

    #[test]
    fn a_peer_that_does_not_know_xxh64_never_gets_it_and_every_flag_is_checked_by_its_own() {
        let bytes = [7; 4096];
        assert_eq!(of_payload(&bytes, false), (payload_crc(&bytes), 0));
        let (sum, flag) = of_payload(&bytes, true);
        assert_eq!(by_flag(&bytes, flag), sum);
        assert_eq!(by_flag(&bytes, 0), payload_crc(&bytes));
        assert_eq!(by_flag(&bytes, FLAG_XXH64), xxh64(&bytes));
        let mut damaged = bytes;
        damaged[17] ^= 0x40;
        for flag in [0, FLAG_XXH64] {
            assert_ne!(by_flag(&damaged, flag), by_flag(&bytes, flag));
        }
    }
}
