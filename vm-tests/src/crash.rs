//! Crashes that are made up afterwards: what one recorded run would have left, had the power gone at any moment.

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;

use anyhow::Context as _;
use vm_guest::pattern::mix;
use vm_guest::record::Kind;

use crate::checker::{Durability, ReadAt, Verdict, check};
use crate::daemons::Part;
use crate::ledger::Ledger;
use crate::volatile::Odds;
use crate::write_log::{Change, Power, WriteLog};

/// A run of a pair: both disks of both nodes, and what was promised meanwhile.
pub struct Recording {
    /// Of `node1` and `node2`, in the order of [`Part::ALL`].
    pub disks: [[WriteLog; 2]; 2],
    /// From when on all disks were recorded.
    pub begin: u64,
    /// What was promised.
    pub ledger: Ledger,
    /// The boots of both machines.
    pub boots: [String; 2],
    /// The cluster's key.
    pub key: Vec<u8>,
    /// When only one copy counted.
    pub alone: Vec<Alone>,
}

/// A time in which only one copy counted.
#[derive(Clone, Debug)]
pub struct Alone {
    /// From before the operator's word to after both copies count again.
    pub orders: RangeInclusive<u64>,
    /// Whose copy: node 0 is `node1`.
    pub node: usize,
}

/// Next to what a cut is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A write to a metadata disk.
    Metadata,
    /// A flush of any disk.
    Flush,
    /// An acknowledged write.
    Ack,
    /// An acknowledged flush.
    FlushAck,
    /// Nothing in particular.
    Anywhere,
}

impl Moment {
    const ALL: [Self; 5] = [
        Self::Metadata,
        Self::Flush,
        Self::Ack,
        Self::FlushAck,
        Self::Anywhere,
    ];
}

/// Who loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// Both nodes.
    Both,
    /// One node, 0 is `node1`; the daemon of the other is killed at the same moment, its machine stays.
    One(usize),
}

/// One crash.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Its number in the plan.
    pub number: u32,
    /// The last thing that happened.
    pub order: u64,
    /// Next to what.
    pub moment: Moment,
    /// Whom it hits.
    pub victim: Victim,
    odds: Odds,
    seed: u64,
}

impl Cut {
    /// What happens to a disk.
    #[must_use]
    pub fn power(&self, node: usize, part: Part) -> Power {
        match self.victim {
            Victim::One(victim) if victim != node => Power::Stays,
            Victim::Both | Victim::One(_) => Power::Goes {
                odds: self.odds,
                seed: mix(self.seed ^ (node as u64 * 2 + part as u64)),
            },
        }
    }

    /// The boot that a node's daemon finds afterwards.
    #[must_use]
    pub fn boot(&self, recording: &Recording, node: usize) -> String {
        match self.victim {
            Victim::One(victim) if victim != node => recording.boots[node].clone(),
            Victim::Both | Victim::One(_) => {
                let (high, low) = (mix(self.seed ^ 17), mix(self.seed ^ (23 + node as u64)));
                format!(
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    high >> 32,
                    (high >> 16) & 0xffff,
                    high & 0xffff,
                    low >> 48,
                    low & 0xffff_ffff_ffff
                )
            }
        }
    }
}

impl Recording {
    /// Cuts in rising order, chosen by a seed.
    #[must_use]
    pub fn plan(&self, count: u32, seed: u64) -> Vec<Cut> {
        let moments = self.moments();
        let mut random = mix(seed);
        let mut dice = |sides: usize| {
            random = mix(random);
            usize::try_from(random % sides.max(1) as u64).unwrap_or(0)
        };
        let mut cuts = Vec::new();
        for number in 0..count {
            let mut at = dice(moments.len());
            // There is always something: the recording has writes.
            while moments[at].1.is_empty() {
                at = dice(moments.len());
            }
            let (moment, orders) = &moments[at];
            let order = orders[dice(orders.len())];
            cuts.push(Cut {
                number,
                // Just before it or just after it.
                order: order - dice(2) as u64,
                moment: *moment,
                victim: [Victim::Both, Victim::Both, Victim::One(0), Victim::One(1)][dice(4)],
                odds: [Odds::MIXED, Odds::MIXED, Odds::ALL_LOST, Odds::FEW_LOST][dice(4)],
                seed: mix(seed ^ (u64::from(number) << 32)),
            });
        }
        cuts.sort_by_key(|cut| cut.order);
        cuts
    }

    fn moments(&self) -> Vec<(Moment, Vec<u64>)> {
        let of = |moment: Moment| -> Vec<u64> {
            let disks = self.disks.iter().flatten().enumerate();
            let changes = disks.flat_map(|(disk, log)| {
                let is_metadata = disk % 2 == Part::Metadata as usize;
                let wanted = move |change: &Change| match change {
                    Change::Flush => matches!(moment, Moment::Flush | Moment::Anywhere),
                    Change::Write { .. } => {
                        moment == Moment::Anywhere || (moment == Moment::Metadata && is_metadata)
                    }
                };
                let entries = log.entries.iter();
                entries
                    .filter(move |entry| wanted(&entry.change))
                    .map(|entry| entry.order)
            });
            let promises = self.ledger.entries.iter();
            let promises = promises.filter(|entry| {
                let kind = entry.record.kind;
                (kind == Kind::Ack && moment == Moment::Ack)
                    || (kind == Kind::FlushAck && moment == Moment::FlushAck)
            });
            let all = changes.chain(promises.map(|entry| entry.order));
            all.filter(|order| *order > self.begin).collect()
        };
        Moment::ALL
            .into_iter()
            .map(|moment| (moment, of(moment)))
            .collect()
    }

    /// What must have survived a cut.
    #[must_use]
    pub fn durability(&self, cut: &Cut) -> Durability {
        let Victim::One(victim) = cut.victim else {
            return Durability::Flushed;
        };
        let only_copy = |alone: &Alone| alone.node == victim && alone.orders.contains(&cut.order);
        if self.alone.iter().any(only_copy) {
            // The other copy did not count: it is as with a single disk.
            Durability::Flushed
        } else {
            Durability::Acked
        }
    }

    /// Judges what a copy holds after a cut.
    ///
    /// # Errors
    /// If it cannot be read. Damage is in the verdict.
    pub fn judge(&self, cut: &Cut, copy: &dyn ReadAt) -> anyhow::Result<Verdict> {
        check(
            &self.ledger.promised_by(cut.order),
            copy,
            self.durability(cut),
        )
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()> {
        self.read_exact_at(data, offset)
            .with_context(|| format!("read at {offset}"))
    }
}

/// Fails at the first difference of two files.
///
/// # Errors
/// If they differ or cannot be read.
pub fn assert_equal_files(one: &File, two: &File, bytes: u64) -> anyhow::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(PIECE_BYTES.min(bytes - at))?;
        let (mut left, mut right) = (vec![0; length], vec![0; length]);
        one.read_exact_at(&mut left, at)?;
        two.read_exact_at(&mut right, at)?;
        if left != right {
            let pairs = left.iter().zip(&right);
            let first = pairs.take_while(|(left, right)| left == right).count();
            anyhow::bail!("the copies differ from byte {}", at + first as u64);
        }
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
