//! A keeper whose arbiter are ping targets: who reached none while the peer was silent takes nothing over.

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{ArbiterKind, Effect, Event, Keeper, VolumeFacts, Word};
use controlplane_core::partition::{Decision, Missing, Standing, Targets};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, Instant, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUME: VolumeId = VolumeId([7; 16]);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

struct Node {
    keeper: Keeper,
    now: u64,
    standing: Standing,
    presence: Presence,
    targets: Targets,
    words: Vec<Word>,
    decision: Option<Decision>,
}

impl Node {
    fn new(standing: Standing) -> Self {
        let mut node = Self {
            keeper: Keeper::new(at(0), ArbiterKind::Ping, [VOLUME], &[3; 32]),
            now: 0,
            standing,
            presence: Presence::Alive,
            targets: Targets::Answer,
            words: Vec::new(),
            decision: None,
        };
        node.pass(3000);
        assert_eq!(node.words, []);
        node
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.keeper.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Say { volume, word } => {
                    self.words.push(word);
                    self.feed(Event::WordDone { volume });
                }
                Effect::Decided { decision, .. } => self.decision = Some(decision),
                // Of an earlier run, which may have had another arbiter.
                Effect::Ask(Question::Release { number, .. }) => {
                    self.feed(Event::GivenBack { number });
                }
                Effect::Ask(Question::Claim { .. }) | Effect::Settle { .. } => {
                    panic!("{effect:?}")
                }
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 50;
            let (arbiter, clients) = (self.targets, Targets::Answer);
            self.feed(Event::Targets { arbiter, clients });
            self.feed(Event::Peer(self.presence));
            if self.presence == Presence::Alive {
                let sent = at(self.now);
                self.feed(Event::Confirmed { sent, gaps: 0 });
            }
            if self.targets == Targets::Answer {
                let asked = at(self.now);
                self.feed(Event::Contact { asked });
            }
            let facts = VolumeFacts {
                standing: self.standing,
                view: ViewMark {
                    epoch: Epoch(5),
                    id: ViewId([5; 16]),
                },
                history: ViewHistory::default(),
                next_epoch: Epoch(6),
                linked: self.presence == Presence::Alive,
                alone: false,
                changing: false,
            };
            self.feed(Event::Volume {
                volume: VOLUME,
                facts: Some(Box::new(facts)),
                asked: at(self.now),
            });
        }
    }

    fn takes_over(&self) -> bool {
        let takes = |word: &Word| matches!(word, Word::TakeOver { .. });
        self.words.iter().any(takes)
    }
}

#[test]
fn a_standby_takes_over_where_a_target_answers() {
    let mut node = Node::new(Standing::Standby);
    node.presence = Presence::Dead;
    node.pass(2000);
    assert!(node.takes_over());
}

/// The network of a standby comes back bit by bit: the gateway is there before the peer is heard.
#[test]
fn a_standby_that_was_cut_off_waits_for_the_peer_whatever_answers_later() {
    for standing in [Standing::Standby, Standing::Unserved] {
        let mut node = Node::new(Standing::Standby);
        (node.presence, node.targets) = (Presence::Dead, Targets::Silent);
        node.pass(3000);
        node.standing = standing;
        node.targets = Targets::Answer;
        node.pass(60_000);
        assert_eq!(node.words, []);
        assert_eq!(node.decision, Some(Decision::Wait(Missing::Reach)));
        (node.presence, node.standing) = (Presence::Alive, Standing::Standby);
        node.pass(1000);
        // The next time it is the peer that is gone.
        node.presence = Presence::Dead;
        node.pass(3000);
        assert!(node.takes_over());
    }
}

#[test]
fn an_active_node_goes_on_where_a_target_answers_and_steps_down_where_none_does() {
    let mut node = Node::new(Standing::Serving);
    (node.presence, node.standing) = (Presence::Dead, Standing::Frozen);
    node.pass(2000);
    assert!(matches!(node.words.first(), Some(Word::GoAlone { .. })));
    let mut node = Node::new(Standing::Serving);
    (node.presence, node.standing) = (Presence::Dead, Standing::Frozen);
    node.targets = Targets::Silent;
    node.pass(2000);
    assert_eq!(node.words.first(), Some(&Word::StepDown));
}
