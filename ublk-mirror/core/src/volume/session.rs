//! Connections: handshake with proof of the key, keepalive, loss. Nothing of a peer is believed, and no
//! data frame accepted, before it has proved the key and both sides agreed on a view.

use alloc::vec::Vec;

use crate::auth::{self, End};
use crate::effect::{Effect, Effects};
use crate::engine::Peer;
use crate::event::CloseReason;
use crate::keys::Secret;
use crate::mutant::{self, Mutant};
use crate::notice::{Notice, Refusal};
use crate::types::{BootId, Epoch, Instant, SessionId};
use crate::wire::{
    Accept, Auth, DecodeError, Evidence, FEATURES, Frame, FrameKind, Grow, GrowDone, Hello, Marks,
    PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Propose, Purpose, Refused, RefusedCode, State,
};

use super::Volume;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Hello was sent; the peer's is expected.
    Hello,
    /// Proof was sent; the peer's is expected.
    Auth,
    /// The key is proved on both sides; states are exchanged.
    State,
    /// A view is being agreed on.
    Settling,
    /// Agreed.
    Up,
    /// Refused for a split brain: what the other side has is expected.
    Parting,
    /// Being closed: nothing more is accepted.
    Closing,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) phase: Phase,
    dialled: bool,
    pub(super) opened: Instant,
    pub(super) heard: Instant,
    pub(super) pinged: Instant,
    own_hello: [u8; 128],
    peer_hello: [u8; 128],
    pub(super) state_sent: bool,
    pub(super) peer_state: Option<State>,
    pub(super) own_state: Option<State>,
    /// The epoch that was settled on; frames carry it or a later one. 0: not settled.
    pub(super) epoch: Epoch,
}

impl Volume {
    pub(super) fn session_opened(
        &mut self,
        now: Instant,
        id: SessionId,
        dialled: bool,
        effects: &mut Effects,
    ) {
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            features: FEATURES,
            node: self.me(),
            peer: self.settings.peer,
            cluster_id: self.settings.keys.cluster(),
            nonce: self.entropy.bytes32(),
            volume_name: self.settings.volume_name,
        };
        let own_hello = hello.encode();
        self.sessions.push(Session {
            id,
            phase: Phase::Hello,
            dialled,
            opened: now,
            heard: now,
            pinged: now,
            own_hello,
            peer_hello: [0; 128],
            state_sent: false,
            peer_state: None,
            own_state: None,
            epoch: Epoch(0),
        });
        self.send(
            id,
            Frame::new(FrameKind::Hello, Epoch(0), 0),
            own_hello.to_vec(),
            effects,
        );
    }

    /// Sends a frame with a control body (or none).
    pub(super) fn send(
        &self,
        session: SessionId,
        mut frame: Frame,
        body: Vec<u8>,
        effects: &mut Effects,
    ) {
        frame.length_bytes = u32::try_from(body.len()).unwrap_or(0);
        effects.push(Effect::Send {
            session,
            frame,
            body,
            payload: None,
        });
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    pub(super) fn current_session(&self) -> Option<&Session> {
        self.sessions
            .iter()
            .find(|session| Some(session.id) == self.current)
    }

    pub(super) fn current_peer_boot(&self) -> Option<BootId> {
        self.current_session()?.peer_state.map(|state| state.boot)
    }

    /// The session that both sides agreed on.
    pub(super) fn up_session(&self) -> Option<SessionId> {
        self.current_session()
            .filter(|session| session.phase == Phase::Up)
            .map(|session| session.id)
    }

    pub(super) fn close(&mut self, id: SessionId, effects: &mut Effects) {
        if let Some(session) = self.session(id)
            && session.phase != Phase::Closing
        {
            session.phase = Phase::Closing;
            effects.push(Effect::Close { session: id });
            if self.current == Some(id) {
                self.engine.halt_copy();
            }
        }
    }

    /// Tells the peer why, then closes.
    pub(super) fn refuse(
        &mut self,
        id: SessionId,
        code: RefusedCode,
        ours: u64,
        theirs: u64,
        effects: &mut Effects,
    ) {
        self.tell_refusal(id, code, ours, theirs, effects);
        self.close(id, effects);
    }

    /// Tells the peer why.
    pub(super) fn tell_refusal(
        &mut self,
        id: SessionId,
        code: RefusedCode,
        ours: u64,
        theirs: u64,
        effects: &mut Effects,
    ) {
        let body = Refused {
            code,
            ours,
            yours: theirs,
        }
        .encode()
        .to_vec();
        self.send(
            id,
            Frame::new(FrameKind::Refused, Epoch(0), 0),
            body,
            effects,
        );
        let notice = Notice::RefusedPeer { code, ours, theirs };
        self.note_refusal(notice, effects);
    }

    /// The same refusal again and again is told once.
    fn note_refusal(&mut self, notice: Notice, effects: &mut Effects) {
        let problem = notice.problem();
        if self.last_refusal.as_ref() != Some(&problem) {
            self.last_refusal = Some(problem);
            effects.push(Effect::Notice(notice));
        }
    }

    fn failure_code(&self) -> RefusedCode {
        if self.metadata_only {
            RefusedCode::MetadataFailed
        } else {
            RefusedCode::DiskFailed
        }
    }

    pub(super) fn refuse_all_sessions(&mut self, effects: &mut Effects) {
        let ids: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        for id in ids {
            let body = Refused {
                code: self.failure_code(),
                ours: 0,
                yours: 0,
            }
            .encode()
            .to_vec();
            self.send(
                id,
                Frame::new(FrameKind::Refused, Epoch(0), 0),
                body,
                effects,
            );
            self.close(id, effects);
        }
    }

    /// A frame came.
    pub(super) fn received(
        &mut self,
        now: Instant,
        id: SessionId,
        frame: Frame,
        body: &[u8],
        buffer: Option<u16>,
        effects: &mut Effects,
    ) {
        let phase = self.heard(now, id);
        let handled = match (phase, frame.kind) {
            (None | Some(Phase::Closing), _) => Ok(false),
            (Some(_), FrameKind::Refused) => {
                Refused::decode(body).map(|refused| self.peer_refused(id, refused, effects))
            }
            (Some(Phase::Hello), FrameKind::Hello) => {
                Hello::decode(body).map(|hello| self.hello(now, id, &hello, body, effects))
            }
            (Some(Phase::Auth), FrameKind::Auth) => {
                Auth::decode(body).map(|auth| self.proved(now, id, &auth, effects))
            }
            (Some(Phase::State), FrameKind::State) => State::decode(body).map(|state| {
                self.state_came(now, id, state, effects);
                true
            }),
            (Some(Phase::Settling | Phase::Up), FrameKind::Propose) => {
                Propose::decode(body).map(|propose| self.proposed(now, id, propose, effects))
            }
            (Some(Phase::Settling | Phase::Up), FrameKind::Accept) => {
                Accept::decode(body).map(|accept| {
                    self.accepted(now, id, accept, effects);
                    true
                })
            }
            (Some(Phase::Up), FrameKind::Marks) => {
                Marks::decode(body).map(|marks| self.marks_came(now, id, &marks, effects))
            }
            (Some(Phase::Settling | Phase::Up), FrameKind::Grow) => {
                Grow::decode(body).map(|asked| self.grow_asked(id, &frame, asked, effects))
            }
            (Some(Phase::Up), FrameKind::GrowDone) => GrowDone::decode(body).map(|done| {
                self.grow_answered(id, &frame, done, effects);
                true
            }),
            (Some(Phase::Up), FrameKind::CopyHash) => self.hash_came(id, &frame, body, effects),
            // Who compares may be up already when this side is not: it asks again.
            (Some(Phase::Settling | Phase::Up), FrameKind::VerifyHash) => {
                self.verify_hash_came(id, &frame, body, effects)
            }
            (Some(Phase::State | Phase::Settling | Phase::Up), FrameKind::Ping) => {
                self.pinged(now, id, frame, effects);
                Ok(true)
            }
            (Some(Phase::State | Phase::Settling | Phase::Up), FrameKind::Pong) => {
                self.ponged(now, id, frame, effects);
                Ok(true)
            }
            (Some(Phase::Parting), kind) => self.parting(kind, body),
            // The peer was quicker: it is up already. It asks again if it still wants to leave.
            (Some(Phase::Settling), FrameKind::Leave | FrameKind::Isolate) => Ok(true),
            (Some(Phase::Up), _) => {
                let taken = self.data_frame(now, id, frame, buffer, effects);
                if taken == Taken::WithBuffer {
                    return;
                }
                Ok(taken == Taken::Yes)
            }
            (Some(_), _) => Ok(false),
        };
        if let Some(slot) = buffer {
            effects.push(Effect::ReleaseBuffer { slot });
        }
        match handled {
            Ok(true) => {}
            Ok(false) if matches!(phase, None | Some(Phase::Closing)) => {}
            Ok(false) => self.refuse(id, RefusedCode::Protocol, 0, 0, effects),
            Err(error) => self.garbage(id, error, effects),
        }
    }

    /// Both histories went apart, and the connection ends: only what proves it is listened to.
    fn parting(&mut self, kind: FrameKind, body: &[u8]) -> Result<bool, DecodeError> {
        if kind == FrameKind::Evidence {
            self.evidence_came(Evidence::decode(body)?);
        }
        let expected = [FrameKind::Evidence, FrameKind::Ping, FrameKind::Pong];
        Ok(expected.contains(&kind))
    }

    /// The peer lives: a frame of this session came.
    fn heard(&mut self, now: Instant, id: SessionId) -> Option<Phase> {
        if self.current == Some(id) {
            self.last_heard = Some(now);
        }
        self.session(id).map(|session| {
            session.heard = now;
            session.phase
        })
    }

    fn garbage(&mut self, id: SessionId, error: DecodeError, effects: &mut Effects) {
        effects.push(Effect::Notice(Notice::Garbage { error }));
        self.close(id, effects);
    }

    /// Both hellos are here: are they for each other? Not yet believed; only mistakes are told early.
    fn hello(
        &mut self,
        now: Instant,
        id: SessionId,
        hello: &Hello,
        bytes: &[u8],
        effects: &mut Effects,
    ) -> bool {
        let _ = now;
        let own = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
        let wrong = if hello.version_max < own.0 || hello.version_min > own.1 {
            Some((
                RefusedCode::Version,
                u64::from(own.1),
                u64::from(hello.version_max),
            ))
        } else if hello.cluster_id != self.settings.keys.cluster() {
            Some((RefusedCode::Key, 0, 0))
        } else if hello.volume_name != self.settings.volume_name {
            Some((RefusedCode::VolumeName, 0, 0))
        } else if hello.node != self.settings.peer || hello.peer != self.me() {
            Some((
                RefusedCode::Node,
                u64::from(self.me().number()),
                u64::from(hello.node.number()),
            ))
        } else {
            None
        };
        if let Some((code, ours, theirs)) = wrong {
            self.refuse(id, code, ours, theirs, effects);
            return true;
        }
        if self.failed.is_some() && mutant::is(Mutant::FailureToldUnproved) {
            self.refuse(id, self.failure_code(), 0, 0, effects);
            return true;
        }
        let key = *self.settings.keys.sent();
        let Some(session) = self.session(id) else {
            return true;
        };
        session.peer_hello.copy_from_slice(bytes);
        session.phase = Phase::Auth;
        let proof = session.proof(&key, session.own_end());
        self.send(
            id,
            Frame::new(FrameKind::Auth, Epoch(0), 0),
            Auth { proof }.encode().to_vec(),
            effects,
        );
        true
    }

    fn proved(&mut self, now: Instant, id: SessionId, auth: &Auth, effects: &mut Effects) -> bool {
        let keys = self.settings.keys;
        let Some(session) = self.session(id) else {
            return true;
        };
        if !session.is_proved(&keys, &auth.proof) {
            self.refuse(id, RefusedCode::Key, 0, 0, effects);
            return true;
        }
        if self.current.is_some_and(|current| current != id) {
            // A peer that speaks to us right now has no reason to dial again: somebody else has its
            // number. One that was silent lately lost its end of the connection; ours will time out.
            if self.current_spoke_lately(now) {
                self.refuse(id, RefusedCode::SecondPeer, 0, 0, effects);
            } else {
                self.close(id, effects);
            }
            return true;
        }
        if self.failed.is_some() {
            // After the proof: what is proved the peer writes down. This node may have been unable to (S1).
            self.refuse(id, self.failure_code(), 0, 0, effects);
            return true;
        }
        self.current = Some(id);
        if let Some(session) = self.session(id) {
            session.phase = Phase::State;
        }
        self.send_state_when_drained(now, effects);
        true
    }

    fn current_spoke_lately(&self, now: Instant) -> bool {
        let lately = self.settings.keepalive_interval * 2;
        self.current_session()
            .is_some_and(|session| now.since(session.heard) < lately)
    }

    /// The peer was told what this node's copy is, and nothing is agreed on yet: it must stay so.
    pub(super) fn has_told_state(&self) -> bool {
        self.current_session().is_some_and(|session| {
            session.state_sent && matches!(session.phase, Phase::State | Phase::Settling)
        })
    }

    /// Old writes of the peer must be on disk before a new session is agreed on.
    pub(super) fn send_state_when_drained(&mut self, now: Instant, effects: &mut Effects) {
        let Some(id) = self.current else { return };
        let drained = self.peer_ops.is_empty() && !self.engine.is_reading_runs();
        if !drained && !mutant::is(Mutant::StateWithoutDrain) {
            return;
        }
        let waits = self
            .session(id)
            .is_some_and(|session| session.phase == Phase::State && !session.state_sent);
        // A takeover or a superblock on its way: what would be told now could be wrong in a moment.
        let changing = self.change.is_some() && !self.waits_for_device();
        if !waits || changing || !self.persists.is_empty() {
            return;
        }
        let state = self.own_state();
        if let Some(session) = self.session(id) {
            session.state_sent = true;
            session.own_state = Some(state);
        }
        self.send(
            id,
            Frame::new(FrameKind::State, Epoch(0), 0),
            state.encode().to_vec(),
            effects,
        );
        self.settle(now, id, effects);
    }

    fn peer_refused(&mut self, id: SessionId, refused: Refused, effects: &mut Effects) -> bool {
        let parting = |session: &mut Session| session.phase == Phase::Parting;
        if self.session(id).is_some_and(parting) {
            // Both found the same, and this node told it already.
            self.close(id, effects);
            return true;
        }
        let notice = Notice::RefusedByPeer {
            code: refused.code,
            ours: refused.yours,
            theirs: refused.ours,
        };
        self.note_refusal(notice, effects);
        let proved = self.session(id).is_some_and(|session| {
            matches!(session.phase, Phase::State | Phase::Settling | Phase::Up)
        });
        if refused.code == RefusedCode::DiskFailed && proved {
            self.note_peer_failed(effects);
        }
        self.close(id, effects);
        true
    }

    // --- the end of a connection --------------------------------------------------------------

    pub(super) fn session_closed(
        &mut self,
        now: Instant,
        id: SessionId,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        let was_up = self.up_before_close(id);
        self.sessions.retain(|session| session.id != id);
        let _ = reason;
        if self.current != Some(id) {
            return;
        }
        self.current = None;
        self.gathering = None;
        self.told = None;
        self.peer_serving = false;
        let frozen_before = self.engine.is_frozen();
        self.engine.session_lost(now, effects);
        self.change_lost_session(id, effects);
        let peer = self.peer_name();
        self.isolation_is_off(Refusal::Ambiguous { peer }, effects);
        self.set_peer_without_session();
        self.diskless_lost(now, effects);
        // While another view is on its way to the disk, the stricter of the two counts (S4).
        if self.engine.peer() == Peer::Lost && self.is_sole() && self.staged.view.is_sole(self.me())
        {
            self.engine.peer_is_out(now, effects);
        }
        if was_up {
            effects.push(Effect::Notice(Notice::LinkLost));
        }
        if self.engine.is_frozen() && !frozen_before {
            effects.push(Effect::Notice(Notice::Frozen));
            self.forced_end_freezes(now, effects);
        }
    }

    fn up_before_close(&self, id: SessionId) -> bool {
        self.current == Some(id)
            && self
                .sessions
                .iter()
                .any(|session| session.id == id && session.epoch > Epoch(0))
    }

    /// What the peer means while nothing is connected.
    ///
    /// A sole member must not wait for a peer that was lost before its copy stopped to count.
    pub(super) fn set_peer_without_session(&mut self) {
        if self.current.is_none() && self.peer_counts() && self.is_member() {
            self.engine.peer_is_missing();
        }
    }

    /// Asks the peer to write a view down.
    pub(super) fn propose(
        &mut self,
        id: SessionId,
        purpose: Purpose,
        view: crate::view::View,
        effects: &mut Effects,
    ) {
        let copy_id = self.proposed_copy_id();
        self.told_epoch = self.told_epoch.max(view.epoch);
        let propose = Propose {
            view,
            purpose,
            copy_id,
            volume_id: self.staged.volume_id,
        };
        self.send(
            id,
            Frame::new(FrameKind::Propose, view.epoch, 0),
            propose.encode().to_vec(),
            effects,
        );
    }
}

/// What became of a data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was legal.
    Yes,
    /// It was legal, and its buffer is in use until its disk operation is done.
    WithBuffer,
    /// It does not belong here.
    No,
}

impl Session {
    fn own_end(&self) -> End {
        if self.dialled {
            End::Dialler
        } else {
            End::Listener
        }
    }

    pub(super) fn other_end(&self) -> End {
        if self.dialled {
            End::Listener
        } else {
            End::Dialler
        }
    }

    pub(super) fn proof(&self, key: &Secret, end: End) -> [u8; 32] {
        let (dialler, listener) = if self.dialled {
            (&self.own_hello, &self.peer_hello)
        } else {
            (&self.peer_hello, &self.own_hello)
        };
        auth::proof(key.bytes(), end, dialler, listener)
    }
}
