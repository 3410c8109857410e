//! What a run of `lockstepd` must know of the runs before it in the same boot, so that a restart, or one crash after the
//! other, renews no time: in one line of a file below `/run`, written over in place.
//!
//! ```text
//! BOOT CONFIRMED LOOKING HARD ARMED end
//! ```
//!
//! Times are nanoseconds of `CLOCK_BOOTTIME`, 20 digits each, 0 for none. A line of another boot, or one that is not whole,
//! says nothing: nothing was confirmed, and nothing is known to run.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use controlplane_api::paths::run_directory;
use mirror_core::types::{BootId, Instant};

/// A line is 133 bytes.
const LINE_BYTES_MAX: usize = 256;
const END: &str = "end";

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When this node sent what the peer confirmed last, of a time without a gap.
    pub confirmed: Option<Instant>,
    /// Since when runs have not come to look at their volumes.
    pub looking_since: Option<Instant>,
    /// Since when something is being stopped hard.
    pub hard_since: Option<Instant>,
    /// The watchdog may be armed.
    pub armed: bool,
}

/// The file.
#[derive(Debug)]
pub struct LeftBehind {
    path: PathBuf,
    boot: BootId,
    file: Option<File>,
    known: Known,
}

impl LeftBehind {
    /// On a real node.
    pub fn of_node(boot: BootId) -> Self {
        Self::at(run_directory().join("lockstepd/self-fencing"), boot)
    }

    /// In this file, which need not be there.
    pub fn at(path: PathBuf, boot: BootId) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        Self {
            known: parse(&text, boot).unwrap_or_default(),
            file: None,
            path,
            boot,
        }
    }

    /// What is known.
    pub fn known(&self) -> Known {
        self.known
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps this, if it is something else than before.
    ///
    /// # Errors
    /// If it cannot be written; it is tried again the next time.
    pub fn keep(&mut self, known: Known) -> io::Result<()> {
        if known == self.known && self.file.is_some() {
            return Ok(());
        }
        self.known = known;
        let line = line(&known, self.boot);
        if self.file.is_none() {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(false);
            self.file = Some(options.open(&self.path)?);
        }
        let written = match &self.file {
            Some(file) => file.write_all_at(line.as_bytes(), 0),
            None => Ok(()),
        };
        if written.is_err() {
            self.file = None;
        }
        written
    }
}

fn line(known: &Known, boot: BootId) -> String {
    let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
    let boot: String = boot.0.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{boot} {:020} {:020} {:020} {} {END}\n",
        nanos(known.confirmed),
        nanos(known.looking_since),
        nanos(known.hard_since),
        u8::from(known.armed)
    )
}

fn parse(text: &str, boot: BootId) -> Option<Known> {
    let line_of_now = |known: &Known| text.lines().next() == line(known, boot).lines().next();
    let words: Vec<&str> = text
        .get(..text.len().min(LINE_BYTES_MAX))?
        .split_whitespace()
        .collect();
    let [_, confirmed, looking, hard, armed, ..] = words.as_slice() else {
        return None;
    };
    let at = |word: &str| -> Option<Option<Instant>> {
        let nanos: u64 = word.parse().ok()?;
        Some((nanos > 0).then(|| Instant::from_nanos(nanos)))
    };
    let known = Known {
        confirmed: at(confirmed)?,
        looking_since: at(looking)?,
        hard_since: at(hard)?,
        armed: *armed == "1",
    };
    // Exactly what this boot would have written.
    Some(known).filter(line_of_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([7; 16]);

    fn known() -> Known {
        Known {
            confirmed: Some(Instant::from_nanos(12_345_678_901)),
            looking_since: None,
            hard_since: Some(Instant::from_nanos(1)),
            armed: true,
        }
    }

    #[test]
    fn the_next_run_of_the_same_boot_knows_it_and_another_boot_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("below/self-fencing");
        let mut first = LeftBehind::at(path.clone(), BOOT);
        assert_eq!(first.known(), Known::default());
        first.keep(known()).expect("written");
        assert_eq!(LeftBehind::at(path.clone(), BOOT).known(), known());
        let later = Known {
            confirmed: Some(Instant::from_nanos(u64::MAX)),
            armed: false,
            ..known()
        };
        first.keep(later).expect("written");
        assert_eq!(LeftBehind::at(path.clone(), BOOT).known(), later);
        let other = LeftBehind::at(path, BootId([8; 16]));
        assert_eq!(other.known(), Known::default());
    }

    #[test]
    fn a_line_that_is_not_whole_says_nothing() {
        let whole = line(&known(), BOOT);
        assert_eq!(parse(&whole, BOOT), Some(known()));
        for length in 0..whole.len() - 1 {
            assert_eq!(parse(&whole[..length], BOOT), None, "{length}");
        }
        for wrong in [
            whole.replace("end", "eND"),
            whole.replace(' ', "  "),
            "x".repeat(9000),
        ] {
            assert_eq!(parse(&wrong, BOOT), None);
        }
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::create_dir(&path).expect("in the way");
        let mut left = LeftBehind::at(path.clone(), BOOT);
        assert!(left.keep(known()).is_err());
        fs::remove_dir(&path).expect("gone");
        left.keep(known()).expect("written");
        assert_eq!(LeftBehind::at(path, BOOT).known(), known());
    }
}
