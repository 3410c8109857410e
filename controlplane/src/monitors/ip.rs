//! Addresses that answer to ICMP echo requests: one that does is enough.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Ill;
use crate::ping::{Echo, Icmp};
use crate::resources::Limit;

/// Between two looks whether somebody waits for the answer still.
const WAIT: Duration = Duration::from_millis(100);

/// Requests of all monitors have numbers of their own: an answer to another one's is taken by nobody else.
static NUMBER: AtomicU16 = AtomicU16::new(0);

/// Addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// One to eight.
    pub targets: Vec<IpAddr>,
}

impl Ip {
    pub(super) fn look(&self, limit: &Limit) -> Result<(), Ill> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Ill::Socket)?;
        runtime.block_on(async {
            let icmp = Icmp::new().map_err(Ill::Socket)?;
            self.ask(Arc::new(icmp), limit).await
        })
    }

    async fn ask(&self, echo: Arc<impl Echo>, limit: &Limit) -> Result<(), Ill> {
        let within = limit.left();
        let mut answers = JoinSet::new();
        for target in &self.targets {
            let (echo, target) = (Arc::clone(&echo), *target);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            answers.spawn(async move { echo.echo(target, number, within).await });
        }
        loop {
            match timeout(WAIT, answers.join_next()).await {
                Ok(Some(Ok(true))) => return Ok(()),
                // The last one said no.
                Ok(None) => break,
                Ok(Some(Ok(false) | Err(_))) | Err(_) => {}
            }
            if limit.check().is_err() {
                break;
            }
        }
        let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        Err(Ill::Silent {
            targets: targets.join(", "),
            within_ms: within.as_millis(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Only this address answers; the others are silent for ever.
    struct Fake(IpAddr);

    impl Echo for Fake {
        async fn echo(&self, target: IpAddr, _: u16, _: Duration) -> bool {
            target == self.0 || std::future::pending().await
        }
    }

    fn targets() -> Ip {
        Ip {
            targets: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
        }
    }

    fn limit(millis: u64) -> Limit {
        Limit::new(Duration::from_millis(millis), Arc::default())
    }

    #[tokio::test]
    async fn one_address_that_answers_is_enough_and_a_silent_one_delays_nothing() {
        let fake = Arc::new(Fake([10, 0, 0, 2].into()));
        let limit = limit(60_000);
        targets().ask(fake, &limit).await.expect("an answer");
        assert!(limit.left() > Duration::from_secs(30));
    }

    #[tokio::test]
    async fn without_any_answer_it_is_over_at_the_timeout_or_when_nobody_waits() {
        let fake = Arc::new(Fake([10, 0, 0, 9].into()));
        let asked = targets().ask(Arc::clone(&fake), &limit(50)).await;
        let text = asked.expect_err("silent").to_string();
        assert!(text.ends_with("from 10.0.0.1, 10.0.0.2"), "{text}");
        let ended = Limit::new(Duration::from_secs(600), Arc::new(AtomicBool::new(true)));
        targets().ask(fake, &ended).await.expect_err("broken off");
    }

    /// Needs the right to open such sockets, which `lockstepd` has.
    #[test]
    fn this_machine_answers_itself() {
        let ip = Ip {
            targets: vec![[127, 0, 0, 1].into()],
        };
        ip.look(&limit(20_000)).expect("an answer");
    }
}
