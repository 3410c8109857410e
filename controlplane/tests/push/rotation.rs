//! The cluster's key is rotated, between the same two `lockstepd`: they hear each other all the time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use controlplane_api::cluster::{ClusterStatus, PathState};
use controlplane_api::keys::{KeysShow, Outcome, Rotated};
use controlplane_core::wire::HeartbeatKeys;
use mirror_core::admin::Problem;
use mirror_core::keys::Keys;

use super::beds::{Bed, eventually, goes_by};

const ROTATE: &str = "/v1/keys/rotate";

fn rotate(bed: &Bed, node: usize, body: &str) -> Result<Rotated, Problem> {
    let said = bed.post(node, ROTATE, body)?;
    Ok(serde_json::from_str(&said).expect("an answer"))
}

fn shown(bed: &Bed, node: usize) -> KeysShow {
    serde_json::from_str(&bed.get(node, "/v1/keys")).expect("a state")
}

fn keys(bed: &Bed, node: usize) -> Keys {
    controlplane::key::read(&bed.file(node, "key")).expect("keys")
}

fn both_have(bed: &Bed, generation: u64) {
    eventually("both have it", || {
        let shown = shown(bed, 0);
        let peer = shown.peer.is_some_and(|peer| peer.has(generation));
        shown.own.has(generation) && peer
    });
    assert_eq!(keys(bed, 0), keys(bed, 1));
    assert_eq!(keys(bed, 0).accepted().count(), 1);
}

fn is_alive(bed: &Bed, node: usize) -> bool {
    let status: ClusterStatus =
        serde_json::from_str(&bed.get(node, "/v1/status")).expect("a status");
    status.peer.presence == controlplane_api::cluster::Presence::Alive
}

#[test]
fn the_key_is_rotated_while_both_hear_each_other_and_nobody_writes_it_down_elsewhere() {
    let mut bed = Bed::new();
    bed.start_both();
    let before = keys(&bed, 0);
    let dry = rotate(&bed, 1, r#"{"dry_run":true}"#).expect("it could be");
    assert_eq!((dry.outcome, dry.generation), (Outcome::Possible, 1));
    assert_eq!(fs::read(bed.file(0, "key")).expect("a file"), [7; 32]);
    // On the second node: the first one begins all the same.
    let begun = rotate(&bed, 1, "{}").expect("it begins");
    assert_eq!((begun.outcome, begun.generation), (Outcome::Begun, 1));
    both_have(&bed, 1);
    rotate(&bed, 0, "{}").expect("it begins");
    both_have(&bed, 2);
    let after = keys(&bed, 0);
    assert_eq!(after.cluster(), before.cluster());
    let digits = |keys: &Keys| -> String {
        let bytes = keys.sent().bytes().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    };
    for node in 0..2 {
        let mode = fs::metadata(bed.file(node, "key")).expect("a file");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let words = bed.words(node);
        assert!(
            words.contains("LS6250") && !words.contains("path=0 state=Down"),
            "{words}"
        );
        assert!(!words.contains(&digits(&after)) && !words.contains(&digits(&before)));
        let answers = [bed.get(node, "/v1/keys"), bed.get(node, "/v1/events")];
        assert!(!answers.concat().contains(&digits(&after)));
        assert!(is_alive(&bed, node));
    }
    // What the old key signs is nobody's word: what was recorded, and what is made now.
    let old = HeartbeatKeys::new(&before);
    assert!(old.place() < after.place());
    bed.kill(1);
    fs::write(bed.file(1, "key"), [7; 32]).expect("written");
    bed.start(1);
    eventually("the first one hears it no more", || {
        interconnect(&bed, 0) == PathState::Down
    });
    // Nor is it heard by the one that has the old key: its heartbeats came all the time.
    assert!(is_silent(&bed) && !is_alive(&bed, 1));
}

fn interconnect(bed: &Bed, node: usize) -> PathState {
    path(bed, node).state
}

fn path(bed: &Bed, node: usize) -> controlplane_api::cluster::Path {
    let status: ClusterStatus =
        serde_json::from_str(&bed.get(node, "/v1/status")).expect("a status");
    status.paths.into_iter().next().expect("a path")
}

/// Nothing was heard by the second node since it runs.
fn is_silent(bed: &Bed) -> bool {
    let path = path(bed, 1);
    path.state == PathState::New && path.received == 0
}

#[test]
fn what_has_begun_goes_on_whoever_is_killed() {
    let mut bed = Bed::new();
    bed.start_both();
    let mut generation = 0;
    for (victim, step) in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)] {
        // Where the step was over before the node was killed, it is not what this is about.
        let was_killed_there = (0..TRIES_MAX).any(|_| {
            let place = 3 * generation + step;
            let other = 1 - victim;
            begins(&bed, generation);
            while keys(&bed, victim).place().0 < place {
                thread::sleep(Duration::from_millis(1));
            }
            bed.kill(victim);
            let places = [victim, other].map(|node| keys(&bed, node).place().0);
            let is_between = places[0] == place && places != [3 * (generation + 1); 2];
            bed.start(victim);
            generation += 1;
            both_have(&bed, generation);
            eventually("they hear each other", || {
                is_alive(&bed, 0) && is_alive(&bed, 1)
            });
            // The second node comes to the last step after the first one: there nothing is left.
            is_between || (victim, step) == (1, 3)
        });
        assert!(
            was_killed_there,
            "node {victim} was never killed at step {step}"
        );
    }
}

/// Tries to kill a node right after a step. The next one comes some hundred milliseconds later.
const TRIES_MAX: u32 = 5;

fn begins(bed: &Bed, generation: u64) {
    eventually("it begins", || {
        let begun = rotate(bed, 0, "{}");
        begun.is_ok_and(|begun| begun.generation == generation + 1)
    });
}

#[test]
fn beside_a_node_that_is_not_there_nothing_begins() {
    let mut bed = Bed::new();
    bed.start(0);
    let problem = rotate(&bed, 0, "{}").expect_err("nobody is there");
    assert_eq!(problem.code, "LS6251", "{problem:?}");
    assert_eq!(fs::read(bed.file(0, "key")).expect("a file"), [7; 32]);
    bed.start_both_again();
    // A file that somebody put in place counts for nothing.
    fs::write(bed.file(1, "key"), [8; 40]).expect("written");
    let problem = rotate(&bed, 0, "{}").expect_err("it was changed");
    assert_eq!(problem.code, "LS6255", "{problem:?}");
    fs::write(bed.file(1, "key"), [7; 32]).expect("written");
    rotate(&bed, 0, "{}").expect("it begins");
    both_have(&bed, 1);
}

/// A volume's daemon, as far as it is asked here.
fn daemon(bed: &Bed, node: usize, answer: impl Fn(&Path) -> String + Send + 'static) {
    let volumes = bed.file(node, "volumes");
    fs::create_dir_all(&volumes).expect("a directory");
    let key = bed.file(node, "key");
    let text = format!("key_file = \"{}\"\n", key.display());
    fs::write(volumes.join("other.toml"), text).expect("written");
    let _ = fs::remove_file(bed.file(node, "other.sock"));
    let listener = UnixListener::bind(bed.file(node, "other.sock")).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = String::new();
            if BufReader::new(&stream).read_line(&mut request).is_ok() {
                let _ = writeln!(stream, "{}", answer(&key));
            }
        }
    });
}

fn old(_: &Path) -> String {
    let problem = r#"{"code":"LS3031","message":"the request is not understood","advice":"x"}"#;
    format!(r#"{{"schema":"lockstep.admin/1","ok":false,"problem":{problem}}}"#)
}

fn deaf(_: &Path) -> String {
    r#"{"schema":"lockstep.admin/1","ok":true,"keys":0}"#.to_string()
}

#[test]
fn the_daemons_of_volumes_are_waited_for() {
    let mut bed = Bed::new();
    bed.start_both();
    daemon(&bed, 1, old);
    let problem = rotate(&bed, 0, "{}").expect_err("of an earlier release");
    assert_eq!(problem.code, "LS6252", "{problem:?}");
    daemon(&bed, 1, goes_by);
    let own = bed.file(1, "volumes/own.toml");
    fs::write(&own, "key_file = \"/etc/hostname\"\n").expect("written");
    let problem = rotate(&bed, 0, "{}").expect_err("another key file");
    assert_eq!(problem.code, "LS6256", "{problem:?}");
    fs::remove_file(own).expect("removed");
    // It goes by what was there before, whatever is in the file: nobody goes further than a step.
    daemon(&bed, 1, deaf);
    rotate(&bed, 0, "{}").expect("it begins");
    eventually("it waits", || {
        let peer = shown(&bed, 0).peer;
        peer.is_some_and(|peer| peer.problem.is_some_and(|why| why.code == "LS6257"))
    });
    let places = [0, 1].map(|node| keys(&bed, node).place().0);
    assert_eq!(places, [1, 1]);
    let again = rotate(&bed, 0, "{}").expect("it is under way");
    assert_eq!((again.outcome, again.generation), (Outcome::UnderWay, 1));
    let status: ClusterStatus = serde_json::from_str(&bed.get(0, "/v1/status")).expect("a status");
    assert_eq!(status.keys.map(|it| it.code).as_deref(), Some("LS6254"));
    daemon(&bed, 1, goes_by);
    both_have(&bed, 1);
}

/// Whatever is in its file: who runs is asked.
#[test]
fn a_daemon_whose_file_cannot_be_read_is_waited_for_as_well() {
    let mut bed = Bed::new();
    bed.start_both();
    let asked = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&asked);
    daemon(&bed, 1, move |key| {
        counts.fetch_add(1, Ordering::SeqCst);
        deaf(key)
    });
    let volume = bed.file(1, "volumes/other.toml");
    let text = fs::read(&volume).expect("a file");
    fs::write(&volume, "key_file = ").expect("written");
    let problem = rotate(&bed, 0, "{}").expect_err("which key file has it?");
    assert_eq!(problem.code, "LS6256", "{problem:?}");
    fs::write(&volume, text).expect("written");
    rotate(&bed, 0, "{}").expect("it begins");
    for spoil in [Spoil::Text, Spoil::File, Spoil::Socket] {
        match spoil {
            Spoil::Text => fs::write(&volume, "key_file = ").expect("written"),
            Spoil::File => fs::remove_file(&volume).expect("removed"),
            Spoil::Socket => {
                let lock = fs::File::create(bed.file(1, "other.lock")).expect("a lock");
                lock.try_lock().expect("locked");
                fs::remove_file(bed.file(1, "other.sock")).expect("removed");
                waits(&bed, "does not listen");
                drop(lock);
                continue;
            }
        }
        // The first of them may be of a look that began before.
        let before = asked.load(Ordering::SeqCst);
        eventually("it is asked", || asked.load(Ordering::SeqCst) > before + 1);
        waits(&bed, "another key file");
    }
    // It has ended.
    both_have(&bed, 1);
}

enum Spoil {
    Text,
    File,
    Socket,
}

/// The second node took the first step, and not all of it goes by that.
fn waits(bed: &Bed, why: &str) {
    eventually(why, || {
        let problem = shown(bed, 1).own.problem;
        problem.is_some_and(|it| it.code == "LS6257" && it.message.contains(why))
    });
    assert_eq!([0, 1].map(|node| keys(bed, node).place().0), [1, 1]);
}

#[test]
fn who_gets_an_old_key_file_back_is_told_so_though_nobody_hears_it() {
    let mut bed = Bed::new();
    bed.start_both();
    rotate(&bed, 0, "{}").expect("it begins");
    both_have(&bed, 1);
    bed.kill(1);
    // Its mirror link would hear the other node.
    fs::remove_file(bed.file(0, "data.sock")).expect("removed");
    eventually("it is heard no more", || !is_alive(&bed, 0));
    fs::write(bed.file(1, "key"), [7; 32]).expect("written");
    bed.start(1);
    for node in 0..2 {
        eventually("it is told", || {
            let status: ClusterStatus =
                serde_json::from_str(&bed.get(node, "/v1/status")).expect("a status");
            status.keys.is_some_and(|it| it.code == "LS6253")
        });
    }
    assert!(!is_alive(&bed, 0));
}
