//! Every order of messages, losses, crashes and refusing disks, within bounds: two rotations with one crash, and one rotation with
//! two, each with one write that fails and one message that comes once more. Nobody ever sends what somebody refuses.

use super::*;
use std::collections::HashSet;
use std::vec;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Told(Prints, Option<Secret>),
    Answer(Prints),
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    crashes: u8,
    disk: u8,
    rotations: u8,
    /// Messages that come once more, later.
    echoes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    nodes: [Rotation; 2],
    disk: [Keys; 2],
    /// By what the heartbeats go, and a volume's daemon, which goes on when `lockstepd` ends.
    uses: [[Keys; 2]; 2],
    /// Something of this node is still to be told what counts.
    adopting: [bool; 2],
    net: Vec<Message>,
    left: Left,
    made: u8,
}

const MESSAGES_MAX: usize = 2;

impl World {
    fn new(left: Left) -> Self {
        let keys = Keys::first(&[1; 32]);
        let parts = [Part::Leads, Part::Follows];
        Self {
            nodes: parts.map(|part| Rotation::new(part, keys, &mut Vec::new())),
            disk: [keys; 2],
            uses: [[keys; 2]; 2],
            adopting: [true; 2],
            net: Vec::new(),
            left,
            made: 1,
        }
    }

    /// `lockstepd` of a node begins anew. Its volume's daemon goes on.
    fn restart(&mut self, index: usize) {
        let part = self.nodes[index].part();
        self.nodes[index] = Rotation::new(part, self.disk[index], &mut Vec::new());
        self.uses[index][0] = self.disk[index];
        self.adopting[index] = true;
    }

    /// All that may come of an event.
    fn after(&self, index: usize, event: Event) -> Vec<Self> {
        let mut world = self.clone();
        let mut effects = Vec::new();
        if let Err(why) = world.nodes[index].handle(event, &mut effects) {
            let Event::Heard(prints, _) = event else {
                panic!("{why:?} {event:?} {self:?}");
            };
            // Only what is told late may look as if somebody had put a file in place.
            let says = self.nodes[1 - index].says().map(|(prints, _)| prints);
            assert!(why == Why::Differ && says != Some(prints), "{self:?}");
            assert!(effects.is_empty(), "{effects:?}");
            return vec![world];
        }
        let [effect] = effects[..] else {
            assert!(effects.is_empty(), "{effects:?}");
            return vec![world];
        };
        let Effect::Save(keys) = effect else {
            panic!("{effect:?}");
        };
        let mut saved = world.clone();
        saved.disk[index] = keys;
        let mut all = Vec::new();
        if world.left.crashes > 0 {
            for half in [&world, &saved] {
                let mut half = half.clone();
                half.left.crashes -= 1;
                half.restart(index);
                all.push(half);
            }
        }
        if world.left.disk > 0 {
            for half in [&world, &saved] {
                let mut half = half.clone();
                half.left.disk -= 1;
                half.report(index, Event::NotSaved);
                all.push(half);
            }
        }
        saved.report(index, Event::Saved);
        saved.adopting[index] = true;
        all.push(saved);
        all
    }

    fn report(&mut self, index: usize, event: Event) {
        let reported = self.nodes[index].handle(event, &mut Vec::new());
        reported.expect("a report in turn");
    }

    fn put(&mut self, message: Message) {
        if self.net.len() < MESSAGES_MAX && !self.net.contains(&message) {
            self.net.push(message);
            self.net.sort_unstable();
        }
    }

    fn deliver(&self, at: usize) -> Vec<Self> {
        let mut without = self.clone();
        let message = without.net.remove(at);
        let mut before = vec![without.clone()];
        if self.left.echoes > 0 {
            let mut echo = self.clone();
            echo.left.echoes -= 1;
            before.push(echo);
        }
        let mut all = vec![without];
        for world in before {
            match message {
                Message::Told(prints, new) => {
                    for mut next in world.after(1, Event::Heard(prints, new)) {
                        if let Some((prints, _)) = next.nodes[1].says() {
                            next.put(Message::Answer(prints));
                        }
                        all.push(next);
                    }
                }
                Message::Answer(prints) => {
                    all.extend(world.after(0, Event::Heard(prints, None)));
                }
            }
        }
        all
    }

    fn adopt(&self, index: usize) -> Vec<Self> {
        let keys = *self.nodes[index].keys();
        let mut all = Vec::new();
        for user in 0..2 {
            if self.uses[index][user] != keys {
                let mut next = self.clone();
                next.uses[index][user] = keys;
                all.push(next);
            }
        }
        if all.is_empty() {
            let mut next = self.clone();
            next.report(index, Event::Adopted);
            next.adopting[index] = false;
            all.push(next);
        }
        all
    }

    fn next(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for index in 0..2 {
            if self.left.crashes > 0 {
                let mut next = self.clone();
                next.left.crashes -= 1;
                next.restart(index);
                all.push(next.clone());
                // The whole machine.
                next.uses[index] = [next.disk[index]; 2];
                all.push(next);
            }
            if self.adopting[index] {
                all.extend(self.adopt(index));
            }
        }
        if let Some((prints, new)) = self.nodes[0].says() {
            let mut next = self.clone();
            next.put(Message::Told(prints, new));
            all.push(next);
        }
        for at in 0..self.net.len() {
            all.extend(self.deliver(at));
        }
        if self.left.rotations > 0 && self.nodes[0].is_idle() {
            let mut next = self.clone();
            next.left.rotations -= 1;
            next.made += 1;
            let secret = Secret::new([next.made; 32]);
            all.extend(next.after(0, Event::Begin(secret)));
        }
        all
    }

    fn check(&self) {
        let all = |index: usize| {
            let [one, other] = self.uses[index];
            [one, other, self.disk[index]]
        };
        for (one, other) in [(0, 1), (1, 0)] {
            for from in all(one) {
                for to in all(other) {
                    assert!(to.understands(&from), "{self:?}");
                }
            }
        }
        if self.nodes[0].is_idle() {
            // It is over: what was dropped is accepted nowhere.
            for keys in [all(0), all(1)].concat() {
                assert_eq!(keys, self.disk[0], "{self:?}");
                assert_eq!(keys.accepted().count(), 1);
            }
        }
    }

    /// Without faults it comes to an end by itself, and to one secret on both.
    fn ends_well(&self) {
        let mut world = self.clone();
        world.left = Left {
            crashes: 0,
            disk: 0,
            rotations: 0,
            echoes: 0,
        };
        world.net.clear();
        let began = world.nodes[0].keys().place();
        for _ in 0..20 {
            for index in 0..2 {
                while world.adopting[index] {
                    world = world.adopt(index).remove(0);
                }
            }
            if world.nodes[0].is_idle() {
                assert_eq!(world.disk[0], world.disk[1]);
                assert!(began.is_settled() || world.disk[0].place() > began);
                return;
            }
            let (prints, new) = world.nodes[0].says().expect("it stands");
            world = only(world.after(1, Event::Heard(prints, new)));
            if let Some((prints, _)) = world.nodes[1].says() {
                world = only(world.after(0, Event::Heard(prints, None)));
            }
        }
        panic!("no end: {self:?}");
    }
}

fn only(mut worlds: Vec<World>) -> World {
    assert_eq!(worlds.len(), 1);
    worlds.remove(0)
}

fn walk(left: Left) -> usize {
    let first = World::new(left);
    let mut known = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        world.check();
        world.ends_well();
        for next in world.next() {
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    known.len()
}

#[test]
fn nobody_is_deaf_whatever_is_lost_and_whoever_crashes_and_it_ends() {
    let left = |crashes, rotations| Left {
        crashes,
        disk: 1,
        rotations,
        echoes: 1,
    };
    let states = [walk(left(1, 2)), walk(left(2, 1))];
    assert!(states.iter().all(|count| *count > 2_000), "{states:?}");
}

/// The walk sees what it is there for.
#[test]
#[should_panic(expected = "World")]
fn who_goes_on_before_the_other_one_follows_is_found() {
    let mut world = World::new(Left {
        crashes: 0,
        disk: 0,
        rotations: 0,
        echoes: 0,
    });
    let next = world.disk[0].step(Some(Secret::new([2; 32])));
    let last = next.and_then(|keys| keys.step(None)).expect("two steps");
    world.uses[0][0] = last;
    world.check();
}

fn standing(part: Part, keys: Keys) -> Rotation {
    let mut rotation = Rotation::new(part, keys, &mut Vec::new());
    let stands = rotation.handle(Event::Adopted, &mut Vec::new());
    stands.expect("it stands");
    rotation
}

#[test]
fn nodes_with_other_secrets_do_not_follow_each_other() {
    let (one, other) = (Keys::first(&[1; 32]), Keys::first(&[2; 32]));
    let new = Secret::new([3; 32]);
    let ahead = other.step(Some(new)).expect("a step");
    let mut follows = standing(Part::Follows, one);
    for (prints, secret) in [
        (other.prints(), None),
        (ahead.prints(), Some(new)),
        (ahead.prints(), None),
    ] {
        let mut effects = Vec::new();
        let heard = follows.handle(Event::Heard(prints, secret), &mut effects);
        assert_eq!((heard, effects), (Err(Why::Differ), Vec::new()));
    }
    let mut leads = standing(Part::Leads, one);
    let heard = leads.handle(Event::Heard(other.prints(), None), &mut Vec::new());
    assert_eq!(heard, Err(Why::Differ));
    let begun = leads.handle(Event::Begin(new), &mut Vec::new());
    assert_eq!(begun, Err(Why::UnderWay), "it does not know the other one");
}

#[test]
fn what_was_said_before_the_last_step_and_comes_after_it_is_no_fault() {
    let first = Keys::first(&[1; 32]);
    let next = first.step(Some(Secret::new([2; 32]))).expect("a step");
    for part in [Part::Leads, Part::Follows] {
        let mut effects = Vec::new();
        let late = Event::Heard(first.prints(), None);
        assert_eq!(standing(part, next).handle(late, &mut effects), Ok(()));
        assert_eq!(effects, Vec::new());
    }
}

#[test]
fn the_second_node_makes_no_secret() {
    let mut follows = standing(Part::Follows, Keys::first(&[1; 32]));
    let begun = follows.handle(Event::Begin(Secret::new([2; 32])), &mut Vec::new());
    assert_eq!(begun, Err(Why::Follows));
    assert!(follows.says().is_some_and(|(_, new)| new.is_none()));
}
