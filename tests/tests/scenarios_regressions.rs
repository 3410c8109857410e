//! Schedules that once broke a rule, found by random runs and told here by what happens in them.

mod common;

use common::{on, pair, takeover, wait_answer, write};
use lockstep_tests::sim::world::{Plan, World};
use mirror_core::admin::{Command, CopyCause, CopyState, Done, LinkState, Refusal, Role};
use mirror_core::effect::Effect;
use mirror_core::engine::{Engine, FLUSH_BACKGROUND, ReadLease};
use mirror_core::event::{IoOwner, Request, RequestKind};
use mirror_core::intent::Intent;
use mirror_core::resync::Likeness;
use mirror_core::types::{CopyId, Errno, Instant, SectorRange, SessionId, Tag};
use mirror_core::verify::Repair;
use mirror_core::wire::FrameKind;

/// The moments that matter are shorter than a step of the tests: some of these seeds hit them.
const SEEDS: std::ops::Range<u64> = 0..40;

fn times(world: &World, what: &str) -> u64 {
    world.coverage.get(what).copied().unwrap_or(0)
}

fn step_until(world: &mut World, reached: impl Fn(&World) -> bool) {
    for _ in 0..10_000 {
        if reached(world) {
            return;
        }
        world.step();
    }
}

/// The device is in use, an operator asks it to stop, and another one forces that before the kernel has
/// said that it is busy. The answer must not bring the service back: its writes have failed.
#[test]
fn force_that_comes_before_the_busy_device_ends_the_service() {
    let mut hits = 0;
    for seed in SEEDS {
        let mut world = pair(seed);
        on(&mut world, 0);
        if let Some(device) = world.nodes[0].device.as_mut() {
            device.used = true;
        }
        write(&mut world, 0, 0, 1000, 8);
        world.command(0, Command::Deactivate { force: false });
        world.command(0, Command::Deactivate { force: true });
        let ended = world.run_until(5000, |world| {
            world.role(0) == Some(Role::Fenced) && world.nodes[0].device.is_none()
        });
        assert!(ended, "seed {seed}: {:?}", world.role(0));
        hits += times(&world, "device busy");
        on_again(&mut world);
        assert!(world.run_until(10_000, World::healthy), "seed {seed}");
        assert_eq!(world.failure, None, "seed {seed}");
    }
    assert!(hits > 0, "no seed hit the moment");
}

/// The same, and the kernel says that it is busy only when both sides come together again: the end that was put aside for
/// that goes on afterwards. Seed 1463249: nobody took it up, the node was ending its service for ever.
#[test]
fn force_that_comes_before_the_busy_device_outlives_a_handshake() {
    let mut hits = 0;
    for seed in SEEDS {
        // Over the second path they meet at once.
        let plan = Plan {
            paths: 2,
            ..Plan::quiet(6000)
        };
        let mut world = World::new(seed, plan);
        let copied = |world: &World| times(world, "CopyFinished") == 2;
        assert!(world.run_until(10_000, copied), "seed {seed}");
        on(&mut world, 0);
        world.run_for(2000);
        if let Some(device) = world.nodes[0].device.as_mut() {
            device.used = true;
        }
        write(&mut world, 0, 0, 1000, 8);
        let handed_over = |world: &World| world.status(0).is_some_and(|status| status.inflight > 0);
        step_until(&mut world, handed_over);
        world.command(0, Command::Deactivate { force: false });
        world.command(0, Command::Deactivate { force: true });
        let told = |world: &World| times(world, "device busy") > 0;
        // The other side has agreed to what this one makes of both; its answer is lost.
        let before = world.nodes[1].view().epoch;
        let meet = |world: &World| world.nodes[1].view().epoch > before;
        step_until(&mut world, |world| told(world) || meet(world));
        hits += u32::from(meet(&world) && !told(&world));
        world.silence([true, true]);
        world.run_for(50);
        world.silence([false, false]);
        let ended = world.run_until(20_000, |world| {
            world.role(0) == Some(Role::Fenced) && world.nodes[0].device.is_none()
        });
        assert!(ended, "seed {seed}: {:?}", world.role(0));
        on_again(&mut world);
        assert!(world.run_until(10_000, World::healthy), "seed {seed}");
        assert_eq!(world.failure, None, "seed {seed}");
    }
    assert!(hits > 0, "no seed hit the moment");
}

/// The service ends while the source of a resync asks for the target's marks: neither side may take the
/// copies for equal, and the resync goes on.
#[test]
fn service_may_end_while_the_marks_of_the_target_are_asked_for() {
    let mut hits = 0;
    for seed in SEEDS {
        let mut world = pair(seed);
        on(&mut world, 0);
        world.power_cut(1);
        world.run_for(3000);
        assert!(matches!(takeover(&mut world, 0), Ok(Done::Alone)));
        write(&mut world, 0, 0, 1000, 8);
        world.run_for(100);
        world.power_on(1);
        let before = (times(&world, "LinkUp"), times(&world, "copy Outdated"));
        assert!(world.run_until(20_000, |world| times(world, "LinkUp") == before.0 + 2));
        hits += u64::from(times(&world, "copy Outdated") == before.1);
        let mut answer = Err(Refusal::Busy);
        while answer == Err(Refusal::Busy) {
            let command = world.command(0, Command::Deactivate { force: false });
            answer = wait_answer(&mut world, command);
            world.run_for(1);
        }
        assert!(
            matches!(answer, Ok(Done::Fenced)),
            "seed {seed}: {answer:?}"
        );
        on_again(&mut world);
        assert!(world.run_until(20_000, World::healthy), "seed {seed}");
        world.run_for(100);
        assert_eq!(world.failure, None, "seed {seed}");
    }
    assert!(hits > 0, "no seed hit the moment");
}

/// The standby asks for the volume and never hears the consent; then the other side leads a settlement
/// and never hears that one. Each wrote down a view of its own after the same one: the copies are equal,
/// and that is no split brain.
#[test]
fn two_proposals_that_came_to_nothing_are_no_split_brain() {
    let mut hits = 0;
    for seed in SEEDS {
        let mut world = pair(seed);
        let epoch = world.nodes[0].view().epoch.0;
        world.silence([true, false]);
        world.command(1, Command::Activate);
        let written = |world: &World| world.nodes[0].view().epoch.0 > epoch;
        assert!(world.run_until(1000, written), "seed {seed}");
        world.run_for(5000);
        world.silence([false, false]);
        let proposed = |world: &World| world.nodes[1].view().epoch.0 > epoch;
        assert!(world.run_until(20_000, proposed), "seed {seed}");
        world.silence([false, true]);
        world.run_for(5000);
        let views = [world.nodes[0].view(), world.nodes[1].view()];
        hits += u64::from(views[0].epoch.0 == epoch + 1 && views[1].epoch.0 == epoch + 2);
        world.silence([false, false]);
        on_again(&mut world);
        assert!(world.run_until(20_000, World::healthy), "seed {seed}");
        assert_eq!(times(&world, "refused SplitBrain"), 0, "seed {seed}");
        assert_eq!(world.failure, None, "seed {seed}");
    }
    assert!(hits > 0, "no seed hit the moment");
}

/// The daemon was killed under a service and took its device over. Whoever moves the service long after that finds both
/// copies equal: the kernel has nothing any more that the other node lacks (found by seed 2321: the move came to nothing).
#[test]
fn service_of_a_daemon_that_was_restarted_ends_as_cleanly_as_any_other() {
    for seed in SEEDS {
        let mut world = pair(seed);
        on(&mut world, 0);
        write(&mut world, 0, 0, 1000, 8);
        world.kill(0);
        world.start(0);
        assert!(world.run_until(20_000, World::healthy), "seed {seed}");
        world.run_for(20_000);
        let copies = times(&world, "CopyFinished");
        let asked = world.command(0, Command::Deactivate { force: false });
        assert_eq!(wait_answer(&mut world, asked), Ok(Done::Fenced));
        on(&mut world, 1);
        assert!(world.run_until(20_000, World::healthy), "seed {seed}");
        assert_eq!(times(&world, "CopyFinished"), copies, "seed {seed}");
        assert_eq!(world.failure, None, "seed {seed}");
    }
}

/// As soon as both count and are connected.
fn on_again(world: &mut World) {
    let together = |world: &World| {
        let views = [world.nodes[0].view(), world.nodes[1].view()];
        let up = |node| world.status(node).map(|status| status.link.state) == Some(LinkState::Up);
        views[0] == views[1] && views[0].insync.len() == 2 && up(0) && up(1)
    };
    assert!(world.run_until(20_000, together), "{:?}", world.failure);
    world.run_for(100);
    on(world, 0);
}

/// What an engine sent to the peer as flushes of its own.
fn own_flushes(effects: &[Effect]) -> usize {
    let sent = effects.iter().filter(
        |effect| matches!(effect, Effect::Send { frame, .. } if frame.id == FLUSH_BACKGROUND),
    );
    sent.count()
}

/// Does what the engine asks of disks and metadata, but no flush.
fn work(engine: &mut Engine, now: Instant, effects: &mut Vec<Effect>) {
    let mut next = 0;
    while next < effects.len() {
        if let Effect::WriteBlock { id, .. } = &effects[next] {
            engine.intent.written(*id);
            engine.go_on(now, effects);
            engine.background_steps(now, effects);
        } else if let Effect::Disk { owner, .. } = &effects[next]
            && let IoOwner::Application(tag) = *owner
        {
            engine.local_done(now, tag, Ok(()), effects);
        } else if let Effect::Send { frame, .. } = &effects[next]
            && frame.id != FLUSH_BACKGROUND
        {
            let id = frame.id;
            engine.peer_done(now, id, effects);
        }
        next += 1;
    }
}

/// Everything is copied, and the application writes so much that a checkpoint would be due whenever the last one ends.
/// The copy counts after a flush that waits for checkpoints: none may begin then (found by seed 1241951, on slow disks).
#[test]
fn complete_resync_begins_no_checkpoint_while_the_application_writes() {
    let world = World::new(1, Plan::quiet(6000));
    let intent = Intent::new(&world.nodes[0].meta.read(), 64);
    let mut engine = Engine::new(6000, intent);
    let (now, peer, mut effects) = (Instant::default(), SessionId(1), Vec::new());
    engine.open();
    let (cause, likeness) = (CopyCause::Outdated, Likeness::Different);
    engine.begin_resync(now, peer, CopyId([1; 16]), cause, likeness, &mut effects);
    assert!(engine.resync_is_complete(), "nothing is marked");
    for start in 0..20 {
        let request = Request {
            tag: Tag(0),
            kind: RequestKind::Write,
            range: SectorRange::new(start * 256, 256),
            fua: false,
        };
        effects.clear();
        engine.submit(now, request, &mut effects);
        engine.background_steps(now, &mut effects);
        work(&mut engine, now, &mut effects);
        let mirrored = |effect: &Effect| matches!(effect, Effect::Send { frame, .. } if frame.range == request.range);
        assert!(effects.iter().any(mirrored), "{start}: {effects:?}");
        engine.background_steps(now, &mut effects);
        assert_eq!(own_flushes(&effects), 0, "{start}");
    }
}

/// Two reads fail where a run of a verify waits for a write: one came before the run, which lets it past, the other
/// after it, and waits for the run. The first one must not wait for the second (found by seed 1262783: nothing went on).
#[test]
fn block_to_be_healed_waits_for_none_that_came_later() {
    let world = World::new(1, Plan::quiet(6000));
    let intent = Intent::new(&world.nodes[0].meta.read(), 64);
    let mut engine = Engine::new(6000, intent);
    let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
    let (peer, mut effects) = (SessionId(1), Vec::new());
    let request = |tag: u16, kind, start| Request {
        tag: Tag(tag),
        kind,
        range: SectorRange::new(start, 16),
        fua: false,
    };
    engine.open();
    engine.peer_is_member(at(0), peer, &mut effects);
    engine.set_lease(at(0), ReadLease::NotNeeded, &mut effects);
    engine.submit(at(1), request(0, RequestKind::Write, 104), &mut effects);
    engine.background_steps(at(1), &mut effects);
    let written = |effect: &Effect| {
        let Effect::WriteBlock { id, .. } = effect else {
            return None;
        };
        Some(*id)
    };
    for id in effects.iter().filter_map(written).collect::<Vec<_>>() {
        engine.intent.written(id);
        engine.go_on(at(1), &mut effects);
    }
    let sent = |effects: &[Effect], kind| {
        let frames = effects.iter().filter_map(|effect| {
            let Effect::Send { frame, .. } = effect else {
                return None;
            };
            (frame.kind == kind).then_some(frame.id)
        });
        frames.collect::<Vec<_>>()
    };
    let write = sent(&effects, FrameKind::Write)[0];
    engine.submit(at(2), request(1, RequestKind::Read, 96), &mut effects);
    engine.verify_begin(at(3), Repair::Nothing, at(3));
    engine.verify_steps(at(3), &mut effects);
    assert!(engine.verify_has_runs(), "it waits for the write");
    engine.submit(at(4), request(2, RequestKind::Read, 100), &mut effects);
    for tag in [1, 2] {
        assert!(engine.read_failed(at(5), Tag(tag), Errno::EIO, &mut effects));
    }
    effects.clear();
    engine.local_done(at(6), Tag(0), Ok(()), &mut effects);
    engine.peer_done(at(6), write, &mut effects);
    let asked = sent(&effects, FrameKind::Read);
    assert_eq!(asked.len(), 1, "the first one is asked for: {effects:?}");
}

/// A flush that makes room in the activity log begins between a resync's last view and its being durable,
/// and comes to nothing then; the next one is sent before the peer has answered. That answer speaks of the
/// first flush: a write that came between the two is not on the peer's disk yet (S7).
#[test]
fn answer_to_a_flush_that_came_to_nothing_does_not_count_for_the_next() {
    let world = World::new(1, Plan::quiet(6000));
    let intent = Intent::new(&world.nodes[0].meta.read(), 1);
    let mut engine = Engine::new(6000, intent);
    let (now, peer, mut effects) = (Instant::default(), SessionId(1), Vec::new());
    let write = |tag: u16, start: u64| Request {
        tag: Tag(tag),
        kind: RequestKind::Write,
        range: SectorRange::new(start, 8),
        fua: false,
    };
    engine.open();
    engine.peer_is_member(now, peer, &mut effects);
    engine.submit(now, write(0, 0), &mut effects);
    engine.background_steps(now, &mut effects);
    work(&mut engine, now, &mut effects);
    // The log has room for one extent: this one waits for a flush of both copies.
    effects.clear();
    engine.submit(now, write(1, 1024), &mut effects);
    engine.background_steps(now, &mut effects);
    assert_eq!(own_flushes(&effects), 1);
    engine.peer_widened(peer);
    engine.background_disk_done(now, &mut effects);
    effects.clear();
    engine.background_steps(now, &mut effects);
    assert_eq!(own_flushes(&effects), 1, "the next one");
    engine.background_disk_done(now, &mut effects);
    engine.background_peer_done(now, &mut effects);
    assert!(engine.flushes_in_background(), "that was the first one's");
    engine.background_peer_done(now, &mut effects);
    assert!(!engine.flushes_in_background());
}

/// On a slow disk a request takes longer than the time after which an application counts as idle, and with all of its
/// requests in flight it asks for nothing more: the resync took everything, and made the requests slower still.
#[test]
fn a_resync_gives_way_to_an_application_that_waits_for_a_slow_disk() {
    let mut world = common::large(22);
    world.run_for(60);
    on(&mut world, 0);
    world.plan.habits.slow_writes_ms = [300, 0];
    world.plan.slow_copy_ms = 10;
    let (mut looked, mut most) = (0, 0);
    for round in 1..=300 {
        write(&mut world, 0, 0, 64, 8);
        for waited in 0.. {
            if world.completed == round {
                break;
            }
            world.run_for(1);
            // What began before has ended.
            if waited > 60 {
                let running = world.nodes[0].data.running.iter();
                let runs = running.filter(|running| matches!(running.owner, IoOwner::Copy(_)));
                looked += 1;
                most = most.max(runs.count());
            }
        }
    }
    assert!(looked > 300, "the disk was quick: {looked} ms");
    assert_eq!(most, 1, "runs at the same time");
    let copying = world.status(0).map(|status| status.peer_copy);
    assert_eq!(copying, Some(CopyState::Copying));
}

/// The kernel hands a write of a killed run over only after an operator has thrown away what waits, and both come
/// together before the device has ended: the copies may differ there, and that is not forgotten (S10).
#[test]
fn what_the_kernel_still_has_is_thrown_away_with_the_rest() {
    for seed in SEEDS {
        let mut world = pair(seed);
        on(&mut world, 1);
        world.silence([true, true]);
        write(&mut world, 1, 0, 1000, 8);
        world.run_for(100);
        world.kill(1);
        world.run_for(500);
        world.silence([false, false]);
        world.start(1);
        world.command(1, Command::Deactivate { force: true });
        assert!(world.run_until(5000, |world| world.role(1) == Some(Role::Fenced)));
        world.run_for(10_000);
        assert!(world.nodes.iter().all(|node| node.view().insync.len() == 2));
        let contents: Vec<_> = world.nodes.iter().map(|node| &node.data.content).collect();
        assert!(contents[0] == contents[1], "seed {seed}: the copies differ");
        assert_eq!(world.failure, None, "seed {seed}");
    }
}

/// A forced end begins while the link has not yet noticed that the peer is silent. Nobody says it again: the writes fail
/// when the link is given up, and the service ends.
#[test]
fn a_forced_end_does_not_wait_for_a_peer_that_is_lost_meanwhile() {
    for seed in SEEDS {
        let mut world = pair(seed);
        on(&mut world, 0);
        world.silence([true, true]);
        write(&mut world, 0, 0, 1000, 8);
        world.run_for(20);
        let command = world.command(0, Command::Deactivate { force: true });
        let ended = world.run_until(10_000, |world| {
            world.role(0) == Some(Role::Fenced) && world.nodes[0].device.is_none()
        });
        assert!(ended, "seed {seed}: {:?}", world.role(0));
        let answer = wait_answer(&mut world, command);
        assert!(matches!(answer, Ok(Done::Fenced)), "{answer:?}");
        world.silence([false, false]);
        on_again(&mut world);
        assert!(world.run_until(20_000, World::healthy), "seed {seed}");
        let contents: Vec<_> = world.nodes.iter().map(|node| &node.data.content).collect();
        assert!(contents[0] == contents[1], "seed {seed}: the copies differ");
        assert_eq!(world.failure, None, "seed {seed}");
    }
}
