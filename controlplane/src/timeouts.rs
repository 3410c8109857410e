//! What was said last about timeouts, and what was promised of it, on disk: one small file, replaced as a whole and flushed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use controlplane_api::arbiter::Hex16;
use controlplane_api::paths::state_directory;
use controlplane_core::timeouts::{Ends, Factor, Kept};
use controlplane_core::wire::{word_bytes, word_of};
use mirror_core::types::{BootId, Instant};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable::replace;

/// The layout of the file.
const VERSION: u32 = 1;
/// It is far shorter.
const FILE_BYTES_MAX: u64 = 4096;

/// Why nobody knows what was promised.
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
    /// The file is damaged, of a later release, or of another cluster.
    #[error("{} cannot be used: {why}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct FileText {
    version: u32,
    cluster: String,
    /// 24 bytes, as in a heartbeat.
    word: Option<String>,
    /// The boot whose clock `since_nanos` and `until_nanos` are of.
    boot: Option<String>,
    since_nanos: u64,
    until_nanos: u64,
    /// The largest promise that may have to be kept, in tenths.
    promised_tenths: u8,
    /// BLAKE3 over all of that, as one line.
    checksum: String,
}

impl FileText {
    fn sum(&self) -> String {
        let line = format!(
            "{} {} {:?} {:?} {} {} {}",
            self.version,
            self.cluster,
            self.word,
            self.boot,
            self.since_nanos,
            self.until_nanos,
            self.promised_tenths
        );
        blake3::hash(line.as_bytes()).to_hex().to_string()
    }

    fn kept(&self) -> Option<Kept> {
        let word = match &self.word {
            Some(digits) => Some(word_of(&bytes_of(digits)?)?),
            None => None,
        };
        let ends = match &self.boot {
            Some(digits) => {
                let id: Hex16 = digits.parse().ok()?;
                Some(Ends {
                    boot: BootId(id.0),
                    since: Instant::from_nanos(self.since_nanos),
                    until: Instant::from_nanos(self.until_nanos),
                })
            }
            None => None,
        };
        Some(Kept {
            word,
            ends,
            promised: Factor::of_tenths(self.promised_tenths)?,
        })
    }
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

    /// `directory/timeouts.json`.
    pub fn in_directory(directory: &Path, cluster: Hex16) -> Self {
        Self {
            path: directory.join("timeouts.json"),
            cluster: cluster.to_string(),
        }
    }

    /// What was kept.
    ///
    /// # Errors
    /// [`StoreError`]: then [`Kept::UNKNOWN`] is what is safe.
    pub fn load(&self) -> Result<Kept, StoreError> {
        let mut text = String::new();
        let read = |file: File, text: &mut String| {
            file.take(FILE_BYTES_MAX).read_to_string(text)?;
            // What an earlier run wrote may not be durable yet.
            File::open(&self.path)?.sync_all()?;
            File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        match File::open(&self.path) {
            Ok(file) => read(file, &mut text).map_err(|source| self.failed("read", source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::NOTHING),
            Err(source) => return Err(self.failed("open", source)),
        }
        let parsed: FileText =
            serde_json::from_str(&text).map_err(|error| self.damaged(&error.to_string()))?;
        if parsed.version != VERSION {
            return Err(self.damaged(&format!("version {} is not known", parsed.version)));
        }
        if parsed.sum() != parsed.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        if parsed.cluster != self.cluster {
            return Err(self.damaged(&format!("it is of another cluster, {}", parsed.cluster)));
        }
        parsed
            .kept()
            .ok_or_else(|| self.damaged("it says what this release does not know"))
    }

    /// Makes this durable. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; what was there before is there still, or what was to be.
    pub fn save(&self, kept: &Kept) -> Result<(), StoreError> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let ends = kept.ends;
        let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
        let mut text = FileText {
            version: VERSION,
            cluster: self.cluster.clone(),
            word: kept.word.map(|word| hex(&word_bytes(&word))),
            boot: ends.map(|ends| hex(&ends.boot.0)),
            since_nanos: nanos(ends.map(|ends| ends.since)),
            until_nanos: nanos(ends.map(|ends| ends.until)),
            promised_tenths: kept.promised.tenths(),
            checksum: String::new(),
        };
        text.checksum = text.sum();
        let text = serde_json::to_string_pretty(&text)
            .map_err(|error| self.failed("write", error.into()))?;
        let write = || {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new("/")))?;
            replace(&self.path, text.as_bytes(), 0o600)
        };
        write().map_err(|source| self.failed("write", source))
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

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::timeouts::Word;
    use mirror_core::types::NodeId;
    use std::time::Duration;

    fn kept() -> Kept {
        let factor = Factor::of_tenths(35).expect("a factor");
        Kept {
            word: Some(Word {
                number: 7,
                by: NodeId::new(1).expect("a node"),
                factor,
                lasts: Duration::from_secs(3600),
                over: None,
            }),
            ends: Some(Ends {
                boot: BootId([0xAB; 16]),
                since: Instant::from_nanos(5),
                until: Instant::from_nanos(3_600_000_000_005),
            }),
            promised: factor,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_what_is_damaged_is_not_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::in_directory(&directory.path().join("state"), Hex16([1; 16]));
        assert_eq!(store.load().expect("nothing"), Kept::NOTHING);
        for kept in [kept(), Kept::NOTHING, kept()] {
            store.save(&kept).expect("saved");
            assert_eq!(store.load().expect("loaded"), kept);
        }
        let other = Store::in_directory(&directory.path().join("state"), Hex16([2; 16]));
        assert!(other.load().is_err(), "another cluster's");
        let text = std::fs::read_to_string(&store.path).expect("a file");
        let cut = &text[..text.len() / 2];
        let lower = text.replace("\"promised_tenths\": 35", "\"promised_tenths\": 10");
        assert_ne!(lower, text);
        for text in ["", cut, &lower] {
            std::fs::write(&store.path, text).expect("a file");
            store.load().expect_err("damaged");
        }
    }
}
