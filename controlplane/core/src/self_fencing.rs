//! How long the services of a group may run here, when the watchdog device is petted, and how long another node waits
//! before it starts them: three small tables and the arithmetic between them. docs/controlplane.md prints them.
//!
//! Writes need none of this (S6). Addresses and applications have no arbiter that could refuse them, so they are fenced by
//! time: whoever may have lost its volume stops its services within a bound, and whoever takes it over waits that long.
//! All times are of `CLOCK_BOOTTIME`; they are told, never asked for.
//!
//! The bound. The other node declares this one dead a timeout T after it heard it last, and starts services
//! [`crate::keeper::HANDICAP`] and [`takeover_wait`] later, whenever it serves the volumes. The time here is over at most T and
//! [`grace`] after this node sent what the other one confirmed last; then a hard stop has its time, then the watchdog.

use core::time::Duration;

mod words;

use mirror_core::types::Instant;

use crate::mutant::{self, Mutant};
use crate::wish::GroupKey;

/// What late looks at a volume's daemon, and a loop that is woken late, cost at most.
pub const LOOK_MARGIN: Duration = Duration::from_millis(250);
/// A volume's daemon that hangs is known not to answer after so long: it is in doubt from then.
pub const LATE_ANSWER: Duration = Duration::from_secs(5);
/// A run that begins looks at its volumes within this time, before it takes its services' time for over. Runs that end before
/// they have looked share it. Nobody waits for it: a watchdog is petted by the lease meanwhile, and without one nothing bounds
/// how long a node is without this daemon.
pub const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Two clocks that go apart by 1/1000 each.
pub(crate) const DRIFT_DIVISOR: u32 = 500;

/// The arbiter's word lengthens the time of services by no more than this beyond the peer's: half a heartbeat's timeout.
/// The claim of a serving node is answered within it, or the node steps down.
pub fn grace(timeout: Duration) -> Duration {
    timeout / 2
}

/// A deciding loop that did not turn for so long is taken for stuck, and the watchdog is not petted any more: what
/// another node waits for, without the device's own time, so that a loop that is stuck breaks no bound.
pub fn loop_allowance(timeout: Duration, hard_stop: Duration) -> Duration {
    grace(timeout) + hard_stop
}

/// After the other node is dead, or, of one that lives, after the volumes of a group are served here, no service starts for so
/// long, unless it is known that nothing of the group is left on the other node. `watchdog` is the other node's, `None` without one: a hard stop that hangs there is
/// waited for no longer then. Its time counts twice: the end of a process that did not pet it any more is a sign of life to the
/// device (the kernel pets one that is closed without the word that stops it).
pub fn takeover_wait(
    leases: Leases,
    timeout: Duration,
    hard_stop: Duration,
    watchdog: Option<Duration>,
) -> Duration {
    let wait = match leases {
        Leases::Kept => grace(timeout) + hard_stop + 2 * watchdog.unwrap_or_default() + LOOK_MARGIN,
        Leases::None => hard_stop,
    };
    wait + wait / DRIFT_DIVISOR
}

/// Whether the arbiter is of a kind that lets another node take over by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leases {
    /// A register or ping targets: services need a lease.
    Kept,
    /// An operator, or nobody: nothing here ends by time.
    None,
}

/// Counts the gaps in what the peer confirms on the interconnects: for the thread that hears it.
///
/// A gap counts twice: once it is as long as the lease, and again when something is confirmed after it. What was forgiven
/// meanwhile (the mirror link went on, or the copy here alone counted) says nothing of what happened since.
#[derive(Clone, Copy, Debug)]
pub struct Confirmations {
    lease: Duration,
    /// Until when the lease lasts that the peer's promise lengthened.
    raised: Instant,
    last: Option<Instant>,
    in_gap: bool,
    gaps: u64,
}

impl Confirmations {
    /// `lease`: what is confirmed later than that after the last one comes after a gap. `last`: when this node sent what the
    /// peer confirmed last, as an earlier run left it behind.
    pub fn new(lease: Duration, last: Option<Instant>) -> Self {
        Self {
            lease,
            raised: Instant::default(),
            last,
            in_gap: false,
            gaps: 0,
        }
    }

    /// The peer's promise lengthens the lease until then ([`crate::timeouts`]); `false` if it lasts as long already, or if it is over: a
    /// promise that comes after a gap undoes none.
    pub fn raise(&mut self, until: Instant) -> bool {
        let over = self.in_gap && !mutant::is(Mutant::RaiseEndsGap);
        let lengthens = !over && until > self.raised;
        if lengthens {
            self.raised = until;
        }
        lengthens
    }

    /// Before anything is heard: what comes now does not undo that it came too late.
    pub fn look(&mut self, now: Instant) {
        let over = |last: Instant| now >= self.raised.max(last + self.lease);
        let gap = self.last.is_some_and(over);
        self.gaps += u64::from(gap && !self.in_gap);
        self.in_gap = gap;
    }

    /// The peer confirmed what this node sent then, now or before.
    pub fn hear(&mut self, sent: Instant) {
        if self.last.is_some_and(|last| sent <= last) {
            return;
        }
        self.gaps += u64::from(self.in_gap);
        self.last = Some(sent);
    }

    /// When this node sent what the peer confirmed last.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// For [`ServiceLease::confirmed`]: to be read after [`Self::last`], or with it.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }
}

/// The time of a node's services: who counts was heard.
///
/// The peer's confirmations count one after another without a gap. After a gap (the peer may have taken over in it)
/// they count again when the data planes say that both copies are in one view, linked and served here, and the peer was heard
/// since ([`Self::restored`]). A new run of the daemon begins with what an earlier one left behind.
#[derive(Clone, Copy, Debug)]
pub struct ServiceLease {
    timeout: Duration,
    /// When this node sent the last heartbeat that the peer confirmed without a gap before it.
    confirmed: Instant,
    /// The same, gap or not.
    latest: Instant,
    /// When the arbiter was asked what it answered last, whatever it was.
    contact: Instant,
    /// What lengthens it: when this node sent what a promise of the peer confirmed, and how long the lease is by that.
    raised: (Instant, Duration),
    /// Since when the peer's word does not count.
    gap: Option<Instant>,
    /// Gaps that whoever listens to the peer has counted.
    gaps: u64,
    /// Whether the peer's word counted at any time in this run.
    kept: bool,
}

impl ServiceLease {
    /// Of a run that begins. `confirmed`: when this node, in this boot, sent what the peer confirmed last, as an earlier run
    /// left it behind; `None` if nothing is known, which is a time that is over. If it is not over, a confirmation that comes
    /// in time goes on from there; whoever counts gaps has to know the same.
    pub fn new(now: Instant, timeout: Duration, confirmed: Option<Instant>) -> Self {
        let confirmed = confirmed.unwrap_or_default();
        Self {
            timeout,
            confirmed,
            latest: confirmed,
            contact: Instant::default(),
            raised: (Instant::default(), Duration::ZERO),
            gap: (now >= confirmed + timeout).then_some(now),
            gaps: 0,
            kept: now < confirmed + timeout,
        }
    }

    /// Whether the peer's word counted at any time in this run: if not, this one began in a gap.
    pub fn was_kept(&self) -> bool {
        self.kept
    }

    /// The peer confirmed what this node sent then. `gaps`: how often, in this run, the newest confirmation was older than
    /// the timeout before the next one came ([`Confirmations::gaps`]). The thread that hears the peer counts them: a loop that
    /// reads late what came in time has no gap.
    pub fn confirmed(&mut self, now: Instant, sent: Instant, gaps: u64) {
        if gaps != self.gaps {
            (self.gaps, self.gap) = (gaps, Some(now));
        }
        self.heard(sent);
    }

    /// The peer answered on the mirror link what this node sent then. Where nothing else is heard nobody counts this path's
    /// gaps but this.
    pub fn answered(&mut self, now: Instant, at: Instant) {
        let over = self.raised_until().max(self.latest + self.timeout);
        if self.gap.is_none() && at >= over {
            self.gap = Some(now);
        }
        self.heard(at);
    }

    /// The peer promised to wait longer when it had what this node sent then: that confirmation counts for so long
    /// ([`crate::timeouts`]). To be told after [`Self::confirmed`]: one after a gap, or once the lease is over, lengthens nothing.
    pub fn raise(&mut self, now: Instant, sent: Instant, lease: Duration) {
        let lasts = self.gap.is_none() && !self.is_over(now);
        if lasts && sent + lease > self.raised_until() {
            self.raised = (sent, lease);
        }
    }

    /// Until when a promise of the peer lengthens it, or did.
    pub fn raised_until(&self) -> Instant {
        let (sent, lease) = self.raised;
        if mutant::is(Mutant::AnyWordRaises) {
            return self.latest + lease;
        }
        sent + lease
    }

    fn heard(&mut self, at: Instant) {
        self.latest = self.latest.max(at);
        if self.gap.is_none() {
            self.confirmed = self.latest;
        }
    }

    /// The arbiter answered something that was asked then. That proves contact and not that this node stands: the peer
    /// may have been granted the volumes. An arbiter that can grant nothing to anybody says no more: it may learn the volumes
    /// from the peer, or have been set up anew beside the one that the peer asks.
    pub fn contact(&mut self, asked: Instant) {
        self.contact = self.contact.max(asked);
    }

    /// Each copy here is served, with the peer in one view or alone, by what was asked of the data planes at `asked`. A copy
    /// counts as linked for a while after the peer was heard last: where one is served with the peer, that one has to have
    /// been heard since the gap as well.
    pub fn restored(&mut self, asked: Instant, by: Served) {
        let since = |gap: Instant| match by {
            Served::Alone => asked >= gap,
            Served::Linked => asked >= gap && self.latest >= gap,
        };
        if self.gap.is_some_and(since) {
            (self.gap, self.kept) = (None, true);
            self.confirmed = self.latest;
        }
    }

    /// When it is over, unless somebody is heard again.
    pub fn until(&self) -> Instant {
        let plain = self.ends(self.confirmed + self.timeout, self.timeout);
        let (_, lease) = self.raised;
        plain.max(self.ends(self.raised_until(), lease))
    }

    /// When a lease is over that lasts until `peer` by the peer's word, and is so long.
    fn ends(&self, peer: Instant, lease: Duration) -> Instant {
        let most = peer + grace(lease);
        let contact = self.contact + lease;
        let contact = if mutant::is(Mutant::ContactExtends) {
            contact
        } else {
            contact.min(most)
        };
        peer.max(contact)
    }

    /// How long the peer's word counts now: longer than [`Self::timeout`] while a promise of the peer lengthens it.
    pub fn length(&self, now: Instant) -> Duration {
        if now < self.raised_until() {
            self.raised.1.max(self.timeout)
        } else {
            self.timeout
        }
    }

    /// Whether it is over.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until()
    }

    /// When this node sent the last heartbeat whose confirmation counts.
    pub fn counted(&self) -> Instant {
        self.confirmed
    }

    /// The heartbeat's timeout, by which it counts.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// How the copies of a group are served here after a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Each of them alone counts.
    Alone,
    /// One or more are linked with the peer, and both count.
    Linked,
}

/// On what the services of a group rest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// No arbiter lets the other node take over by itself.
    NoTakeover,
    /// The copies here alone count.
    Alone,
    /// The arbiter granted that they will.
    Granted,
    /// Both count, and this node's time lasts.
    Leased,
    /// This run of the daemon has not looked at the volumes yet, or found them served here and the peer's first word is to come; nor
    /// has an earlier one that ended so; for [`FIRST_LOOK`] in all.
    Unlooked,
    /// Both count, or it is not known, and the time is over.
    Over,
}

/// What becomes of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may run.
    GoOn,
    /// They stop, hard and at once.
    StopHard,
}

/// May the services run? Row by row.
pub const SERVICES: [(Ground, Verdict); 6] = [
    (Ground::NoTakeover, Verdict::GoOn),
    (Ground::Alone, Verdict::GoOn),
    (Ground::Granted, Verdict::GoOn),
    (Ground::Leased, Verdict::GoOn),
    (Ground::Unlooked, Verdict::GoOn),
    (Ground::Over, Verdict::StopHard),
];

/// The verdict of [`SERVICES`].
pub fn services(ground: Ground) -> Verdict {
    let found = SERVICES.iter().find(|(row, _)| *row == ground);
    found.map_or(Verdict::StopHard, |(_, verdict)| *verdict)
}

/// Why a takeover's services may start, or have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// They began in this activation of the volumes, or run already.
    Begun,
    /// The other node said, after the volumes were served here, that nothing of the group is left there.
    OtherClear,
    /// [`takeover_wait`] is over.
    Waited,
    /// None of these: whatever the other node ran may still run, also if it gave the volumes up itself.
    Unknown,
}

/// May services start here? Row by row.
pub const STARTS: [(Before, Start); 4] = [
    (Before::Begun, Start::AtOnce),
    (Before::OtherClear, Start::AtOnce),
    (Before::Waited, Start::AtOnce),
    (Before::Unknown, Start::Later),
];

/// Whether services start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Yes.
    AtOnce,
    /// Not before something of it is otherwise.
    Later,
}

/// The answer of [`STARTS`].
pub fn starts(before: Before) -> Start {
    let found = STARTS.iter().find(|(row, _)| *row == before);
    found.map_or(Start::Later, |(_, start)| *start)
}

/// What of a group may be on this node, for the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Whether something is left of it.
    pub left: Left,
    /// When its time is over; `None`: it needs none.
    pub lease_until: Option<Instant>,
    /// Since when it is being stopped hard, by this run of the daemon or an earlier one.
    pub hard_since: Option<Instant>,
    /// How long a hard stop may take.
    pub hard_stop: Duration,
}

/// Whether something is left of a group on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing, and nothing is about to start.
    Nothing,
    /// Something runs, or may.
    Something,
}

/// Groups of which nothing is left on a node, as a heartbeat tells it: 48 bits, of which each group has one by its key. Two
/// groups may share a bit: it is set if nothing is left of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClearGroups(u64);

impl ClearGroups {
    /// How many bits there are.
    pub const BITS: usize = 48;
    const ALL: u64 = (1 << Self::BITS) - 1;

    /// Of all groups that a node knows.
    pub fn of(groups: impl IntoIterator<Item = (GroupKey, Left)>) -> Self {
        let (mut clear, mut left) = (0, 0);
        for (key, what) in groups {
            match what {
                Left::Nothing => clear |= 1 << Self::place(key),
                Left::Something => left |= 1_u64 << Self::place(key),
            }
        }
        Self(clear & !left)
    }

    /// The bits; those above the 48th are none.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & Self::ALL)
    }

    /// Below 2^48.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// A group's bit, from 0.
    pub fn place(key: GroupKey) -> usize {
        // The remainder is below 48.
        usize::try_from(key.0 % Self::BITS as u64).unwrap_or_default()
    }
}

/// What keeps the watchdog from being petted, or lets it be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Nothing is left of any group here.
    NothingLeft,
    /// A hard stop has not ended in its time.
    Overdue,
    /// The time of services was over for as long as a hard stop takes.
    LeaseLongOver,
    /// The loop that decides has not turned for [`loop_allowance`].
    LoopStuck,
    /// None of these.
    Well,
}

/// What is done about the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// It is disarmed, or not armed.
    Disarmed,
    /// Armed, and petted.
    Petted,
    /// Armed, and not petted: it resets this machine within its timeout.
    Left,
}

/// The watchdog, row by row; the first one that fits rules.
pub const WATCHDOG: [(Watched, Care); 5] = [
    (Watched::NothingLeft, Care::Disarmed),
    (Watched::Overdue, Care::Left),
    (Watched::LeaseLongOver, Care::Left),
    (Watched::LoopStuck, Care::Left),
    (Watched::Well, Care::Petted),
];

/// What a group allows by itself: until when the device is petted, counted from a loop that turned at `looked`; `None`
/// if nothing is left of it.
fn petted_until(looked: Instant, timeout: Duration, group: &Exposure) -> Option<Instant> {
    if group.left == Left::Nothing {
        return None;
    }
    let own = looked + loop_allowance(timeout, group.hard_stop);
    let ends = [group.lease_until, group.hard_since];
    let ends = ends.into_iter().flatten().map(|at| at + group.hard_stop);
    Some(ends.fold(own, Instant::min))
}

/// Until when the device may be petted if the loop never turns again; `None`: it is not needed. A thread that knows
/// nothing else keeps [`WATCHDOG`] by it.
pub fn pet_until<'a>(
    looked: Instant,
    timeout: Duration,
    groups: impl IntoIterator<Item = &'a Exposure>,
) -> Option<Instant> {
    let ends = groups.into_iter();
    ends.filter_map(|group| petted_until(looked, timeout, group))
        .min()
}

/// The situation of [`WATCHDOG`] at `now`, of a loop that turned last at `looked`.
pub fn watched(now: Instant, looked: Instant, timeout: Duration, groups: &[Exposure]) -> Watched {
    let left = || groups.iter().filter(|group| group.left == Left::Something);
    let past =
        |at: Option<Instant>, group: &Exposure| at.is_some_and(|at| now >= at + group.hard_stop);
    if left().next().is_none() {
        Watched::NothingLeft
    } else if left().any(|group| past(group.hard_since, group)) {
        Watched::Overdue
    } else if left().any(|group| past(group.lease_until, group)) {
        Watched::LeaseLongOver
    } else if left().any(|group| now >= looked + loop_allowance(timeout, group.hard_stop)) {
        Watched::LoopStuck
    } else {
        Watched::Well
    }
}

/// The care of [`WATCHDOG`].
pub fn care(watched: Watched) -> Care {
    let found = WATCHDOG.iter().find(|(row, _)| *row == watched);
    found.map_or(Care::Left, |(_, care)| *care)
}

#[cfg(test)]
mod tests;
