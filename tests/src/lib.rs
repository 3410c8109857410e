//! What the tests of this crate share: where the repository is, golden files, the hash of a format's
//! source.
//!
//! A change of format is wanted or a mistake. If it is wanted: raise the version, correct the byte
//! tables, then `LOCKSTEP_BLESS=1 cargo test -p lockstep-tests` writes the golden files and hashes
//! anew, and the commit shows which bytes changed.

pub mod sim;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Set to write golden files and hashes instead of comparing them.
const BLESS_VARIABLE: &str = "LOCKSTEP_BLESS";
const GOLDEN_LINE_BYTES: usize = 32;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Whether golden files are to be written.
pub fn blessing() -> bool {
    env::var_os(BLESS_VARIABLE).is_some()
}

/// The text of a file of the repository.
///
/// # Panics
/// It cannot be read.
pub fn text(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares bytes with `tests/golden/NAME.hex`. Runs of zero lines are left out of the file.
///
/// # Panics
/// They differ, or the file cannot be read.
pub fn assert_golden(name: &str, bytes: &[u8]) {
    let path = root().join("tests/golden").join(format!("{name}.hex"));
    let is = to_hex(bytes);
    if blessing() {
        fs::write(&path, &is).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(
        golden, is,
        "{name}: the bytes changed; see tests/src/lib.rs"
    );
}

/// The bytes of `tests/golden/NAME.hex`.
///
/// # Panics
/// The file cannot be read or is no golden file.
pub fn golden(name: &str) -> Vec<u8> {
    let text = text(&format!("tests/golden/{name}.hex"));
    from_hex(&text).unwrap_or_else(|| panic!("{name}.hex is no golden file"))
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes\n", bytes.len());
    for (line, chunk) in bytes.chunks(GOLDEN_LINE_BYTES).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{:04x} {hex}\n", line * GOLDEN_LINE_BYTES));
        }
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines();
    let count: usize = lines.next()?.strip_suffix(" bytes")?.parse().ok()?;
    let mut bytes = vec![0; count];
    for line in lines {
        let (offset, hex) = line.split_once(' ')?;
        let offset = usize::from_str_radix(offset, 16).ok()?;
        for (index, pair) in hex.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).ok()?;
            *bytes.get_mut(offset + index)? = u8::from_str_radix(pair, 16).ok()?;
        }
    }
    Some(bytes)
}

/// Asserts that `document` carries the hash of the source files that define its format, so that
/// neither changes without a look at the other.
///
/// White space, commas and comments do not count.
///
/// # Panics
/// It carries another hash or none.
pub fn assert_documented(document: &str, sources: &[&str]) {
    const MARK: &str = "Source hash: `";
    let hash = source_hash(sources);
    let words = text(document);
    let start = words
        .find(MARK)
        .map(|at| at + MARK.len())
        .unwrap_or_else(|| panic!("{document} has no `{MARK}...`"));
    let length = words[start..]
        .find('`')
        .unwrap_or_else(|| panic!("{document}: the hash has no end"));
    let documented = &words[start..start + length];
    if blessing() {
        let renewed = format!("{}{hash}{}", &words[..start], &words[start + length..]);
        fs::write(root().join(document), renewed)
            .unwrap_or_else(|error| panic!("{document}: {error}"));
        return;
    }
    assert_eq!(
        documented, hash,
        "the source of the format changed: correct {document}, then see tests/src/lib.rs"
    );
}

fn source_hash(sources: &[&str]) -> String {
    let mut code = String::new();
    for source in sources {
        for line in text(source).lines() {
            let line = line.split("//").next().unwrap_or(line);
            code.extend(line.chars().filter(|c| !c.is_whitespace() && *c != ','));
        }
    }
    blake3::hash(code.as_bytes()).to_hex().as_str()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_keeps_every_byte() {
        let mut bytes = vec![0; 300];
        bytes[0] = 1;
        bytes[299] = 0xfe;
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("4 bytes\n0000 zz\n"), None);
    }
}
