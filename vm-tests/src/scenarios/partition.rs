//! Networks break between nodes that have a control plane: exactly one goes on, and which one is known before.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::power::{BLOCKS, endless};
use crate::agent::Running;
use crate::checker::{Durability, check};
use crate::controlled::{Arbiter, Controlled, INTERCONNECTS};
use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "partitions",
    about: "interconnects, mirror link, witness cut one by one and together: one side goes on, the other is fenced",
    run: partitions,
}];

pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "etcd-partitions",
        about: "the same partitions with etcd as the arbiter",
        run: partitions_with_etcd,
    },
    Scenario {
        name: "ping-partitions",
        about: "the same with a ping target, as far as it can decide: a node that does not reach it goes on nowhere",
        run: partitions_with_ping,
    },
    Scenario {
        name: "control-plane-stalls",
        about: "lockstepd killed or stuck: nothing happens; the active machine stands still for 30 s: it never writes again",
        run: stalls,
    },
];

pub(super) const LIMIT: Duration = Duration::from_secs(60);
const ACKS: usize = 100;
/// Longer than every timeout.
const LONG_STALL: Duration = Duration::from_secs(30);
/// What a word to a data plane looks like in the log.
const WORD: &str = "LS6018";

/// A pair under a control plane, and a writer on it.
pub(super) struct Story {
    pub(super) controlled: Controlled,
}

impl Story {
    pub(super) fn pair(&self) -> &Pair {
        &self.controlled.pair
    }

    pub(super) fn nodes(&self) -> (&Machine, &Machine) {
        (self.pair().one(), self.pair().two())
    }

    pub(super) fn write(&self, run: u32, node: &Machine) -> anyhow::Result<Running> {
        let running = endless(run, Fsync::Every(16)).start(node)?;
        self.goes_on(run)?;
        Ok(running)
    }

    /// More writes of a run are acknowledged.
    pub(super) fn goes_on(&self, run: u32) -> anyhow::Result<()> {
        let acks = || self.pair().cluster.ledger(&[run]).count(Kind::Ack);
        let before = acks();
        wait_until(LIMIT, &format!("writes of run {run} go on"), || {
            Ok(acks() > before + ACKS)
        })
        .with_context(|| self.controlled.logs())
        .map(drop)
    }

    /// How many words to data planes both control planes said.
    pub(super) fn words(&self) -> anyhow::Result<usize> {
        let (one, two) = self.nodes();
        Ok(self.controlled.count_log(one, WORD)? + self.controlled.count_log(two, WORD)?)
    }

    pub(super) fn role(&self, node: &Machine, role: &str) -> anyhow::Result<()> {
        let waited = self.pair().wait_status(node, "/role", role);
        waited.with_context(|| self.controlled.logs()).map(drop)
    }

    pub(super) fn cut(&self, nets: &[Net]) -> anyhow::Result<()> {
        let (one, two) = self.nodes();
        for net in nets {
            self.pair().cluster.cut(one, two, *net)?;
        }
        Ok(())
    }

    pub(super) fn heal(&self, nets: &[Net]) -> anyhow::Result<()> {
        let (one, two) = self.nodes();
        for net in nets {
            one.hear(*net)?;
            two.hear(*net)?;
        }
        self.pair().wait_in_sync()
    }
}

fn partitions(context: &Context) -> anyhow::Result<()> {
    partitions_with(context, Arbiter::Witness)
}

fn partitions_with_etcd(context: &Context) -> anyhow::Result<()> {
    partitions_with(context, Arbiter::Etcd)
}

fn partitions_with_ping(context: &Context) -> anyhow::Result<()> {
    let story = Story {
        controlled: Controlled::boot_with(context, Arbiter::Ping, "", &[])?,
    };
    let (one, _) = story.nodes();
    let writer = story.write(1, one)?;
    one_by_one(&story)?;
    the_mirror_alone(&story)?;
    the_standby(&story)?;
    one.exec_ok("pkill -f 'vm-guest ledger-write[r]'")?;
    writer.wait()?;
    the_active_node(&story)?;
    nothing_is_lost(&story, &[1, 2, 3])
}

/// It does not reach the ping target, and takes nothing over.
fn the_standby(story: &Story) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    for net in Net::ALL {
        two.link_down(net)?;
    }
    story.controlled.wait_log(two, "LS6011", "Dead")?;
    story
        .controlled
        .wait_log(two, "LS6023\\|LS6016", "LS6016")?;
    story.goes_on(1)?;
    story.role(one, "active")?;
    story.role(two, "fenced")?;
    for net in Net::ALL {
        two.link_up(net)?;
    }
    story.pair().wait_in_sync()?;
    story.controlled.wait_ready()?;
    say("the standby cut off from everybody: the active node went on, the standby waited");
    Ok(())
}

fn partitions_with(context: &Context, arbiter: Arbiter) -> anyhow::Result<()> {
    let story = Story {
        controlled: Controlled::boot_with(context, arbiter, "", &[])?,
    };
    let writer = story.write(1, story.pair().one())?;
    one_by_one(&story)?;
    the_mirror_alone(&story)?;
    everything(&story)?;
    the_witness_and_then_everything(&story, writer)?;
    the_active_node(&story)?;
    nothing_is_lost(&story, &[1, 2, 3])
}

/// After the second node took over: both disks have all that was acknowledged in these runs, and are equal.
pub(super) fn nothing_is_lost(story: &Story, runs: &[u32]) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    let ledger = story.pair().cluster.ledger(runs);
    check(&ledger, two.disk("data")?, Durability::Acked)?.require_ok()?;
    story.pair().wait_in_sync()?;
    two.exec_ok("sync")?;
    check(&ledger, one.disk("data")?, Durability::Acked)?.require_ok()?;
    story.pair().assert_equal_copies()
}

fn one_by_one(story: &Story) -> anyhow::Result<()> {
    let before = story.words()?;
    for (path, net) in INTERCONNECTS.iter().enumerate() {
        story.cut(&[*net])?;
        let code = format!("LS6012.*path={path}");
        for node in [story.pair().one(), story.pair().two()] {
            story.controlled.wait_log(node, &code, "Down")?;
        }
        let verdict = story.pair().one().exec("lockstep status", LIMIT)?;
        ensure!(
            verdict.code == 1 && verdict.stdout.contains("is down"),
            "{verdict:?}"
        );
        story.goes_on(1)?;
        story.heal(&[*net])?;
        for node in [story.pair().one(), story.pair().two()] {
            story.controlled.wait_log(node, &code, "Up")?;
        }
    }
    ensure!(story.words()? == before, "{}", story.controlled.logs());
    say("interconnects cut one by one: told, and nothing else happened");
    Ok(())
}

fn the_mirror_alone(story: &Story) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    story.cut(&[Net::Mirror])?;
    story.pair().wait_status(one, "/link/state", "down")?;
    story.goes_on(1)?;
    story.role(one, "active")?;
    story.role(two, "fenced")?;
    story.heal(&[Net::Mirror])?;
    say("the mirror link alone: the active node went on, the other one was copied to afterwards");
    Ok(())
}

fn everything(story: &Story) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    let nets = [Net::Inter, Net::Lan, Net::Mirror];
    story.cut(&nets)?;
    story.controlled.wait_log(two, "LS6011", "Dead")?;
    story.goes_on(1)?;
    story.role(one, "active")?;
    story.role(two, "fenced")?;
    story.heal(&nets)?;
    say("everything between the nodes: the active node went on");
    Ok(())
}

fn the_witness_and_then_everything(story: &Story, writer: Running) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    let nets = [Net::Inter, Net::Lan, Net::Mirror];
    story.controlled.kill_witness()?;
    for node in [one, two] {
        let codes = "LS6016\\|LS6023";
        story.controlled.wait_log(node, codes, "LS6016")?;
    }
    story.goes_on(1)?;
    // The line above may be of a moment before, in which the witness was slow.
    wait_until(LIMIT, "a verdict without the witness", || {
        let verdict = one.exec("lockstep status", LIMIT)?;
        Ok(verdict.code == 1 && verdict.stdout.contains("not ready for a failover"))
    })?;
    story.cut(&nets)?;
    story.role(one, "fenced")?;
    story.role(two, "fenced")?;
    let output = writer.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    story.heal(&nets)?;
    // Both are there again: no arbiter is needed for what both agree on.
    story.role(one, "active")?;
    story.controlled.start_witness()?;
    story.controlled.wait_ready()?;
    say(
        "the witness, then everything: nobody went on alone, and served again when the nodes heard each other",
    );
    Ok(())
}

pub(super) fn the_active_node(story: &Story) -> anyhow::Result<()> {
    let (one, two) = story.nodes();
    let writer = story.write(2, one)?;
    let waiting = Writer {
        seconds: 5,
        wait: true,
        ..Writer::new(3, DEVICE, BLOCKS)
    };
    let waiting = waiting.start(two)?;
    for net in Net::ALL {
        one.link_down(net)?;
    }
    story.goes_on(3)?;
    story.role(one, "fenced")?;
    let output = writer.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    for net in Net::ALL {
        one.link_up(net)?;
    }
    let output = waiting.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    story.pair().wait_in_sync()?;
    say("the active node cut off from everybody: the other one served, the first one was fenced");
    Ok(())
}

fn stalls(context: &Context) -> anyhow::Result<()> {
    let story = Story {
        controlled: Controlled::boot(context)?,
    };
    let (one, two) = story.nodes();
    let writer = story.write(1, one)?;
    let before = story.words()?;
    one.exec_ok("pkill -KILL -x lockstepd")?;
    story.controlled.wait_log(two, "LS6012.*path=0", "Down")?;
    story.goes_on(1)?;
    story.controlled.start_control(one)?;
    story.controlled.wait_ready()?;
    for node in [one, two] {
        node.exec_ok("pkill -STOP -x lockstepd")?;
        let other = story.pair().other(node);
        story.controlled.wait_log(other, "LS6012.*path=0", "Down")?;
        story.goes_on(1)?;
        node.exec_ok("pkill -CONT -x lockstepd")?;
        story.controlled.wait_log(other, "LS6012.*path=0", "Up")?;
    }
    ensure!(story.words()? == before, "{}", story.controlled.logs());
    say("lockstepd killed, and stuck on either node: nothing happened");

    let waiting = Writer {
        seconds: 5,
        wait: true,
        ..Writer::new(2, DEVICE, BLOCKS)
    };
    let waiting = waiting.start(two)?;
    one.pause()?;
    let paused = std::time::Instant::now();
    story.goes_on(2)?;
    let output = waiting.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    wait_until(LONG_STALL * 2, "the end of the pause", || {
        Ok(paused.elapsed() >= LONG_STALL)
    })?;
    let acked = story.pair().cluster.ledger(&[1]).count(Kind::Ack);
    one.resume()?;
    story.role(one, "fenced")?;
    story.pair().wait_in_sync()?;
    let output = writer.wait()?;
    ensure!(!output.ok(), "the writer saw no error: {output:?}");
    let late = story.pair().cluster.ledger(&[1]).count(Kind::Ack) - acked;
    let ledger = story.pair().cluster.ledger(&[1, 2]);
    check(&ledger, two.disk("data")?, Durability::Acked)?.require_ok()?;
    say(format!(
        "the active machine stood still for {LONG_STALL:?}: the other one served, {late} acknowledgements of before came late"
    ));
    story.pair().assert_equal_copies()
}
