//! What an operator should know, into the log: the code, what happened, and what to do.

use mirror_core::admin::Outcome;
use mirror_core::notice::{Level, Notice};

/// As loud as the notice is.
pub(crate) fn tell(notice: &Notice) {
    let problem = notice.problem();
    let (code, message, advice) = (problem.code, problem.message, problem.advice);
    match notice.level() {
        Level::Info => tracing::info!(code, "{message}"),
        Level::Warning => tracing::warn!(code, advice, "{message}"),
        Level::Error => tracing::error!(code, advice, "{message}"),
    }
}

/// What became of a signal that ends the daemon.
pub(crate) fn tell_signal(name: &str, outcome: &Outcome) {
    match outcome {
        Ok(_) => tracing::info!(signal = name, "the daemon ends"),
        Err(refusal) => {
            let problem = refusal.problem();
            let (code, message, advice) = (problem.code, problem.message, problem.advice);
            tracing::warn!(signal = name, code, advice, "the daemon goes on: {message}");
        }
    }
}
