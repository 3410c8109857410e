//! Two daemons with two histories: what only the discarded side has is kept first, or nothing is discarded.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::{Node, Pair, SLOTS};
use mirror_core::disk::{
    ActivityRecord, BitmapPage, KEPT_DIGEST_BYTES, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptHead,
    KeptHeader, KeptReader, PAGE_WORDS, Superblock, unpadded,
};
use mirror_core::types::{NodeId, NodeSet};
use mirror_core::view::ViewMark;
use serde_json::Value;

const BLOCK: u64 = 4096;
const EXTENT: u64 = 4 << 20;
/// No log has been written so often.
const LATE_SEQUENCE: u64 = 100_000;
const RESOLVE: &str =
    "\"request\":\"command\",\"command\":\"resolve\",\"discard\":\"node-b\",\"confirm\":\"data\"";

/// What the loser has alone.
enum Alone {
    /// Single blocks, and one extent that was open when its daemon died.
    Some { blocks: Vec<u64>, extent: u32 },
    /// Nobody knows: everything.
    Unknown,
}

/// Both went alone on wrong words. The daemons are stopped.
fn apart(test: &str) -> Pair {
    let mut pair = Pair::in_sync(test);
    pair.b.stop();
    pair.a.stop();
    let nodes = [(&mut pair.a, "node-b"), (&mut pair.b, "node-a")];
    for (node, other) in nodes {
        node.start();
        let word = format!(
            "\"request\":\"command\",\"command\":\"takeover\",\"confirm\":\"{other} is off\""
        );
        // It goes alone, and then there is no device to serve.
        node.ask(&word);
        node.wait_for("it is alone", |status| {
            status["view"]["insync"].as_array().map(Vec::len) == Some(1)
                && status["role"] == "fenced"
        });
        node.stop();
    }
    pair
}

fn superblock(node: &Node) -> Superblock {
    let file = File::open(&node.backing).unwrap();
    let slots = (0..2).zip(SLOTS).filter_map(|(slot, at)| {
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, at).unwrap();
        Superblock::decode(&bytes, slot).ok()
    });
    slots
        .max_by_key(|superblock| superblock.sequence)
        .expect("a good slot")
}

/// What a daemon would have written down before it wrote to its disk.
fn mark(node: &Node, alone: &Alone) {
    let mut superblock = superblock(node);
    let file = File::options().write(true).open(&node.backing).unwrap();
    match alone {
        Alone::Unknown => {
            superblock.base = ViewMark::default();
            superblock.sequence += 1;
            for (slot, at) in (0..2).zip(SLOTS) {
                file.write_all_at(&superblock.encode(slot), at).unwrap();
            }
        }
        Alone::Some { blocks, extent } => {
            let mut words = [0; PAGE_WORDS];
            for block in blocks {
                words[usize::try_from(block / 64).unwrap()] |= 1 << (block % 64);
            }
            let (me, peer, layout) = (superblock.node, superblock.peer, superblock.layout);
            let page = BitmapPage {
                peer,
                page: 0,
                words,
            };
            let at = BitmapPage::offset_bytes(&layout, me, peer, 0);
            file.write_all_at(&page.encode(), at).unwrap();
            let record = ActivityRecord {
                sequence: LATE_SEQUENCE,
                extents: vec![*extent],
            };
            file.write_all_at(&record.encode(&layout), record.offset_bytes(&layout))
                .unwrap();
        }
    }
    file.sync_all().unwrap();
}

fn put(node: &Node, at: u64, data: &[u8]) {
    let start = superblock(node).data_start_sectors * 512;
    let file = File::options().write(true).open(&node.backing).unwrap();
    file.write_all_at(data, start + at).unwrap();
    file.sync_all().unwrap();
}

/// Both run, and have shown each other what they have.
fn meet(pair: &Pair) {
    for node in [&pair.a, &pair.b] {
        node.wait_for("both sides are shown", |status| {
            status["split"]["other"]["node"].is_string()
        });
    }
}

/// The command until both are not just meeting.
fn resolve(node: &Node, keep: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = node.ask(&format!("{RESOLVE}{keep}"));
        if answer["problem"]["code"] != "LS1010" {
            return answer;
        }
        assert!(Instant::now() < end, "busy for ever: {answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Refused with that code, and the history is what it was.
fn refuses(node: &Node, keep: &str, code: &str) -> String {
    let before = node.status()["view"]["id"].clone();
    let answer = resolve(node, keep);
    assert_eq!(answer["problem"]["code"], code, "{answer}");
    assert_eq!(node.status()["view"]["id"], before);
    assert!(node.status()["split"].is_object(), "{}", node.status());
    answer["problem"]["message"].as_str().unwrap().to_owned()
}

/// Before it was, the copy of `node-b` alone counted. Once it is, both may have met already.
fn is_discarded(node: &Node) -> bool {
    let node_b = NodeId::new(1).unwrap();
    superblock(node).view.insync != NodeSet::only(node_b)
}

fn to_keep(path: &Path) -> String {
    format!(",\"keep\":{{\"file\":\"{}\"}}", path.display())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Places on the volume, and what is there.
type Runs = Vec<(u64, Vec<u8>)>;

/// What the file holds, or how it is not whole.
fn read(bytes: &[u8]) -> Result<(KeptHeader, Runs), String> {
    let mut rest = bytes;
    let mut next = |count: usize| {
        let (one, other) = rest.split_at_checked(count).ok_or("it ends")?;
        rest = other;
        Ok::<_, String>(one)
    };
    let fault = |fault: mirror_core::disk::KeptFault| fault.to_string();
    let header: [u8; KEPT_HEADER_BYTES] = next(KEPT_HEADER_BYTES)?.try_into().unwrap();
    let mut reader = KeptReader::new(&header).map_err(fault)?;
    let mut runs = Vec::new();
    loop {
        let head: [u8; KEPT_HEAD_BYTES] = next(KEPT_HEAD_BYTES)?.try_into().unwrap();
        match reader.head(&head).map_err(fault)? {
            KeptHead::Data {
                offset_bytes,
                length_bytes,
            } => {
                let data = next(length_bytes as usize)?;
                reader.data(data).map_err(fault)?;
                runs.push((offset_bytes, data.to_vec()));
            }
            KeptHead::Zeroes {
                offset_bytes,
                length_bytes,
            } => runs.push((
                offset_bytes,
                vec![0; usize::try_from(length_bytes).unwrap()],
            )),
            KeptHead::End => break,
        }
    }
    let digest: [u8; KEPT_DIGEST_BYTES] = next(KEPT_DIGEST_BYTES)?.try_into().unwrap();
    reader.digest(&digest).map_err(fault)?;
    Ok((*reader.header(), runs))
}

/// The blocks that runs cover.
fn covered(runs: &[(u64, Vec<u8>)]) -> Vec<u64> {
    let blocks = runs.iter().flat_map(|(at, data)| {
        let first = at / BLOCK;
        first..first + (data.len() as u64).div_ceil(BLOCK)
    });
    blocks.collect()
}

fn holds(runs: &[(u64, Vec<u8>)], data: &[u8]) {
    for (at, kept) in runs {
        let at = usize::try_from(*at).unwrap();
        assert_eq!(&data[at..at + kept.len()], kept.as_slice(), "bytes at {at}");
    }
}

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
fn while_blocks_are_kept_no_other_word_discards_them() {
    let mut pair = apart("discard-twice");
    mark(&pair.b, &Alone::Unknown);
    let before = pair.b.data();
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let end = Instant::now() + Duration::from_secs(30);
    let kept = 'kept: loop {
        let mut client = pair.b.connect();
        harness::send(&mut client, RESOLVE);
        while pair.b.status()["keeping"].is_null() {
            if harness::answered(&client) {
                assert!(!is_discarded(&pair.b), "too quick for this test");
                assert!(Instant::now() < end, "busy for ever");
                continue 'kept;
            }
            client.set_nonblocking(false).unwrap();
        }
        break client;
    };
    let force = "\"request\":\"command\",\"command\":\"force\",\"confirm\":\"data\"";
    for word in [&format!("{RESOLVE},\"keep\":\"no\""), RESOLVE, force] {
        let answer = pair.b.ask(word);
        assert_eq!(answer["problem"]["code"], "LS1078", "{answer}");
        let said = answer["problem"]["message"].as_str().unwrap();
        assert!(said.contains("are being kept already"), "{said}");
    }
    let answer = harness::receive(kept);
    assert_eq!(answer["done"], "discarded", "{answer}");
    let file = answer["kept"]["file"].as_str().unwrap();
    let (_, runs) = read(&fs::read(file).unwrap()).unwrap();
    holds(&runs, &before);
}

#[test]
fn a_daemon_that_is_stopped_leaves_no_file_of_what_it_did_not_discard() {
    // Where this machine is slow, the daemon may be through before the stop arrives.
    let stopped: usize = (0..5)
        .map(|_| stop_while_it_keeps())
        .find(|count| *count > 0)
        .unwrap_or(0);
    assert!(stopped > 0, "no stop met a thread at work");
}

/// Stops the daemon again and again, until a stop came too late; says how many came in time.
fn stop_while_it_keeps() -> usize {
    let mut pair = apart("discard-stop");
    mark(&pair.b, &Alone::Unknown);
    let before = pair.b.data();
    pair.a.start();
    let directory = pair.b.state().join("discarded");
    let mut stopped = 0;
    // At the first sight of the file, later, then at the first sight of its name.
    for step in 0..8 {
        let earlier = pair.b.log().len();
        pair.b.start();
        meet(&pair);
        let wanted = if step < 3 { ".partial" } else { ".blocks" };
        let mut client = pair.b.connect();
        harness::send(&mut client, RESOLVE);
        let end = Instant::now() + Duration::from_secs(20);
        let seen = |with: &str| {
            let found = files(&directory);
            found
                .iter()
                .any(|path| path.to_string_lossy().ends_with(with))
        };
        while !seen(wanted) && !harness::answered(&client) && Instant::now() < end {}
        client.set_nonblocking(false).unwrap();
        std::thread::sleep(Duration::from_millis(20 * (step % 3)));
        pair.b.stop();
        let log = pair.b.log().split_off(earlier);
        let told_that_it_stays = log.contains("LS2074") && log.contains("the file stays");
        if is_discarded(&pair.b) || told_that_it_stays {
            let [file] = &files(&directory)[..] else {
                panic!("{:?}", files(&directory));
            };
            let (_, runs) = read(&fs::read(file).unwrap()).unwrap();
            holds(&runs, &before);
            return stopped;
        }
        if log.contains("LS2074") {
            // The file system was too slow: it is told, and a person does what is advised.
            for file in files(&directory) {
                fs::remove_file(file).unwrap();
            }
        }
        assert_eq!(files(&directory), [] as [PathBuf; 0], "step {step}: {log}");
        stopped += usize::from(log.contains("the daemon ends while blocks are kept"));
    }
    stopped
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

#[test]
fn a_side_that_changes_while_it_is_kept_is_not_discarded() {
    let mut pair = apart("discard-changed");
    mark(&pair.b, &Alone::Unknown);
    pair.a.start();
    pair.b.start();
    meet(&pair);
    let before = pair.b.status()["view"]["epoch"].as_u64().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        // The second one is given while the first one reads: it serves under a view of its own.
        let mut clients = [pair.b.connect(), pair.b.connect()];
        let activate = "\"request\":\"command\",\"command\":\"activate\"";
        harness::send(&mut clients[0], RESOLVE);
        harness::send(&mut clients[1], activate);
        let [kept, activated] = clients.map(harness::receive);
        if kept["problem"]["code"] == "LS1078" {
            break;
        }
        assert_eq!(kept["problem"]["code"], "LS1010", "{kept} {activated}");
        assert!(
            Instant::now() < end,
            "never at the same time: {kept} {activated}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(files(&pair.b.state().join("discarded")).is_empty());
    assert!(pair.b.status()["view"]["epoch"].as_u64().unwrap() > before);
    pair.b.kill();
    assert!(!is_discarded(&pair.b));
}

#[test]
fn a_daemon_that_dies_has_discarded_nothing_or_kept_everything() {
    let mut pair = apart("discard-kill");
    mark(&pair.b, &Alone::Unknown);
    let before = pair.b.data();
    pair.a.start();
    let directory = pair.b.state().join("discarded");
    let (mut partial, mut whole, mut tries) = (0, 0, 0);
    // At the first sight of the file, then later and later; at the end, at the first sight of its name.
    for step in 0.. {
        pair.b.start();
        meet(&pair);
        let known = files(&directory);
        let mut client = pair.b.connect();
        harness::send(&mut client, RESOLVE);
        let end = Instant::now() + Duration::from_secs(20);
        let ends = |path: &PathBuf, with: &str| path.to_string_lossy().ends_with(with);
        let seen = |with: &str| {
            let new = files(&directory);
            new.iter()
                .any(|path| !known.contains(path) && ends(path, with))
        };
        let wanted = if step < 12 { ".partial" } else { ".blocks" };
        // It may be told to come again, or be quicker than we look.
        while !seen(wanted) && !seen(".blocks") && Instant::now() < end {
            if harness::answered(&client) {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(500 * (step % 12)));
        pair.b.kill();
        tries += 1;
        let discarded = is_discarded(&pair.b);
        for path in files(&directory) {
            let found = read(&fs::read(&path).unwrap());
            if ends(&path, ".blocks") {
                let (_, runs) = found.unwrap();
                holds(&runs, &before);
                whole += 1;
            } else {
                partial += 1;
            }
            if !discarded {
                fs::remove_file(&path).unwrap();
            }
        }
        if discarded {
            assert!(whole > 0, "discarded, and nothing was kept");
            break;
        }
        assert!(
            pair.b.data() == before,
            "not discarded, and not what it was"
        );
        whole = 0;
        assert!(step < 60, "it never came to an end");
    }
    println!("{tries} kills, {partial} files that were not whole");
    assert!(partial > 0, "no kill met a file that was not whole");
}
