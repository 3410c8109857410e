//! The volumes of this node and their devices. Devices are looked at in sysfs; what is on one, `ublk-mirror check` reads.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use controlplane::daemons::Door;
use controlplane::resources::mounts;
use nix::libc;

use super::{Root, answer, limit, soon, unread};
use crate::config::{self, VolumeConfig};
use crate::doctor::facts::{Block, Device, DeviceKind, Looked, NoDevices, Seen, Volume};
use crate::programs;

const SECTOR_BYTES: u64 = 512;
/// What the file says instead of a metadata device.
const INTERNAL: &str = "internal";

/// A volume with what else is known of it.
pub(super) struct Found {
    pub(super) volume: Volume,
    /// Its file, if it can be read.
    pub(super) file: Option<VolumeConfig>,
    /// Its daemon, if one listens.
    pub(super) pid: Option<u32>,
}

/// All volumes.
pub(super) fn volumes(root: &Root, is_root: bool) -> Seen<Vec<Found>> {
    let names = soon(|| config::list().map_err(|error| unread(&error))).flatten();
    let names = names.map_err(|why| format!("the volumes cannot be listed: {why}"))?;
    let found = names.into_iter().map(|name| volume(root, name, is_root));
    Ok(found.collect())
}

fn volume(root: &Root, name: String, is_root: bool) -> Found {
    let places = programs::places(&name);
    let path = places.configuration();
    let read = read(&path);
    let door =
        soon(move || places.door()).unwrap_or_else(|why| Door::Unclear(io::Error::other(why)));
    let pid = match &door {
        Door::Open(Some(process)) => u32::try_from(process.pid).ok(),
        Door::Open(None) | Door::Closed | Door::Unclear(_) => None,
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
    let looked = match (&read, &door) {
        // Whoever opens it next may wait for it as well.
        (Err(_), Door::Closed) => Looked::Unseen("its file is not read".to_string()),
        (_, door) => looked(&path, door, is_root),
    };
    let runs = match door {
        Door::Open(_) => Ok(true),
        Door::Closed => Ok(false),
        Door::Unclear(error) => Err(unreachable_for(&error)),
    };
    let volume = Volume {
        name,
        file: path,
        devices,
        runs,
        looked,
    };
    let file = read.ok();
    Found { volume, file, pid }
}

/// The volume's file. That it may not be read here says nothing about it.
pub(super) fn read(path: &Path) -> Result<VolumeConfig, NoDevices> {
    let own = path.to_path_buf();
    let text = soon(move || limit::text(&own)).map_err(NoDevices::Unseen)?;
    let text = text.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return NoDevices::Unseen(unread(&error));
        }
        NoDevices::Wrong(error.to_string())
    })?;
    toml::from_str(&text).map_err(|error| NoDevices::Wrong(error.message().to_string()))
}

fn unreachable_for(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return "its daemon may not be asked; run it as root".to_string();
    }
    if kind == io::ErrorKind::WouldBlock {
        return "its daemon listens and takes nobody in".to_string();
    }
    format!("its daemon cannot be asked: {error}")
}

pub(super) fn looked(file: &Path, door: &Door, is_root: bool) -> Looked {
    match door {
        Door::Unclear(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Looked::Unseen(unreachable_for(error));
        }
        Door::Unclear(error) => {
            return Looked::Silent(unreachable_for(error));
        }
        Door::Open(_) => return Looked::Runs,
        Door::Closed if !is_root => {
            return Looked::Unseen(
                "only root may read keys and devices; run it as root".to_string(),
            );
        }
        Door::Closed => {}
    }
    let file = file.to_path_buf();
    let command = move || {
        let mut command = programs::mirror();
        command.arg("check").arg("--config").arg(file);
        command
    };
    match answer(command) {
        Err(why) => Looked::Unseen(format!("ublk-mirror cannot be asked: {why}")),
        Ok(output) if output.status.success() => Looked::Fits,
        Ok(output) => refused(&String::from_utf8_lossy(&output.stderr)),
    }
}

/// What `ublk-mirror` said.
pub(super) fn refused(said: &str) -> Looked {
    let Some(problem) = programs::refusal(said) else {
        let first = said.lines().next().unwrap_or("nothing");
        return Looked::Unseen(format!("ublk-mirror says: {first}"));
    };
    Looked::Wrong {
        code: problem.code,
        what: problem.message,
        advice: problem.advice,
    }
}

fn device(root: &Root, path: PathBuf, part: &'static str) -> Device {
    let own = path.clone();
    let kind = match soon(move || fs::metadata(own)) {
        Err(why) => DeviceKind::Unseen(why),
        Ok(found) => kind(root, found),
    };
    Device { path, part, kind }
}

fn kind(root: &Root, found: io::Result<fs::Metadata>) -> DeviceKind {
    match found {
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
    }
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
        mounts: mounted(root, &all),
        swap: swapped(root, &all),
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

fn mounted(root: &Root, places: &[PathBuf]) -> Seen<Vec<String>> {
    let text = root.seen("proc/self/mountinfo")?;
    let all = mounts::of_text(&text);
    let mut found = Vec::new();
    for place in places {
        let number = root.seen(place.join("dev"))?;
        let node = PathBuf::from("/dev").join(last(place));
        // btrfs makes its numbers up, and has the device as the source.
        let own =
            |mount: &&mounts::Mount| mount.device == number || Path::new(&mount.source) == node;
        let own = all.iter().filter(own);
        found.extend(own.map(|mount| mount.mount_point.display().to_string()));
    }
    Ok(found)
}

fn swapped(root: &Root, places: &[PathBuf]) -> Seen<bool> {
    let text = root.seen("proc/swaps")?;
    let nodes: Vec<String> = places
        .iter()
        .map(|place| format!("/dev/{}", last(place)))
        .collect();
    let areas = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(areas
        .into_iter()
        .any(|area| nodes.iter().any(|node| node == area)))
}

/// Whether a device, or one below it (LVM, LUKS, RAID), is a ublk device.
pub(super) fn stands_on_ublk(root: &Root, place: &Path, depth_left: u32) -> Seen<bool> {
    if place.to_string_lossy().contains("/ublkb") {
        return Ok(true);
    }
    let slaves = place.join("slaves");
    for slave in root.names(&slaves) {
        if depth_left == 0 {
            return Err("too many devices are below it".to_string());
        }
        let below = root
            .place(slaves.join(&slave))
            .map_err(|error| format!("{slave} below it: {error}"))?;
        if stands_on_ublk(root, &below, depth_left - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
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
