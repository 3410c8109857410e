//! The connections to the peer, few at a time, on the driver's ring: one that counts, one that stands ready on
//! the other path, and some in their handshake, so that a stranger who connects and is silent does not keep the
//! peer out. The node with the lower number listens, the other dials; which path, [`Paths`] says.

mod checksum;
mod listener;
mod receiver;
mod sender;
mod session;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mirror_core::admin::{PathState, PathStatus, Problem};
use mirror_core::event::{CloseReason, IoOwner};
use mirror_core::limits::{HANDSHAKE_LIMIT, PEER_BUFFERS};
use mirror_core::notice::Notice;
use mirror_core::paths::{Change, Paths, Standing, Todo};
use mirror_core::types::{Instant, SessionId};
use mirror_core::wire::{FEATURE_XXH64, Frame, FrameKind, Hello};

pub use receiver::Garbage;

use crate::local_disk::data_buffer;
use crate::ring::{Completion, Kind, Memory, Ring, Span, Token, accepted};
use crate::sys;
use listener::Listener;
use receiver::{Receiver, Step};
use sender::{Overflow, Sender};
use session::{Phase, Session};

/// Connections at the same time: the one that counts, one that stands ready, and 4 in their handshake.
pub const SESSIONS: usize = 6;
/// Size of each buffer of [`Memory::Link`].
pub const LINK_BUFFER_BYTES: usize = 128 * 1024;
/// Buffers of [`Memory::Link`] that the sessions use: one to receive and one to send for each.
pub const SESSION_BUFFERS: u32 = 12;
const _: () = assert!(SESSION_BUFFERS as usize == 2 * SESSIONS);
/// A try ends then: the kernel would ask again too rarely.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A path of the link: an address of each side.
#[derive(Clone, Copy, Debug)]
pub struct PathAddresses {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// Addresses and patience of the link.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    pub paths: Vec<PathAddresses>,
    pub dials: bool,
    pub timeout: Duration,
    /// In a handshake, while another path stands ready.
    pub patience: Duration,
}

/// A frame that has arrived whole.
#[derive(Debug)]
pub struct Arrived {
    pub session: SessionId,
    pub frame: Frame,
    pub body: Span,
    pub buffer: Option<u16>,
}

/// What the link has to tell besides frames.
#[derive(Debug)]
pub enum LinkEvent {
    Opened {
        session: SessionId,
        dialled: bool,
    },
    Closed {
        session: SessionId,
        reason: CloseReason,
    },
    Garbage(Garbage),
    /// A path was lost or is back.
    Path(Notice),
}

/// See the module.
#[derive(Debug)]
pub struct PeerLink {
    settings: LinkSettings,
    paths: Paths,
    /// One for each path; none if this node dials.
    listeners: Vec<Listener>,
    places: [Option<Session>; SESSIONS],
    free_buffers: Vec<u16>,
    next_session: u64,
    events: Vec<LinkEvent>,
}

impl PeerLink {
    /// # Errors
    /// This node listens, and can do so on none of its addresses; one of them and why.
    pub fn new(settings: LinkSettings, now: Instant) -> Result<PeerLink, (SocketAddr, io::Error)> {
        let listeners = if settings.dials {
            Vec::new()
        } else {
            listener::listen(settings.paths.iter().map(|path| path.local), now)?
        };
        let count = settings.paths.len();
        Ok(PeerLink {
            paths: Paths::new(count, settings.dials, settings.patience, now),
            settings,
            listeners,
            places: [const { None }; SESSIONS],
            free_buffers: (0..PEER_BUFFERS).rev().collect(),
            next_session: 1,
            events: Vec::with_capacity(8),
        })
    }

    /// Goes on with everything that is not in flight: accepts, dials, sends, receives, closes.
    pub fn drive(&mut self, ring: &mut Ring, now: Instant) {
        for place in 0..SESSIONS {
            self.drive_place(ring, place, now);
        }
        while let Some(todo) = self.paths.todo(now) {
            match todo {
                Todo::Dial { path } => self.dial(ring, path, now),
                Todo::Use { session, .. } => self.promote(session),
                Todo::GiveUp { session } => self.kill(session),
            }
        }
        if self.places.iter().any(Option::is_none) {
            for (path, listener) in self.listeners.iter_mut().enumerate() {
                listener.drive(ring, path, now);
            }
        }
        while let Some(change) = self.paths.change(now) {
            self.events.push(LinkEvent::Path(self.notice(change)));
        }
    }

    /// When `drive` has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self.places.iter().flatten().filter_map(Session::deadline);
        let free = self.places.iter().any(Option::is_none);
        let accepts = self.listeners.iter().filter(|_| free);
        sessions
            .chain(accepts.filter_map(Listener::deadline))
            .chain(self.paths.deadline())
            .min()
    }

    /// How each path stands.
    pub fn path_status(&self) -> Vec<PathStatus> {
        let paths = self.settings.paths.iter().enumerate();
        paths
            .map(|(path, addresses)| PathStatus {
                number: number(path),
                local: addresses.local.to_string(),
                remote: addresses.remote.to_string(),
                state: match self.paths.standing(path) {
                    Standing::InUse => PathState::InUse,
                    Standing::Ready => PathState::Ready,
                    Standing::Down => PathState::Down,
                },
            })
            .collect()
    }

    /// Paths whose loss the operator was told.
    pub fn path_problems(&self) -> Vec<Problem> {
        let lost = |path: &usize| self.paths.is_told_lost(*path);
        let paths = (0..self.settings.paths.len()).filter(lost);
        paths
            .map(|path| self.notice(Change::Lost { path }).problem())
            .collect()
    }

    fn notice(&self, change: Change) -> Notice {
        let (Change::Lost { path } | Change::Back { path }) = change;
        let addresses = self.settings.paths[path];
        let (number, local, remote) = (
            number(path),
            addresses.local.to_string(),
            addresses.remote.to_string(),
        );
        match change {
            Change::Lost { .. } => Notice::PathLost {
                number,
                local,
                remote,
            },
            Change::Back { .. } => Notice::PathBack {
                number,
                local,
                remote,
            },
        }
    }

    /// Takes what there is to tell.
    pub fn take_event(&mut self) -> Option<LinkEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// Whether everything that was sent is out.
    pub fn flushed(&self) -> bool {
        self.places
            .iter()
            .flatten()
            .all(|session| session.sender.is_empty() || !session.known_to_core)
    }

    /// The next frame of a place, if it has arrived whole.
    pub fn next_frame(&mut self, ring: &mut Ring, place: u8, now: Instant) -> Option<Arrived> {
        let session = self.places[usize::from(place)]
            .as_mut()
            .filter(|session| session.is_open())?;
        match session.receiver.next(ring, &mut self.free_buffers) {
            Step::Frame {
                frame,
                body,
                buffer,
            } => {
                let (id, path) = (session.id, session.path);
                self.paths.heard(id, now);
                if frame.kind == FrameKind::Hello
                    && let Ok(hello) = Hello::decode(ring.bytes(body))
                    && hello.features & FEATURE_XXH64 != 0
                {
                    session.sender.allow_xxh64();
                }
                if frame.kind == FrameKind::State
                    && let Some(useless) = self.paths.agreed(path, id, now)
                {
                    self.kill(useless);
                }
                Some(Arrived {
                    session: id,
                    frame,
                    body,
                    buffer,
                })
            }
            Step::Wait => None,
            Step::Garbage(garbage) => {
                session.kill(CloseReason::Garbage);
                self.events.push(LinkEvent::Garbage(garbage));
                None
            }
        }
    }

    /// Queues a frame; on a connection that is closing it is lost, as it would be in the network.
    pub fn send(
        &mut self,
        ring: &mut Ring,
        session: SessionId,
        frame: Frame,
        body: &[u8],
        payload: Option<IoOwner>,
    ) {
        let Some(found) = self.find(session).filter(|found| found.is_open()) else {
            return;
        };
        let span = payload
            .and_then(|owner| data_buffer(ring, owner))
            .map(|buffer| {
                let bytes =
                    usize::try_from(frame.range.bytes()).expect("a payload fits into memory");
                Span {
                    memory: Memory::Data,
                    buffer,
                    offset: 0,
                    bytes,
                }
            });
        if let Err(Overflow) = found.sender.put(ring, frame, body, span) {
            tracing::warn!(
                code = "LS3025",
                "the peer does not read; closing the connection"
            );
            found.kill(CloseReason::Lost);
        }
    }

    pub fn close(&mut self, session: SessionId, now: Instant) {
        let patience = self.settings.patience;
        if let Some(found) = self.find(session) {
            found.close(patience, now);
        }
    }

    /// A receive buffer is free again. Returns the places that may go on reading.
    pub fn release(&mut self, slot: u16) {
        if slot < PEER_BUFFERS {
            debug_assert!(
                !self.free_buffers.contains(&slot),
                "receive buffer {slot} was given back twice"
            );
            self.free_buffers.push(slot);
        }
    }

    /// A place whose payload waited for a buffer that is there now.
    pub fn fed(&mut self) -> Option<u8> {
        if self.free_buffers.is_empty() {
            return None;
        }
        let starved = |place: &Option<Session>| {
            place
                .as_ref()
                .is_some_and(|found| found.is_open() && found.receiver.starved)
        };
        let place = self.places.iter().position(starved)?;
        if let Some(session) = &mut self.places[place] {
            session.receiver.starved = false;
        }
        u8::try_from(place).ok()
    }

    pub fn on_accept(&mut self, completion: &Completion, now: Instant) {
        let outcome = accepted(completion);
        let path = usize::from(completion.token.place);
        if let Some(listener) = self.listeners.get_mut(path) {
            listener.accepted(outcome.is_err(), now);
        }
        let stream = match outcome {
            Ok(fd) => TcpStream::from(fd),
            Err(errno) => {
                tracing::warn!(errno, "accept failed");
                return;
            }
        };
        if let Err(error) = socket::prepare(&stream, self.settings.timeout) {
            tracing::debug!(%error, "the connection ended before it began");
            return;
        }
        let from = stream.peer_addr().map(|address| address.ip()).ok();
        let phase = Phase::Waiting {
            until: Some(now + HANDSHAKE_LIMIT),
        };
        let place = self.add(stream, path, phase, now);
        let Some(id) = place.map(|place| self.id(place)) else {
            return;
        };
        // Who comes from the peer's address may be silent: it stands ready, one on each path.
        if self.settings.paths.len() > 1 && from == Some(self.settings.paths[path].remote.ip()) {
            if let Some(before) = self.paths.stands(path, id, now) {
                self.kill(before);
            }
            if self.paths.is_ready(id)
                && let Some(session) = self.by_id(id)
            {
                session.phase = Phase::Waiting { until: None };
            }
        }
    }

    pub fn on_connect(&mut self, token: Token, now: Instant) {
        let timeout = self.settings.timeout;
        let Some(session) = self.at(token) else {
            return;
        };
        session.connecting = false;
        if !matches!(session.phase, Phase::Connecting { .. }) {
            return;
        }
        match socket::finish_dial(&session.stream, timeout) {
            Ok(()) => {
                session.phase = Phase::Waiting { until: None };
                (session.stood, session.heard) = (true, now);
                let (path, id) = (session.path, session.id);
                if let Some(before) = self.paths.stands(path, id, now) {
                    self.kill(before);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to the peer");
                session.kill(CloseReason::Lost);
            }
        }
    }

    pub fn on_receive(&mut self, token: Token, outcome: Result<usize, i32>, now: Instant) {
        let Some(session) = self.at(token) else {
            return;
        };
        session.receiving = false;
        session.heard = now;
        match outcome {
            Ok(0) => session.kill(CloseReason::Lost),
            Ok(count) if session.is_open() => session.receiver.arrived(count),
            // The dialling side speaks first.
            Ok(_) if session.is_waiting() && session.dialled => session.kill(CloseReason::Garbage),
            Ok(count) if session.is_waiting() => {
                session.receiver.arrived(count);
                self.open(usize::from(token.place));
            }
            Ok(_) | Err(libc::EINTR | libc::EAGAIN) => {}
            Err(_) => session.kill(CloseReason::Lost),
        }
    }

    pub fn on_send(&mut self, token: Token, outcome: Result<usize, i32>) {
        let Some(session) = self.at(token) else {
            return;
        };
        session.sending = false;
        match outcome {
            Ok(count) => session.sender.sent(count),
            Err(libc::EINTR | libc::EAGAIN) => {}
            Err(_) => session.kill(CloseReason::Lost),
        }
    }

    fn drive_place(&mut self, ring: &mut Ring, place: usize, now: Instant) {
        let Some(session) = &mut self.places[place] else {
            return;
        };
        session.progress(now);
        if session.is_deaf() && !session.receiving {
            self.free_buffers.extend(session.receiver.discard());
        }
        if let Some(reason) = session.ended() {
            self.free_buffers.extend(session.receiver.discard());
            if session.known_to_core {
                self.events.push(LinkEvent::Closed {
                    session: session.id,
                    reason,
                });
            }
            let (id, path, stood) = (session.id, session.path, session.stood);
            self.places[place] = None;
            if stood {
                self.paths.ended(id, chance(), now);
            } else {
                // Only who dials has connections that never stood.
                self.paths.failed(path, chance(), now);
            }
            return;
        }
        let token = Token {
            kind: Kind::Receive,
            place: u8::try_from(place).expect("few places"),
            index: 0,
            generation: session.generation,
        };
        let reads = session.is_open() && !session.receiver.starved
            || session.is_deaf()
            || session.is_waiting();
        if reads && !session.receiving {
            let room = session.receiver.room(ring);
            session.receiving = true;
            ring.receive(session.fd(), room, token);
        }
        let writes = session.is_open() || session.is_deaf();
        if writes && !session.sending && !session.sender.is_empty() {
            session.sending = true;
            let fd = session.fd();
            ring.send(
                fd,
                session.sender.gather(),
                Token {
                    kind: Kind::Send,
                    ..token
                },
            );
        }
        if matches!(session.phase, Phase::Dead { .. }) && !session.sending {
            session.sender.clear();
        }
    }

    fn dial(&mut self, ring: &mut Ring, path: usize, now: Instant) {
        let addresses = self.settings.paths[path];
        let phase = Phase::Connecting {
            until: now + CONNECT_MAX,
        };
        let place = match socket::dial(addresses.local, addresses.remote) {
            Ok(stream) => self.add(stream, path, phase, now),
            Err(error) => {
                tracing::debug!(%error, path, "cannot dial the peer");
                None
            }
        };
        let Some((place, session)) =
            place.and_then(|place| Some((place, self.places[place].as_mut()?)))
        else {
            self.paths.failed(path, chance(), now);
            return;
        };
        session.connecting = true;
        let token = Token {
            kind: Kind::Connect,
            place: u8::try_from(place).expect("few places"),
            index: 0,
            generation: session.generation,
        };
        ring.poll(session.fd(), libc::POLLOUT, token);
    }

    /// Tells the core of a connection that stood ready.
    fn promote(&mut self, session: SessionId) {
        let of = |place: &Option<Session>| place.as_ref().is_some_and(|each| each.id == session);
        if let Some(place) = self.places.iter().position(of) {
            self.open(place);
        }
    }

    fn open(&mut self, place: usize) {
        if let Some(session) = &mut self.places[place]
            && session.is_waiting()
        {
            session.phase = Phase::Open;
            session.known_to_core = true;
            self.events.push(LinkEvent::Opened {
                session: session.id,
                dialled: session.dialled,
            });
        }
    }

    fn kill(&mut self, session: SessionId) {
        if let Some(session) = self.by_id(session) {
            session.kill(CloseReason::Lost);
        }
    }

    /// Puts a connection in a free place; without one it is dropped.
    fn add(&mut self, stream: TcpStream, path: usize, phase: Phase, now: Instant) -> Option<usize> {
        let place = self.places.iter().position(Option::is_none)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let buffer = u32::try_from(place).expect("few places") * 2;
        self.places[place] = Some(Session {
            id,
            generation: u32::try_from(id.0 & u64::from(u32::MAX)).expect("masked"),
            path,
            dialled: self.settings.dials,
            known_to_core: false,
            phase,
            stream,
            receiver: Receiver::new(buffer),
            sender: Sender::new(buffer + 1),
            stood: !self.settings.dials,
            heard: now,
            connecting: false,
            receiving: false,
            sending: false,
        });
        Some(place)
    }

    fn id(&self, place: usize) -> SessionId {
        let session = self.places[place].as_ref();
        session.expect("it was just put there").id
    }

    fn by_id(&mut self, id: SessionId) -> Option<&mut Session> {
        self.places
            .iter_mut()
            .flatten()
            .find(|session| session.id == id)
    }

    fn find(&mut self, id: SessionId) -> Option<&mut Session> {
        self.places
            .iter_mut()
            .flatten()
            .find(|session| session.id == id && session.known_to_core)
    }

    fn at(&mut self, token: Token) -> Option<&mut Session> {
        let session = self.places[usize::from(token.place)].as_mut();
        session.filter(|session| session.generation == token.generation)
    }
}

fn number(path: usize) -> u8 {
    u8::try_from(path + 1).expect("few paths")
}

/// So that two nodes do not stay in step.
fn chance() -> u8 {
    sys::random_u64().unwrap_or(0).to_le_bytes()[0]
}
