//! When a volume's daemon that ended is started again.
//!
//! The first time at once: applications wait for it. Then after pauses that grow, so that one that cannot stay costs
//! nothing; and rarely, if it says that trying again does not mend it.

use core::time::Duration;

use mirror_core::types::Instant;

/// The pause after the second end in a row; it doubles with each one.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// It does not grow beyond this.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What trying again does not mend is tried again so rarely: somebody may have mended it.
pub const PAUSE_LASTING: Duration = Duration::from_secs(300);
/// A daemon that ran for so long counts as steady: what ends it then is another matter than before.
pub const STEADY: Duration = Duration::from_secs(60);

/// What a daemon says that does not go away by itself: metadata that are not this volume's or cannot be used, and a
/// configuration that is wrong.
const LASTING: [&str; 12] = [
    "LS3011", "LS3012", "LS3013", "LS3015", "LS3016", "LS3017", "LS3018", "LS3049", "LS5001",
    "LS5002", "LS5004", "LS5070",
];

/// Whether another try could end otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It could.
    Passing,
    /// A person has to mend something.
    Lasting,
}

impl Cause {
    /// Of a daemon that ended with this code of docs/codes.md.
    pub fn of(code: Option<&str>) -> Self {
        match code {
            Some(code) if LASTING.contains(&code) => Self::Lasting,
            Some(_) | None => Self::Passing,
        }
    }
}

/// The ends of one daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    in_a_row: u32,
    not_before: Option<Instant>,
}

impl Restarts {
    /// It ended, or could not be started; `ran` is for how long it had answered. The pause before the next try.
    pub fn ended(&mut self, now: Instant, ran: Duration, cause: Cause) -> Duration {
        if ran >= STEADY {
            self.in_a_row = 0;
        }
        let pause = match (cause, self.in_a_row) {
            (Cause::Lasting, _) => PAUSE_LASTING,
            // Nothing was served yet: nobody waits as one waits for a daemon that served.
            (Cause::Passing, 0) if ran.is_zero() => PAUSE_MIN,
            (Cause::Passing, 0) => Duration::ZERO,
            (Cause::Passing, row) => {
                let factor = 1_u32.checked_shl(row - 1).unwrap_or(u32::MAX);
                PAUSE_MIN.saturating_mul(factor).min(PAUSE_MAX)
            }
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.not_before = Some(now + pause);
        pause
    }

    /// What was in the way may be gone: the next try is now, and counts as the first.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How long to wait for the next try.
    pub fn wait(&self, now: Instant) -> Duration {
        self.not_before
            .map_or(Duration::ZERO, |not_before| not_before.since(now))
    }

    /// How often it ended since it was steady.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn pauses(restarts: &mut Restarts, ran: Duration, count: usize) -> Vec<u64> {
        let pause = |_| restarts.ended(at(5), ran, Cause::Passing).as_secs();
        (0..count).map(pause).collect()
    }

    #[test]
    fn the_first_restart_is_at_once_and_pauses_grow_to_a_bound() {
        let mut restarts = Restarts::default();
        let short = Duration::from_millis(1);
        let expected = [0, 1, 2, 4, 8, 16, 30, 30, 30];
        assert_eq!(pauses(&mut restarts, short, 9), expected);
        assert_eq!(pauses(&mut restarts, short, 60), [30; 60]);
        assert_eq!(restarts.in_a_row(), 69);
        assert_eq!(restarts.wait(at(5)), PAUSE_MAX);
        assert_eq!(restarts.wait(at(30)), Duration::from_secs(5));
        assert_eq!(restarts.wait(at(35)), Duration::ZERO);
    }

    #[test]
    fn one_that_was_steady_begins_anew() {
        let mut restarts = Restarts::default();
        pauses(&mut restarts, Duration::from_millis(1), 9);
        assert_eq!(pauses(&mut restarts, STEADY, 1), [0]);
        let nearly = STEADY - Duration::from_millis(1);
        assert_eq!(pauses(&mut restarts, nearly, 3), [1, 2, 4]);
    }

    #[test]
    fn one_that_never_answered_is_not_tried_without_a_pause() {
        let mut restarts = Restarts::default();
        assert_eq!(pauses(&mut restarts, Duration::ZERO, 3), [1, 1, 2]);
    }

    #[test]
    fn what_a_person_has_to_mend_is_tried_rarely_until_it_is_forgotten() {
        let mut restarts = Restarts::default();
        let pause = restarts.ended(at(5), Duration::ZERO, Cause::of(Some("LS3012")));
        assert_eq!(pause, PAUSE_LASTING);
        restarts.forget();
        assert_eq!(restarts.wait(at(5)), Duration::ZERO);
        assert_eq!(Cause::of(Some("LS3036")), Cause::Passing);
        assert_eq!(Cause::of(None), Cause::Passing);
    }
}
