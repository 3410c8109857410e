//! The backing device, as long as it is read. Whoever holds its descriptor holds up the end of its protection.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use super::KeepError;

/// A descriptor that one thread reads, and any may close.
#[derive(Debug)]
pub struct Source {
    /// Locked while it is read.
    file: Mutex<Option<File>>,
    closed: AtomicBool,
}

impl Source {
    pub fn new(file: File) -> Source {
        Source {
            file: Mutex::new(Some(file)),
            closed: AtomicBool::new(false),
        }
    }

    /// Reads at that place of the device, which is `offset_bytes` of the volume.
    pub(super) fn read(
        &self,
        bytes: &mut [u8],
        place: u64,
        offset_bytes: u64,
    ) -> Result<(), KeepError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match file.as_ref() {
            Some(file) if !self.closed.load(Ordering::SeqCst) => file.read_exact_at(bytes, place),
            Some(_) | None => return Err(KeepError::Cancelled),
        };
        drop(file);
        // It was closed while it was read: that had to wait, and nobody else comes back to it.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
        read.map_err(|source| KeepError::Read {
            offset_bytes,
            source,
        })
    }

    /// Nothing more is read. Never waits: a read that is under way closes it at its end.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        match self.file.try_lock() {
            Ok(mut file) => drop(file.take()),
            Err(TryLockError::Poisoned(file)) => drop(file.into_inner().take()),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    // A test that cannot go on panics.
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_source_that_is_closed_holds_nothing_and_is_read_no_more() {
        let path = std::env::temp_dir().join(format!("lockstep-source-{}", std::process::id()));
        std::fs::write(&path, [7; 4096]).unwrap();
        let file = File::open(&path).unwrap();
        file.try_lock().unwrap();
        // The claim's descriptor and the thread's copy of it: one lock.
        let source = Source::new(file.try_clone().unwrap());
        let mut bytes = [0; 512];
        source.read(&mut bytes, 1024, 0).unwrap();
        assert_eq!(bytes, [7; 512]);
        drop(file);
        let other = File::open(&path).unwrap();
        assert!(other.try_lock().is_err(), "the copy holds it");
        source.close();
        other.try_lock().unwrap();
        assert!(matches!(
            source.read(&mut bytes, 0, 0),
            Err(KeepError::Cancelled)
        ));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn closing_does_not_wait_for_a_read_that_does_not_end() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let source = Source::new(File::from(std::os::fd::OwnedFd::from(reader)));
        // As while it is read.
        let reading = source.file.lock().unwrap();
        source.close();
        assert!(reading.is_some());
        drop(reading);
        // The next look at it ends it.
        let read = source.read(&mut [0; 1], 0, 0);
        assert!(matches!(read, Err(KeepError::Cancelled)), "{read:?}");
    }
}
