//! Every scenario, in the order they are run.

mod faults;
mod fencing;
mod harness;
mod io;
mod link;
mod power;
mod process;
mod traps;

use crate::scenario::Scenario;

/// All scenarios.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        harness::SCENARIOS,
        io::SCENARIOS,
        power::SCENARIOS,
        link::SCENARIOS,
        process::SCENARIOS,
        fencing::SCENARIOS,
        faults::SCENARIOS,
        traps::SCENARIOS,
    ]
    .concat()
}

/// Scenarios that take long; run by `cargo verify --all`.
#[must_use]
pub fn long() -> Vec<Scenario> {
    power::LONG.to_vec()
}
