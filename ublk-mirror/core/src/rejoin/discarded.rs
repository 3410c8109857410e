//! The rows for a copy whose history an operator discarded after a split brain.
//!
//! Such a copy holds the volume and counts in no view, not even in its own: its view's `insync` is empty,
//! which no other history comes to. It is filled by whoever counts.

use super::{Extent, Side, Verdict};
use crate::admin::CopyCause;
use crate::types::{Epoch, NodeSet};
use crate::wire::RefusedCode;

/// Whether the side gave its history up. (Neither side is blank here.)
fn gave_up(side: Side<'_>) -> bool {
    side.state.view.insync.is_empty()
}

/// The verdict, if either side gave its history up.
pub(super) fn verdict(a: Side<'_>, b: Side<'_>) -> Option<Verdict> {
    match (gave_up(a), gave_up(b)) {
        (false, false) => None,
        (true, true) => Some(Verdict::Refuse(RefusedCode::NoSource)),
        (true, false) => Some(fill(b, a)),
        (false, true) => Some(fill(a, b)),
    }
}

fn fill(source: Side<'_>, target: Side<'_>) -> Verdict {
    let counts = source.state.view.insync.contains(source.node);
    if !counts || source.state.flags.copy_target {
        return Verdict::Refuse(RefusedCode::NoSource);
    }
    Verdict::Copy {
        source: source.node,
        cause: CopyCause::Discarded,
        extent: if same_ancestor(source, target) {
            Extent::Marked
        } else {
            Extent::Full
        },
    }
}

/// Whether the marks of both sides, united, name every block that may differ.
///
/// They do if both left the *same* view in which both counted. At that moment each side's marks and log
/// named what it had written that the other one may not have had on disk, and since then each side marked
/// whatever it wrote alone (S7). `lineage` is the same too unless one of them took marks away in a resync
/// that the other does not know of. A forced recovery forgets the base, so that this never holds after one.
fn same_ancestor(source: Side<'_>, target: Side<'_>) -> bool {
    let (ours, theirs) = (source.state, target.state);
    ours.view.insync == NodeSet::only(source.node)
        && !theirs.flags.copy_target
        && ours.base.epoch != Epoch(0)
        && ours.base == theirs.base
        && ours.lineage == theirs.lineage
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, both, full, marked, members, verdict, view};
    use super::*;
    use crate::types::{CopyId, ViewId, VolumeId};
    use crate::view::View;
    use crate::wire::State;

    /// A and B went alone from the same view; B's history was discarded.
    fn resolved() -> (State, State) {
        let (mut a, mut b) = members();
        let common = a.view.mark();
        for state in [&mut a, &mut b] {
            state.base = common;
            state.history.push(common);
        }
        a.view = view(6, Some(A), NodeSet::only(A));
        b.view = view(9, None, NodeSet::EMPTY);
        (a, b)
    }

    #[test]
    fn a_discarded_copy_is_filled_by_the_marks_of_both_sides() {
        let (a, b) = resolved();
        assert_eq!(verdict(&a, &b), marked(A, CopyCause::Discarded));
    }

    #[test]
    fn without_a_common_ancestor_everything_is_copied() {
        let with = |change: fn(&mut State, &mut State)| {
            let (mut a, mut b) = resolved();
            change(&mut a, &mut b);
            assert_eq!(verdict(&a, &b), full(A, CopyCause::Discarded));
        };
        with(|_, b| b.base = view(4, None, both()).mark());
        with(|a, b| {
            a.base = crate::view::ViewMark::default();
            b.base = a.base;
        });
        with(|a, _| a.lineage = CopyId([3; 16]));
        with(|_, b| b.flags.copy_target = true);
        // It counts both: its marks are about nothing.
        with(|a, _| a.view = view(6, Some(A), both()));
    }

    #[test]
    fn a_discarded_copy_belongs_to_a_source_that_never_committed_what_it_proposed() {
        let (mut a, mut b) = resolved();
        // B shares no view with A but the one at which it joined A's history.
        a.history = crate::view::ViewHistory::default();
        b.history = a.history;
        b.history.push(a.view.mark());
        b.view = view(10, None, NodeSet::only(A));
        b.flags.copy_target = true;
        b.copy_id = CopyId([3; 16]);
        assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
        // A went on under a view of the same epoch.
        a.history.push(a.view.mark());
        a.view = View {
            id: ViewId([0xaa; 16]),
            ..view(10, Some(A), NodeSet::only(A))
        };
        assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
    }

    #[test]
    fn two_discarded_copies_have_no_source() {
        let (mut a, b) = resolved();
        a.view = view(7, None, NodeSet::EMPTY);
        let refuse = Verdict::Refuse(RefusedCode::NoSource);
        assert_eq!(verdict(&a, &b), refuse);
        // Neither is a copy that counts for nobody else.
        let (mut a, b) = resolved();
        a.view = view(6, Some(B), NodeSet::only(B));
        assert_eq!(verdict(&a, &b), refuse);
        let (mut a, b) = resolved();
        a.flags.copy_target = true;
        assert_eq!(verdict(&a, &b), refuse);
    }

    #[test]
    fn a_discarded_copy_on_a_failed_disk_is_filled_in_full_and_fills_nobody() {
        let (a, mut b) = resolved();
        b.flags.failed = true;
        assert_eq!(verdict(&a, &b), full(A, CopyCause::DiskFailed));
        let (mut a, b) = resolved();
        a.flags.failed = true;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
        let (mut a, b) = resolved();
        a.volume_id = VolumeId::NONE;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    }

    #[test]
    fn a_copy_recovered_by_force_is_never_merged() {
        // The target of a resync from A, made the only member: it knows no view of before.
        let (mut a, mut b) = members();
        a.view = view(6, Some(A), NodeSet::only(A));
        b.view = view(200, None, NodeSet::only(B));
        for serving in [true, false] {
            a.flags.serving = serving;
            assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
        }
        // A knows nothing of it either: neither that B was dropped, nor that anybody served.
        let (mut a, _) = members();
        a.flags.serving = false;
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
        a.view = view(5, None, both());
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
    }
}
