//! The mirror link breaks; two nodes want the volume.

use std::time::Duration;

use anyhow::ensure;
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, NAME, Pair};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "link-loss",
        about: "unplugged or silently lost, the writer waits and goes on by itself when the link is back",
        run: link_loss,
    },
    Scenario {
        name: "two-writers",
        about: "the second node never serves the volume while the first does, whatever link and daemons do",
        run: two_writers,
    },
    Scenario {
        name: "split-brain-refused",
        about: "an operator who vouches wrongly on both sides: the copies are refused to each other, nothing is merged",
        run: split_brain,
    },
];

const LIMIT: Duration = Duration::from_secs(60);

fn link_loss(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let writer = Writer {
        fsync: Fsync::Every(16),
        seconds: 40,
        ..Writer::new(1, DEVICE, 1024)
    };
    let running = writer.start(one)?;
    let acks = || pair.cluster.ledger(&[1]).count(Kind::Ack);
    wait_until(LIMIT, "acknowledged writes", || Ok(acks() > 100))?;

    one.link_down(Net::Mirror)?;
    pair.wait_status(one, "/frozen", "peer-lost")?;
    one.link_up(Net::Mirror)?;
    pair.wait_status(one, "/link/state", "up")?;
    let before = acks();
    wait_until(LIMIT, "writes after the unplugged cable", || {
        Ok(acks() > before + 50)
    })?;

    pair.cluster.cut(one, two, Net::Mirror)?;
    pair.wait_status(one, "/frozen", "peer-lost")?;
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    pair.wait_status(one, "/link/state", "up")?;
    let before = acks();
    wait_until(LIMIT, "writes after the silent loss", || {
        Ok(acks() > before + 50)
    })?;

    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    let ledger = pair.cluster.ledger(&[1]);
    for node in [one, two] {
        check(&ledger, node.disk("data")?, Durability::Acked)?.require_ok()?;
    }
    say(format!(
        "longest stall {:.1} s, no error",
        ledger.longest_stall().as_secs_f32()
    ));
    one.exec_ok("sync")?;
    pair.assert_equal_copies()
}

fn two_writers(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    // Everything up.
    pair.refused(two, "activate", "LS1001")?;
    pair.refused(two, "takeover --confirm 'node1 is off'", "LS1003")?;
    // The link is down.
    pair.cluster.cut(one, two, Net::Mirror)?;
    pair.wait_status(two, "/link/state", "down")?;
    pair.refused(two, "activate", "LS1002")?;
    pair.refused(two, "takeover", "LS1007")?;
    pair.refused(two, "takeover --confirm yes", "LS1007")?;
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    pair.wait_in_sync()?;
    // The active node's daemon is down: its device waits for it, and the standby must not serve.
    one.exec_ok(&format!(
        "pkill -9 -f '[u]blk-mirror run'; lockstep volume status {NAME} >/dev/null; true"
    ))?;
    pair.wait_status(two, "/link/state", "down")?;
    pair.refused(two, "activate", "LS1002")?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    // The standby's daemon is down and back.
    two.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
    pair.wait_status(one, "/link/state", "down")?;
    pair.start(two)?;
    pair.wait_in_sync()?;
    pair.refused(two, "activate", "LS1001")?;
    // Both restarted: the active one is still the active one.
    one.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
    two.exec_ok("pkill -9 -f '[u]blk-mirror run'")?;
    pair.start(two)?;
    pair.refused(two, "activate", "LS1002")?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    pair.refused(two, "activate", "LS1001")?;
    pair.wait_status(one, "/role", "active")?;
    one.exec_ok(&format!(
        "dd if=/dev/urandom of={DEVICE} bs=64k count=4 oflag=direct conv=fsync status=none"
    ))?;
    // A planned move.
    pair.lockstep(one, "deactivate")?;
    pair.lockstep(two, "activate")?;
    pair.refused(one, "activate", "LS1001")?;
    pair.assert_equal_copies()
}

fn split_brain(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    pair.cluster.cut(one, two, Net::Mirror)?;
    pair.wait_status(one, "/link/state", "down")?;
    pair.wait_status(two, "/link/state", "down")?;
    pair.lockstep(two, "takeover --confirm 'node1 is off'")?;
    let write = |text: &str| {
        format!("echo {text} | dd of={DEVICE} bs=4k conv=sync,fsync oflag=direct status=none")
    };
    two.exec_ok(&write("two"))?;
    pair.lockstep(one, "takeover --confirm 'node2 is off'")?;
    one.exec_ok(&write("one"))?;
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    pair.wait_status(one, "/link/state", "refused")?;
    pair.wait_status(two, "/link/state", "refused")?;
    for (node, text) in [(one, "one"), (two, "two")] {
        let status = pair
            .lockstep(node, "status")
            .unwrap_or_else(|error| error.to_string());
        ensure!(
            status.contains("split brain"),
            "the status names the split brain: {status}"
        );
        let read = node.exec_ok(&format!("head -c 3 {DEVICE}"))?;
        ensure!(read == text, "{} reads {read}", node.name());
    }
    Ok(())
}
