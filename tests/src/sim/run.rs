//! One run from a seed: trouble, then peace; in peace the volume must become healthy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_core::admin::Command;
use mirror_core::types::NodeSet;

use super::arbiter;
use super::bereaved;
use super::control;
use super::damage::damage;
use super::failover;
use super::faults::Schedule;
use super::grow;
use super::mutants::{Wrong, set_core};
use super::node::{id, name};
use super::resolve;
use super::rng::Rng;
use super::theme::Theme;
use super::upkeep::verify;
use super::world::{Mutant, Plan, World};

/// After the last fault the volume is healthy within this time, and what a copy takes.
const PEACE_MS: u64 = 120_000;
/// A full copy beside an application takes longer: it works an eighth of the time at least (`engine/pace.rs`), on a disk
/// and a link that may both be slow.
const COPY_MS_PER_SECTOR: u64 = 1;
/// A silent peer is lost by then, without haste.
const LINK_LOST_MS: u64 = 5000;
/// Both nodes serve for so long, without haste.
const SPLIT_MS: u64 = 10_000;
/// Most runs have time-outs of a fifth and trouble as dense as that: as many faults in less work.
const HASTE: u64 = 5;
/// A verify under load takes as long as all that came before it.
const PEACEFUL_VERIFIES_PERCENT: u64 = 25;

/// By the seed: the product's, in haste, or a time in which a run gets to it.
const COPY_RETRY_MS: [u64; 5] = [6000, 100, 300, 1000, 200];

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The broken rule and the last steps.
    pub failure: Option<(String, Vec<String>)>,
    /// How often things happened.
    pub coverage: BTreeMap<String, u64>,
}

/// A run that can be repeated.
#[derive(Clone, Debug)]
pub struct Run {
    seed: u64,
    plan: Plan,
    wrong: Option<Wrong>,
    calm_ms: u64,
    trouble_ms: u64,
    /// What goes wrong.
    pub schedule: Schedule,
}

impl Run {
    /// The run of a seed.
    pub fn new(seed: u64, wrong: Option<Wrong>) -> Self {
        let plan = plan(seed, wrong.and_then(Wrong::of_shell));
        let mut rng = Rng::new(seed ^ 0x6c65_6e67_7468);
        let calm_ms = rng.between(0, 3000) / plan.haste;
        let trouble_ms = if plan.haste > 1 {
            rng.between(4000, 12_000)
        } else {
            rng.between(8000, 30_000)
        } / plan.haste;
        let length = match (plan.control, plan.arbiter) {
            (true, _) => 3,
            (false, true) => 2,
            (false, false) => 1,
        };
        let trouble_ms = trouble_ms * Theme::of(seed).map_or(length, Theme::length);
        Self {
            seed,
            schedule: Schedule::new(seed, calm_ms..calm_ms + trouble_ms, plan.haste),
            plan,
            wrong,
            calm_ms,
            trouble_ms,
        }
    }

    /// The run of a seed with bitmaps whose bits stand for so many bytes on each node. Nothing is damaged: what a verify
    /// finds then is counted in blocks that are alike.
    pub fn with_blocks(seed: u64, [one, other]: [u32; 2]) -> Self {
        let mut run = Self::new(seed, None);
        run.plan.bitmap_block_bytes = one;
        run.plan.other_block_bytes = Some(other);
        // An extent has whole blocks.
        run.plan.chunk_sectors = run.plan.chunk_sectors.max(one.max(other) / 512);
        run.plan.damage = false;
        run
    }

    /// Runs it; a failure is run again to write its steps down.
    pub fn go(&self) -> Report {
        let report = self.once();
        if report.failure.is_some() {
            return self.run(true, false);
        }
        report
    }

    /// Runs it and prints every step.
    pub fn traced(&self) -> Report {
        self.run(true, true)
    }

    /// Whether a rule is broken.
    pub fn fails(&self) -> bool {
        self.once().failure.is_some()
    }

    /// Runs it without writing its steps down.
    pub fn once(&self) -> Report {
        self.run(false, false)
    }

    fn run(&self, notes: bool, trace: bool) -> Report {
        let mut world = World::new(self.seed, self.plan.clone());
        world.notes = notes;
        world.trace = trace;
        set_core(self.wrong);
        let whole = catch_unwind(AssertUnwindSafe(|| {
            world.begin_chaos(&self.schedule);
            world.run_for(self.calm_ms + self.trouble_ms);
            world.end_chaos();
            peace(&mut world);
        }));
        set_core(None);
        if whole.is_err() {
            let panic = PANIC.with(RefCell::take);
            world.fail(format!("seed {}: the core panicked: {panic}", self.seed));
        }
        let steps: Vec<String> = world.steps.iter().cloned().collect();
        Report {
            failure: world.failure.map(|failure| (failure, steps)),
            coverage: world.coverage,
        }
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of the core is a failure of its seed: it is told with the others.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        PANIC.with(|panic| panic.replace(text));
    }));
}

/// After the last fault the volume is healthy within this time.
pub(super) fn peace_ms(world: &World) -> u64 {
    PEACE_MS + world.plan.sectors * COPY_MS_PER_SECTOR
}

fn plan(seed: u64, mutant: Option<Mutant>) -> Plan {
    let sectors = match seed % 64 {
        0 => 200 * 1024 + 40,
        1..=4 => 40 * 1024,
        5..=30 => 2048,
        _ => 5 * 1024 + 8 * (seed % 100),
    };
    let slow_copy_ms = match (seed / 16) % 4 {
        0 => 20,
        1 => 300,
        _ => 0,
    };
    let bitmap_block_bytes = match (seed / 8) % 8 {
        0 => 512,
        1 => 16 * 1024,
        _ => 4096,
    };
    let mut plan = Plan {
        slow_copy_ms,
        hot_extents_max: 3 + usize::try_from((seed / 4) % 6).unwrap_or(0),
        bitmap_block_bytes,
        application: true,
        split: seed % 16 == 9,
        force: seed % 16 == 13,
        damage: matches!(seed % 16, 5 | 11),
        arbiter: arbiter::is_about(seed),
        control: control::is_about(seed),
        garbage: !seed.is_multiple_of(4),
        slow_disk: (seed / 32) % 8 == 5,
        slow_network: (seed / 64) % 8 == 3,
        haste: if seed % 16 == 3 { 1 } else { HASTE },
        mutant,
        paths: if seed.is_multiple_of(3) { 1 } else { 2 },
        lame_path: match seed % 9 {
            1 => Some(0),
            2 => Some(1),
            _ => None,
        },
        copy_retry_ms: COPY_RETRY_MS[usize::try_from(seed % 5).unwrap_or(0)],
        detour_us: if seed % 5 == 1 { 8000 } else { 0 },
        ..Plan::quiet(sectors)
    };
    plan.habits.commits = Rng::new(seed ^ 0x636f_6d6d_6974).percent(20);
    if let Some(theme) = Theme::of(seed) {
        theme.adapt(seed, &mut plan);
        plan.disk_sectors = plan.sectors;
        return plan;
    }
    grow::plan(seed, plan)
}

fn peace(world: &mut World) {
    let peace_ms = peace_ms(world);
    let over = |world: &World| world.healthy() || world.is_bereft();
    let over = world.run_until(peace_ms, over);
    if world.is_bereft() {
        return world.force_what_failed_last();
    }
    if !over {
        let states = [world.status(0), world.status(1)].map(|status| {
            status.map(|status| {
                (
                    status.role,
                    status.frozen,
                    status.copy,
                    status.link.state,
                    status.view,
                    status.progress,
                )
            })
        });
        world.fail(format!(
            "not healthy after {peace_ms} ms of peace (I9): {states:?}"
        ));
        return;
    }
    if world.rng.percent(PEACEFUL_VERIFIES_PERCENT) {
        // Its copies are compared while it is used.
        let repair = world.rng.percent(30);
        let found = world.verify_now(verify(repair));
        if found.is_some_and(|found| found.differing_bytes > 0) {
            world.fail("a verify found differences, and nothing was damaged (I14)".to_string());
            return;
        }
    }
    let before = world.completed;
    if !world.run_until(30_000, |world| world.completed > before + 30) {
        world.fail("healthy, but the application does not get on (I9)".to_string());
        return;
    }
    let torn = world.plan.split && world.tears_a_grow();
    if !torn {
        world.last_grow();
    }
    rest(world);
    if world.plan.damage {
        damage(world);
    }
    if world.plan.arbiter {
        bereaved::bereave(world);
    } else if world.plan.control {
        failover::scenes(world);
    } else if world.plan.split {
        split(world, torn);
    } else if world.plan.force {
        resolve::force(world);
    }
}

/// Both nodes go alone on wrong words, and write: they must never come together again until an operator
/// discards one side.
fn split(world: &mut World, torn: bool) {
    let Some(active) = world.active().filter(|_| world.failure.is_none()) else {
        return;
    };
    if torn {
        world.begin_a_grow(active);
    }
    let winner = world.rng.index(2);
    world.begin_split(winner);
    world.start_application(active);
    world.silence([true, true]);
    world.run_for(LINK_LOST_MS / world.plan.haste);
    for node in [active, 1 - active] {
        let confirm = format!("{} is off", name(1 - node));
        world.command(node, Command::Takeover { confirm });
    }
    world.run_for(SPLIT_MS / world.plan.haste);
    let alone = |node: usize| world.nodes[node].view().is_sole(id(node));
    if !(alone(0) && alone(1)) {
        return;
    }
    world.count("both went alone");
    world.both_alone = true;
    world.silence([false, false]);
    world.run_for(SPLIT_MS / world.plan.haste);
    if world.failure.is_none() && !world.coverage.contains_key("refused SplitBrain") {
        world.fail("split histories were not refused (S8)".to_string());
    }
    resolve::resolve(world);
}

/// The application ends; after a while both copies are equal.
pub(super) fn rest(world: &mut World) {
    world.resting = true;
    come_to_rest(world);
    world.resting = false;
}

fn come_to_rest(world: &mut World) {
    world.desk.caring = false;
    for node in &mut world.nodes {
        if let Some(device) = node.device.as_mut() {
            device.used = false;
        }
    }
    world.run_for(3000 / world.plan.haste);
    let both = NodeSet::only(id(0)).with(id(1));
    let carried = (0..2).any(|node| world.view_in_force(node).insync != both);
    if world.failure.is_some() || carried {
        return;
    }
    // What was asked for last may still be under way on a slow disk.
    if world.run_until(30_000, World::at_rest) {
        world.must_be_equal();
        // Both hold the same, which nobody may ever have read.
        world.judge_what_was_written(0);
    } else {
        world.fail(
            "the application has ended, but the volume does not come to rest (I9)".to_string(),
        );
    }
}
