//! The parts by themselves; `tests/timeouts` has two nodes of them.

use super::*;
use alloc::vec::Vec;
use mirror_core::types::{BootId, Instant};

const SPAN: Span = Span {
    timeout: Duration::from_secs(2),
    lease: Duration::from_secs(2),
    leases: Leases::Kept,
    takeover_wait: Duration::from_millis(3256),
};
const BOOT: BootId = BootId([1; 16]);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn factor(tenths: u8) -> Factor {
    Factor::of_tenths(tenths).expect("a factor")
}

fn told(tenths: u8) -> Told {
    Told {
        waits: Factor::of_tenths(tenths),
        ..Told::default()
    }
}

/// Each stage that a pledge goes through is in the table, and does what the table says.
#[test]
fn a_pledge_does_what_the_table_says() {
    let mut pledge = Pledge::new(at(0), SPAN, Factor::ONE);
    let mut seen = Vec::new();
    let kept = u64::try_from(SPAN.kept(factor(30)).as_millis()).expect("small");
    let steps = [
        (0, 10, 10),
        (100, 30, 10),
        (400, 30, 30),
        (700, 10, 30),
        (701 + 400 + kept, 10, 10),
    ];
    for (now, allowed, peer) in steps {
        pledge.allow(factor(allowed));
        let says = pledge.tell(at(now));
        let raised = pledge.hear(&told(peer), Some(at(now)));
        let lease = raised.map_or(Factor::ONE, |raised| raised.factor);
        let waits = pledge.waits(at(now));
        let stage = stage(factor(allowed), waits, lease);
        let length = |factor: Factor| {
            if factor.raises() {
                Length::Long
            } else {
                Length::Plain
            }
        };
        let (says, waits, lease) = (length(says), length(waits), length(lease));
        assert_eq!(conduct_of(stage), Conduct { says, waits, lease });
        seen.push(stage);
    }
    let expected = [
        Stage::AsConfigured,
        Stage::Raising,
        Stage::Raised,
        Stage::Lowering,
        Stage::AsConfigured,
    ];
    assert_eq!(seen, expected);
}

#[test]
fn of_several_promises_the_longest_holds_until_each_has_run_out() {
    let mut pledge = Pledge::new(at(0), SPAN, Factor::ONE);
    for (now, tenths) in [(0, 60), (1000, 30), (2000, 10)] {
        pledge.allow(factor(tenths));
        pledge.tell(at(now));
        assert_eq!(pledge.waits(at(now)), factor(60));
    }
    let over = at(0) + SPAN.kept(factor(60));
    assert_eq!(pledge.waits(at(1000)), factor(60));
    assert_eq!(pledge.waits(over + Duration::from_secs(60)), Factor::ONE);
    // What an earlier run left behind counts from this one's beginning.
    let pledge = Pledge::new(at(5000), SPAN, factor(30));
    let over = at(5000) + SPAN.kept(factor(30));
    assert_eq!(pledge.waits(at(5000)), factor(30));
    assert_eq!(pledge.waits(over), Factor::ONE);
}

#[test]
fn a_promise_that_confirms_nothing_or_comes_from_a_release_before_gives_nothing() {
    let mut pledge = Pledge::new(at(0), SPAN, Factor::ONE);
    pledge.allow(factor(30));
    assert_eq!(pledge.hear(&told(30), None), None);
    assert_eq!(pledge.hear(&Told::default(), Some(at(1))), None);
    let sent = at(2);
    let raised = pledge.hear(&told(20), Some(sent)).expect("a lease");
    assert_eq!((raised.factor, raised.sent), (factor(20), sent));
    assert_eq!(Raised::of_bits(raised.bits()), Some(raised));
    assert_eq!(Raised::of_bits(0), None);
}

/// Whatever is promised is kept for as long as a lease that rests on it can last, with all that comes after it.
#[test]
fn a_promise_outlives_every_lease_that_rests_on_it() {
    for tenths in Factor::ONE.tenths() + 1..=Factor::MAX.tenths() {
        for leases in [Leases::Kept, Leases::None] {
            for timeout in [500, 2000, 30_000] {
                let timeout = Duration::from_millis(timeout);
                let hard_stop = Duration::from_secs(2);
                let wait = crate::self_fencing::takeover_wait(leases, timeout, hard_stop, None);
                let span = Span {
                    timeout,
                    lease: timeout,
                    leases,
                    takeover_wait: wait,
                };
                let lease = factor(tenths).times(timeout);
                let lives = match leases {
                    Leases::Kept => with_drift(lease + grace(lease) + hard_stop),
                    Leases::None => Duration::ZERO,
                };
                assert!(span.kept(factor(tenths)) >= lives);
                let raised = crate::self_fencing::takeover_wait(leases, lease, hard_stop, None);
                let stretched = wait + span.stretch(factor(tenths));
                assert!(stretched + Duration::from_micros(1) >= raised, "{tenths}");
            }
        }
    }
}

fn window(kept: Kept) -> Window {
    Window::new(NodeId::new(0).expect("a node"), BOOT, kept)
}

/// Makes all durable that is wanted.
fn settle(window: &mut Window, now: Instant) -> Vec<Word> {
    let (mut effects, mut rules) = (Vec::new(), Vec::new());
    window.store(now, &mut effects);
    while let Some(effect) = effects.pop() {
        match effect {
            Effect::Store { version, .. } => window.stored(now, version, &mut effects),
            Effect::Rules(word) => rules.push(word),
        }
    }
    rules
}

#[test]
fn nothing_is_allowed_before_it_is_durable_and_nothing_after_its_time() {
    let mut window = window(Kept::NOTHING);
    let word = window.say(at(0), factor(30), LASTS_MIN);
    assert_eq!(window.allowed(at(0)), Factor::ONE);
    assert_eq!(settle(&mut window, at(0)), [word]);
    assert_eq!(
        window.allowance(at(0), factor(30)),
        Allowance {
            number: 1,
            factor: factor(30)
        }
    );
    assert_eq!(window.waits(), factor(30));
    // A heartbeat that does not know the present allowance says nothing of what is to be kept.
    window.kept(0, Factor::ONE);
    let over = at(0) + LASTS_MIN;
    assert_eq!(window.allowed(over), Factor::ONE);
    let rules = settle(&mut window, over);
    assert_eq!(rules.first().and_then(|word| word.over), Some(Over::Time));
    assert_eq!(window.waits(), factor(30), "what was said is kept");
    let number = window.allowance(over, factor(30)).number;
    window.kept(number, Factor::ONE);
    settle(&mut window, over);
    assert_eq!(window.waits(), Factor::ONE);
}

#[test]
fn a_restart_goes_on_and_a_reboot_ends_it_and_both_keep_what_was_promised() {
    let mut first = window(Kept::NOTHING);
    first.say(at(0), factor(30), LASTS_MIN);
    let mut effects = Vec::new();
    first.store(at(0), &mut effects);
    let Some(Effect::Store { kept, .. }) = effects.pop() else {
        panic!("nothing to store")
    };
    let again = window(kept);
    assert_eq!(again.allowed(at(1000)), factor(30));
    assert_eq!(again.ends().map(|ends| ends.until), Some(at(0) + LASTS_MIN));
    let mut booted = Window::new(NodeId::new(0).expect("a node"), BootId([2; 16]), kept);
    assert_eq!(booted.allowed(at(1)), Factor::ONE);
    let rules = settle(&mut booted, at(1));
    assert_eq!(rules.first().and_then(|word| word.over), Some(Over::Reboot));
    assert_eq!(booted.waits(), factor(30));
    // The other one learns it, and it rules over what it knows.
    let mut other = window(kept);
    other.hear(at(2), rules[0]);
    assert_eq!(other.allowed(at(2)), Factor::ONE, "at once");
}

#[test]
fn of_two_words_both_nodes_come_to_one() {
    let (mut one, mut other) = (
        window(Kept::NOTHING),
        Window::new(NodeId::new(1).expect("a node"), BOOT, Kept::NOTHING),
    );
    let mine = one.say(at(0), factor(30), LASTS_MIN);
    let theirs = other.say(at(0), factor(50), LASTS_MIN);
    one.hear(at(1), theirs);
    other.hear(at(1), mine);
    assert_eq!(one.newest(), Some(&theirs));
    assert_eq!(other.newest(), Some(&theirs));
}
