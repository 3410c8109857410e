//! What this node tells of the cluster, in the words of the API.

use std::sync::atomic::Ordering;

use controlplane_api::cluster::{Arbiter, Clients, Path, PathState, Presence};
use controlplane_core::failure_detector;
use controlplane_core::keeper::ArbiterKind;
use controlplane_core::partition::Targets;
use mirror_core::types::NodeSet;

use crate::config::{Config, RegisterKeeper};
use crate::heartbeat::Shared;

/// Whether the peer is heard.
pub fn presence(presence: failure_detector::Presence) -> Presence {
    match presence {
        failure_detector::Presence::Unknown => Presence::Unknown,
        failure_detector::Presence::Alive => Presence::Alive,
        failure_detector::Presence::Deaf => Presence::Deaf,
        failure_detector::Presence::Dead => Presence::Dead,
    }
}

/// The last path.
const MIRROR_LINK: &str = "mirror link";

/// What a path is called: an interconnect by its addresses, or the mirror link.
pub fn path_name(config: &Config, path: usize) -> String {
    match config.interconnects.get(path) {
        Some(pair) => format!("{} - {}", pair.local, pair.peer),
        None => MIRROR_LINK.to_string(),
    }
}

/// The interconnects in their order, then the mirror link.
pub fn paths(config: &Config, shared: &Shared) -> Vec<Path> {
    let names = (0..=config.interconnects.len()).map(|path| path_name(config, path));
    let figures = shared.paths.iter();
    names
        .zip(figures)
        .map(|(name, figures)| {
            let trip = figures.round_trip_us.load(Ordering::Relaxed);
            let measured = name != MIRROR_LINK && trip > 0;
            Path {
                name,
                state: path_state(figures.state.load(Ordering::Relaxed)),
                round_trip_us: measured.then_some(trip),
                received: figures.received.load(Ordering::Relaxed),
                lost: figures.lost.load(Ordering::Relaxed),
                foreign: figures.foreign.load(Ordering::Relaxed),
            }
        })
        .collect()
}

/// A path's state, as [`crate::heartbeat::state_number`] counts them.
pub fn path_state(number: u8) -> PathState {
    match number {
        0 => PathState::New,
        1 => PathState::Up,
        2 => PathState::Late,
        3 => PathState::OneWay,
        _ => PathState::Down,
    }
}

/// Who decides, in a word.
pub fn arbiter_kind(config: &Config) -> &'static str {
    match config.arbiter {
        ArbiterKind::Register => match config.keeper {
            Some(RegisterKeeper::Etcd { .. }) => "etcd",
            Some(RegisterKeeper::Witness(_)) | None => "witness",
        },
        ArbiterKind::Ping => "ping",
        ArbiterKind::Manual => "manual",
        ArbiterKind::Nobody => "none",
    }
}

/// Who decides, and whether it answers.
pub fn arbiter(config: &Config, answers: Option<bool>, misses: NodeSet) -> Arbiter {
    let address = match &config.keeper {
        Some(RegisterKeeper::Witness(address)) => Some(address.clone()),
        Some(RegisterKeeper::Etcd { endpoints, .. }) => Some(all(endpoints)),
        None if config.arbiter == ArbiterKind::Ping => Some(all(&config.ping)),
        None => None,
    };
    Arbiter {
        kind: arbiter_kind(config).to_string(),
        address,
        answers,
        waits_for: match config.arbiter {
            ArbiterKind::Register => names(config, misses),
            ArbiterKind::Ping | ArbiterKind::Manual | ArbiterKind::Nobody => Vec::new(),
        },
    }
}

/// The clients' networks, if ping targets in them are configured.
pub fn clients(config: &Config, targets: Option<Targets>) -> Option<Clients> {
    targets.map(|targets| Clients {
        address: all(&config.clients),
        answers: targets == Targets::Answer,
    })
}

fn all(addresses: &[impl ToString]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

/// The names of some nodes.
pub fn names(config: &Config, nodes: NodeSet) -> Vec<String> {
    let both = [(config.me, &config.name), (config.peer, &config.peer_name)];
    let wanted = both.iter().filter(|(node, _)| nodes.contains(*node));
    wanted.map(|(_, name)| (*name).clone()).collect()
}
