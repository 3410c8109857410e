//! Machines that stand still and disks that fail.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::disk::Op;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "paused-active",
        about: "the active machine stands still, the other takes over, the first goes on: it acknowledges nothing more",
        run: paused_active,
    },
    Scenario {
        name: "disk-error-active",
        about: "the active server's disk takes no writes: the writer goes on through the other node, which then serves with everything",
        run: disk_error_active,
    },
    Scenario {
        name: "read-error-heals",
        about: "the active server's disk cannot read in places: the other one does, under writes, and the places are good again",
        run: read_error_heals,
    },
    Scenario {
        name: "disk-error-standby",
        about: "the standby's disk fails: it drops out by itself, the writer goes on, and what it missed is copied",
        run: disk_error_standby,
    },
];

const BLOCKS: u64 = 1024;

fn writer(run: u32) -> Writer {
    Writer {
        fsync: Fsync::Every(16),
        seconds: 120,
        ..Writer::new(run, DEVICE, BLOCKS)
    }
}

fn paused_active(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = writer(1).start(one)?;
    pair.wait_acks(1, 200)?;
    one.pause()?;
    pair.wait_status(two, "/link/state", "down")?;
    // To the operator a machine that stands still looks off.
    pair.takeover(two)?;
    let before = pair.cluster.ledger(&[1]).count(Kind::Ack);
    let second = Writer {
        writes: 300,
        ..writer(2)
    };
    ensure!(
        second.start(two)?.wait()?.ok(),
        "the new active node does not serve"
    );
    one.resume()?;
    let output = running.wait()?;
    ensure!(!output.ok(), "the old active node went on: {output:?}");
    pair.wait_in_sync()?;
    let late = pair.cluster.ledger(&[1]).count(Kind::Ack) - before;
    // Up to its queue may have been answered before the pause and told after it.
    ensure!(late <= 8, "{late} writes were acknowledged after the pause");
    let verdict = check(
        &pair.cluster.ledger(&[1, 2]),
        two.disk("data")?,
        Durability::Acked,
    )?;
    verdict.require_ok().with_context(|| pair.logs())?;
    say(format!(
        "{before} writes before the pause, {late} told after it, 300 on the other node; nothing lost"
    ));
    pair.wait_status(one, "/role", "fenced")?;
    two.exec_ok("sync")?;
    pair.assert_equal_copies()
}

/// The disk of the node that serves takes no writes any more: the service goes on through the other node.
fn goes_on_through_peer(pair: &Pair, node: &Machine, run: u32) -> anyhow::Result<()> {
    let before = pair.cluster.ledger(&[run]).count(Kind::Ack);
    for op in [Op::Write, Op::Flush] {
        node.disk("data")?.fail(op, 0..u64::MAX / 2);
    }
    pair.wait_status(node, "/copy", "failed")?;
    pair.wait_acks(run, before + 100)?;
    pair.wait_status(node, "/role", "active")?;
    let status = pair.try_lockstep(node, "status")?;
    ensure!(
        status.code != 0 && status.stdout.contains("LS3007"),
        "{status:?}"
    );
    Ok(())
}

fn disk_error_active(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = Writer {
        seconds: 30,
        ..writer(1)
    }
    .start(one)?;
    pair.wait_acks(1, 200)?;
    goes_on_through_peer(&pair, one, 1)?;
    let output = running.wait()?;
    ensure!(
        output.ok(),
        "the writer saw an error: {output:?}\n{}",
        pair.logs()
    );
    // What was written through the other node reads back.
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    pair.lockstep(one, "deactivate")?;
    pair.lockstep(two, "activate")?;
    check(
        &pair.cluster.ledger(&[1]),
        two.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()
    .with_context(|| pair.logs())?;
    say(
        "the writer went on through the other node, which now serves with every acknowledged write",
    );
    // The disk is replaced: its copy is filled.
    one.disk("data")?.heal();
    pair.lockstep(one, "stop")?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    // The same on the other side; this time the connection is lost too.
    let running = writer(2).start(two)?;
    pair.wait_acks(2, 200)?;
    goes_on_through_peer(&pair, two, 2)?;
    one.power_cut(57)?;
    let output = running.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    ensure!(pair.logs().contains("LS3007"), "{}", pair.logs());
    Ok(())
}

/// What cannot be read, in bytes: a block, some in a row across requests, the volume's end.
fn lost_places(volume_bytes: u64) -> [Range<u64>; 3] {
    [
        16 << 10..20 << 10,
        (1 << 20) - (64 << 10)..(1 << 20) + (64 << 10),
        volume_bytes - 4096..volume_bytes,
    ]
}

const READ_ALL: &str = "dd if=/dev/lockstep/data of=/dev/null bs=128k iflag=direct";

fn healed(pair: &Pair) -> anyhow::Result<u64> {
    let status = pair.status(pair.one())?;
    let healed = status.pointer("/counters/healed_reads");
    healed
        .and_then(serde_json::Value::as_u64)
        .with_context(|| format!("{status:#}"))
}

fn read_error_heals(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = Writer {
        seconds: 40,
        ..writer(1)
    }
    .start(one)?;
    pair.wait_acks(1, 200)?;
    let places = lost_places(pair.volume_bytes()?);
    for place in &places {
        one.disk("data")?.lose_reads(place.clone());
    }
    // The application reads everything while it writes: it sees no error.
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    let first = healed(&pair)?;
    ensure!(first > 0, "nothing was healed: {}", pair.logs());
    ensure!(pair.logs().contains("LS3005"), "{}", pair.logs());
    // What was healed is good: the other disk reads nothing any more, and is not asked.
    two.disk("data")?.fail(Op::Read, 0..u64::MAX / 2);
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    ensure!(
        healed(&pair)? == first,
        "what was healed could not be read again"
    );
    say(format!(
        "{first} reads were healed under a writer, and are good"
    ));
    // Both cannot: the application gets an error, and nothing else happens.
    one.disk("data")?.lose_reads(places[0].clone());
    ensure!(
        !one.exec(READ_ALL, Duration::from_secs(60))?.ok(),
        "a read that nobody can do succeeded"
    );
    ensure!(pair.logs().contains("LS3006"), "{}", pair.logs());
    pair.wait_status(one, "/role", "active")?;
    two.disk("data")?.heal();
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    pair.wait_in_sync()?;
    check(
        &pair.cluster.ledger(&[1]),
        one.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()?;
    one.exec_ok("sync")?;
    pair.assert_equal_copies()
}

fn disk_error_standby(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = Writer {
        seconds: 30,
        ..writer(1)
    }
    .start(one)?;
    pair.wait_acks(1, 200)?;
    two.disk("data")?.fail(Op::Write, 0..u64::MAX / 2);
    pair.wait_status(two, "/copy", "failed")?;
    // No operator: the standby drops out by itself, and the writer goes on.
    pair.wait_status(one, "/peer_copy", "failed")?;
    let acked = pair.cluster.ledger(&[1]).count(Kind::Ack);
    pair.wait_acks(1, acked + 50)?;
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    check(
        &pair.cluster.ledger(&[1]),
        one.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()?;
    // The disk is good again: its copy is brought up to date.
    two.disk("data")?.heal();
    pair.lockstep(two, "stop")?;
    pair.start(two)?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}
