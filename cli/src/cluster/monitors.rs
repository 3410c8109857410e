//! The monitors of a group, on the screen and in the verdict.

use std::fmt::Write as _;
use std::time::Duration;

use controlplane_api::cluster::{Group, Monitor, MonitorState};

use crate::size;

/// What a monitor of it says that counts.
pub(super) fn lacking(group: &Group) -> Option<String> {
    let failed = |monitor: &&Monitor| monitor.state == MonitorState::Failed;
    let monitor = group.monitors.iter().find(failed)?;
    let (group, name, text) = (&group.name, &monitor.name, &monitor.text);
    Some(format!("{group}: monitor {name} {text}"))
}

/// A row for each that looks.
pub(super) fn rows(out: &mut String, group: &Group) {
    for monitor in &group.monitors {
        if monitor.state == MonitorState::Idle {
            continue;
        }
        let since = size::ago(Duration::from_millis(monitor.since_ms));
        let delayed = if monitor.delayed { ", delayed" } else { "" };
        let _ = writeln!(
            out,
            "  {:<12}{}  {}{delayed}, since {since}",
            "  monitor", monitor.name, monitor.text
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Health;

    fn monitor(state: MonitorState, text: &str) -> Monitor {
        Monitor {
            name: "query".to_string(),
            kind: "script".to_string(),
            state,
            text: text.to_string(),
            failures: 0,
            failures_max: 3,
            delayed: false,
            since_ms: 5000,
        }
    }

    #[test]
    fn each_monitor_that_looks_has_a_row_and_one_that_failed_is_in_the_verdict() {
        let mut status = super::super::good();
        let mut group = super::super::group(Some("node1"));
        group.monitors = vec![
            monitor(MonitorState::Well, "well"),
            Monitor {
                name: "idle".to_string(),
                ..monitor(MonitorState::Idle, "does not look")
            },
            Monitor {
                name: "slow".to_string(),
                delayed: true,
                ..monitor(MonitorState::Failing, "failing 1 of 3: no answer")
            },
        ];
        let mut rows = String::new();
        self::rows(&mut rows, &group);
        let expected = [
            "    monitor   query  well, since 5.0 s ago",
            "    monitor   slow  failing 1 of 3: no answer, delayed, since 5.0 s ago",
        ];
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected);
        status.groups = vec![group];
        assert_eq!(super::super::verdict(&status).health, Health::Healthy);
        status.groups[0].monitors[0] = monitor(MonitorState::Failed, "failed: no answer");
        let verdict = super::super::verdict(&status);
        assert_eq!(verdict.health, Health::Degraded);
        assert_eq!(verdict.sentence, "pg: monitor query failed: no answer");
    }
}
