//! Makes this node's copy: no superblock, an empty activity log and bitmap, then the first superblock
//! in both places. A crash in between leaves a device that nobody takes for a copy.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mirror_core::disk::{
    BLOCK_BYTES, BitmapPage, Isolation, Layout, LayoutError, Metadata, PAGE_WORDS, Record,
    Superblock,
};
use mirror_core::limits::{
    BITMAP_BLOCK_BYTES_MAX, EXTENT_BLOCKS_MAX, NODES_MAX, VOLUME_SECTORS_MAX, VOLUME_SECTORS_MIN,
};
use mirror_core::types::{
    BackingId, BootId, CopyId, Epoch, Incarnation, NodeSet, SECTOR_BYTES, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory, ViewMark};
use nix::fcntl::{FallocateFlags, fallocate};
use thiserror::Error;

use crate::claim::{Claim, ClaimError, Part};
use crate::config::Config;
use crate::disown::{self, DisownError};
use crate::dm::DeviceNumber;
use crate::explain::Explain;
use crate::identity::{Identity, SYSFS};
use crate::metadata::{self, Devices, MetadataError};
use crate::startup::{LockError, VolumeLock, claim_advice};
use crate::sys;

mod found;

pub use found::FoundCopy;

/// Requests never cross a multiple of this, and a volume's size is one where nobody asks for another.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// What one bit of the bitmap stands for if nobody says otherwise.
pub const BITMAP_BLOCK_BYTES: u64 = 4096;
/// How many times its size a volume may grow to if nobody says otherwise.
const GROWTH_DEFAULT: u64 = 4;
/// So often is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Which copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// Holds the volume from now on.
    First,
    /// Waits to be filled by the other node.
    Joins,
}

#[derive(Clone, Debug)]
pub struct FormatRequest {
    pub copy: Copy,
    /// Overwrite what is found.
    pub force: bool,
    /// With `force`: the volumes whose copies may be thrown away, if there are copies on the devices.
    pub confirmed: Vec<String>,
    pub size_bytes: Option<u64>,
    pub growth_bytes: Option<u64>,
    /// What one bit of the bitmap stands for. The copies' may differ.
    pub bitmap_block_bytes: u64,
    pub runtime_dir: PathBuf,
}

/// Why no copy was made.
#[derive(Debug, Error)]
pub enum FormatError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{} holds {what}", .path.display())]
    Signature { path: PathBuf, what: String },
    #[error("{0}")]
    Copy(FoundCopy),
    #[error("cannot look for signatures on {} with blkid", .path.display())]
    Probe {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot claim a device")]
    Claim(#[from] ClaimError),
    #[error("{} has {has_bytes} bytes, {needs_bytes} are needed for {purpose}", .path.display())]
    TooSmall {
        path: PathBuf,
        has_bytes: u64,
        needs_bytes: u64,
        purpose: &'static str,
    },
    #[error("{option} {value} is not allowed: {allowed}")]
    Size {
        option: &'static str,
        value: u64,
        allowed: String,
    },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot clear the metadata area on {}", .path.display())]
    Zero {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Disown(#[from] DisownError),
    #[error("cannot ask the kernel")]
    Kernel(#[source] io::Error),
}

impl Explain for FormatError {
    fn code(&self) -> &'static str {
        match self {
            Self::Lock(error) => error.code(),
            Self::Disown(error) => error.code(),
            Self::Signature { .. } => "LS5010",
            Self::Copy(_) => "LS1085",
            Self::Probe { .. } => "LS5011",
            Self::Claim(ClaimError::InUse { .. }) => "LS5012",
            Self::Claim(_) => "LS5013",
            Self::TooSmall { .. } => "LS5014",
            Self::Size { .. } | Self::Layout(_) => "LS5015",
            Self::Zero { .. } => "LS5016",
            Self::Metadata(error) => error.code(),
            Self::Kernel(_) => "LS5017",
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Lock(error) => error.advice(),
            Self::Disown(error) => error.advice(),
            Self::Signature { path, .. } => format!(
                "see that {} is the right device and nobody needs what is on it; --force overwrites it, and wants --confirm NAME for a copy of volume NAME",
                path.display()
            ),
            Self::Copy(found) => found.advice(),
            Self::Probe { .. } => {
                "install util-linux, or be sure of the device and use --force".into()
            }
            Self::Claim(error) => claim_advice(error).into(),
            Self::TooSmall { .. } => {
                "use a larger device, a smaller --size or a smaller --grow-to".into()
            }
            Self::Size { .. } | Self::Layout(_) => {
                "give another --size, --grow-to or --bitmap-block".into()
            }
            Self::Zero { .. } => {
                "look at the kernel's log: the device may be failing or full".into()
            }
            Self::Metadata(error) => error.advice(),
            Self::Kernel(_) => "run as root on Linux 6.8 or later".into(),
        }
    }
}

/// What was made or found.
#[derive(Debug)]
pub struct Summary {
    volume: String,
    superblock: Superblock,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let superblock = &self.superblock;
        let state = match (
            superblock.volume_id.is_none(),
            superblock.view.insync.contains(superblock.node),
        ) {
            (true, _) => "waits to be filled",
            (false, true) => "counts",
            (false, false) => "is not up to date",
        };
        write!(
            f,
            "volume {}: {} bytes from sector {}, metadata {} bytes, room to grow to {} bytes, a bit of the bitmap for {} bytes; this copy {state}, epoch {}",
            self.volume,
            superblock.size_sectors * SECTOR_BYTES,
            superblock.data_start_sectors,
            superblock.layout.total_bytes,
            superblock.layout.growth_sectors * SECTOR_BYTES,
            superblock.layout.bitmap_block_bytes,
            superblock.view.epoch,
        )
    }
}

/// Makes the copy.
pub fn format(config: &Config, request: &FormatRequest) -> Result<Summary, FormatError> {
    let _lock = VolumeLock::take(&request.runtime_dir, &config.volume)?;
    if !request.force {
        found::refuse_signature(&config.backing)?;
        if let Some(path) = &config.metadata {
            found::refuse_signature(path)?;
        }
    }
    let data = Claim::open(&config.backing, &config.volume, Part::Data)?;
    let separate = match &config.metadata {
        Some(path) => Some(Claim::open(path, &config.volume, Part::Metadata)?),
        None => None,
    };
    let made = make(config, request, &data, separate.as_ref());
    for claim in std::iter::once(data).chain(separate) {
        claim.release()?;
    }
    let superblock = made?;
    disown::forget(&request.runtime_dir, &config.volume)?;
    Ok(Summary {
        volume: config.volume.clone(),
        superblock,
    })
}

/// Looks whether metadata belong to the configuration; changes nothing.
pub fn check(config: &Config) -> Result<Summary, MetadataError> {
    let open = |path: &Path| {
        File::open(path).map_err(|source| MetadataError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })
    };
    let backing = open(&config.backing)?;
    let holds_metadata = open(config.metadata_path())?;
    let found = metadata::read(&holds_metadata, config)?;
    let size = |file: &File, path: &Path| {
        sys::block_device_bytes(file)
            .or_else(|_| file.metadata().map(|data| data.len()))
            .map_err(|source| MetadataError::Io {
                action: "ask the size for",
                path: path.to_owned(),
                source,
            })
    };
    let size_bytes = size(&backing, &config.backing)?;
    let metadata_size_bytes = size(&holds_metadata, config.metadata_path())?;
    let logical_block_bytes = sys::logical_block_bytes(&backing).unwrap_or(512);
    metadata::check(
        &found.superblock,
        config,
        &Devices {
            size_bytes,
            logical_block_bytes,
            metadata_size_bytes,
            identity: identity_of(&backing),
        },
    )?;
    Ok(Summary {
        volume: config.volume.clone(),
        superblock: found.superblock,
    })
}

/// Which disk an open device is; of a regular file nothing is known.
fn identity_of(file: &File) -> Identity {
    match file.metadata() {
        Ok(found) if found.file_type().is_block_device() => {
            let (major, minor) = (libc::major(found.rdev()), libc::minor(found.rdev()));
            Identity::of(Path::new(SYSFS), DeviceNumber { major, minor })
        }
        Ok(_) | Err(_) => Identity::default(),
    }
}

fn make(
    config: &Config,
    request: &FormatRequest,
    data: &Claim,
    separate: Option<&Claim>,
) -> Result<Superblock, FormatError> {
    found::refuse_unnamed_copies(std::iter::once(data).chain(separate), &request.confirmed)?;
    let superblock = first_superblock(config, request, data, separate)?;
    let device = separate.unwrap_or(data);
    empty_area(device.file(), &superblock).map_err(|source| FormatError::Zero {
        path: device.path().to_owned(),
        source,
    })?;
    for slot in [0, 1] {
        metadata::write_slot(device.file(), config, &superblock, slot)?;
    }
    Ok(superblock)
}

/// How the devices are divided.
struct Division {
    layout: Layout,
    data_start_bytes: u64,
    size_bytes: u64,
}

fn divide(
    request: &FormatRequest,
    data: &Claim,
    separate: Option<&Claim>,
) -> Result<Division, FormatError> {
    let logical = u64::from(data.logical_block_bytes());
    let offered = request.size_bytes.unwrap_or(data.size_bytes());
    let growth_bytes = request
        .growth_bytes
        .unwrap_or(offered.saturating_mul(GROWTH_DEFAULT));
    let growth_sectors =
        (growth_bytes / SECTOR_BYTES).clamp(VOLUME_SECTORS_MIN, VOLUME_SECTORS_MAX);
    let bitmap_block_bytes = checked_bitmap_block(request.bitmap_block_bytes, logical)?;
    let layout = Layout::for_growth_to(growth_sectors, bitmap_block_bytes)?;
    let data_start_bytes = match separate {
        None => layout.total_bytes,
        Some(separate) if separate.size_bytes() < layout.total_bytes => {
            return Err(too_small(separate, layout.total_bytes, "the metadata"));
        }
        Some(_) => 0,
    };
    let least = VOLUME_SECTORS_MIN * SECTOR_BYTES;
    let room = data.size_bytes().saturating_sub(data_start_bytes);
    let size_bytes = match request.size_bytes {
        Some(size) => checked_size(size, logical)?,
        None if room >= CHUNK_BYTES => room / CHUNK_BYTES * CHUNK_BYTES,
        None => room / logical * logical,
    };
    if size_bytes < least || size_bytes > room {
        let needs_bytes = data_start_bytes + size_bytes.max(least);
        return Err(too_small(data, needs_bytes, "the metadata and the volume"));
    }
    if growth_sectors * SECTOR_BYTES < size_bytes {
        return Err(FormatError::Size {
            option: "--grow-to",
            value: growth_bytes,
            allowed: format!("at least the size, {size_bytes}"),
        });
    }
    Ok(Division {
        layout,
        data_start_bytes,
        size_bytes,
    })
}

/// What the copy begins with.
fn first_view(config: &Config, copy: Copy) -> Result<(VolumeId, View), FormatError> {
    let blank = View {
        epoch: Epoch(0),
        id: ViewId::NONE,
        active: None,
        insync: NodeSet::EMPTY,
    };
    match copy {
        Copy::Joins => Ok((VolumeId::NONE, blank)),
        Copy::First => {
            let view = View {
                epoch: Epoch(1),
                id: ViewId(random_id()?),
                insync: NodeSet::only(config.node_id()),
                ..blank
            };
            Ok((VolumeId(random_id()?), view))
        }
    }
}

fn first_superblock(
    config: &Config,
    request: &FormatRequest,
    data: &Claim,
    separate: Option<&Claim>,
) -> Result<Superblock, FormatError> {
    let division = divide(request, data, separate)?;
    let (volume_id, view) = first_view(config, request.copy)?;
    let boot = BootId(sys::boot_id().map_err(FormatError::Kernel)?);
    let mut member_boots = [BootId::NONE; NODES_MAX as usize];
    if view.insync.contains(config.node_id()) {
        member_boots[config.node_id().index()] = boot;
    }
    Ok(Superblock {
        sequence: 1,
        cluster_id: config.keys().cluster(),
        volume_id,
        volume_name: config.padded_name(),
        node: config.node_id(),
        peer: config.peer_id(),
        size_sectors: division.size_bytes / SECTOR_BYTES,
        data_start_sectors: division.data_start_bytes / SECTOR_BYTES,
        chunk_sectors: u32::try_from(CHUNK_BYTES / SECTOR_BYTES).expect("a small constant"),
        logical_block_bytes: data.logical_block_bytes(),
        layout: division.layout,
        view,
        history: ViewHistory::default(),
        sealed: Epoch(0),
        serving: false,
        drained: false,
        failed: false,
        peer_failed: false,
        invalidated: false,
        isolation: Isolation::default(),
        copy: None,
        lineage: CopyId::NONE,
        base: ViewMark::default(),
        member_boots,
        own_boot: boot,
        incarnation: Incarnation(0),
        prepared_sectors: 0,
        backing: separate.map_or(BackingId::NONE, |_| data.identity(Path::new(SYSFS)).kept()),
        record: Record::default(),
    })
}

fn checked_size(size: u64, logical: u64) -> Result<u64, FormatError> {
    let bounds = VOLUME_SECTORS_MIN * SECTOR_BYTES..=VOLUME_SECTORS_MAX * SECTOR_BYTES;
    if bounds.contains(&size) && size.is_multiple_of(logical) {
        return Ok(size);
    }
    let allowed = format!(
        "{} to {}, a multiple of {logical}",
        bounds.start(),
        bounds.end()
    );
    Err(FormatError::Size {
        option: "--size",
        value: size,
        allowed,
    })
}

fn checked_bitmap_block(bytes: u64, logical: u64) -> Result<u32, FormatError> {
    let bounds = logical.max(CHUNK_BYTES / EXTENT_BLOCKS_MAX)..=BITMAP_BLOCK_BYTES_MAX.into();
    match u32::try_from(bytes) {
        Ok(small) if bytes.is_power_of_two() && bounds.contains(&bytes) => Ok(small),
        Ok(_) | Err(_) => Err(FormatError::Size {
            option: "--bitmap-block",
            value: bytes,
            allowed: format!("a power of two, {} to {}", bounds.start(), bounds.end()),
        }),
    }
}

fn too_small(device: &Claim, needs_bytes: u64, purpose: &'static str) -> FormatError {
    FormatError::TooSmall {
        path: device.path().to_owned(),
        has_bytes: device.size_bytes(),
        needs_bytes,
        purpose,
    }
}

/// Never all zeroes, which would mean "none".
fn random_id() -> Result<[u8; 16], FormatError> {
    let mut id = [0; 16];
    sys::fill_random(&mut id).map_err(FormatError::Kernel)?;
    id[0] |= 1;
    Ok(id)
}

/// An area without superblocks, with an activity log that was never written and a bitmap without marks.
fn empty_area(file: &File, superblock: &Superblock) -> io::Result<()> {
    let layout = &superblock.layout;
    // First and durably: a superblock of an earlier copy would vouch for marks that are gone.
    zero(file, 0..layout.activity_log_start_bytes)?;
    zero(file, layout.activity_log_start_bytes..layout.total_bytes)?;
    write_empty_bitmap(file, superblock)
}

/// Clears a part: through the device's own means, or with a stream of zeroes.
fn zero(file: &File, part: Range<u64>) -> io::Result<()> {
    let start = i64::try_from(part.start).map_err(io::Error::other)?;
    let length = i64::try_from(part.end - part.start).map_err(io::Error::other)?;
    if fallocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE, start, length).is_err() {
        tracing::debug!(fd = file.as_raw_fd(), "no zero range");
        let mut progress = Progress::new("clearing the metadata area", &part);
        for piece in metadata::pieces(part) {
            let zeroes = metadata::aligned_memory(piece.end - piece.start)?;
            file.write_all_at(&zeroes, piece.start)?;
            progress.reached(piece.end);
        }
    }
    file.sync_data()
}

/// Pages for all that the volume may grow to: one that was never written would count as damaged.
fn write_empty_bitmap(file: &File, superblock: &Superblock) -> io::Result<()> {
    let (node, peer) = (superblock.node, superblock.peer);
    let layout = &superblock.layout;
    let area = Metadata::bitmap_area(layout, node, peer, layout.growth_sectors);
    let mut page = BitmapPage {
        peer,
        page: 0,
        words: [0; PAGE_WORDS],
    };
    let mut progress = Progress::new("writing an empty bitmap", &area);
    for piece in metadata::pieces(area) {
        let mut pages = metadata::aligned_memory(piece.end - piece.start)?;
        for bytes in pages.as_chunks_mut::<BLOCK_BYTES>().0 {
            *bytes = page.encode();
            page.page += 1;
        }
        file.write_all_at(&pages, piece.start)?;
        progress.reached(piece.end);
    }
    file.sync_data()
}

/// Tells from time to time how far something slow is.
struct Progress {
    what: &'static str,
    area: Range<u64>,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str, area: &Range<u64>) -> Progress {
        Progress {
            what,
            area: area.clone(),
            told: Instant::now(),
        }
    }

    fn reached(&mut self, position: u64) {
        if self.told.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.told = Instant::now();
        let percent = (position - self.area.start) * 100 / (self.area.end - self.area.start).max(1);
        tracing::info!(percent, "{}", self.what);
    }
}
