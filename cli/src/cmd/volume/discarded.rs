//! `lockstep volume discarded`: what a discarded side of a split brain had alone, looked at and taken out.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mirror_core::admin::utc;
use mirror_core::disk::{KeptHeader, unpadded};

use crate::args::{Discarded, Export};
use crate::copies;
use crate::failure::Failure;
use crate::kept::{self, Contents, Piece};
use crate::size;

/// Names the daemons' state directory instead of [`STATE_DIRECTORY`].
const STATE_DIRECTORY_VARIABLE: &str = "LOCKSTEP_STATE_DIR";
const STATE_DIRECTORY: &str = "/var/lib/lockstep";
const DISCARDED_DIRECTORY: &str = "discarded";
/// Ranges that `show` prints, unless it is to print all.
const RANGES_SHOWN: usize = 64;
/// What a device is filled with zeroes from.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

pub(crate) fn run(command: &Discarded) -> Result<u8, Failure> {
    match command {
        Discarded::List { directory } => list(directory.clone().unwrap_or_else(usual)),
        Discarded::Show { file, all } => {
            let shown = if *all { usize::MAX } else { RANGES_SHOWN };
            show(file, shown)
        }
        Discarded::Export(export) => self::export(export),
    }
}

fn usual() -> PathBuf {
    let state = env::var_os(STATE_DIRECTORY_VARIABLE);
    let state = state.map_or_else(|| PathBuf::from(STATE_DIRECTORY), PathBuf::from);
    state.join(DISCARDED_DIRECTORY)
}

fn list(directory: PathBuf) -> Result<u8, Failure> {
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("nothing is kept in {}", directory.display());
            return Ok(0);
        }
        Err(error) => return Err(Failure::file(&directory, "read", &error)),
    };
    let named = |path: &PathBuf| {
        let name = path.to_string_lossy().to_string();
        let name = name.strip_suffix(kept::PARTIAL_SUFFIX).unwrap_or(&name);
        name.ends_with(kept::SUFFIX)
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.filter(named).collect();
    paths.sort();
    if paths.is_empty() {
        println!("nothing is kept in {}", directory.display());
    }
    for path in paths {
        println!("{}", path.display());
        match kept::header(&path) {
            Ok(header) => println!("  {}", about(&header)),
            Err(failure) => println!("  {} {}", failure.problem.code, failure.problem.message),
        }
        if kept::is_partial(&path) {
            println!("  NOT WHOLE: the daemon ended before it was, and nothing was discarded");
        }
    }
    Ok(0)
}

/// One line: whose, when, how much.
fn about(header: &KeptHeader) -> String {
    format!(
        "{} of {}, {}, {} in blocks of {}, from the view of epoch {}",
        unpadded(&header.volume_name),
        unpadded(&header.node_name),
        utc(header.at_s),
        size::bytes(header.marked_bytes),
        size::bytes(u64::from(header.block_bytes)),
        header.view.epoch.0
    )
}

/// Pieces that lie side by side are one range.
#[derive(Default)]
struct Ranges {
    last: Option<std::ops::Range<u64>>,
    count: usize,
    shown: usize,
    text: String,
}

impl Ranges {
    fn add(&mut self, piece: &Piece<'_>) {
        let (start, length) = match piece {
            Piece::Data { offset_bytes, data } => (*offset_bytes, data.len() as u64),
            Piece::Zeroes {
                offset_bytes,
                length_bytes,
            } => (*offset_bytes, *length_bytes),
        };
        match &mut self.last {
            Some(last) if last.end == start => last.end += length,
            _ => {
                self.flush();
                self.last = Some(start..start + length);
            }
        }
    }

    fn flush(&mut self) {
        let Some(range) = self.last.take() else {
            return;
        };
        self.count += 1;
        if self.count <= self.shown {
            let length = size::bytes(range.end - range.start);
            let _ = writeln!(
                self.text,
                "  bytes {} to {}  {length}",
                range.start,
                range.end - 1
            );
        }
    }
}

fn show(file: &Path, shown: usize) -> Result<u8, Failure> {
    let mut ranges = Ranges {
        shown,
        ..Ranges::default()
    };
    let contents = kept::walk(file, |piece| {
        ranges.add(piece);
        Ok(())
    })?;
    ranges.flush();
    print!("{}", description(&contents));
    print!("{}", ranges.text);
    if ranges.count > shown {
        println!(
            "  and {} more ranges; --all shows them",
            ranges.count - shown
        );
    }
    Ok(0)
}

fn description(contents: &Contents) -> String {
    let header = &contents.header;
    let common = match header.common.epoch.0 {
        0 => "it was not known what only this side had: everything was kept".to_string(),
        epoch => format!("the histories went apart at epoch {epoch}"),
    };
    let zeroes = header.marked_bytes.saturating_sub(contents.data_bytes);
    format!(
        "{}\n  {common}\n  volume of {}, id {}; every checksum is right; {} of it are zeroes\n",
        about(header),
        size::bytes(header.size_bytes),
        header.volume_id,
        size::bytes(zeroes)
    )
}

fn export(export: &Export) -> Result<u8, Failure> {
    // All of it is checked before anything is written anywhere.
    let contents = kept::walk(&export.file, |_| Ok(()))?;
    let header = &contents.header;
    match (&export.to, &export.onto) {
        (Some(to), _) => {
            let image = new_image(to, header.size_bytes)?;
            let written = kept::walk(&export.file, |piece| match piece {
                Piece::Data { offset_bytes, data } => put(&image, to, data, *offset_bytes),
                // A hole reads as zeroes.
                Piece::Zeroes { .. } => Ok(()),
            });
            if let Err(failure) = written.and_then(|_| synced(&image, to)) {
                let _ = fs::remove_file(to);
                return Err(failure);
            }
            println!(
                "{} are in {} at their places; everything else in it is a hole",
                size::bytes(header.marked_bytes),
                to.display()
            );
        }
        (None, Some(onto)) => {
            let device = free_device(onto, header, export.confirm.as_deref())?;
            kept::walk(&export.file, |piece| match piece {
                Piece::Data { offset_bytes, data } => put(&device, onto, data, *offset_bytes),
                Piece::Zeroes {
                    offset_bytes,
                    length_bytes,
                } => put_zeroes(&device, onto, *offset_bytes, *length_bytes),
            })?;
            synced(&device, onto)?;
            println!(
                "{} were written over {}",
                size::bytes(header.marked_bytes),
                onto.display()
            );
        }
        (None, None) => unreachable!("the command line asks for one of the two"),
    }
    Ok(0)
}

fn put(file: &File, path: &Path, data: &[u8], at: u64) -> Result<(), Failure> {
    file.write_all_at(data, at)
        .map_err(|error| Failure::file(path, "write", &error))
}

fn put_zeroes(file: &File, path: &Path, at: u64, length: u64) -> Result<(), Failure> {
    let mut done = 0;
    while done < length {
        let rest = usize::try_from(length - done).unwrap_or(usize::MAX);
        let step = rest.min(ZEROES.len());
        put(file, path, &ZEROES[..step], at + done)?;
        done += step as u64;
    }
    Ok(())
}

fn synced(file: &File, path: &Path) -> Result<(), Failure> {
    file.sync_all()
        .map_err(|error| Failure::file(path, "write", &error))
}

fn new_image(path: &Path, size_bytes: u64) -> Result<File, Failure> {
    let made = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let image = made.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return refused(
                path,
                "exists already",
                "name a file that does not exist yet",
            );
        }
        Failure::file(path, "create", &error)
    })?;
    if let Err(error) = image.set_len(size_bytes) {
        let _ = fs::remove_file(path);
        return Err(Failure::file(path, "enlarge", &error));
    }
    Ok(image)
}

fn refused(path: &Path, what: &str, advice: &str) -> Failure {
    let message = format!("{} {what}; nothing was written", path.display());
    Failure::new("LS4014", message, advice)
}

/// A copy changes only together with the other one.
fn refused_copy(path: &Path, what: &str, volume: &str) -> Failure {
    let advice = format!(
        "to write the blocks over the volume, name /dev/lockstep/{volume} on the node that serves it; otherwise name \
         another device"
    );
    refused(path, what, &advice)
}

/// A block device that nobody else has, large enough, and named by somebody who knows what goes onto it.
fn free_device(path: &Path, header: &KeptHeader, confirm: Option<&str>) -> Result<File, Failure> {
    let name = unpadded(&header.volume_name);
    if confirm != Some(name) {
        return Err(Failure::new(
            "LS4015",
            format!("the blocks are of the volume {name}, and that name was not repeated"),
            format!(
                "see that {} is the device that you mean, then repeat the command with --confirm {name}",
                path.display()
            ),
        ));
    }
    let found = fs::metadata(path).map_err(|error| Failure::file(path, "look at", &error))?;
    if let Some(volume) = copies::volume_on(&found)? {
        let what = format!("holds the copy of {volume} on this node, or its metadata");
        return Err(refused_copy(path, &what, &volume));
    }
    if !found.file_type().is_block_device() {
        return Err(refused(
            path,
            "is no block device",
            "write an image with --to FILE",
        ));
    }
    let opened = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(path);
    // Nobody else has it from here on: what is found on it stays true.
    let mut device = opened.map_err(|error| {
        if error.raw_os_error() == Some(nix::libc::EBUSY) {
            let advice = "unmount it and stop what uses it (`lsblk`, `fuser -v DEVICE`)";
            return refused(path, "is in use", advice);
        }
        Failure::file(path, "open", &error)
    })?;
    let copy = copies::carries_a_copy(&device);
    if copy.map_err(|error| Failure::file(path, "read", &error))? {
        let what = "holds a copy of a Lockstep volume, or its metadata";
        return Err(refused_copy(path, what, name));
    }
    let size = device
        .seek(SeekFrom::End(0))
        .map_err(|error| Failure::file(path, "measure", &error))?;
    if size < header.size_bytes {
        let what = format!("has {size} bytes, the volume had {}", header.size_bytes);
        return Err(refused(path, &what, "name a device that is large enough"));
    }
    Ok(device)
}
