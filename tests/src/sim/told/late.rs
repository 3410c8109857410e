//! Words of an arbiter that come too late.

use mirror_core::admin::{Command, Done, Refusal, ViewName};
use mirror_core::notice::GrantRefusal;
use mirror_core::types::{Epoch, ViewId};
use mirror_core::view::ViewMark;

use super::{Outcome, Told, pair, serve, times, until, well, write};
use crate::sim::node::{MS, id, name};
use crate::sim::world::World;

pub(super) const TOO_LATE: Told = Told {
    law: "a_granted_view_is_refused_once_its_time_is_over",
    catches: &["late-grant"],
    tell: |seed, _| too_late(seed),
};

/// Before this an arbiter's word counts, milliseconds from the moment at which it is said.
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
    let first = granted(&world, 1, 1, LIFE_MS);
    let second = granted(&world, 0, 1, 10 * LIFE_MS);
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

pub(super) const OTHER_VIEW: Told = Told {
    law: "what_is_granted_on_a_view_counts_for_that_view_alone",
    catches: &["grant-of-any-view"],
    tell: |seed, _| other_view(seed),
};

/// A node is granted to serve while nobody does, and the word is late: by then both have agreed that the other one serves.
/// They are parted, and the arbiter grants the serving node that it goes on alone. Then the late word comes; its time is not
/// over.
fn other_view(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    let first = granted(&world, 1, 9, 100 * LIFE_MS);
    serve(&mut world, 0)?;
    world.silence([true, true]);
    until(&mut world, 10_000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    let second = granted(&world, 0, 1, 10 * LIFE_MS);
    let alone = world.command(0, second);
    let answered = |world: &World| world.answers.contains_key(&alone);
    until(&mut world, 5000, "the active node answers", answered)?;
    let before = world.nodes[1].view();
    world.command(1, first);
    world.run_for(LIFE_MS + seed % 500);
    let sole = |node: usize| world.nodes[node].view().is_sole(id(node));
    if sole(0) && sole(1) {
        return Err("both copies count alone, by words on two views (S8)".to_string());
    }
    well(&world)?;
    Ok(sole(0) && world.nodes[1].view() == before)
}

pub(super) const BOOTED: Told = Told {
    law: "a_machine_that_booted_since_it_counted_takes_nothing_over_by_a_grant",
    catches: &["grant-after-reboot"],
    tell: |seed, _| booted(seed),
};

/// A write is acknowledged, and flushed nowhere. The standby's machine loses its power, and what its disk had not written
/// with it; it boots, parted from the active node, and is granted to serve.
fn booted(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    for tag in 0..8 {
        write(&mut world, 0, tag, 1000 + 8 * u64::from(tag), 8);
    }
    world.run_for(100);
    world.silence([true, true]);
    world.power_cut(1);
    world.run_for(100);
    world.power_on(1);
    world.run_for(1000);
    let lost = world.nodes[0].data.content != world.nodes[1].data.content;
    world.power_cut(0);
    world.run_for(3000);
    let granted = granted(&world, 1, 1, LIFE_MS);
    let word = world.command(1, granted);
    let answered = |world: &World| world.answers.contains_key(&word);
    until(&mut world, 5000, "the node that booted answers", answered)?;
    let refused = matches!(
        world.answers[&word],
        Err(Refusal::Grant(GrantRefusal::Rebooted { .. }))
    );
    if world.nodes[1].view().is_sole(id(1)) && lost {
        return Err("what was not flushed is lost, and nobody knows it (S1, S11)".to_string());
    }
    well(&world)?;
    Ok(lost && refused)
}

pub(super) const OTHER_EPOCH: Told = Told {
    law: "words_about_an_earlier_epoch_take_nothing_over",
    catches: &["takeover-of-any-epoch"],
    tell: |seed, _| other_epoch(seed),
};

/// Somebody was allowed to make a node serve while nobody did, and names that epoch; by then the other one serves, they are
/// parted, and the arbiter grants the serving node that it goes on alone.
fn other_epoch(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    let Epoch(epoch) = world.nodes[1].view().epoch;
    let confirm = format!("{} is off, epoch {epoch}", name(0));
    serve(&mut world, 0)?;
    world.silence([true, true]);
    until(&mut world, 10_000, "the active node waits", |world| {
        times(world, "Frozen") == 1
    })?;
    let alone = granted(&world, 0, 1, 10 * LIFE_MS);
    world.command(0, alone);
    until(&mut world, 5000, "the active node goes on alone", |world| {
        world.nodes[0].view().is_sole(id(0))
    })?;
    let before = world.nodes[1].view();
    world.command(1, Command::Takeover { confirm });
    world.run_for(LIFE_MS + seed % 500);
    if world.nodes[1].view().is_sole(id(1)) {
        return Err("both copies count alone, by a word on another epoch (S8)".to_string());
    }
    well(&world)?;
    Ok(world.nodes[1].view() == before)
}

/// A view for a node, so many epochs ahead of its own, granted now for so long.
fn granted(world: &World, node: usize, ahead: u64, life_ms: u64) -> Command {
    let view = world.nodes[node].view();
    let number = u8::try_from(node + 1).unwrap_or(u8::MAX);
    let next = ViewMark {
        epoch: Epoch(view.epoch.0 + ahead),
        id: ViewId([number; 16]),
    };
    let now = world.nodes[node].clock(world.now).as_nanos();
    Command::Granted {
        basis: ViewName::from(view.mark()),
        next: ViewName::from(next),
        until_nanos: now + life_ms * MS,
    }
}
