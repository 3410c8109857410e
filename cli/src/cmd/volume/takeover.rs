//! `lockstep volume takeover`: only a person can know that the other node is off.

use std::io::{IsTerminal, Write, stderr, stdin};

use controlplane_api::Client;
use mirror_core::admin::{Command, LinkState, Role, Status};

use crate::config;
use crate::failure::Failure;
use crate::verdict::heard;

pub(crate) fn run(name: &str, confirm: Option<String>) -> Result<u8, Failure> {
    config::path_of(name)?;
    let confirm = match confirm {
        Some(words) => about_now(name, words)?,
        None => ask_the_operator(name)?,
    };
    super::tell(name, Command::Takeover { confirm })
}

fn ask_the_operator(name: &str) -> Result<String, Failure> {
    let status = Client::of_volume(name)
        .status()
        .map_err(|error| Failure::of_volume(&error, name))?;
    if status.link.state == LinkState::Up {
        // The daemon refuses, and says why, before it looks at the words.
        return Ok(String::new());
    }
    let wanted = words(&status.peer);
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        let peer = &status.peer;
        return Err(Failure::new(
            "LS1007",
            format!(
                "a takeover is safe only if {peer} is off; if it still runs, both sides will have different data"
            ),
            format!(
                "switch {peer} off, look that it is off, then:\n  lockstep volume takeover {name} --confirm \"{wanted}\""
            ),
        ));
    }
    eprint!("{}", risk(&status));
    let _ = stderr().flush();
    let mut typed = String::new();
    stdin().read_line(&mut typed).map_err(|error| {
        Failure::new("LS4010", format!("cannot read: {error}"), "use --confirm")
    })?;
    if typed.trim() == wanted {
        return Ok(of_epoch(&wanted, &status));
    }
    Err(Failure::new(
        "LS1007",
        "these were not the words; nothing was changed",
        format!("type exactly: {wanted}"),
    ))
}

/// The words are about the view that counts when they are said: should another one count when they are heard, the peer
/// may have been allowed to go on since, and the daemon refuses (S8).
fn about_now(name: &str, said: String) -> Result<String, Failure> {
    let status = Client::of_volume(name)
        .status()
        .map_err(|error| Failure::of_volume(&error, name))?;
    if said == words(&status.peer) {
        return Ok(of_epoch(&said, &status));
    }
    Ok(said)
}

fn of_epoch(words: &str, status: &Status) -> String {
    format!("{words}, epoch {}", status.view.epoch)
}

/// What the operator vouches for.
fn words(peer: &str) -> String {
    format!("{peer} is off")
}

/// What a takeover risks here and now, in plain words.
fn risk(status: &Status) -> String {
    let Status {
        volume, node, peer, ..
    } = status;
    let active = status.view.active.as_deref();
    let what = match status.role {
        Role::Active => format!("{node} serves {volume} and will go on without {peer}."),
        Role::Fenced | Role::Activating | Role::Deactivating => {
            format!("{node} will begin to serve {volume}.")
        }
    };
    let who = match active {
        Some(active) if active == peer => format!(
            "{peer} served it when it was last known (epoch {}).",
            status.view.epoch
        ),
        Some(active) => format!(
            "{active} serves it by what is known here (epoch {}).",
            status.view.epoch
        ),
        None => format!(
            "Nobody served it when it was last known (epoch {}).",
            status.view.epoch
        ),
    };
    format!(
        "{what}\n{who}\n\
         {peer}: {heard}.\n\n\
         If {peer} still runs, both sides go their own way from now on: when they meet\n\
         again, one side's writes will have to be thrown away.\n\
         Lockstep cannot see whether {peer} is off or only out of reach. You can.\n\n\
         To go on, type: {words}\n> ",
        heard = heard(status),
        words = words(peer),
    )
}
