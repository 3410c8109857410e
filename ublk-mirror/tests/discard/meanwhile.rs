//! What happens while blocks are kept: another word, a change, a stop, a death. Where this machine is slow the other thing
//! may come too late; then it is tried with a fresh pair.

use std::fs::{self};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::bed::*;
use crate::harness;

/// A fresh pair is tried so often.
const TRIES_MAX: u32 = 5;

#[test]
fn while_blocks_are_kept_no_other_word_discards_them() {
    let met = (0..TRIES_MAX).any(|_| other_words_while_it_keeps());
    assert!(met, "never at the same time");
}

/// Whether all words came in time.
fn other_words_while_it_keeps() -> bool {
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
                if is_discarded(&pair.b) {
                    return false;
                }
                assert!(Instant::now() < end, "busy for ever");
                continue 'kept;
            }
            client.set_nonblocking(false).unwrap();
        }
        break client;
    };
    let force = "\"request\":\"command\",\"command\":\"force\",\"confirm\":\"data\"";
    let mut in_time = true;
    for word in [&format!("{RESOLVE},\"keep\":\"no\""), RESOLVE, force] {
        let answer = pair.b.ask(word);
        if answer["problem"]["code"] != "LS1078" {
            // Then the first one is over, and is answered as if it had been alone.
            assert_eq!(answer["ok"], false, "{answer}");
            in_time = false;
            break;
        }
        let said = answer["problem"]["message"].as_str().unwrap();
        assert!(said.contains("are being kept already"), "{said}");
    }
    let answer = harness::receive(kept);
    assert_eq!(answer["done"], "discarded", "{answer}");
    let file = answer["kept"]["file"].as_str().unwrap();
    let (_, runs) = read(&fs::read(file).unwrap()).unwrap();
    holds(&runs, &before);
    in_time
}

#[test]
fn a_daemon_that_is_stopped_leaves_no_file_of_what_it_did_not_discard() {
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
fn a_side_that_changes_while_it_is_kept_is_not_discarded() {
    let met = (0..TRIES_MAX).any(|_| changes_while_it_is_kept());
    assert!(met, "never at the same time");
}

/// Whether the change came in time.
fn changes_while_it_is_kept() -> bool {
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
        if kept["done"] == "discarded" {
            assert_eq!(activated["ok"], false, "{kept} {activated}");
            return false;
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
    true
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
