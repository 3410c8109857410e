//! The volumes' devices.

use std::path::Path;

use super::{error, good, unseen, warning};
use crate::doctor::facts::{Block, Device, DeviceKind, Facts, Looked, Volume};
use crate::doctor::{Area, Check, Fault, Outcome};
use crate::size;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    if facts.volumes.is_empty() {
        let why = "no volume was created on this machine yet";
        return ["volume", "device", "device-use", "write-cache"]
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
    if let Err(why) = &volume.devices {
        return Outcome::Error(Fault::new(
            "LS5002",
            format!("{}: {why}", volume.file.display()),
            "its daemon cannot read it either",
            "correct the file, or move it away if there is no such volume any more",
        ));
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
            format!("`blockdev --setrw {path}`, if nobody meant it so"),
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
    let mut found: Vec<String> = block
        .mounts
        .iter()
        .map(|place| format!("mounted at {place}"))
        .collect();
    if block.swap {
        found.push("used as swap".to_string());
    }
    let foreign = block.stacked.iter().filter(|name| !is_own(volume, name));
    found.extend(foreign.map(|name| format!("a part of {name}")));
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
        "unmount it and stop what uses it (`lsblk`, `fuser -v DEVICE`); or see whether the volume names the right device",
    )
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
