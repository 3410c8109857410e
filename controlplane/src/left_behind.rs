//! What a run of `lockstepd` must know of the runs before it in the same boot, so that a restart, or one crash after the
//! other, renews no time: in a file below `/run`, written over in place.
//!
//! ```text
//! BOOT ARMED GROUPS
//! GROUP CONFIRMED LOOKING HARD ALONE        for each group
//! end CRC32C
//! ```
//!
//! Times are nanoseconds of `CLOCK_BOOTTIME`, 20 digits each, 0 for none. What another boot wrote, or what is not whole,
//! says nothing: nothing was confirmed, and nothing is known to run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use controlplane_api::paths::run_directory;
use controlplane_core::wish::GroupKey;
use mirror_core::checksum::crc32c;
use mirror_core::types::{BootId, Instant};

const END: &str = "end";

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The watchdog may be armed.
    pub armed: bool,
    /// Of each group.
    pub groups: BTreeMap<GroupKey, OfGroup>,
}

impl Known {
    /// What the peer confirmed last, for whoever counts gaps: of the group that knows the oldest one.
    pub fn confirmed(&self) -> Option<Instant> {
        let groups = self.groups.values();
        groups.filter_map(|group| group.confirmed).min()
    }
}

/// What is kept of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfGroup {
    /// When this node sent what the peer confirmed last, of a time without a gap; `None` if nothing of the group was here.
    pub confirmed: Option<Instant>,
    /// Since when runs have not come to look at its volumes.
    pub looking_since: Option<Instant>,
    /// Since when it is being stopped hard.
    pub hard_since: Option<Instant>,
    /// The copies here alone counted, and none was linked.
    pub alone: bool,
}

/// The file.
#[derive(Debug)]
pub struct LeftBehind {
    path: PathBuf,
    boot: BootId,
    file: Option<File>,
    /// What is wanted there.
    known: Known,
    /// Whether it is there.
    written: bool,
}

impl LeftBehind {
    /// On a real node.
    pub fn of_node(boot: BootId) -> Self {
        Self::at(run_directory().join("lockstepd/self-fencing"), boot)
    }

    /// In this file, which need not be there.
    pub fn at(path: PathBuf, boot: BootId) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        Self {
            known: parse(&text, boot).unwrap_or_default(),
            file: None,
            written: false,
            path,
            boot,
        }
    }

    /// What is known.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps this, if it is something else than before.
    ///
    /// # Errors
    /// If it cannot be written; it is tried again the next time.
    pub fn keep(&mut self, known: Known) -> io::Result<()> {
        if known == self.known && self.written {
            return Ok(());
        }
        self.known = known;
        // Also after a part of it: what is there then says nothing, and is written again.
        self.written = false;
        let written = self.write();
        if written.is_err() {
            self.file = None;
        }
        self.written = written.is_ok();
        written
    }

    fn write(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            if let Some(directory) = self.path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut options = File::options();
            let options = options.write(true).create(true).truncate(false);
            self.file = Some(options.open(&self.path)?);
        }
        let text = text_of(&self.known, self.boot);
        match &self.file {
            Some(file) => file.write_all_at(text.as_bytes(), 0),
            None => Ok(()),
        }
    }
}

fn text_of(known: &Known, boot: BootId) -> String {
    let nanos = |at: Option<Instant>| at.map_or(0, Instant::as_nanos);
    let boot: String = boot.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!(
        "{boot} {} {:05}\n",
        u8::from(known.armed),
        known.groups.len()
    );
    for (key, group) in &known.groups {
        let line = format!(
            "{:016x} {:020} {:020} {:020} {}\n",
            key.0,
            nanos(group.confirmed),
            nanos(group.looking_since),
            nanos(group.hard_since),
            u8::from(group.alone)
        );
        text.push_str(&line);
    }
    let sum = crc32c(text.as_bytes());
    text + &format!("{END} {sum:08x}\n")
}

fn parse(text: &str, boot: BootId) -> Option<Known> {
    let mut lines = text.lines();
    let first: Vec<&str> = lines.next()?.split_whitespace().collect();
    let [_, armed, count] = first.as_slice() else {
        return None;
    };
    let count: usize = count.parse().ok()?;
    let groups = lines.take(count).map(parse_group);
    let known = Known {
        armed: *armed == "1",
        groups: groups.collect::<Option<_>>()?,
    };
    // Exactly what this boot would have written; what follows is of a longer text that was there before.
    text.starts_with(&text_of(&known, boot)).then_some(known)
}

fn parse_group(line: &str) -> Option<(GroupKey, OfGroup)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [key, confirmed, looking, hard, alone] = words.as_slice() else {
        return None;
    };
    let group = OfGroup {
        confirmed: parse_time(confirmed)?,
        looking_since: parse_time(looking)?,
        hard_since: parse_time(hard)?,
        alone: *alone == "1",
    };
    Some((GroupKey(u64::from_str_radix(key, 16).ok()?), group))
}

fn parse_time(word: &str) -> Option<Option<Instant>> {
    let nanos: u64 = word.parse().ok()?;
    Some((nanos > 0).then(|| Instant::from_nanos(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([7; 16]);

    fn known() -> Known {
        let group = OfGroup {
            confirmed: Some(Instant::from_nanos(12_345_678_901)),
            looking_since: None,
            hard_since: Some(Instant::from_nanos(1)),
            alone: false,
        };
        let other = OfGroup {
            confirmed: None,
            looking_since: Some(Instant::from_nanos(77)),
            hard_since: None,
            alone: true,
        };
        Known {
            armed: true,
            groups: [(GroupKey(5), group), (GroupKey(u64::MAX), other)].into(),
        }
    }

    #[test]
    fn the_next_run_of_the_same_boot_knows_it_and_another_boot_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("below/self-fencing");
        let mut first = LeftBehind::at(path.clone(), BOOT);
        assert_eq!(*first.known(), Known::default());
        first.keep(known()).expect("written");
        assert_eq!(*LeftBehind::at(path.clone(), BOOT).known(), known());
        let later = Known {
            armed: false,
            groups: known().groups.into_iter().skip(1).collect(),
        };
        first.keep(later.clone()).expect("written");
        assert_eq!(*LeftBehind::at(path.clone(), BOOT).known(), later);
        let other = LeftBehind::at(path, BootId([8; 16]));
        assert_eq!(*other.known(), Known::default());
    }

    #[test]
    fn gaps_are_counted_from_the_oldest_confirmation_of_a_group() {
        let of = |nanos: u64| OfGroup {
            confirmed: Some(Instant::from_nanos(nanos)),
            ..OfGroup::default()
        };
        let mut known = known();
        known.groups.insert(GroupKey(6), of(9));
        known.groups.insert(GroupKey(7), of(10));
        assert_eq!(known.confirmed(), Some(Instant::from_nanos(9)));
        assert_eq!(Known::default().confirmed(), None);
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        let whole = text_of(&known(), BOOT);
        assert_eq!(parse(&whole, BOOT), Some(known()));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], BOOT), None, "{length}");
        }
        for wrong in [
            whole.replace("end", "eND"),
            whole.replace(' ', "  "),
            whole.replace("00077 ", "00078 "),
            "x".repeat(9000),
        ] {
            assert_eq!(parse(&wrong, BOOT), None);
        }
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::create_dir(&path).expect("in the way");
        let mut left = LeftBehind::at(path.clone(), BOOT);
        assert!(left.keep(known()).is_err());
        fs::remove_dir(&path).expect("gone");
        left.keep(known()).expect("written");
        assert_eq!(*LeftBehind::at(path, BOOT).known(), known());
    }
}
