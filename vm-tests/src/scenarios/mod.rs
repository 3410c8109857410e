//! Every scenario, in the order they are run.

mod both_down;
mod cluster_verbs;
mod disks;
mod failover;
mod faults;
mod fencing;
mod figures;
mod grow;
mod harness;
mod images;
mod io;
mod isolate;
mod link;
mod load;
mod lost_ways;
mod measure;
mod moves;
mod partition;
mod paths;
mod postgres;
mod power;
mod process;
mod random;
mod rejoin;
mod setup;
mod split;
mod start_fails;
mod stop_hangs;
mod stuck;
mod traps;
mod upkeep;
mod watchdog;
mod whole;

use crate::scenario::Scenario;

/// All scenarios.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        harness::SCENARIOS,
        io::SCENARIOS,
        power::SCENARIOS,
        rejoin::SCENARIOS,
        both_down::SCENARIOS,
        split::SCENARIOS,
        isolate::SCENARIOS,
        link::SCENARIOS,
        paths::SCENARIOS,
        process::SCENARIOS,
        fencing::SCENARIOS,
        faults::SCENARIOS,
        traps::SCENARIOS,
        disks::SCENARIOS,
        failover::SCENARIOS,
        setup::SCENARIOS,
        moves::SCENARIOS,
        start_fails::SCENARIOS,
        postgres::SCENARIOS,
        partition::SCENARIOS,
        whole::SCENARIOS,
    ]
    .concat()
}

/// Scenarios that take long; run by `cargo verify --all`.
#[must_use]
pub fn long() -> Vec<Scenario> {
    [
        grow::LONG,
        power::LONG,
        random::LONG,
        images::LONG,
        figures::LONG,
        stuck::LONG,
        disks::LONG,
        upkeep::LONG,
        failover::LONG,
        postgres::LONG,
        partition::LONG,
        lost_ways::LONG,
        stop_hangs::LONG,
        load::LONG,
        cluster_verbs::LONG,
        watchdog::LONG,
    ]
    .concat()
}
