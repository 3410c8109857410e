//! Disks for figures: plain files that QEMU reads and writes itself, past the host's page cache.
//!
//! A [`crate::disk::Disk`] is served by us, which is what faults need; here nothing of ours is in the way.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use vm_guest::pattern::mix;

const PIECE_BYTES: usize = 1 << 20;

/// One of them; it has no name on the host, so that it cannot be left behind.
#[derive(Clone)]
pub(crate) struct RawDisk {
    name: String,
    file: Arc<File>,
}

impl RawDisk {
    /// Makes a disk of so many bytes below `directory`. Every block of it is written: a file that grows, or whose blocks
    /// are only promised, is slower the first time.
    pub(crate) fn new(name: &str, bytes: u64, directory: &Path) -> anyhow::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(directory)?;
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let path = directory.join(format!("raw-{}-{number}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        fs::remove_file(&path)?;
        let mut random = 1;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while piece.len() < PIECE_BYTES {
            random = mix(random);
            piece.extend(random.to_le_bytes());
        }
        let mut left = usize::try_from(bytes)?;
        while left > 0 {
            let length = left.min(PIECE_BYTES);
            file.write_all(&piece[..length])
                .with_context(|| format!("fill a disk in {}", directory.display()))?;
            left -= length;
        }
        file.sync_all()?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file),
        })
    }

    /// Its serial number in the machine.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// QEMU's description of it.
    pub(crate) fn blockdev(&self, node: &str) -> String {
        let (pid, descriptor) = (std::process::id(), self.file.as_raw_fd());
        format!(
            "driver=raw,node-name={node},cache.direct=on,discard=unmap,file.driver=file,file.cache.direct=on,\
             file.aio=threads,file.filename=/proc/{pid}/fd/{descriptor}"
        )
    }
}
