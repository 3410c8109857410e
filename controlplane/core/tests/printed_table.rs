//! docs/controlplane.md prints the table of decisions as it is.

use std::fs;
use std::path::Path;

use controlplane_core::partition::{Condition, Contact, Standing, TABLE, Targets, Wanted};

const BEGIN: &str = "<!-- table -->\n";
const END: &str = "<!-- end of table -->";

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

#[test]
fn the_documents_print_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/controlplane.md");
    let text = fs::read_to_string(&path).expect("docs/controlplane.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (found, after) = rest.split_once(END).expect("where it ends");
    if std::env::var_os("LOCKSTEP_BLESS").is_some() {
        let whole = format!("{before}{BEGIN}{}{END}{after}", printed());
        fs::write(&path, whole).expect("write");
        return;
    }
    assert_eq!(
        found,
        printed(),
        "set LOCKSTEP_BLESS=1 after a change of the table"
    );
}
