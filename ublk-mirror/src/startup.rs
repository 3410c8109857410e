//! From a configuration to a running driver. The order matters and is explained where it does.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use mirror_core::disk::{Metadata, Superblock};
use mirror_core::limits::{
    COPY_CHUNK_BYTES, COPY_RETRY_AFTER, HOT_EXTENTS_DEFAULT, REQUEST_BYTES_MAX,
};
use mirror_core::types::{BootId, Incarnation};
use mirror_core::volume::{DeviceAtStart, Settings, Volume};
use nix::sys::signal::{SigSet, Signal};
use thiserror::Error;

use crate::admin_server::AdminServer;
use crate::buffers::BufferError;
use crate::claim::{Claim, ClaimError, Part};
use crate::config::{Config, ConfigError};
use crate::device::{DeviceError, DeviceHelper};
use crate::device_control::state_file::{DeviceRecord, StateFile};
use crate::device_control::{DeviceControl, DeviceSettings};
use crate::disown::{DisownError, DisownMark};
use crate::driver::{Driver, DriverError, Parts, now};
use crate::explain::Explain;
use crate::front::Front;
use crate::identity::SYSFS;
use crate::inbox::{Inbox, Message};
use crate::key_file::{KeyFile, KeyFileError};
use crate::local_disk::{DATA_BUFFERS, LocalDisk};
use crate::metadata::{self, Devices, MetadataError, Persister};
use crate::peer_link::{
    LINK_BUFFER_BYTES, LinkSettings, PathAddresses, PeerLink, SESSION_BUFFERS, SESSIONS,
};
use crate::ring::{DATA_FILE, METADATA_FILE, Ring, pools};
use crate::sys;

mod leftovers;

/// Where sockets, locks and records are.
pub const RUNTIME_DIRECTORY: &str = "/run/lockstep";
/// Where blocks of discarded sides are kept, in [`DISCARDED_DIRECTORY`].
pub const STATE_DIRECTORY: &str = "/var/lib/lockstep";
pub const DISCARDED_DIRECTORY: &str = "discarded";
const UBLK_CONTROL: &str = "/dev/ublk-control";
const OWNER_CONTEXT: &str = "lockstep 2026-11 device owner";
const SIGNAL_STACK_BYTES: usize = 64 * 1024;

/// Whether there is a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ublk {
    With,
    /// For tests on machines without ublk: holds a copy, cannot be activated.
    Without,
}

#[derive(Clone, Debug)]
pub struct RunOptions {
    pub config: PathBuf,
    pub runtime_dir: PathBuf,
    pub state_dir: PathBuf,
    pub ublk: Ublk,
}

/// Why the daemon does not start, or ended.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("this machine has no {UBLK_CONTROL}")]
    NoUblk,
    #[error("cannot leave the machine's mount namespace")]
    Namespace(#[source] io::Error),
    #[error("cannot claim a device")]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("cannot read the cluster's key again")]
    Keys(#[from] KeyFileError),
    #[error("cannot make the I/O buffers")]
    Buffers(#[from] BufferError),
    #[error("cannot make the ring (io_uring)")]
    Ring(#[source] io::Error),
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the admin socket {}", .path.display())]
    Admin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action}")]
    Process {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Disown(#[from] DisownError),
    #[error("cannot work with ublk")]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Explain for RunError {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Lock(error) => error.code(),
            Self::NoUblk => "LS3020",
            Self::Namespace(_) | Self::Process { .. } => "LS3035",
            Self::Claim(_) => "LS3036",
            Self::Metadata(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::Buffers(_) => "LS3037",
            Self::Ring(_) => "LS3033",
            Self::Listen { .. } => "LS3024",
            Self::Admin { .. } => "LS3038",
            Self::Disown(error) => error.code(),
            Self::Device(_) => "LS3026",
            Self::Driver(error) => error.code(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Config(error) => error.advice(),
            Self::Lock(error) => error.advice(),
            Self::NoUblk => "load the module (`modprobe ublk_drv`); it is part of Linux 6.8 and later, in some \
                             distributions in a package of extra modules"
                .into(),
            Self::Namespace(_) | Self::Process { .. } => "run the daemon as root, under its systemd unit".into(),
            Self::Claim(error) => claim_advice(error).into(),
            Self::Metadata(error) => error.advice(),
            Self::Keys(error) => error.advice(),
            Self::Buffers(_) => "run the daemon as root with LimitMEMLOCK=infinity and some hundred MiB of free memory".into(),
            Self::Ring(_) => "see that io_uring is allowed (sysctl kernel.io_uring_disabled = 0) and the kernel is 6.8 or later".into(),
            Self::Listen { .. } => "see that `node.address` is an address of this machine and nobody else uses the port".into(),
            Self::Admin { .. } => "see that the runtime directory is there and writable".into(),
            Self::Disown(error) => error.advice(),
            Self::Device(_) => "look at the kernel's log; `modprobe ublk_drv`".into(),
            Self::Driver(error) => error.advice(),
        }
    }
}

/// What to do about a device that could not be claimed.
pub fn claim_advice(error: &ClaimError) -> &'static str {
    match error {
        ClaimError::Open { .. } => "see that `backing` and `metadata` name devices that are there",
        ClaimError::InUse { .. } => "unmount it and stop what uses it (`lsblk`, `fuser -v DEVICE`)",
        ClaimError::Kind { .. } => "name a block device",
        ClaimError::ReadOnly { .. } => "make it writable (`blockdev --setrw DEVICE`)",
        ClaimError::ForeignMapping { .. } => "remove that mapping or rename the volume",
        ClaimError::Protect { .. } | ClaimError::Ask { .. } => "look at the kernel's log",
        ClaimError::Name(_) => "correct `volume`",
    }
}

/// Why the volume's lock cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    #[error("another process of volume {volume:?} runs on this node ({} is locked)", .path.display())]
    Held { volume: String, path: PathBuf },
    #[error("cannot lock {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Explain for LockError {
    fn code(&self) -> &'static str {
        match self {
            Self::Held { .. } => "LS3021",
            Self::Io { .. } => "LS3039",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Held { volume, .. } => {
                format!("`lockstep volume status {volume}` shows it; stop it first")
            }
            Self::Io { .. } => "run as root; see that the runtime directory can be written".into(),
        }
    }
}

/// Only one process works on a volume of a node at a time; the kernel frees the lock with it.
#[derive(Debug)]
pub struct VolumeLock(#[allow(dead_code, reason = "held, not read")] File);

impl VolumeLock {
    pub fn take(runtime_dir: &Path, volume: &str) -> Result<VolumeLock, LockError> {
        let path = runtime_dir.join(format!("{volume}.lock"));
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(runtime_dir).map_err(failed)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // Whoever may open it may lock it, and would keep the daemon from starting.
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(VolumeLock(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Held {
                volume: volume.into(),
                path,
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Runs the daemon until an operator ends it.
pub fn run(options: &RunOptions) -> Result<(), RunError> {
    run_behind(options, |begun| match options.ublk {
        Ublk::With => prepare_device(begun, options),
        Ublk::Without => Ok((None::<DeviceControl>, None)),
    })
}

/// The same behind another front than ublk, for benchmarks; [`Ublk::Without`] in `options`. `front` is given what the
/// metadata say. The program itself does not come here.
///
/// # Errors
/// As [`run`].
pub fn run_with<F: Front>(
    options: &RunOptions,
    front: impl FnOnce(&Superblock) -> F,
) -> Result<(), RunError> {
    run_behind(options, |begun| {
        Ok((Some(front(&begun.disks.metadata.superblock)), None))
    })
}

/// What there is before the front.
struct Begun<'a> {
    config: &'a Config,
    disks: &'a Disks,
    boot: BootId,
    inbox: &'a Arc<Inbox>,
}

fn run_behind<F: Front>(
    options: &RunOptions,
    front: impl FnOnce(&Begun<'_>) -> Result<Prepared<F>, RunError>,
) -> Result<(), RunError> {
    let begun = std::time::Instant::now();
    let config = Config::load(&options.config)?;
    let _lock = VolumeLock::take(&options.runtime_dir, &config.volume)?;
    if options.ublk == Ublk::With {
        if !Path::new(UBLK_CONTROL).exists() {
            return Err(RunError::NoUblk);
        }
        // Before any device is opened or thread started, see there.
        leave_the_mounts().map_err(RunError::Namespace)?;
    }
    warn_if_failed(
        sys::set_io_flusher(),
        "mark the thread as one that memory reclaim depends on",
    );
    let signals = block_signals().map_err(process("block signals"))?;
    let mut disks = Disks::claim(&config, options.ublk)?;
    let inbox = Arc::new(Inbox::new().map_err(process("make an eventfd"))?);
    let boot = BootId(sys::boot_id().map_err(process("read the boot id"))?);
    // Before anything believes the metadata.
    let disown = disks.believe(options, &config, boot)?;
    // Before the memory is locked: the helper starts with a small copy of this process.
    let (device, recovered) = front(&Begun {
        config: &config,
        disks: &disks,
        boot,
        inbox: &inbox,
    })?;
    stay_in_memory();
    let at_start = match recovered {
        Some(_) => DeviceAtStart::Recovered,
        None => DeviceAtStart::None,
    };
    let ring = make_ring(&disks)?;
    let data_start_sectors = disks.metadata.superblock.data_start_sectors;
    let settings = settings(&config, boot)?;
    let volume = Volume::new(settings, disks.metadata, at_start, now());
    let link = make_link(&config, volume.dials())?;
    let path = options.runtime_dir.join(format!("{}.sock", config.volume));
    let keys = KeyFile::new(&config.key_file, config.keys().cluster());
    let admin = AdminServer::start(&path, inbox.clone(), keys.clone());
    let admin = admin.map_err(|source| RunError::Admin { path, source })?;
    // Whoever rotated them since they were read found no daemon here to tell.
    keys.read_again(&inbox)?;
    watch_signals(signals, inbox.clone()).map_err(process("start a thread"))?;
    let mut parts = Parts {
        volume,
        ring,
        disk: LocalDisk::new(data_start_sectors),
        persister: Persister::new(SESSION_BUFFERS),
        disown,
        link,
        device,
        inbox,
        unanswered: admin.unanswered(),
        discarded_dir: options.state_dir.join(DISCARDED_DIRECTORY),
        claims: std::iter::once(disks.data).chain(disks.separate).collect(),
    };
    if let Some(device) = &mut parts.device {
        device.begin(&mut parts.ring, recovered)?;
    }
    tracing::info!(
        code = "LS2021",
        volume = config.volume,
        node = config.node.name,
        peer = config.peer.name,
        version = env!("CARGO_PKG_VERSION"),
        took_ms = begun.elapsed().as_millis(),
        "the daemon is ready"
    );
    Driver::new(parts).run()?;
    tracing::info!(code = "LS2022", "the daemon has ended");
    Ok(())
}

fn stay_in_memory() {
    warn_if_failed(sys::lock_all_memory(), "lock the process's memory");
    warn_if_failed(
        sys::shield_from_oom_killer(),
        "protect the process from the out-of-memory killer",
    );
}

fn leave_the_mounts() -> io::Result<()> {
    // Told here alone: the helper and the threads of the logs let go of the same ones.
    for (mount_point, device) in sys::enter_private_mount_namespace()? {
        tracing::info!(mount_point, device, "letting go of a mount on ublk");
    }
    Ok(())
}

fn process(action: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Process { action, source }
}

/// The claimed devices and what their metadata say.
struct Disks {
    data: Claim,
    separate: Option<Claim>,
    metadata: Metadata,
}

impl Disks {
    fn claim(config: &Config, ublk: Ublk) -> Result<Disks, RunError> {
        let data = Claim::open(&config.backing, &config.volume, Part::Data)?;
        let separate = match &config.metadata {
            Some(path) => Some(Claim::open(path, &config.volume, Part::Metadata)?),
            None => None,
        };
        if ublk == Ublk::With && data.is_block_device() && !data.write_protected() {
            tracing::warn!(
                code = "LS3040",
                "no device mapper: root can still write to {} by accident",
                config.backing.display()
            );
        }
        let holds_metadata = separate.as_ref().unwrap_or(&data);
        let devices = Devices {
            size_bytes: data.size_bytes(),
            logical_block_bytes: data.logical_block_bytes(),
            metadata_size_bytes: holds_metadata.size_bytes(),
            identity: data.identity(Path::new(SYSFS)),
        };
        let metadata = match metadata::load(holds_metadata.file(), config, &devices) {
            Ok(metadata) => metadata,
            Err(error) => {
                if matches!(error, MetadataError::Backing { .. }) {
                    let_go(std::iter::once(data).chain(separate));
                }
                return Err(error.into());
            }
        };
        Ok(Disks {
            data,
            separate,
            metadata,
        })
    }
}

impl Disks {
    /// What the metadata say is believed, unless an earlier run of this boot disowned them.
    fn believe(
        &mut self,
        options: &RunOptions,
        config: &Config,
        boot: BootId,
    ) -> Result<DisownMark, DisownError> {
        let holds_metadata = self.separate.as_ref().unwrap_or(&self.data);
        DisownMark::at_start(
            &options.runtime_dir,
            config,
            boot,
            holds_metadata.file(),
            &mut self.metadata.superblock,
        )
    }
}

/// The disk may be another volume's: its daemon could not have it under our protection.
fn let_go(claims: impl Iterator<Item = Claim>) {
    for claim in claims {
        let path = claim.path().to_owned();
        if let Err(error) = claim.release() {
            tracing::warn!(code = "LS3042", %error, "{} stays protected", path.display());
        }
    }
}

fn make_link(config: &Config, dials: bool) -> Result<PeerLink, RunError> {
    let pairs = config.node.addresses.iter().zip(&config.peer.addresses);
    let settings = LinkSettings {
        paths: pairs
            .map(|(local, remote)| PathAddresses {
                local: *local,
                remote: *remote,
            })
            .collect(),
        dials,
        timeout: config.tuning.link_timeout,
        patience: config.tuning.keepalive_interval * 2,
    };
    PeerLink::new(settings, now()).map_err(|(address, source)| RunError::Listen { address, source })
}

fn make_ring(disks: &Disks) -> Result<Ring, RunError> {
    use std::os::fd::AsRawFd;
    let payload_bytes = REQUEST_BYTES_MAX.max(COPY_CHUNK_BYTES);
    let link_bytes = u32::try_from(LINK_BUFFER_BYTES).expect("a small constant");
    // One more for the metadata.
    let (payload, link) = pools(DATA_BUFFERS, payload_bytes, SESSION_BUFFERS + 1, link_bytes)?;
    let ring = Ring::new(payload, link, SESSIONS).map_err(RunError::Ring)?;
    let metadata = disks.separate.as_ref().unwrap_or(&disks.data);
    ring.register(DATA_FILE, disks.data.as_raw_fd())
        .map_err(RunError::Ring)?;
    ring.register(METADATA_FILE, metadata.as_raw_fd())
        .map_err(RunError::Ring)?;
    Ok(ring)
}

fn settings(config: &Config, boot: BootId) -> Result<Settings, RunError> {
    let random = |source| RunError::Process {
        action: "get random numbers",
        source,
    };
    let mut seed = [0; 32];
    sys::fill_random(&mut seed).map_err(random)?;
    Ok(Settings {
        volume_name: config.padded_name(),
        node: config.node_id(),
        peer: config.peer_id(),
        node_name: config.node.name.clone(),
        peer_name: config.peer.name.clone(),
        keys: config.keys(),
        boot,
        incarnation: Incarnation(sys::random_u64().map_err(random)?),
        seed,
        keepalive_interval: config.tuning.keepalive_interval,
        link_timeout: config.tuning.link_timeout,
        read_lease: config.tuning.read_lease,
        disk_timeout: config.tuning.disk_timeout,
        copy_retry: COPY_RETRY_AFTER,
        hot_extents_max: HOT_EXTENTS_DEFAULT,
    })
}

/// The front, and the device of a dead daemon whose recovery has begun.
type Prepared<F> = (Option<F>, Option<u32>);

fn prepare_device(
    begun: &Begun<'_>,
    options: &RunOptions,
) -> Result<Prepared<DeviceControl>, RunError> {
    let Begun {
        config,
        disks,
        boot,
        inbox,
    } = *begun;
    let superblock = &disks.metadata.superblock;

    let owner = blake3::derive_key(OWNER_CONTEXT, &config.padded_name());
    let owner_tag = u64::from_le_bytes(owner[..8].try_into().expect("8 bytes"));
    let mut helper = DeviceHelper::spawn()?;
    let state_file = StateFile::new(&options.runtime_dir, &config.volume);
    let recovered = leftovers::recover_or_remove(
        &mut helper,
        &config.volume,
        owner_tag,
        &state_file,
        superblock,
        boot,
    )?;
    let view = superblock.view.id.to_string();
    let settings = DeviceSettings {
        name: config.volume.clone(),
        size_sectors: superblock.size_sectors,
        logical_block_bytes: superblock.logical_block_bytes,
        physical_block_bytes: disks
            .data
            .physical_block_bytes()
            .max(superblock.logical_block_bytes),
        chunk_sectors: superblock.chunk_sectors,
        owner_tag,
        record: DeviceRecord {
            dev_id: 0,
            boot: boot.to_string(),
            view,
        },
    };
    Ok((
        Some(DeviceControl::new(
            helper,
            settings,
            state_file,
            inbox.clone(),
        )?),
        recovered,
    ))
}

/// Signals that end the daemon come to a thread of their own.
fn block_signals() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(signals)
}

fn watch_signals(signals: SigSet, inbox: Arc<Inbox>) -> io::Result<()> {
    let watch = move || {
        while let Ok(signal) = signals.wait() {
            // Nobody sends it a second time.
            inbox.put_when_there_is_room(Message::Signal(signal.as_str()));
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .stack_size(SIGNAL_STACK_BYTES)
        .spawn(watch)
        .map(drop)
}

/// Things without which the daemon works, if less safely under memory pressure.
fn warn_if_failed(result: io::Result<()>, what: &'static str) {
    if let Err(error) = result {
        tracing::warn!(code = "LS3041", %error, "cannot {what}");
    }
}
