//! One virtual machine: power, commands, faults.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use vm_guest::LEDGER_PORTS;

use crate::agent::{Agent, lock};
pub use crate::agent::{Output, Running};
use crate::checker::ReadAt;
use crate::disk::{Disk, PowerCut};
use crate::ledger::Recorder;
use crate::network::Net;
use crate::process::Guarded;
use crate::qemu::{self, Hardware};
use crate::qmp::Qmp;
use crate::wait::wait_until;

/// From power-on to the agent's first word.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const SHOWN_CONSOLE_BYTES: usize = 3000;

/// What `/proc/PID/stat` counts in; Linux says 100 everywhere.
const TICKS_PER_SECOND: u64 = 100;

struct Powered {
    qemu: Guarded,
    qmp: Arc<Qmp>,
    agent: Arc<Agent>,
    recorders: Vec<JoinHandle<()>>,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Power {
    /// QEMU runs.
    On,
    /// QEMU ended or was never started; why, in QEMU's words (`guest-reset`, `guest-shutdown`) if it said.
    Off(Option<String>),
}

/// One virtual machine of a cluster.
pub struct Machine {
    pub(crate) hardware: Hardware,
    recorder: Recorder,
    powered: Mutex<Option<Powered>>,
}

impl Machine {
    pub(crate) fn new(hardware: Hardware, recorder: Recorder) -> Self {
        Self {
            hardware,
            recorder,
            powered: Mutex::new(None),
        }
    }

    /// Its name, also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hardware.name
    }

    /// Its address in a network.
    #[must_use]
    pub fn address(&self, net: Net) -> String {
        net.address(self.hardware.number)
    }

    /// Its disks, in the order they were asked for.
    #[must_use]
    pub fn disks(&self) -> &[Disk] {
        &self.hardware.disks
    }

    /// The disk with this name (`data`).
    ///
    /// # Errors
    /// If there is none.
    pub fn disk(&self, name: &str) -> anyhow::Result<&Disk> {
        let full = format!("{}-{name}", self.name());
        self.hardware
            .disks
            .iter()
            .find(|disk| disk.name() == full)
            .with_context(|| format!("no disk {name}"))
    }

    /// Path of a disk in the machine.
    #[must_use]
    pub fn disk_path(&self, name: &str) -> String {
        format!("/dev/disk/by-id/virtio-{}-{name}", self.name())
    }

    /// What it is doing.
    #[must_use]
    pub fn power(&self) -> Power {
        let mut powered = lock(&self.powered);
        let Some(on) = powered.as_mut() else {
            return Power::Off(None);
        };
        match on.qemu.try_wait() {
            Ok(None) => Power::On,
            Ok(Some(_)) | Err(_) => Power::Off(on.qmp.shutdown_reason()),
        }
    }

    /// Waits until it is off, by its own will (a reboot ends QEMU too); says why.
    ///
    /// # Errors
    /// If it is still on after `limit`.
    pub fn wait_off(&self, limit: Duration) -> anyhow::Result<Option<String>> {
        let mut reason = None;
        wait_until(limit, &format!("{} off", self.name()), || {
            match self.power() {
                Power::On => Ok(false),
                Power::Off(why) => {
                    reason = why;
                    Ok(true)
                }
            }
        })?;
        Ok(reason)
    }

    /// Starts QEMU and waits for the agent. A machine that ended by itself may be started again.
    ///
    /// # Errors
    /// If it is on, or does not boot.
    pub fn power_on(&self) -> anyhow::Result<Duration> {
        self.start_boot()?;
        self.finish_boot()
    }

    /// Starts QEMU without waiting for the agent.
    pub(crate) fn start_boot(&self) -> anyhow::Result<()> {
        let mut powered = lock(&self.powered);
        if let Some(on) = powered.as_mut() {
            if on.qemu.try_wait()?.is_none() {
                bail!("{} is on", self.name());
            }
            on.collect();
        }
        *powered = None;
        *powered = Some(
            self.launch()
                .with_context(|| format!("start {}", self.name()))?,
        );
        Ok(())
    }

    pub(crate) fn finish_boot(&self) -> anyhow::Result<Duration> {
        let agent = self.agent()?;
        let booted = wait_until(BOOT_LIMIT, &format!("boot of {}", self.name()), || {
            if agent.hello().is_none() && self.power() != Power::On {
                bail!("QEMU ended");
            }
            Ok(agent.hello().is_some())
        });
        let booted = booted.with_context(|| {
            format!(
                "{} does not boot; its console ends with\n{}",
                self.name(),
                self.console_end()
            )
        });
        // Whether it booted or not: what is cut off explains everything that comes after.
        ensure!(
            !self.console_says("Initramfs unpacking failed"),
            "{}: the programs and files given to it did not fit into its memory",
            self.name()
        );
        booted
    }

    fn launch(&self) -> anyhow::Result<Powered> {
        let hardware = &self.hardware;
        let socket = |name: &str| {
            hardware
                .run_directory
                .join(format!("{}.{name}", hardware.name))
        };
        let mut names = vec!["qmp".to_owned(), "agent".to_owned()];
        names.extend((0..LEDGER_PORTS).map(|port| format!("ledger{port}")));
        let mut listeners = Vec::new();
        for name in &names {
            let path = socket(name);
            let _ = fs::remove_file(&path);
            listeners.push(
                UnixListener::bind(&path)
                    .with_context(|| format!("listen at {}", path.display()))?,
            );
        }
        writeln!(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&hardware.console)?,
            "--- power on ---"
        )?;
        let mut command = qemu::command(hardware, &names, &socket);
        if let Some(namespace) = hardware.fabric.namespace()? {
            qemu::enter_namespace(&mut command, namespace);
        }
        let mut qemu = Guarded::spawn(command, &format!("QEMU of {}", hardware.name))?;
        let mut streams = Vec::new();
        for listener in &listeners {
            streams.push(qemu::accept(listener, &mut qemu).with_context(|| self.console_end())?);
        }
        let mut streams = streams.into_iter();
        let mut next = || streams.next().context("too few connections");
        let qmp = Arc::new(Qmp::new(next()?)?);
        let agent = Arc::new(Agent::new(next()?)?);
        let recorders = streams
            .map(|stream| self.recorder.follow(stream, hardware.number))
            .collect();
        Ok(Powered {
            qemu,
            qmp,
            agent,
            recorders,
        })
    }

    fn agent(&self) -> anyhow::Result<Arc<Agent>> {
        let powered = lock(&self.powered);
        let on = powered
            .as_ref()
            .with_context(|| format!("{} is off", self.name()))?;
        Ok(Arc::clone(&on.agent))
    }

    /// Lets a disk do so much at most, until the machine is off: as a disk that is rented by requests and bytes.
    ///
    /// # Errors
    /// If the machine is off, or has no such disk.
    pub fn limit_disk(
        &self,
        name: &str,
        requests_per_s: u64,
        bytes_per_s: u64,
    ) -> anyhow::Result<()> {
        let disk = self.disk(name)?;
        let limits = json!({
            "id": format!("/machine/peripheral/disk-{}/virtio-backend", disk.name()),
            "bps": bytes_per_s, "bps_rd": 0, "bps_wr": 0,
            "iops": requests_per_s, "iops_rd": 0, "iops_wr": 0,
        });
        self.qmp()?
            .command("block_set_io_throttle", &limits)
            .map(|_| ())
    }

    pub(crate) fn qmp(&self) -> anyhow::Result<Arc<Qmp>> {
        let powered = lock(&self.powered);
        let on = powered
            .as_ref()
            .with_context(|| format!("{} is off", self.name()))?;
        Ok(Arc::clone(&on.qmp))
    }

    /// The kernel's id of this boot.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn boot_id(&self) -> anyhow::Result<String> {
        Ok(self.agent()?.hello().context("not booted")?.boot_id)
    }

    /// How long this machine's processor waited for one of the host since it was powered on.
    ///
    /// # Errors
    /// If it is off.
    pub fn host_delay(&self) -> anyhow::Result<Duration> {
        let powered = lock(&self.powered);
        let on = powered
            .as_ref()
            .with_context(|| format!("{} is off", self.name()))?;
        let threads = fs::read_dir(format!("/proc/{}/task", on.qemu.pid()))?;
        // Nanoseconds on a processor, and in the queue for one; nothing where the kernel does not count.
        let counted = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut words = text.split(' ');
            let mut word = || words.next()?.parse::<u64>().ok();
            Some((word()?, word()?))
        });
        // The thread that works most is the machine's processor.
        let (_, waited) = counted.max().unwrap_or_default();
        Ok(Duration::from_nanos(waited))
    }

    /// Processor time of the host that this machine took since it was powered on: its processor's, and what QEMU does for
    /// its disks and cards.
    ///
    /// # Errors
    /// If it is off.
    pub fn host_cpu(&self) -> anyhow::Result<Duration> {
        let powered = lock(&self.powered);
        let on = powered
            .as_ref()
            .with_context(|| format!("{} is off", self.name()))?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", on.qemu.pid()))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("no times in {stat:?}"))?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The power goes: QEMU is killed, and the disks lose a random part of what was not flushed.
    ///
    /// # Errors
    /// If it is off already.
    pub fn power_cut(&self, seed: u64) -> anyhow::Result<PowerCut> {
        let mut on = lock(&self.powered)
            .take()
            .with_context(|| format!("{} is off", self.name()))?;
        on.qemu.kill();
        on.collect();
        self.recorder.power_cut(self.hardware.number);
        let mut total = PowerCut::default();
        for (number, disk) in (0_u64..).zip(&self.hardware.disks) {
            total.add(disk.power_cut(seed.wrapping_add(number))?);
        }
        Ok(total)
    }

    /// Sync and off, in good order.
    ///
    /// # Errors
    /// If it does not go off.
    pub fn power_off(&self) -> anyhow::Result<()> {
        // The answer never comes: the machine goes away.
        let command = self.spawn("exec vm-guest poweroff", COMMAND_LIMIT)?;
        self.wait_off(POWER_OFF_LIMIT)?;
        drop(command);
        if let Some(mut on) = lock(&self.powered).take() {
            on.collect();
        }
        for disk in &self.hardware.disks {
            disk.wait_disconnected()?;
        }
        Ok(())
    }

    /// Runs a shell script and waits for it.
    ///
    /// # Errors
    /// If the machine goes away. A script that fails is not an error here.
    pub fn exec(&self, script: &str, limit: Duration) -> anyhow::Result<Output> {
        self.spawn(script, limit)?
            .wait()
            .with_context(|| self.explain(script))
    }

    /// Runs a shell script that must succeed within a minute; returns its standard output, trimmed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn exec_ok(&self, script: &str) -> anyhow::Result<String> {
        let output = self.exec(script, COMMAND_LIMIT)?;
        if !output.ok() {
            bail!("{}: `{script}` failed: {output:?}", self.name());
        }
        Ok(output.stdout.trim().to_owned())
    }

    /// Starts a shell script; it is killed after `limit`, or when the result is dropped.
    ///
    /// # Errors
    /// If the machine is off.
    pub fn spawn(&self, script: &str, limit: Duration) -> anyhow::Result<Running> {
        self.agent()?
            .spawn(&["bash", "-c", script], &[], limit)
            .with_context(|| self.explain(script))
    }

    /// Runs a program with arguments and standard input.
    ///
    /// # Errors
    /// If the machine goes away.
    pub fn exec_with(
        &self,
        argv: &[&str],
        stdin: &[u8],
        limit: Duration,
    ) -> anyhow::Result<Output> {
        self.agent()?
            .spawn(argv, stdin, limit)?
            .wait()
            .with_context(|| self.explain(&argv.join(" ")))
    }

    /// Writes a file in the machine.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, path: &str, mode: u32, data: &[u8]) -> anyhow::Result<()> {
        self.agent()?.put(path, mode, data)
    }

    /// Copies a file from here into the machine.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn put_file(&self, local: &Path, path: &str, mode: u32) -> anyhow::Result<()> {
        let data = fs::read(local).with_context(|| format!("read {}", local.display()))?;
        self.put(path, mode, &data)
    }

    /// Reads part of a file or device in the machine; a shorter answer is its end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn get(&self, path: &str, offset: u64, length: usize) -> anyhow::Result<Vec<u8>> {
        self.agent()?.get(path, offset, length)
    }

    /// A device of the machine, for the checker.
    #[must_use]
    pub fn device(&self, path: &str) -> GuestDevice<'_> {
        GuestDevice {
            machine: self,
            path: path.to_owned(),
        }
    }

    /// The last lines of the console.
    #[must_use]
    pub fn console_end(&self) -> String {
        let bytes = fs::read(&self.hardware.console).unwrap_or_default();
        let from = bytes.len().saturating_sub(SHOWN_CONSOLE_BYTES);
        let said =
            fs::read_to_string(self.hardware.console.with_extension("qemu")).unwrap_or_default();
        format!("{}\n{said}", String::from_utf8_lossy(&bytes[from..]))
    }

    /// The guest's kernel died. Under emulation it may do so by itself, so it is no proof against the product.
    #[must_use]
    pub fn kernel_panicked(&self) -> bool {
        self.console_says("Kernel panic - not syncing")
    }

    fn console_says(&self, words: &str) -> bool {
        let bytes = fs::read(&self.hardware.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(words)
    }

    fn explain(&self, script: &str) -> String {
        let panicked = if self.kernel_panicked() {
            " (its kernel panicked)"
        } else {
            ""
        };
        format!("{}{panicked}: {script}", self.name())
    }
}

impl Powered {
    /// Takes in everything QEMU had sent before it ended.
    fn collect(&mut self) {
        for recorder in self.recorders.drain(..) {
            // It ends when the stream does, and QEMU has closed it.
            let _ = recorder.join();
        }
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        self.qemu.kill();
        self.agent.close();
        self.collect();
    }
}

/// A block device or file inside a machine.
pub struct GuestDevice<'a> {
    machine: &'a Machine,
    path: String,
}

impl ReadAt for GuestDevice<'_> {
    fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()> {
        let bytes = self.machine.get(&self.path, offset, data.len())?;
        if bytes.len() != data.len() {
            bail!("{} ends before {}", self.path, offset + data.len() as u64);
        }
        data.copy_from_slice(&bytes);
        Ok(())
    }
}

/// User and system time in `/proc/PID/stat`. The program's name may have spaces, and ends with the last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut words = after_name.split_whitespace().skip(11);
    let mut word = || words.next()?.parse::<u64>().ok();
    Some(word()? + word()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "42 (qemu x) y) S 1 42 42 0 -1 4194560 9 0 0 0 1234 66 0 0 20 0 5 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(1300));
        assert_eq!(cpu_ticks("42 (cut"), None);
    }
}
