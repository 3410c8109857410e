//! Messages between the nodes and a register at a third place, at the moments at which their order decides.

use mirror_core::admin::Command;
use mirror_core::types::Epoch;

use super::{Outcome, Told, is_up, serve, step_until, times, until, well};
use crate::sim::node::id;
use crate::sim::world::{Mutant, Plan, World};

/// What a node gave back is told once more, late: after it was granted, under the same view, that it may go on alone.
pub(super) const OUT_OF_ORDER: Told = Told {
    law: "a_register_takes_back_nothing_by_a_message_that_was_overtaken",
    catches: &["arbiter-disorder"],
    tell: out_of_order,
};

fn out_of_order(seed: u64, shell: Option<Mutant>) -> Outcome {
    let mut world = pair(seed, shell)?;
    serve(&mut world, 0)?;
    until(&mut world, 10_000, "both are linked", is_up)?;
    world.run_for(500);
    let late = world.gives_back(0);
    world.part_from_the_register([false, true]);
    world.silence([true, true]);
    until(&mut world, 20_000, "node 0 goes on alone", |world| {
        world.nodes[0].view().is_sole(id(0))
    })?;
    let granted = times(&world, "arbiter: grants");
    world.arbiter_step(late);
    world.part_from_the_register([false, false]);
    let refused = times(&world, "arbiter: refusals");
    until(&mut world, 20_000, "node 1 is told", |world| {
        times(world, "arbiter: refusals") > refused || times(world, "arbiter: grants") > granted
    })?;
    world.run_for(10_000);
    well(&world)?;
    Ok(true)
}

/// A node that was granted the next epoch has not acted yet, while the other one agrees to two later views that this one
/// never wrote down.
pub(super) const HELD_YET: Told = Told {
    law: "a_register_holds_what_it_granted_also_from_a_node_that_agreed_to_later_views",
    catches: &["arbiter-later-epoch"],
    tell: held_yet,
};

fn held_yet(seed: u64, shell: Option<Mutant>) -> Outcome {
    let mut world = pair(seed, shell)?;
    serve(&mut world, 0)?;
    until(&mut world, 10_000, "both are linked", is_up)?;
    world.part_from_the_register([true, true]);
    world.run_for(500);
    let basis = world.nodes[0].view().mark();
    let word = world.is_granted(0)?;
    for ahead in 1..=2 {
        world.command(0, Command::Deactivate { force: true });
        step_until(&mut world, "node 1 agrees to a later view", |world| {
            world.nodes[1].view().epoch >= Epoch(basis.epoch.0 + ahead)
        })?;
        world.silence([true, true]);
        world.run_for(4000);
        if world.nodes[0].view().mark() != basis {
            return well(&world).map(|()| false);
        }
        if ahead < 2 {
            world.silence([false, false]);
        }
    }
    world.arbiter_step(word);
    until(&mut world, 20_000, "node 0 goes on alone", |world| {
        world.nodes[0].view().is_sole(id(0))
    })?;
    world.part_from_the_register([true, false]);
    let asked = times(&world, "arbiter: refusals") + times(&world, "arbiter: grants");
    until(&mut world, 20_000, "node 1 is told", |world| {
        times(world, "arbiter: refusals") + times(world, "arbiter: grants") > asked
    })?;
    world.run_for(10_000);
    well(&world)?;
    Ok(true)
}

/// Two nodes whose first copy is finished, each with an agent that asks the register.
fn pair(seed: u64, mutant: Option<Mutant>) -> Result<World, String> {
    let plan = Plan {
        arbiter: true,
        mutant,
        ..Plan::quiet(6000)
    };
    let mut world = World::new(seed, plan);
    let finished = |world: &World| times(world, "CopyFinished") == 2;
    until(&mut world, 60_000, "the first copy ends", finished)?;
    world.open_the_register();
    Ok(world)
}
