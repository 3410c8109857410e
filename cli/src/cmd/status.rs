//! `lockstep status`: the cluster as this node sees it, in one screen.

use std::io::{IsTerminal, Write, stdout};
use std::thread::sleep;

use controlplane_api::cluster::ClusterStatus;
use serde_json::{Value, json};

use crate::cluster::{self, verdict};
use crate::cmd::volume::status::{CLEAR, Form, Times, WATCH_INTERVAL};
use crate::failure::Failure;
use crate::http::{HttpError, cluster_status};
use crate::style::Style;
use crate::verdict::Health;

pub(crate) fn run(form: Form, times: Times) -> Result<u8, Failure> {
    loop {
        let answer = cluster_status();
        let (text, health) = match &answer {
            Ok(status) => (said(status, form), verdict(status).health),
            Err(error) if times == Times::Once => return Err(failure(error)),
            Err(error) => (format!("{}\n", failure(error)), Health::Unknown),
        };
        let clear =
            times == Times::UntilInterrupted && form == Form::Screen && stdout().is_terminal();
        let mut out = stdout().lock();
        let written =
            write!(out, "{}{text}", if clear { CLEAR } else { "" }).and_then(|()| out.flush());
        // A reader that went away (`| head`) has seen enough.
        if times == Times::Once || written.is_err() {
            return Ok(health.exit_code());
        }
        drop(out);
        sleep(WATCH_INTERVAL);
    }
}

/// Nobody can tell how the cluster is.
fn failure(error: &HttpError) -> Failure {
    Failure {
        problem: error.problem(),
        exit_code: Health::Unknown.exit_code(),
    }
}

fn said(status: &ClusterStatus, form: Form) -> String {
    match form {
        Form::Screen => cluster::screen(status, Style::of_stdout()),
        Form::Json => {
            let mut value = json!(status);
            if let Value::Object(fields) = &mut value {
                fields.insert("verdict".to_string(), json!(verdict(status)));
            }
            format!("{value:#}\n")
        }
    }
}
