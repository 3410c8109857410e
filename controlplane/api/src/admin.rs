//! One line of JSON goes in, one comes back. A connection may carry several pairs.
//!
//! ```json
//! {"schema":"lockstep.admin/1","request":"status"}
//! {"schema":"lockstep.admin/1","request":"command","command":"deactivate","force":true}
//! ```
//! ```json
//! {"schema":"lockstep.admin/1","ok":true,"done":"already-fenced"}
//! {"schema":"lockstep.admin/1","ok":true,"status":{...}}
//! {"schema":"lockstep.admin/1","ok":false,"problem":{"code":"LS1008","message":"...","advice":"..."}}
//! ```
//!
//! Readers ignore fields that they do not know; fields are added, never renamed.

use mirror_core::admin::{Command, Done, Kept, Problem, Refusal, Status};
use serde::{Deserialize, Serialize};

/// The version of the messages.
pub const SCHEMA: &str = "lockstep.admin/1";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Everything about the volume.
    Status,
    /// Read the key file again: its secrets were rotated by a step. A daemon of an earlier release does not know it.
    Keys,
    /// Do something; answered when it is done or refused.
    Command(Command),
}

/// A request as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// From then on nobody waits for the answer, and a command must not begin any more: milliseconds of `CLOCK_BOOTTIME`
    /// of this machine. Absent: a command may begin at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl RequestLine {
    /// A line of the present schema.
    pub fn new(request: Request) -> Self {
        Self {
            schema: SCHEMA.to_string(),
            request,
            until_ms: None,
        }
    }
}

/// An answer as it is sent: exactly one of `done`, `status` and `problem` is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerLine {
    /// [`SCHEMA`].
    pub schema: String,
    /// Whether the request was carried out.
    pub ok: bool,
    /// What a command did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// The file that the blocks of a discarded side went to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// How far the secrets have come that count from now on ([`mirror_core::keys::Place`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// The status that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
    /// Why a command was refused; then nothing was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl AnswerLine {
    fn empty(ok: bool) -> Self {
        Self {
            schema: SCHEMA.to_string(),
            ok,
            done: None,
            kept: None,
            keys: None,
            status: None,
            problem: None,
        }
    }

    /// A command was carried out.
    pub fn done(done: Done) -> Self {
        Self {
            done: Some(done_name(done).to_string()),
            ..Self::empty(true)
        }
    }

    /// The status.
    pub fn status(status: Status) -> Self {
        Self {
            status: Some(Box::new(status)),
            ..Self::empty(true)
        }
    }

    /// A command was refused.
    pub fn refused(refusal: &Refusal) -> Self {
        Self {
            problem: Some(refusal.problem()),
            ..Self::empty(false)
        }
    }
}

const DONE_NAMES: [(Done, &str); 19] = [
    (Done::Active, "active"),
    (Done::AlreadyActive, "already-active"),
    (Done::Fenced, "fenced"),
    (Done::AlreadyFenced, "already-fenced"),
    (Done::Alone, "alone"),
    (Done::Stopped, "stopped"),
    (Done::Grown, "grown"),
    (Done::AlreadyGrown, "already-grown"),
    (Done::Discarded, "discarded"),
    (Done::Forced, "forced"),
    (Done::VerifyBegun, "verify-begun"),
    (Done::VerifyEnds, "verify-ends"),
    (Done::Invalidated, "invalidated"),
    (Done::ResyncPaused, "resync-paused"),
    (Done::ResyncGoesOn, "resync-goes-on"),
    (Done::Isolated, "isolated"),
    (Done::AlreadyIsolated, "already-isolated"),
    (Done::Attached, "attached"),
    (Done::AlreadyAttached, "already-attached"),
];

/// The word for `done` in an answer.
pub fn done_name(done: Done) -> &'static str {
    DONE_NAMES
        .iter()
        .find(|(candidate, _)| *candidate == done)
        .map_or("done", |(_, name)| name)
}

/// The meaning of the word in an answer.
pub fn parse_done(name: &str) -> Option<Done> {
    DONE_NAMES
        .iter()
        .find(|(_, candidate)| *candidate == name)
        .map(|(done, _)| *done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::admin::Keep;

    fn request_is(request: Request, line: &str) {
        let value = RequestLine::new(request);
        assert_eq!(serde_json::to_string(&value).unwrap(), line);
        assert_eq!(serde_json::from_str::<RequestLine>(line).unwrap(), value);
    }

    #[test]
    fn requests_are_these_lines() {
        request_is(
            Request::Status,
            r#"{"schema":"lockstep.admin/1","request":"status"}"#,
        );
        request_is(
            Request::Command(Command::Activate),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"activate"}"#,
        );
        request_is(
            Request::Command(Command::Deactivate { force: true }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"deactivate","force":true}"#,
        );
        request_is(
            Request::Command(Command::Takeover {
                confirm: "node2 is off".to_string(),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"takeover","confirm":"node2 is off"}"#,
        );
        request_is(
            Request::Command(Command::Grow {
                size_bytes: Some(1 << 30),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"grow","size_bytes":1073741824}"#,
        );
        request_is(
            Request::Command(Command::Stop),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"stop"}"#,
        );
        request_is(
            Request::Command(Command::Resolve {
                discard: "node2".to_string(),
                confirm: "data".to_string(),
                keep: Keep::Usual,
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"resolve","discard":"node2","confirm":"data"}"#,
        );
        request_is(
            Request::Command(Command::Force {
                confirm: "data".to_string(),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"force","confirm":"data"}"#,
        );
        request_is(
            Request::Command(Command::Invalidate {
                confirm: "data".to_string(),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"invalidate","confirm":"data"}"#,
        );
        request_is(
            Request::Command(Command::ResyncPause),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"resync-pause"}"#,
        );
        request_is(
            Request::Command(Command::Isolate { now_unix_s: 0 }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"isolate","now_unix_s":0}"#,
        );
        request_is(
            Request::Command(Command::Attach { force: true }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"attach","force":true}"#,
        );
    }

    #[test]
    fn a_verify_that_writes_over_what_is_read_says_the_name() {
        request_is(
            Request::Command(Command::Verify {
                repair: true,
                repair_from: Some("node2".to_string()),
                confirm: "data".to_string(),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"verify","repair":true,"repair_from":"node2","confirm":"data"}"#,
        );
        request_is(
            Request::Command(Command::Verify {
                repair: true,
                repair_from: None,
                confirm: String::new(),
            }),
            r#"{"schema":"lockstep.admin/1","request":"command","command":"verify","repair":true,"repair_from":null}"#,
        );
    }

    #[test]
    fn what_becomes_of_discarded_blocks_is_said_only_if_it_is_not_the_usual() {
        for (keep, word) in [
            (Keep::No, r#""no""#),
            (Keep::File("/srv/x".to_string()), r#"{"file":"/srv/x"}"#),
        ] {
            let (discard, confirm) = ("node2".to_string(), "data".to_string());
            let resolve = Command::Resolve {
                discard,
                confirm,
                keep,
            };
            request_is(
                Request::Command(resolve),
                &format!(
                    r#"{{"schema":"lockstep.admin/1","request":"command","command":"resolve","discard":"node2","confirm":"data","keep":{word}}}"#
                ),
            );
        }
    }

    #[test]
    fn answers_are_these_lines() {
        let line = r#"{"schema":"lockstep.admin/1","ok":true,"done":"already-fenced"}"#;
        assert_eq!(
            serde_json::to_string(&AnswerLine::done(Done::AlreadyFenced)).unwrap(),
            line
        );
        let refused: AnswerLine = serde_json::from_str(
            r#"{"schema":"lockstep.admin/1","ok":false,"problem":{"code":"LS1008","message":"m","advice":"a"},"new":1}"#,
        )
        .unwrap();
        assert_eq!(refused.problem.unwrap().code, "LS1008");
    }

    #[test]
    fn every_done_has_a_word_and_back() {
        for (done, name) in DONE_NAMES {
            assert_eq!(parse_done(done_name(done)), Some(done));
            assert_eq!(done_name(done), name);
        }
        assert_eq!(parse_done("something new"), None);
    }
}
