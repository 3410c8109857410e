//! docs/controlplane.md and docs/groups.md print the tables of decisions as they are.

use std::fs;
use std::path::Path;

use controlplane_core::failing::FAILED;
use controlplane_core::partition::TABLE;
use controlplane_core::self_fencing::{Care, SERVICES, STARTS, Start, Verdict, WATCHDOG, Watched};
use controlplane_core::timeouts::{Length, STAGES};

fn printed() -> String {
    let mut text = String::from("| row | standing | and | decision |\n|---|---|---|---|\n");
    for (number, row) in (1..).zip(&TABLE) {
        text += &format!(
            "| {number} | {} | {} | {} |\n",
            row.standing, row.condition, row.decision
        );
    }
    text
}

fn services() -> String {
    let mut text =
        String::from("| row | the services of the group here | then they |\n|---|---|---|\n");
    for (number, (row, verdict)) in (1..).zip(&SERVICES) {
        let then = match verdict {
            Verdict::GoOn => "go on",
            Verdict::StopHard => "stop, hard and at once",
        };
        text += &format!("| {number} | {row} | {then} |\n");
    }
    text
}

fn starts() -> String {
    let mut text =
        String::from("| row | before services start here | then they |\n|---|---|---|\n");
    for (number, (row, start)) in (1..).zip(&STARTS) {
        let then = match start {
            Start::AtOnce => "start",
            Start::Later => "wait",
        };
        text += &format!("| {number} | {row} | {then} |\n");
    }
    text
}

fn watchdog() -> String {
    let mut text =
        String::from("| row | of the groups that are here | the watchdog is |\n|---|---|---|\n");
    for (number, (row, care)) in (1..).zip(&WATCHDOG) {
        let seen = match row {
            Watched::NothingLeft => "nothing is left of any",
            Watched::Overdue => "a hard stop takes longer than `hard_stop_ms`",
            Watched::LeaseLongOver => "the lease of one has been over for `hard_stop_ms`",
            Watched::LoopStuck => {
                "the loop that decides has not turned for half of `heartbeat_timeout_ms` and `hard_stop_ms`"
            }
            Watched::Well => "all is well",
        };
        let then = match care {
            Care::Disarmed => "disarmed",
            Care::Petted => "armed, and petted",
            Care::Left => "armed, and **not petted**: it resets this machine",
        };
        text += &format!("| {number} | {seen} | {then} |\n");
    }
    text
}

fn failed() -> String {
    let mut text = String::from("| row | a group here | then |\n|---|---|---|\n");
    for (number, (case, then)) in (1..).zip(&FAILED) {
        text += &format!("| {number} | {case} | {then} |\n");
    }
    text
}

fn timeouts() -> String {
    let mut text = String::from(
        "| row | a node | promises | waits | its lease, by the next confirmation |\n|---|---|---|---|---|\n",
    );
    for (number, (stage, conduct)) in (1..).zip(&STAGES) {
        let length = |length: Length, long: &'static str| match length {
            Length::Plain => "as configured",
            Length::Long => long,
        };
        let (says, waits) = match conduct.says {
            Length::Plain => ("nothing", "longer, until what it said last has run out"),
            Length::Long => ("to wait longer", "longer"),
        };
        let waits = length(conduct.waits, waits);
        let lease = length(conduct.lease, "longer");
        text += &format!("| {number} | {stage} | {says} | {waits} | {lease} |\n");
    }
    text
}

#[test]
fn the_documents_print_the_tables() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let tables = [
        ("controlplane.md", "table", printed()),
        ("controlplane.md", "services", services()),
        ("controlplane.md", "starts", starts()),
        ("controlplane.md", "watchdog", watchdog()),
        ("groups.md", "failed", failed()),
        ("controlplane.md", "timeouts", timeouts()),
    ];
    for (document, name, printed) in tables {
        let path = docs.join(document);
        let (begin, end) = (
            format!("<!-- {name} -->\n"),
            format!("<!-- end of {name} -->"),
        );
        let text = fs::read_to_string(&path).expect("a document");
        let (before, rest) = text.split_once(&begin).expect("where the table begins");
        let (found, after) = rest.split_once(&end).expect("where it ends");
        if std::env::var_os("LOCKSTEP_BLESS").is_some() {
            let whole = format!("{before}{begin}{printed}{end}{after}");
            fs::write(&path, whole).expect("write");
            continue;
        }
        assert_eq!(
            found, printed,
            "set LOCKSTEP_BLESS=1 after a change of the table"
        );
    }
}
