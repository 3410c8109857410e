//! Two daemons whose backing files are made larger while they run.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::File;
use std::os::unix::fs::FileExt;

use harness::{BACKING_BYTES, Node, Pair, SLOTS};
use mirror_core::disk::Superblock;
use serde_json::Value;

const LARGER_BYTES: u64 = BACKING_BYTES + (16 << 20);

/// A larger file, and in its new part what nobody may see.
fn enlarge(node: &Node) {
    let file = File::options().write(true).open(&node.backing).unwrap();
    let noise = vec![0xa5; usize::try_from(LARGER_BYTES - BACKING_BYTES).unwrap()];
    file.write_all_at(&noise, BACKING_BYTES).unwrap();
    file.sync_all().unwrap();
}

fn grow(node: &Node) -> Value {
    node.ask("\"request\":\"command\",\"command\":\"grow\"")
}

fn size(node: &Node) -> u64 {
    node.status()["size_bytes"].as_u64().unwrap()
}

fn superblock(node: &Node) -> Superblock {
    let mut bytes = [0; 4096];
    let file = File::open(&node.backing).unwrap();
    file.read_exact_at(&mut bytes, SLOTS[0]).unwrap();
    Superblock::decode(&bytes, 0).unwrap()
}

fn put_superblock(node: &Node, superblock: &Superblock) {
    let file = File::options().write(true).open(&node.backing).unwrap();
    for (slot, place) in (0u8..).zip(SLOTS) {
        file.write_all_at(&superblock.encode(slot), place).unwrap();
    }
    file.sync_all().unwrap();
}

fn grown(test: &str) -> (Pair, u64) {
    let pair = Pair::in_sync(test);
    let old = size(&pair.a);
    for node in [&pair.a, &pair.b] {
        enlarge(node);
    }
    assert_eq!(grow(&pair.a)["done"], "grown");
    (pair, old)
}

#[test]
fn a_volume_grows_with_its_files_and_reads_zeroes_behind_its_old_end() {
    let (mut pair, old) = grown("grow");
    let new = size(&pair.a);
    assert!(new > old && new.is_multiple_of(4 << 20), "{old} {new}");
    assert_eq!(size(&pair.b), new);
    pair.a.stop();
    pair.b.stop();
    let (a, b) = (pair.a.data(), pair.b.data());
    assert_eq!(a, b);
    let tail = &a[usize::try_from(old).unwrap()..];
    assert!(tail.iter().all(|byte| *byte == 0) && !tail.is_empty());
}

#[test]
fn a_grow_needs_both_files_to_be_larger() {
    let pair = Pair::in_sync("grow-one");
    let old = size(&pair.a);
    enlarge(&pair.a);
    let answer = grow(&pair.a);
    assert_eq!(answer["problem"]["code"], "LS1053", "{answer}");
    assert_eq!((size(&pair.a), size(&pair.b)), (old, old));
}

#[test]
fn a_node_without_the_new_size_takes_it_over_if_it_was_prepared_there() {
    let (mut pair, old) = grown("grow-torn");
    let new = size(&pair.a);
    pair.b.stop();
    pair.a.stop();
    let whole = superblock(&pair.a);
    let mut torn = Superblock {
        size_sectors: old / 512,
        prepared_sectors: new / 512,
        ..whole
    };
    put_superblock(&pair.a, &torn);
    pair.a.start();
    pair.b.start();
    pair.wait_in_sync();
    assert_eq!((size(&pair.a), size(&pair.b)), (new, new));
    pair.b.stop();
    pair.a.stop();
    // Without the note it is no interrupted grow.
    torn = Superblock {
        size_sectors: old / 512,
        prepared_sectors: 0,
        ..superblock(&pair.a)
    };
    put_superblock(&pair.a, &torn);
    pair.a.start();
    pair.b.start();
    pair.a.wait_log("sizes differ");
}

#[test]
fn a_daemon_does_not_start_on_less_than_was_prepared() {
    let (mut pair, _) = grown("grow-shrunk");
    pair.b.stop();
    pair.a.stop();
    let file = File::options().write(true).open(&pair.a.backing).unwrap();
    file.set_len(BACKING_BYTES).unwrap();
    pair.a.refuses("run", &[], "LS3013");
}
