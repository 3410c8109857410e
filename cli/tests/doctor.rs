//! `lockstep doctor`, as it is typed.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A volume's file.
const DATA: &str = "version = 1\nvolume = \"data\"\nbacking = \"/no/such/disk\"\nmetadata = \"internal\"\nkey_file = \"/no/key\"\n\
                    [node]\nname = \"node1\"\naddress = \"127.0.0.1:7420\"\n[peer]\nname = \"node2\"\naddress = \"127.0.0.2:7420\"\n";

struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(bed.path().join("etc/volumes")).unwrap();
        bed
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join("etc").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        for (variable, name) in [
            ("LOCKSTEP_CONFIG_DIR", "etc"),
            ("LOCKSTEP_RUN_DIR", "run"),
            ("LOCKSTEP_STATE_DIR", "state"),
            ("LOCKSTEP_LOG_DIR", "log"),
        ] {
            command.env(variable, self.path().join(name));
        }
        command.args(words);
        command
    }

    fn lockstep(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// The document, which says the exit code as well.
    fn doctor(&self, words: &[&str]) -> Value {
        let output = self.lockstep(&[&["doctor", "--json"], words].concat());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["schema"], "lockstep.doctor/1");
        assert_eq!(
            document["exit_code"].as_i64(),
            output.status.code().map(i64::from)
        );
        document
    }
}

/// The checks of a name.
fn checks<'a>(document: &'a Value, name: &str) -> Vec<&'a Value> {
    let all = document["checks"].as_array().unwrap().iter();
    all.filter(|check| check["check"] == name).collect()
}

fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn without_a_configuration_it_looks_at_the_machine_and_leaves_nothing_behind() {
    let bed = Bed::new();
    let before = everything_below(bed.path());
    let document = bed.doctor(&[]);
    assert_eq!(everything_below(bed.path()), before);
    for (name, gap) in [
        ("configuration", false),
        ("lockstepd", false),
        ("address", false),
        ("device", false),
    ] {
        let found = checks(&document, name);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(
            (&found[0]["verdict"], &found[0]["gap"]),
            (&"not-checked".into(), &gap.into())
        );
        assert!(!found[0]["why"].as_str().unwrap().is_empty(), "{name}");
    }
    let kernel = checks(&document, "kernel")[0];
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(
        kernel["what"].as_str().unwrap().contains(release.trim()),
        "{kernel}"
    );
    let screen = String::from_utf8(bed.lockstep(&["doctor"]).stdout).unwrap();
    assert!(
        screen.contains("\nsystem\n") && screen.contains("\ndisks\n"),
        "{screen}"
    );
}

#[test]
fn a_node_s_networks_ports_keys_and_devices_are_looked_at() {
    let bed = Bed::new();
    // What the heartbeats need is taken by this very process.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = socket.local_addr().unwrap();
    let port = own.port();
    bed.file(
        "cluster.toml",
        &format!(
            "version = 1\narbiter = \"manual\"\n[nodes.node1]\ninterconnects = [\"{own}\", \"192.0.2.7:{port}\"]\n\
             [nodes.node2]\ninterconnects = [\"127.0.0.2:{port}\", \"192.0.2.8:{port}\"]\n\
             [groups.pg]\nvolumes = [\"data\"]\n"
        ),
        0o644,
    );
    let key = bed.file("cluster.key", &"ab".repeat(32), 0o644);
    let missing = bed.path().join("no-such-disk");
    bed.file(
        "volumes/data.toml",
        &format!(
            "version = 1\nvolume = \"data\"\nbacking = {missing:?}\nmetadata = \"internal\"\nkey_file = {key:?}\n\
             [node]\nname = \"node1\"\naddress = \"127.0.0.1:7420\"\n[peer]\nname = \"node2\"\naddress = \"127.0.0.2:7420\"\n\
             [tuning]\ndisk_timeout_ms = 45000\n"
        ),
        0o644,
    );
    let document = bed.doctor(&["--node", "node1"]);
    assert_eq!(document["exit_code"], 2);
    assert_eq!(checks(&document, "configuration")[0]["verdict"], "ok");
    let addresses = checks(&document, "address");
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    assert_eq!(addresses[0]["verdict"], "ok");
    assert_eq!(addresses[1]["code"], "LS6147");
    assert_eq!(addresses[2]["verdict"], "ok", "the mirror link's");
    let ports = checks(&document, "port");
    let taken = ports
        .iter()
        .find(|check| check["place"] == format!("heartbeats, UDP {own}"));
    let taken = taken.unwrap();
    assert_eq!(taken["code"], "LS6150", "{taken}");
    let pid = format!("(process {})", std::process::id());
    assert!(taken["what"].as_str().unwrap().contains(&pid), "{taken}");
    let keys = checks(&document, "key");
    assert_eq!(
        keys.iter()
            .filter(|check| check["code"] == "LS6156")
            .count(),
        1,
        "{keys:?}"
    );
    assert_eq!(checks(&document, "device")[0]["code"], "LS6151");
    // There is a key, so the node is set up, and `lockstepd` has to run.
    assert_eq!(checks(&document, "lockstepd")[0]["code"], "LS6159");
}

#[test]
fn a_file_that_cannot_be_used_keeps_its_own_code() {
    let bed = Bed::new();
    let file = bed.file("draft.toml", "version = 1\nnodse = 3\n", 0o644);
    let document = bed.doctor(&["--config", &file.display().to_string()]);
    let found = checks(&document, "configuration")[0];
    assert_eq!(
        (&found["verdict"], &document["exit_code"]),
        (&"error".into(), &2.into())
    );
    assert!(
        found["code"].as_str().unwrap().starts_with("LS603"),
        "{found}"
    );
    let output = bed.lockstep(&["explain", found["code"].as_str().unwrap()]);
    assert!(output.status.success());
}

/// Nobody answers: a daemon that listens and takes nobody in, and pipes where files should be.
#[test]
fn nothing_that_does_not_answer_is_waited_for() {
    let bed = Bed::new();
    fs::create_dir(bed.path().join("run")).unwrap();
    bed.file("volumes/data.toml", "", 0o644);
    let all = nix::sys::stat::Mode::S_IRWXU;
    let pipe = bed.path().join("etc/volumes/pipe.toml");
    nix::unistd::mkfifo(&pipe, all).unwrap();
    let config = bed.path().join("config");
    nix::unistd::mkfifo(&config, all).unwrap();
    let socket = bed.path().join("run/data.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    // A connection of each thread, until one is left waiting.
    let (sender, connected) = mpsc::channel();
    let fill = move || {
        while let Ok(stream) = UnixStream::connect(&socket) {
            if sender.send(stream).is_err() {
                return;
            }
        }
    };
    thread::spawn(fill);
    let mut kept = Vec::new();
    while let Ok(stream) = connected.recv_timeout(Duration::from_secs(1)) {
        kept.push(stream);
    }
    assert!(!kept.is_empty());
    let mut command = bed.command(&["doctor", "--json", "--config"]);
    let mut child = command.arg(&config).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, said) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.read_to_string(&mut text);
        sender.send(read.map(|_| text))
    });
    let Ok(text) = said.recv_timeout(Duration::from_secs(60)) else {
        child.kill().unwrap();
        panic!("it waits")
    };
    child.wait().unwrap();
    let document: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let found = checks(&document, "configuration")[0];
    assert_eq!(found["why"], "it is no regular file");
    let volumes = checks(&document, "volume");
    assert_eq!(volumes[1]["place"], "pipe");
    assert_eq!(volumes[1]["code"], "LS5002");
    bed.file("volumes/data.toml", DATA, 0o644);
    fs::remove_file(&pipe).unwrap();
    let document = bed.doctor(&[]);
    let found = checks(&document, "volume")[0];
    assert_eq!(found["code"], "LS6123", "{found}");
    drop(kept);
}

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let bed = Bed::new();
    let man = bed.path().join("man");
    let man = man.display().to_string();
    for (words, code) in [
        (&["doctor"][..], 3),
        (&["completions", "bash"], 1),
        (&["man", &man], 1),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bed.command(words).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("LS4010 "), "{said}");
        // A reader that went away has seen enough.
        let mut child = bed
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{words:?}");
    }
}
