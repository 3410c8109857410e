//! The log of `lockstepd`: lines go to a thread, which writes them to standard error.
//!
//! Whoever logs never waits. A journal that is stuck would otherwise stop the loop that decides, and with it the signs of life
//! for the watchdog: a healthy machine would be reset because nobody reads its log. What finds no room is dropped and
//! counted, and told once there is room again (LS6137).

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written.
const LINES_MAX: usize = 4096;
/// The end of the process waits so long for what is not written yet.
const END_WAIT: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
    End,
}

/// Of this process, for [`flush`].
static LINES: OnceLock<SyncSender<Item>> = OnceLock::new();

/// Waits until what was logged is written, for a second at most: before this process ends otherwise than by the end of `main`, or
/// becomes another program.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if let Some(lines) = LINES.get()
        && lines.try_send(Item::Flush(done)).is_ok()
    {
        // After that nobody waits for the log.
        let _ = written.recv_timeout(END_WAIT);
    }
}

/// Takes lines, and waits for nobody.
#[derive(Clone, Debug)]
pub struct Lines {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

/// At its end what waits is written, if that takes no longer than a second.
#[derive(Debug)]
pub struct Ending {
    sender: SyncSender<Item>,
    ended: Receiver<()>,
}

/// Begins to write lines to `into`.
///
/// # Errors
/// If there is no thread to be had.
pub fn begin(into: impl Write + Send + 'static) -> io::Result<(Lines, Ending)> {
    let (sender, lines) = sync_channel(LINES_MAX);
    let (done, ended) = sync_channel(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    thread::Builder::new()
        .name("log".to_string())
        .spawn(move || {
            write_all(into, &lines, &counted);
            // Whoever waited may have gone on.
            let _ = done.try_send(());
        })?;
    // The first one is the process's.
    let _ = LINES.set(sender.clone());
    let lines = Lines {
        sender: sender.clone(),
        dropped,
    };
    Ok((lines, Ending { sender, ended }))
}

fn write_all(mut into: impl Write, lines: &Receiver<Item>, dropped: &AtomicU64) {
    while let Ok(item) = lines.recv() {
        // There is nobody to be told of an error.
        match item {
            Item::Line(line) => drop(into.write_all(&line)),
            Item::Flush(done) => drop((into.flush(), done.try_send(()))),
            Item::End => break,
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(code = "LS6137", lost, "lines of the log found no room");
        }
    }
    let _ = into.flush();
}

impl Write for Lines {
    /// One line, as `tracing` writes it: at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
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
        if self.sender.try_send(Item::End).is_ok() {
            match self.ended.recv_timeout(END_WAIT) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    /// Nobody reads it before it is let go.
    struct Stuck(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_tells_what_is_lost() {
        let (go, held) = channel();
        let (told, written) = channel();
        let (mut lines, ending) = begin(Stuck(held, told)).expect("a thread");
        for number in 0..3 * LINES_MAX {
            lines
                .write_all(format!("{number}\n").as_bytes())
                .expect("taken");
        }
        let lost = lines.dropped.load(Ordering::Relaxed);
        let least = u64::try_from(2 * LINES_MAX - 1).expect("small");
        assert!(lost >= least, "{lost}");
        drop(go);
        assert_eq!(written.recv().expect("written"), b"0\n");
        let until = Instant::now() + Duration::from_secs(20);
        while lines.dropped.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < until, "nobody counts");
            thread::yield_now();
        }
        // There is room again.
        assert_eq!(written.iter().take(LINES_MAX - 1).count(), LINES_MAX - 1);
        lines.write_all(b"last\n").expect("taken");
        drop(ending);
        assert_eq!(written.iter().last().expect("written"), b"last\n");
    }
}
