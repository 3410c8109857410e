//! A pair of real daemons over loopback beside plain io_uring writes: `cargo bench-engine --bench pair`.
//!
//! `--rounds N` (5 by default) and `--seconds N` for each job of a round (1). Rounds are interleaved, the medians of each
//! figure are printed: docs/performance.md says what they mean.

// A benchmark that cannot go on panics.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockstep_bench::job::{Job, Order, Then};
use lockstep_bench::line::Counts;
use lockstep_bench::pair::{Cost, DIRECTORY_VARIABLE, Pair, Plain, directory};

const NODE: &str = env!("CARGO_BIN_EXE_bench-node");
/// Before anything is measured, and to learn how long a job takes.
const WARM_UP: u64 = 2000;

struct Kind {
    name: &'static str,
    depth: u16,
    bytes: u32,
    order: Order,
    then: Then,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "4k random qd1",
        depth: 1,
        bytes: 4096,
        order: Order::Random,
        then: Then::Write,
    },
    Kind {
        name: "4k random qd16",
        depth: 16,
        bytes: 4096,
        order: Order::Random,
        then: Then::Write,
    },
    Kind {
        name: "4k random qd32",
        depth: 32,
        bytes: 4096,
        order: Order::Random,
        then: Then::Write,
    },
    Kind {
        name: "4k + flush qd1",
        depth: 1,
        bytes: 4096,
        order: Order::Random,
        then: Then::Flush,
    },
    Kind {
        name: "128k seq qd8",
        depth: 8,
        bytes: 128 << 10,
        order: Order::Sequential,
        then: Then::Write,
    },
];

impl Kind {
    fn job(&self, writes: u64) -> Job {
        Job {
            writes,
            depth: self.depth,
            bytes: self.bytes,
            order: self.order,
            then: self.then,
        }
    }
}

/// One job of one round, on the floor and on the pair.
struct Round {
    writes: u64,
    plain_took: Duration,
    plain: Counts,
    pair: Cost,
}

fn main() {
    let (rounds, seconds) = (option("--rounds", 5), option("--seconds", 1));
    let program = Path::new(NODE);
    let mut plain = Plain::start(program).unwrap();
    let mut pair = Pair::start(program).unwrap();
    let mut plans = Vec::new();
    for kind in &KINDS {
        let writes = |took: Duration| {
            let wanted = Duration::from_secs(seconds.into()).as_nanos();
            let in_time = u128::from(WARM_UP) * wanted / took.as_nanos();
            u64::try_from(in_time).unwrap().max(WARM_UP)
        };
        let floor = writes(plain.node.run(kind.job(WARM_UP)).unwrap().0);
        let ours = writes(pair.run(kind.job(WARM_UP)).unwrap().took.0);
        plans.push((kind, floor, ours, Vec::new()));
    }
    for _ in 0..rounds {
        for (kind, floor, ours, results) in &mut plans {
            let before = plain.node.counts().unwrap();
            let took = plain.node.run(kind.job(*floor)).unwrap();
            let used = plain.node.counts().unwrap().since(before);
            results.push(Round {
                writes: *ours,
                plain_took: took.0 * u32::try_from(*ours).unwrap() / u32::try_from(*floor).unwrap(),
                plain: used,
                pair: pair.run(kind.job(*ours)).unwrap(),
            });
        }
    }
    pair.check().unwrap();
    println!(
        "files in {} ({DIRECTORY_VARIABLE}); medians of {rounds} rounds of about {seconds} s; both copies are equal",
        directory().display()
    );
    print(&plans);
    print_instructions();
}

/// The same for every run of one build: the difference of two runs, so that the start is not in it.
fn print_instructions() {
    const FEW: u64 = 2000;
    const MANY: u64 = 12_000;
    match (instructions(FEW), instructions(MANY)) {
        (Some(few), Some(many)) => println!(
            "\nBoth cores alone, in memory: {} instructions a write (callgrind)",
            (many - few) / (MANY - FEW)
        ),
        _ => println!("\nInstructions of the cores: absent, valgrind is not installed"),
    }
}

/// What the cores execute for so many writes, by callgrind.
fn instructions(writes: u64) -> Option<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", NODE]);
    let output = command.args(["engine", &writes.to_string()]).output();
    let said = String::from_utf8_lossy(&output.ok()?.stderr).into_owned();
    let (_, collected) = said.split_once("Collected :")?;
    collected.split_whitespace().next()?.parse().ok()
}

type Plan<'a> = (&'a Kind, u64, u64, Vec<Round>);

fn option(name: &str, otherwise: u32) -> u32 {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.map_or(otherwise, |at| arguments[at + 1].parse().unwrap())
}

fn print(plans: &[Plan<'_>]) {
    println!("\n| job | plain ops/s | pair ops/s | ratio | plain CPU us | active | standby |");
    println!("|---|---|---|---|---|---|---|");
    for (kind, floor, _, rounds) in plans {
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} | {:.1} |",
            kind.name,
            of(&|round| round.writes as f64 / round.plain_took.as_secs_f64()),
            of(&|round| round.writes as f64 / round.pair.took.0.as_secs_f64()),
            of(&|round| round.plain_took.as_secs_f64() / round.pair.took.0.as_secs_f64()),
            of(&|round| round.plain.cpu_us as f64 / *floor as f64),
            of(&|round| per(round, |cost| cost.active.cpu_us)),
            of(&|round| per(round, |cost| cost.standby.cpu_us)),
        );
    }
    println!("\nFor each application write, active / standby:\n");
    println!(
        "| job | owner CPU us | io_uring_enter | SQEs | context switches | of the owner | preempted | wire bytes | metadata writes | allocations |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (kind, _, _, rounds) in plans {
        let both = |figure: fn(&Counts) -> u64, digits: usize| {
            let side = |which: fn(&Cost) -> &Counts| {
                let all = rounds.iter().map(|round| per(round, |c| figure(which(c))));
                median(all.collect())
            };
            let (active, standby) = (side(|cost| &cost.active), side(|cost| &cost.standby));
            format!("{active:.digits$} / {standby:.digits$}")
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            kind.name,
            both(|counts| counts.owner_cpu_us, 1),
            both(|counts| counts.enters, 2),
            both(|counts| counts.entries, 2),
            both(|counts| counts.switches, 2),
            both(|counts| counts.owner_switches, 2),
            both(|counts| counts.preempted, 3),
            both(|counts| counts.sent_bytes, 0),
            both(|counts| counts.metadata_entries, 4),
            both(|counts| counts.allocations, 3),
        );
    }
}

fn per(round: &Round, figure: impl Fn(&Cost) -> u64) -> f64 {
    figure(&round.pair) as f64 / round.writes as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
