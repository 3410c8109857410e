//! What may be in `[[groups.NAME.monitors]]`.

use controlplane_core::limits::MONITORS_MAX;

use super::Needed::{Default, No, Yes};
use super::{Format, Key, Kind, Kinds, Shape, TARGETS_MAX, choice, count, key, text, time};

/// What looks whether a group works.
pub(in super::super) static MONITORS: Kinds = Kinds {
    noun: "monitor",
    keys: MONITOR,
    kinds: KINDS,
    most: MONITORS_MAX,
    fewer: "let one script look at several things",
    why: "Lockstep knows how to look at these alone",
    instead: "whatever else there is to be looked at is a \"script\"",
};

const MONITOR: &[Key] = &[
    key(
        "name",
        Yes,
        Shape::Text(Format::Name("monitor")),
        "Unique among the monitors of its group",
    ),
    key(
        "interval_ms",
        Default("10000"),
        time(),
        "Between the begins of two looks",
    ),
    key(
        "delay_ms",
        No,
        time(),
        "From the group's being online to the first look; `interval_ms` if it is not there. Longer than the application needs until it answers",
    ),
    key(
        "timeout_ms",
        Default("10000"),
        time(),
        "A look that takes longer is broken off and has failed",
    ),
    key(
        "retries",
        Default("2"),
        count(),
        "After a look that failed it is looked again so often; if all of them fail the monitor has failed",
    ),
];

const KINDS: &[Kind] = &[
    Kind {
        name: "script",
        keys: SCRIPT,
        doc: "A program that ends with 0 if all is well",
    },
    Kind {
        name: "nic",
        keys: NIC,
        doc: "The carrier of an interface",
    },
    Kind {
        name: "ip",
        keys: IP,
        doc: "Addresses, one of which answers to pings",
    },
    Kind {
        name: "mirror",
        keys: &[],
        doc: "Copies and links of the group's volumes; told, and nothing follows",
    },
];

const fn on_error() -> Key {
    key(
        "on_error",
        Default("\"warn\""),
        choice(
            &["warn", "restart", "failover"],
            "answer to a monitor",
            "it can be told, or the group can be helped in these two ways",
        ),
        "When it has failed: \"warn\" tells it, \"restart\" stops and starts `resource`, \"failover\" moves the group to the other node if that one can have it",
    )
}

const fn resource() -> Key {
    key(
        "resource",
        No,
        text(),
        "The resource of the group that on_error = \"restart\" stops and starts",
    )
}

const SCRIPT: &[Key] = &[
    key(
        "command",
        Yes,
        Shape::Command,
        "Program with absolute path, and arguments. It ends with 0 if all is well",
    ),
    on_error(),
    resource(),
];

const NIC: &[Key] = &[
    key(
        "interface",
        Yes,
        text(),
        "The name of the interface, on both nodes",
    ),
    on_error(),
    resource(),
];

const IP: &[Key] = &[
    key(
        "targets",
        Yes,
        Shape::List {
            of: Format::Address,
            min: 1,
            max: TARGETS_MAX,
            of_what: "addresses",
        },
        "IP addresses; one that answers is enough",
    ),
    on_error(),
    resource(),
];
