//! Times that both nodes count with, while one node goes by the old configuration and the other one by the new one.
//!
//! Such a time bounds two things: how long a node goes on without the other one (it *stops* then), and how long the
//! other one *waits* before it takes over. What must hold at each moment, whoever serves: the one stops before the other
//! one has waited. So a node that knows of a decided change, and not yet that the other one does too, stops by the shorter
//! of the old and the new time, and waits for the longer one. Next to a node with the old times, the new times, or both,
//! that is safe in either direction, and it does not matter who serves, or what fails meanwhile.

use core::time::Duration;

use crate::failure_detector::Timing;
use crate::limits::HEARTBEATS_PER_TIMEOUT_MIN;

/// What a time is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It bounds how long this node goes on.
    Stops,
    /// It bounds when this node takes over.
    Waits,
}

impl Side {
    /// The time that is safe beside either one.
    #[must_use]
    pub fn between(self, old: Duration, new: Duration) -> Duration {
        match self {
            Self::Stops => old.min(new),
            Self::Waits => old.max(new),
        }
    }
}

/// How a key of `[timing]` may be changed while both nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One node stops by it, the other one waits for it: [`Side::between`] for each use.
    TwoSided,
    /// How often something is said: the shorter of both timeouts has to have room for the longer one.
    Pace,
}

/// The keys that both nodes count with and that may be changed one node after the other. A key that is not here needs
/// both stopped. A new one needs its part in [`between`] as well.
pub const RULES: [(&str, Rule); 2] = [
    ("timing.heartbeat_timeout_ms", Rule::TwoSided),
    ("timing.heartbeat_interval_ms", Rule::Pace),
];

/// The rule of a key.
#[must_use]
pub fn rule(key: &str) -> Option<Rule> {
    let mut rules = RULES.iter();
    rules
        .find(|(known, _)| *known == key)
        .map(|(_, rule)| *rule)
}

/// What a node goes by between two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// It goes on for so long without the other one.
    pub stops: Duration,
    /// It counts the other one as dead by these.
    pub waits: Timing,
}

/// What a node goes by between `old` and `new`.
#[must_use]
pub fn between(old: Timing, new: Timing) -> Between {
    Between {
        stops: Side::Stops.between(old.timeout, new.timeout),
        waits: Timing {
            interval: old.interval,
            timeout: Side::Waits.between(old.timeout, new.timeout),
        },
    }
}

/// Whether the shorter timeout has room for the longer interval; if not, both cannot be changed at once.
#[must_use]
pub fn leaves_room(old: Timing, new: Timing) -> bool {
    let slowest = old.interval.max(new.interval);
    between(old, new).stops >= slowest * HEARTBEATS_PER_TIMEOUT_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn timing(interval: u64, timeout: u64) -> Timing {
        let millis = Duration::from_millis;
        Timing::new(millis(interval), millis(timeout)).expect("a timing")
    }

    /// Old beside between, between beside itself, between beside new: and never old beside new.
    #[test]
    fn whoever_serves_stops_before_the_other_one_has_waited() {
        for (old, new) in [(2000, 5000), (5000, 2000), (2000, 2000)] {
            let (old, new) = (timing(250, old), timing(250, new));
            let middle = between(old, new);
            let plain = |timing: Timing| (timing.timeout, timing.timeout);
            let careful = (middle.stops, middle.waits.timeout);
            let pairs = [
                (plain(old), careful),
                (careful, careful),
                (careful, plain(new)),
            ];
            for (one, other) in pairs {
                assert!(one.0 <= other.1, "{one:?} serves, {other:?} waits");
                assert!(other.0 <= one.1, "{other:?} serves, {one:?} waits");
            }
        }
        let (old, new) = (timing(250, 2000), timing(250, 5000));
        assert!(new.timeout > old.timeout, "this pair is the unsafe one");
    }

    #[test]
    fn the_shorter_timeout_has_room_for_the_longer_interval() {
        assert!(leaves_room(timing(250, 2000), timing(500, 4000)));
        assert!(!leaves_room(timing(250, 2000), timing(1000, 4000)));
        assert!(!leaves_room(timing(1000, 4000), timing(250, 2000)));
    }

    #[test]
    fn each_key_has_one_rule_and_others_have_none() {
        let keys: Vec<&str> = RULES.iter().map(|(key, _)| *key).collect();
        for key in &keys {
            assert!(rule(key).is_some());
            assert_eq!(keys.iter().filter(|other| *other == key).count(), 1);
        }
        assert_eq!(rule("arbiter"), None);
    }
}
