//! Between the nodes: TLS 1.3 on TCP, at the addresses and port numbers of the interconnects. Each end shows the
//! certificate of its node, and hangs up unless the other end is the other node of this cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use controlplane_api::arbiter::Hex16;
use mirror_core::types::NodeId;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Pusher;
use super::words::{AnswerFrame, AskFrame, FRAME_BYTES_MAX};
use crate::authority::Credentials;
use crate::heartbeat::Interconnect;
use crate::join::frames::{read, write};
use crate::trust::{node_name, peer_of};

/// Connecting, and each handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A frame, and what is done for it: files are flushed.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two tries to listen on an address that is not there yet, and two looks at what the volumes need.
const LISTEN_RETRY: Duration = Duration::from_secs(2);
/// Between two looks whether `lockstepd` runs.
const START_RETRY: Duration = Duration::from_millis(100);
/// Connections at a time. The other node needs one.
const CONNECTIONS_MAX: usize = 8;

/// Whether the other end is the other node.
fn is_peer(credentials: &Credentials, who: Option<(Hex16, NodeId)>) -> io::Result<()> {
    if who == Some((credentials.cluster(), credentials.peer)) {
        return Ok(());
    }
    Err(io::Error::other("the other end is not the other node"))
}

/// Listens on one address for ever: as soon as it is there, `lockstepd` runs, and no volume needs the port.
pub(super) async fn listen(pusher: Arc<Pusher>, address: SocketAddr) {
    let mut told = None;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match bind(&pusher, address).await {
            Ok(None) => {
                sleep(START_RETRY).await;
                continue;
            }
            Ok(Some(listener)) => {
                told = None;
                accept(&pusher, (&listener, address), &places).await;
                continue;
            }
            Err(why) if told.as_ref() != Some(&why) => {
                tracing::warn!(
                    code = "LS6110",
                    "cannot listen for the other node on {address}: {why}"
                );
                told = Some(why);
            }
            Err(_) => {}
        }
        sleep(LISTEN_RETRY).await;
    }
}

/// `None`: not yet, the daemons of volumes come first.
async fn bind(pusher: &Pusher, address: SocketAddr) -> Result<Option<TcpListener>, String> {
    if !pusher.course.is_running() || pusher.credentials.live().is_err() {
        return Ok(None);
    }
    if let Some(volume) = pusher.needs(address) {
        return Err(format!("the mirror link of volume {volume} has that port"));
    }
    let listener = TcpListener::bind(address).await;
    listener.map(Some).map_err(|error| error.to_string())
}

/// Until a volume needs the port.
async fn accept(
    pusher: &Arc<Pusher>,
    (listener, address): (&TcpListener, SocketAddr),
    places: &Arc<Semaphore>,
) {
    let mut look_at = Instant::now() + LISTEN_RETRY;
    loop {
        // However many knock.
        if Instant::now() >= look_at {
            if pusher.needs(address).is_some() {
                return;
            }
            look_at = Instant::now() + LISTEN_RETRY;
        }
        let Ok(heard) = timeout_at(look_at, listener.accept()).await else {
            continue;
        };
        let Ok((stream, _)) = heard else {
            // Without file descriptors, say: they come back.
            sleep(LISTEN_RETRY).await;
            continue;
        };
        // Too many at a time: the other node needs one, and asks again.
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            continue;
        };
        let pusher = Arc::clone(pusher);
        tokio::spawn(async move {
            if let Err(error) = serve(&pusher, stream).await {
                tracing::debug!(%error, "a connection for a push");
            }
            drop(place);
        });
    }
}

async fn serve(pusher: &Arc<Pusher>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // As it is now: certificates may have been replaced since the last connection.
    let live = pusher.credentials.live().map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(Arc::clone(&live.server));
    let mut stream = timeout(CONNECT_TIMEOUT, acceptor.accept(stream)).await??;
    is_peer(
        &pusher.credentials,
        peer_of(stream.get_ref().1.peer_certificates()),
    )?;
    let frame: AskFrame = read(&mut stream, FRAME_BYTES_MAX, FRAME_TIMEOUT).await?;
    let answer = Arc::clone(pusher).answer_all(frame).await?;
    write(&mut stream, &answer).await
}

/// Asks the other node, on the first interconnect on which it answers.
pub(super) async fn ask(
    credentials: &Credentials,
    interconnects: &[Interconnect],
    frame: &AskFrame,
) -> io::Result<AnswerFrame> {
    let mut last = io::Error::other("there is no interconnect");
    for pair in interconnects {
        match ask_on(pair, credentials, frame).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// On one of them. A question that was heard, and whose answer was lost, may be asked again: each is answered by how the
/// other node stands then.
async fn ask_on(
    pair: &Interconnect,
    credentials: &Credentials,
    frame: &AskFrame,
) -> io::Result<AnswerFrame> {
    let stream = connect(pair).await?;
    timeout(FRAME_TIMEOUT, converse(credentials, stream, frame)).await?
}

async fn connect(pair: &Interconnect) -> io::Result<TcpStream> {
    let socket = match pair.peer {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let stream = timeout(CONNECT_TIMEOUT, socket.connect(pair.peer)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn converse(
    credentials: &Credentials,
    stream: TcpStream,
    frame: &AskFrame,
) -> io::Result<AnswerFrame> {
    let name = node_name(credentials.cluster(), credentials.peer);
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let live = credentials.live().map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::clone(&live.client));
    let secured = timeout(CONNECT_TIMEOUT, connector.connect(name, stream));
    let mut stream = secured.await??;
    is_peer(credentials, peer_of(stream.get_ref().1.peer_certificates()))?;
    write(&mut stream, frame).await?;
    read(&mut stream, FRAME_BYTES_MAX, FRAME_TIMEOUT).await
}
