//! Operators who look after a volume: they compare its copies, mark one to be filled anew, pause a resync.
//!
//! What must hold: a verify finds what is damaged and nothing else (I14); what it repaired is right again, on
//! both copies, for good (I11); a marked copy does not count, durably, when that is said (I12); a paused resync
//! sends nothing (I13).

use std::collections::BTreeSet;

use mirror_core::admin::{Command, Done, Notice, Outcome, Role, UpkeepNotice, VerifyState};
use mirror_core::types::{NodeSet, SectorRange};
use mirror_core::wire::FrameKind;

use super::aside::Aside;
use super::faults::{Kind, Trouble};
use super::node::{MS, id, name};
use super::rng::Rng;
use super::world::{Happening, World};

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Compares both copies.
    Verify,
    /// The same, and repairs.
    Repair,
    /// Ends that.
    StopVerify,
    /// Marks a copy.
    Invalidate,
    /// The same, without the right words.
    InvalidateUnconfirmed,
    /// Pauses a resync, and lets it go on later.
    Pause,
    /// Compares both copies, and repairs from the one that does not serve.
    RepairBack,
}

const ALL: [(Upkeep, u64); 6] = [
    (Upkeep::Verify, 30),
    (Upkeep::Repair, 15),
    (Upkeep::StopVerify, 8),
    (Upkeep::Invalidate, 6),
    (Upkeep::InvalidateUnconfirmed, 1),
    (Upkeep::Pause, 25),
];

/// What the operators did, and what was done behind the mirror's back.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// Sectors of each node that hold something that nobody wrote.
    pub(super) damaged: [BTreeSet<usize>; 2],
    /// The process on which a resync is paused, by node.
    paused: [Option<u64>; 2],
    /// What resyncs and verifies could not read.
    pub(super) aside: Aside,
}

/// What operators do in a run, with chances of their own: other troubles stay as they are.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x7570_6b65_6570);
    if rng.percent(40) {
        return Vec::new();
    }
    let pause = rng.between(100, 2000) * MS / haste;
    let mut troubles = Vec::new();
    let mut at = millis.start * MS + rng.below(pause);
    while at < millis.end * MS {
        let mut dice = Rng::new(rng.bits());
        let mut left = dice.below(ALL.iter().map(|(_, weight)| weight).sum());
        let drawn = ALL.iter().find(|(_, weight)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        let what = drawn.map_or(Upkeep::Verify, |(what, _)| *what);
        let node = dice.index(2);
        at += dice.between(MS, pause * 2);
        troubles.push(Trouble::at(at, Kind::Upkeep(what), node, dice));
    }
    troubles
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl World {
    pub(super) fn upkeep(&mut self, what: Upkeep, node: usize, dice: &mut Rng) {
        let serves = self.active().unwrap_or(0);
        let right = if dice.percent(85) { serves } else { node };
        match what {
            Upkeep::Verify => self.ask_for(right, verify(false)),
            Upkeep::Repair => self.ask_for(right, verify(true)),
            Upkeep::RepairBack => {
                let repair_from = Some(name(1 - right).to_string());
                let repair = true;
                self.ask_for(
                    right,
                    Command::Verify {
                        repair,
                        repair_from,
                        confirm: "data".to_string(),
                    },
                );
            }
            Upkeep::StopVerify => self.ask_for(right, Command::VerifyStop),
            Upkeep::Invalidate => {
                let standby = if dice.percent(85) { 1 - serves } else { node };
                let confirm = "data".to_string();
                self.ask_for(standby, Command::Invalidate { confirm });
            }
            Upkeep::InvalidateUnconfirmed => {
                let confirm = "date".to_string();
                self.ask_for(1 - serves, Command::Invalidate { confirm });
            }
            Upkeep::Pause => {
                self.ask_for(right, Command::ResyncPause);
                let after = dice.between(10 * MS, 3000 * MS) / self.plan.haste;
                self.at(after, Happening::Resume { node: right });
            }
        }
    }

    /// What was paused goes on, trouble or not.
    pub(super) fn resume(&mut self, node: usize) {
        if self.nodes[node].paused_until > self.now {
            self.at(10 * MS, Happening::Resume { node });
        } else {
            self.ask_for(node, Command::ResyncResume);
        }
    }

    /// What an answer promises.
    pub(super) fn check_answer(&mut self, node: usize, process: u64, outcome: &Outcome) {
        match outcome {
            Ok(Done::Invalidated) => {
                let superblock = self.nodes[node].meta.peek();
                if !superblock.invalidated || superblock.view.insync.contains(id(node)) {
                    let view = superblock.view;
                    self.fail(format!(
                        "{node}: its copy was marked, and nothing durable says so: {view:?} (I12)"
                    ));
                }
                let other = NodeSet::only(id(1 - node));
                if self.nodes[node].view().insync != other {
                    self.fail(format!("{node}: the last good copy was marked (I12)"));
                }
            }
            Ok(Done::ResyncPaused) => self.care.paused[node] = Some(process),
            Ok(Done::ResyncGoesOn) => self.care.paused[node] = None,
            Ok(_) | Err(_) => {}
        }
    }

    /// A pause ends with the resync that it is for.
    pub(super) fn forget_pause(&mut self, node: usize) {
        let view = self.nodes[node].view();
        let alone = view.insync == NodeSet::only(id(node));
        if !alone {
            self.care.paused[node] = None;
        }
        self.care.aside.alone(node, alone, self.now);
    }

    pub(super) fn check_pause(&mut self, node: usize, process: u64, kind: FrameKind) {
        let sends = matches!(
            kind,
            FrameKind::CopyWrite | FrameKind::CopyZeroes | FrameKind::CopyHash
        );
        if sends && self.care.paused[node] == Some(process) {
            self.fail(format!("{node} sends {kind:?} of a paused resync (I13)"));
        }
    }

    /// Whether a sector is damaged on either side, and exempt from comparison.
    pub(super) fn is_damaged(&self, sector: usize) -> bool {
        self.care.damaged.iter().any(|set| set.contains(&sector))
    }

    /// Whether a verify is under way.
    pub(super) fn verifies(&self) -> bool {
        let mut found = (0..2).filter_map(|node| self.status(node)?.verify);
        found.any(|verify| matches!(verify.state, VerifyState::Running | VerifyState::Waiting))
    }

    /// A disk write has landed: what was damaged there is not any more.
    pub(super) fn overwritten(&mut self, node: usize, range: SectorRange) {
        self.care.aside.holds(node, range);
        let damaged = &mut self.care.damaged[node];
        if !damaged.is_empty() {
            let (start, end) = (index(range.start), index(range.end()));
            damaged.retain(|sector| !(start..end).contains(sector));
        }
    }

    pub(super) fn check_verify(&mut self, node: usize, notice: &Notice) {
        if let Notice::Upkeep(UpkeepNotice::VerifyDiffers { range }) = notice {
            let mut sectors = index(range.start)..index(range.end());
            let forgot = self.nodes.iter().any(|place| place.data.went_back);
            if !forgot && !sectors.any(|sector| self.is_damaged(sector)) {
                let history = self.model.explain(range.start);
                self.fail(format!(
                    "{node}: a verify says that {range:?} differs, and nothing was damaged there (I14):{history}"
                ));
            }
        }
        let Notice::Upkeep(UpkeepNotice::VerifyEnded {
            state,
            differing,
            repaired,
            ..
        }) = notice
        else {
            return;
        };
        self.count(match state {
            VerifyState::Done => "verify done",
            VerifyState::Stopped => "verify stopped",
            VerifyState::Interrupted => "verify interrupted",
            VerifyState::Running | VerifyState::Waiting => "verify without end",
        });
        if *repaired > 0 {
            self.count("blocks repaired");
        }
        if repaired > differing {
            self.fail(format!(
                "{node}: {repaired} of {differing} differences are repaired (I11)"
            ));
        }
    }

    /// Begins a verify on whoever may, and waits for its end. `None`: it did not come to one.
    pub(super) fn verify_now(
        &mut self,
        command: Command,
    ) -> Option<mirror_core::admin::VerifyStatus> {
        let node = (0..2)
            .find(|node| self.role(*node) == Some(Role::Active))
            .unwrap_or(0);
        self.verify_ends(node)?;
        let number = self.command(node, command);
        if !matches!(self.answers.get(&number), Some(Ok(_))) {
            return None;
        }
        self.verify_ends(node)
    }

    /// Waits until no verify runs on a node, and returns what the last one found.
    fn verify_ends(&mut self, node: usize) -> Option<mirror_core::admin::VerifyStatus> {
        let of = |world: &World| world.status(node).and_then(|status| status.verify);
        let over = |world: &World| of(world).is_none_or(|verify| verify.ended_ms.is_some());
        // A run of a slow disk takes most of a second.
        let limit_ms = 60_000 + self.plan.sectors * 5;
        let end = self.now + limit_ms * MS;
        while !over(self) && self.now < end && self.failure.is_none() {
            self.run_for(20);
        }
        if self.failure.is_some() {
            return None;
        }
        if !over(self) {
            self.fail(format!("{node}: a verify does not end (I9)"));
            return None;
        }
        Some(of(self).unwrap_or(NOTHING))
    }
}

const NOTHING: mirror_core::admin::VerifyStatus = mirror_core::admin::VerifyStatus {
    state: VerifyState::Done,
    repair_from: None,
    checked_bytes: 0,
    total_bytes: 0,
    rate_bytes_per_s: 0,
    eta_s: None,
    differing_bytes: 0,
    repaired_bytes: 0,
    unreadable_bytes: 0,
    ranges: Vec::new(),
    ended_ms: None,
};

/// A verify from the node that serves.
pub(super) fn verify(repair: bool) -> Command {
    Command::Verify {
        repair,
        repair_from: None,
        confirm: String::new(),
    }
}
