//! What a monitor that failed does to its group.

use super::*;

#[test]
fn a_group_that_a_monitor_condemns_stops_in_good_order_and_waits_to_be_cleared() {
    let mut bed = Bed::online();
    assert!(bed.group.is_watched(bed.now));
    bed.tell(Event::Condemned { monitor: 1 });
    assert!(bed.did(Effect::GiveUp(Reason::Monitor(1))));
    assert!(
        !bed.group.is_watched(bed.now),
        "a second word changes nothing"
    );
    assert_eq!(bed.begun(), [(PROGRAM, STOP)], "without a retry");
    bed.tell(Event::Condemned { monitor: 0 });
    assert_eq!(bed.group.barred(), Some(Reason::Monitor(1)));
    bed.end(PROGRAM, Outcome::Done);
    bed.end(ADDRESS, Outcome::Done);
    bed.end(FILE_SYSTEM, Outcome::Done);
    assert!(bed.did(Effect::Released));
    assert_eq!(bed.state(), GroupState::StartFailed);
    bed.tell(Event::Order(Order::Clear));
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
}

#[test]
fn what_a_monitor_condemned_is_tried_again_after_a_takeover() {
    let mut bed = Bed::online();
    bed.tell(Event::Condemned { monitor: 0 });
    for resource in [PROGRAM, ADDRESS, FILE_SYSTEM] {
        bed.end(resource, Outcome::Done);
    }
    bed.tell(Event::TriedAgain);
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
}

#[test]
fn a_monitor_says_nothing_while_volumes_are_in_doubt_or_the_group_is_not_all_there() {
    let mut bed = Bed::online();
    bed.tell(Event::Volumes(Volumes::InDoubt));
    assert_eq!(bed.state(), GroupState::Online);
    assert!(!bed.group.is_watched(bed.now));
    bed.tell(Event::Condemned { monitor: 0 });
    assert_eq!(bed.group.barred(), None);
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert!(bed.group.is_watched(bed.now));
    bed.tell(Event::Broke { resource: PROGRAM });
    assert!(!bed.group.is_watched(bed.now));
    bed.tell(Event::Condemned { monitor: 0 });
    assert_eq!(bed.group.barred(), None);
}

#[test]
fn a_resource_that_a_monitor_restarts_again_and_again_uses_up_its_retries() {
    let mut bed = Bed::online();
    for round in 0..2 {
        assert_eq!(bed.state(), GroupState::Online, "round {round}");
        assert_eq!(bed.group.restarts(bed.now, PROGRAM), round == 0);
        bed.tell(Event::Broke { resource: PROGRAM });
        assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
        bed.end(PROGRAM, Outcome::Done);
        if round == 0 {
            bed.pass(RETRY_PAUSE);
            assert_eq!(bed.begun(), [(PROGRAM, START)]);
            bed.end(PROGRAM, Outcome::Done);
        }
    }
    assert_eq!(bed.group.barred(), Some(Reason::Resource(PROGRAM)));
}
