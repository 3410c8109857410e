//! Damage behind the mirror's back is found and repaired while the volume is used.

use anyhow::{Context as _, ensure};
use vm_guest::record::Kind;

use super::power::endless;
use crate::checker::{Durability, check};
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{NAME, Pair};
use crate::writer::Fsync;

pub(super) const LONG: &[Scenario] = &[Scenario {
    name: "verify-repairs",
    about: "a block of the standby's disk is damaged behind its back under load: a verify finds exactly it, and repairs it",
    run: verify_repairs,
}];

const BLOCK_BYTES: u64 = 4096;
/// Far behind the writer's blocks.
const DAMAGED_AT: u64 = 80 << 20;
const ACKS_BEFORE: usize = 200;
const ACKS_AFTER: usize = 100;
const RUN: u32 = 1;

fn verify_repairs(context: &Context) -> anyhow::Result<()> {
    let pair = Pair::boot(context)?;
    let (one, two) = (pair.one(), pair.two());
    let writer = endless(RUN, Fsync::Every(16)).start(one)?;
    pair.wait_acks(RUN, ACKS_BEFORE)?;

    // Nothing is damaged: what is in flight is no difference.
    pair.lockstep(one, "verify --wait")?;
    no_difference(&pair)?;
    pair.refused(two, "verify", "LS1040")?;

    let size = usize::try_from(BLOCK_BYTES)?;
    let mut before = vec![0; size];
    let disk = two.disk("data")?;
    disk.read_at(DAMAGED_AT, &mut before)?;
    disk.corrupt(DAMAGED_AT + 512..DAMAGED_AT + 513)?;

    let output = pair.try_lockstep(one, "verify --wait")?;
    ensure!(output.code == 1, "the damage was not found: {output:?}");
    finds_the_block(&pair, "differs")?;
    pair.lockstep(one, "verify --repair --wait")?;
    finds_the_block(&pair, "repaired")?;
    say("one damaged block was found and repaired under load");
    let mut after = vec![0; size];
    disk.read_at(DAMAGED_AT, &mut after)?;
    ensure!(before == after, "the block is not what it was");
    pair.lockstep(one, "verify --wait")?;
    no_difference(&pair)?;

    // The standby's copy is filled anew.
    pair.refused(one, &format!("invalidate --confirm {NAME}"), "LS1045")?;
    pair.refused(two, "invalidate", "LS1047")?;
    pair.lockstep(two, &format!("invalidate --confirm {NAME}"))?;
    pair.wait_in_sync()?;
    let acks = pair.cluster.ledger(&[RUN]).count(Kind::Ack);
    pair.wait_acks(RUN, acks + ACKS_AFTER)?;
    writer.kill()?;
    writer.wait()?;
    one.exec_ok("sync")?;
    let ledger = pair.cluster.ledger(&[RUN]);
    for node in [one, two] {
        check(&ledger, node.disk("data")?, Durability::Acked)?
            .require_ok()
            .with_context(|| format!("on {}", node.name()))?;
    }
    pair.assert_equal_copies()
}

fn no_difference(pair: &Pair) -> anyhow::Result<()> {
    let status = pair.status(pair.one())?;
    let verify = &status["verify"];
    ensure!(
        verify["state"] == "done" && verify["differing_bytes"] == 0,
        "a difference where nothing was damaged: {verify:#}"
    );
    Ok(())
}

fn finds_the_block(pair: &Pair, finding: &str) -> anyhow::Result<()> {
    let status = pair.status(pair.one())?;
    let verify = &status["verify"];
    let ranges = verify["ranges"].as_array().context("no ranges")?;
    ensure!(
        ranges.len() == 1
            && ranges[0]["start_bytes"] == DAMAGED_AT
            && ranges[0]["length_bytes"] == BLOCK_BYTES
            && ranges[0]["finding"] == finding,
        "not exactly the damaged block: {verify:#}"
    );
    Ok(())
}
