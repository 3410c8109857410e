//! A group that fails on two nodes with real keepers, wishes and resources' rules: it moves by itself at most once, to a node
//! that can have it, and is never served by two.

use std::collections::BTreeMap;
use std::time::Duration;

use controlplane_core::failing::{Here, OnFailure, Seen, Then, after_failure, to_record};
use controlplane_core::failure_detector::Presence;
use controlplane_core::group::{
    self, Action, Group, GroupState, Order, Outcome, Policy, Reason, ResourcePolicy, Volumes,
};
use controlplane_core::keeper::{
    ArbiterKind, Effect, Event, Keeper, Services, VolumeFacts, Wished, Word,
};
use controlplane_core::partition::Standing;
use controlplane_core::wish::{self, Failure, GroupKey, Origin, Subject, Want, Wishes};
use mirror_core::types::{Epoch, Instant, NodeId, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};
use proptest::prelude::*;

const VOLUME: VolumeId = VolumeId([7; 16]);
const STEP_MS: u64 = 50;
const WITHIN: Duration = Duration::from_secs(300);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn id(node: usize) -> NodeId {
    NodeId::new(u8::try_from(node).expect("small")).expect("a node")
}

fn key() -> GroupKey {
    GroupKey::of("pg")
}

struct Node {
    keeper: Keeper,
    wishes: Wishes,
    group: Group,
    /// Its resource runs.
    runs: bool,
    failed_since: Option<Instant>,
    ordered: Order,
    cleared: u64,
    /// When it moved the group away by itself, since it was cleared last.
    moves: Vec<u64>,
    starts: usize,
}

struct Bed {
    now: u64,
    nodes: [Node; 2],
    serving: Option<usize>,
    linked: bool,
    /// The control plane of this node does not run.
    down: Option<usize>,
    /// The copy of this node does not count.
    stale: Option<usize>,
    /// There the resource does not run.
    broken: [bool; 2],
    moves: usize,
}

impl Bed {
    fn new(on_failure: OnFailure) -> Self {
        let node = |number: usize| {
            let resource = ResourcePolicy {
                retries: 1,
                ..ResourcePolicy::default()
            };
            let mut policy = Policy::new(vec![resource]);
            (policy.takeover_wait, policy.living_wait) = (Duration::ZERO, Duration::ZERO);
            (policy.on_failure, policy.failovers_within) = (on_failure, WITHIN);
            let subjects = [
                Subject::Group(key()),
                Subject::Failures(key()),
                Subject::Failed(key(), id(0)),
                Subject::Failed(key(), id(1)),
                Subject::Node(id(0)),
                Subject::Node(id(1)),
            ];
            let keeper = Keeper::new(at(0), ArbiterKind::Register, [VOLUME], &[3; 32]);
            Node {
                keeper: keeper.preferring(number == 0),
                wishes: Wishes::new(id(number), subjects, []),
                group: Group::new(at(0), policy),
                runs: false,
                failed_since: None,
                ordered: Order::Start,
                cleared: 0,
                moves: Vec::new(),
                starts: 0,
            }
        };
        let mut bed = Self {
            now: 0,
            nodes: [node(0), node(1)],
            serving: Some(0),
            linked: true,
            down: None,
            stale: None,
            broken: [false; 2],
            moves: 0,
        };
        bed.pass(5000);
        bed
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += STEP_MS;
            let down = self.down;
            for node in (0..2).filter(|node| down != Some(*node)) {
                self.tell_wishes(node);
                self.feed(node);
                self.run_services(node);
                self.look_at_failure(node);
            }
        }
    }

    fn operator(&mut self, node: usize, subject: Subject, want: Want) {
        self.nodes[node].wishes.say(subject, want, Origin::Operator);
        self.store(node);
    }

    fn store(&mut self, node: usize) {
        let mut effects = Vec::new();
        self.nodes[node].wishes.store(&mut effects);
        while let Some(effect) = effects.pop() {
            match effect {
                wish::Effect::Store { version, .. } => {
                    self.nodes[node].wishes.stored(version, &mut effects);
                }
                wish::Effect::Rules(wish) => self.rules(node, wish),
            }
        }
    }

    fn rules(&mut self, node: usize, wish: wish::Wish) {
        let to_me = wish.want == (Want::Moves { to: id(node) }) && wish.origin == Origin::Operator;
        if to_me {
            self.clear(node);
        }
    }

    fn clear(&mut self, node: usize) {
        self.nodes[node].moves.clear();
        self.see_volumes(node);
        self.group(node, group::Event::Order(Order::Clear));
    }

    /// The number of an operator's word that failures are forgotten, to be carried out.
    fn to_forget(&self, node: usize) -> Option<u64> {
        let own = &self.nodes[node];
        let wish = own.wishes.of(Subject::Failures(key()))?;
        (wish.number != own.cleared).then_some(wish.number)
    }

    fn agreed(&self) -> bool {
        let both = [0, 1].map(|node: usize| self.nodes[node].wishes.digest());
        self.linked && self.down.is_none() && both[0].is_some() && both[0] == both[1]
    }

    /// One wish of the other node, in turn.
    fn tell_wishes(&mut self, node: usize) {
        if !self.linked || self.down == Some(1 - node) {
            return;
        }
        let others: Vec<_> = self.nodes[1 - node].wishes.durable().copied().collect();
        let turn = usize::try_from(self.now / STEP_MS).expect("small");
        if let Some(wish) = others.get(turn % others.len().max(1)) {
            self.nodes[node].wishes.hear(*wish);
            self.store(node);
        }
    }

    fn feed(&mut self, node: usize) {
        let agreed = self.agreed();
        let presence = if self.down.is_some() {
            Presence::Dead
        } else {
            Presence::Alive
        };
        let (me, peer) = (id(node), id(1 - node));
        let own = &self.nodes[node];
        let wished = Wished::of(&own.wishes, Subject::Group(key()), me, peer, agreed);
        let stops = own.keeper.stops_services();
        let released = own.ordered == Order::Stop && own.group.is_released();
        let services = Services::of(own.group.state(at(self.now)), released, stops);
        let sent = at(self.now);
        for event in [
            Event::Peer(presence),
            Event::Services(services),
            Event::Wished(wished),
            Event::Confirmed { sent, gaps: 0 },
        ] {
            self.keeper(node, event);
        }
        // Asked after what was just said is carried out.
        let facts = Some(Box::new(self.facts(node)));
        let (volume, asked) = (VOLUME, sent);
        self.keeper(
            node,
            Event::Volume {
                volume,
                facts,
                asked,
            },
        );
    }

    fn facts(&self, node: usize) -> VolumeFacts {
        let standing = match self.serving {
            Some(serving) if serving == node && self.linked => Standing::Serving,
            Some(serving) if serving == node => Standing::Frozen,
            _ if self.stale == Some(node) => Standing::NotCurrent,
            Some(_) => Standing::Standby,
            None if self.stale.is_some() => Standing::Alone,
            None => Standing::Unserved,
        };
        VolumeFacts {
            standing,
            view: ViewMark {
                epoch: Epoch(5),
                id: ViewId([5; 16]),
            },
            history: ViewHistory::default(),
            next_epoch: Epoch(6),
            linked: self.linked,
            alone: self.stale == Some(1 - node),
            changing: false,
        }
    }

    fn keeper(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let now = at(self.now);
        self.nodes[node].keeper.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Say { volume, word } => {
                    match word {
                        Word::Release if self.serving == Some(node) => {
                            assert!(!self.nodes[node].runs, "nothing runs on what is given away");
                            self.serving = None;
                        }
                        // The data planes see to it that two never serve; a keeper may look at what was a moment ago.
                        Word::Start if self.serving.is_none() => self.serving = Some(node),
                        Word::Release
                        | Word::Start
                        | Word::StepDown
                        | Word::GoAlone { .. }
                        | Word::TakeOver { .. } => {}
                    }
                    self.keeper(node, Event::WordDone { volume });
                }
                Effect::Settle { mark, origin } => {
                    let home = Some(id(node));
                    let subject = Subject::Group(key());
                    let outcome = (subject, Want::Runs { home }, origin);
                    self.nodes[node].wishes.settle(mark, outcome);
                    self.store(node);
                }
                Effect::Ask(_) | Effect::Decided { .. } => {}
            }
        }
    }

    fn run_services(&mut self, node: usize) {
        self.see_volumes(node);
        let order = if self.nodes[node].keeper.stops_services() {
            Order::Stop
        } else {
            Order::Start
        };
        if order != self.nodes[node].ordered {
            self.nodes[node].ordered = order;
            self.group(node, group::Event::Order(order));
        }
        if self.broken[node] && std::mem::take(&mut self.nodes[node].runs) {
            self.group(node, group::Event::Broke { resource: 0 });
        }
        self.group(node, group::Event::Tick);
    }

    fn see_volumes(&mut self, node: usize) {
        let volumes = if self.serving == Some(node) {
            Volumes::Served(group::Origin::Start)
        } else {
            Volumes::Gone
        };
        self.group(node, group::Event::Volumes(volumes));
    }

    fn group(&mut self, node: usize, event: group::Event) {
        let now = at(self.now);
        let mut effects = Vec::new();
        let own = &mut self.nodes[node];
        own.group.handle(now, event, &mut effects);
        for effect in effects {
            if let group::Effect::Act {
                resource,
                number,
                action,
                ..
            } = effect
            {
                let own = &mut self.nodes[node];
                let outcome = match action {
                    Action::Probe if own.runs => Outcome::Done,
                    Action::Probe => Outcome::Absent,
                    Action::Start(_) => {
                        own.starts += 1;
                        own.runs = !self.broken[node];
                        assert_eq!(self.serving, Some(node), "it starts on what it serves");
                        if own.runs {
                            Outcome::Done
                        } else {
                            Outcome::Failed
                        }
                    }
                    Action::Stop(_) => {
                        own.runs = false;
                        Outcome::Done
                    }
                };
                self.group(
                    node,
                    group::Event::Ended {
                        resource,
                        number,
                        outcome,
                    },
                );
            }
        }
    }

    fn here(&self, node: usize) -> Here {
        let group = &self.nodes[node].group;
        match (group.state(at(self.now)), group.barred()) {
            (GroupState::Online, _) => Here::Runs,
            (
                GroupState::StartFailed | GroupState::Offline,
                Some(Reason::Resource(_) | Reason::Monitor(_)),
            ) => Here::Failed,
            (_, Some(_)) => Here::Waits,
            (_, None) => Here::Else,
        }
    }

    fn look_at_failure(&mut self, node: usize) {
        let (now, here) = (at(self.now), self.here(node));
        let (record, group) = (Subject::Failed(key(), id(node)), Subject::Group(key()));
        let clears = self.to_forget(node);
        let own = &mut self.nodes[node];
        let said = own.wishes.of(record).map(|wish| wish.want);
        if let Some(want) = to_record(said, here, clears.is_some()) {
            own.wishes.say(record, want, Origin::Node);
            self.store(node);
        } else if let Some(number) = clears {
            own.cleared = number;
            self.clear(node);
        }
        let agreed = self.agreed();
        let own = &mut self.nodes[node];
        if here != Here::Failed {
            own.failed_since = None;
            return;
        }
        let failure = |of| own.wishes.failure(key(), id(of));
        let seen = Seen {
            here,
            since: *own.failed_since.get_or_insert(now),
            on_failure: own.group.policy().on_failure,
            within: own.group.policy().failovers_within,
            moves_left: own.group.moves_left(now),
            durable: own.wishes.is_durable(record) && own.wishes.is_durable(group),
            recorded: failure(node) == Failure::Stands,
            there: failure(1 - node),
            agreed,
            around: own.keeper.around(),
        };
        if after_failure(now, &seen).1 == Then::Moves {
            self.moves_by_itself(node);
        }
    }

    /// Laws of every move by itself, by what is true and not by what the node believes.
    fn moves_by_itself(&mut self, node: usize) {
        let other = &self.nodes[1 - node];
        assert_eq!(self.serving, Some(node), "it has what it gives");
        assert!(self.linked, "the other one is there");
        assert_eq!(self.stale, None, "its copy counts");
        assert!(
            !other.wishes.is_suspended(id(1 - node)),
            "it is not suspended"
        );
        assert_eq!(other.group.barred(), None, "it did not fail there");
        let within = self.nodes[node].group.policy().failovers_within;
        let within = u64::try_from(within.as_millis()).expect("minutes");
        let now = self.now;
        let max = self.nodes[node].group.policy().failovers_max;
        let own = &mut self.nodes[node];
        own.moves.retain(|then| now < then + within);
        own.moves.push(now);
        assert!(own.moves.len() <= max as usize, "within the budget");
        let to = id(1 - node);
        own.wishes
            .say(Subject::Group(key()), Want::Moves { to }, Origin::Node);
        self.moves += 1;
        self.group(node, group::Event::MovesAway);
        self.store(node);
    }
}

#[test]
fn a_group_that_fails_here_runs_there_by_itself() {
    let mut bed = Bed::new(OnFailure::Failover);
    assert!(bed.nodes[0].runs);
    bed.broken[0] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    assert!(bed.nodes[1].runs);
    // It ran, broke, and was tried once more.
    assert_eq!((bed.nodes[0].starts, bed.nodes[1].starts), (2, 1));
    for node in &bed.nodes {
        let failure = |of| node.wishes.failure(key(), id(of));
        assert_eq!([failure(0), failure(1)], [Failure::Stands, Failure::None]);
    }
}

/// It failed on both, and one control plane is not there while an operator clears it on the other one: where it was mended it
/// runs as soon as that one is back.
#[test]
fn what_is_forgotten_is_forgotten_by_a_node_that_was_away_as_well() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.broken = [true; 2];
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    bed.down = Some(0);
    bed.pass(5000);
    bed.operator(1, Subject::Failures(key()), Want::Forgotten);
    bed.pass(20_000);
    assert_eq!(bed.nodes[1].starts, 4, "it was tried again");
    bed.broken[0] = false;
    bed.down = None;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 2));
    assert!(bed.nodes[0].runs);
}

#[test]
fn a_fault_that_follows_the_group_costs_one_move_and_clear_forgets_it_on_both() {
    let mut bed = Bed::new(OnFailure::Failover);
    bed.broken = [true; 2];
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(1), 1));
    let starts = |bed: &Bed| [bed.nodes[0].starts, bed.nodes[1].starts];
    assert_eq!(starts(&bed), [2, 2]);
    bed.pass(300_000);
    assert_eq!((starts(&bed), bed.moves), ([2, 2], 1), "nothing flaps");
    bed.broken = [false; 2];
    bed.operator(0, Subject::Failures(key()), Want::Forgotten);
    bed.pass(5000);
    assert_eq!(starts(&bed), [2, 3]);
    assert!(bed.nodes[1].runs);
    let failure = |of| bed.nodes[0].wishes.failure(key(), id(of));
    assert_eq!([failure(0), failure(1)], [Failure::None; 2]);
    // What was forgotten may move again, and back.
    bed.broken[1] = true;
    bed.pass(20_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 2));
}

#[test]
fn a_group_that_shall_wait_waits_and_one_that_an_operator_stopped_stays_stopped() {
    let mut bed = Bed::new(OnFailure::Wait);
    bed.broken[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (Some(0), 0));
    let mut bed = Bed::new(OnFailure::Failover);
    let home = None;
    bed.operator(1, Subject::Group(key()), Want::Stopped { home });
    bed.broken[0] = true;
    bed.pass(60_000);
    assert_eq!((bed.serving, bed.moves), (None, 0));
}

#[test]
fn a_node_that_is_not_ready_is_waited_for_within_the_bound() {
    for late in [false, true] {
        let mut bed = Bed::new(OnFailure::Failover);
        bed.operator(0, Subject::Node(id(1)), Want::Suspended);
        bed.stale = Some(1);
        bed.broken[0] = true;
        bed.pass(60_000);
        bed.operator(0, Subject::Node(id(1)), Want::Resumed);
        bed.pass(60_000);
        assert_eq!(bed.moves, 0);
        if late {
            bed.pass(300_000);
        }
        bed.stale = None;
        bed.pass(20_000);
        let expected = if late { (Some(0), 0) } else { (Some(1), 1) };
        assert_eq!((bed.serving, bed.moves), expected);
    }
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Breaks(usize),
    Mends(usize),
    Link,
    Stale,
    Suspends(usize, usize),
    Resumes(usize, usize),
    Clears(usize),
    Moves(usize, usize),
    Stops(usize),
    Starts(usize),
    Passes(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = || 0..2_usize;
    prop_oneof![
        4 => node().prop_map(Happening::Breaks),
        3 => node().prop_map(Happening::Mends),
        2 => Just(Happening::Link),
        2 => Just(Happening::Stale),
        1 => (node(), node()).prop_map(|(by, of)| Happening::Suspends(by, of)),
        2 => (node(), node()).prop_map(|(by, of)| Happening::Resumes(by, of)),
        2 => node().prop_map(Happening::Clears),
        2 => (node(), node()).prop_map(|(by, to)| Happening::Moves(by, to)),
        1 => node().prop_map(Happening::Stops),
        2 => node().prop_map(Happening::Starts),
        9 => (50..6000_u64).prop_map(Happening::Passes),
    ]
}

fn happen(bed: &mut Bed, happening: Happening) {
    let (group, failures) = (Subject::Group(key()), Subject::Failures(key()));
    match happening {
        Happening::Breaks(node) => bed.broken[node] = true,
        Happening::Mends(node) => bed.broken[node] = false,
        Happening::Link => bed.linked = !bed.linked,
        // Whose copy does not count changes while one serves.
        // It is copied to while somebody serves and both are linked.
        Happening::Stale => {
            if let Some(serving) = bed.serving {
                let copied = bed.stale.is_some() && bed.linked;
                bed.stale = Some(1 - serving).filter(|_| !copied);
            }
        }
        Happening::Suspends(by, of) => bed.operator(by, Subject::Node(id(of)), Want::Suspended),
        Happening::Resumes(by, of) => bed.operator(by, Subject::Node(id(of)), Want::Resumed),
        Happening::Clears(by) => bed.operator(by, failures, Want::Forgotten),
        Happening::Moves(by, to) => bed.operator(by, group, Want::Moves { to: id(to) }),
        Happening::Stops(by) => bed.operator(by, group, Want::Stopped { home: None }),
        Happening::Starts(by) => bed.operator(by, group, Want::Runs { home: None }),
        Happening::Passes(millis) => bed.pass(millis),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The laws are asserted where a group moves, starts, and is given away; and where all trouble is over it runs.
    #[test]
    fn whatever_happens_it_moves_where_it_can_run(all in proptest::collection::vec(happening(), 1..40)) {
        let mut bed = Bed::new(OnFailure::Failover);
        for one in all {
            happen(&mut bed, one);
            bed.pass(STEP_MS);
        }
        (bed.broken, bed.linked, bed.stale) = ([false; 2], true, None);
        bed.pass(30_000);
        for node in 0..2 {
            bed.operator(0, Subject::Node(id(node)), Want::Resumed);
        }
        bed.operator(0, Subject::Group(key()), Want::Runs { home: None });
        bed.pass(30_000);
        bed.operator(0, Subject::Failures(key()), Want::Forgotten);
        bed.pass(30_000);
        let runs: BTreeMap<usize, bool> = (0..2).map(|node| (node, bed.nodes[node].runs)).collect();
        let serving = bed.serving.expect("somebody serves");
        prop_assert!(runs[&serving], "{runs:?}");
        prop_assert!(!runs[&(1 - serving)], "{runs:?}");
        prop_assert_eq!(bed.nodes[0].wishes.digest(), bed.nodes[1].wishes.digest());
    }
}
