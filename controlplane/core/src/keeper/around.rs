//! What a group that failed here needs to know before it moves by itself.

use super::{Keeper, VolumeFacts};
use crate::failing::{Around, Other};
use crate::failure_detector::Presence;
use crate::partition::Standing;

impl Keeper {
    /// Where the volumes are served, and how the other node is.
    pub fn around(&self) -> Around {
        let wished = &self.following.wished;
        let serves = |facts: VolumeFacts| facts.standing == Standing::Serving && !facts.changing;
        let served = self.unknown == 0 && self.facts().all(|(_, facts)| facts.is_some_and(serves));
        let every = |is: fn(VolumeFacts) -> bool| {
            let mut facts = self.facts();
            facts.all(|(_, facts)| facts.is_some_and(is))
        };
        let other = if self.peer != Presence::Alive || !every(|facts| facts.linked) {
            Other::Silent
        } else if wished.other_suspended {
            Other::Suspended
        } else if !every(|facts| !facts.alone) {
            Other::NotCurrent
        } else if !wished.agreed {
            Other::Untold
        } else {
            Other::Ready
        };
        Around {
            served,
            desire: wished.desire,
            other,
        }
    }
}
