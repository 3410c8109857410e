//! What a node reports to the keeper of the registers, asks it, and hears from it.

use std::time::Duration;

use controlplane_api::arbiter::Held;
use controlplane_core::keeper::Event;
use controlplane_core::view_change::Question;
use mirror_core::admin::Status;
use mirror_core::types::{Instant, NodeSet, VolumeId};
use mirror_core::view::View;
use tokio::sync::{mpsc, watch};

use super::{Incoming, Node, QUEUE_MAX, told};
use crate::arbiter::{Heard, Witness, talk};
use crate::etcd::Etcd;
use crate::{mirror, report};

/// Who keeps the registers.
#[derive(Debug)]
pub enum RegisterClient {
    /// `lockstepd witness`.
    Witness(Box<Witness>),
    /// etcd.
    Etcd(Box<Etcd>),
}

impl RegisterClient {
    /// Talks to it for ever; what is heard is queued.
    pub(super) fn listen(
        self,
        timeout: Duration,
        asked: mpsc::Receiver<Question>,
        reports: watch::Receiver<Vec<Held>>,
        queue: mpsc::Sender<Incoming>,
    ) {
        let (sender, mut heard) = mpsc::channel(QUEUE_MAX);
        match self {
            Self::Witness(witness) => {
                tokio::spawn(talk(*witness, timeout, asked, reports, sender));
            }
            Self::Etcd(etcd) => {
                tokio::spawn(talk(*etcd, timeout, asked, reports, sender));
            }
        }
        tokio::spawn(async move {
            while let Some(heard) = heard.recv().await {
                if queue.send(Incoming::Arbiter(heard)).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Node {
    /// What the copy holds may be another view soon.
    pub(super) fn report_nothing(&mut self, id: VolumeId) {
        if self.views.remove(&id).is_some() {
            let all = self.views.values().copied().collect();
            self.held.send_replace(all);
        }
    }

    pub(super) fn report(&mut self, id: VolumeId, status: &Status) {
        let Some(facts) = mirror::facts(status) else {
            return;
        };
        let mut insync = NodeSet::EMPTY;
        for name in &status.view.insync {
            let own = *name == status.node;
            insync = insync.with(if own {
                self.config.me
            } else {
                self.config.peer
            });
        }
        let view = View {
            epoch: facts.view.epoch,
            id: facts.view.id,
            active: None,
            insync,
        };
        let held = Held::new(id, &view);
        if self.views.insert(id, held) != Some(held) {
            let all = self.views.values().copied().collect();
            self.held.send_replace(all);
        }
    }

    pub(super) fn arbiter(&mut self, heard: Heard) {
        match heard {
            Heard::Contact { asked_nanos } => {
                if self.arbiter_answers.replace(true) != Some(true) {
                    tracing::info!(code = "LS6023", "the arbiter answers");
                }
                let asked = Instant::from_nanos(asked_nanos);
                self.everywhere(&Event::Contact { asked });
            }
            Heard::Enrolled { missing, volumes } => {
                let all: usize = self.config.groups.iter().map(|it| it.volumes.len()).sum();
                // A volume whose data plane is silent, or whose view changes, is in no report: that tells nothing.
                if volumes < all {
                    return;
                }
                let before = std::mem::replace(&mut self.arbiter_misses, missing);
                if missing != before && !missing.is_empty() {
                    let waits_for = report::names(&self.config, missing);
                    tracing::warn!(
                        code = "LS6025",
                        ?waits_for,
                        "the arbiter grants nothing yet"
                    );
                } else if missing != before {
                    tracing::info!(code = "LS6025", "the arbiter has heard both nodes");
                }
            }
            Heard::Answered { number, answer } => {
                if let Some((group, number)) = self.asked.remove(&number) {
                    told::answer(&self.groups[group].name, &answer);
                    self.one(group, Event::Answered { number, answer });
                }
            }
            Heard::GivenBack { number } => {
                if let Some((group, number)) = self.asked.remove(&number) {
                    self.one(group, Event::GivenBack { number });
                }
            }
            Heard::Lost { reason } => {
                if self.arbiter_answers.replace(false) != Some(false) {
                    tracing::warn!(
                        code = "LS6016",
                        reason,
                        "the arbiter is lost: this pair is not ready for a failover"
                    );
                }
            }
        }
    }

    /// Numbers of several groups would meet: the arbiter is asked with numbers of the node.
    pub(super) fn ask(&mut self, group: usize, question: Question) {
        if let Question::Claim { claims, .. } = &question {
            // Before the arbiter can grant it.
            for claim in claims {
                self.report_nothing(claim.volume);
            }
        }
        let number = self.next_question;
        self.next_question += 1;
        let (own, question) = match question {
            Question::Claim {
                number: own,
                claims,
            } => (own, Question::Claim { number, claims }),
            Question::Release {
                number: own,
                volumes,
            } => (own, Question::Release { number, volumes }),
        };
        // What is asked again makes the earlier answer worthless.
        self.asked.retain(|_, (of, _)| *of != group);
        self.asked.insert(number, (group, own));
        if self.questions.try_send(question).is_err() {
            tracing::debug!("the arbiter is not asked now");
        }
    }
}
