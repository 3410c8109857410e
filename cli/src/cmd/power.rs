//! `lockstep node shutdown` and `lockstep node reboot`: the groups leave in good order, then the machine goes down by its own
//! means.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use controlplane_api::cluster::ClusterStatus;
use controlplane_api::verbs::{Asked, GroupVerb};

use crate::args::Power;
use crate::cmd::group::{escaped, said, until};
use crate::cmd::node::{is_unknown, leave, what_runs};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::tell;
use crate::waiting::{Wait, rests, served_by};

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
    let status = what_runs()?;
    must_be_here(how, wanted.name.as_deref(), &status)?;
    let words = how.words(Path::new(SYSTEMD).is_dir());
    if wanted.dry_run {
        would(&status, wanted.force);
        println!("then: {}", words.join(" "));
        return Ok(0);
    }
    let left = leave(&status, wanted.timeout);
    if !left.here.is_empty() && !wanted.force {
        let mut failure = stays_up(how, &left.here.join(" and "));
        failure.exit_code = left.worst;
        return Err(failure);
    }
    for group in &left.here {
        stop(group, &status.node, wanted.timeout)?;
    }
    go_down(words, &status.node)
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
    let peer = &status.peer.name;
    let mut any = false;
    for group in &status.groups {
        let name = &group.name;
        let text = if is_unknown(group) {
            "a volume's daemon does not say who serves it"
        } else if served_by(group) == Some(status.node.as_str()) {
            "runs here"
        } else {
            continue;
        };
        any = true;
        let otherwise = if force {
            "be stopped"
        } else {
            "keep this machine up"
        };
        println!("{name}: {text}; it would move to {peer}, or else {otherwise}");
    }
    if !any {
        println!("no group runs on {}", status.node);
    }
}

fn stays_up(how: How, groups: &str) -> Failure {
    let verb = how.verb();
    Failure::new(
        "LS6220",
        format!("this machine stays up: {groups} did not leave it"),
        format!(
            "mend what is said above and repeat the command; or `lockstep node {verb} --force`: what cannot be moved is \
             stopped, and stays so until `lockstep group start`"
        ),
    )
}

/// What could not be moved is stopped, as by `lockstep group stop`.
fn stop(group: &str, node: &str, timeout: u64) -> Result<(), Failure> {
    let path = format!("/v1/groups/{}/stop", escaped(group));
    // On the screen a refusal is a failure.
    let Ok(said) = said(tell(&path, &Asked::default()), Form::Screen)? else {
        return Ok(());
    };
    println!("{}", said.message);
    let wait = Wait {
        group: group.to_string(),
        verb: GroupVerb::Stop,
        number: said.number.unwrap_or(0),
        by: said.by.unwrap_or_else(|| node.to_string()),
        node: None,
    };
    let patience = Duration::from_secs(timeout);
    println!(
        "{}",
        until(|status| rests(&wait, status), patience, Form::Screen)?
    );
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
        "switch it off or reboot it by its own means; nothing of Lockstep has to be done before",
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
