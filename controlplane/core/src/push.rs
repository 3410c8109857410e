//! How both nodes come to one configuration: all of them, or none.
//!
//! The node that is asked (it *drives*) asks the other one to promise; a promise is durable. Then it decides, durably,
//! and tells. Whoever promised and heard nothing asks: a driver that is not driving that push any more and has not decided it
//! never will. What is promised is never loaded; what is decided is carried out in this order:
//!
//! | stage, durable | a run that begins then loads |
//! |---|---|
//! | nothing, and never pushed | `cluster.toml` |
//! | in force | the file in force, whatever `cluster.toml` says |
//! | promised | the same |
//! | decided | the same, with times that are safe beside the old and the new file ([`crate::bounds`]) |
//! | in force (the new one) | the new one |
//!
//! A node puts the new file in force when it knows that the other one runs as *decided* at least; the driver when the
//! other one runs the new file already. So a node with the old times never meets one with the new ones, and both are never
//! away at the same moment.
//!
//! The shell calls [`Push::handle`] with one event after the other, and reports each [`Effect::Save`] before the next event.

use alloc::vec::Vec;
use core::fmt;

use mirror_core::types::NodeId;

#[cfg(test)]
mod tests;

/// BLAKE3 of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([a, b, c, d, ..]) = self;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// Names one push: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(pub [u8; 16]);

/// Whether the old and the new file have the same times of those that both nodes count with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Times {
    /// They have: going by the old file is as good as going between both.
    Same,
    /// They have not.
    Differ,
}

/// What shall be in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proposal {
    /// This push.
    pub id: PushId,
    /// Who drives it.
    pub by: NodeId,
    /// Above the number of what is in force on either node.
    pub number: u64,
    /// The new file.
    pub digest: Digest,
    /// What it replaces on each node, by the nodes' numbers: nothing else.
    pub replaces: [Digest; 2],
    /// See [`Times`].
    pub times: Times,
}

/// The file that a node goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InForce {
    /// Of its push; 0: none, it is what `cluster.toml` said when this run began.
    pub number: u64,
    /// The file.
    pub digest: Digest,
}

/// How far a push is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It will be carried out if the driver decides so.
    Promised,
    /// It will be carried out.
    Decided,
}

/// What a node keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Durable {
    /// The file in force.
    pub in_force: InForce,
    /// A push that is not in force yet.
    pub pending: Option<(Proposal, Stage)>,
}

/// What a run loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// What `cluster.toml` says: nothing was ever pushed.
    File,
    /// The file in force.
    InForce,
    /// The same, with times between it and the decided one.
    Between,
}

impl Durable {
    /// What a run that begins now loads.
    #[must_use]
    pub fn load(&self) -> Load {
        match self.pending {
            Some((_, Stage::Decided)) => Load::Between,
            Some((_, Stage::Promised)) => Load::InForce,
            None if self.in_force.number == 0 => Load::File,
            None => Load::InForce,
        }
    }

    fn decided(&self, id: PushId) -> bool {
        matches!(self.pending, Some((pending, Stage::Decided)) if pending.id == id)
    }

    fn is_in_force(&self, proposal: &Proposal) -> bool {
        let InForce { number, digest } = self.in_force;
        (number, digest) == (proposal.number, proposal.digest)
    }
}

/// What this run loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Running {
    /// The file.
    pub file: Digest,
    /// It goes by times that are safe beside the file before and after this push.
    pub between: Option<PushId>,
}

/// All that one node tells the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// What is durable there.
    pub durable: Durable,
    /// What runs there.
    pub running: Running,
    /// The push that it drives and has not decided.
    pub driving: Option<PushId>,
}

/// What one node asks the other one. The answer is its [`State`] afterwards, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// Only how it stands.
    State,
    /// To promise.
    Promise(Proposal),
    /// To carry out what is decided.
    CarryOut(Proposal),
}

/// Why a node does not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Another push is under way.
    Busy,
    /// Somebody at the other node pushes at the same time, and that one goes first.
    Overtaken,
    /// Something else is in force than what the push replaces.
    Moved,
    /// The file does not do on that node, or its `cluster.toml` was changed by hand.
    Unfit,
    /// It cannot be kept.
    NotKept,
    /// The other node does not answer.
    Silent,
    /// An operator took it back.
    Abandoned,
}

/// What the shell found when it looked at the file and at `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fit {
    /// It will do.
    Fits,
    /// It will not.
    Unfit,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An operator wants this; the shell looked at both nodes.
    Begin(Proposal),
    /// The other node asks.
    Asked(Ask, Fit),
    /// The other node answered the question of this number. [`Fit`] is of `cluster.toml` here, for what is driven here.
    Answered(u64, State, Option<Why>, Fit),
    /// It did not.
    Unanswered(u64),
    /// What was to be saved is durable.
    Saved,
    /// It may be, or not.
    NotSaved,
    /// An operator takes back what is not decided.
    Abandon,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the other node, then report the answer.
    Ask(u64, Ask),
    /// The answer to who asked: the state now, or why not.
    Answer(Option<Why>),
    /// `cluster.toml` becomes the pushed file, before what follows is saved.
    Install(Proposal),
    /// Make this durable, then report it.
    Save(Durable),
    /// This run ends; the next one begins with what is durable.
    Restart,
    /// The push that was driven here is decided, or is not.
    Ended(Result<(), Why>),
}

/// What follows once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Then {
    Promised,
    TakenBack,
    Settled,
    Decided,
    Told,
    Learnt,
    InForce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Drive {
    /// The promise was asked for with this question.
    Asking(Proposal, u64),
    /// The decision is not durable yet, and nobody may be told that there is none.
    Deciding(Proposal),
}

impl Drive {
    fn id(self) -> PushId {
        match self {
            Self::Asking(proposal, _) | Self::Deciding(proposal) => proposal.id,
        }
    }
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Push {
    me: NodeId,
    durable: Durable,
    running: Running,
    drive: Option<Drive>,
    saving: Option<(Durable, Then)>,
    question: u64,
    open: Option<u64>,
    conflict: Option<Why>,
    /// What is on the disk may be later than [`Self::durable`].
    unsure: bool,
}

impl Push {
    /// A run begins, with what was durable and what it loaded.
    #[must_use]
    pub fn new(me: NodeId, durable: Durable, file: Digest) -> Self {
        let between = match durable.pending {
            Some((proposal, Stage::Decided)) => Some(proposal.id),
            Some((_, Stage::Promised)) | None => None,
        };
        Self {
            me,
            durable,
            running: Running { file, between },
            drive: None,
            saving: None,
            question: 0,
            open: None,
            conflict: None,
            unsure: false,
        }
    }

    /// How this node stands.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            durable: self.durable,
            running: self.running,
            driving: self.drive.map(Drive::id),
        }
    }

    /// What is driven here and not decided.
    #[must_use]
    pub fn driven(&self) -> Option<Proposal> {
        self.drive.map(|drive| match drive {
            Drive::Asking(proposal, _) | Drive::Deciding(proposal) => proposal,
        })
    }

    /// Why the other node does not carry out what is decided.
    #[must_use]
    pub fn conflict(&self) -> Option<Why> {
        self.conflict
    }

    /// Takes one event.
    ///
    /// # Panics
    /// If it comes before the last [`Effect::Save`] was reported, or if a report comes unasked.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let is_report = matches!(event, Event::Saved | Event::NotSaved);
        assert_eq!(is_report, self.saving.is_some(), "{event:?} out of turn");
        match event {
            Event::Begin(proposal) => self.begin(proposal, effects),
            Event::Asked(ask, fit) => self.asked(ask, fit, effects),
            Event::Answered(question, state, why, fit) => {
                if self.open == Some(question) {
                    self.open = None;
                    self.answered(&state, why, fit, effects);
                }
            }
            Event::Unanswered(question) => {
                if self.open == Some(question) {
                    self.open = None;
                    if let Some(Drive::Asking(..)) = self.drive {
                        self.give_up(Why::Silent, effects);
                    }
                }
            }
            Event::Saved => self.saved(effects),
            Event::NotSaved => self.not_saved(effects),
            Event::Abandon => self.abandon(effects),
            Event::Tick => self.tick(effects),
        }
    }

    fn ask(&mut self, ask: Ask, effects: &mut Vec<Effect>) -> u64 {
        self.question += 1;
        self.open = Some(self.question);
        effects.push(Effect::Ask(self.question, ask));
        self.question
    }

    fn save(&mut self, durable: Durable, then: Then, effects: &mut Vec<Effect>) {
        self.saving = Some((durable, then));
        effects.push(Effect::Save(durable));
    }

    fn pend(&mut self, pending: Option<(Proposal, Stage)>, then: Then, effects: &mut Vec<Effect>) {
        let durable = Durable {
            pending,
            ..self.durable
        };
        self.save(durable, then, effects);
    }

    /// Not decided, and it never will be.
    fn give_up(&mut self, why: Why, effects: &mut Vec<Effect>) {
        (self.drive, self.open) = (None, None);
        effects.push(Effect::Ended(Err(why)));
    }

    fn replaces_own(&self, proposal: &Proposal) -> bool {
        let own = proposal.replaces.get(self.me.index());
        own == Some(&self.durable.in_force.digest)
    }

    fn begin(&mut self, proposal: Proposal, effects: &mut Vec<Effect>) {
        if self.durable.pending.is_some() || self.drive.is_some() {
            effects.push(Effect::Ended(Err(Why::Busy)));
        } else if !self.replaces_own(&proposal) {
            effects.push(Effect::Ended(Err(Why::Moved)));
        } else {
            let question = self.ask(Ask::Promise(proposal), effects);
            self.drive = Some(Drive::Asking(proposal, question));
        }
    }

    // --- asked by the other node ---------------------------------------------------------------

    fn asked(&mut self, ask: Ask, fit: Fit, effects: &mut Vec<Effect>) {
        let refusal = match ask {
            Ask::State => None,
            Ask::Promise(proposal) => match self.may_promise(&proposal, fit) {
                Ok(true) => {
                    self.yield_to_the_other(effects);
                    let pending = Some((proposal, Stage::Promised));
                    return self.pend(pending, Then::Promised, effects);
                }
                Ok(false) => None,
                Err(why) => Some(why),
            },
            Ask::CarryOut(proposal) => match self.may_carry_out(&proposal, fit) {
                Ok(true) => {
                    self.yield_to_the_other(effects);
                    let pending = Some((proposal, Stage::Decided));
                    return self.pend(pending, Then::Told, effects);
                }
                Ok(false) => None,
                Err(why) => Some(why),
            },
        };
        effects.push(Effect::Answer(refusal));
    }

    /// `Ok(false)`: it is so already.
    fn may_promise(&self, proposal: &Proposal, fit: Fit) -> Result<bool, Why> {
        match (self.durable.pending, self.drive) {
            (Some((known, _)), _) if known.id == proposal.id => return Ok(false),
            // Of two at once the first node's goes on; the other one's is not decided, and never will be.
            (None, Some(Drive::Asking(..))) if proposal.by < self.me => {}
            (Some(_), _) | (None, Some(_)) => return Err(Why::Busy),
            (None, None) => {}
        }
        match (self.replaces_own(proposal), fit) {
            (false, _) => Err(Why::Moved),
            (true, Fit::Unfit) => Err(Why::Unfit),
            (true, Fit::Fits) => Ok(true),
        }
    }

    fn may_carry_out(&self, proposal: &Proposal, fit: Fit) -> Result<bool, Why> {
        if self.durable.is_in_force(proposal) {
            return Ok(false);
        }
        match (self.durable.pending, self.drive) {
            (Some((known, Stage::Promised)), _) if known.id == proposal.id => return Ok(true),
            (Some((known, Stage::Decided)), _) if known.id == proposal.id => return Ok(false),
            (Some(_), _) | (None, Some(Drive::Deciding(_))) => return Err(Why::Busy),
            (None, Some(Drive::Asking(..)) | None) => {}
        }
        // A promise that was taken back here binds all the same, as long as nothing else came into force.
        match (self.replaces_own(proposal), fit) {
            (false, _) => Err(Why::Moved),
            (true, Fit::Unfit) => Err(Why::Unfit),
            (true, Fit::Fits) => Ok(true),
        }
    }

    fn yield_to_the_other(&mut self, effects: &mut Vec<Effect>) {
        if self.drive.is_some() {
            self.give_up(Why::Overtaken, effects);
        }
    }

    // --- answers -------------------------------------------------------------------------------

    fn answered(&mut self, peer: &State, why: Option<Why>, fit: Fit, effects: &mut Vec<Effect>) {
        if let Some(Drive::Asking(proposal, _)) = self.drive {
            return self.promised(proposal, peer, why, fit, effects);
        }
        match self.durable.pending {
            None => {}
            Some((proposal, Stage::Promised)) => {
                let decided =
                    peer.durable.decided(proposal.id) || peer.durable.is_in_force(&proposal);
                if decided {
                    self.pend(Some((proposal, Stage::Decided)), Then::Learnt, effects);
                } else if peer.driving != Some(proposal.id) {
                    self.pend(None, Then::TakenBack, effects);
                }
            }
            Some((proposal, Stage::Decided)) => {
                self.conflict = why;
                self.go_on(proposal, peer, effects);
            }
        }
    }

    fn promised(
        &mut self,
        proposal: Proposal,
        peer: &State,
        why: Option<Why>,
        fit: Fit,
        effects: &mut Vec<Effect>,
    ) {
        let promised = matches!(peer.durable.pending, Some((known, _)) if known == proposal);
        match (why, promised, fit) {
            (Some(why), ..) => self.give_up(why, effects),
            (None, false, _) => self.give_up(Why::Silent, effects),
            // Somebody changed `cluster.toml` here while the other node promised.
            (None, true, Fit::Unfit) => self.give_up(Why::Unfit, effects),
            (None, true, Fit::Fits) => {
                self.drive = Some(Drive::Deciding(proposal));
                self.pend(Some((proposal, Stage::Decided)), Then::Decided, effects);
            }
        }
    }

    /// What is decided gets on, as far as the other node is.
    fn go_on(&mut self, proposal: Proposal, peer: &State, effects: &mut Vec<Effect>) {
        let in_force = peer.durable.is_in_force(&proposal);
        let runs_new = in_force && peer.running.file == proposal.digest;
        let knows = in_force || peer.durable.decided(proposal.id);
        let runs_between = runs_new || (knows && peer.running.between == Some(proposal.id));
        let drives = proposal.by == self.me;
        // Whoever drives goes last, so that both are never away at once.
        if self.running.between != Some(proposal.id) {
            if runs_between || !drives {
                effects.push(Effect::Restart);
            }
            return;
        }
        if (drives && runs_new) || (!drives && runs_between) {
            effects.push(Effect::Install(proposal));
            let Proposal { number, digest, .. } = proposal;
            let durable = Durable {
                in_force: InForce { number, digest },
                pending: None,
            };
            self.save(durable, Then::InForce, effects);
        }
    }

    // --- what was saved ------------------------------------------------------------------------

    fn saved(&mut self, effects: &mut Vec<Effect>) {
        let Some((durable, then)) = self.saving.take() else {
            return;
        };
        self.durable = durable;
        self.conflict = None;
        self.unsure = false;
        if let Some((proposal, Stage::Decided)) = durable.pending
            && proposal.times == Times::Same
        {
            self.running.between = Some(proposal.id);
        }
        match then {
            Then::Promised | Then::Told => effects.push(Effect::Answer(None)),
            Then::TakenBack | Then::Settled | Then::Learnt => {}
            Then::Decided => {
                self.drive = None;
                effects.push(Effect::Ended(Ok(())));
                self.tick(effects);
            }
            Then::InForce => effects.push(Effect::Restart),
        }
    }

    fn not_saved(&mut self, effects: &mut Vec<Effect>) {
        let Some((_, then)) = self.saving.take() else {
            return;
        };
        self.unsure = true;
        match then {
            Then::Promised | Then::Told => effects.push(Effect::Answer(Some(Why::NotKept))),
            // It may be decided: until it is known, this node drives it, and saves again.
            Then::Decided => effects.push(Effect::Ended(Err(Why::NotKept))),
            // Found again with the next answer.
            Then::TakenBack | Then::Settled | Then::Learnt | Then::InForce => {}
        }
    }

    fn abandon(&mut self, effects: &mut Vec<Effect>) {
        match (self.drive, self.durable.pending) {
            (Some(Drive::Asking(..)), _) => self.give_up(Why::Abandoned, effects),
            (None, Some((_, Stage::Promised))) => self.pend(None, Then::TakenBack, effects),
            (Some(Drive::Deciding(_)), _) | (None, Some((_, Stage::Decided)) | None) => {}
        }
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
        let decides = matches!(self.drive, Some(Drive::Deciding(_)));
        if self.unsure && !decides {
            return self.save(self.durable, Then::Settled, effects);
        }
        match (self.drive, self.durable.pending) {
            (Some(Drive::Asking(..)), _) => {}
            (Some(Drive::Deciding(proposal)), _) => {
                self.pend(Some((proposal, Stage::Decided)), Then::Decided, effects);
            }
            (None, Some((proposal, Stage::Decided))) if proposal.by == self.me => {
                self.ask(Ask::CarryOut(proposal), effects);
            }
            (None, Some(_)) => {
                self.ask(Ask::State, effects);
            }
            (None, None) => {}
        }
    }
}
