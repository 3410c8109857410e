//! The disks of both nodes fail, one while the other is being left: no copy counts, and only an operator can go on.
//! He does what docs/operations.md says: he looks in the logs who failed last, stops the other node, forces that copy
//! and serves it. Everything that was acknowledged and flushed must be there. The other one comes back as the other side
//! of a split brain, is discarded, and filled.

use mirror_core::admin::{Command, CopyState, Done, LinkState, Notice, Outcome, Problem, Role};
use mirror_core::view::View;

use super::node::{id, name};
use super::resolve::{insist, serve_forced};
use super::run::peace_ms;
use super::world::World;

impl World {
    /// What the logs say of failed disks.
    pub(super) fn note_disk_failed(&mut self, node: usize, notice: &Notice) {
        let failed = matches!(
            notice,
            Notice::DiskFailed { .. } | Notice::MetadataFailed { .. }
        );
        if failed {
            let now = self.now;
            self.nodes[node].failed_at.get_or_insert(now);
        }
        // Where the metadata fail alone, the copy is given up with the mark that says so, and not before (ADR 0009).
        if matches!(notice, Notice::DiskFailed { .. }) {
            self.model.disk_failed(node);
        }
    }

    /// Whether both disks failed since their copies began to count, or one did while the other node dropped out, both work
    /// again, and both nodes say that nobody can go on.
    pub fn is_bereft(&self) -> bool {
        let quiet = !self.chaos && !self.split && self.desk.case.is_none();
        let works = |node: usize| {
            let data = &self.nodes[node].data;
            !data.failing && data.stuck_until <= self.now
        };
        let failed = (0..2).all(|node| {
            let counts = self.newest_view().insync.contains(id(node));
            self.nodes[node].failed_at.is_some() || !counts
        });
        if !quiet || !failed || !works(0) || !works(1) {
            return false;
        }
        let nobody = |problem: &Problem| problem.message.contains("neither side holds a copy");
        let last = self.failed_last();
        (0..2).all(|node| {
            self.status(node).is_some_and(|status| {
                let refused = status.link.state == LinkState::Refused;
                let told = self.nodes[1 - node].meta.peek().peer_failed;
                let known = told || status.copy == CopyState::Failed || node != last;
                let waits = refused && status.problems.iter().any(nobody);
                status.role == Role::Fenced && known && waits
            })
        })
    }

    /// What counts: a node that did not hear of a newer view may still take itself for one of it.
    fn newest_view(&self) -> View {
        let [one, two] = [0, 1].map(|node| self.nodes[node].view());
        if two.epoch > one.epoch { two } else { one }
    }

    /// The node whose disk failed last, of those that still counted.
    fn failed_last(&self) -> usize {
        let counts = self.newest_view().insync;
        if !counts.contains(id(0)) || !counts.contains(id(1)) {
            return usize::from(counts.contains(id(1)));
        }
        usize::from(self.nodes[1].failed_at > self.nodes[0].failed_at)
    }

    /// Whether both disks failed, this node's later: then it missed nothing that was acknowledged.
    pub(super) fn has_failed_last(&self, node: usize) -> bool {
        let both = self.nodes.iter().all(|place| place.failed_at.is_some());
        both && self.failed_last() == node
    }

    /// The operator's way out of it.
    pub fn force_what_failed_last(&mut self) {
        self.force_as_last(self.failed_last());
    }

    /// He takes this node for the one that failed last, rightly or not.
    pub fn force_as_last(&mut self, last: usize) {
        let other = 1 - last;
        self.count("both disks failed");
        self.note(|| format!("both disks failed, that of {last} is taken for the later one"));
        self.nodes[other].held_off = true;
        self.power_cut(other);
        let copy = self.status(last).map(|status| status.copy);
        if copy == Some(CopyState::InSync) {
            return self.take_over_what_failed_last(last);
        }
        let before = self.nodes[last].view().mark();
        let wanted = |_: &World| {
            Some(Command::Force {
                confirm: "data".to_string(),
            })
        };
        let over = |world: &World, answer: &Outcome| {
            let durable = world.nodes[last].view().mark() != before;
            matches!(answer, Ok(Done::Forced)) || durable
        };
        if !insist(self, last, wanted, over) {
            return self.fail(format!(
                "both disks failed, and {last} could not be recovered by force (I9)"
            ));
        }
        self.count("forced after both disks failed");
        // Its application is judged by everything that was acknowledged before.
        self.begin_split(last);
        self.both_alone = true;
        serve_forced(self, other, last);
    }

    /// It could not write down that it failed, and counts by its own view (LS1063): the other one knows it.
    fn take_over_what_failed_last(&mut self, last: usize) {
        let other = 1 - last;
        let wanted = |_: &World| {
            Some(Command::Takeover {
                confirm: format!("{} is off", name(other)),
            })
        };
        let over = |_: &World, answer: &Outcome| matches!(answer, Ok(Done::Active | Done::Alone));
        if !insist(self, last, wanted, over) {
            return self.fail(format!(
                "both disks failed, and {last}, which counts, could not take over (I9)"
            ));
        }
        self.count("took over after both disks failed");
        self.nodes[other].held_off = false;
        self.power_on(other);
        if !self.run_until(peace_ms(self), Self::healthy) {
            self.fail(format!(
                "{last} took over after both disks failed, and {other} is not filled (I9)"
            ));
        }
    }
}
