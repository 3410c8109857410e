//! Power cuts of either server or both, in random order, now and then with a broken link.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vm_guest::pattern::mix;
use vm_guest::record::Kind;

use super::power::endless;
use crate::checker::{Durability, check};
use crate::machine::{Machine, Running};
use crate::network::Net;
use crate::progress::say;
use crate::scenario::{Context, Scenario};
use crate::volume::{DEVICE, Pair};
use crate::writer::Fsync;

/// For `cargo verify --all`.
pub(super) const LONG: &[Scenario] = &[
    Scenario {
        name: "power-cuts-4",
        about: "4 power cuts of the active, the standby or both in random order: the beginning of the long one",
        run: |context| power_cuts_random(context, 4),
    },
    Scenario {
        name: "power-cuts-random",
        about: "200 power cuts of the active, the standby or both in random order, with broken links: 0 acknowledged writes lost",
        run: |context| power_cuts_random(context, CUTS),
    },
];

const CUTS: u32 = 200;
/// A small volume: every round copies.
const VOLUME_BYTES: u64 = 24 << 20;
/// Ledger blocks of 4 KiB, as in [`endless`].
const LEDGER_MIB: u64 = 8;
const ACKS_BEFORE_CUT: u64 = 100;
const ACKS_AFTER_WORD: usize = 50;
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Who loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Active,
    Standby,
    Both,
}

/// What happens to the mirror link first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Stays,
    /// Broken and mended under the writer, before the cut.
    Flaps,
    /// Silently broken when the power goes.
    Broken,
}

#[derive(Default)]
struct Outcome {
    cuts: [u32; 3],
    flaps: u32,
    broken: u32,
    acked: usize,
    lost_by_disks: u64,
    torn_by_disks: u64,
    longest: Duration,
}

struct Story {
    pair: Pair,
    /// Number of the node that serves: 0 or 1.
    active: usize,
    run: u32,
    /// Runs since both servers lost power: only since then every acknowledged write is required.
    first_run: u32,
    random: u64,
    outcome: Outcome,
}

fn power_cuts_random(context: &Context, cuts: u32) -> anyhow::Result<()> {
    let seed = context.seed();
    say(format!("seed {seed}"));
    let mut story = Story {
        pair: Pair::boot_sized(context, VOLUME_BYTES)?,
        active: 0,
        run: 0,
        first_run: 1,
        random: mix(seed),
        outcome: Outcome::default(),
    };
    for cut in 1..=cuts {
        let start = Instant::now();
        let told = story
            .round()
            .with_context(|| format!("cut {cut} of {cuts}, seed {seed}\n{}", story.pair.logs()))?;
        say(format!(
            "cut {cut}/{cuts}: {told}; copies identical ({:.1} s)",
            start.elapsed().as_secs_f32()
        ));
    }
    story.outcome.tell();
    Ok(())
}

impl Outcome {
    fn tell(&self) {
        let [active, standby, both] = self.cuts;
        say(format!(
            "cuts: {active} of the active, {standby} of the standby, {both} of both; flaps of the link: {}, cuts with a broken link: {}",
            self.flaps, self.broken
        ));
        say(format!(
            "{} writes acknowledged, 0 lost; the disks that lost power dropped {} unflushed writes and tore {}",
            self.acked, self.lost_by_disks, self.torn_by_disks
        ));
        say(format!(
            "longest time from a cut of one to served again, commanded: {:.1} s",
            self.longest.as_secs_f32()
        ));
    }
}

impl Story {
    fn dice(&mut self, sides: u64) -> u64 {
        self.random = mix(self.random);
        self.random % sides
    }

    fn node(&self, number: usize) -> &Machine {
        [self.pair.one(), self.pair.two()][number]
    }

    fn active(&self) -> &Machine {
        self.node(self.active)
    }

    fn standby(&self) -> &Machine {
        self.node(1 - self.active)
    }

    fn acks(&self) -> usize {
        self.pair.cluster.ledger(&[self.run]).count(Kind::Ack)
    }

    /// One cut, and everything until both copies count again.
    fn round(&mut self) -> anyhow::Result<String> {
        self.run += 1;
        let fsync = match self.run % 2 {
            0 => Fsync::Never,
            _ => Fsync::Every(1 + self.dice(16)),
        };
        let victim = [Victim::Active, Victim::Standby, Victim::Both][self.pick(3)];
        let link = match self.dice(8) {
            0 => Link::Flaps,
            // Without a standby that answers nobody would break the link on purpose.
            1 if victim != Victim::Both => Link::Broken,
            _ => Link::Stays,
        };
        let acks = usize::try_from(ACKS_BEFORE_CUT + self.dice(2 * ACKS_BEFORE_CUT))?;
        let writer = endless(self.run, fsync).start(self.active())?;
        self.pair.wait_acks(self.run, acks)?;
        match link {
            Link::Stays => {}
            Link::Flaps => self.flap()?,
            Link::Broken => {
                let (active, standby) = (self.active(), self.standby());
                self.pair.cluster.cut(active, standby, Net::Mirror)?;
                self.outcome.broken += 1;
            }
        }
        match victim {
            Victim::Active => self.active_cut(writer)?,
            Victim::Standby => self.standby_cut(writer, link)?,
            Victim::Both => self.both_cut(writer)?,
        }
        self.outcome.cuts[victim as usize] += 1;
        self.outcome.acked += self.acks();
        self.pair.assert_equal_copies()?;
        Ok(format!(
            "{victim:?}, link {link:?}, {fsync:?}: {} writes acknowledged, 0 lost",
            self.acks()
        ))
    }

    fn pick(&mut self, sides: u64) -> usize {
        usize::try_from(self.dice(sides)).unwrap_or(0)
    }

    /// The link is gone for a moment; the writer waits and goes on.
    fn flap(&mut self) -> anyhow::Result<()> {
        self.outcome.flaps += 1;
        let silent = self.dice(2) == 0;
        let (active, standby) = (self.active(), self.standby());
        if silent {
            self.pair.cluster.cut(active, standby, Net::Mirror)?;
        } else {
            active.link_down(Net::Mirror)?;
        }
        self.pair.wait_status(active, "/frozen", "peer-lost")?;
        if silent {
            active.hear(Net::Mirror)?;
            standby.hear(Net::Mirror)?;
        } else {
            active.link_up(Net::Mirror)?;
        }
        self.pair.wait_status(active, "/link/state", "up")?;
        let before = self.acks();
        self.pair.wait_acks(self.run, before + ACKS_AFTER_WORD)
    }

    fn cut(&mut self, number: usize) -> anyhow::Result<()> {
        let seed = self.dice(u64::MAX);
        let lost = self.node(number).power_cut(seed)?;
        self.outcome.lost_by_disks += lost.lost;
        self.outcome.torn_by_disks += lost.torn;
        Ok(())
    }

    fn judge(&self, node: &Machine, durability: Durability) -> anyhow::Result<()> {
        let runs: Vec<u32> = (self.first_run..=self.run).collect();
        let verdict = check(
            &self.pair.cluster.ledger(&runs),
            node.disk("data")?,
            durability,
        )?;
        verdict.require_ok().with_context(|| {
            format!(
                "{} after run {}, which began on {}",
                node.name(),
                self.run,
                self.active().name()
            )
        })
    }

    fn active_cut(&mut self, writer: Running) -> anyhow::Result<()> {
        self.cut(self.active)?;
        drop(writer);
        let start = Instant::now();
        let (dead, standby) = (self.active(), self.standby());
        self.pair.wait_status(standby, "/link/state", "down")?;
        self.pair.takeover(standby)?;
        let served = start.elapsed();
        self.judge(standby, Durability::Acked)?;
        // What this node ignores on the broken link ends before the other one is back.
        mend(standby)?;
        self.pair.bring_back(dead)?;
        self.pair.wait_in_sync()?;
        self.outcome.longest = self.outcome.longest.max(served);
        self.active = 1 - self.active;
        Ok(())
    }

    /// The other server's copy is brought up to date while the writer goes on.
    fn standby_cut(&mut self, writer: Running, link: Link) -> anyhow::Result<()> {
        self.cut(1 - self.active)?;
        let start = Instant::now();
        let (active, dead) = (self.active(), self.standby());
        self.pair.wait_status(active, "/frozen", "peer-lost")?;
        let before = self.acks();
        self.pair.takeover(active)?;
        self.pair.wait_acks(self.run, before + 1)?;
        let served = start.elapsed();
        self.pair.wait_acks(self.run, before + ACKS_AFTER_WORD)?;
        if link == Link::Broken {
            mend(active)?;
        }
        self.pair.bring_back(dead)?;
        self.pair.wait_in_sync()?;
        writer.kill()?;
        let output = writer.wait()?;
        ensure!(
            !output.stderr.contains("failed"),
            "the writer saw an error: {output:?}"
        );
        active.exec_ok("sync")?;
        self.judge(active, Durability::Acked)?;
        self.judge(dead, Durability::Acked)?;
        self.outcome.longest = self.outcome.longest.max(served);
        Ok(())
    }

    /// Both come back; either may serve then.
    fn both_cut(&mut self, writer: Running) -> anyhow::Result<()> {
        let first = self.pick(2);
        self.cut(first)?;
        self.cut(1 - first)?;
        drop(writer);
        let first = self.pick(2);
        self.pair.bring_back(self.node(first))?;
        self.pair.bring_back(self.node(1 - first))?;
        self.pair.wait_in_sync()?;
        self.pair.assert_equal_copies()?;
        // Without a flush nothing was promised, unless in an earlier run.
        let runs: Vec<u32> = (self.first_run..=self.run).collect();
        let ledger = self.pair.cluster.ledger(&runs);
        let verdict = check(&ledger, self.active().disk("data")?, Durability::Flushed)?;
        ensure!(verdict.ok(), "{verdict}");
        self.active = self.pick(2);
        self.pair.lockstep(self.active(), "activate")?;
        // What was acknowledged and not flushed may be gone, so the ledger begins anew, with an empty volume.
        let empty = format!(
            "blkdiscard -z --offset 0 --length {} {DEVICE}",
            LEDGER_MIB << 20
        );
        let output = self.active().exec(&empty, COMMAND_LIMIT)?;
        ensure!(output.ok(), "{output:?}");
        // With the device named, `sync` flushes it; without, it only writes back what the kernel has of it.
        self.active().exec_ok(&format!("sync {DEVICE}"))?;
        self.first_run = self.run + 1;
        Ok(())
    }
}

/// Ends a silent loss, if there is one.
fn mend(node: &Machine) -> anyhow::Result<()> {
    let table = format!("lockstep_{}", Net::Mirror.card());
    node.exec_ok(&format!(
        "! nft list table netdev {table} >/dev/null 2>&1 || nft delete table netdev {table}"
    ))
    .map(drop)
}
