//! Words of a control plane that was granted a view by an arbiter.

use alloc::string::{String, ToString};

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, ViewId};
use crate::view::ViewMark;

/// A view's mark, as the admin socket carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewName {
    /// Its epoch.
    pub epoch: u64,
    /// Its id, 32 hexadecimal digits.
    pub id: String,
}

impl From<ViewMark> for ViewName {
    fn from(mark: ViewMark) -> Self {
        Self {
            epoch: mark.epoch.0,
            id: mark.id.to_string(),
        }
    }
}

impl ViewName {
    /// The mark; `None` if the id is no id.
    pub fn mark(&self) -> Option<ViewMark> {
        let digits = self.id.len() == 32 && self.id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(&self.id, 16).ok().filter(|_| digits)?;
        Some(ViewMark {
            epoch: Epoch(self.epoch),
            id: ViewId(id.to_be_bytes()),
        })
    }
}
