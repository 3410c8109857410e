//! `lockstepd` and the daemons of its volumes: what is missing is started, what dies is started again, what an operator stopped
//! stays so, and nothing runs twice. The data plane is played by this test program, under the name `ublk-mirror`.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::daemons::stopped::{self, Turn};
use controlplane::daemons::{Places, launch};
use controlplane_api::cluster::{ClusterStatus, Daemon, DaemonState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"fenced","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"node2","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;
/// A volume of its own, because cgroups are the machine's.
const VOLUME: &str = "daemons-test";

struct Bed {
    directory: tempfile::TempDir,
    volume: String,
    daemon: Option<Child>,
}

impl Bed {
    /// A node whose volume was made, with programs of its own.
    fn new() -> Self {
        static BEDS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = BEDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = tempfile::tempdir().expect("a directory");
        let bed = Self {
            volume: format!("{VOLUME}-{}-{number}", std::process::id()),
            directory,
            daemon: None,
        };
        for name in ["bin", "etc/volumes", "run", "state", "logs"] {
            fs::create_dir_all(bed.file(name)).expect("a directory");
        }
        let real = env!("CARGO_BIN_EXE_lockstepd");
        let copy = bed.file("bin/lockstepd");
        if fs::hard_link(real, &copy).is_err() {
            fs::copy(real, &copy).expect("a copy");
        }
        let this = std::env::current_exe().expect("this program");
        let script = format!(
            "#!/bin/sh\nFAKE_BED={} FAKE_VOLUME={} exec {} --ignored --exact plays_the_data_plane --nocapture\n",
            bed.directory.path().display(),
            bed.volume,
            this.display()
        );
        fs::write(bed.file("bin/ublk-mirror"), script).expect("a script");
        fs::set_permissions(bed.file("bin/ublk-mirror"), Permissions::from_mode(0o755))
            .expect("a mode");
        let mut key = File::options();
        let key = key.write(true).create_new(true).mode(0o600);
        let mut key = key.open(bed.file("key")).expect("a key");
        key.write_all(&[7; 32]).expect("a key");
        let port = || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            socket.local_addr().expect("an address").to_string()
        };
        let config = format!(
            "version = 1\narbiter = \"manual\"\n[nodes.node1]\ninterconnects = [\"{}\"]\n\
             [nodes.node2]\ninterconnects = [\"{}\"]\n[groups.pg]\nvolumes = [\"{}\"]\n",
            port(),
            port(),
            bed.volume
        );
        fs::write(bed.file("etc/cluster.toml"), config).expect("a configuration");
        bed.make("first");
        bed
    }

    /// The volume's copy, as `lockstep volume create` leaves it.
    fn make(&self, text: &str) {
        let new = self.file("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.places().configuration()).expect("a configuration");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn places(&self) -> Places {
        Places {
            volume: self.volume.clone(),
            config: self.file("etc"),
            run: self.file("run"),
            state: self.file("state"),
            logs: self.file("logs"),
        }
    }

    /// What the played data plane does when it is started.
    fn plays(&self, how: &str) {
        fs::write(self.file("how.new"), how).expect("a file");
        fs::rename(self.file("how.new"), self.file("how")).expect("a file");
    }

    fn lockstepd(&self) -> Command {
        let mut command = Command::new(self.file("bin/lockstepd"));
        let mut log = File::options();
        let log = log.create(true).append(true).open(self.file("words"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.file("etc/cluster.toml"))
            .args(["--node", "node1", "--key"])
            .arg(self.file("key"))
            .env("LOCKSTEP_RUN_DIR", self.file("run"))
            .env("LOCKSTEP_LOG_DIR", self.file("logs"))
            .env("LOCKSTEP_STATE_DIR", self.file("state"))
            .stdin(Stdio::null())
            .stderr(log.expect("a file"));
        command
    }

    fn start(&mut self) {
        self.daemon = Some(self.lockstepd().spawn().expect("lockstepd"));
    }

    fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("lockstepd").id()
    }

    fn kill(&mut self) {
        let mut child = self.daemon.take().expect("lockstepd");
        child.kill().expect("killed");
        child.wait().expect("its end");
    }

    /// Every start of the data plane, by its process.
    fn starts(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.file("starts")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn words(&self) -> String {
        fs::read_to_string(self.file("words")).unwrap_or_default()
    }

    fn status(&self) -> Option<ClusterStatus> {
        let mut stream = UnixStream::connect(self.file("run/lockstepd/api.sock")).ok()?;
        let request = "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    fn daemon(&self) -> Option<Daemon> {
        let volume = self.status()?.groups.pop()?.volumes.pop()?;
        volume.daemon
    }

    fn comes_to(&self, state: DaemonState) -> Daemon {
        eventually(&format!("{state:?}: {}", self.words()), || {
            self.daemon().filter(|daemon| daemon.state == state)
        })
    }

    /// Waits until the data plane was started so often; its process.
    fn started(&self, count: usize) -> i32 {
        eventually(&format!("start {count}: {}", self.words()), || {
            let starts = self.starts();
            starts.get(count - 1).copied()
        })
    }

    fn never_twice(&self) {
        let doubles = fs::read_to_string(self.file("doubles")).unwrap_or_default();
        assert_eq!(doubles, "", "two of them at once");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.starts() {
            // The number may be somebody else's by now.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains("plays_the_data_plane") {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        eventually("the cgroup is empty", || {
            let gone = self.starts().iter().all(|pid| !lives(*pid));
            gone.then_some(())
        });
        eventually("the cgroup is gone", || {
            launch::forget(&self.volume).then_some(())
        });
    }
}

/// As `lockstepd` sees it: cgroup v2 is mounted, and may be written to.
fn cgroups_can_be_had() -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let root = lines.find_map(|mut words| {
        let place = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    root.is_some_and(|root| {
        let mut options = File::options();
        options.write(true).open(root.join("cgroup.procs")).is_ok()
    })
}

fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn end(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("a signal");
}

/// Not a test: a volume's daemon, started by the script `ublk-mirror`. It locks, listens and tells its status as the real one.
#[test]
#[ignore = "played for the other tests"]
fn plays_the_data_plane() {
    let Some(bed) = std::env::var_os("FAKE_BED").map(PathBuf::from) else {
        return;
    };
    let volume = std::env::var("FAKE_VOLUME").expect("a name");
    let note = |file: &str, words: String| {
        let mut options = File::options();
        let mut file = options
            .create(true)
            .append(true)
            .open(bed.join(file))
            .expect("a file");
        writeln!(file, "{words}").expect("a line");
    };
    let how = fs::read_to_string(bed.join("how")).unwrap_or_default();
    note("starts", std::process::id().to_string());
    if let Some(words) = how.strip_prefix("refuses ") {
        eprintln!("ublk-mirror: {words}\n  what to do: mend it");
        std::process::exit(1);
    }
    let lock = File::create(bed.join(format!("run/{volume}.lock"))).expect("a lock");
    if lock.try_lock().is_err() {
        note("doubles", std::process::id().to_string());
        std::process::exit(1);
    }
    if how == "hangs" {
        while fs::read_to_string(bed.join("how")).unwrap_or_default() == "hangs" {
            thread::sleep(Duration::from_millis(20));
        }
    }
    let socket = bed.join(format!("run/{volume}.sock"));
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    for mut stream in listener.incoming().filter_map(Result::ok) {
        let mut request = String::new();
        let read = BufReader::new(&stream).read_line(&mut request);
        if read.is_ok() {
            let _ = writeln!(stream, "{STATUS}");
        }
        if how == "crashes" && request.contains("status") {
            eprintln!("thread 'main' panicked");
            std::process::exit(101);
        }
    }
}

#[test]
fn what_is_missing_is_started_detached_and_not_twice() {
    let mut bed = Bed::new();
    bed.start();
    let pid = bed.started(1);
    assert_eq!(bed.comes_to(DaemonState::Runs).code, None);
    let sid = getsid(Some(Pid::from_raw(pid))).expect("a session");
    assert_eq!(sid.as_raw(), pid, "a session of its own");
    if cgroups_can_be_had() {
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
        let path = format!("/lockstep-volumes/{}\n", bed.volume);
        assert!(own.contains(&path), "{own}");
    } else {
        writeln!(std::io::stderr(), "SKIPPED: no cgroups to be had").expect("a line");
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(bed.starts(), [pid]);
    bed.never_twice();
}

#[test]
fn it_outlives_lockstepd_and_is_adopted_by_the_next_one() {
    let mut bed = Bed::new();
    bed.start();
    let pid = bed.started(1);
    bed.comes_to(DaemonState::Runs);
    bed.kill();
    assert!(lives(pid));
    bed.start();
    bed.comes_to(DaemonState::Runs);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(bed.starts(), [pid], "adopted, not started");
    // Also one that is not its child is started again.
    end(pid, Signal::SIGKILL);
    let second = bed.started(2);
    let daemon = bed.comes_to(DaemonState::Runs);
    assert_eq!(
        (daemon.code.as_deref(), daemon.restarts),
        (Some("LS6121"), 1)
    );
    assert!(daemon.text.contains("it is gone"), "{daemon:?}");
    assert!(lives(second));
    bed.never_twice();
}

#[test]
fn one_that_is_killed_is_started_again_at_once_and_later_after_growing_pauses() {
    let mut bed = Bed::new();
    bed.start();
    let mut pid = bed.started(1);
    bed.comes_to(DaemonState::Runs);
    let mut pauses = Vec::new();
    for count in 2..=5 {
        eventually("it was seen to answer", || {
            let daemon = bed.daemon()?;
            let times = usize::try_from(daemon.restarts).ok()?;
            (daemon.state == DaemonState::Runs && times == count - 2).then_some(())
        });
        let killed = Instant::now();
        end(pid, Signal::SIGKILL);
        pid = bed.started(count);
        pauses.push(killed.elapsed());
    }
    let seconds = |pause: &Duration| pause.as_secs_f64();
    let pauses: Vec<f64> = pauses.iter().map(seconds).collect();
    assert!(pauses[0] < 0.9, "the first one at once: {pauses:?}");
    for (pause, least) in pauses.iter().zip([0.0, 0.9, 1.9, 3.9]) {
        assert!(*pause >= least && *pause < least + 3.0, "{pauses:?}");
    }
    bed.never_twice();
    let words = bed.words();
    assert!(words.contains("signal: 9 (SIGKILL)"), "{words}");
}

#[test]
fn one_that_crashes_is_told_with_its_last_words() {
    let mut bed = Bed::new();
    bed.plays("crashes");
    bed.start();
    let daemon = bed.comes_to(DaemonState::Pauses);
    assert_eq!(daemon.code.as_deref(), Some("LS6121"));
    let expected = "exit status: 101; its last words: thread 'main' panicked";
    assert!(daemon.text.contains(expected), "{daemon:?}");
    bed.plays("serves");
    bed.comes_to(DaemonState::Runs);
}

#[test]
fn what_an_operator_stopped_stays_so_also_for_the_next_lockstepd() {
    let mut bed = Bed::new();
    bed.start();
    let pid = bed.started(1);
    bed.comes_to(DaemonState::Runs);
    // As `lockstep volume stop` does it.
    let turn = Turn::take(&bed.places(), Duration::from_secs(10)).expect("a turn");
    stopped::set(&bed.places()).expect("a mark");
    end(pid, Signal::SIGTERM);
    drop(turn);
    let daemon = bed.comes_to(DaemonState::Stopped);
    assert_eq!(
        (daemon.code.as_deref(), daemon.restarts),
        (Some("LS6124"), 0)
    );
    bed.kill();
    bed.start();
    bed.comes_to(DaemonState::Stopped);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(bed.starts(), [pid]);
    stopped::clear(&bed.places()).expect("cleared");
    bed.started(2);
    bed.comes_to(DaemonState::Runs);
    bed.never_twice();
}

#[test]
fn one_that_runs_although_it_was_stopped_is_left_and_told() {
    let mut bed = Bed::new();
    bed.start();
    let pid = bed.started(1);
    bed.comes_to(DaemonState::Runs);
    stopped::set(&bed.places()).expect("a mark");
    eventually("it is told", || {
        let code = bed.daemon()?.code?;
        (code == "LS6124").then_some(())
    });
    assert!(lives(pid));
    end(pid, Signal::SIGKILL);
    bed.comes_to(DaemonState::Stopped);
    assert_eq!(bed.starts(), [pid]);
}

#[test]
fn one_that_refuses_is_tried_rarely_and_at_once_with_another_configuration() {
    let mut bed = Bed::new();
    bed.plays("refuses LS3012: the metadata belong to another cluster key");
    bed.start();
    let daemon = bed.comes_to(DaemonState::Refuses);
    assert_eq!(daemon.code.as_deref(), Some("LS6122"));
    assert!(
        daemon.text.contains("LS3012: the metadata belong"),
        "{daemon:?}"
    );
    thread::sleep(Duration::from_secs(3));
    assert_eq!(bed.starts().len(), 1);
    bed.plays("serves");
    bed.make("second");
    bed.started(2);
    assert_eq!(bed.comes_to(DaemonState::Runs).code, None);
}

/// Also where its log cannot be opened: what was last in it is no reason of today's.
#[test]
fn why_one_refuses_is_known_without_a_log() {
    let mut bed = Bed::new();
    let log = bed.places().log();
    // Nobody may write there, not even root.
    std::os::unix::fs::symlink("/proc/sys/kernel/osrelease", log).expect("a link");
    bed.plays("refuses LS3012: the metadata belong to another cluster key");
    bed.start();
    let daemon = bed.comes_to(DaemonState::Refuses);
    let why = "LS3012: the metadata belong";
    assert!(daemon.text.contains(why), "{daemon:?}");
    bed.plays("serves");
    bed.make("second");
    let pid = bed.started(2);
    bed.comes_to(DaemonState::Runs);
    // Nobody reads what it says by now: it neither waits nor ends.
    eventually("the pipe is closed", || {
        let files = fs::read_dir(format!("/proc/{}/fd", bed.pid())).ok()?;
        let pipes = fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
        let mut links = files.map(|file| fs::read_link(file.ok()?.path()).ok());
        (!links.any(|link| link.as_ref() == Some(&pipes))).then_some(())
    });
    assert!(lives(pid));
    bed.never_twice();
}

#[test]
fn a_passing_reason_is_tried_again_soon() {
    let mut bed = Bed::new();
    bed.plays("refuses LS3036: cannot claim a device");
    bed.start();
    bed.comes_to(DaemonState::Pauses);
    bed.started(3);
    bed.plays("serves");
    bed.comes_to(DaemonState::Runs);
}

#[test]
fn a_volume_that_is_made_later_is_started_when_its_maker_is_done() {
    let mut bed = Bed::new();
    fs::remove_file(bed.places().configuration()).expect("removed");
    bed.start();
    assert_eq!(
        bed.comes_to(DaemonState::NotMade).code.as_deref(),
        Some("LS6127")
    );
    let turn = Turn::take(&bed.places(), Duration::from_secs(10)).expect("a turn");
    bed.make("draft");
    bed.comes_to(DaemonState::Starts);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(bed.starts(), [0; 0], "it may have no metadata yet");
    drop(turn);
    bed.started(1);
    bed.comes_to(DaemonState::Runs);
}

/// Somebody's that has no socket yet, or none any more.
#[test]
fn beside_a_process_that_does_not_answer_no_other_one_is_started() {
    let mut bed = Bed::new();
    let lock = File::create(bed.places().lock()).expect("a lock");
    lock.try_lock().expect("locked");
    bed.start();
    let daemon = bed.comes_to(DaemonState::Starts);
    assert_eq!(daemon.code.as_deref(), Some("LS6128"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(bed.starts(), [0; 0]);
    drop(lock);
    bed.started(1);
    bed.comes_to(DaemonState::Runs);
    bed.never_twice();
}

fn stood_still_millis(line: &str) -> u64 {
    let (_, millis) = line.split_once("millis").expect("how long");
    let digits = millis.trim_start_matches(|other: char| !other.is_ascii_digit());
    let end = digits.find(|other: char| !other.is_ascii_digit());
    let digits = &digits[..end.unwrap_or(digits.len())];
    digits.parse().expect("milliseconds")
}

/// What a daemon that hangs at its start holds up is its own thread, and no other one is started beside it.
#[test]
fn one_that_hangs_at_its_start_delays_neither_heartbeats_nor_answers() {
    let mut bed = Bed::new();
    bed.plays("hangs");
    let socket = bed.file("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    let mut command = bed.lockstepd();
    command.env("NOTIFY_SOCKET", &socket);
    bed.daemon = Some(command.spawn().expect("lockstepd"));
    let mut word = [0; 16];
    let length = manager.recv(&mut word).expect("a word");
    assert_eq!(&word[..length], b"READY=1");
    let pid = bed.started(1);
    for _ in 0..20 {
        let asked = Instant::now();
        eventually("an answer", || bed.status());
        assert!(asked.elapsed() < Duration::from_secs(1));
        thread::sleep(Duration::from_millis(100));
    }
    bed.kill();
    bed.start();
    bed.comes_to(DaemonState::Starts);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(bed.starts(), [pid]);
    bed.plays("serves");
    bed.comes_to(DaemonState::Runs);
    assert_eq!(bed.starts(), [pid]);
    // What is asked of a processor that others keep busy is late as well; what hangs does so for seconds.
    let words = bed.words();
    let stood = words.lines().filter(|line| line.contains("LS6014"));
    let longest = stood.map(stood_still_millis).max().unwrap_or(0);
    assert!(longest < 1500, "{words}");
    bed.never_twice();
}
