//! `cargo vm`: test machines from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use vm_tests::binaries::Binaries;
use vm_tests::{Context, DiskMode, Scenario, image, packages, scenario, scenarios, shell};

#[derive(Parser)]
#[command(about = "Test machines for Lockstep")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing and build the image.
    Prepare,
    /// Name the scenarios.
    List,
    /// Run scenarios (all whose name begins with one of these words; without words, all).
    Run { names: Vec<String> },
    /// Boot one machine with two disks and run a script in it; ends with its exit code.
    Exec {
        /// A bash script.
        script: String,
        /// Programs for /opt/bin, which is first in the PATH.
        #[arg(long)]
        put: Vec<PathBuf>,
        /// Kill the script after so many seconds.
        #[arg(long, default_value_t = 120)]
        limit: u64,
        /// Size of each disk.
        #[arg(long, default_value_t = 256)]
        disk_mib: u64,
        /// Put Lockstep's own programs there too.
        #[arg(long)]
        product: bool,
    },
    /// Talk to a machine of `cargo demo --keep`; Ctrl-] disconnects.
    Attach {
        /// The socket that the demo printed.
        socket: PathBuf,
    },
    /// Boot one machine with two disks and talk to it; Ctrl-] ends it.
    Shell {
        /// Programs for /opt/bin.
        #[arg(long)]
        put: Vec<PathBuf>,
        /// Put Lockstep's own programs there too.
        #[arg(long)]
        product: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Task::Prepare => {
            packages::ensure()?;
            let image = image::ensure()?;
            println!("kernel {} in {}", image.release, image.kernel.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::List => {
            for Scenario { name, about, .. } in
                scenarios::all().into_iter().chain(scenarios::long())
            {
                println!("{name:32} {about}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { names } => run(&names),
        Task::Exec {
            script,
            put,
            limit,
            disk_mib,
            product,
        } => exec(&script, put, limit, disk_mib, product),
        Task::Attach { socket } => {
            shell::attach(&socket)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Shell { put, product } => {
            packages::ensure()?;
            let context = Context::new("shell")?;
            shell::talk(&context, &programs(&context, put, product)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run(names: &[String]) -> anyhow::Result<ExitCode> {
    let long = if names.is_empty() {
        Vec::new()
    } else {
        scenarios::long()
    };
    let chosen: Vec<Scenario> = scenarios::all()
        .into_iter()
        .chain(long)
        .filter(|scenario| {
            names.is_empty()
                || names
                    .iter()
                    .any(|name| scenario.name.starts_with(name.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        bail!("no such scenario; `vm list` names them");
    }
    packages::ensure()?;
    Ok(if scenario::run_all(&chosen) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn exec(
    script: &str,
    put: Vec<PathBuf>,
    limit: u64,
    disk_mib: u64,
    product: bool,
) -> anyhow::Result<ExitCode> {
    packages::ensure()?;
    let context = Context::new("exec")?;
    let size = disk_mib.checked_mul(1 << 20).context("disk size")?;
    let cluster = context
        .cluster()
        .nodes(1)
        .disk("data", size, DiskMode::Volatile)
        .disk("meta", size, DiskMode::Volatile)
        .binaries(&programs(&context, put, product)?)
        .boot()?;
    let node = cluster.machine("node1");
    let output = node
        .exec(script, Duration::from_secs(limit))
        .with_context(|| node.console_end())?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    if output.timed_out {
        eprintln!("killed after {limit} s");
    }
    Ok(ExitCode::from(u8::try_from(output.code).unwrap_or(u8::MAX)))
}

fn programs(context: &Context, put: Vec<PathBuf>, product: bool) -> anyhow::Result<Binaries> {
    let mut binaries = if product {
        context.product()?
    } else {
        Binaries::default()
    };
    binaries.files.extend(put);
    Ok(binaries)
}
