//! What a node tells of itself and of what it sees.

use controlplane_api::cluster;
use controlplane_core::group::GroupState;
use controlplane_core::wish::{Origin, Want, Why, Wish};
use mirror_core::types::NodeId;

use super::targets::Purpose;
use super::{Group, Node, now};
use crate::report;

impl Node {
    pub(super) fn status(&self) -> cluster::ClusterStatus {
        let since = now().since(self.presence_since).as_millis();
        let nodes = [self.config.me, self.config.peer].into_iter();
        let suspended = nodes.filter(|node| self.wishes.is_suspended(*node));
        cluster::ClusterStatus {
            schema: cluster::SCHEMA.to_string(),
            version: Some(env!("CARGO_PKG_VERSION").to_string()),
            node: self.config.name.clone(),
            peer: cluster::Peer {
                name: self.config.peer_name.clone(),
                presence: report::presence(self.presence),
                since_ms: u64::try_from(since).unwrap_or(u64::MAX),
            },
            paths: report::paths(&self.config, &self.shared),
            arbiter: report::arbiter(&self.config, self.arbiter_state(), self.arbiter_misses),
            clients: report::clients(&self.config, self.targets_of(Purpose::Clients)),
            watchdog: self.fencing.status(),
            groups: (0..self.groups.len())
                .map(|group| self.group_status(group))
                .collect(),
            suspended_together: self.suspended_together(),
            suspended: suspended.map(|node| self.name_of(node)).collect(),
            agreed: self.agreed(),
            config: None,
            keys: None,
            trust: None,
            timeouts: Some(self.timeouts_status()),
        }
    }

    fn group_status(&self, number: usize) -> cluster::Group {
        let group = &self.groups[number];
        let volume = |name: &String| cluster::Volume {
            name: name.clone(),
            status: group.told.get(name).cloned(),
            daemon: group.daemons.get(name).cloned(),
        };
        let volumes = self.config.groups[number].volumes.iter();
        let resources = self.services.state(now(), number);
        cluster::Group {
            name: group.name.clone(),
            volumes: volumes.map(volume).collect(),
            decision: group
                .last
                .map(|(row, situation, decision)| cluster::Decision {
                    row: row + 1,
                    situation: format!("{situation:?}"),
                    decision: decision.to_string(),
                }),
            wish: self.wish_of(group).map(|wish| self.told_wish(wish)),
            resources: resources.map(|state| cluster::Resources {
                state: word(state),
                text: state.to_string(),
            }),
            failed_on: self.failed_on(number),
            after_failure: self.after_failure(number),
            monitors: self.monitors(number),
        }
    }

    fn wish_of(&self, group: &Group) -> Option<&Wish> {
        self.wishes.of(group.subject)
    }

    fn told_wish(&self, wish: &Wish) -> cluster::Wish {
        let (want, node) = match wish.want {
            Want::Stopped { home } => (cluster::Want::Stopped, home),
            Want::Moves { to } => (cluster::Want::Moves, Some(to)),
            Want::Runs { home } => (cluster::Want::Runs, home),
            Want::Forgotten | Want::Failed | Want::Mended | Want::Suspended | Want::Resumed => {
                (cluster::Want::Runs, None)
            }
        };
        let (origin, why) = match wish.origin {
            Origin::Operator => (cluster::WishOrigin::Operator, None),
            Origin::Node => (cluster::WishOrigin::Node, None),
            Origin::Together => (cluster::WishOrigin::Together, None),
            Origin::Arrived => (cluster::WishOrigin::Arrived, None),
            Origin::InVain(why) => (cluster::WishOrigin::InVain, Some(why)),
        };
        cluster::Wish {
            number: wish.number,
            by: self.name_of(wish.by),
            want,
            node: node.map(|node| self.name_of(node)),
            origin,
            why: why.map(|why| words(why).to_string()),
        }
    }

    pub(super) fn name_of(&self, node: NodeId) -> String {
        if node == self.config.me {
            self.config.name.clone()
        } else {
            self.config.peer_name.clone()
        }
    }
}

/// Why a move came to nothing.
pub(super) fn words(why: Why) -> &'static str {
    match why {
        Why::NotReady => "the other node was not there, or its copy did not count, for 10 s",
        Why::InUse => "something holds a volume that does not belong to the group",
        Why::StopFailed => "a resource did not stop",
        Why::NotBegun => "the other node did not begin within 10 s",
        Why::StartFailed => "it arrived, and its resources do not start there",
    }
}

fn word(state: GroupState) -> cluster::ResourcesState {
    match state {
        GroupState::Unknown => cluster::ResourcesState::Unknown,
        GroupState::Offline => cluster::ResourcesState::Offline,
        GroupState::Starting { .. } => cluster::ResourcesState::Starting,
        GroupState::Online => cluster::ResourcesState::Online,
        GroupState::Stopping => cluster::ResourcesState::Stopping,
        GroupState::StartFailed => cluster::ResourcesState::StartFailed,
        GroupState::StopFailed => cluster::ResourcesState::StopFailed,
        GroupState::Failed => cluster::ResourcesState::Failed,
    }
}
