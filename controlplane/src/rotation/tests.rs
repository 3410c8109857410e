//! The shell on a disk that refuses, and beside others.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;

const KEY: [u8; 32] = [7; 32];

/// A node alone, whose heartbeats take what they get.
fn keyring(directory: &Path, me: u8) -> Keyring {
    let path = directory.join("cluster.key");
    if !path.exists() {
        fs::write(&path, KEY).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(KEY_MODE)).expect("a mode");
    }
    let (heartbeats, rotated) = sync_channel::<HeartbeatKeys>(1);
    let shared = Arc::new(Shared::default());
    let taken = Arc::clone(&shared);
    thread::spawn(move || {
        for keys in rotated {
            taken.keys_place.store(keys.place().0, Ordering::Release);
        }
    });
    let keys = key::read(&path).expect("a key");
    let settings = Settings {
        me: NodeId::new(me).expect("a node"),
        name: "node1".to_string(),
        peer_name: "node2".to_string(),
        path,
        volumes: directory.join("volumes"),
        run: directory.join("run"),
        heartbeats,
        shared,
    };
    let keyring = Keyring::begin(settings, keys).expect("it begins");
    keyring.settle();
    keyring
}

fn there(keyring: &Keyring) -> Keys {
    key::read(&keyring.settings.path).expect("a key")
}

fn code(note: Option<Problem>) -> Option<String> {
    note.map(|problem| problem.code)
}

/// The name was changed, and whether that is durable is not known.
fn half(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, mode)?;
    Err(io::Error::other("no sync"))
}

fn full(_: &Path, _: &[u8], _: u32) -> io::Result<()> {
    Err(io::ErrorKind::StorageFull.into())
}

#[test]
fn a_first_step_that_may_have_been_made_is_told_and_written_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut keyring = keyring(directory.path(), 0);
    let first = there(&keyring);
    keyring.hear(first.prints(), None).expect("level");
    assert!(keyring.is_idle() && keyring.note().is_none());
    keyring.replace = half;
    let problem = keyring.rotate(Secret::new([1; 32])).expect_err("refused");
    assert_eq!(problem.code, "LS6259", "{problem:?}");
    assert_eq!(keyring.place(), first.place());
    assert_ne!(there(&keyring), first);
    assert_eq!(code(keyring.note()).as_deref(), Some("LS6259"));
    assert!(keyring.goes_on() && !keyring.is_idle());
    // It is tried at each look, for as long as the disk refuses.
    for _ in 0..2 {
        keyring.hear(first.prints(), None).expect("heard");
        assert!(keyring.goes_on());
    }
    keyring.ready().expect("what was written is known");
    keyring.replace = replace;
    keyring.hear(first.prints(), None).expect("heard");
    assert_eq!(there(&keyring), first);
    keyring.hear(first.prints(), None).expect("level");
    assert!(keyring.is_idle() && keyring.note().is_none());
    let begun = keyring.rotate(Secret::new([2; 32]));
    assert_eq!(begun.expect("it begins"), 1);
}

#[test]
fn a_file_that_was_not_replaced_is_as_it_was_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut keyring = keyring(directory.path(), 0);
    let first = there(&keyring);
    keyring.hear(first.prints(), None).expect("level");
    keyring.replace = full;
    let problem = keyring.rotate(Secret::new([1; 32])).expect_err("refused");
    assert_eq!(problem.code, "LS6255", "{problem:?}");
    keyring.hear(first.prints(), None).expect("heard");
    keyring.hear(first.prints(), None).expect("level");
    assert!(keyring.is_idle() && keyring.note().is_none());
    // An earlier release can still read it.
    assert_eq!(fs::read(&keyring.settings.path).expect("read"), KEY);
}

#[test]
fn a_disk_that_refuses_to_sync_ends_no_start_in_a_cluster_that_never_rotated() {
    let directory = tempfile::tempdir().expect("a directory");
    let keyring = keyring(directory.path(), 0);
    let first = there(&keyring);
    let next = first.step(Some(Secret::new([1; 32]))).expect("a step");
    let mut settings = keyring.settings;
    fs::remove_file(&settings.path).expect("removed");
    settings = Keyring::begin(settings, first).expect("it begins").settings;
    let error = Keyring::begin(settings, next)
        .err()
        .expect("it may be lost");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_a_volume_waits_for_is_told_until_it_does_not_wait_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let keyring = keyring(directory.path(), 1);
    let first = there(&keyring);
    let run = directory.path().join("run");
    fs::create_dir_all(&run).expect("made");
    let lock = File::create(run.join("data.lock")).expect("a lock");
    lock.try_lock().expect("locked");
    let secret = Secret::new([1; 32]);
    let next = first.step(Some(secret)).expect("a step");
    keyring.hear(next.prints(), Some(secret)).expect("heard");
    for _ in 0..2 {
        assert_eq!(keyring.place(), next.place());
        assert_eq!(code(keyring.note()).as_deref(), Some("LS6257"));
        assert_eq!(keyring.says(), None);
        keyring.hear(next.prints(), Some(secret)).expect("heard");
    }
    drop(lock);
    keyring.settle();
    assert!(keyring.says().is_some());
    assert_eq!(code(keyring.note()).as_deref(), Some("LS6254"));
}
