//! What must have happened before a clean run says anything.

use std::collections::BTreeMap;

/// Fewer seeds need not show everything.
pub const SEEDS_MIN: u64 = 3000;

/// Marks that must not stay at zero.
const MARKS: &[&str] = &[
    "Activated",
    "Alone",
    "CopyFinished",
    "Deactivated",
    "Deposed",
    "Discarded",
    "Forced",
    "Frozen",
    "Grown",
    "LinkLost",
    "LinkUp",
    "RefusedByPeer",
    "Thawed",
    "activations",
    "ambush Aborted",
    "ambush Aborts",
    "ambush Agrees",
    "ambush Calm",
    "ambush Copies",
    "ambush Decides",
    "ambush Ended",
    "ambush Ends",
    "ambush Evicts",
    "ambush Flushes",
    "ambush Freezes",
    "ambush Joins",
    "ambush Leaves",
    "ambush Links",
    "ambush Pages",
    "ambush Proposes",
    "ambush Serves",
    "ambush Starts",
    "ambush Tells",
    "ambush Widens",
    "answer Active",
    "answer Alone",
    "answer AlreadyActive",
    "answer AlreadyFenced",
    "answer Discarded",
    "answer Fenced",
    "answer Forced",
    "answer Grown",
    "answer Stopped",
    "both went alone",
    "copies compared",
    "copy ActiveCrashed",
    "copy ActiveRebooted",
    "copy Discarded",
    "copy FirstCopy",
    "copy MemberRebooted",
    "copy Outdated",
    "copy Resumed",
    "copy UnknownState",
    "copy WideningInterrupted",
    "copy became a member",
    "cover: a full copy follows",
    "cover: all differences are marked",
    "daemon exits",
    "daemon starts",
    "device busy",
    "device failed",
    "device recovered",
    "evictions",
    "flushes",
    "force: before a resync",
    "force: in the middle of a resync",
    "force: the copy counts",
    "interrupted grow completed",
    "kill -9",
    "live device resized",
    "live device smaller than the volume",
    "log writes",
    "metadata blocks",
    "moves",
    "network silent",
    "network silent one way",
    "old disks of a member",
    "old disks of a target",
    "page writes",
    "path cut",
    "path told back",
    "path told lost",
    "pauses",
    "pauses that no clock saw",
    "power cuts",
    "reads",
    "recovered by force",
    "refusal Ambiguous",
    "refusal Busy",
    "refusal CopyNotCurrent",
    "refusal Device",
    "refusal FrozenWrites",
    "refusal GrowInterrupted",
    "refusal GrowNeedsBoth",
    "refusal GrowNoRoom",
    "refusal GrowNotMeasured",
    "refusal GrowShrinks",
    "refusal InUse",
    "refusal LinkUp",
    "refusal NotConfirmed",
    "refusal NothingToTakeOver",
    "refusal PeerActive",
    "refusal PeerRefused",
    "refusal PeerSilent",
    "refusal Promotable",
    "refusal Serving",
    "refusal Unclean",
    "refused SecondPeer",
    "refused SplitBrain",
    "requests failed",
    "requests reissued",
    "requests to a new area",
    "second connections",
    "sectors settled by a read",
    "session on the second path",
    "silent candidate given up",
    "spare lost",
    "split brain resolved",
    "takeover done",
    "takeover on a wrong word done",
    "takeovers on a wrong word",
    "takeovers wanted",
    "trouble at a step of a grow",
    "writes",
];

/// The marks that are missing.
pub fn missing(coverage: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let hit = |mark: &str| coverage.get(mark).is_some_and(|times| *times > 0);
    MARKS.iter().copied().filter(|mark| !hit(mark)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_at_zero_is_named() {
        let full = MARKS.iter().map(|mark| ((*mark).to_string(), 1));
        let mut coverage: BTreeMap<String, u64> = full.collect();
        assert!(missing(&coverage).is_empty());
        coverage.insert(MARKS[3].to_string(), 0);
        coverage.remove(MARKS[5]);
        assert_eq!(missing(&coverage), [MARKS[3], MARKS[5]]);
    }
}
