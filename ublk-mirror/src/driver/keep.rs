//! Before a history is discarded, what only this side has is put into a file; then the core is asked once more
//! whether the copy is still what was read, and discards it in the same breath.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use mirror_core::admin::{Command, Keep, KeepStatus, Kept, Refusal};
use mirror_core::limits::COMMANDS_MAX;
use mirror_core::types::{Instant, SECTOR_BYTES};
use mirror_core::volume::Unique;

use super::{Asker, Driver, EXIT_MAX, now};
use crate::admin_server::{outcome_line, problem_line, too_many_line};
use crate::explain::Explain;
use crate::inbox::Answer;
use crate::keep::{self, Job, KeepError, Mounts, Place, Progress, Verdict};

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

impl Driver {
    /// A client's command. One that discards a history waits until its blocks are kept.
    pub(super) fn command(&mut self, command: Command, answer: Answer) {
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
        if let Some(keeping) = &self.keeping {
            let file = keeping.status().file;
            drop(answer.send(problem_line(&KeepError::Busy { file }.problem())));
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
        let mounts = match parts.device {
            Some(_) => Mounts::Machine,
            None => Mounts::Own,
        };
        let started = source.and_then(|source| {
            let job = Job {
                unique: unique.clone(),
                source,
                data_start_bytes: parts.disk.data_start_sectors() * SECTOR_BYTES,
                place,
                at_s: unix_s(),
            };
            keep::start(job, mounts, progress.clone(), parts.inbox.clone())
        });
        if let Err(source) = started {
            let error = KeepError::File {
                action: "read",
                path: "the backing device".into(),
                source,
            };
            drop(answer.send(problem_line(&error.problem())));
            return;
        }
        self.keeping = Some(Keeping {
            unique,
            discard,
            confirm,
            answer,
            progress,
            whole: None,
        });
    }

    /// The thread is done.
    pub(super) fn kept(&mut self, kept: Result<Kept, KeepError>, verdict: SyncSender<Verdict>) {
        // Without one the daemon ends: the file goes, because nobody says that it stays.
        let Some(mut keeping) = self.keeping.take() else {
            return;
        };
        match kept {
            Err(error) => {
                let problem = error.problem();
                tracing::warn!(code = problem.code, "{}", problem.message);
                drop(keeping.answer.send(problem_line(&problem)));
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
                let problem = keep::changed(found.err().as_ref()).problem();
                tracing::warn!(code = problem.code, "{}", problem.message);
                drop(whole.verdict.send(Verdict::Goes {
                    line: problem_line(&problem),
                    answer: keeping.answer,
                }));
            }
        }
    }

    /// The daemon ends.
    pub(super) fn exit(&mut self) {
        self.exit_until = Some(now() + EXIT_MAX);
        if let Some(keeping) = self.keeping.take() {
            keeping.progress.cancel();
            drop(
                keeping
                    .answer
                    .send(problem_line(&KeepError::Cancelled.problem())),
            );
        }
    }
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
