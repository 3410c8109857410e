//! The same questions to a witness and to a real etcd, on loopback: the answers are the same.

use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use controlplane::arbiter::{self, Heard, talk};
use controlplane::etcd::{Etcd, Settings};
use controlplane::trust::{Authority, Identity, node_config, witness_config, witness_identity};
use controlplane::witness::{Admission, Witness, server};
use controlplane_api::arbiter::{Held, Hex16};
use controlplane_core::register::{Answer, Claim, Refusal};
use controlplane_core::view_change::Question;
use mirror_core::types::{Epoch, NodeId, NodeSet, ViewId, VolumeId};
use mirror_core::view::{View, ViewHistory, ViewMark};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

const CLUSTER: Hex16 = Hex16([9; 16]);
const VOLUME: VolumeId = VolumeId([7; 16]);
const LIMIT: Duration = Duration::from_secs(30);

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

fn held(epoch: u64, insync: NodeSet) -> Vec<Held> {
    let view = View {
        epoch: Epoch(epoch),
        id: ViewId([u8::try_from(epoch).expect("small"); 16]),
        active: None,
        insync,
    };
    vec![Held::new(VOLUME, &view)]
}

fn claim(number: u64, basis: ViewMark, next: ViewMark) -> Question {
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

fn release(number: u64, view: ViewMark) -> Question {
    Question::Release {
        number,
        volumes: vec![(VOLUME, view)],
    }
}

fn granted(view: ViewMark) -> Answer {
    Answer::Granted(vec![view])
}

fn refused(refusal: Refusal) -> Answer {
    let volume = VOLUME;
    Answer::Refused { volume, refusal }
}

fn superseded(epoch: u64, holder: Option<NodeId>) -> Answer {
    refused(Refusal::Superseded {
        epoch: Epoch(epoch),
        holder,
    })
}

/// A node that talks to the arbiter.
struct Node {
    questions: mpsc::Sender<Question>,
    heard: mpsc::Receiver<Heard>,
    reports: watch::Sender<Vec<Held>>,
    number: u64,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn talking(arbiter: impl arbiter::Arbiter + 'static) -> Node {
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

    async fn hears(&mut self, wanted: impl Fn(&Heard) -> bool) -> Heard {
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
    async fn reports(&mut self) {
        for _ in 0..2 {
            self.hears(|heard| matches!(heard, Heard::Contact { .. }))
                .await;
        }
    }

    /// Asks again for as long as the arbiter is lost.
    async fn ask(&mut self, question: impl Fn(u64) -> Question) -> Heard {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            assert!(tokio::time::Instant::now() < end, "no answer");
            self.number += 1;
            let number = self.number;
            self.questions
                .send(question(number))
                .await
                .expect("it is asked");
            let heard = self
                .hears(|heard| match heard {
                    Heard::Answered { number: of, .. } | Heard::GivenBack { number: of } => {
                        *of == number
                    }
                    Heard::Lost { .. } => true,
                    Heard::Contact { .. } | Heard::Enrolled { .. } => false,
                })
                .await;
            if !matches!(heard, Heard::Lost { .. }) {
                return heard;
            }
        }
    }

    async fn claims(&mut self, basis: ViewMark, next: ViewMark) -> Answer {
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

    async fn gives_back(&mut self, view: ViewMark) {
        let heard = self.ask(|number| release(number, view)).await;
        assert!(matches!(heard, Heard::GivenBack { .. }), "{heard:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An arbiter that can be started again, and that can lose its data or get old ones back.
trait Bed: Sized {
    async fn member(&self, number: u8) -> Node;
    async fn restart(&mut self);
    async fn forget(&mut self);
    /// What it holds becomes what it held at the first call; the first call only remembers.
    async fn turn_back(&mut self);
}

struct WitnessBed {
    authority: Authority,
    identity: Identity,
    directory: tempfile::TempDir,
    address: String,
    /// Its end takes its connections with it, as that of a process does.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl WitnessBed {
    async fn new() -> Self {
        let (authority, _) = Authority::create(CLUSTER).expect("an authority");
        let mut bed = Self {
            authority,
            identity: witness_identity().expect("an identity"),
            directory: tempfile::tempdir().expect("a directory"),
            address: "127.0.0.1:0".to_string(),
            running: None,
        };
        bed.restart().await;
        bed
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(format!("{CLUSTER}.json"))
    }
}

impl WitnessBed {
    fn end(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("it ended");
        }
    }
}

impl Drop for WitnessBed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Bed for WitnessBed {
    async fn member(&self, number: u8) -> Node {
        let identity = self.authority.issue(node(number)).expect("a certificate");
        let config = node_config(&identity, &self.identity.certificate).expect("TLS");
        let address = self.address.clone();
        Node::talking(arbiter::Witness::new(address, Arc::new(config)))
    }

    async fn restart(&mut self) {
        self.end();
        let witness = Arc::new(Witness::open(self.directory.path()).expect("a witness"));
        let admission = Admission {
            version: 1,
            members: both().bits(),
            authority: self.authority.certificate().to_string(),
        };
        witness.admit(CLUSTER, &admission).expect("admitted");
        let config = witness_config(&self.identity, Arc::clone(&witness.trusted)).expect("TLS");
        let listener = StdListener::bind(&self.address).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        self.address = listener.local_addr().expect("an address").to_string();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    _ = server::serve(witness, listener, acceptor) => {}
                    _ = stopped => {}
                }
            });
        });
        self.running = Some((stop, thread));
    }

    async fn forget(&mut self) {
        self.end();
        std::fs::remove_file(self.file()).expect("its file");
        self.restart().await;
    }

    async fn turn_back(&mut self) {
        let backup = self.directory.path().join("backup");
        if !backup.exists() {
            std::fs::copy(self.file(), backup).expect("a backup");
            return;
        }
        self.end();
        std::fs::rename(backup, self.file()).expect("put back");
        self.restart().await;
    }
}

struct EtcdBed {
    directory: tempfile::TempDir,
    ports: [u16; 2],
    process: Option<Child>,
    backup: Option<String>,
}

impl EtcdBed {
    async fn new() -> Self {
        let port = || {
            let listener = StdListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let mut bed = Self {
            directory: tempfile::tempdir().expect("a directory"),
            ports: [port(), port()],
            process: None,
            backup: None,
        };
        bed.restart().await;
        bed
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is killed");
            process.wait().expect("it ended");
        }
    }

    /// One call of the gateway, by hand.
    async fn call(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = ("127.0.0.1", self.ports[0]);
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("etcd");
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        assert!(head.contains("200"), "{answer}");
        serde_json::from_str(body).expect("JSON")
    }

    fn key() -> String {
        STANDARD.encode(format!("/lockstep/{CLUSTER}/registers"))
    }
}

impl Drop for EtcdBed {
    fn drop(&mut self) {
        self.end();
    }
}

impl Bed for EtcdBed {
    async fn member(&self, number: u8) -> Node {
        // The first endpoint is a member that is down.
        let endpoint = |port| format!("127.0.0.1:{port}").parse().expect("an endpoint");
        Node::talking(Etcd::new(Settings {
            endpoints: vec![endpoint(1), endpoint(self.ports[0])],
            tls: None,
            server_name: None,
            cluster: CLUSTER,
            members: both(),
            me: node(number),
        }))
    }

    async fn restart(&mut self) {
        self.end();
        let binary = std::env::var_os("LOCKSTEP_ETCD").expect("LOCKSTEP_ETCD names etcd");
        let [client, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(binary);
        command
            .arg("--data-dir")
            .arg(self.directory.path().join("etcd"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().expect("etcd starts"));
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.ports[0]))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, answers).await.expect("etcd listens");
    }

    async fn forget(&mut self) {
        let body = serde_json::json!({ "key": Self::key() });
        self.call("/v3/kv/deleterange", body).await;
    }

    async fn turn_back(&mut self) {
        let Some(backup) = self.backup.take() else {
            let body = serde_json::json!({ "key": Self::key() });
            let answer = self.call("/v3/kv/range", body).await;
            let value = answer["kvs"][0]["value"].as_str().expect("a value");
            self.backup = Some(value.to_string());
            return;
        };
        let body = serde_json::json!({ "key": Self::key(), "value": backup });
        self.call("/v3/kv/put", body).await;
    }
}

/// Of two nodes one is granted, also after a restart of the arbiter.
async fn one_of_two_is_granted(bed: &mut impl Bed) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 1)).await, granted(mark(6, 1)));
    bed.restart().await;
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(8, 2)).await, expected);
    assert_eq!(one.claims(basis, mark(7, 3)).await, granted(mark(6, 1)));
    // Given back, it is free for both: here the other one is first.
    one.gives_back(basis).await;
    assert_eq!(two.claims(basis, mark(9, 4)).await, granted(mark(9, 4)));
    assert_eq!(
        one.claims(basis, mark(10, 5)).await,
        superseded(9, Some(node(1)))
    );
}

/// One node's word is not enough for an arbiter that knows nothing.
async fn one_report_is_not_enough(bed: &mut impl Bed) {
    let mut one = bed.member(0).await;
    one.reports().await;
    let missing = NodeSet::only(node(1));
    one.hears(|heard| *heard == Heard::Enrolled { missing })
        .await;
    let expected = refused(Refusal::NotEnrolled { missing });
    assert_eq!(one.claims(mark(5, 5), mark(6, 1)).await, expected);
    let _two = bed.member(1).await;
    let missing = NodeSet::default();
    one.hears(|heard| *heard == Heard::Enrolled { missing })
        .await;
}

/// Many claims of both at once: one view is granted.
async fn a_race_has_one_winner(bed: &mut impl Bed) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    for round in 0..20u8 {
        let basis = mark(5, 5);
        let epoch = 6 + u64::from(round);
        let (first, second) = tokio::join!(
            one.claims(basis, mark(epoch, 2 * round + 1)),
            two.claims(basis, mark(epoch, 2 * round + 2)),
        );
        let wins = |answer: &Answer| matches!(answer, Answer::Granted(_));
        assert!(wins(&first) != wins(&second), "{first:?} {second:?}");
        match wins(&first) {
            true => one.gives_back(basis).await,
            false => two.gives_back(basis).await,
        }
    }
}

/// How an arbiter loses what it knew.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// All of it.
    All,
    /// What it learned since the backup.
    Since,
}

/// An arbiter that lost its data, or got old ones back, hears both nodes before it grants anything, and the past is not
/// granted.
async fn the_past_is_not_granted(bed: &mut impl Bed, loss: Loss) {
    let (mut one, mut two) = (bed.member(0).await, bed.member(1).await);
    one.reports().await;
    two.reports().await;
    bed.turn_back().await;
    let basis = mark(5, 5);
    assert_eq!(one.claims(basis, mark(6, 6)).await, granted(mark(6, 6)));
    two.reports().await;
    // Node 0 went on alone, and cannot say so.
    drop(one);
    match loss {
        Loss::All => bed.forget().await,
        Loss::Since => bed.turn_back().await,
    }
    two.reports().await;
    let missing = NodeSet::only(node(0));
    let expected = refused(Refusal::NotEnrolled { missing });
    assert_eq!(two.claims(basis, mark(6, 2)).await, expected);
    let mut one = bed.member(0).await;
    one.reports.send_replace(held(6, NodeSet::only(node(0))));
    one.reports().await;
    let expected = superseded(6, Some(node(0)));
    assert_eq!(two.claims(basis, mark(6, 2)).await, expected);
}

async fn conforms<B: Bed>(bed: impl AsyncFn() -> B) {
    one_of_two_is_granted(&mut bed().await).await;
    one_report_is_not_enough(&mut bed().await).await;
    a_race_has_one_winner(&mut bed().await).await;
    for loss in [Loss::All, Loss::Since] {
        the_past_is_not_granted(&mut bed().await, loss).await;
    }
}

#[tokio::test]
async fn a_witness_conforms() {
    conforms(WitnessBed::new).await;
}

#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn etcd_conforms() {
    conforms(EtcdBed::new).await;
}

/// What stands under the key and is not understood is left alone, and nobody is granted anything.
#[tokio::test]
#[ignore = "needs LOCKSTEP_ETCD: `cargo verify etcd` has one"]
async fn strange_registers_in_etcd_are_not_replaced() {
    let bed = EtcdBed::new().await;
    let body = serde_json::json!({ "key": EtcdBed::key(), "value": STANDARD.encode("{}") });
    bed.call("/v3/kv/put", body).await;
    let mut one = bed.member(0).await;
    let heard = one.hears(|_| true).await;
    assert!(matches!(heard, Heard::Lost { .. }), "{heard:?}");
    let body = serde_json::json!({ "key": EtcdBed::key() });
    let answer = bed.call("/v3/kv/range", body).await;
    assert_eq!(answer["kvs"][0]["value"], STANDARD.encode("{}").as_str());
}
