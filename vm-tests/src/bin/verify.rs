//! `cargo verify`: everything that must hold, from formatting to power cuts. The test command.

use std::process::ExitCode;

use clap::Parser;
use vm_tests::verify::{self, Extent};

#[derive(Parser)]
#[command(
    about = "Formatting, lints, unit and property tests, simulator, scenarios on virtual machines"
)]
struct Cli {
    /// The long scenarios and many more simulated schedules as well.
    #[arg(long)]
    all: bool,
    /// Only the steps and scenarios whose name begins with one of these.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let extent = if cli.all { Extent::All } else { Extent::Quick };
    let tally = verify::run(extent, &cli.names);
    // The last line is what continuous integration reads.
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
