//! The file of a discarded side's blocks: whatever is in it, what is taken out lies within the volume.

use mirror_core::checksum::crc32c;
use mirror_core::disk::{
    KEPT_DATA_BYTES_MAX, KEPT_DIGEST_BYTES, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptFault,
    KeptHead, KeptHeader, KeptReader, KeptWriter,
};

use crate::input::{Input, patch};
use crate::samples::{name, node, view};

const CHANGES_MAX: usize = 24;
const BLOCK: u64 = 512;
const SIZE_BYTES: u64 = 64 * BLOCK + 512;

/// A good file, and where its checksums are: the place of each, and what it covers.
fn sample() -> (Vec<u8>, Vec<(usize, std::ops::Range<usize>)>) {
    let members = view(7, None, mirror_core::types::NodeSet::EMPTY);
    let header = KeptHeader {
        volume_id: mirror_core::types::VolumeId([1; 16]),
        volume_name: name(),
        node: node(1),
        peer: node(0),
        node_name: name(),
        view: view(9, None, members.insync).mark(),
        common: members.mark(),
        size_bytes: SIZE_BYTES,
        block_bytes: 512,
        marked_bytes: 6 * BLOCK,
        at_s: 1_767_225_599,
    };
    let (mut writer, bytes) = KeptWriter::new(&header);
    let mut file = bytes.to_vec();
    let mut seals = vec![(12, 0..KEPT_HEADER_BYTES)];
    let mut run = |file: &mut Vec<u8>, head: [u8; KEPT_HEAD_BYTES], data: &[u8]| {
        let at = file.len();
        file.extend(head);
        file.extend(data);
        if !data.is_empty() {
            seals.push((at + 24, at + KEPT_HEAD_BYTES..file.len()));
        }
        seals.push((at + 28, at..at + KEPT_HEAD_BYTES));
    };
    let data = [7; 512];
    run(&mut file, writer.data(BLOCK, &data), &data);
    run(&mut file, writer.zeroes(4 * BLOCK, 4 * BLOCK), &[]);
    run(&mut file, writer.data(64 * BLOCK, &data), &data);
    let end = writer.end();
    let at = file.len();
    file.extend(end);
    seals.push((at + 28, at..at + KEPT_HEAD_BYTES));
    (file, seals)
}

fn seal(file: &mut [u8], seals: &[(usize, std::ops::Range<usize>)]) {
    for (place, covered) in seals {
        let inside = covered.contains(place);
        if inside {
            file[*place..place + 4].fill(0);
        }
        let crc = crc32c(&file[covered.clone()]);
        file[*place..place + 4].copy_from_slice(&crc.to_le_bytes());
    }
    let end = file.len() - KEPT_DIGEST_BYTES;
    let digest = mirror_core::checksum::digest(&file[..end]);
    file[end..].copy_from_slice(&digest);
}

/// What the file holds: places and lengths.
fn read(bytes: &[u8]) -> Result<(KeptHeader, Vec<(u64, u64)>), KeptFault> {
    let mut rest = bytes;
    let mut next = |count: usize| {
        let (one, other) = rest.split_at_checked(count)?;
        rest = other;
        Some(one)
    };
    let short = KeptFault::Value("the length of the file");
    let header = next(KEPT_HEADER_BYTES).and_then(|bytes| bytes.try_into().ok());
    let mut reader = KeptReader::new(header.ok_or(short)?)?;
    let mut runs = Vec::new();
    loop {
        let head = next(KEPT_HEAD_BYTES).and_then(|bytes| bytes.try_into().ok());
        match reader.head(head.ok_or(short)?)? {
            KeptHead::Data {
                offset_bytes,
                length_bytes,
            } => {
                assert!(
                    length_bytes <= KEPT_DATA_BYTES_MAX,
                    "a buffer without bound"
                );
                reader.data(next(length_bytes as usize).ok_or(short)?)?;
                runs.push((offset_bytes, u64::from(length_bytes)));
            }
            KeptHead::Zeroes {
                offset_bytes,
                length_bytes,
            } => runs.push((offset_bytes, length_bytes)),
            KeptHead::End => break,
        }
    }
    let digest = next(KEPT_DIGEST_BYTES).and_then(|bytes| bytes.try_into().ok());
    reader.digest(digest.ok_or(short)?)?;
    Ok((*reader.header(), runs))
}

/// A file with changes, its checksums made right if the first byte is odd; cut off if the second one says so.
pub fn file(data: &[u8]) {
    let mut input = Input::new(data);
    let sealed = input.byte() & 1 != 0;
    let cut = usize::from(input.byte());
    let (good, seals) = sample();
    let mut bytes = good.clone();
    for _ in 0..input.below(CHANGES_MAX) {
        patch(&mut input, &mut bytes);
    }
    if sealed {
        seal(&mut bytes, &seals);
    }
    bytes.truncate(bytes.len() - cut);
    let Ok((header, runs)) = read(&bytes) else {
        assert!(bytes != good, "a good file is refused");
        return;
    };
    assert!(sealed || bytes == good, "a change was not noticed");
    let mut at = 0;
    for (start, length) in &runs {
        let end = start.checked_add(*length).expect("a place on the volume");
        assert!(*start >= at && *length > 0 && end <= header.size_bytes);
        assert!(start.is_multiple_of(u64::from(header.block_bytes)));
        at = end;
    }
    let total: u64 = runs.iter().map(|(_, length)| length).sum();
    assert_eq!(total, header.marked_bytes);
    assert_eq!(KeptHeader::decode(&header.encode()), Ok(header));
}
