//! What a daemon lives through on this machine: it stands still, has no descriptor left, or strangers sit in every
//! place of its port.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use harness::{Node, Pair};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Connections that a daemon has room for, `peer_link::SESSIONS`.
const PLACES: usize = 6;

fn send(node: &Node, signal: Signal) {
    let pid = i32::try_from(node.pid()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Every descriptor from this number on is refused to the daemon; those that it has it keeps.
fn let_have_descriptors_below(node: &Node, number: u32) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &node.pid().to_string()]);
    prlimit.arg(format!("--nofile={number}:"));
    assert!(prlimit.status().unwrap().success());
}

#[test]
fn a_daemon_that_stands_still_is_a_lost_link_and_comes_back_without_a_copy() {
    let pair = Pair::in_sync("stands-still");
    let before = pair.a.status()["view"]["id"].clone();
    send(&pair.b, Signal::SIGSTOP);
    pair.a.wait_log("LS2002");
    pair.a
        .wait_for("the link is down", |status| status["link"]["state"] != "up");
    send(&pair.b, Signal::SIGCONT);
    pair.wait_in_sync();
    assert_eq!(pair.a.status()["view"]["id"], before, "no view was changed");
    let copies = pair.a.log().matches("LS2008").count();
    assert_eq!(copies, 1, "nothing was copied again: {}", pair.a.log());
}

#[test]
fn a_command_whose_client_has_gone_is_not_carried_out() {
    let pair = Pair::in_sync("client-gone");
    send(&pair.b, Signal::SIGSTOP);
    let mut client = pair.b.connect();
    harness::send(&mut client, "\"request\":\"command\",\"command\":\"stop\"");
    drop(client);
    send(&pair.b, Signal::SIGCONT);
    pair.b.wait_log("LS1084");
    pair.wait_in_sync();
    assert_eq!(pair.b.status()["copy"], "in-sync", "it did not stop");
}

#[test]
fn without_a_free_descriptor_the_link_that_stands_goes_on_and_nobody_new_is_heard() {
    let pair = Pair::in_sync("descriptors");
    let lost = |node: &Node| node.log().matches("LS2002").count();
    let_have_descriptors_below(&pair.a, 3);
    drop(TcpStream::connect(pair.a.address).unwrap());
    // A second lies between two tries: together they are longer than the link timeout.
    pair.a.wait("it tries again and again", || {
        pair.a.log().matches("accept failed").count() >= 4
    });
    let asked = pair.b.status();
    assert_eq!(asked["link"]["state"], "up", "{asked:#}");
    assert_eq!((lost(&pair.a), lost(&pair.b)), (0, 0), "{}", pair.a.log());
    let_have_descriptors_below(&pair.a, 256);
    pair.wait_in_sync();
    assert_eq!((lost(&pair.a), lost(&pair.b)), (0, 0), "{}", pair.a.log());
}

#[test]
fn strangers_in_every_place_delay_the_peer_and_are_put_out() {
    let mut pair = Pair::formatted("every-place");
    pair.a.start();
    let strangers: Vec<TcpStream> = (0..PLACES)
        .map(|_| TcpStream::connect(pair.a.address).unwrap())
        .collect();
    pair.b.start();
    pair.wait_in_sync();
    for mut stranger in strangers {
        let patience = Some(Duration::from_secs(10));
        stranger.set_read_timeout(patience).unwrap();
        let closed = stranger.read(&mut [0; 1]).is_ok_and(|count| count == 0);
        assert!(closed, "a stranger has to say something in time");
    }
}
