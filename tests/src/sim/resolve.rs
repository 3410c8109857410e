//! Two histories, and an operator who ends one of them; a copy that is recovered by force.

use mirror_core::admin::{Command, Done, Keep, Outcome, Refusal, Role};
use mirror_core::disk::Operation;
use mirror_core::event::Event;
use mirror_core::types::{NodeSet, SECTOR_BYTES};

use super::model::Judgement;
use super::node::{MS, id, name};
use super::world::{Happening, World};

/// Wall-clock time at which every run begins.
const BEGINNING_S: u64 = 1_700_000_000;
/// A silent or dead peer is lost by then, without haste.
const LOST_MS: u64 = 5000;
/// An application works for so long, without haste.
const WORK_MS: u64 = 5000;
/// An operator is done with something within this time.
const OPERATOR_MS: u64 = 60_000;
/// Nodes fail for so long while the discarded copy is filled, without haste.
const DISTURBED_MS: u64 = 5000;
/// Between two looks of the operator.
const LOOK_MS: u64 = 10;
/// From the operator's word on the volume is healthy within this time.
const HEALTHY_MS: u64 = 120_000;

/// Both sides met and refused each other: an operator looks, and discards one.
pub(super) fn resolve(world: &mut World) {
    let Some(winner) = world.split_winner.filter(|_| world.failure.is_none()) else {
        return;
    };
    let loser = 1 - winner;
    idle(world);
    let shown = |world: &World| (0..2).all(|node| shows_both_sides(world, node));
    if !world.run_until(OPERATOR_MS, shown) {
        world.fail("split histories are refused, and not shown on both sides (S8)".to_string());
        return;
    }
    check_figures(world);
    check_unique(world);
    if !discard(world, loser) {
        return;
    }
    world.count("split brain resolved");
    world.desk.caring = true;
    settle(world, winner);
}

fn shows_both_sides(world: &World, node: usize) -> bool {
    let status = world.status(node);
    let split = status.and_then(|status| status.split);
    split.is_some_and(|split| split.other.is_some())
}

/// The applications pause.
fn idle(world: &mut World) {
    for node in &mut world.nodes {
        if let Some(device) = node.device.as_mut() {
            device.used = false;
        }
    }
    world.run_until(OPERATOR_MS, World::at_rest);
}

/// What both sides show together is not less than what differs.
fn check_figures(world: &mut World) {
    let shown = [0, 1].map(|node| {
        let split = world.status(node).and_then(|status| status.split);
        split.map_or(0, |split| split.this.unique_bytes)
    });
    // What lies behind the volume's end means nothing.
    let size = world.largest_size();
    let contents = [0, 1].map(|node| &world.nodes[node].data.content[..size]);
    let pairs = contents[0].iter().zip(contents[1].iter());
    let differ = pairs.filter(|(one, other)| one != other).count() as u64 * SECTOR_BYTES;
    if shown[0] + shown[1] < differ {
        world.fail(format!(
            "the sides show {shown:?} bytes of their own, and {differ} differ (S8)"
        ));
    }
}

/// Every block that differs is among what one of the sides has alone: what an undo would need is kept (S8).
fn check_unique(world: &mut World) {
    let sides = [0, 1].map(|node| {
        let process = world.nodes[node].process.as_ref();
        process.map(|process| process.volume.unique())
    });
    let [Some(one), Some(other)] = sides else {
        return;
    };
    let size = world.largest_size();
    let blocks = [&one, &other].map(|side| u64::from(side.header.block_bytes) / SECTOR_BYTES);
    let contents = [0, 1].map(|node| &world.nodes[node].data.content[..size]);
    let pairs = (0u64..).zip(contents[0].iter().zip(contents[1].iter()));
    let lost = pairs
        .filter(|(_, (one, other))| one != other)
        .map(|(sector, _)| sector)
        .find(|sector| !one.contains(sector / blocks[0]) && !other.contains(sector / blocks[1]));
    if let Some(sector) = lost {
        world.fail(format!(
            "sector {sector} differs, and neither side says that it has it alone (S8)"
        ));
    }
}

/// Something that must not matter happens to one of the nodes.
fn disturb(world: &mut World) {
    if !world.rng.percent(2) {
        return;
    }
    let node = world.rng.index(2);
    if !world.nodes[node].power || world.nodes[node].process.is_none() {
        return;
    }
    if world.rng.percent(60) {
        world.kill(node);
        let after = world.micros(1000, 500_000) / world.plan.haste;
        world.at(after, Happening::Start { node });
    } else {
        world.power_cut(node);
        let after = world.micros(1000, 2_000_000) / world.plan.haste;
        world.at(after, Happening::PowerOn { node });
    }
}

/// An operator repeats a command until it has its answer; the node may fail meanwhile.
pub(super) fn insist(
    world: &mut World,
    node: usize,
    command: impl Fn(&World) -> Option<Command>,
    mut over: impl FnMut(&World, &Outcome) -> bool,
) -> bool {
    let mut asked: Option<(u64, u64)> = None;
    for _ in 0..OPERATOR_MS / LOOK_MS {
        world.run_for(LOOK_MS);
        if world.failure.is_some() {
            return false;
        }
        let running = world.nodes[node].process.as_ref();
        let running = running.map(|process| process.number);
        if let Some((number, process)) = asked {
            if let Some(answer) = world.answers.get(&number).cloned() {
                if over(world, &answer) {
                    return true;
                }
                asked = None;
            } else if running != Some(process) {
                asked = None;
            }
        } else if let (Some(process), Some(_)) = (running, world.status(node))
            && let Some(command) = command(world)
        {
            asked = Some((world.command(node, command), process));
        }
        disturb(world);
    }
    false
}

fn discard(world: &mut World, loser: usize) -> bool {
    let given_up = world.nodes[loser].view().mark();
    let command = |world: &World| match world.role(loser) {
        Some(Role::Fenced) => Some(Command::Resolve {
            discard: name(loser).to_string(),
            confirm: "data".to_string(),
            keep: Keep::No,
        }),
        Some(Role::Active) => Some(Command::Deactivate { force: true }),
        _ => None,
    };
    let mut was_active = false;
    let over = |world: &World, answer: &Outcome| {
        was_active |= matches!(answer, Err(Refusal::Serving));
        let durable = world.nodes[loser].view().insync.is_empty();
        // A crash between the record and the answer: it is found discarded, or nothing is left of it.
        matches!(answer, Ok(Done::Discarded)) || durable
    };
    let mut done = insist(world, loser, command, over);
    done |= world.nodes[loser].view().insync != NodeSet::only(id(loser));
    if world.failure.is_some() {
        return false;
    }
    let superblock = world.nodes[loser].meta.peek().clone();
    let entry = superblock.record.operations.iter().next().copied();
    let recorded = entry.is_some_and(|entry| entry.operation == Operation::Discard);
    // It may be filled again by now.
    if !done || superblock.view.is_sole(id(loser)) || !recorded {
        world.fail(format!(
            "a history was discarded, and that is not durable: {:?}, {entry:?}, before {given_up:?} (S8)",
            superblock.view
        ));
        return false;
    }
    true
}

/// The discarded copy is filled, and everything that the winner acknowledged is on both.
fn settle(world: &mut World, winner: usize) {
    for _ in 0..DISTURBED_MS / LOOK_MS / world.plan.haste {
        world.run_for(LOOK_MS);
        disturb(world);
    }
    if !world.run_until(HEALTHY_MS, World::healthy) {
        let views = [0, 1].map(|node| world.nodes[node].view());
        world.fail(format!(
            "not healthy after one history was discarded (I9): {views:?}"
        ));
        return;
    }
    let before = world.completed;
    if !world.run_until(OPERATOR_MS, |world| world.completed > before + 20) {
        world.fail("resolved, but the application does not get on (I9)".to_string());
        return;
    }
    world.desk.caring = false;
    idle(world);
    world.run_for(3000 / world.plan.haste);
    if world.failure.is_some() || !world.healthy() {
        return;
    }
    if !world.run_until(OPERATOR_MS, World::at_rest) {
        world.fail("the application has ended, but the volume does not come to rest (I9)".into());
        return;
    }
    world.must_be_equal();
    world.judge_everything(winner);
}

/// The only good copy is lost, and an operator forces the other one.
pub(super) fn force(world: &mut World) {
    let Some(source) = world.active().filter(|_| world.failure.is_none()) else {
        return;
    };
    let target = 1 - source;
    let Some(filled) = leave_behind(world, source, target) else {
        return;
    };
    if filled {
        must_not_be_forced(world, target);
        return;
    }
    let before = world.nodes[target].view();
    let wanted = |_: &World| {
        Some(Command::Force {
            confirm: "data".to_string(),
        })
    };
    let over = |world: &World, answer: &Outcome| {
        matches!(answer, Ok(Done::Forced)) || world.nodes[target].view().is_sole(id(target))
    };
    world.nodes[source].held_off = true;
    if !insist(world, target, wanted, over) {
        world.fail("an incomplete copy could not be recovered by force (I9)".to_string());
        return;
    }
    let after = world.nodes[target].view();
    if !after.is_sole(id(target)) || after.epoch.0 < before.epoch.0 + 1000 {
        world.fail(format!(
            "recovered by force from {before:?} under {after:?} (S8)"
        ));
        return;
    }
    world.count("recovered by force");
    // What the model is told: from now on every sector holds what this disk holds, and nothing else.
    let content = world.nodes[target].data.content.clone();
    world.model.begin_anew(&content);
    world.begin_split(target);
    world.both_alone = true;
    serve_forced(world, source, target);
}

/// The target misses writes, and the source dies: before the target is back, or in the middle of the resync.
/// Returns whether the resync was over by then.
fn leave_behind(world: &mut World, source: usize, target: usize) -> Option<bool> {
    let haste = world.plan.haste;
    let leaves = world.rng.percent(25);
    if leaves {
        // In peace: it writes down that it does not count any more.
        world.command(target, Command::Stop);
        world.run_for(LOST_MS / haste);
    } else {
        world.nodes[target].held_off = true;
        world.power_cut(target);
        world.run_for(LOST_MS / haste);
        let confirm = format!("{} is off", name(target));
        world.command(source, Command::Takeover { confirm });
    }
    world.start_application(source);
    world.run_for(WORK_MS / haste);
    if !world.nodes[source].view().is_sole(id(source)) {
        return None;
    }
    if !leaves {
        world.nodes[target].held_off = false;
        world.power_on(target);
        let time = world.rng.between(0, 2000) / haste;
        world.run_for(time);
    }
    world.nodes[source].held_off = true;
    world.power_cut(source);
    world.start(target);
    world.run_for(2 * LOST_MS / haste);
    if world.failure.is_some() {
        return None;
    }
    let place = &world.nodes[target];
    let counts = place.view().insync.contains(id(target));
    let copying = place.meta.peek().copy.is_some();
    world.count(match (counts, copying) {
        (true, _) => "force: the copy counts",
        (false, true) => "force: in the middle of a resync",
        (false, false) => "force: before a resync",
    });
    Some(counts)
}

/// The copy can be served as it is: force is not the verb.
fn must_not_be_forced(world: &mut World, target: usize) {
    let confirm = "data".to_string();
    let number = world.command(target, Command::Force { confirm });
    world.run_until(OPERATOR_MS, |world| world.answers.contains_key(&number));
    let answer = world.answers.get(&number);
    if !matches!(answer, Some(Err(Refusal::Promotable { .. }))) {
        world.fail(format!("a copy that counts was forced: {answer:?} (S9)"));
    }
}

/// The forced copy is served; the lost one comes back.
pub(super) fn serve_forced(world: &mut World, source: usize, target: usize) {
    let haste = world.plan.haste;
    let serve =
        |world: &World| (world.role(target) == Some(Role::Fenced)).then_some(Command::Activate);
    let served =
        |_: &World, answer: &Outcome| matches!(answer, Ok(Done::Active | Done::AlreadyActive));
    if !insist(world, target, serve, served) {
        if world.failure.is_none() && world.role(target) != Some(Role::Active) {
            world.fail("a copy that was recovered by force is not served (I9)".to_string());
        }
        return;
    }
    world.run_for(WORK_MS / haste);
    world.nodes[source].held_off = false;
    world.power_on(source);
    world.at(MS, Happening::Start { node: source });
    world.run_for(2 * WORK_MS / haste);
    resolve(world);
    let standing = world.nodes[target].meta.peek().record.operations;
    if world.failure.is_none() && standing.standing(Operation::Force).is_some() {
        world.fail("the copies are equal, and still one counts as recovered by force".to_string());
    }
}

impl World {
    /// Both sides go alone from now on. One will be kept: what its application sees is judged as ever. Of
    /// the other one's writes nothing may be left in the end.
    pub fn begin_split(&mut self, winner: usize) {
        self.split = true;
        self.split_winner = Some(winner);
        self.expect_split_brain();
        // From here on only the winner's disk counts.
        self.model.power_cut(1 - winner);
    }

    /// Every sector of a node that was ever written holds what it has to (I2, I3).
    pub(super) fn judge_what_was_written(&mut self, node: usize) {
        let size = self.largest_size();
        let sectors: Vec<usize> = self.model.touched.sectors(size).collect();
        self.judge_sectors(node, &sectors);
    }

    /// Every sector of a node holds what it has to.
    pub fn judge_everything(&mut self, node: usize) {
        // What lies behind the volume's end means nothing.
        let sectors: Vec<usize> = (0..self.largest_size()).collect();
        self.judge_sectors(node, &sectors);
    }

    fn judge_sectors(&mut self, node: usize, sectors: &[usize]) {
        let began = self.model.tick();
        for sector in sectors {
            let value = self.nodes[node].data.content[*sector];
            if self.is_damaged(*sector) {
                continue;
            }
            if let Judgement::Wrong(why) = self.model.judge(*sector as u64, value, began) {
                let history = self.model.explain(*sector as u64);
                self.fail(format!(
                    "{node}: in the end sector {sector} holds {value:#x}, {why}:{history}"
                ));
                return;
            }
        }
    }

    /// The shell hands the wall clock in.
    pub(super) fn read_the_wall_clock(&mut self, node: usize) {
        let unix_s = BEGINNING_S + self.now / (1000 * MS);
        self.feed(node, Event::WallClock { unix_s });
    }

    /// Nothing that this node's application sees or writes counts: its history will be discarded.
    pub(super) fn is_void(&self, node: usize) -> bool {
        self.split && self.split_winner != Some(node)
    }

    /// The other node went on alone from a view of before: a machine that stood still goes on activating. Nothing of that
    /// may be acknowledged (I1).
    pub(super) fn is_overtaken(&self, node: usize) -> bool {
        let theirs = self.nodes[1 - node].view();
        theirs.is_sole(id(1 - node)) && theirs.epoch > self.nodes[node].view().epoch
    }

    /// The loser's history is given up durably: from now on there is one again.
    pub(super) fn history_is_discarded(&mut self) {
        self.split = false;
        self.both_alone = false;
        self.split_winner = None;
    }
}
