//! What a node keeps of its configuration: the file in force and the one that is pushed, in one file that is replaced as
//! a whole and flushed. It has mode 0600.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use controlplane_api::arbiter::Hex16;
use controlplane_api::config::PUSH_BYTES_MAX;
use controlplane_api::paths::state_directory;
use controlplane_core::push::{Durable, InForce};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable::replace;

use super::words::{ProposalLine, StageWord, digest};

/// The layout of the file.
const VERSION: u32 = 1;
/// Its name in the state directory.
const NAME: &str = "config.json";
/// The file in force may be one that was never pushed, of 1 MiB, and JSON may write a byte as six.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Why the record cannot be kept.
#[derive(Debug, Error)]
pub enum RecordError {
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
        "{} is damaged: {why}. Which configuration is in force is not known; if cluster.toml is right here, say \
         `lockstep config adopt`", .path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What is to be written makes no sense: a fault of `lockstepd`.
    #[error("{} is not written: {why}; this is a fault of lockstepd", .path.display())]
    Unsound {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// It was written as a member of another cluster.
    #[error("{} is of another cluster, {cluster}; `lockstep config adopt` puts it aside", .path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        cluster: String,
    },
}

impl RecordError {
    /// In docs/codes.md.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Damaged { .. } | Self::Unsound { .. } => "LS6109",
            Self::Foreign { .. } => "LS6079",
        }
    }
}

/// A file's text, and since when it is what it is: seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The file.
    pub text: String,
    /// Since when.
    pub since_unix_s: u64,
}

impl Text {
    /// From now on.
    pub fn now(text: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            text: text.into(),
            since_unix_s: since.map_or(0, |since| since.as_secs()),
        }
    }
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is decided by.
    pub durable: Durable,
    /// The file in force.
    pub in_force: Text,
    /// The pushed one.
    pub pending: Option<Text>,
}

impl Record {
    /// Where no push ever began: what `cluster.toml` says.
    pub fn of_file(text: &str) -> Self {
        let in_force = InForce {
            number: 0,
            digest: digest(text.as_bytes()),
        };
        Self {
            durable: Durable {
                in_force,
                pinned: false,
                pending: None,
            },
            in_force: Text::now(text),
            pending: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    cluster: Hex16,
    number: u64,
    in_force: Text,
    pending: Option<(ProposalLine, StageWord, Text)>,
}

#[derive(Serialize, Deserialize)]
struct FileText {
    version: u32,
    /// BLAKE3 of the body as it is written.
    checksum: String,
    /// [`Body`], as JSON within JSON: the checksum is over exactly these bytes.
    body: String,
}

/// The file of one node.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    cluster: Hex16,
}

impl Store {
    /// On a real node.
    pub fn of_node(cluster: Hex16) -> Self {
        Self::in_directory(&state_directory(), cluster)
    }

    /// `directory/config.json`.
    pub fn in_directory(directory: &Path, cluster: Hex16) -> Self {
        Self {
            path: directory.join(NAME),
            cluster,
        }
    }

    /// Whose record it is.
    pub fn cluster(&self) -> Hex16 {
        self.cluster
    }

    /// What was durable; `None`: no push ever began.
    ///
    /// # Errors
    /// [`RecordError`]. A damaged file is never taken for none.
    pub fn load(&self) -> Result<Option<Record>, RecordError> {
        let mut text = String::new();
        match File::open(&self.path) {
            Ok(file) => self
                .read(&file, &mut text)
                .map_err(|source| self.failed("read", source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("open", source)),
        }
        let damaged = |error: serde_json::Error| self.damaged(&error.to_string());
        let parsed: FileText = serde_json::from_str(&text).map_err(damaged)?;
        if parsed.version != VERSION {
            return Err(self.damaged(&format!("version {} is not known", parsed.version)));
        }
        if checksum(&parsed.body) != parsed.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        let body: Body = serde_json::from_str(&parsed.body).map_err(damaged)?;
        if body.cluster != self.cluster {
            return Err(RecordError::Foreign {
                path: self.path.clone(),
                cluster: body.cluster.to_string(),
            });
        }
        let (pending, text) = match body.pending {
            None => (None, None),
            Some((proposal, stage, text)) => {
                let proposal = proposal
                    .read()
                    .filter(|proposal| proposal.digest == digest(text.text.as_bytes()));
                let proposal = proposal.ok_or_else(|| self.damaged("a push in it is none"))?;
                (Some((proposal, stage.into())), Some(text))
            }
        };
        let in_force = InForce {
            number: body.number,
            digest: digest(body.in_force.text.as_bytes()),
        };
        Ok(Some(Record {
            // What is kept counts, from then on.
            durable: Durable {
                in_force,
                pinned: true,
                pending,
            },
            in_force: body.in_force,
            pending: text,
        }))
    }

    /// Makes exactly this durable. Blocks.
    ///
    /// # Errors
    /// [`RecordError`]; what was there before is there still, or what was to be.
    pub fn save(&self, record: &Record) -> Result<(), RecordError> {
        let pending = match (&record.durable.pending, &record.pending) {
            (Some((proposal, stage)), Some(text)) if text.text.len() <= PUSH_BYTES_MAX => {
                Some((proposal.into(), (*stage).into(), text.clone()))
            }
            (None, None) => None,
            (Some(_), Some(_)) => return Err(self.unsound("the pushed file is too large")),
            (Some(_), None) | (None, Some(_)) => {
                return Err(self.unsound("a push without its file, or a file without its push"));
            }
        };
        let body = Body {
            cluster: self.cluster,
            number: record.durable.in_force.number,
            in_force: record.in_force.clone(),
            pending,
        };
        let written = |error: serde_json::Error| self.failed("write", error.into());
        let body = serde_json::to_string(&body).map_err(written)?;
        let text = FileText {
            version: VERSION,
            checksum: checksum(&body),
            body,
        };
        let text = serde_json::to_string(&text).map_err(written)?;
        let write = || {
            fs::create_dir_all(self.directory())?;
            replace(&self.path, text.as_bytes(), 0o600)
        };
        write().map_err(|source| self.failed("write", source))
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// What an earlier run wrote may not be durable yet: nothing rests on it before it is.
    fn read(&self, file: &File, text: &mut String) -> io::Result<()> {
        file.take(FILE_BYTES_MAX).read_to_string(text)?;
        file.sync_all()?;
        File::open(self.directory())?.sync_all()
    }

    fn failed(&self, what: &'static str, source: io::Error) -> RecordError {
        let path = self.path.clone();
        RecordError::Io { what, path, source }
    }

    fn unsound(&self, why: &'static str) -> RecordError {
        let path = self.path.clone();
        RecordError::Unsound { path, why }
    }

    fn damaged(&self, why: &str) -> RecordError {
        RecordError::Damaged {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }
}

fn checksum(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().to_string()
}

/// Puts the record aside: `cluster.toml` is what the next run loads. Says where the record is then, if there was one.
///
/// # Errors
/// If it cannot be renamed.
pub fn put_aside(directory: &Path) -> io::Result<Option<PathBuf>> {
    let path = directory.join(NAME);
    let aside = path.with_extension("json.replaced");
    match fs::rename(&path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    File::open(directory)?.sync_all()?;
    Ok(Some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use controlplane_core::push::{Load, Proposal, PushId, Stage, Times};
    use mirror_core::types::NodeId;
    use std::os::unix::fs::MetadataExt;

    fn record() -> Record {
        let mut record = Record::of_file("old \"file\"\n");
        let proposal = Proposal {
            id: PushId([3; 16]),
            by: NodeId::new(1).expect("a node"),
            number: 4,
            digest: digest(b"new"),
            replaces: [record.durable.in_force.digest; 2],
            times: Times::Differ,
        };
        record.durable.pending = Some((proposal, Stage::Promised));
        record.pending = Some(Text::now("new"));
        record
    }

    #[test]
    fn what_was_saved_is_loaded_and_nobody_else_can_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        let store = Store::in_directory(&state, Hex16([1; 16]));
        assert_eq!(store.load().expect("nothing"), None);
        for mut record in [record(), Record::of_file("other"), record()] {
            store.save(&record).expect("saved");
            record.durable.pinned = true;
            assert_eq!(store.load().expect("loaded"), Some(record));
        }
        let mut unsound = record();
        unsound.pending = None;
        assert_eq!(store.save(&unsound).expect_err("no file").code(), "LS6109");
        unsound.pending = Some(Text::now("x".repeat(PUSH_BYTES_MAX + 1)));
        assert_eq!(store.save(&unsound).expect_err("large").code(), "LS6109");
        let mode = fs::metadata(state.join(NAME)).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(record().durable.load(), Load::InForce);
        let aside = put_aside(&state)
            .expect("put aside")
            .expect("there was one");
        assert!(aside.exists() && store.load().expect("nothing").is_none());
        assert_eq!(put_aside(&state).expect("nothing"), None);
    }

    #[test]
    fn a_damaged_or_foreign_record_is_not_taken_for_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::in_directory(directory.path(), Hex16([1; 16]));
        store.save(&record()).expect("saved");
        let other = Store::in_directory(directory.path(), Hex16([2; 16]));
        assert_eq!(other.load().expect_err("foreign").code(), "LS6079");
        let text = fs::read_to_string(&store.path).expect("a file");
        let cut = &text[..text.len() / 2];
        let later = text.replace("\"version\":1", "\"version\":2");
        let flipped = text.replacen("old", "odd", 1);
        for text in ["", cut, &later, &flipped] {
            fs::write(&store.path, text).expect("a file");
            let error = store.load().expect_err("damaged");
            assert_eq!(error.code(), "LS6109", "{error}");
        }
    }
}
