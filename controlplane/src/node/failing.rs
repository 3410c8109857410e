//! A group that failed here: both nodes are told, and it moves by itself if that may be (`controlplane_core::failing`).

use std::time::Duration;

use controlplane_api::why::Waits;
use controlplane_core::failing::{Case, Here, Seen, Then, after_failure, to_record};
use controlplane_core::wish::{FailedOn, GroupKey, Origin, Subject, Want, Wish};
use mirror_core::types::Instant;

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
    /// What was told last.
    told: Option<Case>,
}

impl Node {
    /// Each turn of the loop.
    pub(super) fn look_at_failures(&mut self) {
        for group in 0..self.groups.len() {
            if let Some(here) = self.services.here(now(), group) {
                self.record_failure(group, here);
                self.look_at_failure(group, here);
            }
        }
    }

    fn failures(&self, group: usize) -> GroupKey {
        GroupKey::of(&self.groups[group].name)
    }

    /// Both nodes remember where it failed.
    fn record_failure(&mut self, group: usize, here: Here) {
        let subject = Subject::Failures(self.failures(group));
        if !self.wishes.is_durable(subject) {
            return;
        }
        let nodes = [self.config.me, self.config.peer];
        let Some(on) = to_record(self.wishes.of(subject), nodes, here) else {
            return;
        };
        if self
            .wishes
            .say(subject, Want::Failed(on), Origin::Node)
            .is_some()
        {
            self.store_wishes();
        }
    }

    fn look_at_failure(&mut self, group: usize, here: Here) {
        let current = now();
        let failure = &mut self.groups[group].failure;
        if !matches!(here, Here::Failed | Here::Alike) {
            *failure = Failure::default();
            return;
        }
        let since = *failure.since.get_or_insert(current);
        let (case, then) = after_failure(current, &self.seen(current, group, here, since));
        let failure = &mut self.groups[group].failure;
        let began = match failure.ruling {
            Some((before, _, began)) if before == case => began,
            Some(_) | None => current,
        };
        failure.ruling = Some((case, then, began));
        if then == Then::Moves {
            return self.move_by_itself(group);
        }
        let lasts = current >= began + TOLD_AFTER;
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

    fn seen(&self, current: Instant, group: usize, here: Here, since: Instant) -> Seen {
        let key = self.failures(group);
        let on = self.wishes.failed_on(key);
        let subjects = [Subject::Failures(key), self.groups[group].subject];
        let policy = &self.config.groups[group].policy;
        Seen {
            here,
            since,
            on_failure: policy.on_failure,
            within: policy.failovers_within,
            moves_left: self.services.moves_left(current, group),
            durable: subjects
                .iter()
                .all(|subject| self.wishes.is_durable(*subject)),
            recorded: on.has(self.config.me),
            failed_there: on.has(self.config.peer),
            around: self.groups[group].keeper.around(),
        }
    }

    /// As if an operator wished it.
    fn move_by_itself(&mut self, group: usize) {
        let (subject, to) = (self.groups[group].subject, self.config.peer);
        let said = self.wishes.say(subject, Want::Moves { to }, Origin::Node);
        if said.is_some() {
            self.services.moves_away(now(), group);
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
            Want::Failed(on) => {
                let on = self.names_of(on);
                let code = "LS6165";
                if on.is_empty() {
                    tracing::info!(code, group, number, by, "it runs again where it failed");
                } else {
                    let on = on.join(" and ");
                    tracing::warn!(code, group, number, by, "it failed on {on}");
                }
            }
            Want::Runs { .. }
            | Want::Stopped { .. }
            | Want::Forgotten
            | Want::Suspended
            | Want::Resumed => {}
        }
    }

    fn names_of(&self, on: FailedOn) -> Vec<String> {
        let mut nodes = [self.config.me, self.config.peer];
        nodes.sort_by_key(|node| node.index());
        let failed = nodes.into_iter().filter(|node| on.has(*node));
        failed.map(|node| self.name_of(node)).collect()
    }

    /// The nodes on which it failed, for the status.
    pub(super) fn failed_on(&self, group: usize) -> Vec<String> {
        self.names_of(self.wishes.failed_on(self.failures(group)))
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
        let failure = &self.groups[group].failure;
        let (case, then, _) = failure.ruling?;
        let until = failure.since? + self.config.groups[group].policy.failovers_within;
        why::after_failure(current, case, then, until, names)
    }
}
