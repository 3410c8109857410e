//! `lockstep volume verify`: begins or ends a comparison of both copies, and waits for its end.

use std::io::{IsTerminal, Write, stderr};
use std::thread::sleep;
use std::time::Duration;

use controlplane_api::Client;
use mirror_core::admin::{Command, VerifyStatus};

use crate::args::Verify;
use crate::failure::Failure;
use crate::verified;

const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// To the line's beginning, and clear it.
const CLEAR_LINE: &str = "\r\x1b[K";

pub(crate) fn run(verify: &Verify) -> Result<u8, Failure> {
    let name = verify.name.as_str();
    if verify.stop {
        return super::tell(name, Command::VerifyStop);
    }
    let code = super::tell(
        name,
        Command::Verify {
            repair: verify.repair || verify.repair_from.is_some(),
            repair_from: verify.repair_from.clone(),
            confirm: verify.confirm.clone().unwrap_or_default(),
        },
    )?;
    if !verify.wait {
        return Ok(code);
    }
    let found = wait(name)?;
    for line in verified::lines(&found) {
        println!("{line}");
    }
    Ok(u8::from(!verified::is_clean(&found)))
}

fn wait(name: &str) -> Result<VerifyStatus, Failure> {
    let client = Client::of_volume(name);
    let terminal = stderr().is_terminal();
    loop {
        let status = client
            .status()
            .map_err(|error| Failure::of_volume(&error, name))?;
        let Some(verify) = status.verify else {
            return Err(Failure::new(
                "LS4040",
                format!("the daemon of {name} was started anew: the verify is gone"),
                "begin it again",
            ));
        };
        if terminal {
            eprint!("{CLEAR_LINE}");
        }
        if verify.ended_ms.is_some() {
            return Ok(verify);
        }
        if terminal {
            eprint!("{}", verified::headline(&verify));
            let _ = stderr().flush();
        }
        sleep(POLL_INTERVAL);
    }
}
