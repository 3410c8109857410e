use super::*;

fn sample(job: &'static str, system: System, repetition: usize, figure: f64) -> Sample {
    Sample {
        round_trip_ms: 0,
        repetition,
        job,
        system: system.title(),
        figure,
        fio: None,
        cost: Cost {
            cpu_us: [figure / 10.0, 7.0],
            switches: [2.0, 3.0],
            ..Cost::default()
        },
        host_load: 1.0,
    }
}

fn set_up(system: System, failed: Option<&str>) -> SetUp {
    SetUp {
        system: system.title(),
        version: "1.2".to_owned(),
        copied_s: 3.0,
        filled_s: 2.0,
        failed: failed.map(str::to_owned),
    }
}

fn report() -> Report {
    let mut report = Report::new(Conditions::default());
    report.systems = vec![
        set_up(System::Raw, None),
        set_up(System::Drbd, None),
        set_up(System::MdNbd, Some("no module nbd")),
        set_up(System::Lockstep, None),
    ];
    for (repetition, factor) in [(1, 1.0), (2, 4.0), (3, 2.0)] {
        report.samples.extend([
            sample("write-4k-qd1", System::Raw, repetition, 1000.0 * factor),
            sample("write-4k-qd1", System::Drbd, repetition, 250.0 * factor),
            sample("write-4k-qd1", System::Lockstep, repetition, 200.0 * factor),
            sample("read-1m-qd8", System::Raw, repetition, 4.0 * factor),
        ]);
    }
    report
}

fn row<'a>(text: &'a str, begin: &str, number: usize) -> &'a str {
    let mut rows = text.lines().filter(|line| line.starts_with(begin));
    rows.nth(number).unwrap_or_default()
}

#[test]
fn medians_ratios_and_costs_are_in_the_tables() {
    let text = report().markdown();
    let job = "| write-4k-qd1 |";
    assert_eq!(
        row(&text, job, 0),
        "| write-4k-qd1 | IOPS | 2000 (1000 to 4000) | 500 (250 to 1000) | missed | 400 (200 to 800) |"
    );
    assert_eq!(
        row(&text, "| job | Lockstep / best peer", 0),
        "| job | Lockstep / best peer | Lockstep / raw | Lockstep / DRBD | Lockstep / md+NBD | DRBD / raw | md+NBD / raw |"
    );
    assert_eq!(
        row(&text, job, 1),
        "| write-4k-qd1 | 0.80 (not all peers) | 0.20 | 0.80 | missed | 0.25 | missed |"
    );
    assert_eq!(
        row(&text, job, 2),
        "| write-4k-qd1 | 200 + 7.00 | 50.0 + 7.00 | missed | 40.0 + 7.00 |"
    );
}

#[test]
fn what_is_missed_is_shown_and_makes_the_run_fail() {
    let mut report = report();
    assert!(!report.whole());
    let text = report.markdown();
    assert!(text.contains("md+NBD: FAILED to be set up: no module nbd"));
    assert!(row(&text, "| read-1m-qd8 |", 0).ends_with("| missed | missed | missed |"));
    report.systems.retain(|system| system.failed.is_none());
    assert!(report.whole());
    assert!(!Report::default().whole());
    report.drop_samples(0, "DRBD", "it was alone");
    assert!(!report.whole());
    let text = report.markdown();
    assert_eq!(
        row(&text, "| write-4k-qd1 |", 1),
        "| write-4k-qd1 | missed (not all peers) | 0.20 | missed | missed |"
    );
    assert!(text.contains("* write-4k-qd1 on DRBD, +0 ms, round 3: it was alone"));
}

#[test]
fn a_median_of_an_even_number_lies_between() {
    let spread = Spread::of(vec![4.0, 1.0, 2.0, 8.0]).unwrap();
    assert_eq!((spread.median, spread.least, spread.most), (3.0, 1.0, 8.0));
    assert_eq!(Spread::of(Vec::new()), None);
}

#[test]
fn jobs_keep_their_order_and_each_round_trip_its_own() {
    let mut report = report();
    let mut later = sample(PGBENCH, System::Raw, 1, 50.0);
    later.round_trip_ms = 10;
    report.samples.insert(0, later);
    let jobs = report.jobs();
    assert_eq!(jobs[&0], ["write-4k-qd1", "read-1m-qd8"]);
    assert_eq!(jobs[&10], [PGBENCH]);
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("\"job\":\"pgbench\"")
    );
}
