//! `cargo fuzz` and `cargo fuzz-long`. See [`USAGE`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use lockstep_fuzz::runner::{Failure, Limit, PATIENCE, read_corpus, run};
use lockstep_fuzz::{TARGETS, Target, corpus, find};

const USAGE: &str = "usage: cargo fuzz [--seconds N | --executions N] [--seed N] [TARGET...]
       cargo fuzz --input FILE TARGET
       cargo fuzz-long [--minutes N] [TARGET...]";
const SECONDS: u64 = 30;
const MINUTES: u64 = 10;
/// What makes the compiler count edges and compared values for libFuzzer; stable, no sanitizer.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions";

#[derive(Default)]
struct Wanted {
    guided: bool,
    seconds: Option<u64>,
    minutes: Option<u64>,
    executions: Option<u64>,
    seed: u64,
    input: Option<PathBuf>,
    targets: Vec<Target>,
}

fn main() -> ExitCode {
    let done = parse().and_then(|wanted| {
        if wanted.guided {
            guided(&wanted)
        } else if let Some(path) = &wanted.input {
            one_input(path, &wanted)
        } else {
            Ok(blind(&wanted))
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse().ok());
            value.ok_or(format!("{word} needs a number"))
        };
        match word.as_str() {
            "--guided" => wanted.guided = true,
            "--seconds" => wanted.seconds = Some(number()?),
            "--minutes" => wanted.minutes = Some(number()?),
            "--executions" => wanted.executions = Some(number()?),
            "--seed" => wanted.seed = number()?,
            "--input" => wanted.input = words.next().map(PathBuf::from),
            name => wanted
                .targets
                .push(find(name).ok_or(format!("there is no target {name}"))?),
        }
    }
    if wanted.targets.is_empty() {
        wanted.targets.extend(TARGETS);
    }
    Ok(wanted)
}

/// Where failing inputs and what libFuzzer learns are kept.
fn kept(what: &str, name: &str) -> PathBuf {
    target_directory().join(what).join(name)
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    )
}

/// Replays the corpus of each target and shares the time among them.
fn blind(wanted: &Wanted) -> bool {
    let count = u32::try_from(wanted.targets.len()).unwrap_or(1).max(1);
    let limit = wanted.executions.map_or_else(
        || {
            let seconds = wanted.seconds.unwrap_or(SECONDS);
            Limit::Time(Duration::from_secs(seconds) / count)
        },
        Limit::Executions,
    );
    let mut good = true;
    for target in &wanted.targets {
        let corpus = read_corpus(&corpus(target.name)).unwrap_or_else(|error| {
            println!("{}: no corpus: {error}", target.name);
            good = false;
            Vec::new()
        });
        let inputs = corpus.len();
        let outcome = run(*target, corpus, wanted.seed, limit, PATIENCE);
        println!(
            "{:<14} {inputs:>3} inputs {:>9} executions",
            target.name, outcome.executions
        );
        if let Some(failure) = outcome.failure {
            report(target, &failure);
            good = false;
        }
    }
    good
}

fn report(target: &Target, failure: &Failure) {
    println!("{}: FAILED: {}", target.name, failure.message);
    let directory = kept("fuzz-failures", target.name);
    for input in &failure.inputs {
        let hash = blake3::hash(input).to_hex();
        let path = directory.join(&hash.as_str()[..16]);
        let saved = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, input));
        match saved {
            Ok(()) => println!("  cargo fuzz --input {} {}", path.display(), target.name),
            Err(error) => println!("  {}: {error}", path.display()),
        }
    }
}

fn one_input(path: &Path, wanted: &Wanted) -> Result<bool, String> {
    let input = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut good = true;
    for target in &wanted.targets {
        let limit = Limit::Executions(1);
        let outcome = run(*target, vec![input.clone()], 0, limit, PATIENCE);
        if let Some(failure) = outcome.failure {
            println!("{}: FAILED: {}", target.name, failure.message);
            good = false;
        }
    }
    Ok(good)
}

/// Builds `guided/` with instrumentation and gives each target its minutes.
fn guided(wanted: &Wanted) -> Result<bool, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guided/Cargo.toml");
    let built = target_directory().join("guided");
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&built)
        // With a target of its own, build scripts are not instrumented.
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .env("RUSTFLAGS", INSTRUMENTATION)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("the instrumented build failed; it needs a C++ compiler and libclang".into());
    }
    let program = built.join("x86_64-unknown-linux-gnu/release/lockstep-guided");
    let seconds = wanted.minutes.unwrap_or(MINUTES) * 60;
    let seconds = wanted.seconds.unwrap_or(seconds);
    let mut good = true;
    for target in &wanted.targets {
        let (learnt, failures) = (
            kept("fuzz-corpus", target.name),
            kept("fuzz-failures", target.name),
        );
        for directory in [&learnt, &failures] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        println!("{}: {seconds} s", target.name);
        let status = Command::new(&program)
            .env("LOCKSTEP_FUZZ_TARGET", target.name)
            .args([&learnt, &corpus(target.name)])
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={}", target.input_bytes_max))
            .args(["-timeout=20", "-malloc_limit_mb=256", "-rss_limit_mb=1024"])
            .args(["-print_final_stats=1", "-verbosity=1"])
            .status();
        good &= status.is_ok_and(|status| status.success());
    }
    Ok(good)
}
