//! What the scenarios share: a healthy pair, requests, commands.
#![allow(dead_code, reason = "each test binary uses its own part")]

use lockstep_tests::sim::world::{Plan, World};
use mirror_core::admin::{Command, Done, Outcome};
use mirror_core::event::{Request, RequestKind};
use mirror_core::types::{SectorRange, Tag};

/// Two nodes whose first copy is finished; nobody serves.
pub(crate) fn pair(seed: u64) -> World {
    let mut world = start(seed, 6000);
    assert!(world.run_until(10_000, |world| {
        world.coverage.get("CopyFinished") == Some(&2)
    }));
    world
}

/// Two nodes with a volume whose first copy takes a while.
pub(crate) fn large(seed: u64) -> World {
    start(seed, 200 * 1024)
}

fn start(seed: u64, sectors: u64) -> World {
    World::new(seed, Plan::quiet(sectors))
}

/// Activates a node.
pub(crate) fn on(world: &mut World, node: usize) {
    let command = world.command(node, Command::Activate);
    let answer = wait_answer(world, command);
    assert!(matches!(answer, Ok(Done::Active)), "{answer:?}");
}

/// The operator's word that the other node is off.
pub(crate) fn takeover(world: &mut World, node: usize) -> Outcome {
    let peer = ["beta", "alpha"][node];
    let command = world.command(
        node,
        Command::Takeover {
            confirm: format!("{peer} is off"),
        },
    );
    wait_answer(world, command)
}

/// The answer to a command.
pub(crate) fn wait_answer(world: &mut World, command: u64) -> Outcome {
    assert!(
        world.run_until(20_000, |world| world.answers.contains_key(&command)),
        "no answer; {:?}",
        world.failure
    );
    world.answers[&command].clone()
}

fn ask(world: &mut World, node: usize, slot: u16, kind: RequestKind, range: SectorRange) {
    let request = Request {
        tag: Tag(slot),
        kind,
        range,
        fua: false,
    };
    world.ask(node, request);
}

/// The application writes.
pub(crate) fn write(world: &mut World, node: usize, slot: u16, start: u64, count: u32) {
    ask(
        world,
        node,
        slot,
        RequestKind::Write,
        SectorRange::new(start, count),
    );
}

/// The application reads.
pub(crate) fn read(world: &mut World, node: usize, slot: u16, start: u64, count: u32) {
    ask(
        world,
        node,
        slot,
        RequestKind::Read,
        SectorRange::new(start, count),
    );
}

/// The application flushes.
pub(crate) fn flush(world: &mut World, node: usize, slot: u16) {
    ask(
        world,
        node,
        slot,
        RequestKind::Flush,
        SectorRange::new(0, 0),
    );
}
