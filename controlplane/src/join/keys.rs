//! The key of another cluster on a machine that joins: it may be all that opens the last copy of a volume.

use std::ffi::OsString;
use std::fs;
use std::io;

use controlplane_api::arbiter::Hex16;

use super::error::JoinError;
use super::files::{Existing, Note, failed, read, sync};
use super::home::Places;

/// The volumes of this machine: all that may rest on its key.
pub(super) fn volumes(places: &Places) -> Result<Vec<String>, JoinError> {
    let entries = match fs::read_dir(&places.volumes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &places.volumes)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", &places.volumes))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".toml").map(str::to_string));
    }
    names.sort();
    Ok(names)
}

/// Refuses where the key of another cluster must not make way for that of this one: never while volumes rest on it.
pub(super) fn may_go(places: &Places, cluster: Hex16, existing: Existing) -> Result<(), JoinError> {
    if read(&places.key)?.is_none() {
        return Ok(());
    }
    let bytes = crate::key::read_secret(&places.key)?;
    let own = cluster_of_bytes(places, &bytes);
    let volumes = volumes(places)?;
    if own == Some(cluster) || existing == Existing::Replaced && volumes.is_empty() {
        return Ok(());
    }
    let path = places.key.clone();
    Err(JoinError::OtherKey {
        path,
        own,
        cluster,
        volumes,
    })
}

/// `None`: what is in the file is no key.
fn cluster_of_bytes(places: &Places, bytes: &[u8]) -> Option<Hex16> {
    let keys = crate::key::of_bytes(&places.key, bytes).ok()?;
    Some(Hex16(keys.cluster().0))
}

/// Another key than `new` gets a second name, `cluster.key.CLUSTER`, that is durable before it may be replaced. Not one of the
/// same cluster, before or after a rotation: no copy rests on it, and what was rotated away shall not stay.
pub(super) fn save(places: &Places, new: &[u8]) -> Result<Option<Note>, JoinError> {
    let Some(old) = read(&places.key)?.filter(|old| old != new) else {
        return Ok(None);
    };
    let cluster = cluster_of_bytes(places, &old);
    if cluster.is_some() && cluster == cluster_of_bytes(places, new) {
        return Ok(None);
    }
    let name = cluster.unwrap_or_else(|| {
        let mut name = [0; 16];
        name.copy_from_slice(&blake3::hash(&old).as_bytes()[..16]);
        Hex16(name)
    });
    let mut saved = OsString::from(places.key.file_name().unwrap_or_default());
    saved.push(format!(".{name}"));
    let path = places.key.with_file_name(saved);
    match fs::hard_link(&places.key, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if read(&path)?.as_ref() != Some(&old) {
                return Err(failed("keep the old key as", &path)(error));
            }
        }
        linked => linked.map_err(failed("keep the old key as", &path))?,
    }
    sync(&path).map_err(failed("keep the old key as", &path))?;
    Ok(Some(Note::made(path)))
}
