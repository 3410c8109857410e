//! The programs of the data plane and the control plane, and the log of the first.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use controlplane::daemons::stopped::{StoppedError, Turn};
use controlplane::daemons::{Places, launch};
use controlplane_api::paths::{RUN_DIRECTORY_VARIABLE, run_directory};
use mirror_core::admin::Problem;

use crate::config;
use crate::failure::Failure;

const MIRROR: &str = "ublk-mirror";
const DAEMON: &str = "lockstepd";
/// Lines of a log that are shown when a daemon ends at its start.
const LOG_TAIL_LINES: usize = 12;
/// Somebody else's start or stop of the same volume is over by then; `lockstepd`'s own limit for a start is shorter.
const TURN_LIMIT: Duration = Duration::from_secs(40);

/// `ublk-mirror`: beside this program, else from PATH.
pub(crate) fn mirror() -> Command {
    launch::program(MIRROR)
}

/// `lockstepd`, found in the same way.
pub(crate) fn daemon() -> Command {
    launch::program(DAEMON)
}

/// Where the daemon of `volume` has its files.
pub(crate) fn places(volume: &str) -> Places {
    Places::of(volume, &config::directory())
}

/// Waits while somebody else starts, stops or makes the same volume.
pub(crate) fn turn(places: &Places) -> Result<Turn, Failure> {
    Ok(Turn::take(places, TURN_LIMIT)?)
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

/// What `ublk-mirror` refused: `ublk-mirror: LS3017: what` and, in a line of its own, `what to do: advice`.
pub(crate) fn refusal(said: &str) -> Option<Problem> {
    let (code, message) = said.lines().find_map(|line| {
        let parts = line.strip_prefix("ublk-mirror: ")?.split_once(": ")?;
        parts.0.starts_with("LS").then_some(parts)
    })?;
    let advice = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("what to do: "));
    Some(Problem {
        code: code.to_string(),
        message: message.to_string(),
        advice: advice.unwrap_or_default().to_string(),
    })
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

/// Opens the log to append to it. A daemon runs without one as well: `/var/log` may be full or read-only just when a volume is
/// needed.
pub(crate) fn open_log(path: &Path) -> Option<File> {
    launch::open_log(path)
        .map_err(|(path, error)| {
            let path = path.display();
            eprintln!("LS6123: the daemon has no log: cannot open {path}: {error}");
        })
        .ok()
}

impl From<StoppedError> for Failure {
    fn from(error: StoppedError) -> Self {
        Self::from(Problem {
            code: error.code().to_string(),
            message: error.to_string(),
            advice: error.advice().to_string(),
        })
    }
}

/// Why a daemon of `places` ended: its last lines, in its log from byte `log_start` on; or if it was started without one, or its log
/// took nothing, how they can be seen.
pub(crate) fn why_it_ended(places: &Places, daemon: &mut Child, log_start: u64) -> String {
    let path = places.log();
    let (lines, from) = match launch::said(daemon) {
        Some(said) => (last_lines(&said), "it has no log".to_string()),
        None => (
            log_tail(&path, log_start),
            format!("from {}", path.display()),
        ),
    };
    if lines.is_empty() {
        return format!(
            "why is not in {}: it could not be written, or the daemon said nothing; run it by hand to see it: \
             {MIRROR} run --config {}",
            path.display(),
            places.configuration().display()
        );
    }
    format!("{lines}\n({from})")
}

/// The last lines that were written to the log from byte `start` on.
fn log_tail(path: &Path, start: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    last_lines(&String::from_utf8_lossy(&bytes[start..]))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
