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
