//! `cargo sim`: one seed, many seeds, or the mutants. See [`USAGE`].

use std::process::ExitCode;
use std::time::Instant;

use lockstep_tests::sim::fleet::{Sum, first_kill, many};
use lockstep_tests::sim::mutants::{Row, Wrong, all};
use lockstep_tests::sim::shrink::shrink;
use lockstep_tests::sim::told;
use lockstep_tests::sim::{Report, Run, coverage, keep_panics_quiet};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: cargo sim --seed N [--trace | --shrink]
       cargo sim --seeds A..B | --seeds N
       cargo sim --told
       cargo mutants-sim [NAME...] [--seeds-max N]
       cargo mutants-sim NAME --seed N [--trace | --shrink]
       cargo mutants-sim NAME --seeds A..B | --seeds N";
/// What a build says that has only the mutants of the simulated shell: to run these alone, and end well, would look as
/// if all of them had been caught.
const WITHOUT_MUTANTS: &str =
    "this build has no mutants of the cores: cargo mutants-sim [NAME...] runs them";
/// Options with a word behind them.
const WITH_VALUE: [&str; 4] = ["--mutant", "--seed", "--seeds", "--seeds-max"];
/// Seeds after which a mutant counts as not caught.
const MUTANT_SEEDS_MAX: u64 = 100_000;
/// Steps and messages that are shown.
const STEPS_SHOWN: usize = 40;
const FAILURES_SHOWN: usize = 5;
const MESSAGE_SHOWN: usize = 160;

fn main() -> ExitCode {
    keep_panics_quiet();
    run().unwrap_or_else(|problem| {
        eprintln!("{problem}\n{USAGE}");
        ExitCode::from(2)
    })
}

fn run() -> Result<ExitCode, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| words.iter().any(|word| word == name);
    let value = |name: &str| {
        let place = words.iter().position(|word| word == name)?;
        words.get(place + 1).map(String::as_str)
    };
    let wrong = wrong(&words)?;
    if (flag("--mutants") || !wrong.is_empty()) && !cfg!(feature = "mutants") {
        return Err(WITHOUT_MUTANTS.to_string());
    }
    if flag("--told") {
        return Ok(all_told());
    }
    let single = |seeds: &str| match wrong.as_slice() {
        [] if flag("--mutants") => Err(format!("{seeds}: of which mutant?")),
        [] => Ok(None),
        [only] => Ok(Some(*only)),
        [..] => Err(format!("{seeds}: of one mutant only")),
    };
    if let Some(seed) = value("--seed") {
        let run = Run::new(number(seed)?, single("--seed")?);
        return Ok(if flag("--shrink") {
            shrunk(run)
        } else {
            one(&run, flag("--trace"))
        });
    }
    if let Some(seeds) = value("--seeds") {
        let (from, to) = seeds.split_once("..").unwrap_or(("0", seeds));
        return Ok(range(number(from)?..number(to)?, single("--seeds")?));
    }
    if !flag("--mutants") {
        return Err("say what to run".to_string());
    }
    let max = value("--seeds-max").map_or(Ok(MUTANT_SEEDS_MAX), number)?;
    Ok(mutants(max, &wrong))
}

/// The mutants that are named: words that are neither an option nor the value of one but `--mutant`'s.
fn wrong(words: &[String]) -> Result<Vec<Wrong>, String> {
    let before = std::iter::once("").chain(words.iter().map(String::as_str));
    let named = before.zip(words).filter(|(before, word)| {
        !word.starts_with("--") && (*before == "--mutant" || !WITH_VALUE.contains(before))
    });
    let row = |name: &String| all().into_iter().find(|row| row.name == *name);
    named
        .map(|(_, name)| match row(name) {
            Some(row) => Ok(row.wrong),
            None if cfg!(feature = "mutants") => Err(format!("there is no mutant {name}")),
            None => Err(WITHOUT_MUTANTS.to_string()),
        })
        .collect()
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn show(report: &Report) {
    if let Some((failure, steps)) = &report.failure {
        for step in &steps[steps.len().saturating_sub(STEPS_SHOWN)..] {
            println!("    {step}");
        }
        println!("{failure}\n");
    }
}

fn one(run: &Run, trace: bool) -> ExitCode {
    let report = if trace { run.traced() } else { run.go() };
    for (what, times) in &report.coverage {
        println!("{times:>10}  {what}");
    }
    show(&report);
    verdict(report.failure.is_none())
}

fn shrunk(run: Run) -> ExitCode {
    let before = run.schedule.len();
    let Some(run) = shrink(run) else {
        println!("no rule is broken");
        return ExitCode::SUCCESS;
    };
    show(&run.go());
    println!("{} of {before} troubles are needed:", run.schedule.len());
    for trouble in run.schedule.iter() {
        println!("{trouble}");
    }
    ExitCode::FAILURE
}

fn range(seeds: std::ops::Range<u64>, wrong: Option<Wrong>) -> ExitCode {
    let started = Instant::now();
    let count = seeds.end.saturating_sub(seeds.start);
    let sum = many(seeds, wrong);
    for (what, times) in &sum.coverage {
        println!("{times:>10}  {what}");
    }
    let covered = wrong.is_some() || is_covered(&sum, count);
    for (seed, failure) in sum.failed.iter().take(FAILURES_SHOWN) {
        println!("seed {seed}: {failure}");
    }
    if !sum.failed.is_empty() {
        let seeds: Vec<u64> = sum.failed.keys().copied().collect();
        println!("failed seeds: {seeds:?}");
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let (passed, failed) = (sum.passed, sum.failed.len());
    println!("{passed} passed, {failed} failed, {rate:.0} seeds/s");
    verdict(sum.failed.is_empty() && covered)
}

fn is_covered(sum: &Sum, seeds: u64) -> bool {
    let missing = coverage::missing(&sum.coverage, seeds);
    for mark in &missing {
        println!("never happened: {mark}");
    }
    missing.is_empty()
}

/// The schedules that are told, on the right core.
fn all_told() -> ExitCode {
    let mut broken = 0;
    for told in told::ALL {
        let (law, outcome) = (told.law, told.tell(None));
        broken += u64::from(!matches!(outcome, Ok(1..)));
        match outcome {
            Ok(met) => println!("{met:>4} seeds met the moment  {law}"),
            Err((seed, failure)) => println!("seed {seed}: {failure}  {law}"),
        }
    }
    verdict(broken == 0)
}

/// What caught a mutant: a schedule that is told, if there is one for it, or else the first seed that does.
fn caught(row: &Row, seeds_max: u64) -> Option<(String, String)> {
    match told::kill(row) {
        Some(failure) => Some(("told".to_string(), failure)),
        None => first_kill(0..seeds_max, row).map(|(seed, failure)| (seed.to_string(), failure)),
    }
}

/// Those that are named, or all.
fn mutants(seeds_max: u64, only: &[Wrong]) -> ExitCode {
    let mut survivors = 0;
    println!("{:<28} {:<16} {:>8}  message", "mutant", "rule", "seed");
    for row in all() {
        if !only.is_empty() && !only.contains(&row.wrong) {
            continue;
        }
        let (seed, message) =
            caught(&row, seeds_max).unwrap_or(("-".to_string(), "SURVIVED".to_string()));
        survivors += u64::from(seed == "-");
        let message: String = message.chars().take(MESSAGE_SHOWN).collect();
        println!("{:<28} {:<16} {seed:>8}  {message}", row.name, row.rule);
    }
    println!("{survivors} survived {seeds_max} seeds");
    verdict(survivors == 0)
}
