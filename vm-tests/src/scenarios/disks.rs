//! Disks that fail under a database, one after the other; and both at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::stuck;
use crate::checker::{Durability, check};
use crate::database::Database;
use crate::disk::Op;
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "both-disks-fail",
    about: "both disks take no writes: the volume says so and fails its I/O, and what was acknowledged can be had again",
    run: both_disks_fail,
}];

pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "disk-faults-database",
        about: "ext4 and a database: writes, flushes and reads fail on either disk; no error is seen, no commit is lost, the \
                copy comes back",
        run: disk_faults_database,
    },
    Scenario {
        name: "disk-stuck-database",
        about: "ext4 and a database: either disk does not answer: a pause, no error, no commit lost, the copy comes back",
        run: disk_stuck_database,
    },
];

/// Small: it is copied as a whole again and again.
const VOLUME_BYTES: u64 = 48 << 20;
const EVERYWHERE: std::ops::Range<u64> = 0..u64::MAX / 2;
/// A change of the view with slow machines; what is retried within the kernel.
const SHORT: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What the administrator's command says of a node: its exit code, and these codes.
fn tells(pair: &Pair, node: &Machine, exit: i32, codes: &[&str]) -> anyhow::Result<()> {
    let status = pair.try_lockstep(node, "status")?;
    let missing = codes.iter().find(|code| !status.stdout.contains(**code));
    ensure!(
        status.code == exit && missing.is_none(),
        "the status of {} should end with {exit} and tell of {codes:?}: {status:?}\n{}",
        node.name(),
        pair.logs()
    );
    Ok(())
}

/// A node's daemon said this at some time.
fn said(node: &Machine, code: &str) -> anyhow::Result<bool> {
    let found = node.exec(
        &format!("grep -q {code} /var/log/lockstep/data.log"),
        COMMAND_LIMIT,
    )?;
    Ok(found.ok())
}

/// The disk works again and its copy is filled, while the database works on the other node (or here no more).
fn mended(pair: &Pair, node: &Machine, database: &mut Database) -> anyhow::Result<()> {
    let disk = node.disk("data")?;
    let start = Instant::now();
    // With I/O of the kernel left it ends late; that is not judged here.
    node.exec("lockstep volume stop data", COMMAND_LIMIT * 2)?;
    disk.heal();
    stuck::gone(pair, node)?;
    pair.start(node)?;
    pair.wait_in_sync()?;
    database.goes_on()?;
    database.assert_equal_copies()?;
    say(format!(
        "{}'s copy is back, equal in every byte, {:.1} s after its disk was mended",
        node.name(),
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// The commits went on within a limit.
fn paused(
    what: &str,
    from: Instant,
    database: &mut Database,
    limit: Duration,
) -> anyhow::Result<()> {
    database.goes_on()?;
    let pause = from.elapsed();
    ensure!(pause <= limit, "{what}: no commit for {pause:?}");
    say(format!(
        "{what}: commits go on after {:.1} s at most",
        pause.as_secs_f32()
    ));
    Ok(())
}

/// The standby's disk fails: it drops out by itself.
fn standby_fails(pair: &Pair, database: &mut Database, op: Op) -> anyhow::Result<()> {
    let active = database.node();
    let standby = pair.other(active);
    let what = format!("{op:?} fails on the standby");
    let from = Instant::now();
    standby.disk("data")?.fail(op, EVERYWHERE);
    // What was on its way to the host does not count.
    pair.wait_status(standby, "/copy", "failed")?;
    paused(&what, from, database, SHORT)?;
    pair.wait_status(active, "/peer_copy", "failed")?;
    tells(pair, active, 1, &["LS3002"])?;
    tells(pair, standby, 2, &["LS3001"])?;
    database.goes_on()?;
    mended(pair, standby, database)
}

/// The active node's disk fails: it serves through the other one, which then takes over in good order.
fn active_fails<'a>(
    pair: &'a Pair,
    mut database: Database<'a>,
    op: Op,
) -> anyhow::Result<Database<'a>> {
    let active = database.node();
    let what = format!("{op:?} fails on the active node");
    let from = Instant::now();
    active.disk("data")?.fail(op, EVERYWHERE);
    pair.wait_status(active, "/copy", "failed")?;
    paused(&what, from, &mut database, SHORT)?;
    leave(pair, database)
}

/// Served through the peer: the service moves there, and the copy here is filled anew.
fn leave<'a>(pair: &'a Pair, mut database: Database<'a>) -> anyhow::Result<Database<'a>> {
    let active = database.node();
    tells(pair, active, 1, &["LS3001", "LS3007"])?;
    // Everything is read through the other node.
    database.read_all()?;
    database.goes_on()?;
    let mut database = database.move_over()?;
    mended(pair, active, &mut database)?;
    Ok(database)
}

fn healed(pair: &Pair, node: &Machine) -> anyhow::Result<u64> {
    super::measure::figure(pair, node, "/counters/healed_reads")
}

/// Neither disk counts as failed because it cannot read.
fn reads_fail(pair: &Pair, database: &mut Database) -> anyhow::Result<()> {
    let active = database.node();
    let standby = pair.other(active);
    standby.disk("data")?.fail(Op::Read, EVERYWHERE);
    database.read_all()?;
    database.goes_on()?;
    standby.disk("data")?.heal();
    ensure!(healed(pair, active)? == 0, "nothing had to be healed");
    // Every place that is written again can be read again.
    active.disk("data")?.lose_reads(0..pair.volume_bytes()?);
    database.read_all()?;
    let first = healed(pair, active)?;
    ensure!(
        first > 0 && said(active, "LS3005")?,
        "nothing was healed: {}",
        pair.logs()
    );
    database.read_all()?;
    database.goes_on()?;
    // None can be.
    active.disk("data")?.fail(Op::Read, EVERYWHERE);
    database.read_all()?;
    database.goes_on()?;
    let second = healed(pair, active)?;
    ensure!(second > first, "nobody read: {}", pair.logs());
    active.disk("data")?.heal();
    pair.wait_in_sync()?;
    tells(pair, active, 0, &[])?;
    database.assert_equal_copies()?;
    say(format!(
        "the active node's disk cannot read: {second} reads were done by the other node, the database saw nothing"
    ));
    Ok(())
}

fn disk_faults_database(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot_sized(context, VOLUME_BYTES)?;
    let mut database = Database::begin(&pair, pair.one())?;
    reads_fail(&pair, &mut database)?;
    standby_fails(&pair, &mut database, Op::Write)?;
    standby_fails(&pair, &mut database, Op::Flush)?;
    database = active_fails(&pair, database, Op::Write)?;
    database = active_fails(&pair, database, Op::Flush)?;
    told(database.finish()?);
    Ok(())
}

fn told(committed: u64) {
    say(format!(
        "{committed} rows: every commit that was confirmed is on both copies, integrity_check ok"
    ));
}

fn disk_stuck_database(context: &Context) -> anyhow::Result<()> {
    let pair = stuck::pair_with_limit(context, VOLUME_BYTES)?;
    let mut database = Database::begin(&pair, pair.one())?;
    let limit = stuck::LIMIT + stuck::BOUND;
    let (active, standby) = (pair.one(), pair.two());
    let from = Instant::now();
    stuck::stick(standby)?;
    pair.wait_status(standby, "/copy", "failed")?;
    paused("the standby's disk is stuck", from, &mut database, limit)?;
    pair.wait_status(active, "/peer_copy", "failed")?;
    tells(&pair, active, 1, &["LS3002"])?;
    tells(&pair, standby, 2, &["LS3001"])?;
    ensure!(said(standby, "LS3008")?, "{}", pair.logs());
    mended(&pair, standby, &mut database)?;
    let from = Instant::now();
    stuck::stick(active)?;
    pair.wait_status(active, "/copy", "failed")?;
    paused(
        "the active node's disk is stuck",
        from,
        &mut database,
        limit,
    )?;
    ensure!(said(active, "LS3008")?, "{}", pair.logs());
    database = leave(&pair, database)?;
    told(database.finish()?);
    Ok(())
}

const LEDGER_BLOCKS: u64 = 1024;
const READ_ALL: &str = "dd if=/dev/lockstep/data of=/dev/null bs=128k iflag=direct";

fn writer(run: u32) -> Writer {
    Writer {
        fsync: Fsync::Every(16),
        seconds: 120,
        ..Writer::new(run, DEVICE, LEDGER_BLOCKS)
    }
}

/// Neither writes nor flushes; what is on it can be read.
fn wears_out(node: &Machine) -> anyhow::Result<()> {
    for op in [Op::Write, Op::Flush] {
        node.disk("data")?.fail(op, EVERYWHERE);
    }
    Ok(())
}

fn both_disks_fail(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot_sized(context, VOLUME_BYTES)?;
    standby_then_active(&pair)?;
    active_then_standby(&pair)
}

/// The last good copy is the active node's, and its disk fails.
fn standby_then_active(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = writer(1).start(one)?;
    pair.wait_acks(1, 200)?;
    wears_out(two)?;
    pair.wait_status(one, "/peer_copy", "failed")?;
    let alone = pair.cluster.ledger(&[1]).count(Kind::Ack);
    pair.wait_acks(1, alone + 50)?;
    wears_out(one)?;
    fails(pair, running, "LS3001")?;
    // Neither is served as if nothing had been.
    pair.refused(two, "activate", "LS1013")?;
    let acked = pair.cluster.ledger(&[1]);
    check(&acked, one.disk("data")?, Durability::Acked)?.require_ok()?;
    // The disks work again (a cable): the last good copy is taken by the operator's word, and has everything.
    pair.lockstep(one, "deactivate")?;
    for node in [two, one] {
        pair.lockstep(node, "stop")?;
        node.disk("data")?.heal();
    }
    pair.start(one)?;
    pair.refused(one, "activate", "LS1013")?;
    pair.lockstep(one, "force --confirm data")?;
    pair.lockstep(one, "activate")?;
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    check(&acked, &one.device(DEVICE), Durability::Acked)?.require_ok()?;
    say(format!(
        "standby first: {} acknowledged writes are there after the operator's word",
        acked.count(Kind::Ack)
    ));
    // What was forced is a history of its own: the other copy is given up, and filled.
    pair.start(two)?;
    pair.wait_status(two, "/link/state", "refused")?;
    wait_until(
        COMMAND_LIMIT,
        "the word of the operator to be taken",
        || {
            // Not while both try to come together again, which they do all the time.
            let word = pair.try_lockstep(two, "resolve --discard node2 --confirm data")?;
            ensure!(word.ok() || word.stderr.contains("LS1010"), "{word:?}");
            Ok(word.ok())
        },
    )?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}

/// The last good copy is the other node's, and its disk fails.
fn active_then_standby(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = writer(2).start(one)?;
    pair.wait_acks(2, 200)?;
    wears_out(one)?;
    pair.wait_status(one, "/copy", "failed")?;
    let through = pair.cluster.ledger(&[2]).count(Kind::Ack);
    pair.wait_acks(2, through + 50)?;
    tells(pair, one, 1, &["LS3001", "LS3007"])?;
    wears_out(two)?;
    fails(pair, running, "LS3007")?;
    let acked = pair.cluster.ledger(&[1, 2]);
    check(&acked, two.disk("data")?, Durability::Acked)?.require_ok()?;
    say(format!(
        "active node first: {} acknowledged writes are on the other disk",
        acked.count(Kind::Ack)
    ));
    Ok(())
}

/// The writer sees an error, the volume says so, and nothing is acknowledged or read any more.
fn fails(pair: &Pair, running: crate::machine::Running, code: &str) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let output = running.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    pair.wait_status(two, "/copy", "failed")?;
    tells(pair, one, 2, &["LS3001", code])?;
    tells(pair, two, 2, &["LS3001"])?;
    let read = one.exec(READ_ALL, COMMAND_LIMIT)?;
    ensure!(!read.ok(), "a stopped volume was read: {read:?}");
    Ok(())
}
