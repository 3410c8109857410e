//! What both ends say: a length of four bytes, big endian, then so many bytes of JSON.

use std::io;
use std::time::Duration;

use controlplane_api::arbiter::Hex16;
use mirror_core::admin::Problem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Of what is said here.
pub(super) const VERSION: u32 = 1;
/// The first frame of somebody who has not proved anything yet.
pub(super) const HELLO_BYTES_MAX: usize = 1024;
/// Every other frame to the inviting end.
pub(super) const ASK_BYTES_MAX: usize = 64 * 1024;
/// A frame to the joining end: `cluster.toml` may have 1 MiB, which JSON may double.
pub(super) const GIFT_BYTES_MAX: usize = 3 * 1024 * 1024;
/// A slow peer has so long for each frame.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// What the joining end says.
#[derive(Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum Ask {
    /// First, and only to the end that the token names.
    Hello { version: u32, secret: Hex16 },
    /// A node, with its name in `cluster.toml`, and its signing request.
    Node { name: String, request: String },
    /// A witness, with its certificate.
    Witness { certificate: String },
    /// What came is in its place, and would survive a power cut.
    Durable,
    /// What came cannot be used.
    Refused(Problem),
}

/// Who the token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// One of the two nodes.
    Node,
    /// The witness.
    Witness,
}

/// What the inviting end says.
#[derive(Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// The secret is right.
    Welcome {
        version: u32,
        cluster: Hex16,
        /// The certificate of the cluster's authority.
        authority: String,
        role: Role,
    },
    /// It goes on; this is what is waited for.
    Wait { what: String },
    /// All that a node needs.
    Node {
        certificate: String,
        /// `cluster.key`, base 64.
        key: String,
        /// `cluster.toml`.
        config: String,
        /// The witness's certificate, if it is known.
        #[serde(default)]
        witness: Option<String>,
    },
    /// A witness serves the cluster with these nodes.
    Witness { members: u8 },
    /// It is written down here as well.
    Done,
    /// There is no going on.
    Refused(Problem),
}

/// What came from the other end and goes to a terminal.
pub(crate) fn printable(mut problem: Problem) -> Problem {
    for text in [&mut problem.code, &mut problem.message, &mut problem.advice] {
        text.retain(|c| !c.is_control() || c == '\n');
    }
    problem
}

/// Reads a frame: not more than `bytes_max`, and within `patience`.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
    patience: Duration,
) -> io::Result<T> {
    let frame = async {
        let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
        if length > bytes_max {
            let why = format!("a frame of {length} bytes; at most {bytes_max} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    };
    let bytes = timeout(patience, frame).await??;
    serde_json::from_slice(&bytes).map_err(|error| {
        // What came is not repeated: it may be a secret.
        let why = format!("not understood, at byte {}", error.column());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Writes a frame, within [`FRAME_TIMEOUT`].
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &impl Serialize,
) -> io::Result<()> {
    let text = serde_json::to_vec(frame).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(text);
    let written = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    timeout(FRAME_TIMEOUT, written).await?
}
