//! Waits where the daemon is in the middle of something that is over soon.

use std::thread::sleep;
use std::time::{Duration, Instant};

use controlplane_api::ClientError;

/// A change of view takes a moment. So does each try of two nodes to meet, and two that have a split brain try all the time.
const LIMIT: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(100);
/// Another change of this volume is under way; nothing was changed.
const BUSY: &str = "LS1010";

/// Asks until the volume's daemon is not busy any more, for a while.
pub(crate) fn patiently<T>(
    name: &str,
    ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    within(
        LIMIT,
        || {
            // Not the answer: that goes to the standard output.
            let limit = LIMIT.as_secs();
            eprintln!("another change of {name} is under way; waiting for it, {limit} s at most");
        },
        ask,
    )
}

fn within<T>(
    limit: Duration,
    tell: impl FnOnce(),
    mut ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let began = Instant::now();
    let mut tell = Some(tell);
    loop {
        match ask() {
            Err(ClientError::Refused(problem))
                if problem.code == BUSY && began.elapsed() < limit =>
            {
                if let Some(tell) = tell.take() {
                    tell();
                }
                sleep(INTERVAL);
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror_core::admin::Problem;

    fn refused(code: &str) -> ClientError {
        ClientError::Refused(Problem {
            code: code.to_string(),
            message: String::new(),
            advice: String::new(),
        })
    }

    #[test]
    fn a_busy_daemon_is_asked_again_and_told_of_once() {
        let (mut asked, mut told) = (0, 0);
        let answer = within(
            LIMIT,
            || told += 1,
            || {
                asked += 1;
                if asked < 4 {
                    Err(refused(BUSY))
                } else {
                    Ok(asked)
                }
            },
        );
        assert_eq!((answer.expect("done"), told), (4, 1));
    }

    #[test]
    fn other_refusals_and_a_daemon_that_stays_busy_are_told() {
        let mut asked = 0;
        let other = within(
            LIMIT,
            || (),
            || {
                asked += 1;
                Err::<(), _>(refused("LS1004"))
            },
        );
        assert!(other.is_err());
        assert_eq!(asked, 1);
        let busy = within(INTERVAL, || (), || Err::<(), _>(refused(BUSY)));
        assert!(matches!(busy, Err(ClientError::Refused(problem)) if problem.code == BUSY));
    }
}
