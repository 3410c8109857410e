//! What makes a path down and a peer dead, and what does not.

use super::*;

const TIMING: Timing = Timing {
    interval: Duration::from_millis(250),
    timeout: Duration::from_secs(2),
};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn good(sequence: u64, now: u64) -> Heard {
    Heard {
        sequence,
        confirms: Some(at(now.saturating_sub(10))),
        held: Duration::ZERO,
    }
}

/// Looks every interval; heartbeats on the paths that are named, until `end`.
fn run(detector: &mut FailureDetector, from: u64, end: u64, paths: &[usize]) {
    for (sequence, now) in (from..=end).step_by(250).enumerate() {
        detector.look(at(now));
        for path in paths {
            detector.heard(at(now), *path, good(sequence as u64 + 1, now));
        }
    }
}

#[test]
fn one_path_of_two_keeps_the_peer_alive() {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    run(&mut detector, 0, 5000, &[0, 1]);
    run(&mut detector, 5250, 10_000, &[1]);
    assert_eq!(detector.path(0), PathState::Down);
    assert_eq!(detector.path(1), PathState::Up);
    assert_eq!(detector.presence(), Presence::Alive);
}

#[test]
fn silence_on_every_path_is_death_after_the_timeout_and_not_before() {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    run(&mut detector, 0, 5000, &[0, 1]);
    run(&mut detector, 5250, 6750, &[]);
    assert_eq!(detector.presence(), Presence::Alive);
    assert_eq!(detector.path(0), PathState::Late);
    detector.look(at(7000));
    assert_eq!(detector.presence(), Presence::Dead);
}

#[test]
fn silence_while_this_node_stood_still_proves_nothing() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    run(&mut detector, 0, 5000, &[0]);
    detector.look(at(35_000));
    assert_eq!(detector.stood_still(), Duration::from_millis(29_750));
    assert_ne!(detector.presence(), Presence::Dead);
    run(&mut detector, 35_250, 36_750, &[]);
    assert_ne!(detector.presence(), Presence::Dead);
    detector.look(at(37_000));
    assert_eq!(detector.presence(), Presence::Dead);
}

#[test]
fn a_peer_that_hears_nothing_is_deaf_not_alive() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    for (sequence, now) in (0..=5000).step_by(250).enumerate() {
        let heard = Heard {
            sequence: sequence as u64 + 1,
            confirms: None,
            held: Duration::ZERO,
        };
        detector.heard(at(now), 0, heard);
    }
    assert_eq!(detector.presence(), Presence::Deaf);
}

#[test]
fn a_peer_that_never_spoke_is_unknown_and_then_dead() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    run(&mut detector, 0, 1750, &[]);
    assert_eq!(detector.presence(), Presence::Unknown);
    detector.look(at(2000));
    assert_eq!(detector.presence(), Presence::Dead);
}

#[test]
fn what_is_told_late_makes_no_peer_live_longer_and_no_standstill() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    run(&mut detector, 0, 1500, &[]);
    let late = Heard {
        confirms: Some(at(100)),
        ..good(1, 1)
    };
    detector.heard(at(100), 0, late);
    detector.look(at(1600));
    assert_eq!(detector.presence(), Presence::Alive);
    for now in (1700..=2100).step_by(100) {
        detector.look(at(now));
    }
    assert_eq!(detector.presence(), Presence::Dead);
    assert_eq!(detector.stood_still(), Duration::ZERO);
}

#[test]
fn a_silence_has_its_moment_and_no_other_one() {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    assert_eq!(detector.deadline(), None);
    detector.heard(at(100), 0, good(1, 0));
    detector.heard(at(230), 1, good(1, 0));
    assert_eq!(detector.deadline(), Some(at(2100)));
    for now in (300..=2050).step_by(250) {
        detector.look(at(now));
    }
    detector.look(at(2100));
    assert_eq!(detector.path(0), PathState::Down);
    assert_eq!(detector.deadline(), Some(at(2230)));
    detector.look(at(2230));
    assert_eq!(
        (detector.presence(), detector.deadline()),
        (Presence::Dead, None)
    );
}

#[test]
fn loss_is_counted_from_the_gaps_and_a_restart_is_none() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    for sequence in [1, 2, 5, 4, 6] {
        detector.heard(at(sequence), 0, good(sequence, sequence));
    }
    assert_eq!(detector.counts(0), (5, 2));
    detector.restarted();
    detector.heard(at(7), 0, good(40, 7));
    assert_eq!(detector.counts(0), (6, 2));
}

/// The data plane is asked ten times a second, and says each time when it heard the peer last.
#[test]
fn what_the_link_heard_long_ago_is_no_sign_of_life_now() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    for now in (100..=1900).step_by(100) {
        // A moment is never known to better than the time that the answer took.
        let heard = at(100 + now / 1000);
        detector.heard_before(at(now), 0, heard, heard);
    }
    assert_eq!(detector.presence(), Presence::Alive);
    detector.look(at(2102));
    assert_eq!(detector.presence(), Presence::Dead);
}

/// A mirror link that carries one direction only: the peer hears nothing, and may take over.
#[test]
fn who_is_heard_on_the_mirror_link_and_answers_nothing_confirms_nothing() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    for now in (100..=5000).step_by(100) {
        detector.heard_before(at(now), 0, at(now - 10), at(500));
    }
    assert_eq!(detector.presence(), Presence::Deaf);
    assert_eq!(detector.last_confirmed(), Some(at(500)));
}

/// Three times as long, by what was sent then.
fn bear(detector: &mut FailureDetector, now: u64, sent: u64) {
    let timeout = TIMING.timeout * 3;
    detector.bear(at(now), timeout, at(sent) + timeout);
}

#[test]
fn a_silence_is_borne_until_the_lease_is_over_and_then_counts_from_the_last_word() {
    let mut detector = FailureDetector::new(at(0), TIMING, 1);
    run(&mut detector, 0, 1000, &[0]);
    bear(&mut detector, 1000, 990);
    detector.look(at(1001));
    assert_eq!(detector.deadline(), Some(at(3000)));
    run(&mut detector, 1250, 2750, &[]);
    assert_eq!(
        (detector.is_quiet(), detector.path(0)),
        (false, PathState::Up)
    );
    run(&mut detector, 3000, 6750, &[]);
    assert_eq!(
        (detector.is_quiet(), detector.path(0)),
        (true, PathState::Late)
    );
    assert_eq!(detector.deadline(), Some(at(6990)));
    detector.look(at(6990));
    assert_eq!(detector.presence(), Presence::Dead);
    assert!(!detector.is_quiet());
}

/// The interconnects fail, the mirror link goes on: nothing raises the lease any more, and nothing the timeout.
#[test]
fn what_is_heard_after_a_raised_lease_counts_as_configured() {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    run(&mut detector, 0, 1000, &[0, 1]);
    bear(&mut detector, 1000, 1000);
    run(&mut detector, 1250, 9000, &[1]);
    assert_eq!(detector.path(0), PathState::Down);
    run(&mut detector, 9250, 10_750, &[]);
    assert_eq!(detector.presence(), Presence::Alive);
    detector.look(at(11_000));
    assert_eq!(detector.presence(), Presence::Dead);
    assert_eq!(
        detector.changes().last(),
        Some(&Change::Peer(Presence::Dead))
    );
}

#[test]
fn a_raised_timeout_is_no_sign_of_life() {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    run(&mut detector, 0, 1000, &[0, 1]);
    run(&mut detector, 1250, 5000, &[]);
    bear(&mut detector, 5000, 4990);
    assert_eq!(detector.presence(), Presence::Dead);
    run(&mut detector, 5250, 5500, &[0]);
    assert_eq!(detector.presence(), Presence::Alive);
    assert_eq!(detector.path(1), PathState::Down);
}

#[test]
fn a_timeout_of_few_intervals_is_refused() {
    let second = Duration::from_secs(1);
    assert_eq!(Timing::new(second, second * 3), None);
    assert!(Timing::new(second, second * 4).is_some());
}
