//! The command line over a file of blocks that a discarded side had alone.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mirror_core::disk::{KeptHeader, KeptWriter};
use mirror_core::types::{Epoch, NodeId, ViewId, VolumeId};
use mirror_core::view::ViewMark;

const SIZE: u64 = 64 << 20;
const PLACES: [u64; 3] = [4096, 5 << 20, SIZE - 4096];

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lockstep-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("discarded")).unwrap();
        Scratch(path)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
        command.env("LOCKSTEP_STATE_DIR", &self.0);
        command.env("LOCKSTEP_CONFIG_DIR", self.0.join("etc"));
        command.args(["volume", "discarded"]).args(words);
        command.output().unwrap()
    }

    fn refuses(&self, words: &[&str], code: &str) -> String {
        let output = self.run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with(code), "{code} expected: {said}");
        said
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn block(at: u64) -> Vec<u8> {
    vec![u8::try_from(at % 250 + 1).unwrap(); 4096]
}

fn kept() -> Vec<u8> {
    let padded = |name: &str| -> [u8; 64] {
        std::array::from_fn(|place| name.as_bytes().get(place).copied().unwrap_or(0))
    };
    let mark = |epoch| ViewMark {
        epoch: Epoch(epoch),
        id: ViewId([9; 16]),
    };
    let header = KeptHeader {
        volume_id: VolumeId([1; 16]),
        volume_name: padded("data"),
        node: NodeId::new(1).unwrap(),
        peer: NodeId::new(0).unwrap(),
        node_name: padded("node2"),
        view: mark(9),
        common: mark(7),
        size_bytes: SIZE,
        block_bytes: 4096,
        marked_bytes: 3 * 4096 + (1 << 20),
        at_s: 1_767_225_599,
    };
    let (mut writer, bytes) = KeptWriter::new(&header);
    let mut file = bytes.to_vec();
    for at in PLACES {
        file.extend(writer.data(at, &block(at)));
        file.extend(block(at));
        if at == 4096 {
            file.extend(writer.zeroes(1 << 20, 1 << 20));
        }
    }
    file.extend(writer.end());
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn kept_blocks_are_listed_shown_and_put_to_their_places() {
    let scratch = Scratch::new("kept-export");
    let directory = scratch.0.join("discarded");
    let file = directory.join("data-20251231T235959Z.blocks");
    fs::write(&file, kept()).unwrap();
    fs::write(directory.join("data-1.blocks.partial"), &kept()[..700]).unwrap();
    fs::write(directory.join("notes.txt"), "nothing of ours").unwrap();
    let list = String::from_utf8(scratch.run(&["list"]).stdout).unwrap();
    for words in [
        text(&file),
        "data of node2, 2025-12-31 23:59:59 UTC, 1.0 MiB",
        "NOT WHOLE",
    ] {
        assert!(list.contains(words), "no `{words}` in:\n{list}");
    }
    assert!(!list.contains("notes"), "{list}");
    let show = String::from_utf8(scratch.run(&["show", text(&file)]).stdout).unwrap();
    for words in [
        "went apart at epoch 7",
        "every checksum is right; 1.0 MiB of it are zeroes",
        "bytes 4096 to 8191",
        "bytes 1048576 to 2097151  1.0 MiB",
        "bytes 67104768 to 67108863",
    ] {
        assert!(show.contains(words), "no `{words}` in:\n{show}");
    }

    let image = scratch.0.join("out.img");
    let output = scratch.run(&["export", text(&file), "--to", text(&image)]);
    assert!(output.status.success(), "{output:?}");
    let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
    for at in PLACES {
        let start = usize::try_from(at).unwrap();
        expected[start..start + 4096].copy_from_slice(&block(at));
    }
    assert!(fs::read(&image).unwrap() == expected);
    let taken = fs::metadata(&image).unwrap().blocks() * 512;
    assert!(taken < SIZE / 8, "{taken} bytes: it is not sparse");
    scratch.refuses(&["export", text(&file), "--to", text(&image)], "LS4014");
}

#[test]
fn a_damaged_file_leaves_nothing_behind() {
    let scratch = Scratch::new("kept-damaged");
    let (file, image) = (scratch.0.join("x.blocks"), scratch.0.join("out.img"));
    let mut bytes = kept();
    let place = bytes.len() - 2000;
    bytes[place] ^= 1;
    fs::write(&file, &bytes).unwrap();
    scratch.refuses(&["export", text(&file), "--to", text(&image)], "LS4013");
    scratch.refuses(&["show", text(&file)], "LS4013");
    fs::write(&file, &kept()[..5000]).unwrap();
    scratch.refuses(&["export", text(&file), "--to", text(&image)], "LS4013");
    assert!(!image.exists());
}

#[test]
fn only_a_free_device_that_was_meant_is_written_to() {
    let scratch = Scratch::new("kept-onto");
    let (file, image) = (scratch.0.join("x.blocks"), scratch.0.join("disk"));
    fs::write(&file, kept()).unwrap();
    fs::write(&image, "mine").unwrap();
    let onto = ["export", text(&file), "--onto", text(&image)];
    scratch.refuses(&onto, "LS4015");
    let wrong = [&onto[..], &["--confirm", "other"]].concat();
    scratch.refuses(&wrong, "LS4015");
    let named = [&onto[..], &["--confirm", "data"]].concat();
    scratch.refuses(&named, "LS4014");
    assert_eq!(fs::read(&image).unwrap(), b"mine");
    let both = [&named[..], &["--to", "/x"]].concat();
    assert_eq!(scratch.run(&both).status.code(), Some(64));
}

#[test]
fn what_holds_a_copy_of_a_stopped_volume_is_not_written_to() {
    let scratch = Scratch::new("kept-onto-copy");
    let (file, volumes) = (scratch.0.join("x.blocks"), scratch.0.join("etc/volumes"));
    fs::write(&file, kept()).unwrap();
    fs::create_dir_all(&volumes).unwrap();
    let place = |name: &str| scratch.0.join(name);
    for name in ["disk", "metadata", "other"] {
        fs::write(place(name), "mine").unwrap();
    }
    std::os::unix::fs::symlink(place("disk"), place("by-id")).unwrap();
    let config = |name: &str, text: String| {
        fs::write(volumes.join(format!("{name}.toml")), text).unwrap();
    };
    config(
        "gone",
        "backing = \"/none\"\nmetadata = \"internal\"\n".into(),
    );
    config(
        "logs",
        format!(
            "version = 1\nvolume = \"logs\"\nbacking = \"{}\"\nmetadata = \"{}\"\n[tuning]\nx = 1\n",
            text(&place("disk")),
            text(&place("metadata"))
        ),
    );
    let refused = |name: &str| {
        let onto = place(name);
        let words = ["export", text(&file), "--onto", text(&onto)];
        scratch.refuses(&[&words[..], &["--confirm", "data"]].concat(), "LS4014")
    };
    for name in ["disk", "metadata", "by-id"] {
        let said = refused(name);
        assert!(said.contains("the copy of logs on this node"), "{said}");
        assert!(said.contains("/dev/lockstep/logs"), "{said}");
    }
    let said = refused("other");
    assert!(said.contains("is no block device"), "{said}");
    // Nobody knows which devices it names.
    config("broken", "backing =".into());
    let said = refused("other");
    assert!(said.contains("broken.toml"), "{said}");
    for name in ["disk", "metadata", "other"] {
        assert_eq!(fs::read(place(name)).unwrap(), b"mine");
    }
}
