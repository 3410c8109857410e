//! Disks that cannot read: single sectors until they are written again, or whatever is read for a while. What a
//! resync or a verify reads is in `aside`.
//!
//! I31: what one disk cannot read and the other can is answered rightly, and can be read here afterwards; no disk
//! counts as failed because of it. The rewrite keeps S7 like any write.

use mirror_core::admin::{CopyState, Notice, Role, Status};
use mirror_core::disk::ActivityFound;
use mirror_core::effect::{DiskOperation, PayloadSource};
use mirror_core::event::{IoOwner, RequestKind};
use mirror_core::types::{Errno, SectorRange, Tag};

use super::disk::GARBAGE;
use super::faults::{Kind, Trouble};
use super::kernel::Outstanding;
use super::node::{MS, Node};
use super::rng::Rng;
use super::world::World;

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Some sectors of one disk.
    Sectors,
    /// The same sectors of both.
    Both,
    /// One read of three of one disk, for a while.
    Flaky,
}

/// By chances of their own: other troubles stay as they are.
pub(super) fn troubles(seed: u64, millis: std::ops::Range<u64>, haste: u64) -> Vec<Trouble> {
    let mut rng = Rng::new(seed ^ 0x756e_7265_6164);
    let mut troubles = Vec::new();
    if !rng.percent(40) {
        return troubles;
    }
    let pause = rng.between(50, 1000) * MS / haste;
    let mut at = millis.start * MS + rng.below(pause);
    while at < millis.end * MS {
        let mut dice = Rng::new(rng.bits());
        let what = match dice.below(10) {
            0 => Unreadable::Both,
            1..=3 => Unreadable::Flaky,
            _ => Unreadable::Sectors,
        };
        let node = dice.index(2);
        at += dice.between(MS, pause * 2);
        troubles.push(Trouble::at(at, Kind::Unreadable(what), node, dice));
    }
    troubles
}

impl World {
    pub(super) fn unreadable(&mut self, what: Unreadable, node: usize, dice: &mut Rng) {
        // Mostly where it is noticed.
        let node = match self.active() {
            Some(active) if dice.percent(70) => active,
            _ => node,
        };
        self.note(|| format!("{node} cannot read: {what:?}"));
        if what == Unreadable::Flaky {
            self.count("flaky reads");
            self.nodes[node].data.flaky_until = self.now + dice.between(5 * MS, 200 * MS);
            return;
        }
        let spot = self.workload.spots[dice.index(self.workload.spots.len())];
        let start = spot + dice.below(64);
        let end = (start + dice.between(1, 64)).min(self.plan.sectors);
        for (each, place) in self.nodes.iter_mut().enumerate() {
            if each == node || what == Unreadable::Both {
                place.data.unreadable.extend(start..end);
            }
        }
    }

    /// A disk operation ends, well or not.
    pub(super) fn disk_end(&mut self, node: usize, process: u64, ticket: u64) {
        let place = &self.nodes[node];
        let started = place.data.running.iter().find(|op| op.ticket == ticket);
        let Some((owner, range)) = started
            .filter(|op| op.operation == DiskOperation::Read)
            .map(|op| (op.owner, op.range))
        else {
            return self.disk_done(node, process, ticket);
        };
        if self.cannot_be_read(node, owner, range) {
            self.read_fails(node, process, ticket);
        } else {
            self.disk_done(node, process, ticket);
        }
    }

    fn cannot_be_read(&mut self, node: usize, owner: IoOwner, range: SectorRange) -> bool {
        let concerned = match owner {
            IoOwner::Application(_) => self.nodes[node].device.is_some(),
            IoOwner::Serve(_) | IoOwner::Copy(_) => true,
            IoOwner::Peer(_) | IoOwner::ViewFlush | IoOwner::LogFlush | IoOwner::Grow => false,
        };
        let data = &self.nodes[node].data;
        if data.dead {
            return concerned;
        }
        let mut bad = data.unreadable.range(range.start..range.end());
        concerned && (bad.next().is_some() || (self.now < data.flaky_until && self.rng.percent(33)))
    }

    fn read_fails(&mut self, node: usize, process: u64, ticket: u64) {
        let Some(running) = self.nodes[node].data.forget(ticket) else {
            return;
        };
        if !self.nodes[node].process_is(process) {
            return;
        }
        self.note(|| {
            format!(
                "{node} cannot read {:?} for {:?}",
                running.range, running.owner
            )
        });
        if let IoOwner::Application(tag) = running.owner {
            self.count("reads that failed");
            let asked = self.served_errors(1 - node);
            let device = self.nodes[node].device.as_mut();
            let slot = device.and_then(|device| device.slots[usize::from(tag.0)].as_mut());
            if let Some(outstanding) = slot {
                outstanding.data = vec![GARBAGE; running.range.count as usize];
                outstanding.unread = Some(asked);
            }
        } else if let IoOwner::Copy(slot) = running.owner {
            self.copy_read_fails(node, slot, &running);
        } else {
            self.count("reads for the peer that failed");
            self.nodes[node].served_errors += 1;
        }
        self.read_told(node, process, running.owner);
    }

    fn read_told(&mut self, node: usize, process: u64, owner: IoOwner) {
        if self.nodes[node].process_is(process) {
            let result = Err(Errno::EIO);
            self.feed(node, mirror_core::event::Event::DiskDone { owner, result });
        }
    }

    /// A receive buffer's content goes to a request.
    pub(super) fn fill_request(&mut self, node: usize, tag: Tag, slot: u16, range: SectorRange) {
        let process = self.nodes[node].process.as_ref();
        let held = process.and_then(|process| process.receive[usize::from(slot)].clone());
        let device = self.nodes[node].device.as_mut();
        let request = device.and_then(|device| device.slots[usize::from(tag.0)].as_mut());
        let (Some(held), Some(request)) = (held, request) else {
            self.fail(format!(
                "{node}: {tag:?} is filled from buffer {slot}, and one of them is nobody's"
            ));
            return;
        };
        let fits = request.request.range == range && request.request.kind == RequestKind::Read;
        if !fits || held.len() != range.count as usize {
            self.fail(format!(
                "{node}: {tag:?} is filled with {} sectors (I31)",
                held.len()
            ));
            return;
        }
        request.data = held;
    }

    /// What is being sent to the peer must not be read over.
    pub(super) fn check_serve_buffer(&mut self, node: usize, process: u64, owner: IoOwner) {
        let IoOwner::Serve(slot) = owner else { return };
        self.count("reads for the peer");
        let (now, source) = (self.now, PayloadSource::Serve(slot));
        if self.network.reuse(node, process, source, now) {
            self.fail(format!(
                "{node}: buffer {slot} is read over before it is sent (I31)"
            ));
        }
    }

    /// S7: the activity log names what is written again.
    pub(super) fn check_rewrite_is_named(
        &mut self,
        node: usize,
        owner: IoOwner,
        operation: DiskOperation,
        range: SectorRange,
    ) {
        let (IoOwner::Application(tag), DiskOperation::Write { .. }) = (owner, operation) else {
            return;
        };
        let device = self.nodes[node].device.as_ref();
        let request = device.and_then(|device| device.slots[usize::from(tag.0)].as_ref());
        if !request.is_some_and(|outstanding| outstanding.request.kind == RequestKind::Read) {
            return;
        }
        let known = self.nodes[node].meta.read();
        let extent = range.start / u64::from(known.superblock.chunk_sectors);
        let named = match &known.activity {
            ActivityFound::Known(record) => record
                .extents
                .iter()
                .any(|active| u64::from(*active) == extent),
            ActivityFound::Lost { .. } => true,
        };
        if !named {
            self.fail(format!(
                "{node}: {range:?} is written again, and the activity log does not name it (S7)"
            ));
        }
    }

    pub(super) fn note_rewritten(&mut self, node: usize, tag: Tag) {
        let device = self.nodes[node].device.as_mut();
        let slot = device.and_then(|device| device.slots[usize::from(tag.0)].as_mut());
        if let Some(outstanding) = slot
            && outstanding.unread.is_some()
        {
            outstanding.rewritten = true;
        }
    }

    fn served_errors(&self, node: usize) -> u64 {
        self.nodes[node].served_errors
    }

    /// It serves, both copies count, and no disk counts as failed.
    fn serves_on(&self, node: usize) -> bool {
        let both = self.nodes[node].view().insync.len() == 2;
        // Also one whose daemon said so and was killed before it was written down.
        let told = |each: &Node| each.meta.peek().failed || each.failed_at.is_some();
        let failed = self.nodes.iter().any(told);
        let failing = (0..2).any(|each| self.nodes[each].data.failing || self.is_given_up(each));
        let active =
            |status: Status| status.role == Role::Active && status.copy == CopyState::InSync;
        both && !failed && !failing && self.status(node).is_some_and(active)
    }

    pub(super) fn note_rewrite_failed(&mut self, node: usize, owner: IoOwner) {
        let IoOwner::Application(tag) = owner else {
            return;
        };
        let device = self.nodes[node].device.as_ref();
        let slot = device.and_then(|device| device.slots[usize::from(tag.0)].as_ref());
        if slot.is_some_and(|outstanding| outstanding.unread.is_some()) {
            self.count("rewrites that failed");
        }
    }

    /// I31, when a request is answered.
    pub(super) fn check_made_good(&mut self, node: usize, outstanding: &Outstanding, well: bool) {
        let Some(asked) = outstanding.unread else {
            return;
        };
        let range = outstanding.request.range;
        if !well {
            self.count("reads that nobody could do");
            if self.serves_on(node) && self.served_errors(1 - node) == asked {
                self.fail(format!(
                    "{node}: {range:?} failed, and the other copy counts and was not asked (I31)"
                ));
            }
            return;
        }
        self.count("reads healed");
        // A disk that failed is not asked any more.
        let failed = |status: Status| status.copy == CopyState::Failed;
        if !outstanding.rewritten && !self.status(node).is_some_and(failed) {
            self.fail(format!(
                "{node}: {range:?} could not be read here, and was not written again (I31)"
            ));
        }
    }

    /// I31: a disk that answers fails by writes and flushes alone.
    pub(super) fn check_disk_notice(&mut self, node: usize, notice: &Notice) {
        let process = self.nodes[node].process.as_ref();
        let errors = process.map_or(0, |process| process.write_errors);
        if matches!(notice, Notice::DiskFailed { .. }) && errors == 0 && !self.is_given_up(node) {
            self.fail(format!(
                "{node}: the disk counts as failed, and only reads failed (I31)"
            ));
        }
    }
}
