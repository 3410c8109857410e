//! What an operator said about a volume's daemon, and whose turn it is to start or end it.
//!
//! `lockstep volume stop` leaves a mark that outlives a boot: that the file is there counts, what is in it is for people. It is
//! there before the daemon is told to end, so that an end is never taken for a crash.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::Places;

/// Between two looks at a turn that somebody else has.
const LOOK: Duration = Duration::from_millis(50);

/// Why nothing can be said about a daemon.
#[derive(Debug, Error)]
pub enum StoppedError {
    /// The disk refuses.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else has the turn.
    #[error("the daemon of {volume} is being started or stopped by somebody else, since more than {} s", .waited.as_secs())]
    Busy {
        /// Which volume.
        volume: String,
        /// For how long the turn was waited for.
        waited: Duration,
    },
}

impl StoppedError {
    /// In docs/codes.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "LS6125",
            Self::Busy { .. } => "LS6126",
        }
    }

    /// What to do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "run the command as root; see that the file system is there and has room, then repeat it"
            }
            Self::Busy { .. } => {
                "nothing was changed; see `lockstep status` and the volume's log, then repeat the command"
            }
        }
    }
}

/// Who holds it may start or end the volume's daemon, or make its copy. The kernel takes it back with the process.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] File);

impl Turn {
    /// Takes it, if nobody has it.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn try_take(places: &Places) -> Result<Option<Self>, StoppedError> {
        let path = places.run.join(format!("{}.turn", places.volume));
        let failed = |source| StoppedError::Io {
            what: "lock",
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&places.run).map_err(failed)?;
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// If somebody else has it for so long.
    pub fn take(places: &Places, patience: Duration) -> Result<Self, StoppedError> {
        let began = Instant::now();
        loop {
            if let Some(turn) = Self::try_take(places)? {
                return Ok(turn);
            }
            if began.elapsed() >= patience {
                return Err(StoppedError::Busy {
                    volume: places.volume.clone(),
                    waited: patience,
                });
            }
            thread::sleep(LOOK);
        }
    }
}

/// The mark of a volume.
fn mark(places: &Places) -> PathBuf {
    let name = format!("{}.stopped", places.volume);
    places.state.join("volumes").join(name)
}

/// Whether an operator stopped the volume's daemon.
///
/// # Errors
/// If it cannot be told: then the daemon is not started.
pub fn is_stopped(places: &Places) -> Result<bool, StoppedError> {
    let path = mark(places);
    match fs::symlink_metadata(&path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoppedError::Io {
            what: "look at",
            path,
            source,
        }),
    }
}

/// Remembers that an operator stops the daemon, durably.
///
/// # Errors
/// If it is not durable.
pub fn set(places: &Places) -> Result<(), StoppedError> {
    let path = mark(places);
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        let new = path.with_extension(format!("stopped.{}", std::process::id()));
        let mut options = File::options();
        let options = options.create(true).truncate(true).write(true).mode(0o644);
        let mut file = options.open(&new)?;
        writeln!(
            file,
            "An operator stopped the daemon of volume {0}; `lockstep volume start {0}` starts it.",
            places.volume
        )?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync(directory)
    };
    write().map_err(|source| StoppedError::Io {
        what: "write",
        path: path.clone(),
        source,
    })
}

/// Forgets it, durably.
///
/// # Errors
/// If it may come back.
pub fn clear(places: &Places) -> Result<(), StoppedError> {
    let path = mark(places);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| sync(path.parent().unwrap_or(Path::new("/")))),
    };
    removed.map_err(|source| StoppedError::Io {
        what: "remove",
        path: path.clone(),
        source,
    })
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            volume: "data".to_string(),
            config: directory.join("etc"),
            run: directory.join("run"),
            state: directory.join("state"),
            logs: directory.join("logs"),
        }
    }

    #[test]
    fn a_mark_stays_until_it_is_cleared() {
        let directory = tempfile::tempdir().expect("a directory");
        let places = places(directory.path());
        assert!(!is_stopped(&places).expect("a look"));
        clear(&places).expect("nothing to clear");
        for _ in 0..2 {
            set(&places).expect("a mark");
            assert!(is_stopped(&places).expect("a look"));
        }
        let other = Places {
            volume: "data.2".to_string(),
            ..places.clone()
        };
        assert!(!is_stopped(&other).expect("a look"));
        clear(&places).expect("cleared");
        assert!(!is_stopped(&places).expect("a look"));
        let left = fs::read_dir(places.state.join("volumes")).expect("a directory");
        assert_eq!(left.count(), 0, "no drafts are left");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_no_mark() {
        let directory = tempfile::tempdir().expect("a directory");
        let places = places(directory.path());
        fs::create_dir_all(&places.state).expect("a directory");
        fs::write(places.state.join("volumes"), "in the way").expect("a file");
        assert_eq!(is_stopped(&places).expect_err("unclear").code(), "LS6125");
        assert_eq!(set(&places).expect_err("no room").code(), "LS6125");
    }

    #[test]
    fn one_at_a_time_has_the_turn() {
        let directory = tempfile::tempdir().expect("a directory");
        let places = places(directory.path());
        let turn = Turn::take(&places, Duration::ZERO).expect("a turn");
        assert!(Turn::try_take(&places).expect("a look").is_none());
        let error = Turn::take(&places, Duration::from_millis(60)).expect_err("busy");
        assert_eq!(error.code(), "LS6126");
        drop(turn);
        assert!(Turn::try_take(&places).expect("a look").is_some());
    }
}
