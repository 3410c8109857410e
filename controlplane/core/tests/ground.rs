//! On what a group's services rest, as a keeper sees it: who renews their time, and what a new run of the daemon knows.

use std::time::Duration;

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{ArbiterKind, Effect, Event, Keeper, VolumeFacts};
use controlplane_core::partition::{Cause, Decision, Standing};
use controlplane_core::register::{Answer, Refusal};
use controlplane_core::self_fencing::{Ground, Verdict, services};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, Instant, NodeSet, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUME: VolumeId = VolumeId([7; 16]);
const TIMEOUT: Duration = Duration::from_secs(2);
/// The machine runs for a while.
const BEGAN_MS: u64 = 100_000;

struct Bed {
    keeper: Keeper,
    now: u64,
    decision: Option<Decision>,
    questions: Vec<Question>,
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn facts(standing: Standing, linked: bool, alone: bool) -> VolumeFacts {
    VolumeFacts {
        standing,
        view: ViewMark {
            epoch: Epoch(5),
            id: ViewId([5; 16]),
        },
        history: ViewHistory::default(),
        next_epoch: Epoch(6),
        linked,
        alone,
        changing: false,
    }
}

impl Bed {
    fn begin(kind: ArbiterKind, confirmed: Option<u64>, looking_since: Option<u64>) -> Self {
        let keeper = Keeper::new(at(BEGAN_MS), kind, [VOLUME], &[3; 32]);
        Self {
            keeper: keeper.leasing(TIMEOUT, confirmed.map(at), looking_since.map(at)),
            now: BEGAN_MS,
            decision: None,
            questions: Vec::new(),
        }
    }

    /// Served here, linked with the peer, which was heard just now.
    fn serving() -> Self {
        let mut bed = Self::begin(ArbiterKind::Register, None, None);
        bed.feed(Event::Peer(Presence::Alive));
        bed.confirm(0);
        bed.says(Some(facts(Standing::Serving, true, false)));
        assert_eq!(bed.ground(), Ground::Leased);
        bed
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.keeper.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Decided { decision, .. } => self.decision = Some(decision),
                Effect::Ask(question) => self.questions.push(question),
                Effect::Say { .. } | Effect::Settle { .. } => {}
            }
        }
    }

    fn says(&mut self, facts: Option<VolumeFacts>) {
        let (volume, asked) = (VOLUME, at(self.now));
        let facts = facts.map(Box::new);
        self.feed(Event::Volume {
            volume,
            facts,
            asked,
        });
    }

    fn confirm(&mut self, gaps: u64) {
        let sent = at(self.now);
        self.feed(Event::Confirmed { sent, gaps });
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.feed(Event::Tick);
    }

    fn ground(&self) -> Ground {
        self.keeper.ground(at(self.now))
    }

    /// The peer is silent, and writes wait for it.
    fn loses_the_peer(&mut self) {
        self.pass(TIMEOUT_MS - 1);
        self.feed(Event::Peer(Presence::Dead));
        self.says(Some(facts(Standing::Frozen, false, false)));
    }
}

const TIMEOUT_MS: u64 = 2000;

/// Nothing is claimed here: the daemon of the volume does not answer. The arbiter does, to reports.
#[test]
fn an_arbiter_that_merely_answers_does_not_keep_the_services_running() {
    let mut bed = Bed::serving();
    bed.feed(Event::Peer(Presence::Dead));
    bed.says(None);
    for _ in 0..11 {
        bed.pass(250);
        let asked = at(bed.now);
        bed.feed(Event::Contact { asked });
        assert_eq!(bed.ground(), Ground::Leased, "at {}", bed.now);
    }
    for _ in 0..100 {
        bed.pass(250);
        let asked = at(bed.now);
        bed.feed(Event::Contact { asked });
        assert_eq!(bed.ground(), Ground::Over, "at {}", bed.now);
        assert_eq!(services(bed.ground()), Verdict::StopHard);
    }
    assert_eq!(bed.questions, []);
}

#[test]
fn without_an_arbiter_that_answers_the_time_is_the_heartbeats_timeout() {
    let mut bed = Bed::serving();
    bed.loses_the_peer();
    assert_eq!(bed.ground(), Ground::Leased);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
    assert_eq!(bed.decision, Some(Decision::StepDown(Cause::LeaseOver)));
}

#[test]
fn who_was_granted_to_go_on_alone_needs_no_lease_and_who_was_refused_has_none() {
    for granted in [true, false] {
        let mut bed = Bed::serving();
        bed.loses_the_peer();
        bed.feed(Event::Contact { asked: at(bed.now) });
        bed.pass(10);
        let Some(Question::Claim { number, claims }) = bed.questions.last().cloned() else {
            panic!("nothing was asked: {:?}", bed.decision);
        };
        let answer = if granted {
            Answer::Granted(claims.iter().map(|claim| claim.next).collect())
        } else {
            let refusal = Refusal::Superseded {
                epoch: Epoch(6),
                holder: None,
            };
            Answer::Refused {
                volume: VOLUME,
                refusal,
            }
        };
        bed.feed(Event::Answered { number, answer });
        if granted {
            bed.pass(60_000);
            assert_eq!(bed.ground(), Ground::Granted);
        } else {
            assert_eq!(bed.decision, Some(Decision::StepDown(Cause::Superseded)));
        }
    }
}

/// It lost its data: as long as it cannot decide for this node it cannot for the other one either.
#[test]
fn an_arbiter_that_can_decide_for_nobody_lets_who_serves_wait_for_it() {
    let mut bed = Bed::serving();
    bed.loses_the_peer();
    bed.feed(Event::Contact { asked: at(bed.now) });
    for _ in 0..100 {
        bed.pass(260);
        if let Some(Question::Claim { number, .. }) = bed.questions.last() {
            let (number, volume) = (*number, VOLUME);
            let refusal = Refusal::NotEnrolled {
                missing: NodeSet::EMPTY,
            };
            let answer = Answer::Refused { volume, refusal };
            bed.feed(Event::Answered { number, answer });
        }
        assert_eq!(bed.ground(), Ground::Leased);
    }
    bed.pass(1001);
    assert_eq!(bed.ground(), Ground::Over);
}

#[test]
fn a_copy_that_alone_counts_needs_no_lease_also_while_its_daemon_is_started_anew() {
    let mut bed = Bed::serving();
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.pass(100_000);
    assert_eq!(bed.ground(), Ground::Alone);
    bed.says(None);
    bed.pass(100_000);
    assert_eq!(bed.ground(), Ground::Alone);
    // Linked, it may agree any moment that both count.
    bed.says(Some(facts(Standing::Serving, true, true)));
    assert_eq!(bed.ground(), Ground::Alone);
    bed.says(None);
    bed.pass(1000);
    assert_eq!(bed.ground(), Ground::Over);
}

#[test]
fn a_machine_that_stood_still_stops_its_services_before_it_hears_anything() {
    let mut bed = Bed::serving();
    bed.now += 30_000;
    assert_eq!(bed.ground(), Ground::Over);
    // What waited says nothing of now.
    let sent = at(bed.now - 29_900);
    bed.feed(Event::Confirmed { sent, gaps: 1 });
    assert_eq!(bed.ground(), Ground::Over);
    // Nor does a peer that is heard again: it may serve.
    bed.pass(300);
    bed.confirm(1);
    assert_eq!(bed.ground(), Ground::Over);
    bed.says(Some(facts(Standing::Serving, true, false)));
    assert_eq!(bed.ground(), Ground::Leased);
}

#[test]
fn a_new_run_goes_on_with_the_time_that_was_left() {
    let mut bed = Bed::begin(ArbiterKind::Register, Some(BEGAN_MS - 500), None);
    bed.says(None);
    bed.pass(1499);
    assert_eq!(bed.ground(), Ground::Leased);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
}

/// Each run ends before its data planes have answered.
#[test]
fn runs_that_crash_one_after_the_other_share_one_first_look() {
    let left = Some(BEGAN_MS - 60_000);
    let mut bed = Bed::begin(ArbiterKind::Register, left, None);
    assert_eq!(bed.ground(), Ground::Unlooked);
    bed.pass(999);
    assert_eq!(bed.ground(), Ground::Unlooked);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
    let bed = Bed::begin(ArbiterKind::Register, left, Some(BEGAN_MS - 1000));
    assert_eq!(bed.ground(), Ground::Over);
    // One that has looked knows, and waits no longer.
    let mut bed = Bed::begin(ArbiterKind::Register, left, None);
    bed.says(Some(facts(Standing::Frozen, false, false)));
    assert_eq!(bed.ground(), Ground::Over);
    assert_eq!(bed.decision, Some(Decision::StepDown(Cause::LeaseOver)));
}

#[test]
fn where_no_arbiter_lets_the_other_node_take_over_nothing_ends_by_time() {
    for kind in [ArbiterKind::Manual, ArbiterKind::Nobody] {
        let bed = Bed::begin(kind, None, Some(0));
        assert_eq!(bed.ground(), Ground::NoTakeover);
        assert_eq!(bed.keeper.services_until(at(bed.now)), None);
    }
}
