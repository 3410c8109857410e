//! Connections that prove nothing: they must not scroll the tokens off the operator's screen.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// So many addresses are told one by one; an attacker may have any number of them.
const ADDRESSES_MAX: usize = 8;

/// Who came without anything.
#[derive(Default)]
pub(super) struct Strangers {
    told: BTreeSet<IpAddr>,
    since: u64,
}

impl Strangers {
    /// One more; whether it is worth a word of its own.
    pub(super) fn came(&mut self, from: IpAddr) -> bool {
        self.since += 1;
        self.told.len() < ADDRESSES_MAX && self.told.insert(from)
    }

    /// How many came since this was asked last.
    pub(super) fn since(&mut self) -> u64 {
        std::mem::take(&mut self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_once_and_not_too_many_of_them() {
        let mut strangers = Strangers::default();
        let told = (0..=255).filter(|&last| {
            let from = IpAddr::from([10, 0, 0, last]);
            let first = strangers.came(from);
            assert!(!strangers.came(from));
            first
        });
        assert_eq!(told.count(), ADDRESSES_MAX);
        assert_eq!((strangers.since(), strangers.since()), (512, 0));
    }
}
