//! `lockstep node ...`: what operators wish of a node.

use controlplane_api::verbs::Asked;

use crate::args::{Group, Node, Patience};
use crate::cmd::group::{self, answer, escaped, said, unknown};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{cluster_status, tell};
use crate::waiting::served_by;

pub(crate) fn run(command: Node) -> Result<u8, Failure> {
    let (name, word, json) = match command {
        Node::Suspend { name, json } => (name, "suspend", json),
        Node::Resume { name, json } => (name, "resume", json),
        Node::Leave { timeout } => return leave(timeout),
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

/// Each group that this node serves is moved; one that cannot be does not keep the others here.
fn leave(timeout: u64) -> Result<u8, Failure> {
    let status = cluster_status().map_err(|error| unknown(&error))?;
    let served =
        |group: &&controlplane_api::cluster::Group| served_by(group) == Some(status.node.as_str());
    let mut worst = 0;
    let mut groups = status.groups.iter().filter(served).peekable();
    if groups.peek().is_none() {
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
        worst = worst.max(moved.unwrap_or_else(|failure| {
            eprintln!("{}: {failure}", group.name);
            failure.exit_code
        }));
    }
    Ok(worst)
}
