//! The monitors of a group: they look while it is online here, what they find is told, and what follows is done.

use std::sync::Arc;
use std::time::Duration;

use controlplane_api::cluster;
use controlplane_core::group::Event;
use controlplane_core::monitor::{Health, Look, Monitor, OnError, Pace, Told};
use mirror_core::types::Instant;

use super::{News, Roots, Service, Services};
use crate::config;
use crate::monitors::{self, Guard, Ill, Kind, Quiet, Watch, place_of};
use crate::resources::environment::{Factor, Server};
use crate::resources::{Environment, Places};

/// All of one group.
pub(super) struct Monitors {
    list: Vec<Own>,
    names: Vec<String>,
    /// How often looks were begun: what threads of before tell is nothing any more.
    run: u64,
    looks: bool,
}

struct Own {
    kind: Arc<Kind>,
    places: Places,
    monitor: Monitor,
    guard: Arc<Guard>,
    /// What the last look that failed said.
    ill: String,
}

impl Monitors {
    pub(super) fn new(now: Instant, group: &config::Group, roots: &Roots) -> Self {
        let own = |monitor: &config::Monitor| {
            let places = Places {
                group: group.name.clone(),
                resource: place_of(&monitor.name),
                ..roots.places.clone()
            };
            Own {
                kind: Arc::new(monitor.kind.clone()),
                monitor: Monitor::new(now, monitor.policy),
                guard: Guard::new(&monitor.kind, &places),
                places,
                ill: String::new(),
            }
        };
        let names = group.monitors.iter().map(|monitor| monitor.name.clone());
        Self {
            list: group.monitors.iter().map(own).collect(),
            names: names.collect(),
            run: 0,
            looks: false,
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn name(&self, monitor: usize) -> &str {
        self.names.get(monitor).map_or("", String::as_str)
    }

    /// For a stop, which waits for it.
    pub(super) fn quiet(&self) -> Quiet {
        Quiet::of(self.list.iter().map(|own| Arc::clone(&own.guard)))
    }
}

impl Drop for Monitors {
    /// Threads of a group that is forgotten end as well.
    fn drop(&mut self) {
        for own in &self.list {
            own.guard.end();
        }
    }
}

impl Services {
    /// How a group's monitors are; empty if it has none.
    pub fn monitors(&self, now: Instant, group: usize) -> Vec<cluster::Monitor> {
        let Some(service) = self.groups.get(&group) else {
            return Vec::new();
        };
        let (monitors, names) = (&service.monitors.list, &service.monitors.names);
        let both = monitors.iter().zip(names);
        both.map(|(own, name)| own.status(now, name)).collect()
    }

    /// A monitor that failed by which the group shall leave this node, if it runs here. Whether it may is not asked here.
    pub fn condemns(&self, now: Instant, group: usize) -> Option<usize> {
        self.groups.get(&group)?.condemns(now)
    }

    /// A monitor's name.
    pub fn monitor_name(&self, group: usize, monitor: usize) -> &str {
        let service = self.groups.get(&group);
        service.map_or("", |service| service.monitors.name(monitor))
    }

    /// That follows: the group counts as failed here.
    pub fn condemn(&mut self, now: Instant, group: usize, monitor: usize) {
        if let Some(service) = self.groups.get_mut(&group) {
            service.handle(now, Event::Condemned { monitor });
        }
    }

    /// Whether I/O of a volume of the group waits here.
    pub fn freezes(&mut self, now: Instant, group: usize, frozen: bool) {
        if let Some(service) = self.groups.get_mut(&group)
            && service.frozen != frozen
        {
            service.frozen = frozen;
            service.look_no_more(now);
            service.look_from_now_on(now);
        }
    }

    /// This node stood still: a look that was under way took that time as well.
    pub fn stood_still(&mut self, now: Instant) {
        for service in self.groups.values_mut() {
            service.look_anew(now);
        }
    }
}

impl Service {
    /// The group is not online any more, or is about to stop.
    pub(super) fn look_no_more(&mut self, now: Instant) {
        if self.monitors.looks && !self.is_watched(now) {
            self.end_looks(now);
        }
    }

    fn is_watched(&self, now: Instant) -> bool {
        !self.frozen && self.group.is_watched(now)
    }

    /// What is under way counts nothing, nor what was counted.
    fn look_anew(&mut self, now: Instant) {
        if self.monitors.looks {
            self.end_looks(now);
            self.look_from_now_on(now);
        }
    }

    fn end_looks(&mut self, now: Instant) {
        self.monitors.looks = false;
        for own in &mut self.monitors.list {
            own.guard.end();
            own.monitor.end(now);
        }
    }

    /// It is online, and nothing is about to stop it.
    pub(super) fn look_from_now_on(&mut self, now: Instant) {
        if self.monitors.looks || !self.is_watched(now) {
            return;
        }
        self.monitors.looks = true;
        self.monitors.run += 1;
        for number in 0..self.monitors.list.len() {
            let watch = self.watch(number);
            let own = &mut self.monitors.list[number];
            own.monitor.begin(now);
            match monitors::begin(watch, &own.guard) {
                Ok(guard) => own.guard = guard,
                Err(error) => {
                    // Of its looks nothing is heard: that counts when they are due.
                    let (group, monitor) = (&self.name, self.monitors.names.get(number));
                    let code = "LS6062";
                    tracing::error!(code, group, monitor, %error, "cannot start a thread");
                }
            }
        }
    }

    fn watch(&self, number: usize) -> Watch {
        let own = &self.monitors.list[number];
        let (tell, group, run) = (Arc::clone(&self.tell), self.number, self.monitors.run);
        Watch {
            kind: Arc::clone(&own.kind),
            policy: *own.monitor.policy(),
            places: own.places.clone(),
            environment: Environment {
                resource: self.monitors.names[number].clone(),
                ..self.told(Factor::None)
            },
            tell: Box::new(move |took, said| {
                tell(News::Looked {
                    group,
                    monitor: number,
                    run,
                    took,
                    ill: said.err(),
                });
            }),
        }
    }

    /// What scripts are told, whatever they are for.
    pub(super) fn told(&self, factor: Factor) -> Environment {
        let failover = self.origin == controlplane_core::group::Origin::Failover;
        Environment {
            group: self.name.clone(),
            resource: String::new(),
            origin: self.origin,
            server: if self.home {
                Server::Home
            } else {
                Server::Other
            },
            previous: failover.then(|| self.roots.peer.clone()),
            factor,
        }
    }

    pub(super) fn looked(
        &mut self,
        now: Instant,
        number: usize,
        run: u64,
        took: Duration,
        ill: Option<Ill>,
    ) {
        if run != self.monitors.run {
            return;
        }
        let Some(own) = self.monitors.list.get_mut(number) else {
            return;
        };
        let look = match &ill {
            Some(ill) => {
                own.ill = ill.to_string();
                Look::Ill
            }
            None => Look::Well(took),
        };
        let (told, pace) = own.monitor.looked(now, look);
        self.tell_pace(number, took, pace);
        self.follow(now, number, told);
    }

    /// Time passed.
    pub(super) fn tick_monitors(&mut self, now: Instant) {
        for number in 0..self.monitors.list.len() {
            let own = &mut self.monitors.list[number];
            if let Some(told) = own.monitor.tick(now) {
                own.ill = "nothing is heard of its look: it hangs".to_string();
                self.follow(now, number, told);
            }
            self.restart_again(now, number);
        }
    }

    /// A resource that shall be started again and has no retries left is not: the group has to go.
    fn condemns(&self, now: Instant) -> Option<usize> {
        let condemns = |own: &Own| match own.monitor.policy().on_error {
            OnError::Restart { .. } | OnError::Failover => own.monitor.health() == Health::Failed,
            OnError::Warn => false,
        };
        let watched = self.is_watched(now);
        self.monitors
            .list
            .iter()
            .position(|own| watched && condemns(own))
    }

    fn tell_pace(&self, number: usize, took: Duration, pace: Pace) {
        let (group, monitor) = (&self.name, self.monitors.name(number));
        let timeout = self.monitors.list[number].monitor.policy().timeout;
        let (code, took_ms, timeout_ms) = ("LS6170", took.as_millis(), timeout.as_millis());
        match pace {
            Pace::Same => {}
            Pace::Slow => tracing::warn!(
                code,
                group,
                monitor,
                took_ms,
                timeout_ms,
                "the monitor is slow: it took {took_ms} of {timeout_ms} ms, and fails beyond that"
            ),
            Pace::Quick => tracing::info!(
                code,
                group,
                monitor,
                took_ms,
                timeout_ms,
                "the monitor is quick again"
            ),
        }
    }

    fn follow(&mut self, now: Instant, number: usize, told: Told) {
        let own = &self.monitors.list[number];
        let (group, monitor, ill) = (&self.name, self.monitors.name(number), &own.ill);
        let of = own.monitor.failures_max();
        match told {
            Told::Nothing => {}
            Told::Fails(failures) => tracing::warn!(
                code = "LS6167",
                group,
                monitor,
                failures,
                of,
                "the monitor fails, {failures} of {of}: {ill}"
            ),
            Told::Recovered => {
                tracing::info!(code = "LS6169", group, monitor, "the monitor is well again");
            }
            Told::Failed(on_error) => {
                let then = self.then(now, on_error);
                tracing::error!(
                    code = "LS6168",
                    group,
                    monitor,
                    failures = of,
                    "the monitor failed: {ill}; {then}"
                );
                self.restart(now, number);
            }
        }
    }

    /// As often as the resource's retries allow: what a restart did not mend the next one does not. They are forgotten when all
    /// ran for long, also while the monitor fails and the group runs on.
    fn restart(&mut self, now: Instant, monitor: usize) {
        if let OnError::Restart { resource } = self.monitors.list[monitor].monitor.policy().on_error
            && self.is_watched(now)
            && self.group.restarts(now, resource)
        {
            // What keeps it from working is here, or nobody knows: the other node may do better.
            self.remember_why(resource, None);
            self.handle(now, Event::Restart { resource, monitor });
        }
    }

    fn restart_again(&mut self, now: Instant, number: usize) {
        let monitor = &self.monitors.list[number].monitor;
        let OnError::Restart { resource } = monitor.policy().on_error else {
            return;
        };
        if monitor.health() == Health::Failed
            && self.is_watched(now)
            && self.group.restarts(now, resource)
        {
            let (group, monitor) = (&self.name, self.monitors.name(number));
            let ill = &self.monitors.list[number].ill;
            let then = self.then(now, OnError::Restart { resource });
            let code = "LS6168";
            tracing::error!(
                code,
                group,
                monitor,
                "the monitor fails still: {ill}; {then}"
            );
            self.restart(now, number);
        }
    }

    /// What follows, for people.
    fn then(&self, now: Instant, on_error: OnError) -> String {
        match on_error {
            OnError::Warn => "nothing follows".to_string(),
            OnError::Restart { resource } if self.group.restarts(now, resource) => {
                let name = self.names.get(resource).map_or("", String::as_str);
                format!("resource {name} is stopped and started again")
            }
            OnError::Restart { .. } | OnError::Failover => {
                "the group goes to the other node, if that one can have it".to_string()
            }
        }
    }
}

impl Own {
    fn status(&self, now: Instant, name: &str) -> cluster::Monitor {
        let health = self.monitor.health();
        let of = self.monitor.failures_max();
        let (state, failures) = match health {
            Health::Idle => (cluster::MonitorState::Idle, 0),
            Health::New => (cluster::MonitorState::New, 0),
            Health::Well => (cluster::MonitorState::Well, 0),
            Health::Failing(failures) => (cluster::MonitorState::Failing, failures),
            Health::Failed => (cluster::MonitorState::Failed, of),
        };
        let text = match health {
            Health::Idle | Health::New | Health::Well => health.to_string(),
            Health::Failing(failures) => format!("failing {failures} of {of}: {}", self.ill),
            Health::Failed => format!("failed: {}", self.ill),
        };
        let since = now.since(self.monitor.since()).as_millis();
        cluster::Monitor {
            name: name.to_string(),
            kind: self.kind.name().to_string(),
            state,
            text,
            failures,
            failures_max: of,
            delayed: self.monitor.is_slow(),
            since_ms: u64::try_from(since).unwrap_or(u64::MAX),
        }
    }
}
