//! What only the discarded side of a split brain has is read and put into a file, in a thread of its own.
//!
//! The file grows under a temporary name and gets its own when all of it is durable. Only then does the owner
//! thread hear of it, and may discard. Whoever finds the temporary name knows that nothing was discarded.

mod file;
mod source;
mod target;
mod walk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mirror_core::admin::{KeepStatus, Kept, Refusal};
use mirror_core::volume::Unique;
use thiserror::Error;

use crate::buffers::BufferError;
use crate::explain::Explain;
use crate::inbox::{Answer, Inbox, Message};
use crate::sys;

use file::keep;
pub use source::Source;
pub use target::PARTIAL_SUFFIX;
use target::Target;

/// Checksums need more than other threads do.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Why the blocks were not kept. Nothing was discarded.
#[derive(Debug, Error)]
pub enum KeepError {
    #[error(
        "no room to keep what only this side has: {needed_bytes} bytes are needed in {} and {free_bytes} are free, of \
         which {left_bytes} are left to others; nothing was discarded", .directory.display()
    )]
    NoRoom {
        needed_bytes: u64,
        free_bytes: u64,
        left_bytes: u64,
        directory: PathBuf,
    },
    #[error("this side changed while its blocks were kept ({why}); nothing was discarded")]
    Changed { why: String },
    #[error("the daemon ends while blocks are kept; nothing was discarded")]
    Cancelled,
    #[error("blocks are being kept already, in {file}; nothing was discarded by this word")]
    Busy { file: String },
    #[error("cannot {action} {}; nothing was discarded", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot keep blocks in {}: {why}; nothing was discarded", .path.display())]
    Place { path: PathBuf, why: &'static str },
    #[error(
        "the copy here cannot be read at {offset_bytes} of the volume, to keep it; nothing was discarded"
    )]
    Read {
        offset_bytes: u64,
        #[source]
        source: io::Error,
    },
    #[error("no memory to keep blocks; nothing was discarded")]
    Buffer(#[from] BufferError),
}

impl Explain for KeepError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "LS1077",
            Self::Changed { .. } | Self::Cancelled | Self::Busy { .. } => "LS1078",
            Self::File { .. } | Self::Place { .. } | Self::Buffer(_) => "LS1079",
            Self::Read { .. } => "LS3046",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::NoRoom { .. } => "name a place with more room with `--keep FILE`, or lose these blocks with `--no-keep`",
            Self::Changed { .. } | Self::Cancelled => {
                "look at `lockstep volume resolve NAME`, decide again, then repeat the command"
            }
            Self::Busy { .. } => "wait for it; `lockstep volume status NAME --json` shows how far it is",
            Self::File { .. } | Self::Place { .. } | Self::Buffer(_) => {
                "name another place with `--keep FILE` (an absolute path that does not exist yet), or lose these blocks with `--no-keep`"
            }
            Self::Read { .. } => {
                "look at the kernel's log: the disk may be failing; `--no-keep` discards without keeping anything"
            }
        }
        .into()
    }
}

/// Where the file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into this directory, which is made if it is missing, under a name with the time.
    Directory(PathBuf),
    /// This file, which does not exist yet.
    File(PathBuf),
}

/// What is to be kept.
#[derive(Debug)]
pub struct Job {
    /// Which blocks.
    pub unique: Unique,
    /// The backing device.
    pub source: Arc<Source>,
    /// Where the volume begins there.
    pub data_start_bytes: u64,
    /// Where the file goes.
    pub place: Place,
    /// Seconds since 1970.
    pub at_s: u64,
}

/// How far it is; shared with the owner thread.
#[derive(Debug, Default)]
pub struct Progress {
    done_bytes: AtomicU64,
    total_bytes: u64,
    file: Mutex<String>,
    cancelled: AtomicBool,
    over: AtomicBool,
}

impl Progress {
    pub fn of(unique: &Unique) -> Progress {
        Progress {
            total_bytes: unique.header.marked_bytes,
            ..Progress::default()
        }
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether the thread is done with the file: it stays, or is gone.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub fn status(&self) -> KeepStatus {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        KeepStatus {
            file: file.clone(),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes,
        }
    }

    fn name(&self, path: &Path) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = path.display().to_string();
    }

    fn begin(&self) {
        self.done_bytes.store(0, Ordering::Relaxed);
    }

    /// So much more was read; an end of the daemon is heard of here.
    fn note(&self, bytes: u64) -> Result<(), KeepError> {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.cancelled.load(Ordering::Acquire) {
            return Err(KeepError::Cancelled);
        }
        Ok(())
    }
}

/// What becomes of a file that is whole. No word at all: the daemon ends, and nothing was discarded.
#[derive(Debug)]
pub enum Verdict {
    /// The history is about to be discarded.
    Stays,
    /// Nothing was discarded: it goes, then this is answered.
    Goes { answer: Answer, line: String },
}

/// Which mounts the thread sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// Those of the process.
    Own,
    /// Those of the machine, which the process has left.
    Machine,
}

/// Begins. The outcome comes as [`Message::Kept`].
///
/// # Errors
/// There is no thread.
pub fn start(
    job: Job,
    mounts: Mounts,
    progress: Arc<Progress>,
    inbox: Arc<Inbox>,
) -> io::Result<()> {
    let run = move || {
        let kept = match mounts {
            Mounts::Own => Ok(()),
            Mounts::Machine => sys::see_the_machines_mounts().map_err(|source| KeepError::File {
                action: "see the mounts of this machine at",
                path: "/proc/1/ns/mnt".into(),
                source,
            }),
        };
        let kept = kept.and_then(|()| keep(&job, &progress));
        job.source.close();
        report(kept, &progress, &inbox);
    };
    thread::Builder::new()
        .name("keep".into())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
}

fn report(kept: Result<(Kept, Target), KeepError>, progress: &Progress, inbox: &Inbox) {
    let (kept, target) = match kept {
        Ok((kept, target)) => (Ok(kept), Some(target)),
        Err(error) => (Err(error), None),
    };
    let (sender, verdict) = sync_channel(1);
    inbox.put_when_there_is_room(Message::Kept(kept, sender));
    let verdict = verdict.recv();
    if !matches!(verdict, Ok(Verdict::Stays))
        && let Some(target) = &target
    {
        target.remove();
    }
    progress.over.store(true, Ordering::Release);
    if let Ok(Verdict::Goes { answer, line }) = verdict {
        drop(answer.send(line));
    }
}

/// Why what was kept is not what the copy is now.
pub fn changed(refusal: Option<&Refusal>) -> KeepError {
    let why = match refusal {
        Some(refusal) => refusal.problem().message,
        None => "its view or its marks are other ones now".into(),
    };
    KeepError::Changed { why }
}
