//! What an application does: so many writes, so many at a time, where.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use mirror_core::limits::{QUEUE_DEPTH, REQUEST_BYTES_MAX};
use mirror_core::types::{SECTOR_BYTES, SectorRange};

/// Where the writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Anywhere; the same places in every run.
    Random,
    /// One after the other, and from the beginning again.
    Sequential,
}

/// What follows on each write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next one.
    Write,
    /// A flush, then the next one.
    Flush,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// How many writes; flushes are not counted.
    pub writes: u64,
    /// Requests under way, 1 to [`QUEUE_DEPTH`].
    pub depth: u16,
    /// Of each write; whole sectors, up to [`REQUEST_BYTES_MAX`].
    pub bytes: u32,
    /// Where.
    pub order: Order,
    /// What follows on each.
    pub then: Then,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Random => "random",
            Order::Sequential => "sequential",
        };
        let then = match self.then {
            Then::Write => "write",
            Then::Flush => "flush",
        };
        let Job {
            writes,
            depth,
            bytes,
            ..
        } = self;
        write!(f, "{writes} {depth} {bytes} {order} {then}")
    }
}

impl FromStr for Job {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Job, anyhow::Error> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [writes, depth, bytes, order, then] = words[..] else {
            anyhow::bail!("a job has five words: {text:?}");
        };
        let job = Job {
            writes: writes.parse()?,
            depth: depth.parse()?,
            bytes: bytes.parse()?,
            order: match order {
                "random" => Order::Random,
                "sequential" => Order::Sequential,
                other => anyhow::bail!("no order {other:?}"),
            },
            then: match then {
                "write" => Then::Write,
                "flush" => Then::Flush,
                other => anyhow::bail!("nothing follows that is called {other:?}"),
            },
        };
        let whole = u64::from(job.bytes).is_multiple_of(SECTOR_BYTES);
        anyhow::ensure!((1..=QUEUE_DEPTH).contains(&job.depth), "depth {depth}");
        anyhow::ensure!(
            whole && (1..=REQUEST_BYTES_MAX).contains(&job.bytes),
            "{bytes} bytes"
        );
        Ok(job)
    }
}

/// The next request of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Write(SectorRange),
    Flush,
}

/// A job under way.
#[derive(Debug)]
pub struct Running {
    job: Job,
    places: u64,
    begun: Instant,
    issued: u64,
    ended: u64,
    failed: u64,
    state: u64,
    /// The tag's write has ended, and its flush is due or under way.
    flushes: [bool; QUEUE_DEPTH as usize],
}

impl Running {
    /// Begins a job on a disk of so many sectors.
    pub fn new(job: Job, size_sectors: u64) -> Running {
        let places = size_sectors * SECTOR_BYTES / u64::from(job.bytes);
        assert!(places > 0, "the disk is smaller than a request");
        Running {
            job,
            places,
            begun: Instant::now(),
            issued: 0,
            ended: 0,
            failed: 0,
            state: 0x9e37_79b9_7f4a_7c15,
            flushes: [false; QUEUE_DEPTH as usize],
        }
    }

    /// The tags that begin.
    pub fn tags(&self) -> impl Iterator<Item = u16> + use<> {
        let writes = u16::try_from(self.job.writes).unwrap_or(u16::MAX);
        0..self.job.depth.min(writes)
    }

    /// The number of the last write that was given out.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// What a tag does next; nothing: it rests.
    pub fn next(&mut self, tag: u16) -> Option<Step> {
        if self.flushes[usize::from(tag)] {
            return Some(Step::Flush);
        }
        if self.issued == self.job.writes {
            return None;
        }
        let place = match self.job.order {
            Order::Sequential => self.issued % self.places,
            Order::Random => self.random() % self.places,
        };
        self.issued += 1;
        let sectors = u64::from(self.job.bytes) / SECTOR_BYTES;
        let count = u32::try_from(sectors).expect("no more than its bytes");
        Some(Step::Write(SectorRange::new(place * sectors, count)))
    }

    /// A tag's request has ended; a write whose flush is due has not.
    pub fn ended(&mut self, tag: u16, done: bool) {
        self.failed += u64::from(!done);
        let flush = &mut self.flushes[usize::from(tag)];
        *flush = self.job.then == Then::Flush && !*flush;
        self.ended += u64::from(!*flush);
    }

    /// How long it took and how many requests failed, when all have ended.
    pub fn result(&self) -> Option<(Duration, u64)> {
        (self.ended == self.job.writes).then(|| (self.begun.elapsed(), self.failed))
    }

    /// xorshift64*, whose upper half is good.
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Job = Job {
        writes: 3,
        depth: 1,
        bytes: 4096,
        order: Order::Sequential,
        then: Then::Flush,
    };

    #[test]
    fn a_job_survives_its_line_and_a_wrong_one_is_refused() {
        assert_eq!(JOB.to_string().parse::<Job>().unwrap(), JOB);
        for wrong in [
            "",
            "1 0 4096 random write",
            "1 1 100 random write",
            "1 1 4096 up write",
        ] {
            assert!(wrong.parse::<Job>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_write_with_a_flush_counts_when_the_flush_has_ended() {
        let mut running = Running::new(JOB, 16);
        let mut steps = Vec::new();
        while let Some(step) = running.next(0) {
            assert!(running.result().is_none());
            steps.push(step);
            running.ended(0, true);
        }
        let write = |start| Step::Write(SectorRange::new(start, 8));
        let expected = [write(0), Step::Flush, write(8), Step::Flush, write(0)];
        assert_eq!(steps[..5], expected);
        assert_eq!(steps.len(), 6);
        assert_eq!(running.result().map(|(_, failed)| failed), Some(0));
    }
}
