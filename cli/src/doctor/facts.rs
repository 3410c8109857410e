//! What was found on this machine. No judgement is in it.

use mirror_core::admin::Problem;
use std::net::SocketAddr;
use std::path::PathBuf;

use controlplane::config::ConfigError;

/// Something that was looked at, or why it could not be.
pub(crate) type Seen<T> = Result<T, String>;

/// All of it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) system: System,
    pub(crate) cluster: Cluster,
    /// Whether the cluster's key is here: then the rest of what a node needs has to be here too.
    pub(crate) is_set_up: Seen<bool>,
    pub(crate) programs: Vec<Program>,
    pub(crate) daemon: Daemon,
    pub(crate) secrets: Vec<FileMode>,
    /// What is no secret, and says what root does.
    pub(crate) files: Vec<FileMode>,
    pub(crate) directories: Vec<Directory>,
    pub(crate) paths: Vec<Path>,
    pub(crate) ports: Vec<Port>,
    pub(crate) volumes: Vec<Volume>,
    /// Why it is not known which volumes there are.
    pub(crate) unlisted: Option<String>,
}

/// The machine itself.
#[derive(Clone, Debug)]
pub(crate) struct System {
    /// As `uname -r` says it.
    pub(crate) kernel: Seen<String>,
    pub(crate) ublk: Module,
    /// Whether `/dev/ublk-control` is there.
    pub(crate) ublk_control: bool,
    pub(crate) driver: Driver,
    pub(crate) mapper: Module,
    /// Whether `/dev/mapper/control` is there.
    pub(crate) mapper_control: bool,
    /// `kernel.io_uring_disabled`; `None`: this kernel has no such switch.
    pub(crate) io_uring_disabled: Seen<Option<u64>>,
    pub(crate) rights: Seen<Rights>,
    pub(crate) memory: Memory,
    /// Whether the kernel counts its clock as synchronised.
    pub(crate) clock: Seen<bool>,
    pub(crate) watchdogs: Vec<Watchdog>,
}

/// How a kernel module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    /// Loaded, or part of the kernel.
    Loaded,
    /// It can be loaded.
    Loadable,
    /// The running kernel has none.
    Absent,
    /// The kernel's modules are not on this machine.
    Unknown,
}

/// What the ublk driver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    Can(Features),
    /// It does not answer, although root asks: no daemon can start either.
    Refuses {
        said: String,
        advice: String,
    },
    Unseen(String),
}

/// What the ublk driver can do, of what Lockstep uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// A daemon that died is replaced under a device in use.
    pub(crate) recovery: bool,
    /// A device in use grows.
    pub(crate) resize: bool,
}

/// Of the process that looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Effective user.
    pub(crate) user: u32,
    /// Effective capabilities, a bit each.
    pub(crate) capabilities: u64,
}

impl Rights {
    pub(crate) fn has(self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }
}

/// Memory, bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What can be had without swapping.
    pub(crate) available: Seen<u64>,
    /// What `lockstepd` may lock, if it runs; else what this process may. `u64::MAX`: all.
    pub(crate) lockable: Seen<u64>,
    /// Whether that is of a `lockstepd` that runs.
    pub(crate) of_daemon: bool,
    /// Areas that the kernel swaps to.
    pub(crate) swaps: Seen<Vec<Swap>>,
}

/// A device or a file that the kernel swaps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) path: String,
    /// Whether a ublk device is below it.
    pub(crate) on_ublk: Seen<bool>,
}

/// A watchdog, by sysfs: the device itself is never opened, for that arms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watchdog {
    /// `watchdog0`.
    pub(crate) name: String,
    /// What its driver calls it.
    pub(crate) identity: String,
    /// Somebody has armed it; `None`: this kernel does not tell.
    pub(crate) armed: Option<bool>,
}

/// `cluster.toml`.
#[derive(Debug)]
pub(crate) enum Cluster {
    /// There is none.
    Absent { path: PathBuf },
    /// It cannot be read here, which says nothing about it.
    Unseen { path: PathBuf, why: String },
    /// It cannot be used, or this machine is none of its nodes.
    Wrong { path: PathBuf, error: ConfigError },
    /// As the node reads it.
    Node {
        path: PathBuf,
        name: String,
        warnings: usize,
        /// The watchdog device that it gives this node.
        watchdog: Option<PathBuf>,
    },
}

/// A program of Lockstep on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What `--version` says, without the name.
    pub(crate) version: Seen<String>,
}

/// `lockstepd` on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// It answers; the release that it is of, if it tells.
    Answers {
        node: String,
        version: Option<String>,
        /// What it says of certificates and the authority, if somebody should look.
        trust: Option<Problem>,
    },
    /// Nobody listens.
    Silent(String),
    /// Somebody listens, and no good answer came.
    Broken(String),
    /// Only root may ask.
    Unseen(String),
}

/// A file and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileMode {
    pub(crate) path: PathBuf,
    /// What it is, in words.
    pub(crate) what: &'static str,
    pub(crate) need: Need,
    /// Mode and owner; `None`: it is not there.
    pub(crate) mode: Seen<Option<(u32, u32)>>,
}

/// Whether a file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// What does not work without it, and how to get it.
    Wanted {
        why: &'static str,
        advice: &'static str,
    },
    /// It may be there.
    Optional,
}

/// A directory of Lockstep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) what: &'static str,
    pub(crate) keeps: Keeps,
    /// Mode and owner; `None`: it is made when it is needed.
    pub(crate) mode: Seen<Option<(u32, u32)>>,
    /// Of the file system that holds it, or would.
    pub(crate) room: Seen<Room>,
}

/// What is written into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Files that need room.
    Records,
    /// What needs none.
    Sockets,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    pub(crate) writable: bool,
}

/// A way to the other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// `interconnect 1`, `mirror link of data, path 2`.
    pub(crate) what: String,
    /// Paths of one set stand in for each other.
    pub(crate) set: String,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// The interface with the local address; `None`: no interface has it.
    pub(crate) nic: Seen<Option<Nic>>,
    /// The interface by which the kernel would send from the local address to the peer, or why it cannot.
    pub(crate) route: Result<String, String>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) name: String,
    /// `operstate` of sysfs.
    pub(crate) state: Seen<String>,
    /// IPv6: another machine has the address.
    pub(crate) is_duplicate: bool,
}

/// A port that a daemon of this node listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) what: String,
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    /// The program that may have it.
    pub(crate) owner: &'static str,
    /// Its process, where it is known which one.
    pub(crate) pid: Option<u32>,
    /// Who has it.
    pub(crate) holder: Seen<Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    Process {
        pid: u32,
        name: String,
    },
    /// It listens on every IPv6 address; whether that takes IPv4 as well, is not told.
    Perhaps {
        pid: u32,
        name: String,
    },
    /// Somebody whose processes this one may not look into.
    Hidden,
    /// None of the processes here.
    Nowhere,
}

/// A volume of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) devices: Result<Vec<Device>, NoDevices>,
    /// Whether its daemon listens.
    pub(crate) runs: Seen<bool>,
    /// What `ublk-mirror check` says, where no daemon runs.
    pub(crate) looked: Looked,
}

/// Why a volume's devices are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoDevices {
    /// Its file cannot be used.
    Wrong(String),
    /// It cannot be read here, which says nothing about it.
    Unseen(String),
}

/// What `ublk-mirror check` says of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// Configuration and metadata fit.
    Fits,
    /// They do not, with its code.
    Wrong {
        code: String,
        what: String,
        advice: String,
    },
    /// It was not asked, or could not say.
    Unseen(String),
    /// The daemon runs, and looked itself.
    Runs,
    /// Its daemon's socket is there, and nobody is taken in; in words.
    Silent(String),
}

/// A backing or metadata device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) part: &'static str,
    pub(crate) kind: DeviceKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Block(Block),
    /// A regular file.
    File,
    /// Neither.
    Other,
    Absent,
    Unseen(String),
}

/// A block device, by sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// `vdb`.
    pub(crate) name: String,
    /// Its directory: that of a partition is in that of its disk.
    pub(crate) place: PathBuf,
    pub(crate) size_bytes: u64,
    pub(crate) read_only: bool,
    /// Names of what stands on it or on its partitions: `lockstep-data-data`, `vg0-root`, `md0`.
    pub(crate) stacked: Vec<String>,
    /// Mount points, of it or its partitions.
    pub(crate) mounts: Seen<Vec<String>>,
    /// Whether it or a partition is swapped to.
    pub(crate) swap: Seen<bool>,
    /// What the kernel believes of its cache: `write back`, `write through`.
    pub(crate) cache: Option<String>,
    /// Where that can be changed.
    pub(crate) cache_file: PathBuf,
    /// What the disk says itself.
    pub(crate) disk_cache: Option<String>,
}
