use std::vec;

use super::*;
use crate::keeper::HANDICAP;
use crate::limits::{CANCEL_GRACE, FENCE_RETRY, STABLE};
use crate::self_fencing::Left;

mod monitors;

struct Bed {
    group: Group,
    now: Instant,
    effects: Vec<Effect>,
}

const FILE_SYSTEM: usize = 0;
const ADDRESS: usize = 1;
const PROGRAM: usize = 2;

impl Bed {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::new(vec![ResourcePolicy::default(); 3]);
        // Of the other node there is nothing in most of these tests.
        policy.takeover_wait = Duration::ZERO;
        policy.living_wait = Duration::ZERO;
        change(&mut policy);
        let now = Instant::from_nanos(1_000_000_000);
        Self {
            group: Group::new(now, policy),
            now,
            effects: Vec::new(),
        }
    }

    /// A group whose volumes are served and of which nothing runs yet.
    fn served(change: impl FnOnce(&mut Policy)) -> Self {
        let mut bed = Self::new(change);
        bed.tell(Event::Tick);
        for resource in 0..3 {
            bed.end(resource, Outcome::Absent);
        }
        bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
        bed
    }

    fn online() -> Self {
        let mut bed = Self::served(|_| ());
        for resource in 0..3 {
            bed.end(resource, Outcome::Done);
        }
        assert_eq!(bed.state(), GroupState::Online);
        bed
    }

    fn tell(&mut self, event: Event) {
        self.effects.clear();
        self.group.handle(self.now, event, &mut self.effects);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.tell(Event::Tick);
    }

    /// The action of this resource ends so.
    fn end(&mut self, resource: usize, outcome: Outcome) {
        let running = self.group.resources[resource].running;
        let number = running.expect("an action").number;
        self.tell(Event::Ended {
            resource,
            number,
            outcome,
        });
    }

    fn state(&self) -> GroupState {
        self.group.state(self.now)
    }

    /// What was begun by the last event.
    fn begun(&self) -> Vec<(usize, Action)> {
        let action = |effect: &Effect| match effect {
            Effect::Act {
                resource, action, ..
            } => Some((*resource, *action)),
            Effect::Cancel { .. }
            | Effect::Released
            | Effect::Fence
            | Effect::FailedOver
            | Effect::MovedAway
            | Effect::GiveUp(_)
            | Effect::Overdue
            | Effect::Changed(_) => None,
        };
        self.effects.iter().filter_map(action).collect()
    }

    fn did(&self, effect: Effect) -> bool {
        self.effects.contains(&effect)
    }
}

const START: Action = Action::Start(Origin::Start);
const STOP: Action = Action::Stop(Manner::Orderly);
const KILL: Action = Action::Stop(Manner::Hard);

#[test]
fn resources_start_in_order_and_stop_in_reverse() {
    let mut bed = Bed::served(|_| ());
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
    bed.end(FILE_SYSTEM, Outcome::Done);
    assert_eq!(bed.begun(), [(ADDRESS, START)]);
    assert_eq!(bed.state(), GroupState::Starting { online: 1, all: 3 });
    bed.end(ADDRESS, Outcome::Done);
    assert_eq!(bed.begun(), [(PROGRAM, START)]);
    bed.end(PROGRAM, Outcome::Done);
    assert_eq!(bed.state(), GroupState::Online);
    bed.tell(Event::Order(Order::Stop));
    for resource in [PROGRAM, ADDRESS, FILE_SYSTEM] {
        assert_eq!(bed.begun(), [(resource, STOP)]);
        assert_eq!(bed.state(), GroupState::Stopping);
        bed.end(resource, Outcome::Done);
    }
    assert!(bed.did(Effect::Released));
    assert_eq!(bed.state(), GroupState::Offline);
}

#[test]
fn what_runs_when_the_daemon_begins_is_adopted_and_only_the_rest_started() {
    let mut bed = Bed::new(|_| ());
    bed.tell(Event::Tick);
    assert_eq!(bed.state(), GroupState::Unknown);
    bed.end(FILE_SYSTEM, Outcome::Done);
    bed.end(ADDRESS, Outcome::Done);
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.begun(), []);
    bed.end(PROGRAM, Outcome::Absent);
    assert_eq!(bed.begun(), [(PROGRAM, START)]);
}

#[test]
fn what_is_there_in_parts_is_stopped_before_it_is_started_and_what_is_above_it_first() {
    let mut bed = Bed::new(|_| ());
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    bed.end(FILE_SYSTEM, Outcome::Done);
    bed.end(ADDRESS, Outcome::Failed);
    bed.end(PROGRAM, Outcome::Done);
    assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
    bed.end(PROGRAM, Outcome::Done);
    assert_eq!(bed.begun(), [(ADDRESS, STOP)]);
    bed.end(ADDRESS, Outcome::Done);
    assert_eq!(bed.begun(), [(ADDRESS, START)]);
}

#[test]
fn nothing_starts_while_a_volume_does_not_answer_and_nothing_stops_for_a_while() {
    let mut bed = Bed::online();
    bed.tell(Event::Volumes(Volumes::InDoubt));
    bed.tell(Event::Broke { resource: PROGRAM });
    assert_eq!(bed.begun(), []);
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
    bed.end(PROGRAM, Outcome::Done);
    bed.tell(Event::Volumes(Volumes::InDoubt));
    bed.pass(Duration::from_secs(29));
    assert_eq!(bed.begun(), []);
    bed.pass(Duration::from_secs(1));
    assert_eq!(bed.begun(), [(FILE_SYSTEM, KILL), (ADDRESS, KILL)]);
}

#[test]
fn lost_volumes_stop_everything_at_once_and_break_off_what_is_under_way() {
    for lost in [Volumes::Gone, Volumes::LeaseOver] {
        let mut bed = Bed::served(|_| ());
        bed.end(FILE_SYSTEM, Outcome::Done);
        bed.end(ADDRESS, Outcome::Done);
        bed.tell(Event::Volumes(lost));
        assert_eq!(bed.begun(), [(FILE_SYSTEM, KILL), (ADDRESS, KILL)]);
        let cancelled = |effect: &Effect| matches!(effect, Effect::Cancel { resource: 2, .. });
        assert!(bed.effects.iter().any(cancelled));
        bed.end(PROGRAM, Outcome::Failed);
        assert_eq!(bed.begun(), [(PROGRAM, KILL)]);
        bed.pass(Duration::from_secs(2));
        assert!(bed.did(Effect::Overdue));
        for resource in 0..3 {
            bed.end(resource, Outcome::Done);
        }
        assert!(bed.did(Effect::Released));
        assert_eq!(bed.state(), GroupState::Offline);
    }
}

#[test]
fn a_start_that_fails_is_cleaned_up_retried_and_then_given_up_with_the_whole_group() {
    let mut bed = Bed::served(|_| ());
    bed.end(FILE_SYSTEM, Outcome::Done);
    for attempt in 0..2 {
        assert_eq!(bed.begun(), [(ADDRESS, START)]);
        bed.end(ADDRESS, Outcome::Failed);
        assert_eq!(bed.begun(), [(ADDRESS, STOP)]);
        let given_up = bed.did(Effect::GiveUp(Reason::Resource(ADDRESS)));
        assert_eq!(given_up, attempt == 1);
        bed.end(ADDRESS, Outcome::Done);
        if attempt == 0 {
            bed.pass(RETRY_PAUSE);
        }
    }
    assert_eq!(bed.begun(), [(FILE_SYSTEM, STOP)]);
    bed.end(FILE_SYSTEM, Outcome::Done);
    assert!(bed.did(Effect::Released));
    assert_eq!(bed.state(), GroupState::StartFailed);
    bed.tell(Event::Volumes(Volumes::Gone));
    bed.tell(Event::Volumes(Volumes::Served(Origin::Failover)));
    bed.pass(Duration::from_secs(100));
    assert_eq!(bed.begun(), [], "not tried again until it is cleared");
    bed.tell(Event::Order(Order::Clear));
    assert_eq!(
        bed.begun(),
        [(FILE_SYSTEM, Action::Start(Origin::Failover))]
    );
}

#[test]
fn a_resource_that_breaks_is_started_again_with_everything_above_it() {
    let mut bed = Bed::online();
    bed.tell(Event::Broke { resource: ADDRESS });
    assert_eq!(bed.begun(), [(PROGRAM, STOP)]);
    bed.end(PROGRAM, Outcome::Done);
    assert_eq!(bed.begun(), [(ADDRESS, STOP)]);
    bed.end(ADDRESS, Outcome::Done);
    bed.pass(RETRY_PAUSE);
    assert_eq!(bed.begun(), [(ADDRESS, START)]);
    bed.end(ADDRESS, Outcome::Done);
    bed.end(PROGRAM, Outcome::Done);
    assert_eq!(bed.state(), GroupState::Online);
}

#[test]
fn failures_are_forgotten_after_a_stable_time() {
    let mut bed = Bed::online();
    for _ in 0..3 {
        bed.pass(STABLE);
        bed.tell(Event::Broke { resource: PROGRAM });
        bed.end(PROGRAM, Outcome::Done);
        bed.pass(RETRY_PAUSE);
        bed.end(PROGRAM, Outcome::Done);
        assert_eq!(bed.state(), GroupState::Online);
    }
    bed.tell(Event::Broke { resource: PROGRAM });
    assert!(bed.did(Effect::GiveUp(Reason::Resource(PROGRAM))));
}

#[test]
fn a_stop_that_fails_fences_and_never_releases() {
    let mut bed = Bed::online();
    bed.tell(Event::Order(Order::Stop));
    bed.end(PROGRAM, Outcome::Done);
    bed.end(ADDRESS, Outcome::Failed);
    assert!(bed.did(Effect::Fence));
    assert_eq!(bed.state(), GroupState::StopFailed);
    bed.pass(FENCE_RETRY);
    assert!(bed.did(Effect::Fence), "said again while the gate is open");
    bed.tell(Event::Volumes(Volumes::Gone));
    assert_eq!(bed.begun(), [(FILE_SYSTEM, KILL), (ADDRESS, KILL)]);
    bed.end(FILE_SYSTEM, Outcome::Done);
    bed.end(ADDRESS, Outcome::Done);
    assert!(!bed.did(Effect::Released));
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    bed.tell(Event::Order(Order::Start));
    assert_eq!(bed.begun(), []);
    assert_eq!(bed.state(), GroupState::StopFailed);
    bed.tell(Event::Order(Order::Clear));
    let probes = [0, 1, 2].map(|resource| (resource, Action::Probe));
    assert_eq!(bed.begun(), probes, "cleared: nothing is believed");
}

#[test]
fn a_group_that_holds_after_a_failed_stop_shuts_no_gate() {
    let mut bed = Bed::served(|policy| policy.stop_failure = StopFailure::Hold);
    bed.end(FILE_SYSTEM, Outcome::Done);
    bed.tell(Event::Order(Order::Stop));
    bed.end(ADDRESS, Outcome::Failed);
    bed.end(ADDRESS, Outcome::Failed);
    assert!(!bed.did(Effect::Fence));
    assert_eq!(bed.state(), GroupState::StopFailed);
}

#[test]
fn a_hard_stop_is_tried_some_times_and_then_told() {
    let mut bed = Bed::online();
    bed.tell(Event::Volumes(Volumes::Gone));
    bed.end(ADDRESS, Outcome::Done);
    bed.end(PROGRAM, Outcome::Done);
    for _ in 1..HARD_STOPS_MAX {
        bed.end(FILE_SYSTEM, Outcome::Failed);
        assert_eq!(bed.begun(), []);
        bed.pass(RETRY_PAUSE);
        assert_eq!(bed.begun(), [(FILE_SYSTEM, KILL)]);
    }
    bed.end(FILE_SYSTEM, Outcome::Failed);
    assert_eq!(bed.state(), GroupState::StopFailed);
    bed.pass(Duration::from_secs(60));
    assert_eq!(bed.begun(), []);
}

#[test]
fn an_action_that_never_ends_counts_as_a_stop_that_failed() {
    let mut bed = Bed::served(|_| ());
    bed.pass(Duration::from_secs(60) + CANCEL_GRACE);
    let cancelled = |effect: &Effect| matches!(effect, Effect::Cancel { resource: 0, .. });
    assert!(bed.effects.iter().any(cancelled));
    bed.pass(CANCEL_GRACE);
    assert!(bed.did(Effect::Fence));
    assert_eq!(bed.state(), GroupState::StopFailed);
    bed.tell(Event::Volumes(Volumes::Gone));
    let others = [(ADDRESS, KILL), (PROGRAM, KILL)];
    assert!(bed.begun().iter().all(|begun| others.contains(begun)));
}

#[test]
fn a_third_failover_within_the_hour_is_not_followed() {
    let mut bed = Bed::served(|_| ());
    bed.group.policy.takeover_wait = Duration::from_secs(2);
    bed.tell(Event::Volumes(Volumes::Gone));
    bed.end(FILE_SYSTEM, Outcome::Failed);
    bed.end(FILE_SYSTEM, Outcome::Done);
    for round in 0..3 {
        bed.tell(Event::Volumes(Volumes::Served(Origin::Failover)));
        assert_eq!(
            bed.begun(),
            [],
            "the other node's resources have their time"
        );
        bed.pass(Duration::from_secs(2));
        if round == 2 {
            assert!(bed.did(Effect::GiveUp(Reason::PingPong)));
            assert_eq!(bed.state(), GroupState::Failed);
            break;
        }
        for resource in 0..3 {
            bed.end(resource, Outcome::Done);
        }
        bed.tell(Event::Volumes(Volumes::Gone));
        for resource in 0..3 {
            bed.end(resource, Outcome::Done);
        }
    }
    bed.tell(Event::Order(Order::Clear));
    assert_eq!(
        bed.begun(),
        [(FILE_SYSTEM, Action::Start(Origin::Failover))]
    );
}

#[test]
fn a_standby_that_begins_waits_a_moment_for_its_looks_and_stops_nothing() {
    let mut bed = Bed::new(|_| ());
    bed.tell(Event::Tick);
    bed.tell(Event::Volumes(Volumes::Gone));
    assert_eq!(bed.effects.len(), 1, "{:?}", bed.effects);
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
        assert_eq!(bed.begun(), []);
    }
    assert_eq!(bed.state(), GroupState::Offline);
}

#[test]
fn a_late_word_about_an_action_that_is_over_changes_nothing() {
    let mut bed = Bed::online();
    let before = bed.group.resource(PROGRAM);
    bed.tell(Event::Ended {
        resource: PROGRAM,
        number: 1,
        outcome: Outcome::Failed,
    });
    assert_eq!((bed.begun(), bed.group.resource(PROGRAM)), (vec![], before));
}

#[test]
fn failovers_of_earlier_runs_count_until_their_hour_is_over() {
    for (ago, follows) in [(3599, false), (3600, true)] {
        let mut bed = Bed::new(|_| ());
        for ago in [10, ago] {
            let ago = Duration::from_secs(ago);
            bed.tell(Event::Remembered {
                spent: Spent::Takeover,
                ago,
            });
        }
        for resource in 0..3 {
            bed.end(resource, Outcome::Absent);
        }
        bed.tell(Event::Volumes(Volumes::Served(Origin::Failover)));
        let origin = Origin::Failover;
        let begun = [(FILE_SYSTEM, Action::Start(origin))];
        assert_eq!(bed.begun() == begun, follows);
        assert_eq!(bed.did(Effect::FailedOver), follows);
        assert_eq!(bed.did(Effect::GiveUp(Reason::PingPong)), !follows);
    }
}

const WAIT: Duration = Duration::from_secs(14);

/// The other node gave the volumes up, or died, or was never seen: what it ran may run.
#[test]
fn nothing_starts_before_whatever_ran_on_the_other_node_is_gone() {
    for origin in [Origin::Start, Origin::Failover] {
        let mut bed = Bed::new(|policy| policy.takeover_wait = WAIT);
        bed.tell(Event::Tick);
        for resource in 0..3 {
            bed.end(resource, Outcome::Absent);
        }
        bed.pass(Duration::from_secs(100));
        // What was said before the volumes were served here is no word about what ran on them since.
        let asked = bed.now;
        bed.tell(Event::OtherClear { asked });
        bed.pass(Duration::from_millis(1));
        bed.tell(Event::Volumes(Volumes::Served(origin)));
        assert_eq!(bed.begun(), [], "{origin:?}");
        bed.pass(WAIT.saturating_sub(Duration::from_millis(1)));
        assert_eq!(bed.begun(), [], "{origin:?}");
        assert_eq!(
            bed.group.deadline(bed.now),
            Some(bed.now + Duration::from_millis(1))
        );
        bed.pass(Duration::from_millis(1));
        assert_eq!(bed.begun(), [(FILE_SYSTEM, Action::Start(origin))]);
    }
}

/// It was switched off long ago, and an operator starts the group: nobody is waited for twice.
#[test]
fn a_node_that_is_dead_for_longer_than_the_wait_is_not_waited_for_again() {
    let mut bed = Bed::new(|policy| policy.takeover_wait = WAIT);
    bed.tell(Event::Tick);
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
    }
    let since = Some(bed.now);
    bed.tell(Event::OtherDead { since });
    bed.pass(WAIT);
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.begun(), []);
    assert_eq!(bed.group.deadline(bed.now), Some(bed.now + HANDICAP));
    bed.pass(HANDICAP);
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
    // One that was heard since may have something, whatever it was before.
    bed.tell(Event::OtherDead { since: None });
    assert!(bed.group.waits_until() > bed.now);
}

/// It lived until after the volumes were served here: its lease may last from its last word on.
#[test]
fn a_node_that_dies_while_it_is_waited_for_is_waited_for_from_its_last_word() {
    let mut bed = Bed::new(|policy| policy.takeover_wait = WAIT);
    bed.tell(Event::Tick);
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
    }
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    bed.pass(WAIT / 2);
    let since = Some(bed.now);
    bed.tell(Event::OtherDead { since });
    bed.pass(WAIT);
    bed.tell(Event::OtherDead { since: None });
    assert_eq!(bed.begun(), []);
    bed.pass(HANDICAP);
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
}

#[test]
fn where_nothing_is_left_on_the_other_node_services_start_at_once() {
    let mut bed = Bed::new(|policy| policy.takeover_wait = WAIT);
    bed.tell(Event::Tick);
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
    }
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    bed.pass(Duration::from_millis(250));
    let asked = bed.now;
    bed.pass(Duration::from_millis(250));
    bed.tell(Event::OtherClear { asked });
    assert_eq!(bed.begun(), [(FILE_SYSTEM, START)]);
}

#[test]
fn a_node_says_that_nothing_is_left_only_when_it_was_looked_at_and_nothing_is_about_to_start() {
    let mut bed = Bed::new(|policy| policy.takeover_wait = WAIT);
    bed.tell(Event::Tick);
    assert_eq!(
        bed.group.left(bed.now),
        Left::Something,
        "nobody has looked"
    );
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
    }
    assert_eq!(bed.group.left(bed.now), Left::Nothing);
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.group.left(bed.now), Left::Something, "it will start");
    let asked = bed.now;
    bed.tell(Event::OtherClear { asked });
    bed.end(FILE_SYSTEM, Outcome::Done);
    bed.tell(Event::Volumes(Volumes::Gone));
    // The start of the second one was under way.
    for resource in [FILE_SYSTEM, ADDRESS, ADDRESS] {
        assert_eq!(bed.group.left(bed.now), Left::Something, "it stops");
        bed.end(resource, Outcome::Done);
    }
    assert_eq!(bed.group.left(bed.now), Left::Nothing);
}

#[test]
fn a_hard_stop_that_a_crash_cut_short_has_no_more_time_than_it_had() {
    let mut bed = Bed::new(|_| ());
    let before = bed.now;
    bed.pass(Duration::from_secs(1));
    bed.tell(Event::HardSince(before));
    assert_eq!(bed.group.hard_since(bed.now), Some(before));
    bed.tell(Event::Volumes(Volumes::Gone));
    assert_eq!(bed.group.hard_since(bed.now), Some(before));
    // The looks that were under way end, then the stops.
    bed.pass(PROBE_PATIENCE);
    for _ in 0..2 {
        for resource in 0..3 {
            if bed.group.resources[resource].running.is_some() {
                bed.end(resource, Outcome::Done);
            }
        }
    }
    assert_eq!(bed.group.left(bed.now), Left::Nothing);
    assert_eq!(bed.group.hard_since(bed.now), None);
}

#[test]
fn what_may_run_again_is_not_being_stopped_any_more() {
    let mut bed = Bed::new(|_| ());
    bed.tell(Event::HardSince(bed.now));
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.group.hard_since(bed.now), None);
}

/// The other node counts from when the volumes were shut here. A volume's daemon that is silent for a moment, or an operator
/// who has it tried once more, gives a stop that hangs no more time.
#[test]
fn a_hard_stop_that_hangs_has_its_time_once() {
    let mut bed = Bed::new(|_| ());
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    for resource in 0..3 {
        bed.end(resource, Outcome::Done);
    }
    bed.tell(Event::Volumes(Volumes::Gone));
    let since = Some(bed.now);
    bed.pass(Duration::from_millis(500));
    bed.tell(Event::Volumes(Volumes::InDoubt));
    assert_eq!(bed.group.hard_since(bed.now), since);
    bed.pass(Duration::from_millis(500));
    bed.tell(Event::Volumes(Volumes::Gone));
    for resource in 0..3 {
        bed.end(resource, Outcome::Failed);
    }
    bed.tell(Event::Order(Order::Clear));
    assert_eq!(bed.group.hard_since(bed.now), since);
    // Served here again, nobody waits for its end.
    bed.tell(Event::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(bed.group.hard_since(bed.now), None);
}

/// The disk there failed, the volume was served through the copy here, and its daemon is gone: services there are in doubt.
#[test]
fn a_node_that_lives_is_waited_for_with_its_doubts() {
    let mut bed = Bed::new(|policy| {
        policy.takeover_wait = WAIT;
        policy.living_wait = Duration::from_secs(35);
    });
    bed.tell(Event::Tick);
    for resource in 0..3 {
        bed.end(resource, Outcome::Absent);
    }
    bed.tell(Event::Volumes(Volumes::Served(Origin::Failover)));
    let until = bed.now + WAIT + Duration::from_secs(35);
    bed.pass(Duration::from_secs(2));
    bed.tell(Event::Linked(true));
    assert_eq!(bed.group.waits_until(), bed.now + WAIT);
    bed.tell(Event::Linked(false));
    assert_eq!(bed.group.waits_until(), until);
    bed.pass(WAIT + Duration::from_secs(32));
    assert_eq!(bed.begun(), []);
    // Its daemon runs again, and tells there that it serves nothing: that stops them.
    bed.tell(Event::Linked(true));
    assert_eq!(bed.group.waits_until(), until);
    bed.tell(Event::Linked(false));
    // Or it says that nothing is left.
    let asked = bed.now;
    bed.tell(Event::OtherClear { asked });
    assert_eq!(
        bed.begun(),
        [(FILE_SYSTEM, Action::Start(Origin::Failover))]
    );
}
