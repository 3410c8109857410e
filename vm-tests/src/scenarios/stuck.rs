//! Disks that do not answer any more.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::disk::Op;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, VOLUME_BYTES, machines};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "stuck-disk",
    about: "a disk does not answer: the standby's drops out after its limit and the writer goes on; the active one goes on \
            through the peer, and its device can end",
    run: stuck_disk,
}];

const BLOCKS: u64 = 1024;
/// `disk_timeout_ms` here.
pub(super) const LIMIT: Duration = Duration::from_secs(4);
/// For everything else: the second look (an eighth of the limit), superblocks, a flush, slow machines.
pub(super) const BOUND: Duration = Duration::from_secs(6);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// A process of which the kernel still has I/O.
const DAEMON: &str = "pgrep -f '[u]blk-mirror run'";

fn writer(run: u32) -> Writer {
    Writer {
        fsync: Fsync::Every(16),
        seconds: 120,
        ..Writer::new(run, DEVICE, BLOCKS)
    }
}

/// A daemon ends although the kernel still has its I/O, or says that it cannot; the next one is refused.
fn stop_and_start(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    let stopped = Instant::now();
    let output = node.exec("lockstep volume stop data", COMMAND_LIMIT * 2)?;
    let left = node.exec(
        "for p in $(pgrep -x ublk-mirror); do \
         grep -E 'Name|State' /proc/$p/status; cat /proc/$p/task/*/stat | cut -c1-40; done",
        COMMAND_LIMIT,
    )?;
    say(format!(
        "stop with a stuck disk: exit {} after {:.1} s; processes left: {:?}; {}",
        output.code,
        stopped.elapsed().as_secs_f32(),
        left.stdout.trim(),
        output.stderr.trim()
    ));
    let again = pair.try_lockstep(node, "start")?;
    ensure!(
        !again.ok(),
        "a second daemon started over a stuck disk: {again:?}"
    );
    say(format!("start meanwhile: {}", again.stderr.trim()));
    Ok(())
}

/// Nothing is answered any more.
pub(super) fn stick(node: &Machine) -> anyhow::Result<()> {
    for op in [Op::Read, Op::Write, Op::Flush] {
        node.disk("data")?.stick(op);
    }
    Ok(())
}

/// A volume that is served by the first node, with [`LIMIT`] on both.
pub(super) fn pair_with_limit(context: &Context, volume_bytes: u64) -> anyhow::Result<Pair> {
    let pair = Pair::create(machines(context, volume_bytes)?)?;
    pair.wait_in_sync()?;
    let millis = LIMIT.as_millis();
    for node in [pair.one(), pair.two()] {
        pair.lockstep(node, "stop")?;
        node.exec_ok(&format!(
            "printf '[tuning]\\ndisk_timeout_ms = {millis}\\n' >>/etc/lockstep/volumes/data.toml"
        ))?;
        pair.start(node)?;
        // While both come together a stop is refused.
        pair.wait_in_sync()?;
    }
    pair.lockstep(pair.one(), "activate")?;
    Ok(pair)
}

fn stuck_disk(context: &Context) -> anyhow::Result<()> {
    let pair = pair_with_limit(context, VOLUME_BYTES)?;
    standby(&pair)?;
    active(&pair)
}

/// The writer stands still for the limit and a bound, and goes on without the standby.
fn standby(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = Writer {
        seconds: 40,
        ..writer(1)
    }
    .start(one)?;
    pair.wait_acks(1, 200)?;
    stick(two)?;
    let stuck = Instant::now();
    let before = pair.cluster.ledger(&[1]).count(Kind::Ack);
    // Its queue may have been answered just before.
    let acks = || pair.cluster.ledger(&[1]).count(Kind::Ack);
    wait_until(LIMIT * 10, "the writer to go on", || {
        Ok(acks() > before + 50)
    })
    .with_context(|| pair.logs())?;
    let standstill = stuck.elapsed();
    ensure!(
        standstill >= LIMIT && standstill <= LIMIT + BOUND,
        "the writer stood still for {standstill:?}, the limit is {LIMIT:?}"
    );
    pair.wait_status(one, "/peer_copy", "failed")?;
    let said = pair.logs();
    ensure!(said.contains("LS3008"), "no word of the stuck disk: {said}");
    say(format!(
        "the standby's disk stuck: the writer went on after {:.1} s, limit {} s",
        standstill.as_secs_f32(),
        LIMIT.as_secs()
    ));
    stop_and_start(pair, two)?;
    two.disk("data")?.heal();
    gone(pair, two)?;
    pair.start(two)?;
    pair.wait_in_sync()?;
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    one.exec_ok("sync")?;
    check(
        &pair.cluster.ledger(&[1]),
        one.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()?;
    pair.assert_equal_copies()
}

/// The volume goes on through the peer after the limit and a bound, and its device can end although the disk does
/// not answer.
fn active(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = Writer {
        seconds: 40,
        ..writer(2)
    }
    .start(one)?;
    pair.wait_acks(2, 200)?;
    // Of a flush a thread of the kernel waits; of a read or a write nobody does.
    one.disk("data")?.stick(Op::Flush);
    let stuck = Instant::now();
    pair.wait_status(one, "/copy", "failed")?;
    let acks = || pair.cluster.ledger(&[2]).count(Kind::Ack);
    let before = acks();
    wait_until(LIMIT * 10, "the writer to go on", || {
        Ok(acks() > before + 50)
    })
    .with_context(|| pair.logs())?;
    let standstill = stuck.elapsed();
    ensure!(
        standstill >= LIMIT && standstill <= LIMIT + BOUND,
        "the writer stood still for {standstill:?}, the limit is {LIMIT:?}"
    );
    let said = pair.logs();
    ensure!(
        said.contains("LS3008") && said.contains("LS3007"),
        "no word of the stuck disk: {said}"
    );
    say(format!(
        "the active node's disk stuck: the writer went on through the peer after {:.1} s",
        standstill.as_secs_f32()
    ));
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    // The device here goes away although the disk does not answer.
    let end = Instant::now();
    pair.lockstep(one, "deactivate")?;
    let ended = end.elapsed();
    pair.lockstep(two, "activate")?;
    check(
        &pair.cluster.ledger(&[2]),
        two.disk("data")?,
        Durability::Acked,
    )?
    .require_ok()
    .with_context(|| pair.logs())?;
    say(format!(
        "the device here went away in {:.1} s; served on the other node with every acknowledged write",
        ended.as_secs_f32()
    ));
    stop_and_start(pair, one)?;
    one.disk("data")?.heal();
    gone(pair, one)?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    let more = Writer {
        writes: 100,
        ..writer(3)
    };
    ensure!(more.start(two)?.wait()?.ok());
    two.exec_ok("sync")?;
    pair.assert_equal_copies()
}

/// Waits until no daemon is left, which ends with its last I/O.
pub(super) fn gone(pair: &Pair, node: &Machine) -> anyhow::Result<()> {
    wait_until(COMMAND_LIMIT, "the daemon to be gone", || {
        Ok(!node.exec(DAEMON, COMMAND_LIMIT)?.ok())
    })
    .with_context(|| pair.logs())
    .map(drop)
}
