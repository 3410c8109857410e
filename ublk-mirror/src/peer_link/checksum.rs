//! CRC-32C of payloads and control bodies, by the quickest way that this processor has.
//!
//! Instructions for it are many times quicker than a table, but slower where a processor is emulated: so both are
//! measured once, and the quicker one is taken.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mirror_core::wire::payload_crc;

type Checksum = fn(&[u8]) -> u32;

/// Measured with as much as a middling write has.
const SAMPLE_BYTES: usize = 16 * 1024;

/// The least of so many counts: an interrupt lengthens one.
const ROUNDS: usize = 5;

static QUICKEST: LazyLock<Checksum> = LazyLock::new(|| quickest(&[by_instructions, payload_crc]));

/// CRC-32C of what follows a header, 0 where nothing does; [`payload_crc`] says what it is. The first call takes about
/// 0.1 ms longer.
pub(super) fn of(bytes: &[u8]) -> u32 {
    QUICKEST(bytes)
}

fn by_instructions(bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        0
    } else {
        crc_fast::crc32_iscsi(bytes)
    }
}

/// The quickest of these that agree with the table.
fn quickest(ways: &[Checksum]) -> Checksum {
    let sample: Vec<u8> = (0..SAMPLE_BYTES)
        .map(|at| (at * 7 + at / 251).to_le_bytes()[0])
        .collect();
    let expected = payload_crc(&sample);
    let agree = |way: &&Checksum| way(&sample) == expected && way(&[]) == payload_crc(&[]);
    let ways = ways.iter().filter(agree);
    let quickest = ways.min_by_key(|way| least(**way, &sample));
    quickest.copied().unwrap_or(payload_crc)
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

    use mirror_core::wire::payload_crc;

    use super::{Checksum, by_instructions, of, quickest};

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
        fn slow(bytes: &[u8]) -> u32 {
            (0..50).fold(0, |_, _| payload_crc(black_box(bytes)))
        }
        fn wrong(_: &[u8]) -> u32 {
            0
        }
        fn same(one: Checksum, other: Checksum) -> bool {
            std::ptr::fn_addr_eq(one, other)
        }
        assert!(same(quickest(&[wrong, slow, payload_crc]), payload_crc));
        assert!(same(quickest(&[wrong]), payload_crc));
    }
}
