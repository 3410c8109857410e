//! What a scenario is, and how scenarios are run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::binaries::{self, target_directory};
use crate::cluster::ClusterBuilder;

/// One story that must come out well.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// One line: what is claimed.
    pub about: &'static str,
    /// Tells it; an error is a failure.
    pub run: fn(&Context) -> anyhow::Result<()>,
}

/// What a scenario has to work with.
pub struct Context {
    artifacts: PathBuf,
}

impl Context {
    /// For a scenario with this name.
    ///
    /// # Errors
    /// If the directory of its artifacts cannot be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let artifacts = target_directory().join("vm-artifacts").join(name);
        if artifacts.exists() {
            fs::remove_dir_all(&artifacts)
                .with_context(|| format!("clear {}", artifacts.display()))?;
        }
        fs::create_dir_all(&artifacts)?;
        Ok(Self { artifacts })
    }

    /// Where consoles and other evidence are kept.
    #[must_use]
    pub fn artifacts(&self) -> &PathBuf {
        &self.artifacts
    }

    /// Where the random choices of a scenario come from: `LOCKSTEP_SEED`, otherwise the clock. Say it.
    #[must_use]
    pub fn seed(&self) -> u64 {
        let given = std::env::var("LOCKSTEP_SEED").ok();
        given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |time| time.as_secs())
        })
    }

    /// Describes a cluster; `boot` starts it.
    #[must_use]
    pub fn cluster(&self) -> ClusterBuilder {
        ClusterBuilder::new(self.artifacts.clone())
    }

    /// Builds Lockstep for the machines (quick if nothing changed).
    ///
    /// # Errors
    /// If the build fails.
    pub fn product(&self) -> anyhow::Result<binaries::Binaries> {
        binaries::build_product()
    }
}

/// Consoles that end in a kernel panic which nobody asked for.
fn panicked_consoles(evidence: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(evidence) else {
        return Vec::new();
    };
    let panicked = |path: &PathBuf| {
        let text = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .any(|line| line.contains("Kernel panic - not syncing") && !line.contains("sysrq"))
    };
    let consoles = entries.flatten().map(|entry| entry.path());
    consoles
        .filter(panicked)
        .map(|path| path.display().to_string())
        .collect()
}

/// Runs scenarios one after another and says how each came out; true if all did well.
#[must_use]
pub fn run_all(scenarios: &[Scenario]) -> bool {
    let failed = run_each(scenarios);
    println!("{} passed, {failed} failed", scenarios.len() - failed);
    failed == 0
}

/// The same without the last line; how many failed.
#[must_use]
pub fn run_each(scenarios: &[Scenario]) -> usize {
    let mut failed = 0;
    for scenario in scenarios {
        println!("{}: {}", scenario.name, scenario.about);
        let start = Instant::now();
        let result = Context::new(scenario.name).and_then(|context| (scenario.run)(&context));
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("{}: ok ({seconds:.1} s)", scenario.name),
            Err(error) => {
                failed += 1;
                println!("{}: FAILED ({seconds:.1} s)\n  {error:#}", scenario.name);
                let evidence = target_directory().join("vm-artifacts").join(scenario.name);
                println!("  evidence: {}", evidence.display());
                for console in panicked_consoles(&evidence) {
                    println!(
                        "  the guest's kernel panicked ({console}): under emulation that may be its own doing; repeat"
                    );
                }
            }
        }
    }
    failed
}
