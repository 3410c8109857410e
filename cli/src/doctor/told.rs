//! How checks are read: the screen, and the JSON document `lockstep.doctor/1`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Check, Counts, Fault, Outcome};
use crate::style::{Style, Tone};

/// The schema of the document; a later one only adds.
pub(crate) const SCHEMA: &str = "lockstep.doctor/1";

/// All of it in one word.
fn word(counts: Counts) -> (&'static str, Tone) {
    match counts.exit_code() {
        0 => ("HEALTHY", Tone::Good),
        1 => ("WARNINGS", Tone::Careful),
        2 => ("ERRORS", Tone::Bad),
        _ => ("UNKNOWN", Tone::Careful),
    }
}

fn sentence(counts: Counts) -> String {
    let Counts {
        good,
        warnings,
        errors,
        unseen,
        nothing,
    } = counts;
    let parts = [
        (errors, "error", "errors"),
        (warnings, "warning", "warnings"),
        (unseen, "not checked", "not checked"),
        (good, "ok", "ok"),
        (nothing, "nothing to look at", "nothing to look at"),
    ];
    let told = parts.iter().filter(|(count, ..)| *count > 0);
    let told: Vec<String> = told
        .map(|(count, one, several)| format!("{count} {}", if *count == 1 { one } else { several }))
        .collect();
    told.join(", ")
}

/// The whole screen: a line for each check, below its area; what is wrong has why and what to do below it.
pub(crate) fn screen(machine: &str, checks: &[Check], style: Style) -> String {
    let counts = Counts::of(checks);
    let (verdict, tone) = word(counts);
    let mut out = format!(
        "{}  {}: {}\n",
        style.paint(Tone::Strong, machine),
        style.paint(tone, verdict),
        sentence(counts)
    );
    let mut area = None;
    for check in checks {
        if area != Some(check.area) {
            area = Some(check.area);
            let _ = writeln!(out, "{}", style.paint(Tone::Strong, check.area.name()));
        }
        line(&mut out, check, style);
    }
    out
}

/// Names of files, devices and programs are other people's: none reaches the terminal as a control sequence.
fn harmless(text: &str) -> String {
    let one = |c: char| match c {
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(one).collect()
}

fn line(out: &mut String, check: &Check, style: Style) {
    let (tone, mark, words) = match &check.outcome {
        Outcome::Good(words) => (Tone::Good, "ok", words.clone()),
        Outcome::Warning(fault) => (Tone::Careful, "warning", headline(fault)),
        Outcome::Error(fault) => (Tone::Bad, "error", headline(fault)),
        Outcome::Unseen(why) => (Tone::Careful, "not checked", why.clone()),
        Outcome::Nothing(why) => (Tone::Quiet, "-", why.clone()),
    };
    let place = match &check.place {
        Some(place) => format!("{place}: "),
        None => String::new(),
    };
    let mark = style.paint(tone, &format!("{mark:<11}"));
    let text = harmless(&format!("{place}{words}"));
    let _ = writeln!(out, "  {mark}  {:<13}  {text}", check.name);
    if let Outcome::Warning(fault) | Outcome::Error(fault) = &check.outcome {
        for (mark, text) in [("because", &fault.why), (">", &fault.advice)] {
            for text in text.lines().filter(|text| !text.is_empty()) {
                let _ = writeln!(out, "               {mark} {}", harmless(text));
            }
        }
    }
}

fn headline(fault: &Fault) -> String {
    format!("{} {}", fault.code, fault.what)
}

/// The document.
pub(crate) fn document(machine: &str, checks: &[Check]) -> Value {
    let counts = Counts::of(checks);
    let list: Vec<Value> = checks.iter().map(entry).collect();
    json!({
        "schema": SCHEMA,
        "machine": machine,
        "version": env!("CARGO_PKG_VERSION"),
        "verdict": word(counts).0.to_lowercase(),
        "exit_code": counts.exit_code(),
        "counts": counts,
        "checks": list,
    })
}

fn entry(check: &Check) -> Value {
    let mut entry = json!({
        "area": check.area,
        "check": check.name,
        "place": check.place,
    });
    let told = match &check.outcome {
        Outcome::Good(words) => json!({"verdict": "ok", "what": words}),
        Outcome::Warning(fault) => of_fault("warning", fault),
        Outcome::Error(fault) => of_fault("error", fault),
        Outcome::Unseen(why) => json!({"verdict": "not-checked", "gap": true, "why": why}),
        Outcome::Nothing(why) => json!({"verdict": "not-checked", "gap": false, "why": why}),
    };
    if let (Value::Object(entry), Value::Object(told)) = (&mut entry, told) {
        entry.extend(told);
    }
    entry
}

fn of_fault(verdict: &str, fault: &Fault) -> Value {
    json!({
        "verdict": verdict,
        "code": fault.code,
        "what": fault.what,
        "why": fault.why,
        "advice": fault.advice,
    })
}
