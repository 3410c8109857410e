//! What the compiler does not check: sizes, purity, layering, codes, links.
//!
//! Why: each rule here was a promise in the documentation first. A promise that nothing checks is
//! broken within a month.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_tests::{root, text};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;

/// The only places of the product that may say `unsafe`; each block there says why it is sound.
/// The harness of virtual machines (vm-tests) is not shipped and has its own.
const UNSAFE_FILES: [&str; 7] = [
    "controlplane/src/sys.rs",
    // An allocator that counts, for benchmarks: `GlobalAlloc` is unsafe by its definition.
    "tests/bench/src/heap.rs",
    "ublk-mirror/src/buffers.rs",
    "ublk-mirror/src/device_helper.rs",
    "ublk-mirror/src/queue.rs",
    "ublk-mirror/src/ring.rs",
    "ublk-mirror/src/sys.rs",
];

/// The only places that may name libublk.
const LIBUBLK_FILES: [&str; 3] = [
    "ublk-mirror/src/device_helper.rs",
    "ublk-mirror/src/queue.rs",
    // Compared with, not shipped.
    "vm-tests/loop-target/src/main.rs",
];

/// What a pure crate must not name. `no_std` refuses most of it too; this names the culprit.
const IMPURE: [&str; 13] = [
    "std::",
    "Instant::now",
    "SystemTime",
    "tracing",
    "log::",
    "println!",
    "eprintln!",
    "dbg!",
    "libc",
    "nix::",
    "rand::",
    "getrandom",
    "HashMap",
];

/// Who may depend on whom within the workspace.
const LAYERS: [(&str, &[&str]); 13] = [
    ("ublk-mirror/core", &[]),
    ("ublk-mirror/log", &[]),
    ("ublk-mirror", &["mirror-core", "mirror-log"]),
    ("controlplane/api", &["mirror-core"]),
    ("controlplane/core", &["mirror-core"]),
    (
        "controlplane",
        &[
            "controlplane-api",
            "controlplane-core",
            "mirror-core",
            "mirror-log",
        ],
    ),
    ("cli", &["controlplane", "controlplane-api", "mirror-core"]),
    ("tests", &["controlplane-core", "mirror-core"]),
    ("tests/bench", &["mirror-core", "ublk-mirror"]),
    (
        "tests/fuzz",
        &[
            "controlplane",
            "controlplane-api",
            "mirror-core",
            "ublk-mirror",
        ],
    ),
    ("vm-tests", &["controlplane-api", "vm-guest"]),
    ("vm-tests/guest", &[]),
    ("vm-tests/loop-target", &[]),
];
const WORKSPACE_CRATES: [&str; 13] = [
    "mirror-core",
    "mirror-log",
    "ublk-mirror",
    "controlplane",
    "controlplane-api",
    "controlplane-core",
    "lockstep-bench",
    "lockstep-cli",
    "lockstep-fuzz",
    "lockstep-tests",
    "loop-target",
    "vm-tests",
    "vm-guest",
];

/// The only features: a mutant is a wrong line within the core, which no event can put there. The product
/// never asks for it.
const FEATURES: [(&str, &str); 3] = [
    ("controlplane/core", "mutants = []"),
    ("ublk-mirror/core", "mutants = []"),
    (
        "tests",
        "mutants = [\"mirror-core/mutants\", \"controlplane-core/mutants\"]",
    ),
];

/// The only file of the core that may name the standard library, and only with that feature.
const MUTANT_FILE: &str = "ublk-mirror/core/src/mutant.rs";

/// Everything that the pure crate is built from.
const CORE_DEPENDENCIES: [&str; 5] = ["blake3", "crc", "serde", "thiserror", "zerocopy"];

/// Hosts that may be linked to. Examples use addresses from private ranges and no host.
const HOSTS: [&str; 9] = [
    "127.0.0.1",
    "github.com",
    "docs.rs",
    "docs.kernel.org",
    "www.kernel.org",
    "www.apache.org",
    "doc.rust-lang.org",
    "crates.io",
    "json-schema.org",
];

fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root(), ending, &mut found);
    assert!(
        !found.is_empty(),
        "no {ending} files under {}",
        root().display()
    );
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root())
                .expect("under the root")
                .display()
                .to_string();
            let text = text(&name);
            (name, text)
        })
        .collect()
}

fn walk(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().to_string();
        if name == "target" || (name.starts_with('.') && name != ".cargo" && name != ".ci") {
            continue;
        }
        if path.is_dir() {
            walk(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
}

/// Whether the whole file is a test.
fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// The lines before the file's tests, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    product(text).map(|(number, line)| (number, line.split("//").next().unwrap_or(line)))
}

fn product(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod "));
    let end = tests.unwrap_or(lines.len());
    lines
        .into_iter()
        .take(end)
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Whether `word` stands in `line` as a word.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Whether `text` stands in `line` and is not the end of a longer name (`activity_log::`).
fn begins_a_word(line: &str, text: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(text)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(part))
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let long = files(".rs")
        .into_iter()
        .filter(|(name, _)| !is_test(name))
        .filter_map(|(name, text)| {
            let lines = product(&text).count();
            (lines > FILE_LINES_MAX).then(|| format!("{name} has {lines} lines; split it"))
        });
    none(&long.collect::<Vec<_>>());
}

#[test]
fn the_core_names_no_clock_socket_file_log_or_chance() {
    let head = text("ublk-mirror/core/src/lib.rs");
    assert!(head.contains("#![no_std]") && head.contains("#![forbid(unsafe_code)]"));
    let mut complaints = Vec::new();
    for (name, text) in files(".rs") {
        if !name.starts_with("ublk-mirror/core/src/") || is_test(&name) {
            continue;
        }
        for (number, line) in code(&text) {
            let line = line.replace("#[error(", "");
            let allowed = |word: &str| name == MUTANT_FILE && word == "std::";
            complaints.extend(
                IMPURE
                    .iter()
                    .filter(|word| begins_a_word(&line, word) && !allowed(word))
                    .map(|word| format!("{name}:{number} names {word}")),
            );
        }
    }
    none(&complaints);
}

#[test]
fn unsafe_and_libublk_stay_where_they_are() {
    let mut complaints = Vec::new();
    for (name, text) in files(".rs") {
        if name == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in code(&text) {
            let harness = name.starts_with("vm-tests/");
            if names(line, "unsafe") && !harness && !UNSAFE_FILES.contains(&name.as_str()) {
                complaints.push(format!(
                    "{name}:{number}: unsafe code belongs into {UNSAFE_FILES:?}"
                ));
            }
            if names(line, "libublk") && !LIBUBLK_FILES.contains(&name.as_str()) {
                complaints.push(format!(
                    "{name}:{number}: libublk belongs into {LIBUBLK_FILES:?}"
                ));
            }
        }
    }
    none(&complaints);
}

/// A front decides where requests come from. The program has ublk's alone, and no way to another one (S12).
#[test]
fn only_benchmarks_have_another_front_than_ublk() {
    let (defines, begins) = ("ublk-mirror/src/front.rs", "ublk-mirror/src/startup.rs");
    let mut fronts = Vec::new();
    let mut complaints = Vec::new();
    for (name, text) in files(".rs") {
        if name.starts_with("tests/") {
            continue;
        }
        for (number, line) in code(&text) {
            if line.contains("Front for ") {
                fronts.push((name.clone(), line.trim().to_string()));
            }
            if names(line, "run_with") && name != begins {
                complaints.push(format!("{name}:{number}: run_with is for benchmarks"));
            }
        }
    }
    let ublk = "impl Front for DeviceControl {".to_string();
    assert_eq!(fronts, [(defines.to_string(), ublk)]);
    none(&complaints);
}

/// `LS` and four digits, in quotation marks.
fn codes_in(line: &str) -> impl Iterator<Item = String> {
    line.match_indices("\"LS").filter_map(|(at, _)| {
        let code = line.get(at + 1..at + 7)?;
        let closed = line.get(at + 7..at + 8) == Some("\"");
        (closed && code[2..].bytes().all(|byte| byte.is_ascii_digit())).then(|| code.to_string())
    })
}

#[test]
fn every_code_is_explained_and_every_explanation_has_its_code() {
    let mut used: BTreeMap<String, String> = BTreeMap::new();
    for (name, text) in files(".rs") {
        if is_test(&name) || name.starts_with("vm-tests/") || name.starts_with("tests/") {
            continue;
        }
        for (number, line) in code(&text) {
            for code in codes_in(line) {
                used.entry(code)
                    .or_insert_with(|| format!("{name}:{number}"));
            }
        }
    }
    let document = text("docs/codes.md");
    let mut explained = BTreeSet::new();
    let mut complaints = Vec::new();
    for heading in document
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
    {
        let code = heading
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_string();
        if !used.contains_key(&code) {
            complaints.push(format!("docs/codes.md explains {code}, which nothing says"));
        }
        if !explained.insert(code.clone()) {
            complaints.push(format!("docs/codes.md explains {code} twice"));
        }
    }
    let missing = used.iter().filter(|(code, _)| !explained.contains(*code));
    complaints.extend(
        missing.map(|(code, place)| format!("{place}: docs/codes.md does not explain {code}")),
    );
    none(&complaints);
}

fn dependencies(manifest: &str, section: &str) -> Vec<String> {
    let lines = manifest
        .lines()
        .skip_while(|line| line.trim() != section)
        .skip(1);
    let names = lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next());
    names
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_string)
        .collect()
}

/// The lines of the features, without comments.
fn features(manifest: &str) -> Vec<&str> {
    let lines = manifest
        .lines()
        .skip_while(|line| *line != "[features]")
        .skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn dependencies_point_at_the_pure_crates() {
    let mut complaints = Vec::new();
    for (directory, allowed) in LAYERS {
        let manifest = text(&format!("{directory}/Cargo.toml"));
        for dependency in dependencies(&manifest, "[dependencies]") {
            let ours = WORKSPACE_CRATES.contains(&dependency.as_str());
            if ours && !allowed.contains(&dependency.as_str()) {
                complaints.push(format!("{directory} must not depend on {dependency}"));
            }
        }
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{directory} has lints of its own"
        );
        let known = FEATURES.iter().find(|(place, _)| *place == directory);
        let features = features(&manifest);
        assert!(
            known.map_or(features.is_empty(), |(_, line)| features == [*line]),
            "{directory} has features: faults enter as events or from outside"
        );
    }
    let core = dependencies(&text("ublk-mirror/core/Cargo.toml"), "[dependencies]");
    assert_eq!(
        core, CORE_DEPENDENCIES,
        "a new dependency of the core needs a reason here"
    );
    none(&complaints);
}

#[test]
fn links_lead_to_files_that_exist_and_to_hosts_that_are_listed() {
    let mut complaints = Vec::new();
    for (name, text) in files(".md") {
        let directory = root()
            .join(&name)
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !directory.join(target).exists() {
                complaints.push(format!("{name} links to {target}, which is not there"));
            }
        }
    }
    for (name, text) in [files(".md"), files(".rs"), files(".toml")].concat() {
        if name == "tests/tests/tidy.rs" {
            continue;
        }
        for (at, _) in text.match_indices("://") {
            if !text[..at].ends_with("http") && !text[..at].ends_with("https") {
                continue;
            }
            let host: String = text[at + 3..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || ".-".contains(*c))
                .collect();
            // `.example` is reserved for examples (RFC 2606); what a program fills in is one of its own machines.
            let filled_in = text[at + 3..].starts_with('{');
            if !HOSTS.contains(&host.as_str()) && !host.ends_with(".example") && !filled_in {
                complaints.push(format!("{name} names the host {host:?}"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn the_documents_that_others_refer_to_exist() {
    let mut complaints = Vec::new();
    for (name, text) in files(".rs") {
        if name == "tests/tests/tidy.rs" {
            continue;
        }
        for (at, _) in text.match_indices("docs/") {
            let path: String = text[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || "/-_.".contains(*c))
                .collect();
            let path = path.trim_end_matches('.');
            let numbered = path.starts_with("docs/adr/") && path["docs/adr/".len()..].len() == 4;
            let exists = if numbered {
                let number = &path["docs/adr/".len()..];
                fs::read_dir(root().join("docs/adr"))
                    .expect("docs/adr")
                    .filter_map(Result::ok)
                    .any(|entry| entry.file_name().to_string_lossy().starts_with(number))
            } else {
                root().join(path).exists()
            };
            if !exists {
                complaints.push(format!("{name} refers to {path}, which is not there"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_proof_in_the_failure_model_exists() {
    let sources: String = files(".rs").into_iter().map(|(_, text)| text).collect();
    let document = text("docs/failure-model.md");
    let mut proofs = 0;
    let mut complaints = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let Some(proof) = row.trim_end_matches('|').rsplit('|').next() else {
            continue;
        };
        for name in proof.split('`').skip(1).step_by(2) {
            proofs += 1;
            let scenario = format!("name: \"{name}\"");
            let test = format!("fn {name}(");
            let told = format!("law: \"{name}\"");
            if ![scenario, test, told]
                .iter()
                .any(|proof| sources.contains(proof))
            {
                complaints.push(format!(
                    "docs/failure-model.md names {name}, which is no scenario, no test and no told law"
                ));
            }
        }
    }
    assert!(proofs > 10, "the table was not found");
    none(&complaints);
}
