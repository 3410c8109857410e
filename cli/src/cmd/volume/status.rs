//! `lockstep volume status`: how one or all volumes of this node are.

use std::io::{IsTerminal, Write, stdout};
use std::thread::sleep;
use std::time::Duration;

use controlplane_api::{Client, ClientError};
use mirror_core::admin::Status;
use serde_json::{Value, json};

use crate::config;
use crate::failure::Failure;
use crate::screen;
use crate::style::Style;
use crate::verdict::{Health, Verdict};

pub(crate) const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Cursor home, clear to the end of the screen.
pub(crate) const CLEAR: &str = "\x1b[H\x1b[2J";

/// How to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Screen,
    Json,
}

impl From<bool> for Form {
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Screen }
    }
}

/// How often to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    Once,
    UntilInterrupted,
}

impl From<bool> for Times {
    fn from(watch: bool) -> Self {
        if watch {
            Self::UntilInterrupted
        } else {
            Self::Once
        }
    }
}

struct Report {
    volume: String,
    answer: Result<Status, ClientError>,
    verdict: Verdict,
}

pub(crate) fn run(name: Option<&str>, form: Form, times: Times) -> Result<u8, Failure> {
    loop {
        let (text, health) = once(name, form)?;
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

fn once(name: Option<&str>, form: Form) -> Result<(String, Health), Failure> {
    let reports: Vec<Report> = match name {
        Some(name) => {
            config::path_of(name)?;
            let report = ask(name);
            if matches!(report.answer, Err(ClientError::NotRunning { .. })) {
                config::existing_path_of(name).map_err(|failure| Failure {
                    exit_code: Health::Unknown.exit_code(),
                    ..failure
                })?;
            }
            vec![report]
        }
        None => config::volumes().iter().map(|volume| ask(volume)).collect(),
    };
    let health = reports.iter().fold(Health::Healthy, |worst, report| {
        worst.worse(report.verdict.health)
    });
    let text = match form {
        Form::Screen => screen_of(&reports),
        Form::Json => format!("{}\n", json_of(name.is_some(), &reports)),
    };
    Ok((text, health))
}

fn ask(volume: &str) -> Report {
    let answer = Client::of_volume(volume).status();
    let verdict = match &answer {
        Ok(status) => Verdict::of(status),
        Err(error) => Verdict::of_error(error, volume),
    };
    Report {
        volume: volume.to_string(),
        answer,
        verdict,
    }
}

fn screen_of(reports: &[Report]) -> String {
    if reports.is_empty() {
        return "no volume was created on this node yet: lockstep volume create --help\n"
            .to_string();
    }
    let style = Style::of_stdout();
    let one = |report: &Report| match &report.answer {
        Ok(status) => screen::volume(status, style),
        Err(_) => screen::headline(&report.volume, &report.verdict, style),
    };
    reports.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// One volume: the daemon's own document with `verdict`. All: `{"schema", "volumes": [...]}`.
fn json_of(one: bool, reports: &[Report]) -> Value {
    let documents: Vec<Value> = reports.iter().map(document).collect();
    match documents.into_iter().next() {
        Some(document) if one => document,
        _ => {
            json!({"schema": "lockstep.status/1", "volumes": reports.iter().map(document).collect::<Vec<_>>()})
        }
    }
}

fn document(report: &Report) -> Value {
    let mut document = match &report.answer {
        Ok(status) => json!(status),
        Err(error) => json!({
            "schema": mirror_core::admin::SCHEMA,
            "volume": report.volume,
            "problem": error.problem(),
        }),
    };
    if let Value::Object(fields) = &mut document {
        fields.insert("verdict".to_string(), json!(report.verdict));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_stopped_daemon_has_problem_and_verdict() {
        let error = || ClientError::NotRunning {
            path: "/x".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let verdict = Verdict::of_error(&error(), "data");
        let report = Report {
            volume: "data".to_string(),
            answer: Err(error()),
            verdict,
        };
        let value = json_of(true, &[report]);
        assert_eq!(value["problem"]["code"], "LS4001");
        assert_eq!(value["verdict"]["health"], "down");
        assert_eq!(value["verdict"]["exit_code"], 2);
        let all = json_of(false, &[]);
        assert_eq!(all["volumes"], json!([]));
    }
}
