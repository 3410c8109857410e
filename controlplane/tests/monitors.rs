//! Monitors as the node sees them: real scripts look at a group of real scripts, fail, hang and are killed, and what was
//! configured follows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant as Clock};

use controlplane::config::{Group, Kind, Monitor, Resource};
use controlplane::monitors::{self, Script, place_of};
use controlplane::resources::cage::Cage;
use controlplane::resources::environment::{Factor, Server};
use controlplane::resources::{Context, Environment, Exec, Limit, Places};
use controlplane::services::{News, Roots, Seen, Services, Tell};
use controlplane_api::cluster::{self, MonitorState};
use controlplane_core::failing::Here;
use controlplane_core::group::{GroupState, Origin, Policy, ResourcePolicy};
use controlplane_core::limits::STABLE;
use controlplane_core::monitor::{self, OnError};
use mirror_core::types::Instant;

const WORKS: &str = "echo $1 $2 $CLP_FACTOR >> words; test $1 = stop || test ! -e broken";
/// Longer than any test: only what kills it ends it.
const HANGS: &str = "exec sleep 1000";
const LIMIT: Duration = Duration::from_secs(30);

struct Bed {
    directory: tempfile::TempDir,
    group: Group,
    roots: Roots,
    began: Clock,
    services: Services,
    news: mpsc::Receiver<News>,
}

impl Bed {
    /// A group of `first` and `second`, whose scripts write down what they are called for, and a monitor that runs this.
    fn new(look: &str, policy: monitor::Policy) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let script = |name: &str, text: &str| {
            let file = path.join(name);
            fs::write(&file, format!("#!/bin/sh\ncd {}\n{text}\n", path.display()))
                .expect("a script");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
            file.display().to_string()
        };
        let works = script("works", WORKS);
        let looks = script("looks", look);
        let resource = |name: &str| {
            let command = |verb: &str| [&works, verb, name].map(str::to_string).to_vec();
            Resource {
                name: name.to_string(),
                kind: Kind::Exec(Exec {
                    start: command("start"),
                    stop: Some(command("stop")),
                    check: None,
                }),
            }
        };
        let own = ResourcePolicy {
            retries: 1,
            ..ResourcePolicy::default()
        };
        let mut whole = Policy::new(vec![own; 2]);
        // Scripts run within it, also on a machine that is busy with other tests.
        whole.hard_stop = Duration::from_secs(4);
        whole.takeover_wait = Duration::ZERO;
        whole.living_wait = Duration::ZERO;
        let thread = format!("{:?}", std::thread::current().id());
        let name = format!("monitors{}-{thread}", std::process::id());
        let group = Group {
            name: name.replace(['(', ')'], ""),
            volumes: vec!["one".to_string()],
            nodes: vec!["node1".to_string(), "node2".to_string()],
            resources: vec![resource("first"), resource("second")],
            monitors: vec![Monitor {
                name: "look".to_string(),
                kind: monitors::Kind::Script(Script {
                    command: vec![looks],
                }),
                policy,
            }],
            policy: whole,
        };
        let roots = Roots {
            places: Places {
                run: path.join("run"),
                logs: path.join("logs"),
                devices: path.join("devices"),
                group: group.name.clone(),
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

    fn online(look: &str, policy: monitor::Policy) -> Self {
        let mut bed = Self::new(look, policy);
        bed.sees(Seen::Active);
        bed.comes_to(GroupState::Online);
        bed
    }

    /// The daemon dies and begins anew.
    fn restart(&mut self) {
        (self.services, self.news) = services(self.began, &self.group, &self.roots);
    }

    fn sees(&mut self, seen: Seen) {
        self.services.volume(now(self.began), 0, "one", seen);
    }

    fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let until = Clock::now() + LIMIT;
        while !is(self) {
            let monitor = self.monitor();
            assert!(
                Clock::now() < until,
                "{what}: {monitor:?}, {:?}",
                self.words()
            );
            self.go_on();
        }
    }

    fn is_condemned(&mut self) {
        self.until("condemned", |bed| {
            bed.services.condemns(now(bed.began), 0) == Some(0)
        });
    }

    fn comes_to(&mut self, state: GroupState) {
        self.until(&format!("{state}"), |bed| bed.state() == state);
    }

    /// Nothing of this may wait for a look.
    fn go_on(&mut self) {
        let news = self.news.recv_timeout(Duration::from_millis(20)).ok();
        if let Some(news) = news {
            self.services.take(now(self.began), news);
        }
        self.services.tick(now(self.began));
    }

    fn state(&self) -> GroupState {
        self.services.state(now(self.began), 0).expect("a group")
    }

    fn monitor(&self) -> cluster::Monitor {
        let mut monitors = self.services.monitors(now(self.began), 0);
        monitors.pop().expect("a monitor")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let words = fs::read_to_string(self.file(name)).unwrap_or_default();
        words.lines().map(|line| line.trim().to_string()).collect()
    }

    fn words(&self) -> Vec<String> {
        self.lines("words")
    }

    fn places(&self) -> Places {
        Places {
            resource: place_of("look"),
            ..self.roots.places.clone()
        }
    }

    fn looking(&self) -> Vec<i32> {
        Cage::of(&self.places()).processes()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for resource in ["first", "second", &place_of("look")] {
            let cage = Cage::of(&Places {
                resource: resource.to_string(),
                ..self.roots.places.clone()
            });
            let _ = cage.kill();
            cage.remove();
        }
    }
}

fn services(began: Clock, group: &Group, roots: &Roots) -> (Services, mpsc::Receiver<News>) {
    let (sender, news) = mpsc::channel();
    let tell: Tell = Arc::new(move |news| {
        let _ = sender.send(news);
    });
    let groups = [group.clone()];
    (Services::new(now(began), &groups, roots, &tell), news)
}

fn now(began: Clock) -> Instant {
    let nanos = began.elapsed().as_nanos();
    Instant::from_nanos(u64::try_from(nanos).expect("soon"))
}

fn policy(timeout: Duration, retries: u32, on_error: OnError) -> monitor::Policy {
    monitor::Policy {
        delay: Duration::from_millis(100),
        interval: Duration::from_millis(100),
        timeout,
        retries,
        on_error,
    }
}

const ILL: &str = "echo $CLP_GROUPNAME $CLP_RESOURCENAME $CLP_SERVER >> looks.words; test ! -e ill";

#[test]
fn a_monitor_that_only_warns_is_told_and_touches_nothing() {
    let mut bed = Bed::new(ILL, policy(LIMIT, 2, OnError::Warn));
    assert_eq!(bed.monitor().state, MonitorState::Idle);
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Online);
    bed.until("well", |bed| bed.monitor().state == MonitorState::Well);
    let told = format!("{} look HOME", bed.group.name);
    assert_eq!(bed.lines("looks.words").first(), Some(&told));
    fs::write(bed.file("ill"), "").expect("a file");
    bed.until("failing", |bed| {
        bed.monitor().state == MonitorState::Failing
    });
    assert!(bed.monitor().text.contains("of 3: "), "{:?}", bed.monitor());
    bed.until("failed", |bed| bed.monitor().state == MonitorState::Failed);
    let text = bed.monitor().text;
    assert!(
        text.starts_with("failed: ") && text.contains("looks ended with exit status: 1"),
        "{text}"
    );
    fs::remove_file(bed.file("ill")).expect("removed");
    bed.until("well", |bed| bed.monitor().state == MonitorState::Well);
    assert_eq!(bed.words(), ["start first", "start second"]);
}

#[test]
fn a_restart_stops_and_starts_the_resource_with_all_above_it_and_uses_up_its_retries() {
    let restart = OnError::Restart { resource: 0 };
    let mut bed = Bed::online(ILL, policy(LIMIT, 0, restart));
    fs::write(bed.file("ill"), "").expect("a file");
    bed.is_condemned();
    assert_eq!(
        bed.state(),
        GroupState::Online,
        "nobody said that it may move"
    );
    bed.services.condemn(now(bed.began), 0, 0);
    bed.comes_to(GroupState::StartFailed);
    let round = |factor: &str| {
        let stopped = ["second", "first"].map(|name| format!("stop {name} {factor}"));
        stopped.to_vec()
    };
    let started = ["start first".to_string(), "start second".to_string()];
    let expected = [
        started.to_vec(),
        round("RESOURCERESTART"),
        started.to_vec(),
        round("GROUPFAILOVER"),
    ];
    assert_eq!(bed.words(), expected.concat());
    assert_eq!(bed.services.here(now(bed.began), 0), Some(Here::Failed));
    assert_eq!(bed.monitor().state, MonitorState::Idle);
}

/// Without the monitor it would run: what comes of its restart is its own, and the group may run on.
#[test]
fn a_restart_whose_start_fails_is_the_monitors_failure() {
    let restart = OnError::Restart { resource: 1 };
    let mut bed = Bed::online(ILL, policy(LIMIT, 0, restart));
    fs::write(bed.file("broken"), "").expect("a file");
    fs::write(bed.file("ill"), "").expect("a file");
    bed.comes_to(GroupState::StartFailed);
    let starts = |bed: &Bed| {
        bed.words()
            .iter()
            .filter(|word| *word == "start second")
            .count()
    };
    assert_eq!(starts(&bed), 3, "it has all its tries");
    assert!(bed.services.is_condemned(0));
    assert_eq!(bed.services.here(now(bed.began), 0), Some(Here::Failed));
    assert!(bed.services.runs_on(now(bed.began), 0));
    bed.comes_to(GroupState::StartFailed);
    assert!(!bed.services.is_condemned(0), "that was the resource's");
    assert!(bed.services.moves_left(now(bed.began), 0), "one was paid");
}

#[test]
fn a_monitor_that_fails_on_restarts_again_when_the_retries_are_forgotten() {
    let restart = OnError::Restart { resource: 1 };
    let mut bed = Bed::online(ILL, policy(LIMIT, 0, restart));
    fs::write(bed.file("ill"), "").expect("a file");
    bed.is_condemned();
    let stops = |bed: &Bed| {
        let words = bed.words().into_iter();
        words
            .filter(|word| word == "stop second RESOURCERESTART")
            .count()
    };
    assert_eq!(stops(&bed), 1);
    // The group runs on, and time passes.
    let earlier = bed.began.checked_sub(STABLE);
    bed.began = earlier.expect("this machine was begun before");
    bed.until("a restart", |bed| stops(bed) == 2);
    bed.is_condemned();
    assert_eq!(stops(&bed), 2);
}

#[test]
fn a_monitor_that_hangs_is_killed_at_its_timeout_and_may_fail_the_group_at_once() {
    let timeout = Duration::from_millis(400);
    let mut bed = Bed::online(HANGS, policy(timeout, 1, OnError::Failover));
    bed.until("a look", |bed| !bed.looking().is_empty());
    bed.is_condemned();
    assert_eq!(bed.words().len(), 2, "nothing was stopped");
    bed.services.condemn(now(bed.began), 0, 0);
    bed.comes_to(GroupState::StartFailed);
    assert!(bed.services.is_condemned(0));
    let failed = bed.roots.places.run.join(&bed.group.name).join("failed");
    let why = fs::read_to_string(failed).expect("a reason");
    assert!(why.starts_with("LS6171 monitor look failed"), "{why}");
    assert_eq!(bed.services.here(now(bed.began), 0), Some(Here::Failed));
    assert_eq!(
        bed.words()[2..],
        ["stop second GROUPFAILOVER", "stop first GROUPFAILOVER"],
        "no retry of a resource"
    );
    assert_eq!(bed.looking(), [0; 0]);
    // A clear tries it again, and looks again.
    bed.services.clear(now(bed.began), 0);
    bed.comes_to(GroupState::Online);
    bed.until("a look", |bed| !bed.looking().is_empty());
}

#[test]
fn a_look_under_way_is_gone_before_anything_is_stopped() {
    let stops_alone = "trap 'sleep 1000' TERM; while :; do sleep 1000; done";
    let mut bed = Bed::online(stops_alone, policy(LIMIT, 0, OnError::Failover));
    bed.until("a look", |bed| !bed.looking().is_empty());
    // The volume is lost: a hard stop.
    bed.sees(Seen::Fenced);
    bed.until("the stop", |bed| bed.words().len() > 2);
    assert_eq!(bed.looking(), [0; 0]);
    bed.comes_to(GroupState::Offline);
}

#[test]
fn what_an_earlier_run_left_looking_is_ended_by_the_next_one() {
    let mut bed = Bed::new("exit 0", policy(LIMIT, 0, OnError::Failover));
    let context = Context {
        places: bed.places(),
        environment: Environment {
            group: bed.group.name.clone(),
            resource: "look".to_string(),
            origin: Origin::Start,
            server: Server::Home,
            previous: None,
            factor: Factor::None,
        },
        limit: Limit::new(LIMIT, Arc::default()),
        broke: Arc::new(|_| ()),
    };
    let command = ["/bin/sh", "-c", HANGS].map(str::to_string);
    let mut left = Cage::of(&context.places)
        .spawn(&command, &context)
        .expect("a process");
    bed.until("a process", |bed| !bed.looking().is_empty());
    bed.restart();
    bed.sees(Seen::Fenced);
    bed.comes_to(GroupState::Offline);
    assert_eq!(bed.looking(), [0; 0]);
    left.wait().expect("it ended");
}

#[test]
fn nobody_looks_while_a_volume_is_in_doubt_or_the_group_is_stopped() {
    let mut bed = Bed::online(HANGS, policy(LIMIT, 0, OnError::Failover));
    bed.until("a look", |bed| !bed.looking().is_empty());
    bed.sees(Seen::Unclear);
    assert_eq!(bed.state(), GroupState::Online);
    assert_eq!(bed.monitor().state, MonitorState::Idle);
    bed.until("no look", |bed| bed.looking().is_empty());
    bed.sees(Seen::Active);
    assert_eq!(bed.monitor().state, MonitorState::New);
    bed.until("a look", |bed| !bed.looking().is_empty());
    assert_eq!(bed.words().len(), 2, "nothing was stopped");
}

#[test]
fn a_group_that_a_monitor_stopped_is_told_from_others_by_the_next_run_and_may_run_on() {
    let mut bed = Bed::online("test ! -e ill", policy(LIMIT, 0, OnError::Failover));
    fs::write(bed.file("ill"), "").expect("a file");
    bed.is_condemned();
    bed.services.condemn(now(bed.began), 0, 0);
    bed.comes_to(GroupState::StartFailed);
    bed.restart();
    bed.sees(Seen::Active);
    bed.comes_to(GroupState::Offline);
    assert!(bed.services.is_condemned(0));
    assert_eq!(bed.services.here(now(bed.began), 0), Some(Here::Failed));
    let before = bed.words().len();
    assert!(bed.services.runs_on(now(bed.began), 0));
    assert!(!bed.services.runs_on(now(bed.began), 0));
    bed.comes_to(GroupState::Online);
    assert_eq!(bed.words()[before..], ["start first", "start second"]);
    assert!(!bed.services.is_condemned(0));
    assert_eq!(bed.services.here(now(bed.began), 0), Some(Here::Runs));
    assert!(bed.services.moves_left(now(bed.began), 0));
    bed.is_condemned();
    bed.services.condemn(now(bed.began), 0, 0);
    bed.comes_to(GroupState::StartFailed);
    assert!(bed.services.runs_on(now(bed.began), 0));
    assert!(!bed.services.moves_left(now(bed.began), 0), "not for ever");
}

#[test]
fn while_io_waits_or_after_a_standstill_nothing_is_counted_that_was() {
    let mut bed = Bed::online("test ! -e ill", policy(LIMIT, 1_000_000, OnError::Failover));
    fs::write(bed.file("ill"), "").expect("a file");
    bed.until("failing", |bed| bed.monitor().failures > 1);
    bed.services.freezes(now(bed.began), 0, true);
    assert_eq!(bed.monitor().state, MonitorState::Idle);
    assert_eq!(bed.state(), GroupState::Online);
    bed.services.freezes(now(bed.began), 0, false);
    assert_eq!(bed.monitor().state, MonitorState::New);
    bed.until("failing", |bed| bed.monitor().failures > 1);
    bed.services.stood_still(now(bed.began));
    assert_eq!(bed.monitor().state, MonitorState::New);
}

#[test]
fn the_first_look_waits_for_what_needs_long_until_it_answers() {
    let delay = Duration::from_secs(2);
    let quick = policy(LIMIT, 0, OnError::Failover);
    let mut bed = Bed::online("echo >> looks.words", monitor::Policy { delay, ..quick });
    let began = Clock::now();
    bed.until("a look", |bed| bed.monitor().state == MonitorState::Well);
    assert!(began.elapsed() + Duration::from_millis(200) >= delay);
}
