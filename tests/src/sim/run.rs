//! One run from a seed: trouble, then peace; in peace the volume must become healthy.

use std::collections::BTreeMap;

use mirror_core::types::NodeSet;

use super::node::id;
use super::world::{Mutant, Plan, World};

/// After the last fault the volume is healthy within this time.
const PEACE_MS: u64 = 120_000;

/// How a run ended.
#[derive(Debug)]
pub struct Report {
    /// The broken rule and the last steps.
    pub failure: Option<(String, Vec<String>)>,
    /// How often things happened.
    pub coverage: BTreeMap<String, u64>,
}

/// Runs one seed.
pub fn run_seed(seed: u64, trace: bool, mutant: Option<Mutant>) -> Report {
    let mut world = World::new(seed, plan(seed, mutant));
    world.trace = trace;
    world.begin_chaos();
    let calm = world.rng.between(0, 3000);
    world.run_for(calm);
    let trouble = world.rng.between(10_000, 40_000);
    world.run_for(trouble);
    world.end_chaos();
    peace(&mut world);
    let steps: Vec<String> = world.steps.iter().cloned().collect();
    Report {
        failure: world.failure.map(|failure| (failure, steps)),
        coverage: world.coverage,
    }
}

fn plan(seed: u64, mutant: Option<Mutant>) -> Plan {
    let sectors = match seed % 16 {
        0 => 200 * 1024 + 40,
        1..=5 => 2048,
        _ => 5 * 1024 + 8 * (seed % 100),
    };
    let slow_copy_ms = match (seed / 16) % 4 {
        0 => 20,
        1 => 300,
        _ => 0,
    };
    Plan {
        slow_copy_ms,
        sectors,
        application: true,
        mutant,
    }
}

fn peace(world: &mut World) {
    if !world.run_until(PEACE_MS, World::healthy) {
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
            "not healthy after {PEACE_MS} ms of peace: {states:?}"
        ));
        return;
    }
    let before = world.completed;
    if !world.run_until(30_000, |world| world.completed > before + 30) {
        world.fail("healthy, but the application does not get on".to_string());
        return;
    }
    rest(world);
}

/// The application ends; after a while both copies are equal.
fn rest(world: &mut World) {
    world.desk.caring = false;
    for node in &mut world.nodes {
        if let Some(device) = node.device.as_mut() {
            device.used = false;
        }
    }
    world.run_for(3000);
    let both = NodeSet::only(id(0)).with(id(1));
    if world.failure.is_none() && world.nodes[0].view().insync == both {
        world.must_be_equal();
    }
}
