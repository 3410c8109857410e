//! `lockstep node ...`: what operators wish of a node.

use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane_api::cluster;
use controlplane_api::verbs::Asked;
use mirror_core::admin::Role;

use crate::args::{Group, Node, Patience};
use crate::cmd::group::{self, answer, escaped, said, unknown};
use crate::cmd::power::{self, How};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{cluster_status, tell};
use crate::waiting::served_by;

/// So long a volume's daemon may say nothing.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn run(command: Node) -> Result<u8, Failure> {
    let (name, word, json) = match command {
        Node::Suspend { name, json } => (name, "suspend", json),
        Node::Resume { name, json } => (name, "resume", json),
        Node::Leave { timeout } => return Ok(leave(&what_runs()?, timeout).worst),
        Node::Shutdown(wanted) => return power::run(How::Off, &wanted),
        Node::Reboot(wanted) => return power::run(How::Again, &wanted),
    };
    let form = Form::from(json);
    let path = |name: &str| format!("/v1/nodes/{}/{word}", escaped(name));
    let asked = Asked::default();
    let told = match name {
        Some(name) => tell(&path(&name), &asked),
        // This one.
        None => cluster_status().and_then(|status| tell(&path(&status.node), &asked)),
    };
    Ok(match said(told, form)? {
        Ok(said) => answer(&said, form),
        Err(code) => code,
    })
}

/// A daemon that is being started says nothing for a moment; "nothing runs here" is said of what is known.
pub(super) fn what_runs() -> Result<cluster::ClusterStatus, Failure> {
    let began = Instant::now();
    loop {
        let status = cluster_status().map_err(|error| unknown(&error))?;
        if !status.groups.iter().any(is_unknown) || began.elapsed() >= UNKNOWN_LIMIT {
            return Ok(status);
        }
        sleep(LOOK_INTERVAL);
    }
}

pub(super) fn is_unknown(group: &cluster::Group) -> bool {
    let role = |volume: &cluster::Volume| volume.status.as_ref().map(|status| status.role);
    let settled = |role| matches!(role, Some(Role::Active | Role::Fenced));
    !group.volumes.iter().map(role).all(settled)
}

/// What came of leaving.
pub(super) struct Left {
    /// The groups that did not leave, or of which nobody can tell.
    pub(super) here: Vec<String>,
    /// The worst exit code.
    pub(super) worst: u8,
}

/// Each group that this node serves is moved; one that cannot be does not keep the others here.
pub(super) fn leave(status: &cluster::ClusterStatus, timeout: u64) -> Left {
    let served = |group: &&cluster::Group| served_by(group) == Some(status.node.as_str());
    let mut left = Left {
        here: Vec::new(),
        worst: 0,
    };
    for group in status.groups.iter().filter(|group| is_unknown(group)) {
        eprintln!(
            "{}: a volume's daemon does not say who serves it",
            group.name
        );
        left.here.push(group.name.clone());
        left.worst = 3;
    }
    let mut groups = status.groups.iter().filter(served).peekable();
    if groups.peek().is_none() && left.worst == 0 {
        println!("no group runs on {}", status.node);
    }
    for group in groups {
        let patience = Patience {
            wait: true,
            timeout,
            json: false,
        };
        let moved = group::run(Group::Move {
            name: group.name.clone(),
            to: Some(status.peer.name.clone()),
            patience,
        });
        let code = moved.unwrap_or_else(|failure| {
            eprintln!("{}: {failure}", group.name);
            failure.exit_code
        });
        left.worst = left.worst.max(code);
        if code != 0 && !left.here.contains(&group.name) {
            left.here.push(group.name.clone());
        }
    }
    left
}
