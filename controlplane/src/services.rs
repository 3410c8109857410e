//! The groups' resources on this node: what the volumes' daemons say goes into each group's rules, and what follows is
//! carried out in threads, which tell their end through the node's queue.
//!
//! Why a group waits to be cleared is in the file `failed` in `/run/lockstep/groups/GROUP` (docs/groups.md).

mod failed;
mod failovers;
mod fencing;
mod monitors;
mod orders;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use controlplane_api::Client;
use controlplane_core::group::{
    Action, Effect, Event, Group, GroupState, Manner, Order, Origin, Outcome, Spent, Volumes,
};
use controlplane_core::keeper::{Services as Standing, Word};
use controlplane_core::partition::Decision;
use controlplane_core::self_fencing::{ClearGroups, Ground, Left};
use controlplane_core::wish::GroupKey;
use mirror_core::types::Instant;

use crate::config;
use crate::mirror;
use crate::resources::environment::Factor;
use crate::resources::{Context, Environment, Kind, Limit, Places, ResourceError};

use monitors::Monitors;

pub use words::{News, Roots, Seen, Stopping, Tell};

/// Between two looks at the files `failed`.
const ORDER_LOOK: Duration = Duration::from_millis(500);
/// What an action's thread needs; this process holds its memory locked.
const STACK_BYTES: usize = 512 * 1024;
/// A stop waits so long, and a quarter of its own time at most, until no look of a monitor is under way.
const QUIET_TIME: Duration = Duration::from_millis(500);

/// All groups that have resources.
pub struct Services {
    groups: BTreeMap<usize, Service>,
    orders_at: Instant,
    /// See [`Self::wait_longer`].
    stretch: Duration,
}

struct Service {
    number: usize,
    name: String,
    group: Group,
    kinds: Vec<Arc<Kind>>,
    names: Vec<String>,
    volumes: BTreeMap<String, Seen>,
    /// The keeper steps down: no service may run, whatever the volumes' daemons say.
    steps_down: bool,
    /// The time of its services is over: the same.
    lapsed: bool,
    /// On what that rests, and since when it is so.
    ground: Option<(Ground, Instant)>,
    /// That was logged.
    told_over: bool,
    /// All its volumes are linked with the other node.
    linked: bool,
    origin: Origin,
    /// The volumes were all served here: with their loss the failover that brought them is over.
    served: bool,
    home: bool,
    /// What the other node was heard to say last.
    other_clear: Option<Instant>,
    /// Since when it is dead.
    other_dead: Option<Instant>,
    /// What breaks an action off.
    cuts: BTreeMap<u64, Arc<AtomicBool>>,
    order: Order,
    /// Why operators want it stopped here, if they do.
    wanted: Option<Stopping>,
    /// The file `failed` was written by this run; without it an operator has cleared the group.
    failed: bool,
    /// The file `failed` was written by an earlier run.
    inherited: bool,
    /// It failed here, and its volumes left this node since.
    away: bool,
    /// The wish by which it moved away because it failed here, as long as nobody served it since.
    gave: Option<u64>,
    /// That move came to nothing.
    came_back: bool,
    /// Resources that did not start because of what is on a volume.
    alike: BTreeSet<usize>,
    monitors: Monitors,
    /// I/O of one of its volumes waits: nothing that looks like an application that hangs is one.
    frozen: bool,
    /// The wish that failures are forgotten that was carried out last.
    cleared: Option<u64>,
    roots: Roots,
    tell: Tell,
}

impl Services {
    /// Of these groups. Nothing is believed of them yet.
    pub fn new(now: Instant, groups: &[config::Group], roots: &Roots, tell: &Tell) -> Self {
        let services = groups.iter().enumerate();
        let services = services
            .filter(|(_, group)| !group.resources.is_empty())
            .map(|(number, group)| {
                let service = Service::new(now, number, group, roots.clone(), Arc::clone(tell));
                (number, service)
            });
        Self {
            groups: services.collect(),
            orders_at: now,
            stretch: Duration::ZERO,
        }
    }

    /// What a volume's daemon says.
    pub fn volume(&mut self, now: Instant, group: usize, name: &str, seen: Seen) {
        let Some(service) = self.groups.get_mut(&group) else {
            return;
        };
        if service.volumes.insert(name.to_string(), seen) != Some(seen) {
            service.look_at_volumes(now);
        }
    }

    /// What was decided about a group's volumes.
    pub fn decided(&mut self, now: Instant, group: usize, decision: Decision) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.steps_down = matches!(decision, Decision::StepDown(_));
            service.look_at_volumes(now);
        }
    }

    /// A group's rules; `None` if it has no resources.
    pub fn group(&self, group: usize) -> Option<&Group> {
        Some(&self.groups.get(&group)?.group)
    }

    /// What was said to a data plane: why its volume will be served here.
    pub fn said(&mut self, group: usize, word: Word) {
        if let Some(service) = self.groups.get_mut(&group) {
            match word {
                Word::TakeOver { .. } => service.origin = Origin::Failover,
                // Another volume of the group may have been taken over.
                Word::Start | Word::GoAlone { .. } | Word::StepDown | Word::Release => {}
            }
        }
    }

    /// Why operators want a group stopped here; `None` if they do not.
    pub fn wanted(&mut self, now: Instant, group: usize, wanted: Option<Stopping>) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.wanted != wanted
        {
            service.wanted = wanted;
            service.look_at_orders(now);
        }
    }

    /// What failed is forgotten: the group is tried again.
    pub fn clear(&mut self, now: Instant, group: usize) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.clear(now);
        }
    }

    /// An operator's wish with this number: the same, once.
    pub fn clear_once(&mut self, now: Instant, group: usize, number: u64) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.clear_once(now, number);
        }
    }

    /// How a group stands, for its keeper.
    pub fn standing(&self, now: Instant, group: usize, stops: bool) -> Standing {
        let Some(service) = self.groups.get(&group) else {
            return Standing::of_none(stops);
        };
        let released = service.order == Order::Stop && service.group.is_released();
        Standing::of(service.group.state(now), released, stops)
    }

    /// A thread told something.
    pub fn take(&mut self, now: Instant, news: News) {
        let (News::Ended { group, .. } | News::Broke { group, .. } | News::Looked { group, .. }) =
            &news;
        if let Some(service) = self.groups.get_mut(group) {
            service.take(now, news);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) {
        let orders = now >= self.orders_at;
        if orders {
            self.orders_at = now + ORDER_LOOK;
        }
        for service in self.groups.values_mut() {
            if orders {
                service.look_at_orders(now);
            }
            service.handle(now, Event::Tick);
            service.tick_monitors(now);
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let groups = self.groups.values();
        let deadlines = groups.filter_map(|service| service.group.deadline(now));
        let any = !self.groups.is_empty();
        deadlines.chain(any.then_some(self.orders_at)).min()
    }

    /// How a group stands; `None` if it has no resources.
    pub fn state(&self, now: Instant, group: usize) -> Option<GroupState> {
        Some(self.groups.get(&group)?.group.state(now))
    }
}

impl Service {
    fn new(now: Instant, number: usize, group: &config::Group, roots: Roots, tell: Tell) -> Self {
        let kind = |resource: &config::Resource| Arc::new(Kind::of(resource.kind.clone()));
        let names = group.resources.iter().map(|resource| resource.name.clone());
        let unclear = |name: &String| (name.clone(), Seen::Unclear);
        let mut service = Self {
            number,
            name: group.name.clone(),
            group: Group::new(now, group.policy.clone()),
            kinds: group.resources.iter().map(kind).collect(),
            names: names.collect(),
            volumes: group.volumes.iter().map(unclear).collect(),
            steps_down: false,
            lapsed: false,
            ground: None,
            told_over: false,
            linked: false,
            origin: Origin::Start,
            served: false,
            home: group.nodes.first() == Some(&roots.node),
            other_clear: None,
            other_dead: None,
            cuts: BTreeMap::new(),
            order: Order::Start,
            wanted: None,
            failed: false,
            inherited: false,
            away: false,
            gave: None,
            came_back: false,
            alike: BTreeSet::new(),
            monitors: Monitors::new(now, group, &roots),
            frozen: false,
            cleared: None,
            roots,
            tell,
        };
        service.cleared = service.cleared_before();
        for (spent, ago) in service.remembered() {
            service.handle(now, Event::Remembered { spent, ago });
        }
        // Before anything is looked at: an operator's earlier word holds.
        service.look_at_orders(now);
        service.away = service.was_away();
        service.handle(now, Event::Tick);
        service
    }

    fn look_at_volumes(&mut self, now: Instant) {
        let any = |seen| self.volumes.values().any(|own| *own == seen);
        let volumes = if self.steps_down || self.lapsed {
            Volumes::LeaseOver
        } else if any(Seen::Fenced) {
            Volumes::Gone
        } else if any(Seen::Unclear) {
            Volumes::InDoubt
        } else {
            Volumes::Served(self.origin)
        };
        match volumes {
            Volumes::Served(_) => {
                self.served = true;
                self.look_at_return(now);
            }
            Volumes::Gone | Volumes::LeaseOver if self.served => {
                (self.served, self.origin) = (false, Origin::Start);
            }
            Volumes::Gone | Volumes::LeaseOver | Volumes::InDoubt => {}
        }
        self.look_whether_away();
        self.handle(now, Event::Volumes(volumes));
    }

    fn take(&mut self, now: Instant, news: News) {
        match news {
            News::Ended {
                resource,
                number,
                action,
                outcome,
                error,
                ..
            } => {
                self.cuts.remove(&number);
                self.log_end(resource, action, outcome, error.as_ref());
                if matches!(action, Action::Start(_)) {
                    self.remember_why(resource, error.as_ref());
                }
                self.handle(
                    now,
                    Event::Ended {
                        resource,
                        number,
                        outcome,
                    },
                );
            }
            News::Broke {
                resource, error, ..
            } => {
                let (code, group) = (error.code(), &self.name);
                let name = self.names.get(resource);
                tracing::error!(code, group, resource = name, "{error}");
                self.remember_why(resource, Some(&error));
                self.handle(now, Event::Broke { resource });
            }
            News::Looked {
                monitor,
                run,
                took,
                ill,
                ..
            } => self.looked(now, monitor, run, took, ill),
        }
    }

    fn log_end(
        &self,
        resource: usize,
        action: Action,
        outcome: Outcome,
        error: Option<&ResourceError>,
    ) {
        let (group, resource) = (&self.name, self.names.get(resource));
        if let Some(error) = error {
            tracing::error!(code = error.code(), group, resource, ?action, "{error}");
            return;
        }
        match (action, outcome) {
            (Action::Start(_), _) => {
                tracing::info!(code = "LS6041", group, resource, "started");
            }
            (Action::Stop(manner), _) => {
                tracing::info!(code = "LS6042", group, resource, ?manner, "stopped");
            }
            (Action::Probe, outcome) => {
                tracing::info!(code = "LS6043", group, resource, ?outcome, "looked at");
            }
        }
    }

    fn handle(&mut self, now: Instant, event: Event) {
        let mut effects = Vec::new();
        self.group.handle(now, event, &mut effects);
        // Before anything is stopped: no look keeps what it looks at busy.
        self.look_no_more(now);
        for effect in effects {
            self.carry_out(effect);
        }
        self.look_from_now_on(now);
    }

    fn carry_out(&mut self, effect: Effect) {
        let group = self.name.clone();
        match effect {
            Effect::Act {
                resource,
                number,
                action,
                timeout,
            } => self.act(resource, number, action, timeout),
            Effect::Cancel { number, .. } => {
                if let Some(cut) = self.cuts.get(&number) {
                    cut.store(true, Ordering::Relaxed);
                }
            }
            Effect::Released => {
                tracing::info!(code = "LS6044", group, "nothing of the group is left here");
            }
            Effect::Fence => {
                let code = "LS6045";
                tracing::error!(
                    code,
                    group,
                    "a resource does not stop: shutting the volumes"
                );
                self.fence();
            }
            Effect::FailedOver => self.remember(Spent::Takeover),
            Effect::MovedAway => self.remember(Spent::Move),
            Effect::GiveUp(reason) => self.give_up(reason),
            Effect::Overdue => {
                let code = "LS6048";
                tracing::error!(code, group, "a hard stop is not over in time");
            }
            Effect::Changed(state) => {
                tracing::info!(code = "LS6040", group, "{state}");
                if state == GroupState::StopFailed {
                    self.write_failed("LS6045 a resource did not stop");
                }
            }
        }
    }

    /// The words go out beside this thread: a data plane may be slow.
    fn fence(&self) {
        for volume in self.volumes.keys() {
            let volume = volume.clone();
            let say = move || match mirror::say(&Client::of_volume(&volume), Word::StepDown) {
                Ok(done) => tracing::info!(volume, ?done, "the volume is shut"),
                Err(problem) => {
                    tracing::error!(volume, code = %problem.code, "{}", problem.message);
                }
            };
            spawn("fence", say);
        }
    }

    fn act(&mut self, resource: usize, number: u64, action: Action, timeout: Duration) {
        if matches!(action, Action::Start(_)) {
            // Before it runs, and not at the loop's next look: no heartbeat may say by then that nothing is here.
            let clear = ClearGroups::of([(GroupKey::of(&self.name), Left::Nothing)]);
            let others = !clear.bits();
            self.roots.clear.fetch_and(others, Ordering::Relaxed);
        }
        let cut = Arc::new(AtomicBool::new(false));
        self.cuts.insert(number, Arc::clone(&cut));
        let (tell, group) = (Arc::clone(&self.tell), self.number);
        let broke = Arc::clone(&self.tell);
        let context = Context {
            places: Places {
                group: self.name.clone(),
                resource: self.names[resource].clone(),
                ..self.roots.places.clone()
            },
            environment: self.environment(resource, action),
            limit: Limit::new(timeout, cut),
            broke: Arc::new(move |error| {
                broke(News::Broke {
                    group,
                    resource,
                    error,
                });
            }),
        };
        let kind = Arc::clone(&self.kinds[resource]);
        // A look of an earlier run may go on: it is ended before it is looked what is there.
        let quiet = match action {
            Action::Probe | Action::Stop(_) => Some(self.monitors.quiet()),
            Action::Start(_) => None,
        };
        spawn("resource", move || {
            if let Some(quiet) = quiet {
                quiet.wait(QUIET_TIME.min(timeout / 4));
            }
            let (outcome, error) = kind.act(action, &context);
            tell(News::Ended {
                group,
                resource,
                number,
                action,
                outcome,
                error,
            });
        });
    }

    fn environment(&self, resource: usize, action: Action) -> Environment {
        let factor = match action {
            Action::Probe | Action::Start(_) => Factor::None,
            Action::Stop(_) if self.group.barred().is_some() => Factor::GroupFailover,
            Action::Stop(Manner::Orderly) if self.order != Order::Stop => Factor::ResourceRestart,
            Action::Stop(_) if self.wanted == Some(Stopping::Moves) => Factor::GroupMove,
            Action::Stop(_) => Factor::GroupStop,
        };
        Environment {
            resource: self.names[resource].clone(),
            ..self.told(factor)
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new()
        .name(name.to_string())
        .stack_size(STACK_BYTES)
        .spawn(work);
    if let Err(error) = thread {
        // The action never ends: the group's rules take that for a stop that failed.
        tracing::error!(code = "LS6062", %error, "cannot start a thread");
    }
}
