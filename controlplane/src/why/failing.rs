//! What a group that failed here waits for.

use controlplane_api::why::Waits;
use controlplane_core::failing::{Case, Then};
use mirror_core::types::Instant;

use super::{Names, ago_ms};

/// In words. `until`: it does not move by itself after that.
pub fn after_failure(
    now: Instant,
    case: Case,
    then: Then,
    until: Instant,
    names: &Names<'_>,
) -> Option<Waits> {
    let Names {
        node, peer, group, ..
    } = names;
    let clear = format!("mend it, then `lockstep group clear {group}`");
    let ends = match case {
        Case::NotFailed | Case::Unserved | Case::Wished => return None,
        Case::Configured | Case::Spent | Case::Late => {
            format!("{clear}; or `lockstep group move {group}`")
        }
        Case::Alike => format!(
            "mend it, or `lockstep group prepare {group}` if a volume has no file system yet; then `lockstep group clear {group}`"
        ),
        Case::FailedThere => clear,
        Case::Unrecorded => format!("{node} can write its wishes to its disk; or {clear}"),
        Case::Silent => format!("{peer} and the mirror links are heard; or {clear}"),
        Case::Suspended => format!("`lockstep node resume {peer}`; or {clear}"),
        Case::NotCurrent => format!("{peer} has a copy that counts; or {clear}"),
        Case::Untold | Case::Ready => format!("{peer} knows it; or {clear}"),
    };
    let in_ms = match then {
        Then::Later => Some(ago_ms(until, now)),
        Then::Nothing | Then::Stays | Then::Moves => None,
    };
    let ends = match then {
        Then::Later => format!("{ends}; after this time it does not move by itself"),
        Then::Nothing | Then::Stays | Then::Moves => ends,
    };
    Some(Waits {
        what: format!("it failed on {node}: {then}: {case}"),
        ends,
        in_ms,
    })
}

/// What a monitor that failed waits for, while the group runs. In words.
pub fn after_monitor(case: Case, monitor: &str, names: &Names<'_>) -> Option<Waits> {
    let Names {
        node, peer, group, ..
    } = names;
    let ends = match case {
        Case::NotFailed | Case::Unserved | Case::Wished | Case::Ready => return None,
        Case::Configured | Case::Spent | Case::Late | Case::Alike => {
            format!("`lockstep group move {group}`")
        }
        Case::FailedThere => format!("mend {peer}, then `lockstep group clear {group}`"),
        Case::Unrecorded => format!("{node} can write its wishes to its disk"),
        Case::Silent => format!("{peer} and the mirror links are heard"),
        Case::Suspended => format!("`lockstep node resume {peer}`"),
        Case::NotCurrent => format!("{peer} has a copy that counts"),
        Case::Untold => format!("{peer} knows it"),
    };
    Some(Waits {
        what: format!("monitor {monitor} failed on {node}, and {group} runs on there: {case}"),
        ends: format!("mend what the monitor names; or {ends}"),
        in_ms: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::failing::FAILED;

    #[test]
    fn what_a_failed_group_waits_for_is_told_with_what_ends_it() {
        let names = Names {
            node: "node1",
            peer: "node2",
            group: "pg",
            arbiter: "witness",
            clients: false,
        };
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        for (case, then) in FAILED {
            let told = after_failure(at(10), case, then, at(70), &names);
            let Some(waits) = told else {
                assert_eq!(then, Then::Nothing, "{case}");
                continue;
            };
            assert!(waits.what.contains(&case.to_string()), "{waits:?}");
            let bounded = waits.in_ms == Some(60_000);
            assert_eq!(bounded, then == Then::Later, "{waits:?}");
            let clears = waits.ends.contains("`lockstep group clear pg`");
            assert!(clears || then == Then::Moves, "{waits:?}");
            let told = after_monitor(case, "query", &names);
            assert_eq!(told.is_some(), then != Then::Moves, "{case}");
            let what = told.map(|waits| waits.what).unwrap_or_default();
            let begins = "monitor query failed on node1, and pg runs on there: ";
            assert!(what.is_empty() || what.starts_with(begins), "{what}");
        }
    }
}
