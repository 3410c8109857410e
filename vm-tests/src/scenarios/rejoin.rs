//! A copy that comes back is given what it lacks, and no more.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use vm_guest::pattern::{SECTOR_BYTES, SectorContent, read_sector};
use vm_guest::record::Kind;

use super::measure::{Rejoin, figure, scatter};
use super::power::{BLOCKS, endless};
use crate::checker::{Durability, check};
use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::Pair;
use crate::writer::{Fsync, Writer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "rejoin-marked",
    about: "a standby without power, a cut link, an old active node: only what differs is copied, nothing is lost",
    run: rejoin_marked,
}];

/// Large beside what the scenarios write.
pub(super) const VOLUME_BYTES: u64 = 256 << 20;
const BLOCK_BYTES: u64 = 4096;
pub(super) const EXTENT_BYTES: u64 = 4 << 20;
/// Where the ledger ends, and the single blocks begin.
pub(super) const LEDGER_BYTES: u64 = BLOCKS * BLOCK_BYTES;
/// Of the ledger, for a writer that leaves most of it alone.
const FEW_BLOCKS: u64 = 128;
/// Single blocks that are written all over the volume while one copy is away.
const SCATTERED_BYTES: u64 = 2 << 20;
pub(super) const ACKS_BEFORE_CUT: usize = 300;
const ACKS_AFTER: usize = 100;
/// A pair under one ledger writer after the other.
struct Story {
    pair: Pair,
    run: u32,
}

fn rejoin_marked(context: &Context) -> anyhow::Result<()> {
    let mut story = Story {
        pair: Pair::boot_sized(context, VOLUME_BYTES)?,
        run: 0,
    };
    // First, while little of the volume was ever written on the node that dies.
    story.takeover()?;
    story.standby_cut()?;
    story.link_cut()
}

impl Story {
    fn write(&mut self, node: &str, blocks: u64) -> anyhow::Result<Running> {
        self.run += 1;
        let writer = Writer {
            blocks,
            ..endless(self.run, Fsync::Every(16))
        };
        let running = writer.start(self.pair.cluster.machine(node))?;
        self.pair.wait_acks(self.run, ACKS_BEFORE_CUT)?;
        Ok(running)
    }

    fn more(&self) -> anyhow::Result<()> {
        let acks = self.pair.cluster.ledger(&[self.run]).count(Kind::Ack);
        self.pair.wait_acks(self.run, acks + ACKS_AFTER)
    }

    /// Ends the writer; every acknowledged write is on both copies, and these are identical.
    fn judge(&self, writer: Running, active: &Machine) -> anyhow::Result<()> {
        writer.kill()?;
        let output = writer.wait()?;
        ensure!(
            !output.stderr.contains("failed"),
            "the writer saw an error: {output:?}"
        );
        active.exec_ok("sync")?;
        let runs: Vec<u32> = (1..=self.run).collect();
        let ledger = self.pair.cluster.ledger(&runs);
        for node in [self.pair.one(), self.pair.two()] {
            check(&ledger, node.disk("data")?, Durability::Acked)?
                .require_ok()
                .with_context(|| format!("on {}", node.name()))?;
        }
        self.pair.assert_equal_copies()
    }

    /// The active node dies with writes that nobody else has; the other goes on; it comes back.
    fn takeover(&mut self) -> anyhow::Result<()> {
        let writer = self.write("node1", BLOCKS)?;
        let run = self.run;
        let pair = &self.pair;
        let (one, two) = (pair.one(), pair.two());
        // The standby is deaf first: it must not have what the active node writes last.
        pair.cluster.cut(two, one, Net::Mirror)?;
        pair.wait_status(one, "/frozen", "peer-lost")?;
        one.power_cut(31)?;
        drop(writer);
        pair.wait_status(two, "/link/state", "down")?;
        pair.takeover(two)?;
        // Where the new active node will not write: only the old one's own metadata names these blocks.
        let mut undone = unshared(pair, run, one, two)?;
        undone.retain(|(block, _)| *block >= FEW_BLOCKS);
        ensure!(
            !undone.is_empty(),
            "the old active node's disk has no write of its own: nothing can be undone"
        );
        scatter(
            two,
            LEDGER_BYTES,
            VOLUME_BYTES - LEDGER_BYTES,
            SCATTERED_BYTES,
        )?;
        let second = self.write("node2", FEW_BLOCKS)?;
        let pair = &self.pair;
        let (one, two) = (pair.one(), pair.two());
        two.hear(Net::Mirror)?;
        pair.boot_again(one)?;
        let rejoin = Rejoin::begin(pair, two)?;
        pair.start(one)?;
        let rejoined = rejoin.end()?;
        rejoined.tell("the old active node");
        // What it had open when it died may differ in any block, and only it knows: the ledger's extents.
        rejoined.require_only_differences(LEDGER_BYTES)?;
        far_below_the_volume(rejoined.traffic.resync)?;
        self.more()?;
        self.judge(second, self.pair.two())?;
        for (block, sequence) in &undone {
            let holds = holds(self.pair.one(), *block, run, *sequence)?;
            ensure!(
                !holds,
                "block {block}: a write that nobody else had is still there"
            );
        }
        say(format!(
            "{} writes that only the old active node had were undone",
            undone.len()
        ));
        Ok(())
    }

    /// Now node 2 serves and node 1 is the standby.
    fn standby_cut(&mut self) -> anyhow::Result<()> {
        let writer = self.write("node2", BLOCKS)?;
        let pair = &self.pair;
        let (standby, active) = (pair.one(), pair.two());
        standby.power_cut(32)?;
        self.go_alone(active)?;
        pair.boot_again(standby)?;
        let rejoin = Rejoin::begin(pair, active)?;
        pair.start(standby)?;
        let rejoined = rejoin.end()?;
        rejoined.tell("the standby after its power cut");
        rejoined.require_only_differences(rejoined.traffic.written.min(LEDGER_BYTES))?;
        far_below_the_volume(rejoined.traffic.resync)?;
        self.more()?;
        self.judge(writer, active)
    }

    fn link_cut(&mut self) -> anyhow::Result<()> {
        let writer = self.write("node2", BLOCKS)?;
        let pair = &self.pair;
        let (standby, active) = (pair.one(), pair.two());
        pair.cluster.cut(active, standby, Net::Mirror)?;
        self.go_alone(active)?;
        let rejoin = Rejoin::begin(pair, active)?;
        active.hear(Net::Mirror)?;
        standby.hear(Net::Mirror)?;
        let rejoined = rejoin.end()?;
        rejoined.tell("the standby after a cut link");
        rejoined.require_only_differences(rejoined.traffic.written.min(LEDGER_BYTES))?;
        far_below_the_volume(rejoined.traffic.resync)?;
        self.more()?;
        self.judge(writer, active)
    }

    /// The operator's word; the application goes on, in the ledger and all over the volume.
    fn go_alone(&self, active: &Machine) -> anyhow::Result<()> {
        self.pair.wait_status(active, "/frozen", "peer-lost")?;
        self.pair.takeover(active)?;
        scatter(
            active,
            LEDGER_BYTES,
            VOLUME_BYTES - LEDGER_BYTES,
            SCATTERED_BYTES,
        )?;
        self.more()?;
        let lacks = figure(&self.pair, active, "/out_of_sync_bytes")?;
        ensure!(
            lacks >= SCATTERED_BYTES / 2,
            "only {lacks} bytes are marked after {SCATTERED_BYTES} were written alone"
        );
        Ok(())
    }
}

fn far_below_the_volume(sent: u64) -> anyhow::Result<()> {
    ensure!(
        sent <= VOLUME_BYTES / 8,
        "{sent} bytes sent are no small part of the volume's {VOLUME_BYTES}"
    );
    Ok(())
}

/// Unacknowledged writes of a run that are on the disk of `here` (in part, at least) and not on `there`.
fn unshared(
    pair: &Pair,
    run: u32,
    here: &Machine,
    there: &Machine,
) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut open = HashMap::new();
    for entry in &pair.cluster.ledger(&[run]).entries {
        let record = entry.record;
        match record.kind {
            Kind::Issue => open.insert(record.block, record.sequence),
            Kind::Ack => open.remove(&record.block),
            Kind::Start
            | Kind::WriteFailed
            | Kind::FlushIssue
            | Kind::FlushAck
            | Kind::FlushFailed
            | Kind::End
            | Kind::PowerCut => None,
        };
    }
    let mut found = Vec::new();
    for (block, sequence) in open {
        if holds(here, block, run, sequence)? && !holds(there, block, run, sequence)? {
            found.push((block, sequence));
        }
    }
    Ok(found)
}

fn holds(node: &Machine, block: u64, run: u32, sequence: u64) -> anyhow::Result<bool> {
    let mut data = vec![0; usize::try_from(BLOCK_BYTES)?];
    node.disk("data")?.read_at(block * BLOCK_BYTES, &mut data)?;
    Ok(data.chunks(SECTOR_BYTES).any(|sector| {
        matches!(read_sector(sector), SectorContent::Valid(id) if id.run == run && id.sequence == sequence)
    }))
}
