//! Two nodes on loopback: two `lockstepd`, each with a directory, a certificate and a volume's daemon that only tells how
//! its volume stands.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::push::{Record, Store};
use controlplane::trust::{Authority, Identity, witness_identity};
use controlplane::witness::Admission;
use controlplane_api::arbiter::Hex16;
use controlplane_api::config::{ConfigShow, PushAsk, Pushed};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"node1","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// Beds at the same time have addresses, marks and cgroups of their own.
static BEDS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Bed {
    directory: tempfile::TempDir,
    number: u32,
    cluster: Hex16,
    daemons: [Option<Child>; 2],
    /// How often each node was started: each run has a file for its words.
    runs: [u32; 2],
    /// Beside both nodes.
    witness: Option<Child>,
    has_witness: bool,
}

impl Bed {
    /// Both are set up, and none runs.
    pub(crate) fn new() -> Self {
        Self::set_up(false)
    }

    /// The same with a witness, which runs.
    pub(crate) fn with_witness() -> Self {
        let mut bed = Self::set_up(true);
        bed.start_witness();
        bed
    }

    fn set_up(has_witness: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = controlplane::key::of_bytes(Path::new("key"), &[7; 32]).expect("a key");
        let bed = Self {
            directory,
            number: BEDS.fetch_add(1, Ordering::Relaxed),
            cluster: Hex16(key.cluster().0),
            daemons: [None, None],
            runs: [0, 0],
            witness: None,
            has_witness,
        };
        let (authority, made) = Authority::create(bed.cluster).expect("an authority");
        for node in 0..2 {
            fs::create_dir_all(bed.file(node, "trust")).expect("a directory");
            secret(&bed.file(node, "key"), &[7; 32]);
            bed.trusts(node, &authority);
            fs::write(bed.config(node), bed.text("")).expect("written");
        }
        fs::create_dir_all(bed.file(0, "authority")).expect("a directory");
        fs::write(bed.file(0, "authority/authority.pem"), &made.certificate).expect("written");
        secret(&bed.file(0, "authority/authority.key"), made.key.as_bytes());
        if has_witness {
            bed.admit(&made.certificate);
        }
        bed.volume();
        bed
    }

    /// A witness that knows the cluster, and that both nodes know.
    fn admit(&self, authority: &str) {
        let state = self.file(0, "witness");
        let own = witness_identity().expect("an identity");
        fs::create_dir_all(&state).expect("a directory");
        fs::write(state.join("witness.pem"), &own.certificate).expect("written");
        secret(&state.join("witness.key"), own.key.as_bytes());
        let admission = Admission {
            version: 1,
            members: 3,
            authority: authority.to_string(),
            ..Admission::default()
        };
        let text = serde_json::to_string(&admission).expect("JSON");
        secret(&self.admission(), text.as_bytes());
        for node in 0..2 {
            let known = self.file(node, "trust/witness.pem");
            fs::write(known, &own.certificate).expect("written");
        }
    }

    pub(crate) fn admission(&self) -> PathBuf {
        self.file(0, &format!("witness/{}.cluster", self.cluster))
    }

    pub(crate) fn start_witness(&mut self) {
        let words = File::options()
            .create(true)
            .append(true)
            .open(self.file(0, "witness-words"));
        let child = Command::new(env!("CARGO_BIN_EXE_lockstepd"))
            .args(["witness", "--listen", &self.witness_address(), "--state"])
            .arg(self.file(0, "witness"))
            .stderr(words.expect("a file"))
            .spawn();
        self.witness = Some(child.expect("a witness"));
        let address = self.witness_address();
        eventually("a witness", || TcpStream::connect(&address).is_ok());
    }

    pub(crate) fn kill_witness(&mut self) {
        if let Some(mut child) = self.witness.take() {
            child.kill().expect("killed");
            child.wait().expect("its end");
        }
    }

    pub(crate) fn witness_address(&self) -> String {
        self.address(0).replace(":7421", ":7422")
    }

    /// The node shows a certificate of this authority, and trusts it.
    pub(crate) fn trusts(&self, node: usize, authority: &Authority) {
        let number = u8::try_from(node).expect("a number");
        let identity = authority.issue(NodeId::new(number).expect("a node"));
        let Identity { certificate, key } = identity.expect("a certificate");
        let trust = self.file(node, "trust");
        fs::write(trust.join("node.pem"), certificate).expect("written");
        let _ = fs::remove_file(trust.join("node.key"));
        secret(&trust.join("node.key"), key.as_bytes());
        fs::write(trust.join("authority.pem"), authority.certificate()).expect("written");
    }

    pub(crate) fn cluster(&self) -> Hex16 {
        self.cluster
    }

    pub(crate) fn file(&self, node: usize, name: &str) -> PathBuf {
        self.directory
            .path()
            .join(format!("node{}", node + 1))
            .join(name)
    }

    pub(crate) fn config(&self, node: usize) -> PathBuf {
        self.file(node, "cluster.toml")
    }

    pub(crate) fn says_config(&self, node: usize) -> String {
        fs::read_to_string(self.config(node)).expect("a file")
    }

    pub(crate) fn address(&self, node: usize) -> String {
        let pid = std::process::id();
        let (high, low) = ((pid >> 8) & 0x3f, pid & 0xff);
        let own = self.number * 2 + u32::try_from(node).expect("a number") + 1;
        format!("127.{}.{low}.{own}:7421", high + 64)
    }

    /// A configuration, with something of its own.
    pub(crate) fn text(&self, own: &str) -> String {
        let pid = self.file(0, "pid").display().to_string();
        let group = self.group();
        let arbiter = if self.has_witness {
            format!(
                "arbiter = \"witness\"\n[witness]\naddress = \"{}\"",
                self.witness_address()
            )
        } else {
            "arbiter = \"manual\"".to_string()
        };
        format!(
            "version = 1\n{arbiter}\n\
             [nodes.node1]\ninterconnects = [\"{}\"]\n[nodes.node2]\ninterconnects = [\"{}\"]\n\
             [groups.{group}]\nvolumes = [\"data\"]\nresources = [{{ kind = \"program\", name = \"app\", \
             command = [\"/bin/sh\", \"-c\", \"echo $$ > {pid}; exec sleep 1000\"] }}]\n{own}",
            self.address(0),
            self.address(1),
        )
    }

    /// The group's name.
    pub(crate) fn group(&self) -> String {
        format!("push{}-{}", std::process::id(), self.number)
    }

    /// The first node serves. The volume of the other one does not answer: both nodes are one machine, and a node that knows
    /// that it does not serve would stop what runs for the other one.
    fn volume(&self) {
        let listener = UnixListener::bind(self.file(0, "data.sock")).expect("a socket");
        let key = self.file(0, "key");
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut request = String::new();
                if BufReader::new(&stream).read_line(&mut request).is_err() {
                    continue;
                }
                let answer = if request.contains("\"request\":\"keys\"") {
                    goes_by(&key)
                } else {
                    STATUS.replace("ROLE", "active")
                };
                let _ = writeln!(stream, "{answer}");
            }
        });
    }

    pub(crate) fn start(&mut self, node: usize) {
        self.runs[node] += 1;
        let words = File::create(self.words_file(node)).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_lockstepd"))
            .args(["run", "--config"])
            .arg(self.config(node))
            .args(["--node", ["node1", "node2"][node], "--key"])
            .arg(self.file(node, "key"))
            .arg("--trust")
            .arg(self.file(node, "trust"))
            .env("LOCKSTEP_RUN_DIR", self.file(node, ""))
            .env("LOCKSTEP_LOG_DIR", self.file(node, "logs"))
            .env("LOCKSTEP_STATE_DIR", self.file(node, "state"))
            .stderr(words)
            .spawn();
        self.daemons[node] = Some(child.expect("lockstepd"));
        let socket = self.file(node, "lockstepd/api.sock");
        eventually("the door", || UnixStream::connect(&socket).is_ok());
    }

    pub(crate) fn start_both(&mut self) {
        self.start(0);
        self.start_both_again();
    }

    /// The first one runs.
    pub(crate) fn start_both_again(&mut self) {
        self.start(1);
        eventually("they can be asked", || {
            self.show(0).peer.is_some() && self.show(1).peer.is_some()
        });
    }

    /// Without a chance to do anything more.
    pub(crate) fn kill(&mut self, node: usize) {
        let Some(mut child) = self.daemons[node].take() else {
            return;
        };
        child.kill().expect("killed");
        child.wait().expect("its end");
        let _ = fs::remove_file(self.file(node, "lockstepd/api.sock"));
    }

    /// The process is the one that was started.
    pub(crate) fn runs(&mut self, node: usize) -> bool {
        let child = self.daemons[node].as_mut().expect("a daemon");
        child.try_wait().expect("a child").is_none()
    }

    fn words_file(&self, node: usize) -> PathBuf {
        self.file(node, &format!("words{}", self.runs[node]))
    }

    pub(crate) fn words(&self, node: usize) -> String {
        fs::read_to_string(self.words_file(node)).unwrap_or_default()
    }

    pub(crate) fn says(&self, node: usize, what: &str) {
        eventually_or(
            || self.words(node).contains(what),
            || format!("{what} in {}", self.words(node)),
        );
    }

    fn http(&self, node: usize, head: &str, body: &str) -> Option<(u32, String)> {
        let mut stream = UnixStream::connect(self.file(node, "lockstepd/api.sock")).ok()?;
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_string()))
    }

    /// A node that begins anew does not answer for a moment.
    pub(crate) fn get(&self, node: usize, path: &str) -> String {
        let head = format!("GET {path}");
        let until = Instant::now() + PATIENCE;
        loop {
            match self.http(node, &head, "") {
                Some((200, body)) => return body,
                other => assert!(Instant::now() < until, "{other:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The status with which a question is refused.
    pub(crate) fn refused(&self, node: usize, path: &str) -> u32 {
        let answer = self.http(node, &format!("GET {path}"), "");
        answer.expect("an answer").0
    }

    pub(crate) fn post(&self, node: usize, path: &str, body: &str) -> Result<String, Problem> {
        let answer = self.http(node, &format!("POST {path}"), body);
        match answer.expect("an answer") {
            (200, body) => Ok(body),
            (_, body) => {
                let refused: Value = serde_json::from_str(&body).expect("a refusal");
                Err(serde_json::from_value(refused["problem"].clone()).expect("a problem"))
            }
        }
    }

    pub(crate) fn show(&self, node: usize) -> ConfigShow {
        serde_json::from_str(&self.get(node, "/v1/config")).expect("a state")
    }

    pub(crate) fn push(&self, node: usize, ask: &PushAsk) -> Result<Pushed, Problem> {
        let body = serde_json::to_string(ask).expect("a body");
        let said = self.post(node, "/v1/config/push", &body)?;
        Ok(serde_json::from_str(&said).expect("an answer"))
    }

    pub(crate) fn push_text(&self, node: usize, text: &str) -> Result<Pushed, Problem> {
        let text = text.to_string();
        self.push(
            node,
            &PushAsk {
                text,
                ..PushAsk::default()
            },
        )
    }

    /// Waits until both nodes run exactly this file, and nothing is under way.
    pub(crate) fn both_run(&self, text: &str) {
        let digest = controlplane::push::hex(&controlplane::push::digest(text.as_bytes()));
        let is = || {
            let shown = self.show(0);
            let Some(peer) = shown.peer.clone() else {
                return false;
            };
            [shown.own, peer]
                .iter()
                .all(|node| node.digest == digest && node.runs == digest && node.push.is_none())
        };
        eventually_or(is, || {
            let words = [self.words(0), self.words(1)];
            format!("{digest}: {:#?}\n{words:#?}", self.show(0))
        });
        for node in 0..2 {
            assert_eq!(self.says_config(node), text);
        }
    }

    pub(crate) fn store(&self, node: usize) -> Store {
        Store::in_directory(&self.file(node, "state"), self.cluster)
    }

    pub(crate) fn record(&self, node: usize) -> Option<Record> {
        self.store(node).load().expect("a record")
    }

    pub(crate) fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.file(0, "pid")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for node in 0..2 {
            self.kill(node);
        }
        self.kill_witness();
        let pid = self.pid();
        if lives(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// What a daemon answers that goes by what is in the key file.
pub(crate) fn goes_by(key: &Path) -> String {
    let place = controlplane::key::read(key).map_or(0, |keys| keys.place().0);
    format!(r#"{{"schema":"lockstep.admin/1","ok":true,"keys":{place}}}"#)
}

fn secret(path: &Path, bytes: &[u8]) {
    let mut file = File::options();
    let file = file.write(true).create_new(true).mode(0o600);
    file.open(path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("a secret");
}

/// Not one that has ended and was taken by nobody.
pub(crate) fn lives(pid: i32) -> bool {
    pid > 0 && Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    eventually_or(is, || what.to_string());
}

fn eventually_or(is: impl Fn() -> bool, what: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "{}", what());
        thread::sleep(Duration::from_millis(50));
    }
}
