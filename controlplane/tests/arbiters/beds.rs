//! Arbiters that a test starts, and that can lose what they knew.

use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use controlplane::arbiter;
use controlplane::etcd::{Etcd, Settings};
use controlplane::trust::{Authority, Identity, node_config, witness_config, witness_identity};
use controlplane::witness::{Admission, Witness, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::talk::*;

/// An arbiter that can be started again, and that can lose its data or get old ones back.
pub(crate) trait Bed: Sized {
    async fn member(&self, number: u8) -> Node;
    async fn restart(&mut self);
    async fn forget(&mut self);
    /// What it holds becomes what it held at the first call; the first call only remembers.
    async fn turn_back(&mut self);
}

pub(crate) struct WitnessBed {
    authority: Authority,
    /// Whom its nodes expect.
    pub(crate) identity: Identity,
    pub(crate) directory: tempfile::TempDir,
    address: String,
    /// Its end takes its connections with it, as that of a process does.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl WitnessBed {
    pub(crate) async fn new() -> Self {
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

    /// Whoever comes with this certificate.
    pub(crate) fn asks(&self, identity: &Identity) -> Node {
        let config = node_config(identity, &self.identity.certificate).expect("TLS");
        let address = self.address.clone();
        Node::talking(arbiter::Witness::new(address, Arc::new(config)))
    }

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
        self.asks(&identity)
    }

    async fn restart(&mut self) {
        self.end();
        let witness = Arc::new(Witness::open(self.directory.path()).expect("a witness"));
        let admission = Admission {
            version: 1,
            members: both().bits(),
            authority: self.authority.certificate().to_string(),
            ..Admission::default()
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

/// An etcd of one member or several.
pub(crate) struct EtcdBed {
    directory: tempfile::TempDir,
    members: Vec<Member>,
    backup: Option<String>,
}

struct Member {
    /// For clients.
    port: u16,
    peers_port: u16,
    process: Option<Child>,
}

impl Member {
    fn new() -> Self {
        let port = || {
            let listener = StdListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        Self {
            port: port(),
            peers_port: port(),
            process: None,
        }
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is killed");
            process.wait().expect("it ended");
        }
    }
}

impl EtcdBed {
    pub(crate) async fn new() -> Self {
        Self::of(1).await
    }

    pub(crate) async fn of(members: usize) -> Self {
        // In memory where there is one: what is asked here are its answers, not its disk.
        let memory = tempfile::tempdir_in("/dev/shm");
        let directory = memory.or_else(|_| tempfile::tempdir());
        let mut bed = Self {
            directory: directory.expect("a directory"),
            members: (0..members).map(|_| Member::new()).collect(),
            backup: None,
        };
        bed.restart().await;
        bed
    }

    /// Where clients are answered.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.port).collect()
    }

    /// A member loses its power; what it has written stays.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].end();
    }

    /// A member is started, again or for the first time; who answers is another question.
    pub(crate) fn start(&mut self, member: usize) {
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let pairs = self.members.iter().enumerate();
        let cluster = pairs.map(|(index, other)| format!("m{index}={}", address(other.peers_port)));
        let cluster = cluster.collect::<Vec<_>>().join(",");
        let name = format!("m{member}");
        let directory = self.directory.path().join(&name);
        let member = &mut self.members[member];
        let (client, peer) = (address(member.port), address(member.peers_port));
        let binary = std::env::var_os("LOCKSTEP_ETCD").expect("LOCKSTEP_ETCD names etcd");
        let mut command = Command::new(binary);
        command
            .arg("--data-dir")
            .arg(directory)
            .args(["--name", &name])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        member.process = Some(command.spawn().expect("etcd starts"));
    }

    /// This member answers what only a leader and a majority can.
    pub(crate) async fn answers(&self, member: usize) {
        let answers = async {
            while !self.leads(member).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, answers).await.expect("etcd has a leader");
    }

    /// Which of the members, all of which run, leads.
    pub(crate) async fn leader(&self) -> usize {
        let mut found = None;
        let nothing = serde_json::json!({});
        for index in 0..self.members.len() {
            let answer = self.post(index, "/v3/maintenance/status", &nothing);
            let answer = parse(&answer.await.expect("etcd answers"));
            if answer["leader"] == answer["header"]["member_id"] {
                assert_eq!(found.replace(index), None, "two lead");
            }
        }
        found.expect("one leads")
    }

    /// One call of the gateway, by hand.
    pub(crate) async fn call(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        parse(&self.post(0, path, &body).await.expect("etcd answers"))
    }

    async fn post(
        &self,
        member: usize,
        path: &str,
        body: &serde_json::Value,
    ) -> io::Result<String> {
        let port = self.members[member].port;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// It listens before it has chosen a leader, a second earlier, and answers no node until then.
    async fn leads(&self, member: usize) -> bool {
        let body = serde_json::json!({ "key": Self::key() });
        let answer = self.post(member, "/v3/kv/range", &body).await;
        answer.is_ok_and(|answer| answer.contains(" 200 "))
    }

    pub(crate) fn key() -> String {
        STANDARD.encode(format!("/lockstep/{CLUSTER}/registers"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

fn parse(answer: &str) -> serde_json::Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.contains("200"), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

impl EtcdBed {
    /// A node that asks these members, by their ports on this machine.
    pub(crate) fn asks(&self, number: u8, ports: &[u16]) -> Node {
        let endpoint = |port: &u16| format!("127.0.0.1:{port}").parse().expect("an endpoint");
        Node::talking(Etcd::new(Settings {
            endpoints: ports.iter().map(endpoint).collect(),
            tls: None,
            server_name: None,
            cluster: CLUSTER,
            members: both(),
            me: node(number),
            patience: Duration::from_millis(500),
        }))
    }
}

impl Bed for EtcdBed {
    async fn member(&self, number: u8) -> Node {
        self.asks(number, &self.ports())
    }

    async fn restart(&mut self) {
        for index in 0..self.members.len() {
            self.kill(index);
        }
        for index in 0..self.members.len() {
            self.start(index);
        }
        for index in 0..self.members.len() {
            self.answers(index).await;
        }
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
