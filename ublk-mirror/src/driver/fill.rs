//! Buffers and what is in them: what the peer read for a request of the application goes to that request's buffer, and
//! copy buffers are looked at.

use mirror_core::checksum;
use mirror_core::effect::PayloadSource;
use mirror_core::event::IoOwner;
use mirror_core::types::{SectorRange, Tag};

use super::Driver;
use crate::buffers::is_zero;
use crate::front::Front;
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

/// Whose buffer holds what is sent.
pub(super) fn holder(source: PayloadSource) -> IoOwner {
    match source {
        PayloadSource::Application(tag) => IoOwner::Application(tag),
        PayloadSource::Copy(slot) => IoOwner::Copy(slot),
        PayloadSource::Serve(slot) => IoOwner::Serve(slot),
    }
}

impl<F: Front> Driver<F> {
    pub(super) fn examine(&mut self, slot: u16, range: SectorRange, digest: bool) {
        let bytes = copy_bytes(&self.parts.ring, slot, range);
        let zero = is_zero(bytes);
        let digest = (digest && !zero).then(|| checksum::digest(bytes));
        self.examined.push_back((slot, zero, digest));
    }
}

/// What a copy buffer holds.
fn copy_bytes(ring: &Ring, slot: u16, range: SectorRange) -> &[u8] {
    let buffer = data_buffer(ring, IoOwner::Copy(slot)).expect("a copy has a buffer");
    ring.bytes(Span {
        memory: Memory::Data,
        buffer,
        offset: 0,
        bytes: usize::try_from(range.bytes()).expect("a run fits into memory"),
    })
}
