//! Other disks: somebody puts the disks that a machine had some time ago into it again, or new ones.

use mirror_core::disk::{CopyRole, Superblock};
use mirror_core::types::{CopyId, NodeSet};

use super::disk::Value;
use super::metadata::MetaDisk;
use super::node::format;
use super::world::World;

/// Old disks that are kept of a node.
const KEPT_MAX: usize = 3;

/// Whether the views tell that a copy is an old one: the other node remembers from a later moment on, and has all
/// that counts. (A member's older disk under a view that still holds is nothing that anybody could notice.)
fn is_known_as_old(old: &Superblock, present: &Superblock, other: &Superblock) -> bool {
    let (node, peer) = (old.node, other.node);
    if !other.history.contains(old.view.mark()) {
        return false;
    }
    let both = NodeSet::only(node).with(peer);
    let knows_another = |copy: CopyId| copy != other.lineage;
    if other.view.is_sole(peer) {
        // Another copy is being filled, or the old one counted before the one of which this node remembers.
        let before = old.view.epoch < other.base.epoch;
        let replaced = old.view.mark() == other.base && !other.lineage.is_none();
        return match old.copy {
            // One that left before without being filled since, too.
            None if old.view.is_sole(peer) => before || !other.lineage.is_none(),
            None => old.view.insync == both && (before || replaced),
            Some(copy) => copy.role == CopyRole::Target && knows_another(copy.id),
        };
    }
    // Both count, and the disks that are taken away never went alone: what they hold, the other copy holds.
    let told = other.view.insync == both && present.view.mark() == other.view.mark();
    told && match old.copy {
        // A copy that counted before the other one was alone, or that left without being filled since.
        None => {
            old.view.epoch <= other.base.epoch && old.view.insync == both || old.view.is_sole(peer)
        }
        Some(copy) => copy.role == CopyRole::Target && knows_another(copy.id),
    }
}

impl World {
    /// Whether a node holds old disks of a member, by the views, and the other one counts both: what it has is no copy
    /// until both have met. No operator serves it (the other side's status names the view), and the other disk is the last.
    pub(super) fn has_old_disks(&self, node: usize) -> bool {
        let (own, other) = (
            self.nodes[node].meta.peek(),
            self.nodes[1 - node].meta.peek(),
        );
        let later = own.view.mark() != other.view.mark() && other.history.contains(own.view.mark());
        let superseded = later && other.base.epoch >= own.view.epoch;
        other.view.insync.len() == 2 && (superseded || own.volume_id.is_none())
    }

    /// Nothing is wrong with the disk of a node, nor is anything known to have been.
    fn is_well(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        let known = |superblock: &Superblock| superblock.failed || superblock.peer_failed;
        let (data, now) = (&place.data, self.now);
        let sticks = data.stuck_until > now || place.meta.stuck_until > now;
        let fails = data.failing || data.dead || data.forgets || place.meta.failing;
        let told = self.nodes.iter().any(|place| known(place.meta.peek()));
        !sticks && !fails && !told && !place.worth.disowned
    }

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

    /// The power of a node comes back, perhaps with other disks.
    pub(super) fn other_disks_come(&mut self, node: usize) {
        let (present, other) = (&self.nodes[node].meta, &self.nodes[1 - node].meta);
        if !self.chaos || other.persists() || present.persists() {
            return;
        }
        if self.plan.habits.old_disks && self.rng.percent(8) && self.may_be_replaced(node) {
            self.new_disks(node);
        } else {
            self.old_disks_return(node);
        }
    }

    /// Whether the other node has all that counts, on disks that are well, and may be a source.
    fn may_be_replaced(&self, node: usize) -> bool {
        let (own, other) = (
            self.nodes[node].meta.peek(),
            self.nodes[1 - node].meta.peek(),
        );
        let (peer, mark) = (other.node, own.view.mark());
        let counts = other.view.insync.contains(peer) && !other.invalidated;
        let one_history = mark == other.view.mark() || other.history.contains(mark);
        let has_all = other.view.is_sole(peer) || mark == other.view.mark();
        let free = other.isolation.own.is_none() && self.is_well(1 - node);
        counts && one_history && has_all && free
    }

    /// The machine, which is off, has new ones.
    pub(super) fn new_disks(&mut self, node: usize) {
        self.note(|| format!("{node} has new disks"));
        self.count("new disks");
        let size_sectors = self.nodes[1 - node].meta.peek().size_sectors;
        let boot = self.nodes[node].boot;
        let mut blank = format(&mut self.rng, node, &self.plan, None, boot);
        blank.size_sectors = blank.size_sectors.max(size_sectors);
        let place = &mut self.nodes[node];
        place.old_disks.clear();
        place.data.spoil();
        let garbage = place.data.media().to_vec();
        self.put_in(node, &garbage, MetaDisk::new(&blank));
        self.check_cover("new disks");
    }

    fn old_disks_return(&mut self, node: usize) {
        let (present, other) = (&self.nodes[node].meta, &self.nodes[1 - node].meta);
        if other.peek().view.insync.len() == 2 && !self.is_well(1 - node) {
            // The disks that are taken away may be the last good ones.
            return;
        }
        let kept = &self.nodes[node].old_disks;
        let known =
            |(_, meta): &(_, MetaDisk)| is_known_as_old(meta.peek(), present.peek(), other.peek());
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
        if self.nodes[1 - node].meta.peek().view.insync.len() == 2 {
            self.count("old disks for a member");
        }
        self.count(if target {
            "old disks of a target"
        } else {
            "old disks of a member"
        });
        self.put_in(node, &data, meta);
        self.check_cover("old disks");
    }

    /// These disks are in the machine now, which is off.
    pub(super) fn put_in(&mut self, node: usize, data: &[Value], meta: MetaDisk) {
        let place = &mut self.nodes[node];
        place.data.replace(data);
        place.isolated.other_disks(meta.peek(), data);
        place.meta = meta;
        // Nothing is under way on a disk that was taken out.
        place.meta.fail();
        self.care.aside.forget(node);
    }
}
