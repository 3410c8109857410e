//! The commands themselves: what they print is what has to be typed, and their exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use crate::beds::*;

fn lockstepd(bed: &Bed, machine: &str, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstepd"));
    command.arg("cluster").args(words);
    command.arg("--config").arg(bed.places(machine).config);
    if words[0] == "join" {
        command.arg("--witness").arg(bed.path("witness"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Waits for it; nothing is typed any more.
fn end(child: Child) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn types(bed: &Bed, machine: &str, words: &[&str], token: &str) -> (Option<i32>, String, String) {
    let mut child = lockstepd(bed, machine, words);
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{token}").expect("typed");
    drop(input);
    end(child)
}

/// What is to be typed there: the words after `lockstep cluster`, and the token.
fn next(lines: &mut BufReader<ChildStdout>) -> (Vec<String>, String) {
    let mut following = |start: &str| loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).expect("a line"), 0, "it ended");
        if let Some(rest) = line.strip_prefix(start) {
            return rest.trim_end().to_string();
        }
    };
    let command = following("    lockstep cluster ");
    let words = command.split_whitespace().map(str::to_string).collect();
    (words, following("    "))
}

#[test]
fn what_is_shown_is_what_has_to_be_typed() {
    let bed = Bed::bare();
    let words = ["init", "--node", "node1", "--listen", "127.0.0.1:0"];
    let mut inviting = lockstepd(&bed, "node1", &words);
    let mut lines = BufReader::new(inviting.stdout.take().expect("its output"));
    for machine in ["witness", "node2"] {
        let (words, token) = next(&mut lines);
        assert_eq!(words.len(), if machine == "node2" { 4 } else { 2 });
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, said, complained) = types(&bed, machine, &words, &token);
        assert_eq!(code, Some(0), "{complained}");
        assert!(said.contains("its authority is"), "{said}");
    }
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("the rest");
    for line in ["witness: has joined\n", "node2: has joined\n"] {
        assert!(rest.contains(line), "{rest}");
    }
    let (code, _, complained) = end(inviting);
    assert_eq!((code, complained.as_str()), (Some(0), ""));
    let (code, said, _) = end(lockstepd(&bed, "node1", &["init", "--node", "node1"]));
    assert_eq!(code, Some(0));
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(said.contains("all have joined"), "{said}");
}

/// A name without a directory is one of the directory in which it runs.
#[test]
fn the_configuration_may_be_named_alone() {
    let bed = Bed::bare();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstepd"));
    command.args(["cluster", "init", "--config", "cluster.toml"]);
    command.args(["--node", "node1", "--listen", "127.0.0.1:0", "--for", "1"]);
    let output = command.current_dir(bed.path("node1")).output();
    let output = output.expect("it runs");
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{complained}");
    assert!(bed.places("node1").trust.join("node.pem").exists());
}

#[test]
fn exit_codes_tell_what_became_of_it() {
    let bed = Bed::new();
    let short = [
        "invite",
        "--node",
        "node1",
        "--listen",
        "127.0.0.1:0",
        "--for",
        "1",
    ];
    let (code, _, complained) = end(lockstepd(&bed, "node1", &short));
    assert_eq!(code, Some(3));
    let expected = "LS6030 the time of the invitation is over; not joined: witness, node2\n";
    assert!(complained.starts_with(expected), "{complained}");

    let (code, _, complained) = types(&bed, "node2", &["join", "127.0.0.1:1"], "0000-1111");
    assert_eq!(code, Some(1));
    assert!(
        complained.contains("LS6028 this is no token"),
        "{complained}"
    );

    let (code, _, complained) = end(lockstepd(&bed, "node1", &["invite", "--node", "node9"]));
    assert_eq!(code, Some(1));
    assert!(complained.starts_with("LS6026 "), "{complained}");
}
