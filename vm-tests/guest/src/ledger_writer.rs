//! Writes blocks whose content says who they are, and reports each request and each promise.
//!
//! Every worker owns the blocks `n` with `n % workers == worker`, so no block ever has two writes in flight.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vm_guest::pattern::{SECTOR_BYTES, fill_block, mix};
use vm_guest::record::{Kind, Record};
use vm_guest::{LEDGER_PORT_PREFIX, LEDGER_PORTS, PORT_DIRECTORY};

const QUEUE_DEPTH_MAX: u64 = 128;
/// O_DIRECT wants aligned memory; this satisfies every disk.
const BUFFER_ALIGNMENT: usize = 4096;
/// How long `--wait` waits.
const WAIT_LIMIT: Duration = Duration::from_secs(300);
/// Between two looks.
const WAIT_INTERVAL: Duration = Duration::from_millis(10);

/// When a worker flushes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fsync {
    Never,
    Every(u64),
}

fn parse_fsync(text: &str) -> Result<Fsync, String> {
    if text == "none" {
        return Ok(Fsync::Never);
    }
    let count = text
        .strip_prefix("every-")
        .and_then(|number| number.parse().ok());
    count
        .filter(|count| *count > 0)
        .map(Fsync::Every)
        .ok_or_else(|| "none or every-N".to_owned())
}

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    device: PathBuf,
    /// Number of blocks to use, from the start of the device.
    #[arg(long)]
    blocks: u64,
    #[arg(long, default_value_t = 4096)]
    block_size: usize,
    #[arg(long, default_value_t = 8)]
    queue_depth: u64,
    /// `none`, or `every-N` writes of a worker.
    #[arg(long, default_value = "none", value_parser = parse_fsync)]
    fsync: Fsync,
    /// Each write is made durable by itself.
    #[arg(long)]
    fua: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of this run: the harness gives each writer of a scenario another one.
    #[arg(long)]
    run: u32,
    /// How long to write.
    #[arg(long)]
    seconds: u64,
    /// Stop after so many writes (0: only by time).
    #[arg(long, default_value_t = 0)]
    writes: u64,
    /// Which ledger port to use.
    #[arg(long, default_value_t = 0)]
    port: usize,
    /// Go on after an error instead of ending.
    #[arg(long)]
    keep_going: bool,
    /// Begin when the device can be read, and count the time from then.
    #[arg(long)]
    wait: bool,
}

struct Shared {
    port: Mutex<File>,
    sequence: AtomicU64,
    device: File,
    deadline: Instant,
}

impl Shared {
    fn record(&self, record: Record) -> io::Result<()> {
        self.port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&record.encode())
    }

    /// Waits until the host has taken in all that this run said; what it answered to a writer that was killed is passed over.
    fn wait_until_heard(&self, run: u32) -> io::Result<()> {
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = [0; 4];
        let mut heard = 0;
        while heard < last.len() || u32::from_le_bytes(last) != run {
            last.rotate_left(1);
            port.read_exact(&mut last[3..])?;
            heard += 1;
        }
        Ok(())
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.block_size == 0 || !options.block_size.is_multiple_of(SECTOR_BYTES) {
        bail!("the block size must be a multiple of {SECTOR_BYTES}");
    }
    if options.port >= LEDGER_PORTS || options.queue_depth == 0 || options.blocks == 0 {
        bail!("port below {LEDGER_PORTS}, queue depth and blocks above 0");
    }
    let workers = options.queue_depth.min(options.blocks).min(QUEUE_DEPTH_MAX);
    let port = format!("{PORT_DIRECTORY}/{LEDGER_PORT_PREFIX}{}", options.port);
    let shared = Arc::new(Shared {
        port: Mutex::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(&port)
                .with_context(|| format!("open {port}"))?,
        ),
        sequence: AtomicU64::new(0),
        device: open_device(options)?,
        deadline: Instant::now() + Duration::from_secs(options.seconds),
    });
    let start = |kind| Record {
        run: options.run,
        kind,
        block: options.blocks,
        sequence: options.block_size as u64,
    };
    shared.record(start(Kind::Start))?;
    let results: Vec<io::Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let shared = Arc::clone(&shared);
                scope.spawn(move || work(options, &shared, worker, workers))
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    let failures: Vec<String> = results
        .into_iter()
        .filter_map(|result| result.err().map(|e| e.to_string()))
        .collect();
    shared.record(start(Kind::End))?;
    shared.wait_until_heard(options.run)?;
    println!("issued {}", shared.sequence.load(Ordering::SeqCst));
    if !failures.is_empty() {
        bail!(
            "{} of {workers} workers failed: {}",
            failures.len(),
            failures[0]
        );
    }
    Ok(())
}

fn open_device(options: &Options) -> anyhow::Result<File> {
    let limit = Instant::now() + WAIT_LIMIT;
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(&options.device)
            .and_then(|device| {
                if options.wait {
                    read_once(device)
                } else {
                    Ok(device)
                }
            });
        if opened.is_ok() || !options.wait || Instant::now() > limit {
            return opened.with_context(|| format!("open {}", options.device.display()));
        }
        thread::sleep(WAIT_INTERVAL);
    }
}

/// A device that is fenced can be opened and answers with errors.
fn read_once(device: File) -> io::Result<File> {
    let mut memory = vec![0_u8; BUFFER_ALIGNMENT * 2];
    let skip = memory.as_ptr().align_offset(BUFFER_ALIGNMENT);
    device.read_exact_at(&mut memory[skip..skip + BUFFER_ALIGNMENT], 0)?;
    Ok(device)
}

fn work(options: &Options, shared: &Shared, worker: u64, workers: u64) -> io::Result<()> {
    // A power of two that the allocator need not know about: the buffer is over-long and cut to measure.
    let mut memory = vec![0_u8; options.block_size + BUFFER_ALIGNMENT];
    let skip = memory.as_ptr().align_offset(BUFFER_ALIGNMENT);
    let buffer = &mut memory[skip..skip + options.block_size];
    let own_blocks = (options.blocks - worker).div_ceil(workers);
    let mut random = mix(options.seed ^ mix(worker));
    let mut writes: u64 = 0;
    while Instant::now() < shared.deadline {
        let sequence = shared.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        if options.writes != 0 && sequence > options.writes {
            break;
        }
        random = mix(random);
        let block = worker + workers * (random % own_blocks);
        fill_block(options.run, block, sequence, buffer);
        let record = |kind| {
            shared.record(Record {
                run: options.run,
                kind,
                block,
                sequence,
            })
        };
        record(Kind::Issue)?;
        match write(
            shared.device.as_raw_fd(),
            buffer,
            block * options.block_size as u64,
            options.fua,
        ) {
            Ok(()) => record(Kind::Ack)?,
            Err(error) => {
                record(Kind::WriteFailed)?;
                if !options.keep_going {
                    return Err(error);
                }
            }
        }
        writes += 1;
        if let Fsync::Every(count) = options.fsync
            && writes.is_multiple_of(count)
        {
            flush(options, shared, worker, writes)?;
        }
    }
    Ok(())
}

fn flush(options: &Options, shared: &Shared, worker: u64, writes: u64) -> io::Result<()> {
    // Flush numbers of different workers must differ.
    let sequence = writes * QUEUE_DEPTH_MAX + worker;
    let record = |kind| {
        shared.record(Record {
            run: options.run,
            kind,
            block: 0,
            sequence,
        })
    };
    record(Kind::FlushIssue)?;
    match shared.device.sync_data() {
        Ok(()) => record(Kind::FlushAck),
        Err(error) => {
            record(Kind::FlushFailed)?;
            if options.keep_going {
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}

fn write(device: RawFd, data: &[u8], offset: u64, fua: bool) -> io::Result<()> {
    let vector = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    let flags = if fua { libc::RWF_DSYNC } else { 0 };
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: one vector over a live buffer that the call only reads.
    let written = unsafe { libc::pwritev2(device, &raw const vector, 1, offset, flags) };
    match usize::try_from(written) {
        Ok(length) if length == data.len() => Ok(()),
        Ok(_) => Err(io::Error::other("short write")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
