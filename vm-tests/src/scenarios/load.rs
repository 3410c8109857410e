//! Load that delays everything but heartbeats: nothing may happen.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use vm_guest::record::Kind;

use super::partition::Story;
use crate::checker::{Durability, check};
use crate::controlled::{Controlled, HEARTBEAT_PORT};
use crate::machine::Machine;
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "control-plane-load",
    about: "processors taken for a minute, then a storm of forged heartbeats: a pause at most, no failover",
    run: load,
}];

const LOAD: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(180);
/// Times the processors of a machine.
const HOGS: usize = 4;
/// Of each second of the storm on each node, at least.
const FORGED_PER_S: u64 = 100;

fn load(context: &Context) -> anyhow::Result<()> {
    let story = Story {
        controlled: Controlled::boot(context)?,
    };
    let (one, two) = story.nodes();
    let writer = story.write(1, one)?;
    let before = story.words()?;
    hogs(&story)?;
    storm(&story)?;
    ensure!(story.words()? == before, "{}", story.controlled.logs());
    story.goes_on(1)?;
    one.exec_ok("pkill -f 'vm-guest ledger-write[r]'")?;
    writer.wait()?;
    let ledger = story.pair().cluster.ledger(&[1]);
    check(&ledger, one.disk("data")?, Durability::Acked)?.require_ok()?;
    story.role(two, "fenced")?;
    story.pair().assert_equal_copies()
}

/// On both nodes, each of which has one processor.
fn hogs(story: &Story) -> anyhow::Result<()> {
    let acks = story.pair().cluster.ledger(&[1]).count(Kind::Ack);
    let seconds = LOAD.as_secs();
    let script = format!(
        "for hog in $(seq {HOGS}); do timeout {seconds} sh -c 'while :; do :; done' & done; wait"
    );
    let (one, two) = story.nodes();
    let both = [one.spawn(&script, LIMIT)?, two.spawn(&script, LIMIT)?];
    for hogs in both {
        hogs.wait()?;
    }
    let written = story.pair().cluster.ledger(&[1]).count(Kind::Ack) - acks;
    say(format!(
        "{HOGS} programs for each processor of both nodes, {seconds} s: {written} writes, nothing else happened"
    ));
    story.goes_on(1)
}

/// Forged heartbeats from a third machine, on a network that has real ones too.
fn storm(story: &Story) -> anyhow::Result<()> {
    let seconds = LOAD.as_secs();
    let (one, two) = story.nodes();
    let forges = |node: &Machine| {
        let address = node.address(Net::Lan);
        let script = format!(
            "exec 3<>/dev/udp/{address}/{HEARTBEAT_PORT}; forged=$(head -c 150 /dev/urandom | base64 -w0); \
             end=$((SECONDS + {seconds})); sent=0; \
             while ((SECONDS < end)); do echo -n \"$forged\" >&3; ((++sent)); done; echo $sent"
        );
        let quoted = script.replace('\'', "'\\''");
        story
            .controlled
            .witness()
            .spawn(&format!("bash -c '{quoted}'"), LIMIT)
    };
    let before = [foreign(one)?, foreign(two)?];
    let both = [forges(one)?, forges(two)?];
    let mut sent = Vec::new();
    for forger in both {
        let output = forger.wait()?;
        ensure!(output.ok(), "{output:?}");
        sent.push(output.stdout.trim().to_string());
    }
    let heard = [foreign(one)? - before[0], foreign(two)? - before[1]];
    for count in heard {
        ensure!(count >= FORGED_PER_S * seconds, "only {count} were heard");
    }
    say(format!(
        "{sent:?} forged heartbeats in {seconds} s, {heard:?} of them heard and refused: nothing happened"
    ));
    story.goes_on(1)
}

/// What a node heard that was no heartbeat of the other one.
fn foreign(node: &Machine) -> anyhow::Result<u64> {
    let status = node.exec("lockstep status --json", LIMIT)?.stdout;
    let status: Value = serde_json::from_str(&status)?;
    let paths = status["paths"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(!paths.is_empty(), "no paths in {status}");
    Ok(paths
        .iter()
        .filter_map(|path| path["foreign"].as_u64())
        .sum())
}
