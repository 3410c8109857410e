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

fn restart(bed: &mut Bed) {
    bed.tell(Event::Restart {
        resource: PROGRAM,
        monitor: 1,
    });
    assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
    bed.end(PROGRAM, Outcome::Done);
    bed.pass(RETRY_PAUSE);
    assert_eq!(bed.begun(), [(PROGRAM, START)]);
}

#[test]
fn a_monitor_restarts_a_resource_as_often_as_it_is_retried_and_again_when_that_is_forgotten() {
    let mut bed = Bed::online();
    restart(&mut bed);
    bed.end(PROGRAM, Outcome::Done);
    assert!(!bed.group.restarts(bed.now, PROGRAM));
    let (resource, monitor) = (PROGRAM, 1);
    bed.tell(Event::Restart { resource, monitor });
    assert_eq!(bed.state(), GroupState::Online, "it has no more");
    bed.pass(STABLE);
    assert!(bed.group.restarts(bed.now, PROGRAM));
    restart(&mut bed);
    bed.end(PROGRAM, Outcome::Done);
    assert!(!bed.group.restarts(bed.now, PROGRAM));
}

/// The monitor took nothing of its tries, and what comes of them comes of the monitor.
#[test]
fn a_resource_that_does_not_start_again_after_a_monitors_restart_has_all_its_tries_and_is_condemned()
 {
    let mut bed = Bed::online();
    restart(&mut bed);
    bed.end(PROGRAM, Outcome::Failed);
    assert_eq!(bed.group.barred(), None, "one try is left");
    assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
    bed.end(PROGRAM, Outcome::Done);
    bed.pass(RETRY_PAUSE);
    assert_eq!(bed.begun(), [(PROGRAM, START)]);
    bed.end(PROGRAM, Outcome::Failed);
    assert!(bed.did(Effect::GiveUp(Reason::Monitor(1))));
    for resource in [PROGRAM, ADDRESS, FILE_SYSTEM] {
        bed.end(resource, Outcome::Done);
    }
    // It is tried once more; what comes of that comes of the resource.
    bed.tell(Event::TriedAgain);
    for resource in [FILE_SYSTEM, ADDRESS] {
        bed.end(resource, Outcome::Done);
    }
    for _ in 0..2 {
        bed.end(PROGRAM, Outcome::Failed);
        bed.end(PROGRAM, Outcome::Done);
        bed.pass(RETRY_PAUSE);
    }
    assert_eq!(bed.group.barred(), Some(Reason::Resource(PROGRAM)));
}

#[test]
fn a_failure_after_a_restart_that_went_well_is_the_resources_own() {
    let mut bed = Bed::online();
    restart(&mut bed);
    bed.end(PROGRAM, Outcome::Done);
    for round in 0..2 {
        bed.tell(Event::Broke { resource: PROGRAM });
        assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
        bed.end(PROGRAM, Outcome::Done);
        if round == 0 {
            bed.pass(RETRY_PAUSE);
            bed.end(PROGRAM, Outcome::Done);
        }
    }
    assert_eq!(bed.group.barred(), Some(Reason::Resource(PROGRAM)));
}
