//! What a data plane's status means for the keeper, and what a word to it is as a command.

use alloc::string::ToString;

use mirror_core::admin::{Command, CopyState, Frozen, LinkState, Role, Status, ViewName};
use mirror_core::types::{Epoch, VolumeId};
use mirror_core::view::{ViewHistory, ViewMark};

use crate::keeper::{VolumeFacts, Word};
use crate::mutant::{self, Mutant};
use crate::partition::Standing;

/// The peer counts as linked while the link heard it within so many milliseconds: a heartbeat's timeout.
pub const LINKED_MS: u64 = 2000;

/// What the status says of the copy; `None` if it names a view that is none.
pub fn facts(status: &Status) -> Option<VolumeFacts> {
    let view = mark(status.view.epoch, &status.view.id)?;
    let mut history = ViewHistory::default();
    for name in status.view.history.iter().rev() {
        history.push(name.mark()?);
    }
    let heard = status.link.last_heard_ms.is_some_and(|ms| ms < LINKED_MS);
    let between = matches!(status.role, Role::Activating | Role::Deactivating);
    let linked = status.link.state == LinkState::Up && heard;
    Some(VolumeFacts {
        standing: standing(status, linked),
        view,
        history,
        next_epoch: Epoch(status.view.next_epoch),
        linked,
        alone: status.view.insync.len() == 1 && status.view.insync.contains(&status.node),
        changing: status.view.changing || between,
    })
}

fn standing(status: &Status, heard: bool) -> Standing {
    let counts = status.view.insync.contains(&status.node) && status.copy == CopyState::InSync;
    let alone = status.view.insync.len() == 1;
    let peer_serves = status.view.active.as_ref() == Some(&status.peer);
    let linked = status.link.state == LinkState::Up;
    // While the peer carries the service it is linked; a service that ended leaves its device, which answers with errors.
    let broken = status.copy == CopyState::Failed && !linked && !mutant::is(Mutant::BrokenServes);
    let asked = status.view.booted && !alone && !mutant::is(Mutant::AskedPeerClaims);
    match (status.role, status.frozen) {
        (Role::Active | Role::Deactivating, _) if broken => Standing::Broken,
        // The peer was asked to serve, and may have agreed unheard: no grant is taken here (LS1081), and none must be held.
        (Role::Active, Some(Frozen::PeerLost)) if asked => Standing::Broken,
        (Role::Active | Role::Deactivating, Some(Frozen::PeerLost)) => Standing::Frozen,
        // The link has not noticed yet that the peer is silent; nothing is acknowledged meanwhile. Who serves must not
        // begin to ask later than the other one.
        (Role::Active, _) if counts && !alone && !heard => Standing::Frozen,
        (Role::Active | Role::Deactivating | Role::Activating, _) => Standing::Serving,
        (Role::Fenced, _) if !counts => Standing::NotCurrent,
        // The peer, whose disk failed, serves through this copy.
        (Role::Fenced, _) if alone && peer_serves && linked => Standing::NotCurrent,
        (Role::Fenced, _) if alone => Standing::Alone,
        (Role::Fenced, _) if status.view.booted => Standing::Booted,
        (Role::Fenced, _) if peer_serves => Standing::Standby,
        (Role::Fenced, _) => Standing::Unserved,
    }
}

/// The volume's id in a status; `None` before its first contact with the peer.
pub fn volume_id(status: &Status) -> Option<VolumeId> {
    let id = mark(0, &status.volume_id)?.id;
    Some(VolumeId(id.0)).filter(|id| !id.is_none())
}

fn mark(epoch: u64, id: &str) -> Option<ViewMark> {
    let name = ViewName {
        epoch,
        id: id.to_string(),
    };
    name.mark()
}

/// The command that says the word.
pub fn command(word: Word) -> Command {
    match word {
        Word::GoAlone { basis, next, until } | Word::TakeOver { basis, next, until } => {
            Command::Granted {
                basis: basis.into(),
                next: next.into(),
                until_nanos: until.as_nanos(),
            }
        }
        Word::Start => Command::Activate,
        Word::StepDown => Command::Deactivate { force: true },
        Word::Release => Command::Deactivate { force: false },
    }
}
