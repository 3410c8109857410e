//! The words of the refusals: what is in the way, and what to do about it.

use alloc::format;
use alloc::string::{String, ToString};

use super::Refusal;

impl Refusal {
    pub(super) fn message(&self) -> String {
        match self {
            Self::PeerActive { peer } => format!("{peer} serves the volume; two nodes never serve it at the same time"),
            Self::PeerSilent { peer } => {
                format!("{peer} does not answer, and its copy counts: it may be serving the volume right now")
            }
            Self::LinkUp { peer } => format!("{peer} is connected and may be serving the volume"),
            Self::CopyNotCurrent { copying: true } => {
                "the copy on this node is still being filled; serving it would show a mixture of old and new data".to_string()
            }
            Self::CopyNotCurrent { copying: false } => {
                "the copy on this node is outdated: writes were acknowledged without it".to_string()
            }
            Self::Blank { peer } => format!("this copy holds nothing yet; it waits for its first contact with {peer}"),
            Self::Unclean { peer } => {
                format!("this node stopped in the middle of its service, and {peer}'s copy may hold newer acknowledged writes")
            }
            Self::NotConfirmed { peer } => {
                format!("a takeover is safe only if {peer} is off; if it still runs, both sides will have different data")
            }
            Self::InUse => "the device is mounted or held open".to_string(),
            Self::FrozenWrites { peer } => format!("writes wait for {peer}; they were not acknowledged and would fail"),
            Self::Busy => "another change of this volume is under way".to_string(),
            Self::PeerRefused { peer } => format!("{peer} did not agree to the change"),
            Self::Ambiguous { peer } => {
                format!("the connection to {peer} broke before its answer; until it is known, the stricter of both views rules")
            }
            Self::DiskFailed => "the backing device or the metadata device failed on this node".to_string(),
            Self::Device { errno } => format!("the block device could not be made (kernel error {})", errno.0),
            Self::Serving => "this node serves the volume".to_string(),
            Self::NothingToTakeOver => "this node's copy is the only one that counts".to_string(),
            Self::GrowNeedsBoth { peer } => format!("{peer}'s copy does not count: a volume grows on both nodes or on none"),
            Self::GrowShrinks { size_bytes } => format!("the volume has {size_bytes} bytes, and a volume never shrinks"),
            Self::GrowUneven { block_bytes } => format!("the size is no multiple of {block_bytes} bytes, a block of the backing device"),
            Self::GrowNoRoom { node, room_bytes } => {
                format!("{node} has room for a volume of {room_bytes} bytes: its backing device and the metadata's reserve allow no more")
            }
            Self::GrowNotMeasured { errno } => format!("the backing device's size cannot be found out (kernel error {})", errno.0),
            Self::GrowInterrupted => "something else happened to the volume while the grow was being prepared; it has its old size".to_string(),
            Self::NoSplitBrain { peer } => {
                format!("no split brain is known: this node and {peer} have not met with two histories since the daemon started")
            }
            Self::DiscardElsewhere { wanted, node } => {
                format!("`{wanted}` is not this node ({node}); a copy is discarded on the node that holds it")
            }
            Self::NotNamed { .. } => "this loses data and was not confirmed".to_string(),
            Self::Promotable { .. } => "the copy on this node counts: nothing is to be forced".to_string(),
            Self::VerifyElsewhere { node } => format!("both copies are compared by {node}: it serves the volume, or would be the first to"),
            Self::NothingToVerify { peer } => format!("there are no two copies to compare: {peer} is not connected, or one copy does not count"),
            Self::VerifyRuns => "a verify runs already".to_string(),
            Self::NoVerify => "no verify runs on this node".to_string(),
            Self::NoSuchNode { name } => format!("{name} is neither this node nor the other one"),
            Self::InvalidateActive { .. } => "this node serves the volume".to_string(),
            Self::InvalidateOnlyCopy { peer } => {
                format!("the copy here is the only one that is known to be good: {peer}'s does not count")
            }
            Self::InvalidateNotConfirmed => {
                "the copy here stops to count until all of it is copied again; the volume has one good copy meanwhile".to_string()
            }
            Self::NoResync => "no copy of this volume is being filled, or waits to be".to_string(),
            Self::ResyncElsewhere { peer } => format!("the copy here is the one that is filled; {peer} sends"),
            Self::Isolation(refusal) => refusal.message(),
            Self::Grant(refusal) => refusal.message(),
        }
    }

    pub(super) fn advice(&self) -> String {
        match self {
            Self::PeerActive { peer } => {
                format!("to move the volume: on {peer} run `lockstep volume deactivate NAME`, then activate it here")
            }
            Self::PeerSilent { peer } => format!(
                "restore the connection or start the daemon on {peer}; if {peer} is really off, run \
                 `lockstep volume takeover NAME` and confirm it"
            ),
            Self::LinkUp { peer } => {
                format!("to move the volume: on {peer} run `lockstep volume deactivate NAME`, then activate it here")
            }
            Self::CopyNotCurrent { copying: true } => {
                "wait until `lockstep volume status NAME` shows it in sync, or serve it on the other node".to_string()
            }
            Self::CopyNotCurrent { copying: false } => "start the other node and serve the volume there".to_string(),
            Self::Blank { peer } | Self::Unclean { peer } => {
                format!("connect it with {peer}; if {peer} will never come back, `lockstep volume takeover NAME`")
            }
            Self::NotConfirmed { peer } => {
                format!("switch {peer} off, look that it is off, then repeat with --confirm \"{peer} is off\"")
            }
            Self::InUse => "unmount it and stop what uses it; --force takes it away from them with I/O errors".to_string(),
            Self::FrozenWrites { peer } => format!(
                "restore the connection to {peer}; or go on alone with `lockstep volume takeover NAME` if {peer} is off; \
                 or let the writes fail with --force"
            ),
            Self::Busy => "look at `lockstep volume status NAME` and try again".to_string(),
            Self::PeerRefused { peer } => format!("look at `lockstep volume status NAME` on {peer}"),
            Self::Ambiguous { .. } => "wait for the connection, look at the status, then repeat the command".to_string(),
            Self::DiskFailed => "look at the kernel's log; serve the volume on the other node (takeover there)".to_string(),
            Self::Device { .. } => "see that the kernel has ublk_drv (6.8 or later) and look at the kernel's log".to_string(),
            Self::Serving => "run `lockstep volume deactivate NAME` first".to_string(),
            Self::NothingToTakeOver => "run `lockstep volume activate NAME`".to_string(),
            Self::GrowNeedsBoth { peer } => format!("connect it with {peer} and wait until both copies are in sync"),
            Self::GrowShrinks { .. } => "give a larger --size; for a smaller volume create another and copy".to_string(),
            Self::GrowUneven { .. } => "give another --size".to_string(),
            Self::GrowNoRoom { node, .. } => {
                format!("enlarge the backing device on {node} first; past the reserve (`create --grow-to`) the copies must be made anew")
            }
            Self::GrowNotMeasured { .. } => "look at the daemon's log and the kernel's log".to_string(),
            Self::GrowInterrupted => "look at `lockstep volume status NAME`, then repeat the command".to_string(),
            Self::NoSplitBrain { peer } => format!("let this node and {peer} connect, then look at `lockstep volume status NAME`"),
            Self::DiscardElsewhere { wanted, .. } => format!("run the command on {wanted}, if that is the node whose data are to go"),
            Self::NotNamed { volume } => format!("be sure, then repeat with --confirm {volume}"),
            Self::Promotable { alone: true } => "run `lockstep volume activate NAME`".to_string(),
            Self::Promotable { alone: false } => {
                "run `lockstep volume activate NAME`; if the other node is off, `lockstep volume takeover NAME`".to_string()
            }
            Self::VerifyElsewhere { node } => format!("run the command on {node}"),
            Self::NothingToVerify { .. } => {
                "wait until `lockstep volume status NAME` shows both copies in sync, and the link up".to_string()
            }
            Self::VerifyRuns => "wait for its end, or end it with `lockstep volume verify NAME --stop`".to_string(),
            Self::NoVerify => "look at `lockstep volume status NAME` on the node that serves the volume".to_string(),
            Self::NoSuchNode { .. } => "use the names of the nodes as the status shows them".to_string(),
            Self::InvalidateActive { peer } => {
                format!("run it on the node whose copy shall be filled anew; to give up the copy here, serve the volume on {peer} first")
            }
            Self::InvalidateOnlyCopy { peer } => format!("bring {peer}'s copy up to date first"),
            Self::InvalidateNotConfirmed => "repeat the command with the volume's name: --confirm NAME".to_string(),
            Self::NoResync => "look at `lockstep volume status NAME`".to_string(),
            Self::ResyncElsewhere { peer } => format!("run the command on {peer}"),
            Self::Isolation(refusal) => refusal.advice(),
            Self::Grant(refusal) => refusal.advice(),
        }
    }
}
