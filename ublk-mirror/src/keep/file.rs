//! The file: its name, its room, and the order in which it becomes durable.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mirror_core::admin::Kept;
use mirror_core::disk::{
    KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KEPT_MAGIC, KeptHeader, KeptWriter, unpadded,
};
use nix::sys::statvfs::statvfs;

use super::walk::{Piece, walk};
use super::{Job, KeepError, Place, Progress};

/// Behind the name of a file that is not whole yet.
pub const PARTIAL_SUFFIX: &str = ".partial";
/// So much room is left to others: the file system may be the machine's root.
const LEFT_BYTES: u64 = 64 << 20;
/// So much is given to the kernel before it has to be on disk.
const SYNC_BYTES: u64 = 64 << 20;
/// Names with the same second are numbered.
const NUMBERS_MAX: u32 = 100;

/// Keeps the blocks. When it is done, the file is whole and durable under its name.
pub fn keep(job: &Job, progress: &Progress) -> Result<Kept, KeepError> {
    let path = choose(job)?;
    progress.name(&path);
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    require_room(job, progress, &directory)?;
    let partial = with_suffix(&path);
    let file = create(&partial)?;
    progress.begin();
    let written = write(job, progress, &path, file);
    if written.is_err() {
        remove(&partial);
    }
    written
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PARTIAL_SUFFIX);
    name.into()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::File {
        action,
        path,
        source,
    }
}

fn exists(path: &Path) -> Result<bool, KeepError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

/// The file's name, which nothing has yet.
fn choose(job: &Job) -> Result<PathBuf, KeepError> {
    let wrong = |path: &Path, why| {
        Err(KeepError::Place {
            path: path.to_owned(),
            why,
        })
    };
    match &job.place {
        Place::File(path) if !path.is_absolute() || path.file_name().is_none() => {
            wrong(path, "it is not an absolute path of a file")
        }
        Place::File(path) if exists(path)? => wrong(path, "it exists already"),
        Place::File(path) => Ok(path.clone()),
        Place::Directory(directory) => {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(failed("make the directory", directory))?;
            let name = unpadded(&job.unique.header.volume_name);
            let time = stamp(job.at_s);
            for number in 1..=NUMBERS_MAX {
                let number = match number {
                    1 => String::new(),
                    number => format!("-{number}"),
                };
                let path = directory.join(format!("{name}-{time}{number}.blocks"));
                if !exists(&path)? && !exists(&with_suffix(&path))? {
                    return Ok(path);
                }
            }
            wrong(directory, "every name of this second is taken")
        }
    }
}

/// `20260131T235959Z`.
fn stamp(at_s: u64) -> String {
    let text = mirror_core::admin::utc(at_s);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    match digits.split_at_checked(8) {
        Some((day, time)) => format!("{day}T{time}Z"),
        None => "0".into(),
    }
}

/// Refuses if there is no room. A file of many zeroes may be much smaller than its blocks: then they are read
/// once more than needed.
fn require_room(job: &Job, progress: &Progress, directory: &Path) -> Result<(), KeepError> {
    let Some(free_bytes) = free(directory)? else {
        return Ok(());
    };
    let room = free_bytes.saturating_sub(LEFT_BYTES);
    let runs = job.unique.runs_bytes().count() as u64;
    if KeptHeader::file_bytes_max(job.unique.header.marked_bytes, runs) <= room {
        return Ok(());
    }
    let head = KEPT_HEAD_BYTES as u64;
    let mut needed_bytes = KEPT_HEADER_BYTES as u64 + 2 * head;
    walk(job, progress, |piece| {
        needed_bytes += head;
        if let Piece::Data { data, .. } = piece {
            needed_bytes += data.len() as u64;
        }
        Ok(())
    })?;
    if needed_bytes <= room {
        return Ok(());
    }
    Err(KeepError::NoRoom {
        needed_bytes,
        free_bytes,
        left_bytes: LEFT_BYTES,
        directory: directory.to_owned(),
    })
}

/// What is free; None: the file system does not say.
fn free(directory: &Path) -> Result<Option<u64>, KeepError> {
    let found = statvfs(directory)
        .map_err(|errno| failed("look at the room in", directory)(errno.into()))?;
    let known = found.blocks() > 0;
    Ok(known.then(|| {
        found
            .blocks_available()
            .saturating_mul(found.fragment_size())
    }))
}

/// Makes the file under its temporary name. What an earlier try left there is removed; anything else stays.
fn create(partial: &Path) -> Result<File, KeepError> {
    let mut options = File::options();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW);
    match options.open(partial) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_ours(partial) {
                return Err(KeepError::Place {
                    path: partial.to_owned(),
                    why: "something else has that temporary name",
                });
            }
            fs::remove_file(partial).map_err(failed("remove", partial))?;
            options.open(partial).map_err(failed("create", partial))
        }
        opened => opened.map_err(failed("create", partial)),
    }
}

fn is_ours(partial: &Path) -> bool {
    // Anything but a file might not answer.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(partial);
    let mut begins = Vec::new();
    let read = opened.and_then(|file| file.take(KEPT_MAGIC.len() as u64).read_to_end(&mut begins));
    read.is_ok() && (begins.is_empty() || begins == KEPT_MAGIC)
}

fn write(job: &Job, progress: &Progress, path: &Path, file: File) -> Result<Kept, KeepError> {
    let mut header = job.unique.header;
    header.at_s = job.at_s;
    let (mut writer, bytes) = KeptWriter::new(&header);
    let mut output = BufWriter::new(file);
    let write_failed = |error| not_written(error, job, path);
    output.write_all(&bytes).map_err(write_failed)?;
    let mut kept = Kept {
        file: path.display().to_string(),
        kept_bytes: header.marked_bytes,
        data_bytes: 0,
    };
    let mut unsynced = 0;
    walk(job, progress, |piece| {
        let wrote = match piece {
            Piece::Zeroes {
                offset_bytes,
                length_bytes,
            } => output.write_all(&writer.zeroes(*offset_bytes, *length_bytes)),
            Piece::Data { offset_bytes, data } => {
                kept.data_bytes += data.len() as u64;
                unsynced += data.len() as u64;
                let head = writer.data(*offset_bytes, data);
                output
                    .write_all(&head)
                    .and_then(|()| output.write_all(data))
            }
        };
        wrote.map_err(write_failed)?;
        if unsynced >= SYNC_BYTES {
            unsynced = 0;
            let synced = output.flush().and_then(|()| output.get_ref().sync_data());
            synced.map_err(write_failed)?;
        }
        Ok(())
    })?;
    output.write_all(&writer.end()).map_err(write_failed)?;
    output.flush().map_err(write_failed)?;
    output.get_ref().sync_all().map_err(write_failed)?;
    progress.note(0)?;
    publish(path)?;
    Ok(kept)
}

fn not_written(error: io::Error, job: &Job, path: &Path) -> KeepError {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
        let runs = job.unique.runs_bytes().count() as u64;
        return KeepError::NoRoom {
            needed_bytes: KeptHeader::file_bytes_max(job.unique.header.marked_bytes, runs),
            free_bytes: free(directory).ok().flatten().unwrap_or(0),
            left_bytes: LEFT_BYTES,
            directory: directory.to_owned(),
        };
    }
    failed("write", &with_suffix(path))(error)
}

/// The file gets its name, durably.
fn publish(path: &Path) -> Result<(), KeepError> {
    let partial = with_suffix(path);
    if exists(path)? {
        return Err(KeepError::Place {
            path: path.to_owned(),
            why: "it exists by now",
        });
    }
    fs::rename(&partial, path).map_err(failed("name", path))?;
    sync_directory(path).inspect_err(|_| remove(path))
}

fn sync_directory(path: &Path) -> Result<(), KeepError> {
    // The directory may have been made just now: so the one above it, too.
    for directory in path.ancestors().skip(1).take(3) {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("make durable", directory))?;
    }
    Ok(())
}

/// Nothing was discarded: the file would only mislead.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => drop(sync_directory(path)),
        Err(error) => tracing::warn!(
            code = "LS2074",
            %error,
            path = %path.display(),
            advice = "remove it by hand",
            "a file of blocks is left over, and nothing was discarded"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::stamp;

    #[test]
    fn a_name_has_the_time() {
        assert_eq!(stamp(1_767_225_599), "20251231T235959Z");
        assert_eq!(stamp(0), "0");
    }
}
