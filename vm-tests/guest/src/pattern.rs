//! The content of a ledger sector.
//!
//! Each 512-byte sector is a pure function of (run, block, sequence, sector index), with a header
//! that says who it is. So a sector that is lost, torn, misplaced, stale or corrupt can be told apart
//! by looking at it, without any record of what the data were.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 8 | block number |
//! | 16 | 8 | sequence |
//! | 24 | 4 | run |
//! | 28 | 4 | sector index in the block |
//! | 32 | 8 | checksum of the four fields above |
//! | 40 | 472 | pseudo-random bytes seeded by the checksum |

/// Size of the unit whose writes a disk does not tear.
pub const SECTOR_BYTES: usize = 512;

const MAGIC: u64 = u64::from_le_bytes(*b"LSledger");
const PAYLOAD_OFFSET: usize = 40;

/// Who a sector says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorId {
    /// Number of the writer's run.
    pub run: u32,
    /// Block of the device, in units of the block size.
    pub block: u64,
    /// The writer's sequence number.
    pub sequence: u64,
    /// Index of the sector in its block.
    pub sector: u32,
}

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorContent {
    /// Whole and self-consistent.
    Valid(SectorId),
    /// All zero: never written, or discarded.
    Zero,
    /// Anything else.
    Corrupt,
}

/// One step of a 64-bit mixer (splitmix64): good enough to make every sector different.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn checksum(id: SectorId) -> u64 {
    let tail = (u64::from(id.run) << 32) | u64::from(id.sector);
    mix(mix(mix(MAGIC ^ id.block) ^ id.sequence) ^ tail)
}

/// Fills one sector.
///
/// # Panics
/// If `sector` is not [`SECTOR_BYTES`] long.
pub fn fill_sector(id: SectorId, sector: &mut [u8]) {
    assert_eq!(sector.len(), SECTOR_BYTES);
    let sum = checksum(id);
    sector[0..8].copy_from_slice(&MAGIC.to_le_bytes());
    sector[8..16].copy_from_slice(&id.block.to_le_bytes());
    sector[16..24].copy_from_slice(&id.sequence.to_le_bytes());
    sector[24..28].copy_from_slice(&id.run.to_le_bytes());
    sector[28..32].copy_from_slice(&id.sector.to_le_bytes());
    sector[32..40].copy_from_slice(&sum.to_le_bytes());
    let mut state = sum;
    for chunk in sector[PAYLOAD_OFFSET..].chunks_exact_mut(8) {
        state = mix(state);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
}

/// Fills a whole block (a multiple of the sector size).
pub fn fill_block(run: u32, block: u64, sequence: u64, data: &mut [u8]) {
    for (index, sector) in (0_u32..).zip(data.chunks_exact_mut(SECTOR_BYTES)) {
        fill_sector(
            SectorId {
                run,
                block,
                sequence,
                sector: index,
            },
            sector,
        );
    }
}

/// Reads a sector and checks every byte of it.
///
/// # Panics
/// If `sector` is not [`SECTOR_BYTES`] long.
#[must_use]
pub fn read_sector(sector: &[u8]) -> SectorContent {
    assert_eq!(sector.len(), SECTOR_BYTES);
    if sector.iter().all(|byte| *byte == 0) {
        return SectorContent::Zero;
    }
    let id = SectorId {
        run: u32_at(sector, 24),
        block: u64_at(sector, 8),
        sequence: u64_at(sector, 16),
        sector: u32_at(sector, 28),
    };
    let mut expected = [0; SECTOR_BYTES];
    fill_sector(id, &mut expected);
    if expected == sector {
        SectorContent::Valid(id)
    } else {
        SectorContent::Corrupt
    }
}

/// Little-endian number at `offset`.
///
/// # Panics
/// If the slice is too short.
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

/// Little-endian number at `offset`.
///
/// # Panics
/// If the slice is too short.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_says_who_it_is_and_any_changed_byte_makes_it_corrupt() {
        let id = SectorId {
            run: 3,
            block: 17,
            sequence: 99,
            sector: 5,
        };
        let mut sector = [0; SECTOR_BYTES];
        assert_eq!(read_sector(&sector), SectorContent::Zero);
        fill_sector(id, &mut sector);
        assert_eq!(read_sector(&sector), SectorContent::Valid(id));
        for index in 0..SECTOR_BYTES {
            let mut damaged = sector;
            damaged[index] ^= 1;
            assert_eq!(
                read_sector(&damaged),
                SectorContent::Corrupt,
                "byte {index}"
            );
        }
    }
}
