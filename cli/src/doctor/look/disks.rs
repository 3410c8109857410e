//! The volumes of this node and their devices. Devices are looked at in sysfs; what is on one, `ublk-mirror check` reads.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use controlplane::daemons::Door;
use controlplane::resources::mounts;
use nix::libc;

use super::{Root, answer};
use crate::config::{self, VolumeConfig};
use crate::doctor::facts::{Block, Device, DeviceKind, Looked, Seen, Volume};
use crate::programs;

const SECTOR_BYTES: u64 = 512;
/// What the file says instead of a metadata device.
const INTERNAL: &str = "internal";

/// All volumes, each with its file, if it can be read.
pub(super) fn volumes(root: &Root, is_root: bool) -> Vec<(Volume, Option<VolumeConfig>)> {
    let names = config::volumes().into_iter();
    names.map(|name| volume(root, name, is_root)).collect()
}

fn volume(root: &Root, name: String, is_root: bool) -> (Volume, Option<VolumeConfig>) {
    let places = programs::places(&name);
    let file = places.configuration();
    let read = fs::read_to_string(&file)
        .map_err(|error| error.to_string())
        .and_then(|text| {
            toml::from_str::<VolumeConfig>(&text).map_err(|error| error.message().to_string())
        });
    let runs = match places.door() {
        Door::Open(_) => Ok(true),
        Door::Closed => Ok(false),
        Door::Unclear(error) => Err(format!("its daemon cannot be asked: {error}")),
    };
    let devices = read.as_ref().map_err(Clone::clone).map(|file| {
        let metadata = (file.metadata != INTERNAL).then(|| PathBuf::from(&file.metadata));
        let all = [
            (Some(file.backing.clone()), "backing device"),
            (metadata, "metadata device"),
        ];
        let named = all
            .into_iter()
            .filter_map(|(path, part)| Some((path?, part)));
        named.map(|(path, part)| device(root, path, part)).collect()
    });
    let looked = looked(&file, &runs, is_root);
    let volume = Volume {
        name,
        file,
        devices,
        runs,
        looked,
    };
    (volume, read.ok())
}

fn looked(file: &Path, runs: &Seen<bool>, is_root: bool) -> Looked {
    match runs {
        Err(why) => return Looked::Unseen(why.clone()),
        Ok(true) => return Looked::Runs,
        Ok(false) if !is_root => {
            return Looked::Unseen(
                "only root may read keys and devices; run it as root".to_string(),
            );
        }
        Ok(false) => {}
    }
    let mut command = programs::mirror();
    command.arg("check").arg("--config").arg(file);
    match answer(command) {
        Err(why) => Looked::Unseen(format!("ublk-mirror cannot be asked: {why}")),
        Ok(output) if output.status.success() => Looked::Fits,
        Ok(output) => refused(&String::from_utf8_lossy(&output.stderr)),
    }
}

/// `ublk-mirror: LS3017: what` and, in a line of its own, `what to do: advice`.
pub(super) fn refused(said: &str) -> Looked {
    let parts = said.lines().find_map(|line| {
        let (code, what) = line.strip_prefix("ublk-mirror: ")?.split_once(": ")?;
        code.starts_with("LS").then_some((code, what))
    });
    let Some((code, what)) = parts else {
        let first = said.lines().next().unwrap_or("nothing");
        return Looked::Unseen(format!("ublk-mirror says: {first}"));
    };
    let advice = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("what to do: "));
    Looked::Wrong {
        code: code.to_string(),
        what: what.to_string(),
        advice: advice.unwrap_or_default().to_string(),
    }
}

fn device(root: &Root, path: PathBuf, part: &'static str) -> Device {
    let kind = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => DeviceKind::Absent,
        Err(error) => DeviceKind::Unseen(format!("it cannot be looked at: {error}")),
        Ok(found) if found.file_type().is_block_device() => {
            let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
            match block(root, major, minor) {
                Ok(block) => DeviceKind::Block(block),
                Err(why) => DeviceKind::Unseen(why),
            }
        }
        Ok(found) if found.is_file() => DeviceKind::File,
        Ok(_) => DeviceKind::Other,
    };
    Device { path, part, kind }
}

/// A block device by its numbers.
pub(super) fn block(root: &Root, major: u32, minor: u32) -> Seen<Block> {
    let link = format!("sys/dev/block/{major}:{minor}");
    let place = root
        .place(&link)
        .map_err(|error| format!("/{link}: {error}"))?;
    let name = last(&place);
    let is_partition = root.exists(place.join("partition"));
    let disk = match place.parent() {
        Some(parent) if is_partition => parent.to_path_buf(),
        Some(_) | None => place.clone(),
    };
    let parts = root.names(&place).into_iter();
    let parts = parts.filter(|child| root.exists(place.join(child).join("partition")));
    let all: Vec<PathBuf> = std::iter::once(place.clone())
        .chain(parts.map(|child| place.join(child)))
        .collect();
    let sectors: u64 = root
        .seen(place.join("size"))?
        .parse()
        .map_err(|_| format!("the size of {name} is no number"))?;
    let cache_file = disk.join("queue/write_cache");
    Ok(Block {
        size_bytes: sectors.saturating_mul(SECTOR_BYTES),
        read_only: root.text(place.join("ro")).is_ok_and(|text| text == "1"),
        stacked: all.iter().flat_map(|own| stacked(root, own)).collect(),
        mounts: all.iter().flat_map(|own| mounted(root, own)).collect(),
        swap: all.iter().any(|own| swapped(root, own)),
        cache: root.text(&cache_file).ok(),
        disk_cache: disk_cache(root, &disk),
        cache_file: Path::new("/").join(cache_file),
        name,
        place,
    })
}

fn last(path: &Path) -> String {
    let name = path.file_name();
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// What stands on it, by the name that people know it by.
fn stacked(root: &Root, place: &Path) -> Vec<String> {
    let holders = root.names(place.join("holders")).into_iter();
    let named = holders.map(|holder| {
        let mapped = root.text(format!("sys/class/block/{holder}/dm/name"));
        mapped.unwrap_or(holder)
    });
    named.collect()
}

fn mounted(root: &Root, place: &Path) -> Vec<String> {
    let number = root.text(place.join("dev")).unwrap_or_default();
    let node = PathBuf::from("/dev").join(last(place));
    let text = root.text("proc/self/mountinfo").unwrap_or_default();
    let all = mounts::of_text(&text).into_iter();
    // btrfs makes its numbers up, and has the device as the source.
    let own = all.filter(|mount| mount.device == number || Path::new(&mount.source) == node);
    own.map(|mount| mount.mount_point.display().to_string())
        .collect()
}

fn swapped(root: &Root, place: &Path) -> bool {
    let node = format!("/dev/{}", last(place));
    let text = root.text("proc/swaps").unwrap_or_default();
    text.lines()
        .any(|line| line.split_whitespace().next() == Some(node.as_str()))
}

/// SCSI disks and virtio disks say themselves which cache they have.
fn disk_cache(root: &Root, disk: &Path) -> Option<String> {
    let scsi = disk.join("device/scsi_disk");
    let of_scsi = root
        .names(&scsi)
        .into_iter()
        .find_map(|name| root.text(scsi.join(name).join("cache_type")).ok());
    of_scsi.or_else(|| root.text(disk.join("cache_type")).ok())
}
