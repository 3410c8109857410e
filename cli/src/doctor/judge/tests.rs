//! A machine on which all is well, and one change of it after the other: what is said then, word for word.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use controlplane::config::Config;

use super::*;
use crate::doctor::facts::*;
use crate::doctor::{Counts, told};
use crate::style::Style;

const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

fn system() -> System {
    System {
        kernel: Ok("6.12.117+deb12-cloud-amd64".to_string()),
        ublk: Module::Loaded,
        ublk_control: true,
        driver: Driver::Can(Features {
            recovery: true,
            resize: false,
        }),
        mapper: Module::Loaded,
        mapper_control: true,
        io_uring_disabled: Ok(Some(0)),
        rights: Ok(Rights {
            user: 0,
            capabilities: ALL_CAPABILITIES,
        }),
        memory: Memory {
            available: Ok(4 << 30),
            lockable: Ok(u64::MAX),
            of_daemon: true,
            swaps: Ok(vec![Swap {
                path: "/dev/vda2".to_string(),
                on_ublk: Ok(false),
            }]),
        },
        clock: Ok(true),
        watchdogs: Vec::new(),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn path(number: u8) -> Path {
    Path {
        what: format!("interconnect {number}"),
        set: "interconnects".to_string(),
        local: address(&format!("10.{number}.0.1:7421")),
        peer: address(&format!("10.{number}.0.2:7421")),
        nic: Ok(Some(Nic {
            name: format!("eth{number}"),
            state: Ok("up".to_string()),
            is_duplicate: false,
        })),
        route: Ok(format!("eth{number}")),
    }
}

fn port() -> Port {
    Port {
        what: "heartbeats".to_string(),
        protocol: Protocol::Udp,
        address: address("10.1.0.1:7421"),
        owner: "lockstepd",
        pid: None,
        holder: Ok(Holder::Process {
            pid: 300,
            name: "lockstepd".to_string(),
        }),
    }
}

fn block(name: &str) -> Block {
    Block {
        name: name.to_string(),
        place: PathBuf::from(format!("sys/devices/virtual/block/{name}")),
        size_bytes: 10 << 30,
        read_only: true,
        stacked: vec!["lockstep-data-data".to_string()],
        mounts: Ok(Vec::new()),
        swap: Ok(false),
        cache: Some("write back".to_string()),
        disk_cache: None,
        cache_file: PathBuf::from(format!(
            "/sys/devices/virtual/block/{name}/queue/write_cache"
        )),
    }
}

fn volume(name: &str, device: &str) -> Volume {
    let mut block = block(device);
    block.stacked = vec![format!("lockstep-{name}-data")];
    Volume {
        name: name.to_string(),
        file: PathBuf::from(format!("/etc/lockstep/volumes/{name}.toml")),
        devices: Ok(vec![Device {
            path: PathBuf::from(format!("/dev/disk/by-id/virtio-{device}")),
            part: "backing device",
            kind: DeviceKind::Block(block),
        }]),
        runs: Ok(true),
        looked: Looked::Runs,
    }
}

/// A node in service.
pub(crate) fn well() -> Facts {
    let program = |name| Program {
        name,
        version: Ok(env!("CARGO_PKG_VERSION").to_string()),
    };
    Facts {
        system: system(),
        cluster: Cluster::Node {
            path: PathBuf::from("/etc/lockstep/cluster.toml"),
            name: "node1".to_string(),
            warnings: 0,
            watchdog: None,
        },
        is_set_up: Ok(true),
        programs: vec![program("lockstepd"), program("ublk-mirror")],
        daemon: Daemon::Answers {
            node: "node1".to_string(),
            version: Some(env!("CARGO_PKG_VERSION").to_string()),
            trust: None,
        },
        secrets: vec![FileMode {
            path: PathBuf::from("/etc/lockstep/cluster.key"),
            what: "the cluster's key",
            need: Need::Wanted {
                why: "the volumes' daemons do not start",
                advice: "copy it",
            },
            mode: Ok(Some((0o600, 0))),
        }],
        files: vec![FileMode {
            path: PathBuf::from("/etc/lockstep/cluster.toml"),
            what: "the cluster's configuration",
            need: Need::Optional,
            mode: Ok(Some((0o644, 0))),
        }],
        directories: vec![Directory {
            path: PathBuf::from("/var/lib/lockstep"),
            what: "what is remembered",
            keeps: Keeps::Records,
            mode: Ok(Some((0o755, 0))),
            room: Ok(Room {
                free_bytes: 10 << 30,
                writable: true,
            }),
        }],
        paths: vec![path(1), path(2)],
        ports: vec![port()],
        volumes: vec![volume("data", "vdb")],
        unlisted: None,
    }
}

/// Before anything is configured, by a user.
fn bare() -> Facts {
    let mut facts = well();
    facts.cluster = Cluster::Absent {
        path: PathBuf::from("/etc/lockstep/cluster.toml"),
    };
    facts.is_set_up = Ok(false);
    facts.daemon = Daemon::Silent("nobody listens".to_string());
    (facts.secrets, facts.files) = (Vec::new(), Vec::new());
    facts.directories[0].mode = Ok(None);
    (facts.paths, facts.ports, facts.volumes) = (Vec::new(), Vec::new(), Vec::new());
    facts
}

fn of_block(facts: &mut Facts) -> &mut Block {
    let device = &mut facts.volumes[0].devices.as_mut().unwrap()[0];
    let DeviceKind::Block(block) = &mut device.kind else {
        panic!("no block device")
    };
    block
}

fn kind(facts: &mut Facts, kind: DeviceKind) {
    facts.volumes[0].devices.as_mut().unwrap()[0].kind = kind;
}

fn stopped(facts: &mut Facts) {
    facts.volumes[0].runs = Ok(false);
    facts.volumes[0].looked = Looked::Fits;
}

fn swaps(path: &str, on_ublk: Seen<bool>) -> Seen<Vec<Swap>> {
    Ok(vec![Swap {
        path: path.to_string(),
        on_ublk,
    }])
}

/// What is not good, a line each.
fn said(facts: &Facts) -> Vec<String> {
    let lines = checks(facts).into_iter().filter_map(|check| {
        let place = check
            .place
            .map(|place| format!("{place}: "))
            .unwrap_or_default();
        let (verdict, words) = match check.outcome {
            Outcome::Good(_) => return None,
            Outcome::Nothing(why) => ("nothing", why),
            Outcome::Unseen(why) => ("unseen", why),
            Outcome::Warning(fault) => ("warning", format!("{} {}", fault.code, fault.what)),
            Outcome::Error(fault) => ("error", format!("{} {}", fault.code, fault.what)),
        };
        Some(format!("{verdict} {} {place}{words}", check.name))
    });
    lines.collect()
}

type Case = (fn(&mut Facts), &'static str);

const NO_CERTIFICATES: &str =
    "nothing certificates no lockstepd answers that would say how they are";
const NO_WATCHDOG: &str = "nothing watchdog there is none, and the configuration asks for none";

#[test]
fn a_node_in_service_is_healthy() {
    let facts = well();
    assert_eq!(said(&facts), [NO_WATCHDOG]);
    assert_eq!(Counts::of(&checks(&facts)).exit_code(), 0);
}

#[test]
fn a_machine_that_is_not_set_up_is_healthy_and_says_what_was_not_looked_at() {
    let facts = bare();
    let found = checks(&facts);
    assert_eq!(Counts::of(&found).exit_code(), 0);
    let said = said(&facts);
    assert!(
        said.iter().all(|line| line.starts_with("nothing ")),
        "{said:#?}"
    );
    for line in [
        "nothing configuration /etc/lockstep/cluster.toml: it is not there: this machine is no node of a cluster yet",
        "nothing lockstepd it does not run, and this machine is no node of a cluster",
        "nothing address no networks are configured on this machine yet",
        "nothing device no volume was created on this machine yet",
    ] {
        assert!(said.iter().any(|found| found == line), "{line}: {said:#?}");
    }
}

/// Each changes one thing of a node in service.
const SYSTEM: &[Case] = &[
    (
        |f| f.system.kernel = Ok("6.7.12-amd64".into()),
        "error kernel LS6140 Linux 6.7.12-amd64 runs here",
    ),
    (
        |f| f.system.kernel = Ok("5.15.0".into()),
        "error kernel LS6140 Linux 5.15.0 runs here",
    ),
    (
        |f| f.system.kernel = Ok("unknown".into()),
        "unseen kernel \"unknown\" is no number of a kernel",
    ),
    (
        |f| {
            f.system.driver = Driver::Can(Features {
                recovery: false,
                resize: false,
            })
        },
        "error ublk-features LS6141 this ublk driver cannot recover a device",
    ),
    (
        |f| f.system.driver = Driver::Unseen("only root may ask".into()),
        "unseen ublk-features only root may ask",
    ),
    (
        |f| {
            f.system.driver = Driver::Refuses {
                said: "LS3033: ublk GetFeatures: Operation not permitted".into(),
                advice: "allow io_uring".into(),
            }
        },
        "error ublk-features LS6141 the ublk driver cannot be asked: LS3033: ublk GetFeatures: Operation not permitted",
    ),
    (
        |f| f.system.mapper = Module::Absent,
        "warning device-mapper LS6142 the running kernel has no module dm_mod",
    ),
    (
        |f| f.system.mapper = Module::Unknown,
        "unseen device-mapper /dev/mapper/control is there; no modules of the running kernel are installed here, so whether one is behind it is not told",
    ),
    (
        |f| {
            f.system.rights = Ok(Rights {
                user: 0,
                capabilities: ALL_CAPABILITIES & !(1 << 13),
            })
        },
        "error rights LS6146 root here lacks CAP_NET_RAW",
    ),
    (
        |f| {
            stopped(f);
            of_block(f).read_only = false;
            f.system.memory.available = Ok(100 << 20)
        },
        "warning memory LS6144 100.0 MiB of memory are available, 256.0 MiB are recommended",
    ),
    (
        |f| f.system.io_uring_disabled = Ok(Some(2)),
        "error io-uring LS6143 io_uring is switched off (kernel.io_uring_disabled = 2)",
    ),
    (
        |f| {
            f.system.rights = Ok(Rights {
                user: 0,
                capabilities: ALL_CAPABILITIES & !(1 << 21),
            })
        },
        "error rights LS6146 root here lacks CAP_SYS_ADMIN",
    ),
    (
        |f| {
            f.system.rights = Ok(Rights {
                user: 0,
                capabilities: ALL_CAPABILITIES & !(3 << 23),
            })
        },
        "warning rights LS6146 root here lacks CAP_SYS_NICE, CAP_SYS_RESOURCE",
    ),
    (
        |f| {
            f.system.rights = Ok(Rights {
                user: 1000,
                capabilities: 0,
            })
        },
        "unseen rights this is not root, as whom the daemons run, and who sees more; run it as root",
    ),
    (
        |f| f.system.memory.swaps = swaps("/dev/vg0/swap", Ok(true)),
        "error swap LS6144 the machine swaps to /dev/vg0/swap, on a ublk device",
    ),
    (
        |f| f.system.memory.swaps = swaps("/swap", Err("its disk is not found".into())),
        "unseen swap /swap: its disk is not found",
    ),
    (
        |f| f.system.clock = Ok(false),
        "warning clock LS6145 nobody keeps this machine's clock right",
    ),
    (
        |f| f.system.clock = Err("the kernel does not say: no".into()),
        "unseen clock the kernel does not say: no",
    ),
];

const LOCKSTEP: &[Case] = &[
    (
        |f| f.programs[1].version = Ok("0.0.9".into()),
        concat!(
            "warning program ublk-mirror: LS6158 ublk-mirror is of release 0.0.9, lockstep of ",
            env!("CARGO_PKG_VERSION")
        ),
    ),
    (
        |f| f.programs[0].version = Err("No such file or directory".into()),
        "error program lockstepd: LS6158 lockstepd cannot be run: No such file or directory",
    ),
    (
        |f| f.daemon = Daemon::Silent("nobody listens".into()),
        "error lockstepd LS6159 lockstepd does not run: nobody listens",
    ),
    (
        |f| {
            f.daemon = Daemon::Silent("nobody listens".into());
            f.is_set_up = Ok(false)
        },
        "nothing lockstepd it does not run, and waits for `lockstep cluster init` or `join`",
    ),
    (
        |f| {
            f.daemon = Daemon::Silent("nobody listens".into());
            f.is_set_up = Err("it may not be read; run it as root".into())
        },
        "unseen lockstepd it does not run; whether it should, the cluster's key would say: it may not be read; run it as root",
    ),
    (
        |f| f.daemon = Daemon::Broken("not within 5 s".into()),
        "error lockstepd LS6159 lockstepd gives no good answer: not within 5 s",
    ),
    (
        |f| f.daemon = Daemon::Unseen("/run/lockstep may not be looked into".into()),
        "unseen lockstepd /run/lockstep may not be looked into",
    ),
    (
        |f| f.daemon = with_trust("LS6183"),
        "warning certificates LS6183 soon",
    ),
    (
        |f| f.daemon = with_trust("LS6184"),
        "error certificates LS6184 soon",
    ),
    (
        |f| {
            f.daemon = Daemon::Answers {
                node: "node2".into(),
                version: None,
                trust: None,
            }
        },
        "error lockstepd LS6159 lockstepd runs here as node2, and this machine is node1",
    ),
    (
        |f| {
            f.daemon = Daemon::Answers {
                node: "node1".into(),
                version: Some("0.0.9".into()),
                trust: None,
            }
        },
        concat!(
            "warning lockstepd LS6158 lockstepd runs in release 0.0.9, lockstep is of ",
            env!("CARGO_PKG_VERSION")
        ),
    ),
    (
        |f| {
            f.daemon = Daemon::Answers {
                node: "node1".into(),
                version: None,
                trust: None,
            }
        },
        concat!(
            "warning lockstepd LS6158 lockstepd runs in release that does not tell its number, lockstep is of ",
            env!("CARGO_PKG_VERSION")
        ),
    ),
];

const FILES: &[Case] = &[
    (
        |f| f.secrets[0].mode = Ok(Some((0o640, 0))),
        "error key /etc/lockstep/cluster.key: LS6156 the cluster's key, can be read by others (mode 0640)",
    ),
    (
        |f| f.secrets[0].mode = Ok(Some((0o600, 1000))),
        "warning key /etc/lockstep/cluster.key: LS6156 the cluster's key, belongs to the user 1000",
    ),
    (
        |f| f.secrets[0].mode = Ok(None),
        "error key /etc/lockstep/cluster.key: LS6156 the cluster's key, is not there",
    ),
    (
        |f| f.secrets[0].mode = Err("it cannot be looked at: no".into()),
        "unseen key /etc/lockstep/cluster.key: it cannot be looked at: no",
    ),
    (
        |f| f.directories[0].mode = Ok(Some((0o775, 0))),
        "warning directory /var/lib/lockstep: LS6156 others can write to it (mode 0775)",
    ),
    (
        |f| f.directories[0].mode = Ok(Some((0o1777, 0))),
        "warning directory /var/lib/lockstep: LS6156 others can write to it (mode 1777)",
    ),
    (
        |f| f.directories[0].mode = Ok(Some((0o755, 1000))),
        "warning directory /var/lib/lockstep: LS6156 it belongs to the user 1000",
    ),
    (
        |f| f.files[0].mode = Ok(Some((0o664, 0))),
        "warning file /etc/lockstep/cluster.toml: LS6156 others can write to it (mode 0664)",
    ),
    (
        |f| f.files[0].mode = Ok(Some((0o644, 1000))),
        "warning file /etc/lockstep/cluster.toml: LS6156 it belongs to the user 1000",
    ),
    (
        |f| f.files[0].mode = Err("it cannot be looked at: no".into()),
        "unseen file /etc/lockstep/cluster.toml: it cannot be looked at: no",
    ),
    (
        |f| {
            f.directories[0].room = Ok(Room {
                free_bytes: 20 << 20,
                writable: true,
            })
        },
        "warning room /var/lib/lockstep: LS6157 20.0 MiB are free, 64.0 MiB are recommended",
    ),
    (
        |f| {
            f.directories[0].room = Ok(Room {
                free_bytes: 4096,
                writable: true,
            })
        },
        "error room /var/lib/lockstep: LS6157 4.0 KiB are free",
    ),
    (
        |f| {
            f.directories[0].room = Ok(Room {
                free_bytes: 10 << 30,
                writable: false,
            })
        },
        "error room /var/lib/lockstep: LS6157 its file system is read-only",
    ),
];

const NETWORK: &[Case] = &[
    (
        |f| f.paths[0].nic = Ok(None),
        "error address interconnect 1, 10.1.0.1: LS6147 no interface of this machine has 10.1.0.1",
    ),
    (
        |f| f.paths[0].nic = Err("no".into()),
        "unseen address interconnect 1, 10.1.0.1: no",
    ),
    (
        |f| {
            f.paths[0]
                .nic
                .as_mut()
                .unwrap()
                .as_mut()
                .unwrap()
                .is_duplicate = true
        },
        "error address interconnect 1, 10.1.0.1: LS6147 another machine has the address of eth1 as well",
    ),
    (
        |f| f.paths[0].nic.as_mut().unwrap().as_mut().unwrap().state = Ok("down".into()),
        "warning link interconnect 1, eth1: LS6148 eth1 has no link (it is down)",
    ),
    (
        |f| f.paths[1].route = Err("Network is unreachable".into()),
        "error route interconnect 2, 10.2.0.2: LS6149 10.2.0.2 cannot be reached from 10.2.0.1: Network is unreachable",
    ),
    (
        |f| f.paths[1].route = Ok("eth1".into()),
        "warning route interconnect 2, 10.2.0.2: LS6149 the kernel sends to 10.2.0.2 by eth1, as to 10.1.0.2",
    ),
    (
        |f| {
            f.ports[0].holder = Ok(Holder::Process {
                pid: 12,
                name: "named".into(),
            })
        },
        "error port heartbeats, UDP 10.1.0.1:7421: LS6150 named (process 12) has it",
    ),
    (
        |f| f.ports[0].holder = Ok(Holder::Hidden),
        "unseen port heartbeats, UDP 10.1.0.1:7421: somebody has it whose processes even root may not look into here",
    ),
    (
        |f| f.ports[0].holder = Ok(Holder::Nowhere),
        "error port heartbeats, UDP 10.1.0.1:7421: LS6150 the kernel itself or a process of another namespace has it",
    ),
    (
        |f| {
            f.ports[0].holder = Ok(Holder::Perhaps {
                pid: 12,
                name: "named".into(),
            })
        },
        "unseen port heartbeats, UDP 10.1.0.1:7421: named (process 12) has it for IPv6; whether for IPv4 as well, the kernel does not tell",
    ),
    (
        |f| f.ports[0].pid = Some(12),
        "error port heartbeats, UDP 10.1.0.1:7421: LS6150 another lockstepd (process 300) has it, not the volume's own (process 12)",
    ),
];

const DISKS: &[Case] = &[
    (
        |f| f.volumes[0].devices = Err(NoDevices::Wrong("missing field `peer`".into())),
        "error volume data: LS5002 /etc/lockstep/volumes/data.toml: missing field `peer`",
    ),
    (
        |f| {
            f.volumes[0].devices = Err(NoDevices::Unseen(
                "it may not be read; run it as root".into(),
            ))
        },
        "unseen volume data: /etc/lockstep/volumes/data.toml: it may not be read; run it as root",
    ),
    (
        |f| of_block(f).mounts = Err("/proc/self/mountinfo cannot be read".into()),
        "unseen device-use data, backing device /dev/disk/by-id/virtio-vdb: /proc/self/mountinfo cannot be read",
    ),
    (
        |f| {
            stopped(f);
            f.volumes[0].looked = Looked::Wrong {
                code: "LS3017".into(),
                what: "of another volume".into(),
                advice: "compare".into(),
            }
        },
        "error volume data: LS3017 of another volume",
    ),
    (
        |f| f.volumes[0].looked = Looked::Silent("its daemon listens and takes nobody in".into()),
        "error volume data: LS6123 its daemon listens and takes nobody in",
    ),
    (
        |f| kind(f, DeviceKind::Absent),
        "error device data, backing device /dev/disk/by-id/virtio-vdb: LS6151 there is no /dev/disk/by-id/virtio-vdb",
    ),
    (
        |f| kind(f, DeviceKind::Other),
        "error device data, backing device /dev/disk/by-id/virtio-vdb: LS6151 /dev/disk/by-id/virtio-vdb is no block device",
    ),
    (
        |f| kind(f, DeviceKind::File),
        "warning device data, backing device /dev/disk/by-id/virtio-vdb: LS6151 /dev/disk/by-id/virtio-vdb is a regular file",
    ),
    (
        |f| {
            stopped(f);
            of_block(f).stacked.clear()
        },
        "error device data, backing device /dev/disk/by-id/virtio-vdb: LS6151 vdb is read-only",
    ),
    (
        |f| f.volumes[0].devices.as_mut().unwrap()[0].path = PathBuf::from("/dev/vdb"),
        "warning device-name data, backing device /dev/vdb: LS6260 after a boot /dev/vdb may be another disk",
    ),
    (
        |f| of_block(f).mounts = Ok(vec!["/srv".into()]),
        "error device-use data, backing device /dev/disk/by-id/virtio-vdb: LS6152 vdb is mounted at /srv",
    ),
    (
        |f| {
            let block = of_block(f);
            block.swap = Ok(true);
            block.stacked.push("vg0-root".into())
        },
        "error device-use data, backing device /dev/disk/by-id/virtio-vdb: LS6152 vdb is used as swap, a part of vg0-root",
    ),
    (
        |f| {
            let block = of_block(f);
            (block.cache, block.disk_cache) =
                (Some("write through".into()), Some("write back".into()))
        },
        "warning write-cache data, backing device /dev/disk/by-id/virtio-vdb: LS6154 the kernel takes the cache of vdb for write through, the disk says write back",
    ),
    (
        |f| of_block(f).cache = None,
        "unseen write-cache data, backing device /dev/disk/by-id/virtio-vdb: the kernel does not say which cache the disk has",
    ),
];

#[test]
fn a_watchdog_that_the_configuration_asks_for_has_to_be_there_and_free() {
    let cases: [(&str, Option<bool>, bool, &str); 7] = [
        (
            "/dev/watchdog1",
            Some(false),
            true,
            "warning watchdog LS6155 the kernel has no watchdog1, which /dev/watchdog1 is",
        ),
        (
            "/dev/watchdog",
            Some(true),
            false,
            "warning watchdog LS6155 watchdog0 (i6300ESB timer) is armed, and lockstepd does not answer",
        ),
        (
            "/dev/ipmi",
            Some(false),
            true,
            "unseen watchdog /dev/ipmi has a name of its own; `lockstep status` says whether lockstepd can use it",
        ),
        ("/dev/watchdog", Some(true), true, "good"),
        ("/dev/watchdog", Some(false), false, "good"),
        ("/dev/watchdog0", None, true, "good"),
        (
            "",
            Some(true),
            true,
            "nothing watchdog the configuration asks for none; there is watchdog0 (i6300ESB timer): armed",
        ),
    ];
    for (device, armed, runs, line) in cases {
        let mut facts = well();
        facts.system.watchdogs = vec![Watchdog {
            name: "watchdog0".to_string(),
            identity: "i6300ESB timer".to_string(),
            armed,
        }];
        let wanted = (!device.is_empty()).then(|| PathBuf::from(device));
        match &mut facts.cluster {
            Cluster::Node { watchdog, .. } => *watchdog = wanted,
            Cluster::Absent { .. } | Cluster::Unseen { .. } | Cluster::Wrong { .. } => {
                panic!("a node")
            }
        }
        if !runs {
            facts.daemon = Daemon::Silent("nobody".to_string());
        }
        let found = checks(&facts);
        let found = found.iter().find(|check| check.name == "watchdog").unwrap();
        let good = matches!(found.outcome, Outcome::Good(_));
        assert_eq!(good, line == "good", "{device}");
        let said = said(&facts);
        let said = said.iter().find(|said| said.contains(" watchdog "));
        assert_eq!(said.map_or("good", |it| it.as_str()), line);
    }
}

#[test]
fn each_thing_that_is_wrong_is_said_alone_word_for_word() {
    let all = [SYSTEM, LOCKSTEP, FILES, NETWORK, DISKS].concat();
    for (change, line) in all {
        let mut facts = well();
        change(&mut facts);
        let said = said(&facts);
        let beside = |said: &&String| {
            let answers = matches!(facts.daemon, Daemon::Answers { .. });
            *said != NO_WATCHDOG && (answers || *said != NO_CERTIFICATES)
        };
        let others: Vec<&String> = said.iter().filter(beside).collect();
        assert_eq!(others, [line]);
    }
}

#[test]
fn without_drivers_it_is_said_which_and_how_to_load_them() {
    let cases = [
        (
            Module::Loaded,
            "ublk_drv is loaded, and there is no /dev/ublk-control",
            "dm_mod is loaded, and there is no /dev/mapper/control",
        ),
        (
            Module::Loadable,
            "the module ublk_drv is not loaded",
            "the module dm_mod is not loaded",
        ),
        (
            Module::Absent,
            "the running kernel has no module ublk_drv",
            "the running kernel has no module dm_mod",
        ),
        (
            Module::Unknown,
            "there is no /dev/ublk-control, and no modules of the running kernel are installed here",
            "there is no /dev/mapper/control, and no modules of the running kernel are installed here",
        ),
    ];
    for (module, ublk, mapper) in cases {
        let mut facts = well();
        let system = &mut facts.system;
        (system.ublk, system.mapper) = (module, module);
        (system.ublk_control, system.mapper_control) = (false, false);
        let said = said(&facts);
        assert_eq!(said[0], format!("error ublk LS6141 {ublk}"));
        assert_eq!(said[1], "nothing ublk-features there is no driver to ask");
        assert_eq!(said[2], format!("warning device-mapper LS6142 {mapper}"));
    }
}

#[test]
fn the_limit_of_locked_memory_counts_only_for_whom_it_binds() {
    let cases: [(u32, u64, bool, Option<&str>); 4] = [
        (0, ALL_CAPABILITIES, true, None),
        (
            0,
            ALL_CAPABILITIES & !(1 << 14),
            true,
            Some("error locked-memory LS6144 no more than 8.0 MiB of memory can be locked"),
        ),
        (
            1000,
            0,
            false,
            Some(
                "nothing locked-memory this user's limit is 8.0 MiB; the daemons run as root, their unit has none",
            ),
        ),
        (
            1000,
            0,
            true,
            Some(
                "unseen locked-memory the limit of lockstepd binds it only without CAP_IPC_LOCK; run it as root",
            ),
        ),
    ];
    for (user, capabilities, of_daemon, line) in cases {
        let mut facts = well();
        facts.system.rights = Ok(Rights { user, capabilities });
        facts.system.memory.lockable = Ok(8 << 20);
        facts.system.memory.of_daemon = of_daemon;
        let said = said(&facts);
        let found = said.iter().find(|line| line.contains(" locked-memory "));
        assert_eq!(found.map(String::as_str), line);
    }
}

#[test]
fn memory_is_asked_for_daemons_that_are_to_start_and_before_the_first_volume_for_one() {
    let line = |change: fn(&mut Facts)| {
        let mut facts = well();
        facts.system.memory.available = Ok(100 << 20);
        change(&mut facts);
        said(&facts)
            .into_iter()
            .find(|line| line.contains(" memory "))
    };
    assert_eq!(line(|_| ()), None, "all daemons run");
    assert!(line(|f| f.volumes.clear()).is_some());
    assert!(line(stopped).is_some());
}

#[test]
fn a_node_of_the_device_mapper_loads_the_module() {
    let mut facts = well();
    facts.system.mapper = Module::Loadable;
    assert_eq!(said(&facts), [NO_WATCHDOG]);
}

#[test]
fn sockets_need_no_room() {
    let mut facts = well();
    facts.directories[0].keeps = Keeps::Sockets;
    facts.directories[0].room.as_mut().unwrap().free_bytes = 4096;
    assert_eq!(said(&facts), [NO_WATCHDOG]);
    facts.directories[0].room.as_mut().unwrap().writable = false;
    assert_eq!(said(&facts).len(), 2);
}

#[test]
fn the_only_path_may_leave_by_any_interface() {
    let mut facts = well();
    facts.paths.truncate(1);
    facts.paths[0].route = Ok("eth9".to_string());
    assert_eq!(said(&facts), [NO_WATCHDOG]);
}

#[test]
fn two_volumes_on_one_port_are_an_error_of_both() {
    let mut facts = well();
    let mirror = |name: &str, address_text: &str| Port {
        what: format!("mirror link of {name}"),
        protocol: Protocol::Tcp,
        address: address(address_text),
        owner: "ublk-mirror",
        pid: None,
        holder: Ok(Holder::Nobody),
    };
    facts.ports.push(mirror("data", "10.1.0.1:7420"));
    facts.ports.push(mirror("logs", "10.1.0.1:7420"));
    facts.ports.push(mirror("more", "10.2.0.1:7420"));
    assert_eq!(
        said(&facts)[1..],
        [
            "error port mirror link of data, TCP 10.1.0.1:7420: LS6150 the mirror link of logs is to have it as well",
            "error port mirror link of logs, TCP 10.1.0.1:7420: LS6150 the mirror link of data is to have it as well",
        ]
    );
}

#[test]
fn only_root_can_say_that_nobody_here_has_a_port() {
    let mut facts = well();
    facts.system.rights = Ok(Rights {
        user: 1000,
        capabilities: 0,
    });
    for holder in [Holder::Hidden, Holder::Nowhere] {
        facts.ports[0].holder = Ok(holder);
        let line =
            "unseen port heartbeats, UDP 10.1.0.1:7421: somebody has it; run it as root to see who";
        assert!(said(&facts).iter().any(|said| said == line));
    }
}

#[test]
fn what_cannot_be_read_is_not_said_to_be_absent() {
    let mut facts = bare();
    facts.unlisted = Some("the volumes cannot be listed: no".to_string());
    let found = said(&facts);
    assert!(
        !found
            .iter()
            .any(|line| line.contains("no volume was created"))
    );
    for line in [
        "unseen volume the volumes cannot be listed: no",
        "unseen address the volumes cannot be listed: no",
    ] {
        assert!(found.iter().any(|found| found == line), "{found:#?}");
    }
    facts.unlisted = None;
    facts.cluster = Cluster::Unseen {
        path: PathBuf::from("/c.toml"),
        why: "no".to_string(),
    };
    let found = said(&facts);
    for line in [
        "unseen configuration /c.toml: no",
        "unseen lockstepd it does not run; whether it should, the configuration would say",
        "unseen port the configuration, which has the interconnects, was not read",
    ] {
        assert!(found.iter().any(|found| found == line), "{found:#?}");
    }
    assert_eq!(Counts::of(&checks(&facts)).exit_code(), 3);
}

#[test]
fn the_last_path_without_a_link_is_an_error() {
    let mut facts = well();
    for path in &mut facts.paths {
        path.nic.as_mut().unwrap().as_mut().unwrap().state = Ok("lowerlayerdown".to_string());
    }
    let said = said(&facts);
    let line = "error link interconnect 2, eth2: LS6148 eth2 has no link (it is lowerlayerdown)";
    assert!(said.iter().any(|said| said == line), "{said:#?}");
}

#[test]
fn a_device_that_two_volumes_share_is_an_error_of_both_also_by_a_partition() {
    let mut facts = well();
    let mut other = volume("logs", "vdb1");
    let DeviceKind::Block(block) = &mut other.devices.as_mut().unwrap()[0].kind else {
        panic!("no block device")
    };
    block.place = PathBuf::from("sys/devices/virtual/block/vdb/vdb1");
    facts.volumes.push(other);
    let said = said(&facts);
    for line in [
        "error device-use data, backing device /dev/disk/by-id/virtio-vdb: LS6153 vdb is the backing device of logs as well",
        "error device-use logs, backing device /dev/disk/by-id/virtio-vdb1: LS6153 vdb1 is the backing device of data as well",
    ] {
        assert!(said.iter().any(|said| said == line), "{said:#?}");
    }
    // Names that begin alike are no parts of each other.
    let mut facts = well();
    facts.volumes.push(volume("logs", "vdba"));
    assert_eq!(super::tests::said(&facts), [NO_WATCHDOG]);
}

#[test]
fn names_that_the_kernel_gives_in_the_order_of_finding_are_told_from_those_that_stay() {
    for name in [
        "sda",
        "sdb1",
        "sdaa12",
        "vdb",
        "nvme0n1",
        "nvme1n2p3",
        "mmcblk0p1",
        "dm-3",
    ] {
        assert!(
            disks::may_change(std::path::Path::new(&format!("/dev/{name}"))),
            "{name}"
        );
    }
    for path in [
        "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4",
        "/dev/disk/by-id/sdb",
        "/dev/mapper/vg0-data",
        "/dev/vg0/data",
        "/dev/sdcard",
        "/dev/dm-data",
        "/dev/md0",
        "/dev/loop0",
        "/srv/sdb",
        "/dev/sd",
    ] {
        assert!(!disks::may_change(std::path::Path::new(path)), "{path}");
    }
}

#[test]
fn what_a_configuration_is_refused_for_keeps_its_own_code() {
    let mut facts = well();
    let path = PathBuf::from("/etc/lockstep/cluster.toml");
    let error = Config::parse(&path, "version = 1\nnodse = 3\n", "node1").unwrap_err();
    facts.cluster = Cluster::Wrong { path, error };
    facts.daemon = Daemon::Silent("nobody listens".to_string());
    let said = said(&facts);
    let line = said
        .iter()
        .find(|line| line.starts_with("error configuration "))
        .unwrap();
    assert!(line.contains("/etc/lockstep/cluster.toml: LS603"), "{line}");
}

#[test]
fn watchdogs_are_told_and_are_no_fault() {
    let mut facts = well();
    let dog = |name: &str, armed| Watchdog {
        name: name.to_string(),
        identity: "iTCO_wdt".to_string(),
        armed,
    };
    facts.system.watchdogs = vec![
        dog("watchdog0", Some(true)),
        dog("watchdog1", Some(false)),
        dog("watchdog2", None),
    ];
    assert_eq!(
        said(&facts),
        [
            "nothing watchdog the configuration asks for none; there is watchdog0 (iTCO_wdt): armed, \
          watchdog1 (iTCO_wdt): free, watchdog2 (iTCO_wdt): the kernel does not say whether it is armed"
        ]
    );
}

#[test]
fn errors_come_before_gaps_and_gaps_before_warnings() {
    let code = |change: fn(&mut Facts)| {
        let mut facts = well();
        change(&mut facts);
        Counts::of(&checks(&facts)).exit_code()
    };
    assert_eq!(code(|f| f.system.clock = Ok(false)), 1);
    assert_eq!(
        code(|f| (f.system.clock, f.system.kernel) = (Ok(false), Err("no".into()))),
        3
    );
    assert_eq!(
        code(|f| (f.system.clock, f.system.kernel) = (Err("no".into()), Ok("5.4".into()))),
        2
    );
}

/// Every code of this command is in the cases, and whatever is wrong has a reason and a remedy.
#[test]
fn whatever_is_wrong_says_why_and_what_to_do_and_every_code_is_tried() {
    let mut codes = BTreeSet::new();
    let mut look = |facts: &Facts| {
        for check in checks(facts) {
            if let Outcome::Warning(fault) | Outcome::Error(fault) = check.outcome {
                assert!(
                    !fault.why.is_empty() && !fault.advice.is_empty(),
                    "{fault:?}"
                );
                let explained = crate::codes::explain(&fault.code);
                assert!(explained.is_some(), "{}", fault.code);
                codes.insert(fault.code);
            }
        }
    };
    for (change, _) in [SYSTEM, LOCKSTEP, FILES, NETWORK, DISKS].concat() {
        let mut facts = well();
        change(&mut facts);
        look(&facts);
    }
    let mut facts = well();
    facts.system.mapper_control = false;
    facts.volumes.push(volume("logs", "vdb"));
    look(&facts);
    let own: Vec<String> = (6140..=6159)
        .filter(|number| *number != 6155)
        .chain([6260])
        .map(|number| format!("LS{number}"))
        .collect();
    let missing: Vec<&String> = own.iter().filter(|code| !codes.contains(*code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_screen_has_one_line_for_each_check_and_the_remedy_below() {
    let mut facts = well();
    facts.system.clock = Ok(false);
    facts.paths[1].nic.as_mut().unwrap().as_mut().unwrap().name = "eth\x1b[2J".to_string();
    let screen = told::screen("node1", &checks(&facts), Style::Plain);
    assert!(
        screen.starts_with("node1  WARNINGS: 1 warning, "),
        "{screen}"
    );
    let expected = "\
  warning      clock          LS6145 nobody keeps this machine's clock right
               because no acknowledged write and no takeover depends on it, but the times in logs, of operators' words and of the last write in a split brain do
               > run chrony or systemd-timesyncd, on both nodes
";
    assert!(screen.contains(expected), "{screen}");
    assert!(!screen.contains('\x1b'), "{screen}");
    for area in ["system", "lockstep", "files", "network", "disks"] {
        assert!(screen.lines().any(|line| line == area), "{screen}");
    }
}

#[test]
fn the_document_has_a_schema_and_every_check() {
    let mut facts = well();
    facts.system.kernel = Ok("5.4.0".to_string());
    facts.system.clock = Err("no".to_string());
    let found = checks(&facts);
    let document = told::document("node1", &found);
    assert_eq!(document["schema"], "lockstep.doctor/1");
    assert_eq!(
        (&document["verdict"], &document["exit_code"]),
        (&"errors".into(), &2.into())
    );
    assert_eq!(document["checks"].as_array().unwrap().len(), found.len());
    let kernel = &document["checks"][0];
    assert_eq!(kernel["verdict"], "error");
    assert_eq!(kernel["code"], "LS6140");
    assert_eq!(kernel["place"], serde_json::Value::Null);
    let clock = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["check"] == "clock");
    assert_eq!(clock.unwrap()["verdict"], "not-checked");
    assert_eq!(clock.unwrap()["gap"], true);
}

#[test]
fn the_manual_has_every_check_and_no_other() {
    const MANUAL: &str = include_str!("../../../../docs/operations.md");
    let table = MANUAL.split("<!-- checks -->").nth(1).unwrap();
    let table = table.split("<!-- end of checks -->").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let told: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    let there: BTreeSet<&str> = checks(&well()).iter().map(|check| check.name).collect();
    assert_eq!(told, there);
    let bare: BTreeSet<&str> = checks(&bare()).iter().map(|check| check.name).collect();
    assert_eq!(told, bare);
}

/// `lockstepd` says this of certificates.
fn with_trust(code: &str) -> Daemon {
    Daemon::Answers {
        node: "node1".to_string(),
        version: Some(env!("CARGO_PKG_VERSION").to_string()),
        trust: Some(mirror_core::admin::Problem {
            code: code.to_string(),
            message: "soon".to_string(),
            advice: "look".to_string(),
        }),
    }
}
