use super::*;
use alloc::vec;

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node")
}

fn group() -> Subject {
    Subject::Group(GroupKey::of("pg"))
}

fn wishes(me: u8) -> Wishes {
    Wishes::new(node(me), [group(), Subject::Node(node(0))], [])
}

fn store(wishes: &mut Wishes) -> Vec<Wish> {
    let mut effects = Vec::new();
    wishes.store(&mut effects);
    let mut rules = Vec::new();
    while let Some(effect) = effects.pop() {
        match effect {
            Effect::Store { version, .. } => wishes.stored(version, &mut effects),
            Effect::Rules(wish) => rules.push(wish),
        }
    }
    rules
}

const STOPPED: Want = Want::Stopped { home: None };

#[test]
fn a_wish_rules_when_it_is_durable_and_not_before() {
    let mut own = wishes(0);
    let said = own.say(group(), STOPPED, Origin::Operator).expect("said");
    assert_eq!(own.of(group()), None);
    let mut effects = Vec::new();
    own.store(&mut effects);
    assert_eq!(own.of(group()), None);
    let [Effect::Store { version, wishes }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(*wishes, [said]);
    let version = *version;
    own.not_stored(version);
    effects.clear();
    own.stored(version, &mut effects);
    assert_eq!(effects, []);
    assert_eq!(store(&mut own), [said]);
    assert_eq!(own.of(group()), Some(&said));
}

#[test]
fn what_is_said_while_an_earlier_one_is_written_is_written_next() {
    let mut own = wishes(0);
    own.say(group(), STOPPED, Origin::Operator);
    let mut effects = Vec::new();
    own.store(&mut effects);
    let runs = Want::Runs { home: None };
    let last = own.say(group(), runs, Origin::Operator).expect("said");
    own.store(&mut effects);
    assert_eq!(effects.len(), 1);
    effects.clear();
    own.stored(1, &mut effects);
    assert!(
        matches!(&effects[..], [Effect::Rules(_), Effect::Store { version: 2, wishes }] if *wishes == [last])
    );
}

/// Two operators at once: whoever hears of the other one first or last, both nodes come to one wish.
#[test]
fn two_operators_come_to_one_wish() {
    let mut both = [wishes(0), wishes(1)];
    let own = both[0].say(group(), STOPPED, Origin::Operator);
    let to = node(1);
    let other = both[1].say(group(), Want::Moves { to }, Origin::Operator);
    let (own, other) = (own.expect("said"), other.expect("said"));
    both[0].hear(other);
    both[1].hear(own);
    both[0].hear(own);
    for wishes in &mut both {
        store(wishes);
        assert_eq!(wishes.of(group()), Some(&other));
    }
}

#[test]
fn a_later_wish_has_a_higher_number_than_all_that_were_heard() {
    let (mut own, mut other) = (wishes(0), wishes(1));
    for _ in 0..3 {
        let suspended = (Subject::Node(node(0)), Want::Suspended, Origin::Operator);
        other.say(suspended.0, suspended.1, suspended.2);
    }
    store(&mut other);
    for wish in other.durable() {
        own.hear(*wish);
    }
    let said = own.say(group(), STOPPED, Origin::Operator).expect("said");
    let highest = other.durable().map(|wish| wish.number).max();
    assert!(Some(said.number) > highest);
    let earlier = WishMark {
        number: said.number - 1,
        ..said.mark()
    };
    own.settle(earlier, (group(), STOPPED, Origin::Arrived));
    assert_eq!(store(&mut own).len(), 2);
    assert_eq!(own.of(group()), Some(&said));
    assert!(own.is_suspended(node(0)) && !own.is_suspended(node(1)));
}

/// A node moves a group by itself while an operator says something else on the other one: the operator's word rules, also
/// where the node's number would decide.
#[test]
fn an_operators_word_rules_over_what_a_node_says_at_the_same_moment() {
    let mut both = [wishes(0), wishes(1)];
    let to = node(0);
    let by_itself = both[1].say(group(), Want::Moves { to }, Origin::Node);
    let said = both[0].say(group(), STOPPED, Origin::Operator);
    both[0].hear(by_itself.expect("said"));
    both[1].hear(said.expect("said"));
    for wishes in &mut both {
        store(wishes);
        assert_eq!(wishes.of(group()), said.as_ref());
    }
}

/// An operator's word against what both nodes make of the move before it: the operator's stands.
#[test]
fn what_comes_of_a_move_rules_over_nothing_but_that_move() {
    let mut both = [wishes(0), wishes(1)];
    let to = node(1);
    let moves = both[0].say(group(), Want::Moves { to }, Origin::Operator);
    let moves = moves.expect("said");
    both[1].hear(moves);
    // Nobody gets higher numbers by knowing more.
    both[1].say(Subject::Node(node(0)), Want::Suspended, Origin::Operator);
    let stop = both[0].say(group(), STOPPED, Origin::Operator);
    let runs = |home: u8| Want::Runs {
        home: Some(node(home)),
    };
    both[0].settle(
        moves.mark(),
        (group(), runs(0), Origin::InVain(Why::NotBegun)),
    );
    both[1].settle(moves.mark(), (group(), runs(1), Origin::Arrived));
    let arrived = *both[1].newest(group()).expect("known");
    assert_eq!((arrived.number, arrived.by), (moves.number, moves.by));
    assert!(arrived.beats(&moves));
    both[0].hear(arrived);
    both[1].hear(stop.expect("said"));
    for wishes in &mut both {
        store(wishes);
        assert_eq!(wishes.of(group()), stop.as_ref());
    }
}

#[test]
fn two_outcomes_of_one_move_come_to_one() {
    let mut both = [wishes(0), wishes(1)];
    let to = node(1);
    let moves = both[0].say(group(), Want::Moves { to }, Origin::Operator);
    let moves = moves.expect("said");
    both[1].hear(moves);
    let home = Some(node(0));
    let vain = (group(), Want::Runs { home }, Origin::InVain(Why::NotBegun));
    both[0].settle(moves.mark(), vain);
    let home = Some(node(1));
    both[1].settle(
        moves.mark(),
        (group(), Want::Runs { home }, Origin::Arrived),
    );
    let said = [0, 1].map(|node: usize| *both[node].newest(group()).expect("known"));
    both[0].hear(said[1]);
    both[1].hear(said[0]);
    for wishes in &mut both {
        store(wishes);
        assert_eq!(wishes.of(group()), Some(&said[1]));
    }
}

#[test]
fn nobody_wishes_anything_about_a_group_that_is_not_there() {
    let mut own = wishes(0);
    let subject = Subject::Group(GroupKey::of("other"));
    assert_eq!(own.say(subject, STOPPED, Origin::Operator), None);
    own.hear(Wish {
        subject,
        number: 9,
        by: node(1),
        want: STOPPED,
        origin: Origin::Operator,
    });
    assert_eq!(store(&mut own), vec![]);
}

#[test]
fn every_wish_is_told_and_the_newest_most_often() {
    let mut teller = Teller::with_room(3);
    assert_eq!(teller.say(), Saying::default());
    let wish = |subject, number| Wish {
        subject,
        number,
        by: node(0),
        want: Want::Suspended,
        origin: Origin::Operator,
    };
    let subjects = [0, 1, 2].map(|number| Subject::Node(node(number)));
    let told = subjects.iter().zip(1..);
    let told: Vec<Wish> = told
        .map(|(subject, number)| wish(*subject, number))
        .collect();
    for wish in &told {
        teller.learn(*wish);
    }
    let sayings: Vec<Option<Wish>> = (0..12).map(|_| teller.say().wish).collect();
    let times = |wish: Wish| sayings.iter().filter(|said| **said == Some(wish)).count();
    assert_eq!(
        told.iter().map(|wish| times(*wish)).collect::<Vec<_>>(),
        [2, 2, 8]
    );
    // The same wishes, learnt in another order and one of them twice, are the same.
    let mut other = Teller::with_room(3);
    other.learn(wish(subjects[0], 7));
    for wish in told.iter().rev() {
        other.learn(*wish);
    }
    assert_eq!(teller.digest(), other.digest());
    let all = Wishes::new(node(0), subjects, told.clone());
    assert_eq!(all.digest(), Some(teller.digest()));
    assert!(!teller.is_news(&told[1]));
    assert!(teller.is_news(&wish(subjects[1], 8)));
}
