//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

use anyhow::bail;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `condition` until it is true; after `limit` it fails and says `what` did not happen.
///
/// # Errors
/// If the condition fails, or does not hold in time.
pub fn wait_until(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
