//! Every order of messages, losses, crashes and second thoughts, up to a bound.

use super::*;
use alloc::collections::BTreeSet;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::vec;

const BASE: Digest = Digest([0; 32]);
const EDITED: Digest = Digest([9; 32]);

fn node(index: usize) -> NodeId {
    NodeId::new(u8::try_from(index).expect("a number")).expect("a node")
}

fn proposal(by: usize, times: Times) -> Proposal {
    let mark = u8::try_from(by + 1).expect("a number");
    Proposal {
        id: PushId([mark; 16]),
        by: node(by),
        number: 1,
        digest: Digest([mark; 32]),
        replaces: [BASE; 2],
        times,
    }
}

fn fresh(file: Digest) -> Durable {
    let in_force = InForce {
        number: 0,
        digest: file,
    };
    Durable {
        in_force,
        pinned: false,
        pending: None,
    }
}

/// What is under way. Who asked may be gone, or wait no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Ask(usize, Option<u64>, Ask, State),
    Answer(usize, u64, State, Option<Why>),
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Faults {
    crashes: u8,
    losses: u8,
    abandons: u8,
    edits: u8,
    disk: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    nodes: [Push; 2],
    disk: [Durable; 2],
    /// What `cluster.toml` says on each.
    files: [Digest; 2],
    net: Vec<Message>,
    /// Pushes that operators have not said yet.
    unsaid: [bool; 2],
    /// What operators were told of theirs.
    told: [Option<bool>; 2],
    /// A push began here, or was promised.
    began: [bool; 2],
    faults: Faults,
    times: Times,
}

impl World {
    fn new(times: Times, unsaid: [bool; 2], faults: Faults) -> Self {
        let disk = [fresh(BASE); 2];
        let nodes = [0, 1].map(|index: usize| Push::new(node(index), disk[index], BASE));
        Self {
            nodes,
            disk,
            files: [BASE; 2],
            net: Vec::new(),
            unsaid,
            told: [None; 2],
            began: [false; 2],
            faults,
            times,
        }
    }

    /// The machine's run ends, and the next one begins.
    fn restart(&mut self, index: usize) {
        let durable = self.disk[index];
        let file = match durable.load() {
            Load::File => {
                assert!(durable.pending.is_none() && durable.in_force.number == 0);
                assert!(!self.began[index], "{self:?}");
                self.disk[index] = fresh(self.files[index]);
                self.files[index]
            }
            Load::InForce | Load::Between => durable.in_force.digest,
        };
        self.nodes[index] = Push::new(node(index), self.disk[index], file);
        self.net
            .retain(|message| !matches!(message, Message::Answer(to, ..) if *to == index));
        for message in &mut self.net {
            if let Message::Ask(from, waits, ..) = message
                && *from == index
            {
                *waits = None;
            }
        }
    }

    /// Worlds that differ in the numbers of questions alone are one.
    fn forget_numbers(&mut self) {
        for node in &mut self.nodes {
            node.question = 0;
            if node.open.is_some() {
                (node.question, node.open) = (1, Some(1));
            }
            if let Some(Drive::Asking(_, number)) = &mut node.drive {
                *number = 1;
            }
        }
        for message in &mut self.net {
            match message {
                Message::Ask(_, Some(number), ..) | Message::Answer(_, number, ..) => *number = 1,
                Message::Ask(_, None, ..) => {}
            }
        }
        // Nobody waits for it, and it changes nothing.
        let matters = |message: &Message| !matches!(message, Message::Ask(_, None, Ask::State, _));
        self.net.retain(matters);
        self.net.sort();
        self.net.dedup();
    }

    fn handle(mut self, index: usize, event: Event, asker: Option<u64>) -> Vec<World> {
        let mut effects = Vec::new();
        let taken = self.nodes[index].handle(event, &mut effects);
        taken.expect("in turn");
        let mut installs = None;
        for (place, effect) in effects.iter().enumerate() {
            match *effect {
                Effect::Ask(number, ask) => {
                    let state = self.nodes[index].state();
                    self.net.push(Message::Ask(index, Some(number), ask, state));
                }
                Effect::Answer(why) => {
                    if let Some(number) = asker {
                        let state = self.nodes[index].state();
                        self.net
                            .push(Message::Answer(1 - index, number, state, why));
                    }
                }
                Effect::Install(proposal) => installs = Some(proposal.digest),
                Effect::Ended(outcome) => {
                    if outcome != Err(Why::NotKept) {
                        self.told[index] = Some(outcome.is_ok());
                    }
                }
                Effect::Restart => {
                    self.check_turn(index);
                    self.restart(index);
                    return vec![self];
                }
                Effect::Save(durable) => {
                    assert_eq!(
                        place + 1,
                        effects.len(),
                        "nothing rests on what is not durable"
                    );
                    return self.saves(index, durable, installs, asker);
                }
            }
        }
        vec![self]
    }

    /// The driver begins anew when the other one has: both are never away at once.
    fn check_turn(&self, index: usize) {
        let own = proposal(index, self.times);
        let other = self.nodes[1 - index].state().running;
        if self.disk[index].in_force.digest == own.digest {
            assert_eq!(other.file, own.digest, "{self:?}");
        } else if self.disk[index].decided(own.id) {
            assert_eq!(other.between, Some(own.id), "{self:?}");
        }
    }

    fn saves(
        self,
        index: usize,
        durable: Durable,
        installs: Option<Digest>,
        asker: Option<u64>,
    ) -> Vec<World> {
        let mut worlds = Vec::new();
        let mut installed = self.clone();
        if let Some(digest) = installs {
            installed.files[index] = digest;
        }
        let mut saved = installed.clone();
        saved.disk[index] = durable;
        saved.began[index] = true;
        if self.faults.crashes > 0 {
            for mut world in [self.clone(), installed.clone(), saved.clone()] {
                world.faults.crashes -= 1;
                world.restart(index);
                // Who waits for an answer sees the connection break.
                worlds.extend(match asker {
                    Some(number) => world.handle(1 - index, Event::Unanswered(number), None),
                    None => vec![world],
                });
            }
        }
        if self.faults.disk > 0 {
            for mut world in [installed, saved.clone()] {
                world.faults.disk -= 1;
                worlds.extend(world.handle(index, Event::NotSaved, asker));
            }
        }
        worlds.extend(saved.handle(index, Event::Saved, asker));
        worlds
    }

    fn deliver(mut self, place: usize) -> Vec<World> {
        match self.net.remove(place) {
            Message::Ask(from, waits, ask, state) => {
                let worlds = self.handle(1 - from, Event::Asked(ask, Fit::Fits), waits);
                match ask {
                    Ask::State | Ask::Promise(_) => worlds,
                    Ask::CarryOut(_) => {
                        let hear = |world: World| world.handle(1 - from, Event::Heard(state), None);
                        worlds.into_iter().flat_map(hear).collect()
                    }
                }
            }
            Message::Answer(to, number, state, why) => {
                let fit = if self.files[to] == EDITED {
                    Fit::Unfit
                } else {
                    Fit::Fits
                };
                let event = Event::Answered(number, state, why, fit);
                self.handle(to, event, None)
            }
        }
    }

    fn lose(mut self, place: usize) -> Vec<World> {
        self.faults.losses -= 1;
        match self.net[place].clone() {
            // It may still arrive, when nobody waits any more.
            Message::Ask(from, Some(number), ask, state) => {
                self.net[place] = Message::Ask(from, None, ask, state);
                self.handle(from, Event::Unanswered(number), None)
            }
            Message::Ask(_, None, ..) => Vec::new(),
            Message::Answer(to, number, ..) => {
                self.net.remove(place);
                self.handle(to, Event::Unanswered(number), None)
            }
        }
    }

    fn waits(&self, index: usize) -> bool {
        self.net.iter().any(|message| match message {
            Message::Ask(from, waits, ..) => *from == index && waits.is_some(),
            Message::Answer(to, ..) => *to == index,
        })
    }

    fn next(&self) -> Vec<World> {
        let mut worlds = Vec::new();
        for place in 0..self.net.len() {
            worlds.extend(self.clone().deliver(place));
            if self.faults.losses > 0 {
                worlds.extend(self.clone().lose(place));
            }
        }
        for index in 0..2 {
            if self.unsaid[index] {
                let mut world = self.clone();
                world.unsaid[index] = false;
                let begin = Event::Begin(proposal(index, self.times));
                worlds.extend(world.handle(index, begin, None));
            }
            if !self.waits(index) {
                worlds.extend(self.clone().handle(index, Event::Tick, None));
            }
            if !self.nodes[index].running.settled {
                worlds.extend(self.clone().handle(index, Event::Settled, None));
            }
            if self.faults.crashes > 0 {
                let mut world = self.clone();
                world.faults.crashes -= 1;
                world.restart(index);
                worlds.push(world);
            }
            if self.faults.abandons > 0 {
                let mut world = self.clone();
                world.faults.abandons -= 1;
                worlds.extend(world.handle(index, Event::Abandon, None));
            }
            if self.faults.edits > 0 {
                let mut world = self.clone();
                world.faults.edits -= 1;
                world.files[index] = EDITED;
                worlds.push(world);
            }
        }
        worlds
    }

    /// Nothing goes wrong any more.
    fn settle(&self) -> World {
        let mut world = self.clone();
        let none = Faults {
            crashes: 0,
            losses: 0,
            abandons: 0,
            edits: 0,
            disk: 0,
        };
        world.faults = none;
        world.unsaid = [false; 2];
        for _ in 0..40 {
            for index in 0..2 {
                world = one(world.handle(index, Event::Settled, None));
                if !world.waits(index) {
                    world = one(world.handle(index, Event::Tick, None));
                }
            }
            while !world.net.is_empty() {
                world = one(world.deliver(0));
            }
            let idle = |node: &Push| node.drive.is_none() && node.durable.pending.is_none();
            if world.nodes.iter().all(idle) {
                break;
            }
        }
        world
    }

    fn decided(&self) -> BTreeSet<Digest> {
        let of = |durable: &Durable| match durable.pending {
            Some((proposal, Stage::Decided)) => Some(proposal.digest),
            Some(_) | None if durable.in_force.number > 0 => Some(durable.in_force.digest),
            Some(_) | None => None,
        };
        self.disk.iter().filter_map(of).collect()
    }

    fn check(&self) {
        let decided = self.decided();
        assert!(decided.len() <= 1, "two pushes were decided: {self:?}");
        for index in 0..2 {
            let own = proposal(index, self.times);
            if self.told[index] == Some(false) {
                assert!(
                    !decided.contains(&own.digest),
                    "refused, then decided: {self:?}"
                );
            }
            let (me, peer) = (self.nodes[index].state(), self.nodes[1 - index].state());
            for push in [proposal(0, self.times), proposal(1, self.times)] {
                if me.running.file != push.digest {
                    continue;
                }
                assert!(
                    decided.contains(&push.digest),
                    "not decided, and runs: {self:?}"
                );
                let beside =
                    peer.running.file == push.digest || peer.running.between == Some(push.id);
                assert!(beside, "new times beside old ones: {self:?}");
                // Whatever it begins with next is safe beside them as well.
                let next = self.disk[1 - index];
                assert!(next.decided(push.id) || next.is_in_force(&push), "{self:?}");
            }
            if me.running.file == EDITED {
                let durable = me.durable;
                assert_eq!(
                    (durable.in_force.number, durable.in_force.digest),
                    (0, EDITED)
                );
            }
        }
    }

    fn check_the_end(&self) {
        let end = self.settle();
        end.check();
        // Somebody made the nodes differ by hand, where nothing was ever pushed: that is told, not overwritten.
        let edited = |durable: &Durable| durable.in_force.digest == EDITED;
        if end.disk.iter().any(edited) {
            let pending = end.disk.iter().any(|durable| durable.pending.is_some());
            let told = end
                .nodes
                .iter()
                .any(|node| node.conflict() == Some(Why::Moved));
            assert!(!pending || told, "{self:?}\nends as\n{end:?}");
            return;
        }
        // A push that never reached the other node began on one alone.
        let [one, other] = end.disk.map(|durable| Durable {
            pinned: true,
            ..durable
        });
        assert_eq!(one, other, "{self:?}\nends as\n{end:?}");
        assert_eq!(one.pending, None);
        let decided = self.decided();
        if let Some(digest) = decided.first() {
            assert_eq!(
                one.in_force.digest, *digest,
                "what is decided is carried out"
            );
        }
        for node in &end.nodes {
            assert_eq!(node.state().running.file, one.in_force.digest);
        }
        for index in 0..2 {
            if end.told[index] == Some(true) {
                assert_eq!(one.in_force.digest, proposal(index, self.times).digest);
            }
        }
    }
}

fn one(mut worlds: Vec<World>) -> World {
    assert_eq!(worlds.len(), 1, "without faults there is one way");
    worlds.remove(0)
}

fn explore(world: World) -> usize {
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut open = vec![world];
    while let Some(mut world) = open.pop() {
        world.forget_numbers();
        if seen.insert(hasher.hash_one(&world)) {
            world.check();
            world.check_the_end();
            open.extend(world.next());
        }
    }
    seen.len()
}

const NONE: Faults = Faults {
    crashes: 0,
    losses: 0,
    abandons: 0,
    edits: 0,
    disk: 0,
};

#[test]
fn a_push_that_nothing_disturbs_is_in_force_on_both() {
    for times in [Times::Same, Times::Differ] {
        for by in 0..2 {
            let world = World::new(times, [by == 0, by == 1], NONE);
            let mut world = world;
            world.unsaid[by] = false;
            let world = one(world.handle(by, Event::Begin(proposal(by, times)), None));
            let end = world.settle();
            assert_eq!(end.told[by], Some(true));
            for node in &end.nodes {
                assert_eq!(node.state().running.file, proposal(by, times).digest);
            }
        }
    }
}

/// One push from either node; whoever takes part crashes, at each step, twice; messages and answers are lost or late.
#[test]
fn crashes_and_losses_leave_both_with_one_file() {
    for times in [Times::Same, Times::Differ] {
        for by in [[true, false], [false, true]] {
            let faults = Faults {
                crashes: 2,
                losses: 1,
                ..NONE
            };
            assert!(explore(World::new(times, by, faults)) > 100);
        }
    }
}

#[test]
fn of_two_operators_at_once_one_wins_and_the_other_is_told() {
    for times in [Times::Same, Times::Differ] {
        let faults = Faults {
            crashes: 1,
            losses: 1,
            ..NONE
        };
        assert!(explore(World::new(times, [true, true], faults)) > 100);
    }
}

#[test]
fn a_disk_that_refuses_and_second_thoughts_leave_both_with_one_file() {
    for by in [[true, false], [false, true]] {
        let faults = Faults {
            crashes: 1,
            losses: 1,
            abandons: 1,
            disk: 1,
            ..NONE
        };
        assert!(explore(World::new(Times::Differ, by, faults)) > 100);
    }
}

/// A file that somebody changed by hand is loaded only where nothing was ever pushed and nothing is promised.
#[test]
fn what_nobody_pushed_is_not_loaded_between_the_promise_and_the_decision() {
    for by in [[true, false], [false, true]] {
        let faults = Faults {
            crashes: 2,
            abandons: 1,
            edits: 1,
            ..NONE
        };
        assert!(explore(World::new(Times::Differ, by, faults)) > 100);
    }
}

#[test]
fn a_push_names_what_it_replaces() {
    let mut push = Push::new(node(1), fresh(EDITED), EDITED);
    let mut effects = Vec::new();
    let stale = proposal(0, Times::Same);
    let mut handle = |event, effects: &mut Vec<Effect>| {
        push.handle(event, effects).expect("in turn");
    };
    handle(Event::Asked(Ask::Promise(stale), Fit::Fits), &mut effects);
    handle(Event::Begin(proposal(1, Times::Same)), &mut effects);
    let refused = [
        Effect::Answer(Some(Why::Moved)),
        Effect::Ended(Err(Why::Moved)),
    ];
    assert_eq!(effects, refused);
    let fits = Proposal {
        replaces: [BASE, EDITED],
        ..stale
    };
    effects.clear();
    handle(Event::Asked(Ask::Promise(fits), Fit::Unfit), &mut effects);
    assert_eq!(effects, [Effect::Answer(Some(Why::Unfit))]);
}

/// The other node has a bug, or root there has a mind of his own.
#[test]
fn a_push_that_cannot_have_come_about_is_refused() {
    let sensible = proposal(0, Times::Same);
    let strange = [
        Proposal {
            by: node(1),
            ..sensible
        },
        Proposal {
            by: node(2),
            ..sensible
        },
        Proposal {
            number: 0,
            ..sensible
        },
    ];
    for proposal in strange {
        for ask in [Ask::Promise(proposal), Ask::CarryOut(proposal)] {
            let mut push = Push::new(node(1), fresh(BASE), BASE);
            let mut effects = Vec::new();
            let asked = push.handle(Event::Asked(ask, Fit::Fits), &mut effects);
            asked.expect("in turn");
            assert_eq!(effects, [Effect::Answer(Some(Why::Moved))], "{ask:?}");
        }
    }
    // Another file under the name of the promised push was never looked at.
    let mut promised = fresh(BASE);
    promised.pending = Some((sensible, Stage::Promised));
    let mut push = Push::new(node(1), promised, BASE);
    let other = Proposal {
        digest: EDITED,
        ..sensible
    };
    let mut effects = Vec::new();
    let asked = push.handle(Event::Asked(Ask::CarryOut(other), Fit::Fits), &mut effects);
    asked.expect("in turn");
    assert_eq!(effects, [Effect::Answer(Some(Why::Busy))]);
    // A report that nobody waits for changes nothing.
    effects.clear();
    assert_eq!(
        push.handle(Event::Saved, &mut effects),
        Err(OutOfTurn::Unasked)
    );
    assert_eq!((push.state().durable, effects.len()), (promised, 0));
}

#[test]
fn a_push_that_came_to_nothing_leaves_in_force_what_ran() {
    let mut push = Push::new(node(0), fresh(BASE), BASE);
    let mut effects = Vec::new();
    let mut handle = |event| {
        effects.clear();
        push.handle(event, &mut effects).expect("in turn");
        effects.clone()
    };
    let begun = handle(Event::Begin(proposal(0, Times::Same)));
    let [Effect::Save(kept)] = begun[..] else {
        panic!("{begun:?}");
    };
    assert_eq!((kept.pending, kept.load()), (None, Load::InForce));
    // Only then is the other node asked.
    let asked = handle(Event::Saved);
    let ask = Ask::Promise(proposal(0, Times::Same));
    assert_eq!(asked, [Effect::Ask(1, ask)]);
    let ended = handle(Event::Unanswered(1));
    assert_eq!(ended, [Effect::Ended(Err(Why::Silent))]);
    assert_eq!(push.state().durable, kept);
}

fn decided(by: usize) -> Durable {
    let mut durable = fresh(BASE);
    durable.pending = Some((proposal(by, Times::Same), Stage::Decided));
    durable
}

fn effects_of(push: &mut Push, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    push.handle(event, &mut effects).expect("in turn");
    effects
}

/// The new process began on the other node, and comes to nothing over and over.
#[test]
fn a_node_goes_on_only_when_the_other_one_came_up() {
    let driver = Push::new(node(0), decided(0), BASE);
    let new = proposal(0, Times::Same);
    let in_force = Durable {
        in_force: InForce {
            number: 1,
            digest: new.digest,
        },
        pinned: true,
        pending: None,
    };
    let mut peer = Push::new(node(1), in_force, new.digest);
    for settled in [false, true] {
        if settled {
            assert_eq!(effects_of(&mut peer, Event::Settled), []);
        }
        let mut driver = driver.clone();
        let asked = effects_of(&mut driver, Event::Tick);
        assert_eq!(asked, [Effect::Ask(1, Ask::CarryOut(new))]);
        let event = Event::Answered(1, peer.state(), None, Fit::Fits);
        let effects = effects_of(&mut driver, event);
        assert_eq!(!effects.is_empty(), settled, "{effects:?}");
    }
}

#[test]
fn a_decided_push_that_its_driver_does_not_know_any_more_is_told() {
    let mut push = Push::new(node(1), decided(0), BASE);
    effects_of(&mut push, Event::Tick);
    // Somebody adopted another file there.
    let peer = Push::new(node(0), fresh(EDITED), EDITED).state();
    let answer = Event::Answered(1, peer, None, Fit::Fits);
    assert_eq!(effects_of(&mut push, answer), []);
    assert_eq!(push.conflict(), Some(Why::Moved));
}

/// TCP goes through from the driver alone.
#[test]
fn whoever_cannot_ask_the_driver_gets_on_by_what_the_driver_tells() {
    let mut driver = Push::new(node(0), decided(0), BASE);
    effects_of(&mut driver, Event::Settled);
    let mut push = Push::new(node(1), decided(0), BASE);
    let effects = effects_of(&mut push, Event::Heard(driver.state()));
    let [Effect::Install(installed), Effect::Save(saved)] = effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(installed, proposal(0, Times::Same));
    assert!(saved.is_in_force(&installed));
    assert_eq!(effects_of(&mut push, Event::Saved), [Effect::Restart]);
}

#[test]
fn a_promise_holds_while_its_driver_drives_it() {
    let mut world = World::new(Times::Same, [false; 2], NONE);
    world = one(world.handle(0, Event::Begin(proposal(0, Times::Same)), None));
    world = one(world.deliver(0));
    // The answer is late; meanwhile the other node asks.
    world = one(world.handle(1, Event::Tick, None));
    world = one(world.deliver(1));
    world = one(world.deliver(1));
    let promised = Some((proposal(0, Times::Same), Stage::Promised));
    assert_eq!(world.disk[1].pending, promised);
    assert_eq!(world.settle().told[0], Some(true));
}

/// Nobody decides over a file that was changed while the other node promised.
#[test]
fn a_driver_whose_file_was_edited_meanwhile_does_not_decide() {
    let mut world = World::new(Times::Same, [false; 2], NONE);
    world = one(world.handle(0, Event::Begin(proposal(0, Times::Same)), None));
    world = one(world.deliver(0));
    world.files[0] = EDITED;
    world = one(world.deliver(0));
    assert_eq!(world.told[0], Some(false));
    let end = world.settle();
    let unchanged = Durable {
        pinned: true,
        ..fresh(BASE)
    };
    assert_eq!(end.disk, [unchanged; 2]);
}

#[test]
fn what_is_promised_loads_what_was_in_force() {
    let mut durable = fresh(BASE);
    assert_eq!(durable.load(), Load::File);
    durable.pending = Some((proposal(0, Times::Same), Stage::Promised));
    assert_eq!(durable.load(), Load::InForce);
    durable.pending = Some((proposal(0, Times::Same), Stage::Decided));
    assert_eq!(durable.load(), Load::Between);
    durable.pending = None;
    durable.pinned = true;
    assert_eq!(durable.load(), Load::InForce);
}
