//! What must hold.

use mirror_core::admin::{CopyState, LinkState, Notice, Role};
use mirror_core::disk::CopyRole;
use mirror_core::effect::DiskOperation;
use mirror_core::event::{IoOwner, RequestKind};
use mirror_core::types::{NodeSet, SectorRange};
use mirror_core::view::View;
use mirror_core::wire::RefusedCode;

use super::disk::Value;
use super::kernel::Outstanding;
use super::model::{Judgement, Write, write_of};
use super::node::{MS, id};
use super::shell::first_word;
use super::world::{Happening, World};

/// Which rule two operations at the same place break.
fn overlap_rule(owners: (IoOwner, IoOwner)) -> &'static str {
    let either = |wanted: fn(&IoOwner) -> bool| wanted(&owners.0) || wanted(&owners.1);
    if either(|owner| matches!(owner, IoOwner::Copy(_) | IoOwner::Serve(_))) {
        "I8"
    } else if either(|owner| matches!(owner, IoOwner::Peer(_))) {
        "S4"
    } else {
        "I3"
    }
}

impl World {
    /// Members of the view that is durable on the active node, as bits.
    fn members(&self, node: usize) -> u8 {
        self.view_in_force(node).insync.bits()
    }

    /// Members that know that they are.
    fn sure_members(&self, node: usize) -> u8 {
        let view = self.view_in_force(node);
        let sure = |member: usize| {
            view.insync.contains(id(member))
                && self.nodes[member].view().insync.contains(id(member))
        };
        (0..2)
            .filter(|member| sure(*member))
            .fold(0, |bits, member| bits | 1 << member)
    }

    pub(super) fn acknowledged(&mut self, node: usize, activation: u64, outstanding: &Outstanding) {
        self.completed += 1;
        if self.is_void(node) {
            return;
        }
        let members = self.members(node);
        self.check_carried(node);
        let request = outstanding.request;
        // Who took over meanwhile: what it has is no lie, however late it is told.
        let is_past = activation != self.newest;
        let taker = u8::from(is_past) << (1 - node);
        match request.kind {
            RequestKind::Read => {
                self.count("reads");
                self.check_read(
                    node,
                    request.range,
                    &outstanding.data,
                    outstanding.submitted,
                );
                return;
            }
            RequestKind::Flush => {
                self.count("flushes");
                if !outstanding.visited && members & (1 << node) != 0 {
                    self.count("flushes for nothing");
                }
                self.check_flush(members | taker, outstanding.submitted);
                self.model.flushed(outstanding.submitted);
            }
            RequestKind::Write | RequestKind::Discard | RequestKind::WriteZeroes => {
                self.count("writes")
            }
        }
        let landed = |write: &Write| {
            let needed = members | taker;
            request.kind == RequestKind::Write && write.landed & needed == needed
        };
        let written = outstanding.write.map(|number| self.model.write(number));
        // A flush was looked at above; the taker does none for the past once it serves.
        let flushed =
            request.kind == RequestKind::Flush && outstanding.submitted < self.newest_since;
        let zeroed = request.kind != RequestKind::Write
            && outstanding
                .write
                .is_some_and(|number| self.are_zeroes(1 - node, request.range, number));
        let flushed = flushed || (request.kind == RequestKind::Flush && self.reads_blindly(node));
        if is_past && !flushed && !zeroed && !written.is_some_and(landed) {
            self.fail(format!(
                "{node}: {request:?} was acknowledged after another node was activated (I1)"
            ));
        }
        if members == 1 << (1 - node) {
            self.count("acknowledged without a disk");
        }
        if let Some(number) = outstanding.write {
            let landed = self.model.write(number).landed;
            if request.kind == RequestKind::Write && landed & members != members {
                self.fail(format!(
                    "{node}: {request:?} was acknowledged on {landed:02b}, members are {members:02b} (S1)"
                ));
            }
            if request.fua {
                self.check_durable(members, number);
            }
            let holders = self.sure_members(node);
            self.model.acknowledge(number, holders, request.fua);
        }
    }

    /// Whether the zeroes that this change wrote are on that disk, or what was written there later.
    fn are_zeroes(&self, node: usize, range: SectorRange, number: usize) -> bool {
        let content = &self.nodes[node].data.content;
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let mut sectors = content.iter().skip(start).take(range.count as usize);
        sectors.all(|value| write_of(*value).is_none_or(|other| other > number))
    }

    /// A durable write that is acknowledged is durable on every member (S1).
    fn check_durable(&mut self, members: u8, number: usize) {
        for member in (0..2).filter(|member| members & (1 << member) != 0) {
            let late = self.nodes[member]
                .data
                .unflushed()
                .find(|value| write_of(*value) == Some(number));
            if let Some(value) = late {
                self.fail(format!(
                    "a durable write was acknowledged, but {value:#x} is not durable on {member} (S1)"
                ));
                return;
            }
        }
    }

    /// Everything acknowledged before the flush was asked for is durable on every member (S1).
    fn check_flush(&mut self, members: u8, asked: u64) {
        for member in 0..2 {
            if members & (1 << member) == 0 {
                continue;
            }
            let late = self.nodes[member].data.unflushed().find(|value| {
                let write = write_of(*value).map(|number| self.model.write(number));
                write.is_some_and(|write| write.is_acked_before(asked))
            });
            if let Some(value) = late {
                self.fail(format!(
                    "a flush was acknowledged, but {value:#x} is not durable on {member} (S1)"
                ));
            }
        }
    }

    fn check_read(&mut self, node: usize, range: SectorRange, data: &[Value], asked: u64) {
        if data.len() != range.count as usize {
            self.fail(format!(
                "{node}: a read of {range:?} returned {} sectors",
                data.len()
            ));
            return;
        }
        if self.reads_blindly(node) {
            self.count("control: blind reads");
            return;
        }
        let members = self.members(node);
        for (offset, value) in (0u64..).zip(data) {
            let sector = range.start + offset;
            match self.model.judge(sector, *value, asked) {
                Judgement::Right => {}
                // What only this node has may be given up in this moment: another value may be read there.
                Judgement::Settles { .. } if self.is_called_off(node) => {
                    self.count("reads that settle nothing: the node was called off");
                }
                Judgement::Settles { secured, holders } => {
                    let holders = holders & members;
                    self.count("sectors settled by a read");
                    self.model.settle(sector, *value, asked, holders, secured);
                }
                Judgement::Wrong(why) => {
                    let history = self.model.explain(sector);
                    self.fail(format!(
                        "{node}: sector {sector} reads {value:#x} (asked at {asked}), {why}:{history}"
                    ));
                    return;
                }
            }
        }
    }

    pub(super) fn check_disk_start(
        &mut self,
        node: usize,
        owner: IoOwner,
        operation: DiskOperation,
        range: SectorRange,
    ) {
        self.check_isolated_write(node, owner, operation);
        let served = self.nodes[node].device.is_some();
        if operation == DiskOperation::Read && matches!(owner, IoOwner::Application(_)) && served {
            self.check_no_other_serves(node);
        }
        if self.is_given_up(node) {
            self.fail(format!(
                "{node}: {owner:?} {operation:?} is asked of a disk that was given up (I15)"
            ));
            return;
        }
        let running = &self.nodes[node].data.running;
        if running.iter().any(|other| other.owner == owner) {
            self.fail(format!(
                "{node}: {owner:?} has two disk operations at a time"
            ));
            return;
        }
        if operation == DiskOperation::Flush {
            return;
        }
        if self.is_misplaced(node, owner, range) {
            self.fail(format!(
                "{node}: {owner:?} {operation:?} {range:?} is outside its place (I3)"
            ));
            return;
        }
        let write = operation != DiskOperation::Read;
        // Without a disk of its own the active node reads as it would on that: while it writes.
        let both = self.nodes[node].view().insync.len() == 2;
        let served = |owner: &IoOwner| both && matches!(owner, IoOwner::Serve(_));
        let clash = running.iter().find(|other| {
            let copies = matches!(owner, IoOwner::Copy(_))
                || matches!(other.owner, IoOwner::Copy(_))
                || served(&owner)
                || served(&other.owner);
            other.range.overlaps(range)
                && other.operation != DiskOperation::Flush
                && ((write && other.changes()) || (copies && (write || other.changes())))
        });
        if let Some(other) = clash {
            let (owner, range) = ((owner, other.owner), (range, other.range));
            let rule = overlap_rule(owner);
            self.fail(format!(
                "{node}: disk operations overlap: {owner:?} {range:?} ({rule})"
            ));
        }
    }

    /// S3, S9: who may serve.
    pub(super) fn check_activation(&mut self, node: usize) {
        let superblock = self.nodes[node].meta.peek();
        let me = id(node);
        let target = superblock
            .copy
            .is_some_and(|copy| copy.role == CopyRole::Target);
        if superblock.view.active != Some(me) || !superblock.view.insync.contains(me) || target {
            self.fail(format!(
                "{node} serves under {:?}, copy {:?} (S3, S9)",
                superblock.view, superblock.copy
            ));
        } else if superblock.sealed >= superblock.view.epoch || !superblock.serving {
            self.fail(format!(
                "{node} serves under epoch {}, sealed {} (S4)",
                superblock.view.epoch, superblock.sealed
            ));
        }
    }

    /// A superblock with another view became durable.
    pub(super) fn view_is_durable(&mut self, node: usize, before: &View, after: &View) {
        self.note(|| format!("{node} durable {after:?}"));
        self.note_carried(node, after);
        if after.epoch < before.epoch {
            self.fail(format!(
                "{node}: the epoch went back from {} to {} (S4)",
                before.epoch, after.epoch
            ));
        }
        let me = id(node);
        if before.active == Some(me) && !before.active_counts() && after.active.is_none() {
            self.count("service without a disk ended");
        }
        if after.insync == NodeSet::only(me) {
            self.spare_the_last_disk(node);
        }
        if after.insync.contains(me) && !before.insync.contains(me) {
            self.count("copy became a member");
            self.nodes[node].failed_at = None;
            self.nodes[node].data.went_back = false;
            self.model.joined(node);
        }
        self.check_nothing_aside(node, before, after);
        self.check_alone();
        self.check_granted_view(node, before, after);
        self.forget_pause(node);
        self.check_change(node, before, after);
        if after.insync.is_empty() {
            self.history_is_discarded();
        }
        if after.insync == NodeSet::only(me) && before.insync.len() == 2 {
            let flushed = std::mem::take(&mut self.nodes[node].view_flushed);
            if !self.is_void(node) {
                self.model.flushed(flushed);
            }
        }
    }

    /// What has to be true at the moment at which another view is durable.
    fn check_change(&mut self, node: usize, before: &View, after: &View) {
        let (me, peer) = (id(node), id(1 - node));
        if after.active == Some(me) && before.active != Some(me) && !before.insync.contains(me) {
            self.fail(format!(
                "{node} is active under {after:?}, but did not count under {before:?} (S3)"
            ));
        }
        let alone = after.insync == NodeSet::only(me) && before.insync.len() == 2;
        let sealed = self.nodes[node].meta.peek().sealed;
        let takes_over = alone && after.active == Some(me) && before.active == Some(peer);
        if takes_over && sealed < before.epoch {
            self.fail(format!(
                "{node} took over from {before:?} without a seal (S4)"
            ));
        }
        // Also from a node that served through this copy alone.
        let takes_over = after.is_sole(me)
            && after.active == Some(me)
            && before.active == Some(peer)
            && before.insync.contains(me);
        let mut running = self.nodes[node].data.running.iter();
        let accepted = running.find(|op| matches!(op.owner, IoOwner::Peer(_)) && op.changes());
        if let Some(range) = accepted.map(|op| op.range).filter(|_| takes_over) {
            self.fail(format!(
                "{node} took over while {range:?} of the peer is being written (S4)"
            ));
        }
        if alone {
            let acked = |value: &Value| {
                let write = write_of(*value).map(|number| self.model.write(number));
                write.is_some_and(|write| write.is_acked_before(u64::MAX))
            };
            let unflushed = self.nodes[node].data.unflushed().find(acked);
            if let Some(value) = unflushed {
                self.fail(format!(
                    "{node} counts alone, and {value:#x} is acknowledged and not flushed (S2)"
                ));
            }
        }
        if after.active == Some(peer) && self.nodes[node].device.is_some() {
            self.fail(format!(
                "{node} agreed to {after:?} with a live device (S12)"
            ));
        }
    }

    /// A read begins: nobody else may have taken over by now (S5).
    fn check_no_other_serves(&mut self, node: usize) {
        let (own, other) = (self.nodes[node].view(), self.nodes[1 - node].view());
        let taken = other.is_sole(id(1 - node)) && other.active == Some(id(1 - node));
        let blind = self.reads_blindly(node);
        if taken && other.epoch > own.epoch && !self.split && !blind {
            self.fail(format!(
                "{node} reads under {own:?}, and {other:?} is durable (S5)"
            ));
        }
    }

    pub(super) fn noticed(&mut self, node: usize, notice: &Notice) {
        self.note(|| format!("{node} notice {notice:?}"));
        if self.both_alone && matches!(notice, Notice::LinkUp { .. }) {
            self.fail(format!("{node}: split histories were merged (S8)"));
        }
        self.check_verify(node, notice);
        self.check_disk_notice(node, notice);
        self.note_disk_failed(node, notice);
        if *notice == Notice::Frozen {
            self.nodes[node].frozen_at = self.now;
        }
        if matches!(notice, Notice::LinkUp { .. }) {
            self.check_cover("link up");
        }
        let key = if let Notice::CopyStarted { cause } = notice {
            format!("copy {cause:?}")
        } else if let Notice::Disk(notice) = notice {
            format!("disk {}", first_word(&format!("{notice:?}")))
        } else if let Notice::RefusedPeer { code, .. } = notice {
            self.refused(node, *code);
            format!("refused {code:?}")
        } else {
            first_word(&format!("{notice:?}"))
        };
        self.count(&key);
        if let Notice::Garbage { error } = notice {
            // A view that cannot be names somebody active who does not count.
            let view = format!("{error}").contains("view");
            let rule = if view { " (S3)" } else { "" };
            self.fail(format!(
                "{node}: an honest peer sent garbage: {error}{rule}"
            ));
        }
    }

    fn refused(&mut self, node: usize, code: RefusedCode) {
        if code == RefusedCode::Protocol {
            self.fail(format!("{node}: an honest peer broke the protocol (S4)"));
        } else if code == RefusedCode::SplitBrain && !self.desk.split_expected {
            self.fail(format!(
                "{node}: split brain without a wrong word of an operator (S8)"
            ));
        }
    }

    /// Both count, are connected and idle: then they are equal.
    pub(super) fn compare(&mut self) {
        self.at(500 * MS / self.plan.haste, Happening::Compare);
        self.image_must_stand(0);
        self.image_must_stand(1);
        if !self.both_quiet() {
            return;
        }
        self.count("copies compared");
        self.must_be_equal();
    }

    pub fn must_be_equal(&mut self) {
        if !self.sizes_agree() {
            self.fail("copies count and have different sizes (I10)".to_string());
            return;
        }
        let size = self.largest_size();
        let (one, other) = (&self.nodes[0].data.content, &self.nodes[1].data.content);
        let (one, other) = (&one[..size], &other[..size]);
        if one == other {
            return;
        }
        let mut pairs = one.iter().zip(other).enumerate();
        let sector = pairs.find(|(sector, (one, other))| one != other && !self.is_damaged(*sector));
        let Some((sector, _)) = sector else {
            return;
        };
        let (one, other) = (one[sector], other[sector]);
        let history = self.model.explain(sector as u64);
        self.fail(format!(
            "copies count and differ: sector {sector} is {one:#x} and {other:#x} (I4):{history}"
        ));
    }

    /// No request is open and no disk works.
    pub(super) fn at_rest(&self) -> bool {
        self.nodes.iter().all(|node| {
            let idle = super::kernel::Device::is_idle;
            node.device.as_ref().is_none_or(idle) && node.data.running.is_empty()
        })
    }

    /// Both count, are connected, and nothing is under way.
    fn both_quiet(&self) -> bool {
        let both = NodeSet::only(id(0)).with(id(1));
        let views = [self.nodes[0].view(), self.nodes[1].view()];
        if views[0] != views[1] || views[0].insync != both {
            return false;
        }
        self.nodes.iter().all(|node| {
            let idle = node
                .device
                .as_ref()
                .is_none_or(super::kernel::Device::is_idle);
            let up = || {
                node.process.as_ref().is_some_and(|process| {
                    let status = process.volume.status(node.clock(self.now));
                    // One that says that it failed is about to be left out, by metadata or by the peer.
                    status.link.state == LinkState::Up
                        && status.copy != CopyState::Failed
                        && !matches!(status.role, Role::Activating | Role::Deactivating)
                })
            };
            // The status last: making it costs most.
            idle && node.data.running.is_empty() && node.meta.is_idle() && up()
        }) && !self.network.silent.contains(&true)
            && !self.network.any_hangs()
            && self
                .network
                .connections
                .values()
                .all(|connection| connection.ends.iter().all(|end| end.out.is_empty()))
    }
}
