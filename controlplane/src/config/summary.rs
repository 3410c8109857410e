//! What a file means, in a few lines.

use std::fmt::Write as _;

use controlplane_core::failing::OnFailure;
use controlplane_core::group::StopFailure;
use controlplane_core::keeper::ArbiterKind;
use serde_json::{Value, json};

use super::plan::on_error_of;
use super::resources::{Group, Kind};
use super::{Cluster, RegisterKeeper};
use crate::monitors;

pub(super) fn text(cluster: &Cluster) -> String {
    let mut text = String::new();
    for node in &cluster.nodes {
        let addresses: Vec<String> = node.interconnects.iter().map(ToString::to_string).collect();
        let number = node.number.number();
        let _ = writeln!(
            text,
            "node {}  number {number}, heartbeats on {}",
            node.name,
            addresses.join(", ")
        );
    }
    let timing = cluster.timing;
    let _ = writeln!(
        text,
        "timing  a heartbeat each {} ms; dead after {} ms",
        timing.interval.as_millis(),
        timing.timeout.as_millis()
    );
    let _ = writeln!(text, "arbiter  {}", arbiter(cluster));
    if !cluster.clients.is_empty() {
        let targets = all(&cluster.clients, " or ");
        let _ = writeln!(text, "clients  takes over only who reaches {targets}");
    }
    if let Some(watchdogs) = watchdogs(cluster) {
        let _ = writeln!(text, "watchdog  {watchdogs}");
    }
    for group in &cluster.groups {
        let _ = writeln!(
            text,
            "group {}  volumes {}; prefers {}; {}",
            group.name,
            group.volumes.join(", "),
            group.nodes.first().map_or("", String::as_str),
            match group.resources.len() {
                0 => "starts nothing".to_string(),
                count => format!("starts {}", super::render::counted(count, "resource")),
            }
        );
        if !group.resources.is_empty() {
            let wait = super::watchdog::longest_wait(cluster, group);
            let _ = writeln!(
                text,
                "  after a takeover they start {} ms after the volumes are served",
                millis(wait)
            );
        }
        for (index, resource) in group.resources.iter().enumerate() {
            let (kind, what) = of_kind(&resource.kind);
            let _ = writeln!(text, "  {}. {}  {kind}: {what}", index + 1, resource.name);
        }
        for monitor in &group.monitors {
            let (policy, kind) = (&monitor.policy, monitor.kind.name());
            let _ = writeln!(
                text,
                "  monitor {}  {kind}: {}; each {} ms, fails after {} in a row: {}",
                monitor.name,
                of_monitor(&monitor.kind),
                millis(policy.interval),
                policy.retries.saturating_add(1),
                on_error_of(group, policy.on_error)
            );
        }
    }
    text
}

/// Both nodes' devices; `None` without any.
pub(super) fn watchdogs(cluster: &Cluster) -> Option<String> {
    let timeout = cluster
        .nodes
        .iter()
        .find_map(|node| node.watchdog.as_ref())?
        .timeout;
    let each = cluster.nodes.iter().map(|node| match &node.watchdog {
        Some(watchdog) => format!("{} on {}", watchdog.device.display(), node.name),
        None => format!("none on {}", node.name),
    });
    let each: Vec<String> = each.collect();
    Some(format!(
        "{}; resets after {} s",
        each.join(", "),
        timeout.as_secs()
    ))
}

/// Who decides.
pub(super) fn arbiter(cluster: &Cluster) -> String {
    match (&cluster.keeper, cluster.arbiter) {
        (Some(RegisterKeeper::Witness(address)), _) => format!("the witness at {address}"),
        (
            Some(RegisterKeeper::Etcd {
                endpoints, files, ..
            }),
            _,
        ) => {
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            let tls = if files.is_some() { "" } else { ", without TLS" };
            format!("etcd at {}{tls}", endpoints.join(", "))
        }
        (None, ArbiterKind::Manual) => "an operator".to_string(),
        (None, ArbiterKind::Nobody) => "nobody: each node decides alone".to_string(),
        (None, ArbiterKind::Ping) => {
            format!("ping: whoever reaches {}", all(&cluster.ping, " or "))
        }
        (None, ArbiterKind::Register) => "not set".to_string(),
    }
}

pub(super) fn all(addresses: &[std::net::IpAddr], between: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(between)
}

/// The kind as the file names it, and what it is about.
pub(super) fn of_kind(kind: &Kind) -> (&'static str, String) {
    match kind {
        Kind::FileSystem(mount) => (
            "filesystem",
            format!(
                "{} of {} at {}",
                mount.kind,
                mount.volume,
                mount.mount_point.display()
            ),
        ),
        Kind::FloatingIp(ip) => {
            let on = ip.interface.as_ref();
            let on = on.map_or_else(String::new, |name| format!(" on {name}"));
            ("floating_ip", format!("{}/{}{on}", ip.address, ip.prefix))
        }
        Kind::Exec(exec) => ("exec", exec.start.join(" ")),
        Kind::Program(program) => ("program", program.command.join(" ")),
        Kind::Systemd(systemd) => ("systemd", systemd.unit.clone()),
    }
}

/// What a monitor looks at.
pub(super) fn of_monitor(kind: &monitors::Kind) -> String {
    match kind {
        monitors::Kind::Script(script) => script.command.join(" "),
        monitors::Kind::Nic(nic) => nic.interface.clone(),
        monitors::Kind::Ip(ip) => all(&ip.targets, " or "),
        monitors::Kind::Mirror(_) => "copies and links of its volumes".to_string(),
    }
}

pub(super) fn json(cluster: &Cluster) -> Value {
    let nodes = cluster.nodes.iter().map(|node| {
        json!({
            "name": node.name,
            "number": node.number.number(),
            "interconnects": node.interconnects,
            "watchdog": node.watchdog.as_ref().map(|watchdog| json!({
                "device": watchdog.device.display().to_string(),
                "timeout_s": watchdog.timeout.as_secs(),
            })),
        })
    });
    json!({
        "nodes": nodes.collect::<Vec<_>>(),
        "timing": {
            "heartbeat_interval_ms": millis(cluster.timing.interval),
            "heartbeat_timeout_ms": millis(cluster.timing.timeout),
        },
        "arbiter": arbiter_json(cluster),
        "clients": cluster.clients,
        "groups": cluster.groups.iter().map(|group| group_json(cluster, group)).collect::<Vec<_>>(),
    })
}

pub(super) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn arbiter_json(cluster: &Cluster) -> Value {
    match (&cluster.keeper, cluster.arbiter) {
        (Some(RegisterKeeper::Witness(address)), _) => {
            json!({"kind": "witness", "address": address})
        }
        (
            Some(RegisterKeeper::Etcd {
                endpoints, files, ..
            }),
            _,
        ) => {
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            json!({"kind": "etcd", "endpoints": endpoints, "tls": files.is_some()})
        }
        (None, ArbiterKind::Nobody) => json!({"kind": "none"}),
        (None, ArbiterKind::Ping) => json!({"kind": "ping", "targets": cluster.ping}),
        (None, ArbiterKind::Manual | ArbiterKind::Register) => {
            json!({"kind": "manual"})
        }
    }
}

pub(super) fn stop_failure(policy: StopFailure) -> &'static str {
    match policy {
        StopFailure::Fence => "fence",
        StopFailure::Hold => "hold",
    }
}

pub(super) fn on_failure(policy: OnFailure) -> &'static str {
    match policy {
        OnFailure::Failover => "failover",
        OnFailure::Wait => "wait",
    }
}

fn group_json(cluster: &Cluster, group: &Group) -> Value {
    let wait = millis(super::watchdog::longest_wait(cluster, group));
    let resources = group.resources.iter().map(|resource| {
        let (kind, what) = of_kind(&resource.kind);
        json!({"name": resource.name, "kind": kind, "what": what})
    });
    let monitors = group.monitors.iter().map(|monitor| {
        json!({
            "name": monitor.name,
            "kind": monitor.kind.name(),
            "what": of_monitor(&monitor.kind),
            "interval_ms": millis(monitor.policy.interval),
            "delay_ms": millis(monitor.policy.delay),
            "timeout_ms": millis(monitor.policy.timeout),
            "retries": monitor.policy.retries,
            "on_error": on_error_of(group, monitor.policy.on_error),
        })
    });
    json!({
        "name": group.name,
        "volumes": group.volumes,
        "nodes": group.nodes,
        "stop_failure": stop_failure(group.policy.stop_failure),
        "on_failure": on_failure(group.policy.on_failure),
        "takeover_wait_ms": wait,
        "resources": resources.collect::<Vec<_>>(),
        "monitors": monitors.collect::<Vec<_>>(),
    })
}
