//! `lockstep events`: what happened, on both nodes.

use std::io::{self, Write, stderr, stdout};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use controlplane_api::events::{Events as Answer, Query, SCHEMA};
use serde_json::{Value, json};

use crate::cmd::group::unknown;
use crate::cmd::print_all;
use crate::cmd::volume::status::Form;
use crate::events::{Asked, after, before, line, node_width, note};
use crate::failure::Failure;
use crate::http::{HttpError, get};
use crate::style::Style;
use crate::when;

/// Shown if nothing is said.
const COUNT: usize = 50;
/// The other node may take its time, and this one waits for news.
const TIMEOUT: Duration = Duration::from_secs(15);
/// An answer comes when there is something new here, or then.
const WAIT_MS: u64 = 2000;
/// The other node is asked no more often.
const PEER_INTERVAL: Duration = Duration::from_secs(2);
/// Between two tries while nobody answers.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only from then on: a time ago such as 2h, 30m or 1d, a time of today such as 14:05, or `2026-11-22 14:05`
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<u64>,
    /// Go on with what happens, until interrupted
    #[arg(long, short = 'f')]
    follow: bool,
    /// Only this code
    #[arg(long, value_name = "LSnnnn", value_parser = code)]
    code: Option<String>,
    /// Only this group
    #[arg(long, value_name = "NAME", value_parser = group)]
    group: Option<String>,
    /// Only the last so many [default: 50; all with --since]
    #[arg(short = 'n', long = "count", value_name = "COUNT")]
    count: Option<usize>,
    /// As JSON; with --follow one event in a line
    #[arg(long)]
    json: bool,
}

fn since(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.unwrap_or_default().as_millis();
    when::parse(text, u64::try_from(now_ms).unwrap_or(u64::MAX))
}

/// `LS6017`, `ls6017` or `6017`.
fn code(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let digits = upper.strip_prefix("LS").unwrap_or(&upper);
    if digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(format!("LS{digits}"))
    } else {
        Err("a code is LS and four digits".to_string())
    }
}

fn group(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.is_empty() && text.bytes().all(legal) {
        Ok(text.to_string())
    } else {
        Err("no group can have this name".to_string())
    }
}

pub(crate) fn run(command: &Events) -> Result<u8, Failure> {
    let form = Form::from(command.json);
    let query = Query {
        since_ms: command.since,
        count: command.count.or(command.since.is_none().then_some(COUNT)),
        code: command.code.clone(),
        group: command.group.clone(),
        peer: true,
        ..Query::default()
    };
    let answer = ask(&query).map_err(|error| unknown(&error))?;
    let asked = Asked {
        since_ms: command.since,
        counted: command.count.is_some(),
    };
    if !command.follow && form == Form::Json {
        print_all(format!("{:#}\n", json!(answer)).as_bytes())?;
        return Ok(0);
    }
    let mut teller = Teller::new(form, &answer);
    let told = teller
        .notes(&before(&answer, asked))
        .and_then(|()| teller.events(&answer))
        .and_then(|()| teller.notes(&after(&answer)));
    let told = match told {
        Ok(()) if command.follow => follow(teller, &query, &answer),
        told => told,
    };
    match told {
        Ok(()) | Err(Ended::Reader) => Ok(0),
        Err(Ended::Failed(failure)) => Err(failure),
    }
}

fn ask(query: &Query) -> Result<Answer, HttpError> {
    get(&format!("/v1/events?{}", query.text()), TIMEOUT)
}

/// For ever, unless nobody reads any more.
fn follow(mut teller: Teller, query: &Query, answer: &Answer) -> Result<(), Ended> {
    let newest = |answer: &Answer, place: usize| {
        let log = answer.logs.get(place)?;
        log.problem.is_none().then_some(log.newest)
    };
    let mut next = Query {
        since_ms: None,
        count: None,
        after: newest(answer, 0),
        peer_after: newest(answer, 1),
        wait_ms: WAIT_MS,
        ..query.clone()
    };
    // One that could not be asked tells what happened since now, once it can.
    let began_ms = since("0s").unwrap_or_default();
    let mut asked_at = Instant::now();
    let mut silent = false;
    loop {
        next.peer = asked_at.elapsed() >= PEER_INTERVAL;
        next.since_ms = (next.peer && next.peer_after.is_none()).then_some(began_ms);
        match ask(&next) {
            Ok(answer) => {
                if next.peer {
                    asked_at = Instant::now();
                    next.peer_after = newest(&answer, 1).or(next.peer_after);
                }
                next.after = newest(&answer, 0).or(next.after);
                silent = false;
                teller.events(&answer)?;
                if next.peer {
                    teller.changed_notes(&answer)?;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut silent, true) {
                    teller.notes(&[format!("{error}; waiting for it")])?;
                }
                sleep(RETRY_INTERVAL);
            }
        }
    }
}

/// Why nothing more is told.
enum Ended {
    /// Nobody reads any more.
    Reader,
    Failed(Failure),
}

/// Writes it.
struct Teller {
    form: Form,
    style: Style,
    node_width: usize,
    last_notes: Vec<String>,
}

impl Teller {
    fn new(form: Form, answer: &Answer) -> Self {
        Self {
            form,
            style: Style::of_stdout(),
            node_width: node_width(&answer.logs),
            last_notes: after_follow(answer),
        }
    }

    fn events(&mut self, answer: &Answer) -> Result<(), Ended> {
        let mut text = String::new();
        for event in &answer.events {
            text += &match self.form {
                Form::Screen => line(event, self.node_width, self.style),
                Form::Json => {
                    let mut value = json!(event);
                    if let Value::Object(fields) = &mut value {
                        fields.insert("schema".to_string(), json!(SCHEMA));
                    }
                    value.to_string()
                }
            };
            text.push('\n');
        }
        write(&text)
    }

    /// Of JSON they are not a part.
    fn notes(&mut self, notes: &[String]) -> Result<(), Ended> {
        for text in notes {
            match self.form {
                Form::Screen => write(&format!("{}\n", note(text, self.style)))?,
                Form::Json => {
                    // Nobody may read it.
                    let _ = writeln!(stderr(), "{text}");
                }
            }
        }
        Ok(())
    }

    /// What is to be known of the nodes, if it is something else than before.
    fn changed_notes(&mut self, answer: &Answer) -> Result<(), Ended> {
        let notes = after_follow(answer);
        if notes == self.last_notes {
            return Ok(());
        }
        self.last_notes.clone_from(&notes);
        if notes.is_empty() {
            return self.notes(&["both nodes tell what happens".to_string()]);
        }
        self.notes(&notes)
    }
}

/// While one follows, nothing new is no news.
fn after_follow(answer: &Answer) -> Vec<String> {
    let skipped = usize::from(answer.events.is_empty());
    after(answer).into_iter().skip(skipped).collect()
}

fn write(text: &str) -> Result<(), Ended> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Ended::Reader),
        Err(error) => {
            let path = Path::new("standard output");
            Err(Ended::Failed(Failure::file(path, "write to", &error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_groups_are_read_as_they_are_typed() {
        for typed in ["LS6017", "ls6017", "6017"] {
            assert_eq!(code(typed), Ok("LS6017".to_string()));
        }
        for wrong in ["", "LS", "LS60177", "LSx017", "é017"] {
            assert!(code(wrong).is_err(), "{wrong}");
        }
        assert!(group("pg-1.a").is_ok() && group("a b").is_err() && group("").is_err());
    }
}
