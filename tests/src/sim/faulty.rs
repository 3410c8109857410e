//! Disks that fail: changes and flushes end with an error until somebody mends the disk and starts the
//! daemon again.

use mirror_core::admin::{Command, CopyState, Role};

use super::node::{MS, Node, id};
use super::world::{Happening, World};

impl World {
    /// The disk of a node fails for a while. Never the only copy that counts, and one disk at a time: what
    /// nobody has cannot be served. But a disk that answers again may still be behind, and be given up a little
    /// later: then both have failed (`bereft`).
    pub(super) fn disk_fails(&mut self, node: usize, millis: u64) {
        let both = self.nodes.iter().all(|node| node.view().insync.len() == 2);
        let now = self.now;
        let faulty = |node: &Node| node.data.failing || node.data.stuck_until > now;
        let other = self.nodes.iter().any(faulty);
        let failed = (0..2).any(|node| {
            let superblock = self.nodes[node].meta.peek();
            superblock.failed || superblock.peer_failed
        });
        if !both || other || failed || self.has_old_disks(1 - node) {
            return;
        }
        self.note(|| format!("{node} the disk fails"));
        self.count("disk fails");
        self.nodes[node].data.failing = true;
        // Often both are on the same disk. Not on the active node: if its daemon were killed then, with the
        // link down, nobody would know of the failure.
        let standby = self.nodes[node].device.is_none();
        self.nodes[node].meta.failing = standby && self.rng.percent(60);
        self.at(
            millis * MS / self.plan.haste,
            Happening::DiskMended { node },
        );
    }

    /// The disk fails, and with its first error it loses what it had not flushed: what it reads from then on, also
    /// for reads that are under way, is what it held before.
    pub(super) fn disk_forgets(&mut self, node: usize, millis: u64) {
        let before = self.nodes[node].data.failing;
        self.disk_fails(node, millis);
        let place = &mut self.nodes[node];
        if place.data.failing && !before {
            // Whoever knows of it can write that down: what nobody knows, nobody can mend.
            place.meta.failing = false;
            place.data.forgets = true;
        }
    }

    /// The disk reports an error.
    pub(super) fn goes_back(&mut self, node: usize) {
        if core::mem::take(&mut self.nodes[node].data.forgets) {
            self.nodes[node].data.go_back();
            self.count("disk went back");
            self.note(|| format!("{node} the disk has lost what was not flushed"));
        }
    }

    /// The disk works again; a daemon that saw it fail is started anew, once it does not serve any more.
    pub(super) fn disk_mended(&mut self, node: usize) {
        self.expect_nothing();
        self.nodes[node].data.failing = false;
        self.nodes[node].data.dead = false;
        self.nodes[node].data.forgets = false;
        if self.chaos {
            self.nodes[node].data.unreadable.clear();
            self.nodes[node].data.flaky_until = 0;
        }
        self.nodes[node].meta.failing = false;
        let status = self.status(node);
        let failed = status.as_ref().filter(|it| it.copy == CopyState::Failed);
        let known = self.nodes[node].meta.peek().failed || self.nodes[node].worth.disowned;
        let unknown = self.nodes[node].data.went_back && !known;
        // Metadata that fail say nothing of the disk.
        let heard = failed.is_some_and(|it| it.problems.iter().any(|it| it.code == "LS3001"));
        if unknown && !heard {
            return self.comes_back_with_a_boot(node);
        }
        let Some(status) = failed else {
            return;
        };
        if unknown {
            // It is being written down.
            return self.at(10 * MS, Happening::DiskMended { node });
        }
        if status.role == Role::Fenced {
            self.count("daemon started on a mended disk");
            self.kill(node);
            self.at(50 * MS, Happening::Start { node });
            return;
        }
        self.command(node, Command::Deactivate { force: true });
        self.at(500 * MS, Happening::DiskMended { node });
    }

    /// The daemon that saw the disk fail was killed before that was written down anywhere, and nobody looked at the disk
    /// since; or a flush failed that a killed daemon had asked for. What nobody knows, nobody can mend: such a disk comes back
    /// with a boot, of which both nodes know (S11). Without one it is not noticed (docs/failure-model.md).
    fn comes_back_with_a_boot(&mut self, node: usize) {
        self.count("disk that forgot unseen came back with a boot");
        self.power_cut(node);
        self.at(50 * MS, Happening::PowerOn { node });
    }

    /// A flush fails that a killed daemon had asked for: the next one does not know of it either.
    pub(super) fn nobody_hears(&mut self, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            self.count("flush failed unheard");
            self.nodes[node].data.went_back = true;
        }
    }

    /// Who had no disk and served through this node is gone: some operators do not wait.
    pub(super) fn hurry(&mut self, node: usize) {
        let view = self.nodes[node].view();
        let through = view.is_sole(id(node)) && view.active == Some(id(1 - node));
        if self.chaos && through && self.rng.percent(60) {
            self.count("hurried activations");
            self.ask_for(node, Command::Activate);
        }
    }

    /// The only copy that counts must not fail.
    pub(super) fn spare_the_last_disk(&mut self, node: usize) {
        self.disk_answers(node);
        self.nodes[node].data.failing = false;
        self.nodes[node].data.dead = false;
        self.nodes[node].data.forgets = false;
        self.nodes[node].meta.failing = false;
    }
}
