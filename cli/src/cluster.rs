//! One sentence about the cluster, and the screen below it. Worked out from the status alone.

use std::fmt::Write as _;
use std::time::Duration;

use controlplane_api::cluster::{ClusterStatus, Group, PathState, Presence, Volume};
use mirror_core::admin::{LinkState, Role};

use crate::size;
use crate::style::{Style, Tone};
use crate::verdict::{Health, Verdict};

/// How the cluster is: the worst of its groups, and what it lacks to survive the next failure.
pub(crate) fn verdict(status: &ClusterStatus) -> Verdict {
    let volumes = || status.groups.iter().flat_map(|group| &group.volumes);
    let worst = volumes()
        .map(|volume| (volume, verdict_of(volume)))
        .reduce(|worst, next| {
            let worse = worst.1.health.worse(next.1.health) != worst.1.health;
            if worse { next } else { worst }
        });
    if let Some((volume, verdict)) = worst
        && verdict.health != Health::Healthy
    {
        return Verdict {
            sentence: format!("{}: {}", volume.name, verdict.sentence),
            ..verdict
        };
    }
    if let Some(lacking) = lacking(status) {
        return Verdict::new(Health::Degraded, "DEGRADED", lacking);
    }
    let sentence = match status.arbiter.kind.as_str() {
        "manual" => "everything runs; if a server dies, an operator decides",
        _ => "everything runs; if a server dies, the other one takes over",
    };
    Verdict::new(Health::Healthy, "HEALTHY", sentence)
}

/// What keeps the other node from taking over, or would keep it soon.
fn lacking(status: &ClusterStatus) -> Option<String> {
    let peer = &status.peer;
    let since = size::ago(Duration::from_millis(peer.since_ms));
    match peer.presence {
        Presence::Alive => {}
        Presence::Unknown => return Some(format!("{} was not heard yet", peer.name)),
        Presence::Deaf => {
            return Some(format!(
                "{} does not hear this node, since {since}",
                peer.name
            ));
        }
        Presence::Dead => return Some(format!("{} is not heard, since {since}", peer.name)),
    }
    let arbiter = &status.arbiter;
    let name = match arbiter.kind.as_str() {
        "witness" => Some("the witness"),
        "etcd" => Some("etcd"),
        _ => None,
    };
    if let Some(name) = name
        && arbiter.answers != Some(true)
    {
        return Some(format!("not ready for a failover: {name} does not answer"));
    }
    if let (Some(name), false) = (name, arbiter.waits_for.is_empty()) {
        let nodes = arbiter.waits_for.join(" and ");
        return Some(format!(
            "not ready for a failover: {name} has yet to hear {nodes}"
        ));
    }
    let broken = |state: PathState| !matches!(state, PathState::Up | PathState::Late);
    let path = status.paths.iter().find(|path| broken(path.state))?;
    Some(format!("{} is {}", path.name, state(path.state)))
}

fn verdict_of(volume: &Volume) -> Verdict {
    match &volume.status {
        Some(status) => Verdict::of(status),
        None => Verdict::new(
            Health::Unknown,
            "UNKNOWN",
            "its daemon does not answer on this node",
        ),
    }
}

fn state(state: PathState) -> &'static str {
    match state {
        PathState::New => "not heard yet",
        PathState::Up => "up",
        PathState::Late => "late",
        PathState::OneWay => "one-way: the peer does not hear",
        PathState::Down => "down",
    }
}

/// The whole screen.
pub(crate) fn screen(status: &ClusterStatus, style: Style) -> String {
    let mut out = crate::screen::headline(&status.node, &verdict(status), style);
    let peer = &status.peer;
    let since = size::ago(Duration::from_millis(peer.since_ms));
    let presence = match peer.presence {
        Presence::Unknown => "not heard yet".to_string(),
        Presence::Alive => format!("alive, since {since}"),
        Presence::Deaf => format!("heard, but it does not hear this node, since {since}"),
        Presence::Dead => format!("DEAD: not heard, since {since}"),
    };
    let _ = writeln!(out, "  {:<12}{}  {presence}", "peer", peer.name);
    for path in &status.paths {
        let trip = path
            .round_trip_us
            .map(|us| format!(", {}.{:01} ms", us / 1000, us % 1000 / 100))
            .unwrap_or_default();
        let lost = if path.lost > 0 {
            format!(", {} of {} lost", path.lost, path.lost + path.received)
        } else {
            String::new()
        };
        let text = format!("{}  {}{trip}{lost}", path.name, state(path.state));
        let good = matches!(path.state, PathState::Up | PathState::Late);
        let tone = if good { Tone::Quiet } else { Tone::Careful };
        let _ = writeln!(out, "  {:<12}{}", "path", style.paint(tone, &text));
    }
    let arbiter = &status.arbiter;
    let answers = match arbiter.answers {
        Some(true) if !arbiter.waits_for.is_empty() => "answers, and grants nothing yet",
        Some(true) => "answers",
        Some(false) => "DOES NOT ANSWER",
        None if matches!(arbiter.kind.as_str(), "witness" | "etcd") => "was not asked yet",
        None => "",
    };
    let address = arbiter.address.as_deref().unwrap_or_default();
    let _ = writeln!(
        out,
        "  {:<12}{}  {address}  {answers}",
        "arbiter", arbiter.kind
    );
    for group in &status.groups {
        group_rows(&mut out, group);
    }
    out
}

fn group_rows(out: &mut String, group: &Group) {
    let _ = writeln!(out, "  {:<12}{}", "group", group.name);
    for volume in &group.volumes {
        let Some(status) = &volume.status else {
            let _ = writeln!(out, "  {:<12}{}  no answer", "  volume", volume.name);
            continue;
        };
        let active = match (&status.view.active, status.role) {
            (_, Role::Active) => format!("served by {}", status.node),
            (Some(node), _) if *node != status.node && status.link.state == LinkState::Up => {
                format!("served by {node}")
            }
            (Some(node), _) => format!("last served by {node}"),
            (None, _) => "served by nobody".to_string(),
        };
        let _ = writeln!(
            out,
            "  {:<12}{}  {active}, {} in sync, epoch {}",
            "  volume",
            volume.name,
            status.view.insync.join(" and "),
            status.view.epoch
        );
    }
    if let Some(decision) = &group.decision {
        let _ = writeln!(
            out,
            "  {:<12}{} (row {} of docs/controlplane.md)",
            "  decided", decision.decision, decision.row
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_api::cluster::{Arbiter, Path, Peer, SCHEMA};

    fn good() -> ClusterStatus {
        ClusterStatus {
            schema: SCHEMA.to_string(),
            node: "node1".to_string(),
            peer: Peer {
                name: "node2".to_string(),
                presence: Presence::Alive,
                since_ms: 5000,
            },
            paths: vec![Path {
                name: "10.0.0.1:7421 - 10.0.0.2:7421".to_string(),
                state: PathState::Up,
                round_trip_us: Some(230),
                received: 10,
                lost: 0,
            }],
            arbiter: Arbiter {
                kind: "witness".to_string(),
                address: Some("10.0.0.5:7422".to_string()),
                answers: Some(true),
                waits_for: Vec::new(),
            },
            groups: Vec::new(),
        }
    }

    #[test]
    fn a_cluster_that_lacks_nothing_is_healthy() {
        let verdict = verdict(&good());
        assert_eq!(verdict.health, Health::Healthy);
        let screen = screen(&good(), Style::Plain);
        assert!(screen.contains("up, 0.2 ms"), "{screen}");
    }

    #[test]
    fn what_keeps_the_other_node_from_taking_over_is_named() {
        let mut dead = good();
        dead.peer.presence = Presence::Dead;
        let mut alone = good();
        alone.arbiter.answers = Some(false);
        let mut fresh = good();
        fresh.arbiter.waits_for = vec!["node2".to_string()];
        let mut cut = good();
        cut.paths[0].state = PathState::Down;
        let cases = [
            (dead, "node2 is not heard"),
            (
                alone,
                "not ready for a failover: the witness does not answer",
            ),
            (
                fresh,
                "not ready for a failover: the witness has yet to hear node2",
            ),
            (cut, "10.0.0.1:7421 - 10.0.0.2:7421 is down"),
        ];
        for (status, expected) in cases {
            let verdict = verdict(&status);
            assert_eq!(verdict.health, Health::Degraded);
            assert!(verdict.sentence.starts_with(expected), "{verdict:?}");
        }
    }

    #[test]
    fn a_volume_whose_daemon_is_silent_is_unknown() {
        let mut status = good();
        status.groups.push(Group {
            name: "pg".to_string(),
            volumes: vec![Volume {
                name: "data".to_string(),
                status: None,
            }],
            decision: None,
        });
        let verdict = verdict(&status);
        assert_eq!(verdict.health, Health::Unknown);
        assert!(verdict.sentence.starts_with("data: "));
    }
}
