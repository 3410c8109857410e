//! The other server takes over by itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::controlled::{Clock, Controlled};
use crate::machine::Machine;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::DEVICE;
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "failover",
    about: "2 power cuts of the active server under a control plane: the other one serves by itself, 0 writes lost",
    run: |context| power_cuts(context, 2),
}];

pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "many-failovers",
        about: "30 power cuts of the active server under a control plane: the other one serves by itself, 0 writes lost",
        run: |context| power_cuts(context, 30),
    },
    Scenario {
        name: "cold-start",
        about: "both servers lose power under a control plane: one alone waits, both serve again by themselves",
        run: cold_starts,
    },
];

const ACKS_BEFORE_CUT: usize = 300;
/// A write is acknowledged by the other server so long after the cut: the median, less what the host let the machine
/// wait for a processor. The goal of the product, judged where there are enough cuts for a median.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
const MEDIAN_CUTS_MIN: usize = 10;
/// No single one takes longer.
const FAILOVER_LIMIT_EACH: Duration = Duration::from_secs(5);
const SERVED_LIMIT: Duration = Duration::from_secs(60);

fn power_cuts(context: &Context, cuts: u32) -> anyhow::Result<()> {
    let controlled = Controlled::boot(context)?;
    let pair = &controlled.pair;
    let mut active = pair.one();
    let mut gaps = Vec::new();
    let mut runs = Vec::new();
    for cut in 1..=cuts {
        let standby = pair.other(active);
        let (before, after) = (cut * 2 - 1, cut * 2);
        let writer = endless(before, Fsync::Every(16)).start(active)?;
        pair.wait_acks(before, ACKS_BEFORE_CUT)?;
        // It is there already and begins with the device.
        let waiting = Writer {
            fsync: Fsync::Every(16),
            seconds: 5,
            wait: true,
            ..Writer::new(after, DEVICE, BLOCKS)
        };
        let waiting = waiting.start(standby)?;
        let clock = Clock::of(standby)?;
        let delayed = standby.host_delay()?;
        let gone = Instant::now();
        active.power_cut(u64::from(cut) * 7919)?;
        drop(writer);
        wait_until(SERVED_LIMIT, "a write on the other server", || {
            Ok(pair.cluster.ledger(&[after]).count(Kind::Ack) > 0)
        })
        .with_context(|| controlled.logs())?;
        let delayed = standby.host_delay()? - delayed;
        let first = pair.cluster.ledger(&[after]).first_ack();
        let gap = first.context("no write")?.duration_since(gone);
        say(format!(
            "cut {cut}/{cuts} of {}: a write on {} after {:.2} s ({}; waited for the host {:.2})",
            active.name(),
            standby.name(),
            gap.as_secs_f32(),
            controlled.phases(standby, &clock, gone)?,
            delayed.as_secs_f32()
        ));
        gaps.push(gap.saturating_sub(delayed));
        let output = waiting.wait()?;
        ensure!(output.ok(), "the writer saw an error: {output:?}");
        runs.extend([before, after]);
        let ledger = pair.cluster.ledger(&runs);
        check(&ledger, standby.disk("data")?, Durability::Acked)?
            .require_ok()
            .with_context(|| {
                format!(
                    "after cut {cut} of {}\n{}",
                    active.name(),
                    controlled.logs()
                )
            })?;
        controlled.bring_back(active)?;
        pair.wait_in_sync()?;
        controlled.wait_ready()?;
        active = standby;
    }
    gaps.sort();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    say(format!(
        "from the cut to the first write on the other server: median {:.2} s, longest {:.2} s; 0 acknowledged writes lost",
        median.as_secs_f32(),
        longest.as_secs_f32()
    ));
    let judged = gaps.len() >= MEDIAN_CUTS_MIN;
    ensure!(
        (median <= FAILOVER_LIMIT || !judged) && longest <= FAILOVER_LIMIT_EACH,
        "the goals are {FAILOVER_LIMIT:?} and {FAILOVER_LIMIT_EACH:?}: {gaps:?}"
    );
    pair.assert_equal_copies()
}

fn cold_starts(context: &Context) -> anyhow::Result<()> {
    let controlled = Controlled::boot(context)?;
    let (one, two) = (controlled.pair.one(), controlled.pair.two());
    cold_start(&controlled, 1, one, two)?;
    cold_start(&controlled, 2, one, one)?;
    // From now on the second node serves.
    one.power_cut(5)?;
    let waited = controlled.pair.wait_status(two, "/role", "active");
    waited.with_context(|| controlled.logs())?;
    controlled.bring_back(one)?;
    controlled.pair.wait_in_sync()?;
    cold_start(&controlled, 3, two, one)
}

/// Both lose power under load of `active`; `first` is back alone for a while, then the other one comes.
fn cold_start(
    controlled: &Controlled,
    run: u32,
    active: &Machine,
    first: &Machine,
) -> anyhow::Result<()> {
    let pair = &controlled.pair;
    let last = pair.other(first);
    let writer = endless(run, Fsync::Every(8)).start(active)?;
    pair.wait_acks(run, ACKS_BEFORE_CUT)?;
    for node in [active, pair.other(active)] {
        node.power_cut(u64::from(run) * 31)?;
    }
    drop(writer);
    controlled.bring_back(first)?;
    controlled.wait_log(first, "LS6011", "Dead")?;
    controlled.wait_log(first, "LS6017", "PeerOrOperator")?;
    ensure!(
        controlled.count_log(first, "LS6018")? == 0,
        "{} did not wait: {}",
        first.name(),
        controlled.logs()
    );
    controlled.bring_back(last)?;
    // The one that served is the source of what is copied, and begins; unless everything was copied before its control
    // plane ran: then the first by name does.
    let back = Instant::now();
    let mut serving = active;
    let served = wait_until(SERVED_LIMIT, "one of both serves", || {
        for node in [active, pair.other(active)] {
            if pair.status(node)?["role"] == "active" {
                serving = node;
                return Ok(true);
            }
        }
        Ok(false)
    });
    served.with_context(|| controlled.logs())?;
    let waited = back.elapsed();
    pair.wait_in_sync()?;
    controlled.wait_ready()?;
    let runs: Vec<u32> = (1..=run).collect();
    let ledger = pair.cluster.ledger(&runs);
    check(&ledger, serving.disk("data")?, Durability::Flushed)?.require_ok()?;
    say(format!(
        "{} first and alone: it waited; served by {} {:.1} s after {} was back",
        first.name(),
        serving.name(),
        waited.as_secs_f32(),
        last.name()
    ));
    Ok(())
}
