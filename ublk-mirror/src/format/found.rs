//! What a device holds before a copy is made on it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mirror_core::disk::{BLOCK_BYTES, SUPERBLOCK_SLOTS, choose};
use mirror_core::types::{Epoch, NodeId};

use super::FormatError;
use crate::claim::Claim;
use crate::metadata;

const MAGIC: &[u8] = b"LOCKSTEP";

/// A copy of a volume, as its superblock tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCopy {
    path: PathBuf,
    volume: String,
    node: NodeId,
    epoch: Epoch,
}

impl FoundCopy {
    pub(super) fn advice(&self) -> String {
        // A disk may say anything.
        let volume = self.volume.escape_debug();
        let path = self.path.display();
        format!(
            "see that {path} is the right device, and that nobody needs this copy of {volume} (`lockstep volume status {volume}` on \
             the other node says whether its own one counts); then `--force --confirm {volume}` throws it away"
        )
    }
}

impl fmt::Display for FoundCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            volume,
            node,
            epoch,
        } = self;
        write!(
            f,
            "{} holds a copy of volume {volume:?}, that of node {}, last epoch {epoch}",
            path.display(),
            node.number()
        )
    }
}

/// Refuses to throw copies away whose volumes are not named in `confirmed`. A superblock that cannot be read, or is of a newer
/// release, names no volume that could be asked for.
pub(super) fn refuse_unnamed_copies<'a>(
    claims: impl Iterator<Item = &'a Claim>,
    confirmed: &[String],
) -> Result<(), FormatError> {
    for claim in claims {
        if let Some(found) = copy_on(claim).map_err(FormatError::Kernel)?
            && !confirmed.contains(&found.volume)
        {
            return Err(FormatError::Copy(found));
        }
    }
    Ok(())
}

/// One good superblock in either place is enough.
fn copy_on(claim: &Claim) -> io::Result<Option<FoundCopy>> {
    let mut slots = [[0; BLOCK_BYTES]; SUPERBLOCK_SLOTS.len()];
    let mut memory = metadata::aligned_memory(BLOCK_BYTES as u64)?;
    for (slot, place) in slots.iter_mut().zip(SUPERBLOCK_SLOTS) {
        if claim.file().read_exact_at(&mut memory, place).is_ok() {
            slot.copy_from_slice(&memory);
        }
    }
    Ok(choose(&slots[0], &slots[1]).ok().map(|found| FoundCopy {
        path: claim.path().to_owned(),
        volume: metadata::name_of(&found.superblock),
        node: found.superblock.node,
        epoch: found.superblock.view.epoch,
    }))
}

/// Refuses a device on which something else, or another volume of ours, is found.
pub(super) fn refuse_signature(path: &Path) -> Result<(), FormatError> {
    let failed = |source| FormatError::Probe {
        path: path.to_owned(),
        source,
    };
    let Ok(file) = File::open(path) else {
        // The claim says better what is wrong with it.
        return Ok(());
    };
    for place in SUPERBLOCK_SLOTS {
        let mut magic = [0; MAGIC.len()];
        if file.read_exact_at(&mut magic, place).is_ok() && magic == MAGIC {
            return Err(FormatError::Signature {
                path: path.to_owned(),
                what: "a copy of a Lockstep volume".into(),
            });
        }
    }
    let output = Command::new("blkid")
        .args(["--probe", "--output", "export"])
        .arg(path)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    match output.status.code() {
        // Nothing was found.
        Some(2) => Ok(()),
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name).map(str::to_owned))
            };
            let what = field("TYPE=")
                .or_else(|| field("PTTYPE=").map(|kind| format!("a {kind} partition table")));
            let what = what.unwrap_or_else(|| "something".into());
            Err(FormatError::Signature {
                path: path.to_owned(),
                what,
            })
        }
        Some(8) => Err(FormatError::Signature {
            path: path.to_owned(),
            what: "several signatures".into(),
        }),
        code => Err(failed(io::Error::other(format!(
            "it ended with {code:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))),
    }
}
