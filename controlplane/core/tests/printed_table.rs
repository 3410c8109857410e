//! docs/controlplane.md prints the table of decisions as it is.

use std::fs;
use std::path::Path;

use controlplane_core::partition::{Condition, Contact, Standing, TABLE, Targets, Wanted};
use controlplane_core::self_fencing::{
    Before, Care, Ground, SERVICES, STARTS, Start, Verdict, WATCHDOG, Watched,
};

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Serving => "serving",
        Standing::Frozen => "frozen",
        Standing::Standby => "standby",
        Standing::Unserved => "unserved",
        Standing::Booted => "booted",
        Standing::Alone => "alone",
        Standing::NotCurrent => "not current",
        Standing::Silent => "silent",
        Standing::Broken => "broken",
    }
}

fn wish(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Runs => "the group runs",
        Wanted::There => "the group moves, and the other node is ready",
        Wanted::Nowhere => "the group is stopped",
        Wanted::NotHere => "this node is suspended",
    }
}

fn condition(condition: Condition) -> String {
    let answer = |targets: Targets| match targets {
        Targets::Answer => "answer",
        Targets::Silent => "are silent",
    };
    match condition {
        Condition::Any => "anything else".to_string(),
        Condition::Contact(Contact::Linked) => "linked".to_string(),
        Condition::Contact(Contact::HeartbeatsOnly) => "heartbeats only".to_string(),
        Condition::Contact(Contact::Unsure) => "unsure".to_string(),
        Condition::Contact(Contact::Dead) => "the peer is dead".to_string(),
        Condition::Claim(state) => format!("witness: the claim is {state:?}").to_lowercase(),
        Condition::Ping(targets) => format!("ping: the targets {}", answer(targets)),
        Condition::Manual => "manual".to_string(),
        Condition::Nobody => "none".to_string(),
        Condition::LeaseOver => "the lease is over".to_string(),
        Condition::NoClients => "no client network answers".to_string(),
        Condition::NotAutomatic => "the group waits for an operator".to_string(),
        Condition::Wish(wanted) => wish(wanted).to_string(),
        Condition::LinkedWish(wanted) => format!("linked, and {}", wish(wanted)),
        Condition::LinkedInTurn => "linked, and it is this node's turn".to_string(),
    }
}

fn printed() -> String {
    let mut text = String::from("| row | standing | and | decision |\n|---|---|---|---|\n");
    for (number, row) in (1..).zip(&TABLE) {
        text += &format!(
            "| {number} | {} | {} | {} |\n",
            standing(row.standing),
            condition(row.condition),
            row.decision
        );
    }
    text
}

fn ground(ground: Ground) -> &'static str {
    match ground {
        Ground::NoTakeover => "the arbiter is `manual` or `none`: nobody takes over by itself",
        Ground::Alone => "the copies here alone count",
        Ground::Granted => "the arbiter granted that they will",
        Ground::Leased => "both count, and the lease lasts",
        Ground::Unlooked => {
            "this run of `lockstepd`, and those before it, have not looked at the volumes yet, or found them served here and wait for the other node's first word, for less than 3 s together"
        }
        Ground::Over => "the lease is over",
    }
}

fn services() -> String {
    let mut text =
        String::from("| row | the services of the group here | then they |\n|---|---|---|\n");
    for (number, (row, verdict)) in (1..).zip(&SERVICES) {
        let then = match verdict {
            Verdict::GoOn => "go on",
            Verdict::StopHard => "stop, hard and at once",
        };
        text += &format!("| {number} | {} | {then} |\n", ground(*row));
    }
    text
}

fn starts() -> String {
    let mut text =
        String::from("| row | before services start here | then they |\n|---|---|---|\n");
    for (number, (row, start)) in (1..).zip(&STARTS) {
        let before = match row {
            Before::Begun => "they began since the volumes are served here, or run already",
            Before::OtherClear => {
                "the other node said since then that nothing of the group is left there"
            }
            Before::Waited => "the takeover wait is over",
            Before::Unknown => "none of these, whoever gave the volumes up",
        };
        let then = match start {
            Start::AtOnce => "start",
            Start::Later => "wait",
        };
        text += &format!("| {number} | {before} | {then} |\n");
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

#[test]
fn the_documents_print_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/controlplane.md");
    let tables = [
        ("table", printed()),
        ("services", services()),
        ("starts", starts()),
        ("watchdog", watchdog()),
    ];
    for (name, printed) in tables {
        let (begin, end) = (
            format!("<!-- {name} -->\n"),
            format!("<!-- end of {name} -->"),
        );
        let text = fs::read_to_string(&path).expect("docs/controlplane.md");
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
