//! What `sim` answers to the words on its command line. A gate that runs a tenth of the mutants and ends well says
//! more than it knows.

use std::process::{Command, Output};

fn sim(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(words).output().expect("sim runs")
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[cfg(not(feature = "mutants"))]
fn without_the_mutants_of_the_cores_none_is_run_and_the_right_command_is_named() {
    let asked: [&[&str]; 5] = [
        &["--mutants"],
        &["--mutants", "--seeds-max", "1"],
        &["--mutants", "ack-before-peer"],
        &["--seeds", "1", "--mutant", "ack-before-peer"],
        // Of the simulated shell, which this build has.
        &["--seed", "0", "--mutant", "skip-flush"],
    ];
    for words in asked {
        let complaint = complaint(&sim(words));
        assert!(
            complaint.contains("cargo mutants-sim"),
            "{words:?}: {complaint}"
        );
    }
}

#[test]
#[cfg(feature = "mutants")]
fn mutants_are_run_by_name() {
    let kills = sim(&["--mutants", "ack-before-peer", "skip-flush"]);
    let said = String::from_utf8_lossy(&kills.stdout);
    assert!(kills.status.success(), "{said}");
    assert_eq!(
        said.lines().count(),
        4,
        "a title, two mutants, a sum: {said}"
    );
    let unknown = complaint(&sim(&["--mutants", "no-such-mutant"]));
    assert!(unknown.contains("there is no mutant no-such-mutant"));
    for words in [["--mutants", "--seed", "1"], ["--mutants", "--seeds", "1"]] {
        assert!(complaint(&sim(&words)).contains("of which mutant"));
    }
}

#[test]
fn a_run_that_is_not_said_is_refused() {
    assert!(complaint(&sim(&[])).contains("say what to run"));
    assert!(complaint(&sim(&["--seed", "x"])).contains("x is not a number"));
}
