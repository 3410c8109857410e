//! `lockstep events` and `lockstep why`, as they are typed, beside a control plane that only answers.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// A node's door: it answers every question with the same document, and remembers the questions.
struct Door {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Door {
    fn answering(document: Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lockstepd")).unwrap();
        let listener = UnixListener::bind(directory.path().join("lockstepd/api.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut lines = BufReader::new(&stream).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                heard.lock().unwrap().push(first);
                let body = document.to_string();
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        });
        Self { directory, asked }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.env("LOCKSTEP_RUN_DIR", self.directory.path());
        command.env("TZ", "UTC0").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn events() -> Value {
    json!({
        "schema": "lockstep.events/1",
        "events": [
            {"node": "node2", "number": 3, "at_ms": 1_795_261_445_678_u64, "severity": "error", "code": "LS6130",
             "group": "pg", "text": "the time of the services is over"},
            {"node": "node1", "number": 8, "at_ms": 1_795_261_446_000_u64, "severity": "info", "code": "LS6017",
             "group": "pg", "text": "takes over", "fields": {"row": "20"}},
        ],
        "logs": [
            {"node": "node1", "left_out": 7, "newest": 8, "oldest_ms": 1000},
            {"node": "node2", "left_out": 0, "newest": 0,
             "problem": {"code": "LS6162", "message": "node2 is not heard", "advice": "a"}},
        ],
    })
}

#[test]
fn events_are_lines_with_local_times_and_what_is_missing_is_said() {
    let door = Door::answering(events());
    let output = door.run(&["events"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = "\
-- 7 older ones are not shown: --since or -n shows more
2026-11-21 11:44:05.678  node2  ERROR    LS6130  pg: the time of the services is over
2026-11-21 11:44:06.000  node1  info     LS6017  pg: takes over  row=20
-- node2: LS6162 node2 is not heard
";
    assert_eq!(text(&output.stdout), expected);
    let words = [
        "events",
        "--since",
        "2026-11-21 11:00",
        "--code",
        "6017",
        "--group",
        "pg",
        "-n",
        "5",
        "--json",
    ];
    let output = door.run(&words);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["events"][1]["fields"]["row"], "20");
    assert_eq!(
        door.asked(),
        [
            "GET /v1/events?count=50&peer=true HTTP/1.1",
            "GET /v1/events?since_ms=1795258800000&count=5&code=LS6017&group=pg&peer=true HTTP/1.1"
        ]
    );
}

#[test]
fn who_follows_asks_for_what_comes_after_what_was_told() {
    let door = Door::answering(events());
    let mut child = door
        .command(&["events", "--follow", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for code in ["LS6130", "LS6017", "LS6130"] {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&event["code"], &event["schema"]),
            (&json!(code), &json!("lockstep.events/1"))
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let asked = door.asked();
    assert_eq!(asked[1], "GET /v1/events?after=8&wait_ms=2000 HTTP/1.1");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let door = Door::answering(events());
    let mut child = door
        .command(&["events", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 10];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_words_are_usage_and_a_silent_control_plane_is_unknown() {
    let door = Door::answering(events());
    for words in [
        &["events", "--since", "yesterday"][..],
        &["events", "--code", "x"],
        &["events", "--group", "a b"],
        &["events", "-n", "-3"],
        &["why", "a", "b"],
    ] {
        assert_eq!(door.run(words).status.code(), Some(64), "{words:?}");
    }
    assert!(door.asked().is_empty());
    fs::remove_file(door.directory.path().join("lockstepd/api.sock")).unwrap();
    for words in [["events"], ["why"]] {
        let output = door.run(&words);
        assert_eq!(output.status.code(), Some(3));
        assert!(
            text(&output.stderr).starts_with("LS4016 "),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn reasons_are_told_for_what_one_names() {
    let ruling = json!({
        "row": 4, "standing": "silent", "condition": "anything else", "decision": "waits for the volume's daemon",
        "since_ms": 3000, "until_ms": 0, "inputs": [],
        "volumes": [{"name": "data", "linked": false, "alone": false, "changing": false}],
    });
    let door = Door::answering(json!({
        "schema": "lockstep.why/1", "node": "node1", "at_ms": 1,
        "peer": {"name": "node2", "paths": []},
        "groups": [{"name": "pg", "text": "the daemon of a volume does not answer", "present": ruling,
                    "waits": {"what": "the volume's daemon", "ends": "it answers"}}],
    }));
    for name in [None, Some("pg"), Some("data")] {
        let words: Vec<&str> = std::iter::once("why").chain(name).collect();
        let output = door.run(&words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let told = text(&output.stdout);
        let expected = "  decided     row 4: silent, anything else -> waits for the volume's daemon; 3.0 s ago\n";
        assert!(
            told.contains(expected) && told.contains("  until       it answers\n"),
            "{told}"
        );
    }
    let output = door.run(&["why", "pg", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["groups"][0]["present"]["row"], 4);
    let output = door.run(&["why", "web"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).starts_with("LS6080 "),
        "{}",
        text(&output.stderr)
    );
}
