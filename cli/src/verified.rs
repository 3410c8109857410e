//! What a verify found, in words.

use std::time::Duration;

use mirror_core::admin::{VerifyFinding, VerifyState, VerifyStatus};

use crate::screen::progress_bar;
use crate::size;

/// Lines for the screen: how far it is or how it ended, then what it found.
pub(crate) fn lines(verify: &VerifyStatus) -> Vec<String> {
    let mut lines = vec![headline(verify)];
    if let Some(from) = &verify.repair_from {
        lines.push(format!("what differs is written from the copy on {from}"));
    }
    let listed: u64 = verify.ranges.iter().map(|range| range.length_bytes).sum();
    for range in &verify.ranges {
        let end = range.start_bytes + range.length_bytes;
        let what = match range.finding {
            VerifyFinding::Differs => "DIFFERS",
            VerifyFinding::Repaired => "repaired",
            VerifyFinding::UnreadableHere => "CANNOT BE READ here",
            VerifyFinding::UnreadableThere => "CANNOT BE READ on the other node",
        };
        lines.push(format!(
            "bytes {} to {}: {what}",
            range.start_bytes,
            end - 1
        ));
    }
    let all = verify.differing_bytes + verify.unreadable_bytes;
    if all > listed && listed > 0 {
        lines.push(format!("and {} more", size::bytes(all - listed)));
    }
    lines
}

/// One line.
pub(crate) fn headline(verify: &VerifyStatus) -> String {
    let bar = || {
        progress_bar(
            verify.checked_bytes,
            verify.total_bytes,
            verify.rate_bytes_per_s,
            verify.eta_s,
        )
    };
    let found = found(verify);
    let ago = size::ago(Duration::from_millis(verify.ended_ms.unwrap_or(0)));
    let checked = size::bytes(verify.checked_bytes);
    match verify.state {
        VerifyState::Running => format!("{}  {found}", bar()),
        VerifyState::Waiting => format!("{}  waits for the other copy; {found}", bar()),
        VerifyState::Done => format!("done {ago}: {found}"),
        VerifyState::Stopped => format!("stopped {ago} after {checked}: {found}"),
        VerifyState::Interrupted => {
            format!("ended {ago} after {checked}, it cannot go on here: {found}")
        }
    }
}

fn found(verify: &VerifyStatus) -> String {
    if verify.differing_bytes == 0 && verify.unreadable_bytes == 0 {
        return "no difference".to_string();
    }
    let mut text = format!("{} differed", size::bytes(verify.differing_bytes));
    if verify.repair_from.is_some() {
        text.push_str(&format!(
            ", {} repaired",
            size::bytes(verify.repaired_bytes)
        ));
    }
    if verify.unreadable_bytes > 0 {
        text.push_str(&format!(
            ", {} could not be read",
            size::bytes(verify.unreadable_bytes)
        ));
    }
    text
}

/// Whether the whole volume was compared, and both copies are equal now.
pub(crate) fn is_clean(verify: &VerifyStatus) -> bool {
    verify.state == VerifyState::Done
        && verify.differing_bytes == verify.repaired_bytes
        && verify.unreadable_bytes == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::admin::VerifyRange;

    fn verify(state: VerifyState) -> VerifyStatus {
        VerifyStatus {
            state,
            repair_from: None,
            checked_bytes: 5 << 20,
            total_bytes: 10 << 20,
            rate_bytes_per_s: 1 << 20,
            eta_s: Some(5),
            differing_bytes: 0,
            repaired_bytes: 0,
            unreadable_bytes: 0,
            ranges: Vec::new(),
            ended_ms: None,
        }
    }

    #[test]
    fn a_running_verify_shows_how_far_it_is() {
        let text = headline(&verify(VerifyState::Running));
        assert!(
            text.contains("50 %  5.0 MiB of 10.0 MiB  1.0 MiB/s  ETA 5 s"),
            "{text}"
        );
        assert!(!is_clean(&verify(VerifyState::Running)));
    }

    #[test]
    fn a_difference_is_listed_and_not_clean_until_it_is_repaired() {
        let mut found = verify(VerifyState::Done);
        assert!(is_clean(&found));
        (found.differing_bytes, found.ended_ms) = (8192, Some(2000));
        found.ranges.push(VerifyRange {
            start_bytes: 4096,
            length_bytes: 4096,
            finding: VerifyFinding::Differs,
        });
        assert!(!is_clean(&found));
        let text = lines(&found).join("\n");
        assert!(
            text.contains("bytes 4096 to 8191: DIFFERS\nand 4.0 KiB more"),
            "{text}"
        );
        (found.repaired_bytes, found.repair_from) = (8192, Some("node1".to_string()));
        assert!(is_clean(&found));
        assert!(headline(&found).contains("8.0 KiB repaired"));
    }
}
