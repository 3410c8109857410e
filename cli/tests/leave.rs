//! `lockstep node leave` and `lockstep node shutdown`, with a control plane that this test plays: what runs here is moved, one that
//! cannot be keeps nothing else here, and what runs elsewhere is left; a machine goes down when nothing is left on it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

const VOLUME: &str = r#"{"schema":"lockstep.volume-status/1","volume":"NAME","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"ACTIVE","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}"#;
const REFUSED: &str = r#"{"schema":"lockstep.verb/1","ok":false,"problem":{"code":"LS6082","message":"the copy there is not up to date","advice":"wait"}}"#;

const STOPS: &str =
    r#"{"schema":"lockstep.verb/1","ok":true,"number":5,"by":"node1","message":"it is stopped"}"#;

fn group(name: &str, here: bool, stopped: bool) -> String {
    let (role, active) = match (here, stopped) {
        (_, true) => ("fenced", "nobody"),
        (true, false) => ("active", "node1"),
        (false, false) => ("fenced", "node2"),
    };
    let wish = if stopped {
        r#","wish":{"number":5,"by":"node1","want":"stopped","origin":"operator"}"#
    } else {
        ""
    };
    let status = VOLUME
        .replace("NAME", name)
        .replace("ROLE", role)
        .replace("ACTIVE", active)
        .replace("\"nobody\"", "null");
    format!(r#"{{"name":"{name}","volumes":[{{"name":"{name}","status":{status}}}]{wish}}}"#)
}

fn answer(stream: &mut UnixStream, told: &Mutex<Vec<String>>) {
    let mut request = String::new();
    let mut bytes = [0; 4096];
    // The body may come after the head; who asks sends `{}` or more.
    while !request.contains("\r\n\r\n") || request.starts_with("POST") && !request.ends_with('}') {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => request += &String::from_utf8_lossy(&bytes[..length]),
            Ok(0) | Err(_) => return,
        }
    }
    let line = request.lines().next().unwrap_or_default().to_string();
    let (status, body) = if line.starts_with("GET") {
        let told = told.lock().expect("a list").join("\n");
        let stopped = |name: &str| told.contains(&format!("/groups/{name}/stop"));
        let all = [("a", true), ("b", false), ("c", true)];
        let groups = all.map(|(name, here)| group(name, here, stopped(name)));
        let groups = groups.join(",");
        let status = format!(
            r#"{{"schema":"lockstep.cluster/1","node":"node1","peer":{{"name":"node2","presence":"alive","since_ms":1}},"paths":[],"arbiter":{{"kind":"manual"}},"groups":[{groups}]}}"#
        );
        ("200 OK", status)
    } else {
        let stops = line.contains("/stop ") || line.contains("/nodes/node1/");
        told.lock().expect("a list").push(line);
        if stops {
            ("200 OK", STOPS.to_string())
        } else {
            ("409 Conflict", REFUSED.to_string())
        }
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Answers there from now on; the wishes that it is told.
fn plays(directory: &Path) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixListener::bind(directory.join("lockstepd/api.sock")).expect("a socket");
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            answer(&mut stream, &list);
        }
    });
    told
}

/// Nothing else than what is in this directory can be run, so that no machine goes down.
fn lockstep(directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(words)
        .env("LOCKSTEP_RUN_DIR", directory)
        .env("PATH", directory.join("bin"))
        .output()
        .expect("lockstep")
}

fn bed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    fs::create_dir_all(path.join("lockstepd")).expect("a directory");
    fs::create_dir_all(path.join("bin")).expect("a directory");
    directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_group_that_runs_here_is_moved_and_no_other_one() {
    let directory = bed();
    let leave = || lockstep(directory.path(), &["node", "leave", "--timeout", "5"]);
    let nobody = leave();
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    let told = plays(directory.path());
    let output = leave();
    let moves = told.lock().expect("a list").join("\n");
    assert_eq!(
        moves, "POST /v1/groups/a/move HTTP/1.1\nPOST /v1/groups/c/move HTTP/1.1",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(
        words.contains("a: LS6082") && words.contains("c: LS6082"),
        "{words}"
    );
}

#[test]
fn a_machine_goes_down_when_nothing_runs_on_it_any_more_and_not_before() {
    let directory = bed();
    let path = directory.path();
    // With systemd, and without.
    for program in ["systemctl", "shutdown"] {
        let script = format!(
            "#!/bin/sh\necho {program} \"$@\" >>{}/down\n",
            path.display()
        );
        let program = path.join("bin").join(program);
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("a program");
    }
    let down = || fs::read_to_string(path.join("down")).unwrap_or_default();
    let told = plays(path);
    let would = lockstep(path, &["node", "shutdown", "--dry-run"]);
    let words = text(&would.stdout);
    assert_eq!(would.status.code(), Some(0), "{would:?}");
    assert!(
        words.contains("a: runs here; it would move to node2"),
        "{words}"
    );
    let other = lockstep(path, &["node", "reboot", "node2"]);
    assert!(text(&other.stderr).starts_with("LS6221"), "{other:?}");
    assert_eq!(told.lock().expect("a list").len(), 0, "nothing was changed");
    let refused = lockstep(path, &["node", "shutdown"]);
    assert_eq!(refused.status.code(), Some(1));
    let words = text(&refused.stderr);
    assert!(
        words.contains("LS6220") && words.contains("a and c did not leave"),
        "{words}"
    );
    assert_eq!(down(), "");
    let all = std::mem::take(&mut *told.lock().expect("a list"));
    assert!(
        all[0].contains("/nodes/node1/suspend") && all[3].contains("/nodes/node1/resume"),
        "{all:?}"
    );
    let forced = lockstep(path, &["node", "reboot", "node1", "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{forced:?}");
    let stops = told.lock().expect("a list").join("\n");
    assert!(
        stops.contains("/groups/a/stop") && stops.contains("/groups/c/stop"),
        "{stops}"
    );
    let words = down();
    assert!(
        words == "systemctl reboot\n" || words == "shutdown -r now\n",
        "{words}"
    );
    // Both are stopped by now.
    for program in ["systemctl", "shutdown"] {
        fs::write(path.join("bin").join(program), "#!/bin/sh\nexit 4\n").expect("a program");
    }
    let stands = lockstep(path, &["node", "shutdown"]);
    assert_eq!(stands.status.code(), Some(1));
    assert!(text(&stands.stderr).contains("LS6222"), "{stands:?}");
}

/// Beside this control plane; no volume's daemon runs here, which would be asked next.
#[test]
fn a_volumes_verb_that_lockstepd_would_undo_is_refused() {
    let directory = bed();
    let path = directory.path();
    let volumes = path.join("etc/volumes");
    fs::create_dir_all(&volumes).expect("a directory");
    let _told = plays(path);
    let verb = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.arg("volume").args(words);
        command.env("LOCKSTEP_CONFIG_DIR", path.join("etc"));
        let output = command.env("LOCKSTEP_RUN_DIR", path).output();
        text(&output.expect("lockstep").stderr)
    };
    let refused = verb(&["deactivate", "a"]);
    assert!(refused.starts_with("LS6231"), "{refused}");
    assert!(refused.contains("lockstep group stop a"), "{refused}");
    for words in [
        &["deactivate", "a", "--by-hand"][..],
        &["deactivate", "b"],
        &["activate", "a"],
        &["deactivate", "of-no-group"],
    ] {
        let words = verb(words);
        // Nothing but what comes next is in the way: there is no such volume here.
        assert!(words.starts_with("LS4"), "{words}");
    }
}
