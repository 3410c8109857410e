//! Two histories, and how an operator ends one of them: on two simulated nodes that run the real core.

mod common;

use common::{on, pair, takeover, wait_answer, write};
use lockstep_tests::sim::world::World;
use mirror_core::admin::{
    Command, CopyState, Done, Keep, LinkState, Outcome, Refusal, Role, SideStatus,
};
use mirror_core::disk::Operation;
use mirror_core::types::NodeId;

const BLOCK_BYTES: u64 = 4096;

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

fn written(world: &mut World, node: usize, start: u64, count: u32) {
    let before = world.completed;
    write(world, node, 0, start, count);
    assert!(world.run_until(2000, |world| world.completed > before));
}

fn insist(world: &mut World, node: usize, command: &Command) -> Outcome {
    for _ in 0..20 {
        let number = world.command(node, command.clone());
        let answer = wait_answer(world, number);
        if answer != Err(Refusal::Busy) {
            return answer;
        }
        world.run_for(20);
    }
    panic!("busy for ever");
}

fn off(world: &mut World, node: usize) {
    let answer = insist(world, node, &Command::Deactivate { force: true });
    assert_eq!(answer, Ok(Done::Fenced));
}

fn resolve(world: &mut World, node: usize, discard: &str, confirm: &str) -> Outcome {
    let command = Command::Resolve {
        discard: discard.to_string(),
        confirm: confirm.to_string(),
        keep: Keep::No,
    };
    insist(world, node, &command)
}

fn force(world: &mut World, node: usize, confirm: &str) -> Outcome {
    let confirm = confirm.to_string();
    let number = world.command(node, Command::Force { confirm });
    wait_answer(world, number)
}

/// Both go alone on wrong words, the first writes 10 blocks and the second 3, and they meet again.
fn split(seed: u64, winner: usize) -> World {
    let mut world = pair(seed);
    on(&mut world, 0);
    written(&mut world, 0, 0, 64);
    // Nothing is left that one of them may not have flushed.
    world.run_for(20_000);
    world.begin_split(winner);
    world.silence([true, true]);
    world.run_for(5000);
    assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
    assert!(matches!(takeover(&mut world, 1), Ok(Done::Active)));
    for block in 0..10 {
        written(&mut world, 0, 1024 + block * 16, 8);
    }
    for start in [1024, 1088, 2048] {
        written(&mut world, 1, start, 8);
    }
    world.silence([false, false]);
    assert!(world.run_until(20_000, |world| {
        (0..2).all(|node| {
            let split = world.status(node).and_then(|status| status.split);
            split.is_some_and(|split| split.other.is_some())
        })
    }));
    assert_eq!(world.failure, None);
    world
}

fn sides(world: &World, node: usize) -> (SideStatus, SideStatus) {
    let split = world.status(node).and_then(|status| status.split);
    let split = split.expect("a split brain");
    (split.this, split.other.expect("the other side told"))
}

fn entry(world: &World, node: usize) -> (Operation, bool, u64) {
    let record = world.nodes[node].meta.peek().record;
    let entry = record.operations.iter().next().expect("an entry");
    (entry.operation, entry.standing, entry.at_s)
}

#[test]
fn both_sides_of_a_split_brain_are_shown_on_both_nodes() {
    let mut world = split(1, 0);
    let common = world.status(0).and_then(|status| status.split);
    let common = common.expect("split").this.common_epoch;
    assert!(common.is_some());
    for node in 0..2 {
        let (this, other) = sides(&world, node);
        let blocks = [10, 3];
        assert_eq!(this.unique_bytes, blocks[node] * BLOCK_BYTES);
        assert_eq!(other.unique_bytes, blocks[1 - node] * BLOCK_BYTES);
        for side in [&this, &other] {
            assert_eq!(side.common_epoch, common);
            assert!(side.serving && !side.forced && !side.may_have_written_later);
            assert!(side.last_write_s.is_some_and(|at| at > 1_700_000_000));
        }
        assert_ne!(this.view_id, other.view_id);
        let status = world.status(node).expect("it runs");
        assert_ne!(status.link.state, LinkState::Up);
    }
    // It grows while it is written to; the other side hears of it when they meet the next time.
    written(&mut world, 0, 3000, 8);
    assert_eq!(sides(&world, 0).0.unique_bytes, 11 * BLOCK_BYTES);
    assert!(world.run_until(10_000, |world| {
        sides(world, 1).1.unique_bytes == 11 * BLOCK_BYTES
    }));
    assert_eq!(entry(&world, 0).0, Operation::GoAlone);
    assert_eq!(entry(&world, 1).0, Operation::Takeover);
    assert!(entry(&world, 1).2 > 1_700_000_000);
}

#[test]
fn the_discarded_side_gets_what_both_wrote_and_no_more() {
    for winner in 0..2 {
        let mut world = split(2 + winner as u64, winner);
        let (loser, names) = (1 - winner, ["alpha", "beta"]);
        off(&mut world, loser);
        let answer = resolve(&mut world, loser, names[loser], "data");
        assert_eq!(answer, Ok(Done::Discarded));
        assert_eq!(entry(&world, loser).0, Operation::Discard);
        assert!(world.run_until(20_000, World::healthy));
        assert_eq!(times(&world, "copy Discarded"), 1);
        assert_eq!(world.nodes[0].data.content, world.nodes[1].data.content);
        world.judge_everything(winner);
        let sent = world
            .status(winner)
            .map(|status| status.counters.resync_sent_bytes);
        // What the winner wrote, with a digest of each block; what only the loser wrote becomes zeroes again.
        let wanted = [10, 3][winner] * (BLOCK_BYTES + 32);
        assert_eq!(sent, Some(wanted));
        assert_eq!(world.failure, None);
    }
}

#[test]
fn only_a_fenced_side_of_a_split_brain_can_be_discarded_and_only_by_its_name() {
    let mut world = pair(4);
    let answer = resolve(&mut world, 0, "alpha", "data");
    assert!(
        matches!(answer, Err(Refusal::NoSplitBrain { .. })),
        "{answer:?}"
    );
    let mut world = split(5, 0);
    let answer = resolve(&mut world, 1, "beta", "data");
    assert_eq!(answer, Err(Refusal::Serving));
    off(&mut world, 1);
    for wanted in ["alpha", "", "gamma"] {
        let answer = resolve(&mut world, 1, wanted, "data");
        assert!(
            matches!(answer, Err(Refusal::DiscardElsewhere { .. })),
            "{answer:?}"
        );
    }
    for words in ["", "beta", "data "] {
        let answer = resolve(&mut world, 1, "beta", words);
        assert!(
            matches!(answer, Err(Refusal::NotNamed { .. })),
            "{answer:?}"
        );
    }
    let alone = world.nodes[1].view();
    assert_eq!(resolve(&mut world, 1, "beta", "data"), Ok(Done::Discarded));
    assert_ne!(world.nodes[1].view().mark(), alone.mark());
    assert_eq!(world.failure, None);
}

#[test]
fn a_discarded_copy_cannot_be_served_and_survives_a_crash_as_discarded() {
    let mut world = split(6, 0);
    world.silence([true, true]);
    world.run_for(5000);
    off(&mut world, 1);
    assert_eq!(resolve(&mut world, 1, "beta", "data"), Ok(Done::Discarded));
    world.power_cut(1);
    world.power_on(1);
    world.run_for(3000);
    let status = world.status(1).expect("it runs");
    assert_eq!(status.copy, CopyState::Discarded);
    let number = world.command(1, Command::Activate);
    let answer = wait_answer(&mut world, number);
    assert!(
        matches!(answer, Err(Refusal::CopyNotCurrent { .. })),
        "{answer:?}"
    );
    let answer = takeover(&mut world, 1);
    assert!(
        matches!(answer, Err(Refusal::CopyNotCurrent { .. })),
        "{answer:?}"
    );
    world.silence([false, false]);
    assert!(world.run_until(20_000, World::healthy));
    assert_eq!(world.nodes[0].data.content, world.nodes[1].data.content);
    assert_eq!(world.failure, None);
}

#[test]
fn force_is_for_a_copy_that_cannot_be_served_otherwise() {
    let mut world = pair(7);
    on(&mut world, 0);
    assert_eq!(force(&mut world, 0, "data"), Err(Refusal::Serving));
    assert!(matches!(
        force(&mut world, 1, "data"),
        Err(Refusal::LinkUp { .. })
    ));
    world.silence([true, true]);
    world.run_for(5000);
    assert_eq!(
        force(&mut world, 1, "data"),
        Err(Refusal::Promotable { alone: false })
    );
    assert_eq!(world.failure, None);
}

#[test]
fn a_forced_copy_is_loud_and_never_merged_until_the_other_history_is_discarded() {
    let mut world = common::large(8);
    world.run_for(60);
    world.power_cut(0);
    world.run_for(4000);
    let before = world.nodes[1].view();
    assert!(!before.insync.contains(lockstep_tests::sim::node::id(1)));
    assert!(matches!(
        force(&mut world, 1, "beta"),
        Err(Refusal::NotNamed { .. })
    ));
    assert_eq!(force(&mut world, 1, "data"), Ok(Done::Forced));
    world.begin_split(1);
    assert!(world.nodes[1].view().epoch.0 >= before.epoch.0 + 1000);
    assert_eq!(
        (entry(&world, 1).0, entry(&world, 1).1),
        (Operation::Force, true)
    );
    on(&mut world, 1);
    let loud = |world: &World, node: usize| {
        let problems = world.status(node).map(|status| status.problems);
        problems.is_some_and(|problems| problems.iter().any(|problem| problem.code == "LS2061"))
    };
    assert!(loud(&world, 1));
    world.kill(1);
    world.start(1);
    world.run_for(100);
    assert!(loud(&world, 1));
    world.power_on(0);
    assert!(world.run_until(20_000, |world| {
        world
            .status(0)
            .and_then(|status| status.split)
            .is_some_and(|split| split.other.is_some())
    }));
    let (this, other) = sides(&world, 0);
    assert!(other.forced && !this.forced);
    assert_eq!(world.role(0), Some(Role::Fenced));
    assert_eq!(resolve(&mut world, 0, "alpha", "data"), Ok(Done::Discarded));
    let both = |world: &World| world.nodes.iter().all(|node| node.view().insync.len() == 2);
    assert!(world.run_until(60_000, both));
    world.run_for(2000);
    assert!(!loud(&world, 1) && !entry(&world, 1).1);
    assert_eq!(world.nodes[0].data.content, world.nodes[1].data.content);
    assert_eq!(world.failure, None);
}

/// What the shell is told to keep before the history is discarded, and how it knows that nothing changed since.
#[test]
fn what_only_one_side_has_is_another_thing_after_it_was_served() {
    let mut world = split(7, 0);
    let ask = |world: &World| {
        let process = world.nodes[1].process.as_ref().expect("it runs");
        process.volume.to_be_discarded("beta", "data")
    };
    let asked = |world: &mut World| {
        for _ in 0..100 {
            let answer = ask(world);
            if answer != Err(Refusal::Busy) {
                return answer;
            }
            world.run_for(20);
        }
        panic!("busy for ever");
    };
    assert_eq!(asked(&mut world), Err(Refusal::Serving));
    off(&mut world, 1);
    let first = asked(&mut world).expect("it can be discarded");
    let runs: Vec<(u64, u64)> = first.runs_bytes().collect();
    let at = |sector: u64| (sector * 512, BLOCK_BYTES);
    assert_eq!(runs, [at(1024), at(1088), at(2048)]);
    assert_eq!(first.header.marked_bytes, 3 * BLOCK_BYTES);
    assert_eq!(first.header.marked_bytes, sides(&world, 1).0.unique_bytes);
    world.run_for(5000);
    assert_eq!(asked(&mut world).as_ref(), Ok(&first), "nothing happened");

    // Nothing was written; it could have been.
    assert_eq!(insist(&mut world, 1, &Command::Activate), Ok(Done::Active));
    assert_eq!(asked(&mut world), Err(Refusal::Serving));
    off(&mut world, 1);
    let again = asked(&mut world).expect("it can be discarded");
    assert_eq!(again.runs_bytes().collect::<Vec<_>>(), runs);
    assert_ne!(again, first);
    assert_eq!(resolve(&mut world, 1, "beta", "data"), Ok(Done::Discarded));
    assert!(matches!(
        asked(&mut world),
        Err(Refusal::NoSplitBrain { .. })
    ));
}

fn on_both(world: &mut World) {
    let whole = |world: &World| (0..2).all(|node| world.nodes[node].view().insync.len() == 2);
    assert!(world.run_until(60_000, whole));
}

#[test]
fn a_copy_that_was_marked_and_then_forced_fills_another() {
    let mut world = pair(21);
    world.begin_split(1);
    on(&mut world, 0);
    written(&mut world, 0, 0, 64);
    world.silence([true, true]);
    world.run_for(5000);
    assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
    world.silence([false, false]);
    assert!(world.run_until(5000, |world| {
        !world.nodes[1]
            .view()
            .insync
            .contains(NodeId::new(1).expect("1"))
    }));
    off(&mut world, 0);
    world.silence([true, true]);
    world.run_for(5000);
    let confirm = "data".to_string();
    let marked = insist(&mut world, 1, &Command::Invalidate { confirm });
    assert_eq!(marked, Ok(Done::Invalidated));
    assert_eq!(entry(&world, 1).0, Operation::Invalidate);
    assert_eq!(force(&mut world, 1, "data"), Ok(Done::Forced));
    assert!(!world.nodes[1].meta.peek().invalidated);
    world.silence([false, false]);
    world.run_for(2000);
    let answer = resolve(&mut world, 0, "alpha", "data");
    assert_eq!(answer, Ok(Done::Discarded));
    on_both(&mut world);
    assert_eq!(world.nodes[0].data.content, world.nodes[1].data.content);
}
