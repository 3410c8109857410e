//! A service that ends while somebody else takes over.

use mirror_core::admin::{Command, LinkState};

use super::{Outcome, Told, come_together, is_fenced, off, pair, serve, times, until, write};
use crate::sim::world::World;

/// Seeds 1057684 and 1149622.
pub(super) const DEPOSED: Told = Told {
    law: "who_is_deposed_after_its_device_has_gone_agrees_at_once",
    catches: &["gone-device-awaited"],
    tell: |seed, _| deposed(seed),
};

pub(super) const ENDS_BY_FORCE: Told = Told {
    law: "a_service_that_ends_by_force_does_not_wait_for_a_peer_that_is_lost_meanwhile",
    catches: &["forced-end-waits"],
    tell: |seed, _| ends_by_force(seed),
};

/// Somebody ends the service by force, once, while nobody has noticed yet that the other node is silent; a write waits for it.
fn ends_by_force(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    world.silence([true, true]);
    write(&mut world, 1, 0, 1000, 8);
    world.run_for(5 + seed % 100);
    let met = times(&world, "LinkLost") == 0;
    world.command(1, Command::Deactivate { force: true });
    until(&mut world, 10_000, "the service ends", |world| {
        is_fenced(world, 1)
    })?;
    world.silence([false, false]);
    come_together(&mut world)?;
    Ok(met)
}

/// Seed 1992935.
pub(super) const REIGNS_AGAIN: Told = Told {
    law: "who_deposed_the_other_one_may_end_its_service_and_begin_it_again",
    catches: &["deposed-serves"],
    tell: |seed, _| reigns_again(seed),
};

/// The node that served is frozen, and a word makes the other one serve. Both come together: the first one says that it
/// serves, and is deposed. Then the other one ends its service, and nobody takes it over.
fn reigns_again(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    world.silence([true, true]);
    write(&mut world, 1, 0, 1000, 8);
    until(&mut world, 5000, "both are lost", |world| {
        times(world, "LinkLost") == 2
    })?;
    world.expect_split_brain();
    world.model.power_cut(1);
    world.command(0, off(0));
    until(&mut world, 5000, "the other one serves", |world| {
        world.active() == Some(0)
    })?;
    world.silence([false, false]);
    come_together(&mut world)?;
    until(&mut world, 10_000, "the deposed node is fenced", |world| {
        is_fenced(world, 1)
    })?;
    world.command(0, Command::Deactivate { force: false });
    until(&mut world, 10_000, "the service ends", |world| {
        is_fenced(world, 0)
    })?;
    serve(&mut world, 0)?;
    come_together(&mut world)?;
    Ok(times(&world, "Deposed") > 0)
}

/// A service ends, its writes are frozen, and a word makes the other node serve. Both come together: this node tells
/// what its copy is, its writes are thrown away, the device ends, and only then the other one has taken over. The
/// device's end is not told again.
fn deposed(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 1)?;
    world.silence([true, true]);
    write(&mut world, 1, 0, 1000, 8);
    world.run_for(5);
    world.command(1, Command::Deactivate { force: false });
    until(&mut world, 5000, "both are lost", |world| {
        times(world, "LinkLost") == 2
    })?;
    world.expect_split_brain();
    world.model.power_cut(1);
    world.stick(0, 1300, false);
    world.command(0, off(0));
    world.silence([false, false]);
    let handshake = |world: &World, node: usize| {
        world.status(node).map(|status| status.link.state) == Some(LinkState::Handshake)
    };
    until(&mut world, 5000, "they dial", |world| handshake(world, 1))?;
    world.run_for(10);
    // Until it is written down that the writes are thrown away, they are linked again.
    world.stick(1, 400, true);
    world.command(1, Command::Deactivate { force: true });
    until(&mut world, 10_000, "the other one serves", |world| {
        world.active() == Some(0)
    })?;
    let gone = world.nodes[1].device.is_none();
    until(&mut world, 10_000, "the deposed node is fenced", |world| {
        is_fenced(world, 1)
    })?;
    come_together(&mut world)?;
    Ok(gone && times(&world, "Deposed") > 0)
}
