//! One file per noun.

mod both_nodes;
mod cluster;
mod completions;
pub(crate) mod config;
mod doctor;
pub(crate) mod events;
mod explain;
mod group;
mod keys;
mod man;
mod node;
mod power;
pub(crate) mod prepare;
mod push;
mod status;
pub(crate) mod timeouts;
mod together;
mod trust;
mod volume;
mod why;

use std::io::{self, Write, stdout};
use std::path::Path;

use crate::args::{Cli, Noun};
use crate::failure::Failure;

/// Prints what was asked for. A reader that went away (`| head`) has seen enough; a full disk is no success.
fn print_all(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::file(
            Path::new("standard output"),
            "write to",
            &error,
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Carries out the command line; the exit code, or why not.
pub(crate) fn run(cli: Cli) -> Result<u8, Failure> {
    match cli.noun {
        Noun::Volume(command) => volume::run(*command),
        Noun::Group(command) => group::run(command),
        Noun::Node(command) => node::run(command),
        Noun::Timeouts(command) => timeouts::run(command),
        Noun::Cluster(command) => cluster::run(command),
        Noun::Status { json, watch } => status::run(json.into(), watch.into()),
        Noun::Why { name, json } => why::run(name.as_deref(), json.into()),
        Noun::Events(command) => events::run(&command),
        Noun::Doctor { config, node, json } => doctor::run(config, node.as_deref(), json.into()),
        Noun::Completions { shell } => completions::run(shell),
        Noun::Man { directory } => man::run(&directory),
        Noun::Explain { code } => explain::run(&code),
        Noun::Config(command) => config::run(command),
    }
}
