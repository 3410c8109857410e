//! With an arbiter, at rest: a node dies, the other one is left, and serves by a word of its agent (I9).

use mirror_core::admin::Role;

use super::arbiter::{BOUND_MS, SERVES_MS};
use super::node::id;
use super::run::peace_ms;
use super::world::World;

/// At rest, a node dies: the other one serves, by a word of its agent. Then both come together.
pub(super) fn bereave(world: &mut World) {
    for _ in 0..2 {
        let left = world.arbiter.rng.index(2);
        if world.failure.is_some() || !world.healthy() {
            return;
        }
        let claim = world.claim_of(left);
        let granted = claim.is_some_and(|claim| world.arbiter.would_grant(left, &claim));
        if !granted || world.asks_yet(1 - left) {
            // The other one was granted it, or will be by a question on its way, and died with it.
            world.count("arbiter: granted to the dead");
            continue;
        }
        world.nodes[1 - left].held_off = true;
        world.power_cut(1 - left);
        let limit_ms = SERVES_MS / world.plan.haste + BOUND_MS;
        let serves = |world: &World| {
            world.nodes[left].view().is_sole(id(left)) && world.role(left) == Some(Role::Active)
        };
        let alone = |world: &World| world.nodes[left].view().is_sole(id(left));
        if !world.run_until(limit_ms, alone) || !world.run_until(limit_ms, serves) {
            world.fail(format!(
                "{left} is left, the register in reach, and does not serve (I9)"
            ));
            return;
        }
        world.count("arbiter: the one that is left serves");
        world.nodes[1 - left].held_off = false;
        world.power_on(1 - left);
        if !world.run_until(peace_ms(world), World::healthy) {
            world.fail("not healthy after a node died and came back (I9)".to_string());
            return;
        }
    }
}
