//! Ping targets: hosts that are no nodes, and whether this node reaches one of them.
//!
//! A target that answers shows that this node is not the one that is cut off, and nothing more: the other node may
//! reach it as well (docs/controlplane.md).

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::arbiter::boottime_nanos;

/// Between two echo requests to a target at most.
const INTERVAL_MAX: Duration = Duration::from_millis(500);
/// What an echo request carries, besides its numbers.
const PAYLOAD: [u8; 8] = *b"lockstep";

/// When targets are asked, and how long an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two requests to one target.
    pub interval: Duration,
    /// A target answers if a request that was sent within this time was answered.
    pub limit: Duration,
}

impl Times {
    /// For a heartbeat's timeout: when the peer counts as dead, no answer of before its silence does.
    pub fn of(heartbeat_timeout: Duration) -> Self {
        Self {
            interval: INTERVAL_MAX.min(heartbeat_timeout / 8),
            limit: heartbeat_timeout * 3 / 4,
        }
    }
}

/// Asks one host whether it is there.
pub trait Echo: Send + Sync + 'static {
    /// Whether it answered within the limit.
    fn echo(
        &self,
        target: IpAddr,
        number: u16,
        limit: Duration,
    ) -> impl Future<Output = bool> + Send;
}

/// ICMP echo requests, of both families.
pub struct Icmp {
    v4: Client,
    v6: io::Result<Client>,
    identifier: PingIdentifier,
}

impl Icmp {
    /// Within a runtime.
    ///
    /// # Errors
    /// If this process may not open such a socket. Without IPv6 on this machine its targets are silent.
    pub fn new() -> io::Result<Self> {
        let client = |kind| Client::new(&Config::builder().kind(kind).build());
        Ok(Self {
            v4: client(ICMP::V4)?,
            v6: client(ICMP::V6),
            identifier: PingIdentifier(u16::from_le_bytes(
                std::process::id().to_le_bytes()[..2]
                    .try_into()
                    .unwrap_or_default(),
            )),
        })
    }
}

impl Echo for Icmp {
    async fn echo(&self, target: IpAddr, number: u16, limit: Duration) -> bool {
        let client = match (target, &self.v6) {
            (IpAddr::V4(_), _) => &self.v4,
            (IpAddr::V6(_), Ok(client)) => client,
            (IpAddr::V6(_), Err(_)) => return false,
        };
        let mut pinger = client.pinger(target, self.identifier).await;
        pinger.timeout(limit);
        pinger.ping(PingSequence(number), &PAYLOAD).await.is_ok()
    }
}

/// Asks all targets for ever. What is told is when a request was sent that was answered, nanoseconds since boot.
pub async fn watch(
    echo: Arc<impl Echo>,
    targets: Vec<IpAddr>,
    times: Times,
    told: mpsc::Sender<u64>,
) {
    let mut every = interval(times.interval);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number: u16 = 0;
    while !told.is_closed() {
        every.tick().await;
        number = number.wrapping_add(1);
        for target in &targets {
            let (echo, told, target) = (Arc::clone(&echo), told.clone(), *target);
            let asked_nanos = boottime_nanos();
            tokio::spawn(async move {
                if echo.echo(target, number, times.limit).await {
                    // Whoever asked may be gone.
                    let _ = told.send(asked_nanos).await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::timeout;

    const TIMES: Times = Times {
        interval: Duration::from_millis(5),
        limit: Duration::from_millis(500),
    };
    const LIMIT: Duration = Duration::from_secs(20);

    /// Answers to the second target alone, and never to its first request.
    #[derive(Default)]
    struct Fake {
        asked: AtomicU32,
    }

    impl Echo for Fake {
        async fn echo(&self, target: IpAddr, number: u16, _: Duration) -> bool {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if target == IpAddr::from([10, 0, 0, 1]) {
                std::future::pending().await
            }
            number > 1
        }
    }

    #[tokio::test]
    async fn one_target_that_answers_is_enough_and_a_silent_one_delays_nothing() {
        let (told, mut heard) = mpsc::channel(8);
        let echo = Arc::new(Fake::default());
        let targets = vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let began = boottime_nanos();
        let task = tokio::spawn(watch(Arc::clone(&echo), targets, TIMES, told));
        let mut last = began;
        for _ in 0..5 {
            let asked = timeout(LIMIT, heard.recv()).await.expect("an answer");
            let asked = asked.expect("it goes on");
            assert!(asked > began, "it was sent after the first request");
            last = last.max(asked);
        }
        assert!(last <= boottime_nanos());
        assert!(echo.asked.load(Ordering::SeqCst) >= 12);
        drop(heard);
        timeout(LIMIT, task).await.expect("it ends").expect("well");
    }

    /// Needs the right to open such sockets, which `lockstepd` has.
    #[tokio::test]
    async fn this_machine_answers_itself_in_both_families() {
        let icmp = Icmp::new().expect("a socket");
        assert!(icmp.echo(IpAddr::from([127, 0, 0, 1]), 1, LIMIT).await);
        if icmp.v6.is_ok() && std::net::UdpSocket::bind("[::1]:0").is_ok() {
            let own = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
            assert!(icmp.echo(own, 1, LIMIT).await);
        }
    }

    #[test]
    fn an_answer_of_before_the_silence_does_not_count_when_the_peer_is_dead() {
        let times = Times::of(Duration::from_secs(2));
        assert_eq!(times.interval, Duration::from_millis(250));
        assert_eq!(times.limit, Duration::from_millis(1500));
    }
}
