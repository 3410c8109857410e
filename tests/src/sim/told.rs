//! Schedules that are told by what happens in them, and the mutants that they catch. Random seeds hardly meet these
//! moments; `scenarios_told.rs` runs them on the right core, `cargo mutants-sim` on a wrong one.

mod beside;
mod compared;
mod ends;
mod failed;
mod forced;
mod frozen;
mod keepers;
mod kernel;
mod late;
mod proof;
mod register;
mod services;
mod shelf;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mirror_core::admin::{Command, Done, LinkState, Refusal, Role};
use mirror_core::event::{Request, RequestKind};
use mirror_core::types::{SectorRange, Tag};

use super::mutants::{Row, Wrong, set_core};
use super::node::{id, name};
use super::world::{Mutant, Plan, World};

/// The moments that matter are shorter than a step: some of these seeds hit them.
const SEEDS: Range<u64> = 0..40;

/// Whether a seed met the moment, or the broken rule.
type Outcome = Result<bool, String>;

/// A law, and the schedule that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// As a test is named.
    pub law: &'static str,
    /// Mutants that it catches.
    pub catches: &'static [&'static str],
    /// With this seed, and this fault of the simulated shell.
    tell: fn(u64, Option<Mutant>) -> Outcome,
}

/// All of them.
pub const ALL: [Told; 38] = [
    beside::BESIDE,
    ends::DEPOSED,
    ends::REIGNS_AGAIN,
    ends::ENDS_BY_FORCE,
    failed::AGREED_IN_VAIN,
    failed::FAILED_UNHEARD,
    failed::FILLED,
    failed::DURABLE_BESIDE_A_FAILURE,
    kernel::INHERITED,
    late::TOO_LATE,
    late::OTHER_VIEW,
    late::BOOTED,
    late::OTHER_EPOCH,
    proof::TOLD_AFTER_PROOF,
    proof::BELIEVED_AGAIN,
    compared::COMPARED,
    compared::REFUSED,
    compared::ISOLATED,
    failed::FAILED_IN_HAND,
    keepers::CARRIED,
    keepers::ASKED,
    keepers::ASKED_IN_VAIN,
    register::OUT_OF_ORDER,
    register::HELD_YET,
    services::RESTARTED,
    frozen::WAITS,
    forced::FORCED_APART,
    forced::FORCED_MARKED,
    shelf::LEAVER_RETURNS,
    shelf::LEAVER_AT_ONCE,
    shelf::IMAGE_RETURNS,
    shelf::IMAGE_AGREES,
    shelf::IMAGE_BESIDE_A_FILLING,
    shelf::OTHER_BRANCH,
    shelf::OLD_SOURCE,
    shelf::OLD_TARGET,
    shelf::LEFT_IN_VAIN,
    shelf::LONG_OFF,
];

impl Told {
    /// Tells it on every seed, on a core that is wrong like that. Returns how many seeds met the moment.
    ///
    /// # Errors
    ///
    /// The first broken rule, with its seed.
    pub fn tell(&self, wrong: Option<Wrong>) -> Result<u64, (u64, String)> {
        let shell = wrong.and_then(Wrong::of_shell);
        let mut met = 0;
        for seed in SEEDS {
            set_core(wrong);
            let outcome = catch_unwind(AssertUnwindSafe(|| (self.tell)(seed, shell)));
            set_core(None);
            let outcome = outcome.unwrap_or_else(|_| Err("the core panicked (I9)".to_string()));
            met += u64::from(outcome.map_err(|failure| (seed, failure))?);
        }
        Ok(met)
    }
}

/// The law that a mutant breaks by the check that names its rule, if one of these schedules is for it.
pub fn kill(row: &Row) -> Option<String> {
    let mut laws = ALL.iter().filter(|told| told.catches.contains(&row.name));
    laws.find_map(|told| {
        let (_, failure) = told.tell(Some(row.wrong)).err()?;
        let line = failure.lines().next().unwrap_or_default();
        row.is_named_by(line)
            .then(|| format!("{}: {line}", told.law))
    })
}

// --- what they share --------------------------------------------------------------------------

/// Two nodes whose first copy is finished; nobody serves.
fn pair(seed: u64) -> Result<World, String> {
    pair_of(seed, 6000)
}

fn pair_of(seed: u64, sectors: u64) -> Result<World, String> {
    let mut world = World::new(seed, Plan::quiet(sectors));
    let finished = |world: &World| world.coverage.get("CopyFinished") == Some(&2);
    until(&mut world, 60_000, "the first copy ends", finished)?;
    Ok(world)
}

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

/// Lets time pass until it is so; that it comes to pass is a law of its own.
fn until(
    world: &mut World,
    millis: u64,
    what: &str,
    reached: impl Fn(&World) -> bool,
) -> Result<(), String> {
    if world.run_until(millis, reached) {
        return well(world);
    }
    let never = || format!("{what}: not within {millis} ms (I9)");
    Err(world.failure.clone().unwrap_or_else(never))
}

/// The same, to the very step.
fn step_until(
    world: &mut World,
    what: &str,
    reached: impl Fn(&World) -> bool,
) -> Result<(), String> {
    let end = world.now + 20_000 * super::node::MS;
    while !reached(world) {
        if world.now > end || world.failure.is_some() {
            let never = || format!("{what}: never (I9)");
            return Err(world.failure.clone().unwrap_or_else(never));
        }
        world.step();
    }
    Ok(())
}

fn well(world: &World) -> Result<(), String> {
    world.failure.clone().map_or(Ok(()), Err)
}

/// An operator wants the volume, and asks again while the node is busy.
fn serve(world: &mut World, node: usize) -> Result<(), String> {
    for _ in 0..100 {
        let command = world.command(node, Command::Activate);
        let answered = |world: &World| world.answers.contains_key(&command);
        until(world, 20_000, "a node answers", answered)?;
        match &world.answers[&command] {
            Ok(Done::Active) => return Ok(()),
            Err(Refusal::Busy) => world.run_for(10),
            other => return Err(format!("{node} cannot serve: {other:?} (I9)")),
        }
    }
    Err(format!("{node} is busy for ever (I9)"))
}

fn ask(world: &mut World, node: usize, tag: u16, kind: RequestKind, range: (u64, u32)) {
    let request = Request {
        tag: Tag(tag),
        kind,
        range: SectorRange::new(range.0, range.1),
        fua: false,
    };
    world.ask(node, request);
}

fn write(world: &mut World, node: usize, tag: u16, start: u64, count: u32) {
    ask(world, node, tag, RequestKind::Write, (start, count));
}

fn off(node: usize) -> Command {
    let confirm = format!("{} is off", name(1 - node));
    Command::Takeover { confirm }
}

fn is_up(world: &World) -> bool {
    let up = |node| world.status(node).map(|status| status.link.state) == Some(LinkState::Up);
    up(0) && up(1)
}

/// Both copies count, both nodes say so, and they hold the same.
fn come_together(world: &mut World) -> Result<(), String> {
    until(world, 30_000, "both copies count", |world| {
        let views = [world.nodes[0].view(), world.nodes[1].view()];
        views[0] == views[1] && views[0].insync.len() == 2 && is_up(world)
    })?;
    world.run_for(300);
    if world.nodes[0].data.content != world.nodes[1].data.content {
        return Err("both copies count and differ (S7 I4)".to_string());
    }
    well(world)
}

fn is_fenced(world: &World, node: usize) -> bool {
    world.role(node) == Some(Role::Fenced)
}

/// The command is carried out, as often as it takes while something else is under way.
fn answered(world: &mut World, node: usize, command: Command, done: Done) -> Result<(), String> {
    for _ in 0..50 {
        let number = world.command(node, command.clone());
        let heard = |world: &World| world.answers.contains_key(&number);
        until(world, 20_000, "a command is answered", heard)?;
        if world.answers[&number] == Ok(done) {
            return Ok(());
        }
        world.run_for(50);
    }
    Err(format!("{command:?}: never {done:?} (I9)"))
}

/// Node 1 has stopped, with the consent of node 0.
fn has_left(world: &World) -> bool {
    world.nodes[1].process.is_none() && world.nodes[0].view().is_sole(id(0))
}
