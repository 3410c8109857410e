//! When a group was started after failovers, in a file that outlives a reboot: a line each, seconds since 1970.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago the group was started here after failovers, by the wall clock: a reboot ends every other one. A moment
/// that lies ahead is of now.
pub(super) fn recent(path: &Path, within: Duration) -> Vec<Duration> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let seconds = text.lines().filter_map(|line| line.parse().ok());
    let ago = |seconds| {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(SystemTime::now().duration_since(at).unwrap_or_default())
    };
    let recent = seconds.filter_map(ago).filter(|ago| *ago < within);
    recent.collect()
}

/// One more; those that are too old are forgotten.
pub(super) fn append(path: &Path, within: Duration) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let mut lines = String::new();
    for ago in recent(path, within).into_iter().chain([Duration::ZERO]) {
        lines.push_str(&format!("{}\n", now.saturating_sub(ago).as_secs()));
    }
    replace(path, &lines)
}

/// Durably, and as a whole.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    crate::durable::replace(path, text.as_bytes(), 0o644)
}
