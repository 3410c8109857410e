//! Finds the few troubles that a failure needs.

use super::run::Run;

/// Leaves out troubles, many at first, then one by one, as long as a rule stays broken.
/// `None`: nothing is broken.
pub fn shrink(mut run: Run) -> Option<Run> {
    if !run.fails() {
        return None;
    }
    let mut size = run.schedule.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let mut start = 0;
        while start < run.schedule.len() {
            let end = (start + size).min(run.schedule.len());
            let mut candidate = run.clone();
            candidate.schedule = run.schedule.without(start..end);
            if candidate.fails() {
                run = candidate;
                smaller = true;
            } else {
                start = end;
            }
        }
        if size == 1 && !smaller {
            return Some(run);
        }
        size = size.div_ceil(2);
    }
}
