//! Two `lockstepd` on loopback, with a volume whose daemons only tell who serves it, and carry out the words: a group that
//! fails on one node runs on the other one by itself, and one that fails on both waits.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use controlplane_core::limits::MONITOR_GRACE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00000000000000000000000000000007","node":"OWN","peer":"OTHER","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":ACTIVE,"insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;
const NODES: [&str; 2] = ["node1", "node2"];
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a start, a move and a pause of a resource take.
const NOTHING_FOR: Duration = Duration::from_secs(12);

/// Beds at the same time have addresses of their own.
static BEDS: AtomicUsize = AtomicUsize::new(0);

/// Who serves the volume.
type Active = Arc<Mutex<Option<usize>>>;

struct Bed {
    directory: tempfile::TempDir,
    active: Active,
    daemons: [Option<Child>; 2],
}

impl Bed {
    /// The first node serves; the group's script fails where the file `broken-HOME` or `broken-OTHER` is. `own` are other keys
    /// of the group; DIRECTORY in them is the bed's.
    fn new(name: &str, own: &str, broken: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut bed = Self {
            directory,
            active: Arc::new(Mutex::new(Some(0))),
            daemons: [None, None],
        };
        let path = bed.directory.path().to_path_buf();
        let script = path.join("script");
        let at = path.display();
        let text = format!(
            "#!/bin/sh\nwhile [ $1 = stop ] && [ -e {at}/hold ]; do sleep 0.05; done\n\
             echo $1 $CLP_SERVER >> {at}/words\ntest $1 = stop -o ! -e {at}/broken-$CLP_SERVER\n"
        );
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
        for server in broken {
            bed.breaks(server);
        }
        let pid = std::process::id();
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let address = |node: usize| {
            let (high, low) = ((pid >> 8) & 0x3f, pid & 0xff);
            format!("127.{}.{low}.{}:7423", high + 64, 100 + 2 * number + node)
        };
        let own = own.replace("DIRECTORY", &at.to_string());
        let (script, group) = (script.display(), format!("{name}{pid}"));
        let config = format!(
            "version = 1\narbiter = \"manual\"\n\
             [nodes.node1]\ninterconnects = [\"{}\"]\n[nodes.node2]\ninterconnects = [\"{}\"]\n\
             [groups.{group}]\nvolumes = [\"data\"]\nhard_stop_ms = 1000\n{own}resources = [{{ kind = \"exec\", name = \"app\", \
             retries = 0, start = [\"{script}\", \"start\"], stop = [\"{script}\", \"stop\"] }}]\n",
            address(0),
            address(1),
        );
        for node in 0..2 {
            fs::create_dir_all(bed.file(node, "")).expect("a directory");
            fs::write(bed.file(node, "cluster.toml"), &config).expect("written");
            let mut key = File::options();
            let key = key.write(true).create_new(true).mode(0o600);
            let mut key = key.open(bed.file(node, "key")).expect("a key");
            key.write_all(&[7; 32]).expect("a key");
            bed.volume(node);
        }
        // Both are one machine: a node that finds that it does not serve ends what runs there.
        bed.start(1);
        bed.says(1, "offline");
        bed.start(0);
        bed
    }

    fn breaks(&self, server: &str) {
        fs::write(self.broken(server), "").expect("a file");
    }

    fn broken(&self, server: &str) -> PathBuf {
        self.directory.path().join(format!("broken-{server}"))
    }

    fn file(&self, node: usize, name: &str) -> PathBuf {
        self.directory.path().join(NODES[node]).join(name)
    }

    fn volume(&self, node: usize) {
        let listener = UnixListener::bind(self.file(node, "data.sock")).expect("a socket");
        let active = Arc::clone(&self.active);
        thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let active = Arc::clone(&active);
                thread::spawn(move || answer(stream, node, &active));
            }
        });
    }

    fn start(&mut self, node: usize) {
        let words = File::create(self.file(node, "words")).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_lockstepd"))
            .args(["run", "--config"])
            .arg(self.file(node, "cluster.toml"))
            .args(["--node", NODES[node], "--key"])
            .arg(self.file(node, "key"))
            .env("LOCKSTEP_RUN_DIR", self.file(node, ""))
            .env("LOCKSTEP_LOG_DIR", self.file(node, "logs"))
            .env("LOCKSTEP_STATE_DIR", self.file(node, "state"))
            .stderr(words)
            .spawn();
        self.daemons[node] = Some(child.expect("lockstepd"));
    }

    fn words(&self, node: usize) -> String {
        fs::read_to_string(self.file(node, "words")).unwrap_or_default()
    }

    fn says(&self, node: usize, what: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.words(node).contains(what) {
            assert!(
                Instant::now() < until,
                "{what} on {}:\n{}\nand\n{}",
                NODES[node],
                self.words(node),
                self.words(1 - node)
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn http(&self, node: usize, head: &str) -> String {
        let socket = self.file(node, "lockstepd/api.sock");
        let mut stream = UnixStream::connect(socket).expect("a connection");
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// What the script was called for.
    fn calls(&self, what: &str) -> usize {
        let words = fs::read_to_string(self.directory.path().join("words"));
        let words = words.unwrap_or_default();
        words.lines().filter(|line| *line == what).count()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for mut child in self.daemons.iter_mut().filter_map(Option::take) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn answer(mut stream: UnixStream, node: usize, active: &Active) {
    let mut request = String::new();
    let mut lines = BufReader::new(stream.try_clone().expect("a stream"));
    while lines.read_line(&mut request).is_ok_and(|bytes| bytes > 0) {
        let line = told(&request, node, &mut active.lock().expect("who serves"));
        if writeln!(stream, "{line}").is_err() {
            return;
        }
        request.clear();
    }
}

fn told(request: &str, node: usize, active: &mut Option<usize>) -> String {
    let done = |done: &str| format!(r#"{{"schema":"lockstep.admin/1","ok":true,"done":"{done}"}}"#);
    if request.contains("\"deactivate\"") {
        assert_ne!(
            *active,
            Some(1 - node),
            "it is asked of the one that serves"
        );
        *active = None;
        return done("fenced");
    }
    if request.contains("\"activate\"") {
        assert_ne!(*active, Some(1 - node), "two would serve");
        *active = Some(node);
        return done("active");
    }
    let serves = *active == Some(node);
    let name = active.map_or("null".to_string(), |node| format!("\"{}\"", NODES[node]));
    STATUS
        .replace("OWN", NODES[node])
        .replace("OTHER", NODES[1 - node])
        .replace("ROLE", if serves { "active" } else { "fenced" })
        .replace("ACTIVE", &name)
}

#[test]
fn a_group_that_does_not_start_on_one_node_runs_on_the_other_one_by_itself() {
    let bed = Bed::new("one", "", &["HOME"]);
    bed.says(0, "LS6163");
    bed.says(1, "LS6163");
    bed.says(1, "online");
    bed.says(0, "LS6088");
    assert_eq!(*bed.active.lock().expect("who serves"), Some(1));
    assert_eq!((bed.calls("start HOME"), bed.calls("start OTHER")), (1, 1));
    let status = bed.http(0, "GET /v1/status");
    assert!(status.contains(r#""failed_on":["node1"]"#), "{status}");
}

#[test]
fn a_group_that_fails_on_both_waits_on_the_second_until_it_is_mended_and_cleared() {
    let bed = Bed::new("both", "", &["HOME", "OTHER"]);
    bed.says(1, "LS6164");
    bed.says(1, "it failed on the other node as well");
    let starts = |bed: &Bed| (bed.calls("start HOME"), bed.calls("start OTHER"));
    assert_eq!(starts(&bed), (1, 1));
    thread::sleep(NOTHING_FOR);
    assert_eq!(starts(&bed), (1, 1), "nothing flaps");
    let why = bed.http(1, "GET /v1/why");
    assert!(why.contains("group clear"), "{why}");
    for server in ["HOME", "OTHER"] {
        fs::remove_file(bed.broken(server)).expect("mended");
    }
    let group = format!("both{}", std::process::id());
    // Said on the node that does not serve: it is cleared on both.
    let cleared = bed.http(0, &format!("POST /v1/groups/{group}/clear"));
    assert!(cleared.contains(" 200 "), "{cleared}");
    bed.says(1, "online");
    assert_eq!(starts(&bed), (1, 2));
    let status = bed.http(1, "GET /v1/status");
    assert!(!status.contains("failed_on"), "{status}");
}

const MONITOR: &str = "monitors = [{ kind = \"script\", name = \"look\", interval_ms = 200, retries = 1, on_error = \"failover\", \
                       command = [\"/bin/sh\", \"-c\", \"test ! -e DIRECTORY/ill-$CLP_SERVER\"] }]\n";

impl Bed {
    fn looks(&self, node: usize, state: &str) {
        let until = Instant::now() + PATIENCE;
        let told = format!(r#""name":"look","kind":"script","state":"{state}""#);
        while !self.http(node, "GET /v1/status").contains(&told) {
            assert!(Instant::now() < until, "{}", self.words(node));
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ill(&self, server: &str) {
        let file = self.directory.path().join(format!("ill-{server}"));
        fs::write(file, "").expect("a file");
    }
}

#[test]
fn a_group_whose_monitor_fails_runs_on_the_other_node_by_itself_and_on_where_it_fails_on_both() {
    let bed = Bed::new("monitor", MONITOR, &[]);
    bed.says(0, "online");
    bed.looks(0, "well");
    bed.ill("HOME");
    for code in ["LS6167", "LS6168", "LS6171", "LS6163"] {
        bed.says(0, code);
    }
    bed.says(1, "online");
    bed.looks(1, "well");
    bed.looks(0, "idle");
    assert_eq!(*bed.active.lock().expect("who serves"), Some(1));
    let why = bed.http(0, "GET /v1/why");
    assert!(why.contains("monitor look failed on node1"), "{why}");
    let status = bed.http(1, "GET /v1/status");
    assert!(status.contains(r#""failed_on":["node1"]"#), "{status}");
    bed.ill("OTHER");
    bed.looks(1, "failed");
    bed.says(1, "LS6174");
    let status = bed.http(1, "GET /v1/status");
    let told = "the group runs on here: it failed on the other node as well";
    assert!(status.contains(told), "{status}");
    let why = bed.http(1, "GET /v1/why");
    assert!(
        why.contains("mend node1, then `lockstep group clear"),
        "{why}"
    );
    thread::sleep(NOTHING_FOR);
    let calls = ["start HOME", "stop HOME", "start OTHER", "stop OTHER"].map(|it| bed.calls(it));
    assert_eq!((calls[0], calls[2], calls[3]), (1, 1, 0), "{calls:?}");
}

#[test]
fn a_group_that_a_monitor_stopped_runs_on_when_the_other_node_is_gone_meanwhile() {
    let mut bed = Bed::new("alone", MONITOR, &[]);
    bed.says(0, "online");
    bed.looks(0, "well");
    let hold = bed.directory.path().join("hold");
    fs::write(&hold, "").expect("a file");
    bed.ill("HOME");
    bed.says(0, "LS6171");
    let mut other = bed.daemons[1].take().expect("it runs");
    other.kill().expect("killed");
    other.wait().expect("it ended");
    fs::remove_file(&hold).expect("removed");
    bed.says(0, "LS6175");
    bed.looks(0, "failed");
    bed.says(0, "LS6174");
    assert_eq!((bed.calls("start HOME"), bed.calls("stop HOME")), (2, 1));
    assert_eq!(*bed.active.lock().expect("who serves"), Some(0));
}

/// The control plane stood still for longer than a look may take, also by its own clock: its scripts were well meanwhile.
#[test]
fn a_look_during_a_standstill_counts_nothing() {
    let own = MONITOR.replace(
        "interval_ms = 200, retries = 1",
        "interval_ms = 200, timeout_ms = 3000, retries = 0",
    );
    let own = own.replace(
        "on_error = \"failover\"",
        "on_error = \"restart\", resource = \"app\"",
    );
    let own = own.replace("test !", "sleep 0.1; test !");
    let mut bed = Bed::new("still", &own, &[]);
    bed.says(0, "online");
    // Alone, so that no lease ends.
    let mut other = bed.daemons[1].take().expect("it runs");
    other.kill().expect("killed");
    other.wait().expect("it ended");
    bed.says(0, ": down");
    bed.looks(0, "well");
    let pid = bed.daemons[0].as_ref().expect("it runs").id();
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("it stands");
    thread::sleep(MONITOR_GRACE + Duration::from_secs(6));
    kill(pid, Signal::SIGCONT).expect("it goes on");
    bed.says(0, "LS6014");
    bed.looks(0, "well");
    let words = bed.words(0);
    assert!(
        !words.contains("LS6167") && !words.contains("LS6168"),
        "{words}"
    );
    assert_eq!(bed.calls("start HOME"), 1);
}

#[test]
fn a_monitor_stops_no_group_that_shall_wait_where_it_is() {
    let own = format!("on_failure = \"wait\"\n{MONITOR}");
    let bed = Bed::new("warned", &own, &[]);
    bed.says(0, "online");
    bed.looks(0, "well");
    bed.ill("HOME");
    bed.says(0, "LS6174");
    bed.looks(0, "failed");
    let why = bed.http(0, "GET /v1/status");
    assert!(why.contains("the group runs on here"), "{why}");
    assert_eq!(bed.calls("start HOME"), 1);
}

#[test]
fn a_group_that_shall_wait_stays() {
    let bed = Bed::new("wait", "on_failure = \"wait\"\n", &["HOME"]);
    bed.says(0, "LS6164");
    thread::sleep(NOTHING_FOR);
    assert_eq!((bed.calls("start HOME"), bed.calls("start OTHER")), (1, 0));
    assert_eq!(*bed.active.lock().expect("who serves"), Some(0));
}
