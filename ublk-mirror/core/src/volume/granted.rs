//! The word that lets a node decide without its peer: an operator's, or an arbiter's grant.

use alloc::format;
use alloc::string::String;

use crate::admin::ViewName;
use crate::mutant::{self, Mutant};
use crate::notice::{GrantRefusal, Refusal};
use crate::types::Instant;
use crate::view::ViewMark;

use super::Volume;

/// Who says that this node may go on alone.
#[derive(Debug)]
pub(super) enum Word {
    /// A person, who vouches that the peer is off.
    Operator(String),
    /// An arbiter, which granted this view on that one.
    Arbiter {
        /// What this copy must hold.
        basis: ViewName,
        /// What is to be committed.
        next: ViewName,
        /// From then on it is too late to begin.
        until: Instant,
    },
}

impl Word {
    pub(super) fn is_of_an_arbiter(&self) -> bool {
        matches!(self, Self::Arbiter { .. })
    }
}

impl Volume {
    /// Whether the word is about the peer and the view as they are now. Of an arbiter's: the view to commit.
    pub(super) fn speaks_of_now(
        &self,
        now: Instant,
        word: &Word,
    ) -> Result<Option<ViewMark>, Refusal> {
        match word {
            Word::Operator(words) if self.is_confirmed(words) => Ok(None),
            Word::Operator(_) => Err(Refusal::NotConfirmed {
                peer: self.peer_name(),
            }),
            // One clock of one machine, which whoever spoke reads as well: it gives back nothing before that (S8).
            Word::Arbiter { until, .. } if now >= *until && !mutant::is(Mutant::LateGrant) => {
                Err(Refusal::Grant(GrantRefusal::Late))
            }
            Word::Arbiter { basis, next, .. } => self.is_granted(basis, next).map(Some),
        }
    }

    /// A grant holds for one view (S3). The peer may be alive and hold what this machine lost when it booted: membership
    /// belongs to a boot (S11), and only a person can know that the peer is off.
    fn is_granted(&self, basis: &ViewName, next: &ViewName) -> Result<ViewMark, Refusal> {
        let refusal = |why: GrantRefusal| Refusal::Grant(why);
        let (Some(basis), Some(next)) = (basis.mark(), next.mark()) else {
            return Err(refusal(GrantRefusal::Malformed));
        };
        let holds = self.durable.view.mark();
        if basis != holds && !mutant::is(Mutant::GrantOfAnyView) {
            return Err(refusal(GrantRefusal::OtherView {
                granted: basis.epoch,
                holds: holds.epoch,
            }));
        }
        if next.epoch < self.next_epoch() || next.id.is_none() {
            return Err(refusal(GrantRefusal::OtherView {
                granted: next.epoch,
                holds: holds.epoch,
            }));
        }
        if !self.is_of_this_boot() && !mutant::is(Mutant::GrantAfterReboot) {
            return Err(refusal(GrantRefusal::Rebooted {
                peer: self.peer_name(),
            }));
        }
        Ok(next)
    }

    /// Whether this machine has not booted since its copy began to count, or since both nodes last agreed (S11).
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.durable.member_boots[self.me().index()] == self.settings.boot
    }

    /// Whether these words are about the peer, as it is now: who speaks for others may name the epoch of the view for
    /// which it was allowed to ("node2 is off, epoch 7"). A word that comes late is about an earlier one, and the peer
    /// may have been allowed to go on alone since (S8).
    fn is_confirmed(&self, confirm: &str) -> bool {
        let off = format!("{} is off", self.peer_name());
        let Some(rest) = confirm.strip_prefix(&off) else {
            return false;
        };
        let epoch = rest.strip_prefix(", epoch ");
        let epoch = epoch.and_then(|epoch| epoch.parse().ok());
        let now = epoch == Some(self.durable.view.epoch.0)
            || (epoch.is_some() && mutant::is(Mutant::TakeoverOfAnyEpoch));
        rest.is_empty() || now
    }
}
