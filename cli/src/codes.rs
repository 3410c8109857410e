//! The codes, from the one place that lists them: docs/codes.md.

const CODES: &str = include_str!("../../docs/codes.md");

/// Everything docs/codes.md says of `code` (`LS1002`, `ls1002` or `1002`), title first.
pub(crate) fn explain(code: &str) -> Option<String> {
    let code = code.trim().to_ascii_uppercase();
    let code = if code.starts_with("LS") {
        code
    } else {
        format!("LS{code}")
    };
    let start = CODES
        .lines()
        .position(|line| heading(line) == Some(code.as_str()))?;
    let section: Vec<&str> = CODES
        .lines()
        .skip(start)
        .enumerate()
        .take_while(|(index, line)| *index == 0 || !line.starts_with('#'))
        .map(|(_, line)| line.trim_start_matches("### "))
        .collect();
    Some(section.join("\n").trim_end().to_string())
}

/// The code of a heading such as `### LS1002 The peer is silent`.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("### ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_typed() {
        let long = explain("LS1002").unwrap();
        assert!(long.starts_with("LS1002 "), "{long}");
        assert!(!long.contains("LS1003 "), "{long}");
        assert_eq!(explain("ls1002"), Some(long.clone()));
        assert_eq!(explain("1002"), Some(long));
        assert_eq!(explain("LS9999"), None);
    }

    #[test]
    fn every_section_says_what_to_do() {
        for code in CODES.lines().filter_map(heading) {
            let text = explain(code).unwrap();
            assert!(text.contains("Do: "), "{code} does not say what to do");
        }
    }
}
