//! Two nodes with the rules as they are, a network, two clocks and two disks. Node 0 serves, node 1 would take over.

use std::time::Duration;

use controlplane_core::failure_detector::{Presence, Timing};
use controlplane_core::keeper::HANDICAP;
use controlplane_core::membership::{Peer, Reception, Run};
use controlplane_core::self_fencing::{Confirmations, Leases, Served, ServiceLease, takeover_wait};
use controlplane_core::timeouts::{
    Allowance, Effect, Factor, Kept, Pledge, Raised, Span, Told, Window,
};
use controlplane_core::wire::Heartbeat;
use mirror_core::types::{BootId, Incarnation, Instant, NodeId};

const STEP_MS: u64 = 100;
const TIMING: Timing = Timing {
    interval: Duration::from_millis(300),
    timeout: Duration::from_secs(2),
};
const HARD_STOP: Duration = Duration::from_millis(300);
/// The interconnect; the mirror link is the other path.
const WIRE: usize = 0;
const LINK: usize = 1;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    Nothing,
    /// An operator says so on a node: tenths, for a minute.
    Say(usize, u8),
    Reset(usize),
    /// What node 0 sends is lost, and what node 1 sends.
    Cut([bool; 2]),
    /// The interconnect works.
    Heal,
    LinkDown,
    LinkUp,
    /// The daemon of a node ends and is started again.
    Restart(usize),
    /// A machine boots anew.
    Reboot(usize),
    /// A machine is off for good.
    Off(usize),
    /// What a node writes from now on takes seconds.
    SlowDisk(usize),
    /// The deciding loop of a node stands still for a while.
    Stall(usize),
}

struct Daemon {
    peer: Peer,
    pledge: Pledge,
    window: Window,
    confirmations: Confirmations,
    lease: ServiceLease,
    began: Instant,
    /// When the peer was heard last, on any path.
    heard: Instant,
    /// What lengthens the lease.
    raised: Option<Raised>,
    beat_at: Instant,
    /// What the loop and the thread tell each other.
    allowance: u32,
    known: (u16, Factor),
    /// What is on its way to the disk, and when it is there.
    writing: Option<(u64, Kept, u64)>,
    presence: (Presence, Instant),
    loop_at: u64,
}

struct Node {
    daemon: Option<Daemon>,
    disk: Kept,
    boots: u8,
    runs: u64,
    /// Its clock: ahead by this, in thousandths faster or slower.
    drift: i64,
    booted_ms: u64,
    back_at: u64,
    slow_disk: bool,
    /// What the peer confirmed last, for the next run.
    left: Option<Instant>,
    /// Until when its services may live, milliseconds that passed.
    services_until: u64,
}

pub(crate) struct World {
    now: u64,
    nodes: [Node; 2],
    cut: [bool; 2],
    link: bool,
    /// The network delays nothing for long.
    pub(crate) calm: bool,
    posted: Vec<(u64, Heartbeat)>,
    random: u64,
    pub(crate) happened: Vec<(u64, Fault)>,
    /// Node 0 found its lease over, or node 1 took over.
    pub(crate) interruptions: u32,
    /// Node 0 found node 1 dead only while its own lease lasted.
    pub(crate) dead_in_time: bool,
    taken: bool,
}

fn span() -> Span {
    Span {
        timeout: TIMING.timeout,
        lease: TIMING.timeout,
        leases: Leases::Kept,
        takeover_wait: takeover_wait(Leases::Kept, TIMING.timeout, HARD_STOP, None),
    }
}

pub(crate) fn mix(seed: u64, faults: &[Fault]) -> usize {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (seed, faults).hash(&mut hasher);
    usize::try_from(hasher.finish() % 1024).expect("small")
}

impl Node {
    fn clock(&self, now: u64) -> Instant {
        let passed = i64::try_from(now - self.booted_ms).expect("small");
        let nanos = 5_000_000_000 + passed * 1_000 * (1000 + self.drift);
        Instant::from_nanos(u64::try_from(nanos).expect("later"))
    }

    /// The last millisecond at which its clock shows no more than that.
    fn passes(&self, at: Instant) -> u64 {
        let nanos = i64::try_from(at.as_nanos()).expect("small") - 5_000_000_000;
        let passed = nanos / (1_000 * (1000 + self.drift));
        self.booted_ms + u64::try_from(passed.max(0)).expect("later")
    }

    fn begin(&mut self, now: u64, number: u8) {
        self.runs += 1;
        let clock = self.clock(now);
        let id = |number| NodeId::new(number).expect("a node");
        let boot = BootId([16 * number + self.boots; 16]);
        let run = Run {
            boot,
            incarnation: Incarnation(u64::from(number) * 1000 + self.runs),
        };
        self.daemon = Some(Daemon {
            peer: Peer::new(clock, id(number), run, id(1 - number), TIMING, 2),
            pledge: Pledge::new(clock, span(), self.disk.promised),
            window: Window::new(id(number), boot, self.disk),
            confirmations: Confirmations::new(TIMING.timeout, self.left),
            lease: ServiceLease::new(clock, TIMING.timeout, self.left),
            began: clock,
            heard: clock,
            raised: None,
            beat_at: clock,
            allowance: Allowance::NOTHING.bits(),
            known: (u16::MAX, Factor::MAX),
            writing: None,
            presence: (Presence::Unknown, clock),
            loop_at: now,
        });
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let node = |drift| Node {
            daemon: None,
            disk: Kept::NOTHING,
            boots: 1,
            runs: 0,
            drift,
            booted_ms: 0,
            back_at: 0,
            slow_disk: false,
            left: None,
            services_until: 0,
        };
        let drift = [[-1, 1], [1, -1], [0, 0]][usize::try_from(seed % 3).expect("small")];
        Self {
            now: 0,
            nodes: drift.map(node),
            cut: [false; 2],
            link: true,
            calm: false,
            posted: Vec::new(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            happened: Vec::new(),
            interruptions: 0,
            dead_in_time: true,
            taken: false,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    pub(crate) fn any(&mut self) -> Fault {
        let node = usize::from(self.below(2) == 0);
        let tenths = [11, 20, 30, 60][usize::try_from(self.below(4)).expect("small")];
        let way = [self.below(3) == 0, self.below(3) == 0];
        match self.below(13) {
            0..=2 => Fault::Say(node, tenths),
            3 => Fault::Reset(node),
            4 => Fault::Cut(way),
            5 | 6 => Fault::Heal,
            7 => Fault::LinkDown,
            8 => Fault::LinkUp,
            9 => Fault::Restart(node),
            10 => Fault::Reboot(1),
            11 => Fault::SlowDisk(node),
            _ => Fault::Stall(node),
        }
    }

    pub(crate) fn pause(&mut self) -> u64 {
        let most = [500, 2500, 9000][usize::try_from(self.below(3)).expect("small")];
        self.below(most)
    }

    /// How many tenths each node waits by what is durable there.
    pub(crate) fn waits(&self) -> [u8; 2] {
        let waits = |node: &Node| node.daemon.as_ref().expect("runs").window.waits().tenths();
        self.nodes.each_ref().map(waits)
    }

    pub(crate) fn happen(&mut self, fault: Fault) {
        self.happened.push((self.now, fault));
        let now = self.now;
        let stall = now + self.below(600);
        let away = now + STEP_MS + self.below(900);
        let durable = self.below(2) == 0;
        match fault {
            Fault::Nothing => {}
            Fault::Say(node, tenths) => {
                let lasts = Duration::from_secs(60);
                self.say(node, Factor::of_tenths(tenths).expect("a factor"), lasts);
            }
            Fault::Reset(node) => self.say(node, Factor::ONE, Duration::ZERO),
            Fault::Cut(ways) => self.cut = ways,
            Fault::Heal => self.cut = [false; 2],
            Fault::LinkDown => self.link = false,
            Fault::LinkUp => self.link = true,
            Fault::SlowDisk(node) => self.nodes[node].slow_disk = true,
            Fault::Stall(node) => {
                if let Some(daemon) = &mut self.nodes[node].daemon {
                    daemon.loop_at = stall;
                }
            }
            Fault::Restart(node) => self.end(node, away, durable),
            Fault::Reboot(node) => {
                self.end(node, away, durable);
                let node = &mut self.nodes[node];
                (node.boots, node.booted_ms) = (node.boots + 1, now);
                (node.left, node.services_until) = (None, now);
            }
            Fault::Off(node) => {
                self.end(node, u64::MAX, durable);
                self.nodes[node].services_until = now;
                self.link = false;
            }
        }
    }

    fn say(&mut self, node: usize, factor: Factor, lasts: Duration) {
        let node = &mut self.nodes[node];
        let clock = node.clock(self.now);
        if let Some(daemon) = &mut node.daemon {
            daemon.window.say(clock, factor, lasts);
        }
    }

    fn end(&mut self, node: usize, back_at: u64, durable: bool) {
        let node = &mut self.nodes[node];
        node.back_at = back_at;
        if let Some(daemon) = node.daemon.take()
            && let Some((_, kept, _)) = daemon.writing
            && durable
        {
            node.disk = kept;
        }
    }

    /// So many milliseconds; an error if node 1 begins beside node 0.
    pub(crate) fn pass(&mut self, millis: u64) -> Result<(), String> {
        let until = self.now + millis;
        while self.now < until && !self.taken {
            self.now += STEP_MS.min(until - self.now);
            for node in 0..2 {
                let back = self.nodes[node].back_at <= self.now;
                if self.nodes[node].daemon.is_none() && back {
                    self.nodes[node].begin(self.now, u8::try_from(node).expect("small"));
                }
                self.hear(node);
                self.thread(node);
                self.turn(node);
            }
            self.keep_linked();
            self.judge()?;
        }
        self.now = until;
        Ok(())
    }

    /// What came, and what the daemons of the volumes hear by themselves.
    fn hear(&mut self, number: usize) {
        let due = |(at, heartbeat): &(u64, Heartbeat)| {
            *at <= self.now && usize::from(heartbeat.to.number()) == number
        };
        let came: Vec<Heartbeat> = self
            .posted
            .extract_if(.., |it| due(it))
            .map(|it| it.1)
            .collect();
        let node = &mut self.nodes[number];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else {
            return;
        };
        daemon.confirmations.look(clock);
        for heartbeat in came {
            match daemon.peer.receive(clock, &heartbeat) {
                Reception::Counted | Reception::NewRun { .. } => {}
                Reception::Unproven | Reception::Old | Reception::Misdirected => continue,
            }
            daemon.heard = daemon.heard.max(clock);
            let confirms = daemon.peer.confirmed(clock, &heartbeat);
            if let Some(sent) = confirms {
                daemon.confirmations.hear(sent);
            }
            let raised = daemon.pledge.hear(&heartbeat.timeouts, confirms);
            let longer = |it: &Raised| daemon.confirmations.raise(daemon.pledge.until(*it));
            if let Some(raised) = raised.filter(longer) {
                let (timeout, until) = (
                    daemon.pledge.timeout_of(raised.factor),
                    daemon.pledge.until(raised),
                );
                daemon.peer.bear(clock, timeout, until);
                daemon.pledge.raised(raised);
                daemon.raised = Some(raised);
            }
            if let Some(word) = heartbeat.timeouts.word {
                daemon.window.hear(clock, word);
            }
        }
        if self.link {
            daemon.heard = daemon.heard.max(clock);
            daemon.peer.detector.heard_before(clock, LINK, clock, clock);
            daemon.lease.answered(clock, clock);
        }
        tell(daemon, clock);
    }

    /// The thread of the heartbeats.
    fn thread(&mut self, number: usize) {
        let delay = match self.below(8) {
            0 => self.below(1500),
            1..=3 => self.below(200),
            _ => 0,
        };
        let delay = if self.calm { delay.min(100) } else { delay };
        let node = &mut self.nodes[number];
        let clock = node.clock(self.now);
        let Some(daemon) = &mut node.daemon else {
            return;
        };
        if clock >= daemon.beat_at {
            daemon.beat_at = clock + TIMING.interval;
            let allowance = Allowance::of_bits(daemon.allowance);
            daemon.pledge.allow(allowance.factor);
            let waits = daemon.pledge.tell(clock);
            daemon.known = (allowance.number, daemon.pledge.waits(clock));
            let told = Told {
                waits: Some(waits),
                lease: Some(daemon.pledge.lease(clock)),
                word: daemon.window.durable().copied(),
            };
            if let Some(heartbeat) = daemon.peer.next(clock, WIRE, false)
                && !self.cut[number]
            {
                let timeouts = told;
                let heartbeat = Heartbeat {
                    timeouts,
                    ..heartbeat
                };
                self.posted.push((self.now + delay, heartbeat));
            }
        }
        daemon.peer.look(clock);
        let presence = daemon.peer.presence();
        if presence != daemon.presence.0 {
            daemon.presence = (presence, clock);
            if number == 0 && presence == Presence::Dead {
                // The arbiter answers.
                daemon.lease.contact(clock);
                self.dead_in_time &= !daemon.lease.is_over(clock);
            }
        }
        if let Some(confirmed) = daemon.peer.detector.last_confirmed() {
            daemon.confirmations.hear(confirmed);
        }
        tell(daemon, clock);
    }

    /// A turn of the loop that decides.
    fn turn(&mut self, number: usize) {
        let takes = self.now + self.below(500);
        let node = &mut self.nodes[number];
        let clock = node.clock(self.now);
        let Some(daemon) = node.daemon.as_mut().filter(|it| it.loop_at <= self.now) else {
            return;
        };
        let takes = takes + if node.slow_disk { 4000 } else { 0 };
        let mut effects = Vec::new();
        let (number, waits) = daemon.known;
        let waiting = daemon.window.waits();
        daemon.allowance = daemon.window.allowance(clock, waiting).bits();
        daemon.window.kept(number, waits);
        if let Some((version, kept, at)) = daemon.writing
            && at <= self.now
        {
            node.disk = kept;
            daemon.writing = None;
            daemon.window.stored(clock, version, &mut effects);
        }
        daemon.window.store(clock, &mut effects);
        for effect in effects {
            if let Effect::Store { version, kept } = effect {
                daemon.writing = Some((version, kept, takes));
            }
        }
        if daemon.lease.counted() > Instant::default() {
            node.left = Some(daemon.lease.counted());
        }
    }

    /// While both are linked the copies agree, and the peer's word counts again.
    fn keep_linked(&mut self) {
        let clocks = [0, 1].map(|node: usize| self.nodes[node].clock(self.now));
        let alive = |node: &Node| {
            let daemon = node.daemon.as_ref();
            daemon.is_some_and(|daemon| daemon.presence.0 == Presence::Alive)
        };
        let linked = self.link && self.nodes.iter().all(alive);
        let [serving, _] = &mut self.nodes;
        if let Some(daemon) = serving.daemon.as_mut().filter(|_| linked) {
            daemon.lease.restored(clocks[0], Served::Linked);
        }
    }

    /// Whether node 1 may begin, and node 0 may live.
    fn judge(&mut self) -> Result<(), String> {
        let asks = self.below(3) > 0;
        let [serving, other] = &mut self.nodes;
        let clock = serving.clock(self.now);
        if let Some(daemon) = &mut serving.daemon {
            if asks {
                daemon.lease.contact(clock);
            }
            let over = daemon.lease.is_over(clock) && daemon.lease.was_kept();
            self.interruptions += u32::from(over);
            let until = daemon.lease.until();
            // A daemon that ends leaves its services to the next one, or to the watchdog.
            serving.services_until = serving.passes(until + HARD_STOP);
        }
        let clock = other.clock(self.now);
        let Some(daemon) = &other.daemon else {
            return Ok(());
        };
        let (Presence::Dead, since) = daemon.presence else {
            return Ok(());
        };
        let waits = daemon.window.waits();
        let heard = daemon.heard.max(daemon.began);
        let dead = since.max(heard + span().silence(waits));
        let starts = dead + HANDICAP + span().takeover_wait + span().stretch(waits);
        if clock < starts {
            return Ok(());
        }
        self.taken = true;
        self.interruptions += 1;
        if serving.services_until > self.now {
            let (now, until) = (self.now, serving.services_until);
            return Err(format!(
                "begins at {now}, the other one lives until {until}"
            ));
        }
        Ok(())
    }
}

/// The loop learns what the thread knows.
fn tell(daemon: &mut Daemon, clock: Instant) {
    if let Some(last) = daemon.confirmations.last() {
        let gaps = daemon.confirmations.gaps();
        daemon.lease.confirmed(clock, last, gaps);
    }
    if let Some(raised) = daemon.raised {
        let lease = daemon.pledge.lease_of(raised.factor);
        daemon.lease.raise(clock, raised.sent, lease);
    }
}
