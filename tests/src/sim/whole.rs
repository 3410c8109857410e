//! Disks that fail as a whole, the metadata with the data, as in the default layout; and metadata that fail alone.
//! Every write, read and flush of such a disk fails, or nothing is answered any more. Some come to life again, with what
//! was on them, also with the metadata of before.
//!
//! I33: a node whose metadata failed writes none any more in that run of its daemon, and while it serves without them
//! the next run of that boot would not believe them. I34: a volume whose active node loses its disk, with the metadata
//! or not, while the other copy counts and is connected, goes on within a bound, and no request fails.

use mirror_core::admin::{CopyState, LinkState, Role};
use mirror_core::event::Event;
use mirror_core::types::BootId;
use mirror_core::view::View;

use super::ambush::{Moment, Trap, Whom};
use super::faults::{Kind, Trouble};
use super::node::{MS, id};
use super::rng::Rng;
use super::stuck::LIMIT;
use super::world::{Happening, World};

/// Superblocks, flushes and a change of view, on slow disks and a slow network.
const BOUND: u64 = 2500 * MS;
/// Whatever broke so long ago is known to both.
const SETTLED: u64 = 300 * MS;
/// Of such troubles so many are left alone by the others.
const CALM_PERCENT: u64 = 40;

/// What a node's metadata are worth.
#[derive(Debug, Default)]
pub struct Worth {
    /// A mark of this boot says that they are not to be believed.
    pub disowned: bool,
    /// Another one says that writes failed which the next run would wait for.
    writes_failed: bool,
    /// A third one says that the other node was asked to go on alone.
    pub asked: bool,
    /// The run of the daemon that met their failure.
    lost_by: u64,
    /// Under which it serves: the other node has that written down.
    carried: Option<View>,
    /// The service must go on.
    pub expected: Option<Expected>,
}

/// A disk failed under a service that has to go on.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Both daemons.
    processes: [u64; 2],
    until: u64,
    /// So long a request may wait.
    bound: u64,
    commands: u64,
    /// Other troubles wait.
    calm: bool,
    /// The oldest request that is not answered, and since when it is that.
    oldest: Option<u64>,
    oldest_seen: u64,
}

/// Which part fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Data and metadata, with an error.
    Whole,
    /// Neither answers.
    Stuck,
    /// The metadata alone, with an error.
    Metadata,
}

/// Some runs have such disks, by chances of their own: the others stay as they are.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x0077_686f_6c65);
    let mut troubles = Vec::new();
    let mut at = millis.start * MS;
    while seed % 7 == 5 && at < millis.end * MS {
        at += rng.between(50 * MS, 5000 * MS) / haste;
        let mut dice = Rng::new(rng.bits());
        let node = dice.index(2);
        troubles.push(Trouble::at(at, Kind::WholeDisk, node, dice));
    }
    troubles
}

impl World {
    /// A disk fails now, or at a moment that it waits for.
    pub(super) fn whole_disk(&mut self, node: usize, dice: &mut Rng) {
        const MOMENTS: [Moment; 10] = [
            Moment::Proposes,
            Moment::Agrees,
            Moment::Decides,
            Moment::Flushes,
            Moment::Links,
            Moment::Copies,
            Moment::Joins,
            Moment::Widens,
            Moment::Pages,
            Moment::Ends,
        ];
        if dice.percent(30) {
            let moment = MOMENTS[dice.index(MOMENTS.len())];
            let whom = if dice.percent(50) {
                Whom::Own
            } else {
                Whom::Other
            };
            let trap = Trap::new(moment, Kind::WholeDiskNow, whom, (0, 2000));
            return self.arm(trap, dice.clone());
        }
        let node = match self.active() {
            Some(active) if dice.percent(60) => active,
            _ => node,
        };
        self.whole_disk_now(node, dice);
    }

    pub(super) fn whole_disk_now(&mut self, node: usize, dice: &mut Rng) {
        let part = match dice.below(10) {
            0..=4 => Part::Whole,
            5..=7 => Part::Stuck,
            _ => Part::Metadata,
        };
        let forgets = dice.percent(40);
        let calm = dice.percent(CALM_PERCENT);
        let sticks = part == Part::Stuck;
        let millis = match (sticks, calm) {
            (true, _) => dice.between(1000, 8000),
            (false, true) => dice.between(500, 5000),
            (false, false) => dice.between(100, 8000) / self.plan.haste,
        };
        if !self.may_lose(node) {
            return;
        }
        // What broke before may not be known yet.
        let settled = self.disturbed + SETTLED <= self.now;
        self.fail_whole(node, part, millis);
        self.nodes[node].data.forgets = forgets && part == Part::Whole;
        if settled {
            self.expect_service(node, part, calm);
        }
        self.at(millis * MS, Happening::DiskMended { node });
        if calm {
            return;
        }
        for kind in [Kind::Break, Kind::Restart, Kind::PowerCut] {
            if dice.percent(15) {
                let after = dice.between(0, 400 * MS);
                let trouble = Box::new(Trouble::new(kind, node, Rng::new(dice.bits())));
                self.at(after, Happening::Trouble { trouble });
            }
        }
    }

    /// Another copy is good: nobody can serve what nobody has. One disk at a time.
    fn may_lose(&self, node: usize) -> bool {
        let other = &self.nodes[1 - node];
        let counts = other.view().insync.contains(id(1 - node)) && !other.meta.peek().failed;
        let good = counts && !self.has_old_disks(1 - node);
        let last = self.nodes[node].view().is_sole(id(node));
        let now = self.now;
        let faulty = self.nodes.iter().any(|place| {
            let superblock = place.meta.peek();
            let data = &place.data;
            let sticks = data.stuck_until > now || place.meta.stuck_until > now;
            sticks
                || data.failing
                || place.meta.failing
                || superblock.failed
                || superblock.peer_failed
        });
        let disowned = self.nodes.iter().any(|place| place.worth.disowned);
        good && !last && !faulty && !disowned && other.power && other.process.is_some()
    }

    /// A disk fails as a whole, or its metadata alone.
    pub fn fail_whole(&mut self, node: usize, part: Part, millis: u64) {
        self.note(|| format!("{node} {part:?} fails for {millis} ms"));
        self.count(match (part, self.nodes[node].device.is_some()) {
            (Part::Metadata, true) => "metadata fail on the active node",
            (Part::Metadata, false) => "metadata fail on the standby",
            (_, true) => "whole disk fails on the active node",
            (_, false) => "whole disk fails on the standby",
        });
        let place = &mut self.nodes[node];
        match part {
            Part::Stuck => return self.stick(node, millis, true),
            Part::Whole => {
                place.data.failing = true;
                place.data.dead = true;
            }
            Part::Metadata => {}
        }
        place.meta.failing = true;
    }

    // --- the mark -----------------------------------------------------------------------------

    /// The shell keeps the mark.
    pub(super) fn disown(&mut self, node: usize, process: u64) {
        let after = self.micros(1, 2000);
        self.at(after, Happening::Disowned { node, process });
    }

    pub(super) fn disowned(&mut self, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        self.count("copy disowned");
        self.nodes[node].worth.disowned = true;
        self.model.disk_failed(node);
        self.feed(node, Event::Disowned { kept: true });
    }

    /// No later effect is carried out before that mark is there.
    pub(super) fn disown_writes(&mut self, node: usize) {
        self.count("writes disowned");
        self.nodes[node].worth.writes_failed = true;
    }

    pub(super) fn disown_membership(&mut self, node: usize) {
        self.count("membership disowned");
        self.nodes[node].worth.asked = true;
    }

    /// A machine boots: its memory is gone, and the marks with it.
    pub(super) fn forget_marks(&mut self, node: usize) {
        let worth = &mut self.nodes[node].worth;
        (worth.disowned, worth.writes_failed, worth.asked) = (false, false, false);
    }

    /// A daemon starts: what its metadata say is believed only without the mark. Returns whether they can be read.
    pub(super) fn reads_its_metadata(&mut self, node: usize) -> bool {
        let place = &mut self.nodes[node];
        if place.data.dead {
            return false;
        }
        let worth = &mut place.worth;
        // From now on it is known that its disk failed, and what else it has lost.
        place.data.went_back &= !worth.disowned && !place.meta.peek().failed;
        if !worth.disowned && !worth.writes_failed && !worth.asked {
            return true;
        }
        if place.meta.failing {
            return false;
        }
        let disowned = std::mem::take(&mut worth.disowned);
        let writes_failed = std::mem::take(&mut worth.writes_failed);
        let asked = std::mem::take(&mut worth.asked);
        place.meta.mark(|superblock| {
            superblock.failed |= disowned;
            superblock.drained |= writes_failed && superblock.serving;
            if asked {
                superblock.member_boots[node] = BootId::NONE;
            }
        });
        if disowned {
            self.count("daemon started on a disowned copy");
        }
        if writes_failed {
            self.count("daemon started after writes were disowned");
        }
        if asked {
            self.count("daemon started after the other node was asked");
        }
        true
    }

    /// The metadata failed, or are given up: this run writes none any more (I33).
    pub(super) fn metadata_are_lost(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref();
        self.nodes[node].worth.lost_by = process.map_or(0, |process| process.number);
    }

    pub(super) fn check_metadata_write(&mut self, node: usize, process: u64) {
        if self.nodes[node].worth.lost_by == process && self.is_carried(node) {
            self.fail(format!(
                "{node} writes metadata after they failed, and serves without them (I33)"
            ));
        }
    }

    // --- what rules ---------------------------------------------------------------------------

    /// A view is durable on a node: perhaps it carries the other one.
    pub(super) fn note_carried(&mut self, node: usize, view: &View) {
        if view.active == Some(id(1 - node)) && view.is_sole(id(node)) {
            self.nodes[1 - node].worth.carried = Some(*view);
        }
    }

    /// The view under which a node serves without metadata: the other one wrote it down, and this one heard of it.
    fn carried_view(&self, node: usize) -> Option<View> {
        let place = &self.nodes[node];
        let lost = place.worth.lost_by;
        let runs = lost > 0 && place.process_is(lost);
        let newer = |view: &View| view.epoch > place.view().epoch;
        place.worth.carried.filter(newer).filter(|_| runs)
    }

    fn is_carried(&self, node: usize) -> bool {
        self.carried_view(node).is_some()
    }

    /// The view under which a node acknowledges: what is durable here, or if its metadata failed, what the other node
    /// has written down.
    pub(super) fn view_in_force(&self, node: usize) -> View {
        let own = self.nodes[node].view();
        self.carried_view(node).unwrap_or(own)
    }

    /// What is acknowledged without metadata is not denied by the next run.
    pub(super) fn check_carried(&mut self, node: usize) {
        if !self.is_carried(node) {
            return;
        }
        self.count("acknowledged without metadata");
        let place = &self.nodes[node];
        if !place.worth.disowned && !place.meta.peek().failed {
            self.fail(format!(
                "{node} serves through the other copy, and the next run of its daemon would believe its own metadata (I33)"
            ));
        }
    }

    // --- the service goes on ------------------------------------------------------------------

    /// Whether the service must go on although this disk fails.
    fn expect_service(&mut self, node: usize, part: Part, calm: bool) {
        let both = [node, 1 - node].map(|each| self.status(each));
        let [Some(own), Some(other)] = both else {
            return;
        };
        let well = own.role == Role::Active && other.role == Role::Fenced;
        let up = [&own, &other].into_iter().all(|status| {
            status.link.state == LinkState::Up
                && status.copy == CopyState::InSync
                && status.peer_copy == CopyState::InSync
                && !status.view.changing
                && status.growing.is_none()
                && status.frozen.is_none()
        });
        let same = own.view.epoch == other.view.epoch;
        let whole = (0..self.plan.paths).all(|path| !self.network.is_cut(path));
        let quiet = whole && !self.network.silent.contains(&true) && self.desk.case.is_none();
        let other = &self.nodes[1 - node].data;
        let quiet = quiet && other.unreadable.is_empty() && other.flaky_until <= self.now;
        let asked = self.commands == u64::try_from(self.answers.len()).unwrap_or(0);
        if !(well && up && same && quiet && asked) || self.split {
            return;
        }
        let waits = if part == Part::Stuck {
            // For the disk, and then for the metadata.
            2 * u64::try_from((LIMIT * 9 / 8).as_nanos()).unwrap_or(0)
        } else {
            0
        };
        self.count("service has to go on");
        let number = |each: usize| {
            self.nodes[each]
                .process
                .as_ref()
                .map_or(0, |process| process.number)
        };
        let processes = [number(0), number(1)];
        let bound = waits + BOUND;
        self.nodes[node].worth.expected = Some(Expected {
            processes,
            until: self.now + bound,
            bound,
            commands: self.commands,
            calm,
            oldest: None,
            oldest_seen: self.now,
        });
    }

    /// Something else happens: whatever comes of both is not judged here.
    pub(super) fn expect_nothing(&mut self) {
        for node in 0..2 {
            let expected = self.expects(node).is_some();
            if expected && self.view_in_force(node).is_sole(id(1 - node)) {
                self.count("service went on without its disk");
            }
            self.nodes[node].worth.expected = None;
        }
    }

    /// A trouble that has to begin now.
    pub(super) fn its_time_has_come(&mut self, trouble: Trouble) -> Option<Trouble> {
        if !self.chaos {
            return None;
        }
        if self.troubles_wait() {
            let trouble = Box::new(trouble);
            self.at(50 * MS, Happening::Trouble { trouble });
            return None;
        }
        self.expect_nothing();
        Some(trouble)
    }

    /// Whether other troubles wait until it is seen that the service goes on.
    fn troubles_wait(&self) -> bool {
        let waits = |expected: &Expected| expected.calm && self.now < expected.until;
        (0..2).any(|node| self.expects(node).as_ref().is_some_and(waits))
    }

    /// The expectation holds as long as nothing else happens.
    fn expects(&self, node: usize) -> Option<Expected> {
        let expected = self.nodes[node].worth.expected?;
        let runs = (0..2).all(|each| self.nodes[each].process_is(expected.processes[each]));
        let awake = self
            .nodes
            .iter()
            .all(|place| place.paused_until <= self.now);
        (self.commands == expected.commands && runs && awake).then_some(expected)
    }

    /// A request of the application failed.
    pub(super) fn check_failed_request(&mut self, node: usize) {
        if self.expects(node).is_some() {
            self.fail(format!(
                "{node}: a request failed although the other copy counts and is connected (I34)"
            ));
        }
    }

    /// No request waits for longer than the bound.
    pub(super) fn check_service(&mut self) {
        for node in 0..2 {
            let Some(mut expected) = self.expects(node) else {
                self.nodes[node].worth.expected = None;
                continue;
            };
            let device = self.nodes[node].device.as_ref();
            let slots = device.into_iter().flat_map(|device| &device.slots);
            let oldest = slots.flatten().map(|asked| asked.submitted).min();
            if oldest != expected.oldest {
                (expected.oldest, expected.oldest_seen) = (oldest, self.now);
            }
            let waited = self.now - expected.oldest_seen;
            if oldest.is_some() && waited > expected.bound {
                let waited_ms = waited / MS;
                return self.fail(format!(
                    "{node}: a request waits for {waited_ms} ms although the other copy counts and is connected (I34)"
                ));
            }
            self.nodes[node].worth.expected = Some(expected);
            if self.now >= expected.until {
                self.expect_nothing();
            }
        }
    }
}
