//! The volumes' devices.

use std::path::Path;

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Block, Device, DeviceKind, Facts, Looked, NoDevices, Volume};
use crate::doctor::{Area, Check, Fault, Outcome};
use crate::size;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    if let Some(why) = &facts.unlisted {
        return vec![Check::new(Area::Disks, "volume", unseen(why))];
    }
    if facts.volumes.is_empty() {
        let why = "no volume was created on this machine yet";
        return [
            "volume",
            "device",
            "device-name",
            "device-use",
            "write-cache",
        ]
        .map(|name| super::nothing(Area::Disks, name, why))
        .to_vec();
    }
    let mut checks = Vec::new();
    for volume in &facts.volumes {
        checks.push(Check::new(Area::Disks, "volume", looked(volume)).at(volume.name.clone()));
        let devices = match &volume.devices {
            Ok(devices) => devices,
            // The line above has it.
            Err(_) => continue,
        };
        for device in devices {
            let place = format!("{}, {} {}", volume.name, device.part, device.path.display());
            let check = |name, outcome| Check::new(Area::Disks, name, outcome).at(place.clone());
            checks.push(check("device", there(volume, device)));
            checks.push(check("device-name", name(volume, device)));
            if let DeviceKind::Block(block) = &device.kind {
                checks.push(check(
                    "device-use",
                    users(volume, device, block, &facts.volumes),
                ));
                checks.push(check("write-cache", cache(block)));
            }
        }
    }
    checks
}

fn looked(volume: &Volume) -> Outcome {
    let file = volume.file.display();
    match &volume.devices {
        Ok(_) => {}
        Err(NoDevices::Unseen(why)) => return unseen(&format!("{file}: {why}")),
        Err(NoDevices::Wrong(why)) => {
            return error(
                "LS5002",
                format!("{file}: {why}"),
                "its daemon cannot read it either",
                "correct the file",
            );
        }
    }
    match &volume.looked {
        Looked::Runs => good("its daemon runs; `lockstep volume status` says how it is"),
        Looked::Fits => good("its configuration and metadata fit; no daemon runs"),
        Looked::Wrong { code, what, advice } => Outcome::Error(Fault::new(
            code,
            what,
            "its daemon does not start so",
            advice,
        )),
        Looked::Silent(what) => error(
            "LS6123",
            what,
            "nobody can ask or tell it anything, lockstepd neither",
            "see by `ps` whether it is stopped (T: `kill -CONT`) or waits for a disk (D: the kernel's log), and read its log",
        ),
        Looked::Unseen(why) => unseen(why),
    }
}

fn runs(volume: &Volume) -> bool {
    volume.runs == Ok(true)
}

fn there(volume: &Volume, device: &Device) -> Outcome {
    let path = device.path.display();
    let block = match &device.kind {
        DeviceKind::Absent => {
            return error(
                "LS6151",
                format!("there is no {path}"),
                "the volume's daemon does not start, or has lost its disk",
                "see that the disk is there (`lsblk`), and that `backing` and `metadata` name it as it is after each boot",
            );
        }
        DeviceKind::Other => {
            return error(
                "LS6151",
                format!("{path} is no block device"),
                "a copy is on a block device",
                "name a block device",
            );
        }
        DeviceKind::File => {
            return warning(
                "LS6151",
                format!("{path} is a regular file"),
                "it is not protected from others, and its file system may not flush as a disk does: for tests only",
                "use a block device",
            );
        }
        DeviceKind::Unseen(why) => return unseen(why),
        DeviceKind::Block(block) => block,
    };
    // What our mapping protects is read-only for everybody else.
    if block.read_only && !runs(volume) && !block.stacked.iter().any(|name| is_own(volume, name)) {
        return error(
            "LS6151",
            format!("{} is read-only", block.name),
            "the volume's daemon does not start",
            format!(
                "see who made it so (`lsblk`, the disk's own switch); if nobody meant it, and no mapping stands on it: \
                 `blockdev --setrw {path}`"
            ),
        );
    }
    good(format!("{}, {}", block.name, size::bytes(block.size_bytes)))
}

/// The mappings that protect a volume's devices (docs/adr/0003).
fn is_own(volume: &Volume, mapping: &str) -> bool {
    let parts = ["data", "meta"];
    parts
        .iter()
        .any(|part| mapping == format!("lockstep-{}-{part}", volume.name))
}

fn users(volume: &Volume, device: &Device, block: &Block, all: &[Volume]) -> Outcome {
    if let Some(twice) = shared(volume, device, block, all) {
        return error(
            "LS6153",
            format!("{} is {twice} as well", block.name),
            "one of both would overwrite the other",
            "give each a device of its own; `lsblk` shows what is where",
        );
    }
    let mounts = block.mounts.iter().flatten();
    let mut found: Vec<String> = mounts.map(|place| format!("mounted at {place}")).collect();
    if block.swap == Ok(true) {
        found.push("used as swap".to_string());
    }
    let foreign = block.stacked.iter().filter(|name| !is_own(volume, name));
    found.extend(foreign.map(|name| format!("a part of {name}")));
    let gap = block.mounts.as_ref().err().or(block.swap.as_ref().err());
    if let Some(why) = gap.filter(|_| found.is_empty()) {
        return unseen(why);
    }
    if found.is_empty() {
        return good(match (runs(volume), block.stacked.is_empty()) {
            (true, _) => "its daemon holds it",
            (false, false) => "protected for its daemon",
            (false, true) => "nobody else uses it",
        });
    }
    error(
        "LS6152",
        format!("{} is {}", block.name, found.join(", ")),
        "the volume's daemon wants it alone: what else is written there destroys the copy",
        "see first whether the volume names the right device (`lsblk`): if not, correct `backing` or `metadata`; if so, stop what \
         uses it (`fuser -v DEVICE`), and unmount it",
    )
}

fn name(volume: &Volume, device: &Device) -> Outcome {
    if !may_change(&device.path) {
        return good("it does not depend on the order in which a boot finds disks");
    }
    let (path, file) = (device.path.display(), volume.file.display());
    warning(
        "LS6260",
        format!("after a boot {path} may be another disk"),
        "the kernel gives such names in the order in which it finds disks. Another one is refused and the volume stays down (LS3017, \
         LS3049); a backing device that says nothing of itself is not told from others, and its data would be overwritten",
        format!(
            "see which names it has (`ls -l /dev/disk/by-id /dev/disk/by-partuuid`), give it one of them in {file}, and start the \
             volume's daemon anew"
        ),
    )
}

/// Whether it is one of the kernel's names for disks and their partitions, or for mappings: they are given as these are found.
pub(super) fn may_change(path: &Path) -> bool {
    let Some(name) = path
        .strip_prefix("/dev")
        .ok()
        .and_then(|name| name.to_str())
    else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| !text.is_empty() && digits(text);
    // `1` and `1p2`.
    let and_partition = |text: &str| match text.split_once('p') {
        Some((disk, partition)) => number(disk) && number(partition),
        None => number(text),
    };
    let lettered = ["sd", "vd"].iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| {
            let partition = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
            // More letters are no disk.
            (1..=3).contains(&(rest.len() - partition.len())) && digits(partition)
        })
    });
    let nvme = || {
        let rest = name.strip_prefix("nvme")?;
        let (drive, namespace) = rest.split_once('n')?;
        Some(number(drive) && and_partition(namespace))
    };
    lettered
        || nvme() == Some(true)
        || name.strip_prefix("mmcblk").is_some_and(and_partition)
        || name.strip_prefix("dm-").is_some_and(number)
}

/// What else the same device, a part of it, or the whole of it is.
fn shared(volume: &Volume, device: &Device, block: &Block, all: &[Volume]) -> Option<String> {
    let overlap = |other: &Path| other.starts_with(&block.place) || block.place.starts_with(other);
    for other in all {
        for found in other.devices.iter().flatten() {
            let same = other.name == volume.name && found.part == device.part;
            let DeviceKind::Block(found_block) = &found.kind else {
                continue;
            };
            if !same && overlap(&found_block.place) {
                return Some(format!("the {} of {}", found.part, other.name));
            }
        }
    }
    None
}

fn cache(block: &Block) -> Outcome {
    match (block.cache.as_deref(), block.disk_cache.as_deref()) {
        (Some("write through"), Some(disk)) if disk.starts_with("write back") => warning(
            "LS6154",
            format!(
                "the kernel takes the cache of {} for write through, the disk says {disk}",
                block.name
            ),
            "flushes are not passed to the disk: a power cut can cost what was acknowledged as flushed",
            format!(
                "`echo 'write back' > {}`, and remove the rule that changed it",
                block.cache_file.display()
            ),
        ),
        (Some(cache @ "write back"), _) => good(format!("{cache}: flushes reach the disk")),
        (Some(cache), _) => good(format!("{cache}: what is written needs no flush")),
        (None, _) => unseen("the kernel does not say which cache the disk has"),
    }
}
