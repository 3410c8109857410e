//! `lockstep cluster keys` and `rotate-keys`: the secret that the nodes share, and another one.

use std::io::{Write, stdout};
use std::time::Duration;

use controlplane_api::keys::{
    KeysShow, NodeKeys, Outcome, ROTATE_SCHEMA, RotateAsk, Rotated, SHOW_SCHEMA, Stage,
};
use mirror_core::admin::Problem;
use serde_json::json;

use crate::args::RotateKeys;
use crate::cmd::both_nodes::{Awaited, SHOW_TIMEOUT};
use crate::cmd::push::{finish, unknown};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{HttpError, get, post};
use crate::verdict::Health;

/// Both nodes are asked, and all daemons of their volumes.
const ROTATE_TIMEOUT: Duration = Duration::from_secs(120);
/// It could be, or is not at its end.
const EXIT_DIFFERS: u8 = 2;

/// `lockstep cluster rotate-keys`.
pub(crate) fn rotate(command: &RotateKeys) -> Result<u8, Failure> {
    let form = Form::from(command.json);
    finish(rotated(command, form), form, ROTATE_SCHEMA)
}

fn rotated(command: &RotateKeys, form: Form) -> Result<u8, Failure> {
    let dry_run = command.dry_run;
    let answer: Result<Rotated, Problem> =
        post("/v1/keys/rotate", &RotateAsk { dry_run }, ROTATE_TIMEOUT)
            .map_err(|error| undecided(&error))?;
    let said = answer.map_err(refused)?;
    let generation = said.generation;
    if form == Form::Screen {
        println!(
            "{}",
            match said.outcome {
                Outcome::Possible =>
                    format!("the cluster's key can be rotated, to generation {generation}"),
                Outcome::Begun =>
                    format!("the cluster's key is being rotated to generation {generation}"),
                Outcome::UnderWay => format!("a rotation to generation {generation} is under way"),
            }
        );
    }
    let done = match said.outcome {
        Outcome::Possible => false,
        Outcome::Begun | Outcome::UnderWay => {
            if command.wait {
                until(generation, Duration::from_secs(command.timeout), form)?;
            }
            command.wait
        }
    };
    match form {
        Form::Json => {
            let mut told = json!(said);
            told["done"] = json!(done);
            println!("{told:#}");
        }
        Form::Screen if done => {
            println!("both nodes have generation {generation}, and accept nothing before it");
        }
        Form::Screen => {}
    }
    Ok(if dry_run { EXIT_DIFFERS } else { 0 })
}

/// A refusal. What is not known to be refused has another exit code.
fn refused(problem: Problem) -> Failure {
    let is_unknown = matches!(problem.code.as_str(), "LS6251" | "LS6259" | "LS6116");
    let exit_code = if is_unknown {
        Health::Unknown.exit_code()
    } else {
        1
    };
    Failure { problem, exit_code }
}

/// `lockstepd` did not say what came of it.
fn undecided(error: &HttpError) -> Failure {
    let mut failure = unknown(error);
    if !matches!(error, HttpError::NotRunning { .. }) {
        failure.problem.advice =
            "whether it began is not known: `lockstep cluster keys` says how it stands".to_string();
    }
    failure
}

fn until(generation: u64, patience: Duration, form: Form) -> Result<(), Failure> {
    let awaited = Awaited {
        path: "/v1/keys",
        patience,
        form,
        silent: "lockstepd here does not answer",
        undecided,
    };
    let going = |shown: &KeysShow| {
        let peer = shown.peer.as_ref();
        let there = shown.own.has(generation) && peer.is_some_and(|peer| peer.has(generation));
        (!there).then(|| waits_for(shown, generation))
    };
    let late = |last: &str| {
        let message = format!(
            "generation {generation} has begun, and after {} s it is not at its end: {last}",
            patience.as_secs()
        );
        let advice = "it goes on by itself; `lockstep cluster keys` says how it stands";
        let mut failure = Failure::new("LS6254", message, advice);
        failure.exit_code = Health::Unknown.exit_code();
        failure
    };
    awaited.until(going, late).map(drop)
}

fn waits_for(shown: &KeysShow, generation: u64) -> String {
    let nodes = [Some(&shown.own), shown.peer.as_ref()];
    let stuck = nodes
        .into_iter()
        .flatten()
        .find_map(|node| node.problem.as_ref());
    if let Some(problem) = stuck.or(shown.peer_problem.as_ref()) {
        return printable(&format!("{} {}", problem.code, problem.message));
    }
    let name = match &shown.peer {
        Some(peer) if peer.has(generation) => &shown.own.node,
        Some(_) | None => &shown.peer_name,
    };
    format!("waits for {name}")
}

/// `lockstep cluster keys`.
pub(crate) fn show(json: bool) -> Result<u8, Failure> {
    let form = Form::from(json);
    let answer = get::<KeysShow>("/v1/keys", SHOW_TIMEOUT).map_err(|error| unknown(&error));
    let outcome = answer.map(|shown| {
        let text = match form {
            Form::Json => format!("{:#}\n", json!(shown)),
            Form::Screen => screen(&shown),
        };
        // A reader that went away (`| head`) has seen enough.
        let _ = stdout().write_all(text.as_bytes());
        verdict(&shown)
    });
    finish(outcome, form, SHOW_SCHEMA)
}

fn verdict(shown: &KeysShow) -> u8 {
    let Some(peer) = &shown.peer else {
        return Health::Unknown.exit_code();
    };
    let generation = shown.own.generation;
    let same = peer.generation == generation;
    if same && shown.own.has(generation) && peer.has(generation) {
        0
    } else {
        EXIT_DIFFERS
    }
}

fn screen(shown: &KeysShow) -> String {
    let mut lines = Vec::new();
    node(&shown.own, &mut lines);
    if let Some(peer) = &shown.peer {
        node(peer, &mut lines);
    }
    if let Some(problem) = &shown.peer_problem {
        lines.push(format!(
            "{}: {} {}",
            shown.peer_name, problem.code, problem.message
        ));
        lines.push(format!("  > {}", problem.advice));
    }
    printable(&(lines.join("\n") + "\n"))
}

fn node(node: &NodeKeys, lines: &mut Vec<String>) {
    let generation = node.generation;
    let stage = match node.stage {
        Stage::Settled if generation == 0 => ", never rotated".to_string(),
        Stage::Settled => ", and accepts nothing else".to_string(),
        Stage::AcceptsNext => format!(", and accepts {} as well", generation + 1),
        Stage::AcceptsLast => format!(", and accepts {} still", generation.saturating_sub(1)),
    };
    lines.push(format!(
        "{}: sends generation {generation}{stage}",
        node.node
    ));
    if !node.adopted {
        lines.push("  not everything on it goes by that yet".to_string());
    }
    if let Some(problem) = &node.problem {
        lines.push(format!("  ! {} {}", problem.code, problem.message));
        lines.push(format!("    > {}", problem.advice));
    }
}

fn printable(text: &str) -> String {
    let shown = |c: &char| !c.is_control() || *c == '\n';
    text.chars().filter(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: &str, generation: u64, stage: Stage) -> NodeKeys {
        NodeKeys {
            node: node.to_string(),
            generation,
            stage,
            adopted: true,
            problem: None,
        }
    }

    #[test]
    fn a_screen_says_how_far_each_node_is_and_the_exit_code_whether_it_is_over() {
        let mut shown = KeysShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            own: at("node1", 0, Stage::Settled),
            peer_name: "node2".to_string(),
            peer: Some(at("node2", 0, Stage::Settled)),
            peer_problem: None,
        };
        assert_eq!(verdict(&shown), 0);
        assert!(screen(&shown).contains("node2: sends generation 0, never rotated\n"));
        shown.own = at("node1", 1, Stage::AcceptsLast);
        assert_eq!(verdict(&shown), EXIT_DIFFERS);
        assert!(screen(&shown).contains("node1: sends generation 1, and accepts 0 still\n"));
        assert_eq!(waits_for(&shown, 1), "waits for node2");
        shown.own = at("node1", 1, Stage::Settled);
        shown.peer = Some(at("node2", 1, Stage::AcceptsLast));
        assert_eq!(verdict(&shown), EXIT_DIFFERS);
        shown.peer = None;
        assert_eq!(verdict(&shown), Health::Unknown.exit_code());
    }
}
