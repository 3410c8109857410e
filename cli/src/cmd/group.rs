//! `lockstep group ...`: what operators wish of a group.

use std::io::{Write, stderr, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane_api::cluster::ClusterStatus;
use controlplane_api::verbs::{Asked, GroupVerb, Refused, Said};
use mirror_core::admin::Problem;
use serde_json::json;

use crate::args::{Group, Patience};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{HttpError, cluster_status, tell};
use crate::verdict::Health;
use crate::waiting::{Progress, Wait, progress};

/// Between two looks while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A daemon that was just started anew has so long to answer again.
const SILENT_MAX: Duration = Duration::from_secs(15);

pub(crate) fn run(command: Group) -> Result<u8, Failure> {
    let (name, verb, node, patience) = match command {
        Group::Move { name, to, patience } => (name, GroupVerb::Move, to, patience),
        Group::Stop { name, patience } => (name, GroupVerb::Stop, None, patience),
        Group::Start { name, on, patience } => (name, GroupVerb::Start, on, patience),
        Group::Prepare(wanted) => return crate::cmd::prepare::run(wanted),
        Group::Clear { name, json } => {
            let patience = Patience {
                json,
                ..Patience::default()
            };
            (name, GroupVerb::Clear, None, patience)
        }
    };
    let form = Form::from(patience.json);
    let word = match verb {
        GroupVerb::Move => "move",
        GroupVerb::Stop => "stop",
        GroupVerb::Start => "start",
        GroupVerb::Clear => "clear",
    };
    let path = format!("/v1/groups/{}/{word}", escaped(&name));
    let said = match said(tell(&path, &Asked { node }), form)? {
        Ok(said) => said,
        Err(code) => return Ok(code),
    };
    let Some(number) = said.number.filter(|_| patience.wait) else {
        return Ok(answer(&said, form));
    };
    if form == Form::Screen {
        println!("{}", said.message);
    }
    let wait = Wait {
        group: name,
        verb,
        number,
        by: said.by.clone().unwrap_or_default(),
        node: said.node.clone(),
    };
    let patience = Duration::from_secs(patience.timeout);
    match until(|status| progress(&wait, status), patience, form) {
        Ok(message) => Ok(answer(&Said { message, ..said }, form)),
        Err(failure) if form == Form::Json => Ok(refuse(failure)),
        Err(failure) => Err(failure),
    }
}

/// Looks until it has come to an end, and says what is going on meanwhile.
pub(crate) fn until(
    mut look: impl FnMut(&ClusterStatus) -> Progress,
    patience: Duration,
    form: Form,
) -> Result<String, Failure> {
    let began = Instant::now();
    let mut heard = began;
    let mut last = String::new();
    loop {
        let going = match cluster_status() {
            Ok(status) => {
                heard = Instant::now();
                match look(&status) {
                    Progress::Done(message) => return Ok(message),
                    Progress::Failed(problem) => return Err(Failure::from(problem)),
                    Progress::Going(going) => going,
                }
            }
            Err(error) if heard.elapsed() > SILENT_MAX => return Err(unknown(&error)),
            Err(error) => error.to_string(),
        };
        if going != last {
            let text = format!("  {:>3} s  {going}\n", began.elapsed().as_secs());
            // A reader that went away does not end the wait.
            let _ = match form {
                Form::Screen => stdout().write_all(text.as_bytes()),
                Form::Json => stderr().write_all(text.as_bytes()),
            };
            last = going;
        }
        if began.elapsed() > patience {
            let message = format!("{} s are over, and it goes on: {last}", patience.as_secs());
            let mut failure = Failure::new("LS6092", message, "`lockstep status` tells how it is");
            failure.exit_code = Health::Unknown.exit_code();
            return Err(failure);
        }
        sleep(LOOK_INTERVAL);
    }
}

/// What the control plane said; a refusal as JSON is an answer as well, with its exit code.
pub(crate) fn said<T>(
    answer: Result<Result<T, Problem>, HttpError>,
    form: Form,
) -> Result<Result<T, u8>, Failure> {
    let failure = match answer {
        Ok(Ok(said)) => return Ok(Ok(said)),
        Ok(Err(problem)) => Failure::from(problem),
        Err(error) => unknown(&error),
    };
    match form {
        Form::Screen => Err(failure),
        Form::Json => Ok(Err(refuse(failure))),
    }
}

pub(crate) fn refuse(failure: Failure) -> u8 {
    println!("{:#}", json!(Refused::new(failure.problem)));
    failure.exit_code
}

pub(crate) fn answer(said: &Said, form: Form) -> u8 {
    match form {
        Form::Screen => println!("{}", said.message),
        Form::Json => println!("{:#}", json!(said)),
    }
    0
}

/// Nobody can tell.
pub(crate) fn unknown(error: &HttpError) -> Failure {
    Failure {
        problem: error.problem(),
        exit_code: Health::Unknown.exit_code(),
    }
}

/// As a part of a path.
pub(crate) fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_the_path() {
        assert_eq!(escaped("pg-1.a"), "pg-1.a");
        assert_eq!(escaped("../a b?"), "..%2Fa%20b%3F");
    }
}
