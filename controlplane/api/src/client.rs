//! A client of the admin socket: one connection, one request, one answer, in bounded time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirror_core::admin::{Command, Done, Kept, Problem, Status};
use mirror_core::keys::Place;
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::admin::{AnswerLine, Request, RequestLine, parse_done};
use crate::paths::admin_socket;

/// A status is answered from memory.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// A command may wait for the peer, for flushes on both sides and for the block device.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no daemon answers for this volume on this node ({}: {source})", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be reached.
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("no permission to talk to the volume's daemon ({})", path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon did not answer in time. A command may still be carried out.
    #[error("the volume's daemon did not answer within {} s", timeout.as_secs())]
    Timeout {
        /// The limit.
        timeout: Duration,
    },
    /// The connection broke. A command may still be carried out.
    #[error("the connection to the volume's daemon broke: {0}")]
    Io(#[source] io::Error),
    /// The answer is not one of this schema.
    #[error("the volume's daemon gave an answer that is not understood: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: String,
    },
    /// The daemon refused and changed nothing.
    #[error("{} {}", .0.code, .0.message)]
    Refused(Problem),
}

impl ClientError {
    /// As an operator gets it, with a code of docs/codes.md.
    pub fn problem(&self) -> Problem {
        let (code, advice) = match self {
            Self::Refused(problem) => return problem.clone(),
            Self::NotRunning { .. } => (
                "LS4001",
                "start it with `lockstep volume start NAME`; /var/log/lockstep/NAME.log says why it ended",
            ),
            Self::Permission { .. } => ("LS4002", "run the command as root"),
            Self::Timeout { .. } | Self::Io(_) => (
                "LS4003",
                "look at `lockstep volume status NAME` and /var/log/lockstep/NAME.log, then repeat the command",
            ),
            Self::BadAnswer { .. } => (
                "LS4004",
                "see that `lockstep` and the running daemon are of one release (--version)",
            ),
        };
        Problem {
            code: code.to_string(),
            message: self.to_string(),
            advice: advice.to_string(),
        }
    }
}

/// A client of one volume's daemon. Holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Of the volume of this name on this node.
    pub fn of_volume(volume: &str) -> Self {
        Self {
            path: admin_socket(volume),
        }
    }

    /// Of the daemon behind this socket.
    pub fn of_socket(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// Everything about the volume.
    ///
    /// # Errors
    /// [`ClientError`], never `Refused`.
    pub fn status(&self) -> Result<Status, ClientError> {
        let answer = self.ask(Request::Status, STATUS_TIMEOUT)?;
        answer
            .status
            .map(|status| *status)
            .ok_or_else(|| bad("it holds no status"))
    }

    /// Lets the daemon at the other end read its key file again; how far the secrets have come that count there from now on.
    ///
    /// # Errors
    /// [`ClientError`]; a daemon of an earlier release refuses with LS3031.
    pub fn keys_over(stream: UnixStream) -> Result<Place, ClientError> {
        let answer = judged(converse(stream, Request::Keys, STATUS_TIMEOUT)?)?;
        let place = answer.keys.map(Place);
        place.ok_or_else(|| bad("it does not say how far its keys are"))
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// [`ClientError`]; after `Timeout` and `Io` it is not known whether it was carried out.
    pub fn command(&self, command: Command) -> Result<Done, ClientError> {
        self.command_within(command, COMMAND_TIMEOUT)
    }

    /// The same for a command that may take longer.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn command_within(&self, command: Command, limit: Duration) -> Result<Done, ClientError> {
        let answer = self.ask(Request::Command(command), limit)?;
        let done = answer
            .done
            .ok_or_else(|| bad("it does not say what was done"))?;
        parse_done(&done).ok_or_else(|| bad(&format!("`{done}` was done, whatever that is")))
    }

    /// A command that discards one side of a split brain; where its blocks went. A whole disk may have to be
    /// read before.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn resolve(&self, command: Command, limit: Duration) -> Result<Option<Kept>, ClientError> {
        let answer = self.ask(Request::Command(command), limit)?;
        match answer.done.as_deref().map(parse_done) {
            Some(Some(Done::Discarded)) => Ok(answer.kept),
            Some(_) | None => Err(bad("it does not say that a history was discarded")),
        }
    }

    fn ask(&self, request: Request, timeout: Duration) -> Result<AnswerLine, ClientError> {
        let stream =
            UnixStream::connect(&self.path).map_err(|source| self.connect_error(source))?;
        judged(converse(stream, request, timeout)?)
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let path = self.path.clone();
        let kind = source.kind();
        if matches!(
            kind,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            ClientError::NotRunning { path, source }
        } else if kind == io::ErrorKind::PermissionDenied {
            ClientError::Permission { path }
        } else {
            ClientError::Io(source)
        }
    }
}

fn judged(answer: AnswerLine) -> Result<AnswerLine, ClientError> {
    match (answer.ok, answer.problem) {
        (true, _) => Ok(AnswerLine {
            problem: None,
            ..answer
        }),
        (false, Some(problem)) => Err(ClientError::Refused(problem)),
        (false, None) => Err(bad("it refuses without a reason")),
    }
}

fn converse(
    mut stream: UnixStream,
    request: Request,
    timeout: Duration,
) -> Result<AnswerLine, ClientError> {
    let io_error = |source: io::Error| {
        if matches!(
            source.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) {
            ClientError::Timeout { timeout }
        } else {
            ClientError::Io(source)
        }
    };
    stream.set_read_timeout(Some(timeout)).map_err(io_error)?;
    stream.set_write_timeout(Some(timeout)).map_err(io_error)?;
    let line = RequestLine {
        until_ms: now_ms().map(|now| now.saturating_add(milliseconds(timeout))),
        ..RequestLine::new(request)
    };
    let mut line = serde_json::to_string(&line).map_err(|error| bad(&error.to_string()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(io_error)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX))
        .read_line(&mut answer)
        .map_err(io_error)?;
    if !answer.ends_with('\n') {
        return Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer).map_err(|error| bad(&error.to_string()))
}

/// What the daemons of this machine compare with.
fn now_ms() -> Option<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    Some(milliseconds(Duration::from(now)))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn bad(what: &str) -> ClientError {
    ClientError::BadAnswer {
        what: what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn answer_once(name: &str, answer: &'static str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("lockstep-api-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut request = String::new();
            reader.read_line(&mut request).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
        });
        path
    }

    #[test]
    fn no_socket_and_a_dead_socket_both_mean_not_running() {
        let path = std::env::temp_dir().join("lockstep-api-nobody.sock");
        let _ = std::fs::remove_file(&path);
        let error = Client::of_socket(&path).status().unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error}");
        drop(UnixListener::bind(&path).unwrap());
        let error = Client::of_socket(&path).status().unwrap_err();
        assert_eq!(error.problem().code, "LS4001");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_command_returns_what_was_done() {
        let path = answer_once(
            "done",
            "{\"schema\":\"lockstep.admin/1\",\"ok\":true,\"done\":\"alone\"}\n",
        );
        let done = Client::of_socket(&path).command(Command::Takeover {
            confirm: String::new(),
        });
        assert_eq!(done.unwrap(), Done::Alone);
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        let path = answer_once(
            "refused",
            "{\"schema\":\"x\",\"ok\":false,\"problem\":{\"code\":\"LS1008\",\"message\":\"m\",\"advice\":\"a\"}}\n",
        );
        let error = Client::of_socket(&path)
            .command(Command::Activate)
            .unwrap_err();
        assert_eq!(error.problem().code, "LS1008");
    }

    #[test]
    fn half_a_line_is_a_broken_connection_and_another_language_a_bad_answer() {
        let path = answer_once("half", "{\"ok\":tr");
        assert!(matches!(
            Client::of_socket(&path).status().unwrap_err(),
            ClientError::Io(_)
        ));
        let path = answer_once("garbage", "hello\n");
        assert!(matches!(
            Client::of_socket(&path).status().unwrap_err(),
            ClientError::BadAnswer { .. }
        ));
    }
}
