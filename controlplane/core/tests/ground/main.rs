//! On what a group's services rest, as a keeper sees it: who renews their time, and what a new run of the daemon knows.

use std::time::Duration;

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{ArbiterKind, Effect, Event, Keeper, VolumeFacts, Word};
use controlplane_core::partition::{Cause, Decision, Standing, Targets};
use controlplane_core::register::{Answer, Refusal};
use controlplane_core::self_fencing::{Confirmations, Ground, Verdict, services};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, Instant, NodeSet, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

mod heard;

const VOLUME: VolumeId = VolumeId([7; 16]);
const SECOND: VolumeId = VolumeId([8; 16]);
const TIMEOUT: Duration = Duration::from_secs(2);
/// The machine runs for a while.
const BEGAN_MS: u64 = 100_000;

struct Bed {
    keeper: Keeper,
    now: u64,
    decision: Option<Decision>,
    questions: Vec<Question>,
    words: Vec<Word>,
    /// What the thread of the heartbeats keeps.
    thread: Confirmations,
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
            words: Vec::new(),
            thread: Confirmations::new(TIMEOUT, confirmed.map(at)),
        }
    }

    /// Served here, linked with the peer, which was heard just now.
    fn serving() -> Self {
        let mut bed = Self::begin(ArbiterKind::Register, None, None);
        bed.feed(Event::Peer(Presence::Alive));
        bed.confirm();
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
                Effect::Say { word, .. } => self.words.push(word),
                Effect::Settle { .. } => {}
            }
        }
    }

    fn says(&mut self, facts: Option<VolumeFacts>) {
        self.says_of(VOLUME, facts);
    }

    fn says_of(&mut self, volume: VolumeId, facts: Option<VolumeFacts>) {
        let asked = at(self.now);
        let facts = facts.map(Box::new);
        self.feed(Event::Volume {
            volume,
            facts,
            asked,
        });
    }

    /// The peer confirms on an interconnect what was sent just now.
    fn confirm(&mut self) {
        self.confirm_what_was_sent(self.now);
    }

    fn confirm_what_was_sent(&mut self, then: u64) {
        self.thread.look(at(self.now));
        self.thread.hear(at(then));
        self.tell_confirmed();
    }

    fn tell_confirmed(&mut self) {
        if let Some(sent) = self.thread.last() {
            let gaps = self.thread.gaps();
            self.feed(Event::Confirmed { sent, gaps });
        }
    }

    /// The peer answers on the mirror link what was sent just now.
    fn answer(&mut self) {
        let at = at(self.now);
        self.feed(Event::LinkHeard { at });
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.thread.look(at(self.now));
        self.tell_confirmed();
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

/// It lost its data, or was set up anew beside the one that the other node asks.
#[test]
fn an_arbiter_that_can_decide_for_nobody_lengthens_the_time_no_more_than_another_answer() {
    let mut bed = Bed::serving();
    let until = bed.now + TIMEOUT_MS + TIMEOUT_MS / 2;
    bed.loses_the_peer();
    while bed.now < until {
        assert_eq!(bed.ground(), Ground::Leased);
        bed.feed(Event::Contact { asked: at(bed.now) });
        let number = bed
            .questions
            .iter()
            .rev()
            .find_map(|question| match question {
                Question::Claim { number, .. } => Some(*number),
                Question::Release { .. } => None,
            });
        let refusal = Refusal::NotEnrolled {
            missing: NodeSet::EMPTY,
        };
        let (volume, number) = (VOLUME, number.expect("a claim"));
        let answer = Answer::Refused { volume, refusal };
        bed.feed(Event::Answered { number, answer });
        bed.now += 1;
    }
    assert_eq!(bed.ground(), Ground::Over);
}

#[test]
fn a_copy_that_alone_counts_needs_no_lease_also_while_its_daemon_is_started_anew() {
    let mut bed = Bed::serving();
    bed.loses_the_peer();
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
    bed.confirm_what_was_sent(bed.now - 29_900);
    assert_eq!(bed.ground(), Ground::Over);
    // Nor does a peer that is heard again: it may serve.
    bed.pass(300);
    bed.confirm();
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
    bed.pass(2999);
    assert_eq!(bed.ground(), Ground::Unlooked);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
    let bed = Bed::begin(ArbiterKind::Register, left, Some(BEGAN_MS - 3000));
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

/// The peer comes back, and only one volume of the group with it: one of its disks stays away.
#[test]
fn volumes_of_a_group_come_back_to_the_peer_one_by_one() {
    let mut bed = Bed::serving();
    bed.keeper.meet(SECOND);
    bed.loses_the_peer();
    let alone = || Some(facts(Standing::Serving, false, true));
    bed.says(alone());
    bed.says_of(SECOND, alone());
    bed.pass(60_000);
    assert_eq!(bed.ground(), Ground::Alone);
    bed.feed(Event::Peer(Presence::Alive));
    bed.confirm();
    bed.pass(100);
    bed.says(Some(facts(Standing::Serving, true, false)));
    bed.says_of(SECOND, alone());
    assert_eq!(bed.ground(), Ground::Leased);
    // The peer's control plane is started anew: another gap.
    bed.pass(TIMEOUT_MS + 500);
    bed.confirm();
    bed.pass(100);
    bed.says_of(SECOND, alone());
    bed.says(Some(facts(Standing::Serving, true, false)));
    assert_eq!(bed.ground(), Ground::Leased);
    // One that waits for the peer is served by nobody's leave.
    bed.pass(TIMEOUT_MS + 500);
    bed.confirm();
    bed.pass(100);
    bed.says_of(SECOND, alone());
    bed.says(Some(facts(Standing::Frozen, true, false)));
    assert_eq!(bed.ground(), Ground::Over);
}

/// The machine runs alone, `lockstepd` is started anew, and one volume's daemon is slow.
#[test]
fn a_run_that_follows_one_whose_copies_counted_alone_needs_no_lease_until_it_has_looked() {
    let begin = || {
        let keeper = Keeper::new(at(BEGAN_MS), ArbiterKind::Register, [], &[3; 32]);
        let mut bed = Bed::begin(ArbiterKind::Register, None, None);
        let keeper = keeper.leasing(TIMEOUT, None, Some(at(BEGAN_MS - 500)));
        bed.keeper = keeper.expecting(2).left_alone();
        bed
    };
    let mut bed = begin();
    bed.pass(5000);
    assert_eq!(bed.ground(), Ground::Alone);
    assert!(bed.keeper.is_left_alone(at(bed.now)));
    bed.keeper.meet(VOLUME);
    bed.says(Some(facts(Standing::Serving, false, true)));
    bed.pass(5000);
    assert_eq!(bed.ground(), Ground::Alone);
    bed.keeper.meet(SECOND);
    bed.says_of(SECOND, Some(facts(Standing::Serving, false, true)));
    bed.pass(60_000);
    assert_eq!(bed.ground(), Ground::Alone);
    // A look says otherwise: both count.
    let mut bed = begin();
    bed.keeper.meet(VOLUME);
    bed.says(Some(facts(Standing::Frozen, false, false)));
    bed.pass(3000);
    assert_eq!(bed.ground(), Ground::Over);
    // Nobody looks: no longer than a volume may be in doubt, all runs together.
    let mut bed = begin();
    bed.pass(29_499);
    assert_eq!(bed.ground(), Ground::Alone);
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
}

/// No run of a crash loop begins its doubt anew while nobody answers.
#[test]
fn runs_that_rest_on_an_earlier_look_share_its_time() {
    let keeper = Keeper::new(at(BEGAN_MS), ArbiterKind::Register, [VOLUME], &[3; 32]);
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    bed.keeper = keeper.leasing(TIMEOUT, None, None).left_alone();
    bed.keeper.reported();
    bed.says(None);
    bed.pass(29_999);
    assert_eq!(bed.ground(), Ground::Alone);
    assert!(
        !bed.keeper.has_looked(at(bed.now)),
        "the next run has no more than this one"
    );
    bed.pass(1);
    assert_eq!(bed.ground(), Ground::Over);
    assert!(bed.keeper.has_looked(at(bed.now)));
    assert!(!bed.keeper.is_left_alone(at(bed.now)));
}

/// Interconnects are down for long, and the mirror link then as well: the peer may have taken over before it is back.
#[test]
fn a_gap_of_the_mirror_link_alone_is_a_gap() {
    let mut bed = Bed::serving();
    for _ in 0..100 {
        bed.pass(TIMEOUT_MS - 1);
        bed.answer();
        bed.says(Some(facts(Standing::Serving, true, false)));
        assert_eq!(bed.ground(), Ground::Leased);
    }
    bed.pass(TIMEOUT_MS);
    assert_eq!(bed.ground(), Ground::Over);
    bed.answer();
    assert_eq!(bed.ground(), Ground::Over);
    bed.says(Some(facts(Standing::Frozen, true, false)));
    assert_eq!(bed.ground(), Ground::Over);
    bed.says(Some(facts(Standing::Serving, true, false)));
    assert_eq!(bed.ground(), Ground::Leased);
}

/// A daemon that was silent may have answered the other node meanwhile: that one's services have a lease from then.
#[test]
fn the_mirror_link_counts_as_down_from_when_that_is_known() {
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    assert_eq!(bed.keeper.apart_since(), None);
    let standby = |linked| Some(facts(Standing::Standby, linked, false));
    bed.says(standby(true));
    assert_eq!(bed.keeper.apart_since(), None);
    bed.pass(100);
    bed.says(standby(false));
    let first = at(bed.now);
    bed.pass(100);
    bed.says(standby(false));
    assert_eq!(bed.keeper.apart_since(), Some(first));
    bed.says(None);
    assert_eq!(bed.keeper.apart_since(), None);
    bed.pass(5000);
    bed.says(standby(false));
    assert_eq!(bed.keeper.apart_since(), Some(at(bed.now)));
    // It answered late, and nobody knows what was before.
    bed.pass(5000);
    bed.says(standby(false));
    assert_eq!(bed.keeper.apart_since(), Some(at(bed.now)));
    // Each volume by itself, and one that is not known yet.
    bed.keeper.meet(SECOND);
    assert_eq!(bed.keeper.apart_since(), None);
    bed.pass(100);
    let last = at(bed.now);
    bed.says_of(SECOND, standby(false));
    assert_eq!(bed.keeper.apart_since(), Some(last));
    // Once the copies here alone count nobody else has a lease by them.
    for volume in [VOLUME, SECOND] {
        bed.says_of(volume, Some(facts(Standing::Serving, false, true)));
        bed.pass(100);
        bed.says_of(volume, None);
    }
    assert_eq!(bed.keeper.apart_since(), Some(last));
}

/// One volume's daemon never answers. That is a look as well, once the first look is over: it uses up nobody's later one.
#[test]
fn a_daemon_that_never_answers_was_looked_at() {
    let keeper = Keeper::new(at(BEGAN_MS), ArbiterKind::Register, [VOLUME], &[3; 32]);
    let mut bed = Bed::begin(ArbiterKind::Register, None, None);
    bed.keeper = keeper.leasing(TIMEOUT, None, None).expecting(1);
    bed.says(Some(facts(Standing::Serving, true, false)));
    bed.pass(3000);
    assert!(!bed.keeper.has_looked(at(bed.now)));
    bed.keeper.reported();
    assert!(bed.keeper.has_looked(at(bed.now)));
    // It lengthens no look.
    assert_eq!(bed.ground(), Ground::Over);
    assert!(!bed.keeper.has_looked(at(bed.now - 1)));
}

/// Under `ping`: a target answers, and writing the new view down takes longer than the lease has left.
#[test]
fn who_decided_in_time_to_go_on_alone_may_take_long_to_write_it_down() {
    let mut bed = Bed::begin(ArbiterKind::Ping, None, None);
    bed.feed(Event::Targets {
        arbiter: Targets::Answer,
        clients: Targets::Answer,
    });
    bed.feed(Event::Peer(Presence::Alive));
    bed.confirm();
    bed.says(Some(facts(Standing::Serving, true, false)));
    bed.loses_the_peer();
    bed.feed(Event::Contact { asked: at(bed.now) });
    assert!(matches!(bed.words.last(), Some(Word::GoAlone { .. })));
    bed.pass(20_000);
    assert_eq!(bed.ground(), Ground::Granted);
    bed.feed(Event::WordDone { volume: VOLUME });
    let changing = VolumeFacts {
        changing: true,
        ..facts(Standing::Frozen, false, false)
    };
    bed.says(Some(changing));
    bed.pass(20_000);
    assert_eq!(bed.ground(), Ground::Granted);
    assert_eq!(bed.words.len(), 1);
    let mut refused = bed;
    refused.says(Some(facts(Standing::Frozen, false, false)));
    assert_eq!(refused.ground(), Ground::Over);
    assert_eq!(refused.words.last(), Some(&Word::StepDown));
}
