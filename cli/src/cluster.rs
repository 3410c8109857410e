//! One sentence about the cluster, and the screen below it. Worked out from the status alone.

mod daemon;
mod monitors;
mod suspended;
pub(crate) mod timeouts;
mod watchdog;

use std::fmt::Write as _;
use std::time::Duration;

use controlplane_api::cluster::{
    ClusterStatus, Group, Path, PathState, Presence, Volume, Want, Wish, WishOrigin,
};
use mirror_core::admin::{LinkState, Problem, Role};

pub(crate) use suspended::resume;

use crate::size;
use crate::style::{Style, Tone};
use crate::verdict::{Health, Verdict};
use crate::waiting::{has_failed, may_run, served_by, stops_at};

/// How the cluster is: the worst of its groups, and what it lacks to survive the next failure.
pub(crate) fn verdict(status: &ClusterStatus) -> Verdict {
    let groups = status.groups.iter();
    let worst = groups
        .map(|group| verdict_of_group(group, status))
        .reduce(|worst, next| {
            let worse = worst.health.worse(next.health) != worst.health;
            if worse { next } else { worst }
        });
    if let Some(verdict) = worst
        && verdict.health != Health::Healthy
    {
        return verdict;
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

/// What an operator wishes and what failed first, then the volumes.
fn verdict_of_group(group: &Group, status: &ClusterStatus) -> Verdict {
    let name = &group.name;
    let serves = served_by(group);
    if let Some(resources) = &group.resources
        && has_failed(resources)
        && serves == Some(&status.node)
        && group
            .wish
            .as_ref()
            .is_none_or(|wish| wish.want != Want::Moves)
    {
        let mut sentence = format!("{name}: its resources here: {}", resources.text);
        if let Some(then) = &group.after_failure {
            let _ = write!(sentence, "; {then}");
        }
        let advice = format!("mend what failed, then `lockstep group clear {name}`");
        return Verdict::new(Health::Down, "FAILED", sentence).advise(advice);
    }
    match group.wish.as_ref().map(|wish| wish.want) {
        Some(Want::Stopped)
            if stops_at(group, status).is_none()
                && !group.resources.as_ref().is_some_and(may_run) =>
        {
            return stopped(group);
        }
        Some(Want::Stopped) => {
            let sentence = format!("{name}: it is being stopped, as an operator wishes");
            return Verdict::new(Health::Degraded, "STOPPING", sentence);
        }
        Some(Want::Moves) => {
            let place = group.wish.as_ref().and_then(|wish| wish.node.as_deref());
            let sentence = format!("{name}: it moves to {}", place.unwrap_or("the other node"));
            return Verdict::new(Health::Degraded, "MOVING", sentence);
        }
        Some(Want::Runs) | None => {}
    }
    let volumes = group.volumes.iter();
    let worst = volumes
        .map(|volume| (volume, verdict_of(volume)))
        .reduce(|worst, next| {
            let worse = worst.1.health.worse(next.1.health) != worst.1.health;
            if worse { next } else { worst }
        });
    let failed = monitors::lacking(group);
    match worst {
        Some((_, verdict)) if verdict.health == Health::Healthy && !group.failed_on.is_empty() => {
            let nodes = group.failed_on.join(" and ");
            let sentence =
                format!("{name}: it failed on {nodes}, and does not move there by itself");
            let advice = format!("mend what failed, then `lockstep group clear {name}`");
            match served_by(group) {
                Some(node) if group.failed_on.iter().any(|failed| failed == node) => {
                    let sentence = format!("{name}: it failed on {node}, which serves it");
                    Verdict::new(Health::Down, "FAILED", sentence).advise(advice)
                }
                Some(_) | None => {
                    Verdict::new(Health::Degraded, "DEGRADED", sentence).advise(advice)
                }
            }
        }
        Some((_, verdict)) if verdict.health == Health::Healthy && failed.is_some() => {
            Verdict::new(Health::Degraded, "DEGRADED", failed.unwrap_or_default())
        }
        Some((volume, verdict)) => Verdict {
            sentence: format!("{}: {}", volume.name, verdict.sentence),
            ..verdict
        },
        None => Verdict::new(Health::Healthy, "HEALTHY", "it has no volumes"),
    }
}

fn stopped(group: &Group) -> Verdict {
    let name = &group.name;
    let together = |wish: &Wish| wish.origin == WishOrigin::Together;
    let (sentence, advice) = if group.wish.as_ref().is_some_and(together) {
        (
            format!("{name}: an operator stopped the whole cluster"),
            "`lockstep cluster start` runs it again".to_string(),
        )
    } else {
        (
            format!("{name}: an operator stopped it"),
            format!("`lockstep group start {name}` runs it again"),
        )
    };
    Verdict::new(Health::Down, "STOPPED", sentence).advise(advice)
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
    if let Some(lacking) = suspended::lacking(status) {
        return Some(lacking);
    }
    let arbiter = &status.arbiter;
    let name = match arbiter.kind.as_str() {
        "witness" => Some("the witness"),
        "etcd" => Some("etcd"),
        "ping" if arbiter.answers != Some(true) => {
            return Some("not ready for a failover: no ping target answers".to_string());
        }
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
    if let Some(lacking) = watchdog::lacking(status.watchdog.as_ref()) {
        return Some(lacking);
    }
    if let Some(clients) = status.clients.as_ref().filter(|clients| !clients.answers) {
        return Some(format!(
            "nothing is taken over here: nobody in the clients' network answers ({})",
            clients.address
        ));
    }
    let broken = |state: PathState| !matches!(state, PathState::Up | PathState::Late);
    let path = status.paths.iter().find(|path| broken(path.state))?;
    Some(format!("{} is {}", path.name, state(path.state)))
}

fn verdict_of(volume: &Volume) -> Verdict {
    match &volume.status {
        Some(status) => Verdict::of(status),
        None => daemon::silent(volume),
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

/// How a path is, and what travels on it.
fn path_text(path: &Path) -> String {
    let trip = path
        .round_trip_us
        .map(|us| format!(", {}.{:01} ms", us / 1000, us % 1000 / 100))
        .unwrap_or_default();
    let lost = if path.lost > 0 {
        format!(", {} of {} lost", path.lost, path.lost + path.received)
    } else {
        String::new()
    };
    let foreign = if path.foreign > 0 {
        format!(", {} datagrams that are none of its", path.foreign)
    } else {
        String::new()
    };
    let state = state(path.state);
    format!("{}  {state}{trip}{lost}{foreign}", path.name)
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
        let text = path_text(path);
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
    if let Some(clients) = &status.clients {
        let answers = if clients.answers {
            "answers"
        } else {
            "DOES NOT ANSWER"
        };
        let _ = writeln!(out, "  {:<12}{}  {answers}", "clients", clients.address);
    }
    if let Some(watchdog) = &status.watchdog {
        let row = watchdog::row(watchdog, style);
        let _ = writeln!(out, "  {:<12}{row}", "watchdog");
    }
    if let Some(text) = suspended::row(status) {
        let text = style.paint(Tone::Careful, &text);
        let _ = writeln!(out, "  {:<12}{text}", "suspended");
    }
    if let Some(row) = timeouts::row(status, style) {
        let _ = writeln!(out, "  {:<12}{row}", "timeouts");
    }
    note(&mut out, ("config", status.config.as_ref()), style);
    note(&mut out, ("keys", status.keys.as_ref()), style);
    note(&mut out, ("trust", status.trust.as_ref()), style);
    for group in &status.groups {
        group_rows(&mut out, group);
    }
    out
}

/// What both nodes share, and somebody should look at.
fn note(out: &mut String, (what, problem): (&str, Option<&Problem>), style: Style) {
    let Some(problem) = problem else {
        return;
    };
    let text = format!("{} {}", problem.code, problem.message);
    let text = style.paint(Tone::Careful, &text);
    let _ = writeln!(out, "  {what:<12}{text}");
    let _ = writeln!(out, "  {:<12}> {}", "", problem.advice);
}

fn group_rows(out: &mut String, group: &Group) {
    let _ = writeln!(out, "  {:<12}{}", "group", group.name);
    for volume in &group.volumes {
        let Some(status) = &volume.status else {
            let _ = writeln!(out, "  {:<12}{}  no answer", "  volume", volume.name);
            daemon::row(out, volume);
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
        daemon::row(out, volume);
    }
    if let Some(wish) = &group.wish {
        let _ = writeln!(out, "  {:<12}{}", "  wished", wished(wish));
    }
    if let Some(resources) = &group.resources {
        let text = format!("{} on this node", resources.text);
        let _ = writeln!(out, "  {:<12}{text}", "  resources");
    }
    monitors::rows(out, group);
    if !group.failed_on.is_empty() {
        let nodes = group.failed_on.join(" and ");
        let text = match &group.after_failure {
            Some(then) => format!("on {nodes}; here: {then}"),
            None => format!(
                "on {nodes}; `lockstep group clear {}` forgets it",
                group.name
            ),
        };
        let _ = writeln!(out, "  {:<12}{text}", "  failed");
    }
    if let Some(decision) = &group.decision {
        let _ = writeln!(
            out,
            "  {:<12}{} (row {} of docs/controlplane.md)",
            "  decided", decision.decision, decision.row
        );
    }
}

/// What is wished of a group, in plain words.
fn wished(wish: &Wish) -> String {
    let node = wish.node.as_deref().unwrap_or("the other node");
    let by = &wish.by;
    match (wish.want, wish.origin) {
        (Want::Stopped, WishOrigin::Together) => {
            format!(
                "stopped with the whole cluster by an operator on {by}, until `lockstep cluster start`"
            )
        }
        (Want::Stopped, _) => format!("stopped by an operator on {by}, until it is started"),
        (Want::Moves, WishOrigin::Node) => format!("moving to {node} by itself: it failed on {by}"),
        (Want::Moves, _) => format!("moving to {node}, said by an operator on {by}"),
        (Want::Runs, WishOrigin::Node) => format!("runs, said by {by}"),
        (Want::Runs, WishOrigin::Operator | WishOrigin::Together) => {
            format!("runs, said by an operator on {by}")
        }
        (Want::Runs, WishOrigin::Arrived) => format!("runs; the last move, to {node}, arrived"),
        (Want::Runs, WishOrigin::InVain) => {
            let why = wish.why.as_deref().unwrap_or("nobody knows why");
            format!("runs; THE LAST MOVE CAME TO NOTHING: {why}")
        }
    }
}

#[cfg(test)]
pub(crate) use tests::{good, group, wish};

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_api::cluster::{Arbiter, Clients, Peer, SCHEMA};

    pub(crate) fn wish(number: u64, want: Want, origin: WishOrigin) -> Wish {
        Wish {
            number,
            by: "node1".to_string(),
            want,
            node: Some("node2".to_string()),
            origin,
            why: None,
        }
    }

    /// A group of one volume on node1, and who serves it.
    pub(crate) fn group(serves: Option<&str>) -> Group {
        let mut status = crate::screen::healthy();
        status.role = if serves == Some("node1") {
            Role::Active
        } else {
            Role::Fenced
        };
        status.view.active = serves.map(str::to_string);
        Group {
            name: "pg".to_string(),
            volumes: vec![Volume {
                name: "data".to_string(),
                status: Some(Box::new(status)),
                daemon: None,
            }],
            decision: None,
            wish: None,
            resources: None,
            failed_on: Vec::new(),
            after_failure: None,
            monitors: Vec::new(),
        }
    }

    #[test]
    fn a_group_that_failed_somewhere_is_told_until_it_is_cleared() {
        let mut status = good();
        status.groups = vec![group(Some("node2"))];
        status.groups[0].failed_on = vec!["node2".to_string()];
        let said = verdict(&status);
        assert_eq!((said.health, said.word), (Health::Down, "FAILED"));
        let mut group = group(Some("node2"));
        group.failed_on = vec!["node1".to_string()];
        status.groups = vec![group];
        let said = verdict(&status);
        assert_eq!(said.health, Health::Degraded);
        assert!(said.sentence.contains("it failed on node1"));
        let shown = screen(&status, Style::Plain);
        assert!(
            shown.contains("  failed    on node1; `lockstep group clear pg` forgets it"),
            "{shown}"
        );
        status.groups[0].after_failure = Some("it stays".to_string());
        let shown = screen(&status, Style::Plain);
        assert!(shown.contains("on node1; here: it stays"), "{shown}");
        let mut moves = wish(3, Want::Moves, WishOrigin::Node);
        moves.node = Some("node2".to_string());
        assert!(wished(&moves).contains("to node2 by itself"));
    }

    #[test]
    fn what_operators_wish_is_said_in_plain_words() {
        let cases = [
            (
                None,
                Want::Stopped,
                "STOPPED",
                Health::Down,
                "stopped by an",
            ),
            (
                Some("node1"),
                Want::Stopped,
                "STOPPING",
                Health::Degraded,
                "stopped by",
            ),
            (
                Some("node1"),
                Want::Moves,
                "MOVING",
                Health::Degraded,
                "moving to node2",
            ),
            (
                Some("node1"),
                Want::Runs,
                "HEALTHY",
                Health::Healthy,
                "runs, said by",
            ),
        ];
        for (serves, want, word, health, line) in cases {
            let mut status = good();
            let mut group = group(serves);
            group.wish = Some(wish(3, want, WishOrigin::Operator));
            status.groups.push(group);
            let said = verdict(&status);
            assert_eq!((said.word, said.health), (word, health), "{said:?}");
            let screen = screen(&status, Style::Plain);
            assert!(screen.contains(&format!("  wished    {line}")), "{screen}");
        }
        let mut status = good();
        let mut group = group(None);
        group.wish = Some(wish(3, Want::Stopped, WishOrigin::Together));
        status.groups.push(group);
        let said = verdict(&status);
        assert_eq!(said.word, "STOPPED");
        assert!(format!("{said:?}").contains("cluster start"), "{said:?}");
        let mut status = good();
        status.suspended = vec!["node2".to_string()];
        let said = verdict(&status);
        assert!(said.sentence.starts_with("node2 is suspended"), "{said:?}");
        assert!(screen(&status, Style::Plain).contains("  suspended   node2"));
    }

    pub(crate) fn good() -> ClusterStatus {
        ClusterStatus {
            schema: SCHEMA.to_string(),
            version: None,
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
                foreign: 0,
            }],
            arbiter: Arbiter {
                kind: "witness".to_string(),
                address: Some("10.0.0.5:7422".to_string()),
                answers: Some(true),
                waits_for: Vec::new(),
            },
            clients: None,
            watchdog: None,
            groups: Vec::new(),
            suspended: Vec::new(),
            suspended_together: Vec::new(),
            agreed: true,
            config: None,
            keys: None,
            trust: None,
            timeouts: None,
        }
    }

    #[test]
    fn a_cluster_that_lacks_nothing_is_healthy() {
        let verdict = verdict(&good());
        assert_eq!(verdict.health, Health::Healthy);
        let screen = screen(&good(), Style::Plain);
        assert!(screen.contains("up, 0.2 ms\n"), "{screen}");
    }

    #[test]
    fn what_somebody_else_sends_to_a_path_is_counted_there() {
        let mut status = good();
        status.paths[0].foreign = 3;
        let screen = screen(&status, Style::Plain);
        let wanted = "up, 0.2 ms, 3 datagrams that are none of its\n";
        assert!(screen.contains(wanted), "{screen}");
    }

    #[test]
    fn what_keeps_the_other_node_from_taking_over_is_named() {
        let mut dead = good();
        dead.peer.presence = Presence::Dead;
        let mut alone = good();
        alone.arbiter.answers = Some(false);
        let mut fresh = good();
        fresh.arbiter.waits_for = vec!["node2".to_string()];
        let mut pings = good();
        pings.arbiter.kind = "ping".to_string();
        pings.arbiter.answers = Some(false);
        let mut unreached = good();
        unreached.clients = Some(Clients {
            address: "10.2.0.1".to_string(),
            answers: false,
        });
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
            (pings, "not ready for a failover: no ping target answers"),
            (unreached, "nothing is taken over here: nobody in the"),
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
        let mut silent = group(None);
        silent.volumes[0].status = None;
        status.groups.push(silent);
        let verdict = verdict(&status);
        assert_eq!(verdict.health, Health::Unknown);
        assert!(verdict.sentence.starts_with("data: "));
    }
}
