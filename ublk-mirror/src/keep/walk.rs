//! Reads the blocks in their order, and tells data from zeroes.

use mirror_core::disk::KEPT_DATA_BYTES_MAX;

use super::{Job, KeepError, Progress};
use crate::buffers::{Pool, is_zero};

/// A part of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Data {
        offset_bytes: u64,
        data: &'a [u8],
    },
    Zeroes {
        offset_bytes: u64,
        length_bytes: u64,
    },
}

/// Gives every piece to `take`. Pieces of data have the format's longest run at most; zeroes have any length.
pub(super) fn walk(
    job: &Job,
    progress: &Progress,
    mut take: impl FnMut(&Piece<'_>) -> Result<(), KeepError>,
) -> Result<(), KeepError> {
    let mut pool = Pool::new(1, KEPT_DATA_BYTES_MAX)?;
    let Some(buffer) = pool.ids().next() else {
        return Ok(());
    };
    let step = u64::from(KEPT_DATA_BYTES_MAX);
    let block = job.unique.header.block_bytes as usize;
    for (start, length) in job.unique.runs_bytes() {
        let end = start + length;
        let mut zeroes = start..start;
        let mut at = start;
        while at < end {
            // Cut where the disk is cut, too.
            let bytes = (step - at % step).min(end - at);
            let chunk = &mut pool.slice_mut(buffer)[..usize::try_from(bytes).unwrap_or(0)];
            job.source.read(chunk, job.data_start_bytes + at, at)?;
            for (zero, place) in pieces(chunk, block) {
                let (from, to) = (at + place.start as u64, at + place.end as u64);
                if zero {
                    zeroes.end = to;
                    continue;
                }
                end_zeroes(&zeroes, &mut take)?;
                zeroes = to..to;
                take(&Piece::Data {
                    offset_bytes: from,
                    data: &chunk[place],
                })?;
            }
            at += bytes;
            progress.note(bytes)?;
        }
        end_zeroes(&zeroes, &mut take)?;
    }
    Ok(())
}

fn end_zeroes(
    zeroes: &std::ops::Range<u64>,
    take: &mut impl FnMut(&Piece<'_>) -> Result<(), KeepError>,
) -> Result<(), KeepError> {
    if zeroes.is_empty() {
        return Ok(());
    }
    take(&Piece::Zeroes {
        offset_bytes: zeroes.start,
        length_bytes: zeroes.end - zeroes.start,
    })
}

/// The longest parts of `chunk`, in blocks, that are all zeroes or have none that is.
fn pieces(chunk: &[u8], block: usize) -> Vec<(bool, std::ops::Range<usize>)> {
    let mut pieces: Vec<(bool, std::ops::Range<usize>)> = Vec::new();
    let mut at = 0;
    for bytes in chunk.chunks(block) {
        let zero = is_zero(bytes);
        let end = at + bytes.len();
        match pieces.last_mut() {
            Some((kind, place)) if *kind == zero => place.end = end,
            _ => pieces.push((zero, at..end)),
        }
        at = end;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_blocks_are_told_from_others() {
        let mut chunk = vec![0; 4096 * 4 + 512];
        chunk[4096] = 1;
        chunk[3 * 4096 - 1] = 1;
        assert_eq!(
            pieces(&chunk, 4096),
            [
                (true, 0..4096),
                (false, 4096..3 * 4096),
                (true, 3 * 4096..4 * 4096 + 512)
            ]
        );
        assert_eq!(pieces(&[], 4096), []);
    }
}
