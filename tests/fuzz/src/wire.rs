//! The frame header and each control body. What is understood must be written the same again.

use mirror_core::limits::{CONTROL_BYTES_MAX, PAYLOAD_BYTES_MAX};
use mirror_core::wire::{
    Accept, Auth, Evidence, FRAME_HEADER_BYTES, Grow, GrowDone, Hello, Marks, Propose, Refused,
    State, decode_header, encode_header, payload_crc,
};

/// As they are, with a right checksum, and with the right first bytes too.
pub fn header(data: &[u8]) {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    for (to, from) in bytes.iter_mut().zip(data) {
        *to = *from;
    }
    one_header(&bytes);
    one_header(&sealed(bytes));
    bytes[..4].copy_from_slice(b"LSML");
    bytes[4] = 1;
    one_header(&sealed(bytes));
}

fn sealed(mut bytes: [u8; FRAME_HEADER_BYTES]) -> [u8; FRAME_HEADER_BYTES] {
    bytes[12..16].fill(0);
    let crc = payload_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn one_header(bytes: &[u8; FRAME_HEADER_BYTES]) {
    let Ok((frame, crc)) = decode_header(bytes) else {
        return;
    };
    assert_eq!(
        &encode_header(&frame, crc),
        bytes,
        "a header is written as it was read"
    );
    let allowed = if frame.kind.has_payload() {
        PAYLOAD_BYTES_MAX
    } else if frame.kind.has_body() {
        CONTROL_BYTES_MAX
    } else {
        0
    };
    assert!(frame.length_bytes <= allowed, "a bound is not kept");
}

macro_rules! body {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("A body of [`", stringify!($type), "`].")]
        pub fn $name(data: &[u8]) {
            if let Ok(value) = <$type>::decode(data) {
                assert_eq!(<$type>::decode(&value.encode()), Ok(value), "it reads what it writes");
            }
        }
    )*};
}

body! {
    hello: Hello;
    auth: Auth;
    refused: Refused;
    state: State;
    propose: Propose;
    accept: Accept;
    marks: Marks;
    grow: Grow;
    grow_done: GrowDone;
    evidence: Evidence;
}
