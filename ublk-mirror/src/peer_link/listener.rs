//! The listening side: one socket for each path. With two paths one address may be missing for a while, its
//! card being out: the volume works over the other one, and the socket is made as soon as it can be.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mirror_core::types::Instant;

use super::socket;
use crate::ring::{Kind, Ring, Token};

/// After an accept that failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two tries to listen on an address that is not there.
const LISTEN_PAUSE: Duration = Duration::from_secs(2);

/// One path's socket.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    accepting: bool,
    not_before: Instant,
}

/// A socket for each address.
///
/// # Errors
/// None of them can be listened on; the address and why.
pub(super) fn listen(
    addresses: impl Iterator<Item = SocketAddr>,
    now: Instant,
) -> Result<Vec<Listener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for address in addresses {
        let socket = socket::listen(address)
            .map_err(|error| failed = Some((address, error)))
            .ok();
        listeners.push(Listener {
            address,
            socket,
            accepting: false,
            not_before: now,
        });
    }
    match failed {
        Some((address, error)) if listeners.iter().any(|each| each.socket.is_some()) => {
            tracing::warn!(
                code = "LS2072",
                advice = "see that this is an address of this machine and nobody else uses the port; it is tried again",
                "cannot listen on {address}, the other path has to do: {error}"
            );
            Ok(listeners)
        }
        Some(failed) => Err(failed),
        None => Ok(listeners),
    }
}

impl Listener {
    /// Waits for a connection, if there is room for one.
    pub(super) fn drive(&mut self, ring: &mut Ring, path: usize, now: Instant) {
        if self.accepting || self.not_before > now {
            return;
        }
        if self.socket.is_none() {
            self.socket = socket::listen(self.address).ok();
        }
        let Some(socket) = &self.socket else {
            self.not_before = now + LISTEN_PAUSE;
            return;
        };
        self.accepting = true;
        let token = Token {
            place: u8::try_from(path).expect("few paths"),
            ..Token::new(Kind::Accept)
        };
        ring.accept(socket.as_raw_fd(), token);
    }

    /// An accept has ended.
    pub(super) fn accepted(&mut self, failed: bool, now: Instant) {
        self.accepting = false;
        if failed {
            self.not_before = now + ACCEPT_PAUSE;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.accepting).then_some(self.not_before)
    }
}
