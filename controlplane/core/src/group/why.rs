//! Why a group's resources are as they are on this node: written down when it is decided, by what decides it, and never worked
//! out afterwards. It has a fixed size: what is, and what was before.

use mirror_core::types::Instant;

use super::{Action, Group, Reason, Volumes};
use crate::self_fencing::Before;

/// What the group shall come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Everything runs.
    Run,
    /// Nothing is begun.
    Hold,
    /// Nothing runs, and everything ends its work before.
    Stop,
    /// Nothing runs, at once.
    HardStop,
}

/// Why the group shall come to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// All volumes are served here.
    Served,
    /// A volume is not served here.
    VolumesGone,
    /// The node steps down, or the time of the services is over.
    LeaseOver,
    /// A volume is in doubt, and its time is over.
    DoubtOver {
        /// Since when it is.
        since: Instant,
    },
    /// A volume is in doubt, and everything was stopping already.
    Begun,
    /// A volume's daemon does not answer, or is between serving and not.
    InDoubt {
        /// It has so long to come back.
        until: Instant,
    },
    /// A resource did not stop.
    StopFailed,
    /// An operator, or what an earlier run of the daemon left to be cleared.
    Ordered,
    /// It failed here.
    Barred(Reason),
}

/// What is done for it, or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is as it shall be.
    Done,
    /// Its resources are looked at.
    Looks,
    /// Something is done with a resource, the first of those.
    Acts {
        /// Which one.
        resource: usize,
        /// What.
        action: Action,
        /// It is broken off then.
        until: Instant,
    },
    /// What the other node ran may still run there.
    TakeoverWait {
        /// Until then, unless the other node says before that nothing is left.
        until: Instant,
    },
    /// A resource failed, and is tried again.
    Pause {
        /// Which one.
        resource: usize,
        /// When.
        until: Instant,
    },
    /// Something is left, and nothing more is tried.
    Stuck,
}

/// Why a group is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reasoned {
    /// Since when it is so.
    pub since: Instant,
    /// When it was found last.
    pub at: Instant,
    /// What the group shall come to.
    pub goal: Goal,
    /// Why.
    pub because: Because,
    /// How far that is.
    pub progress: Progress,
    /// What a start here rests on.
    pub before_start: Before,
}

/// What a group remembers of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// What is.
    pub present: Option<Reasoned>,
    /// What was before, as it was found last.
    pub before: Option<Reasoned>,
}

impl Record {
    fn keep(&mut self, reasoned: Reasoned) {
        let goes_on =
            |it: &&mut Reasoned| (it.goal, it.because) == (reasoned.goal, reasoned.because);
        match self.present.as_mut().filter(goes_on) {
            Some(present) => {
                let since = present.since;
                *present = Reasoned { since, ..reasoned };
            }
            None => self.before = self.present.replace(reasoned),
        }
    }
}

impl Group {
    /// What it shall come to, and why.
    pub(super) fn judge(&self, now: Instant) -> (Goal, Because) {
        let in_doubt_until = self.volumes_since + self.policy.doubt_grace;
        match self.volumes {
            Volumes::Gone => return (Goal::HardStop, Because::VolumesGone),
            Volumes::LeaseOver => return (Goal::HardStop, Because::LeaseOver),
            Volumes::InDoubt if now >= in_doubt_until => {
                let since = self.volumes_since;
                return (Goal::HardStop, Because::DoubtOver { since });
            }
            // What began is not suspended by doubt: the other node waits for its end.
            Volumes::InDoubt if self.hard_since.is_some() => {
                return (Goal::HardStop, Because::Begun);
            }
            Volumes::InDoubt | Volumes::Served(_) => {}
        }
        if self.stop_failed {
            return (Goal::Hold, Because::StopFailed);
        }
        if self.order == super::Order::Stop {
            return (Goal::Stop, Because::Ordered);
        }
        if let Some(reason) = self.barred {
            return (Goal::Stop, Because::Barred(reason));
        }
        match self.volumes {
            Volumes::Served(_) => (Goal::Run, Because::Served),
            Volumes::InDoubt | Volumes::Gone | Volumes::LeaseOver => {
                let until = in_doubt_until;
                (Goal::Hold, Because::InDoubt { until })
            }
        }
    }

    /// Why the group is as it is, as far as it was looked at.
    pub fn why(&self) -> &Record {
        &self.record
    }

    /// What was just decided. `waits`: what a start waits for.
    pub(super) fn remember_why(
        &mut self,
        now: Instant,
        (goal, because): (Goal, Because),
        waits: Option<Progress>,
    ) {
        let acts = self
            .resources
            .iter()
            .enumerate()
            .find_map(|(number, resource)| {
                let running = resource.running?;
                Some(Progress::Acts {
                    resource: number,
                    action: running.action,
                    until: running.since + running.timeout,
                })
            });
        let progress = match (waits, acts) {
            (Some(waits), _) => waits,
            (None, _) if !self.is_probed() && goal != Goal::HardStop => Progress::Looks,
            (None, Some(acts)) => acts,
            (None, None) if self.has_come_to(goal) => Progress::Done,
            (None, None) => Progress::Stuck,
        };
        let before_start = self.before(now);
        self.record.keep(Reasoned {
            since: now,
            at: now,
            goal,
            because,
            progress,
            before_start,
        });
    }

    fn has_come_to(&self, goal: Goal) -> bool {
        match goal {
            Goal::Run => self.count(|it| it.state != super::ResourceState::Online) == 0,
            Goal::Stop | Goal::HardStop => self.is_gone(),
            Goal::Hold => !self.stop_failed,
        }
    }
}
