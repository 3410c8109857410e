//! The other server takes over by itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::controlled::{Clock, Controlled};
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::DEVICE;
use crate::wait::wait_until;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "failover",
    about: "4 power cuts of the active server under a control plane: the other one serves by itself, 0 writes lost",
    run: |context| power_cuts(context, 4),
}];

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "many-failovers",
    about: "30 power cuts of the active server under a control plane: the other one serves by itself, 0 writes lost",
    run: |context| power_cuts(context, 30),
}];

const ACKS_BEFORE_CUT: usize = 300;
/// A write is acknowledged by the other server so long after the cut: the median, less what the host let the machine
/// wait for a processor. The goal of the product.
const FAILOVER_LIMIT: Duration = Duration::from_secs(3);
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
    ensure!(
        median <= FAILOVER_LIMIT && longest <= FAILOVER_LIMIT_EACH,
        "the goals are {FAILOVER_LIMIT:?} and {FAILOVER_LIMIT_EACH:?}: {gaps:?}"
    );
    pair.assert_equal_copies()
}
