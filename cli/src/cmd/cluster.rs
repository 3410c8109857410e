//! `lockstep cluster ...`: setting it up becomes `lockstepd cluster ...`, which has TLS and the certificates. So this program stays
//! small, and what the daemon reads is written by the daemon's own code. What the running daemons do is asked of them ([`keys`], [`trust`]);
//! the other verbs are wishes ([`together`]).

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use controlplane_api::paths::state_directory;
use controlplane_api::together::ClusterVerb;

use crate::args::{Cluster, Door};
use crate::cmd::{keys, together, trust};
use crate::config;
use crate::failure::Failure;
use crate::programs;

pub(crate) fn run(command: Cluster) -> Result<u8, Failure> {
    let words = match command {
        Cluster::Stop(how) => return together::run(ClusterVerb::Stop, how),
        Cluster::Start(how) => return together::run(ClusterVerb::Start, how),
        Cluster::Suspend(how) => return together::run(ClusterVerb::Suspend, how),
        Cluster::Resume(how) => return together::run(ClusterVerb::Resume, how),
        Cluster::Keys { json } => return keys::show(json),
        Cluster::RotateKeys(wanted) => return keys::rotate(&wanted),
        Cluster::Trust { json } => return trust::show(json),
        Cluster::RotateAuthority(wanted) => return trust::rotate(&wanted),
        Cluster::RenewCertificates { dry_run, json } => return trust::renew(dry_run, json),
        Cluster::Init { door } => init(door),
        Cluster::Invite { guest, force, door } => invite(guest, force, door),
        Cluster::Join {
            address,
            node,
            force,
        } => join(address, node, force),
    };
    let mut daemon = programs::daemon();
    daemon.arg("cluster").args(words);
    // Comes back only if there is no such program.
    Err(programs::no_daemon(&daemon.exec()))
}

// As `lockstepd` takes it: every path is named.

fn init(door: Door) -> Vec<OsString> {
    let mut words = vec!["init".into()];
    words.extend(of_door(door));
    words
}

fn invite(guest: Option<String>, force: bool, door: Door) -> Vec<OsString> {
    let mut words = vec!["invite".into()];
    words.extend(of_door(door));
    if force {
        words.push("--force".into());
    }
    words.extend(positional(guest));
    words
}

fn join(address: String, node: Option<String>, force: bool) -> Vec<OsString> {
    let mut words = vec!["join".into()];
    words.extend(of_config(None));
    words.push("--witness".into());
    words.push(state_directory().join("witness").into());
    words.extend(named("--node", node));
    if force {
        words.push("--force".into());
    }
    words.extend(positional(Some(address)));
    words
}

fn of_config(config: Option<PathBuf>) -> [OsString; 2] {
    let default = || config::directory().join("cluster.toml");
    ["--config".into(), config.unwrap_or_else(default).into()]
}

fn of_door(door: Door) -> Vec<OsString> {
    let Door {
        config,
        node,
        seconds,
        listen,
    } = door;
    let mut words = Vec::from(of_config(config));
    words.extend(["--for".into(), seconds.to_string().into()]);
    words.extend(named("--node", node));
    words.extend(named("--listen", listen.map(|listen| listen.to_string())));
    words
}

fn named(option: &str, value: Option<String>) -> Vec<OsString> {
    value.map_or_else(Vec::new, |value| vec![option.into(), value.into()])
}

/// What an operator typed is never taken for an option.
fn positional(word: Option<String>) -> Vec<OsString> {
    named("--", word)
}
