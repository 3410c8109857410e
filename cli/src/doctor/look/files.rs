//! Keys, configurations, directories, room.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use controlplane::config::{Config, RegisterKeeper};
use controlplane_api::paths::{run_directory, state_directory};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{disks, soon};
use crate::config::VolumeConfig;
use crate::doctor::facts::{Directory, FileMode, Keeps, Need, Room, Seen};
use crate::programs;

const MODE_BITS: u32 = 0o7777;

/// All files that only root may read: those that there are, and those that have to be there.
pub(super) fn secrets(
    directory: &Path,
    config: Option<&Config>,
    volumes: &[&VolumeConfig],
    is_set_up: bool,
) -> Vec<FileMode> {
    const KEY_ADVICE: &str = "copy the key from the other node's `key_file`, mode 0600; in a cluster, `lockstep cluster join` hands it over";
    let of_volume = |why| Need::Wanted {
        why,
        advice: KEY_ADVICE,
    };
    let key = directory.join("cluster.key");
    let trust = directory.join("trust");
    let keeper = config.and_then(|config| config.keeper.as_ref());
    let has_witness = matches!(keeper, Some(RegisterKeeper::Witness(_)));
    let of_node = match is_set_up && has_witness {
        true => Need::Wanted {
            why: "the witness would not know this node; lockstepd does not start",
            advice: "`lockstep cluster init` on the first node, `lockstep cluster join` on the other one",
        },
        false => Need::Optional,
    };
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
            let need = of_volume("the volume's daemon does not start");
            files.push((volume.key_file.clone(), "a volume's cluster key", need));
        } else if let Some(first) = files
            .first_mut()
            .filter(|(path, ..)| *path == volume.key_file)
        {
            first.2 = of_volume("the volumes' daemons do not start");
        }
    }
    if let Some(RegisterKeeper::Etcd {
        files: Some(etcd), ..
    }) = keeper
        && let Some((_, key)) = &etcd.identity
    {
        let need = Need::Wanted {
            why: "lockstepd does not start",
            advice: "put the key for etcd there, mode 0600, or correct `etcd.key` in cluster.toml",
        };
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

/// What root reads and others may read too: `cluster.toml`, the volumes' files, and their directory.
pub(super) fn configurations(
    cluster: &Path,
    directory: &Path,
    volumes: &[disks::Found],
) -> Vec<FileMode> {
    let mut files = vec![
        (cluster.to_path_buf(), "the cluster's configuration"),
        (
            directory.join("volumes"),
            "the directory of the volumes' files",
        ),
    ];
    let volumes = volumes.iter();
    files.extend(volumes.map(|found| (found.volume.file.clone(), "a volume's configuration")));
    let facts = files.into_iter().map(|(path, what)| FileMode {
        mode: mode_and_owner(&path),
        path,
        what,
        need: Need::Optional,
    });
    facts.collect()
}

fn mode_and_owner(path: &Path) -> Seen<Option<(u32, u32)>> {
    let own = path.to_path_buf();
    let found = soon(move || fs::metadata(own));
    match found.map_err(|why| format!("it cannot be looked at: {why}"))? {
        Ok(found) => Ok(Some((found.mode() & MODE_BITS, found.uid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("it cannot be looked at: {error}")),
    }
}

pub(super) fn directories(config: &Path) -> Vec<Directory> {
    // The log's place does not depend on the volume.
    let logs = programs::places("any").logs;
    let all = [
        (
            config.to_path_buf(),
            "configuration and keys",
            Keeps::Records,
        ),
        (state_directory(), "what is remembered", Keeps::Records),
        (run_directory(), "sockets and locks", Keeps::Sockets),
        (logs, "logs of the volumes' daemons", Keeps::Records),
    ];
    let facts = all.into_iter().map(|(path, what, keeps)| Directory {
        mode: mode_and_owner(&path),
        room: room(path.clone()),
        path,
        what,
        keeps,
    });
    facts.collect()
}

/// Of the file system of the path, or of the next directory above that is there.
fn room(path: PathBuf) -> Seen<Room> {
    let look = move || {
        let there = path.ancestors().find(|ancestor| ancestor.exists());
        let there = there.ok_or_else(|| "nothing of the path is there".to_string())?;
        statvfs(there).map_err(|errno| format!("{}: {errno}", there.display()))
    };
    let found = soon(look).flatten()?;
    Ok(Room {
        free_bytes: found
            .blocks_available()
            .saturating_mul(found.fragment_size()),
        writable: !found.flags().contains(FsFlags::ST_RDONLY),
    })
}
