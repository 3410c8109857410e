//! What the kernel is asked for that has no safe wrapper.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// SCHED_RR for the calling thread; `false` if it is not allowed.
pub(crate) fn become_real_time(priority: i32) -> bool {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the pointer is to a live value of the right type; 0 names the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) == 0 }
}

/// Locks what this process has and will have in memory; `false` if it is not allowed.
pub fn lock_memory() -> bool {
    // SAFETY: no pointer is passed.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) == 0 }
}

/// Starts a process in a session of its own, and in the cgroup of this `cgroup.procs`.
///
/// # Errors
/// If it cannot be started.
pub fn spawn_apart(command: &mut Command, cgroup: Option<File>) -> io::Result<Child> {
    let apart = move || {
        if let Some(mut processes) = cgroup.as_ref() {
            // Where the kernel does not want it, it stays in its parent's: it works there as well.
            let _ = processes.write(b"0");
        }
        match nix::unistd::setsid() {
            Ok(_) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls, write and setsid, which are async-signal-safe; it
    // takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(apart);
    }
    command.spawn()
}
