//! One group and a world in which everything may happen: whatever fails, hangs, breaks or is ordered, in whatever order,
//! nothing starts without its volumes or before the takeover wait, nothing is started twice, and "released" means that nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controlplane_core::group::{
    Action, Effect, Event, Group, Manner, Order, Origin, Outcome, Policy, ResourcePolicy,
    ResourceState, StopFailure, Volumes,
};
use mirror_core::types::Instant;
use proptest::prelude::*;

const RESOURCES: usize = 3;
/// A group to which nothing happens any more comes to rest within so many steps.
const STEPS_MAX: usize = 300;

#[derive(Clone, Copy, Debug)]
enum Step {
    Volumes(Volumes),
    /// An action that is under way ends: which one, and whether well.
    End {
        which: usize,
        well: bool,
    },
    Break {
        resource: usize,
    },
    /// A monitor fails.
    Condemn,
    /// A monitor wants a resource started again.
    Restarts {
        resource: usize,
    },
    /// What failed may be tried again.
    Again,
    /// The end of an earlier action is told once more.
    Late {
        which: usize,
    },
    Order(Order),
    Pass {
        millis: u64,
    },
    /// The daemon dies and begins again; what runs, runs on.
    Restart,
}

fn volumes() -> impl Strategy<Value = Volumes> {
    prop_oneof![
        6 => Just(Volumes::Served(Origin::Start)),
        3 => Just(Volumes::Served(Origin::Failover)),
        2 => Just(Volumes::InDoubt),
        2 => Just(Volumes::Gone),
        1 => Just(Volumes::LeaseOver),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => volumes().prop_map(Step::Volumes),
        12 => (0..RESOURCES, prop::bool::weighted(0.8))
            .prop_map(|(which, well)| Step::End { which, well }),
        2 => (0..RESOURCES).prop_map(|resource| Step::Break { resource }),
        1 => Just(Step::Condemn),
        2 => (0..RESOURCES).prop_map(|resource| Step::Restarts { resource }),
        1 => Just(Step::Again),
        1 => (0..100_usize).prop_map(|which| Step::Late { which }),
        2 => prop_oneof![Just(Order::Start), Just(Order::Stop), Just(Order::Clear)]
            .prop_map(Step::Order),
        5 => prop_oneof![0..900_u64, 900..3000_u64, 3000..90_000_u64, 500_000..4_000_000_u64]
            .prop_map(|millis| Step::Pass { millis }),
        1 => Just(Step::Restart),
    ]
}

struct World {
    group: Group,
    policy: Policy,
    now: Instant,
    volumes: Volumes,
    /// What is really there: `None` if nothing of it is.
    there: [bool; RESOURCES],
    running: BTreeMap<usize, (u64, Action)>,
    ended: Vec<(usize, u64)>,
    cancelled: BTreeSet<u64>,
    /// A stop failed, and nobody cleared it.
    stop_failed: bool,
    /// When the volumes, or the time for services, were last away.
    away: Option<Instant>,
    trace: Vec<String>,
}

impl World {
    fn new(stop_failure: StopFailure) -> Self {
        let mut policy = Policy::new(vec![ResourcePolicy::default(); RESOURCES]);
        policy.stop_failure = stop_failure;
        let now = Instant::from_nanos(5_000_000_000);
        Self {
            group: Group::new(now, policy.clone()),
            policy,
            now,
            volumes: Volumes::InDoubt,
            there: [false; RESOURCES],
            running: BTreeMap::new(),
            ended: Vec::new(),
            cancelled: BTreeSet::new(),
            stop_failed: false,
            away: None,
            trace: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        self.trace.push(format!("{step:?}"));
        match step {
            Step::Volumes(volumes) => {
                if matches!(self.volumes, Volumes::Gone | Volumes::LeaseOver) {
                    self.away = Some(self.now);
                }
                self.volumes = volumes;
                self.tell(Event::Volumes(volumes));
            }
            Step::End { which, well } => {
                let key = self.running.keys().nth(which % self.running.len().max(1));
                if let Some(resource) = key.copied() {
                    self.end(resource, well);
                }
            }
            Step::Break { resource } => {
                // Of what it left behind, anything may be there still.
                self.tell(Event::Broke { resource });
            }
            Step::Condemn => {
                let watched = self.group.is_watched(self.now);
                let served = matches!(self.volumes, Volumes::Served(_));
                assert!(!watched || (served && self.there == [true; RESOURCES]));
                self.tell(Event::Condemned { monitor: 0 });
                assert!(!self.group.is_watched(self.now));
            }
            Step::Restarts { resource } => {
                let allowed =
                    self.group.is_watched(self.now) && self.group.restarts(self.now, resource);
                self.tell(Event::Restart {
                    resource,
                    monitor: 0,
                });
                assert!(!allowed || !self.group.is_watched(self.now));
            }
            Step::Again => self.tell(Event::TriedAgain),
            Step::Late { which } => {
                let ended = self.ended.len();
                if ended > 0 {
                    let (resource, number) = self.ended[which % ended];
                    let outcome = Outcome::Done;
                    self.tell(Event::Ended {
                        resource,
                        number,
                        outcome,
                    });
                }
            }
            Step::Order(order) => {
                if order == Order::Clear {
                    self.stop_failed = false;
                }
                self.tell(Event::Order(order));
            }
            Step::Pass { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                self.tell(Event::Tick);
            }
            Step::Restart => {
                // What was under way is killed with the daemon, or its remains are there.
                self.running.clear();
                self.ended.clear();
                self.cancelled.clear();
                self.stop_failed = false;
                self.volumes = Volumes::InDoubt;
                self.group = Group::new(self.now, self.policy.clone());
                self.tell(Event::Tick);
            }
        }
    }

    fn end(&mut self, resource: usize, well: bool) {
        let (number, action) = self.running.remove(&resource).expect("it runs");
        self.ended.push((resource, number));
        let outcome = match (action, well) {
            (Action::Probe, true) if self.there[resource] => Outcome::Done,
            (Action::Probe, true) => Outcome::Absent,
            (Action::Probe | Action::Start(_), false) => Outcome::Failed,
            (Action::Start(_), true) => Outcome::Done,
            (Action::Stop(_), true) => {
                self.there[resource] = false;
                Outcome::Done
            }
            (Action::Stop(Manner::Orderly), false) => {
                // Broken off for a hard stop is no failure of its own.
                let cut = matches!(self.volumes, Volumes::Gone | Volumes::LeaseOver);
                let doubt = self.volumes == Volumes::InDoubt;
                self.stop_failed |= !cut && !doubt;
                Outcome::Failed
            }
            (Action::Stop(Manner::Hard), false) => Outcome::Failed,
        };
        self.tell(Event::Ended {
            resource,
            number,
            outcome,
        });
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.group.handle(self.now, event, &mut effects);
        for effect in effects {
            self.trace.push(format!("    {effect:?}"));
            self.check(effect);
        }
    }

    fn check(&mut self, effect: Effect) {
        let trace = || self.trace.join("\n");
        match effect {
            Effect::Act {
                resource,
                number,
                action,
                ..
            } => {
                let before = self.running.insert(resource, (number, action));
                assert!(before.is_none(), "two actions at once\n{}", trace());
                match action {
                    Action::Probe => {}
                    Action::Start(_) => {
                        let served = matches!(self.volumes, Volumes::Served(_));
                        assert!(served, "started without its volumes\n{}", trace());
                        assert!(!self.stop_failed, "after a failed stop\n{}", trace());
                        let waited = self
                            .away
                            .is_none_or(|away| self.now >= away + self.policy.takeover_wait);
                        assert!(waited, "beside those of the other node\n{}", trace());
                        let rest = self.there[resource];
                        assert!(!rest, "started over its own remains\n{}", trace());
                        let below = self.there[..resource].iter().all(|there| *there);
                        assert!(below, "started before what is below\n{}", trace());
                        let above = self.there[resource + 1..].iter().any(|there| *there);
                        assert!(!above, "started below what runs\n{}", trace());
                        self.there[resource] = true;
                    }
                    Action::Stop(Manner::Orderly) => {
                        let above = self.there[resource + 1..].iter().any(|there| *there);
                        assert!(!above, "stopped below what runs\n{}", trace());
                    }
                    Action::Stop(Manner::Hard) => {}
                }
            }
            Effect::Cancel { resource, number } => {
                let running = self.running.get(&resource);
                let known = running.is_some_and(|(known, _)| *known == number);
                assert!(known, "nothing to break off\n{}", trace());
                let first = self.cancelled.insert(number);
                assert!(first, "broken off twice\n{}", self.trace.join("\n"));
            }
            Effect::Released => {
                assert!(
                    !self.there.contains(&true),
                    "something is left\n{}",
                    trace()
                );
                assert!(
                    self.running.is_empty(),
                    "something is under way\n{}",
                    trace()
                );
                assert!(!self.stop_failed, "a stop failed\n{}", trace());
            }
            Effect::Fence => {
                let wanted = self.policy.stop_failure == StopFailure::Fence;
                assert!(wanted, "nobody wanted it\n{}", trace());
            }
            Effect::FailedOver
            | Effect::MovedAway
            | Effect::GiveUp(_)
            | Effect::Overdue
            | Effect::Changed(_) => {}
        }
    }

    /// Nothing happens any more but that actions end, well or not, and time passes: it comes to rest.
    fn settle(&mut self, well: &[bool]) {
        let mut well = well.iter().copied().cycle();
        for _ in 0..STEPS_MAX {
            if let Some(resource) = self.running.keys().next().copied() {
                self.trace.push(format!("settle {resource}"));
                self.end(resource, well.next().unwrap_or(true));
            } else if let Some(next) = self.group.deadline(self.now) {
                self.now = next;
                self.trace.push("settle: time".to_string());
                self.tell(Event::Tick);
            } else {
                return;
            }
        }
        panic!("it does not come to rest\n{}", self.trace.join("\n"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_group_keeps_its_rules_whatever_happens(
        hold in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
        well in prop::collection::vec(any::<bool>(), 1..12),
    ) {
        let failure = if hold { StopFailure::Hold } else { StopFailure::Fence };
        let mut world = World::new(failure);
        world.tell(Event::Tick);
        for step in steps {
            world.step(step);
        }
        world.settle(&well);
    }

    #[test]
    fn a_group_whose_actions_all_end_well_runs_where_its_volumes_are_served(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(StopFailure::Fence);
        world.tell(Event::Tick);
        for step in steps {
            world.step(step);
        }
        // Whatever was, all that is broken ends, and an operator says that it is over.
        world.settle(&[true]);
        world.step(Step::Volumes(Volumes::Gone));
        world.settle(&[true]);
        world.step(Step::Order(Order::Clear));
        world.step(Step::Order(Order::Start));
        world.settle(&[true]);
        world.step(Step::Volumes(Volumes::Served(Origin::Start)));
        world.settle(&[true]);
        for resource in 0..RESOURCES {
            prop_assert_eq!(world.group.resource(resource), Some(ResourceState::Online));
        }
        world.step(Step::Order(Order::Stop));
        world.settle(&[true]);
        prop_assert!(!world.there.contains(&true));
    }
}
