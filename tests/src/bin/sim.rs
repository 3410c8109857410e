//! `cargo sim --seed N [--trace]`, `cargo sim --seeds A..B`, `cargo sim --mutants`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use lockstep_tests::sim::world::Mutant;
use lockstep_tests::sim::{Report, run_seed};

const USAGE: &str =
    "usage: cargo sim --seed N [--trace] | --seeds A..B [--mutant NAME] | --mutants";
/// Seeds after which a mutant counts as not caught.
const MUTANT_SEEDS: u64 = 400;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("the core panicked with seed {}", SEED.get());
        usual(info);
    }));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        words
            .iter()
            .position(|word| word == name)
            .and_then(|at| words.get(at + 1))
    };
    let mutant =
        value("--mutant").and_then(|name| Mutant::ALL.iter().find(|(known, _)| known == name));
    let mutant = mutant.map(|(_, mutant)| *mutant);
    if words.iter().any(|word| word == "--mutants") {
        return mutants();
    }
    if let Some(seed) = value("--seed").and_then(|seed| seed.parse().ok()) {
        let trace = words.iter().any(|word| word == "--trace");
        let report = one(seed, trace, mutant);
        return finish(
            u64::from(report.failure.is_none()),
            &show(seed, &report),
            &report.coverage,
        );
    }
    let range = value("--seeds").and_then(|range| range.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    match range {
        Some(range) => many(range, mutant),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, trace: bool, mutant: Option<Mutant>) -> Report {
    SEED.set(seed);
    run_seed(seed, trace, mutant)
}

fn show(seed: u64, report: &Report) -> Vec<u64> {
    let Some((failure, steps)) = &report.failure else {
        return Vec::new();
    };
    for step in steps.iter().rev().take(40).rev() {
        println!("    {step}");
    }
    println!("seed {seed}: {failure}\n");
    vec![seed]
}

fn many(range: std::ops::Range<u64>, mutant: Option<Mutant>) -> ExitCode {
    let started = Instant::now();
    let count = range.end.saturating_sub(range.start);
    let mut coverage = BTreeMap::new();
    let (mut passed, mut failed) = (0, Vec::new());
    for seed in range {
        let report = one(seed, false, mutant);
        match &report.failure {
            None => passed += 1,
            Some((failure, _)) if failed.len() < 5 => {
                println!("seed {seed}: {failure}");
                failed.push(seed);
            }
            Some(_) => failed.push(seed),
        }
        for (what, times) in report.coverage {
            *coverage.entry(what).or_insert(0) += times;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.1} seeds/s", count as f64 / seconds);
    finish(passed, &failed, &coverage)
}

fn finish(passed: u64, failed: &[u64], coverage: &BTreeMap<String, u64>) -> ExitCode {
    for (what, times) in coverage {
        println!("{times:>10}  {what}");
    }
    if !failed.is_empty() {
        println!("failed seeds: {failed:?}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn mutants() -> ExitCode {
    let mut missed = Vec::new();
    for (name, mutant) in Mutant::ALL {
        let caught = (0..MUTANT_SEEDS)
            .find_map(|seed| Some((seed, one(seed, false, Some(mutant)).failure?)));
        match caught {
            Some((seed, (failure, _))) => {
                println!(
                    "{name}: caught by seed {seed}: {}",
                    failure.lines().next().unwrap_or_default()
                );
            }
            None => missed.push(name),
        }
    }
    println!(
        "{} caught, {} missed {missed:?}",
        Mutant::ALL.len() - missed.len(),
        missed.len()
    );
    if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
