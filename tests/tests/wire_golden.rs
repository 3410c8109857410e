//! The bytes between two nodes are the bytes of the golden files, and decoders survive anything.
//!
//! Why: two nodes of different releases talk to each other. A field that moves without a new version
//! would be read as something else, and writes would land in the wrong place.

use lockstep_tests::{assert_documented, assert_golden, golden};
use mirror_core::limits::VIEW_HISTORY_MAX;
use mirror_core::types::{
    BootId, ClusterId, CopyId, Epoch, Incarnation, NodeId, NodeSet, SectorRange, ViewId, VolumeId,
};
use mirror_core::view::{View, ViewHistory, ViewMark};
use mirror_core::wire::{
    Accept, Auth, DecodeError, Evidence, FLAG_DRAIN, FLAG_EQUAL, FLAG_FUA, FLAG_INVALIDATED,
    FRAME_HEADER_BYTES, Frame, FrameKind, Grow, GrowDone, GrowRefused, GrowStep, Hello,
    MARKS_WORDS, Marks, PROTOCOL_VERSION, Propose, Purpose, Refused, RefusedCode, State,
    StateFlags, decode_header, encode_header, payload_crc,
};
use proptest::prelude::*;

const KINDS: [(FrameKind, &str); 31] = [
    (FrameKind::Hello, "hello"),
    (FrameKind::Auth, "auth"),
    (FrameKind::Refused, "refused"),
    (FrameKind::State, "state"),
    (FrameKind::Propose, "propose"),
    (FrameKind::Accept, "accept"),
    (FrameKind::Leave, "leave"),
    (FrameKind::Isolate, "isolate"),
    (FrameKind::MarksWanted, "marks-wanted"),
    (FrameKind::Marks, "marks"),
    (FrameKind::CopyHash, "copy-hash"),
    (FrameKind::VerifyHash, "verify-hash"),
    (FrameKind::VerifyWrite, "verify-write"),
    (FrameKind::Grow, "grow"),
    (FrameKind::GrowDone, "grow-done"),
    (FrameKind::Evidence, "evidence"),
    (FrameKind::Write, "write"),
    (FrameKind::CopyWrite, "copy-write"),
    (FrameKind::Discard, "discard"),
    (FrameKind::WriteZeroes, "write-zeroes"),
    (FrameKind::CopyZeroes, "copy-zeroes"),
    (FrameKind::Flush, "flush"),
    (FrameKind::Done, "done"),
    (FrameKind::CopyDone, "copy-done"),
    (FrameKind::CopyWant, "copy-want"),
    (FrameKind::VerifyDone, "verify-done"),
    (FrameKind::VerifyWant, "verify-want"),
    (FrameKind::Read, "read"),
    (FrameKind::ReadDone, "read-done"),
    (FrameKind::Ping, "ping"),
    (FrameKind::Pong, "pong"),
];

fn node(number: u8) -> NodeId {
    NodeId::new(number).expect("a node number")
}

fn view() -> View {
    View {
        epoch: Epoch(0x0102_0304_0506_0708),
        id: ViewId([0x11; 16]),
        active: Some(node(1)),
        insync: NodeSet::only(node(0)).with(node(1)),
    }
}

fn history() -> ViewHistory {
    let mut marks = [ViewMark::default(); VIEW_HISTORY_MAX];
    marks[0] = ViewMark {
        epoch: Epoch(41),
        id: ViewId([0x22; 16]),
    };
    marks[VIEW_HISTORY_MAX - 1] = ViewMark {
        epoch: Epoch(26),
        id: ViewId([0x23; 16]),
    };
    ViewHistory(marks)
}

fn name() -> [u8; 64] {
    let mut name = [0; 64];
    name[..4].copy_from_slice(b"data");
    name
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 2,
        features: 0x8000_0000_0000_0001,
        node: node(0),
        peer: node(1),
        cluster_id: ClusterId([0x33; 16]),
        nonce: [0x44; 32],
        volume_name: name(),
    }
}

fn state() -> State {
    State {
        volume_id: VolumeId([0x55; 16]),
        size_sectors: 0x20_0000,
        logical_block_bytes: 4096,
        sealed: Epoch(40),
        view: view(),
        history: history(),
        flags: StateFlags {
            serving: true,
            unclean: false,
            drained: true,
            failed: true,
            peer_failed: true,
            invalidated: true,
            isolated: true,
            copy_target: true,
        },
        copy_id: CopyId([0x66; 16]),
        lineage: CopyId([0x67; 16]),
        base: ViewMark {
            epoch: Epoch(41),
            id: ViewId([0x22; 16]),
        },
        boot: BootId([0x77; 16]),
        known_peer_boot: BootId([0x88; 16]),
        incarnation: Incarnation(0x9999),
        read_lease_ms: 2000,
        prepared_sectors: 0x28_0000,
    }
}

fn propose(purpose: Purpose) -> Propose {
    Propose {
        view: view(),
        purpose,
        copy_id: CopyId([0x66; 16]),
        volume_id: VolumeId([0x55; 16]),
    }
}

fn marks(next_word: Option<u64>) -> Marks {
    let mut words = [0; MARKS_WORDS];
    words[0] = 1 << 63 | 1;
    words[1] = 0x0102_0304_0506_0708;
    words[MARKS_WORDS - 1] = 1 << 63;
    Marks {
        first_word: 0x0a0b,
        next_word,
        block_sectors: 8,
        words,
    }
}

fn grow(step: GrowStep) -> Grow {
    Grow {
        step,
        from_sectors: 0x20_0000,
        to_sectors: 0x28_0000,
    }
}

fn evidence(on: bool) -> Evidence {
    Evidence {
        view: view(),
        common: ViewMark {
            epoch: Epoch(41),
            id: ViewId([0x22; 16]),
        },
        last_write_s: 0x6a00_0000,
        unique_bytes: 0x0010_0000,
        serving: on,
        unclean: !on,
        forced: on,
    }
}

/// A frame of this kind with every field that it may have.
fn frame(kind: FrameKind) -> Frame {
    let mut frame = Frame::new(kind, Epoch(42), 0x1122_3344_5566_7788);
    if kind.has_payload() {
        frame.range = SectorRange::new(0x0a0b_0c0d, 8);
        frame.length_bytes = 4096;
    } else if matches!(
        kind,
        FrameKind::Discard | FrameKind::WriteZeroes | FrameKind::CopyZeroes
    ) {
        frame.range = SectorRange::new(0x0a0b_0c0d, 2048);
    } else if matches!(kind, FrameKind::VerifyWant | FrameKind::Read) {
        frame.range = SectorRange::new(0x0a0b_0c0d, 8);
    } else if matches!(kind, FrameKind::CopyHash | FrameKind::VerifyHash) {
        frame.range = SectorRange::new(0x0a0b_0c0d, 256);
        frame.length_bytes = 32;
    } else if kind.has_body() {
        frame.length_bytes = 128;
    }
    match kind {
        FrameKind::Write | FrameKind::WriteZeroes => frame.flags = FLAG_FUA,
        FrameKind::Flush => frame.flags = FLAG_DRAIN,
        FrameKind::Done => frame.status = 5,
        FrameKind::Leave => frame.flags = FLAG_INVALIDATED,
        FrameKind::CopyDone | FrameKind::VerifyDone => {
            frame.status = 5;
            frame.flags = FLAG_EQUAL;
        }
        FrameKind::Hello
        | FrameKind::Auth
        | FrameKind::Refused
        | FrameKind::State
        | FrameKind::Propose
        | FrameKind::Accept
        | FrameKind::Isolate
        | FrameKind::MarksWanted
        | FrameKind::Marks
        | FrameKind::CopyHash
        | FrameKind::Grow
        | FrameKind::GrowDone
        | FrameKind::Evidence
        | FrameKind::VerifyHash
        | FrameKind::VerifyWrite
        | FrameKind::VerifyWant
        | FrameKind::Read
        | FrameKind::ReadDone
        | FrameKind::CopyWrite
        | FrameKind::Discard
        | FrameKind::CopyZeroes
        | FrameKind::CopyWant
        | FrameKind::Ping
        | FrameKind::Pong => {}
    }
    frame
}

#[test]
fn every_header_is_its_golden_bytes_and_reads_back() {
    for (kind, name) in KINDS {
        let name = format!("frame-{name}");
        assert_golden(&name, &encode_header(&frame(kind), 0xdead_beef));
        let bytes: [u8; FRAME_HEADER_BYTES] = golden(&name).try_into().expect("64 bytes");
        assert_eq!(
            decode_header(&bytes),
            Ok((frame(kind), 0xdead_beef)),
            "{name}"
        );
    }
}

#[test]
fn an_answer_to_a_read_has_all_of_it_or_an_error() {
    let shaped = |status: i32, length_bytes: u32| {
        let mut answer = frame(FrameKind::ReadDone);
        (answer.status, answer.length_bytes) = (status, length_bytes);
        decode_header(&encode_header(&answer, 0)).map(|(decoded, _)| decoded == answer)
    };
    assert_eq!(shaped(0, 4096), Ok(true));
    assert_eq!(shaped(5, 0), Ok(true));
    for (status, length_bytes) in [(0, 0), (0, 512), (5, 4096)] {
        assert!(shaped(status, length_bytes).is_err());
    }
}

#[test]
fn every_body_is_its_golden_bytes_and_reads_back() {
    assert_golden("body-hello", &hello().encode());
    assert_eq!(Hello::decode(&golden("body-hello")), Ok(hello()));

    let auth = Auth { proof: [0xab; 32] };
    assert_golden("body-auth", &auth.encode());
    assert_eq!(Auth::decode(&golden("body-auth")), Ok(auth));

    assert_golden("body-state", &state().encode());
    assert_eq!(State::decode(&golden("body-state")), Ok(state()));

    for (name, next_word) in [("body-marks", Some(0x0b0c)), ("body-marks-last", None)] {
        assert_golden(name, &marks(next_word).encode());
        assert_eq!(Marks::decode(&golden(name)), Ok(marks(next_word)));
    }

    let grow = grow(GrowStep::Prepare);
    assert_golden("body-grow", &grow.encode());
    assert_eq!(Grow::decode(&golden("body-grow")), Ok(grow));

    let done = GrowDone {
        step: GrowStep::Measure,
        refused: Some(GrowRefused::NoRoom),
        room_sectors: 0x0a0b_0c0d,
    };
    assert_golden("body-grow-done", &done.encode());
    assert_eq!(GrowDone::decode(&golden("body-grow-done")), Ok(done));

    for (name, on) in [("body-evidence", true), ("body-evidence-quiet", false)] {
        assert_golden(name, &evidence(on).encode());
        assert_eq!(Evidence::decode(&golden(name)), Ok(evidence(on)));
    }

    for refused in [false, true] {
        let accept = Accept {
            view_id: ViewId([0x11; 16]),
            refused,
        };
        let name = if refused {
            "body-accept-refused"
        } else {
            "body-accept"
        };
        assert_golden(name, &accept.encode());
        assert_eq!(Accept::decode(&golden(name)), Ok(accept));
    }
}

#[test]
fn every_purpose_and_every_refusal_keeps_its_number() {
    let purposes = [
        Purpose::Settle,
        Purpose::Activate,
        Purpose::Deactivate,
        Purpose::Leave,
        Purpose::Widen,
        Purpose::Diskless,
    ];
    for (number, purpose) in (1u8..).zip(purposes) {
        let name = format!("body-propose-{number}");
        assert_golden(&name, &propose(purpose).encode());
        assert_eq!(Propose::decode(&golden(&name)), Ok(propose(purpose)));
    }
    let codes = [
        RefusedCode::Version,
        RefusedCode::Key,
        RefusedCode::VolumeName,
        RefusedCode::Node,
        RefusedCode::SecondPeer,
        RefusedCode::VolumeId,
        RefusedCode::Size,
        RefusedCode::BothBlank,
        RefusedCode::SplitBrain,
        RefusedCode::DiskFailed,
        RefusedCode::Busy,
        RefusedCode::Protocol,
        RefusedCode::NoSource,
        RefusedCode::BlockSize,
        RefusedCode::Lease,
        RefusedCode::MetadataFailed,
    ];
    for (number, code) in (1u8..).zip(codes) {
        let name = format!("body-refused-{number:02}");
        let refused = Refused {
            code,
            ours: 1,
            yours: 2,
        };
        assert_golden(&name, &refused.encode());
        assert_eq!(Refused::decode(&golden(&name)), Ok(refused));
    }
}

#[test]
fn the_document_was_read_when_the_source_changed() {
    assert_eq!(
        PROTOCOL_VERSION, 1,
        "a new version has golden files of its own"
    );
    let sources = ["mod", "header", "body", "evidence"]
        .map(|name| format!("ublk-mirror/core/src/wire/{name}.rs"));
    assert_documented("docs/protocol.md", &sources.each_ref().map(String::as_str));
}

#[test]
fn a_header_with_one_wrong_bit_is_refused() {
    let good = encode_header(&frame(FrameKind::Write), 7);
    for bit in 0..FRAME_HEADER_BYTES * 8 {
        let mut bytes = good;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_header(&bytes).is_err(), "bit {bit}");
    }
}

/// With a right checksum, so that the checks behind it are reached.
fn sealed(mut bytes: [u8; FRAME_HEADER_BYTES]) -> [u8; FRAME_HEADER_BYTES] {
    bytes[12..16].fill(0);
    let crc = payload_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_length_that_would_exhaust_memory_is_refused() {
    for kind in [
        FrameKind::Write,
        FrameKind::CopyWrite,
        FrameKind::State,
        FrameKind::Ping,
    ] {
        let mut bytes = encode_header(&frame(kind), 0);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = decode_header(&sealed(bytes)).expect_err("4 GiB");
        assert!(
            matches!(
                error,
                DecodeError::Length { .. } | DecodeError::Range { .. }
            ),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn any_header_bytes_are_survived(bytes in proptest::array::uniform32(any::<u8>()), more in proptest::array::uniform32(any::<u8>())) {
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..32].copy_from_slice(&bytes);
        header[32..].copy_from_slice(&more);
        let _ = decode_header(&header);
        header[..4].copy_from_slice(b"LSML");
        header[4] = 1;
        header[52..].fill(0);
        if let Ok((frame, crc)) = decode_header(&sealed(header)) {
            prop_assert_eq!(encode_header(&frame, crc), sealed(header), "what was understood is written the same");
        }
    }

    #[test]
    fn any_body_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
        let _ = Hello::decode(&bytes);
        let _ = Auth::decode(&bytes);
        let _ = Refused::decode(&bytes);
        let _ = State::decode(&bytes);
        let _ = Propose::decode(&bytes);
        let _ = Accept::decode(&bytes);
        let _ = Marks::decode(&bytes);
        let _ = Grow::decode(&bytes);
        let _ = GrowDone::decode(&bytes);
    }

    #[test]
    fn any_body_bytes_of_the_right_length_are_survived(bytes in proptest::collection::vec(any::<u8>(), 1024)) {
        let _ = Hello::decode(&bytes[..128]);
        let _ = Refused::decode(&bytes[..24]);
        let _ = State::decode(&bytes[..568]);
        let _ = Grow::decode(&bytes[..24]);
        let _ = GrowDone::decode(&bytes[..16]);
        let _ = Propose::decode(&bytes[..72]);
        let _ = Accept::decode(&bytes[..24]);
        let _ = Marks::decode(&bytes);
    }

    #[test]
    fn marks_that_are_understood_read_back(mut bytes in proptest::collection::vec(any::<u8>(), 1024), first in 0..1u64 << 41, ahead in proptest::option::of(0..1u64 << 41), block_sectors in 0..2100u32) {
        let least = first + MARKS_WORDS as u64;
        let next = ahead.map_or(u64::MAX, |ahead| first + ahead);
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&next.to_le_bytes());
        bytes[16..20].copy_from_slice(&block_sectors.to_le_bytes());
        bytes[20..24].fill(0);
        match Marks::decode(&bytes) {
            Ok(marks) => prop_assert_eq!(marks.encode().to_vec(), bytes),
            Err(error) => prop_assert!(next < least || !block_sectors.is_power_of_two() || block_sectors > 1024, "{}", error),
        }
    }

    #[test]
    fn states_that_are_understood_read_back(mut bytes in proptest::collection::vec(any::<u8>(), 568), flags in 0..64u32) {
        // Possible values where not everything is: size, sealed, view and flags.
        bytes[16..32].fill(1);
        bytes[23] = 0;
        bytes[22] = 0;
        bytes[31] = 0;
        bytes[39] = 0;
        bytes[56] = 0xff;
        bytes[58..64].fill(0);
        bytes[565..].fill(0);
        bytes[64..68].copy_from_slice(&(flags & !8).to_le_bytes());
        let state = State::decode(&bytes);
        prop_assert_eq!(state.map(|state| state.encode().to_vec()), Ok(bytes));
    }
}

#[test]
fn marks_that_would_go_round_in_circles_are_refused() {
    for next in [0, 0x0a0b, 0x0a0b + MARKS_WORDS as u64 - 1] {
        let mut bytes = marks(None).encode();
        bytes[8..16].copy_from_slice(&next.to_le_bytes());
        assert_eq!(
            Marks::decode(&bytes),
            Err(DecodeError::Value("marks.next_word"))
        );
    }
}

#[test]
fn every_step_of_a_grow_keeps_its_number_and_no_grow_shrinks() {
    let steps = [
        (1, GrowStep::Measure),
        (2, GrowStep::Prepare),
        (3, GrowStep::Commit),
        (4, GrowStep::Cancel),
    ];
    for (number, step) in steps {
        let mut bytes = grow(step).encode();
        assert_eq!(bytes[0], number);
        assert_eq!(Grow::decode(&bytes), Ok(grow(step)));
        bytes[0] = 5;
        let wrong = Err(DecodeError::Value("grow.step"));
        assert_eq!(Grow::decode(&bytes), wrong);
    }
    for (number, refused) in [
        (0, None),
        (1, Some(GrowRefused::Busy)),
        (2, Some(GrowRefused::NoRoom)),
    ] {
        let done = GrowDone {
            step: GrowStep::Commit,
            refused,
            room_sectors: 1,
        };
        assert_eq!(done.encode()[1], number);
        assert_eq!(GrowDone::decode(&done.encode()), Ok(done));
    }
    let mut bytes = grow(GrowStep::Commit).encode();
    bytes[16..24].copy_from_slice(&0x1f_ffff_u64.to_le_bytes());
    assert_eq!(
        Grow::decode(&bytes),
        Err(DecodeError::Value("grow.sectors"))
    );
}
