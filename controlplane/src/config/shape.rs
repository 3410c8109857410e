//! What may be in the file: every key, its type, its bounds, and what it means. The check and the JSON Schema both
//! follow these tables, so that neither says what the other one does not.

use controlplane_core::limits::{INTERCONNECTS_MAX, RESOURCES_MAX};

use super::format::Format;

mod monitors;

pub(super) use monitors::MONITORS;

/// The version of the file.
pub(super) const VERSION: u64 = 1;
/// Members of etcd at most.
const ENDPOINTS_MAX: usize = 9;
/// Ping targets at most, of each kind.
const TARGETS_MAX: usize = 8;
const HEARTBEAT_INTERVAL_MS_MAX: u64 = 60_000;
const HEARTBEAT_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// A device counts in seconds. A `lockstepd` that ended is started again after half a second, and has to have looked at its
/// volumes, which may take it three, before it may pet the device.
const WATCHDOG_S_MIN: u64 = 5;
const WATCHDOG_S_MAX: u64 = 600;
const TIME_MS_MIN: u64 = 100;
const TIME_MS_MAX: u64 = 24 * 3600 * 1000;
const COUNT_MAX: u64 = 1000;

/// What a value is.
#[derive(Debug)]
pub(super) enum Shape {
    Text(Format),
    Number {
        min: u64,
        max: u64,
        unit: &'static str,
    },
    Flag,
    /// A program with its absolute path, and arguments.
    Command,
    /// Of texts.
    List {
        of: Format,
        min: usize,
        max: usize,
        /// What is in it.
        of_what: &'static str,
    },
    Table(&'static [Key]),
    /// Tables, each with a name of its own.
    Named {
        keys: &'static [Key],
        min: usize,
        max: usize,
        /// How many are wanted.
        wanted: &'static str,
    },
    /// A list of tables whose keys depend on their `kind`.
    Kinds(&'static Kinds),
}

/// What may be in a list of tables whose keys depend on their `kind`.
#[derive(Debug)]
pub(super) struct Kinds {
    /// What one of them is called: "resource".
    pub(super) noun: &'static str,
    /// Of every one.
    pub(super) keys: &'static [Key],
    pub(super) kinds: &'static [Kind],
    /// So many at most, in one group.
    pub(super) most: usize,
    /// What to do about more.
    pub(super) fewer: &'static str,
    /// Why there are no other kinds.
    pub(super) why: &'static str,
    /// What stands in for other kinds.
    pub(super) instead: &'static str,
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) needed: Needed,
    pub(super) shape: Shape,
    pub(super) doc: &'static str,
}

/// Whether it has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    Yes,
    No,
    /// Without it this counts.
    Default(&'static str),
}

/// One kind of them.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
    pub(super) doc: &'static str,
}

const fn key(name: &'static str, needed: Needed, shape: Shape, doc: &'static str) -> Key {
    Key {
        name,
        needed,
        shape,
        doc,
    }
}

const fn time() -> Shape {
    Shape::Number {
        min: TIME_MS_MIN,
        max: TIME_MS_MAX,
        unit: "milliseconds",
    }
}

const fn count() -> Shape {
    Shape::Number {
        min: 0,
        max: COUNT_MAX,
        unit: "",
    }
}

const fn text() -> Shape {
    Shape::Text(Format::Any)
}

const fn choice(of: &'static [&'static str], what: &'static str, why: &'static str) -> Shape {
    Shape::Text(Format::Choice { of, what, why })
}

use Needed::{Default, No, Yes};

/// The file.
pub(super) const FILE: &[Key] = &[
    key(
        "version",
        Yes,
        Shape::Number {
            min: VERSION,
            max: VERSION,
            unit: "",
        },
        "The version of the file",
    ),
    key(
        "nodes",
        Yes,
        Shape::Named {
            keys: NODE,
            min: 2,
            max: 2,
            wanted: "two nodes, [nodes.NAME] each",
        },
        "Both nodes by name; the first one by name is number 0",
    ),
    key(
        "arbiter",
        No,
        choice(
            &["witness", "etcd", "ping", "manual", "none"],
            "arbiter",
            "nobody else can decide for both nodes",
        ),
        "Who decides where the nodes cannot. Without it: the table that is there, [witness], [etcd] or [ping]; without any \"manual\", an operator. \"none\": each node decides alone, and both may serve",
    ),
    key(
        "witness",
        No,
        Shape::Table(WITNESS),
        "A witness on a third machine",
    ),
    key("etcd", No, Shape::Table(ETCD), "An etcd that runs anyway"),
    key(
        "ping",
        No,
        Shape::Table(TARGETS),
        "Hosts that answer pings: a node that reaches one goes on alone. They cannot see that both nodes do: both may serve",
    ),
    key(
        "clients",
        No,
        Shape::Table(TARGETS),
        "Hosts in the clients' networks: a node that reaches none of them takes nothing over, whatever the arbiter is",
    ),
    key(
        "timing",
        No,
        Shape::Table(TIMING),
        "Times of the heartbeats",
    ),
    key(
        "watchdog",
        No,
        Shape::Table(WATCHDOG),
        "A watchdog device on both nodes: it resets a node whose services do not stop in time. Without it nothing does",
    ),
    key(
        "groups",
        Yes,
        Shape::Named {
            keys: GROUP,
            min: 1,
            max: usize::MAX,
            wanted: "at least one group, [groups.NAME]",
        },
        "Groups of volumes by name, with what runs on them",
    ),
];

const NODE: &[Key] = &[
    key(
        "interconnects",
        Yes,
        Shape::List {
            of: Format::Interconnect,
            min: 1,
            max: INTERCONNECTS_MAX,
            of_what: "addresses with ports",
        },
        "Where this node hears heartbeats, IP:PORT each, in the same order on both nodes",
    ),
    key(
        "watchdog",
        Default("the device of [watchdog]"),
        Shape::Text(Format::DeviceOrNone),
        "The watchdog device of this node, if it is another one; \"none\": this node has none",
    ),
];

const WATCHDOG: &[Key] = &[
    key(
        "device",
        Default("\"/dev/watchdog\""),
        Shape::Text(Format::Device),
        "The device, on both nodes unless `nodes.NAME.watchdog` names another one",
    ),
    key(
        "timeout_s",
        Default("10"),
        Shape::Number {
            min: WATCHDOG_S_MIN,
            max: WATCHDOG_S_MAX,
            unit: "seconds",
        },
        "It resets the machine if it is not petted for so long; a takeover waits so much longer before it starts anything",
    ),
];

const WITNESS: &[Key] = &[key(
    "address",
    Yes,
    Shape::Text(Format::HostPort),
    "Where the witness listens, HOST:PORT",
)];

const TARGETS: &[Key] = &[key(
    "targets",
    Yes,
    Shape::List {
        of: Format::Address,
        min: 1,
        max: TARGETS_MAX,
        of_what: "addresses",
    },
    "IP addresses; one that answers is enough",
)];

const ETCD: &[Key] = &[
    key(
        "endpoints",
        Yes,
        Shape::List {
            of: Format::HostPort,
            min: 1,
            max: ENDPOINTS_MAX,
            of_what: "addresses, HOST:PORT each",
        },
        "The members of etcd, HOST:PORT each, asked in turn",
    ),
    key(
        "authority",
        No,
        text(),
        "The file of the authority that signed etcd's certificates; only a loopback address may do without",
    ),
    key(
        "certificate",
        No,
        text(),
        "The file of this node's certificate for etcd, if etcd asks for one",
    ),
    key(
        "key",
        No,
        text(),
        "The file of the key of that certificate, mode 0600",
    ),
    key(
        "server_name",
        No,
        Shape::Text(Format::ServerName),
        "The name in etcd's certificates, if it is not the endpoint's",
    ),
];

const TIMING: &[Key] = &[
    key(
        "heartbeat_interval_ms",
        Default("250"),
        Shape::Number {
            min: 1,
            max: HEARTBEAT_INTERVAL_MS_MAX,
            unit: "milliseconds",
        },
        "Between two heartbeats on an interconnect",
    ),
    key(
        "heartbeat_timeout_ms",
        Default("2000"),
        Shape::Number {
            min: 1,
            max: HEARTBEAT_TIMEOUT_MS_MAX,
            unit: "milliseconds",
        },
        "A node that is silent on every path for so long counts as dead; at least 4 intervals",
    ),
];

const GROUP: &[Key] = &[
    key(
        "volumes",
        Yes,
        Shape::List {
            of: Format::Name("volume"),
            min: 1,
            max: usize::MAX,
            of_what: "names of volumes",
        },
        "Its volumes; all of them are served here, or nothing starts. A volume belongs to one group",
    ),
    key(
        "nodes",
        Default("by name"),
        Shape::List {
            of: Format::Any,
            min: 0,
            max: usize::MAX,
            of_what: "both nodes",
        },
        "Both nodes, the preferred one first",
    ),
    key(
        "resources",
        Default("none"),
        Shape::Kinds(&RESOURCES),
        "What runs on the volumes, in the order of its start; stopped in reverse",
    ),
    key(
        "monitors",
        Default("none"),
        Shape::Kinds(&MONITORS),
        "What looks whether it works, while all of it runs on this node",
    ),
    key(
        "hard_stop_ms",
        Default("2000"),
        time(),
        "A hard stop is over within this time; after a takeover nothing starts before it has passed",
    ),
    key(
        "doubt_grace_ms",
        Default("30000"),
        time(),
        "Volumes whose daemon does not answer have so long to come back",
    ),
    key(
        "stop_failure",
        Default("\"fence\""),
        choice(
            &["fence", "hold"],
            "answer to a failed stop",
            "something has to be done then, and these are the two things",
        ),
        "When a resource does not stop: \"fence\" shuts the volumes by force, \"hold\" leaves everything as it is",
    ),
    key(
        "on_failure",
        Default("\"failover\""),
        choice(
            &["failover", "wait"],
            "answer to a failure",
            "a group that failed on one node can run on the other one, or wait",
        ),
        "When a resource does not start or does not stay: \"failover\" moves the group to the other node, if it did not fail there; \"wait\" leaves it to an operator",
    ),
    key(
        "failovers_max",
        Default("2"),
        count(),
        "Starts after a takeover, and moves away after a failure, on this node within failovers_within_ms",
    ),
    key(
        "failovers_within_ms",
        Default("3600000"),
        time(),
        "See failovers_max",
    ),
];

/// What a group starts and stops.
pub(super) static RESOURCES: Kinds = Kinds {
    noun: "resource",
    keys: RESOURCE,
    kinds: KINDS,
    most: RESOURCES_MAX,
    fewer: "make a second group with volumes of its own",
    why: "Lockstep knows how to start, stop and look at these kinds alone",
    instead: "whatever else there is runs as \"exec\" or \"program\"",
};

/// Of every resource.
const RESOURCE: &[Key] = &[
    key(
        "name",
        Yes,
        Shape::Text(Format::Name("resource")),
        "Unique in its group",
    ),
    key(
        "start_timeout_ms",
        Default("60000"),
        time(),
        "A start that takes longer is broken off and has failed",
    ),
    key(
        "stop_timeout_ms",
        Default("60000"),
        time(),
        "A stop that takes longer is broken off and has failed",
    ),
    key(
        "retries",
        Default("1"),
        count(),
        "After a failure it is stopped and started again so often",
    ),
];

/// The kinds of resources.
const KINDS: &[Kind] = &[
    Kind {
        name: "filesystem",
        keys: FILE_SYSTEM,
        doc: "A mount of a volume",
    },
    Kind {
        name: "floating_ip",
        keys: FLOATING_IP,
        doc: "An address that moves with the group",
    },
    Kind {
        name: "exec",
        keys: EXEC,
        doc: "Scripts that start and stop something",
    },
    Kind {
        name: "program",
        keys: PROGRAM,
        doc: "A supervised program",
    },
    Kind {
        name: "systemd",
        keys: SYSTEMD,
        doc: "A unit of systemd",
    },
];

const FILE_SYSTEM: &[Key] = &[
    key(
        "volume",
        Yes,
        text(),
        "A volume of the group; /dev/lockstep/VOLUME is mounted",
    ),
    key(
        "type",
        Yes,
        choice(
            &["ext4", "xfs", "btrfs"],
            "type of a file system",
            "Lockstep knows how to mount and release these",
        ),
        "The type of the file system",
    ),
    key(
        "mount_point",
        Yes,
        Shape::Text(Format::MountPoint),
        "Absolute; made if it is missing",
    ),
    key("options", Default("none"), text(), "As for mount -o"),
    key(
        "fsck",
        Default("\"never\""),
        choice(
            &["never", "auto"],
            "check of a file system",
            "more than the safe repairs needs a person",
        ),
        "\"auto\" (ext4 only): fsck.ext4 -p before each mount. Mounting replays the journal anyway",
    ),
    key(
        "kill_users",
        Default("false"),
        Shape::Flag,
        "Processes that keep the mount busy: false names them, and the stop fails; true ends them",
    ),
];

const FLOATING_IP: &[Key] = &[
    key(
        "address",
        Yes,
        Shape::Text(Format::Prefix),
        "The address with the length of its network, such as 10.0.0.20/24",
    ),
    key(
        "interface",
        Default("found"),
        text(),
        "Without it: the interface that has another address of the same network",
    ),
];

const EXEC: &[Key] = &[
    key(
        "start",
        Yes,
        Shape::Command,
        "Program with absolute path, and arguments. It ends with 0 when everything runs",
    ),
    key(
        "stop",
        Default("none"),
        Shape::Command,
        "Program with absolute path, and arguments. It ends with 0 when everything is stopped",
    ),
    key(
        "check",
        Default("none"),
        Shape::Command,
        "Program with absolute path, and arguments. It ends with 0 if it runs; asked when lockstepd begins",
    ),
];

const SYSTEMD: &[Key] = &[key(
    "unit",
    Yes,
    Shape::Text(Format::Unit),
    "The unit's name with its suffix, such as postgresql@15-main.service. It must not be enabled",
)];

const PROGRAM: &[Key] = &[
    key(
        "command",
        Yes,
        Shape::Command,
        "Program with absolute path, and arguments. It stays in the foreground",
    ),
    key(
        "ready_ms",
        Default("1000"),
        time(),
        "It counts as started when it has run for so long",
    ),
    key(
        "restarts",
        Default("3"),
        count(),
        "When it ends it is started again so often within restart_interval_ms",
    ),
    key(
        "restart_interval_ms",
        Default("600000"),
        time(),
        "See restarts",
    ),
];
