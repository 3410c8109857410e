//! `lockstep config`: what it prints, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const GOOD: &str = "version = 1
[nodes.node1]
interconnects = [\"10.0.0.1:7421\"]
[nodes.node2]
interconnects = [\"10.0.0.2:7421\"]
[witness]
address = \"10.0.0.5:7422\"
[groups.pg]
volumes = [\"data\"]
";

struct Bed(tempfile::TempDir);

impl Bed {
    /// With this as the file in force.
    fn new(text: &str) -> Self {
        let bed = Self(tempfile::tempdir().expect("a directory"));
        bed.file("cluster.toml", text);
        bed
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn lockstep(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .arg("config")
            .args(words)
            .current_dir(self.path())
            .env("LOCKSTEP_CONFIG_DIR", self.path())
            .env("LOCKSTEP_RUN_DIR", self.path().join("run"))
            .env("LOCKSTEP_STATE_DIR", self.path().join("state"))
            .output()
            .expect("lockstep")
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_good_file_is_summed_up_with_its_warnings() {
    let bed = Bed::new(GOOD);
    for words in [&["check"][..], &["check", "cluster.toml"]] {
        let output = bed.lockstep(words);
        let text = said(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(
            text.contains("warning LS6097: one interconnect only"),
            "{text}"
        );
        assert!(
            text.contains("arbiter  the witness at 10.0.0.5:7422"),
            "{text}"
        );
        assert!(text.contains("is none of the nodes"), "{text}");
        assert!(text.ends_with("can be used\n"), "{text}");
    }
    let output = bed.lockstep(&["check", "--node", "node1"]);
    let text = said(&output.stdout);
    assert!(
        text.contains("no interface of this machine, node1, has 10.0.0.1"),
        "{text}"
    );
    let json = json(&bed.lockstep(&["check", "--json", "--node", "node1"]));
    assert_eq!(json["schema"], "lockstep.config-check/1");
    assert_eq!(
        (&json["ok"], &json["node"]),
        (&Value::from(true), &Value::from("node1"))
    );
    assert_eq!(json["summary"]["groups"][0]["volumes"][0], "data");
    assert_eq!(
        json["findings"].as_array().map(Vec::len),
        Some(3),
        "{json:#}"
    );
}

#[test]
fn a_bad_file_is_refused_with_all_that_is_wrong() {
    let bed = Bed::new(
        &GOOD
            .replace("10.0.0.5:7422", "10.0.0.5")
            .replace("volumes", "volume"),
    );
    let output = bed.lockstep(&["check"]);
    let text = said(&output.stderr);
    assert_eq!(
        (output.status.code(), said(&output.stdout).as_str()),
        (Some(1), "")
    );
    assert!(
        text.contains("error LS6038") && text.contains("did you mean `volumes`?"),
        "{text}"
    );
    assert!(text.contains("2 errors in"), "{text}");
    let output = bed.lockstep(&["check", "--json"]);
    let json = json(&output);
    assert_eq!(
        (output.status.code(), &json["ok"]),
        (Some(1), &Value::from(false))
    );
    let finding = &json["findings"][1];
    assert_eq!(
        (&finding["line"], &finding["column"]),
        (&Value::from(9), &Value::from(1))
    );
    assert_eq!(finding["suggestion"], "volumes");
    let output = Bed::new(GOOD).lockstep(&["check", "--node", "node3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("LS6096"));
    let output = Bed::new(GOOD).lockstep(&["check", "nothing.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("LS6034: the file does not exist"));
}

#[test]
fn a_plan_ends_with_0_if_nothing_changes_2_if_something_does_and_1_if_it_cannot_be_made() {
    let bed = Bed::new(GOOD);
    bed.file("same.toml", &format!("# the same\n{GOOD}"));
    bed.file("new.toml", &GOOD.replace("\"data\"", "\"data\", \"more\""));
    bed.file("bad.toml", "version = 1\n");
    let output = bed.lockstep(&["plan", "same.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output.stdout).starts_with("nothing changes"));
    let output = bed.lockstep(&["plan", "new.toml"]);
    let text = said(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.starts_with("1 change from ") && text.contains("lockstep group stop pg --wait"),
        "{text}"
    );
    let other = bed.lockstep(&["plan", "--against", "new.toml", "--json"]);
    let told = json(&other);
    assert_eq!(
        (other.status.code(), &told["level"]),
        (Some(2), &Value::from("stop-group"))
    );
    assert_eq!(told["changes"][0]["what"], "data, more becomes data");
    for words in [
        &["plan", "bad.toml"][..],
        &["plan", "new.toml", "--against", "bad.toml"],
        &["plan", "nothing.toml"],
    ] {
        let output = bed.lockstep(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(said(&output.stderr).contains("error LS60"), "{words:?}");
    }
    let told = json(&bed.lockstep(&["plan", "bad.toml", "--json"]));
    assert_eq!(
        (&told["schema"], &told["ok"]),
        (&Value::from("lockstep.config-plan/1"), &Value::from(false))
    );
    assert_eq!(bed.lockstep(&["plan"]).status.code(), Some(64));
    let help = said(&bed.lockstep(&["plan", "--help"]).stdout);
    assert!(
        help.contains("0 nothing changes, 2 something does"),
        "{help}"
    );
    // Nothing was written.
    assert_eq!(
        fs::read_to_string(bed.path().join("cluster.toml")).expect("a file"),
        GOOD
    );
    assert_eq!(fs::read_dir(bed.path()).expect("a directory").count(), 4);
}

#[test]
fn the_schema_is_json() {
    let schema = json(&Bed::new(GOOD).lockstep(&["schema"]));
    assert_eq!(schema["properties"]["version"]["minimum"], 1);
    assert_eq!(
        schema["required"],
        serde_json::json!(["version", "nodes", "groups"])
    );
}

#[test]
fn a_push_that_cannot_begin_says_why_and_how_it_ends() {
    let bed = Bed::new(GOOD);
    // Nobody listens.
    let output = bed.lockstep(&["push"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output.stderr).contains("LS4016"));
    let shown = bed.lockstep(&["show", "--json"]);
    assert_eq!(shown.status.code(), Some(3));
    let told = json(&shown);
    assert_eq!(told["schema"], "lockstep.config-show/1");
    assert_eq!(
        (&told["ok"], &told["problem"]["code"]),
        (&false.into(), &"LS4016".into())
    );
    // What is wrong with the file is found before anybody is asked.
    let large = format!("{GOOD}#{}\n", "x".repeat(256 * 1024));
    let cases = [
        ("large.toml", large.as_str(), "LS6115"),
        (
            "older.toml",
            &GOOD.replace("version = 1", "version = 0"),
            "LS6098",
        ),
        ("wrong.toml", &GOOD.replace("volumes", "volume"), "LS6036"),
    ];
    for (name, text, code) in cases {
        bed.file(name, text);
        let output = bed.lockstep(&["push", name, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let told = json(&output);
        assert_eq!(told["schema"], "lockstep.config-push/1");
        assert_eq!(told["problem"]["code"], code, "{told:#}");
    }
    let output = bed.lockstep(&["push", "none.toml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_was_pushed_is_put_aside_only_for_a_file_that_can_be_used() {
    let bed = Bed::new(GOOD);
    let state = bed.path().join("state");
    fs::create_dir(&state).expect("a directory");
    let record = state.join("config.json");
    fs::write(&record, "{}").expect("written");
    bed.file("cluster.toml", "version = 1\n");
    let output = bed.lockstep(&["adopt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(record.exists());
    bed.file("cluster.toml", GOOD);
    for words in ["config.json.replaced", "no push is remembered"] {
        let output = bed.lockstep(&["adopt"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
        assert!(
            said(&output.stdout).contains(words),
            "{}",
            said(&output.stdout)
        );
        assert!(!record.exists());
    }
}
