//! Two mirror connects: one of them may fail at any time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair, VOLUME_BYTES, machines};
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "two-links",
    about: "of two mirror connects either may fail: the writer stands still for the link timeout at most, nothing is copied again",
    run: two_links,
}];

const LIMIT: Duration = Duration::from_secs(60);
const RUN: u32 = 1;
/// `link_timeout_ms` as it is without a word in the configuration.
const LINK_TIMEOUT: Duration = Duration::from_secs(3);
/// What the design allows beside it.
const GOAL: Duration = Duration::from_millis(500);
/// Emulated machines on a busy host answer late.
const MARGIN: Duration = Duration::from_millis(1500);

fn two_links(context: &Context) -> anyhow::Result<()> {
    let cluster = machines(context, VOLUME_BYTES)?;
    let pair = Pair::active_on(cluster, &[Net::Mirror, Net::MirrorTwo])?;
    let (one, two) = (pair.one(), pair.two());
    wait_paths(&pair, ["in-use", "ready"])?;
    let before = pair.status(one)?;
    let writer = Writer {
        fsync: Fsync::Every(16),
        seconds: 40,
        ..Writer::new(RUN, DEVICE, 1024)
    };
    let running = writer.start(one)?;
    go_on(&pair)?;

    let silent = stall(&pair, "path 1 is cut silently", || {
        pair.cluster.cut(one, two, Net::Mirror)?;
        pair.wait_status(one, "/link/paths/1/state", "in-use")
            .map(drop)
    })?;
    for node in [one, two] {
        pair.wait_status(node, "/problems/0/code", "LS2070")?;
        let screen = pair.lockstep(node, "status")?;
        ensure!(
            screen.contains("path 2 of 2: 10.77.4.") && screen.contains("does NOT answer"),
            "{screen}"
        );
    }
    one.hear(Net::Mirror)?;
    two.hear(Net::Mirror)?;
    wait_paths(&pair, ["ready", "in-use"])?;

    let unplugged = stall(&pair, "the cable of path 2 is pulled", || {
        two.link_down(Net::MirrorTwo)?;
        pair.wait_status(one, "/link/paths/0/state", "in-use")
            .map(drop)
    })?;
    two.link_up(Net::MirrorTwo)?;
    wait_paths(&pair, ["in-use", "ready"])?;

    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    let ledger = pair.cluster.ledger(&[RUN]);
    for node in [one, two] {
        check(&ledger, node.disk("data")?, Durability::Acked)?.require_ok()?;
    }
    let after = pair.status(one)?;
    ensure!(
        before["view"] == after["view"],
        "the view changed: {} {}",
        before["view"],
        after["view"]
    );
    let sent = "/counters/resync_sent_bytes";
    ensure!(
        before.pointer(sent) == after.pointer(sent),
        "something was copied again: {after:#}"
    );
    say(format!(
        "stood still for {:.2} s and {:.2} s; the goal is {:.1} s",
        silent.as_secs_f32(),
        unplugged.as_secs_f32(),
        (LINK_TIMEOUT + GOAL).as_secs_f32()
    ));
    one.exec_ok("sync")?;
    pair.assert_equal_copies()
}

fn wait_paths(pair: &Pair, states: [&str; 2]) -> anyhow::Result<()> {
    for node in [pair.one(), pair.two()] {
        for (path, state) in states.iter().enumerate() {
            pair.wait_status(node, &format!("/link/paths/{path}/state"), state)
                .with_context(|| format!("paths {states:?}"))?;
        }
        pair.wait_status(node, "/link/state", "up")?;
    }
    Ok(())
}

/// Writes are acknowledged now.
fn go_on(pair: &Pair) -> anyhow::Result<()> {
    let acks = || pair.cluster.ledger(&[RUN]).count(Kind::Ack);
    let before = acks();
    wait_until(LIMIT, "acknowledged writes", || Ok(acks() > before + 50))?;
    Ok(())
}

/// How long no write was acknowledged because of what `fault` does.
fn stall(
    pair: &Pair,
    what: &str,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    fault()?;
    go_on(pair)?;
    let ledger = pair.cluster.ledger(&[RUN]);
    let entries = ledger.entries.iter();
    let acks = entries.filter(|entry| entry.record.kind == Kind::Ack && entry.at >= begin);
    // The last one before may be long ago as soon as the fault is there.
    let times: Vec<Instant> = [begin]
        .into_iter()
        .chain(acks.map(|entry| entry.at))
        .collect();
    let gaps = times.windows(2).map(|two| two[1] - two[0]);
    let longest = gaps.max().context("no writes")?;
    say(format!("{what}: {:.2} s", longest.as_secs_f32()));
    ensure!(
        longest <= LINK_TIMEOUT + GOAL + MARGIN,
        "{what}: writes stood still for {longest:?}\n{}",
        pair.logs()
    );
    Ok(longest)
}
