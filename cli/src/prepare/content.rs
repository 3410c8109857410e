//! What a device holds, and whether a file system may be made there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;

use controlplane::resources::FileSystem;

use crate::failure::Failure;

/// So many bytes at the beginning and at the end of a volume without a known signature have to be zero to be nothing.
const LOOKED_AT_BYTES: u64 = 1 << 20;
/// `blkid` found nothing.
const BLKID_NOTHING: i32 = 2;
/// `blkid` found several things that exclude each other.
const BLKID_AMBIVALENT: i32 = 8;

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// No signature, and zeroes at both ends.
    Nothing,
    /// No signature, and not empty.
    Data,
    /// What `blkid` calls it.
    Known(String),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is there.
    Mount,
    /// The file system is made.
    Make {
        /// Whatever is there.
        force: bool,
    },
}

impl Content {
    /// Of a block device, or of a file.
    ///
    /// # Errors
    /// If it cannot be read, or `blkid` cannot be run.
    pub(crate) fn of(device: &Path) -> Result<Self, Failure> {
        let output = Command::new("blkid")
            .args(["--probe", "--output", "export"])
            .arg(device)
            .output()
            .map_err(|error| Failure::file(Path::new("blkid"), "run", &error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            Some(0) => Ok(Self::Known(found(&text))),
            Some(BLKID_AMBIVALENT) => Ok(Self::Known("several things at once".to_string())),
            Some(BLKID_NOTHING) => {
                let empty =
                    is_empty(device).map_err(|error| Failure::file(device, "read", &error))?;
                Ok(if empty { Self::Nothing } else { Self::Data })
            }
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                let error = io::Error::other(format!("{}: {}", output.status, said.trim()));
                Err(Failure::file(device, "look at", &error))
            }
        }
    }
}

/// The type that `blkid` exports; a partition table has one of its own.
fn found(text: &str) -> String {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.strip_prefix('='))
    };
    let table = || value("PTTYPE").map(|kind| format!("a partition table ({kind})"));
    let kind = value("TYPE").map(str::to_string).or_else(table);
    kind.unwrap_or_else(|| "something that blkid does not name".to_string())
}

fn is_empty(device: &Path) -> io::Result<bool> {
    let mut file = File::open(device)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::new();
    for from in [0, end.saturating_sub(LOOKED_AT_BYTES)] {
        file.seek(SeekFrom::Start(from))?;
        bytes.clear();
        (&file).take(LOOKED_AT_BYTES).read_to_end(&mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What follows from what is there. `confirmed`: it may be formatted whatever that is.
///
/// # Errors
/// LS6213: it holds something else.
pub(crate) fn step(
    content: &Content,
    settings: &FileSystem,
    confirmed: bool,
) -> Result<Step, Failure> {
    let (volume, wanted) = (&settings.volume, &settings.kind);
    let holds = match content {
        Content::Nothing => return Ok(Step::Make { force: false }),
        Content::Known(kind) if kind == wanted => return Ok(Step::Mount),
        Content::Known(_) | Content::Data if confirmed => return Ok(Step::Make { force: true }),
        Content::Known(kind) => format!("holds {kind}, not {wanted}"),
        Content::Data => "holds data that no program here knows".to_string(),
    };
    Err(Failure::new(
        "LS6213",
        format!("the volume {volume} {holds}; nothing was changed"),
        format!(
            "look at it (`wipefs /dev/lockstep/{volume}`). If nobody needs it, --confirm {volume} makes {wanted} there, \
             and what it holds is lost on both servers"
        ),
    ))
}
