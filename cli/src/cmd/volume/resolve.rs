//! `lockstep volume resolve`: both sides of a split brain, and the end of one of them.

use controlplane_api::Client;
use mirror_core::admin::Command;

use super::tell;
use crate::config;
use crate::failure::Failure;
use crate::split;
use crate::style::Style;

/// Without `discard` it only shows.
pub(crate) fn run(
    name: &str,
    discard: Option<String>,
    confirm: Option<String>,
) -> Result<u8, Failure> {
    if let Some(discard) = discard {
        let confirm = confirm.unwrap_or_default();
        return tell(name, Command::Resolve { discard, confirm });
    }
    config::path_of(name)?;
    let status = Client::of_volume(name)
        .status()
        .map_err(|error| Failure::of_volume(&error, name))?;
    let Some(found) = &status.split else {
        return Err(Failure::new(
            "LS1060",
            format!(
                "no split brain is known: {} and {} have not met with two histories since the daemon started",
                status.node, status.peer
            ),
            format!("let the two nodes connect, then look at `lockstep volume status {name}`"),
        ));
    };
    print!("{}", split::both_sides(found, Style::of_stdout()));
    print!("{}", split::choice(found, name));
    Ok(0)
}
