//! What goes over the admin socket: commands, answers, status. JSON through serde; unknown fields
//! are ignored by readers, so additions are allowed and renames are not ([`SCHEMA`]).

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

mod granted;
mod kept;
mod split;

pub use crate::isolation::{IsolationNotice, IsolationRefusal};
pub use crate::notice::{Notice, Refusal, UpkeepNotice};
pub use granted::ViewName;
pub use kept::{Keep, KeepStatus, Kept};
pub use split::{OperationStatus, SideStatus, SplitStatus, utc};
pub(crate) use split::{known, known_epoch};

/// Version of the status document. Additive changes only.
pub const SCHEMA: &str = "lockstep.volume-status/1";

/// What an operator may ask of a volume's daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Serve the volume here. Needs the peer's consent while its copy counts.
    Activate,
    /// Stop serving it here.
    Deactivate {
        /// Also if it is in use, and if writes are frozen: they fail.
        #[serde(default)]
        force: bool,
    },
    /// The operator's word that the peer is out. On a frozen active node: go on alone. On a
    /// standby: seal, commit a new epoch and serve.
    Takeover {
        /// Must be `<peer> is off` with the peer's name: what the operator vouches for.
        #[serde(default)]
        confirm: String,
    },
    /// An arbiter granted this node the next view: the same as a takeover, but the word is about one view, and the view
    /// that is committed is the granted one. The peer need not be off (S3, S4). Closes a connection that still stands.
    Granted {
        /// The view that this copy must hold durably.
        basis: ViewName,
        /// The view to commit.
        next: ViewName,
        /// From this moment of the machine's clock (nanoseconds since boot) on it is refused: whoever says so may count
        /// on it that a word of which nothing was heard is over.
        until_nanos: u64,
    },
    /// Make the volume larger. Both copies must count, both backing devices were enlarged before.
    Grow {
        /// The new size; without it all that both nodes have room for.
        #[serde(default)]
        size_bytes: Option<u64>,
    },
    /// End the daemon: a standby leaves the view first, so that the active node does not freeze.
    Stop,
    /// After a split brain: this copy's history is discarded, and it is filled from the other one.
    Resolve {
        /// The node whose copy is discarded: this one's name.
        #[serde(default)]
        discard: String,
        /// Must be the volume's name.
        #[serde(default)]
        confirm: String,
        /// What becomes of the blocks that only this side has.
        #[serde(default, skip_serializing_if = "Keep::is_usual")]
        keep: Keep,
    },
    /// Compare both copies while the volume is used.
    Verify {
        /// Also write the blocks that differ.
        #[serde(default)]
        repair: bool,
        /// The node whose copy is right; without it this one.
        #[serde(default)]
        repair_from: Option<String>,
        /// Must be the volume's name if this node's own copy is to be written over.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        confirm: String,
    },
    /// End the verify.
    VerifyStop,
    /// The copy here shall be filled anew: it stops to count, and all of it is copied.
    Invalidate {
        /// Must be the volume's name.
        #[serde(default)]
        confirm: String,
    },
    /// Make this copy, which is not complete, the only one that counts (S9).
    Force {
        /// Must be the volume's name.
        #[serde(default)]
        confirm: String,
    },
    /// Send nothing more of the resync.
    ResyncPause,
    /// Go on with it.
    ResyncResume,
    /// On a standby: take its copy out of the view, exact as of now, and serve it read-only.
    Isolate {
        /// When the operator said so, seconds since 1970; the shell fills it in.
        #[serde(default)]
        now_unix_s: u64,
    },
    /// End that: what the copy missed is copied, and it counts again.
    Attach {
        /// Also if its read-only device is in use.
        #[serde(default)]
        force: bool,
    },
}

/// The answer to a command.
pub type Outcome = Result<Done, Refusal>;

/// A command was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The volume is served here now.
    Active,
    /// It was served here already.
    AlreadyActive,
    /// It is fenced here now.
    Fenced,
    /// It was fenced here already.
    AlreadyFenced,
    /// It goes on here without the peer.
    Alone,
    /// The daemon ends.
    Stopped,
    /// The volume is larger now, on both nodes.
    Grown,
    /// It had that size already.
    AlreadyGrown,
    /// The history of the copy here is discarded.
    Discarded,
    /// The copy here is the only one that counts.
    Forced,
    /// Both copies are being compared.
    VerifyBegun,
    /// The verify ends.
    VerifyEnds,
    /// The copy here does not count any more, and will be filled anew.
    Invalidated,
    /// Nothing more is sent of the resync.
    ResyncPaused,
    /// The resync goes on.
    ResyncGoesOn,
    /// The copy here is isolated now, and can be read.
    Isolated,
    /// It was isolated already, and can be read.
    AlreadyIsolated,
    /// The copy here is not isolated any more.
    Attached,
    /// It was not isolated.
    AlreadyAttached,
}

/// What a volume does on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Every I/O fails at once (S12).
    Fenced,
    /// On its way to active.
    Activating,
    /// Serves the volume.
    Active,
    /// On its way to fenced.
    Deactivating,
}

/// Why I/O waits although the volume is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frozen {
    /// The peer's copy counts and the peer does not answer (S2).
    PeerLost,
    /// A change of view is being made durable.
    ViewChange,
}

/// What a copy is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    /// Holds every acknowledged write.
    InSync,
    /// Is the target of a resync.
    Copying,
    /// Lacks writes, as far as is known.
    Outdated,
    /// Waits for its first contact with the peer.
    Blank,
    /// Its disk failed.
    Failed,
    /// Its history was discarded after a split brain; it waits to be filled.
    Discarded,
    /// Not known (the peer never answered).
    Unknown,
    /// Kept as it was at one moment, to be read; its operator attaches it again.
    Isolated,
}

/// How the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// No connection.
    Down,
    /// Connected, not yet agreed.
    Handshake,
    /// Both sides agreed on a view.
    Up,
    /// The last handshake was refused; `link.refusal` says why.
    Refused,
}

/// Why a resync runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyCause {
    /// The peer's copy never held this volume.
    FirstCopy,
    /// The peer had a copy once, and the one that it has now is new: another disk, another server, or its metadata were
    /// lost. A blank copy cannot say which: all is copied.
    Replaced,
    /// The peer was dropped from the view and missed writes: they are known, and copied.
    Outdated,
    /// The peer's copy is of this volume, but what it lacks is not known: all is copied.
    UnknownState,
    /// The peer's machine rebooted: what it had not flushed is lost (S11).
    MemberRebooted,
    /// The active node did not come to a clean end: writes in flight may differ (S10).
    ActiveCrashed,
    /// The active node rebooted: it lacks what it had not flushed; it is the target (S11).
    ActiveRebooted,
    /// A copy was nearly in the view when the connection broke.
    WideningInterrupted,
    /// The peer's disk had failed.
    DiskFailed,
    /// A resync that was interrupted goes on.
    Resumed,
    /// The peer's history was discarded after a split brain.
    Discarded,
    /// An operator marked the copy: all of it is copied.
    Invalidated,
}

/// How a verify stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyState {
    /// Runs are being compared.
    Running,
    /// The other copy does not count now, or is not connected: it goes on when it does again.
    Waiting,
    /// The whole volume was compared.
    Done,
    /// An operator ended it.
    Stopped,
    /// It cannot go on here: another node serves the volume, or the copy here does not count any more.
    Interrupted,
}

/// What is the matter with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyFinding {
    /// The copies differ there.
    Differs,
    /// They differed, one was written, they are equal now.
    Repaired,
    /// It cannot be read on this node.
    UnreadableHere,
    /// It cannot be read on the other node.
    UnreadableThere,
}

/// A range that a verify found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRange {
    /// Where it begins on the volume.
    pub start_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
    /// What was found.
    pub finding: VerifyFinding,
}

/// The verify that runs here, or the last one of this run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// How it stands.
    pub state: VerifyState,
    /// The node whose copy is written over the other where they differ; absent: nothing is written.
    pub repair_from: Option<String>,
    /// Bytes of `total_bytes` that were compared.
    pub checked_bytes: u64,
    /// Size of the volume.
    pub total_bytes: u64,
    /// Rate over the last seconds, bytes per second; 0 when it is over.
    pub rate_bytes_per_s: u64,
    /// Estimated seconds to the end; absent while the rate is unknown.
    pub eta_s: Option<u64>,
    /// Bytes of blocks that differed, those that were repaired included.
    pub differing_bytes: u64,
    /// Bytes of blocks that were repaired: written, durable, compared again.
    pub repaired_bytes: u64,
    /// Bytes that could not be read on either side, and were not compared.
    pub unreadable_bytes: u64,
    /// The first of these ranges ([`crate::limits::VERIFY_RANGES_MAX`]), in their order on the volume.
    pub ranges: Vec<VerifyRange>,
    /// Milliseconds since it ended; absent while it runs.
    pub ended_ms: Option<u64>,
}

/// A resync's progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Why it runs.
    pub cause: CopyCause,
    /// Whether this node is the source (else the target).
    pub source: bool,
    /// Bytes of `total_bytes` that are done.
    pub copied_bytes: u64,
    /// Bytes that had to be copied, as far as is known.
    pub total_bytes: u64,
    /// Rate over the last seconds, bytes per second.
    pub rate_bytes_per_s: u64,
    /// Estimated seconds to the end; absent while the rate is unknown.
    pub eta_s: Option<u64>,
    /// How it gives way; absent on the target, and while the application is idle: then it gives way to nobody.
    #[serde(default)]
    pub beside: Option<CopyBeside>,
}

/// How a resync gives way to the application that works on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyBeside {
    /// Share of the time in which it works, percent.
    pub share_percent: u64,
    /// Runs under way then, at most.
    pub runs_max: usize,
    /// By how much a request of the application is slower then, percent of its speed; absent while it was not measured.
    pub slower_percent: Option<u64>,
}

/// How the link stands, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// In a word.
    pub state: LinkState,
    /// Milliseconds since the peer was last heard; absent if never in this run.
    pub last_heard_ms: Option<u64>,
    /// Milliseconds since this node sent the keepalive that the peer answered last: what the peer confirmed it knows by then. Absent
    /// if none was answered in this run, or from a daemon that does not tell.
    #[serde(default)]
    pub answered_ms: Option<u64>,
    /// Why the last handshake was refused, with a code.
    pub refusal: Option<Problem>,
    /// The pairs of addresses, in their order (filled in by the shell).
    #[serde(default)]
    pub paths: Vec<PathStatus>,
}

/// How one path of the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// It carries the session.
    InUse,
    /// A connection stands on it, and would carry the session if the other path failed.
    Ready,
    /// The peer does not answer on it.
    Down,
}

/// One path of the link: a pair of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    /// 1 or 2.
    pub number: u8,
    /// Address and port of this node.
    pub local: String,
    /// Address and port of the other node.
    pub remote: String,
    /// How it stands.
    pub state: PathState,
}

/// The view as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Epoch.
    pub epoch: u64,
    /// Id, 32 hex digits.
    pub id: String,
    /// The active node's name.
    pub active: Option<String>,
    /// Names of the nodes whose copies count.
    pub insync: Vec<String>,
    /// Everything up to this epoch is refused here.
    pub sealed_epoch: u64,
    /// The views before this one that the copy remembers, the newest first.
    #[serde(default)]
    pub history: Vec<ViewName>,
    /// Above every epoch that this node ever saw.
    #[serde(default)]
    pub next_epoch: u64,
    /// Whether the view, or what it says of this node, is being changed.
    #[serde(default)]
    pub changing: bool,
    /// Whether this machine booted since its copy began to count: the peer may hold what was not flushed here (S11).
    #[serde(default)]
    pub booted: bool,
}

/// Counters since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Application reads completed.
    pub reads: u64,
    /// Application writes (with discards and write-zeroes) acknowledged.
    pub writes: u64,
    /// Application flushes acknowledged.
    pub flushes: u64,
    /// Of these, how many found everything durable already.
    #[serde(default)]
    pub flushes_for_nothing: u64,
    /// Application requests failed.
    pub failed: u64,
    /// Bytes written by the application.
    pub written_bytes: u64,
    /// Writes applied for the peer.
    pub peer_writes: u64,
    /// Writes of the activity log: an extent was written to that was not active.
    #[serde(default)]
    pub log_writes: u64,
    /// Writes of bitmap pages.
    #[serde(default)]
    pub bitmap_writes: u64,
    /// Bytes sent for resyncs.
    #[serde(default)]
    pub resync_sent_bytes: u64,
    /// Reads that the own disk could not do and the peer did; what they were about was written again here.
    #[serde(default)]
    pub healed_reads: u64,
    /// Longest time an application request waited for its answer, milliseconds.
    pub longest_wait_ms: u64,
}

/// A grow that is being prepared here; the volume still has its old size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowProgress {
    /// The new size; the old one until it is known.
    pub to_bytes: u64,
    /// How much of the new area this node has filled with zeroes.
    pub zeroed_bytes: u64,
    /// Size of the new area.
    pub new_bytes: u64,
}

/// Something an operator should know, with its code and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `LS` and four digits; stable.
    pub code: String,
    /// What happened, where and why.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// A copy that is isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolatedStatus {
    /// Whose copy it is.
    pub node: String,
    /// Since when, seconds since 1970; 0: not known here.
    pub since_unix_s: u64,
    /// If it is this node's: the name of the read-only device, while there is one (filled in by the shell).
    #[serde(default)]
    pub device: Option<String>,
}

/// Everything about a volume on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// The volume's name.
    pub volume: String,
    /// The volume's id, 32 hex digits; zeroes while blank.
    pub volume_id: String,
    /// This node's name.
    pub node: String,
    /// The other node's name.
    pub peer: String,
    /// What the volume does here.
    pub role: Role,
    /// Why I/O waits, if it does.
    pub frozen: Option<Frozen>,
    /// What the copy here is worth.
    pub copy: CopyState,
    /// What the peer's copy is worth.
    pub peer_copy: CopyState,
    /// The link.
    pub link: LinkStatus,
    /// The view.
    pub view: ViewStatus,
    /// Size of the volume.
    pub size_bytes: u64,
    /// What the live device shows (filled in by the shell). Smaller than the volume after a grow, until
    /// the next activation, where the kernel cannot resize a live device.
    #[serde(default)]
    pub device_size_bytes: Option<u64>,
    /// The grow that is being prepared.
    #[serde(default)]
    pub growing: Option<GrowProgress>,
    /// The resync that runs.
    pub progress: Option<CopyProgress>,
    /// Bytes of blocks that the peer's copy may lack, as far as is known here.
    #[serde(default)]
    pub out_of_sync_bytes: u64,
    /// Milliseconds since an operator paused the resync that this node is the source of.
    #[serde(default)]
    pub resync_paused_ms: Option<u64>,
    /// The verify that runs here, or the last one.
    #[serde(default)]
    pub verify: Option<VerifyStatus>,
    /// The copy that is isolated, if one is.
    #[serde(default)]
    pub isolated: Option<IsolatedStatus>,
    /// Application requests in flight or waiting.
    pub inflight: u64,
    /// Counters.
    pub counters: Counters,
    /// The name to use: `/dev/lockstep/NAME` (filled in by the shell).
    pub device: Option<String>,
    /// What somebody should look at, worst first.
    pub problems: Vec<Problem>,
    /// The two histories, while the link is refused for a split brain.
    #[serde(default)]
    pub split: Option<SplitStatus>,
    /// Blocks that are being kept before this side is discarded (filled in by the shell).
    #[serde(default)]
    pub keeping: Option<KeepStatus>,
    /// What operators said that cost data or could have, newest first.
    #[serde(default)]
    pub operations: Vec<OperationStatus>,
}
