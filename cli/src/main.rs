//! `lockstep`: what an administrator types.
//!
//! One file per noun under `cmd/`. Everything that is said about a volume is worked out in
//! [`verdict`] and [`screen`] from the daemon's status, without input or output, and tested there.

mod args;
mod cluster;
mod cmd;
mod codes;
mod config;
mod copies;
mod doctor;
mod events;
mod failure;
mod http;
mod kept;
mod leaving;
mod patience;
mod prepare;
mod programs;
mod screen;
mod size;
mod split;
mod style;
mod verdict;
mod verified;
mod waiting;
mod when;
mod why;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

/// The command line makes no sense (sysexits' `EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if usage { EXIT_USAGE } else { 0 });
        }
    };
    match cmd::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code)
        }
    }
}
