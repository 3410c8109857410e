//! What an application's write costs a pair of real daemons does not grow unnoticed: counts, each for one write, that do not
//! depend on how fast or busy this machine is.
//!
//! Bounds are of two kinds. What a write *is* (a payload and two headers on the wire, a disk write on each node, an answer) is the
//! same in every run: its bound is that number, and a little for what happens beside it. Calls of io_uring_enter at depth 1 are one
//! for each completion at most: one more would be a round for nothing. At depth 16 it matters how much comes together in one round:
//! both daemons have one processor here, so that other processors do not, and the bound is twice the most that was seen beyond the
//! fixed part in 40 runs, half of them beside four busy loops. docs/performance.md has what was seen. A cost that fell for good gets
//! a lower bound here.

// A test that cannot go on panics.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use lockstep_bench::job::{Job, Order, Then};
use lockstep_bench::line::Counts;
use lockstep_bench::pair::{Cost, Pair};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const NODE: &str = env!("CARGO_BIN_EXE_bench-node");
const WRITES: u64 = 4000;
/// What may happen beside the writes of a job: a keepalive every 2 s, a flush in the background every 5 s, the two questions for the
/// counters. A hundredth of a write.
const BESIDE: u64 = 40;
/// Bytes of a header of the mirror link.
const HEADER: f64 = 64.0;

/// On the active node and on the standby.
struct Bound {
    name: &'static str,
    figure: fn(&Counts) -> u64,
    /// For one write.
    most: [f64; 2],
    /// For the whole job.
    beside: u64,
}

/// Of every write, however many there are at a time.
const ALWAYS: [Bound; 5] = [
    Bound {
        name: "bytes on the wire",
        figure: |counts| counts.sent_bytes,
        most: [HEADER + 4096.0, HEADER],
        beside: BESIDE * 64,
    },
    Bound {
        name: "writes of metadata",
        figure: |counts| counts.metadata_entries,
        most: [0.0, 0.0],
        beside: 0,
    },
    Bound {
        name: "entries for the disk",
        figure: |counts| counts.disk_entries,
        most: [1.0, 1.0],
        beside: BESIDE,
    },
    Bound {
        name: "entries for the application's queue",
        figure: |counts| counts.queue_entries,
        most: [1.0, 0.0],
        beside: BESIDE,
    },
    Bound {
        name: "allocations",
        figure: |counts| counts.allocations,
        most: [0.0, 0.0],
        // What the questions themselves ask for is most of it.
        beside: 60,
    },
];

/// An entry to answer and ask, to write, to send and to receive; each has a completion, and each completion one round at most.
const ALONE: [Bound; 2] = [
    Bound {
        name: "entries",
        figure: |counts| counts.entries,
        most: [4.0, 3.0],
        beside: BESIDE,
    },
    Bound {
        name: "calls of io_uring_enter",
        figure: |counts| counts.enters,
        most: [4.0, 3.0],
        beside: BESIDE,
    },
];

/// Seen: 2 and 0.14 to 0.21 entries, 0.26 to 0.33 calls on the active node; 1 and 0.19 to 0.28, 0.25 to 0.35 on the standby. Many writes
/// share an entry to send, one to receive, and a round.
const SIXTEEN: [Bound; 2] = [
    Bound {
        name: "entries",
        figure: |counts| counts.entries,
        most: [2.45, 1.6],
        beside: BESIDE,
    },
    Bound {
        name: "calls of io_uring_enter",
        figure: |counts| counts.enters,
        most: [0.7, 0.7],
        beside: BESIDE,
    },
];

fn job(depth: u16, writes: u64) -> Job {
    Job {
        writes,
        depth,
        bytes: 4096,
        order: Order::Random,
        then: Then::Write,
    }
}

fn exceeded(depth: u16, cost: &Cost, bounds: &[Bound]) -> Vec<String> {
    let mut complaints = Vec::new();
    for bound in bounds {
        let Bound {
            name,
            figure,
            most,
            beside,
        } = bound;
        for (side, counts, most) in [
            ("active", &cost.active, most[0]),
            ("standby", &cost.standby, most[1]),
        ] {
            let each = figure(counts) as f64 / WRITES as f64;
            let line = format!(
                "depth {depth}, {side}: {each:.3} {name} a write, at most {most} and {beside} beside"
            );
            println!("{line}");
            if each > most + *beside as f64 / WRITES as f64 {
                complaints.push(line);
            }
        }
    }
    complaints
}

/// This thread and what it starts have one processor.
fn share_a_processor() {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap());
    let mut one = CpuSet::new();
    one.set(first.unwrap()).unwrap();
    sched_setaffinity(me, &one).unwrap();
}

#[test]
fn a_write_costs_no_more_than_is_written_down() {
    share_a_processor();
    let mut pair = Pair::start(Path::new(NODE)).unwrap();
    // Every extent is in the activity log then.
    pair.run(job(16, 2000)).unwrap();
    let mut complaints = Vec::new();
    for (depth, bounds) in [(1, &ALONE), (16, &SIXTEEN)] {
        let cost = pair.run(job(depth, WRITES)).unwrap();
        complaints.extend(exceeded(depth, &cost, &ALWAYS));
        complaints.extend(exceeded(depth, &cost, bounds));
    }
    pair.check().unwrap();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
