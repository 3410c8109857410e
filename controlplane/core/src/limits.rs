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

/// Resources of a group at most.
pub const RESOURCES_MAX: usize = 64;
/// A resource's start or stop may take so long, by default.
pub const RESOURCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Looking at a resource may take so long.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// A hard stop waits so long for a look that is under way: usually there is nothing to stop.
pub const PROBE_PATIENCE: Duration = Duration::from_millis(500);
/// A resource is started again so often after a failure, by default.
pub const RESOURCE_RETRIES: u32 = 1;
/// Between a failure and the next try.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Failures are forgotten after the group was online for so long.
pub const STABLE: Duration = Duration::from_secs(600);
/// What breaks an action off has so long to report it.
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
/// Starts after failovers at most, within [`FAILOVERS_WITHIN`], by default.
pub const FAILOVERS_MAX: u32 = 2;
/// See [`FAILOVERS_MAX`].
pub const FAILOVERS_WITHIN: Duration = Duration::from_secs(3600);
/// Resources that are stopped hard are gone after this time, by default.
pub const HARD_STOP: Duration = Duration::from_secs(2);
/// A hard stop of one resource is tried so often.
pub const HARD_STOPS_MAX: u32 = 3;
/// Volumes that do not answer have so long to come back, by default: a data plane that is started anew is a pause.
pub const DOUBT_GRACE: Duration = Duration::from_secs(30);
/// Gates that must be shut by force are told so again after this time.
pub const FENCE_RETRY: Duration = Duration::from_secs(5);
/// So often at most.
pub const FENCES_MAX: u32 = 5;
/// Monitors of a group at most: each has a thread, and most groups need one to three.
pub const MONITORS_MAX: usize = 32;
/// Between two looks of a monitor, by default.
pub const MONITOR_INTERVAL: Duration = Duration::from_secs(10);
/// A look of a monitor may take so long, by default.
pub const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);
/// After a look that failed it is looked again so often before it counts, by default.
pub const MONITOR_RETRIES: u32 = 2;
/// What breaks a look off has so long to report it; then the look itself hangs. Killing what was begun takes twice 5 s at most.
pub const MONITOR_GRACE: Duration = Duration::from_secs(15);
/// A move that does not get on for so long is given up: the group stays where it is, or goes back.
pub const MOVE_WAIT: Duration = Duration::from_secs(10);
