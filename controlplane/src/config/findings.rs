//! What is found in a configuration: data only. [`super::render`] makes text of it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// More are counted and not kept: a file that is no configuration at all has one on every line.
const FINDINGS_MAX: usize = 100;
/// Longer words are not compared with names.
const COMPARED_CHARS_MAX: usize = 64;

/// The file cannot be read.
pub(super) const UNREADABLE: &str = "LS6034";
/// It is not TOML.
pub(super) const NOT_TOML: &str = "LS6035";
/// A key or table that does not exist.
pub(super) const UNKNOWN_KEY: &str = "LS6036";
/// Something is missing.
pub(super) const MISSING: &str = "LS6037";
/// A value that is not allowed.
pub(super) const VALUE: &str = "LS6038";
/// Two things that exclude each other.
pub(super) const CONFLICT: &str = "LS6039";
/// This machine is none of the nodes.
pub(super) const NOT_A_NODE: &str = "LS6096";
/// Allowed, and worth a second look.
pub(super) const WARNING: &str = "LS6097";
/// The file is of another version.
pub(super) const VERSION: &str = "LS6098";
/// A name of something that is not in the file.
pub(super) const NO_SUCH_NAME: &str = "LS6099";

/// Whether a finding forbids the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `lockstepd` does not start with it.
    Error,
    /// It does.
    Warning,
}

/// One thing that is wrong, or worth a second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A section of docs/codes.md.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Which key, with its tables; empty if it is about the file.
    pub key: String,
    /// Bytes of the file; `None` if it is about the file.
    pub place: Option<Range<usize>>,
    /// What is found.
    pub what: String,
    /// Why it is not allowed.
    pub why: String,
    /// What would be right.
    pub advice: String,
    /// The name that was probably meant.
    pub suggestion: Option<String>,
}

impl Finding {
    /// An error about a key.
    pub(super) fn error(
        code: &'static str,
        key: impl Into<String>,
        place: Range<usize>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: Severity::Error,
            key: key.into(),
            place: Some(place),
            what: what.into(),
            why: String::new(),
            advice: String::new(),
            suggestion: None,
        }
    }

    /// An error about the file.
    pub(super) fn of_file(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            place: None,
            ..Self::error(code, "", 0..0, what)
        }
    }

    /// Something that is allowed.
    pub(super) fn warning(
        key: impl Into<String>,
        place: Option<Range<usize>>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            place,
            ..Self::error(WARNING, key, 0..0, what)
        }
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// With the one of these names that was probably meant, if there is one.
    pub(super) fn meant<'a>(
        mut self,
        said: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.suggestion = nearest(said, names).map(str::to_string);
        self
    }
}

/// The name that somebody who wrote `said` probably meant: a typing mistake away for each three letters.
fn nearest<'a>(said: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = said.chars().count();
    if length > COMPARED_CHARS_MAX {
        return None;
    }
    let said = said.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&said, &name.to_lowercase());
    let near = names
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, name)| {
            // A name of one or two letters is near to any other.
            *distance <= (name.chars().count().min(length) / 3).max(1) && *distance < length
        });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// What is found in a file, and the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub(super) path: PathBuf,
    pub(super) text: String,
    list: Vec<Finding>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_path_buf(),
            text: text.to_string(),
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        }
    }

    /// By their places; those about the file first.
    pub(super) fn sort(&mut self) {
        let start = |finding: &Finding| finding.place.as_ref().map(|place| place.start);
        self.list.sort_by_key(start);
    }

    /// Which file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// By their places; at most a hundred.
    pub fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many errors there are, also of those that are not in the list.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are, also of those that are not in the list.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// How many are not in the list.
    pub fn left_out(&self) -> usize {
        self.errors + self.warnings - self.list.len()
    }

    /// Line and column of a finding, from 1; columns are characters.
    pub fn position(&self, finding: &Finding) -> Option<(usize, usize)> {
        let start = finding.place.as_ref()?.start;
        let before = self.before(start);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        Some((line, column))
    }

    /// The text up to a byte.
    fn before(&self, at: usize) -> &str {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        &self.text[..at]
    }

    /// For programs.
    pub fn to_json(&self) -> Vec<serde_json::Value> {
        let one = |finding: &Finding| {
            let position = self.position(finding);
            serde_json::json!({
                "severity": finding.severity,
                "code": finding.code,
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
                "key": finding.key,
                "what": finding.what,
                "why": finding.why,
                "advice": finding.advice,
                "suggestion": finding.suggestion,
            })
        };
        self.list.iter().map(one).collect()
    }
}

/// The configuration cannot be used: what is wrong with it, all of it.
#[derive(Debug)]
pub struct ConfigError(pub Findings);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = super::render::count(&self.0);
        write!(f, "{count}\n\n{}", super::render::all(&self.0).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_suggested_when_few_letters_are_wrong() {
        let names = ["node1", "node2", "db"];
        assert_eq!(nearest("nod2", names), Some("node2"));
        assert_eq!(nearest("Node1", names), Some("node1"));
        assert_eq!(nearest("ndoe2", names), Some("node2"));
        assert_eq!(nearest("server", names), None);
        assert_eq!(
            nearest("x", names),
            None,
            "one letter is near to everything"
        );
        assert_eq!(nearest("", names), None);
        let long = "n".repeat(COMPARED_CHARS_MAX);
        assert_eq!(nearest(&long[1..], [long.as_str()]), Some(long.as_str()));
        assert_eq!(nearest(&format!("{long}n"), [long.as_str()]), None);
    }

    #[test]
    fn a_hundred_findings_are_kept_and_all_are_counted() {
        let mut findings = Findings::new(Path::new("c.toml"), "");
        for number in 0..150 {
            findings.add(Finding::error(VALUE, format!("k{number}"), 0..0, "wrong"));
        }
        findings.add(Finding::warning("k", None, "odd"));
        let counts = (
            findings.list().len(),
            findings.errors(),
            findings.left_out(),
        );
        assert_eq!(counts, (100, 150, 51));
        assert!(super::super::render::plain(&findings).contains("51 more"));
    }
}
