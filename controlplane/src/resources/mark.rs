//! What was last done with a resource, in a file of `/run`: a daemon that begins anew reads it, a machine that boots
//! has none.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Places, ResourceError};

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A start began.
    Starting,
    /// A start ended well.
    Online,
    /// A stop began.
    Stopping,
}

/// What was last done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How far it came.
    pub phase: Phase,
    /// A program's process.
    #[serde(default)]
    pub process: Option<ProcessId>,
    /// A mount's source.
    #[serde(default)]
    pub source: Option<String>,
}

/// A process, and not a later one with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it began, in ticks since the boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_time })
    }

    /// Whether it lives.
    pub fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

impl Mark {
    /// A bare phase.
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            process: None,
            source: None,
        }
    }

    /// Reads it. What cannot be read is no mark that there is none.
    ///
    /// # Errors
    /// If there is one that cannot be read.
    pub fn read(places: &Places) -> Result<Option<Self>, ResourceError> {
        let path = places.mark();
        let failed = ResourceError::io(format!("read {}", path.display()));
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| failed(error.into())),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, places: &Places) -> Result<(), ResourceError> {
        let path = places.mark();
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            let new = path.with_extension("new");
            fs::write(&new, serde_json::to_vec(self)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(ResourceError::io(format!("write {}", path.display())))
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it is there still.
    pub fn remove(places: &Places) -> Result<(), ResourceError> {
        let path = places.mark();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ResourceError::io(
                format!("remove {}", path.display()),
            )(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
