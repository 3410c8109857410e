//! What the person at the terminal sees: a story, one line a step.
//!
//! On a terminal the running step turns a wheel; in a log every step is a plain line.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

/// A step that takes a while. Say how it ended with [`Step::done`]; dropping it says "failed".
pub struct Step {
    title: String,
    bar: Option<ProgressBar>,
    start: Instant,
    ended: bool,
}

/// Begins a step.
#[must_use]
pub fn step(title: impl Into<String>) -> Step {
    let title = title.into();
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner().with_message(title.clone());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        bar
    });
    if bar.is_none() {
        eprintln!("  {title} ...");
    }
    Step {
        title,
        bar,
        start: Instant::now(),
        ended: false,
    }
}

impl Step {
    /// Ends the step well.
    pub fn done(mut self) {
        self.end("ok");
    }

    /// Ends the step well and says what came out.
    pub fn done_with(mut self, outcome: &str) {
        self.end(outcome);
    }

    /// Says how far it is; only the wheel shows it.
    pub fn update(&self, how_far: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {how_far}", self.title));
        }
    }

    fn end(&mut self, outcome: &str) {
        self.ended = true;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        eprintln!(
            "  {}: {outcome} ({:.1} s)",
            self.title,
            self.start.elapsed().as_secs_f32()
        );
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("failed");
        }
    }
}

/// One line of the story.
pub fn say(line: impl AsRef<str>) {
    eprintln!("  {}", line.as_ref());
}
