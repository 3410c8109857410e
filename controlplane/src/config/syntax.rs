//! What is not TOML.

use toml::de::Error;

use super::findings::{Finding, NOT_TOML};

/// The errors without those that only follow from another one: the first one of each table, and none after a list that
/// does not end.
pub(super) fn causes<'e>(text: &str, errors: &'e [Error]) -> Vec<&'e Error> {
    let mut kept: Vec<&Error> = Vec::new();
    let mut end = 0;
    for error in errors {
        let start = error.span().map_or(0, |span| span.start);
        let duplicate = error.message().starts_with("duplicate key");
        let header = |at: usize| {
            let line = text.get(..at).and_then(|before| before.rsplit('\n').next());
            line.is_some_and(|line| line.starts_with('['))
        };
        if start < end {
            continue;
        }
        kept.push(error);
        if error.message().contains("array") {
            break;
        }
        // A key that is there twice spoils nothing; a table that is, all keys in it.
        if !duplicate || header(start) {
            let rest = text.get(start..).unwrap_or_default();
            end = rest.find("\n[").map_or(text.len(), |length| start + length);
        }
    }
    kept
}

/// What the parser says, in our words where it is short of them.
pub(super) fn syntax(text: &str, error: &Error) -> Finding {
    let place = error.span().unwrap_or(0..0);
    let message = error.message();
    let said = text.get(place.clone()).unwrap_or_default();
    if message.starts_with("duplicate key") {
        let what = format!("`{}` is there twice", said.trim().escape_debug());
        return Finding::error(NOT_TOML, "", place, what)
            .why("one of the two would silently win")
            .advice("keep one of them");
    }
    let quotes = "write text in quotation marks, and close them on the same line: \"...\"";
    let brackets =
        "close every bracket, here or in a line above; tables are [NAME] on a line of their own";
    let value = "write KEY = VALUE: text in quotation marks, numbers and true or false without, lists in brackets";
    let (what, advice) = match message {
        _ if message.starts_with("string values must be quoted") && said.trim().is_empty() => {
            ("there is no value after `=`", value)
        }
        _ if message.starts_with("string values must be quoted")
            && said.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            (
                "this is neither a number nor a text",
                "write numbers without a unit, and text in quotation marks",
            )
        }
        _ if message.starts_with("string values must be quoted") => {
            ("this needs quotation marks", quotes)
        }
        "invalid basic string, expected `\"`" => ("the text has no closing quotation mark", quotes),
        "unclosed table, expected `]`" => ("the table's name has no closing bracket", brackets),
        _ if message.starts_with("missing comma between array elements") => (
            "before this a comma or a closing bracket is missing",
            brackets,
        ),
        _ if message.contains("string") => (message, quotes),
        _ if message.contains("array") || message.contains("table") => (message, brackets),
        _ => (message, value),
    };
    Finding::error(NOT_TOML, "", place, what)
        .why("the file is not TOML here, so what it means is not looked at yet")
        .advice(advice)
}
