//! `lockstep volume start`: the daemon, detached, and whether it lives.

use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane::daemons::launch;
use controlplane::daemons::stopped;
use controlplane::daemons::watch::START_LIMIT;
use controlplane_api::{Client, ClientError};

use crate::config;
use crate::failure::Failure;
use crate::programs;
use crate::screen;
use crate::style::Style;
use crate::verdict::Verdict;

const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(name: &str) -> Result<u8, Failure> {
    config::existing_path_of(name)?;
    let places = programs::places(name);
    let client = Client::of_volume(name);
    let turn = programs::turn(&places)?;
    // From here on it is wished that it runs, whatever comes of this start.
    stopped::clear(&places)?;
    match client.status() {
        Err(ClientError::NotRunning { .. }) => {}
        Ok(_) => {
            println!("the daemon of {name} runs already");
            return Ok(0);
        }
        Err(error) => return Err(Failure::of_volume(&error, name)),
    }
    let log_path = places.log();
    let log = programs::open_log(&log_path);
    let length = log.as_ref().and_then(|log| log.metadata().ok());
    let log_start = length.map_or(0, |metadata| metadata.len());
    let mut daemon = launch::start(&places, log).map_err(|error| programs::not_found(&error))?;
    let started = wait_until_it_answers(name, &client, &mut daemon, &log_path, log_start);
    drop(turn);
    started
}

fn wait_until_it_answers(
    name: &str,
    client: &Client,
    daemon: &mut Child,
    log_path: &Path,
    log_start: u64,
) -> Result<u8, Failure> {
    let begun = Instant::now();
    loop {
        if let Ok(status) = client.status() {
            print!(
                "{}",
                screen::headline(name, &Verdict::of(&status), Style::of_stdout())
            );
            return Ok(0);
        }
        if let Ok(Some(ended)) = daemon.try_wait() {
            let tail = programs::log_tail(log_path, log_start);
            let advice = format!("{tail}\n(from {})", log_path.display());
            return Err(Failure::new(
                "LS4008",
                format!("the daemon of {name} ended at its start ({ended})"),
                advice,
            ));
        }
        if begun.elapsed() > START_LIMIT {
            let advice = format!(
                "process {} still runs; look at {}",
                daemon.id(),
                log_path.display()
            );
            let message = format!(
                "the daemon of {name} does not answer {} s after its start",
                START_LIMIT.as_secs()
            );
            return Err(Failure::new("LS4003", message, advice));
        }
        sleep(POLL_INTERVAL);
    }
}
