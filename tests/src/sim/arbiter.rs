//! A third place that decides who may go on alone, and an agent on each node that asks it and gives the operator's
//! word. In these runs nobody else gives that word.
//!
//! The register holds an epoch and to whom it was granted. An agent whose node has been without its peer for a while
//! asks for the epoch after that of its durable view. It is granted to the same node as often as it asks, and to nobody
//! else before that node has given it back: it may still be about to act, under an older view than the other one has
//! agreed to since. It gives back when both are linked again and no word of its own is under way. Requests and replies
//! are late, lost, repeated, and the register takes no message that is older than another of the same node; an agent
//! remembers nothing of what it did before its machine booted.
//!
//! Checked: no split brain, never two copies that count alone (S8); with the register in reach, and nothing granted to
//! the other side, the node that is left serves within a bound (I9).

use mirror_core::admin::{Command, CopyState, Frozen, LinkState, Role};

use super::ambush::{Moment, Trap, Whom};
use super::faults::{Kind, Trouble};
use super::node::{MS, id, name};
use super::rng::Rng;
use super::world::{Happening, Mutant, World};

/// Between two looks of an agent.
const LOOK: u64 = 10 * MS;
/// A question without an answer is asked again after this.
const ANSWER: u64 = 40 * MS;
/// Messages in a row that the network loses at most.
const LOST_MAX: u32 = 4;
/// An agent waits so long before it asks, milliseconds without haste.
const PATIENCE_MS: u64 = 4000;
/// A late word, milliseconds without haste.
const LATE_MS: u64 = 6000;
/// Link timeout, patience, lease, a late word, milliseconds without haste.
const SERVES_MS: u64 = 2000 + PATIENCE_MS + 2000 + LATE_MS;
/// For questions, disks and the device.
const BOUND_MS: u64 = 2000;

/// A view is durable on the side that agreed to it, and the other one never hears of it.
static MOVES: Trap =
    Trap::new(Moment::Calm, Kind::Move, Whom::Own, (0, 20_000)).then(&SILENT_AT_CONSENT);
static SILENT_AT_CONSENT: Trap = Trap::new(Moment::Agrees, Kind::Silence, Whom::Own, (0, 0));

/// By chances of their own: other troubles stay as they are.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x6172_6269_7465);
    let mut troubles = Vec::new();
    let mut at = millis.start * MS;
    while is_about(seed) && at < millis.end * MS {
        let trap = if rng.percent(50) {
            &MOVES
        } else {
            &SILENT_AT_CONSENT
        };
        let dice = Rng::new(rng.bits());
        troubles.push(Trouble::at(at, Kind::Trap(trap), 0, dice));
        at += rng.between(500 * MS, 6000 * MS) / haste;
    }
    troubles
}

/// Whether a register decides in this run.
pub(super) fn is_about(seed: u64) -> bool {
    seed % 8 == 2
}

/// Something that an agent, the register or the network between them does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The agent looks at its node.
    Look { node: usize },
    /// A question reaches the register.
    Asked {
        node: usize,
        boot: u64,
        epoch: u64,
        number: u64,
    },
    /// A node holds this view, is linked, and will not use what it was granted.
    GivenBack {
        node: usize,
        epoch: u64,
        number: u64,
    },
    /// A reply reaches the agent.
    Told {
        node: usize,
        boot: u64,
        number: u64,
        granted: bool,
    },
    /// The word reaches the daemon.
    Word {
        node: usize,
        boot: u64,
        epoch: u64,
        asked: u32,
    },
    /// A node's way to the register is cut, or whole again.
    Cut { node: usize },
}

impl Step {
    /// Where it happens; the register is at neither node.
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Self::Look { node } | Self::Told { node, .. } | Self::Word { node, .. } => Some(node),
            Self::Asked { .. } | Self::GivenBack { .. } | Self::Cut { .. } => None,
        }
    }
}

/// What an agent knows.
#[derive(Clone, Copy, Debug, Default)]
struct Agent {
    boot: u64,
    /// From then on it asks.
    from: Option<u64>,
    asked: Option<Question>,
    /// A word is on its way.
    words_until: u64,
    /// It gave back what it may have been granted, at this moment, and under a view of this epoch.
    gave_back: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    /// The epoch of the view that it is about.
    epoch: u64,
    /// When it was asked last.
    at: u64,
    /// How often.
    times: u32,
    /// Of the last message.
    number: u64,
}

/// The register, the agents, the network between them.
#[derive(Debug)]
pub(super) struct Arbiter {
    rng: Rng,
    /// The last grant.
    epoch: u64,
    holder: Option<usize>,
    agents: [Agent; 2],
    cut: [bool; 2],
    lost: [u32; 2],
    /// Counts the agents' messages.
    sent: u64,
    /// The newest message of each node that arrived.
    newest: [u64; 2],
}

impl Arbiter {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed ^ 0x6172_6269_7465_7273),
            epoch: 0,
            holder: None,
            agents: [Agent::default(); 2],
            cut: [false; 2],
            lost: [0; 2],
            sent: 0,
            newest: [0; 2],
        }
    }

    fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Whether no newer message of the node came before this one.
    fn is_in_order(&mut self, node: usize, number: u64) -> bool {
        let newest = &mut self.newest[node];
        let ordered = *newest <= number;
        *newest = number.max(*newest);
        ordered
    }

    /// Whether `node`, whose durable view is of `epoch`, may go on alone.
    fn may_grant(&self, node: usize, epoch: u64, mutant: Option<Mutant>) -> bool {
        // The other node may still be about to act under the view for which it was granted this epoch, although it
        // agreed to the one that this node has.
        let behind = match mutant {
            Some(Mutant::ArbiterEqualEpoch) => self.epoch <= epoch,
            Some(Mutant::ArbiterLaterEpoch) => self.epoch < epoch,
            _ => false,
        };
        let free = self.holder.is_none_or(|holder| holder == node);
        (self.epoch <= epoch && free) || behind || self.has_granted(node, epoch)
    }

    fn has_granted(&self, node: usize, epoch: u64) -> bool {
        self.epoch == epoch + 1 && self.holder == Some(node)
    }

    /// An agent waits so long before it asks: mostly the one of the node that serves waits longer.
    fn patience(&mut self, active: bool) -> u64 {
        let whole = PATIENCE_MS * MS;
        match self.rng.below(4) {
            0 => self.rng.below(whole),
            1 => self.rng.below(whole / 16),
            _ if active => self.rng.between(whole / 2, whole),
            _ => self.rng.below(whole / 8),
        }
    }

    /// Until a message arrives; `None`: it is lost.
    fn travel(&mut self, node: usize) -> Option<u64> {
        if self.cut[node] {
            return None;
        }
        if self.rng.percent(25) && self.lost[node] < LOST_MAX {
            self.lost[node] += 1;
            return None;
        }
        self.lost[node] = 0;
        let slow = self.rng.percent(10);
        Some(
            self.rng
                .between(MS / 10, if slow { 100 * MS } else { 5 * MS }),
        )
    }
}

impl World {
    pub(super) fn open_the_register(&mut self) {
        if self.plan.arbiter {
            for node in 0..2 {
                self.step_later(0, Step::Look { node });
                self.step_later(100 * MS, Step::Cut { node });
            }
        }
    }

    fn step_later(&mut self, after: u64, step: Step) {
        self.at(after, Happening::Arbiter { step });
    }

    pub(super) fn arbiter_step(&mut self, step: Step) {
        match step {
            Step::Look { node } => {
                self.step_later(LOOK, step);
                self.agent_looks(node);
            }
            Step::Asked {
                node,
                boot,
                epoch,
                number,
            } => self.register_is_asked(node, boot, epoch, number),
            Step::GivenBack {
                node,
                epoch,
                number,
            } => self.register_is_given_back(node, epoch, number),
            Step::Told {
                node,
                boot,
                number,
                granted,
            } => self.agent_is_told(node, boot, number, granted),
            Step::Word {
                node,
                boot,
                epoch,
                asked,
            } => self.agent_speaks(node, boot, epoch, asked),
            Step::Cut { node } => self.cut_the_register(node),
        }
    }

    /// Where an operator would speak: power goes, or the network is silent, and the agents are left to it.
    pub(super) fn outage(&mut self, node: usize, lie: bool) {
        let haste = self.plan.haste;
        let after = self.arbiter.rng.between(100 * MS, 8000 * MS) / haste;
        if lie {
            self.silence([true, true]);
            let silent = [false, false];
            self.at(after, Happening::Heal { silent });
        } else {
            self.power_cut(1 - node);
            self.at(after, Happening::PowerOn { node: 1 - node });
        }
    }

    fn cut_the_register(&mut self, node: usize) {
        if !self.chaos {
            return;
        }
        let cut = &mut self.arbiter.cut[node];
        *cut = !*cut && self.arbiter.rng.percent(30);
        let after = self.arbiter.rng.between(20 * MS, 2000 * MS) / self.plan.haste;
        self.step_later(after, Step::Cut { node });
    }

    pub(super) fn whole_way_to_the_register(&mut self) {
        self.arbiter.cut = [false; 2];
    }

    /// Whether this is still the boot in which it began.
    fn same_boot(&self, node: usize, boot: u64) -> bool {
        self.nodes[node].power && self.nodes[node].boots == boot
    }

    // --- agents -------------------------------------------------------------------------------

    /// Its copy counts, the other one counts too, and there is no connection.
    fn is_without_peer(&self, node: usize) -> bool {
        let view = self.nodes[node].view();
        let both = view.insync.contains(id(node)) && view.insync.len() == 2;
        both && self.status(node).is_some_and(|status| {
            let down = matches!(status.link.state, LinkState::Down | LinkState::Refused);
            down && status.copy == CopyState::InSync
        })
    }

    fn agent_looks(&mut self, node: usize) {
        let boot = self.nodes[node].boots;
        let now = self.now;
        if self.arbiter.agents[node].boot != boot || !self.nodes[node].power {
            self.arbiter.agents[node] = Agent {
                boot,
                ..Agent::default()
            };
        }
        if !self.is_without_peer(node) {
            let agent = &mut self.arbiter.agents[node];
            (agent.from, agent.asked) = (None, None);
            return self.agent_gives_back(node);
        }
        self.arbiter.agents[node].gave_back = None;
        let active = self.role(node) == Some(Role::Active);
        let patience = self.arbiter.patience(active) / self.plan.haste;
        let epoch = self.nodes[node].view().epoch.0;
        let agent = &mut self.arbiter.agents[node];
        let from = *agent.from.get_or_insert(now + patience);
        let asked = agent.asked.filter(|asked| asked.epoch == epoch);
        let waits = asked.is_some_and(|asked| now < asked.at + ANSWER);
        if now < from || waits || now < agent.words_until {
            return;
        }
        let times = asked.map_or(0, |asked| asked.times);
        if let Some(asked) = asked
            && self.plan.mutant == Some(Mutant::AgentAssumes)
        {
            return self.agent_is_told(node, boot, asked.number, true);
        }
        let number = self.arbiter.number();
        self.arbiter.agents[node].asked = Some(Question {
            epoch,
            at: now,
            times: times + 1,
            number,
        });
        self.note(|| format!("{node} asks the register for the epoch after {epoch}"));
        for _ in 0..1 + u64::from(self.arbiter.rng.percent(10)) {
            if let Some(after) = self.arbiter.travel(node) {
                let asked = Step::Asked {
                    node,
                    boot,
                    epoch,
                    number,
                };
                self.step_later(after, asked);
            } else {
                self.count("arbiter: questions lost");
            }
        }
    }

    /// Linked under a view that both hold, with no word under way, nothing that was granted will be used any more. It is
    /// said again now and then, for it may be lost.
    fn agent_gives_back(&mut self, node: usize) {
        let view = self.nodes[node].view();
        let linked = view.insync.len() == 2
            && self.status(node).is_some_and(|status| {
                status.link.state == LinkState::Up && status.copy == CopyState::InSync
            });
        let epoch = view.epoch.0;
        let agent = self.arbiter.agents[node];
        let said = agent
            .gave_back
            .is_some_and(|(at, of)| of == epoch && self.now < at + 4 * ANSWER);
        if !linked || said || self.now < agent.words_until {
            return;
        }
        self.arbiter.agents[node].gave_back = Some((self.now, epoch));
        let number = self.arbiter.number();
        if let Some(after) = self.arbiter.travel(node) {
            let step = Step::GivenBack {
                node,
                epoch,
                number,
            };
            self.step_later(after, step);
        }
    }

    fn agent_is_told(&mut self, node: usize, boot: u64, number: u64, granted: bool) {
        let agent = self.arbiter.agents[node];
        let asked = agent
            .asked
            .filter(|asked| asked.number == number && agent.boot == boot);
        let Some(asked) = asked.filter(|_| self.same_boot(node, boot)) else {
            self.count("arbiter: replies too late");
            return;
        };
        let (epoch, times) = (asked.epoch, asked.times);
        self.arbiter.agents[node].asked = None;
        self.note(|| format!("{node} is told of the epoch after {epoch}: {granted}"));
        if !granted {
            self.arbiter.agents[node].from = None;
            let frozen = |status: &mirror_core::admin::Status| {
                status.role == Role::Active && status.frozen == Some(Frozen::PeerLost)
            };
            if self.status(node).as_ref().is_some_and(frozen) {
                self.count("arbiter: services ended");
                self.command(node, Command::Deactivate { force: true });
            }
            return;
        }
        let rng = &mut self.arbiter.rng;
        let late = LATE_MS * MS / self.plan.haste;
        let after = if rng.percent(30) {
            rng.below(late)
        } else {
            rng.below(20 * MS)
        };
        let twice = rng.percent(35).then(|| rng.below(late));
        let last = after.max(twice.unwrap_or(0));
        self.arbiter.agents[node].words_until = self.now + last + ANSWER;
        for after in [Some(after), twice].into_iter().flatten() {
            self.step_later(
                after,
                Step::Word {
                    node,
                    boot,
                    epoch,
                    asked: times,
                },
            );
        }
    }

    /// The word names the epoch for which it was granted: it may come when that is long over.
    fn agent_speaks(&mut self, node: usize, boot: u64, epoch: u64, asked: u32) {
        if !self.same_boot(node, boot) || self.nodes[node].process.is_none() {
            self.count("arbiter: words to nobody");
            return;
        }
        self.count("arbiter: words");
        if asked > 1 {
            self.count("arbiter: words after a repeated question");
        }
        let view = self.nodes[node].view();
        if view.epoch.0 != epoch {
            self.count("arbiter: words about an earlier view");
        } else if view.insync.len() == 2 {
            // What the other one has not flushed is given up.
            self.model.power_cut(1 - node);
        }
        self.disturb();
        let confirm = format!("{} is off, epoch {epoch}", name(1 - node));
        self.command(node, Command::Takeover { confirm });
    }

    // --- the register -------------------------------------------------------------------------

    fn register_is_given_back(&mut self, node: usize, epoch: u64, number: u64) {
        let mutant = self.plan.mutant;
        let ordered = self.arbiter.is_in_order(node, number);
        if (ordered || mutant == Some(Mutant::ArbiterDisorder)) && self.arbiter.holder == Some(node)
        {
            self.note(|| format!("the register: {node} at {epoch} gives back"));
            self.count("arbiter: given back");
            (self.arbiter.epoch, self.arbiter.holder) = (epoch, None);
        }
    }

    fn register_is_asked(&mut self, node: usize, boot: u64, epoch: u64, number: u64) {
        let mutant = self.plan.mutant;
        if !self.arbiter.is_in_order(node, number) && mutant != Some(Mutant::ArbiterDisorder) {
            self.count("arbiter: questions too late");
            return;
        }
        if mutant == Some(Mutant::ArbiterForgets) && self.arbiter.rng.percent(30) {
            (self.arbiter.epoch, self.arbiter.holder) = (0, None);
        }
        let again = self.arbiter.has_granted(node, epoch);
        let granted = self.arbiter.may_grant(node, epoch, mutant);
        self.count(match (granted, again) {
            (true, true) => "arbiter: grants repeated",
            (true, false) => "arbiter: grants",
            (false, _) => "arbiter: refusals",
        });
        if granted {
            (self.arbiter.epoch, self.arbiter.holder) = (epoch + 1, Some(node));
        }
        self.note(|| format!("the register: {node} at {epoch}, granted {granted}"));
        let told = Step::Told {
            node,
            boot,
            number,
            granted,
        };
        for _ in 0..1 + u64::from(self.arbiter.rng.percent(10)) {
            if let Some(after) = self.arbiter.travel(node) {
                self.step_later(after, told);
            } else {
                self.count("arbiter: replies lost");
            }
        }
    }

    // --- what must hold -----------------------------------------------------------------------

    /// S8: nobody goes on alone beside another.
    pub(super) fn check_alone(&mut self) {
        let views = [0, 1].map(|node| self.nodes[node].view());
        if self.plan.arbiter && views[0].is_sole(id(0)) && views[1].is_sole(id(1)) {
            self.fail(format!("both went on alone, {views:?} (S8)"));
        }
    }
}

/// At rest, a node dies: the other one serves, by a word of its agent. Then both come together.
pub(super) fn bereave(world: &mut World) {
    for _ in 0..2 {
        let left = world.arbiter.rng.index(2);
        if world.failure.is_some() || !world.healthy() {
            return;
        }
        let epoch = world.nodes[left].view().epoch.0;
        let mutant = world.plan.mutant;
        if !world.arbiter.may_grant(left, epoch, mutant) {
            // The other one was granted it, and died with it.
            world.count("arbiter: granted to the dead");
            continue;
        }
        world.nodes[1 - left].held_off = true;
        world.power_cut(1 - left);
        let limit_ms = SERVES_MS / world.plan.haste + BOUND_MS;
        let serves = |world: &World| {
            world.nodes[left].view().is_sole(id(left)) && world.role(left) == Some(Role::Active)
        };
        let alone = |world: &World| world.nodes[left].view().is_sole(id(left));
        if !world.run_until(limit_ms, alone) || !world.run_until(limit_ms, serves) {
            world.fail(format!(
                "{left} is left, the register in reach, and does not serve (I9)"
            ));
            return;
        }
        world.count("arbiter: the one that is left serves");
        world.nodes[1 - left].held_off = false;
        world.power_on(1 - left);
        if !world.run_until(super::run::peace_ms(world), World::healthy) {
            world.fail("not healthy after a node died and came back (I9)".to_string());
            return;
        }
    }
}
