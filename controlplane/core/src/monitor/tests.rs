use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
const WELL: Look = Look::Well(Duration::from_millis(3));

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn monitor(retries: u32, on_error: OnError) -> Monitor {
    let mut monitor = Monitor::new(
        at(0),
        Policy {
            delay: Duration::from_secs(7),
            interval: Duration::from_secs(5),
            timeout: TIMEOUT,
            retries,
            on_error,
        },
    );
    monitor.begin(at(1));
    monitor
}

#[test]
fn it_counts_only_after_so_many_failures_in_a_row_and_is_said_once() {
    let mut monitor = monitor(2, OnError::Failover);
    assert_eq!((monitor.health(), monitor.since()), (Health::New, at(1)));
    let mut said = |second, look| monitor.looked(at(second), look).0;
    assert_eq!(said(6, WELL), Told::Nothing);
    assert_eq!(said(11, Look::Ill), Told::Fails(1));
    assert_eq!(said(16, Look::Ill), Told::Fails(2));
    assert_eq!(said(21, WELL), Told::Recovered, "the row is broken");
    assert_eq!(said(26, Look::Ill), Told::Fails(1));
    assert_eq!(said(31, Look::Ill), Told::Fails(2));
    assert_eq!(said(36, Look::Ill), Told::Failed(OnError::Failover));
    assert_eq!(said(41, Look::Ill), Told::Nothing, "it was said");
    assert_eq!(
        (monitor.health(), monitor.since()),
        (Health::Failed, at(26))
    );
    assert_eq!(monitor.looked(at(46), WELL).0, Told::Recovered);
    assert_eq!((monitor.health(), monitor.since()), (Health::Well, at(46)));
}

#[test]
fn without_retries_the_first_failure_counts() {
    let restart = OnError::Restart { resource: 3 };
    let mut monitor = monitor(0, restart);
    assert_eq!(monitor.failures_max(), 1);
    assert_eq!(monitor.looked(at(6), Look::Ill).0, Told::Failed(restart));
}

#[test]
fn a_slow_look_is_told_once_until_one_is_quick_and_never_counts() {
    let mut monitor = monitor(0, OnError::Failover);
    let mut said = |millis| monitor.looked(at(6), Look::Well(Duration::from_millis(millis)));
    assert_eq!(said(8000), (Told::Nothing, Pace::Same), "80 % is not more");
    assert_eq!(said(8001), (Told::Nothing, Pace::Slow));
    assert_eq!(said(9999), (Told::Nothing, Pace::Same));
    assert_eq!(said(100), (Told::Nothing, Pace::Quick));
    assert_eq!(said(9000), (Told::Nothing, Pace::Slow));
    assert!(monitor.is_slow());
    let (told, pace) = monitor.looked(at(7), Look::Ill);
    assert_eq!((told, pace), (Told::Failed(OnError::Failover), Pace::Same));
}

#[test]
fn a_look_of_which_nothing_is_heard_has_failed() {
    let mut monitor = monitor(1, OnError::Warn);
    let due = monitor.deadline().expect("it looks");
    assert_eq!(due, at(1 + 7 + 10) + MONITOR_GRACE);
    assert_eq!(monitor.tick(at(16)), None);
    assert_eq!(monitor.tick(due), Some(Told::Fails(1)));
    assert_eq!(monitor.tick(due), None, "once in each time");
    let due = monitor.deadline().expect("it looks");
    assert_eq!(monitor.tick(due), Some(Told::Failed(OnError::Warn)));
}

#[test]
fn a_look_that_hung_and_ends_at_last_has_failed_once() {
    let mut monitor = monitor(1, OnError::Failover);
    let due = monitor.deadline().expect("it looks");
    assert_eq!(monitor.tick(due), Some(Told::Fails(1)));
    assert_eq!(monitor.looked(due, Look::Ill).0, Told::Nothing);
    assert_eq!(monitor.health(), Health::Failing(1));
    let failed = Told::Failed(OnError::Failover);
    assert_eq!(monitor.looked(due, Look::Ill).0, failed);
}

#[test]
fn nothing_is_looked_at_and_nothing_counts_while_the_group_is_not_online() {
    let mut monitor = monitor(1, OnError::Failover);
    assert_eq!(monitor.looked(at(6), Look::Ill).0, Told::Fails(1));
    monitor.end(at(7));
    assert_eq!((monitor.health(), monitor.since()), (Health::Idle, at(7)));
    assert_eq!((monitor.deadline(), monitor.tick(at(99))), (None, None));
    let late = monitor.looked(at(8), Look::Ill);
    assert_eq!(late, (Told::Nothing, Pace::Same));
    assert_eq!(monitor.health(), Health::Idle);
    // The failure of before is forgotten.
    monitor.begin(at(9));
    assert_eq!(monitor.looked(at(14), Look::Ill).0, Told::Fails(1));
}
