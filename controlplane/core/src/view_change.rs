//! A node's side of a claim: asked, asked again, granted, refused, given back.
//!
//! An answer counts only for the question that it answers. No answer is no refusal: the same claim is asked again, and
//! the register answers the same (S4). A grant holds for the views on which it was asked; once a copy holds another
//! view durably, the grant is nothing any more. A grant that is not needed is given back, and forgotten first.

use alloc::vec::Vec;
use core::time::Duration;

use mirror_core::types::{Instant, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

use crate::limits::ARBITER_RETRY;
use crate::mutant::{self, Mutant};
use crate::partition::ClaimState;
use crate::register::{Answer, Claim, Refusal};

/// A question to the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// [`crate::register::Registers::claim`].
    Claim {
        /// Counts this run's questions; the answer repeats it.
        number: u64,
        /// What is claimed.
        claims: Vec<Claim>,
    },
    /// [`crate::register::Registers::release`], for each.
    Release {
        /// Counts this run's questions; the answer repeats it.
        number: u64,
        /// Which volumes, and the views that their copies hold durably.
        volumes: Vec<(VolumeId, ViewMark)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Asked {
        retry_at: Instant,
        /// The arbiter said that it cannot decide yet: nothing was granted.
        in_vain: bool,
    },
    Granted(Vec<ViewMark>),
    Refused(Refusal),
    GivingBack {
        retry_at: Instant,
    },
}

/// The claim of one group.
#[derive(Debug)]
pub struct ViewChange {
    stage: Stage,
    claims: Vec<Claim>,
    number: u64,
    /// What the arbiter said last, for the status.
    last_refusal: Option<Refusal>,
    asked: Asked,
    /// The arbiter may count something as this node's, of an earlier run or from a view that is past.
    inherits: bool,
}

/// The last claim of this run, for `lockstep why`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When it was asked first.
    pub at: Option<Instant>,
    /// When it was answered, and how.
    pub answered: Option<(Instant, Told)>,
}

/// What an arbiter told of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It may go on alone.
    Granted,
    /// It may not, or not yet.
    Refused(Refusal),
}

/// What a copy holds durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its view.
    pub view: ViewMark,
    /// This copy alone counts there.
    pub alone: bool,
}

impl Default for ViewChange {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            claims: Vec::new(),
            number: 0,
            last_refusal: None,
            asked: Asked::default(),
            inherits: !mutant::is(Mutant::NothingInherited),
        }
    }
}

impl ViewChange {
    /// How the claim stands. While a grant is being given back nothing else is asked.
    pub fn state(&self) -> ClaimState {
        match self.stage {
            Stage::Idle => ClaimState::Idle,
            Stage::Asked { .. } | Stage::GivingBack { .. } => ClaimState::Asked,
            Stage::Granted(_) => ClaimState::Granted,
            Stage::Refused(_) => ClaimState::Refused,
        }
    }

    /// The views that may be committed, with their volumes and the views on which they rest.
    pub fn granted(&self) -> impl Iterator<Item = (&Claim, ViewMark)> {
        let marks: &[ViewMark] = match &self.stage {
            Stage::Granted(marks) => marks,
            Stage::Idle | Stage::Asked { .. } | Stage::Refused(_) | Stage::GivingBack { .. } => &[],
        };
        self.claims.iter().zip(marks.iter().copied())
    }

    /// Whether something was granted, or may have been and would be taken if the answer came now.
    pub fn may_hold(&self) -> bool {
        match self.stage {
            Stage::Granted(_) => true,
            Stage::Asked { in_vain, .. } => !in_vain,
            Stage::Idle | Stage::Refused(_) | Stage::GivingBack { .. } => false,
        }
    }

    /// Why the arbiter refused last.
    pub fn refusal(&self) -> Option<Refusal> {
        self.last_refusal
    }

    /// The last claim of this run, and its answer.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Begins a claim. Only from [`ClaimState::Idle`]; anything else changes nothing.
    pub fn ask(&mut self, now: Instant, claims: Vec<Claim>) -> Option<Question> {
        if self.stage != Stage::Idle || claims.is_empty() {
            return None;
        }
        self.claims = claims;
        self.asked = Asked {
            at: Some(now),
            answered: None,
        };
        Some(self.ask_again(now))
    }

    fn ask_again(&mut self, now: Instant) -> Question {
        self.number += 1;
        self.stage = Stage::Asked {
            retry_at: now + ARBITER_RETRY,
            in_vain: false,
        };
        Question::Claim {
            number: self.number,
            claims: self.claims.clone(),
        }
    }

    /// The arbiter answered question `number`.
    pub fn answered(&mut self, now: Instant, number: u64, answer: Answer) {
        if number != self.number || !matches!(self.stage, Stage::Asked { .. }) {
            return;
        }
        let told = match &answer {
            Answer::Granted(_) => Told::Granted,
            Answer::Refused { refusal, .. } => Told::Refused(*refusal),
        };
        self.stage = match answer {
            Answer::Granted(marks) if marks.len() == self.claims.len() => Stage::Granted(marks),
            // An answer to something else: as good as none.
            Answer::Granted(_) => return,
            Answer::Refused { .. } if mutant::is(Mutant::RefusalIsGrant) => {
                Stage::Granted(self.claims.iter().map(|claim| claim.next).collect())
            }
            Answer::Refused { refusal, .. } => {
                self.last_refusal = Some(refusal);
                match refusal {
                    Refusal::Superseded { .. }
                    | Refusal::Held { .. }
                    | Refusal::Diverged { .. } => Stage::Refused(refusal),
                    // It may be otherwise soon.
                    Refusal::NotEnrolled { .. } | Refusal::Malformed => Stage::Asked {
                        retry_at: now + ARBITER_RETRY,
                        in_vain: true,
                    },
                }
            }
        };
        self.asked.answered = Some((now, told));
    }

    /// The arbiter confirmed that what question `number` gave back is free. One that does not know the volume yet confirms
    /// nothing: what it learns from the reports may be older, and would stand in the other node's way for ever.
    pub fn given_back(&mut self, number: u64) {
        if number == self.number && matches!(self.stage, Stage::GivingBack { .. }) {
            self.inherits = false;
            self.forget();
        }
    }

    /// These volumes' copies hold these views durably now, and no change of them is under way; `None`: a change is.
    /// What was asked on other views is void, and what was granted and not used is given back; but not where this copy
    /// alone counts by now: the other node may hold a later view, to which it agreed in vain, and has to be kept out.
    pub fn look_at(
        &mut self,
        now: Instant,
        view: impl Fn(VolumeId) -> Option<Held>,
    ) -> Option<Question> {
        if self.stage == Stage::Idle {
            return None;
        }
        let held: Option<Vec<Held>> = self.claims.iter().map(|claim| view(claim.volume)).collect();
        let held = held?;
        let views: Vec<ViewMark> = held.iter().map(|held| held.view).collect();
        let stands = |claim: &Claim, view: &ViewMark| claim.basis == *view;
        let mut pairs = self.claims.iter().zip(&views);
        if pairs.all(|(claim, view)| stands(claim, view)) {
            return None;
        }
        if matches!(self.stage, Stage::Refused(_)) {
            self.forget();
            return None;
        }
        if let Stage::Granted(marks) = &self.stage {
            let used: Vec<bool> = marks.iter().zip(&views).map(|(a, b)| a == b).collect();
            let waits = |index: usize| stands(&self.claims[index], &views[index]);
            if (0..views.len()).all(|index| used[index] || waits(index)) {
                // Of a group some are taken over, and the words to the others are still to come.
                let left: Vec<usize> = (0..views.len()).filter(|index| !used[*index]).collect();
                let marks: Vec<ViewMark> = left.iter().map(|index| marks[*index]).collect();
                self.claims = left.iter().map(|index| self.claims[*index]).collect();
                if marks.is_empty() {
                    self.forget();
                } else {
                    self.stage = Stage::Granted(marks);
                }
                return None;
            }
        }
        let shared = self.claims.iter().zip(&held).filter(|pair| !pair.1.alone);
        let shared: Vec<Claim> = shared
            .map(|(claim, held)| Claim {
                basis: held.view,
                ..*claim
            })
            .collect();
        if shared.is_empty() {
            self.inherits = true;
            self.forget();
            return None;
        }
        self.claims = shared;
        Some(self.give_back(now))
    }

    /// The copy holds another view than before. The arbiter may count it, or what it rests on, as this node's alone: it
    /// was granted, or reported while this copy alone counted. It is given back at the next [`ViewChange::withdraw`].
    pub fn inherit(&mut self) {
        self.inherits = true;
    }

    fn forget(&mut self) {
        if self.stage != Stage::Idle {
            self.stage = Stage::Idle;
            self.claims.clear();
            // An answer to an earlier question must not meet a later one.
            self.number += 1;
        }
    }

    /// The claim is not needed any more, because the peer is back: every volume is linked, settled, and holds this view.
    /// What was granted, or may have been, also to an earlier run of this node, is given back; the caller has not acted
    /// on it and never will.
    pub fn withdraw(
        &mut self,
        now: Instant,
        views: impl IntoIterator<Item = (VolumeId, ViewMark)>,
    ) -> Option<Question> {
        match self.stage {
            Stage::GivingBack { .. } => return None,
            Stage::Asked { .. } | Stage::Granted(_) => {}
            Stage::Idle | Stage::Refused(_) if self.inherits => {}
            Stage::Idle | Stage::Refused(_) => {
                self.forget();
                return None;
            }
        }
        let claim = |(volume, view)| Claim {
            volume,
            basis: view,
            next: view,
            history: ViewHistory::default(),
        };
        let kept = (self.stage.clone(), self.claims.clone());
        self.claims = views.into_iter().map(claim).collect();
        let question = self.give_back(now);
        if mutant::is(Mutant::ReleaseKeepsGrant) && matches!(kept.0, Stage::Granted(_)) {
            (self.stage, self.claims) = kept;
        }
        Some(question)
    }

    fn give_back(&mut self, now: Instant) -> Question {
        self.number += 1;
        self.stage = Stage::GivingBack {
            retry_at: now + ARBITER_RETRY,
        };
        Question::Release {
            number: self.number,
            volumes: self
                .claims
                .iter()
                .map(|claim| (claim.volume, claim.basis))
                .collect(),
        }
    }

    /// Time passed: what has to be asked again.
    pub fn tick(&mut self, now: Instant) -> Option<Question> {
        match self.stage {
            Stage::Asked { .. } if mutant::is(Mutant::LostAnswerWaited) => None,
            Stage::Asked { retry_at, .. } if now >= retry_at => Some(self.ask_again(now)),
            Stage::GivingBack { retry_at } if now >= retry_at => Some(self.give_back(now)),
            Stage::Idle
            | Stage::Asked { .. }
            | Stage::Granted(_)
            | Stage::Refused(_)
            | Stage::GivingBack { .. } => None,
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Asked { retry_at, .. } | Stage::GivingBack { retry_at } => Some(retry_at),
            Stage::Idle | Stage::Granted(_) | Stage::Refused(_) => None,
        }
    }
}

/// How long a question may stay unanswered before the arbiter counts as silent.
pub const ARBITER_SILENT_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use mirror_core::types::{Epoch, ViewId};

    const VOLUME: VolumeId = VolumeId([7; 16]);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(1_000_000 * millis)
    }

    fn mark(epoch: u64) -> ViewMark {
        ViewMark {
            epoch: Epoch(epoch),
            id: ViewId([u8::try_from(epoch).expect("small"); 16]),
        }
    }

    fn both(epoch: u64) -> Option<Held> {
        let view = mark(epoch);
        Some(Held { view, alone: false })
    }

    fn claims() -> Vec<Claim> {
        vec![Claim {
            volume: VOLUME,
            basis: mark(5),
            next: mark(6),
            history: ViewHistory::default(),
        }]
    }

    fn number(question: &Question) -> u64 {
        match question {
            Question::Claim { number, .. } | Question::Release { number, .. } => *number,
        }
    }

    #[test]
    fn a_lost_answer_is_asked_for_again_and_the_late_one_counts_no_more() {
        let mut change = ViewChange::default();
        let first = change.ask(at(0), claims()).expect("a question");
        assert_eq!(change.tick(at(100)), None);
        let second = change.tick(at(250)).expect("again");
        let granted = Answer::Granted(vec![mark(6)]);
        change.answered(at(260), number(&first), granted.clone());
        assert_eq!(change.state(), ClaimState::Asked);
        change.answered(at(270), number(&second), granted);
        assert_eq!(change.state(), ClaimState::Granted);
        assert_eq!(change.granted().count(), 1);
    }

    #[test]
    fn a_grant_is_void_once_the_copy_holds_another_view() {
        let mut change = ViewChange::default();
        let question = change.ask(at(0), claims()).expect("a question");
        change.answered(at(1), number(&question), Answer::Granted(vec![mark(6)]));
        assert_eq!(change.look_at(at(2), |_| both(5)), None);
        assert_eq!(change.look_at(at(2), |_| None), None);
        assert_eq!(change.state(), ClaimState::Granted);
        let release = change.look_at(at(3), |_| both(7));
        let volumes = vec![(VOLUME, mark(7))];
        assert!(matches!(release, Some(Question::Release { volumes: v, .. }) if v == volumes));
        assert_eq!(change.granted().count(), 0);
    }

    /// Seed 1342836, and what a reader found in its first mend.
    #[test]
    fn a_view_in_which_this_copy_alone_counts_is_never_given_back() {
        let mut change = ViewChange::default();
        let release = change.withdraw(at(0), [(VOLUME, mark(5))]);
        let alone = Held {
            view: mark(6),
            alone: true,
        };
        assert!(release.is_some());
        assert_eq!(change.look_at(at(10), |_| Some(alone)), None);
        assert_eq!(change.state(), ClaimState::Idle);
        assert_eq!(change.tick(at(9999)), None);
        // Both again: now it is.
        let release = change.withdraw(at(10_000), [(VOLUME, mark(7))]);
        let volumes = vec![(VOLUME, mark(7))];
        assert!(matches!(release, Some(Question::Release { volumes: v, .. }) if v == volumes));
    }

    #[test]
    fn what_an_arbiter_does_not_confirm_is_given_back_again() {
        let mut change = ViewChange::default();
        let release = change.withdraw(at(0), [(VOLUME, mark(5))]).expect("asked");
        let answer = Answer::Refused {
            volume: VOLUME,
            refusal: Refusal::NotEnrolled {
                missing: mirror_core::types::NodeSet::from_bits(2),
            },
        };
        change.answered(at(1), number(&release), answer);
        assert_eq!(change.state(), ClaimState::Asked);
        assert!(matches!(
            change.tick(at(251)),
            Some(Question::Release { .. })
        ));
    }

    #[test]
    fn a_grant_that_was_used_is_not_given_back() {
        let mut change = ViewChange::default();
        let question = change.ask(at(0), claims()).expect("a question");
        change.answered(at(1), number(&question), Answer::Granted(vec![mark(6)]));
        assert_eq!(change.look_at(at(2), |_| both(6)), None);
        assert_eq!(change.state(), ClaimState::Idle);
    }

    #[test]
    fn what_may_have_been_granted_is_given_back_until_the_arbiter_says_so() {
        let mut change = ViewChange::default();
        let question = change.ask(at(0), claims()).expect("a question");
        let views = [(VOLUME, mark(5))];
        let release = change.withdraw(at(10), views).expect("a release");
        assert!(matches!(release, Question::Release { .. }));
        // The answer to the claim comes after all: it is not used.
        change.answered(at(20), number(&question), Answer::Granted(vec![mark(6)]));
        assert_eq!(change.granted().count(), 0);
        assert_eq!(change.ask(at(30), claims()), None);
        let again = change.tick(at(300)).expect("again");
        change.given_back(number(&release));
        assert_eq!(change.state(), ClaimState::Asked);
        change.given_back(number(&again));
        assert_eq!(change.state(), ClaimState::Idle);
        assert_eq!(change.withdraw(at(600), views), None);
    }

    #[test]
    fn a_new_run_gives_back_what_an_earlier_one_may_have_been_granted() {
        let mut change = ViewChange::default();
        let release = change.withdraw(at(0), [(VOLUME, mark(5))]);
        let volumes = vec![(VOLUME, mark(5))];
        assert_eq!(release, Some(Question::Release { number: 1, volumes }));
    }

    #[test]
    fn a_refusal_stands_until_the_view_changes_or_the_peer_is_back() {
        let mut change = ViewChange {
            inherits: false,
            ..ViewChange::default()
        };
        let question = change.ask(at(0), claims()).expect("a question");
        let refusal = Refusal::Superseded {
            epoch: Epoch(6),
            holder: None,
        };
        let answer = Answer::Refused {
            volume: VOLUME,
            refusal,
        };
        change.answered(at(1), number(&question), answer);
        assert_eq!(change.state(), ClaimState::Refused);
        assert_eq!(change.tick(at(9999)), None);
        assert_eq!(change.withdraw(at(9999), [(VOLUME, mark(5))]), None);
        assert_eq!(change.state(), ClaimState::Idle);
    }

    #[test]
    fn an_arbiter_that_cannot_decide_yet_is_asked_again() {
        let mut change = ViewChange::default();
        let question = change.ask(at(0), claims()).expect("a question");
        let answer = Answer::Refused {
            volume: VOLUME,
            refusal: Refusal::NotEnrolled {
                missing: mirror_core::types::NodeSet::from_bits(2),
            },
        };
        change.answered(at(1), number(&question), answer);
        assert_eq!(change.state(), ClaimState::Asked);
        assert!(change.tick(at(251)).is_some());
    }
}
