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

use std::collections::BTreeMap;

use controlplane_core::register::{Answer, Claim, Refusal, Registers};
use mirror_core::admin::{Command, CopyState, Frozen, LinkState, Role, ViewName};
use mirror_core::types::{Epoch, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};

use super::node::{MS, id};
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
pub(super) const SERVES_MS: u64 = 2000 + PATIENCE_MS + 2000 + LATE_MS;
/// For questions, disks and the device.
pub(super) const BOUND_MS: u64 = 2000;

const VOLUME: VolumeId = VolumeId([1; 16]);

/// A register that both nodes have reported to, before anything was granted.
fn enrolled() -> Registers {
    let both = NodeSet::only(id(0)).with(id(1));
    let mut registers = Registers::new(both, BTreeMap::new());
    let nothing = View {
        epoch: Epoch(0),
        id: ViewId::NONE,
        active: None,
        insync: both,
    };
    for node in 0..2 {
        registers.report(id(node), VOLUME, &nothing);
    }
    registers
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
    Asked { node: usize, boot: u64, number: u64 },
    /// A node holds this view, is linked, and will not use what it was granted.
    GivenBack {
        node: usize,
        view: ViewMark,
        number: u64,
    },
    /// A reply reaches the agent.
    Told {
        node: usize,
        boot: u64,
        number: u64,
        granted: Option<ViewMark>,
    },
    /// The word reaches the daemon.
    Word {
        node: usize,
        boot: u64,
        basis: ViewMark,
        next: ViewMark,
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
    /// It gave back what it may have been granted, at this moment, and under this view.
    gave_back: Option<(u64, ViewMark)>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    /// The view that it is about.
    basis: ViewMark,
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
    pub(super) rng: Rng,
    registers: Registers,
    /// What the agents' questions say, by their numbers.
    claims: BTreeMap<u64, Claim>,
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
            registers: enrolled(),
            claims: BTreeMap::new(),
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

    fn answer(&mut self, node: usize, claim: &Claim, mutant: Option<Mutant>) -> Option<ViewMark> {
        let mut answer = self.registers.claim(id(node), &[*claim]);
        if let Answer::Refused {
            refusal: Refusal::Held { epoch, holder },
            ..
        } = answer
        {
            // The other node may still be about to act under the view for which it was granted this epoch, although
            // it agreed to the one that this node has.
            let behind = match mutant {
                Some(Mutant::ArbiterEqualEpoch) => epoch <= claim.basis.epoch,
                Some(Mutant::ArbiterLaterEpoch) => epoch < claim.basis.epoch,
                _ => false,
            };
            if behind {
                self.registers.release(holder, VOLUME, claim.basis);
                answer = self.registers.claim(id(node), &[*claim]);
            }
        }
        match answer {
            Answer::Granted(marks) => marks.first().copied(),
            Answer::Refused { .. } => None,
        }
    }

    pub(super) fn would_grant(&self, node: usize, claim: &Claim) -> bool {
        let answer = self.registers.clone().claim(id(node), &[*claim]);
        matches!(answer, Answer::Granted(_))
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
            Step::Asked { node, boot, number } => self.register_is_asked(node, boot, number),
            Step::GivenBack { node, view, number } => {
                self.register_is_given_back(node, view, number);
            }
            Step::Told {
                node,
                boot,
                number,
                granted,
            } => self.agent_is_told(node, boot, number, granted),
            Step::Word {
                node,
                boot,
                basis,
                next,
                asked,
            } => self.agent_speaks((node, boot), basis, next, asked),
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

    // --- for schedules that are told ------------------------------------------------------------

    /// These nodes do not reach the register.
    pub(super) fn part_from_the_register(&mut self, cut: [bool; 2]) {
        self.arbiter.cut = cut;
    }

    /// A message that is on its way to the register from now on: the node is linked, under the view that it has.
    pub(super) fn gives_back(&mut self, node: usize) -> Step {
        Step::GivenBack {
            node,
            view: self.nodes[node].view().mark(),
            number: self.arbiter.number(),
        }
    }

    /// The node is granted the next epoch. Returns the word to its daemon, which has not been said yet.
    pub(super) fn is_granted(&mut self, node: usize) -> Result<Step, String> {
        let claim = self.claim_of(node).ok_or("the node does not run (I9)")?;
        let number = self.arbiter.number();
        self.arbiter.is_in_order(node, number);
        let next = self.arbiter.answer(node, &claim, None);
        Ok(Step::Word {
            node,
            boot: self.nodes[node].boots,
            basis: claim.basis,
            next: next.ok_or("the register refuses (I9)")?,
            asked: 1,
        })
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
        let Some(claim) = self.claim_of(node) else {
            return;
        };
        let agent = &mut self.arbiter.agents[node];
        let from = *agent.from.get_or_insert(now + patience);
        let asked = agent.asked.filter(|asked| asked.basis == claim.basis);
        let waits = asked.is_some_and(|asked| now < asked.at + ANSWER);
        if now < from || waits || now < agent.words_until {
            return;
        }
        let times = asked.map_or(0, |asked| asked.times);
        if let Some(asked) = asked
            && self.plan.mutant == Some(Mutant::AgentAssumes)
        {
            return self.agent_is_told(node, boot, asked.number, Some(claim.next));
        }
        let number = self.arbiter.number();
        self.arbiter.claims.insert(number, claim);
        let epoch = claim.basis.epoch;
        self.arbiter.agents[node].asked = Some(Question {
            basis: claim.basis,
            at: now,
            times: times + 1,
            number,
        });
        self.note(|| format!("{node} asks the register for the epoch after {epoch}"));
        for _ in 0..1 + u64::from(self.arbiter.rng.percent(10)) {
            if let Some(after) = self.arbiter.travel(node) {
                let asked = Step::Asked { node, boot, number };
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
        let view = view.mark();
        let agent = self.arbiter.agents[node];
        let said = agent
            .gave_back
            .is_some_and(|(at, of)| of == view && self.now < at + 4 * ANSWER);
        if !linked || said || self.now < agent.words_until {
            return;
        }
        self.arbiter.agents[node].gave_back = Some((self.now, view));
        let number = self.arbiter.number();
        if let Some(after) = self.arbiter.travel(node) {
            let step = Step::GivenBack { node, view, number };
            self.step_later(after, step);
        }
    }

    fn agent_is_told(&mut self, node: usize, boot: u64, number: u64, granted: Option<ViewMark>) {
        let agent = self.arbiter.agents[node];
        let asked = agent
            .asked
            .filter(|asked| asked.number == number && agent.boot == boot);
        let Some(asked) = asked.filter(|_| self.same_boot(node, boot)) else {
            self.count("arbiter: replies too late");
            return;
        };
        let (basis, times) = (asked.basis, asked.times);
        self.arbiter.agents[node].asked = None;
        self.note(|| {
            format!(
                "{node} is told of the epoch after {}: {granted:?}",
                basis.epoch
            )
        });
        let Some(next) = granted else {
            self.arbiter.agents[node].from = None;
            let frozen = |status: &mirror_core::admin::Status| {
                status.role == Role::Active && status.frozen == Some(Frozen::PeerLost)
            };
            if self.status(node).as_ref().is_some_and(frozen) {
                self.count("arbiter: services ended");
                self.command(node, Command::Deactivate { force: true });
            }
            return;
        };
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
                    basis,
                    next,
                    asked: times,
                },
            );
        }
    }

    /// The word names the view for which it was granted: it may come when that is long over.
    fn agent_speaks(
        &mut self,
        (node, boot): (usize, u64),
        basis: ViewMark,
        next: ViewMark,
        asked: u32,
    ) {
        if !self.same_boot(node, boot) || self.nodes[node].process.is_none() {
            self.count("arbiter: words to nobody");
            return;
        }
        self.count("arbiter: words");
        if asked > 1 {
            self.count("arbiter: words after a repeated question");
        }
        let view = self.nodes[node].view();
        if view.mark() != basis {
            self.count("arbiter: words about an earlier view");
        } else if view.insync.len() == 2 {
            // What the other one has not flushed is given up.
            self.model.power_cut(1 - node);
        }
        self.disturb();
        let (basis, next) = (ViewName::from(basis), ViewName::from(next));
        // Agents count on nothing: their words hold for ever.
        let until_nanos = u64::MAX;
        let word = Command::Granted {
            basis,
            next,
            until_nanos,
        };
        self.command(node, word);
    }

    // --- the register -------------------------------------------------------------------------

    /// What the node would claim now.
    pub(super) fn claim_of(&mut self, node: usize) -> Option<Claim> {
        let status = self.status(node)?;
        let mut history = ViewHistory::default();
        for mark in status.view.history.iter().rev() {
            history.push(mark.mark()?);
        }
        let next = ViewMark {
            epoch: Epoch(status.view.next_epoch),
            id: ViewId(self.arbiter.rng.bytes16()),
        };
        Some(Claim {
            volume: VOLUME,
            basis: self.nodes[node].view().mark(),
            next,
            history,
        })
    }

    fn register_is_given_back(&mut self, node: usize, view: ViewMark, number: u64) {
        let ordered = self.arbiter.is_in_order(node, number);
        let taken = ordered || self.plan.mutant == Some(Mutant::ArbiterDisorder);
        if taken && self.arbiter.registers.release(id(node), VOLUME, view) {
            self.note(|| format!("the register: {node} at {} gives back", view.epoch));
            self.count("arbiter: given back");
        }
    }

    fn register_is_asked(&mut self, node: usize, boot: u64, number: u64) {
        let mutant = self.plan.mutant;
        if !self.arbiter.is_in_order(node, number) && mutant != Some(Mutant::ArbiterDisorder) {
            self.count("arbiter: questions too late");
            return;
        }
        let Some(claim) = self.arbiter.claims.get(&number).copied() else {
            return;
        };
        if mutant == Some(Mutant::ArbiterForgets) && self.arbiter.rng.percent(30) {
            self.arbiter.registers = enrolled();
        }
        let granted = self.arbiter.answer(node, &claim, mutant);
        self.count(match granted {
            Some(mark) if mark == claim.next => "arbiter: grants",
            Some(_) => "arbiter: grants repeated",
            None => "arbiter: refusals",
        });
        let epoch = claim.basis.epoch;
        self.note(|| format!("the register: {node} at {epoch}, granted {granted:?}"));
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

    /// Whether a question of the node is on its way to the register.
    pub(super) fn asks_yet(&self, from: usize) -> bool {
        self.agenda.iter().any(|entry| {
            matches!(entry.0.happening, Happening::Arbiter { step: Step::Asked { node, .. } } if node == from)
        })
    }

    // --- what must hold -----------------------------------------------------------------------

    /// S8: nobody goes on alone beside another.
    pub(super) fn check_alone(&mut self) {
        let views = [0, 1].map(|node| self.nodes[node].view());
        if (self.plan.arbiter || self.plan.control)
            && views[0].is_sole(id(0))
            && views[1].is_sole(id(1))
        {
            self.fail(format!("both went on alone, {views:?} (S8)"));
        }
    }
}
