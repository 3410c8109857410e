//! `/run/lockstep/NAME.disowned`: the metadata of this copy failed in this boot, and what they say is not true any more.
//!
//! The next run of the daemon writes down that the copy has failed before it believes anything else. After a boot the
//! mark is gone with the memory that held it; then membership is gone with the boot too (S11).
//!
//! Lesser marks say that requests failed which a run under the same device would wait for, so that the next run ends the
//! device; and that the other node may go on alone, so that the next run takes no arbiter's grant before both have met.
//!
//! The file is made when the daemon starts, and one byte of it is changed: nothing is allocated while memory may be short.

use std::cell::Cell;
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

const BELIEVED: u8 = b'0';
/// What the mark says, added to that digit.
const DISOWNED: u8 = 1;
/// Requests failed that a run under the same device would wait for.
pub const WRITES_FAILED: u8 = 2;
/// The other node was asked to go on alone, and may have agreed.
pub const PEER_ASKED: u8 = 4;

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
    /// What it says.
    says: Cell<u8>,
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
        let says = says(&path, &boot)?;
        if says == 0 {
            return Self::make(path, boot);
        }
        superblock.failed |= says & DISOWNED != 0;
        superblock.drained |= says & WRITES_FAILED != 0 && superblock.serving;
        if says & PEER_ASKED != 0 {
            superblock.member_boots[config.node_id().index()] = BootId::NONE;
        }
        let follows = if superblock.failed {
            "the copy here counts as failed until it was filled anew"
        } else {
            "requests failed then, or the other node was asked to go on alone: nothing is served here before both have met"
        };
        superblock.sequence += 1;
        for slot in 0..2 {
            metadata::write_slot(metadata, config, superblock, slot)?;
        }
        tracing::warn!(
            code = "LS3048",
            "the metadata on {} failed under an earlier run of the daemon: {follows}",
            config.metadata_path().display()
        );
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
                file.write_all_at(&[BELIEVED], boot.len() as u64)?;
                Ok(file)
            });
        match made {
            Ok(file) => Ok(DisownMark {
                path,
                file,
                boot,
                says: Cell::new(0),
            }),
            Err(source) => Err(DisownError::Io {
                action: "make",
                path,
                source,
            }),
        }
    }

    /// From now on no run of this boot believes the metadata. Returns whether that is so.
    pub fn keep(&self) -> bool {
        self.keep_of(DISOWNED);
        self.says.get() & DISOWNED != 0
    }

    /// From now on the next run of this boot knows that as well.
    pub fn keep_of(&self, what: u8) {
        let says = self.says.get() | what;
        let kept = self
            .file
            .write_all_at(&[BELIEVED + says], self.boot.len() as u64);
        match kept {
            Ok(()) => self.says.set(says),
            Err(error) => tracing::error!(
                code = "LS2075",
                %error,
                "cannot write to {}: the next run of the daemon would believe metadata that have failed",
                self.path.display()
            ),
        }
    }
}

/// What the mark of this boot says. One that cannot be read may say anything.
fn says(path: &Path, boot: &str) -> Result<u8, DisownError> {
    match fs::read(path) {
        Ok(bytes) => Ok(match bytes.strip_prefix(boot.as_bytes()) {
            Some([says]) => says.saturating_sub(BELIEVED),
            Some(_) | None => 0,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
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

    fn place(name: &str) -> (PathBuf, PathBuf) {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let place = path(&directory, "data");
        (directory, place)
    }

    #[test]
    fn a_mark_is_found_in_its_boot_alone_and_after_it_was_kept() {
        let (directory, place) = place("disown");
        let (boot, other) = (
            format!("{} ", BootId([1; 16])),
            format!("{} ", BootId([2; 16])),
        );
        assert_eq!(says(&place, &boot).unwrap(), 0);
        let mark = DisownMark::make(place.clone(), boot.clone()).unwrap();
        assert_eq!(says(&place, &boot).unwrap(), 0);
        assert!(mark.keep());
        assert_eq!(says(&place, &boot).unwrap(), DISOWNED);
        assert_eq!(says(&place, &other).unwrap(), 0);
        forget(&directory, "data").unwrap();
        assert_eq!(says(&place, &boot).unwrap(), 0);
        forget(&directory, "data").unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_a_mark_says_it_goes_on_saying() {
        let (directory, place) = place("disown-writes");
        let boot = format!("{} ", BootId([1; 16]));
        let mark = DisownMark::make(place.clone(), boot.clone()).unwrap();
        mark.keep_of(WRITES_FAILED);
        assert_eq!(says(&place, &boot).unwrap(), WRITES_FAILED);
        assert!(mark.keep());
        mark.keep_of(PEER_ASKED);
        assert_eq!(says(&place, &boot).unwrap(), 7);
        fs::remove_dir_all(&directory).unwrap();
    }
}
