//! Why things are as they are, in words: what the cores wrote down when they decided (`controlplane_core::keeper::why`,
//! `controlplane_core::group::why`), said without asking anything else.

mod failing;
mod resources;
mod words;

use controlplane_api::why::{Input, RulingWhy, VolumeWhy, Waits};
use controlplane_core::keeper::why::{Moment, Ruling, Stood};
use controlplane_core::partition::{Decision, Standing, TABLE};
use mirror_core::types::Instant;

pub use failing::{after_failure, after_monitor};
pub use resources::{Reasons, resources};
pub use words::{Names, span};
use words::{ends, hold, inputs, missing_of_claim};

/// Milliseconds from `at` to `now`.
pub fn ago_ms(now: Instant, at: Instant) -> u64 {
    u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
}

/// A volume's name, and how it stood.
pub type Seen = (String, Option<Stood>);

/// A row that rules or ruled. `now`: of the question.
pub fn ruling(
    now: Instant,
    ruling: &Ruling,
    moment: Moment,
    volumes: Vec<Seen>,
    names: &Names<'_>,
) -> RulingWhy {
    let seen = match moment {
        Moment::Now => &ruling.last,
        Moment::Before | Moment::Acted => &ruling.first,
    };
    let row = TABLE.get(ruling.row);
    RulingWhy {
        row: ruling.row + 1,
        standing: row.map_or_else(String::new, |row| row.standing.to_string()),
        condition: row.map_or_else(String::new, |row| row.condition.to_string()),
        decision: ruling.decision.to_string(),
        since_ms: ago_ms(now, ruling.first.at),
        until_ms: ago_ms(now, ruling.last.at),
        inputs: inputs(seen, names),
        volumes: volumes
            .into_iter()
            .map(|(name, stood)| volume(now, name, stood))
            .collect(),
    }
}

fn volume(now: Instant, name: String, stood: Option<Stood>) -> VolumeWhy {
    let view = stood.and_then(|stood| stood.view);
    VolumeWhy {
        name,
        standing: stood
            .and_then(|stood| stood.standing)
            .map(|it| it.to_string()),
        epoch: view.map(|view| view.epoch.0),
        view: view.map(|view| mirror_core::admin::ViewName::from(view).id),
        linked: stood.is_some_and(|stood| stood.linked),
        alone: stood.is_some_and(|stood| stood.alone),
        changing: stood.is_some_and(|stood| stood.changing),
        asked_ms: stood
            .map(|stood| stood.asked)
            .filter(|asked| *asked > Instant::default())
            .map(|asked| ago_ms(now, asked)),
    }
}

/// What of the volumes is waited for.
pub fn waits(now: Instant, ruling: &Ruling, names: &Names<'_>) -> Option<Waits> {
    let seen = &ruling.last;
    let left = |until: Instant| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX);
    let missing = match ruling.decision {
        Decision::Wait(missing) => Some(missing),
        Decision::Claim if ruling.held.is_none() => Some(missing_of_claim()),
        Decision::Rest
        | Decision::Claim
        | Decision::GoAlone
        | Decision::TakeOver
        | Decision::Start
        | Decision::StepDown(_)
        | Decision::HandOver
        | Decision::Stop => None,
    };
    if let Some(missing) = missing {
        let until = seen.ends_at(Decision::Wait(missing));
        return Some(Waits {
            what: missing.to_string(),
            ends: ends(missing, seen, names),
            in_ms: until.map(left),
        });
    }
    let (what, ends, until) = hold(ruling.held?, names);
    Some(Waits {
        what,
        ends,
        in_ms: until.map(left),
    })
}

/// How the group's volumes stand, and what follows, in a sentence.
pub fn sentence(ruling: &Ruling, names: &Names<'_>) -> String {
    let Names { node, peer, .. } = names;
    let stands = match ruling.last.standing {
        Standing::Serving => format!("{node} serves its volumes"),
        Standing::Frozen => format!("{node} serves its volumes, and writes wait for {peer}"),
        Standing::Standby => {
            format!("{peer} serves its volumes, by the views that the copies on {node} hold")
        }
        Standing::Unserved => "nobody serves its volumes, and both copies count".to_string(),
        Standing::Booted => format!("both copies count, and {node} booted since"),
        Standing::Alone => {
            format!("nobody serves its volumes, and the copy on {node} alone counts")
        }
        Standing::NotCurrent => format!("the copy on {node} does not hold everything"),
        Standing::Silent => "the daemon of a volume does not answer".to_string(),
        Standing::Broken => format!(
            "the disk or the metadata of a volume failed on {node}, or a part of the group can be served by {peer} alone"
        ),
    };
    if ruling.decision == Decision::Rest {
        stands
    } else {
        format!("{stands}; {node} {}", ruling.decision)
    }
}

fn input(name: &str, value: impl ToString, text: impl Into<String>) -> Input {
    Input {
        name: name.to_string(),
        value: value.to_string(),
        text: text.into(),
    }
}

#[cfg(test)]
mod tests;
