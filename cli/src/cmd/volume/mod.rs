//! `lockstep volume ...`: one file per verb that is more than a command to the daemon.

mod adopt_disk;
mod beside;
mod create;
mod discarded;
mod ends;
mod grow;
mod resolve;
mod start;
pub(crate) mod status;
mod stop;
mod takeover;
mod verify;

use controlplane_api::Client;
use mirror_core::admin::{Command, Done};

use crate::args::Volume;
use crate::config;
use crate::failure::Failure;
use crate::patience::patiently;
use beside::Hand;

pub(crate) fn run(command: Volume) -> Result<u8, Failure> {
    match command {
        Volume::Create(create) => create::run(create),
        Volume::Start { name } => start::run(&name),
        Volume::Stop { name } => stop::run(&name),
        Volume::Status { name, json, watch } => {
            status::run(name.as_deref(), json.into(), watch.into())
        }
        Volume::Activate { name, by_hand } => {
            beside::look(Hand::Activate, &name, by_hand)?;
            tell(&name, Command::Activate)
        }
        Volume::Deactivate {
            name,
            force,
            by_hand,
        } => {
            beside::look(Hand::Deactivate, &name, by_hand)?;
            tell(&name, Command::Deactivate { force })
        }
        Volume::Grow { name, size } => grow::run(&name, size),
        Volume::Takeover {
            name,
            confirm,
            by_hand,
        } => {
            beside::look(Hand::Takeover, &name, by_hand)?;
            takeover::run(&name, confirm)
        }
        Volume::Resolve {
            name,
            discard,
            confirm,
            keep,
            no_keep,
        } => match discard {
            None => resolve::show(&name),
            Some(discard) => {
                let keep = resolve::keep(keep.as_deref(), no_keep)?;
                resolve::discard(&name, discard, confirm.unwrap_or_default(), keep)
            }
        },
        Volume::Discarded(command) => discarded::run(&command),
        Volume::Force { name, confirm } => {
            let confirm = confirm.unwrap_or_default();
            tell(&name, Command::Force { confirm })
        }
        Volume::Verify(command) => verify::run(&command),
        Volume::Invalidate { name, confirm } => {
            let confirm = confirm.unwrap_or_default();
            tell(&name, Command::Invalidate { confirm })
        }
        Volume::AdoptDisk { name, confirm } => adopt_disk::run(&name, confirm.as_deref()),
        Volume::Resync { name, pause, .. } => tell(
            &name,
            if pause {
                Command::ResyncPause
            } else {
                Command::ResyncResume
            },
        ),
        // The daemon knows the time as well as we do.
        Volume::Isolate { name } => tell(&name, Command::Isolate { now_unix_s: 0 }),
        Volume::Attach { name, force } => tell(&name, Command::Attach { force }),
    }
}

/// Gives the daemon a command and says what it did.
fn tell(name: &str, command: Command) -> Result<u8, Failure> {
    config::path_of(name)?;
    let client = Client::of_volume(name);
    let done = patiently(name, || client.command(command.clone()))
        .map_err(|error| Failure::of_volume(&error, name))?;
    println!("{}", done_words(name, done));
    Ok(0)
}

fn done_words(name: &str, done: Done) -> String {
    match done {
        Done::Active => format!("{name} is served here: /dev/lockstep/{name}"),
        Done::AlreadyActive => format!("{name} was served here already: /dev/lockstep/{name}"),
        Done::Fenced => format!("{name} is not served here any more"),
        Done::AlreadyFenced => format!("{name} was not served here"),
        Done::Alone => format!(
            "{name} goes on here alone: /dev/lockstep/{name}; there is one good copy until the other node is back"
        ),
        Done::Grown => format!("{name} is larger now"),
        Done::AlreadyGrown => format!("{name} had that size already"),
        Done::Stopped => format!("the daemon of {name} ended on this node"),
        Done::Discarded => format!(
            "the history of {name} on this node is discarded; it is filled from the other node when they meet"
        ),
        Done::Forced => format!(
            "{name}'s copy on this node is the only one that counts now, and it is NOT complete: check what is on it; \
             `lockstep volume activate {name}` serves it"
        ),
        Done::VerifyBegun => format!("both copies of {name} are being compared"),
        Done::VerifyEnds => format!("the verify of {name} ends"),
        Done::Invalidated => format!(
            "the copy of {name} here does not count any more; all of it is copied with the next connection"
        ),
        Done::ResyncPaused => {
            format!("the resync of {name} is paused: there is one good copy until it goes on")
        }
        Done::ResyncGoesOn => format!("the resync of {name} goes on"),
        Done::Isolated => format!(
            "the copy of {name} here is isolated: /dev/lockstep/{name}.isolated shows it, read-only; there is one \
             good copy until `lockstep volume attach {name}`"
        ),
        Done::AlreadyIsolated => {
            format!("the copy of {name} here was isolated already: /dev/lockstep/{name}.isolated")
        }
        Done::Attached => {
            format!(
                "the copy of {name} here is not isolated any more; what it missed is copied now"
            )
        }
        Done::AlreadyAttached => format!("the copy of {name} here was not isolated"),
    }
}
