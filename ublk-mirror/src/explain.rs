//! What every error of this program owes an operator: a stable code and what to do.

use std::error::Error;

use mirror_core::admin::Problem;

/// An error that an operator may see. `Display` says what, where and why.
pub trait Explain: Error {
    /// `LS` and four digits; stable.
    fn code(&self) -> &'static str;

    /// What to do.
    fn advice(&self) -> String;

    /// As the operator gets it, with the whole chain of causes.
    fn problem(&self) -> Problem {
        Problem {
            code: self.code().to_owned(),
            message: self.chain(),
            advice: self.advice(),
        }
    }

    /// The message and its causes in one line.
    fn chain(&self) -> String {
        with_causes(self.to_string(), self.source())
    }
}

/// `text` and the chain of causes in one line.
pub fn with_causes(mut text: String, mut cause: Option<&dyn Error>) -> String {
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
