//! One node: heartbeats, data planes and arbiter on one side, a keeper for each group on the other.
//!
//! Everything that may block has a thread or a task of its own and sends what it learns into one queue; what is decided
//! is decided in one place, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use controlplane_api::Client;
use controlplane_api::arbiter::Held;
use controlplane_api::cluster::Daemon;
use controlplane_core::failure_detector::{Change, Evidence, Presence};
use controlplane_core::keeper::{Effect, Event, Keeper, Word};
use controlplane_core::partition::{Decision, Situation, Standing};
use controlplane_core::timeouts::Word as TimeoutsWord;
use controlplane_core::view_change::Question;
use controlplane_core::wish::{GroupKey, Subject, Wish, Wishes};
use mirror_core::admin::{Done, Problem, Status};
use mirror_core::types::{Instant, NodeSet, VolumeId};
use tokio::sync::{mpsc, watch};

use crate::api::{self, Ask};
use crate::arbiter::{Heard, boottime_nanos};
use crate::config::Config;
use crate::events;
use crate::heartbeat::{Heartbeats, News, Shared};
use crate::mirror;
use crate::notify;
use crate::push;
use crate::report;
use crate::services::{self, Roots, Seen, Services, Tell};
use crate::wishes::Store;

mod arbiter;
mod daemons;
mod failing;
mod fencing;
mod judge;
mod operator;
mod status;
mod targets;
mod threads;
mod timeouts;
mod together;
mod told;
mod why;

pub use arbiter::RegisterClient;
pub use fencing::Fencing;
pub use operator::{Answer, Verb, subjects};
pub use timeouts::Timeouts;
pub use together::AnswerTogether;

/// A wait of the loop that takes so much longer was a standstill.
const STANDSTILL: Duration = Duration::from_millis(500);
/// Between two looks at a data plane.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What waits to be decided; who sends more waits.
const QUEUE_MAX: usize = 256;

/// What comes in.
enum Incoming {
    Heartbeat(Box<News>),
    Status {
        group: usize,
        name: String,
        /// When it was asked for, nanoseconds since boot.
        asked_nanos: u64,
        status: Option<Box<Status>>,
    },
    Daemon {
        group: usize,
        name: String,
        daemon: Daemon,
    },
    Said {
        group: usize,
        volume: VolumeId,
        word: Word,
        outcome: Result<Done, Problem>,
    },
    Arbiter(Heard),
    /// A ping target answered a request that was sent then, nanoseconds since boot.
    Pinged {
        purpose: targets::Purpose,
        asked_nanos: u64,
    },
    /// The heartbeat thread is gone.
    HeartbeatsEnded,
    Asked(Ask),
    Service(services::News),
    /// Wishes are durable, or why not.
    Stored {
        version: u64,
        error: Option<String>,
    },
    /// The same of what was said about timeouts.
    TimeoutsStored {
        version: u64,
        error: Option<String>,
    },
}

struct Group {
    name: String,
    /// What operators wish something about.
    subject: Subject,
    keeper: Keeper,
    /// The volumes' ids, as far as their data planes have told them.
    ids: BTreeMap<String, VolumeId>,
    /// What each volume's data plane said last.
    told: BTreeMap<String, Box<Status>>,
    /// Volumes whose data planes were asked in this run.
    asked: BTreeSet<String>,
    /// How each volume's daemon is.
    daemons: BTreeMap<String, Daemon>,
    last: Option<(usize, Situation, Decision)>,
    failure: failing::Failure,
    /// The same of one that a monitor would have failed, and that runs.
    condemned: failing::Failure,
}

struct Node {
    config: Config,
    groups: Vec<Group>,
    /// Whose question is which, by the number that the arbiter is asked with.
    asked: BTreeMap<u64, (usize, u64)>,
    next_question: u64,
    presence: Presence,
    presence_since: Instant,
    /// On what that rests, and what was found before.
    found: [Option<Evidence>; 2],
    /// Whether the arbiter answered last; what was last said of it in the log.
    arbiter_answers: Option<bool>,
    /// Whose report it lacks.
    arbiter_misses: NodeSet,
    targets: Vec<targets::Watched>,
    shared: Arc<Shared>,
    services: Services,
    fencing: Fencing,
    wishes: Wishes,
    store: Store,
    store_again_at: Option<Instant>,
    waiting: Vec<operator::Waiting>,
    waiting_together: Vec<together::Waiting>,
    /// Tells wishes to the other node, and what it could not take yet.
    teller: std::sync::mpsc::SyncSender<Wish>,
    untold: Vec<Wish>,
    timeouts: Timeouts,
    /// Tells the other node what was said about them.
    words: std::sync::mpsc::SyncSender<TimeoutsWord>,
    queue: mpsc::Sender<Incoming>,
    questions: mpsc::Sender<Question>,
    held: watch::Sender<Vec<Held>>,
    views: BTreeMap<VolumeId, Held>,
}

/// Ways out: what waits to be decided, the arbiter's questions and reports, the heartbeats' wishes and words.
type Ways = (
    mpsc::Sender<Incoming>,
    mpsc::Sender<Question>,
    watch::Sender<Vec<Held>>,
    std::sync::mpsc::SyncSender<Wish>,
    std::sync::mpsc::SyncSender<TimeoutsWord>,
);

/// Runs until the process ends.
///
/// # Errors
/// If a thread cannot be started.
pub async fn run(
    config: Config,
    heartbeats: Heartbeats,
    arbiter: Option<RegisterClient>,
    seed: [u8; 32],
    wished: (Store, Vec<Wish>, Timeouts),
    (pusher, mut fencing, events): (push::Handle, Fencing, events::Log),
) -> anyhow::Result<()> {
    let (queue, mut incoming) = mpsc::channel(QUEUE_MAX);
    let (questions, asked) = mpsc::channel(QUEUE_MAX);
    let (held, reports) = watch::channel(Vec::new());
    threads::forward_heartbeats(heartbeats.news, queue.clone())?;
    if let Some(arbiter) = arbiter {
        arbiter.listen(config.lease, asked, reports, queue.clone());
    }
    let (asks, mut asked_here) = mpsc::channel(QUEUE_MAX);
    let asked_to_push = pusher.clone();
    tokio::spawn(async move {
        if let Err(error) = api::serve(asks, asked_to_push, events).await {
            tracing::error!(code = "LS6024", %error, "no status can be asked for");
            // It protects all the same: systemd must not end it for that.
            notify::ready();
        }
    });
    let forward = queue.clone();
    tokio::spawn(async move {
        while let Some(ask) = asked_here.recv().await {
            if forward.send(Incoming::Asked(ask)).await.is_err() {
                return;
            }
        }
    });
    for (group, entry) in config.groups.iter().enumerate() {
        for volume in &entry.volumes {
            threads::watch_volume(group, volume.clone(), queue.clone())?;
            daemons::keep(group, volume, &config.directory, &queue)?;
        }
    }
    let (wishes, words) = (heartbeats.wishes, heartbeats.words);
    let ways = (queue.clone(), questions, held, wishes, words);
    fencing.begin_to_look(&config);
    let mut node = Node::new(config, heartbeats.shared, seed, ways, wished, fencing);
    targets::ask(&node.targets, &queue)?;
    drop(queue);
    // Before anything is decided: what earlier runs promised is kept.
    node.tick_timeouts(now());
    for group in 0..node.groups.len() {
        node.forget_failures(group);
        node.wished(group);
    }
    loop {
        let wait = node.next_tick();
        let waits = now();
        let heard = tokio::time::timeout(wait, incoming.recv()).await;
        // Before anything that waited: this machine may have stood still.
        node.wait_ended(waits, wait);
        node.watch_over();
        // An answer that is too old by now decides nothing.
        node.look_at_targets();
        match heard {
            // A node that seems to live and hears nothing is worse than none.
            Ok(Some(Incoming::HeartbeatsEnded)) => anyhow::bail!("the heartbeat thread ended"),
            Ok(Some(incoming)) => node.take(incoming),
            Ok(None) => return Ok(()),
            Err(_) => node.everywhere(&Event::Tick),
        }
        node.services.tick(now());
        node.look_at_failures();
        node.tick_wishes(now());
        node.tick_timeouts(now());
        node.watch_over();
        pusher.turn(node.presence);
    }
}

impl Node {
    fn new(
        config: Config,
        shared: Arc<Shared>,
        seed: [u8; 32],
        (queue, questions, held, teller, words): Ways,
        (store, wishes, timeouts): (Store, Vec<Wish>, Timeouts),
        fencing: Fencing,
    ) -> Self {
        let groups = config.groups.iter().map(|group| Group {
            name: group.name.clone(),
            subject: Subject::Group(GroupKey::of(&group.name)),
            // Its volumes are known as they tell their ids.
            keeper: {
                let before = fencing.before_of(&group.name);
                let keeper = Keeper::new(now(), config.arbiter, [], &seed)
                    .leasing(config.lease, before.confirmed, before.looking_since)
                    .preferring(config.me.index() == 0)
                    .expecting(group.volumes.len());
                if before.alone {
                    keeper.left_alone()
                } else {
                    keeper
                }
            },
            ids: BTreeMap::new(),
            told: BTreeMap::new(),
            asked: BTreeSet::new(),
            daemons: BTreeMap::new(),
            last: None,
            failure: failing::Failure::default(),
            condemned: failing::Failure::default(),
        });
        let services = queue.clone();
        let tell: Tell = Arc::new(move |news| {
            let _ = services.blocking_send(Incoming::Service(news));
        });
        let mut services = Services::new(
            now(),
            &config.groups,
            &Roots::of(&config, &shared.clear),
            &tell,
        );
        for (number, group) in config.groups.iter().enumerate() {
            if let Some(since) = fencing.before_of(&group.name).hard_since {
                services.hard_since(now(), number, since);
            }
        }
        Self {
            groups: groups.collect(),
            services,
            fencing,
            wishes: Wishes::new(config.me, subjects(&config), wishes),
            store,
            store_again_at: None,
            waiting: Vec::new(),
            waiting_together: Vec::new(),
            teller,
            untold: Vec::new(),
            timeouts,
            words,
            arbiter_misses: NodeSet::only(config.me),
            targets: targets::configured(&config),
            config,
            asked: BTreeMap::new(),
            next_question: 1,
            presence: Presence::Unknown,
            presence_since: now(),
            found: [None, None],
            arbiter_answers: None,
            shared,
            queue,
            questions,
            held,
            views: BTreeMap::new(),
        }
    }

    /// What the thread of the heartbeats says of a standstill comes behind what was heard before it.
    fn wait_ended(&mut self, began: Instant, wait: Duration) {
        let current = now();
        if current >= began + wait + STANDSTILL {
            self.services.stood_still(current);
        }
    }

    fn next_tick(&self) -> Duration {
        let current = now();
        let deadlines = self
            .groups
            .iter()
            .filter_map(|group| group.keeper.deadline(current))
            .chain(self.services.deadline(current))
            .chain(self.targets_deadline());
        let next = deadlines
            .min()
            .map_or(LOOK_INTERVAL, |at| at.since(current));
        // Each turn says until when the watchdog may be petted.
        next.min(Duration::from_secs(1)).min(self.config.lease / 4)
    }

    fn take(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Heartbeat(news) => self.heartbeat(*news),
            Incoming::Status {
                group,
                name,
                asked_nanos,
                status,
            } => self.volume(group, name, asked_nanos, status),
            Incoming::Daemon {
                group,
                name,
                daemon,
            } => self.daemon(group, name, daemon),
            Incoming::HeartbeatsEnded => {}
            Incoming::Said {
                group,
                volume,
                word,
                outcome,
            } => {
                told::outcome(self.name_of_volume(group, volume), word, outcome);
                self.one(group, Event::WordDone { volume });
            }
            Incoming::Arbiter(heard) => self.arbiter(heard),
            Incoming::Pinged {
                purpose,
                asked_nanos,
            } => self.pinged(purpose, asked_nanos),
            Incoming::Asked(Ask::Status(answer)) => {
                // Who asked may be gone.
                let _ = answer.send(self.status());
            }
            Incoming::Asked(Ask::Why(answer)) => {
                let _ = answer.send(self.why());
            }
            Incoming::Asked(Ask::Do(verb, answer)) => self.verb(&verb, answer),
            Incoming::Asked(Ask::Together(asked, answer)) => self.together(asked, answer),
            Incoming::Service(news) => self.services.take(now(), news),
            Incoming::Stored { version, error } => self.stored(version, error),
            Incoming::TimeoutsStored { version, error } => self.timeouts_stored(version, error),
        }
    }

    fn heartbeat(&mut self, news: News) {
        match news {
            News::Changed(Change::Peer(presence)) => {
                told::peer(&self.config.peer_name, presence);
                (self.presence, self.presence_since) = (presence, now());
                self.tell_not_before();
                self.everywhere(&Event::Peer(presence));
            }
            News::Changed(Change::Quiet(quiet)) => self.everywhere(&Event::Quiet(quiet)),
            News::Changed(Change::Path { path, state }) => {
                told::path(&report::path_name(&self.config, path), path, state);
            }
            News::Found(evidence) => self.found = [Some(evidence), self.found[0]],
            News::NewRun { before } => {
                tracing::info!(code = "LS6013", ?before, "the peer runs anew")
            }
            News::Wish(wish) => self.hear_wish(wish),
            News::Timeouts(word) => self.hear_timeouts(word),
            News::StoodStill(time) => {
                tracing::warn!(
                    code = "LS6014",
                    millis = time.as_millis(),
                    "this node stood still"
                );
                self.services.stood_still(now());
            }
        }
    }

    fn volume(
        &mut self,
        group: usize,
        name: String,
        asked_nanos: u64,
        status: Option<Box<Status>>,
    ) {
        let told = &mut self.groups[group].told;
        match status {
            Some(status) => told.insert(name.clone(), status),
            None => told.remove(&name),
        };
        let status = told.get(&name).cloned();
        let status = status.as_deref();
        self.asked(group, &name);
        let known = self.groups[group].ids.get(&name).copied();
        let id = known.or_else(|| self.meet(group, &name, status?));
        if let Some(id) = id {
            self.volume_told(group, id, asked_nanos, status);
        }
        // What the services wait for is known before they are told that they may start.
        self.tell_of_death(group);
        self.services.volume(now(), group, &name, Seen::of(status));
        let frozen = |status: &Status| status.frozen.is_some();
        let any = self.groups[group].told.values().any(|it| frozen(it));
        self.services.freezes(now(), group, any);
    }

    fn volume_told(
        &mut self,
        group: usize,
        id: VolumeId,
        asked_nanos: u64,
        status: Option<&Status>,
    ) {
        let facts = status.and_then(mirror::facts);
        // Not later than it was: the answer took its time, and the milliseconds are whole ones.
        let before = |millis: u64| asked_nanos.saturating_sub(millis.saturating_add(1) * 1_000_000);
        if let (Some(facts), Some(status)) = (facts, status)
            && facts.linked
        {
            let heard = status.link.last_heard_ms.unwrap_or_default();
            self.shared
                .link_heard_nanos
                .fetch_max(before(heard), Ordering::Relaxed);
            // A peer that is heard may hear nothing; a daemon of before does not tell.
            let answered = status.link.answered_ms.unwrap_or(heard);
            self.shared
                .link_answered_nanos
                .fetch_max(before(answered), Ordering::Relaxed);
            let at = Instant::from_nanos(before(answered));
            self.one(group, Event::LinkHeard { at });
        }
        self.wished(group);
        if let Some(millis) = status.and_then(|status| status.link.last_heard_ms) {
            // Not earlier than it was: it may have been heard while the answer was on its way.
            let answered = now().as_nanos();
            let heard = answered.saturating_sub(millis.saturating_mul(1_000_000));
            let keeper = &mut self.groups[group].keeper;
            keeper.heard_on_the_link(id, Instant::from_nanos(heard));
        }
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

    fn asked(&mut self, group: usize, name: &str) {
        let entry = &mut self.groups[group];
        if entry.asked.insert(name.to_string())
            && entry.asked.len() == self.config.groups[group].volumes.len()
        {
            entry.keeper.reported();
        }
    }

    /// A data plane told its volume's id; with the last one of the group the keeper begins.
    fn meet(&mut self, group: usize, name: &str, status: &Status) -> Option<VolumeId> {
        let id = mirror::volume_id(status)?;
        let entry = self.groups.get_mut(group)?;
        entry.ids.insert(name.to_string(), id);
        entry.keeper.meet(id);
        Some(id)
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
            self.order_services(group);
        }
        for effect in effects {
            self.carry_out(group, effect);
        }
    }

    fn carry_out(&mut self, group: usize, effect: Effect) {
        match effect {
            Effect::Ask(question) => self.ask(group, question),
            Effect::Say { volume, word } => self.say(group, volume, word),
            Effect::Settle { mark, origin } => self.settle(group, mark, origin),
            Effect::Decided {
                row,
                situation,
                decision,
            } => {
                if situation.standing == Standing::Standby {
                    self.services.served_there(group);
                }
                self.services.decided(now(), group, decision);
                let entry = &mut self.groups[group];
                let before = entry.last.replace((row, situation, decision));
                if before.is_none_or(|(_, _, last)| last != decision) {
                    told::decided(&entry.name, row + 1, &situation, decision);
                }
            }
        }
    }

    fn say(&mut self, group: usize, volume: VolumeId, word: Word) {
        self.services.said(group, word);
        let Some(name) = self.name_of_volume(group, volume) else {
            return;
        };
        let (client, queue) = (Client::of_volume(name), self.queue.clone());
        told::word(name, word);
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

    fn name_of_volume(&self, group: usize, volume: VolumeId) -> Option<&str> {
        let mut ids = self.groups.get(group)?.ids.iter();
        let (name, _) = ids.find(|(_, id)| **id == volume)?;
        Some(name)
    }
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}
