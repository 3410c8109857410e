//! Frames to bytes of one connection, in order.
//!
//! Headers and control bodies lie in a circular buffer, payloads where they are; one send gathers
//! everything that waits.

use std::collections::VecDeque;

use mirror_core::wire::{FRAME_HEADER_BYTES, Frame, encode_header};

use crate::ring::{GATHER_MAX, Memory, Ring, Span};

use super::{LINK_BUFFER_BYTES, checksum};

/// Too much waits for a peer that does not read.
#[derive(Debug)]
pub(super) struct Overflow;

/// See the module.
#[derive(Debug)]
pub(super) struct Sender {
    buffer: u32,
    /// Where the next header goes.
    head: usize,
    waiting: VecDeque<Span>,
    /// The peer knows XXH64.
    may_xxh64: bool,
}

impl Sender {
    pub(super) fn new(buffer: u32) -> Sender {
        Sender {
            buffer,
            head: 0,
            waiting: VecDeque::with_capacity(256),
            may_xxh64: false,
        }
    }

    /// Payloads may go out with XXH64 from now on.
    pub(super) fn allow_xxh64(&mut self) {
        self.may_xxh64 = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a frame behind what waits.
    pub(super) fn put(
        &mut self,
        ring: &mut Ring,
        mut frame: Frame,
        body: &[u8],
        payload: Option<Span>,
    ) -> Result<(), Overflow> {
        let crc = match payload {
            Some(span) => {
                let (sum, flag) = checksum::of_payload(ring.bytes(span), self.may_xxh64);
                frame.flags |= flag;
                sum
            }
            None => checksum::of(body),
        };
        let length = payload.map_or(body.len(), |span| span.bytes);
        frame.length_bytes = u32::try_from(length).map_err(|_| Overflow)?;
        let span = self.reserve(FRAME_HEADER_BYTES + body.len())?;
        let (header, rest) = ring.bytes_mut(span).split_at_mut(FRAME_HEADER_BYTES);
        header.copy_from_slice(&encode_header(&frame, crc));
        rest.copy_from_slice(body);
        match self.waiting.back_mut() {
            Some(last)
                if last.memory == Memory::Link && last.offset + last.bytes == span.offset =>
            {
                last.bytes += span.bytes;
            }
            Some(_) | None => self.waiting.push_back(span),
        }
        self.waiting.extend(payload);
        Ok(())
    }

    /// What the next send takes along.
    pub(super) fn gather(&mut self) -> &[Span] {
        let all = self.waiting.make_contiguous();
        &all[..all.len().min(GATHER_MAX)]
    }

    /// The first `count` bytes are out.
    pub(super) fn sent(&mut self, mut count: usize) {
        while let Some(first) = self.waiting.front_mut() {
            if count < first.bytes {
                *first = first.after(count);
                return;
            }
            count -= first.bytes;
            self.waiting.pop_front();
        }
    }

    /// Nothing goes out any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    fn reserve(&mut self, bytes: usize) -> Result<Span, Overflow> {
        let oldest = self
            .waiting
            .iter()
            .find(|span| span.memory == Memory::Link)
            .map(|span| span.offset);
        let offset = match oldest {
            None => Some(0).filter(|_| bytes <= LINK_BUFFER_BYTES),
            Some(tail) if self.head > tail => {
                if self.head + bytes <= LINK_BUFFER_BYTES {
                    Some(self.head)
                } else {
                    Some(0).filter(|_| bytes < tail)
                }
            }
            Some(tail) => Some(self.head).filter(|head| head + bytes < tail),
        };
        let offset = offset.ok_or(Overflow)?;
        self.head = offset + bytes;
        Ok(Span {
            memory: Memory::Link,
            buffer: self.buffer,
            offset,
            bytes,
        })
    }
}
