//! `lockstep timeouts ...`: timeouts that are raised for a while, on both nodes.

use std::time::Duration;

use clap::{Args, Subcommand};
use controlplane_api::verbs::{Asked, ScaleAsked};
use serde_json::json;

use crate::cluster::timeouts::screen;
use crate::cmd::group::{answer, said, unknown};
use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{cluster_status, post, tell};
use crate::when;

const LIMIT: Duration = Duration::from_secs(10);

/// The command.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Timeouts {
    #[command(subcommand)]
    command: Option<Command>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the heartbeat's timeout, and all that is counted from it, longer on both nodes for a while; then it is as configured again
    Scale {
        /// How many times as long: 1.1 to 20, one digit after the point
        #[arg(value_parser = parse_tenths)]
        factor: u16,
        /// For how long: 90s, 30m, 2h, 1d; one minute to 24 hours
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_seconds)]
        lasts: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End it before its time
    Reset {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: Timeouts) -> Result<u8, Failure> {
    let (told, form) = match command.command {
        None => return show(command.json.into()),
        Some(Command::Scale {
            factor,
            lasts,
            json,
        }) => {
            let asked = ScaleAsked {
                factor_tenths: factor,
                for_s: lasts,
            };
            let told = post("/v1/timeouts/scale", &asked, LIMIT);
            (told, Form::from(json))
        }
        Some(Command::Reset { json }) => {
            let told = tell("/v1/timeouts/reset", &Asked::default());
            (told, Form::from(json))
        }
    };
    Ok(match said(told, form)? {
        Ok(said) => answer(&said, form),
        Err(code) => code,
    })
}

fn show(form: Form) -> Result<u8, Failure> {
    let status = cluster_status().map_err(|error| unknown(&error))?;
    match form {
        Form::Screen => print!("{}", screen(&status)),
        Form::Json => println!(
            "{:#}",
            json!({
                "schema": "lockstep.timeouts/1",
                "node": status.node,
                "peer": status.peer.name,
                "timeouts": status.timeouts,
            })
        ),
    }
    Ok(0)
}

/// Tenths of `3`, `1.5`.
fn parse_tenths(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is not a factor of 1.1 to 20 such as 3 or 1.5");
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(tenth) || tenth.len() != 1 {
        return Err(wrong());
    }
    let whole: u16 = whole.parse().map_err(|_| wrong())?;
    let tenth: u16 = tenth.parse().map_err(|_| wrong())?;
    let tenths = whole.checked_mul(10).and_then(|it| it.checked_add(tenth));
    tenths.ok_or_else(wrong)
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a time such as 90s, 30m, 2h or 1d");
    when::span_s(text.trim()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_has_one_digit_after_the_point_at_most() {
        for (text, tenths) in [("3", 30), ("1.5", 15), ("20", 200), ("20.0", 200)] {
            assert_eq!(parse_tenths(text), Ok(tenths));
        }
        for text in ["", "3x", "1.25", ".5", "3.", "-1", "1e3", "99999"] {
            assert!(parse_tenths(text).is_err(), "{text}");
        }
        assert_eq!(parse_seconds("2h"), Ok(7200));
        assert!(parse_seconds("2 weeks").is_err());
    }
}
