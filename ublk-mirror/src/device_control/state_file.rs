//! `/run/lockstep/NAME.device`: which live device a daemon of this boot had, for its successor.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub dev_id: u32,
    /// Hex digits of the boot's id.
    pub boot: String,
    /// Hex digits of the view's id when the device was made.
    pub view: String,
}

#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    pub fn new(runtime_directory: &Path, volume: &str) -> StateFile {
        StateFile {
            path: runtime_directory.join(format!("{volume}.device")),
        }
    }

    /// Replaces the file as a whole.
    pub fn write(&self, record: &DeviceRecord) -> io::Result<()> {
        let temporary = self.path.with_extension("device-new");
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        fs::rename(&temporary, &self.path)
    }

    /// An unreadable one is as good as none: the device is then taken away.
    pub fn read(&self) -> Option<DeviceRecord> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    pub fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the device's record");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_garbage_is_none() {
        let directory = std::env::temp_dir().join(format!("state-file-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = StateFile::new(&directory, "data");
        assert_eq!(file.read(), None);
        let record = DeviceRecord {
            dev_id: 7,
            boot: "aa".into(),
            view: "bb".into(),
        };
        file.write(&record).unwrap();
        assert_eq!(file.read(), Some(record));
        fs::write(directory.join("data.device"), "{").unwrap();
        assert_eq!(file.read(), None);
        file.remove();
        fs::remove_dir_all(&directory).unwrap();
    }
}
