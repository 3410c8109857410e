//! A judge that cannot fail proves nothing: here it must.

use std::sync::Arc;
use std::time::Instant;

use vm_guest::pattern::fill_block;
use vm_guest::record::Record;

use super::*;
use crate::ledger;
use crate::write_log::{Entry, Order, Replay};

const BLOCK: usize = 4096;
const RUN: u32 = 1;

/// A run of four writes, each on both data disks: the second is flushed, the last two are only acknowledged.
fn recording() -> Recording {
    let order = Order::default();
    let mut recording = Recording {
        disks: Default::default(),
        begin: 0,
        ledger: Ledger::default(),
        boots: ["one".into(), "two".into()],
        key: Vec::new(),
        alone: Vec::new(),
    };
    for log in recording.disks.iter_mut().flatten() {
        log.base = vec![0; 4 * BLOCK];
    }
    promise(&mut recording, &order, Kind::Start, 4, BLOCK as u64);
    for block in 0..4 {
        let mut data = vec![0; BLOCK];
        fill_block(RUN, block, block + 1, &mut data);
        let data = Arc::new(data);
        promise(&mut recording, &order, Kind::Issue, block, block + 1);
        for node in [0, 1] {
            let offset = block * BLOCK as u64;
            let data = Arc::clone(&data);
            note(&mut recording, &order, node, Change::Write { offset, data });
        }
        promise(&mut recording, &order, Kind::Ack, block, block + 1);
        if block == 1 {
            promise(&mut recording, &order, Kind::FlushIssue, 0, 1);
            for node in [0, 1] {
                note(&mut recording, &order, node, Change::Flush);
            }
            promise(&mut recording, &order, Kind::FlushAck, 0, 1);
        }
    }
    recording
}

fn note(recording: &mut Recording, order: &Order, node: usize, change: Change) {
    let order = order.next();
    recording.disks[node][0]
        .entries
        .push(Entry { order, change });
}

fn promise(recording: &mut Recording, order: &Order, kind: Kind, block: u64, sequence: u64) {
    recording.ledger.entries.push(ledger::Entry {
        at: Instant::now(),
        order: order.next(),
        machine: 1,
        record: Record {
            run: RUN,
            kind,
            block,
            sequence,
        },
    });
}

fn cut(victim: Victim) -> Cut {
    Cut {
        number: 0,
        order: u64::MAX,
        moment: Moment::Anywhere,
        victim,
        odds: Odds::ALL_LOST,
        seed: 1,
    }
}

/// What the judge says of `node`'s copy alone.
fn verdict(recording: &Recording, cut: &Cut, node: usize) -> Verdict {
    let path = std::env::temp_dir().join(format!(
        "lockstep-judge-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut replay = Replay::new(&recording.disks[node][0]);
    replay.advance(cut.order);
    let power = cut.power(node, Part::Data);
    replay.image(cut.order, power, &file).unwrap();
    recording.judge(cut, &file).unwrap()
}

#[test]
fn flushed_writes_survive_the_power_of_both() {
    let recording = recording();
    let verdict = verdict(&recording, &cut(Victim::Both), 0);
    assert!(
        verdict.require_ok().is_ok() && verdict.required == 2,
        "{verdict}"
    );
}

#[test]
fn a_lost_flushed_write_is_found() {
    let mut recording = recording();
    recording.disks[0][0] = recording.disks[0][0].without(&bytes_of(1..2));
    let verdict = verdict(&recording, &cut(Victim::Both), 0);
    assert_eq!(verdict.lost.count, 1, "{verdict}");
    assert!(verdict.require_ok().is_err());
}

fn bytes_of(blocks: std::ops::Range<u64>) -> std::ops::Range<u64> {
    blocks.start * BLOCK as u64..blocks.end * BLOCK as u64
}

#[test]
fn every_acknowledged_write_is_asked_of_the_one_that_stays() {
    let mut recording = recording();
    let one_cut = cut(Victim::One(0));
    let stays = verdict(&recording, &one_cut, 1);
    assert!(stays.require_ok().is_ok() && stays.required == 4, "{stays}");
    let gone = verdict(&recording, &one_cut, 0);
    assert_eq!(gone.lost.count, 2, "{gone}");
    recording.disks[1][0] = recording.disks[1][0].without(&bytes_of(3..4));
    let verdict = verdict(&recording, &one_cut, 1);
    assert_eq!(verdict.lost.count, 1, "{verdict}");
}

#[test]
fn of_the_only_copy_that_counts_flushed_writes_are_asked() {
    let mut recording = recording();
    recording.alone.push(Alone {
        orders: 0..=u64::MAX,
        node: 0,
    });
    assert_eq!(
        recording.durability(&cut(Victim::One(0))),
        Durability::Flushed
    );
    assert_eq!(
        recording.durability(&cut(Victim::One(1))),
        Durability::Acked
    );
}

#[test]
fn a_promise_from_after_the_cut_is_not_asked_for() {
    let recording = recording();
    let all = &recording.ledger.entries;
    let flushed = all
        .iter()
        .find(|entry| entry.record.kind == Kind::FlushAck)
        .unwrap();
    let before = Cut {
        order: flushed.order - 1,
        ..cut(Victim::Both)
    };
    assert_eq!(verdict(&recording, &before, 0).required, 0);
}

#[test]
fn a_plan_is_the_same_for_the_same_seed_and_rises() {
    let recording = recording();
    let orders = |seed| -> Vec<(u64, Victim)> {
        let plan = recording.plan(50, seed);
        plan.iter().map(|cut| (cut.order, cut.victim)).collect()
    };
    assert_eq!(orders(7), orders(7));
    assert_ne!(orders(7), orders(8));
    assert!(orders(7).is_sorted_by_key(|(order, _)| *order));
}
