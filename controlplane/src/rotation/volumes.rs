//! The daemons of the volumes: each reads the key file by itself, when it starts and when it is told to.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use controlplane_api::{Client, ClientError};
use mirror_core::admin::Problem;
use mirror_core::keys::Place;
use serde::Deserialize;

use super::{Settings, told};
use crate::daemons::{Places, Turn};

/// Of a volume's file all that counts here. What else is wrong with it, its daemon says.
#[derive(Deserialize)]
struct VolumeFile {
    key_file: PathBuf,
}

/// A daemon of an earlier release does not know the question.
const UNKNOWN_REQUEST: &str = "LS3031";

/// The names of the files in a directory that end so; a directory that is not there has none.
fn names(directory: &Path, endings: &[&str]) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let stems = endings
            .iter()
            .filter_map(|ending| name.strip_suffix(ending));
        names.extend(stems.map(str::to_string));
    }
    Ok(names)
}

/// The volumes that have a file here.
fn configured(settings: &Settings) -> Result<BTreeSet<String>, Problem> {
    let names = names(&settings.volumes, &[".toml"]);
    names.map_err(|error| told::unclear_volumes(&settings.name, &settings.volumes, &error))
}

/// Also those whose daemon may run while their file is gone.
fn all(settings: &Settings) -> Result<BTreeSet<String>, Problem> {
    let mut all = configured(settings)?;
    let there = names(&settings.run, &[".sock", ".lock"]);
    all.extend(
        there.map_err(|error| told::unclear_volumes(&settings.name, &settings.run, &error))?,
    );
    Ok(all)
}

fn key_file(path: &Path) -> Result<PathBuf, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let file: VolumeFile = toml::from_str(&text).map_err(|error| error.message().to_string())?;
    Ok(file.key_file)
}

/// Whether both are one file.
fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Each volume has the key file of this node, and its daemon, if it runs, goes by what is in it.
pub(super) fn ready(settings: &Settings, place: Place) -> Result<(), Problem> {
    let name = &settings.name;
    for volume in configured(settings)? {
        let path = settings.volumes.join(format!("{volume}.toml"));
        let key_file =
            key_file(&path).map_err(|why| told::unclear_key_file(name, &volume, &path, &why))?;
        if !same(&key_file, &settings.path) {
            let files = (&*key_file, &*settings.path);
            return Err(told::own_key_file(name, &volume, files));
        }
    }
    adopt(settings, place)
}

/// Each daemon that runs goes by what is in the file now. One that does not run reads it when it starts. Which of them run is
/// asked of themselves: what is in the volumes' files now says nothing of a daemon that was started before.
pub(super) fn adopt(settings: &Settings, place: Place) -> Result<(), Problem> {
    let config = settings.volumes.parent().unwrap_or(Path::new("/"));
    for volume in all(settings)? {
        let places = Places {
            run: settings.run.clone(),
            ..Places::of(&volume, config)
        };
        goes_by(&places, place).map_err(|fault| match fault {
            Fault::Earlier => told::earlier_daemon(&settings.name, &volume),
            Fault::Other(why) => told::not_adopted(&settings.name, &volume, &why),
        })?;
    }
    Ok(())
}

/// Why a daemon may go by something else.
enum Fault {
    /// It is of an earlier release.
    Earlier,
    Other(String),
}

fn other(error: impl ToString) -> Fault {
    Fault::Other(error.to_string())
}

fn goes_by(places: &Places, place: Place) -> Result<(), Fault> {
    let stream = match places.connect() {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return does_not_run(places).map_err(other);
        }
        Err(error) => return Err(other(error)),
    };
    match Client::keys_over(stream) {
        Ok(there) if there == place => Ok(()),
        Ok(_) => Err(other("it reads another key file")),
        Err(ClientError::Refused(problem)) if problem.code == UNKNOWN_REQUEST => {
            Err(Fault::Earlier)
        }
        Err(error) => Err(other(error)),
    }
}

/// Nobody listens at its socket. It does not run if nobody holds its lock either, while nobody can start it.
fn does_not_run(places: &Places) -> io::Result<()> {
    let lock = match File::open(places.lock()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    let turn = Turn::try_take(places).map_err(io::Error::other)?;
    if turn.is_none() {
        return Err(io::Error::other("it is being started or stopped"));
    }
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(
            "it runs, or starts, and does not listen at its socket",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
