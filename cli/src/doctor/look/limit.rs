//! Looks that end. What may wait for a disk or a network file system that does not answer is done in a thread of its own, and
//! left behind when its time is over.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;

use crate::doctor::facts::Seen;

/// A program that is asked something has so long; one that reads a stuck disk does not come back.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A file, a directory, a file system has so long.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How often is seen whether a program has ended whose words are all there.
const END_POLL: Duration = Duration::from_millis(5);
/// Nobody says more than some lines.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// No file of ours is longer.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What `look` finds within [`LOOK_LIMIT`].
pub(super) fn soon<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Seen<T> {
    within(LOOK_LIMIT, look)
}

pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Seen<T> {
    let (sender, found) = mpsc::channel();
    let run = move || {
        // Nobody listens any more once the time is over.
        let _ = sender.send(look());
    };
    let thread = thread::Builder::new().name("look".to_string());
    thread.spawn(run).map_err(|error| error.to_string())?;
    found.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("no answer within {limit:?}"),
        RecvTimeoutError::Disconnected => "the look at it broke off".to_string(),
    })
}

/// Opens a regular file and nothing else: a pipe would be waited for, and a device can be changed by that alone.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let regular = |found: &fs::Metadata| match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        )),
    };
    regular(&fs::metadata(path)?)?;
    // Between the two looks it may have become a pipe.
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// The text of a regular file.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// What a program says within [`ANSWER_LIMIT`]. Where it is is looked for in that time as well.
pub(super) fn answer(command: impl FnOnce() -> Command + Send + 'static) -> Seen<Output> {
    answer_within(ANSWER_LIMIT, command)
}

pub(super) fn answer_within(
    limit: Duration,
    command: impl FnOnce() -> Command + Send + 'static,
) -> Seen<Output> {
    let until = Instant::now() + limit;
    let late = || format!("no answer within {limit:?}");
    let start = move || {
        let mut command = command();
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn()
    };
    let started = within(limit, start).map_err(|_| late())?;
    let mut child = started.map_err(|error| error.to_string())?;
    let pipes = (child.stdout.take(), child.stderr.take());
    let read = move || all_of(pipes.0).and_then(|stdout| Ok((stdout, all_of(pipes.1)?)));
    let left = until.saturating_duration_since(Instant::now());
    let said = within(left, read);
    let ended = match said {
        Ok(_) => end_of(&mut child, until)?,
        Err(_) => None,
    };
    let (Ok(said), Some(status)) = (said, ended) else {
        // Not waited for: what waits for a stuck disk does not end by that either.
        let _ = child.kill();
        return Err(late());
    };
    let (stdout, stderr) = said.map_err(|error| error.to_string())?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// How it ended, if it did. It may have said all and go on, such as in the last close of a disk.
fn end_of(child: &mut Child, until: Instant) -> Seen<Option<std::process::ExitStatus>> {
    loop {
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() || Instant::now() >= until {
            return Ok(ended);
        }
        thread::sleep(END_POLL);
    }
}

fn all_of(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
