//! What is said about a wrong `cluster.toml`, word for word: `tests/config/NAME.txt` for each case below.
//!
//! Why: an operator has nothing but these words. `LOCKSTEP_BLESS=1 cargo test -p controlplane --test config` writes them anew,
//! and the commit shows which changed.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane::config::{
    Checked, Cluster, Config, ConfigError, Here, Kind, Level, Severity, plain, plan,
};
use controlplane::monitors::Kind as MonitorKind;
use controlplane::resources::filesystem::{Fsck, Users};
use controlplane_core::group::StopFailure;
use controlplane_core::keeper::ArbiterKind;
use controlplane_core::monitor::OnError;
use nix::unistd::{Uid, setfsuid};
use proptest::prelude::*;

const GOOD: &str = r#"version = 1

[nodes.node1]
interconnects = ["10.0.0.1:7421", "10.1.0.1:7421"]
[nodes.node2]
interconnects = ["10.0.0.2:7421", "10.1.0.2:7421"]

[witness]
address = "10.0.0.5:7422"

[timing]
heartbeat_interval_ms = 250
heartbeat_timeout_ms = 2000

[groups.pg]
volumes = ["data"]
nodes = ["node2", "node1"]   # the preferred one first
hard_stop_ms = 3000
stop_failure = "hold"

[[groups.pg.resources]]
kind = "filesystem"
name = "fs"
volume = "data"
type = "ext4"
mount_point = "/srv//data/"
options = "noatime"
fsck = "auto"
kill_users = true

[[groups.pg.resources]]
kind = "floating_ip"
name = "ip"
address = "10.0.0.20/24"
interface = "eth0"

[[groups.pg.resources]]
kind = "exec"
name = "prepare"
start = ["/usr/bin/prepare", "--now"]
start_timeout_ms = 5000
retries = 0

[[groups.pg.resources]]
kind = "program"
name = "app"
command = ["/usr/bin/app"]
restarts = 2

[groups.web]
volumes = ["www"]
resources = [{ kind = "exec", name = "x", start = ["/bin/true"] }]
"#;

/// One monitor of each kind, for the group pg.
const MONITORS: &str = r#"
[[groups.pg.monitors]]
kind = "script"
name = "query"
command = ["/usr/local/sbin/pg-query", "--quick"]
delay_ms = 60000
interval_ms = 5000
timeout_ms = 3000
retries = 1
on_error = "restart"
resource = "app"

[[groups.pg.monitors]]
kind = "nic"
name = "port"
interface = "eth0"
on_error = "failover"

[[groups.pg.monitors]]
kind = "ip"
name = "router"
targets = ["10.0.0.254", "fd00::1"]

[[groups.pg.monitors]]
kind = "mirror"
name = "copies"

[groups.web]"#;

const UNIT: &str = "\n[[groups.pg.resources]]\nkind = \"systemd\"\nname = \"two\"\nunit = \"a@1.service\"\n[groups.web]";
const WITNESS: &str = "[witness]\naddress = \"10.0.0.5:7422\"\n";
const NODE2: &str = "[nodes.node2]\ninterconnects = [\"10.0.0.2:7421\", \"10.1.0.2:7421\"]\n";
const ONE_MORE: &str = "\n[groups.web]";

/// Name, what is replaced in [`GOOD`], and by what.
#[rustfmt::skip]
const BAD: &[(&str, &str, &str)] = &[
    ("syntax-quote", "\"10.0.0.5:7422\"", "\"10.0.0.5:7422"),
    ("syntax-value", "restarts = 2", "restarts ="),
    ("syntax-bracket", "[groups.web]", "[groups.web"),
    ("syntax-array", "volumes = [\"data\"]", "volumes = [\"data\""),
    ("syntax-bare-word", "stop_failure = \"hold\"", "stop_failure = hold"),
    ("syntax-several", "version = 1\n", "version = = 1\n[x\n"),
    ("duplicate-key", "retries = 0", "retries = 0\nretries = 1"),
    ("duplicate-table", "[groups.web]", "[groups.pg]"),
    ("unknown-table", "[witness]", "[witnes]"),
    ("unknown-key-in-the-file", "version = 1", "version = 1\ncolour = \"red\""),
    ("unknown-key-in-a-node", "interconnects = [\"10.0.0.1", "interconects = [\"10.0.0.1"),
    ("unknown-key-in-a-group", "hard_stop_ms", "hard_stop"),
    ("unknown-key-in-a-resource", "restarts = 2", "restart = 2"),
    ("unknown-key-with-control-characters", "restarts = 2", "\"a\\u001b[31m\" = 2"),
    ("key-of-another-kind", "interface = \"eth0\"", "fsck = \"auto\""),
    ("dependency-on-an-unknown-resource", "restarts = 2", "depends_on = [\"nothing\"]"),
    ("missing-version", "version = 1\n", ""),
    ("missing-address", "address = \"10.0.0.5:7422\"\n", ""),
    ("missing-kind", "kind = \"program\"\n", ""),
    ("missing-name", "name = \"app\"\n", ""),
    ("missing-volume", "volume = \"data\"\n", ""),
    ("missing-command", "command = [\"/usr/bin/app\"]", ""),
    ("type-text-for-number", "retries = 0", "retries = \"0\""),
    ("type-number-for-text", "\"ext4\"", "4"),
    ("type-fraction", "retries = 0", "retries = 0.5"),
    ("type-text-for-list", "volumes = [\"data\"]", "volumes = \"data\""),
    ("type-number-in-list", "volumes = [\"data\"]", "volumes = [1]"),
    ("type-text-for-flag", "kill_users = true", "kill_users = \"yes\""),
    ("type-value-for-table", "[groups.web]\nvolumes = [\"www\"]\nresources = [{ kind = \"exec\", name = \"x\", start = [\"/bin/true\"] }]", "[groups]\nweb = 1"),
    ("key-below-the-wrong-table", "[timing]\n", ""),
    ("key-of-the-file-below-a-table", "[timing]\n", "arbiter = \"witness\"\n[timing]\n"),
    ("type-list-for-table", "[witness]", "[[witness]]"),
    ("type-text-for-resource", "[{ kind = \"exec\", name = \"x\", start = [\"/bin/true\"] }]", "[\"x\"]"),
    ("version-of-the-future", "version = 1", "version = 2"),
    ("nodes-none", "[nodes.node1]\ninterconnects = [\"10.0.0.1:7421\", \"10.1.0.1:7421\"]\n[nodes.node2]\ninterconnects = [\"10.0.0.2:7421\", \"10.1.0.2:7421\"]", "[nodes]"),
    ("nodes-one", NODE2, ""),
    ("nodes-three", NODE2, "[nodes.node2]\ninterconnects = [\"10.0.0.2:7421\", \"10.1.0.2:7421\"]\n[nodes.node3]\ninterconnects = [\"10.0.0.3:7421\", \"10.1.0.3:7421\"]\n"),
    ("node-name", "[nodes.node2]", "[nodes.\"Node 2\"]"),
    ("address-is-a-name", "\"10.0.0.1:7421\"", "\"node1.example:7421\""),
    ("address-without-port", "\"10.0.0.1:7421\"", "\"10.0.0.1\""),
    ("address-port-0", "\"10.0.0.1:7421\"", "\"10.0.0.1:0\""),
    ("address-of-any-machine", "\"10.0.0.1:7421\"", "\"0.0.0.0:7421\""),
    ("address-twice", "\"10.0.0.2:7421\"", "\"10.0.0.1:7421\""),
    ("interconnects-differ", ", \"10.1.0.2:7421\"]", "]"),
    ("interconnects-none", "interconnects = [\"10.0.0.1:7421\", \"10.1.0.1:7421\"]", "interconnects = []"),
    ("timing-interval-0", "heartbeat_interval_ms = 250", "heartbeat_interval_ms = 0"),
    ("timing-too-few-intervals", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 999"),
    ("timing-too-few-default-intervals", "heartbeat_interval_ms = 250\nheartbeat_timeout_ms = 2000", "heartbeat_interval_ms = 501"),
    ("timing-negative", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = -1"),
    ("timing-too-large", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 3_600_001"),
    ("number-that-is-none", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 20\u{0}00"),
    ("number-with-a-unit", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 2000ms"),
    ("number-too-large-for-any", "heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 99999999999999999999"),
    ("arbiter-both", WITNESS, "[witness]\naddress = \"10.0.0.5:7422\"\n[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\n"),
    ("arbiter-unknown", "version = 1", "version = 1\narbiter = \"pings\""),
    ("arbiter-three", WITNESS, "[witness]\naddress = \"10.0.0.5:7422\"\n[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\n[ping]\ntargets = [\"10.0.0.254\"]\n"),
    ("ping-without-its-table", "version = 1", "version = 1\narbiter = \"ping\""),
    ("ping-no-targets", WITNESS, "[ping]\ntargets = []\n"),
    ("ping-target-with-a-port", WITNESS, "[ping]\ntargets = [\"10.0.0.254:80\"]\n"),
    ("ping-target-of-a-node", WITNESS, "[ping]\ntargets = [\"10.0.0.254\", \"10.0.0.1\"]\n"),
    ("ping-target-twice", WITNESS, "[ping]\ntargets = [\"10.0.0.254\", \"10.0.0.254\"]\n"),
    ("clients-on-itself", WITNESS, "[clients]\ntargets = [\"127.0.0.1\"]\n"),
    ("arbiter-without-its-table", "version = 1", "version = 1\narbiter = \"etcd\""),
    ("witness-without-port", "\"10.0.0.5:7422\"", "\"10.0.0.5\""),
    ("etcd-endpoint-with-a-space", WITNESS, "[etcd]\nendpoints = [\"10.0.0.5:2379\", \"a b:1\"]\nauthority = \"/a\"\n"),
    ("etcd-endpoint-url", WITNESS, "[etcd]\nendpoints = [\"https://etcd.example:2379\"]\nauthority = \"/a\"\n"),
    ("etcd-endpoint-without-port", WITNESS, "[etcd]\nendpoints = [\"10.0.0.5\"]\n"),
    ("etcd-without-tls", WITNESS, "[etcd]\nendpoints = [\"127.0.0.1:2379\", \"10.0.0.5:2379\"]\n"),
    ("etcd-no-endpoints", WITNESS, "[etcd]\nendpoints = []\n"),
    ("etcd-key-alone", WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\nkey = \"/k\"\n"),
    ("etcd-certificate-alone", WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\ncertificate = \"/c\"\n"),
    ("etcd-server-name", WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\nserver_name = \"a b\"\n"),
    ("watchdog-device-relative", "[timing]", "[watchdog]\ndevice = \"watchdog0\"\n[timing]"),
    ("watchdog-timeout-too-short", "[timing]", "[watchdog]\ntimeout_s = 4\n[timing]"),
    ("watchdog-timeout-in-milliseconds", "[timing]", "[watchdog]\ntimeout_ms = 10000\n[timing]"),
    ("watchdog-of-a-node-alone", "[nodes.node2]", "watchdog = \"/dev/watchdog1\"\n[nodes.node2]"),
    ("watchdog-of-a-node-relative", "[nodes.node2]", "watchdog = \"no\"\n[nodes.node2]"),
    ("group-name", "[groups.web]", "[groups.\"W B\"]"),
    ("group-without-volumes", "volumes = [\"data\"]", "volumes = []"),
    ("volume-name", "volumes = [\"www\"]", "volumes = [\"WWW\"]"),
    ("volume-in-two-groups", "volumes = [\"www\"]", "volumes = [\"data\"]"),
    ("volume-twice", "volumes = [\"www\"]", "volumes = [\"www\", \"www\"]"),
    ("group-of-one-node", "nodes = [\"node2\", \"node1\"]", "nodes = [\"node2\"]"),
    ("group-of-an-unknown-node", "nodes = [\"node2\", \"node1\"]", "nodes = [\"node1\", \"nod2\"]"),
    ("time-too-short", "hard_stop_ms = 3000", "hard_stop_ms = 50"),
    ("time-0", "start_timeout_ms = 5000", "start_timeout_ms = 0"),
    ("time-too-long", "start_timeout_ms = 5000", "start_timeout_ms = 86_400_001"),
    ("count-too-large", "retries = 0", "retries = 5000"),
    ("stop-failure", "\"hold\"", "\"pray\""),
    ("on-failure", "stop_failure = \"hold\"", "on_failure = \"reboot\""),
    ("resource-kind", "kind = \"filesystem\"", "kind = \"nfs\""),
    ("resource-kind-mistyped", "kind = \"floating_ip\"", "kind = \"floatingip\""),
    ("resource-name", "name = \"fs\"", "name = \"../fs\""),
    ("resource-twice", "name = \"ip\"", "name = \"fs\""),
    ("volume-of-another-group", "volume = \"data\"", "volume = \"www\""),
    ("volume-of-no-group", "volume = \"data\"", "volume = \"dat\""),
    ("file-system-type", "\"ext4\"", "\"ext5\""),
    ("fsck-of-xfs", "\"ext4\"", "\"xfs\""),
    ("fsck-always", "fsck = \"auto\"", "fsck = \"always\""),
    ("mount-point-root", "\"/srv//data/\"", "\"/\""),
    ("mount-point-relative", "\"/srv//data/\"", "\"srv/data\""),
    ("mount-point-with-dots", "\"/srv//data/\"", "\"/a/../b\""),
    ("mount-point-twice", ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"filesystem\"\nname = \"two\"\nvolume = \"data\"\ntype = \"xfs\"\nmount_point = \"/srv/data\"\n[groups.web]"),
    ("ip-without-length", "\"10.0.0.20/24\"", "\"10.0.0.20\""),
    ("ip-length", "\"10.0.0.20/24\"", "\"10.0.0.20/33\""),
    ("ip-name", "\"10.0.0.20/24\"", "\"db/24\""),
    ("ip-loopback", "\"10.0.0.20/24\"", "\"127.0.0.1/8\""),
    ("ip-twice", ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"floating_ip\"\nname = \"two\"\naddress = \"10.0.0.20/32\"\n[groups.web]"),
    ("program-relative", "[\"/usr/bin/prepare\", \"--now\"]", "[\"prepare\"]"),
    ("program-none", "[\"/usr/bin/app\"]", "[]"),
    ("unit-without-suffix", ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"systemd\"\nname = \"two\"\nunit = \"postgresql@15-main\"\n[groups.web]"),
    ("unit-option", ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"systemd\"\nname = \"two\"\nunit = \"--force.service\"\n[groups.web]"),
    ("unit-twice", ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"systemd\"\nname = \"two\"\nunit = \"a.service\"\n[[groups.pg.resources]]\nkind = \"systemd\"\nname = \"three\"\nunit = \"a.service\"\n[groups.web]"),
    ("monitor-kind", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"user\"\nname = \"m\"\n[groups.web]"),
    ("monitor-kind-mistyped", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"scrpt\"\nname = \"m\"\n[groups.web]"),
    ("monitor-without-kind", ONE_MORE, "\n[[groups.pg.monitors]]\nname = \"m\"\n[groups.web]"),
    ("monitor-without-command", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"script\"\nname = \"m\"\n[groups.web]"),
    ("monitor-script-relative", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"script\"\nname = \"m\"\ncommand = [\"check\"]\n[groups.web]"),
    ("monitor-key-of-another-kind", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"mirror\"\nname = \"m\"\non_error = \"failover\"\n[groups.web]"),
    ("monitor-key-in-a-resource", "restarts = 2", "interval_ms = 2000"),
    ("monitor-twice", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"mirror\"\nname = \"m\"\n[[groups.pg.monitors]]\nkind = \"mirror\"\nname = \"m\"\n[groups.web]"),
    ("monitor-on-error", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"nic\"\nname = \"m\"\ninterface = \"eth0\"\non_error = \"reboot\"\n[groups.web]"),
    ("monitor-restarts-nothing", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"nic\"\nname = \"m\"\ninterface = \"eth0\"\non_error = \"restart\"\n[groups.web]"),
    ("monitor-restarts-an-unknown-resource", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"nic\"\nname = \"m\"\ninterface = \"eth0\"\non_error = \"restart\"\nresource = \"ap\"\n[groups.web]"),
    ("monitor-resource-without-restart", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"nic\"\nname = \"m\"\ninterface = \"eth0\"\nresource = \"app\"\n[groups.web]"),
    ("monitor-ip-name", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"ip\"\nname = \"m\"\ntargets = [\"router\"]\n[groups.web]"),
    ("monitor-ip-nine", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"ip\"\nname = \"m\"\ntargets = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\", \"10.0.0.7\", \"10.0.0.8\", \"10.0.0.9\"]\n[groups.web]"),
    ("monitor-time-0", ONE_MORE, "\n[[groups.pg.monitors]]\nkind = \"mirror\"\nname = \"m\"\ninterval_ms = 0\n[groups.web]"),
    ("monitor-without-resources", "resources = [{ kind = \"exec\", name = \"x\", start = [\"/bin/true\"] }]", "monitors = [{ kind = \"mirror\", name = \"m\" }]"),
    ("type-table-for-monitors", ONE_MORE, "\n[groups.pg.monitors]\nkind = \"mirror\"\n[groups.web]"),
    ("program-with-nul", "[\"/usr/bin/app\"]", "[\"/usr/bin/app\", \"\\u0000\"]"),
];

fn edited(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

fn checked(text: &str) -> Result<Checked, ConfigError> {
    Checked::parse(Path::new("cluster.toml"), text.as_bytes())
}

fn cluster(text: &str) -> Cluster {
    checked(text)
        .unwrap_or_else(|error| panic!("{error}"))
        .cluster
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(format!("{name}.txt"))
}

fn assert_golden(name: &str, text: &str) {
    let path = golden(name);
    if std::env::var_os("LOCKSTEP_BLESS").is_some() {
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let wanted =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(wanted, text, "{name}: the words changed");
}

/// The words, after a look at what every error has.
fn words(error: &ConfigError) -> String {
    let findings = &error.0;
    assert!(findings.errors() > 0);
    for finding in findings.list() {
        assert_eq!(finding.severity, Severity::Error);
        assert!(
            !finding.why.is_empty() && !finding.advice.is_empty(),
            "{finding:?}"
        );
        assert!(findings.position(finding).is_some() || finding.place.is_none());
    }
    plain(findings)
}

#[test]
fn every_bad_file_is_told_with_its_place_the_reason_and_what_would_be_right() {
    let mut names = BTreeSet::new();
    for (name, from, to) in BAD {
        assert!(names.insert(*name), "{name} is there twice");
        let error = checked(&edited(from, to)).expect_err(name);
        assert_golden(name, &words(&error));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let mut text = GOOD.to_string();
    let many = [
        ("heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 20"),
        ("\"10.0.0.1:7421\"", "\"10.0.0.1\""),
        ("\"node1\"]   #", "\"nod1\"]   #"),
        ("\"ext4\"", "\"ext5\""),
        ("\"10.0.0.20/24\"", "\"10.0.0.20\""),
        ("volumes = [\"www\"]", "volume = [\"www\"]"),
    ];
    for (from, to) in &many {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let error = checked(&text).expect_err("bad");
    assert!(error.0.errors() >= many.len());
    assert_golden("several", &words(&error));
}

#[test]
fn more_addresses_or_resources_than_fit_are_refused() {
    let addresses = |net: u8| -> String {
        let all: Vec<String> = (0..17)
            .map(|port| format!("\"10.0.0.{net}:{}\"", 7421 + port))
            .collect();
        format!("interconnects = [{}]", all.join(", "))
    };
    let text = GOOD
        .replace(
            "interconnects = [\"10.0.0.1:7421\", \"10.1.0.1:7421\"]",
            &addresses(1),
        )
        .replace(
            "interconnects = [\"10.0.0.2:7421\", \"10.1.0.2:7421\"]",
            &addresses(2),
        );
    assert_golden(
        "interconnects-seventeen",
        &words(&checked(&text).expect_err("17")),
    );
    let mut text = GOOD.to_string();
    for number in 0..64 {
        text += &format!(
            "[[groups.more.resources]]\nkind = \"exec\"\nname = \"r{number}\"\nstart = [\"/bin/true\"]\n"
        );
    }
    text += "[groups.more]\nvolumes = [\"more\"]\n";
    // 64 are allowed.
    let _ = cluster(&text);
    text +=
        "[[groups.more.resources]]\nkind = \"exec\"\nname = \"last\"\nstart = [\"/bin/true\"]\n";
    assert_golden(
        "resources-too-many",
        &words(&checked(&text).expect_err("65")),
    );
}

#[test]
fn files_that_are_none_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster.toml");
    let told = |name: &str, path: &Path| {
        let error = Checked::read(path).expect_err(name);
        let text = words(&error).replace(&directory.path().display().to_string(), "DIRECTORY");
        assert_golden(name, &text);
    };
    told("file-missing", &path);
    told("file-is-a-directory", directory.path());
    fs::write(&path, "").expect("written");
    told("file-empty", &path);
    fs::write(&path, b"version = 1\nname = \"\xe9\"\n").expect("written");
    told("file-not-utf8", &path);
    fs::write(&path, "#".repeat(1024 * 1024 + 1)).expect("written");
    told("file-too-large", &path);
    fs::write(&path, "#".repeat(1024 * 1024)).expect("written");
    let error = Checked::read(&path).expect_err("no keys");
    assert!(error.to_string().contains("`version`"), "{error}");
}

#[test]
fn a_file_that_may_not_be_read_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster.toml");
    fs::write(&path, GOOD).expect("written");
    fs::set_permissions(&path, Permissions::from_mode(0o000)).expect("a mode");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a mode");
    let read = path.clone();
    // Of this thread alone; root may read anything.
    let thread = std::thread::spawn(move || {
        setfsuid(Uid::from_raw(65534));
        Checked::read(&read).expect_err("no permission")
    });
    let text = words(&thread.join().expect("its end"));
    let text = text.replace(&directory.path().display().to_string(), "DIRECTORY");
    assert_golden("file-no-permission", &text);
}

#[test]
fn a_machine_that_is_no_node_is_told() {
    let error = checked(GOOD)
        .expect("good")
        .of("node3")
        .expect_err("no node");
    assert_golden("not-a-node", &words(&error));
}

#[test]
fn the_goldens_are_those_of_the_cases() {
    let others = [
        "several",
        "interconnects-seventeen",
        "resources-too-many",
        "file-missing",
        "file-is-a-directory",
        "file-empty",
        "file-not-utf8",
        "file-too-large",
        "file-no-permission",
        "not-a-node",
    ];
    let mut wanted: BTreeSet<String> = BAD.iter().map(|(name, ..)| (*name).to_string()).collect();
    wanted.extend(others.iter().map(|name| (*name).to_string()));
    assert!(wanted.len() > 100);
    wanted.extend(WARNED.iter().map(|(name, ..)| format!("warning-{name}")));
    wanted.extend(PLANS.iter().map(|(name, ..)| format!("plan-{name}")));
    wanted.extend(
        [
            "warning-here",
            "warning-here-monitors",
            "summary",
            "summary-monitors",
            "schema",
        ]
        .map(str::to_string),
    );
    let directory = golden("x").parent().expect("a directory").to_path_buf();
    let there: BTreeSet<String> = fs::read_dir(directory)
        .expect("the goldens")
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_string))
        .collect();
    if std::env::var_os("LOCKSTEP_BLESS").is_none() {
        assert_eq!(there, wanted);
    }
}

/// What is allowed and warned of.
#[rustfmt::skip]
const WARNED: &[(&str, &[(&str, &str)])] = &[
    ("one-interconnect", &[(", \"10.1.0.1:7421\"", ""), (", \"10.1.0.2:7421\"", "")]),
    ("interconnects-of-one-address", &[("10.1.0.1:7421", "10.0.0.1:7431")]),
    ("arbiter-none", &[("version = 1", "version = 1\narbiter = \"none\"")]),
    ("arbiter-ping", &[(WITNESS, "[ping]\ntargets = [\"10.0.0.254\"]\n")]),
    ("no-arbiter", &[(WITNESS, "")]),
    ("witness-on-a-node", &[("10.0.0.5:7422", "10.0.0.2:7422")]),
    ("witness-on-itself", &[("10.0.0.5:7422", "127.0.0.1:7422")]),
    ("times", &[("heartbeat_interval_ms = 250\nheartbeat_timeout_ms = 2000", "heartbeat_interval_ms = 100\nheartbeat_timeout_ms = 900"), ("start_timeout_ms = 5000", "start_timeout_ms = 500")]),
    ("watchdog-on-one-node", &[("[timing]", "[watchdog]\n[timing]"), ("[nodes.node2]", "watchdog = \"none\"\n[nodes.node2]")]),
    ("takeover-waits-long", &[("[timing]", "[watchdog]\ntimeout_s = 57\n[timing]")]),
    ("no-resources", &[("resources = [{ kind = \"exec\", name = \"x\", start = [\"/bin/true\"] }]\n", "")]),
    ("monitor-without-a-move", &[("volumes = [\"www\"]", "volumes = [\"www\"]\non_failure = \"wait\"\nmonitors = [{ kind = \"nic\", name = \"m\", interface = \"eth0\", on_error = \"failover\" }]")]),
    ("monitor-without-failovers", &[("volumes = [\"www\"]", "volumes = [\"www\"]\nfailovers_max = 0\nmonitors = [{ kind = \"nic\", name = \"m\", interface = \"eth0\", on_error = \"failover\" }]")]),
    ("mount-over-a-mount", &[(ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"filesystem\"\nname = \"two\"\nvolume = \"data\"\ntype = \"xfs\"\nmount_point = \"/srv\"\n[groups.web]")]),
];

#[test]
fn what_is_allowed_and_worth_a_second_look_is_a_warning() {
    assert_eq!(checked(GOOD).expect("good").findings.list(), []);
    for (name, edits) in WARNED {
        let mut text = GOOD.to_string();
        for (from, to) in *edits {
            assert!(text.contains(from), "{name}: {from}");
            text = text.replacen(from, to, 1);
        }
        let found = checked(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.findings.errors(), 0);
        assert!(found.findings.warnings() > 0, "{name}");
        assert_golden(&format!("warning-{name}"), &plain(&found.findings));
    }
}

#[test]
fn what_does_not_fit_this_machine_is_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/sh\n").expect("written");
    let in_mount = "[\"/srv/data/app\"]";
    let etcd = "[etcd]\nendpoints = [\"10.0.0.5:2379\"]\nauthority = \"/nonexistent/authority.pem\"\n[watchdog]\ndevice = \"/nonexistent/watchdog\"\n";
    let text = GOOD
        .replace("[\"/usr/bin/prepare\", \"--now\"]", &format!("[\"{}\"]", script.display()))
        .replace("start_timeout_ms = 5000", "stop = [\"/nonexistent/stop\"]\ncheck = [\"/\"]")
        .replace("[\"/usr/bin/app\"]", in_mount)
        .replace("retries = 0\n", "[[groups.pg.resources]]\nkind = \"floating_ip\"\nname = \"far\"\naddress = \"192.168.7.1/24\"\n")
        .replace(WITNESS, etcd);
    let mut here = Here {
        node: "node1".to_string(),
        addresses: Some(vec![
            ("10.0.0.1".parse().expect("an address"), 24),
            ("10.0.0.20".parse().expect("an address"), 24),
        ]),
        interfaces: Some(["lo", "ens3"].map(str::to_string).into()),
    };
    let mut found = checked(&text).expect("allowed");
    found.look(&here);
    let words =
        plain(&found.findings).replace(&directory.path().display().to_string(), "DIRECTORY");
    // The path's length moves nothing but the markers under it.
    let words: String = words
        .lines()
        .map(|line| {
            if line.contains("^^^") {
                "  | ^^^\n".to_string()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    assert_golden("warning-here", &words);

    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a mode");
    let address = "10.1.0.1".parse().expect("an address");
    let far = "192.168.7.9".parse().expect("an address");
    here.addresses
        .get_or_insert_default()
        .extend([(address, 24), (far, 24)]);
    here.interfaces
        .get_or_insert_default()
        .insert("eth0".to_string());
    let mut found = checked(&text).expect("allowed");
    found.look(&here);
    let left: Vec<&str> = found
        .findings
        .list()
        .iter()
        .map(|own| own.key.as_str())
        .collect();
    assert_eq!(
        left,
        [
            "etcd.authority",
            "watchdog",
            "groups.pg.resources.prepare.stop[0]",
            "groups.pg.resources.prepare.check[0]"
        ]
    );

    // What cannot be seen is not warned of.
    (here.addresses, here.interfaces) = (None, None);
    let mut found = checked(
        GOOD.replace("/usr/bin/prepare", "/bin/true")
            .replace("/usr/bin/app", "/bin/true")
            .as_str(),
    )
    .expect("good");
    found.look(&here);
    assert_eq!(found.findings.list(), []);
}

#[test]
fn this_machine_can_be_looked_at() {
    let here = Here::of("node1");
    let interfaces = here.interfaces.expect("interfaces");
    assert!(interfaces.contains("lo"), "{interfaces:?}");
    assert!(here.addresses.is_some());
}

#[test]
fn the_summary_says_what_a_file_means() {
    let checked = checked(GOOD).expect("good");
    let json = serde_json::to_string_pretty(&checked.summary_json()).expect("JSON");
    assert_golden("summary", &format!("{}\n{json}\n", checked.summary()));
}

/// Name, edits of the file in force, edits of the new one, the level that comes of it.
type PlanCase = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
    Option<Level>,
);

#[rustfmt::skip]
const PLANS: &[PlanCase] = &[
    ("nothing", &[], &[("version = 1\n", "# a comment\nversion = 1\n"), ("restarts = 2", "restarts = 2\nready_ms = 1000")], None),
    ("order-of-volumes", &[("\"www\"", "\"www\", \"two\"")], &[("\"www\"", "\"two\", \"www\"")], Some(Level::Nothing)),
    ("interconnect", &[], &[("10.1.0.2:7421", "10.1.0.3:7421")], Some(Level::Restart)),
    ("timing", &[], &[("heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 3000")], Some(Level::StopLockstepd)),
    ("witness-to-etcd", &[], &[(WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\n")], Some(Level::StopLockstepd)),
    ("another-witness", &[], &[("10.0.0.5:7422", "10.0.0.6:7422")], Some(Level::StopLockstepd)),
    ("witness-to-ping", &[], &[(WITNESS, "[ping]\ntargets = [\"10.0.0.254\"]\n")], Some(Level::StopLockstepd)),
    ("clients", &[], &[(WITNESS, "[witness]\naddress = \"10.0.0.5:7422\"\n[clients]\ntargets = [\"10.2.0.1\", \"10.2.0.2\"]\n")], Some(Level::Restart)),
    ("witness-to-nobody", &[], &[("version = 1", "version = 1\narbiter = \"none\"")], Some(Level::StopLockstepd)),
    ("files-of-etcd", &[(WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/a\"\n")], &[(WITNESS, "[etcd]\nendpoints = [\"e1:2379\"]\nauthority = \"/b\"\n")], Some(Level::Restart)),
    ("node-renamed", &[], &[("[nodes.node2]", "[nodes.node3]"), ("[\"node2\", \"node1\"]", "[\"node3\", \"node1\"]")], Some(Level::StopCluster)),
    ("node-that-swaps-numbers", &[], &[("[nodes.node2]", "[nodes.anode]"), ("[\"node2\", \"node1\"]", "[\"anode\", \"node1\"]")], Some(Level::StopCluster)),
    ("watchdog-new", &[], &[("[timing]", "[watchdog]\n[timing]")], Some(Level::Restart)),
    ("watchdog-times", &[("[timing]", "[watchdog]\n[timing]")], &[("[timing]", "[watchdog]\ntimeout_s = 20\n[timing]")], Some(Level::StopLockstepd)),
    ("group-new", &[], &[(ONE_MORE, "\n[groups.more]\nvolumes = [\"more\"]\n[groups.web]")], Some(Level::Restart)),
    ("group-removed", &[(ONE_MORE, "\n[groups.more]\nvolumes = [\"more\"]\n[groups.web]")], &[], Some(Level::StopGroup)),
    ("group-removed-with-a-watchdog", &[("[timing]", "[watchdog]\n[timing]"), (ONE_MORE, "\n[groups.more]\nvolumes = [\"more\"]\n[groups.web]")], &[("[timing]", "[watchdog]\n[timing]")], Some(Level::StopGroup)),
    ("group-volumes", &[], &[("\"www\"", "\"www\", \"two\"")], Some(Level::StopGroup)),
    ("group-hard-stop", &[], &[("hard_stop_ms = 3000", "hard_stop_ms = 4000")], Some(Level::StopLockstepd)),
    ("group-times-and-nodes", &[], &[("hard_stop_ms = 3000", "hard_stop_ms = 3000\nfailovers_max = 7\non_failure = \"wait\""), ("\"hold\"", "\"fence\""), ("[\"node2\", \"node1\"]", "[\"node1\", \"node2\"]")], Some(Level::Restart)),
    ("resource-new-at-the-end", &[], &[(ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"exec\"\nname = \"new\"\nstart = [\"/bin/true\"]\n[groups.web]")], Some(Level::Restart)),
    ("resource-new-in-the-middle", &[], &[("[[groups.pg.resources]]\nkind = \"exec\"", "[[groups.pg.resources]]\nkind = \"exec\"\nname = \"new\"\nstart = [\"/bin/true\"]\n\n[[groups.pg.resources]]\nkind = \"exec\"")], Some(Level::StopGroup)),
    ("resource-removed", &[(ONE_MORE, "\n[[groups.pg.resources]]\nkind = \"exec\"\nname = \"new\"\nstart = [\"/bin/true\"]\n[groups.web]")], &[], Some(Level::StopGroup)),
    ("resource-renamed", &[], &[("name = \"app\"", "name = \"program\"")], Some(Level::StopGroup)),
    ("resource-of-another-kind", &[], &[("kind = \"program\"\nname = \"app\"\ncommand = [\"/usr/bin/app\"]\nrestarts = 2", "kind = \"exec\"\nname = \"app\"\nstart = [\"/usr/bin/app\"]")], Some(Level::StopGroup)),
    ("resources-in-another-order", &[("name = \"prepare\"\nstart = [\"/usr/bin/prepare\", \"--now\"]\nstart_timeout_ms = 5000\nretries = 0\n", "name = \"a\"\nstart = [\"/a\"]\n\n[[groups.pg.resources]]\nkind = \"exec\"\nname = \"b\"\nstart = [\"/b\"]\n")], &[("name = \"prepare\"\nstart = [\"/usr/bin/prepare\", \"--now\"]\nstart_timeout_ms = 5000\nretries = 0\n", "name = \"b\"\nstart = [\"/b\"]\n\n[[groups.pg.resources]]\nkind = \"exec\"\nname = \"a\"\nstart = [\"/a\"]\n")], Some(Level::Restart)),
    ("mount-options", &[], &[("\"noatime\"", "\"noatime,discard\"")], Some(Level::StopGroup)),
    ("what-counts-later", &[], &[("kill_users = true", "kill_users = false"), ("restarts = 2", "restarts = 5"), ("retries = 0", "retries = 2\nstop = [\"/bin/true\"]")], Some(Level::Restart)),
    ("unit", &[(ONE_MORE, UNIT)], &[(ONE_MORE, UNIT), ("a@1.service", "a@2.service")], Some(Level::StopGroup)),
    ("monitors-new", &[], &[(ONE_MORE, MONITORS)], Some(Level::Restart)),
    ("monitors-changed", &[(ONE_MORE, MONITORS)], &[(ONE_MORE, MONITORS), ("interval_ms = 5000", "interval_ms = 6000"), ("resource = \"app\"", "resource = \"ip\""), ("kind = \"nic\"\nname = \"port\"\ninterface = \"eth0\"", "kind = \"script\"\nname = \"port\"\ncommand = [\"/bin/true\"]"), ("name = \"router\"", "name = \"gateway\"")], Some(Level::Restart)),
    ("several", &[], &[("heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 3000"), ("\"/srv//data/\"", "\"/srv/pg\""), ("10.0.0.20/24", "10.0.0.21/24"), ("\"www\"", "\"www\", \"two\"")], Some(Level::StopGroup)),
];

#[test]
fn a_plan_says_what_each_change_needs_and_in_which_order() {
    let edit = |edits: &[(&str, &str)]| {
        let mut text = GOOD.to_string();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        cluster(&text)
    };
    for (name, old, new, level) in PLANS {
        let (file, place) = (
            Path::new("new.toml"),
            Path::new("/etc/lockstep/cluster.toml"),
        );
        let plan = plan(&edit(old), &edit(new), file, place);
        assert_eq!(
            plan.changes.is_empty(),
            level.is_none(),
            "{name}: {}",
            plan.text()
        );
        assert_eq!(
            plan.level(),
            level.unwrap_or(Level::Nothing),
            "{name}: {}",
            plan.text()
        );
        assert_golden(&format!("plan-{name}"), &plan.text());
        // Nothing changes on the way to where one is.
        assert_eq!(plan.changes.is_empty(), plan.steps.is_empty());
        let back = controlplane::config::plan(&edit(new), &edit(new), file, place);
        assert_eq!(back.changes, [], "{name}");
    }
}

#[test]
fn groups_are_stopped_before_lockstepd_and_started_after_it() {
    let new = GOOD
        .replace("heartbeat_timeout_ms = 2000", "heartbeat_timeout_ms = 3000")
        .replace("\"/srv//data/\"", "\"/srv/pg\"");
    let plan = plan(
        &cluster(GOOD),
        &cluster(&new),
        Path::new("new"),
        Path::new("old"),
    );
    let place = |what: &str| {
        let found = plan.steps.iter().position(|step| step.contains(what));
        found.unwrap_or_else(|| panic!("{what} in {:?}", plan.steps))
    };
    assert!(place("group stop pg") < place("stop lockstepd"));
    assert!(place("stop lockstepd") < place("put new in place"));
    assert!(place("put new in place") < place("start lockstepd"));
    assert!(place("start lockstepd") < place("group start pg"));
    assert!(
        !plan.steps.iter().any(|step| step.contains("web")),
        "{:?}",
        plan.steps
    );
}

#[test]
fn the_schema_is_this_and_names_every_key() {
    let schema = serde_json::to_string_pretty(&controlplane::config::schema()).expect("JSON");
    assert_golden("schema", &format!("{schema}\n"));
    let key = |line: &str| {
        let (key, value) = line.split_once('=')?;
        (value.starts_with(' ') && !key.contains(' ')
            || key
                .trim_end()
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_'))
        .then(|| key.trim().to_string())
    };
    let keys: BTreeSet<String> = GOOD
        .lines()
        .filter(|line| !line.starts_with("resources"))
        .filter_map(key)
        .collect();
    assert!(keys.len() > 20, "{keys:?}");
    for key in keys {
        assert!(schema.contains(&format!("\"{key}\": {{")), "{key}");
    }
}

#[test]
fn commands_with_control_characters_do_not_reach_the_terminal() {
    let text = edited("[\"/usr/bin/app\"]", "[\"/usr/bin/app\", \"\\u001b[2J\"]");
    let checked = checked(&text).expect("allowed");
    let plan = plan(
        &cluster(GOOD),
        &checked.cluster,
        Path::new("a"),
        Path::new("b"),
    );
    for said in [checked.summary(), plan.text()] {
        assert!(said.contains("/usr/bin/app \u{fffd}[2J"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}

#[test]
fn a_node_finds_itself_and_its_peer() {
    let config = Config::parse(Path::new("c.toml"), GOOD, "node2").expect("good");
    assert_eq!(
        (config.me.number(), config.peer_name.as_str()),
        (1, "node1")
    );
    assert_eq!((config.peer.number(), config.name.as_str()), (0, "node2"));
    assert_eq!(config.interconnects[1].peer.to_string(), "10.1.0.1:7421");
    assert_eq!(config.interconnects[1].local.to_string(), "10.1.0.2:7421");
    assert_eq!(config.arbiter, ArbiterKind::Register);
}

#[test]
fn the_first_node_by_name_is_number_0_wherever_it_stands() {
    let swapped = GOOD
        .replace("node1", "nodeX")
        .replace("node2", "node1")
        .replace("nodeX", "node2");
    let cluster = cluster(&swapped);
    assert_eq!(
        cluster.nodes.each_ref().map(|node| node.name.as_str()),
        ["node1", "node2"]
    );
    assert_eq!(cluster.nodes[0].number.number(), 0);
    assert_eq!(
        cluster.nodes[0].interconnects[0].to_string(),
        "10.0.0.2:7421"
    );
}

#[test]
fn monitors_are_read_with_what_follows_from_them() {
    let text = edited(ONE_MORE, MONITORS);
    let read = checked(&text).expect("good");
    let monitors = &read.cluster.groups[0].monitors;
    let policies = monitors.iter().map(|monitor| monitor.policy.on_error);
    assert_eq!(
        policies.collect::<Vec<_>>(),
        [
            OnError::Restart { resource: 3 },
            OnError::Failover,
            OnError::Warn,
            OnError::Warn
        ]
    );
    assert_eq!(monitors[0].policy.timeout, Duration::from_secs(3));
    assert_eq!(
        (monitors[1].policy.interval, monitors[1].policy.retries),
        (Duration::from_secs(10), 2)
    );
    let MonitorKind::Mirror(mirror) = &monitors[3].kind else {
        panic!("{:?}", monitors[3]);
    };
    assert_eq!(mirror.volumes, ["data"]);
    let json = serde_json::to_string_pretty(&read.summary_json()["groups"][0]["monitors"]);
    assert_golden(
        "summary-monitors",
        &format!("{}\n{}\n", read.summary(), json.expect("JSON")),
    );
}

#[test]
fn monitors_that_do_not_fit_this_machine_are_a_warning() {
    let text = edited(ONE_MORE, MONITORS)
        .replace("interface = \"eth0\"", "interface = \"ens9\"")
        .replace("/usr/local/sbin/pg-query", "/nonexistent/pg-query");
    let mut found = checked(&text).expect("allowed");
    found.look(&Here {
        node: "node3".to_string(),
        addresses: None,
        interfaces: Some(["lo", "ens9x"].map(str::to_string).into()),
    });
    let monitors = |finding: &&controlplane::config::Finding| finding.key.contains("monitors");
    let found = found.findings.list().iter().filter(monitors);
    let words: Vec<String> = found
        .map(|finding| {
            format!(
                "{}: {}\n  {}\n  {}\n",
                finding.key, finding.what, finding.why, finding.advice
            )
        })
        .collect();
    assert_golden("warning-here-monitors", &words.concat());
}

#[test]
fn resources_are_read_in_their_order() {
    let config = Config::parse(Path::new("c.toml"), GOOD, "node2").expect("good");
    let group = &config.groups[0];
    assert_eq!(group.nodes, ["node2", "node1"]);
    assert_eq!(group.policy.hard_stop, Duration::from_secs(3));
    assert_eq!(group.policy.stop_failure, StopFailure::Hold);
    let names: Vec<&str> = group
        .resources
        .iter()
        .map(|own| own.name.as_str())
        .collect();
    assert_eq!(names, ["fs", "ip", "prepare", "app"]);
    let Kind::FileSystem(fs) = &group.resources[0].kind else {
        panic!("{:?}", group.resources[0]);
    };
    assert_eq!(fs.mount_point.to_str(), Some("/srv/data"));
    assert_eq!((fs.fsck, fs.users), (Fsck::Auto, Users::Kill));
    let policy = &group.policy.resources[2];
    assert_eq!(
        (policy.start_timeout, policy.retries),
        (Duration::from_secs(5), 0)
    );
    assert_eq!(policy.stop_timeout, Duration::from_secs(60));
    assert_eq!(config.groups[1].nodes, ["node1", "node2"]);
    assert_eq!(config.groups[1].resources.len(), 1);
}

/// Whatever is in it: refused with a place and a reason, or understood.
fn anything(bytes: &[u8]) {
    match Checked::parse(Path::new("c.toml"), bytes) {
        Ok(checked) => {
            assert_eq!(checked.findings.errors(), 0);
            let _ = (checked.summary(), checked.summary_json().to_string());
            let _ = plan(
                &cluster(GOOD),
                &checked.cluster,
                Path::new("a"),
                Path::new("b"),
            )
            .text();
            let _ = plan(
                &checked.cluster,
                &cluster(GOOD),
                Path::new("a"),
                Path::new("b"),
            )
            .text();
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("error LS60"), "{text}");
            let control = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(control), "{text:?}");
            let _ = error.0.to_json();
        }
    }
}

/// Pieces that files are made of.
const PIECES: [&str; 28] = [
    "version = 1\n",
    "[nodes.a]\n",
    "[nodes.b]\n",
    "interconnects = [\"10.0.0.1:1\"]\n",
    "interconnects = [\"10.0.0.2:1\"]\n",
    "[witness]\n",
    "address = \"10.0.0.5:1\"\n",
    "[groups.g]\n",
    "volumes = [\"v\"]\n",
    "nodes = [\"a\", \"c\"]\n",
    "[[groups.g.resources]]\n",
    "kind = \"exec\"\n",
    "name = \"n\"\n",
    "start = [\"/a\"]\n",
    "arbiter = \"etcd\"\n",
    "[[groups.g.monitors]]\n",
    "kind = \"mirror\"\n",
    "on_error = \"restart\"\n",
    "resource = \"n\"\n",
    "[etcd]\n",
    "endpoints = [\"e:1\", 1]\n",
    "kind = \"filesystem\"\n",
    "mount_point = \"/a/..\"\n",
    "retries = -1\n",
    "= \"\n",
    "[timing]\n",
    "heartbeat_interval_ms = 9223372036854775807\n",
    "\"a\\u001b\" = {b = [[1979-05-27, 1.5, true]]}\n",
];

proptest! {
    #[test]
    fn any_bytes_are_refused_or_understood(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        anything(&bytes);
    }

    #[test]
    fn any_text_is_refused_or_understood(text in "\\PC{0,200}") {
        anything(text.as_bytes());
    }

    #[test]
    fn any_pieces_are_refused_or_understood(pieces in proptest::collection::vec(0..PIECES.len(), 0..30)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        anything(text.as_bytes());
    }

    #[test]
    fn any_damage_is_refused_or_understood(at in 0..GOOD.len(), length in 0..40_usize, bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut text = GOOD.as_bytes().to_vec();
        let end = (at + length).min(text.len());
        text.splice(at..end, bytes);
        anything(&text);
    }
}

#[test]
fn lockstepd_says_the_same_as_the_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster.toml");
    fs::write(&path, edited("\"ext4\"", "\"ext5\"")).expect("written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lockstepd"))
        .args(["run", "--node", "node1", "--config"])
        .arg(&path)
        .output()
        .expect("lockstepd");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = Checked::read(&path).expect_err("bad");
    assert!(said.contains(&error.to_string()), "{said}");
    assert!(said.contains("did you mean `ext4`?"), "{said}");
}
