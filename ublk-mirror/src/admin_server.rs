//! The door for operators: `/run/lockstep/NAME.sock`, one line of JSON in, one out. The messages are
//! those of `controlplane-api`, written here without it: the data plane depends on nothing above it.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use mirror_core::admin::{Command, Done, Keep, Kept, Outcome, Problem, Status};
use mirror_core::keys::Place;
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::explain::Explain;
use crate::inbox::{Inbox, Message};
use crate::key_file::KeyFile;
use crate::sys;
use crate::waits::Waits;

/// The version of the messages.
pub const SCHEMA: &str = "lockstep.admin/1";
/// Longest request line.
const LINE_BYTES_MAX: u64 = 64 * 1024;
const CONNECTIONS_MAX: usize = 8;
/// A client that sends nothing for so long is dropped.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// A command may wait for the peer and for the device.
const ANSWER_MAX: Duration = Duration::from_secs(600);
/// A whole disk may have to be read first.
const KEEP_ANSWER_MAX: Duration = Duration::from_secs(48 * 3600);
const STACK_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct RequestLine {
    schema: String,
    #[serde(flatten)]
    request: Request,
    /// From then on a command must not begin: milliseconds of `CLOCK_BOOTTIME`.
    #[serde(default)]
    until_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
enum Request {
    Status,
    /// Read the key file again: its secrets were rotated by a step.
    Keys,
    Command(Command),
}

#[derive(Serialize)]
struct AnswerLine<'a> {
    schema: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a Kept>,
    /// How far the secrets have come that count from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

impl AnswerLine<'_> {
    fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            format!("{{\"schema\":\"{SCHEMA}\",\"ok\":false}}")
        })
    }
}

/// The answer to a status request.
pub fn status_line(status: &Status) -> String {
    AnswerLine {
        schema: SCHEMA,
        ok: true,
        done: None,
        kept: None,
        keys: None,
        status: Some(status),
        problem: None,
    }
    .line()
}

/// The answer to a command.
pub fn outcome_line(outcome: &Outcome) -> String {
    match outcome {
        Ok(done) => AnswerLine {
            schema: SCHEMA,
            ok: true,
            done: Some(done_name(*done)),
            kept: None,
            keys: None,
            status: None,
            problem: None,
        }
        .line(),
        Err(refusal) => problem_line(&refusal.problem()),
    }
}

/// The same, with the file that the discarded blocks went to.
pub fn kept_line(outcome: &Outcome, kept: &Kept) -> String {
    match outcome {
        Ok(done) => AnswerLine {
            schema: SCHEMA,
            ok: true,
            done: Some(done_name(*done)),
            kept: Some(kept),
            keys: None,
            status: None,
            problem: None,
        }
        .line(),
        Err(_) => outcome_line(outcome),
    }
}

/// These secrets count from now on.
pub fn keys_line(place: Place) -> String {
    AnswerLine {
        schema: SCHEMA,
        ok: true,
        done: None,
        kept: None,
        keys: Some(place.0),
        status: None,
        problem: None,
    }
    .line()
}

pub fn problem_line(problem: &Problem) -> String {
    AnswerLine {
        schema: SCHEMA,
        ok: false,
        done: None,
        kept: None,
        keys: None,
        status: None,
        problem: Some(problem),
    }
    .line()
}

fn done_name(done: Done) -> &'static str {
    match done {
        Done::Active => "active",
        Done::AlreadyActive => "already-active",
        Done::Fenced => "fenced",
        Done::AlreadyFenced => "already-fenced",
        Done::Alone => "alone",
        Done::Stopped => "stopped",
        Done::Grown => "grown",
        Done::AlreadyGrown => "already-grown",
        Done::Discarded => "discarded",
        Done::Forced => "forced",
        Done::VerifyBegun => "verify-begun",
        Done::VerifyEnds => "verify-ends",
        Done::Invalidated => "invalidated",
        Done::ResyncPaused => "resync-paused",
        Done::ResyncGoesOn => "resync-goes-on",
        Done::Isolated => "isolated",
        Done::AlreadyIsolated => "already-isolated",
        Done::Attached => "attached",
        Done::AlreadyAttached => "already-attached",
    }
}

/// Requests that were taken and whose answers are not out yet.
#[derive(Clone, Debug, Default)]
pub struct Unanswered(Arc<AtomicUsize>);

impl Unanswered {
    pub fn none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// The socket; its file is removed with it.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    unanswered: Unanswered,
}

impl AdminServer {
    /// Listens in a thread of its own. The caller holds the volume's lock: what is left of a
    /// socket at `path` belongs to a daemon that is gone.
    pub fn start(path: &Path, inbox: Arc<Inbox>, keys: KeyFile) -> io::Result<AdminServer> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let unanswered = Unanswered::default();
        let shared = unanswered.clone();
        let listen = move || accept_all(&listener, &inbox, &shared, &keys);
        thread::Builder::new()
            .name("admin".into())
            .stack_size(STACK_BYTES)
            .spawn(listen)?;
        Ok(AdminServer {
            path: path.to_owned(),
            unanswered,
        })
    }

    pub fn unanswered(&self) -> Unanswered {
        self.unanswered.clone()
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn accept_all(
    listener: &UnixListener,
    inbox: &Arc<Inbox>,
    unanswered: &Unanswered,
    keys: &KeyFile,
) {
    if let Err(error) = sys::set_io_flusher() {
        tracing::debug!(%error, "IO_FLUSHER");
    }
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if connections.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            connections.fetch_sub(1, Ordering::AcqRel);
            answer_once(&stream, &problem_line(&too_many()));
            continue;
        }
        let (inbox, unanswered, count) = (inbox.clone(), unanswered.clone(), connections.clone());
        let keys = keys.clone();
        let serve = move || {
            if let Err(error) = serve(&stream, &inbox, &unanswered, &keys) {
                tracing::debug!(%error, "admin connection");
            }
            count.fetch_sub(1, Ordering::AcqRel);
        };
        let spawned = thread::Builder::new()
            .name("admin-client".into())
            .stack_size(STACK_BYTES)
            .spawn(serve);
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for an admin connection");
            connections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn answer_once(mut stream: &UnixStream, line: &str) {
    drop(stream.set_write_timeout(Some(Duration::from_secs(1))));
    drop(stream.write_all(format!("{line}\n").as_bytes()));
}

fn serve(
    stream: &UnixStream,
    inbox: &Inbox,
    unanswered: &Unanswered,
    keys: &KeyFile,
) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(IDLE_MAX))?;
    let caller = getsockopt(stream, sockopt::PeerCredentials)?.uid();
    if caller != 0 && caller != nix::unistd::geteuid().as_raw() {
        answer_once(stream, &problem_line(&not_root(caller)));
        return Ok(());
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        let count = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        if count == 0 {
            return Ok(());
        }
        unanswered.0.fetch_add(1, Ordering::AcqRel);
        let answer = answer(&line, stream, inbox, keys);
        let mut writer = stream;
        let written = writer.write_all(format!("{answer}\n").as_bytes());
        unanswered.0.fetch_sub(1, Ordering::AcqRel);
        written?;
        if !line.ends_with('\n') {
            return Ok(());
        }
    }
}

fn parse(line: &str) -> Result<(Request, Option<Duration>), Problem> {
    match serde_json::from_str::<RequestLine>(line) {
        Ok(line) if line.schema == SCHEMA => {
            Ok((line.request, line.until_ms.map(Duration::from_millis)))
        }
        Ok(line) => Err(bad_request(format!(
            "schema {:?}, this daemon speaks {SCHEMA:?}",
            line.schema
        ))),
        Err(error) => Err(bad_request(error.to_string())),
    }
}

/// Whether a line is a request that this daemon understands.
pub fn is_request(line: &str) -> bool {
    parse(line).is_ok()
}

fn answer(line: &str, client: &UnixStream, inbox: &Inbox, keys: &KeyFile) -> String {
    let (request, until) = match parse(line) {
        Ok(request) => request,
        Err(problem) => return problem_line(&problem),
    };
    let (sender, receiver): (SyncSender<String>, _) = sync_channel(1);
    let limit = match &request {
        Request::Command(Command::Resolve { keep, .. }) if *keep != Keep::No => KEEP_ANSWER_MAX,
        Request::Command(_) | Request::Status | Request::Keys => ANSWER_MAX,
    };
    let put = |message| inbox.put(message).map_err(|_| too_many());
    let taken = match request {
        Request::Status => put(Message::Status(sender)),
        Request::Keys => {
            let handed = keys.hand_over(inbox, sender);
            handed.map_err(|error| error.problem())
        }
        Request::Command(command) => put(Message::Command {
            command,
            waits: Waits {
                until,
                // Without a descriptor to spare nobody sees whether the client has gone.
                client: client.try_clone().ok(),
            },
            answer: sender,
        }),
    };
    if let Err(problem) = taken {
        return problem_line(&problem);
    }
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| problem_line(&no_answer()))
}

/// The answer to one command too many.
pub fn too_many_line() -> String {
    problem_line(&too_many())
}

fn problem(code: &str, message: String, advice: &str) -> Problem {
    Problem {
        code: code.into(),
        message,
        advice: advice.into(),
    }
}

/// The answer to a command for which nobody waits any more: whoever gave it may have done something else since, such
/// as switching a machine on again that was off then.
pub fn too_late_line() -> String {
    problem_line(&problem(
        "LS1084",
        "the command came too late: this daemon stood still, and nothing was changed".into(),
        "look at `lockstep volume status NAME`, and at the other node, before you repeat the command",
    ))
}

fn bad_request(what: String) -> Problem {
    problem(
        "LS3031",
        format!("the request is not understood: {what}"),
        "see that `lockstep` and the daemon are of one release",
    )
}

fn too_many() -> Problem {
    problem(
        "LS3022",
        "too many requests at the same time".into(),
        "wait for the others, then try again",
    )
}

fn no_answer() -> Problem {
    problem(
        "LS3023",
        "no answer in time; the command may still be carried out".into(),
        "look at `lockstep volume status NAME`",
    )
}

fn not_root(uid: u32) -> Problem {
    problem(
        "LS3032",
        format!("user {uid} may not command this daemon"),
        "run the command as root",
    )
}

#[cfg(test)]
mod tests {
    use mirror_core::types::ClusterId;

    use super::*;

    #[test]
    fn requests_are_the_lines_of_the_api() {
        let status: RequestLine =
            serde_json::from_str(r#"{"schema":"lockstep.admin/1","request":"status"}"#).unwrap();
        assert!(matches!(status.request, Request::Status));
        let line = r#"{"schema":"lockstep.admin/1","request":"command","command":"deactivate","force":true}"#;
        let command: RequestLine = serde_json::from_str(line).unwrap();
        assert!(matches!(
            command.request,
            Request::Command(Command::Deactivate { force: true })
        ));
    }

    #[test]
    fn a_line_that_is_no_request_gets_a_problem() {
        let (client, _) = UnixStream::pair().unwrap();
        let inbox = Inbox::new().unwrap();
        let keys = KeyFile::new(Path::new("/nowhere"), ClusterId([1; 16]));
        for line in [
            "{}",
            "x",
            r#"{"schema":"lockstep.admin/2","request":"status"}"#,
        ] {
            assert!(
                answer(line, &client, &inbox, &keys).contains("LS3031"),
                "{line}"
            );
        }
    }

    #[test]
    fn an_outcome_is_the_line_of_the_api() {
        assert_eq!(
            outcome_line(&Ok(Done::AlreadyFenced)),
            r#"{"schema":"lockstep.admin/1","ok":true,"done":"already-fenced"}"#
        );
    }
}
