use super::*;
use crate::keeper::Side;
use crate::wish::{GroupKey, Origin, Subject};
use core::time::Duration;
use proptest::prelude::*;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

/// It failed a second ago, and nothing keeps it from moving.
fn moves() -> Seen {
    Seen {
        here: Here::Failed,
        since: at(1000),
        on_failure: OnFailure::Failover,
        within: Duration::from_secs(3600),
        moves_left: true,
        durable: true,
        recorded: true,
        failed_there: false,
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
        (|seen| seen.failed_there = true, Case::FailedThere),
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
    let mut seen = moves();
    seen.around.desire = Desire::Stopped;
    assert_eq!(after_failure(at(2000), &seen).1, Then::Nothing);
}

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node")
}

fn word(want: Want) -> Wish {
    Wish {
        subject: Subject::Failures(GroupKey::of("pg")),
        number: 1,
        by: node(0),
        want,
        origin: Origin::Node,
    }
}

#[test]
fn what_failed_is_remembered_until_it_is_cleared_or_runs_there() {
    let nodes = [node(0), node(1)];
    let on = |known: Option<Want>, here| to_record(known.map(word).as_ref(), nodes, here);
    let (own, other) = (FailedOn::One(node(0)), FailedOn::One(node(1)));
    for here in [Here::Failed, Here::Alike, Here::Waits] {
        assert_eq!(on(None, here), Some(own));
        assert_eq!(on(Some(Want::Forgotten), here), Some(own));
        assert_eq!(on(Some(Want::Failed(other)), here), Some(FailedOn::Both));
        assert_eq!(on(Some(Want::Failed(own)), here), None);
    }
    let runs = |failed| on(Some(Want::Failed(failed)), Here::Runs);
    assert_eq!(runs(FailedOn::Both), Some(other));
    assert_eq!(runs(own), Some(FailedOn::None));
    assert_eq!(runs(other), None);
    assert_eq!(on(Some(Want::Failed(FailedOn::Both)), Here::Else), None);
}

proptest! {
    /// What is recorded is not recorded again: both nodes come to rest.
    #[test]
    fn a_record_settles(on in 0..4_usize, here in 0..5_usize) {
        let nodes = [node(0), node(1)];
        let here = [Here::Runs, Here::Failed, Here::Alike, Here::Waits, Here::Else][here];
        let all = [FailedOn::None, FailedOn::One(node(0)), FailedOn::One(node(1)), FailedOn::Both];
        if let Some(next) = to_record(Some(&word(Want::Failed(all[on]))), nodes, here) {
            prop_assert_eq!(to_record(Some(&word(Want::Failed(next))), nodes, here), None);
            prop_assert_eq!(next.has(node(1)), all[on].has(node(1)), "nobody speaks for the other node");
        }
    }
}
