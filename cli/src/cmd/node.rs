//! `lockstep node ...`: what operators wish of a node.

use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane_api::cluster::{self, ClusterStatus};
use controlplane_api::verbs::Asked;

use crate::args::{Group, Node, Patience};
use crate::cmd::group::{self, answer, escaped, said, unknown, until};
use crate::cmd::power::{self, How};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{cluster_status, tell};
use crate::leaving::{Here, Resting, here, is_unsettled, went_back};
use crate::verdict::Health;
use crate::waiting::Progress;

/// So long a volume's daemon may say nothing.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// So often this node is looked at again, as long as something comes to it while other groups leave.
pub(super) const ROUNDS_MAX: usize = 10;

pub(crate) fn run(command: Node) -> Result<u8, Failure> {
    let (name, word, json) = match command {
        Node::Suspend { name, json } => (name, "suspend", json),
        Node::Resume { name, json } => (name, "resume", json),
        Node::Leave { timeout } => return Ok(leave(timeout, &mut Vec::new(), &[])?.worst),
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
/// `silent`: these were waited for already; those that were waited for in vain come to it.
pub(super) fn what_runs(silent: &mut Vec<String>) -> Result<ClusterStatus, Failure> {
    let began = Instant::now();
    loop {
        let status = cluster_status().map_err(|error| unknown(&error))?;
        let unsettled = status.groups.iter().filter(|group| is_unsettled(group));
        let names = unsettled.map(|group| &group.name);
        let new: Vec<String> = names
            .filter(|name| !silent.contains(name))
            .cloned()
            .collect();
        if new.is_empty() || began.elapsed() >= UNKNOWN_LIMIT {
            silent.extend(new);
            return Ok(status);
        }
        sleep(LOOK_INTERVAL);
    }
}

/// What came of leaving.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The groups that did not leave or not arrive, or of which nobody can tell.
    pub(super) stay: Vec<String>,
    /// The worst exit code.
    pub(super) worst: u8,
    /// Something was moved, or came: it may be otherwise now.
    pub(super) changed: bool,
}

impl Left {
    fn stays(&mut self, group: &str, code: u8) {
        self.stay.push(group.to_string());
        self.worst = self.worst.max(code);
    }
}

/// Each group that is here leaves, and those that come meanwhile. `given_up`: of these is not asked
/// again who serves them, and whether they come.
pub(super) fn leave(
    timeout: u64,
    silent: &mut Vec<String>,
    given_up: &[String],
) -> Result<Left, Failure> {
    let mut left = Left::default();
    for _ in 0..ROUNDS_MAX {
        left = leave_once(&what_runs(silent)?, timeout, given_up);
        // What was so at the beginning of a move of some minutes says nothing of its end.
        if !left.changed || !left.stay.is_empty() {
            return Ok(left);
        }
    }
    eprintln!("groups come to this node again and again");
    left.worst = 1;
    Ok(left)
}

/// Each group that this node serves is moved; one that cannot be does not keep the others here. What is stopped ends.
fn leave_once(status: &ClusterStatus, timeout: u64, given_up: &[String]) -> Left {
    let mut left = Left::default();
    let mut any = false;
    for group in &status.groups {
        let name = &group.name;
        let in_vain =
            |here: &Here| matches!(here, Here::Comes | Here::Unknown) && given_up.contains(name);
        let Some(here) = here(group, status).filter(|here| !in_vain(here)) else {
            continue;
        };
        any = true;
        let done = match here {
            Here::Runs => moves(name, status, timeout),
            Here::Ends => rests(name, timeout).map(|()| 0),
            Here::Comes => arrives(name, timeout).map(|()| 0),
            Here::Silent => {
                eprintln!("{name}: a volume's daemon does not answer; nothing of it runs here");
                continue;
            }
            Here::Unknown => {
                eprintln!("{name}: a volume's daemon does not say who serves it");
                Ok(Health::Unknown.exit_code())
            }
        };
        left.changed |= matches!(here, Here::Runs | Here::Comes);
        let code = done.unwrap_or_else(|failure| {
            eprintln!("{name}: {failure}");
            failure.exit_code
        });
        if code != 0 {
            left.stays(name, code);
            if waits_for_resume(name) {
                return left;
            }
        }
    }
    if !any {
        println!("no group runs on {}", status.node);
    }
    left
}

/// It went back in the middle of its move, and nobody begins with it as long as this node is suspended.
fn waits_for_resume(name: &str) -> bool {
    cluster_status().is_ok_and(|status| {
        let waits = |group: &cluster::Group| group.name == *name && went_back(group, &status);
        status.suspended.contains(&status.node) && status.groups.iter().any(waits)
    })
}

fn moves(name: &str, status: &ClusterStatus, timeout: u64) -> Result<u8, Failure> {
    let patience = Patience {
        wait: true,
        timeout,
        json: false,
    };
    group::run(Group::Move {
        name: name.to_string(),
        to: Some(status.peer.name.clone()),
        patience,
    })
}

/// It is stopped, or gone, and nobody has to do more than to wait.
pub(super) fn rests(name: &str, timeout: u64) -> Result<(), Failure> {
    let mut resting = Resting::new(name);
    let look = |status: &ClusterStatus| resting.look(Instant::now(), status);
    let message = until(look, Duration::from_secs(timeout), Form::Screen)?;
    println!("{message}");
    Ok(())
}

/// It moves to this node: it can leave when it is here, or has gone back.
pub(super) fn arrives(name: &str, timeout: u64) -> Result<(), Failure> {
    let look = |status: &ClusterStatus| {
        let named = |group: &&cluster::Group| group.name == *name;
        let group = status.groups.iter().find(named);
        match group.and_then(|group| here(group, status)) {
            Some(Here::Comes) => Progress::Going(format!("{name} is on its way to this node")),
            Some(Here::Runs | Here::Ends | Here::Silent | Here::Unknown) | None => {
                Progress::Done(format!("{name} is on its way no more"))
            }
        }
    };
    until(look, Duration::from_secs(timeout), Form::Screen)?;
    Ok(())
}
