//! CRC-32C (Castagnoli), the checksum of every format.

use crc::{CRC_32_ISCSI, Crc, Table};

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// CRC-32C of `bytes` (polynomial 0x1EDC6F41, reflected; `crc32c("123456789") = 0xe3069283`).
///
/// Portable and of middling speed: right for headers, control bodies and superblocks. The shell has a
/// vectorised one for payloads, which must agree with it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// BLAKE3 of a run of a resync: equal digests mean equal bytes.
pub fn digest(bytes: &[u8]) -> crate::event::Digest {
    *blake3::hash(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_castagnoli_polynomial() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
