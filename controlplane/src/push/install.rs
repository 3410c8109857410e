//! Putting a decided file in place as `cluster.toml`: what somebody changed there by hand is kept beside it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use controlplane_core::push::Digest;

use super::words::{digest, short};
use crate::durable::{directory_of, new_beside, replace};

/// What is changed by hand is kept under this name, and its digest.
const ASIDE: &str = "edited-";
const OPEN_MODE: u32 = 0o644;

/// Puts `text` in the place of `path`. What is there and is neither that nor `known` is kept beside it: where. Where the nodes
/// went by different files nothing is `known`.
///
/// # Errors
/// If a file cannot be read or written; `path` is whole then, as it was or as it shall be.
pub(super) fn install(
    path: &Path,
    text: &str,
    known: Option<Digest>,
) -> io::Result<Option<PathBuf>> {
    let (there, mode) = match fs::read(path) {
        Ok(bytes) => (Some(bytes), fs::metadata(path)?.mode() & 0o777),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, OPEN_MODE),
        Err(error) => return Err(error),
    };
    let is = there.as_deref().map(digest);
    let new = digest(text.as_bytes());
    let aside = match (&there, is) {
        (Some(bytes), Some(is)) if is != new && Some(is) != known => {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(format!(".{ASIDE}{}", short(&is)));
            let aside = path.with_file_name(name);
            replace(&aside, bytes, mode)?;
            Some(aside)
        }
        (Some(_), _) | (None, _) => None,
    };
    if is != Some(new) {
        replace(path, text.as_bytes(), mode)?;
    }
    Ok(aside)
}

/// Proves that [`install`] can work: a file can be made beside `path`, and `path` can be replaced by it.
///
/// # Errors
/// Why not, in words.
pub(crate) fn prove(path: &Path) -> Result<(), String> {
    let of = |what: &Path, error: io::Error| format!("{}: {error}", what.display());
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => {
            return Err(format!("{} is no plain file", path.display()));
        }
        // It would be replaced as a name, and stays as what it names.
        Ok(there) => {
            let directory = directory_of(path);
            let beside = fs::metadata(directory).map_err(|error| of(directory, error))?;
            if there.dev() != beside.dev() {
                return Err(format!(
                    "{} is mounted by itself, and cannot be replaced",
                    path.display()
                ));
            }
            // Neither immutable nor append-only (chattr): also root may not write there then.
            let opened = fs::File::options().write(true).open(path);
            opened.map_err(|error| of(path, error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(of(path, error)),
    }
    let new = new_beside(path);
    try_beside(&new).map_err(|error| of(&new, error))
}

fn try_beside(new: &Path) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = fs::File::options().write(true).create_new(true).open(new)?;
    let made = file.set_len(0).and_then(|()| file.sync_all());
    fs::remove_file(new)?;
    made
}

/// The files that were kept beside `path`, by name.
pub(super) fn set_aside(path: &Path) -> Vec<String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begins = format!("{name}.{ASIDE}");
    let entries = fs::read_dir(directory).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let kept = names.filter(|name| name.starts_with(&begins));
    let mut kept: Vec<String> = kept
        .map(|name| directory.join(name).display().to_string())
        .collect();
    kept.sort();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_could_not_be_replaced_is_found_before_anything_is_decided() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        assert_eq!(prove(&path), Ok(()));
        fs::write(&path, "old").expect("written");
        assert_eq!(prove(&path), Ok(()));
        assert_eq!(fs::read(&path).expect("there"), b"old");
        let entries = fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(entries.count(), 1, "nothing is left behind");
        // The name would be replaced, and what it names would stay as it is.
        let link = directory.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(prove(&link).is_err_and(|why| why.contains("no plain file")));
        assert!(prove(&directory.path().join("nowhere/cluster.toml")).is_err());
        // A directory in the place of the new file.
        fs::create_dir(directory.path().join(".cluster.toml.new")).expect("a directory");
        assert!(prove(&path).is_err_and(|why| why.contains(".cluster.toml.new")));
    }

    #[test]
    fn what_was_changed_by_hand_is_kept_beside_the_pushed_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        let known = Some(digest(b"old"));
        assert_eq!(install(&path, "old", known).expect("new"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        assert_eq!(
            install(&path, "pushed", known).expect("over the old one"),
            None
        );
        assert_eq!(install(&path, "pushed", known).expect("again"), None);
        assert!(set_aside(&path).is_empty());
        fs::write(&path, "by hand").expect("written");
        let aside = install(&path, "pushed", known).expect("over an edited one");
        let aside = aside.expect("kept");
        assert_eq!(fs::read(&aside).expect("kept"), b"by hand");
        assert_eq!(fs::read(&path).expect("there"), b"pushed");
        assert_eq!(set_aside(&path), [aside.display().to_string()]);
        for path in [&path, &aside] {
            assert_eq!(fs::metadata(path).expect("there").mode() & 0o777, 0o600);
        }
    }
}
