//! What the world does not have: a real keeper, group and failure detector, each told what `lockstepd` tells it.

use std::time::Duration;

use controlplane_core::failure_detector::{Change, FailureDetector, Heard, Presence, Timing};
use controlplane_core::group::{
    self, Action, Group, Origin, Outcome, Policy, ResourcePolicy, Volumes,
};
use controlplane_core::keeper::{
    ArbiterKind, Effect, Event, HANDICAP, Keeper, LINK_GRACE, VolumeFacts,
};
use controlplane_core::partition::{Decision, Standing};
use controlplane_core::self_fencing::{Confirmations, Served, ServiceLease};
use controlplane_core::timeouts::{Effect as Said, Factor, Kept, LASTS_MIN, Window};
use controlplane_core::view_change::Question;
use mirror_core::types::{BootId, Epoch, Instant, NodeId, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUME: VolumeId = VolumeId([7; 16]);
const T: Duration = Duration::from_secs(2);
const TRIPLE: Duration = Duration::from_secs(6);
const TIMING: Timing = Timing {
    interval: Duration::from_millis(250),
    timeout: T,
};

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

fn check(is: bool, what: &str) -> Result<(), String> {
    if is { Ok(()) } else { Err(what.to_string()) }
}

/// All of them; what is wrong.
pub(crate) fn all() -> Result<(), String> {
    who_serves_goes_on_alone_when_its_lease_ends(ArbiterKind::Register)?;
    who_serves_goes_on_alone_when_its_lease_ends(ArbiterKind::Manual)?;
    a_peer_that_comes_back_has_time_for_its_link()?;
    a_standby_asks_no_earlier_than_it_promised()?;
    services_wait_as_long_as_they_are_told()?;
    nothing_is_promised_before_services_wait()?;
    a_promise_after_a_gap_lengthens_nothing()?;
    a_raised_timeout_ends_with_the_lease()
}

fn facts(standing: Standing, linked: bool) -> VolumeFacts {
    let view = ViewMark {
        epoch: Epoch(5),
        id: ViewId([5; 16]),
    };
    VolumeFacts {
        standing,
        view,
        history: ViewHistory::default(),
        next_epoch: Epoch(6),
        linked,
        alone: false,
        changing: false,
    }
}

/// A keeper, and the failure detector that tells it of the peer.
struct Bed {
    now: u64,
    keeper: Keeper,
    detector: FailureDetector,
    sequence: u64,
    decision: Option<Decision>,
    asked: bool,
}

const BEGAN: u64 = 100_000;

impl Bed {
    /// The peer was heard at [`BEGAN`] and 10 s more, when it gave a lease three times as long.
    fn begin(kind: ArbiterKind, standing: Standing) -> Self {
        let keeper = Keeper::new(at(BEGAN), kind, [VOLUME], &[3; 32]);
        let mut bed = Self {
            now: BEGAN,
            keeper: keeper.leasing(T, None, None),
            detector: FailureDetector::new(at(BEGAN), TIMING, 1),
            sequence: 0,
            decision: None,
            asked: false,
        };
        while bed.now < BEGAN + 10_000 {
            bed.pass(250);
            bed.hears();
            bed.says(facts(standing, true));
        }
        let (sent, lease) = (at(bed.now), TRIPLE);
        bed.detector.bear(sent, lease, sent + lease);
        bed.feed(Event::Raised { sent, lease });
        bed
    }

    fn feed(&mut self, event: Event) {
        let (mut effects, mut released) = (Vec::new(), None);
        self.keeper.handle(at(self.now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Decided { decision, .. } => self.decision = Some(decision),
                Effect::Ask(Question::Claim { .. }) => self.asked = true,
                // Of an earlier run.
                Effect::Ask(Question::Release { number, .. }) => released = Some(number),
                Effect::Say { .. } | Effect::Settle { .. } => {}
            }
        }
        if let Some(number) = released {
            self.feed(Event::GivenBack { number });
        }
    }

    fn says(&mut self, facts: VolumeFacts) {
        let event = Event::Volume {
            volume: VOLUME,
            facts: Some(Box::new(facts)),
            asked: at(self.now),
        };
        self.feed(event);
    }

    fn hears(&mut self) {
        self.sequence += 1;
        let heard = Heard {
            sequence: self.sequence,
            confirms: Some(at(self.now)),
            held: Duration::ZERO,
        };
        self.detector.heard(at(self.now), 0, heard);
        let (sent, gaps) = (at(self.now), 0);
        self.feed(Event::Confirmed { sent, gaps });
        self.changes();
    }

    fn changes(&mut self) {
        for change in self.detector.changes() {
            match change {
                Change::Peer(presence) => self.feed(Event::Peer(presence)),
                Change::Quiet(quiet) => self.feed(Event::Quiet(quiet)),
                Change::Path { .. } => {}
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.detector.look(at(self.now));
        self.changes();
        let asked = at(self.now);
        self.feed(Event::Contact { asked });
        self.feed(Event::Tick);
    }

    /// The peer stands still, and its link with it: `millis` of that are over.
    fn stands_still(&mut self, millis: u64, standing: Standing) {
        let end = self.now + millis;
        let silent = self.now + 2000;
        while self.now < end {
            self.pass(100);
            if self.now >= silent {
                self.says(facts(standing, false));
            }
        }
    }

    fn waits(&self) -> bool {
        !self.asked && matches!(self.decision, Some(Decision::Wait(_)))
    }
}

/// A standby that stands still is not dropped before.
fn who_serves_goes_on_alone_when_its_lease_ends(kind: ArbiterKind) -> Result<(), String> {
    let mut bed = Bed::begin(kind, Standing::Serving);
    bed.stands_still(5900, Standing::Frozen);
    check(bed.waits(), "goes on alone while its peer may stand still")?;
    bed.stands_still(100, Standing::Frozen);
    check(!bed.waits(), "does not go on alone when its lease is over")
}

/// The link could not come back without the peer.
fn a_peer_that_comes_back_has_time_for_its_link() -> Result<(), String> {
    let mut bed = Bed::begin(ArbiterKind::Register, Standing::Serving);
    bed.stands_still(5000, Standing::Frozen);
    let back = bed.now;
    while at(bed.now) < at(back) + LINK_GRACE {
        bed.hears();
        bed.says(facts(Standing::Frozen, false));
        check(bed.waits(), "leaves no time to the link")?;
        let due = bed.keeper.deadline(at(bed.now));
        let grace = at(back) + LINK_GRACE;
        check(due.is_some_and(|due| due <= grace), "misses its moment")?;
        bed.pass(100);
    }
    check(!bed.waits(), "waits for a link that does not come back")
}

fn a_standby_asks_no_earlier_than_it_promised() -> Result<(), String> {
    let mut bed = Bed::begin(ArbiterKind::Register, Standing::Standby);
    let promised = bed.now + 15_000;
    bed.stands_still(2500, Standing::Standby);
    bed.feed(Event::NotBefore(at(promised)));
    bed.stands_still(12_500, Standing::Standby);
    bed.stands_still(500, Standing::Standby);
    check(bed.waits(), "asks earlier than it promised")?;
    let due = bed.keeper.deadline(at(bed.now));
    let asks = at(promised) + HANDICAP;
    check(due.is_some_and(|due| due <= asks), "misses its moment")?;
    let ends = bed.keeper.why().present.and_then(|ruling| {
        let inputs = ruling.last;
        inputs.ends_at(ruling.decision)
    });
    check(ends == Some(asks), "says another moment")?;
    bed.stands_still(100, Standing::Standby);
    check(!bed.waits(), "does not ask when it may")
}

fn services_wait_as_long_as_they_are_told() -> Result<(), String> {
    let wait = Duration::from_secs(3);
    let mut policy = Policy::new(vec![ResourcePolicy::default()]);
    (policy.takeover_wait, policy.living_wait) = (wait, Duration::ZERO);
    let mut group = Group::new(at(1000), policy);
    let mut begun = |now: u64, event: group::Event| {
        let mut effects = Vec::new();
        group.handle(at(now), event, &mut effects);
        let number = |effect: &group::Effect| match effect {
            group::Effect::Act { action, number, .. } => Some((*action, *number)),
            group::Effect::Cancel { .. }
            | group::Effect::Released
            | group::Effect::Fence
            | group::Effect::FailedOver
            | group::Effect::MovedAway
            | group::Effect::GiveUp(_)
            | group::Effect::Overdue
            | group::Effect::Changed(_) => None,
        };
        effects.iter().find_map(number)
    };
    let probe = begun(1000, group::Event::Tick);
    let (_, number) = probe.ok_or("nothing is looked at")?;
    let ended = group::Event::Ended {
        resource: 0,
        number,
        outcome: Outcome::Absent,
    };
    begun(1000, ended);
    let stretch = Duration::from_secs(2);
    begun(1000, group::Event::WaitsLonger(stretch));
    let served = group::Event::Volumes(Volumes::Served(Origin::Failover));
    check(begun(2000, served).is_none(), "starts at once")?;
    let before = begun(6999, group::Event::Tick);
    check(before.is_none(), "starts earlier than it was told")?;
    let starts = begun(7000, group::Event::Tick).map(|(action, _)| action);
    let right = starts == Some(Action::Start(Origin::Failover));
    check(right, "does not start when it may")
}

fn nothing_is_promised_before_services_wait() -> Result<(), String> {
    let triple = Factor::of_tenths(30).ok_or("no factor")?;
    let id = NodeId::new(0).ok_or("no node")?;
    let mut window = Window::new(id, BootId([1; 16]), Kept::NOTHING);
    window.say(at(0), triple, LASTS_MIN);
    let mut effects = Vec::new();
    window.store(at(0), &mut effects);
    while let Some(effect) = effects.pop() {
        if let Said::Store { version, .. } = effect {
            window.stored(at(0), version, &mut effects);
        }
    }
    let early = window.allowance(at(1), Factor::ONE).factor;
    check(early == Factor::ONE, "promises before services wait")?;
    let right = window.allowance(at(1), triple).factor == triple;
    check(right, "does not promise although services wait")
}

/// An echo of long ago, with a promise of now.
fn a_promise_after_a_gap_lengthens_nothing() -> Result<(), String> {
    let mut thread = Confirmations::new(T, Some(at(1000)));
    thread.look(at(3000));
    check(thread.gaps() == 1, "no gap")?;
    check(!thread.raise(at(7000)), "is raised in a gap")?;
    thread.look(at(3300));
    thread.hear(at(3200));
    check(thread.gaps() == 2, "what comes after a gap ends none")?;
    let mut lease = ServiceLease::new(at(1000), T, Some(at(1000)));
    lease.raise(at(3000), at(1000), TRIPLE);
    check(lease.is_over(at(3000)), "a lease that is over is raised")?;
    lease.confirmed(at(3300), at(3200), 2);
    lease.raise(at(3300), at(3200), TRIPLE);
    check(lease.is_over(at(3300)), "a lease is raised in a gap")?;
    lease.restored(at(3300), Served::Alone);
    lease.raise(at(3301), at(3200), TRIPLE);
    check(lease.until() == at(9200), "is not raised after a gap")
}

/// The interconnects fail and the link goes on: the lease is as configured, and so is the silence that ends it.
fn a_raised_timeout_ends_with_the_lease() -> Result<(), String> {
    let mut detector = FailureDetector::new(at(0), TIMING, 2);
    let heard = Heard {
        sequence: 1,
        confirms: Some(at(0)),
        held: Duration::ZERO,
    };
    detector.heard(at(0), 0, heard);
    detector.bear(at(0), TRIPLE, at(0) + TRIPLE);
    for now in (100..=10_000).step_by(100) {
        detector.heard_before(at(now), 1, at(now), at(now));
    }
    for now in (10_100..=12_000).step_by(100) {
        detector.look(at(now));
    }
    let dead = detector.presence() == Presence::Dead;
    check(dead, "a raised timeout outlives the lease")
}
