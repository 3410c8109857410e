//! Schedules that are told by what happens in them, on the right core. What they tell is in `sim/told`; `cargo
//! mutants-sim` runs the same ones on wrong cores, each of which must break the law.

use lockstep_tests::sim::mutants;
use lockstep_tests::sim::told::ALL;

#[test]
fn every_told_law_holds_and_its_moment_is_met() {
    for told in ALL {
        match told.tell(None) {
            Ok(met) => assert!(met > 0, "{}: no seed met the moment", told.law),
            Err((seed, failure)) => panic!("{}, seed {seed}: {failure}", told.law),
        }
    }
}

#[test]
fn every_mutant_that_a_told_law_catches_exists() {
    let rows = mutants::all();
    if cfg!(feature = "mutants") {
        for name in ALL.iter().flat_map(|told| told.catches) {
            assert!(rows.iter().any(|row| row.name == *name), "{name}");
        }
    }
}
