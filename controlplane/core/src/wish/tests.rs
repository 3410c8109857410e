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

/// Two groups that failed on one node move at the same moment, while an operator says on the other one that the second is
/// stopped: it stays stopped, whatever the nodes' numbers are.
#[test]
fn an_operators_word_rules_over_what_a_node_says_of_several_groups() {
    let groups = ["pg", "mail", "web"].map(|name| Subject::Group(GroupKey::of(name)));
    for nodes in [[0, 1], [1, 0]] {
        let [mut person, mut by_itself] = nodes.map(|me| {
            let mut own = Wishes::new(node(me), groups, []);
            own.hear(Wish {
                subject: groups[0],
                number: 7,
                by: node(0),
                want: Want::Runs { home: None },
                origin: Origin::Operator,
            });
            store(&mut own);
            own
        });
        let to = node(nodes[0]);
        let moves = groups.map(|group| {
            let said = by_itself.say(group, Want::Moves { to }, Origin::Node);
            said.expect("said")
        });
        for (group, moves) in groups.into_iter().zip(moves) {
            let said = person.say(group, STOPPED, Origin::Operator).expect("said");
            assert!(said.beats(&moves), "{said:?} against {moves:?}");
            by_itself.hear(said);
            store(&mut by_itself);
            assert_eq!(by_itself.of(group), Some(&said));
        }
    }
}

/// A node was away while an operator on the other one said that failures are forgotten, and that other one failed again: both
/// words are heard, whatever order they come in.
#[test]
fn what_a_node_says_of_itself_never_takes_the_place_of_an_operators_word() {
    let group = GroupKey::of("pg");
    let failed = [0, 1].map(|number| Subject::Failed(group, node(number)));
    let mut both = [0, 1].map(|me| {
        let clear = [Subject::Failures(group)];
        Wishes::new(node(me), failed.into_iter().chain(clear), [])
    });
    let says = |wishes: &mut Wishes, me: usize, want| {
        wishes.say(failed[me], want, Origin::Node).expect("said");
        store(wishes);
    };
    let failures = |wishes: &Wishes| [0, 1].map(|number| wishes.failure(group, node(number)));
    let tell = |from: &Wishes, to: &mut Wishes| {
        for wish in from.durable() {
            to.hear(*wish);
        }
        store(to);
    };
    let [own, other] = &mut both;
    says(own, 0, Want::Failed);
    tell(own, other);
    says(other, 1, Want::Failed);
    tell(other, own);
    assert_eq!(failures(own), [Failure::Stands; 2]);
    let clear = Subject::Failures(group);
    let said = other
        .say(clear, Want::Forgotten, Origin::Operator)
        .expect("said");
    store(other);
    assert_eq!(failures(other), [Failure::Forgotten; 2]);
    says(other, 1, Want::Mended);
    says(other, 1, Want::Failed);
    assert_eq!(failures(other), [Failure::Forgotten, Failure::Stands]);
    // This node was not there; what it says meanwhile has high numbers.
    for want in [Want::Mended, Want::Failed, Want::Mended, Want::Failed] {
        says(own, 0, want);
    }
    tell(other, own);
    assert_eq!(own.of(clear), Some(&said), "it hears the operator");
    says(own, 0, Want::Mended);
    tell(own, other);
    for wishes in [&*own, other] {
        assert_eq!(failures(wishes), [Failure::None, Failure::Stands]);
    }
    assert_eq!(own.digest(), other.digest());
    // That nothing stands any more is no word that a release before this one would miss.
    says(other, 1, Want::Mended);
    let before = Wishes::new(node(0), [clear], [said]);
    assert_eq!(other.digest(), before.digest());
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

/// What ends a wish of the whole cluster ends it for those alone that still are such wishes.
#[test]
fn what_was_said_of_the_whole_cluster_is_known_until_something_else_is_said() {
    let mut own = wishes(0);
    assert!(!own.is_together(group()));
    let together = own.say(group(), STOPPED, Origin::Together).expect("said");
    assert!(own.is_together(group()));
    store(&mut own);
    assert_eq!(own.of(group()), Some(&together));
    let mut other = wishes(1);
    other.hear(together);
    assert!(other.is_together(group()), "the other node knows it too");
    let alone = own.say(group(), STOPPED, Origin::Operator).expect("said");
    assert!(alone.beats(&together) && !own.is_together(group()));
    other.hear(alone);
    assert!(!other.is_together(group()));
}

/// Where only a monitor failed is told by one more word; a node that does not know it takes it for a failure of a resource, and
/// agrees.
#[test]
fn why_a_group_failed_on_a_node_is_known_as_long_as_that_is_its_last_word() {
    let (group, me) = (GroupKey::of("pg"), node(0));
    assert_eq!(group.of_resources().of_resources(), group);
    let (failed, reason) = (
        Subject::Failed(group, me),
        Subject::Failed(group.of_resources(), me),
    );
    let mut own = Wishes::new(me, [failed, reason, Subject::Failures(group)], []);
    let mut earlier = Wishes::new(node(1), [failed, Subject::Failures(group)], []);
    let mut says = |subject, want| {
        let wish = own.say(subject, want, Origin::Node).expect("said");
        store(&mut own);
        assert_eq!(
            crate::wire::wish_of(&crate::wire::wish_bytes(&wish)),
            Some(wish)
        );
        earlier.hear(wish);
        store(&mut earlier);
        assert_eq!(own.digest(), earlier.digest());
        [own.failure(group, me), earlier.failure(group, me)]
    };
    let (monitor, resource) = ([Failure::Monitor, Failure::Stands], [Failure::Stands; 2]);
    assert_eq!(says(failed, Want::Failed), resource);
    assert_eq!(says(reason, Want::Mended), monitor);
    assert_eq!(says(failed, Want::Failed), resource, "it failed once more");
    assert_eq!(says(reason, Want::Mended), monitor);
    assert_eq!(says(failed, Want::Mended), [Failure::None; 2]);
    assert_eq!(says(failed, Want::Failed), resource);
    assert_eq!(says(reason, Want::Mended), monitor);
    let clear = Subject::Failures(group);
    own.say(clear, Want::Forgotten, Origin::Operator)
        .expect("said");
    store(&mut own);
    assert_eq!(own.failure(group, me), Failure::Forgotten);
}
