//! A write into a hot extent asks for no memory in either core: under memory pressure it would wait for this very volume.

// A test that cannot go on panics.
#![allow(clippy::unwrap_used)]

use lockstep_bench::engine::CorePair;
use lockstep_bench::heap::{Counting, allocations};

#[global_allocator]
static HEAP: Counting = Counting;

#[test]
fn a_hot_write_asks_for_no_memory() {
    let mut pair = CorePair::new();
    for depth in [1, 16, 64] {
        pair.writes(10_000, depth);
        let before = allocations();
        pair.writes(10_000, depth);
        let asked = allocations() - before;
        println!("depth {depth}: {asked} allocations for 10000 writes of both cores");
        assert_eq!(asked, 0, "depth {depth}: of 10000 writes");
    }
}
