//! The committed corpus is whole and passes; and what looks for faults finds planted ones.
//!
//! Why: a fuzzer that cannot fail looks exactly like one that finds nothing.

use std::fs;
use std::time::Duration;

use lockstep_fuzz::runner::{Limit, Outcome, PATIENCE, execute, read_corpus, run};
use lockstep_fuzz::seeds::seeds;
use lockstep_fuzz::{TARGETS, Target, corpus};

fn planted(check: fn(&[u8])) -> Target {
    Target {
        name: "planted",
        check,
        input_bytes_max: 32,
    }
}

fn tried(check: fn(&[u8]), patience: Duration) -> Outcome {
    let corpus = vec![b"good".to_vec(), b"fine".to_vec()];
    let limit = Limit::Executions(200_000);
    run(planted(check), corpus, 1, limit, patience)
}

#[test]
fn a_planted_panic_is_found_and_its_input_kept() {
    let outcome = tried(
        |data| assert!(data.first() != Some(&0xa7), "planted"),
        PATIENCE,
    );
    let failure = outcome.failure.expect("the panic is found");
    assert!(failure.message.contains("planted"), "{}", failure.message);
    assert_eq!(failure.inputs[0][0], 0xa7);
    let again = planted(|data| assert!(data.first() != Some(&0xa7), "planted"));
    assert!(execute(&again, &failure.inputs[0]).is_err());
    assert!(execute(&again, b"good").is_ok());
}

#[test]
fn a_planted_overflow_is_found() {
    let check = |data: &[u8]| {
        let sum = data.iter().fold(252u8, |sum, byte| sum + byte / 200);
        assert!(sum > 0);
    };
    let outcome = tried(check, PATIENCE);
    let failure = outcome.failure.expect("the overflow is found");
    assert!(failure.message.contains("overflow"), "{}", failure.message);
}

#[test]
fn a_planted_hang_is_found() {
    let check = |data: &[u8]| {
        while data.len() == 7 {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let outcome = tried(check, Duration::from_millis(500));
    let failure = outcome.failure.expect("the hang is found");
    assert_eq!(failure.inputs[0].len(), 7);
}

#[test]
fn a_planted_hunger_for_memory_is_found() {
    let check = |data: &[u8]| {
        let count = if data.len() == 9 { 2 << 30 } else { 1 };
        std::hint::black_box(vec![0u8; count]);
    };
    let outcome = tried(check, PATIENCE);
    let failure = outcome.failure.expect("the hunger is found");
    assert!(failure.inputs.iter().any(|input| input.len() == 9));
}

#[test]
fn the_same_seed_tries_the_same_inputs() {
    let check = |data: &[u8]| assert!(data.len() < 30, "{data:?}");
    let (one, other) = (tried(check, PATIENCE), tried(check, PATIENCE));
    assert_eq!(one.executions, other.executions);
    assert_eq!(
        one.failure.map(|failure| failure.inputs),
        other.failure.map(|failure| failure.inputs)
    );
}

#[test]
fn every_target_has_its_seeds_in_the_corpus() {
    for target in TARGETS {
        let directory = corpus(target.name);
        let seeds = seeds(target.name);
        assert!(seeds.len() >= 3, "{} has few seeds", target.name);
        for (name, bytes) in seeds {
            let path = directory.join(&name);
            assert!(
                bytes.len() <= target.input_bytes_max,
                "{} {name} is long",
                target.name
            );
            if std::env::var_os("LOCKSTEP_BLESS").is_some() {
                fs::create_dir_all(&directory).expect("a directory");
                fs::write(&path, &bytes).expect("a file");
            }
            let committed = fs::read(&path);
            assert_eq!(
                committed.ok().as_ref(),
                Some(&bytes),
                "{} {name}: LOCKSTEP_BLESS=1 writes it",
                target.name
            );
        }
    }
}

#[test]
fn the_corpus_passes_and_so_do_some_changes_of_it() {
    for target in TARGETS {
        let corpus = read_corpus(&corpus(target.name)).expect("a corpus");
        let limit = Limit::Executions(500);
        let outcome = run(target, corpus, 0, limit, PATIENCE);
        if let Some(failure) = outcome.failure {
            panic!(
                "{}: {}\n{:02x?}",
                target.name, failure.message, failure.inputs
            );
        }
    }
}
