//! The bytes of the metadata are the bytes of the golden files, and damaged ones are survived.
//!
//! Why: a disk outlives the program that wrote it. A superblock that is read wrongly decides wrongly
//! whose copy counts.

use lockstep_tests::{assert_documented, assert_golden, golden};
use mirror_core::checksum::crc32c;
use mirror_core::disk::{
    ActivityFound, ActivityRecord, BLOCK_BYTES, BitmapPage, BlockFault, CopyRecord, CopyRole,
    FORMAT_VERSION, Isolation, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptHead, KeptHeader,
    KeptReader, KeptWriter, Layout, Operation, OperationEntry, PAGE_WORDS, Record,
    SUPERBLOCK_BYTES, SlotFault, Superblock, SuperblockError, activity_blocks, choose, keys_bytes,
    read_keys,
};
use mirror_core::keys::{Keys, Secret};
use mirror_core::limits::{NODES_MAX, NUMBER_AT_START_MAX, VIEW_HISTORY_MAX};
use mirror_core::types::{
    BackingId, BootId, ClusterId, CopyId, Epoch, Incarnation, NodeId, NodeSet, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory, ViewMark};
use proptest::prelude::*;

const CRC_PLACE: std::ops::Range<usize> = 12..16;

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node number")
}

fn record() -> Record {
    let mut record = Record {
        last_write_s: 0x6a00_0000,
        ..Record::default()
    };
    let rows = [
        (Operation::Force, 0x2a, true),
        (Operation::Discard, 0x2b, false),
        (Operation::GoAlone, 0x2c, false),
        (Operation::Takeover, 0x2d, false),
    ];
    for (operation, epoch, standing) in rows {
        record.operations.record(OperationEntry {
            operation,
            view: ViewMark {
                epoch: Epoch(epoch),
                id: ViewId([0x24; 16]),
            },
            at_s: 0x69ff_ff00 + epoch,
            standing,
        });
    }
    record
}

fn superblock() -> Superblock {
    let mut volume_name = [0; 64];
    volume_name[..4].copy_from_slice(b"data");
    let mut marks = [ViewMark::default(); VIEW_HISTORY_MAX];
    marks[0] = ViewMark {
        epoch: Epoch(41),
        id: ViewId([0x22; 16]),
    };
    marks[VIEW_HISTORY_MAX - 1] = ViewMark {
        epoch: Epoch(26),
        id: ViewId([0x23; 16]),
    };
    let mut member_boots = [BootId::NONE; NODES_MAX as usize];
    member_boots[0] = BootId([0x77; 16]);
    member_boots[1] = BootId([0x88; 16]);
    Superblock {
        sequence: 0x0102_0304_0506_0708,
        cluster_id: ClusterId([0x33; 16]),
        volume_id: VolumeId([0x55; 16]),
        volume_name,
        node: node(0),
        peer: node(1),
        size_sectors: 0x20_0000,
        data_start_sectors: 6144,
        chunk_sectors: 8192,
        logical_block_bytes: 512,
        layout: Layout::for_growth_to(0x30_0000, 4096).expect("a legal size"),
        view: View {
            epoch: Epoch(42),
            id: ViewId([0x11; 16]),
            active: Some(node(0)),
            insync: NodeSet::only(node(0)).with(node(1)),
        },
        history: ViewHistory(marks),
        sealed: Epoch(40),
        serving: true,
        drained: false,
        failed: false,
        peer_failed: false,
        invalidated: false,
        isolation: Isolation {
            own: None,
            peer: Some(0x6a00_0001),
        },
        copy: Some(CopyRecord {
            id: CopyId([0x66; 16]),
            role: CopyRole::Source,
            full: true,
        }),
        lineage: CopyId([0x67; 16]),
        base: ViewMark {
            epoch: Epoch(41),
            id: ViewId([0x22; 16]),
        },
        member_boots,
        own_boot: BootId([0x77; 16]),
        incarnation: Incarnation(0x9999),
        prepared_sectors: 0x28_0000,
        backing: BackingId([0x88; 16]),
        record: record(),
    }
}

fn blank() -> Superblock {
    Superblock {
        sequence: 1,
        volume_id: VolumeId::NONE,
        view: View {
            epoch: Epoch(0),
            id: ViewId::NONE,
            active: None,
            insync: NodeSet::EMPTY,
        },
        history: ViewHistory::default(),
        sealed: Epoch(0),
        serving: false,
        drained: true,
        failed: true,
        invalidated: true,
        isolation: Isolation {
            own: Some(0x6a00_0002),
            peer: None,
        },
        copy: Some(CopyRecord {
            id: CopyId([0x66; 16]),
            role: CopyRole::Target,
            full: false,
        }),
        lineage: CopyId::NONE,
        base: ViewMark::default(),
        prepared_sectors: 0,
        backing: BackingId::NONE,
        ..superblock()
    }
}

fn slot(bytes: Vec<u8>) -> [u8; SUPERBLOCK_BYTES] {
    bytes.try_into().expect("4096 bytes")
}

/// With a right checksum, so that the checks behind it are reached.
fn sealed(mut bytes: [u8; SUPERBLOCK_BYTES]) -> [u8; SUPERBLOCK_BYTES] {
    bytes[CRC_PLACE].fill(0);
    let crc = crc32c(&bytes);
    bytes[CRC_PLACE].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn superblocks_are_their_golden_bytes_and_read_back() {
    for (name, value, place) in [
        ("superblock-slot0", superblock(), 0),
        ("superblock-slot1", superblock(), 1),
        ("superblock-joining", blank(), 0),
    ] {
        assert_golden(name, &value.encode(place));
        assert_eq!(
            Superblock::decode(&slot(golden(name)), place),
            Ok(value),
            "{name}"
        );
    }
}

fn activity() -> ActivityRecord {
    ActivityRecord {
        sequence: 0x0102_0304_0506_0708,
        extents: vec![0, 0xa1b2_c3d4, 7],
    }
}

fn bitmap_page() -> BitmapPage {
    let mut words = [0; PAGE_WORDS];
    words[0] = 1 << 63 | 1;
    words[1] = 0x0102_0304_0506_0708;
    words[PAGE_WORDS - 1] = 1 << 63;
    BitmapPage {
        peer: node(1),
        page: 0x0a0b,
        words,
    }
}

#[test]
fn blocks_of_the_log_and_of_a_bitmap_are_their_golden_bytes_and_read_back() {
    let layout = superblock().layout;
    let block = |name| -> [u8; BLOCK_BYTES] { golden(name).try_into().expect("4096 bytes") };
    assert_golden("activity-log", &activity().encode(&layout));
    assert_eq!(
        ActivityRecord::decode(&block("activity-log"), 8, &layout),
        Ok(activity())
    );
    assert_golden("bitmap-page", &bitmap_page().encode());
    assert_eq!(
        BitmapPage::decode(&block("bitmap-page"), node(1), 0x0a0b),
        Ok(bitmap_page())
    );
}

fn kept_header() -> KeptHeader {
    let name = |name: &str| -> [u8; 64] {
        core::array::from_fn(|place| name.as_bytes().get(place).copied().unwrap_or(0))
    };
    KeptHeader {
        volume_id: VolumeId([0x11; 16]),
        volume_name: name("data"),
        node: node(1),
        peer: node(0),
        node_name: name("node2"),
        view: ViewMark {
            epoch: Epoch(0x0102_0304_0506_0708),
            id: ViewId([0x22; 16]),
        },
        common: ViewMark {
            epoch: Epoch(7),
            id: ViewId([0x33; 16]),
        },
        size_bytes: 64 * 4096 + 512,
        block_bytes: 4096,
        marked_bytes: 4096 + 2 * 4096 + 512,
        at_s: 1_767_225_599,
    }
}

#[test]
fn a_file_of_kept_blocks_is_its_golden_bytes_and_reads_back() {
    let (mut writer, header) = KeptWriter::new(&kept_header());
    let (first, last) = ([0x44; 4096], [0x55; 512]);
    let mut file = header.to_vec();
    file.extend(writer.data(4096, &first));
    file.extend(first);
    file.extend(writer.zeroes(4 * 4096, 2 * 4096));
    file.extend(writer.data(64 * 4096, &last));
    file.extend(last);
    file.extend(writer.end());
    assert_golden("kept-file", &file);

    let file = golden("kept-file");
    let (header, mut rest) = file.split_at(KEPT_HEADER_BYTES);
    let mut reader = KeptReader::new(header.try_into().expect("a header")).expect("a good one");
    assert_eq!(*reader.header(), kept_header());
    let mut heads = Vec::new();
    loop {
        let (head, behind) = rest.split_at(KEPT_HEAD_BYTES);
        rest = behind;
        let head = reader.head(head.try_into().expect("a head"));
        match head.expect("a good one") {
            KeptHead::End => break,
            KeptHead::Data {
                offset_bytes,
                length_bytes,
            } => {
                let (data, behind) = rest.split_at(length_bytes as usize);
                rest = behind;
                assert_eq!(reader.data(data), Ok(()));
                heads.push((offset_bytes, u64::from(length_bytes), data[0]));
            }
            KeptHead::Zeroes {
                offset_bytes,
                length_bytes,
            } => heads.push((offset_bytes, length_bytes, 0)),
        }
    }
    let expected = [
        (4096, 4096, 0x44),
        (16_384, 8192, 0),
        (64 * 4096, 512, 0x55),
    ];
    assert_eq!(heads, expected);
    assert_eq!(reader.digest(rest.try_into().expect("a digest")), Ok(()));
    let bound = KeptHeader::file_bytes_max(kept_header().marked_bytes, 3);
    assert!(file.len() as u64 <= bound);
}

#[test]
fn the_document_was_read_when_the_source_changed() {
    assert_eq!(
        FORMAT_VERSION, 1,
        "a new version has golden files of its own"
    );
    let sources = [
        "mod",
        "layout",
        "superblock",
        "block",
        "activity_log",
        "bitmap",
        "metadata",
        "record",
        "kept",
        "keys",
    ]
    .map(|name| format!("ublk-mirror/core/src/disk/{name}.rs"));
    assert_documented(
        "docs/on-disk-format.md",
        &sources.each_ref().map(String::as_str),
    );
}

#[test]
fn a_key_file_of_a_rotation_is_its_golden_bytes_and_reads_back() {
    let first = Keys::first(&[0x11; 32]);
    let next = first.step(Some(Secret::new([0x22; 32]))).expect("a step");
    let last = next.step(None).expect("a step");
    let settled = last.step(None).expect("a step");
    for (name, keys) in [
        ("cluster-key-next", next),
        ("cluster-key-last", last),
        ("cluster-key-settled", settled),
    ] {
        assert_golden(name, &keys_bytes(&keys));
        assert_eq!(read_keys(&golden(name)), Ok(keys), "{name}");
    }
}

#[test]
fn the_reserved_area_has_room_for_seven_bitmaps_and_ends_at_a_mebibyte() {
    let layout = Layout::for_growth_to(1 << 31, 4096).expect("1 TiB");
    assert_eq!(layout.total_bytes % (1 << 20), 0);
    let end = layout.bitmap_start_bytes + 7 * layout.bitmap_peer_bytes;
    assert!(layout.total_bytes >= end && layout.total_bytes - end < 1 << 20);
    assert!(layout.bitmap_peer_bytes / 4096 * (4096 - 64) * 8 * 4096 >= 1 << 40);
}

#[test]
fn an_area_that_cannot_be_is_refused() {
    let good = superblock().layout;
    let wrong = [
        Layout {
            activity_log_start_bytes: 65_536,
            ..good
        },
        Layout {
            activity_log_bytes: BLOCK_BYTES as u64,
            ..good
        },
        Layout {
            activity_log_bytes: 1000,
            ..good
        },
        Layout {
            activity_log_bytes: 1 << 40,
            ..good
        },
        Layout {
            bitmap_start_bytes: good.bitmap_start_bytes + 512,
            ..good
        },
        Layout {
            bitmap_start_bytes: 1024 * 1024,
            ..good
        },
        Layout {
            bitmap_peer_bytes: good.bitmap_peer_bytes - BLOCK_BYTES as u64,
            ..good
        },
        Layout {
            bitmap_peer_bytes: !4095,
            ..good
        },
        Layout {
            bitmap_block_bytes: 0,
            ..good
        },
        Layout {
            growth_sectors: superblock().size_sectors - 1,
            ..good
        },
        Layout {
            growth_sectors: u64::MAX,
            ..good
        },
        Layout {
            total_bytes: good.bitmap_start_bytes,
            ..good
        },
        Layout {
            total_bytes: good.total_bytes + BLOCK_BYTES as u64,
            ..good
        },
    ];
    for layout in wrong {
        let bytes = Superblock {
            layout,
            ..superblock()
        }
        .encode(0);
        assert!(Superblock::decode(&bytes, 0).is_err(), "{layout:?}");
    }
}

#[test]
fn one_wrong_bit_anywhere_is_noticed() {
    let good = superblock().encode(0);
    for byte in 0..SUPERBLOCK_BYTES {
        let mut bytes = good;
        bytes[byte] ^= 0x10;
        assert!(Superblock::decode(&bytes, 0).is_err(), "byte {byte}");
    }
}

#[test]
fn the_newer_good_slot_wins_and_the_other_is_named_for_repair() {
    let old = superblock();
    let new = Superblock {
        sequence: old.sequence + 1,
        ..superblock()
    };
    let found = choose(&new.encode(0), &old.encode(1)).expect("both good");
    assert_eq!(
        (found.superblock, found.stale_slot, found.damaged_slot),
        (new.clone(), Some(1), None)
    );

    let found = choose(&old.encode(0), &new.encode(1)).expect("both good");
    assert_eq!(
        (found.superblock.sequence, found.stale_slot),
        (new.sequence, Some(0))
    );

    let torn = [0xff; SUPERBLOCK_BYTES];
    let found = choose(&torn, &old.encode(1)).expect("one good");
    assert_eq!(
        (found.superblock, found.damaged_slot),
        (old.clone(), Some((0, SlotFault::NotASuperblock)))
    );

    let found = choose(&old.encode(0), &old.encode(0)).expect("one good");
    assert_eq!(
        found.damaged_slot,
        Some((1, SlotFault::Misdirected(0))),
        "bytes of the other slot"
    );

    assert!(matches!(
        choose(&torn, &torn),
        Err(SuperblockError::Both(..))
    ));
}

#[test]
fn a_slot_of_a_newer_program_is_never_ignored() {
    let mut bytes = superblock().encode(0);
    bytes[8..10].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let found = choose(&sealed(bytes), &superblock().encode(1));
    assert_eq!(
        found,
        Err(SuperblockError::Newer {
            slot: 0,
            version: FORMAT_VERSION + 1
        })
    );
}

/// A number that no volume lives to is damage, and never one to count on from.
#[test]
fn a_number_near_the_end_of_numbers_is_damage() {
    let mut far = superblock();
    far.sequence = NUMBER_AT_START_MAX + 1;
    assert_eq!(
        choose(&far.encode(0), &superblock().encode(1)).map(|found| found.superblock),
        Ok(superblock())
    );
    assert_eq!(
        Superblock::decode(&far.encode(0), 0),
        Ok(far),
        "one that counted so far in one life is still read"
    );

    let layout = superblock().layout;
    let last = ActivityRecord {
        sequence: u64::MAX - u64::MAX % activity_blocks(&layout),
        extents: vec![1],
    };
    let area = last.encode(&layout);
    assert_eq!(
        ActivityRecord::decode(&area, 0, &layout),
        Err(BlockFault::Value("sequence"))
    );
    assert!(matches!(
        ActivityRecord::newest(&area, &layout),
        ActivityFound::Lost { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), SUPERBLOCK_BYTES), place in 0u8..2) {
        let mut bytes = slot(bytes);
        let _ = Superblock::decode(&bytes, place);
        bytes[..8].copy_from_slice(b"LOCKSTEP");
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[10] = place;
        let _ = Superblock::decode(&sealed(bytes), place);
        let _ = choose(&bytes, &superblock().encode(1));
        let _ = choose(&sealed(bytes), &bytes);
    }

    #[test]
    fn a_few_changed_bytes_with_a_right_checksum_are_survived(
        changes in proptest::collection::vec((0usize..832, any::<u8>()), 1..8)
    ) {
        let mut bytes = superblock().encode(0);
        for (place, value) in changes {
            bytes[place] = value;
        }
        let bytes = sealed(bytes);
        if let Ok(value) = Superblock::decode(&bytes, 0) {
            let again = Superblock::decode(&value.encode(0), 0);
            prop_assert_eq!(again, Ok(value), "what was understood is written and read the same");
        }
    }
}
