//! Why a daemon ended, in its own last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitStatus;

/// So much of a log's end is looked at.
const TAIL_BYTES: u64 = 16 * 1024;
/// Longer words are cut.
const WORDS_CHARS_MAX: usize = 300;
/// What a daemon begins the line with that says why it ends; the code follows.
const FAREWELL: &str = "ublk-mirror: LS";

/// A daemon's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// How, if it was this process's child.
    pub status: Option<ExitStatus>,
    /// The code of docs/codes.md that it named.
    pub code: Option<String>,
    /// Its last words.
    pub words: String,
}

impl Ended {
    /// By what the log says from byte `start` on.
    pub fn of(status: Option<ExitStatus>, log: &Path, start: u64) -> Self {
        Self::saying(status, &tail(log, start).unwrap_or_default())
    }

    /// By all that it said.
    pub fn saying(status: Option<ExitStatus>, text: &str) -> Self {
        let farewell = text.lines().rev().find(|line| line.starts_with(FAREWELL));
        let last = || text.lines().rev().find(|line| !line.trim().is_empty());
        let words = farewell.or_else(last).unwrap_or_default().trim();
        Self {
            status,
            code: farewell.and_then(code),
            words: words.chars().take(WORDS_CHARS_MAX).collect(),
        }
    }

    /// In a sentence.
    pub fn text(&self) -> String {
        let how = match self.status {
            Some(status) => status.to_string(),
            None => "it is gone".to_string(),
        };
        if self.words.is_empty() {
            return how;
        }
        format!("{how}; its last words: {}", self.words)
    }
}

fn code(line: &str) -> Option<String> {
    let code = line.get(FAREWELL.len() - 2..FAREWELL.len() + 4)?;
    let digits = code[2..].bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| code.to_string())
}

/// The end of the log, but nothing from before `start`.
fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    // One that was cut meanwhile begins anew.
    let start = if start > length { 0 } else { start };
    file.seek(SeekFrom::Start(
        start.max(length.saturating_sub(TAIL_BYTES)),
    ))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_last_words_and_the_code_of_this_run_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let before = "ublk-mirror: LS3012: earlier\n";
        let now = "info: begins\nublk-mirror: LS3036: cannot claim a device: busy\n  what to do: unmount it\n";
        std::fs::write(&log, format!("{before}{now}")).expect("a log");
        let start = u64::try_from(before.len()).expect("a length");
        let status = ExitStatus::from_raw(256);
        let ended = Ended::of(Some(status), &log, start);
        assert_eq!(ended.code.as_deref(), Some("LS3036"));
        assert_eq!(
            ended.text(),
            "exit status: 1; its last words: ublk-mirror: LS3036: cannot claim a device: busy"
        );
        let begins = before.len() + now.find("ublk").expect("words");
        std::fs::write(&log, &format!("{before}{now}")[..begins]).expect("a log");
        let ended = Ended::of(None, &log, start);
        assert_eq!(ended.code, None, "what an earlier run said does not count");
        assert_eq!(ended.text(), "it is gone; its last words: info: begins");
        let none = Ended::of(None, &directory.path().join("none"), 7);
        assert_eq!(none.text(), "it is gone");
    }
}
