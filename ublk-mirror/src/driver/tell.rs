//! The core's words in the log.

use mirror_core::notice::{Level, Notice};

pub(super) fn tell(notice: &Notice) {
    let problem = notice.problem();
    let (code, message, advice) = (problem.code, problem.message, problem.advice);
    match notice.level() {
        Level::Info => tracing::info!(code, "{message}"),
        Level::Warning => tracing::warn!(code, advice, "{message}"),
        Level::Error => tracing::error!(code, advice, "{message}"),
    }
}

pub(super) fn tell_signal(name: &str, outcome: &mirror_core::admin::Outcome) {
    match outcome {
        Ok(_) => tracing::info!(signal = name, "the daemon ends"),
        Err(refusal) => {
            let problem = refusal.problem();
            let (code, message, advice) = (problem.code, problem.message, problem.advice);
            tracing::warn!(signal = name, code, advice, "the daemon goes on: {message}");
        }
    }
}
