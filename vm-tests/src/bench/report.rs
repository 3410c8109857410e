//! What was found: as JSON, whole, and as tables for a reader.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::bench::conditions::{self, Conditions};
use crate::bench::fio;
use crate::bench::jobs::{JOBS, PGBENCH, Unit};
use crate::bench::sample::Cost;
use crate::bench::systems::System;

/// How a system was set up.
#[derive(Clone, Debug, Serialize)]
pub struct SetUp {
    /// Which.
    pub system: &'static str,
    /// Of what it is made.
    pub version: String,
    /// How long its commands and the first copy took, of disks with equal content.
    pub copied_s: f64,
    /// How long it took to write all of it once, in pieces of 1 MiB, and to flush it.
    pub filled_s: f64,
    /// Why it is not there.
    pub failed: Option<String>,
}

/// The network while something was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Delay {
    /// What was added.
    pub round_trip_ms: u64,
    /// What a ping took then.
    pub ping_ms: f64,
    /// Processor time of the host that each machine took for each second in which nobody did anything.
    pub idle_ms_per_s: [f64; 2],
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was added to the network's round trip.
    pub round_trip_ms: u64,
    /// From 1.
    pub repetition: usize,
    /// Which job.
    pub job: &'static str,
    /// On which system.
    pub system: &'static str,
    /// In the job's unit.
    pub figure: f64,
    /// What fio said, if it is one of its jobs.
    pub fio: Option<fio::Result>,
    /// What it cost.
    pub cost: Cost,
    /// The host's load over a minute, just then.
    pub host_load: f64,
}

/// A figure that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Missed {
    /// What was added to the network's round trip.
    pub round_trip_ms: u64,
    /// From 1; 0 where it never came to that.
    pub repetition: usize,
    /// Which job.
    pub job: &'static str,
    /// On which system.
    pub system: &'static str,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where and how.
    pub conditions: Conditions,
    /// The systems, in the order of the tables.
    pub systems: Vec<SetUp>,
    /// The networks.
    pub delays: Vec<Delay>,
    /// Every single figure.
    pub samples: Vec<Sample>,
    /// Every figure that is not there.
    pub missed: Vec<Missed>,
}

/// Median, minimum and maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], upper)
        } else {
            upper
        };
        Some(Self {
            median,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

fn unit(job: &str) -> Unit {
    let known = JOBS.iter().find(|known| known.name == job);
    known.map_or(Unit::Transactions, |known| known.unit)
}

/// Three digits that count.
fn digits(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, cells: &[String]) {
    line(text, cells);
    let _ = writeln!(text, "|{}", "---|".repeat(cells.len()));
}

const NOTHING: &str = "missed";

impl Report {
    /// Without figures.
    #[must_use]
    pub fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            ..Self::default()
        }
    }

    /// Notes how loaded the host was at the end.
    pub(crate) fn ended(&mut self) {
        self.conditions.load_after = conditions::loads();
    }

    /// Whether everything that was asked for is there.
    #[must_use]
    pub fn whole(&self) -> bool {
        let measured = !self.samples.is_empty() && self.missed.is_empty();
        measured && self.systems.iter().all(|system| system.failed.is_none())
    }

    /// The figures of a system at a round trip do not count, for this reason.
    pub(crate) fn drop_samples(&mut self, round_trip_ms: u64, system: &'static str, reason: &str) {
        let (dropped, kept) = std::mem::take(&mut self.samples)
            .into_iter()
            .partition(|sample| sample.round_trip_ms == round_trip_ms && sample.system == system);
        self.samples = kept;
        let dropped: Vec<Sample> = dropped;
        self.missed.extend(dropped.into_iter().map(|sample| Missed {
            round_trip_ms,
            repetition: sample.repetition,
            job: sample.job,
            system,
            reason: reason.to_owned(),
        }));
    }

    /// Writes `bench-vm.json` and `bench-vm.md`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let json = serde_json::to_string_pretty(self)?;
        for (name, text) in [("bench-vm.json", json), ("bench-vm.md", self.markdown())] {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// The tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = self.conditions_text();
        for system in &self.systems {
            let how = match &system.failed {
                Some(reason) => format!("FAILED to be set up: {reason}"),
                None => format!(
                    "{} (commands and first copy {:.0} s, then written once in {:.1} s)",
                    system.version, system.copied_s, system.filled_s
                ),
            };
            // One line of a list, whatever was said.
            let _ = writeln!(text, "* {}: {}", system.system, how.replace('\n', " "));
        }
        for (round_trip_ms, names) in self.jobs() {
            let _ = writeln!(text, "\n## Round trip +{round_trip_ms} ms\n");
            let at = |delay: &&Delay| delay.round_trip_ms == round_trip_ms;
            if let Some(delay) = self.delays.iter().find(at) {
                let [one, two] = delay.idle_ms_per_s;
                let _ = writeln!(
                    text,
                    "A ping takes {:.2} ms. While nobody does anything the machines take {one:.0} + {two:.0} ms of processor time a second.\n",
                    delay.ping_ms
                );
            }
            self.figures(&mut text, round_trip_ms, &names);
            self.ratios(&mut text, round_trip_ms, &names);
            self.costs(
                &mut text,
                (round_trip_ms, &names),
                "Processor time of the host, us for each operation, active + standby",
                |cost| cost.cpu_us,
            );
            self.costs(
                &mut text,
                (round_trip_ms, &names),
                "Context switches in the guests for each operation, active + standby",
                |cost| cost.switches,
            );
            self.costs(
                &mut text,
                (round_trip_ms, &names),
                "Percent of the time in which the machine's processor waited for one of the host, active + standby: what other work took",
                |cost| cost.waited.map(|part| part * 100.0),
            );
        }
        self.missed_text(&mut text);
        text
    }

    fn conditions_text(&self) -> String {
        let of = &self.conditions;
        let waited = self.samples.iter().map(|sample| sample.cost.waited[0]);
        let waited = Spread::of(waited.collect()).map_or(0.0, |spread| spread.median * 100.0);
        format!(
            "# bench-vm\n\nCommit {}; {} x {}, Linux {}, load {} before and {} afterwards; guests Linux {}; {}. \
             Disks of {} MiB: {}. {} repetitions of {} s, pgbench of {} s. \
             A guest's processor waited for one of the host {waited:.0} % of the time (median).\n\n",
            of.commit,
            of.processors,
            of.processor,
            of.host_kernel,
            of.load_before,
            of.load_after,
            of.guest_kernel,
            of.machines,
            of.disk_mib,
            of.disks,
            of.repetitions,
            of.seconds,
            of.pgbench_seconds
        )
    }

    /// The jobs that were tried at each round trip, in the order of the tables.
    fn jobs(&self) -> BTreeMap<u64, Vec<&'static str>> {
        let tried = self.samples.iter().map(|s| (s.round_trip_ms, s.job));
        let missed = self.missed.iter().map(|m| (m.round_trip_ms, m.job));
        let all: Vec<(u64, &str)> = tried.chain(missed).collect();
        let mut found: BTreeMap<u64, Vec<&'static str>> = BTreeMap::new();
        for (round_trip_ms, _) in &all {
            let names = JOBS.iter().map(|job| job.name).chain([PGBENCH]);
            let names = names.filter(|name| all.contains(&(*round_trip_ms, name)));
            found.insert(*round_trip_ms, names.collect());
        }
        found
    }

    fn spread(
        &self,
        round_trip_ms: u64,
        job: &str,
        system: &str,
        value: impl Fn(&Sample) -> f64,
    ) -> Option<Spread> {
        let fits = |sample: &&Sample| {
            sample.round_trip_ms == round_trip_ms && sample.job == job && sample.system == system
        };
        Spread::of(self.samples.iter().filter(fits).map(value).collect())
    }

    fn titles(&self) -> impl Iterator<Item = &'static str> {
        self.systems.iter().map(|system| system.system)
    }

    fn figures(&self, text: &mut String, round_trip_ms: u64, jobs: &[&str]) {
        let _ = writeln!(text, "Medians (minimum to maximum):\n");
        let mut cells = vec!["job".to_owned(), "unit".to_owned()];
        cells.extend(self.titles().map(str::to_owned));
        head(text, &cells);
        for job in jobs {
            let mut cells = vec![(*job).to_owned(), unit(job).name().to_owned()];
            for system in self.titles() {
                let spread = self.spread(round_trip_ms, job, system, |sample| sample.figure);
                cells.push(spread.map_or(NOTHING.to_owned(), |spread| {
                    let [median, least, most] =
                        [spread.median, spread.least, spread.most].map(digits);
                    format!("{median} ({least} to {most})")
                }));
            }
            line(text, &cells);
        }
    }

    /// Lockstep's medians by that of the best peer and by those of each other system, and those of the others by those of
    /// the disk itself.
    fn ratios(&self, text: &mut String, round_trip_ms: u64, jobs: &[&str]) {
        let [lockstep, raw] = [System::Lockstep.title(), System::Raw.title()];
        let there: Vec<&str> = self.titles().collect();
        let mut pairs = Vec::new();
        for other in there.iter().filter(|other| **other != lockstep) {
            pairs.push((lockstep, *other));
        }
        for peer in there.iter().filter(|peer| ![lockstep, raw].contains(peer)) {
            pairs.push((*peer, raw));
        }
        pairs.retain(|(one, other)| there.contains(one) && there.contains(other));
        if pairs.is_empty() {
            return;
        }
        let peers: Vec<&str> = System::ALL
            .into_iter()
            .filter(|system| system.is_peer() && there.contains(&system.title()))
            .map(System::title)
            .collect();
        let against_peers = there.contains(&lockstep) && !peers.is_empty();
        let _ = writeln!(text, "\nRatios of the medians:\n");
        let mut cells = vec!["job".to_owned()];
        if against_peers {
            cells.push(format!("{lockstep} / best peer"));
        }
        cells.extend(pairs.iter().map(|(one, other)| format!("{one} / {other}")));
        head(text, &cells);
        for job in jobs {
            let median = |system: &str| {
                let spread = self.spread(round_trip_ms, job, system, |sample| sample.figure);
                spread.map(|spread| spread.median)
            };
            let ratio = |one: Option<f64>, other: Option<f64>| match (one, other) {
                (Some(one), Some(other)) => format!("{:.2}", one / other),
                (None, _) | (_, None) => NOTHING.to_owned(),
            };
            let mut cells = vec![(*job).to_owned()];
            if against_peers {
                let found: Vec<f64> = peers.iter().filter_map(|peer| median(peer)).collect();
                let best = found.iter().copied().reduce(f64::max);
                let all = found.len() == peers.len();
                let note = if all { "" } else { " (not all peers)" };
                cells.push(format!("{}{note}", ratio(median(lockstep), best)));
            }
            for (one, other) in &pairs {
                cells.push(ratio(median(one), median(other)));
            }
            line(text, &cells);
        }
    }

    fn costs(
        &self,
        text: &mut String,
        (round_trip_ms, jobs): (u64, &[&str]),
        what: &str,
        of: impl Fn(&Cost) -> [f64; 2],
    ) {
        let _ = writeln!(text, "\n{what} (medians):\n");
        let mut cells = vec!["job".to_owned()];
        cells.extend(self.titles().map(str::to_owned));
        head(text, &cells);
        for job in jobs {
            let mut cells = vec![(*job).to_owned()];
            for system in self.titles() {
                let median = |index: usize| {
                    let spread = self.spread(round_trip_ms, job, system, |s| of(&s.cost)[index]);
                    spread.map(|spread| digits(spread.median))
                };
                cells.push(match (median(0), median(1)) {
                    (Some(one), Some(two)) => format!("{one} + {two}"),
                    (None, _) | (_, None) => NOTHING.to_owned(),
                });
            }
            line(text, &cells);
        }
    }

    fn missed_text(&self, text: &mut String) {
        if self.missed.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n## Missed\n");
        for missed in &self.missed {
            let Missed {
                round_trip_ms,
                repetition,
                job,
                system,
                reason,
            } = missed;
            let _ = writeln!(
                text,
                "* {job} on {system}, +{round_trip_ms} ms, round {repetition}: {reason}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
