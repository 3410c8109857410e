//! Events on the screen: worked out from the control plane's answer alone.

use controlplane_api::events::{Event, Events, Log, Severity};

use crate::style::{Style, Tone};
use crate::when;

/// Figures that are longer are cut on the screen; the JSON has all of them.
const FIGURE_CHARS_MAX: usize = 60;
/// What a decision rests on is told by `lockstep why`, in words.
const NOT_SHOWN: [&str; 1] = ["situation"];
/// Clocks that differ by less may do so because of the time that the question took.
const CLOCKS_DIFFER_MS: u64 = 5000;

/// How wide the column of the nodes is.
pub(crate) fn node_width(logs: &[Log]) -> usize {
    let widths = logs.iter().map(|log| log.node.chars().count());
    widths.max().unwrap_or_default()
}

/// An event as one line, without its end.
pub(crate) fn line(event: &Event, node_width: usize, style: Style) -> String {
    let (word, tone) = match event.severity {
        Severity::Info => ("info", Tone::Quiet),
        Severity::Warning => ("WARNING", Tone::Careful),
        Severity::Error => ("ERROR", Tone::Bad),
    };
    let severity = style.paint(tone, &format!("{word:<7}"));
    let about = [&event.group, &event.volume];
    let about: String = about
        .into_iter()
        .flatten()
        .map(|name| format!("{}: ", style.paint(Tone::Strong, &printable(name))))
        .collect();
    let text = printable(&event.text);
    let text = if event.severity == Severity::Info {
        text
    } else {
        style.paint(tone, &text)
    };
    let figures: String = event
        .fields
        .iter()
        .filter(|(name, _)| !NOT_SHOWN.contains(&name.as_str()))
        .map(|(name, value)| format!("  {}={}", printable(name), short(&printable(value))))
        .collect();
    format!(
        "{}  {:<node_width$}  {severity}  {}  {about}{text}{}",
        when::local(event.at_ms),
        printable(&event.node),
        printable(&event.code),
        if figures.is_empty() {
            figures
        } else {
            style.paint(Tone::Quiet, &figures)
        }
    )
}

/// Nothing that a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn short(text: &str) -> String {
    if text.chars().count() <= FIGURE_CHARS_MAX {
        return text.to_string();
    }
    let begin: String = text.chars().take(FIGURE_CHARS_MAX).collect();
    format!("{begin}...")
}

/// What was asked for, as far as it explains what is not told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Nothing from before, milliseconds since 1970.
    pub(crate) since_ms: Option<u64>,
    /// So many were asked for, and not only shown by default.
    pub(crate) counted: bool,
}

/// What to know before the first event: what is not here.
pub(crate) fn before(events: &Events, asked: Asked) -> Vec<String> {
    let mut lines = Vec::new();
    for log in &events.logs {
        let oldest = log.oldest_ms.filter(|oldest| {
            let since = asked.since_ms;
            log.left_out == 0 && since.is_some_and(|since| *oldest > since)
        });
        if let Some(oldest) = oldest {
            let oldest = when::local(oldest);
            lines.push(format!("{} keeps nothing from before {oldest}", log.node));
        }
    }
    let left_out: u64 = events.logs.iter().map(|log| log.left_out).sum();
    if left_out > 0 && !asked.counted {
        lines.push(match asked.since_ms {
            None => format!("{left_out} older ones are not shown: --since or -n shows more"),
            Some(_) => format!("{left_out} older ones found no room in the answer: -n shows the last ones, --code or --group some of them"),
        });
    }
    lines
}

/// What to know after the last one: whom nobody could ask, and whose clock is wrong.
pub(crate) fn after(events: &Events) -> Vec<String> {
    let mut lines = Vec::new();
    let own = events.logs.first().map_or("", |log| log.node.as_str());
    for log in &events.logs {
        if let Some(problem) = &log.problem {
            let text = format!("{}: {} {}", log.node, problem.code, problem.message);
            lines.push(text);
        }
        if log.ahead_ms.unsigned_abs() >= CLOCKS_DIFFER_MS {
            let seconds = log.ahead_ms.unsigned_abs() / 1000;
            let word = if log.ahead_ms > 0 { "ahead" } else { "behind" };
            lines.push(format!(
                "the clock of {} is {seconds} s {word} of that of {own}: what happened there is out of order here",
                log.node
            ));
        }
    }
    if events.events.is_empty() {
        lines.insert(0, "nothing of that kind is kept".to_string());
    }
    lines
}

/// Such a line on the screen.
pub(crate) fn note(text: &str, style: Style) -> String {
    style.paint(Tone::Quiet, &format!("-- {}", printable(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::admin::Problem;

    fn event(severity: Severity) -> Event {
        let fields = [
            ("row", "20"),
            ("situation", "Situation {"),
            ("z", &"x".repeat(99)),
        ];
        let fields = fields.map(|(name, value)| (name.to_string(), value.to_string()));
        Event {
            node: "node2".to_string(),
            number: 1,
            at_ms: 1_795_261_445_678,
            severity,
            code: "LS6017".to_string(),
            group: Some("pg".to_string()),
            volume: None,
            text: "takes over\u{1b}[2J".to_string(),
            fields: fields.into(),
        }
    }

    fn log(node: &str) -> Log {
        Log {
            node: node.to_string(),
            left_out: 0,
            newest: 7,
            oldest_ms: Some(5000),
            ahead_ms: 0,
            problem: None,
        }
    }

    fn answer(logs: Vec<Log>) -> Events {
        Events {
            schema: controlplane_api::events::SCHEMA.to_string(),
            events: vec![event(Severity::Info)],
            logs,
        }
    }

    #[test]
    fn a_line_has_time_node_severity_code_and_what() {
        let told = line(&event(Severity::Info), 7, Style::Plain);
        let time = when::local(1_795_261_445_678);
        let cut = "x".repeat(FIGURE_CHARS_MAX);
        let expected =
            format!("{time}  node2    info     LS6017  pg: takes over[2J  row=20  z={cut}...");
        assert_eq!(told, expected);
    }

    #[test]
    fn only_what_somebody_should_look_at_is_coloured() {
        for (severity, colour) in [(Severity::Warning, "1;33"), (Severity::Error, "1;31")] {
            let told = line(&event(severity), 5, Style::Colour);
            assert_eq!(
                told.matches(&format!("\x1b[{colour}m")).count(),
                2,
                "{told:?}"
            );
        }
        let told = line(&event(Severity::Info), 5, Style::Colour);
        assert!(told.contains("\x1b[2minfo"), "{told:?}");
        assert!(!told.contains("\x1b[2J"), "{told:?}");
    }

    #[test]
    fn what_is_missing_is_told_and_nothing_else() {
        let asked = Asked::default();
        let whole = answer(vec![log("node1"), log("node2")]);
        assert!(before(&whole, asked).is_empty() && after(&whole).is_empty());
        let mut some = whole.clone();
        some.logs[1].left_out = 30;
        assert!(before(&some, asked)[0].starts_with("30 older ones are not shown"));
        let counted = Asked {
            counted: true,
            ..asked
        };
        assert!(before(&some, counted).is_empty());
        let since = Asked {
            since_ms: Some(4999),
            ..asked
        };
        let told = before(&whole, since);
        assert!(
            told[0].starts_with("node1 keeps nothing from before "),
            "{told:?}"
        );
        assert_eq!(told.len(), 2);
        assert!(before(&some, since)[1].starts_with("30 older ones found no room"));
        some.logs[1].ahead_ms = -7000;
        assert!(after(&some)[0].starts_with("the clock of node2 is 7 s behind of that of node1"));
        some.logs[1].problem = Some(Problem {
            code: "LS6162".to_string(),
            message: "node2 is not heard".to_string(),
            advice: String::new(),
        });
        assert_eq!(after(&some)[0], "node2: LS6162 node2 is not heard");
        some.events.clear();
        assert_eq!(after(&some)[0], "nothing of that kind is kept");
    }
}
