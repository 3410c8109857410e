//! Two daemons with two histories: what only the discarded side has is kept first, or nothing is discarded.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod bed;
#[path = "../harness/mod.rs"]
mod harness;
mod meanwhile;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mirror_core::disk::unpadded;

use crate::bed::*;

#[test]
fn exactly_what_only_the_discarded_side_has_is_kept() {
    let mut pair = apart("discard-keeps");
    let size = pair.b.data().len() as u64;
    let last = size.div_ceil(BLOCK) - 1;
    let blocks = vec![3, 4, 5, 9, 700, last];
    mark(
        &pair.b,
        &Alone::Some {
            blocks: blocks.clone(),
            extent: 1,
        },
    );
    for block in &blocks {
        put(
            &pair.b,
            block * BLOCK,
            &[u8::try_from(block % 251).unwrap(); 512],
        );
    }
    put(&pair.b, 5 * BLOCK, &[0; 4096]);
    put(&pair.b, EXTENT + 8192, &[0x5a; 8192]);
    let before = pair.b.data();
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let shown = pair.b.status()["split"]["this"]["unique_bytes"].as_u64();

    let answer = resolve(&pair.b, "");
    assert_eq!(answer["done"], "discarded", "{answer}");
    let file = PathBuf::from(answer["kept"]["file"].as_str().unwrap());
    assert_eq!(
        files(&pair.b.state().join("discarded")),
        std::slice::from_ref(&file)
    );
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("data-2") && name.ends_with("Z.blocks"),
        "{name}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let (header, runs) = read(&fs::read(&file).unwrap()).unwrap();
    let extent = EXTENT / BLOCK..2 * EXTENT / BLOCK;
    let mut expected: Vec<u64> = blocks.into_iter().chain(extent).collect();
    expected.sort_unstable();
    assert_eq!(covered(&runs), expected);
    holds(&runs, &before);
    assert_eq!(Some(header.marked_bytes), shown, "what the status counts");
    assert_eq!(answer["kept"]["kept_bytes"].as_u64(), shown);
    assert_eq!(header.size_bytes, size);
    assert_eq!(unpadded(&header.node_name), "node-b");
    assert!(header.common.epoch.0 > 0 && header.common.epoch < header.view.epoch);
    pair.b.wait_log("LS2073");

    // It is filled from the other one, and the file stays.
    pair.wait_in_sync();
    pair.b.stop();
    pair.a.stop();
    assert_eq!(pair.a.data(), pair.b.data());
    assert_ne!(pair.b.data(), before);
    assert!(file.exists());
}

#[test]
fn without_room_nothing_is_discarded_and_zeroes_need_none() {
    let mut pair = apart("discard-room");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start_with_state_of(70);
    meet(&pair);
    // All of it is noise, and 64 MiB are left to others.
    let said = refuses(&pair.b, "", "LS1077");
    let needed: u64 = said
        .split_whitespace()
        .find_map(|word| word.parse().ok())
        .unwrap();
    let size = pair.b.data().len() as u64;
    assert!(needed > size && needed < size + size / 100, "{said}");
    pair.b.kill();
    assert!(!is_discarded(&pair.b));

    // The same volume with little on it: what is needed is measured.
    let size = usize::try_from(size).unwrap();
    put(&pair.b, 0, &vec![0; size]);
    put(&pair.b, 6 << 20, &[7; 100_000]);
    let before = pair.b.data();
    pair.b.start_with_state_of(70);
    meet(&pair);
    let answer = resolve(&pair.b, "");
    assert_eq!(answer["done"], "discarded", "{answer}");
    assert_eq!(answer["kept"]["kept_bytes"].as_u64(), Some(size as u64));
    // Only the daemon sees that file system.
    let file = answer["kept"]["file"].as_str().unwrap();
    let seen = format!("/proc/{}/root{file}", pair.b.pid());
    let (header, runs) = read(&fs::read(seen).unwrap()).unwrap();
    assert_eq!(header.common.epoch.0, 0);
    assert_eq!(covered(&runs).len() as u64, (size as u64).div_ceil(BLOCK));
    holds(&runs, &before);
}

#[test]
fn without_keeping_the_word_is_enough() {
    let mut pair = apart("discard-no-keep");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start_with_state_of(8);
    meet(&pair);
    refuses(&pair.b, "", "LS1077");
    let answer = resolve(&pair.b, ",\"keep\":\"no\"");
    assert_eq!(answer["done"], "discarded", "{answer}");
    assert!(answer["kept"].is_null());
}

#[test]
fn a_place_that_cannot_be_used_is_refused() {
    let mut pair = apart("discard-place");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let place = |name: &str| pair.scratch.0.join(name);
    refuses(&pair.b, &to_keep(Path::new("here.blocks")), "LS1079");
    refuses(&pair.b, &to_keep(&place("none/x.blocks")), "LS1079");
    fs::write(place("x.blocks"), "mine").unwrap();
    refuses(&pair.b, &to_keep(&place("x.blocks")), "LS1079");
    fs::write(place("y.blocks.partial"), "mine").unwrap();
    refuses(&pair.b, &to_keep(&place("y.blocks")), "LS1079");
    for name in ["x.blocks", "y.blocks.partial"] {
        assert_eq!(fs::read(place(name)).unwrap(), b"mine");
    }
    // What an earlier try left behind is no obstacle.
    let (partial, file) = (place("z.blocks.partial"), place("z.blocks"));
    fs::write(&partial, "LSKEPTBL and no more").unwrap();
    let answer = resolve(&pair.b, &to_keep(&file));
    assert_eq!(answer["kept"]["file"], file.to_str().unwrap(), "{answer}");
    read(&fs::read(&file).unwrap()).unwrap();
    assert!(!partial.exists());
}

#[test]
fn a_file_that_another_daemon_writes_is_left_to_it() {
    let mut pair = apart("discard-two");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let name = pair.scratch.0.join("both.blocks");
    let partial = pair.scratch.0.join("both.blocks.partial");
    fs::write(&partial, "LSKEPTBL and more to come").unwrap();
    // As another volume's daemon holds it.
    let other = File::options().write(true).open(&partial).unwrap();
    other.try_lock().unwrap();
    let said = refuses(&pair.b, &to_keep(&name), "LS1079");
    assert!(
        said.contains("another volume's daemon writes there"),
        "{said}"
    );
    assert_eq!(fs::read(&partial).unwrap(), b"LSKEPTBL and more to come");
    fs::rename(&partial, &name).unwrap();
    drop(other);
    let said = refuses(&pair.b, &to_keep(&name), "LS1079");
    assert!(said.contains("it exists already"), "{said}");
    assert_eq!(fs::read(&name).unwrap(), b"LSKEPTBL and more to come");
    assert!(!partial.exists());
}

#[test]
fn a_copy_that_cannot_be_read_is_not_discarded() {
    let mut pair = apart("discard-unreadable");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let disk = File::options().write(true).open(&pair.b.backing).unwrap();
    let length = disk.metadata().unwrap().len();
    disk.set_len(length - (2 << 20)).unwrap();
    let said = refuses(&pair.b, "", "LS3046");
    assert!(said.contains("cannot be read at"), "{said}");
    assert!(files(&pair.b.state().join("discarded")).is_empty());
    disk.set_len(length).unwrap();
}
