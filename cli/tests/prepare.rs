//! `lockstep group prepare` is typed as soon as a machine is a node: its control plane may be about to start.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

const STATUS: &str = r#"{"schema":"lockstep.cluster/1","node":"node1","peer":{"name":"node2","presence":"alive","since_ms":1},"paths":[],"arbiter":{"kind":"manual"},"groups":[]}"#;

fn prepare(directory: &tempfile::TempDir, timeout: &str) -> Child {
    std::fs::create_dir_all(directory.path().join("lockstepd")).expect("a directory");
    Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["group", "prepare", "pg", "--timeout", timeout])
        .env("LOCKSTEP_RUN_DIR", directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("lockstep")
}

fn first_line(child: &mut Child) -> String {
    let out = child.stdout.as_mut().expect("its output");
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).expect("a line");
    line
}

#[test]
fn a_control_plane_that_starts_meanwhile_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = prepare(&directory, "60");
    let line = first_line(&mut child);
    assert!(line.contains("no control plane answers yet"), "{line}");
    let listener = UnixListener::bind(directory.path().join("lockstepd/api.sock"));
    let (mut stream, _) = listener.expect("a socket").accept().expect("a question");
    let _ = stream.read(&mut [0; 4096]).expect("a question");
    let length = STATUS.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    write!(stream, "{head}{STATUS}").expect("an answer");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("LS6080 "), "{said}");
}

#[test]
fn one_that_does_not_start_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = prepare(&directory, "1");
    let line = first_line(&mut child);
    assert!(line.contains("no control plane answers yet"), "{line}");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("LS4016 "), "{said}");
}
