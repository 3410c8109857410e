//! Who the peer is right now: which boot, which run, and whether a heartbeat is new or a recording.
//!
//! Within a run of the peer's daemon the sequence on a path rises, so that a recorded heartbeat is refused. A run that
//! is not known yet has to prove that it is of now: its heartbeat must name this node's own run and a moment at which
//! this node sent something lately, later than anything that the known run has confirmed: a recording of a run that is
//! over cannot know that. Until then this node only answers it. On a path that was not heard yet in this run nothing says which
//! sequence is new: if the first heartbeat there names a run of this node, it has to be this one, and nothing counts that
//! the peer sent long before what it sent on other paths. A path that was one-way before this node's daemon began counts
//! as silent, not as one-way: what comes there cannot be told from a recording.

use core::time::Duration;

use mirror_core::types::{BootId, Incarnation, Instant, NodeId};

use crate::failure_detector::{Change, FailureDetector, Heard, PathState, Presence, Timing};
use crate::limits::PATHS_MAX;
use crate::mutant::{self, Mutant};
use crate::self_fencing::ClearGroups;
use crate::timeouts::Told;
use crate::wire::Heartbeat;
use crate::wish::Saying;

/// A run of a node's daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The boot of its machine.
    pub boot: BootId,
    /// The run.
    pub incarnation: Incarnation,
}

/// What came of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It counts.
    Counted,
    /// It counts, and it is the first one of a new run. The peer's earlier run is over; with another boot, whatever ran
    /// on that machine is gone, and so is what it had not flushed (S11).
    NewRun {
        /// What ran before, if anything was known.
        before: Option<Run>,
    },
    /// A run that has yet to prove that it is of now, or a path on which it has not done so.
    Unproven,
    /// Older than what was heard on this path: a recording, or late on the network.
    Old,
    /// Not from the peer to this node, or on a path that does not exist.
    Misdirected,
}

/// What was last heard on a path, to be echoed.
#[derive(Clone, Copy, Debug, Default)]
struct Echo {
    incarnation: Incarnation,
    sent: Instant,
    heard: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    sequence_in: u64,
    sequence_out: u64,
    echo: Echo,
}

/// One peer, as this node knows it.
#[derive(Debug)]
pub struct Peer {
    me: NodeId,
    peer: NodeId,
    own: Run,
    began: Instant,
    timing: Timing,
    known: Option<Run>,
    /// When this node sent the newest heartbeat that a run of the peer confirmed.
    confirmed: Option<Instant>,
    /// When the known run sent the newest heartbeat that counted, by its clock.
    newest: Instant,
    paths: [Path; PATHS_MAX],
    count: usize,
    /// Whether and when it is alive.
    pub detector: FailureDetector,
}

impl Peer {
    /// A peer that was not heard yet, with so many paths (see [`FailureDetector::new`]).
    pub fn new(
        now: Instant,
        me: NodeId,
        own: Run,
        peer: NodeId,
        timing: Timing,
        paths: usize,
    ) -> Self {
        Self {
            me,
            peer,
            own,
            began: now,
            timing,
            known: None,
            confirmed: None,
            newest: Instant::default(),
            paths: [Path::default(); PATHS_MAX],
            count: paths,
            detector: FailureDetector::new(now, timing, paths),
        }
    }

    /// The run that was last proved to be of now.
    pub fn run(&self) -> Option<Run> {
        self.known
    }

    /// What is known of its presence.
    pub fn presence(&self) -> Presence {
        self.detector.presence()
    }

    /// How a path stands.
    pub fn path(&self, path: usize) -> PathState {
        self.detector.path(path)
    }

    /// Its silence is borne for longer ([`FailureDetector::bear`]). What proves that a heartbeat is of now is as old as before at
    /// most.
    pub fn bear(&mut self, now: Instant, timeout: Duration, until: Instant) {
        self.detector.bear(now, timeout, until);
    }

    /// A heartbeat that is signed with the cluster's key.
    pub fn receive(&mut self, now: Instant, heartbeat: &Heartbeat) -> Reception {
        let index = usize::from(heartbeat.path);
        let ours = heartbeat.from == self.peer && heartbeat.to == self.me;
        if !ours || index >= self.count {
            return Reception::Misdirected;
        }
        let run = Run {
            boot: heartbeat.boot,
            incarnation: heartbeat.incarnation,
        };
        let confirms = self.confirmed(now, heartbeat);
        let before = self.known;
        let fresh = before != Some(run);
        if fresh {
            let proven = confirms.is_some_and(|sent| {
                let later = self.confirmed.is_none_or(|known| sent > known);
                now.since(sent) < self.timing.timeout
                    && (later || mutant::is(Mutant::EarlierRunBelieved))
            });
            if !proven && !mutant::is(Mutant::UnprovenBelieved) {
                // While the known run is heard, its echo stays: a recording must not take it away.
                if !matches!(self.detector.path(index), PathState::Up | PathState::Late) {
                    self.paths[index].echo = Self::echo(now, heartbeat);
                }
                return Reception::Unproven;
            }
            self.known = Some(run);
            self.newest = heartbeat.sent;
            for path in &mut self.paths {
                path.sequence_in = 0;
            }
            self.detector.restarted();
        }
        let state = self.detector.path(index);
        let path = &mut self.paths[index];
        // Where the peer hears nobody it can name nothing: such a path may be told as one-way.
        let names = heartbeat.echoed_incarnation != Incarnation::default();
        let lately = confirms.is_some_and(|sent| now.since(sent) < self.timing.timeout);
        let unproven = path.sequence_in == 0 && names && !lately;
        if unproven && !mutant::is(Mutant::LateBelieved) {
            if !matches!(state, PathState::Up | PathState::Late) {
                path.echo = Self::echo(now, heartbeat);
            }
            return Reception::Unproven;
        }
        let repeated = heartbeat.sequence <= path.sequence_in;
        let late = self.newest.since(heartbeat.sent) > self.timing.timeout / 2;
        if (repeated && !mutant::is(Mutant::ReplayBelieved))
            || (late && !mutant::is(Mutant::LateBelieved))
        {
            return Reception::Old;
        }
        self.newest = self.newest.max(heartbeat.sent);
        self.confirmed = self.confirmed.max(confirms);
        path.sequence_in = heartbeat.sequence;
        path.echo = Self::echo(now, heartbeat);
        let heard = Heard {
            sequence: heartbeat.sequence,
            confirms,
            held: core::time::Duration::from_nanos(heartbeat.held_nanos),
        };
        self.detector.heard(now, index, heard);
        if fresh {
            Reception::NewRun { before }
        } else {
            Reception::Counted
        }
    }

    fn echo(now: Instant, heartbeat: &Heartbeat) -> Echo {
        Echo {
            incarnation: heartbeat.incarnation,
            sent: heartbeat.sent,
            heard: now,
        }
    }

    /// When this run of this node sent what the heartbeat confirms; `None` if it confirms nothing of this run.
    pub fn confirmed(&self, now: Instant, heartbeat: &Heartbeat) -> Option<Instant> {
        let sent = heartbeat.echoed_sent;
        let own = heartbeat.echoed_incarnation == self.own.incarnation;
        (own && sent >= self.began && sent <= now).then_some(sent)
    }

    /// The next heartbeat for a path.
    pub fn next(&mut self, now: Instant, path: usize, stood_still: bool) -> Option<Heartbeat> {
        let number = u8::try_from(path).ok()?;
        let place = self.paths.get_mut(path).filter(|_| path < self.count)?;
        place.sequence_out += 1;
        let held = now.since(place.echo.heard).as_nanos();
        Some(Heartbeat {
            from: self.me,
            to: self.peer,
            path: number,
            stood_still,
            boot: self.own.boot,
            incarnation: self.own.incarnation,
            sequence: place.sequence_out,
            sent: now,
            echoed_incarnation: place.echo.incarnation,
            echoed_sent: place.echo.sent,
            held_nanos: u64::try_from(held).unwrap_or(u64::MAX),
            // Whoever sends it adds what operators wish, of which groups nothing is left, and how long it waits.
            saying: Saying::default(),
            clear: ClearGroups::default(),
            timeouts: Told::default(),
        })
    }

    /// Time passed; what changed since this was last called.
    pub fn look(&mut self, now: Instant) -> alloc::vec::Vec<Change> {
        self.detector.look(now);
        self.detector.changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const TIMING: Timing = Timing {
        interval: Duration::from_millis(250),
        timeout: Duration::from_secs(2),
    };

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000 * millis)
    }

    fn run(boot: u8, incarnation: u64) -> Run {
        Run {
            boot: BootId([boot; 16]),
            incarnation: Incarnation(incarnation),
        }
    }

    fn pair() -> [Peer; 2] {
        let node = |number| NodeId::new(number).expect("a node");
        [
            Peer::new(at(0), node(0), run(1, 11), node(1), TIMING, 1),
            Peer::new(at(0), node(1), run(2, 22), node(0), TIMING, 1),
        ]
    }

    /// Both send and hear for a while, a heartbeat each interval. Returns what node 1 sent.
    fn talk(peers: &mut [Peer; 2], from: u64, to: u64) -> alloc::vec::Vec<Heartbeat> {
        let mut sent = alloc::vec::Vec::new();
        for now in (from..to).step_by(250) {
            for side in 0..2 {
                let heartbeat = peers[side].next(at(now), 0, false).expect("a path");
                peers[1 - side].receive(at(now + 1), &heartbeat);
                if side == 1 {
                    sent.push(heartbeat);
                }
            }
            for peer in peers.iter_mut() {
                peer.look(at(now + 2));
            }
        }
        sent
    }

    #[test]
    fn two_nodes_prove_each_other_and_are_alive() {
        let mut peers = pair();
        talk(&mut peers, 0, 1000);
        assert_eq!(peers[0].run(), Some(run(2, 22)));
        assert_eq!(peers[0].presence(), Presence::Alive);
        assert_eq!(peers[1].presence(), Presence::Alive);
    }

    #[test]
    fn a_recorded_heartbeat_neither_counts_nor_revives_the_dead() {
        let mut peers = pair();
        let recorded = talk(&mut peers, 0, 2000);
        for heartbeat in &recorded {
            let reception = peers[0].receive(at(2100), heartbeat);
            assert_eq!(reception, Reception::Old);
        }
        for now in (2250..6000).step_by(250) {
            peers[0].look(at(now));
        }
        assert_eq!(peers[0].presence(), Presence::Dead);
    }

    #[test]
    fn a_recording_of_an_earlier_run_is_never_believed() {
        let mut peers = pair();
        let recorded = talk(&mut peers, 0, 2000);
        peers[1] = Peer::new(at(2000), peers[1].me, run(3, 33), peers[0].me, TIMING, 1);
        talk(&mut peers, 2000, 4000);
        assert_eq!(peers[0].run(), Some(run(3, 33)));
        // Its echo is a moment of this run, but of long ago.
        for heartbeat in &recorded {
            assert_eq!(peers[0].receive(at(6000), heartbeat), Reception::Unproven);
        }
        assert_eq!(peers[0].run(), Some(run(3, 33)));
    }

    #[test]
    fn a_new_run_is_told_with_the_one_before() {
        let mut peers = pair();
        talk(&mut peers, 0, 1000);
        peers[1] = Peer::new(at(1000), peers[1].me, run(2, 23), peers[0].me, TIMING, 1);
        let first = peers[1].next(at(1000), 0, false).expect("a path");
        assert_eq!(peers[0].receive(at(1001), &first), Reception::Unproven);
        for now in (1250..3500).step_by(250) {
            peers[0].look(at(now));
        }
        // The known run has been silent: the new one is echoed now, and proves itself.
        let unproven = peers[1].next(at(3500), 0, false).expect("a path");
        assert_eq!(peers[0].receive(at(3501), &unproven), Reception::Unproven);
        let echo = peers[0].next(at(3502), 0, false).expect("a path");
        peers[1].receive(at(3503), &echo);
        let proof = peers[1].next(at(3504), 0, false).expect("a path");
        let before = Some(run(2, 22));
        assert_eq!(
            peers[0].receive(at(3505), &proof),
            Reception::NewRun { before }
        );
    }

    /// The peer's daemon was started anew a moment ago, and somebody repeats what the earlier run sent just before.
    #[test]
    fn a_recording_of_a_run_that_has_just_ended_is_not_believed() {
        let mut peers = pair();
        let recorded = talk(&mut peers, 0, 2000);
        peers[1] = Peer::new(at(2000), peers[1].me, run(2, 23), peers[0].me, TIMING, 1);
        let mut now = 2000;
        while peers[0].run() != Some(run(2, 23)) {
            let echo = peers[0].next(at(now), 0, false).expect("a path");
            peers[1].receive(at(now + 1), &echo);
            let heartbeat = peers[1].next(at(now + 2), 0, false).expect("a path");
            // Nothing of the known run is heard any more: the new one is echoed.
            peers[0].look(at(now + 3));
            peers[0].receive(at(now + 3), &heartbeat);
            now += 250;
        }
        for heartbeat in &recorded {
            assert_eq!(peers[0].receive(at(now), heartbeat), Reception::Unproven);
        }
        assert_eq!(peers[0].run(), Some(run(2, 23)));
    }

    /// This node has just started, and one of two paths is dead: what was recorded there before is no heartbeat.
    #[test]
    fn a_recording_on_a_path_that_was_not_heard_yet_does_not_count() {
        let node = |number| NodeId::new(number).expect("a node");
        let mut peer = Peer::new(at(0), node(1), run(2, 22), node(0), TIMING, 2);
        let mut recorded = alloc::vec::Vec::new();
        for now in (0..5000).step_by(250) {
            recorded.extend(peer.next(at(now), 1, false));
        }
        let mut own = Peer::new(at(5000), node(0), run(1, 12), node(1), TIMING, 2);
        for now in (5000..6000).step_by(250) {
            let echo = own.next(at(now), 0, false).expect("a path");
            peer.receive(at(now + 1), &echo);
            let heartbeat = peer.next(at(now + 2), 0, false).expect("a path");
            own.receive(at(now + 3), &heartbeat);
        }
        assert_eq!(own.presence(), Presence::Alive);
        for heartbeat in recorded.iter().filter(|each| each.sent < at(4000)) {
            assert_eq!(own.receive(at(6000), heartbeat), Reception::Old);
        }
    }

    /// Seed 1685249: the peer's machine stood still between what was recorded and what is heard now, and by its clock
    /// hardly any time has passed.
    #[test]
    fn a_recording_from_before_a_standstill_does_not_count_on_a_path_that_was_not_heard_yet() {
        let node = |number| NodeId::new(number).expect("a node");
        let mut peer = Peer::new(at(0), node(1), run(2, 22), node(0), TIMING, 2);
        let mut earlier = Peer::new(at(0), node(0), run(1, 11), node(1), TIMING, 2);
        let heard = earlier.next(at(800), 1, false).expect("a path");
        peer.receive(at(801), &heard);
        let recorded = peer.next(at(900), 1, false).expect("a path");
        let mut own = Peer::new(at(60_000), node(0), run(1, 12), node(1), TIMING, 2);
        let first = own.next(at(60_000), 0, false).expect("a path");
        peer.receive(at(1000), &first);
        let proof = peer.next(at(1001), 0, false).expect("a path");
        let new = Reception::NewRun { before: None };
        assert_eq!(own.receive(at(60_002), &proof), new);
        assert_eq!(own.receive(at(60_003), &recorded), Reception::Unproven);
        // The path works after all: what it is asked there, the peer answers.
        let asked = own.next(at(60_004), 1, false).expect("a path");
        peer.receive(at(1003), &asked);
        let answer = peer.next(at(1004), 1, false).expect("a path");
        assert_eq!(own.receive(at(60_006), &answer), Reception::Counted);
    }

    #[test]
    fn a_heartbeat_for_somebody_else_is_not_heard() {
        let mut peers = pair();
        let mut heartbeat = peers[1].next(at(0), 0, false).expect("a path");
        heartbeat.to = NodeId::new(5).expect("a node");
        assert_eq!(peers[0].receive(at(1), &heartbeat), Reception::Misdirected);
        heartbeat.to = peers[0].me;
        heartbeat.path = 1;
        assert_eq!(peers[0].receive(at(1), &heartbeat), Reception::Misdirected);
    }
}
