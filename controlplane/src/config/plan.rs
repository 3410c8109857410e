//! What changes between two files, what each change needs, and in which order it is done.

mod facts;
mod monitors;
mod steps;

use std::fmt::Write as _;
use std::path::Path;

use controlplane_core::bounds;
use serde::Serialize;
use serde_json::{Value, json};

use super::Cluster;
use super::advice::key_of;
use super::render::harmless;
use super::resources::{Group, Resource};
use super::summary::{all, arbiter, millis, of_kind, on_failure, stop_failure};
use facts::resource_changes;
pub(super) use monitors::on_error as on_error_of;
use steps::steps;

/// What a change needs; each one includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The file is put in place at any time.
    Nothing,
    /// `lockstepd` is restarted, one node after the other; services go on.
    Restart,
    /// `lockstepd` is stopped on both nodes before it starts on one; services go on.
    StopLockstepd,
    /// The group is stopped.
    StopGroup,
    /// Everything is stopped.
    StopCluster,
}

impl Level {
    /// For people.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Restart => {
                "lockstepd restarted on both nodes, one after the other; services go on"
            }
            Self::StopLockstepd => {
                "lockstepd stopped on both nodes at the same time; services go on"
            }
            Self::StopGroup => "the group stopped",
            Self::StopCluster => "the cluster stopped: all groups, and lockstepd on both nodes",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which key or table.
    pub key: String,
    /// In words.
    pub what: String,
    /// What it needs.
    pub level: Level,
    /// Why so.
    pub why: String,
    /// Which group, if it is about one.
    pub group: Option<String>,
}

impl Change {
    /// Whether `lockstep config push` can make it: it needs no more than one node after the other, or it is a time that has a
    /// rule of its own for that.
    pub fn may_be_pushed(&self) -> bool {
        match self.level {
            Level::Nothing | Level::Restart => true,
            Level::StopLockstepd => bounds::rule(&self.key).is_some(),
            Level::StopGroup | Level::StopCluster => false,
        }
    }
}

/// Counts on both sides of a failover.
const HARD_STOP: &str = "hard_stop_ms";

/// All changes, and how they are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order of the keys.
    pub changes: Vec<Change>,
    /// What to do, in this order.
    pub steps: Vec<String>,
}

impl Plan {
    /// The highest level.
    pub fn level(&self) -> Level {
        let levels = self.changes.iter().map(|change| change.level);
        levels.max().unwrap_or(Level::Nothing)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            let _ = writeln!(text, "{}: {}", change.key, change.what);
            let _ = writeln!(text, "  needs: {}", change.level.needs());
            let _ = writeln!(text, "  why: {}", change.why);
        }
        if !self.steps.is_empty() {
            text.push_str("\nin this order:\n");
        }
        for (index, step) in self.steps.iter().enumerate() {
            let _ = writeln!(text, "  {}. {step}", index + 1);
        }
        harmless(&text)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({"level": self.level(), "changes": self.changes, "steps": self.steps})
    }
}

/// What it takes to come from one file to another one. `file` is the new one, `place` where it belongs.
pub fn plan(old: &Cluster, new: &Cluster, file: &Path, place: &Path) -> Plan {
    let mut changes = nodes(old, new);
    changes.extend(arbiters(old, new));
    changes.extend(clients(old, new));
    changes.extend(timing(old, new));
    changes.extend(watchdogs(old, new));
    let named = |cluster: &Cluster, name: &str| {
        let mut groups = cluster.groups.iter();
        groups.find(|group| group.name == name).cloned()
    };
    for group in &old.groups {
        match named(new, &group.name) {
            Some(then) => changes.extend(group_changes(&renamed(group, old, new), &then)),
            None => changes.push(removed(group)),
        }
    }
    for group in &new.groups {
        if named(old, &group.name).is_none() {
            changes.push(added(group));
        }
    }
    let steps = steps(&changes, old, new, file, place);
    Plan { changes, steps }
}

fn change(
    key: impl Into<String>,
    what: impl Into<String>,
    level: Level,
    why: impl Into<String>,
) -> Change {
    Change {
        key: key.into(),
        what: what.into(),
        level,
        why: why.into(),
        group: None,
    }
}

fn becomes(old: impl std::fmt::Display, new: impl std::fmt::Display) -> String {
    format!("{old} becomes {new}")
}

fn names(cluster: &Cluster) -> [&str; 2] {
    cluster.nodes.each_ref().map(|node| node.name.as_str())
}

/// The node that keeps its name and gets another number, and the number that it had.
fn renumbered<'a>(old: &'a Cluster, new: &Cluster) -> Option<(&'a str, usize)> {
    let (before, after) = (names(old), names(new));
    let moved = |(place, name): &(usize, &str)| after.contains(name) && after[*place] != *name;
    let found = before.into_iter().enumerate().find(moved);
    found.map(|(place, name)| (name, place))
}

/// The group with the nodes' new names: that they changed is told once.
fn renamed(group: &Group, old: &Cluster, new: &Cluster) -> Group {
    let mut group = group.clone();
    let pairs: Vec<(&str, &str)> = names(old).into_iter().zip(names(new)).collect();
    for node in &mut group.nodes {
        let pair = pairs.iter().find(|(before, _)| before == node);
        if let Some((_, after)) = pair {
            *node = (*after).to_string();
        }
    }
    group
}

fn nodes(old: &Cluster, new: &Cluster) -> Vec<Change> {
    let (before, after) = (names(old), names(new));
    if before != after {
        let why = match renumbered(old, new) {
            Some((name, place)) => format!(
                "{name} would become number {} by name, and its copies, certificates and the arbiter know it as number {place}",
                1 - place
            ),
            None => "the volumes' files, certificates and operators' words know the nodes by these names and their order".to_string(),
        };
        let what = becomes(before.join(", "), after.join(", "));
        return vec![change("nodes", what, Level::StopCluster, why)];
    }
    let pairs = old.nodes.iter().zip(&new.nodes);
    let differ = pairs.filter(|(old, new)| old.interconnects != new.interconnects);
    differ
        .map(|(old, new)| {
            let list = |node: &super::Node| {
                let list: Vec<String> = node.interconnects.iter().map(ToString::to_string).collect();
                list.join(", ")
            };
            change(
                format!("nodes.{}.interconnects", key_of(&old.name)),
                becomes(list(old), list(new)),
                Level::Restart,
                "lockstepd opens its sockets when it starts; until both have, the nodes hear each other by the mirror link",
            )
        })
        .collect()
}

fn arbiters(old: &Cluster, new: &Cluster) -> Option<Change> {
    if (old.arbiter, &old.keeper, &old.ping) == (new.arbiter, &new.keeper, &new.ping) {
        return None;
    }
    let (before, after) = (arbiter(old), arbiter(new));
    if before == after {
        let why = "lockstepd reads these files and names when it starts; it is the same arbiter";
        return Some(change(
            "etcd",
            "other files or names of the same etcd",
            Level::Restart,
            why,
        ));
    }
    let why = "two nodes that ask different arbiters could both be told to serve";
    Some(change(
        "arbiter",
        becomes(before, after),
        Level::StopLockstepd,
        why,
    ))
}

fn clients(old: &Cluster, new: &Cluster) -> Option<Change> {
    let named = |cluster: &Cluster| match cluster.clients.as_slice() {
        [] => "none".to_string(),
        targets => all(targets, ", "),
    };
    let change = || {
        let why = "lockstepd reads it when it starts; who serves goes on serving";
        let what = becomes(named(old), named(new));
        change("clients", what, Level::Restart, why)
    };
    (old.clients != new.clients).then(change)
}

fn timing(old: &Cluster, new: &Cluster) -> Vec<Change> {
    let why = "while the nodes count with different times, one could take over before the other one has given up; a push takes care of that, and neither is stopped";
    let times = [
        (
            "heartbeat_interval_ms",
            old.timing.interval,
            new.timing.interval,
        ),
        (
            "heartbeat_timeout_ms",
            old.timing.timeout,
            new.timing.timeout,
        ),
    ];
    let differ = times.into_iter().filter(|(_, old, new)| old != new);
    differ
        .map(|(key, old, new)| {
            let what = becomes(millis(old), millis(new));
            change(format!("timing.{key}"), what, Level::StopLockstepd, why)
        })
        .collect()
}

fn watchdogs(old: &Cluster, new: &Cluster) -> Option<Change> {
    let named = |cluster: &Cluster| {
        let named = super::summary::watchdogs(cluster);
        named.unwrap_or_else(|| "none".to_string())
    };
    let (before, after) = (named(old), named(new));
    // Where the names of nodes change that is told, and everything is stopped.
    if before == after || names(old) != names(new) {
        return None;
    }
    let had = |index: usize| old.nodes[index].watchdog.as_ref();
    let kept = (0..2)
        .all(|index| had(index).is_none() || had(index) == new.nodes[index].watchdog.as_ref());
    let (level, why) = if kept {
        (
            Level::Restart,
            "lockstepd reads it when it starts; a device is armed while services run",
        )
    } else {
        (
            Level::StopLockstepd,
            "a device that is armed and not petted any more resets its node, and the other one has to know after which time",
        )
    };
    Some(change("watchdog", becomes(before, after), level, why))
}

fn removed(group: &Group) -> Change {
    Change {
        group: Some(group.name.clone()),
        ..change(
            format!("groups.{}", key_of(&group.name)),
            format!(
                "is removed, with {}",
                super::render::counted(group.resources.len(), "resource")
            ),
            Level::StopGroup,
            "what runs would go on, and nobody would watch or stop it; its volumes stay as they are, served by nobody",
        )
    }
}

fn added(group: &Group) -> Change {
    Change {
        group: Some(group.name.clone()),
        ..change(
            format!("groups.{}", key_of(&group.name)),
            format!(
                "is new: volumes {}; {}",
                group.volumes.join(", "),
                super::render::counted(group.resources.len(), "resource")
            ),
            Level::Restart,
            "lockstepd knows it when it has started, and begins it on one of the nodes",
        )
    }
}

fn group_changes(old: &Group, new: &Group) -> Vec<Change> {
    let own = format!("groups.{}", key_of(&old.name));
    let mut changes = Vec::new();
    let sorted = |group: &Group| {
        let mut volumes = group.volumes.clone();
        volumes.sort();
        volumes
    };
    let volumes = becomes(old.volumes.join(", "), new.volumes.join(", "));
    if sorted(old) != sorted(new) {
        let why = "a group runs where all its volumes are served; one that is not would end it";
        changes.push(change(
            format!("{own}.volumes"),
            volumes,
            Level::StopGroup,
            why,
        ));
    } else if old.volumes != new.volumes {
        let why = "their order means nothing";
        changes.push(change(
            format!("{own}.volumes"),
            volumes,
            Level::Nothing,
            why,
        ));
    }
    if old.nodes != new.nodes {
        let what = becomes(old.nodes.join(", "), new.nodes.join(", "));
        let why = "what is told to scripts depends on it; nothing moves by itself";
        changes.push(change(format!("{own}.nodes"), what, Level::Restart, why));
    }
    for ((key, before), (_, after)) in policy(old).into_iter().zip(policy(new)) {
        if before != after {
            let (level, why) = policy_level(key);
            changes.push(change(
                format!("{own}.{key}"),
                becomes(before, after),
                level,
                why,
            ));
        }
    }
    changes.extend(resources(old, new, &own));
    changes.extend(monitors::changes(old, new, &own));
    for change in &mut changes {
        change.group = Some(old.name.clone());
    }
    changes
}

/// A time by which one node stops and for which the other one waits may never differ between two that run.
fn policy_level(key: &str) -> (Level, &'static str) {
    if key == HARD_STOP {
        let why = "one node stops within it, and the other one waits for it before it starts: with different times the resources \
             could run on both";
        return (Level::StopLockstepd, why);
    }
    (Level::Restart, "lockstepd reads it when it starts")
}

fn policy(group: &Group) -> [(&'static str, String); 6] {
    let policy = &group.policy;
    [
        ("failovers_max", policy.failovers_max.to_string()),
        (
            "failovers_within_ms",
            millis(policy.failovers_within).to_string(),
        ),
        (HARD_STOP, millis(policy.hard_stop).to_string()),
        ("doubt_grace_ms", millis(policy.doubt_grace).to_string()),
        (
            "stop_failure",
            format!("{:?}", stop_failure(policy.stop_failure)),
        ),
        ("on_failure", format!("{:?}", on_failure(policy.on_failure))),
    ]
}

fn resources(old: &Group, new: &Group, own: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let place = |group: &Group, name: &str| {
        let mut resources = group.resources.iter();
        resources.position(|resource| resource.name == name)
    };
    let key = |resource: &Resource| format!("{own}.resources.{}", key_of(&resource.name));
    for (index, resource) in old.resources.iter().enumerate() {
        let Some(then) = place(new, &resource.name) else {
            let why = "what it runs would go on, and nobody would watch or stop it";
            changes.push(change(key(resource), "is removed", Level::StopGroup, why));
            continue;
        };
        let (before, after) = (&old.policy.resources[index], &new.policy.resources[then]);
        let differ = resource_changes((resource, before), (&new.resources[then], after));
        changes.extend(differ.into_iter().map(|(name, what, level, why)| {
            change(format!("{}.{name}", key(resource)), what, level, why)
        }));
    }
    for (index, resource) in new.resources.iter().enumerate() {
        if place(old, &resource.name).is_some() {
            continue;
        }
        let (kind, what) = of_kind(&resource.kind);
        let above = &new.resources[index + 1..];
        let (level, why) = if above.iter().any(|later| place(old, &later.name).is_some()) {
            (
                Level::StopGroup,
                "what comes after it runs already, and would be stopped and started again",
            )
        } else {
            (
                Level::Restart,
                "lockstepd starts it after everything that runs already",
            )
        };
        changes.push(change(
            key(resource),
            format!("is new, {kind}: {what}"),
            level,
            why,
        ));
    }
    let kept = |from: &Group, in_both: &Group| -> Vec<String> {
        let names = from.resources.iter().map(|resource| resource.name.clone());
        names
            .filter(|name| place(in_both, name).is_some())
            .collect()
    };
    let (before, after) = (kept(old, new), kept(new, old));
    if before != after {
        let why = "what runs is left as it is; the order counts at the next start or stop";
        let what = becomes(before.join(", "), after.join(", "));
        changes.push(change(
            format!("{own}.resources"),
            what,
            Level::Restart,
            why,
        ));
    }
    changes
}
