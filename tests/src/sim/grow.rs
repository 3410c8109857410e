//! Operators who make the volume larger while everything else goes wrong, and what must hold then:
//!
//! * I10: no device is larger than the durable size of any copy that counts, and no size ever shrinks;
//! * an interrupted grow heals by itself: connected and healthy, both nodes have one size (I9);
//! * what the new area reads as is what was written there, zeroes before (I3), on both copies (I4, S7).

use mirror_core::admin::{Command, Done, Refusal};
use mirror_core::disk::Superblock;
use mirror_core::event::{Event, IoOwner};
use mirror_core::types::{Errno, SECTOR_BYTES, SectorRange};
use mirror_core::view::ViewMark;

use super::disk::Value;
use super::node::{MS, id, name};
use super::rng::Rng;
use super::run::peace_ms;
use super::world::{Happening, Plan, World};

/// What is behind the volume's end before it was ever grown: on each node something else.
const BEHIND: [Value; 2] = [0xf0, 0xf1];
/// What the seed of a run is mixed with for what is drawn here, so that other runs stay as they are.
const SALT: u64 = 0x6772_6f77;

/// What the superblock said of the size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sized {
    sectors: u64,
    blank: bool,
    mark: ViewMark,
}

impl Sized {
    pub(super) fn of(superblock: &Superblock) -> Self {
        Self {
            sectors: superblock.size_sectors,
            blank: superblock.volume_id.is_none(),
            mark: superblock.view.mark(),
        }
    }
}

/// Every third run or so grows; some of them have a kernel that resizes live devices.
pub(super) fn plan(seed: u64, plan: Plan) -> Plan {
    let mut rng = Rng::new(seed ^ SALT);
    if !rng.percent(35) {
        return plan;
    }
    let more = rng.between(8, plan.sectors / 2);
    Plan {
        disk_sectors: plan.sectors + more,
        live_resize: rng.percent(50),
        grows: true,
        ..plan
    }
}

impl World {
    /// Operators begin to think of more room.
    pub(super) fn open_the_grow_desk(&mut self, seed: u64) {
        self.grow_rng = Rng::new(seed ^ SALT ^ 1);
        if self.plan.grows {
            let after = self.grow_pause();
            self.at(after, Happening::GrowDesk);
        }
    }

    fn grow_pause(&mut self) -> u64 {
        self.grow_rng.between(20, 900) * MS / self.plan.haste
    }

    /// Somebody enlarges the backing devices, or not, and asks for a larger volume.
    pub(super) fn work_the_grow_desk(&mut self) {
        if !self.chaos {
            return;
        }
        let after = self.grow_pause();
        self.at(after, Happening::GrowDesk);
        for node in 0..2 {
            if self.grow_rng.percent(70) {
                let left = self.plan.disk_sectors - self.nodes[node].backing_sectors;
                self.nodes[node].backing_sectors += self.grow_rng.below(left / 2 + 9).min(left);
            }
        }
        let node = match self.active() {
            Some(active) if self.grow_rng.percent(85) => active,
            _ => self.grow_rng.index(2),
        };
        let size = self.nodes[node].meta.peek().size_sectors;
        let wanted = match self.grow_rng.below(10) {
            0..=3 => None,
            4 => Some(size.saturating_sub(self.grow_rng.below(20))),
            _ => Some(
                size + self
                    .grow_rng
                    .below(self.plan.disk_sectors - self.plan.sectors + 9),
            ),
        };
        if self.status(node).is_some() {
            let size_bytes = wanted.map(|sectors| sectors * SECTOR_BYTES);
            self.command(node, Command::Grow { size_bytes });
        }
    }

    /// A step of a grow is about to become durable: often something goes wrong right then.
    pub(super) fn trouble_at_a_step(&mut self, node: usize, superblock: &Superblock) {
        let durable = self.nodes[node].meta.peek();
        let commits = superblock.size_sectors > durable.size_sectors;
        let prepares = superblock.prepared_sectors > durable.prepared_sectors;
        let blank = durable.volume_id.is_none();
        let percent = match (commits, prepares) {
            (true, _) => 50,
            (false, true) => 15,
            (false, false) => 0,
        };
        if blank || !self.chaos || !self.grow_rng.percent(percent) {
            return;
        }
        let (after, node) = (self.grow_rng.below(3 * MS), self.grow_rng.index(2));
        let kind = self.grow_rng.below(5);
        self.at(after, Happening::GrowTrouble { node, kind });
    }

    pub(super) fn grow_trouble(&mut self, node: usize, kind: u64) {
        if !self.chaos {
            return;
        }
        self.count("trouble at a step of a grow");
        match kind {
            0 => self.break_connections(),
            1 => {
                self.kill(node);
                self.at(5 * MS, Happening::Start { node });
            }
            2 => self.begin_takeover(node, false),
            3 => {
                self.power_cut(node);
                self.at(50 * MS, Happening::PowerOn { node });
            }
            _ => {
                for node in 0..2 {
                    self.power_cut(node);
                    self.at(50 * MS, Happening::PowerOn { node });
                }
            }
        }
    }

    /// The core wants to know how large the backing device is.
    pub(super) fn measure(&mut self, node: usize, process: u64, question: u64) {
        let after = self.micros(20, 3000);
        self.at(
            after,
            Happening::Measured {
                node,
                process,
                question,
            },
        );
    }

    pub(super) fn measured(&mut self, node: usize, process: u64, question: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        let sectors = if self.chaos && self.rng.percent(1) {
            Err(Errno::EIO)
        } else {
            Ok(self.nodes[node].backing_sectors)
        };
        let id = question;
        self.feed(node, Event::BackingMeasured { id, sectors });
    }

    /// The device shall show a new size: not every kernel can.
    pub(super) fn resize_live(&mut self, node: usize, sectors: u64) {
        self.check_device_size(node, sectors);
        let can = self.plan.live_resize;
        let Some(device) = self.nodes[node].device.as_mut() else {
            return;
        };
        let smaller = device.sectors < sectors;
        if can {
            device.sectors = sectors;
        }
        if smaller {
            self.count(if can {
                "live device resized"
            } else {
                "live device smaller than the volume"
            });
        }
    }

    /// I10: who may acknowledge a write must have room for it.
    pub(super) fn check_device_size(&mut self, node: usize, sectors: u64) {
        let members = self.nodes[node].view().insync;
        for member in (0..2).filter(|member| members.contains(id(*member))) {
            let size = self.nodes[member].meta.peek().size_sectors;
            if size < sectors {
                self.fail(format!(
                    "{node} shows a device of {sectors} sectors, {} has durably {size} (I10)",
                    name(member)
                ));
                return;
            }
        }
    }

    /// A superblock is durable: its size never shrinks.
    pub(super) fn size_is_durable(&mut self, node: usize, before: Sized) {
        let after = Sized::of(self.nodes[node].meta.peek());
        if after.sectors == before.sectors || before.blank {
            return;
        }
        self.note(|| {
            format!(
                "{node} durable size {} -> {}",
                before.sectors, after.sectors
            )
        });
        if after.sectors < before.sectors {
            self.fail(format!(
                "{node}: the size went back from {} to {} (I10)",
                before.sectors, after.sectors
            ));
            return;
        }
        if after.mark != before.mark {
            self.count("interrupted grow completed");
        }
        let more = after.sectors - before.sectors;
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.model.touched.add(before.sectors, more);
    }

    /// Where this disk operation must not be.
    pub(super) fn is_misplaced(&self, node: usize, owner: IoOwner, range: SectorRange) -> bool {
        let size = self.nodes[node].meta.peek().size_sectors;
        if owner == IoOwner::Grow {
            let room = self.nodes[node].backing_sectors;
            return range.start < size || !range.fits(room);
        }
        !range.fits(size)
    }

    /// The larger of both sizes.
    pub(super) fn largest_size(&self) -> usize {
        let sizes = self.nodes.iter().map(|node| node.meta.peek().size_sectors);
        usize::try_from(sizes.max().unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// Both nodes have one size.
    pub fn sizes_agree(&self) -> bool {
        self.nodes[0].meta.peek().size_sectors == self.nodes[1].meta.peek().size_sectors
    }

    /// Whether the histories go apart in the middle of a grow.
    pub(super) fn tears_a_grow(&mut self) -> bool {
        self.plan.grows && self.grow_rng.percent(50)
    }

    /// A grow begins; its end is not waited for.
    pub(super) fn begin_a_grow(&mut self, active: usize) {
        for node in &mut self.nodes {
            node.backing_sectors = self.plan.disk_sectors;
        }
        let size_bytes = Some(self.plan.disk_sectors * SECTOR_BYTES);
        self.command(active, Command::Grow { size_bytes });
        let stop_at = self.grow_rng.index(3);
        self.run_until(1000, |world| match stop_at {
            0 => world
                .nodes
                .iter()
                .any(|node| node.meta.peek().prepared_sectors != 0),
            1 => world
                .nodes
                .iter()
                .all(|node| node.meta.peek().prepared_sectors != 0),
            _ => !world.sizes_agree(),
        });
        let both = self.nodes.each_ref().map(|node| {
            let superblock = node.meta.peek();
            (superblock.size_sectors, superblock.prepared_sectors)
        });
        if both[0].0 != both[1].0 {
            self.count("histories apart in the commit of a grow");
        } else if both.iter().any(|one| one.1 != 0) {
            self.count("histories apart in a prepared grow");
        }
    }

    /// In peace both disks are enlarged once more: then the volume grows, and the new area can be used.
    pub(super) fn last_grow(&mut self) {
        if !self.plan.grows || self.failure.is_some() {
            return;
        }
        for node in &mut self.nodes {
            node.backing_sectors = self.plan.disk_sectors;
        }
        let wanted = self.plan.disk_sectors;
        let size_bytes = Some(wanted * SECTOR_BYTES);
        for _ in 0..peace_ms(self) / 1000 {
            let Some(active) = self.active() else {
                self.run_for(1000);
                continue;
            };
            let asked = self.command(active, Command::Grow { size_bytes });
            self.run_until(20_000, |world| world.answers.contains_key(&asked));
            match self.answers.get(&asked) {
                Some(Ok(Done::Grown | Done::AlreadyGrown)) => break,
                Some(Err(Refusal::GrowShrinks { .. } | Refusal::GrowNoRoom { .. })) => break,
                _ => self.run_for(1000),
            }
        }
        let sizes = [0, 1].map(|node: usize| self.nodes[node].meta.peek().size_sectors);
        if self.failure.is_none() && sizes != [wanted; 2] {
            self.fail(format!(
                "the volume does not grow to {wanted} sectors in peace (I9): {sizes:?}"
            ));
        }
    }
}

/// What is behind the end of a volume that may grow.
pub(super) fn behind(node: usize, plan: &Plan) -> Option<(u64, Value)> {
    plan.grows.then_some((plan.sectors, BEHIND[node]))
}
