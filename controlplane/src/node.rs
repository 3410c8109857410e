//! One node: heartbeats, data planes and arbiter on one side, a keeper for each group on the other.
//!
//! Everything that may block has a thread or a task of its own and sends what it learns into one queue; what is decided
//! is decided in one place, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use controlplane_api::Client;
use controlplane_api::arbiter::Held;
use controlplane_core::failure_detector::{Change, Presence};
use controlplane_core::keeper::{Effect, Event, Keeper, Word};
use controlplane_core::partition::Decision;
use controlplane_core::view_change::Question;
use mirror_core::admin::{Done, Problem, Status};
use mirror_core::types::{Instant, NodeSet, VolumeId};
use mirror_core::view::View;
use tokio::sync::{mpsc, watch};

use crate::arbiter::{Heard, boottime_nanos, talk};
use crate::config::Config;
use crate::heartbeat::{Heartbeats, News, Shared};
use crate::mirror;

/// Between two looks at a data plane.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What waits to be decided; who sends more waits.
const QUEUE_MAX: usize = 256;

/// What comes in.
enum Incoming {
    Heartbeat(News),
    Status {
        group: usize,
        name: String,
        status: Option<Box<Status>>,
        /// When it was asked for, nanoseconds since boot.
        asked_nanos: u64,
    },
    Said {
        group: usize,
        volume: VolumeId,
        word: Word,
        outcome: Result<Done, Problem>,
    },
    Arbiter(Heard),
}

struct Group {
    name: String,
    keeper: Keeper,
    /// The volumes' ids, as far as their data planes have told them.
    ids: BTreeMap<String, VolumeId>,
    last: Option<Decision>,
}

struct Node {
    config: Config,
    groups: Vec<Group>,
    seed: [u8; 32],
    /// Whose question is which, by the number that the arbiter is asked with.
    asked: BTreeMap<u64, (usize, u64)>,
    next_question: u64,
    presence: Presence,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Incoming>,
    questions: mpsc::Sender<Question>,
    held: watch::Sender<Vec<Held>>,
    views: BTreeMap<VolumeId, Held>,
}

/// Runs until the process ends.
///
/// # Errors
/// If a thread cannot be started.
pub async fn run(
    config: Config,
    heartbeats: Heartbeats,
    tls: Option<Arc<rustls::ClientConfig>>,
    seed: [u8; 32],
) -> anyhow::Result<()> {
    let (queue, mut incoming) = mpsc::channel(QUEUE_MAX);
    let (questions, asked) = mpsc::channel(QUEUE_MAX);
    let (held, reports) = watch::channel(Vec::new());
    forward_heartbeats(heartbeats.news, queue.clone())?;
    if let (Some(address), Some(tls)) = (config.witness.clone(), tls) {
        let (sender, mut heard) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(talk(address, tls, asked, reports, sender));
        let queue = queue.clone();
        tokio::spawn(async move {
            while let Some(heard) = heard.recv().await {
                if queue.send(Incoming::Arbiter(heard)).await.is_err() {
                    return;
                }
            }
        });
    }
    for (group, entry) in config.groups.iter().enumerate() {
        for volume in &entry.volumes {
            watch_volume(group, volume.clone(), queue.clone())?;
        }
    }
    let mut node = Node::new(config, heartbeats.shared, seed, queue, questions, held);
    loop {
        let wait = node.next_tick();
        match tokio::time::timeout(wait, incoming.recv()).await {
            Ok(Some(incoming)) => node.take(incoming),
            Ok(None) => return Ok(()),
            Err(_) => node.everywhere(&Event::Tick),
        }
    }
}

fn forward_heartbeats(
    news: std::sync::mpsc::Receiver<News>,
    queue: mpsc::Sender<Incoming>,
) -> anyhow::Result<()> {
    let forward = move || {
        while let Ok(news) = news.recv() {
            if queue.blocking_send(Incoming::Heartbeat(news)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("news".to_string())
        .spawn(forward)
        .context("a thread for the heartbeat's news")?;
    Ok(())
}

fn watch_volume(group: usize, name: String, queue: mpsc::Sender<Incoming>) -> anyhow::Result<()> {
    let watch = move || {
        let client = Client::of_volume(&name);
        loop {
            let asked_nanos = boottime_nanos();
            let status = client.status().ok().map(Box::new);
            let name = name.clone();
            let told = Incoming::Status {
                group,
                name,
                status,
                asked_nanos,
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

impl Node {
    fn new(
        config: Config,
        shared: Arc<Shared>,
        seed: [u8; 32],
        queue: mpsc::Sender<Incoming>,
        questions: mpsc::Sender<Question>,
        held: watch::Sender<Vec<Held>>,
    ) -> Self {
        let groups = config.groups.iter().map(|group| Group {
            name: group.name.clone(),
            // Its volumes are known once all of them have told their ids.
            keeper: Keeper::new(now(), config.arbiter, [], &seed),
            ids: BTreeMap::new(),
            last: None,
        });
        Self {
            groups: groups.collect(),
            config,
            seed,
            asked: BTreeMap::new(),
            next_question: 1,
            presence: Presence::Unknown,
            shared,
            queue,
            questions,
            held,
            views: BTreeMap::new(),
        }
    }

    fn next_tick(&self) -> Duration {
        let current = now();
        let deadlines = self
            .groups
            .iter()
            .filter_map(|group| group.keeper.deadline(current));
        let next = deadlines
            .min()
            .map_or(LOOK_INTERVAL, |at| at.since(current));
        next.min(Duration::from_secs(1))
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Heartbeat(news) => self.heartbeat(news),
            Incoming::Status {
                group,
                name,
                status,
                asked_nanos,
            } => self.volume(group, name, status.as_deref(), asked_nanos),
            Incoming::Said {
                group,
                volume,
                word,
                outcome,
            } => {
                match outcome {
                    Ok(done) => tracing::info!(?word, ?done, "LS6010 carried out"),
                    Err(problem) => {
                        tracing::warn!(?word, code = %problem.code, "{}", problem.message);
                    }
                }
                self.one(group, Event::WordDone { volume });
            }
            Incoming::Arbiter(heard) => self.arbiter(heard),
        }
    }

    fn heartbeat(&mut self, news: News) {
        match news {
            News::Changed(Change::Peer(presence)) => {
                tracing::info!(peer = %self.config.peer_name, ?presence, "LS6011 the peer");
                self.presence = presence;
                self.everywhere(&Event::Peer(presence));
            }
            News::Changed(Change::Path { path, state }) => {
                tracing::info!(path, ?state, "LS6012 an interconnect");
            }
            News::NewRun { before } => tracing::info!(?before, "LS6013 the peer runs anew"),
            News::StoodStill(time) => {
                tracing::warn!(millis = time.as_millis(), "LS6014 this node stood still");
            }
        }
    }

    fn volume(&mut self, group: usize, name: String, status: Option<&Status>, asked_nanos: u64) {
        let known = self.groups[group].ids.get(&name).copied();
        let Some(id) = known.or_else(|| self.meet(group, &name, status?)) else {
            return;
        };
        let facts = status.and_then(mirror::facts);
        if let (Some(facts), Some(status)) = (facts, status)
            && facts.linked
        {
            let heard = status.link.last_heard_ms.unwrap_or_default() * 1_000_000;
            // Counted from when it was asked: the answer may have waited here.
            let heard = asked_nanos.saturating_sub(heard);
            self.shared.link_heard_nanos.store(heard, Ordering::Relaxed);
        }
        self.lease();
        let facts = facts.map(Box::new);
        let asked = Instant::from_nanos(asked_nanos);
        let volume = id;
        let event = Event::Volume {
            volume,
            facts,
            asked,
        };
        self.one(group, event);
        let keeper = &self.groups[group].keeper;
        match status {
            Some(status) if keeper.may_report(now(), id) => self.report(id, status),
            Some(_) | None => self.report_nothing(id),
        }
    }

    /// A data plane told its volume's id; with the last one of the group the keeper begins.
    fn meet(&mut self, group: usize, name: &str, status: &Status) -> Option<VolumeId> {
        let id = mirror::volume_id(status)?;
        let wanted = self.config.groups.get(group)?.volumes.len();
        let entry = self.groups.get_mut(group)?;
        entry.ids.insert(name.to_string(), id);
        if entry.ids.len() == wanted {
            let ids = entry.ids.values().copied();
            entry.keeper = Keeper::new(now(), self.config.arbiter, ids, &self.seed);
            let presence = self.presence;
            self.one(group, Event::Peer(presence));
        }
        Some(id)
    }

    /// What the copy holds may be another view soon.
    fn report_nothing(&mut self, id: VolumeId) {
        if self.views.remove(&id).is_some() {
            let all = self.views.values().copied().collect();
            self.held.send_replace(all);
        }
    }

    fn report(&mut self, id: VolumeId, status: &Status) {
        let Some(facts) = mirror::facts(status) else {
            return;
        };
        let mut insync = NodeSet::EMPTY;
        for name in &status.view.insync {
            let own = *name == status.node;
            insync = insync.with(if own {
                self.config.me
            } else {
                self.config.peer
            });
        }
        let view = View {
            epoch: facts.view.epoch,
            id: facts.view.id,
            active: None,
            insync,
        };
        let held = Held::new(id, &view);
        if self.views.insert(id, held) != Some(held) {
            let all = self.views.values().copied().collect();
            self.held.send_replace(all);
        }
    }

    /// The peer's last confirmation gives the services their time (DESIGN §3).
    fn lease(&mut self) {
        let confirmed = self.shared.confirmed_nanos.load(Ordering::Relaxed);
        if confirmed > 0 {
            let until = Instant::from_nanos(confirmed) + self.config.timing.timeout;
            self.everywhere(&Event::Leased { until });
        }
    }

    fn arbiter(&mut self, heard: Heard) {
        match heard {
            Heard::Contact { asked_nanos } => {
                let until = Instant::from_nanos(asked_nanos) + self.config.timing.timeout;
                self.everywhere(&Event::Leased { until });
            }
            Heard::Answered { number, answer } => {
                if let Some((group, number)) = self.asked.remove(&number) {
                    tracing::info!(?answer, "LS6015 the arbiter answered");
                    self.one(group, Event::Answered { number, answer });
                }
            }
            Heard::GivenBack { number } => {
                if let Some((group, number)) = self.asked.remove(&number) {
                    self.one(group, Event::GivenBack { number });
                }
            }
            Heard::Lost { reason } => tracing::warn!(reason, "LS6016 the arbiter is lost"),
        }
    }

    fn everywhere(&mut self, event: &Event) {
        for group in 0..self.groups.len() {
            self.one(group, event.clone());
        }
    }

    fn one(&mut self, group: usize, event: Event) {
        let mut effects = Vec::new();
        if let Some(entry) = self.groups.get_mut(group) {
            entry.keeper.handle(now(), event, &mut effects);
        }
        for effect in effects {
            self.carry_out(group, effect);
        }
    }

    fn carry_out(&mut self, group: usize, effect: Effect) {
        match effect {
            Effect::Ask(question) => self.ask(group, question),
            Effect::Say { volume, word } => self.say(group, volume, word),
            Effect::Decided {
                row,
                situation,
                decision,
            } => {
                let entry = &mut self.groups[group];
                if entry.last.replace(decision) != Some(decision) {
                    tracing::info!(group = %entry.name, row, ?situation, ?decision, "LS6017 decided");
                }
            }
        }
    }

    /// Numbers of several groups would meet: the arbiter is asked with numbers of the node.
    fn ask(&mut self, group: usize, question: Question) {
        if let Question::Claim { claims, .. } = &question {
            // Before the arbiter can grant it.
            for claim in claims {
                self.report_nothing(claim.volume);
            }
        }
        let number = self.next_question;
        self.next_question += 1;
        let (own, question) = match question {
            Question::Claim {
                number: own,
                claims,
            } => (own, Question::Claim { number, claims }),
            Question::Release {
                number: own,
                volumes,
            } => (own, Question::Release { number, volumes }),
        };
        // What is asked again makes the earlier answer worthless.
        self.asked.retain(|_, (of, _)| *of != group);
        self.asked.insert(number, (group, own));
        if self.questions.try_send(question).is_err() {
            tracing::debug!("the arbiter is not asked now");
        }
    }

    fn say(&mut self, group: usize, volume: VolumeId, word: Word) {
        let mut ids = self.groups[group].ids.iter();
        let Some((name, _)) = ids.find(|(_, id)| **id == volume) else {
            return;
        };
        let (client, queue) = (Client::of_volume(name), self.queue.clone());
        tracing::info!(volume = %name, ?word, "LS6018 a word to the data plane");
        tokio::task::spawn_blocking(move || {
            let outcome = mirror::say(&client, word);
            let said = Incoming::Said {
                group,
                volume,
                word,
                outcome,
            };
            let _ = queue.blocking_send(said);
        });
    }
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}
