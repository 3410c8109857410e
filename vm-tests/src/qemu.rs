//! QEMU's command line, and how it is started.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sched::{CloneFlags, setns};
use vm_guest::{AGENT_PORT, LEDGER_PORT_PREFIX, LEDGER_PORTS};

use crate::disk::Disk;
use crate::image::Image;
use crate::network::Fabric;
use crate::process::Guarded;
use crate::raw_disk::RawDisk;

/// What a machine is made of.
#[derive(Clone)]
pub(crate) struct Hardware {
    pub(crate) name: String,
    pub(crate) number: usize,
    pub(crate) memory_mib: usize,
    pub(crate) accelerator: String,
    pub(crate) image: Image,
    /// The initramfs of this run, with the programs in it.
    pub(crate) initramfs: PathBuf,
    pub(crate) command_line: String,
    pub(crate) disks: Vec<Disk>,
    pub(crate) raw_disks: Vec<RawDisk>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) run_directory: PathBuf,
    pub(crate) console: PathBuf,
    pub(crate) shell_socket: Option<PathBuf>,
}

/// The command for one machine whose sockets have these names.
pub(crate) fn command(
    hardware: &Hardware,
    sockets: &[String],
    path: &dyn Fn(&str) -> PathBuf,
) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let mut argument = |name: &str, value: String| {
        command.arg(name).arg(value);
    };
    argument("-name", format!("lockstep-{}", hardware.name));
    argument("-machine", "pc".to_owned());
    argument("-accel", hardware.accelerator.clone());
    argument("-cpu", "max".to_owned());
    argument("-smp", "1".to_owned());
    argument("-m", hardware.memory_mib.to_string());
    argument("-display", "none".to_owned());
    argument("-kernel", hardware.image.kernel.display().to_string());
    argument("-initrd", hardware.initramfs.display().to_string());
    argument("-append", hardware.command_line.clone());
    argument(
        "-chardev",
        format!(
            "file,id=console,append=on,path={}",
            hardware.console.display()
        ),
    );
    argument("-serial", "chardev:console".to_owned());
    if let Some(shell) = &hardware.shell_socket {
        argument(
            "-chardev",
            format!(
                "socket,id=shell,server=on,wait=off,path={}",
                shell.display()
            ),
        );
        argument("-serial", "chardev:shell".to_owned());
    }
    for name in sockets {
        argument(
            "-chardev",
            format!("socket,id={name},path={}", path(name).display()),
        );
    }
    devices(hardware, &mut argument);
    for value in hardware.fabric.arguments(hardware.number) {
        command.arg(value);
    }
    command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
    command.env("TMPDIR", &hardware.run_directory);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match OpenOptions::new()
        .create(true)
        .append(true)
        .open(hardware.console.with_extension("qemu"))
    {
        Ok(file) => command.stderr(file),
        Err(_) => command.stderr(Stdio::null()),
    };
    command
}

fn devices(hardware: &Hardware, argument: &mut impl FnMut(&str, String)) {
    argument("-mon", "chardev=qmp,mode=control".to_owned());
    argument("-device", "virtio-serial-pci".to_owned());
    argument(
        "-device",
        format!("virtserialport,chardev=agent,name={AGENT_PORT}"),
    );
    for port in 0..LEDGER_PORTS {
        argument(
            "-device",
            format!("virtserialport,chardev=ledger{port},name={LEDGER_PORT_PREFIX}{port}"),
        );
    }
    let root = hardware.image.root.display();
    argument(
        "-drive",
        format!("file={root},if=none,id=root,format=raw,snapshot=on,cache=unsafe"),
    );
    argument(
        "-device",
        "virtio-blk-pci,drive=root,serial=lockstep-root".to_owned(),
    );
    for (number, disk) in hardware.disks.iter().enumerate() {
        let socket = disk.socket().display();
        argument(
            "-blockdev",
            format!(
                "driver=nbd,node-name=disk{number},discard=unmap,server.type=unix,server.path={socket}"
            ),
        );
        let name = disk.name();
        argument(
            "-device",
            format!(
                "virtio-blk-pci,id=disk-{name},drive=disk{number},serial={name},write-cache=on,rerror=report,werror=report"
            ),
        );
    }
    for (number, disk) in hardware.raw_disks.iter().enumerate() {
        argument("-blockdev", disk.blockdev(&format!("raw{number}")));
        let name = disk.name();
        argument(
            "-device",
            format!("virtio-blk-pci,id=disk-{name},drive=raw{number},serial={name},write-cache=on"),
        );
    }
    // The timer must run for a product that fences itself; what it does is end QEMU.
    argument("-device", "i6300esb".to_owned());
    argument("-action", "watchdog=reset".to_owned());
}

/// Lets the command start in a network namespace.
pub(crate) fn enter_namespace(command: &mut Command, namespace: File) {
    // SAFETY: setns is one system call on a descriptor that the closure owns; nothing is allocated.
    unsafe {
        command
            .pre_exec(move || setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
    }
}

/// QEMU connects while it starts; if it ends instead, we say so at once.
pub(crate) fn accept(listener: &UnixListener, qemu: &mut Guarded) -> anyhow::Result<UnixStream> {
    const CONNECT_LIMIT: Duration = Duration::from_secs(30);
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = qemu.try_wait()? {
            bail!("QEMU ended: {status}");
        }
        if Instant::now() > deadline {
            bail!("QEMU does not connect");
        }
        thread::sleep(Duration::from_millis(5));
    }
}
