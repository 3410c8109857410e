//! The file: its name, its room, and the order in which it becomes durable.

use std::fs::DirBuilder;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mirror_core::admin::Kept;
use mirror_core::disk::{KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptHeader, KeptWriter, unpadded};
use nix::sys::statvfs::statvfs;

use super::target::{Target, exists, failed, partial_of, place};
use super::walk::{Piece, walk};
use super::{Job, KeepError, Place, Progress};

/// So much room is left to others: the file system may be the machine's root.
const LEFT_BYTES: u64 = 64 << 20;
/// So much is given to the kernel before it has to be on disk.
const SYNC_BYTES: u64 = 64 << 20;
/// Names with the same second are numbered.
const NUMBERS_MAX: u32 = 100;

/// Keeps the blocks. When it is done, the file is whole and durable under its name.
pub(super) fn keep(job: &Job, progress: &Progress) -> Result<(Kept, Target), KeepError> {
    let path = choose(job)?;
    progress.name(&path);
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    require_room(job, progress, &directory)?;
    let target = Target::create(&path)?;
    progress.begin();
    match write(job, progress, &path, &target) {
        Ok(kept) => Ok((kept, target)),
        Err(error) => {
            job.source.close();
            target.remove();
            Err(error)
        }
    }
}

/// The file's name, which nothing has yet.
fn choose(job: &Job) -> Result<PathBuf, KeepError> {
    let wrong = |path: &Path, why| Err(place(path, why));
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
                if !exists(&path)? && !exists(&partial_of(&path))? {
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

fn write(job: &Job, progress: &Progress, path: &Path, target: &Target) -> Result<Kept, KeepError> {
    let mut header = job.unique.header;
    header.at_s = job.at_s;
    let (mut writer, bytes) = KeptWriter::new(&header);
    let mut output = BufWriter::new(target.file());
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
    // The file's own disk may be slow, and the end of the daemon does not wait for it.
    job.source.close();
    output.write_all(&writer.end()).map_err(write_failed)?;
    output.flush().map_err(write_failed)?;
    output.get_ref().sync_all().map_err(write_failed)?;
    progress.note(0)?;
    target.publish()?;
    // While it got its name the daemon may have begun to end, and nobody may be there to say that it goes.
    progress.note(0)?;
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
    failed("write", &partial_of(path))(error)
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
