//! What a copy stands on: configuration, devices and superblocks that are wrong in every way that
//! happens in practice. Nothing may start on them, and the operator must be told what to do.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use harness::{Node, Pair, SLOTS};
use mirror_core::disk::{ActivityFound, Metadata, Superblock};

#[test]
fn an_unknown_key_in_the_configuration_is_refused_with_its_line() {
    let pair = Pair::new("unknown-key");
    pair.a.edit_config("backing =", "baking =");
    for action in ["check", "format", "run"] {
        let said = pair.a.refuses(action, &[], "LS5001");
        assert!(said.contains("line 3") && said.contains("baking"), "{said}");
    }
}

#[test]
fn a_missing_backing_device_is_named() {
    let pair = Pair::formatted("missing");
    fs::remove_file(&pair.a.backing).unwrap();
    let said = pair.a.refuses("run", &[], "LS3036");
    assert!(said.contains("/a/disk"), "{said}");
    pair.a.refuses("format", &[], "LS5013");
}

#[test]
fn a_backing_device_that_shrank_is_refused_with_the_size_it_needs() {
    let pair = Pair::formatted("shrank");
    File::options()
        .write(true)
        .open(&pair.a.backing)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let said = pair.a.refuses("run", &[], "LS3013");
    assert!(said.contains("has 8388608 bytes"), "{said}");
    pair.a.refuses("check", &[], "LS3013");
}

#[test]
fn a_backing_device_too_small_for_metadata_and_data_is_not_formatted() {
    let pair = Pair::new("small");
    File::options()
        .write(true)
        .open(&pair.a.backing)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    pair.a.refuses("format", &[], "LS5014");
    let said = Pair::new("smaller")
        .a
        .refuses("format", &["--size", "33554432"], "LS5014");
    assert!(said.contains("are needed"), "{said}");
}

#[test]
fn a_size_that_no_device_has_is_refused() {
    let pair = Pair::new("odd");
    pair.a.refuses("format", &["--size", "5000001"], "LS5015");
    pair.a.refuses(
        "format",
        &["--size", "8388608", "--grow-to", "4194304"],
        "LS5015",
    );
}

#[test]
fn metadata_of_another_volume_are_refused() {
    let pair = Pair::formatted("other-volume");
    pair.a
        .edit_config("volume = \"data\"", "volume = \"other\"");
    let said = pair.a.refuses("run", &[], "LS3017");
    assert!(
        said.contains("\"data\"") && said.contains("\"other\""),
        "{said}"
    );
}

#[test]
fn metadata_of_the_other_node_are_refused() {
    let pair = Pair::formatted("other-node");
    fs::copy(&pair.b.backing, &pair.a.backing).unwrap();
    pair.a.refuses("run", &[], "LS3017");
}

#[test]
fn a_name_that_changed_the_nodes_order_is_told_as_that() {
    let pair = Pair::formatted("names");
    // node-a is gone, and node-z came in its place: node-b would be the first one now.
    pair.b.edit_config("node-a", "node-z");
    let said = pair.b.refuses("run", &[], "LS3017");
    assert!(
        said.contains("node-z is that one by the order of the names: node-b is node 0"),
        "{said}"
    );
    assert!(said.contains("sorts before node-b"), "{said}");
    let found = pair.b.refuses("check", &[], "LS3017");
    assert!(said.ends_with(&found), "{found}");
    pair.b.edit_config("node-z", "node-a2");
    pair.b.checks();
}

#[test]
fn a_bit_of_the_bitmap_stands_for_what_was_asked_for_or_is_refused() {
    let pair = Pair::new("bitmap-block");
    for wrong in ["0", "512", "2048", "5000", "1048576", "4294967296"] {
        let said = pair
            .a
            .refuses("format", &["--bitmap-block", wrong], "LS5015");
        assert!(said.contains("a power of two, 4096 to 524288"), "{said}");
    }
    pair.a.format(&["--bitmap-block", "65536"]);
    let layout = metadata(&pair.a).superblock.layout;
    assert_eq!(layout.bitmap_block_bytes, 65536);
    assert!(
        pair.a
            .checks()
            .contains("a bit of the bitmap for 65536 bytes")
    );
    pair.b.format(&["--join"]);
    assert_eq!(metadata(&pair.b).superblock.layout.bitmap_block_bytes, 4096);
}

#[test]
fn copies_whose_bitmaps_differ_become_equal() {
    for (one, other) in [("524288", "4096"), ("4096", "131072")] {
        let mut pair = Pair::new("bitmaps-differ");
        let size = ["--size", "8388608", "--bitmap-block"];
        pair.a.format(&[&size[..], &[one]].concat());
        pair.b.format(&[&size[..], &[other, "--join"]].concat());
        pair.a.fill_with_noise();
        pair.a.start();
        pair.b.start();
        pair.wait_in_sync();
    }
}

#[test]
fn metadata_of_another_cluster_key_are_refused() {
    let pair = Pair::formatted("other-key");
    pair.a.write_key(&[8; 64]);
    pair.a.refuses("run", &[], "LS3012");
}

#[test]
fn a_device_without_metadata_is_told_from_a_damaged_one() {
    let pair = Pair::new("blank");
    pair.a.refuses("run", &[], "LS3015");
}

#[test]
fn one_damaged_superblock_is_repaired_with_a_warning() {
    for slot in [0, 1] {
        let mut pair = Pair::formatted("one-damaged");
        pair.a.damage(slot);
        pair.a.start();
        pair.a.wait_log("LS3010");
        pair.a.kill();
        let mut bytes = [0; 4096];
        File::open(&pair.a.backing)
            .unwrap()
            .read_exact_at(&mut bytes, SLOTS[slot])
            .unwrap();
        assert!(mirror_core::disk::Superblock::decode(&bytes, u8::try_from(slot).unwrap()).is_ok());
    }
}

/// What lies on a node's internal metadata area.
fn metadata(node: &Node) -> Metadata {
    let mut bytes = fs::read(&node.backing).unwrap();
    let slot = bytes[..4096].try_into().unwrap();
    let superblock = Superblock::decode(slot, 0).unwrap();
    let layout = superblock.layout;
    let log = Metadata::activity_area(&layout);
    let bitmap = Metadata::bitmap_area(
        &layout,
        superblock.node,
        superblock.peer,
        layout.growth_sectors,
    );
    let part = |area: std::ops::Range<u64>| {
        usize::try_from(area.start).unwrap()..usize::try_from(area.end).unwrap()
    };
    let bitmap = bytes.drain(part(bitmap)).collect::<Vec<_>>();
    Metadata::read(superblock, &bytes[part(log)], &bitmap)
}

fn spoil(node: &Node, position: u64, count: usize) {
    let file = File::options().write(true).open(&node.backing).unwrap();
    file.write_all_at(&vec![0xff; count], position).unwrap();
}

#[test]
fn a_new_copy_has_an_empty_log_and_a_bitmap_without_marks_also_over_an_old_one() {
    let pair = Pair::formatted("empty-marks");
    spoil(&pair.a, 128 * 1024, 1 << 20);
    spoil(&pair.a, 2 << 20, 64 * 1024);
    pair.a
        .format(&["--force", "--confirm", "data", "--grow-to", "1073741824"]);
    for node in [&pair.a, &pair.b] {
        let found = metadata(node);
        assert_eq!(found.activity, ActivityFound::Known(Default::default()));
        assert!(!found.bitmap.is_empty());
        for page in &found.bitmap {
            assert!(page.as_ref().unwrap().words.iter().all(|word| *word == 0));
        }
    }
    assert_eq!(metadata(&pair.a).bitmap.len(), 9, "1 GiB, 126 MiB a page");
}

#[test]
fn a_damaged_page_of_the_bitmap_is_told_and_the_daemon_starts() {
    let mut pair = Pair::formatted("damaged-page");
    let area = {
        let superblock = metadata(&pair.a).superblock;
        let (node, peer) = (superblock.node, superblock.peer);
        Metadata::bitmap_area(&superblock.layout, node, peer, superblock.size_sectors)
    };
    spoil(&pair.a, area.start + 1000, 8);
    pair.a.start();
    pair.a.wait_log("LS3019");
    assert!(
        pair.a.log().contains("1 of 1 pages of the bitmap"),
        "{}",
        pair.a.log()
    );
}

#[test]
fn a_lost_activity_log_is_told_and_the_daemon_starts() {
    let mut pair = Pair::formatted("lost-log");
    spoil(&pair.a, 128 * 1024, 1 << 20);
    pair.a.start();
    pair.a.wait_log("LS3019");
    assert!(pair.a.log().contains("activity log"), "{}", pair.a.log());
}

#[test]
fn marks_that_are_whole_are_no_reason_to_warn() {
    let mut pair = Pair::formatted("whole-marks");
    pair.a.start();
    pair.a.wait_log("LS2021");
    assert!(!pair.a.log().contains("LS3019"), "{}", pair.a.log());
}

#[test]
fn two_damaged_superblocks_are_refused() {
    let pair = Pair::formatted("two-damaged");
    pair.a.damage(0);
    pair.a.damage(1);
    let said = pair.a.refuses("run", &[], "LS3011");
    assert!(
        said.contains("slot 0") && said.contains("slot 1") && said.contains("--join"),
        "{said}"
    );
}

#[test]
fn a_device_that_holds_something_is_formatted_only_by_force() {
    let pair = Pair::new("signature");
    let mut boot_sector = [0; 512];
    boot_sector[446 + 4] = 0x83;
    boot_sector[446 + 8] = 8;
    boot_sector[446 + 12] = 64;
    boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
    File::options()
        .write(true)
        .open(&pair.a.backing)
        .unwrap()
        .write_all_at(&boot_sector, 0)
        .unwrap();
    let said = pair.a.refuses("format", &[], "LS5010");
    assert!(said.contains("partition table"), "{said}");
    pair.a.format(&["--force"]);
    let said = pair.a.refuses("format", &["--join"], "LS5010");
    assert!(said.contains("Lockstep"), "{said}");
    pair.a.format(&["--join", "--force", "--confirm", "data"]);
}

#[test]
fn a_copy_of_a_volume_is_thrown_away_only_by_force_and_its_name() {
    let pair = Pair::formatted("throw-away");
    let before = fs::read(&pair.a.backing).unwrap();
    let refused = |confirm: &[&str]| {
        let options = [&["--join", "--force"], confirm].concat();
        let said = pair.a.refuses("format", &options, "LS1085");
        assert!(
            said.contains("a copy of volume \"data\", that of node 0, last epoch 1"),
            "{said}"
        );
        assert!(said.contains("--force --confirm data"), "{said}");
        assert!(
            fs::read(&pair.a.backing).unwrap() == before,
            "it was written to"
        );
    };
    refused(&[]);
    refused(&["--confirm", "other"]);
    // It is the found volume's name that counts, not the one of the configuration.
    pair.a
        .edit_config("volume = \"data\"", "volume = \"other\"");
    refused(&["--confirm", "other"]);
    let alone = pair.a.run("format", &["--join", "--confirm", "data"]);
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
    pair.a.damage(0);
    let said = pair.a.refuses("format", &["--force"], "LS1085");
    assert!(
        said.contains("volume \"data\""),
        "one place is enough: {said}"
    );
    pair.a.format(&["--join", "--force", "--confirm", "data"]);
    let said = pair.a.refuses("format", &["--force"], "LS1085");
    assert!(
        said.contains("volume \"other\", that of node 0, last epoch 0"),
        "{said}"
    );
    // What names no volume is overwritten as ever.
    for slot in 0..2 {
        pair.a.damage(slot);
    }
    pair.a.format(&["--force"]);
}

#[test]
fn a_copy_on_either_device_has_to_be_named() {
    let pair = Pair::formatted("throw-away-two");
    let metadata = pair.a.directory.join("metadata");
    fs::copy(&pair.b.backing, &metadata).unwrap();
    let path = format!("{:?}", metadata.display().to_string());
    pair.a.edit_config("\"internal\"", &path);
    pair.a
        .edit_config("volume = \"data\"", "volume = \"other\"");
    let said = pair.a.refuses("format", &["--force"], "LS1085");
    assert!(
        said.contains("/a/disk holds a copy") && said.contains("node 0"),
        "{said}"
    );
    // The device of the data loses no superblock by that, but whatever is in it becomes the new volume's data.
    pair.a.damage(0);
    pair.a.damage(1);
    let said = pair.a.refuses("format", &["--force"], "LS1085");
    assert!(
        said.contains("metadata holds a copy") && said.contains("node 1"),
        "{said}"
    );
    pair.a.format(&["--force", "--confirm", "data"]);
}

#[test]
fn metadata_on_a_device_of_their_own_leave_the_data_where_they_are() {
    let mut pair = Pair::new("separate");
    let metadata = pair.a.directory.join("metadata");
    File::create(&metadata).unwrap().set_len(1 << 20).unwrap();
    pair.a.edit_config(
        "\"internal\"",
        &format!("{:?}", metadata.display().to_string()),
    );
    pair.a.refuses("format", &[], "LS5014");
    File::options()
        .write(true)
        .open(&metadata)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let file = File::options().write(true).open(&pair.a.backing).unwrap();
    file.write_all_at(b"what was there before", 0).unwrap();
    pair.a.format(&[]);
    pair.a.start();
    assert_eq!(pair.a.status()["size_bytes"], harness::BACKING_BYTES);
    pair.a.kill();
    assert!(
        fs::read(&pair.a.backing)
            .unwrap()
            .starts_with(b"what was there before")
    );
    let device = File::options().write(true).open(&metadata).unwrap();
    device.set_len(2 << 20).unwrap();
    let said = pair.a.refuses("run", &[], "LS3013");
    assert!(said.contains("metadata has 2097152 bytes"), "{said}");
    pair.a.refuses("check", &[], "LS3013");
    pair.a.edit_config(
        &format!("{:?}", metadata.display().to_string()),
        "\"internal\"",
    );
    pair.a.refuses("run", &[], "LS3015");
}

#[test]
fn a_second_daemon_of_a_volume_does_not_start() {
    let mut pair = Pair::formatted("second-daemon");
    pair.a.start();
    pair.a.refuses("run", &[], "LS3021");
    pair.a.refuses("format", &["--force"], "LS3021");
    assert!(pair.a.runs());
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let mut pair = Pair::formatted("stale-socket");
    pair.a.start();
    pair.a.kill();
    assert!(harness::exists(&pair.a.directory.join("run/data.sock")));
    pair.a.start();
    assert_eq!(pair.a.status()["node"], "node-a");
}
