//! The paths between the nodes: who dials which, what stands ready, what is cut. The rules are the core's
//! ([`mirror_core::paths`]); here is what a shell and its kernel do.

use mirror_core::event::CloseReason;
use mirror_core::paths::{Change, Paths, Standing, Todo};
use mirror_core::types::{Instant, SessionId};

use super::node::MS;
use super::world::{Happening, World};

/// A try to connect over a silent path ends then, without haste.
const CONNECT_MAX: u64 = 1000 * MS;
/// A silent path is noticed on a connection that stands ready after so long, without haste.
const SPARE_LOST: u64 = 2500 * MS;
/// Between two looks at the connections that stand ready, without haste.
const LOOK: u64 = 500 * MS;
/// Connections of a node at most: no more are taken.
const CONNECTIONS_MAX: usize = 6;

impl World {
    /// A node's clock as the paths see it: their times know nothing of the run's haste.
    pub(super) fn path_clock(&self, node: usize) -> Instant {
        let clock = self.nodes[node].clock(self.now);
        Instant::from_nanos(clock.as_nanos() * self.plan.haste)
    }

    fn with_paths<T>(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut Paths, u8, Instant) -> T,
    ) -> Option<T> {
        let clock = self.path_clock(node);
        let chance = u8::try_from(self.rng.below(256)).unwrap_or(0);
        let process = self.nodes[node].process.as_mut()?;
        Some(act(&mut process.paths, chance, clock))
    }

    /// Does what is to be done on a node's paths.
    pub(super) fn drive_paths(&mut self, node: usize, process: u64) {
        while self.nodes[node].process_is(process) {
            let Some(Some(todo)) = self.with_paths(node, |paths, _, now| paths.todo(now)) else {
                break;
            };
            match todo {
                Todo::Dial { path } => self.dial(node, process, path),
                Todo::Use { session, .. } => {
                    if let Some(number) = self.network.find(node, process, session) {
                        self.opened(number, node, true);
                    }
                }
                Todo::GiveUp { session } => {
                    self.count("silent candidate given up");
                    self.drop_session(node, process, session);
                }
            }
        }
        while let Some(Some(change)) = self.with_paths(node, |paths, _, now| paths.change(now)) {
            self.note(|| format!("{node} path {change:?}"));
            self.count(match change {
                Change::Lost { .. } => "path told lost",
                Change::Back { .. } => "path told back",
            });
        }
        self.plan_paths(node, process);
    }

    fn plan_paths(&mut self, node: usize, number: u64) {
        let haste = self.plan.haste;
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        if process.number != number {
            return;
        }
        let Some(deadline) = process.paths.deadline() else {
            return;
        };
        let local = Instant::from_nanos(deadline.as_nanos() / haste + 1);
        let time = self.nodes[node].when(local).max(self.now + 1000);
        let happening = Happening::Paths {
            node,
            process: number,
        };
        self.at(time - self.now, happening);
    }

    /// The paths are looked at soon.
    pub(super) fn wake_paths(&mut self, node: usize) {
        if let Some(process) = self.nodes[node].process.as_ref() {
            let process = process.number;
            self.at(1000, Happening::Paths { node, process });
        }
    }

    fn dial(&mut self, node: usize, process: u64, path: usize) {
        let peer = 1 - node;
        let other = self.nodes[peer].process.as_ref();
        let other = other.map(|process| process.number);
        let silent = self.network.is_cut(path) || !self.nodes[peer].power;
        let room = other.is_some_and(|other| self.network.of(peer, other).len() < CONNECTIONS_MAX);
        let after = self.micros(100, 5000);
        let happening = match other {
            Some(other) if room && !silent => {
                let connection = self.connect(path, node, process, other);
                let side = Happening::Stood {
                    connection,
                    path,
                    node: peer,
                    process: other,
                };
                self.at(after, side);
                Happening::Stood {
                    connection,
                    path,
                    node,
                    process,
                }
            }
            Some(_) | None => Happening::DialFailed {
                node,
                process,
                path,
            },
        };
        let slow = if silent {
            CONNECT_MAX / self.plan.haste
        } else {
            0
        };
        self.at(after + slow, happening);
    }

    pub(super) fn dial_failed(&mut self, node: usize, process: u64, path: usize) {
        if self.nodes[node].process_is(process) {
            self.with_paths(node, |paths, chance, now| paths.failed(path, chance, now));
            self.wake_paths(node);
        }
    }

    /// A connection stands on one side.
    pub(super) fn stood(&mut self, number: u64, path: usize, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        let connection = self.network.connections.get(&number);
        let end = connection.map(|connection| &connection.ends[node]);
        let Some(session) = end.filter(|end| !end.closed).map(|end| end.session) else {
            self.dial_failed(node, process, path);
            return;
        };
        if end.is_some_and(|end| end.opened) {
            return;
        }
        let before = self.with_paths(node, |paths, _, now| paths.stands(path, session, now));
        if let Some(before) = before.flatten() {
            self.drop_session(node, process, before);
        }
        self.wake_paths(node);
    }

    /// Ends a connection at once.
    pub(super) fn drop_session(&mut self, node: usize, process: u64, session: SessionId) {
        if let Some(number) = self.network.find(node, process, session) {
            self.end(number, node, CloseReason::Lost, 200);
            self.send_end(number, node);
        }
    }

    /// A connection of a process is over.
    pub(super) fn path_ended(&mut self, node: usize, session: SessionId) {
        self.with_paths(node, |paths, chance, now| paths.ended(session, chance, now));
        self.wake_paths(node);
    }

    /// A frame came.
    pub(super) fn path_heard(
        &mut self,
        node: usize,
        path: usize,
        session: SessionId,
        proved: bool,
    ) {
        let useless = self.with_paths(node, |paths, _, now| {
            paths.heard(session, now);
            proved.then(|| paths.agreed(path, session, now)).flatten()
        });
        let process = self.nodes[node].process.as_ref();
        let process = process.map(|process| process.number);
        if let (Some(Some(useless)), Some(process)) = (useless, process) {
            self.drop_session(node, process, useless);
        }
        if proved {
            if path > 0 {
                self.count("session on the second path");
            }
            self.wake_paths(node);
        }
    }

    /// The kernels ask on connections that stand ready whether the path still works.
    pub(super) fn look_at_spares(&mut self) {
        self.at(LOOK / self.plan.haste, Happening::Spares);
        let lost = SPARE_LOST / self.plan.haste;
        let mut over = Vec::new();
        for (number, connection) in &self.network.connections {
            let silent = self.network.cut_since(connection.path);
            let silent = silent.is_some_and(|since| self.now >= since + lost);
            for node in 0..2 {
                let (end, other) = (&connection.ends[node], &connection.ends[1 - node]);
                let gone = !self.nodes[1 - node].power;
                if !end.opened && !end.closed && (silent || other.closed || gone) {
                    over.push((*number, node));
                }
            }
        }
        for (number, node) in over {
            self.count("spare lost");
            self.end(number, node, CloseReason::Lost, 300_000 / self.plan.haste);
        }
        self.check_progress();
        self.check_service();
    }

    /// A cut is over; in peace a lame path stays cut.
    pub(super) fn heal_path(&mut self, path: usize) {
        if self.chaos || self.plan.lame_path != Some(path) {
            self.cut_path(path, [false, false]);
        }
    }

    /// Cuts one path, for these senders.
    pub fn cut_path(&mut self, path: usize, silent: [bool; 2]) {
        let path = path % self.plan.paths;
        self.note(|| format!("path {path} silent {silent:?}"));
        self.network.cut[path] = silent;
        self.network_changed();
    }

    /// Breaks the connections of one path.
    pub(super) fn break_path(&mut self, path: usize) {
        let path = path % self.plan.paths;
        self.note(|| format!("path {path} breaks"));
        self.break_those(|connection| connection.path == path);
    }

    /// How the paths stand on a node.
    pub fn path_standing(&self, node: usize) -> Vec<Standing> {
        let Some(process) = self.nodes[node].process.as_ref() else {
            return Vec::new();
        };
        let paths = 0..self.plan.paths;
        paths.map(|path| process.paths.standing(path)).collect()
    }
}
