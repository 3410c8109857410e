//! What happened on this node: every line of the log that has a code, kept in memory for whoever asks, and in a file that
//! outlives restarts and reboots.
//!
//! Whoever logs never waits: a line goes into a bounded queue, or is dropped and counted (LS6160). One thread numbers the
//! events and keeps the newest in memory; another one writes them down ([`kept`]), so that a disk that hangs keeps nobody
//! from reading what happened since.

mod kept;
mod layer;
mod ring;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use controlplane_api::events::{Event, Page, Query};
use tokio::sync::watch;

use kept::{Entry, Kept};
pub use layer::Layer;
use layer::Noted;
use ring::Ring;
pub use ring::{EVENTS_MAX, MEMORY_BYTES_MAX};

/// Events that wait to be numbered, and to be written down.
const WAITING_MAX: usize = 1024;
/// The end of the process waits so long for what is not written yet.
const END_WAIT: Duration = Duration::from_secs(1);
/// What a thread needs; this process holds its memory locked.
const STACK_BYTES: usize = 256 * 1024;
/// The file's name, in the state directory.
pub const FILE: &str = "events.log";

enum Item {
    Event(Box<Noted>),
    Flush(SyncSender<()>),
}

/// Of this process, for [`flush`].
static ITEMS: OnceLock<SyncSender<Item>> = OnceLock::new();

/// Waits until what happened is written down, for a second at most: before this process ends, or becomes another program.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if let Some(items) = ITEMS.get()
        && items.try_send(Item::Flush(done)).is_ok()
    {
        // After that nobody waits for the record.
        let _ = written.recv_timeout(END_WAIT);
    }
}

/// The part that takes lines, for the subscriber, and the part that keeps them, to be started.
pub fn begin() -> (Layer, Collector) {
    let (sender, items) = sync_channel(WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let layer = Layer::new(sender.clone(), Arc::clone(&dropped));
    let collector = Collector {
        sender,
        items,
        dropped,
    };
    (layer, collector)
}

/// What waits, until somebody collects it. A process that keeps nothing drops it.
pub struct Collector {
    sender: SyncSender<Item>,
    items: Receiver<Item>,
    dropped: Arc<AtomicU64>,
}

impl Collector {
    /// Begins to keep what happens, as this node's, in memory and in this file.
    ///
    /// # Errors
    /// If there are no threads to be had.
    pub fn start(self, node: &str, path: &Path) -> io::Result<Log> {
        let log = Log::new(node);
        let (sender, entries) = sync_channel(WAITING_MAX);
        let unwritten = Arc::new(AtomicU64::new(0));
        let kept = Kept::at(path, Arc::clone(&unwritten));
        let read = log.clone();
        spawn("events-file", move || kept.keep(&entries, &read))?;
        let numbered = Numbered {
            log: log.clone(),
            sender,
            unwritten,
        };
        let Self {
            sender,
            items,
            dropped,
        } = self;
        spawn("events", move || numbered.collect(&items, &dropped))?;
        // The first one is the process's.
        let _ = ITEMS.set(sender);
        Ok(log)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_string());
    thread.stack_size(STACK_BYTES).spawn(work).map(drop)
}

/// The thread that numbers.
struct Numbered {
    log: Log,
    sender: SyncSender<Entry>,
    /// What the file did not get.
    unwritten: Arc<AtomicU64>,
}

impl Numbered {
    fn collect(&self, items: &Receiver<Item>, dropped: &AtomicU64) {
        while let Ok(item) = items.recv() {
            let entry = match item {
                Item::Event(noted) => Entry::Event(self.log.add(*noted)),
                Item::Flush(done) => Entry::Flush(done),
            };
            match self.sender.try_send(entry) {
                Err(TrySendError::Full(Entry::Event(_))) => {
                    self.unwritten.fetch_add(1, Ordering::Relaxed);
                }
                // Who waits for it is answered by that.
                Err(TrySendError::Full(Entry::Flush(_)) | TrySendError::Disconnected(_))
                | Ok(()) => {}
            }
            let lost = dropped.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!(
                    code = "LS6160",
                    lost,
                    "events found no room, and are in no record"
                );
            }
        }
    }
}

/// What is kept in memory, for whoever asks.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: String,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl Log {
    fn new(node: &str) -> Self {
        let inner = Inner {
            node: node.to_string(),
            ring: Mutex::new(Ring::default()),
            newest: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Only those who read and the thread that numbers meet here: nobody who logs.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        let ring = self.inner.ring.lock();
        ring.unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, noted: Noted) -> Arc<Event> {
        let mut ring = self.ring();
        let event = Arc::new(noted.numbered(&self.inner.node, ring.newest()));
        ring.push(Arc::clone(&event));
        drop(ring);
        self.inner.newest.send_replace(event.number);
        event
    }

    /// What earlier runs wrote down, the oldest first.
    fn remember(&self, earlier: Vec<Event>) {
        let mut ring = self.ring();
        ring.remember(earlier);
        let newest = ring.newest();
        drop(ring);
        self.inner.newest.send_replace(newest);
    }

    /// The newest of what is asked for, so many bytes at most. Meets the thread that numbers for a moment; not for the loop
    /// that decides.
    pub fn page(&self, query: &Query, bytes_max: usize) -> Page {
        let (events, left_out, newest, oldest_ms) = {
            let ring = self.ring();
            let (events, left_out) = ring.newest_of(query, bytes_max);
            (events, left_out, ring.newest(), ring.oldest_ms())
        };
        Page {
            node: self.inner.node.clone(),
            events: events.iter().map(|event| Event::clone(event)).collect(),
            left_out,
            newest,
            oldest_ms,
            now_ms: unix_ms(SystemTime::now()),
        }
    }

    /// Waits until there is an event above `after`, so long at most.
    pub async fn wait(&self, after: u64, limit: Duration) {
        let mut newest = self.inner.newest.subscribe();
        let above = newest.wait_for(|newest| *newest > after);
        // Whether there is one is seen afterwards.
        let _ = tokio::time::timeout(limit, above).await;
    }
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
