//! A mount of a volume.
//!
//! The journal is replayed by mounting. An unmount is believed when the mount is gone and nobody else holds the device:
//! a lazy unmount, or a copy of the mount in another namespace, would write on.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane_core::group::{Manner, Outcome};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cage::Cage;
use super::mark::{Mark, Phase};
use super::mounts::{self, Mount, name_users, users};
use super::{Context, Places, ResourceError};

/// Users of a mount have so long to end before they are killed.
const TERM_TIME: Duration = Duration::from_secs(5);
/// A busy mount is tried again for so long: the last process may be on its way out.
const BUSY_TIME: Duration = Duration::from_secs(1);
/// The highest end of `fsck` with which the file system is sound: errors were corrected.
const FSCK_CORRECTED: i32 = 1;

/// The superblocks of all three types lie within: btrfs has its own at 64 KiB.
const SUPERBLOCKS_BYTES: u64 = 128 * 1024;

/// Whether the file system is checked before it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsck {
    /// Mounting replays the journal.
    Never,
    /// `fsck -p` before each mount.
    Auto,
}

/// What is done about processes that keep the mount busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// They are named, and the stop fails.
    Name,
    /// They are asked to end, then killed.
    Kill,
}

/// A mount of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Which volume.
    pub volume: String,
    /// `ext4`, `xfs` or `btrfs`.
    pub kind: String,
    /// Where.
    pub mount_point: PathBuf,
    /// As in `mount -o`.
    pub options: String,
    /// The check.
    pub fsck: Fsck,
    /// The users.
    pub users: Users,
}

impl FileSystem {
    pub(super) fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        let ours = self.ours(&context.places)?;
        let device = fs::canonicalize(context.places.device(&self.volume)).ok();
        Ok(match ours.last() {
            // Unmounted, but not everywhere: the mark stays until that is over.
            None if Self::marked(&context.places)?.is_some_and(|device| is_held(&device)) => {
                Outcome::Failed
            }
            None => Outcome::Absent,
            // Of an earlier activation: dead for ever (S12), and in the way.
            Some(mount) if device.as_deref() != Some(Path::new(&mount.source)) => Outcome::Failed,
            Some(_) => Outcome::Done,
        })
    }

    pub(super) fn start(&self, context: &Context) -> Result<(), ResourceError> {
        let link = context.places.device(&self.volume);
        let device = fs::canonicalize(&link)
            .map_err(ResourceError::io(format!("find {}", link.display())))?;
        fs::create_dir_all(&self.mount_point).map_err(ResourceError::io(format!(
            "make {}",
            self.mount_point.display()
        )))?;
        if let Some(other) = self.here()?.pop() {
            return Err(ResourceError::Occupied {
                mount_point: self.mount_point.clone(),
                holder: other.source,
            });
        }
        if self.fsck == Fsck::Auto {
            self.check(&device, context)?;
        }
        context.limit.check()?;
        let mark = Mark {
            source: Some(device.display().to_string()),
            ..Mark::new(Phase::Starting)
        };
        mark.write(&context.places)?;
        let (flags, data) = parse_options(&self.options);
        let data = (!data.is_empty()).then_some(data.as_str());
        mount(
            Some(&device),
            &self.mount_point,
            Some(self.kind.as_str()),
            flags,
            data,
        )
        .map_err(|errno| self.not_mounted(&device, errno))?;
        let mark = Mark {
            phase: Phase::Online,
            ..mark
        };
        mark.write(&context.places)
    }

    fn not_mounted(&self, device: &Path, errno: Errno) -> ResourceError {
        let (device, mount_point) = (device.to_path_buf(), self.mount_point.clone());
        if errno == Errno::EINVAL && is_empty(&device).unwrap_or(false) {
            return ResourceError::Empty {
                device,
                mount_point,
            };
        }
        ResourceError::Mount {
            device,
            mount_point,
            source: errno.into(),
        }
    }

    pub(super) fn stop(&self, manner: Manner, context: &Context) -> Result<(), ResourceError> {
        let kills = manner == Manner::Hard || self.users == Users::Kill;
        let mut device = Self::marked(&context.places)?;
        while let Some(mount) = self.ours(&context.places)?.pop() {
            self.unmount(manner, kills, context)?;
            device = Some(PathBuf::from(mount.source));
        }
        if let Some(device) = device {
            self.see_it_gone(&device, context)?;
        }
        Mark::remove(&context.places)
    }

    /// The mounts at the mount point, the uppermost last.
    fn here(&self) -> Result<Vec<Mount>, ResourceError> {
        let mut all = mounts::read().map_err(ResourceError::io("read /proc/self/mountinfo"))?;
        all.retain(|mount| mount.mount_point == self.mount_point);
        Ok(all)
    }

    /// The device that was last mounted.
    fn marked(places: &Places) -> Result<Option<PathBuf>, ResourceError> {
        let source = Mark::read(places)?.and_then(|mark| mark.source);
        Ok(source.map(PathBuf::from))
    }

    /// Those of this resource: of the volume's device, or of the one that it had when it was mounted.
    fn ours(&self, places: &Places) -> Result<Vec<Mount>, ResourceError> {
        let device = fs::canonicalize(places.device(&self.volume)).ok();
        let marked = Self::marked(places)?;
        let ours = |mount: &Mount| {
            let source = Some(Path::new(&mount.source));
            device.as_deref() == source || marked.as_deref() == source
        };
        let mut here = self.here()?;
        here.retain(ours);
        Ok(here)
    }

    fn unmount(&self, manner: Manner, kills: bool, context: &Context) -> Result<(), ResourceError> {
        let began = std::time::Instant::now();
        let mut asked = None;
        loop {
            match umount2(&self.mount_point, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => return Ok(()),
                Err(Errno::EBUSY) => {}
                Err(errno) => {
                    let what = format!("unmount {}", self.mount_point.display());
                    return Err(ResourceError::errno(what)(errno));
                }
            }
            let late = context.limit.check();
            let patience = began.elapsed() < BUSY_TIME;
            if late.is_err() || (!kills && !patience) {
                return Err(ResourceError::Busy {
                    mount_point: self.mount_point.clone(),
                    users: name_users(&self.mount_point),
                });
            }
            if kills {
                let since = *asked.get_or_insert_with(std::time::Instant::now);
                let last = manner == Manner::Hard || since.elapsed() >= TERM_TIME;
                let signal = if last {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                self.signal_users(signal);
            }
            std::thread::sleep(super::limit::LOOK * 5);
        }
    }

    fn signal_users(&self, signal: Signal) {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        for user in users(&self.mount_point) {
            if user.pid > 1 && user.pid != own {
                let (pid, name, what) = (user.pid, user.name, user.what);
                tracing::debug!(pid, name, what, %signal, "a user of the mount");
                if let Err(errno) = kill(Pid::from_raw(pid), signal) {
                    tracing::debug!(pid, %errno, "it is gone");
                }
            }
        }
    }

    /// Nobody else holds the device. A device that is gone, or fenced, cannot be written by anybody.
    fn see_it_gone(&self, device: &Path, context: &Context) -> Result<(), ResourceError> {
        // The kernel lets the device go a moment after the last unmount.
        let limit = context.limit.within(BUSY_TIME);
        let waited = limit.wait_until(|| Ok(!is_held(device)));
        waited.map_err(|_| ResourceError::StillHeld {
            device: device.to_path_buf(),
            mount_point: self.mount_point.clone(),
        })
    }

    fn check(&self, device: &Path, context: &Context) -> Result<(), ResourceError> {
        let device = device.display().to_string();
        let command = [format!("fsck.{}", self.kind), "-p".to_string(), device];
        let cage = Cage::of(&context.places);
        let status = cage.run(&command, context)?;
        cage.remove();
        if status.code().is_some_and(|code| code <= FSCK_CORRECTED) {
            return Ok(());
        }
        Err(ResourceError::Check {
            command: command.join(" "),
            status,
            log: context.places.log(),
        })
    }
}

/// Whether a device begins with nothing: no file system has its superblock there.
fn is_empty(device: &Path) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(device)?
        .take(SUPERBLOCKS_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Whether somebody holds a block device for itself, as a mount does.
fn is_held(device: &Path) -> bool {
    let open = File::options()
        .read(true)
        .custom_flags(nix::libc::O_EXCL | nix::libc::O_NONBLOCK)
        .open(device);
    open.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY))
}

/// Flags of the kernel, and what the file system has to understand itself.
pub fn parse_options(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "defaults" | "rw" => {}
            "ro" => flags |= MsFlags::MS_RDONLY,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "lazytime" => flags |= MsFlags::MS_LAZYTIME,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_of_the_kernel_or_words_of_the_file_system() {
        let (flags, data) = parse_options("noatime,data=ordered,ro,,errors=remount-ro");
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert_eq!(data, "data=ordered,errors=remount-ro");
        assert_eq!(parse_options("defaults"), (MsFlags::empty(), String::new()));
    }
}
