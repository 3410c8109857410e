//! The programs of the data plane and the control plane, and the log of the first.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use controlplane_api::paths::{RUN_DIRECTORY_VARIABLE, run_directory};

use crate::failure::Failure;

const MIRROR: &str = "ublk-mirror";
const DAEMON: &str = "lockstepd";
/// Names the directory of the daemons' logs instead of [`LOG_DIRECTORY`].
const LOG_DIRECTORY_VARIABLE: &str = "LOCKSTEP_LOG_DIR";
const LOG_DIRECTORY: &str = "/var/log/lockstep";
/// Lines of a log that are shown when a daemon ends at its start.
const LOG_TAIL_LINES: usize = 12;

/// `ublk-mirror`: beside this program, else from PATH.
pub(crate) fn mirror() -> Command {
    program(MIRROR)
}

/// `lockstepd`, found in the same way.
pub(crate) fn daemon() -> Command {
    program(DAEMON)
}

fn program(name: &str) -> Command {
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(name));
    Command::new(
        beside
            .filter(|path| path.is_file())
            .unwrap_or_else(|| PathBuf::from(name)),
    )
}

/// Tells the program where the sockets are, if the environment moves them.
pub(crate) fn with_run_directory(command: &mut Command) {
    if env::var_os(RUN_DIRECTORY_VARIABLE).is_some() {
        command.arg("--runtime-dir").arg(run_directory());
    }
}

/// It could not be started at all.
pub(crate) fn not_found(error: &std::io::Error) -> Failure {
    cannot_run(MIRROR, error)
}

/// `lockstepd` could not be started at all.
pub(crate) fn no_daemon(error: &std::io::Error) -> Failure {
    cannot_run(DAEMON, error)
}

fn cannot_run(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        "LS4008",
        format!("cannot run {name}: {error}"),
        format!("install {name} beside `lockstep` or in PATH"),
    )
}

/// Where the daemon of `volume` writes.
pub(crate) fn log_path(volume: &str) -> PathBuf {
    let directory = env::var_os(LOG_DIRECTORY_VARIABLE);
    directory
        .map_or_else(|| PathBuf::from(LOG_DIRECTORY), PathBuf::from)
        .join(format!("{volume}.log"))
}

/// Opens the log to append to it.
pub(crate) fn open_log(path: &Path) -> Result<File, Failure> {
    if let Some(directory) = path.parent() {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory);
        made.map_err(|error| Failure::file(directory, "make", &error))?;
    }
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path);
    opened.map_err(|error| Failure::file(path, "open", &error))
}

/// The last lines that were written to the log from byte `start` on.
pub(crate) fn log_tail(path: &Path, start: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[start..]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
