//! Online grow: the new area is made equal on both backing devices before anybody can see it (S7).
//!
//! 1. Both nodes *measure* what there is room for.
//! 2. Both *prepare*: zeroes over the new area, a flush, and a durable note (`prepared_sectors`) that says
//!    so. Nothing of this is visible, and any other change of the volume ends it.
//! 3. The other node *commits* the new size durably, then the asking node, then the device.
//!
//! The size never shrinks, and no node has a larger one before both have prepared it. So whoever finds a
//! larger size on the other side, and has prepared it, takes it over when they come together: an
//! interrupted grow needs nobody's decision (docs/adr/0007-online-grow.md).

mod steps;

use crate::admin::{Done, Outcome, Role};
use crate::effect::{Effect, Effects};
use crate::limits::GROW_PIECE_SECTORS;
use crate::notice::Refusal;
use crate::types::{SECTOR_BYTES, SectorRange, SessionId};
use crate::wire::{Frame, FrameKind, Grow, GrowDone, GrowRefused, GrowStep};

use super::Volume;
use super::change::{Kind, Step};

/// A grow that is being prepared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preparation {
    session: SessionId,
    /// Pairs answers with this grow.
    id: u64,
    part: Part,
    own: Own,
    from: u64,
    /// As large as `from` until it is known.
    to: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// An operator asked here.
    Asks {
        command: u64,
        wanted: Option<u64>,
        peer: Theirs,
    },
    /// An operator asked on the peer.
    Helps,
}

/// How far the peer is, as far as it has said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theirs {
    Asked,
    Room(u64),
    Prepares,
    Ready,
}

/// How far this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Measures,
    Room(u64),
    /// Zeroes are written from here on.
    Zeroes(u64),
    Flushes,
    /// The note is being made durable in this superblock.
    Notes(u64),
    Ready,
}

/// The disk operation of a preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrowDisk {
    None,
    /// The present preparation's.
    Running,
    /// Of one that came to nothing: the next one's begins when it has ended.
    Stale,
}

impl Volume {
    /// An operator wants a larger volume.
    pub(super) fn grow(
        &mut self,
        id: u64,
        size_bytes: Option<u64>,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        if let Some(refusal) = self.obstacle().or_else(|| self.grow_obstacle()) {
            return Some(Err(refusal));
        }
        let Some(session) = self.up_session() else {
            let peer = self.peer_name();
            return Some(Err(Refusal::PeerSilent { peer }));
        };
        let from = self.durable.size_sectors;
        let wanted = match size_bytes.map(|bytes| self.wanted_sectors(bytes)) {
            Some(Err(refusal)) => return Some(Err(refusal)),
            Some(Ok(wanted)) if wanted == from => return Some(Ok(Done::AlreadyGrown)),
            Some(Ok(wanted)) => Some(wanted),
            None => None,
        };
        let part = Part::Asks {
            command: id,
            wanted,
            peer: Theirs::Asked,
        };
        // The shell numbers the commands of one run of the daemon; a session does not outlive it.
        self.begin_preparation(session, id, part, effects);
        self.send_grow(session, id, GrowStep::Measure, from..from, effects);
        None
    }

    fn grow_obstacle(&self) -> Option<Refusal> {
        let peer = self.peer_name();
        if self.is_blank() {
            Some(Refusal::Blank { peer })
        } else if !self.is_member() {
            let copying = self.durable.copy.is_some();
            Some(Refusal::CopyNotCurrent { copying })
        } else if !self.peer_counts() {
            Some(Refusal::GrowNeedsBoth { peer })
        } else if self.role == Role::Fenced && self.peer_serving {
            Some(Refusal::PeerActive { peer })
        } else if !matches!(self.role, Role::Fenced | Role::Active) || self.grow.is_some() {
            Some(Refusal::Busy)
        } else {
            None
        }
    }

    fn wanted_sectors(&self, bytes: u64) -> Result<u64, Refusal> {
        let block_bytes = u64::from(self.durable.logical_block_bytes);
        let size_bytes = self.durable.size_sectors * SECTOR_BYTES;
        if bytes < size_bytes {
            Err(Refusal::GrowShrinks { size_bytes })
        } else if !bytes.is_multiple_of(block_bytes) {
            Err(Refusal::GrowUneven { block_bytes })
        } else {
            Ok(bytes / SECTOR_BYTES)
        }
    }

    fn begin_preparation(
        &mut self,
        session: SessionId,
        id: u64,
        part: Part,
        effects: &mut Effects,
    ) {
        let from = self.durable.size_sectors;
        self.grow = Some(Preparation {
            session,
            id,
            part,
            own: Own::Measures,
            from,
            to: from,
        });
        self.measures += 1;
        effects.push(Effect::MeasureBacking { id: self.measures });
    }

    fn send_grow(
        &self,
        session: SessionId,
        id: u64,
        step: GrowStep,
        sectors: core::ops::Range<u64>,
        effects: &mut Effects,
    ) {
        let frame = Frame::new(FrameKind::Grow, self.durable.view.epoch, id);
        let grow = Grow {
            step,
            from_sectors: sectors.start,
            to_sectors: sectors.end,
        };
        self.send(session, frame, grow.encode().to_vec(), effects);
    }

    fn answer_grow(
        &self,
        session: SessionId,
        id: u64,
        step: GrowStep,
        answer: Result<u64, GrowRefused>,
        effects: &mut Effects,
    ) {
        let frame = Frame::new(FrameKind::GrowDone, self.durable.view.epoch, id);
        let done = GrowDone {
            step,
            refused: answer.err(),
            room_sectors: answer.unwrap_or(0),
        };
        self.send(session, frame, done.encode().to_vec(), effects);
    }

    // --- what the peer says -------------------------------------------------------------------

    /// The peer asks for a step. Returns whether the frame was legal here.
    pub(super) fn grow_asked(
        &mut self,
        session: SessionId,
        frame: &Frame,
        asked: Grow,
        effects: &mut Effects,
    ) -> bool {
        if self.current != Some(session) {
            return false;
        }
        if self.up_session().is_none() {
            // The peer was quicker: it is up already.
            if asked.step != GrowStep::Cancel {
                let busy = Err(GrowRefused::Busy);
                self.answer_grow(session, frame.id, asked.step, busy, effects);
            }
            return true;
        }
        let ours = self
            .grow
            .filter(|grow| matches!(grow.part, Part::Helps) && grow.id == frame.id);
        let done = match asked.step {
            GrowStep::Cancel => {
                if ours.is_some() {
                    self.drop_preparation();
                }
                return true;
            }
            GrowStep::Measure => self.help(session, frame.id, asked, effects),
            GrowStep::Prepare => self.prepare(ours, asked),
            GrowStep::Commit => self.commit(session, ours, asked, effects),
        };
        if let Err(refused) = done {
            if ours.is_some() {
                self.drop_preparation();
            }
            self.answer_grow(session, frame.id, asked.step, Err(refused), effects);
        }
        true
    }

    fn help(
        &mut self,
        session: SessionId,
        id: u64,
        asked: Grow,
        effects: &mut Effects,
    ) -> Result<(), GrowRefused> {
        self.yield_grow(effects);
        // A preparation of the peer that it has given up meanwhile is no obstacle.
        if self
            .grow
            .is_some_and(|grow| matches!(grow.part, Part::Helps))
        {
            self.drop_preparation();
        }
        let free = self.obstacle().is_none() && self.grow_obstacle_of_peer().is_none();
        if !free || asked.from_sectors != self.durable.size_sectors {
            return Err(GrowRefused::Busy);
        }
        self.begin_preparation(session, id, Part::Helps, effects);
        Ok(())
    }

    /// As for an operator here, but the peer may be serving.
    fn grow_obstacle_of_peer(&self) -> Option<Refusal> {
        self.grow_obstacle()
            .filter(|refusal| !matches!(refusal, Refusal::PeerActive { .. }))
    }

    /// Operators asked on both nodes at the same moment: the lower number wins.
    fn yield_grow(&mut self, effects: &mut Effects) {
        if self.settings.peer < self.me()
            && let Some(Part::Asks { command, .. }) = self.grow.map(|grow| grow.part)
        {
            self.drop_preparation();
            self.answer(Some(command), Err(Refusal::Busy), effects);
        }
    }

    fn prepare(&mut self, ours: Option<Preparation>, asked: Grow) -> Result<(), GrowRefused> {
        let grow = ours.ok_or(GrowRefused::Busy)?;
        let Own::Room(room) = grow.own else {
            return Err(GrowRefused::Busy);
        };
        if asked.from_sectors != grow.from || asked.to_sectors == grow.from {
            return Err(GrowRefused::Busy);
        }
        if asked.to_sectors > room {
            return Err(GrowRefused::NoRoom);
        }
        self.zero_from_the_end(asked.to_sectors);
        Ok(())
    }

    fn commit(
        &mut self,
        session: SessionId,
        ours: Option<Preparation>,
        asked: Grow,
        effects: &mut Effects,
    ) -> Result<(), GrowRefused> {
        let grow = ours.ok_or(GrowRefused::Busy)?;
        let same = (asked.from_sectors, asked.to_sectors) == (grow.from, grow.to);
        if grow.own != Own::Ready || !same || self.obstacle().is_some() {
            return Err(GrowRefused::Busy);
        }
        self.grow = None;
        let kind = Kind::Grow {
            session,
            id: grow.id,
            to_sectors: grow.to,
            command: None,
        };
        if !self.begin_change(kind, Step::Accept, None) {
            return Err(GrowRefused::Busy);
        }
        self.persist_size(effects);
        Ok(())
    }

    /// The peer has answered.
    pub(super) fn grow_answered(
        &mut self,
        session: SessionId,
        frame: &Frame,
        done: GrowDone,
        effects: &mut Effects,
    ) {
        if done.step == GrowStep::Commit {
            return self.peer_committed(session, frame.id, done, effects);
        }
        let Some(grow) = self
            .grow
            .as_mut()
            .filter(|grow| grow.id == frame.id && grow.session == session)
        else {
            return;
        };
        let Part::Asks { peer, .. } = &mut grow.part else {
            return;
        };
        match (done.refused, done.step, *peer) {
            (Some(refused), _, _) => {
                let peer = self.peer_name();
                let refusal = match refused {
                    GrowRefused::Busy => Refusal::PeerRefused { peer },
                    GrowRefused::NoRoom => Refusal::GrowNoRoom {
                        node: peer,
                        room_bytes: done.room_sectors * SECTOR_BYTES,
                    },
                };
                self.give_up_grow(refusal, effects);
            }
            (None, GrowStep::Measure, Theirs::Asked) => *peer = Theirs::Room(done.room_sectors),
            (None, GrowStep::Prepare, Theirs::Prepares) => *peer = Theirs::Ready,
            (None, _, _) => {}
        }
    }

    fn peer_committed(
        &mut self,
        session: SessionId,
        id: u64,
        done: GrowDone,
        effects: &mut Effects,
    ) {
        let Some(change) = self.change.as_ref() else {
            return;
        };
        let (
            Kind::Grow {
                session: of,
                id: known,
                command,
                ..
            },
            Step::Accept,
        ) = (&change.kind, &change.step)
        else {
            return;
        };
        if (*of, *known) != (session, id) {
            return;
        }
        if done.refused.is_none() {
            return self.persist_size(effects);
        }
        let (command, peer) = (*command, self.peer_name());
        self.change = None;
        self.answer(command, Err(Refusal::PeerRefused { peer }), effects);
    }
}

impl Preparation {
    /// The piece of the new area that begins at `next`.
    fn piece(&self, next: u64) -> SectorRange {
        let count = (self.to - next).min(u64::from(GROW_PIECE_SECTORS));
        SectorRange::new(next, u32::try_from(count).unwrap_or(GROW_PIECE_SECTORS))
    }
}
