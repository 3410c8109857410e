//! What the daemon's other threads bring: questions and commands of clients, signals, measurements.

use mirror_core::admin::{Command, Outcome, Status};
use mirror_core::event::Event;
use mirror_core::types::Errno;

use super::keep::Keeping;
use super::sizes::note_device_size;
use super::{Asker, Driver, now};
use crate::admin_server::{
    kept_line, keys_line, outcome_line, status_line, too_late_line, too_many_line,
};
use crate::device_control::isolated::with_time;
use crate::front::Front;
use crate::inbox::Message;
use crate::sys;
use crate::tell::tell_signal;

impl<F: Front> Driver<F> {
    /// Takes what the daemon's threads have for it.
    pub(super) fn messages(&mut self) {
        while let Some(message) = self.parts.inbox.take() {
            match message {
                Message::Status(answer) => {
                    drop(answer.send(status_line(&self.status())));
                }
                Message::Command {
                    command,
                    waits,
                    answer,
                } if waits.is_over() => {
                    tracing::warn!(code = "LS1084", ?command, "a command came too late");
                    drop(answer.send(too_late_line()));
                }
                Message::Command {
                    command, answer, ..
                } => self.command(command, answer),
                Message::Keys(keys, answer) => {
                    self.feed(Event::Keys(keys));
                    drop(answer.send(keys_line(keys.place())));
                }
                Message::Kept(kept, verdict) => self.kept(kept, verdict),
                Message::Signal(name) => self.operator(Command::Stop, Asker::Signal(name)),
                Message::DeviceUse { generation, in_use } => {
                    if let Some(device) = &mut self.parts.device {
                        device.on_use(generation, in_use);
                    }
                }
                Message::Backing { id, sectors } => {
                    let sectors = sectors.map_err(Errno);
                    self.feed(Event::BackingMeasured { id, sectors });
                }
            }
        }
    }

    pub(super) fn operator(&mut self, command: Command, asker: Asker) {
        if !asker.finds_room(self.askers.len()) {
            if let Asker::Client(answer) | Asker::Resolver(answer, _) = asker {
                drop(answer.send(too_many_line()));
            }
            return;
        }
        let command_id = self.next_command;
        self.next_command += 1;
        self.askers.insert(command_id, asker);
        self.feed(sys::wall_clock());
        self.feed(Event::Operator {
            command_id,
            command: with_time(command),
        });
    }

    fn status(&self) -> Status {
        let mut status = self.parts.volume.status(now());
        if let Some(device) = &self.parts.device {
            device.name_in(&mut status);
        }
        status.link.paths = self.parts.link.path_status();
        status.problems.extend(self.parts.link.path_problems());
        note_device_size(&mut status, self.parts.device.as_ref());
        status.keeping = self.keeping.as_ref().map(Keeping::status);
        status
    }

    /// Tells whoever asked.
    pub(super) fn reply(&mut self, command_id: u64, outcome: &Outcome) {
        match self.askers.remove(&command_id) {
            Some(Asker::Client(answer)) => drop(answer.send(outcome_line(outcome))),
            Some(Asker::Resolver(answer, kept)) => drop(answer.send(kept_line(outcome, &kept))),
            Some(Asker::Signal(name)) => tell_signal(name, outcome),
            None => tracing::error!(command_id, "an answer to nobody"),
        }
    }
}
