//! `lockstep volume start`: the daemon, detached, and whether it lives.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane::daemons::stopped;
use controlplane::daemons::watch::START_LIMIT;
use controlplane::daemons::{Places, launch};
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
    let log = programs::open_log(&places.log());
    // Of the file that is there, whether it can be written to or not: what it says is of an earlier run.
    let log_start = fs::metadata(places.log()).map_or(0, |log| log.len());
    let mut daemon = launch::start(&places, log).map_err(|error| programs::not_found(&error))?;
    let started = wait_until_it_answers(name, &client, &mut daemon, &places, log_start);
    drop(turn);
    started
}

fn wait_until_it_answers(
    name: &str,
    client: &Client,
    daemon: &mut Child,
    places: &Places,
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
            let advice = programs::why_it_ended(places, daemon, log_start);
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
                places.log().display()
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
