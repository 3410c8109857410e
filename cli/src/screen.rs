//! The status screen: the verdict first, then a few aligned rows.

use std::fmt::Write as _;
use std::time::Duration;

use mirror_core::admin::{
    CopyBeside, CopyCause, CopyProgress, CopyState, LinkState, PathState, PathStatus, Role, Status,
};
use mirror_core::isolation::utc;

use crate::failure::with_name;
use crate::size;
use crate::split;
use crate::style::{Style, Tone};
use crate::verdict::{Health, Verdict};
use crate::verified;

const BAR_CELLS: u64 = 30;
/// Of the operators' words; `--json` has all.
const OPERATIONS_SHOWN: usize = 3;

/// The first line, and what to do.
pub(crate) fn headline(volume: &str, verdict: &Verdict, style: Style) -> String {
    let tone = match verdict.health {
        Health::Healthy => Tone::Good,
        Health::Degraded | Health::Unknown => Tone::Careful,
        Health::Down => Tone::Bad,
    };
    let name = style.paint(Tone::Strong, volume);
    let mut out = format!(
        "{name}  {}: {}\n",
        style.paint(tone, verdict.word),
        verdict.sentence
    );
    for line in verdict.advice.iter().flat_map(|advice| advice.lines()) {
        let _ = writeln!(out, "  > {line}");
    }
    out
}

/// Everything about one volume.
pub(crate) fn volume(status: &Status, style: Style) -> String {
    let mut out = headline(&status.volume, &Verdict::of(status), style);
    row(&mut out, style, "role", &role(status));
    let device = status.device.as_deref().unwrap_or("none");
    row(
        &mut out,
        style,
        "device",
        &format!("{device}  {}", size::bytes(status.size_bytes)),
    );
    row(
        &mut out,
        style,
        "this copy",
        &format!("{}  ({})", copy(status.copy), status.node),
    );
    row(&mut out, style, "peer copy", &peer_copy(status));
    row(&mut out, style, "link", &link(status));
    if status.link.paths.len() > 1 {
        row(&mut out, style, "", &paths(&status.link.paths));
    }
    row(&mut out, style, "view", &view(status));
    if let Some(progress) = &status.progress {
        row(&mut out, style, "copying", &bar(progress));
        row(
            &mut out,
            style,
            "",
            &format!("because {}", cause(progress.cause)),
        );
        if let Some(beside) = &progress.beside {
            row(&mut out, style, "", &gives_way(beside));
        }
    }
    if let Some(found) = &status.split {
        out.push_str(&split::both_sides(found, style));
    }
    for entry in status.operations.iter().take(OPERATIONS_SHOWN) {
        row(&mut out, style, "operator", &split::operation(entry));
    }
    upkeep(&mut out, status, style);
    for problem in &status.problems {
        let code = style.paint(Tone::Careful, &format!("! {}", problem.code));
        let _ = writeln!(out, "  {code} {}", problem.message);
        for line in with_name(&problem.advice, &status.volume).lines() {
            let _ = writeln!(out, "    > {line}");
        }
    }
    out
}

/// What an operator has asked for, and how it stands.
fn upkeep(out: &mut String, status: &Status, style: Style) {
    if let Some(isolated) = &status.isolated {
        let device = isolated.device.as_deref().unwrap_or("no device here");
        let since = utc(isolated.since_unix_s);
        let node = &isolated.node;
        row(
            out,
            style,
            "isolated",
            &format!("{node} since {since}  {device}"),
        );
    }
    if let Some(keeping) = &status.keeping {
        let bar = progress_bar(keeping.done_bytes, keeping.total_bytes, 0, None);
        row(out, style, "keeping", &format!("{bar}  {}", keeping.file));
    }
    if let Some(growing) = &status.growing {
        let percent = size::percent(growing.zeroed_bytes, growing.new_bytes);
        let to = size::bytes(growing.to_bytes);
        row(
            out,
            style,
            "growing",
            &format!("to {to}: {percent} % of the new area prepared here"),
        );
    }
    if let Some(paused_ms) = status.resync_paused_ms {
        let since = size::ago(Duration::from_millis(paused_ms));
        row(
            out,
            style,
            "resync",
            &format!("paused by an operator {since}"),
        );
    }
    if let Some(verify) = &status.verify {
        let mut name = "verify";
        for line in verified::lines(verify) {
            row(out, style, name, &line);
            name = "";
        }
    }
}

fn row(out: &mut String, style: Style, name: &str, value: &str) {
    let name = style.paint(Tone::Quiet, &format!("{name:<9}"));
    let _ = writeln!(out, "  {name}  {value}");
}

fn role(status: &Status) -> String {
    let what = match (status.role, status.frozen) {
        (Role::Active, Some(_)) => "active, frozen",
        (Role::Active, None) => "active",
        (Role::Activating, _) => "becoming active",
        (Role::Deactivating, _) => "becoming standby",
        (Role::Fenced, _) => "standby: every I/O here fails at once",
    };
    let node = &status.node;
    match status.inflight {
        0 => format!("{what}  ({node})"),
        inflight => format!("{what}  ({node}), {inflight} requests in flight"),
    }
}

fn copy(state: CopyState) -> &'static str {
    match state {
        CopyState::InSync => "in sync",
        CopyState::Copying => "being filled",
        CopyState::Outdated => "out of date",
        CopyState::Blank => "blank",
        CopyState::Failed => "FAILED",
        CopyState::Discarded => "history discarded",
        CopyState::Unknown => "not known",
        CopyState::Isolated => "isolated",
    }
}

/// What the peer's copy lacks is what is marked here, as far as is known.
fn peer_copy(status: &Status) -> String {
    let words = format!("{}  ({})", copy(status.peer_copy), status.peer);
    match (status.peer_copy, status.out_of_sync_bytes) {
        (CopyState::Outdated | CopyState::Isolated, lacks) if lacks > 0 => {
            format!("{words}, lacks {}", size::bytes(lacks))
        }
        _ => words,
    }
}

fn link(status: &Status) -> String {
    let state = match status.link.state {
        LinkState::Down => "down",
        LinkState::Handshake => "connecting",
        LinkState::Up => "up",
        LinkState::Refused => "refused",
    };
    let peer = &status.peer;
    match status.link.last_heard_ms {
        Some(ms) => format!(
            "{state}, {peer} last heard {}",
            size::ago(Duration::from_millis(ms))
        ),
        None => format!("{state}, {peer} not heard since the daemon started"),
    }
}

/// Which of two paths carries the link, and what the other one would do.
fn paths(paths: &[PathStatus]) -> String {
    let count = paths.len();
    let Some(used) = paths.iter().find(|path| path.state == PathState::InUse) else {
        let answers = paths
            .iter()
            .filter(|path| path.state == PathState::Ready)
            .count();
        return format!("no path of {count} in use, the other node answers on {answers}");
    };
    let spare = paths.iter().find(|path| path.state != PathState::InUse);
    let other = match spare.map(|path| path.state) {
        Some(PathState::Ready) => "the other path is ready",
        Some(PathState::Down) => "the other path does NOT answer",
        Some(PathState::InUse) | None => "the other path is in use too",
    };
    format!(
        "path {} of {count}: {} <-> {}, {other}",
        used.number, used.local, used.remote
    )
}

fn view(status: &Status) -> String {
    let view = &status.view;
    let active = view.active.as_deref().unwrap_or("nobody");
    let insync = if view.insync.is_empty() {
        "nobody".to_string()
    } else {
        view.insync.join(" ")
    };
    let mut text = format!(
        "epoch {}: active {active}; copies that count: {insync}",
        view.epoch
    );
    if view.sealed_epoch >= view.epoch && view.sealed_epoch > 0 {
        let _ = write!(text, "; sealed up to {}", view.sealed_epoch);
    }
    text
}

/// `[######....]  61 %  6.1 of 10.0 GiB  214.0 MiB/s  ETA 40 s`.
fn bar(progress: &CopyProgress) -> String {
    progress_bar(
        progress.copied_bytes,
        progress.total_bytes,
        progress.rate_bytes_per_s,
        progress.eta_s,
    )
}

/// How the resync gives way to the application.
fn gives_way(beside: &CopyBeside) -> String {
    let share = beside.share_percent;
    match beside.slower_percent {
        None => format!("beside the application, {share} % of the time"),
        Some(slower) => format!(
            "beside the application, {share} % of the time: requests are {slower} % slower then"
        ),
    }
}

pub(crate) fn progress_bar(done: u64, total: u64, rate: u64, eta_s: Option<u64>) -> String {
    let percent = size::percent(done, total);
    let cells = (0..BAR_CELLS).map(|cell| {
        if (cell + 1) * 100 <= percent * BAR_CELLS {
            '#'
        } else {
            '.'
        }
    });
    let mut text = format!(
        "[{}]  {percent} %  {} of {}",
        cells.collect::<String>(),
        size::bytes(done),
        size::bytes(total)
    );
    if rate > 0 {
        let _ = write!(text, "  {}/s", size::bytes(rate));
    }
    if let Some(eta) = eta_s {
        let _ = write!(text, "  ETA {}", size::seconds(eta));
    }
    text
}

fn cause(cause: CopyCause) -> &'static str {
    match cause {
        CopyCause::FirstCopy => "the copy never held this volume",
        CopyCause::Replaced => {
            "the copy is new there (another disk, another server, or its metadata were lost)"
        }
        CopyCause::Outdated => "the copy missed acknowledged writes",
        CopyCause::UnknownState => "what the copy lacks is not known, so all of it is copied",
        CopyCause::MemberRebooted => "its machine rebooted and may lack what it had not flushed",
        CopyCause::ActiveCrashed => "the active node stopped in the middle of its service",
        CopyCause::ActiveRebooted => {
            "the active node rebooted and may lack what it had not flushed"
        }
        CopyCause::WideningInterrupted => "the connection broke when the copy was nearly done",
        CopyCause::DiskFailed => "its disk had failed",
        CopyCause::Resumed => "an interrupted copy goes on where it was",
        CopyCause::Discarded => "its history was discarded after a split brain",
        CopyCause::Invalidated => "an operator marked it, so all of it is copied",
    }
}

#[cfg(test)]
pub(crate) use tests::healthy;

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::admin::{
        Counters, Frozen, GrowProgress, LinkStatus, OperationStatus, Problem, SCHEMA, ViewStatus,
    };

    pub(crate) fn healthy() -> Status {
        Status {
            schema: SCHEMA.to_string(),
            volume: "data".to_string(),
            volume_id: "00".repeat(16),
            node: "node1".to_string(),
            peer: "node2".to_string(),
            role: Role::Active,
            frozen: None,
            copy: CopyState::InSync,
            peer_copy: CopyState::InSync,
            link: LinkStatus {
                state: LinkState::Up,
                last_heard_ms: Some(240),
                answered_ms: None,
                refusal: None,
                paths: Vec::new(),
            },
            view: ViewStatus {
                epoch: 7,
                id: "11".repeat(16),
                active: Some("node1".to_string()),
                insync: vec!["node1".to_string(), "node2".to_string()],
                sealed_epoch: 3,
                history: Vec::new(),
                next_epoch: 8,
                changing: false,
                booted: false,
            },
            size_bytes: 10 << 30,
            device_size_bytes: Some(10 << 30),
            growing: None,
            progress: None,
            out_of_sync_bytes: 0,
            resync_paused_ms: None,
            verify: None,
            isolated: None,
            inflight: 0,
            counters: Counters::default(),
            device: Some("/dev/lockstep/data".to_string()),
            problems: Vec::new(),
            split: None,
            operations: Vec::new(),
            keeping: None,
        }
    }

    fn filling() -> Status {
        let progress = CopyProgress {
            cause: CopyCause::Outdated,
            source: true,
            copied_bytes: 6_549_825_126,
            total_bytes: 10 << 30,
            rate_bytes_per_s: 100 << 20,
            eta_s: Some(40),
            beside: None,
        };
        let view = ViewStatus {
            insync: vec!["node1".to_string()],
            ..healthy().view
        };
        Status {
            peer_copy: CopyState::Copying,
            progress: Some(progress),
            view,
            ..healthy()
        }
    }

    fn unheard(status: Status) -> Status {
        let link = LinkStatus {
            state: LinkState::Down,
            last_heard_ms: Some(12_000),
            answered_ms: None,
            refusal: None,
            paths: Vec::new(),
        };
        Status { link, ..status }
    }

    fn check(status: &Status, health: Health, starts_with: &str) {
        let text = volume(status, Style::Plain);
        assert!(text.starts_with(starts_with), "{text}");
        assert_eq!(Verdict::of(status).health, health, "{text}");
    }

    #[test]
    fn a_healthy_volume_is_one_sentence_and_six_rows() {
        let expected = "\
data  HEALTHY: served here, both copies are equal
  role       active  (node1)
  device     /dev/lockstep/data  10.0 GiB
  this copy  in sync  (node1)
  peer copy  in sync  (node2)
  link       up, node2 last heard 0.2 s ago
  view       epoch 7: active node1; copies that count: node1 node2
";
        assert_eq!(volume(&healthy(), Style::Plain), expected);
        assert_eq!(Verdict::of(&healthy()).exit_code, 0);
    }

    #[test]
    fn two_paths_show_which_one_is_used_and_whether_the_other_one_would_do() {
        let path = |number: u8, state| PathStatus {
            number,
            local: format!("10.77.{number}.1:7420"),
            remote: format!("10.77.{number}.2:7420"),
            state,
        };
        let screen = |first, second| {
            let mut status = healthy();
            status.link.paths = vec![path(1, first), path(2, second)];
            volume(&status, Style::Plain)
        };
        let text = screen(PathState::InUse, PathState::Ready);
        let row = "             path 1 of 2: 10.77.1.1:7420 <-> 10.77.1.2:7420, the other path is ready\n";
        assert!(text.contains(row), "{text}");
        let text = screen(PathState::Down, PathState::InUse);
        let row =
            "path 2 of 2: 10.77.2.1:7420 <-> 10.77.2.2:7420, the other path does NOT answer\n";
        assert!(text.contains(row), "{text}");
        let text = screen(PathState::Down, PathState::Ready);
        assert!(
            text.contains("no path of 2 in use, the other node answers on 1"),
            "{text}"
        );
    }

    #[test]
    fn an_isolated_copy_is_told_on_both_nodes_with_its_time() {
        let isolated = mirror_core::admin::IsolatedStatus {
            node: "node2".to_string(),
            since_unix_s: 1_795_261_445,
            device: None,
        };
        let mut active = healthy();
        active.peer_copy = CopyState::Isolated;
        active.out_of_sync_bytes = 4 << 20;
        active.isolated = Some(isolated.clone());
        check(
            &active,
            Health::Degraded,
            "data  DEGRADED: served here with one good copy; node2's copy is isolated since 2026-11-21 11:44:05 UTC\n",
        );
        let text = volume(&active, Style::Plain);
        assert!(text.contains("isolated  (node2), lacks 4.0 MiB"), "{text}");
        let mut standby = healthy();
        (standby.node, standby.peer) = ("node2".to_string(), "node1".to_string());
        standby.role = Role::Fenced;
        standby.copy = CopyState::Isolated;
        standby.isolated = Some(mirror_core::admin::IsolatedStatus {
            device: Some("/dev/lockstep/data.isolated".to_string()),
            ..isolated
        });
        check(
            &standby,
            Health::Degraded,
            "data  DEGRADED: served by node1; the copy here is isolated since 2026-11-21 11:44:05 UTC\n",
        );
        let text = volume(&standby, Style::Plain);
        assert!(text.contains("/dev/lockstep/data.isolated"), "{text}");
    }

    #[test]
    fn a_copy_shows_how_far_it_is_and_when_it_ends() {
        let status = filling();
        let text = volume(&status, Style::Plain);
        check(
            &status,
            Health::Degraded,
            "data  DEGRADED: served here with one good copy; node2's is being filled, 60 %, ETA 40 s\n",
        );
        let row = "  copying    [##################............]  60 %  6.0 GiB of 10.0 GiB  100.0 MiB/s  ETA 40 s\n";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("because the copy missed acknowledged writes"),
            "{text}"
        );
    }

    #[test]
    fn a_copy_beside_an_application_shows_how_it_gives_way() {
        let mut status = filling();
        let progress = status.progress.as_mut().expect("a resync");
        let mut beside = CopyBeside {
            share_percent: 33,
            runs_max: 1,
            slower_percent: None,
        };
        progress.beside = Some(beside);
        let text = volume(&status, Style::Plain);
        let row = "             beside the application, 33 % of the time\n";
        assert!(text.contains(row), "{text}");
        beside.slower_percent = Some(24);
        status.progress.as_mut().expect("a resync").beside = Some(beside);
        let text = volume(&status, Style::Plain);
        let row = "33 % of the time: requests are 24 % slower then\n";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_copy_that_is_interrupted_does_not_claim_to_run() {
        let start = "data  DEGRADED: served here with one good copy; node2 is not connected (last heard 12 s ago)\n";
        check(&unheard(filling()), Health::Degraded, start);
    }

    #[test]
    fn a_copy_that_is_out_of_date_says_how_much_it_lacks() {
        let outdated = |out_of_sync_bytes| {
            let status = unheard(Status {
                peer_copy: CopyState::Outdated,
                out_of_sync_bytes,
                ..healthy()
            });
            volume(&status, Style::Plain)
        };
        let text = outdated(12 << 20);
        let row = "  peer copy  out of date  (node2), lacks 12.0 MiB\n";
        assert!(text.contains(row), "{text}");
        let text = outdated(0);
        assert!(
            text.contains("  peer copy  out of date  (node2)\n"),
            "{text}"
        );
    }

    #[test]
    fn a_copy_that_is_being_filled_says_what_is_left_on_the_line_of_the_progress_alone() {
        let status = Status {
            out_of_sync_bytes: 4 << 30,
            isolated: None,
            ..filling()
        };
        let text = volume(&status, Style::Plain);
        assert!(
            text.contains("  peer copy  being filled  (node2)\n"),
            "{text}"
        );
        assert!(!text.contains("lacks 4.0"), "{text}");
    }

    #[test]
    fn frozen_says_what_to_do_and_names_the_risk() {
        let status = unheard(Status {
            frozen: Some(Frozen::PeerLost),
            ..healthy()
        });
        check(
            &status,
            Health::Down,
            "data  FROZEN: writes wait for node2 (last heard 12 s ago)\n",
        );
        let text = volume(&status, Style::Plain);
        assert!(
            text.contains(
                "only if node2 is really off, go on alone: lockstep volume takeover data"
            ),
            "{text}"
        );
        check(
            &Status {
                frozen: Some(Frozen::ViewChange),
                ..healthy()
            },
            Health::Down,
            "data  CHANGING: ",
        );
    }

    #[test]
    fn alone_is_degraded() {
        let view = ViewStatus {
            insync: vec!["node1".to_string()],
            ..healthy().view
        };
        let status = unheard(Status {
            peer_copy: CopyState::Outdated,
            view,
            ..healthy()
        });
        check(
            &status,
            Health::Degraded,
            "data  DEGRADED: served here with one good copy; node2 is not connected",
        );
    }

    #[test]
    fn a_standby_tells_who_serves() {
        let standby = Status {
            role: Role::Fenced,
            node: "node2".to_string(),
            peer: "node1".to_string(),
            ..healthy()
        };
        check(
            &standby,
            Health::Healthy,
            "data  HEALTHY: served by node1, both copies are equal\n",
        );
        let idle = Status {
            view: ViewStatus {
                active: None,
                ..standby.view.clone()
            },
            ..standby.clone()
        };
        check(
            &idle,
            Health::Down,
            "data  NOT SERVED: ready, but activated on neither node; both copies are equal\n  > lockstep volume activate data\n",
        );
        check(
            &unheard(standby.clone()),
            Health::Unknown,
            "data  UNKNOWN: not served here; node1 does not answer (last heard 12 s ago)",
        );
        let target = Status {
            copy: CopyState::Copying,
            ..standby.clone()
        };
        check(
            &target,
            Health::Degraded,
            "data  DEGRADED: served by node1; the copy here waits to be filled",
        );
        let blank = unheard(Status {
            copy: CopyState::Blank,
            ..standby
        });
        check(&blank, Health::Unknown, "data  WAITING: ");
    }

    #[test]
    fn a_sole_copy_that_nobody_serves_says_how_to_serve_it() {
        let view = ViewStatus {
            active: None,
            insync: vec!["node1".to_string()],
            ..healthy().view
        };
        let status = unheard(Status {
            role: Role::Fenced,
            peer_copy: CopyState::Outdated,
            view,
            ..healthy()
        });
        check(
            &status,
            Health::Down,
            "data  NOT SERVED: not served here; only the copy here is good",
        );
    }

    #[test]
    fn a_grow_shows_how_far_its_new_area_is() {
        let growing = GrowProgress {
            to_bytes: 20 << 30,
            zeroed_bytes: 5 << 30,
            new_bytes: 10 << 30,
        };
        let status = Status {
            growing: Some(growing),
            ..healthy()
        };
        let text = volume(&status, Style::Plain);
        assert!(
            text.contains("growing    to 20.0 GiB: 50 % of the new area prepared here"),
            "{text}"
        );
    }

    #[test]
    fn a_forced_recovery_is_in_the_first_line_and_a_discarded_copy_says_what_it_waits_for() {
        let entry = OperationStatus {
            operation: "force".to_string(),
            epoch: 1007,
            view_id: "11".repeat(16),
            at_s: Some(1_767_225_599),
            standing: true,
        };
        let status = Status {
            operations: vec![entry],
            ..healthy()
        };
        let start = "data  HEALTHY: served here, both copies are equal; RECOVERED BY FORCE from an incomplete copy\n";
        check(&status, Health::Healthy, start);
        let text = volume(&status, Style::Plain);
        let row = "  operator   force at 2025-12-31 23:59:59 UTC, epoch 1007, not mended\n";
        assert!(text.contains(row), "{text}");
        let status = unheard(Status {
            role: Role::Fenced,
            copy: CopyState::Discarded,
            ..healthy()
        });
        check(
            &status,
            Health::Unknown,
            "data  DISCARDED: not served here; the history",
        );
    }

    #[test]
    fn refusals_failed_disks_and_problems_are_shown_with_their_advice() {
        let refusal = Problem {
            code: "LS2011".to_string(),
            message: "split brain".to_string(),
            advice: "run `lockstep volume create NAME`".to_string(),
        };
        let link = LinkStatus {
            state: LinkState::Refused,
            last_heard_ms: None,
            answered_ms: None,
            refusal: Some(refusal.clone()),
            paths: Vec::new(),
        };
        let status = Status {
            link,
            problems: vec![refusal],
            peer_copy: CopyState::Outdated,
            ..healthy()
        };
        check(
            &status,
            Health::Degraded,
            "data  DEGRADED: served here with one good copy; node2 is kept out: split brain\n",
        );
        let text = volume(&status, Style::Plain);
        assert!(
            text.contains("  ! LS2011 split brain\n    > run `lockstep volume create data`\n"),
            "{text}"
        );
        check(
            &Status {
                copy: CopyState::Failed,
                ..healthy()
            },
            Health::Down,
            "data  DISK FAILED: ",
        );
        let mut diskless = Status {
            copy: CopyState::Failed,
            ..healthy()
        };
        diskless.view.insync = vec!["node2".to_string()];
        check(&diskless, Health::Degraded, "data  DISKLESS: ");
        check(
            &Status {
                peer_copy: CopyState::Failed,
                ..healthy()
            },
            Health::Degraded,
            "data  DEGRADED: served here with one good copy; node2's disk failed\n",
        );
    }

    #[test]
    fn several_volumes_are_as_bad_as_the_worst() {
        use Health::{Degraded, Down, Healthy, Unknown};
        assert_eq!(Healthy.worse(Degraded), Degraded);
        assert_eq!(Down.worse(Unknown), Down);
        assert_eq!(Unknown.worse(Degraded), Unknown);
    }

    #[test]
    fn colour_is_only_added() {
        let plain = volume(&healthy(), Style::Plain);
        assert!(!plain.contains('\x1b'));
        let mut coloured = volume(&healthy(), Style::Colour);
        for code in ["\x1b[1;32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }
}
