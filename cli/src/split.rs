//! Both sides of a split brain, and what operators said, on the screen.

use std::fmt::Write as _;
use std::time::Duration;

use mirror_core::admin::{OperationStatus, SideStatus, SplitStatus, utc};

use crate::size;
use crate::style::{Style, Tone};

/// The two histories, one block of lines each.
pub(crate) fn both_sides(split: &SplitStatus, style: Style) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "  {}",
        style.paint(
            Tone::Bad,
            "split brain: both sides have a history of their own"
        )
    );
    side(&mut out, &split.this, "this node");
    match &split.other {
        Some(other) => side(&mut out, other, "the other node"),
        None => {
            out.push_str("    the other node has not told what it has; look again in a moment\n")
        }
    }
    let _ = writeln!(
        out,
        "    as of their last meeting, {}",
        size::ago(Duration::from_millis(split.met_ms))
    );
    out
}

fn side(out: &mut String, side: &SideStatus, which: &str) {
    let serving = if side.serving { ", serves it now" } else { "" };
    let _ = writeln!(out, "    {} ({which}{serving})", side.node);
    let common = match side.common_epoch {
        Some(epoch) => format!("left the common history at epoch {epoch}"),
        None => "it is not known where it left the common history".to_string(),
    };
    let _ = writeln!(out, "      view        epoch {}; {common}", side.epoch);
    let _ = writeln!(out, "      last write  {}", last_write(side));
    let _ = writeln!(
        out,
        "      only here   {} at most (whole blocks, and what may have been in flight)",
        size::bytes(side.unique_bytes)
    );
    if side.forced {
        out.push_str("      RECOVERED BY FORCE from an incomplete copy\n");
    }
}

fn last_write(side: &SideStatus) -> String {
    match (side.last_write_s, side.may_have_written_later) {
        (Some(at), false) => format!("{} by its clock", utc(at)),
        (Some(at), true) => format!(
            "{} by its clock, and perhaps later: its service had no clean end",
            utc(at)
        ),
        (None, _) => "not known, or never on this node".to_string(),
    }
}

/// What an operator can do about it.
pub(crate) fn choice(split: &SplitStatus, volume: &str) -> String {
    let mut out = String::from(
        "\nOne side has to go. Copy away what you need from it, then run one of these:\n",
    );
    let nodes = [Some(&split.this), split.other.as_ref()];
    for side in nodes.into_iter().flatten() {
        let node = &side.node;
        let _ = writeln!(
            out,
            "  on {node}: lockstep volume resolve {volume} --discard {node} --confirm {volume}"
        );
    }
    out.push_str(
        "What was written on the discarded side alone is gone from the volume then. It is kept in a file on that\n\
         node: in /var/lib/lockstep/discarded, or with --keep FILE elsewhere; not with --no-keep.\n",
    );
    out
}

/// `force at 2026-01-31 23:59:59 UTC, epoch 1007`.
pub(crate) fn operation(entry: &OperationStatus) -> String {
    let time = utc(entry.at_s.unwrap_or(0));
    let standing = if entry.standing { ", not mended" } else { "" };
    format!(
        "{} at {time}, epoch {}{standing}",
        entry.operation, entry.epoch
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(node: &str) -> SideStatus {
        SideStatus {
            node: node.to_string(),
            epoch: 7,
            view_id: "11".repeat(16),
            common_epoch: Some(5),
            common_view_id: Some("22".repeat(16)),
            last_write_s: Some(1_767_225_599),
            may_have_written_later: false,
            serving: false,
            unique_bytes: 12 << 20,
            forced: false,
        }
    }

    #[test]
    fn both_sides_are_shown_with_views_time_and_bytes() {
        let other = SideStatus {
            epoch: 9,
            serving: true,
            last_write_s: None,
            ..one("node2")
        };
        let split = SplitStatus {
            this: one("node1"),
            other: Some(other),
            met_ms: 1500,
        };
        let text = both_sides(&split, Style::Plain);
        let expected = "  split brain: both sides have a history of their own
    node1 (this node)
      view        epoch 7; left the common history at epoch 5
      last write  2025-12-31 23:59:59 UTC by its clock
      only here   12.0 MiB at most (whole blocks, and what may have been in flight)
    node2 (the other node, serves it now)
      view        epoch 9; left the common history at epoch 5
      last write  not known, or never on this node
      only here   12.0 MiB at most (whole blocks, and what may have been in flight)
    as of their last meeting, 1.5 s ago
";
        assert_eq!(text, expected);
        let choice = choice(&split, "data");
        assert!(
            choice.contains(
                "on node2: lockstep volume resolve data --discard node2 --confirm data\n"
            ),
            "{choice}"
        );
    }

    #[test]
    fn what_is_not_known_is_not_made_up() {
        let split = SplitStatus {
            this: SideStatus {
                common_epoch: None,
                may_have_written_later: true,
                forced: true,
                ..one("node1")
            },
            other: None,
            met_ms: 0,
        };
        let text = both_sides(&split, Style::Plain);
        for words in [
            "it is not known where it left the common history",
            "and perhaps later",
            "RECOVERED BY FORCE",
            "the other node has not told what it has",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
