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

/// The directory of a file; that of the process if the path has none.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) => directory,
        None => Path::new("/"),
    }
}

/// Makes what a file holds durable, and its name.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    File::open(directory_of(path))?.sync_all()
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
    File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_directory_is_in_that_of_the_process() {
        let directories = ["cluster.key", "etc/cluster.key", "/cluster.key", "/"]
            .map(|path| directory_of(path.as_ref()));
        assert_eq!(directories, [".", "etc", "/", "/"].map(Path::new));
    }

    #[test]
    fn files_that_differ_only_in_their_ending_are_written_under_different_names() {
        let names =
            ["/state/g.failovers", "/state/g.cleared"].map(|path| new_beside(path.as_ref()));
        assert_ne!(names[0], names[1]);
    }
}
