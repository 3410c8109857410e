//! What each key of a resource says, and what a change of it needs.

use controlplane_core::group::ResourcePolicy;

use super::super::resources::{Kind, Resource};
use super::super::summary::{millis, of_kind};
use super::{Level, becomes};
use crate::resources::FileSystem;
use crate::resources::filesystem::{Fsck, Users};

/// A key, what it says, what a change of it needs and why.
pub(super) type Fact = (&'static str, String, Level, &'static str);

pub(super) fn resource_changes(
    (old, before): (&Resource, &ResourcePolicy),
    (new, after): (&Resource, &ResourcePolicy),
) -> Vec<Fact> {
    let (was, is) = (of_kind(&old.kind).0, of_kind(&new.kind).0);
    if was != is {
        let why = "what runs was started as the other kind, and cannot be stopped as this one";
        return vec![("kind", becomes(was, is), Level::StopGroup, why)];
    }
    let facts = |resource: &Resource, policy: &ResourcePolicy| {
        let mut facts = facts(&resource.kind);
        facts.extend(times(policy));
        facts
    };
    let pairs = facts(old, before).into_iter().zip(facts(new, after));
    let differ = pairs.filter(|((_, old, ..), (_, new, ..))| old != new);
    differ
        .map(|((key, old, level, why), (_, new, ..))| (key, becomes(old, new), level, why))
        .collect()
}

fn times(policy: &ResourcePolicy) -> [Fact; 3] {
    let why = "lockstepd reads it when it starts";
    let fact = |key, value: String| (key, value, Level::Restart, why);
    [
        fact("start_timeout_ms", millis(policy.start_timeout).to_string()),
        fact("stop_timeout_ms", millis(policy.stop_timeout).to_string()),
        fact("retries", policy.retries.to_string()),
    ]
}

const RUNS: &str =
    "what runs was started as before; it would stay so, or be taken for somebody else's";
const LATER: &str = "lockstepd reads it when it starts; it counts from then on";

fn mount_facts(mount: &FileSystem) -> Vec<Fact> {
    vec![
        ("volume", mount.volume.clone(), Level::StopGroup, RUNS),
        ("type", mount.kind.clone(), Level::StopGroup, RUNS),
        (
            "mount_point",
            mount.mount_point.display().to_string(),
            Level::StopGroup,
            RUNS,
        ),
        (
            "options",
            format!("{:?}", mount.options),
            Level::StopGroup,
            RUNS,
        ),
        (
            "fsck",
            match mount.fsck {
                Fsck::Never => "never".to_string(),
                Fsck::Auto => "auto".to_string(),
            },
            Level::Restart,
            LATER,
        ),
        (
            "kill_users",
            match mount.users {
                Users::Name => "false".to_string(),
                Users::Kill => "true".to_string(),
            },
            Level::Restart,
            LATER,
        ),
    ]
}

fn facts(kind: &Kind) -> Vec<Fact> {
    let command = |words: &Vec<String>| words.join(" ");
    let optional =
        |words: &Option<Vec<String>>| words.as_ref().map_or("nothing".to_string(), command);
    match kind {
        Kind::FileSystem(mount) => mount_facts(mount),
        Kind::FloatingIp(ip) => {
            let interface = ip.interface.clone();
            let interface = interface.unwrap_or_else(|| "found".to_string());
            vec![
                (
                    "address",
                    format!("{}/{}", ip.address, ip.prefix),
                    Level::StopGroup,
                    RUNS,
                ),
                ("interface", interface, Level::StopGroup, RUNS),
            ]
        }
        Kind::Exec(exec) => vec![
            ("start", command(&exec.start), Level::StopGroup, RUNS),
            ("stop", optional(&exec.stop), Level::Restart, LATER),
            ("check", optional(&exec.check), Level::Restart, LATER),
        ],
        Kind::Systemd(systemd) => vec![("unit", systemd.unit.clone(), Level::StopGroup, RUNS)],
        Kind::Program(program) => vec![
            ("command", command(&program.command), Level::StopGroup, RUNS),
            (
                "ready_ms",
                millis(program.ready).to_string(),
                Level::Restart,
                LATER,
            ),
            (
                "restarts",
                program.restarts.to_string(),
                Level::Restart,
                LATER,
            ),
            (
                "restart_interval_ms",
                millis(program.restart_interval).to_string(),
                Level::Restart,
                LATER,
            ),
        ],
    }
}
