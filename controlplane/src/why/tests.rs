//! For each row of the table, and each reason of a group's resources, the words tell what it rests on.

use std::collections::BTreeMap;

use super::*;
use crate::services::Stopping;
use controlplane_api::why::ResourcesWhy;
use controlplane_core::failure_detector::Presence;
use controlplane_core::group::why::{Because, Goal, Progress, Reasoned, Record};
use controlplane_core::group::{Action, GroupState, Manner, Origin, Reason};
use controlplane_core::keeper::why::{Hold, Inputs};
use controlplane_core::keeper::{
    ArbiterKind, Automatic, Desire, HANDICAP, LINK_GRACE, Side, TURN_WAIT, Wished,
};
use controlplane_core::partition::{
    ClaimState, Condition, Missing, Service, Standing, Targets, Wanted, decide,
};
use controlplane_core::register::Refusal;
use controlplane_core::self_fencing::{Before, Ground};
use controlplane_core::view_change::{Asked, Told};
use mirror_core::types::{Epoch, NodeId, ViewId};
use mirror_core::view::ViewMark;

const NAMES: Names<'static> = Names {
    node: "node1",
    peer: "node2",
    group: "pg",
    arbiter: "witness",
    clients: true,
};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

/// At 100 s; the peer is alive and linked, and nothing was asked.
fn calm(standing: Standing) -> Inputs {
    Inputs {
        at: at(100_000),
        kind: ArbiterKind::Register,
        standing,
        unknown: 0,
        peer: Presence::Alive,
        peer_since: at(99_900),
        not_before: Instant::default(),
        lately: Some(Instant::default()),
        unlinked_since: None,
        claim: ClaimState::Idle,
        asked: Asked::default(),
        arbiter_targets: (Targets::Answer, None),
        cut_off: false,
        clients: (Targets::Answer, None),
        automatic: Automatic::Yes,
        service: Service::Leased,
        lease_until: at(101_500),
        begins_first: Some(true),
        idle_since: None,
        wished: Wished::default(),
        wanted: Wanted::Runs,
        other_ready: false,
    }
}

/// One of the two sides of each of seven things that may be so.
fn varied(bits: u32, calm: Inputs) -> Inputs {
    let on = |bit: u32| bits >> bit & 1 == 1;
    let targets = |silent| {
        let state = if silent {
            Targets::Silent
        } else {
            Targets::Answer
        };
        (state, Some(at(98_000)))
    };
    let (desire, suspended, wanted) = match (on(4), on(5)) {
        (false, false) => (Desire::Runs(None), false, Wanted::Runs),
        (false, true) => (Desire::Runs(None), true, Wanted::NotHere),
        (true, false) => (Desire::Stopped, false, Wanted::Nowhere),
        (true, true) => (Desire::Moves(Side::Other), false, Wanted::There),
    };
    let (service, lease_until) = if on(3) {
        (Service::Expired, at(99_000))
    } else {
        (Service::Leased, at(101_500))
    };
    Inputs {
        arbiter_targets: targets(on(0)),
        clients: targets(on(1)),
        automatic: if on(2) { Automatic::No } else { Automatic::Yes },
        service,
        lease_until,
        begins_first: Some(!on(6)),
        idle_since: Some(at(99_000)),
        wished: Wished {
            desire,
            suspended,
            ..Wished::default()
        },
        wanted,
        other_ready: wanted == Wanted::There,
        ..calm
    }
}

/// All that may be, in as few as reach every row.
fn all() -> Vec<Inputs> {
    let rows = TABLE.iter();
    let standings: BTreeMap<String, Standing> = rows
        .map(|row| (row.standing.to_string(), row.standing))
        .collect();
    let kinds = [
        (ArbiterKind::Register, ClaimState::Idle),
        (ArbiterKind::Register, ClaimState::Asked),
        (ArbiterKind::Register, ClaimState::Granted),
        (ArbiterKind::Register, ClaimState::Refused),
        (ArbiterKind::Ping, ClaimState::Idle),
        (ArbiterKind::Manual, ClaimState::Idle),
        (ArbiterKind::Nobody, ClaimState::Idle),
    ];
    let peers = [
        (Presence::Alive, 99_900, None),
        (Presence::Alive, 99_900, Some(99_000)),
        (Presence::Alive, 99_900, Some(50_000)),
        (Presence::Dead, 90_000, Some(50_000)),
    ];
    let mut found = Vec::new();
    for standing in standings.into_values() {
        for (kind, claim) in kinds {
            for (peer, peer_since, unlinked) in peers {
                let calm = Inputs {
                    kind,
                    claim,
                    peer,
                    peer_since: at(peer_since),
                    unlinked_since: unlinked.map(at),
                    ..calm(standing)
                };
                found.extend((0..128).map(|bits| varied(bits, calm)));
            }
        }
    }
    found
}

fn ruled(inputs: Inputs) -> Ruling {
    let (row, decision) = decide(&inputs.situation());
    Ruling {
        row,
        decision,
        first: inputs,
        last: inputs,
        held: None,
    }
}

/// What of the inputs a row is about: its name, and the values with which it holds; `None` if it is about the standing alone.
fn about(condition: Condition) -> Option<(&'static str, Vec<&'static str>)> {
    use controlplane_core::partition::Contact;
    let wish = |wanted| match wanted {
        Wanted::Runs | Wanted::NotHere => "runs",
        Wanted::There => "moves",
        Wanted::Nowhere => "stopped",
    };
    Some(match condition {
        Condition::Any => return None,
        Condition::Contact(Contact::Linked) | Condition::LinkedInTurn => {
            ("mirror-link", vec!["linked"])
        }
        Condition::Contact(Contact::HeartbeatsOnly) => ("peer", vec!["alive", "deaf"]),
        Condition::Contact(Contact::Unsure) => ("mirror-link", vec!["not-linked"]),
        Condition::Contact(Contact::Dead) => ("peer", vec!["dead"]),
        Condition::Claim(ClaimState::Idle) => ("arbiter", vec!["idle"]),
        Condition::Claim(ClaimState::Asked) => ("arbiter", vec!["asked"]),
        Condition::Claim(ClaimState::Granted) => ("arbiter", vec!["granted"]),
        Condition::Claim(ClaimState::Refused) => ("arbiter", vec!["refused"]),
        Condition::Ping(Targets::Answer) => ("arbiter", vec!["answer"]),
        Condition::Ping(Targets::Silent) => ("arbiter", vec!["silent", "cut-off"]),
        Condition::Manual => ("arbiter", vec!["manual"]),
        Condition::Nobody => ("arbiter", vec!["none"]),
        Condition::LeaseOver => ("lease", vec!["over"]),
        Condition::NoClients => ("clients", vec!["silent"]),
        Condition::NotAutomatic => ("automatic", vec!["false"]),
        Condition::Wish(wanted) | Condition::LinkedWish(wanted) => ("wish", vec![wish(wanted)]),
    })
}

#[test]
fn every_row_is_told_with_what_it_rests_on_and_every_wait_with_what_ends_it() {
    let mut told = [0; TABLE.len()];
    for inputs in all() {
        let rules = ruled(inputs);
        told[rules.row] += 1;
        let row = TABLE[rules.row];
        let why = ruling(inputs.at, &rules, Moment::Now, Vec::new(), &NAMES);
        assert_eq!(why.row, rules.row + 1);
        assert_eq!(why.standing, row.standing.to_string());
        assert_eq!(why.condition, row.condition.to_string());
        assert_eq!(why.decision, row.decision.to_string());
        if let Some((name, values)) = about(row.condition) {
            let input = why.inputs.iter().find(|input| input.name == name);
            let input = input.unwrap_or_else(|| panic!("row {}: no {name}", why.row));
            assert!(
                values.contains(&input.value.as_str()),
                "row {}: {input:?}",
                why.row
            );
        }
        if matches!(
            row.condition,
            Condition::Wish(Wanted::NotHere) | Condition::LinkedWish(Wanted::NotHere)
        ) {
            let suspended = |input: &Input| input.text.contains("node1 is suspended");
            assert!(why.inputs.iter().any(suspended), "row {}", why.row);
        }
        let waits = waits(inputs.at, &rules, &NAMES);
        match row.decision {
            Decision::Wait(missing) => {
                let waits = waits.expect("a wait");
                assert_eq!(waits.what, missing.to_string());
                assert!(!waits.ends.is_empty());
            }
            Decision::Claim => assert_eq!(waits.expect("a wait").what, "the arbiter's answer"),
            Decision::Rest
            | Decision::GoAlone
            | Decision::TakeOver
            | Decision::Start
            | Decision::StepDown(_)
            | Decision::HandOver
            | Decision::Stop => assert_eq!(waits, None, "row {}", why.row),
        }
        let text = sentence(&rules, &NAMES);
        assert!(
            row.decision == Decision::Rest || text.ends_with(&why.decision),
            "{text}"
        );
    }
    let untold: Vec<usize> = (1..)
        .zip(told)
        .filter(|(_, told)| *told == 0)
        .map(|it| it.0)
        .collect();
    assert_eq!(untold, Vec::<usize>::new());
}

#[test]
fn what_time_ends_is_told_with_the_time_that_is_left() {
    let of = |inputs: Inputs| waits(inputs.at, &ruled(inputs), &NAMES).expect("a wait");
    // The peer is dead, and who serves is let first.
    let mut inputs = calm(Standing::Standby);
    (inputs.peer, inputs.peer_since) = (Presence::Dead, at(99_900));
    inputs.unlinked_since = Some(at(98_000));
    let told = of(inputs);
    assert_eq!(told.what, Missing::Time.to_string());
    assert_eq!(
        u128::from(told.in_ms.expect("a time")),
        HANDICAP.as_millis() - 100
    );
    // Heartbeats come, and the link has its time.
    inputs.peer = Presence::Alive;
    inputs.unlinked_since = Some(at(99_500));
    let left = of(inputs).in_ms.expect("a time");
    assert_eq!(u128::from(left), LINK_GRACE.as_millis() - 500);
    inputs.peer = Presence::Unknown;
    assert_eq!(of(inputs).in_ms, None);
    // The other node begins first.
    let mut inputs = calm(Standing::Unserved);
    inputs.begins_first = Some(false);
    inputs.idle_since = Some(at(99_000));
    let left = of(inputs).in_ms.expect("a time");
    assert_eq!(u128::from(left), TURN_WAIT.as_millis() - 1000);
    inputs.begins_first = None;
    assert_eq!(of(inputs).in_ms, None);
    // Who serves steps down when nobody answers.
    let mut inputs = calm(Standing::Frozen);
    (inputs.peer, inputs.peer_since) = (Presence::Dead, at(99_000));
    inputs.unlinked_since = Some(at(98_000));
    inputs.claim = ClaimState::Asked;
    let told = of(inputs);
    assert_eq!(told.in_ms, Some(1500));
    assert!(told.ends.contains("steps down"), "{told:?}");
}

#[test]
fn the_arbiters_answer_is_told_with_its_reason() {
    let told = |asked, claim| {
        let inputs = Inputs {
            asked,
            claim,
            ..calm(Standing::Standby)
        };
        let all = words::inputs(&inputs, &NAMES);
        let input = all.into_iter().find(|input| input.name == "arbiter");
        input.expect("the arbiter").text
    };
    let refusal = Refusal::Held {
        epoch: Epoch(8),
        holder: NodeId::new(1).expect("a node"),
    };
    let asked = |answered| Asked {
        at: Some(at(99_000)),
        answered,
    };
    let cases = [
        (Asked::default(), ClaimState::Idle, "nothing was claimed"),
        (
            asked(None),
            ClaimState::Asked,
            "asked, without an answer, for 1.0 s",
        ),
        (
            asked(Some((at(99_800), Told::Granted))),
            ClaimState::Granted,
            "granted it, 0.2 s before",
        ),
        (
            asked(Some((at(99_800), Told::Refused(refusal)))),
            ClaimState::Refused,
            "node 1 was granted epoch 8 and has not given it back",
        ),
    ];
    for (asked, claim, expected) in cases {
        let text = told(asked, claim);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn what_keeps_a_decision_from_being_carried_out_is_told() {
    let holds = [
        (Hold::EarlierWords(at(100_700)), "an earlier run", Some(700)),
        (Hold::Busy, "the daemon of a volume", None),
        (Hold::Refused(at(100_200)), "the next try", Some(200)),
        (Hold::Resources, "the group's resources", None),
        (Hold::Untold, "node2, which does not know yet", None),
    ];
    for (held, expected, in_ms) in holds {
        let mut rules = ruled(calm(Standing::Unserved));
        assert_eq!(rules.decision, Decision::Start);
        rules.held = Some(held);
        let told = waits(at(100_000), &rules, &NAMES).expect("a wait");
        assert!(told.what.contains(expected), "{told:?}");
        assert_eq!(told.in_ms, in_ms);
    }
}

#[test]
fn a_volume_is_told_as_it_stood() {
    let stood = Stood {
        asked: at(99_960),
        standing: Some(Standing::Standby),
        view: Some(ViewMark {
            epoch: Epoch(7),
            id: ViewId([0xab; 16]),
        }),
        linked: true,
        alone: false,
        changing: false,
    };
    let told = volume(at(100_000), "data".to_string(), Some(stood));
    assert_eq!(told.standing.as_deref(), Some("standby"));
    assert_eq!((told.epoch, told.asked_ms), (Some(7), Some(40)));
    assert_eq!(told.view, Some("ab".repeat(16)));
    let told = volume(at(100_000), "data".to_string(), None);
    assert_eq!((told.standing, told.asked_ms), (None, None));
}

fn told_of(
    because: Because,
    goal: Goal,
    progress: Progress,
    known: Reasons<'_>,
) -> (ResourcesWhy, Option<Waits>) {
    let record = Record {
        present: Some(Reasoned {
            since: at(90_000),
            at: at(100_000),
            goal,
            because,
            progress,
            before_start: Before::Unknown,
        }),
        before: None,
    };
    let known = Reasons {
        record: &record,
        ..known
    };
    resources(at(100_000), &known, &NAMES)
}

/// How far what shall come, and why; what is said of it, what is waited for, and for how long.
type Case = (Progress, &'static str, Option<(&'static str, Option<u64>)>);

const UNTIL: u64 = 101_000;

fn acts(resource: usize, action: Action) -> Progress {
    Progress::Acts {
        resource,
        action,
        until: at(UNTIL),
    }
}

fn known<'a>(record: &'a Record, names: &'a [String]) -> Reasons<'a> {
    Reasons {
        record,
        state: GroupState::Offline,
        names,
        monitors: names,
        wanted: None,
        steps_down: false,
        ground: Some((Ground::Over, at(99_000))),
    }
}

fn all_are_told(because: Because, goal: Goal, cases: &[Case]) {
    let names = ["data".to_string(), "app".to_string()];
    let record = Record::default();
    for (progress, expected, waited) in cases {
        let (why, waits) = told_of(because, goal, *progress, known(&record, &names));
        let present = why.present.expect("a reason");
        assert!(present.text.contains(expected), "{present:?}");
        assert_eq!(present.since_ms, 10_000);
        match waited {
            None => assert_eq!(waits, None, "{present:?}"),
            Some((what, in_ms)) => {
                let waits = waits.unwrap_or_else(|| panic!("{present:?}"));
                let told = waits.what.starts_with(what) && !waits.ends.is_empty();
                assert!(told, "{waits:?}");
                assert_eq!(waits.in_ms, *in_ms);
            }
        }
        let ground = why.ground.expect("a ground");
        let over = "the lease is over: they stop, hard";
        assert!(ground.text.starts_with(over), "{ground:?}");
        assert_eq!(ground.value, "6");
    }
}

#[test]
fn how_far_a_start_is_is_told_and_what_it_waits_for() {
    let until = at(UNTIL);
    let start = acts(1, Action::Start(Origin::Failover));
    let pause = Progress::Pause { resource: 1, until };
    let takeover = Progress::TakeoverWait { until };
    let cases = [
        (Progress::Done, "all of them run", None),
        (
            Progress::Looks,
            "they are looked at",
            Some(("a look", None)),
        ),
        (start, "app is being started", Some(("app", Some(1000)))),
        (
            takeover,
            "node2 may still run some of it",
            Some(("the end of what node2", Some(1000))),
        ),
        (
            pause,
            "app failed, and is tried again",
            Some(("the next try of app", Some(1000))),
        ),
    ];
    all_are_told(Because::Served, Goal::Run, &cases);
}

#[test]
fn every_reason_for_a_hard_stop_is_told() {
    let hard = acts(0, Action::Stop(Manner::Hard));
    let cases = |reason| {
        [
            (Progress::Done, reason, None),
            (Progress::Done, "nothing is left here", None),
            (
                hard,
                "data is being stopped hard",
                Some(("data", Some(1000))),
            ),
            (Progress::Stuck, "something is left here", None),
        ]
    };
    let since = at(60_000);
    for (because, reason) in [
        (
            Because::VolumesGone,
            "not all of its volumes are served by node1",
        ),
        (Because::LeaseOver, "the time of the services is over"),
        (Because::DoubtOver { since }, "for 40 s"),
        (Because::Begun, "they were stopping before"),
    ] {
        all_are_told(because, Goal::HardStop, &cases(reason));
    }
    let (record, names) = (Record::default(), Vec::new());
    let known = Reasons {
        steps_down: true,
        ..known(&record, &names)
    };
    let (why, _) = told_of(Because::LeaseOver, Goal::HardStop, Progress::Done, known);
    assert!(
        why.present
            .expect("a reason")
            .text
            .contains("node1 steps down")
    );
}

#[test]
fn every_reason_for_which_nothing_is_begun_is_told_and_what_would_end_it() {
    let operator = Some(("an operator", None));
    let doubt = Because::InDoubt { until: at(UNTIL) };
    let waits = Some(("the daemon", Some(1000)));
    all_are_told(
        doubt,
        Goal::Hold,
        &[(Progress::Done, "does not answer", waits)],
    );
    let failed = [(Progress::Stuck, "a resource did not stop", operator)];
    all_are_told(Because::StopFailed, Goal::Hold, &failed);
    let stops = acts(1, Action::Stop(Manner::Orderly));
    let before = [
        (Progress::Done, "it failed under an earlier run", operator),
        (stops, "app is being stopped", Some(("app", Some(1000)))),
        (
            acts(1, Action::Probe),
            "app is being looked at",
            Some(("app", Some(1000))),
        ),
    ];
    all_are_told(Because::Ordered, Goal::Stop, &before);
    let stays = "app does not start or does not stay on node1";
    let barred = Because::Barred(Reason::Resource(1));
    all_are_told(barred, Goal::Stop, &[(Progress::Done, stays, operator)]);
    let condemned = [(Progress::Done, "monitor app failed on node1", operator)];
    all_are_told(Because::Barred(Reason::Monitor(1)), Goal::Stop, &condemned);
    let often = "started after a failover on node1 too often";
    let cases = [
        (Progress::Done, often, operator),
        (Progress::Stuck, "something is left here", operator),
    ];
    all_are_told(Because::Barred(Reason::PingPong), Goal::Stop, &cases);
    // Who wishes it.
    let (record, names) = (Record::default(), Vec::new());
    for (wanted, expected) in [
        (Stopping::Stopped, "an operator stopped the group"),
        (Stopping::Moves, "the group moves to node2"),
    ] {
        let known = Reasons {
            wanted: Some(wanted),
            ..known(&record, &names)
        };
        let (why, waits) = told_of(Because::Ordered, Goal::Stop, Progress::Done, known);
        assert!(why.present.expect("a reason").text.contains(expected));
        assert_eq!(waits, None);
    }
}
