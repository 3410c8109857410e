//! Devices that hold copies of volumes: only a daemon writes to them, also while it is stopped.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mirror_core::disk::{SUPERBLOCK_BYTES, SUPERBLOCK_SLOTS, SlotFault, Superblock};
use nix::libc;
use serde::Deserialize;

use crate::config;
use crate::failure::Failure;

/// What a configuration says of devices; the rest is the daemon's.
#[derive(Deserialize)]
struct Devices {
    backing: PathBuf,
    /// `internal`, or a device.
    metadata: PathBuf,
}

/// The volume of this node that has its data or metadata there: on that device, on a part of it, or on a device of
/// which it is a part.
///
/// # Errors
/// A configuration cannot be read: nobody knows what it names.
pub(crate) fn volume_on(found: &Metadata) -> Result<Option<String>, Failure> {
    for volume in config::volumes() {
        let path = config::path_of(&volume)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::file(&path, "read", &error)),
        };
        let devices: Devices = toml::from_str(&text).map_err(|error| unclear(&path, &error))?;
        for device in [&devices.backing, &devices.metadata] {
            // What is not there is not what was found.
            if fs::metadata(device).is_ok_and(|device| overlap(&device, found)) {
                return Ok(Some(volume));
            }
        }
    }
    Ok(None)
}

fn unclear(path: &Path, error: &toml::de::Error) -> Failure {
    let (path, why) = (path.display(), error.message());
    Failure::new(
        "LS4014",
        format!(
            "{path} does not say which devices its volume has ({why}), so nothing can be written over any; nothing was \
             written"
        ),
        "mend that file, or move it away if there is no such volume any more",
    )
}

fn overlap(one: &Metadata, other: &Metadata) -> bool {
    match (
        one.file_type().is_block_device(),
        other.file_type().is_block_device(),
    ) {
        (true, true) if one.rdev() == other.rdev() => true,
        (true, true) => match (in_sysfs(one.rdev()), in_sysfs(other.rdev())) {
            // The directory of a partition is in that of its disk.
            (Some(one), Some(other)) => one.starts_with(&other) || other.starts_with(&one),
            _ => false,
        },
        (false, false) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn in_sysfs(number: u64) -> Option<PathBuf> {
    let (major, minor) = (libc::major(number), libc::minor(number));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()
}

/// Whether a superblock is there, also a damaged one or one of another version.
pub(crate) fn carries_a_copy(device: &File) -> io::Result<bool> {
    for (slot, place) in (0..).zip(SUPERBLOCK_SLOTS) {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        match device.read_exact_at(&mut bytes, place) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        let decoded = Superblock::decode(&bytes, slot);
        if !matches!(decoded, Err(SlotFault::NotASuperblock)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_in_either_place_is_seen_also_a_damaged_one() {
        let path = std::env::temp_dir().join(format!("lockstep-copies-{}", std::process::id()));
        let device = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        assert!(!carries_a_copy(&device).unwrap(), "too short for any");
        device.set_len(1 << 20).unwrap();
        assert!(!carries_a_copy(&device).unwrap());
        for place in SUPERBLOCK_SLOTS {
            device.write_all_at(b"LOCKSTEP", place).unwrap();
            assert!(carries_a_copy(&device).unwrap(), "at {place}");
            device.write_all_at(b"lockstep", place).unwrap();
            assert!(!carries_a_copy(&device).unwrap());
        }
        fs::remove_file(&path).unwrap();
    }
}
