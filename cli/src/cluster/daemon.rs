//! What is said about the daemon of a volume that `lockstepd` keeps.

use std::fmt::Write as _;

use controlplane_api::cluster::{Daemon, DaemonState, Volume};

use crate::verdict::{Health, Verdict};

/// Of a volume whose daemon does not answer on this node.
pub(super) fn silent(volume: &Volume) -> Verdict {
    let name = &volume.name;
    let unknown = |sentence: &str| Verdict::new(Health::Unknown, "UNKNOWN", sentence);
    let silent = "its daemon does not answer on this node";
    let Some(daemon) = &volume.daemon else {
        return unknown(silent);
    };
    let log = format!("see /var/log/lockstep/{name}.log");
    match daemon.state {
        DaemonState::Stopped => unknown("an operator stopped its daemon on this node")
            .advise(format!("`lockstep volume start {name}` runs it again")),
        DaemonState::NotMade => unknown("this node has no copy of it").advise(
            "`lockstep volume create` makes one, with --join if the other node has the data"
                .to_string(),
        ),
        DaemonState::Refuses => unknown(&format!("its daemon on this node {}", daemon.text))
            .advise(format!(
                "mend that, then `lockstep volume start {name}`; {log}"
            )),
        DaemonState::Pauses | DaemonState::Unknown => {
            unknown(&format!("its daemon on this node {}", daemon.text)).advise(log)
        }
        DaemonState::Runs | DaemonState::Starts => unknown(silent),
    }
}

/// The row below the volume's, if there is something to know.
pub(super) fn row(out: &mut String, volume: &Volume) {
    let Some(daemon) = volume.daemon.as_ref().filter(|daemon| is_worth(daemon)) else {
        return;
    };
    let code = daemon.code.as_deref().unwrap_or_default();
    let times = match daemon.restarts {
        0 | 1 => String::new(),
        times => format!(" ({times} times in a row)"),
    };
    let text = format!("{}{times} {code}", daemon.text);
    let _ = writeln!(out, "  {:<12}{}", "  daemon", text.trim_end());
}

fn is_worth(daemon: &Daemon) -> bool {
    daemon.state != DaemonState::Runs || daemon.code.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(state: DaemonState, code: Option<&str>, restarts: u32) -> Volume {
        Volume {
            name: "data".to_string(),
            status: None,
            daemon: Some(Daemon {
                state,
                text: "ended: exit status: 1".to_string(),
                code: code.map(str::to_string),
                restarts,
            }),
        }
    }

    #[test]
    fn who_stopped_it_and_what_to_do_is_said() {
        let stopped = silent(&volume(DaemonState::Stopped, Some("LS6124"), 0));
        assert_eq!(stopped.health, Health::Unknown);
        assert!(stopped.sentence.contains("an operator stopped"));
        assert!(
            stopped
                .advice
                .iter()
                .any(|line| line.contains("lockstep volume start data"))
        );
        let refuses = silent(&volume(DaemonState::Refuses, Some("LS6122"), 1));
        assert!(refuses.sentence.contains("exit status: 1"), "{refuses:?}");
    }

    #[test]
    fn a_daemon_that_runs_well_has_no_row() {
        let mut out = String::new();
        row(&mut out, &volume(DaemonState::Runs, None, 0));
        assert_eq!(out, "");
        row(&mut out, &volume(DaemonState::Pauses, Some("LS6121"), 3));
        assert_eq!(
            out,
            "    daemon    ended: exit status: 1 (3 times in a row) LS6121\n"
        );
    }
}
