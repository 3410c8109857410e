//! What the thread does with a watchdog device. The device here writes down what it is told; a real one resets a machine, and
//! has a scenario of its own (`watchdog-resets`).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use controlplane::arbiter::boottime_nanos;
use controlplane::watchdog::device::{Device, Opened};
use controlplane::watchdog::{Hand, State, Watchdog};
use mirror_core::types::Instant;
use nix::errno::Errno;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Open,
    Pet,
    Disarm,
}

/// One that writes everything down.
#[derive(Clone, Debug, Default)]
struct Paper {
    words: Arc<Mutex<Vec<Word>>>,
    refuses: Option<Errno>,
    /// `nowayout`.
    stays: bool,
}

impl Paper {
    fn write(&self, word: Word) {
        self.words.lock().expect("no panic").push(word);
    }

    /// What was written since this was last asked.
    fn read(&self) -> Vec<Word> {
        std::mem::take(&mut *self.words.lock().expect("no panic"))
    }
}

impl Device for Paper {
    fn open(&mut self, timeout_s: u32) -> Result<Opened, Errno> {
        if let Some(errno) = self.refuses {
            return Err(errno);
        }
        self.write(Word::Open);
        Ok(Opened {
            timeout_s,
            stays_armed: true,
        })
    }

    fn pet(&mut self) -> Result<(), Errno> {
        self.write(Word::Pet);
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), Errno> {
        if self.stays {
            return Err(Errno::EBUSY);
        }
        self.write(Word::Disarm);
        Ok(())
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

#[test]
fn it_is_armed_while_something_may_have_to_be_fenced_and_disarmed_after_it() {
    let paper = Paper::default();
    let mut hand = Hand::new(paper.clone(), 10);
    hand.turn(at(1000), None);
    assert_eq!((hand.told().state, paper.read()), (State::Disarmed, vec![]));
    hand.turn(at(2000), Some(at(5000)));
    assert_eq!(hand.told().state, State::Armed);
    assert_eq!(
        (hand.told().timeout_s, paper.read()),
        (10, vec![Word::Open, Word::Pet])
    );
    hand.turn(at(2500), Some(at(5500)));
    assert_eq!(paper.read(), [Word::Pet]);
    hand.turn(at(3000), None);
    assert_eq!(
        (hand.told().state, paper.read()),
        (State::Disarmed, vec![Word::Disarm])
    );
}

/// The loop that decides is stuck, a hard stop hangs, the machine stood still: the number stays, and passes.
#[test]
fn it_is_not_petted_after_the_moment_that_it_was_given() {
    let paper = Paper::default();
    let mut hand = Hand::new(paper.clone(), 10);
    hand.turn(at(1000), Some(at(4000)));
    hand.turn(at(3999), Some(at(4000)));
    assert_eq!(paper.read(), [Word::Open, Word::Pet, Word::Pet]);
    for now in [4000, 4500, 60_000] {
        hand.turn(at(now), Some(at(4000)));
        assert_eq!(
            (hand.told().state, paper.read()),
            (State::Armed, vec![]),
            "{now}"
        );
    }
    // In time after all.
    hand.turn(at(60_100), Some(at(63_000)));
    assert_eq!(paper.read(), [Word::Pet]);
}

/// What was left was gone before it might be petted: nobody else disarms it.
#[test]
fn one_that_an_earlier_run_armed_is_disarmed_once_nothing_is_left() {
    let paper = Paper::default();
    let mut hand = Hand::new(paper.clone(), 10).inheriting(true);
    hand.turn(at(1000), Some(at(900)));
    assert_eq!(paper.read(), []);
    assert!(hand.told().inherited);
    hand.turn(at(1500), None);
    assert_eq!(paper.read(), [Word::Open, Word::Pet, Word::Disarm]);
    assert_eq!(hand.told().state, State::Disarmed);
    assert!(!hand.told().inherited);
    hand.turn(at(2000), None);
    assert_eq!(paper.read(), []);
}

/// Before it is known what is left here.
#[test]
fn one_that_an_earlier_run_armed_is_left_alone_before_anything_is_ordered() {
    let paper = Paper::default();
    let watchdog =
        Watchdog::start(paper.clone(), Duration::from_millis(40), true).expect("a thread");
    assert!(watchdog.told().inherited);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(paper.read(), []);
    watchdog.order(None);
    let until = Clock::now() + Duration::from_secs(20);
    while watchdog.told().inherited {
        assert!(Clock::now() < until, "{:?}", watchdog.told());
        std::thread::yield_now();
    }
    assert!(paper.read().contains(&Word::Disarm));
    watchdog.abandon();
}

/// Opening a device that runs is a sign of life as well.
#[test]
fn a_new_run_opens_nothing_before_it_may_be_petted() {
    let paper = Paper::default();
    let mut hand = Hand::new(paper.clone(), 10);
    for now in (100_000..110_000).step_by(500) {
        hand.turn(at(now), Some(at(99_000)));
    }
    assert_eq!(paper.read(), []);
    hand.turn(at(110_000), Some(at(113_000)));
    assert_eq!(paper.read(), [Word::Open, Word::Pet]);
}

#[test]
fn one_that_cannot_be_disarmed_is_petted_while_nothing_is_here_and_by_the_rules_otherwise() {
    let paper = Paper {
        stays: true,
        ..Paper::default()
    };
    let mut hand = Hand::new(paper.clone(), 10);
    hand.turn(at(1000), Some(at(5000)));
    hand.turn(at(2000), None);
    assert_eq!(
        (hand.told().state, hand.told().errno),
        (State::Bound, Some(Errno::EBUSY))
    );
    paper.read();
    hand.turn(at(60_000), None);
    assert_eq!(paper.read(), [Word::Pet]);
    hand.turn(at(61_000), Some(at(61_000)));
    assert_eq!((hand.told().state, paper.read()), (State::Armed, vec![]));
}

#[test]
fn one_that_somebody_else_has_is_told_and_tried_again() {
    let paper = Paper {
        refuses: Some(Errno::EBUSY),
        ..Paper::default()
    };
    let mut hand = Hand::new(paper, 10);
    hand.turn(at(1000), Some(at(5000)));
    assert_eq!(
        (hand.told().state, hand.told().errno),
        (State::Unusable, Some(Errno::EBUSY))
    );
    hand.turn(at(2000), None);
    assert_eq!(
        (hand.told().state, hand.told().errno),
        (State::Disarmed, None)
    );
}

/// The run before holds it for a moment longer, and left it armed.
#[test]
fn one_that_was_busy_is_opened_well_before_it_resets_the_machine() {
    let busy = Paper {
        refuses: Some(Errno::EBUSY),
        ..Paper::default()
    };
    for timeout_s in [5, 10, 600] {
        let mut hand = Hand::new(busy.clone(), timeout_s);
        hand.turn(at(1000), Some(at(900_000)));
        assert_eq!(hand.told().state, State::Unusable);
        hand.device_mut().refuses = None;
        let retry = (u64::from(timeout_s) * 1000 / 8).min(5000);
        hand.turn(at(999 + retry), Some(at(900_000)));
        assert_eq!(hand.told().state, State::Unusable);
        hand.turn(at(1000 + retry), Some(at(900_000)));
        assert_eq!(hand.told().state, State::Armed, "{timeout_s}");
    }
}

fn soon(millis: u64) -> Option<Instant> {
    Some(Instant::from_nanos(boottime_nanos() + 1_000_000 * millis))
}

fn wait_for(watchdog: &Watchdog, state: State) {
    let until = Clock::now() + Duration::from_secs(20);
    while watchdog.told().state != state {
        assert!(Clock::now() < until, "{:?}", watchdog.told());
        std::thread::yield_now();
    }
}

/// SIGTERM, a crash, an upgrade: whatever ends the daemon, services may run that nobody watches any more.
#[test]
fn the_end_of_the_daemon_disarms_nothing() {
    let paper = Paper::default();
    let watchdog =
        Watchdog::start(paper.clone(), Duration::from_secs(10), false).expect("a thread");
    watchdog.order(soon(60_000));
    wait_for(&watchdog, State::Armed);
    watchdog.abandon();
    assert!(!paper.read().contains(&Word::Disarm));
}

#[test]
fn the_thread_follows_what_it_is_told_without_waiting_for_its_next_turn() {
    let paper = Paper::default();
    // Its turns would be half a second apart.
    let watchdog =
        Watchdog::start(paper.clone(), Duration::from_secs(600), false).expect("a thread");
    for _ in 0..5 {
        watchdog.order(soon(60_000));
        wait_for(&watchdog, State::Armed);
        watchdog.order(None);
        wait_for(&watchdog, State::Disarmed);
    }
    let words = paper.read();
    assert_eq!(
        words.iter().filter(|word| **word == Word::Disarm).count(),
        5
    );
    watchdog.abandon();
}
