//! The log of a daemon: lines go to a thread, which writes them to standard error.
//!
//! Whoever logs never waits, and never dies of it. A log that is stuck would otherwise stop the thread that carries a
//! volume, or the loop that gives the watchdog its signs of life; one that is full would end the process, and every one that is
//! started in its place. What finds no room, or cannot be written, is dropped and counted, and the count is told in the log as soon
//! as it can be written again.
//!
//! Nothing here takes the lock of [`std::io::stderr`]: the thread would hold it while it is stuck, and a panic would wait
//! for it instead of ending the process.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Lines that wait to be written.
pub const LINES_MAX: usize = 4096;
/// Bytes of lines that wait: the memory of a volume's daemon is locked, and with `trace` a line has a whole payload.
pub const BYTES_MAX: usize = 4 << 20;
/// The end of the process waits so long for what is not written yet.
pub const END_WAIT: Duration = Duration::from_secs(1);
/// Between two tries to tell what was dropped, while nothing else is logged.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for room, at the end of the process.
const ROOM_LOOK: Duration = Duration::from_millis(5);
/// What is told of lines that were dropped.
const DROPPED: &str = "lines of the log found no room";
/// Locked as a whole in a volume's daemon, so not the usual 2 MiB.
const STACK_BYTES: usize = 256 * 1024;

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
    End,
}

/// Of this process, for [`flush`] and [`last_words`].
static LINES: OnceLock<Lines> = OnceLock::new();

thread_local! {
    /// What this thread logs is in the log already.
    static WRITTEN: Cell<bool> = const { Cell::new(false) };
}

/// Standard error, without the lock of [`std::io::stderr`].
///
/// # Errors
/// There is none, or no descriptor to be had.
pub fn standard_error() -> io::Result<File> {
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Waits until what was logged is written, for [`END_WAIT`] at most: before this process ends otherwise than by the end of
/// `main`, or becomes another program.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush_until(Instant::now() + END_WAIT);
    }
}

/// What says why the process ends, each line as it stands, and everything before it. Waits for [`END_WAIT`] at most. Without a
/// log that has begun it goes to standard error at once.
pub fn last_words(words: &str) {
    let text = format!("{words}\n");
    let Some(lines) = LINES.get() else {
        // There is nobody to be told of an error.
        drop(standard_error().and_then(|mut error| error.write_all(text.as_bytes())));
        return;
    };
    let until = lines.ends_by();
    lines.put_until(Item::Line(text.into_bytes()), until);
    lines.flush_until(until);
}

/// From now on a panic is told like other [`last_words`]. The usual way waits for a log that is stuck.
pub fn tell_panics(program: &'static str) {
    panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::capture();
        let mut words = format!("{program}: thread {name:?} {info}");
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            words = format!("{words}\n{trace}");
        }
        last_words(&words);
    }));
}

/// Takes lines, and waits for nobody.
#[derive(Clone, Debug)]
pub struct Lines {
    sender: SyncSender<Item>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that nobody will read; not yet told.
    dropped: AtomicU64,
    /// Of the lines that wait.
    bytes: AtomicUsize,
    /// Nobody waits longer than that, once the end has begun.
    ends_by: OnceLock<Instant>,
}

/// At its end what waits is written, if that takes no longer than [`END_WAIT`], [`last_words`] included.
#[derive(Debug)]
pub struct Ending {
    lines: Lines,
    ended: Receiver<()>,
}

/// Begins to write lines to `into`, in a thread that does `first` before that. What was dropped is told with `code`, whatever of the
/// log is wanted; other layers than the log's hear of it when its line is written.
///
/// # Errors
/// If there is no thread to be had.
pub fn begin(
    into: impl Write + Send + 'static,
    code: &'static str,
    first: impl FnOnce() + Send + 'static,
) -> io::Result<(Lines, Ending)> {
    let (sender, waiting) = sync_channel(LINES_MAX);
    let (done, ended) = sync_channel(1);
    let counts = Arc::new(Counts::default());
    let writer = Writer {
        into,
        code,
        counts: Arc::clone(&counts),
        torn: false,
    };
    thread::Builder::new()
        .name("log".to_string())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            first();
            writer.run(&waiting);
            // Whoever waited may have gone on.
            let _ = done.try_send(());
        })?;
    let lines = Lines { sender, counts };
    // The first one is the process's.
    let _ = LINES.set(lines.clone());
    let ending = Ending {
        lines: lines.clone(),
        ended,
    };
    Ok((lines, ending))
}

struct Writer<W> {
    into: W,
    code: &'static str,
    counts: Arc<Counts>,
    /// The last line was written in part.
    torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self, waiting: &Receiver<Item>) {
        loop {
            match self.next(waiting) {
                Ok(Item::Line(line)) => {
                    let written = self.write(&line);
                    self.counts.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    match written {
                        Ok(()) => self.tell_dropped(),
                        Err(_) => drop(self.counts.dropped.fetch_add(1, Ordering::Relaxed)),
                    }
                }
                // There is nobody to be told of an error.
                Ok(Item::Flush(done)) => drop((self.into.flush(), done.try_send(()))),
                Err(RecvTimeoutError::Timeout) => self.tell_dropped(),
                Ok(Item::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.tell_dropped();
        let _ = self.into.flush();
    }

    /// The next one, or the time to tell what was dropped.
    fn next(&self, waiting: &Receiver<Item>) -> Result<Item, RecvTimeoutError> {
        if self.counts.dropped.load(Ordering::Relaxed) > 0 {
            waiting.recv_timeout(TELL_EVERY)
        } else {
            waiting.recv().map_err(|_| RecvTimeoutError::Disconnected)
        }
    }

    /// Whole, and at the beginning of a line. What failed in the middle is not gone on with: a line is lost then, not two.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.into.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.into.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Each loss once: a log that stays full is tried again and again, and nobody hears of that.
    fn tell_dropped(&mut self) {
        let lost = self.counts.dropped.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let code = self.code;
        if self.write(dropped_line(code, lost).as_bytes()).is_err() {
            self.counts.dropped.fetch_add(lost, Ordering::Relaxed);
            return;
        }
        // For the other layers.
        WRITTEN.set(true);
        tracing::warn!(code, lost, "{DROPPED}");
        WRITTEN.set(false);
    }
}

/// As `tracing_subscriber` writes it without colours. It is made here because nobody may hear of it before it is written.
fn dropped_line(code: &str, lost: u64) -> String {
    let mut line = String::new();
    // Without the time if there is none to be had.
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut line));
    let target = module_path!();
    line.push_str(&format!(
        "  WARN {target}: {DROPPED} code={code:?} lost={lost}\n"
    ));
    line
}

impl Lines {
    /// The end of the process begins now, if it has not begun.
    fn ends_by(&self) -> Instant {
        *self
            .counts
            .ends_by
            .get_or_init(|| Instant::now() + END_WAIT)
    }

    /// Gives it back if there is no room.
    fn put(&self, item: Item) -> Result<(), Item> {
        let bytes = match &item {
            Item::Line(line) => line.len(),
            Item::Flush(_) | Item::End => 0,
        };
        let before = self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        let put = if bytes > 0 && before.saturating_add(bytes) > BYTES_MAX {
            Err(item)
        } else {
            self.sender.try_send(item).map_err(|error| match error {
                TrySendError::Full(item) | TrySendError::Disconnected(item) => item,
            })
        };
        if put.is_err() {
            self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        put
    }

    /// Whether there was room in time. At the end of the process alone: everybody else drops it.
    fn put_until(&self, mut item: Item, until: Instant) -> bool {
        while let Err(back) = self.put(item) {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(ROOM_LOOK);
            item = back;
        }
        true
    }

    fn flush_until(&self, until: Instant) {
        let (done, written) = sync_channel(1);
        if self.put_until(Item::Flush(done), until) {
            // After that nobody waits for the log.
            let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl Write for Lines {
    /// One line, as `tracing` writes it: at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A thread that ends has none any more.
        let written = WRITTEN.try_with(Cell::get).unwrap_or(false);
        if !written && self.put(Item::Line(line.to_vec())).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let until = self.lines.ends_by();
        if self.lines.put_until(Item::End, until) {
            let left = until.saturating_duration_since(Instant::now());
            match self.ended.recv_timeout(left) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
