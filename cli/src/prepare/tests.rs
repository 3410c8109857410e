use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use controlplane::resources::FileSystem;
use controlplane::resources::filesystem::{Fsck, Users};
use nix::unistd::Uid;

use super::content::{Content, Step, step};
use super::{Order, Place, carry_out, making};

fn settings(mount_point: &Path) -> FileSystem {
    FileSystem {
        volume: "data".to_string(),
        kind: "ext4".to_string(),
        mount_point: mount_point.to_path_buf(),
        options: "noatime".to_string(),
        fsck: Fsck::Never,
        users: Users::Name,
    }
}

fn image(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("image");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    path
}

#[test]
fn only_what_is_empty_is_formatted_without_a_word() {
    let settings = settings(Path::new("/srv"));
    let known = |kind: &str| Content::Known(kind.to_string());
    let ruled = |content: &Content, confirmed: bool| step(content, &settings, confirmed).ok();
    for confirmed in [false, true] {
        assert_eq!(
            ruled(&Content::Nothing, confirmed),
            Some(Step::Make { force: false })
        );
        // What is there already is never made again, whatever was confirmed.
        assert_eq!(ruled(&known("ext4"), confirmed), Some(Step::Mount));
    }
    for content in [Content::Data, known("xfs"), known("LVM2_member")] {
        let refused = step(&content, &settings, false).unwrap_err();
        assert_eq!(refused.problem.code, "LS6213", "{content:?}");
        assert!(
            refused.problem.advice.contains("--confirm data"),
            "{refused}"
        );
        assert_eq!(ruled(&content, true), Some(Step::Make { force: true }));
    }
}

#[test]
fn a_byte_at_either_end_is_data_and_a_file_system_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path());
    assert_eq!(Content::of(&path).unwrap(), Content::Nothing);
    for place in [5000, (64 << 20) - 1] {
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(place)).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(Content::of(&path).unwrap(), Content::Data, "{place}");
        file.seek(SeekFrom::Start(place)).unwrap();
        file.write_all(&[0]).unwrap();
    }
    let made = Command::new("mkfs.ext4").arg("-q").arg(&path).status();
    assert!(made.unwrap().success());
    assert_eq!(
        Content::of(&path).unwrap(),
        Content::Known("ext4".to_string())
    );
    assert!(Content::of(&directory.path().join("none")).is_err());
}

#[test]
fn no_file_system_is_made_with_a_discard_of_the_volume() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let words = making(kind, false);
        assert!(
            words.contains(&"nodiscard") || words.contains(&"-K"),
            "{words:?}"
        );
        assert_eq!(making(kind, true).len(), words.len() + 1);
    }
}

/// A loop device, as the device of the volume.
struct Loop(String);

impl Loop {
    fn of(image: &Path) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(String::from_utf8(output.stdout).unwrap().trim().to_string())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_missing_is_made_once_and_a_command_works_there_as_its_user() {
    if !Uid::effective().is_root() {
        eprintln!(
            "SKIPPED: what_is_missing_is_made_once_and_a_command_works_there_as_its_user needs root"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let device = Loop::of(&image(directory.path()));
    let point = directory.path().join("srv");
    let places = [Place {
        settings: settings(&point),
        device: device.0.clone().into(),
    }];
    let order = |command: &[&str]| Order {
        command: words(command),
        user: Some("nobody".to_string()),
        confirm: None,
    };
    // It fails: the file system stays, nothing is left mounted.
    let refused = carry_out(&places, &order(&["sh", "-c", "touch half; exit 3"])).unwrap_err();
    assert_eq!(refused.problem.code, "LS6214");
    assert!(
        refused
            .problem
            .message
            .contains("ended with exit status: 3"),
        "{refused}"
    );
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    // Again: it is not made anew, and the command runs where the file system is.
    carry_out(
        &places,
        &order(&["sh", "-c", "test -e half && pwd > where && id -un > who"]),
    )
    .unwrap();
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    let mounted = Command::new("mount").arg(&device.0).arg(&point).status();
    assert!(mounted.unwrap().success());
    let read = |name: &str| fs::read_to_string(point.join(name)).unwrap();
    let (place, who) = (read("where"), read("who"));
    let owner = fs::metadata(&point).unwrap().uid();
    assert!(
        Command::new("umount")
            .arg(&point)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(place.trim(), point.display().to_string());
    assert_eq!(who.trim(), "nobody");
    assert_ne!(owner, 0);
}

#[test]
fn what_somebody_needs_is_not_touched_and_nothing_else_is_made_then() {
    if !Uid::effective().is_root() {
        eprintln!(
            "SKIPPED: what_somebody_needs_is_not_touched_and_nothing_else_is_made_then needs root"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (empty, full) = (directory.path().join("e"), directory.path().join("f"));
    fs::create_dir_all(&empty).unwrap();
    fs::create_dir_all(&full).unwrap();
    let (empty, full) = (image(&empty), image(&full));
    let precious = b"the only copy of something";
    fs::OpenOptions::new()
        .write(true)
        .open(&full)
        .unwrap()
        .write_all(precious)
        .unwrap();
    let place = |path: &Path| Place {
        settings: settings(&directory.path().join("srv")),
        device: path.to_path_buf(),
    };
    let refused = carry_out(&[place(&empty), place(&full)], &Order::default()).unwrap_err();
    assert_eq!(refused.problem.code, "LS6213");
    assert_eq!(Content::of(&empty).unwrap(), Content::Nothing);
    assert!(fs::read(&full).unwrap().starts_with(precious));
}
