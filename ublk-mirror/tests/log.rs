//! Logs that nobody reads, or that have no room: a daemon neither waits for its log nor dies of it.

// A test that cannot go on panics, and helpers of tests are no tests to the linter.
#![allow(clippy::unwrap_used)]

mod harness;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use harness::{DAEMON, Node, Pair, Scratch, errors};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

const PATIENCE: Duration = Duration::from_secs(60);
/// Strangers at the mirror port, each worth a line; more than the 4096 that may wait.
const STRANGERS: usize = 5000;

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe that takes not one byte more, and reads as lines.
fn stuck() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    flags(OFlag::O_NONBLOCK);
    let mut noise = vec![b'x'; 4096];
    noise[4095] = b'\n';
    loop {
        match writer.write(&noise) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && noise.len() == 1 => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => noise = vec![b'\n'],
            Err(error) => panic!("{error}"),
        }
    }
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

/// What comes out of the pipe from now on.
fn lines_of(reader: PipeReader) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    lines
}

/// How a program ends that must not wait.
fn ended(command: &mut Command) -> ExitStatus {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= end {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stranger(node: &Node) {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[0x55; 128]).unwrap();
    // Closed, with what it said unread.
    let closed = stream.read(&mut [0; 1]);
    assert!(!matches!(closed, Ok(1..)), "{closed:?}");
}

/// The count of the line that tells what was dropped.
fn lost(line: &str) -> Option<u64> {
    let rest = line.split_once("lost=")?.1;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    line.contains("LS3043").then(|| digits.parse().unwrap())
}

#[test]
fn a_log_on_a_full_disk_ends_no_daemon() {
    let mut pair = Pair::formatted("full-log");
    pair.a.start_with_log(full());
    pair.b.start_with_log(full());
    pair.wait_in_sync();
    stranger(&pair.a);
    // The link is lost and comes back, which is worth some lines.
    pair.b.kill();
    pair.a
        .wait_for("it is lost", |status| status["link"]["state"] != "up");
    pair.b.start_with_log(full());
    pair.wait_in_sync();
    let answer = pair.a.ask("\"request\":\"command\",\"command\":\"dance\"");
    assert_eq!(answer["problem"]["code"], "LS3031");
    // Why another one cannot run is told to nobody.
    let second = ended(pair.a.command("run").stderr(full()));
    assert_eq!(second.code(), Some(1), "{second}");
    assert_eq!(pair.a.stop()["done"], "stopped");
    assert_eq!(pair.b.stop()["done"], "stopped");
}

/// Whoever starts a daemon without a log reads what it says until it answers, by a pipe.
#[test]
fn a_log_whose_reader_is_gone_ends_no_daemon() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut pair = Pair::formatted("gone-log");
    pair.a.start_with_log(writer);
    pair.b.start();
    pair.wait_in_sync();
    drop(reader);
    stranger(&pair.a);
    pair.b.kill();
    pair.a
        .wait_for("it is lost", |status| status["link"]["state"] != "up");
    pair.b.start();
    pair.wait_in_sync();
    assert_eq!(pair.a.stop()["done"], "stopped");
}

#[test]
fn a_log_that_nobody_reads_holds_no_daemon_up_and_tells_what_is_lost() {
    let (reader, writer) = stuck();
    let mut pair = Pair::formatted("stuck-log");
    let second = writer.try_clone().unwrap();
    pair.a.start_with_log(writer);
    pair.b.start();
    pair.wait_in_sync();
    for _ in 0..3 {
        pair.b.kill();
        pair.a
            .wait_for("it is lost", |status| status["link"]["state"] != "up");
        pair.b.start();
        pair.wait_in_sync();
    }
    for _ in 0..STRANGERS {
        stranger(&pair.a);
    }
    pair.wait_in_sync();
    let second = ended(pair.a.command("run").stderr(second));
    assert_eq!(second.code(), Some(1), "{second}");

    let lines = lines_of(reader);
    let end = Instant::now() + PATIENCE;
    let next = || {
        let left = end.saturating_duration_since(Instant::now());
        lines.recv_timeout(left).expect("the count is told")
    };
    let count = std::iter::repeat_with(next)
        .find_map(|line| lost(&line))
        .unwrap();
    assert!(count > 100, "{count}");
    // What is logged from now on has room, up to the last line.
    assert_eq!(pair.a.stop()["done"], "stopped");
    assert!(lines.iter().last().unwrap().contains("LS2022"));
}

/// It may be stuck in a write when the daemon is killed: the admin socket and the lock have to be free nevertheless.
#[test]
fn the_thread_of_the_log_has_none_of_the_daemons_files_open() {
    let pair = Pair::in_sync("log-thread");
    let tasks = fs::read_dir(format!("/proc/{}/task", pair.a.pid())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let log = |task: &std::path::PathBuf| fs::read_to_string(task.join("comm")).unwrap() == "log\n";
    let thread = tasks.into_iter().find(log).unwrap();
    let files = fs::read_dir(thread.join("fd")).unwrap();
    let files: Vec<_> = files
        .map(|file| fs::read_link(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(files, [pair.a.directory.join("log")]);
    // A signal that ends the daemon must come to where it is waited for.
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = u64::from_str_radix(blocked.unwrap().trim(), 16).unwrap();
    assert!(blocked >> (libc::SIGTERM - 1) & 1 == 1, "{blocked:x}");
}

#[test]
fn a_device_helper_does_not_die_of_its_log() {
    // Without rights it cannot do its work, and wants to say so.
    let scratch = Scratch::new("helper-log");
    let program = scratch.0.join("ublk-mirror");
    fs::copy(DAEMON, &program).unwrap();
    let (stuck_reader, stuck_writer) = stuck();
    for log in [Stdio::from(full()), Stdio::from(stuck_writer)] {
        let mut command = Command::new(&program);
        command
            .arg("device-helper")
            .stdin(Stdio::null())
            .stderr(log);
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let status = ended(&mut command);
        assert_eq!(status.code(), Some(1), "{status}");
    }
    drop(stuck_reader);
}

#[test]
fn what_was_done_counts_though_nobody_could_be_told() {
    let pair = Pair::new("full-output");
    let run = |action: &str, options: &[&str]| {
        let mut command = pair.a.command(action);
        let child = command.args(options).stdout(full()).stderr(full());
        child.status().unwrap()
    };
    assert_eq!(run("check", &[]).code(), Some(1), "nothing is there");
    assert_eq!(run("format", &[]).code(), Some(0), "it is made");
    assert_eq!(run("format", &[]).code(), Some(1), "not over another one");
    assert_eq!(
        run("check", &[]).code(),
        Some(1),
        "what was asked for is lost"
    );
    let output = pair.a.run("check", &[]);
    assert!(output.status.success(), "{}", errors(&output));
}
