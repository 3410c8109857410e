//! Every order of questions, answers, losses, late messages and crashes of a change of the authority, and of the one after it: two
//! nodes and a witness. A step that a disk may have taken or not is one of both, and the member is asked again.

use super::*;
use std::collections::HashSet;
use std::vec;

const OTHERS: usize = 2;
const CHANGES: u8 = 2;
const MESSAGES_MAX: usize = 2;

fn print(number: u8) -> Print {
    Print([number; 16])
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Wanted(usize, Standing),
    Answer(usize, Standing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The leading node, and the others: as it is durable.
    leads: Standing,
    others: [Standing; OTHERS],
    /// By what a member's connections go: what was durable once, until they are changed.
    live: [Standing; OTHERS + 1],
    heard: [Option<Standing>; OTHERS],
    net: Vec<Message>,
    begun: u8,
}

impl World {
    fn new() -> Self {
        let settled = Standing::Settled(print(0));
        Self {
            leads: settled,
            others: [settled; OTHERS],
            live: [settled; OTHERS + 1],
            heard: [None; OTHERS],
            net: Vec::new(),
            begun: 0,
        }
    }

    fn put(&mut self, message: Message) {
        if self.net.len() < MESSAGES_MAX && !self.net.contains(&message) {
            self.net.push(message);
            self.net.sort();
        }
    }

    /// The leading node acts on what it heard; it does when its own connections go by what is durable.
    fn lead(&self) -> Vec<Self> {
        if self.live[OTHERS] != self.leads {
            return Vec::new();
        }
        let mut all = Vec::new();
        for wish in [false, true] {
            let is_new = wish && self.leads.is_settled() && self.begun < CHANGES;
            let new = is_new.then(|| print(self.begun + 1));
            let mut after = self.clone();
            match next(self.leads, &self.heard, new) {
                Err(elsewhere) => panic!("{elsewhere:?} {self:?}"),
                Ok(Next::Idle) => {}
                Ok(Next::Await(places)) => {
                    for place in places {
                        // It answers when its connections go by what is durable.
                        if self.live[place] == self.others[place] {
                            after.put(Message::Answer(place, self.others[place]));
                        }
                    }
                }
                Ok(Next::Move(places)) => {
                    for place in places {
                        after.put(Message::Wanted(place, self.leads));
                    }
                }
                Ok(Next::Go(standing)) => {
                    after.begun += u8::from(is_new);
                    after.leads = standing;
                    after.heard = [None; OTHERS];
                }
            }
            all.push(after);
        }
        all
    }

    fn deliver(&self, at: usize) -> Vec<Self> {
        let mut lost = self.clone();
        let message = lost.net.remove(at);
        let mut all = vec![lost.clone()];
        // It may come once more, later.
        for mut after in [lost, self.clone()] {
            match message {
                Message::Wanted(place, wanted) => {
                    let own = after.others[place];
                    match follow(own, wanted) {
                        Some(Follow::Go) => after.others[place] = wanted,
                        Some(Follow::Stand) if after.live[place] == own => {
                            after.put(Message::Answer(place, own));
                        }
                        Some(Follow::Stand) | None => {}
                    }
                }
                Message::Answer(place, standing) => {
                    // What was asked before the last step is thrown away: a question has one answer.
                    if standing == self.leads || standing.is_before(self.leads) {
                        after.heard[place] = Some(standing);
                    }
                }
            }
            all.push(after);
        }
        all
    }

    fn next(&self) -> Vec<Self> {
        let mut all = self.lead();
        for at in 0..self.net.len() {
            all.extend(self.deliver(at));
        }
        for place in 0..=OTHERS {
            let durable = self.others.get(place).copied().unwrap_or(self.leads);
            if self.live[place] != durable {
                // Connections go by it; a crash does the same.
                let mut after = self.clone();
                after.live[place] = durable;
                all.push(after);
            }
        }
        let mut crash = self.clone();
        crash.heard = [None; OTHERS];
        crash.live[OTHERS] = self.leads;
        all.push(crash);
        all
    }

    fn check(&self) {
        for one in 0..=OTHERS {
            for other in 0..=OTHERS {
                let (one, other) = (self.live[one], self.live[other]);
                assert!(one.understands(other), "{self:?}");
            }
        }
    }

    fn is_over(&self) -> bool {
        let end = Standing::Settled(print(CHANGES));
        self.leads == end && self.others == [end; OTHERS] && self.live == [end; OTHERS + 1]
    }
}

#[test]
fn all_members_talk_with_each_other_whatever_is_lost_late_or_crashes() {
    let mut seen = HashSet::from([World::new()]);
    let mut open = Vec::from([World::new()]);
    let mut over = 0_u32;
    while let Some(world) = open.pop() {
        world.check();
        over += u32::from(world.is_over());
        for after in world.next() {
            if seen.insert(after.clone()) {
                open.push(after);
            }
        }
    }
    assert!(seen.len() > 1000 && over > 0, "{} {over}", seen.len());
}

#[test]
fn a_member_that_is_away_holds_the_next_step_up_and_nothing_else() {
    let (last, new) = (print(0), print(1));
    let settled = Standing::Settled(last);
    let trusts = Standing::Trusts { last, next: new };
    assert_eq!(
        next(settled, &[Some(settled), None], Some(new)),
        Ok(Next::Await(vec![1]))
    );
    // Who is there is moved all the same.
    assert_eq!(
        next(trusts, &[Some(settled), None], None),
        Ok(Next::Move(vec![0]))
    );
    assert_eq!(
        next(trusts, &[Some(trusts), None], None),
        Ok(Next::Await(vec![1]))
    );
    let shows = Standing::Shows { last, next: new };
    assert_eq!(
        next(trusts, &[Some(trusts), Some(trusts)], None),
        Ok(Next::Go(shows))
    );
    // Where nothing is under way nobody is waited for.
    assert_eq!(next(settled, &[None, None], None), Ok(Next::Idle));
}

#[test]
fn who_stands_elsewhere_is_named_and_nobody_is_moved() {
    let at = |number| Standing::Settled(print(number));
    let trusts = Standing::Trusts {
        last: print(0),
        next: print(1),
    };
    assert_eq!(
        next(at(0), &[Some(at(0)), Some(at(7))], None),
        Err(Elsewhere(1))
    );
    // Two steps behind.
    let shows = Standing::Shows {
        last: print(0),
        next: print(1),
    };
    assert_eq!(next(shows, &[Some(at(0))], None), Err(Elsewhere(0)));
    assert_eq!(next(trusts, &[Some(shows)], None), Err(Elsewhere(0)));
    assert_eq!(follow(at(0), shows), None);
    assert_eq!(follow(shows, trusts), None);
    assert_eq!(follow(at(0), trusts), Some(Follow::Go));
    assert_eq!(follow(trusts, trusts), Some(Follow::Stand));
    // A change to the same one is none.
    assert_eq!(at(1).step(Some(print(1))), None);
}

#[test]
fn where_a_member_stands_is_what_it_trusts_and_shows() {
    let (one, two) = (print(1), print(2));
    assert_eq!(
        Standing::of(&[one], Some(one)),
        Some(Standing::Settled(one))
    );
    assert_eq!(Standing::of(&[one], None), Some(Standing::Settled(one)));
    let trusts = Standing::Trusts {
        last: one,
        next: two,
    };
    assert_eq!(Standing::of(&[one, two], Some(one)), Some(trusts));
    assert_eq!(Standing::of(&[one, two], None), Some(trusts));
    let shows = Standing::Shows {
        last: one,
        next: two,
    };
    assert_eq!(Standing::of(&[one, two], Some(two)), Some(shows));
    for (trusted, shown) in [
        (vec![], None),
        (vec![one], Some(two)),
        (vec![one, one], None),
    ] {
        assert_eq!(Standing::of(&trusted, shown), None);
    }
    assert_eq!(Standing::of(&[one, two], Some(print(3))), None);
}
