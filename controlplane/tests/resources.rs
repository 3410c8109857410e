//! Resources with their real effects on this kernel: mounts of a loop device, addresses in a network namespace of the
//! test's own, processes in cgroups. What needs root and is run without it says so on the terminal and counts as nothing.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::resources::cage::Cage;
use controlplane::resources::environment::{Factor, Server};
use controlplane::resources::filesystem::{Fsck, Users};
use controlplane::resources::program::Settings;
use controlplane::resources::{
    Context, Environment, Exec, FileSystem, FloatingIp, Kind, Limit, Places, Program, ResourceError,
};
use controlplane_core::group::{Action, Manner, Origin, Outcome};
use nix::sched::{CloneFlags, unshare};

const START: Action = Action::Start(Origin::Start);
const STOP: Action = Action::Stop(Manner::Orderly);
const KILL: Action = Action::Stop(Manner::Hard);
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// One test at a time with a mount: a new mount namespace of one test would hold the mounts of another.
static MOUNTS: Mutex<()> = Mutex::new(());

/// A directory of its own for one resource.
struct Bed {
    directory: tempfile::TempDir,
    places: Places,
    broke: Arc<AtomicUsize>,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_path_buf();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let places = Places {
            run: path.join("run"),
            logs: path.join("logs"),
            devices: path.join("devices"),
            // Cgroups are the machine's: the name must be of this run alone.
            group: format!("test{}", std::process::id()),
            resource: format!("resource{number}"),
        };
        fs::create_dir_all(&places.devices).expect("a directory");
        Self {
            directory,
            places,
            broke: Arc::default(),
        }
    }

    fn context(&self, time: Duration) -> Context {
        let broke = Arc::clone(&self.broke);
        Context {
            places: self.places.clone(),
            environment: Environment {
                group: "pg".to_string(),
                resource: "app".to_string(),
                origin: Origin::Failover,
                server: Server::Other,
                previous: Some("node1".to_string()),
                factor: Factor::None,
            },
            limit: Limit::new(time, Arc::default()),
            broke: Arc::new(move |_| {
                broke.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    fn act(&self, kind: &Kind, action: Action) -> (Outcome, Option<ResourceError>) {
        kind.act(action, &self.context(Duration::from_secs(20)))
    }

    fn does(&self, kind: &Kind, action: Action) {
        let (outcome, error) = self.act(kind, action);
        assert_eq!(
            (outcome, error.map(|error| error.to_string())),
            (Outcome::Done, None)
        );
    }

    fn finds(&self, kind: &Kind, expected: Outcome) {
        let (outcome, error) = self.act(kind, Action::Probe);
        assert_eq!(outcome, expected, "{error:?}");
    }

    fn refuses(&self, kind: &Kind, action: Action) -> ResourceError {
        let (outcome, error) = self.act(kind, action);
        assert_eq!(outcome, Outcome::Failed);
        error.expect("a reason")
    }

    fn script(&self, name: &str, text: &str) -> Vec<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        vec![path.display().to_string()]
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let cage = Cage::of(&self.places);
        if let Err(error) = cage.kill() {
            let _ = writeln!(std::io::stderr(), "left over: {error}");
        }
        cage.remove();
    }
}

/// Whether this test can run. If not, that is said past the test harness, which hides what passing tests print.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = writeln!(std::io::stderr(), "SKIPPED, needs root: {test}");
    }
    root
}

fn run(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command)
        .args(arguments)
        .output()
        .expect(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A loop device with a file system, as the device of the volume `data`.
struct Loop(String, #[expect(dead_code)] MutexGuard<'static, ()>);

impl Loop {
    fn new(bed: &Bed) -> Self {
        let made = Self::empty(bed);
        run("mkfs.ext4", &["-q", &made.0]);
        made
    }

    fn empty(bed: &Bed) -> Self {
        let alone = MOUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        let image = bed.file("image");
        let file = fs::File::create(&image).expect("an image");
        file.set_len(64 << 20).expect("its length");
        let image = image.display().to_string();
        let device = run("losetup", &["--find", "--show", &image]);
        symlink(&device, bed.places.devices.join("data")).expect("a link");
        Self(device, alone)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn file_system(bed: &Bed, users: Users) -> (FileSystem, Kind) {
    let settings = FileSystem {
        volume: "data".to_string(),
        kind: "ext4".to_string(),
        mount_point: bed.file("made/on demand"),
        options: "noatime,errors=remount-ro".to_string(),
        fsck: Fsck::Auto,
        users,
    };
    (settings.clone(), Kind::FileSystem(settings))
}

fn holder(directory: &Path) -> std::process::Child {
    let child = Command::new("sleep")
        .arg("1000")
        .current_dir(directory)
        .spawn();
    child.expect("sleep")
}

#[test]
fn a_file_system_is_mounted_found_again_and_unmounted() {
    if !is_root("a_file_system_is_mounted_found_again_and_unmounted") {
        return;
    }
    let bed = Bed::new();
    let _device = Loop::new(&bed);
    let (settings, kind) = file_system(&bed, Users::Name);
    bed.finds(&kind, Outcome::Absent);
    bed.does(&kind, START);
    fs::write(settings.mount_point.join("kept"), "x").expect("a file");
    bed.finds(&kind, Outcome::Done);
    let error = bed.refuses(&kind, START);
    assert_eq!(error.code(), "LS6064", "{error}");
    bed.does(&kind, STOP);
    assert!(!settings.mount_point.join("kept").exists());
    bed.finds(&kind, Outcome::Absent);
    bed.does(&kind, STOP);
    bed.does(&kind, START);
    assert!(settings.mount_point.join("kept").exists());
    bed.does(&kind, KILL);
    bed.finds(&kind, Outcome::Absent);
}

#[test]
fn an_empty_volume_says_what_makes_a_file_system_and_a_damaged_one_does_not() {
    if !is_root("an_empty_volume_says_what_makes_a_file_system_and_a_damaged_one_does_not") {
        return;
    }
    let bed = Bed::new();
    let device = Loop::empty(&bed);
    let (settings, _) = file_system(&bed, Users::Name);
    let kind = Kind::FileSystem(FileSystem {
        fsck: Fsck::Never,
        ..settings
    });
    let error = bed.refuses(&kind, START);
    assert_eq!(error.code(), "LS6216", "{error}");
    assert!(error.is_of_the_volume(), "the other node finds the same");
    assert!(
        error.to_string().contains("lockstep group prepare"),
        "{error}"
    );
    fs::write(&device.0, b"something").expect("the device");
    let error = bed.refuses(&kind, START);
    assert_eq!(error.code(), "LS6063", "{error}");
}

#[test]
fn a_busy_mount_names_its_users_or_kills_them() {
    if !is_root("a_busy_mount_names_its_users_or_kills_them") {
        return;
    }
    let bed = Bed::new();
    let _device = Loop::new(&bed);
    let (settings, kind) = file_system(&bed, Users::Name);
    bed.does(&kind, START);
    let mut child = holder(&settings.mount_point);
    let error = bed.refuses(&kind, STOP);
    let named = format!("{} (sleep, cwd ", child.id());
    assert_eq!(error.code(), "LS6065");
    assert!(error.to_string().contains(&named), "{error}");
    bed.finds(&kind, Outcome::Done);
    let (_, kind) = file_system(&bed, Users::Kill);
    bed.does(&kind, STOP);
    bed.finds(&kind, Outcome::Absent);
    child.wait().expect("it was asked to end");
}

#[test]
fn a_mount_that_lives_on_in_another_namespace_is_not_believed_gone() {
    if !is_root("a_mount_that_lives_on_in_another_namespace_is_not_believed_gone") {
        return;
    }
    let bed = Bed::new();
    let _device = Loop::new(&bed);
    let (_, kind) = file_system(&bed, Users::Name);
    bed.does(&kind, START);
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "1000"])
        .spawn()
        .expect("unshare");
    let entered = format!("/proc/{}/comm", other.id());
    let sleeps = || fs::read_to_string(&entered).is_ok_and(|name| name == "sleep\n");
    eventually("the other namespace", sleeps);
    let error = bed.refuses(&kind, STOP);
    assert_eq!(error.code(), "LS6066", "{error}");
    bed.finds(&kind, Outcome::Failed);
    other.kill().expect("a signal");
    other.wait().expect("its end");
    bed.does(&kind, STOP);
}

#[test]
fn a_mount_of_an_earlier_activation_is_no_mount_of_this_one() {
    if !is_root("a_mount_of_an_earlier_activation_is_no_mount_of_this_one") {
        return;
    }
    let bed = Bed::new();
    let _device = Loop::new(&bed);
    let (_, kind) = file_system(&bed, Users::Name);
    bed.does(&kind, START);
    let link = bed.places.devices.join("data");
    fs::remove_file(&link).expect("the link");
    symlink("/dev/null", &link).expect("a link");
    bed.finds(&kind, Outcome::Failed);
    bed.does(&kind, STOP);
    bed.finds(&kind, Outcome::Absent);
}

/// Runs in a network namespace of its own, with an interface `here` that leads to another one, `there`.
fn in_a_network(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            tell.send(nix::unistd::gettid()).expect("told");
            ended.recv().expect("the veth pair");
            run("ip", &["addr", "add", "10.9.0.66/24", "dev", "there"]);
            run(
                "ip",
                &["addr", "add", "fd09::66/64", "dev", "there", "nodad"],
            );
            run("ip", &["link", "set", "there", "up"]);
            tell.send(nix::unistd::gettid()).expect("told");
            let _ = ended.recv();
        });
        let number = told.recv().expect("the other side").to_string();
        run(
            "ip",
            &[
                "link", "add", "name", "here", "type", "veth", "peer", "name", "there",
            ],
        );
        run("ip", &["link", "set", "there", "netns", &number]);
        run("ip", &["addr", "add", "10.9.0.1/24", "dev", "here"]);
        run("ip", &["addr", "add", "fd09::1/64", "dev", "here", "nodad"]);
        run("ip", &["link", "set", "here", "up"]);
        end.send(()).expect("told");
        told.recv().expect("the other side");
        test();
        drop(end);
        other.join().expect("the other side");
    };
    thread::spawn(inside).join().expect("the test");
}

fn floating(address: &str, prefix: u8, interface: Option<&str>) -> Kind {
    Kind::FloatingIp(FloatingIp {
        address: address.parse::<IpAddr>().expect("an address"),
        prefix,
        interface: interface.map(str::to_string),
    })
}

#[test]
fn an_address_comes_is_found_and_goes() {
    if !is_root("an_address_comes_is_found_and_goes") {
        return;
    }
    in_a_network(|| {
        let bed = Bed::new();
        for (address, prefix) in [("10.9.0.20", 24), ("fd09::20", 64)] {
            let kind = floating(address, prefix, None);
            bed.finds(&kind, Outcome::Absent);
            bed.does(&kind, START);
            bed.finds(&kind, Outcome::Done);
            let shown = run("ip", &["addr", "show", "dev", "here"]);
            assert!(shown.contains(&format!("{address}/{prefix}")), "{shown}");
            bed.does(&kind, STOP);
            bed.finds(&kind, Outcome::Absent);
            bed.does(&kind, KILL);
        }
    });
}

#[test]
fn an_address_that_another_machine_has_is_not_taken() {
    if !is_root("an_address_that_another_machine_has_is_not_taken") {
        return;
    }
    in_a_network(|| {
        let bed = Bed::new();
        for (address, prefix) in [("10.9.0.66", 24), ("fd09::66", 64)] {
            let kind = floating(address, prefix, Some("here"));
            let error = bed.refuses(&kind, START);
            assert_eq!(error.code(), "LS6068", "{error}");
            bed.finds(&kind, Outcome::Absent);
        }
        let nowhere = bed.refuses(&floating("10.8.0.1", 24, None), START);
        assert_eq!(nowhere.code(), "LS6069", "{nowhere}");
        let missing = bed.refuses(&floating("10.9.0.20", 24, Some("eth9")), START);
        assert_eq!(missing.code(), "LS6069", "{missing}");
    });
}

#[test]
fn neighbours_are_told_that_the_address_moved() {
    if !is_root("neighbours_are_told_that_the_address_moved") {
        return;
    }
    in_a_network(|| {
        let bed = Bed::new();
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Packet,
            nix::sys::socket::SockType::Raw,
            nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            nix::sys::socket::SockProtocol::EthAll,
        );
        let socket = socket.expect("a socket");
        bed.does(&floating("10.9.0.20", 24, None), START);
        let gratuitous = |frame: &[u8]| {
            let arp = frame.get(12..14) == Some(&[8, 6]);
            arp && frame[28..32] == [10, 9, 0, 20] && frame[38..42] == [10, 9, 0, 20]
        };
        let mut frame = [0; 2048];
        let mut heard = 0;
        eventually_mut("three announcements", || {
            use std::os::fd::AsRawFd;
            let flags = nix::sys::socket::MsgFlags::empty();
            while let Ok(length) = nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, flags) {
                heard += usize::from(gratuitous(&frame[..length]));
            }
            heard >= 6
        });
    });
}

fn eventually_mut(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn scripts_start_and_stop_with_the_environment_of_both_families() {
    let bed = Bed::new();
    let out = bed.file("out").display().to_string();
    let kind = Kind::Exec(Exec {
        start: bed.script(
            "start",
            &format!("env > {out}; echo words; echo errors >&2"),
        ),
        stop: Some(bed.script("stop", &format!("rm {out}"))),
        check: Some(bed.script("check", &format!("test -e {out}"))),
    });
    bed.finds(&kind, Outcome::Absent);
    bed.does(&kind, START);
    bed.finds(&kind, Outcome::Done);
    let told = fs::read_to_string(&out).expect("the environment");
    for line in [
        "CLP_EVENT=FAILOVER",
        "CLP_SERVER=OTHER",
        "CLP_SERVER_PREV=node1",
        "CLP_DISK=SUCCESS",
        "CLP_GROUPNAME=pg",
        "CLP_RESOURCENAME=app",
        "ARMS_EVENT=FAILOVER",
        "ARMS_SERVER=OTHER",
        "ARMS_DISK=SUCCESS",
        "ARMS_GROUPNAME=pg",
    ] {
        assert!(told.lines().any(|told| told == line), "{line} in\n{told}");
    }
    let log = fs::read_to_string(bed.places.log()).expect("the log");
    assert_eq!(log, "words\nerrors\n");
    fs::remove_file(&out).expect("the file");
    bed.finds(&kind, Outcome::Failed);
    let error = bed.refuses(&kind, STOP);
    assert_eq!(error.code(), "LS6070", "{error}");
    fs::write(&out, "").expect("the file");
    bed.does(&kind, STOP);
    bed.finds(&kind, Outcome::Absent);
}

fn lives(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_script_that_hangs_is_killed_with_what_it_began() {
    let bed = Bed::new();
    let pid = bed.file("pid");
    let text = format!(
        "setsid sleep 1000 & echo $! > {}; sleep 1000",
        pid.display()
    );
    let kind = Kind::Exec(Exec {
        start: bed.script("start", &text),
        stop: None,
        check: None,
    });
    let (outcome, error) = kind.act(START, &bed.context(Duration::from_secs(1)));
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(error.expect("a reason").code(), "LS6060");
    assert!(pid.exists() && !lives(&pid), "the timeout kills everything");
    bed.finds(&kind, Outcome::Failed);
    bed.does(&kind, STOP);
    bed.finds(&kind, Outcome::Absent);
}

#[test]
fn what_hides_in_a_cgroup_of_its_own_is_found_and_killed() {
    let test = "what_hides_in_a_cgroup_of_its_own_is_found_and_killed";
    if !is_root(test) {
        return;
    }
    let bed = Bed::new();
    let (pid, place) = (bed.file("pid"), bed.file("place"));
    let text = format!(
        "sleep 1000 & echo $! > {}; cat /proc/self/cgroup | grep ^0:: | cut -d: -f3 > {}",
        pid.display(),
        place.display()
    );
    let kind = Kind::Exec(Exec {
        start: bed.script("start", &text),
        stop: None,
        check: None,
    });
    bed.does(&kind, START);
    let root = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let root = root.lines().find(|line| line.contains(" - cgroup2 "));
    let Some(root) = root.and_then(|line| line.split(' ').nth(4)) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED, needs cgroup v2: {test}");
        return;
    };
    let place = fs::read_to_string(&place).expect("a place");
    let inner = PathBuf::from(format!("{root}{}/inner", place.trim()));
    fs::create_dir(&inner).expect("a cgroup");
    let number = fs::read_to_string(&pid).expect("a number");
    fs::write(inner.join("cgroup.procs"), number.trim()).expect("moved");
    bed.does(&kind, STOP);
    assert!(!lives(&pid));
    fs::remove_dir(&inner).expect("it is empty");
}

#[test]
fn what_is_broken_off_ends_at_once() {
    let bed = Bed::new();
    let start = bed.script("start", "sleep 1000");
    let kind = Kind::Exec(Exec {
        start,
        stop: None,
        check: None,
    });
    let cut = Arc::new(AtomicBool::new(false));
    let mut context = bed.context(Duration::from_secs(1000));
    context.limit = Limit::new(Duration::from_secs(1000), Arc::clone(&cut));
    let began = Instant::now();
    let cutter = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        cut.store(true, Ordering::Relaxed);
    });
    let (_, error) = kind.act(START, &context);
    assert_eq!(error.expect("a reason").code(), "LS6061");
    assert!(began.elapsed() < Duration::from_secs(20));
    cutter.join().expect("the cutter");
}

#[test]
fn a_daemon_that_a_script_leaves_behind_ends_with_the_stop_without_a_script() {
    let bed = Bed::new();
    let pid = bed.file("pid");
    let text = format!("setsid sleep 1000 & echo $! > {}", pid.display());
    let kind = Kind::Exec(Exec {
        start: bed.script("start", &text),
        stop: None,
        check: None,
    });
    for stop in [STOP, KILL] {
        bed.does(&kind, START);
        assert!(lives(&pid));
        bed.does(&kind, stop);
        assert!(!lives(&pid));
    }
}

fn program(bed: &Bed, text: &str, restarts: usize) -> Kind {
    Kind::Program(Program::new(Settings {
        command: bed.script("program", text),
        ready: Duration::from_millis(200),
        restarts,
        restart_interval: Duration::from_secs(600),
    }))
}

#[test]
fn a_program_is_adopted_by_a_daemon_that_begins_anew() {
    let bed = Bed::new();
    let pid = bed.file("pid");
    let text = format!("echo $$ > {}; exec sleep 1000", pid.display());
    let first = program(&bed, &text, 1);
    bed.finds(&first, Outcome::Absent);
    bed.does(&first, START);
    let before = fs::read_to_string(&pid).expect("a number");
    // The daemon's memory is gone; its child is not.
    std::mem::forget(first);
    let second = program(&bed, &text, 1);
    bed.finds(&second, Outcome::Done);
    assert_eq!(fs::read_to_string(&pid).expect("a number"), before);
    bed.does(&second, STOP);
    assert!(!lives(&pid));
    bed.finds(&second, Outcome::Absent);
}

#[test]
fn a_program_that_ends_is_started_again_until_the_bound_and_then_the_group_is_told() {
    let bed = Bed::new();
    let runs = bed.file("runs");
    let text = format!("echo run >> {}; sleep 0.5", runs.display());
    let kind = program(&bed, &text, 2);
    bed.does(&kind, START);
    eventually("the group is told", || {
        bed.broke.load(Ordering::Relaxed) > 0
    });
    let lines = fs::read_to_string(&runs).expect("the runs");
    assert_eq!(lines.lines().count(), 3);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(bed.broke.load(Ordering::Relaxed), 1, "once");
    bed.finds(&kind, Outcome::Failed);
    bed.does(&kind, STOP);
    bed.finds(&kind, Outcome::Absent);
}

#[test]
fn a_program_that_ends_at_once_was_not_started() {
    let bed = Bed::new();
    let error = bed.refuses(&program(&bed, "echo no >&2; exit 7", 5), START);
    assert_eq!(error.code(), "LS6070", "{error}");
    assert!(error.to_string().contains("exit status: 7"), "{error}");
    let missing = Kind::Program(Program::new(Settings {
        command: vec!["/nowhere/program".to_string()],
        ready: Duration::from_millis(500),
        restarts: 0,
        restart_interval: Duration::from_secs(1),
    }));
    bed.refuses(&missing, START);
}

#[test]
fn a_program_that_does_not_listen_is_killed() {
    let bed = Bed::new();
    let kind = program(&bed, "trap '' TERM; while :; do sleep 0.1; done", 0);
    bed.does(&kind, START);
    let (outcome, error) = kind.act(STOP, &bed.context(Duration::from_secs(2)));
    assert_eq!(outcome, Outcome::Done, "{error:?}");
    bed.finds(&kind, Outcome::Absent);
}

#[test]
fn a_log_keeps_the_newest_words() {
    let bed = Bed::new();
    let text = "i=0; while [ $i -lt 30000 ]; do echo \"$i 0123456789012345678901234567890123456789\"; i=$((i+1)); done";
    let kind = Kind::Exec(Exec {
        start: bed.script("start", text),
        stop: None,
        check: None,
    });
    bed.does(&kind, START);
    let log = fs::read_to_string(bed.places.log()).expect("the log");
    assert!(log.len() <= 1024 * 1024, "{}", log.len());
    assert!(
        log.lines()
            .last()
            .is_some_and(|line| line.starts_with("29999 "))
    );
    bed.does(&kind, STOP);
}
