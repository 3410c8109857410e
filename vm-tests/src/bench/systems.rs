//! The systems that are compared: each has a disk of its own on both nodes, and is used on the first.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::bench::bed::Bed;
use crate::machine::Machine;
use crate::network::Net;
use crate::volume;
use crate::wait::wait_until;

/// A first copy of some hundreds of MiB, between emulated machines on a busy host.
const SYNC_LIMIT: Duration = Duration::from_secs(600);
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const NVME_SUBSYSTEM: &str = "lockstep-bench";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum System {
    /// The disk itself, without a second copy.
    Raw,
    /// A plain ublk device over the disk, without a second copy: what ublk itself costs.
    Ublk,
    /// DRBD 8.4 of the kernel, protocol C.
    Drbd,
    /// md RAID 1 of the disk and the other node's, by NBD.
    MdNbd,
    /// The same by NVMe/TCP.
    MdNvme,
    /// This project's.
    Lockstep,
}

/// A system that is set up.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What applications use.
    pub device: String,
    /// What the kernel calls it.
    pub block: String,
    /// Which version it is, for the report.
    pub version: String,
}

impl System {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::Raw,
        Self::Ublk,
        Self::Drbd,
        Self::MdNbd,
        Self::MdNvme,
        Self::Lockstep,
    ];

    /// Its name in the tables.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ublk => "ublk",
            Self::Drbd => "DRBD",
            Self::MdNbd => "md+NBD",
            Self::MdNvme => "md+NVMe/TCP",
            Self::Lockstep => "Lockstep",
        }
    }

    /// The disk that it has on each node.
    #[must_use]
    pub fn disk(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ublk => "ublk",
            Self::Drbd => "drbd",
            Self::MdNbd => "nbd",
            Self::MdNvme => "nvme",
            Self::Lockstep => "data",
        }
    }

    /// Sets it up: both copies count when this returns.
    ///
    /// # Errors
    /// If a step fails; what it said is part of the error.
    pub fn set_up(self, bed: &Bed) -> anyhow::Result<Ready> {
        let (device, version) = match self {
            Self::Raw => (bed.one().disk_path("raw"), "a virtio disk".to_owned()),
            Self::Ublk => plain_ublk(bed.one())?,
            Self::Drbd => drbd(bed)?,
            Self::MdNbd => md_nbd(bed)?,
            Self::MdNvme => md_nvme(bed)?,
            Self::Lockstep => lockstep(bed)?,
        };
        let block = run(bed.one(), &format!("basename \"$(readlink -f {device})\""))?;
        self.whole(bed)?;
        Ok(Ready {
            device,
            block,
            version,
        })
    }

    /// Whether it has two copies, as Lockstep does.
    #[must_use]
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Drbd | Self::MdNbd | Self::MdNvme)
    }

    /// Fails unless both copies are connected and count: a mirror that lost its other half is quick.
    ///
    /// # Errors
    /// If that is not so.
    pub fn whole(self, bed: &Bed) -> anyhow::Result<()> {
        match self {
            Self::Raw => Ok(()),
            Self::Ublk => run(bed.one(), "test -b \"$(cat /tmp/loop-target)\"").map(drop),
            Self::Drbd => {
                let state = drbd_state(bed.one())?;
                ensure!(is_whole_drbd(&state), "DRBD is not whole: {state}");
                Ok(())
            }
            Self::MdNbd => md_whole(bed.one(), "md0"),
            Self::MdNvme => md_whole(bed.one(), "md1"),
            Self::Lockstep => {
                let one = bed.one();
                for pointer in ["copy", "peer_copy"] {
                    let status = lockstep_status(one)?;
                    ensure!(
                        status[pointer] == "in-sync",
                        "Lockstep is not whole: {status:#}"
                    );
                }
                Ok(())
            }
        }
    }
}

/// A script that must do well; what it printed.
fn run(node: &Machine, script: &str) -> anyhow::Result<String> {
    let output = node.exec(script, COMMAND_LIMIT)?;
    if !output.ok() {
        bail!("{}: `{script}`: {output:?}", node.name());
    }
    Ok(output.stdout.trim().to_owned())
}

/// One queue, as deep as the mirror's, served by `vm-tests/loop-target`.
fn plain_ublk(one: &Machine) -> anyhow::Result<(String, String)> {
    let disk = one.disk_path("ublk");
    run(
        one,
        &format!(
            "setsid /opt/bin/loop-target {disk} --size-bytes $(blockdev --getsize64 {disk}) \
             --block-bytes $(blockdev --getss {disk}) >/tmp/loop-target 2>/tmp/loop-target.log </dev/null &"
        ),
    )?;
    let there = "test -b \"$(cat /tmp/loop-target)\"";
    wait_until(COMMAND_LIMIT, "the plain ublk device", || {
        Ok(one.exec(there, COMMAND_LIMIT)?.ok())
    })
    .with_context(|| run(one, "cat /tmp/loop-target.log").unwrap_or_default())?;
    let device = run(one, "cat /tmp/loop-target")?;
    Ok((
        device,
        "a plain target over the disk, without a mirror".to_owned(),
    ))
}

/// Protocol C, internal metadata, a volatile cache below (so flushes stay on); otherwise what its guide says of throughput.
fn drbd(bed: &Bed) -> anyhow::Result<(String, String)> {
    let on = |node: &Machine| {
        format!(
            "on {} {{ device /dev/drbd0; disk {}; address {}:7789; meta-disk internal; }}\n",
            node.name(),
            node.disk_path("drbd"),
            node.address(Net::Mirror)
        )
    };
    let (one, two) = (bed.one(), bed.two());
    let text = format!(
        "global {{ usage-count no; }}\nresource bench {{\n\
         net {{ protocol C; max-buffers 8000; max-epoch-size 8000; }}\n\
         disk {{ c-max-rate 4G; c-fill-target 1M; }}\n{}{}}}\n",
        on(one),
        on(two)
    );
    for node in [one, two] {
        node.put("/etc/drbd.conf", 0o644, text.as_bytes())?;
        run(node, "modprobe drbd usermode_helper=disabled")?;
        run(node, "drbdadm create-md --force bench && drbdadm up bench")?;
    }
    run(one, "drbdadm primary --force bench")?;
    wait_until(SYNC_LIMIT, "DRBD's first copy", || {
        Ok(is_whole_drbd(&drbd_state(one)?))
    })
    .with_context(|| drbd_state(one).unwrap_or_default())?;
    let module = run(one, "head -1 /proc/drbd")?;
    let utils = run(one, "dpkg-query -W -f '${Version}' drbd-utils")?;
    Ok((
        "/dev/drbd0".to_owned(),
        format!("module {module}; drbd-utils {utils}"),
    ))
}

fn drbd_state(node: &Machine) -> anyhow::Result<String> {
    run(node, "cat /proc/drbd")
}

fn is_whole_drbd(state: &str) -> bool {
    state.contains("cs:Connected") && state.contains("ds:UpToDate/UpToDate")
}

/// nbd-server with flushes and FUA, and the array on the first node.
fn md_nbd(bed: &Bed) -> anyhow::Result<(String, String)> {
    let (one, two) = (bed.one(), bed.two());
    let (address, disk) = (two.address(Net::Mirror), two.disk_path("nbd"));
    let text = format!(
        "[generic]\nlistenaddr = {address}\n[bench]\nexportname = {disk}\nflush = true\nfua = true\n"
    );
    two.put("/etc/nbd-server/config", 0o644, text.as_bytes())?;
    run(
        two,
        "nbd-server -C /etc/nbd-server/config </dev/null >/tmp/nbd.log 2>&1",
    )?;
    run(
        one,
        &format!("modprobe nbd && nbd-client {address} -N bench -b 4096 /dev/nbd0 </dev/null"),
    )?;
    make_array(one, "md0", "nbd", "/dev/nbd0")?;
    let version = run(
        one,
        "echo $(dpkg-query -W -f 'mdadm ${Version}; ' mdadm; dpkg-query -W -f 'nbd ${Version}' nbd-client)",
    )?;
    Ok(("/dev/md0".to_owned(), version))
}

/// The kernel's own target and host.
fn md_nvme(bed: &Bed) -> anyhow::Result<(String, String)> {
    let (one, two) = (bed.one(), bed.two());
    let (address, disk) = (two.address(Net::Mirror), two.disk_path("nvme"));
    run(
        two,
        &format!(
            "set -e; modprobe -a nvmet nvmet_tcp\n\
             mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config\n\
             cd /sys/kernel/config/nvmet; mkdir subsystems/{NVME_SUBSYSTEM}\n\
             echo 1 >subsystems/{NVME_SUBSYSTEM}/attr_allow_any_host\n\
             mkdir subsystems/{NVME_SUBSYSTEM}/namespaces/1\n\
             echo -n {disk} >subsystems/{NVME_SUBSYSTEM}/namespaces/1/device_path\n\
             echo 1 >subsystems/{NVME_SUBSYSTEM}/namespaces/1/enable\n\
             mkdir ports/1; echo tcp >ports/1/addr_trtype; echo ipv4 >ports/1/addr_adrfam\n\
             echo {address} >ports/1/addr_traddr; echo 4420 >ports/1/addr_trsvcid\n\
             ln -s /sys/kernel/config/nvmet/subsystems/{NVME_SUBSYSTEM} ports/1/subsystems/{NVME_SUBSYSTEM}"
        ),
    )?;
    run(
        one,
        &format!(
            "modprobe nvme_tcp && \
             echo transport=tcp,traddr={address},trsvcid=4420,nqn={NVME_SUBSYSTEM} >/dev/nvme-fabrics"
        ),
    )?;
    wait_until(COMMAND_LIMIT, "the other node's disk by NVMe/TCP", || {
        Ok(one.exec("test -b /dev/nvme0n1", COMMAND_LIMIT)?.ok())
    })?;
    make_array(one, "md1", "nvme", "/dev/nvme0n1")?;
    let version = run(
        one,
        "echo $(dpkg-query -W -f 'mdadm ${Version}; ' mdadm) nvmet and nvme-tcp of kernel $(uname -r)",
    )?;
    Ok(("/dev/md1".to_owned(), version))
}

/// Reads go to this node's disk; the bitmap is in the array, as somebody has it who wants a quick resync.
fn make_array(one: &Machine, name: &str, disk: &str, remote: &str) -> anyhow::Result<()> {
    let local = one.disk_path(disk);
    run(
        one,
        &format!(
            "set -e; modprobe raid1; export MDADM_NO_UDEV=1\n\
             echo 2000000 >/proc/sys/dev/raid/speed_limit_min; echo 2000000 >/proc/sys/dev/raid/speed_limit_max\n\
             mdadm --create /dev/{name} --run --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal \
             {local} --write-mostly {remote} </dev/null"
        ),
    )?;
    let what = format!("the first copy of {name}");
    wait_until(SYNC_LIMIT, &what, || Ok(md_whole(one, name).is_ok()))
        .with_context(|| run(one, "cat /proc/mdstat").unwrap_or_default())?;
    Ok(())
}

fn md_whole(one: &Machine, name: &str) -> anyhow::Result<()> {
    let state = run(
        one,
        &format!("cd /sys/block/{name}/md; echo $(cat degraded sync_action sync_completed)"),
    )?;
    ensure!(state == "0 idle none", "{name} is not whole: {state}");
    Ok(())
}

/// As an operator does it, with the metadata on the same disk.
fn lockstep(bed: &Bed) -> anyhow::Result<(String, String)> {
    let (one, two) = (bed.one(), bed.two());
    let create = |node: &Machine, peer: &Machine, more: &str| {
        let end =
            |machine: &Machine| format!("{}={}:7420", machine.name(), machine.address(Net::Mirror));
        format!(
            "lockstep volume create {} --backing {} --node {} --peer {}{more}",
            volume::NAME,
            node.disk_path("data"),
            end(node),
            end(peer)
        )
    };
    run(one, &create(one, two, ""))?;
    two.put(
        volume::KEY_FILE,
        0o600,
        &one.get(volume::KEY_FILE, 0, 4096)?,
    )?;
    run(two, &create(two, one, " --join"))?;
    for node in [one, two] {
        run(node, &format!("lockstep volume start {}", volume::NAME))?;
    }
    let log = || run(one, "tail -n 25 /var/log/lockstep/data.log").unwrap_or_default();
    wait_until(SYNC_LIMIT, "Lockstep's first copy", || {
        let status = lockstep_status(one)?;
        Ok(status["copy"] == "in-sync" && status["peer_copy"] == "in-sync")
    })
    .with_context(log)?;
    run(one, &format!("lockstep volume activate {}", volume::NAME)).with_context(log)?;
    let version = run(one, "lockstep --version")?;
    Ok((volume::DEVICE.to_owned(), version))
}

fn lockstep_status(node: &Machine) -> anyhow::Result<serde_json::Value> {
    let text = run(
        node,
        &format!("lockstep volume status {} --json || true", volume::NAME),
    )?;
    serde_json::from_str(&text).with_context(|| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_of_drbd_counts_only_when_it_is_whole() {
        let line = |connection: &str, disks: &str| {
            format!("version: 8.4.11\n 0: cs:{connection} ro:Primary/Secondary ds:{disks} C r-----")
        };
        assert!(is_whole_drbd(&line("Connected", "UpToDate/UpToDate")));
        assert!(!is_whole_drbd(&line("SyncSource", "UpToDate/Inconsistent")));
        assert!(!is_whole_drbd(&line("WFConnection", "UpToDate/DUnknown")));
    }
}
