//! The control plane of both nodes: the real [`controlplane_core`] on simulated interconnects, beside a register
//! ([`super::witness`]) and the simulated data planes. In these runs nobody else says that a node may go on alone.
//!
//! Here is what `lockstepd` does around its core: a heartbeat thread ([`super::interconnect`]), somebody who asks the
//! data plane for its status, words that the data plane carries out late, and one place that decides. It may be killed,
//! and it may stand still. Its times are those of the product, shorter by the run's haste.

use std::collections::VecDeque;
use std::time::Duration;

use controlplane_core::facts::{LINKED_MS, facts, volume_id};
use controlplane_core::failure_detector::{Change, Presence, Timing};
use controlplane_core::keeper::{ArbiterKind, Effect, Event, Keeper, VolumeFacts};
use controlplane_core::limits::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT};
use controlplane_core::membership::{Peer, Run};
use controlplane_core::partition::ClaimState;
use controlplane_core::register::Answer;
use controlplane_core::self_fencing::Confirmations;
use controlplane_core::view_change::Question;
use controlplane_core::wish::{Teller, Wish, Wishes};
use mirror_core::types::{Incarnation, Instant, NodeSet, VolumeId};
use mirror_core::view::View;

use super::interconnect::Interconnects;
use super::node::{MS, id, name};
use super::rng::Rng;
use super::services::{Left, ServiceTimes};
pub(super) use super::step::Step;
use super::theme::Theme;
use super::wishes::SUBJECTS;
use super::witness::{Client, Line, Witness};
use super::words::Told;
use super::world::{Happening, World};

/// As the product has them by default.
pub(super) const TIMING: Timing = Timing {
    interval: HEARTBEAT_INTERVAL,
    timeout: HEARTBEAT_TIMEOUT,
};
/// Between two looks at the data plane, milliseconds without haste.
const LOOK_MS: u64 = 100;
/// Whether both nodes' control planes decide in this run.
pub(super) fn is_about(seed: u64) -> bool {
    matches!(seed % 16, 1 | 4 | 7) && Theme::of(seed).is_none()
}

/// What waits to be decided.
#[expect(clippy::large_enum_variant, reason = "most are samples")]
#[derive(Clone, Debug)]
pub(super) enum Incoming {
    /// Of the heartbeat thread.
    News(Change),
    /// A data plane's state at a moment.
    Sample(Sample),
    /// A word was carried out, or refused, or is lost.
    Said,
    /// The register answered something that was asked then.
    Contact { asked: Instant },
    /// A claim was answered.
    Answered { number: u64, answer: Answer },
    /// A release is durable.
    GivenBack { number: u64 },
    /// The other node says that an operator wishes this.
    Wish(Wish),
}

/// What a data plane said.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    id: Option<VolumeId>,
    pub(super) facts: Option<VolumeFacts>,
    insync: NodeSet,
    last_heard_ms: u64,
    answered_ms: u64,
    asked: Instant,
}

/// A run of `lockstepd`.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) run: u64,
    pub(super) peer: Peer,
    pub(super) stood_still: Duration,
    /// When the mirror link last heard the peer, and the same as the heartbeat thread knows it.
    /// When the peer was heard on the mirror link, and when was sent what it answered there last.
    pub(super) link_heard: (Instant, Instant),
    pub(super) link_told: (Instant, Instant),
    pub(super) confirmations: Confirmations,
    /// What an earlier run left behind ([`super::services`]).
    left: Left,
    pub(super) client: Client,
    pub(super) began: u64,
    keeper: Keeper,
    seed: [u8; 32],
    pub(super) presence: Presence,
    pub(super) wishes: Wishes,
    pub(super) teller: Teller,
    /// What the other node knows, as it said last.
    pub(super) peer_wishes: u64,
    /// What is being written.
    pub(super) writing: Option<(u64, Vec<Wish>)>,
    /// The volume's id, once its data plane has told it.
    volume: Option<VolumeId>,
    stuck_until: u64,
    /// What came while it stood still, in the order in which it came: the channel of the product keeps it.
    pub(super) backlog: VecDeque<Incoming>,
    tick_at: Option<u64>,
    /// The question that is open: its number at the register, and its own.
    asked: Option<(u64, u64)>,
    questions: u64,
    /// What is reported to the register.
    pub(super) held: Option<View>,
}

impl Daemon {
    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Whether the answer to this question is still wanted.
    pub(super) fn is_asked(&self, number: u64) -> bool {
        self.asked.is_some_and(|asked| asked.0 == number)
            && self.keeper.claim() == ClaimState::Asked
    }
}

/// Both control planes, and what is between them.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) rng: Rng,
    pub(super) daemons: [Option<Daemon>; 2],
    pub(super) interconnects: Interconnects,
    pub(super) witness: Witness,
    /// Commands that data planes carry out.
    pub(super) words: std::collections::BTreeMap<u64, Told>,
    runs: u64,
    /// `lockstepd` does not run until then, although its machine does.
    pub(super) stuck_until: [u64; 2],
    /// Nobody starts it.
    pub(super) held_off: [bool; 2],
    /// Until then reads here may be older than what the other node wrote: the machine stood still, and no clock of its
    /// own saw it (S5).
    pub(super) blind_until: [u64; 2],
    /// The next word is ambushed.
    pub(super) ambushes: bool,
    /// What was cut stays cut.
    pub(super) in_a_scene: bool,
    /// Chance of the operators who wish something.
    pub(super) wish_rng: Rng,
    /// What is durable of it.
    pub(super) wishes_on_disk: [Vec<Wish>; 2],
    /// The application was told to end.
    pub(super) quiet: [bool; 2],
    pub(super) services: ServiceTimes,
}

impl Control {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x636f_6e74_726f_6c21);
        let paths = 1 + rng.index(2);
        Self {
            rng,
            daemons: [None, None],
            interconnects: Interconnects::new(paths),
            witness: Witness::new(),
            words: std::collections::BTreeMap::new(),
            runs: 0,
            stuck_until: [0; 2],
            held_off: [false; 2],
            blind_until: [0; 2],
            ambushes: false,
            in_a_scene: false,
            wish_rng: Rng::new(seed ^ 0x6f70_6572_6174_6f72),
            wishes_on_disk: [Vec::new(), Vec::new()],
            quiet: [false; 2],
            services: ServiceTimes::default(),
        }
    }

    pub(super) fn daemon(&mut self, node: usize, run: u64) -> Option<&mut Daemon> {
        self.daemons[node]
            .as_mut()
            .filter(|daemon| daemon.run == run)
    }
}

impl World {
    /// Milliseconds without haste, as nanoseconds of this run.
    pub(super) fn control_ms(&self, millis: u64) -> u64 {
        millis * MS / self.plan.haste
    }

    pub(super) fn open_the_control_planes(&mut self) {
        if self.plan.control {
            for node in 0..2 {
                let after = self.control.rng.between(MS, 300 * MS);
                self.control_later(after, Step::Start { node });
            }
            self.control_later(100 * MS, Step::Replay);
            self.control_later(100 * MS, Step::WantPeace);
        }
    }

    pub(super) fn control_later(&mut self, after: u64, step: Step) {
        let step = Box::new(step);
        self.at(after, Happening::Control { step });
    }

    pub(super) fn control_step(&mut self, step: Step) {
        if let Some(node) = step.node() {
            let until = self.control.stuck_until[node];
            if until > self.now && !matches!(step, Step::Word { .. }) {
                return self.control_later(until - self.now, step);
            }
        }
        match step {
            Step::Start { node } => self.control_starts(node),
            Step::Beat { node, run } => self.beat(node, run),
            Step::Wake { node, run } => self.wake(node, run),
            Step::Heartbeat { node, heartbeat } => self.hear(node, &heartbeat, None),
            Step::Replay => self.replay(),
            Step::Look { node, run } => self.look_at_the_volume(node, run),
            Step::Incoming {
                node,
                run,
                incoming,
            } => self.decide_on(node, run, incoming),
            Step::Catch { node, run } => self.catch_up(node, run),
            Step::Tick { node, run } => self.keeper_tick(node, run),
            Step::Word {
                node,
                run,
                process,
                word,
            } => self.word_arrives(node, run, process, word),
            Step::Connect { node, run } => self.connect_to_the_register(node, run),
            Step::Connected { node, run, server } => self.connected(node, run, server),
            Step::Report { node, run } => self.next_line(node, run),
            Step::Asked {
                node,
                run,
                connection,
                exchange,
                line,
            } => self.witness_is_asked(node, run, connection, exchange, line),
            Step::Replied {
                node,
                run,
                connection,
                exchange,
                reply,
            } => self.witness_replied(node, run, connection, exchange, reply),
            Step::Silent {
                node,
                run,
                exchange,
            } => self.witness_is_silent(node, run, exchange),
            Step::Stored { node, run, version } => self.wishes_stored(node, run, version),
            Step::WantPeace => self.want_peace(),
            Step::Heal if self.control.in_a_scene => {}
            Step::Heal => self.heal_the_control_planes(),
            Step::RegisterUp => self.control.witness.up = true,
        }
    }

    // --- life ---------------------------------------------------------------------------------

    pub(super) fn control_starts(&mut self, node: usize) {
        let ready = self.plan.control && self.nodes[node].power && !self.control.held_off[node];
        if !ready || self.control.daemons[node].is_some() {
            return;
        }
        self.control.runs += 1;
        let run = self.control.runs;
        let now = self.path_clock(node);
        let own = Run {
            boot: self.nodes[node].boot,
            incarnation: Incarnation(self.control.rng.bits()),
        };
        let paths = self.control.interconnects.count() + 1;
        let seed = self.control.rng.bytes32();
        let left = self.left_behind(node);
        let durable = self.control.wishes_on_disk[node].clone();
        let mut teller = Teller::with_room(SUBJECTS.len());
        durable.iter().for_each(|wish| teller.learn(*wish));
        self.note(|| format!("{node} lockstepd starts, run {run}"));
        self.control.daemons[node] = Some(Daemon {
            run,
            peer: Peer::new(now, id(node), own, id(1 - node), TIMING, paths),
            stood_still: Duration::ZERO,
            link_heard: Default::default(),
            link_told: Default::default(),
            confirmations: Confirmations::new(TIMING.timeout, left.confirmed()),
            left,
            client: Client::default(),
            began: self.now,
            // Its volume is known once the data plane has told its id.
            keeper: left
                .given_to(Keeper::new(now, ArbiterKind::Register, [], &seed))
                .expecting(1)
                .preferring(node == 0),
            seed,
            presence: Presence::Unknown,
            wishes: Wishes::new(id(node), SUBJECTS, durable),
            teller,
            peer_wishes: 0,
            writing: None,
            volume: None,
            stuck_until: 0,
            backlog: VecDeque::new(),
            tick_at: None,
            asked: None,
            questions: 0,
            held: None,
        });
        self.control_later(0, Step::Beat { node, run });
        self.control_later(MS / 10, Step::Look { node, run });
        self.control_later(MS / 10, Step::Connect { node, run });
    }

    /// It is killed, or its machine loses its power.
    pub(super) fn control_ends(&mut self, node: usize) {
        if let Some(daemon) = self.control.daemons[node].take() {
            self.note(|| format!("{node} lockstepd is gone"));
            self.wishes_end(node, daemon.writing);
        }
        self.control.stuck_until[node] = 0;
    }

    pub(super) fn control_starts_later(&mut self, node: usize) {
        if self.plan.control {
            let most = self.control_ms(3000);
            let after = self.control.rng.below(most);
            self.control_later(after, Step::Start { node });
        }
    }

    /// The one place that decides stands still; heartbeats and the connection to the register go on.
    pub(super) fn deciding_sticks(&mut self, node: usize, time: u64) {
        let until = self.now + time;
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            daemon.stuck_until = daemon.stuck_until.max(until);
        }
    }

    /// Something for the queue of a run.
    pub(super) fn incoming(&mut self, node: usize, run: u64, after: u64, incoming: Incoming) {
        if after == 0 {
            return self.decide_on(node, run, incoming);
        }
        let step = Step::Incoming {
            node,
            run,
            incoming,
        };
        self.control_later(after, step);
    }

    /// The data plane says what it is; the answer may come late. Nothing else is asked before.
    fn look_at_the_volume(&mut self, node: usize, run: u64) {
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        let waits = daemon.stuck_until.saturating_sub(self.now);
        self.words_of_the_dead(node);
        let sample = self.sample(node);
        let rng = &mut self.control.rng;
        let late = match rng.below(200) {
            0 if self.control.interconnects.noisy => rng.below(2000 * MS) / self.plan.haste,
            1..=10 => rng.below(50 * MS) / self.plan.haste,
            _ => 0,
        };
        let next = self.control_ms(LOOK_MS) + late.max(waits);
        self.incoming(node, run, late, Incoming::Sample(sample));
        self.control_later(next, Step::Look { node, run });
    }

    pub(super) fn sample(&self, node: usize) -> Sample {
        let Some(mut status) = self.status(node) else {
            return Sample {
                asked: self.path_clock(node),
                ..Sample::default()
            };
        };
        // The data plane hurries as its run does.
        let heard = status.link.last_heard_ms.map(|ms| ms * self.plan.haste);
        let answered = status.link.answered_ms.map(|ms| ms * self.plan.haste);
        status.link.last_heard_ms = heard;
        let facts = facts(&status);
        let insync = (0..2).filter(|member| {
            let mut names = status.view.insync.iter();
            names.any(|listed| listed == name(*member))
        });
        Sample {
            id: volume_id(&status),
            facts,
            insync: insync.fold(NodeSet::EMPTY, |set, member| set.with(id(member))),
            last_heard_ms: heard.unwrap_or(LINKED_MS),
            answered_ms: answered.unwrap_or(LINKED_MS),
            asked: self.path_clock(node),
        }
    }

    fn decide_on(&mut self, node: usize, run: u64, incoming: Incoming) {
        let now = self.now;
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        if daemon.stuck_until > now || !daemon.backlog.is_empty() {
            daemon.backlog.push_back(incoming);
            if daemon.backlog.len() == 1 {
                let after = daemon.stuck_until - now;
                self.control_later(after, Step::Catch { node, run });
            }
            return;
        }
        self.decide(node, incoming);
    }

    /// What came while it stood still is decided upon.
    fn catch_up(&mut self, node: usize, run: u64) {
        let now = self.now;
        while let Some(daemon) = self.control.daemon(node, run) {
            if daemon.stuck_until > now {
                let after = daemon.stuck_until - now;
                return self.control_later(after, Step::Catch { node, run });
            }
            let Some(incoming) = daemon.backlog.pop_front() else {
                return;
            };
            self.decide(node, incoming);
        }
    }

    fn decide(&mut self, node: usize, incoming: Incoming) {
        self.renew_the_lease(node);
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        match incoming {
            Incoming::News(Change::Peer(presence)) => {
                daemon.presence = presence;
                self.note(|| format!("{node} its peer is {presence:?}"));
                self.keeper(node, Event::Peer(presence));
            }
            // No timeout is raised here.
            Incoming::News(Change::Path { .. } | Change::Quiet(_)) => {}
            Incoming::Sample(sample) => self.sampled(node, &sample),
            Incoming::Said => {
                if let Some(volume) = daemon.volume {
                    self.keeper(node, Event::WordDone { volume });
                }
            }
            Incoming::Contact { asked } => {
                self.keeper(node, Event::Contact { asked });
            }
            Incoming::Answered { number, answer } => {
                if let Some((_, number)) = daemon.asked.take_if(|asked| asked.0 == number) {
                    self.note(|| format!("{node} the register answers {answer:?}"));
                    self.keeper(node, Event::Answered { number, answer });
                }
            }
            Incoming::Wish(wish) => self.hear_wish(node, wish),
            Incoming::GivenBack { number } => {
                if let Some((_, number)) = daemon.asked.take_if(|asked| asked.0 == number) {
                    self.keeper(node, Event::GivenBack { number });
                }
            }
        }
    }

    fn sampled(&mut self, node: usize, sample: &Sample) {
        let now = self.path_clock(node);
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        daemon.keeper.reported();
        let Some(volume) = daemon.volume.or(sample.id) else {
            return;
        };
        if daemon.volume.is_none() {
            daemon.volume = Some(volume);
            let keeper = Keeper::new(now, ArbiterKind::Register, [volume], &daemon.seed);
            daemon.keeper = daemon.left.given_to(keeper).preferring(node == 0);
            let presence = daemon.presence;
            self.keeper(node, Event::Peer(presence));
        }
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        if sample.facts.is_some_and(|facts| facts.linked) {
            let heard = sample.asked.as_nanos();
            let before = |millis: u64| Instant::from_nanos(heard.saturating_sub(millis * MS));
            let at = before(sample.answered_ms);
            daemon.link_heard = (before(sample.last_heard_ms), at);
            self.keeper(node, Event::LinkHeard { at });
        }
        self.feed_wishes(node);
        let facts = sample.facts.map(Box::new);
        let asked = sample.asked;
        let event = Event::Volume {
            volume,
            facts,
            asked,
        };
        self.keeper(node, event);
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            let reports = daemon.keeper.may_report(now, volume);
            daemon.held = sample.facts.filter(|_| reports).map(|facts| View {
                epoch: facts.view.epoch,
                id: facts.view.id,
                active: None,
                insync: sample.insync,
            });
        }
        self.check_service_times(node, sample.facts);
    }

    fn keeper_tick(&mut self, node: usize, run: u64) {
        let now = self.now;
        if let Some(daemon) = self.control.daemon(node, run)
            && daemon.tick_at.take_if(|at| *at <= now).is_some()
        {
            if daemon.stuck_until > now {
                let at = daemon.stuck_until;
                daemon.tick_at = Some(at);
                return self.control_later(at - now, Step::Tick { node, run });
            }
            self.keeper(node, Event::Tick);
        }
    }

    /// Tells the keeper, and does what it says.
    pub(super) fn keeper(&mut self, node: usize, event: Event) {
        let now = self.path_clock(node);
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        let run = daemon.run;
        let mut effects = Vec::new();
        daemon.keeper.handle(now, event, &mut effects);
        let deadline = daemon.keeper.deadline(now);
        for effect in effects {
            match effect {
                Effect::Ask(question) => self.ask_the_register(node, run, question),
                Effect::Say { word, .. } => self.say_word(node, run, word),
                Effect::Settle { mark, origin } => self.settle_wish(node, mark, origin),
                Effect::Decided {
                    row,
                    situation,
                    decision,
                } => {
                    self.note(|| format!("{node} row {row}: {decision:?} of {situation:?}"));
                    self.count(&format!("control: row {row}"));
                }
            }
        }
        let Some(deadline) = deadline else { return };
        if deadline.since(now) >= Duration::from_millis(LOOK_MS) {
            return;
        }
        let local = Instant::from_nanos(deadline.as_nanos() / self.plan.haste + 1);
        let at = self.nodes[node].when(local).max(self.now + 1000);
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        if daemon.tick_at.is_none_or(|planned| at < planned) {
            daemon.tick_at = Some(at);
            self.control_later(at - self.now, Step::Tick { node, run });
        }
    }

    fn ask_the_register(&mut self, node: usize, run: u64, question: Question) {
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        daemon.questions += 1;
        let number = daemon.questions;
        let (own, line) = match question {
            Question::Claim {
                number: own,
                claims,
            } => {
                // Before the register can grant it.
                daemon.held = None;
                (own, Line::Claim { number, claims })
            }
            Question::Release {
                number: own,
                volumes,
            } => (own, Line::Release { number, volumes }),
        };
        daemon.asked = Some((number, own));
        self.note(|| format!("{node} asks the register: {line:?}"));
        self.line_to_the_register(node, run, line);
    }
}
