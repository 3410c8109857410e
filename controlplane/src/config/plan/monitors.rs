//! What changes in the monitors of a group: nothing of it touches what runs.

use controlplane_core::monitor::OnError;

use super::super::advice::key_of;
use super::super::monitors::Monitor;
use super::super::resources::Group;
use super::super::summary::{millis, of_monitor};
use super::{Change, Level, becomes, change};

const LATER: &str = "lockstepd reads it when it starts; what runs is left as it is";

pub(super) fn changes(old: &Group, new: &Group, own: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let find = |group: &'_ Group, name: &str| {
        let mut monitors = group.monitors.iter();
        monitors.find(|monitor| monitor.name == name).cloned()
    };
    let key = |monitor: &Monitor| format!("{own}.monitors.{}", key_of(&monitor.name));
    let level = Level::Restart;
    for monitor in &old.monitors {
        let Some(then) = find(new, &monitor.name) else {
            changes.push(change(key(monitor), "is removed", level, LATER));
            continue;
        };
        let pairs = facts(old, monitor).into_iter().zip(facts(new, &then));
        let differ = pairs.filter(|((_, old), (_, new))| old != new);
        changes.extend(differ.map(|((name, old), (_, new))| {
            let key = format!("{}.{name}", key(monitor));
            change(key, becomes(old, new), level, LATER)
        }));
    }
    for monitor in &new.monitors {
        if find(old, &monitor.name).is_none() {
            let what = format!(
                "is new, {}: {}",
                monitor.kind.name(),
                of_monitor(&monitor.kind)
            );
            changes.push(change(key(monitor), what, level, LATER));
        }
    }
    changes
}

fn facts(group: &Group, monitor: &Monitor) -> [(&'static str, String); 6] {
    let policy = &monitor.policy;
    [
        (
            "kind",
            format!("{}: {}", monitor.kind.name(), of_monitor(&monitor.kind)),
        ),
        ("interval_ms", millis(policy.interval).to_string()),
        ("delay_ms", millis(policy.delay).to_string()),
        ("timeout_ms", millis(policy.timeout).to_string()),
        ("retries", policy.retries.to_string()),
        ("on_error", on_error(group, policy.on_error)),
    ]
}

/// As the file says it.
pub(in super::super) fn on_error(group: &Group, on_error: OnError) -> String {
    match on_error {
        OnError::Warn => "warn".to_string(),
        OnError::Restart { resource } => {
            let resource = group.resources.get(resource);
            format!("restart {}", resource.map_or("", |resource| &resource.name))
        }
        OnError::Failover => "failover".to_string(),
    }
}
