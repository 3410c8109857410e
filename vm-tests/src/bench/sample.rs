//! One job on one system, and what it cost while it ran.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use crate::bench::bed::Bed;
use crate::bench::fio;
use crate::bench::jobs::Job;
use crate::bench::systems::Ready;
use crate::machine::{Machine, Running};
use crate::wait::wait_until;

/// A job is started and ended in this time beside its own.
const START_LIMIT: Duration = Duration::from_secs(60);
const SECTOR_BYTES: u64 = 512;
/// A file of `/proc` or `/sys`.
const TEXT_BYTES: usize = 64 << 10;
/// Of a job's time so much is looked at: its start is left out, and so is its end.
const WINDOW_PERCENT: u64 = 80;

/// What it cost, for each operation; first the node that is used, then the other one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Processor time of the host.
    pub cpu_us: [f64; 2],
    /// Context switches of the guest's kernel.
    pub switches: [f64; 2],
    /// Part of the time in which the machine's processor waited for one of the host: how busy the host was with other work.
    pub waited: [f64; 2],
    /// Operations a second by the host's clock, of the device's own counters. Beside the job's own figure it shows a clock
    /// that is wrong.
    pub operations_per_s: f64,
}

/// Counters at a moment.
struct Moment {
    at: Instant,
    cpu: [Duration; 2],
    delay: [Duration; 2],
    switches: [u64; 2],
    bytes: u64,
}

impl Moment {
    fn now(bed: &Bed, block: &str) -> anyhow::Result<Self> {
        let nodes = [bed.one(), bed.two()];
        let [one, two] = nodes;
        let bytes = device_bytes(one, block)?;
        let switches = [switches(one)?, switches(two)?];
        Ok(Self {
            at: Instant::now(),
            cpu: [one.host_cpu()?, two.host_cpu()?],
            delay: [one.host_delay()?, two.host_delay()?],
            switches,
            bytes,
        })
    }

    /// Since an earlier moment; `operations` counts them where the device's bytes do not.
    fn since(&self, before: &Self, operations: impl Fn(f64, u64) -> f64) -> anyhow::Result<Cost> {
        let seconds = (self.at - before.at).as_secs_f64();
        let operations = operations(seconds, self.bytes - before.bytes);
        ensure!(operations > 0.0, "nothing was done while it was looked at");
        let each = |index: usize| {
            let cpu = (self.cpu[index] - before.cpu[index]).as_secs_f64() * 1e6;
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
            let switches = (self.switches[index] - before.switches[index]) as f64;
            let waited = (self.delay[index] - before.delay[index]).as_secs_f64();
            (cpu / operations, switches / operations, waited / seconds)
        };
        let (one, two) = (each(0), each(1));
        Ok(Cost {
            cpu_us: [one.0, two.0],
            switches: [one.1, two.1],
            waited: [one.2, two.2],
            operations_per_s: operations / seconds,
        })
    }
}

fn text(node: &Machine, path: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&node.get(path, 0, TEXT_BYTES)?).into_owned())
}

/// What was read from a device and written to it since it is there.
fn device_bytes(node: &Machine, block: &str) -> anyhow::Result<u64> {
    let stat = text(node, &format!("/sys/block/{block}/stat"))?;
    sectors(&stat)
        .map(|sectors| sectors * SECTOR_BYTES)
        .with_context(|| format!("counters of {block}: {stat:?}"))
}

/// The third number counts sectors read, the seventh those written.
fn sectors(stat: &str) -> Option<u64> {
    let mut words = stat.split_whitespace();
    let read: u64 = words.nth(2)?.parse().ok()?;
    let written: u64 = words.nth(3)?.parse().ok()?;
    Some(read + written)
}

fn switches(node: &Machine) -> anyhow::Result<u64> {
    let stat = text(node, "/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("ctxt "));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.context("no ctxt in /proc/stat")
}

/// Looks at a job from its first operation on, while it runs.
///
/// # Errors
/// If it does not begin, or ends too early.
pub(crate) fn watch(
    bed: &Bed,
    block: &str,
    running: &mut Running,
    seconds: u64,
    operations: impl Fn(f64, u64) -> f64,
) -> anyhow::Result<Cost> {
    let idle = device_bytes(bed.one(), block)?;
    wait_until(START_LIMIT, "the first operation of a job", || {
        // It says so where the job ended.
        running.stdout_so_far()?;
        Ok(device_bytes(bed.one(), block)? > idle)
    })?;
    let before = Moment::now(bed, block)?;
    let window = Duration::from_millis(seconds * 10 * WINDOW_PERCENT);
    std::thread::sleep(window);
    Moment::now(bed, block)?.since(&before, operations)
}

/// Runs a job of fio on a system.
///
/// # Errors
/// If it fails.
pub(crate) fn run(
    bed: &Bed,
    ready: &Ready,
    job: &Job,
    seconds: u64,
) -> anyhow::Result<(fio::Result, Cost)> {
    let one = bed.one();
    let command = job.command(&ready.device, seconds);
    let mut running = one.spawn(&command, START_LIMIT + Duration::from_secs(2 * seconds))?;
    let cost = watch(bed, &ready.block, &mut running, seconds, |_, bytes| {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let operations = bytes as f64 / job.block_bytes as f64;
        operations
    })?;
    let output = running.wait()?;
    if !output.ok() {
        bail!("{command}: {output:?}");
    }
    let result = fio::parse(&output.stdout).with_context(|| command)?;
    Ok((result, cost))
}

/// Processor time that each machine takes while nobody does anything, in milliseconds for each second.
///
/// # Errors
/// If one is gone.
pub(crate) fn idle(bed: &Bed, window: Duration) -> anyhow::Result<[f64; 2]> {
    let cpu =
        || -> anyhow::Result<[Duration; 2]> { Ok([bed.one().host_cpu()?, bed.two().host_cpu()?]) };
    let before = cpu()?;
    let start = Instant::now();
    std::thread::sleep(window);
    let after = cpu()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok([0, 1].map(|index: usize| (after[index] - before[index]).as_secs_f64() * 1e3 / seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_read_and_written_are_added() {
        let stat = "     100        7      800     40      5      0       24      3   0  9 9 0 0 0 0 1 1\n";
        assert_eq!(sectors(stat), Some(824));
        assert_eq!(sectors("1 2 3"), None);
    }

    #[test]
    fn costs_are_for_each_operation_of_each_machine() {
        let at = Instant::now();
        let moment = |seconds: u64, factor: u32| Moment {
            at: at + Duration::from_secs(seconds),
            cpu: [Duration::from_millis(100), Duration::from_millis(50)].map(|cpu| cpu * factor),
            delay: [Duration::from_millis(400), Duration::ZERO].map(|delay| delay * factor),
            switches: [1000, 3000].map(|switches| switches * u64::from(factor)),
            bytes: 4_096_000 * u64::from(factor),
        };
        let cost = moment(2, 2).since(&moment(0, 1), |_, bytes| (bytes / 4096) as f64);
        let expected = Cost {
            cpu_us: [100.0, 50.0],
            switches: [1.0, 3.0],
            waited: [0.2, 0.0],
            operations_per_s: 500.0,
        };
        assert_eq!(cost.unwrap(), expected);
        assert!(moment(1, 1).since(&moment(0, 1), |_, _| 0.0).is_err());
    }
}
