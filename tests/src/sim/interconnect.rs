//! Heartbeats between the nodes, and the thread of `lockstepd` that sends and counts them. Interconnects lose, delay,
//! repeat and disorder datagrams, are cut in one or both directions, and somebody sends recordings.

use std::collections::VecDeque;
use std::time::Duration;

use controlplane_core::failure_detector::{Change, Presence};
use controlplane_core::membership::Reception;
use controlplane_core::wire::Heartbeat;
use mirror_core::types::NodeId;

use super::control::{Incoming, Step, TIMING};
use super::node::MS;
use super::world::World;

/// Heartbeats that somebody keeps, of each node.
const RECORDED_MAX: usize = 40;
/// Between two recordings, milliseconds without haste.
const REPLAY_MS: u64 = 700;
/// Something so old is a recording, milliseconds without haste.
const RECORDED_MS: u64 = 1700;
/// A node is known to be dead so long after its time-out, milliseconds without haste: clocks and looks.
const BELIEF_MS: u64 = 500;

/// The paths beside the mirror link.
#[derive(Debug)]
pub(super) struct Interconnects {
    /// Nothing that this node sends on a path arrives.
    pub(super) cut: Vec<[bool; 2]>,
    recorded: [VecDeque<(u64, Heartbeat)>; 2],
    /// Heartbeats are lost and late; not in scenes at the end.
    pub(super) noisy: bool,
    /// When each node last got something that was no recording.
    genuine: [u64; 2],
}

impl Interconnects {
    pub(super) fn new(paths: usize) -> Self {
        Self {
            cut: vec![[false; 2]; paths],
            recorded: [VecDeque::new(), VecDeque::new()],
            noisy: true,
            genuine: [0; 2],
        }
    }

    /// The machine stands still until then, and no clock of its own sees it.
    pub(super) fn is_blind(&mut self, node: usize, until: u64) {
        self.genuine[node] = until.max(self.genuine[node]);
    }

    pub(super) fn count(&self) -> usize {
        self.cut.len()
    }

    pub(super) fn cut_all(&mut self, silent: [bool; 2]) {
        self.cut.fill(silent);
    }
}

fn index(node: NodeId) -> usize {
    usize::from(node.number())
}

impl World {
    pub(super) fn beat(&mut self, node: usize, run: u64) {
        let now = self.path_clock(node);
        let paths = self.control.interconnects.count();
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        let stood_still = !daemon.stood_still.is_zero();
        daemon.stood_still = Duration::ZERO;
        let saying = daemon.teller.say();
        let next = |path| {
            let heartbeat = daemon.peer.next(now, path, stood_still)?;
            Some(Heartbeat {
                saying,
                ..heartbeat
            })
        };
        let heartbeats: Vec<Heartbeat> = (0..paths).filter_map(next).collect();
        for heartbeat in heartbeats {
            self.post(node, heartbeat);
        }
        self.heartbeats_look(node);
        let interval = u64::try_from(TIMING.interval.as_millis()).unwrap_or(0);
        let interval = self.control_ms(interval);
        self.control_later(interval, Step::Beat { node, run });
        let now = self.path_clock(node);
        let due = self.control.daemon(node, run);
        let due = due.and_then(|daemon| daemon.peer.detector.deadline());
        if let Some(due) = due {
            let after =
                u64::try_from(due.since(now).as_nanos()).unwrap_or(u64::MAX) / self.plan.haste;
            if after < interval {
                self.control_later(after + 1, Step::Wake { node, run });
            }
        }
    }

    /// The moment at which a path may have been silent for long enough.
    pub(super) fn wake(&mut self, node: usize, run: u64) {
        if self.control.daemon(node, run).is_some() {
            self.heartbeats_look(node);
        }
    }

    fn post(&mut self, node: usize, heartbeat: Heartbeat) {
        let control = &mut self.control;
        let rng = &mut control.rng;
        if control.interconnects.cut[usize::from(heartbeat.path)][node] {
            return;
        }
        let noisy = control.interconnects.noisy;
        let haste = self.plan.haste;
        let times = match rng.below(100) {
            0 | 1 if noisy => 0,
            2 | 3 if noisy => 2,
            _ => 1,
        };
        for _ in 0..times {
            let rng = &mut self.control.rng;
            let longest = if noisy && rng.percent(3) { 600 } else { 3 };
            let after = rng.between(MS / 20, longest * MS / haste);
            let node = 1 - node;
            self.control_later(after, Step::Heartbeat { node, heartbeat });
        }
    }

    pub(super) fn hear(&mut self, node: usize, heartbeat: &Heartbeat, recorded: Option<u64>) {
        let now = self.path_clock(node);
        self.count_a_gap(node);
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        let reception = daemon.peer.receive(now, heartbeat);
        let genuine = recorded.is_none();
        if genuine {
            let now = self.now;
            let heard = &mut self.control.interconnects.genuine[node];
            *heard = now.max(*heard);
            if reception == Reception::Counted {
                self.record(*heartbeat);
            }
        }
        self.count(match reception {
            Reception::Counted => "control: heartbeats",
            Reception::NewRun { before: None } => "control: first run of the peer",
            Reception::NewRun { .. } => "control: new run of the peer",
            Reception::Unproven => "control: unproven heartbeats",
            Reception::Old => "control: old heartbeats",
            Reception::Misdirected => "control: misdirected heartbeats",
        });
        if matches!(reception, Reception::Counted | Reception::NewRun { .. }) {
            self.hear_saying(node, heartbeat.saying);
        }
        // What was sent a moment ago may as well be late.
        let lately = recorded.is_some_and(|at| self.now < at + self.control_ms(RECORDED_MS));
        let counts = match reception {
            Reception::Counted => !lately,
            Reception::NewRun { .. } => true,
            Reception::Old | Reception::Unproven | Reception::Misdirected => false,
        };
        if !genuine && counts {
            self.fail(format!(
                "{node}: a recorded heartbeat of node {} counts, {reception:?} (I46)",
                heartbeat.from.number()
            ));
        }
        self.heartbeats_look(node);
    }

    /// Somebody keeps what has arrived.
    fn record(&mut self, heartbeat: Heartbeat) {
        let rng = &mut self.control.rng;
        let recorded = &mut self.control.interconnects.recorded[index(heartbeat.from)];
        if rng.percent(4) {
            recorded.push_back((self.now, heartbeat));
        }
        if recorded.len() > RECORDED_MAX {
            let out = rng.index(recorded.len());
            recorded.remove(out);
        }
    }

    /// Somebody sends what was recorded earlier, on any path, whatever is cut.
    pub(super) fn replay(&mut self) {
        let every = self.control_ms(REPLAY_MS);
        self.control_later(every, Step::Replay);
        let rng = &mut self.control.rng;
        let from = rng.index(2);
        let recorded = &self.control.interconnects.recorded[from];
        if recorded.is_empty() {
            return;
        }
        let (at, heartbeat) = recorded[rng.index(recorded.len())];
        let to = 1 - index(heartbeat.from);
        if self.nodes[to].paused_until <= self.now && self.control.stuck_until[to] <= self.now {
            self.count("control: recordings");
            self.hear(to, &heartbeat, Some(at));
        }
    }

    /// The rest of the heartbeat thread's round.
    fn heartbeats_look(&mut self, node: usize) {
        let now = self.path_clock(node);
        self.count_a_gap(node);
        let link = self.control.interconnects.count();
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        let run = daemon.run;
        if daemon.link_heard != daemon.link_told {
            daemon.link_told = daemon.link_heard;
            let (at, answered) = daemon.link_heard;
            daemon.peer.detector.heard_before(now, link, at, answered);
            let before = now.since(at).as_nanos();
            let before = u64::try_from(before).unwrap_or(0) / self.plan.haste;
            let genuine = &mut self.control.interconnects.genuine[node];
            *genuine = self.now.saturating_sub(before).max(*genuine);
        }
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        let changes = daemon.peer.look(now);
        if let Some(time) = daemon.peer.detector.take_standstill() {
            daemon.stood_still = time;
            let heard = &mut self.control.interconnects.genuine[node];
            *heard = self.now.max(*heard);
            self.count("control: stood still");
        }
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        let confirmed = daemon.peer.detector.last_confirmed();
        if let Some(confirmed) = confirmed {
            daemon.confirmations.hear(confirmed);
        }
        for change in changes {
            self.count_presence(change);
            self.incoming(node, run, 0, Incoming::News(change));
        }
        self.check_belief(node);
    }

    fn count_presence(&mut self, change: Change) {
        if let Change::Peer(presence) = change {
            self.count(match presence {
                Presence::Unknown => "control: peer unknown",
                Presence::Alive => "control: peer alive",
                Presence::Deaf => "control: peer deaf",
                Presence::Dead => "control: peer dead",
            });
        }
    }

    /// I46: nobody is taken for alive who was not heard for the time-out.
    fn check_belief(&mut self, node: usize) {
        let timeout = u64::try_from(TIMING.timeout.as_millis()).unwrap_or(0);
        let limit = self.control_ms(timeout + timeout / 20 + BELIEF_MS);
        let Some(daemon) = self.control.daemons[node].as_ref() else {
            return;
        };
        let heard = self.control.interconnects.genuine[node].max(daemon.began);
        let believes = matches!(daemon.peer.presence(), Presence::Alive | Presence::Deaf);
        if believes && self.now > heard + limit {
            let silent = (self.now - heard) / MS;
            self.fail(format!(
                "{node} takes its peer for alive, silent for {silent} ms (I46)"
            ));
        }
    }
}
