//! Exclusive hold of a backing or metadata device.
//!
//! O_EXCL keeps mkfs and mount away, but not `dd of=/dev/vdb`. So a private
//! linear device-mapper device is laid over the real one, our I/O goes through
//! it, and the real one is set read-only: write(2) fails at once, while what the
//! device mapper passes down does not ask that flag. The protection stays when the
//! daemon dies, and the next one finds and takes it over.
//!
//! The exclusive open also waits for a dead daemon's writes: its descriptor is
//! held by the kernel until its I/O has ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use thiserror::Error;

use crate::device::{DeviceError, name_path};
use crate::dm::{DeviceNumber, Linear, Mapper};
use crate::identity::Identity;
use crate::sys::{self, Access};

mod measure;

/// How long a dead daemon's writes, or a passing udev, may hold the device.
const HELD_WAIT_MAX: Duration = Duration::from_secs(15);
const HELD_RETRY: Duration = Duration::from_millis(20);
const SECTOR_BYTES: u64 = 512;
/// O_DIRECT files of file systems that do not say better.
const FILE_BLOCK_BYTES: u32 = 512;

/// What the device is for; two claims of a volume must not be mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Data,
    Metadata,
}

#[derive(Debug, Error)]
pub enum ClaimError {
    #[error("cannot open {}", .path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is in use{}", .path.display(), Holders(.holders))]
    InUse { path: PathBuf, holders: Vec<String> },
    #[error("{} is neither a block device nor a regular file", .path.display())]
    Kind { path: PathBuf },
    #[error("{} is read-only", .path.display())]
    ReadOnly { path: PathBuf },
    #[error("{mapping} exists and is not ours (uuid {uuid:?})")]
    ForeignMapping { mapping: String, uuid: String },
    #[error("cannot {action} for {}", .path.display())]
    Protect {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot ask {} for its {what}", .path.display())]
    Ask {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Name(#[from] DeviceError),
}

struct Holders<'a>(&'a [String]);

impl std::fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str(" by a process that holds it exclusively"),
            holders => write!(f, ": {}", holders.join(", ")),
        }
    }
}

/// A device that nobody else uses while this value, or its protection, lives.
///
/// Dropping it closes the descriptor and leaves the write protection: after a
/// crash, or between two daemons, nothing must slip in. `release` ends it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    logical_block_bytes: u32,
    physical_block_bytes: u32,
    protection: Option<Protection>,
    /// Of the real device; a regular file has none.
    number: Option<DeviceNumber>,
}

#[derive(Debug)]
struct Protection {
    mapper: Mapper,
    mapping: String,
    /// The real device, for its read-only flag.
    below: File,
}

impl Claim {
    /// Takes the device, waiting a bounded time for the last user to let go.
    /// Needs CAP_SYS_ADMIN for the write protection.
    pub fn open(path: &Path, volume: &str, part: Part) -> Result<Claim, ClaimError> {
        name_path(volume)?;
        let kind = fs::metadata(path).map_err(|source| open_error(path, source))?;
        if kind.file_type().is_file() {
            return Claim::open_file(path);
        }
        if !kind.file_type().is_block_device() {
            return Err(ClaimError::Kind {
                path: path.to_owned(),
            });
        }
        let number = DeviceNumber {
            major: libc::major(kind.rdev()),
            minor: libc::minor(kind.rdev()),
        };
        match Mapper::open() {
            Ok(mapper) => Claim::open_protected(path, number, mapper, &Names::new(volume, part)),
            Err(error) => {
                tracing::debug!(%error, "no device mapper");
                let file = open_exclusively(path, path, number)?;
                require_writable(path, &file)?;
                Claim::of_block_device(path, file, number, None)
            }
        }
    }

    fn open_protected(
        path: &Path,
        number: DeviceNumber,
        mapper: Mapper,
        names: &Names,
    ) -> Result<Claim, ClaimError> {
        let ask = ask_error(path);
        let found = mapper
            .find(&names.mapping)
            .map_err(protect_error(path, "look for the device mapping"))?;
        let below = File::open(path).map_err(|source| open_error(path, source))?;
        let table = Linear {
            below: number,
            sectors: sys::block_device_bytes(&below).map_err(|error| ask("size", error))?
                / SECTOR_BYTES,
        };
        let mapped = match found {
            Some(known) if known.uuid != names.uuid => {
                return Err(ClaimError::ForeignMapping {
                    mapping: names.mapping.clone(),
                    uuid: known.uuid,
                });
            }
            Some(known) if known.table == Some(table) => known.number,
            Some(known) if known.table.is_some_and(|old| old.below == table.below) => {
                // Same device, grown.
                mapper
                    .load(&names.mapping, table)
                    .map_err(protect_error(path, "resize the device mapping"))?;
                known.number
            }
            Some(_) => {
                retry_while_busy(|| mapper.remove(&names.mapping))
                    .map_err(protect_error(path, "remove the old device mapping"))?;
                map_afresh(path, &mapper, names, table)?
            }
            None => map_afresh(path, &mapper, names, table)?,
        };
        let mapped_path = PathBuf::from(format!("/dev/dm-{}", mapped.minor));
        let file = open_exclusively(&mapped_path, path, mapped)?;
        protect(path, &below)?;
        let mapping = names.mapping.clone();
        let protection = Protection {
            mapper,
            mapping,
            below,
        };
        Claim::of_block_device(path, file, number, Some(protection))
    }

    fn of_block_device(
        path: &Path,
        file: File,
        number: DeviceNumber,
        protection: Option<Protection>,
    ) -> Result<Claim, ClaimError> {
        let ask = ask_error(path);
        Ok(Claim {
            size_bytes: sys::block_device_bytes(&file).map_err(|error| ask("size", error))?,
            logical_block_bytes: sys::logical_block_bytes(&file)
                .map_err(|error| ask("logical block size", error))?,
            physical_block_bytes: sys::physical_block_bytes(&file)
                .map_err(|error| ask("physical block size", error))?,
            path: path.to_owned(),
            file,
            protection,
            number: Some(number),
        })
    }

    /// A regular file: for tests. Locked against other daemons only.
    fn open_file(path: &Path) -> Result<Claim, ClaimError> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| open_error(path, source))?;
        retry_while_busy(|| {
            file.try_lock().map_err(|error| match error {
                fs::TryLockError::WouldBlock => io::Error::from_raw_os_error(libc::EBUSY),
                fs::TryLockError::Error(error) => error,
            })
        })
        .map_err(|source| in_use_or(path, source, || vec!["a lock of another process".into()]))?;
        // File systems in memory refuse it; then the page cache is their disk.
        if let Err(errno) = fcntl(&file, FcntlArg::F_SETFL(OFlag::O_DIRECT)) {
            tracing::debug!(%errno, "no direct I/O on this file");
        }
        let size = file
            .metadata()
            .map_err(|error| ask_error(path)("size", error))?;
        Ok(Claim {
            path: path.to_owned(),
            size_bytes: size.len() / SECTOR_BYTES * SECTOR_BYTES,
            file,
            logical_block_bytes: FILE_BLOCK_BYTES,
            physical_block_bytes: 4096,
            protection: None,
            number: None,
        })
    }

    /// The descriptor for all I/O, opened with O_DIRECT.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn logical_block_bytes(&self) -> u32 {
        self.logical_block_bytes
    }

    pub fn physical_block_bytes(&self) -> u32 {
        self.physical_block_bytes
    }

    pub fn is_block_device(&self) -> bool {
        self.number.is_some()
    }

    /// Which disk the real device is, as the directory `sys` tells.
    pub fn identity(&self, sys: &Path) -> Identity {
        self.number
            .map_or_else(Identity::default, |number| Identity::of(sys, number))
    }

    /// False: somebody with root rights can still write to the device by accident
    /// (no device mapper here). The daemon should warn.
    pub fn write_protected(&self) -> bool {
        self.protection.is_some()
    }

    /// Ends the claim and its protection. All I/O must have completed and no ring
    /// may still have the descriptor registered.
    pub fn release(self) -> Result<(), ClaimError> {
        let Some(protection) = self.protection else {
            return Ok(());
        };
        // The queue thread has given this capability up; it serves no I/O any more.
        sys::restore_sys_admin_of_this_thread()
            .map_err(protect_error(&self.path, "regain CAP_SYS_ADMIN"))?;
        // In this order a crash in between leaves what the next claim finds and mends.
        sys::set_access(&protection.below, Access::ReadWrite)
            .map_err(protect_error(&self.path, "lift the write protection"))?;
        drop(self.file);
        retry_while_busy(|| protection.mapper.remove(&protection.mapping))
            .map_err(protect_error(&self.path, "remove the device mapping"))
    }
}

struct Names {
    mapping: String,
    uuid: String,
}

impl Names {
    fn new(volume: &str, part: Part) -> Names {
        let part = match part {
            Part::Data => "data",
            Part::Metadata => "meta",
        };
        Names {
            mapping: format!("lockstep-{volume}-{part}"),
            uuid: format!("LOCKSTEP-{volume}-{part}"),
        }
    }
}

/// Lays a new mapping over a device that nobody uses.
fn map_afresh(
    path: &Path,
    mapper: &Mapper,
    names: &Names,
    table: Linear,
) -> Result<DeviceNumber, ClaimError> {
    // This open says who is in the way better than the device mapper would.
    let file = open_exclusively(path, path, table.below)?;
    require_writable(path, &file)?;
    drop(file);
    retry_while_busy(|| mapper.create(&names.mapping, &names.uuid, table)).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EBUSY) => in_use_or(path, source, || holders_of(table.below)),
            _ => protect_error(path, "create the device mapping")(source),
        }
    })
}

fn require_writable(path: &Path, file: &File) -> Result<(), ClaimError> {
    match sys::access(file).map_err(|error| ask_error(path)("access", error))? {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => Err(ClaimError::ReadOnly {
            path: path.to_owned(),
        }),
    }
}

fn protect(path: &Path, below: &File) -> Result<(), ClaimError> {
    sys::set_access(below, Access::ReadOnly)
        .map_err(protect_error(path, "set the write protection"))?;
    // What others wrote before would be written back later, over our data.
    below
        .sync_all()
        .and_then(|()| sys::drop_page_cache(below))
        .map_err(protect_error(path, "write back the page cache"))
}

/// `named` is what the user knows the device by.
fn open_exclusively(path: &Path, named: &Path, number: DeviceNumber) -> Result<File, ClaimError> {
    retry_while_busy(|| {
        File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL | libc::O_DIRECT | libc::O_CLOEXEC)
            .open(path)
    })
    .map_err(|source| in_use_or(named, source, || holders_of(number)))
}

/// A new device's node may also be a moment late.
fn retry_while_busy<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + HELD_WAIT_MAX;
    loop {
        match attempt() {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::ENXIO | libc::ENOENT)
                ) && Instant::now() < deadline =>
            {
                thread::sleep(HELD_RETRY);
            }
            result => return result,
        }
    }
}

/// Mounts, swaps and stacked devices on the device or its partitions.
fn holders_of(number: DeviceNumber) -> Vec<String> {
    let DeviceNumber { major, minor } = number;
    let mut holders = Vec::new();
    let Ok(device) = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return holders;
    };
    let mut names = vec![file_name(&device)];
    let children = fs::read_dir(&device).into_iter().flatten().flatten();
    names.extend(
        children
            .filter(|child| child.path().join("partition").exists())
            .map(|partition| file_name(&partition.path())),
    );
    for name in &names {
        let stacked = fs::read_dir(format!("/sys/class/block/{name}/holders"));
        for holder in stacked.into_iter().flatten().flatten() {
            holders.push(format!("{} stands on it", file_name(&holder.path())));
        }
        let numbers = fs::read_to_string(format!("/sys/class/block/{name}/dev"));
        holders.extend(mounts_of(name, numbers.unwrap_or_default().trim()));
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        let swap = |line: &str| line.split_whitespace().next() == Some(&format!("/dev/{name}"));
        if swaps.lines().any(swap) {
            holders.push(format!("{name} is used as swap"));
        }
    }
    holders
}

fn mounts_of(name: &str, numbers: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let source = format!("/dev/{name}");
    mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let from_it = fields.get(2) == Some(&numbers) || fields.contains(&source.as_str());
            let mount_point = fields.get(4)?;
            from_it.then(|| format!("{name} is mounted at {mount_point}"))
        })
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn open_error(path: &Path, source: io::Error) -> ClaimError {
    ClaimError::Open {
        path: path.to_owned(),
        source,
    }
}

fn in_use_or(path: &Path, source: io::Error, holders: impl FnOnce() -> Vec<String>) -> ClaimError {
    if source.raw_os_error() == Some(libc::EBUSY) {
        return ClaimError::InUse {
            path: path.to_owned(),
            holders: holders(),
        };
    }
    open_error(path, source)
}

fn ask_error(path: &Path) -> impl Fn(&'static str, io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |what, source| ClaimError::Ask {
        what,
        path: path.clone(),
        source,
    }
}

fn protect_error(
    path: &Path,
    action: &'static str,
) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::Protect {
        action,
        path,
        source,
    }
}

impl AsRawFd for Claim {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_claimed_once_cannot_be_claimed_again() {
        let path = std::env::temp_dir().join(format!("claim-{}", std::process::id()));
        fs::write(&path, [0; 4096 + 100]).unwrap();
        let claim = Claim::open(&path, "data", Part::Data).unwrap();
        assert_eq!(claim.size_bytes(), 4096 / 512 * 512);
        let other = File::open(&path).unwrap();
        assert!(other.try_lock().is_err());
        claim.release().unwrap();
        assert!(other.try_lock().is_ok());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_character_device_is_refused() {
        let error = Claim::open(Path::new("/dev/null"), "data", Part::Data).unwrap_err();
        assert!(matches!(error, ClaimError::Kind { .. }));
    }

    #[test]
    fn the_two_parts_of_a_volume_have_different_mappings() {
        let data = Names::new("v", Part::Data);
        assert_ne!(data.mapping, Names::new("v", Part::Metadata).mapping);
    }
}
