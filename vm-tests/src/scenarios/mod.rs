//! Every scenario, in the order they are run.

mod faults;
mod fencing;
mod figures;
mod grow;
mod harness;
mod images;
mod io;
mod link;
mod measure;
mod paths;
mod power;
mod process;
mod random;
mod rejoin;
mod split;
mod traps;

use crate::scenario::Scenario;

/// All scenarios.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        harness::SCENARIOS,
        io::SCENARIOS,
        power::SCENARIOS,
        rejoin::SCENARIOS,
        split::SCENARIOS,
        link::SCENARIOS,
        paths::SCENARIOS,
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
    [
        grow::SCENARIOS,
        power::LONG,
        random::LONG,
        images::LONG,
        figures::LONG,
    ]
    .concat()
}
