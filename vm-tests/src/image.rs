//! The kernel, the initramfs and the root file system of the machines: built once, cached.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use vm_guest::BIN_DIRECTORY;
use vm_guest::pattern::mix;

use crate::binaries::target_directory;
use crate::cpio::Archive;
use crate::process;
use crate::progress;
use crate::sources::Mirrors;

/// Debian release of the guests' root.
const RELEASE: &str = "bookworm";
/// The first kernel series with every ublk feature we need that Debian supports for long.
const KERNEL_PATTERN: &str = r"^linux-image-6\.12\.[0-9.]+\+deb1[23]-cloud-amd64$";
const PACKAGES: &[&str] = &[
    "curl",
    "dmsetup",
    "drbd-utils",
    "e2fsprogs",
    "etcd-server",
    "fio",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mdadm",
    "nbd-client",
    "nbd-server",
    "netcat-openbsd",
    "nftables",
    "postgresql-15",
    "procps",
    "psmisc",
    "sqlite3",
    "strace",
    "util-linux",
    "xfsprogs",
];
/// What these packages have and nobody in a guest needs: PostgreSQL's compiler of queries is most of what it brings,
/// and it does without where the library is not there.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/llvm-*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
];
/// What the packages find when they are installed. Debian's PostgreSQL would make a cluster of its own: here a database is made
/// on a volume, by whoever tests it. It wants the directories of manual pages, for its links.
const PREPARE: &str = "cd \"$1\" && mkdir -p etc/postgresql-common usr/share/man/man1 usr/share/man/man7 && \
    echo 'create_main_cluster = false' >etc/postgresql-common/createcluster.conf";
/// Modules the initramfs needs to find the root disk; what they depend on is loaded before them.
const BOOT_MODULES: &[&str] = &["virtio_blk", "virtio_net"];
/// Raise it when the way the image is put together changes.
const RECIPE_VERSION: u64 = 5;
const ROOT_SIZE: &str = "1500M";

const FETCH_LIMIT: Duration = Duration::from_secs(240);
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(900);
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// A built image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// Modules for the initramfs; per-run programs are appended to it at boot.
    pub initramfs: PathBuf,
    /// Root file system, never written to.
    pub root: PathBuf,
    /// Kernel release.
    pub release: String,
    /// Debian's etcd, for tests on this machine.
    pub etcd: PathBuf,
}

/// Where images are kept: `$LOCKSTEP_CACHE/vm-cache`, or in cargo's target directory.
#[must_use]
pub fn cache_directory() -> PathBuf {
    std::env::var_os("LOCKSTEP_CACHE")
        .map_or_else(target_directory, PathBuf::from)
        .join("vm-cache")
}

/// The image, built if the cache does not have it.
///
/// # Errors
/// If it cannot be built.
pub fn ensure() -> anyhow::Result<Image> {
    let directory = cache_directory().join(format!("image-{:016x}", recipe_hash()));
    if let Ok(release) = fs::read_to_string(directory.join("release")) {
        return Ok(Image::at(&directory, release.trim()));
    }
    // Built beside its place and renamed: a half-built image is never used.
    let building = cache_directory().join(format!("building-{}", std::process::id()));
    remove_all(&building)?;
    fs::create_dir_all(&building)?;
    let result = build(&building);
    if result.is_err() {
        remove_all(&building)?;
    }
    let release = result?;
    if fs::rename(&building, &directory).is_err() {
        // Someone else was faster.
        remove_all(&building)?;
    }
    Ok(Image::at(&directory, &release))
}

impl Image {
    fn at(directory: &Path, release: &str) -> Self {
        Self {
            kernel: directory.join("vmlinuz"),
            initramfs: directory.join("initramfs"),
            root: directory.join("root.ext4"),
            etcd: directory.join("etcd"),
            release: release.to_owned(),
        }
    }
}

fn recipe_hash() -> u64 {
    let text = format!(
        "{RELEASE} {KERNEL_PATTERN} {PACKAGES:?} {LEFT_OUT:?} {PREPARE} {BOOT_MODULES:?} {ROOT_SIZE}"
    );
    text.bytes().fold(
        mix(RECIPE_VERSION),
        |hash, byte| mix(hash ^ u64::from(byte)),
    )
}

fn build(directory: &Path) -> anyhow::Result<String> {
    let mirrors = Mirrors::of_this_machine()?;
    let kernel = directory.join("kernel");
    let release = fetch_kernel(&mirrors, directory, &kernel)?;
    let root = directory.join("root");
    bootstrap(&mirrors, &root)?;

    let step = progress::step(format!("packing the image with kernel {release}"));
    let modules = root.join("usr/lib/modules").join(&release);
    fs::create_dir_all(root.join("usr/lib/modules"))?;
    process::run(
        Command::new("cp")
            .arg("-a")
            .arg(kernel.join("lib/modules").join(&release))
            .arg(&modules),
        STEP_LIMIT,
    )?;
    process::run(
        Command::new("chroot").arg(&root).args(["depmod", &release]),
        STEP_LIMIT,
    )?;
    for name in ["reboot", "poweroff"] {
        let link = root.join("usr/sbin").join(name);
        if !link.exists() {
            symlink(format!("{BIN_DIRECTORY}/vm-guest"), link)?;
        }
    }
    // Outside as well, for the tests of this machine that want a real one.
    fs::copy(root.join("usr/bin/etcd"), directory.join("etcd"))?;
    let initramfs = initramfs(&modules)?;
    fs::write(directory.join("initramfs"), initramfs)?;
    fs::copy(
        kernel.join(format!("boot/vmlinuz-{release}")),
        directory.join("vmlinuz"),
    )?;
    let mut pack = Command::new("mke2fs");
    pack.args([
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-L",
        "lockstep-root",
        "-d",
    ]);
    process::run(
        pack.arg(&root)
            .arg(directory.join("root.ext4"))
            .arg(ROOT_SIZE),
        STEP_LIMIT,
    )?;
    for leftover in ["kernel", "root", "apt"] {
        remove_all(&directory.join(leftover))?;
    }
    fs::write(directory.join("release"), &release)?;
    step.done();
    Ok(release)
}

/// Unpacks the newest kernel of the series into `into`; says its release.
fn fetch_kernel(mirrors: &Mirrors, directory: &Path, into: &Path) -> anyhow::Result<String> {
    let apt = PrivateApt {
        directory: directory.join("apt"),
    };
    let mut failure = None;
    for suite in mirrors.kernel_suites() {
        let name = suite
            .split_whitespace()
            .nth(3)
            .unwrap_or_default()
            .to_owned();
        let step = progress::step(format!("looking for a 6.12 cloud kernel in {name}"));
        match apt.newest_kernel(&suite) {
            Ok(Some(package)) => {
                step.done_with(&package);
                let step = progress::step(format!("fetching {package}"));
                let archive = apt.download(&package)?;
                process::run(
                    Command::new("dpkg-deb").arg("-x").arg(archive).arg(into),
                    STEP_LIMIT,
                )?;
                step.done();
                return Ok(package.trim_start_matches("linux-image-").to_owned());
            }
            Ok(None) => step.done_with("none there"),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no suite has a 6.12 cloud kernel")))
}

/// apt with lists of its own, so that this machine's configuration stays as it is.
struct PrivateApt {
    directory: PathBuf,
}

impl PrivateApt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory);
        for (option, value) in [
            ("Dir::State", "state"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", self.directory.join(value).display()));
        }
        // The cache belongs to whoever runs the tests, which apt's own user may not enter.
        command.args([
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Acquire::Languages=none",
        ]);
        command
    }

    fn newest_kernel(&self, suite: &str) -> anyhow::Result<Option<String>> {
        for part in ["state/lists/partial", "cache/archives/partial", "none"] {
            fs::create_dir_all(self.directory.join(part))?;
        }
        fs::write(self.directory.join("sources.list"), suite)?;
        process::run(
            self.command("apt-get")
                .args(["-q", "update", "--error-on=any"]),
            FETCH_LIMIT,
        )?;
        let found = process::run(
            self.command("apt-cache")
                .args(["search", "--names-only", KERNEL_PATTERN]),
            STEP_LIMIT,
        )?;
        let names = found
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let names = names.filter(|name| name.starts_with("linux-image-6.12."));
        let newest = names.max_by_key(|name| {
            let version = name
                .trim_start_matches("linux-image-")
                .split('+')
                .next()
                .unwrap_or_default();
            version
                .split('.')
                .map(|part| part.parse::<u32>().unwrap_or(0))
                .collect::<Vec<_>>()
        });
        Ok(newest.map(str::to_owned))
    }

    fn download(&self, package: &str) -> anyhow::Result<PathBuf> {
        process::run(
            self.command("apt-get").args(["-q", "download", package]),
            FETCH_LIMIT,
        )?;
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                return Ok(path);
            }
        }
        bail!("apt-get download {package} left no file");
    }
}

fn bootstrap(mirrors: &Mirrors, root: &Path) -> anyhow::Result<()> {
    let step = progress::step(format!(
        "building a Debian {RELEASE} root (a minute or two, once)"
    ));
    let list = root.with_extension("list");
    fs::write(&list, mirrors.root_lines(RELEASE))?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(
            LEFT_OUT
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .arg(format!("--essential-hook={PREPARE}"))
        .env("UCF_FORCE_CONFFOLD", "1")
        .args(
            apt_proxies()?
                .iter()
                .map(|option| format!("--aptopt={option}")),
        )
        .args([Path::new(RELEASE), root, &list]);
    process::run(&mut command, BOOTSTRAP_LIMIT)?;
    fs::remove_file(list)?;
    step.done();
    Ok(())
}

/// mmdebstrap does not read this machine's apt configuration, but it needs its proxies.
fn apt_proxies() -> anyhow::Result<Vec<String>> {
    let dump = process::run(Command::new("apt-config").arg("dump"), STEP_LIMIT)?;
    let is_proxy = |line: &&str| {
        let lower = line.to_ascii_lowercase();
        lower.starts_with("acquire::http") && lower.contains("proxy") && !lower.contains("\"\"")
    };
    Ok(dump.lines().filter(is_proxy).map(str::to_owned).collect())
}

/// Modules in the order they are loaded; the guest's program is appended at boot.
fn initramfs(modules: &Path) -> anyhow::Result<Vec<u8>> {
    let dependencies = fs::read_to_string(modules.join("modules.dep")).context("no modules.dep")?;
    let mut order: Vec<String> = Vec::new();
    for wanted in BOOT_MODULES {
        let is_wanted = |line: &&str| {
            let file = line
                .split(':')
                .next()
                .unwrap_or_default()
                .rsplit('/')
                .next()
                .unwrap_or_default();
            file.split('.').next().unwrap_or_default().replace('-', "_") == *wanted
        };
        let line = dependencies
            .lines()
            .find(is_wanted)
            .with_context(|| format!("no module {wanted}"))?;
        let (module, needs) = line.split_once(':').context("modules.dep")?;
        // modules.dep names the deepest dependency last.
        for path in needs.split_whitespace().rev().chain([module]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    let mut archive = Archive::default();
    let mut list = String::new();
    for path in order {
        let file = modules.join(&path);
        let data = if path.ends_with(".xz") {
            let output = Command::new("xz").arg("-dc").arg(&file).output()?;
            if !output.status.success() {
                bail!("xz could not unpack {path}");
            }
            output.stdout
        } else {
            fs::read(&file)?
        };
        let name = Path::new(path.trim_end_matches(".xz"))
            .file_name()
            .context("a module without a name")?;
        let name = format!("/modules/{}", name.to_string_lossy());
        archive.file(&name, 0o644, &data)?;
        list += &format!("{name}\n");
    }
    archive.file("/modules.list", 0o644, list.as_bytes())?;
    for directory in ["dev", "proc", "sys", "newroot"] {
        archive.directory(directory)?;
    }
    archive.finish()
}

fn remove_all(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
