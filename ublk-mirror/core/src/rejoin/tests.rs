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
fn who_agreed_in_vain_to_be_dropped_takes_the_place_of_a_failed_disk() {
    let (mut a, mut b) = members();
    // B has it on disk, A's disk failed before.
    b.history.push(a.view.mark());
    b.base = a.view.mark();
    b.view = view(6, Some(A), NodeSet::only(A));
    (b.flags.copy_target, b.copy_id) = (true, CopyId([3; 16]));
    (a.flags.failed, a.flags.serving, a.flags.unclean) = (true, false, true);
    assert_eq!(verdict(&a, &b), full(B, CopyCause::DiskFailed));
    // A agreed to be filled, and B never heard that.
    let mut target = a;
    target.history.push(a.view.mark());
    target.history.push(b.view.mark());
    target.view = view(7, None, NodeSet::only(B));
    target.flags.failed = false;
    (target.flags.copy_target, target.copy_id) = (true, CopyId([4; 16]));
    assert_eq!(verdict(&target, &b), full(B, CopyCause::UnknownState));
    // Its own disk failed meanwhile.
    b.flags.failed = true;
    assert_eq!(verdict(&target, &b), Verdict::Refuse(RefusedCode::NoSource));
    b.flags.failed = false;
    // It never counted under that view: it was blank, say, and only heard of it.
    let heard = State {
        base: view(2, None, both()).mark(),
        ..b
    };
    assert_eq!(verdict(&a, &heard), Verdict::Refuse(RefusedCode::NoSource));
    // Isolated, it is no source; and had A written it down, A alone would have all of it.
    b.flags.isolated = true;
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    b.flags.isolated = false;
    a.history.push(a.view.mark());
    a.view = b.view;
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    a.view = view(7, None, NodeSet::only(A));
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
}

#[test]
fn an_isolated_copy_is_left_apart_and_is_never_a_source() {
    let apart = |extent| Verdict::Apart { source: A, extent };
    let (mut a, mut b) = members();
    for state in [&mut a, &mut b] {
        state.base = state.view.mark();
        state.history.push(view(5, Some(A), both()).mark());
        state.view = view(6, Some(A), NodeSet::only(A));
    }
    b.flags.isolated = true;
    assert_eq!(verdict(&a, &b), apart(Extent::Marked));
    // The answer was lost: the other side still counts it.
    let mut older = a;
    (older.view, older.history) = (view(5, Some(A), both()), ViewHistory::default());
    assert_eq!(verdict(&older, &b), apart(Extent::Marked));
    // Attached, it gets what it missed.
    b.flags.isolated = false;
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    // Marked by an operator too, it is still left apart first.
    b.flags.invalidated = true;
    let anew = Verdict::Copy {
        source: A,
        cause: CopyCause::Invalidated,
        extent: Extent::Full,
    };
    assert_eq!(verdict(&a, &b), anew);
    b.flags.isolated = true;
    assert_eq!(verdict(&a, &b), apart(Extent::Full));
    b.flags.invalidated = false;
    // Nothing is taken from it, whatever became of the other one.
    b.flags.isolated = true;
    a.flags.serving = false;
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
    (b.view, b.base) = (a.view, a.base);
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
    let alone = State {
        view: view(1, None, NodeSet::only(A)),
        known_peer_boot: BootId::NONE,
        ..a
    };
    assert_eq!(verdict(&alone, &blank), full(A, CopyCause::FirstCopy));
    assert_eq!(verdict(&a, &blank), full(A, CopyCause::Replaced));
    for had in [
        State {
            known_peer_boot: a.known_peer_boot,
            ..alone
        },
        State {
            base: view(1, None, both()).mark(),
            ..alone
        },
    ] {
        assert_eq!(verdict(&had, &blank), full(A, CopyCause::Replaced));
    }
    let no_source = refuse(RefusedCode::NoSource);
    for change in [
        (|a: &mut State| a.flags.failed = true) as fn(&mut State),
        |a| a.flags.invalidated = true,
        |a| a.flags.copy_target = true,
        |a| a.view = view(6, None, NodeSet::only(B)),
    ] {
        let mut a = a;
        change(&mut a);
        assert_eq!(verdict(&a, &blank), no_source);
    }
    for (change, code) in [
        (
            (|blank: &mut State| blank.logical_block_bytes = 4096) as fn(&mut State),
            RefusedCode::BlockSize,
        ),
        (|blank| blank.read_lease_ms = 1, RefusedCode::Lease),
        (|blank| blank.size_sectors = 1, RefusedCode::Size),
    ] {
        let mut blank = blank;
        change(&mut blank);
        assert_eq!(verdict(&a, &blank), refuse(code));
    }
    assert_eq!(verdict(&blank, &blank), refuse(RefusedCode::BothBlank));
}

#[test]
fn one_view_has_one_meaning_and_somebody_in_it() {
    let (a, mut b) = members();
    b.view.active = Some(B);
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
    let nobody = |state: State| State {
        view: view(6, None, NodeSet::only(NodeId::new(2).unwrap())),
        ..state
    };
    let (a, b) = (nobody(a), nobody(b));
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
}

/// A went alone from view 5, was the source for a copy of B's, and both count again under view 7.
fn widened_since() -> (State, State) {
    let (mut a, b) = members();
    a.history.push(a.view.mark());
    a.base = a.view.mark();
    a.history.push(view(6, Some(A), NodeSet::only(A)).mark());
    a.view = view(7, None, both());
    a.lineage = CopyId([3; 16]);
    a.flags.serving = false;
    (a, b)
}

#[test]
fn an_old_disk_of_a_member_is_no_member() {
    let (mut a, mut b) = widened_since();
    let anew = full(A, CopyCause::UnknownState);
    assert_eq!(verdict(&a, &b), anew);
    // It served when it was taken away, and both machines booted since.
    b.flags.unclean = true;
    (a.boot, b.boot) = (BootId([98; 16]), BootId([99; 16]));
    assert_eq!(verdict(&a, &b), anew);
    // Its word against the other's disk is as old as itself.
    b.flags.peer_failed = true;
    assert_eq!(verdict(&a, &b), anew);
    b.flags.peer_failed = false;
    // Nor does it take the place of the disk that failed: acknowledged writes are there, and nowhere else.
    a.flags.failed = true;
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::NoSource));
    a.flags.failed = false;
    // Nor is it a split brain if the other side serves.
    (a.view.active, a.flags.serving) = (Some(A), true);
    assert_eq!(verdict(&a, &b), anew);
}

#[test]
fn an_old_disk_that_had_left_is_not_the_target_of_the_widening() {
    let (a, mut b) = widened_since();
    b.history.push(b.view.mark());
    b.view = view(6, Some(A), NodeSet::only(A));
    assert_eq!(verdict(&a, &b), full(A, CopyCause::WideningInterrupted));
    (b.flags.copy_target, b.copy_id) = (true, CopyId([4; 16]));
    assert_eq!(verdict(&a, &b), full(A, CopyCause::WideningInterrupted));
    b.copy_id = a.lineage;
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::WideningInterrupted));
}

#[test]
fn marks_that_another_copy_took_away_tell_nothing_of_an_old_disk() {
    // B's new disk was being filled; its old one is back, as it left: still a member, or after it had agreed.
    let (mut a, mut b) = members();
    a.base = a.view.mark();
    a.history.push(a.view.mark());
    a.view = view(6, Some(A), NodeSet::only(A));
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    a.lineage = CopyId([3; 16]);
    assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
    b.view = a.view;
    b.history = a.history;
    assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
}

#[test]
fn what_both_left_is_remembered_however_often_the_view_changed_since() {
    let (mut a, mut b) = members();
    a.base = a.view.mark();
    a.view = view(40, Some(A), NodeSet::only(A));
    a.history = ViewHistory::default();
    for epoch in 30..40 {
        a.history.push(view(epoch, None, NodeSet::only(A)).mark());
    }
    // It was off, or agreed to be dropped under a view that fell out too.
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    b.base = b.view.mark();
    b.history.push(b.view.mark());
    b.view = view(6, Some(A), NodeSet::only(A));
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    // An epoch is no view.
    b.base = ViewMark::default();
    b.history = ViewHistory::default();
    b.view = View {
        id: ViewId([0xbb; 16]),
        ..view(5, None, both())
    };
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
}

#[test]
fn who_counted_in_the_source_s_view_and_left_it_in_vain_gets_what_is_marked() {
    let (a, mut b) = members();
    b.base = b.view.mark();
    b.history.push(b.view.mark());
    b.view = view(6, Some(A), NodeSet::only(A));
    assert_eq!(verdict(&a, &b), marked(A, CopyCause::Outdated));
    // An image of some time ago, which joined that history only to stay apart.
    b.base = view(3, Some(A), both()).mark();
    assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
    // The same after the other side went on alone.
    let mut alone = a;
    alone.base = a.view.mark();
    alone.history.push(a.view.mark());
    alone.view = view(7, Some(A), NodeSet::only(A));
    assert_eq!(verdict(&alone, &b), full(A, CopyCause::UnknownState));
    b.base = a.view.mark();
    assert_eq!(verdict(&alone, &b), marked(A, CopyCause::Outdated));
}

#[test]
fn a_disk_that_went_alone_is_a_split_brain_for_the_pair_that_was_made_of_the_other_one() {
    // Both in 5. A went alone in 6 and died, an operator took over on B in 7, a new disk of A was filled, both in 9. Then
    // A's old disk comes back: nothing of what B acknowledged since is on it.
    let (mut a, mut b) = members();
    let common = a.view.mark();
    for state in [&mut a, &mut b] {
        state.base = common;
        state.history.push(common);
        state.flags.serving = false;
    }
    a.view = view(6, Some(A), NodeSet::only(A));
    for epoch in [7, 8] {
        b.history
            .push(view(epoch, Some(B), NodeSet::only(B)).mark());
    }
    b.lineage = CopyId([7; 16]);
    for active in [None, Some(A), Some(B)] {
        b.view = view(9, active, both());
        assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
    }
    // Many views later only the bases tell of 5.
    b.history = ViewHistory::default();
    b.view = view(90, None, both());
    assert_eq!(verdict(&a, &b), Verdict::Refuse(RefusedCode::SplitBrain));
}

#[test]
fn an_old_disk_of_a_source_fills_nobody_who_counted_later() {
    // A was alone in 2. B counted in 5, and left by consent; then A's disk of 2 comes back.
    let (mut a, mut b) = members();
    a.flags.serving = false;
    a.view = view(2, Some(A), NodeSet::only(A));
    a.base = view(1, Some(A), both()).mark();
    a.history.push(a.base);
    for epoch in [1, 2, 3, 5] {
        b.history.push(view(epoch, Some(A), both()).mark());
    }
    b.base = view(5, Some(A), both()).mark();
    b.view = view(6, Some(A), NodeSet::only(A));
    let refuse = Verdict::Refuse(RefusedCode::NoSource);
    assert_eq!(verdict(&a, &b), refuse);
    // The same if B was isolated, and attached since or not.
    b.flags.isolated = true;
    assert_eq!(verdict(&a, &b), refuse);
    b.flags.isolated = false;
    // A disk that had left itself, one of a member, and one that B never heard of.
    let mut left = a;
    left.view = view(2, Some(B), NodeSet::only(B));
    assert_eq!(verdict(&left, &b), refuse);
    let mut member = a;
    (member.view, member.base) = (view(3, Some(A), both()), ViewMark::default());
    assert_eq!(verdict(&member, &b), refuse);
    b.history = ViewHistory::default();
    for epoch in [1, 4, 5] {
        b.history.push(view(epoch, Some(A), both()).mark());
    }
    assert_eq!(verdict(&a, &b), refuse);
}

#[test]
fn an_old_disk_of_a_target_does_not_go_on_where_its_resync_ended() {
    let (mut a, mut b) = members();
    b.view = view(6, Some(A), NodeSet::only(A));
    b.flags.copy_target = true;
    b.copy_id = CopyId([3; 16]);
    a.lineage = b.copy_id;
    a.history.push(b.view.mark());
    a.view = view(7, Some(A), both());
    assert_eq!(
        verdict(&a, &b),
        marked(A, CopyCause::WideningInterrupted),
        "the widening was interrupted"
    );
    a.history.push(a.view.mark());
    a.view = view(8, Some(A), both());
    assert_eq!(verdict(&a, &b), full(A, CopyCause::WideningInterrupted));
}

#[test]
fn an_image_that_wrote_the_source_s_view_down_to_stay_apart_gets_everything() {
    let (mut a, mut b) = members();
    a.base = view(5, Some(A), both()).mark();
    for epoch in [3, 4, 5] {
        a.history.push(view(epoch, Some(A), both()).mark());
    }
    a.view = view(6, Some(A), NodeSet::only(A));
    b.base = view(3, Some(A), both()).mark();
    b.history.push(b.base);
    b.view = view(4, Some(A), NodeSet::only(A));
    b.flags.isolated = true;
    let apart = Verdict::Apart {
        source: A,
        extent: Extent::Full,
    };
    assert_eq!(verdict(&a, &b), apart);
    b.history.push(b.view.mark());
    b.view = a.view;
    assert_eq!(verdict(&a, &b), apart, "its answer was lost");
    b.flags.isolated = false;
    assert_eq!(verdict(&a, &b), full(A, CopyCause::UnknownState));
}
