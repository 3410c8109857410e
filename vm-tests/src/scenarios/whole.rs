//! A disk that dies as a whole under the volume: the data, and the metadata that lie beside them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "whole-disk-fails",
    about: "data and metadata of the active server fail together: the writer sees no error, the service moves, and neither \
            the next daemon nor the next boot believes what that disk says",
    run: whole_disk_fails,
}];

/// Small: it is copied as a whole twice.
const VOLUME_BYTES: u64 = 32 << 20;
const BLOCKS: u64 = 1024;
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const READ_ALL: &str = "dd if=/dev/lockstep/data of=/dev/null bs=128k iflag=direct";

fn writer(run: u32) -> Writer {
    Writer {
        fsync: Fsync::Every(16),
        seconds: 40,
        ..Writer::new(run, DEVICE, BLOCKS)
    }
}

fn dies(node: &Machine) -> anyhow::Result<()> {
    for disk in ["data", "meta"] {
        node.disk(disk)?.fail_everything();
    }
    Ok(())
}

fn lives(node: &Machine) -> anyhow::Result<()> {
    for disk in ["data", "meta"] {
        node.disk(disk)?.heal();
    }
    Ok(())
}

/// The disk dies under the writer, which goes on.
fn goes_on(pair: &Pair, node: &Machine, run: u32) -> anyhow::Result<()> {
    let before = pair.cluster.ledger(&[run]).count(Kind::Ack);
    dies(node)?;
    pair.wait_status(node, "/copy", "failed")?;
    pair.wait_acks(run, before + 100)?;
    pair.wait_status(node, "/role", "active")?;
    let status = pair.try_lockstep(node, "status")?;
    let told = ["LS3007", "LS3047"];
    ensure!(
        status.code != 0 && told.iter().all(|code| status.stdout.contains(code)),
        "{status:?}\n{}",
        pair.logs()
    );
    Ok(())
}

fn whole_disk_fails(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot_sized(context, VOLUME_BYTES)?;
    next_daemon(&pair)?;
    next_boot(&pair)?;
    pair.assert_equal_copies()
}

/// The service moves in good order; the disk lives again, and the next run of the daemon knows better than it.
fn next_daemon(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = writer(1).start(one)?;
    pair.wait_acks(1, 200)?;
    goes_on(pair, one, 1)?;
    let output = running.wait()?;
    ensure!(
        output.ok(),
        "the writer saw an error: {output:?}\n{}",
        pair.logs()
    );
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    pair.lockstep(one, "deactivate")?;
    pair.lockstep(two, "activate")?;
    let ledger = pair.cluster.ledger(&[1]);
    check(&ledger, two.disk("data")?, Durability::Acked)?
        .require_ok()
        .with_context(|| pair.logs())?;
    say(format!(
        "{} writes, none failed, longest stall {:.1} s; the other node serves with all of them",
        ledger.count(Kind::Ack),
        ledger.longest_stall().as_secs_f32()
    ));
    pair.lockstep(one, "stop")?;
    let dead = pair.try_lockstep(one, "start")?;
    ensure!(!dead.ok(), "a daemon started on a dead disk: {dead:?}");
    lives(one)?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    ensure!(pair.logs().contains("LS3048"), "{}", pair.logs());
    Ok(())
}

/// The machine loses its power; its disk says after the boot that it serves and that both copies count.
fn next_boot(pair: &Pair) -> anyhow::Result<()> {
    let (one, two) = (pair.one(), pair.two());
    let running = writer(2).start(two)?;
    pair.wait_acks(2, 200)?;
    goes_on(pair, two, 2)?;
    two.power_cut(31)?;
    drop(running);
    pair.wait_status(one, "/link/state", "down")?;
    pair.lockstep(one, "activate")?;
    // What the first writer left is there as well.
    let ledger = pair.cluster.ledger(&[1, 2]);
    check(&ledger, one.disk("data")?, Durability::Acked)?
        .require_ok()
        .with_context(|| pair.logs())?;
    lives(two)?;
    // The other node cannot be reached: nothing is served by itself.
    pair.lockstep(one, "deactivate")?;
    pair.lockstep(one, "stop")?;
    pair.bring_back(two)?;
    let refused = two.exec("lockstep volume activate data", COMMAND_LIMIT)?;
    ensure!(!refused.ok(), "an old view was served: {refused:?}");
    pair.start(one)?;
    pair.wait_in_sync()?;
    pair.lockstep(one, "activate")?;
    one.exec_ok(READ_ALL).with_context(|| pair.logs())?;
    say(format!(
        "after a boot the old view was not served: {} writes are on both copies",
        ledger.count(Kind::Ack)
    ));
    pair.lockstep(one, "deactivate")?;
    Ok(())
}
