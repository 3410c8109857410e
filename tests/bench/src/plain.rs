//! The floor: a job as plain io_uring writes to one file, through the daemon's own ring, without a mirror and without a copy of
//! the payload.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mirror_core::effect::DiskOperation;
use mirror_core::event::IoOwner;
use mirror_core::limits::{QUEUE_DEPTH, REQUEST_BYTES_MAX};
use mirror_core::types::{SECTOR_BYTES, SectorRange, Tag};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use ublk_mirror::local_disk::{Ended, LocalDisk};
use ublk_mirror::ring::{Completion, DATA_FILE, Ring, pools};

use crate::job::{Job, Running, Step};
use crate::line::{Ask, Counts, done};

const WAIT_MAX: Duration = Duration::from_secs(5);

/// Does what is asked over `control` until its other end is gone.
///
/// # Errors
/// The file cannot be used, or the ring fails.
pub fn serve(path: &Path, control: UnixStream) -> Result<(), anyhow::Error> {
    let file = File::options().read(true).write(true).open(path)?;
    // As the daemon does; file systems in memory may refuse it.
    if let Err(errno) = fcntl(&file, FcntlArg::F_SETFL(OFlag::O_DIRECT)) {
        eprintln!("no direct I/O: {errno}");
    }
    let size_sectors = file.metadata()?.len() / SECTOR_BYTES;
    let (data, link) = pools(u32::from(QUEUE_DEPTH), REQUEST_BYTES_MAX, 1, 4096)?;
    let mut ring = Ring::new(data, link, 1)?;
    ring.register(DATA_FILE, file.as_raw_fd())?;
    let mut disk = LocalDisk::new(0);
    let mut answers = control.try_clone()?;
    for line in BufReader::new(control).lines() {
        let answer = match line?.parse()? {
            Ask::Count => format!("{}\n", Counts::now(ring.work())),
            Ask::Run(job) => run(&mut ring, &mut disk, job, size_sectors)?,
        };
        answers.write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn run(
    ring: &mut Ring,
    disk: &mut LocalDisk,
    job: Job,
    size_sectors: u64,
) -> Result<String, anyhow::Error> {
    let mut running = Running::new(job, size_sectors);
    let mut completions: Vec<Completion> = Vec::new();
    for tag in running.tags() {
        start(ring, disk, &mut running, tag);
    }
    loop {
        if let Some((took, failed)) = running.result() {
            return Ok(done(took, failed));
        }
        ring.submit_and_wait(WAIT_MAX)?;
        ring.completions(&mut completions);
        for completion in completions.drain(..) {
            let ended = disk.complete(ring, completion.token.index, completion.outcome());
            if let Some(Ended::Done {
                owner: IoOwner::Application(tag),
                result,
            }) = ended
            {
                running.ended(tag.0, result.is_ok());
                start(ring, disk, &mut running, tag.0);
            }
        }
    }
}

fn start(ring: &mut Ring, disk: &mut LocalDisk, running: &mut Running, tag: u16) {
    let (operation, range) = match running.next(tag) {
        None => return,
        Some(Step::Flush) => (DiskOperation::Flush, SectorRange::new(0, 0)),
        Some(Step::Write(range)) => (DiskOperation::Write { fua: false }, range),
    };
    disk.start(ring, IoOwner::Application(Tag(tag)), operation, range);
}
