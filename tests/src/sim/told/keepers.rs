//! What both control planes make of a disk that fails under the service.

use super::{Outcome, Told, step_until, times, until, well};
use crate::sim::faults::Schedule;
use crate::sim::node::id;
use crate::sim::whole::Part;
use crate::sim::words::LATE_MS;
use crate::sim::world::{Plan, World};
use mirror_core::admin::Role;

pub(super) const CARRIED: Told = Told {
    law: "a_service_that_nobody_carries_any_more_steps_down_and_the_peer_starts",
    catches: &["broken-serves-on"],
    tell: |seed, _| carried(seed),
};

/// The active node's disk fails with its metadata, and the peer carries the service: nothing is decided. Then the mirror
/// link is lost while both hear each other: the first one steps down, also with devices that are in use, and the other one,
/// whose copy alone counts, starts without a grant.
fn carried(seed: u64) -> Outcome {
    let mut world = World::new(seed, plan());
    world.begin_chaos(&Schedule::default());
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.desk.caring = false;
    let Some(active) = world.active() else {
        return Err("nobody serves (I9)".to_string());
    };
    world.start_application(active);
    world.run_for(1000);
    world.fail_whole(active, Part::Whole, 600_000);
    until(&mut world, 5000, "the peer carries it", |world| {
        times(world, "disk Carried") == 1
    })?;
    let acknowledged = world.completed;
    world.run_for(3000);
    if world.role(active) != Some(Role::Active) || world.completed <= acknowledged {
        return Err(format!("{active} does not serve on (I44)"));
    }
    world.silence([true, true]);
    // A word may be late, and be lost with the run that said it.
    let limit = 5000 + 2 * LATE_MS;
    if !world.run_until(limit, |world| world.role(active) == Some(Role::Fenced)) {
        return Err(format!(
            "{active} can do nothing any more and goes on as if it served (I45)"
        ));
    }
    if !world.run_until(5000, |world| world.role(1 - active) == Some(Role::Active)) {
        return Err(format!("{} does not start (I42)", 1 - active));
    }
    world.run_for(3000);
    if world.role(active) == Some(Role::Active) {
        return Err(format!("{active} serves again (I45)"));
    }
    well(&world)?;
    Ok(true)
}

fn plan() -> Plan {
    Plan {
        application: true,
        control: true,
        haste: 5,
        ..Plan::quiet(6000)
    }
}

pub(super) const ASKED: Told = Told {
    law: "who_asked_its_peer_to_go_on_alone_takes_no_grant_before_both_have_met",
    catches: &["asked-peer-forgotten"],
    tell: |seed, _| asked(seed),
};

/// The active node's metadata fail alone, the peer writes down that its copy alone counts, and is cut off from everybody at
/// that moment: it serves. The first node's metadata work again, and so does its daemon, which has nothing written down
/// and reaches the register: nobody there knows of the peer's view.
fn asked(seed: u64) -> Outcome {
    let mut world = World::new(seed, plan());
    world.begin_chaos(&Schedule::default());
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.desk.caring = false;
    let Some(active) = world.active() else {
        return Err("nobody serves (I9)".to_string());
    };
    let other = 1 - active;
    world.start_application(active);
    // Nothing may be left from before that keeps the register from granting.
    world.run_for(5000);
    world.fail_whole(active, Part::Metadata, 600_000);
    let agrees = |world: &World| world.nodes[other].view().is_sole(id(other));
    if step_until(&mut world, "the peer agrees", agrees).is_err() {
        // Nothing had to be written down.
        return well(&world).map(|()| false);
    }
    world.part([true; 2]);
    world.control.witness.cut[other] = true;
    world.run_for(1000);
    let met = times(&world, "disk Carried") == 0 && !world.nodes[active].worth.disowned;
    world.nodes[active].meta.failing = false;
    world.kill(active);
    world.start(active);
    world.run_for(10_000);
    let alone = |node: usize| world.nodes[node].view().is_sole(id(node));
    if alone(0) && alone(1) {
        return Err("both copies count alone (S8)".to_string());
    }
    world.control.witness.cut[other] = false;
    world.part([false; 2]);
    world.desk.caring = true;
    until(&mut world, 60_000, "all is well again", World::healthy)?;
    Ok(met)
}

pub(super) const ASKED_IN_VAIN: Told = Told {
    law: "who_asked_its_peer_in_vain_leaves_the_grant_to_it",
    catches: &["asked-peer-claims"],
    tell: |seed, _| asked_in_vain(seed),
};

/// The same, but the peer never hears that it is asked. The daemon of the first node finds its device again, frozen; it may
/// take no grant, so the other node has to get it.
fn asked_in_vain(seed: u64) -> Outcome {
    let mut world = World::new(seed, plan());
    world.begin_chaos(&Schedule::default());
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.end_chaos();
    until(&mut world, 60_000, "the volume is served", World::healthy)?;
    world.control.in_a_scene = true;
    world.desk.caring = false;
    let Some(active) = world.active() else {
        return Err("nobody serves (I9)".to_string());
    };
    world.start_application(active);
    world.run_for(5000);
    world.fail_whole(active, Part::Metadata, 600_000);
    let asks = |world: &World| world.nodes[active].worth.asked;
    if step_until(&mut world, "the peer is asked", asks).is_err() {
        return well(&world).map(|()| false);
    }
    world.part([true; 2]);
    world.nodes[active].meta.failing = false;
    world.kill(active);
    let met = !world.nodes[1 - active].view().is_sole(id(1 - active));
    world.start(active);
    until(&mut world, 20_000, "the other node serves", |world| {
        world.role(1 - active) == Some(Role::Active)
    })?;
    world.part([false; 2]);
    until(&mut world, 60_000, "all is well again", World::healthy)?;
    Ok(met)
}
