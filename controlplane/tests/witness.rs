//! Nodes ask a witness over real TLS, on loopback.

use std::sync::Arc;
use std::time::Duration;

use controlplane::arbiter::{self, Heard, talk};
use controlplane::trust::{Authority, Identity, node_config, witness_config, witness_identity};
use controlplane::witness::{Admission, Witness, server};
use controlplane_api::arbiter::{Held, Hex16};
use controlplane_core::register::{Answer, Claim, Refusal};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const CLUSTER: Hex16 = Hex16([9; 16]);
const VOLUME: VolumeId = VolumeId([7; 16]);

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node")
}

fn both() -> NodeSet {
    NodeSet::from_bits(3)
}

fn mark(epoch: u64, id: u8) -> ViewMark {
    ViewMark {
        epoch: Epoch(epoch),
        id: ViewId([id; 16]),
    }
}

fn held() -> Vec<Held> {
    let view = View {
        epoch: Epoch(5),
        id: ViewId([5; 16]),
        active: None,
        insync: both(),
    };
    vec![Held::new(VOLUME, &view)]
}

fn claim(number: u64, next: ViewMark) -> Question {
    let claim = Claim {
        volume: VOLUME,
        basis: mark(5, 5),
        next,
        history: ViewHistory::default(),
    };
    Question::Claim {
        number,
        claims: vec![claim],
    }
}

struct Bed {
    authority: Authority,
    witness: Identity,
    directory: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let (authority, _) = Authority::create(CLUSTER).expect("an authority");
        Self {
            authority,
            witness: witness_identity().expect("an identity"),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// A witness that serves this cluster; returns its address.
    async fn start(&self) -> (String, tokio::task::JoinHandle<()>) {
        let witness = Arc::new(Witness::open(self.directory.path()).expect("a witness"));
        let admission = Admission {
            version: 1,
            members: both().bits(),
            authority: self.authority.certificate().to_string(),
        };
        witness.admit(CLUSTER, &admission).expect("admitted");
        let config =
            witness_config(&self.witness, Arc::clone(&witness.trusted)).expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            let _ = server::serve(witness, listener, acceptor).await;
        });
        (address, task)
    }

    fn node(&self, address: &str, identity: &Identity) -> Node {
        let config = node_config(identity, &self.witness.certificate).expect("a configuration");
        let (questions, asked) = mpsc::channel(8);
        let (sender, heard) = mpsc::channel(64);
        let (reports, held) = watch::channel(held());
        let witness = arbiter::Witness::new(address.to_string(), Arc::new(config));
        let talk = talk(witness, Duration::from_secs(2), asked, held, sender);
        tokio::spawn(talk);
        Node {
            questions,
            heard,
            _reports: reports,
        }
    }

    fn member(&self, address: &str, number: u8) -> Node {
        let identity = self.authority.issue(node(number)).expect("a certificate");
        self.node(address, &identity)
    }
}

struct Node {
    questions: mpsc::Sender<Question>,
    heard: mpsc::Receiver<Heard>,
    _reports: watch::Sender<Vec<Held>>,
}

impl Node {
    async fn hears(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let next = async {
            loop {
                let heard = self.heard.recv().await.expect("the talk goes on");
                if wanted(&heard) {
                    return heard;
                }
            }
        };
        let heard = timeout(Duration::from_secs(20), next).await;
        heard.expect("nothing of that kind was heard")
    }

    async fn contact(&mut self) {
        self.hears(|heard| matches!(heard, Heard::Contact { .. }))
            .await;
    }

    async fn answer(&mut self, question: Question) -> Answer {
        self.questions.send(question).await.expect("it is asked");
        let answered = |heard: &Heard| matches!(heard, Heard::Answered { .. });
        let heard = self.hears(answered).await;
        let Heard::Answered { answer, .. } = heard else {
            panic!("{heard:?}");
        };
        answer
    }
}

#[tokio::test]
async fn of_two_nodes_one_is_granted_also_after_the_witness_was_started_again() {
    let bed = Bed::new();
    let (address, task) = bed.start().await;
    let (mut one, mut two) = (bed.member(&address, 0), bed.member(&address, 1));
    one.contact().await;
    two.contact().await;
    let granted = Answer::Granted(vec![mark(6, 1)]);
    assert_eq!(one.answer(claim(1, mark(6, 1))).await, granted);
    task.abort();
    let (address, _task) = bed.start().await;
    let (mut one, mut two) = (bed.member(&address, 0), bed.member(&address, 1));
    let refused = two.answer(claim(1, mark(8, 2))).await;
    let superseded = Refusal::Superseded {
        epoch: Epoch(6),
        holder: Some(node(0)),
    };
    let expected = Answer::Refused {
        volume: VOLUME,
        refusal: superseded,
    };
    assert_eq!(refused, expected);
    assert_eq!(one.answer(claim(2, mark(7, 3))).await, granted);
}

#[tokio::test]
async fn a_witness_that_heard_one_member_only_grants_nothing() {
    let bed = Bed::new();
    let (address, _task) = bed.start().await;
    let mut one = bed.member(&address, 0);
    one.contact().await;
    let answer = one.answer(claim(1, mark(6, 1))).await;
    let refusal = Refusal::NotEnrolled {
        missing: NodeSet::only(node(1)),
    };
    let expected = Answer::Refused {
        volume: VOLUME,
        refusal,
    };
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let bed = Bed::new();
    let (address, _task) = bed.start().await;
    // The same names, signed by somebody else.
    let (forger, _) = Authority::create(CLUSTER).expect("an authority");
    let forged = forger.issue(node(0)).expect("a certificate");
    // A cluster that this witness does not serve.
    let (other, _) = Authority::create(Hex16([8; 16])).expect("an authority");
    let foreign = other.issue(node(0)).expect("a certificate");
    for identity in [forged, foreign] {
        let mut stranger = bed.node(&address, &identity);
        let heard = stranger.hears(|_| true).await;
        assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
    }
}

#[tokio::test]
async fn a_witness_with_another_certificate_is_not_believed() {
    let bed = Bed::new();
    let impostor = Bed {
        witness: witness_identity().expect("an identity"),
        authority: Authority::create(CLUSTER).expect("an authority").0,
        directory: tempfile::tempdir().expect("a directory"),
    };
    let (address, _task) = impostor.start().await;
    let mut one = bed.member(&address, 0);
    let heard = one.hears(|_| true).await;
    assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
}

#[tokio::test]
async fn a_witness_that_cannot_write_is_no_contact() {
    let bed = Bed::new();
    let (address, _task) = bed.start().await;
    std::fs::remove_dir_all(bed.directory.path()).expect("its disk is gone");
    let mut first = bed.member(&address, 0);
    let heard = first.heard.recv().await;
    assert!(matches!(heard, Some(Heard::Lost { .. })), "{heard:?}");
}
