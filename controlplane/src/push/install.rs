//! Putting a decided file in place as `cluster.toml`: what somebody changed there by hand is kept beside it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use controlplane_core::push::Digest;

use super::record::replace;
use super::words::{digest, short};

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
