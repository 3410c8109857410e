//! The I/O buffers: one page-aligned, prefaulted, locked mapping, cut into pieces
//! of equal size. Nothing in the write path allocates; a page fault on a buffer
//! while the system reclaims memory through this very volume would never return.

use std::io;

use memmap2::{MmapMut, MmapOptions};
use thiserror::Error;

/// Alignment of every buffer, enough for O_DIRECT on any disk.
pub const BUFFER_ALIGN_BYTES: usize = 4096;

#[derive(Debug, Error)]
pub enum BufferError {
    #[error("buffer size {size_bytes} is not a positive multiple of {BUFFER_ALIGN_BYTES}")]
    Size { size_bytes: u32 },
    #[error("{count} buffers of {size_bytes} bytes exceed the address space")]
    TooMany { count: u32, size_bytes: u32 },
    #[error("cannot map {bytes} bytes for I/O buffers")]
    Map {
        bytes: usize,
        #[source]
        source: io::Error,
    },
    #[error("cannot lock {bytes} bytes of I/O buffers (LimitMEMLOCK?)")]
    Lock {
        bytes: usize,
        #[source]
        source: io::Error,
    },
}

/// Names one buffer of a [`Pool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// All buffers of a volume.
///
/// Addresses are stable for the life of the pool. A borrowed slice and the kernel
/// must not meet: whoever submits an operation that *writes* a buffer promises (in
/// the `unsafe` of pushing it to the ring) that no slice of it is borrowed before
/// the completion has been seen.
#[derive(Debug)]
pub struct Pool {
    memory: MmapMut,
    count: u32,
    size_bytes: usize,
}

impl Pool {
    pub fn new(count: u32, size_bytes: u32) -> Result<Pool, BufferError> {
        let too_many = BufferError::TooMany { count, size_bytes };
        let size = size_bytes as usize;
        if size == 0 || !size.is_multiple_of(BUFFER_ALIGN_BYTES) {
            return Err(BufferError::Size { size_bytes });
        }
        let bytes = size.checked_mul(count as usize).ok_or(too_many)?;
        let memory = MmapOptions::new()
            .len(bytes)
            .populate()
            .map_anon()
            .map_err(|source| BufferError::Map { bytes, source })?;
        memory
            .lock()
            .map_err(|source| BufferError::Lock { bytes, source })?;
        Ok(Pool {
            memory,
            count,
            size_bytes: size,
        })
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    pub fn ids(&self) -> impl Iterator<Item = BufferId> + use<> {
        (0..self.count).map(BufferId)
    }

    /// Address for submission entries. The kernel may write through it although the
    /// pool is only borrowed shared here: the mapping itself is writable.
    pub fn ptr(&self, id: BufferId) -> *mut u8 {
        let offset = self.offset(id);
        self.memory.as_ptr().wrapping_add(offset).cast_mut()
    }

    pub fn slice(&self, id: BufferId) -> &[u8] {
        let offset = self.offset(id);
        &self.memory[offset..offset + self.size_bytes]
    }

    pub fn slice_mut(&mut self, id: BufferId) -> &mut [u8] {
        let offset = self.offset(id);
        &mut self.memory[offset..offset + self.size_bytes]
    }

    /// Copies the first `bytes` of one buffer to another.
    pub fn copy(&mut self, from: BufferId, to: BufferId, bytes: usize) {
        assert!(
            bytes <= self.size_bytes,
            "copy of {bytes} bytes exceeds a buffer"
        );
        let source = self.offset(from);
        let target = self.offset(to);
        self.memory.copy_within(source..source + bytes, target);
    }

    fn offset(&self, id: BufferId) -> usize {
        assert!(id.0 < self.count, "{id:?} is not of this pool");
        id.0 as usize * self.size_bytes
    }
}

/// Whether all of it is zeroes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_do_not_overlap() {
        let mut pool = Pool::new(3, 8192).unwrap();
        for id in pool.ids() {
            assert!((pool.ptr(id) as usize).is_multiple_of(BUFFER_ALIGN_BYTES));
            pool.slice_mut(id).fill(u8::try_from(id.0).unwrap());
        }
        assert!(pool.slice(BufferId(1)).iter().all(|byte| *byte == 1));
        pool.copy(BufferId(2), BufferId(0), 4096);
        assert_eq!(pool.slice(BufferId(0))[4095..4097], [2, 0]);
    }

    #[test]
    fn a_size_that_breaks_direct_io_is_refused() {
        assert!(matches!(Pool::new(1, 512), Err(BufferError::Size { .. })));
        assert!(matches!(Pool::new(1, 0), Err(BufferError::Size { .. })));
    }
}
