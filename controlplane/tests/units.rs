//! Units of systemd, with a made-up `systemctl` in the search path: the machines that test this need not run systemd. It keeps
//! a unit's state in a file, and writes down what it is asked.
//!
//! The search path is the process's: the test runs itself once more with another one.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use controlplane::config::{Checked, Here};
use controlplane::resources::environment::{Factor, Server};
use controlplane::resources::{Context, Environment, Kind, Limit, Places, ResourceError, Systemd};
use controlplane_core::group::{Action, Manner, Origin, Outcome};

/// Where the made-up `systemctl` is.
const PLACE: &str = "LOCKSTEP_TEST_UNITS";
const UNIT: &str = "app@1.service";

/// Words on the unit come last; `$1` is what to do. The file `broken` makes starts and stops do nothing, `refused` makes them
/// fail, `hangs` makes all hang, `deaf` makes the next look fail, `soon` makes the one after the next see that it runs. Each
/// call has something to warn of.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd PLACE
echo "$@" >> words
echo "object libjemalloc.so cannot be preloaded: ignored" >&2
test ! -e hangs || exec sleep 1000
test ! -e refused || test "$1" = show || { echo "Unit not found."; exit 5; }
case $1 in
  start) test -e broken || echo active > state ;;
  stop) test -e broken || test "$2" = --no-block || echo inactive > state ;;
  kill) echo failed > state ;;
  show)
    if test -e deaf; then rm deaf; exit 1; fi
    echo "ActiveState=$(cat state)"
    echo "LoadState=$(cat load)"
    if test -e soon; then rm soon; echo active > state; fi ;;
  is-enabled) cat enabled; exit 1 ;;
esac
"#;

#[test]
fn a_unit_is_started_stopped_and_looked_at_by_systemctl() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let systemctl = path.join("systemctl");
    fs::write(
        &systemctl,
        SYSTEMCTL.replace("PLACE", &path.display().to_string()),
    )
    .expect("a script");
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("a mode");
    let before = env::var("PATH").unwrap_or_default();
    let status = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "with_this_systemctl", "--ignored"])
        .env("PATH", format!("{}:{before}", path.display()))
        .env(PLACE, path)
        .status()
        .expect("this test");
    assert!(status.success());
}

struct Bed(PathBuf);

impl Bed {
    fn set(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("a file");
    }

    fn unset(&self, name: &str) {
        fs::remove_file(self.0.join(name)).expect("removed");
    }

    fn state(&self) -> String {
        fs::read_to_string(self.0.join("state")).expect("a state")
    }

    /// What was asked since.
    fn words(&self) -> Vec<String> {
        let path = self.0.join("words");
        let words = fs::read_to_string(&path).unwrap_or_default();
        self.set("words", "");
        words.lines().map(str::to_string).collect()
    }

    fn act(&self, action: Action, time: Duration) -> (Outcome, Option<ResourceError>) {
        let kind = Kind::Systemd(Systemd {
            unit: UNIT.to_string(),
        });
        kind.act(
            action,
            &Context {
                places: Places {
                    run: self.0.clone(),
                    logs: self.0.clone(),
                    devices: self.0.clone(),
                    group: "g".to_string(),
                    resource: "unit".to_string(),
                },
                environment: Environment {
                    group: "g".to_string(),
                    resource: "unit".to_string(),
                    origin: Origin::Start,
                    server: Server::Home,
                    previous: None,
                    factor: Factor::None,
                },
                limit: Limit::new(time, Arc::new(AtomicBool::new(false))),
                broke: Arc::new(|_| ()),
            },
        )
    }

    fn code(&self, action: Action, time: Duration) -> &'static str {
        let (outcome, error) = self.act(action, time);
        assert_eq!(outcome, Outcome::Failed);
        error.expect("an error").code()
    }
}

const LIMIT: Duration = Duration::from_secs(30);
const START: Action = Action::Start(Origin::Start);
const STOP: Action = Action::Stop(Manner::Orderly);
const KILL: Action = Action::Stop(Manner::Hard);

#[test]
#[ignore = "run by a_unit_is_started_stopped_and_looked_at_by_systemctl"]
fn with_this_systemctl() {
    let bed = Bed(PathBuf::from(env::var_os(PLACE).expect("a place")));
    let show = format!("show --property=ActiveState -- {UNIT}");
    let said = |word: &str| format!("{word} -- {UNIT}");
    bed.set("state", "inactive\n");
    for (state, expected) in [
        ("inactive", Outcome::Absent),
        ("failed", Outcome::Absent),
        ("active", Outcome::Done),
        ("reloading", Outcome::Done),
        ("deactivating", Outcome::Failed),
        ("", Outcome::Failed),
    ] {
        bed.set("state", state);
        assert_eq!(bed.act(Action::Probe, LIMIT).0, expected, "{state}");
    }
    bed.set("state", "activating");
    let soon = Duration::from_millis(500);
    assert_eq!(bed.act(Action::Probe, soon).0, Outcome::Failed);
    // It is started again by systemd, or systemd itself is: neither is looked at once only.
    bed.set("soon", "");
    assert_eq!(bed.act(Action::Probe, LIMIT).0, Outcome::Done);
    bed.set("deaf", "");
    assert_eq!(bed.act(Action::Probe, LIMIT).0, Outcome::Done);
    bed.set("state", "inactive");
    bed.words();
    assert_eq!(bed.act(START, LIMIT).0, Outcome::Done);
    let started = [said("reset-failed"), said("start"), show.clone()];
    assert_eq!(bed.words(), started);
    assert_eq!(bed.act(STOP, LIMIT).0, Outcome::Done);
    assert_eq!(bed.words(), [said("stop"), show.clone()]);
    assert_eq!(bed.state(), "inactive\n");
    // Hard: whoever lives is killed first.
    bed.set("state", "active");
    assert_eq!(bed.act(KILL, LIMIT).0, Outcome::Done);
    let begun = said("stop --no-block");
    let killed = said("kill --signal=KILL");
    assert_eq!(
        bed.words(),
        [show.clone(), begun, killed, said("stop"), show]
    );
    assert_eq!(bed.act(KILL, LIMIT).0, Outcome::Done);
    assert!(!bed.words().iter().any(|words| words.starts_with("kill")));
    what_goes_wrong(&bed);
    what_is_enabled(&bed);
}

fn what_goes_wrong(bed: &Bed) {
    bed.set("broken", "");
    bed.set("state", "inactive");
    assert_eq!(bed.code(START, LIMIT), "LS6173", "it does not stay");
    bed.set("state", "active");
    assert_eq!(bed.code(STOP, LIMIT), "LS6173", "it is never taken for one");
    bed.unset("broken");
    bed.set("refused", "");
    let (_, error) = bed.act(START, LIMIT);
    let text = error.expect("an error").to_string();
    assert!(text.contains("ended with exit status: 5: "), "{text}");
    assert!(text.ends_with("Unit not found."), "{text}");
    bed.set("state", "active");
    assert_eq!(bed.code(STOP, LIMIT), "LS6172");
    // A unit that cannot be loaded cannot be stopped either, and nothing of it runs.
    for state in ["inactive", "failed"] {
        bed.set("state", state);
        for stop in [STOP, KILL] {
            assert_eq!(bed.act(stop, LIMIT).0, Outcome::Done, "{state}");
        }
    }
    bed.unset("refused");
    bed.set("hangs", "");
    let began = Instant::now();
    assert_eq!(bed.code(STOP, Duration::from_millis(300)), "LS6060");
    assert!(began.elapsed() < LIMIT, "it was killed");
    bed.unset("hangs");
}

fn what_is_enabled(bed: &Bed) {
    let text = r#"version = 1
[nodes.node1]
interconnects = ["10.0.0.1:7421", "10.1.0.1:7421"]
[nodes.node2]
interconnects = ["10.0.0.2:7421", "10.1.0.2:7421"]
[witness]
address = "10.0.0.5:7422"
[groups.pg]
volumes = ["data"]
resources = [{ kind = "systemd", name = "app", unit = "app@1.service" }]
"#;
    let warned = || {
        let mut checked = Checked::parse(Path::new("c.toml"), text.as_bytes()).expect("good");
        checked.look(&Here {
            node: "node1".to_string(),
            addresses: None,
            interfaces: None,
        });
        let findings = checked.findings.list().iter();
        findings.map(|found| found.what.clone()).collect::<Vec<_>>()
    };
    bed.set("load", "loaded");
    bed.set("enabled", "disabled\n");
    assert_eq!(warned(), [""; 0]);
    bed.set("enabled", "enabled\n");
    let told = format!("the unit {UNIT} is enabled on this machine");
    assert_eq!(warned(), [told]);
    bed.set(
        "enabled",
        "app@1.service is not a native service, redirecting\nenabled-runtime\n",
    );
    let told = format!("the unit {UNIT} is enabled-runtime on this machine");
    assert_eq!(warned(), [told]);
    bed.set("enabled", "");
    for load in ["not-found", "bad-setting", "masked"] {
        bed.set("load", load);
        let told = format!("systemd cannot load the unit {UNIT} on this machine: {load}");
        assert_eq!(warned(), [told]);
    }
}
