//! A group's resources as the node sees them: its volumes come and go, its daemon dies and begins anew, an operator
//! speaks, and real scripts run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant as Clock};

use controlplane::config::{Group, Kind, Resource};
use controlplane::resources::cage::Cage;
use controlplane::resources::{Exec, Places};
use controlplane::services::{News, Roots, Seen, Services, Stopping, Tell};
use controlplane_core::failing::Here;
use controlplane_core::group::{GroupState, Policy, ResourcePolicy};
use controlplane_core::keeper::{Services as Standing, Word};
use controlplane_core::partition::{Cause, Decision, Missing};
use controlplane_core::self_fencing::{ClearGroups, Left, Verdict};
use controlplane_core::wish::GroupKey;
use mirror_core::types::{Epoch, Instant, ViewId};
use mirror_core::view::ViewMark;

struct Bed {
    directory: tempfile::TempDir,
    group: Group,
    roots: Roots,
    began: Clock,
    services: Services,
    news: mpsc::Receiver<News>,
}

impl Bed {
    /// A group of `first` and `second`, whose scripts write down what they are called for.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let script = path.join("script");
        let text = format!(
            "#!/bin/sh\necho $1 $2 $CLP_EVENT >> {0}/words\ntest $1 != start || test ! -e {0}/broken-$2\n",
            path.display()
        );
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
        let resource = |name: &str| {
            let command = |verb: &str| {
                let words = [&script.display().to_string(), verb, name];
                words.map(str::to_string).to_vec()
            };
            Resource {
                name: name.to_string(),
                kind: Kind::Exec(Exec {
                    start: command("start"),
                    stop: Some(command("stop")),
                    check: None,
                }),
            }
        };
        let policy = ResourcePolicy {
            retries: 0,
            ..ResourcePolicy::default()
        };
        let mut policy = Policy::new(vec![policy; 2]);
        // Scripts run within it, also on a machine that is busy with other tests.
        policy.hard_stop = Duration::from_secs(4);
        policy.takeover_wait = Duration::ZERO;
        policy.living_wait = Duration::ZERO;
        let group = Group {
            name: format!(
                "services{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            )
            .replace(['(', ')'], ""),
            volumes: vec!["one".to_string(), "two".to_string()],
            nodes: vec!["node1".to_string(), "node2".to_string()],
            resources: vec![resource("first"), resource("second")],
            monitors: Vec::new(),
            policy,
        };
        let roots = Roots {
            places: Places {
                run: path.join("run"),
                logs: path.join("logs"),
                devices: path.join("devices"),
                group: String::new(),
                resource: String::new(),
            },
            state: path.join("state"),
            node: "node1".to_string(),
            peer: "node2".to_string(),
            clear: Arc::default(),
        };
        let began = Clock::now();
        let (services, news) = services(began, &group, &roots);
        Self {
            directory,
            group,
            roots,
            began,
            services,
            news,
        }
    }

    /// The daemon dies and begins anew.
    fn restart(&mut self) {
        (self.services, self.news) = services(self.began, &self.group, &self.roots);
    }

    fn sees(&mut self, seen: Seen) {
        for name in ["one", "two"] {
            self.services.volume(now(self.began), 0, name, seen);
        }
    }

    /// Lets things happen until the group stands so.
    fn comes_to(&mut self, state: GroupState) {
        let until = Clock::now() + Duration::from_secs(20);
        while self.state() != state {
            assert!(Clock::now() < until, "{} instead of {state}", self.state());
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        if let Ok(news) = self.news.recv_timeout(Duration::from_millis(20)) {
            self.services.take(now(self.began), news);
        }
        self.services.tick(now(self.began));
    }

    fn for_a_while(&mut self) {
        let until = Clock::now() + Duration::from_millis(1500);
        while Clock::now() < until {
            self.go_on();
        }
    }

    fn state(&self) -> GroupState {
        self.services.state(now(self.began), 0).expect("a group")
    }

    fn words(&self) -> Vec<String> {
        let words = fs::read_to_string(self.directory.path().join("words"));
        words
            .unwrap_or_default()
            .lines()
            .map(str::to_string)
            .collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.roots.places.run.join(&self.group.name).join(name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for resource in &self.group.resources {
            let cage = Cage::of(&Places {
                group: self.group.name.clone(),
                resource: resource.name.clone(),
                ..self.roots.places.clone()
            });
            cage.remove();
        }
    }
}

fn now(began: Clock) -> Instant {
    let nanos = began.elapsed().as_nanos();
    Instant::from_nanos(u64::try_from(nanos).expect("soon"))
}

fn services(began: Clock, group: &Group, roots: &Roots) -> (Services, mpsc::Receiver<News>) {
    let (sender, news) = mpsc::channel();
    let tell: Tell = Arc::new(move |news| {
        let _ = sender.send(news);
    });
    let groups = [group.clone()];
    (Services::new(now(began), &groups, roots, &tell), news)
}

#[test]
fn a_group_starts_when_all_its_volumes_are_served_and_a_new_daemon_adopts_it() {
    let mut bed = Bed::new();
    // No heartbeat says any more that nothing of it is here.
    bed.roots.clear.store(u64::MAX, Ordering::Relaxed);
    bed.services.volume(now(bed.began), 0, "one", Seen::Active);
    bed.for_a_while();
    assert_eq!(bed.words(), [""; 0], "one volume is not enough");
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    let started = ["start first START", "start second START"];
    assert_eq!(bed.words(), started);
    let clear = ClearGroups::from_bits(bed.roots.clear.load(Ordering::Relaxed));
    let own = ClearGroups::of([(GroupKey::of(&bed.group.name), Left::Nothing)]);
    assert_eq!(clear.bits() & own.bits(), 0);
    assert_eq!(clear.bits().count_ones() as usize, ClearGroups::BITS - 1);
    bed.restart();
    assert_eq!(bed.state(), GroupState::Unknown);
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    bed.sees(Seen::Unclear);
    bed.for_a_while();
    assert_eq!(
        bed.words(),
        started,
        "nothing is started twice, nothing stopped"
    );
}

#[test]
fn lost_volumes_and_a_lost_lease_stop_everything() {
    let mut bed = Bed::new();
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    let step_down = Decision::StepDown(Cause::LeaseOver);
    bed.services.decided(now(bed.began), 0, step_down);
    bed.comes_to(GroupState::Offline);
    let mut stops = bed.words().split_off(2);
    stops.sort();
    assert_eq!(stops, ["stop first START", "stop second START"]);
    bed.for_a_while();
    assert_eq!(
        bed.words().len(),
        4,
        "its volumes are served, and it may not run"
    );
    let wait = Decision::Wait(Missing::Arbiter);
    bed.services.decided(now(bed.began), 0, wait);
    bed.comes_to(GroupState::Online);
    bed.services.volume(now(bed.began), 0, "two", Seen::Fenced);
    bed.comes_to(GroupState::Offline);
    assert_eq!(bed.words().len(), 8);
}

/// Its volumes are served, the scripts hang, and nobody who counts is heard.
#[test]
fn services_whose_time_is_over_stop_whoever_serves_their_volumes() {
    let mut bed = Bed::new();
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    assert_eq!(bed.services.left(now(bed.began), 0), Left::Something);
    bed.services.leased(now(bed.began), 0, Verdict::StopHard);
    bed.comes_to(GroupState::Offline);
    // The data plane does not answer: that is a pause, and no reason to wait here.
    bed.sees(Seen::Unclear);
    bed.for_a_while();
    assert_eq!(bed.state(), GroupState::Offline);
    assert_eq!(bed.services.left(now(bed.began), 0), Left::Nothing);
    bed.sees(Seen::Active);
    bed.services.leased(now(bed.began), 0, Verdict::GoOn);
    bed.comes_to(GroupState::Online);
}

fn take_over() -> Word {
    let mark = ViewMark {
        epoch: Epoch(1),
        id: ViewId([1; 16]),
    };
    Word::TakeOver {
        until: Instant::from_nanos(0),
        basis: mark,
        next: mark,
    }
}

#[test]
fn failovers_are_counted_over_restarts_of_the_daemon_until_the_group_is_cleared() {
    let mut bed = Bed::new();
    for _ in 0..2 {
        bed.sees(Seen::Fenced);
        bed.comes_to(GroupState::Offline);
        bed.services.said(0, take_over());
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::Online);
        bed.sees(Seen::Fenced);
        bed.comes_to(GroupState::Offline);
        bed.restart();
    }
    bed.services.said(0, take_over());
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Failed);
    bed.restart();
    bed.services.said(0, take_over());
    bed.sees(Seen::Active);
    bed.for_a_while();
    assert_eq!(bed.state(), GroupState::Offline);
    bed.services.clear_once(now(bed.began), 0, 5);
    assert!(!bed.file("failed").exists());
    bed.comes_to(GroupState::Online);
    // That wish was carried out: what fails later is not forgotten by it, also after a restart.
    let began = Clock::now();
    let cleared = bed.roots.state.join(format!("{}.cleared", bed.group.name));
    while !cleared.exists() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(bed.file("failed"), "later").expect("a file");
    bed.restart();
    bed.services.clear_once(now(bed.began), 0, 5);
    assert!(bed.file("failed").exists());
    bed.services.clear_once(now(bed.began), 0, 6);
    assert!(!bed.file("failed").exists());
}

#[test]
fn after_a_takeover_scripts_are_told_that_it_is_one() {
    let mut bed = Bed::new();
    bed.group.policy.takeover_wait = Duration::from_secs(4);
    bed.restart();
    bed.sees(Seen::Fenced);
    bed.services.said(0, take_over());
    bed.sees(Seen::Active);
    let began = Clock::now();
    bed.comes_to(GroupState::Online);
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "the other node has its time"
    );
    assert_eq!(
        bed.words(),
        ["start first FAILOVER", "start second FAILOVER"]
    );
    bed.sees(Seen::Fenced);
    bed.comes_to(GroupState::Offline);
    bed.sees(Seen::Active);
    // Nothing of the group is left on the other node.
    bed.services.other_clear(now(bed.began), 0, now(bed.began));
    let began = Clock::now();
    bed.comes_to(GroupState::Online);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "nobody to wait for"
    );
    assert_eq!(
        bed.words()[4..],
        ["start first START", "start second START"]
    );
}

#[test]
fn an_operators_wish_stops_the_group_in_good_order() {
    let mut bed = Bed::new();
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    let standing = |bed: &Bed| bed.services.standing(now(bed.began), 0, true);
    assert_eq!(standing(&bed), Standing::There);
    let stopped = Some(Stopping::Stopped);
    bed.services.wanted(now(bed.began), 0, stopped);
    assert_eq!(standing(&bed), Standing::There);
    bed.comes_to(GroupState::Offline);
    assert_eq!(standing(&bed), Standing::Gone);
    let stops = ["stop second START", "stop first START"];
    assert_eq!(bed.words()[2..], stops);
    bed.restart();
    bed.services.wanted(now(bed.began), 0, stopped);
    bed.sees(Seen::Active);
    bed.for_a_while();
    assert_eq!(bed.state(), GroupState::Offline);
    bed.services.wanted(now(bed.began), 0, None);
    bed.comes_to(GroupState::Online);
    assert_eq!(
        bed.services.standing(now(bed.began), 0, false),
        Standing::Online
    );
}

#[test]
fn a_group_that_does_not_start_is_not_tried_again_until_it_is_cleared() {
    let mut bed = Bed::new();
    let broken = bed.directory.path().join("broken-second");
    fs::write(&broken, "").expect("a file");
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::StartFailed);
    let tried = ["start first", "start second", "stop second", "stop first"];
    let tried: Vec<String> = tried.iter().map(|word| format!("{word} START")).collect();
    assert_eq!(bed.words(), tried);
    let failed = bed.file("failed");
    let why = fs::read_to_string(&failed).expect("the file");
    assert!(why.starts_with("LS6046 resource second "), "{why}");
    bed.for_a_while();
    fs::remove_file(&broken).expect("the file");
    bed.restart();
    bed.sees(Seen::Active);
    bed.for_a_while();
    assert_eq!(bed.words(), tried, "neither now nor after a restart");
    fs::remove_file(&failed).expect("the file");
    bed.comes_to(GroupState::Online);
}

impl Bed {
    fn breaks(&self) {
        fs::write(self.directory.path().join("broken-second"), "").expect("a file");
    }

    fn mends(&self) {
        fs::remove_file(self.directory.path().join("broken-second")).expect("the file");
    }

    fn here(&self) -> Option<Here> {
        self.services.here(now(self.began), 0)
    }

    /// A group that failed here some time ago; the other node serves it.
    fn failed_and_left() -> Self {
        let mut bed = Self::new();
        bed.breaks();
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::StartFailed);
        bed.services.moves_away(now(bed.began), 0, 5);
        bed.sees(Seen::Fenced);
        bed.services.served_there(0);
        bed.for_a_while();
        assert_eq!(bed.here(), Some(Here::Failed));
        assert!(bed.services.is_away(0));
        bed.mends();
        bed
    }
}

/// The copy here alone counts; an operator activates it; one volume is granted, and the other one counts alone.
#[test]
fn what_failed_here_is_tried_again_whatever_way_it_comes_back() {
    let ways: [&[Word]; 4] = [
        &[Word::Start],
        &[],
        &[take_over(), Word::Start],
        &[Word::Start, take_over()],
    ];
    for words in ways {
        let mut bed = Bed::failed_and_left();
        let said = bed.words().len();
        for word in words {
            bed.services.said(0, *word);
        }
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::Online);
        assert_eq!(bed.here(), Some(Here::Runs));
        assert!(!bed.file("failed").exists());
        let taken = words.contains(&take_over());
        let event = if taken { "FAILOVER" } else { "START" };
        assert_eq!(bed.words()[said], format!("start first {event}"));
    }
}

/// This daemon ends between the word and the volumes' answer, or while it is away; and one that ends while a group waits here
/// tries nothing.
#[test]
fn what_failed_here_is_tried_again_by_a_run_that_begins_in_between() {
    let mut bed = Bed::failed_and_left();
    bed.services.said(0, take_over());
    bed.restart();
    assert!(bed.services.is_away(0));
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    bed.breaks();
    bed.sees(Seen::Fenced);
    bed.comes_to(GroupState::Offline);
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::StartFailed);
    bed.mends();
    for seen in [Seen::Unclear, Seen::Active] {
        bed.restart();
        bed.sees(seen);
        bed.sees(Seen::Active);
        bed.for_a_while();
        assert_eq!(
            bed.state(),
            GroupState::Offline,
            "it was served all the time"
        );
    }
    bed.restart();
    bed.sees(Seen::Fenced);
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
}

/// A move by itself that comes to nothing leaves things as they are, unless the other node is dead by then.
#[test]
fn what_comes_back_from_a_move_in_vain_waits_as_it_did() {
    for dead in [false, true] {
        let mut bed = Bed::new();
        bed.breaks();
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::StartFailed);
        bed.mends();
        let words = bed.words();
        bed.services.moves_away(now(bed.began), 0, 5);
        bed.sees(Seen::Fenced);
        bed.services.came_to_nothing(0, 5);
        if dead {
            let since = now(bed.began);
            bed.services.other_dead(since, 0, Some(since));
        }
        bed.services.said(0, Word::Start);
        bed.sees(Seen::Active);
        if dead {
            bed.comes_to(GroupState::Online);
            continue;
        }
        bed.for_a_while();
        assert_eq!(bed.here(), Some(Here::Failed));
        assert!(!bed.services.is_away(0));
        bed.restart();
        bed.sees(Seen::Active);
        bed.for_a_while();
        assert_eq!(bed.words(), words, "nor by the next run");
        // It is served there later, and taken over from there: that is another matter.
        bed.sees(Seen::Fenced);
        bed.services.said(0, take_over());
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::Online);
    }
}

/// A start failed, and then the stop that cleans it up. No takeover starts it, in this run or the next one.
#[test]
fn a_group_whose_stop_failed_is_not_tried_again_after_a_takeover() {
    let mut bed = Bed::new();
    let script = bed.directory.path().join("script");
    let text = fs::read_to_string(&script).expect("the script");
    let text = text.replace("test $1 != start ||", "test $1 = probe ||");
    fs::write(&script, text).expect("the script");
    bed.breaks();
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::StopFailed);
    let why = || fs::read_to_string(bed.file("failed")).expect("why");
    assert!(why().starts_with("LS6045"), "{}", why());
    bed.sees(Seen::Fenced);
    bed.for_a_while();
    assert_eq!(bed.here(), Some(Here::Waits));
    bed.mends();
    let starts = |bed: &Bed| {
        bed.words()
            .iter()
            .filter(|word| word.starts_with("start"))
            .count()
    };
    let started = starts(&bed);
    bed.services.said(0, take_over());
    bed.sees(Seen::Active);
    bed.for_a_while();
    assert!(bed.file("failed").exists(), "it waits for an operator");
    bed.restart();
    bed.sees(Seen::Active);
    bed.for_a_while();
    assert_eq!(starts(&bed), started);
    bed.services.clear(now(bed.began), 0);
    bed.comes_to(GroupState::Online);
}

/// What an earlier run gave up is known as well. Moves away and takeovers are counted each by itself, over restarts.
#[test]
fn what_failed_here_is_known_to_the_next_run_and_moves_spend_no_takeover() {
    let mut bed = Bed::failed_and_left();
    let spent = format!("{}.moves", bed.group.name);
    let until = Clock::now() + Duration::from_secs(20);
    while !bed.roots.state.join(&spent).exists() {
        assert!(Clock::now() < until, "it is remembered");
        bed.go_on();
    }
    bed.restart();
    bed.sees(Seen::Fenced);
    bed.comes_to(GroupState::Offline);
    assert_eq!(bed.here(), Some(Here::Failed));
    let failed = fs::read_to_string(bed.file("failed")).expect("why");
    let says = |code: &str| {
        fs::write(bed.file("failed"), failed.replace("LS6046", code)).expect("a file");
        bed.here()
    };
    assert_eq!(says("LS6166"), Some(Here::Alike), "of what is on a volume");
    assert_eq!(
        says("LS6047"),
        Some(Here::Failed),
        "the other node may run it"
    );
    assert_eq!(says("LS6045"), Some(Here::Waits));
    assert_eq!(says("LS6046"), Some(Here::Failed));
    assert!(bed.services.moves_left(now(bed.began), 0), "one of two");
    bed.services.moves_away(now(bed.began), 0, 7);
    assert!(!bed.services.moves_left(now(bed.began), 0));
    for _ in 0..2 {
        bed.services.said(0, take_over());
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::Online);
        bed.sees(Seen::Fenced);
        bed.comes_to(GroupState::Offline);
    }
    bed.services.said(0, take_over());
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Failed);
    assert_eq!(
        bed.here(),
        Some(Here::Failed),
        "it can go where it never failed"
    );
}
