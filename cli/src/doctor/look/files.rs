//! Keys, directories, room.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use controlplane::config::{Config, RegisterKeeper};
use controlplane_api::paths::{run_directory, state_directory};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::config::VolumeConfig;
use crate::doctor::facts::{Directory, FileMode, Need, Room, Seen};
use crate::programs;

const MODE_BITS: u32 = 0o7777;

/// All files that only root may read: those that there are, and those that have to be there.
pub(super) fn secrets(
    directory: &Path,
    config: Option<&Config>,
    volumes: &[&VolumeConfig],
    is_set_up: bool,
) -> Vec<FileMode> {
    let wanted = |is_wanted: bool, why| match is_wanted {
        true => Need::Wanted(why),
        false => Need::Optional,
    };
    let key = directory.join("cluster.key");
    let trust = directory.join("trust");
    let keeper = config.and_then(|config| config.keeper.as_ref());
    let has_witness = matches!(keeper, Some(RegisterKeeper::Witness(_)));
    let of_node = wanted(
        is_set_up && has_witness,
        "the witness would not know this node; lockstepd does not start",
    );
    let mut files = vec![
        (key.clone(), "the cluster's key", Need::Optional),
        (trust.join("node.key"), "the key of this node", of_node),
        (
            directory.join("authority/authority.key"),
            "the key of the cluster's authority",
            Need::Optional,
        ),
    ];
    for volume in volumes {
        if files.iter().all(|(path, ..)| *path != volume.key_file) {
            let need = Need::Wanted("the volume's daemon does not start");
            files.push((volume.key_file.clone(), "a volume's cluster key", need));
        } else if let Some(first) = files
            .first_mut()
            .filter(|(path, ..)| *path == volume.key_file)
        {
            first.2 = Need::Wanted("the volumes' daemons do not start");
        }
    }
    if let Some(RegisterKeeper::Etcd {
        files: Some(etcd), ..
    }) = keeper
        && let Some((_, key)) = &etcd.identity
    {
        let need = Need::Wanted("lockstepd does not start");
        files.push((key.clone(), "the key for etcd", need));
    }
    for name in ["config.json", "wishes.json"] {
        let path = state_directory().join(name);
        files.push((path, "what lockstepd goes by", Need::Optional));
    }
    let facts = files.into_iter().map(|(path, what, need)| FileMode {
        mode: mode_and_owner(&path),
        path,
        what,
        need,
    });
    facts.collect()
}

fn mode_and_owner(path: &Path) -> Seen<Option<(u32, u32)>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.mode() & MODE_BITS, found.uid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("it cannot be looked at: {error}")),
    }
}

pub(super) fn directories(config: &Path) -> Vec<Directory> {
    // The log's place does not depend on the volume.
    let logs = programs::places("any").logs;
    let all = [
        (config.to_path_buf(), "configuration and keys"),
        (state_directory(), "what is remembered"),
        (run_directory(), "sockets and locks"),
        (logs, "logs of the volumes' daemons"),
    ];
    let facts = all.into_iter().map(|(path, what)| Directory {
        mode: mode_and_owner(&path).map(|found| found.map(|(mode, _)| mode)),
        room: room(&path),
        path,
        what,
        written: true,
    });
    facts.collect()
}

/// Of the file system of the path, or of the next directory above that is there.
fn room(path: &Path) -> Seen<Room> {
    let there: Option<PathBuf> = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .map(Path::to_path_buf);
    let there = there.ok_or_else(|| "nothing of the path is there".to_string())?;
    let found = statvfs(&there).map_err(|errno| format!("{}: {errno}", there.display()))?;
    Ok(Room {
        free_bytes: found
            .blocks_available()
            .saturating_mul(found.fragment_size()),
        writable: !found.flags().contains(FsFlags::ST_RDONLY),
    })
}
