//! The file in which events outlive a restart and a reboot: `events.log`, and `events.log.1`, which it becomes when it is full.
//!
//! A line is `LSE1`, the CRC32C of what follows the next space, and the event as JSON. What is not whole, or of another
//! release, is nothing. A thread of its own writes and flushes; a disk that is full or hangs loses events in the file alone,
//! and that is told once (LS6161).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use controlplane_api::events::Event;
use mirror_core::checksum::crc32c;

use super::Log;

/// A file has no more than that; there are two.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// No line is longer: JSON doubles at most.
const LINE_BYTES_MAX: u64 = 8 * 1024;
/// What was written is flushed after so long.
const SYNC_AFTER: Duration = Duration::from_secs(2);
/// A file that could not be written is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const MARK: &str = "LSE1";

/// What waits to be written down.
pub(super) enum Entry {
    Event(Arc<Event>),
    Flush(SyncSender<()>),
}

/// The files.
pub(super) struct Kept {
    path: PathBuf,
    open: Option<Open>,
    /// Since when nothing can be written, or when that was tried last.
    failed: Option<Instant>,
    /// What is in no file since then.
    unwritten: Arc<AtomicU64>,
}

struct Open {
    file: File,
    bytes: u64,
    /// Since when there is something that is not flushed.
    dirty: Option<Instant>,
}

impl Kept {
    /// In this file and the one beside it. Nothing is opened yet.
    pub(super) fn at(path: &Path, unwritten: Arc<AtomicU64>) -> Self {
        Self {
            path: path.to_path_buf(),
            open: None,
            failed: None,
            unwritten,
        }
    }

    fn before(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".1");
        name.into()
    }

    /// Reads what earlier runs wrote down, and then writes for ever.
    pub(super) fn keep(mut self, entries: &Receiver<Entry>, log: &Log) {
        log.remember(self.load());
        loop {
            match entries.recv_timeout(SYNC_AFTER) {
                Ok(Entry::Event(event)) => self.write(&event),
                Ok(Entry::Flush(done)) => {
                    self.sync();
                    // Who waited may have gone on.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let is_due = |open: &Open| open.dirty.is_some_and(|at| at.elapsed() >= SYNC_AFTER);
            if self.open.as_ref().is_some_and(is_due) {
                self.sync();
            }
        }
    }

    /// What is in the files, the oldest first.
    pub(super) fn load(&self) -> Vec<Event> {
        let files = [self.before(), self.path.clone()];
        files.iter().flat_map(|path| read(path)).collect()
    }

    pub(super) fn write(&mut self, event: &Event) {
        if self.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line = line(event);
        let written = self.append(line.as_bytes());
        if written.is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(written);
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        // What fails in the middle is opened anew, and its torn line cut off then.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        if open.bytes > 0 && open.bytes + length > FILE_BYTES_MAX {
            open.file.sync_data()?;
            fs::rename(&self.path, self.before())?;
            open = Open::at(&self.path)?;
        }
        open.file.write_all(line)?;
        open.bytes += length;
        open.dirty = open.dirty.or(Some(Instant::now()));
        self.open = Some(open);
        Ok(())
    }

    fn sync(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.dirty.is_some()) else {
            return;
        };
        open.dirty = None;
        let synced = open.file.sync_data();
        if synced.is_err() {
            self.open = None;
        }
        self.tell(synced);
    }

    /// A failure is told once, until something could be written again.
    fn tell(&mut self, done: io::Result<()>) {
        match done {
            Ok(())
                if self.failed.take().is_some() || self.unwritten.load(Ordering::Relaxed) > 0 =>
            {
                let lost = self.unwritten.swap(0, Ordering::Relaxed);
                tracing::info!(code = "LS6161", lost, "events are written down again");
            }
            Ok(()) => {}
            Err(error) => {
                if self.failed.replace(Instant::now()).is_none() {
                    let path = self.path.display().to_string();
                    tracing::warn!(code = "LS6161", path, %error, "events cannot be written down: they are kept in memory alone");
                }
            }
        }
    }
}

impl Open {
    /// To write at the end of the last whole line.
    fn at(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = length;
        if length > 0 {
            let begin = length.saturating_sub(LINE_BYTES_MAX);
            let mut tail = Vec::new();
            file.seek(SeekFrom::Start(begin))?;
            (&mut file).take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
            match tail.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => {
                    let kept = u64::try_from(last + 1).unwrap_or(u64::MAX);
                    bytes = begin.saturating_add(kept);
                    if bytes < length {
                        file.set_len(bytes)?;
                    }
                }
                None if begin == 0 => {
                    file.set_len(0)?;
                    bytes = 0;
                }
                // Nothing of ours: it becomes the file before.
                None => bytes = length.max(FILE_BYTES_MAX),
            }
            file.seek(SeekFrom::End(0))?;
        }
        Ok(Self {
            file,
            bytes,
            dirty: None,
        })
    }
}

/// An event as a line.
pub(super) fn line(event: &Event) -> String {
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("{MARK} {:08x} {json}\n", crc32c(json.as_bytes()))
}

/// The events of a file; nothing if it cannot be read.
fn read(path: &Path) -> Vec<Event> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes));
    // What has no end was torn, and is cut off when the next one is written.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n');
    bytes.truncate(whole.filter(|_| read.is_ok()).unwrap_or(0));
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect()
}

fn parse(line: &[u8]) -> Option<Event> {
    let line = std::str::from_utf8(line).ok()?;
    let (sum, json) = line
        .strip_prefix(MARK)?
        .strip_prefix(' ')?
        .split_once(' ')?;
    let sum = u32::from_str_radix(sum, 16).ok()?;
    let event: Event = (sum == crc32c(json.as_bytes()))
        .then(|| serde_json::from_str(json).ok())
        .flatten()?;
    Some(event)
}
