//! Every scenario, in the order they are run.

mod harness;

use crate::scenario::Scenario;

/// All scenarios.
#[must_use]
pub fn all() -> Vec<Scenario> {
    harness::SCENARIOS.to_vec()
}
