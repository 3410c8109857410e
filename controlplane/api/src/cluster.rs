//! What a node's control plane says of itself and of what it sees: `GET /v1/status` at
//! [`node_socket`](crate::paths::node_socket).

use mirror_core::admin::{Problem, Status};
use serde::{Deserialize, Serialize};

/// The schema of [`ClusterStatus`]; a later one only adds.
pub const SCHEMA: &str = "lockstep.cluster/1";

/// The cluster, as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// [`SCHEMA`].
    pub schema: String,
    /// The release that runs here; absent in the first ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// This node.
    pub node: String,
    /// The other one.
    pub peer: Peer,
    /// The interconnects in their order, then the mirror link.
    pub paths: Vec<Path>,
    /// Who decides when the nodes cannot hear each other.
    pub arbiter: Arbiter,
    /// The clients' networks; absent if no ping targets in them are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Clients>,
    /// This node's watchdog device; absent if none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Watchdog>,
    /// All groups.
    pub groups: Vec<Group>,
    /// The names of the nodes that an operator suspended.
    #[serde(default)]
    pub suspended: Vec<String>,
    /// Those of them that were suspended with the whole cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspended_together: Vec<String>,
    /// Whether the other node knows what operators wish as this one does.
    #[serde(default)]
    pub agreed: bool,
    /// What an operator should know of the configuration; absent if it is the pushed one, or as nobody changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Problem>,
    /// What an operator should know of the cluster's key while it is rotated; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Problem>,
    /// What an operator should know of certificates and the authority: a change under way, one that ends soon; absent if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Problem>,
    /// Timeouts, and whether they are raised; absent in releases before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// Timeouts, and whether they are raised. Factors are in tenths: 10 is as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Where this node stands.
    pub stage: TimeoutsStage,
    /// As configured.
    pub heartbeat_timeout_ms: u64,
    /// This node waits so many times as long for the other one.
    pub waits_tenths: u8,
    /// Its own lease is so many times as long.
    pub lease_tenths: u8,
    /// The same of the other node, as it said last; absent if it said nothing, or cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerTimeouts>,
    /// What an operator wants; absent if nothing is raised, or that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<TimeoutsWanted>,
}

/// The timeouts of the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTimeouts {
    /// It waits so many times as long for this one.
    pub waits_tenths: u8,
    /// Its own lease is so many times as long.
    pub lease_tenths: u8,
}

/// What an operator wants of timeouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsWanted {
    /// So many times as long.
    pub factor_tenths: u8,
    /// Higher numbers rule over lower ones.
    pub number: u64,
    /// The node on which it was said.
    pub by: String,
    /// Since when this node follows it, milliseconds ago.
    pub since_ms: u64,
    /// In so many milliseconds it is over.
    pub left_ms: u64,
}

/// Where a node stands between the timeouts as configured and raised ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutsStage {
    /// Nothing is raised.
    AsConfigured,
    /// This node waits longer; the other one does not say that it does.
    Raising,
    /// Both do.
    Raised,
    /// Nothing is raised any more, and what was promised has yet to run out.
    Lowering,
}

/// The other node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether it is heard.
    pub presence: Presence,
    /// For how long it has been so, milliseconds.
    pub since_ms: u64,
}

/// Whether a node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Not yet, since this daemon began.
    Unknown,
    /// On some path, in both directions.
    Alive,
    /// It is heard and hears nothing.
    Deaf,
    /// Silent on every path for the heartbeat's timeout.
    Dead,
}

/// A way on which heartbeats travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// This node's address; `mirror link` for that one.
    pub name: String,
    /// How it is.
    pub state: PathState,
    /// There and back, microseconds; absent if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
    /// Heartbeats that were heard.
    pub received: u64,
    /// Heartbeats that are missing between those that were heard.
    pub lost: u64,
    /// Datagrams that were no heartbeats of the peer, or old ones: another cluster, another key, somebody's scanner. A few
    /// are nothing: a network may deliver one twice. Absent in releases before this.
    #[serde(default)]
    pub foreign: u64,
}

/// How a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Nothing was heard on it yet.
    New,
    /// It works in both directions.
    Up,
    /// It works, and the last heartbeat is late.
    Late,
    /// The peer is heard and does not hear.
    OneWay,
    /// Silent for the timeout.
    Down,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arbiter {
    /// `witness`, `etcd`, `ping`, `manual` or `none`.
    pub kind: String,
    /// Where it is, for one that is somewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether it answered last; absent if it has not been asked, or is nobody who answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<bool>,
    /// The nodes that have to report to it before it grants anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// The clients' networks, without which nothing is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// The ping targets.
    pub address: String,
    /// Whether one of them answers.
    pub answers: bool,
}

/// What resets a node whose services do not stop in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchdog {
    /// Its path.
    pub device: String,
    /// How it is.
    pub state: WatchdogState,
    /// It resets the machine if it is not petted for so many seconds; 0 if that is not known.
    #[serde(default)]
    pub timeout_s: u32,
    /// What the device said, if that was an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// It is open, and takes longer than configured or does not say how long, or its driver disarms it when `lockstepd` ends.
    #[serde(default)]
    pub loose: bool,
}

/// How a watchdog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchdogState {
    /// Nothing runs here that it is for.
    Disarmed,
    /// It is petted.
    Armed,
    /// It is armed and not petted any more: it resets this machine.
    Expiring,
    /// It is not needed and cannot be disarmed.
    Bound,
    /// It is needed, and cannot be used.
    Unusable,
}

/// A failover group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// What was decided last, and from what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// What operators wish; absent if nobody ever wished anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// How its resources are on this node; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The nodes on which it failed: it does not move there by itself before it was cleared, or ran there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_on: Vec<String>,
    /// It failed here: what follows, or what it waits for. Absent if it did not, or is not served here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_failure: Option<String>,
    /// Its monitors, as they are on this node; absent if it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitors: Vec<Monitor>,
}

/// A monitor of a group on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// Its name, within the group.
    pub name: String,
    /// `script`, `nic`, `ip` or `mirror`.
    pub kind: String,
    /// How it is, in a word.
    pub state: MonitorState,
    /// In words, with what is not well.
    pub text: String,
    /// So many looks in a row failed.
    #[serde(default)]
    pub failures: u32,
    /// So many count: 1 or more.
    pub failures_max: u32,
    /// Looks take more than 80 % of their timeout.
    #[serde(default)]
    pub delayed: bool,
    /// For how long it is as it is, milliseconds; failures count from the first one.
    pub since_ms: u64,
}

/// How a monitor is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MonitorState {
    /// The group is not online on this node: it does not look.
    Idle,
    /// It has not looked yet.
    New,
    /// Its last look went well.
    Well,
    /// Its last looks failed, and that does not count yet.
    Failing,
    /// It counts.
    Failed,
}

/// What is wished of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Higher numbers rule over lower ones.
    pub number: u64,
    /// The node on which it was said.
    pub by: String,
    /// What.
    pub want: Want,
    /// Where: of a move; otherwise who begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Who said it, or what came of a move.
    pub origin: WishOrigin,
    /// Why a move came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether and where a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// It runs.
    Runs,
    /// It runs nowhere.
    Stopped,
    /// It is on its way.
    Moves,
}

/// Who wishes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WishOrigin {
    /// A person.
    Operator,
    /// A node, because the group failed there.
    Node,
    /// A person, of the whole cluster at once.
    Together,
    /// A move arrived.
    Arrived,
    /// A move came to nothing.
    InVain,
}

/// How a group's resources are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// In a word.
    pub state: ResourcesState,
    /// In words, with figures.
    pub text: String,
}

/// How a group's resources are, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourcesState {
    /// They were not all looked at yet.
    Unknown,
    /// None runs here.
    Offline,
    /// They start.
    Starting,
    /// All run.
    Online,
    /// They stop.
    Stopping,
    /// One did not start or did not stay; they wait to be cleared.
    StartFailed,
    /// One did not stop; they wait to be cleared.
    StopFailed,
    /// They failed over too often; they wait to be cleared.
    Failed,
}

/// A volume, in its data plane's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What its daemon on this node said last; absent if it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    /// How its daemon on this node is, which the control plane starts; absent until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Daemon>,
}

/// How the daemon of a volume is on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// In a word.
    pub state: DaemonState,
    /// In words: for one that ended its last ones.
    pub text: String,
    /// The code of docs/codes.md, if there is something to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How often it was started again since it was steady.
    #[serde(default)]
    pub restarts: u32,
}

/// How the daemon of a volume is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonState {
    /// That cannot be told, or it cannot be started.
    Unknown,
    /// It answers.
    Runs,
    /// It does not answer yet.
    Starts,
    /// It ended, and is started again after a pause.
    Pauses,
    /// It refuses to run, and trying again does not mend that; it is tried rarely.
    Refuses,
    /// An operator stopped it.
    Stopped,
    /// This node has no copy of the volume.
    NotMade,
}

/// A decision of the table in docs/controlplane.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The row, from 1.
    pub row: usize,
    /// What was seen, in the table's words.
    pub situation: String,
    /// What follows.
    pub decision: String,
}
