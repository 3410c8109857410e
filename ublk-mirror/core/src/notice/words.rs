//! Words for what the core calls by a name.

use alloc::format;
use alloc::string::{String, ToString};

use crate::admin::CopyCause;
use crate::types::Epoch;
use crate::wire::RefusedCode;

pub(super) fn cause_words(cause: CopyCause) -> &'static str {
    match cause {
        CopyCause::FirstCopy => "the peer's copy never held this volume",
        CopyCause::Replaced => {
            "the peer's copy is new (another disk, another server, or its metadata were lost)"
        }
        CopyCause::Outdated => "the peer missed acknowledged writes",
        CopyCause::UnknownState => {
            "what the peer's copy lacks is not known, so all of it is copied"
        }
        CopyCause::MemberRebooted => {
            "the peer's machine rebooted and may lack what it had not flushed"
        }
        CopyCause::ActiveCrashed => "the active node stopped in the middle of its service",
        CopyCause::ActiveRebooted => {
            "the active node rebooted and may lack what it had not flushed"
        }
        CopyCause::WideningInterrupted => "the connection broke when the copy was nearly done",
        CopyCause::DiskFailed => "the peer's disk had failed",
        CopyCause::Resumed => "an interrupted copy goes on where it was",
        CopyCause::Discarded => "the peer's history was discarded after a split brain",
        CopyCause::Invalidated => "an operator marked the copy, so all of it is copied",
    }
}

pub(super) fn refused_words(code: RefusedCode, ours: u64, theirs: u64) -> String {
    match code {
        RefusedCode::Version => {
            format!("no common protocol version (ours {ours}, theirs {theirs})")
        }
        RefusedCode::Key => "the cluster keys differ".to_string(),
        RefusedCode::VolumeName => "the volume names differ".to_string(),
        RefusedCode::Node => format!("node numbers do not fit (ours {ours}, theirs {theirs})"),
        RefusedCode::SecondPeer => {
            "another process with the same node number is connected already".to_string()
        }
        RefusedCode::VolumeId => "its metadata belongs to another volume".to_string(),
        RefusedCode::Size => format!(
            "sizes differ: ours {} bytes, theirs {} bytes",
            ours.saturating_mul(512),
            theirs.saturating_mul(512)
        ),
        RefusedCode::BothBlank => {
            "both copies wait to be filled; neither holds the volume".to_string()
        }
        RefusedCode::SplitBrain => {
            format!("split brain: both sides went on alone (epochs {ours} and {theirs})")
        }
        RefusedCode::DiskFailed => "its disk failed".to_string(),
        RefusedCode::MetadataFailed => "its metadata device failed".to_string(),
        RefusedCode::Busy => "a takeover is under way".to_string(),
        RefusedCode::Protocol => "a frame came that does not belong there".to_string(),
        RefusedCode::NoSource => "neither side holds a copy that counts".to_string(),
        RefusedCode::BlockSize => {
            format!("logical block sizes differ: ours {ours} bytes, theirs {theirs} bytes")
        }
        RefusedCode::Lease => format!("read leases differ: ours {ours} ms, theirs {theirs} ms"),
    }
}

pub(super) fn refused_advice(code: RefusedCode) -> &'static str {
    match code {
        RefusedCode::Version => "install versions of Lockstep that are at most one apart",
        RefusedCode::Key => "put the same cluster key file on both nodes and restart the daemon",
        RefusedCode::VolumeName | RefusedCode::Node => {
            "compare `node`, `peer` and `volume` in both configuration files"
        }
        RefusedCode::SecondPeer => "find the cloned machine or the second daemon and stop it",
        RefusedCode::VolumeId => {
            "both sides were created as first copies, or a disk was swapped; create the copy to be discarded anew with --join"
        }
        RefusedCode::Size => {
            "use backing devices of the same usable size, or create the smaller side with --size"
        }
        RefusedCode::BothBlank => "create the side that holds the data without --join",
        RefusedCode::SplitBrain => {
            "look at both sides with `lockstep volume resolve NAME`, decide whose data to keep; on the other node run `lockstep volume resolve NAME --discard NODE` (its own writes go into a file there)"
        }
        RefusedCode::DiskFailed | RefusedCode::MetadataFailed => {
            "replace the disk there, then create the volume anew with --join"
        }
        RefusedCode::Busy => "wait; it is tried again",
        RefusedCode::Protocol => "look at the versions of both sides and report it",
        RefusedCode::BlockSize => "use disks with the same logical block size on both nodes",
        RefusedCode::Lease => "set `read_lease_ms` to the same value on both nodes",
        RefusedCode::NoSource => {
            "bring back the node whose copy was last in use; status shows the view of each side"
        }
    }
}

pub(super) fn deposed_words(epoch: Epoch) -> String {
    format!(
        "the other node took over under epoch {epoch}; the device here was taken away, un-acknowledged writes failed"
    )
}
