//! Connections: frames in order in each direction, delays, silence, breaks.

use std::collections::{BTreeMap, VecDeque};

use mirror_core::effect::PayloadSource;
use mirror_core::paths::PATHS_MAX;
use mirror_core::types::SessionId;
use mirror_core::wire::Frame;

use super::disk::Value;

/// What travels.
#[derive(Clone, Debug)]
pub enum Message {
    /// A frame with its body and payload.
    Frame {
        /// Header.
        frame: Frame,
        /// Control body.
        body: Vec<u8>,
        /// Data.
        data: Option<Vec<Value>>,
    },
    /// The other side has closed.
    End,
}

/// A message with its time.
#[derive(Clone, Debug)]
pub struct InTransit {
    /// When it arrives at the earliest.
    pub arrives: u64,
    /// Until then the sender's buffer is read.
    pub sent: u64,
    /// Which buffer.
    pub source: Option<PayloadSource>,
    /// The buffer was reused before it was sent: its checksum is wrong now.
    pub altered: bool,
    /// What.
    pub message: Message,
}

/// One side of a connection.
#[derive(Debug)]
pub struct End {
    /// The node's number for it.
    pub session: SessionId,
    /// The process that it belongs to.
    pub process: u64,
    /// The core knows it.
    pub opened: bool,
    /// Nothing is delivered to this side any more.
    pub closed: bool,
    /// This side has asked to close.
    pub closing: bool,
    /// A `State` frame has arrived.
    pub authenticated: bool,
    /// When a frame arrived last.
    pub heard: u64,
    /// What this side has sent and is not delivered.
    pub out: VecDeque<InTransit>,
}

impl End {
    fn new(session: SessionId, process: u64) -> Self {
        Self {
            session,
            process,
            opened: false,
            closed: false,
            closing: false,
            authenticated: false,
            heard: 0,
            out: VecDeque::new(),
        }
    }
}

/// A connection between node 0 and node 1.
#[derive(Debug)]
pub struct Connection {
    /// Over which path.
    pub path: usize,
    /// The sides, by node.
    pub ends: [End; 2],
    /// Nothing arrives any more on either side.
    pub broken: bool,
}

/// All connections, and what the network lets through.
#[derive(Debug, Default)]
pub struct Network {
    /// By number.
    pub connections: BTreeMap<u64, Connection>,
    /// Nothing sent by this node arrives.
    pub silent: [bool; 2],
    /// The same for each path alone.
    pub cut: [[bool; 2]; PATHS_MAX],
    /// Since when a path is not whole.
    cut_since: [Option<u64>; PATHS_MAX],
    numbers: u64,
}

impl Network {
    /// A connection stands.
    pub fn connect(&mut self, path: usize, sessions: [SessionId; 2], processes: [u64; 2]) -> u64 {
        self.numbers += 1;
        let ends = [
            End::new(sessions[0], processes[0]),
            End::new(sessions[1], processes[1]),
        ];
        self.connections.insert(
            self.numbers,
            Connection {
                path,
                ends,
                broken: false,
            },
        );
        self.numbers
    }

    /// Whether nothing sent by this node over this path arrives.
    pub fn is_silent(&self, path: usize, from: usize) -> bool {
        self.silent[from] || self.cut[path][from]
    }

    /// Whether a path is not whole.
    pub fn is_cut(&self, path: usize) -> bool {
        self.is_silent(path, 0) || self.is_silent(path, 1)
    }

    /// Since when a path is not whole.
    pub fn cut_since(&self, path: usize) -> Option<u64> {
        self.cut_since[path]
    }

    /// Notes what the network lets through from now on.
    pub fn note_cuts(&mut self, now: u64) {
        for path in 0..PATHS_MAX {
            let since = self.cut_since[path].unwrap_or(now);
            self.cut_since[path] = self.is_cut(path).then_some(since);
        }
    }

    /// Whether a connection that is in use hangs on a path that is not whole.
    pub fn any_hangs(&self) -> bool {
        let used = |connection: &Connection| connection.ends.iter().any(|end| end.opened);
        let mut connections = self.connections.values();
        connections.any(|connection| used(connection) && self.is_cut(connection.path))
    }

    /// The connection that is `session` on `node`'s present process.
    pub fn find(&self, node: usize, process: u64, session: SessionId) -> Option<u64> {
        let mine = |connection: &Connection| {
            let end = &connection.ends[node];
            end.process == process && end.session == session && !end.closed
        };
        self.connections
            .iter()
            .find(|(_, connection)| mine(connection))
            .map(|(number, _)| *number)
    }

    /// Connections that a process still has.
    pub fn of(&self, node: usize, process: u64) -> Vec<u64> {
        let mine = |connection: &Connection| {
            connection.ends[node].process == process && !connection.ends[node].closed
        };
        self.connections
            .iter()
            .filter(|(_, connection)| mine(connection))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Removes what both sides have forgotten.
    pub fn tidy(&mut self) {
        self.connections
            .retain(|_, connection| connection.ends.iter().any(|end| !end.closed));
    }

    /// The process reuses a buffer at `now`: what is still being sent from it is spoiled.
    pub fn reuse(&mut self, node: usize, process: u64, source: PayloadSource, now: u64) -> bool {
        let mut spoiled = false;
        for connection in self.connections.values_mut() {
            let end = &mut connection.ends[node];
            if end.process != process || end.closed {
                continue;
            }
            for transit in &mut end.out {
                if transit.source == Some(source) && transit.sent > now {
                    transit.altered = true;
                    spoiled = true;
                }
            }
        }
        spoiled
    }
}
