//! Bytes of one connection to frames.
//!
//! Headers and control bodies pass through a staging buffer. A payload goes to a receive buffer:
//! what came along with its header is copied, the rest is received straight into it.

use mirror_core::wire::{
    DecodeError, FLAG_XXH64, FRAME_HEADER_BYTES, Frame, FrameKind, decode_header,
};
use thiserror::Error;

use crate::local_disk::receive_buffer;
use crate::ring::{Memory, Ring, Span};

use super::{LINK_BUFFER_BYTES, checksum};

/// The staging buffer is moved together when less than this is left at its end.
const ROOM_MIN_BYTES: usize = 8192;

/// Why the bytes are not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Garbage {
    #[error(transparent)]
    Header(#[from] DecodeError),
    #[error("the bytes of a {0:?} frame do not match their checksum")]
    Payload(FrameKind),
    #[error("a {0:?} frame before the handshake was done")]
    TooEarly(FrameKind),
}

/// What the bytes so far give.
#[derive(Debug)]
pub(super) enum Step {
    Frame {
        frame: Frame,
        body: Span,
        buffer: Option<u16>,
    },
    /// More bytes are needed, or a receive buffer.
    Wait,
    Garbage(Garbage),
}

#[derive(Debug)]
struct Incoming {
    frame: Frame,
    crc: u32,
    slot: u16,
    got: usize,
}

impl Incoming {
    fn bytes(&self) -> usize {
        self.frame.length_bytes as usize
    }

    fn span(&self) -> Span {
        Span {
            memory: Memory::Data,
            buffer: receive_buffer(self.slot),
            offset: 0,
            bytes: self.bytes(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Receiver {
    staging: u32,
    start: usize,
    end: usize,
    incoming: Option<Incoming>,
    /// The handshake has come to the point where data may follow.
    data_allowed: bool,
    /// A payload waits for a receive buffer: nothing is read until one is free.
    pub(super) starved: bool,
}

impl Receiver {
    pub(super) fn new(staging: u32) -> Receiver {
        Receiver {
            staging,
            start: 0,
            end: 0,
            incoming: None,
            data_allowed: false,
            starved: false,
        }
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self, ring: &mut Ring) -> Span {
        if let Some(incoming) = &self.incoming {
            return incoming.span().after(incoming.got);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if LINK_BUFFER_BYTES - self.end < ROOM_MIN_BYTES {
            ring.move_to_front(self.staged(self.start, self.end - self.start));
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.staged(self.end, LINK_BUFFER_BYTES - self.end)
    }

    /// `count` bytes have arrived in the room.
    pub(super) fn arrived(&mut self, count: usize) {
        match &mut self.incoming {
            Some(incoming) => incoming.got += count,
            None => self.end += count,
        }
    }

    /// Forgets everything; what comes now is thrown away.
    pub(super) fn discard(&mut self) -> Option<u16> {
        (self.start, self.end) = (0, 0);
        self.incoming.take().map(|incoming| incoming.slot)
    }

    pub(super) fn next(&mut self, ring: &mut Ring, free: &mut Vec<u16>) -> Step {
        if self.incoming.is_none() {
            match self.header(ring, free) {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(garbage) => return Step::Garbage(garbage),
            }
        }
        self.payload(ring, free)
    }

    /// Takes a header; a control frame or an answer is complete with it.
    fn header(&mut self, ring: &Ring, free: &mut Vec<u16>) -> Result<Option<Step>, Garbage> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if self.end - self.start < FRAME_HEADER_BYTES {
            return Ok(Some(Step::Wait));
        }
        bytes.copy_from_slice(ring.bytes(self.staged(self.start, FRAME_HEADER_BYTES)));
        let (frame, crc) = decode_header(&bytes)?;
        if !self.data_allowed && !is_control(frame.kind) {
            return Err(Garbage::TooEarly(frame.kind));
        }
        if frame.kind.has_payload() && frame.length_bytes > 0 {
            let Some(slot) = free.pop() else {
                self.starved = true;
                return Ok(Some(Step::Wait));
            };
            self.starved = false;
            self.start += FRAME_HEADER_BYTES;
            self.incoming = Some(Incoming {
                frame,
                crc,
                slot,
                got: 0,
            });
            return Ok(None);
        }
        let length = frame.length_bytes as usize;
        if self.end - self.start < FRAME_HEADER_BYTES + length {
            return Ok(Some(Step::Wait));
        }
        let body = self.staged(self.start + FRAME_HEADER_BYTES, length);
        if frame.flags & FLAG_XXH64 != 0 || checksum::of(ring.bytes(body)) != crc {
            return Err(Garbage::Payload(frame.kind));
        }
        self.start += FRAME_HEADER_BYTES + length;
        self.data_allowed |= frame.kind == FrameKind::State;
        Ok(Some(Step::Frame {
            frame,
            body,
            buffer: None,
        }))
    }

    fn payload(&mut self, ring: &mut Ring, free: &mut Vec<u16>) -> Step {
        let Some(mut incoming) = self.incoming.take() else {
            return Step::Wait;
        };
        let staged = (self.end - self.start).min(incoming.bytes() - incoming.got);
        if staged > 0 {
            let to = Span {
                bytes: staged,
                ..incoming.span().after(incoming.got)
            };
            ring.copy(self.staged(self.start, staged), to);
            self.start += staged;
            incoming.got += staged;
        }
        if incoming.got < incoming.bytes() {
            self.incoming = Some(incoming);
            return Step::Wait;
        }
        let flag = incoming.frame.flags & FLAG_XXH64;
        incoming.frame.flags &= !FLAG_XXH64;
        if checksum::by_flag(ring.bytes(incoming.span()), flag) != incoming.crc {
            free.push(incoming.slot);
            return Step::Garbage(Garbage::Payload(incoming.frame.kind));
        }
        Step::Frame {
            frame: incoming.frame,
            body: self.staged(0, 0),
            buffer: Some(incoming.slot),
        }
    }

    fn staged(&self, offset: usize, bytes: usize) -> Span {
        Span {
            memory: Memory::Link,
            buffer: self.staging,
            offset,
            bytes,
        }
    }
}

/// What may come before the handshake is done.
fn is_control(kind: FrameKind) -> bool {
    match kind {
        FrameKind::Hello
        | FrameKind::Auth
        | FrameKind::Refused
        | FrameKind::State
        | FrameKind::Propose
        | FrameKind::Accept
        | FrameKind::Evidence
        | FrameKind::Leave
        | FrameKind::Isolate
        | FrameKind::Ping
        | FrameKind::Pong => true,
        FrameKind::Write
        | FrameKind::CopyWrite
        | FrameKind::Discard
        | FrameKind::WriteZeroes
        | FrameKind::Flush
        | FrameKind::Done
        | FrameKind::CopyDone
        | FrameKind::CopyWant
        | FrameKind::CopyZeroes
        | FrameKind::CopyHash
        | FrameKind::VerifyHash
        | FrameKind::VerifyWrite
        | FrameKind::VerifyDone
        | FrameKind::VerifyWant
        | FrameKind::Read
        | FrameKind::ReadDone
        | FrameKind::MarksWanted
        | FrameKind::Marks
        | FrameKind::Grow
        | FrameKind::GrowDone => false,
    }
}

#[cfg(test)]
mod tests {
    use mirror_core::types::{Epoch, SectorRange};
    use mirror_core::wire::{FLAG_FUA, encode_header, payload_crc};

    use super::*;
    use crate::buffers::Pool;

    const SLOT: u16 = 0;

    /// What a receiver makes of a frame and the bytes behind it.
    fn received(frame: Frame, sum: u32, bytes: &[u8]) -> Step {
        let data = Pool::new(receive_buffer(SLOT) + 1, 4096).unwrap();
        let link = Pool::new(1, u32::try_from(LINK_BUFFER_BYTES).unwrap()).unwrap();
        let mut ring = Ring::new(data, link, 1).unwrap();
        let mut receiver = Receiver::new(0);
        receiver.data_allowed = true;
        let room = receiver.room(&mut ring);
        let all = [&encode_header(&frame, sum)[..], bytes].concat();
        ring.bytes_mut(room)[..all.len()].copy_from_slice(&all);
        receiver.arrived(all.len());
        receiver.next(&mut ring, &mut vec![SLOT])
    }

    fn write(flags: u16) -> Frame {
        let mut frame = Frame::new(FrameKind::Write, Epoch(3), 7);
        (frame.range, frame.length_bytes) = (SectorRange::new(8, 8), 4096);
        frame.flags = flags;
        frame
    }

    #[test]
    fn a_payload_is_held_against_the_checksum_that_its_flag_names() {
        let bytes = [0x5a; 4096];
        let (crc, xxh64) = (payload_crc(&bytes), checksum::by_flag(&bytes, FLAG_XXH64));
        for (flags, sum) in [(FLAG_FUA, crc), (FLAG_FUA | FLAG_XXH64, xxh64)] {
            let step = received(write(flags), sum, &bytes);
            let Step::Frame { frame, buffer, .. } = step else {
                panic!("{step:?}");
            };
            assert_eq!((frame.flags, buffer), (FLAG_FUA, Some(SLOT)), "stripped");
        }
        let mut damaged = bytes;
        damaged[4095] ^= 1;
        for (flags, sum, bytes) in [
            (0, xxh64, bytes),
            (FLAG_XXH64, crc, bytes),
            (0, crc, damaged),
            (FLAG_XXH64, xxh64, damaged),
        ] {
            let step = received(write(flags), sum, &bytes);
            assert!(matches!(step, Step::Garbage(Garbage::Payload(_))));
        }
    }

    #[test]
    fn the_flag_belongs_to_payloads_alone() {
        let mut frame = Frame::new(FrameKind::Done, Epoch(3), 7);
        frame.flags = FLAG_XXH64;
        let step = received(frame, checksum::of(&[]), &[]);
        assert!(matches!(step, Step::Garbage(Garbage::Payload(_))));
    }
}
