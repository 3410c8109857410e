//! How fast the processor's time-stamp counter counts, which an emulated machine reads as its own.
//!
//! A kernel measures it when it boots, against a timer that QEMU emulates. Where QEMU waits for a processor of a busy host at
//! that moment the measure is wrong, and the machine's clock goes many times too fast for as long as it is on.

use std::time::{Duration, Instant};

/// How long it is watched: the moments of reading are known to some microseconds, so this is right to a ten-thousandth.
const WATCHED: Duration = Duration::from_millis(100);
/// Of so many readings the one with the shortest way between two looks at the clock counts.
const READINGS: usize = 64;

/// Thousands of ticks a second; `None` if it cannot be told.
#[must_use]
pub(crate) fn khz() -> Option<u64> {
    let (from, first) = reading()?;
    let mut last = reading()?;
    while last.0 - from < WATCHED {
        last = reading()?;
    }
    let (ticks, watched) = (u128::from(last.1.checked_sub(first)?), last.0 - from);
    u64::try_from(ticks * 1_000_000 / watched.as_nanos()).ok()
}

/// The counter, and when it was read.
fn reading() -> Option<(Instant, u64)> {
    let readings = (0..READINGS).map(|_| {
        let before = Instant::now();
        let ticks = counter();
        (before.elapsed(), before, ticks)
    });
    let (way, before, ticks) = readings.min_by_key(|(way, _, _)| *way)?;
    Some((before + way / 2, ticks?))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 has the instruction, and it reads nothing but the counter.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measures_agree() {
        let (one, two) = (khz().unwrap(), khz().unwrap());
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two} kHz");
        assert!((500_000..10_000_000).contains(&one), "{one} kHz");
    }
}
