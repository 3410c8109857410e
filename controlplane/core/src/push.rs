//! How both nodes come to one configuration: all of them, or none.
//!
//! The node that is asked (it *drives*) asks the other one to promise; a promise is durable. Then it decides, durably,
//! and tells. Whoever promised and heard nothing asks: a driver that is not driving that push any more and has not decided it
//! never will. What is promised is never loaded; what is decided is carried out in this order:
//!
//! | stage, durable | a run that begins then loads |
//! |---|---|
//! | nothing: no push ever began | `cluster.toml` |
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

use mirror_core::types::NodeId;

mod terms;
#[cfg(test)]
mod tests;

pub use terms::{
    Ask, Digest, Durable, Effect, Event, Fit, InForce, Load, OutOfTurn, Proposal, PushId, Running,
    Stage, State, Times, Why,
};

/// What follows once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Then {
    Pinned(Proposal),
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
            running: Running {
                file,
                between,
                settled: false,
            },
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

    /// Whether time changes nothing here.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.drive.is_none() && self.durable.pending.is_none() && !self.unsure
    }

    /// Takes one event.
    ///
    /// # Errors
    /// [`OutOfTurn`] if it comes before the last [`Effect::Save`] was reported, or if a report comes unasked.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), OutOfTurn> {
        let is_report = matches!(event, Event::Saved | Event::NotSaved);
        match (is_report, self.saving) {
            (true, None) => return Err(OutOfTurn::Unasked),
            (false, Some(_)) => return Err(OutOfTurn::Early),
            (true, Some(_)) | (false, None) => {}
        }
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
            Event::Heard(peer) => self.heard(&peer, effects),
            Event::Settled => self.running.settled = true,
            Event::Saved => self.saved(effects),
            Event::NotSaved => self.not_saved(effects),
            Event::Abandon => self.abandon(effects),
            Event::Tick => self.tick(effects),
        }
        Ok(())
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
            pinned: true,
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
        } else if self.durable.pinned {
            self.ask_for(proposal, effects);
        } else {
            // Whatever comes of it: `cluster.toml`, which may be the new file already, is not loaded here any more.
            self.pend(None, Then::Pinned(proposal), effects);
        }
    }

    fn ask_for(&mut self, proposal: Proposal, effects: &mut Vec<Effect>) {
        let question = self.ask(Ask::Promise(proposal), effects);
        self.drive = Some(Drive::Asking(proposal, question));
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

    /// Whether it can have come about as it says: the other node drives it, and it comes after what is in force.
    fn makes_sense(&self, proposal: &Proposal) -> bool {
        proposal.by != self.me
            && proposal.by.index() < proposal.replaces.len()
            && proposal.number > self.durable.in_force.number
    }

    /// `Ok(false)`: it is so already.
    fn may_promise(&self, proposal: &Proposal, fit: Fit) -> Result<bool, Why> {
        if !self.makes_sense(proposal) {
            return Err(Why::Moved);
        }
        match (self.durable.pending, self.drive) {
            (Some((known, _)), _) if known == *proposal => return Ok(false),
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
        if !self.makes_sense(proposal) {
            return Err(Why::Moved);
        }
        match (self.durable.pending, self.drive) {
            (Some((known, Stage::Promised)), _) if known == *proposal => return Ok(true),
            (Some((known, Stage::Decided)), _) if known == *proposal => return Ok(false),
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
                self.conflict = why.or_else(|| self.lost(&proposal, peer));
                self.go_on(proposal, peer, effects);
            }
        }
    }

    /// What is decided here and driven there is not known there any more: somebody put something else in force by hand.
    fn lost(&self, proposal: &Proposal, peer: &State) -> Option<Why> {
        let known = peer.durable.decided(proposal.id) || peer.durable.is_in_force(proposal);
        (proposal.by != self.me && !known).then_some(Why::Moved)
    }

    /// Where only the driver can ask, the other node gets on by what the driver tells.
    fn heard(&mut self, peer: &State, effects: &mut Vec<Effect>) {
        if let Some((proposal, Stage::Decided)) = self.durable.pending
            && proposal.by != self.me
        {
            self.conflict = self.lost(&proposal, peer);
            self.go_on(proposal, peer, effects);
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
        // A process that began and comes to nothing runs nothing.
        let Running {
            file,
            between,
            settled,
        } = peer.running;
        let runs_new = settled && in_force && file == proposal.digest;
        let knows = in_force || peer.durable.decided(proposal.id);
        let runs_between = runs_new || (settled && knows && between == Some(proposal.id));
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
                pinned: true,
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
            Then::Pinned(proposal) => self.ask_for(proposal, effects),
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
            Then::Pinned(_) => effects.push(Effect::Ended(Err(Why::NotPinned))),
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
            return self.pend(self.durable.pending, Then::Settled, effects);
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
