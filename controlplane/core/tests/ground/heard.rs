//! Who was heard since, and what counts no more because of it.

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{ArbiterKind, Event, Keeper};
use controlplane_core::partition::Standing;
use controlplane_core::self_fencing::{Confirmations, Ground};

use super::{BEGAN_MS, Bed, TIMEOUT, TIMEOUT_MS, VOLUME, at, facts};

/// The interconnects are down, and the mirror link outlives them for long. Then it ends as well, with the volume's daemon
/// silent: the peer takes over. When the interconnects come back, what was forgiven before says nothing.
#[test]
fn a_gap_that_the_mirror_link_outlived_is_one_when_it_ends() {
    let mut bed = Bed::serving();
    for _ in 0..1000 {
        bed.pass(100);
        bed.answer();
        bed.says(Some(facts(Standing::Serving, true, false)));
        assert_eq!(bed.ground(), Ground::Leased, "at {}", bed.now);
    }
    bed.says(None);
    bed.pass(TIMEOUT_MS);
    bed.feed(Event::Peer(Presence::Dead));
    assert_eq!(bed.ground(), Ground::Over);
    bed.pass(800);
    bed.feed(Event::Peer(Presence::Alive));
    for _ in 0..200 {
        bed.confirm();
        assert_eq!(bed.ground(), Ground::Over, "at {}", bed.now);
        bed.pass(250);
    }
    // The two meet, and the copy here is served beside the peer's.
    bed.says(Some(facts(Standing::Serving, true, false)));
    assert_eq!(bed.ground(), Ground::Leased);
}

/// A whole resync: the copy here alone counts, and is linked. `lockstepd` is started anew while the volume's daemon is slow.
#[test]
fn a_copy_that_is_alone_and_linked_leaves_a_lease_for_the_next_run() {
    let mut bed = Bed::serving();
    bed.loses_the_peer();
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.pass(60_000);
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.feed(Event::Peer(Presence::Alive));
    for _ in 0..100 {
        bed.confirm();
        bed.answer();
        bed.says(Some(facts(Standing::Serving, true, true)));
        bed.pass(250);
    }
    assert_eq!(bed.ground(), Ground::Alone);
    assert!(!bed.keeper.is_left_alone(at(bed.now)));
    let left = bed.keeper.lease_confirmed();
    assert!(left >= at(bed.now - 250));
    let now = bed.now + 700;
    let keeper = Keeper::new(at(now), ArbiterKind::Register, [VOLUME], &[3; 32]);
    bed.keeper = keeper.leasing(TIMEOUT, Some(left), None);
    bed.thread = Confirmations::new(TIMEOUT, Some(left));
    bed.now = now;
    bed.says(None);
    for _ in 0..20 {
        bed.confirm();
        assert_eq!(bed.ground(), Ground::Leased, "at {}", bed.now);
        bed.pass(250);
    }
}

/// A daemon says that it is linked for as long as it heard the peer in the last two seconds, whatever the timeout is.
#[test]
fn a_link_that_merely_was_heard_lately_forgives_no_gap() {
    let mut bed = Bed::serving();
    bed.pass(TIMEOUT_MS);
    let stale = || Some(facts(Standing::Serving, true, false));
    bed.says(stale());
    assert_eq!(bed.ground(), Ground::Over);
    bed.pass(100);
    bed.says(stale());
    bed.pass(3000);
    bed.confirm();
    assert_eq!(bed.ground(), Ground::Over);
    bed.pass(250);
    bed.confirm();
    assert_eq!(bed.ground(), Ground::Over);
}

/// The other node comes back while the volume's daemon here answers nothing: the two copies may be equal again, and both count,
/// before anybody here knows it. Then this node is cut off.
#[test]
fn a_silent_copy_that_was_alone_counts_no_more_once_the_peer_was_heard() {
    let alone = || Some(facts(Standing::Serving, false, true));
    for presence in [Presence::Alive, Presence::Deaf] {
        let mut bed = Bed::serving();
        bed.loses_the_peer();
        bed.says(alone());
        bed.pass(60_000);
        bed.says(alone());
        bed.pass(500);
        bed.says(None);
        bed.feed(Event::Peer(presence));
        bed.confirm();
        assert_eq!(bed.ground(), Ground::Alone);
        bed.pass(500);
        assert_eq!(
            bed.ground(),
            Ground::Over,
            "a claim would have been answered"
        );
        bed.pass(2000);
        bed.feed(Event::Peer(Presence::Dead));
        for _ in 0..300 {
            bed.pass(100);
            assert_eq!(bed.ground(), Ground::Over, "at {}", bed.now);
        }
        // An answer since then is one.
        bed.says(alone());
        bed.pass(10_000);
        assert_eq!(bed.ground(), Ground::Alone);
    }
}

/// The same while no `lockstepd` ran: what its last run saw is older than the peer's return.
#[test]
fn what_an_earlier_run_saw_counts_no_more_once_the_peer_was_heard() {
    for heard in [true, false] {
        let keeper = Keeper::new(at(BEGAN_MS), ArbiterKind::Register, [VOLUME], &[3; 32]);
        let mut bed = Bed::begin(ArbiterKind::Register, None, None);
        bed.keeper = keeper.leasing(TIMEOUT, None, None).left_alone();
        bed.keeper.reported();
        bed.says(None);
        bed.pass(500);
        if heard {
            bed.feed(Event::Peer(Presence::Alive));
            bed.confirm();
        }
        bed.pass(TIMEOUT_MS);
        bed.feed(Event::Peer(Presence::Dead));
        bed.pass(400);
        assert_eq!(bed.ground(), Ground::Alone, "it may look");
        bed.pass(100);
        let expected = if heard { Ground::Over } else { Ground::Alone };
        assert_eq!(bed.ground(), expected, "heard: {heard}");
    }
}

/// The daemon was away for longer than the time lasts, or one of before left nothing behind. The volume is served here with the
/// peer, which has only to be heard.
#[test]
fn a_run_that_begins_late_waits_for_the_peers_first_word() {
    let served = || Some(facts(Standing::Serving, true, false));
    for left in [None, Some(BEGAN_MS - 60_000)] {
        let mut bed = Bed::begin(ArbiterKind::Register, left, None);
        bed.says(None);
        assert_eq!(bed.ground(), Ground::Unlooked, "it is asked again");
        bed.says(served());
        bed.feed(Event::Peer(Presence::Alive));
        bed.pass(100);
        bed.confirm_what_was_sent(BEGAN_MS - 50);
        bed.says(served());
        assert_eq!(bed.ground(), Ground::Unlooked);
        assert!(
            !bed.keeper.has_looked(at(bed.now)),
            "the next run shares it"
        );
        bed.pass(250);
        bed.confirm();
        bed.says(served());
        assert_eq!(bed.ground(), Ground::Leased);
        assert!(bed.keeper.has_looked(at(bed.now)));
        // That was the first word: a later gap is one.
        bed.pass(TIMEOUT_MS);
        assert_eq!(bed.ground(), Ground::Over);
    }
}

#[test]
fn the_peers_first_word_is_not_waited_for_beyond_the_first_look() {
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    bed.says(Some(facts(Standing::Serving, true, false)));
    bed.pass(2999);
    assert_eq!(bed.ground(), Ground::Unlooked);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
    assert!(bed.keeper.has_looked(at(bed.now)));
    // Nor for a moment by whoever does not serve with the peer, or shares the time of one that looked before.
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    bed.says(Some(facts(Standing::Serving, false, false)));
    assert_eq!(bed.ground(), Ground::Over);
    let mut bed = Bed::begin(ArbiterKind::Register, None, Some(BEGAN_MS - 3000));
    bed.says(Some(facts(Standing::Serving, true, false)));
    assert_eq!(bed.ground(), Ground::Over);
}

/// The other node's services have a lease by what it was answered, also by a link that was only coming up.
#[test]
fn who_was_heard_on_the_mirror_link_may_have_been_answered() {
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    let standby = || Some(facts(Standing::Standby, false, false));
    bed.says(standby());
    bed.pass(100);
    bed.says(standby());
    let last = at(bed.now);
    bed.keeper.heard_on_the_link(VOLUME, last);
    assert_eq!(bed.keeper.apart_since(), Some(last));
    bed.keeper.heard_on_the_link(VOLUME, at(bed.now - 50));
    assert_eq!(bed.keeper.apart_since(), Some(last));
    // Nor is anybody waited for by what is spoken to a copy that alone counts.
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.pass(5000);
    bed.keeper.heard_on_the_link(VOLUME, at(bed.now));
    assert_eq!(bed.keeper.apart_since(), Some(last));
}

/// The copy here alone counted when it was last heard. While it was silent a resync ended, and the link broke again.
#[test]
fn a_copy_that_counts_no_more_alone_may_have_been_linked_meanwhile() {
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.pass(100);
    bed.says(None);
    bed.pass(5000);
    bed.says(Some(facts(Standing::Frozen, false, false)));
    assert_eq!(bed.keeper.apart_since(), Some(at(bed.now)));
}
