//! `lockstep node ...`: what operators wish of a node.

use controlplane_api::verbs::Asked;

use crate::args::Node;
use crate::cmd::group::{answer, escaped, said};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{cluster_status, tell};

pub(crate) fn run(command: Node) -> Result<u8, Failure> {
    let (name, word, json) = match command {
        Node::Suspend { name, json } => (name, "suspend", json),
        Node::Resume { name, json } => (name, "resume", json),
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
