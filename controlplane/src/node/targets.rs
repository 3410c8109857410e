//! Ping targets, as a node counts them: those of the arbiter `ping`, and those without which nothing is taken over.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use controlplane_core::keeper::{ArbiterKind, Event};
use controlplane_core::partition::Targets;
use mirror_core::types::Instant;
use tokio::sync::mpsc;

use super::{Incoming, Node, QUEUE_MAX, now};
use crate::config::Config;
use crate::ping::{Icmp, Times, watch};

/// What targets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The arbiter `ping`.
    Arbiter,
    /// The clients' networks.
    Clients,
}

/// Targets for one purpose.
#[derive(Debug)]
pub(super) struct Watched {
    purpose: Purpose,
    addresses: Vec<IpAddr>,
    times: Times,
    /// When the last request was sent that was answered.
    answered: Option<Instant>,
    /// What was told last.
    pub(super) state: Targets,
}

impl Watched {
    fn state(&self, now: Instant) -> Targets {
        let counts = |asked: Instant| now < asked + self.times.limit;
        match self.answered {
            Some(asked) if counts(asked) => Targets::Answer,
            Some(_) | None => Targets::Silent,
        }
    }
}

/// All that are configured.
pub(super) fn configured(config: &Config) -> Vec<Watched> {
    let purposes = [
        (Purpose::Arbiter, &config.ping),
        (Purpose::Clients, &config.clients),
    ];
    let configured = purposes.into_iter().filter(|(_, all)| !all.is_empty());
    let watched = configured.map(|(purpose, addresses)| Watched {
        purpose,
        addresses: addresses.clone(),
        times: Times::of(config.lease),
        answered: None,
        state: Targets::Silent,
    });
    watched.collect()
}

/// Asks them for ever.
pub(super) fn ask(watched: &[Watched], queue: &mpsc::Sender<Incoming>) -> anyhow::Result<()> {
    if watched.is_empty() {
        return Ok(());
    }
    let icmp = Icmp::new().context("a socket for the ping targets")?;
    let icmp = Arc::new(icmp);
    for watched in watched {
        let (told, mut heard) = mpsc::channel(QUEUE_MAX);
        let addresses = watched.addresses.clone();
        tokio::spawn(watch(Arc::clone(&icmp), addresses, watched.times, told));
        let (queue, purpose) = (queue.clone(), watched.purpose);
        tokio::spawn(async move {
            while let Some(asked_nanos) = heard.recv().await {
                let pinged = Incoming::Pinged {
                    purpose,
                    asked_nanos,
                };
                if queue.send(pinged).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

impl Node {
    /// A target answered a request that was sent then.
    pub(super) fn pinged(&mut self, purpose: Purpose, asked_nanos: u64) {
        let asked = Instant::from_nanos(asked_nanos);
        let of = |watched: &&mut Watched| watched.purpose == purpose;
        let Some(watched) = self.targets.iter_mut().find(of) else {
            return;
        };
        watched.answered = watched.answered.max(Some(asked));
        self.look_at_targets();
        if purpose == Purpose::Arbiter {
            self.everywhere(&Event::Contact { asked });
        }
    }

    /// Time passes: whoever did not answer is silent.
    pub(super) fn look_at_targets(&mut self) {
        let now = now();
        let mut changed = false;
        for watched in &mut self.targets {
            let state = watched.state(now);
            changed |= state != watched.state;
            if state != watched.state {
                watched.state = state;
                tell(watched);
            }
        }
        if changed {
            self.everywhere(&Event::Targets {
                arbiter: self.targets_of(Purpose::Arbiter).unwrap_or(Targets::Silent),
                clients: self.targets_of(Purpose::Clients).unwrap_or(Targets::Answer),
            });
        }
    }

    /// `None` if none are configured.
    pub(super) fn targets_of(&self, purpose: Purpose) -> Option<Targets> {
        let of = |watched: &&Watched| watched.purpose == purpose;
        self.targets.iter().find(of).map(|watched| watched.state)
    }

    /// The next moment at which a target may turn out to be silent.
    pub(super) fn targets_deadline(&self) -> Option<Instant> {
        let answer = |watched: &&Watched| watched.state == Targets::Answer;
        let deadlines = self.targets.iter().filter(answer);
        deadlines
            .filter_map(|watched| Some(watched.answered? + watched.times.limit))
            .min()
    }

    /// Whether the arbiter answers, if it is of a kind that can.
    pub(super) fn arbiter_state(&self) -> Option<bool> {
        match self.config.arbiter {
            ArbiterKind::Register => self.arbiter_answers,
            ArbiterKind::Ping => self
                .targets_of(Purpose::Arbiter)
                .map(|state| state == Targets::Answer),
            ArbiterKind::Manual | ArbiterKind::Nobody => None,
        }
    }
}

fn tell(watched: &Watched) {
    let targets: Vec<String> = watched.addresses.iter().map(ToString::to_string).collect();
    let targets = targets.join(" ");
    match (watched.purpose, watched.state) {
        (Purpose::Arbiter, Targets::Answer) => {
            tracing::info!(code = "LS6023", targets, "a ping target answers");
        }
        (Purpose::Arbiter, Targets::Silent) => tracing::warn!(
            code = "LS6016",
            targets,
            "no ping target answers: this node would go on alone nowhere"
        ),
        (Purpose::Clients, Targets::Answer) => {
            tracing::info!(code = "LS6073", targets, "the clients' network answers");
        }
        (Purpose::Clients, Targets::Silent) => tracing::warn!(
            code = "LS6074",
            targets,
            "nobody in the clients' network answers: nothing is taken over here"
        ),
    }
}
