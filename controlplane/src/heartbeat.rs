//! The heartbeat thread: sends, listens, watches the peer, and nothing else.
//!
//! It runs with real-time priority, without disk, lock, log or allocation, so that neither load nor a slow disk makes
//! this node look dead. What it learns goes through a bounded queue and some atomic numbers.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use controlplane_core::failure_detector::{Change, Evidence, PathState, Timing};
use controlplane_core::limits::PATHS_MAX;
use controlplane_core::membership::{Peer, Reception, Run};
use controlplane_core::self_fencing::{ClearGroups, Confirmations};
use controlplane_core::timeouts::{Factor, Pledge, Span, Word};
use controlplane_core::wire::{HEARTBEAT_BYTES, Heartbeat, HeartbeatKeys};
use controlplane_core::wish::{GroupKey, Teller, Wish};
use mirror_core::types::{Instant, NodeId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::arbiter::boottime_nanos;
use crate::sys;

pub mod timeouts;

/// Above what programs use by themselves, below what kernels use.
const PRIORITY: i32 = 20;
/// Datagrams of one path that are taken in before this node's own heartbeats are due again; a peer sends four in a second.
const LISTEN_MAX: usize = 64;
/// When there are more: a storm must not have all of a processor, and the kernel drops what does not fit in the socket.
const STORM_PAUSE: Duration = Duration::from_millis(1);
/// News that wait to be read; more are dropped, and counted.
const NEWS_MAX: usize = 256;

/// A pair of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interconnect {
    /// Where this node listens, and from where it sends.
    pub local: SocketAddr,
    /// Where the peer listens.
    pub peer: SocketAddr,
}

/// What the thread needs to know.
#[derive(Debug)]
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// The other one.
    pub peer: NodeId,
    /// This run.
    pub own: Run,
    /// Signs and checks.
    pub keys: HeartbeatKeys,
    /// Interval and timeout.
    pub timing: Timing,
    /// This node's services go on for so long after what the peer confirmed last: what it confirms later than that comes
    /// after a gap. Not above the timeout.
    pub lease: Duration,
    /// At least one, in their order.
    pub interconnects: Vec<Interconnect>,
    /// What operators may wish something about.
    pub subjects: usize,
    /// What they wish, as it was durable when this run began.
    pub wishes: Vec<Wish>,
    /// When an earlier run in this boot sent what the peer confirmed last without a gap.
    pub confirmed: Option<Instant>,
    /// The times of this node; its lease is [`Self::lease`].
    pub span: Span,
    /// How long earlier runs may have promised to wait.
    pub promised: Factor,
    /// What was said last about timeouts, durable here.
    pub word: Option<Word>,
}

/// What it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "the thread that tells it allocates nothing"
)]
pub enum News {
    /// On what the change of the peer's presence rests that is told next.
    Found(Evidence),
    /// A path or the peer's presence changed.
    Changed(Change),
    /// The peer's daemon runs anew.
    NewRun {
        /// What ran before.
        before: Option<Run>,
    },
    /// This node stood still for so long.
    StoodStill(Duration),
    /// The peer says that an operator wishes this. Said again until it was learnt.
    Wish(Wish),
    /// The peer says that this was said last about timeouts. Said again until it was learnt.
    Timeouts(Word),
}

/// How a path is, for a status: read at any time, written by the thread alone.
#[derive(Debug, Default)]
pub struct PathFigures {
    /// A [`PathState`], as [`state_number`] counts them.
    pub state: AtomicU8,
    /// When the peer was heard on it last, nanoseconds since boot; 0 while it was not.
    pub heard_nanos: AtomicU64,
    /// Microseconds; 0 while it is not known.
    pub round_trip_us: AtomicU64,
    /// Heartbeats that were heard.
    pub received: AtomicU64,
    /// Heartbeats that are missing between them.
    pub lost: AtomicU64,
    /// Datagrams that were no heartbeat of the peer, or an old one.
    pub foreign: AtomicU64,
}

/// A path's state as a number.
pub fn state_number(state: PathState) -> u8 {
    match state {
        PathState::New => 0,
        PathState::Up => 1,
        PathState::Late => 2,
        PathState::OneWay => 3,
        PathState::Down => 4,
    }
}

/// What is read and written beside the queue.
#[derive(Debug, Default)]
pub struct Shared {
    /// The interconnects in their order, then the mirror link.
    pub paths: [PathFigures; PATHS_MAX],
    /// When the mirror link last heard the peer, nanoseconds since boot; written by whoever watches the data plane.
    pub link_heard_nanos: AtomicU64,
    /// When was sent what it answered last there.
    pub link_answered_nanos: AtomicU64,
    /// Until when the last heartbeat that the peer confirmed was sent, nanoseconds since boot.
    pub confirmed_nanos: AtomicU64,
    /// How often what the peer confirmed last came to be older than the lease, and was followed by something else then
    /// ([`Confirmations::gaps`]). Counted before [`Self::confirmed_nanos`] is written.
    pub gaps: AtomicU64,
    /// Groups of which nothing is left here; written by whoever decides ([`ClearGroups`]), and by whoever starts something.
    pub clear: Arc<AtomicU64>,
    /// For each bit of the peer's [`ClearGroups`] when this node sent what the peer had when it said so; 0: the bit is not set.
    pub peer_clear: PeerClear,
    /// The digest of what operators wish that the peer said last.
    pub peer_wishes: AtomicU64,
    /// Raised timeouts.
    pub timeouts: timeouts::Shared,
    /// How far the secrets have come that heartbeats are signed and checked with, see [`mirror_core::keys::Place`].
    pub keys_place: AtomicU64,
    /// News that nobody read in time.
    pub dropped: AtomicU64,
    /// The thread shall end.
    pub ends: AtomicBool,
}

impl Shared {
    /// When the peer was heard last, on whatever path.
    pub fn heard(&self) -> Instant {
        let heard = |path: &PathFigures| path.heard_nanos.load(Ordering::Relaxed);
        let last = self.paths.iter().map(heard).max();
        Instant::from_nanos(last.unwrap_or_default())
    }
}

/// See [`Shared::peer_clear`].
#[derive(Debug)]
pub struct PeerClear([AtomicU64; ClearGroups::BITS]);

impl Default for PeerClear {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl PeerClear {
    /// When this node sent what the peer had when it said last that nothing of the group is left there.
    pub fn asked(&self, group: GroupKey) -> Option<Instant> {
        let nanos = self.0[ClearGroups::place(group)].load(Ordering::Relaxed);
        (nanos > 0).then(|| Instant::from_nanos(nanos))
    }

    fn hear(&self, clear: ClearGroups, asked: Instant) {
        for (bit, place) in self.0.iter().enumerate() {
            let set = clear.bits() >> bit & 1 == 1;
            let nanos = if set { asked.as_nanos() } else { 0 };
            place.store(nanos, Ordering::Relaxed);
        }
    }
}

/// A running thread.
#[derive(Debug)]
pub struct Heartbeats {
    /// What it tells.
    pub news: Receiver<News>,
    /// What is shared with it.
    pub shared: Arc<Shared>,
    /// Takes what operators wish, once it is durable here.
    pub wishes: SyncSender<Wish>,
    /// Takes what was said last about timeouts, once it is durable here.
    pub words: SyncSender<Word>,
    /// Takes the secrets after a step of a rotation, once it is durable here.
    pub keys: SyncSender<HeartbeatKeys>,
    /// The thread.
    pub thread: JoinHandle<io::Result<()>>,
    /// Whether it has real-time priority; without, load can delay it.
    pub is_real_time: bool,
}

/// Opens the sockets and starts the thread.
///
/// # Errors
/// If an address cannot be used, with the address.
pub fn start(settings: Settings) -> io::Result<Heartbeats> {
    let mut sockets = Vec::new();
    for interconnect in &settings.interconnects {
        let open = || {
            let socket = UdpSocket::bind(interconnect.local)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", interconnect.local))
        })?;
        sockets.push(socket);
    }
    let shared = Arc::new(Shared {
        timeouts: timeouts::Shared::new(settings.promised),
        ..Shared::default()
    });
    if let Some(confirmed) = settings.confirmed {
        let nanos = confirmed.as_nanos();
        shared.confirmed_nanos.store(nanos, Ordering::Relaxed);
    }
    let (sender, news) = sync_channel(NEWS_MAX);
    let (told, asked) = sync_channel(1);
    let (wishes, durable) = sync_channel(NEWS_MAX);
    let (words, said) = sync_channel(NEWS_MAX);
    let (keys, rotated) = sync_channel(1);
    let ways = (sender, durable, said, rotated);
    let place = settings.keys.place().0;
    shared.keys_place.store(place, Ordering::Relaxed);
    let mut thread = Thread::new(settings, sockets, Arc::clone(&shared), ways);
    let thread = std::thread::Builder::new()
        .name("heartbeat".to_string())
        .spawn(move || {
            let _ = told.try_send(sys::become_real_time(PRIORITY));
            thread.run()
        })?;
    let is_real_time = asked.recv().unwrap_or(false);
    Ok(Heartbeats {
        news,
        shared,
        wishes,
        words,
        keys,
        thread,
        is_real_time,
    })
}

/// Between the thread and others.
type Ways = (
    SyncSender<News>,
    Receiver<Wish>,
    Receiver<Word>,
    Receiver<HeartbeatKeys>,
);

struct Thread {
    peer: Peer,
    keys: HeartbeatKeys,
    rotated: Receiver<HeartbeatKeys>,
    timing: Timing,
    timeouts: timeouts::Part,
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    /// What was known of the mirror link.
    link_nanos: (u64, u64),
    stood_still: Duration,
    confirmations: Confirmations,
    teller: Teller,
    durable: Receiver<Wish>,
    shared: Arc<Shared>,
    sender: SyncSender<News>,
}

impl Thread {
    fn new(
        settings: Settings,
        sockets: Vec<UdpSocket>,
        shared: Arc<Shared>,
        (sender, durable, words, rotated): Ways,
    ) -> Self {
        let now = now();
        let mut teller = Teller::with_room(settings.subjects);
        for wish in settings.wishes {
            teller.learn(wish);
        }
        let paths = sockets.len() + 1;
        let (own, timing) = (settings.own, settings.timing);
        Self {
            peer: Peer::new(now, settings.me, own, settings.peer, timing, paths),
            keys: settings.keys,
            rotated,
            timing,
            timeouts: timeouts::Part::new(
                Pledge::new(now, settings.span, settings.promised),
                settings.word,
                words,
            ),
            addresses: settings
                .interconnects
                .iter()
                .map(|pair| pair.peer)
                .collect(),
            sockets,
            link_nanos: (0, 0),
            stood_still: Duration::ZERO,
            confirmations: Confirmations::new(settings.lease, settings.confirmed),
            teller,
            durable,
            shared,
            sender,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut next = now();
        while !self.shared.ends.load(Ordering::Relaxed) {
            self.take_keys();
            let current = now();
            if current >= next {
                self.beat(current);
                next = current + self.timing.interval;
            }
            // At the moment itself: whoever asks the arbiter a beat later has lost.
            let due = self.peer.detector.deadline();
            self.wait(due.map_or(next, |due| due.min(next)))?;
            self.confirmations.look(now());
            self.tell_confirmed();
            let storm = self.listen();
            self.look();
            if storm {
                std::thread::sleep(STORM_PAUSE);
            }
        }
        Ok(())
    }

    /// A step of a rotation counts from the next heartbeat on, sent or heard.
    fn take_keys(&mut self) {
        while let Ok(keys) = self.rotated.try_recv() {
            let place = keys.place().0;
            self.keys = keys;
            self.shared.keys_place.store(place, Ordering::Release);
        }
    }

    fn wait(&self, until: Instant) -> io::Result<()> {
        let millis = until.since(now()).as_millis().min(1000);
        let wait = PollTimeout::try_from(i32::try_from(millis).unwrap_or(1000) + 1);
        let wait = wait.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut places = [const { None }; controlplane_core::limits::INTERCONNECTS_MAX];
        for (place, socket) in places.iter_mut().zip(&self.sockets) {
            *place = Some(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        // `poll` wants them side by side: the first one stands for those that are missing.
        let Some(first) = self.sockets.first() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let mut watched = places
            .map(|place| place.unwrap_or_else(|| PollFd::new(first.as_fd(), PollFlags::empty())));
        match poll(&mut watched[..self.sockets.len()], wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn beat(&mut self, current: Instant) {
        let stood_still = !self.stood_still.is_zero();
        self.stood_still = Duration::ZERO;
        while let Ok(wish) = self.durable.try_recv() {
            self.teller.learn(wish);
        }
        let saying = self.teller.say();
        let timeouts = self.timeouts.beat(current, &self.shared.timeouts);
        let clear = ClearGroups::from_bits(self.shared.clear.load(Ordering::Relaxed));
        for index in 0..self.sockets.len() {
            if let Some(heartbeat) = self.peer.next(current, index, stood_still) {
                let heartbeat = Heartbeat {
                    saying,
                    clear,
                    timeouts,
                    ..heartbeat
                };
                let bytes = self.keys.encode(&heartbeat);
                // An error is a path that is down; silence tells the other side, and theirs tells us.
                let _ = self.sockets[index].send_to(&bytes, self.addresses[index]);
            }
        }
    }

    /// Takes in what came. Whether there may be more on some path than a peer can have sent: then this thread has its own
    /// heartbeats to send first, and leaves the processor to others for a moment.
    fn listen(&mut self) -> bool {
        let mut bytes = [0; HEARTBEAT_BYTES + 1];
        let mut storm = false;
        for index in 0..self.sockets.len() {
            let mut left = LISTEN_MAX;
            while left > 0
                && let Ok((length, _)) = self.sockets[index].recv_from(&mut bytes)
            {
                left -= 1;
                let heartbeat = self.keys.decode(&bytes[..length]);
                let current = now();
                let path = |path: u8| usize::from(path) == index;
                match heartbeat {
                    Ok(heartbeat) if path(heartbeat.path) => {
                        match self.peer.receive(current, &heartbeat) {
                            Reception::NewRun { before } => {
                                self.timeouts.tell_anew();
                                self.tell(News::NewRun { before });
                                self.hear(current, &heartbeat);
                            }
                            Reception::Counted => self.hear(current, &heartbeat),
                            Reception::Unproven => {}
                            Reception::Old | Reception::Misdirected => self.foreign(index),
                        }
                    }
                    Ok(_) | Err(_) => self.foreign(index),
                }
            }
            storm |= left == 0;
        }
        let heard = self.shared.link_heard_nanos.load(Ordering::Relaxed);
        let answered = self.shared.link_answered_nanos.load(Ordering::Relaxed);
        if (heard, answered) != self.link_nanos {
            self.link_nanos = (heard, answered);
            let (at, answered) = (Instant::from_nanos(heard), Instant::from_nanos(answered));
            let link = self.sockets.len();
            self.peer.detector.heard_before(now(), link, at, answered);
        }
        storm
    }

    fn look(&mut self) {
        for change in self.peer.look(now()) {
            // First what is decided from, if there is room for one only.
            self.tell(News::Changed(change));
            if let Change::Peer(_) = change {
                self.tell(News::Found(self.peer.detector.evidence()));
            }
        }
        for (index, figures) in self.shared.paths.iter().enumerate() {
            if index > self.sockets.len() {
                break;
            }
            let detector = &self.peer.detector;
            let trip = detector.round_trip(index).unwrap_or_default().as_micros();
            let (received, lost) = detector.counts(index);
            let state = state_number(detector.path(index));
            figures.state.store(state, Ordering::Relaxed);
            let heard = detector.heard_at(index).map_or(0, Instant::as_nanos);
            figures.heard_nanos.store(heard, Ordering::Relaxed);
            let trip = u64::try_from(trip).unwrap_or(u64::MAX);
            figures.round_trip_us.store(trip, Ordering::Relaxed);
            figures.received.store(received, Ordering::Relaxed);
            figures.lost.store(lost, Ordering::Relaxed);
        }
        if let Some(time) = self.peer.detector.take_standstill() {
            self.stood_still = time;
            self.tell(News::StoodStill(time));
        }
        if let Some(confirmed) = self.peer.detector.last_confirmed() {
            self.confirmations.hear(confirmed);
        }
        self.tell_confirmed();
    }

    /// Whoever sees a confirmation sees the gap before it.
    fn tell_confirmed(&self) {
        let (gaps, last) = (self.confirmations.gaps(), self.confirmations.last());
        self.shared.gaps.store(gaps, Ordering::Relaxed);
        let nanos = last.map_or(0, Instant::as_nanos);
        self.shared.confirmed_nanos.store(nanos, Ordering::Release);
    }

    fn hear(&mut self, current: Instant, heartbeat: &Heartbeat) {
        let saying = heartbeat.saying;
        let confirms = self.peer.confirmed(current, heartbeat);
        if let Some(asked) = confirms {
            self.shared.peer_clear.hear(heartbeat.clear, asked);
            self.confirmations.hear(asked);
        }
        let told = heartbeat.timeouts;
        let raised = self.timeouts.pledge.hear(&told, confirms);
        // Another path may have told of a longer one: what this path confirms may be hours old.
        let raised = raised.filter(|it| self.confirmations.raise(self.timeouts.pledge.until(*it)));
        if let Some(raised) = raised {
            // Who serves goes on alone when its lease ends, and not later.
            let until = self.timeouts.pledge.until(raised);
            let timeout = self.timeouts.pledge.timeout_of(raised.factor);
            self.peer.bear(current, timeout, until);
        }
        // The gap before it first.
        self.tell_confirmed();
        self.timeouts.hear(&told, raised, &self.shared.timeouts);
        if let Some(word) = told.word.filter(|word| self.timeouts.is_news(word)) {
            self.tell(News::Timeouts(word));
        }
        self.shared
            .peer_wishes
            .store(saying.digest, Ordering::Relaxed);
        if let Some(wish) = saying.wish
            && self.teller.is_news(&wish)
        {
            self.tell(News::Wish(wish));
        }
    }

    fn foreign(&self, path: usize) {
        let figures = &self.shared.paths[path];
        figures.foreign.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&self, news: News) {
        if self.sender.try_send(news).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}

#[cfg(test)]
mod tests;
