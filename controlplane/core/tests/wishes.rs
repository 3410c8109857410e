//! A keeper and what operators wish: it hands over, stops, waits, and says what came of a move.

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{
    ArbiterKind, Desire, Effect, Event, Keeper, Services, Side, VolumeFacts, Wished, Word,
};
use controlplane_core::partition::{Decision, Missing, Standing};
use controlplane_core::view_change::Question;
use controlplane_core::wish::{Origin, Why, WishMark};
use mirror_core::types::{Epoch, Instant, NodeId, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUMES: [VolumeId; 2] = [VolumeId([7; 16]), VolumeId([8; 16])];

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

/// One node with a group of two volumes; it answers words as a data plane would.
struct Node {
    keeper: Keeper,
    now: u64,
    standings: [Standing; 2],
    linked: bool,
    /// No other copy counts.
    alone: bool,
    presence: Presence,
    wished: Wished,
    /// Once they were told to stop.
    services: Services,
    /// Until then.
    runs: Services,
    /// Words are refused.
    refuses: bool,
    words: Vec<Word>,
    settled: Vec<Origin>,
    claims: usize,
    decision: Option<Decision>,
}

impl Node {
    fn new(standing: Standing) -> Self {
        let keeper = Keeper::new(at(0), ArbiterKind::Register, VOLUMES, &[3; 32]);
        let mut node = Self {
            keeper: keeper.preferring(true),
            now: 0,
            standings: [standing; 2],
            linked: true,
            alone: false,
            presence: Presence::Alive,
            wished: Wished::default(),
            services: Services::There,
            runs: Services::Online,
            refuses: false,
            words: Vec::new(),
            settled: Vec::new(),
            claims: 0,
            decision: None,
        };
        // Words of an earlier run are over.
        node.pass(3000);
        node
    }

    fn wishes(&mut self, desire: Desire) {
        let number = self.wished.mark.map_or(1, |mark| mark.number + 1);
        self.wished = Wished {
            mark: Some(WishMark::said(number, NodeId::new(0).expect("a node"))),
            desire,
            agreed: true,
            ..self.wished
        };
    }

    fn facts(&self, volume: usize) -> VolumeFacts {
        VolumeFacts {
            standing: self.standings[volume],
            view: ViewMark {
                epoch: Epoch(5),
                id: ViewId([5; 16]),
            },
            history: ViewHistory::default(),
            next_epoch: Epoch(6),
            linked: self.linked,
            alone: self.alone,
            changing: false,
        }
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.keeper.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Say { volume, word } => {
                    self.words.push(word);
                    let index = usize::from(volume == VOLUMES[1]);
                    match word {
                        Word::Release if !self.refuses => {
                            self.standings[index] = Standing::Unserved;
                        }
                        Word::Start => self.standings[index] = Standing::Serving,
                        Word::Release
                        | Word::StepDown
                        | Word::GoAlone { .. }
                        | Word::TakeOver { .. } => {}
                    }
                    self.feed(Event::WordDone { volume });
                }
                Effect::Ask(Question::Claim { .. }) => self.claims += 1,
                Effect::Ask(Question::Release { number, .. }) => {
                    self.feed(Event::GivenBack { number });
                }
                Effect::Settle { origin, .. } => self.settled.push(origin),
                Effect::Decided { decision, .. } => self.decision = Some(decision),
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += 50;
            self.feed(Event::Peer(self.presence));
            let services = if self.keeper.stops_services() {
                self.services
            } else {
                self.runs
            };
            self.feed(Event::Services(services));
            self.feed(Event::Wished(self.wished));
            let sent = at(self.now);
            self.feed(Event::Confirmed { sent, gaps: 0 });
            for (index, volume) in VOLUMES.into_iter().enumerate() {
                let facts = Some(Box::new(self.facts(index)));
                let asked = at(self.now);
                self.feed(Event::Volume {
                    volume,
                    facts,
                    asked,
                });
            }
        }
    }

    fn peer_dies(&mut self) {
        (self.linked, self.presence) = (false, Presence::Dead);
    }
}

const AWAY: Desire = Desire::Moves(Side::Other);

#[test]
fn a_group_is_handed_over_when_its_resources_are_gone() {
    let mut node = Node::new(Standing::Serving);
    node.wishes(AWAY);
    node.pass(30_000);
    assert!(node.keeper.stops_services());
    assert_eq!(node.words, []);
    assert_eq!(node.settled, [], "resources have limits of their own");
    node.services = Services::Gone;
    node.pass(1000);
    assert_eq!(node.words, [Word::Release, Word::Release]);
    node.pass(5000);
    assert_eq!(node.words.len(), 2, "it is the other node's turn");
    node.standings = [Standing::Standby; 2];
    node.pass(30_000);
    assert_eq!(node.settled, [], "the other node says that it arrived");
}

#[test]
fn nothing_is_handed_over_to_a_node_that_is_not_ready() {
    let unready: [fn(&mut Node); 4] = [
        |node| node.wished.agreed = false,
        |node| node.wished.other_suspended = true,
        |node| node.presence = Presence::Deaf,
        |node| node.linked = false,
    ];
    for spoil in unready {
        let mut node = Node::new(Standing::Serving);
        node.services = Services::Gone;
        spoil(&mut node);
        node.pass(100);
        node.wishes(AWAY);
        spoil(&mut node);
        node.pass(9000);
        assert!(!node.keeper.stops_services());
        assert_eq!((node.words.len(), node.settled.len()), (0, 0));
        node.pass(3000);
        assert_eq!(node.settled, [Origin::InVain(Why::NotReady)]);
    }
}

#[test]
fn what_the_other_node_does_not_begin_goes_back() {
    let mut node = Node::new(Standing::Serving);
    node.services = Services::Gone;
    node.wishes(AWAY);
    node.pass(9000);
    assert_eq!(node.standings, [Standing::Unserved; 2]);
    assert_eq!(node.settled, []);
    node.pass(3000);
    assert_eq!(node.settled, [Origin::InVain(Why::NotBegun)]);
    node.wishes(Desire::Runs(Some(Side::Own)));
    node.pass(1000);
    assert_eq!(node.standings, [Standing::Serving; 2]);
}

#[test]
fn a_volume_that_is_in_use_and_a_resource_that_stays_end_the_move() {
    let mut node = Node::new(Standing::Serving);
    (node.services, node.refuses) = (Services::Gone, true);
    node.wishes(AWAY);
    node.pass(12_000);
    assert_eq!(node.settled, [Origin::InVain(Why::InUse)]);
    let mut node = Node::new(Standing::Serving);
    node.services = Services::StopFailed;
    node.wishes(AWAY);
    node.pass(500);
    assert_eq!(node.settled, [Origin::InVain(Why::StopFailed)]);
    assert_eq!(node.words, []);
}

#[test]
fn the_node_to_which_a_group_moves_begins_and_says_so() {
    let mut node = Node::new(Standing::Standby);
    node.wishes(Desire::Moves(Side::Own));
    node.pass(1000);
    assert_eq!(node.settled, []);
    node.standings = [Standing::Unserved, Standing::Standby];
    node.pass(5000);
    assert_eq!(node.words, [], "one is not given away yet");
    node.standings = [Standing::Unserved; 2];
    node.runs = Services::There;
    node.pass(30_000);
    assert_eq!(node.standings, [Standing::Serving; 2]);
    assert_eq!(node.settled, [], "its resources are starting");
    node.runs = Services::Online;
    node.pass(100);
    assert_eq!(node.settled, [Origin::Arrived]);
}

#[test]
fn resources_that_do_not_start_where_the_group_moved_end_the_move() {
    let mut node = Node::new(Standing::Serving);
    node.runs = Services::StartFailed;
    node.wishes(Desire::Moves(Side::Own));
    node.pass(100);
    assert_eq!(node.settled, [Origin::InVain(Why::StartFailed)]);
}

/// A wish that is heard once more after it was settled elsewhere is another one.
#[test]
fn the_same_move_again_is_settled_again() {
    let mut node = Node::new(Standing::Serving);
    for times in 1..3 {
        node.wishes(Desire::Moves(Side::Own));
        node.pass(1000);
        assert_eq!(node.settled.len(), times);
    }
}

#[test]
fn a_stopped_group_is_stopped_and_does_not_fail_over_until_it_is_started() {
    let mut serving = Node::new(Standing::Serving);
    serving.services = Services::Gone;
    serving.wishes(Desire::Stopped);
    serving.pass(20_000);
    assert_eq!(serving.words, [Word::Release, Word::Release]);
    assert_eq!(serving.decision, Some(Decision::Wait(Missing::GroupStart)));
    let mut standby = Node::new(Standing::Standby);
    standby.wishes(Desire::Stopped);
    standby.peer_dies();
    standby.pass(20_000);
    assert_eq!(standby.claims, 0);
    assert_eq!(standby.decision, Some(Decision::Wait(Missing::GroupStart)));
    standby.wishes(Desire::Runs(None));
    standby.pass(1000);
    assert!(standby.claims > 0);
}

/// A node that does not know that the group is stopped would begin with its volumes.
#[test]
fn what_is_stopped_is_given_up_once_the_other_node_knows_it_or_cannot_have_it() {
    let mut node = Node::new(Standing::Serving);
    node.services = Services::Gone;
    node.wishes(Desire::Stopped);
    node.wished.agreed = false;
    node.pass(20_000);
    assert!(node.keeper.stops_services());
    assert_eq!(node.words, []);
    node.wished.agreed = true;
    node.pass(50);
    // What is wished of something else meanwhile is not told yet.
    node.wished.agreed = false;
    node.pass(1000);
    assert_eq!(node.words, [Word::Release, Word::Release]);
    let mut node = Node::new(Standing::Serving);
    (node.services, node.alone) = (Services::Gone, true);
    node.wishes(Desire::Stopped);
    node.wished.agreed = false;
    node.pass(1000);
    assert_eq!(node.words, [Word::Release, Word::Release]);
}

/// Something else is wished while a group is on its way: it goes on.
#[test]
fn a_move_under_way_is_not_disturbed_by_other_wishes() {
    let mut node = Node::new(Standing::Serving);
    node.wishes(AWAY);
    node.pass(500);
    assert!(node.keeper.stops_services());
    node.wished.agreed = false;
    node.pass(500);
    assert!(node.keeper.stops_services());
    node.services = Services::Gone;
    node.pass(500);
    assert_eq!(node.words, [Word::Release, Word::Release]);
}

#[test]
fn a_group_that_is_served_in_part_goes_where_it_can_be_served_as_a_whole() {
    let torn = [Standing::NotCurrent, Standing::Serving];
    let mut node = Node::new(Standing::Serving);
    node.standings = torn;
    node.pass(500);
    assert!(node.words.contains(&Word::StepDown), "{:?}", node.decision);
    // Nobody else has the volume that is served here.
    let mut node = Node::new(Standing::Serving);
    node.alone = true;
    node.pass(100);
    node.standings = torn;
    node.pass(500);
    assert_eq!(node.words, []);
    let mut node = Node::new(Standing::Serving);
    node.linked = false;
    node.pass(100);
    node.standings = torn;
    node.pass(500);
    assert!(!node.words.contains(&Word::StepDown));
}

#[test]
fn a_suspended_node_serves_on_and_takes_nothing_over() {
    let mut serving = Node::new(Standing::Serving);
    serving.wished.suspended = true;
    serving.pass(5000);
    assert!(!serving.keeper.stops_services());
    for standing in [Standing::Standby, Standing::Unserved, Standing::Alone] {
        let mut node = Node::new(Standing::Standby);
        node.wished.suspended = true;
        node.standings = [standing; 2];
        node.peer_dies();
        node.pass(20_000);
        assert_eq!((node.claims, node.words.len()), (0, 0), "{standing:?}");
        assert_eq!(node.decision, Some(Decision::Wait(Missing::NodeResume)));
        node.wished.suspended = false;
        node.pass(1000);
        assert!(node.claims > 0 || !node.words.is_empty(), "{standing:?}");
    }
}

#[test]
fn of_two_the_one_that_is_not_suspended_begins_at_once() {
    let mut node = Node::new(Standing::Standby);
    node.wished.other_suspended = true;
    node.wishes(Desire::Runs(None));
    node.standings = [Standing::Unserved; 2];
    node.pass(300);
    assert_eq!(node.standings, [Standing::Serving; 2]);
}
