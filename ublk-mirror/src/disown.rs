//! `/run/lockstep/NAME.disowned`: the metadata of this copy failed in this boot, and what they say is not true any more.
//!
//! The next run of the daemon writes down that the copy has failed before it believes anything else. After a boot the
//! mark is gone with the memory that held it; then membership is gone with the boot too (S11).
//!
//! The file is made when the daemon starts, and one byte of it is changed: nothing is allocated while memory may be short.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mirror_core::disk::Superblock;
use mirror_core::types::BootId;
use thiserror::Error;

use crate::config::Config;
use crate::explain::Explain;
use crate::metadata::{self, MetadataError};

const DISOWNED: &[u8] = b"1";
const BELIEVED: &[u8] = b"0";

/// Why the mark cannot be had.
#[derive(Debug, Error)]
pub enum DisownError {
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Explain for DisownError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "LS2075",
            Self::Metadata(error) => error.code(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Io { .. } => "run as root; see that the runtime directory can be written".into(),
            Self::Metadata(error) => error.advice(),
        }
    }
}

/// The mark of a volume, ready to be kept.
#[derive(Debug)]
pub struct DisownMark {
    path: PathBuf,
    file: File,
    /// The boot's id in hex digits, and a space; then comes the byte that counts.
    boot: String,
}

fn path(runtime_dir: &Path, volume: &str) -> PathBuf {
    runtime_dir.join(format!("{volume}.disowned"))
}

/// A new copy was made: what the old one's metadata were worth does not matter any more.
pub fn forget(runtime_dir: &Path, volume: &str) -> Result<(), DisownError> {
    let path = path(runtime_dir, volume);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            let action = "remove";
            Err(DisownError::Io {
                action,
                path,
                source,
            })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl DisownMark {
    /// Finds the mark of an earlier run of this boot, and writes to the metadata what it says.
    pub fn at_start(
        runtime_dir: &Path,
        config: &Config,
        boot: BootId,
        metadata: &File,
        superblock: &mut Superblock,
    ) -> Result<DisownMark, DisownError> {
        let path = path(runtime_dir, &config.volume);
        let boot = format!("{boot} ");
        if is_disowned(&path, &boot)? {
            superblock.failed = true;
            superblock.sequence += 1;
            for slot in 0..2 {
                metadata::write_slot(metadata, config, superblock, slot)?;
            }
            tracing::warn!(
                code = "LS3048",
                "the metadata on {} failed under an earlier run of the daemon: the copy here counts as failed until it was \
                 filled anew",
                config.metadata_path().display()
            );
        }
        Self::make(path, boot)
    }

    /// A mark that says that the metadata are believed.
    fn make(path: PathBuf, boot: String) -> Result<DisownMark, DisownError> {
        let made = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&path)
            .and_then(|file| {
                file.write_all_at(boot.as_bytes(), 0)?;
                file.write_all_at(BELIEVED, boot.len() as u64)?;
                Ok(file)
            });
        match made {
            Ok(file) => Ok(DisownMark { path, file, boot }),
            Err(source) => Err(DisownError::Io {
                action: "make",
                path,
                source,
            }),
        }
    }

    /// From now on no run of this boot believes the metadata. Returns whether that is so.
    pub fn keep(&self) -> bool {
        let kept = self.file.write_all_at(DISOWNED, self.boot.len() as u64);
        if let Err(error) = &kept {
            tracing::error!(
                code = "LS2075",
                %error,
                "cannot write to {}: the next run of the daemon would believe metadata that have failed",
                self.path.display()
            );
        }
        kept.is_ok()
    }
}

/// Whether the mark of this boot is kept. One that cannot be read may be.
fn is_disowned(path: &Path, boot: &str) -> Result<bool, DisownError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes
            .strip_prefix(boot.as_bytes())
            .is_some_and(|flag| flag == DISOWNED)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(DisownError::Io {
            action: "read",
            path: path.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_its_boot_alone_and_after_it_was_kept() {
        let directory = std::env::temp_dir().join(format!("disown-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let place = path(&directory, "data");
        let (boot, other) = (
            format!("{} ", BootId([1; 16])),
            format!("{} ", BootId([2; 16])),
        );
        assert!(!is_disowned(&place, &boot).unwrap());
        let mark = DisownMark::make(place.clone(), boot.clone()).unwrap();
        assert!(!is_disowned(&place, &boot).unwrap());
        assert!(mark.keep());
        assert!(is_disowned(&place, &boot).unwrap());
        assert!(!is_disowned(&place, &other).unwrap());
        forget(&directory, "data").unwrap();
        assert!(!is_disowned(&place, &boot).unwrap());
        forget(&directory, "data").unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
