//! The activity log and the bitmap on a disk that tears, misdirects and forgets.
//!
//! Why: they say where the two copies may differ (S7). A block that is read wrongly leaves a
//! difference that nobody looks for; one that is known to be damaged costs a copy of what it stood for.

use mirror_core::checksum::crc32c;
use mirror_core::disk::{
    ACTIVE_EXTENTS_MAX, ActivityFound, ActivityRecord, BLOCK_BYTES, BitmapPage, BlockFault,
    FORMAT_VERSION, Layout, Metadata, PAGE_BITS, PAGE_WORDS, activity_blocks,
};
use mirror_core::limits::NUMBER_AT_START_MAX;
use mirror_core::types::NodeId;
use proptest::prelude::*;

const TORN_BYTES: usize = 512;
const RING_BLOCKS: u64 = 4;
const CRC_PLACE: std::ops::Range<usize> = 12..16;

type Bytes = [u8; BLOCK_BYTES];

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node number")
}

/// A volume of 1 TiB with a short ring.
fn layout() -> Layout {
    let layout = Layout::for_growth_to(1 << 31, 4096).expect("a legal size");
    Layout {
        activity_log_bytes: RING_BLOCKS * BLOCK_BYTES as u64,
        ..layout
    }
}

fn record(sequence: u64, extents: Vec<u32>) -> ActivityRecord {
    ActivityRecord { sequence, extents }
}

/// The log's area as a disk holds it.
struct Log(Vec<u8>);

impl Log {
    fn new() -> Log {
        Log(vec![
            0;
            usize::try_from(layout().activity_log_bytes)
                .expect("small")
        ])
    }

    fn place(&mut self, record: &ActivityRecord) -> &mut Bytes {
        let offset = record.offset_bytes(&layout()) - layout().activity_log_start_bytes;
        let index = usize::try_from(offset).expect("small") / BLOCK_BYTES;
        &mut self.0.as_chunks_mut::<BLOCK_BYTES>().0[index]
    }

    fn write(&mut self, record: &ActivityRecord) {
        *self.place(record) = record.encode(&layout());
    }

    /// Only the sectors of `mask` arrive.
    fn tear(&mut self, record: &ActivityRecord, mask: u8) {
        let new = record.encode(&layout());
        let sectors = self.place(record).chunks_mut(TORN_BYTES);
        for (index, (old, new)) in sectors.zip(new.chunks(TORN_BYTES)).enumerate() {
            if mask & 1 << index != 0 {
                old.copy_from_slice(new);
            }
        }
    }

    fn damage(&mut self, sequence: u64) {
        self.place(&record(sequence, vec![]))[2000..2100].fill(0xa5);
    }

    fn newest(&self) -> ActivityFound {
        ActivityRecord::newest(&self.0, &layout())
    }
}

fn page(words: [u64; PAGE_WORDS]) -> BitmapPage {
    BitmapPage {
        peer: node(1),
        page: 3,
        words,
    }
}

/// With a right checksum, so that the checks behind it are reached.
fn sealed(mut bytes: Bytes) -> Bytes {
    bytes[CRC_PLACE].fill(0);
    let crc = crc32c(&bytes);
    bytes[CRC_PLACE].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn one_wrong_bit_anywhere_is_noticed() {
    let log = record(6, (0..1000).collect()).encode(&layout());
    let bitmap = page([0x0123_4567_89ab_cdef; PAGE_WORDS]).encode();
    for byte in 0..BLOCK_BYTES {
        let mut bytes = log;
        bytes[byte] ^= 0x10;
        let read = ActivityRecord::decode(&bytes, 6 % RING_BLOCKS, &layout());
        assert!(read.is_err(), "log, byte {byte}");
        let mut bytes = bitmap;
        bytes[byte] ^= 0x10;
        let read = BitmapPage::decode(&bytes, node(1), 3);
        assert!(read.is_err(), "bitmap, byte {byte}");
    }
}

#[test]
fn bytes_of_another_place_are_not_taken() {
    let bytes = page([1; PAGE_WORDS]).encode();
    let read = |peer, page| BitmapPage::decode(&bytes, node(peer), page);
    assert_eq!(read(1, 4), Err(BlockFault::Misdirected(3)));
    assert_eq!(read(2, 3), Err(BlockFault::Misdirected(1)));
    let log = record(6, vec![9]).encode(&layout());
    let read = |place| ActivityRecord::decode(&log, place, &layout());
    assert_eq!(read(3), Err(BlockFault::Misdirected(2)));
    assert_eq!(
        BitmapPage::decode(&log, node(0), 2),
        Err(BlockFault::Foreign)
    );
    assert_eq!(
        BitmapPage::decode(&[0; BLOCK_BYTES], node(1), 3),
        Err(BlockFault::Blank)
    );
}

#[test]
fn a_block_of_another_version_or_with_too_many_extents_is_refused() {
    let mut bytes = record(6, vec![9]).encode(&layout());
    bytes[32..36].copy_from_slice(&1001u32.to_le_bytes());
    let read = ActivityRecord::decode(&sealed(bytes), 2, &layout());
    assert_eq!(read, Err(BlockFault::Value("number of extents")));
    let mut bytes = page([0; PAGE_WORDS]).encode();
    bytes[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let read = BitmapPage::decode(&sealed(bytes), node(1), 3);
    assert_eq!(read, Err(BlockFault::Version(FORMAT_VERSION + 1)));
}

#[test]
fn an_empty_log_knows_that_nothing_is_active() {
    assert_eq!(Log::new().newest(), ActivityFound::Known(record(0, vec![])));
}

#[test]
fn the_newest_state_is_found_before_and_after_the_ring_is_full() {
    let mut log = Log::new();
    for sequence in 1..=3 * RING_BLOCKS {
        let number = u32::try_from(sequence).expect("small");
        let state = record(sequence, vec![number, number + 1]);
        log.write(&state);
        assert_eq!(log.newest(), ActivityFound::Known(state));
    }
}

#[test]
fn a_damaged_block_is_a_torn_write_only_behind_the_newest() {
    let newest = 2 * RING_BLOCKS + 1;
    let full = || {
        let mut log = Log::new();
        (1..=newest).for_each(|sequence| log.write(&record(sequence, vec![5])));
        log
    };
    // Which of the states before it is damaged does not matter.
    for older in newest - RING_BLOCKS + 1..newest {
        let mut log = full();
        log.damage(older);
        assert_eq!(log.newest(), ActivityFound::Known(record(newest, vec![5])));
    }
    // As if the newest had been torn: nothing was written to what it alone names.
    let mut log = full();
    log.damage(newest);
    assert_eq!(
        log.newest(),
        ActivityFound::Known(record(newest - 1, vec![5]))
    );
    // One of the two was durable, and what it named may be written to.
    log.damage(newest - 1);
    let ActivityFound::Lost {
        fault,
        next_sequence,
    } = log.newest()
    else {
        panic!("the log is lost");
    };
    assert_eq!(fault, BlockFault::Checksum);
    assert!(next_sequence > newest, "no older state is believed again");
}

#[test]
fn a_log_without_a_good_block_is_lost_unless_its_first_write_was_torn() {
    let mut log = Log::new();
    log.tear(&record(1, (0..1000).collect()), 0b1);
    assert_eq!(log.newest(), ActivityFound::Known(record(0, vec![])));
    log.damage(2);
    assert!(matches!(log.newest(), ActivityFound::Lost { .. }));
    let mut log = Log::new();
    log.0.fill(0xff);
    let lost = ActivityFound::Lost {
        fault: BlockFault::Foreign,
        next_sequence: RING_BLOCKS + 1,
    };
    assert_eq!(log.newest(), lost);
}

#[test]
fn pages_lie_behind_each_other_and_bitmaps_do_not_overlap() {
    let layout = layout();
    let pages = BitmapPage::count(&layout, layout.growth_sectors);
    assert!(pages * PAGE_BITS * 4096 >= 1 << 40);
    assert!((pages - 1) * PAGE_BITS * 4096 < 1 << 40);
    for me in 0..8 {
        let peers = (0..8).filter(|peer| *peer != me);
        let areas: Vec<_> = peers
            .map(|peer| Metadata::bitmap_area(&layout, node(me), node(peer), layout.growth_sectors))
            .collect();
        assert_eq!(areas.len(), 7);
        for pair in areas.windows(2) {
            assert!(pair[0].end <= pair[1].start, "node {me}");
        }
        assert!(areas[0].start >= Metadata::activity_area(&layout).end);
        assert!(areas[6].end <= layout.total_bytes);
    }
    let first = BitmapPage::offset_bytes(&layout, node(0), node(1), 0);
    let second = BitmapPage::offset_bytes(&layout, node(0), node(1), 1);
    assert_eq!(second - first, BLOCK_BYTES as u64);
    assert_eq!(activity_blocks(&layout), RING_BLOCKS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_state_of_the_log_reads_back(
        sequence in 1..=NUMBER_AT_START_MAX,
        extents in proptest::collection::vec(any::<u32>(), 0..=ACTIVE_EXTENTS_MAX)
    ) {
        let state = record(sequence, extents);
        let read = ActivityRecord::decode(&state.encode(&layout()), sequence % RING_BLOCKS, &layout());
        prop_assert_eq!(read, Ok(state));
    }

    #[test]
    fn a_page_reads_back(words in proptest::collection::vec(any::<u64>(), PAGE_WORDS)) {
        let page = page(words.try_into().expect("a page's words"));
        prop_assert_eq!(BitmapPage::decode(&page.encode(), node(1), 3), Ok(page));
    }

    #[test]
    fn a_torn_write_leaves_the_state_before_or_after(
        before in 0..2 * RING_BLOCKS,
        extents in proptest::collection::vec(any::<u32>(), 0..=ACTIVE_EXTENTS_MAX),
        mask: u8
    ) {
        let mut log = Log::new();
        // Long states, so that every sector differs.
        let state = |sequence: u64| match sequence {
            0 => record(0, vec![]),
            _ => record(sequence, (0..1000).map(|entry| entry + u32::try_from(sequence).unwrap()).collect()),
        };
        (1..=before).for_each(|sequence| log.write(&state(sequence)));
        let after = record(before + 1, extents);
        log.tear(&after, mask);
        let found = log.newest();
        prop_assert!(
            found == ActivityFound::Known(state(before)) || found == ActivityFound::Known(after.clone()),
            "{found:?}"
        );
        // The next write mends the block.
        let ActivityFound::Known(found) = found else { unreachable!() };
        let next = record(found.sequence + 1, vec![1]);
        log.write(&next);
        prop_assert_eq!(log.newest(), ActivityFound::Known(next));
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), BLOCK_BYTES),
        head in proptest::collection::vec(any::<u8>(), 24),
        place in 0..RING_BLOCKS
    ) {
        let mut bytes: Bytes = bytes.try_into().expect("4096 bytes");
        for magic in [*b"LSACTLOG", *b"LSBITMAP", [0; 8]] {
            bytes[..8].copy_from_slice(&magic);
            bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
            bytes[16..40].copy_from_slice(&head);
            bytes[24..32].copy_from_slice(&place.to_le_bytes());
            for bytes in [bytes, sealed(bytes)] {
                let _ = ActivityRecord::decode(&bytes, place, &layout());
                let _ = BitmapPage::decode(&bytes, node(bytes[10] % 8), place);
                let area: Vec<u8> = [bytes, [0; BLOCK_BYTES], bytes].concat();
                let _ = ActivityRecord::newest(&area, &layout());
                let _ = ActivityRecord::newest(&area[..5000], &layout());
            }
        }
    }
}
