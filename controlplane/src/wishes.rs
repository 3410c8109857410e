//! What operators wish, on disk: one small file, replaced as a whole and flushed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use controlplane_api::arbiter::Hex16;
use controlplane_api::paths::state_directory;
use controlplane_core::wire::{wish_bytes, wish_of};
use controlplane_core::wish::Wish;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable::replace;

/// The layout of the file.
const VERSION: u32 = 1;
/// Wishes are 48 digits each.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why wishes cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
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
    /// The file is damaged, or of a later release.
    #[error(
        "{} is damaged: {why}. What operators stopped, moved or suspended is not known; remove the file if the \
         other node knows it, or if nothing is stopped", .path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It was written as a member of another cluster.
    #[error("{} is of another cluster, {cluster}", .path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        cluster: String,
    },
}

impl StoreError {
    /// In docs/codes.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "LS6087",
            Self::Damaged { .. } => "LS6090",
            Self::Foreign { .. } => "LS6079",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct FileText {
    version: u32,
    /// Whose wishes these are.
    cluster: String,
    /// 24 bytes each, as in a heartbeat.
    wishes: Vec<String>,
    /// BLAKE3 over the cluster and the wishes, as they are written.
    checksum: String,
}

/// The file of one node.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    cluster: String,
}

impl Store {
    /// On a real node.
    pub fn of_node(cluster: Hex16) -> Self {
        Self::in_directory(&state_directory(), cluster)
    }

    /// `directory/wishes.json`.
    pub fn in_directory(directory: &Path, cluster: Hex16) -> Self {
        Self {
            path: directory.join("wishes.json"),
            cluster: cluster.to_string(),
        }
    }

    /// What was durable.
    ///
    /// # Errors
    /// [`StoreError`]. A damaged file is never taken for an empty one.
    pub fn load(&self) -> Result<Vec<Wish>, StoreError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => self
                .read(&file, &mut text)
                .map_err(|source| self.failed("read", source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed("open", source)),
        };
        let parsed: FileText =
            serde_json::from_str(&text).map_err(|error| self.damaged(&error.to_string()))?;
        if parsed.version != VERSION {
            return Err(self.damaged(&format!("version {} is not known", parsed.version)));
        }
        if checksum(&parsed.cluster, &parsed.wishes) != parsed.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        if parsed.cluster != self.cluster {
            return Err(StoreError::Foreign {
                path: self.path.clone(),
                cluster: parsed.cluster,
            });
        }
        let wishes = parsed.wishes.iter().map(|digits| {
            let wish = bytes_of(digits).and_then(|bytes| wish_of(&bytes));
            wish.ok_or_else(|| self.damaged(&format!("{digits} is no wish of this release")))
        });
        wishes.collect()
    }

    /// Makes exactly these durable. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; what was there before is there still, or what was to be.
    pub fn save(&self, wishes: &[Wish]) -> Result<(), StoreError> {
        let digits = |wish: &Wish| {
            let bytes = wish_bytes(wish);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let wishes: Vec<String> = wishes.iter().map(digits).collect();
        let text = FileText {
            version: VERSION,
            checksum: checksum(&self.cluster, &wishes),
            cluster: self.cluster.clone(),
            wishes,
        };
        let text = serde_json::to_string_pretty(&text)
            .map_err(|error| self.failed("write", error.into()))?;
        let write = || {
            fs::create_dir_all(self.directory())?;
            replace(&self.path, text.as_bytes(), 0o600)
        };
        write().map_err(|source| self.failed("write", source))
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// What an earlier run wrote may not be durable yet: nothing is followed before it is.
    fn read(&self, file: &File, text: &mut String) -> io::Result<()> {
        file.take(FILE_BYTES_MAX).read_to_string(text)?;
        file.sync_all()?;
        File::open(self.directory())?.sync_all()
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StoreError {
        let path = self.path.clone();
        StoreError::Io { what, path, source }
    }

    fn damaged(&self, why: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

fn checksum(cluster: &str, wishes: &[String]) -> String {
    blake3::hash(format!("{cluster}\n{}", wishes.join("\n")).as_bytes())
        .to_hex()
        .to_string()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::wish::{GroupKey, Origin, Subject, Want};
    use mirror_core::types::NodeId;

    fn wish(number: u64) -> Wish {
        Wish {
            subject: Subject::Group(GroupKey::of("pg")),
            number,
            by: NodeId::new(1).expect("a node"),
            want: Want::Stopped { home: None },
            origin: Origin::Operator,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_a_damaged_file_is_not_an_empty_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::in_directory(&directory.path().join("state"), Hex16([1; 16]));
        assert_eq!(store.load().expect("nothing"), []);
        for number in [1, 2] {
            store.save(&[wish(number)]).expect("saved");
            assert_eq!(store.load().expect("loaded"), [wish(number)]);
        }
        let text = fs::read_to_string(&store.path).expect("a file");
        let cut = &text[..text.len() / 2];
        let other = text.replace("\"version\": 1", "\"version\": 2");
        let flipped = text.replacen("01", "02", 1);
        for text in ["", cut, &other, &flipped] {
            fs::write(&store.path, text).expect("a file");
            let error = store.load().expect_err("damaged");
            assert_eq!(error.code(), "LS6090", "{error}");
        }
    }

    #[test]
    fn wishes_of_another_cluster_are_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = |number| Store::in_directory(directory.path(), Hex16([number; 16]));
        store(1).save(&[wish(1)]).expect("saved");
        let error = store(2).load().expect_err("another cluster's");
        assert_eq!(error.code(), "LS6079", "{error}");
        assert_eq!(store(1).load().expect("loaded"), [wish(1)]);
    }

    #[test]
    fn a_disk_that_refuses_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        let error = Store::in_directory(&file, Hex16([1; 16]))
            .save(&[wish(1)])
            .expect_err("no");
        assert_eq!(error.code(), "LS6087", "{error}");
    }
}
