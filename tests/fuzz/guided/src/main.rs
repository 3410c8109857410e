//! The targets under libFuzzer. The variable `LOCKSTEP_FUZZ_TARGET` says which one.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use lockstep_fuzz::{Target, find};

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("LOCKSTEP_FUZZ_TARGET").expect("LOCKSTEP_FUZZ_TARGET");
        find(&name).expect("the name of a target")
    });
    (target.check)(data);
});
