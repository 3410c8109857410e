//! `lockstep node shutdown` and `lockstep node reboot`: the groups leave in good order, then the machine goes down by its own
//! means.

use std::path::Path;
use std::process::Command;

use controlplane_api::cluster::{ClusterStatus, Group};
use controlplane_api::verbs::Asked;

use crate::args::Power;
use crate::cmd::group::{escaped, said};
use crate::cmd::node::{ROUNDS_MAX, arrives, leave, rests, what_runs};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::tell;
use crate::leaving::{Here, here, went_back};

/// There if systemd is the system's first process.
const SYSTEMD: &str = "/run/systemd/system";

/// What the machine does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It is switched off.
    Off,
    /// It boots.
    Again,
}

impl How {
    fn verb(self) -> &'static str {
        match self {
            Self::Off => "shutdown",
            Self::Again => "reboot",
        }
    }

    fn words(self, systemd: bool) -> &'static [&'static str] {
        match (self, systemd) {
            (Self::Off, true) => &["systemctl", "poweroff"],
            (Self::Again, true) => &["systemctl", "reboot"],
            (Self::Off, false) => &["shutdown", "-h", "now"],
            (Self::Again, false) => &["shutdown", "-r", "now"],
        }
    }
}

pub(super) fn run(how: How, wanted: &Power) -> Result<u8, Failure> {
    let mut silent = Vec::new();
    let status = what_runs(&mut silent)?;
    must_be_here(how, wanted.name.as_deref(), &status)?;
    let words = how.words(Path::new(SYSTEMD).is_dir());
    if wanted.dry_run {
        would(&status, wanted.force);
        println!("then: {}", words.join(" "));
        return Ok(0);
    }
    // What is on its way here would be begun by nobody if this node were suspended.
    for group in &status.groups {
        if here(group, &status) == Some(Here::Comes) {
            match arrives(&group.name, wanted.timeout) {
                Err(failure) if wanted.force => eprintln!("{}: {failure}", group.name),
                arrived => arrived?,
            }
        }
    }
    let node = &status.node;
    let suspended = suspends(&status)?;
    let emptied = empties(how, wanted, &mut silent);
    // Or else it would take over nothing when it is back. Whatever comes in the moment that is left meets `lockstep-leave.service`.
    if suspended && let Err(failure) = of_node(node, "resume") {
        eprintln!("{node} stays suspended, until `lockstep node resume {node}`: {failure}");
    }
    emptied?;
    go_down(words, node)
}

/// Nothing comes to this node while its groups leave. Says whether it was not suspended before.
fn suspends(status: &ClusterStatus) -> Result<bool, Failure> {
    if status.suspended.contains(&status.node) {
        return Ok(false);
    }
    of_node(&status.node, "suspend").map(|()| true)
}

fn of_node(node: &str, word: &str) -> Result<(), Failure> {
    let path = format!("/v1/nodes/{}/{word}", escaped(node));
    // On the screen a refusal is a failure.
    if let Ok(said) = said(tell(&path, &Asked::default()), Form::Screen)? {
        println!("{}", said.message);
    }
    Ok(())
}

/// All groups leave, or are stopped.
fn empties(how: How, wanted: &Power, silent: &mut Vec<String>) -> Result<(), Failure> {
    let mut forced = Forced::default();
    for _ in 0..ROUNDS_MAX {
        let left = leave(wanted.timeout, silent, &forced.given_up)?;
        if left.stay.is_empty() && left.worst == 0 {
            return Ok(());
        }
        if !wanted.force || left.stay.is_empty() {
            let mut failure = stays_up(how, &left.stay, &forced);
            failure.exit_code = left.worst;
            return Err(failure);
        }
        let status = what_runs(silent)?;
        for name in &left.stay {
            forced.force(name, &status, wanted.timeout);
        }
        if !forced.stuck.is_empty() {
            return Err(stays_up(how, &forced.stuck, &forced));
        }
    }
    Err(stays_up(how, &[], &forced))
}

/// What came of `--force`.
#[derive(Debug, Default)]
struct Forced {
    stopped: Vec<String>,
    stuck: Vec<String>,
    /// Nothing that runs here can be stopped of these.
    given_up: Vec<String>,
}

impl Forced {
    /// Only what is here is stopped: a stop is one of the whole cluster.
    fn force(&mut self, name: &str, status: &ClusterStatus, timeout: u64) {
        let named = |group: &&Group| group.name == *name;
        let group = status.groups.iter().find(named);
        let back = group.is_some_and(|group| went_back(group, status));
        let done = match group.and_then(|group| here(group, status)) {
            // It would begin here as soon as this node is resumed.
            None if back => stop(name).map(|()| self.stopped.push(name.to_string())),
            Some(Here::Runs) => stop(name).and_then(|()| {
                self.stopped.push(name.to_string());
                rests(name, timeout)
            }),
            // That was waited for.
            Some(Here::Ends) => {
                self.stuck.push(name.to_string());
                return;
            }
            Some(Here::Comes | Here::Silent | Here::Unknown) | None => {
                eprintln!("{name}: nothing is known to run here; it is left as it is");
                self.given_up.push(name.to_string());
                return;
            }
        };
        if let Err(failure) = done {
            eprintln!("{name}: {failure}");
            self.stuck.push(name.to_string());
        }
    }
}

/// From here no other machine is switched off.
fn must_be_here(how: How, name: Option<&str>, status: &ClusterStatus) -> Result<(), Failure> {
    let (node, peer) = (&status.node, &status.peer.name);
    match name {
        Some(name) if name == peer => Err(Failure::new(
            "LS6221",
            format!("this is {node}; {peer} is not switched off from here"),
            format!("type `lockstep node {}` on {peer}", how.verb()),
        )),
        Some(name) if name != node => Err(Failure::new(
            "LS6080",
            format!("there is no node {name} in this cluster"),
            format!("say {node}, on which this is, or nothing"),
        )),
        Some(_) | None => Ok(()),
    }
}

fn would(status: &ClusterStatus, force: bool) {
    let (node, peer) = (&status.node, &status.peer.name);
    let otherwise = if force {
        "be stopped"
    } else {
        "keep this machine up"
    };
    let mut any = false;
    for group in &status.groups {
        let Some(here) = here(group, status) else {
            continue;
        };
        any = true;
        let text = match here {
            Here::Runs => format!("runs here; it would move to {peer}, or else {otherwise}"),
            Here::Ends => "is not to run here; its end would be waited for".to_string(),
            Here::Comes => {
                format!(
                    "is on its way here; that would be waited for, then it would move to {peer}"
                )
            }
            Here::Silent => {
                "a volume's daemon does not answer; nothing of the group runs here".to_string()
            }
            Here::Unknown if force => {
                "a volume's daemon does not say who serves it; it would be left as it is"
                    .to_string()
            }
            Here::Unknown => {
                "a volume's daemon does not say who serves it; it would keep this machine up"
                    .to_string()
            }
        };
        println!("{}: {text}", group.name);
    }
    if !any {
        println!("no group runs on {node}");
    }
    if !status.suspended.contains(node) {
        println!("{node} would be suspended as long as that takes");
    }
}

fn stays_up(how: How, groups: &[String], forced: &Forced) -> Failure {
    let verb = how.verb();
    let advice = if forced.stopped.is_empty() {
        format!(
            "mend what is said above and repeat the command; or `lockstep node {verb} --force`: what runs here and cannot be \
             moved is stopped, and stays so until `lockstep group start`"
        )
    } else {
        format!(
            "mend what is said above and repeat the command; told to stop, until `lockstep group start`: {}",
            forced.stopped.join(" and ")
        )
    };
    let message = if groups.is_empty() {
        "this machine stays up: groups come to it again and again".to_string()
    } else {
        let groups = groups.join(" and ");
        format!("this machine stays up: {groups} did not leave it, or did not arrive")
    };
    Failure::new("LS6220", message, advice)
}

/// What could not be moved is stopped, as by `lockstep group stop`.
fn stop(group: &str) -> Result<(), Failure> {
    let path = format!("/v1/groups/{}/stop", escaped(group));
    // On the screen a refusal is a failure.
    if let Ok(said) = said(tell(&path, &Asked::default()), Form::Screen)? {
        println!("{}", said.message);
    }
    Ok(())
}

fn go_down(words: &[&str], node: &str) -> Result<u8, Failure> {
    let typed = words.join(" ");
    let why = match Command::new(words[0]).args(&words[1..]).status() {
        Ok(status) if status.success() => {
            println!("{node} goes down: {typed}");
            return Ok(0);
        }
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        "LS6222",
        format!("no group is left on {node}, but the machine does not go down: `{typed}`: {why}"),
        "switch it off or reboot it by its own means; if it shall stay up: `lockstep group move` brings back what was moved, \
         `lockstep group start` what was stopped",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::good;

    #[test]
    fn only_this_machine_goes_down() {
        let status = good();
        let code = |name| {
            let refused = must_be_here(How::Off, name, &status);
            refused.err().map(|failure| failure.problem.code)
        };
        assert_eq!((code(None), code(Some("node1"))), (None, None));
        assert_eq!(code(Some("node2")).as_deref(), Some("LS6221"));
        assert_eq!(code(Some("node3")).as_deref(), Some("LS6080"));
    }

    #[test]
    fn the_machine_goes_down_by_its_own_means() {
        assert_eq!(How::Off.words(true), ["systemctl", "poweroff"]);
        assert_eq!(How::Again.words(false), ["shutdown", "-r", "now"]);
    }
}
