//! Keeps the daemon of one volume running, in a thread of its own: whatever it waits for delays nobody.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant as Clock};

use controlplane_api::cluster::{Daemon, DaemonState};
use controlplane_core::restarts::{Cause, Restarts, STEADY};
use mirror_core::types::Instant;

use super::ended::Ended;
use super::stopped::{self, StoppedError, Turn};
use super::{Door, Places, launch};
use crate::arbiter::boottime_nanos;
use crate::resources::mark::ProcessId;

/// Between two looks at a process: one that ends while its volume is served is started again as soon.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at what seldom changes.
const SLOW_LOOK: Duration = Duration::from_secs(1);
/// A daemon that was started answers within this time, or it is told that it does not.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// A thread that only looks needs no more.
const STACK_BYTES: usize = 256 * 1024;

/// Where to tell how the daemon is. It does not wait: a node that is busy keeps no daemon from being started.
pub type Tell = Box<dyn FnMut(Daemon) -> Heard + Send>;

/// Whether somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Yes.
    Yes,
    /// Not now.
    Later,
    /// Nobody listens any more.
    Nobody,
}

/// One volume's daemon, as it is watched.
struct Watch {
    places: Places,
    tell: Tell,
    told: Option<Daemon>,
    heard: Heard,
    restarts: Restarts,
    /// How it ended last, until the next one is steady.
    last: Option<Ended>,
    /// What was started here and did not end yet.
    child: Option<Child>,
    /// What answers at the socket.
    running: Option<Running>,
    /// What the log says from here on is of the present daemon.
    log_start: u64,
    /// The configuration that was tried last: another one is tried at once.
    tried: Option<Stamp>,
}

/// A daemon that answered.
#[derive(Clone, Copy)]
struct Running {
    /// As the kernel named it.
    process: Option<ProcessId>,
    since: Clock,
    looked: Clock,
}

/// Which file it is, and of when.
type Stamp = (u64, i64, i64);

/// Starts to watch.
///
/// # Errors
/// If there is no thread for it.
pub fn begin(places: Places, tell: Tell) -> io::Result<()> {
    let mut watch = Watch {
        places,
        tell,
        told: None,
        heard: Heard::Yes,
        restarts: Restarts::default(),
        last: None,
        child: None,
        running: None,
        log_start: 0,
        tried: None,
    };
    let run = move || {
        while watch.heard != Heard::Nobody {
            let pause = watch.step();
            thread::sleep(pause);
            watch.repeat();
        }
    };
    thread::Builder::new()
        .name("daemon".to_string())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
}

impl Watch {
    /// One look, and what follows from it; how long to wait for the next one.
    fn step(&mut self) -> Duration {
        if let Some(running) = self.running {
            return self.accompany(running);
        }
        match self.places.door() {
            Door::Open(process) => {
                self.meet(process);
                LOOK
            }
            Door::Unclear(error) => {
                let text = format!("its socket cannot be reached: {error}");
                self.say(DaemonState::Unknown, text, Some("LS6123"));
                SLOW_LOOK
            }
            Door::Closed => self.absent().unwrap_or_else(|error| {
                self.say(DaemonState::Unknown, error.to_string(), Some(error.code()));
                SLOW_LOOK
            }),
        }
    }

    /// It answers for the first time: it was started here, by hand, or before this process began.
    fn meet(&mut self, process: Option<ProcessId>) {
        let now = Clock::now();
        let pid = process.map(|process| process.pid);
        let child = self.child.as_ref().map(|child| i32::try_from(child.id()));
        let own = pid.is_some() && child.and_then(Result::ok) == pid;
        if !own {
            // How another process ends only its words tell.
            self.child.take().and_then(reap);
            self.log_start = self.log_length();
        }
        // From here on it is not known for how long it runs: a pipe would be full some time.
        if let Some(child) = &mut self.child {
            drop(child.stderr.take());
        }
        tracing::info!(code = "LS6120", volume = %self.places.volume, pid, own, "the volume's daemon runs");
        self.running = Some(Running {
            process,
            since: now,
            looked: now,
        });
        self.runs(now);
    }

    fn accompany(&mut self, running: Running) -> Duration {
        let lives = match running.process {
            Some(process) => process.lives(),
            // The kernel does not say who it is.
            None => !matches!(self.places.door(), Door::Closed),
        };
        if !lives {
            self.running = None;
            self.over(running.since.elapsed());
            return Duration::ZERO;
        }
        if running.looked.elapsed() >= SLOW_LOOK {
            self.runs(running.since);
            self.running = Some(Running {
                looked: Clock::now(),
                ..running
            });
        }
        LOOK
    }

    /// Tells that it runs, and what is to be known of that.
    fn runs(&mut self, since: Clock) {
        if since.elapsed() >= STEADY {
            self.last = None;
        }
        let stopped = stopped::is_stopped(&self.places).unwrap_or(false);
        let (text, code) = match &self.last {
            _ if stopped => {
                let text = "runs although it was stopped: it would not be started again";
                (text.to_string(), Some("LS6124"))
            }
            Some(last) => (
                format!("runs again, after it ended: {}", last.text()),
                Some("LS6121"),
            ),
            None => ("runs".to_string(), None),
        };
        self.say(DaemonState::Runs, text, code);
    }

    /// It ended. An end that an operator wishes is no crash.
    fn over(&mut self, ran: Duration) {
        let mut child = self.child.take();
        let said = child.as_mut().and_then(launch::said);
        let status = child.and_then(reap);
        if stopped::is_stopped(&self.places).unwrap_or(false) {
            return;
        }
        let ended = match said {
            Some(text) => Ended::saying(status, &text),
            None => Ended::of(status, &self.places.log(), self.log_start),
        };
        self.count(ended, ran);
    }

    fn count(&mut self, ended: Ended, ran: Duration) {
        let cause = Cause::of(ended.code.as_deref());
        let pause = self.restarts.ended(now(), ran, cause);
        let (volume, text) = (&self.places.volume, ended.text());
        let pause_s = pause.as_secs();
        match cause {
            Cause::Passing => {
                let in_a_row = self.restarts.in_a_row();
                tracing::warn!(code = "LS6121", %volume, in_a_row, pause_s, "the volume's daemon ended and is started again: {text}");
            }
            Cause::Lasting => {
                tracing::error!(code = "LS6122", %volume, pause_s, "the volume's daemon refuses to run: {text}");
            }
        }
        if !pause.is_zero() {
            let again = format!("tried again {pause_s} s after its last end");
            let (state, code) = match cause {
                Cause::Passing => (DaemonState::Pauses, "LS6121"),
                Cause::Lasting => (DaemonState::Refuses, "LS6122"),
            };
            self.say(state, format!("ended: {text}; {again}"), Some(code));
        }
        self.last = Some(ended);
    }

    /// Nobody answers: it is started if it may be.
    fn absent(&mut self) -> Result<Duration, StoppedError> {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                // It recovers a device, or ends slowly.
                Ok(None) => {
                    self.starts();
                    return Ok(LOOK);
                }
                Ok(Some(_)) | Err(_) => self.over(Duration::ZERO),
            }
        }
        if stopped::is_stopped(&self.places)? {
            self.forget();
            self.say_stopped();
            return Ok(LOOK);
        }
        let Some(stamp) = self.stamp()? else {
            self.forget();
            let text = "this node has no copy of it; `lockstep volume create` makes one";
            self.say(DaemonState::NotMade, text.to_string(), Some("LS6127"));
            return Ok(SLOW_LOOK);
        };
        if self.tried.is_some_and(|tried| tried != stamp) {
            self.forget();
        }
        let wait = self.restarts.wait(now());
        if !wait.is_zero() {
            return Ok(wait.min(LOOK * 5));
        }
        let Some(turn) = Turn::try_take(&self.places)? else {
            let text = "somebody else starts or stops it, or makes the copy";
            self.say(DaemonState::Starts, text.to_string(), None);
            return Ok(LOOK);
        };
        self.start(&turn)
    }

    /// Starts it, and keeps the turn until it answers: who stops it meanwhile would find nobody to stop. Returns when to look
    /// again, without the turn: where a process without a voice has the lock, others get it in between.
    fn start(&mut self, _turn: &Turn) -> Result<Duration, StoppedError> {
        // What was seen before this was the turn's holder may be the past.
        if stopped::is_stopped(&self.places)? || !matches!(self.places.door(), Door::Closed) {
            return Ok(Duration::ZERO);
        }
        let Some(stamp) = self.stamp()? else {
            return Ok(Duration::ZERO);
        };
        if self.places.is_locked() {
            self.starts();
            return Ok(LOOK);
        }
        self.tried = Some(stamp);
        self.say(DaemonState::Starts, "is being started".to_string(), None);
        let log = launch::open_log(&self.places.log());
        if let Err((path, error)) = &log {
            let path = path.display();
            tracing::warn!(code = "LS6123", %path, %error, "the volume's daemon has no log");
        }
        self.log_start = self.log_length();
        match launch::start(&self.places, log.ok()) {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                let words = format!("ublk-mirror cannot be run: {error}");
                tracing::error!(code = "LS6123", volume = %self.places.volume, "{words}");
                self.count(
                    Ended {
                        words,
                        ..Ended::default()
                    },
                    Duration::ZERO,
                );
                return Ok(Duration::ZERO);
            }
        }
        let began = Clock::now();
        while began.elapsed() < START_LIMIT {
            let ended = match &mut self.child {
                Some(child) => !matches!(child.try_wait(), Ok(None)),
                None => true,
            };
            if ended || !matches!(self.places.door(), Door::Closed) {
                return Ok(Duration::ZERO);
            }
            thread::sleep(LOOK / 5);
        }
        let limit = START_LIMIT.as_secs();
        tracing::warn!(code = "LS6128", volume = %self.places.volume, "the volume's daemon does not answer {limit} s after its start");
        Ok(Duration::ZERO)
    }

    /// A process of the volume lives and does not answer.
    fn starts(&mut self) {
        let text = "a process of it lives, and does not answer yet";
        self.say(DaemonState::Starts, text.to_string(), Some("LS6128"));
    }

    fn say_stopped(&mut self) {
        let before = self.told.as_ref().map(|told| told.state);
        if before != Some(DaemonState::Stopped) {
            // What is left is empty.
            let _ = launch::forget(&self.places.volume);
            tracing::info!(code = "LS6124", volume = %self.places.volume, "an operator stopped the volume's daemon");
        }
        let text = "an operator stopped it";
        self.say(DaemonState::Stopped, text.to_string(), Some("LS6124"));
    }

    fn say(&mut self, state: DaemonState, text: String, code: Option<&str>) {
        let daemon = Daemon {
            state,
            text,
            code: code.map(str::to_string),
            restarts: self.restarts.in_a_row(),
        };
        if self.told.as_ref() != Some(&daemon) {
            self.told = Some(daemon.clone());
            self.heard = (self.tell)(daemon);
        }
    }

    /// Tells once more what nobody could take.
    fn repeat(&mut self) {
        if let (Heard::Later, Some(told)) = (self.heard, &self.told) {
            self.heard = (self.tell)(told.clone());
        }
    }

    fn forget(&mut self) {
        self.restarts.forget();
        self.last = None;
    }

    fn log_length(&self) -> u64 {
        fs::metadata(self.places.log()).map_or(0, |log| log.len())
    }

    /// Of the configuration, if there is one.
    fn stamp(&self) -> Result<Option<Stamp>, StoppedError> {
        let path = self.places.configuration();
        match fs::metadata(&path) {
            Ok(file) => Ok(Some((file.ino(), file.mtime(), file.mtime_nsec()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoppedError::Io {
                what: "look at",
                path,
                source,
            }),
        }
    }
}

/// How a child ended that is gone, or is about to be.
fn reap(mut child: Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}

fn now() -> Instant {
    Instant::from_nanos(boottime_nanos())
}
