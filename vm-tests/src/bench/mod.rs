//! `cargo bench-vm`: Lockstep beside the disk itself, DRBD and md, on the same machines with equal disks.
//!
//! All systems are set up at once, each on disks of its own, and every job goes to all of them in turn, so that what the host does
//! meanwhile meets all alike. What cannot be measured is told, and makes the command fail.

mod bed;
mod conditions;
mod fio;
mod jobs;
mod pgbench;
mod report;
mod sample;
mod systems;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

pub use bed::Bed;
pub use conditions::Conditions;
pub use jobs::{JOBS, Job, PGBENCH, Unit, choose};
pub use report::{Delay, Missed, Report, Sample, SetUp};
pub use systems::{Ready, System};

use crate::machine::Power;
use crate::progress::{self, say};
use crate::scenario::Context;
use sample::Cost;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which systems.
    pub systems: Vec<System>,
    /// Which jobs of fio.
    pub jobs: Vec<Job>,
    /// Whether pgbench comes after them.
    pub pgbench: bool,
    /// How often each job is run on each system.
    pub repetitions: usize,
    /// How long each time.
    pub seconds: u64,
    /// How long pgbench runs each time.
    pub pgbench_seconds: u64,
    /// What is added to the network's round trip, one after the other.
    pub round_trips_ms: Vec<u64>,
    /// Size of each disk.
    pub disk_mib: u64,
    /// Where the disks' files are.
    pub directory: Option<PathBuf>,
}

const IDLE_WINDOW: Duration = Duration::from_secs(3);
const FILL_LIMIT: Duration = Duration::from_secs(600);

/// A run that goes on.
struct Run<'a> {
    options: &'a Options,
    bed: Bed,
    /// Those that could be set up, in the order of the tables.
    ready: Vec<(System, Ready)>,
    report: Report,
    /// Where the report is written after each round: a run that is broken off has told what it found.
    directory: PathBuf,
}

/// Measures, and writes the report into `directory` as JSON and as Markdown.
///
/// # Errors
/// If the machines do not boot, or go away.
pub fn run(context: &Context, options: &Options, directory: PathBuf) -> anyhow::Result<Report> {
    let bed = Bed::boot(
        context,
        &options.systems,
        options.disk_mib,
        options.directory.as_ref(),
    )?;
    // Only now is it known how the machines are run.
    let conditions = Conditions::now(options)?;
    let mut run = Run {
        options,
        bed,
        ready: Vec::new(),
        report: Report::new(conditions),
        directory,
    };
    run.set_up()?;
    for round_trip_ms in &options.round_trips_ms {
        run.jobs(*round_trip_ms)?;
    }
    if options.pgbench {
        run.bed.delay(0)?;
        let databases = run.databases()?;
        for round_trip_ms in &options.round_trips_ms {
            run.pgbench(*round_trip_ms, &databases)?;
        }
    }
    run.report.ended();
    run.report.write(&run.directory)?;
    Ok(run.report)
}

impl Run<'_> {
    /// Each system, then content on all of it.
    fn set_up(&mut self) -> anyhow::Result<()> {
        for system in &self.options.systems {
            let step = progress::step(format!("setting up {}", system.title()));
            let start = Instant::now();
            let mut copied = Duration::ZERO;
            let outcome = system.set_up(&self.bed).and_then(|ready| {
                copied = start.elapsed();
                self.fill(&ready).map(|()| ready)
            });
            let filled = start.elapsed() - copied;
            let (version, failed) = match outcome {
                Ok(ready) => {
                    step.done();
                    let version = ready.version.clone();
                    self.ready.push((*system, ready));
                    (version, None)
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    step.done_with(&format!("FAILED: {reason}"));
                    (String::new(), Some(reason))
                }
            };
            self.alive()?;
            self.report.systems.push(SetUp {
                system: system.title(),
                version,
                copied_s: copied.as_secs_f64(),
                filled_s: filled.as_secs_f64(),
                failed,
            });
        }
        Ok(())
    }

    /// Writes every block once: nothing is read that was never written, and nothing is written for the first time.
    fn fill(&self, ready: &Ready) -> anyhow::Result<()> {
        let command = format!(
            "fio --name=fill --filename={} --ioengine=libaio --direct=1 --rw=write --bs=1m --iodepth=4 --end_fsync=1",
            ready.device
        );
        let output = self.bed.one().exec(&command, FILL_LIMIT)?;
        ensure!(output.ok(), "{command}: {output:?}");
        self.bed.settle()
    }

    /// A machine that is gone ends the whole run: nothing that follows would be true.
    fn alive(&self) -> anyhow::Result<()> {
        for node in [self.bed.one(), self.bed.two()] {
            ensure!(
                node.power() == Power::On,
                "{} went off; its console ends with\n{}",
                node.name(),
                node.console_end()
            );
        }
        Ok(())
    }

    fn delay(&mut self, round_trip_ms: u64) -> anyhow::Result<()> {
        let ping_ms = self.bed.delay(round_trip_ms)?;
        say(format!(
            "round trip of {round_trip_ms} ms added; a ping takes {ping_ms:.2} ms"
        ));
        let idle_ms_per_s = sample::idle(&self.bed, IDLE_WINDOW)?;
        self.report.delays.push(Delay {
            round_trip_ms,
            ping_ms,
            idle_ms_per_s,
        });
        Ok(())
    }

    /// All jobs of fio at one round trip.
    fn jobs(&mut self, round_trip_ms: u64) -> anyhow::Result<()> {
        let first = self.options.round_trips_ms.first() == Some(&round_trip_ms);
        // All of them read from this node's disk: the network is in none of these figures.
        let tells = |job: &&Job| first || !job.only_reads();
        let jobs: Vec<Job> = self.options.jobs.iter().filter(tells).copied().collect();
        if jobs.is_empty() {
            return Ok(());
        }
        self.delay(round_trip_ms)?;
        let seconds = self.options.seconds;
        for repetition in 1..=self.options.repetitions {
            for (number, job) in jobs.iter().enumerate() {
                for (system, ready) in in_turn(&self.ready, repetition + number) {
                    let outcome = sample::run(&self.bed, &ready, job, seconds)
                        .and_then(|(result, cost)| Ok((result, cost, self.bed.settle()?)))
                        .map(|(result, cost, ())| (job.figure(&result), Some(result), cost));
                    self.take(
                        round_trip_ms,
                        repetition,
                        (job.name, job.unit),
                        system,
                        outcome,
                    )?;
                }
            }
            self.report.write(&self.directory)?;
        }
        self.all_whole(round_trip_ms)
    }

    /// Notes a figure, or why there is none.
    fn take(
        &mut self,
        round_trip_ms: u64,
        repetition: usize,
        (job, unit): (&'static str, Unit),
        system: System,
        outcome: anyhow::Result<(f64, Option<fio::Result>, Cost)>,
    ) -> anyhow::Result<()> {
        let title = system.title();
        match outcome {
            Ok((figure, fio, cost)) => {
                say(format!(
                    "+{round_trip_ms} ms, round {repetition}: {job} on {title}: {figure:.0} {}",
                    unit.name()
                ));
                self.report.samples.push(Sample {
                    round_trip_ms,
                    repetition,
                    job,
                    system: title,
                    figure,
                    fio,
                    cost,
                    host_load: conditions::load(),
                });
            }
            Err(error) => {
                say(format!("{job} on {title}: MISSED: {error:#}"));
                self.alive()?;
                self.report.missed.push(Missed {
                    round_trip_ms,
                    repetition,
                    job,
                    system: title,
                    reason: format!("{error:#}"),
                });
            }
        }
        Ok(())
    }

    /// A mirror that is not whole at the end has lost its other half at some time: its figures do not count.
    fn all_whole(&mut self, round_trip_ms: u64) -> anyhow::Result<()> {
        for (system, _) in self.ready.clone() {
            if let Err(error) = system.whole(&self.bed) {
                self.alive()?;
                self.report
                    .drop_samples(round_trip_ms, system.title(), &format!("{error:#}"));
                self.ready.retain(|(other, _)| *other != system);
            }
        }
        Ok(())
    }

    /// Makes the database on each; which have it.
    fn databases(&mut self) -> anyhow::Result<BTreeSet<&'static str>> {
        let mut made = BTreeSet::new();
        let mut template = None;
        for (system, ready) in self.ready.clone() {
            let step = progress::step(format!("making a database on {}", system.title()));
            match pgbench::make(&self.bed, system, &ready, template) {
                Ok(()) => {
                    step.done();
                    made.insert(system.title());
                    template = template.or(Some(system));
                }
                Err(error) => {
                    step.done_with("FAILED");
                    self.take(0, 0, (PGBENCH, Unit::Transactions), system, Err(error))?;
                }
            }
        }
        Ok(made)
    }

    fn pgbench(
        &mut self,
        round_trip_ms: u64,
        databases: &BTreeSet<&'static str>,
    ) -> anyhow::Result<()> {
        self.delay(round_trip_ms)?;
        let seconds = self.options.pgbench_seconds;
        for repetition in 1..=self.options.repetitions {
            for (system, ready) in in_turn(&self.ready, repetition) {
                if !databases.contains(system.title()) {
                    continue;
                }
                let outcome = pgbench::run(&self.bed, system, &ready, seconds)
                    .and_then(|(rate, cost)| Ok((rate, None, cost, self.bed.settle()?)))
                    .map(|(rate, fio, cost, ())| (rate, fio, cost));
                let job = (PGBENCH, Unit::Transactions);
                self.take(round_trip_ms, repetition, job, system, outcome)?;
            }
            self.report.write(&self.directory)?;
        }
        self.all_whole(round_trip_ms)
    }
}

/// All of them, another one first each time, and backwards every other time: none always comes after the same one.
fn in_turn<T: Clone>(all: &[T], turn: usize) -> Vec<T> {
    let first = if all.is_empty() { 0 } else { turn % all.len() };
    let mut order = [&all[first..], &all[..first]].concat();
    if !turn.is_multiple_of(2) {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_once_and_none_is_left_out() {
        let all = [1, 2, 3];
        let orders: Vec<Vec<i32>> = (0..4).map(|turn| in_turn(&all, turn)).collect();
        assert_eq!(
            orders,
            [[1, 2, 3], [1, 3, 2], [3, 1, 2], [3, 2, 1]].map(Vec::from)
        );
        assert!(in_turn::<i32>(&[], 5).is_empty());
    }
}
