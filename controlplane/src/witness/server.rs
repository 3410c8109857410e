//! Connections of a witness: TLS, lines, bounds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use controlplane_api::arbiter::{LINE_BYTES_MAX, ReplyLine};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Handled, Witness};
use crate::trust::peer_of;

/// Connections at a time: more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// A stranger has so long to prove who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A node reports every second or so; a connection that is silent for so long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the listener breaks.
///
/// # Errors
/// If no connection can be accepted any more.
pub async fn serve(
    witness: Arc<Witness>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let numbers = AtomicU64::new(1);
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let (witness, acceptor) = (Arc::clone(&witness), acceptor.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(&witness, stream, &acceptor, number).await {
                tracing::debug!(%address, %error, "a connection ended");
            }
            drop(place);
        });
    }
}

/// Errors of one connection, of a moment without file descriptors or memory, or of a network: everything but a listener
/// that is none.
fn is_passing(error: &io::Error) -> bool {
    let code = error.raw_os_error().unwrap_or_default();
    !matches!(code, libc::EBADF | libc::EINVAL | libc::ENOTSOCK)
}

async fn converse(
    witness: &Arc<Witness>,
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    number: u64,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates();
    let peer = peer_of(shown);
    let shown = shown.and_then(|shown| shown.first()).cloned();
    let shown = shown.ok_or_else(|| io::Error::other("no certificate"))?;
    // Not by the handshake: whom the cluster trusts may have changed since.
    let mut checked = None;
    let (cluster, node) = peer.ok_or_else(|| io::Error::other("no node's certificate"))?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bounded = (&mut stream).take(limit);
        let read = bounded.read_until(b'\n', &mut line);
        if timeout(IDLE_TIMEOUT, read).await?? == 0 {
            return Ok(());
        }
        if line.pop() != Some(b'\n') {
            return Err(io::Error::other("a line that is too long, or cut"));
        }
        let text = String::from_utf8(line).map_err(io::Error::other)?;
        let still = witness.trusted.still(&shown, &mut checked);
        still.map_err(io::Error::other)?;
        let handler = Arc::clone(witness);
        let handled =
            tokio::task::spawn_blocking(move || handler.handle(cluster, node, number, &text));
        match handled.await.map_err(io::Error::other)? {
            Handled::Outlived => return Ok(()),
            Handled::Answer(reply) => send(&mut stream, &reply).await?,
        }
    }
}

async fn send<S>(stream: &mut BufReader<S>, reply: &ReplyLine) -> io::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut text = serde_json::to_vec(reply).map_err(io::Error::other)?;
    text.push(b'\n');
    let sent = async {
        stream.write_all(&text).await?;
        stream.flush().await
    };
    timeout(HANDSHAKE_TIMEOUT, sent).await?
}
