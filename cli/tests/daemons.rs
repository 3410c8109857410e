//! `lockstep volume start`, `stop` and `create`, with a volume's daemon that this test program plays: what an operator said
//! is durable before the daemon hears of it, and a refusal leaves nothing behind.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::daemons::stopped::{self, Turn};
use controlplane::daemons::{Places, launch};
use controlplane_api::paths::volume_name_is_legal;

const STATUS: &str = r#"{"schema":"lockstep.admin/1","ok":true,"status":{"schema":"lockstep.volume-status/1","volume":"data","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"fenced","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"node2","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}}"#;
const REFUSED: &str = r#"{"schema":"lockstep.admin/1","ok":false,"problem":{"code":"LS1015","message":"this node serves the volume","advice":"deactivate it"}}"#;
const STOPPED: &str = r#"{"schema":"lockstep.admin/1","ok":true,"done":"stopped"}"#;

static BEDS: AtomicU32 = AtomicU32::new(0);

struct Bed {
    directory: tempfile::TempDir,
    volume: String,
}

impl Bed {
    fn new() -> Self {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let bed = Self {
            directory: tempfile::tempdir().expect("a directory"),
            volume: format!("cli-test-{}-{number}", std::process::id()),
        };
        for name in ["bin", "etc/volumes", "run", "state", "logs"] {
            fs::create_dir_all(bed.file(name)).expect("a directory");
        }
        let real = env!("CARGO_BIN_EXE_lockstep");
        if fs::hard_link(real, bed.file("bin/lockstep")).is_err() {
            fs::copy(real, bed.file("bin/lockstep")).expect("a copy");
        }
        let this = std::env::current_exe().expect("this program");
        let script = format!(
            "#!/bin/sh\nFAKE_BED={} FAKE_VOLUME={} FAKE_WORD=$1 exec {} --ignored --exact plays_the_data_plane --nocapture\n",
            bed.directory.path().display(),
            bed.volume,
            this.display()
        );
        fs::write(bed.file("bin/ublk-mirror"), script).expect("a script");
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(bed.file("bin/ublk-mirror"), mode).expect("a mode");
        bed
    }

    /// With a copy of the volume.
    fn made() -> Self {
        let bed = Self::new();
        fs::write(bed.places().configuration(), "").expect("a file");
        bed
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

    fn volume(&self, verb: &str, more: &[&str]) -> Output {
        Command::new(self.file("bin/lockstep"))
            .args(["volume", verb, &self.volume])
            .args(more)
            .env("LOCKSTEP_CONFIG_DIR", self.file("etc"))
            .env("LOCKSTEP_RUN_DIR", self.file("run"))
            .env("LOCKSTEP_STATE_DIR", self.file("state"))
            .env("LOCKSTEP_LOG_DIR", self.file("logs"))
            .output()
            .expect("lockstep")
    }

    fn does(&self, verb: &str) -> String {
        let output = self.volume(verb, &[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn is_stopped(&self) -> bool {
        stopped::is_stopped(&self.places()).expect("a look")
    }

    fn answers(&self) -> bool {
        UnixStream::connect(self.places().socket()).is_ok()
    }

    fn notes(&self) -> String {
        fs::read_to_string(self.file("notes")).unwrap_or_default()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.file("refuses"));
        if self.answers() {
            self.volume("stop", &[]);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while !launch::forget(&self.volume) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Not a test: `ublk-mirror run`, `ublk-mirror format` and `ublk-mirror adopt-disk`.
#[test]
#[ignore = "played for the other tests"]
fn plays_the_data_plane() {
    let Some(bed) = std::env::var_os("FAKE_BED").map(PathBuf::from) else {
        return;
    };
    let volume = std::env::var("FAKE_VOLUME").expect("a name");
    let note = |words: String| {
        let mut file = File::options();
        let file = file.create(true).append(true).open(bed.join("notes"));
        writeln!(file.expect("a file"), "{words}").expect("a line");
    };
    let mark = bed.join(format!("state/volumes/{volume}.stopped"));
    let word = std::env::var("FAKE_WORD").unwrap_or_default();
    if word == "format" || word == "adopt-disk" {
        let turn = File::open(bed.join(format!("run/{volume}.turn"))).expect("a turn");
        note(format!("{word}, turn taken: {}", turn.try_lock().is_err()));
        if bed.join("refuses").exists() {
            eprintln!("ublk-mirror: LS3013: too small\n  what to do: take a larger one");
            std::process::exit(1);
        }
        return;
    }
    note(format!("run, mark: {}", mark.exists()));
    let lock = File::create(bed.join(format!("run/{volume}.lock"))).expect("a lock");
    lock.try_lock().expect("only one");
    let socket = bed.join(format!("run/{volume}.sock"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    for mut stream in listener.incoming().filter_map(Result::ok) {
        let mut request = String::new();
        let _ = BufReader::new(&stream).read_line(&mut request);
        if !request.contains("\"stop\"") {
            let _ = writeln!(stream, "{STATUS}");
            continue;
        }
        note(format!("stop, mark: {}", mark.exists()));
        if bed.join("refuses").exists() {
            let _ = writeln!(stream, "{REFUSED}");
            continue;
        }
        fs::remove_file(&socket).expect("a socket");
        let _ = writeln!(stream, "{STOPPED}");
        // The end takes a moment, and the lock is held until it is over.
        thread::sleep(Duration::from_millis(300));
        std::process::exit(0);
    }
}

#[test]
fn a_stop_is_durable_before_the_daemon_hears_of_it_until_a_start() {
    let bed = Bed::made();
    bed.does("start");
    assert!(bed.answers() && !bed.is_stopped());
    assert!(bed.does("start").contains("runs already"));
    assert!(bed.does("stop").contains("ended on this node"));
    assert!(bed.is_stopped());
    let lock = File::open(bed.places().lock()).expect("a lock");
    lock.try_lock()
        .expect("it is gone when the command is done");
    drop(lock);
    let words = bed.does("stop");
    assert!(words.contains("stays so until"), "{words}");
    assert!(bed.is_stopped());
    bed.does("start");
    assert!(bed.answers() && !bed.is_stopped());
    assert_eq!(
        bed.notes(),
        "run, mark: false\nstop, mark: true\nrun, mark: false\n"
    );
}

/// A file system that is read-only or full refuses it too.
#[test]
fn a_daemon_whose_log_cannot_be_opened_is_started_without_one() {
    let bed = Bed::made();
    fs::remove_dir(bed.file("logs")).expect("empty");
    fs::write(bed.file("logs"), "").expect("no directory");
    let output = bed.volume("start", &[]);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("LS6123: the daemon has no log"), "{told}");
    assert!(bed.answers());
}

/// What the log says of an earlier run is no reason of today's.
#[test]
fn why_a_start_failed_is_told_also_without_a_log_and_nothing_older() {
    const OLD: &str = "ublk-mirror: LS3036: last week's\n";
    let bed = Bed::made();
    let script = format!("#!/bin/sh\ncat {} >&2\nexit 1\n", bed.file("why").display());
    fs::write(bed.file("bin/ublk-mirror"), script).expect("a script");
    let refused = |why: &str| {
        fs::write(bed.file("why"), why).expect("a file");
        let output = bed.volume("start", &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("LS4008"), "{told}");
        told
    };
    let by_hand = format!(
        "ublk-mirror run --config {}",
        bed.places().configuration().display()
    );
    let why = "ublk-mirror: LS3037: today's\n  what to do: this\n";
    let log = bed.places().log();
    fs::write(&log, OLD).expect("a log");
    let told = refused(why);
    assert!(
        told.contains("LS3037") && !told.contains("LS3036"),
        "{told}"
    );
    assert!(
        told.contains(&format!("(from {})", log.display())),
        "{told}"
    );
    let told = refused("");
    assert!(
        told.contains(&by_hand) && !told.contains("LS3037"),
        "{told}"
    );

    // Nobody may write there, not even root, and what it says stays.
    fs::remove_file(&log).expect("removed");
    let fixed = "/proc/sys/kernel/osrelease";
    std::os::unix::fs::symlink(fixed, &log).expect("a link");
    let old = fs::read_to_string(fixed).expect("a release");
    let told = refused(why);
    assert!(told.contains("LS6123: the daemon has no log"), "{told}");
    assert!(told.contains("today's") && told.contains("this"), "{told}");
    assert!(told.contains("(it has no log)"), "{told}");
    let told = refused("");
    assert!(told.contains(&by_hand), "{told}");
    assert!(!told.contains(old.trim()), "{told}");
}

#[test]
fn a_refused_stop_leaves_what_was_there() {
    let bed = Bed::made();
    bed.does("start");
    fs::write(bed.file("refuses"), "").expect("a file");
    for earlier in [false, true] {
        if earlier {
            stopped::set(&bed.places()).expect("a mark");
        }
        let output = bed.volume("stop", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("LS1015"));
        assert_eq!(bed.is_stopped(), earlier);
    }
    // Who says `start` wishes that it runs, also if it does.
    assert!(bed.does("start").contains("runs already"));
    assert!(!bed.is_stopped());
}

#[test]
fn what_is_not_durable_is_not_said_to_the_daemon() {
    let bed = Bed::made();
    bed.does("start");
    fs::remove_dir_all(bed.file("state")).expect("removed");
    fs::write(bed.file("state"), "in the way").expect("a file");
    let output = bed.volume("stop", &[]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("LS6125"), "{words}");
    assert!(bed.answers() && !bed.notes().contains("stop"));
    fs::remove_file(bed.file("state")).expect("removed");
}

#[test]
fn a_stop_waits_for_a_start_that_is_under_way() {
    let bed = Bed::made();
    let turn = Turn::take(&bed.places(), Duration::ZERO).expect("a turn");
    let stopping = thread::scope(|scope| {
        let stopping = scope.spawn(|| bed.does("stop"));
        thread::sleep(Duration::from_millis(500));
        assert!(!bed.is_stopped() && !stopping.is_finished());
        // The start.
        launch_by_hand(&bed);
        drop(turn);
        stopping.join().expect("its words")
    });
    assert!(stopping.contains("ended on this node"), "{stopping}");
    assert!(bed.is_stopped() && !bed.answers());
}

fn launch_by_hand(bed: &Bed) {
    let mut command = Command::new(bed.file("bin/ublk-mirror"));
    let mut child = command.arg("run").spawn().expect("a daemon");
    let until = Instant::now() + Duration::from_secs(30);
    while !bed.answers() {
        assert!(Instant::now() < until, "it does not answer");
        thread::sleep(Duration::from_millis(20));
    }
    thread::spawn(move || child.wait());
}

#[test]
fn a_new_copy_is_made_in_its_turn_and_forgets_that_an_earlier_one_was_stopped() {
    let bed = Bed::new();
    stopped::set(&bed.places()).expect("a mark");
    let words = [
        "--backing",
        "/dev/null",
        "--node",
        "node1=127.0.0.1:7420",
        "--peer",
        "node2=127.0.0.2:7420",
    ];
    let output = bed.volume("create", &words);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bed.notes(), "format, turn taken: true\n");
    assert!(!bed.is_stopped());
    // A copy that is there keeps what was said of it.
    stopped::set(&bed.places()).expect("a mark");
    let output = bed.volume("create", &words);
    assert!(!output.status.success() && bed.is_stopped(), "{output:?}");
    bed.does("stop");
    let nobody = Bed::new().volume("stop", &[]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("LS4005"));
}

#[test]
fn a_disk_is_adopted_in_its_turn_for_a_name_that_is_repeated_while_no_daemon_runs() {
    let bed = Bed::made();
    let name = bed.volume.as_str();
    let refused = |confirm: &[&str], code: &str| {
        let output = bed.volume("adopt-disk", confirm);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains(code),
            "{output:?}"
        );
        said
    };
    let said = refused(&[], "LS4015");
    assert!(said.contains(&format!("--confirm {name}")), "{said}");
    refused(&["--confirm", "another"], "LS4015");
    assert_eq!(bed.notes(), "");
    let adopted = bed.volume("adopt-disk", &["--confirm", name]);
    assert!(adopted.status.success(), "{adopted:?}");
    assert_eq!(bed.notes(), "adopt-disk, turn taken: true\n");
    fs::write(bed.file("refuses"), "").expect("a file");
    let said = refused(&["--confirm", name], "LS3013");
    assert!(said.contains("take a larger one"), "{said}");
    fs::remove_file(bed.file("refuses")).expect("a file");
    bed.does("start");
    let notes = bed.notes();
    refused(&["--confirm", name], "LS3021");
    assert_eq!(bed.notes(), notes);
}

#[test]
fn without_addresses_those_of_the_cluster_are_taken_unless_another_volume_has_them() {
    let bed = Bed::new();
    let create = || bed.volume("create", &["--backing", "/dev/null"]);
    let refused = |code: &str| {
        let output = create();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && words.contains(code),
            "{words}"
        );
        assert!(!bed.places().configuration().exists() && bed.notes().is_empty());
    };
    refused("LS1082");
    let host = nix::unistd::gethostname().expect("a name");
    if !volume_name_is_legal(&host.to_string_lossy()) {
        writeln!(std::io::stderr(), "SKIPPED: this machine cannot be a node").expect("a line");
        return;
    }
    let cluster = format!(
        "version = 1\narbiter = \"manual\"\n[nodes.{}]\ninterconnects = [\"10.0.0.1:7421\"]\n\
         [nodes.the-other-one]\ninterconnects = [\"10.0.0.2:7421\"]\n[groups.pg]\nvolumes = [\"data\"]\n",
        host.to_string_lossy()
    );
    fs::write(bed.file("etc/cluster.toml"), cluster).expect("a file");
    let other = bed.file("etc/volumes/other.toml");
    fs::write(&other, "[node]\naddress = \"10.0.0.1:7420\"\n").expect("a file");
    refused("LS1083");
    fs::remove_file(other).expect("removed");
    let output = create();
    assert!(output.status.success(), "{output:?}");
    let made = fs::read_to_string(bed.places().configuration()).expect("a configuration");
    assert!(made.contains("address = \"10.0.0.1:7420\""), "{made}");
    assert!(made.contains("name = \"the-other-one\""), "{made}");
}
