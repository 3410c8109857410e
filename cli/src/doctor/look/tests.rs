//! A `/proc` and a `/sys` of our own, and what is read from them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use controlplane::daemons::Door;
use controlplane::resources::netlink::Assigned;
use tempfile::TempDir;

use super::*;
use crate::doctor::facts::{
    Driver, Features, Holder, Looked, Module, Nic, NoDevices, Protocol, Rights, Watchdog,
};

struct Machine(TempDir);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            machine.file(name, text);
        }
        machine
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn root(&self) -> Root {
        Root::below(self.0.path())
    }
}

const RELEASE: (&str, &str) = ("proc/sys/kernel/osrelease", "6.12.1\n");

#[test]
fn a_module_is_loaded_built_in_loadable_or_absent() {
    let builtin = "lib/modules/6.12.1/modules.builtin";
    let listed = "lib/modules/6.12.1/modules.dep";
    let of = |files: &[(&str, &str)], name| system::module(&Machine::new(files).root(), name);
    assert_eq!(
        of(&[("sys/module/dm_mod/version", "")], "dm_mod"),
        Module::Loaded
    );
    assert_eq!(of(&[RELEASE], "dm_mod"), Module::Unknown);
    let line = (builtin, "kernel/drivers/md/dm-mod.ko\n");
    assert_eq!(of(&[RELEASE, line, (listed, "")], "dm_mod"), Module::Loaded);
    let line = (
        listed,
        "kernel/drivers/md/dm-mod.ko.xz: kernel/x.ko.xz\nkernel/drivers/block/ublk_drv.ko.zst:\n",
    );
    assert_eq!(of(&[RELEASE, line], "dm_mod"), Module::Loadable);
    assert_eq!(of(&[RELEASE, line], "ublk_drv"), Module::Loadable);
    // What another module needs is not what it is.
    let line = (listed, "kernel/a.ko: kernel/drivers/block/ublk_drv.ko\n");
    assert_eq!(of(&[RELEASE, line], "ublk_drv"), Module::Absent);
}

#[test]
fn rights_are_the_effective_ones() {
    let text = "Name:\tx\nUid:\t1000\t0\t1000\t1000\nCapInh:\t0\nCapEff:\t0000000000204000\n";
    let machine = Machine::new(&[("proc/self/status", text)]);
    let rights = system::rights(&machine.root()).unwrap();
    assert_eq!(
        rights,
        Rights {
            user: 0,
            capabilities: 0x20_4000
        }
    );
    assert!(rights.has(21) && rights.has(14) && !rights.has(12));
    let error = system::rights(&Machine::new(&[]).root()).unwrap_err();
    assert!(
        error.starts_with("/proc/self/status cannot be read"),
        "{error}"
    );
}

#[test]
fn the_limit_is_that_of_lockstepd_where_it_runs() {
    let limits = |number| {
        format!("Limit   Soft   Hard   Units\nMax locked memory   {number}   {number}   bytes\n")
    };
    let machine = Machine::new(&[
        ("proc/meminfo", "MemTotal: 8 kB\nMemAvailable:    2048 kB\n"),
        (
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/no-such-swap partition 1 0 -2\n",
        ),
        ("proc/self/limits", &limits("8388608")),
    ]);
    let memory = system::memory(&machine.root());
    assert_eq!(memory.available, Ok(2 << 20));
    assert_eq!((memory.lockable, memory.of_daemon), (Ok(8 << 20), false));
    assert_eq!(memory.swaps.unwrap()[0].path, "/dev/no-such-swap");
    machine.file("proc/300/comm", "lockstepd\n");
    machine.file("proc/300/limits", &limits("unlimited"));
    let memory = system::memory(&machine.root());
    assert_eq!((memory.lockable, memory.of_daemon), (Ok(u64::MAX), true));
}

#[test]
fn a_watchdog_is_known_by_sysfs_alone() {
    let machine = Machine::new(&[
        ("sys/class/watchdog/watchdog0/identity", "iTCO_wdt\n"),
        ("sys/class/watchdog/watchdog0/state", "active\n"),
        ("sys/class/watchdog/watchdog1/timeout", "10\n"),
    ]);
    let dog = |name: &str, identity: &str, armed| Watchdog {
        name: name.to_string(),
        identity: identity.to_string(),
        armed,
    };
    assert_eq!(
        system::watchdogs(&machine.root()),
        [
            dog("watchdog0", "iTCO_wdt", Some(true)),
            dog("watchdog1", "a driver without a name", None)
        ]
    );
}

#[test]
fn the_interface_of_an_address_is_found_by_its_number() {
    let machine = Machine::new(&[
        ("sys/class/net/lo/ifindex", "1\n"),
        ("sys/class/net/eth7/ifindex", "7\n"),
        ("sys/class/net/eth7/operstate", "lowerlayerdown\n"),
    ]);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let assigned = Ok(vec![
        Assigned::new(7, ip("10.0.0.1"), 24),
        Assigned::new(9, ip("10.9.0.1"), 24),
    ]);
    let nic = |address| network::nic(&machine.root(), &assigned, ip(address));
    let expected = Nic {
        name: "eth7".to_string(),
        state: Ok("lowerlayerdown".to_string()),
        is_duplicate: false,
    };
    assert_eq!(nic("10.0.0.1"), Ok(Some(expected)));
    assert_eq!(nic("10.0.0.2"), Ok(None));
    assert!(nic("10.9.0.1").is_err());
    assert_eq!(
        network::nic(&machine.root(), &Err("no".into()), ip("10.0.0.1")),
        Err("no".into())
    );
}

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

#[test]
fn the_holder_of_a_port_is_the_process_that_has_its_socket_open() {
    // 127.0.0.1:7420 listens, 10.0.0.1:7421 is connected, [::]:7422 listens, 10.0.0.1:7421 by UDP.
    let line = |address: &str, state: &str, inode| {
        format!(
            "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"
        )
    };
    let any = "0".repeat(32);
    let machine = Machine::new(&[
        (
            "proc/net/tcp",
            &format!(
                "{HEAD}{}{}",
                line("0100007F:1CFC", "0A", 11),
                line("0100000A:1CFD", "01", 12)
            ),
        ),
        (
            "proc/net/tcp6",
            &format!("{HEAD}{}", line(&format!("{any}:1CFE"), "0A", 13)),
        ),
        (
            "proc/net/udp",
            &format!("{HEAD}{}", line("0100000A:1CFD", "07", 14)),
        ),
        ("proc/77/comm", "ublk-mirror\n"),
        ("proc/78/comm", "lockstepd\n"),
    ]);
    machine.link("proc/77/fd/5", "socket:[11]");
    machine.link("proc/78/fd/9", "socket:[14]");
    let of = |protocol, address: &str| {
        network::holder(&machine.root(), protocol, address.parse().unwrap()).unwrap()
    };
    let process = |pid, name: &str| Holder::Process {
        pid,
        name: name.to_string(),
    };
    assert_eq!(
        of(Protocol::Tcp, "127.0.0.1:7420"),
        process(77, "ublk-mirror")
    );
    assert_eq!(
        of(Protocol::Tcp, "10.0.0.9:7420"),
        Holder::Nobody,
        "another address"
    );
    assert_eq!(
        of(Protocol::Tcp, "10.0.0.1:7421"),
        Holder::Nobody,
        "no listener"
    );
    assert_eq!(
        of(Protocol::Tcp, "10.0.0.1:7422"),
        Holder::Hidden,
        "every IPv6 address"
    );
    assert_eq!(of(Protocol::Tcp, "[fd00::1]:7422"), Holder::Nowhere);
    machine.link("proc/77/fd/6", "socket:[13]");
    assert_eq!(
        of(Protocol::Tcp, "[fd00::1]:7422"),
        process(77, "ublk-mirror")
    );
    assert!(matches!(
        of(Protocol::Tcp, "10.0.0.1:7422"),
        Holder::Perhaps { pid: 77, .. }
    ));
    assert_eq!(of(Protocol::Udp, "10.0.0.1:7421"), process(78, "lockstepd"));
    assert_eq!(of(Protocol::Udp, "[fd00::1]:7421"), Holder::Nobody);
}

fn disk() -> Machine {
    let machine = Machine::new(&[
        ("sys/devices/pci/block/sda/size", "20971520\n"),
        ("sys/devices/pci/block/sda/ro", "0\n"),
        ("sys/devices/pci/block/sda/dev", "8:0\n"),
        (
            "sys/devices/pci/block/sda/queue/write_cache",
            "write through\n",
        ),
        (
            "sys/devices/pci/block/sda/device/scsi_disk/0:0:0:0/cache_type",
            "write back\n",
        ),
        ("sys/devices/pci/block/sda/sda1/partition", "1\n"),
        ("sys/devices/pci/block/sda/sda1/size", "2048\n"),
        ("sys/devices/pci/block/sda/sda1/ro", "1\n"),
        ("sys/devices/pci/block/sda/sda1/dev", "8:1\n"),
        ("sys/devices/pci/block/sda/sda1/holders/dm-3", ""),
        ("sys/class/block/dm-3/dm/name", "lockstep-data-data\n"),
        ("proc/swaps", "Filename Type\n/dev/sda partition\n"),
        (
            "proc/self/mountinfo",
            "30 1 8:1 / /srv/my\\040data rw - ext4 /dev/sda1 rw\n31 1 0:44 / /b rw - btrfs /dev/sda rw\n32 1 8:16 / /c rw - xfs /dev/sdb rw\n",
        ),
    ]);
    machine.link("sys/dev/block/8:0", "../../devices/pci/block/sda");
    machine.link("sys/dev/block/8:1", "../../devices/pci/block/sda/sda1");
    machine
}

#[test]
fn a_disk_is_used_where_one_of_its_partitions_is() {
    let machine = disk();
    let whole = disks::block(&machine.root(), 8, 0).unwrap();
    assert_eq!(whole.place, Path::new("sys/devices/pci/block/sda"));
    assert_eq!(
        (whole.name.as_str(), whole.size_bytes, whole.read_only),
        ("sda", 10 << 30, false)
    );
    assert_eq!(whole.stacked, ["lockstep-data-data"]);
    assert_eq!(whole.mounts.unwrap(), ["/b", "/srv/my data"]);
    assert_eq!(whole.swap, Ok(true));
    assert_eq!(whole.cache.as_deref(), Some("write through"));
    assert_eq!(whole.disk_cache.as_deref(), Some("write back"));
    let part = disks::block(&machine.root(), 8, 1).unwrap();
    assert_eq!(part.place, Path::new("sys/devices/pci/block/sda/sda1"));
    assert_eq!(
        (part.name.as_str(), part.size_bytes, part.read_only),
        ("sda1", 1 << 20, true)
    );
    assert_eq!(part.mounts.unwrap(), ["/srv/my data"]);
    assert_eq!(part.swap, Ok(false));
    // The cache is the disk's.
    assert_eq!(part.cache.as_deref(), Some("write through"));
    assert_eq!(
        part.cache_file,
        Path::new("/sys/devices/pci/block/sda/queue/write_cache")
    );
    assert!(disks::block(&machine.root(), 9, 9).is_err());
}

#[test]
fn what_the_data_plane_refuses_keeps_its_code_and_its_advice() {
    let said = "noise\nublk-mirror: LS3017: the metadata is of another volume: x\n  what to do: compare them\n";
    let Looked::Wrong { code, what, advice } = disks::refused(said) else {
        panic!("not refused")
    };
    assert_eq!((code.as_str(), advice.as_str()), ("LS3017", "compare them"));
    assert_eq!(what, "the metadata is of another volume: x");
    assert!(matches!(disks::refused("it crashed"), Looked::Unseen(_)));
}

#[test]
fn one_name_that_is_no_text_hides_no_mount() {
    let machine = disk();
    let mounts =
        b"30 1 8:1 / /srv/\xff\xfe rw - ext4 /dev/sda1 rw\n31 1 8:0 / /b rw - xfs /dev/sda rw\n";
    fs::write(machine.0.path().join("proc/self/mountinfo"), mounts).unwrap();
    let whole = disks::block(&machine.root(), 8, 0).unwrap();
    assert_eq!(whole.mounts.unwrap(), ["/b", "/srv/\u{fffd}\u{fffd}"]);
    fs::remove_file(machine.0.path().join("proc/self/mountinfo")).unwrap();
    fs::remove_file(machine.0.path().join("proc/swaps")).unwrap();
    let whole = disks::block(&machine.root(), 8, 0).unwrap();
    assert!(whole.mounts.is_err() && whole.swap.is_err());
}

#[test]
fn a_daemon_that_began_anew_is_still_itself_and_the_witness_is_another() {
    let machine = Machine::new(&[
        ("proc/7/comm", "exe\n"),
        ("proc/7/cmdline", "/usr/sbin/lockstepd\0run\0"),
        ("proc/8/comm", "exe\n"),
        ("proc/9/comm", "lockstepd\n"),
        ("proc/9/cmdline", "lockstepd\0witness\0--state\0/x\0"),
        ("proc/10/comm", "exe\n"),
        ("proc/10/cmdline", "other\0"),
        ("proc/11/comm", "nginx\n"),
    ]);
    machine.link("proc/7/exe", "/usr/sbin/lockstepd (deleted)");
    machine.link("proc/8/exe", "/usr/sbin/lockstepd (deleted)");
    let mut found = machine.root().processes();
    found.sort();
    let named = |pid, name: &str| (pid, name.to_string());
    assert_eq!(
        found,
        [
            named(7, "lockstepd"),
            named(8, "lockstepd"),
            named(9, "lockstepd witness"),
            named(10, "other"),
            named(11, "nginx"),
        ]
    );
}

#[test]
fn swap_is_followed_to_the_disk_below() {
    let machine = Machine::new(&[
        ("sys/devices/virtual/block/ublkb0/size", "8\n"),
        ("sys/devices/virtual/block/dm-1/slaves/none/x", ""),
        ("sys/devices/pci/block/sda/size", "8\n"),
    ]);
    fs::remove_dir_all(
        machine
            .0
            .path()
            .join("sys/devices/virtual/block/dm-1/slaves/none"),
    )
    .unwrap();
    machine.link(
        "sys/devices/virtual/block/dm-1/slaves/ublkb0",
        "../../ublkb0",
    );
    machine.link("sys/dev/block/253:1", "../../devices/virtual/block/dm-1");
    machine.link("sys/dev/block/8:0", "../../devices/pci/block/sda");
    let on_ublk = |numbers| system::on_ublk(&machine.root(), numbers);
    assert_eq!(on_ublk((253, 1)), Ok(true));
    assert_eq!(on_ublk((8, 0)), Ok(false));
    assert!(on_ublk((0, 44)).is_err(), "btrfs makes its numbers up");
}

#[test]
fn a_driver_that_refuses_root_is_no_gap() {
    let said =
        b"ublk-mirror: LS3033: ublk GetFeatures: Operation not permitted\n  what to do: allow it\n";
    assert_eq!(
        system::told(b"", said),
        Driver::Refuses {
            said: "LS3033: ublk GetFeatures: Operation not permitted".to_string(),
            advice: "allow it".to_string(),
        }
    );
    let can = Driver::Can(Features {
        recovery: true,
        resize: false,
    });
    assert_eq!(
        system::told(br#"{"recovery":true,"resize":false}"#, b""),
        can
    );
    assert!(matches!(
        system::told(b"", b"error: unrecognized subcommand"),
        Driver::Unseen(_)
    ));
}

#[test]
fn a_daemon_that_takes_nobody_in_has_a_code_and_one_of_root_s_is_a_gap() {
    let look =
        |kind: io::ErrorKind| disks::looked(Path::new("/x"), &Door::Unclear(kind.into()), true);
    assert_eq!(
        look(io::ErrorKind::WouldBlock),
        Looked::Silent("its daemon listens and takes nobody in".to_string())
    );
    assert!(matches!(
        look(io::ErrorKind::PermissionDenied),
        Looked::Unseen(_)
    ));
}

#[test]
fn nothing_but_a_regular_file_is_read_and_nobody_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("b.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        disks::read(&pipe).unwrap_err(),
        NoDevices::Wrong("it is no regular file".to_string())
    );
    let (found, _) = cluster(&pipe, Some("node1"));
    let Cluster::Unseen { why, .. } = found else {
        panic!("{found:?}")
    };
    assert_eq!(why, "it is no regular file");
    let late = limit::within(Duration::from_millis(20), || {
        fs::read(pipe).map_err(|error| error.to_string())
    });
    assert_eq!(late, Err("no answer within 20ms".to_string()));
}

#[test]
fn a_program_that_does_not_answer_is_said_to() {
    let shell = |words: &'static str| {
        move || {
            let mut command = Command::new("sh");
            command.args(["-c", words]);
            command
        }
    };
    assert_eq!(answer(shell("echo $((1 + 1))")).unwrap().stdout, b"2\n");
    let error = answer(|| Command::new("/no/such/program")).unwrap_err();
    assert!(error.contains("No such file"), "{error}");
    let late = |words| limit::answer_within(Duration::from_millis(200), shell(words)).unwrap_err();
    assert_eq!(late("exec sleep 30"), "no answer within 200ms");
    // It has said all, and does not end.
    assert_eq!(
        late("exec >/dev/null 2>&1; exec sleep 30"),
        "no answer within 200ms"
    );
}
