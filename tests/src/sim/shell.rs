//! The simulated shell of a node: executes the core's effects.

use mirror_core::admin::Done;
use mirror_core::disk::{BLOCK_BYTES, Superblock};
use mirror_core::effect::{DiskOperation, Effect, PayloadSource};
use mirror_core::event::{DiskResult, Event, IoOwner};
use mirror_core::types::{Errno, SessionId};
use mirror_core::wire::{Frame, FrameKind};

use super::ambush::{Moment, aborts};
use super::disk::{Running, Value};
use super::grow::Sized;
use super::metadata::Written;
use super::network::{InTransit, Message};
use super::node::MS;
use super::world::{Happening, Mutant, World};

impl World {
    pub(super) fn effect(&mut self, node: usize, process: u64, effect: Effect) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        self.spot(node, &effect);
        match effect {
            Effect::Complete { tag, result } => self.complete(node, process, tag, result),
            Effect::Disk {
                owner,
                operation,
                range,
            } => self.disk(node, process, owner, operation, range),
            Effect::Abandon { owner } => self.give_up(node, process, owner),
            Effect::AbandonMetadata => self.give_up_metadata(node),
            Effect::Disown => self.disown(node, process),
            Effect::DisownWrites => self.disown_writes(node),
            Effect::DisownMembership => self.disown_membership(node),
            Effect::Examine { slot, digest, .. } => self.examine(node, process, slot, digest),
            Effect::Persist(superblock) => self.persist(node, process, superblock),
            Effect::WriteBlock {
                id,
                offset_bytes,
                block,
            } => {
                self.note(|| format!("{node} metadata block {id} at {offset_bytes}"));
                self.write_block(node, process, id, offset_bytes, block);
            }
            Effect::Send {
                session,
                frame,
                body,
                payload,
            } => self.send(node, process, session, frame, body, payload),
            Effect::Close { session } => self.close(node, process, session),
            Effect::ReleaseBuffer { slot } => self.release(node, slot),
            Effect::FillRequest { tag, slot, range } => self.fill_request(node, tag, slot, range),
            Effect::MeasureBacking { id } => self.measure(node, process, id),
            Effect::Device(command) => self.device_command(node, process, command),
            Effect::Reply {
                command_id,
                outcome,
            } => {
                self.note(|| format!("{node} answers {command_id}: {outcome:?}"));
                let key = match &outcome {
                    Ok(done) => format!("answer {done:?}"),
                    Err(refusal) => format!("refusal {}", first_word(&format!("{refusal:?}"))),
                };
                self.count(&key);
                if matches!(outcome, Ok(Done::Invalidated | Done::Attached)) {
                    // It closes the connection, to be filled on the next one.
                    self.disturb();
                }
                self.check_answer(node, process, &outcome);
                self.count_isolation(&outcome);
                self.word_answered(command_id);
                if self.answers.insert(command_id, outcome).is_some() {
                    self.fail(format!("command {command_id} was answered twice"));
                }
            }
            Effect::Notice(notice) => self.noticed(node, &notice),
            Effect::Exit => {
                self.note(|| format!("{node} exits"));
                self.count("daemon exits");
                self.exit(node);
            }
        }
    }

    fn write_block(
        &mut self,
        node: usize,
        process: u64,
        id: u64,
        offset_bytes: u64,
        block: Box<[u8; BLOCK_BYTES]>,
    ) {
        self.count("metadata blocks");
        self.check_metadata_write(node, process);
        let (mark, evicts) = self.nodes[node].meta.kind_of(offset_bytes, &block);
        self.count(mark);
        if evicts {
            self.count("evictions");
            self.spring(node, Moment::Evicts);
        } else if mark == "page writes" {
            self.spring(node, Moment::Pages);
        }
        let early = Happening::EarlyBlock { node, process, id };
        if self.plan.mutant == Some(Mutant::DropBlock) {
            self.at(MS / 2, early);
            return;
        }
        if self.plan.mutant == Some(Mutant::EarlyBlock) {
            self.at(0, early);
        }
        if self.nodes[node].meta.write(id, offset_bytes, block) {
            self.plan_meta_step(node, process);
        }
    }

    fn persist(&mut self, node: usize, process: u64, superblock: Box<Superblock>) {
        self.note(|| {
            format!(
                "{node} persist {} view {:?} sealed {} serving {} drained {} copy {:?} size {} prepared {}",
                superblock.sequence,
                superblock.view,
                superblock.sealed,
                superblock.serving,
                superblock.drained,
                superblock.copy,
                superblock.size_sectors,
                superblock.prepared_sectors
            )
        });
        self.trouble_at_a_step(node, &superblock);
        self.check_metadata_write(node, process);
        if self.plan.mutant == Some(Mutant::EarlyPersist) {
            self.at(
                0,
                Happening::EarlyPersisted {
                    node,
                    process,
                    sequence: superblock.sequence,
                },
            );
        }
        if self.nodes[node].meta.persist(superblock) {
            self.plan_meta_step(node, process);
        }
    }

    // --- disks --------------------------------------------------------------------------------

    fn disk(
        &mut self,
        node: usize,
        process: u64,
        owner: IoOwner,
        operation: DiskOperation,
        range: mirror_core::types::SectorRange,
    ) {
        self.check_disk_start(node, owner, operation, range);
        let place = &mut self.nodes[node];
        let data: Vec<Value> = match (operation, owner) {
            (DiskOperation::Write { .. }, IoOwner::Application(tag)) => place
                .device
                .as_ref()
                .and_then(|device| device.slots[usize::from(tag.0)].as_ref())
                .map(|outstanding| outstanding.data.clone())
                .unwrap_or_default(),
            (DiskOperation::Write { .. }, IoOwner::Peer(slot)) => place
                .process
                .as_ref()
                .and_then(|process| process.receive[usize::from(slot)].clone())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        if matches!(operation, DiskOperation::Write { .. }) && data.len() != range.count as usize {
            self.fail(format!(
                "{node}: {owner:?} writes {range:?} from a buffer of {} sectors",
                data.len()
            ));
            return;
        }
        if let IoOwner::Application(tag) = owner
            && let Some(device) = place.device.as_mut()
            && let Some(outstanding) = device.slots[usize::from(tag.0)].as_mut()
        {
            outstanding.visited = true;
        }
        if owner == IoOwner::ViewFlush {
            self.nodes[node].view_flush = self.model.tick();
        }
        self.check_serve_buffer(node, process, owner);
        self.check_rewrite_is_named(node, owner, operation, range);
        if let IoOwner::Copy(slot) = owner {
            let now = self.now;
            if self
                .network
                .reuse(node, process, PayloadSource::Copy(slot), now)
            {
                self.count("copy buffer reused before it was sent");
            }
        }
        let ticket = self.nodes[node]
            .data
            .start(&mut self.rng, owner, operation, range, data);
        self.note_begin(node, owner);
        let after = self.disk_time(node, owner, operation);
        let boot = self.nodes[node].boots;
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

    fn disk_time(&mut self, node: usize, owner: IoOwner, operation: DiskOperation) -> u64 {
        let habits = self.plan.habits;
        let flush = operation == DiskOperation::Flush;
        if flush && habits.slow_flushes[node] && self.rng.percent(60) {
            return self.micros(20_000, 400_000);
        }
        let write = !flush && operation != DiskOperation::Read;
        let longest = match owner {
            IoOwner::Application(_) => habits.slow_writes_ms[node] * 1000,
            IoOwner::Peer(_) => habits.slow_peer_writes_ms * 1000,
            IoOwner::Copy(_)
            | IoOwner::Serve(_)
            | IoOwner::ViewFlush
            | IoOwner::LogFlush
            | IoOwner::Grow => 0,
        };
        if write && longest > 0 && self.rng.percent(15) {
            return self.micros(10_000, longest);
        }
        let slow = self.plan.slow_disk && operation != DiskOperation::Read;
        if slow && self.rng.percent(3) {
            self.micros(80_000, 400_000)
        } else if operation == DiskOperation::Flush {
            self.micros(200, 5000)
        } else if matches!(owner, IoOwner::Copy(_)) && self.plan.slow_copy_ms > 0 {
            self.micros(100, self.plan.slow_copy_ms * 1000)
        } else if self.rng.percent(2) {
            self.micros(1000, 80_000)
        } else {
            self.micros(40, 900)
        }
    }

    pub(super) fn disk_done(&mut self, node: usize, process: u64, ticket: u64) {
        let place = &mut self.nodes[node];
        let Some(started) = place
            .data
            .running
            .iter()
            .find(|running| running.ticket == ticket)
        else {
            return;
        };
        let flush = started.operation == DiskOperation::Flush;
        let peer = matches!(started.owner, IoOwner::Peer(_));
        let skipped = match self.plan.mutant {
            Some(Mutant::SkipFlush) => flush && !peer,
            Some(Mutant::SkipPeerFlush) => flush && peer,
            _ => false,
        };
        let fails = place.data.failing && (started.changes() || flush);
        if fails && (flush || self.rng.percent(50)) {
            if flush && self.rng.percent(50) {
                self.nodes[node].data.lose_unflushed();
                self.nobody_hears(node, process);
            }
            let place = &mut self.nodes[node];
            // Nothing of it landed.
            if let Some(running) = place.data.forget(ticket) {
                self.disk_told(node, process, running.owner, Err(Errno::EIO));
            }
            return;
        }
        let Some((running, read)) = (if skipped {
            place
                .data
                .forget(ticket)
                .map(|running| (running, Vec::new()))
        } else {
            place.data.finish(ticket)
        }) else {
            return;
        };
        if running.changes() {
            let value = place.data.content[usize::try_from(running.range.start).unwrap_or(0)];
            self.model.landed(node, value);
            self.overwritten(node, running.range);
        }
        if !self.nodes[node].process_is(process) {
            return;
        }
        self.keep_read(node, &running, read);
        let result = if fails { Err(Errno::EIO) } else { Ok(()) };
        self.disk_told(node, process, running.owner, result);
    }

    /// What was read, or written, is where it belongs.
    fn keep_read(&mut self, node: usize, running: &Running, read: Vec<Value>) {
        match running.owner {
            IoOwner::Application(tag) if running.operation == DiskOperation::Read => {
                self.isolated_read(node, tag, &read);
                let device = self.nodes[node].device.as_mut();
                if let Some(outstanding) =
                    device.and_then(|device| device.slots[usize::from(tag.0)].as_mut())
                {
                    outstanding.data = read;
                }
            }
            IoOwner::Copy(slot) => {
                self.care.aside.holds(node, running.range);
                let lost = self.plan.mutant == Some(Mutant::DropCopy);
                if let Some(process) = self.nodes[node].process.as_mut() {
                    let read = if lost { vec![0; read.len()] } else { read };
                    process.copy[usize::from(slot)] = read;
                }
            }
            IoOwner::ViewFlush => self.nodes[node].view_flushed = self.nodes[node].view_flush,
            IoOwner::Serve(slot) => {
                if let Some(process) = self.nodes[node].process.as_mut() {
                    process.served[usize::from(slot)] = read;
                }
            }
            IoOwner::Application(tag) => self.note_rewritten(node, tag),
            IoOwner::LogFlush | IoOwner::Peer(_) | IoOwner::Grow => {}
        }
    }

    pub(super) fn disk_told(
        &mut self,
        node: usize,
        process: u64,
        owner: IoOwner,
        result: DiskResult,
    ) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        if result.is_err() {
            self.goes_back(node);
            self.count("disk error");
            self.note_rewrite_failed(node, owner);
            // What it had not flushed is in doubt, as after a power cut; a second fault may lose it.
            self.model.power_cut(node);
            if let Some(process) = self.nodes[node].process.as_mut() {
                process.write_errors += 1;
            }
        }
        self.feed(node, Event::DiskDone { owner, result });
    }

    pub(super) fn meta_step(&mut self, node: usize, process: u64) {
        if !self.nodes[node].process_is(process) {
            return;
        }
        if self.metadata_holds_back(node, process) {
            return;
        }
        if self.nodes[node].meta.failing {
            self.nodes[node].meta.fail();
            self.count("metadata error");
            self.metadata_are_lost(node);
            self.feed(node, Event::PersistFailed { errno: Errno::EIO });
            return;
        }
        let before = self.nodes[node].view();
        let sized = Sized::of(self.nodes[node].meta.peek());
        let written = self.nodes[node].meta.step();
        if !self.nodes[node].meta.is_idle() {
            self.plan_meta_step(node, process);
        }
        self.size_is_durable(node, sized);
        let after = self.nodes[node].view();
        if before != after {
            self.view_is_durable(node, &before, &after);
        }
        self.check_isolation(node);
        match written {
            // It was told before.
            Some(Written::Superblock(_)) if self.plan.mutant == Some(Mutant::EarlyPersist) => {}
            Some(Written::Superblock(sequence)) => {
                if aborts(self.nodes[node].meta.peek()) {
                    self.spring(node, Moment::Aborted);
                }
                self.feed(node, Event::Persisted { sequence });
            }
            Some(Written::Block { .. }) if self.plan.mutant == Some(Mutant::EarlyBlock) => {}
            Some(Written::Block { id, cleared }) => {
                self.check_what_is_named_no_more(node, &cleared);
                self.feed(node, Event::BlockWritten { id });
            }
            None => {}
        }
    }

    fn plan_meta_step(&mut self, node: usize, process: u64) {
        self.nodes[node].meta.began = self.now;
        let after = self.persist_time();
        self.at(after, Happening::MetaStep { node, process });
    }

    fn persist_time(&mut self) -> u64 {
        let often = if self.plan.habits.slow_metadata {
            30
        } else {
            3
        };
        let slow = self.rng.percent(often);
        self.micros(100, if slow { 80_000 } else { 1500 })
    }

    /// What a copy buffer holds; the answer comes a little later.
    fn examine(&mut self, node: usize, process: u64, slot: u16, digest: bool) {
        let Some(held) = self.nodes[node].process.as_ref() else {
            return;
        };
        let values = &held.copy[usize::from(slot)];
        let zero = values.iter().all(|value| *value == 0);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let digest = digest.then(|| mirror_core::checksum::digest(&bytes));
        let after = self.micros(1, 100);
        self.at(
            after,
            Happening::Examined {
                node,
                process,
                slot,
                zero,
                digest,
            },
        );
    }

    fn release(&mut self, node: usize, slot: u16) {
        if self.releases_later(node, slot) {
            return;
        }
        let place = &mut self.nodes[node];
        let busy = place
            .data
            .running
            .iter()
            .any(|running| running.owner == IoOwner::Peer(slot));
        let freed = place
            .process
            .as_mut()
            .and_then(|process| process.receive.get_mut(usize::from(slot))?.take());
        if freed.is_none() {
            self.fail(format!(
                "{node}: receive buffer {slot} was released, but it was free"
            ));
        } else if busy {
            self.fail(format!(
                "{node}: receive buffer {slot} was released while a disk operation uses it (I15)"
            ));
        }
    }

    // --- frames -------------------------------------------------------------------------------

    fn send(
        &mut self,
        node: usize,
        process: u64,
        session: SessionId,
        frame: Frame,
        body: Vec<u8>,
        payload: Option<PayloadSource>,
    ) {
        if self.plan.mutant == Some(Mutant::ForgeDone) && frame.kind == FrameKind::Write {
            let frame = Box::new(Frame::new(FrameKind::Done, frame.epoch, frame.id));
            self.at(
                0,
                Happening::Forged {
                    node,
                    process,
                    session,
                    frame,
                },
            );
        }
        let data = payload.map(|source| self.payload(node, source));
        self.check_pause(node, process, frame.kind);
        let Some(number) = self.network.find(node, process, session) else {
            return;
        };
        let (now, delay) = (self.now, self.micros(20, 400));
        let pong = frame.kind == FrameKind::Pong && self.plan.habits.slow_pongs;
        let slow = if pong && self.rng.percent(60) {
            self.micros(20_000, 70_000)
        } else if self.plan.slow_network && self.rng.percent(10) {
            self.micros(1000, 80_000)
        } else if self.rng.percent(1) {
            self.micros(100, 30_000)
        } else {
            0
        };
        let sending = self.micros(1, 200);
        if !matches!(
            frame.kind,
            FrameKind::Ping | FrameKind::Pong | FrameKind::CopyWrite | FrameKind::CopyDone
        ) {
            self.note(|| {
                format!(
                    "{node} sends {:?} id {} epoch {} {:?}",
                    frame.kind, frame.id, frame.epoch, frame.range
                )
            });
        }
        let detour = self.plan.detour_us * 1000;
        let Some(connection) = self.network.connections.get_mut(&number) else {
            return;
        };
        let delay = if connection.path > 0 {
            delay + detour
        } else {
            delay
        };
        let end = &mut connection.ends[node];
        let earliest = end.out.back().map_or(now, |last| last.arrives);
        let sent_before = end.out.back().map_or(now, |last| last.sent);
        let arrives = earliest.max(now + delay + slow);
        let sent = sent_before.max(now + sending).min(arrives);
        let message = Message::Frame { frame, body, data };
        end.out.push_back(InTransit {
            arrives,
            sent,
            source: payload,
            altered: false,
            message,
        });
        self.at(
            arrives - now,
            Happening::Arrive {
                connection: number,
                from: node,
            },
        );
    }

    fn payload(&self, node: usize, source: PayloadSource) -> Vec<Value> {
        let place = &self.nodes[node];
        match source {
            PayloadSource::Application(tag) => place
                .device
                .as_ref()
                .and_then(|device| device.slots[usize::from(tag.0)].as_ref())
                .map(|outstanding| outstanding.data.clone())
                .unwrap_or_default(),
            PayloadSource::Copy(slot) => place
                .process
                .as_ref()
                .map(|process| process.copy[usize::from(slot)].clone())
                .unwrap_or_default(),
            PayloadSource::Serve(slot) => place
                .process
                .as_ref()
                .map(|process| process.served[usize::from(slot)].clone())
                .unwrap_or_default(),
        }
    }
}

pub(super) fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}
