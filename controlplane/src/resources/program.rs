//! A supervised program: what ends is started again, up to a bound; then the group is told.

use std::collections::VecDeque;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use controlplane_core::group::{Manner, Outcome};

use super::cage::{Cage, reap};
use super::mark::{Mark, Phase, ProcessId};
use super::{Context, Environment, Limit, Places, ResourceError};

/// Between two looks at a program.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at its log's length.
const LOG_LOOK: Duration = Duration::from_secs(10);
/// A thread that only looks needs no more.
const STACK_BYTES: usize = 256 * 1024;

/// What was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Program and arguments. It stays in the foreground.
    pub command: Vec<String>,
    /// It counts as started when it has run for so long.
    pub ready: Duration,
    /// It is started again so often within [`Self::restart_interval`].
    pub restarts: usize,
    /// See [`Self::restarts`].
    pub restart_interval: Duration,
}

/// A supervised program.
#[derive(Debug)]
pub struct Program {
    settings: Settings,
    supervisor: Mutex<Option<Supervisor>>,
}

#[derive(Debug)]
struct Supervisor {
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What a supervisor works with.
struct Watch {
    settings: Settings,
    places: Places,
    environment: Environment,
    broke: Arc<dyn Fn(ResourceError) + Send + Sync>,
    end: Arc<AtomicBool>,
}

impl Program {
    /// One that was not looked at yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            supervisor: Mutex::new(None),
        }
    }

    pub(super) fn probe(&self, context: &Context) -> Result<Outcome, ResourceError> {
        let mark = Mark::read(&context.places)?;
        let cage = Cage::of(&context.places);
        let lives = |process: &ProcessId| process.lives();
        match mark {
            None if cage.processes().is_empty() => Ok(Outcome::Absent),
            Some(Mark {
                phase: Phase::Online,
                process,
                ..
            }) if process.as_ref().is_some_and(lives) => {
                self.supervise(context, process, None)?;
                Ok(Outcome::Done)
            }
            None | Some(_) => Ok(Outcome::Failed),
        }
    }

    pub(super) fn start(&self, context: &Context) -> Result<(), ResourceError> {
        self.leave();
        let cage = Cage::of(&context.places);
        cage.kill()?;
        let (child, process) = begin(&cage, &self.settings, context)?;
        self.supervise(context, Some(process), Some(child))
    }

    pub(super) fn stop(&self, manner: Manner, context: &Context) -> Result<(), ResourceError> {
        self.leave();
        let cage = Cage::of(&context.places);
        match manner {
            Manner::Orderly => cage.end(&context.limit.half())?,
            Manner::Hard => cage.kill()?,
        }
        cage.remove();
        Mark::remove(&context.places)
    }

    /// Ends the supervision; the program runs on.
    fn leave(&self) {
        let mut place = self
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(supervisor) = place.take() {
            supervisor.end.store(true, Ordering::Relaxed);
            if supervisor.thread.join().is_err() {
                tracing::error!("a supervisor panicked");
            }
        }
    }

    fn supervise(
        &self,
        context: &Context,
        process: Option<ProcessId>,
        child: Option<Child>,
    ) -> Result<(), ResourceError> {
        self.leave();
        let end = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            settings: self.settings.clone(),
            places: context.places.clone(),
            environment: context.environment.clone(),
            broke: Arc::clone(&context.broke),
            end: Arc::clone(&end),
        };
        let thread = thread::Builder::new()
            .name("program".to_string())
            .stack_size(STACK_BYTES)
            .spawn(move || watch.run(process, child))
            .map_err(ResourceError::io("start a thread"))?;
        let mut place = self
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(Supervisor { end, thread });
        Ok(())
    }
}

/// Begins the program and sees that it stays.
fn begin(
    cage: &Cage,
    settings: &Settings,
    context: &Context,
) -> Result<(Child, ProcessId), ResourceError> {
    Mark::new(Phase::Starting).write(&context.places)?;
    let mut child = cage.spawn(&settings.command, context)?;
    let ready = Instant::now() + settings.ready;
    let mut ended = None;
    let waited = context.limit.wait_until(|| {
        let status = child.try_wait();
        ended = status.map_err(ResourceError::io("wait for a process"))?;
        Ok(ended.is_some() || Instant::now() >= ready)
    });
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let process = ProcessId::of(pid).filter(|_| waited.is_ok() && ended.is_none());
    let Some(process) = process else {
        cage.kill()?;
        reap(&mut child);
        waited?;
        let status = ended.or(child.try_wait().ok().flatten());
        return Err(ResourceError::Command {
            command: settings.command.join(" "),
            status: status.unwrap_or_default(),
            log: context.places.log(),
        });
    };
    let mark = Mark {
        process: Some(process),
        ..Mark::new(Phase::Online)
    };
    mark.write(&context.places)?;
    Ok((child, process))
}

impl Watch {
    fn run(self, mut process: Option<ProcessId>, mut child: Option<Child>) {
        let mut ends: VecDeque<Instant> = VecDeque::new();
        let mut log_look = Instant::now() + LOG_LOOK;
        let mut told = false;
        while !self.end.load(Ordering::Relaxed) {
            thread::sleep(LOOK);
            if Instant::now() >= log_look {
                log_look = Instant::now() + LOG_LOOK;
                self.places.bound_log();
            }
            if let Some(child) = &mut child {
                reap_now(child);
            }
            if process.is_some_and(ProcessId::lives) || self.end.load(Ordering::Relaxed) {
                continue;
            }
            if told {
                continue;
            }
            let now = Instant::now();
            ends.push_back(now);
            let interval = self.settings.restart_interval;
            ends.retain(|at| now.saturating_duration_since(*at) < interval);
            let again = (ends.len() <= self.settings.restarts)
                .then(|| self.again())
                .and_then(Result::ok);
            match again {
                Some((new, begun)) => (process, child) = (Some(begun), Some(new)),
                None if self.end.load(Ordering::Relaxed) => return,
                // A start that failed counts as one more end.
                None if ends.len() <= self.settings.restarts => {}
                None => {
                    told = true;
                    (self.broke)(self.failure(ends.len()));
                }
            }
        }
    }

    fn again(&self) -> Result<(Child, ProcessId), ResourceError> {
        let resource = format!("{}/{}", self.places.group, self.places.resource);
        let code = "LS6050";
        tracing::warn!(code, resource, "the program ended and is started again");
        let context = Context {
            places: self.places.clone(),
            environment: self.environment.clone(),
            limit: Limit::new(self.settings.ready + LOG_LOOK, Arc::clone(&self.end)),
            broke: Arc::clone(&self.broke),
        };
        let cage = Cage::of(&self.places);
        cage.kill()?;
        begin(&cage, &self.settings, &context)
    }

    fn failure(&self, ends: usize) -> ResourceError {
        ResourceError::Restarts {
            command: self.settings.command.join(" "),
            ends,
            within: self.settings.restart_interval,
            log: self.places.log(),
        }
    }
}

fn reap_now(child: &mut Child) {
    if let Err(error) = child.try_wait() {
        tracing::debug!(%error, "a child");
    }
}
