//! `lockstep cluster init` and `join`, as they are typed by somebody who reads the screens.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{CONFIG_FILE, WITNESS};
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::progress::say;
use crate::wait::wait_until;

const SCREEN: &str = "/root/init.log";
const JOINING: &str = "/root/join.log";
/// What the screen says before it tells what to type there.
pub(super) const ON_THE_SECOND: &str = "on node2, type:";
pub(super) const ON_THE_WITNESS: &str = "on the witness, type:";
/// What a node has from it, and would have on a disk that outlives a boot.
pub(super) const FILES: [&str; 4] = [
    CONFIG_FILE,
    "/etc/lockstep/trust/node.pem",
    "/etc/lockstep/trust/node.key",
    "/etc/lockstep/trust/witness.pem",
];
const LIMIT: Duration = Duration::from_secs(60);

/// The first node makes the cluster; the witness and the second node join it.
pub(super) fn join(cluster: &Cluster, configuration: &str) -> anyhow::Result<()> {
    let one = cluster.machine("node1");
    one.put(CONFIG_FILE, 0o600, configuration.as_bytes())?;
    begin(one, "lockstep cluster init --for 10m")?;
    for (title, machine) in [
        (ON_THE_SECOND, cluster.machine("node2")),
        (ON_THE_WITNESS, cluster.machine(WITNESS)),
    ] {
        let shown = invitation_for(one, title)?;
        type_in(machine, &shown.command, &shown.token)?;
    }
    finish(one)?;
    say("2 machines joined the first one");
    Ok(())
}

/// Types the command that waits for the others.
pub(super) fn begin(one: &Machine, command: &str) -> anyhow::Result<()> {
    one.exec_ok(&format!(
        "({command}; echo exit code $?) >{SCREEN} 2>&1 </dev/null &"
    ))
    .map(drop)
}

/// Waits until that command has ended well.
pub(super) fn finish(one: &Machine) -> anyhow::Result<()> {
    let screen = screen(one, "exit code")?;
    ensure!(screen.contains("exit code 0"), "{screen}");
    Ok(())
}

/// What is on the first node's screen once this is.
fn screen(one: &Machine, wanted: &str) -> anyhow::Result<String> {
    let mut screen = String::new();
    wait_until(LIMIT, wanted, || {
        screen = one.exec_ok(&format!("cat {SCREEN}"))?;
        Ok(screen.contains(wanted))
    })
    .with_context(|| screen.clone())?;
    Ok(screen)
}

/// What the first node's screen tells a reader to type on another machine.
pub(super) struct Invitation {
    pub(super) command: String,
    pub(super) token: String,
}

/// Waits until it is on the screen, under this title.
pub(super) fn invitation_for(one: &Machine, title: &str) -> anyhow::Result<Invitation> {
    let mut invited = None;
    wait_until(LIMIT, title, || {
        invited = invitation(&one.exec_ok(&format!("cat {SCREEN}"))?, title);
        Ok(invited.is_some())
    })?;
    invited.context("no invitation")
}

/// Types the command, and the token where it is asked for. Who comes first may have to wait for the next one.
pub(super) fn type_in(machine: &Machine, command: &str, token: &str) -> anyhow::Result<()> {
    let script = format!("(echo {token} | {command}; echo exit code $?) >{JOINING} 2>&1 &");
    machine.exec_ok(&script).map(drop)
}

/// Waits until what was typed on a machine that joins has ended well.
pub(super) fn joined(machine: &Machine) -> anyhow::Result<()> {
    let mut said = String::new();
    wait_until(LIMIT, "the end of the joining", || {
        said = machine.exec_ok(&format!("cat {JOINING}"))?;
        Ok(said.contains("exit code"))
    })
    .with_context(|| said.clone())?;
    ensure!(said.contains("exit code 0"), "{}: {said}", machine.name());
    Ok(())
}

fn invitation(screen: &str, title: &str) -> Option<Invitation> {
    let (_, after) = screen.split_once(title)?;
    let mut lines = after.lines().map(str::trim).filter(|line| !line.is_empty());
    let command = lines.find(|line| line.starts_with("lockstep cluster join "))?;
    let token = lines.find(|line| line.len() >= 60 && !line.contains(' '))?;
    Some(Invitation {
        command: command.to_owned(),
        token: token.to_owned(),
    })
}
