//! Two keepers, one register, and data planes that are as simple as may be: whatever is lost, late or dead, the two
//! copies are never both the only one that counts.
//!
//! The data planes' own rules are proven elsewhere; here they carry a word out if the view is the one it names.

use std::collections::BTreeMap;
use std::time::Duration;

use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::{ArbiterKind, Effect, Event, Keeper, VolumeFacts, Word};
use controlplane_core::partition::{Decision, Standing};
use controlplane_core::register::{Answer, Claim, Registers};
use controlplane_core::self_fencing::Confirmations;
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, Instant, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};
use proptest::prelude::*;

const VOLUME: VolumeId = VolumeId([7; 16]);
const TIMEOUT: Duration = Duration::from_secs(2);

fn node(number: usize) -> NodeId {
    NodeId::new(u8::try_from(number).expect("small")).expect("a node")
}

fn both() -> NodeSet {
    NodeSet::only(node(0)).with(node(1))
}

/// What a network, a machine or a person may do.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The mirror link breaks, or comes back.
    Link(bool),
    /// Heartbeats stop, or come again.
    Heartbeats(bool),
    /// The arbiter cannot be reached from a node, or can again.
    Arbiter(usize, bool),
    /// The answer to a node's next question is lost.
    LoseAnswer(usize),
    /// A node's daemon starts anew and remembers nothing.
    Restart(usize),
    /// A node's data plane takes its time, or works again.
    Slow(usize, bool),
    /// Time passes.
    Pass(u64),
    /// Connected, both agree on a next view without the arbiter.
    Agree,
    /// Of a change on which both agreed only one node has made the view durable.
    HalfAgree(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Link),
        any::<bool>().prop_map(Step::Heartbeats),
        (0..2_usize, any::<bool>()).prop_map(|(node, up)| Step::Arbiter(node, up)),
        (0..2_usize).prop_map(Step::LoseAnswer),
        (0..2_usize, any::<bool>()).prop_map(|(node, slow)| Step::Slow(node, slow)),
        (0..2_usize).prop_map(Step::Restart),
        (1..4000_u64).prop_map(Step::Pass),
        (1..400_u64).prop_map(Step::Pass),
        Just(Step::Agree),
        (0..2_usize).prop_map(Step::HalfAgree),
    ]
}

struct World {
    now: u64,
    keepers: [Keeper; 2],
    views: [View; 2],
    histories: [ViewHistory; 2],
    serving: [bool; 2],
    registers: Registers,
    linked: bool,
    heartbeats: bool,
    reaches: [bool; 2],
    loses: [bool; 2],
    slow: [bool; 2],
    /// Words that the data planes have not carried out yet.
    words: Vec<(usize, Word)>,
    /// The only copies that ever counted alone, by the view on which that rests.
    alone: BTreeMap<u64, usize>,
    decisions: [Vec<Decision>; 2],
    seeds: u8,
    /// What each node's thread hears on the interconnects.
    confirmed: [Confirmations; 2],
}

impl World {
    fn new() -> Self {
        let view = View {
            epoch: Epoch(5),
            id: ViewId([5; 16]),
            active: Some(node(0)),
            insync: both(),
        };
        let mut registers = Registers::new(both(), BTreeMap::new());
        for number in 0..2 {
            registers.report(node(number), VOLUME, &view);
        }
        let keeper = |seed| Keeper::new(at(0), ArbiterKind::Register, [VOLUME], &[seed; 32]);
        let mut world = Self {
            now: 0,
            keepers: [keeper(1), keeper(2)],
            views: [view; 2],
            histories: [ViewHistory::default(); 2],
            serving: [true, false],
            registers,
            linked: true,
            heartbeats: true,
            reaches: [true; 2],
            loses: [false; 2],
            slow: [false; 2],
            words: Vec::new(),
            alone: BTreeMap::new(),
            decisions: [Vec::new(), Vec::new()],
            seeds: 2,
            confirmed: [Confirmations::new(TIMEOUT, None); 2],
        };
        world.pass(100);
        world
    }

    fn facts(&self, side: usize) -> VolumeFacts {
        let view = &self.views[side];
        let standing = match (self.serving[side], view.is_sole(node(side))) {
            (true, false) if !self.agreed() => Standing::Frozen,
            (true, _) => Standing::Serving,
            (false, true) => Standing::Alone,
            (false, false) if !view.insync.contains(node(side)) => Standing::NotCurrent,
            (false, false) => Standing::Standby,
        };
        VolumeFacts {
            standing,
            view: view.mark(),
            history: self.histories[side],
            next_epoch: view.epoch.next(),
            linked: self.agreed(),
            alone: view.is_sole(node(side)),
            changing: false,
        }
    }

    /// The link is of use between copies of one view only.
    fn agreed(&self) -> bool {
        self.linked && self.views[0].mark() == self.views[1].mark()
    }

    fn feed(&mut self, side: usize, event: Event) {
        let mut effects = Vec::new();
        self.keepers[side].handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Decided { decision, .. } => self.decisions[side].push(decision),
                Effect::Say { word, .. } => self.words.push((side, word)),
                Effect::Ask(question) => self.ask(side, question),
                // No operator is in this world: tests/wishes.rs has one.
                Effect::Settle { .. } => panic!("nobody wished anything"),
            }
        }
    }

    fn ask(&mut self, side: usize, question: Question) {
        if !self.reaches[side] {
            return;
        }
        let event = match question {
            Question::Claim { number, claims } => {
                let answer = self.registers.claim(node(side), &claims);
                if let Answer::Granted(marks) = &answer {
                    assert_eq!(marks.len(), claims.len());
                }
                Event::Answered { number, answer }
            }
            Question::Release { number, volumes } => {
                for (volume, view) in volumes {
                    self.registers.release(node(side), volume, view);
                }
                Event::GivenBack { number }
            }
        };
        if !std::mem::take(&mut self.loses[side]) {
            self.feed(side, event);
        }
    }

    /// A data plane carries a word out, if the view is still the one that it names.
    fn carry_out(&mut self) {
        for (side, word) in std::mem::take(&mut self.words) {
            if self.slow[side] {
                self.words.push((side, word));
                continue;
            }
            match word {
                Word::GoAlone { basis, next, until } | Word::TakeOver { basis, next, until } => {
                    if at(self.now) >= until {
                        self.feed(side, Event::WordDone { volume: VOLUME });
                        continue;
                    }
                    if self.views[side].mark() == basis && !self.agreed() {
                        self.go_alone(side, basis, next);
                    }
                }
                Word::Start => self.serving[side] = self.views[side].is_sole(node(side)),
                Word::StepDown | Word::Release => self.serving[side] = false,
            }
            self.feed(side, Event::WordDone { volume: VOLUME });
        }
    }

    fn go_alone(&mut self, side: usize, basis: ViewMark, next: ViewMark) {
        let holder = *self.alone.entry(basis.epoch.0).or_insert(side);
        assert_eq!(holder, side, "both went alone from epoch {}", basis.epoch.0);
        let other = &self.views[1 - side];
        let ahead = other.is_sole(node(1 - side)) && other.epoch > basis.epoch;
        assert!(
            !ahead,
            "the other one went alone already, from a later view"
        );
        let view = View {
            epoch: next.epoch,
            id: next.id,
            active: Some(node(side)),
            insync: NodeSet::only(node(side)),
        };
        self.hold(side, view);
        self.serving[side] = true;
    }

    fn confirm(&mut self, side: usize) {
        self.confirmed[side].hear(at(self.now));
        self.tell_confirmed(side);
    }

    fn tell_confirmed(&mut self, side: usize) {
        let confirmed = &self.confirmed[side];
        if let Some(sent) = confirmed.last() {
            let gaps = confirmed.gaps();
            self.feed(side, Event::Confirmed { sent, gaps });
        }
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 50).min(end);
            self.meet();
            for side in 0..2 {
                let heard = self.heartbeats;
                let presence = if heard {
                    Presence::Alive
                } else {
                    Presence::Dead
                };
                self.feed(side, Event::Peer(presence));
                self.confirmed[side].look(at(self.now));
                self.tell_confirmed(side);
                if heard {
                    self.confirm(side);
                }
                if self.reaches[side] {
                    let asked = at(self.now);
                    self.feed(side, Event::Contact { asked });
                }
                let facts = Some(Box::new(self.facts(side)));
                self.feed(
                    side,
                    Event::Volume {
                        volume: VOLUME,
                        facts,
                        asked: at(self.now),
                    },
                );
                self.feed(side, Event::Tick);
            }
            self.carry_out();
            let serving = (0..2).filter(|side| self.serving[*side] && self.is_alone(*side));
            assert!(serving.count() < 2, "both serve alone");
        }
    }

    fn is_alone(&self, side: usize) -> bool {
        self.views[side].is_sole(node(side))
    }

    /// A link that is up brings the copies together: the later view rules, and the other copy is filled.
    fn meet(&mut self) {
        if !self.linked || self.agreed() {
            return;
        }
        let ahead = usize::from(self.views[1].epoch > self.views[0].epoch);
        self.serving[1 - ahead] = false;
        self.views[1 - ahead] = self.views[ahead];
        self.histories[1 - ahead] = self.histories[ahead];
        self.agree(both());
    }

    fn agree(&mut self, insync: NodeSet) {
        let next = self.next_agreed(insync);
        for side in 0..2 {
            self.hold(side, next);
        }
    }

    fn hold(&mut self, side: usize, view: View) {
        self.histories[side].push(self.views[side].mark());
        self.views[side] = view;
    }

    fn next_agreed(&self, insync: NodeSet) -> View {
        let epoch = self.views[0].epoch.max(self.views[1].epoch).next();
        let bytes = u8::try_from(epoch.0 % 200).expect("small");
        View {
            epoch,
            id: ViewId([bytes; 16]),
            active: None,
            insync,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Link(up) => self.linked = up,
            Step::Heartbeats(on) => self.heartbeats = on,
            Step::Arbiter(side, up) => self.reaches[side] = up,
            Step::LoseAnswer(side) => self.loses[side] = true,
            Step::Slow(side, slow) => self.slow[side] = slow,
            Step::Restart(side) => {
                // A data plane finishes what it was told; its daemon is another process.
                self.seeds += 1;
                let seed = [self.seeds; 32];
                let now = at(self.now);
                let left = self.confirmed[side].last();
                self.confirmed[side] = Confirmations::new(TIMEOUT, left);
                self.keepers[side] = Keeper::new(now, ArbiterKind::Register, [VOLUME], &seed)
                    .leasing(TIMEOUT, left, None);
            }
            Step::Pass(millis) => self.pass(millis),
            Step::Agree => {
                if self.agreed() {
                    self.agree(both());
                }
            }
            Step::HalfAgree(side) => {
                if self.agreed() {
                    let next = self.next_agreed(both());
                    self.hold(side, next);
                    self.linked = false;
                }
            }
        }
    }

    fn heal(&mut self) {
        self.linked = true;
        self.heartbeats = true;
        self.reaches = [true; 2];
        self.loses = [false; 2];
        self.slow = [false; 2];
        self.pass(10_000);
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

#[test]
fn the_standby_takes_over_from_a_dead_node_soon() {
    let mut world = World::new();
    world.linked = false;
    world.heartbeats = false;
    world.reaches[0] = false;
    world.serving[0] = false;
    world.pass(900);
    assert_eq!(world.serving, [false, true]);
}

#[test]
fn of_two_nodes_that_lost_each_other_the_serving_one_goes_on() {
    let mut world = World::new();
    world.linked = false;
    world.heartbeats = false;
    world.pass(5000);
    assert_eq!(world.serving, [true, false]);
    assert!(world.is_alone(0));
}

#[test]
fn a_serving_node_without_peer_and_arbiter_steps_down_and_the_other_goes_on() {
    let mut world = World::new();
    world.linked = false;
    world.heartbeats = false;
    world.reaches[0] = false;
    world.pass(5000);
    assert_eq!(world.serving, [false, true]);
}

#[test]
fn a_lost_mirror_link_alone_leaves_the_serving_node_in_charge() {
    let mut world = World::new();
    world.linked = false;
    world.pass(1500);
    assert!(!world.is_alone(0), "the link has its time to come back");
    world.pass(5000);
    assert_eq!(world.serving, [true, false]);
    assert!(world.is_alone(0));
}

#[test]
fn a_dead_arbiter_stops_nothing() {
    let mut world = World::new();
    world.reaches = [false; 2];
    world.pass(20_000);
    assert_eq!(world.serving, [true, false]);
}

/// The answer to the serving node's claim is lost and the link is back before it asks again: if the grant stayed at the
/// arbiter, the standby could never take over.
#[test]
fn a_grant_that_nobody_needed_does_not_stand_in_the_way() {
    let mut world = World::new();
    world.linked = false;
    world.heartbeats = false;
    world.loses[0] = true;
    world.pass(100);
    world.linked = true;
    world.heartbeats = true;
    world.pass(2000);
    world.linked = false;
    world.heartbeats = false;
    world.reaches[0] = false;
    world.serving[0] = false;
    world.pass(1000);
    assert_eq!(world.serving, [false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The asserts of the world are the law; at the end everything works again, and one node serves or may.
    #[test]
    fn the_two_never_both_go_alone(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.linked = false;
        world.heartbeats = false;
        world.pass(10_000);
        prop_assert!(world.is_alone(0) || world.is_alone(1), "nobody may go on");
    }
}

fn claim_in(effects: &[Effect]) -> Option<(u64, Vec<Claim>)> {
    effects.iter().find_map(|effect| {
        if let Effect::Ask(Question::Claim { number, claims }) = effect {
            Some((*number, claims.clone()))
        } else {
            None
        }
    })
}

/// The volumes that are to be taken over.
fn words(effects: &[Effect]) -> Vec<VolumeId> {
    let mut volumes = Vec::new();
    for effect in effects {
        if let Effect::Say { volume, word } = effect
            && matches!(word, Word::TakeOver { .. })
        {
            volumes.push(*volume);
        }
    }
    volumes
}

/// Both words of a group are refused at first. One volume is ready again before the other one, and is taken over: the
/// other one is not forgotten.
#[test]
fn a_group_is_taken_over_to_its_last_volume() {
    const OTHER: VolumeId = VolumeId([8; 16]);
    let view = |epoch: u64| ViewMark {
        epoch: Epoch(epoch),
        id: ViewId([u8::try_from(epoch).expect("small"); 16]),
    };
    let facts = |standing, view| VolumeFacts {
        standing,
        view,
        history: ViewHistory::default(),
        next_epoch: Epoch(6),
        linked: false,
        alone: false,
        changing: false,
    };
    let volumes = [VOLUME, OTHER];
    let mut keeper = Keeper::new(at(0), ArbiterKind::Register, volumes, &[3; 32]);
    let mut effects = Vec::new();
    let tell = |keeper: &mut Keeper, now: u64, volume, facts: VolumeFacts| {
        let facts = Some(Box::new(facts));
        let asked = at(now);
        let event = Event::Volume {
            volume,
            facts,
            asked,
        };
        let mut effects = Vec::new();
        keeper.handle(at(now), event, &mut effects);
        effects
    };
    for volume in volumes {
        effects = tell(&mut keeper, 5000, volume, facts(Standing::Standby, view(5)));
    }
    keeper.handle(at(5000), Event::Peer(Presence::Dead), &mut effects);
    keeper.handle(at(6000), Event::Tick, &mut effects);
    let (number, claims) = claim_in(&effects).expect("a claim");
    assert_eq!(claims.len(), 2);
    let granted: Vec<ViewMark> = claims.iter().map(|claim| claim.next).collect();
    let answer = Answer::Granted(granted.clone());
    let mut said = Vec::new();
    keeper.handle(at(6001), Event::Answered { number, answer }, &mut said);
    assert_eq!(words(&said), volumes);
    // Both are refused: a connection still stood.
    for (now, volume) in [(6010, VOLUME), (6015, OTHER)] {
        keeper.handle(at(now), Event::WordDone { volume }, &mut Vec::new());
    }
    for volume in volumes {
        tell(&mut keeper, 6020, volume, facts(Standing::Standby, view(5)));
    }
    // The first one's rest is over, the second one's is not.
    let mut said = Vec::new();
    keeper.handle(at(6037), Event::Tick, &mut said);
    assert_eq!(words(&said), [VOLUME]);
    keeper.handle(at(6038), Event::WordDone { volume: VOLUME }, &mut said);
    let mut said = tell(
        &mut keeper,
        6039,
        VOLUME,
        facts(Standing::Serving, granted[0]),
    );
    keeper.handle(at(6041), Event::Tick, &mut said);
    assert_eq!(words(&said), [OTHER]);
    assert!(
        said.iter().all(|effect| !matches!(effect, Effect::Ask(_))),
        "{said:?}"
    );
}

/// It begins between two files, or by the new one: its own lease counts, from what was confirmed to the run before.
#[test]
fn a_new_run_goes_on_with_what_is_left_of_the_run_before_by_its_own_lease() {
    let until = |lease: u64, confirmed: Option<u64>| {
        let lease = Duration::from_millis(lease);
        let keeper = Keeper::new(at(5000), ArbiterKind::Register, [VOLUME], &[3; 32]);
        let keeper = keeper.leasing(lease, confirmed.map(at), None);
        keeper.services_until(at(5000)).expect("both count")
    };
    assert_eq!(until(700, Some(4800)), at(5500));
    assert_eq!(until(60_000, Some(4800)), at(64_800));
    assert!(until(700, Some(4000)) < at(5000) && until(700, None) < at(5000));
}
