//! Replays a corpus, then mutates it, and notices a panic, a hang and a hunger for memory.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Target;
use crate::input::Rng;
use crate::mutate::mutate;

/// One execution takes microseconds. This is for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Address space that one execution may take. The largest legal thing is a megabyte of metadata.
const GROWTH_KIB_MAX: u64 = 256 * 1024;
/// Executions between two looks at the memory.
const LOOK_EVERY: u64 = 16;

/// How long mutated inputs are tried after the corpus.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// So many, for the same result on every machine.
    Executions(u64),
    /// For so long.
    Time(Duration),
}

/// What went wrong, and with which inputs (one of them).
#[derive(Clone, Debug)]
pub struct Failure {
    /// What the target said.
    pub message: String,
    /// The input; of a hunger for memory, the last ones.
    pub inputs: Vec<Vec<u8>>,
}

/// How it came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Executions, with those of the corpus.
    pub executions: u64,
    /// The first thing that went wrong.
    pub failure: Option<Failure>,
}

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn quiet(body: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = SAID.with_borrow_mut(|said| {
                said.as_mut().map(|said| *said = info.to_string()).is_some()
            });
            if !ours {
                before(info);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    let said = SAID.take().unwrap_or_default();
    result.map_err(|_| said)
}

/// Runs a target on one input. A panic is an error with its words.
///
/// # Errors
/// The target panicked.
pub fn execute(target: &Target, input: &[u8]) -> Result<(), String> {
    quiet(|| (target.check)(input))
}

/// The files of a directory in the order of their names.
///
/// # Errors
/// It cannot be read.
pub fn read_corpus(directory: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// What the thread that executes shows to the one that waits.
#[derive(Debug, Default)]
struct Shown {
    executions: u64,
    input: Vec<u8>,
    done: Option<Outcome>,
}

/// Replays `corpus`, then tries changes of it.
pub fn run(
    target: Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    limit: Limit,
    patience: Duration,
) -> Outcome {
    let shown = Arc::new(Mutex::new(Shown::default()));
    let shows = shown.clone();
    let worker = thread::spawn(move || {
        let outcome = work(target, corpus, seed, limit, &shows);
        shows.lock().unwrap_or_else(PoisonError::into_inner).done = Some(outcome);
    });
    let (mut last, mut since) = (0, Instant::now());
    loop {
        thread::park_timeout(Duration::from_millis(20));
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = shown.done.take() {
            return outcome;
        }
        if shown.executions != last {
            (last, since) = (shown.executions, Instant::now());
        } else if since.elapsed() > patience || worker.is_finished() {
            let message = format!("no end within {} s", patience.as_secs_f32());
            // The thread cannot be ended; the process is about to.
            return Outcome {
                executions: shown.executions,
                failure: Some(Failure {
                    message,
                    inputs: vec![shown.input.clone()],
                }),
            };
        }
    }
}

fn work(
    target: Target,
    corpus: Vec<Vec<u8>>,
    seed: u64,
    limit: Limit,
    shows: &Mutex<Shown>,
) -> Outcome {
    let started = Instant::now();
    let before = peak_kib();
    let mut rng = Rng::new(seed);
    let mut recent = Vec::new();
    let mut executions = 0;
    let failed = |executions, message, inputs| Outcome {
        executions,
        failure: Some(Failure { message, inputs }),
    };
    loop {
        let replayed = usize::try_from(executions).ok();
        let replayed = replayed.and_then(|index| corpus.get(index));
        let over = match limit {
            Limit::Executions(count) => executions >= count.max(corpus.len() as u64),
            Limit::Time(time) => started.elapsed() >= time,
        };
        if replayed.is_none() && over {
            return Outcome {
                executions,
                failure: None,
            };
        }
        let input = replayed.cloned().unwrap_or_else(|| {
            let (one, other) = (pick(&mut rng, &corpus), pick(&mut rng, &corpus));
            mutate(&mut rng, one, other, target.input_bytes_max)
        });
        executions += 1;
        {
            let mut shown = shows.lock().unwrap_or_else(PoisonError::into_inner);
            shown.executions = executions;
            shown.input.clone_from(&input);
        }
        if let Err(message) = execute(&target, &input) {
            return failed(executions, message, vec![input]);
        }
        recent.push(input);
        if executions % LOOK_EVERY == 0 {
            let growth = peak_kib().saturating_sub(before);
            if growth > GROWTH_KIB_MAX {
                let message = format!("one of these takes up to {growth} KiB of memory");
                return failed(executions, message, recent);
            }
            recent.clear();
        }
    }
}

fn pick<'a>(rng: &mut Rng, corpus: &'a [Vec<u8>]) -> &'a [u8] {
    if corpus.is_empty() {
        &[]
    } else {
        &corpus[rng.below(corpus.len())]
    }
}

/// The most address space that this process ever had: what was asked for counts, not only what was used.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}
