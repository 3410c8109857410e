//! Moves frames and ends connections.

use mirror_core::event::{CloseReason, Event};
use mirror_core::types::SessionId;
use mirror_core::wire::FrameKind;

use super::network::{Connection, InTransit, Message};
use super::node::MS;
use super::world::{Happening, World};

/// A peer that was silent for so long reads nothing of what is sent at the end, without haste.
const PATIENCE: u64 = 1000 * MS;

impl World {
    /// The peer is dialled although a connection stands: the end of that one was not seen there.
    pub(super) fn second_dial(&mut self, node: usize, process: u64) {
        let other = self.nodes[1 - node].process.as_ref();
        let Some(other) = other.map(|process| process.number) else {
            return;
        };
        let path = self.rng.index(self.plan.paths);
        if self.nodes[node].process_is(process) && !self.network.is_cut(path) {
            self.count("second connections");
            self.disturb();
            let connection = self.connect(path, node, process, other);
            let after = self.micros(100, 5000);
            let dialled = true;
            self.at(
                after,
                Happening::Opened {
                    connection,
                    node,
                    dialled,
                },
            );
        }
    }

    pub(super) fn connect(&mut self, path: usize, node: usize, process: u64, other: u64) -> u64 {
        let mut processes = [process; 2];
        processes[1 - node] = other;
        for place in &mut self.nodes {
            place.sessions += 1;
        }
        let sessions = [
            SessionId(self.nodes[0].sessions),
            SessionId(self.nodes[1].sessions),
        ];
        self.network.connect(path, sessions, processes)
    }

    pub(super) fn opened(&mut self, number: u64, node: usize, dialled: bool) {
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        let end = &mut connection.ends[node];
        if end.closed || end.opened || !self.nodes[node].process_is(end.process) {
            return;
        }
        end.opened = true;
        end.heard = self.now;
        let session = end.session;
        self.note(|| format!("{node} session {} opened", session.0));
        self.feed(node, Event::SessionOpened { session, dialled });
        self.at(
            0,
            Happening::Arrive {
                connection: number,
                from: 1 - node,
            },
        );
    }

    pub(super) fn arrive(&mut self, number: u64, from: usize) {
        let to = 1 - from;
        loop {
            let now = self.now;
            let path = self.network.connections.get(&number).map(|each| each.path);
            if path.is_none_or(|path| self.network.is_silent(path, from)) || self.failure.is_some()
            {
                return;
            }
            let Some(connection) = self.network.connections.get_mut(&number) else {
                return;
            };
            if connection.broken {
                return;
            }
            let end = &connection.ends[to];
            let (opened, closed, process) = (end.opened, end.closed, end.process);
            if closed || !self.nodes[to].process_is(process) {
                connection.ends[from].out.clear();
                return;
            }
            let due = connection.ends[from]
                .out
                .front()
                .is_some_and(|transit| transit.arrives <= now);
            if !due {
                return;
            }
            let end = matches!(
                connection.ends[from]
                    .out
                    .front()
                    .map(|transit| &transit.message),
                Some(Message::End)
            );
            if !opened && !end {
                // Who listens tells its core of a connection when something is said on it.
                self.opened(number, to, false);
            }
            if self.needs_buffer(number, from) && self.free_buffer(to).is_none() {
                self.count("receive buffers ran out");
                self.at(
                    MS,
                    Happening::Arrive {
                        connection: number,
                        from,
                    },
                );
                return;
            }
            let Some(connection) = self.network.connections.get_mut(&number) else {
                return;
            };
            let Some(transit) = connection.ends[from].out.pop_front() else {
                return;
            };
            self.deliver(number, to, transit);
        }
    }

    fn needs_buffer(&self, number: u64, from: usize) -> bool {
        let Some(connection) = self.network.connections.get(&number) else {
            return false;
        };
        let Some(transit) = connection.ends[from].out.front() else {
            return false;
        };
        matches!(transit.message, Message::Frame { data: Some(_), .. })
    }

    fn free_buffer(&self, node: usize) -> Option<u16> {
        let process = self.nodes[node].process.as_ref()?;
        let slot = process.receive.iter().position(Option::is_none)?;
        u16::try_from(slot).ok()
    }

    fn deliver(&mut self, number: u64, to: usize, transit: InTransit) {
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        let path = connection.path;
        let end = &mut connection.ends[to];
        let session = end.session;
        end.heard = self.now;
        match transit.message {
            Message::End => self.end(number, to, CloseReason::Lost, 2000),
            Message::Frame { .. } if transit.altered => {
                self.disturb();
                self.note(|| format!("{to} got a payload with a wrong checksum"));
                self.count("payload damaged");
                self.end(number, to, CloseReason::Garbage, 1000);
                self.send_end(number, to);
            }
            Message::Frame { frame, body, data } => {
                let kind = frame.kind;
                end.authenticated |= frame.kind == FrameKind::State;
                let early = !end.authenticated && kind.has_payload();
                self.path_heard(to, path, session, kind == FrameKind::State);
                if !matches!(
                    kind,
                    FrameKind::Ping | FrameKind::Pong | FrameKind::CopyWrite | FrameKind::CopyDone
                ) {
                    self.note(|| {
                        format!(
                            "{to} receives {kind:?} id {} epoch {}",
                            frame.id, frame.epoch
                        )
                    });
                }
                if early {
                    self.fail(format!("{to}: {:?} before any State", frame.kind));
                    return;
                }
                let buffer = data.as_ref().and_then(|_| self.free_buffer(to));
                if let (Some(slot), Some(process)) = (buffer, self.nodes[to].process.as_mut()) {
                    process.receive[usize::from(slot)] = data;
                }
                self.feed(
                    to,
                    Event::Received {
                        session,
                        frame,
                        body: &body,
                        buffer,
                    },
                );
            }
        }
    }

    /// The core is told within `micros` that the connection is over.
    pub(super) fn end(&mut self, number: u64, node: usize, reason: CloseReason, micros: u64) {
        let after = self.micros(10, micros);
        self.at(
            after,
            Happening::Closed {
                connection: number,
                node,
                reason,
            },
        );
    }

    pub(super) fn send_end(&mut self, number: u64, node: usize) {
        let now = self.now;
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        let out = &mut connection.ends[node].out;
        let arrives = out.back().map_or(now, |last| last.arrives).max(now) + 100_000;
        out.push_back(InTransit {
            arrives,
            sent: arrives,
            source: None,
            altered: false,
            message: Message::End,
        });
        self.at(
            arrives - now,
            Happening::Arrive {
                connection: number,
                from: node,
            },
        );
    }

    pub(super) fn close(&mut self, node: usize, process: u64, session: SessionId) {
        let Some(number) = self.network.find(node, process, session) else {
            return;
        };
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        if connection.ends[node].closing {
            self.fail(format!("{node}: session {} was closed twice", session.0));
            return;
        }
        connection.ends[node].closing = true;
        let path = connection.path;
        let quiet = self.now - connection.ends[node].heard;
        self.note(|| format!("{node} closes session {}", session.0));
        self.send_end(number, node);
        let longest = if quiet >= PATIENCE / self.plan.haste {
            200
        } else if self.network.is_silent(path, node) {
            1_000_000 / self.plan.haste
        } else {
            20_000
        };
        self.end(number, node, CloseReason::Local, longest);
    }

    pub(super) fn closed(&mut self, number: u64, node: usize, reason: CloseReason) {
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        let end = &mut connection.ends[node];
        if end.closed || !self.nodes[node].process_is(end.process) {
            end.closed = true;
            return;
        }
        end.closed = true;
        let (session, opened) = (end.session, end.opened);
        // What was being sent is given up; the other side sees the end.
        if reason != CloseReason::Local {
            end.out.clear();
        }
        connection.ends[1 - node].out.clear();
        self.note(|| format!("{node} session {} closed: {reason:?}", session.0));
        self.send_end(number, node);
        self.path_ended(node, session);
        if opened {
            self.feed(node, Event::SessionClosed { session, reason });
            self.hurry(node);
        }
        self.network.tidy();
    }

    /// Breaks every connection; both sides learn it by themselves.
    pub(super) fn break_connections(&mut self) {
        self.note(|| "connections break".to_string());
        self.break_those(|_| true);
    }

    pub(super) fn break_those(&mut self, which: impl Fn(&Connection) -> bool) {
        self.disturb();
        let all = self.network.connections.iter();
        let broken = all.filter(|(_, connection)| which(connection));
        let numbers: Vec<u64> = broken.map(|(number, _)| *number).collect();
        for number in numbers {
            for node in 0..2 {
                if let Some(connection) = self.network.connections.get_mut(&number) {
                    connection.broken = true;
                }
                self.end(number, node, CloseReason::Lost, 300_000 / self.plan.haste);
            }
        }
    }

    /// Whom the network swallows from now on.
    pub fn silence(&mut self, silent: [bool; 2]) {
        self.note(|| format!("network silent {silent:?}"));
        self.network.silent = silent;
        self.network_changed();
    }

    pub(super) fn network_changed(&mut self) {
        self.disturb();
        self.network.note_cuts(self.now);
        let numbers: Vec<u64> = self.network.connections.keys().copied().collect();
        for connection in numbers {
            for from in 0..2 {
                self.at(100_000, Happening::Arrive { connection, from });
            }
        }
    }

    /// The process of a node is gone. Killed: its kernel says so; without power: nobody does.
    pub(super) fn drop_connections(&mut self, node: usize, process: u64, told: bool) {
        for number in self.network.of(node, process) {
            let kept = self.rng.index(8);
            let Some(connection) = self.network.connections.get_mut(&number) else {
                continue;
            };
            let end = &mut connection.ends[node];
            end.closed = true;
            end.out.truncate(kept);
            connection.ends[1 - node].out.clear();
            if told {
                self.send_end(number, node);
            }
        }
    }

    /// A machine that booted answers old connections with a reset.
    pub(super) fn reset_old_connections(&mut self, node: usize) {
        let numbers: Vec<u64> = self.network.connections.keys().copied().collect();
        for number in numbers {
            if self.network.connections[&number].ends[node].closed {
                self.end(
                    number,
                    1 - node,
                    CloseReason::Lost,
                    900_000 / self.plan.haste,
                );
            }
        }
    }
}
