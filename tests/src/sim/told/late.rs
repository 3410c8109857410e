//! A word of an arbiter that comes too late.

use mirror_core::admin::{Command, Done, Refusal, ViewName};
use mirror_core::notice::GrantRefusal;
use mirror_core::types::{Epoch, ViewId};
use mirror_core::view::ViewMark;

use super::{Outcome, Told, pair, serve, times, until, well};
use crate::sim::node::id;
use crate::sim::world::World;

pub(super) const TOO_LATE: Told = Told {
    law: "a_granted_view_is_refused_once_its_time_is_over",
    catches: &["late-grant"],
    tell: |seed, _| too_late(seed),
};

/// Before this the arbiter's word to the standby counts, milliseconds from the moment at which it is said.
const LIFE_MS: u64 = 2000;

/// The standby is granted the next view, and its machine stands still with the word in its hands. When the word's time
/// is over, nothing was heard of it, and the arbiter grants the active node another view. Then the standby goes on.
fn too_late(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    world.silence([true, true]);
    until(&mut world, 10_000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    let (first, second) = (granted(&world, 1, 1), granted(&world, 0, 2));
    // A clock may be slow by some percent.
    world.run_for(LIFE_MS + LIFE_MS / 10 + seed % 500);
    let alone = world.command(0, second);
    let answered = |world: &World| world.answers.contains_key(&alone);
    until(&mut world, 5000, "the active node answers", answered)?;
    if world.answers[&alone] != Ok(Done::Alone) {
        return Err(format!(
            "a grant is refused: {:?} (I9)",
            world.answers[&alone]
        ));
    }
    let late = world.command(1, first);
    let answered = |world: &World| world.answers.contains_key(&late);
    until(&mut world, 5000, "the standby answers", answered)?;
    let met = world.answers[&late] == Err(Refusal::Grant(GrantRefusal::Late));
    let sole = |node: usize| world.nodes[node].view().is_sole(id(node));
    if sole(0) && sole(1) {
        return Err("both copies count alone, by the arbiter's own words (S8)".to_string());
    }
    well(&world)?;
    Ok(met)
}

/// The next view for a node, granted now.
fn granted(world: &World, node: usize, number: u8) -> Command {
    let view = world.nodes[node].view();
    let next = ViewMark {
        epoch: Epoch(view.epoch.0 + 1),
        id: ViewId([number; 16]),
    };
    let now = world.nodes[node].clock(world.now).as_nanos();
    let life = if node == 1 { LIFE_MS } else { 10 * LIFE_MS };
    Command::Granted {
        basis: ViewName::from(view.mark()),
        next: ViewName::from(next),
        until_nanos: now + life * crate::sim::node::MS,
    }
}
