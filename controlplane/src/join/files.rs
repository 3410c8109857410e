//! Files that appear whole and durable, or not at all.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::JoinError;

/// No file that is compared is longer.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
pub(super) const SECRET_MODE: u32 = 0o600;
pub(super) const OPEN_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const FOREIGN_READ_MODE: u32 = 0o077;

/// What happens to a file that is there with another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing else is written either.
    Stays,
    /// It is replaced.
    Replaced,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which one.
    pub path: PathBuf,
    /// Whether it was written now; else it was there, and is right.
    pub written: bool,
    /// Whether another one was there.
    pub replaced: bool,
}

impl Note {
    pub(super) fn made(path: PathBuf) -> Self {
        let (written, replaced) = (true, false);
        Self {
            path,
            written,
            replaced,
        }
    }

    pub(super) fn kept(path: PathBuf) -> Self {
        let written = false;
        Self {
            written,
            ..Self::made(path)
        }
    }
}

/// A file as it shall be.
pub(super) struct Draft {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

impl Draft {
    pub(super) fn secret(path: PathBuf, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mode = SECRET_MODE;
        Self { path, bytes, mode }
    }

    pub(super) fn open(path: PathBuf, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mode = OPEN_MODE;
        Self { path, bytes, mode }
    }

    /// Whether the file is there as it shall be; `None`: it is not there.
    fn stands(&self) -> Result<Option<bool>, JoinError> {
        let Some(bytes) = read(&self.path)? else {
            return Ok(None);
        };
        let meta = fs::metadata(&self.path).map_err(failed("look at", &self.path))?;
        let mode = meta.mode() & 0o7777;
        if self.mode == SECRET_MODE && mode & FOREIGN_READ_MODE != 0 {
            return Err(JoinError::Unfit {
                path: self.path.clone(),
                why: format!("others can read this secret (mode {mode:o}): chmod 600 it"),
            });
        }
        Ok(Some(bytes == self.bytes))
    }

    fn beside(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".joining");
        self.path.with_file_name(name)
    }

    fn write_beside(&self) -> io::Result<()> {
        let beside = self.beside();
        // A leftover of a crash would keep its mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options();
        let file = file.write(true).create_new(true).mode(self.mode);
        let mut file = file.open(&beside)?;
        file.write_all(&self.bytes)?;
        file.sync_all()
    }

    fn put(&self, existing: Existing) -> io::Result<()> {
        let beside = self.beside();
        match existing {
            Existing::Replaced => fs::rename(&beside, &self.path)?,
            // Never over a file that came meanwhile.
            Existing::Stays => {
                fs::hard_link(&beside, &self.path)?;
                fs::remove_file(&beside)?;
            }
        }
        sync(&self.path)
    }
}

pub(super) fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> JoinError {
    move |source| JoinError::File {
        what,
        path: path.to_path_buf(),
        source,
    }
}

/// Makes the directory of `path` durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// A file's content; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, JoinError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(Some(bytes))
}

/// The same as text.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, JoinError> {
    let text = |bytes| {
        String::from_utf8(bytes).map_err(|error| JoinError::Unfit {
            path: path.to_path_buf(),
            why: error.to_string(),
        })
    };
    read(path)?.map(text).transpose()
}

/// Makes a directory, and those above it, if it is not there; their names are durable then.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), JoinError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_directory(above, DIRECTORY_MODE)?;
    }
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| sync(path))
        .map_err(failed("make", path))
}

/// Whether [`install`] would refuse.
pub(super) fn check(drafts: &[Draft], existing: Existing) -> Result<(), JoinError> {
    for draft in drafts {
        if draft.stands()? == Some(false) && existing == Existing::Stays {
            let path = draft.path.clone();
            return Err(JoinError::Occupied { path });
        }
    }
    Ok(())
}

/// Puts all files into their places, in this order, each whole and durable: but none if one of them is there
/// with another content, or one cannot be written. What is there already as it shall be is left alone.
pub(super) fn install(drafts: &[Draft], existing: Existing) -> Result<Vec<Note>, JoinError> {
    check(drafts, existing)?;
    let mut notes = Vec::new();
    for draft in drafts {
        let stands = draft.stands()?;
        let (written, replaced) = (stands != Some(true), stands == Some(false));
        if written {
            let directory = draft.path.parent().unwrap_or(Path::new("/"));
            make_directory(directory, DIRECTORY_MODE)?;
        }
        let path = draft.path.clone();
        notes.push(Note {
            path,
            written,
            replaced,
        });
    }
    let wanted = || {
        let pairs = drafts.iter().zip(&notes);
        pairs
            .filter(|(_, note)| note.written)
            .map(|(draft, _)| draft)
    };
    let staged =
        wanted().try_for_each(|draft| draft.write_beside().map_err(failed("write", &draft.path)));
    if staged.is_err() {
        for draft in wanted() {
            // Whatever is left is written anew by the next try.
            drop(fs::remove_file(draft.beside()));
        }
    }
    staged?;
    for draft in wanted() {
        draft.put(existing).map_err(failed("write", &draft.path))?;
    }
    Ok(notes)
}

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], JoinError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(failed("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_in_the_way_and_none_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        let drafts = [
            Draft::secret(place("a/key"), "secret"),
            Draft::open(place("b"), "open"),
        ];
        fs::write(place("b"), "another").expect("written");
        let error = install(&drafts, Existing::Stays).expect_err("in the way");
        assert_eq!(error.code(), "LS6027");
        assert!(error.to_string().contains("/b is there already"), "{error}");
        assert!(!place("a").exists());
        let notes = install(&drafts, Existing::Replaced).expect("replaced");
        let made: Vec<_> = notes
            .iter()
            .map(|note| (note.written, note.replaced))
            .collect();
        assert_eq!(made, [(true, false), (true, true)]);
        assert_eq!(fs::read(place("b")).expect("b"), b"open");
        let mode = |name| fs::metadata(place(name)).expect("there").mode() & 0o777;
        assert_eq!(mode("a/key"), 0o600);
        let born = |name| fs::metadata(place(name)).expect("there").ino();
        let before = (born("a/key"), born("b"));
        let notes = install(&drafts, Existing::Stays).expect("the same");
        assert!(notes.iter().all(|note| !note.written));
        assert_eq!(before, (born("a/key"), born("b")));
    }

    #[test]
    fn a_secret_that_others_can_read_is_not_taken_for_right() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let draft = Draft::secret(directory.path().join("key"), "secret");
        fs::write(&draft.path, "secret").expect("written");
        fs::set_permissions(&draft.path, fs::Permissions::from_mode(0o640)).expect("a mode");
        let error = install(&[draft], Existing::Stays).expect_err("unfit");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_a_crash_left_beside_is_written_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let draft = Draft::secret(directory.path().join("key"), "secret");
        fs::write(draft.beside(), "half").expect("written");
        let left = || fs::read_dir(directory.path()).expect("a directory").count();
        install(std::slice::from_ref(&draft), Existing::Stays).expect("written");
        assert_eq!(fs::read(&draft.path).expect("the key"), b"secret");
        assert_eq!(left(), 1);
    }
}
