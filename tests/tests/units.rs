//! The units for systemd, as far as they can be checked without one: their form, what they start, and that they are documented.
//!
//! Why: a misspelt key of a unit is a warning in a journal that nobody reads, and a default that nobody wanted.

use std::collections::BTreeMap;
use std::fs;

use lockstep_tests::{root, text};

const DIRECTORY: &str = "packaging/systemd";
/// What these units use, of systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5) and systemd.path(5).
const KEYS: [(&str, &[&str]); 4] = [
    (
        "Unit",
        &[
            "Description",
            "ConditionPathExists",
            "ConditionPathExistsGlob",
            "Wants",
            "After",
            "StartLimitIntervalSec",
        ],
    ),
    (
        "Service",
        &[
            "Type",
            "ExecStart",
            "ExecStop",
            "RemainAfterExit",
            "Restart",
            "RestartSec",
            "KillMode",
            "LimitMEMLOCK",
            "LimitNOFILE",
            "TasksMax",
            "OOMPolicy",
            "TimeoutStopSec",
        ],
    ),
    ("Path", &["PathChanged", "Unit"]),
    ("Install", &["WantedBy"]),
];
/// Programs of this project, and the one that does nothing.
const PROGRAMS: [&str; 3] = [
    "/usr/local/sbin/lockstepd",
    "/usr/local/sbin/lockstep",
    "/bin/true",
];

type Unit = BTreeMap<(String, String), Vec<String>>;

fn units() -> BTreeMap<String, Unit> {
    let entries = fs::read_dir(root().join(DIRECTORY)).expect("the directory");
    let names = entries.map(|entry| entry.expect("a file").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names
        .map(|name| {
            let unit = parse(&name, &text(&format!("{DIRECTORY}/{name}")));
            (name, unit)
        })
        .collect()
}

fn parse(name: &str, text: &str) -> Unit {
    let mut unit = Unit::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = title.to_string();
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .unwrap_or_else(|| panic!("{name}: {line}"));
        let known = KEYS.iter().find(|(title, _)| *title == section);
        let (_, keys) = known.unwrap_or_else(|| panic!("{name}: [{section}]"));
        assert!(keys.contains(&key), "{name}: {key} in [{section}]");
        assert!(!value.is_empty(), "{name}: {key} is empty");
        let place = (section.clone(), key.to_string());
        unit.entry(place).or_default().push(value.to_string());
    }
    unit
}

fn value<'a>(unit: &'a Unit, section: &str, key: &str) -> Option<&'a str> {
    let values = unit.get(&(section.to_string(), key.to_string()))?;
    values.first().map(String::as_str)
}

#[test]
fn each_unit_starts_a_program_or_a_unit_that_there_is() {
    let units = units();
    assert!(units.len() >= 5);
    for (name, unit) in &units {
        assert_eq!(
            value(unit, "Install", "WantedBy"),
            Some("multi-user.target"),
            "{name}"
        );
        if name.ends_with(".path") {
            let target = value(unit, "Path", "Unit").expect("a unit");
            assert!(units.contains_key(target), "{name} starts {target}");
            continue;
        }
        for key in ["ExecStart", "ExecStop"] {
            let Some(command) = value(unit, "Service", key) else {
                continue;
            };
            let program = command.trim_start_matches('-').split(' ').next();
            assert!(
                program.is_some_and(|program| PROGRAMS.contains(&program)),
                "{name}: {command}"
            );
        }
        assert!(value(unit, "Service", "ExecStart").is_some(), "{name}");
    }
}

/// Volumes and services are not to end with the control plane.
#[test]
fn a_stop_of_the_control_plane_kills_it_alone() {
    let units = units();
    let lockstepd = &units["lockstepd.service"];
    let is = |key: &str, expected: &str| {
        assert_eq!(value(lockstepd, "Service", key), Some(expected), "{key}");
    };
    is("KillMode", "process");
    is("Restart", "always");
    // Below the heartbeat's timeout of 2 s, with room to begin.
    is("RestartSec", "500ms");
    is("LimitMEMLOCK", "infinity");
    is("Type", "notify");
    let leave = &units["lockstep-leave.service"];
    let after = value(leave, "Unit", "After").expect("an order");
    assert!(after.contains("lockstepd.service") && after.contains("network-online.target"));
}

#[test]
fn the_units_are_documented_and_the_modules_are_those_that_are_needed() {
    let document = text("docs/operations.md");
    for name in units().keys() {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
    let modules = text("packaging/modules-load.conf");
    let modules: Vec<&str> = modules
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(modules, ["ublk_drv", "dm_mod"]);
}
