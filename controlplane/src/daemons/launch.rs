//! How a volume's daemon is started: detached from who starts it, in a session and, where cgroup v2 is, a cgroup of its own.
//!
//! So it outlives the command and its terminal, a `lockstepd` that ends, and the end of its unit.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Places;
use crate::resources::cage::cgroup_root;
use crate::sys;

const MIRROR: &str = "ublk-mirror";
/// Beside the groups' cgroups, in which resources are killed. No group is there.
const CGROUPS: &str = "lockstep-volumes";
/// What a pipe holds, unless somebody changed it.
const SAID_BYTES_MAX: u64 = 64 * 1024;
/// What the service manager told `lockstepd` alone.
const NOT_FOR_CHILDREN: [&str; 3] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"];

/// A program of this project: beside the one that runs, else from PATH.
pub fn program(name: &str) -> Command {
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(name));
    Command::new(
        beside
            .filter(|path| path.is_file())
            .unwrap_or_else(|| PathBuf::from(name)),
    )
}

/// `ublk-mirror`.
pub fn mirror() -> Command {
    program(MIRROR)
}

/// Opens a daemon's log to append to it.
///
/// # Errors
/// Of its directory, or of itself.
pub fn open_log(path: &Path) -> Result<File, (PathBuf, io::Error)> {
    if let Some(directory) = path.parent() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(directory);
        made.map_err(|error| (directory.to_path_buf(), error))?;
    }
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o640).open(path);
    opened.map_err(|error| (path.to_path_buf(), error))
}

/// Starts the daemon of a volume. Whether it stays, and whether another one runs, is the caller's to see, who has the
/// volume's [`super::Turn`]. Without a log it has a pipe, for [`said`]: the daemon waits neither for who reads it nor ends with it.
///
/// # Errors
/// If the configuration is not there or the program cannot be run.
pub fn start(places: &Places, log: Option<File>) -> io::Result<Child> {
    // The daemon's working directory is `/`.
    let config = fs::canonicalize(places.configuration())?;
    let mut command = mirror();
    command.arg("run").arg("--config").arg(config);
    command.arg("--runtime-dir").arg(&places.run);
    for variable in NOT_FOR_CHILDREN {
        command.env_remove(variable);
    }
    let (words, errors) = match log {
        Some(log) => (log.try_clone()?.into(), log.into()),
        None => (Stdio::null(), Stdio::piped()),
    };
    command
        .stdin(Stdio::null())
        .stdout(words)
        .stderr(errors)
        .current_dir("/");
    sys::spawn_apart(&mut command, cgroup(&places.volume))
}

/// What a daemon that was started without a log has said so far, as much as a pipe holds; it says no more from here on. Never
/// waits: what the daemon began may live on with the other end.
pub fn said(child: &mut Child) -> Option<String> {
    let mut pipe = child.stderr.take()?;
    let mut bytes = Vec::new();
    if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
        // It ends at its end, or where there is no more now; what was read by then is there.
        let _ = pipe.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut bytes);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the daemon's process is to be entered, if cgroups can be had. It works without.
fn cgroup(volume: &str) -> Option<File> {
    let directory = cgroup_root()?.join(CGROUPS).join(volume);
    fs::create_dir_all(&directory).ok()?;
    let mut options = File::options();
    options
        .write(true)
        .open(directory.join("cgroup.procs"))
        .ok()
}

/// Removes what a daemon that ended has left in the kernel; `false` if something is left. Nothing rests on it.
pub fn forget(volume: &str) -> bool {
    let Some(root) = cgroup_root() else {
        return true;
    };
    let own = root.join(CGROUPS).join(volume);
    // Not while a process is in it.
    let gone = fs::remove_dir(&own).is_ok() || !own.exists();
    // Other volumes' are in this one, mostly.
    let _ = fs::remove_dir(root.join(CGROUPS));
    gone
}
