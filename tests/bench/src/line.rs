//! What is said between the benchmark and a node, a line each way: `run JOB` is answered with `done NANOSECONDS FAILED`,
//! `count` with [`Counts`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ublk_mirror::ring::{Kind, Work};

use crate::heap;
use crate::job::Job;

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Run(Job),
    Count,
}

impl FromStr for Ask {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Ask, anyhow::Error> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("run", job) => Ok(Ask::Run(job.parse()?)),
            ("count", "") => Ok(Ask::Count),
            _ => anyhow::bail!("what is {line:?}?"),
        }
    }
}

/// The answer to `run`.
pub fn done(took: Duration, failed: u64) -> String {
    format!("done {} {failed}\n", took.as_nanos())
}

const NAMES: [&str; 14] = [
    "cpu_us",
    "owner_cpu_us",
    "switches",
    "owner_switches",
    "preempted",
    "enters",
    "entries",
    "queue_entries",
    "disk_entries",
    "metadata_entries",
    "send_entries",
    "receive_entries",
    "sent_bytes",
    "allocations",
];

/// Everything that a node has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// User and system time of the process, microseconds; kernel threads that work for its ring are in it.
    pub cpu_us: u64,
    /// Of its owner thread alone.
    pub owner_cpu_us: u64,
    /// Voluntary context switches of the process.
    pub switches: u64,
    /// Of its owner thread alone.
    pub owner_switches: u64,
    /// Involuntary ones of the process.
    pub preempted: u64,
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Entries for the submission queue, but those for talking with the benchmark.
    pub entries: u64,
    /// Of these: for the application's queue.
    pub queue_entries: u64,
    /// For the data.
    pub disk_entries: u64,
    /// For the metadata.
    pub metadata_entries: u64,
    /// For sending to the peer.
    pub send_entries: u64,
    /// For receiving from it.
    pub receive_entries: u64,
    /// Bytes sent to the peer.
    pub sent_bytes: u64,
    /// Calls of the allocator.
    pub allocations: u64,
}

impl Counts {
    /// Of this process, by its owner thread.
    pub fn now(work: Work) -> Counts {
        let [all, owner] = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_THREAD]
            .map(|who| getrusage(who).expect("getrusage knows both"));
        Counts {
            cpu_us: cpu_us(&all),
            owner_cpu_us: cpu_us(&owner),
            switches: all.voluntary_context_switches().cast_unsigned(),
            owner_switches: owner.voluntary_context_switches().cast_unsigned(),
            preempted: all.involuntary_context_switches().cast_unsigned(),
            enters: work.enters,
            entries: work.entries() - work.entries_of(Kind::Helper),
            queue_entries: work.entries_of(Kind::Ublk),
            disk_entries: work.entries_of(Kind::Disk),
            metadata_entries: work.entries_of(Kind::Persist),
            send_entries: work.entries_of(Kind::Send),
            receive_entries: work.entries_of(Kind::Receive),
            sent_bytes: work.sent_bytes,
            allocations: heap::allocations(),
        }
    }

    fn fields(&mut self) -> [&mut u64; NAMES.len()] {
        [
            &mut self.cpu_us,
            &mut self.owner_cpu_us,
            &mut self.switches,
            &mut self.owner_switches,
            &mut self.preempted,
            &mut self.enters,
            &mut self.entries,
            &mut self.queue_entries,
            &mut self.disk_entries,
            &mut self.metadata_entries,
            &mut self.send_entries,
            &mut self.receive_entries,
            &mut self.sent_bytes,
            &mut self.allocations,
        ]
    }

    /// What was used since an earlier moment.
    #[must_use]
    pub fn since(mut self, mut earlier: Counts) -> Counts {
        for (now, then) in self.fields().into_iter().zip(earlier.fields()) {
            *now -= *then;
        }
        self
    }
}

fn cpu_us(usage: &Usage) -> u64 {
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros.cast_unsigned()
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = *self;
        let fields = NAMES.iter().zip(counts.fields());
        let words: Vec<String> = fields
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Counts {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Counts, anyhow::Error> {
        let mut counts = Counts::default();
        let words: Vec<(&str, &str)> = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .collect();
        for (name, field) in NAMES.iter().zip(counts.fields()) {
            let found = words.iter().find(|(word, _)| word == name);
            let (_, value) = found.ok_or_else(|| anyhow::anyhow!("no {name} in {line:?}"))?;
            *field = value.parse()?;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_their_line() {
        let mut counts = Counts::default();
        for (at, field) in (1..).zip(counts.fields()) {
            *field = at;
        }
        assert_eq!(counts.to_string().parse::<Counts>().unwrap(), counts);
        assert_eq!(counts.since(counts), Counts::default());
    }
}
