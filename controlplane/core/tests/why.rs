//! What a keeper and a group write down when they decide is what they decided from.

use controlplane_core::failure_detector::Presence;
use controlplane_core::group::why::{Because, Goal, Progress};
use controlplane_core::group::{
    Action, Effect as Done, Event as Happens, Group, Manner, Order, Origin, Outcome, Policy,
    Reason, ResourcePolicy, Spent, Volumes,
};
use controlplane_core::keeper::why::{Hold, Moment};
use controlplane_core::keeper::{
    ArbiterKind, Desire, Effect, Event, Keeper, Services as Left, VolumeFacts, WORD_LIFE, Wished,
    Word,
};
use controlplane_core::partition::{ClaimState, Decision, Situation, Standing, TABLE};
use controlplane_core::register::Answer;
use controlplane_core::view_change::{Question, Told};
use mirror_core::types::{Epoch, Instant, NodeId, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUME: VolumeId = VolumeId([7; 16]);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn mark(epoch: u64) -> ViewMark {
    ViewMark {
        epoch: Epoch(epoch),
        id: ViewId([5; 16]),
    }
}

struct Node {
    keeper: Keeper,
    now: u64,
    facts: VolumeFacts,
    peer: Presence,
    decided: Option<(usize, Situation, Decision)>,
    questions: Vec<Question>,
    words: Vec<Word>,
}

impl Node {
    fn new(standing: Standing) -> Self {
        Self {
            keeper: Keeper::new(at(0), ArbiterKind::Register, [VOLUME], &[3; 32]),
            now: 0,
            facts: VolumeFacts {
                standing,
                view: mark(5),
                history: ViewHistory::default(),
                next_epoch: Epoch(6),
                linked: true,
                alone: false,
                changing: false,
            },
            peer: Presence::Alive,
            decided: None,
            questions: Vec::new(),
            words: Vec::new(),
        }
    }

    /// After each event what is remembered is what was decided.
    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.keeper.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Decided {
                    row,
                    situation,
                    decision,
                } => self.decided = Some((row, situation, decision)),
                // Of an earlier run.
                Effect::Ask(Question::Release { number, .. }) => {
                    self.feed(Event::GivenBack { number });
                }
                Effect::Ask(question) => self.questions.push(question),
                Effect::Say { word, .. } => self.words.push(word),
                Effect::Settle { .. } => {}
            }
        }
        let present = self.keeper.why().present.expect("a ruling");
        let last = present.last;
        let (row, situation, decision) = self.decided.expect("a decision");
        assert_eq!((present.row, last.situation()), (row, situation));
        assert_eq!(
            (present.decision, TABLE[row].decision),
            (decision, decision)
        );
        assert!(present.first.at <= last.at && last.at == at(self.now));
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 50;
            self.feed(Event::Peer(self.peer));
            if self.peer == Presence::Alive {
                let sent = at(self.now);
                self.feed(Event::Confirmed { sent, gaps: 0 });
            }
            let volume = VOLUME;
            let (facts, asked) = (Some(Box::new(self.facts)), at(self.now));
            self.feed(Event::Volume {
                volume,
                facts,
                asked,
            });
        }
    }
}

#[test]
fn a_takeover_is_remembered_with_what_it_rested_on_until_the_next_deed() {
    let mut node = Node::new(Standing::Standby);
    node.pass(5000);
    let record = *node.keeper.why();
    let present = record.present.expect("a ruling");
    assert_eq!(
        (present.decision, record.acted.is_none()),
        (Decision::Rest, true)
    );
    node.questions.clear();
    (node.peer, node.facts.linked) = (Presence::Dead, false);
    node.pass(700);
    let claimed = node.now;
    let Some(Question::Claim { number, claims }) = node.questions.first().cloned() else {
        panic!("{:?}", node.questions);
    };
    let asked = node.keeper.why().present.expect("a ruling").last.asked;
    assert!(asked.at.is_some() && asked.answered.is_none());
    let granted = Answer::Granted(claims.iter().map(|claim| claim.next).collect());
    node.feed(Event::Answered {
        number,
        answer: granted,
    });
    assert!(matches!(node.words.as_slice(), [Word::TakeOver { .. }]));
    node.feed(Event::WordDone { volume: VOLUME });
    node.facts.standing = Standing::Serving;
    node.facts.alone = true;
    node.facts.view = claims[0].next;
    node.pass(3000);
    let record = *node.keeper.why();
    // It serves by now; before, its daemon was being told.
    assert_eq!(record.present.map(|it| it.decision), Some(Decision::Rest));
    let acted = record.acted.expect("a deed");
    assert_eq!(acted.decision, Decision::TakeOver);
    assert_eq!(acted.first.claim, ClaimState::Granted);
    assert_eq!(acted.first.peer, Presence::Dead);
    let (told_at, told) = acted.first.asked.answered.expect("an answer");
    assert_eq!((told, told_at), (Told::Granted, at(claimed)));
    // Each volume, as it stood then and now.
    let stood = |moment| node.keeper.stood(VOLUME, moment).expect("known");
    let then = stood(Moment::Acted);
    assert_eq!(
        (then.standing, then.view),
        (Some(Standing::Standby), Some(mark(5)))
    );
    assert!(!then.linked);
    let now = stood(Moment::Now);
    assert_eq!((now.standing, now.alone), (Some(Standing::Serving), true));
    assert_eq!(now.view, Some(claims[0].next));
    // A stop that waits for what runs has done nothing yet.
    node.feed(Event::Services(Left::There));
    node.feed(Event::Wished(Wished {
        desire: Desire::Stopped,
        agreed: true,
        ..Wished::default()
    }));
    node.words.clear();
    node.pass(300);
    let record = *node.keeper.why();
    let present = record.present.expect("a ruling");
    assert_eq!(present.decision, Decision::Stop);
    assert!(present.held.is_some() && node.words.is_empty());
    assert_eq!(record.acted.map(|it| it.decision), Some(Decision::TakeOver));
    node.feed(Event::Services(Left::Gone));
    node.pass(300);
    assert_eq!(node.words, [Word::Release]);
    let acted = node.keeper.why().acted;
    assert_eq!(acted.map(|it| it.decision), Some(Decision::Stop));
}

#[test]
fn what_keeps_a_start_from_being_said_is_remembered() {
    let mut node = Node::new(Standing::Unserved);
    node.keeper = Keeper::new(at(0), ArbiterKind::Register, [VOLUME], &[3; 32]).preferring(true);
    node.pass(1000);
    let held = |node: &Node| node.keeper.why().present.expect("a ruling").held;
    // What an earlier run said may still be carried out.
    assert_eq!(node.decided.map(|it| it.2), Some(Decision::Start));
    assert_eq!(held(&node), Some(Hold::EarlierWords(at(0) + WORD_LIFE)));
    node.pass(1500);
    assert!(node.words.contains(&Word::Start));
    assert_eq!(held(&node), Some(Hold::Busy));
    // It refused, and is left alone for a moment.
    node.feed(Event::WordDone { volume: VOLUME });
    node.feed(Event::WordDone { volume: VOLUME });
    node.feed(Event::WordDone { volume: VOLUME });
    node.now += 10;
    let (facts, asked) = (Some(Box::new(node.facts)), at(node.now));
    node.feed(Event::Volume {
        volume: VOLUME,
        facts,
        asked,
    });
    assert!(
        matches!(held(&node), Some(Hold::Refused(until)) if until > at(node.now)),
        "{:?}",
        held(&node)
    );
}

#[test]
fn a_group_that_is_stopped_is_held_by_who_does_not_know_it() {
    let mut node = Node::new(Standing::Serving);
    node.pass(3000);
    let me = NodeId::new(0).expect("a node");
    node.feed(Event::Wished(Wished {
        mark: Some(controlplane_core::wish::WishMark::said(3, me)),
        desire: Desire::Stopped,
        ..Wished::default()
    }));
    node.feed(Event::Tick);
    let held = |node: &Node| node.keeper.why().present.expect("a ruling").held;
    assert_eq!(node.decided.map(|it| it.2), Some(Decision::Stop));
    assert_eq!(held(&node), Some(Hold::Resources));
    node.feed(Event::Services(controlplane_core::keeper::Services::Gone));
    assert_eq!(held(&node), Some(Hold::Untold));
    assert!(node.words.is_empty(), "{:?}", node.words);
}

/// Nothing of what is remembered grows: sizes are known, whatever happens.
#[test]
fn what_is_remembered_has_a_fixed_size() {
    fn is_copy<T: Copy>(_: &T) {}
    let node = Node::new(Standing::Standby);
    is_copy(node.keeper.why());
    assert!(
        size_of_val(node.keeper.why()) < 2048,
        "{}",
        size_of_val(node.keeper.why())
    );
    let group = Group::new(at(0), Policy::new(vec![ResourcePolicy::default()]));
    is_copy(group.why());
}

struct Services {
    group: Group,
    now: u64,
    acts: Vec<(usize, u64, Action)>,
}

impl Services {
    fn new() -> Self {
        let mut services = Self {
            group: Group::new(at(0), Policy::new(vec![ResourcePolicy::default(); 2])),
            now: 0,
            acts: Vec::new(),
        };
        services.feed(Happens::Tick);
        services
    }

    fn feed(&mut self, event: Happens) {
        let mut effects = Vec::new();
        self.group.handle(at(self.now), event, &mut effects);
        for effect in effects {
            if let Done::Act {
                resource,
                number,
                action,
                ..
            } = effect
            {
                self.acts.push((resource, number, action));
            }
        }
    }

    /// What is under way ends so.
    fn end(&mut self, outcome: Outcome) {
        for (resource, number, _) in std::mem::take(&mut self.acts) {
            self.feed(Happens::Ended {
                resource,
                number,
                outcome,
            });
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.feed(Happens::Tick);
    }

    fn is(&self, goal: Goal, because: Because) -> Progress {
        let present = self.group.why().present.expect("a reason");
        assert_eq!((present.goal, present.because), (goal, because));
        present.progress
    }
}

fn online() -> Services {
    let mut services = Services::new();
    services.end(Outcome::Done);
    services.feed(Happens::Volumes(Volumes::Served(Origin::Start)));
    assert_eq!(services.is(Goal::Run, Because::Served), Progress::Done);
    services
}

#[test]
fn a_group_says_at_each_step_of_a_takeover_what_it_waits_for() {
    let mut services = Services::new();
    let until = at(30_000);
    assert_eq!(
        services.is(Goal::Hold, Because::InDoubt { until }),
        Progress::Looks
    );
    services.end(Outcome::Absent);
    assert_eq!(
        services.is(Goal::Hold, Because::InDoubt { until }),
        Progress::Done
    );
    services.feed(Happens::Volumes(Volumes::Gone));
    assert_eq!(
        services.is(Goal::HardStop, Because::VolumesGone),
        Progress::Done
    );
    services.pass(1000);
    services.feed(Happens::Volumes(Volumes::Served(Origin::Failover)));
    let waits = services.is(Goal::Run, Because::Served);
    // It lives, as far as anybody said.
    let policy = services.group.policy();
    let wait = policy.takeover_wait + policy.living_wait;
    assert_eq!(
        waits,
        Progress::TakeoverWait {
            until: at(1000) + wait
        }
    );
    services.pass(u64::try_from(wait.as_millis()).expect("small") + 1);
    let started = services.is(Goal::Run, Because::Served);
    assert!(matches!(
        started,
        Progress::Acts {
            resource: 0,
            action: Action::Start(Origin::Failover),
            ..
        }
    ));
    // The first failure is cleaned up, and tried again after a pause.
    services.end(Outcome::Failed);
    let stops = services.is(Goal::Run, Because::Served);
    assert!(matches!(
        stops,
        Progress::Acts {
            action: Action::Stop(Manner::Orderly),
            ..
        }
    ));
    services.end(Outcome::Done);
    let pause = services.is(Goal::Run, Because::Served);
    assert!(
        matches!(pause, Progress::Pause { resource: 0, until } if until > at(services.now)),
        "{pause:?}"
    );
    services.pass(2000);
    services.end(Outcome::Done);
    services.end(Outcome::Done);
    assert_eq!(services.is(Goal::Run, Because::Served), Progress::Done);
    let before = services.group.why().before.expect("what was before");
    assert_eq!(before.because, Because::VolumesGone);
}

#[test]
fn a_group_that_does_not_run_says_which_reason_it_has() {
    // An operator.
    let mut services = online();
    services.feed(Happens::Order(Order::Stop));
    let stops = services.is(Goal::Stop, Because::Ordered);
    assert!(
        matches!(stops, Progress::Acts { resource: 1, .. }),
        "{stops:?}"
    );
    services.end(Outcome::Done);
    services.end(Outcome::Done);
    assert_eq!(services.is(Goal::Stop, Because::Ordered), Progress::Done);
    // A stop that fails.
    let mut services = online();
    services.feed(Happens::Order(Order::Stop));
    services.end(Outcome::Failed);
    assert_eq!(
        services.is(Goal::Hold, Because::StopFailed),
        Progress::Stuck
    );
    // The lease; a daemon that does not come back.
    let mut services = online();
    services.feed(Happens::Volumes(Volumes::LeaseOver));
    let stops = services.is(Goal::HardStop, Because::LeaseOver);
    assert!(matches!(
        stops,
        Progress::Acts {
            action: Action::Stop(Manner::Hard),
            ..
        }
    ));
    let mut services = online();
    services.feed(Happens::Volumes(Volumes::InDoubt));
    let until = at(services.now) + services.group.policy().doubt_grace;
    assert_eq!(
        services.is(Goal::Hold, Because::InDoubt { until }),
        Progress::Done
    );
    services.pass(30_000);
    let since = at(0);
    services.is(Goal::HardStop, Because::DoubtOver { since });
    // What began is not suspended by doubt.
    let mut services = online();
    services.feed(Happens::Volumes(Volumes::Gone));
    services.feed(Happens::Volumes(Volumes::InDoubt));
    services.is(Goal::HardStop, Because::Begun);
}

#[test]
fn a_group_that_failed_here_says_why() {
    // A resource that does not stay.
    let mut services = online();
    while services.group.barred().is_none() {
        services.feed(Happens::Broke { resource: 1 });
        services.end(Outcome::Done);
        services.pass(2000);
        services.end(Outcome::Done);
        assert!(services.now < 100_000);
    }
    services.is(Goal::Stop, Because::Barred(Reason::Resource(1)));
    // Too many failovers.
    let mut services = online();
    for _ in 0..2 {
        let ago = std::time::Duration::ZERO;
        services.feed(Happens::Remembered {
            spent: Spent::Takeover,
            ago,
        });
    }
    services.feed(Happens::Volumes(Volumes::Gone));
    services.end(Outcome::Done);
    services.feed(Happens::Volumes(Volumes::Served(Origin::Failover)));
    services.pass(60_000);
    services.is(Goal::Stop, Because::Barred(Reason::PingPong));
}
