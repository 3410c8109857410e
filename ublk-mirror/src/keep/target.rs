//! The file under its temporary name and under its own. Nobody else's file is written, renamed or removed.
//!
//! Several daemons may be told the same name. Each holds a lock on the temporary file that it made. Who finds one
//! takes it for left over only if it gets that lock, and looks afterwards whether the name still means that file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mirror_core::disk::KEPT_MAGIC;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::KeepError;

/// Behind the name of a file that is not whole yet.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// Where a file is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(found: &Metadata) -> Inode {
        Inode {
            device: found.dev(),
            number: found.ino(),
        }
    }

    /// None: nothing has that name.
    fn at(path: &Path) -> io::Result<Option<Inode>> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(Inode::of(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A file that this daemon made, locked as long as this value lives.
#[derive(Debug)]
pub(super) struct Target {
    file: File,
    inode: Inode,
    partial: PathBuf,
    path: PathBuf,
}

impl Target {
    /// Makes the file under its temporary name. What an earlier try left there is removed; anything else stays.
    pub(super) fn create(path: &Path) -> Result<Target, KeepError> {
        let partial = partial_of(path);
        let made = match make(&partial) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_leftover(&partial)?;
                make(&partial)
            }
            made => made,
        };
        let file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(in_other_hands(&partial));
            }
            made => made.map_err(failed("create", &partial))?,
        };
        let found = file.metadata().map_err(failed("look at", &partial))?;
        let target = Target {
            inode: Inode::of(&found),
            file,
            partial,
            path: path.to_owned(),
        };
        let partial = &target.partial;
        match target.file.try_lock() {
            // Before it was locked, another one may have taken it for left over.
            Ok(()) if target.is_at(partial)? => Ok(target),
            Ok(()) | Err(TryLockError::WouldBlock) => Err(in_other_hands(partial)),
            Err(TryLockError::Error(source)) => {
                target.remove();
                Err(failed("lock", partial)(source))
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn is_at(&self, path: &Path) -> Result<bool, KeepError> {
        let found = Inode::at(path).map_err(failed("look at", path))?;
        Ok(found == Some(self.inode))
    }

    /// The file gets its name, durably, and takes nobody else's.
    pub(super) fn publish(&self) -> Result<(), KeepError> {
        if !self.is_at(&self.partial)? {
            return Err(in_other_hands(&self.partial));
        }
        match rename(&self.partial, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(place(&self.path, "it exists by now"));
            }
            Err(error) => return Err(failed("name", &self.path)(error)),
        }
        if !self.is_at(&self.path)? {
            return Err(place(&self.path, "something else got that name"));
        }
        sync_directory(&self.path)
    }

    /// Nothing was discarded: the file would only mislead.
    pub(super) fn remove(&self) {
        for name in [&self.partial, &self.path] {
            if let Err(error) = self.unlink(name) {
                tracing::warn!(
                    code = "LS2074",
                    %error,
                    path = %name.display(),
                    advice = "remove it by hand",
                    "a file of blocks is left over, and nothing was discarded"
                );
            }
        }
    }

    /// Takes that name away if it is this file's.
    fn unlink(&self, name: &Path) -> io::Result<()> {
        if Inode::at(name)? != Some(self.inode) {
            return Ok(());
        }
        match fs::remove_file(name) {
            Ok(()) => drop(sync_directory(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

pub(super) fn partial_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PARTIAL_SUFFIX);
    name.into()
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::File {
        action,
        path,
        source,
    }
}

pub(super) fn place(path: &Path, why: &'static str) -> KeepError {
    KeepError::Place {
        path: path.to_owned(),
        why,
    }
}

fn in_other_hands(partial: &Path) -> KeepError {
    place(partial, "another volume's daemon writes there")
}

pub(super) fn exists(path: &Path) -> Result<bool, KeepError> {
    let found = Inode::at(path).map_err(failed("look at", path))?;
    Ok(found.is_some())
}

fn make(partial: &Path) -> io::Result<File> {
    let mut options = File::options();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW);
    options.open(partial)
}

/// Removes what a daemon that is gone left there.
fn remove_leftover(partial: &Path) -> Result<(), KeepError> {
    let strange = || place(partial, "something else has that temporary name");
    match fs::symlink_metadata(partial) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(strange()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", partial)(error)),
    }
    // For writing: some file systems lock no others. And what is no file any more might not answer.
    let opened = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(partial);
    let file = opened.map_err(failed("open", partial))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_other_hands(partial)),
        Err(TryLockError::Error(source)) => return Err(failed("lock", partial)(source)),
    }
    let found = file.metadata().map_err(failed("look at", partial))?;
    let mut begins = Vec::new();
    let read = (&file)
        .take(KEPT_MAGIC.len() as u64)
        .read_to_end(&mut begins);
    read.map_err(failed("read", partial))?;
    if !found.is_file() || !(begins.is_empty() || begins == KEPT_MAGIC) {
        return Err(strange());
    }
    // It may have got its own name, and another the temporary one, before it was locked.
    match Inode::at(partial).map_err(failed("look at", partial))? {
        None => Ok(()),
        Some(inode) if inode != Inode::of(&found) => Err(in_other_hands(partial)),
        Some(_) => fs::remove_file(partial).map_err(failed("remove", partial)),
    }
}

/// Replaces nothing. Where the file system cannot rename like that, a link does, which never replaces anything.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn sync_directory(path: &Path) -> Result<(), KeepError> {
    // The directory may have been made just now: so the one above it, too.
    for directory in path.ancestors().skip(1).take(3) {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("make durable", directory))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    // A test that cannot go on panics.
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Write;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Scratch {
            let path =
                std::env::temp_dir().join(format!("lockstep-target-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn name(&self) -> PathBuf {
            self.0.join("x.blocks")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn why(made: Result<impl std::fmt::Debug, KeepError>) -> &'static str {
        match made {
            Err(KeepError::Place { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_another_writes_is_not_taken_for_left_over() {
        let scratch = Scratch::new("two");
        let name = scratch.name();
        let first = Target::create(&name).unwrap();
        // Before and after its first bytes.
        assert_eq!(
            why(Target::create(&name)),
            "another volume's daemon writes there"
        );
        first.file().write_all(&KEPT_MAGIC).unwrap();
        assert_eq!(
            why(Target::create(&name)),
            "another volume's daemon writes there"
        );
        first.file().write_all(b"whole").unwrap();
        first.publish().unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"LSKEPTBLwhole");
        assert!(!exists(&partial_of(&name)).unwrap());
        // Whoever is gone holds no lock.
        drop(Target::create(&scratch.0.join("y.blocks")).unwrap());
        Target::create(&scratch.0.join("y.blocks")).unwrap();
    }

    #[test]
    fn a_name_that_means_another_file_is_neither_given_nor_removed() {
        let scratch = Scratch::new("swapped");
        let (name, partial) = (scratch.name(), partial_of(&scratch.name()));
        let target = Target::create(&name).unwrap();
        fs::remove_file(&partial).unwrap();
        fs::write(&partial, "another's").unwrap();
        assert_eq!(
            why(target.publish()),
            "another volume's daemon writes there"
        );
        target.remove();
        assert_eq!(fs::read(&partial).unwrap(), b"another's");
        assert!(!exists(&name).unwrap());
        fs::remove_file(&partial).unwrap();

        let target = Target::create(&name).unwrap();
        fs::write(&name, "mine").unwrap();
        assert_eq!(why(target.publish()), "it exists by now");
        target.remove();
        assert_eq!(fs::read(&name).unwrap(), b"mine");
        assert!(!exists(&partial).unwrap());
    }

    #[test]
    fn a_file_goes_under_whichever_name_it_has() {
        let scratch = Scratch::new("goes");
        let (name, partial) = (scratch.name(), partial_of(&scratch.name()));
        let target = Target::create(&name).unwrap();
        target.publish().unwrap();
        // Its temporary name is gone, and that is no fault.
        target.unlink(&partial).unwrap();
        target.unlink(&name).unwrap();
        assert!(!exists(&name).unwrap());
        target.unlink(&name).unwrap();
        // A directory cannot be removed like a file, but it is not this file.
        fs::create_dir(&name).unwrap();
        target.unlink(&name).unwrap();
        assert!(exists(&name).unwrap());
    }
}
