//! `lockstep cluster init` and `join`, as they are typed by somebody who reads the screens.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{CONFIG_FILE, WITNESS};
use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::progress::say;
use crate::wait::wait_until;

const SCREEN: &str = "/root/init.log";
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
    one.exec_ok(&format!(
        "(lockstep cluster init --for 10m; echo exit code $?) >{SCREEN} 2>&1 </dev/null &"
    ))?;
    let mut joined = 0;
    for (title, machine) in [
        ("on node2, type:", cluster.machine("node2")),
        ("on the witness, type:", cluster.machine(WITNESS)),
    ] {
        type_in(one, title, machine)?;
        joined += 1;
    }
    let screen = screen(one, "exit code")?;
    ensure!(screen.contains("exit code 0"), "{screen}");
    say(format!("{joined} machines joined the first one"));
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

/// The words and the token that follow the title.
fn type_in(one: &Machine, title: &str, machine: &Machine) -> anyhow::Result<()> {
    let mut invited = None;
    wait_until(LIMIT, title, || {
        invited = invitation(&one.exec_ok(&format!("cat {SCREEN}"))?, title);
        Ok(invited.is_some())
    })?;
    let (command, token) = invited.context("no invitation")?;
    // Who comes first may have to wait for the next one.
    let script = format!("(echo {token} | {command}; echo exit code $?) >/root/join.log 2>&1 &");
    machine.exec_ok(&script).map(drop)
}

fn invitation(screen: &str, title: &str) -> Option<(String, String)> {
    let (_, after) = screen.split_once(title)?;
    let mut lines = after.lines().map(str::trim).filter(|line| !line.is_empty());
    let command = lines.find(|line| line.starts_with("lockstep cluster join "))?;
    let token = lines.find(|line| line.len() >= 60 && !line.contains(' '))?;
    Some((command.to_owned(), token.to_owned()))
}
