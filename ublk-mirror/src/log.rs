//! Where this program's log goes. The daemon and its device helper have a thread for it, which nobody waits for; what ends by itself
//! writes at once.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mirror_log::Ending;
use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::sys;

/// Lines of the log were dropped.
const DROPPED: &str = "LS3043";

/// For a process that stays: begins the thread. What it gives back must be kept until the process ends.
///
/// # Errors
/// There is no thread or descriptor to be had.
pub fn begin() -> io::Result<Ending> {
    let error = mirror_log::standard_error()?;
    let kept = error.as_raw_fd();
    // The thread begins with all of them blocked: one that ends the daemon has to come to where it is waited for.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let begun = mirror_log::begin(error, DROPPED, move || stand_apart(kept));
    mask.thread_set_mask()?;
    let (lines, ending) = begun?;
    tell_to(lines);
    mirror_log::tell_panics(env!("CARGO_PKG_NAME"));
    Ok(ending)
}

/// For a process that ends by itself: whoever began it reads what it says, or waits.
pub fn begin_at_once() {
    tell_to(io::stderr);
}

/// The thread may be stuck in the kernel, in a write that this very volume has to do. If the daemon is killed meanwhile, its
/// admin socket and its lock have to be free at once all the same, so that everybody here sees that it is gone, and no mount may
/// be kept. Nor may it wait in reclaim, with the lock of the memory, for this volume.
///
/// The memory is there until the write ends, and with it the ring, the link and the devices: no thread can leave that.
fn stand_apart(kept: RawFd) {
    // Each works without the others; the daemon tells what it lacks itself.
    for (what, done) in [
        ("IO_FLUSHER", sys::set_io_flusher()),
        ("mounts", sys::enter_private_mount_namespace().map(drop)),
        ("files", sys::leave_the_files_but(kept)),
    ] {
        if let Err(error) = done {
            tracing::debug!(%error, what, "the thread of the log");
        }
    }
}

/// Times are RFC 3339 in UTC; `RUST_LOG` changes what is shown.
fn tell_to(writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(writer)
        // They would go to standard error by a way that ends the process if it cannot be written.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
}
