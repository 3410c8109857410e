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
    "Frozen",
    "LinkLost",
    "LinkUp",
    "RefusedByPeer",
    "Thawed",
    "activations",
    "answer Active",
    "answer Alone",
    "answer AlreadyActive",
    "answer AlreadyFenced",
    "answer Fenced",
    "answer Invalidated",
    "answer ResyncGoesOn",
    "answer ResyncPaused",
    "answer Stopped",
    "answer VerifyBegun",
    "answer VerifyEnds",
    "blocks repaired",
    "both went alone",
    "copies compared",
    "copy ActiveCrashed",
    "copy ActiveRebooted",
    "copy FirstCopy",
    "copy Invalidated",
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
    "damage",
    "device busy",
    "device failed",
    "device recovered",
    "evictions",
    "flushes",
    "kill -9",
    "log writes",
    "metadata blocks",
    "moves",
    "network silent",
    "network silent one way",
    "page writes",
    "pauses",
    "pauses that no clock saw",
    "power cuts",
    "reads",
    "refusal Ambiguous",
    "refusal Busy",
    "refusal CopyNotCurrent",
    "refusal Device",
    "refusal FrozenWrites",
    "refusal InUse",
    "refusal InvalidateActive",
    "refusal InvalidateNotConfirmed",
    "refusal InvalidateOnlyCopy",
    "refusal LinkUp",
    "refusal NotConfirmed",
    "refusal NothingToTakeOver",
    "refusal PeerActive",
    "refusal PeerRefused",
    "refusal PeerSilent",
    "refusal Serving",
    "refusal Unclean",
    "refused SecondPeer",
    "refused SplitBrain",
    "requests failed",
    "requests reissued",
    "second connections",
    "sectors settled by a read",
    "takeover done",
    "takeover on a wrong word done",
    "takeovers on a wrong word",
    "takeovers wanted",
    "verify done",
    "verify interrupted",
    "verify stopped",
    "writes",
    // Isolated copies.
    "answer AlreadyIsolated",
    "answer Attached",
    "answer Isolated",
    "copy isolated",
    "isolated copy attached",
    "isolation refused InUse",
    "isolation refused Isolated",
    "isolation refused Last",
    "isolation refused NotCurrent",
    "isolation refused PeerSilent",
    "isolation refused Serving",
    "read-only device busy",
    "read-only device failed",
    "read-only devices",
    "reads of an isolated copy",
    "writes to an isolated copy refused",
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
