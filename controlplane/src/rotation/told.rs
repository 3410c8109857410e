//! What is said of the cluster's key: to operators, in the status, in the log. Never the key.

use std::io;
use std::path::Path;

use controlplane_core::rotation::Why;
use mirror_core::admin::Problem;
use mirror_core::keys::Place;

pub(super) const DIFFER: &str = "LS6253";
const SHOW: &str = "`lockstep cluster keys` says how it stands";

fn problem(code: &str, message: String, advice: impl Into<String>) -> Problem {
    Problem {
        code: code.to_string(),
        message,
        advice: advice.into(),
    }
}

pub(super) fn under_way(place: Place) -> Problem {
    let generation = place.0 / 3 + 1;
    problem(
        "LS6254",
        format!("the cluster's key is being rotated to generation {generation}"),
        format!("it goes on by itself; {SHOW}"),
    )
}

/// The other node does not know of keys that are rotated.
pub(crate) fn unlike(peer: &str) -> Problem {
    problem(
        "LS6252",
        format!("{peer} runs an earlier release, which knows of no rotation"),
        format!(
            "let both nodes run the same release, and restart lockstepd on {peer}; then repeat the command"
        ),
    )
}

pub(super) fn earlier_daemon(node: &str, volume: &str) -> Problem {
    problem(
        "LS6252",
        format!(
            "the daemon of volume {volume} on {node} is of an earlier release, which knows of no rotation"
        ),
        format!(
            "restart it on {node} as for an upgrade (docs/operations.md): `lockstep volume stop {volume}` and \
             `lockstep volume start {volume}` where it is standby; then repeat the command"
        ),
    )
}

/// Whatever was heard, it fits no step.
pub(crate) fn differ(node: &str, peer: &str) -> Problem {
    problem(
        DIFFER,
        format!(
            "{node} and {peer} have different cluster keys, or one is further by more than a step"
        ),
        "somebody put a key file in place: find out which one is right, and copy it to the other node (scp -p), or let that \
         node join again with --force; then restart lockstepd there",
    )
}

pub(super) fn not_replaceable(node: &str, why: &str) -> Problem {
    problem(
        "LS6255",
        format!("the key file of {node} cannot be replaced: {why}"),
        "make it a plain file of mode 0600 in a directory with room, not a link and not mounted by itself; then repeat the command",
    )
}

pub(super) fn edited(node: &str, path: &Path) -> Problem {
    problem(
        "LS6255",
        format!(
            "{} on {node} is not what lockstepd goes by: somebody replaced it",
            path.display()
        ),
        "if it is right, restart lockstepd there; if not, put back what was there (the other node may have it)",
    )
}

pub(super) fn not_saved(node: &str, path: &Path, error: &io::Error) -> Problem {
    problem(
        "LS6255",
        format!("{node} cannot write {}: {error}", path.display()),
        format!(
            "see that the file system has room and can be written to; it is tried again, {SHOW}"
        ),
    )
}

/// The first step of a rotation may be on the disk, and may be lost with the power.
pub(super) fn unsure(node: &str, path: &Path, error: &io::Error) -> Problem {
    problem(
        "LS6259",
        format!(
            "whether a rotation began is not known, because {} on {node} may be replaced, or not: {error}",
            path.display()
        ),
        format!(
            "see that the file system has room and can be written to; the key that was there is written back by itself when the \
             nodes hear each other, then repeat the command; {SHOW}"
        ),
    )
}

pub(super) fn own_key_file(node: &str, volume: &str, (own, whole): (&Path, &Path)) -> Problem {
    problem(
        "LS6256",
        format!(
            "volume {volume} on {node} has {} as its key file, and not {}",
            own.display(),
            whole.display()
        ),
        format!(
            "let `key_file` in volumes/{volume}.toml name that one, and restart the volume's daemon; then repeat the command"
        ),
    )
}

/// Its daemon may have another one.
pub(super) fn unclear_key_file(node: &str, volume: &str, path: &Path, why: &str) -> Problem {
    problem(
        "LS6256",
        format!(
            "{} on {node} does not say which key file volume {volume} has: {why}",
            path.display()
        ),
        "correct the file, or move it away if there is no such volume; then repeat the command",
    )
}

/// A daemon may run that nobody asked.
pub(super) fn unclear_volumes(node: &str, directory: &Path, error: &io::Error) -> Problem {
    problem(
        "LS6257",
        format!(
            "it cannot be told which volumes {node} has: {}: {error}",
            directory.display()
        ),
        "see that the directory can be read; what has begun goes on by itself then",
    )
}

pub(super) fn not_adopted(node: &str, volume: &str, why: &str) -> Problem {
    problem(
        "LS6257",
        format!(
            "the daemon of volume {volume} on {node} did not take what is in the key file: {why}"
        ),
        format!(
            "look at `lockstep volume status {volume}` there, and restart its daemon if it hangs; the rotation goes on by itself then"
        ),
    )
}

pub(super) fn heartbeats(node: &str) -> Problem {
    problem(
        "LS6259",
        format!("the heartbeats of {node} did not take the new key in time"),
        "it is tried again; see whether the machine is overloaded",
    )
}

pub(super) fn fault(why: Why) -> Problem {
    problem(
        "LS6259",
        format!("a step of a rotation did not happen: {why}"),
        format!("{SHOW}; repeat the command when it is over"),
    )
}
