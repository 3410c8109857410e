//! Files that are replaced as a whole, and durably.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What becomes `path` is written under this name first: each file has one of its own.
pub(crate) fn new_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces a file as a whole; it is durable then, and its name too.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = new_beside(path);
    // A leftover of a crash would keep its mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options();
    let file = file.write(true).create_new(true).mode(mode);
    let mut file = file.open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_only_in_their_ending_are_written_under_different_names() {
        let names =
            ["/state/g.failovers", "/state/g.cleared"].map(|path| new_beside(path.as_ref()));
        assert_ne!(names[0], names[1]);
    }
}
