//! `cargo bench-vm`: Lockstep beside the disk itself, DRBD and md, on virtual machines.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use vm_tests::bench::{self, Options, System};
use vm_tests::binaries::target_directory;
use vm_tests::{Context, packages};

#[derive(Parser)]
#[command(
    about = "The same jobs on Lockstep, the disk itself, DRBD, md over NBD and md over NVMe/TCP, in turn",
    after_help = "Tables and figures: target/bench-vm/bench-vm.md and bench-vm.json"
)]
struct Cli {
    /// Only these systems; all, without it.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<System>,
    /// Only these jobs (write-4k-qd1, ..., pgbench); all, without it. A wrong name tells which there are.
    #[arg(long, value_delimiter = ',')]
    jobs: Vec<String>,
    /// How often each job runs on each system [5; with --quick 2].
    #[arg(long)]
    repetitions: Option<usize>,
    /// Seconds of a job [10; with --quick 4].
    #[arg(long)]
    seconds: Option<u64>,
    /// Seconds of pgbench [30; with --quick 10].
    #[arg(long)]
    pgbench_seconds: Option<u64>,
    /// Milliseconds that are added to the network's round trip, one after the other [0,2,10; with --quick 0]. Jobs that
    /// only read are run at the first one.
    #[arg(long, value_delimiter = ',')]
    round_trips: Vec<u64>,
    /// Size of each disk in MiB; each system has one on both machines.
    #[arg(long, default_value_t = 512)]
    disk_mib: u64,
    /// Where the disks' files are; the target directory without it.
    #[arg(long)]
    disks: Option<PathBuf>,
    /// Where the report is written; target/bench-vm without it.
    #[arg(long)]
    into: Option<PathBuf>,
    /// Few and short repetitions: shows that everything works.
    #[arg(long)]
    quick: bool,
}

impl Cli {
    fn options(&self) -> anyhow::Result<Options> {
        let (jobs, pgbench) = bench::choose(&self.jobs)?;
        let short = |quick, usual| if self.quick { quick } else { usual };
        let chosen = |system: &System| self.systems.is_empty() || self.systems.contains(system);
        let usual_trips = if self.quick { vec![0] } else { vec![0, 2, 10] };
        let repetitions = self.repetitions.unwrap_or(if self.quick { 2 } else { 5 });
        let seconds = self.seconds.unwrap_or(short(4, 10));
        let pgbench_seconds = self.pgbench_seconds.unwrap_or(short(10, 30));
        ensure!(
            repetitions > 0 && seconds > 0 && pgbench_seconds > 0,
            "nothing can be measured in no time"
        );
        Ok(Options {
            systems: System::ALL.into_iter().filter(chosen).collect(),
            jobs,
            pgbench,
            repetitions,
            seconds,
            pgbench_seconds,
            round_trips_ms: if self.round_trips.is_empty() {
                usual_trips
            } else {
                self.round_trips.clone()
            },
            disk_mib: self.disk_mib,
            directory: self.disks.clone(),
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let options = cli.options()?;
    packages::ensure()?;
    let directory = cli
        .into
        .unwrap_or_else(|| target_directory().join("bench-vm"));
    let context = Context::new("bench")?;
    let report = bench::run(&context, &options, directory.clone())?;
    println!("{}", report.markdown());
    println!("also in {}", directory.display());
    Ok(if report.whole() {
        ExitCode::SUCCESS
    } else {
        println!("FAILED: not everything could be measured; the reasons are above");
        ExitCode::FAILURE
    })
}
