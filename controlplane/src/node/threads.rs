//! Threads that wait for what blocks, and queue what they hear.

use anyhow::Context;
use controlplane_api::Client;
use tokio::sync::mpsc;

use super::{Incoming, LOOK_INTERVAL};
use crate::arbiter::boottime_nanos;
use crate::heartbeat::News;

pub(super) fn forward_heartbeats(
    news: std::sync::mpsc::Receiver<News>,
    queue: mpsc::Sender<Incoming>,
) -> anyhow::Result<()> {
    let forward = move || {
        while let Ok(news) = news.recv() {
            if queue
                .blocking_send(Incoming::Heartbeat(Box::new(news)))
                .is_err()
            {
                return;
            }
        }
        // Nobody is there to be told if the daemon ends.
        let _ = queue.blocking_send(Incoming::HeartbeatsEnded);
    };
    std::thread::Builder::new()
        .name("news".to_string())
        .spawn(forward)
        .context("a thread for the heartbeat's news")?;
    Ok(())
}

pub(super) fn watch_volume(
    group: usize,
    name: String,
    queue: mpsc::Sender<Incoming>,
) -> anyhow::Result<()> {
    let watch = move || {
        let client = Client::of_volume(&name);
        loop {
            let asked_nanos = boottime_nanos();
            let status = client.status().ok().map(Box::new);
            let name = name.clone();
            let told = Incoming::Status {
                group,
                name,
                asked_nanos,
                status,
            };
            if queue.blocking_send(told).is_err() {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    };
    std::thread::Builder::new()
        .name("volume".to_string())
        .spawn(watch)
        .context("a thread for a volume")?;
    Ok(())
}
