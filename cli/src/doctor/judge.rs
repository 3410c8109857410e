//! From what was found to checks. No input, no output: the same facts, the same checks.

use super::facts::Facts;
use super::{Area, Check, Fault, Outcome};

mod disks;
mod files;
mod lockstep;
mod network;
mod system;

/// All checks, by their areas.
pub(crate) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = system::checks(facts);
    checks.extend(lockstep::checks(facts));
    checks.extend(files::checks(facts));
    checks.extend(network::checks(facts));
    checks.extend(disks::checks(facts));
    checks
}

fn good(words: impl Into<String>) -> Outcome {
    Outcome::Good(words.into())
}

fn error(code: &str, what: impl Into<String>, why: &str, advice: impl Into<String>) -> Outcome {
    Outcome::Error(Fault::new(code, what, why, advice))
}

fn warning(code: &str, what: impl Into<String>, why: &str, advice: impl Into<String>) -> Outcome {
    Outcome::Warning(Fault::new(code, what, why, advice))
}

fn unseen(why: &str) -> Outcome {
    Outcome::Unseen(why.to_string())
}

/// Where nothing is configured yet.
fn nothing(area: Area, name: &'static str, why: &str) -> Check {
    Check::new(area, name, Outcome::Nothing(why.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
