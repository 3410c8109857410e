//! Several machines with networks between them.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::binaries::{Binaries, build_guest, target_directory};
use crate::cpio::Archive;
use crate::disk::{Disk, DiskMode};
use crate::image::{self, Image};
use crate::ledger::{Ledger, Recorder};
use crate::machine::Machine;
use crate::network::{self, Fabric, Net};
use crate::process::Guarded;
use crate::progress;
use crate::qemu::Hardware;
use crate::raw_disk::RawDisk;
use crate::ticks;
use crate::write_log::Order;

const MEMORY_MIB: usize = 768;
const MACHINES_MAX: usize = 9;
/// A KVM that is an emulation itself takes minutes for what takes a good one a second.
const KVM_PROBE_LIMIT: Duration = Duration::from_secs(5);
const TCG: &str = "tcg,thread=multi,tb-size=128";

/// Describes a cluster.
#[derive(Clone)]
pub struct ClusterBuilder {
    artifacts: PathBuf,
    nodes: usize,
    extra: Vec<String>,
    disks: Vec<(String, u64, DiskMode)>,
    raw_disks: Vec<(String, u64)>,
    raw_directory: PathBuf,
    files: Vec<PathBuf>,
    modules: Vec<String>,
    memory_mib: usize,
    shells: Shells,
}

/// Which nodes have a shell on a second serial line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shells {
    None,
    First,
    All,
}

impl Shells {
    fn has(self, number: usize) -> bool {
        match self {
            Self::None => false,
            Self::First => number == 1,
            Self::All => true,
        }
    }
}

impl ClusterBuilder {
    pub(crate) fn new(artifacts: PathBuf) -> Self {
        Self {
            artifacts,
            nodes: 2,
            extra: Vec::new(),
            disks: Vec::new(),
            raw_disks: Vec::new(),
            raw_directory: target_directory().join("vm-run"),
            files: Vec::new(),
            modules: vec!["ublk_drv".to_owned()],
            memory_mib: MEMORY_MIB,
            shells: Shells::None,
        }
    }

    /// How many nodes (`node1`, `node2`, ...); two if not said.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// One more machine, without data disks (a witness, a client).
    #[must_use]
    pub fn extra_machine(mut self, name: &str) -> Self {
        self.extra.push(name.to_owned());
        self
    }

    /// A disk in every node, found there at `/dev/disk/by-id/virtio-NODE-NAME`.
    #[must_use]
    pub fn disk(mut self, name: &str, size: u64, mode: DiskMode) -> Self {
        self.disks.push((name.to_owned(), size, mode));
        self
    }

    /// The same for figures: QEMU reads and writes a file itself, past the page cache. It has no faults.
    pub(crate) fn raw_disk(mut self, name: &str, size: u64) -> Self {
        self.raw_disks.push((name.to_owned(), size));
        self
    }

    /// Where the files of such disks are; in cargo's target directory if not said.
    pub(crate) fn raw_directory(mut self, directory: &Path) -> Self {
        self.raw_directory = directory.to_owned();
        self
    }

    /// Programs for `/opt/bin` of every machine.
    #[must_use]
    pub fn binaries(mut self, binaries: &Binaries) -> Self {
        self.files.extend(binaries.files.iter().cloned());
        self
    }

    /// A kernel module that is loaded at boot (`ublk_drv` always is).
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Memory of each machine.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: usize) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Gives the first node a shell on a second serial line.
    pub(crate) fn shell(mut self) -> Self {
        self.shells = Shells::First;
        self
    }

    /// Gives every node a shell on a second serial line.
    #[must_use]
    pub fn shells(mut self) -> Self {
        self.shells = Shells::All;
        self
    }

    /// Boots all machines and waits for them.
    ///
    /// # Errors
    /// If one does not boot.
    pub fn boot(self) -> anyhow::Result<Cluster> {
        let guest = build_guest()?;
        let image = image::ensure()?;
        let accelerator = accelerator(&image, &guest)?;
        let machines = self.nodes + self.extra.len();
        if machines == 0 || machines > MACHINES_MAX {
            bail!("1 to {MACHINES_MAX} machines");
        }
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let directory = RunDirectory::new(number)?;
        let initramfs = directory.0.join("initramfs");
        write_initramfs(&image, &guest, &self.files, &initramfs)?;
        fs::create_dir_all(&self.artifacts)?;
        let fabric = Arc::new(Fabric::new(number, machines)?);
        let recorder = Recorder::default();
        let mut names: Vec<String> = (1..=self.nodes)
            .map(|number| format!("node{number}"))
            .collect();
        names.extend(self.extra.iter().cloned());
        let hosts: Vec<String> = (1_usize..)
            .zip(&names)
            .map(|(number, name)| format!("{}={name}", Net::Inter.address(number)))
            .collect();
        let mut list = Vec::new();
        for (number, name) in (1_usize..).zip(&names) {
            // The extra machines have none.
            let (disks, raw_disks) = if number <= self.nodes {
                self.disks_of(name, &directory)?
            } else {
                Default::default()
            };
            let console = self.artifacts.join(format!("{name}.console"));
            let _ = fs::remove_file(&console);
            let has_shell = self.shells.has(number);
            let shell_socket = has_shell.then(|| shell_path(&directory.0, name));
            let hardware = Hardware {
                name: name.clone(),
                number,
                memory_mib: self.memory_mib,
                accelerator: accelerator.clone(),
                image: image.clone(),
                initramfs: initramfs.clone(),
                command_line: self.command_line(name, number, &hosts, &accelerator),
                disks,
                raw_disks,
                fabric: Arc::clone(&fabric),
                run_directory: directory.0.clone(),
                console,
                shell_socket,
            };
            list.push(Machine::new(hardware, recorder.clone()));
        }
        let step = progress::step(format!("booting {}", names.join(", ")));
        for machine in &list {
            machine.start_boot()?;
        }
        for machine in &list {
            machine.finish_boot()?;
        }
        step.done();
        Ok(Cluster {
            machines: list,
            recorder,
            directory,
        })
    }

    fn disks_of(
        &self,
        machine: &str,
        directory: &RunDirectory,
    ) -> anyhow::Result<(Vec<Disk>, Vec<RawDisk>)> {
        let mut served = Vec::new();
        for (disk, size, mode) in &self.disks {
            let full = format!("{machine}-{disk}");
            let socket = directory.0.join(format!("{full}.disk"));
            served.push(Disk::new(&full, *size, *mode, socket)?);
        }
        let raw = self.raw_disks.iter().map(|(disk, size)| {
            RawDisk::new(&format!("{machine}-{disk}"), *size, &self.raw_directory)
        });
        Ok((served, raw.collect::<anyhow::Result<_>>()?))
    }

    fn command_line(
        &self,
        name: &str,
        number: usize,
        hosts: &[String],
        accelerator: &str,
    ) -> String {
        let cards: Vec<String> = Net::ALL
            .iter()
            .map(|net| {
                format!(
                    "{},{},{}/24",
                    net.card(),
                    net.mac(number),
                    net.address(number)
                )
            })
            .collect();
        let shell = if self.shells.has(number) {
            " lockstep.shell"
        } else {
            ""
        };
        // Under KVM the host says it itself.
        let ticks = (accelerator == TCG).then(ticks::khz).flatten();
        let ticks = ticks.map_or(String::new(), |khz| format!(" tsc_early_khz={khz}"));
        // no_timer_check: on a busy host the kernel would miss the ticks that it looks for, and panic.
        format!(
            "console=ttyS0 panic=1 loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on \
             rdinit=/init lockstep.host={name} lockstep.modules={} lockstep.net={} lockstep.hosts={}{shell}{ticks}",
            self.modules.join(","),
            cards.join(";"),
            hosts.join(",")
        )
    }
}

/// Running machines; dropping it ends them and removes everything but the artifacts.
pub struct Cluster {
    // The order of the fields is the order of their end: machines before the directory of their sockets.
    machines: Vec<Machine>,
    recorder: Recorder,
    directory: RunDirectory,
}

impl Cluster {
    /// A machine by name.
    ///
    /// # Panics
    /// If there is none: the scenario is wrong.
    #[must_use]
    pub fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.name() == name);
        found.unwrap_or_else(|| panic!("no machine {name}"))
    }

    /// What the ledger writers with these runs did, on all machines, in the order the host heard of it.
    #[must_use]
    pub fn ledger(&self, runs: &[u32]) -> Ledger {
        self.recorder.ledger(runs)
    }

    /// What numbers the ledger and the disks that are recorded.
    #[must_use]
    pub fn order(&self) -> Order {
        self.recorder.order()
    }

    /// Cuts a network between two machines silently, both ways.
    ///
    /// # Errors
    /// If one of them refuses.
    pub fn cut(&self, a: &Machine, b: &Machine, net: Net) -> anyhow::Result<()> {
        a.ignore(b, net)?;
        b.ignore(a, net)
    }

    /// Directory of this cluster's sockets.
    pub(crate) fn shell_socket(&self) -> PathBuf {
        shell_path(
            &self.directory.0,
            self.machines.first().map_or("node1", Machine::name),
        )
    }

    /// Where a machine's shell answers, if it was given one.
    #[must_use]
    pub fn shell_socket_of(&self, machine: &Machine) -> PathBuf {
        shell_path(&self.directory.0, machine.name())
    }
}

impl Deref for Cluster {
    type Target = [Machine];

    fn deref(&self) -> &[Machine] {
        &self.machines
    }
}

fn shell_path(directory: &Path, node: &str) -> PathBuf {
    directory.join(format!("{node}.shell"))
}

struct RunDirectory(PathBuf);

impl RunDirectory {
    fn new(number: usize) -> anyhow::Result<Self> {
        network::remove_leftovers()?;
        let path = network::run_directory(number);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What is left is removed at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The image's initramfs with the programs of this run behind it: a new program needs no new image.
fn write_initramfs(
    image: &Image,
    guest: &PathBuf,
    files: &[PathBuf],
    into: &PathBuf,
) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    let guest = fs::read(guest)?;
    archive.file("init", 0o755, &guest)?;
    archive.file("payload/vm-guest", 0o755, &guest)?;
    for file in files {
        let name = file
            .file_name()
            .context("a program without a name")?
            .to_string_lossy()
            .into_owned();
        let data = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        archive.file(&format!("payload/{name}"), 0o755, &data)?;
    }
    let mut bytes = fs::read(&image.initramfs)?;
    bytes.extend(archive.finish()?);
    fs::write(into, bytes)?;
    Ok(())
}

/// KVM if it is there and quick, otherwise emulation. Remembered in the cache.
fn accelerator(image: &Image, guest: &PathBuf) -> anyhow::Result<String> {
    let remembered = image::cache_directory().join("accelerator");
    if let Ok(known) = fs::read_to_string(&remembered) {
        return Ok(known);
    }
    let answer = if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
    {
        let step = progress::step("trying whether KVM is usable");
        let usable = probe_kvm(image, guest).unwrap_or(false);
        step.done_with(if usable { "yes" } else { "no, emulating" });
        if usable { "kvm" } else { TCG }
    } else {
        TCG
    };
    fs::write(remembered, answer)?;
    Ok(answer.to_owned())
}

fn probe_kvm(image: &Image, guest: &PathBuf) -> anyhow::Result<bool> {
    let directory = RunDirectory::new(usize::MAX)?;
    let (initramfs, console) = (directory.0.join("initramfs"), directory.0.join("console"));
    write_initramfs(image, guest, &[], &initramfs)?;
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-accel",
        "kvm",
        "-cpu",
        "max",
        "-m",
        "256",
        "-display",
        "none",
        "-nodefaults",
        "-no-reboot",
    ]);
    command
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&initramfs);
    command.args([
        "-append",
        "console=ttyS0 panic=1 rdinit=/init lockstep.probe",
        "-serial",
    ]);
    command.arg(format!("file:{}", console.display()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut qemu = Guarded::spawn(command, "the KVM probe")?;
    let ended = qemu.wait(KVM_PROBE_LIMIT).is_ok();
    let said = fs::read(&console).unwrap_or_default();
    Ok(ended && String::from_utf8_lossy(&said).contains("lockstep-probe-alive"))
}
