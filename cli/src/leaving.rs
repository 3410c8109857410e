//! What of a group is on this node, for a machine that shall go down: worked out from the status alone.

use std::time::{Duration, Instant};

use controlplane_api::cluster::{
    ClusterStatus, DaemonState, Group, Presence, ResourcesState, Volume, Want, Wish, WishOrigin,
};
use mirror_core::admin::Role;

use crate::waiting::{Progress, may_run, overruled, served_by, stops_at, stuck};

/// The other node learns a wish within half a second, if its control plane lives and knows of such wishes.
const UNTOLD_MAX: Duration = Duration::from_secs(3);

/// What of a group is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// It runs here.
    Runs,
    /// It shall not run here, and something of it still may.
    Ends,
    /// It is on its way to this node.
    Comes,
    /// A volume's daemon does not say who serves it; no resource of the group runs here.
    Silent,
    /// The same, and the group has no resources: whoever uses its volumes is not known.
    Unknown,
}

/// `None`: nothing of it is here.
pub(crate) fn here(group: &Group, status: &ClusterStatus) -> Option<Here> {
    let served = is_served_here(group);
    let runs = group.resources.as_ref().is_some_and(may_run);
    let silent = served_by(group).is_none() && is_silent(group);
    let wish = group.wish.as_ref();
    let want = wish.map_or(Want::Runs, |wish| wish.want);
    if want == Want::Stopped && (runs || served) {
        return Some(Here::Ends);
    }
    if served || runs && silent {
        return Some(Here::Runs);
    }
    if runs {
        return Some(Here::Ends);
    }
    // Of a giver that died nothing comes: what is taken over is seen when it is.
    let to_here = wish.is_some_and(|wish| wish.node.as_ref() == Some(&status.node));
    if want == Want::Moves && to_here && status.peer.presence == Presence::Alive {
        return Some(Here::Comes);
    }
    silent.then_some(if group.resources.is_some() {
        Here::Silent
    } else {
        Here::Unknown
    })
}

/// Whether a move of it from here came to nothing when the volumes were given up: this node begins with it as soon as it may.
pub(crate) fn went_back(group: &Group, status: &ClusterStatus) -> bool {
    let back =
        |wish: &Wish| wish.origin == WishOrigin::InVain && wish.node.as_ref() == Some(&status.node);
    served_by(group).is_none() && group.wish.as_ref().is_some_and(back)
}

fn roles(group: &Group) -> impl Iterator<Item = Role> {
    let volumes = group.volumes.iter();
    volumes.filter_map(|volume| Some(volume.status.as_ref()?.role))
}

/// Or on its way to that, or from it.
fn is_served_here(group: &Group) -> bool {
    roles(group).any(|role| role != Role::Fenced)
}

/// Whether a volume's daemon does not say who serves it, although it should run.
fn is_silent(group: &Group) -> bool {
    let ended = |volume: &Volume| {
        volume.daemon.as_ref().is_some_and(|daemon| {
            matches!(daemon.state, DaemonState::Stopped | DaemonState::NotMade)
        })
    };
    let mut volumes = group.volumes.iter();
    volumes.any(|volume| volume.status.is_none() && !ended(volume))
}

/// Whether that will be known in a moment: a daemon is being started, or a volume changes.
pub(crate) fn is_unsettled(group: &Group) -> bool {
    is_silent(group) || roles(group).any(|role| !matches!(role, Role::Active | Role::Fenced))
}

/// A stopped group that shall leave nothing running on this node before the machine goes down.
///
/// A node that does not know of the stop would begin with volumes that are given up: they are in use until the end then, and
/// idle. Whether that node's machine is on, or its mirror link up, changes nothing: what it has to be is told.
pub(crate) struct Resting {
    group: String,
    idle_since: Option<Instant>,
}

impl Resting {
    pub(crate) fn new(group: &str) -> Self {
        Self {
            group: group.to_string(),
            idle_since: None,
        }
    }

    /// How far it is.
    pub(crate) fn look(&mut self, now: Instant, status: &ClusterStatus) -> Progress {
        let (name, node) = (&self.group, &status.node);
        let gone = Progress::Done(format!("{name}: nothing of it is left on {node}"));
        let Some(group) = status.groups.iter().find(|group| group.name == *name) else {
            return gone;
        };
        let runs = group.resources.as_ref().filter(|it| may_run(it));
        let served = is_served_here(group);
        match (&group.wish, runs) {
            (_, None) if !served => return gone,
            (_, Some(resources)) if resources.state == ResourcesState::StopFailed => {
                return Progress::Failed(stuck(name, node, resources));
            }
            (Some(wish), _) if served && wish.want != Want::Stopped => {
                return Progress::Failed(overruled(name, wish));
            }
            (_, Some(resources)) => {
                self.idle_since = None;
                return Progress::Going(format!("{node}: {}", resources.text));
            }
            (_, None) => {}
        }
        let text = stops_at(group, status).unwrap_or_else(|| format!("{node} serves its volumes"));
        if status.agreed {
            self.idle_since = None;
            return Progress::Going(text);
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.duration_since(since) < UNTOLD_MAX {
            return Progress::Going(text);
        }
        Progress::Done(format!("{name}: nothing of it runs on {node}; {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{good, group, wish};
    use controlplane_api::cluster::{Daemon, Resources};

    fn resources(state: ResourcesState) -> Option<Resources> {
        let text = "so".to_string();
        Some(Resources { state, text })
    }

    fn one(group: Group) -> ClusterStatus {
        let mut status = good();
        status.groups.push(group);
        status
    }

    #[test]
    fn what_is_served_here_or_comes_or_ends_is_here_and_nothing_else() {
        use ResourcesState::{Offline, Online, Stopping};
        let moves = |to: &str| {
            let mut wish = wish(5, Want::Moves, WishOrigin::Operator);
            wish.node = Some(to.to_string());
            Some(wish)
        };
        let mut back = wish(5, Want::Runs, WishOrigin::InVain);
        back.node = Some("node1".to_string());
        let stopped = || Some(wish(5, Want::Stopped, WishOrigin::Together));
        let cases = [
            (Some("node1"), None, Some(Online), Some(Here::Runs)),
            (Some("node2"), None, Some(Offline), None),
            (None, None, None, None),
            (None, moves("node1"), Some(Offline), Some(Here::Comes)),
            (
                Some("node2"),
                moves("node1"),
                Some(Offline),
                Some(Here::Comes),
            ),
            (Some("node1"), moves("node1"), None, Some(Here::Runs)),
            (None, moves("node2"), Some(Offline), None),
            (None, moves("node2"), Some(Stopping), Some(Here::Ends)),
            (None, Some(back.clone()), Some(Offline), None),
            (Some("node1"), stopped(), None, Some(Here::Ends)),
            (None, stopped(), Some(Stopping), Some(Here::Ends)),
            (None, stopped(), Some(Offline), None),
        ];
        for (serves, wish, state, expected) in cases {
            let mut group = group(serves);
            group.resources = state.and_then(resources);
            group.wish = wish;
            let found = here(&group, &one(group.clone()));
            assert_eq!(found, expected, "{serves:?} {:?} {state:?}", group.wish);
            let is_back = group.wish.as_ref() == Some(&back);
            assert_eq!(went_back(&group, &one(group.clone())), is_back);
        }
    }

    #[test]
    fn nothing_comes_from_a_node_that_died_in_the_middle_of_a_move() {
        let mut group = group(None);
        let mut moves = wish(5, Want::Moves, WishOrigin::Operator);
        moves.node = Some("node1".to_string());
        group.wish = Some(moves);
        let mut status = one(group.clone());
        assert_eq!(here(&group, &status), Some(Here::Comes));
        status.peer.presence = Presence::Dead;
        assert_eq!(here(&group, &status), None);
    }

    /// It may run on the other node, so nobody may stop it there for the sake of this machine.
    #[test]
    fn a_silent_daemon_is_not_a_group_that_runs_here() {
        let mut group = group(Some("node2"));
        group.volumes[0].status = None;
        let found = |group: &Group| here(group, &one(group.clone()));
        assert_eq!(found(&group), Some(Here::Unknown));
        group.resources = resources(ResourcesState::Offline);
        assert_eq!(found(&group), Some(Here::Silent));
        group.resources = resources(ResourcesState::Online);
        assert_eq!(found(&group), Some(Here::Runs));
        group.resources = None;
        group.volumes[0].daemon = Some(Daemon {
            state: DaemonState::Stopped,
            text: String::new(),
            code: None,
            restarts: 0,
        });
        assert_eq!(found(&group), None, "an operator stopped it");
    }

    /// Whether the other machine is heard on the mirror link does not count: its control plane has to know.
    #[test]
    fn a_machine_goes_down_beside_a_deaf_control_plane_when_nothing_runs_on_it() {
        let mut group = group(Some("node1"));
        group.wish = Some(wish(5, Want::Stopped, WishOrigin::Operator));
        let mut status = one(group);
        let began = Instant::now();
        let mut resting = Resting::new("pg");
        let mut over = |seconds: u64, status: &ClusterStatus| match resting
            .look(began + Duration::from_secs(seconds), status)
        {
            Progress::Going(_) => false,
            Progress::Done(_) => true,
            Progress::Failed(problem) => panic!("{problem:?}"),
        };
        assert!(!over(0, &status) && !over(60, &status), "both know it");
        status.agreed = false;
        status.groups[0].resources = resources(ResourcesState::Stopping);
        assert!(!over(61, &status) && !over(70, &status), "not idle");
        status.groups[0].resources = resources(ResourcesState::Offline);
        assert_eq!(status.peer.presence, Presence::Alive);
        assert!(!over(71, &status), "the other node may learn it");
        assert!(over(74, &status));
        status.groups[0].volumes[0].status = None;
        assert!(over(75, &status), "nothing is here");
    }

    #[test]
    fn what_does_not_stop_or_is_started_again_ends_the_wait() {
        let code = |group: Group| match Resting::new("pg").look(Instant::now(), &one(group)) {
            Progress::Failed(problem) => problem.code,
            other @ (Progress::Done(_) | Progress::Going(_)) => panic!("{other:?}"),
        };
        let mut stops = group(Some("node1"));
        stops.wish = Some(wish(5, Want::Stopped, WishOrigin::Operator));
        stops.resources = resources(ResourcesState::StopFailed);
        assert_eq!(code(stops), "LS6094");
        let mut runs = group(Some("node1"));
        runs.wish = Some(wish(7, Want::Runs, WishOrigin::Operator));
        assert_eq!(code(runs), "LS6093");
    }
}
