//! Two daemons with two paths between them; each path goes through a relay that can break it, or swallow what
//! passes while the kernels on both sides believe that all is well.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Node, Pair, free_address};
use serde_json::Value;

/// The link timeout of the harness's configurations.
const LINK_TIMEOUT: Duration = Duration::from_secs(2);
/// What may pass after it until the other path carries the session: two busy processors included.
const MARGIN: Duration = Duration::from_millis(2500);

const WORKS: u8 = 0;
/// Connections stand, and nothing passes.
const SWALLOWS: u8 = 1;
/// Connections are reset.
const BROKEN: u8 = 2;

/// What lies between the dialling node and one address of the listening one.
struct Relay {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            address: listener.local_addr().unwrap(),
            state: Arc::new(AtomicU8::new(WORKS)),
            streams: Arc::default(),
        };
        let (state, streams) = (Arc::clone(&relay.state), Arc::clone(&relay.streams));
        thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                if state.load(Ordering::SeqCst) == BROKEN {
                    continue;
                }
                let Ok(far) = TcpStream::connect(target) else {
                    continue;
                };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = Arc::clone(&state);
                    thread::spawn(move || pass(from, to, &state));
                }
                streams.lock().unwrap().extend([near, far]);
            }
        });
        relay
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        if state == BROKEN {
            for stream in self.streams.lock().unwrap().drain(..) {
                drop(stream.shutdown(Shutdown::Both));
            }
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            break;
        }
        // What was swallowed is lost for ever: TCP would have sent it again, so the stream is useless afterwards.
        if state.load(Ordering::SeqCst) != WORKS {
            while state.load(Ordering::SeqCst) == SWALLOWS {
                thread::sleep(Duration::from_millis(5));
            }
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

struct TwoPaths {
    pair: Pair,
    relays: [Relay; 2],
}

impl TwoPaths {
    /// Configured and formatted.
    fn new(test: &str) -> TwoPaths {
        let pair = Pair::new(test);
        let seconds = [free_address(), free_address()];
        let relays = [Relay::to(pair.a.address), Relay::to(seconds[0])];
        let list =
            |one: SocketAddr, other: SocketAddr| format!("address = [\"{one}\", \"{other}\"]");
        let one = |address: SocketAddr| format!("address = \"{address}\"");
        let (a, b) = (pair.a.address, pair.b.address);
        pair.a.edit_config(&one(a), &list(a, seconds[0]));
        pair.a.edit_config(&one(b), &list(b, seconds[1]));
        pair.b
            .edit_config(&one(a), &list(relays[0].address, relays[1].address));
        pair.b.edit_config(&one(b), &list(b, seconds[1]));
        pair.a.format(&[]);
        pair.b.format(&["--join"]);
        TwoPaths { pair, relays }
    }

    /// Running, with both copies equal and both paths standing.
    fn in_sync(test: &str) -> TwoPaths {
        let mut two = TwoPaths::new(test);
        two.pair.a.start();
        two.pair.b.start();
        two.pair.wait_in_sync();
        two.wait(["in-use", "ready"]);
        two
    }

    fn nodes(&self) -> [&Node; 2] {
        [&self.pair.b, &self.pair.a]
    }

    /// Waits until both nodes see the paths like that.
    fn wait(&self, states: [&str; 2]) {
        for node in self.nodes() {
            node.wait_for(&format!("paths {states:?}"), |status| {
                paths(status) == states && status["link"]["state"] == "up"
            });
        }
    }

    fn wait_logs(&self, code: &str) {
        for node in self.nodes() {
            node.wait_log(code);
        }
    }

    fn count(&self, code: &str) -> [usize; 2] {
        self.nodes().map(|node| node.log().matches(code).count())
    }
}

fn paths(status: &Value) -> [&str; 2] {
    [0, 1].map(|path| {
        status["link"]["paths"][path]["state"]
            .as_str()
            .unwrap_or("none")
    })
}

#[test]
fn a_broken_path_hands_the_session_to_the_other_one_and_gets_it_not_back() {
    let two = TwoPaths::in_sync("broken-path");
    let before = two.pair.a.status()["view"]["id"].clone();
    let begin = Instant::now();
    two.relays[0].set(BROKEN);
    two.wait(["down", "in-use"]);
    assert!(begin.elapsed() < MARGIN, "{:?}", begin.elapsed());
    two.wait_logs("LS2070");
    let status = two.pair.b.status();
    let told = &status["problems"][0];
    assert_eq!(told["code"], "LS2070", "{status:#}");
    assert!(told["message"].as_str().unwrap().contains("path 1"));

    two.relays[0].set(WORKS);
    two.wait_logs("LS2071");
    two.wait(["ready", "in-use"]);
    let status = two.pair.a.status();
    assert_eq!(status["problems"], serde_json::json!([]));
    assert_eq!(status["view"]["id"], before, "no view was changed");
    assert_eq!(two.count("LS2002"), [1, 1], "{}", two.pair.a.log());
    assert_eq!(two.count("LS2008"), [0, 1], "nothing was copied again");
}

#[test]
fn a_path_that_swallows_everything_is_left_after_the_link_timeout() {
    let two = TwoPaths::in_sync("silent-path");
    let begin = Instant::now();
    two.relays[0].set(SWALLOWS);
    two.pair.a.wait_log("LS2002");
    // The kernels believe that the first path works.
    two.wait(["ready", "in-use"]);
    let took = begin.elapsed();
    assert!(took < LINK_TIMEOUT + MARGIN, "{took:?}");
    assert_eq!(two.count("LS2008"), [0, 1], "nothing was copied again");
    two.relays[0].set(WORKS);
    two.wait(["ready", "in-use"]);
    // And the way back.
    let begin = Instant::now();
    two.relays[1].set(SWALLOWS);
    two.pair
        .a
        .wait_for("path 1", |status| paths(status)[0] == "in-use");
    let took = begin.elapsed();
    assert!(took < LINK_TIMEOUT + MARGIN, "{took:?}");
}

#[test]
fn a_lost_spare_is_told_and_the_session_does_not_notice() {
    let two = TwoPaths::in_sync("spare");
    two.relays[1].set(BROKEN);
    two.wait_logs("LS2070");
    two.wait(["in-use", "down"]);
    two.relays[1].set(WORKS);
    two.wait_logs("LS2071");
    two.wait(["in-use", "ready"]);
    assert_eq!(two.count("LS2002"), [0, 0], "{}", two.pair.a.log());
    assert_eq!(two.count("LS2010"), [0, 0], "{}", two.pair.a.log());
}

#[test]
fn a_spare_on_which_nobody_answers_is_given_up_for_the_path_that_works() {
    let two = TwoPaths::in_sync("deaf-spare");
    two.relays[1].set(SWALLOWS);
    two.relays[0].set(BROKEN);
    two.pair.b.wait_log("LS2002");
    two.relays[0].set(WORKS);
    let begin = Instant::now();
    two.wait(["in-use", "ready"]);
    let took = begin.elapsed();
    assert!(took < LINK_TIMEOUT + MARGIN, "{took:?}");
}

#[test]
fn an_address_that_is_not_there_leaves_the_other_path() {
    let mut two = TwoPaths::new("no-address");
    let text = std::fs::read_to_string(two.pair.a.config()).unwrap();
    let missing = text
        .split('"')
        .filter(|part| part.starts_with("127.0.0.1:"));
    let second = missing.into_iter().nth(1).unwrap().to_string();
    two.pair.a.edit_config(&second, "203.0.113.77:7420");
    two.pair.a.start();
    two.pair.a.wait_log("LS2072");
    two.pair.b.start();
    two.pair.wait_in_sync();
    two.wait(["in-use", "down"]);
    two.wait_logs("LS2070");
}

#[test]
fn silent_strangers_keep_nobody_out_and_do_not_count_as_a_path() {
    let mut two = TwoPaths::new("strangers");
    two.pair.a.start();
    // Their address is not the one of the peer.
    let stranger = || {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket,
        };
        use std::os::fd::AsRawFd;
        let fd = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 9, 0)).unwrap();
        let port = two.pair.a.address.port();
        connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
        TcpStream::from(fd)
    };
    let strangers: Vec<TcpStream> = (0..3).map(|_| stranger()).collect();
    two.pair
        .a
        .wait_for("no path", |status| paths(status) == ["down", "down"]);
    two.pair.b.start();
    two.pair.wait_in_sync();
    two.wait(["in-use", "ready"]);
    for mut stranger in strangers {
        stranger
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let closed = stranger.read(&mut [0; 1]).is_ok_and(|count| count == 0);
        assert!(closed, "a stranger has to say something in time");
    }
    two.wait(["in-use", "ready"]);
}

/// Every third time both come together in between; else the link goes again in the middle of that, or before.
#[test]
fn flaps_of_both_paths_change_no_view_and_copy_nothing() {
    const FLAPS: u64 = 12;
    let two = TwoPaths::in_sync("flaps");
    let before = two.pair.a.status()["view"]["id"].clone();
    let set = |state| two.relays.iter().for_each(|relay| relay.set(state));
    for flap in 1..=FLAPS {
        two.pair.a.wait_for("the link is down", |status| {
            // Again: a relay may just have let a connection through.
            set(BROKEN);
            status["link"]["state"] != "up"
        });
        thread::sleep(Duration::from_millis(flap * 97 % 400));
        set(WORKS);
        if flap % 3 == 0 {
            two.pair.wait_in_sync();
        } else {
            thread::sleep(Duration::from_millis(flap * 61 % 150));
        }
    }
    two.pair.wait_in_sync();
    let after = two.pair.a.status()["view"]["id"].clone();
    assert_eq!(after, before, "no view was changed");
    assert_eq!(two.count("LS2008"), [0, 1], "nothing was copied again");
}
