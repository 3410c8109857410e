//! `cargo demo`: a power cut in the middle of a database, told as a story.

use std::process::ExitCode;

use clap::Parser;
use vm_tests::demo::{self, AfterTheEnd};
use vm_tests::packages;

#[derive(Parser)]
#[command(
    about = "Two servers and a witness, PostgreSQL on a mirrored volume, a power cut: nothing is lost"
)]
struct Cli {
    /// Leave the machines up and print how to get a shell.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let after = if cli.keep {
        AfterTheEnd::Keep
    } else {
        AfterTheEnd::Leave
    };
    match packages::ensure().and_then(|()| demo::run(after)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nVERDICT: the demo failed.\n{error:#}");
            ExitCode::FAILURE
        }
    }
}
