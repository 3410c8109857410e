//! Two heartbeat threads over loopback.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use controlplane::arbiter::boottime_nanos;
use controlplane::heartbeat::{Heartbeats, Interconnect, News, Settings, start};
use controlplane_core::failure_detector::{Change, PathState, Presence, Timing};
use controlplane_core::membership::Run;
use controlplane_core::self_fencing::{ClearGroups, Leases, Left};
use controlplane_core::timeouts::{Allowance, Factor, Span, Word};
use controlplane_core::wire::HeartbeatKeys;
use controlplane_core::wish::{GroupKey, Origin, Subject, Want, Wish};
use mirror_core::keys::{Keys, Secret};
use mirror_core::types::{BootId, Incarnation, NodeId};

const TIMEOUT: Duration = Duration::from_millis(500);

/// Two free ports of loopback, for each node one.
fn pair() -> [Interconnect; 2] {
    let socket = || UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (one, two) = (socket(), socket());
    let address = |socket: &UdpSocket| socket.local_addr().expect("an address");
    let (one, two) = (address(&one), address(&two));
    let interconnect = |local, peer| Interconnect { local, peer };
    [interconnect(one, two), interconnect(two, one)]
}

fn node(number: u8, paths: &[[Interconnect; 2]], key: u8) -> Heartbeats {
    node_timed(number, paths, key, (TIMEOUT, TIMEOUT))
}

fn node_timed(
    number: u8,
    paths: &[[Interconnect; 2]],
    key: u8,
    times: (Duration, Duration),
) -> Heartbeats {
    start(settings(number, paths, key, times)).expect("it starts")
}

fn settings(
    number: u8,
    paths: &[[Interconnect; 2]],
    key: u8,
    (timeout, lease): (Duration, Duration),
) -> Settings {
    let side = usize::from(number);
    Settings {
        me: NodeId::new(number).expect("a node"),
        peer: NodeId::new(1 - number).expect("a node"),
        own: Run {
            boot: BootId([number + 1; 16]),
            incarnation: Incarnation(u64::from(number) + 100),
        },
        keys: HeartbeatKeys::new(&Keys::first(&[key; 32])),
        timing: Timing::new(Duration::from_millis(25), timeout).expect("good times"),
        lease,
        interconnects: paths.iter().map(|pair| pair[side]).collect(),
        subjects: 2,
        wishes: Vec::new(),
        confirmed: None,
        span: Span {
            timeout,
            lease,
            leases: Leases::Kept,
            takeover_wait: Duration::from_millis(200),
        },
        promised: Factor::ONE,
        word: None,
    }
}

fn hears(heartbeats: &Heartbeats, wanted: News) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let news = heartbeats.news.recv_timeout(left);
        match news.expect("nothing of that kind was heard") {
            news if news == wanted => return,
            _ => {}
        }
    }
}

fn ends(heartbeats: Heartbeats) {
    heartbeats.shared.ends.store(true, Ordering::Relaxed);
    let ended = heartbeats.thread.join().expect("it does not panic");
    ended.expect("it ends well");
}

const ALIVE: News = News::Changed(Change::Peer(Presence::Alive));
const DEAD: News = News::Changed(Change::Peer(Presence::Dead));

#[test]
fn two_nodes_hear_each_other_and_the_one_that_ends_is_dead() {
    let paths = [pair(), pair()];
    let (one, two) = (node(0, &paths, 1), node(1, &paths, 1));
    hears(&one, ALIVE);
    hears(&two, ALIVE);
    assert!(one.shared.confirmed_nanos.load(Ordering::Relaxed) > 0);
    ends(two);
    hears(&one, DEAD);
    // It runs again: another run of the same boot is another incarnation, which this test does not change.
    ends(one);
}

#[test]
fn a_path_on_which_this_node_is_not_heard_is_told_and_the_peer_lives() {
    let (first, second) = (pair(), pair());
    // On the second path the other node sends, and listens elsewhere.
    let elsewhere = Interconnect {
        local: pair()[0].local,
        peer: second[1].peer,
    };
    let one = node(0, &[first, second], 1);
    let two = node(1, &[first, [second[0], elsewhere]], 1);
    hears(&one, ALIVE);
    let one_way = Change::Path {
        path: 1,
        state: PathState::OneWay,
    };
    hears(&one, News::Changed(one_way));
    ends(one);
    ends(two);
}

#[test]
fn another_cluster_is_not_heard() {
    let paths = [pair()];
    let (one, two) = (node(0, &paths, 1), node(1, &paths, 2));
    hears(&one, DEAD);
    assert!(one.shared.paths[0].foreign.load(Ordering::Relaxed) > 0);
    ends(one);
    ends(two);
}

/// A heartbeat of a node of another cluster.
fn strange() -> Vec<u8> {
    let ear = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let [mut way, _] = pair();
    way.peer = ear.local_addr().expect("an address");
    let stranger = node(0, &[[way, way]], 2);
    let mut bytes = vec![0; 2000];
    let (length, _) = ear.recv_from(&mut bytes).expect("a heartbeat");
    ends(stranger);
    bytes.truncate(length);
    bytes
}

/// Strangers send as fast as they can to one path: this node goes on sending, and nobody is dead.
#[test]
fn a_storm_of_strangers_delays_no_heartbeat() {
    const HEARTBEATS: u64 = 20;
    const DATAGRAMS: u64 = 1000;
    let paths = [pair(), pair()];
    let times = (4 * TIMEOUT, 4 * TIMEOUT);
    let node = |number| node_timed(number, &paths, 1, times);
    let (one, two) = (node(0), node(1));
    hears(&one, ALIVE);
    hears(&two, ALIVE);
    let ended = AtomicBool::new(false);
    let bytes = strange();
    let storm = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        while !ended.load(Ordering::Relaxed) {
            let _ = socket.send_to(&bytes, paths[0][0].local);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(storm);
        scope.spawn(storm);
        let figures = |heartbeats: &Heartbeats, path: usize| {
            let path = &heartbeats.shared.paths[path];
            let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
            (read(&path.received), read(&path.foreign))
        };
        let before = [figures(&two, 0).0, figures(&two, 1).0];
        let end = Instant::now() + Duration::from_secs(20);
        let goes_on = || {
            let heard = |path: usize| figures(&two, path).0 >= before[path] + HEARTBEATS;
            heard(0) && heard(1) && figures(&one, 0).1 >= DATAGRAMS
        };
        while !goes_on() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let went_on = goes_on();
        ended.store(true, Ordering::Relaxed);
        assert!(went_on, "{:?} {:?}", figures(&one, 0), figures(&two, 0));
    });
    for node in [&one, &two] {
        assert!(node.news.try_iter().all(|news| news != DEAD));
    }
    ends(one);
    ends(two);
}

/// What an operator wishes on one node is heard by the other one, until that one knows it too.
#[test]
fn wishes_are_told_with_heartbeats_until_both_know_them() {
    let paths = [pair()];
    let (one, two) = (node(0, &paths, 7), node(1, &paths, 7));
    hears(&one, ALIVE);
    let wish = Wish {
        subject: Subject::Group(GroupKey::of("pg")),
        number: 3,
        by: NodeId::new(0).expect("a node"),
        want: Want::Stopped { home: None },
        origin: Origin::Operator,
    };
    one.wishes.send(wish).expect("a thread");
    hears(&two, News::Wish(wish));
    let digest = || one.shared.peer_wishes.load(Ordering::Relaxed);
    assert_eq!(digest(), 0, "the other node knows nothing yet");
    two.wishes.send(wish).expect("a thread");
    let end = Instant::now() + Duration::from_secs(20);
    while digest() == 0 {
        assert!(Instant::now() < end, "nobody says that it knows");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(digest(), two.shared.peer_wishes.load(Ordering::Relaxed));
    ends(one);
    ends(two);
}

/// What services elsewhere wait for: the word of a moment after this node began to serve, and gaps in what is confirmed.
#[test]
fn what_is_left_on_a_node_and_gaps_in_its_word_are_heard() {
    let paths = [pair()];
    let (one, two) = (node(0, &paths, 9), node(1, &paths, 9));
    hears(&one, ALIVE);
    let (here, there) = (GroupKey(3), GroupKey(4));
    assert_eq!(one.shared.peer_clear.asked(here), None);
    let clear = ClearGroups::of([(here, Left::Nothing), (there, Left::Something)]);
    let since = boottime_nanos();
    two.shared.clear.store(clear.bits(), Ordering::Relaxed);
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    };
    let asked = || {
        one.shared
            .peer_clear
            .asked(here)
            .map_or(0, |at| at.as_nanos())
    };
    until("nothing is left there", &|| asked() > since);
    assert_eq!(one.shared.peer_clear.asked(there), None);
    two.shared.clear.store(0, Ordering::Relaxed);
    until("something is there again", &|| asked() == 0);
    assert_eq!(one.shared.gaps.load(Ordering::Relaxed), 0);
    ends(two);
    until("a gap", &|| one.shared.gaps.load(Ordering::Relaxed) == 1);
    hears(&one, DEAD);
    assert_eq!(one.shared.gaps.load(Ordering::Relaxed), 1);
    // What was forgiven meanwhile says nothing of the end of the gap: it counts once more, before what comes then.
    let before = one.shared.confirmed_nanos.load(Ordering::Acquire);
    let mut anew = settings(1, &paths, 9, (TIMEOUT, TIMEOUT));
    anew.own.incarnation = Incarnation(999);
    let two = start(anew).expect("it starts");
    until("a confirmation", &|| {
        one.shared.confirmed_nanos.load(Ordering::Acquire) > before
    });
    assert!(one.shared.gaps.load(Ordering::Relaxed) >= 2);
    ends(two);
    ends(one);
}

/// Between two configurations services have less time than the other node waits: by the shorter one a gap is counted.
#[test]
fn a_gap_is_one_of_the_lease_and_not_of_the_timeout() {
    let paths = [pair()];
    let (timeout, lease) = (Duration::from_secs(60), Duration::from_millis(125));
    let (one, two) = (
        node_timed(0, &paths, 5, (timeout, lease)),
        node(1, &paths, 5),
    );
    hears(&one, ALIVE);
    ends(two);
    let end = Instant::now() + timeout / 3;
    while one.shared.gaps.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < end, "no gap");
        std::thread::yield_now();
    }
    ends(one);
}

/// Both promise: each has the longer lease, and neither counts the other one as dead before. A word goes over as well. The one that is
/// allowed nothing more keeps what it said.
#[test]
fn a_promise_lengthens_the_lease_of_the_other_node_and_is_kept() {
    let paths = [pair()];
    let triple = Factor::of_tenths(30).expect("a factor");
    let (one, two) = (node(0, &paths, 1), node(1, &paths, 1));
    hears(&one, ALIVE);
    let word = Word {
        number: 1,
        by: NodeId::new(1).expect("a node"),
        factor: triple,
        lasts: Duration::from_secs(60),
        over: None,
    };
    two.words.try_send(word).expect("room");
    hears(&one, News::Timeouts(word));
    let allowance = |number, factor| Allowance { number, factor };
    one.shared.timeouts.allow(allowance(1, triple));
    eventually(|| one.shared.timeouts.waits() == allowance(1, triple));
    eventually(|| two.shared.timeouts.peer() == Some((triple, Factor::ONE)));
    // Nobody allowed the other one: it may be as careful, and goes by nothing.
    assert_eq!(two.shared.timeouts.raised(), None);
    two.shared.timeouts.allow(allowance(1, triple));
    eventually(|| one.shared.timeouts.raised().is_some());
    eventually(|| two.shared.timeouts.peer() == Some((triple, triple)));
    let raised = one.shared.timeouts.raised().expect("a lease");
    assert_eq!(raised.factor, triple);
    let ended = boottime_nanos();
    ends(two);
    hears(&one, DEAD);
    let silent = Duration::from_nanos(boottime_nanos() - ended);
    assert!(
        silent >= TIMEOUT * 3 - Duration::from_millis(100),
        "{silent:?}"
    );
    one.shared.timeouts.allow(allowance(2, Factor::ONE));
    eventually(|| one.shared.timeouts.waits().number == 2);
    assert_eq!(one.shared.timeouts.waits().factor, triple, "it is kept");
    eventually(|| one.shared.timeouts.waits() == allowance(2, Factor::ONE));
    ends(one);
}

/// Hands on what comes, until it is told not to.
fn relay(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<AtomicBool>, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let wait = Some(Duration::from_millis(10));
    socket.set_read_timeout(wait).expect("a time");
    let cut = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cut);
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        while !told.load(Ordering::Relaxed) {
            if let Ok((length, _)) = socket.recv_from(&mut bytes) {
                // Whoever is gone hears nothing.
                let _ = socket.send_to(&bytes[..length], to);
            }
        }
    });
    (address, cut, thread)
}

/// On the second path the other node confirms what it had before that path broke towards it: that is no word about the lease.
#[test]
fn a_path_that_confirms_what_is_old_does_not_take_back_a_lease() {
    let (first, second) = (pair(), pair());
    let (address, cut, relay) = relay(second[0].peer);
    let relayed = Interconnect {
        local: second[0].local,
        peer: address,
    };
    let triple = Factor::of_tenths(30).expect("a factor");
    let allowance = Allowance {
        number: 1,
        factor: triple,
    };
    let one = node(0, &[first, [relayed, second[1]]], 1);
    let two = node(1, &[first, second], 1);
    hears(&one, ALIVE);
    one.shared.timeouts.allow(allowance);
    two.shared.timeouts.allow(allowance);
    let state = |state| {
        let path = 1;
        News::Changed(Change::Path { path, state })
    };
    eventually(|| one.shared.timeouts.raised().is_some());
    eventually(|| one.shared.paths[1].received.load(Ordering::Relaxed) > 8);
    cut.store(true, Ordering::Relaxed);
    relay.join().expect("it ends well");
    hears(&one, state(PathState::OneWay));
    let mut last = one.shared.timeouts.raised().expect("a lease").sent;
    let goal = last + TIMEOUT * 2;
    let end = Instant::now() + Duration::from_secs(20);
    while last < goal {
        assert!(Instant::now() < end, "the lease gets no longer");
        let sent = one.shared.timeouts.raised().expect("a lease").sent;
        assert!(sent >= last, "a lease is taken back");
        last = sent;
    }
    assert_eq!(one.shared.gaps.load(Ordering::Relaxed), 0);
    ends(one);
    ends(two);
}

fn eventually(is: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "it does not come to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As the file of each node says, one step after the other, the first node always a step ahead.
#[test]
fn a_rotation_costs_no_heartbeat_and_the_old_key_is_deaf_afterwards() {
    let paths = [pair()];
    let nodes = [node(0, &paths, 1), node(1, &paths, 1)];
    hears(&nodes[0], ALIVE);
    hears(&nodes[1], ALIVE);
    let mut keys = Keys::first(&[1; 32]);
    let first = HeartbeatKeys::new(&keys);
    for _ in 0..3 {
        keys = keys.step(Some(Secret::new([2; 32]))).expect("a step");
        for node in &nodes {
            node.keys.send(HeartbeatKeys::new(&keys)).expect("taken");
            let place = &node.shared.keys_place;
            wait_until(|| place.load(Ordering::Acquire) == keys.place().0);
            for node in &nodes {
                let received = || node.shared.paths[0].received.load(Ordering::Relaxed);
                let before = received();
                wait_until(|| received() > before + 2);
            }
        }
    }
    for node in &nodes {
        assert!(node.news.try_iter().all(|news| news != DEAD));
        assert_eq!(node.shared.paths[0].foreign.load(Ordering::Relaxed), 0);
    }
    // What was recorded before, and whoever has the old key still.
    let [one, two] = nodes;
    ends(two);
    hears(&one, DEAD);
    let foreign = || one.shared.paths[0].foreign.load(Ordering::Relaxed);
    let old = node(1, &paths, 1);
    wait_until(|| foreign() > 3);
    let received = one.shared.paths[0].received.load(Ordering::Relaxed);
    assert!(first.place() < keys.place());
    wait_until(|| foreign() > 6);
    assert_eq!(
        one.shared.paths[0].received.load(Ordering::Relaxed),
        received
    );
    assert!(one.news.try_iter().all(|news| news != ALIVE));
    ends(old);
    ends(one);
}

fn wait_until(is: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
