//! Findings as an operator reads them: the place in the file, why, and what to do.
//!
//! Plain characters only, since `lockstepd` writes the same into a log. Columns are characters: wide ones before
//! the spot move the marker, which names nothing wrong, for keys and values before it are ASCII.

use std::fmt::Write as _;

use super::findings::{Finding, Findings, Severity};

/// What is shown of a line, at most.
const LINE_CHARS_MAX: usize = 100;
/// What is shown of it before the spot.
const BEFORE_CHARS_MAX: usize = 60;

/// All findings, and how many they are.
pub fn plain(findings: &Findings) -> String {
    format!("{}{}\n", all(findings), count(findings))
}

/// Nothing of the file, nor of its name, reaches the terminal as a control sequence.
pub(super) fn harmless(text: &str) -> String {
    let one = |c: char| match c {
        '\n' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(one).collect()
}

/// All findings, an empty line after each.
pub(super) fn all(findings: &Findings) -> String {
    let mut text = String::new();
    for finding in findings.list() {
        text.push_str(&one(findings, finding));
        text.push('\n');
    }
    if findings.left_out() > 0 {
        let _ = writeln!(text, "and {} more\n", findings.left_out());
    }
    text
}

/// `2 errors and 1 warning in FILE`.
pub(super) fn count(findings: &Findings) -> String {
    let (errors, warnings) = (findings.errors(), findings.warnings());
    let counts = match (errors, warnings) {
        (errors, 0) => counted(errors, "error"),
        (0, warnings) => counted(warnings, "warning"),
        _ => format!(
            "{} and {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    harmless(&format!("{counts} in {}", findings.path.display()))
}

pub(super) fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// One finding; ends with a newline.
fn one(findings: &Findings, finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut text = format!("{severity} {}: {}\n", finding.code, finding.what);
    let path = findings.path.display();
    let position = findings.position(finding);
    let margin = position.map_or(1, |(line, _)| line.to_string().len());
    let place = position.map_or_else(
        || path.to_string(),
        |(line, column)| format!("{path}:{line}:{column}"),
    );
    let key = match finding.key.as_str() {
        "" => String::new(),
        key => format!(", {key}"),
    };
    let _ = writeln!(text, "{:margin$}--> {place}{key}", "");
    if let Some((line, column)) = position {
        let source = findings.text.split('\n').nth(line - 1).unwrap_or_default();
        let length = finding.place.as_ref().map_or(0, |place| {
            let said = findings.text.get(place.clone()).unwrap_or_default();
            said.split('\n')
                .next()
                .unwrap_or_default()
                .trim_end()
                .chars()
                .count()
        });
        let (source, spot) = clipped(source, column - 1, length);
        let meant = finding.suggestion.as_ref();
        let meant = meant.map_or_else(String::new, |name| format!(" did you mean `{name}`?"));
        let _ = writeln!(text, "{:margin$} |", "");
        let _ = writeln!(text, "{line} | {source}");
        let _ = writeln!(text, "{:margin$} | {spot}{meant}", "");
    }
    for (word, sentence) in [("why", &finding.why), ("do", &finding.advice)] {
        if !sentence.is_empty() {
            let _ = writeln!(text, "{:margin$} = {word}: {sentence}", "");
        }
    }
    harmless(&text)
}

/// The part of a line around a spot, and markers for the line below it.
fn clipped(line: &str, start: usize, length: usize) -> (String, String) {
    let chars: Vec<char> = line.trim_end().chars().collect();
    let first = if chars.len() > LINE_CHARS_MAX {
        start.saturating_sub(BEFORE_CHARS_MAX).min(chars.len())
    } else {
        0
    };
    let last = chars.len().min(first + LINE_CHARS_MAX);
    let mut source = String::from(if first > 0 { "..." } else { "" });
    let before = source.len() + start.saturating_sub(first);
    source.extend(chars[first..last].iter().map(|c| match c {
        '\t' => ' ',
        c => *c,
    }));
    let length = length.min(last.saturating_sub(start)).max(1);
    if last < chars.len() {
        source.push_str("...");
    }
    (source, format!("{:before$}{}", "", "^".repeat(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::findings::VALUE;
    use std::path::Path;

    fn shown(text: &str, place: std::ops::Range<usize>) -> String {
        let mut findings = Findings::new(Path::new("c.toml"), text);
        findings.add(Finding::error(VALUE, "k", place, "wrong"));
        one(&findings, &findings.list()[0])
    }

    #[test]
    fn the_marker_stands_under_the_spot() {
        let text = "a = 1\n\tkéy = \"xx\" # why\n";
        let at = text.find('"').expect("a value");
        let expected = "error LS6038: wrong\n --> c.toml:2:8, k\n  |\n2 |  kéy = \"xx\" # why\n  |        ^^^^\n";
        assert_eq!(shown(text, at..at + 4), expected);
    }

    #[test]
    fn places_at_the_end_within_letters_and_beyond_are_shown_somewhere() {
        for place in [0..0, 5..5, 6..7, 7..7, 100..200, 3..1_000_000] {
            assert!(shown("k = \"é\"", place).contains('^'));
        }
        assert!(shown("", 0..0).contains('^'));
    }

    #[test]
    fn control_characters_of_the_file_and_its_name_stay_out_of_the_terminal() {
        let mut findings = Findings::new(Path::new("c\u{1b}[2J.toml"), "k = \"\u{9b}2J\u{7}\"\r\n");
        findings.add(Finding::error(VALUE, "k\u{7}", 4..9, "a\u{1b}b"));
        let text = plain(&findings);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(control), "{text:?}");
        assert!(text.lines().count() > 5);
    }

    #[test]
    fn a_long_line_is_cut_around_the_spot_and_control_characters_are_replaced() {
        let text = format!("{}\u{1b}[31mHERE{}", "x".repeat(500), "y".repeat(500));
        let at = text.find("HERE").expect("the spot");
        let shown = shown(&text, at..at + 4);
        assert!(!shown.contains('\u{1b}') && shown.contains('\u{fffd}'));
        let line = shown
            .lines()
            .find(|line| line.contains("HERE"))
            .expect("a line");
        let marks = shown
            .lines()
            .find(|line| line.contains('^'))
            .expect("marks");
        assert!(line.chars().count() < 120, "{line}");
        let place = line.chars().position(|c| c == 'H').expect("the spot");
        assert_eq!(marks.chars().position(|c| c == '^'), Some(place));
    }
}
