//! A node that talks to an arbiter, and what it asks.

use std::cell::Cell;
use std::time::Duration;

use controlplane::arbiter::{self, Heard, talk};
use controlplane_api::arbiter::{Held, Hex16};
use controlplane_core::register::{Answer, Claim, Refusal};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub(crate) const CLUSTER: Hex16 = Hex16([9; 16]);
pub(crate) const VOLUME: VolumeId = VolumeId([7; 16]);
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node")
}

pub(crate) fn both() -> NodeSet {
    NodeSet::from_bits(3)
}

pub(crate) fn mark(epoch: u64, id: u8) -> ViewMark {
    ViewMark {
        epoch: Epoch(epoch),
        id: ViewId([id; 16]),
    }
}

pub(crate) fn held(epoch: u64, insync: NodeSet) -> Vec<Held> {
    let view = View {
        epoch: Epoch(epoch),
        id: ViewId([u8::try_from(epoch).expect("small"); 16]),
        active: None,
        insync,
    };
    vec![Held::new(VOLUME, &view)]
}

pub(crate) fn claim(number: u64, basis: ViewMark, next: ViewMark) -> Question {
    let claim = Claim {
        volume: VOLUME,
        basis,
        next,
        history: ViewHistory::default(),
    };
    Question::Claim {
        number,
        claims: vec![claim],
    }
}

pub(crate) fn release(number: u64, view: ViewMark) -> Question {
    Question::Release {
        number,
        volumes: vec![(VOLUME, view)],
    }
}

pub(crate) fn granted(view: ViewMark) -> Answer {
    Answer::Granted(vec![view])
}

pub(crate) fn refused(refusal: Refusal) -> Answer {
    let volume = VOLUME;
    Answer::Refused { volume, refusal }
}

pub(crate) fn superseded(epoch: u64, holder: Option<NodeId>) -> Answer {
    refused(Refusal::Superseded {
        epoch: Epoch(epoch),
        holder,
    })
}

/// A node that talks to the arbiter.
pub(crate) struct Node {
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) reports: watch::Sender<Vec<Held>>,
    pub(crate) number: u64,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub(crate) fn talking(arbiter: impl arbiter::Arbiter + 'static) -> Node {
        let (questions, asked) = mpsc::channel(8);
        let (sender, heard) = mpsc::channel(64);
        let (reports, held) = watch::channel(held(5, both()));
        let task = tokio::spawn(talk(arbiter, Duration::from_secs(2), asked, held, sender));
        Node {
            questions,
            heard,
            reports,
            number: 0,
            task,
        }
    }

    pub(crate) async fn hears(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let next = async {
            loop {
                let heard = self.heard.recv().await.expect("the talk goes on");
                if wanted(&heard) {
                    return heard;
                }
            }
        };
        let heard = timeout(LIMIT, next).await;
        heard.expect("nothing of that kind was heard")
    }

    /// The arbiter took reports that were asked for after now.
    pub(crate) async fn reports(&mut self) {
        for _ in 0..2 {
            self.hears(|heard| matches!(heard, Heard::Contact { .. }))
                .await;
        }
    }

    /// Asks until it is answered, as a keeper does: what is asked while the arbiter is lost is dropped.
    pub(crate) async fn ask(&mut self, question: impl Fn(u64) -> Question) -> Heard {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            assert!(tokio::time::Instant::now() < end, "no answer");
            self.number += 1;
            let number = self.number;
            self.questions
                .send(question(number))
                .await
                .expect("it is asked");
            let others = Cell::new(0);
            let heard = self
                .hears(|heard| match heard {
                    Heard::Answered { number: of, .. } | Heard::GivenBack { number: of } => {
                        *of == number
                    }
                    Heard::Lost { .. } => true,
                    Heard::Contact { .. } | Heard::Enrolled { .. } => {
                        others.set(others.get() + 1);
                        others.get() > 8
                    }
                })
                .await;
            if matches!(heard, Heard::Answered { .. } | Heard::GivenBack { .. }) {
                return heard;
            }
        }
    }

    pub(crate) async fn claims(&mut self, basis: ViewMark, next: ViewMark) -> Answer {
        match self.ask(|number| claim(number, basis, next)).await {
            Heard::Answered { answer, .. } => answer,
            heard @ (Heard::GivenBack { .. }
            | Heard::Contact { .. }
            | Heard::Enrolled { .. }
            | Heard::Lost { .. }) => {
                panic!("{heard:?}")
            }
        }
    }

    pub(crate) async fn gives_back(&mut self, view: ViewMark) {
        let heard = self.ask(|number| release(number, view)).await;
        assert!(matches!(heard, Heard::GivenBack { .. }), "{heard:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}
