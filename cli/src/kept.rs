//! Reads a file of the blocks that a discarded side of a split brain had alone, and believes none of it unchecked.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use mirror_core::disk::{
    KEPT_DIGEST_BYTES, KEPT_HEAD_BYTES, KEPT_HEADER_BYTES, KeptFault, KeptHead, KeptHeader,
    KeptReader,
};

use crate::failure::Failure;

/// The end of the name of such a file.
pub(crate) const SUFFIX: &str = ".blocks";
/// Behind that, until it is whole.
pub(crate) const PARTIAL_SUFFIX: &str = ".partial";
const READ_BYTES: usize = 1 << 20;

/// A part of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Data {
        offset_bytes: u64,
        data: &'a [u8],
    },
    Zeroes {
        offset_bytes: u64,
        length_bytes: u64,
    },
}

/// A whole file, as it was found.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: KeptHeader,
    /// Of the header's `marked_bytes`, those that are not zeroes.
    pub(crate) data_bytes: u64,
}

/// What the file begins with; the rest is not looked at.
pub(crate) fn header(path: &Path) -> Result<KeptHeader, Failure> {
    let mut bytes = [0; KEPT_HEADER_BYTES];
    open(path)?
        .read_exact(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    KeptHeader::decode(&bytes).map_err(|fault| faulty(path, fault))
}

/// Gives every piece to `take`, in their order, and checks everything. What `take` got before an error is true by
/// its own checksum, and not all there is.
pub(crate) fn walk(
    path: &Path,
    mut take: impl FnMut(&Piece<'_>) -> Result<(), Failure>,
) -> Result<Contents, Failure> {
    let mut input = BufReader::with_capacity(READ_BYTES, open(path)?);
    let mut fill = |bytes: &mut [u8]| {
        let read = input.read_exact(bytes);
        read.map_err(|error| unreadable(path, &error))
    };
    let fault = |fault| faulty(path, fault);
    let mut bytes = [0; KEPT_HEADER_BYTES];
    fill(&mut bytes)?;
    let mut reader = KeptReader::new(&bytes).map_err(fault)?;
    let mut data = Vec::new();
    loop {
        let mut head = [0; KEPT_HEAD_BYTES];
        fill(&mut head)?;
        match reader.head(&head).map_err(fault)? {
            KeptHead::Data {
                offset_bytes,
                length_bytes,
            } => {
                data.resize(length_bytes as usize, 0);
                fill(&mut data)?;
                reader.data(&data).map_err(fault)?;
                take(&Piece::Data {
                    offset_bytes,
                    data: &data,
                })?;
            }
            KeptHead::Zeroes {
                offset_bytes,
                length_bytes,
            } => take(&Piece::Zeroes {
                offset_bytes,
                length_bytes,
            })?,
            KeptHead::End => break,
        }
    }
    let mut digest = [0; KEPT_DIGEST_BYTES];
    fill(&mut digest)?;
    reader.digest(&digest).map_err(fault)?;
    let mut more = [0; 1];
    match input.read(&mut more) {
        Ok(0) => Ok(Contents {
            header: *reader.header(),
            data_bytes: reader.data_bytes(),
        }),
        Ok(_) => Err(wrong(path, "has something behind its end")),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| Failure::file(path, "open", &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return wrong(path, "ends too early");
    }
    Failure::file(path, "read", error)
}

fn faulty(path: &Path, fault: KeptFault) -> Failure {
    wrong(path, &fault.to_string())
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::new(
        "LS4013",
        format!("{} {what}; nothing of it was used", path.display()),
        "if its name ends with .partial, it was never whole, and nothing was discarded when it was made; otherwise \
         restore it from a copy",
    )
}

/// Whether it is the name of a file that is not whole.
pub(crate) fn is_partial(path: &Path) -> bool {
    path.to_string_lossy().ends_with(PARTIAL_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::disk::KeptWriter;
    use mirror_core::types::{Epoch, NodeId, ViewId, VolumeId};
    use mirror_core::view::ViewMark;
    use std::path::PathBuf;

    fn padded(name: &str) -> [u8; 64] {
        let mut padded = [0; 64];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        padded
    }

    fn sample() -> Vec<u8> {
        let mark = |epoch, id| ViewMark {
            epoch: Epoch(epoch),
            id: ViewId([id; 16]),
        };
        let header = KeptHeader {
            volume_id: VolumeId([1; 16]),
            volume_name: padded("data"),
            node: NodeId::new(1).unwrap(),
            peer: NodeId::new(0).unwrap(),
            node_name: padded("node2"),
            view: mark(9, 2),
            common: mark(7, 3),
            size_bytes: (1 << 20) + 512,
            block_bytes: 4096,
            marked_bytes: 4096 + 8192 + 512,
            at_s: 1_767_225_599,
        };
        let (mut writer, bytes) = KeptWriter::new(&header);
        let mut file = bytes.to_vec();
        for (offset, data) in [(4096, vec![7; 4096]), (1 << 20, vec![8; 512])] {
            if offset == 1 << 20 {
                file.extend(writer.zeroes(8192, 8192));
            }
            file.extend(writer.data(offset, &data));
            file.extend(data);
        }
        file.extend(writer.end());
        file
    }

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    fn file(name: &str, bytes: &[u8]) -> Scratch {
        let path = std::env::temp_dir().join(format!("kept-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Scratch(path)
    }

    #[test]
    fn a_whole_file_gives_its_blocks() {
        let file = file("whole", &sample());
        let mut found = Vec::new();
        let contents = walk(&file.0, |piece| {
            found.push(match piece {
                Piece::Data { offset_bytes, data } => (*offset_bytes, data.len() as u64, data[0]),
                Piece::Zeroes {
                    offset_bytes,
                    length_bytes,
                } => (*offset_bytes, *length_bytes, 0),
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(4096, 4096, 7), (8192, 8192, 0), (1 << 20, 512, 8)]);
        assert_eq!(contents.data_bytes, 4608);
        assert_eq!(contents.header.at_s, header(&file.0).unwrap().at_s);
    }

    #[test]
    fn a_file_with_any_wrong_byte_or_end_is_refused_with_a_code() {
        let good = sample();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let file = file("wrong", &bad);
            let error = walk(&file.0, |_| Ok(())).expect_err("a wrong byte");
            assert_eq!(error.problem.code, "LS4013", "byte {at}: {error}");
        }
        for end in [0, 1, 511, 512, 543, 600, good.len() - 1] {
            let file = file("cut", &good[..end]);
            let error = walk(&file.0, |_| Ok(())).expect_err("cut off");
            assert_eq!(error.problem.code, "LS4013", "cut at {end}: {error}");
        }
        let more = file("more", &[good.as_slice(), &[0]].concat());
        assert!(walk(&more.0, |_| Ok(())).is_err());
    }
}
