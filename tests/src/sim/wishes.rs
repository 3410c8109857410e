//! What operators wish, around the real [`controlplane_core::wish`]: it is written to a disk that takes its time, told in
//! heartbeats, and followed. The application is the group's only resource: it stops when the keeper wants it to.
//!
//! Checked: what a keeper follows is durable on its node (I50); two operators at once come to one wish (I51); a move
//! arrives within a bound and fails no request, or stays or goes back (I52); what is stopped is begun by nobody, also by a
//! node that was not told, and served by nobody until it is started, whoever dies or boots meanwhile (I53); a suspended node takes nothing over, and does when it is resumed (I54).

use controlplane_core::failure_detector::{PathState, Presence};
use controlplane_core::keeper::{Event, Services, Wished};
use controlplane_core::limits::MOVE_WAIT;
use controlplane_core::wish::{Effect, GroupKey, Origin, Saying, Subject, Want, Wish, WishMark};
use mirror_core::admin::Role;
use mirror_core::types::NodeId;

use super::control::{Incoming, Step};
use super::failover::{STAYS_MS, Scene};
use super::node::{MS, id};
use super::outage::Outage;
use super::rng::Rng;
use super::world::World;

/// The one group.
const GROUP: Subject = Subject::Group(GroupKey(1));
/// All that there are.
pub(super) const SUBJECTS: [Subject; 4] = [
    GROUP,
    Subject::Failures(GroupKey(1)),
    Subject::Node(NODES[0]),
    Subject::Node(NODES[1]),
];
const NODES: [NodeId; 2] = match (NodeId::new(0), NodeId::new(1)) {
    (Some(one), Some(two)) => [one, two],
    _ => panic!("there are two nodes"),
};

/// A wish is told, both looks see it, and the application ends; milliseconds without haste.
const TOLD_MS: u64 = 1500;
/// Words, one after the other, and what each of them carries out.
const WORDS_MS: u64 = 1500;
/// So long one node does not hear what is wished, milliseconds without haste.
const UNTOLD_MS: u64 = 6000;
/// Between two looks of an operator who wants peace, milliseconds without haste.
const PEACE_LOOK_MS: u64 = 700;
/// A write of the file takes so long, milliseconds.
const FILE_MS: u64 = 30;

/// Scenes in which operators wish something.
pub(super) const SCENES: [Scene; 8] = [
    Scene::Moved,
    Scene::Moved,
    Scene::MovedInVain,
    Scene::MoveNotBegun,
    Scene::Stopped,
    Scene::Stopped,
    Scene::Suspended,
    Scene::TwoOperators,
];

/// What operators wish of the group now and then, in these runs.
pub(super) fn is_wishful(seed: u64) -> bool {
    seed % 16 == 4
}

/// How many milliseconds lie between two wishes at most.
pub(super) const PAUSE_MS: u64 = 7000;

impl World {
    // --- what lockstepd does ------------------------------------------------------------------

    /// The heartbeat thread heard something that counts.
    pub(super) fn hear_saying(&mut self, node: usize, saying: Saying) {
        let Some(daemon) = self.control.daemons[node].as_mut() else {
            return;
        };
        daemon.peer_wishes = saying.digest;
        let run = daemon.run;
        if let Some(wish) = saying.wish.filter(|wish| daemon.teller.is_news(wish)) {
            self.incoming(node, run, 0, Incoming::Wish(wish));
        }
    }

    pub(super) fn hear_wish(&mut self, node: usize, wish: Wish) {
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            daemon.wishes.hear(wish);
            self.store_wishes(node);
        }
    }

    /// A move arrived, or came to nothing.
    pub(super) fn settle_wish(&mut self, node: usize, mark: WishMark, origin: Origin) {
        self.note(|| format!("{node} settles {mark:?}: {origin:?}"));
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            let home = Some(id(node));
            daemon
                .wishes
                .settle(mark, (GROUP, Want::Runs { home }, origin));
            self.store_wishes(node);
        }
        self.count(match origin {
            Origin::Arrived => "wish: move arrived",
            Origin::InVain(_) | Origin::Operator | Origin::Together | Origin::Node => {
                "wish: move in vain"
            }
        });
    }

    fn store_wishes(&mut self, node: usize) {
        let mut effects = Vec::new();
        if let Some(daemon) = self.control.daemons[node].as_mut() {
            daemon.wishes.store(&mut effects);
        }
        self.follow_wishes(node, effects);
    }

    /// The file is written.
    pub(super) fn wishes_stored(&mut self, node: usize, run: u64, version: u64) {
        let mut effects = Vec::new();
        let Some(daemon) = self.control.daemon(node, run) else {
            return;
        };
        if let Some((_, wishes)) = daemon.writing.take_if(|writing| writing.0 == version) {
            daemon.wishes.stored(version, &mut effects);
            self.control.wishes_on_disk[node] = wishes;
        }
        self.follow_wishes(node, effects);
    }

    fn follow_wishes(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            let Some(daemon) = self.control.daemons[node].as_mut() else {
                return;
            };
            let run = daemon.run;
            match effect {
                Effect::Store { version, wishes } => {
                    daemon.writing = Some((version, wishes));
                    let after = self.control.wish_rng.between(MS / 2, FILE_MS * MS);
                    self.control_later(after, Step::Stored { node, run, version });
                }
                Effect::Rules(wish) => {
                    daemon.teller.learn(wish);
                    self.note(|| format!("{node} follows {wish:?}"));
                    self.feed_wishes(node);
                }
            }
        }
    }

    /// The process ends: a file that is being written is there or not.
    pub(super) fn wishes_end(&mut self, node: usize, writing: Option<(u64, Vec<Wish>)>) {
        if let Some((_, wishes)) = writing
            && self.control.wish_rng.percent(50)
        {
            self.control.wishes_on_disk[node] = wishes;
        }
    }

    /// Tells the keeper what it needs for its next look.
    pub(super) fn feed_wishes(&mut self, node: usize) {
        let Some(daemon) = self.control.daemons[node].as_ref() else {
            return;
        };
        let mut paths = 0..self.control.interconnects.count();
        let up = |path| matches!(daemon.peer.path(path), PathState::Up | PathState::Late);
        let agreed = daemon.presence == Presence::Alive
            && paths.any(up)
            && daemon.wishes.digest() == Some(daemon.peer_wishes);
        let wished = Wished::of(&daemon.wishes, GROUP, id(node), id(1 - node), agreed);
        let stops = daemon.keeper().stops_services();
        let rules = daemon.wishes.of(GROUP).copied();
        let durable = self.control.wishes_on_disk[node]
            .iter()
            .find(|wish| wish.subject == GROUP);
        if rules.map(|wish| wish.mark()) > durable.map(|wish| wish.mark()) {
            self.fail(format!(
                "{node} follows {rules:?}, on its disk is {durable:?} (I50)"
            ));
        }
        let services = self.application_stands(node, stops);
        self.keeper(node, Event::Services(services));
        self.keeper(node, Event::Wished(wished));
    }

    /// The application runs, unless the keeper wants it to end.
    fn application_stands(&mut self, node: usize, stops: bool) -> Services {
        let before = std::mem::replace(&mut self.control.quiet[node], stops);
        let Some(device) = self.nodes[node].device.as_mut() else {
            return Services::of_none(stops);
        };
        // What is being removed is opened by nobody.
        if stops || device.stopping {
            device.used = false;
            return if device.is_idle() {
                Services::of_none(stops)
            } else {
                Services::There
            };
        }
        if before {
            self.start_application(node);
        }
        Services::Online
    }

    // --- what operators do --------------------------------------------------------------------

    /// On a node whose daemon runs.
    fn wish(&mut self, node: usize, subject: Subject, want: Want) -> Option<Wish> {
        let daemon = self.control.daemons[node].as_mut()?;
        let wish = daemon.wishes.say(subject, want, Origin::Operator)?;
        self.note(|| format!("{node} an operator wishes {wish:?}"));
        self.store_wishes(node);
        Some(wish)
    }

    /// Anything, on any node, at any time.
    pub(super) fn somebody_wishes(&mut self, node: usize, dice: &mut Rng) {
        let other = id(dice.index(2));
        let home = dice.percent(50).then_some(other);
        let (mark, subject, want) = match dice.below(100) {
            0..=39 => ("wish: moves", GROUP, Want::Moves { to: other }),
            40..=54 => ("wish: stops", GROUP, Want::Stopped { home }),
            55..=74 => ("wish: starts", GROUP, Want::Runs { home }),
            75..=84 => ("wish: suspends", Subject::Node(other), Want::Suspended),
            85..=94 => ("wish: resumes", Subject::Node(other), Want::Resumed),
            _ => ("wish: clears", SUBJECTS[1], Want::Forgotten),
        };
        if self.wish(node, subject, want).is_some() {
            self.count(mark);
        }
    }

    /// When all trouble is over operators want everything to run.
    pub(super) fn want_peace(&mut self) {
        let every = self.control_ms(PEACE_LOOK_MS);
        self.control_later(every, Step::WantPeace);
        if self.chaos || self.control.in_a_scene {
            return;
        }
        let node = self.control.wish_rng.index(2);
        let Some(daemon) = self.control.daemons[node].as_ref() else {
            return;
        };
        let newest = |subject| daemon.wishes.newest(subject).map(|wish| wish.want);
        let suspended = SUBJECTS[2..]
            .iter()
            .find(|subject| newest(**subject) == Some(Want::Suspended));
        if let Some(subject) = suspended.copied() {
            self.wish(node, subject, Want::Resumed);
        } else if let Some(Want::Stopped { home }) = newest(GROUP) {
            self.wish(node, GROUP, Want::Runs { home });
        }
    }

    // --- scenes -------------------------------------------------------------------------------

    /// What rules for this subject on both nodes, if it is the same.
    fn agreed_on(&self, subject: Subject) -> Option<Wish> {
        let on = |node: usize| {
            let daemon = self.control.daemons[node].as_ref()?;
            daemon.wishes.of(subject).copied()
        };
        on(0).filter(|wish| on(1) == Some(*wish))
    }

    /// Whether both nodes know the same, and no move is under way.
    pub(super) fn wishes_rest(&self) -> bool {
        let digest = |node: usize| self.control.daemons[node].as_ref()?.wishes.digest();
        let moves = self.control.daemons.iter().flatten().any(|daemon| {
            let newest = daemon.wishes.newest(GROUP);
            newest.is_some_and(|wish| matches!(wish.want, Want::Moves { .. }))
        });
        digest(0).is_some() && digest(0) == digest(1) && !moves
    }

    fn must(&mut self, millis: u64, what: &str, rule: &str, is: impl Fn(&Self) -> bool) {
        let limit_ms = self.bound_ms(millis);
        if self.failure.is_none() && !self.run_until(limit_ms, is) {
            self.fail(format!("{what} after {limit_ms} ms ({rule})"));
        }
    }

    /// For a while nobody serves, whatever else happens.
    fn nobody_may_serve(&mut self, millis: u64, rule: &str) {
        let mut left = millis / self.plan.haste;
        while left > 0 && self.failure.is_none() {
            self.run_for(5);
            left = left.saturating_sub(5);
            if let Some(node) = self.active() {
                self.fail(format!("{node} serves what nobody may serve ({rule})"));
            }
        }
    }

    /// Longer than a node waits for the one whose turn it is.
    fn is_begun_by_nobody(&mut self, node: usize) {
        self.count("wish: stopped and untold");
        let mut left = UNTOLD_MS / self.plan.haste;
        while left > 0 && self.failure.is_none() {
            self.run_for(5);
            left = left.saturating_sub(5);
            if self.active() == Some(node) {
                self.fail(format!("{node} began what is stopped (I53)"));
            }
        }
    }

    pub(super) fn play_wish(&mut self, scene: Scene, active: usize) {
        if !self.run_until(self.bound_ms(3 * TOLD_MS), Self::wishes_rest) {
            return self.fail("both nodes know other wishes (I51)".to_string());
        }
        match scene {
            Scene::Moved => self.moves_and_arrives(active),
            Scene::MovedInVain => self.moves_in_vain(active),
            Scene::MoveNotBegun => self.move_is_not_begun(active),
            Scene::Stopped => self.stops_and_starts(active),
            Scene::Suspended => self.suspends_and_resumes(active),
            Scene::TwoOperators => self.two_operators(active),
            Scene::ActiveDies
            | Scene::StandbyDies
            | Scene::Apart
            | Scene::ActiveAlone
            | Scene::LinkAlone
            | Scene::Interconnect
            | Scene::Interconnects
            | Scene::NoRegister
            | Scene::Killed
            | Scene::Stuck
            | Scene::Forgotten
            | Scene::ReplyLost
            | Scene::ForgottenAlone => {}
        }
    }

    /// I51: both come to the wish that ranks higher, whoever was heard first.
    fn two_operators(&mut self, active: usize) {
        let other = 1 - active;
        let to = id(other);
        let wishes = [
            self.wish(active, GROUP, Want::Stopped { home: None }),
            self.wish(other, GROUP, Want::Moves { to }),
        ];
        let highest = wishes.iter().flatten().map(Wish::mark).max();
        let agreed = |world: &Self| {
            let rules = world.agreed_on(GROUP).map(|wish| wish.mark());
            rules >= highest
        };
        self.must(
            TOLD_MS,
            "two operators do not come to the higher wish",
            "I51",
            agreed,
        );
        let home = Some(id(active));
        self.wish(other, GROUP, Want::Runs { home });
        let runs = |world: &Self| world.wishes_rest() && world.active().is_some();
        let limit = TOLD_MS + 2 * WORDS_MS + 10_000;
        self.must(limit, "two operators: nobody serves", "I51", runs);
    }

    /// I52: it arrives, and no request fails.
    fn moves_and_arrives(&mut self, active: usize) {
        let other = 1 - active;
        let to = id(other);
        let failed = |world: &Self| world.coverage.get("requests failed").copied();
        let before = failed(self);
        let teller = self.control.wish_rng.index(2);
        self.wish(teller, GROUP, Want::Moves { to });
        let limit = TOLD_MS + 2 * WORDS_MS;
        let serves = |world: &Self| world.role(other) == Some(Role::Active);
        self.must(limit, "a move has not arrived", "I52", serves);
        if failed(self) != before {
            self.fail("a planned move failed a request (I52)".to_string());
        }
        let arrived = |world: &Self| {
            let wish = world.agreed_on(GROUP);
            wish.is_some_and(|wish| wish.origin == Origin::Arrived)
        };
        self.must(TOLD_MS, "nobody says that a move arrived", "I52", arrived);
        self.must_stay(other, Scene::Moved, "I52");
    }

    /// I52: to a node whose control plane is gone nothing is given.
    fn moves_in_vain(&mut self, active: usize) {
        let other = 1 - active;
        let to = id(other);
        self.control.held_off[other] = true;
        self.control_ends(other);
        self.wish(active, GROUP, Want::Moves { to });
        self.must_stay(active, Scene::MovedInVain, "I52");
        let given_up = |world: &Self| {
            let daemon = world.control.daemons[active].as_ref();
            let wish = daemon.and_then(|daemon| daemon.wishes.of(GROUP));
            wish.is_some_and(|wish| matches!(wish.origin, Origin::InVain(_)))
        };
        let wait = u64::try_from(MOVE_WAIT.as_millis()).unwrap_or(0);
        self.must(wait, "a move in vain goes on", "I52", given_up);
        self.must_stay(active, Scene::MovedInVain, "I52");
    }

    /// I52: what was given away and is not begun goes back.
    fn move_is_not_begun(&mut self, active: usize) {
        let other = 1 - active;
        let to = id(other);
        self.wish(active, GROUP, Want::Moves { to });
        let given = |world: &Self| world.role(active) == Some(Role::Fenced);
        self.must(TOLD_MS + WORDS_MS, "nothing is given away", "I52", given);
        self.control.held_off[other] = true;
        self.control_ends(other);
        let wait = u64::try_from(MOVE_WAIT.as_millis()).unwrap_or(0);
        // The word to begin may have been said already; and if the link breaks just then, the giving node serves for a
        // while, and gives it away once more before it can know that nobody is there.
        let limit = TOLD_MS + 4 * WORDS_MS + 2 * wait;
        let served = |world: &Self| {
            let daemon = world.control.daemons[active].as_ref();
            let wish = daemon.and_then(|daemon| daemon.wishes.of(GROUP));
            let over = wish.is_some_and(|wish| !matches!(wish.want, Want::Moves { .. }));
            let served = world.active();
            served.is_some() && (over || served == Some(other))
        };
        self.must(
            limit,
            "what was given away is served by nobody",
            "I52",
            served,
        );
        let node = self.active().unwrap_or(active);
        self.must_stay(node, Scene::MoveNotBegun, "I52");
    }

    /// I53: stopped is stopped, on both nodes, over kills and boots.
    fn stops_and_starts(&mut self, active: usize) {
        let other = 1 - active;
        let failed = |world: &Self| world.coverage.get("requests failed").copied();
        let before = failed(self);
        let teller = self.control.wish_rng.index(2);
        let stopped = Want::Stopped {
            home: Some(id(active)),
        };
        let untold = self.control.wish_rng.percent(30);
        if untold {
            self.control.interconnects.cut_all([true; 2]);
        }
        self.wish(teller, GROUP, stopped);
        if untold {
            self.is_begun_by_nobody(other);
            self.control.interconnects.cut_all([false; 2]);
        }
        let rests = |world: &Self| {
            let fenced = |node: usize| world.role(node) == Some(Role::Fenced);
            fenced(0) && fenced(1) && world.wishes_rest() && world.words_rest()
        };
        self.must(TOLD_MS + WORDS_MS, "a group is not stopped", "I53", rests);
        if failed(self) != before {
            self.fail("a planned stop failed a request (I53)".to_string());
        }
        let dead = self.control.wish_rng.index(2);
        let what = self.control.wish_rng.below(3);
        match what {
            0 => {
                self.control_ends(dead);
                self.control_starts_later(dead);
            }
            1 => {
                self.nodes[dead].held_off = true;
                self.power_cut(dead);
            }
            _ => self.part([true; 2]),
        }
        self.nobody_may_serve(STAYS_MS + TOLD_MS, "I53");
        self.heal_the_control_planes();
        let alive = if what == 1 { 1 - dead } else { other };
        let home = Some(id(alive));
        // Whoever is killed is back by now.
        let there = |world: &Self| world.control.daemons[alive].is_some();
        self.must(3000, "lockstepd does not run", "I53", there);
        self.wish(alive, GROUP, Want::Runs { home });
        let served = |world: &Self| world.active().is_some();
        let limit = TOLD_MS + 2 * WORDS_MS + 2000;
        // A boot, or a link that was cut, may want the other one: that is for afterwards.
        if what == 0 {
            self.must(limit, "a started group is not served", "I53", served);
        }
    }

    /// I54: the active node dies, and the suspended one waits for an operator.
    fn suspends_and_resumes(&mut self, active: usize) {
        let other = 1 - active;
        let subject = Subject::Node(id(other));
        let teller = self.control.wish_rng.index(2);
        self.wish(teller, subject, Want::Suspended);
        let told = |world: &Self| world.agreed_on(subject).is_some();
        self.must(TOLD_MS, "a suspension is not told", "I51", told);
        self.must_stay(active, Scene::Suspended, "I54");
        self.nodes[active].held_off = true;
        self.power_cut(active);
        self.nobody_may_serve(STAYS_MS, "I54");
        self.wish(other, subject, Want::Resumed);
        let serves = |world: &Self| world.role(other) == Some(Role::Active);
        self.must(
            TOLD_MS + 2 * WORDS_MS,
            "a resumed node does not serve",
            "I54",
            serves,
        );
    }
}

/// Operators' wishes in a run, by chances of their own.
pub(super) fn wishes(
    seed: u64,
    millis: std::ops::Range<u64>,
    haste: u64,
) -> Vec<(u64, Outage, usize, Rng)> {
    let mut rng = Rng::new(seed ^ 0x7769_7368_6573);
    let mut wishes = Vec::new();
    let mut at = millis.start * MS;
    while is_wishful(seed) && at < millis.end * MS {
        // Operators like company.
        let pause = if rng.percent(30) { 300 } else { PAUSE_MS };
        at += rng.between(MS, pause * MS) / haste;
        let dice = Rng::new(rng.bits());
        wishes.push((at, Outage::Wish, rng.index(2), dice));
    }
    wishes
}
