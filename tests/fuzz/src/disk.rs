//! Damaged metadata: each area by itself, then a volume that is opened on all of them.

use mirror_core::blocks::BlockRange;
use mirror_core::checksum::crc32c;
use mirror_core::disk::{
    ActivityFound, ActivityRecord, BLOCK_BYTES, BitmapPage, Found, Metadata, PAGE_BITS, PAGE_WORDS,
    SUPERBLOCK_BYTES, Superblock, choose,
};
use mirror_core::effect::Effects;
use mirror_core::event::{Event, Request, RequestKind};
use mirror_core::intent::Intent;
use mirror_core::types::{Instant, SectorRange, SessionId, Tag};
use mirror_core::volume::{DeviceAtStart, Volume};

use crate::input::{Input, patch};
use crate::samples::{KINDS, node, superblock as sample};
use crate::session::settings;

const CHANGES_MAX: usize = 24;
const CRC_PLACE: std::ops::Range<usize> = 12..16;
/// Blocks of the activity log's ring.
const LOG_BLOCKS: u64 = 5;
/// A daemon refuses metadata that is larger than its device.
const AREA_BYTES_MAX: u64 = 1 << 20;
const LOG_SEQUENCE: u64 = 103;

/// Bytes in blocks, which of them were changed, and whether checksums were made right afterwards.
struct Damage {
    bytes: Vec<u8>,
    changed: Vec<bool>,
    sealed: bool,
}

impl Damage {
    /// As the input says. The first byte tells whether checksums are made right: who writes on purpose
    /// can do that, a torn write cannot.
    fn new(input: &mut Input<'_>, good: &[u8]) -> Self {
        let sealed = input.byte() & 1 != 0;
        let mut bytes = good.to_vec();
        let changes = input.below(CHANGES_MAX);
        for _ in 0..changes {
            patch(input, &mut bytes);
        }
        let blocks = bytes.chunks(BLOCK_BYTES).zip(good.chunks(BLOCK_BYTES));
        let changed = blocks.map(|(new, old)| new != old).collect();
        if sealed {
            for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
                seal(block);
            }
        }
        Self {
            bytes,
            changed,
            sealed,
        }
    }
}

fn seal(block: &mut [u8; BLOCK_BYTES]) {
    if block.iter().all(|byte| *byte == 0) {
        return;
    }
    block[CRC_PLACE].fill(0);
    let crc = crc32c(block);
    block[CRC_PLACE].copy_from_slice(&crc.to_le_bytes());
}

/// The pair of slots, the second one older by one if the input says so.
fn slots(input: &mut Input<'_>) -> (Superblock, Damage) {
    let choice = input.byte();
    let newest = sample(choice % KINDS, node(0));
    let mut second = newest.clone();
    second.sequence -= u64::from(choice & 0x80 != 0);
    let good = [newest.encode(0), second.encode(1)].concat();
    (newest, Damage::new(input, &good))
}

fn chosen(damage: &Damage) -> Option<Found> {
    let (first, second) = damage.bytes.split_at(SUPERBLOCK_BYTES);
    let slot = |bytes: &[u8]| -> [u8; SUPERBLOCK_BYTES] {
        core::array::from_fn(|index| bytes.get(index).copied().unwrap_or(0))
    };
    choose(&slot(first), &slot(second)).ok()
}

/// The two superblock slots.
pub fn superblock(data: &[u8]) {
    let mut input = Input::new(data);
    let (newest, damage) = slots(&mut input);
    let found = chosen(&damage);
    if let Some(found) = &found {
        let superblock = &found.superblock;
        for slot in 0..2 {
            assert_eq!(
                Superblock::decode(&superblock.encode(slot), slot).as_ref(),
                Ok(superblock),
                "it reads what it writes"
            );
        }
    }
    if !damage.sealed && !damage.changed[0] {
        // The newest one is whole: nothing else may be believed.
        assert_eq!(found.map(|found| found.superblock), Some(newest));
    }
}

fn log_area() -> Vec<u8> {
    let layout = sample(0, node(0)).layout;
    let mut area = vec![0; BLOCK_BYTES * 5];
    for sequence in LOG_SEQUENCE - LOG_BLOCKS + 1..=LOG_SEQUENCE {
        let record = ActivityRecord {
            sequence,
            extents: vec![0, 3, 60, u32::try_from(sequence % 64).unwrap_or(0)],
        };
        let place = usize::try_from(sequence % LOG_BLOCKS).unwrap_or(0) * BLOCK_BYTES;
        area[place..place + BLOCK_BYTES].copy_from_slice(&record.encode(&layout));
    }
    area
}

/// The area of the activity log.
pub fn activity_log(data: &[u8]) {
    let mut input = Input::new(data);
    let layout = sample(0, node(0)).layout;
    let damage = Damage::new(&mut input, &log_area());
    let found = ActivityRecord::newest(&damage.bytes, &layout);
    if let ActivityFound::Known(record) = &found {
        assert!(record.extents.len() <= 1000, "a bound is not kept");
    }
    if damage.sealed {
        return;
    }
    // One torn write: the state before it or after it, nothing older, nothing else.
    let newest = usize::try_from(LOG_SEQUENCE % LOG_BLOCKS).unwrap_or(0);
    let spoilt = damage.changed.iter().filter(|changed| **changed).count();
    if spoilt <= 1 {
        let expected = LOG_SEQUENCE - u64::from(damage.changed[newest]);
        let ActivityFound::Known(record) = found else {
            panic!("one spoilt block loses the log");
        };
        assert_eq!(record.sequence, expected, "one spoilt block");
    }
}

fn pages(count: u64) -> Vec<BitmapPage> {
    let page = |page| BitmapPage {
        peer: node(1),
        page,
        words: core::array::from_fn(|word| u64::from(word % PAGE_WORDS == 3) << page),
    };
    (0..count).map(page).collect()
}

fn encoded(pages: &[BitmapPage]) -> Vec<u8> {
    pages.iter().flat_map(BitmapPage::encode).collect()
}

/// The area of a bitmap.
pub fn bitmap(data: &[u8]) {
    let mut input = Input::new(data);
    let good = pages(3);
    let damage = Damage::new(&mut input, &encoded(&good));
    let blocks = damage.bytes.as_chunks::<BLOCK_BYTES>().0;
    for (number, (bytes, good)) in (0u64..).zip(blocks.iter().zip(&good)) {
        let read = BitmapPage::decode(bytes, node(1), number);
        if let Ok(page) = &read {
            assert_eq!(
                BitmapPage::decode(&page.encode(), node(1), number).as_ref(),
                Ok(page),
                "it reads what it writes"
            );
        }
        if !damage.sealed && damage.changed[usize::try_from(number).unwrap_or(0)] {
            assert!(read.is_err(), "a changed page is believed");
        } else if !damage.sealed {
            assert_eq!(read.as_ref(), Ok(good), "a whole page is not believed");
        }
    }
}

fn area_bytes(range: &std::ops::Range<u64>) -> Option<usize> {
    let bytes = range.end.checked_sub(range.start)?;
    (bytes <= AREA_BYTES_MAX)
        .then(|| usize::try_from(bytes).ok())
        .flatten()
}

fn padded(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, 0);
    bytes
}

/// Everything, as a starting daemon reads it; then the volume lives for a moment.
pub fn metadata(data: &[u8]) {
    let mut input = Input::new(data);
    let device = if input.byte() & 1 == 0 {
        DeviceAtStart::None
    } else {
        DeviceAtStart::Recovered
    };
    let (_, damage) = slots(&mut input);
    let Some(found) = chosen(&damage) else {
        return;
    };
    let superblock = found.superblock;
    let log = Metadata::activity_area(&superblock.layout);
    let bitmap = Metadata::bitmap_area(
        &superblock.layout,
        superblock.node,
        superblock.peer,
        superblock.size_sectors,
    );
    let (Some(log), Some(bitmap)) = (area_bytes(&log), area_bytes(&bitmap)) else {
        return;
    };
    let log = padded(Damage::new(&mut input, &log_area()).bytes, log);
    let bitmap = padded(Damage::new(&mut input, &encoded(&pages(2))).bytes, bitmap);
    let metadata = Metadata::read(superblock, &log, &bitmap);
    what_is_not_known_is_marked(&metadata);
    live(metadata, device, &mut input);
}

fn what_is_not_known_is_marked(metadata: &Metadata) {
    let intent = Intent::new(metadata, 1000);
    let blocks = intent.geometry().blocks();
    let all = |range: BlockRange| {
        range
            .into_iter()
            .all(|block| intent.marks().contains(block))
    };
    if let ActivityFound::Lost { .. } = metadata.activity {
        assert!(all(0..blocks), "the log is lost, and not all is marked");
    }
    for (page, found) in (0u64..).zip(&metadata.bitmap) {
        if found.is_err() {
            let end = ((page + 1) * PAGE_BITS).min(blocks);
            assert!(all(page * PAGE_BITS..end), "a lost page is not marked");
        }
    }
}

fn live(metadata: Metadata, device: DeviceAtStart, input: &mut Input<'_>) {
    let settings = settings(metadata.superblock.node, metadata.superblock.peer);
    let size_sectors = metadata.superblock.size_sectors;
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut volume = Volume::new(settings, metadata, device, now);
    let mut effects = Effects::new();
    volume.handle(now, Event::Tick, &mut effects);
    if device == DeviceAtStart::Recovered {
        let kinds = [
            RequestKind::Read,
            RequestKind::Write,
            RequestKind::Flush,
            RequestKind::Discard,
        ];
        let kind = kinds[input.below(kinds.len())];
        let range = match kind {
            RequestKind::Flush => SectorRange::new(0, 0),
            _ => SectorRange::new(u64::from(input.short()) % size_sectors, 1),
        };
        let request = Request {
            tag: Tag(3),
            kind,
            range,
            fua: false,
        };
        volume.handle(now, Event::Request(request), &mut effects);
    }
    let opened = Event::SessionOpened {
        session: SessionId(1),
        dialled: volume.dials(),
    };
    volume.handle(now, opened, &mut effects);
    now = now + core::time::Duration::from_secs(30);
    volume.handle(now, Event::Tick, &mut effects);
    let _ = volume.status(now);
    let _ = volume.deadline();
}
