//! The parts of the status that are about split brains, forced recoveries and operators' words.

use alloc::format;
use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

use crate::disk::{Operation, OperationEntry};
use crate::types::Epoch;

/// Two histories, as an operator has to judge them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// This node's.
    pub this: SideStatus,
    /// The other node's, as it told when it was last met; absent until it did.
    pub other: Option<SideStatus>,
    /// Milliseconds since they last met.
    pub met_ms: u64,
}

/// One side of a split brain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideStatus {
    /// The node's name.
    pub node: String,
    /// Epoch of its view.
    pub epoch: u64,
    /// Id of its view, 32 hex digits.
    pub view_id: String,
    /// Epoch of the last view in which both copies counted for it; absent: not known.
    pub common_epoch: Option<u64>,
    /// Id of that view.
    pub common_view_id: Option<String>,
    /// When an application last wrote there, as far as is known: seconds since 1970 by that node's clock.
    pub last_write_s: Option<u64>,
    /// It may have written later: its last service had no clean end.
    pub may_have_written_later: bool,
    /// It serves the volume right now: the figures grow.
    pub serving: bool,
    /// Bytes that may be on its copy alone. An upper bound: whole blocks, and whole extents of its
    /// activity log after a crash.
    pub unique_bytes: u64,
    /// Its copy was recovered by force and is not complete.
    pub forced: bool,
}

/// Something that an operator said and that cost data, or could have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// `takeover`, `go-alone`, `discard`, `force`, `invalidate`, `repair`, `granted-takeover`, `granted-go-alone`.
    pub operation: String,
    /// Epoch of the view that it committed or gave up.
    pub epoch: u64,
    /// Id of that view.
    pub view_id: String,
    /// Seconds since 1970 by this node's clock; absent: not known.
    pub at_s: Option<u64>,
    /// Its consequence is not mended yet.
    pub standing: bool,
}

impl OperationStatus {
    /// As an operator gets it.
    pub fn of(entry: &OperationEntry) -> Self {
        Self {
            operation: operation_name(entry.operation),
            epoch: entry.view.epoch.0,
            view_id: entry.view.id.to_string(),
            at_s: known(entry.at_s),
            standing: entry.standing,
        }
    }
}

fn operation_name(operation: Operation) -> String {
    match operation {
        Operation::Takeover => "takeover".to_string(),
        Operation::GoAlone => "go-alone".to_string(),
        Operation::Discard => "discard".to_string(),
        Operation::Force => "force".to_string(),
        Operation::Invalidate => "invalidate".to_string(),
        Operation::Repair => "repair".to_string(),
        Operation::GrantedTakeover => "granted-takeover".to_string(),
        Operation::GrantedAlone => "granted-go-alone".to_string(),
        Operation::Other(number) => format!("other-{number}"),
    }
}

/// A time that is known.
pub(crate) fn known(seconds: u64) -> Option<u64> {
    (seconds != 0).then_some(seconds)
}

/// An epoch that is known.
pub(crate) fn known_epoch(epoch: Epoch) -> Option<u64> {
    (epoch != Epoch(0)).then_some(epoch.0)
}

/// `2026-01-31 23:59:59 UTC`; `a time that is not known` of 0.
pub fn utc(seconds: u64) -> String {
    if seconds == 0 {
        return "a time that is not known".to_string();
    }
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (the civil calendar).
    let shifted = days.saturating_add(719_468);
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (1, "1970-01-01 00:00:01 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
        assert_eq!(utc(0), "a time that is not known");
        let _ = utc(u64::MAX);
    }
}
