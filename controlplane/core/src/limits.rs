//! Bounds and default times of the control plane, each with its reason.

use core::time::Duration;

/// Interconnects of a pair of nodes at most, the mirror link not counted (FEATURES C1).
pub const INTERCONNECTS_MAX: usize = 16;
/// Paths on which the peer can be heard: the interconnects and the mirror link.
pub const PATHS_MAX: usize = INTERCONNECTS_MAX + 1;

/// Between two heartbeats on a path, by default.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// A path that is silent for so long is down, by default; a node that is silent on every path is dead.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout is at least so many intervals, so that single lost packets never add up to a failover.
pub const HEARTBEATS_PER_TIMEOUT_MIN: u32 = 4;

/// Between two tries of a question to the arbiter.
pub const ARBITER_RETRY: Duration = Duration::from_millis(250);
