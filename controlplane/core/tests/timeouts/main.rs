//! Timeouts are raised and lowered on two nodes, whatever is lost, whoever is cut off, ends, boots anew or has a clock that
//! drifts: services never live on one node when they may start on the other, and nobody is interrupted who hears the other one.

mod parts;
mod world;

use world::{Fault, World};

/// What may happen between two moments.
const HAPPENS: [Fault; 13] = [
    Fault::Nothing,
    Fault::Say(0, 30),
    Fault::Say(1, 30),
    Fault::Say(0, 55),
    Fault::Reset(0),
    Fault::Reset(1),
    Fault::Cut([true, true]),
    Fault::Cut([true, false]),
    Fault::Cut([false, true]),
    Fault::Heal,
    Fault::Restart(0),
    Fault::Restart(1),
    Fault::SlowDisk(1),
];

/// What ends each of them: the serving node is cut off for good.
const ENDS: [Fault; 4] = [
    Fault::Nothing,
    Fault::Reboot(1),
    Fault::Restart(1),
    Fault::Reset(0),
];

fn walk(seed: u64, faults: &[Fault], pauses: &[u64]) -> Result<World, String> {
    let world = World::new(seed);
    walk_in(world, faults, pauses)
}

fn walk_in(mut world: World, faults: &[Fault], pauses: &[u64]) -> Result<World, String> {
    world.pass(3000)?;
    for (fault, pause) in faults.iter().zip(pauses) {
        world.happen(*fault);
        world.pass(*pause)?;
    }
    Ok(world)
}

/// Then node 0, which serves, is heard no more.
fn silence(mut world: World, end: Fault) -> Result<(), String> {
    world.happen(Fault::Cut([true, true]));
    world.happen(Fault::LinkDown);
    world.pass(700)?;
    world.happen(end);
    world.pass(40_000)
}

fn all(seed: u64) -> Result<(), String> {
    let told = |error: String, faults: &[Fault], end| format!("{error}: {faults:?}, then {end:?}");
    for first in HAPPENS {
        for second in HAPPENS {
            for third in HAPPENS {
                let faults = [Fault::Say(0, 30), first, second, third];
                // Not all of them end in every way: each does in one, and each pair in all.
                let end = ENDS[world::mix(seed, &faults) % ENDS.len()];
                let run = walk(seed, &faults, &[2000, 900, 900, 900]);
                run.and_then(|world| silence(world, end))
                    .map_err(|error| told(error, &faults, end))?;
            }
        }
    }
    Ok(())
}

fn random(seeds: std::ops::Range<u64>) -> Result<(), String> {
    for seed in seeds {
        let mut world = World::new(seed);
        let outcome = world.pass(1000).and_then(|()| {
            for _ in 0..12 {
                let fault = world.any();
                world.happen(fault);
                let pause = world.pause();
                world.pass(pause)?;
            }
            world.happen(Fault::Cut([true, true]));
            world.happen(Fault::LinkDown);
            world.pass(40_000)
        });
        outcome.map_err(|error| format!("{error}: seed {seed}: {:?}", world.happened))?;
    }
    Ok(())
}

#[test]
fn whatever_happens_a_lease_is_over_before_the_other_node_begins() {
    for seed in 0..2 {
        all(seed).expect("no node begins beside the other one");
    }
}

#[test]
fn nor_at_random() {
    random(0..400).expect("no node begins beside the other one");
}

#[test]
fn a_keeper_a_group_and_a_detector_do_what_they_are_told() {
    parts::all().expect("all is well");
}

/// The interconnects fail for longer than a raised lease lasts, and the mirror link goes on; then the peer dies.
#[test]
fn the_serving_node_knows_it_as_well_when_only_the_link_was_left() {
    for seed in 0..40 {
        for (word, pause) in [(30, 500), (30, 7000), (30, 20_000), (200, 50_000)] {
            for second in [Fault::Nothing, Fault::Reset(1)] {
                let mut world = World::new(seed);
                world.calm = true;
                let run = walk_in(world, &[Fault::Say(0, word), second], &[2500, 1000]);
                let mut world = run.expect("a run");
                world.happen(Fault::Cut([true, true]));
                world.pass(pause).expect("a run");
                assert_eq!(world.interruptions, 0);
                world.happen(Fault::Off(1));
                world.pass(60_000).expect("a run");
                let told = format!("{word}, {second:?} after {pause}, seed {seed}");
                assert!(world.dead_in_time, "{told}");
            }
        }
    }
}

/// Raised, and lowered by time, by a word, by a reboot: nobody hears a thing of it.
#[test]
fn nothing_is_interrupted_by_raising_or_lowering() {
    for seed in 0..20 {
        for faults in [
            [Fault::Say(0, 30), Fault::Nothing],
            [Fault::Say(1, 200), Fault::Reset(0)],
            [Fault::Say(0, 200), Fault::Say(1, 11)],
        ] {
            let mut world = walk(seed, &faults, &[20_000, 20_000]).expect("a run");
            assert_eq!(world.interruptions, 0, "seed {seed}: {faults:?}");
            // A minute, and what was promised last.
            world.pass(150_000).expect("a run");
            assert_eq!(world.interruptions, 0, "seed {seed}: {faults:?}");
            assert_eq!(world.waits(), [10, 10], "seed {seed}: {faults:?}");
        }
    }
}

/// A machine that stands still for less than what was raised is not taken over from; as configured it is.
#[test]
fn a_raised_timeout_bears_what_it_is_for() {
    for (faults, bears) in [([Fault::Nothing], false), ([Fault::Say(0, 40)], true)] {
        let mut world = walk(3, &faults, &[5000]).expect("a run");
        world.happen(Fault::Cut([true, true]));
        world.happen(Fault::LinkDown);
        world.pass(6000).expect("a run");
        let borne = world.interruptions == 0;
        assert_eq!(borne, bears, "{faults:?}");
    }
}

/// Who serves goes on alone as soon as its peer is dead, in each stage: its lease is not over by then, if the arbiter answers.
#[test]
fn the_serving_node_knows_that_its_peer_is_dead_while_its_lease_lasts() {
    for seed in 0..40 {
        for pause in [0, 100, 200, 300, 400, 600, 900, 1500, 3000] {
            for first in [Fault::Say(0, 60), Fault::Say(1, 60), Fault::Nothing] {
                for second in [Fault::Nothing, Fault::Reset(0), Fault::Reset(1)] {
                    let mut world = World::new(seed);
                    world.calm = true;
                    let run = walk_in(world, &[first, second], &[2500, pause]);
                    let mut world = run.expect("a run");
                    world.happen(Fault::Off(1));
                    world.pass(30_000).expect("a run");
                    let told = format!("{first:?}, {second:?} after {pause}, seed {seed}");
                    assert!(world.dead_in_time, "{told}");
                }
            }
        }
    }
}

#[cfg(feature = "mutants")]
#[test]
fn each_wrong_rule_is_found() {
    use controlplane_core::mutant::{self, Mutant};
    const PARTS: [Mutant; 6] = [
        Mutant::StretchUnheard,
        Mutant::NotBeforeIgnored,
        Mutant::PromiseBeforeWait,
        Mutant::RaiseEndsGap,
        Mutant::QuietIsHeard,
        Mutant::RaisedForEver,
    ];
    for (name, mutant) in Mutant::APART {
        mutant::set(Some(*mutant));
        // Of the others the world has no part, or looks at nothing that they change.
        let found = if PARTS.contains(mutant) {
            parts::all()
        } else {
            all(0).and_then(|()| random(0..400))
        };
        mutant::set(None);
        let found = found.expect_err(name);
        println!("{name}: {found}");
    }
}
