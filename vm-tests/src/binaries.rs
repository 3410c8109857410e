//! Builds what runs inside the machines: static programs, so that any root can run them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process;
use crate::progress;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const BUILD_LIMIT: Duration = Duration::from_secs(1200);
/// The programs lie in each machine's memory: their line tables are five sixths of them, and filled a machine of 400 MiB
/// until its root had half a program. A panic still tells its place.
const STRIP: &str = "profile.release.strip=\"debuginfo\"";

/// Programs that were built, by path.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    /// Each is found as `/opt/bin/NAME` in a machine.
    pub files: Vec<PathBuf>,
}

/// The workspace's root directory.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's target directory.
#[must_use]
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Builds the guest's init and agent.
///
/// # Errors
/// If the build fails.
pub fn build_guest() -> anyhow::Result<PathBuf> {
    let built = build(&["vm-guest"], &["vm-guest"])?;
    built.files.into_iter().next().context("no guest binary")
}

/// Builds Lockstep itself: `ublk-mirror`, `lockstepd` and `lockstep`.
///
/// # Errors
/// If the build fails.
pub fn build_product() -> anyhow::Result<Binaries> {
    build(
        &["ublk-mirror", "controlplane", "lockstep-cli"],
        &["ublk-mirror", "lockstepd", "lockstep"],
    )
}

/// Builds the plain ublk device that `cargo bench-vm` compares with.
///
/// # Errors
/// If the build fails.
pub fn build_loop_target() -> anyhow::Result<Binaries> {
    build(&["loop-target"], &["loop-target"])
}

fn build(packages: &[&str], programs: &[&str]) -> anyhow::Result<Binaries> {
    let step = progress::step(format!("building {}", programs.join(" and ")));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace())
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .args(["--config", STRIP])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut command, BUILD_LIMIT)?;
    let directory = target_directory().join(TARGET).join("release");
    let files: Vec<PathBuf> = programs
        .iter()
        .map(|program| directory.join(program))
        .collect();
    if let Some(missing) = files.iter().find(|file| !file.exists()) {
        bail!("{} was not built", missing.display());
    }
    step.done();
    Ok(Binaries { files })
}
