use super::*;
use crate::keeper::Side;
use core::time::Duration;
use proptest::prelude::*;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

/// It failed a second ago, and nothing keeps it from moving.
fn moves() -> Seen {
    Seen {
        here: Here::Failed,
        monitor: false,
        since: at(1000),
        on_failure: OnFailure::Failover,
        within: Duration::from_secs(3600),
        moves_left: true,
        durable: true,
        moving: false,
        recorded: true,
        there: Failure::None,
        agreed: true,
        around: Around {
            served: true,
            desire: Desire::Runs(None),
            other: Other::Ready,
        },
    }
}

type Spoil = fn(&mut Seen);

#[test]
fn every_row_rules_and_only_the_last_one_moves() {
    let spoil: [(Spoil, Case); 14] = [
        (|seen| seen.here = Here::Waits, Case::NotFailed),
        (|seen| seen.around.served = false, Case::Unserved),
        (|seen| seen.here = Here::Alike, Case::Alike),
        (|seen| seen.on_failure = OnFailure::Wait, Case::Configured),
        (
            |seen| seen.around.desire = Desire::Moves(Side::Other),
            Case::Wished,
        ),
        (|seen| seen.there = Failure::Stands, Case::FailedThere),
        (|seen| seen.moves_left = false, Case::Spent),
        (|seen| seen.within = Duration::from_secs(1), Case::Late),
        (|seen| seen.recorded = false, Case::Unrecorded),
        (|seen| seen.around.other = Other::Silent, Case::Silent),
        (|seen| seen.around.other = Other::Suspended, Case::Suspended),
        (
            |seen| seen.around.other = Other::NotCurrent,
            Case::NotCurrent,
        ),
        (|seen| seen.around.other = Other::Untold, Case::Untold),
        (|_| {}, Case::Ready),
    ];
    // Whatever else would move it: a row rules over all that come after it.
    for (number, (_, case)) in spoil.iter().enumerate() {
        let mut seen = moves();
        for (spoil, _) in spoil.iter().skip(number).rev() {
            spoil(&mut seen);
        }
        let (found, then) = after_failure(at(2000), &seen);
        assert_eq!((found, FAILED[number].0), (*case, *case));
        assert_eq!(then == Then::Moves, *case == Case::Ready);
    }
    // What another group's move left a moment ago is not told yet; nor was a clear carried out there.
    let untold: [Spoil; 2] = [
        |seen| seen.agreed = false,
        |seen| seen.there = Failure::Forgotten,
    ];
    for spoil in untold {
        let mut seen = moves();
        spoil(&mut seen);
        let found = after_failure(at(2000), &seen);
        assert_eq!(found, (Case::Untold, Then::Later));
    }
    let mut seen = moves();
    seen.around.desire = Desire::Stopped;
    assert_eq!(after_failure(at(2000), &seen).1, Then::Nothing);
}

#[test]
fn where_only_a_monitor_failed_a_group_that_does_not_run_here_may_run() {
    let mut seen = moves();
    seen.there = Failure::Monitor;
    assert_eq!(after_failure(at(2000), &seen), (Case::Ready, Then::Moves));
    seen.monitor = true;
    let bars = (Case::FailedThere, Then::Stays);
    assert_eq!(after_failure(at(2000), &seen), bars);
    (seen.here, seen.monitor) = (Here::Runs, false);
    assert_eq!(after_monitor(at(2000), &seen), bars, "a monitor asks");
}

#[test]
fn a_move_that_is_not_durable_yet_is_waited_for() {
    let mut seen = moves();
    (seen.moving, seen.durable) = (true, false);
    let waits = (Case::Wished, Then::Nothing);
    assert_eq!(after_failure(at(2000), &seen), waits);
}

#[test]
fn it_runs_on_when_the_other_node_was_not_ready_for_long_enough_without_a_break() {
    let mut patience = Patience::default();
    let mut runs_on = |seconds: u64, then| patience.runs_on(at(1000 * seconds), then);
    assert!(!runs_on(5, Then::Later));
    assert!(!runs_on(14, Then::Later));
    assert!(runs_on(15, Then::Later));
    assert!(!runs_on(16, Then::Nothing), "it is on its way");
    assert!(!runs_on(17, Then::Later), "counted anew");
    assert!(!runs_on(26, Then::Later));
    assert!(!runs_on(26, Then::Moves));
    assert!(!runs_on(27, Then::Later));
    assert!(runs_on(37, Then::Later));
    assert!(runs_on(38, Then::Stays));
}

#[test]
fn a_reason_is_recorded_once_and_a_monitors_word_never_hides_a_resources() {
    use Failure::{Forgotten, Monitor, Stands};
    let all = [
        Here::Runs,
        Here::Failed,
        Here::Alike,
        Here::Waits,
        Here::Else,
    ];
    for here in all {
        assert_eq!(reason_to_record(Failure::None, here, true), None);
        assert_eq!(reason_to_record(Forgotten, here, true), None);
        assert_eq!(reason_to_record(Stands, here, false), None);
        let failed = (here == Here::Failed).then_some(true);
        assert_eq!(reason_to_record(Stands, here, true), failed);
    }
    assert_eq!(reason_to_record(Monitor, Here::Failed, true), None);
    assert_eq!(reason_to_record(Monitor, Here::Runs, false), None);
    for (here, monitor) in [
        (Here::Failed, false),
        (Here::Alike, false),
        (Here::Waits, true),
    ] {
        assert_eq!(reason_to_record(Monitor, here, monitor), Some(false));
    }
}

#[test]
fn what_failed_is_remembered_until_it_is_cleared_or_runs_there() {
    let (failed, mended) = (Some(Want::Failed), Some(Want::Mended));
    for here in [Here::Failed, Here::Alike, Here::Waits] {
        assert_eq!(to_record(None, here, false), failed);
        assert_eq!(to_record(mended, here, false), failed);
        assert_eq!(to_record(failed, here, false), None);
        // An operator's word that it is forgotten comes first, and is carried out after that is said.
        assert_eq!(to_record(failed, here, true), mended);
        assert_eq!(to_record(mended, here, true), None);
        assert_eq!(to_record(None, here, true), None);
    }
    assert_eq!(to_record(failed, Here::Runs, false), mended);
    assert_eq!(to_record(mended, Here::Runs, false), None);
    assert_eq!(to_record(failed, Here::Else, false), None);
    assert_eq!(to_record(failed, Here::Else, true), mended);
}

proptest! {
    /// What is recorded is not recorded again: both nodes come to rest.
    #[test]
    fn a_record_settles(said in 0..3_usize, here in 0..5_usize, clears: bool) {
        let here = [Here::Runs, Here::Failed, Here::Alike, Here::Waits, Here::Else][here];
        let said = [None, Some(Want::Failed), Some(Want::Mended)][said];
        if let Some(next) = to_record(said, here, clears) {
            prop_assert_eq!(to_record(Some(next), here, clears), None);
        }
    }
}
