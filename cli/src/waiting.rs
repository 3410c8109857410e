//! How far a group is on its way to what was wished: worked out from the status alone.

use controlplane_api::cluster::{
    ClusterStatus, Group, Presence, Resources, ResourcesState, Want, Wish, WishOrigin,
};
use controlplane_api::verbs::GroupVerb;
use mirror_core::admin::{LinkState, Problem, Role};

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) group: String,
    pub(crate) verb: GroupVerb,
    /// The wish's number, and the node on which it was said.
    pub(crate) number: u64,
    pub(crate) by: String,
    /// Of a move and a start: where.
    pub(crate) node: Option<String>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is as it shall be.
    Done(String),
    /// It is not yet.
    Going(String),
    /// It will not be.
    Failed(Problem),
}

/// The node that serves a group, as far as this one sees.
pub(crate) fn served_by(group: &Group) -> Option<&str> {
    let statuses = || {
        let volumes = group.volumes.iter();
        volumes.filter_map(|volume| volume.status.as_deref())
    };
    if let Some(own) = statuses().find(|status| status.role == Role::Active) {
        return Some(&own.node);
    }
    let serves = statuses().find(|status| {
        status.link.state == LinkState::Up && status.view.active.as_ref() == Some(&status.peer)
    });
    serves.map(|status| status.peer.as_str())
}

/// Whether the resources wait for an operator on this node.
pub(crate) fn has_failed(resources: &Resources) -> bool {
    matches!(
        resources.state,
        ResourcesState::StartFailed | ResourcesState::StopFailed | ResourcesState::Failed
    )
}

/// Whether something of the resources may run on this node.
pub(crate) fn may_run(resources: &Resources) -> bool {
    match resources.state {
        ResourcesState::Unknown
        | ResourcesState::Starting
        | ResourcesState::Online
        | ResourcesState::Stopping
        | ResourcesState::StopFailed => true,
        ResourcesState::Offline | ResourcesState::StartFailed | ResourcesState::Failed => false,
    }
}

/// How far it is.
pub(crate) fn progress(wait: &Wait, status: &ClusterStatus) -> Progress {
    let name = &wait.group;
    let named = |group: &&Group| group.name == *name;
    let Some(group) = status.groups.iter().find(named) else {
        return Progress::Failed(problem(
            "LS6080",
            format!("there is no group {name} in this cluster any more"),
            "see /etc/lockstep/cluster.toml",
        ));
    };
    match (wait.verb, &group.wish) {
        (GroupVerb::Clear, _) => Progress::Done(format!("{name} is cleared")),
        (_, None) => Progress::Going("the wish is not known here any more".to_string()),
        (GroupVerb::Move, Some(wish)) => of_move(wait, wish, group, status),
        (GroupVerb::Stop, Some(wish)) => of_stop(wait, wish, group, status),
        (GroupVerb::Start, Some(wish)) => of_start(wait, wish, group, status),
    }
}

/// How far several groups are: going on as long as one is, so that none is given up for another one.
pub(crate) fn progress_of_all(waits: &[Wait], status: &ClusterStatus) -> Progress {
    let (mut done, mut going) = (Vec::new(), Vec::new());
    let mut failed = Vec::new();
    for wait in waits {
        match progress(wait, status) {
            Progress::Done(text) => done.push(text),
            Progress::Going(text) => going.push(format!("{}: {text}", wait.group)),
            Progress::Failed(problem) => failed.push(problem),
        }
    }
    if !going.is_empty() {
        return Progress::Going(going.join("; "));
    }
    let mut failed = failed.into_iter();
    let Some(mut first) = failed.next() else {
        return Progress::Done(done.join("; "));
    };
    for problem in failed {
        first.message += &format!("; {}", problem.message);
    }
    Progress::Failed(first)
}

/// How far both nodes are on their way to being suspended, or to being so no more.
pub(crate) fn progress_of_nodes(
    nodes: &[String],
    suspended: bool,
    status: &ClusterStatus,
) -> Progress {
    let other = |node: &&String| status.suspended.contains(node) != suspended;
    if let Some(node) = nodes.iter().find(other) {
        let by = "somebody wished something else of";
        return Progress::Failed(problem(
            "LS6093",
            format!("{by} {node}"),
            "`lockstep status` says what; talk to each other",
        ));
    }
    if status.agreed {
        return Progress::Done("both nodes know it".to_string());
    }
    let peer = &status.peer;
    Progress::Going(match peer.presence {
        Presence::Alive => format!("{} is being told", peer.name),
        Presence::Unknown | Presence::Deaf | Presence::Dead => {
            format!("{} is not heard, and does not know it yet", peer.name)
        }
    })
}

/// Whether this is what is waited for, or what came of it.
fn is_waited_for(wait: &Wait, wish: &Wish) -> bool {
    wish.number == wait.number && wish.by == wait.by
}

fn of_move(wait: &Wait, wish: &Wish, group: &Group, status: &ClusterStatus) -> Progress {
    let name = &wait.group;
    let place = wait.node.as_deref().unwrap_or("the other node");
    if !is_waited_for(wait, wish) {
        return Progress::Failed(match failed_there(wait, group) {
            Some(problem) if wish.want != Want::Stopped => problem,
            Some(_) | None => overruled(name, wish),
        });
    }
    if wish.origin == WishOrigin::Operator {
        // Back before it left: there is nothing to wait for.
        if wish.want != Want::Moves {
            return Progress::Done(format!("{name} stays on {place}"));
        }
        return Progress::Going(match served_by(group) {
            Some(node) if node == place => match &group.resources {
                Some(resources) if node == status.node => {
                    format!("{place} serves it, its resources: {}", resources.text)
                }
                _ => format!("{place} serves it, its resources start"),
            },
            Some(_) if !status.agreed => "the other node is being told".to_string(),
            Some(node) => match &group.resources {
                Some(resources) if node == status.node => {
                    format!("{node} gives it away, its resources: {}", resources.text)
                }
                _ => format!("{node} gives it away"),
            },
            None => format!("its volumes are handed over to {place}"),
        });
    }
    match wish.origin {
        WishOrigin::Arrived => Progress::Done(format!("{name} runs on {place}")),
        WishOrigin::InVain => {
            let why = wish.why.as_deref().unwrap_or("nobody knows why");
            Progress::Failed(problem(
                "LS6089",
                format!("the move of {name} to {place} came to nothing: {why}"),
                "`lockstep status` says who serves it; the log of lockstepd on both nodes says more",
            ))
        }
        WishOrigin::Operator | WishOrigin::Together | WishOrigin::Node => {
            Progress::Failed(overruled(name, wish))
        }
    }
}

fn of_stop(wait: &Wait, wish: &Wish, group: &Group, status: &ClusterStatus) -> Progress {
    let name = &wait.group;
    if !is_waited_for(wait, wish) && wish.want != Want::Stopped {
        return Progress::Failed(overruled(name, wish));
    }
    let node = &status.node;
    match &group.resources {
        Some(resources) if resources.state == ResourcesState::StopFailed => {
            Progress::Failed(stuck(name, node, resources))
        }
        Some(resources) if may_run(resources) => {
            Progress::Going(format!("{node}: {}", resources.text))
        }
        Some(_) | None => match stops_at(group, status) {
            None => Progress::Done(format!("{name} is stopped")),
            Some(text) => Progress::Going(text),
        },
    }
}

/// What shows that a group's volumes are not stopped, or that this node cannot tell; `None` if they are.
pub(crate) fn stops_at(group: &Group, status: &ClusterStatus) -> Option<String> {
    let (node, peer) = (&status.node, &status.peer.name);
    for volume in &group.volumes {
        let name = &volume.name;
        let Some(told) = &volume.status else {
            return Some(format!(
                "the daemon of volume {name} does not answer on {node}"
            ));
        };
        if told.role != Role::Fenced {
            return Some(if status.agreed {
                format!("{node} serves its volumes")
            } else {
                format!("{node} serves its volumes until {peer} knows that it is stopped")
            });
        }
        if told.link.state == LinkState::Up && told.view.active.is_some() {
            return Some(format!("{peer} serves its volumes"));
        }
        // A peer whose copy counts may serve without being seen here.
        let alone = told.view.insync.iter().all(|name| name == node);
        if told.link.state != LinkState::Up && !alone {
            return Some(format!(
                "the mirror link of volume {name} is down, and {node} cannot see whether {peer} serves it"
            ));
        }
    }
    None
}

fn of_start(wait: &Wait, wish: &Wish, group: &Group, status: &ClusterStatus) -> Progress {
    let name = &wait.group;
    if !is_waited_for(wait, wish) && wish.want == Want::Stopped {
        return Progress::Failed(overruled(name, wish));
    }
    let resources = group.resources.as_ref();
    if let Some(problem) = failed_there(wait, group) {
        return Progress::Failed(problem);
    }
    match served_by(group) {
        None => {
            let decision = group.decision.as_ref();
            let waits = decision.map_or("nobody serves it", |decision| &decision.decision);
            Progress::Going(format!("{}: {waits}", status.node))
        }
        Some(node) if node == status.node => match resources {
            Some(resources) if has_failed(resources) => {
                Progress::Failed(stuck(name, node, resources))
            }
            Some(resources) if resources.state != ResourcesState::Online => {
                Progress::Going(format!("{node}: {}", resources.text))
            }
            Some(_) | None => Progress::Done(format!("{name} runs on {node}")),
        },
        Some(node) if resources.is_none() => Progress::Done(format!("{name} runs on {node}")),
        Some(node) => Progress::Done(format!(
            "{node} serves {name}; `lockstep status` there tells how its resources start"
        )),
    }
}

pub(crate) fn stuck(name: &str, node: &str, resources: &Resources) -> Problem {
    problem(
        "LS6094",
        format!("the resources of {name} on {node}: {}", resources.text),
        &format!("the log of lockstepd says why; mend it, then `lockstep group clear {name}`"),
    )
}

/// That it failed where it should run, and another node has it.
fn failed_there(wait: &Wait, group: &Group) -> Option<Problem> {
    let (name, place) = (&wait.group, wait.node.as_deref()?);
    let failed = group.failed_on.iter().any(|node| node == place);
    let elsewhere = served_by(group) != Some(place);
    (failed && elsewhere).then(|| {
        problem(
            "LS6240",
            format!("{name} failed on {place}, and moved on by itself"),
            &format!(
                "the log of lockstepd on {place} says why; mend it, then `lockstep group clear {name}`, and repeat the command"
            ),
        )
    })
}

pub(crate) fn overruled(name: &str, wish: &Wish) -> Problem {
    problem(
        "LS6093",
        format!("somebody wished something else of {name} on {}", wish.by),
        "`lockstep status` says what; talk to each other",
    )
}

fn problem(code: &str, message: String, advice: &str) -> Problem {
    Problem {
        code: code.to_string(),
        message,
        advice: advice.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{good, group, wish};

    fn wait(verb: GroupVerb) -> Wait {
        Wait {
            group: "pg".to_string(),
            verb,
            number: 5,
            by: "node1".to_string(),
            node: Some("node2".to_string()),
        }
    }

    fn status(serves: Option<&str>, wish: Wish) -> ClusterStatus {
        let mut status = good();
        let mut group = group(serves);
        group.wish = Some(wish);
        status.groups.push(group);
        status
    }

    #[test]
    fn a_move_is_told_until_it_has_arrived() {
        let wait = wait(GroupVerb::Move);
        let moves = wish(5, Want::Moves, WishOrigin::Operator);
        let texts = [
            (Some("node1"), "node1 gives it away"),
            (None, "its volumes are handed over to node2"),
            (Some("node2"), "node2 serves it, its resources start"),
        ];
        for (serves, expected) in texts {
            let going = progress(&wait, &status(serves, moves.clone()));
            assert_eq!(going, Progress::Going(expected.to_string()));
        }
        let arrived = wish(5, Want::Runs, WishOrigin::Arrived);
        let done = progress(&wait, &status(Some("node2"), arrived));
        assert_eq!(done, Progress::Done("pg runs on node2".to_string()));
    }

    #[test]
    fn what_comes_to_nothing_has_a_code_and_a_reason() {
        let mut vain = wish(5, Want::Runs, WishOrigin::InVain);
        vain.why = Some("the disk is green".to_string());
        let later = wish(7, Want::Stopped, WishOrigin::Operator);
        let cases = [
            (GroupVerb::Move, vain, "LS6089"),
            (GroupVerb::Move, later.clone(), "LS6093"),
            (GroupVerb::Start, later, "LS6093"),
        ];
        for (verb, wish, code) in cases {
            let Progress::Failed(problem) = progress(&wait(verb), &status(Some("node1"), wish))
            else {
                panic!("not failed")
            };
            assert_eq!(problem.code, code);
        }
    }

    /// It started where it was wished, failed there, and went on: nobody wished something else.
    #[test]
    fn what_failed_where_it_should_run_and_moved_on_is_told_so() {
        let back = wish(6, Want::Runs, WishOrigin::Arrived);
        for verb in [GroupVerb::Move, GroupVerb::Start] {
            let mut status = status(Some("node1"), back.clone());
            status.groups[0].failed_on = vec!["node2".to_string()];
            let Progress::Failed(problem) = progress(&wait(verb), &status) else {
                panic!("not failed")
            };
            assert_eq!(problem.code, "LS6240");
        }
    }

    #[test]
    fn a_stop_is_over_when_nobody_can_serve_and_a_start_when_all_runs() {
        let stop = wait(GroupVerb::Stop);
        let stopped = wish(5, Want::Stopped, WishOrigin::Operator);
        let going = |status: &ClusterStatus| match progress(&stop, status) {
            Progress::Going(text) => text,
            other @ (Progress::Done(_) | Progress::Failed(_)) => panic!("{other:?}"),
        };
        let serves = status(Some("node1"), stopped.clone());
        assert_eq!(going(&serves), "node1 serves its volumes");
        let mut serves = status(Some("node2"), stopped.clone());
        assert_eq!(going(&serves), "node2 serves its volumes");
        // Who serves is not seen any more.
        let told = |status: &mut ClusterStatus| {
            let volume = &mut status.groups[0].volumes[0];
            volume.status.take().expect("a status")
        };
        let mut unseen = told(&mut serves);
        assert!(going(&serves).contains("does not answer"));
        unseen.link.state = LinkState::Down;
        serves.groups[0].volumes[0].status = Some(unseen.clone());
        assert!(going(&serves).contains("cannot see"));
        unseen.view.insync = vec!["node1".to_string()];
        unseen.view.active = None;
        serves.groups[0].volumes[0].status = Some(unseen);
        let done = Progress::Done("pg is stopped".to_string());
        assert_eq!(progress(&stop, &serves), done);
        let mut ends = status(None, stopped);
        assert_eq!(progress(&stop, &ends), done);
        for (state, ended) in [
            (ResourcesState::Stopping, None),
            (ResourcesState::StopFailed, Some(false)),
            (ResourcesState::StartFailed, Some(true)),
            (ResourcesState::Offline, Some(true)),
        ] {
            let text = "so".to_string();
            ends.groups[0].resources = Some(Resources { state, text });
            let found = match progress(&stop, &ends) {
                Progress::Going(_) => None,
                Progress::Done(_) => Some(true),
                Progress::Failed(_) => Some(false),
            };
            assert_eq!(found, ended, "{state:?}");
        }
        let start = wait(GroupVerb::Start);
        let runs = wish(5, Want::Runs, WishOrigin::Operator);
        let mut here = status(Some("node1"), runs);
        let done = Progress::Done("pg runs on node1".to_string());
        assert_eq!(progress(&start, &here), done);
        let mut resources = Resources {
            state: ResourcesState::Starting,
            text: "starting (1 of 2)".to_string(),
        };
        here.groups[0].resources = Some(resources.clone());
        let going = progress(&start, &here);
        assert_eq!(
            going,
            Progress::Going("node1: starting (1 of 2)".to_string())
        );
        resources.state = ResourcesState::StartFailed;
        here.groups[0].resources = Some(resources);
        assert!(matches!(progress(&start, &here), Progress::Failed(_)));
    }
}
