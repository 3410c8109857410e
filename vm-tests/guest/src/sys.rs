//! System calls that have no safe wrapper.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{io, ptr};

use anyhow::{Context, bail};

/// Loads an uncompressed module; one that is there already is fine.
pub(crate) fn load_module(path: &str) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    // SAFETY: a valid descriptor, an empty C string and no flags.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::EEXIST) {
        return Ok(());
    }
    Err(error).with_context(|| format!("load {path}"))
}

/// Syncs, then reboots or powers off.
pub(crate) fn reboot(how: libc::c_int) -> anyhow::Result<()> {
    // SAFETY: neither call takes pointers.
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    bail!("reboot: {}", io::Error::last_os_error());
}

/// Waits for any child; `None` if there is none.
pub(crate) fn reap() -> Option<libc::pid_t> {
    // SAFETY: a null status pointer is allowed.
    let pid = unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
    (pid > 0).then_some(pid)
}

/// Polls `condition` until it holds or `limit` has passed.
pub(crate) fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
