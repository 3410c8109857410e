//! `lockstep volume stop`: done when the daemon is gone, so that a start or a repair may follow at once.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane_api::paths::daemon_lock;
use controlplane_api::{Client, ClientError};
use mirror_core::admin::Command;

use super::tell;
use crate::failure::Failure;

/// How long a daemon that agreed to end may take for it.
const END_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(name: &str) -> Result<u8, Failure> {
    let done = tell(name, Command::Stop)?;
    let client = Client::of_volume(name);
    let start = Instant::now();
    while !matches!(client.status(), Err(ClientError::NotRunning { .. })) || holds_its_lock(name) {
        if start.elapsed() > END_LIMIT {
            return Err(Failure::new(
                "LS4012",
                format!(
                    "the daemon of {name} agreed to end {} s ago and still answers",
                    END_LIMIT.as_secs()
                ),
                "look at its log; a device that does not answer may hold it",
            ));
        }
        sleep(POLL_INTERVAL);
    }
    Ok(done)
}

/// The kernel lets go of the lock when the process is gone, whatever it was doing.
fn holds_its_lock(name: &str) -> bool {
    let Ok(file) = File::open(daemon_lock(name)) else {
        return false;
    };
    file.try_lock().is_err()
}
