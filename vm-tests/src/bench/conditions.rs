//! Where and how it was measured.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::bench::Options;
use crate::binaries::workspace;
use crate::image::{self, cache_directory};
use crate::process;

const LIMIT: Duration = Duration::from_secs(20);

/// The machine, its kernel, the commit, and what was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Conditions {
    /// Of the source; `+` behind it if files differ.
    pub commit: String,
    /// Seconds since 1970.
    pub began: u64,
    /// Model of the host's processor.
    pub processor: String,
    /// How many the host has.
    pub processors: usize,
    /// The host's kernel.
    pub host_kernel: String,
    /// The machines' kernel.
    pub guest_kernel: String,
    /// QEMU's version, and how it runs the machines.
    pub machines: String,
    /// Load averages of the host before.
    pub load_before: String,
    /// And afterwards.
    pub load_after: String,
    /// How often each job was run on each system.
    pub repetitions: usize,
    /// For so long.
    pub seconds: u64,
    /// And pgbench.
    pub pgbench_seconds: u64,
    /// Size of each disk.
    pub disk_mib: u64,
    /// Where their files are.
    pub disks: String,
}

impl Conditions {
    /// As they are now.
    ///
    /// # Errors
    /// If there is no image.
    pub fn now(options: &Options) -> anyhow::Result<Self> {
        let image = image::ensure()?;
        let accelerator = fs::read_to_string(cache_directory().join("accelerator"));
        let qemu = said(Command::new("qemu-system-x86_64").arg("--version"));
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let directory = options.directory.as_ref();
        Ok(Self {
            commit: commit(),
            began: time.map_or(0, |time| time.as_secs()),
            processor: processor(&read("/proc/cpuinfo")),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            host_kernel: read("/proc/sys/kernel/osrelease"),
            guest_kernel: image.release,
            machines: format!(
                "{}, {}, one processor each",
                qemu.lines().next().unwrap_or("QEMU of an unknown version"),
                accelerator.unwrap_or_else(|_| "unknown accelerator".to_owned())
            ),
            load_before: loads(),
            load_after: String::new(),
            repetitions: options.repetitions,
            seconds: options.seconds,
            pgbench_seconds: options.pgbench_seconds,
            disk_mib: options.disk_mib,
            disks: directory.map_or_else(
                || "files in cargo's target directory".to_owned(),
                |directory| format!("files in {}", directory.display()),
            ),
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn said(command: &mut Command) -> String {
    process::run(command, LIMIT)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn commit() -> String {
    let git = |words: &[&str]| said(Command::new("git").args(words).current_dir(workspace()));
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() {
        ""
    } else {
        "+"
    };
    format!("{}{changed}", git(&["rev-parse", "--short=12", "HEAD"]))
}

fn processor(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| "unknown".to_owned())
}

/// The host's load averages over one, five and fifteen minutes.
pub(crate) fn loads() -> String {
    let text = read("/proc/loadavg");
    let words: Vec<&str> = text.split(' ').take(3).collect();
    words.join(" ")
}

/// The one over a minute.
pub(crate) fn load() -> f64 {
    let text = loads();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\nmodel name\t: other\n";
        assert_eq!(processor(text), "AMD EPYC");
        assert_eq!(processor(""), "unknown");
    }
}
