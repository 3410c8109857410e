//! The connections to the peer, few at a time, on the driver's ring: one that counts, and some in
//! their handshake, so that a stranger who connects and is silent does not keep the peer out. The node with the lower number listens, the other dials.

mod receiver;
mod sender;
mod session;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mirror_core::event::{CloseReason, IoOwner};
use mirror_core::limits::PEER_BUFFERS;
use mirror_core::types::{Instant, SessionId};
use mirror_core::wire::{Frame, FrameKind};

pub use receiver::Garbage;

use crate::local_disk::data_buffer;
use crate::ring::{Completion, Kind, Memory, Ring, Span, Token, accepted};
use crate::sys;
use receiver::{Receiver, Step};
use sender::{Overflow, Sender};
use session::{Phase, Session};

/// Connections at the same time: the one that counts, and 4 in their handshake.
pub const SESSIONS: usize = 5;
/// Size of each buffer of [`Memory::Link`].
pub const LINK_BUFFER_BYTES: usize = 128 * 1024;
/// Buffers of [`Memory::Link`] that the sessions use: one to receive and one to send for each.
pub const SESSION_BUFFERS: u32 = 10;
const _: () = assert!(SESSION_BUFFERS as usize == 2 * SESSIONS);
const CONNECT_MAX: Duration = Duration::from_secs(3);
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(200);
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(2);
/// After an accept that failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who begins.
#[derive(Debug)]
enum Side {
    Listens {
        listener: TcpListener,
        accepting: bool,
        not_before: Instant,
    },
    Dials {
        not_before: Instant,
        pause: Duration,
    },
}

/// Addresses and patience of the link.
#[derive(Clone, Copy, Debug)]
pub struct LinkSettings {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub dials: bool,
    pub timeout: Duration,
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
}

/// See the module.
#[derive(Debug)]
pub struct PeerLink {
    settings: LinkSettings,
    side: Side,
    places: [Option<Session>; SESSIONS],
    free_buffers: Vec<u16>,
    next_session: u64,
    events: Vec<LinkEvent>,
}

impl PeerLink {
    pub fn new(settings: LinkSettings, now: Instant) -> io::Result<PeerLink> {
        let side = if settings.dials {
            Side::Dials {
                not_before: now,
                pause: DIAL_PAUSE_MIN,
            }
        } else {
            Side::Listens {
                listener: socket::listen(settings.local)?,
                accepting: false,
                not_before: now,
            }
        };
        Ok(PeerLink {
            settings,
            side,
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
        let free = self.places.iter().any(Option::is_none);
        let idle = self.places.iter().all(Option::is_none);
        match &mut self.side {
            Side::Listens {
                listener,
                accepting,
                not_before,
            } if free && !*accepting && *not_before <= now => {
                *accepting = true;
                ring.accept(listener.as_raw_fd(), Token::new(Kind::Accept));
            }
            Side::Dials { not_before, .. } if idle && *not_before <= now => self.dial(ring, now),
            Side::Listens { .. } | Side::Dials { .. } => {}
        }
    }

    /// When `drive` has something to do at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let sessions = self
            .places
            .iter()
            .flatten()
            .filter_map(Session::deadline)
            .min();
        let free = self.places.iter().any(Option::is_none);
        let idle = self.places.iter().all(Option::is_none);
        let begin = match &self.side {
            Side::Listens {
                accepting,
                not_before,
                ..
            } => (free && !accepting).then_some(*not_before),
            Side::Dials { not_before, .. } => idle.then_some(*not_before),
        };
        sessions.into_iter().chain(begin).min()
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
    pub fn next_frame(&mut self, ring: &mut Ring, place: u8) -> Option<Arrived> {
        let session = self.places[usize::from(place)]
            .as_mut()
            .filter(|session| session.is_open())?;
        match session.receiver.next(ring, &mut self.free_buffers) {
            Step::Frame {
                frame,
                body,
                buffer,
            } => {
                if let (Side::Dials { pause, .. }, FrameKind::State) = (&mut self.side, frame.kind)
                {
                    *pause = DIAL_PAUSE_MIN;
                }
                Some(Arrived {
                    session: session.id,
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
        let span = payload.and_then(data_buffer).map(|buffer| {
            let bytes = usize::try_from(frame.range.bytes()).expect("a payload fits into memory");
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
        if let Some(found) = self.find(session) {
            found.close(now);
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
        if let Side::Listens {
            accepting,
            not_before,
            ..
        } = &mut self.side
        {
            *accepting = false;
            if outcome.is_err() {
                *not_before = now + ACCEPT_PAUSE;
            }
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
        if let Some(place) = self.add(stream, Phase::Open) {
            self.opened(place);
        }
    }

    pub fn on_connect(&mut self, token: Token) {
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
                session.phase = Phase::Open;
                self.opened(usize::from(token.place));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to the peer");
                session.kill(CloseReason::Lost);
            }
        }
    }

    pub fn on_receive(&mut self, token: Token, outcome: Result<usize, i32>) {
        let Some(session) = self.at(token) else {
            return;
        };
        session.receiving = false;
        match outcome {
            Ok(0) => session.kill(CloseReason::Lost),
            Ok(count) if session.is_open() => session.receiver.arrived(count),
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
            self.places[place] = None;
            self.pause_dialling(now);
            return;
        }
        let token = Token {
            kind: Kind::Receive,
            place: u8::try_from(place).expect("few places"),
            index: 0,
            generation: session.generation,
        };
        let reads = session.is_open() && !session.receiver.starved || session.is_deaf();
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

    fn dial(&mut self, ring: &mut Ring, now: Instant) {
        match socket::dial(self.settings.local, self.settings.remote) {
            Ok(stream) => {
                let Some(place) = self.add(
                    stream,
                    Phase::Connecting {
                        until: now + CONNECT_MAX,
                    },
                ) else {
                    return;
                };
                let Some(session) = &mut self.places[place] else {
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
            Err(error) => {
                tracing::debug!(%error, "cannot dial the peer");
                self.pause_dialling(now);
            }
        }
    }

    fn pause_dialling(&mut self, now: Instant) {
        if let Side::Dials { not_before, pause } = &mut self.side {
            // Up to a quarter more, so that two nodes do not stay in step.
            let jitter = sys::random_u64().unwrap_or(0) % 256;
            let extra = pause.mul_f64(f64::from(u32::try_from(jitter).unwrap_or(0)) / 1024.0);
            *not_before = now + (*pause + extra);
            *pause = (*pause * 2).min(DIAL_PAUSE_MAX);
        }
    }

    /// Puts a connection in a free place; without one it is dropped.
    fn add(&mut self, stream: TcpStream, phase: Phase) -> Option<usize> {
        let place = self.places.iter().position(Option::is_none)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let buffer = u32::try_from(place).expect("few places") * 2;
        self.places[place] = Some(Session {
            id,
            generation: u32::try_from(id.0 & u64::from(u32::MAX)).expect("masked"),
            dialled: self.settings.dials,
            known_to_core: false,
            phase,
            stream,
            receiver: Receiver::new(buffer),
            sender: Sender::new(buffer + 1),
            connecting: false,
            receiving: false,
            sending: false,
        });
        Some(place)
    }

    fn opened(&mut self, place: usize) {
        if let Some(session) = &mut self.places[place] {
            session.known_to_core = true;
            self.events.push(LinkEvent::Opened {
                session: session.id,
                dialled: session.dialled,
            });
        }
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
