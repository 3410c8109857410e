//! Machines that stand still and disks that fail.

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::disk::Op;
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
        about: "the active server's disk fails: I/O fails, nothing more is acknowledged, the other serves with everything",
        run: disk_error_active,
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

fn disk_error_active(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = writer(1).start(one)?;
    pair.wait_acks(1, 200)?;
    one.disk("data")?.fail_everything();
    let output = running.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    pair.wait_status(one, "/copy", "failed")?;
    let status = pair.try_lockstep(one, "status")?;
    ensure!(
        status.code != 0 && status.stdout.contains("LS3001"),
        "{status:?}"
    );
    pair.wait_status(two, "/link/state", "refused")?;
    pair.takeover(two)?;
    let verdict = check(
        &pair.cluster.ledger(&[1]),
        two.disk("data")?,
        Durability::Acked,
    )?;
    verdict.require_ok().with_context(|| pair.logs())?;
    say("the other node serves with every acknowledged write");
    let second = Writer {
        writes: 100,
        ..writer(2)
    };
    ensure!(second.start(two)?.wait()?.ok());
    Ok(())
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
    pair.wait_status(one, "/peer_copy", "outdated")?;
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
