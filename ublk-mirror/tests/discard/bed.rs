//! Two nodes that went apart, and what is read of them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Node, Pair, SLOTS};
use mirror_core::disk::{
    ActivityRecord, BitmapPage, KEPT_DIGEST_BYTES, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptHead,
    KeptHeader, KeptReader, PAGE_WORDS, Superblock,
};
use mirror_core::types::{NodeId, NodeSet};
use mirror_core::view::ViewMark;
use serde_json::Value;

pub(crate) const BLOCK: u64 = 4096;
pub(crate) const EXTENT: u64 = 4 << 20;
/// No log has been written so often.
pub(crate) const LATE_SEQUENCE: u64 = 100_000;
pub(crate) const RESOLVE: &str =
    "\"request\":\"command\",\"command\":\"resolve\",\"discard\":\"node-b\",\"confirm\":\"data\"";

/// What the loser has alone.
pub(crate) enum Alone {
    /// Single blocks, and one extent that was open when its daemon died.
    Some { blocks: Vec<u64>, extent: u32 },
    /// Nobody knows: everything.
    Unknown,
}

/// Both went alone on wrong words. The daemons are stopped.
pub(crate) fn apart(test: &str) -> Pair {
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

pub(crate) fn superblock(node: &Node) -> Superblock {
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
pub(crate) fn mark(node: &Node, alone: &Alone) {
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

pub(crate) fn put(node: &Node, at: u64, data: &[u8]) {
    let start = superblock(node).data_start_sectors * 512;
    let file = File::options().write(true).open(&node.backing).unwrap();
    file.write_all_at(data, start + at).unwrap();
    file.sync_all().unwrap();
}

/// Both run, and have shown each other what they have.
pub(crate) fn meet(pair: &Pair) {
    for node in [&pair.a, &pair.b] {
        node.wait_for("both sides are shown", |status| {
            status["split"]["other"]["node"].is_string()
        });
    }
}

/// The command until both are not just meeting.
pub(crate) fn resolve(node: &Node, keep: &str) -> Value {
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
pub(crate) fn refuses(node: &Node, keep: &str, code: &str) -> String {
    let before = node.status()["view"]["id"].clone();
    let answer = resolve(node, keep);
    assert_eq!(answer["problem"]["code"], code, "{answer}");
    assert_eq!(node.status()["view"]["id"], before);
    assert!(node.status()["split"].is_object(), "{}", node.status());
    answer["problem"]["message"].as_str().unwrap().to_owned()
}

/// Before it was, the copy of `node-b` alone counted. Once it is, both may have met already.
pub(crate) fn is_discarded(node: &Node) -> bool {
    let node_b = NodeId::new(1).unwrap();
    superblock(node).view.insync != NodeSet::only(node_b)
}

pub(crate) fn to_keep(path: &Path) -> String {
    format!(",\"keep\":{{\"file\":\"{}\"}}", path.display())
}

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Places on the volume, and what is there.
pub(crate) type Runs = Vec<(u64, Vec<u8>)>;

/// What the file holds, or how it is not whole.
pub(crate) fn read(bytes: &[u8]) -> Result<(KeptHeader, Runs), String> {
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
pub(crate) fn covered(runs: &[(u64, Vec<u8>)]) -> Vec<u64> {
    let blocks = runs.iter().flat_map(|(at, data)| {
        let first = at / BLOCK;
        first..first + (data.len() as u64).div_ceil(BLOCK)
    });
    blocks.collect()
}

pub(crate) fn holds(runs: &[(u64, Vec<u8>)], data: &[u8]) {
    for (at, kept) in runs {
        let at = usize::try_from(*at).unwrap();
        assert_eq!(&data[at..at + kept.len()], kept.as_slice(), "bytes at {at}");
    }
}
