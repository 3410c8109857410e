//! What goes wrong, at random. Each run has its own mixture, drawn before it begins: every trouble has
//! chances of its own, so that leaving one out changes nothing of the others.

use std::fmt;

use mirror_core::admin::Command;

use super::ambush::Trap;
use super::node::{MS, Node};
use super::outage::{self, Outage};
use super::rng::Rng;
use super::stuck;
use super::theme::Theme;
use super::unreadable::{self, Unreadable};
use super::upkeep::{self, Upkeep};
use super::whole;
use super::world::{Happening, World};

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every connection breaks.
    Break,
    /// The network swallows everything for a while.
    Silence,
    /// The network swallows what one node sends.
    OneWay,
    /// A daemon is killed.
    Kill,
    /// A machine loses its power.
    PowerCut,
    /// Both do.
    BothPowerCut,
    /// A machine stands still.
    Pause,
    /// An operator wants the volume.
    Activate,
    /// An operator ends a service.
    Deactivate,
    /// The same, whatever is lost by it.
    ForceDeactivate,
    /// A word that names nobody.
    Unconfirmed,
    /// The other machine is switched off, and an operator says so.
    Takeover,
    /// An operator says so, and it is not true.
    WrongWord,
    /// An operator ends a daemon.
    Stop,
    /// The service ends, to go on somewhere.
    Move,
    /// A disk fails for a while.
    DiskFails,
    /// The peer is dialled once more.
    SecondConnection,
    /// The same, as soon as the connections break.
    Lie,
    /// What the node sends is lost from now on, and soon an operator gives a wrong word there.
    MuffledWord,
    /// The standby's daemon is killed and starts at once; then an operator gives a wrong word there.
    Forgetful,
    /// The standby is asked to end.
    Leave,
    /// A daemon is killed and starts at once.
    Restart,
    /// Connections break, and before anybody notices an operator ends the service.
    EndBroken,
    /// Whoever serves has to stop, whatever is lost by it.
    Throw,
    /// Nothing, but the next trouble waits.
    Nothing,
    /// A trouble waits for its moment.
    Trap(&'static Trap),
    /// Any trouble waits for any moment.
    Ambush,
    /// One path is cut for a while.
    PathCut,
    /// One path loses what one node sends.
    PathOneWay,
    /// The connections of one path break.
    PathBreak,
    /// An operator keeps the copies in order.
    Upkeep(Upkeep),
    /// A disk cannot read.
    Unreadable(Unreadable),
    /// An operator isolates the standby's copy.
    Isolate,
    /// An operator attaches it again.
    Attach,
    /// A disk does not answer for a while.
    DiskSticks,
    /// A disk fails for a while, and loses what it had not flushed.
    DiskForgets,
    /// A disk fails as a whole, its metadata too; at once or at some moment.
    WholeDisk,
    /// The same at once.
    WholeDiskNow,
    /// An operator ends a service, and a moment later throws away what it still has to do.
    EndTwice,
    /// Interconnects, the register, or `lockstepd`.
    Outage(Outage),
}

const ALL: [(Kind, u64); 21] = [
    (Kind::Break, 20),
    (Kind::Silence, 8),
    (Kind::OneWay, 6),
    (Kind::Kill, 15),
    (Kind::PowerCut, 10),
    (Kind::BothPowerCut, 4),
    (Kind::Pause, 6),
    (Kind::Activate, 5),
    (Kind::Deactivate, 5),
    (Kind::ForceDeactivate, 5),
    (Kind::Unconfirmed, 4),
    (Kind::Takeover, 10),
    (Kind::WrongWord, 5),
    (Kind::Stop, 4),
    (Kind::Move, 8),
    (Kind::DiskFails, 6),
    (Kind::SecondConnection, 6),
    (Kind::Ambush, 8),
    (Kind::PathCut, 12),
    (Kind::PathOneWay, 6),
    (Kind::PathBreak, 8),
];

/// Some runs are about wrong words alone: only there a lease is all that keeps reads right.
const WORDS: [(Kind, u64); 5] = [
    (Kind::WrongWord, 20),
    (Kind::Break, 5),
    (Kind::OneWay, 5),
    (Kind::Kill, 10),
    (Kind::Move, 10),
];

/// One trouble of a run.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Nanoseconds after the start.
    at: u64,
    kind: Kind,
    /// Whom it concerns, if one.
    node: usize,
    dice: Rng,
}

impl Trouble {
    /// One that is not on a schedule.
    pub fn new(kind: Kind, node: usize, dice: Rng) -> Self {
        Self::at(0, kind, node, dice)
    }

    pub(super) fn at(at: u64, kind: Kind, node: usize, dice: Rng) -> Self {
        Self {
            at,
            kind,
            node,
            dice,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / 1e9;
        write!(out, "{seconds:>12.6} {:?} (node {})", self.kind, self.node)
    }
}

/// The troubles of a run, in their order.
#[derive(Clone, Debug, Default)]
pub struct Schedule(Vec<Trouble>);

impl Schedule {
    /// Troubles of `seed` within these milliseconds.
    pub fn new(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x7472_6f75_626c_6573);
        let liars = Rng::new(seed ^ 0x6c69_6172).percent(6);
        let theme = Theme::of(seed);
        let mixture = if let Some(theme) = theme {
            theme.mixture().to_vec()
        } else if liars {
            WORDS.to_vec()
        } else {
            Self::mixture(&mut rng)
        };
        let (dense, sparse) = if theme.is_some() {
            Theme::PAUSE_MS
        } else if haste > 1 {
            (50, 1000)
        } else {
            (100, 3000)
        };
        let pause = rng.between(dense, sparse) * MS / haste;
        let mut troubles = Vec::new();
        if let Some(kind) = theme.and_then(|theme| theme.opening(&mut rng)) {
            troubles.push(Trouble::new(kind, 0, Rng::new(rng.bits())));
        }
        let mut at = millis.start * MS + pause;
        while at < millis.end * MS {
            let mut dice = Rng::new(rng.bits());
            // Troubles like company.
            let next = if dice.percent(25) { 20 * MS } else { pause * 2 };
            let kind = Self::draw(&mut dice, &mixture);
            let node = dice.index(2);
            let after = dice.between(MS, next.max(MS));
            troubles.push(Trouble {
                at,
                kind,
                node,
                dice,
            });
            at += after;
        }
        if theme.is_none() {
            if seed % 10 == 2 {
                // An isolation needs two nodes that are well.
                troubles.retain(|trouble| trouble.dice.clone().percent(30));
            }
            if super::control::is_about(seed) {
                // A failover takes a while, and needs two nodes that are well.
                troubles.retain(|trouble| trouble.dice.clone().percent(20));
            }
            troubles.extend(Self::isolations(seed, millis.clone(), haste));
            troubles.extend(unreadable::troubles(seed, millis.clone(), haste));
            troubles.extend(upkeep::troubles(seed, millis.clone(), haste));
            troubles.extend(outage::troubles(seed, millis.clone(), haste));
            troubles.extend(whole::troubles(seed, millis.clone(), haste));
            troubles.extend(stuck::troubles(seed, millis, haste));
        }
        troubles.sort_by_key(|trouble| trouble.at);
        Self(troubles)
    }

    /// Some runs have operators who isolate and attach, by chances of their own: the others stay as they are.
    fn isolations(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
        let mut rng = Rng::new(seed ^ 0x6973_6f6c_6174_6564);
        let mut troubles = Vec::new();
        let mut at = millis.start * MS;
        while seed % 5 == 2 && at < millis.end * MS {
            at += rng.between(100 * MS, 6000 * MS) / haste;
            let mut dice = Rng::new(rng.bits());
            let after = dice.between(10 * MS, 8000 * MS) / haste;
            let node = dice.index(2);
            for (kind, at) in [(Kind::Isolate, at), (Kind::Attach, at + after)] {
                let dice = Rng::new(dice.bits());
                troubles.push(Trouble {
                    at,
                    kind,
                    node,
                    dice,
                });
            }
        }
        troubles
    }

    fn mixture(rng: &mut Rng) -> Vec<(Kind, u64)> {
        let mut mixture: Vec<(Kind, u64)> = Vec::new();
        let wrong_words = rng.percent(30);
        for (kind, weight) in ALL {
            // A pause that no clock sees voids the read lease (S5): not together with wrong words.
            let excluded =
                (kind == Kind::WrongWord && !wrong_words) || (kind == Kind::Pause && wrong_words);
            if !excluded && rng.percent(65) {
                mixture.push((kind, weight));
            }
        }
        if mixture.is_empty() {
            mixture.push((Kind::Break, 1));
        }
        mixture
    }

    fn draw(dice: &mut Rng, mixture: &[(Kind, u64)]) -> Kind {
        let total = mixture.iter().map(|(_, weight)| weight).sum();
        let mut left = dice.below(total);
        let drawn = mixture.iter().find(|(_, weight)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        drawn.map_or(Kind::Break, |(kind, _)| *kind)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without these.
    pub fn without(&self, left_out: std::ops::Range<usize>) -> Self {
        let kept = self.0.iter().enumerate();
        Self(
            kept.filter(|(place, _)| !left_out.contains(place))
                .map(|(_, trouble)| trouble.clone())
                .collect(),
        )
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Trouble> {
        self.0.iter()
    }
}

impl World {
    /// Trouble begins.
    pub fn begin_chaos(&mut self, schedule: &Schedule) {
        self.chaos = true;
        self.open_the_desk();
        self.open_the_register();
        self.open_the_control_planes();
        for trouble in schedule.iter() {
            let trouble = Box::new(trouble.clone());
            self.at(trouble.at, Happening::Trouble { trouble });
        }
    }

    pub(super) fn trouble(&mut self, trouble: Trouble) {
        let Some(trouble) = self.its_time_has_come(trouble) else {
            return;
        };
        let (node, mut dice) = (trouble.node, trouble.dice);
        match trouble.kind {
            Kind::Break => self.break_connections(),
            Kind::Silence => self.silent_for(&mut dice, [true, true]),
            Kind::OneWay => self.silent_for(&mut dice, [node == 0, node == 1]),
            Kind::Kill => self.kill_for_a_while(&mut dice, node),
            Kind::PowerCut => self.cut_for_a_while(&mut dice, node),
            Kind::BothPowerCut => {
                self.cut_for_a_while(&mut dice, 0);
                self.cut_for_a_while(&mut dice, 1);
            }
            Kind::Pause => {
                let time = self.hasty(&mut dice, 20, 4000);
                // One that no clock saw voids the read lease (S5), as with wrong words.
                let seen = dice.percent(50) || self.plan.arbiter || self.plan.control;
                self.pause(node, time / MS, seen);
            }
            Kind::Activate => self.ask_for(node, Command::Activate),
            Kind::Deactivate => self.deactivate(&mut dice, node, false),
            Kind::ForceDeactivate => self.deactivate(&mut dice, node, true),
            Kind::Unconfirmed => self.ask_for(
                node,
                Command::Takeover {
                    confirm: "gamma is off".to_string(),
                },
            ),
            Kind::Takeover => self.begin_takeover(node, false),
            Kind::WrongWord => self.wrong_word(&mut dice, node),
            Kind::Lie => {
                self.break_connections();
                self.wrong_word(&mut dice, node);
            }
            Kind::MuffledWord => self.muffled_word(dice, node),
            Kind::Forgetful => self.forgetful(dice),
            Kind::Leave => self.leave(),
            Kind::Restart => self.restart(&mut dice, node),
            Kind::EndBroken => self.end_broken(dice, node),
            Kind::Throw => (0..2).for_each(|node| self.deactivate(&mut dice, node, true)),
            Kind::Nothing => {}
            Kind::Trap(trap) => self.arm(*trap, dice),
            Kind::Ambush => {
                let trap = Trap::any(&mut dice);
                self.arm(trap, dice);
            }
            Kind::Stop => self.ask_for(node, Command::Stop),
            Kind::Isolate => self.isolate(&mut dice, node),
            Kind::Attach => self.attach_isolated(dice.percent(50)),
            Kind::DiskFails => self.disk_fails(node, dice.between(200, 8000)),
            Kind::DiskSticks => self.disk_sticks(node, &mut dice),
            Kind::WholeDisk => self.whole_disk(node, &mut dice),
            Kind::WholeDiskNow => self.whole_disk_now(node, &mut dice),
            Kind::EndTwice => self.end_twice(dice, node),
            Kind::DiskForgets => self.disk_forgets(node, dice.between(500, 4000)),
            Kind::SecondConnection => self.second_connection(),
            Kind::PathCut => self.path_cut_for(&mut dice, [true, true]),
            Kind::PathOneWay => self.path_cut_for(&mut dice, [node == 0, node == 1]),
            Kind::Unreadable(what) => self.unreadable(what, node, &mut dice),
            Kind::Upkeep(what) => self.upkeep(what, node, &mut dice),
            Kind::PathBreak => self.break_path(dice.index(2)),
            Kind::Move => self.move_away(&mut dice),
            Kind::Outage(outage) => self.outage_of(outage, node, &mut dice),
        }
    }

    fn kill_for_a_while(&mut self, dice: &mut Rng, node: usize) {
        self.kill(node);
        let longest = if dice.percent(30) { 100 } else { 3000 };
        let after = self.hasty(dice, 5, longest);
        self.at(after, Happening::Start { node });
    }

    fn restart(&mut self, dice: &mut Rng, node: usize) {
        self.kill(node);
        let after = dice.between(MS, 10 * MS);
        self.at(after, Happening::Start { node });
    }

    fn leave(&mut self) {
        if let Some(active) = self.active() {
            self.ask_for(1 - active, Command::Stop);
        }
    }

    fn end_broken(&mut self, mut dice: Rng, node: usize) {
        self.break_connections();
        let after = dice.between(MS, 10 * MS);
        self.trouble_later(after, Trouble::new(Kind::Move, node, dice));
    }

    fn end_twice(&mut self, mut dice: Rng, node: usize) {
        self.deactivate(&mut dice, node, false);
        let after = dice.between(0, 2 * MS);
        self.trouble_later(after, Trouble::new(Kind::ForceDeactivate, node, dice));
    }

    fn second_connection(&mut self) {
        if let Some(process) = self.nodes[1].process.as_ref() {
            let (node, process) = (1, process.number);
            self.at(0, Happening::SecondDial { node, process });
        }
    }

    fn move_away(&mut self, dice: &mut Rng) {
        if let Some(active) = self.active() {
            self.count("moves");
            self.deactivate(dice, active, false);
        }
    }

    /// Between `low` and `high` milliseconds, as nanoseconds, divided by the run's haste.
    fn hasty(&self, dice: &mut Rng, low: u64, high: u64) -> u64 {
        dice.between(low * MS, high * MS) / self.plan.haste
    }

    pub(super) fn ask_for(&mut self, node: usize, command: Command) {
        if self.status(node).is_some() {
            self.command(node, command);
        }
    }

    fn deactivate(&mut self, dice: &mut Rng, node: usize, force: bool) {
        if dice.percent(80)
            && let Some(device) = self.nodes[node].device.as_mut()
        {
            device.used &= force;
        }
        self.ask_for(node, Command::Deactivate { force });
    }

    /// Only while the other one cannot go alone by itself, and with honest clocks.
    fn wrong_word(&mut self, dice: &mut Rng, node: usize) {
        let running = |node: &Node| node.power && node.process.is_some();
        if self.nodes.iter().all(running) {
            if dice.percent(50) {
                // The word comes long before the peer's lease runs out.
                self.break_connections();
            }
            self.begin_takeover(node, true);
        }
    }

    /// The peer hears this node no more, but is heard itself until the word is given.
    fn muffled_word(&mut self, mut dice: Rng, node: usize) {
        if self.desk.case.is_some() {
            return;
        }
        self.silent_for(&mut dice, [node == 0, node == 1]);
        let after = dice.between(3 * MS, 40 * MS);
        self.trouble_later(after, Trouble::new(Kind::WrongWord, node, dice));
    }

    /// What the standby has granted is in nobody's memory any more.
    fn forgetful(&mut self, mut dice: Rng) {
        let Some(node) = self.active().map(|active| 1 - active) else {
            return;
        };
        self.kill(node);
        let start = dice.between(MS, 10 * MS);
        self.at(start, Happening::Start { node });
        let word = start + dice.between(5 * MS, 60 * MS);
        self.trouble_later(word, Trouble::new(Kind::WrongWord, node, dice));
    }

    pub(super) fn trouble_later(&mut self, after: u64, trouble: Trouble) {
        let trouble = Box::new(trouble);
        self.at(after, Happening::Trouble { trouble });
    }

    fn cut_for_a_while(&mut self, dice: &mut Rng, node: usize) {
        self.power_cut(node);
        let after = self.hasty(dice, 50, 6000);
        self.at(after, Happening::PowerOn { node });
    }

    fn silent_for(&mut self, dice: &mut Rng, silent: [bool; 2]) {
        if self.desk.case.is_some() {
            return;
        }
        self.count(if silent == [true, true] {
            "network silent"
        } else {
            "network silent one way"
        });
        self.silence(silent);
        // Long enough for both agents to ask.
        let decides = self.plan.arbiter || self.plan.control;
        let longest = if decides { 12_000 } else { 6000 };
        let after = self.hasty(dice, 50, longest);
        self.at(
            after,
            Happening::Heal {
                silent: [false, false],
            },
        );
    }

    fn path_cut_for(&mut self, dice: &mut Rng, silent: [bool; 2]) {
        self.count("path cut");
        let path = dice.index(2) % self.plan.paths;
        self.cut_path(path, silent);
        let after = self.hasty(dice, 50, 8000);
        self.at(after, Happening::HealPath { path });
    }

    /// No more trouble: everything gets power and network; of two paths one may stay cut.
    pub fn end_chaos(&mut self) {
        self.note(|| "no more trouble".to_string());
        self.chaos = false;
        self.armed.clear();
        self.desk.case = None;
        self.everything_can_be_read();
        self.whole_way_to_the_register();
        for path in 0..self.plan.paths {
            self.cut_path(path, [self.plan.lame_path == Some(path); 2]);
        }
        self.silence([false, false]);
        self.control_planes_have_peace();
        for node in 0..2 {
            self.nodes[node].held_off = false;
            self.power_on(node);
            self.at(20 * MS, Happening::DiskMended { node });
            self.at(6000 * MS, Happening::DiskMended { node });
            self.at(10 * MS, Happening::Start { node });
            self.at(5000 * MS, Happening::Start { node });
        }
    }
}
