//! A view whose active node does not count: only with a word that a disk failed.

use super::DecodeError;
use crate::view::View;

/// `failed`: what comes with the view says that a disk failed.
pub(super) fn checked(view: View, failed: bool) -> Result<View, DecodeError> {
    if view.active_counts() || failed {
        Ok(view)
    } else {
        Err(DecodeError::Value("view.insync"))
    }
}
