//! Kernel, driver, rights, memory, clock, watchdog.

use std::path::Path;

use super::{error, good, unseen, warning};
use crate::doctor::facts::{
    Cluster, Daemon, Driver, Facts, Memory, Module, Rights, Seen, Swap, System, Volume, Watchdog,
};
use crate::doctor::{Area, Check, Outcome};
use crate::size;

/// docs/operations.md, "What is needed".
const KERNEL_MIN: (u32, u32) = (6, 8);
/// `kernel.io_uring_disabled`: nobody may use it.
const IO_URING_OFF: u64 = 2;

/// Bits of capabilities(7).
/// Only where the limit binds without it: [`locked_memory`].
const CAP_IPC_LOCK: u32 = 14;
/// Without these a daemon does not start, or a floating address cannot be added.
const CAPABILITIES: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
];
/// Without these it runs, and load or want of memory can hold it up.
const CAPABILITIES_WISHED: [(u32, &str); 2] = [(23, "CAP_SYS_NICE"), (24, "CAP_SYS_RESOURCE")];

/// What the daemon of a volume locks at its start, with room to start in: its I/O buffers of 512 KiB each, and 32 MiB in
/// reserve for a disk that does not answer.
const DAEMON_MEMORY_BYTES: u64 = 256 << 20;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let system = &facts.system;
    let check = |name, outcome| Check::new(Area::System, name, outcome);
    vec![
        check("kernel", kernel(&system.kernel)),
        check("ublk", ublk(system)),
        check("ublk-features", features(system)),
        check("device-mapper", mapper(system)),
        check("io-uring", io_uring(&system.io_uring_disabled)),
        check("rights", rights(&system.rights)),
        check("locked-memory", locked_memory(system)),
        check("memory", memory(&system.memory, &facts.volumes)),
        check("swap", swap(&system.memory.swaps)),
        check("clock", clock(&system.clock)),
        check("watchdog", watchdog(facts)),
    ]
}

/// The first two numbers of a release such as `6.12.117+deb12-cloud`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

fn kernel(kernel: &Seen<String>) -> Outcome {
    let text = match kernel {
        Ok(text) => text,
        Err(why) => return unseen(why),
    };
    match release(text) {
        None => unseen(&format!("{text:?} is no number of a kernel")),
        Some(found) if found < KERNEL_MIN => error(
            "LS6140",
            format!("Linux {text} runs here"),
            "Lockstep needs Linux 6.8 or later: older ones lack what it asks of ublk",
            "boot a kernel of 6.8 or later; of your distribution, or of its backports",
        ),
        Some(_) => good(format!("Linux {text}; 6.8 or later is needed")),
    }
}

fn ublk(system: &System) -> Outcome {
    const WHY: &str = "a volume is a ublk device: without the driver no daemon starts (LS3020)";
    const LOAD: &str = "`modprobe ublk_drv` now; packaging/modules-load.conf, as /etc/modules-load.d/lockstep.conf, loads it at each boot";
    if system.ublk_control {
        return good("/dev/ublk-control is there");
    }
    match system.ublk {
        Module::Loaded => error(
            "LS6141",
            "ublk_drv is loaded, and there is no /dev/ublk-control",
            WHY,
            "see that devtmpfs is mounted at /dev; in a container, that the device is handed in",
        ),
        Module::Loadable => error("LS6141", "the module ublk_drv is not loaded", WHY, LOAD),
        Module::Absent => error(
            "LS6141",
            "the running kernel has no module ublk_drv",
            WHY,
            "install the distribution's package of extra modules for this kernel (linux-modules-extra, kernel-modules-extra), \
             or a kernel with CONFIG_BLK_DEV_UBLK; if the kernel was just upgraded, reboot",
        ),
        Module::Unknown => error(
            "LS6141",
            "there is no /dev/ublk-control, and no modules of the running kernel are installed here",
            WHY,
            LOAD,
        ),
    }
}

fn features(system: &System) -> Outcome {
    if !system.ublk_control {
        return Outcome::Nothing("there is no driver to ask".to_string());
    }
    match &system.driver {
        Driver::Unseen(why) => unseen(why),
        Driver::Refuses { said, advice } => error(
            "LS6141",
            format!("the ublk driver cannot be asked: {said}"),
            "the daemons ask it in the same way, and do not start",
            advice,
        ),
        Driver::Can(features) if !features.recovery => error(
            "LS6141",
            "this ublk driver cannot recover a device",
            "a daemon that ends would take its volume away from the applications",
            "boot a kernel of 6.8 or later",
        ),
        Driver::Can(features) if features.resize => {
            good("recovery; a volume in use shows a new size at once")
        }
        Driver::Can(_) => good(
            "recovery; a volume shows a new size from its next activation on (at once from Linux 6.16 on)",
        ),
    }
}

fn mapper(system: &System) -> Outcome {
    const WHY: &str = "without it root can write to a volume's device by accident, and the copies differ (LS3040)";
    const LOAD: &str = "`modprobe dm_mod` now; packaging/modules-load.conf, as /etc/modules-load.d/lockstep.conf, loads it at each boot";
    // The node is there without the module too: who opens it has the module loaded.
    match (system.mapper, system.mapper_control) {
        (Module::Loaded, true) => good("/dev/mapper/control is there"),
        (Module::Loadable, true) => {
            good("/dev/mapper/control is there, and loads dm_mod when it is used")
        }
        (Module::Unknown, true) => unseen(
            "/dev/mapper/control is there; no modules of the running kernel are installed here, so whether one is behind it \
             is not told",
        ),
        (Module::Loaded, false) => warning(
            "LS6142",
            "dm_mod is loaded, and there is no /dev/mapper/control",
            WHY,
            "see that devtmpfs is mounted at /dev; in a container, that the device is handed in",
        ),
        (Module::Loadable, false) => {
            warning("LS6142", "the module dm_mod is not loaded", WHY, LOAD)
        }
        (Module::Unknown, false) => warning(
            "LS6142",
            "there is no /dev/mapper/control, and no modules of the running kernel are installed here",
            WHY,
            LOAD,
        ),
        (Module::Absent, _) => warning(
            "LS6142",
            "the running kernel has no module dm_mod",
            WHY,
            "use a kernel with CONFIG_BLK_DEV_DM",
        ),
    }
}

fn io_uring(disabled: &Seen<Option<u64>>) -> Outcome {
    match disabled {
        Err(why) => unseen(why),
        Ok(Some(number @ IO_URING_OFF..)) => error(
            "LS6143",
            format!("io_uring is switched off (kernel.io_uring_disabled = {number})"),
            "the daemons do all their I/O through it, and do not start (LS3033)",
            "`sysctl kernel.io_uring_disabled=1` leaves it to root; write it to /etc/sysctl.d as well",
        ),
        Ok(Some(0) | None) => good("allowed"),
        Ok(Some(_)) => good("allowed for root"),
    }
}

fn rights(rights: &Seen<Rights>) -> Outcome {
    let rights = match rights {
        Ok(rights) => rights,
        Err(why) => return unseen(why),
    };
    if rights.user != 0 {
        return unseen(
            "this is not root, as whom the daemons run, and who sees more; run it as root",
        );
    }
    let missing = |wanted: &[(u32, &'static str)]| {
        let names = wanted.iter().filter(|(bit, _)| !rights.has(*bit));
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    const ADVICE: &str = "run Lockstep on the machine itself, or in a container that is privileged";
    match (missing(&CAPABILITIES), missing(&CAPABILITIES_WISHED)) {
        (needed, _) if !needed.is_empty() => error(
            "LS6146",
            format!("root here lacks {needed}"),
            "the daemons make block devices, add floating addresses, and ask the network who has one",
            ADVICE,
        ),
        (_, wished) if !wished.is_empty() => warning(
            "LS6146",
            format!("root here lacks {wished}"),
            "a busy machine can delay heartbeats (LS6020), and one without free memory can hold writes up",
            ADVICE,
        ),
        (_, _) => good("root"),
    }
}

fn locked_memory(system: &System) -> Outcome {
    let memory = &system.memory;
    let limit = match &memory.lockable {
        Ok(u64::MAX) => return good("no limit"),
        Ok(limit) => *limit,
        Err(why) => return unseen(why),
    };
    let root = system.rights.as_ref().is_ok_and(|rights| rights.user == 0);
    let unbound = system
        .rights
        .as_ref()
        .is_ok_and(|rights| rights.has(CAP_IPC_LOCK));
    let size = size::bytes(limit);
    // The kernel does not ask for the limit of who has the capability; root's daemons have it where root has it here.
    if root && unbound {
        return good(format!("the limit of {size} does not bind root here"));
    }
    if !root && !memory.of_daemon {
        return Outcome::Nothing(format!(
            "this user's limit is {size}; the daemons run as root, their unit has none"
        ));
    }
    if !root {
        return unseen("the limit of lockstepd binds it only without CAP_IPC_LOCK; run it as root");
    }
    error(
        "LS6144",
        format!("no more than {size} of memory can be locked"),
        "daemons lock their memory, for a volume that waits for swapping can stop the machine (LS3037, LS6019)",
        "set LimitMEMLOCK=infinity, as in packaging/systemd, or `ulimit -l unlimited`",
    )
}

fn memory(memory: &Memory, volumes: &[Volume]) -> Outcome {
    let available = match &memory.available {
        Ok(available) => *available,
        Err(why) => return unseen(why),
    };
    // Before the first volume is created: for that one.
    let starts = match volumes {
        [] => 1,
        volumes => volumes
            .iter()
            .filter(|volume| volume.runs != Ok(true))
            .count(),
    };
    let starts = u64::try_from(starts).unwrap_or(u64::MAX);
    let wanted = DAEMON_MEMORY_BYTES.saturating_mul(starts);
    let (has, wants) = (size::bytes(available), size::bytes(wanted));
    if available >= wanted {
        return good(format!("{has} available"));
    }
    warning(
        "LS6144",
        format!("{has} of memory are available, {wants} are recommended"),
        "each daemon that is to start locks some hundred MiB; without them it does not start (LS3037)",
        "free memory, or add some",
    )
}

fn swap(swaps: &Seen<Vec<Swap>>) -> Outcome {
    let swaps = match swaps {
        Ok(swaps) => swaps,
        Err(why) => return unseen(why),
    };
    let on_ublk = swaps.iter().filter(|swap| swap.on_ublk == Ok(true));
    let found: Vec<&str> = on_ublk.map(|swap| swap.path.as_str()).collect();
    if found.is_empty() {
        let unclear = swaps
            .iter()
            .find_map(|swap| Some((&swap.path, swap.on_ublk.as_ref().err()?)));
        return match unclear {
            Some((path, why)) => unseen(&format!("{path}: {why}")),
            None => good("none on a volume"),
        };
    }
    error(
        "LS6144",
        format!(
            "the machine swaps to {}, on a ublk device",
            found.join(", ")
        ),
        "to free memory the kernel then needs the network, which needs memory: the machine can stand still for ever",
        "`swapoff` it, and put swap on a disk that is not mirrored",
    )
}

fn clock(synchronised: &Seen<bool>) -> Outcome {
    match synchronised {
        Err(why) => unseen(why),
        Ok(true) => good("synchronised"),
        Ok(false) => warning(
            "LS6145",
            "nobody keeps this machine's clock right",
            "no acknowledged write and no takeover depends on it, but the times in logs, of operators' words and of the last \
             write in a split brain do",
            "run chrony or systemd-timesyncd, on both nodes",
        ),
    }
}

/// Only one that the configuration asks for can be wrong.
fn watchdog(facts: &Facts) -> Outcome {
    let found = &facts.system.watchdogs;
    let Cluster::Node {
        watchdog: Some(device),
        ..
    } = &facts.cluster
    else {
        return Outcome::Nothing(unused_watchdogs(found));
    };
    let Some(name) = name_of_watchdog(device) else {
        return unseen(&format!(
            "{} has a name of its own; `lockstep status` says whether lockstepd can use it",
            device.display()
        ));
    };
    let Some(watchdog) = found.iter().find(|watchdog| watchdog.name == name) else {
        return warning(
            "LS6155",
            format!("the kernel has no {name}, which {} is", device.display()),
            "services that do not stop in time would live on beside those of the other node",
            "load the driver of the machine's watchdog (or softdog), or name its device in `nodes.NAME.watchdog`",
        );
    };
    let what = format!("{name} ({})", watchdog.identity);
    let runs = matches!(facts.daemon, Daemon::Answers { .. } | Daemon::Unseen(_));
    match watchdog.armed {
        Some(true) if runs => good(format!(
            "{what} is armed; `lockstep status` says what for, or that somebody else has it"
        )),
        Some(true) => warning(
            "LS6155",
            format!("{what} is armed, and lockstepd does not answer"),
            "either another program has it, and lockstepd cannot use it; or lockstepd ended while services ran, and it resets this machine soon",
            "start lockstepd now if services run here; else `fuser -v` with the device shows who has it",
        ),
        Some(false) => good(format!("{what} is free")),
        None => good(format!(
            "{what} is there; the kernel does not say whether it is armed"
        )),
    }
}

/// The kernel's name for a device: the first one has two paths. `None`: the path says nothing of it.
fn name_of_watchdog(device: &Path) -> Option<&str> {
    match device.to_str()?.strip_prefix("/dev/")? {
        "watchdog" => Some("watchdog0"),
        name => {
            let number = name.strip_prefix("watchdog")?;
            number
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(name)
        }
    }
}

fn unused_watchdogs(watchdogs: &[Watchdog]) -> String {
    if watchdogs.is_empty() {
        return "there is none, and the configuration asks for none".to_string();
    }
    let told: Vec<String> = watchdogs
        .iter()
        .map(|watchdog| {
            let state = match watchdog.armed {
                Some(true) => "armed",
                Some(false) => "free",
                None => "the kernel does not say whether it is armed",
            };
            format!("{} ({}): {state}", watchdog.name, watchdog.identity)
        })
        .collect();
    format!(
        "the configuration asks for none; there is {}",
        told.join(", ")
    )
}
