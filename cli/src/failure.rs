//! Why a command was not carried out, as the operator reads it.

use std::fmt;
use std::io;
use std::path::Path;

use controlplane_api::ClientError;
use mirror_core::admin::Problem;

/// A problem and the exit code it ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) exit_code: u8,
}

impl Failure {
    /// Refused or failed: exit code 1. `code` is in docs/codes.md.
    pub(crate) fn new(code: &str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        let problem = Problem {
            code: code.to_string(),
            message: message.into(),
            advice: advice.into(),
        };
        Self {
            problem,
            exit_code: 1,
        }
    }

    /// A file or program of this node could not be used.
    pub(crate) fn file(path: &Path, what: &str, error: &io::Error) -> Self {
        let advice = if error.kind() == io::ErrorKind::PermissionDenied {
            "run the command as root"
        } else {
            "see that the file system is there and has room, then repeat the command"
        };
        Self::new(
            "LS4010",
            format!("cannot {what} {}: {error}", path.display()),
            advice,
        )
    }

    pub(crate) fn of_volume(error: &ClientError, volume: &str) -> Self {
        let mut problem = error.problem();
        problem.advice = with_name(&problem.advice, volume);
        Self {
            problem,
            exit_code: 1,
        }
    }
}

/// Advice speaks of `NAME`; here the name is known, so that the command can be copied.
pub(crate) fn with_name(advice: &str, volume: &str) -> String {
    advice
        .replace(" NAME", &format!(" {volume}"))
        .replace("/NAME.", &format!("/{volume}."))
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            exit_code: 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            code,
            message,
            advice,
        } = &self.problem;
        write!(f, "{code} {message}")?;
        for line in advice.lines() {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_volume() {
        let advice = with_name(
            "run `lockstep volume takeover NAME`, see /var/log/lockstep/NAME.log",
            "data",
        );
        assert_eq!(
            advice,
            "run `lockstep volume takeover data`, see /var/log/lockstep/data.log"
        );
    }

    #[test]
    fn a_failure_is_code_and_what_then_what_to_do() {
        let failure = Failure::new("LS1008", "the device is mounted", "unmount it");
        assert_eq!(
            failure.to_string(),
            "LS1008 the device is mounted\n  unmount it"
        );
    }
}
