//! What reads bytes that somebody else wrote, under hostile bytes.
//!
//! A target is a plain function of bytes that panics when something is wrong. Two programs use them:
//! [`runner`] replays the corpus and mutates it (`cargo fuzz`, part of `cargo verify`), and `guided/`
//! hands them to libFuzzer for long runs that are led by coverage (`cargo fuzz-long`). Most inputs are
//! not the bytes themselves but changes of good ones ([`input::patch`]), with checksums made right
//! afterwards: otherwise nothing behind a checksum would be reached.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a target takes the kinds that it does not shape as they come"
)]
#![forbid(unsafe_code)]

pub mod disk;
pub mod input;
pub mod kept;
pub mod keys;
pub mod mutate;
pub mod rejoin;
pub mod runner;
pub mod samples;
pub mod seeds;
pub mod session;
pub mod text;
pub mod wire;

use std::path::{Path, PathBuf};

/// Something that reads foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory in the corpus.
    pub name: &'static str,
    /// Panics if something is wrong.
    pub check: fn(&[u8]),
    /// Longer inputs add nothing.
    pub input_bytes_max: usize,
}

const fn target(name: &'static str, check: fn(&[u8]), input_bytes_max: usize) -> Target {
    Target {
        name,
        check,
        input_bytes_max,
    }
}

/// All of them.
pub const TARGETS: [Target; 23] = [
    target("frame-header", wire::header, 64),
    target("body-hello", wire::hello, 160),
    target("body-auth", wire::auth, 64),
    target("body-refused", wire::refused, 64),
    target("body-state", wire::state, 600),
    target("body-propose", wire::propose, 128),
    target("body-accept", wire::accept, 64),
    target("body-marks", wire::marks, 1100),
    target("body-grow", wire::grow, 64),
    target("body-grow-done", wire::grow_done, 64),
    target("body-evidence", wire::evidence, 96),
    target("session", session::check, 600),
    target("superblock", disk::superblock, 200),
    target("activity-log", disk::activity_log, 200),
    target("bitmap", disk::bitmap, 200),
    target("metadata", disk::metadata, 300),
    target("rejoin", rejoin::check, 400),
    target("config", text::config, 2048),
    target("admin-request", text::request, 1024),
    target("admin-answer", text::answer, 4096),
    target("kept-file", kept::file, 200),
    target("cluster-key", keys::file, 200),
    target("cluster-config", text::cluster_config, 2048),
];

/// The target of this name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Where the committed inputs of a target are.
pub fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}
