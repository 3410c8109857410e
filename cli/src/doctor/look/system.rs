//! `/proc`, `/sys`, `/lib/modules`.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use controlplane::sys::clock_is_synchronised;
use nix::libc;
use serde::Deserialize;

use super::{DAEMON, Root, answer, disks, soon};
use crate::doctor::facts::{
    Driver, Features, Looked, Memory, Module, Rights, Seen, Swap, System, Watchdog,
};
use crate::programs;

const KIB: u64 = 1024;
/// How deep a stack of devices (LVM on LUKS on RAID...) is followed.
const STACKED_DEVICES_MAX: u32 = 8;

pub(super) fn of(root: &Root, rights: Seen<Rights>, is_root: bool) -> System {
    let ublk_control = root.exists("dev/ublk-control");
    System {
        kernel: root.seen("proc/sys/kernel/osrelease"),
        ublk: module(root, "ublk_drv"),
        ublk_control,
        driver: driver(ublk_control, is_root),
        mapper: module(root, "dm_mod"),
        mapper_control: root.exists("dev/mapper/control"),
        io_uring_disabled: io_uring_disabled(root),
        rights,
        memory: memory(root),
        clock: clock_is_synchronised().map_err(|error| format!("the kernel does not say: {error}")),
        watchdogs: watchdogs(root),
    }
}

pub(super) fn module(root: &Root, name: &str) -> Module {
    if root.exists(format!("sys/module/{name}")) {
        return Module::Loaded;
    }
    let Ok(release) = root.text("proc/sys/kernel/osrelease") else {
        return Module::Unknown;
    };
    let place = format!("lib/modules/{release}");
    let listed = |file: &str| {
        let text = root.text(format!("{place}/{file}")).ok()?;
        Some(text.lines().any(|line| is_module(line, name)))
    };
    match (listed("modules.builtin"), listed("modules.dep")) {
        (Some(true), _) => Module::Loaded,
        (_, Some(true)) => Module::Loadable,
        (_, Some(false)) => Module::Absent,
        (_, None) => Module::Unknown,
    }
}

/// Whether a line such as `kernel/drivers/md/dm-mod.ko.xz: kernel/...` is about the module: `-` and `_` are the same.
fn is_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    stem.replace('-', "_") == name
}

/// One line of `ublk-mirror features`.
#[derive(Deserialize)]
struct FeaturesLine {
    recovery: bool,
    resize: bool,
}

fn driver(ublk_control: bool, is_root: bool) -> Driver {
    if !ublk_control {
        return Driver::Unseen("there is no /dev/ublk-control".to_string());
    }
    if !is_root {
        return Driver::Unseen("only root may ask the driver; run it as root".to_string());
    }
    let command = || {
        let mut command = programs::mirror();
        command.arg("features");
        command
    };
    match answer(command) {
        Ok(output) => told(&output.stdout, &output.stderr),
        Err(why) => Driver::Unseen(format!("ublk-mirror cannot be asked: {why}")),
    }
}

/// What `ublk-mirror features` says of the driver.
pub(super) fn told(stdout: &[u8], stderr: &[u8]) -> Driver {
    if let Ok(FeaturesLine { recovery, resize }) = serde_json::from_slice(stdout) {
        return Driver::Can(Features { recovery, resize });
    }
    match disks::refused(&String::from_utf8_lossy(stderr)) {
        Looked::Wrong { code, what, advice } => Driver::Refuses {
            said: format!("{code}: {what}"),
            advice,
        },
        Looked::Unseen(why) => Driver::Unseen(why),
        Looked::Fits | Looked::Runs | Looked::Silent(_) => {
            Driver::Unseen("ublk-mirror does not tell".to_string())
        }
    }
}

fn io_uring_disabled(root: &Root) -> Seen<Option<u64>> {
    const SWITCH: &str = "proc/sys/kernel/io_uring_disabled";
    if !root.exists(SWITCH) {
        return Ok(None);
    }
    let text = root.seen(SWITCH)?;
    let number = text
        .parse()
        .map_err(|_| format!("/{SWITCH} says {text:?}"))?;
    Ok(Some(number))
}

pub(super) fn rights(root: &Root) -> Seen<Rights> {
    const FILE: &str = "proc/self/status";
    let text = root.seen(FILE)?;
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.ok_or_else(|| format!("/{FILE} has no {name}"))
    };
    let odd = |_| format!("/{FILE} is not understood");
    let users = line("Uid:")?;
    // Real, effective, saved, of the file system.
    let user = users.split_whitespace().nth(1).unwrap_or_default();
    Ok(Rights {
        user: user.parse().map_err(odd)?,
        capabilities: u64::from_str_radix(line("CapEff:")?.trim(), 16).map_err(odd)?,
    })
}

pub(super) fn memory(root: &Root) -> Memory {
    let daemon = root
        .processes()
        .into_iter()
        .find(|(_, name)| name == DAEMON);
    let of_whom = daemon
        .as_ref()
        .map_or("self".to_string(), |(pid, _)| pid.to_string());
    Memory {
        available: available(root),
        lockable: lockable(root, &format!("proc/{of_whom}/limits")),
        of_daemon: daemon.is_some(),
        swaps: root.seen("proc/swaps").map(|text| {
            let lines = text.lines().skip(1);
            let areas = lines.filter_map(|line| line.split_whitespace().next());
            areas.map(|area| swap(root, area)).collect()
        }),
    }
}

fn swap(root: &Root, area: &str) -> Swap {
    // Blanks are written as octal numbers.
    let path = area.replace("\\040", " ");
    let own = path.clone();
    let found = soon(move || fs::metadata(own).map_err(|error| error.to_string())).flatten();
    Swap {
        on_ublk: found.and_then(|found| on_ublk(root, device_of(&found))),
        path,
    }
}

/// The device that it is, or on which it is.
fn device_of(found: &Metadata) -> (u32, u32) {
    let device = match found.file_type().is_block_device() {
        true => found.rdev(),
        false => found.dev(),
    };
    (libc::major(device), libc::minor(device))
}

pub(super) fn on_ublk(root: &Root, (major, minor): (u32, u32)) -> Seen<bool> {
    let link = format!("sys/dev/block/{major}:{minor}");
    let place = root
        .place(&link)
        .map_err(|error| format!("its disk is not found (/{link}: {error})"))?;
    disks::stands_on_ublk(root, &place, STACKED_DEVICES_MAX)
}

fn available(root: &Root) -> Seen<u64> {
    const FILE: &str = "proc/meminfo";
    let text = root.seen(FILE)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number
        .and_then(|kib| kib.checked_mul(KIB))
        .ok_or_else(|| format!("/{FILE} has no MemAvailable"))
}

fn lockable(root: &Root, file: &str) -> Seen<u64> {
    let text = root.seen(file)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        Some("unlimited") => Ok(u64::MAX),
        Some(number) => number
            .parse()
            .map_err(|_| format!("/{file} says {number:?}")),
        None => Err(format!("/{file} has no \"Max locked memory\"")),
    }
}

pub(super) fn watchdogs(root: &Root) -> Vec<Watchdog> {
    const CLASS: &str = "sys/class/watchdog";
    let found = root.names(CLASS).into_iter().map(|name| {
        let text = |file: &str| root.text(format!("{CLASS}/{name}/{file}")).ok();
        Watchdog {
            identity: text("identity").unwrap_or_else(|| "a driver without a name".to_string()),
            armed: text("state").map(|state| state == "active"),
            name,
        }
    });
    found.collect()
}
