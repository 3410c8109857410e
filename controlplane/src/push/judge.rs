//! Whether a file may be pushed: it can be used, and what changes can be changed while both nodes run.

use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;

use controlplane_api::config::{ChangeLine, PUSH_BYTES_MAX};
use controlplane_core::bounds;
use controlplane_core::push::Times;
use mirror_core::admin::Problem;

use super::ports::needed_by;
use crate::config::{
    Change, Checked, Cluster, Finding, Findings, Here, RegisterKeeper, plain, plan,
};

/// Longer words on what is wrong with a file are cut: `config check` has all.
const TOLD_CHARS_MAX: usize = 16 * 1024;

/// A file that may be pushed.
#[derive(Debug)]
pub struct Judged {
    /// Whether times that both nodes count with change.
    pub times: Times,
    /// What changes.
    pub changes: Vec<ChangeLine>,
    /// What does not fit this machine, or is worth a second look.
    pub warnings: Vec<String>,
}

pub(super) fn problem(
    code: &str,
    message: impl Into<String>,
    advice: impl Into<String>,
) -> Problem {
    Problem {
        code: code.to_string(),
        message: message.into(),
        advice: advice.into(),
    }
}

/// Judges the file `text` for the node `name`, whose file in force is `old`. `path` is where it belongs.
///
/// # Errors
/// Why it may not be pushed: LS6115 too large, the codes of the configuration, LS6105 what needs more than a push,
/// LS6106 times that cannot be changed in one go.
pub fn judge(old: &Cluster, text: &str, path: &Path, name: &str) -> Result<Judged, Problem> {
    if text.len() > PUSH_BYTES_MAX {
        return Err(problem(
            "LS6115",
            format!(
                "the file has {} bytes; at most {PUSH_BYTES_MAX} are pushed",
                text.len()
            ),
            "see whether it is the right file",
        ));
    }
    let refused = |error: crate::config::ConfigError| {
        let findings = &error.0;
        let first = findings.list().first();
        let code = first.map_or("LS6034", |finding| finding.code);
        let told: String = plain(findings).chars().take(TOLD_CHARS_MAX).collect();
        let message = format!("the file cannot be used on {name}:\n{}", told.trim_end());
        problem(
            code,
            message,
            "mend the file: `lockstep config check FILE` shows the same",
        )
    };
    let mut checked = Checked::parse(path, text.as_bytes()).map_err(refused)?;
    if !checked.cluster.nodes.iter().any(|node| node.name == name) {
        return Err(refused(checked.not_a_node(name)));
    }
    checked.look(&Here::of(name));
    let new = &checked.cluster;
    let plan = plan(old, new, path, path);
    let hard: Vec<&Change> = plan
        .changes
        .iter()
        .filter(|it| !it.may_be_pushed())
        .collect();
    if let Some(problem) = needs_more(&hard, &plan.steps) {
        return Err(problem);
    }
    if !a_path_stays(old, new) {
        return Err(problem(
            "LS6105",
            "no interconnect stays as it is at its place in the list: the nodes could not hear each other while one has \
             the new ones and the other one has not",
            "push in two steps: add the new interconnects behind the old ones, then remove the old ones, one at least \
             always in its place; or stop lockstepd on both nodes and put the file in place by hand (`lockstep config plan`)",
        ));
    }
    if !bounds::leaves_room(old.timing, new.timing) {
        return Err(problem(
            "LS6106",
            "the shorter of the old and the new heartbeat_timeout_ms has no room for four of the longer \
             heartbeat_interval_ms, and for a moment the nodes go by both",
            "push in two steps: where both get longer first the timeout, then the interval; where both get shorter the other way round",
        ));
    }
    if let Some(why) = would_not_start(old, new, (name, path)) {
        return Err(problem(
            "LS6119",
            format!("lockstepd on {name} could not start with the file: {why}"),
            "mend the file, or make what it names there on that node first; then repeat the command",
        ));
    }
    Ok(Judged {
        times: if old.timing == new.timing && old.waits_alike(new) {
            Times::Same
        } else {
            Times::Differ
        },
        changes: plan.changes.iter().map(line).collect(),
        warnings: warnings(&checked.findings),
    })
}

fn warnings(findings: &Findings) -> Vec<String> {
    let sentence = |finding: &Finding| {
        let told = format!("{} {}: {}", finding.code, finding.key, finding.what);
        told.chars().filter(|c| !c.is_control()).collect()
    };
    findings.list().iter().map(sentence).collect()
}

fn line(change: &Change) -> ChangeLine {
    ChangeLine {
        key: change.key.clone(),
        what: change.what.clone(),
    }
}

fn needs_more(hard: &[&Change], steps: &[String]) -> Option<Problem> {
    hard.first()?;
    let told = hard.iter().map(|change| {
        let (key, what, why) = (&change.key, &change.what, &change.why);
        format!("{key}: {what}; needs {}: {why}", change.level.needs())
    });
    let told: Vec<String> = told.collect();
    let steps = steps.iter().map(|step| format!("  {step}"));
    let steps: Vec<String> = steps.collect();
    Some(problem(
        "LS6105",
        format!("a push cannot change this\n{}", told.join("\n")),
        format!(
            "push the rest, and change this by hand:\n{}",
            steps.join("\n")
        ),
    ))
}

/// What `lockstepd` needs to start, and what changes: the node's own addresses, and the files for etcd.
fn would_not_start(old: &Cluster, new: &Cluster, (name, path): (&str, &Path)) -> Option<String> {
    let own = |cluster: &Cluster| {
        let mut nodes = cluster.nodes.iter();
        let own = nodes.find(|node| node.name == name);
        own.map(|node| node.interconnects.clone())
            .unwrap_or_default()
    };
    let known = own(old);
    for address in own(new).iter().filter(|it| !known.contains(it)) {
        if let Err(error) = UdpSocket::bind(address) {
            return Some(format!("the address {address} cannot be used: {error}"));
        }
        if let Some(volume) = needed_by(&path.with_file_name("volumes"), *address) {
            return Some(format!(
                "{address} is the mirror link's address of the volume {volume}, and an interconnect needs its port for TCP as well"
            ));
        }
    }
    let files = match &new.keeper {
        Some(RegisterKeeper::Etcd {
            files: Some(files), ..
        }) if new.keeper != old.keeper => files,
        Some(RegisterKeeper::Etcd { .. } | RegisterKeeper::Witness(_)) | None => return None,
    };
    let unreadable = |path: &Path| {
        let error = File::open(path).err()?;
        Some(format!("cannot read {}: {error}", path.display()))
    };
    let identity = || {
        let (certificate, key) = files.identity.as_ref()?;
        let secret = || Some(crate::key::read_text(key).err()?.to_string());
        unreadable(certificate).or_else(secret)
    };
    unreadable(&files.authority).or_else(identity)
}

/// The heartbeats of a path say its number, so a path is heard if it is the same, and at the same place.
fn a_path_stays(old: &Cluster, new: &Cluster) -> bool {
    let pairs = |cluster: &Cluster| {
        let [one, other] = &cluster.nodes;
        let pairs = one.interconnects.iter().zip(&other.interconnects);
        pairs.map(|(one, other)| (*one, *other)).collect::<Vec<_>>()
    };
    let (old, new) = (pairs(old), pairs(new));
    old.iter().zip(&new).any(|(old, new)| old == new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/etc/lockstep/cluster.toml";

    fn file(nodes: [&str; 2], rest: &str) -> String {
        let [one, two] = nodes;
        format!(
            "version = 1\n[nodes.node1]\ninterconnects = [{one}]\n[nodes.node2]\ninterconnects = [{two}]\n{rest}"
        )
    }

    const PATHS: [&str; 2] = ["\"127.0.0.1:7421\"", "\"127.0.0.2:7421\""];
    const REST: &str =
        "[witness]\naddress = \"10.0.0.5:7422\"\n[groups.pg]\nvolumes = [\"data\"]\n";

    fn judged(old: &str, new: &str) -> Result<Judged, Problem> {
        let path = Path::new(PLACE);
        let old = Checked::parse(path, old.as_bytes())
            .expect("a file")
            .cluster;
        judge(&old, new, path, "node1")
    }

    fn refused(old: &str, new: &str) -> Problem {
        judged(old, new).expect_err("refused")
    }

    #[test]
    fn what_one_node_after_the_other_can_do_may_be_pushed() {
        let old = file(PATHS, REST);
        assert_eq!(judged(&old, &old).expect("the same").changes, []);
        let new = format!("{old}[clients]\ntargets = [\"10.0.0.254\"]\n");
        let judged = judged(&old, &new).expect("pushed");
        assert_eq!((judged.times, judged.changes.len()), (Times::Same, 1));
    }

    /// Both nodes wait for it first; of one that may be armed the device has the old time for a while.
    #[test]
    fn a_watchdog_is_pushed_where_there_was_none_with_times_that_differ() {
        let without = file(PATHS, REST);
        let with = |timeout_s: u64| format!("{without}[watchdog]\ntimeout_s = {timeout_s}\n");
        let pushed = judged(&without, &with(10)).expect("pushed");
        assert_eq!((pushed.times, pushed.changes.len()), (Times::Differ, 1));
        let mut same = judged(&with(10), &with(10)).expect("the same");
        assert_eq!(same.times, Times::Same);
        same = judged(
            &with(10),
            &format!("{}[clients]\ntargets = [\"10.0.0.254\"]\n", with(10)),
        )
        .expect("clients");
        assert_eq!(same.times, Times::Same);
        let elsewhere = with(10) + "device = \"/dev/watchdog1\"\n";
        for new in [without.clone(), with(5), with(20), elsewhere] {
            let problem = refused(&with(10), &new);
            assert_eq!(problem.code, "LS6105", "{problem:?}");
            assert!(problem.message.contains("watchdog"), "{problem:?}");
            let by_hand = "stop lockstepd on both";
            assert!(problem.advice.contains(by_hand), "{problem:?}");
        }
        // A node of its own that had none.
        let one = without.replacen("[nodes.node2]\n", "[nodes.node2]\nwatchdog = \"none\"\n", 1)
            + "[watchdog]\n";
        let other = without.clone() + "[watchdog]\n";
        assert_eq!(judged(&one, &other).expect("pushed").times, Times::Differ);
        assert_eq!(refused(&other, &one).code, "LS6105");
    }

    /// A new time of the services' own leases is one that differs, whatever has a rule.
    #[test]
    fn a_hard_stop_is_not_pushed() {
        let old = file(PATHS, REST);
        let problem = refused(&old, &format!("{old}hard_stop_ms = 5000\n"));
        assert_eq!(problem.code, "LS6105", "{problem:?}");
        assert!(problem.message.contains("hard_stop_ms"), "{problem:?}");
    }

    #[test]
    fn what_safety_hangs_on_is_refused_with_the_reason_and_the_way_by_hand() {
        let old = file(PATHS, REST);
        let cases = [
            (old.replace("node2", "node3"), "StopCluster", "names"),
            (
                old.replace("10.0.0.5", "10.0.0.6"),
                "arbiter",
                "stop lockstepd on both",
            ),
            (
                old.replace("[\"data\"]", "[\"logs\"]"),
                "groups.pg",
                "group stop pg",
            ),
            (
                old.replace("groups.pg", "groups.my"),
                "groups.pg",
                "group stop pg",
            ),
        ];
        for (new, _, advice) in cases {
            let problem = refused(&old, &new);
            assert_eq!(problem.code, "LS6105", "{problem:?}");
            assert!(problem.advice.contains(advice), "{problem:?}");
        }
        // The other node's name is this machine's no more.
        let path = Path::new(PLACE);
        let cluster = Checked::parse(path, old.as_bytes())
            .expect("a file")
            .cluster;
        let problem = judge(&cluster, &old.replace("node1", "node0"), path, "node1");
        assert_eq!(problem.expect_err("refused").code, "LS6096");
    }

    #[test]
    fn one_interconnect_stays_at_its_place() {
        let old = file(PATHS, REST);
        let more = [
            "\"127.0.0.1:7421\", \"127.1.0.1:7421\"",
            "\"127.0.0.2:7421\", \"127.1.0.2:7421\"",
        ];
        assert!(judged(&old, &file(more, REST)).is_ok());
        let before = [
            "\"127.1.0.1:7421\", \"127.0.0.1:7421\"",
            "\"127.1.0.2:7421\", \"127.0.0.2:7421\"",
        ];
        let other = ["\"127.1.0.1:7421\"", "\"127.1.0.2:7421\""];
        for new in [before, other] {
            assert_eq!(refused(&old, &file(new, REST)).code, "LS6105");
        }
    }

    #[test]
    fn what_lockstepd_could_not_start_with_is_refused() {
        let old = file(PATHS, REST);
        // An address of documentation is nobody's.
        let strange = [
            "\"127.0.0.1:7421\", \"192.0.2.1:7421\"",
            "\"127.0.0.2:7421\", \"192.0.2.2:7421\"",
        ];
        let problem = refused(&old, &file(strange, REST));
        assert_eq!(problem.code, "LS6119", "{problem:?}");
        let etcd = |name: &str| {
            let etcd =
                "[etcd]\nendpoints = [\"10.0.0.5:2379\"]\nauthority = \"/nowhere/authority.pem\"\n";
            file(
                PATHS,
                &format!("{etcd}server_name = \"{name}\"\n[groups.pg]\nvolumes = [\"data\"]\n"),
            )
        };
        let problem = refused(&etcd("one"), &etcd("other"));
        assert_eq!(problem.code, "LS6119", "{problem:?}");
        assert!(problem.message.contains("/nowhere"), "{problem:?}");
    }

    #[test]
    fn an_interconnect_on_the_port_of_a_volume_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let volumes = directory.path().join("volumes");
        std::fs::create_dir(&volumes).expect("a directory");
        let volume = "[node]\nname = \"node1\"\naddress = \"127.1.0.1:7421\"\n";
        std::fs::write(volumes.join("data.toml"), volume).expect("written");
        let path = directory.path().join("cluster.toml");
        let more = [
            "\"127.0.0.1:7421\", \"127.1.0.1:7421\"",
            "\"127.0.0.2:7421\", \"127.1.0.2:7421\"",
        ];
        let old = Checked::parse(&path, file(PATHS, REST).as_bytes()).expect("a file");
        let judged = judge(&old.cluster, &file(more, REST), &path, "node1");
        let problem = judged.expect_err("refused");
        assert_eq!(problem.code, "LS6119", "{problem:?}");
        assert!(problem.message.contains("data"), "{problem:?}");
    }

    /// After a failover one node stops within it, and the other one waits for its own.
    #[test]
    fn the_time_of_a_hard_stop_is_not_pushed() {
        let of = |millis: u64| file(PATHS, &format!("{REST}hard_stop_ms = {millis}\n"));
        for (old, new) in [(10_000, 1000), (1000, 10_000)] {
            let problem = refused(&of(old), &of(new));
            assert_eq!(problem.code, "LS6105", "{problem:?}");
            assert!(problem.message.contains("hard_stop_ms"), "{problem:?}");
            assert!(problem.advice.contains("on both nodes"), "{problem:?}");
        }
    }

    #[test]
    fn times_change_in_steps_that_leave_room() {
        let timing = |interval: u64, timeout: u64| {
            let timing = format!(
                "[timing]\nheartbeat_interval_ms = {interval}\nheartbeat_timeout_ms = {timeout}\n"
            );
            file(PATHS, &format!("{timing}{REST}"))
        };
        let up = judged(&timing(250, 2000), &timing(250, 5000)).expect("longer");
        assert_eq!(up.times, Times::Differ);
        assert!(judged(&timing(250, 5000), &timing(250, 2000)).is_ok());
        assert_eq!(
            refused(&timing(250, 2000), &timing(1000, 5000)).code,
            "LS6106"
        );
    }

    #[test]
    fn a_file_of_another_format_or_size_is_refused_by_name() {
        let old = file(PATHS, REST);
        let problem = refused(&old, &old.replace("version = 1", "version = 0"));
        assert_eq!(problem.code, "LS6098");
        let problem = refused(&old, &old.replace("version = 1\n", ""));
        assert_eq!(problem.code, "LS6037");
        let large = format!("{old}#{}", "x".repeat(PUSH_BYTES_MAX));
        assert_eq!(refused(&old, &large).code, "LS6115");
    }
}
