//! How a node keeps its services within their time: the lease of each group, the watchdog, what the next run has to know, and
//! what the other node is told of it ([`controlplane_core::self_fencing`]).

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use controlplane_api::cluster;
use controlplane_core::failure_detector::Presence;
use controlplane_core::keeper::Event;
use controlplane_core::self_fencing::{
    Care, ClearGroups, Exposure, Left, Watched, care, pet_until, services, watched,
};
use controlplane_core::wish::GroupKey;
use mirror_core::types::{BootId, Instant};

use super::{Node, now};
use crate::config::Config;
use crate::left_behind::{Known, LeftBehind, OfGroup};
use crate::watchdog::device::Kernel;
use crate::watchdog::{State, Told, Watchdog};

/// What is kept for it.
#[derive(Debug)]
pub struct Fencing {
    left_behind: LeftBehind,
    /// What an earlier run left behind.
    before: Known,
    /// The device, and the thread that pets it; without a thread it cannot be used.
    watchdog: Option<(PathBuf, Option<Watchdog>)>,
    /// What was logged last.
    told: Option<Told>,
    cared: Care,
    kept: bool,
    confirmed: (u64, u64),
    wanted_timeout_s: u64,
}

impl Fencing {
    /// Of a run that begins in this boot. An armed watchdog of an earlier run is taken over as soon as it is known that it may
    /// be petted.
    pub fn begin(config: &Config, boot: BootId) -> Self {
        let left_behind = LeftBehind::of_node(boot);
        let inherited = left_behind.known().armed;
        let watchdog = config.watchdog.as_ref().map(|watchdog| {
            let started = Kernel::new(&watchdog.device)
                .and_then(|device| start(device, watchdog.timeout, inherited));
            (watchdog.device.clone(), started)
        });
        let timeout = config.watchdog.as_ref().map(|watchdog| watchdog.timeout);
        Self::with(left_behind, watchdog, timeout.map_or(0, |it| it.as_secs()))
    }

    fn with(
        left_behind: LeftBehind,
        watchdog: Option<(PathBuf, Option<Watchdog>)>,
        wanted_timeout_s: u64,
    ) -> Self {
        Self {
            before: left_behind.known().clone(),
            left_behind,
            watchdog,
            told: None,
            cared: Care::Disarmed,
            kept: true,
            confirmed: (0, 0),
            wanted_timeout_s,
        }
    }

    /// Now that the volumes will be looked at: if this run ends before it has looked, the next one has no more time. One that
    /// could not begin, because of a file that cannot be used for instance, has used up nothing. Whoever was stopping a group
    /// hard had looked.
    pub(super) fn begin_to_look(&mut self, config: &Config) {
        let current = now();
        let group = |group: &crate::config::Group| {
            let key = GroupKey::of(&group.name);
            let before = self.before.groups.get(&key).copied().unwrap_or_default();
            let looking = before.looking_since.or(before.hard_since);
            let looking_since = Some(looking.unwrap_or(current));
            let known = OfGroup {
                looking_since,
                ..before
            };
            (key, known)
        };
        self.before.groups = config.groups.iter().map(group).collect();
        let kept = self.left_behind.keep(self.before.clone());
        self.tell_kept(kept);
    }

    /// What an earlier run left behind.
    pub fn before(&self) -> &Known {
        &self.before
    }

    /// What an earlier run left behind of a group.
    pub(super) fn before_of(&self, group: &str) -> OfGroup {
        let known = self.before.groups.get(&GroupKey::of(group));
        known.copied().unwrap_or_default()
    }

    fn tell_kept(&mut self, kept: std::io::Result<()>) {
        let was = std::mem::replace(&mut self.kept, kept.is_ok());
        if let (Err(error), true) = (kept, was) {
            let path = self.left_behind.path().display().to_string();
            tracing::error!(code = "LS6134", path, %error, "what the next run of lockstepd has to know cannot be kept");
        }
    }

    fn tell_device(&mut self) {
        let Some((device, Some(watchdog))) = &self.watchdog else {
            return;
        };
        let told = watchdog.told();
        let before = self.told.replace(told);
        if before == Some(told) || (before.is_none() && told.state == State::Disarmed) {
            return;
        }
        let device = device.display().to_string();
        match (told.state, told.errno) {
            (State::Unusable, errno) => {
                let reason = errno.map_or("", |errno| errno.desc());
                tracing::error!(
                    code = "LS6131",
                    device,
                    reason,
                    "the watchdog cannot be used: services that hang are not ended"
                );
            }
            (State::Armed, Some(errno)) => {
                tracing::error!(
                    code = "LS6131",
                    device,
                    reason = errno.desc(),
                    "the watchdog does not take a sign of life"
                );
            }
            (State::Armed, None) => {
                tracing::info!(
                    code = "LS6132",
                    device,
                    timeout_s = told.timeout_s,
                    "the watchdog is armed"
                );
                let timeout_s = told.timeout_s;
                if self.is_loose(told) {
                    let (wanted_s, stays_armed) = (self.wanted_timeout_s, told.stays_armed);
                    tracing::warn!(
                        code = "LS6133",
                        device,
                        timeout_s,
                        wanted_s,
                        stays_armed,
                        "the watchdog keeps no bound: it takes longer than configured, or closing it disarms it"
                    );
                }
            }
            (State::Bound, _) => {
                tracing::warn!(
                    code = "LS6136",
                    device,
                    "the watchdog cannot be disarmed: it is petted until this daemon ends, and then resets this machine"
                );
            }
            (State::Disarmed, _) => {
                tracing::info!(code = "LS6132", device, "the watchdog is disarmed")
            }
        }
    }

    /// Whether an open device keeps no bound that the other node could wait for.
    fn is_loose(&self, told: Told) -> bool {
        let timeout_s = u64::from(told.timeout_s);
        let opened = matches!(told.state, State::Armed | State::Bound);
        opened && (timeout_s == 0 || timeout_s > self.wanted_timeout_s || !told.stays_armed)
    }

    /// For the status.
    pub(super) fn status(&self) -> Option<cluster::Watchdog> {
        let (device, watchdog) = self.watchdog.as_ref()?;
        let told = watchdog.as_ref().map(Watchdog::told);
        let state = match (told.map(|told| told.state), self.cared) {
            (None | Some(State::Unusable), _) => cluster::WatchdogState::Unusable,
            (Some(State::Bound), _) => cluster::WatchdogState::Bound,
            (Some(State::Armed), Care::Left) => cluster::WatchdogState::Expiring,
            (Some(State::Armed), _) => cluster::WatchdogState::Armed,
            (Some(State::Disarmed), _) if told.is_some_and(|told| told.inherited) => {
                cluster::WatchdogState::Armed
            }
            (Some(State::Disarmed), _) => cluster::WatchdogState::Disarmed,
        };
        let errno = told.and_then(|told| told.errno);
        Some(cluster::Watchdog {
            device: device.display().to_string(),
            state,
            timeout_s: told.map_or(0, |told| told.timeout_s),
            problem: errno.map(|errno| errno.desc().to_string()),
            loose: told.is_some_and(|told| self.is_loose(told)),
        })
    }
}

fn start(device: Kernel, timeout: std::time::Duration, inherited: bool) -> Option<Watchdog> {
    match Watchdog::start(device, timeout, inherited) {
        Ok(watchdog) => {
            if !watchdog.is_real_time {
                tracing::warn!(
                    code = "LS6020",
                    "no real-time priority: load may delay the watchdog"
                );
            }
            Some(watchdog)
        }
        Err(error) => {
            tracing::error!(code = "LS6131", %error, "no thread for the watchdog: it cannot be used");
            None
        }
    }
}

impl Node {
    /// Before and after everything that is decided: what was heard counts, services whose time is over stop, and the
    /// watchdog is told until when all is well.
    pub(super) fn watch_over(&mut self) {
        self.renew_leases();
        let current = now();
        for group in 0..self.groups.len() {
            self.tell_of_death(group);
            let ground = self.groups[group].keeper.ground(current);
            self.services.ground(current, group, ground);
            self.services.leased(current, group, services(ground));
            let asked = self.shared.peer_clear.asked(self.key_of(group));
            if let Some(asked) = asked {
                self.services.other_clear(current, group, asked);
            }
        }
        let all = 0..self.groups.len();
        let left = |group| (self.key_of(group), self.services.left(current, group));
        let clear = ClearGroups::of(all.clone().map(left));
        self.shared.clear.store(clear.bits(), Ordering::Relaxed);
        let exposed: Vec<Exposure> = all
            .filter_map(|group| self.exposure(current, group))
            .collect();
        self.leave_behind(current, &exposed);
        self.order_watchdog(current, &exposed);
    }

    /// Since when the other node is dead, and was not heard on the group's mirror links either.
    pub(super) fn tell_of_death(&mut self, group: usize) {
        let dead = (self.presence == Presence::Dead).then_some(self.presence_since);
        let dead = dead.zip(self.groups[group].keeper.apart_since());
        let dead = dead.map(|(dead, apart)| self.dead_for_services(dead).max(apart));
        self.services.other_dead(now(), group, dead);
        let linked = self.groups[group].keeper.is_linked();
        self.services.linked(now(), group, linked);
    }

    fn key_of(&self, group: usize) -> GroupKey {
        GroupKey::of(&self.groups[group].name)
    }

    /// The peer's last confirmation gives the services their time (DESIGN §3).
    fn renew_leases(&mut self) {
        // In this order: the gap before a confirmation is counted before that is written.
        let raised = self.shared.timeouts.raised();
        let confirmed = self.shared.confirmed_nanos.load(Ordering::Acquire);
        let gaps = self.shared.gaps.load(Ordering::Relaxed);
        if self.fencing.confirmed != (confirmed, gaps) && confirmed > 0 {
            self.fencing.confirmed = (confirmed, gaps);
            let sent = Instant::from_nanos(confirmed);
            self.everywhere(&Event::Confirmed { sent, gaps });
        }
        self.raise_leases(raised);
    }

    /// What of a group is here, for the watchdog. What nobody has looked at yet counts if the device may be armed, by this run
    /// or an earlier one.
    fn exposure(&self, current: Instant, group: usize) -> Option<Exposure> {
        let service = self.services.group(group)?;
        let unknown = !service.is_probed() && !self.fencing.left_behind.known().armed;
        let left = if unknown {
            Left::Nothing
        } else {
            service.left(current)
        };
        Some(Exposure {
            left,
            lease_until: self.groups[group].keeper.services_until(current),
            hard_since: service.hard_since(current),
            hard_stop: service.policy().hard_stop,
        })
    }

    fn leave_behind(&mut self, current: Instant, exposed: &[Exposure]) {
        let before = self.fencing.left_behind.known();
        let something = exposed.iter().any(|group| group.left == Left::Something);
        let mut keepers = self.groups.iter().map(|group| &group.keeper);
        let looked = keepers.all(|keeper| keeper.has_looked(current));
        let disarmed = self
            .fencing
            .told
            .is_none_or(|told| told.state == State::Disarmed && !told.inherited);
        let of_group = |group: usize| {
            let (key, keeper) = (self.key_of(group), &self.groups[group].keeper);
            let before = before.groups.get(&key).copied().unwrap_or_default();
            let service = self.services.group(group);
            // Also of a copy that alone counts: once it is linked the next run may find no other ground.
            let here = self.services.left(current, group) == Left::Something;
            let confirmed = Some(keeper.lease_confirmed()).filter(|_| here);
            let known = OfGroup {
                confirmed: confirmed.filter(|at| *at > Instant::default()),
                looking_since: before.looking_since.filter(|_| !keeper.has_looked(current)),
                hard_since: service.and_then(|service| service.hard_since(current)),
                alone: keeper.is_left_alone(current),
            };
            (key, known)
        };
        let known = Known {
            armed: something || (before.armed && !(looked && disarmed)),
            groups: (0..self.groups.len()).map(of_group).collect(),
        };
        let kept = self.fencing.left_behind.keep(known);
        self.fencing.tell_kept(kept);
    }

    fn order_watchdog(&mut self, current: Instant, exposed: &[Exposure]) {
        let timeout = self.lease_length(current);
        let until = pet_until(current, timeout, exposed);
        let seen = watched(current, current, timeout, exposed);
        if let Some((_, Some(watchdog))) = &self.fencing.watchdog {
            watchdog.order(until);
        }
        self.fencing.tell_device();
        let before = std::mem::replace(&mut self.fencing.cared, care(seen));
        let armed = self
            .fencing
            .told
            .is_some_and(|told| told.state == State::Armed);
        if before != Care::Left && self.fencing.cared == Care::Left && armed {
            let why = match seen {
                Watched::Overdue => "a hard stop is not over in its time",
                Watched::LeaseLongOver => "the time of services is over, and they are not gone",
                Watched::NothingLeft | Watched::LoopStuck | Watched::Well => "",
            };
            tracing::error!(
                code = "LS6135",
                why,
                "the watchdog is not petted any more: it resets this machine"
            );
        }
    }
}
