//! How two copies come together: a pure table over what both sides say of themselves.
//!
//! Both sides evaluate it with the same inputs and must come to the same verdict; the leader then
//! proposes the view, so that a disagreement (a bug) ends in a refusal and never in a merge.
//! docs/protocol.md prints the table. S8, S9, S10, S11.

mod discarded;

use crate::admin::CopyCause;
use crate::mutant::{self, Mutant};
use crate::types::{Epoch, NodeId, NodeSet};
use crate::view::ViewMark;
use crate::wire::{RefusedCode, State};

/// One side: who, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Which node.
    pub node: NodeId,
    /// Its words.
    pub state: &'a State,
}

/// What has to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The copies must not be connected.
    Refuse(RefusedCode),
    /// Both copies hold every acknowledged write; only what is in flight is sent again.
    Equal {
        /// Who proposes the view.
        leader: NodeId,
    },
    /// The source's copy is written over the other's.
    Copy {
        /// Whose copy counts; it proposes the view.
        source: NodeId,
        /// Why.
        cause: CopyCause,
        /// How much of it.
        extent: Extent,
    },
    /// The other copy is isolated: the view is agreed on, and nothing is copied before it is attached.
    Apart {
        /// Whose copy counts; it proposes the view.
        source: NodeId,
        /// How much the other copy would need now. If that is everything it stays so until then.
        extent: Extent,
    },
}

/// How much a resync has to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What either side's marks and activity log name: together they name every difference (S7, S8).
    Marked,
    /// Everything.
    Full,
}

/// The verdict for two sides, in any order.
pub fn decide(one: Side<'_>, other: Side<'_>) -> Verdict {
    let (a, b) = if one.node < other.node {
        (one, other)
    } else {
        (other, one)
    };
    match (a.state.volume_id.is_none(), b.state.volume_id.is_none()) {
        (true, true) => return Verdict::Refuse(RefusedCode::BothBlank),
        (true, false) => return first_copy(b, a),
        (false, true) => return first_copy(a, b),
        (false, false) => {}
    }
    if a.state.logical_block_bytes != b.state.logical_block_bytes {
        return Verdict::Refuse(RefusedCode::BlockSize);
    }
    if a.state.read_lease_ms != b.state.read_lease_ms {
        return Verdict::Refuse(RefusedCode::Lease);
    }
    if a.state.volume_id != b.state.volume_id {
        return Verdict::Refuse(RefusedCode::VolumeId);
    }
    if !sizes_fit(a, b) {
        return Verdict::Refuse(RefusedCode::Size);
    }
    let verdict = histories(a, b);
    let verdict = match (verdict, unfit(a, b), unfit(b, a)) {
        (Verdict::Refuse(_), _, _) | (_, None, None) => verdict,
        (_, Some(_), Some(_)) => Verdict::Refuse(RefusedCode::NoSource),
        (_, Some(cause), None) => replace_unfit(verdict, b, a, cause),
        (_, None, Some(cause)) => replace_unfit(verdict, a, b, cause),
    };
    leave_apart(verdict, a, b)
}

/// An isolated copy does not count, is never a source, and is not filled before it is attached.
fn leave_apart(verdict: Verdict, a: Side<'_>, b: Side<'_>) -> Verdict {
    let isolated = |side: Side<'_>| side.state.flags.isolated;
    match verdict {
        _ if mutant::is(Mutant::IsolatedFilled) => verdict,
        Verdict::Copy { source, extent, .. } => {
            let (good, target) = if source == a.node { (a, b) } else { (b, a) };
            match (isolated(good), isolated(target)) {
                (true, _) => Verdict::Refuse(RefusedCode::NoSource),
                (false, true) => Verdict::Apart { source, extent },
                (false, false) => verdict,
            }
        }
        Verdict::Equal { .. } if isolated(a) || isolated(b) => {
            Verdict::Refuse(RefusedCode::NoSource)
        }
        Verdict::Equal { .. } | Verdict::Apart { .. } | Verdict::Refuse(_) => verdict,
    }
}

/// Why a copy is not believed, whatever its view says. Its disk failed by its own word or by what it told the
/// other: a node whose metadata died with its disk does not know it any more after a restart (S1). The word of
/// a copy that does not count any more is old.
fn unfit(side: Side<'_>, other: Side<'_>) -> Option<CopyCause> {
    let told = other.state.flags.peer_failed && !mutant::is(Mutant::PeerFailureForgotten);
    let told = told && side.state.view.insync.contains(other.node) && !superseded(side, other);
    // Nor does a copy that is being filled condemn the one that it is filled from.
    let told = told && !other.state.flags.copy_target;
    if side.state.flags.failed || told {
        Some(CopyCause::DiskFailed)
    } else if side.state.flags.invalidated {
        Some(CopyCause::Invalidated)
    } else {
        None
    }
}

/// Different sizes come of a grow that was interrupted: the side with the larger one wrote it down first,
/// after both had prepared it. The smaller side takes it over, whatever else the verdict is.
fn sizes_fit(a: Side<'_>, b: Side<'_>) -> bool {
    let (a, b) = (a.state, b.state);
    let (smaller, larger) = if a.size_sectors <= b.size_sectors {
        (a, b)
    } else {
        (b, a)
    };
    let prepared = smaller.prepared_sectors >= larger.size_sectors;
    smaller.size_sectors == larger.size_sectors || prepared && !mutant::is(Mutant::TornGrowRefused)
}

/// A copy whose disk failed is never equal and never a source (S1): it is filled anew from the other, if
/// the other counts. Everything is written again: nobody knows what a failing disk kept, or whether it is
/// still the same disk. Only a copy that is being filled since, and has not failed again, goes on. The same
/// for a copy that an operator marked.
fn replace_unfit(verdict: Verdict, good: Side<'_>, unfit: Side<'_>, cause: CopyCause) -> Verdict {
    let anew = Verdict::Copy {
        source: good.node,
        cause,
        extent: Extent::Full,
    };
    let by_own_word = unfit.state.flags.failed || unfit.state.flags.invalidated;
    let filled = unfit.state.flags.copy_target && !by_own_word && knows(good, unfit);
    match verdict {
        Verdict::Copy { source, .. } if source == good.node && filled => verdict,
        Verdict::Copy { source, .. } if source == good.node => anew,
        _ if good.state.view.insync.contains(good.node)
            && unfit.state.view.insync.contains(good.node)
            && !good.state.flags.copy_target
            && !superseded(unfit, good)
            && (!unfit.state.flags.serving || !by_own_word) =>
        {
            anew
        }
        _ if agreed_in_vain(good, unfit) => anew,
        Verdict::Refuse(_)
        | Verdict::Equal { .. }
        | Verdict::Copy { .. }
        | Verdict::Apart { .. } => Verdict::Refuse(RefusedCode::NoSource),
    }
}

/// The good side agreed to be dropped, and the other one, whose disk then failed, never wrote that down: it still
/// counts both, so that it neither acknowledged anything alone nor copied anything over. The good side has all
/// of it (S1), for that view is the last one in which it counted itself (its base): one that it only heard of when it
/// was to be filled says nothing of it (S9).
fn agreed_in_vain(good: Side<'_>, unfit: Side<'_>) -> bool {
    let both = NodeSet::only(good.node).with(unfit.node);
    let uncommitted = unfit.state.view.insync == both
        && good.state.base == unfit.state.view.mark()
        && !mutant::is(Mutant::ConsentInVainBinds);
    good.state.view.is_sole(unfit.node)
        && !unfit.state.flags.serving
        && (uncommitted || mutant::is(Mutant::TargetReplacesSource))
}

fn by_epoch(a: Side<'_>, b: Side<'_>) -> Verdict {
    let newer = a.state.view.epoch >= b.state.view.epoch;
    let (source, target) = if newer { (a, b) } else { (b, a) };
    copy(source, target, CopyCause::Outdated)
}

/// Whether the side comes from that view: it is in its history, or is the last one in which both counted, which a
/// side that went alone remembers however often it changed its view since.
fn comes_from(side: Side<'_>, mark: ViewMark) -> bool {
    let base = side.state.base == mark && mark.epoch != Epoch(0);
    side.state.history.contains(mark) || base && !mutant::is(Mutant::BaseForgotten)
}

fn histories(a: Side<'_>, b: Side<'_>) -> Verdict {
    if let Some(verdict) = discarded::verdict(a, b) {
        return verdict;
    }
    let differ = a.state.view.mark() != b.state.view.mark();
    if differ && mutant::is(Mutant::LeaderByEpoch) {
        return by_epoch(a, b);
    }
    if a.state.view.mark() == b.state.view.mark() {
        same_view(a, b)
    } else if comes_from(a, b.state.view.mark()) {
        descendant(a, b)
    } else if comes_from(b, a.state.view.mark()) {
        descendant(b, a)
    } else if siblings(a, b) {
        both_members(a, b)
    } else if follows_in_vain(a, b) {
        copy_from_leader(b, a)
    } else if follows_in_vain(b, a) {
        copy_from_leader(a, b)
    } else if mutant::is(Mutant::SplitBrainMerged) {
        by_epoch(a, b)
    } else {
        Verdict::Refuse(RefusedCode::SplitBrain)
    }
}

/// Both count both, and did so ever since a view that both had: each wrote down changes of who serves, or
/// views to come together under, that the other one asked for and never committed. Whoever served in between
/// says so in its flags.
fn siblings(a: Side<'_>, b: Side<'_>) -> bool {
    let both = NodeSet::only(a.node).with(b.node);
    let mut history = a.state.history.0.iter();
    let Some(common) = history.find(|mark| b.state.history.contains(**mark)) else {
        return false;
    };
    // A side that counted alone since then remembers a later base.
    let together =
        |side: Side<'_>| side.state.view.insync == both && side.state.base.epoch < common.epoch;
    together(a) && together(b)
}

/// The follower wrote down a view that the leader proposed and then never committed; the leader went
/// on alone from the view before. The follower has served nothing since: its view still counts the
/// leader in and does not name itself as the active node, and both come from the same view. (If the
/// leader's view counts both, that is a widening which the follower never wrote down.)
fn follows_in_vain(follower: Side<'_>, leader: Side<'_>) -> bool {
    let view = follower.state.view;
    let sole = NodeSet::only(leader.node);
    let leader_counts = leader.state.view.insync.contains(leader.node);
    leader_counts
        && (leader.state.view.insync == sole || view.insync == sole)
        && view.insync.contains(leader.node)
        && view.active != Some(follower.node)
        && (view.insync == sole || never_since(follower, leader))
        && share_a_view(leader, follower)
}

/// Whether both come from one view.
fn share_a_view(a: Side<'_>, b: Side<'_>) -> bool {
    let marks = a.state.history.0.iter().chain([&a.state.base]);
    marks.into_iter().any(|mark| comes_from(b, *mark))
}

/// A follower that counts both did so all the time since the leader was last together with it: one that was alone itself
/// after that, or as late, went apart from it.
fn never_since(follower: Side<'_>, leader: Side<'_>) -> bool {
    follower.state.base.epoch < leader.state.base.epoch || mutant::is(Mutant::ApartIsInVain)
}

fn first_copy(source: Side<'_>, blank: Side<'_>) -> Verdict {
    if blank.state.logical_block_bytes != source.state.logical_block_bytes {
        return Verdict::Refuse(RefusedCode::BlockSize);
    }
    if blank.state.read_lease_ms != source.state.read_lease_ms {
        return Verdict::Refuse(RefusedCode::Lease);
    }
    if blank.state.size_sectors < source.state.size_sectors {
        return Verdict::Refuse(RefusedCode::Size);
    }
    if !source.state.view.insync.contains(source.node)
        || source.state.flags.copy_target
        || source.state.flags.failed
        || source.state.flags.invalidated
    {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    Verdict::Copy {
        source: source.node,
        cause: if had_another(source) {
            CopyCause::Replaced
        } else {
            CopyCause::FirstCopy
        },
        extent: Extent::Full,
    }
}

/// Whether the source ever had a copy beside it: then the blank one replaces it. What of it is new, the disk, the
/// server or only the metadata, is nothing that a blank copy could say.
fn had_another(source: Side<'_>) -> bool {
    let state = source.state;
    state.view.insync.len() > 1 || state.base.epoch != Epoch(0) || !state.known_peer_boot.is_none()
}

/// A resync from one side to the other, of what is known to differ if that is known.
fn copy(source: Side<'_>, target: Side<'_>, cause: CopyCause) -> Verdict {
    let (cause, extent) = match (knows(source, target), cause) {
        (true, cause) => (cause, Extent::Marked),
        (false, CopyCause::Outdated) => (CopyCause::UnknownState, Extent::Full),
        (false, cause) => (cause, Extent::Full),
    };
    Verdict::Copy {
        source: source.node,
        cause,
        extent,
    }
}

fn in_full(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Copy { source, cause, .. } => Verdict::Copy {
            source,
            cause,
            extent: Extent::Full,
        },
        Verdict::Refuse(_) | Verdict::Equal { .. } | Verdict::Apart { .. } => verdict,
    }
}

/// Whether the source's marks and the target's, together, name every block that may differ.
///
/// They do if the target's copy is what the source's bitmap tells of: the target of the same resync, or
/// a copy that last counted in the view after which the source began to remember, and that nobody wrote
/// to since.
fn knows(source: Side<'_>, target: Side<'_>) -> bool {
    let (ours, theirs) = (source.state, target.state);
    if theirs.flags.copy_target {
        let any = mutant::is(Mutant::AnyLineage);
        return !ours.lineage.is_none() && (theirs.copy_id == ours.lineage || any);
    }
    let mark = theirs.view.mark();
    let both = NodeSet::only(source.node).with(target.node);
    let joined = mutant::is(Mutant::JoinedIsMember);
    if ours.view.insync == both {
        // Both count up to this moment, by the words of both. Or it counted in the source's very view, and agreed to leave it in
        // vain. (Its history may hold a view of the source in which it was somewhere else: it wrote that down when it agreed to
        // stay apart.)
        let left_now = theirs.base == ours.view.mark() && !mutant::is(Mutant::LeftIsStranger)
            || joined && comes_from(target, ours.view.mark());
        let together = theirs.view.insync == both || left_now;
        let together = together || mutant::is(Mutant::LeaverIsTarget);
        let one_history = mark == ours.view.mark()
            || comes_from(source, mark)
            || left_now
            || siblings(source, target);
        return together && one_history && !superseded(source, target);
    }
    // Marks that were taken away for another copy tell nothing of this one. (Who is filled wrote that down before the
    // source did, so that no other copy than an old one meets a lineage here.)
    let taken_away = !ours.lineage.is_none() && !mutant::is(Mutant::MarksOfAnother);
    if ours.base.epoch == Epoch(0) || taken_away {
        return false;
    }
    // It counted in the source's base, and agreed to a later view without being served by or written to. (A copy may have
    // written that view down only to stay apart.)
    let agreed = mark.epoch > ours.base.epoch
        && (theirs.base == ours.base || joined)
        && (mark == ours.view.mark() || ours.history.contains(mark));
    let counted = theirs.base == ours.base || theirs.view.insync == both || joined;
    let in_vain = follows_in_vain(target, source) && comes_from(target, ours.base) && counted;
    mark == ours.base || agreed || in_vain || mutant::is(Mutant::AnyBase)
}

fn same_view(a: Side<'_>, b: Side<'_>) -> Verdict {
    if a.state.view != b.state.view {
        // One mark, two meanings: no honest history has that.
        return Verdict::Refuse(RefusedCode::SplitBrain);
    }
    let insync = a.state.view.insync;
    let both = NodeSet::only(a.node).with(b.node);
    if insync == both {
        both_members(a, b)
    } else if insync == NodeSet::only(a.node) {
        copy_from_sole(a, b)
    } else if insync == NodeSet::only(b.node) {
        copy_from_sole(b, a)
    } else {
        Verdict::Refuse(RefusedCode::NoSource)
    }
}

/// Whether the newer side has counted alone since the view in which the older one counts both: it is the copy of a
/// disk that was taken away before, whose place another one took, or itself filled anew (S8).
fn superseded(newer: Side<'_>, older: Side<'_>) -> bool {
    let both = NodeSet::only(newer.node).with(older.node);
    let (now, before) = (newer.state, older.state);
    now.view.insync == both
        && before.view.insync == both
        && comes_from(newer, before.view.mark())
        && now.base.epoch >= before.view.epoch
        && !mutant::is(Mutant::OldMemberCounts)
}

/// Whether the older side is an old disk: the other one counted later than its view, and then left by consent. (Whoever is
/// being filled may have written views with both down that the other side never committed.)
fn is_old_source(older: Side<'_>, newer: Side<'_>) -> bool {
    !newer.state.flags.copy_target
        && older.state.view.epoch < newer.state.base.epoch
        && !mutant::is(Mutant::OldSourceFills)
}

/// The newer side's history holds the older side's view.
fn descendant(newer: Side<'_>, older: Side<'_>) -> Verdict {
    let both = NodeSet::only(newer.node).with(older.node);
    let now = newer.state.view.insync;
    let before = older.state.view.insync;
    let direct = newer.state.history.0.first() == Some(&older.state.view.mark());
    if now == NodeSet::only(newer.node) {
        return copy_from_sole(newer, older);
    }
    if now == NodeSet::only(older.node) && is_old_source(older, newer) {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    if older.state.view.is_sole(newer.node) && newer.state.view.is_sole(older.node) {
        // Each agreed that the other one counts: the older side first, in vain (`agreed_in_vain`). The newer one agreed
        // to be filled from it, and the older side had not yet written that down.
        return copy(older, newer, CopyCause::Outdated);
    }
    if now == NodeSet::only(older.node) {
        // The newer side agreed to be dropped; the older one had not yet written it down.
        return copy_from_sole(older, newer);
    }
    if now != both {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    if before == NodeSet::only(newer.node) {
        // The source wrote the wider view down, the target did not. Nothing came after that, or the target is an old disk,
        // whatever its lineage is.
        let interrupted = copy(newer, older, CopyCause::WideningInterrupted);
        return if direct || mutant::is(Mutant::OldTargetResumes) {
            interrupted
        } else {
            in_full(interrupted)
        };
    }
    if superseded(newer, older) {
        return copy(newer, older, CopyCause::Outdated);
    }
    // Only who is active changed, by consent: nothing was written in between (S3). Several such views
    // are those that the newer side wrote down for the older one, which never committed them.
    let followed = newer.state.view.active != Some(newer.node) && !served(newer);
    if before == both && (direct || followed) {
        return both_members(newer, older);
    }
    Verdict::Refuse(RefusedCode::SplitBrain)
}

/// The follower wrote down what the leader never committed; if it left, after it had counted with somebody later, the leader
/// is an old disk.
fn copy_from_leader(leader: Side<'_>, follower: Side<'_>) -> Verdict {
    if follower.state.view.is_sole(leader.node) && is_old_source(leader, follower) {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    copy_from_sole(leader, follower)
}

fn copy_from_sole(source: Side<'_>, target: Side<'_>) -> Verdict {
    if source.state.flags.copy_target {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    let resumed = target.state.flags.copy_target && knows(source, target);
    let cause = if resumed {
        CopyCause::Resumed
    } else {
        CopyCause::Outdated
    };
    copy(source, target, cause)
}

/// Both copies count: what may one of them have lost since?
fn both_members(a: Side<'_>, b: Side<'_>) -> Verdict {
    let (server, other) = match (served(a), served(b)) {
        (false, false) => {
            return Verdict::Equal {
                leader: a.node.min(b.node),
            };
        }
        (true, false) => (a, b),
        (false, true) => (b, a),
        (true, true) => return Verdict::Refuse(RefusedCode::SplitBrain),
    };
    let server_rebooted = other.state.known_peer_boot != server.state.boot;
    let server_rebooted = server_rebooted && !mutant::is(Mutant::ActiveRebootMissed);
    let other_rebooted = server.state.known_peer_boot != other.state.boot;
    let other_rebooted = other_rebooted && !mutant::is(Mutant::MemberRebootMissed);
    if server.state.flags.serving {
        // What the server had in flight is still in its hands and is sent again.
        return if other_rebooted {
            copy(server, other, CopyCause::MemberRebooted)
        } else {
            Verdict::Equal {
                leader: server.node,
            }
        };
    }
    match (server_rebooted, other_rebooted) {
        (true, false) => copy(other, server, CopyCause::ActiveRebooted),
        (false, true) if !server.state.flags.unclean => {
            copy(server, other, CopyCause::MemberRebooted)
        }
        (false, false) if !server.state.flags.unclean => Verdict::Equal {
            leader: server.node,
        },
        _ if mutant::is(Mutant::CrashForgotten) => Verdict::Equal {
            leader: server.node,
        },
        _ => copy(server, other, CopyCause::ActiveCrashed),
    }
}

/// Whether the side serves, or served and could not hand that over cleanly.
fn served(side: Side<'_>) -> bool {
    let drained = side.state.flags.drained && !mutant::is(Mutant::DrainedForgotten);
    side.state.flags.serving || side.state.flags.unclean || drained
}

#[cfg(test)]
mod tests;
