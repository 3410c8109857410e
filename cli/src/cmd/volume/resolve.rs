//! `lockstep volume resolve`: both sides of a split brain, and the end of one of them.

use std::io::{IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use controlplane_api::Client;
use mirror_core::admin::{Command, Done, Keep, KeepStatus};

use super::done_words;
use crate::config;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::screen::progress_bar;
use crate::size;
use crate::split;
use crate::style::Style;

/// A whole disk may have to be read first; the daemon itself gives up answering earlier.
const LIMIT: Duration = Duration::from_secs(49 * 3600);
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// To the line's beginning, and clear it.
const CLEAR_LINE: &str = "\r\x1b[K";

/// Without a node to discard it only shows.
pub(crate) fn show(name: &str) -> Result<u8, Failure> {
    config::path_of(name)?;
    let status = Client::of_volume(name)
        .status()
        .map_err(|error| Failure::of_volume(&error, name))?;
    let Some(found) = &status.split else {
        return Err(Failure::new(
            "LS1060",
            format!(
                "no split brain is known: {} and {} have not met with two histories since the daemon started",
                status.node, status.peer
            ),
            format!("let the two nodes connect, then look at `lockstep volume status {name}`"),
        ));
    };
    print!("{}", split::both_sides(found, Style::of_stdout()));
    print!("{}", split::choice(found, name));
    Ok(0)
}

/// What the command line says of the blocks.
pub(crate) fn keep(file: Option<&Path>, none: bool) -> Result<Keep, Failure> {
    let Some(file) = file else {
        return Ok(if none { Keep::No } else { Keep::Usual });
    };
    // The daemon's working directory is another one.
    let path = std::path::absolute(file).map_err(|error| Failure::file(file, "find", &error))?;
    let text = path.into_os_string().into_string();
    text.map(Keep::File).map_err(|path| {
        let path = PathBuf::from(path);
        let error = std::io::Error::other("its name is not UTF-8");
        Failure::file(&path, "name", &error)
    })
}

pub(crate) fn discard(
    name: &str,
    discard: String,
    confirm: String,
    keep: Keep,
) -> Result<u8, Failure> {
    config::path_of(name)?;
    let client = Client::of_volume(name);
    let command = Command::Resolve {
        discard,
        confirm,
        keep,
    };
    let resolve = || client.resolve(command.clone(), LIMIT);
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| patiently(name, resolve));
        while !asked.is_finished() {
            progress(&client);
            thread::sleep(POLL_INTERVAL);
        }
        asked.join()
    });
    if stderr().is_terminal() {
        eprint!("{CLEAR_LINE}");
    }
    let answer = answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let kept = answer.map_err(|error| Failure::of_volume(&error, name))?;
    println!("{}", done_words(name, Done::Discarded));
    match kept {
        Some(kept) => println!(
            "what only this side had, {}, is kept in {}; `lockstep volume discarded show {}` says more",
            size::bytes(kept.kept_bytes),
            kept.file,
            kept.file
        ),
        None => println!("what only this side had is lost with it: nothing was kept"),
    }
    Ok(0)
}

/// While blocks are kept, how far that is.
fn progress(client: &Client) {
    if !stderr().is_terminal() {
        return;
    }
    if let Some(keeping) = client.status().ok().and_then(|status| status.keeping) {
        eprint!("{CLEAR_LINE}keeping  {}", bar(&keeping));
        let _ = stderr().flush();
    }
}

fn bar(keeping: &KeepStatus) -> String {
    progress_bar(keeping.done_bytes, keeping.total_bytes, 0, None)
}
