//! `lockstep completions` and `lockstep man`, as they are typed.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

fn lockstep(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.args(words).output().unwrap()
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = lockstep(&["completions", shell]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("takeover"), "{shell}");
    }
    assert_eq!(lockstep(&["completions", "csh"]).status.code(), Some(64));
}

#[test]
fn manual_pages_are_written_where_one_asks_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man8");
    for _ in 0..2 {
        let output = lockstep(&["man", &pages.display().to_string()]);
        assert!(output.status.success());
    }
    let page = fs::read_to_string(pages.join("lockstep-volume-create.8")).unwrap();
    assert!(page.contains(".TH lockstep-volume-create 8"), "{page}");
    // A name that leads elsewhere is replaced, not followed.
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    fs::remove_file(pages.join("lockstep.8")).unwrap();
    symlink(&elsewhere, pages.join("lockstep.8")).unwrap();
    assert!(
        lockstep(&["man", &pages.display().to_string()])
            .status
            .success()
    );
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
    let page = fs::symlink_metadata(pages.join("lockstep.8")).unwrap();
    assert!(page.is_file());
    let taken = directory.path().join("taken");
    fs::write(&taken, "").unwrap();
    let output = lockstep(&["man", &taken.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("LS4010 "), "{said}");
}
