//! The cluster's key, as the data planes read it: every secret of the cluster comes from it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// The same as the data plane's: both name one cluster.
const KEY_CONTEXT: &str = "lockstep 2026-11 cluster key";
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
}

/// The 32 bytes of a cluster's key from its file.
///
/// # Errors
/// [`KeyError`].
pub fn read(path: &Path) -> Result<[u8; 32], KeyError> {
    of_bytes(path, &read_secret(path)?)
}

/// The same of what the file `path` holds, or shall hold.
///
/// # Errors
/// [`KeyError::Short`].
pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<[u8; 32], KeyError> {
    if bytes.len() < KEY_BYTES_MIN {
        return Err(KeyError::Short {
            path: path.to_path_buf(),
            bytes: bytes.len(),
        });
    }
    Ok(blake3::derive_key(KEY_CONTEXT, bytes))
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
