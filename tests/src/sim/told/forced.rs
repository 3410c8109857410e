//! Copies that an operator makes the only one that counts, in states in which that needs care.

use mirror_core::admin::{Command, Done};

use super::{Outcome, Told, answered, has_left, pair, serve, times, until, well, write};

/// An isolated copy is attached before it is forced: no superblock says that it is kept apart and counts.
pub(super) const FORCED_APART: Told = Told {
    law: "an_isolated_copy_that_is_forced_can_be_opened_again",
    catches: &["isolated-forced"],
    tell: |seed, _| forced_apart(seed),
};

fn forced_apart(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    answered(
        &mut world,
        1,
        Command::Isolate { now_unix_s: 7 },
        Done::Isolated,
    )?;
    world.nodes[0].held_off = true;
    world.power_cut(0);
    world.run_for(3000);
    world.command(1, force());
    world.run_for(1000);
    answered(
        &mut world,
        1,
        Command::Attach { force: true },
        Done::Attached,
    )?;
    answered(&mut world, 1, force(), Done::Forced)?;
    world.kill(1);
    world.start(1);
    world.run_for(1000);
    serve(&mut world, 1)?;
    well(&world)?;
    Ok(true)
}

/// A copy that was marked, and then is the best that there is, fills the other one.
pub(super) const FORCED_MARKED: Told = Told {
    law: "a_marked_copy_that_is_forced_fills_another",
    catches: &["forced-stays-marked"],
    tell: |seed, _| forced_marked(seed),
};

fn forced_marked(seed: u64) -> Outcome {
    let mut world = pair(seed)?;
    world.begin_split(1);
    serve(&mut world, 0)?;
    write(&mut world, 0, 0, 1000, 8);
    world.run_for(300);
    answered(&mut world, 1, Command::Stop, Done::Stopped)?;
    if !world.run_until(5000, has_left) {
        // Its consent was lost with the connection.
        return well(&world).map(|()| false);
    }
    write(&mut world, 0, 0, 2000, 8);
    world.run_for(300);
    world.command(0, Command::Deactivate { force: true });
    world.run_for(300);
    world.silence([true, true]);
    world.start(1);
    world.run_for(3000);
    let confirm = "data".to_string();
    answered(
        &mut world,
        1,
        Command::Invalidate { confirm },
        Done::Invalidated,
    )?;
    answered(&mut world, 1, force(), Done::Forced)?;
    world.silence([false, false]);
    world.run_for(2000);
    let discard = Command::Resolve {
        discard: "alpha".to_string(),
        confirm: "data".to_string(),
        keep: mirror_core::admin::Keep::No,
    };
    answered(&mut world, 0, discard, Done::Discarded)?;
    until(
        &mut world,
        60_000,
        "the discarded copy is filled",
        |world| (0..2).all(|node| world.nodes[node].view().insync.len() == 2),
    )?;
    let filled = times(&world, "copy Discarded") == 1;
    Ok(filled)
}

fn force() -> Command {
    let confirm = "data".to_string();
    Command::Force { confirm }
}
