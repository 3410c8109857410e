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
use crate::self_fencing::{Leases, takeover_wait};

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
/// both stopped. A new one needs its part in [`between`] or [`Fenced`] as well.
///
/// Of what [`Fenced`] has, `hard_stop_ms` and a watchdog that may be armed are not here: a hard stop under way, and a device that
/// an earlier run armed, go by the old time until this run has found them.
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

/// The times by which a node's services are fenced, as one configuration has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Whether its arbiter lets the other node take over by itself.
    pub leases: Leases,
    /// The heartbeat's timeout.
    pub timeout: Duration,
    /// Within this time a hard stop is over.
    pub hard_stop: Duration,
    /// After this time its watchdog resets it; `None` without one.
    pub watchdog: Option<Duration>,
}

impl Fenced {
    /// How long the other node's services wait after a takeover from this one: [`takeover_wait`].
    #[must_use]
    pub fn wait(self) -> Duration {
        takeover_wait(self.leases, self.timeout, self.hard_stop, self.watchdog)
    }

    /// How long they wait while this one goes by either configuration, or between both: by the longest of each time. The
    /// longer of both waits would not do where one time gets longer and another one shorter.
    #[must_use]
    pub fn wait_between(self, new: Self) -> Duration {
        let leases = match (self.leases, new.leases) {
            (Leases::None, Leases::None) => Leases::None,
            (Leases::Kept, _) | (_, Leases::Kept) => Leases::Kept,
        };
        let longest = Self {
            leases,
            timeout: Side::Waits.between(self.timeout, new.timeout),
            hard_stop: Side::Waits.between(self.hard_stop, new.hard_stop),
            // `None` is below any time.
            watchdog: self.watchdog.max(new.watchdog),
        };
        longest.wait()
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
    use crate::self_fencing::grace;
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

    /// What a node needs until nothing of its services is left, from its last word: by the lease that it goes on for, and the
    /// times of its own file. The watchdog twice, as in [`takeover_wait`].
    fn needs(stops: Duration, file: Fenced) -> Duration {
        stops + grace(stops) + file.hard_stop + 2 * file.watchdog.unwrap_or_default()
    }

    /// The same steps for services: one node has the wait of the middle before the other one has anything of the new file.
    #[test]
    fn whoever_takes_over_waits_for_the_services_of_the_other_one_in_each_step_of_a_push() {
        let fenced = |timeout: u64, watchdog: u64| Fenced {
            leases: Leases::Kept,
            timeout: Duration::from_millis(timeout),
            hard_stop: Duration::from_secs(2),
            watchdog: (watchdog > 0).then(|| Duration::from_secs(watchdog)),
        };
        let pairs = [
            (fenced(2000, 0), fenced(60_000, 0)),
            (fenced(60_000, 0), fenced(2000, 0)),
            (fenced(2000, 0), fenced(2000, 10)),
            (fenced(60_000, 0), fenced(2000, 10)),
            (fenced(2000, 0), fenced(60_000, 10)),
            (fenced(2000, 10), fenced(60_000, 10)),
            (fenced(60_000, 10), fenced(2000, 10)),
        ];
        let mut shows_something = 0;
        for (old, new) in pairs {
            let timing = |file: Fenced| Timing {
                interval: Duration::from_millis(250),
                timeout: file.timeout,
            };
            let middle = between(timing(old), timing(new));
            let of = |stops, file: Fenced, timeout, wait| (needs(stops, file), timeout + wait);
            let before = of(old.timeout, old, old.timeout, old.wait());
            let careful = of(
                middle.stops,
                old,
                middle.waits.timeout,
                old.wait_between(new),
            );
            let after = of(new.timeout, new, new.timeout, new.wait());
            for (one, other) in [(before, careful), (careful, careful), (careful, after)] {
                assert!(
                    one.0 <= other.1,
                    "{old:?}, {new:?}: {one:?} beside {other:?}"
                );
                assert!(
                    other.0 <= one.1,
                    "{old:?}, {new:?}: {other:?} beside {one:?}"
                );
            }
            // The wait of the old file alone would not do.
            shows_something += u32::from(after.0 > middle.waits.timeout + old.wait());
        }
        assert_eq!(shows_something, 4);
    }

    #[test]
    fn between_two_files_each_time_is_the_longest() {
        let secs = Duration::from_secs;
        let fenced = |leases, timeout, hard_stop, watchdog| Fenced {
            leases,
            timeout: secs(timeout),
            hard_stop: secs(hard_stop),
            watchdog,
        };
        let one = fenced(Leases::Kept, 8, 2, None);
        let other = fenced(Leases::Kept, 2, 4, Some(secs(10)));
        let both = fenced(Leases::Kept, 8, 4, Some(secs(10))).wait();
        assert_eq!(one.wait_between(other), both);
        assert_eq!(other.wait_between(one), both);
        assert!(both > one.wait().max(other.wait()));
        let none = fenced(Leases::None, 8, 4, Some(secs(10)));
        assert_eq!(one.wait_between(none), both);
        assert_eq!(none.wait_between(none), none.wait());
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
