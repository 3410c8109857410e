//! A node of the benchmark: `run CONFIG DIRECTORY`, a real daemon with an application in it, or `plain FILE`. Its standard
//! input is a socket on which it is told what to do.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use lockstep_bench::front::Load;
use lockstep_bench::heap::Counting;
use lockstep_bench::{engine, plain};
use ublk_mirror::log;
use ublk_mirror::startup::{self, RunOptions, Ublk};

#[global_allocator]
static HEAP: Counting = Counting;

fn main() -> Result<(), anyhow::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["run", config, directory] => daemon(config.into(), directory.into()),
        ["plain", file] => plain::serve(file.as_ref(), control()?),
        ["engine", writes] => {
            let mut pair = engine::CorePair::new();
            pair.writes(writes.parse()?, 16);
            Ok(())
        }
        _ => anyhow::bail!(
            "bench-node run CONFIG DIRECTORY | bench-node plain FILE | bench-node engine WRITES"
        ),
    }
}

fn control() -> Result<UnixStream, anyhow::Error> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(socket.into())
}

fn daemon(config: PathBuf, directory: PathBuf) -> Result<(), anyhow::Error> {
    let _log = log::begin()?;
    let control = control()?;
    let options = RunOptions {
        config,
        runtime_dir: directory.join("run"),
        state_dir: directory.join("state"),
        ublk: Ublk::Without,
    };
    startup::run_with(&options, |superblock| {
        Load::new(control, superblock.size_sectors).expect("a socket can be made non-blocking")
    })?;
    Ok(())
}
