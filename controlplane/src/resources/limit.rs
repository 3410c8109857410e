//! Until when an action may work, and whether it was broken off before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ResourceError;

/// Between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(20);

/// The time of one action.
#[derive(Clone, Debug)]
pub struct Limit {
    began: Instant,
    until: Instant,
    cut: Arc<AtomicBool>,
}

impl Limit {
    /// From now on; `cut` breaks it off.
    pub fn new(time: Duration, cut: Arc<AtomicBool>) -> Self {
        let began = Instant::now();
        Self {
            began,
            until: began + time,
            cut,
        }
    }

    /// That much and no more, within this one.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self {
            until: self.until.min(Instant::now() + time),
            ..self.clone()
        }
    }

    /// Half of what is left: the other half is for killing.
    #[must_use]
    pub fn half(&self) -> Self {
        self.within(self.left() / 2)
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether work may go on.
    ///
    /// # Errors
    /// [`ResourceError::Late`] or [`ResourceError::Cut`].
    pub fn check(&self) -> Result<(), ResourceError> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(ResourceError::Cut);
        }
        if Instant::now() >= self.until {
            let after = self.until.saturating_duration_since(self.began);
            return Err(ResourceError::Late { after });
        }
        Ok(())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// As [`Self::check`], or what the look says.
    pub fn wait_until(
        &self,
        mut is: impl FnMut() -> Result<bool, ResourceError>,
    ) -> Result<(), ResourceError> {
        loop {
            if is()? {
                return Ok(());
            }
            self.check()?;
            thread::sleep(LOOK);
        }
    }
}
