//! The steps of a grow on this node, its commit, and its end.

use crate::admin::{Done, GrowProgress, Role};
use crate::effect::{DeviceCommand, DiskOperation, Effect, Effects};
use crate::event::IoOwner;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{Errno, SECTOR_BYTES, SectorRange};
use crate::wire::{GrowRefused, GrowStep};

use super::super::Volume;
use super::super::change::{Kind, Step, Then};
use super::{GrowDisk, Own, Part, Preparation, Theirs};

impl Volume {
    // --- the steps ----------------------------------------------------------------------------

    /// The backing device was measured: whole sectors of it.
    pub(in crate::volume) fn backing_measured(
        &mut self,
        id: u64,
        sectors: Result<u64, Errno>,
        effects: &mut Effects,
    ) {
        let metadata_room = self.durable.layout.growth_sectors;
        let data_start = self.durable.data_start_sectors;
        if id != self.measures {
            return;
        }
        let Some(grow) = self.grow.as_mut().filter(|grow| grow.own == Own::Measures) else {
            return;
        };
        match sectors {
            Ok(sectors) => {
                let room = sectors.saturating_sub(data_start).min(metadata_room);
                grow.own = Own::Room(room);
                let grow = *grow;
                if matches!(grow.part, Part::Helps) {
                    let (session, id) = (grow.session, grow.id);
                    self.answer_grow(session, id, GrowStep::Measure, Ok(room), effects);
                }
            }
            Err(errno) => self.give_up_grow(Refusal::GrowNotMeasured { errno }, effects),
        }
    }

    pub(super) fn zero_from_the_end(&mut self, to: u64) {
        if let Some(grow) = self.grow.as_mut() {
            grow.to = to;
            grow.own = Own::Zeroes(grow.from);
        }
    }

    /// The disk has done its part.
    pub(in crate::volume) fn grow_disk_done(&mut self, effects: &mut Effects) {
        let running = core::mem::replace(&mut self.grow_disk, GrowDisk::None);
        let Some(grow) = self.grow.as_mut().filter(|_| running == GrowDisk::Running) else {
            return;
        };
        match grow.own {
            Own::Zeroes(next) => {
                let next = next + u64::from(grow.piece(next).count);
                grow.own = if next < grow.to {
                    Own::Zeroes(next)
                } else {
                    Own::Flushes
                };
            }
            Own::Flushes => self.note_prepared(effects),
            Own::Measures | Own::Room(_) | Own::Notes(_) | Own::Ready => {}
        }
    }

    /// Everything of the new area is zero and flushed: from now on this size can be taken over.
    fn note_prepared(&mut self, effects: &mut Effects) {
        let Some(grow) = self.grow else { return };
        if !mutant::is(Mutant::GrowNoteForgotten) {
            self.staged.prepared_sectors = grow.to;
        }
        self.persist(Then::Nothing, effects);
        self.set_own(Own::Notes(self.staged.sequence));
    }

    /// What follows from any event.
    pub(in crate::volume) fn grow_steps(&mut self, effects: &mut Effects) {
        self.fit_device(effects);
        let Some(grow) = self.grow else { return };
        let both = self.durable.view.insync == self.both();
        let undisturbed = self.change.is_none()
            && self.leaving.is_none()
            && self.failed.is_none()
            && both
            && self.up_session() == Some(grow.session);
        if !undisturbed {
            return self.give_up_grow(Refusal::GrowInterrupted, effects);
        }
        self.own_step(grow, effects);
        if let Some(grow) = self.grow {
            self.step_with_peer(grow, effects);
        }
    }

    fn own_step(&mut self, grow: Preparation, effects: &mut Effects) {
        let unwilling = mutant::is(Mutant::GrowUnzeroed) && matches!(grow.part, Part::Helps);
        match grow.own {
            Own::Zeroes(_) if unwilling => self.set_own(Own::Flushes),
            Own::Zeroes(next) => {
                let operation = DiskOperation::WriteZeroes { fua: false };
                self.grow_io(operation, grow.piece(next), effects);
            }
            Own::Flushes if mutant::is(Mutant::GrowUnflushed) => self.note_prepared(effects),
            Own::Flushes => {
                self.grow_io(DiskOperation::Flush, SectorRange::new(0, 0), effects);
            }
            Own::Notes(sequence) => {
                if self.durable.sequence >= sequence {
                    self.set_own(Own::Ready);
                    if matches!(grow.part, Part::Helps) {
                        let (session, id) = (grow.session, grow.id);
                        self.answer_grow(session, id, GrowStep::Prepare, Ok(0), effects);
                    }
                }
            }
            Own::Measures | Own::Room(_) | Own::Ready => {}
        }
    }

    fn set_own(&mut self, own: Own) {
        if let Some(grow) = self.grow.as_mut() {
            grow.own = own;
        }
    }

    fn grow_io(&mut self, operation: DiskOperation, range: SectorRange, effects: &mut Effects) {
        if self.grow_disk == GrowDisk::None {
            self.grow_disk = GrowDisk::Running;
            effects.push(Effect::Disk {
                owner: IoOwner::Grow,
                operation,
                range,
            });
        }
    }

    fn step_with_peer(&mut self, grow: Preparation, effects: &mut Effects) {
        let Part::Asks {
            command,
            wanted,
            peer,
        } = grow.part
        else {
            return;
        };
        match (grow.own, peer) {
            (Own::Room(own), Theirs::Room(theirs)) => match self.target(wanted, own, theirs) {
                Ok(to) => {
                    self.zero_from_the_end(to);
                    self.set_peer_part(Theirs::Prepares);
                    let sectors = grow.from..to;
                    self.send_grow(grow.session, grow.id, GrowStep::Prepare, sectors, effects);
                    if let Some(grow) = self.grow {
                        self.own_step(grow, effects);
                    }
                }
                Err(refusal) => self.give_up_grow(refusal, effects),
            },
            (Own::Ready, Theirs::Ready) if self.persists.is_empty() => {
                self.grow = None;
                let kind = Kind::Grow {
                    session: grow.session,
                    id: grow.id,
                    to_sectors: grow.to,
                    command: Some(command),
                };
                if !self.begin_change(kind, Step::Accept, None) {
                    return self.answer(Some(command), Err(Refusal::Busy), effects);
                }
                if mutant::is(Mutant::GrowWithoutPeer) {
                    return self.persist_size(effects);
                }
                let sectors = grow.from..grow.to;
                self.send_grow(grow.session, grow.id, GrowStep::Commit, sectors, effects);
            }
            _ => {}
        }
    }

    fn set_peer_part(&mut self, theirs: Theirs) {
        if let Some(Part::Asks { peer, .. }) = self.grow.as_mut().map(|grow| &mut grow.part) {
            *peer = theirs;
        }
    }

    /// The new size, from what both have room for. Without a wish: whole extents, as at creation.
    fn target(&self, wanted: Option<u64>, own: u64, theirs: u64) -> Result<u64, Refusal> {
        let (node, room) = if own <= theirs {
            (self.settings.node_name.clone(), own)
        } else {
            (self.peer_name(), theirs)
        };
        let size = self.durable.size_sectors;
        let extent = u64::from(self.durable.chunk_sectors);
        let to = wanted.unwrap_or(room / extent * extent);
        if to > room || to <= size {
            let room_bytes = room * SECTOR_BYTES;
            return Err(Refusal::GrowNoRoom { node, room_bytes });
        }
        Ok(to)
    }

    // --- the commit ---------------------------------------------------------------------------

    /// Both have prepared, and the peer has the new size or is not the one that goes first.
    pub(super) fn persist_size(&mut self, effects: &mut Effects) {
        if let Some(Kind::Grow { to_sectors, .. }) = self.change.as_ref().map(|change| &change.kind)
        {
            self.staged.size_sectors = *to_sectors;
            self.staged.prepared_sectors = 0;
            self.set_step(Step::Persist);
            self.persist(Then::Continue, effects);
        }
    }

    /// The new size is durable here.
    pub(in crate::volume) fn size_persisted(&mut self, effects: &mut Effects) {
        let Some(change) = self.change.take() else {
            return;
        };
        let Kind::Grow {
            session,
            id,
            to_sectors,
            command,
        } = change.kind
        else {
            return;
        };
        self.engine.set_size(to_sectors);
        let size_bytes = to_sectors * SECTOR_BYTES;
        effects.push(Effect::Notice(Notice::Grown { size_bytes }));
        if command.is_some() {
            self.answer(command, Ok(Done::Grown), effects);
        } else if self.current == Some(session) {
            self.answer_grow(session, id, GrowStep::Commit, Ok(0), effects);
        }
    }

    /// Both sides come together: the larger size counts (the rejoin table has seen that the smaller side
    /// has prepared it), and an older preparation means nothing any more.
    pub(in crate::volume) fn settle_size(&mut self) {
        let theirs = self
            .current_session()
            .and_then(|session| session.peer_state)
            .filter(|state| !state.volume_id.is_none())
            .map_or(0, |state| state.size_sectors);
        let own = self.staged.size_sectors;
        let size = if mutant::is(Mutant::TornGrowShrinks) && theirs > 0 {
            own.min(theirs)
        } else {
            own.max(theirs)
        };
        if size != own {
            self.staged.size_sectors = size;
            self.engine.set_size(size);
        }
        self.staged.prepared_sectors = 0;
    }

    /// The live device follows the durable size, if the kernel lets it.
    fn fit_device(&mut self, effects: &mut Effects) {
        let size_sectors = self.durable.size_sectors;
        if self.role == Role::Active && self.change.is_none() && self.live_sectors != size_sectors {
            self.live_sectors = size_sectors;
            self.device(DeviceCommand::ResizeLive { size_sectors }, effects);
        }
    }

    // --- the end of a preparation -------------------------------------------------------------

    /// It comes to nothing: who asked is told.
    pub(super) fn give_up_grow(&mut self, refusal: Refusal, effects: &mut Effects) {
        let Some(grow) = self.grow else { return };
        self.drop_preparation();
        let connected = self.up_session() == Some(grow.session);
        match grow.part {
            Part::Asks { command, .. } => {
                if connected {
                    let sectors = grow.from..grow.from;
                    let (session, id) = (grow.session, grow.id);
                    self.send_grow(session, id, GrowStep::Cancel, sectors, effects);
                }
                self.answer(Some(command), Err(refusal), effects);
            }
            Part::Helps if connected => {
                let step = match grow.own {
                    Own::Measures => GrowStep::Measure,
                    Own::Room(_) | Own::Zeroes(_) | Own::Flushes | Own::Notes(_) | Own::Ready => {
                        GrowStep::Prepare
                    }
                };
                let (session, id) = (grow.session, grow.id);
                self.answer_grow(session, id, step, Err(GrowRefused::Busy), effects);
            }
            Part::Helps => {}
        }
    }

    pub(super) fn drop_preparation(&mut self) {
        self.grow = None;
        if self.grow_disk == GrowDisk::Running {
            self.grow_disk = GrowDisk::Stale;
        }
    }

    /// What the status says of it.
    pub(in crate::volume) fn grow_progress(&self) -> Option<GrowProgress> {
        let grow = self.grow?;
        let done = match grow.own {
            Own::Measures | Own::Room(_) => grow.from,
            Own::Zeroes(next) => next,
            Own::Flushes | Own::Notes(_) | Own::Ready => grow.to,
        };
        Some(GrowProgress {
            to_bytes: grow.to * SECTOR_BYTES,
            zeroed_bytes: (done - grow.from) * SECTOR_BYTES,
            new_bytes: (grow.to - grow.from) * SECTOR_BYTES,
        })
    }
}
