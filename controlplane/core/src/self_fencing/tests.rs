//! The rows, the arithmetic, and the bound on which a takeover rests.

use alloc::vec::Vec;
use proptest::prelude::*;

use super::*;
use crate::keeper::HANDICAP;

const T: Duration = Duration::from_secs(2);
const H: Duration = Duration::from_secs(3);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

/// Heard without a gap since `at(9000)`.
fn lease() -> ServiceLease {
    let mut lease = ServiceLease::new(at(8000), T, None);
    lease.heard(at(9000));
    lease.restored(at(9000), Served::Linked);
    lease
}

#[test]
fn services_run_while_one_who_counts_is_heard_and_a_timeout_longer() {
    let mut lease = lease();
    assert!(!lease.is_over(at(10_999)));
    assert!(lease.is_over(at(11_000)));
    lease.confirmed(at(10_900), at(10_800), 0);
    assert_eq!(lease.until(), at(12_800));
    // What was sent earlier shortens nothing.
    lease.confirmed(at(10_950), at(10_500), 0);
    assert_eq!(lease.until(), at(12_800));
}

#[test]
fn the_arbiters_answers_lengthen_it_by_half_a_timeout_and_no_more() {
    let mut lease = lease();
    for asked in (9000..60_000).step_by(250) {
        lease.contact(at(asked));
        assert!(lease.until() <= at(12_000), "asked at {asked}");
    }
    assert_eq!(lease.until(), at(12_000));
}

#[test]
fn after_a_gap_the_peers_word_counts_only_once_the_copies_have_met() {
    let mut lease = lease();
    lease.confirmed(at(12_500), at(12_400), 1);
    assert!(lease.is_over(at(12_500)));
    lease.confirmed(at(13_000), at(12_900), 1);
    assert!(lease.is_over(at(13_000)));
    // What was asked of the data planes before the gap was noticed says nothing.
    lease.restored(at(12_400), Served::Linked);
    assert!(lease.is_over(at(13_000)));
    lease.restored(at(13_000), Served::Linked);
    assert_eq!(lease.until(), at(14_900));
}

#[test]
fn a_loop_that_reads_late_what_came_in_time_has_no_gap() {
    let mut lease = lease();
    lease.confirmed(at(19_000), at(18_900), 0);
    assert_eq!(lease.until(), at(20_900));
}

#[test]
fn a_standstill_of_the_machine_ends_it() {
    let mut lease = lease();
    lease.confirmed(at(10_000), at(9_900), 0);
    assert!(lease.is_over(at(40_000)));
    // The datagrams that waited confirm what was sent before.
    lease.confirmed(at(40_001), at(10_100), 0);
    assert!(lease.is_over(at(40_001)));
}

#[test]
fn a_new_run_begins_with_what_the_earlier_one_left_behind() {
    let mut lease = ServiceLease::new(at(50_000), T, Some(at(49_000)));
    assert_eq!(lease.until(), at(51_000));
    // In time, by whoever counts the gaps.
    lease.confirmed(at(50_900), at(50_800), 0);
    assert_eq!(lease.until(), at(52_800));
    let mut lease = ServiceLease::new(at(50_000), T, Some(at(49_000)));
    lease.confirmed(at(51_100), at(51_000), 1);
    assert!(lease.is_over(at(51_100)));
    let mut lease = ServiceLease::new(at(50_000), T, None);
    assert!(lease.is_over(at(50_000)));
    // The peer is heard, and may have taken over while this daemon did not run.
    lease.confirmed(at(50_300), at(50_200), 0);
    assert!(lease.is_over(at(50_300)));
    lease.restored(at(50_400), Served::Linked);
    assert_eq!(lease.until(), at(52_200));
}

#[test]
fn every_row_has_its_answer_and_stands_once() {
    for (row, (ground, verdict)) in SERVICES.iter().enumerate() {
        assert_eq!(services(*ground), *verdict);
        assert_eq!(
            SERVICES.iter().position(|(one, _)| one == ground),
            Some(row)
        );
    }
    for (row, (before, start)) in STARTS.iter().enumerate() {
        assert_eq!(starts(*before), *start);
        assert_eq!(STARTS.iter().position(|(one, _)| one == before), Some(row));
    }
    for (row, (seen, then)) in WATCHDOG.iter().enumerate() {
        assert_eq!(care(*seen), *then);
        assert_eq!(WATCHDOG.iter().position(|(one, _)| one == seen), Some(row));
    }
    assert_eq!(services(Ground::Over), Verdict::StopHard);
    assert_eq!(starts(Before::Unknown), Start::Later);
    assert_eq!(care(Watched::Overdue), Care::Left);
}

fn exposure(lease_until: Option<u64>, hard_since: Option<u64>) -> Exposure {
    Exposure {
        left: Left::Something,
        lease_until: lease_until.map(at),
        hard_since: hard_since.map(at),
        hard_stop: H,
    }
}

const NOTHING: Exposure = Exposure {
    left: Left::Nothing,
    lease_until: Some(Instant::from_nanos(0)),
    hard_since: Some(Instant::from_nanos(0)),
    hard_stop: H,
};

#[test]
fn what_is_not_here_needs_no_watchdog() {
    assert_eq!(pet_until(at(5000), T, &[NOTHING]), None);
    assert_eq!(
        watched(at(5000), at(5000), T, &[NOTHING]),
        Watched::NothingLeft
    );
    assert_eq!(watched(at(5000), at(5000), T, &[]), Watched::NothingLeft);
}

#[test]
fn the_watchdog_is_petted_until_the_first_group_must_be_gone() {
    let now = at(5000);
    let cases = [
        (exposure(None, None), Watched::Well, 5000 + 4000),
        (exposure(Some(5500), None), Watched::Well, 8500),
        (exposure(Some(3000), None), Watched::Well, 6000),
        (exposure(Some(2000), None), Watched::LeaseLongOver, 5000),
        (exposure(None, Some(2500)), Watched::Well, 5500),
        (exposure(None, Some(2000)), Watched::Overdue, 5000),
    ];
    for (group, seen, until) in cases {
        let groups = [NOTHING, group, exposure(None, None)];
        assert_eq!(watched(now, now, T, &groups), seen, "{group:?}");
        assert_eq!(pet_until(now, T, &groups), Some(at(until)), "{group:?}");
    }
}

#[test]
fn a_loop_that_is_stuck_is_not_petted_for() {
    let groups = [exposure(None, None)];
    assert_eq!(watched(at(8999), at(5000), T, &groups), Watched::Well);
    assert_eq!(watched(at(9000), at(5000), T, &groups), Watched::LoopStuck);
}

#[test]
fn where_nobody_takes_over_by_itself_a_start_waits_for_a_hard_stop_only() {
    let kept = takeover_wait(Leases::Kept, T, H, Some(Duration::from_secs(10)));
    assert!(kept >= Duration::from_millis(24_250) && kept < Duration::from_millis(24_300));
    let none = takeover_wait(Leases::None, T, H, Some(Duration::from_secs(10)));
    assert!(none >= H && none < H + Duration::from_millis(10));
}

#[test]
fn two_groups_of_one_bit_are_clear_together() {
    let (one, two, other) = (GroupKey(5), GroupKey(53), GroupKey(6));
    assert_eq!(ClearGroups::place(one), ClearGroups::place(two));
    let said = [
        (one, Left::Nothing),
        (two, Left::Something),
        (other, Left::Nothing),
    ];
    assert_eq!(ClearGroups::of(said).bits(), 1 << 6);
    let said = [(two, Left::Nothing), (one, Left::Nothing)];
    assert_eq!(ClearGroups::of(said).bits(), 1 << 5);
    assert_eq!(ClearGroups::from_bits(u64::MAX).bits(), (1 << 48) - 1);
}

fn option(of: core::ops::Range<u64>) -> impl Strategy<Value = Option<u64>> {
    proptest::option::of(of)
}

proptest! {
    /// A thread that has one number and a clock does what the table says.
    #[test]
    fn the_number_for_the_thread_is_the_table(
        groups in proptest::collection::vec((any::<bool>(), option(0..20_000), option(0..20_000), 100..9000_u64), 0..4),
        looked in 0..20_000_u64,
        later in 0..20_000_u64,
    ) {
        let groups: Vec<Exposure> = groups
            .into_iter()
            .map(|(left, lease, hard, stop)| Exposure {
                left: if left { Left::Something } else { Left::Nothing },
                hard_stop: Duration::from_millis(stop),
                ..exposure(lease, hard)
            })
            .collect();
        let now = at(looked + later);
        let by_number = match pet_until(at(looked), T, &groups) {
            None => Care::Disarmed,
            Some(until) if now < until => Care::Petted,
            Some(_) => Care::Left,
        };
        prop_assert_eq!(care(watched(now, at(looked), T, &groups)), by_number);
    }

    /// The inequality of DESIGN §3: when the other node starts services, those here are gone, or the machine was reset. The
    /// other node's clock and this one go apart by 1/1000 each; it heard this one last `flight` after that was sent, declares
    /// it dead its timeout later, and counts from there. The arbiter answers this node until it grants the
    /// volume to the other one.
    #[test]
    fn no_service_starts_elsewhere_before_it_is_gone_here(
        timeout in 400..20_000_u64,
        hard_stop in 100..60_000_u64,
        watchdog in proptest::option::of(2..600_u64),
        flight in 0..400_u64,
        claimed_late in 0..30_000_u64,
        asks_every in 50..500_u64,
        slow in any::<bool>(),
        link_only in 0..60_000_u64,
        healed in 0..30_000_u64,
    ) {
        let (timeout, hard_stop) = (Duration::from_millis(timeout), Duration::from_millis(hard_stop));
        let watchdog = watchdog.map(Duration::from_secs);
        let sent = at(1_000_000);
        let drift = |time: Duration| if slow { time + time / 1000 } else { time - time / 1000 };
        let granted = sent + Duration::from_millis(flight) + drift(timeout + HANDICAP) + Duration::from_millis(claimed_late);
        // The interconnects carried nothing for a while before, and the mirror link did.
        let mut lease = ServiceLease::new(at(0), timeout, None);
        let mut thread = Confirmations::new(timeout, Some(at(1_000_000 - link_only)));
        thread.look(sent);
        lease.confirmed(sent, at(1_000_000 - link_only), thread.gaps());
        lease.answered(sent, sent);
        lease.restored(sent, Served::Linked);
        let mut asked = sent;
        while asked < granted {
            lease.contact(asked);
            asked = asked + Duration::from_millis(asks_every);
        }
        let over = lease.until();
        // They come back once the volume is granted elsewhere, and no volume's daemon is heard.
        for beat in 0..20 {
            let now = granted + timeout / 2 + Duration::from_millis(healed + 250 * beat);
            thread.look(now);
            thread.hear(now);
            lease.confirmed(now, now, thread.gaps());
        }
        prop_assert_eq!(lease.until(), over);
        let own = |time: Duration| time + time / 1000;
        let group = Exposure { hard_stop, lease_until: Some(over), ..exposure(None, None) };
        let petted = pet_until(asked, timeout, &[group]).unwrap_or_default();
        prop_assert!(petted <= over + hard_stop);
        // The process ends just before the device would have reset the machine, which is a sign of life.
        let gone = over + own(hard_stop) + own(2 * watchdog.unwrap_or_default());
        // Not after it was granted: it may have served the volumes before.
        let dead = sent + Duration::from_millis(flight) + drift(timeout);
        let started = dead + drift(HANDICAP) + drift(takeover_wait(Leases::Kept, timeout, hard_stop, watchdog));
        prop_assert!(gone <= started, "gone {gone:?}, started {started:?}");
    }
}
