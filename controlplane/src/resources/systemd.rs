//! A unit of systemd: started and stopped by `systemctl`, which is found by the search path of this daemon.
//!
//! What runs is in the unit's own cgroup and log. systemd's times of the unit count beside those of the resource.

use std::io::{self, PipeReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use controlplane_core::group::{Manner, Outcome};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::cage::reap;
use super::{Context, Limit, ResourceError};

/// Of what `systemctl` says so much is kept.
const SAID_BYTES_MAX: u64 = 4096;

/// Words for a unit that is started by itself.
const ENABLED: [&str; 2] = ["enabled", "enabled-runtime"];
/// Words for a unit that cannot be started.
const UNLOADABLE: [&str; 4] = ["not-found", "bad-setting", "error", "masked"];
/// Between two questions to a systemd that does not answer, or is busy with the unit.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// A question has so long at most, so that there is time for another one.
const ASK_TIME: Duration = Duration::from_secs(3);

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
    /// It is about to run, perhaps once more.
    Begins,
    /// It is on its way, or systemd says something that is not known here.
    Between,
}

/// What `systemctl` said. What it warns of is no answer.
struct Said {
    status: ExitStatus,
    answer: String,
    warnings: String,
}

impl Systemd {
    pub(super) fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        Ok(match self.state_at_last(&context.limit)? {
            State::Runs => Outcome::Done,
            State::Gone => Outcome::Absent,
            State::Begins | State::Between => Outcome::Failed,
        })
    }

    /// A systemd that executes itself anew does not answer for a moment, and a unit that it starts again runs soon: neither is
    /// a reason to stop what runs.
    fn state_at_last(&self, limit: &Limit) -> Result<State, ResourceError> {
        loop {
            let found = self.state(&limit.within(ASK_TIME)).map(|(state, _)| state);
            let again = matches!(
                found,
                Ok(State::Begins)
                    | Err(ResourceError::Systemctl { .. } | ResourceError::Late { .. })
            );
            if !again || limit.left() <= ASK_AGAIN {
                return found;
            }
            thread::sleep(ASK_AGAIN);
            limit.check()?;
        }
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
        if manner == Manner::Hard && !matches!(self.state(limit), Ok((State::Gone, _))) {
            // In this order: what is killed is not started again meanwhile. There may be nobody left; the stop after it decides.
            let _ = self.run(&["stop", "--no-block"], limit);
            let _ = self.run(&["kill", "--signal=KILL"], limit);
        }
        let stopped = self.succeed(&["stop"], limit);
        // A unit that cannot be loaded is refused, though nothing of it runs: what counts is how it is.
        let gone = self.must_be(State::Gone, limit);
        match (stopped, gone) {
            (_, Ok(())) => Ok(()),
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// What `systemctl` says if it would start the unit by itself; `None` if not, or if nobody says it in time.
    pub fn is_enabled(&self, limit: &Limit) -> Option<String> {
        let said = self.run(&["is-enabled"], limit).ok()?.answer;
        // For a script of System V the word comes last.
        let mut words = said.lines().map(str::trim);
        words
            .find(|word| ENABLED.contains(word))
            .map(str::to_string)
    }

    /// What `systemctl` says if the unit cannot be started; `None` if it can, or if nobody says it in time.
    pub fn is_unloadable(&self, limit: &Limit) -> Option<String> {
        let said = self.ask("LoadState", limit).ok()?;
        said.filter(|word| UNLOADABLE.contains(&word.as_str()))
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
        let word = self.ask("ActiveState", limit)?.unwrap_or_default();
        let state = match &*word {
            "active" | "reloading" | "refreshing" => State::Runs,
            "inactive" | "failed" => State::Gone,
            "activating" => State::Begins,
            _ => State::Between,
        };
        Ok((state, word))
    }

    fn ask(&self, property: &str, limit: &Limit) -> Result<Option<String>, ResourceError> {
        let said = self.succeed(&["show", &format!("--property={property}")], limit)?;
        let value = |line: &str| Some(line.strip_prefix(property)?.strip_prefix('=')?.to_string());
        Ok(said.lines().find_map(|line| value(line.trim())))
    }

    fn succeed(&self, words: &[&str], limit: &Limit) -> Result<String, ResourceError> {
        let said = self.run(words, limit)?;
        if said.status.success() {
            return Ok(said.answer);
        }
        let words_said = [said.warnings, said.answer].join(" ");
        Err(ResourceError::Systemctl {
            command: self.command(words).join(" "),
            status: said.status,
            said: words_said.split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    fn command<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut command = vec!["systemctl"];
        command.extend(words);
        command.extend(["--", &self.unit]);
        command
    }

    /// Runs it to its end, and returns what it said. Who is broken off leaves its job to systemd.
    fn run(&self, words: &[&str], limit: &Limit) -> Result<Said, ResourceError> {
        limit.check()?;
        let command = self.command(words);
        let failed = || ResourceError::io(format!("run {}", command.join(" ")));
        let (answer, stdout) = io::pipe().map_err(failed())?;
        let (warnings, stderr) = io::pipe().map_err(failed())?;
        let mut process = Command::new(command[0]);
        process
            .args(&command[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(stderr)
            .stdout(stdout);
        let mut child = process.spawn().map_err(failed())?;
        // Its ends of the pipes: what is read ends with the child.
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
        Ok(Said {
            status,
            answer: read(answer).map_err(failed())?,
            warnings: read(warnings).map_err(failed())?,
        })
    }
}

/// Somebody whom it began may have the other end still: what is there is read, and nobody is waited for.
fn read(mut pipe: PipeReader) -> io::Result<String> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut said = Vec::new();
    match (&mut pipe).take(SAID_BYTES_MAX).read_to_end(&mut said) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
        Ok(_) | Err(_) => {}
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn kill(child: &mut Child) {
    if let Err(error) = child.kill() {
        tracing::debug!(%error, "a child");
    }
    reap(child);
}
