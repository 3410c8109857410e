//! One monitor of a group: what the looks of it come to. It is asked only while the group is online on this node and nothing is
//! stopping it ([`crate::group::Group::is_watched`]).
//!
//! A failure counts when so many looks in a row failed; then it is said once what follows. A look of which nothing is heard is
//! one that failed: whoever looks may hang itself. A look that went well and was slow is told, and counts as nothing.

use core::fmt;
use core::time::Duration;

use mirror_core::types::Instant;

use crate::limits::{MONITOR_GRACE, MONITOR_INTERVAL, MONITOR_RETRIES, MONITOR_TIMEOUT};

/// A look that takes more than this of its timeout is slow, percent.
pub const SLOW_PERCENT: u32 = 80;

/// What follows when a monitor has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is told.
    Warn,
    /// This resource of the group is stopped and started again, as often as its retries say and counted beside its failures.
    /// Beyond that it is as [`Self::Failover`].
    Restart {
        /// Which one.
        resource: usize,
    },
    /// The group counts as failed on this node, if the other one can have it ([`crate::failing`]). Else it runs on: no monitor
    /// takes a group from the only node that runs it.
    Failover,
}

/// What was configured for a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From the group's being online to the first look.
    pub delay: Duration,
    /// Between the begins of two looks.
    pub interval: Duration,
    /// A look that takes longer is broken off, and has failed.
    pub timeout: Duration,
    /// After a look that failed it is looked again so often; if all of them fail the monitor has failed.
    pub retries: u32,
    /// What follows then.
    pub on_error: OnError,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            delay: MONITOR_INTERVAL,
            interval: MONITOR_INTERVAL,
            timeout: MONITOR_TIMEOUT,
            retries: MONITOR_RETRIES,
            on_error: OnError::Warn,
        }
    }
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// All is well, and that was found within this time.
    Well(Duration),
    /// It is not, nobody could say, or the time was over.
    Ill,
}

/// How a monitor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The group is not online here: nobody looks.
    Idle,
    /// It was not looked yet since the group is online.
    New,
    /// The last look went well.
    Well,
    /// So many looks in a row failed, and it does not count yet.
    Failing(u32),
    /// It counts.
    Failed,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("does not look: the group is not online here"),
            Self::New => f.write_str("has not looked yet"),
            Self::Well => f.write_str("well"),
            Self::Failing(_) => f.write_str("failing"),
            Self::Failed => f.write_str("failed"),
        }
    }
}

/// What is to be told, and done, after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// As before.
    Nothing,
    /// One more look failed, and that does not count yet.
    Fails(u32),
    /// It counts from now on: this follows.
    Failed(OnError),
    /// It failed, in whatever count, and is well again.
    Recovered,
}

/// Whether a change of the pace is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As before.
    Same,
    /// Looks are slow from now on.
    Slow,
    /// They are not any more.
    Quick,
}

/// A monitor.
#[derive(Clone, Copy, Debug)]
pub struct Monitor {
    policy: Policy,
    health: Health,
    since: Instant,
    slow: bool,
    /// Nothing is heard of a look until then: it hangs. `None`: nobody looks.
    due: Option<Instant>,
    /// That was counted, and nothing is heard since.
    hangs: bool,
}

impl Monitor {
    /// One that does not look.
    pub fn new(now: Instant, policy: Policy) -> Self {
        Self {
            policy,
            health: Health::Idle,
            since: now,
            slow: false,
            due: None,
            hangs: false,
        }
    }

    /// The group is online here: looks begin. What was before is forgotten.
    pub fn begin(&mut self, now: Instant) {
        *self = Self::new(now, self.policy);
        self.health = Health::New;
        self.expect(now, self.policy.delay);
    }

    /// The group is not online here any more.
    pub fn end(&mut self, now: Instant) {
        *self = Self::new(now, self.policy);
    }

    /// A look ended.
    pub fn looked(&mut self, now: Instant, look: Look) -> (Told, Pace) {
        if self.due.is_none() {
            return (Told::Nothing, Pace::Same);
        }
        self.expect(now, self.policy.interval);
        let before = self.health;
        let counted = core::mem::take(&mut self.hangs);
        match look {
            Look::Well(took) => {
                self.turn(now, Health::Well);
                let told = match before {
                    Health::Failing(_) | Health::Failed => Told::Recovered,
                    Health::Idle | Health::New | Health::Well => Told::Nothing,
                };
                (told, self.pace(took))
            }
            // One look fails once.
            Look::Ill if counted => (Told::Nothing, Pace::Same),
            // Whether it would have been slow is not known.
            Look::Ill => (self.failed(now, before), Pace::Same),
        }
    }

    /// Time passed: whether a look hangs. Then that counts as one that failed, each time anew; its end may follow, and counts
    /// no more.
    pub fn tick(&mut self, now: Instant) -> Option<Told> {
        if now < self.due? {
            return None;
        }
        self.expect(now, self.policy.interval);
        self.hangs = true;
        Some(self.failed(now, self.health))
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// How it stands.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Since when; failures count from the first one.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether its looks are slow.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// What was configured.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// So many looks in a row fail until it counts: 1 or more.
    pub fn failures_max(&self) -> u32 {
        self.policy.retries.saturating_add(1)
    }

    fn failed(&mut self, now: Instant, before: Health) -> Told {
        let failures = match before {
            // Told already; what followed did not end the look, or was a word.
            Health::Failed => return Told::Nothing,
            Health::Failing(failures) => failures + 1,
            Health::Idle | Health::New | Health::Well => 1,
        };
        if failures < self.failures_max() {
            self.turn(now, Health::Failing(failures));
            return Told::Fails(failures);
        }
        self.turn(now, Health::Failed);
        Told::Failed(self.policy.on_error)
    }

    fn turn(&mut self, now: Instant, health: Health) {
        let fails = |health| matches!(health, Health::Failing(_) | Health::Failed);
        let goes_on = health == self.health || (fails(health) && fails(self.health));
        if !goes_on {
            self.since = now;
        }
        self.health = health;
    }

    fn pace(&mut self, took: Duration) -> Pace {
        let slow = took.saturating_mul(100) > self.policy.timeout.saturating_mul(SLOW_PERCENT);
        let before = core::mem::replace(&mut self.slow, slow);
        match (before, slow) {
            (false, true) => Pace::Slow,
            (true, false) => Pace::Quick,
            (true, true) | (false, false) => Pace::Same,
        }
    }

    fn expect(&mut self, now: Instant, after: Duration) {
        self.due = Some(now + after + self.policy.timeout + MONITOR_GRACE);
    }
}

#[cfg(test)]
mod tests;
