//! The agenda: what happens next, and to whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use mirror_core::admin::{Command, Outcome};
use mirror_core::event::Event;
use mirror_core::types::VolumeId;
use mirror_core::volume::Volume;

use super::ambush::Trap;
use super::arbiter::Arbiter;
use super::control::Control;
pub use super::habits::Habits;
use super::happening::Entry;
pub(super) use super::happening::Happening;
use super::kernel::Workload;
use super::model::Model;
use super::network::Network;
use super::node::{MS, Node, clock_speed, drift};
use super::operator::Desk;
use super::rng::Rng;
use super::upkeep::Care;

/// Steps that a report shows.
const STEPS_SHOWN: usize = 300;

/// What a run may do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Size of the volume.
    pub sectors: u64,
    /// Sectors of an extent of the activity log; no request crosses one.
    pub chunk_sectors: u32,
    /// Extents that the activity log keeps.
    pub hot_extents_max: usize,
    /// Bytes that one bit of the bitmap stands for.
    pub bitmap_block_bytes: u32,
    /// The same of the second node, if it is not alike.
    pub other_block_bytes: Option<u32>,
    /// The application works by itself.
    pub application: bool,
    /// Everything that waits, from time-outs to outages, is shorter by this factor.
    pub haste: u64,
    /// In the end both nodes go alone.
    pub split: bool,
    /// In the end the only good copy is lost, and the other one is recovered by force.
    pub force: bool,
    /// In the end a copy is damaged behind the mirror's back.
    pub damage: bool,
    /// The joining copy's disk is not empty.
    pub garbage: bool,
    /// Some operations of the disks take very long.
    pub slow_disk: bool,
    /// Many frames take long.
    pub slow_network: bool,
    /// A chunk of a full copy takes up to so long to read, milliseconds.
    pub slow_copy_ms: u64,
    /// What is out of the ordinary.
    pub habits: Habits,
    /// A deliberate fault of the shell, to prove that the checks see it.
    pub mutant: Option<Mutant>,
    /// Paths between the nodes, 1 or 2.
    pub paths: usize,
    /// This path is cut for good when the trouble is over.
    pub lame_path: Option<usize>,
    /// Frames take so much longer on the second path, microseconds.
    pub detour_us: u64,
    /// What a resync could not read is tried again after this, milliseconds.
    pub copy_retry_ms: u64,
    /// Size of the backing devices: what the volume may grow to.
    pub disk_sectors: u64,
    /// Operators make the volume larger.
    pub grows: bool,
    /// The kernel resizes live devices.
    pub live_resize: bool,
    /// Who may go on alone is decided by a register at a third place.
    pub arbiter: bool,
    /// Both nodes run the real control plane, with a register.
    pub control: bool,
}

impl Plan {
    /// Bytes that one bit of this node's bitmap stands for.
    pub fn block_bytes(&self, node: usize) -> u32 {
        match self.other_block_bytes {
            Some(bytes) if node == 1 => bytes,
            Some(_) | None => self.bitmap_block_bytes,
        }
    }

    /// A quiet volume of this size: nothing happens by itself.
    pub fn quiet(sectors: u64) -> Self {
        Self {
            sectors,
            chunk_sectors: 256,
            hot_extents_max: 6,
            bitmap_block_bytes: 4096,
            other_block_bytes: None,
            application: false,
            haste: 1,
            split: false,
            force: false,
            damage: false,
            garbage: false,
            slow_disk: false,
            slow_network: false,
            slow_copy_ms: 0,
            habits: Habits::default(),
            mutant: None,
            paths: 1,
            lame_path: None,
            detour_us: 0,
            copy_retry_ms: 30_000,
            disk_sectors: sectors,
            grows: false,
            live_resize: false,
            arbiter: false,
            control: false,
        }
    }
}

/// Deliberate faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A flush of the local disk does nothing.
    SkipFlush,
    /// A flush that the peer asks for does nothing.
    SkipPeerFlush,
    /// The peer's answers to writes are forged at once.
    ForgeDone,
    /// A superblock counts before it is written.
    EarlyPersist,
    /// Chunks of a full copy are read as zeroes.
    DropCopy,
    /// A daemon that starts believes that only its own copy counts.
    ForgetPeer,
    /// A restarted machine keeps its boot id.
    SameBoot,
    /// A block of the activity log or of a bitmap counts before it is written.
    EarlyBlock,
    /// A block of the activity log or of a bitmap counts and is not written.
    DropBlock,
    /// The memory of what was given up is used again before that has ended.
    QuarantineForgotten,
    /// A daemon starts while operations of the one before it are under way.
    StartsOverStuck,
    /// A tag that is answered while a write of it is under way goes on with an empty buffer.
    SpareWithoutData,
    /// The register loses what it holds.
    ArbiterForgets,
    /// The register grants an epoch that it granted to the other node before.
    ArbiterEqualEpoch,
    /// The register grants a later epoch than what it granted to the other node, which may still act.
    ArbiterLaterEpoch,
    /// The register takes messages in any order.
    ArbiterDisorder,
    /// An agent takes a lost reply for a yes.
    AgentAssumes,
    /// A register that was put back from a copy takes that for the present.
    RegisterBackupBelieved,
}

impl Mutant {
    /// All of them: name, mutant, the rule that it breaks.
    pub const ALL: [(&'static str, Self, &'static str); 18] = [
        ("skip-flush", Self::SkipFlush, "S1"),
        ("skip-peer-flush", Self::SkipPeerFlush, "S1"),
        ("forge-done", Self::ForgeDone, "S1"),
        ("early-persist", Self::EarlyPersist, "S2 S3 S4"),
        ("drop-copy", Self::DropCopy, "S9 I3 I4"),
        ("forget-peer", Self::ForgetPeer, "S3 S1 S8"),
        ("same-boot", Self::SameBoot, "S7 S11 I3 I4"),
        ("early-block", Self::EarlyBlock, "S7"),
        ("drop-block", Self::DropBlock, "S7"),
        ("quarantine-forgotten", Self::QuarantineForgotten, "I15"),
        ("starts-over-stuck", Self::StartsOverStuck, "S1 S7 I3 I4"),
        ("spare-without-data", Self::SpareWithoutData, "S1 I2 I3"),
        ("arbiter-forgets", Self::ArbiterForgets, "S8"),
        ("arbiter-equal-epoch", Self::ArbiterEqualEpoch, "S8"),
        ("arbiter-later-epoch", Self::ArbiterLaterEpoch, "S8"),
        ("arbiter-disorder", Self::ArbiterDisorder, "S8"),
        ("agent-assumes", Self::AgentAssumes, "S8"),
        (
            "register-backup-believed",
            Self::RegisterBackupBelieved,
            "I40 S8",
        ),
    ];
}

/// Two nodes and everything between them.
#[derive(Debug)]
pub struct World {
    /// Global time, nanoseconds.
    pub now: u64,
    pub(super) agenda: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// Chance.
    pub rng: Rng,
    /// The nodes.
    pub nodes: [Node; 2],
    /// The network.
    pub network: Network,
    /// What the application may see.
    pub model: Model,
    pub(super) workload: Workload,
    /// What the run may do.
    pub plan: Plan,
    /// How often things happened.
    pub coverage: BTreeMap<String, u64>,
    /// The first broken rule.
    pub failure: Option<String>,
    /// Writes the last steps down.
    pub notes: bool,
    /// Prints every step.
    pub trace: bool,
    /// The application has ended, and is begun by nobody.
    pub(super) resting: bool,
    /// The last steps.
    pub steps: VecDeque<String>,
    /// Activations so far.
    pub activations: u64,
    /// Answers to commands.
    pub answers: BTreeMap<u64, Outcome>,
    pub(super) commands: u64,
    pub(super) processes: u64,
    /// Both nodes serve, because operators said wrong words: only that counts any more.
    pub(super) split: bool,
    /// Both have gone alone by now.
    pub(super) both_alone: bool,
    /// Whose history will be kept; nothing that the other one's application sees counts.
    pub(super) split_winner: Option<usize>,
    /// The newest activation that counts: only that one may acknowledge.
    pub(super) newest: u64,
    /// Since then.
    pub(super) newest_since: u64,
    pub(super) desk: Desk,
    /// Troubles that wait for a moment.
    pub(super) armed: Vec<(Trap, Rng)>,
    pub(super) care: Care,
    /// Requests that succeeded.
    pub completed: u64,
    pub(super) chaos: bool,
    /// When the last fault happened.
    pub(super) disturbed: u64,
    /// Chance of the operators who make the volume larger.
    pub(super) grow_rng: Rng,
    pub(super) arbiter: Arbiter,
    pub(super) control: Control,
}

impl World {
    /// Two fresh nodes: the first has the volume, the second joins it.
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng::new(seed);
        let volume = VolumeId(rng.bytes16());
        let mut nodes = [
            Node::new(&mut rng, 0, &plan, Some(volume)),
            Node::new(&mut rng, 1, &plan, None),
        ];
        for node in &mut nodes {
            node.ppm = clock_speed(&mut rng, plan.haste);
        }
        if plan.habits.far_clocks {
            let fast = rng.index(2);
            nodes[fast].ppm = 1_000_000 + drift(plan.haste);
            nodes[1 - fast].ppm = 1_000_000 - drift(plan.haste);
        }
        let workload = Workload::new(&mut rng, &plan);
        let mut world = Self {
            now: 1000,
            agenda: BinaryHeap::new(),
            sequence: 0,
            rng,
            nodes,
            network: Network::default(),
            model: Model::new(plan.disk_sectors),
            workload,
            plan,
            coverage: BTreeMap::new(),
            failure: None,
            notes: true,
            trace: false,
            resting: false,
            steps: VecDeque::new(),
            activations: 0,
            answers: BTreeMap::new(),
            commands: 0,
            processes: 0,
            split: false,
            both_alone: false,
            split_winner: None,
            newest: 0,
            newest_since: 0,
            desk: Desk::default(),
            armed: Vec::new(),
            care: Care::default(),
            completed: 0,
            chaos: false,
            disturbed: 0,
            grow_rng: Rng::new(0),
            arbiter: Arbiter::new(seed),
            control: Control::new(seed),
        };
        world.open_the_grow_desk(seed);
        if world.plan.garbage {
            let sectors = u32::try_from(world.plan.sectors).unwrap_or(u32::MAX);
            world.model.touched.add(0, sectors);
        }
        world.at(MS, Happening::Start { node: 0 });
        world.at(2 * MS, Happening::Start { node: 1 });
        world.at(500 * MS, Happening::Compare);
        world.at(500 * MS, Happening::Spares);
        world
    }

    /// Puts something on the agenda, `after` nanoseconds from now.
    pub(super) fn at(&mut self, after: u64, happening: Happening) {
        self.sequence += 1;
        self.agenda.push(Reverse(Entry {
            time: self.now + after,
            sequence: self.sequence,
            happening,
        }));
    }

    /// Between `low` and `high` microseconds.
    pub(super) fn micros(&mut self, low: u64, high: u64) -> u64 {
        self.rng.between(low * 1000, high * 1000)
    }

    /// Writes a step down.
    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if !self.notes {
            return;
        }
        let line = format!("{:>12.6} {}", self.now as f64 / 1e9, text());
        if self.trace {
            println!("{line}");
        }
        self.steps.push_back(line);
        if self.steps.len() > STEPS_SHOWN {
            self.steps.pop_front();
        }
    }

    /// Counts something.
    pub(super) fn count(&mut self, what: &str) {
        if let Some(count) = self.coverage.get_mut(what) {
            *count += 1;
        } else {
            self.coverage.insert(what.to_string(), 1);
        }
    }

    /// A rule is broken.
    pub(super) fn fail(&mut self, what: String) {
        self.note(|| format!("BROKEN: {what}"));
        self.failure.get_or_insert(what);
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, millis: u64) {
        let end = self.now + millis * MS;
        while self.failure.is_none() {
            if self.agenda.peek().is_none_or(|next| next.0.time > end) {
                break;
            }
            let Some(Reverse(entry)) = self.agenda.pop() else {
                break;
            };
            self.now = self.now.max(entry.time);
            self.happen(entry.happening);
        }
        self.now = self.now.max(end);
    }

    /// Lets time pass until `reached`; `false` if `millis` were not enough.
    pub fn run_until(&mut self, millis: u64, reached: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..millis {
            if reached(self) {
                return true;
            }
            if self.failure.is_some() {
                return false;
            }
            self.run_for(1);
        }
        reached(self)
    }

    #[expect(clippy::too_many_lines, reason = "one flat list of what can happen")]
    pub(super) fn happen(&mut self, happening: Happening) {
        if let Some(node) = happening.place() {
            let until = self.nodes[node].paused_until;
            if until > self.now {
                self.at(until - self.now, happening);
                return;
            }
        }
        match happening {
            Happening::Tick { node, process } => self.tick(node, process),
            Happening::DiskEnd {
                node,
                boot,
                process,
                ticket,
            } => self.disk_comes_to_an_end(node, boot, process, ticket),
            Happening::MetaStep { node, process } => self.meta_step(node, process),
            Happening::DiskMended { node } => self.disk_mended(node),
            Happening::Disowned { node, process } => self.disowned(node, process),
            Happening::Examined {
                node,
                process,
                slot,
                zero,
                digest,
            } => {
                if self.nodes[node].process_is(process) {
                    self.feed(node, Event::Examined { slot, zero, digest });
                }
            }
            Happening::EarlyPersisted {
                node,
                process,
                sequence,
            } => {
                if self.nodes[node].process_is(process) {
                    self.feed(node, Event::Persisted { sequence });
                }
            }
            Happening::Forged {
                node,
                process,
                session,
                frame,
            } => {
                if self.network.find(node, process, session).is_some() {
                    self.feed(
                        node,
                        Event::Received {
                            session,
                            frame: *frame,
                            body: &[],
                            buffer: None,
                        },
                    );
                }
            }
            Happening::EarlyBlock { node, process, id } => {
                if self.nodes[node].process_is(process) {
                    self.feed(node, Event::BlockWritten { id });
                }
            }
            Happening::SecondDial { node, process } => self.second_dial(node, process),
            Happening::Paths { node, process } => self.drive_paths(node, process),
            Happening::DialFailed {
                node,
                process,
                path,
            } => self.dial_failed(node, process, path),
            Happening::Stood {
                connection,
                path,
                node,
                process,
            } => self.stood(connection, path, node, process),
            Happening::Spares => self.look_at_spares(),
            Happening::HealPath { path } => self.heal_path(path),
            Happening::Opened {
                connection,
                node,
                dialled,
            } => self.opened(connection, node, dialled),
            Happening::Arrive { connection, from } => self.arrive(connection, from),
            Happening::Closed {
                connection,
                node,
                reason,
            } => self.closed(connection, node, reason),
            Happening::DeviceStarted { node, process } => {
                if self.nodes[node].process_is(process) {
                    self.feed(node, Event::DeviceStarted);
                }
            }
            Happening::DeviceUp { node, process } => self.device_up(node, process),
            Happening::DeviceStop {
                node,
                process,
                force,
            } => self.device_stop(node, process, force),
            Happening::DeviceGone { node, process } => self.device_gone(node, process),
            Happening::Hand { node, process, tag } => self.hand(node, process, tag),
            Happening::App {
                node,
                activation,
                slot,
            } => self.app(node, activation, slot),
            Happening::Start { node } => self.start(node),
            Happening::PowerOn { node } => self.power_on(node),
            Happening::Heal { silent } => self.heal_silence(silent),
            Happening::Resume { node } => self.resume(node),
            Happening::Trouble { trouble } => self.trouble(*trouble),
            Happening::Measured {
                node,
                process,
                question,
            } => self.measured(node, process, question),
            Happening::Desk => self.work_the_desk(),
            Happening::GrowDesk => self.work_the_grow_desk(),
            Happening::GrowTrouble { node, kind } => self.grow_trouble(node, kind),
            Happening::Compare => self.compare(),
            Happening::Isolated {
                node,
                process,
                step,
            } => self.isolated_step(node, process, step),
            Happening::Arbiter { step } => self.arbiter_step(step),
            Happening::Control { step } => self.control_step(*step),
        }
    }

    /// Tells a node's core what happened and does what it says.
    pub(super) fn feed(&mut self, node: usize, event: Event<'_>) {
        let clock = self.nodes[node].clock(self.now);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        process.volume.handle(clock, event, &mut effects);
        let number = process.number;
        for effect in effects {
            self.effect(node, number, effect);
        }
        self.plan_tick(node);
    }

    /// The core on a node.
    pub fn volume(&self, node: usize) -> Option<&Volume> {
        self.nodes[node]
            .process
            .as_ref()
            .map(|process| &process.volume)
    }

    /// The number of the next command.
    pub(super) fn next_command(&self) -> u64 {
        self.commands + 1
    }

    /// Gives a command; returns its number.
    pub fn command(&mut self, node: usize, command: Command) -> u64 {
        self.commands += 1;
        let number = self.commands;
        self.note(|| format!("{node} command {number} {command:?}"));
        self.read_the_wall_clock(node);
        self.note_attach(node, &command);
        self.feed(
            node,
            Event::Operator {
                command_id: number,
                command,
            },
        );
        number
    }
}
