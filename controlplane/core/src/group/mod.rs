//! One failover group on one node: starts its resources in order, stops them in reverse, and says when nothing is left.
//!
//! What is wanted follows from how the volumes stand, from what an operator said and from what failed; what is done
//! follows from what is wanted and how the resources stand. So a late result, or a daemon that begins in the middle,
//! is no special case: each resource is looked at first, and what runs already is taken as it is.
//!
//! Nothing is started unless all volumes are served here. A resource has one action at a time. A stop that failed is
//! never taken for a stop: the group waits for an operator, and never says [`Effect::Released`].

mod fencing;
mod moving;
mod resource;
mod types;
pub mod why;

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::Instant;

pub use types::{
    Action, Effect, Event, GroupState, Manner, Order, Origin, Outcome, Policy, Reason,
    ResourcePolicy, ResourceState, Spent, StopFailure, Volumes,
};

use resource::{Resource, Running};

use crate::limits::{HARD_STOPS_MAX, PROBE_PATIENCE, PROBE_TIMEOUT, RETRY_PAUSE};
use crate::self_fencing::{Start, starts};
use why::{Goal, Progress, Record};

/// A group on one node.
#[derive(Debug)]
pub struct Group {
    policy: Policy,
    resources: Vec<Resource>,
    volumes: Volumes,
    volumes_since: Instant,
    order: Order,
    barred: Option<Reason>,
    /// This monitor asked for what is stopped and started again now.
    restarting: Option<usize>,
    stop_failed: bool,
    released: bool,
    /// A start of the whole group is under way, or over: its failover is counted.
    counted: bool,
    /// Until when each failover counts.
    failovers: Vec<Instant>,
    /// The same of each move away because it failed here.
    moves: Vec<Instant>,
    online_since: Option<Instant>,
    hard_since: Option<Instant>,
    /// Of an earlier run, until nothing is left, or may be.
    hard_before: Option<Instant>,
    overdue: bool,
    /// See [`Event::OtherClear`].
    other_clear: Option<Instant>,
    /// See [`Event::OtherDead`]; and when it was dead last.
    other_dead: Option<Instant>,
    was_dead: Option<Instant>,
    /// See [`Event::Linked`].
    linked_since: Option<Instant>,
    /// See [`Event::WaitsLonger`].
    stretch: Duration,
    fences: u32,
    fence_at: Instant,
    next_number: u64,
    told: Option<GroupState>,
    record: Record,
}

impl Group {
    /// A group of which nothing is known yet.
    pub fn new(now: Instant, policy: Policy) -> Self {
        Self {
            resources: policy
                .resources
                .iter()
                .map(|own| Resource::new(now, own))
                .collect(),
            policy,
            volumes: Volumes::InDoubt,
            volumes_since: now,
            order: Order::Start,
            barred: None,
            restarting: None,
            stop_failed: false,
            released: false,
            counted: false,
            failovers: Vec::new(),
            moves: Vec::new(),
            online_since: None,
            hard_since: None,
            hard_before: None,
            overdue: false,
            other_clear: None,
            other_dead: None,
            was_dead: None,
            linked_since: None,
            stretch: Duration::ZERO,
            fences: 0,
            fence_at: now,
            next_number: 1,
            told: None,
            record: Record::default(),
        }
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Volumes(volumes) => self.volumes(now, volumes),
            Event::Ended {
                resource,
                number,
                outcome,
            } => self.ended(now, resource, number, outcome, effects),
            Event::Broke { resource } => self.broke(now, resource, effects),
            Event::Restart { resource, monitor } => self.restart(now, resource, monitor),
            Event::Condemned { monitor } => self.condemned(now, monitor, effects),
            Event::Order(Order::Clear) => self.clear(now),
            Event::Order(order) => self.order = order,
            Event::OtherClear { asked } => {
                self.other_clear = self.other_clear.max(Some(asked));
            }
            Event::OtherDead { since } => self.hear_of_death(since),
            Event::Linked(linked) => {
                self.linked_since = self.linked_since.or(Some(now)).filter(|_| linked);
            }
            Event::WaitsLonger(stretch) => self.stretch = stretch,
            Event::HardSince(since) => self.hard_before = Some(since),
            Event::Remembered { spent, ago } => self.remember(now, spent, ago),
            Event::MovesAway => self.moves_away(now, effects),
            Event::TriedAgain => self.try_again(now),
            Event::Tick => {}
        }
        self.watch_time(now, effects);
        self.look(now, effects);
        let state = self.state(now);
        if self.told != Some(state) {
            self.told = Some(state);
            effects.push(Effect::Changed(state));
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let running = self.resources.iter().filter_map(|resource| {
            let running = resource.running?;
            let patience = (running.action == Action::Probe && running.cancelled.is_none())
                .then(|| running.since + PROBE_PATIENCE)
                .filter(|at| *at > now);
            patience.or(running.deadline())
        });
        let rests = self.resources.iter().map(|resource| resource.rests_until);
        let hard = self.hard_since.map(|since| since + self.policy.hard_stop);
        let doubt = self.volumes_since + self.policy.doubt_grace;
        let takeover = self.waits_until();
        running
            .chain(rests)
            .chain(hard)
            .chain([doubt, takeover, self.fence_at])
            .filter(|at| *at > now)
            .min()
    }

    /// How the group stands.
    pub fn state(&self, now: Instant) -> GroupState {
        let all = self.resources.len();
        let is = |state| move |resource: &Resource| resource.state == state;
        let online = self.count(is(ResourceState::Online));
        let offline = self.count(is(ResourceState::Offline));
        let goal = self.goal(now);
        if self.stop_failed {
            return GroupState::StopFailed;
        }
        if matches!(goal, Goal::Stop | Goal::HardStop) && offline < all {
            return GroupState::Stopping;
        }
        if self.count(|resource| !resource.probed) > 0 {
            return GroupState::Unknown;
        }
        match (self.barred, goal) {
            (Some(Reason::Resource(_) | Reason::Monitor(_)), _) => GroupState::StartFailed,
            (Some(Reason::PingPong), _) => GroupState::Failed,
            (None, Goal::Stop | Goal::HardStop) => GroupState::Offline,
            (None, Goal::Run | Goal::Hold) if online == all => GroupState::Online,
            (None, Goal::Hold) if offline == all => GroupState::Offline,
            (None, Goal::Run | Goal::Hold) => GroupState::Starting { online, all },
        }
    }

    /// How a resource stands.
    pub fn resource(&self, resource: usize) -> Option<ResourceState> {
        Some(self.resources.get(resource)?.state)
    }

    /// What was configured.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether nothing of the group is left here, and nothing failed on the way.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Whether a resource did not stop: something of the group may be left, and waits to be cleared.
    pub fn is_stop_failed(&self) -> bool {
        self.stop_failed
    }

    /// Why the group is not started here, if so.
    pub fn barred(&self) -> Option<Reason> {
        self.barred
    }

    fn count(&self, is: impl Fn(&Resource) -> bool) -> usize {
        self.resources
            .iter()
            .filter(|resource| is(resource))
            .count()
    }

    fn goal(&self, now: Instant) -> Goal {
        self.judge(now).0
    }

    fn volumes(&mut self, now: Instant, volumes: Volumes) {
        if volumes == self.volumes {
            return;
        }
        // A data plane that was away for a moment is no other activation.
        let again = matches!(
            (self.volumes, volumes),
            (Volumes::InDoubt, Volumes::Served(_))
        ) && self.counted;
        // Once they were away, what begins here next is another start: it waits, and is counted.
        if !again && volumes != Volumes::InDoubt {
            self.counted = false;
        }
        (self.volumes, self.volumes_since) = (volumes, now);
    }

    fn clear(&mut self, now: Instant) {
        self.barred = None;
        self.failovers.clear();
        self.moves.clear();
        for resource in &mut self.resources {
            (resource.failures, resource.restarts) = (0, 0);
            resource.hard_stops = 0;
            resource.rests_until = now;
            if resource.running.is_none() && self.stop_failed {
                // What was left may have gone meanwhile, or may have come back.
                resource.state = ResourceState::Unknown;
                resource.probed = false;
            }
        }
        if self.stop_failed {
            // One more try has no time of its own: the other node waits no longer.
            (self.stop_failed, self.released, self.overdue) = (false, false, false);
        }
    }

    fn broke(&mut self, now: Instant, number: usize, effects: &mut Vec<Effect>) {
        let Some(resource) = self.resources.get_mut(number) else {
            return;
        };
        if resource.state == ResourceState::Online && resource.running.is_none() {
            resource.state = ResourceState::Unknown;
            self.failed(now, number, effects);
        }
    }

    /// A resource did not start or did not stay.
    fn failed(&mut self, now: Instant, number: usize, effects: &mut Vec<Effect>) {
        self.forget_if_stable(now);
        let Some(resource) = self.resources.get_mut(number) else {
            return;
        };
        resource.failures += 1;
        resource.rests_until = now + RETRY_PAUSE;
        if resource.failures > resource.policy.retries && self.barred.is_none() {
            // Without the monitor it would run still: nobody knows that it cannot run here.
            let resource = Reason::Resource(number);
            let reason = self.restarting.map_or(resource, Reason::Monitor);
            self.give_up(reason, effects);
        }
    }

    fn give_up(&mut self, reason: Reason, effects: &mut Vec<Effect>) {
        self.barred = Some(reason);
        effects.push(Effect::GiveUp(reason));
    }

    fn ended(
        &mut self,
        now: Instant,
        number: usize,
        action: u64,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let hard = self.goal(now) == Goal::HardStop;
        let Some(resource) = self.resources.get_mut(number) else {
            return;
        };
        let Some(running) = resource.running.take_if(|running| running.number == action) else {
            return;
        };
        let cut = running.cancelled.is_some();
        match (running.action, outcome) {
            (Action::Probe, _) => {
                resource.probed = true;
                resource.state = match outcome {
                    Outcome::Done => ResourceState::Online,
                    Outcome::Absent => ResourceState::Offline,
                    Outcome::Failed => ResourceState::Unknown,
                };
            }
            (Action::Start(_), Outcome::Done) => resource.state = ResourceState::Online,
            (Action::Start(_), Outcome::Absent | Outcome::Failed) => {
                resource.state = ResourceState::StartFailed;
                // It was broken off because the group has to go, or its time was over.
                let wanted = !cut || now >= running.since + running.timeout;
                if wanted && !hard {
                    self.failed(now, number, effects);
                }
            }
            (Action::Stop(_), Outcome::Done) => {
                resource.state = ResourceState::Offline;
                (resource.probed, resource.hard_stops) = (true, 0);
            }
            (Action::Stop(Manner::Orderly), Outcome::Absent | Outcome::Failed) if cut && hard => {
                resource.state = ResourceState::Unknown;
            }
            (Action::Stop(manner), Outcome::Absent | Outcome::Failed) => {
                resource.state = ResourceState::StopFailed;
                resource.rests_until = now + RETRY_PAUSE;
                // A hard stop has some tries: what holds a mount may be dying.
                if manner == Manner::Orderly || resource.hard_stops >= HARD_STOPS_MAX {
                    self.stop_failed(now);
                }
            }
        }
    }

    fn stop_failed(&mut self, now: Instant) {
        if !self.stop_failed {
            (self.stop_failed, self.fences, self.fence_at) = (true, 0, now);
        }
    }

    /// What should have ended long ago is broken off; what cannot be broken off is taken for something that runs.
    fn watch_time(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut stuck = Vec::new();
        for (number, resource) in self.resources.iter_mut().enumerate() {
            let Some(running) = &mut resource.running else {
                continue;
            };
            if running.deadline().is_none_or(|at| now < at) {
                continue;
            }
            if running.cancelled.is_none() {
                running.cancelled = Some(now);
                effects.push(running.cancel(number));
            } else {
                running.stuck = true;
                stuck.push((number, running.action));
            }
        }
        for (number, action) in stuck {
            let resource = &mut self.resources[number];
            match action {
                Action::Probe => resource.state = ResourceState::Unknown,
                Action::Start(_) | Action::Stop(_) => {
                    resource.state = ResourceState::StopFailed;
                    self.stop_failed(now);
                }
            }
        }
    }

    fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (goal, because) = self.judge(now);
        if goal != Goal::HardStop {
            (self.hard_since, self.overdue) = (None, false);
        }
        self.forget_an_earlier_stop(now, goal);
        self.fence(now, effects);
        let mut waits = None;
        if goal == Goal::HardStop {
            self.stop_hard(now, effects);
        } else if self.count(|resource| !resource.probed) > 0 {
            self.probe(now, effects);
        } else {
            match goal {
                Goal::Run => waits = self.run(now, effects),
                Goal::Stop => self.stop(now, effects),
                Goal::Hold | Goal::HardStop => {}
            }
        }
        // A run that was given up just now has another reason by that.
        let because = if self.barred.is_some() {
            self.judge(now)
        } else {
            (goal, because)
        };
        self.remember_why(now, because, waits);
        self.release(goal, effects);
        let all_online = self.count(|resource| resource.state != ResourceState::Online) == 0;
        self.online_since = self.online_since.or(Some(now)).filter(|_| all_online);
        let over = all_online || matches!(goal, Goal::Stop | Goal::HardStop);
        self.restarting = self.restarting.filter(|_| !over);
    }

    fn probe(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for number in 0..self.resources.len() {
            let resource = &self.resources[number];
            if !resource.probed && resource.running.is_none() {
                self.act(now, number, Action::Probe, PROBE_TIMEOUT, effects);
            }
        }
    }

    /// What it waits for, if it begins nothing because of that.
    fn run(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Option<Progress> {
        self.released = false;
        if self.any_running() {
            return None;
        }
        let online = |resource: &Resource| resource.state == ResourceState::Online;
        let Some(first) = self.resources.iter().position(|resource| !online(resource)) else {
            // All run, started or adopted: a failover that ends here is counted once.
            self.counted = true;
            return None;
        };
        // What runs above something that does not is stopped first, in reverse; what is there in parts as well.
        let last = self.last_not_offline().filter(|last| *last >= first);
        if let Some(last) = last {
            self.stop_one(now, last, effects);
            return None;
        }
        let Volumes::Served(origin) = self.volumes else {
            return None;
        };
        if starts(self.before(now)) == Start::Later {
            let until = self.waits_until();
            return Some(Progress::TakeoverWait { until });
        }
        let (resource, until) = (first, self.resources[first].rests_until);
        if now < until {
            return Some(Progress::Pause { resource, until });
        }
        if !self.counted {
            self.counted = true;
            if origin == Origin::Failover {
                if !self.spend_failover(now) {
                    self.give_up(Reason::PingPong, effects);
                    return None;
                }
                effects.push(Effect::FailedOver);
            }
        }
        let timeout = self.resources[first].policy.start_timeout;
        self.act(now, first, Action::Start(origin), timeout, effects);
        None
    }

    fn stop(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut waits = false;
        for number in 0..self.resources.len() {
            waits |= self.resources[number].running.is_some();
            let starting = |running: &Running| matches!(running.action, Action::Start(_));
            self.cancel_if(now, number, starting, effects);
        }
        if !waits && let Some(last) = self.last_not_offline() {
            self.stop_one(now, last, effects);
        }
    }

    fn stop_one(&mut self, now: Instant, number: usize, effects: &mut Vec<Effect>) {
        let timeout = self.resources[number].policy.stop_timeout;
        self.act(now, number, Action::Stop(Manner::Orderly), timeout, effects);
    }

    /// All at once. What is under way is broken off first.
    fn stop_hard(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let since = *self.hard_since.get_or_insert(now);
        for number in 0..self.resources.len() {
            let resource = &self.resources[number];
            let Some(running) = resource.running else {
                let rests =
                    resource.state == ResourceState::StopFailed && now < resource.rests_until;
                let spent = resource.hard_stops >= HARD_STOPS_MAX;
                if resource.state != ResourceState::Offline && !rests && !spent {
                    self.resources[number].hard_stops += 1;
                    let action = Action::Stop(Manner::Hard);
                    self.act(now, number, action, self.policy.hard_stop, effects);
                }
                continue;
            };
            let patient = running.action == Action::Probe && now < running.since + PROBE_PATIENCE;
            if !patient {
                let other = |running: &Running| running.action != Action::Stop(Manner::Hard);
                self.cancel_if(now, number, other, effects);
            }
        }
        let left = self.count(|resource| resource.state != ResourceState::Offline) > 0;
        if !left {
            (self.hard_since, self.overdue) = (None, false);
        } else if !self.overdue && now >= since + self.policy.hard_stop {
            self.overdue = true;
            effects.push(Effect::Overdue);
        }
    }

    fn release(&mut self, goal: Goal, effects: &mut Vec<Effect>) {
        let stopping = matches!(goal, Goal::Stop | Goal::HardStop);
        let left = self.count(|resource| resource.state != ResourceState::Offline) > 0;
        if stopping && !left && !self.any_running() && !self.stop_failed && !self.released {
            self.released = true;
            effects.push(Effect::Released);
        }
    }

    fn any_running(&self) -> bool {
        self.count(|resource| resource.running.is_some()) > 0
    }

    fn last_not_offline(&self) -> Option<usize> {
        let there = |resource: &Resource| resource.state != ResourceState::Offline;
        self.resources.iter().rposition(there)
    }

    fn cancel_if(
        &mut self,
        now: Instant,
        number: usize,
        wanted: impl Fn(&Running) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(running) = &mut self.resources[number].running
            && running.cancelled.is_none()
            && wanted(running)
        {
            running.cancelled = Some(now);
            effects.push(running.cancel(number));
        }
    }

    fn act(
        &mut self,
        now: Instant,
        number: usize,
        action: Action,
        timeout: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let resource = &mut self.resources[number];
        assert!(
            resource.running.is_none(),
            "one action of a resource at a time"
        );
        resource.state = match action {
            Action::Probe => ResourceState::Unknown,
            Action::Start(_) => ResourceState::Starting,
            Action::Stop(_) => ResourceState::Stopping,
        };
        resource.running = Some(Running {
            number: self.next_number,
            action,
            since: now,
            timeout,
            cancelled: None,
            stuck: false,
        });
        effects.push(Effect::Act {
            resource: number,
            number: self.next_number,
            action,
            timeout,
        });
        self.next_number += 1;
    }
}

#[cfg(test)]
mod tests;
