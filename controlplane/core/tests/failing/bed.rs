//! Two nodes with real keepers, wishes and resources' rules; volumes, links and a resource that is told how to end.

use std::time::Duration;

use controlplane_core::failing::{
    Case, Here, OnFailure, Patience, READY_FOR, Seen, Then, after_failure, after_monitor,
    reason_to_record, to_record,
};
use controlplane_core::failure_detector::Presence;
use controlplane_core::group::{
    self, Action, Group, GroupState, Order, Outcome, Policy, Reason, ResourcePolicy, Volumes,
};
use controlplane_core::keeper::{
    ArbiterKind, Effect, Event, Keeper, Services, VolumeFacts, Wished, Word,
};
use controlplane_core::partition::Standing;
use controlplane_core::wish::{self, Failure, GroupKey, Origin, Subject, Want, Wishes};
use mirror_core::types::{Epoch, Instant, NodeId, ViewId, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

const VOLUME: VolumeId = VolumeId([7; 16]);
pub(crate) const STEP_MS: u64 = 50;
const WITHIN: Duration = Duration::from_secs(300);

fn at(millis: u64) -> Instant {
    Instant::from_nanos(1_000_000 * millis)
}

pub(crate) fn id(node: usize) -> NodeId {
    NodeId::new(u8::try_from(node).expect("small")).expect("a node")
}

pub(crate) fn key() -> GroupKey {
    GroupKey::of("pg")
}

pub(crate) struct Node {
    keeper: Keeper,
    pub(crate) wishes: Wishes,
    group: Group,
    /// Its resource runs.
    pub(crate) runs: bool,
    failed_since: Option<Instant>,
    patience: Patience,
    /// It failed here, and the volume was elsewhere since.
    away: bool,
    /// It moved away by itself, and nobody served it since.
    gave: bool,
    /// That came to nothing.
    came_back: bool,
    /// The version of its wishes that is on its way to the disk, and when it is there.
    storing: Option<(u64, u64)>,
    /// The row that would rule if a monitor that fails ruled, and since when.
    ruling: Option<(Case, u64)>,
    ordered: Order,
    cleared: u64,
    /// When it moved the group away by itself, since it was cleared last.
    moves: Vec<u64>,
    pub(crate) starts: usize,
}

pub(crate) struct Bed {
    now: u64,
    pub(crate) nodes: [Node; 2],
    pub(crate) serving: Option<usize>,
    pub(crate) linked: bool,
    /// The control plane of this node does not run.
    pub(crate) down: Option<usize>,
    /// The copy of this node does not count.
    pub(crate) stale: Option<usize>,
    /// There the resource does not run.
    pub(crate) broken: [bool; 2],
    /// There a monitor fails.
    pub(crate) ill: [bool; 2],
    /// How often a group that ran was stopped because of that.
    pub(crate) condemned: usize,
    pub(crate) moves: usize,
    /// How often one that a monitor stopped was started again where it was.
    pub(crate) runs_on: usize,
    /// What is written takes so long until it is durable.
    pub(crate) disk_ms: u64,
}

impl Bed {
    pub(crate) fn new(on_failure: OnFailure) -> Self {
        let node = |number: usize| {
            let resource = ResourcePolicy {
                retries: 1,
                ..ResourcePolicy::default()
            };
            let mut policy = Policy::new(vec![resource]);
            (policy.takeover_wait, policy.living_wait) = (Duration::ZERO, Duration::ZERO);
            (policy.on_failure, policy.failovers_within) = (on_failure, WITHIN);
            let subjects = [
                Subject::Group(key()),
                Subject::Failures(key()),
                Subject::Failed(key(), id(0)),
                Subject::Failed(key(), id(1)),
                Subject::Failed(key().of_resources(), id(0)),
                Subject::Failed(key().of_resources(), id(1)),
                Subject::Node(id(0)),
                Subject::Node(id(1)),
            ];
            let keeper = Keeper::new(at(0), ArbiterKind::Register, [VOLUME], &[3; 32]);
            Node {
                keeper: keeper.preferring(number == 0),
                wishes: Wishes::new(id(number), subjects, []),
                group: Group::new(at(0), policy),
                runs: false,
                failed_since: None,
                patience: Patience::default(),
                away: false,
                gave: false,
                came_back: false,
                storing: None,
                ruling: None,
                ordered: Order::Start,
                cleared: 0,
                moves: Vec::new(),
                starts: 0,
            }
        };
        let mut bed = Self {
            now: 0,
            nodes: [node(0), node(1)],
            serving: Some(0),
            linked: true,
            down: None,
            stale: None,
            broken: [false; 2],
            ill: [false; 2],
            condemned: 0,
            moves: 0,
            runs_on: 0,
            disk_ms: STEP_MS,
        };
        bed.pass(5000);
        bed
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += STEP_MS;
            let down = self.down;
            for node in (0..2).filter(|node| down != Some(*node)) {
                self.end_stores(node);
                self.tell_wishes(node);
                self.feed(node);
                self.run_services(node);
                self.look_at_failure(node);
            }
        }
    }

    pub(crate) fn operator(&mut self, node: usize, subject: Subject, want: Want) {
        self.nodes[node].wishes.say(subject, want, Origin::Operator);
        self.store(node);
    }

    fn store(&mut self, node: usize) {
        let mut effects = Vec::new();
        self.nodes[node].wishes.store(&mut effects);
        self.follow(node, effects);
    }

    fn end_stores(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        if let Some((version, _)) = own.storing.take_if(|(_, at)| self.now >= *at) {
            let mut effects = Vec::new();
            own.wishes.stored(version, &mut effects);
            self.follow(node, effects);
        }
    }

    fn follow(&mut self, node: usize, effects: Vec<wish::Effect>) {
        for effect in effects {
            match effect {
                wish::Effect::Store { version, .. } => {
                    self.nodes[node].storing = Some((version, self.now + self.disk_ms));
                }
                wish::Effect::Rules(wish) => self.rules(node, wish),
            }
        }
    }

    fn rules(&mut self, node: usize, wish: wish::Wish) {
        let to_me = wish.want == (Want::Moves { to: id(node) }) && wish.origin == Origin::Operator;
        if to_me {
            self.clear(node);
        }
        let own = &mut self.nodes[node];
        let home = Some(id(node));
        if wish.want == (Want::Runs { home }) && matches!(wish.origin, Origin::InVain(_)) {
            own.came_back = own.away && own.gave;
        }
    }

    fn clear(&mut self, node: usize) {
        self.nodes[node].moves.clear();
        self.see_volumes(node);
        self.group(node, group::Event::Order(Order::Clear));
    }

    /// The number of an operator's word that failures are forgotten, to be carried out.
    fn to_forget(&self, node: usize) -> Option<u64> {
        let own = &self.nodes[node];
        let wish = own.wishes.of(Subject::Failures(key()))?;
        (wish.number != own.cleared).then_some(wish.number)
    }

    fn agreed(&self) -> bool {
        let both = [0, 1].map(|node: usize| self.nodes[node].wishes.digest());
        self.linked && self.down.is_none() && both[0].is_some() && both[0] == both[1]
    }

    /// One wish of the other node, in turn.
    fn tell_wishes(&mut self, node: usize) {
        if !self.linked || self.down == Some(1 - node) {
            return;
        }
        let others: Vec<_> = self.nodes[1 - node].wishes.durable().copied().collect();
        let turn = usize::try_from(self.now / STEP_MS).expect("small");
        if let Some(wish) = others.get(turn % others.len().max(1)) {
            self.nodes[node].wishes.hear(*wish);
            self.store(node);
        }
    }

    fn feed(&mut self, node: usize) {
        let agreed = self.agreed();
        let presence = if self.down.is_some() {
            Presence::Dead
        } else {
            Presence::Alive
        };
        let (me, peer) = (id(node), id(1 - node));
        let own = &self.nodes[node];
        let wished = Wished::of(&own.wishes, Subject::Group(key()), me, peer, agreed);
        let stops = own.keeper.stops_services();
        let released = own.ordered == Order::Stop && own.group.is_released();
        let services = Services::of(own.group.state(at(self.now)), released, stops);
        let sent = at(self.now);
        for event in [
            Event::Peer(presence),
            Event::Services(services),
            Event::Wished(wished),
            Event::Confirmed { sent, gaps: 0 },
        ] {
            self.keeper(node, event);
        }
        // Asked after what was just said is carried out.
        let facts = Some(Box::new(self.facts(node)));
        let (volume, asked) = (VOLUME, sent);
        self.keeper(
            node,
            Event::Volume {
                volume,
                facts,
                asked,
            },
        );
    }

    fn facts(&self, node: usize) -> VolumeFacts {
        let standing = match self.serving {
            Some(serving) if serving == node && self.linked => Standing::Serving,
            Some(serving) if serving == node => Standing::Frozen,
            _ if self.stale == Some(node) => Standing::NotCurrent,
            Some(_) => Standing::Standby,
            None if self.stale.is_some() => Standing::Alone,
            None => Standing::Unserved,
        };
        VolumeFacts {
            standing,
            view: ViewMark {
                epoch: Epoch(5),
                id: ViewId([5; 16]),
            },
            history: ViewHistory::default(),
            next_epoch: Epoch(6),
            linked: self.linked,
            alone: self.stale == Some(1 - node),
            changing: false,
        }
    }

    fn keeper(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let now = at(self.now);
        self.nodes[node].keeper.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Say { volume, word } => {
                    match word {
                        Word::Release if self.serving == Some(node) => {
                            assert!(!self.nodes[node].runs, "nothing runs on what is given away");
                            self.serving = None;
                        }
                        // The data planes see to it that two never serve; a keeper may look at what was a moment ago.
                        Word::Start if self.serving.is_none() => self.serving = Some(node),
                        Word::Release
                        | Word::Start
                        | Word::StepDown
                        | Word::GoAlone { .. }
                        | Word::TakeOver { .. } => {}
                    }
                    self.keeper(node, Event::WordDone { volume });
                }
                Effect::Settle { mark, origin } => {
                    let home = Some(id(node));
                    let subject = Subject::Group(key());
                    let outcome = (subject, Want::Runs { home }, origin);
                    self.nodes[node].wishes.settle(mark, outcome);
                    self.store(node);
                }
                Effect::Ask(_) | Effect::Decided { .. } => {}
            }
        }
    }

    fn run_services(&mut self, node: usize) {
        self.see_volumes(node);
        let order = if self.nodes[node].keeper.stops_services() {
            Order::Stop
        } else {
            Order::Start
        };
        if order != self.nodes[node].ordered {
            self.nodes[node].ordered = order;
            self.group(node, group::Event::Order(order));
        }
        if self.broken[node] && std::mem::take(&mut self.nodes[node].runs) {
            self.group(node, group::Event::Broke { resource: 0 });
        }
        self.group(node, group::Event::Tick);
    }

    /// What failed here and left is tried again when it is served here, unless it only came back.
    fn look_at_return(&mut self, node: usize) {
        let own = &mut self.nodes[node];
        if self.serving == Some(node) {
            if std::mem::take(&mut own.away) {
                own.gave = false;
                if !std::mem::take(&mut own.came_back) {
                    self.group(node, group::Event::TriedAgain);
                }
            }
            return;
        }
        own.away = own.group.barred().is_some();
        if self.serving.is_some() {
            (own.gave, own.came_back) = (false, false);
        }
    }

    fn see_volumes(&mut self, node: usize) {
        self.look_at_return(node);
        let volumes = if self.serving == Some(node) {
            Volumes::Served(group::Origin::Start)
        } else {
            Volumes::Gone
        };
        self.group(node, group::Event::Volumes(volumes));
    }

    fn group(&mut self, node: usize, event: group::Event) {
        let now = at(self.now);
        let mut effects = Vec::new();
        let own = &mut self.nodes[node];
        own.group.handle(now, event, &mut effects);
        for effect in effects {
            if let group::Effect::Act {
                resource,
                number,
                action,
                ..
            } = effect
            {
                let own = &mut self.nodes[node];
                let outcome = match action {
                    Action::Probe if own.runs => Outcome::Done,
                    Action::Probe => Outcome::Absent,
                    Action::Start(_) => {
                        own.starts += 1;
                        own.runs = !self.broken[node];
                        assert_eq!(self.serving, Some(node), "it starts on what it serves");
                        if own.runs {
                            Outcome::Done
                        } else {
                            Outcome::Failed
                        }
                    }
                    Action::Stop(_) => {
                        own.runs = false;
                        Outcome::Done
                    }
                };
                self.group(
                    node,
                    group::Event::Ended {
                        resource,
                        number,
                        outcome,
                    },
                );
            }
        }
    }

    fn here(&self, node: usize) -> Here {
        let group = &self.nodes[node].group;
        match (group.state(at(self.now)), group.barred()) {
            (GroupState::Online, _) => Here::Runs,
            (
                GroupState::StartFailed | GroupState::Offline,
                Some(Reason::Resource(_) | Reason::Monitor(_)),
            ) => Here::Failed,
            (_, Some(_)) => Here::Waits,
            (_, None) => Here::Else,
        }
    }

    fn look_at_failure(&mut self, node: usize) {
        let (now, here) = (at(self.now), self.here(node));
        let clears = self.to_forget(node);
        if self.records(node, here, clears.is_some()) {
            self.store(node);
        } else if let Some(number) = clears {
            self.nodes[node].cleared = number;
            self.clear(node);
        }
        self.look_at_monitor(node);
        if here != Here::Failed || self.nodes[node].away {
            self.nodes[node].failed_since = None;
            self.nodes[node].patience = Patience::default();
            return;
        }
        let since = *self.nodes[node].failed_since.get_or_insert(now);
        let (_, then) = after_failure(now, &self.seen(node, here, since));
        let runs_on = self.nodes[node].patience.runs_on(now, then);
        if then == Then::Moves {
            self.moves_by_itself(node);
        } else if runs_on && self.is_condemned(node) {
            let newest = self.nodes[node].wishes.newest(Subject::Group(key()));
            let moves = newest.is_some_and(|wish| matches!(wish.want, Want::Moves { .. }));
            assert!(!moves, "it is on its way to the other node");
            self.runs_on += 1;
            self.group(node, group::Event::MovesAway);
            self.group(node, group::Event::TriedAgain);
        }
    }

    fn is_condemned(&self, node: usize) -> bool {
        let barred = self.nodes[node].group.barred();
        matches!(barred, Some(Reason::Monitor(_)))
    }

    /// What is said of a failure and its reason. Returns whether something is.
    fn records(&mut self, node: usize, here: Here, clears: bool) -> bool {
        let record = Subject::Failed(key(), id(node));
        let reason = Subject::Failed(key().of_resources(), id(node));
        let monitor = self.is_condemned(node);
        let wishes = &mut self.nodes[node].wishes;
        if !wishes.is_durable(record) || !wishes.is_durable(reason) {
            return false;
        }
        let said = wishes.of(record).map(|wish| wish.want);
        let want = to_record(said, here, clears);
        let known = match want {
            Some(Want::Failed) => Failure::Stands,
            Some(_) => Failure::None,
            None => wishes.failure(key(), id(node)),
        };
        let why = reason_to_record(known, here, monitor);
        if let Some(want) = want.or((why == Some(false)).then_some(Want::Failed)) {
            wishes.say(record, want, Origin::Node);
        }
        if why == Some(true) {
            wishes.say(reason, Want::Mended, Origin::Node);
        }
        want.is_some() || why.is_some()
    }

    /// This row would rule if a monitor ruled. For how long?
    fn rules_for(&mut self, node: usize, case: Case) -> Duration {
        let now = self.now;
        let ruling = &mut self.nodes[node].ruling;
        let began = match *ruling {
            Some((before, began)) if before == case => began,
            Some(_) | None => now,
        };
        *ruling = Some((case, began));
        Duration::from_millis(now - began)
    }

    fn look_at_monitor(&mut self, node: usize) {
        let now = at(self.now);
        if !self.ill[node] || !self.nodes[node].group.is_watched(now) {
            self.nodes[node].ruling = None;
            return;
        }
        let (case, then) = after_monitor(now, &self.seen(node, Here::Runs, now));
        if self.rules_for(node, case) >= READY_FOR && then == Then::Moves {
            self.can_move(node);
            self.condemned += 1;
            self.group(node, group::Event::Condemned { monitor: 0 });
        }
    }

    fn seen(&self, node: usize, here: Here, since: Instant) -> Seen {
        let (record, group) = (Subject::Failed(key(), id(node)), Subject::Group(key()));
        let (now, own, agreed) = (at(self.now), &self.nodes[node], self.agreed());
        let failure = |of| own.wishes.failure(key(), id(of));
        let newest = own.wishes.newest(group);
        Seen {
            here,
            monitor: self.is_condemned(node),
            since,
            on_failure: own.group.policy().on_failure,
            within: own.group.policy().failovers_within,
            moves_left: own.group.moves_left(now),
            durable: own.wishes.is_durable(record) && own.wishes.is_durable(group),
            moving: newest.is_some_and(|wish| matches!(wish.want, Want::Moves { .. })),
            recorded: failure(node).stands(),
            there: failure(1 - node),
            agreed,
            around: own.keeper.around(),
        }
    }

    /// Laws of every move by itself, by what is true and not by what the node believes.
    fn moves_by_itself(&mut self, node: usize) {
        self.can_move(node);
        let within = self.nodes[node].group.policy().failovers_within;
        let within = u64::try_from(within.as_millis()).expect("minutes");
        let now = self.now;
        let max = self.nodes[node].group.policy().failovers_max;
        let own = &mut self.nodes[node];
        own.moves.retain(|then| now < then + within);
        own.moves.push(now);
        assert!(own.moves.len() <= max as usize, "within the budget");
        let to = id(1 - node);
        own.wishes
            .say(Subject::Group(key()), Want::Moves { to }, Origin::Node);
        self.moves += 1;
        self.nodes[node].gave = true;
        self.group(node, group::Event::MovesAway);
        self.store(node);
    }

    fn can_move(&self, node: usize) {
        let [own, other] = [node, 1 - node].map(|node| &self.nodes[node]);
        assert_eq!(self.serving, Some(node), "it has what it gives");
        assert!(self.linked, "the other one is there");
        assert_eq!(self.stale, None, "its copy counts");
        assert!(
            !other.wishes.is_suspended(id(1 - node)),
            "it is not suspended"
        );
        match (own.group.barred(), other.group.barred()) {
            (_, None) | (Some(Reason::Resource(_)), Some(Reason::Monitor(_))) => {}
            (here, there) => panic!("it failed there: {there:?}, and here {here:?}"),
        }
    }
}
