//! How long services have on a node whose control plane is started anew.

use super::{Outcome, Told, until, well};
use crate::sim::faults::Schedule;
use crate::sim::world::{Plan, World};
use mirror_core::admin::Role;

pub(super) const RESTARTED: Told = Told {
    law: "a_control_plane_that_is_started_anew_renews_no_time_of_services",
    catches: &["restart-renews-the-lease"],
    tell: |seed, _| restarted(seed),
};

/// The active node's `lockstepd` is killed, and the node is cut off from everybody: the other one takes over. Then it is
/// started again, and knows nobody who would confirm that its services may run; its volume waits, frozen.
fn restarted(seed: u64) -> Outcome {
    let mut world = World::new(
        seed,
        Plan {
            control: true,
            haste: 5,
            ..Plan::quiet(6000)
        },
    );
    world.begin_chaos(&Schedule::default());
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.end_chaos();
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.control.in_a_scene = true;
    world.desk.caring = false;
    let Some(active) = world.active() else {
        return Err("nobody serves (I9)".to_string());
    };
    world.run_for(5000);
    world.control.held_off[active] = true;
    world.control_ends(active);
    world.part([true; 2]);
    world.control.witness.cut[active] = true;
    until(&mut world, 20_000, "the other node serves", |world| {
        world.role(1 - active) == Some(Role::Active)
    })?;
    world.run_for(1000);
    let met = world.role(active) == Some(Role::Active);
    world.control.held_off[active] = false;
    world.control_starts(active);
    world.run_for(3000);
    well(&world)?;
    world.control.witness.cut[active] = false;
    world.part([false; 2]);
    world.desk.caring = true;
    until(&mut world, 60_000, "all is well again", World::healthy)?;
    Ok(met)
}
