//! `lockstep cluster ...` becomes `lockstepd cluster ...`: its words, its terminal, its exit code.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A program that is written while another test forks cannot be run at once ("text file busy").
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// `lockstep` in a directory of its own, beside a `lockstepd` that says what it was given.
struct Scratch(PathBuf, #[allow(dead_code)] MutexGuard<'static, ()>);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("lockstep-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_lockstep"), path.join("lockstep")).unwrap();
        Scratch(path, alone)
    }

    fn with_daemon(self, script: &str) -> Scratch {
        let path = self.0.join("lockstepd");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(self.0.join("lockstep"));
        command.env("LOCKSTEP_CONFIG_DIR", "/c").env("PATH", "");
        command.env("LOCKSTEP_STATE_DIR", "/s");
        command.arg("cluster").args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_word_and_path_is_handed_over_and_the_exit_code_comes_back() {
    let scratch = Scratch::new("cluster-words").with_daemon("echo \"$@\"; exit 3");
    let cases: [(&[&str], &str); 4] = [
        (
            &["init"],
            "cluster init --config /c/cluster.toml --for 3600\n",
        ),
        (
            &[
                "init",
                "--config",
                "/x/c.toml",
                "--for",
                "2m",
                "--node",
                "node1",
            ],
            "cluster init --config /x/c.toml --for 120 --node node1\n",
        ),
        (
            &["invite", "witness", "--force", "--listen", "[fd00::1]:7423"],
            "cluster invite --config /c/cluster.toml --for 3600 --listen [fd00::1]:7423 --force -- witness\n",
        ),
        (
            &["join", "10.0.0.1:7423", "--node", "node2"],
            "cluster join --config /c/cluster.toml --witness /s/witness --node node2 -- 10.0.0.1:7423\n",
        ),
    ];
    for (words, expected) in cases {
        let output = scratch.run(words, "");
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn what_is_typed_is_what_the_daemon_reads() {
    let scratch = Scratch::new("cluster-input").with_daemon("read line; echo \"read $line\"");
    let output = scratch.run(&["join", "10.0.0.1"], "ABCD-EFGH\n");
    assert_eq!(text(&output.stdout), "read ABCD-EFGH\n");
}

#[test]
fn wrong_usage_is_noticed_here_and_a_missing_daemon_is_told() {
    let scratch = Scratch::new("cluster-usage");
    for words in [
        &["join", "10.0.0.1", "ABCD-EFGH"][..],
        &["join"],
        &["init", "--for", "2d"],
        &["invite", "--listen", "node1:7423"],
    ] {
        assert_eq!(scratch.run(words, "").status.code(), Some(64), "{words:?}");
    }
    let output = scratch.run(&["init"], "");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("LS4008 cannot run lockstepd"), "{said}");
}
