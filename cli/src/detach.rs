//! Starts a daemon that outlives the command and its terminal.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Starts `command` in a session of its own, with its output in `log`.
pub(crate) fn spawn_detached(command: &mut Command, log: File) -> io::Result<Child> {
    let errors = log.try_clone()?;
    command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .current_dir("/");
    // SAFETY: between fork and exec the closure makes one system call, setsid, which is
    // async-signal-safe; it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| match nix::unistd::setsid() {
            Ok(_) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno as i32)),
        });
    }
    command.spawn()
}
