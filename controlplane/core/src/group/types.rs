//! The words of a group: what may happen to it, what it does, how it stands.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use mirror_core::types::Instant;

use crate::failing::OnFailure;
use crate::limits::{
    DOUBT_GRACE, FAILOVERS_MAX, FAILOVERS_WITHIN, HARD_STOP, HEARTBEAT_TIMEOUT, RESOURCE_RETRIES,
    RESOURCE_TIMEOUT,
};
use crate::self_fencing::{LATE_ANSWER, Leases, takeover_wait};

/// What was configured for one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourcePolicy {
    /// A start that takes longer has failed.
    pub start_timeout: Duration,
    /// A stop that takes longer has failed.
    pub stop_timeout: Duration,
    /// A start that failed, and a resource that failed later, is started again so often.
    pub retries: u32,
}

impl Default for ResourcePolicy {
    fn default() -> Self {
        Self {
            start_timeout: RESOURCE_TIMEOUT,
            stop_timeout: RESOURCE_TIMEOUT,
            retries: RESOURCE_RETRIES,
        }
    }
}

/// What follows when a resource does not stop in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopFailure {
    /// The volumes' gates are shut by force: nothing writes any more, whatever still runs.
    Fence,
    /// Everything stays as it is, and the group waits for an operator.
    Hold,
}

/// What was configured for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its resources, in the order of their start.
    pub resources: Vec<ResourcePolicy>,
    /// Starts after a takeover, and moves away because it failed here: so many of each at most, within
    /// [`Self::failovers_within`].
    pub failovers_max: u32,
    /// The time in which they are counted.
    pub failovers_within: Duration,
    /// Resources that are stopped hard are gone after this time.
    pub hard_stop: Duration,
    /// After the volumes came to be served here nothing starts before this has passed, unless nothing of the group is
    /// left on the other node ([`crate::self_fencing::takeover_wait`]).
    pub takeover_wait: Duration,
    /// Beside a node that lives so much longer: a volume of the group that does not answer there is in doubt, and its services
    /// run on for [`Self::doubt_grace`].
    pub living_wait: Duration,
    /// Volumes that do not answer have so long to come back.
    pub doubt_grace: Duration,
    /// What follows when a resource does not stop.
    pub stop_failure: StopFailure,
    /// What follows when a resource does not start or does not stay.
    pub on_failure: OnFailure,
}

impl Policy {
    /// With the defaults, for these resources.
    pub fn new(resources: Vec<ResourcePolicy>) -> Self {
        Self {
            resources,
            failovers_max: FAILOVERS_MAX,
            failovers_within: FAILOVERS_WITHIN,
            hard_stop: HARD_STOP,
            takeover_wait: takeover_wait(Leases::Kept, HEARTBEAT_TIMEOUT, HARD_STOP, None),
            living_wait: DOUBT_GRACE + LATE_ANSWER,
            doubt_grace: DOUBT_GRACE,
            stop_failure: StopFailure::Fence,
            on_failure: OnFailure::Failover,
        }
    }
}

/// How the group's volumes stand on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// All of them are served here: resources may start.
    Served(Origin),
    /// One does not answer. Nothing is started, nothing is stopped, for a while.
    InDoubt,
    /// One is not served here: everything stops, hard.
    Gone,
    /// The time for services is over ([`crate::self_fencing::Verdict::StopHard`]): everything stops, hard.
    LeaseOver,
}

/// Why the volumes are served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They were started or moved here, or were here when this run of the daemon began.
    Start,
    /// This node took them over from the other one.
    Failover,
}

/// What an operator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run where the volumes are served. A group begins so.
    Start,
    /// Stop in good order, and stay stopped.
    Stop,
    /// Forget what failed. Everything is looked at afresh.
    Clear,
}

/// Something to do with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look whether it is there. Changes nothing.
    Probe,
    /// Start it. Why the group starts is told to scripts.
    Start(Origin),
    /// Stop it.
    Stop(Manner),
}

/// How a resource is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It may end its work.
    Orderly,
    /// At once: kill, drop, detach. The volume may be dead already.
    Hard,
}

/// How an action ended. Of a resource that is gone or there, not of one that will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of a start: it runs. Of a stop: it is gone. Of a probe: it is there.
    Done,
    /// Of a probe: it is not there.
    Absent,
    /// It failed, its time was over, or it was broken off. Of a probe: nobody can say, or only a part is there.
    Failed,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// How the volumes stand.
    Volumes(Volumes),
    /// An action ended. Nothing of it runs any more.
    Ended {
        /// Which resource.
        resource: usize,
        /// The action's number.
        number: u64,
        /// How.
        outcome: Outcome,
    },
    /// A resource that was online failed by itself.
    Broke {
        /// Which one.
        resource: usize,
    },
    /// A monitor has failed, and a resource that was online is to be started again by that.
    Restart {
        /// Which one.
        resource: usize,
        /// By which monitor.
        monitor: usize,
    },
    /// A monitor has failed, and the group counts as failed here by that.
    Condemned {
        /// Which monitor.
        monitor: usize,
    },
    /// An operator's word.
    Order(Order),
    /// The other node said, after it had what this node sent then, that nothing of the group is left there and nothing is
    /// about to start.
    OtherClear {
        /// When this node sent what that confirms.
        asked: Instant,
    },
    /// The other node is dead, as the failure detector counts it, and no volume of the group is linked with it.
    OtherDead {
        /// Since when; `None` if it is not, or may not be.
        since: Option<Instant>,
    },
    /// Whether all volumes are linked with the other node.
    Linked(bool),
    /// The takeover wait is so much longer than configured ([`crate::timeouts::Span::stretch`]).
    WaitsLonger(Duration),
    /// An earlier run of the daemon was stopping the group hard since then, and was not done.
    HardSince(Instant),
    /// An earlier run of the daemon spent that ([`Effect::FailedOver`], [`Effect::MovedAway`]).
    Remembered {
        /// What.
        spent: Spent,
        /// How long ago.
        ago: Duration,
    },
    /// It moves to the other node because it failed here.
    MovesAway,
    /// The volumes were served elsewhere or by nobody, and are served here again: what failed here is tried again.
    TriedAgain,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Do this; [`Event::Ended`] comes back.
    Act {
        /// Which resource.
        resource: usize,
        /// To be given back.
        number: u64,
        /// What.
        action: Action,
        /// How long it may take. What is not done by then is broken off, with all its processes.
        timeout: Duration,
    },
    /// Break that action off now; [`Event::Ended`] comes back all the same.
    Cancel {
        /// Which resource.
        resource: usize,
        /// The action's number.
        number: u64,
    },
    /// Nothing of the group is left here, and nothing failed on the way: the volumes may be deactivated in good order.
    Released,
    /// A resource does not stop: shut the volumes' gates by force.
    Fence,
    /// The group is started after a takeover: to be remembered, also over a reboot, until it is cleared.
    FailedOver,
    /// The group moves away because it failed: the same.
    MovedAway,
    /// The group is not started on this node any more, until it is cleared. It may be moved.
    GiveUp(Reason),
    /// A hard stop has not ended within its time.
    Overdue,
    /// The group stands otherwise than before.
    Changed(GroupState),
}

/// Why a group is not started here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This resource does not start, or does not stay, whatever was retried.
    Resource(usize),
    /// This monitor of it failed.
    Monitor(usize),
    /// It was started after failovers too often: something follows it from node to node.
    PingPong,
}

/// What is bounded by [`Policy::failovers_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// A start after a takeover.
    Takeover,
    /// A move away because it failed here.
    Move,
}

/// How a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceState {
    /// Known to be gone.
    Offline,
    /// Its start is under way.
    Starting,
    /// It runs.
    Online,
    /// Its stop is under way.
    Stopping,
    /// Its start failed; some of it may be there.
    StartFailed,
    /// Its stop failed; some of it is there.
    StopFailed,
    /// Not looked at yet, or nobody can say. Never taken for [`Self::Offline`].
    Unknown,
}

/// How a group stands on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Its resources were not all looked at yet.
    Unknown,
    /// Nothing of it is here.
    Offline,
    /// So many of its resources run, the next one starts or is tried again.
    Starting {
        /// How many run.
        online: usize,
        /// How many there are.
        all: usize,
    },
    /// Everything runs.
    Online,
    /// It stops.
    Stopping,
    /// A resource did not start or did not stay, or a monitor failed; nothing of the group is here any more. It waits for
    /// [`Order::Clear`].
    StartFailed,
    /// A resource did not stop. It waits for [`Order::Clear`], and nothing starts here before.
    StopFailed,
    /// It failed over too often. It waits for [`Order::Clear`].
    Failed,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { online, all } => write!(f, "starting ({online} of {all})"),
            Self::Unknown => f.write_str("unknown"),
            Self::Offline => f.write_str("offline"),
            Self::Online => f.write_str("online"),
            Self::Stopping => f.write_str("stopping"),
            Self::StartFailed => f.write_str("start failed"),
            Self::StopFailed => f.write_str("stop failed"),
            Self::Failed => f.write_str("failed"),
        }
    }
}
