//! `lockstep node leave`, with a control plane that this test plays: what runs here is moved, one that cannot be keeps nothing
//! else here, and what runs elsewhere is left.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

const VOLUME: &str = r#"{"schema":"lockstep.volume-status/1","volume":"NAME","volume_id":"00000000000000000000000000000007","node":"node1","peer":"node2","role":"ROLE","frozen":null,"copy":"in-sync","peer_copy":"in-sync","link":{"state":"up","last_heard_ms":3,"refusal":null},"view":{"epoch":5,"id":"00000000000000000000000000000005","active":"ACTIVE","insync":["node1","node2"],"sealed_epoch":0},"size_bytes":1,"progress":null,"out_of_sync_bytes":0,"inflight":0,"counters":{"reads":0,"writes":0,"flushes":0,"failed":0,"written_bytes":0,"peer_writes":0,"longest_wait_ms":0},"device":null,"problems":[]}"#;
const REFUSED: &str = r#"{"schema":"lockstep.verb/1","ok":false,"problem":{"code":"LS6082","message":"the copy there is not up to date","advice":"wait"}}"#;

fn group(name: &str, here: bool) -> String {
    let (role, active) = if here {
        ("active", "node1")
    } else {
        ("fenced", "node2")
    };
    let status = VOLUME
        .replace("NAME", name)
        .replace("ROLE", role)
        .replace("ACTIVE", active);
    format!(r#"{{"name":"{name}","volumes":[{{"name":"{name}","status":{status}}}]}}"#)
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
        let groups = [group("a", true), group("b", false), group("c", true)].join(",");
        let status = format!(
            r#"{{"schema":"lockstep.cluster/1","node":"node1","peer":{{"name":"node2","presence":"alive","since_ms":1}},"paths":[],"arbiter":{{"kind":"manual"}},"groups":[{groups}]}}"#
        );
        ("200 OK", status)
    } else {
        told.lock().expect("a list").push(line);
        ("409 Conflict", REFUSED.to_string())
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

#[test]
fn every_group_that_runs_here_is_moved_and_no_other_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("lockstepd/api.sock");
    std::fs::create_dir_all(directory.path().join("lockstepd")).expect("a directory");
    let leave = || {
        Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["node", "leave", "--timeout", "5"])
            .env("LOCKSTEP_RUN_DIR", directory.path())
            .output()
            .expect("lockstep")
    };
    let nobody = leave();
    assert_eq!(nobody.status.code(), Some(3), "{nobody:?}");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            answer(&mut stream, &list);
        }
    });
    let output = leave();
    let moves = told.lock().expect("a list").join("\n");
    assert_eq!(
        moves, "POST /v1/groups/a/move HTTP/1.1\nPOST /v1/groups/c/move HTTP/1.1",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("a: LS6082") && words.contains("c: LS6082"),
        "{words}"
    );
}
