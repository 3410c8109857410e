//! The arbiter's registers: one for each volume, changed only by compare-and-swap (DESIGN §3).
//!
//! A node that wants to decide alone (go on without its peer, take over from it) first claims the view that is to come
//! after the one that its copy holds durably, its **basis**. What was granted stands in everybody else's way until its
//! holder gives it back, or until a claim shows that it was used: the claimant's own history contains the granted view.
//! A later basis alone shows nothing: who agrees to a view writes it down first, and the one that proposed it may still
//! hold an older one, and be about to act on a grant (docs/adr/0008). Changes on which both nodes agree need no claim,
//! so the register may lag behind the views; it then refuses more than it must, never grants twice.
//!
//! Whoever was granted a view may ask again, and gets the same answer: a lost reply costs a repetition (S4).
//! Several registers are claimed together or not at all, so that the volumes of one group cannot be torn apart.
//!
//! A register that is not known here (a new volume, or a witness that lost its data) grants nothing before every
//! member has reported: otherwise a witness restored from an old backup would grant the past once more.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use mirror_core::types::{Epoch, NodeId, NodeSet, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};

use crate::mutant::{self, Mutant};

/// Registers of a cluster at most.
pub const REGISTERS_MAX: usize = 256;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The last view that was granted, or that a node reported whose copy alone counts.
    pub mark: ViewMark,
    /// On which view it rests.
    pub basis: ViewMark,
    /// To whom it was granted.
    pub holder: Option<NodeId>,
}

/// One volume of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which volume.
    pub volume: VolumeId,
    /// The view that the claimant's copy holds durably.
    pub basis: ViewMark,
    /// The view that it wants to commit. Its epoch is above the basis.
    pub next: ViewMark,
    /// The views before the basis, as far as the copy remembers them.
    pub history: ViewHistory,
}

/// Why nothing was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another node was granted a view on the same basis, or on a later one.
    #[error("epoch {epoch} was granted to node {}", holder_number(.holder))]
    Superseded {
        /// The epoch of that view.
        epoch: Epoch,
        /// Who has it; `None` if it was reported, not granted.
        holder: Option<NodeId>,
    },
    /// Another node was granted a view, and may still act on it.
    #[error("node {} was granted epoch {epoch} and has not given it back", .holder.number())]
    Held {
        /// The epoch of that view.
        epoch: Epoch,
        /// Who has it.
        holder: NodeId,
    },
    /// The claimant's view has the same epoch as the granted one and is another view: the histories went apart.
    #[error("epoch {epoch} is another view here: the histories went apart")]
    Diverged {
        /// That epoch.
        epoch: Epoch,
    },
    /// Not every member has reported since the register began here.
    #[error("not every member of the volume has reported to this arbiter yet")]
    NotEnrolled {
        /// Who has not.
        missing: NodeSet,
    },
    /// The claim contradicts itself, or names too many volumes.
    #[error("the claim contradicts itself")]
    Malformed,
}

fn holder_number(holder: &Option<NodeId>) -> u8 {
    holder.map_or(u8::MAX, NodeId::number)
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The claimant may commit these views, in the order of the claim. They are what was asked for, or what
    /// it was granted before on the same basis.
    Granted(Vec<ViewMark>),
    /// It may not, because of this volume.
    Refused {
        /// Which volume.
        volume: VolumeId,
        /// Why.
        refusal: Refusal,
    },
}

/// A register that still waits for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// Who has reported.
    pub reported: NodeSet,
    /// The highest view of which a node said that its copy alone counts.
    pub sole: ViewMark,
    /// Whose copy that is: nobody else is granted anything that does not go on from there, whatever it agreed to in vain.
    pub holder: Option<NodeId>,
}

/// All registers of one cluster.
#[derive(Clone, Debug)]
pub struct Registers {
    members: NodeSet,
    known: BTreeMap<VolumeId, Register>,
    enrolling: BTreeMap<VolumeId, Enrolment>,
}

impl Registers {
    /// Of a cluster with these members, as they were durable; empty for a new arbiter, or one that lost its data
    /// or cannot be sure that what it has is the latest.
    pub fn new(members: NodeSet, known: BTreeMap<VolumeId, Register>) -> Self {
        Self {
            members,
            known,
            enrolling: BTreeMap::new(),
        }
    }

    /// As they were when an arbiter of several parts wrote them down: it forgets no report when one part starts again.
    pub fn with_enrolling(self, enrolling: BTreeMap<VolumeId, Enrolment>) -> Self {
        Self { enrolling, ..self }
    }

    /// The cluster's nodes.
    pub fn members(&self) -> NodeSet {
        self.members
    }

    /// Registers that still wait for reports.
    pub fn enrolling(&self) -> &BTreeMap<VolumeId, Enrolment> {
        &self.enrolling
    }

    /// What has to be durable before any answer is given.
    pub fn durable(&self) -> &BTreeMap<VolumeId, Register> {
        &self.known
    }

    /// A member says which view its copy of a volume holds durably. Returns whether something changed that must be
    /// durable.
    ///
    /// Of a node whose copy alone counts the register learns what it may have missed: nobody else may take over
    /// from an older view.
    pub fn report(&mut self, node: NodeId, volume: VolumeId, view: &View) -> bool {
        if !self.members.contains(node) {
            return false;
        }
        let sole = view.is_sole(node).then(|| view.mark());
        if let Some(register) = self.known.get_mut(&volume) {
            // Of the same epoch is what both agreed on instead of a grant that was not used.
            let instead = register.holder == Some(node);
            let later = sole.filter(|mark| {
                let epoch = register.mark.epoch;
                mark.epoch > epoch || (instead && mark.epoch == epoch && *mark != register.mark)
            });
            if let Some(mark) = later {
                *register = Register {
                    mark,
                    basis: mark,
                    holder: Some(node),
                };
            }
            return later.is_some();
        }
        if self.known.len() + self.enrolling.len() >= REGISTERS_MAX
            && !self.enrolling.contains_key(&volume)
        {
            return false;
        }
        let enrolment = self.enrolling.entry(volume).or_default();
        enrolment.reported = enrolment.reported.with(node);
        let sole = sole.filter(|_| !mutant::is(Mutant::RegisterSoleUnheard));
        if let Some(mark) = sole.filter(|mark| mark.epoch > enrolment.sole.epoch) {
            enrolment.sole = mark;
            enrolment.holder = Some(node);
        } else if sole.is_none() && enrolment.holder == Some(node) {
            // Both agreed on a view since then.
            enrolment.holder = None;
        }
        if enrolment.reported != self.members && !mutant::is(Mutant::RegisterEnrolledByOne) {
            return false;
        }
        let (mark, holder) = (enrolment.sole, enrolment.holder);
        self.enrolling.remove(&volume);
        let register = Register {
            mark,
            basis: mark,
            holder,
        };
        self.known.insert(volume, register);
        true
    }

    /// A member claims the next views of some volumes, all or none. What [`Self::durable`] returns afterwards has to
    /// be durable before the answer is given.
    pub fn claim(&mut self, node: NodeId, claims: &[Claim]) -> Answer {
        let mut granted = Vec::new();
        for (index, claim) in claims.iter().enumerate() {
            let twice = claims[..index]
                .iter()
                .any(|other| other.volume == claim.volume);
            let verdict = if twice || !self.members.contains(node) {
                Err(Refusal::Malformed)
            } else {
                self.judge(node, claim)
            };
            match verdict {
                Ok(mark) => granted.push(mark),
                Err(refusal) => {
                    return Answer::Refused {
                        volume: claim.volume,
                        refusal,
                    };
                }
            }
        }
        for (claim, mark) in claims.iter().zip(&granted) {
            let register = Register {
                mark: *mark,
                basis: claim.basis,
                holder: Some(node),
            };
            self.known.insert(claim.volume, register);
        }
        Answer::Granted(granted)
    }

    /// A node holds this view durably, and will not use what it was granted or may have been granted besides: link and
    /// peer came back first. Without this the peer could never be granted anything on the view that both still hold.
    /// Returns whether something changed that must be durable.
    ///
    /// Only of a register that is known ([`Self::missing`]): before that nothing is confirmed, and the node says it again.
    /// The node must have forgotten the grant before, and no change of its view may be under way. Its claims must not
    /// arrive after this: the shell ends a node's older connections when it answers a newer one.
    pub fn release(&mut self, node: NodeId, volume: VolumeId, current: ViewMark) -> bool {
        let Some(register) = self.known.get_mut(&volume) else {
            return false;
        };
        if register.holder != Some(node) {
            return false;
        }
        *register = Register {
            mark: current,
            basis: current,
            holder: None,
        };
        true
    }

    /// What a mutant grants besides.
    fn is_wrong(&self, node: NodeId, claim: &Claim, register: &Register) -> bool {
        let other = register.holder.is_some_and(|holder| holder != node);
        let later = claim.basis.epoch >= register.mark.epoch;
        let older = claim.basis.epoch < register.mark.epoch;
        (mutant::is(Mutant::RegisterGrantsThePast) && older && register.holder.is_none())
            || (mutant::is(Mutant::RegisterEpochOnly) && claim.next.epoch > register.mark.epoch)
            || (mutant::is(Mutant::RegisterHolderIgnored) && other && later)
            || (mutant::is(Mutant::RegisterGrantTwice) && other && claim.basis == register.basis)
    }

    /// Who has to report before this volume's register is known; `None` if it is.
    pub fn missing(&self, volume: VolumeId) -> Option<NodeSet> {
        if self.known.contains_key(&volume) {
            return None;
        }
        let reported = self.enrolling.get(&volume).map(|open| open.reported);
        let reported = reported.unwrap_or_default().bits();
        Some(NodeSet::from_bits(self.members.bits() & !reported))
    }

    fn judge(&self, node: NodeId, claim: &Claim) -> Result<ViewMark, Refusal> {
        if claim.next.epoch <= claim.basis.epoch || claim.next.id.is_none() {
            return Err(Refusal::Malformed);
        }
        let Some(register) = self.known.get(&claim.volume) else {
            let missing = self.missing(claim.volume).unwrap_or_default();
            return Err(Refusal::NotEnrolled { missing });
        };
        let (mark, epoch) = (register.mark, register.mark.epoch);
        let after = claim.basis.epoch > epoch || claim.basis == mark;
        if self.is_wrong(node, claim, register) {
            return Ok(claim.next);
        }
        let used = claim.history.contains(mark) && !mutant::is(Mutant::RegisterHistoryIgnored);
        match register.holder {
            // The holder may not have got the answer; nobody else can have got one on this basis.
            Some(holder) if holder == node && claim.basis == register.basis => Ok(mark),
            // It holds another view durably by now: it did not use the grant, or went on from it.
            Some(holder) if holder == node && claim.basis.epoch >= epoch => Ok(claim.next),
            Some(holder) if holder != node && used => Ok(claim.next),
            Some(holder) if holder != node && claim.basis.epoch >= epoch => {
                Err(Refusal::Held { epoch, holder })
            }
            None if after => Ok(claim.next),
            None if claim.basis.epoch == epoch => Err(Refusal::Diverged { epoch }),
            holder => Err(Refusal::Superseded { epoch, holder }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use mirror_core::types::ViewId;
    use proptest::prelude::*;

    const VOLUME: VolumeId = VolumeId([7; 16]);

    fn node(number: u8) -> NodeId {
        NodeId::new(number).expect("a node")
    }

    fn both() -> NodeSet {
        NodeSet::only(node(0)).with(node(1))
    }

    fn mark(epoch: u64, id: u8) -> ViewMark {
        ViewMark {
            epoch: Epoch(epoch),
            id: ViewId([id; 16]),
        }
    }

    fn view(epoch: u64, id: u8, insync: NodeSet) -> View {
        View {
            epoch: Epoch(epoch),
            id: ViewId([id; 16]),
            active: None,
            insync,
        }
    }

    fn claim(basis: ViewMark, next: ViewMark) -> Claim {
        Claim {
            volume: VOLUME,
            basis,
            next,
            history: ViewHistory::default(),
        }
    }

    fn claim_after(before: ViewMark, basis: ViewMark, next: ViewMark) -> Claim {
        let mut claim = claim(basis, next);
        claim.history.push(before);
        claim
    }

    fn enrolled() -> Registers {
        let mut registers = Registers::new(both(), BTreeMap::new());
        assert!(!registers.report(node(0), VOLUME, &view(5, 5, both())));
        assert!(registers.report(node(1), VOLUME, &view(5, 5, both())));
        registers
    }

    fn refusal(answer: &Answer) -> Option<Refusal> {
        match answer {
            Answer::Refused { refusal, .. } => Some(*refusal),
            Answer::Granted(_) => None,
        }
    }

    #[test]
    fn of_two_claims_on_one_view_one_is_granted() {
        let mut registers = enrolled();
        let first = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        assert_eq!(first, Answer::Granted(vec![mark(6, 1)]));
        let second = registers.claim(node(1), &[claim(mark(5, 5), mark(9, 2))]);
        let superseded = Refusal::Superseded {
            epoch: Epoch(6),
            holder: Some(node(0)),
        };
        assert_eq!(refusal(&second), Some(superseded));
    }

    #[test]
    fn whoever_lost_the_answer_gets_the_same_one() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        let again = registers.claim(node(0), &[claim(mark(5, 5), mark(8, 3))]);
        assert_eq!(again, Answer::Granted(vec![mark(6, 1)]));
    }

    #[test]
    fn a_high_wish_on_an_old_view_is_refused() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        let late = registers.claim(node(1), &[claim(mark(5, 5), mark(50, 2))]);
        assert!(matches!(refusal(&late), Some(Refusal::Superseded { .. })));
    }

    /// Node 0 proposed a view and does not know that node 1 wrote it down; it may still act on what it was granted.
    #[test]
    fn a_later_view_does_not_show_that_the_holder_will_not_act() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        for basis in [mark(6, 9), mark(7, 9)] {
            let other = registers.claim(node(1), &[claim(basis, mark(8, 2))]);
            let held = Refusal::Held {
                epoch: Epoch(6),
                holder: node(0),
            };
            assert_eq!(refusal(&other), Some(held));
        }
    }

    #[test]
    fn a_history_with_the_granted_view_shows_that_it_was_used() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        let after = claim_after(mark(6, 1), mark(7, 7), mark(8, 2));
        assert_eq!(refusal(&registers.claim(node(1), &[after])), None);
    }

    #[test]
    fn another_view_of_a_free_epoch_is_another_history() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        assert!(registers.release(node(0), VOLUME, mark(6, 1)));
        let other = registers.claim(node(1), &[claim(mark(6, 2), mark(7, 2))]);
        assert_eq!(refusal(&other), Some(Refusal::Diverged { epoch: Epoch(6) }));
    }

    #[test]
    fn an_arbiter_that_knows_nothing_hears_every_member_first() {
        let mut registers = Registers::new(both(), BTreeMap::new());
        let early = registers.claim(node(1), &[claim(mark(5, 5), mark(6, 1))]);
        assert_eq!(
            refusal(&early),
            Some(Refusal::NotEnrolled { missing: both() })
        );
        // Node 0 went alone before the arbiter lost its data: node 1 must not take over from the past.
        registers.report(node(1), VOLUME, &view(5, 5, both()));
        registers.report(node(0), VOLUME, &view(6, 6, NodeSet::only(node(0))));
        let late = registers.claim(node(1), &[claim(mark(5, 5), mark(6, 1))]);
        assert!(matches!(refusal(&late), Some(Refusal::Superseded { .. })));
        let own = registers.claim(node(0), &[claim(mark(6, 6), mark(7, 1))]);
        assert_eq!(refusal(&own), None);
    }

    #[test]
    fn a_report_of_a_node_alone_is_kept_and_one_of_both_is_not_needed() {
        let mut registers = enrolled();
        assert!(!registers.report(node(0), VOLUME, &view(7, 7, both())));
        assert!(registers.report(node(0), VOLUME, &view(8, 8, NodeSet::only(node(0)))));
        let other = registers.claim(node(1), &[claim(mark(7, 7), mark(9, 2))]);
        assert!(matches!(refusal(&other), Some(Refusal::Superseded { .. })));
    }

    #[test]
    fn volumes_are_granted_together_or_not_at_all() {
        let mut registers = enrolled();
        let other = VolumeId([8; 16]);
        for number in 0..2 {
            registers.report(node(number), other, &view(3, 3, both()));
        }
        let _ = registers.claim(
            node(1),
            &[Claim {
                volume: other,
                basis: mark(3, 3),
                next: mark(4, 4),
                history: ViewHistory::default(),
            }],
        );
        let before = registers.durable().clone();
        let pair = [
            claim(mark(5, 5), mark(6, 1)),
            Claim {
                volume: other,
                basis: mark(3, 3),
                next: mark(4, 1),
                history: ViewHistory::default(),
            },
        ];
        let answer = registers.claim(node(0), &pair);
        assert!(matches!(answer, Answer::Refused { volume, .. } if volume == other));
        assert_eq!(*registers.durable(), before);
    }

    #[test]
    fn what_was_released_can_be_granted_to_the_other() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        assert!(!registers.release(node(1), VOLUME, mark(5, 5)));
        assert!(registers.release(node(0), VOLUME, mark(5, 5)));
        assert!(!registers.release(node(0), VOLUME, mark(5, 5)));
        let other = registers.claim(node(1), &[claim(mark(5, 5), mark(6, 2))]);
        assert_eq!(other, Answer::Granted(vec![mark(6, 2)]));
    }

    /// It was granted epoch 6, and by consent became alone in another view of that epoch; both went on from there.
    #[test]
    fn what_was_not_used_does_not_stand_in_the_way_of_who_went_on_from_a_view_that_both_agreed_on()
    {
        let mut registers = enrolled();
        let granted = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        assert_eq!(granted, Answer::Granted(vec![mark(6, 1)]));
        let alone = view(6, 9, NodeSet::only(node(0)));
        assert!(registers.report(node(0), VOLUME, &alone));
        assert!(!registers.report(node(0), VOLUME, &alone));
        let past = registers.claim(node(1), &[claim(mark(5, 5), mark(7, 2))]);
        assert!(matches!(refusal(&past), Some(Refusal::Superseded { .. })));
        let claim = claim_after(mark(6, 9), mark(7, 3), mark(8, 2));
        let now = registers.claim(node(1), &[claim]);
        assert_eq!(now, Answer::Granted(vec![mark(8, 2)]));
    }

    #[test]
    fn who_holds_the_granted_view_keeps_the_other_out_when_it_gives_back() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        assert!(registers.release(node(0), VOLUME, mark(6, 1)));
        let other = registers.claim(node(1), &[claim(mark(5, 5), mark(6, 2))]);
        assert!(matches!(refusal(&other), Some(Refusal::Superseded { .. })));
    }

    #[test]
    fn an_unused_grant_of_an_epoch_that_was_agreed_on_since_is_released() {
        let mut registers = enrolled();
        let _ = registers.claim(node(0), &[claim(mark(5, 5), mark(6, 1))]);
        // Both agreed on another view of epoch 6 before node 0 acted.
        assert!(registers.release(node(0), VOLUME, mark(6, 9)));
        let late = registers.claim(node(1), &[claim(mark(6, 9), mark(7, 2))]);
        assert_eq!(refusal(&late), None);
    }

    #[test]
    fn strangers_and_nonsense_are_refused() {
        let mut registers = enrolled();
        let good = claim(mark(5, 5), mark(6, 1));
        for (number, claims) in [
            (4, vec![good]),
            (0, vec![good, good]),
            (0, vec![claim(mark(5, 5), mark(5, 1))]),
        ] {
            let answer = registers.claim(node(number), &claims);
            assert_eq!(refusal(&answer), Some(Refusal::Malformed));
        }
    }

    proptest! {
        /// Whatever is asked in whatever order: two nodes are never granted views that rest on one basis.
        #[test]
        fn no_basis_is_granted_to_two_nodes(
            steps in proptest::collection::vec((0_u8..2, 0_u64..6, 1_u64..4, 0_u8..3), 1..60)
        ) {
            let mut registers = enrolled();
            let mut granted: BTreeMap<u64, u8> = BTreeMap::new();
            for (who, from, rise, id) in steps {
                let basis = mark(5 + from, 5 + u8::try_from(from).expect("small"));
                let next = mark(5 + from + rise, 100 + who * 10 + id);
                if let Answer::Granted(_) = registers.claim(node(who), &[claim(basis, next)]) {
                    let holder = *granted.entry(from).or_insert(who);
                    prop_assert_eq!(holder, who);
                }
            }
        }
    }
}
