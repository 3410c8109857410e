//! Power cuts under a ledger of acknowledged writes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use crate::checker::{Durability, check};
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "power-cut-active",
        about: "6 power cuts of the active server under 8 writes in flight: 0 acknowledged writes lost",
        run: |context| power_cuts(context, 6),
    },
    Scenario {
        name: "power-cut-standby",
        about: "power cut of the standby: the writer is frozen, not failed, and goes on after the operator's word",
        run: standby_cut,
    },
    Scenario {
        name: "power-cut-both",
        about: "both servers lose power at once: flushed writes survive, and the copies come together",
        run: both_cut,
    },
];

/// The long one, for `cargo verify --all`.
pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "power-cut-active-20",
    about: "20 power cuts of the active server under 8 writes in flight: 0 acknowledged writes lost",
    run: |context| power_cuts(context, 20),
}];

/// Ledger blocks of 4 KiB: few, so that they are written again and again.
pub(super) const BLOCKS: u64 = 2048;
const ACKS_BEFORE_CUT: usize = 300;

/// A writer that only a power cut ends.
pub(super) fn endless(run: u32, fsync: Fsync) -> Writer {
    Writer {
        fsync,
        seconds: 600,
        ..Writer::new(run, DEVICE, BLOCKS)
    }
}

fn power_cuts(context: &Context, cuts: u32) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let mut active = pair.one();
    let mut longest = Duration::ZERO;
    for cut in 1..=cuts {
        let standby = pair.other(active);
        let fsync = if cut % 2 == 0 {
            Fsync::Every(16)
        } else {
            Fsync::Never
        };
        let writer = endless(cut, fsync).start(active)?;
        pair.wait_acks(cut, ACKS_BEFORE_CUT)?;
        let lost = active.power_cut(u64::from(cut) * 7919)?;
        drop(writer);
        let start = Instant::now();
        pair.wait_status(standby, "/link/state", "down")?;
        pair.takeover(standby)?;
        longest = longest.max(start.elapsed());
        let runs: Vec<u32> = (1..=cut).collect();
        let verdict = check(
            &pair.cluster.ledger(&runs),
            standby.disk("data")?,
            Durability::Acked,
        )?;
        verdict
            .require_ok()
            .with_context(|| format!("after cut {cut} of {}\n{}", active.name(), pair.logs()))?;
        say(format!(
            "cut {cut}/{cuts} of {}: {} writes acknowledged, 0 lost (its own disk lost {} and tore {})",
            active.name(),
            pair.cluster.ledger(&[cut]).count(Kind::Ack),
            lost.lost,
            lost.torn
        ));
        pair.bring_back(active)?;
        pair.wait_in_sync()?;
        active = standby;
    }
    say(format!(
        "longest time from cut to served again, commanded: {:.1} s",
        longest.as_secs_f32()
    ));
    pair.assert_equal_copies()
}

fn standby_cut(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let writer = Writer {
        fsync: Fsync::Every(16),
        seconds: 30,
        ..Writer::new(1, DEVICE, BLOCKS)
    };
    let running = writer.start(one)?;
    pair.wait_acks(1, ACKS_BEFORE_CUT)?;
    two.power_cut(11)?;
    pair.wait_status(one, "/frozen", "peer-lost")?;
    let acked = pair.cluster.ledger(&[1]).count(Kind::Ack);
    // Nothing may be acknowledged while frozen: status commands pass the time.
    for _ in 0..5 {
        pair.status(one)?;
    }
    let now = pair.cluster.ledger(&[1]).count(Kind::Ack);
    ensure!(
        now == acked,
        "{} writes were acknowledged while frozen",
        now - acked
    );
    pair.refused(one, "takeover", "LS1007")?;
    pair.takeover(one)?;
    pair.wait_acks(1, acked + 100)?;
    let output = running.wait()?;
    ensure!(output.ok(), "the writer saw an error: {output:?}");
    let ledger = pair.cluster.ledger(&[1]);
    check(&ledger, one.disk("data")?, Durability::Acked)?.require_ok()?;
    say(format!(
        "the writer stalled for {:.1} s and saw no error",
        ledger.longest_stall().as_secs_f32()
    ));
    pair.bring_back(two)?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()
}

fn both_cut(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let running = endless(1, Fsync::Every(8)).start(one)?;
    pair.wait_acks(1, ACKS_BEFORE_CUT)?;
    one.power_cut(21)?;
    two.power_cut(22)?;
    drop(running);
    for node in [one, two] {
        pair.boot_again(node)?;
    }
    pair.start(two)?;
    pair.refused(two, "activate", "LS1002")?;
    pair.start(one)?;
    pair.wait_in_sync()?;
    pair.assert_equal_copies()?;
    let ledger = pair.cluster.ledger(&[1]);
    check(&ledger, two.disk("data")?, Durability::Flushed)?.require_ok()?;
    pair.lockstep(two, "activate").map(drop)
}
