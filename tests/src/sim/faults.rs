//! What goes wrong, at random. Each run has its own mixture.

use mirror_core::admin::Command;

use super::node::MS;
use super::world::{Happening, World};

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Break,
    Silence,
    OneWay,
    Kill,
    PowerCut,
    BothPowerCut,
    Pause,
    Activate,
    Deactivate,
    ForceDeactivate,
    Unconfirmed,
    Takeover,
    WrongWord,
    Stop,
    Move,
}

const ALL: [(Trouble, u64); 15] = [
    (Trouble::Break, 20),
    (Trouble::Silence, 8),
    (Trouble::OneWay, 6),
    (Trouble::Kill, 15),
    (Trouble::PowerCut, 10),
    (Trouble::BothPowerCut, 4),
    (Trouble::Pause, 6),
    (Trouble::Activate, 5),
    (Trouble::Deactivate, 5),
    (Trouble::ForceDeactivate, 5),
    (Trouble::Unconfirmed, 4),
    (Trouble::Takeover, 10),
    (Trouble::WrongWord, 5),
    (Trouble::Stop, 4),
    (Trouble::Move, 8),
];

/// The mixture of a run.
#[derive(Debug)]
pub(super) struct Chaos {
    mixture: Vec<(Trouble, u64)>,
    pause_ms: u64,
}

impl World {
    /// Trouble begins.
    pub fn begin_chaos(&mut self) {
        let mut mixture: Vec<(Trouble, u64)> = Vec::new();
        let wrong_words = self.rng.percent(30);
        for (trouble, weight) in ALL {
            // A pause that no clock sees voids the read lease (S5): not together with wrong words.
            let excluded = (trouble == Trouble::WrongWord && !wrong_words)
                || (trouble == Trouble::Pause && wrong_words);
            if !excluded && self.rng.percent(65) {
                mixture.push((trouble, weight));
            }
        }
        if mixture.is_empty() {
            mixture.push((Trouble::Break, 1));
        }
        let pause_ms = self.rng.between(100, 3000);
        self.chaos = Some(Chaos { mixture, pause_ms });
        self.open_the_desk();
        self.at(pause_ms * MS, Happening::Chaos);
    }

    pub(super) fn chaos(&mut self) {
        let Some(chaos) = self.chaos.as_ref() else {
            return;
        };
        let total: u64 = chaos.mixture.iter().map(|(_, weight)| weight).sum();
        let pause = chaos.pause_ms;
        let mut dice = self.rng.below(total);
        let trouble = chaos.mixture.iter().find(|(_, weight)| {
            let hit = dice < *weight;
            dice = dice.saturating_sub(*weight);
            hit
        });
        let trouble = trouble.map_or(Trouble::Break, |(trouble, _)| *trouble);
        // Troubles like company.
        let next = if self.rng.percent(25) {
            self.rng.between(1, 20)
        } else {
            self.rng.between(1, pause * 2)
        };
        self.at(next * MS, Happening::Chaos);
        self.trouble(trouble);
    }

    fn trouble(&mut self, trouble: Trouble) {
        let node = self.rng.index(2);
        match trouble {
            Trouble::Break => self.break_connections(),
            Trouble::Silence => self.silent_for([true, true]),
            Trouble::OneWay => self.silent_for([node == 0, node == 1]),
            Trouble::Kill => {
                self.kill(node);
                let after = self.micros(5000, 3_000_000);
                self.at(after, Happening::Start { node });
            }
            Trouble::PowerCut => self.cut_for_a_while(node),
            Trouble::BothPowerCut => {
                self.cut_for_a_while(0);
                self.cut_for_a_while(1);
            }
            Trouble::Pause => {
                let millis = self.rng.between(20, 4000);
                let seen = self.rng.percent(50);
                self.pause(node, millis, seen);
            }
            Trouble::Activate => self.ask_for(node, Command::Activate),
            Trouble::Deactivate => self.deactivate(node, false),
            Trouble::ForceDeactivate => self.deactivate(node, true),
            Trouble::Unconfirmed => self.ask_for(
                node,
                Command::Takeover {
                    confirm: "gamma is off".to_string(),
                },
            ),
            Trouble::Takeover => self.begin_takeover(node, false),
            Trouble::WrongWord => {
                // Only while the other one cannot go alone by itself, and with honest clocks.
                if self
                    .nodes
                    .iter()
                    .all(|node| node.power && node.process.is_some())
                {
                    self.begin_takeover(node, true);
                }
            }
            Trouble::Stop => self.ask_for(node, Command::Stop),
            Trouble::Move => {
                if let Some(active) = self.active() {
                    self.count("moves");
                    self.deactivate(active, false);
                }
            }
        }
    }

    fn ask_for(&mut self, node: usize, command: Command) {
        if self.status(node).is_some() {
            self.command(node, command);
        }
    }

    fn deactivate(&mut self, node: usize, force: bool) {
        if self.rng.percent(80)
            && let Some(device) = self.nodes[node].device.as_mut()
        {
            device.used &= force;
        }
        self.ask_for(node, Command::Deactivate { force });
    }

    fn cut_for_a_while(&mut self, node: usize) {
        self.power_cut(node);
        let after = self.micros(50_000, 6_000_000);
        self.at(after, Happening::PowerOn { node });
    }

    fn silent_for(&mut self, silent: [bool; 2]) {
        if self.desk.case.is_some() {
            return;
        }
        self.count(if silent == [true, true] {
            "network silent"
        } else {
            "network silent one way"
        });
        self.silence(silent);
        let after = self.micros(50_000, 6_000_000);
        self.at(
            after,
            Happening::Heal {
                silent: [false, false],
            },
        );
    }

    /// No more trouble: everything gets power and network.
    pub fn end_chaos(&mut self) {
        self.note(|| "no more trouble".to_string());
        self.chaos = None;
        self.desk.case = None;
        self.silence([false, false]);
        for node in 0..2 {
            self.nodes[node].held_off = false;
            self.power_on(node);
            self.at(10 * MS, Happening::Start { node });
            self.at(5000 * MS, Happening::Start { node });
        }
    }
}
