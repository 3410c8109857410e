//! One connection: its socket, its phase, and what is in flight on it.

use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mirror_core::event::CloseReason;
use mirror_core::types::{Instant, SessionId};

use super::receiver::Receiver;
use super::sender::Sender;

/// How long what was sent before a close may take to go out and be taken.
const CLOSE_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The core does not know it yet.
    Connecting {
        until: Instant,
    },
    /// It stands, nothing was said on it yet, and the core does not know it: it is ready to be used. A
    /// stranger has to say something in time.
    Waiting {
        until: Option<Instant>,
    },
    Open,
    /// The core has closed it; what waits still goes out.
    Flushing {
        until: Instant,
    },
    /// Everything is out; the peer gets time to read it, because a socket that is closed with
    /// unread bytes makes the peer's kernel throw away what it has.
    Lingering {
        until: Instant,
    },
    /// Shut; waits for the operations in flight.
    Dead {
        reason: CloseReason,
    },
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) generation: u32,
    pub(super) path: usize,
    pub(super) dialled: bool,
    pub(super) known_to_core: bool,
    pub(super) phase: Phase,
    pub(super) stream: TcpStream,
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
    /// It was connected once.
    pub(super) stood: bool,
    /// When bytes came last.
    pub(super) heard: Instant,
    pub(super) connecting: bool,
    pub(super) receiving: bool,
    pub(super) sending: bool,
}

impl Session {
    pub(super) fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// Bytes that arrive are not looked at.
    pub(super) fn is_deaf(&self) -> bool {
        matches!(self.phase, Phase::Flushing { .. } | Phase::Lingering { .. })
    }

    /// Closes after what waits has gone out; at once if the peer has been silent for `patience`: it would not
    /// read it, and writes that are frozen wait for the end of this connection.
    pub(super) fn close(&mut self, patience: Duration, now: Instant) {
        if self.is_open() && now.since(self.heard) >= patience {
            self.kill(CloseReason::Silent);
        } else if self.is_open() {
            self.phase = Phase::Flushing {
                until: now + CLOSE_MAX,
            };
        }
    }

    /// Shuts the socket; everything in flight on it ends.
    pub(super) fn kill(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Dead { .. }) {
            return;
        }
        let reason = if self.is_deaf() {
            CloseReason::Local
        } else {
            reason
        };
        self.phase = Phase::Dead { reason };
        // Fails if the peer has shut it already, which is as good.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Goes on to the next phase where time or the end of sending says so.
    pub(super) fn progress(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting { until } | Phase::Waiting { until: Some(until) } if until <= now => {
                self.kill(CloseReason::Lost)
            }
            Phase::Flushing { until } | Phase::Lingering { until } if until <= now => {
                self.kill(CloseReason::Local)
            }
            Phase::Flushing { until } if self.sender.is_empty() && !self.sending => {
                drop(self.stream.shutdown(Shutdown::Write));
                self.phase = Phase::Lingering { until };
            }
            Phase::Connecting { .. }
            | Phase::Waiting { .. }
            | Phase::Open
            | Phase::Flushing { .. }
            | Phase::Lingering { .. }
            | Phase::Dead { .. } => {}
        }
    }

    /// When `progress` has something to do at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { until }
            | Phase::Flushing { until }
            | Phase::Lingering { until } => Some(until),
            Phase::Waiting { until } => until,
            Phase::Open | Phase::Dead { .. } => None,
        }
    }

    /// The reason, once nothing is in flight any more.
    pub(super) fn ended(&self) -> Option<CloseReason> {
        match self.phase {
            Phase::Dead { reason } if !self.connecting && !self.receiving && !self.sending => {
                Some(reason)
            }
            Phase::Connecting { .. }
            | Phase::Waiting { .. }
            | Phase::Open
            | Phase::Flushing { .. }
            | Phase::Lingering { .. }
            | Phase::Dead { .. } => None,
        }
    }
}
