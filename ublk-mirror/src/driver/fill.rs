//! What the peer read for a request of the application goes to that request's buffer.

use mirror_core::event::IoOwner;
use mirror_core::types::{SectorRange, Tag};

use crate::local_disk::data_buffer;
use crate::ring::{Memory, Ring, Span};

pub(super) fn fill(ring: &mut Ring, tag: Tag, slot: u16, range: SectorRange) {
    let bytes = usize::try_from(range.bytes()).expect("a payload fits into memory");
    let span = |owner| Span {
        memory: Memory::Data,
        buffer: data_buffer(ring, owner).expect("requests and payloads have buffers"),
        offset: 0,
        bytes,
    };
    let (from, to) = (span(IoOwner::Peer(slot)), span(IoOwner::Application(tag)));
    ring.copy_data(from, to);
}
