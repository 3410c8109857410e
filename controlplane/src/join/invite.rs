//! The inviting end: listens for a while, lets in whoever has a token, and hands over what they need.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mirror_core::admin::Problem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::door::Door;
pub use super::door::TRIES_MAX;
use super::error::JoinError;
use super::files::{Existing, check, install};
use super::frames::{
    ASK_BYTES_MAX, Answer, Ask, FRAME_TIMEOUT, HELLO_BYTES_MAX, Role, VERSION, printable, read,
    write,
};
use super::home::{Guest, Home};
use super::sockets::prepare;
use super::strangers::Strangers;
use super::tls::Doorplate;
use super::token::{Secret, Token};
use crate::trust::check_witness;

/// A stranger has so long to prove who it is, twice: for TLS, and for the token.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// The joining end's disk may be slow.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two words to somebody who waits for another guest.
const WAIT_INTERVAL: Duration = Duration::from_secs(2);
/// Between two tries to accept, without file descriptors or memory.
const RETRY: Duration = Duration::from_millis(100);

/// How to invite.
pub struct Invitation {
    /// Whom.
    pub guests: Vec<Guest>,
    /// How long.
    pub time: Duration,
    /// How long a door that was closed by wrong tokens still says so.
    pub closed_time: Duration,
    /// At most so often a word about strangers, after the first of each.
    pub strangers_interval: Duration,
    /// Whether a witness that joined earlier is replaced by another one.
    pub existing: Existing,
    /// The certificate of this end.
    pub doorplate: Doorplate,
}

/// What an operator should see.
#[derive(Debug)]
pub enum Progress {
    /// This guest joins with this token; an earlier one does not work any more.
    Token {
        /// Who.
        guest: Guest,
        /// To be typed there.
        token: Token,
    },
    /// The right token came.
    Inside {
        /// Whose.
        guest: Guest,
        /// From where.
        address: SocketAddr,
    },
    /// A guest waits until another one has joined.
    Waits {
        /// Who.
        guest: Guest,
        /// For whom.
        whom: Guest,
    },
    /// It is written down here, and durable there.
    Joined {
        /// Who.
        guest: Guest,
        /// A node that has no witness's certificate yet, although there shall be a witness.
        lacks_witness: bool,
    },
    /// A guest's connection ended before; a new token follows, if there is time and the cluster's key was not handed over.
    BrokeOff {
        /// Who.
        guest: Guest,
        /// Why.
        why: Problem,
        /// That the key was, to whom, and what to do.
        key_is_out: Option<Problem>,
    },
    /// Somebody without a right token.
    Turned {
        /// From where.
        address: SocketAddr,
        /// Why.
        why: Problem,
    },
    /// More of those who proved nothing: the tokens are worth to be shown again.
    Strangers {
        /// Since this was said last.
        count: u64,
    },
}

struct Hall {
    home: Home,
    existing: Existing,
    door: Mutex<Door>,
    strangers: Mutex<Strangers>,
    fingerprint: super::token::Fingerprint,
    acceptor: TlsAcceptor,
    /// Something happened at the door.
    changed: watch::Sender<()>,
    tell: Box<dyn Fn(Progress) + Send + Sync>,
}

impl Hall {
    fn door(&self) -> MutexGuard<'_, Door> {
        // Nobody panics while it is held: the process would be gone.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaits(&self) -> bool {
        self.door().awaits()
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who was not let in; of those who proved nothing only the first ones.
    fn turned(&self, address: SocketAddr, error: &JoinError) {
        if matches!(error, JoinError::Broken { .. }) && !self.strangers().came(address.ip()) {
            return;
        }
        let why = error.problem();
        (self.tell)(Progress::Turned { address, why });
    }

    /// A guest that was inside did not get to the end.
    fn broke_off(&self, guest: &Guest, error: &JoinError, handed: Option<SocketAddr>) {
        let key_is_out = handed.map(|address| {
            self.door().is_lost(guest);
            let (guest, missing) = (guest.to_string(), Vec::new());
            let error = JoinError::KeyIsOut {
                guest,
                address,
                missing,
            };
            error.problem()
        });
        let is_out = key_is_out.is_some();
        (self.tell)(Progress::BrokeOff {
            guest: guest.clone(),
            why: error.problem(),
            key_is_out,
        });
        if !is_out
            && self.is_open().is_ok()
            && let Err(error) = self.give_out(guest)
        {
            let (guest, why, key_is_out) = (guest.clone(), error.problem(), None);
            (self.tell)(Progress::BrokeOff {
                guest,
                why,
                key_is_out,
            });
        }
        self.changed.send_replace(());
    }

    /// A new token for a guest.
    fn give_out(&self, guest: &Guest) -> Result<(), JoinError> {
        let token = Token {
            secret: Secret(super::files::random()?),
            fingerprint: self.fingerprint,
        };
        self.door().expect(guest, &token.secret);
        let guest = guest.clone();
        (self.tell)(Progress::Token { guest, token });
        Ok(())
    }

    fn is_open(&self) -> Result<(), JoinError> {
        self.door().is_open(Instant::now())
    }

    /// Whom a node should wait for: it gets the witness's certificate from here.
    fn witness_is_missing(&self) -> bool {
        self.door().missing().contains(&Guest::Witness)
    }

    fn names_missing(&self) -> Vec<String> {
        self.door().missing().iter().map(Guest::to_string).collect()
    }
}

/// Invites on this socket until all have joined, or the time is over.
///
/// # Errors
/// [`JoinError::KeyIsOut`] if somebody got the cluster's key and did not say that it joined,
/// [`JoinError::Over`] if somebody has not joined, [`JoinError::Closed`] after [`TRIES_MAX`] wrong tokens, whatever became
/// of the others.
pub async fn invite(
    home: Home,
    invitation: Invitation,
    listener: TcpListener,
    tell: impl Fn(Progress) + Send + Sync + 'static,
) -> Result<(), JoinError> {
    let over = Instant::now() + invitation.time;
    let hall = Arc::new(Hall {
        home,
        existing: invitation.existing,
        door: Mutex::new(Door::new(over)),
        strangers: Mutex::default(),
        fingerprint: invitation.doorplate.fingerprint,
        acceptor: TlsAcceptor::from(Arc::clone(&invitation.doorplate.config)),
        changed: watch::channel(()).0,
        tell: Box::new(tell),
    });
    for guest in &invitation.guests {
        hall.give_out(guest)?;
    }
    let mut changed = hall.changed.subscribe();
    let mut end = over;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut inside = JoinSet::new();
    let mut strangers = tokio::time::interval(invitation.strangers_interval);
    while hall.awaits() {
        tokio::select! {
            accepted = accept(&listener, &places) => {
                let (stream, address, place) = accepted?;
                let hall = Arc::clone(&hall);
                inside.spawn(async move {
                    receive(&hall, stream, address).await;
                    drop(place);
                });
            }
            _ = changed.changed() => {
                if let Err(JoinError::Closed { .. }) = hall.is_open() {
                    end = end.min(Instant::now() + invitation.closed_time);
                }
            }
            _ = strangers.tick() => {
                let count = hall.strangers().since();
                if count > 0 {
                    (hall.tell)(Progress::Strangers { count });
                }
            }
            _ = tokio::time::sleep_until(end.into()) => break,
            Some(_) = inside.join_next() => {}
        }
    }
    drop(listener);
    // Whoever is inside has its own deadlines; whoever waits for a guest hears that nobody comes any more.
    hall.changed.send_replace(());
    while hall.awaits() && inside.join_next().await.is_some() {}
    let lost = hall.door().lost();
    if let Some((guest, address)) = lost {
        let guest = guest.to_string();
        let mut missing = hall.names_missing();
        missing.retain(|name| *name != guest);
        return Err(JoinError::KeyIsOut {
            guest,
            address,
            missing,
        });
    }
    match (hall.names_missing(), hall.is_open()) {
        (missing, _) if missing.is_empty() => Ok(()),
        (_, Err(closed @ JoinError::Closed { .. })) => Err(closed),
        (missing, _) => Err(JoinError::Over { missing }),
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit), JoinError> {
    let failed = |source| JoinError::Listen {
        address: listener
            .local_addr()
            .map_or_else(|_| "the socket".to_string(), |address| address.to_string()),
        source,
    };
    loop {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(|closed| failed(io::Error::other(closed)))?;
        match listener.accept().await {
            Ok((stream, address)) => return Ok((stream, address, place)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL)) => {
                return Err(failed(error));
            }
            // Of one connection, or of a moment without file descriptors.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// One connection, to its end.
async fn receive(hall: &Hall, stream: TcpStream, address: SocketAddr) {
    let mut stream = match handshake(hall, stream).await {
        Ok(stream) => stream,
        Err(error) => return hall.turned(address, &error),
    };
    let guest = match let_in(hall, &mut stream, address).await {
        Ok(guest) => guest,
        Err(error) => {
            turn_away(&mut stream, &error).await;
            hall.turned(address, &error);
            hall.changed.send_replace(());
            return;
        }
    };
    let inside = guest.clone();
    (hall.tell)(Progress::Inside {
        guest: inside,
        address,
    });
    let mut handed = false;
    if let Err(error) = serve(hall, &mut stream, &guest, &mut handed).await {
        turn_away(&mut stream, &error).await;
        hall.broke_off(&guest, &error, handed.then_some(address));
    }
}

async fn handshake(hall: &Hall, stream: TcpStream) -> Result<TlsStream<TcpStream>, JoinError> {
    let broken = |source| JoinError::Broken {
        what: "it proved whom it trusts",
        source,
    };
    prepare(&stream).map_err(broken)?;
    let accepted = timeout(STRANGER_TIMEOUT, hall.acceptor.accept(stream)).await;
    accepted
        .unwrap_or_else(|late| Err(late.into()))
        .map_err(broken)
}

/// Before the token nothing is said.
async fn let_in(
    hall: &Hall,
    stream: &mut TlsStream<TcpStream>,
    address: SocketAddr,
) -> Result<Guest, JoinError> {
    let broken = |source| JoinError::Broken {
        what: "its token was awaited",
        source,
    };
    let hello = read(stream, HELLO_BYTES_MAX, STRANGER_TIMEOUT).await;
    let Ask::Hello { version, secret } = hello.map_err(broken)? else {
        let source = io::Error::new(io::ErrorKind::InvalidData, "another word came first");
        return Err(broken(source));
    };
    let guest = hall
        .door()
        .knock(&Secret(secret.0), address, Instant::now())?;
    if version != VERSION {
        // Its token is used up: the same machine comes again with a new one.
        hall.give_out(&guest)?;
        return Err(JoinError::Version { version });
    }
    Ok(guest)
}

/// Says why, if there still is somebody who hears it.
async fn turn_away(stream: &mut TlsStream<TcpStream>, why: &JoinError) {
    if !why.ended_the_conversation() {
        let said = write(stream, &Answer::Refused(why.problem())).await;
        // Who hung up does not hear it; the operator reads it here.
        drop(said);
    }
    drop(timeout(RETRY, stream.shutdown()).await);
}

/// Everything after the token.
async fn serve(
    hall: &Hall,
    stream: &mut TlsStream<TcpStream>,
    guest: &Guest,
    handed: &mut bool,
) -> Result<(), JoinError> {
    let broken = |what| move |source| JoinError::Broken { what, source };
    let welcome = Answer::Welcome {
        version: VERSION,
        cluster: hall.home.cluster,
        authority: hall.home.authority_now()?.1,
        role: match guest {
            Guest::Witness => Role::Witness,
            Guest::Node { .. } => Role::Node,
        },
    };
    write(stream, &welcome)
        .await
        .map_err(broken("it was welcomed"))?;
    let asked = read(stream, ASK_BYTES_MAX, FRAME_TIMEOUT).await;
    let asked = asked.map_err(broken("its request was awaited"))?;
    let (certificate, gift) = gift_for(hall, stream, guest, asked).await?;
    let lacks_witness = matches!(&gift, Answer::Node { witness: None, .. })
        && hall.home.guests().contains(&Guest::Witness);
    // As soon as the first byte may be under way.
    *handed = matches!(gift, Answer::Node { .. });
    write(stream, &gift)
        .await
        .map_err(broken("it was given what it needs"))?;
    let durable = read(stream, ASK_BYTES_MAX, DURABLE_TIMEOUT).await;
    match durable.map_err(broken("it made everything durable"))? {
        Ask::Durable => {}
        Ask::Refused(problem) => return Err(told(guest, problem)),
        Ask::Hello { .. } | Ask::Node { .. } | Ask::Witness { .. } => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "another word came");
            return Err(broken("it made everything durable")(source));
        }
    }
    let existing = match guest {
        Guest::Witness => hall.existing,
        // A node that joins again has another certificate; this file only says that it joined.
        Guest::Node { .. } => Existing::Replaced,
    };
    install(&[hall.home.record_draft(guest, &certificate)], existing)?;
    // If this word is lost, both have everything and only one knows: joining again is harmless.
    drop(write(stream, &Answer::Done).await);
    drop(timeout(RETRY, stream.shutdown()).await);
    (hall.tell)(Progress::Joined {
        guest: guest.clone(),
        lacks_witness,
    });
    hall.door().has_joined(guest);
    hall.changed.send_replace(());
    Ok(())
}

fn told(guest: &Guest, problem: Problem) -> JoinError {
    let (who, problem) = (guest.to_string(), printable(problem));
    JoinError::Told { who, problem }
}

/// What is in the way here is no file of the guest.
fn other_witness(error: JoinError) -> JoinError {
    if let JoinError::Occupied { path } = error {
        return JoinError::OtherWitness { path };
    }
    error
}

/// What the guest needs, and the certificate that shall be written down here.
async fn gift_for(
    hall: &Hall,
    stream: &mut TlsStream<TcpStream>,
    guest: &Guest,
    asked: Ask,
) -> Result<(String, Answer), JoinError> {
    Ok(match (guest, asked) {
        (Guest::Node { name: own, number }, Ask::Node { name, request }) => {
            if name != *own {
                // A name that nobody has, or somebody else's.
                hall.home.guest(&name)?;
                let invited = own.clone();
                return Err(JoinError::OtherGuest { name, invited });
            }
            let (authority, _) = hall.home.authority_now()?;
            let certificate = authority.sign(*number, &request)?;
            await_witness(hall, stream, guest).await?;
            let gift = node_gift(hall, certificate.clone())?;
            (certificate, gift)
        }
        (Guest::Witness, Ask::Witness { certificate }) => {
            check_witness(&certificate)?;
            let draft = hall.home.record_draft(guest, &certificate);
            check(&[draft], hall.existing).map_err(other_witness)?;
            let members = hall.home.members();
            (certificate, Answer::Witness { members })
        }
        (_, Ask::Refused(problem)) => return Err(told(guest, problem)),
        (_, Ask::Hello { .. } | Ask::Node { .. } | Ask::Witness { .. } | Ask::Durable) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "another word came");
            let what = "its request was awaited";
            return Err(JoinError::Broken { what, source });
        }
    })
}

fn node_gift(hall: &Hall, certificate: String) -> Result<Answer, JoinError> {
    Ok(Answer::Node {
        certificate,
        key: STANDARD.encode(hall.home.key_now()?),
        config: hall.home.config_text.clone(),
        witness: hall.home.witness()?,
    })
}

/// Until the witness has joined, if it is invited too: the node gets its certificate.
async fn await_witness(
    hall: &Hall,
    stream: &mut TlsStream<TcpStream>,
    guest: &Guest,
) -> Result<(), JoinError> {
    let broken = |source| JoinError::Broken {
        what: "it waited for the witness",
        source,
    };
    let mut changed = hall.changed.subscribe();
    if hall.witness_is_missing() {
        let (guest, whom) = (guest.clone(), Guest::Witness);
        (hall.tell)(Progress::Waits { guest, whom });
    }
    while hall.witness_is_missing() {
        hall.is_open()?;
        let what = Guest::Witness.to_string();
        write(stream, &Answer::Wait { what })
            .await
            .map_err(broken)?;
        let mut byte = [0];
        tokio::select! {
            _ = changed.changed() => {}
            _ = tokio::time::sleep(WAIT_INTERVAL) => {}
            // It has nothing to say now: this is its end, or nonsense.
            read = stream.read(&mut byte) => {
                let ended = read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                return Err(broken(ended));
            }
        }
    }
    Ok(())
}
