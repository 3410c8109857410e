//! Which disk a backing device is, by what the kernel tells of it below `/sys`.
//!
//! Names such as `/dev/sdb` belong to whichever disk was found first at a boot. With the metadata on a device of their own
//! nothing on the backing device says whose data they are, so the superblock keeps a hash of what the disk says of itself.

use std::fs;
use std::path::Path;

use mirror_core::types::BackingId;

use crate::dm::DeviceNumber;

/// Where the kernel tells of devices.
pub const SYSFS: &str = "/sys";
const CONTEXT: &str = "lockstep 2026-11 backing device";
/// In front of the serial number in a SCSI disk's page 80h.
const PAGE_80_HEADER_BYTES: usize = 4;
/// What is a disk's own: the word for it, and the files that may have it, in the disk's directory. The surest first.
const FILES: [(&str, &[&str]); 5] = [
    ("wwid", &["wwid", "device/wwid"]),
    ("dm uuid", &["dm/uuid"]),
    ("md uuid", &["md/uuid"]),
    ("card", &["device/cid"]),
    ("serial", &["serial", "device/serial"]),
];
/// What disks say that have nothing to say.
const EMPTY_WORDS: [&str; 4] = ["none", "n/a", "unknown", "default string"];

/// One thing that tells a device from others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    id: BackingId,
    words: String,
}

impl Mark {
    fn new(words: String) -> Self {
        let hash = blake3::derive_key(CONTEXT, words.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        // Zero means that nothing is known.
        id[0] |= 1;
        let id = BackingId(id);
        Self { id, words }
    }
}

/// What tells a device from others, the surest first. Empty: nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    marks: Vec<Mark>,
}

impl Identity {
    /// Of a block device, by its numbers, as the directory `sys` (such as `/sys`) tells. Never fails: what cannot be read is not
    /// known. A loop device has none, whatever its file is called: a file is copied and moved.
    pub fn of(sys: &Path, number: DeviceNumber) -> Self {
        let DeviceNumber { major, minor } = number;
        let link = sys.join(format!("dev/block/{major}:{minor}"));
        let Ok(place) = fs::canonicalize(link) else {
            return Self::default();
        };
        let partition = text(&place.join("partition"));
        let words = match (partition, place.parent()) {
            (Some(number), Some(disk)) => {
                let of_disk = disk_words(disk).into_iter();
                let on_disk = of_disk.map(|words| format!("partition {number} of {words}"));
                on_disk.chain(partition_words(&place)).collect()
            }
            (_, _) => disk_words(&place),
        };
        let marks = words.into_iter().map(Mark::new).collect();
        Self { marks }
    }

    /// What a superblock keeps of it: the surest; [`BackingId::NONE`] if there is nothing.
    pub fn kept(&self) -> BackingId {
        self.marks.first().map_or(BackingId::NONE, |mark| mark.id)
    }

    /// Whether this is the device of which `known` was kept. If either side is not known, nothing speaks against it. Everything
    /// that the device says counts: a later kernel may tell something surer as well.
    pub fn may_be(&self, known: BackingId) -> bool {
        known.is_none() || self.marks.is_empty() || self.marks.iter().any(|mark| mark.id == known)
    }

    /// The surest, in words such as `wwid naa.5000c500a1b2c3d4`; `nothing` if there is none.
    pub fn words(&self) -> &str {
        self.marks
            .first()
            .map_or("nothing", |mark| mark.words.as_str())
    }
}

fn disk_words(disk: &Path) -> Vec<String> {
    if disk.join("loop").exists() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (word, files) in FILES {
        let value = files.iter().find_map(|file| text(&disk.join(file)));
        found.extend(value.map(|value| match (word, text(&disk.join("nsid"))) {
            // The namespaces of an NVMe drive share its number.
            ("serial", Some(namespace)) => format!("{word} {value}, namespace {namespace}"),
            _ => format!("{word} {value}"),
        }));
    }
    let page = fs::read(disk.join("device/vpd_pg80")).unwrap_or_default();
    let number = page.get(PAGE_80_HEADER_BYTES..).and_then(told);
    found.extend(number.map(|number| format!("unit serial {number}")));
    found
}

/// Kernels that tell it do so in the file for udev.
fn partition_words(partition: &Path) -> Option<String> {
    let lines = text_lines(&partition.join("uevent"))?;
    let uuid = lines
        .lines()
        .find_map(|line| line.strip_prefix("PARTUUID="))?;
    told(uuid.as_bytes()).map(|uuid| format!("partuuid {uuid}"))
}

fn text_lines(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn text(path: &Path) -> Option<String> {
    told(&fs::read(path).ok()?)
}

/// What the bytes say, with single blanks, and nothing that a terminal would take for more; `None` if they say nothing.
fn told(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(printable).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let says = text.chars().any(|c| c.is_alphanumeric() && c != '0');
    (says && !EMPTY_WORDS.contains(&text.to_lowercase().as_str())).then_some(text)
}

#[cfg(test)]
pub(crate) mod tests;
