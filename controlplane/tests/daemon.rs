//! `lockstepd` itself, with a volume's daemon that only tells how its volume stands: a group follows its volume, outlives
//! the control plane and is adopted by the next one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::arbiter::boottime_nanos;
use controlplane_core::timeouts::{Factor, Told};
use controlplane_core::wire::{Heartbeat, HeartbeatKey};
use mirror_core::types::{BootId, Incarnation};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"node2","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;

/// Instead of a role: the volume's daemon does not answer.
const SILENT: &str = "silent";
/// An arbiter under which services need a lease. Nobody listens there.
const ETCD: &str = "[etcd]\nendpoints = [\"127.0.0.1:1\"]\n";
/// Groups of tests that run at the same time have marks and cgroups of their own.
static BEDS: AtomicU32 = AtomicU32::new(0);

struct Bed {
    directory: tempfile::TempDir,
    group: String,
    role: Arc<Mutex<&'static str>>,
    /// The other node's copy does not count.
    alone: Arc<AtomicBool>,
    /// Where the other node's heartbeats come from.
    peer: String,
    daemon: Option<Child>,
}

impl Bed {
    fn new() -> Self {
        Self::with("arbiter = \"manual\"\n", "")
    }

    /// Under this arbiter, and with more at the end of the file.
    fn with(arbiter: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let mut key = File::options();
        let key = key.write(true).create_new(true).mode(0o600);
        let mut key = key.open(path.join("key")).expect("a key");
        key.write_all(&[7; 32]).expect("a key");
        let port = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.local_addr().expect("an address").to_string()
        };
        let (own, peer) = (port(), port());
        let pid = path.join("pid").display().to_string();
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let group = format!("daemon{}-{number}", std::process::id());
        let config = format!(
            "version = 1\n{arbiter}\
             [nodes.node1]\ninterconnects = [\"{own}\"]\n[nodes.node2]\ninterconnects = [\"{peer}\"]\n\
             [groups.{group}]\nvolumes = [\"data\"]\ndoubt_grace_ms = 600000\nresources = [{{ kind = \"program\", name = \"app\", \
             command = [\"/bin/sh\", \"-c\", \"echo $$ > {pid}; exec sleep 1000\"] }}]\n{more}"
        );
        fs::write(path.join("cluster.toml"), config).expect("a configuration");
        let role = Arc::new(Mutex::new("fenced"));
        let listener = UnixListener::bind(path.join("data.sock")).expect("a socket");
        let alone = Arc::new(AtomicBool::new(false));
        let (told, sole) = (Arc::clone(&role), Arc::clone(&alone));
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut request = String::new();
                let read = BufReader::new(&stream).read_line(&mut request);
                let role = *told.lock().expect("a role");
                let mut status = STATUS.replace("ROLE", role);
                if sole.load(Ordering::SeqCst) {
                    status = status.replace("[\"node1\",\"node2\"]", "[\"node1\"]");
                    status = status.replace("\"state\":\"up\"", "\"state\":\"down\"");
                }
                if read.is_ok() && role != SILENT {
                    let _ = writeln!(stream, "{status}");
                }
            }
        });
        Self {
            directory,
            group,
            role,
            alone,
            peer,
            daemon: None,
        }
    }

    fn becomes(&self, role: &'static str) {
        *self.role.lock().expect("a role") = role;
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts `lockstepd`, with its words in a file of this name.
    fn start(&mut self, words: &str) {
        let words = File::create(self.file(words)).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_lockstepd"))
            .arg("run")
            .arg("--config")
            .arg(self.file("cluster.toml"))
            .args(["--node", "node1", "--key"])
            .arg(self.file("key"))
            .env("LOCKSTEP_RUN_DIR", self.directory.path())
            .env("LOCKSTEP_LOG_DIR", self.file("logs"))
            .env("LOCKSTEP_STATE_DIR", self.file("state"))
            .stderr(words)
            .spawn();
        self.daemon = Some(child.expect("lockstepd"));
    }

    fn end(&mut self) {
        let Some(mut child) = self.daemon.take() else {
            return;
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number"));
        kill(pid, Signal::SIGTERM).expect("a signal");
        child.wait().expect("its end");
    }

    fn says(&self, words: &str, what: &str) {
        let path = self.file(words);
        let said = || fs::read_to_string(&path).unwrap_or_default();
        eventually(&format!("{what} in {}", said()), || said().contains(what));
    }

    /// An operator's words, and what is answered: its status, and its body.
    fn operator(&self, path: &str, body: &str) -> (u32, String) {
        let socket = self.file("lockstepd/api.sock");
        eventually("the door", || UnixStream::connect(&socket).is_ok());
        let mut stream = UnixStream::connect(&socket).expect("a connection");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_string())
    }

    fn pid(&self) -> i32 {
        let text = fs::read_to_string(self.file("pid")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.end();
        let pid = self.pid();
        if lives(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn lives(pid: i32) -> bool {
    pid > 0 && Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_group_follows_its_volume_and_outlives_the_control_plane() {
    let mut bed = Bed::new();
    bed.start("first");
    bed.says("first", "offline");
    assert_eq!(bed.pid(), 0, "nothing runs beside a fenced volume");
    bed.becomes("active");
    bed.says("first", "online");
    let pid = bed.pid();
    assert!(lives(pid));
    bed.end();
    assert!(lives(pid), "the control plane ends, the program runs on");
    bed.start("second");
    bed.says("second", "online");
    let words = fs::read_to_string(bed.file("second")).expect("words");
    assert!(!words.contains("LS6041"), "{words}");
    assert_eq!(bed.pid(), pid);
    assert!(lives(pid), "adopted, not started again");
    bed.becomes("fenced");
    bed.says("second", "LS6042");
    bed.says("second", "offline");
    assert!(!lives(pid));
}

#[test]
fn what_an_operator_stops_stays_stopped_over_a_restart_until_it_is_started() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let verb = |verb: &str| format!("/v1/groups/{group}/{verb}");
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    let (status, body) = bed.operator(&verb("stop"), "{}");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"number\":2"), "{body}");
    bed.says("first", "LS6042");
    eventually("it ends", || !lives(pid));
    let (status, body) = bed.operator(&verb("start"), "{\"node\":\"node2\"}");
    assert!(status == 409 && body.contains("LS6083"), "{body}");
    // The other node does not know it, and could begin as long as its copy counts.
    let words = fs::read_to_string(bed.file("first")).expect("words");
    assert!(!words.contains("Release"), "{words}");
    bed.alone.store(true, Ordering::SeqCst);
    bed.says("first", "Release");
    let (_, body) = bed.operator(&verb("stop"), "{}");
    assert!(body.contains("was stopped already"), "{body}");
    bed.end();
    bed.start("second");
    // Somebody serves it all the same: nothing starts, and it is stopped again.
    bed.says("second", "Release");
    let words = fs::read_to_string(bed.file("second")).expect("words");
    assert!(!words.contains("LS6041"), "{words}");
    let (status, body) = bed.operator(&verb("start"), "{}");
    assert_eq!(status, 200, "{body}");
    bed.says("second", "online");
    assert!(lives(bed.pid()));
}

/// What an operator stopped by itself is no part of what `cluster start` starts, whenever it was said.
#[test]
fn the_cluster_is_stopped_and_started_and_what_was_stopped_by_itself_is_left() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    let verb = |verb: &str| format!("/v1/groups/{group}/{verb}");
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    let (status, body) = bed.operator("/v1/cluster/stop", "{\"dry_run\":true}");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("\"changed\":true") && !body.contains("\"number\""),
        "{body}"
    );
    // Nobody takes it for the real one's answer.
    assert!(
        body.contains("\"dry_run\":true") && body.contains("nothing is done"),
        "{body}"
    );
    assert!(
        body.contains("would be stopped") && !body.contains("is stopped"),
        "{body}"
    );
    let (status, _) = bed.operator("/v1/cluster/stop", "{\"dry-run\":true}");
    assert!(status >= 400, "misspelt");
    assert!(lives(pid), "nothing was done");
    let (status, body) = bed.operator("/v1/cluster/stop", "{}");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"number\":2"), "{body}");
    assert!(body.contains("node2 is not heard"), "{body}");
    bed.says("first", "LS6042");
    eventually("it ends", || !lives(pid));
    let (_, body) = bed.operator("/v1/cluster/stop", "{}");
    assert!(body.contains("every group was stopped already"), "{body}");
    assert!(body.contains("may know of something else"), "{body}");
    bed.end();
    // Remembered over a restart.
    bed.start("second");
    let (status, body) = bed.operator("/v1/cluster/start", "{\"dry_run\":true}");
    assert!(status == 200 && body.contains("would start"), "{body}");
    let (status, body) = bed.operator("/v1/cluster/start", "{}");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"changed\":true"), "{body}");
    assert!(body.contains("node2 is not heard"), "{body}");
    bed.says("second", "online");
    // Stopped with the cluster, and then by itself: it is the operator's from then on.
    let (status, _) = bed.operator("/v1/cluster/stop", "{}");
    assert_eq!(status, 200);
    let (status, body) = bed.operator(&verb("stop"), "{}");
    assert!(status == 200 && !body.contains("already"), "{body}");
    let (status, body) = bed.operator("/v1/cluster/start", "{}");
    assert!(
        status == 200 && body.contains("\"changed\":false"),
        "{body}"
    );
    assert!(body.contains("was stopped by itself"), "{body}");
    let (_, body) = bed.operator("/v1/cluster/stop", "{}");
    assert!(body.contains("was stopped by itself"), "{body}");
    let (status, body) = bed.operator(&verb("start"), "{}");
    assert_eq!(status, 200, "{body}");
}

/// Plays the other node's heartbeats, of a release that promises no timeouts as long as `old`: it answers all that it hears.
fn plays_the_peer(address: &str, key: HeartbeatKey, old: Arc<AtomicBool>) {
    let socket = UdpSocket::bind(address).expect("a port");
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        for sequence in 1.. {
            let Ok((length, from)) = socket.recv_from(&mut bytes) else {
                return;
            };
            let Ok(heard) = key.decode(&bytes[..length]) else {
                continue;
            };
            let promise = (!old.load(Ordering::SeqCst)).then_some(Factor::ONE);
            let answer = Heartbeat {
                from: heard.to,
                to: heard.from,
                stood_still: false,
                boot: BootId([9; 16]),
                incarnation: Incarnation(77),
                sequence,
                echoed_incarnation: heard.incarnation,
                echoed_sent: heard.sent,
                held_nanos: 0,
                timeouts: Told {
                    waits: promise,
                    lease: promise,
                    word: None,
                },
                ..heard
            };
            let _ = socket.send_to(&key.encode(&answer), from);
        }
    });
}

/// It would leave such a wish out, and nothing could be moved or stopped between the two any more.
#[test]
fn beside_a_release_that_does_not_know_it_the_cluster_is_not_stopped() {
    let mut bed = Bed::new();
    let old = Arc::new(AtomicBool::new(true));
    let key = controlplane::key::read(&bed.file("key")).expect("a key");
    let key = HeartbeatKey::of(key.sent(), key.cluster());
    plays_the_peer(&bed.peer, key, Arc::clone(&old));
    bed.start("first");
    for verb in ["stop", "suspend"] {
        let path = format!("/v1/cluster/{verb}");
        let asked = || bed.operator(&path, "{\"dry_run\":true}");
        eventually("heard, and refused", || {
            let (status, body) = asked();
            status == 409 && body.contains("LS6223")
        });
        let (status, body) = bed.operator(&path, "{}");
        assert!(status == 409 && body.contains("LS6223"), "{body}");
    }
    old.store(false, Ordering::SeqCst);
    eventually("upgraded", || {
        let (status, body) = bed.operator("/v1/cluster/stop", "{}");
        status == 200 && !body.contains("is not heard")
    });
}

#[test]
fn a_suspended_cluster_goes_on_with_what_it_serves_and_begins_nothing() {
    let mut bed = Bed::new();
    let group = bed.group.clone();
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    let (status, body) = bed.operator("/v1/nodes/node2/suspend", "{}");
    assert_eq!(status, 200, "{body}");
    let (_, body) = bed.operator("/v1/cluster/suspend", "{\"dry_run\":true}");
    assert!(
        body.contains("would be moved") && body.contains("would be suspended"),
        "{body}"
    );
    let (status, body) = bed.operator("/v1/cluster/suspend", "{}");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("node2 is not heard and does not know it yet"),
        "{body}"
    );
    assert!(body.contains("was suspended by itself"), "{body}");
    let start = format!("/v1/groups/{group}/start");
    let (status, body) = bed.operator(&format!("/v1/groups/{group}/move"), "{}");
    assert!(status == 409 && body.contains("LS6084"), "{body}");
    bed.end();
    bed.start("second");
    bed.says("second", "online");
    assert_eq!(bed.pid(), pid, "it goes on, over a restart");
    // Stopped, and both suspended: nobody would begin.
    let (status, _) = bed.operator("/v1/cluster/stop", "{}");
    assert_eq!(status, 200);
    let (status, body) = bed.operator("/v1/cluster/start", "{}");
    assert!(status == 409 && body.contains("LS6084"), "{body}");
    let (status, body) = bed.operator("/v1/cluster/resume", "{}");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("node1: resumed"), "{body}");
    let (_, body) = bed.operator("/v1/cluster/resume", "{}");
    assert!(body.contains("no node is suspended that"), "{body}");
    let (status, body) = bed.operator("/v1/nodes/node2/resume", "{}");
    assert!(status == 200 && body.contains("takes over again"), "{body}");
    let (status, body) = bed.operator(&start, "{}");
    assert_eq!(status, 200, "{body}");
}

/// A wish that is not durable is no answer to whoever says it again, and is followed once it is.
#[test]
fn what_is_not_durable_is_not_so_already() {
    let mut bed = Bed::new();
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    let state = bed.file("state");
    let _ = fs::remove_dir_all(&state);
    fs::write(&state, "in the way").expect("a file");
    let stop = format!("/v1/groups/{}/stop", bed.group);
    for _ in 0..2 {
        let (status, body) = bed.operator(&stop, "{}");
        assert!(status == 409 && body.contains("LS6087"), "{status} {body}");
    }
    assert!(lives(pid));
    fs::remove_file(&state).expect("room");
    bed.says("first", "LS6042");
    eventually("it ends", || !lives(pid));
    let (status, body) = bed.operator(&stop, "{}");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("was stopped already") && body.contains("\"number\":2"));
}

#[test]
fn what_cannot_be_done_is_refused_with_a_code_and_changes_nothing() {
    let mut bed = Bed::new();
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let group = format!("/v1/groups/{}", bed.group);
    let cases = [
        ("/v1/groups/other/stop".to_string(), "{}", "LS6080"),
        ("/v1/nodes/node3/suspend".to_string(), "{}", "LS6080"),
        (format!("{group}/move"), "{\"node\":\"node3\"}", "LS6080"),
        // Nobody runs on the other node.
        (format!("{group}/move"), "{}", "LS6081"),
        (format!("{group}/start"), "{\"node\":\"node2\"}", "LS6086"),
    ];
    for (path, body, code) in cases {
        let (status, answer) = bed.operator(&path, body);
        assert_eq!(status, 409, "{path} {answer}");
        assert!(answer.contains(code), "{path} {answer}");
    }
    let (status, _) = bed.operator("/v1/nodes/node2/suspend", "{}");
    assert_eq!(status, 200);
    let (_, answer) = bed.operator(&format!("{group}/move"), "{}");
    assert!(answer.contains("LS6084"), "{answer}");
    assert!(lives(bed.pid()));
}

#[test]
fn a_damaged_file_of_wishes_is_not_an_empty_one() {
    let mut bed = Bed::new();
    fs::create_dir_all(bed.file("state")).expect("a directory");
    fs::write(bed.file("state/wishes.json"), "{").expect("a file");
    bed.start("first");
    bed.says("first", "LS6090");
    bed.daemon
        .take()
        .expect("a daemon")
        .wait()
        .expect("its end");
}

impl Bed {
    /// What it leaves behind for its next run.
    fn left_behind(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("lockstepd/self-fencing"));
        let text = text.unwrap_or_default();
        text.split_whitespace().map(str::to_string).collect()
    }

    /// The time that the services had when it ended is over.
    fn is_time_over(&self) -> bool {
        let confirmed = self.left_behind().get(4).and_then(|word| word.parse().ok());
        let over = confirmed.unwrap_or(0) + 2_000_000_000;
        boottime_nanos() > over
    }
}

/// The volume's daemon is silent, which is a pause of ten minutes here; nobody else is heard.
#[test]
fn services_end_with_their_lease_although_their_volume_only_is_silent() {
    let mut bed = Bed::with(ETCD, "");
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    bed.becomes(SILENT);
    eventually("the program ends", || !lives(pid));
    bed.says("first", "LS6130");
    bed.says("first", "LS6042");
    // The peer is heard again by a data plane that serves with it.
    bed.becomes("active");
    eventually("it runs again", || bed.pid() != pid && lives(bed.pid()));
}

#[test]
fn a_restart_adopts_what_runs_in_its_time_and_renews_none() {
    let mut bed = Bed::with(ETCD, "");
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    bed.end();
    assert!(lives(pid), "nothing is stopped because lockstepd ends");
    bed.start("second");
    bed.says("second", "online");
    let words = fs::read_to_string(bed.file("second")).expect("words");
    assert!(
        !words.contains("LS6041") && !words.contains("LS6042"),
        "{words}"
    );
    assert_eq!(bed.pid(), pid);
    assert!(lives(pid), "adopted");
    bed.end();
    bed.becomes(SILENT);
    eventually("the lease is over", || bed.is_time_over());
    assert!(lives(pid), "nobody is there who would stop it");
    bed.start("third");
    eventually("the program ends", || !lives(pid));
    bed.says("third", "LS6130");
}

#[test]
fn a_watchdog_that_cannot_be_used_is_told_and_the_services_run() {
    let mut bed = Bed::with(ETCD, "[watchdog]\ndevice = \"/nonexistent/watchdog\"\n");
    bed.start("first");
    bed.says("first", "offline");
    let armed = |wanted: &str| {
        let left = bed.left_behind();
        left.get(1).is_some_and(|word| word == wanted)
    };
    eventually("nothing is armed", || armed("0"));
    bed.becomes("active");
    bed.says("first", "LS6131");
    eventually("it would be armed", || armed("1"));
    bed.says("first", "online");
}

/// The other machine is off, and the volume's daemon is slow beside a restart of `lockstepd`: nothing that was known is over.
#[test]
fn a_restart_beside_a_machine_that_is_off_keeps_what_runs_also_while_the_volume_is_silent() {
    let mut bed = Bed::with(ETCD, "");
    bed.alone.store(true, Ordering::SeqCst);
    bed.becomes("active");
    bed.start("first");
    bed.says("first", "online");
    let pid = bed.pid();
    bed.end();
    assert!(bed.is_time_over(), "there was no lease");
    bed.becomes(SILENT);
    let since = boottime_nanos();
    bed.start("second");
    bed.says("second", "LS6021");
    eventually("a first look would be over", || {
        boottime_nanos() > since + 3_000_000_000
    });
    assert!(lives(pid));
    bed.becomes("active");
    bed.says("second", "online");
    let words = fs::read_to_string(bed.file("second")).expect("words");
    assert!(
        !words.contains("LS6042") && !words.contains("LS6130"),
        "{words}"
    );
    assert_eq!(bed.pid(), pid);
}

/// A start that comes to nothing looks at nothing.
#[test]
fn a_run_that_cannot_begin_uses_up_no_look() {
    let mut bed = Bed::with(ETCD, "");
    let config = fs::read_to_string(bed.file("cluster.toml")).expect("a file");
    let own = config
        .split('"')
        .find(|word| word.starts_with("127.0.0.1:") && !word.ends_with(":1"));
    let taken = UdpSocket::bind(own.expect("an address")).expect("the port");
    bed.start("first");
    let mut first = bed.daemon.take().expect("lockstepd");
    assert!(!first.wait().expect("its end").success());
    assert_eq!(bed.left_behind(), Vec::<String>::new());
    drop(taken);
    bed.start("second");
    eventually("the run begins to look", || !bed.left_behind().is_empty());
}

/// It was asked, and there is nothing more to be had from it: the first look is over, for the next run as well.
#[test]
fn a_volume_that_never_answers_uses_up_no_look_of_a_later_run() {
    let mut bed = Bed::with(ETCD, "");
    bed.becomes(SILENT);
    let looking = |bed: &Bed| {
        let word = bed.left_behind().get(5).cloned();
        word.and_then(|word| word.parse::<u64>().ok())
    };
    for run in ["first", "second"] {
        bed.start(run);
        eventually("the run begins to look", || {
            looking(&bed).is_some_and(|since| since > 0)
        });
        eventually("it has looked", || looking(&bed) == Some(0));
        bed.end();
    }
}
