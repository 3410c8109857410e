//! Why a group's resources are as they are.

use controlplane_api::why::{Because as Told, Input, ResourcesWhy, Waits};
use controlplane_core::group::why::{Because, Goal, Progress, Reasoned, Record};
use controlplane_core::group::{Action, GroupState, Manner, Reason};
use controlplane_core::self_fencing::{Before, Ground, SERVICES, Verdict};
use mirror_core::types::Instant;

use super::{Names, ago_ms, input, span};
use crate::services::Stopping;

/// What is known of a group's resources.
#[derive(Clone, Copy, Debug)]
pub struct Reasons<'a> {
    /// What its rules wrote down.
    pub record: &'a Record,
    /// How it is.
    pub state: GroupState,
    /// Its resources' names.
    pub names: &'a [String],
    /// Its monitors' names.
    pub monitors: &'a [String],
    /// Why operators want it stopped here, if they do.
    pub wanted: Option<Stopping>,
    /// The decision about its volumes is to step down.
    pub steps_down: bool,
    /// On what its time rests, and since when that is so.
    pub ground: Option<(Ground, Instant)>,
}

/// In words, and what is waited for.
pub fn resources(
    now: Instant,
    known: &Reasons<'_>,
    names: &Names<'_>,
) -> (ResourcesWhy, Option<Waits>) {
    let told = |reasoned: &Reasoned| Told {
        reason: reason(reasoned.because).to_string(),
        text: text(now, reasoned, known, names),
        since_ms: ago_ms(now, reasoned.since),
    };
    let present = known.record.present.as_ref();
    let why = ResourcesWhy {
        state: known.state.to_string(),
        present: present.map(told),
        before: known.record.before.as_ref().map(told),
        ground: known.ground.map(|ground| self::ground(now, ground)),
    };
    (why, present.and_then(|it| waits(now, it, known, names)))
}

fn reason(because: Because) -> &'static str {
    match because {
        Because::Served => "served",
        Because::VolumesGone => "volumes-gone",
        Because::LeaseOver => "lease-over",
        Because::DoubtOver { .. } => "doubt-over",
        Because::Begun => "begun",
        Because::InDoubt { .. } => "in-doubt",
        Because::StopFailed => "stop-failed",
        Because::Ordered => "ordered",
        Because::Barred(Reason::Resource(_)) => "start-failed",
        Because::Barred(Reason::Monitor(_)) => "monitor-failed",
        Because::Barred(Reason::PingPong) => "too-many-failovers",
    }
}

fn text(now: Instant, reasoned: &Reasoned, known: &Reasons<'_>, names: &Names<'_>) -> String {
    let node = names.node;
    let why = match reasoned.because {
        Because::Served => format!("all its volumes are served by {node}"),
        Because::VolumesGone => format!("not all of its volumes are served by {node}"),
        Because::LeaseOver if known.steps_down => format!("{node} steps down from its volumes"),
        Because::LeaseOver => "the time of the services is over".to_string(),
        Because::DoubtOver { since } => format!(
            "the daemon of a volume did not answer, or was between serving and not, for {}",
            span(now.since(since))
        ),
        Because::Begun => {
            "the daemon of a volume does not answer, and they were stopping before".to_string()
        }
        Because::InDoubt { .. } => {
            "the daemon of a volume does not answer, or is between serving and not".to_string()
        }
        Because::StopFailed => "a resource did not stop".to_string(),
        Because::Ordered => match known.wanted {
            Some(Stopping::Stopped) => "an operator stopped the group".to_string(),
            Some(Stopping::Moves) => format!("the group moves to {}", names.peer),
            None => "it failed under an earlier run of lockstepd, and was not cleared".to_string(),
        },
        Because::Barred(Reason::Resource(resource)) => format!(
            "resource {} does not start or does not stay on {node}",
            name(known, resource)
        ),
        Because::Barred(Reason::Monitor(monitor)) => format!(
            "monitor {} failed on {node}",
            known.monitors.get(monitor).map_or("", String::as_str)
        ),
        Because::Barred(Reason::PingPong) => {
            format!("it was started after a failover on {node} too often")
        }
    };
    let shall = match reasoned.goal {
        Goal::Run => "they shall run",
        Goal::Hold => "nothing is begun",
        Goal::Stop => "they shall not run",
        Goal::HardStop => "they stop at once",
    };
    let start = match (reasoned.goal, reasoned.before_start) {
        (Goal::Run, before) => format!(" ({})", before_words(before, names)),
        (Goal::Hold | Goal::Stop | Goal::HardStop, _) => String::new(),
    };
    format!("{shall}: {why}{start}; {}", progress(reasoned, known))
}

fn before_words(before: Before, names: &Names<'_>) -> String {
    match before {
        Before::Begun => "begun, or found running, since they are served here".to_string(),
        Before::OtherClear => format!("{} said that nothing is left there", names.peer),
        Before::Waited => "the takeover wait is over".to_string(),
        Before::Unknown => format!("{} may still run some of it", names.peer),
    }
}

fn name<'a>(known: &Reasons<'a>, resource: usize) -> &'a str {
    known.names.get(resource).map_or("", String::as_str)
}

fn progress(reasoned: &Reasoned, known: &Reasons<'_>) -> String {
    match reasoned.progress {
        Progress::Done => match reasoned.goal {
            Goal::Run => "all of them run".to_string(),
            Goal::Hold => "what runs goes on".to_string(),
            Goal::Stop | Goal::HardStop => "nothing is left here".to_string(),
        },
        Progress::Looks => "they are looked at".to_string(),
        Progress::Acts {
            resource, action, ..
        } => {
            let what = match action {
                Action::Probe => "looked at",
                Action::Start(_) => "started",
                Action::Stop(Manner::Orderly) => "stopped",
                Action::Stop(Manner::Hard) => "stopped hard",
            };
            format!("{} is being {what}", name(known, resource))
        }
        Progress::TakeoverWait { .. } => "they wait for the takeover wait".to_string(),
        Progress::Pause { resource, .. } => {
            format!("{} failed, and is tried again", name(known, resource))
        }
        Progress::Stuck => "something is left here".to_string(),
    }
}

/// What only an operator ends, and how.
fn operator(reasoned: &Reasoned, known: &Reasons<'_>, names: &Names<'_>) -> Option<Waits> {
    let clear = format!("mend it, then `lockstep group clear {}`", names.group);
    let (why, ends) = match (reasoned.because, reasoned.progress) {
        (Because::StopFailed, _) => ("a resource did not stop", clear),
        (Because::Barred(_), Progress::Done | Progress::Stuck) => (
            "it is not started here any more",
            format!("{clear}; or `lockstep group move {}`", names.group),
        ),
        (Because::Ordered, Progress::Done) if known.wanted.is_none() => {
            ("it failed under an earlier run of lockstepd", clear)
        }
        (
            Because::Served
            | Because::VolumesGone
            | Because::LeaseOver
            | Because::DoubtOver { .. }
            | Because::Begun
            | Because::InDoubt { .. }
            | Because::Ordered
            | Because::Barred(_),
            _,
        ) => return None,
    };
    Some(Waits {
        what: format!("an operator: {why}"),
        ends,
        in_ms: None,
    })
}

fn waits(
    now: Instant,
    reasoned: &Reasoned,
    known: &Reasons<'_>,
    names: &Names<'_>,
) -> Option<Waits> {
    if let Some(waits) = operator(reasoned, known, names) {
        return Some(waits);
    }
    if let Because::InDoubt { until } = reasoned.because {
        return Some(Waits {
            what: "the daemon of a volume".to_string(),
            ends: "it answers; or this time is over, and everything stops at once".to_string(),
            in_ms: Some(ago_ms(until, now)),
        });
    }
    let (what, ends, until) = match reasoned.progress {
        Progress::TakeoverWait { until } => (
            format!("the end of what {} may still run", names.peer),
            format!(
                "{} says that nothing is left there; or this time is over",
                names.peer
            ),
            Some(until),
        ),
        Progress::Pause { resource, until } => (
            format!("the next try of {}", name(known, resource)),
            "this time is over".to_string(),
            Some(until),
        ),
        Progress::Acts {
            resource, until, ..
        } => (
            format!("{}: {}", name(known, resource), progress(reasoned, known)),
            "that is done; or its time is over, and it is broken off".to_string(),
            Some(until),
        ),
        Progress::Looks => (
            "a look at the resources".to_string(),
            "each was looked at".to_string(),
            None,
        ),
        Progress::Done | Progress::Stuck => return None,
    };
    Some(Waits {
        what,
        ends,
        in_ms: until.map(|until| ago_ms(until, now)),
    })
}

/// The row of the table of services.
fn ground(now: Instant, (ground, since): (Ground, Instant)) -> Input {
    let row = SERVICES.iter().position(|(row, _)| *row == ground);
    let row = row.map_or(0, |row| row + 1);
    let verdict = match controlplane_core::self_fencing::services(ground) {
        Verdict::GoOn => "they may run",
        Verdict::StopHard => "they stop, hard and at once",
    };
    let time = span(now.since(since));
    let text = format!("{ground}: {verdict}; for {time} (row {row} of the services' table)");
    input("ground", row, text)
}
