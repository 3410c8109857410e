//! The steps of `cargo verify`.

use std::io::IsTerminal;
use std::process::Command;
use std::time::Instant;

use crate::binaries::workspace;
use crate::image;
use crate::packages;
use crate::scenario::{self, Scenario};
use crate::scenarios;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What continuous integration runs.
    Quick,
    /// The long sets too.
    All,
}

/// How it came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps and scenarios that did well.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
}

struct Step {
    name: &'static str,
    about: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "the code is formatted",
        program: "cargo",
        arguments: &["fmt", "--all", "--check"],
    },
    Step {
        name: "no-std",
        about: "the core builds for a target without std: no clock, no socket",
        program: "cargo",
        arguments: &[
            "build",
            "--quiet",
            "--package",
            "mirror-core",
            "--target",
            "x86_64-unknown-none",
        ],
    },
    Step {
        name: "lints",
        about: "no warning of the compiler or clippy",
        program: "cargo",
        arguments: &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    },
    Step {
        name: "tests",
        about: "unit, property, golden and integration tests",
        program: "cargo",
        arguments: &["test", "--quiet", "--workspace"],
    },
    Step {
        name: "fuzz",
        about: "every decoder and an authenticated peer survive hostile bytes",
        program: "cargo",
        arguments: &["fuzz", "--seconds", "30"],
    },
];

/// The target of the no-std step, for a machine that does not have it yet.
const ADD_TARGET: &[&str] = &["target", "add", "x86_64-unknown-none"];

/// Runs what `names` choose (all, if empty).
pub fn run(extent: Extent, names: &[String]) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = packages::ensure() {
        println!("packages: FAILED\n  {error:#}");
        return Tally {
            passed: 0,
            failed: 1,
        };
    }
    let chosen = |name: &str| {
        names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted.as_str()))
    };
    for step in STEPS.iter().filter(|step| chosen(step.name)) {
        tally.count(step.run());
    }
    let mutants = Some(MUTANTS).filter(|_| extent == Extent::All);
    for step in [Some(simulator(extent)), mutants, Some(LICENCES), Some(ETCD)] {
        if let Some(step) = step.filter(|step| chosen(step.name)) {
            tally.count(step.run());
        }
    }
    let mut list = scenarios::all();
    if extent == Extent::All {
        list.extend(scenarios::long());
    }
    let list: Vec<Scenario> = list
        .into_iter()
        .filter(|scenario| chosen(scenario.name))
        .collect();
    let failed = scenario::run_each(&list);
    tally.passed += list.len() - failed;
    tally.failed += failed;
    tally
}

impl Tally {
    fn count(&mut self, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// Every wrong variant of a rule has to be caught.
const MUTANTS: Step = Step {
    name: "mutants",
    about: "the simulator catches every wrong variant of the rules",
    program: "cargo",
    arguments: &["mutants-sim"],
};

/// Quick: about three minutes on two cores, with the build.
fn simulator(extent: Extent) -> Step {
    let arguments: &[&str] = match extent {
        Extent::Quick => &["sim", "--seeds", "0..30000"],
        Extent::All => &["sim", "--seeds", "0..300000"],
    };
    Step {
        name: "simulator",
        about: "the rules S1 to S12 hold on random schedules",
        program: "cargo",
        arguments,
    }
}

/// The same questions as the witness gets, to a real etcd.
const ETCD: Step = Step {
    name: "etcd",
    about: "etcd as the arbiter gives the answers that a witness gives",
    program: "cargo",
    arguments: &[
        "test",
        "--quiet",
        "--package",
        "controlplane",
        "--test",
        "arbiters",
        "--",
        "--ignored",
    ],
};

/// Licences and sources. The tool is installed where it is missing; advisories are left to
/// `cargo deny check advisories`, because their database is not in a package registry.
const LICENCES: Step = Step {
    name: "licences",
    about: "licences and sources of all dependencies",
    program: "cargo",
    arguments: &[
        "deny",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ],
};

fn install_licence_tool() {
    let version = Command::new("cargo").args(["deny", "--version"]).output();
    if version.is_ok_and(|output| output.status.success()) {
        return;
    }
    println!("licences: installing cargo-deny, which takes some minutes");
    // If it cannot be had, the step itself fails and says so.
    let _ = Command::new("cargo")
        .args(["install", "--quiet", "--locked", "cargo-deny"])
        .status();
}

impl Step {
    fn run(&self) -> bool {
        println!("{}: {}", self.name, self.about);
        if self.name == "no-std" {
            // Where it is there already, or cannot be had, the build itself says so.
            let _ = Command::new("rustup")
                .args(ADD_TARGET)
                .current_dir(workspace())
                .output();
        }
        if self.name == LICENCES.name {
            install_licence_tool();
        }
        let start = Instant::now();
        let mut command = Command::new(self.program);
        if self.name == ETCD.name {
            match image::ensure() {
                Ok(image) => drop(command.env("LOCKSTEP_ETCD", image.etcd)),
                Err(error) => {
                    println!(
                        "{}: FAILED: no image to take etcd from: {error:#}",
                        self.name
                    );
                    return false;
                }
            }
        }
        command.args(self.arguments).current_dir(workspace());
        if !std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "never");
        }
        let status = command.status();
        let seconds = start.elapsed().as_secs_f32();
        match status {
            Ok(status) if status.success() => {
                println!("{}: ok ({seconds:.1} s)", self.name);
                true
            }
            Ok(status) => {
                println!(
                    "{}: FAILED ({seconds:.1} s): {} {}: {status}",
                    self.name,
                    self.program,
                    self.arguments.join(" ")
                );
                false
            }
            Err(error) => {
                println!("{}: FAILED: {}: {error}", self.name, self.program);
                false
            }
        }
    }
}
