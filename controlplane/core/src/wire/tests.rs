use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn heartbeat() -> Heartbeat {
    Heartbeat {
        from: NodeId::new(1).expect("a node"),
        to: NodeId::new(0).expect("a node"),
        path: 2,
        stood_still: true,
        boot: BootId([9; 16]),
        incarnation: Incarnation(77),
        sequence: 5,
        sent: Instant::from_nanos(123_456),
        echoed_incarnation: Incarnation(78),
        echoed_sent: Instant::from_nanos(99),
        held_nanos: 11,
        saying: Saying {
            wish: Some(wishes()[0]),
            digest: 12,
        },
        clear: ClearGroups::from_bits(0x8001_0203_0405),
        timeouts: Told {
            waits: Factor::of_tenths(30),
            lease: Some(Factor::ONE),
            word: None,
        },
    }
}

fn wishes() -> Vec<Wish> {
    let node = |number| NodeId::new(number).expect("a node");
    let group = Subject::Group(GroupKey::of("pg"));
    let wish = |subject, want, origin| Wish {
        subject,
        number: 3,
        by: node(1),
        want,
        origin,
    };
    let home = Some(node(1));
    let there = Subject::Failed(GroupKey(7), node(1));
    vec![
        wish(group, Want::Moves { to: node(1) }, Origin::Operator),
        wish(group, Want::Runs { home }, Origin::Arrived),
        wish(group, Want::Runs { home }, Origin::InVain(Why::NotBegun)),
        wish(group, Want::Stopped { home: None }, Origin::Operator),
        wish(
            Subject::Failures(GroupKey(7)),
            Want::Forgotten,
            Origin::Operator,
        ),
        wish(group, Want::Moves { to: node(0) }, Origin::Node),
        wish(there, Want::Failed, Origin::Node),
        wish(there, Want::Mended, Origin::Node),
        wish(Subject::Node(node(1)), Want::Suspended, Origin::Operator),
        wish(Subject::Node(node(1)), Want::Suspended, Origin::Together),
        wish(group, Want::Stopped { home }, Origin::Together),
        wish(Subject::Node(node(0)), Want::Resumed, Origin::Operator),
    ]
}

#[test]
fn a_wish_is_24_bytes_and_back() {
    for wish in wishes() {
        assert_eq!(wish_of(&wish_bytes(&wish)), Some(wish));
    }
    for place in [16, 17, 18, 20] {
        let mut bytes = wish_bytes(&wishes()[0]);
        bytes[place] = 77;
        assert_eq!(wish_of(&bytes), None);
    }
    assert_eq!(wish_of(&[0; 24]), None);
}

/// A release before this one has left out the bytes at 21 to 23.
#[test]
fn what_a_node_says_by_itself_is_a_word_about_nobody_for_a_release_before() {
    let mine = GroupKey(7);
    for wish in wishes().iter().filter(|wish| wish.origin == Origin::Node) {
        let mut before = wish_bytes(wish);
        before[21..].fill(0);
        let read = wish_of(&before).expect("it starts with such a file");
        assert_eq!(read.origin, Origin::Operator);
        let same = Wish {
            origin: Origin::Operator,
            ..*wish
        };
        if let Subject::Failed(..) = wish.subject {
            assert!(
                !matches!(read.subject, Subject::Group(group) if group == mine),
                "{read:?}"
            );
        } else {
            assert_eq!(read, same);
        }
        let mut later = wish_bytes(wish);
        later[23] = 3;
        assert_eq!(wish_of(&later), None, "of a later release");
    }
}

#[test]
fn what_was_said_is_what_is_heard() {
    let key = HeartbeatKey::new(&[1; 32]);
    assert_eq!(key.decode(&key.encode(&heartbeat())), Ok(heartbeat()));
}

#[test]
fn a_word_about_timeouts_takes_the_place_of_a_wish() {
    let key = HeartbeatKey::new(&[1; 32]);
    for over in [None, Some(Over::Time), Some(Over::Reboot)] {
        let word = Word {
            number: 9,
            by: NodeId::new(1).expect("a node"),
            factor: Factor::MAX,
            lasts: LASTS_MAX,
            over,
        };
        assert_eq!(word_of(&word_bytes(&word)), Some(word));
        // As a release before this one sees it.
        assert_eq!(wish_of(&word_bytes(&word)), None);
        let mut said = heartbeat();
        said.timeouts.word = Some(word);
        let mut heard = said;
        heard.saying.wish = None;
        assert_eq!(key.decode(&key.encode(&said)), Ok(heard));
    }
    for wish in wishes() {
        assert_eq!(word_of(&wish_bytes(&wish)), None);
    }
    let word = Word {
        number: 9,
        by: NodeId::new(1).expect("a node"),
        factor: Factor::ONE,
        lasts: Duration::ZERO,
        over: None,
    };
    for (place, wrong) in [(0, 9), (0, 201), (3, 2), (16, 3), (18, 3)] {
        let mut bytes = word_bytes(&word);
        bytes[place] = wrong;
        assert_eq!(word_of(&bytes), None, "{place}");
    }
}

/// What a release before this one sends, and what it makes of the bytes that are new.
#[test]
fn a_release_before_this_one_promises_nothing() {
    let key = HeartbeatKey::new(&[1; 32]);
    let mut before = heartbeat();
    before.timeouts = Told::default();
    let bytes = key.encode(&before);
    assert_eq!(&bytes[117..120], &[0, 0, 0]);
    let heard = key.decode(&bytes).expect("a heartbeat");
    assert_eq!(heard.timeouts, Told::default());
    let bytes = key.encode(&heartbeat());
    assert_eq!(&bytes[117..120], &[30, 10, 0]);
    assert_eq!(wish_of(&bytes[96..120]), Some(wishes()[0]));
}

#[test]
fn another_key_hears_nothing() {
    let bytes = HeartbeatKey::new(&[1; 32]).encode(&heartbeat());
    let other = HeartbeatKey::new(&[2; 32]);
    assert_eq!(other.decode(&bytes), Err(HeartbeatError::Signature));
}

#[test]
fn what_was_rotated_away_is_heard_until_it_is_dropped_and_never_again() {
    let first = Keys::first(&[1; 32]);
    let next = first.step(Some(Secret::new([2; 32]))).expect("a step");
    let last = next.step(None).expect("a step");
    let way = [first, next, last, last.step(None).expect("a step")];
    let keys = way.map(|keys| HeartbeatKeys::new(&keys));
    // The very bytes that were heard a moment before, and fresh ones.
    let recorded = keys[0].encode(&heartbeat());
    for node in &keys[..3] {
        assert_eq!(node.decode(&recorded), Ok(heartbeat()));
    }
    for sender in &keys[..2] {
        let heard = keys[3].decode(&sender.encode(&heartbeat()));
        assert_eq!(heard, Err(HeartbeatError::Signature));
    }
    assert_eq!(
        keys[3].decode(&keys[2].encode(&heartbeat())),
        Ok(heartbeat())
    );
    let heard = keys[0].decode(&keys[2].encode(&heartbeat()));
    assert_eq!(heard, Err(HeartbeatError::Signature), "not offered yet");
}

proptest! {
    #[test]
    fn a_changed_bit_is_never_heard(at in 0..HEARTBEAT_BYTES, bit in 0..8_u8) {
        let key = HeartbeatKey::new(&[1; 32]);
        let mut bytes = key.encode(&heartbeat());
        bytes[at] ^= 1 << bit;
        prop_assert!(key.decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(HeartbeatKey::new(&[1; 32]).decode(&bytes).is_err());
    }
}
