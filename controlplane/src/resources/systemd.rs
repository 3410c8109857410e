//! A unit of systemd: started and stopped by `systemctl`, which is found by the search path of this daemon.
//!
//! What runs is in the unit's own cgroup and log. systemd's times of the unit count beside those of the resource.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};

use controlplane_core::group::{Manner, Outcome};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::cage::reap;
use super::{Context, Limit, ResourceError};

/// Of what `systemctl` says so much is kept.
const SAID_BYTES_MAX: u64 = 4096;

/// Words for a unit that is started by itself.
const ENABLED: [&str; 2] = ["enabled", "enabled-runtime"];

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Systemd {
    /// Its name, with its suffix.
    pub unit: String,
}

/// How a unit is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    Gone,
    /// It is on its way, or systemd says something that is not known here.
    Between,
}

impl Systemd {
    pub(super) fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        Ok(match self.state(&context.limit)?.0 {
            State::Runs => Outcome::Done,
            State::Gone => Outcome::Absent,
            State::Between => Outcome::Failed,
        })
    }

    pub(super) fn start(&self, context: &Context) -> Result<(), ResourceError> {
        let limit = &context.limit;
        // systemd counts failures as well, and refuses then: how often it is tried is decided here.
        let _ = self.run(&["reset-failed"], limit);
        self.succeed(&["start"], limit)?;
        self.must_be(State::Runs, limit)
    }

    pub(super) fn stop(&self, manner: Manner, context: &Context) -> Result<(), ResourceError> {
        let limit = &context.limit;
        if manner == Manner::Hard && self.state(limit)?.0 != State::Gone {
            // There may be nobody left to be killed; the stop after it decides.
            let _ = self.run(&["kill", "--signal=KILL"], limit);
        }
        self.succeed(&["stop"], limit)?;
        self.must_be(State::Gone, limit)
    }

    /// What `systemctl` says if it would start the unit by itself; `None` if not, or if nobody says it in time.
    pub fn is_enabled(&self, limit: &Limit) -> Option<String> {
        let (_, said) = self.run(&["is-enabled"], limit).ok()?;
        let word = said.trim();
        ENABLED.contains(&word).then(|| word.to_string())
    }

    fn must_be(&self, wanted: State, limit: &Limit) -> Result<(), ResourceError> {
        let (state, word) = self.state(limit)?;
        if state == wanted {
            return Ok(());
        }
        Err(ResourceError::Unit {
            unit: self.unit.clone(),
            state: word,
        })
    }

    fn state(&self, limit: &Limit) -> Result<(State, String), ResourceError> {
        let said = self.succeed(&["show", "--property=ActiveState"], limit)?;
        let word = said.trim().strip_prefix("ActiveState=").unwrap_or_default();
        let state = match word {
            "active" | "reloading" | "refreshing" => State::Runs,
            "inactive" | "failed" => State::Gone,
            _ => State::Between,
        };
        Ok((state, word.to_string()))
    }

    fn succeed(&self, words: &[&str], limit: &Limit) -> Result<String, ResourceError> {
        let (status, said) = self.run(words, limit)?;
        if status.success() {
            return Ok(said);
        }
        Err(ResourceError::Systemctl {
            command: self.command(words).join(" "),
            status,
            said: said.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut command = vec!["systemctl"];
        command.extend(words);
        command.extend(["--", &self.unit]);
        command
    }

    /// Runs it to its end, and returns what it said. Who is broken off leaves its job to systemd.
    fn run(&self, words: &[&str], limit: &Limit) -> Result<(ExitStatus, String), ResourceError> {
        limit.check()?;
        let command = self.command(words);
        let failed = || ResourceError::io(format!("run {}", command.join(" ")));
        let (mut reader, writer) = io::pipe().map_err(failed())?;
        let mut process = Command::new(command[0]);
        process
            .args(&command[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(writer.try_clone().map_err(failed())?)
            .stdout(writer);
        let mut child = process.spawn().map_err(failed())?;
        // Its ends of the pipe: what is read ends with the child.
        drop(process);
        let mut status = None;
        let ended = limit.wait_until(|| {
            status = child.try_wait().map_err(failed())?;
            Ok(status.is_some())
        });
        let Some(status) = status else {
            kill(&mut child);
            ended?;
            return Err(ResourceError::Cut);
        };
        // Somebody whom it began may have the other end still: what is there is read, and nobody is waited for.
        let _ = fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(ResourceError::errno("read"))?;
        let mut said = Vec::new();
        match (&mut reader).take(SAID_BYTES_MAX).read_to_end(&mut said) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed()(error)),
            Ok(_) | Err(_) => {}
        }
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }
}

fn kill(child: &mut Child) {
    if let Err(error) = child.kill() {
        tracing::debug!(%error, "a child");
    }
    reap(child);
}
