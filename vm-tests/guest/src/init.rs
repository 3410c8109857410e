//! Process 1 of a test machine: from the initramfs to a running agent.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use vm_guest::{BIN_DIRECTORY, PORT_DIRECTORY};

use crate::sys;

const ROOT: &str = "/newroot";
/// Serial number of the disk with the root file system.
const ROOT_SERIAL: &str = "lockstep-root";
const ROOT_DISK_WAIT: Duration = Duration::from_secs(20);
const NO_DATA: Option<&str> = None;

/// First half, in the initramfs: find the root and go there.
pub(crate) fn initramfs() -> anyhow::Result<()> {
    let result = initramfs_steps();
    if let Err(error) = &result {
        eprintln!("vm-guest: init failed: {error:#}");
        sys::reboot(libc::RB_POWER_OFF)?;
    }
    result
}

fn initramfs_steps() -> anyhow::Result<()> {
    mount_at("devtmpfs", "/dev", "devtmpfs")?;
    mount_at("proc", "/proc", "proc")?;
    mount_at("sysfs", "/sys", "sysfs")?;
    if command_line()?.contains_key("lockstep.probe") {
        println!("lockstep-probe-alive");
        return sys::reboot(libc::RB_POWER_OFF);
    }
    for module in fs::read_to_string("/modules.list")?.lines() {
        sys::load_module(module)?;
    }
    let mut disk = None;
    sys::wait_until(ROOT_DISK_WAIT, "the root disk", || {
        disk = disk_with_serial(ROOT_SERIAL);
        disk.is_some()
    })?;
    let disk = disk.context("no root disk")?;
    fs::create_dir_all(ROOT)?;
    mount(
        Some(&disk),
        ROOT,
        Some("ext4"),
        MsFlags::MS_NOATIME,
        NO_DATA,
    )
    .context("mount the root")?;
    let binaries = format!("{ROOT}{BIN_DIRECTORY}");
    fs::create_dir_all(&binaries)?;
    mount_at("tmpfs", &binaries, "tmpfs")?;
    for entry in fs::read_dir("/payload")? {
        let entry = entry?;
        let target = Path::new(&binaries).join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755))?;
        // The initramfs is memory, and it is never unmounted.
        fs::remove_file(entry.path())?;
    }
    for directory in ["/dev", "/proc", "/sys"] {
        let target = format!("{ROOT}{directory}");
        mount(
            Some(directory),
            target.as_str(),
            NO_DATA,
            MsFlags::MS_MOVE,
            NO_DATA,
        )
        .with_context(|| format!("move {directory}"))?;
    }
    nix::unistd::chdir(ROOT)?;
    mount(Some("."), "/", NO_DATA, MsFlags::MS_MOVE, NO_DATA).context("move the root")?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    let error = Command::new(format!("{BIN_DIRECTORY}/vm-guest"))
        .arg("start")
        .env(
            "PATH",
            "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .exec();
    Err(error).context("start in the real root")
}

/// Second half, in the real root: network, links, agent; then reap for ever.
pub(crate) fn real_root() -> anyhow::Result<()> {
    if let Err(error) = prepare() {
        eprintln!("vm-guest: start failed: {error:#}");
        return sys::reboot(libc::RB_POWER_OFF);
    }
    loop {
        // The agent ends only if it is killed or its port fails: then a new one is the best answer.
        let agent = Command::new(format!("{BIN_DIRECTORY}/vm-guest"))
            .arg("agent")
            .stdin(Stdio::null())
            .spawn()
            .context("start the agent")?;
        let pid = i32::try_from(agent.id())?;
        while let Some(gone) = sys::reap() {
            if gone == pid {
                eprintln!("vm-guest: the agent ended, starting it again");
                break;
            }
        }
    }
}

fn prepare() -> anyhow::Result<()> {
    let options = command_line()?;
    mount_at("tmpfs", "/run", "tmpfs")?;
    mount_at("tmpfs", "/tmp", "tmpfs")?;
    mount_at("devpts", "/dev/pts", "devpts")?;
    mount_at("tmpfs", "/dev/shm", "tmpfs")?;
    fs::create_dir_all("/run/lock")?;
    if let Some(name) = options.get("lockstep.host") {
        fs::write("/proc/sys/kernel/hostname", name)?;
        fs::write("/etc/hostname", format!("{name}\n"))?;
    }
    link_ports()?;
    link_disks()?;
    if let Some(modules) = options.get("lockstep.modules") {
        run(Command::new("modprobe")
            .arg("-a")
            .args(modules.split(',').filter(|name| !name.is_empty())))?;
    }
    configure_network(options.get("lockstep.net").map_or("", String::as_str))?;
    if let Some(hosts) = options.get("lockstep.hosts") {
        let lines: String = hosts
            .split(',')
            .map(|line| line.replace('=', " ") + "\n")
            .collect();
        fs::write("/etc/hosts", format!("127.0.0.1 localhost\n{lines}"))?;
    }
    if options.contains_key("lockstep.shell") {
        // An interactive shell on the second serial line, for `vm shell`.
        // The line must be standard input already when setsid makes it the controlling terminal.
        Command::new("sh")
            .args(["-c", "exec setsid -c bash -i </dev/ttyS1 >/dev/ttyS1 2>&1"])
            .spawn()
            .context("start the shell")?;
    }
    Ok(())
}

/// `name,mac,address/prefix;...`: each card gets its name and address.
fn configure_network(description: &str) -> anyhow::Result<()> {
    let mut by_mac = HashMap::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let mac = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        by_mac.insert(
            mac.trim().to_owned(),
            entry.file_name().to_string_lossy().into_owned(),
        );
    }
    let mut batch = String::from("link set lo up\n");
    for card in description.split(';').filter(|card| !card.is_empty()) {
        let fields: Vec<&str> = card.split(',').collect();
        let &[name, mac, address] = fields.as_slice() else {
            bail!("network card {card:?}")
        };
        let old = by_mac
            .get(mac)
            .with_context(|| format!("no network card {mac}"))?;
        batch += &format!(
            "link set {old} name {name}\naddress add {address} dev {name}\nlink set {name} up\n"
        );
    }
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(batch.as_bytes())?;
    if !child.wait()?.success() {
        bail!("ip failed on: {batch}");
    }
    Ok(())
}

/// There is no udev: we make the links it would make.
fn link_disks() -> anyhow::Result<()> {
    fs::create_dir_all("/dev/disk/by-id")?;
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(serial) = serial_of(&name) {
            symlink(
                format!("../../{name}"),
                format!("/dev/disk/by-id/virtio-{serial}"),
            )?;
        }
    }
    Ok(())
}

fn link_ports() -> anyhow::Result<()> {
    fs::create_dir_all(PORT_DIRECTORY)?;
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let device = Path::new("/dev").join(entry.file_name());
        if !name.trim().is_empty() {
            symlink(device, Path::new(PORT_DIRECTORY).join(name.trim()))?;
        }
    }
    Ok(())
}

fn serial_of(disk: &str) -> Option<String> {
    let serial = fs::read_to_string(format!("/sys/block/{disk}/serial")).ok()?;
    let serial = serial.trim().to_owned();
    (!serial.is_empty()).then_some(serial)
}

fn disk_with_serial(serial: &str) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let device = Path::new("/dev").join(&name);
        if serial_of(&name).as_deref() == Some(serial) && device.exists() {
            return Some(device);
        }
    }
    None
}

fn command_line() -> anyhow::Result<HashMap<String, String>> {
    let text = fs::read_to_string("/proc/cmdline")?;
    let pair = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key.to_owned(), value.to_owned())
    };
    Ok(text.split_whitespace().map(pair).collect())
}

fn mount_at(source: &str, target: &str, kind: &str) -> anyhow::Result<()> {
    fs::create_dir_all(target)?;
    mount(Some(source), target, Some(kind), MsFlags::empty(), NO_DATA)
        .or_else(|error| {
            if error == nix::errno::Errno::EBUSY {
                Ok(())
            } else {
                Err(error)
            }
        })
        .with_context(|| format!("mount {kind} at {target}"))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
