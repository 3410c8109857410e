//! Keepalive, read leases and everything that waits for time to pass.

use alloc::vec::Vec;

use crate::effect::Effects;
use crate::engine::{Peer, ReadLease};
use crate::limits::{HANDSHAKE_LIMIT, VOLUME_SECTORS_MAX};
use crate::mutant::{self, Mutant};
use crate::types::{Instant, SECTOR_BYTES, SessionId};
use crate::wire::{Frame, FrameKind};

use super::session::{Phase, Session};
use super::{Told, Volume, lease_with_margin};

impl Volume {
    pub(super) fn ping(&mut self, now: Instant, id: SessionId, effects: &mut Effects) {
        let mut frame = Frame::new(FrameKind::Ping, self.durable.view.epoch, now.as_nanos());
        if let Some(progress) = self.engine.progress() {
            // What is left to copy, in sectors.
            let left_bytes = progress.total_bytes - progress.copied_bytes;
            frame.range.start = left_bytes / SECTOR_BYTES;
        }
        if let Some(session) = self.session(id) {
            session.pinged = now;
        }
        self.send(id, frame, Vec::new(), effects);
    }

    pub(super) fn pinged(
        &mut self,
        now: Instant,
        id: SessionId,
        frame: Frame,
        effects: &mut Effects,
    ) {
        self.granted_until = self
            .granted_until
            .max(now + lease_with_margin(self.settings.read_lease));
        self.note_progress(now, frame.range.start.min(VOLUME_SECTORS_MAX));
        let pong = Frame::new(FrameKind::Pong, self.durable.view.epoch, frame.id);
        self.send(id, pong, Vec::new(), effects);
    }

    fn note_progress(&mut self, now: Instant, left_sectors: u64) {
        let Some(told) = self.told else {
            self.told = Some(Told {
                at: now,
                left_sectors,
                most_sectors: left_sectors,
                rate_bytes_per_s: 0,
            });
            return;
        };
        let millis = u64::try_from(now.since(told.at).as_millis()).unwrap_or(u64::MAX);
        let copied = told.left_sectors.saturating_sub(left_sectors);
        let rate = copied.saturating_mul(SECTOR_BYTES * 1000) / millis.max(1);
        let old = if told.rate_bytes_per_s == 0 {
            rate
        } else {
            told.rate_bytes_per_s
        };
        self.told = Some(Told {
            at: now,
            left_sectors,
            most_sectors: told.most_sectors.max(left_sectors),
            rate_bytes_per_s: old / 4 * 3 + rate / 4,
        });
    }

    /// The lease counts from when it was asked for (S5).
    pub(super) fn ponged(
        &mut self,
        now: Instant,
        id: SessionId,
        frame: Frame,
        effects: &mut Effects,
    ) {
        let mut asked = Instant::from_nanos(frame.id);
        if mutant::is(Mutant::LeaseFromAnswer) {
            asked = now;
        }
        if asked > now {
            return;
        }
        if self.current == Some(id) {
            self.last_answered = self.last_answered.max(Some(asked));
        }
        if self.up_session() != Some(id) {
            return;
        }
        if matches!(self.engine.peer(), Peer::Member(_)) {
            self.engine.set_lease(
                now,
                ReadLease::Until(asked + self.settings.read_lease),
                effects,
            );
        }
    }

    /// Timers of all sessions, and of changes that wait for time to pass.
    pub(super) fn timers(&mut self, now: Instant, effects: &mut Effects) {
        // By place, not from a list of ids: this comes with every event, and asks for no memory.
        for place in 0..self.sessions.len() {
            if let Some(id) = self.sessions.get(place).map(|session| session.id) {
                self.session_timers(now, id, effects);
            }
        }
        self.lease_over(now, effects);
        self.leave_over(now, effects);
        self.invalidate_over(now, effects);
        self.isolation_over(now, effects);
        self.stuck_over(now, effects);
    }

    fn session_timers(&mut self, now: Instant, id: SessionId, effects: &mut Effects) {
        let (keepalive, timeout) = (self.settings.keepalive_interval, self.settings.link_timeout);
        let Some(session) = self.session(id) else {
            return;
        };
        match session.phase {
            Phase::Closing => {}
            Phase::Hello | Phase::Auth => {
                if now.since(session.opened) >= HANDSHAKE_LIMIT {
                    self.close(id, effects);
                }
            }
            Phase::Parting => {
                if now.since(session.heard) >= timeout {
                    self.close(id, effects);
                }
            }
            Phase::State | Phase::Settling | Phase::Up => {
                if now.since(session.heard) >= timeout {
                    self.close(id, effects);
                } else if now.since(session.pinged) >= keepalive {
                    self.ping(now, id, effects);
                    self.withdraw(effects);
                    self.ask_again_to_be_dropped(effects);
                    self.tell_isolation(effects);
                }
            }
        }
    }

    /// When [`crate::event::Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        let mut due = self.engine.background_deadline();
        due = due.filter(|_| self.flushes_in_background());
        for session in &self.sessions {
            due = earlier(due, self.session_deadline(session));
        }
        // Asked after every event: a chain of iterators costs several times as much.
        for other in [
            self.lease_deadline(),
            self.engine.copy_deadline(),
            self.engine.verify_deadline(),
            self.leaving.map(|(_, until)| until),
            self.invalidate_deadline(),
            self.isolation_deadline(),
            self.watch.deadline(),
        ] {
            due = earlier(due, other);
        }
        due
    }

    fn session_deadline(&self, session: &Session) -> Option<Instant> {
        match session.phase {
            Phase::Closing => None,
            Phase::Hello | Phase::Auth => Some(session.opened + HANDSHAKE_LIMIT),
            Phase::Parting => Some(session.heard + self.settings.link_timeout),
            Phase::State | Phase::Settling | Phase::Up => {
                let ping = session.pinged + self.settings.keepalive_interval;
                Some(ping.min(session.heard + self.settings.link_timeout))
            }
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}
