//! The cluster's key file, as the data planes read it: every secret that the nodes share comes from it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mirror_core::disk::{KEY_BYTES_MIN, KeysFault, read_keys};
use mirror_core::keys::Keys;
use thiserror::Error;

const KEY_BYTES_MAX: u64 = 64 * 1024;
/// Bits of a key file's mode that would let others read it.
const FOREIGN_READ_MODE: u32 = 0o077;

/// What is wrong with a key file.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("the key {} can be read by others (mode {mode:o}): chmod 600 it", .path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is too short to be a secret.
    #[error("the key {} has {bytes} bytes, at least {KEY_BYTES_MIN} are needed", .path.display())]
    Short {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// It says that its secret was rotated, and cannot be used.
    #[error("LS6258 the key {} cannot be used: {fault}", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: KeysFault,
    },
}

/// What the key file holds.
///
/// # Errors
/// [`KeyError`].
pub fn read(path: &Path) -> Result<Keys, KeyError> {
    of_bytes(path, &read_secret(path)?)
}

/// The same of what the file `path` holds, or shall hold.
///
/// # Errors
/// [`KeyError::Short`], [`KeyError::Damaged`].
pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Keys, KeyError> {
    let path = path.to_path_buf();
    read_keys(bytes).map_err(|fault| match fault {
        KeysFault::Short { bytes } => KeyError::Short { path, bytes },
        KeysFault::Length { .. }
        | KeysFault::Version(_)
        | KeysFault::Checksum
        | KeysFault::Content => KeyError::Damaged { path, fault },
    })
}

/// A key in text form, PEM say.
///
/// # Errors
/// [`KeyError`], also if it is no text.
pub fn read_text(path: &Path) -> Result<String, KeyError> {
    String::from_utf8(read_secret(path)?).map_err(|error| KeyError::Read {
        path: path.to_path_buf(),
        source: io::Error::other(error),
    })
}

/// What nobody else may read.
///
/// # Errors
/// [`KeyError`].
pub fn read_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & FOREIGN_READ_MODE != 0 {
        return Err(KeyError::Mode {
            path: path.to_path_buf(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
