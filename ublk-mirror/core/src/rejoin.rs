//! How two copies come together: a pure table over what both sides say of themselves.
//!
//! Both sides evaluate it with the same inputs and must come to the same verdict; the leader then
//! proposes the view, so that a disagreement (a bug) ends in a refusal and never in a merge.
//! docs/protocol.md prints the table. S8, S9, S10, S11.

mod discarded;

use crate::admin::CopyCause;
use crate::mutant::{self, Mutant};
use crate::types::{Epoch, NodeId, NodeSet};
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
    match (verdict, failed(a, b), failed(b, a)) {
        (Verdict::Refuse(_), _, _) | (_, false, false) => verdict,
        (_, true, true) => Verdict::Refuse(RefusedCode::NoSource),
        (_, true, false) => replace_failed(verdict, b, a),
        (_, false, true) => replace_failed(verdict, a, b),
    }
}

/// Whether the disk of `side` failed, by its own words or by what it told the other: a node whose metadata
/// died with its disk does not know it any more after a restart (S1). The word of a copy that does not count
/// any more is old.
fn failed(side: Side<'_>, other: Side<'_>) -> bool {
    let told = other.state.flags.peer_failed && !mutant::is(Mutant::PeerFailureForgotten);
    // Nor does a copy that is being filled condemn the one that it is filled from.
    let told = told && !other.state.flags.copy_target;
    side.state.flags.failed || (told && side.state.view.insync.contains(other.node))
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
/// still the same disk. Only a copy that is being filled since, and has not failed again, goes on.
fn replace_failed(verdict: Verdict, good: Side<'_>, failed: Side<'_>) -> Verdict {
    let anew = Verdict::Copy {
        source: good.node,
        cause: CopyCause::DiskFailed,
        extent: Extent::Full,
    };
    let filled =
        failed.state.flags.copy_target && !failed.state.flags.failed && knows(good, failed);
    match verdict {
        Verdict::Copy { source, .. } if source == good.node && filled => verdict,
        Verdict::Copy { source, .. } if source == good.node => anew,
        _ if good.state.view.insync.contains(good.node)
            && failed.state.view.insync.contains(good.node)
            && !good.state.flags.copy_target
            && (!failed.state.flags.serving || !failed.state.flags.failed) =>
        {
            anew
        }
        Verdict::Refuse(_) | Verdict::Equal { .. } | Verdict::Copy { .. } => {
            Verdict::Refuse(RefusedCode::NoSource)
        }
    }
}

fn by_epoch(a: Side<'_>, b: Side<'_>) -> Verdict {
    let newer = a.state.view.epoch >= b.state.view.epoch;
    let (source, target) = if newer { (a, b) } else { (b, a) };
    copy(source, target, CopyCause::Outdated)
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
    } else if a.state.history.contains(b.state.view.mark()) {
        descendant(a, b)
    } else if b.state.history.contains(a.state.view.mark()) {
        descendant(b, a)
    } else if siblings(a, b) {
        both_members(a, b)
    } else if follows_in_vain(a, b) {
        copy_from_sole(b, a)
    } else if follows_in_vain(b, a) {
        copy_from_sole(a, b)
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
        && leader.state.history.shares_with(&follower.state.history)
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
    {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    Verdict::Copy {
        source: source.node,
        cause: CopyCause::FirstCopy,
        extent: Extent::Full,
    }
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
    if ours.view.insync == NodeSet::only(source.node).with(target.node) {
        // Both count up to this moment.
        return mark == ours.view.mark()
            || ours.history.contains(mark)
            || theirs.history.contains(ours.view.mark())
            || siblings(source, target);
    }
    if ours.base.epoch == Epoch(0) {
        return false;
    }
    // It agreed to a later view of the source's without being served by or written to.
    let agreed =
        mark.epoch > ours.base.epoch && (mark == ours.view.mark() || ours.history.contains(mark));
    let in_vain = follows_in_vain(target, source) && theirs.history.contains(ours.base);
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

/// The newer side's history holds the older side's view.
fn descendant(newer: Side<'_>, older: Side<'_>) -> Verdict {
    let both = NodeSet::only(newer.node).with(older.node);
    let now = newer.state.view.insync;
    let before = older.state.view.insync;
    if now == NodeSet::only(newer.node) {
        return copy_from_sole(newer, older);
    }
    if now == NodeSet::only(older.node) {
        // The newer side agreed to be dropped; the older one had not yet written it down.
        return copy_from_sole(older, newer);
    }
    if now != both {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    if before == NodeSet::only(newer.node) {
        // The source wrote the wider view down, the target did not.
        return copy(newer, older, CopyCause::WideningInterrupted);
    }
    let direct = newer.state.history.0.first() == Some(&older.state.view.mark());
    // Only who is active changed, by consent: nothing was written in between (S3). Several such views
    // are those that the newer side wrote down for the older one, which never committed them.
    let followed = newer.state.view.active != Some(newer.node) && !served(newer);
    if before == both && (direct || followed) {
        return both_members(newer, older);
    }
    Verdict::Refuse(RefusedCode::SplitBrain)
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
mod tests {
    use super::*;
    use crate::types::{BootId, CopyId, Epoch, Incarnation, ViewId, VolumeId};
    use crate::view::{View, ViewHistory, ViewMark};
    use crate::wire::StateFlags;

    pub(super) const A: NodeId = NodeId::new(0).unwrap();
    pub(super) const B: NodeId = NodeId::new(1).unwrap();

    pub(super) fn view(epoch: u64, active: Option<NodeId>, insync: NodeSet) -> View {
        let byte = u8::try_from(epoch).unwrap();
        View {
            epoch: Epoch(epoch),
            id: ViewId([byte; 16]),
            active,
            insync,
        }
    }

    pub(super) fn both() -> NodeSet {
        NodeSet::only(A).with(B)
    }

    /// Two members that know each other's boot, A serving.
    pub(super) fn members() -> (State, State) {
        let state = |boot: u8, peer: u8, serving: bool| State {
            volume_id: VolumeId([1; 16]),
            size_sectors: 4096,
            logical_block_bytes: 512,
            sealed: Epoch(0),
            view: view(5, Some(A), both()),
            history: ViewHistory::default(),
            flags: StateFlags {
                serving,
                ..StateFlags::default()
            },
            copy_id: CopyId::NONE,
            lineage: CopyId::NONE,
            base: ViewMark::default(),
            boot: BootId([boot; 16]),
            known_peer_boot: BootId([peer; 16]),
            incarnation: Incarnation(1),
            read_lease_ms: 2000,
            prepared_sectors: 0,
        };
        (state(10, 11, true), state(11, 10, false))
    }

    pub(super) fn verdict(a: &State, b: &State) -> Verdict {
        let (a, b) = (Side { node: A, state: a }, Side { node: B, state: b });
        let verdict = decide(a, b);
        assert_eq!(verdict, decide(b, a), "both sides must agree");
        verdict
    }

    pub(super) fn marked(source: NodeId, cause: CopyCause) -> Verdict {
        Verdict::Copy {
            source,
            cause,
            extent: Extent::Marked,
        }
    }

    pub(super) fn full(source: NodeId, cause: CopyCause) -> Verdict {
        Verdict::Copy {
            source,
            cause,
            extent: Extent::Full,
        }
    }

    #[test]
    fn members_of_the_same_boots_are_equal() {
        let (a, b) = members();
        assert_eq!(verdict(&a, &b), Verdict::Equal { leader: A });
    }

    #[test]
    fn a_member_that_rebooted_is_filled_anew() {
        let (a, mut b) = members();
        b.boot = BootId([99; 16]);
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::MemberRebooted));
    }

    #[test]
    fn an_active_node_that_rebooted_takes_from_the_peer_that_stayed_up() {
        let (mut a, b) = members();
        a.boot = BootId([99; 16]);
        a.flags.serving = false;
        a.flags.unclean = true;
        assert_eq!(verdict(&a, &b), marked(B, CopyCause::ActiveRebooted));
    }

    #[test]
    fn an_active_node_that_only_crashed_is_the_source() {
        let (mut a, b) = members();
        a.flags.serving = false;
        a.flags.unclean = true;
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::ActiveCrashed));
    }

    #[test]
    fn a_failed_disk_is_never_equal_and_never_a_source() {
        let (a, mut b) = members();
        b.flags.failed = true;
        assert_eq!(verdict(&a, &b), full(A, CopyCause::DiskFailed));
        let (mut a, b) = members();
        a.flags.failed = true;
        a.flags.serving = false;
        a.flags.unclean = true;
        assert_eq!(verdict(&a, &b), full(B, CopyCause::DiskFailed));
        let (mut a, mut b) = members();
        a.flags.failed = true;
        b.flags.failed = true;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    }

    #[test]
    fn what_a_node_forgot_of_its_disk_the_other_remembers() {
        let (mut a, mut b) = members();
        a.flags.peer_failed = true;
        assert_eq!(verdict(&a, &b), full(A, CopyCause::DiskFailed));
        b.flags.copy_target = true;
        b.view = view(6, Some(A), NodeSet::only(A));
        (a.view, b.copy_id, a.lineage) = (b.view, CopyId([3; 16]), CopyId([3; 16]));
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Resumed));
        b.flags.failed = true;
        assert_eq!(verdict(&a, &b), full(A, CopyCause::DiskFailed));
        // The active node's own disk, by the word of a standby.
        let (a, mut b) = members();
        b.flags.peer_failed = true;
        assert_eq!(verdict(&a, &b), full(B, CopyCause::DiskFailed));
    }

    #[test]
    fn an_old_copy_neither_condemns_nor_replaces_the_only_one_that_counts() {
        let (mut a, mut b) = members();
        a.base = a.view.mark();
        a.history.push(a.view.mark());
        a.view = view(6, Some(A), NodeSet::only(A));
        b.flags.peer_failed = true;
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
        (a.flags.failed, a.flags.serving) = (true, false);
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    }

    #[test]
    fn a_failed_sole_member_is_not_replaced_by_a_copy_that_does_not_count() {
        let (mut a, mut b) = members();
        for state in [&mut a, &mut b] {
            state.view = view(6, None, NodeSet::only(A));
            state.flags.serving = false;
        }
        a.flags.failed = true;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    }

    #[test]
    fn who_took_over_is_the_source_and_an_older_view_the_target() {
        let (mut a, mut b) = members();
        a.flags.serving = true;
        b.history.push(a.view.mark());
        b.view = view(6, Some(B), NodeSet::only(B));
        b.flags.serving = true;
        assert_eq!(verdict(&a, &b), full(B, CopyCause::UnknownState));
        b.base = a.view.mark();
        assert_eq!(verdict(&a, &b), marked(B, CopyCause::Outdated));
    }

    #[test]
    fn a_copy_older_than_what_the_source_remembers_is_copied_in_full() {
        let (mut a, mut b) = members();
        a.view = view(9, Some(A), NodeSet::only(A));
        a.base = view(8, Some(A), both()).mark();
        a.history.push(b.view.mark());
        assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
        b.view = view(8, Some(A), both());
        a.history.push(b.view.mark());
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    }

    #[test]
    fn who_left_is_brought_up_to_date() {
        let (mut a, mut b) = members();
        a.base = a.view.mark();
        a.history.push(a.view.mark());
        a.view = view(6, Some(A), NodeSet::only(A));
        b.view = a.view;
        b.history = a.history;
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    }

    #[test]
    fn an_interrupted_resync_goes_on_only_between_its_two_sides() {
        let (mut a, mut b) = members();
        a.base = a.view.mark();
        a.view = view(6, Some(A), NodeSet::only(A));
        a.lineage = CopyId([3; 16]);
        b.view = a.view;
        b.flags.copy_target = true;
        b.copy_id = CopyId([3; 16]);
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Resumed));
        b.copy_id = CopyId([4; 16]);
        assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
    }

    #[test]
    fn two_that_went_alone_are_a_split_brain() {
        let (mut a, mut b) = members();
        let common = a.view.mark();
        a.view = view(6, Some(A), NodeSet::only(A));
        b.view = view(7, Some(B), NodeSet::only(B));
        a.history.push(common);
        b.history.push(common);
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
    }

    #[test]
    fn two_changes_of_service_that_came_to_nothing_leave_the_copies_equal() {
        let (mut a, mut b) = members();
        let common = a.view.mark();
        a.flags.serving = false;
        a.view = view(6, Some(B), both());
        b.view = view(7, None, both());
        a.history.push(common);
        b.history.push(common);
        assert_eq!(verdict(&a, &b), Verdict::Equal { leader: A });
        b.history.push(b.view.mark());
        b.view = view(8, None, both());
        assert_eq!(verdict(&a, &b), Verdict::Equal { leader: A });
        b.flags.unclean = true;
        b.boot = BootId([99; 16]);
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::ActiveRebooted));
        b.base = common;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
    }

    #[test]
    fn a_source_that_widened_alone_copies_again() {
        let (mut a, mut b) = members();
        b.view = view(4, Some(A), NodeSet::only(A));
        a.history.push(b.view.mark());
        b.flags.copy_target = true;
        b.copy_id = CopyId([3; 16]);
        assert_eq!(verdict(&a, &b), full(A, CopyCause::WideningInterrupted));
        a.lineage = b.copy_id;
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::WideningInterrupted));
    }

    #[test]
    fn a_side_that_has_prepared_the_others_size_is_not_refused() {
        let (mut a, mut b) = members();
        b.size_sectors = 8192;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::Size));
        a.prepared_sectors = 8191;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::Size));
        a.prepared_sectors = 8192;
        assert_eq!(verdict(&a, &b), Verdict::Equal { leader: A });
        a.prepared_sectors = 0;
        b.size_sectors = 4096;
        a.size_sectors = 8192;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::Size));
        b.prepared_sectors = 8192;
        assert_eq!(verdict(&a, &b), Verdict::Equal { leader: A });
    }

    #[test]
    fn what_must_agree_is_refused_when_it_does_not() {
        let (a, b) = members();
        let with = |change: fn(&mut State)| {
            let mut b = b;
            change(&mut b);
            verdict(&a, &b)
        };
        let refuse = Verdict::Refuse;
        assert_eq!(
            with(|b| b.volume_id = VolumeId([2; 16])),
            refuse(RefusedCode::VolumeId)
        );
        assert_eq!(with(|b| b.size_sectors = 1), refuse(RefusedCode::Size));
        assert_eq!(
            with(|b| b.logical_block_bytes = 4096),
            refuse(RefusedCode::BlockSize)
        );
        assert_eq!(with(|b| b.read_lease_ms = 1), refuse(RefusedCode::Lease));
        let mut blank = b;
        blank.volume_id = VolumeId::NONE;
        assert_eq!(verdict(&a, &blank), full(A, CopyCause::FirstCopy));
        assert_eq!(verdict(&blank, &blank), refuse(RefusedCode::BothBlank));
    }
}
