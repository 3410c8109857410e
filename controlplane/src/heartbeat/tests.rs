use controlplane_core::self_fencing::Leases;
use mirror_core::keys::Keys;
use mirror_core::types::{BootId, Incarnation};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn loopback() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("a socket");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

fn thread(sockets: Vec<UdpSocket>, interconnects: Vec<Interconnect>) -> Thread {
    let settings = Settings {
        me: NodeId::new(0).expect("a node"),
        peer: NodeId::new(1).expect("a node"),
        own: Run {
            boot: BootId([1; 16]),
            incarnation: Incarnation(1),
        },
        keys: HeartbeatKeys::new(&Keys::first(&[1; 32])),
        timing: Timing::new(SECOND / 4, SECOND).expect("good times"),
        lease: SECOND,
        interconnects,
        subjects: 1,
        wishes: Vec::new(),
        confirmed: None,
        span: Span {
            timeout: SECOND,
            lease: SECOND,
            leases: Leases::Kept,
            takeover_wait: SECOND,
        },
        promised: Factor::ONE,
        word: None,
    };
    let (sender, _) = sync_channel(1);
    let (_, durable) = sync_channel(1);
    let (_, said) = sync_channel(1);
    let (_, rotated) = sync_channel(1);
    let ways = (sender, durable, said, rotated);
    Thread::new(settings, sockets, Arc::default(), ways)
}

/// What strangers sent faster than it is read does not keep this node from its own heartbeats, nor one path from another.
#[test]
fn of_a_storm_so_much_is_read_and_no_more_before_the_next_heartbeat() {
    let (first, second) = (loopback(), loopback());
    let (stranger, elsewhere) = loopback();
    let path = |local| Interconnect {
        local,
        peer: elsewhere,
    };
    let paths = vec![path(first.1), path(second.1)];
    for _ in 0..LISTEN_MAX + 1 {
        stranger.send_to(&[0; 200], first.1).expect("sent");
    }
    stranger.send_to(&[0; 200], second.1).expect("sent");
    let mut thread = thread(vec![first.0, second.0], paths);
    let foreign = |thread: &Thread| {
        let figures = &thread.shared.paths[..2];
        figures
            .iter()
            .map(|path| path.foreign.load(Ordering::Relaxed))
            .collect::<Vec<_>>()
    };
    let most = u64::try_from(LISTEN_MAX).expect("small");
    assert!(thread.listen(), "there is more");
    assert_eq!(foreign(&thread), [most, 1]);
    assert!(!thread.listen(), "that was all");
    assert_eq!(foreign(&thread), [most + 1, 1]);
}
