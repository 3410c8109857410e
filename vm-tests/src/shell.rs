//! An interactive shell in a machine.

use std::io::{IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::binaries::Binaries;
use crate::disk::DiskMode;
use crate::scenario::Context;

const DISK_BYTES: u64 = 256 << 20;
/// Ctrl-].
const END_KEY: u8 = 0x1d;

/// Boots one machine with two disks and connects the terminal to its shell.
///
/// # Errors
/// If it does not boot.
pub fn talk(context: &Context, binaries: &Binaries) -> anyhow::Result<()> {
    let cluster = context
        .cluster()
        .nodes(1)
        .disk("data", DISK_BYTES, DiskMode::Volatile)
        .disk("meta", DISK_BYTES, DiskMode::Volatile)
        .binaries(binaries)
        .shell()
        .boot()?;
    eprintln!(
        "  disks: /dev/disk/by-id/virtio-node1-{{data,meta}}; programs: /opt/bin; Ctrl-] ends the machine\r"
    );
    attach(&cluster.shell_socket())
}

/// Connects the terminal to the shell of a machine that is up; Ctrl-] disconnects.
///
/// # Errors
/// If nobody answers there.
pub fn attach(socket: &Path) -> anyhow::Result<()> {
    let mut line = UnixStream::connect(socket).context("connect to the shell")?;
    let _raw = RawTerminal::new()?;
    line.write_all(b"\n")?;
    let mut output = line.try_clone()?;
    let printer = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = output.read(&mut buffer) {
            let mut terminal = std::io::stdout();
            if length == 0
                || terminal
                    .write_all(&buffer[..length])
                    .and_then(|()| terminal.flush())
                    .is_err()
            {
                return;
            }
        }
    });
    let mut key = [0];
    while std::io::stdin().read(&mut key)? == 1 && key[0] != END_KEY {
        line.write_all(&key)?;
    }
    line.shutdown(Shutdown::Both)?;
    let _ = printer.join();
    Ok(())
}

/// Every key goes to the machine; the terminal is as before when it is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn new() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell.
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
