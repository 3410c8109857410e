//! What control planes must do and must not. While anything happens: what a register grants is granted to one node
//! (I40), and acted on only by that node, on the view that it names (I41). In scenes at the end of a run, each begun at
//! rest and with a quiet network: a node that is left serves within a bound (I42), two of three go on (I43), nobody
//! loses the volume by a fault that is none (I44), and who is cut off ends its service in time (I45).

use core::time::Duration;

use controlplane_core::keeper::Word;
use controlplane_core::partition::ClaimState;
use mirror_core::admin::{Frozen, Role};
use mirror_core::types::Instant;
use mirror_core::view::{View, ViewMark};

use super::control::{Daemon, Incoming, Step};
use super::node::id;
use super::run::peace_ms;
use super::witness::Reply;
use super::world::{Happening, World};
use controlplane_core::register::Answer;

/// Detection, its granularity, the standby's handicap, looks, the mirror link's own time-out, milliseconds without haste.
const NOTICED_MS: u64 = 2000 + 500 + 600 + 200;
/// The link's grace before a lost mirror link is a matter for the register.
const GRACE_MS: u64 = 2000;
/// A question to the register, superblocks, a flush and the device: these know no haste.
const CARRIED_OUT_MS: u64 = 400;
/// The same with disks that are slow.
const SLOWLY_MS: u64 = 4000;
/// Heartbeats and the mirror link confirm more often than this, where nothing is broken; by the node's clock, without haste.
const CONFIRMED_LATELY: Duration = Duration::from_millis(1000);
/// A move that is under way arrives, or has come to nothing and back.
const MOVES_MS: u64 = 20_000;
/// A connection on which no answer comes is given up, and another one made.
const REPLY_MS: u64 = 2000 + 500 + 300;
/// What has to stay so is looked at for so long, milliseconds without haste.
pub(super) const STAYS_MS: u64 = 6000;

/// A scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// The active node loses its power.
    ActiveDies,
    /// The other one does.
    StandbyDies,
    /// All between the nodes is cut.
    Apart,
    /// The active node reaches nobody.
    ActiveAlone,
    /// The mirror link is cut, heartbeats come.
    LinkAlone,
    /// One interconnect is cut.
    Interconnect,
    /// All interconnects are cut; the mirror link works.
    Interconnects,
    /// The register does not run.
    NoRegister,
    /// `lockstepd` on a node is killed, and runs again.
    Killed,
    /// `lockstepd` on a node stands still for a while.
    Stuck,
    /// The register lost its data; then the active node loses its power.
    Forgotten,
    /// The active node loses its power, and the first answer of the register is lost.
    ReplyLost,
    /// The active node went on alone, then the register lost its data: nobody may take over from the past.
    ForgottenAlone,
    /// A planned move.
    Moved,
    /// A move to a node whose control plane is gone.
    MovedInVain,
    /// A move after which the other node does not begin.
    MoveNotBegun,
    /// An operator stops the group, and starts it later.
    Stopped,
    /// The standby is suspended, and the active node loses its power.
    Suspended,
    /// Two operators wish something else at the same moment.
    TwoOperators,
}

const SCENES: [Scene; 17] = [
    Scene::ActiveDies,
    Scene::ActiveDies,
    Scene::ActiveDies,
    Scene::StandbyDies,
    Scene::Apart,
    Scene::Apart,
    Scene::ActiveAlone,
    Scene::ActiveAlone,
    Scene::LinkAlone,
    Scene::Interconnect,
    Scene::Interconnects,
    Scene::NoRegister,
    Scene::Killed,
    Scene::Stuck,
    Scene::ReplyLost,
    Scene::ForgottenAlone,
    Scene::ForgottenAlone,
];

impl World {
    // --- at any time --------------------------------------------------------------------------

    /// I41: a word to decide alone is what was granted to this node, on this view.
    pub(super) fn check_word(&mut self, node: usize, word: Word) {
        let (Word::GoAlone { basis, next, .. } | Word::TakeOver { basis, next, .. }) = word else {
            return;
        };
        let granted = self.control.witness.grants.get(&next.id);
        if granted != Some(&(node, basis)) {
            self.fail(format!(
                "{node} acts on {next:?} after {basis:?}, granted was {granted:?} (I41)"
            ));
        }
    }

    /// I41: a view that was granted is committed by its holder, on the view that it names.
    pub(super) fn check_granted_view(&mut self, node: usize, before: &View, after: &View) {
        let Some((holder, basis)) = self.control.witness.grants.get(&after.id).copied() else {
            return;
        };
        let own = after.is_sole(id(node));
        if own && (holder != node || basis != before.mark()) {
            self.fail(format!(
                "{node} committed {after:?} after {before:?}, granted to {holder} after {basis:?} (I41)"
            ));
        }
    }

    /// I40: nobody else may still act on what it was granted.
    pub(super) fn check_grant(&mut self, node: usize, basis: ViewMark, next: ViewMark) {
        let other = 1 - node;
        if self.may_act(other) {
            let view = self.nodes[other].view();
            self.fail(format!(
                "{next:?} is granted to {node} on {basis:?}, and {other} may act on a grant on {view:?} (I40)"
            ));
        }
    }

    /// Whether a grant on the view that the copy holds is on its way to this node, in its hands, or in its data plane's.
    fn may_act(&self, node: usize) -> bool {
        let held = self.nodes[node].view().mark();
        // A machine that stands still acts when it goes on; its clock means nothing before.
        let acts = self.now.max(self.nodes[node].paused_until);
        let (clock, haste) = (self.nodes[node].clock(acts), self.plan.haste);
        let about = |word: &Word| is_about(word, held);
        let process = self.nodes[node].process.as_ref();
        let process = process.map(|process| process.number);
        let mut words = self.control.words.values();
        let told = words
            .any(|told| told.node == node && Some(told.process) == process && about(&told.word));
        let daemon = self.control.daemons[node].as_ref();
        let mut granted = daemon.iter().flat_map(|daemon| daemon.keeper().granted());
        let holds = granted.any(|(claim, _)| claim.basis == held);
        told || holds
            || self.answer_waits(node, held)
            || self.agenda_has(|step| match step {
                // What comes after its time is refused (LS1080): the mutant `late-grant` shows what happens otherwise.
                Step::Word {
                    node: to,
                    process: of,
                    word,
                    ..
                } => {
                    *to == node
                        && Some(*of) == process
                        && about(word)
                        && !is_late(word, clock, haste)
                }
                Step::Replied {
                    node: to,
                    run,
                    exchange,
                    reply: Reply::Answer { number, answer },
                    ..
                } => {
                    let waits =
                        |daemon: &Daemon| daemon.run == *run && daemon.client.waits_for(*exchange);
                    *to == node
                        && daemon.is_some_and(waits)
                        && self.would_take(node, *number, answer, held)
                }
                Step::Incoming {
                    node: to,
                    run,
                    incoming: Incoming::Answered { number, answer },
                } => {
                    *to == node
                        && daemon.is_some_and(|daemon| daemon.run == *run)
                        && self.would_take(node, *number, answer, held)
                }
                Step::Start { .. }
                | Step::Beat { .. }
                | Step::Wake { .. }
                | Step::Heartbeat { .. }
                | Step::Replay
                | Step::Look { .. }
                | Step::Incoming { .. }
                | Step::Catch { .. }
                | Step::Tick { .. }
                | Step::Connect { .. }
                | Step::Connected { .. }
                | Step::Report { .. }
                | Step::Asked { .. }
                | Step::Replied { .. }
                | Step::Silent { .. }
                | Step::Stored { .. }
                | Step::WantPeace
                | Step::Heal
                | Step::RegisterUp => false,
            })
    }

    /// Whether a grant that came waits behind a standstill.
    fn answer_waits(&self, node: usize, held: ViewMark) -> bool {
        let daemon = self.control.daemons[node].as_ref();
        let mut waiting = daemon.iter().flat_map(|daemon| &daemon.backlog);
        waiting.any(|incoming| {
            let Incoming::Answered { number, answer } = incoming else {
                return false;
            };
            self.would_take(node, *number, answer, held)
        })
    }

    /// Whether this answer, when it comes, grants something on this view.
    fn would_take(&self, node: usize, number: u64, answer: &Answer, held: ViewMark) -> bool {
        let daemon = self.control.daemons[node].as_ref();
        let open = daemon.is_some_and(|daemon| daemon.is_asked(number));
        let Answer::Granted(marks) = answer else {
            return false;
        };
        let of = |mark: &ViewMark| self.control.witness.grants.get(&mark.id);
        open && marks.iter().filter_map(of).any(|(_, basis)| *basis == held)
    }

    pub(super) fn agenda_has(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.agenda.iter().any(|entry| {
            let Happening::Control { step } = &entry.0.happening else {
                return false;
            };
            wanted(step)
        })
    }

    /// S5: a machine that stood still without seeing it may read on for a lease, though the other one serves by now.
    pub(super) fn reads_blindly(&self, node: usize) -> bool {
        let other = self.nodes[1 - node].view();
        let taken = other.is_sole(id(1 - node)) && other.epoch > self.nodes[node].view().epoch;
        self.plan.control && taken && self.now < self.control.blind_until[node]
    }

    // --- scenes -------------------------------------------------------------------------------

    /// What the control planes settle after trouble is settled: nothing is asked, nothing is being given back.
    fn control_rests(&self) -> bool {
        let idle = |node: usize| {
            self.control.daemons[node]
                .as_ref()
                .is_some_and(|daemon| daemon.keeper().claim() == ClaimState::Idle)
        };
        // Who only now comes to itself has heard less of the other one than the other one of it. Who serves may go on alone
        // for a lease since then: all of it, where nothing is broken.
        let awake = |node: usize| {
            let now = self.path_clock(node);
            let daemon = self.control.daemons[node].as_ref();
            let confirmed = daemon.map(|daemon| daemon.keeper().lease_confirmed());
            let lately = confirmed.is_some_and(|at| now.since(at) <= CONFIRMED_LATELY);
            let serves = self.role(node) == Some(Role::Active);
            self.control.stuck_until[node] <= self.now && (lately || !serves)
        };
        // What was granted to a run that ended at once is given back by the next one, when the words of the first are over:
        // until then the register keeps the other node out, rightly.
        let free = self.control.witness.holder().is_none();
        free && (0..2).all(|node| idle(node) && awake(node)) && self.control.witness.is_enrolled()
    }

    fn serves(&self, node: usize) -> bool {
        self.status(node).is_some_and(|status| {
            status.role == Role::Active && status.frozen != Some(Frozen::PeerLost)
        })
    }

    /// `millis` without haste, and what knows no haste.
    pub(super) fn bound_ms(&self, millis: u64) -> u64 {
        let slow = self.plan.slow_disk
            || self.plan.habits.slow_metadata
            || self.plan.habits.slow_flushes.contains(&true);
        let more = if slow { SLOWLY_MS } else { CARRIED_OUT_MS };
        millis / self.plan.haste + more
    }

    fn must_serve(&mut self, node: usize, scene: Scene, rule: &str, limit_ms: u64) {
        if !self.run_until(limit_ms, |world| world.serves(node)) {
            self.fail(format!(
                "{scene:?}: {node} does not serve after {limit_ms} ms ({rule})"
            ));
        }
    }

    pub(super) fn must_stay(&mut self, node: usize, scene: Scene, rule: &str) {
        let mut left = STAYS_MS / self.plan.haste;
        while left > 0 && self.failure.is_none() {
            self.run_for(5);
            left = left.saturating_sub(5);
            if self.role(node) != Some(Role::Active) || self.role(1 - node) == Some(Role::Active) {
                self.fail(format!(
                    "{scene:?}: {node} does not serve any more ({rule})"
                ));
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "one flat list of scenes")]
    fn play(&mut self, scene: Scene, active: usize) {
        let other = 1 - active;
        let noticed = self.bound_ms(NOTICED_MS);
        match scene {
            Scene::Moved
            | Scene::MovedInVain
            | Scene::MoveNotBegun
            | Scene::Stopped
            | Scene::Suspended
            | Scene::TwoOperators => self.play_wish(scene, active),
            Scene::ActiveDies | Scene::Forgotten => {
                self.nodes[active].held_off = true;
                self.power_cut(active);
                self.must_serve(other, scene, "I42", noticed);
                self.must_stay(other, scene, "I43");
            }
            Scene::ReplyLost => {
                self.control.witness.loses_grant = true;
                self.nodes[active].held_off = true;
                self.power_cut(active);
                let limit_ms = self.bound_ms(NOTICED_MS + REPLY_MS);
                self.must_serve(other, scene, "I42", limit_ms);
                self.must_stay(other, scene, "I43");
            }
            Scene::ForgottenAlone => self.forgets_who_is_alone(active),
            Scene::StandbyDies => {
                self.nodes[other].held_off = true;
                self.power_cut(other);
                self.run_for(self.bound_ms(NOTICED_MS));
                self.must_serve(active, scene, "I43", 1);
                self.must_stay(active, scene, "I43");
            }
            Scene::Apart => {
                self.part([true; 2]);
                self.run_for(self.bound_ms(NOTICED_MS));
                self.must_serve(active, scene, "I44 I43", 1);
                self.must_stay(active, scene, "I44 I43");
            }
            Scene::ActiveAlone => {
                self.part([true; 2]);
                self.control.witness.cut[active] = true;
                self.must_serve(other, scene, "I43", noticed);
                if self.role(active) != Some(Role::Fenced) {
                    let ended = |world: &World| world.role(active) == Some(Role::Fenced);
                    let limit_ms = self.bound_ms(NOTICED_MS);
                    if !self.run_until(limit_ms, ended) {
                        self.fail(format!("{active} is cut off and goes on waiting (I45)"));
                    }
                }
                self.must_stay(other, scene, "I43");
            }
            Scene::LinkAlone => {
                self.silence([true; 2]);
                self.run_for(self.bound_ms(NOTICED_MS + GRACE_MS));
                self.must_serve(active, scene, "I44 I43", 1);
                self.must_stay(active, scene, "I44 I43");
            }
            Scene::Interconnect | Scene::Interconnects => {
                let paths = self.control.interconnects.count();
                let path = self.control.rng.index(paths);
                if scene == Scene::Interconnect {
                    self.control.interconnects.cut[path] = [true; 2];
                } else {
                    self.control.interconnects.cut_all([true; 2]);
                }
                self.must_stay(active, scene, "I44");
            }
            Scene::NoRegister => {
                self.control.witness.up = false;
                self.control.witness.restarts();
                self.must_stay(active, scene, "I44");
            }
            Scene::Killed => {
                let node = self.control.rng.index(2);
                self.control_ends(node);
                self.must_stay(active, scene, "I44");
            }
            Scene::Stuck => {
                let node = self.control.rng.index(2);
                self.control.stuck_until[node] = self.now + self.control_ms(4000);
                self.must_stay(active, scene, "I44");
            }
        }
    }

    /// The active node goes on alone, the register loses its data, and hears of that from the active node or does not; then
    /// the active node loses its power. What the other one holds is the past.
    fn forgets_who_is_alone(&mut self, active: usize) {
        let (scene, other) = (Scene::ForgottenAlone, 1 - active);
        self.part([true; 2]);
        self.run_for(self.bound_ms(NOTICED_MS));
        self.must_serve(active, scene, "I44 I43", 1);
        self.control.witness.cut[active] = self.control.rng.percent(50);
        self.control.witness.forgets();
        let seconds = self.control.rng.between(1, 6);
        self.run_for(1000 * seconds / self.plan.haste);
        self.nodes[active].held_off = true;
        self.power_cut(active);
        let mut left = STAYS_MS / self.plan.haste;
        while left > 0 && self.failure.is_none() {
            self.run_for(5);
            left = left.saturating_sub(5);
            if self.role(other) == Some(Role::Active) {
                self.fail(format!("{scene:?}: {other} serves what is past (I40 S8)"));
            }
        }
    }

    /// Whether both hold one view in which nobody but this node was ever meant to serve.
    fn unchanged(&self, before: &View) -> bool {
        let same = |node: usize| self.nodes[node].view() == *before;
        same(0) && same(1)
    }
}

/// Some scenes after all is well.
pub(super) fn scenes(world: &mut World) {
    world.control.interconnects.noisy = false;
    world.control.witness.noisy = false;
    for _ in 0..2 {
        if world.failure.is_some() || !world.healthy() {
            return;
        }
        let mut scene = SCENES[world.control.rng.index(SCENES.len())];
        if world.control.rng.percent(8) {
            scene = Scene::Forgotten;
            world.control.witness.forgets();
        }
        one(world, scene);
    }
    if world.failure.is_none() && world.healthy() {
        let scenes = super::wishes::SCENES;
        let scene = scenes[world.control.wish_rng.index(scenes.len())];
        one(world, scene);
    }
}

fn one(world: &mut World, scene: Scene) {
    let settles_ms = (20_000 + MOVES_MS) / world.plan.haste + 1000;
    world.run_for(6000 / world.plan.haste);
    // What nobody serves is begun by one of the two, in its turn; and a move that somebody wished is over.
    let rests = |world: &World| {
        let quiet = world.control_rests() && world.wishes_rest();
        quiet && world.active().is_some() && world.healthy()
    };
    if !world.run_until(settles_ms, rests) {
        world.fail(format!(
            "{scene:?}: the control planes do not come to rest (I43)"
        ));
        return;
    }
    let Some(active) = world.active().filter(|_| world.healthy()) else {
        return world.fail(format!("{scene:?}: not healthy at rest (I43)"));
    };
    world.start_application(active);
    let before = world.nodes[active].view();
    world.note(|| format!("scene {scene:?}, active {active}"));
    world.control.in_a_scene = true;
    world.play(scene, active);
    world.control.in_a_scene = false;
    let harmless = matches!(
        scene,
        Scene::Interconnect
            | Scene::Interconnects
            | Scene::NoRegister
            | Scene::Killed
            | Scene::Stuck
    );
    if harmless && !world.unchanged(&before) {
        world.fail(format!("{scene:?}: the view changed (I44)"));
    }
    world.count(MARKS[scene as usize]);
    world.nodes[0].held_off = false;
    world.nodes[1].held_off = false;
    world.control_planes_have_peace();
    for node in 0..2 {
        world.power_on(node);
    }
    // A rebooted node waits for whoever starts a service in good order: here an operator.
    world.desk.caring = scene == Scene::ForgottenAlone;
    if world.failure.is_none() && !world.run_until(peace_ms(world), World::healthy) {
        world.fail(format!("{scene:?}: not healthy afterwards (I43)"));
    }
    super::run::rest(world);
}

const MARKS: [&str; 19] = [
    "scene ActiveDies",
    "scene StandbyDies",
    "scene Apart",
    "scene ActiveAlone",
    "scene LinkAlone",
    "scene Interconnect",
    "scene Interconnects",
    "scene NoRegister",
    "scene Killed",
    "scene Stuck",
    "scene Forgotten",
    "scene ReplyLost",
    "scene ForgottenAlone",
    "scene Moved",
    "scene MovedInVain",
    "scene MoveNotBegun",
    "scene Stopped",
    "scene Suspended",
    "scene TwoOperators",
];

/// Whether a word is a grant on this view.
fn is_about(word: &Word, view: ViewMark) -> bool {
    match word {
        Word::GoAlone { basis, .. } | Word::TakeOver { basis, .. } => *basis == view,
        Word::Start | Word::StepDown | Word::Release => false,
    }
}

/// Whether the data plane would refuse the word for its age.
fn is_late(word: &Word, now: Instant, haste: u64) -> bool {
    match word {
        Word::GoAlone { until, .. } | Word::TakeOver { until, .. } => {
            until.as_nanos() / haste < now.as_nanos()
        }
        Word::Start | Word::StepDown | Word::Release => false,
    }
}
