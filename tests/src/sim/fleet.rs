//! Many seeds on all cores. What a seed does depends on nothing but the seed.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{available_parallelism, scope, sleep};
use std::time::{Duration, Instant};

use super::mutants::{Row, Wrong};
use super::run::Run;

/// Seeds that a thread takes at a time.
const BATCH: u64 = 8;
/// Failed seeds whose messages are kept.
const MESSAGES_MAX: usize = 1000;
const PROGRESS: Duration = Duration::from_millis(500);

/// What came out of many seeds.
#[derive(Debug, Default)]
pub struct Sum {
    /// Seeds without a failure.
    pub passed: u64,
    /// Failed seeds with the first line of what broke.
    pub failed: BTreeMap<u64, String>,
    /// How often things happened.
    pub coverage: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        for (what, times) in other.coverage {
            *self.coverage.entry(what).or_insert(0) += times;
        }
    }
}

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Runs all seeds of a range.
pub fn many(seeds: std::ops::Range<u64>, wrong: Option<Wrong>) -> Sum {
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let total = Mutex::new(Sum::default());
    let count = seeds.end.saturating_sub(seeds.start);
    scope(|scope| {
        if stderr().is_terminal() {
            scope.spawn(|| progress(&done, count, &over));
        }
        let workers: Vec<_> = (0..threads())
            .map(|_| {
                scope.spawn(|| {
                    let sum = work(&next, &done, seeds.end, wrong);
                    if let Ok(mut total) = total.lock() {
                        total.add(sum);
                    }
                })
            })
            .collect();
        for worker in workers {
            assert!(worker.join().is_ok(), "a worker of the simulator panicked");
        }
        over.store(true, Ordering::Relaxed);
    });
    total.into_inner().unwrap_or_default()
}

fn work(next: &AtomicU64, done: &AtomicU64, end: u64, wrong: Option<Wrong>) -> Sum {
    let mut sum = Sum::default();
    loop {
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        if first >= end {
            return sum;
        }
        for seed in first..end.min(first + BATCH) {
            let report = Run::new(seed, wrong).once();
            match report.failure {
                None => sum.passed += 1,
                Some((failure, _)) => {
                    let shown = sum.failed.len() < MESSAGES_MAX;
                    let line = failure.lines().next().filter(|_| shown);
                    sum.failed
                        .insert(seed, line.unwrap_or_default().to_string());
                }
            }
            for (what, times) in report.coverage {
                *sum.coverage.entry(what).or_insert(0) += times;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn progress(done: &AtomicU64, count: u64, over: &AtomicBool) {
    let started = Instant::now();
    while !over.load(Ordering::Relaxed) {
        sleep(PROGRESS);
        let done = done.load(Ordering::Relaxed);
        let rate = done as f64 / started.elapsed().as_secs_f64();
        let left = count.saturating_sub(done) as f64 / rate.max(0.1);
        eprint!("\r{done} of {count} seeds, {rate:.0} seeds/s, {left:.0} s left   ");
        let _ = stderr().flush();
    }
    eprint!("\r{:70}\r", "");
}

/// The first of these seeds that catches a mutant by a rule that it breaks, with the first line of what
/// broke.
pub fn first_kill(seeds: std::ops::Range<u64>, row: &Row) -> Option<(u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let best = Mutex::new(None::<(u64, String)>);
    let limit = AtomicU64::new(seeds.end);
    scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= limit.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some((failure, _)) = Run::new(seed, Some(row.wrong)).once().failure else {
                        continue;
                    };
                    if !row.is_named_by(&failure) {
                        continue;
                    }
                    limit.fetch_min(seed, Ordering::Relaxed);
                    let line = failure.lines().next().unwrap_or_default().to_string();
                    if let Ok(mut best) = best.lock()
                        && best.as_ref().is_none_or(|(earlier, _)| seed < *earlier)
                    {
                        *best = Some((seed, line));
                    }
                }
            });
        }
    });
    best.into_inner().unwrap_or_default()
}
