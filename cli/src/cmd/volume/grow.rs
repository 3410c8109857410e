//! `lockstep volume grow`: a larger volume, on both nodes or on none.

use std::time::Duration;

use controlplane_api::Client;
use mirror_core::admin::{Command, Done, Status};

use crate::config;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::size;

/// The new area is filled with zeroes first, on both nodes: the daemon itself gives up answering earlier.
const LIMIT: Duration = Duration::from_secs(620);

pub(crate) fn run(name: &str, size_bytes: Option<u64>) -> Result<u8, Failure> {
    config::path_of(name)?;
    let client = Client::of_volume(name);
    let failed = |error| Failure::of_volume(&error, name);
    let grow = || client.command_within(Command::Grow { size_bytes }, LIMIT);
    let done = patiently(name, grow).map_err(failed)?;
    let status = client.status().map_err(failed)?;
    println!("{}", words(name, done, &status));
    Ok(0)
}

/// What was done, and what users of the device see of it.
fn words(name: &str, done: Done, status: &Status) -> String {
    let size = size::bytes(status.size_bytes);
    let what = if done == Done::AlreadyGrown {
        format!("{name} had {size} already")
    } else {
        format!("{name} has {size} now, on both nodes")
    };
    match status.device_size_bytes {
        Some(shown) if shown < status.size_bytes => format!(
            "{what}\n\
             the live device still shows {}, because this kernel cannot resize it: to use all of it, stop its users,\n  \
             lockstep volume deactivate {name} && lockstep volume activate {name}\n\
             then enlarge the file system",
            size::bytes(shown)
        ),
        Some(_) => format!("{what}; the live device shows it: enlarge the file system"),
        None => what,
    }
}
