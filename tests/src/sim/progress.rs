//! Bounded progress (I9): one path that works is enough. What is frozen because the peer does not answer goes on
//! within the link timeout and a bound.

use mirror_core::admin::{CopyState, Frozen};

use super::node::MS;
use super::world::World;

/// As `life` sets it, without haste.
const LINK_TIMEOUT: u64 = 2000 * MS;
/// For dialling and the handshake, without haste.
const BOUND: u64 = 500 * MS;
/// For disks, which know no haste: what is under way ends, superblocks are written.
const DISK_BOUND: u64 = 500 * MS;

impl World {
    /// Something happened that may take a link timeout to get over.
    pub(super) fn disturb(&mut self) {
        self.disturbed = self.disturbed.max(self.now);
        self.expect_nothing();
    }

    /// For so long after the last fault somebody may be frozen although a path works, nanoseconds.
    pub fn freeze_bound(&self) -> u64 {
        (LINK_TIMEOUT + BOUND) / self.plan.haste + DISK_BOUND
    }

    pub(super) fn check_progress(&mut self) {
        let calm = self.now.saturating_sub(self.disturbed);
        let works = (0..self.plan.paths).any(|path| !self.network.is_cut(path));
        // Slow disks hold a handshake up for as long as they like; a refusal is no matter of paths.
        let excused = self.split || self.desk.split_expected || self.plan.slow_disk;
        if calm < self.freeze_bound() || !works || excused {
            return;
        }
        let both: Vec<_> = (0..2).filter_map(|node| self.status(node)).collect();
        let failed = both.iter().any(|status| status.copy == CopyState::Failed);
        if both.len() < 2 || failed {
            return;
        }
        for (node, status) in both.into_iter().enumerate() {
            // An operator's word may end a connection without any fault.
            let frozen = self.now.saturating_sub(self.nodes[node].frozen_at);
            if status.frozen == Some(Frozen::PeerLost) && frozen >= self.freeze_bound() {
                self.fail(format!(
                    "{} is frozen for {} ms, {} ms after the last fault, and a path works (I9)",
                    status.node,
                    frozen / MS,
                    calm / MS
                ));
            }
        }
    }
}
