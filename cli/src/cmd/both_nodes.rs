//! Waits until both nodes have come to what `lockstepd` goes on to by itself.

use std::io::{Write, stderr, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::cmd::volume::status::Form;
use crate::failure::Failure;
use crate::http::{HttpError, get};

/// A node that cannot be reached takes this long to say so.
pub(crate) const SHOW_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A `lockstepd` that begins anew has so long to answer again.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// What is waited for, and what is said where it does not come.
pub(crate) struct Awaited<'a> {
    /// Where the control plane tells of both nodes.
    pub(crate) path: &'a str,
    /// No longer than this.
    pub(crate) patience: Duration,
    /// Where the progress goes: the answer alone goes to the standard output as JSON.
    pub(crate) form: Form,
    /// What the screen says while nobody answers here.
    pub(crate) silent: &'a str,
    /// Nobody answered for too long.
    pub(crate) undecided: fn(&HttpError) -> Failure,
}

impl Awaited<'_> {
    /// Looks until `going` has nothing more to say, and gives what was seen then; `late` makes the error of what it said last.
    /// Blocks.
    ///
    /// # Errors
    /// `late`, or [`Self::undecided`] after 30 s without an answer.
    pub(crate) fn until<T: DeserializeOwned>(
        &self,
        going: impl Fn(&T) -> Option<String>,
        late: impl FnOnce(&str) -> Failure,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let mut heard = began;
        let mut last = String::new();
        loop {
            let said = match get::<T>(self.path, SHOW_TIMEOUT) {
                Ok(shown) => {
                    heard = Instant::now();
                    match going(&shown) {
                        None => return Ok(shown),
                        Some(said) => said,
                    }
                }
                Err(error) if heard.elapsed() > SILENT_MAX => {
                    return Err((self.undecided)(&error));
                }
                Err(_) => self.silent.to_string(),
            };
            if said != last {
                self.tell(&format!("  {:>3} s  {said}\n", began.elapsed().as_secs()));
                last = said;
            }
            if began.elapsed() > self.patience {
                return Err(late(&last));
            }
            sleep(LOOK_INTERVAL);
        }
    }

    /// A reader that went away does not end the wait.
    fn tell(&self, text: &str) {
        let _ = match self.form {
            Form::Screen => stdout().write_all(text.as_bytes()),
            Form::Json => stderr().write_all(text.as_bytes()),
        };
    }
}
