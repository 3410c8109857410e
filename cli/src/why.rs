//! Reasons on the screen: worked out from the control plane's answer alone.

use std::fmt::Write as _;
use std::time::Duration;

use controlplane_api::cluster::{PathState, Presence};
use controlplane_api::why::{
    Because, Found, GroupWhy, PathWhy, PeerWhy, ResourcesWhy, RulingWhy, VolumeWhy, Waits, Why,
};

use crate::style::{Style, Tone};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    Everything,
    /// A group, or the group of a volume and that volume alone.
    Name(&'a str),
}

/// The answer with only what is asked for in it; `None` if there is neither a group nor a volume of this name.
pub(crate) fn about(mut why: Why, about: About<'_>) -> Option<Why> {
    let About::Name(name) = about else {
        return Some(why);
    };
    if why.groups.iter().any(|group| group.name == name) {
        why.groups.retain(|group| group.name == name);
        return Some(why);
    }
    for group in &mut why.groups {
        for ruling in rulings_of(group) {
            ruling.volumes.retain(|volume| volume.name == name);
        }
    }
    why.groups.retain_mut(|group| {
        let mut rulings = rulings_of(group);
        rulings.any(|ruling| !ruling.volumes.is_empty())
    });
    (!why.groups.is_empty()).then_some(why)
}

fn rulings_of(group: &mut GroupWhy) -> impl Iterator<Item = &mut RulingWhy> {
    let rulings = [&mut group.present, &mut group.before, &mut group.acted];
    rulings.into_iter().flatten()
}

/// The whole screen.
pub(crate) fn screen(why: &Why, style: Style) -> String {
    let mut out = String::new();
    peer(&mut out, &why.peer, style);
    for group in &why.groups {
        out.push('\n');
        self::group(&mut out, group, style);
    }
    out
}

fn row(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:<12}{}", printable(text));
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A time that is read: `0.4 s`, `12 s`, `3 min`, `2 h`.
fn span(ms: u64) -> String {
    controlplane::why::span(Duration::from_millis(ms))
}

fn peer(out: &mut String, peer: &PeerWhy, style: Style) {
    let name = &peer.name;
    let head = match &peer.present {
        None => format!("{name} was not heard yet"),
        Some(found) => format!(
            "{name} {}, found {} ago",
            presence(found.presence),
            span(found.since_ms)
        ),
    };
    let _ = writeln!(out, "{}", style.paint(Tone::Strong, &printable(&head)));
    if let Some(found) = &peer.present {
        evidence(out, "because", found);
    }
    for path in &peer.paths {
        let heard = match path.heard_ms {
            None => "not heard since lockstepd began".to_string(),
            Some(ms) => format!("heard {} ago", span(ms)),
        };
        let text = format!("{}: {}, {heard}", path.name, state(path.state));
        row(out, "now", &text);
    }
    if let Some(found) = &peer.before {
        let text = format!(
            "{name} {}, found {} ago",
            presence(found.presence),
            span(found.since_ms)
        );
        row(out, "before", &text);
    }
}

fn evidence(out: &mut String, name: &str, found: &Found) {
    for (number, path) in found.paths.iter().enumerate() {
        let name = if number == 0 { name } else { "" };
        row(out, name, &at_the_time(path, found.since_ms));
    }
}

/// A path as it was then.
fn at_the_time(path: &PathWhy, then_ms: u64) -> String {
    let heard = match path.heard_ms {
        None => "never heard until then".to_string(),
        Some(ms) => format!(
            "last heard {} before that",
            span(ms.saturating_sub(then_ms))
        ),
    };
    format!("{}: {}, {heard}", path.name, state(path.state))
}

fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Unknown => "was not heard yet",
        Presence::Alive => "is heard",
        Presence::Deaf => "is heard, and does not hear this node",
        Presence::Dead => "is silent on every path, and counts as dead",
    }
}

fn state(state: PathState) -> &'static str {
    match state {
        PathState::New => "new",
        PathState::Up => "up",
        PathState::Late => "late",
        PathState::OneWay => "one-way",
        PathState::Down => "down",
    }
}

fn group(out: &mut String, group: &GroupWhy, style: Style) {
    let head = format!("{}: {}", group.name, group.text);
    let _ = writeln!(out, "{}", style.paint(Tone::Strong, &printable(&head)));
    if let Some(waits) = &group.waits {
        self::waits(out, waits, style);
    }
    if let Some(resources) = &group.resources {
        self::resources(out, resources);
    }
    let rulings = [
        ("decided", &group.present),
        ("before", &group.before),
        ("last done", &group.acted),
    ];
    for (name, ruling) in rulings {
        if let Some(ruling) = ruling {
            self::ruling(out, name, ruling, style);
        }
    }
}

fn waits(out: &mut String, waits: &Waits, style: Style) {
    let text = style.paint(Tone::Careful, &printable(&waits.what));
    let _ = writeln!(out, "  {:<12}{text}", "waits for");
    row(out, "until", &waits.ends);
    if let Some(ms) = waits.in_ms {
        row(out, "", &format!("in {} at the latest", span(ms)));
    }
}

fn resources(out: &mut String, resources: &ResourcesWhy) {
    row(out, "resources", &resources.state);
    let because = |out: &mut String, name: &str, because: &Option<Because>| {
        if let Some(because) = because {
            let text = format!("{}; for {}", because.text, span(because.since_ms));
            row(out, name, &text);
        }
    };
    because(out, "  because", &resources.present);
    because(out, "  before", &resources.before);
    if let Some(ground) = &resources.ground {
        row(out, "  time", &ground.text);
    }
}

fn ruling(out: &mut String, name: &str, ruling: &RulingWhy, style: Style) {
    let text = format!(
        "row {}: {}, {} -> {}; {} ago",
        ruling.row,
        ruling.standing,
        ruling.condition,
        ruling.decision,
        span(ruling.since_ms)
    );
    row(out, name, &text);
    for input in &ruling.inputs {
        let text = style.paint(Tone::Quiet, &printable(&input.text));
        let _ = writeln!(out, "  {:<12}{text}", format!("  {}", short(&input.name)));
    }
    for volume in &ruling.volumes {
        let text = style.paint(Tone::Quiet, &printable(&self::volume(volume)));
        let _ = writeln!(out, "  {:<12}{text}", "  volume");
    }
}

/// As wide as its column.
fn short(name: &str) -> &str {
    match name {
        "mirror-link" => "link",
        "unknown-volumes" => "unknown",
        name => name,
    }
}

fn volume(volume: &VolumeWhy) -> String {
    let standing = volume.standing.as_deref();
    let mut text = format!(
        "{} {}",
        volume.name,
        standing.unwrap_or("did not say how it is")
    );
    if let Some(epoch) = volume.epoch {
        text += &format!(", view of epoch {epoch}");
    }
    if let Some(view) = &volume.view {
        text += &format!(" ({})", view.chars().take(8).collect::<String>());
    }
    if standing.is_some() {
        text += if volume.linked {
            ", linked"
        } else {
            ", not linked"
        };
        text += if volume.alone {
            ", this copy alone counts"
        } else {
            ""
        };
    }
    if volume.changing {
        text += ", a change or a word under way";
    }
    if let Some(ms) = volume.asked_ms {
        text += &format!(", asked {} ago", span(ms));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_api::why::Input;

    fn ruling(row: usize) -> RulingWhy {
        let volume = |name: &str| VolumeWhy {
            name: name.to_string(),
            standing: Some("standby".to_string()),
            epoch: Some(7),
            view: Some("0123456789abcdef".to_string()),
            linked: false,
            alone: false,
            changing: false,
            asked_ms: Some(40),
        };
        RulingWhy {
            row,
            standing: "standby".to_string(),
            condition: "witness: the claim is asked".to_string(),
            decision: "waits for the arbiter's answer".to_string(),
            since_ms: 1400,
            until_ms: 10,
            inputs: vec![Input {
                name: "mirror-link".to_string(),
                value: "not-linked".to_string(),
                text: "a volume is not linked".to_string(),
            }],
            volumes: vec![volume("data"), volume("logs")],
        }
    }

    fn why() -> Why {
        let path = |heard_ms| PathWhy {
            name: "10.0.0.1:7421 - 10.0.0.2:7421".to_string(),
            state: PathState::Down,
            heard_ms,
        };
        Why {
            schema: controlplane_api::why::SCHEMA.to_string(),
            node: "node2".to_string(),
            at_ms: 1,
            peer: PeerWhy {
                name: "node1".to_string(),
                present: Some(Found {
                    presence: Presence::Dead,
                    since_ms: 12_000,
                    paths: vec![path(Some(14_000))],
                }),
                before: None,
                paths: vec![path(None)],
            },
            groups: vec![GroupWhy {
                name: "pg".to_string(),
                text: "node1 serves its volumes; node2 waits".to_string(),
                waits: Some(Waits {
                    what: "the arbiter's answer".to_string(),
                    ends: "witness answers".to_string(),
                    in_ms: Some(900),
                }),
                present: Some(ruling(28)),
                before: Some(ruling(27)),
                acted: None,
                resources: Some(ResourcesWhy {
                    state: "offline".to_string(),
                    present: Some(Because {
                        reason: "volumes-gone".to_string(),
                        text: "they stop at once".to_string(),
                        since_ms: 60_000,
                    }),
                    before: None,
                    ground: None,
                }),
            }],
        }
    }

    #[test]
    fn what_is_waited_for_comes_before_what_was_decided_and_the_evidence_is_of_that_time() {
        let told = screen(&why(), Style::Plain);
        let expected = "\
node1 is silent on every path, and counts as dead, found 12 s ago
  because     10.0.0.1:7421 - 10.0.0.2:7421: down, last heard 2.0 s before that
  now         10.0.0.1:7421 - 10.0.0.2:7421: down, not heard since lockstepd began

pg: node1 serves its volumes; node2 waits
  waits for   the arbiter's answer
  until       witness answers
              in 0.9 s at the latest
  resources   offline
    because   they stop at once; for 60 s
  decided     row 28: standby, witness: the claim is asked -> waits for the arbiter's answer; 1.4 s ago
    link      a volume is not linked
    volume    data standby, view of epoch 7 (01234567), not linked, asked 0.0 s ago
    volume    logs standby, view of epoch 7 (01234567), not linked, asked 0.0 s ago
  before      row 27: standby, witness: the claim is asked -> waits for the arbiter's answer; 1.4 s ago
    link      a volume is not linked
    volume    data standby, view of epoch 7 (01234567), not linked, asked 0.0 s ago
    volume    logs standby, view of epoch 7 (01234567), not linked, asked 0.0 s ago
";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_group_or_a_volume_is_asked_for_by_its_name() {
        assert_eq!(about(why(), About::Everything), Some(why()));
        assert_eq!(about(why(), About::Name("pg")), Some(why()));
        assert_eq!(about(why(), About::Name("web")), None);
        let one = about(why(), About::Name("logs")).unwrap();
        let present = one.groups[0].present.as_ref().unwrap();
        assert_eq!(present.volumes.len(), 1);
        assert_eq!(present.volumes[0].name, "logs");
    }
}
