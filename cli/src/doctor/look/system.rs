//! `/proc`, `/sys`, `/lib/modules`.

use controlplane::sys::clock_is_synchronised;
use serde::Deserialize;

use super::{Root, answer};
use crate::doctor::facts::{Features, Memory, Module, Rights, Seen, System, Watchdog};
use crate::programs;

const KIB: u64 = 1024;

pub(super) fn of(root: &Root, rights: Seen<Rights>, is_root: bool) -> System {
    let ublk_control = root.exists("dev/ublk-control");
    System {
        kernel: root.seen("proc/sys/kernel/osrelease"),
        ublk: module(root, "ublk_drv"),
        ublk_control,
        features: features(ublk_control, is_root),
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

fn features(ublk_control: bool, is_root: bool) -> Seen<Features> {
    if !ublk_control {
        return Err("there is no /dev/ublk-control".to_string());
    }
    if !is_root {
        return Err("only root may ask the driver; run it as root".to_string());
    }
    let mut command = programs::mirror();
    command.arg("features");
    let output = answer(command).map_err(|why| format!("ublk-mirror cannot be asked: {why}"))?;
    let line: FeaturesLine = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!(
            "ublk-mirror does not tell: {}",
            said.lines().next().unwrap_or("nothing")
        )
    })?;
    let FeaturesLine { recovery, resize } = line;
    Ok(Features { recovery, resize })
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
        .find(|(_, name)| name == "lockstepd");
    let of_whom = daemon
        .as_ref()
        .map_or("self".to_string(), |(pid, _)| pid.to_string());
    Memory {
        available: available(root),
        lockable: lockable(root, &format!("proc/{of_whom}/limits")),
        of_daemon: daemon.is_some(),
        swaps: root.seen("proc/swaps").map(|text| {
            let lines = text.lines().skip(1);
            lines
                .filter_map(|line| Some(line.split_whitespace().next()?.to_string()))
                .collect()
        }),
    }
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
