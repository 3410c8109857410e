//! Installs what the harness needs on a Debian machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process;
use crate::progress;

const UPDATE_LIMIT: Duration = Duration::from_secs(180);
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// Something the harness runs, and the package that has it.
struct Need {
    /// One of these paths exists if it is there; `*` stands for a version.
    evidence: &'static [&'static str],
    package: &'static str,
    purpose: &'static str,
}

const NEEDS: [Need; 7] = [
    Need {
        evidence: &["/usr/bin/qemu-system-x86_64"],
        package: "qemu-system-x86",
        purpose: "runs the machines",
    },
    Need {
        evidence: &["/usr/bin/mmdebstrap"],
        package: "mmdebstrap",
        purpose: "builds their root file system",
    },
    Need {
        evidence: &["/usr/sbin/mke2fs", "/sbin/mke2fs"],
        package: "e2fsprogs",
        purpose: "packs it",
    },
    Need {
        evidence: &["/usr/bin/xz"],
        package: "xz-utils",
        purpose: "unpacks kernel modules",
    },
    Need {
        evidence: &["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"],
        package: "iproute2",
        purpose: "connects them",
    },
    Need {
        evidence: &["/usr/share/keyrings/debian-archive-keyring.gpg"],
        package: "debian-archive-keyring",
        purpose: "verifies packages",
    },
    Need {
        evidence: &[
            "/usr/lib/llvm-*/lib/libclang.so",
            "/usr/lib/llvm-*/lib/libclang.so.1",
        ],
        package: "libclang-dev",
        purpose: "builds the ublk bindings",
    },
];

/// Installs every missing package.
///
/// # Errors
/// If something is missing and we are not root, or apt fails.
pub fn ensure() -> anyhow::Result<()> {
    let missing: Vec<&Need> = NEEDS
        .iter()
        .filter(|need| !need.evidence.iter().any(|path| exists(path)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "not root, so please run: apt-get install -y --no-install-recommends {}",
            names.join(" ")
        );
    }
    let step = progress::step("updating the package lists");
    process::run(apt().arg("update"), UPDATE_LIMIT)?;
    step.done();
    for need in missing {
        let step = progress::step(format!("installing {} ({})", need.package, need.purpose));
        install(need.package)?;
        step.done();
    }
    Ok(())
}

fn install(package: &str) -> anyhow::Result<()> {
    let plain = process::run(
        apt().args(["install", "-y", "--no-install-recommends", package]),
        INSTALL_LIMIT,
    );
    let Err(error) = plain else { return Ok(()) };
    if package != "qemu-system-x86" {
        return Err(error);
    }
    // A newer qemu-utils `Breaks` Debian's qemu-system-common, and nothing here needs it.
    progress::say("apt refused; trying again without qemu-utils");
    process::run(
        apt().args([
            "install",
            "-y",
            "--no-install-recommends",
            package,
            "qemu-utils-",
        ]),
        INSTALL_LIMIT,
    )
    .with_context(|| format!("the first attempt failed with: {error:#}"))?;
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn exists(pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return Path::new(pattern).exists();
    };
    let (directory, prefix) = before.rsplit_once('/').unwrap_or(("/", before));
    let Ok(entries) = std::fs::read_dir(directory) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let fits = name.to_string_lossy().starts_with(prefix);
        fits && Path::new(&format!("{}{after}", entry.path().display())).exists()
    })
}
