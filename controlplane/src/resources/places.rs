//! Where a resource's files are.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use controlplane_api::paths::run_directory;

use super::ResourceError;

/// Words of scripts and programs are kept in a file of so many bytes at most, the newest ones.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;
const LOGS: &str = "/var/log/lockstep/groups";
/// Names the directory of logs instead of [`LOGS`]; for tests, as `LOCKSTEP_RUN_DIR`.
const LOGS_VARIABLE: &str = "LOCKSTEP_LOG_DIR";
const DEVICES: &str = "/dev/lockstep";

/// Where files are, for one resource of one group.
#[derive(Clone, Debug)]
pub struct Places {
    /// What is remembered until the machine's end.
    pub run: PathBuf,
    /// Words of scripts and programs.
    pub logs: PathBuf,
    /// The volumes' devices.
    pub devices: PathBuf,
    /// The group's name.
    pub group: String,
    /// The resource's name.
    pub resource: String,
}

impl Places {
    /// On a real node.
    pub fn of(group: &str, resource: &str) -> Self {
        Self {
            run: run_directory().join("groups"),
            logs: env::var_os(LOGS_VARIABLE).map_or_else(|| PathBuf::from(LOGS), PathBuf::from),
            devices: PathBuf::from(DEVICES),
            group: group.to_string(),
            resource: resource.to_string(),
        }
    }

    /// The device of a volume.
    pub fn device(&self, volume: &str) -> PathBuf {
        self.devices.join(volume)
    }

    /// What was last done with the resource.
    pub fn mark(&self) -> PathBuf {
        let name = format!("{}.resource", self.resource);
        self.run.join(&self.group).join(name)
    }

    /// Where its words go.
    pub fn log(&self) -> PathBuf {
        let name = format!("{}.log", self.resource);
        self.logs.join(&self.group).join(name)
    }

    /// Opens the log for a process: it writes there itself, so that it does not depend on this daemon.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_log(&self) -> Result<File, ResourceError> {
        let path = self.log();
        let open = || {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            File::options().append(true).create(true).open(&path)
        };
        let file = open().map_err(ResourceError::io(format!("open {}", path.display())))?;
        self.bound_log();
        Ok(file)
    }

    /// Forgets the older half of a log that is too long. What is written at the same moment may be lost.
    pub fn bound_log(&self) {
        let path = self.log();
        let cut = || -> io::Result<()> {
            let mut file = File::options().read(true).write(true).open(&path)?;
            let length = file.metadata()?.len();
            if length <= LOG_BYTES_MAX {
                return Ok(());
            }
            file.seek(SeekFrom::Start(length - LOG_BYTES_MAX / 2))?;
            let mut kept = Vec::new();
            (&file).take(LOG_BYTES_MAX / 2).read_to_end(&mut kept)?;
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&kept)
        };
        if let Err(error) = cut() {
            tracing::debug!(path = %path.display(), %error, "the log cannot be bounded");
        }
    }
}
