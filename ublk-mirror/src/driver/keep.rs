//! Before a history is discarded, what only this side has is put into a file; then the core is asked once more
//! whether the copy is still what was read, and discards it in the same breath.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, SystemTime};

use mirror_core::admin::{Command, Keep, KeepStatus, Kept, Refusal};
use mirror_core::limits::COMMANDS_MAX;
use mirror_core::types::{Instant, SECTOR_BYTES};
use mirror_core::volume::Unique;

use super::{Asker, Driver, EXIT_MAX, now};
use crate::admin_server::{outcome_line, problem_line, too_many_line};
use crate::explain::Explain;
use crate::front::Front;
use crate::inbox::{Answer, Message};
use crate::keep::{self, Job, KeepError, Mounts, PARTIAL_SUFFIX, Place, Progress, Source, Verdict};

/// The nodes meet now and then, for a moment; after a long copy that is waited for.
const MEETING_MAX: Duration = Duration::from_secs(30);
const MEETING_PAUSE: Duration = Duration::from_millis(20);

/// Blocks are being kept, or were, and the discard is about to begin.
#[derive(Debug)]
pub(super) struct Keeping {
    unique: Unique,
    discard: String,
    confirm: String,
    answer: Answer,
    progress: Arc<Progress>,
    source: Arc<Source>,
    whole: Option<Whole>,
}

/// The file is whole and durable.
#[derive(Debug)]
struct Whole {
    kept: Kept,
    verdict: SyncSender<Verdict>,
    until: Instant,
}

impl Keeping {
    pub(super) fn status(&self) -> KeepStatus {
        self.progress.status()
    }
}

impl<F: Front> Driver<F> {
    /// A client's command. One that discards a history waits until its blocks are kept.
    pub(super) fn command(&mut self, command: Command, answer: Answer) {
        let decides = matches!(command, Command::Resolve { .. } | Command::Force { .. });
        if decides && let Some(file) = self.kept_in() {
            // Also without keeping anything: the first word's client is told that nothing else was discarded.
            drop(answer.send(problem_line(&KeepError::Busy { file }.problem())));
            return;
        }
        let Command::Resolve {
            discard,
            confirm,
            keep,
        } = &command
        else {
            return self.operator(command, Asker::Client(answer));
        };
        let place = match keep {
            Keep::No => return self.operator(command, Asker::Client(answer)),
            Keep::Usual => Place::Directory(self.parts.discarded_dir.clone()),
            Keep::File(path) => Place::File(path.into()),
        };
        if self.askers.len() >= COMMANDS_MAX {
            drop(answer.send(too_many_line()));
            return;
        }
        match self.parts.volume.to_be_discarded(discard, confirm) {
            Err(refusal) => drop(answer.send(outcome_line(&Err(refusal)))),
            Ok(unique) => {
                let words = (discard.clone(), confirm.clone());
                self.begin_keeping(unique, place, words, answer);
            }
        }
    }

    /// The file of a thread that still works on it.
    fn kept_in(&self) -> Option<String> {
        let going = self.going.as_ref().filter(|_| self.is_going());
        let progress = self.keeping.as_ref().map(|keeping| &keeping.progress);
        progress.or(going).map(|progress| progress.status().file)
    }

    fn is_going(&self) -> bool {
        let going = self.going.as_ref();
        going.is_some_and(|progress| !progress.is_over())
    }

    fn begin_keeping(
        &mut self,
        unique: Unique,
        place: Place,
        (discard, confirm): (String, String),
        answer: Answer,
    ) {
        let parts = &self.parts;
        let progress = Arc::new(Progress::of(&unique));
        let source = parts.claims.first().map_or_else(
            || Err(std::io::ErrorKind::NotFound.into()),
            |claim| claim.file().try_clone(),
        );
        let source = source.map(|file| Arc::new(Source::new(file)));
        let mounts = match parts.device {
            Some(_) => Mounts::Machine,
            None => Mounts::Own,
        };
        let started = source.and_then(|source| {
            let job = Job {
                unique: unique.clone(),
                source: source.clone(),
                data_start_bytes: parts.disk.data_start_sectors() * SECTOR_BYTES,
                place,
                at_s: unix_s(),
            };
            keep::start(job, mounts, progress.clone(), parts.inbox.clone())?;
            Ok(source)
        });
        let source = match started {
            Ok(source) => source,
            Err(source) => {
                let error = KeepError::File {
                    action: "read",
                    path: "the backing device".into(),
                    source,
                };
                drop(answer.send(problem_line(&error.problem())));
                return;
            }
        };
        self.keeping = Some(Keeping {
            unique,
            discard,
            confirm,
            answer,
            progress,
            source,
            whole: None,
        });
    }

    /// The thread is done.
    pub(super) fn kept(&mut self, kept: Result<Kept, KeepError>, verdict: SyncSender<Verdict>) {
        // Without one the daemon ended meanwhile: the file goes, because nobody says that it stays.
        let Some(mut keeping) = self.keeping.take() else {
            return;
        };
        match kept {
            Err(error) => {
                let problem = error.problem();
                tracing::warn!(code = problem.code, "{}", problem.message);
                drop(keeping.answer.send(problem_line(&problem)));
            }
            Ok(_) if self.exit_until.is_some() => {
                self.send_away(keeping, &verdict, &KeepError::Cancelled);
            }
            Ok(kept) => {
                keeping.whole = Some(Whole {
                    kept,
                    verdict,
                    until: now() + MEETING_MAX,
                });
                self.keeping = Some(keeping);
                self.discard_what_was_kept();
            }
        }
    }

    pub(super) fn keeping_due(&self) -> Option<Instant> {
        if self.exit_until.is_some() && self.is_going() {
            return Some(now() + MEETING_PAUSE);
        }
        let whole = self.keeping.as_ref()?.whole.as_ref();
        whole.map(|_| now() + MEETING_PAUSE)
    }

    /// Everything is in the file: if the copy is still what was read, its history is discarded.
    pub(super) fn discard_what_was_kept(&mut self) {
        let Some(mut keeping) = self.keeping.take() else {
            return;
        };
        let Some(whole) = keeping.whole.take() else {
            self.keeping = Some(keeping);
            return;
        };
        let found = if self.askers.len() >= COMMANDS_MAX {
            Err(Refusal::Busy)
        } else {
            let volume = &self.parts.volume;
            volume.to_be_discarded(&keeping.discard, &keeping.confirm)
        };
        match found {
            Err(Refusal::Busy) if now() < whole.until => {
                keeping.whole = Some(whole);
                self.keeping = Some(keeping);
            }
            Ok(unique) if unique == keeping.unique => {
                let Kept {
                    file,
                    kept_bytes,
                    data_bytes,
                } = &whole.kept;
                tracing::info!(
                    code = "LS2073",
                    file,
                    kept_bytes,
                    data_bytes,
                    "the blocks that only this side has are kept; its history is discarded now"
                );
                // First: whatever happens from here on, nobody may take the file away.
                drop(whole.verdict.send(Verdict::Stays));
                let command = Command::Resolve {
                    discard: keeping.discard,
                    confirm: keeping.confirm,
                    keep: Keep::No,
                };
                self.operator(command, Asker::Resolver(keeping.answer, whole.kept));
            }
            found => {
                let error = keep::changed(found.err().as_ref());
                self.send_away(keeping, &whole.verdict, &error);
            }
        }
    }

    /// The file is whole, and nothing is discarded: the thread removes it, and answers then.
    fn send_away(&mut self, keeping: Keeping, verdict: &SyncSender<Verdict>, error: &KeepError) {
        let problem = error.problem();
        tracing::warn!(code = problem.code, "{}", problem.message);
        let (answer, line) = (keeping.answer, problem_line(&problem));
        drop(verdict.send(Verdict::Goes { answer, line }));
        self.going = Some(keeping.progress);
    }

    /// The daemon ends. What the thread is at shall be gone before.
    pub(super) fn exit(&mut self) {
        self.exit_until = Some(now() + EXIT_MAX);
        let Some(mut keeping) = self.keeping.take() else {
            return;
        };
        keeping.progress.cancel();
        keeping.source.close();
        match keeping.whole.take() {
            Some(whole) => self.send_away(keeping, &whole.verdict, &KeepError::Cancelled),
            None => self.keeping = Some(keeping),
        }
    }

    /// Whether no file is being written or removed.
    pub(super) fn keeps_nothing(&self) -> bool {
        self.keeping.is_none() && !self.is_going()
    }

    /// The daemon does not wait any longer: what the thread said is heard, and what it leaves behind is told.
    pub(super) fn end_keeping(&mut self) {
        for asker in self.askers.values() {
            if let Asker::Resolver(_, kept) = asker {
                tracing::warn!(
                    code = "LS2074",
                    path = kept.file,
                    advice = "look at `lockstep volume resolve NAME` when the daemon runs again; remove the file by \
                              hand only if this side was not discarded",
                    "the daemon ends before it knows that what is in this file was discarded; the file stays"
                );
            }
        }
        if self.keeps_nothing() {
            return;
        }
        self.hear_of_kept();
        if let Some(keeping) = self.keeping.take() {
            let problem = KeepError::Cancelled.problem();
            drop(keeping.answer.send(problem_line(&problem)));
            self.going = Some(keeping.progress);
        }
        let until = now() + EXIT_MAX;
        while now() < until && (self.is_going() || !self.parts.unanswered.none()) {
            thread::sleep(MEETING_PAUSE);
            self.hear_of_kept();
        }
        let going = self.going.take();
        let Some(going) = going.filter(|progress| !progress.is_over()) else {
            return;
        };
        let path = going.status().file;
        if !path.is_empty() {
            tracing::warn!(
                code = "LS2074",
                path,
                advice = format!("remove it by hand; it may be called {path}{PARTIAL_SUFFIX}"),
                "a file of blocks may be left over, and nothing was discarded"
            );
        }
    }

    /// Only that: everything else in the inbox comes too late.
    fn hear_of_kept(&mut self) {
        while let Some(message) = self.parts.inbox.take() {
            if let Message::Kept(kept, verdict) = message {
                self.kept(kept, verdict);
            }
        }
    }
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
