//! Pushing a configuration to both nodes, or to none: the shell of [`controlplane_core::push`].
//!
//! It has a thread of its own: files are flushed and the other node is asked without delaying what is decided about
//! volumes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use controlplane_core::push::{
    Ask, Digest, Durable, Effect, Event, Fit, Proposal, Push, Stage, State, Times, Why,
};
use mirror_core::admin::Problem;
use mirror_core::types::NodeId;

mod authority;
mod begin;
mod course;
mod door;
mod happened;
mod install;
mod judge;
mod keys;
mod operator;
mod ports;
mod record;
mod told;
mod words;

pub use begin::{Loaded, load};
pub use course::Course;
pub(crate) use install::prove;
pub use judge::{Judged, judge};
pub use record::{Record, RecordError, Store, Text, put_aside};
pub use words::{digest, hex};

use crate::authority::{Credentials, Source};
use crate::config::{Checked, Cluster};
use crate::events;
use crate::heartbeat::Interconnect;
use crate::rotation::Keyring;
use crate::sys;
use words::{AnswerFrame, AskFrame, StateLine, VERSION, WhyWord};

/// Between two looks at a push that is under way, and at `cluster.toml`.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// While nothing is under way every so many looks are enough.
const IDLE_LOOKS: u64 = 4;

/// And after so many the other node is asked what it goes by: every 30 s.
const COMPARE_LOOKS: u64 = 60;

/// Between two tries to end this run at a moment that is good for it, and tries in a row.
const END_PAUSE: Duration = Duration::from_millis(53);
const END_TRIES: u32 = 8;

/// What a node's part needs to know.
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// The other one's.
    pub peer_name: String,
    /// Where `cluster.toml` is.
    pub path: PathBuf,
    /// Where the nodes reach each other.
    pub interconnects: Vec<Interconnect>,
    /// Where the record is.
    pub store: Store,
    /// Certificates.
    pub credentials: Arc<Credentials>,
    /// The authority, where its key is.
    pub source: Source,
    /// Where the witness is, if there is one.
    pub witness: Option<String>,
    /// How far this run is.
    pub course: Course,
    /// What happened here, for the other node.
    pub events: events::Log,
    /// The cluster's key.
    pub keyring: Arc<Keyring>,
}

/// A node's part in pushes.
pub struct Pusher {
    me: NodeId,
    name: String,
    peer_name: String,
    path: PathBuf,
    interconnects: Vec<Interconnect>,
    store: Store,
    credentials: Arc<Credentials>,
    source: Arc<Source>,
    witness: Option<String>,
    course: Course,
    events: events::Log,
    keyring: Arc<Keyring>,
    /// Somebody wished for another authority.
    trust_wished: tokio::sync::Notify,
    /// One conversation at a time.
    talk: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// What the status says of it.
    note: Mutex<Option<Problem>>,
}

struct Inner {
    push: Push,
    record: Record,
    /// What is in force.
    cluster: Cluster,
    /// The file of what is driven here, and of what the other node asks for.
    driven: Option<Text>,
    offered: Option<Text>,
    /// `cluster.toml` as it was when the push that is driven here began.
    seen: Option<Digest>,
    /// The same on the other node.
    peer_file: Option<String>,
    /// How that push ended.
    ended: Option<Result<(), Why>>,
    /// Why the other node refused.
    told: Option<Problem>,
    /// This run ends at the next good moment.
    restart_due: bool,
    /// Since when the other node runs another file, and no push is under way.
    differs_since: Option<Instant>,
    /// Why `cluster.toml` could not be written, as it was told last.
    not_installed: Option<String>,
}

/// What is left to do after an event.
#[derive(Default)]
struct Acted {
    ask: Option<(u64, Ask)>,
    answer: Option<Why>,
}

/// The way to a [`Pusher`] from other threads.
#[derive(Clone)]
pub struct Handle {
    pusher: Arc<Pusher>,
    runtime: tokio::runtime::Handle,
}

impl Pusher {
    /// Starts a node's part, with what this run loaded.
    ///
    /// # Errors
    /// If the file in force cannot be read again, or there is no thread.
    pub fn start(settings: Settings, record: Record) -> anyhow::Result<Handle> {
        let cluster = Checked::parse(&settings.path, record.in_force.text.as_bytes())?.cluster;
        let (durable, file) = (record.durable, record.durable.in_force.digest);
        let pusher = Arc::new(Self {
            me: settings.me,
            name: settings.name,
            peer_name: settings.peer_name,
            path: settings.path,
            interconnects: settings.interconnects,
            store: settings.store,
            credentials: settings.credentials,
            source: Arc::new(settings.source),
            witness: settings.witness,
            course: settings.course,
            events: settings.events,
            keyring: settings.keyring,
            trust_wished: tokio::sync::Notify::new(),
            talk: tokio::sync::Mutex::new(()),
            inner: Mutex::new(Inner {
                push: Push::new(settings.me, durable, file),
                record,
                cluster,
                driven: None,
                offered: None,
                seen: None,
                peer_file: None,
                ended: None,
                told: None,
                restart_due: false,
                differs_since: None,
                not_installed: None,
            }),
            note: Mutex::new(None),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for pushes")?;
        let handle = Handle {
            pusher: Arc::clone(&pusher),
            runtime: runtime.handle().clone(),
        };
        std::thread::Builder::new()
            .name("push".to_string())
            .spawn(move || runtime.block_on(pusher.keep()))
            .context("a thread for pushes")?;
        Ok(handle)
    }

    /// For ever: the other node is heard, and what is under way gets on.
    async fn keep(self: Arc<Self>) {
        for pair in &self.interconnects {
            tokio::spawn(door::listen(Arc::clone(&self), pair.local));
        }
        tokio::spawn(Arc::clone(&self).keep_keys());
        tokio::spawn(Arc::clone(&self).keep_trust());
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for look in 0_u64.. {
            looks.tick().await;
            let is_idle = self.look_at_the_run();
            if is_idle && look % COMPARE_LOOKS == COMPARE_LOOKS - 1 {
                self.compare_with_the_other().await;
            }
            if !is_idle || look % IDLE_LOOKS == 0 {
                self.look_at_the_file();
            }
            if !is_idle {
                let turn = self.talk.lock().await;
                let acted = self.act(&mut self.inner(), Event::Tick);
                self.follow(acted).await;
                drop(turn);
            }
            self.end_if_due().await;
        }
    }

    /// Whether this run came up, and nothing is under way.
    fn look_at_the_run(&self) -> bool {
        let mut inner = self.inner();
        if self.course.is_settled() && !inner.push.state().running.settled {
            self.act(&mut inner, Event::Settled);
        }
        inner.push.is_idle()
    }

    /// Somebody may have put different files in place by hand, and restarted. Not where a volume has the port of an
    /// interconnect: its daemon over there would take the question for a stranger's.
    async fn compare_with_the_other(&self) {
        let mut locals = self.interconnects.iter().map(|pair| pair.local);
        if !self.course.is_alive() || locals.any(|local| self.needs(local).is_some()) {
            self.inner().differs_since = None;
            return;
        }
        let Ok(turn) = self.talk.try_lock() else {
            return;
        };
        let answer = self.exchange(&AskFrame::new(&Ask::State)).await;
        drop(turn);
        let mut inner = self.inner();
        let own = inner.push.state();
        let since = inner.differs_since;
        // A node that cannot be asked says nothing about its file.
        inner.differs_since = answer
            .ok()
            .and_then(|(peer, _)| told::differ_since(since, (&own, &peer), Instant::now()));
    }

    /// At a moment when the other node has just confirmed this one.
    async fn end_if_due(&self) {
        if !self.inner().restart_due {
            return;
        }
        let mut told = false;
        for _ in 0..END_TRIES {
            if self.course.may_end() && !std::mem::replace(&mut told, true) {
                tracing::info!(code = "LS6116", node = %self.name, "lockstepd begins anew, with the pushed configuration");
                // The next run knows nothing of what waits to be written, and writing it may take a while.
                mirror_log::flush();
                events::flush();
            }
            if self.course.may_end() {
                self.restart();
            }
            tokio::time::sleep(END_PAUSE).await;
        }
    }

    /// The volume whose mirror link needs this port here.
    fn needs(&self, address: SocketAddr) -> Option<String> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        ports::needed_by(&directory.join("volumes"), address)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One event, and all that follows here.
    fn act(&self, inner: &mut Inner, event: Event) -> Acted {
        let mut acted = Acted::default();
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let mut effects = Vec::new();
            if let Err(error) = inner.push.handle(event, &mut effects) {
                tracing::error!(code = "LS6109", %error, "a step of a push; this is a fault of lockstepd");
            }
            let mut installed = true;
            for effect in effects {
                match effect {
                    Effect::Ask(number, ask) => acted.ask = Some((number, ask)),
                    Effect::Answer(why) => acted.answer = why,
                    Effect::Install(proposal) => installed = self.install(inner, &proposal),
                    Effect::Save(durable) if installed => next = Some(self.save(inner, durable)),
                    Effect::Save(_) => next = Some(Event::NotSaved),
                    Effect::Restart => inner.restart_due = true,
                    Effect::Ended(outcome) => inner.ended = Some(outcome),
                }
            }
        }
        acted
    }

    fn install(&self, inner: &mut Inner, proposal: &Proposal) -> bool {
        let Some(text) = inner.record.pending.as_ref() else {
            return false;
        };
        let [one, other] = proposal.replaces;
        let known = (one == other).then_some(inner.record.durable.in_force.digest);
        match install::install(&self.path, &text.text, known) {
            Ok(None) => {}
            Ok(Some(aside)) => tracing::error!(
                code = "LS6108",
                number = proposal.number,
                "{} was changed by hand; a push was decided before: what was found is kept as {}",
                self.path.display(),
                aside.display()
            ),
            Err(error) => {
                // It is tried at each look, and told once.
                let why = format!("cannot write {}: {error}", self.path.display());
                if inner.not_installed.as_ref() != Some(&why) {
                    tracing::error!(code = "LS6109", "{why}");
                    inner.not_installed = Some(why);
                }
                return false;
            }
        }
        inner.not_installed = None;
        true
    }

    fn save(&self, inner: &mut Inner, durable: Durable) -> Event {
        let Some(record) = inner.with(durable) else {
            tracing::error!(code = "LS6109", "the pushed file is not there");
            return Event::NotSaved;
        };
        if let Err(error) = self.store.save(&record) {
            tracing::error!(code = error.code(), "{error}");
            return Event::NotSaved;
        }
        told::log(&inner.record.durable, &durable);
        inner.record = record;
        Event::Saved
    }

    /// Asks the other node what is to be asked, until nothing is.
    async fn follow(&self, mut acted: Acted) {
        loop {
            let Some((number, ask)) = acted.ask else {
                return;
            };
            let frame = self.frame(&ask);
            let answer = self.exchange(&frame).await;
            let mut inner = self.inner();
            let event = match answer {
                Ok((state, answer)) => {
                    let state = self.as_heard(state);
                    inner.told = answer.problem.map(crate::join::frames::printable);
                    let fit = self.unchanged(&inner);
                    Event::Answered(number, state, answer.why.map(Why::from), fit)
                }
                Err(problem) => {
                    inner.told = Some(problem);
                    Event::Unanswered(number)
                }
            };
            acted = self.act(&mut inner, event);
        }
    }

    /// What the other node says of its run counts only while its heartbeats are heard.
    fn as_heard(&self, mut state: State) -> State {
        state.running.settled &= self.course.is_alive();
        state
    }

    fn frame(&self, ask: &Ask) -> AskFrame {
        let inner = self.inner();
        let text = match ask {
            Ask::State => None,
            Ask::Promise(proposal) | Ask::CarryOut(proposal) => inner.text_of(&proposal.digest),
        };
        let state = match ask {
            Ask::State | Ask::Promise(_) => None,
            Ask::CarryOut(_) => Some(StateLine::from(&inner.push.state())),
        };
        AskFrame {
            state,
            text: text.map(|text| text.text.clone()),
            file: inner.peer_file.clone(),
            ..AskFrame::new(ask)
        }
    }

    /// Whether `cluster.toml` here is as it was when the push began that is driven here.
    fn unchanged(&self, inner: &Inner) -> Fit {
        if begin::file_digest(&self.path) == inner.seen {
            Fit::Fits
        } else {
            Fit::Unfit
        }
    }

    /// One question to the other node, and its answer.
    async fn exchange(&self, frame: &AskFrame) -> Result<(State, AnswerFrame), Problem> {
        let live = self.credentials.live();
        live.map_err(|why| told::no_trust(&why))?;
        let answer = door::ask(&self.credentials, &self.interconnects, frame).await;
        let answer = answer.map_err(|error| told::silent(&self.peer_name, &error.to_string()))?;
        let state = answer.state.read().filter(|_| answer.version == VERSION);
        let state = state.ok_or_else(|| told::other_release(&self.peer_name))?;
        Ok((state, answer))
    }

    /// The other node asks.
    ///
    /// # Errors
    /// It is not understood.
    async fn answer_all(self: Arc<Self>, mut frame: AskFrame) -> std::io::Result<AnswerFrame> {
        let keys = match frame.keys.take() {
            Some(ask) => Some(self.answer_keys(ask).await.map_err(|problem| {
                std::io::Error::other(format!("{} {}", problem.code, problem.message))
            })?),
            None => None,
        };
        let trust = match frame.trust.take() {
            Some(question) => Some(self.answer_trust(question).await),
            None => None,
        };
        let answer = self.answer(&frame)?;
        Ok(AnswerFrame {
            keys,
            trust,
            ..answer
        })
    }

    fn answer(&self, frame: &AskFrame) -> std::io::Result<AnswerFrame> {
        let ask = frame.read();
        let ask = ask.ok_or_else(|| std::io::Error::other("a question that is not understood"))?;
        let mut inner = self.inner();
        let judged = if frame.version == VERSION {
            self.judged(&inner, &ask, frame)
        } else {
            Err(told::other_release(&self.name))
        };
        let fit = match &judged {
            Ok(_) => Fit::Fits,
            Err(_) => Fit::Unfit,
        };
        if let (Some(text), Ask::Promise(_) | Ask::CarryOut(_)) = (&frame.text, ask) {
            inner.offered = Some(Text::now(text.clone()));
        }
        let acted = self.act(&mut inner, Event::Asked(ask, fit));
        let (judged, problem) = match judged {
            Ok(judged) => (judged, None),
            Err(problem) => (None, Some(problem)),
        };
        let why = acted.answer;
        if let (Ask::CarryOut(_), None, Some(state)) = (ask, why, &frame.state)
            && let Some(state) = state.read()
        {
            self.act(&mut inner, Event::Heard(self.as_heard(state)));
        }
        let problem = match (why, ask) {
            (None, Ask::State) => problem,
            (None, Ask::Promise(_) | Ask::CarryOut(_)) => None,
            (Some(Why::Unfit), _) => problem,
            (Some(why), _) => Some(told::refusal(why, &self.name, &self.peer_name)),
        };
        Ok(AnswerFrame {
            version: VERSION,
            state: StateLine::from(&inner.push.state()),
            node: self.node_config(&inner),
            why: why.map(WhyWord::from),
            problem,
            times_differ: judged.as_ref().is_some_and(|it| it.times == Times::Differ),
            warnings: judged.map(|it| it.warnings).unwrap_or_default(),
            events: frame.events.as_ref().map(|query| self.happened_here(query)),
            keys: None,
            trust: None,
        })
    }

    /// Whether the file that came, if one did, would do here.
    fn judged(
        &self,
        inner: &Inner,
        ask: &Ask,
        frame: &AskFrame,
    ) -> Result<Option<Judged>, Problem> {
        let text = frame.text.as_deref();
        match ask {
            Ask::State => {}
            Ask::Promise(proposal) | Ask::CarryOut(proposal) => {
                let own = text.map(|text| digest(text.as_bytes()));
                if own != Some(proposal.digest) {
                    return Err(told::garbled(&self.peer_name));
                }
            }
        }
        let Some(text) = text else {
            return Ok(None);
        };
        if inner.restart_due && !matches!(ask, Ask::CarryOut(_)) {
            return Err(told::ends(&self.name));
        }
        let judged = self.judge(&inner.cluster, text)?;
        if !matches!(ask, Ask::CarryOut(_)) {
            self.can_install()?;
        }
        if let Ask::Promise(_) = ask
            && frame.file != begin::file_digest(&self.path).map(|digest| hex(&digest))
        {
            return Err(told::edited_meanwhile(&self.name, &self.path));
        }
        Ok(Some(judged))
    }

    /// Whether the file would do on this node.
    fn judge(&self, old: &Cluster, text: &str) -> Result<Judged, Problem> {
        judge(old, text, &self.path, &self.name)
    }

    /// Whether a file that is decided could be put in place.
    fn can_install(&self) -> Result<(), Problem> {
        install::prove(&self.path).map_err(|why| told::not_installable(&self.name, &why))
    }

    /// This run ends here, and the next one begins in its place; if that is not possible, the service manager's.
    fn restart(&self) -> ! {
        let error = sys::begin_anew();
        tracing::error!(code = "LS6116", %error, "lockstepd cannot begin anew by itself, and ends");
        mirror_log::flush();
        std::process::exit(1)
    }
}

impl Inner {
    fn text_of(&self, digest: &Digest) -> Option<&Text> {
        let all = [&self.record.pending, &self.driven, &self.offered];
        let is = |text: &&Text| words::digest(text.text.as_bytes()) == *digest;
        all.into_iter().flatten().find(is)
    }

    /// The record with this, and the files that belong to it.
    fn with(&self, durable: Durable) -> Option<Record> {
        let in_force = if durable.in_force == self.record.durable.in_force {
            self.record.in_force.clone()
        } else {
            Text::now(self.record.pending.as_ref()?.text.clone())
        };
        let pending = match durable.pending {
            None => None,
            Some((proposal, _)) => Some(self.text_of(&proposal.digest)?.clone()),
        };
        Some(Record {
            durable,
            in_force,
            pending,
        })
    }

    fn is_edited(&self, file: Option<Digest>) -> bool {
        file.is_none_or(|file| !begin::is_expected(&self.record, file))
    }

    /// The stage of what is under way here.
    fn stage(&self) -> Option<Stage> {
        self.record.durable.pending.map(|(_, stage)| stage)
    }
}
