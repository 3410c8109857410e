//! Old disks: somebody puts the disks that a machine had some time ago into it again.

use mirror_core::disk::{CopyRole, Superblock};
use mirror_core::types::NodeSet;

use super::metadata::MetaDisk;
use super::world::World;

/// Old disks that are kept of a node.
const KEPT_MAX: usize = 3;

/// Whether the views tell that a copy is an old one: the other node serves alone, and remembers from a later
/// view on. (A member's older disk under the same view is nothing that anybody could notice.)
fn is_known_as_old(old: &Superblock, other: &Superblock) -> bool {
    let (node, peer) = (old.node, other.node);
    if !other.view.is_sole(peer) || !other.history.contains(old.view.mark()) {
        return false;
    }
    let both = NodeSet::only(node).with(peer);
    match old.copy {
        None => old.view.insync == both && old.view.epoch < other.base.epoch,
        Some(copy) => copy.role == CopyRole::Target && copy.id != other.lineage,
    }
}

impl World {
    /// The power of a node has gone: its disks may come back one day.
    pub(super) fn keep_disks(&mut self, node: usize) {
        if !self.plan.habits.old_disks || !self.rng.percent(70) {
            return;
        }
        let place = &mut self.nodes[node];
        let disks = (place.data.media().to_vec(), place.meta.clone());
        place.old_disks.push(disks);
        if place.old_disks.len() > KEPT_MAX {
            place.old_disks.remove(0);
        }
    }

    /// The power of a node comes back, perhaps with old disks.
    pub(super) fn old_disks_return(&mut self, node: usize) {
        let other = &self.nodes[1 - node].meta;
        if !self.chaos || other.persists() {
            return;
        }
        let kept = &self.nodes[node].old_disks;
        let known = |(_, meta): &(_, MetaDisk)| is_known_as_old(meta.peek(), other.peek());
        let Some(place) = kept.iter().rposition(known) else {
            return;
        };
        // A source that does not know of any resync is no test of one that knows of another.
        let unknown = other.peek().lineage.is_none() && kept[place].1.peek().copy.is_some();
        if !self.rng.percent(if unknown { 10 } else { 70 }) {
            return;
        }
        let (data, meta) = self.nodes[node].old_disks.swap_remove(place);
        self.note(|| format!("{node} has old disks: {:?}", meta.peek()));
        let target = meta.peek().copy.is_some();
        self.count(if target {
            "old disks of a target"
        } else {
            "old disks of a member"
        });
        self.nodes[node].data.replace(&data);
        self.nodes[node].meta = meta;
        self.care.aside.forget(node);
        self.check_cover("old disks");
    }
}
