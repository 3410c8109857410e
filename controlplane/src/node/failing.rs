//! A group that failed here: both nodes are told, and it moves by itself if that may be (`controlplane_core::failing`).

use std::time::Duration;

use controlplane_api::cluster;
use controlplane_api::why::Waits;
use controlplane_core::failing::{
    Case, Here, Patience, READY_FOR, Seen, Then, after_failure, after_monitor, reason_to_record,
    to_record,
};
use controlplane_core::wish::{Failure as Known, GroupKey, Origin, Subject, Want, Wish};
use mirror_core::types::{Instant, NodeId};

use super::{Node, now};
use crate::why::{self, Names};

/// What a move by itself waits for is told when it lasts.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// What is remembered of a group that failed here.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// Since when this run knows it.
    since: Option<Instant>,
    /// The row that rules, and since when.
    ruling: Option<(Case, Then, Instant)>,
    /// With another node that is not ready.
    patience: Patience,
    /// What was told last.
    told: Option<Case>,
}

impl Failure {
    /// This row rules. Returns since when.
    fn rules(&mut self, now: Instant, case: Case, then: Then) -> Instant {
        let began = match self.ruling {
            Some((before, _, began)) if before == case => began,
            Some(_) | None => now,
        };
        self.ruling = Some((case, then, began));
        began
    }
}

impl Node {
    /// Each turn of the loop.
    pub(super) fn look_at_failures(&mut self) {
        for group in 0..self.groups.len() {
            if let Some(here) = self.services.here(now(), group) {
                self.record_failure(group, here);
                self.look_at_failure(group, here);
                self.look_at_monitors(group);
            }
        }
    }

    fn failures(&self, group: usize) -> GroupKey {
        GroupKey::of(&self.groups[group].name)
    }

    /// What this node says of the group's failure here.
    fn record(&self, group: usize) -> Subject {
        Subject::Failed(self.failures(group), self.config.me)
    }

    /// Both nodes remember where it failed.
    fn record_failure(&mut self, group: usize, here: Here) {
        let subject = self.record(group);
        if !self.wishes.is_durable(subject) {
            return;
        }
        let said = self.wishes.of(subject).map(|wish| wish.want);
        let clears = self.to_forget(group).is_some();
        let reason = Subject::Failed(self.failures(group).of_resources(), self.config.me);
        let (known, wants) = match to_record(said, here, clears) {
            Some(Want::Failed) => (Known::Stands, Some((subject, Want::Failed))),
            Some(want) => (Known::None, Some((subject, want))),
            None if self.wishes.is_durable(reason) => {
                let known = self.wishes.failure(self.failures(group), self.config.me);
                (known, None)
            }
            None => return,
        };
        // And why: what a monitor alone says bars less.
        let monitor = self.services.is_condemned(group);
        let why = reason_to_record(known, here, monitor).map(|monitor| match monitor {
            true => (reason, Want::Mended),
            false => (subject, Want::Failed),
        });
        let says: Vec<(Subject, Want)> = wants.into_iter().chain(why).collect();
        for (subject, want) in &says {
            self.wishes.say(*subject, *want, Origin::Node);
        }
        if !says.is_empty() {
            self.store_wishes();
        }
    }

    /// The number of an operator's wish that failures are forgotten, if it is not carried out here yet.
    fn to_forget(&self, group: usize) -> Option<u64> {
        let wish = self.wishes.of(Subject::Failures(self.failures(group)))?;
        let forgotten = wish.want == Want::Forgotten;
        let clears = forgotten && self.services.clears(group, wish.number);
        clears.then_some(wish.number)
    }

    /// What an operator wished to be forgotten, perhaps of an earlier run of this daemon. The other node is told first that
    /// nothing stands here any more ([`Self::record_failure`]): a crash in between forgets neither.
    pub(super) fn forget_failures(&mut self, group: usize) {
        let said = self.wishes.newest(self.record(group));
        let durable = self.wishes.is_durable(self.record(group));
        let stands = said.is_some_and(|wish| wish.want == Want::Failed);
        if let Some(number) = self.to_forget(group)
            && durable
            && !stands
        {
            self.services.clear_once(now(), group, number);
        }
    }

    fn look_at_failure(&mut self, group: usize, here: Here) {
        let current = now();
        let failure = &mut self.groups[group].failure;
        // While it is not served here nothing can be done about it: the time for that begins when it is.
        if !matches!(here, Here::Failed | Here::Alike) || self.services.is_away(group) {
            *failure = Failure::default();
            return;
        }
        let since = *failure.since.get_or_insert(current);
        let (case, then) = after_failure(current, &self.seen(current, group, here, since));
        let failure = &mut self.groups[group].failure;
        let began = failure.rules(current, case, then);
        let runs_on = failure.patience.runs_on(current, then);
        if then == Then::Moves {
            return self.move_by_itself(group);
        }
        if runs_on && self.services.is_condemned(group) && self.run_on(group, case) {
            return;
        }
        let lasts = current >= began + TOLD_AFTER;
        let failure = &mut self.groups[group].failure;
        if failure.told != Some(case) && (then == Then::Stays || (then == Then::Later && lasts)) {
            failure.told = Some(case);
            let (code, group) = ("LS6164", &self.groups[group].name);
            if then == Then::Stays {
                tracing::error!(code, group, "it failed here: {then}: {case}");
            } else {
                tracing::warn!(code, group, "it failed here: {then}: {case}");
            }
        }
    }

    /// A monitor failed, and the group runs: it stops only if it can move then, by the same rules.
    fn look_at_monitors(&mut self, group: usize) {
        let current = now();
        let Some(monitor) = self.services.condemns(current, group) else {
            self.groups[group].condemned = Failure::default();
            return;
        };
        let seen = self.seen(current, group, Here::Runs, current);
        let (case, then) = after_monitor(current, &seen);
        let condemned = &mut self.groups[group].condemned;
        let began = condemned.rules(current, case, then);
        if current < began + READY_FOR {
            return;
        }
        match then {
            Then::Moves => self.services.condemn(current, group, monitor),
            Then::Stays | Then::Later if condemned.told != Some(case) => {
                condemned.told = Some(case);
                let name = &self.groups[group].name;
                let monitor = self.services.monitor_name(group, monitor);
                tracing::warn!(
                    code = "LS6174",
                    group = name,
                    monitor,
                    "the monitor failed, and the group runs on here: {case}"
                );
            }
            Then::Stays | Then::Later | Then::Nothing => {}
        }
    }

    /// It was stopped because of a monitor, and cannot move any more. Returns whether it starts here again.
    fn run_on(&mut self, group: usize, case: Case) -> bool {
        if !self.services.runs_on(now(), group) {
            return false;
        }
        let (code, name) = ("LS6175", &self.groups[group].name);
        tracing::warn!(
            code,
            group = name,
            "a monitor failed, and the group starts here again: {case}"
        );
        self.groups[group].failure = Failure::default();
        true
    }

    /// Its monitors, for the status.
    pub(super) fn monitors(&self, group: usize) -> Vec<cluster::Monitor> {
        let current = now();
        let mut monitors = self.services.monitors(current, group);
        let ruling = self.groups[group].condemned.ruling;
        if let Some((case, Then::Stays | Then::Later, _)) = ruling
            && let Some(monitor) = self.services.condemns(current, group)
            && let Some(monitor) = monitors.get_mut(monitor)
        {
            monitor.text = format!("{}; the group runs on here: {case}", monitor.text);
        }
        monitors
    }

    fn seen(&self, current: Instant, group: usize, here: Here, since: Instant) -> Seen {
        let key = self.failures(group);
        let failed = |node| self.wishes.failure(key, node);
        let group_subject = self.groups[group].subject;
        let subjects = [Subject::Failures(key), self.record(group), group_subject];
        let newest = self.wishes.newest(group_subject);
        let policy = &self.config.groups[group].policy;
        Seen {
            here,
            monitor: self.services.is_condemned(group),
            since,
            on_failure: policy.on_failure,
            within: policy.failovers_within,
            moves_left: self.services.moves_left(current, group),
            durable: subjects
                .iter()
                .all(|subject| self.wishes.is_durable(*subject)),
            moving: newest.is_some_and(|wish| matches!(wish.want, Want::Moves { .. })),
            recorded: failed(self.config.me).stands(),
            there: failed(self.config.peer),
            agreed: self.agreed(),
            around: self.groups[group].keeper.around(),
        }
    }

    /// As if an operator wished it.
    fn move_by_itself(&mut self, group: usize) {
        let (subject, to) = (self.groups[group].subject, self.config.peer);
        let said = self.wishes.say(subject, Want::Moves { to }, Origin::Node);
        if let Some(said) = said {
            self.services.moves_away(now(), group, said.number);
            self.store_wishes();
        }
    }

    /// What a node says by itself is durable here, and rules.
    pub(super) fn tell_of_failure(&self, group: Option<usize>, wish: &Wish) {
        let group = group.map(|group| &*self.groups[group].name);
        let (number, by) = (wish.number, self.name_of(wish.by));
        match wish.want {
            Want::Moves { to } => {
                let to = self.name_of(to);
                tracing::warn!(
                    code = "LS6163",
                    group,
                    number,
                    by,
                    "it failed on {by}, and moves to {to} by itself"
                );
            }
            Want::Mended if self.is_reason(wish.subject) => {
                let code = "LS6165";
                tracing::info!(code, group, number, by, "on {by} only a monitor failed");
            }
            Want::Failed => {
                let code = "LS6165";
                tracing::warn!(code, group, number, by, "it waits to be cleared on {by}");
            }
            Want::Mended => {
                let code = "LS6165";
                tracing::info!(code, group, number, by, "it does not wait on {by} any more");
            }
            Want::Runs { .. }
            | Want::Stopped { .. }
            | Want::Forgotten
            | Want::Suspended
            | Want::Resumed => {}
        }
    }

    fn is_reason(&self, subject: Subject) -> bool {
        let keys = (0..self.groups.len()).map(|group| self.failures(group).of_resources());
        let mut nodes = keys.flat_map(|key| {
            [self.config.me, self.config.peer].map(|node| Subject::Failed(key, node))
        });
        nodes.any(|reason| reason == subject)
    }

    /// The nodes on which it failed, for the status.
    pub(super) fn failed_on(&self, group: usize) -> Vec<String> {
        let key = self.failures(group);
        let mut nodes = [self.config.me, self.config.peer];
        nodes.sort_by_key(|node| node.index());
        let stands = |node: &NodeId| self.wishes.failure(key, *node).stands();
        let failed = nodes.into_iter().filter(stands);
        failed.map(|node| self.name_of(node)).collect()
    }

    /// What follows here, for the status.
    pub(super) fn after_failure(&self, group: usize) -> Option<String> {
        let (case, then, _) = self.groups[group].failure.ruling?;
        match then {
            Then::Nothing => None,
            Then::Stays | Then::Later | Then::Moves => Some(format!("{then}: {case}")),
        }
    }

    /// What a group that failed here waits for.
    pub(super) fn waits_after_failure(
        &self,
        current: Instant,
        group: usize,
        names: &Names<'_>,
    ) -> Option<Waits> {
        if let Some(monitor) = self.services.condemns(current, group) {
            let (case, _, _) = self.groups[group].condemned.ruling?;
            let monitor = self.services.monitor_name(group, monitor);
            return why::after_monitor(case, monitor, names);
        }
        let failure = &self.groups[group].failure;
        let (case, then, _) = failure.ruling?;
        let until = failure.since? + self.config.groups[group].policy.failovers_within;
        why::after_failure(current, case, then, until, names)
    }
}
