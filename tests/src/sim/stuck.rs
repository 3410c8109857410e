//! Disks that do not answer for a while, and then carry out whatever was asked of them, in any order.
//!
//! A daemon gives up what takes longer than its limit (I15): exactly once, not before, and not because it
//! stood still itself. What was given up is still under way here: a write changes the disk when it lands, a
//! read fills the memory that it was given.

use std::time::Duration;

use mirror_core::admin::{CopyState, LinkState, Problem};
use mirror_core::event::IoOwner;
use mirror_core::limits::PEER_BUFFERS;
use mirror_core::types::Tag;

use super::faults::{Kind, Trouble};
use super::node::MS;
use super::rng::Rng;
use super::world::{Happening, Mutant, World};

/// Longer than the slowest disk here takes that is well.
pub(super) const LIMIT: Duration = Duration::from_millis(1500);
const LIMIT_MS: u64 = 1500;
/// A second look, and clocks that go wrong.
const GRACE_MS: u64 = LIMIT_MS / 8 + LIMIT_MS / 16;
/// A disk that answers again does so within this.
const BACKLOG_US: u64 = 200_000;

/// Some runs have disks that stick, by chances of their own: the others stay as they are.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x7374_7563_6b20);
    let mut troubles = Vec::new();
    let mut at = millis.start * MS;
    while seed % 6 == 4 && at < millis.end * MS {
        at += rng.between(50 * MS, 8000 * MS) / haste;
        let mut dice = Rng::new(rng.bits());
        let node = dice.index(2);
        troubles.push(Trouble::at(at, Kind::DiskSticks, node, dice));
    }
    troubles
}

impl World {
    /// A disk does not answer for a while. Never the only copy that counts, and one disk at a time, as `disk_fails`.
    pub(super) fn disk_sticks(&mut self, node: usize, dice: &mut Rng) {
        let both = self.nodes.iter().all(|node| node.view().insync.len() == 2);
        let now = self.now;
        let other = self.nodes.iter().any(|node| {
            let failed = node.meta.peek().failed || node.meta.peek().peer_failed;
            node.data.failing || node.data.stuck_until > now || failed
        });
        if !both || other || self.has_old_disks(1 - node) {
            return;
        }
        self.count("disk sticks");
        let millis = if dice.percent(30) {
            dice.between(50, LIMIT_MS)
        } else {
            dice.between(LIMIT_MS, 4 * LIMIT_MS)
        };
        let share = if dice.percent(60) { 100 } else { 30 };
        // Often both are on the same disk.
        self.stick(node, millis, dice.percent(40));
        self.nodes[node].data.stuck_share = share;
        let after = dice.between(0, 2000 * MS) / self.plan.haste;
        self.at(millis * MS + after, Happening::DiskMended { node });
    }

    /// The disk of a node does not answer for so long, nor its metadata device if `both`.
    pub fn stick(&mut self, node: usize, millis: u64, both: bool) {
        self.note(|| format!("{node} the disk does not answer for {millis} ms"));
        let until = self.now + millis * MS;
        let place = &mut self.nodes[node];
        place.data.stuck_until = until;
        place.data.stuck_share = 100;
        if both {
            place.meta.stuck_until = until;
            self.count("metadata sticks");
        }
        self.disturbed = self.disturbed.max(until);
    }

    /// The disk answers again.
    pub(super) fn disk_answers(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        // What it was asked for while it stuck may still be under way.
        let behind = place.data.stuck_until + BACKLOG_US * 1000 > self.now;
        place.data.stuck_until = place.data.stuck_until.min(self.now);
        place.meta.stuck_until = place.meta.stuck_until.min(self.now);
        if !behind {
            return;
        }
        let Some(process) = place.process.as_ref().map(|process| process.number) else {
            return;
        };
        let boot = place.boots;
        let running = place.data.running.iter();
        let tickets: Vec<u64> = running.map(|running| running.ticket).collect();
        for ticket in tickets {
            let after = self.micros(0, 1000);
            self.at(
                after,
                Happening::DiskEnd {
                    node,
                    boot,
                    process,
                    ticket,
                },
            );
        }
    }

    /// Whether the kernel still has operations of a daemon that is gone: it gives the device to nobody.
    pub(super) fn is_held_by_the_dead(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        let data = &place.data;
        let idle = data.running.is_empty() && data.late.is_empty();
        let meta = place.meta.stuck_until > self.now;
        (!idle && self.plan.mutant != Some(Mutant::StartsOverStuck)) || meta
    }

    pub(super) fn note_begin(&mut self, node: usize, owner: IoOwner) {
        let now = self.now;
        let place = &mut self.nodes[node];
        let memory = match (owner, place.process.as_ref()) {
            (IoOwner::Application(Tag(tag)), Some(process)) => process.memory[usize::from(tag)],
            _ => 0,
        };
        if let Some(running) = place.data.running.last_mut() {
            running.began = now;
            running.memory = memory;
        }
    }

    /// It is time for an operation to end, if the disk answers.
    pub(super) fn disk_comes_to_an_end(
        &mut self,
        node: usize,
        boot: u64,
        process: u64,
        ticket: u64,
    ) {
        let gone = self.nodes[node].boots != boot || !self.nodes[node].power;
        if gone
            || self.holds_back(node, boot, process, ticket)
            || self.ends_late(node, process, ticket)
        {
            return;
        }
        self.disk_end(node, process, ticket);
    }

    /// Whether the disk does not answer now; what it was asked for ends later.
    fn holds_back(&mut self, node: usize, boot: u64, process: u64, ticket: u64) -> bool {
        let data = &self.nodes[node].data;
        let (until, share) = (data.stuck_until, data.stuck_share);
        let mut known = data.running.iter().chain(&data.late);
        if self.now >= until || !known.any(|running| running.ticket == ticket) {
            return false;
        }
        // The same one stays held back.
        if ticket % 100 >= share {
            return false;
        }
        self.count("operations held back");
        let after = until - self.now + self.micros(0, BACKLOG_US);
        self.at(
            after,
            Happening::DiskEnd {
                node,
                boot,
                process,
                ticket,
            },
        );
        true
    }

    /// An operation has ended that was given up. Nobody is told.
    fn ends_late(&mut self, node: usize, process: u64, ticket: u64) -> bool {
        self.must_have_been_given_up(node, process, ticket);
        let Some((running, read)) = self.nodes[node].data.finish_late(ticket) else {
            return false;
        };
        self.note(|| {
            format!(
                "{node} late end of {:?} {:?} {:?}",
                running.owner, running.operation, running.range
            )
        });
        if running.changes() {
            self.count("late write");
            let place = usize::try_from(running.range.start).unwrap_or(0);
            let value = self.nodes[node].data.content[place];
            self.model.landed(node, value);
            self.overwritten(node, running.range);
        }
        if !self.nodes[node].process_is(process) {
            return true;
        }
        if !read.is_empty() {
            self.late_read(node, &running.owner, running.memory);
        }
        self.late_write_from(node, &running);
        if let IoOwner::Peer(slot) = running.owner
            && slot < PEER_BUFFERS
        {
            self.late_write(node, slot, running.release);
        }
        true
    }

    /// What was written came from a receive buffer, which had to wait for this.
    fn late_write(&mut self, node: usize, slot: u16, waited: bool) {
        if !waited {
            self.fail(format!(
                "{node}: receive buffer {slot} was free for others while a write that was given up used it (I15)"
            ));
        } else if let Some(process) = self.nodes[node].process.as_mut() {
            process.receive[usize::from(slot)] = None;
            self.count("receive buffer freed by a late end");
        }
    }

    /// What was read fills the memory that it was given: nobody else may have that by now.
    fn late_read(&mut self, node: usize, owner: &IoOwner, memory: u64) {
        self.count("late read");
        if let (IoOwner::Application(Tag(tag)), Some(process)) =
            (owner, self.nodes[node].process.as_ref())
            && process.memory[usize::from(*tag)] == memory
        {
            self.fail(format!(
                "{node}: a read that was given up fills the memory of tag {tag}, which is in use again (I15)"
            ));
        }
    }

    fn must_have_been_given_up(&mut self, node: usize, process: u64, ticket: u64) {
        let place = &self.nodes[node];
        let mut running = place.data.running.iter();
        let Some(began) = running
            .find(|running| running.ticket == ticket)
            .map(|running| running.began)
        else {
            return;
        };
        let overdue = self.now - began > (LIMIT_MS + GRACE_MS) * MS;
        if overdue && place.process_is(process) && place.paused_until < began {
            let millis = (self.now - began) / MS;
            self.fail(format!(
                "{node}: a disk operation was waited for for {millis} ms (I15)"
            ));
        }
    }

    /// The core gives an operation up.
    pub(super) fn give_up(&mut self, node: usize, process: u64, owner: IoOwner) {
        self.note(|| format!("{node} gives up {owner:?}"));
        self.count("operations given up");
        let answers = self.now > self.nodes[node].data.stuck_until + BACKLOG_US * 1000;
        // What it had not flushed is in doubt, as after any error of a disk.
        self.model.power_cut(node);
        let data = &mut self.nodes[node].data;
        let mut running = data.running.iter();
        let Some(position) = running.position(|running| running.owner == owner) else {
            return self.fail(format!(
                "{node}: {owner:?} is given up, and nothing of it is under way (I15)"
            ));
        };
        let running = data.running.remove(position);
        data.late.push(running);
        data.given_up_by = process;
        if answers {
            return self.fail(format!(
                "{node}: {owner:?} is given up, and the disk answers (I15)"
            ));
        }
        self.read_put_aside(node, owner);
    }

    /// Whether the running daemon has given this disk up.
    pub(super) fn is_given_up(&self, node: usize) -> bool {
        let place = &self.nodes[node];
        place.data.given_up_by > 0 && place.process_is(place.data.given_up_by)
    }

    /// Whether the buffer of an operation that was given up waits for its end.
    pub(super) fn releases_later(&mut self, node: usize, slot: u16) -> bool {
        if self.plan.mutant == Some(Mutant::QuarantineForgotten) {
            return false;
        }
        let mut late = self.nodes[node].data.late.iter_mut();
        let held = late.find(|running| running.owner == IoOwner::Peer(slot) && !running.release);
        held.map(|running| running.release = true).is_some()
    }

    /// The disk of one member failed, and the other member's machine lost power before it could drop it: both
    /// refuse each other, and an operator has to say that the one with the failed disk is gone.
    pub(super) fn is_the_only_hope(&self, node: usize) -> bool {
        let (Some(own), Some(other)) = (self.status(node), self.status(1 - node)) else {
            return false;
        };
        let nobody = |problem: &Problem| problem.message.contains("neither side holds a copy");
        let refused = own.link.state == LinkState::Refused && own.problems.iter().any(nobody);
        let members = [0, 1].map(|node| self.nodes[node].view().insync.len());
        let failed = other.copy == CopyState::Failed && own.copy == CopyState::InSync;
        !self.chaos && refused && failed && members == [2, 2] && !self.split
    }

    // --- metadata -----------------------------------------------------------------------------

    /// Whether the metadata device does not answer now.
    pub(super) fn metadata_holds_back(&mut self, node: usize, process: u64) -> bool {
        let place = &self.nodes[node];
        let until = place.meta.stuck_until;
        if self.now >= until {
            let overdue = self.now - place.meta.began > (LIMIT_MS + GRACE_MS) * MS;
            let waits = overdue && !place.meta.given_up && !place.meta.is_idle();
            if waits && place.paused_until < place.meta.began {
                self.fail(format!(
                    "{node}: a write of metadata was waited for for too long (I15)"
                ));
            }
            return false;
        }
        self.count("metadata held back");
        let after = until - self.now + self.micros(0, 1000);
        self.at(after, Happening::MetaStep { node, process });
        true
    }

    pub(super) fn give_up_metadata(&mut self, node: usize) {
        self.note(|| format!("{node} gives up a write of metadata"));
        self.count("metadata given up");
        if self.now > self.nodes[node].meta.stuck_until + MS * 1000 {
            self.fail(format!(
                "{node}: a write of metadata is given up, and the device answers (I15)"
            ));
        }
        self.nodes[node].meta.give_up();
        self.metadata_are_lost(node);
    }
}
