//! `lockstep volume stop`: done when the daemon is gone, so that a start or a repair may follow at once.
//!
//! That it is wished is durable before the daemon hears of it: `lockstepd` starts what ends by itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane::daemons::Places;
use controlplane::daemons::stopped;
use controlplane_api::{Client, ClientError};
use mirror_core::admin::Command;

use super::done_words;
use crate::config;
use crate::failure::Failure;
use crate::patience::patiently;
use crate::programs;

/// How long a daemon that agreed to end may take for it.
const END_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(name: &str) -> Result<u8, Failure> {
    config::path_of(name)?;
    let places = programs::places(name);
    // One whose configuration was removed too early can still be stopped.
    match config::existing_path_of(name) {
        Err(failure) if !answers(name) => return Err(failure),
        Ok(_) | Err(_) => {}
    }
    let _turn = programs::turn(&places)?;
    let was_stopped = stopped::is_stopped(&places)?;
    stopped::set(&places)?;
    let Some(words) = end(name, &places, was_stopped)? else {
        println!(
            "no daemon of {name} runs on this node; it stays so until `lockstep volume start {name}`"
        );
        return Ok(0);
    };
    println!("{words}");
    let start = Instant::now();
    while answers(name) || places.is_locked() {
        if start.elapsed() > END_LIMIT {
            return Err(Failure::new(
                "LS4012",
                format!(
                    "the daemon of {name} agreed to end {} s ago and still answers",
                    END_LIMIT.as_secs()
                ),
                "look at its log; a device that does not answer may hold it",
            ));
        }
        sleep(POLL_INTERVAL);
    }
    Ok(0)
}

/// Tells it to end; `None` if there is none. A refusal changes nothing, the mark included.
fn end(name: &str, places: &Places, was_stopped: bool) -> Result<Option<String>, Failure> {
    let client = Client::of_volume(name);
    let start = Instant::now();
    loop {
        match patiently(name, || client.command(Command::Stop)) {
            Ok(done) => return Ok(Some(done_words(name, done))),
            Err(ClientError::NotRunning { .. }) if !places.is_locked() => return Ok(None),
            // It begins, or is about to be gone.
            Err(ClientError::NotRunning { .. }) if start.elapsed() < END_LIMIT => {
                sleep(POLL_INTERVAL);
            }
            Err(error) => {
                let unchanged = matches!(
                    error,
                    ClientError::Refused(_) | ClientError::Permission { .. }
                );
                if unchanged && !was_stopped {
                    stopped::clear(places)?;
                }
                let mut failure = Failure::of_volume(&error, name);
                if !unchanged {
                    let advice = &mut failure.problem.advice;
                    advice.push_str(&format!(
                        "\nwhen it ends it stays so until `lockstep volume start {name}`"
                    ));
                }
                return Err(failure);
            }
        }
    }
}

fn answers(name: &str) -> bool {
    let status = Client::of_volume(name).status();
    !matches!(status, Err(ClientError::NotRunning { .. }))
}
