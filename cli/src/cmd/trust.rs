//! `lockstep cluster trust`, `rotate-authority` and `renew-certificates`: whom the members trust, and what they show.

use std::io::{Write, stdout};
use std::time::Duration;

use controlplane_api::arbiter::Hex16;
use controlplane_api::trust::{
    DONE_SCHEMA, MemberTrust, SHOW_SCHEMA, TrustDone, TrustOutcome, TrustShow, TrustStage,
    TrustWish,
};
use mirror_core::admin::Problem;
use serde_json::json;

use crate::args::RotateAuthority;
use crate::cmd::both_nodes::{Awaited, SHOW_TIMEOUT};
use crate::cmd::push::{finish, unknown};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{HttpError, get, post};
use crate::verdict::Health;
use crate::when::day;

/// All members are asked, and make keys.
const WISH_TIMEOUT: Duration = Duration::from_secs(120);
/// It could be, or is not at its end.
const EXIT_DIFFERS: u8 = 2;
/// Enough of an authority's print to tell it from another one.
const PRINT_DIGITS: usize = 12;

/// `lockstep cluster rotate-authority`.
pub(crate) fn rotate(command: &RotateAuthority) -> Result<u8, Failure> {
    let form = Form::from(command.json);
    finish(rotated(command, form), form, DONE_SCHEMA)
}

fn rotated(command: &RotateAuthority, form: Form) -> Result<u8, Failure> {
    let said = wish("/v1/trust/rotate", command.dry_run)?;
    if form == Form::Screen {
        println!(
            "{}",
            match said.outcome {
                TrustOutcome::Possible => "the cluster's authority can be changed",
                TrustOutcome::Begun => "the cluster gets another authority",
                TrustOutcome::UnderWay => "a change of the authority is under way",
                TrustOutcome::Renewed => "all members have new certificates",
            }
        );
    }
    let done = match (said.authority, command.wait) {
        (Some(authority), true) => {
            until(authority, Duration::from_secs(command.timeout), form)?;
            true
        }
        (None, _) | (_, false) => false,
    };
    match form {
        Form::Json => told(&said, done),
        Form::Screen if done => println!("all members trust and show the new authority alone"),
        Form::Screen => {}
    }
    Ok(if command.dry_run { EXIT_DIFFERS } else { 0 })
}

/// `lockstep cluster renew-certificates`.
pub(crate) fn renew(dry_run: bool, json: bool) -> Result<u8, Failure> {
    let form = Form::from(json);
    let renewed = wish("/v1/trust/renew", dry_run).map(|said| {
        match (form, dry_run) {
            (Form::Json, _) => told(&said, !dry_run),
            (Form::Screen, true) => println!("all certificates can be renewed"),
            (Form::Screen, false) => println!("all members have new certificates and keys"),
        }
        if dry_run { EXIT_DIFFERS } else { 0 }
    });
    finish(renewed, form, DONE_SCHEMA)
}

fn told(said: &TrustDone, done: bool) {
    let mut told = json!(said);
    told["done"] = json!(done);
    println!("{told:#}");
}

fn wish(path: &str, dry_run: bool) -> Result<TrustDone, Failure> {
    let answer: Result<TrustDone, Problem> =
        post(path, &TrustWish { dry_run }, WISH_TIMEOUT).map_err(|error| undecided(&error))?;
    answer.map_err(refused)
}

/// A refusal. What is not known to be refused has another exit code.
fn refused(problem: Problem) -> Failure {
    let is_unknown = matches!(problem.code.as_str(), "LS6178" | "LS6116");
    let exit_code = if is_unknown {
        Health::Unknown.exit_code()
    } else {
        1
    };
    Failure { problem, exit_code }
}

/// `lockstepd` did not say what came of it.
fn undecided(error: &HttpError) -> Failure {
    let mut failure = unknown(error);
    if !matches!(error, HttpError::NotRunning { .. }) {
        failure.problem.advice =
            "whether it began is not known: `lockstep cluster trust` says how it stands"
                .to_string();
    }
    failure
}

fn until(authority: Hex16, patience: Duration, form: Form) -> Result<(), Failure> {
    let awaited = Awaited {
        path: "/v1/trust",
        patience,
        form,
        silent: "lockstepd here does not answer",
        undecided,
    };
    let going = |shown: &TrustShow| waits_for(shown, authority);
    let late = |last: &str| {
        let message = format!(
            "the change has begun, and after {} s it is not at its end: {last}",
            patience.as_secs()
        );
        let advice = "it goes on by itself; `lockstep cluster trust` says how it stands";
        let mut failure = Failure::new("LS6182", message, advice);
        failure.exit_code = Health::Unknown.exit_code();
        failure
    };
    awaited.until(going, late).map(drop)
}

/// The first member that has not come to its end, and why.
fn waits_for(shown: &TrustShow, authority: Hex16) -> Option<String> {
    let mut behind = shown.members.iter().filter(|member| !member.has(authority));
    let first = behind.next()?;
    // What is said of a change that gets on is no reason.
    let stuck = |member: &&MemberTrust| {
        member
            .problem
            .as_ref()
            .is_some_and(|problem| problem.code != "LS6182")
    };
    let member = shown.members.iter().find(stuck).unwrap_or(first);
    let why = match &member.problem {
        Some(problem) if problem.code != "LS6182" => {
            format!("{} {}", problem.code, problem.message)
        }
        Some(_) | None => format!("waits for {}", member.member),
    };
    Some(printable(&why))
}

/// `lockstep cluster trust`.
pub(crate) fn show(json: bool) -> Result<u8, Failure> {
    let form = Form::from(json);
    let answer = get::<TrustShow>("/v1/trust", SHOW_TIMEOUT).map_err(|error| unknown(&error));
    let outcome = answer.map(|shown| {
        let text = match form {
            Form::Json => format!("{:#}\n", json!(shown)),
            Form::Screen => screen(&shown),
        };
        // A reader that went away (`| head`) has seen enough.
        let _ = stdout().write_all(text.as_bytes());
        verdict(&shown)
    });
    finish(outcome, form, SHOW_SCHEMA)
}

fn verdict(shown: &TrustShow) -> u8 {
    let mut authorities = shown.members.iter().map(|member| member.authority);
    let first = authorities.next().flatten();
    if shown.members.iter().any(|member| member.stage.is_none()) {
        return Health::Unknown.exit_code();
    }
    let all = |authority| shown.members.iter().all(|member| member.has(authority));
    if first.is_some_and(all) {
        0
    } else {
        EXIT_DIFFERS
    }
}

fn screen(shown: &TrustShow) -> String {
    let mut lines = Vec::new();
    for member in &shown.members {
        lines.extend(rows(member));
    }
    printable(&(lines.join("\n") + "\n"))
}

fn rows(member: &MemberTrust) -> Vec<String> {
    let mut lines = Vec::new();
    let print = member.authority.map(|print| print.to_string());
    let print = print.map(|print| print.chars().take(PRINT_DIGITS).collect::<String>());
    let stage = match member.stage {
        Some(TrustStage::Settled) => "and trusts nothing else",
        Some(TrustStage::TrustsNext) => "and trusts the next one as well",
        Some(TrustStage::ShowsNext) => "and trusts the last one still",
        None => "and does not say what it trusts",
    };
    let leads = if member.leads {
        "; the authority's key is here"
    } else {
        ""
    };
    lines.push(match print {
        Some(print) => format!("{}: shows authority {print}, {stage}{leads}", member.member),
        None => format!("{}: not known{leads}", member.member),
    });
    if let Some(ends) = member.certificate_ends {
        lines.push(format!("  its certificate is good until {}", day(ends)));
    }
    if let Some(ends) = member.authority_ends {
        lines.push(format!("  the authority is good until {}", day(ends)));
    }
    if let Some(problem) = &member.problem {
        lines.push(format!("  ! {} {}", problem.code, problem.message));
        lines.push(format!("    > {}", problem.advice));
    }
    lines
}

fn printable(text: &str) -> String {
    let shown = |c: &char| !c.is_control() || *c == '\n';
    text.chars().filter(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, authority: u8, stage: TrustStage) -> MemberTrust {
        MemberTrust {
            member: name.to_string(),
            leads: name == "node1",
            authority: Some(Hex16([authority; 16])),
            stage: Some(stage),
            certificate_ends: Some(1_800_000_000),
            authority_ends: None,
            problem: None,
        }
    }

    #[test]
    fn a_screen_says_what_each_member_trusts_and_the_exit_code_whether_it_is_over() {
        let settled = TrustStage::Settled;
        let mut shown = TrustShow {
            schema: SHOW_SCHEMA.to_string(),
            ok: true,
            members: vec![
                member("node1", 1, settled),
                member("node2", 1, settled),
                member("witness", 1, settled),
            ],
        };
        assert_eq!(verdict(&shown), 0);
        assert_eq!(waits_for(&shown, Hex16([1; 16])), None);
        let text = screen(&shown);
        assert!(text.contains("node1: shows authority 010101010101, and trusts nothing else"));
        assert!(text.contains("the authority's key is here\n"), "{text}");
        assert!(text.contains("good until 2027-01-15\n"), "{text}");
        shown.members[2] = member("witness", 1, TrustStage::TrustsNext);
        assert_eq!(verdict(&shown), EXIT_DIFFERS);
        let waits = waits_for(&shown, Hex16([1; 16]));
        assert_eq!(waits.as_deref(), Some("waits for witness"));
        shown.members[1].problem = Some(Problem {
            code: "LS6178".to_string(),
            message: "it is away".to_string(),
            advice: "see".to_string(),
        });
        let waits = waits_for(&shown, Hex16([1; 16]));
        assert_eq!(waits.as_deref(), Some("LS6178 it is away"));
        shown.members[1].stage = None;
        assert_eq!(verdict(&shown), Health::Unknown.exit_code());
    }
}
