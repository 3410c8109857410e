//! A client of the control plane's HTTP door on this node.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use controlplane_api::cluster::ClusterStatus;
use controlplane_api::paths::node_socket;
use controlplane_api::verbs::{Asked, Refused, Said};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mirror_core::admin::Problem;
use thiserror::Error;
use tokio::net::UnixStream;

/// A status is answered from memory, a wish when it is on the disk.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no good answer.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    /// Nobody listens.
    #[error("no control plane answers on this node ({}: {source})", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be reached.
        source: io::Error,
    },
    /// It answered late, or not to the end.
    #[error("the control plane did not answer: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
    /// The answer is not one of this schema.
    #[error("the control plane gave an answer that is not understood: {what}")]
    BadAnswer {
        /// What is wrong with it.
        what: String,
    },
}

impl HttpError {
    /// As an operator gets it, with a code of docs/codes.md.
    pub(crate) fn problem(&self) -> Problem {
        let (code, advice) = match self {
            Self::NotRunning { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ("LS4002", "run the command as root")
            }
            Self::NotRunning { .. } => (
                "LS4016",
                "start it with `lockstepd run`; a volume without a control plane is told by `lockstep volume status`",
            ),
            Self::Broken { .. } => (
                "LS4017",
                "see whether lockstepd runs and what it logs, then repeat the command",
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

/// The cluster, as this node sees it. Blocks for [`TIMEOUT`] at most; not for use in an async runtime.
///
/// # Errors
/// [`HttpError`].
pub(crate) fn cluster_status() -> Result<ClusterStatus, HttpError> {
    get("/v1/status", TIMEOUT)
}

/// Wishes something. Blocks as [`cluster_status`] does.
///
/// # Errors
/// [`HttpError`]: it is not known whether it is wished; within: why it was refused.
pub(crate) fn tell(path: &str, asked: &Asked) -> Result<Result<Said, Problem>, HttpError> {
    post(path, asked, TIMEOUT)
}

/// Asks for something. Blocks for `limit` at most; not for use in an async runtime.
///
/// # Errors
/// [`HttpError`].
pub(crate) fn get<T: serde::de::DeserializeOwned>(
    path: &str,
    limit: Duration,
) -> Result<T, HttpError> {
    read(&got(path, limit)?)
}

/// The same for a text.
///
/// # Errors
/// [`HttpError`].
pub(crate) fn get_text(path: &str, limit: Duration) -> Result<String, HttpError> {
    String::from_utf8(got(path, limit)?.to_vec()).map_err(|error| broken(&error))
}

fn got(path: &str, limit: Duration) -> Result<Bytes, HttpError> {
    let (status, answer) = exchange_within(Method::GET, path, Bytes::new(), limit)?;
    if status == StatusCode::OK {
        return Ok(answer);
    }
    Err(HttpError::BadAnswer {
        what: status.to_string(),
    })
}

/// Wants something done. Blocks as [`get`] does.
///
/// # Errors
/// [`HttpError`]: it is not known whether it is done; within: why it was refused.
pub(crate) fn post<A: serde::Serialize, T: serde::de::DeserializeOwned>(
    path: &str,
    asked: &A,
    limit: Duration,
) -> Result<Result<T, Problem>, HttpError> {
    let body = serde_json::to_vec(asked).map_err(|error| broken(&error))?;
    let (status, answer) = exchange_within(Method::POST, path, Bytes::from(body), limit)?;
    match status {
        StatusCode::OK => read(&answer).map(Ok),
        StatusCode::CONFLICT => read::<Refused>(&answer).map(|refused| Err(refused.problem)),
        _ => Err(HttpError::BadAnswer {
            what: status.to_string(),
        }),
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Bytes) -> Result<T, HttpError> {
    serde_json::from_slice(answer).map_err(|error| HttpError::BadAnswer {
        what: error.to_string(),
    })
}

fn exchange_within(
    method: Method,
    path: &str,
    body: Bytes,
    limit: Duration,
) -> Result<(StatusCode, Bytes), HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| broken(&error))?;
    runtime.block_on(async {
        match tokio::time::timeout(limit, ask(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Broken {
                reason: format!("not within {} s", limit.as_secs()),
            }),
        }
    })
}

async fn ask(method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), HttpError> {
    let socket = node_socket();
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| HttpError::NotRunning {
            path: socket,
            source,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| broken(&error))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await.map_err(|error| HttpError::Broken {
        reason: error.to_string(),
    })?;
    Ok((status, body.to_bytes()))
}

fn broken(error: &dyn std::error::Error) -> HttpError {
    HttpError::Broken {
        reason: error.to_string(),
    }
}
