//! What goes wrong around the control planes: interconnects, the register and the ways to it, `lockstepd` itself.

use super::ambush::{Moment, Trap, Whom};
use super::arbiter;
use super::control::{self, Step};
use super::faults::{Kind, Trouble};
use super::node::MS;
use super::rng::Rng;
use super::wishes;
use super::words::LATE_MS;
use super::world::{Mutant, World};

/// Kinds of outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// An interconnect is cut.
    Interconnect,
    /// What a node sends on an interconnect is lost.
    InterconnectOneWay,
    /// All interconnects are cut; the mirror link works.
    AllInterconnects,
    /// The mirror link alone is cut.
    LinkAlone,
    /// Nothing gets from one node to the other.
    Apart,
    /// Nothing that one node sends arrives at the other.
    ApartOneWay,
    /// A node reaches neither the other one nor the register.
    Alone,
    /// A node does not reach the register.
    RegisterCut,
    /// The register does not run for a while.
    RegisterDown,
    /// The register is started again.
    RegisterRestarts,
    /// The register loses its data.
    RegisterForgets,
    /// The register's data are put back from an earlier copy.
    RegisterPutBack,
    /// Somebody makes that copy.
    RegisterCopied,
    /// `lockstepd` is killed.
    Killed,
    /// `lockstepd` does not run for a while.
    Stuck,
    /// The part that decides does not run for a while.
    DecidingStuck,
    /// A machine stands still and does not see it.
    Blind,
    /// Nothing gets through until somebody was granted something; then the next thing happens.
    Chain,
    /// An operator wishes something; by chances of its own.
    Wish,
}

const ALL: [(Outage, u64); 18] = [
    (Outage::Interconnect, 6),
    (Outage::InterconnectOneWay, 4),
    (Outage::AllInterconnects, 4),
    (Outage::LinkAlone, 8),
    (Outage::Apart, 14),
    (Outage::ApartOneWay, 6),
    (Outage::Alone, 8),
    (Outage::RegisterCut, 3),
    (Outage::RegisterDown, 3),
    (Outage::RegisterRestarts, 2),
    (Outage::RegisterForgets, 2),
    (Outage::RegisterPutBack, 2),
    (Outage::RegisterCopied, 4),
    (Outage::Killed, 7),
    (Outage::Stuck, 6),
    (Outage::DecidingStuck, 4),
    (Outage::Blind, 5),
    (Outage::Chain, 25),
];

/// By chances of their own.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let (scripted, real) = (arbiter::is_about(seed), control::is_about(seed));
    if scripted || real {
        troubles.extend(moves(seed, millis.clone(), haste));
    }
    if !real {
        return troubles;
    }
    let wishes = wishes::wishes(seed, millis.clone(), haste);
    troubles.extend(
        wishes
            .into_iter()
            .map(|(at, outage, node, dice)| Trouble::at(at, Kind::Outage(outage), node, dice)),
    );
    let mut rng = Rng::new(seed ^ 0x6f75_7461_6765);
    let dense = rng.between(1000, 9000);
    let total: u64 = ALL.iter().map(|(_, weight)| weight).sum();
    let mut at = millis.start * MS;
    while at < millis.end * MS {
        // Outages like company.
        let pause = if rng.percent(25) { 400 } else { dense };
        at += rng.between(MS, pause * MS) / haste;
        let mut left = rng.below(total);
        let drawn = ALL.iter().find(|(_, weight)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        let outage = drawn.map_or(Outage::Apart, |(outage, _)| *outage);
        let dice = Rng::new(rng.bits());
        let node = rng.index(2);
        troubles.push(Trouble::at(at, Kind::Outage(outage), node, dice));
    }
    troubles
}

/// A view is durable on the side that agreed to it, and the other one never hears of it.
static MOVES: Trap =
    Trap::new(Moment::Calm, Kind::Move, Whom::Own, (0, 20_000)).then(&SILENT_AT_CONSENT);
static SILENT_AT_CONSENT: Trap = Trap::new(Moment::Agrees, Kind::Silence, Whom::Own, (0, 0));

/// Views change by consent, and are interrupted; whoever decides in that run.
pub(super) fn moves(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x6172_6269_7465);
    let mut troubles = Vec::new();
    let mut at = millis.start * MS;
    while at < millis.end * MS {
        let trap = if rng.percent(50) {
            &MOVES
        } else {
            &SILENT_AT_CONSENT
        };
        let dice = Rng::new(rng.bits());
        troubles.push(Trouble::at(at, Kind::Trap(trap), 0, dice));
        at += rng.between(500 * MS, 6000 * MS) / haste;
    }
    troubles
}

impl World {
    pub(super) fn outage_of(&mut self, outage: Outage, node: usize, dice: &mut Rng) {
        self.note(|| format!("outage {outage:?} (node {node})"));
        let one_way = [node == 0, node == 1];
        match outage {
            Outage::Interconnect => {
                let path = dice.index(self.control.interconnects.count());
                self.control.interconnects.cut[path] = [true; 2];
            }
            Outage::InterconnectOneWay => {
                let path = dice.index(self.control.interconnects.count());
                self.control.interconnects.cut[path] = one_way;
            }
            Outage::AllInterconnects => self.control.interconnects.cut_all([true; 2]),
            Outage::LinkAlone => self.silence([true; 2]),
            Outage::Apart => self.part([true; 2]),
            Outage::ApartOneWay => self.part(one_way),
            Outage::Alone => {
                self.part([true; 2]);
                self.control.witness.cut[node] = true;
            }
            Outage::RegisterCut => self.control.witness.cut[node] = true,
            Outage::RegisterDown => {
                self.control.witness.up = false;
                self.control.witness.restarts();
                let after = self.outage_time(dice);
                return self.control_later(after, Step::RegisterUp);
            }
            Outage::RegisterRestarts => return self.control.witness.restarts(),
            Outage::RegisterForgets => return self.register_forgets(),
            Outage::RegisterPutBack => return self.register_is_put_back(),
            Outage::RegisterCopied => return self.control.witness.is_copied(),
            Outage::Killed => {
                self.control_ends(node);
                return self.control_starts_later(node);
            }
            Outage::Stuck => {
                let until = self.now + self.outage_time(dice);
                let stuck = &mut self.control.stuck_until[node];
                *stuck = until.max(*stuck);
                return self.count("control: lockstepd stuck");
            }
            Outage::DecidingStuck => {
                let time = self.outage_time(dice);
                return self.deciding_sticks(node, time);
            }
            Outage::Blind => return self.blind_pause(node, dice),
            Outage::Wish => return self.somebody_wishes(node, dice),
            Outage::Chain => {
                self.heal_the_control_planes();
                self.part([true; 2]);
                self.control.ambushes = true;
                let after = dice.between(6000 * MS, 15_000 * MS) / self.plan.haste;
                return self.control_later(after, Step::Heal);
            }
        }
        let after = self.outage_time(dice);
        self.control_later(after, Step::Heal);
    }

    /// A word was said: often something happens before it is carried out. Returns how late it is.
    pub(super) fn ambush_a_word(&mut self, node: usize) -> u64 {
        let noisy = self.chaos && self.control.interconnects.noisy;
        let likely = if std::mem::take(&mut self.control.ambushes) {
            80
        } else {
            15
        };
        if !noisy || !self.control.rng.percent(likely) {
            return 0;
        }
        self.count("control: word ambushed");
        let haste = self.plan.haste;
        let late = self.control.rng.between(500 * MS, LATE_MS * MS) / haste;
        let heal = self.control.rng.below(1500 * MS) / haste;
        self.control_later(heal, Step::Heal);
        let dice = Rng::new(self.control.rng.bits());
        match self.control.rng.below(4) {
            // Another run does not know what this one was granted.
            0 | 1 => {
                self.control_ends(node);
                let after = self.control.rng.below(600 * MS) / haste;
                self.control_later(after, Step::Start { node });
            }
            2 => self.trouble_later(
                self.now % 7 * MS,
                Trouble::new(Kind::Outage(Outage::RegisterForgets), node, dice.clone()),
            ),
            _ => {}
        }
        let apart = heal + self.control.rng.between(300 * MS, 4000 * MS) / haste;
        let outage = if self.control.rng.percent(50) {
            Outage::Alone
        } else {
            Outage::Apart
        };
        self.trouble_later(apart, Trouble::new(Kind::Outage(outage), node, dice));
        late
    }

    /// Something was granted: sometimes the register forgets it at once.
    pub(super) fn ambush_a_grant(&mut self, node: usize) {
        if self.chaos && self.control.rng.percent(40) {
            self.count("control: grant ambushed");
            let after = self.control.rng.below(300 * MS) / self.plan.haste;
            let dice = Rng::new(self.control.rng.bits());
            let outage = if self.control.rng.percent(50) {
                Outage::RegisterForgets
            } else {
                Outage::RegisterPutBack
            };
            self.trouble_later(after, Trouble::new(Kind::Outage(outage), node, dice));
        }
    }

    /// Often long enough for a failover, and for the way back.
    fn outage_time(&self, dice: &mut Rng) -> u64 {
        let longest = [500, 3000, 6000, 15_000][dice.index(4)];
        dice.between(20 * MS, longest * MS) / self.plan.haste
    }

    /// The mirror network is whole again, unless a scene needs it otherwise.
    pub(super) fn heal_silence(&mut self, silent: [bool; 2]) {
        if !self.control.in_a_scene {
            self.silence(silent);
        }
    }

    /// Nothing of these senders arrives, on any path.
    pub(super) fn part(&mut self, silent: [bool; 2]) {
        self.silence(silent);
        self.control.interconnects.cut_all(silent);
    }

    fn register_forgets(&mut self) {
        self.count("control: register forgets");
        self.control.witness.forgets();
    }

    fn register_is_put_back(&mut self) {
        self.count("control: register put back");
        let believed = self.plan.mutant == Some(Mutant::RegisterBackupBelieved);
        self.control.witness.is_put_back(believed);
    }

    fn blind_pause(&mut self, node: usize, dice: &mut Rng) {
        let time = self.outage_time(dice) / 2;
        self.pause(node, time / MS, false);
        self.control.interconnects.is_blind(node, self.now + time);
        let lease = self.control_ms(4000);
        let blind = &mut self.control.blind_until[node];
        *blind = (self.now + time + lease).max(*blind);
    }

    /// Interconnects, mirror link and the ways to the register are whole again.
    pub(super) fn heal_the_control_planes(&mut self) {
        self.control.interconnects.cut_all([false; 2]);
        self.control.witness.cut = [false; 2];
        self.silence([false; 2]);
    }

    /// No more trouble.
    pub(super) fn control_planes_have_peace(&mut self) {
        if self.plan.control {
            self.heal_the_control_planes();
            self.control.witness.up = true;
            self.control.held_off = [false; 2];
            for node in 0..2 {
                self.control_starts_later(node);
            }
        }
    }
}
