//! The witness's registers on disk: one small file for each cluster, replaced as a whole and flushed.
//!
//! The file names its own inode and birth. A file that was copied back from a backup has others: what it says may be the
//! past, so its registers are not believed before every member has reported again ([`Registers::report`]). A file system
//! that is put back as a whole, inodes included, is not noticed: docs/failure-model.md.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use controlplane_api::arbiter::Hex16;
use controlplane_core::register::Registers;
use mirror_core::types::NodeSet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clerk::{RegisterLines, lines_of, registers_of};

/// The layout of the file.
const VERSION: u32 = 1;
/// 256 registers of less than 400 bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why registers cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk refuses.
    #[error("{what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no register file, or damaged.
    #[error("{} is damaged: {why}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// How a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was none.
    Nothing,
    /// It is the one that this witness wrote last.
    Latest,
    /// It was put there by somebody else.
    Restored,
}

#[derive(Serialize, Deserialize)]
struct FileText {
    version: u32,
    /// Of this very file.
    inode: u64,
    /// When this very file was created, nanoseconds since 1970; 0 where the file system does not know it.
    born_nanos: u64,
    members: u8,
    registers: RegisterLines,
    /// BLAKE3 over the registers, as they are written.
    checksum: String,
}

/// The file of one cluster.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    name: String,
}

impl Store {
    /// `directory/CLUSTER.json`.
    pub fn new(directory: &Path, cluster: Hex16) -> Self {
        Self {
            directory: directory.to_path_buf(),
            name: format!("{cluster}.json"),
        }
    }

    /// Where that is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The registers that were durable.
    ///
    /// # Errors
    /// [`StoreError`]. A damaged file is never taken for an empty one.
    pub fn load(&self, members: NodeSet) -> Result<(Registers, Found), StoreError> {
        let path = self.path();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Registers::new(members, BTreeMap::new()), Found::Nothing));
            }
            Err(source) => return Err(self.failed("cannot open", source)),
        };
        let meta = file
            .metadata()
            .map_err(|source| self.failed("cannot look at", source))?;
        let damaged = |why: String| StoreError::Damaged {
            path: path.clone(),
            why,
        };
        if meta.len() > FILE_BYTES_MAX {
            return Err(damaged(format!("{} bytes are too many", meta.len())));
        }
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|source| self.failed("cannot read", source))?;
        let parsed: FileText =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if parsed.version != VERSION {
            return Err(damaged(format!("version {} is not known", parsed.version)));
        }
        if checksum(parsed.members, &parsed.registers) != parsed.checksum {
            return Err(damaged("its checksum is wrong".to_string()));
        }
        let itself = (parsed.inode, parsed.born_nanos) == (meta.ino(), born_nanos(&meta));
        if !itself || parsed.members != members.bits() {
            return Ok((Registers::new(members, BTreeMap::new()), Found::Restored));
        }
        let known = registers_of(parsed.registers).map_err(damaged)?;
        Ok((Registers::new(members, known), Found::Latest))
    }

    /// Makes the registers durable: file, name, directory. Only then may an answer be given.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the file is the old one or the new one.
    pub fn save(&self, members: NodeSet, registers: &Registers) -> Result<(), StoreError> {
        let temporary = self.directory.join(format!("{}.new", self.name));
        // A leftover of a crash would keep its birth.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("cannot remove what is beside", error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|source| self.failed("cannot create beside", source))?;
        let meta = file
            .metadata()
            .map_err(|source| self.failed("cannot look at", source))?;
        let registers = lines_of(registers);
        let text = FileText {
            version: VERSION,
            inode: meta.ino(),
            born_nanos: born_nanos(&meta),
            members: members.bits(),
            checksum: checksum(members.bits(), &registers),
            registers,
        };
        let text = serde_json::to_string_pretty(&text)
            .map_err(|error| self.failed("cannot write", io::Error::other(error)))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|source| self.failed("cannot write", source))?;
        fs::rename(&temporary, self.path())
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|source| self.failed("cannot replace", source))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io {
            what,
            path: self.path(),
            source,
        }
    }
}

fn born_nanos(meta: &fs::Metadata) -> u64 {
    let born = meta.created().ok();
    let since = born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

fn checksum(members: u8, registers: &RegisterLines) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[members]);
    let text = serde_json::to_vec(registers).unwrap_or_default();
    hasher.update(&text);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::register::{Answer, Claim};
    use mirror_core::types::{Epoch, NodeId, ViewId, VolumeId};
    use mirror_core::view::{View, ViewHistory, ViewMark};

    const VOLUME: VolumeId = VolumeId([7; 16]);
    const CLUSTER: Hex16 = Hex16([9; 16]);

    fn members() -> NodeSet {
        NodeSet::from_bits(3)
    }

    fn mark(epoch: u64) -> ViewMark {
        ViewMark {
            epoch: Epoch(epoch),
            id: ViewId([1; 16]),
        }
    }

    fn granted(directory: &Path) -> Store {
        let store = Store::new(directory, CLUSTER);
        let (mut registers, found) = store.load(members()).expect("nothing");
        assert_eq!(found, Found::Nothing);
        let view = View {
            epoch: Epoch(5),
            id: ViewId([1; 16]),
            active: None,
            insync: members(),
        };
        let node = |number| NodeId::new(number).expect("a node");
        for number in 0..2 {
            registers.report(node(number), VOLUME, &view);
        }
        let claim = Claim {
            volume: VOLUME,
            basis: mark(5),
            next: mark(6),
            history: ViewHistory::default(),
        };
        let answer = registers.claim(node(0), &[claim]);
        assert_eq!(answer, Answer::Granted(vec![mark(6)]));
        store.save(members(), &registers).expect("saved");
        store
    }

    #[test]
    fn what_was_granted_is_known_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = granted(directory.path());
        let (registers, found) = store.load(members()).expect("loaded");
        assert_eq!(found, Found::Latest);
        assert_eq!(registers.durable()[&VOLUME].mark, mark(6));
    }

    #[test]
    fn a_file_that_was_copied_back_is_not_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = granted(directory.path());
        let backup = directory.path().join("backup");
        fs::copy(store.path(), &backup).expect("a backup");
        fs::rename(&backup, store.path()).expect("restored");
        let (registers, found) = store.load(members()).expect("loaded");
        assert_eq!(found, Found::Restored);
        assert!(registers.durable().is_empty());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = granted(directory.path());
        let text = fs::read_to_string(store.path()).expect("text");
        for broken in [text.replace("\"epoch\": 6", "\"epoch\": 4"), String::new()] {
            fs::write(store.path(), broken).expect("written");
            let error = store.load(members()).expect_err("damaged");
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        }
    }
}
