//! Data disks that we serve to QEMU ourselves, so that every fault is ours and takes effect at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::agent::lock;
use crate::binaries::target_directory;
use crate::nbd;
use crate::volatile::Store;
pub use crate::volatile::{DiskMode, PowerCut, SECTOR_BYTES};
use crate::wait::wait_until;
use crate::write_log::{Order, WriteLog};

const DISCONNECT_LIMIT: Duration = Duration::from_secs(20);
const COMPARE_CHUNK_BYTES: usize = 1 << 20;

/// What a machine asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Read,
    /// Writes, discards and zeroing.
    Write,
    /// Flushes.
    Flush,
}

const OPS: usize = 3;

#[derive(Default)]
pub(crate) struct Faults {
    /// Ranges that fail, for each operation; for flushes any range means all.
    errors: [Vec<Range<u64>>; OPS],
    /// Operations that are not answered.
    pub(crate) stuck: [bool; OPS],
    pub(crate) latency: Duration,
    /// Pieces of [`PIECE_BYTES`] that cannot be read until they are written as a whole.
    unreadable: BTreeSet<u64>,
}

/// What becomes readable at once when it is written.
const PIECE_BYTES: u64 = 4096;

impl Faults {
    pub(crate) fn fails(&mut self, op: Op, offset: u64, length: u64) -> bool {
        let end = offset + length;
        match op {
            Op::Read => {
                let touched = offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES);
                if self.unreadable.range(touched).next().is_some() {
                    return true;
                }
            }
            Op::Write => {
                let whole = offset.div_ceil(PIECE_BYTES)..end / PIECE_BYTES;
                self.unreadable.retain(|piece| !whole.contains(piece));
            }
            Op::Flush => {}
        }
        let ranges = &self.errors[op as usize];
        ranges
            .iter()
            .any(|range| op == Op::Flush || (offset < range.end && offset + length > range.start))
    }
}

/// How much a machine asked of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads, writes, flushes.
    pub reads: u64,
    /// Writes, with discards and zeroing.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

#[derive(Default)]
pub(crate) struct AtomicCounters {
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) store: Mutex<Store>,
    pub(crate) faults: Mutex<Faults>,
    /// Wakes requests that wait, when a fault is taken away.
    pub(crate) changed: Condvar,
    pub(crate) counters: AtomicCounters,
    pub(crate) connections: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// One data disk. It lives as long as the cluster, whatever happens to its machine.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    socket: PathBuf,
    _server: Arc<nbd::Server>,
}

impl Disk {
    /// Makes an empty disk and serves it at `socket`.
    ///
    /// # Errors
    /// If the file or the socket cannot be made.
    pub fn new(name: &str, size: u64, mode: DiskMode, socket: PathBuf) -> anyhow::Result<Self> {
        if size == 0 || !size.is_multiple_of(4096) {
            bail!("the size of a disk is a multiple of 4096");
        }
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            size,
            store: Mutex::new(Store::new(anonymous_file(size)?, mode)),
            faults: Mutex::new(Faults::default()),
            changed: Condvar::new(),
            counters: AtomicCounters::default(),
            connections: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let server = nbd::Server::start(Arc::clone(&shared), &socket)?;
        Ok(Self {
            shared,
            socket,
            _server: Arc::new(server),
        })
    }

    /// Its name, which is also its serial number.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Lets an operation fail with an I/O error in a range of bytes (any range does for flushes).
    pub fn fail(&self, op: Op, range: Range<u64>) {
        lock(&self.shared.faults).errors[op as usize].push(range);
    }

    /// Lets reads of a range fail, each piece of 4 KiB until it is written again: a disk puts what is written to another
    /// place.
    pub fn lose_reads(&self, range: Range<u64>) {
        let pieces = range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES);
        lock(&self.shared.faults).unreadable.extend(pieces);
    }

    /// Lets every operation fail, everywhere.
    pub fn fail_everything(&self) {
        for op in [Op::Read, Op::Write, Op::Flush] {
            self.fail(op, 0..u64::MAX);
        }
    }

    /// An operation is not answered any more, until [`Disk::heal`].
    pub fn stick(&self, op: Op) {
        lock(&self.shared.faults).stuck[op as usize] = true;
    }

    /// Everything takes this much longer.
    pub fn slow(&self, latency: Duration) {
        lock(&self.shared.faults).latency = latency;
    }

    /// Takes every fault away; what was stuck is done now. Damage stays.
    pub fn heal(&self) {
        *lock(&self.shared.faults) = Faults::default();
        self.shared.changed.notify_all();
    }

    /// Changes every byte of a range on the medium, silently.
    ///
    /// # Errors
    /// If the range is outside of the disk.
    pub fn corrupt(&self, range: Range<u64>) -> anyhow::Result<()> {
        let length = usize::try_from(range.end.saturating_sub(range.start))?;
        let mut store = lock(&self.shared.store);
        // Otherwise the cache would hide the damage, and later repair it.
        store.flush()?;
        store.damage(range.start, length).context("damage the disk")
    }

    /// Reads what a machine would read.
    ///
    /// # Errors
    /// If the range is outside of the disk or not in whole sectors.
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> anyhow::Result<()> {
        if !offset.is_multiple_of(SECTOR_BYTES as u64) || !data.len().is_multiple_of(SECTOR_BYTES) {
            bail!("only whole sectors can be read");
        }
        lock(&self.shared.store)
            .read(offset, data)
            .with_context(|| format!("read {} at {offset}", self.name()))
    }

    /// Writes as a machine would, and flushes: to prepare content from the host.
    ///
    /// # Errors
    /// If the range is outside of the disk.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        if offset + data.len() as u64 > self.size() || !offset.is_multiple_of(SECTOR_BYTES as u64) {
            bail!("outside of the disk, or not in whole sectors");
        }
        let mut store = lock(&self.shared.store);
        store.write(offset, data.to_vec())?;
        Ok(store.flush()?)
    }

    /// Writes down every write and flush from now on. What is there now counts as flushed.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn record(&self, order: Order) -> anyhow::Result<()> {
        let size = usize::try_from(self.size())?;
        Ok(lock(&self.shared.store).record(order, size)?)
    }

    /// Ends the recording and gives it away.
    ///
    /// # Errors
    /// If there was none.
    pub fn recorded(&self) -> anyhow::Result<WriteLog> {
        lock(&self.shared.store)
            .recorded()
            .with_context(|| format!("disk {} was not recorded", self.name()))
    }

    /// What the machine asked for since the disk was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counters = &self.shared.counters;
        Counters {
            reads: counters.reads.load(Ordering::SeqCst),
            writes: counters.writes.load(Ordering::SeqCst),
            flushes: counters.flushes.load(Ordering::SeqCst),
            bytes_written: counters.bytes_written.load(Ordering::SeqCst),
        }
    }

    /// The power goes: a random subset of the unflushed writes is lost. QEMU must have been killed.
    ///
    /// # Errors
    /// If QEMU still holds the disk.
    pub fn power_cut(&self, seed: u64) -> anyhow::Result<PowerCut> {
        self.wait_disconnected()?;
        Ok(lock(&self.shared.store).power_cut(seed)?)
    }

    /// Waits until no QEMU holds the disk, and all it had sent has been taken or dropped.
    pub(crate) fn wait_disconnected(&self) -> anyhow::Result<()> {
        let what = format!("disk {} let go", self.name());
        wait_until(DISCONNECT_LIMIT, &what, || {
            Ok(self.shared.connections.load(Ordering::SeqCst) == 0)
        })?;
        Ok(())
    }
}

/// Fails at the first difference of two disks in a range.
///
/// # Errors
/// If they differ or cannot be read.
pub fn assert_identical(a: &Disk, b: &Disk, range: Range<u64>) -> anyhow::Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset)?.min(COMPARE_CHUNK_BYTES);
        let (mut left, mut right) = (vec![0; length], vec![0; length]);
        a.read_at(offset, &mut left)?;
        b.read_at(offset, &mut right)?;
        if let Some(at) = left
            .iter()
            .zip(&right)
            .position(|(left, right)| left != right)
        {
            let end = (at + 16).min(length);
            bail!(
                "{} and {} differ from byte {}: {:02x?} and {:02x?}",
                a.name(),
                b.name(),
                offset + at as u64,
                &left[at..end],
                &right[at..end]
            );
        }
        offset += length as u64;
    }
    Ok(())
}

/// A sparse file without a name: it cannot be left behind.
fn anonymous_file(size: u64) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let directory = target_directory().join("vm-run");
    fs::create_dir_all(&directory)?;
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let path = directory.join(format!("disk-{}-{number}", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    file.set_len(size)?;
    Ok(file)
}
